// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
/**
 * DOC: reading the on-media format of kmemfs
 *
 * A root slot leads to the inode table, a tree whose leaves hold the inodes in
 * the order of their numbers. An inode that has pages leads to its extent tree,
 * whose leaves hold runs in the order of the file.
 *
 * Nothing on media is believed before it is checked. A page is looked at in two
 * steps: its head, which must say that it is just the page that was looked for
 * (of this pool, this owner, this level, this place in the tree, not newer than
 * the root), and then its entries. Since each page says where it belongs, it
 * can be at one place of one tree only; so there are no cycles, and a walk ends
 * after as many steps as there are pages and runs.
 *
 * There is no recursion: a tree is at most KMEMFS_MAX_HEIGHT levels high, and
 * struct tree remembers one list of pages for each level.
 */
#include "format_internal.h"

static_assert(sizeof(struct kmemfs_page_head) == 64, "head");
static_assert(sizeof(struct kmemfs_root) == KMEMFS_PAGE_SIZE, "root");
static_assert(sizeof(struct kmemfs_index) == KMEMFS_PAGE_SIZE, "index");
static_assert(sizeof(struct kmemfs_run) == 16, "run");
static_assert(sizeof(struct kmemfs_extents) == KMEMFS_PAGE_SIZE, "extents");
static_assert(sizeof(struct kmemfs_inode_record) == 576, "record");
static_assert(sizeof(struct kmemfs_inodes) == KMEMFS_PAGE_SIZE, "inodes");
static_assert(sizeof_field(struct kmemfs_inode_record, name) > KMEMFS_NAME_MAX, "name");

#define ANY_LEAVES	(~0ULL)

/* ---- pages -------------------------------------------------------------- */

struct walk {
	const struct kmemfs_media *m;
	const struct kmemfs_root_info *root;
	const struct kmemfs_visitor *v;
	void *ctx;
	struct kmem_persist_why *why;
};

/* What the head of a page must say */
struct expect {
	enum kmemfs_page_kind kind;
	u32 level;
	u64 owner;
	u32 max_nr;
};

static int head_check(const struct walk *w, u64 page, const struct kmemfs_page_head *head,
		      const struct expect *e)
{
	const u64 generation = le64_to_cpu(head->generation);

	if (le32_to_cpu(head->crc) != kmemfs_page_crc(head))
		return kmemfs_refuse(w->why, "page %llu: wrong crc", page);
	if (memcmp(head->uuid, w->m->uuid, sizeof(head->uuid)))
		return kmemfs_refuse(w->why, "page %llu: wrong uuid", page);
	if (le32_to_cpu(head->kind) != e->kind)
		return kmemfs_refuse(w->why, "page %llu: kind %#x, expected %#x", page,
				     le32_to_cpu(head->kind), e->kind);
	if (!generation || generation > w->root->generation)
		return kmemfs_refuse(w->why, "page %llu: generation %llu, the root's is %llu",
				     page, generation, w->root->generation);
	if (le64_to_cpu(head->owner) != e->owner)
		return kmemfs_refuse(w->why, "page %llu: owner %llu, expected %llu", page,
				     (unsigned long long)le64_to_cpu(head->owner), e->owner);
	if (le32_to_cpu(head->level) != e->level)
		return kmemfs_refuse(w->why, "page %llu: level %u, expected %u", page,
				     le32_to_cpu(head->level), e->level);
	if (!head->nr || le32_to_cpu(head->nr) > e->max_nr)
		return kmemfs_refuse(w->why, "page %llu: %u entries", page,
				     le32_to_cpu(head->nr));
	if (!kmemfs_all_zero(head->reserved, head + 1))
		return kmemfs_refuse(w->why, "page %llu: reserved bytes not zero", page);
	return 0;
}

/* The page's bytes, head checked but for @first; NULL with the reason in w->why */
static const void *page_read(const struct walk *w, u64 page, const struct expect *e)
{
	const void *bytes;

	cond_resched();
	if (page < w->m->first || page >= w->m->end) {
		kmem_persist_why_set(w->why, "page %llu: out of bounds", page);
		return NULL;
	}
	bytes = w->m->page(w->m, page);
	if (!bytes) {
		kmem_persist_why_set(w->why, "page %llu: cannot be read", page);
		return NULL;
	}
	return head_check(w, page, bytes, e) ? NULL : bytes;
}

