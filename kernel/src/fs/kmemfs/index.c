// SPDX-License-Identifier: GPL-2.0
/*
 * kmemfs: the inner pages of tables
 */

/**
 * DOC: tables in memory
 *
 * Of the leaves of a table, of inodes or of checksums, and of its inner pages, a level, it
 * is known on which device page each is (struct kmemfs_table). A commit writes the leaves
 * that have changed, and the inner pages above them, level by level, and nothing else. When
 * the table becomes longer or shorter, so do the last inner pages of each level, which say
 * how many entries they have.
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
int kmemfs_load_index(struct kmemfs_table *t, unsigned int level, u64 first, u64 page)
{
	t->nr_index++;
	return xa_err(xa_store(&t->index[level - 1], first / kmemfs_index_span(level),
			       xa_mk_value(page), GFP_KERNEL));
}

/* Where the page at place @n of @level is after this commit; level 0 is that of the leaves */
static u64 kmemfs_table_page(struct kmemfs_new_table *w, unsigned int level, unsigned long n)
{
	void *v = xa_load(level ? &w->index[level - 1] : &w->leaves, n);

	if (!v)
		v = xa_load(level ? &w->table->index[level - 1] : &w->table->leaves, n);
	return v ? xa_to_value(v) : 0;
}

/* Leaves of the table after this commit, up to the last that is not absent */
static unsigned long kmemfs_count_leaves(struct kmemfs_new_table *w)
{
	unsigned long n, nr = w->table->span;
	void *v;

	xa_for_each(&w->leaves, n, v)
		if (xa_to_value(v))
			nr = max(nr, n + 1);
	if (nr && kmemfs_table_page(w, 0, nr - 1))
		return nr;
	nr = 0;
	xa_for_each(&w->table->leaves, n, v)
		if (kmemfs_table_page(w, 0, n))
			nr = n + 1;
	return nr;
}

/* The inner page at place @n of @level is to be written, or goes */
static int kmemfs_index_mark(struct kmemfs_new_table *w, unsigned int level, unsigned long n)
{
	struct xarray *old = &w->table->index[level - 1];
	int r = 0;

	/* a place for it, so that kmemfs_table_committed() does not allocate */
	if (!xa_load(old, n))
		r = xa_err(xa_store(old, n, xa_mk_value(0), GFP_NOFS));
	return r ?: xa_err(xa_store(&w->index[level - 1], n, xa_mk_value(0), GFP_NOFS));
}

/* Mark those of a level that change; @leaves are there after this commit */
static int kmemfs_index_mark_level(struct kmemfs_commit *c, struct kmemfs_new_table *w,
				   unsigned int level, unsigned long leaves)
{
	unsigned long n, span = kmemfs_index_span(level), old_leaves = w->table->span;
	unsigned long last = ULONG_MAX;
	void *v;
	int r = 0;

	if (level > kmemfs_table_height(leaves)) {
		xa_for_each(&w->table->index[level - 1], n, v) {
			r = kmemfs_index_mark(w, level, n);
			if (r)
				return r;
		}
		return 0;
	}
	xa_for_each(&w->leaves, n, v) {
		if (n / span == last)
			continue;
		last = n / span;
		r = kmemfs_index_mark(w, level, last);
		if (r)
			return r;
	}
	/* memory knows what a page says that fails; and some may stand behind the end */
	xa_for_each(&w->table->index[level - 1], n, v) {
		u32 page = xa_to_value(v);	/* 0: a place that has just been made */

		if (n * span < leaves && !(page && kmemfs_damaged(c->k, page)))
			continue;
		r = kmemfs_index_mark(w, level, n);
		if (r)
			return r;
	}
	if (level > 1) {
		xa_for_each(&w->index[level - 2], n, v) {
			r = kmemfs_index_mark(w, level, n / KMEMFS_INDEX_ENTRIES);
			if (r)
				return r;
		}
	}
	if (leaves == old_leaves)
		return 0;
	if (old_leaves)
		r = kmemfs_index_mark(w, level, (old_leaves - 1) / span);
	return r ?: kmemfs_index_mark(w, level, (leaves - 1) / span);
}

