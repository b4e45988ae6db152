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
 * - If that is less, a file of version 2 has instead KMEMFS_CHANGE_PAGES for each change
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

/* Pages that are kept back for changes that make space */
#define KMEMFS_RESERVE_MIN	256

/*
 * What a commit writes of a version 2 file tree, at most, for a change of one stretch of the
 * page table, runs that it adds aside. All of the chunks is dirty that the stretch begins
 * and ends in: 2 * 1024 entries. Segments that reach into these have up to 504 entries more
 * at each end, and are packed together with a neighbour at each end that has less than half
 * of 504: with holes between them fewer than 8 * 503 entries, so 8 segments. The nodes above
 * have up to 252 entries at each end, and neighbours of less than half of that; with the 8
 * and their holes fewer than 4 * 251, so 4 nodes. As these are less than 8, so it goes on.
 */
#define KMEMFS_CHANGE_PAGES	(8 + 4 * KMEMFS_MAX_HEIGHT)

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

/* The same for a change that makes space, but changes what is left of a page */
u32 kmemfs_reserve_take_freeing(struct kmemfs *k)
{
	return kmemfs_reserve_get_good(k, KMEMFS_FOR_FREEING);
}

void kmemfs_reserve_trim(struct kmemfs *k)
{
	u32 page;

	while ((page = kmemfs_reserve_get(k, KMEMFS_TOO_MANY)))
		pool_page_put(&k->region, page);
}

/* Fill up until commits have what they need and @more; false if there are no free pages */
static bool kmemfs_reserve_add(struct kmemfs *k, unsigned long more)
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

/* ---- file trees ----------------------------------------------------------- */

/* Pages that a version 2 tree of @entries runs and holes may have: almost twice what it needs */
unsigned long kmemfs_rope_most(unsigned long entries)
{
	unsigned long pages = kmemfs_rope_pages(entries);

	return pages ? 2 * pages - 1 : 0;
}

/* Runs, and in version 2 holes between them, if the file has no more than @runs */
static unsigned long kmemfs_tree_entries(unsigned long runs)
{
	return runs ? 2 * runs + 1 : 0;
}

/* Without the mark of those that move what is behind */
static unsigned long kmemfs_real_runs(unsigned long runs)
{
	return runs & (KMEMFS_MOVES - 1);
}

/* Pages of its tree, if it is written as a whole. Caller holds up commits. */
unsigned long kmemfs_tree_bound(const struct kmemfs_inode *ki)
{
	return kmemfs_rope_pages(kmemfs_tree_entries(min(ki->max_runs, ki->nr_pages)));
}

/*
 * Pages that the upgrade's commit writes of a file at most, and what its planned changes
 * need from then on. Caller holds ki->lock and holds up commits.
 */
unsigned long kmemfs_upgrade_need(const struct kmemfs_inode *ki)
{
	unsigned long runs = min(ki->max_runs, ki->nr_pages) + kmemfs_real_runs(ki->planned_runs);
	unsigned long entries = kmemfs_tree_entries(runs), need = kmemfs_tree_bound(ki);

	if (ki->planned_runs)
		need += kmemfs_rope_pages(entries) + kmemfs_rope_most(entries);
	return need;
}

/* Pages for commits of all changes one by one, of a file whose tree may grow a level */
static unsigned long kmemfs_changes_need(const struct kmemfs_inode *ki)
{
	if (!kmemfs_is_v2(kmemfs_of(&ki->vfs)) || ki->tree.height >= KMEMFS_MAX_HEIGHT)
		return ULONG_MAX;
	return (ki->changes + ki->new_runs + ki->planned_runs) * KMEMFS_CHANGE_PAGES;
}

/* Pages for commits that write the tree as a whole */
static unsigned long kmemfs_whole_need(const struct kmemfs_inode *ki)
{
	unsigned long runs = min(ki->max_runs, ki->nr_pages) + kmemfs_real_runs(ki->new_runs) +
			     kmemfs_real_runs(ki->planned_runs);
	unsigned long entries = kmemfs_tree_entries(runs), write, most;

	if (!kmemfs_is_v2(kmemfs_of(&ki->vfs))) {
		write = kmemfs_extents_pages(runs);
		most = write;
	} else {
		write = kmemfs_rope_pages(entries);
		most = kmemfs_rope_most(entries);
	}
	if (ki->planned_runs)
		return write + most - min(most, ki->tree.own);
	return ki->data_dirty || ki->new_runs ? write : 0;
}

