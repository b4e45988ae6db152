// SPDX-License-Identifier: GPL-2.0
/*
 * Pool pages: making one of an anonymous page.
 */
#include <linux/rmap.h>
#include <linux/swap.h>

#include "pool_take.h"

/**
 * DOC: Taking pages
 *
 * A small anonymous page becomes a pool page where it is: its entry is
 * write-protected, the page leaves the LRU, its mapping becomes
 * PAGE_MAPPING_POOL, and the store gets a reference. The caller flushes the TLB
 * before the lock of the page table is dropped, so no write reaches the page
 * later.
 *
 * A page with users that the caller does not know of (GUP, per-CPU LRU batches,
 * reclaim) must not be taken. The references that a page may have besides those of
 * its mappings are the caller's "others": 0 for a page found in a page table, 1
 * for a page in a pipe whose mutex is held.
 *
 * A page with one mapping has one reference for it, which the page-table lock
 * keeps. This freezes the count at 0 while it changes state: GUP-fast either took
 * its reference before and fails the freeze, or comes after and sees a changed
 * entry or PageAnonExclusive cleared. A page that fork() shares can not be frozen,
 * as the others may unmap it: it is locked, taken off the LRU, then counted; it
 * has no writable mapping and cannot be pinned. All who map it are of one family, see
 * "Who is charged" in pool_rmap.c.
 */

void pool_lru_unlock(struct pool_lru *lru)
{
	enum lru_list list;

	if (!lru->lruvec)
		return;
	for (list = LRU_INACTIVE_ANON; list <= LRU_ACTIVE_ANON; list++) {
		if (lru->nr_off[list])
			update_lru_size(lru->lruvec, list, lru->zone, -lru->nr_off[list]);
		lru->nr_off[list] = 0;
	}
	unlock_page_lruvec_irq(lru->lruvec);
	lru->lruvec = NULL;
}

void pool_lru_lock_other(struct pool_lru *lru, struct folio *folio)
{
	pool_lru_unlock(lru);
	lru->lruvec = folio_lruvec_lock_irq(folio);
	lru->memcg = folio_memcg(folio);
	lru->zone = folio_zonenum(folio);
	lru->nr_locked = 1;
}

/*
 * A small anonymous folio that @mapcount page-table entries map, with @others
 * references besides. The caller has locked it, and it is not in the swap cache.
 */
bool pool_take_shared(struct pool_lru *lru, struct folio *folio, int mapcount, int others)
{
	bool kept;

	if (folio_ref_count(folio) != mapcount + others || !folio_test_clear_lru(folio))
		return false;
	folio_get(folio);
	pool_lru_lock(lru, folio);
	/*
	 * Counted as a mapping, this keeps whoever unmaps the folio from being the last
	 * while what is to be done then changes.
	 */
	kept = atomic_inc_unless_negative(&folio->_mapcount);
	/* Whoever finds the folio on the LRU has its reference counted below. */
	smp_mb__after_atomic();
	if (kept && folio_ref_count(folio) == mapcount + others + 1 &&
	    folio_mapcount(folio) == mapcount + 1 && !PageAnonExclusive(&folio->page)) {
		lruvec_del_folio(lru->lruvec, folio);
		make_pool_folio(lru, folio);
		atomic_dec_return(&folio->_mapcount);	/* ordered */
		/* Its lock is held with interrupts on, and they take that of the LRU. */
		pool_lru_unlock(lru);
		folio_pool_rmap_removed(folio);
		return true;
	}
	if (kept && atomic_add_negative(-1, &folio->_mapcount))
		__lruvec_stat_mod_folio(folio, NR_ANON_MAPPED, -1);
	folio_set_lru(folio);
	folio_put(folio);
	return false;
}

/*
 * A small anonymous folio that is mapped at @pte, with the page-table lock held, and
 * that pool_take_plain() did not take.
 */
bool pool_take_locked(struct pool_lru *lru, struct folio *folio, int others, struct mm_struct *mm,
		      unsigned long addr, pte_t *pte, pte_t ptent)
{
	int mapcount = folio_mapcount(folio);
	bool taken = false;

	pool_lru_unlock(lru);
	if (!folio_trylock(folio))
		return false;
	if (folio_test_swapcache(folio))
		folio_free_swap(folio);
	if (!folio_test_swapcache(folio) && !folio_test_writeback(folio)) {
		if (mapcount == 1)
			taken = pool_take_sole(lru, folio, 1 + others, mm, addr, pte, ptent,
					       BIT(PG_lru), BIT(PG_lru));
		else
			taken = pool_take_shared(lru, folio, mapcount, others);
	}
	folio_unlock(folio);
	return taken;
}
