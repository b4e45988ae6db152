// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
/**
 * DOC: reading the trees that lead to the pages of files
 *
 * Version 1: an extent tree belongs to one inode. Its leaves hold runs, each of
 * which says where in the file it is.
 *
 * Version 2: a file is a sequence of segments below nodes. None of these pages
 * says where in which file it is, only where on the device it is itself, and how
 * much of a file it covers; so several files may have it, and what is behind a
 * change does not change. Levels descend, so
 * there are no cycles; but one page may be reached along many ways, and as that
 * could be more than anybody can wait for, it is bounded for all of a walk.
 */
#include "format_internal.h"

static u64 file_pages(const struct kmemfs_inode_record *r)
{
	const u64 size = le64_to_cpu(r->size);

	return size / KMEMFS_PAGE_SIZE + !!(size % KMEMFS_PAGE_SIZE);
}

static int run_check(const struct kmemfs_walk *w, u64 leaf, u64 page, u64 count)
{
	if (page < w->m->first || page >= w->m->end || count > w->m->end - page)
		return kmemfs_refuse(w->why, "page %llu: run of %llu pages at %llu: out of bounds",
				     leaf, count, page);
	return 0;
}

static int counts_check(const struct kmemfs_walk *w, const struct kmemfs_inode_record *r,
			u64 nr_runs, u64 nr_pages)
{
	const u64 ino = le64_to_cpu(r->ino);

	if (nr_runs == le64_to_cpu(r->nr_runs) && nr_pages == le64_to_cpu(r->nr_pages))
		return 0;
	kmem_persist_why_set(w->why, "inode %llu: has %llu runs, %llu pages: wrong counts", ino,
			     nr_runs, nr_pages);
	/* All there is has been reported */
	return kmemfs_report_damage(w, le64_to_cpu(r->extents), ino, 0, 0);
}

/* ---- version 1 -------------------------------------------------------------- */

/* What the runs of an inode add up to, and may not exceed */
struct run_sum {
	u64 nr_runs;
	u64 nr_pages;
	u64 next_file_page;
	u64 end_file_page;
};

/**
 * struct extents - a walk over the runs of one inode
 * @w: the walk it is part of
 * @record: the inode
 * @ino: its number
 * @sum: of the runs so far
 * @is_lost: pages behind @sum are lost, up to the next run that is there
 * @lost: the first page of the tree that does not hold since
 * @lost_why: the reason
 * @damaged: some have been lost
 */
struct extents {
	struct kmemfs_walk *w;
	const struct kmemfs_inode_record *record;
	u64 ino;
	struct run_sum sum;
	bool is_lost;
	u64 lost;
	struct kmem_persist_why lost_why;
	bool damaged;
};

static int extent_check(const struct kmemfs_walk *w, u64 leaf, const struct kmemfs_run *run,
			struct run_sum *sum)
{
	const u64 file_page = le32_to_cpu(run->file_page);
	const u64 count = le32_to_cpu(run->count);

	if (!count)
		return kmemfs_refuse(w->why, "page %llu: empty run", leaf);
	if (file_page < sum->next_file_page)
		return kmemfs_refuse(w->why, "page %llu: runs overlap or are out of order", leaf);
	if (file_page + count > sum->end_file_page)
		return kmemfs_refuse(w->why, "page %llu: run beyond the file's size", leaf);
	sum->nr_runs++;
	sum->nr_pages += count;
	sum->next_file_page = file_page + count;
	return run_check(w, leaf, le64_to_cpu(run->page), count);
}

static int extents_check(const struct kmemfs_walk *w, u64 page, const struct kmemfs_extents *leaf,
			 struct run_sum *sum)
{
	const u32 nr = le32_to_cpu(leaf->head.nr);
	u32 i;
	int err;

	err = kmemfs_first_check(w, page, &leaf->head, le32_to_cpu(leaf->run[0].file_page));
	for (i = 0; i < nr && !err; i++)
		err = extent_check(w, page, &leaf->run[i], sum);
	if (err)
		return err;
	if (!kmemfs_all_zero(&leaf->run[nr], leaf + 1))
		return kmemfs_refuse(w->why, "page %llu: unused entries not zero", page);
	return kmemfs_report_meta(w, page, KMEMFS_KIND_EXTENTS, 0);
}