/* Pages that commits of this file's changes need at most. Caller holds ki->lock. */
static unsigned long kmemfs_trees_need(const struct kmemfs_inode *ki)
{
	if (!ki->vfs.i_nlink)
		return 0;
	return min(kmemfs_whole_need(ki), kmemfs_changes_need(ki)) + ki->xattr_pages;
}

/* Those of them that the commit being written may take for its tree */
unsigned long kmemfs_tree_budget(const struct kmemfs_inode *ki)
{
	unsigned long whole = kmemfs_tree_bound(ki);

	if (kmemfs_whole_need(ki) <= kmemfs_changes_need(ki))
		return whole;
	return min(whole, ki->changes * KMEMFS_CHANGE_PAGES);
}

/*
 * Caller holds ki->lock. True if pages are lacking: more are needed than before, or who
 * needed them before is still about to get them.
 */
static bool kmemfs_trees_count(struct kmemfs_inode *ki)
{
	struct kmemfs_reserve *r = &kmemfs_of(&ki->vfs)->reserve;
	unsigned long old = ki->reserved, need = kmemfs_trees_need(ki);
	bool lacking;

	lockdep_assert_held(&ki->lock);
	if (!need && !old)
		return false;
	ki->reserved = need;
	spin_lock(&r->lock);
	r->trees += need - old;
	lacking = need > old ||
		  (need == old && !kmemfs_reserve_has(r, kmemfs_reserve_need(r)));
	spin_unlock(&r->lock);
	return lacking;
}

/* True if pages are lacking */
static bool kmemfs_trees_add(struct kmemfs_inode *ki, long new_runs, long planned_runs)
{
	bool lacking;

	spin_lock(&ki->lock);
	ki->new_runs += new_runs;
	ki->planned_runs += planned_runs;
	lacking = kmemfs_trees_count(ki);
	spin_unlock(&ki->lock);
	return lacking;
}

/**
 * kmemfs_plan() - see to it that a change of a file's page table can be committed
 * @inode: the file
 * @runs: that it adds at most, but for one that it may split in two
 * @what: what makes space may use what is kept back for that, and what leaves no page
 *	needs no tree
 *
 * From here on the change cannot fail for lack of pages, whatever is committed before
 * it. It is made between kmemfs_begin_planned() and kmemfs_end(), or called off by
 * kmemfs_unplan(). Caller does not hold commit_sem.
 *
 * Return: 0 or -ENOSPC.
 */
int kmemfs_plan(struct inode *inode, unsigned long runs, enum kmemfs_change what)
{
	unsigned long leave = what == KMEMFS_ADDS ? KMEMFS_RESERVE_MIN : 0;
	struct kmemfs_inode *ki = KMEMFS_I(inode);
	struct kmemfs *k = kmemfs_of(inode);
	bool lacking, again = true;

	for (;;) {
		lacking = kmemfs_trees_add(ki, 0, runs + 1);
		if (!lacking || what == KMEMFS_FREES_ALL || kmemfs_reserve_add(k, leave))
			return 0;
		kmemfs_unplan(inode, runs);
		if (!again || !kmemfs_make_space(k))
			return -ENOSPC;
		again = false;
	}
}

void kmemfs_unplan(struct inode *inode, unsigned long runs)
{
	kmemfs_trees_add(KMEMFS_I(inode), 0, -(long)(runs + 1));
}

static void kmemfs_hold_up_commits(struct kmemfs_inode *ki)
{
	down_read(&kmemfs_of(&ki->vfs)->commit_sem);
	spin_lock(&ki->lock);
	ki->max_runs = min(ki->max_runs, ki->nr_pages);
	spin_unlock(&ki->lock);
}

/* Make a change that has been planned: commits are held up until kmemfs_end() */
void kmemfs_begin_planned(struct inode *inode, unsigned long runs)
{
	kmemfs_hold_up_commits(KMEMFS_I(inode));
	kmemfs_trees_add(KMEMFS_I(inode), runs + 1, -(long)(runs + 1));
}

