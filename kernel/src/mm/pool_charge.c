// SPDX-License-Identifier: GPL-2.0
/*
 * Pool pages: charges to memory cgroups.
 */
#include <linux/hashtable.h>
#include <linux/memcontrol.h>
#include <linux/mm.h>
#include <linux/pool_pages.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include <linux/swap.h>

#include "internal.h"
#include "memcontrol-v1.h"
#include "pool_rmap.h"

/**
 * DOC: Charges for pool pages
 *
 * Charges are to the group that the mm is in. Those for guests (see "Who is charged"
 * in pool_rmap.c) stay with the mm, which may move to another group meanwhile, so it
 * is remembered which one it was (struct pool_payer), for as long as there are any.
 * So what a process installs after it was moved is charged to the group that it was in,
 * until a moment when it maps nothing as a guest: counts are all that there is, and they
 * cannot tell whose a mapping was. Nothing is charged to nobody, or twice; a group that
 * was removed stays, dying, for so long, and until the mm is charged again or ends.
 * Groups are to be joined before a restore.
 * A child inherits it: while fork() runs it is in no group yet.
 *
 * Charges come in batches, and go back to the CPU's stock, which takes no atomic
 * operation. Nothing waits here for what is not to be had: the caller then copies, by
 * a page fault, or with a page allocated as for one, which reclaims, and in the end
 * calls the OOM killer as for any memory.
 */

static void mod_anon_mapped(struct mem_cgroup *memcg, int nid, int charges, int pages)
{
	if (memcg && charges) {
		__mod_lruvec_state(mem_cgroup_lruvec(memcg, NODE_DATA(nid)), NR_ANON_MAPPED,
				   charges);
		pages -= charges;
	}
	if (pages)
		__mod_node_page_state(NODE_DATA(nid), NR_ANON_MAPPED, pages);
}

static void uncharge(struct mem_cgroup *memcg, unsigned int nr)
{
	if (nr && memcg && !mem_cgroup_is_root(memcg))
		refill_stock(memcg, nr);
}

/* The mms that have mapped pool pages. There are few, so they take no room in mm_struct. */
struct pool_payer {
	struct hlist_node node;
	struct rcu_head rcu;
	struct mm_struct *mm;
	spinlock_t lock;		/* for changes of @memcg */
	struct mem_cgroup *memcg;	/* constant while @charges is not 0 */
	atomic_long_t charges;		/* of guests, and of those to come */
};

static DEFINE_HASHTABLE(payers, 8);
static DEFINE_SPINLOCK(payers_lock);
atomic_t nr_pool_payers = ATOMIC_INIT(0);

/* The payer for an mm, which it has until its end; NULL if it has none. */
static struct pool_payer *find_payer(struct mm_struct *mm)
{
	struct pool_payer *payer;

	rcu_read_lock();
	hash_for_each_possible_rcu(payers, payer, node, (unsigned long)mm) {
		if (payer->mm == mm)
			break;
	}
	rcu_read_unlock();
	return payer;
}

/* The same, made if need be; NULL if there is no memory for it. */
static struct pool_payer *get_payer(struct mm_struct *mm, gfp_t gfp)
{
	struct pool_payer *other, *payer = find_payer(mm);

	if (likely(payer))
		return payer;
	payer = kzalloc(sizeof(*payer), gfp | __GFP_ACCOUNT | __GFP_NOWARN);
	if (!payer)
		return NULL;
	payer->mm = mm;
	spin_lock_init(&payer->lock);
	spin_lock(&payers_lock);
	other = find_payer(mm);
	if (!other) {
		hash_add_rcu(payers, &payer->node, (unsigned long)mm);
		atomic_inc(&nr_pool_payers);
	}
	spin_unlock(&payers_lock);
	if (!other)
		return payer;
	kfree(payer);
	return other;
}

/* The group that pays, which stays so until as many charges are let go. */
static struct mem_cgroup *hold_group(struct pool_payer *payer, long nr)
{
	long charges = atomic_long_read(&payer->charges);
	struct mem_cgroup *old = NULL;

	while (charges) {
		if (atomic_long_try_cmpxchg(&payer->charges, &charges, charges + nr))
			return payer->memcg;
	}
	spin_lock(&payer->lock);
	if (!atomic_long_read(&payer->charges)) {
		old = payer->memcg;
		payer->memcg = get_mem_cgroup_from_mm(payer->mm);
	}
	/* who sees charges, sees whose they are: pairs with the cmpxchg above */
	smp_mb__before_atomic();
	atomic_long_add(nr, &payer->charges);
	spin_unlock(&payer->lock);
	mem_cgroup_put(old);
	return payer->memcg;
}

static void let_go(struct pool_payer *payer, long nr)
{
	/* the group is not used later: hold_group() puts it when it sees none */
	smp_mb__before_atomic();
	atomic_long_sub(nr, &payer->charges);
}

