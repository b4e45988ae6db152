// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
/**
 * DOC: deciding what on a kmemfs device can be trusted
 *
 * Which root rules is decided before (format_root.c), and what can be seen on
 * one page is checked by the walk (format.c); here is what needs the whole: that no
 * page has two uses that exclude each other, that directories make one tree, that
 * names are unique, and that the counts are right.
 *
 * Pages are tracked in two bitmaps, one bit a page each; the one of metadata also
 * spares a shared page of a file tree a second look. Records, those of inodes and
 * those of further names, are gathered in an array, which is first in the order of
 * their numbers, to find parents and targets, and then in the order of (parent,
 * name), to find names used twice.
 */
#include "format_internal.h"

/* ---- bitmaps ------------------------------------------------------------ */

/* Bits [from, from + nr) of the word that @from is in; nr is cut to that word */
static unsigned long word_mask(u64 from, u64 nr)
{
	const unsigned int shift = from % BITS_PER_LONG;
	const unsigned long ones = nr < BITS_PER_LONG ? (1UL << nr) - 1 : ~0UL;

	return ones << shift;
}

static u64 word_rest(u64 from, u64 nr)
{
	const u64 rest = BITS_PER_LONG - from % BITS_PER_LONG;

	return nr < rest ? nr : rest;
}

static bool bit_set(const unsigned long *map, u64 at)
{
	return map[at / BITS_PER_LONG] & word_mask(at, 1);
}

static bool range_any(const unsigned long *map, u64 from, u64 nr)
{
	u64 step;

	for (; nr; from += step, nr -= step) {
		if (map[from / BITS_PER_LONG] & word_mask(from, nr))
			return true;
		step = word_rest(from, nr);
	}
	return false;
}

static void range_set(unsigned long *map, u64 from, u64 nr)
{
	u64 step;

	for (; nr; from += step, nr -= step) {
		map[from / BITS_PER_LONG] |= word_mask(from, nr);
		step = word_rest(from, nr);
	}
}

/* ---- the tree as a whole ------------------------------------------------ */

/**
 * struct node - an inode in use, or a further name
 * @record: on media
 * @mark: nodes with a way to the root directory that is known have MARK_DONE;
 *	others the number, from 1, of the search that passed them, or 0.
 *	After the searches: names that were counted
 */
struct node {
	const struct kmemfs_inode_record *record;
	u64 mark;
};

#define MARK_DONE	(~0ULL)

struct verify {
	const struct kmemfs_media *m;
	const struct kmemfs_root_info *root;
	struct kmemfs_check *check;
	struct kmem_persist_why *why;
	u64 nr_meta_pages;
	u64 nr_file_pages;
	u64 nr_inodes;
	u64 nr_links;
	u64 nr_nodes;
	struct node *node;
};

static int verify_meta(void *ctx, __u64 page, enum kmemfs_page_kind kind, __u32 level)
{
	struct verify *v = ctx;

	(void)level;
	if (bit_set(v->check->meta, page)) {
		if (kind == KMEMFS_KIND_SEGMENT || kind == KMEMFS_KIND_NODE)
			return KMEMFS_SEEN;
		return kmemfs_refuse(v->why, "page %llu: used twice for metadata", page);
	}
	if (bit_set(v->check->data, page))
		return kmemfs_refuse(v->why, "page %llu: both data and metadata", page);
	range_set(v->check->meta, page, 1);
	v->nr_meta_pages++;
	return 0;
}

static int count_owners(const struct verify *v, u64 page, u64 count)
{
	for (; count; page++, count--) {
		if (v->check->owners[page]++ >= v->check->max_owners) {
			kmem_persist_why_set(v->why, "page %llu: more than %u owners", page,
					     v->check->max_owners);
			return -EOVERFLOW;
		}
		if (!(count & 0xffff))
			cond_resched();
	}
	return 0;
}

static int verify_run(void *ctx, __u64 ino, __u64 file_page, __u64 count, __u64 page)
{
	struct verify *v = ctx;

	(void)file_page;
	/* Refused before the bitmaps are touched: this bounds the time */
	if (count > v->root->nr_file_pages - v->nr_file_pages)
		return kmemfs_refuse(v->why, "root: more than %llu file pages",
				     v->root->nr_file_pages);
	v->nr_file_pages += count;
	if (range_any(v->check->meta, page, count))
		return kmemfs_refuse(v->why, "inode %llu: run of %llu pages at %llu has metadata",
				     ino, count, page);
	range_set(v->check->data, page, count);
	cond_resched();
	return v->check->owners ? count_owners(v, page, count) : 0;
}

