/* SPDX-License-Identifier: GPL-2.0 */
/* What the files that write a commit share */
#ifndef KMEMFS_COMMIT_H
#define KMEMFS_COMMIT_H

#include "kmemfs.h"

/**
 * struct kmemfs_new_table - what a commit writes of a table
 * @table: which one
 * @leaves: leaf number -> page (0: none)
 * @index: inner pages, a level, in the same way
 * @nr_index: how many there are then
 * @span: leaves of all of it then, absent ones included
 * @top: page of its top
 * @height: levels above the leaves
 */
struct kmemfs_new_table {
	struct kmemfs_table *table;
	struct xarray leaves;
	struct xarray index[KMEMFS_MAX_HEIGHT];
	unsigned long nr_index;
	unsigned long span;
	u64 top;
	u32 height;
};

/**
 * struct kmemfs_commit - a commit being written
 * @k: the pool
 * @sink: for the format's writers
 * @fresh: pages that it has allocated
 * @old: metadata pages that it replaces, and that nothing leads to any more
 * @itable: what it writes of the inode table
 * @sums: and of that of checksums
 * @sums_written: it does
 * @sums_pages: pages of it
 * @spare_reserve: take no page of the reserve
 * @ropes: version 2: file trees that it writes: inode number -> rope (value 0: none)
 * @shared: changes of kmemfs.shared: pages, those that lost one with KMEMFS_NEW
 * @pending: pages that the commit before has and this one has not
 * @root: what it will say
 * @page: a page of memory for who writes one
 */
struct kmemfs_commit {
	struct kmemfs *k;
	struct kmemfs_sink sink;
	struct kmemfs_pages fresh;
	struct kmemfs_pages old;
	struct kmemfs_new_table itable;
	struct kmemfs_new_table sums;
	bool sums_written;
	unsigned long sums_pages;
	bool spare_reserve;
	struct xarray ropes;
	struct kmemfs_pages shared;
	struct list_head pending;
	struct kmemfs_root_info root;
	void *page;
};

/**
 * struct kmemfs_plan - a new rope in the making
 * @ki: of which file
 * @old: the rope of the last commit; without pieces if there is none
 * @new: the new one
 * @end: pages of the file
 * @fresh: pages that have to be written
 * @budget: that may be
 * @extra: pages that the reserve has for that besides
 * @whole: none of the old pages stays
 * @keep_damaged: not even those go whose memory has failed
 */
struct kmemfs_plan {
	struct kmemfs_inode *ki;
	struct kmemfs_rope *old;
	struct kmemfs_rope *new;
	u64 end;
	unsigned long fresh;
	unsigned long budget;
	unsigned long extra;
	bool whole;
	bool keep_damaged;
};

/* index.c */
int kmemfs_write_table(struct kmemfs_commit *c, struct kmemfs_new_table *w);
void kmemfs_table_committed(struct kmemfs_new_table *w);
void kmemfs_new_table_init(struct kmemfs_new_table *w, struct kmemfs_table *t);
void kmemfs_new_table_destroy(struct kmemfs_new_table *w);

/* commit.c */
void kmemfs_unwrite(struct kmemfs_commit *c, size_t fresh);

/* sums_media.c */
void kmemfs_commit_sums(struct kmemfs_commit *c);
void kmemfs_sums_committed(struct kmemfs_commit *c);

/* extents.c */
int kmemfs_write_extents(struct kmemfs_commit *c, struct kmemfs_inode *ki);
int kmemfs_drop_extents(struct kmemfs_commit *c, const struct kmemfs_inode_record *record);

/* rope.c */
size_t kmemfs_first_from(const struct kmemfs_level *level, u64 start);
int kmemfs_plan_rope(struct kmemfs_plan *p);

/* rope_commit.c */
int kmemfs_write_rope(struct kmemfs_commit *c, struct kmemfs_inode *ki);
int kmemfs_drop_rope(struct kmemfs_commit *c, u64 ino);
void kmemfs_ropes_committed(struct kmemfs_commit *c);
void kmemfs_ropes_undo(struct kmemfs_commit *c);

#endif /* KMEMFS_COMMIT_H */