/**
 * pool_charge_begin - take charges for mappings
 * @charge: what is taken; pool_charge_end() comes after it, whatever is returned
 * @mm: to be charged
 * @nr: how many mappings there may be
 * @gfp: whether it may reclaim
 *
 * Return: whether there are as many charges.
 */
bool pool_charge_begin(struct pool_charge *charge, struct mm_struct *mm, unsigned int nr,
		       gfp_t gfp)
{
	*charge = (struct pool_charge){};
	if (mem_cgroup_disabled())
		return true;
	charge->payer = get_payer(mm, GFP_KERNEL);
	if (!charge->payer)
		return false;
	charge->memcg = hold_group(charge->payer, nr);
	if (try_charge(charge->memcg, gfp, nr)) {
		let_go(charge->payer, nr);
		return false;
	}
	charge->nr = nr;
	return true;
}

/**
 * pool_charge_commit - make charges those of the mappings that were added
 * @charge: as pool_charge_begin() took it and pool_add_rmap() used it
 * @nid: the pages' node
 *
 * Context: with the lock of the page table that kept the mappings.
 */
void pool_charge_commit(struct pool_charge *charge, int nid)
{
	if (charge->homes && charge->memcg)
		css_get_many(&charge->memcg->css, charge->homes);
	mod_anon_mapped(charge->memcg, nid, charge->homes + charge->guests, charge->homes);
}

/**
 * pool_charge_end - give back the charges that were not used
 * @charge: as pool_charge_commit() left it
 */
void pool_charge_end(struct pool_charge *charge)
{
	if (!charge->nr)
		return;
	uncharge(charge->memcg, charge->nr - charge->homes - charge->guests);
	let_go(charge->payer, charge->nr - charge->guests);
}

/**
 * pool_charge_dup - charge a child for a guest that it has from its parent
 * @folio: a page that the parent maps as a guest, with the page-table lock held
 * @to: the child, which is not running
 * @from: the parent
 *
 * Return: whether there was a charge.
 */
bool pool_charge_dup(struct folio *folio, struct mm_struct *to, struct mm_struct *from)
{
	struct pool_payer *payer;

	if (mem_cgroup_disabled())
		return true;
	payer = get_payer(to, GFP_NOWAIT);
	if (!payer)
		return false;
	/* The parent's does not change meanwhile: fork() has its mmap_lock. */
	if (!payer->memcg) {
		payer->memcg = find_payer(from)->memcg;
		css_get(&payer->memcg->css);
	}
	if (try_charge(payer->memcg, GFP_NOWAIT, 1))
		return false;
	atomic_long_inc(&payer->charges);
	mod_anon_mapped(payer->memcg, folio_nid(folio), 1, 0);
	return true;
}

/**
 * pool_charge_keep - make a guest's charge the page's own
 * @folio: a page whose only mapping is a guest; it has no other users
 * @mm: where it is mapped
 */
void pool_charge_keep(struct folio *folio, struct mm_struct *mm)
{
	struct pool_payer *payer;

	if (mem_cgroup_disabled())
		return;
	payer = find_payer(mm);
	css_get(&payer->memcg->css);
	pool_charge_folio(folio, payer->memcg);
	let_go(payer, 1);
}

/**
 * pool_uncharge_home - the family of a page has no mapping of it any more
 * @folio: whose charge it was; its rmap is locked
 * @pages: how NR_ANON_MAPPED of the node changes
 */
void pool_uncharge_home(struct folio *folio, int pages)
{
	struct mem_cgroup *memcg = folio_memcg(folio);

	mod_anon_mapped(memcg, folio_nid(folio), -1, pages);
	if (!memcg)
		return;
	pool_charge_folio(folio, NULL);
	uncharge(memcg, 1);
	css_put(&memcg->css);
}

/**
 * pool_uncharge_guest - a guest does not map a page any more
 * @folio: the page
 * @mm: the guest; the page-table lock is held
 * @pages: how NR_ANON_MAPPED of the node changes
 */
void pool_uncharge_guest(struct folio *folio, struct mm_struct *mm, int pages)
{
	struct pool_payer *payer;

	if (mem_cgroup_disabled()) {
		mod_anon_mapped(NULL, folio_nid(folio), 0, pages);
		return;
	}
	payer = find_payer(mm);
	mod_anon_mapped(payer->memcg, folio_nid(folio), -1, pages);
	uncharge(payer->memcg, 1);
	let_go(payer, 1);
}

void __mm_exit_pool(struct mm_struct *mm)
{
	struct pool_payer *payer = find_payer(mm);

	if (!payer)
		return;
	VM_WARN_ON_ONCE(atomic_long_read(&payer->charges));
	spin_lock(&payers_lock);
	hash_del_rcu(&payer->node);
	atomic_dec(&nr_pool_payers);
	spin_unlock(&payers_lock);
	mem_cgroup_put(payer->memcg);
	kfree_rcu(payer, rcu);
}
