// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
/**
 * DOC: writing the on-media format of kmemfs
 *
 * A tree is written bottom up and left to right, into pages that nothing on
 * media refers to yet. A level above is started only when the one below needs
 * a second page, so trees are as low as they can be. An index page is written
 * only if an entry of it is not absent, so a table with few inodes is small
 * whatever their numbers are. A page is flushed when it is full, once; the root
 * slot comes last, after a fence, and makes it all count at once. Then the root
 * before it is retired.
 *
 * File trees of version 2 may keep most of their pages from one commit to the
 * next, and so may tables: which pages to write is for the caller to know, who
 * gets them written one at a time.
 */
#include "format_internal.h"

static void head_fill(struct kmemfs_page_head *head, const struct kmemfs_sink *s,
		      enum kmemfs_page_kind kind, u64 owner, u32 nr, u32 level, u64 first)
{
	head->kind = cpu_to_le32(kind);
	memcpy(head->uuid, s->uuid, sizeof(head->uuid));
	head->generation = cpu_to_le64(s->generation);
	head->owner = cpu_to_le64(owner);
	head->nr = cpu_to_le32(nr);
	head->level = cpu_to_le32(level);
	head->first = cpu_to_le64(first);
}

/* Nothing may change in the page after this */
static void page_seal(struct kmemfs_sink *s, enum kmem_persist_step step,
		      struct kmemfs_page_head *head)
{
	head->crc = 0;
	head->crc = cpu_to_le32(kmemfs_page_crc(head));
	s->flush(s, step, head, KMEMFS_PAGE_SIZE);
}

static void *page_alloc(struct kmemfs_sink *s, u64 *page)
{
	void *bytes = s->alloc(s, page);

	if (!bytes)
		return NULL;
	s->nr_meta_pages++;
	memset(bytes, 0, KMEMFS_PAGE_SIZE);
	return bytes;
}

/* ---- trees, bottom up ---------------------------------------------------- */

void kmemfs_tree_init(struct kmemfs_tree *t, struct kmemfs_sink *sink, __u64 owner)
{
	memset(t, 0, sizeof(*t));
	t->sink = sink;
	t->owner = owner;
}

/* The index page of t->index[i]: the first entry that is not absent needs it */
static int index_page_alloc(struct kmemfs_tree *t, u32 i)
{
	t->index[i] = page_alloc(t->sink, &t->index_page[i]);
	if (!t->index[i])
		return -ENOSPC;
	head_fill(&t->index[i]->head, t->sink, KMEMFS_KIND_INDEX, t->owner, 0, i + 1,
		  t->index_first[i]);
	return 0;
}

/* An entry of level @i, where the caller knows that there is room; 0: absent */
static int index_append(struct kmemfs_tree *t, u32 i, u64 page)
{
	int err = 0;

	if (page && !t->index[i])
		err = index_page_alloc(t, i);
	if (err)
		return err;
	if (page)
		t->index[i]->page[t->nr[i]] = cpu_to_le64(page);
	t->nr[i]++;
	return 0;
}

/* The page of level @i + 1 that is full or the last: its number; 0 if all below is absent */
static u64 index_seal(struct kmemfs_tree *t, u32 i)
{
	if (!t->index[i])
		return 0;
	t->index[i]->head.nr = cpu_to_le32(t->nr[i]);
	page_seal(t->sink, KMEM_STEP_FS_INDEX, &t->index[i]->head);
	t->index[i] = NULL;
	return t->index_page[i];
}

/* Add a page of level @level (0: absent), whose first leaf is @first, to the index above it */
static int index_add(struct kmemfs_tree *t, u32 level, u64 page, u64 first)
{
	u64 full, full_first;
	bool starts;
	u32 i;
	int err;

	for (i = level; i < KMEMFS_MAX_HEIGHT; i++) {
		starts = !t->nr[i];
		if (!starts && t->nr[i] < KMEMFS_INDEX_ENTRIES)
			return index_append(t, i, page);
		/* Start the next page of this level; the full one goes up */
		full = index_seal(t, i);
		full_first = t->index_first[i];
		t->index_first[i] = first;
		t->nr[i] = 0;
		err = index_append(t, i, page);
		if (err || starts)
			return err;
		page = full;
		first = full_first;
	}
	return -EFBIG;
}

