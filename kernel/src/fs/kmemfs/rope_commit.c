// SPDX-License-Identifier: GPL-2.0
/*
 * kmemfs: file trees of version 2 in a commit
 */

/**
 * DOC: letting go of trees that share pages
 *
 * On media a page may be shared: by several files, or by one that has it several times.
 * kmemfs.shared counts for each page how many entries and records lead to it besides the
 * first one. That is not left to the page's reference count, as others may hold a
 * reference for a moment. If a page goes that something else leads to, what is below it
 * stays, and what the new tree has of it is shared then.
 *
 * What a tree has is known from its rope, so no page is read for that, be it damaged.
 */

#include <linux/slab.h>
#include "commit.h"

/* What the one above says of a page of the old rope, see kmemfs_let_go() */
enum kmemfs_fate {
	KMEMFS_GOES,	/* nothing leads to it any more */
	KMEMFS_SHARED,	/* something else leads to it */
	KMEMFS_KEPT,	/* it is part of the new rope */
};

/* ---- writing -------------------------------------------------------------- */

/* A page that does not say just what was planned would move all that is behind it */
static int kmemfs_check_planned(u64 at, const struct kmemfs_piece *piece)
{
	return WARN_ON_ONCE(at != piece->end) ? -EUCLEAN : 0;
}

static int kmemfs_write_piece(struct kmemfs_commit *c, struct kmemfs_inode *ki,
			      struct kmemfs_piece *piece)
{
	struct kmemfs_scan s = {
		.ki = ki,
		.flush = c->k,
		.at = piece->start,
		.end = piece->end,
	};
	struct kmemfs_run_info *run = c->page;
	u64 at = piece->start, page;
	u32 nr = 0;
	int r;

	while (kmemfs_next_run(&s)) {
		if (s.start > at)
			run[nr++] = (struct kmemfs_run_info){ .count = s.start - at };
		run[nr++] = (struct kmemfs_run_info){ .page = s.page, .count = s.nr };
		at = s.start + s.nr;
	}
	r = kmemfs_check_planned(at, piece);
	if (!r)
		r = kmemfs_write_segment(&c->sink, run, nr, &page);
	if (!r)
		piece->page = page;
	return r;
}

static int kmemfs_write_parent(struct kmemfs_commit *c, const struct kmemfs_rope *rope,
			       unsigned int l, struct kmemfs_piece *piece)
{
	const struct kmemfs_level *below = &rope->level[l - 1];
	struct kmemfs_child_info *entry = c->page;
	u64 at = piece->start, page;
	u32 nr = 0;
	size_t i;
	int r;

	for (i = kmemfs_first_from(below, at); i < below->nr; i++) {
		const struct kmemfs_piece *child = &below->piece[i];

		if (child->start >= piece->end)
			break;
		if (WARN_ON_ONCE(child->start < at))
			return -EUCLEAN;
		if (child->start > at)
			entry[nr++] = (struct kmemfs_child_info){ .length = child->start - at };
		entry[nr++] = (struct kmemfs_child_info){
			.page = child->page,
			.length = child->end - child->start,
		};
		at = child->end;
	}
	r = kmemfs_check_planned(at, piece);
	if (!r)
		r = kmemfs_write_node(&c->sink, l, entry, nr, &page);
	if (!r)
		piece->page = page;
	return r;
}

static int kmemfs_write_level(struct kmemfs_commit *c, struct kmemfs_inode *ki,
			      const struct kmemfs_rope *rope, unsigned int l)
{
	struct kmemfs_piece *piece;
	int r = 0;

	for (piece = rope->level[l].piece; piece < rope->level[l].piece + rope->level[l].nr;
	     piece++) {
		if (piece->page)
			continue;
		if (l)
			r = kmemfs_write_parent(c, rope, l, piece);
		else
			r = kmemfs_write_piece(c, ki, piece);
		if (r)
			return r;
		cond_resched();
	}
	return 0;
}

