/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Pool pages: their mappings and who is charged for these. See "Who is charged"
 * in pool_rmap.c; nothing here is for use outside of mm/pool_*.c.
 */
#ifndef _MM_POOL_RMAP_H
#define _MM_POOL_RMAP_H

#include <linux/bit_spinlock.h>
#include <linux/memcontrol.h>
#include <linux/mm.h>
#include <linux/pool_pages.h>
#include <linux/rmap.h>

/*
 * A pool page has no use for two words of other anonymous pages: index holds its
 * family, private its number of guests, above a bit that is the lock of both.
 */
#define POOL_RMAP_LOCK	0
#define POOL_GUEST	2UL

static inline unsigned long *pool_rmap_word(struct folio *folio)
{
	return (unsigned long *)&folio->private;
}

static inline void lock_pool_rmap(struct folio *folio)
{
	bit_spin_lock(POOL_RMAP_LOCK, pool_rmap_word(folio));
}

static inline void unlock_pool_rmap(struct folio *folio)
{
	__bit_spin_unlock(POOL_RMAP_LOCK, pool_rmap_word(folio));
}

static inline unsigned int pool_guests(struct folio *folio)
{
	return READ_ONCE(*pool_rmap_word(folio)) / POOL_GUEST;
}

static inline struct anon_vma *pool_family(const struct folio *folio)
{
	return (struct anon_vma *)READ_ONCE(folio->index);
}

static inline void set_pool_family(struct folio *folio, struct anon_vma *family)
{
	WRITE_ONCE(folio->index, (unsigned long)family);
}

/* The folio has no state of a pool page yet, and @family maps it, or nobody. */
static inline void init_pool_rmap(struct folio *folio, struct anon_vma *family)
{
	set_pool_family(folio, family);
	folio->private = NULL;
}

struct pool_payer;

/* The rmap is locked. */
static __always_inline void pool_add_guest(struct folio *folio)
{
	*pool_rmap_word(folio) += POOL_GUEST;
	/* Guests first, see "Who is charged". Pairs with the atomic that ends a mapping. */
	smp_mb__before_atomic();
	atomic_inc(&folio->_mapcount);
}

/**
 * struct pool_charge - charges for mappings that are about to be made
 * @payer: of the mm that is charged
 * @memcg: the group that is charged; NULL if there are no groups
 * @nr: charges taken
 * @homes: of them, used for pages of which the mapping's family becomes the owner
 * @guests: of them, used for mappings of other families' pages
 */
struct pool_charge {
	struct pool_payer *payer;
	struct mem_cgroup *memcg;
	unsigned int nr;
	unsigned int homes;
	unsigned int guests;
};

#ifdef CONFIG_MEMCG
bool pool_charge_begin(struct pool_charge *charge, struct mm_struct *mm, unsigned int nr,
		       gfp_t gfp);
void pool_charge_commit(struct pool_charge *charge, int nid);
void pool_charge_end(struct pool_charge *charge);
bool pool_charge_dup(struct folio *folio, struct mm_struct *to, struct mm_struct *from);
void pool_charge_keep(struct folio *folio, struct mm_struct *mm);
void pool_uncharge_home(struct folio *folio, int pages);
void pool_uncharge_guest(struct folio *folio, struct mm_struct *mm, int pages);

static inline void pool_charge_folio(struct folio *folio, struct mem_cgroup *memcg)
{
	folio->memcg_data = (unsigned long)memcg;
}
#else
static inline bool pool_charge_begin(struct pool_charge *charge, struct mm_struct *mm,
				     unsigned int nr, gfp_t gfp)
{
	*charge = (struct pool_charge){};
	return true;
}

static inline void pool_charge_commit(struct pool_charge *charge, int nid)
{
	__mod_node_page_state(NODE_DATA(nid), NR_ANON_MAPPED, charge->homes);
}

static inline void pool_charge_end(struct pool_charge *charge)
{
}

static inline bool pool_charge_dup(struct folio *folio, struct mm_struct *to,
				   struct mm_struct *from)
{
	return true;
}

static inline void pool_charge_keep(struct folio *folio, struct mm_struct *mm)
{
}

static inline void pool_uncharge_home(struct folio *folio, int pages)
{
	__mod_node_page_state(folio_pgdat(folio), NR_ANON_MAPPED, pages);
}

static inline void pool_uncharge_guest(struct folio *folio, struct mm_struct *mm, int pages)
{
	__mod_node_page_state(folio_pgdat(folio), NR_ANON_MAPPED, pages);
}

static inline void pool_charge_folio(struct folio *folio, struct mem_cgroup *memcg)
{
}
#endif

void pool_add_other_rmap(struct folio *folio, struct anon_vma *family,
			 struct pool_charge *charge);

/*
 * Counts one more mapping, for which @charge has a charge, in a VMA of @family. The
 * caller has a reference on the folio, and holds the lock of the page table.
 */
static __always_inline void pool_add_rmap(struct folio *folio, struct anon_vma *family,
					  struct pool_charge *charge)
{
	struct anon_vma *owner;
	int mapcount;

	lock_pool_rmap(folio);
	owner = pool_family(folio);
	mapcount = atomic_read(&folio->_mapcount);
	if (!owner && mapcount < 0) {
		set_pool_family(folio, family);
		pool_charge_folio(folio, charge->memcg);
		atomic_set(&folio->_mapcount, 0);
		charge->homes++;
	} else if (unlikely(owner && mapcount < (int)pool_guests(folio))) {
		pool_add_other_rmap(folio, family, charge);
	} else if (owner == family) {
		atomic_inc(&folio->_mapcount);
	} else {
		pool_add_guest(folio);
		charge->guests++;
	}
	unlock_pool_rmap(folio);
}

#endif /* _MM_POOL_RMAP_H */
