// SPDX-License-Identifier: GPL-2.0
/*
 * kmemfs: the table of checksums on media, as sums.c says: commits write it, mounts read it
 */

#include <linux/mm.h>
#include <linux/slab.h>
#include "sums.h"

/* Leaves that a commit writes, besides as many as it has cleared sums in */
#define KMEMFS_SUMS_LEAVES	64

/* Free pages of the node that are left to others */
#define KMEMFS_SUMS_SPARED	1024

/* ---- commits --------------------------------------------------------------- */

static int kmemfs_write_sums_leaf(struct kmemfs_commit *c, unsigned long n, u32 old)
{
	const struct kmemfs_sums_leaf *leaf = xa_load(&c->k->sums.held, n);
	u64 page = 0;
	int r = 0;

	if (!leaf) {
		kmemfs_sums_copy(c->k, n, c->page);
		leaf = c->page;
	}
	if (memchr_inv(leaf->sum, 0, sizeof(leaf->sum)))
		r = kmemfs_write_sums(&c->sink, n, leaf->sum, &page);
	if (!r && old)
		r = kmemfs_pages_add(&c->old, old);
	return r ?: xa_err(xa_store(&c->sums.leaves, n, xa_mk_value(page), GFP_NOFS));
}

/* Write *@most of those with @mark that have not been written. 1: there are more; 0; or an error */
static int kmemfs_write_sums_marked(struct kmemfs_commit *c, xa_mark_t mark, unsigned long *most)
{
	unsigned long n;
	void *v;
	int r;

	xa_for_each_marked(&c->k->sums.table.leaves, n, v, mark) {
		if (xa_load(&c->sums.leaves, n))
			continue;
		if (!*most)
			return 1;
		r = kmemfs_write_sums_leaf(c, n, xa_to_value(v));
		if (r)
			return r;
		(*most)--;
		cond_resched();
	}
	return 0;
}

/* 1: the table on media will have sums that do not hold any more; 0: it has none; or an error */
static int kmemfs_write_sums_leaves(struct kmemfs_commit *c, unsigned long spare)
{
	/* half of what may be had is left to the table above them, and to others */
	unsigned long most = KMEMFS_SUMS_LEAVES + min(c->k->sums.cleared, spare / 2);
	int stale, r;

	stale = kmemfs_write_sums_marked(c, KMEMFS_LEAF_CLEARED, &most);
	r = stale < 0 ? stale : kmemfs_write_sums_marked(c, KMEMFS_LEAF_DIRTY, &most);
	if (r >= 0)
		r = kmemfs_write_table(c, &c->sums);
	return r ?: stale;
}

/**
 * kmemfs_commit_sums() - write what has changed of the table of checksums
 * @c: a commit that has written all else; commit_sem is held for writing
 *
 * If there are no pages for that, the table is the one of the commit before. What is more
 * than a commit writes is as it was there.
 */
void kmemfs_commit_sums(struct kmemfs_commit *c)
{
	const u64 nr_meta_pages = c->sink.nr_meta_pages;
	const size_t fresh = c->fresh.nr, old = c->old.nr;
	struct kmemfs *k = c->k;
	unsigned long free;
	bool stale;
	int r;

	c->sums_written = false;
	if (c->root.version < 2 || !xa_marked(&k->sums.table.leaves, KMEMFS_LEAF_DIRTY))
		return;
	c->spare_reserve = true;
	free = kmemfs_free_pages(k);
	r = -ENOSPC;
	if (free >= KMEMFS_SUMS_SPARED)
		r = kmemfs_write_sums_leaves(c, free - KMEMFS_SUMS_SPARED);
	c->spare_reserve = false;
	k->sums.cleared = 0;
	WRITE_ONCE(k->sums.lacking, r < 0);
	stale = r > 0 || (r && xa_marked(&k->sums.table.leaves, KMEMFS_LEAF_CLEARED));
	if (stale)
		c->root.sums_generation = kmemfs_sums_hold_to(&k->root);
	else if (!r)
		c->root.sums_generation = 0;
	if (r >= 0) {
		c->sums_written = true;
		c->root.sums = c->sums.top;
		c->root.sums_height = c->sums.height;
		c->root.nr_sums_pages = c->sums.span;
		c->sums_pages = k->sums.nr_pages + c->sink.nr_meta_pages - nr_meta_pages -
				(c->old.nr - old);
		return;
	}
	kmemfs_unwrite(c, fresh);
	c->old.nr = old;
	c->sink.nr_meta_pages = nr_meta_pages;
}

/* Leaf @n of the table in memory is on media as it is. Overwrites: does not allocate. */
static void kmemfs_sums_leaf_written(struct kmemfs *k, unsigned long n, void *page)
{
	struct xarray *leaves = &k->sums.table.leaves;

	xa_store(leaves, n, page, GFP_NOFS);
	xa_clear_mark(leaves, n, KMEMFS_LEAF_DIRTY);
	xa_clear_mark(leaves, n, KMEMFS_LEAF_CLEARED);
}

/* All is written; commit_sem is held for writing */
void kmemfs_sums_committed(struct kmemfs_commit *c)
{
	unsigned long n;
	void *v;

	if (!c->sums_written)
		return;
	xa_for_each(&c->sums.leaves, n, v)
		kmemfs_sums_leaf_written(c->k, n, v);
	kmemfs_table_committed(&c->sums);
	c->k->sums.nr_pages = c->sums_pages;
	WRITE_ONCE(c->k->sums.dirty, xa_marked(&c->k->sums.table.leaves, KMEMFS_LEAF_DIRTY));
}

