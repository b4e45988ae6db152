// SPDX-License-Identifier: GPL-2.0
/*
 * kmemfs: file trees of version 2
 */

/**
 * DOC: ropes
 *
 * A file's tree is a sequence of segments, a sequence of nodes above them, and so on up
 * to one page, the top. Its rope in memory (kmemfs.ropes) says of each which part of the
 * file it covers; what none covers is a hole. It is what the last commit has, so trees
 * are never read from media again.
 *
 * A commit plans the new rope level by level. Segments with a dirty chunk of the page
 * table go, and others stay; what lies between those that stay is packed into new ones.
 * Nodes stay if just the same pages are below them, and what is between is packed again.
 * A page next to a stretch that is packed goes with it if it has few entries. A plan that
 * writes more than a whole tree may have, or leaves almost twice as many pages as
 * needed, is given up for one that writes the whole, if there are pages for that.
 *
 * rope_commit.c writes what is planned.
 */

#include <linux/slab.h>
#include "commit.h"

/* ---- ropes ---------------------------------------------------------------- */

/* Pages of a tree of @entries runs and holes; a segment may leave its last place empty */
unsigned long kmemfs_rope_pages(unsigned long entries)
{
	unsigned long level = DIV_ROUND_UP(entries, KMEMFS_SRUNS_PER_PAGE - 1);
	unsigned long pages = level;

	while (level > 1) {
		level = DIV_ROUND_UP(level, KMEMFS_CHILDREN_PER_PAGE);
		pages += level;
	}
	return pages;
}

/* Memory that a rope takes */
size_t kmemfs_rope_bytes(const struct kmemfs_rope *rope)
{
	size_t bytes = sizeof(*rope);
	unsigned int l;

	for (l = 0; l <= KMEMFS_MAX_HEIGHT; l++)
		bytes += rope->level[l].room * sizeof(struct kmemfs_piece);
	return bytes;
}

void kmemfs_free_rope(struct kmemfs_rope *rope)
{
	unsigned int l;

	if (!rope)
		return;
	for (l = 0; l <= KMEMFS_MAX_HEIGHT; l++)
		kvfree(rope->level[l].piece);
	kfree(rope);
}

/* Memory that one more piece of a level takes, for the accounts */
size_t kmemfs_rope_growth(const struct kmemfs_rope *rope, unsigned int l)
{
	const struct kmemfs_level *level = &rope->level[l];

	return level->nr == level->room ? max(level->room, 1UL) * sizeof(struct kmemfs_piece) : 0;
}

/* Add a piece behind all others of its level; 0 or -ENOMEM */
int kmemfs_rope_add(struct kmemfs_rope *rope, unsigned int l, const struct kmemfs_piece *piece)
{
	struct kmemfs_level *level = &rope->level[l];

	if (level->nr == level->room) {
		size_t room = level->room ? 2 * level->room : 1;
		struct kmemfs_piece *bigger = kvmalloc_array(room, sizeof(*bigger),
							     GFP_KERNEL | __GFP_NOWARN);

		if (!bigger)
			return -ENOMEM;
		if (level->nr)
			memcpy(bigger, level->piece, level->nr * sizeof(*bigger));
		kvfree(level->piece);
		level->piece = bigger;
		level->room = room;
	}
	level->piece[level->nr++] = *piece;
	return 0;
}