static int verify_inode(void *ctx, const struct kmemfs_inode_record *record)
{
	struct verify *v = ctx;

	(void)record;
	v->nr_inodes++;
	return 0;
}

static int verify_link(void *ctx, const struct kmemfs_inode_record *record)
{
	struct verify *v = ctx;

	(void)record;
	v->nr_links++;
	return 0;
}

static int verify_sums(void *ctx, __u64 leaf, __u64 page, const struct kmemfs_sums *sums)
{
	const struct verify *v = ctx;
	const u64 first = leaf * KMEMFS_SUMS_PER_PAGE;
	u32 i;

	for (i = 0; i < KMEMFS_SUMS_PER_PAGE; i++) {
		if (!sums->sum[i])
			continue;
		if (first + i >= v->m->nr_pages)
			return kmemfs_refuse(v->why, "page %llu: checksum of page %llu of %llu",
					     page, first + i, v->m->nr_pages);
	}
	return 0;
}

static int gather_record(void *ctx, const struct kmemfs_inode_record *record)
{
	struct verify *v = ctx;

	if (v->nr_nodes == v->nr_inodes + v->nr_links)
		return kmemfs_refuse(v->why, "device changes while it is verified");
	v->node[v->nr_nodes++].record = record;
	return 0;
}

static u64 node_ino(const struct node *node)
{
	return le64_to_cpu(node->record->ino);
}

/* Nodes are in the order of their numbers here */
static struct node *find_node(const struct verify *v, u64 ino)
{
	u64 low = 0, high = v->nr_nodes, mid;

	while (low < high) {
		mid = low + (high - low) / 2;
		if (node_ino(&v->node[mid]) == ino)
			return &v->node[mid];
		if (node_ino(&v->node[mid]) < ino)
			low = mid + 1;
		else
			high = mid;
	}
	return NULL;
}

/* A further name has no mode, so it is no directory */
static struct node *find_parent(const struct verify *v, const struct node *node)
{
	struct node *parent = find_node(v, le64_to_cpu(node->record->parent));

	return parent && S_ISDIR(le32_to_cpu(parent->record->mode)) ? parent : NULL;
}

/* Each node is passed at most twice over all searches */
static int check_way_to_root(const struct verify *v, struct node *start, u64 search)
{
	struct node *node;

	for (node = start; node->mark != MARK_DONE;) {
		if (node->mark == search)
			return kmemfs_refuse(v->why, "inode %llu: is its own ancestor",
					     node_ino(node));
		node->mark = search;
		cond_resched();
		node = find_parent(v, node);
		if (!node)
			return kmemfs_refuse(v->why, "inode %llu: no way to the root directory",
					     node_ino(start));
	}
	for (node = start; node->mark != MARK_DONE; node = find_parent(v, node))
		node->mark = MARK_DONE;
	return 0;
}

static int check_ways(const struct verify *v)
{
	struct node *root = find_node(v, KMEMFS_ROOT_INO);
	struct node *node;
	u64 i;
	int err;

	if (!root)
		return kmemfs_refuse(v->why, "no root directory");
	root->mark = MARK_DONE;
	for (i = 0; i < v->nr_nodes; i++) {
		node = &v->node[i];
		if (!find_parent(v, node))
			return kmemfs_refuse(v->why, "inode %llu: parent %llu is no directory",
					     node_ino(node),
					     (unsigned long long)le64_to_cpu(node->record->parent));
		err = check_way_to_root(v, node, i + 1);
		if (err)
			return err;
	}
	return 0;
}

static int check_link(const struct verify *v, const struct node *link)
{
	const u64 ino = le64_to_cpu(link->record->target);
	struct node *target = find_node(v, ino);

	if (!target || kmemfs_is_link(target->record) ||
	    S_ISDIR(le32_to_cpu(target->record->mode)))
		return kmemfs_refuse(v->why, "inode %llu: a name of %llu, which can have none",
				     node_ino(link), ino);
	if (target->mark >= KMEMFS_LINK_MAX)
		return kmemfs_refuse(v->why, "inode %llu: more than %u names", ino,
				     KMEMFS_LINK_MAX);
	target->mark++;
	return 0;
}