int kmemfs_tree_add_leaf(struct kmemfs_tree *t, __u64 page)
{
	const u64 nr = t->leaves;
	int err;

	if (!nr) {
		t->first_leaf = page;
		t->leaves = 1;
		return 0;
	}
	if (nr == 1) {
		err = index_add(t, 0, t->first_leaf, 0);
		if (err)
			return err;
	}
	err = index_add(t, 0, page, nr);
	if (!err)
		t->leaves++;
	return err;
}

int kmemfs_tree_skip_leaves(struct kmemfs_tree *t, __u64 nr)
{
	u64 room;
	int err = 0;

	while (nr && !err) {
		/* The first two, and the first of an index page, may start levels */
		room = t->leaves > 1 ? KMEMFS_INDEX_ENTRIES - t->nr[0] : 0;
		if (room > nr)
			room = nr;
		t->nr[0] += room;
		t->leaves += room;
		nr -= room;
		if (nr) {
			err = kmemfs_tree_add_leaf(t, 0);
			nr--;
		}
		cond_resched();
	}
	return err;
}

__u64 kmemfs_extents_pages(__u64 nr_runs)
{
	u64 level = nr_runs / KMEMFS_RUNS_PER_PAGE + !!(nr_runs % KMEMFS_RUNS_PER_PAGE);
	u64 pages = level;

	while (level > 1) {
		level = (level + KMEMFS_INDEX_ENTRIES - 1) / KMEMFS_INDEX_ENTRIES;
		pages += level;
	}
	return pages;
}

__u32 kmemfs_table_height(__u64 leaves)
{
	u64 room = 1;
	u32 height = 0;

	while (room < leaves && height <= KMEMFS_MAX_HEIGHT) {
		room *= KMEMFS_INDEX_ENTRIES;
		height++;
	}
	return height;
}

__u64 kmemfs_table_index_pages(__u64 present, __u64 leaves)
{
	u64 pages = 0;

	while (leaves > 1) {
		leaves = (leaves + KMEMFS_INDEX_ENTRIES - 1) / KMEMFS_INDEX_ENTRIES;
		pages += leaves < present ? leaves : present;
	}
	return pages;
}

static int extents_seal(struct kmemfs_tree *t)
{
	struct kmemfs_extents *leaf = t->leaf;

	head_fill(&leaf->head, t->sink, KMEMFS_KIND_EXTENTS, t->owner, t->leaf_nr, 0,
		  le32_to_cpu(leaf->run[0].file_page));
	page_seal(t->sink, KMEM_STEP_FS_EXTENTS, &leaf->head);
	t->leaf = NULL;
	return kmemfs_tree_add_leaf(t, t->leaf_page);
}

static int run_append(struct kmemfs_tree *t, u64 file_page, u64 count, u64 page)
{
	struct kmemfs_run *run;
	int err;

	if (t->leaf && t->leaf_nr == KMEMFS_RUNS_PER_PAGE) {
		err = extents_seal(t);
		if (err)
			return err;
	}
	if (!t->leaf) {
		t->leaf = page_alloc(t->sink, &t->leaf_page);
		if (!t->leaf)
			return -ENOSPC;
		t->leaf_nr = 0;
	}
	run = &t->leaf->run[t->leaf_nr++];
	run->file_page = cpu_to_le32(file_page);
	run->count = cpu_to_le32(count);
	run->page = cpu_to_le64(page);
	t->nr_runs++;
	t->nr_pages += count;
	return 0;
}

