// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
/**
 * DOC: reading the on-media format of kmemfs
 *
 * A root slot leads to the inode table, a tree whose leaves hold the inodes in
 * the order of their numbers. An inode that has pages leads to its file tree
 * (format_file.c). In version 2 the root may lead to a table of checksums, too.
 *
 * Nothing on media is believed before it is checked. A page is looked at in two
 * steps: its head, which must say that it is just the page that was looked for
 * (of this pool, this owner, this level, this place in the tree, not newer than
 * the root), and then its entries. Since each page of a table or an extent tree
 * says where it belongs, it can be at one place of one tree only; so there are no
 * cycles, and a walk ends after as many steps as there are pages and runs. Pages
 * of version 2 file trees may be shared, and how often they are reached is bounded.
 *
 * There is no recursion: a tree is at most KMEMFS_MAX_HEIGHT levels high, and
 * struct kmemfs_walk_tree remembers one list of pages for each level.
 *
 * With a callback for damage a walk goes on behind a page that does not hold. What
 * is lost is what only that page leads to; all else is reported as ever.
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
static_assert(sizeof_field(struct kmemfs_inode_record, xattr) == KMEMFS_XATTR_IN_RECORD, "xattr");
static_assert(sizeof(struct kmemfs_segment) == KMEMFS_PAGE_SIZE, "segment");
static_assert(sizeof(struct kmemfs_node) == KMEMFS_PAGE_SIZE, "node");
static_assert(sizeof(struct kmemfs_xattr) == 4, "xattr");
static_assert(sizeof(struct kmemfs_xattrs) == KMEMFS_PAGE_SIZE, "xattrs");
static_assert(sizeof(struct kmemfs_sums) == KMEMFS_PAGE_SIZE, "sums");

/* ---- pages -------------------------------------------------------------- */

bool kmemfs_page_checked(const struct kmemfs_walk *w, u64 page)
{
	return w->checked && (w->checked[page / BITS_PER_LONG] >> page % BITS_PER_LONG & 1);
}

static bool crc_right(const struct kmemfs_walk *w, u64 page, const struct kmemfs_page_head *head)
{
	return kmemfs_page_checked(w, page) || le32_to_cpu(head->crc) == kmemfs_page_crc(head);
}