/* ---- letting go ----------------------------------------------------------- */

/* Entries and records that lead to a page besides the first one */
static unsigned long kmemfs_shared_by(struct kmemfs *k, u32 page)
{
	void *v = xa_load(&k->shared, page);

	return v ? xa_to_value(v) : 0;
}

/* While attaching: one more leads to it; 0 or -ENOMEM */
int kmemfs_share(struct kmemfs *k, u32 page)
{
	return xa_err(xa_store(&k->shared, page, xa_mk_value(kmemfs_shared_by(k, page) + 1),
			       GFP_KERNEL));
}

/* One more leads to a page, or one less but not none; entries that are 0 go after the commit */
static int kmemfs_share_in_commit(struct kmemfs_commit *c, u32 page, bool more)
{
	unsigned long by = kmemfs_shared_by(c->k, page);
	int r = kmemfs_pages_add(&c->shared, more ? page : page | KMEMFS_NEW);

	if (r)
		return r;
	r = xa_err(xa_store(&c->k->shared, page, xa_mk_value(more ? by + 1 : by - 1), GFP_KERNEL));
	if (r)
		c->shared.nr--;
	return r;
}

static int kmemfs_let_go_piece(struct kmemfs_commit *c, struct kmemfs_piece *piece,
			       enum kmemfs_fate above)
{
	if (above == KMEMFS_KEPT || piece->kept) {
		piece->fate = KMEMFS_KEPT;
		/* the one above stays with others, so now both lead to it */
		return above == KMEMFS_SHARED ? kmemfs_share_in_commit(c, piece->page, true) : 0;
	}
	piece->fate = KMEMFS_SHARED;
	if (above == KMEMFS_SHARED)
		return 0;
	if (kmemfs_shared_by(c->k, piece->page))
		return kmemfs_share_in_commit(c, piece->page, false);
	piece->fate = KMEMFS_GOES;
	return kmemfs_pages_add(&c->old, piece->page);
}

/* A record does not lead to a rope any more: from the top down, what leads to nothing else goes */
static int kmemfs_let_go(struct kmemfs_commit *c, const struct kmemfs_rope *rope)
{
	const struct kmemfs_level *level, *above;
	unsigned int l = rope->height + 1;
	enum kmemfs_fate fate;
	size_t i, up;
	int r;

	while (l--) {
		level = &rope->level[l];
		above = l < rope->height ? level + 1 : NULL;
		for (i = 0, up = 0; i < level->nr; i++) {
			fate = KMEMFS_GOES;
			if (above) {
				while (up + 1 < above->nr &&
				       above->piece[up].end <= level->piece[i].start)
					up++;
				fate = above->piece[up].fate;
			}
			r = kmemfs_let_go_piece(c, &level->piece[i], fate);
			if (r)
				return r;
			cond_resched();
		}
	}
	return 0;
}

/* ---- commits -------------------------------------------------------------- */

/* The commit has @rope for an inode, or none */
static int kmemfs_set_rope(struct kmemfs_commit *c, u64 ino, struct kmemfs_rope *rope)
{
	int r = xa_reserve(&c->k->ropes, ino, GFP_KERNEL);

	return r ?: xa_err(xa_store(&c->ropes, ino, rope ? (void *)rope : xa_mk_value(0),
				    GFP_KERNEL));
}

/* The inode of the last commit is not in this one */
int kmemfs_drop_rope(struct kmemfs_commit *c, u64 ino)
{
	const struct kmemfs_rope *rope = xa_load(&c->k->ropes, ino);
	unsigned int l;
	size_t i;
	int r;

	if (!rope)
		return 0;
	for (l = 0; l <= rope->height; l++)
		for (i = 0; i < rope->level[l].nr; i++)
			rope->level[l].piece[i].kept = 0;
	r = kmemfs_let_go(c, rope);
	return r ?: kmemfs_set_rope(c, ino, NULL);
}