/* A page of the tree does not hold. How much that loses is known at the next one that does. */
static int extents_lose(struct extents *x, u64 page)
{
	if (!page)
		page = le64_to_cpu(x->record->extents);
	if (!x->w->v->damage || x->is_lost)
		return kmemfs_report_damage(x->w, page, x->ino, x->sum.next_file_page, 0);
	x->is_lost = true;
	x->damaged = true;
	x->lost = page;
	x->lost_why.text[0] = 0;
	if (x->w->why)
		x->lost_why = *x->w->why;
	return 0;
}

/* All before @file_page that is not there is lost */
static int extents_tell(struct extents *x, u64 file_page)
{
	const u64 from = x->sum.next_file_page;

	if (!x->is_lost)
		return 0;
	x->is_lost = false;
	return x->w->v->damage(x->w->ctx, x->lost, x->ino, from, file_page - from,
			       x->lost_why.text);
}

static int extents_report(struct extents *x, const struct kmemfs_extents *leaf)
{
	const u32 nr = le32_to_cpu(leaf->head.nr);
	const struct kmemfs_run *run;
	u32 i;
	int err = 0;

	if (!x->w->v->run)
		return 0;
	for (i = 0; i < nr && !err; i++) {
		run = &leaf->run[i];
		err = x->w->v->run(x->w->ctx, x->ino, le32_to_cpu(run->file_page),
				   le32_to_cpu(run->count), le64_to_cpu(run->page));
	}
	return err;
}

static int extents_leaf(struct extents *x, u64 page)
{
	const struct kmemfs_expect e = {
		.kind = KMEMFS_KIND_EXTENTS,
		.owner = x->ino,
		.max_nr = KMEMFS_RUNS_PER_PAGE,
	};
	const struct kmemfs_extents *leaf = kmemfs_page_read(x->w, page, &e);
	struct run_sum sum = x->sum;
	int err;

	err = leaf ? extents_check(x->w, page, leaf, &sum) : -EUCLEAN;
	if (err == -EUCLEAN)
		return extents_lose(x, page);
	if (!err)
		err = extents_tell(x, le32_to_cpu(leaf->run[0].file_page));
	x->sum = sum;
	return err ? err : extents_report(x, leaf);
}

static int walk_extents(struct kmemfs_walk *w, const struct kmemfs_inode_record *r)
{
	struct extents x = {
		.w = w,
		.record = r,
		.ino = le64_to_cpu(r->ino),
		.sum.end_file_page = file_pages(r),
	};
	struct kmemfs_walk_tree t;
	u64 page, nr;
	int err;

	kmemfs_walk_tree_init(&t, w, x.ino, le64_to_cpu(r->extents),
			      le32_to_cpu(r->extents_height), KMEMFS_ANY_LEAVES);
	while ((err = kmemfs_walk_tree_next(&t, &page, &nr))) {
		if (err == -EUCLEAN)
			err = extents_lose(&x, page);
		else if (err > 0)
			err = extents_leaf(&x, page);
		if (err)
			return err;
	}
	err = extents_tell(&x, x.sum.end_file_page);
	if (err || x.damaged)
		return err;
	return counts_check(w, r, x.sum.nr_runs, x.sum.nr_pages);
}

/* ---- version 2 -------------------------------------------------------------- */

/**
 * struct rope - a walk over the segments of one inode
 * @w: the walk it is part of
 * @ino: the inode
 * @at: file page reached
 * @end: where the file ends
 * @nr_runs: of data, so far
 * @nr_pages: of data, so far
 * @damaged: some have been lost
 * @level: of the node to go on with; above @height: none
 * @height: level of the top
 * @node: nodes being passed; the one at index l is of level l + 1
 */
struct rope {
	struct kmemfs_walk *w;
	u64 ino;
	u64 at;
	u64 end;
	u64 nr_runs;
	u64 nr_pages;
	bool damaged;
	u32 level;
	u32 height;
	struct rope_node {
		const struct kmemfs_node *node;
		u64 page;
		u64 at;
		u32 next;
		bool seen;
	} node[KMEMFS_MAX_HEIGHT];
};