static int first_check(const struct walk *w, u64 page, const struct kmemfs_page_head *head,
		       u64 first)
{
	if (le64_to_cpu(head->first) != first)
		return kmemfs_refuse(w->why, "page %llu: first %llu, expected %llu", page,
				     (unsigned long long)le64_to_cpu(head->first), first);
	return 0;
}

static int report_meta(const struct walk *w, u64 page, enum kmemfs_page_kind kind, u32 level)
{
	return w->v->meta ? w->v->meta(w->ctx, page, kind, level) : 0;
}

/* ---- trees -------------------------------------------------------------- */

/**
 * struct tree - a walk over the leaves of one tree
 * @w: the walk it is part of
 * @owner: for the pages' heads
 * @nr_leaves: of the inode table, absent ones included; ANY_LEAVES: an extent
 *	tree, where the leaves are as many as there are and none is absent
 * @height: index levels above the leaves
 * @level: of the pages in the list to go on with
 * @passed: leaves passed so far, absent ones included
 * @top: list of one page
 * @list: lists being passed; those at index l are pages of level l
 */
struct tree {
	const struct walk *w;
	u64 owner;
	u64 nr_leaves;
	u32 height;
	u32 level;
	u64 passed;
	__le64 top;
	struct page_list {
		const __le64 *page;
		u32 nr;
		u32 next;
	} list[KMEMFS_MAX_HEIGHT + 1];
};

/* The caller has checked that @height is at most KMEMFS_MAX_HEIGHT */
static void tree_init(struct tree *t, const struct walk *w, u64 owner, u64 top, u32 height,
		      u64 nr_leaves)
{
	t->w = w;
	t->owner = owner;
	t->nr_leaves = nr_leaves;
	t->height = height;
	t->level = height;
	t->passed = 0;
	t->top = cpu_to_le64(top);
	t->list[height].page = &t->top;
	t->list[height].nr = 1;
	t->list[height].next = 0;
}

/* Leaves below a full page of @level */
static u64 leaves_below(u32 level)
{
	u64 n = 1;

	while (level--)
		n *= KMEMFS_INDEX_ENTRIES;
	return n;
}

/* Leaves that a page of @level at the present place stands for, in the inode table */
static u64 leaves_here(const struct tree *t, u32 level)
{
	const u64 room = leaves_below(level);
	const u64 left = t->nr_leaves - t->passed;

	return left < room ? left : room;
}

static int index_check(const struct tree *t, u64 page, u32 level,
		       const struct kmemfs_index *index)
{
	const u32 nr = le32_to_cpu(index->head.nr);
	u64 below, expected;
	int err;

	err = first_check(t->w, page, &index->head, t->passed);
	if (err)
		return err;
	if (t->nr_leaves != ANY_LEAVES) {
		below = leaves_below(level - 1);
		expected = (leaves_here(t, level) + below - 1) / below;
		if (nr != expected)
			return kmemfs_refuse(t->w->why, "page %llu: %u entries, expected %llu",
					     page, nr, expected);
	}
	if (!kmemfs_all_zero(&index->page[nr], index + 1))
		return kmemfs_refuse(t->w->why, "page %llu: unused entries not zero", page);
	return report_meta(t->w, page, KMEMFS_KIND_INDEX, level);
}

/* Go down into an index page */
static int tree_enter(struct tree *t, u64 page)
{
	const struct expect e = {
		.kind = KMEMFS_KIND_INDEX,
		.level = t->level,
		.owner = t->owner,
		.max_nr = KMEMFS_INDEX_ENTRIES,
	};
	const struct kmemfs_index *index = page_read(t->w, page, &e);
	struct page_list *below;
	int err;

	if (!index)
		return -EUCLEAN;
	err = index_check(t, page, t->level, index);
	if (err)
		return err;
	below = &t->list[--t->level];
	below->page = (const __le64 *)(&index->head + 1);
	below->nr = le32_to_cpu(index->head.nr);
	below->next = 0;
	return 0;
}