static int head_check(const struct kmemfs_walk *w, u64 page, const struct kmemfs_page_head *head,
		      const struct kmemfs_expect *e)
{
	const u64 generation = le64_to_cpu(head->generation);

	if (!crc_right(w, page, head))
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

const void *kmemfs_page_read(const struct kmemfs_walk *w, u64 page,
			     const struct kmemfs_expect *e)
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

int kmemfs_first_check(const struct kmemfs_walk *w, u64 page,
		       const struct kmemfs_page_head *head, u64 first)
{
	if (le64_to_cpu(head->first) != first)
		return kmemfs_refuse(w->why, "page %llu: first %llu, expected %llu", page,
				     (unsigned long long)le64_to_cpu(head->first), first);
	return 0;
}

int kmemfs_report_meta(const struct kmemfs_walk *w, u64 page, enum kmemfs_page_kind kind,
		       u32 level)
{
	return w->v->meta ? w->v->meta(w->ctx, page, kind, level) : 0;
}

int kmemfs_report_damage(const struct kmemfs_walk *w, u64 page, u64 ino, u64 at, u64 count)
{
	if (!w->v->damage)
		return -EUCLEAN;
	return w->v->damage(w->ctx, page, ino, at, count, w->why ? w->why->text : "");
}

/* ---- trees -------------------------------------------------------------- */

void kmemfs_walk_tree_init(struct kmemfs_walk_tree *t, const struct kmemfs_walk *w, u64 owner,
			   u64 top, u32 height, u64 nr_leaves)
{
	t->w = w;
	t->owner = owner;
	t->nr_leaves = nr_leaves;
	t->height = height;
	t->level = height;
	t->passed = 0;
	t->lost = 0;
	t->unsure = false;
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

/* Leaves that a page of @level at the present place stands for, in a table */
static u64 leaves_here(const struct kmemfs_walk_tree *t, u32 level)
{
	const u64 room = leaves_below(level);
	const u64 left = t->nr_leaves - t->passed;

	return left < room ? left : room;
}

/* How many leaves are before this page; behind lost ones it tells that itself */
static int index_first_check(struct kmemfs_walk_tree *t, u64 page,
			     const struct kmemfs_page_head *head)
{
	if (t->unsure && le64_to_cpu(head->first) > t->passed) {
		t->passed = le64_to_cpu(head->first);
		t->unsure = false;
	}
	return kmemfs_first_check(t->w, page, head, t->passed);
}

static int index_check(struct kmemfs_walk_tree *t, u64 page, u32 level,
		       const struct kmemfs_index *index)
{
	const u32 nr = le32_to_cpu(index->head.nr);
	u64 below, expected;
	int err;

	err = index_first_check(t, page, &index->head);
	if (err)
		return err;
	if (t->nr_leaves != KMEMFS_ANY_LEAVES) {
		below = leaves_below(level - 1);
		expected = (leaves_here(t, level) + below - 1) / below;
		if (nr != expected)
			return kmemfs_refuse(t->w->why, "page %llu: %u entries, expected %llu",
					     page, nr, expected);
	}
	if (!kmemfs_all_zero(&index->page[nr], index + 1))
		return kmemfs_refuse(t->w->why, "page %llu: unused entries not zero", page);
	return kmemfs_report_meta(t->w, page, KMEMFS_KIND_INDEX, level);
}

/* Go down into an index page */
static int tree_enter(struct kmemfs_walk_tree *t, u64 page)
{
	const struct kmemfs_expect e = {
		.kind = KMEMFS_KIND_INDEX,
		.level = t->level,
		.owner = t->owner,
		.max_nr = KMEMFS_INDEX_ENTRIES,
	};
	const struct kmemfs_index *index = kmemfs_page_read(t->w, page, &e);
	int err;

	if (!index)
		return -EUCLEAN;
	err = index_check(t, page, t->level, index);
	if (err)
		return err;
	t->level--;
	t->list[t->level].page = (const __le64 *)(&index->head + 1);
	t->list[t->level].nr = le32_to_cpu(index->head.nr);
	t->list[t->level].next = 0;
	return 0;
}

/* Pass what is below an index page that does not hold */
static void tree_pass_lost(struct kmemfs_walk_tree *t)
{
	t->lost = 0;
	t->unsure = t->nr_leaves == KMEMFS_ANY_LEAVES;
	if (!t->unsure)
		t->lost = leaves_here(t, t->level);
	t->passed += t->lost;
}

int kmemfs_walk_tree_next(struct kmemfs_walk_tree *t, u64 *page, u64 *nr)
{
	int err;

	for (;;) {
		if (t->list[t->level].next == t->list[t->level].nr) {
			if (t->level == t->height)
				return 0;
			t->level++;
			continue;
		}
		*page = le64_to_cpu(t->list[t->level].page[t->list[t->level].next++]);
		if (!*page && t->nr_leaves != KMEMFS_ANY_LEAVES) {
			t->passed += leaves_here(t, t->level);
			continue;
		}
		*nr = t->passed;
		if (!t->level) {
			t->passed++;
			return 1;
		}
		err = tree_enter(t, *page);
		if (err == -EUCLEAN)
			tree_pass_lost(t);
		if (err)
			return err;
	}
}

/* ---- inodes ------------------------------------------------------------- */

static int inodes_check(const struct kmemfs_walk *w, u64 page, u64 nr,
			const struct kmemfs_inodes *leaf)
{
	const u64 first = nr * KMEMFS_INODES_PER_PAGE;
	u32 i;
	int err;

	err = kmemfs_first_check(w, page, &leaf->head, first);
	if (err)
		return err;
	if (le32_to_cpu(leaf->head.nr) != KMEMFS_INODES_PER_PAGE)
		return kmemfs_refuse(w->why, "page %llu: %u entries, expected %u", page,
				     le32_to_cpu(leaf->head.nr), KMEMFS_INODES_PER_PAGE);
	/* Where damage does not end the walk, a record that does not hold is lost alone */
	for (i = 0; i < KMEMFS_INODES_PER_PAGE && !w->v->damage; i++) {
		err = kmemfs_check_record(w, first + i, &leaf->record[i]);
		if (err)
			return err;
	}
	return kmemfs_report_meta(w, page, KMEMFS_KIND_INODES, 0);
}

static int visit_inode(struct kmemfs_walk *w, const struct kmemfs_inode_record *r)
{
	int err = 0;

	if (kmemfs_is_link(r))
		return w->v->link ? w->v->link(w->ctx, r) : 0;
	if (w->v->inode)
		err = w->v->inode(w->ctx, r);
	if (!err && !w->records_only)
		err = kmemfs_walk_xattrs(w, r);
	if (!err && !w->records_only)
		err = kmemfs_walk_file(w, r);
	return err;
}

static int visit_record(struct kmemfs_walk *w, u64 ino, const struct kmemfs_inode_record *r)
{
	if (w->v->damage && kmemfs_check_record(w, ino, r))
		return kmemfs_report_damage(w, 0, ino, 0, 0);
	return r->ino ? visit_inode(w, r) : 0;
}

static int inodes_leaf(struct kmemfs_walk *w, u64 page, u64 nr)
{
	const struct kmemfs_expect e = {
		.kind = KMEMFS_KIND_INODES,
		.max_nr = KMEMFS_INODES_PER_PAGE,
	};
	const struct kmemfs_inodes *leaf = kmemfs_page_read(w, page, &e);
	u32 i;
	int err;

	err = leaf ? inodes_check(w, page, nr, leaf) : -EUCLEAN;
	if (err == -EUCLEAN)
		return kmemfs_report_damage(w, page, 0, nr, 1);
	for (i = 0; i < KMEMFS_INODES_PER_PAGE && !err; i++)
		err = visit_record(w, nr * KMEMFS_INODES_PER_PAGE + i, &leaf->record[i]);
	return err;
}

static int walk_inodes(struct kmemfs_walk *w)
{
	struct kmemfs_walk_tree t;
	u64 page, nr;
	int err;

	kmemfs_walk_tree_init(&t, w, KMEMFS_OWNER_INODES, w->root->itable,
			      w->root->itable_height, w->root->nr_inode_pages);
	while ((err = kmemfs_walk_tree_next(&t, &page, &nr))) {
		if (err == -EUCLEAN)
			err = kmemfs_report_damage(w, page, 0, nr, t.lost);
		else if (err > 0)
			err = inodes_leaf(w, page, nr);
		if (err)
			return err;
	}
	return 0;
}

/* ---- checksums ------------------------------------------------------------ */

u32 kmemfs_page_sum(const void *page)
{
	const u32 sum = ~__crc32c_le(~0U, page, KMEMFS_PAGE_SIZE);

	return sum ? sum : 1;
}

static int sums_check(const struct kmemfs_walk *w, u64 page, u64 nr,
		      const struct kmemfs_sums *leaf)
{
	int err;

	err = kmemfs_first_check(w, page, &leaf->head, nr * KMEMFS_SUMS_PER_PAGE);
	if (err)
		return err;
	if (le32_to_cpu(leaf->head.nr) != KMEMFS_SUMS_PER_PAGE)
		return kmemfs_refuse(w->why, "page %llu: %u entries, expected %u", page,
				     le32_to_cpu(leaf->head.nr), (u32)KMEMFS_SUMS_PER_PAGE);
	return kmemfs_report_meta(w, page, KMEMFS_KIND_SUMS, 0);
}

static int sums_leaf(const struct kmemfs_walk *w, u64 page, u64 nr)
{
	const struct kmemfs_expect e = {
		.kind = KMEMFS_KIND_SUMS,
		.max_nr = KMEMFS_SUMS_PER_PAGE,
	};
	const struct kmemfs_sums *leaf = kmemfs_page_read(w, page, &e);
	int err;

	err = leaf ? sums_check(w, page, nr, leaf) : -EUCLEAN;
	if (err == -EUCLEAN)
		return kmemfs_report_damage(w, page, KMEMFS_INO_SUMS, nr, 1);
	if (!err && w->v->sums)
		err = w->v->sums(w->ctx, nr, page, leaf);
	return err;
}

int kmemfs_walk_sums(const struct kmemfs_walk *w)
{
	struct kmemfs_walk_tree t;
	u64 page, nr;
	int err;

	kmemfs_walk_tree_init(&t, w, KMEMFS_OWNER_SUMS, w->root->sums, w->root->sums_height,
			      w->root->nr_sums_pages);
	while ((err = kmemfs_walk_tree_next(&t, &page, &nr))) {
		if (err == -EUCLEAN)
			err = kmemfs_report_damage(w, page, KMEMFS_INO_SUMS, nr, t.lost);
		else if (err > 0)
			err = sums_leaf(w, page, nr);
		if (err)
			return err;
	}
	return 0;
}

/* ---- walks ----------------------------------------------------------------- */

int kmemfs_walk_with(struct kmemfs_walk *w)
{
	int err;

	err = kmemfs_root_check_counts(w->m, w->root, w->why);
	if (!err && w->root->itable)
		err = walk_inodes(w);
	if (!err && w->root->sums && !w->records_only && !w->without_sums)
		err = kmemfs_walk_sums(w);
	return err;
}

int kmemfs_walk_checked(const struct kmemfs_media *m, const struct kmemfs_root_info *root,
			const struct kmemfs_visitor *v, void *ctx, struct kmem_persist_why *why,
			const unsigned long *checked)
{
	struct kmemfs_walk w = {
		.m = m,
		.root = root,
		.v = v,
		.ctx = ctx,
		.why = why,
		.checked = checked,
	};

	return kmemfs_walk_with(&w);
}

int kmemfs_walk(const struct kmemfs_media *m, const struct kmemfs_root_info *root,
		const struct kmemfs_visitor *v, void *ctx, struct kmem_persist_why *why)
{
	return kmemfs_walk_checked(m, root, v, ctx, why, NULL);
}

int kmemfs_walk_runs(const struct kmemfs_media *m, const struct kmemfs_root_info *root,
		     const struct kmemfs_inode_record *record,
		     const struct kmemfs_visitor *v, void *ctx, struct kmem_persist_why *why)
{
	struct kmemfs_walk w = { .m = m, .root = root, .v = v, .ctx = ctx, .why = why };
	int err;

	err = kmemfs_media_check(m, why);
	if (!err && !record->ino)
		err = kmemfs_refuse(why, "inode 0");
	if (!err)
		err = kmemfs_check_record(&w, le64_to_cpu(record->ino), record);
	if (!err && kmemfs_is_link(record))
		err = kmemfs_refuse(why, "inode %llu: is a further name of another",
				    (unsigned long long)le64_to_cpu(record->ino));
	return err ? err : kmemfs_walk_file(&w, record);
}