static int length_check(const struct kmemfs_walk *w, u64 page,
			const struct kmemfs_page_head *head, u64 length, bool any_data)
{
	if (!any_data)
		return kmemfs_refuse(w->why, "page %llu: nothing but holes", page);
	return kmemfs_first_check(w, page, head, length);
}

static int segment_check(const struct kmemfs_walk *w, u64 page,
			 const struct kmemfs_segment *segment)
{
	const u32 nr = le32_to_cpu(segment->head.nr);
	bool any_data = false;
	u64 length = 0;
	u32 i, count;
	int err;

	for (i = 0; i < nr; i++) {
		count = le32_to_cpu(segment->run[i].count);
		if (!count)
			return kmemfs_refuse(w->why, "page %llu: empty run", page);
		length += count;
		if (!segment->run[i].page)
			continue;
		any_data = true;
		err = run_check(w, page, le32_to_cpu(segment->run[i].page), count);
		if (err)
			return err;
	}
	if (!kmemfs_all_zero(&segment->run[nr], segment + 1))
		return kmemfs_refuse(w->why, "page %llu: unused entries not zero", page);
	return length_check(w, page, &segment->head, length, any_data);
}

static int node_check(const struct kmemfs_walk *w, u64 page, const struct kmemfs_node *node)
{
	const u32 nr = le32_to_cpu(node->head.nr);
	u64 length = 0, child;
	bool any_data = false;
	u32 i;

	for (i = 0; i < nr; i++) {
		child = le64_to_cpu(node->child[i].length);
		if (!child || child > KMEMFS_MAX_FILE_PAGES)
			return kmemfs_refuse(w->why, "page %llu: entry of length %llu", page,
					     child);
		if (node->child[i].reserved)
			return kmemfs_refuse(w->why, "page %llu: reserved bytes not zero", page);
		length += child;
		any_data |= node->child[i].page != 0;
	}
	if (!kmemfs_all_zero(&node->child[nr], node + 1))
		return kmemfs_refuse(w->why, "page %llu: unused entries not zero", page);
	return length_check(w, page, &node->head, length, any_data);
}

/* A page of a rope, all of it checked; NULL with the reason in w->why */
static const void *rope_read(const struct kmemfs_walk *w, u64 page, u32 level)
{
	const struct kmemfs_expect e = {
		.kind = level ? KMEMFS_KIND_NODE : KMEMFS_KIND_SEGMENT,
		.level = level,
		.owner = page,
		.max_nr = level ? KMEMFS_CHILDREN_PER_PAGE : KMEMFS_SRUNS_PER_PAGE,
	};
	const void *bytes = kmemfs_page_read(w, page, &e);
	int err;

	if (!bytes || kmemfs_page_checked(w, page))
		return bytes;
	err = level ? node_check(w, page, bytes) : segment_check(w, page, bytes);
	return err ? NULL : bytes;
}

/* It covers what the node above says, or all of a file at most */
static int cover_check(const struct rope *r, u64 page, u64 covers, u64 length)
{
	if (length && covers != length)
		return kmemfs_refuse(r->w->why, "page %llu: %llu pages long, expected %llu", page,
				     covers, length);
	if (covers > r->end - r->at)
		return kmemfs_refuse(r->w->why, "page %llu: beyond the file's size", page);
	return 0;
}

/*
 * Read and report a page below one that the caller has been told of before, if *@seen.
 * Out: whether it has been told of this one, too.
 */
static int rope_reach(struct rope *r, u64 page, u32 level, u64 length, bool *seen,
		      const struct kmemfs_page_head **head)
{
	int err;

	*head = rope_read(r->w, page, level);
	if (!*head)
		return -EUCLEAN;
	err = cover_check(r, page, le64_to_cpu((*head)->first), length);
	if (err || *seen)
		return err;
	err = kmemfs_report_meta(r->w, page, level ? KMEMFS_KIND_NODE : KMEMFS_KIND_SEGMENT,
				 level);
	*seen = err == KMEMFS_SEEN;
	return *seen ? 0 : err;
}

