// SPDX-License-Identifier: GPL-2.0
/*
 * kmemfs: the inner pages of the inode table
 */

/**
 * DOC: the inode table in memory
 *
 * Of the table's leaves (kmemfs.leaves) and its inner pages (kmemfs.index, a level) it is
 * known on which device page each is. A commit writes the leaves that have changed, and
 * the inner pages above them, level by level, and nothing else. When the table becomes
 * longer or shorter, so do the last inner pages of each level, which say how many entries
 * they have.
 */

#include "commit.h"

/* Leaves below an inner page of @level */
static unsigned long kmemfs_index_span(unsigned int level)
{
	unsigned long span = 1;

	while (level--)
		span *= KMEMFS_INDEX_ENTRIES;
	return span;
}

/* While mounting: an inner page is at @page, @first its first leaf; 0 or -ENOMEM */
int kmemfs_load_index(struct kmemfs *k, unsigned int level, u64 first, u64 page)
{
	k->nr_index++;
	return xa_err(xa_store(&k->index[level - 1], first / kmemfs_index_span(level),
			       xa_mk_value(page), GFP_KERNEL));
}

/* Where the page at place @n of @level is after this commit; level 0 is that of the leaves */
static u64 kmemfs_itable_page(struct kmemfs_commit *c, unsigned int level, unsigned long n)
{
	void *v = xa_load(level ? &c->index[level - 1] : &c->leaves, n);

	if (!v)
		v = xa_load(level ? &c->k->index[level - 1] : &c->k->leaves, n);
	return v ? xa_to_value(v) : 0;
}

/* Leaves of the table after this commit, up to the last that is not absent */
static unsigned long kmemfs_count_leaves(struct kmemfs_commit *c)
{
	unsigned long n, nr = c->k->root.nr_inode_pages;
	void *v;

	xa_for_each(&c->leaves, n, v)
		if (xa_to_value(v))
			nr = max(nr, n + 1);
	if (nr && kmemfs_itable_page(c, 0, nr - 1))
		return nr;
	nr = 0;
	xa_for_each(&c->k->leaves, n, v)
		if (kmemfs_itable_page(c, 0, n))
			nr = n + 1;
	return nr;
}

/* The inner page at place @n of @level is to be written, or goes */
static int kmemfs_index_mark(struct kmemfs_commit *c, unsigned int level, unsigned long n)
{
	struct xarray *old = &c->k->index[level - 1];
	int r = 0;

	/* a place for it, so that kmemfs_itable_committed() does not allocate */
	if (!xa_load(old, n))
		r = xa_err(xa_store(old, n, xa_mk_value(0), GFP_NOFS));
	return r ?: xa_err(xa_store(&c->index[level - 1], n, xa_mk_value(0), GFP_NOFS));
}

/* Mark those of a level that change; @leaves are there after this commit */
static int kmemfs_index_mark_level(struct kmemfs_commit *c, unsigned int level,
				   unsigned long leaves)
{
	unsigned long n, span = kmemfs_index_span(level), old_leaves = c->k->root.nr_inode_pages;
	unsigned long last = ULONG_MAX;
	void *v;
	int r = 0;

	if (level > kmemfs_table_height(leaves)) {
		xa_for_each(&c->k->index[level - 1], n, v) {
			r = kmemfs_index_mark(c, level, n);
			if (r)
				return r;
		}
		return 0;
	}
	xa_for_each(&c->leaves, n, v) {
		if (n / span == last)
			continue;
		last = n / span;
		r = kmemfs_index_mark(c, level, last);
		if (r)
			return r;
	}
	/* memory knows what a page says that fails; and some may stand behind the end */
	xa_for_each(&c->k->index[level - 1], n, v) {
		u32 page = xa_to_value(v);	/* 0: a place that has just been made */

		if (n * span < leaves && !(page && kmemfs_damaged(c->k, page)))
			continue;
		r = kmemfs_index_mark(c, level, n);
		if (r)
			return r;
	}
	if (level > 1) {
		xa_for_each(&c->index[level - 2], n, v) {
			r = kmemfs_index_mark(c, level, n / KMEMFS_INDEX_ENTRIES);
			if (r)
				return r;
		}
	}
	if (leaves == old_leaves)
		return 0;
	if (old_leaves)
		r = kmemfs_index_mark(c, level, (old_leaves - 1) / span);
	return r ?: kmemfs_index_mark(c, level, (leaves - 1) / span);
}

/* Write an inner page, of those @below that are one level below; *page is 0 if all are absent */
static int kmemfs_index_write(struct kmemfs_commit *c, unsigned int level, unsigned long n,
			      unsigned long below, u64 *page)
{
	unsigned long i, nr, first = n * KMEMFS_INDEX_ENTRIES;
	__u64 *entry = c->page;
	bool any = false;

	*page = 0;
	if (first >= below)
		return 0;
	nr = min(below - first, KMEMFS_INDEX_ENTRIES);
	for (i = 0; i < nr; i++) {
		entry[i] = kmemfs_itable_page(c, level - 1, first + i);
		any |= entry[i];
	}
	if (!any)
		return 0;
	return kmemfs_write_index(&c->sink, KMEMFS_OWNER_INODES, level,
				  n * kmemfs_index_span(level), entry, nr, page);
}

static int kmemfs_index_write_level(struct kmemfs_commit *c, unsigned int level,
				    unsigned long below)
{
	unsigned long n;
	u64 page, old;
	void *v;
	int r;

	xa_for_each(&c->index[level - 1], n, v) {
		r = kmemfs_index_write(c, level, n, below, &page);
		if (r)
			return r;
		xa_store(&c->index[level - 1], n, xa_mk_value(page), GFP_NOFS);
		old = xa_to_value(xa_load(&c->k->index[level - 1], n));
		if (old)
			r = kmemfs_pages_add(&c->old, old);
		if (r)
			return r;
		c->nr_index += !!page;
		c->nr_index -= !!old;
		cond_resched();
	}
	return 0;
}

/* The leaves have been written: write what is above those that have changed */
int kmemfs_write_itable(struct kmemfs_commit *c)
{
	unsigned long leaves = kmemfs_count_leaves(c), below = leaves;
	unsigned int level, height = kmemfs_table_height(leaves);
	int r;

	if (height > KMEMFS_MAX_HEIGHT)
		return -EFBIG;
	c->nr_index = c->k->nr_index;
	for (level = 1; level <= KMEMFS_MAX_HEIGHT; level++) {
		r = kmemfs_index_mark_level(c, level, leaves);
		if (!r)
			r = kmemfs_index_write_level(c, level, level <= height ? below : 0);
		if (r)
			return r;
		below = DIV_ROUND_UP(below, KMEMFS_INDEX_ENTRIES);
	}
	c->root.itable = kmemfs_itable_page(c, height, 0);
	c->root.itable_height = height;
	c->root.nr_inode_pages = leaves;
	return 0;
}

/* All is written; the leaves in memory are those of the commit already */
void kmemfs_itable_committed(struct kmemfs_commit *c)
{
	struct kmemfs *k = c->k;
	unsigned int level;
	unsigned long n;
	void *v;

	for (level = 1; level <= KMEMFS_MAX_HEIGHT; level++) {
		xa_for_each(&c->index[level - 1], n, v) {
			if (xa_to_value(v))
				xa_store(&k->index[level - 1], n, v, GFP_NOFS);
			else
				xa_erase(&k->index[level - 1], n);
		}
	}
	k->nr_index = c->nr_index;
}