int kmemfs_tree_add_run(struct kmemfs_tree *t, __u64 file_page, __u64 count, __u64 page)
{
	struct kmemfs_run *last = NULL;
	u64 last_end = 0, last_count = 0;

	if (t->leaf && t->leaf_nr) {
		last = &t->leaf->run[t->leaf_nr - 1];
		last_count = le32_to_cpu(last->count);
		last_end = le32_to_cpu(last->file_page) + last_count;
	}
	if (!count || file_page < last_end)
		return -EINVAL;
	if (file_page >= KMEMFS_MAX_FILE_PAGES || count > KMEMFS_MAX_FILE_PAGES - file_page)
		return -EFBIG;
	/* Counts stay below 2^32: a device has at most KMEMFS_MAX_PAGES pages */
	if (last && file_page == last_end && page == le64_to_cpu(last->page) + last_count &&
	    last_count + count <= KMEMFS_MAX_PAGES) {
		last->count = cpu_to_le32(last_count + count);
		t->nr_pages += count;
		return 0;
	}
	if (count > KMEMFS_MAX_PAGES)
		return -EFBIG;
	return run_append(t, file_page, count, page);
}

int kmemfs_tree_finish(struct kmemfs_tree *t, __u64 *top, __u32 *height)
{
	u64 page, first;
	u32 i;
	int err;

	if (t->leaf) {
		err = extents_seal(t);
		if (err)
			return err;
	}
	if (t->leaves < 2) {
		*top = t->first_leaf;
		*height = 0;
		return 0;
	}
	for (i = 0; i + 1 < KMEMFS_MAX_HEIGHT && t->nr[i + 1]; i++) {
		first = t->index_first[i];
		page = index_seal(t, i);
		err = index_add(t, i + 1, page, first);
		if (err)
			return err;
	}
	*top = index_seal(t, i);
	*height = i + 1;
	return 0;
}

/* ---- leaves of the inode table ------------------------------------------- */

void kmemfs_inodes_init(struct kmemfs_inodes *page, const struct kmemfs_sink *s, __u64 leaf)
{
	memset(page, 0, sizeof(*page));
	head_fill(&page->head, s, KMEMFS_KIND_INODES, 0, KMEMFS_INODES_PER_PAGE, 0,
		  leaf * KMEMFS_INODES_PER_PAGE);
}

void kmemfs_inodes_finish(struct kmemfs_inodes *page, struct kmemfs_sink *s)
{
	page_seal(s, KMEM_STEP_FS_INODES, &page->head);
}

/* ---- a page at a time ---------------------------------------------------- */

int kmemfs_write_segment(struct kmemfs_sink *s, const struct kmemfs_run_info *run, __u32 nr,
			 __u64 *page)
{
	struct kmemfs_segment *segment = page_alloc(s, page);
	u64 length = 0;
	u32 i;

	if (!segment)
		return -ENOSPC;
	for (i = 0; i < nr; i++) {
		segment->run[i].page = cpu_to_le32(run[i].page);
		segment->run[i].count = cpu_to_le32(run[i].count);
		length += run[i].count;
	}
	head_fill(&segment->head, s, KMEMFS_KIND_SEGMENT, *page, nr, 0, length);
	page_seal(s, KMEM_STEP_FS_SEGMENT, &segment->head);
	return 0;
}

int kmemfs_write_node(struct kmemfs_sink *s, __u32 level, const struct kmemfs_child_info *child,
		      __u32 nr, __u64 *page)
{
	struct kmemfs_node *node = page_alloc(s, page);
	u64 length = 0;
	u32 i;

	if (!node)
		return -ENOSPC;
	for (i = 0; i < nr; i++) {
		node->child[i].page = cpu_to_le32(child[i].page);
		node->child[i].length = cpu_to_le64(child[i].length);
		length += child[i].length;
	}
	head_fill(&node->head, s, KMEMFS_KIND_NODE, *page, nr, level, length);
	page_seal(s, KMEM_STEP_FS_NODE, &node->head);
	return 0;
}

int kmemfs_write_xattrs(struct kmemfs_sink *s, __u64 ino, const void *bytes, __u32 len,
			__u64 *page)
{
	struct kmemfs_xattrs *xattrs = page_alloc(s, page);

	if (!xattrs)
		return -ENOSPC;
	memcpy(xattrs->bytes, bytes, len);
	head_fill(&xattrs->head, s, KMEMFS_KIND_XATTRS, ino, len, 0, 0);
	page_seal(s, KMEM_STEP_FS_XATTRS, &xattrs->head);
	return 0;
}

