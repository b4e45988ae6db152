// SPDX-License-Identifier: GPL-2.0
/*
 * kmemfs: pages for commits of a full pool
 */

/**
 * DOC: the reserve
 *
 * Metadata is copy-on-write, so a commit needs pages even if all it does is to
 * give pages back. Whoever changes something has its commit's pages put aside
 * first, or fails with ENOSPC. So a commit never lacks them.
 *
 * - Inodes are deleted, renamed and touched without asking. So pages for the whole
 *   inode table, written anew, are here always. A leaf of it brings its pages along
 *   when its first inode gets a name: one for its first version, one for the next.
 * - A file that has changed has the pages of a whole tree for as many runs as it may have
 *   (kmemfs_inode.max_runs), which is the most that a commit writes of it; it gives
 *   them back when it is committed. So does an inode whose extended attributes have
 *   changed and take a page of their own.
 * - A change that is planned (kmemfs_plan()) may come after the next commit, and
 *   cannot fail any more. So a file with plans has the pages of that tree besides those
 *   of the largest tree that a commit leaves (kmemfs_rope_most()), but for those that
 *   the old tree has, as the first commit gives back what it replaces of it. Stores
 *   through mappings are planned, and what cannot go back once it has begun.
 * - If that is less, a file of version 2 has instead 24 pages (plan.c) for each change
 *   that was made since the last commit or is planned: whatever commits come between, each
 *   is written once. Nothing is needed of what they give back, so it does not matter
 *   whether others share the old tree.
 * - KMEMFS_RESERVE_MIN more, which only changes that make space may use. So a hole can be
 *   punched, and a file be cut, however many runs it has.
 *
 * The pages that a commit replaces fill the reserve again. With reserve= there are
 * more pages, for data when the node has no page left; so are pages that are here
 * and not needed just now.
 *
 * Pages are on a list by their lru field, so keeping one needs no memory.
 */

#include <linux/mm.h>
#include <linux/sched/mm.h>
#include "kmemfs.h"

void kmemfs_reserve_init(struct kmemfs_reserve *r)
{
	*r = (struct kmemfs_reserve){};
	spin_lock_init(&r->lock);
	INIT_LIST_HEAD(&r->pages);
}

/* For commits. Caller holds r->lock. */
static unsigned long kmemfs_reserve_need(const struct kmemfs_reserve *r)
{
	unsigned long index = kmemfs_table_index_pages(r->leaves, r->span);

	lockdep_assert_held(&r->lock);
	return r->leaves + r->new_leaves + 2 * index - min(index, r->index) + r->trees;
}

/* What is here, and what the commit that is being written gives back. Caller holds r->lock. */
static bool kmemfs_reserve_has(const struct kmemfs_reserve *r, unsigned long nr)
{
	lockdep_assert_held(&r->lock);
	return r->nr + r->coming >= nr;
}

/* Caller holds r->lock */
static unsigned long kmemfs_reserve_want(const struct kmemfs_reserve *r)
{
	return kmemfs_reserve_need(r) + KMEMFS_RESERVE_MIN + r->data;
}

/* Caller holds r->lock. True if the page is kept. */
static bool kmemfs_reserve_keep(struct kmemfs *k, u32 page)
{
	struct kmemfs_reserve *r = &k->reserve;

	if (kmemfs_reserve_has(r, kmemfs_reserve_want(r)) || kmemfs_damaged(k, page))
		return false;
	list_add(&kmemfs_page(k, page)->lru, &r->pages);
	r->nr++;
	return true;
}

/* Keep a page if one is missing, or give it back to the system */
void kmemfs_reserve_give(struct kmemfs *k, u32 page)
{
	bool kept;

	spin_lock(&k->reserve.lock);
	kept = kmemfs_reserve_keep(k, page);
	spin_unlock(&k->reserve.lock);
	if (!kept)
		pool_page_put(&k->region, page);
}

/* The same for one of the pages that kmemfs_reserve_committed() was told of */
void kmemfs_reserve_return(struct kmemfs *k, u32 page)
{
	bool kept;

	spin_lock(&k->reserve.lock);
	k->reserve.coming--;
	kept = kmemfs_reserve_keep(k, page);
	spin_unlock(&k->reserve.lock);
	if (!kept)
		pool_page_put(&k->region, page);
}

enum kmemfs_reserve_use { KMEMFS_FOR_COMMIT, KMEMFS_FOR_DATA, KMEMFS_FOR_FREEING, KMEMFS_TOO_MANY };

