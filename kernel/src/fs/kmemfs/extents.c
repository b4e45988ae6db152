// SPDX-License-Identifier: GPL-2.0
/*
 * kmemfs: file trees of version 1, which are written as a whole
 */

#include "commit.h"

static int kmemfs_old_meta(void *ctx, __u64 page, enum kmemfs_page_kind kind, __u32 level)
{
	struct kmemfs_commit *c = ctx;

	return kmemfs_pages_add(&c->old, page);
}

static const struct kmemfs_visitor kmemfs_old_visitor = { .meta = kmemfs_old_meta };

/* The extent tree of @record goes */
int kmemfs_drop_extents(struct kmemfs_commit *c, const struct kmemfs_inode_record *record)
{
	struct kmem_persist_why why = {};
	struct kmemfs_media m;
	int r;

	kmemfs_media_init(c->k, &m);
	r = kmemfs_walk_runs(&m, &c->k->root, record, &kmemfs_old_visitor, c, &why);
	if (r == -EUCLEAN)
		kmemfs_fail(c->k, why.text);
	return r;
}

int kmemfs_write_extents(struct kmemfs_commit *c, struct kmemfs_inode *ki)
{
	struct kmemfs_scan s = {
		.ki = ki,
		.flush = c->k,
		.end = KMEMFS_MAX_FILE_PAGES,
	};
	struct kmemfs_tree t;
	int r;

	kmemfs_tree_init(&t, &c->sink, ki->vfs.i_ino);
	while (kmemfs_next_run(&s)) {
		r = kmemfs_tree_add_run(&t, s.start, s.nr, s.page);
		if (r)
			return r;
	}
	r = kmemfs_tree_finish(&t, &ki->new_tree.top, &ki->new_tree.height);
	ki->new_tree.nr_runs = t.nr_runs;
	ki->new_tree.own = kmemfs_extents_pages(t.nr_runs);
	return r;
}