/* The same without a plan; 0 or -ENOSPC. No commit comes between, so less is needed. */
int kmemfs_begin(struct inode *inode, unsigned long runs, enum kmemfs_change what)
{
	unsigned long leave = what == KMEMFS_ADDS ? KMEMFS_RESERVE_MIN : 0;
	struct kmemfs_inode *ki = KMEMFS_I(inode);
	struct kmemfs *k = kmemfs_of(inode);
	bool enough, again = true;
	unsigned int flags;

	for (;;) {
		kmemfs_hold_up_commits(ki);
		flags = memalloc_nofs_save();
		enough = !kmemfs_trees_add(ki, runs + 1, 0) ||
			 kmemfs_reserve_add(k, leave);
		memalloc_nofs_restore(flags);
		if (enough)
			return 0;
		kmemfs_trees_add(ki, -(long)(runs + 1), 0);
		up_read(&k->commit_sem);
		if (!again || !kmemfs_make_space(k))
			return -ENOSPC;
		again = false;
	}
}

void kmemfs_end(struct inode *inode, unsigned long runs)
{
	struct kmemfs_inode *ki = KMEMFS_I(inode);

	spin_lock(&ki->lock);
	ki->new_runs -= runs + 1;
	ki->max_runs += kmemfs_real_runs(runs) + 1;
	ki->changes = min(ki->changes + runs + 1, KMEMFS_MOVES);
	kmemfs_trees_count(ki);
	spin_unlock(&ki->lock);
	up_read(&kmemfs_of(inode)->commit_sem);
}

/* The file is not changed any more: @tree is on media, or will not be. Commits are held up. */
void kmemfs_trees_done(struct kmemfs_inode *ki, const struct kmemfs_tree_ref *tree)
{
	spin_lock(&ki->lock);
	ki->tree = *tree;
	ki->max_runs = tree->nr_runs;
	ki->data_dirty = false;
	ki->changes = 0;
	kmemfs_trees_count(ki);
	spin_unlock(&ki->lock);
}

/* The file has no name any more: no commit has it */
void kmemfs_trees_forget(struct kmemfs_inode *ki)
{
	spin_lock(&ki->lock);
	kmemfs_trees_count(ki);
	spin_unlock(&ki->lock);
}

/*
 * A file that never had a name is given one, and i_nlink says so already: what commits
 * of it need is needed from now on. 0 or -ENOSPC. Caller holds commit_sem for reading.
 */
int kmemfs_trees_adopt(struct kmemfs_inode *ki)
{
	unsigned int flags = memalloc_nofs_save();
	bool enough = !kmemfs_trees_add(ki, 0, 0) ||
		      kmemfs_reserve_add(kmemfs_of(&ki->vfs), KMEMFS_RESERVE_MIN);

	memalloc_nofs_restore(flags);
	return enough ? 0 : -ENOSPC;
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

/* ---- extended attributes --------------------------------------------------- */

/* Returns what was set before */
static unsigned int kmemfs_set_xattr_pages(struct kmemfs_inode *ki, unsigned int pages, bool *more)
{
	unsigned int old;

	spin_lock(&ki->lock);
	old = ki->xattr_pages;
	ki->xattr_pages = pages;
	*more = kmemfs_trees_count(ki);
	spin_unlock(&ki->lock);
	return old;
}

/**
 * kmemfs_begin_xattrs() - see to it that a change of attributes can be committed
 * @inode: whose
 * @pages: that they take besides the inode's record: 0 or 1
 * @what: what makes space may use what is kept back for that
 *
 * Return: 0 with commit_sem held for reading, until the change is made; or -ENOSPC
 * without it.
 */
int kmemfs_begin_xattrs(struct inode *inode, unsigned int pages, enum kmemfs_change what)
{
	unsigned long leave = what == KMEMFS_ADDS ? KMEMFS_RESERVE_MIN : 0;
	struct kmemfs_inode *ki = KMEMFS_I(inode);
	struct kmemfs *k = kmemfs_of(inode);
	bool more, enough, again = true;
	unsigned int flags, old;

	for (;;) {
		down_read(&k->commit_sem);
		old = kmemfs_set_xattr_pages(ki, pages, &more);
		flags = memalloc_nofs_save();
		enough = !more || kmemfs_reserve_add(k, leave);
		memalloc_nofs_restore(flags);
		if (enough)
			return 0;
		kmemfs_set_xattr_pages(ki, old, &more);
		up_read(&k->commit_sem);
		if (!again || !kmemfs_make_space(k))
			return -ENOSPC;
		again = false;
	}
}

/* They are on media, in @page if not 0, or will not be. Commits are held up. */
void kmemfs_xattrs_done(struct kmemfs_inode *ki, u64 page)
{
	bool more;

	ki->xattr_page = page;
	ki->xattrs_dirty = false;
	kmemfs_set_xattr_pages(ki, 0, &more);
}
