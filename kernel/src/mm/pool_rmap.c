// SPDX-License-Identifier: GPL-2.0
/*
 * Pool pages: their mappings, counted.
 */
#include <linux/mm.h>
#include <linux/pool_pages.h>
#include <linux/rmap.h>
#include <linux/swap.h>

#include "internal.h"
#include "pool_rmap.h"

/**
 * DOC: Who is charged
 *
 * Whoever maps a pool page is charged for it, so that storing memory and deleting it
 * from the store is no way round the limit of a memory cgroup. What the store has is
 * in the store's books.
 *
 * fork() shares memory without a charge, so the unit that is charged is not the
 * process but the family: the VMAs that fork() made of one, which have one root
 * anon_vma. A page belongs to the family that it was captured from, or that first
 * mapped it, until that has no mapping any more. It is charged as all memory is, by
 * its memcg_data, to one group, however many of the family have it. Mappings of other
 * families are guests, and each has a charge of its own, to the group of its mm.
 * Guests do not inherit the page: a family becomes its owner only when nobody maps it.
 * So whether a mapping is a guest is decided once, and known when it ends. All
 * mappings of a page that is being captured are those of one family.
 *
 * A mapping of the family ends with one atomic operation, unless it is the last one.
 * What changes family or guests is done under a lock in the page. Guests are
 * subtracted before and added before the map count is: "map count <= guests" is never
 * missed, and true without the lock it is looked at again with the lock.
 *
 * A page is in NR_ANON_MAPPED of its node once, while mapped, and in that of a group
 * once for each charge.
 */

/* The charge for the family ends with its last mapping. The rmap is locked. */
static void settle(struct folio *folio)
{
	const int guests = pool_guests(folio);

	if (!pool_family(folio) || atomic_read(&folio->_mapcount) + 1 > guests)
		return;
	set_pool_family(folio, NULL);
	pool_uncharge_home(folio, guests ? 0 : -1);
}

/* pool_add_rmap() for a page of which whoever ended the family's last mapping has no lock yet */
void pool_add_other_rmap(struct folio *folio, struct anon_vma *family, struct pool_charge *charge)
{
	settle(folio);
	if (atomic_read(&folio->_mapcount) < 0) {
		set_pool_family(folio, family);
		pool_charge_folio(folio, charge->memcg);
		atomic_set(&folio->_mapcount, 0);
		charge->homes++;
	} else {
		pool_add_guest(folio);
		charge->guests++;
	}
}

static void settle_unless_mapped(struct folio *folio, int mapcount)
{
	if (likely(mapcount > (int)pool_guests(folio)))
		return;
	lock_pool_rmap(folio);
	settle(folio);
	unlock_pool_rmap(folio);
}

/**
 * folio_remove_pool_rmap - a mapping of a pool page ends
 * @folio: a folio for which folio_test_pool() is true
 * @vma: where it is mapped; the caller holds the page-table lock
 */
void folio_remove_pool_rmap(struct folio *folio, struct vm_area_struct *vma)
{
	/* If this is the family's, the mapping keeps it so, and otherwise from being so. */
	if (likely(pool_family(folio) == vma->anon_vma->root)) {
		settle_unless_mapped(folio, atomic_dec_return(&folio->_mapcount) + 1);
		return;
	}
	lock_pool_rmap(folio);
	*pool_rmap_word(folio) -= POOL_GUEST;
	atomic_dec_return(&folio->_mapcount);	/* ordered */
	pool_uncharge_guest(folio, vma->vm_mm,
			    pool_family(folio) || pool_guests(folio) ? 0 : -1);
	settle(folio);
	unlock_pool_rmap(folio);
}

/**
 * folio_pool_rmap_removed - a mapping ended of a page that became a pool page meanwhile
 * @folio: a folio for which folio_test_pool() is true, now that the map count is down
 *
 * Instead of what is done for the last mapping of other pages.
 */
void folio_pool_rmap_removed(struct folio *folio)
{
	settle_unless_mapped(folio, folio_mapcount(folio));
}

/**
 * folio_try_dup_pool_rmap - fork() shares a pool page
 * @folio: a folio for which folio_test_pool() is true, with a reference for the child
 * @dst_vma: the child's
 * @src_vma: the parent's; the caller holds the page-table lock
 *
 * Return: false if the page has to be copied: it has as many references as it may
 * have, or there is no charge to be had without waiting.
 */
bool folio_try_dup_pool_rmap(struct folio *folio, struct vm_area_struct *dst_vma,
			     struct vm_area_struct *src_vma)
{
	if (folio_ref_count(folio) > pool_max_refs())
		return false;
	if (likely(pool_family(folio) == src_vma->anon_vma->root)) {
		atomic_inc(&folio->_mapcount);
		return true;
	}
	if (!pool_charge_dup(folio, dst_vma->vm_mm, src_vma->vm_mm))
		return false;
	lock_pool_rmap(folio);
	pool_add_guest(folio);
	unlock_pool_rmap(folio);
	return true;
}

/**
 * folio_leave_pool - make a pool page ordinary memory of a process again
 * @folio: a folio for which folio_test_pool() is true
 * @vma: where it is mapped, by a process that is about to write
 * @addr: at this address; the caller holds the page-table lock
 *
 * Does so if neither a store nor another process has a reference; then the
 * writer may reuse the page like any anonymous one. Its charge stays what it is.
 */
void folio_leave_pool(struct folio *folio, struct vm_area_struct *vma, unsigned long addr)
{
	bool leave;

	/* It would have to be counted as locked again. */
	if ((vma->vm_flags & VM_LOCKED) || folio_test_mlocked(folio))
		return;
	if (!folio_ref_freeze(folio, 1))
		return;
	leave = folio_test_pool(folio);
	if (leave) {
		if (pool_guests(folio))
			pool_charge_keep(folio, vma->vm_mm);
		folio->private = NULL;
		folio->index = linear_page_index(vma, addr);
		WRITE_ONCE(folio->mapping, (void *)vma->anon_vma + PAGE_MAPPING_ANON);
	}
	folio_ref_unfreeze(folio, 1);
	if (leave)
		folio_add_lru(folio);
}