/* The first piece that starts at @start or behind it */
size_t kmemfs_first_from(const struct kmemfs_level *level, u64 start)
{
	size_t low = 0, high = level->nr;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (level->piece[mid].start < start)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

/* ---- planning ------------------------------------------------------------- */

/* Has the page table changed in [from, to)? */
static bool kmemfs_table_dirty(struct kmemfs_inode *ki, u64 from, u64 to)
{
	unsigned long ci = from >> KMEMFS_CHUNK_SHIFT;

	return from < to && xa_find(&ki->chunks, &ci, (to - 1) >> KMEMFS_CHUNK_SHIFT,
				    KMEMFS_CHUNK_DIRTY);
}

/* Is there anything to write between two pieces of a level, in [from, to)? */
static bool kmemfs_gap_dirty(const struct kmemfs_plan *p, unsigned int l, u64 from, u64 to)
{
	const struct kmemfs_level *below;
	size_t i;

	if (!l)
		return kmemfs_table_dirty(p->ki, from, to);
	below = &p->new->level[l - 1];
	i = kmemfs_first_from(below, from);
	return i < below->nr && below->piece[i].start < to;
}

static bool kmemfs_piece_dirty(const struct kmemfs_plan *p, unsigned int l,
			       const struct kmemfs_piece *piece)
{
	const struct kmemfs_level *was, *is;
	size_t i, end;

	if (p->whole || piece->end > p->end)
		return true;
	/* memory knows all that a page of the tree says, should the page fail */
	if (!p->keep_damaged && kmemfs_damaged(kmemfs_of(&p->ki->vfs), piece->page))
		return true;
	if (!l)
		return kmemfs_table_dirty(p->ki, piece->start, piece->end);
	was = &p->old->level[l - 1];
	is = &p->new->level[l - 1];
	i = kmemfs_first_from(is, piece->start);
	/* a page from before may reach into the hole that the node begins with */
	if (i && is->piece[i - 1].end > piece->start)
		return true;
	end = kmemfs_first_from(is, piece->end);
	if (end - i != kmemfs_first_from(was, piece->end) - kmemfs_first_from(was, piece->start))
		return true;
	for (; i < end; i++)
		if (!is->piece[i].page)
			return true;
	return false;
}

/* Which of the old pages of a level stay? */
static void kmemfs_plan_kept(const struct kmemfs_plan *p, unsigned int l)
{
	const unsigned int most = l ? KMEMFS_CHILDREN_PER_PAGE : KMEMFS_SRUNS_PER_PAGE;
	const struct kmemfs_level *old = &p->old->level[l];
	bool near, behind;
	size_t i;

	for (i = 0; i < old->nr; i++) {
		old->piece[i].dirty = kmemfs_piece_dirty(p, l, &old->piece[i]);
		cond_resched();
	}
	behind = kmemfs_gap_dirty(p, l, 0, old->nr ? old->piece[0].start : 0);
	for (i = 0; i < old->nr; i++) {
		struct kmemfs_piece *piece = &old->piece[i];
		bool last = i + 1 == old->nr;
		unsigned int few = most / 2;

		near = behind || (i && piece[-1].dirty);
		behind = kmemfs_gap_dirty(p, l, piece->end,
					  last ? KMEMFS_MAX_FILE_PAGES : piece[1].start);
		/* a file that grows fills its last page */
		if (last && behind)
			few = most;
		near |= behind || (!last && piece[1].dirty);
		piece->kept = !piece->dirty && (piece->nr >= few || !near);
	}
}

static int kmemfs_add_fresh(struct kmemfs_plan *p, unsigned int l,
			    const struct kmemfs_piece *piece)
{
	p->fresh++;
	return kmemfs_rope_add(p->new, l, piece);
}

/* Plan segments for the runs of [from, to), one behind the other */
static int kmemfs_pack_runs(struct kmemfs_plan *p, u64 from, u64 to)
{
	struct kmemfs_piece piece = { .start = from, .end = from };
	struct kmemfs_scan s = { .ki = p->ki, .at = from, .end = to };
	int r;

	while (kmemfs_next_run(&s)) {
		unsigned int more = s.start > piece.end ? 2 : 1;

		if (piece.nr + more > KMEMFS_SRUNS_PER_PAGE) {
			u64 end = piece.end;

			r = kmemfs_add_fresh(p, 0, &piece);
			if (r)
				return r;
			piece = (struct kmemfs_piece){ .start = end, .end = end };
		}
		piece.nr += more;
		piece.runs++;
		piece.end = s.start + s.nr;
	}
	return piece.nr ? kmemfs_add_fresh(p, 0, &piece) : 0;
}

/* The same with nodes of level @l, for the pages below */
static int kmemfs_pack_children(struct kmemfs_plan *p, unsigned int l, u64 from, u64 to)
{
	struct kmemfs_piece piece = { .start = from, .end = from };
	const struct kmemfs_level *below = &p->new->level[l - 1];
	size_t i;
	int r;

	for (i = kmemfs_first_from(below, from); i < below->nr; i++) {
		const struct kmemfs_piece *child = &below->piece[i];
		unsigned int more = child->start > piece.end ? 2 : 1;

		if (child->start >= to)
			break;
		if (piece.nr + more > KMEMFS_CHILDREN_PER_PAGE) {
			u64 end = piece.end;

			r = kmemfs_add_fresh(p, l, &piece);
			if (r)
				return r;
			piece = (struct kmemfs_piece){ .start = end, .end = end };
		}
		piece.nr += more;
		piece.end = child->end;
	}
	return piece.nr ? kmemfs_add_fresh(p, l, &piece) : 0;
}

/* Take over what stays of a level, and pack what is between */
static int kmemfs_plan_level(struct kmemfs_plan *p, unsigned int l)
{
	const struct kmemfs_level *old = &p->old->level[l];
	bool any = p->whole;
	u64 from = 0;
	size_t i;
	int r;

	for (i = 0; i <= old->nr; i++) {
		const struct kmemfs_piece *piece = i < old->nr ? &old->piece[i] : NULL;
		u64 to = piece ? piece->start : KMEMFS_MAX_FILE_PAGES;

		if (piece && !piece->kept) {
			any = true;
			continue;
		}
		r = 0;
		if (l)
			r = kmemfs_pack_children(p, l, from, to);
		else if (any || kmemfs_table_dirty(p->ki, from, to))
			r = kmemfs_pack_runs(p, from, to);
		if (!r && piece)
			r = kmemfs_rope_add(p->new, l, piece);
		if (r)
			return r;
		any = p->whole;
		from = piece ? piece->end : to;
	}
	return 0;
}

static int kmemfs_plan_levels(struct kmemfs_plan *p)
{
	const struct kmemfs_level *level;
	unsigned int l;
	size_t i;
	int r;

	for (l = 0; l <= KMEMFS_MAX_HEIGHT; l++)
		for (i = 0; i < p->old->level[l].nr; i++)
			p->old->level[l].piece[i].kept = 0;
	for (l = 0; l <= KMEMFS_MAX_HEIGHT; l++) {
		kmemfs_plan_kept(p, l);
		r = kmemfs_plan_level(p, l);
		if (r)
			return r;
		level = &p->new->level[l];
		p->new->height = l;
		if (!level->nr || (level->nr == 1 && !level->piece->start))
			return 0;
	}
	return -EFBIG;
}

/* Pages of a tree of these runs that is about as small as it can be, and those of this one */
static bool kmemfs_too_many_pages(const struct kmemfs_plan *p)
{
	const struct kmemfs_level *level = p->new->level;
	unsigned long entries = 1, runs = 0, pages = 0;
	u64 end = 0;
	size_t i;

	for (i = 0; i < level->nr; i++) {
		entries += level->piece[i].nr + (level->piece[i].start > end);
		runs += level->piece[i].runs;
		end = level->piece[i].end;
	}
	for (i = 0; i <= KMEMFS_MAX_HEIGHT; i++)
		pages += level[i].nr;
	return pages > kmemfs_rope_most(min(entries, 2 * runs + 1));
}

/* May @pages be written without that others lack them? p->extra of them are to be given back. */
static bool kmemfs_may_write(struct kmemfs_plan *p, unsigned long pages)
{
	if (pages <= p->budget)
		return true;
	if (kmemfs_reserve_trees(kmemfs_of(&p->ki->vfs), pages - p->budget))
		return false;
	p->extra = pages - p->budget;
	return true;
}

/*
 * Plan the rope of a file: p->new, also if it fails. What has changed fits into the budget
 * (KMEMFS_CHANGE_PAGES), or all of it does.
 */
int kmemfs_plan_rope(struct kmemfs_plan *p)
{
	int r;

	for (;;) {
		p->fresh = 0;
		p->new = kzalloc(sizeof(*p->new), GFP_KERNEL);
		if (!p->new)
			return -ENOMEM;
		r = kmemfs_plan_levels(p);
		if (p->whole || (r && r != -EFBIG))
			return r;
		if (!r && p->fresh <= p->budget && !kmemfs_too_many_pages(p))
			return 0;
		if (kmemfs_may_write(p, kmemfs_tree_bound(p->ki))) {
			p->whole = true;
		} else {
			if (r || p->fresh <= p->budget)
				return r;
			if (p->keep_damaged)
				return kmemfs_may_write(p, p->fresh) ? 0 : -ENOSPC;
			p->keep_damaged = true;
		}
		kmemfs_free_rope(p->new);
	}
}
