/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Pool pages: what makes one of an anonymous page. See "Taking pages" in
 * pool_take.c; nothing here is for use outside of mm/pool_*.c.
 */
#ifndef _MM_POOL_TAKE_H
#define _MM_POOL_TAKE_H

#include <linux/memcontrol.h>
#include <linux/mm.h>
#include <linux/mm_inline.h>
#include <linux/pool_pages.h>

#include "internal.h"
#include "pool_rmap.h"

/* Pages taken off the LRU with interrupts disabled. */
#define POOL_LRU_BATCH	64

/**
 * struct pool_lru - pages on their way off the LRU; all zero at first but @pool
 * @pool: what they become pages of
 * @family: root anon_vma of the VMAs that map them; NULL if none does
 * @lruvec: locked, or NULL; the fields below are for it
 * @memcg: the group whose it is
 * @zone: that of the pages in @nr_off
 * @nr_locked: pages handled under its lock
 * @nr_off: pages taken off, not yet accounted for
 */
struct pool_lru {
	const struct pool_region *pool;
	struct anon_vma *family;
	struct lruvec *lruvec;
	struct mem_cgroup *memcg;
	enum zone_type zone;
	unsigned int nr_locked;
	long nr_off[LRU_ACTIVE_ANON + 1];
};

void pool_lru_unlock(struct pool_lru *lru);
void pool_lru_lock_other(struct pool_lru *lru, struct folio *folio);
bool pool_take_shared(struct pool_lru *lru, struct folio *folio, int mapcount, int others);
bool pool_take_locked(struct pool_lru *lru, struct folio *folio, int others, struct mm_struct *mm,
		      unsigned long addr, pte_t *pte, pte_t ptent);

/* The folios of the region differ in their memory cgroup and zone, not in their node. */
static __always_inline void pool_lru_lock(struct pool_lru *lru, struct folio *folio)
{
	if (likely(lru->lruvec && lru->memcg == folio_memcg(folio) &&
		   lru->zone == folio_zonenum(folio) && lru->nr_locked < POOL_LRU_BATCH))
		lru->nr_locked++;
	else
		pool_lru_lock_other(lru, folio);
}

/* The folio is off its LRU list; nobody else changes its state now. */
static __always_inline void make_pool_folio(const struct pool_lru *lru, struct folio *folio)
{
	const unsigned long nr = folio_pfn(folio) - lru->pool->start_pfn;
	/* The LRU flags are checked when the page is freed and nobody else clears them. */
	const unsigned long clear = BIT(PG_lru) | BIT(PG_active) | BIT(PG_unevictable) |
				    BIT(PG_referenced) | BIT(PG_anon_exclusive);
	/* It may have been MADV_FREEd. */
	const unsigned long set = BIT(PG_dirty) | BIT(PG_swapbacked);

	if (test_bit(nr, lru->pool->written))
		clear_bit(nr, lru->pool->written);
	init_pool_rmap(folio, lru->family);
	/* orders that before the next: from there on others may share the page */
	set_mask_bits(&folio->flags, clear, set);
	WRITE_ONCE(folio->mapping, PAGE_MAPPING_POOL);
}

/*
 * Takes a small anonymous folio if it has @refs references, which do not go away
 * meanwhile, and if those of its flags that are in @mask are @value. @pte, if not
 * NULL, is its only mapping, with the page-table lock held.
 */
static __always_inline bool pool_take_sole(struct pool_lru *lru, struct folio *folio, int refs,
					   struct mm_struct *mm, unsigned long addr, pte_t *pte,
					   pte_t ptent, unsigned long mask, unsigned long value)
{
	unsigned long flags;

	if (unlikely(!folio_ref_freeze(folio, refs)))
		return false;
	flags = READ_ONCE(folio->flags);
	if (unlikely((flags & mask) != value)) {
		folio_ref_unfreeze(folio, refs);
		return false;
	}
	if (pte && pte_write(ptent))
		ptep_set_wrprotect(mm, addr, pte);
	pool_lru_lock(lru, folio);
	/* Its place in the lists may have changed before the lock was taken. */
	flags = READ_ONCE(folio->flags);
	if (likely((flags & (BIT(PG_swapbacked) | BIT(PG_unevictable) | LRU_GEN_MASK)) ==
		   BIT(PG_swapbacked))) {
		/* lruvec_del_folio(), with one update of the statistics for many folios */
		__list_del_entry(&folio->lru);
		lru->nr_off[flags & BIT(PG_active) ? LRU_ACTIVE_ANON : LRU_INACTIVE_ANON]++;
	} else {
		lruvec_del_folio(lru->lruvec, folio);
	}
	make_pool_folio(lru, folio);
	folio_ref_unfreeze(folio, refs + 1);
	return true;
}

/*
 * The ordinary case: mapped once, at @pte, and @others references besides. Without
 * more references nobody can hold the lock, add the folio to the swap cache, or take
 * it off the LRU.
 */
static __always_inline bool pool_take_plain(struct pool_lru *lru, struct folio *folio, int others,
					    struct mm_struct *mm, unsigned long addr, pte_t *pte,
					    pte_t ptent)
{
	const unsigned long plain = BIT(PG_lru) | BIT(PG_swapbacked);
	const unsigned long special = BIT(PG_head) | BIT(PG_locked) | BIT(PG_swapcache) |
				      BIT(PG_writeback);

	return pool_take_sole(lru, folio, 1 + others, mm, addr, pte, ptent, plain | special, plain);
}

#endif /* _MM_POOL_TAKE_H */