/* Find the next leaf: *page, and *nr in the order of leaves. 1; 0: no more; or an error */
static int tree_next(struct tree *t, u64 *page, u64 *nr)
{
	struct page_list *list;
	int err;

	for (;;) {
		list = &t->list[t->level];
		if (list->next == list->nr) {
			if (t->level == t->height)
				return 0;
			t->level++;
			continue;
		}
		*page = le64_to_cpu(list->page[list->next++]);
		if (!*page && t->nr_leaves != ANY_LEAVES) {
			t->passed += leaves_here(t, t->level);
			continue;
		}
		if (!t->level) {
			*nr = t->passed++;
			return 1;
		}
		err = tree_enter(t, *page);
		if (err)
			return err;
	}
}

/* ---- runs --------------------------------------------------------------- */

/* What the runs of an inode add up to, and may not exceed */
struct run_sum {
	u64 nr_runs;
	u64 nr_pages;
	u64 next_file_page;
	u64 end_file_page;
};

static int run_check(const struct walk *w, u64 leaf, const struct kmemfs_run *run,
		     struct run_sum *sum)
{
	const u64 file_page = le32_to_cpu(run->file_page);
	const u64 count = le32_to_cpu(run->count);
	const u64 page = le64_to_cpu(run->page);

	if (!count)
		return kmemfs_refuse(w->why, "page %llu: empty run", leaf);
	if (file_page < sum->next_file_page)
		return kmemfs_refuse(w->why, "page %llu: runs overlap or are out of order", leaf);
	if (file_page + count > sum->end_file_page)
		return kmemfs_refuse(w->why, "page %llu: run beyond the file's size", leaf);
	if (page < w->m->first || page >= w->m->end || count > w->m->end - page)
		return kmemfs_refuse(w->why, "page %llu: run of %llu pages at %llu: out of bounds",
				     leaf, count, page);
	sum->nr_runs++;
	sum->nr_pages += count;
	sum->next_file_page = file_page + count;
	return 0;
}

static int extents_check(const struct walk *w, u64 page, const struct kmemfs_extents *leaf,
			 struct run_sum *sum)
{
	const u32 nr = le32_to_cpu(leaf->head.nr);
	u32 i;
	int err;

	err = first_check(w, page, &leaf->head, le32_to_cpu(leaf->run[0].file_page));
	for (i = 0; i < nr && !err; i++)
		err = run_check(w, page, &leaf->run[i], sum);
	if (err)
		return err;
	if (!kmemfs_all_zero(&leaf->run[nr], leaf + 1))
		return kmemfs_refuse(w->why, "page %llu: unused entries not zero", page);
	return report_meta(w, page, KMEMFS_KIND_EXTENTS, 0);
}

static int extents_leaf(const struct walk *w, u64 page, u64 ino, struct run_sum *sum)
{
	const struct expect e = {
		.kind = KMEMFS_KIND_EXTENTS,
		.owner = ino,
		.max_nr = KMEMFS_RUNS_PER_PAGE,
	};
	const struct kmemfs_extents *leaf = page_read(w, page, &e);
	const struct kmemfs_run *run;
	u32 i, nr;
	int err;

	if (!leaf)
		return -EUCLEAN;
	err = extents_check(w, page, leaf, sum);
	if (err || !w->v->run)
		return err;
	nr = le32_to_cpu(leaf->head.nr);
	for (i = 0; i < nr && !err; i++) {
		run = &leaf->run[i];
		err = w->v->run(w->ctx, ino, le32_to_cpu(run->file_page),
				le32_to_cpu(run->count), le64_to_cpu(run->page));
	}
	return err;
}