int kmemfs_write_sums(struct kmemfs_sink *s, __u64 leaf, const __u32 *sum, __u64 *page)
{
	struct kmemfs_sums *sums = page_alloc(s, page);
	u32 i;

	if (!sums)
		return -ENOSPC;
	for (i = 0; i < KMEMFS_SUMS_PER_PAGE; i++)
		sums->sum[i] = cpu_to_le32(sum[i]);
	head_fill(&sums->head, s, KMEMFS_KIND_SUMS, 0, KMEMFS_SUMS_PER_PAGE, 0,
		  leaf * KMEMFS_SUMS_PER_PAGE);
	page_seal(s, KMEM_STEP_FS_SUMS, &sums->head);
	return 0;
}

int kmemfs_write_index(struct kmemfs_sink *s, __u64 owner, __u32 level, __u64 first,
		       const __u64 *entry, __u32 nr, __u64 *page)
{
	struct kmemfs_index *index = page_alloc(s, page);
	u32 i;

	if (!index)
		return -ENOSPC;
	for (i = 0; i < nr; i++)
		index->page[i] = cpu_to_le64(entry[i]);
	head_fill(&index->head, s, KMEMFS_KIND_INDEX, owner, nr, level, first);
	page_seal(s, KMEM_STEP_FS_INDEX, &index->head);
	return 0;
}

/* ---- roots --------------------------------------------------------------- */

static void root_fill(struct kmemfs_root *slot, const __u8 uuid[16],
		      const struct kmemfs_root_info *info)
{
	memset(slot, 0, sizeof(*slot));
	slot->head.kind = cpu_to_le32(KMEMFS_KIND_ROOT);
	memcpy(slot->head.uuid, uuid, sizeof(slot->head.uuid));
	slot->head.generation = cpu_to_le64(info->generation);
	if (kmemfs_is_v2(info))
		slot->incompat = cpu_to_le64(KMEMFS_INCOMPAT_V2);
	slot->itable = cpu_to_le64(info->itable);
	slot->itable_height = cpu_to_le32(info->itable_height);
	slot->nr_inode_pages = cpu_to_le64(info->nr_inode_pages);
	slot->nr_inodes = cpu_to_le64(info->nr_inodes);
	slot->nr_meta_pages = cpu_to_le64(info->nr_meta_pages);
	slot->nr_file_pages = cpu_to_le64(info->nr_file_pages);
	slot->commit_time = cpu_to_le64((u64)info->commit_time);
	slot->sums = cpu_to_le64(info->sums);
	slot->sums_height = cpu_to_le32(info->sums_height);
	slot->nr_sums_pages = cpu_to_le64(info->nr_sums_pages);
	slot->nr_links = cpu_to_le64(info->nr_links);
	slot->sums_generation = cpu_to_le64(info->sums_generation);
	slot->head.crc = cpu_to_le32(kmemfs_page_crc(slot));
}

void kmemfs_publish(struct kmemfs_sink *s, struct kmemfs_root *slot,
		    const struct kmemfs_root_info *info)
{
	s->fence(s, KMEM_STEP_FS_BEFORE_ROOT);
	root_fill(slot, s->uuid, info);
	s->flush(s, KMEM_STEP_FS_ROOT, slot, sizeof(*slot));
	s->fence(s, KMEM_STEP_FS_AFTER_ROOT);
}

void kmemfs_retire(struct kmemfs_sink *s, struct kmemfs_root *slot)
{
	if (slot->head.kind != cpu_to_le32(KMEMFS_KIND_ROOT))
		return;
	slot->head.kind = cpu_to_le32(KMEMFS_KIND_RETIRED);
	slot->head.crc = 0;
	s->flush(s, KMEM_STEP_FS_RETIRE, &slot->head, sizeof(slot->head));
	s->fence(s, KMEM_STEP_FS_AFTER_RETIRE);
}

void kmemfs_mkfs(struct kmemfs_root slots[KMEMFS_ROOT_SLOTS], const __u8 uuid[16],
		 __u32 version, __s64 now_ns)
{
	const struct kmemfs_root_info empty = {
		.version = version,
		.generation = 1,
		.commit_time = now_ns,
	};

	root_fill(&slots[0], uuid, &empty);
	memset(&slots[1], 0, sizeof(slots[1]));
}