/* A page of the reserve; 0 if there is none for this use */
static u32 kmemfs_reserve_get(struct kmemfs *k, enum kmemfs_reserve_use use)
{
	struct kmemfs_reserve *r = &k->reserve;
	unsigned long leave = 0;
	struct page *page = NULL;

	spin_lock(&r->lock);
	if (use == KMEMFS_FOR_DATA)
		leave = kmemfs_reserve_need(r) + KMEMFS_RESERVE_MIN;
	else if (use == KMEMFS_FOR_FREEING)
		leave = kmemfs_reserve_need(r) + KMEMFS_RESERVE_MIN / 2;
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

/*
 * The same for a change that makes space, but changes what is left of a page. What goes may
 * be others' too, so that nothing becomes free: half of what is kept back is for trees alone,
 * and a limit is exceeded by no more than the other half.
 */
u32 kmemfs_reserve_take_freeing(struct kmemfs *k)
{
	if (!kmemfs_may_exceed(k))
		return 0;
	return kmemfs_reserve_get_good(k, KMEMFS_FOR_FREEING);
}

void kmemfs_reserve_trim(struct kmemfs *k)
{
	u32 page;

	while ((page = kmemfs_reserve_get(k, KMEMFS_TOO_MANY)))
		pool_page_put(&k->region, page);
}

/* Fill up until commits have what they need and @more; false if there are no free pages */
bool kmemfs_reserve_add(struct kmemfs *k, unsigned long more)
{
	struct kmemfs_reserve *r = &k->reserve;
	bool enough;
	u32 page;

	for (;;) {
		spin_lock(&r->lock);
		enough = kmemfs_reserve_has(r, kmemfs_reserve_need(r) + more);
		spin_unlock(&r->lock);
		if (enough)
			return true;
		page = pool_page_alloc(&k->region, KMEMFS_GFP);
		if (!page)
			return false;
		kmemfs_reserve_give(k, page);
	}
}

/* False if processes have so much of the node that it cannot be filled */
bool kmemfs_reserve_fill(struct kmemfs *k)
{
	return kmemfs_reserve_add(k, KMEMFS_RESERVE_MIN + READ_ONCE(k->reserve.data));
}

/* Keep @nr pages for data */
void kmemfs_reserve_set_data(struct kmemfs *k, unsigned long nr)
{
	spin_lock(&k->reserve.lock);
	WRITE_ONCE(k->reserve.data, nr);
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

/* ---- the inode table ------------------------------------------------------ */

/* It has @leaves more leaves, @new_leaves more of which are not on media yet */
void kmemfs_reserve_count(struct kmemfs *k, long leaves, long new_leaves)
{
	struct kmemfs_reserve *r = &k->reserve;

	spin_lock(&r->lock);
	r->leaves += leaves;
	r->new_leaves += new_leaves;
	spin_unlock(&r->lock);
}

/*
 * The table on media has @index index pages now, and @span leaves, absent ones included.
 * @coming pages of the commit before will be given to kmemfs_reserve_return().
 */
void kmemfs_reserve_committed(struct kmemfs *k, unsigned long index, unsigned long span,
			      unsigned long coming)
{
	struct kmemfs_reserve *r = &k->reserve;

	spin_lock(&r->lock);
	r->index = index;
	r->span = span;
	r->coming = coming;
	spin_unlock(&r->lock);
}

/*
 * Make room for leaf @n of the inode table, so that marking it dirty and writing
 * it cannot fail. Caller holds commit_sem for reading, until an inode of the leaf
 * has its name: a commit forgets leaves without inodes.
 */
int kmemfs_reserve_leaf(struct kmemfs *k, unsigned long n)
{
	struct kmemfs_reserve *r = &k->reserve;
	unsigned int flags;
	int err = 0;

	if (xa_load(&k->itable.leaves, n))
		return 0;
	spin_lock(&r->lock);
	r->leaves++;
	r->new_leaves++;
	r->span = max(r->span, n + 1);
	spin_unlock(&r->lock);
	flags = memalloc_nofs_save();
	if (!kmemfs_reserve_add(k, KMEMFS_RESERVE_MIN))
		err = -ENOSPC;
	if (!err)
		err = xa_insert(&k->itable.leaves, n, xa_mk_value(0), GFP_KERNEL);
	memalloc_nofs_restore(flags);
	if (err)
		kmemfs_reserve_count(k, -1, -1);
	return err == -EBUSY ? 0 : err;	/* somebody else was faster */
}

/* ---- file trees and extended attributes (plan.c) --------------------------- */

/*
 * Who needed @old pages needs @need. True if pages are lacking: more are needed than before,
 * or who needed them before is still about to get them.
 */
bool kmemfs_reserve_change(struct kmemfs *k, unsigned long old, unsigned long need)
{
	struct kmemfs_reserve *r = &k->reserve;
	bool lacking;

	spin_lock(&r->lock);
	r->trees += need - old;
	lacking = need > old ||
		  (need == old && !kmemfs_reserve_has(r, kmemfs_reserve_need(r)));
	spin_unlock(&r->lock);
	return lacking;
}

/* Have @nr pages more for trees, until kmemfs_unreserve_trees(). 0 or -ENOSPC. */
int kmemfs_reserve_trees(struct kmemfs *k, unsigned long nr)
{
	spin_lock(&k->reserve.lock);
	k->reserve.trees += nr;
	spin_unlock(&k->reserve.lock);
	if (kmemfs_reserve_add(k, KMEMFS_RESERVE_MIN))
		return 0;
	kmemfs_unreserve_trees(k, nr);
	return -ENOSPC;
}

void kmemfs_unreserve_trees(struct kmemfs *k, unsigned long nr)
{
	spin_lock(&k->reserve.lock);
	k->reserve.trees -= nr;
	spin_unlock(&k->reserve.lock);
	kmemfs_reserve_trim(k);
}