/* @record has been checked */
static int walk_runs(const struct walk *w, const struct kmemfs_inode_record *record)
{
	const u64 ino = le64_to_cpu(record->ino);
	const u64 size = le64_to_cpu(record->size);
	struct run_sum sum = {
		.end_file_page = size / KMEMFS_PAGE_SIZE + !!(size % KMEMFS_PAGE_SIZE),
	};
	struct tree t;
	u64 page, nr;
	int err;

	if (!record->extents)
		return 0;
	tree_init(&t, w, ino, le64_to_cpu(record->extents), le32_to_cpu(record->extents_height),
		  ANY_LEAVES);
	while ((err = tree_next(&t, &page, &nr)) > 0) {
		err = extents_leaf(w, page, ino, &sum);
		if (err)
			return err;
	}
	if (err)
		return err;
	if (sum.nr_runs != le64_to_cpu(record->nr_runs) ||
	    sum.nr_pages != le64_to_cpu(record->nr_pages))
		return kmemfs_refuse(w->why, "inode %llu: has %llu runs, %llu pages: wrong counts",
				     ino, sum.nr_runs, sum.nr_pages);
	return 0;
}

/* ---- inodes ------------------------------------------------------------- */

static bool name_valid(const struct kmemfs_inode_record *r)
{
	const u8 *name = r->name;
	const size_t len = r->name_len;

	if (!len || memchr(name, '/', len) || memchr(name, 0, len))
		return false;
	if (name[0] == '.' && (len == 1 || (len == 2 && name[1] == '.')))
		return false;
	return kmemfs_all_zero(name + len, r + 1);
}

static int record_check_name(const struct walk *w, u64 ino, const struct kmemfs_inode_record *r)
{
	const u64 parent = le64_to_cpu(r->parent);

	if (ino != KMEMFS_ROOT_INO) {
		if (!name_valid(r))
			return kmemfs_refuse(w->why, "inode %llu: bad name", ino);
		if (!parent || parent == ino)
			return kmemfs_refuse(w->why, "inode %llu: parent %llu", ino, parent);
		return 0;
	}
	if (parent != KMEMFS_ROOT_INO)
		return kmemfs_refuse(w->why, "root directory: parent %llu", parent);
	if (r->name_len || !kmemfs_all_zero(r->name, r + 1))
		return kmemfs_refuse(w->why, "root directory: has a name");
	return 0;
}

/* Size and pages that suit the type */
static int record_check_type(const struct walk *w, u64 ino, const struct kmemfs_inode_record *r)
{
	const u32 mode = le32_to_cpu(r->mode);
	const u64 size = le64_to_cpu(r->size);
	const u64 nr_pages = le64_to_cpu(r->nr_pages);

	if (mode & ~(u32)(S_IFMT | S_IALLUGO))
		return kmemfs_refuse(w->why, "inode %llu: bad mode %#o", ino, mode);
	if (ino == KMEMFS_ROOT_INO && !S_ISDIR(mode))
		return kmemfs_refuse(w->why, "root directory: bad mode %#o", mode);
	switch (mode & S_IFMT) {
	case S_IFREG:
		if (size > KMEMFS_MAX_FILE_PAGES * KMEMFS_PAGE_SIZE)
			return kmemfs_refuse(w->why, "inode %llu: size %llu", ino, size);
		return 0;
	case S_IFDIR:
		if (size || r->extents)
			return kmemfs_refuse(w->why, "inode %llu: directory with data", ino);
		return 0;
	case S_IFLNK:
		if (!size || size >= KMEMFS_PAGE_SIZE || nr_pages != 1)
			return kmemfs_refuse(w->why,
					     "inode %llu: symlink of %llu bytes, %llu pages",
					     ino, size, nr_pages);
		return 0;
	default:
		return kmemfs_refuse(w->why, "inode %llu: bad mode %#o", ino, mode);
	}
}

static int record_check(const struct walk *w, const struct kmemfs_inode_record *r)
{
	const u64 ino = le64_to_cpu(r->ino);
	int err;

	if (r->flags || !kmemfs_all_zero(r->reserved, &r->name_len))
		return kmemfs_refuse(w->why, "inode %llu: reserved bytes not zero", ino);
	if (le32_to_cpu(r->extents_height) > KMEMFS_MAX_HEIGHT)
		return kmemfs_refuse(w->why, "inode %llu: extents of height %u", ino,
				     le32_to_cpu(r->extents_height));
	if (!r->extents && (r->nr_runs || r->nr_pages || r->extents_height))
		return kmemfs_refuse(w->why, "inode %llu: counts without extents", ino);
	err = record_check_name(w, ino, r);
	return err ? err : record_check_type(w, ino, r);
}