static int kmemfs_write_plan(struct kmemfs_commit *c, struct kmemfs_plan *p)
{
	const struct kmemfs_rope *rope = p->new;
	struct kmemfs_tree_ref *tree = &p->ki->new_tree;
	size_t i, old = c->old.nr;
	unsigned int l;
	int r;

	*tree = (struct kmemfs_tree_ref){};
	for (l = 0; l <= rope->height; l++) {
		r = kmemfs_write_level(c, p->ki, rope, l);
		if (r)
			return r;
	}
	r = kmemfs_let_go(c, p->old);
	if (r)
		return r;
	for (i = 0; i < rope->level[0].nr; i++)
		tree->nr_runs += rope->level[0].piece[i].runs;
	if (rope->level[0].nr) {
		tree->top = rope->level[rope->height].piece->page;
		tree->height = rope->height;
		tree->own = (p->old->level[0].nr ? p->ki->tree.own : 0) + p->fresh;
		tree->own -= min(tree->own, c->old.nr - old);
	}
	return 0;
}

/* Write what has changed of a file's tree; ki->new_tree is what the record will say */
int kmemfs_write_rope(struct kmemfs_commit *c, struct kmemfs_inode *ki)
{
	struct kmemfs_rope none = {};
	struct kmemfs_plan p = {
		.ki = ki,
		.old = &none,
		.end = DIV_ROUND_UP_ULL(i_size_read(&ki->vfs), PAGE_SIZE),
	};
	int r;

	if (ki->tree.top && c->k->root.version == 2)
		p.old = xa_load(&c->k->ropes, ki->vfs.i_ino);
	p.whole = p.old == &none;
	p.budget = kmemfs_tree_budget(ki);
	r = kmemfs_plan_rope(&p);
	if (!r)
		r = kmemfs_write_plan(c, &p);
	if (p.extra)
		kmemfs_unreserve_trees(c->k, p.extra);
	if (!r && p.new->level[0].nr) {
		r = kmemfs_set_rope(c, ki->vfs.i_ino, p.new);
		if (!r)
			return 0;
	} else if (!r) {
		r = kmemfs_set_rope(c, ki->vfs.i_ino, NULL);
	}
	kmemfs_free_rope(p.new);
	return r;
}

/* All is written: from here on these are the ropes */
void kmemfs_ropes_committed(struct kmemfs_commit *c)
{
	struct kmemfs *k = c->k;
	struct kmemfs_rope *old;
	unsigned long ino;
	size_t i;
	void *v;

	xa_for_each(&c->ropes, ino, v) {
		old = xa_load(&k->ropes, ino);
		if (old)
			kmemfs_uncharge_table(k, kmemfs_rope_bytes(old));
		kmemfs_free_rope(old);
		if (xa_is_value(v)) {
			xa_erase(&k->ropes, ino);
			continue;
		}
		xa_store(&k->ropes, ino, v, GFP_KERNEL);	/* reserved: cannot fail */
		atomic64_add(kmemfs_rope_bytes(v), &k->table_bytes);
	}
	for (i = 0; i < c->shared.nr; i++) {
		u32 page = KMEMFS_PAGE(c->shared.page[i]);

		if (!kmemfs_shared_by(k, page))
			xa_erase(&k->shared, page);
	}
}

void kmemfs_ropes_undo(struct kmemfs_commit *c)
{
	unsigned long ino;
	void *v;

	xa_for_each(&c->ropes, ino, v)
		if (!xa_is_value(v))
			kmemfs_free_rope(v);
	while (c->shared.nr) {
		u32 entry = c->shared.page[--c->shared.nr], page = KMEMFS_PAGE(entry);
		unsigned long by = kmemfs_shared_by(c->k, page);

		/* it is there, so this does not allocate */
		xa_store(&c->k->shared, page,
			 xa_mk_value(entry & KMEMFS_NEW ? by + 1 : by - 1), GFP_KERNEL);
	}
}
