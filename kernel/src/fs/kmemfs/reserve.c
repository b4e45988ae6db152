// SPDX-License-Identifier: GPL-2.0
/*
 * kmemfs: pages for commits of a full pool
 */

/**
 * DOC: the reserve
 *
 * Metadata is copy-on-write, so a commit needs pages even if all it does is to
 * give pages back. What deletes, renames and changes of attributes can need is
 * known: the inode table, written anew. So many pages are held here, and some
 * more for extent trees. A leaf of the inode table brings its pages along when
 * its first inode gets a name: one for its first version, one for the next. A
 * file that finds none is not created. The pages that a commit replaces fill the
 * reserve again.
 *
 * With reserve= there are more, for data when the node has no page left. What is
 * kept back for commits is not for data.
 *
 * Pages are on a list by their lru field, so keeping one needs no memory.
 */

#include <linux/mm.h>
#include <linux/sched/mm.h>
#include "kmemfs.h"

/* Pages of extent trees and inner pages that a commit may need besides */
#define KMEMFS_RESERVE_MIN	256

void kmemfs_reserve_init(struct kmemfs_reserve *r)
{
	spin_lock_init(&r->lock);
	INIT_LIST_HEAD(&r->pages);
	r->nr = 0;
	r->leaves = 0;
	r->new_leaves = 0;
	r->data = 0;
}

/* For commits. Caller holds r->lock. */
static unsigned long kmemfs_reserve_need(const struct kmemfs_reserve *r)
{
	unsigned long inner = r->leaves / (KMEMFS_INDEX_ENTRIES / 2);

	lockdep_assert_held(&r->lock);
	return KMEMFS_RESERVE_MIN + r->leaves + r->new_leaves + inner;
}

/* Caller holds r->lock */
static unsigned long kmemfs_reserve_want(const struct kmemfs_reserve *r)
{
	return kmemfs_reserve_need(r) + r->data;
}

/* Keep a page if one is missing, or give it back to the system */
void kmemfs_reserve_give(struct kmemfs *k, u32 page)
{
	struct kmemfs_reserve *r = &k->reserve;
	bool keep;

	spin_lock(&r->lock);
	keep = r->nr < kmemfs_reserve_want(r) && !kmemfs_damaged(k, page);
	if (keep) {
		list_add(&kmemfs_page(k, page)->lru, &r->pages);
		r->nr++;
	}
	spin_unlock(&r->lock);
	if (!keep)
		pool_page_put(&k->region, page);
}

enum kmemfs_reserve_use { KMEMFS_FOR_COMMIT, KMEMFS_FOR_DATA, KMEMFS_TOO_MANY };

/* A page of the reserve; 0 if there is none for this use */
static u32 kmemfs_reserve_get(struct kmemfs *k, enum kmemfs_reserve_use use)
{
	struct kmemfs_reserve *r = &k->reserve;
	unsigned long leave = 0;
	struct page *page = NULL;

	spin_lock(&r->lock);
	if (use == KMEMFS_FOR_DATA)
		leave = kmemfs_reserve_need(r);
	else if (use == KMEMFS_TOO_MANY)
		leave = kmemfs_reserve_want(r);
	if (r->nr > leave)
		page = list_first_entry_or_null(&r->pages, struct page, lru);
	if (page) {
		list_del(&page->lru);
		r->nr--;
	}
	spin_unlock(&r->lock);
	return page ? page_to_pfn(page) - k->region.start_pfn : 0;
}

static u32 kmemfs_reserve_get_good(struct kmemfs *k, enum kmemfs_reserve_use use)
{
	u32 page;

	while ((page = kmemfs_reserve_get(k, use)) && kmemfs_damaged(k, page))
		pool_page_put(&k->region, page);
	return page;
}

u32 kmemfs_reserve_take(struct kmemfs *k)
{
	return kmemfs_reserve_get_good(k, KMEMFS_FOR_COMMIT);
}

u32 kmemfs_reserve_take_data(struct kmemfs *k)
{
	return kmemfs_reserve_get_good(k, KMEMFS_FOR_DATA);
}

static void kmemfs_reserve_trim(struct kmemfs *k)
{
	u32 page;

	while ((page = kmemfs_reserve_get(k, KMEMFS_TOO_MANY)))
		pool_page_put(&k->region, page);
}

/* Add up to @nr pages, if so many are missing; false if there are no free ones */
static bool kmemfs_reserve_add(struct kmemfs *k, unsigned long nr)
{
	struct kmemfs_reserve *r = &k->reserve;
	bool missing;
	u32 page;

	while (nr--) {
		spin_lock(&r->lock);
		missing = r->nr < kmemfs_reserve_want(r);
		spin_unlock(&r->lock);
		if (!missing)
			return true;
		page = pool_page_alloc(&k->region, KMEMFS_GFP);
		if (!page)
			return false;
		kmemfs_reserve_give(k, page);
	}
	return true;
}

void kmemfs_reserve_fill(struct kmemfs *k)
{
	kmemfs_reserve_add(k, ULONG_MAX);
}

/* Keep @nr pages for data */
void kmemfs_reserve_set_data(struct kmemfs *k, unsigned long nr)
{
	spin_lock(&k->reserve.lock);
	k->reserve.data = nr;
	spin_unlock(&k->reserve.lock);
	kmemfs_reserve_fill(k);
	kmemfs_reserve_trim(k);
}

void kmemfs_reserve_drop(struct kmemfs *k)
{
	u32 page;

	while ((page = kmemfs_reserve_take(k)))
		pool_page_put(&k->region, page);
}

/* The inode table has @leaves more leaves, @new_leaves more of which are not on media yet */
void kmemfs_reserve_count(struct kmemfs *k, long leaves, long new_leaves)
{
	struct kmemfs_reserve *r = &k->reserve;

	spin_lock(&r->lock);
	r->leaves += leaves;
	r->new_leaves += new_leaves;
	spin_unlock(&r->lock);
}

/*
 * Make room for leaf @n of the inode table, so that marking it dirty and writing
 * it cannot fail. Caller holds commit_sem for reading, until an inode of the leaf
 * has its name: a commit forgets leaves without inodes.
 */
int kmemfs_reserve_leaf(struct kmemfs *k, unsigned long n)
{
	unsigned int flags;
	int r = 0;

	if (xa_load(&k->leaves, n))
		return 0;
	kmemfs_reserve_count(k, 1, 1);
	flags = memalloc_nofs_save();
	if (!kmemfs_reserve_add(k, 2))
		r = -ENOSPC;
	if (!r)
		r = xa_insert(&k->leaves, n, xa_mk_value(0), GFP_KERNEL);
	memalloc_nofs_restore(flags);
	if (!r)
		return 0;
	kmemfs_reserve_count(k, -1, -1);
	kmemfs_reserve_trim(k);
	return r == -EBUSY ? 0 : r;	/* somebody else was faster */
}