static int report_segment(const struct rope *r, u64 page, u64 at,
			  const struct kmemfs_page_head *head)
{
	if (!r->w->v->segment)
		return 0;
	return r->w->v->segment(r->w->ctx, r->ino, page, le32_to_cpu(head->level), at,
				le64_to_cpu(head->first), le32_to_cpu(head->nr));
}

static int rope_runs(struct rope *r, const struct kmemfs_segment *segment)
{
	const u32 nr = le32_to_cpu(segment->head.nr);
	u32 i, count, page;
	int err = 0;

	for (i = 0; i < nr && !err; i++) {
		count = le32_to_cpu(segment->run[i].count);
		page = le32_to_cpu(segment->run[i].page);
		if (page) {
			r->nr_runs++;
			r->nr_pages += count;
			if (r->w->v->run)
				err = r->w->v->run(r->w->ctx, r->ino, r->at, count, page);
		}
		r->at += count;
	}
	return err;
}

static void rope_enter(struct rope *r, u64 page, const struct kmemfs_node *node, bool seen)
{
	r->level = le32_to_cpu(node->head.level);
	r->node[r->level - 1] = (struct rope_node){
		.node = node,
		.page = page,
		.at = r->at,
		.seen = seen,
	};
}

/* Of too many only those are refused that the caller had been told of before, if it says so */
static int too_many_check(const struct rope *r, bool seen)
{
	const struct kmemfs_walk *w = r->w;

	if ((!seen || w->again <= KMEMFS_MAX_AGAIN) &&
	    w->visits <= KMEMFS_MAX_VISITS + w->m->nr_pages)
		return 0;
	return kmemfs_refuse(w->why, "inode %llu: too many pages of shared trees", r->ino);
}

/* The next page on the way; @length of it is what the node above says; 0: it is the top */
static int rope_page(struct rope *r, u64 page, u32 level, u64 length, bool seen)
{
	const struct kmemfs_page_head *head;
	u64 lost;
	int err;

	err = too_many_check(r, seen);
	if (!err)
		err = rope_reach(r, page, level, length, &seen, &head);
	if (!err)
		err = too_many_check(r, seen);
	if (err == -EUCLEAN) {
		lost = length ? length : r->end;
		r->damaged = true;
		err = kmemfs_report_damage(r->w, page, r->ino, r->at, lost);
		r->at += lost;
		return err;
	}
	if (err)
		return err;
	r->w->visits++;
	if (seen)
		r->w->again += le32_to_cpu(head->nr);
	if (level) {
		rope_enter(r, page, (const struct kmemfs_node *)head, seen);
		return 0;
	}
	err = report_segment(r, page, r->at, head);
	return err ? err : rope_runs(r, (const struct kmemfs_segment *)head);
}

/* One entry of the node at hand */
static int rope_step(struct rope *r)
{
	struct rope_node *n = &r->node[r->level - 1];
	const struct kmemfs_child *child;
	u64 length;

	if (n->next == le32_to_cpu(n->node->head.nr)) {
		r->level++;
		return report_segment(r, n->page, n->at, &n->node->head);
	}
	child = &n->node->child[n->next++];
	length = le64_to_cpu(child->length);
	if (!child->page) {
		r->at += length;
		return 0;
	}
	return rope_page(r, le32_to_cpu(child->page), r->level - 1, length, n->seen);
}

static int walk_rope(struct kmemfs_walk *w, const struct kmemfs_inode_record *record)
{
	struct rope r = {
		.w = w,
		.ino = le64_to_cpu(record->ino),
		.end = file_pages(record),
		.height = le32_to_cpu(record->extents_height),
	};
	int err;

	r.level = r.height + 1;
	err = rope_page(&r, le64_to_cpu(record->extents), r.height, 0, false);
	while (!err && r.level <= r.height)
		err = rope_step(&r);
	if (err || r.damaged)
		return err;
	return counts_check(w, record, r.nr_runs, r.nr_pages);
}

int kmemfs_walk_file(struct kmemfs_walk *w, const struct kmemfs_inode_record *r)
{
	if (!r->extents)
		return 0;
	return kmemfs_is_v2(w->root) ? walk_rope(w, r) : walk_extents(w, r);
}