/* Write an inner page, of those @below that are one level below; *page is 0 if all are absent */
static int kmemfs_index_write(struct kmemfs_commit *c, struct kmemfs_new_table *w,
			      unsigned int level, unsigned long n, unsigned long below, u64 *page)
{
	unsigned long i, nr, first = n * KMEMFS_INDEX_ENTRIES;
	__u64 *entry = c->page;
	bool any = false;

	*page = 0;
	if (first >= below)
		return 0;
	nr = min(below - first, KMEMFS_INDEX_ENTRIES);
	for (i = 0; i < nr; i++) {
		entry[i] = kmemfs_table_page(w, level - 1, first + i);
		any |= entry[i];
	}
	if (!any)
		return 0;
	return kmemfs_write_index(&c->sink, w->table->owner, level,
				  n * kmemfs_index_span(level), entry, nr, page);
}

static int kmemfs_index_write_level(struct kmemfs_commit *c, struct kmemfs_new_table *w,
				    unsigned int level, unsigned long below)
{
	unsigned long n;
	u64 page, old;
	void *v;
	int r;

	xa_for_each(&w->index[level - 1], n, v) {
		r = kmemfs_index_write(c, w, level, n, below, &page);
		if (r)
			return r;
		xa_store(&w->index[level - 1], n, xa_mk_value(page), GFP_NOFS);
		old = xa_to_value(xa_load(&w->table->index[level - 1], n));
		if (old)
			r = kmemfs_pages_add(&c->old, old);
		if (r)
			return r;
		w->nr_index += !!page;
		w->nr_index -= !!old;
		cond_resched();
	}
	return 0;
}

/* The leaves have been written: write what is above those that have changed */
int kmemfs_write_table(struct kmemfs_commit *c, struct kmemfs_new_table *w)
{
	unsigned long leaves = kmemfs_count_leaves(w), below = leaves;
	unsigned int level, height = kmemfs_table_height(leaves);
	int r;

	if (height > KMEMFS_MAX_HEIGHT)
		return -EFBIG;
	w->nr_index = w->table->nr_index;
	for (level = 1; level <= KMEMFS_MAX_HEIGHT; level++) {
		r = kmemfs_index_mark_level(c, w, level, leaves);
		if (!r)
			r = kmemfs_index_write_level(c, w, level, level <= height ? below : 0);
		if (r)
			return r;
		below = DIV_ROUND_UP(below, KMEMFS_INDEX_ENTRIES);
	}
	w->top = kmemfs_table_page(w, height, 0);
	w->height = height;
	w->span = leaves;
	return 0;
}

/* All is written; the leaves in memory are those of the commit already */
void kmemfs_table_committed(struct kmemfs_new_table *w)
{
	struct kmemfs_table *t = w->table;
	unsigned int level;
	unsigned long n;
	void *v;

	for (level = 1; level <= KMEMFS_MAX_HEIGHT; level++) {
		xa_for_each(&w->index[level - 1], n, v) {
			if (xa_to_value(v))
				xa_store(&t->index[level - 1], n, v, GFP_NOFS);
			else
				xa_erase(&t->index[level - 1], n);
		}
	}
	t->nr_index = w->nr_index;
	t->span = w->span;
}

void kmemfs_table_init(struct kmemfs_table *t, u64 owner)
{
	int i;

	xa_init(&t->leaves);
	for (i = 0; i < KMEMFS_MAX_HEIGHT; i++)
		xa_init(&t->index[i]);
	t->nr_index = 0;
	t->span = 0;
	t->owner = owner;
}

void kmemfs_table_destroy(struct kmemfs_table *t)
{
	int i;

	xa_destroy(&t->leaves);
	for (i = 0; i < KMEMFS_MAX_HEIGHT; i++)
		xa_destroy(&t->index[i]);
	t->nr_index = 0;
	t->span = 0;
}

void kmemfs_new_table_init(struct kmemfs_new_table *w, struct kmemfs_table *t)
{
	int i;

	w->table = t;
	xa_init(&w->leaves);
	for (i = 0; i < KMEMFS_MAX_HEIGHT; i++)
		xa_init(&w->index[i]);
}

void kmemfs_new_table_destroy(struct kmemfs_new_table *w)
{
	int i;

	xa_destroy(&w->leaves);
	for (i = 0; i < KMEMFS_MAX_HEIGHT; i++)
		xa_destroy(&w->index[i]);
}