static int inodes_check(const struct walk *w, u64 page, u64 nr, const struct kmemfs_inodes *leaf)
{
	const u64 first = nr * KMEMFS_INODES_PER_PAGE;
	const struct kmemfs_inode_record *r;
	u64 ino;
	u32 i;
	int err;

	err = first_check(w, page, &leaf->head, first);
	if (err)
		return err;
	if (le32_to_cpu(leaf->head.nr) != KMEMFS_INODES_PER_PAGE)
		return kmemfs_refuse(w->why, "page %llu: %u entries, expected %u", page,
				     le32_to_cpu(leaf->head.nr), KMEMFS_INODES_PER_PAGE);
	for (i = 0; i < KMEMFS_INODES_PER_PAGE; i++) {
		r = &leaf->record[i];
		ino = le64_to_cpu(r->ino);
		if (!ino) {
			if (!kmemfs_all_zero(r, r + 1))
				return kmemfs_refuse(w->why, "page %llu: free inode not zero",
						     page);
			continue;
		}
		if (ino != first + i)
			return kmemfs_refuse(w->why, "page %llu: inode %llu in the place of %llu",
					     page, ino, first + i);
		err = record_check(w, r);
		if (err)
			return err;
	}
	return report_meta(w, page, KMEMFS_KIND_INODES, 0);
}

static int inodes_leaf(const struct walk *w, u64 page, u64 nr, bool runs)
{
	const struct expect e = {
		.kind = KMEMFS_KIND_INODES,
		.max_nr = KMEMFS_INODES_PER_PAGE,
	};
	const struct kmemfs_inodes *leaf = page_read(w, page, &e);
	const struct kmemfs_inode_record *r;
	u32 i;
	int err;

	if (!leaf)
		return -EUCLEAN;
	err = inodes_check(w, page, nr, leaf);
	for (i = 0; i < KMEMFS_INODES_PER_PAGE && !err; i++) {
		r = &leaf->record[i];
		if (!r->ino)
			continue;
		if (w->v->inode)
			err = w->v->inode(w->ctx, r);
		if (!err && runs)
			err = walk_runs(w, r);
	}
	return err;
}

int kmemfs_walk_table(const struct kmemfs_media *m, const struct kmemfs_root_info *root,
		      const struct kmemfs_visitor *v, void *ctx, bool runs,
		      struct kmem_persist_why *why)
{
	const struct walk w = { .m = m, .root = root, .v = v, .ctx = ctx, .why = why };
	struct tree t;
	u64 page, nr;
	int err;

	err = kmemfs_root_check_counts(m, root, why);
	if (err || !root->itable)
		return err;
	tree_init(&t, &w, 0, root->itable, root->itable_height, root->nr_inode_pages);
	while ((err = tree_next(&t, &page, &nr)) > 0) {
		err = inodes_leaf(&w, page, nr, runs);
		if (err)
			return err;
	}
	return err;
}

int kmemfs_walk(const struct kmemfs_media *m, const struct kmemfs_root_info *root,
		const struct kmemfs_visitor *v, void *ctx, struct kmem_persist_why *why)
{
	return kmemfs_walk_table(m, root, v, ctx, true, why);
}

int kmemfs_walk_runs(const struct kmemfs_media *m, const struct kmemfs_root_info *root,
		     const struct kmemfs_inode_record *record,
		     const struct kmemfs_visitor *v, void *ctx, struct kmem_persist_why *why)
{
	const struct walk w = { .m = m, .root = root, .v = v, .ctx = ctx, .why = why };
	int err;

	err = kmemfs_media_check(m, why);
	if (!err && !record->ino)
		err = kmemfs_refuse(why, "inode 0");
	if (!err)
		err = record_check(&w, record);
	return err ? err : walk_runs(&w, record);
}