/* How many commits write what there is to be written at most? */
unsigned long kmemfs_sums_commits(struct kmemfs *k)
{
	unsigned long n, nr = 0;
	void *v;

	xa_for_each_marked(&k->sums.table.leaves, n, v, KMEMFS_LEAF_DIRTY) {
		nr++;
		cond_resched();
	}
	return DIV_ROUND_UP(nr, KMEMFS_SUMS_LEAVES);
}

/* ---- mounting -------------------------------------------------------------- */

/*
 * While mounting: what the table says of these pages is right, though it is older than the
 * tree. No commit needs kmemfs.flushing meanwhile.
 */
void kmemfs_sums_count_for(struct kmemfs *k, u32 page, unsigned long count)
{
	if (k->root.sums_generation)
		bitmap_set(k->flushing, page, count);
}

static bool kmemfs_sum_counts(const struct kmemfs *k, unsigned long page)
{
	return page < k->region.end && (!k->root.sums_generation || test_bit(page, k->flushing));
}

/*
 * While mounting, after all runs of files: a leaf of the table is at @page. *@hold: in: there
 * is room to hold it; out: it is held.
 */
int kmemfs_load_sums(struct kmemfs *k, unsigned long n, u64 page, const struct kmemfs_sums *sums,
		     bool *hold)
{
	const unsigned long first = n * KMEMFS_SUMS_PER_PAGE;
	struct kmemfs_sums_leaf *leaf = NULL;
	bool cleared = false;
	unsigned int i;
	int r;

	r = xa_err(xa_store(&k->sums.table.leaves, n, xa_mk_value(page), GFP_KERNEL));
	if (r)
		return r;
	if (*hold)
		leaf = kzalloc(sizeof(*leaf), GFP_KERNEL | __GFP_NOWARN);
	if (leaf && xa_err(xa_store(&k->sums.held, n, leaf, GFP_KERNEL))) {
		kfree(leaf);
		leaf = NULL;
	}
	*hold = leaf;
	/* what is no data may have a sum that counts for nobody until it is cleared */
	for (i = 0; i < KMEMFS_SUMS_PER_PAGE; i++) {
		if (!sums->sum[i])
			continue;
		if (kmemfs_sum_counts(k, first + i)) {
			if (leaf)
				leaf->sum[i] = le32_to_cpu(sums->sum[i]);
			__clear_bit(first + i, k->sums.unsummed);
		} else {
			cleared = true;
		}
	}
	if (cleared)
		kmemfs_sums_cleared(k, n);
	return 0;
}

/* While mounting: nothing can be read of leaf @n and those behind it */
int kmemfs_lose_sums(struct kmemfs *k, unsigned long n, unsigned long count)
{
	int r = 0;

	k->sums.lost = true;
	for (; count && !r; n++, count--) {
		r = xa_err(xa_store(&k->sums.table.leaves, n, xa_mk_value(0), GFP_KERNEL));
		if (!r)
			kmemfs_sums_dirty(k, n);
		cond_resched();
	}
	return r;
}

/* Is a page of metadata one of the table of checksums? */
bool kmemfs_is_sums_page(struct kmemfs *k, u64 page, enum kmemfs_page_kind kind)
{
	const struct kmemfs_page_head *head;
	struct kmemfs_media m;

	/* in version 1 owners above 0 are inodes */
	if (kind != KMEMFS_KIND_INDEX || k->root.version != 2)
		return kind == KMEMFS_KIND_SUMS;
	kmemfs_media_init(k, &m);
	head = m.page(&m, page);
	return head && le64_to_cpu(head->owner) == KMEMFS_OWNER_SUMS;
}

/*
 * The table that media leads to is not the one that attach has kept, or not all of it. From
 * here on it is none of ours: the next commit has a new one, or none, and frees none of its
 * pages. Those that attach has kept stay taken until the next attach.
 */
static void kmemfs_leave_table(struct kmemfs *k)
{
	struct kmemfs_table *t = &k->sums.table;
	unsigned long n;
	void *v;
	int i;

	xa_for_each(&t->leaves, n, v) {
		const unsigned long first = n * KMEMFS_SUMS_PER_PAGE;

		xa_store(&t->leaves, n, xa_mk_value(0), GFP_KERNEL);	/* overwrites */
		xa_clear_mark(&t->leaves, n, KMEMFS_LEAF_CLEARED);
		kmemfs_sums_dirty(k, n);
		if (!xa_load(&k->sums.held, n) && first < k->region.end)
			bitmap_set(k->sums.unsummed, first,
				   min(KMEMFS_SUMS_PER_PAGE, k->region.end - first));
	}
	for (i = 0; i < KMEMFS_MAX_HEIGHT; i++)
		xa_destroy(&t->index[i]);
	t->nr_index = 0;
	t->span = 0;
	k->root.nr_meta_pages -= k->sums.kept;
	k->root.sums = 0;
	k->root.sums_height = 0;
	k->root.nr_sums_pages = 0;
	k->root.sums_generation = 0;
	k->sums.nr_pages = 0;
}

/* While mounting, at the end; @failed: there will be no mount */
void kmemfs_sums_loaded(struct kmemfs *k, bool failed)
{
	if (k->root.sums_generation)
		bitmap_zero(k->flushing, k->region.end);
	k->sums.cleared = 0;
	if (failed || k->rescue)
		k->sums.nr_pages = k->sums.kept;
	else if (k->sums.lost || k->sums.nr_pages != k->sums.kept)
		kmemfs_leave_table(k);
}