static int check_links(const struct verify *v)
{
	u64 i;
	int err = 0;

	if (!v->nr_links)
		return 0;
	for (i = 0; i < v->nr_nodes; i++)
		v->node[i].mark = 1;
	for (i = 0; i < v->nr_nodes && !err; i++) {
		if (kmemfs_is_link(v->node[i].record))
			err = check_link(v, &v->node[i]);
		cond_resched();
	}
	return err;
}

/* By parent, then name; never equal otherwise */
static int compare_names(const void *a, const void *b)
{
	const struct kmemfs_inode_record *x = ((const struct node *)a)->record;
	const struct kmemfs_inode_record *y = ((const struct node *)b)->record;
	const u64 px = le64_to_cpu(x->parent);
	const u64 py = le64_to_cpu(y->parent);

	cond_resched();
	if (px != py)
		return px < py ? -1 : 1;
	if (x->name_len != y->name_len)
		return x->name_len < y->name_len ? -1 : 1;
	return memcmp(x->name, y->name, x->name_len);
}

static int check_names(const struct verify *v)
{
	u64 i;

	sort(v->node, v->nr_nodes, sizeof(*v->node), compare_names, NULL);
	for (i = 1; i < v->nr_nodes; i++)
		if (!compare_names(&v->node[i - 1], &v->node[i]))
			return kmemfs_refuse(v->why, "inodes %llu and %llu have the same name",
					     node_ino(&v->node[i - 1]), node_ino(&v->node[i]));
	return 0;
}

static int check_directories(struct verify *v)
{
	const struct kmemfs_visitor gather = { .inode = gather_record, .link = gather_record };
	struct kmemfs_walk w = {
		.m = v->m,
		.root = v->root,
		.v = &gather,
		.ctx = v,
		.why = v->why,
		.records_only = true,
	};
	int err;

	v->node = v->check->alloc(v->nr_inodes + v->nr_links, sizeof(*v->node));
	if (!v->node) {
		kmem_persist_why_set(v->why, "no memory to verify %llu inodes", v->nr_inodes);
		return -ENOMEM;
	}
	err = kmemfs_walk_with(&w);
	if (!err)
		err = check_ways(v);
	if (!err)
		err = check_links(v);
	if (!err)
		err = check_names(v);
	v->check->free(v->node);
	return err;
}

static int check_count(const struct verify *v, const char *what, u64 found, u64 said)
{
	if (found != said)
		return kmemfs_refuse(v->why, "root: says %llu %s, found %llu", said, what, found);
	return 0;
}

/* That of metadata pages is wrong anyway if some of them are lost */
static int check_counts(const struct verify *v)
{
	const struct kmemfs_root_info *root = v->root;
	int err;

	err = check_count(v, "inodes", v->nr_inodes, root->nr_inodes);
	if (!err)
		err = check_count(v, "further names", v->nr_links, root->nr_links);
	if (!err && !v->check->sums_lost)
		err = check_count(v, "metadata pages", v->nr_meta_pages, root->nr_meta_pages);
	if (!err)
		err = check_count(v, "file pages", v->nr_file_pages, root->nr_file_pages);
	return err;
}

int kmemfs_verify(const struct kmemfs_media *m, const struct kmemfs_root_info *root,
		  struct kmemfs_check *check, struct kmem_persist_why *why)
{
	const struct kmemfs_visitor count = {
		.meta = verify_meta,
		.inode = verify_inode,
		.link = verify_link,
		.run = verify_run,
		.sums = verify_sums,
	};
	struct verify v = { .m = m, .root = root, .check = check, .why = why };
	struct kmemfs_walk w = {
		.m = m,
		.root = root,
		.v = &count,
		.ctx = &v,
		.why = why,
		.checked = check->meta,
		.without_sums = true,
	};
	int err;

	err = kmemfs_walk_with(&w);
	if (!err && root->sums) {
		err = kmemfs_walk_sums(&w);
		check->sums_lost = err == -EUCLEAN && check->lose_sums;
		if (check->sums_lost)
			err = 0;
	}
	if (!err)
		err = check_counts(&v);
	if (err || !root->itable)
		return err;
	if (!v.nr_inodes)
		return kmemfs_refuse(why, "no root directory");
	return check_directories(&v);
}
