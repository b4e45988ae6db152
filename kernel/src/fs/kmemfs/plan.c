// SPDX-License-Identifier: GPL-2.0
/*
 * kmemfs: pages that commits of a file's changes need
 */

#include <linux/sched/mm.h>
#include "kmemfs.h"

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
unsigned long kmemfs_tree_budget(struct kmemfs_inode *ki)
{
	unsigned long budget;

	spin_lock(&ki->lock);
	budget = kmemfs_tree_bound(ki);
	if (kmemfs_whole_need(ki) > kmemfs_changes_need(ki))
		budget = min(budget, ki->changes * KMEMFS_CHANGE_PAGES);
	spin_unlock(&ki->lock);
	return budget;
}

/* Caller holds ki->lock. True if pages are lacking, see kmemfs_reserve_change(). */
static bool kmemfs_trees_count(struct kmemfs_inode *ki)
{
	unsigned long old = ki->reserved, need = kmemfs_trees_need(ki);

	lockdep_assert_held(&ki->lock);
	if (!need && !old)
		return false;
	ki->reserved = need;
	return kmemfs_reserve_change(kmemfs_of(&ki->vfs), old, need);
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

/*
 * Have what a change lacks, and leave what only those may use that make space. Commits are
 * held up, and reclaim must not wait for one.
 */
static bool kmemfs_have_pages(struct kmemfs *k, enum kmemfs_change what)
{
	unsigned int flags = memalloc_nofs_save();
	bool enough = kmemfs_reserve_add(k, what == KMEMFS_ADDS ? KMEMFS_RESERVE_MIN : 0);

	memalloc_nofs_restore(flags);
	return enough;
}

/* There was no space: a commit may give some, once. Caller does not hold commit_sem. */
static bool kmemfs_try_again(struct kmemfs *k, bool *again)
{
	bool may = *again;

	*again = false;
	return may && kmemfs_make_space(k);
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
	struct kmemfs *k = kmemfs_of(inode);
	bool planned, again = true;

	do {
		/* no commit sees a plan whose pages are not there */
		down_read(&k->commit_sem);
		planned = !kmemfs_trees_add(KMEMFS_I(inode), 0, runs + 1) ||
			  what == KMEMFS_FREES_ALL || kmemfs_have_pages(k, what);
		if (!planned)
			kmemfs_unplan(inode, runs);
		up_read(&k->commit_sem);
		if (planned)
			return 0;
	} while (kmemfs_try_again(k, &again));
	return -ENOSPC;
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
	struct kmemfs_inode *ki = KMEMFS_I(inode);
	struct kmemfs *k = kmemfs_of(inode);
	bool again = true;

	do {
		kmemfs_hold_up_commits(ki);
		if (!kmemfs_trees_add(ki, runs + 1, 0) || kmemfs_have_pages(k, what))
			return 0;
		kmemfs_trees_add(ki, -(long)(runs + 1), 0);
		up_read(&k->commit_sem);
	} while (kmemfs_try_again(k, &again));
	return -ENOSPC;
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
	if (!kmemfs_trees_add(ki, 0, 0) || kmemfs_have_pages(kmemfs_of(&ki->vfs), KMEMFS_ADDS))
		return 0;
	return -ENOSPC;
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
	struct kmemfs_inode *ki = KMEMFS_I(inode);
	struct kmemfs *k = kmemfs_of(inode);
	bool more, again = true;
	unsigned int old;

	do {
		down_read(&k->commit_sem);
		old = kmemfs_set_xattr_pages(ki, pages, &more);
		if (!more || kmemfs_have_pages(k, what))
			return 0;
		kmemfs_set_xattr_pages(ki, old, &more);
		up_read(&k->commit_sem);
	} while (kmemfs_try_again(k, &again));
	return -ENOSPC;
}

/* They are on media, in @page if not 0, or will not be. Commits are held up. */
void kmemfs_xattrs_done(struct kmemfs_inode *ki, u64 page)
{
	bool more;

	ki->xattr_page = page;
	ki->xattrs_dirty = false;
	kmemfs_set_xattr_pages(ki, 0, &more);
}
