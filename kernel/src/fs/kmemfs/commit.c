// SPDX-License-Identifier: GPL-2.0
/*
 * kmemfs: making changes durable
 */

/**
 * DOC: commits
 *
 * A commit covers the whole filesystem and is atomic. With changes held up
 * (commit_sem) it writes what has changed of the trees of files (rope.c; in version 1,
 * extents.c, the trees of files that have changed), the inode table's leaves that
 * have changed inodes, and the inner pages above them (index.c), all to fresh pages,
 * and notes which data pages must be written back. If it runs out of anything it
 * gives the fresh pages back, and nothing has happened; pages it does not run out of
 * (reserve.c). Otherwise it marks all
 * this as committed and lets changes go on, which from now on go to other
 * pages. Then it writes the data back and the root slot that does not rule,
 * retires the other, and only when both are durable lets go of what the commit
 * before had. Where writing back is not all, the device is asked between these
 * steps. If it cannot make them durable, the pool is read-only, and nothing that
 * either root leads to is let go of until the next boot.
 */

#define pr_fmt(fmt) "kmemfs: " fmt

#include <linux/mm.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include "commit.h"

int kmemfs_pages_add(struct kmemfs_pages *list, u32 page)
{
	if (list->nr == list->room) {
		size_t room = max_t(size_t, 256, list->room * 2);
		u32 *bigger = kvmalloc_array(room, sizeof(u32), GFP_KERNEL);

		if (!bigger)
			return -ENOMEM;
		if (list->nr)
			memcpy(bigger, list->page, list->nr * sizeof(u32));
		kvfree(list->page);
		list->page = bigger;
		list->room = room;
	}
	list->page[list->nr++] = page;
	return 0;
}

void kmemfs_pages_free(struct kmemfs_pages *list)
{
	kvfree(list->page);
	*list = (struct kmemfs_pages) {};
}

/* Metadata pages that nothing refers to any more */
static void kmemfs_release(struct kmemfs *k, struct kmemfs_pages *list,
			   void (*release)(struct kmemfs *k, u32 page))
{
	size_t i;

	kmem_persist_record_free(k->kp, list->page, list->nr);
	for (i = 0; i < list->nr; i++)
		release(k, list->page[i]);
	kmemfs_pages_free(list);
}

/* What a commit has written last goes again: all of c->fresh from @fresh on */
void kmemfs_unwrite(struct kmemfs_commit *c, size_t fresh)
{
	size_t i;

	kmem_persist_record_free(c->k->kp, c->fresh.page + fresh, c->fresh.nr - fresh);
	for (i = fresh; i < c->fresh.nr; i++)
		kmemfs_reserve_give(c->k, c->fresh.page[i]);
	c->fresh.nr = fresh;
}

/* ---- what the format's writers ask for ---------------------------------- */

static void *kmemfs_sink_alloc(struct kmemfs_sink *s, __u64 *number)
{
	struct kmemfs_commit *c = container_of(s, struct kmemfs_commit, sink);
	struct kmemfs *k = c->k;
	gfp_t gfp = c->spare_reserve ? GFP_NOWAIT : GFP_NOFS;
	u32 page = c->spare_reserve ? 0 : kmemfs_reserve_take(k);

	/* it was not filled, or memory of it failed; or changes hold up for what can wait */
	if (!page)
		page = pool_page_alloc(&k->region, gfp | __GFP_MOVABLE | __GFP_NOWARN);
	if (!page)
		return NULL;
	if (kmemfs_pages_add(&c->fresh, page)) {
		kmemfs_reserve_give(k, page);
		return NULL;
	}
	*number = page;
	return kmemfs_addr(k, page);
}

/* ---- collecting ---------------------------------------------------------- */

/* Is the tree of a file written anew, in whole or in part? */
static bool kmemfs_tree_dirty(const struct kmemfs_commit *c, const struct kmemfs_inode *ki)
{
	return ki->data_dirty || c->root.version != c->k->root.version;
}

/* The tree of an inode of the last commit goes; that of one that has changed goes in part */
static int kmemfs_drop_tree(struct kmemfs_commit *c, const struct kmemfs_inode_record *record)
{
	const struct kmemfs_inode *ki = xa_load(&c->k->inodes, le64_to_cpu(record->ino));
	bool same = ki && ki->tree.top == le64_to_cpu(record->extents);

	if (!record->extents || (same && !kmemfs_tree_dirty(c, ki)))
		return 0;
	if (c->k->root.version == 1)
		return kmemfs_drop_extents(c, record);
	return same ? 0 : kmemfs_drop_rope(c, le64_to_cpu(record->ino));
}

/* The page of attributes goes, if the inode is gone or does not have it any more */
static int kmemfs_drop_xattr_page(struct kmemfs_commit *c, const struct kmemfs_inode *ki, u64 page)
{
	if (!page || (ki && !ki->xattrs_dirty && ki->xattr_page == page))
		return 0;
	return kmemfs_pages_add(&c->old, page);
}

/* Is what was written of the inode table still what is there? */
static int kmemfs_check_leaf(struct kmemfs *k, u32 page)
{
	const struct kmemfs_page_head *head = kmemfs_addr(k, page);
	struct kmem_persist_why why = {};

	if (kmemfs_damaged(k, page))
		kmem_persist_why_set(&why, "memory of the inode table failed");
	else if (le32_to_cpu(head->crc) !=
		 kmem_persist_page_crc(head, offsetof(struct kmemfs_page_head, crc)))
		kmem_persist_why_set(&why, "page %u: wrong crc", page);
	else
		return 0;
	kmemfs_fail(k, why.text);
	return -EUCLEAN;
}

/* What the last commit says of the leaf's inodes goes, if it is not taken over */
static int kmemfs_drop_records(struct kmemfs_commit *c, u32 page)
{
	const struct kmemfs_inodes *old = kmemfs_addr(c->k, page);
	int i, r = kmemfs_check_leaf(c->k, page);

	if (r)
		return r;
	for (i = 0; i < KMEMFS_INODES_PER_PAGE; i++) {
		const struct kmemfs_inode_record *record = &old->record[i];
		const struct kmemfs_inode *ki;

		if (!record->ino)
			continue;
		if (record->flags & cpu_to_le32(KMEMFS_RECORD_LINK)) {
			c->root.nr_links--;
			continue;
		}
		c->root.nr_inodes--;
		c->root.nr_file_pages -= le64_to_cpu(record->nr_pages);
		ki = xa_load(&c->k->inodes, le64_to_cpu(record->ino));
		r = kmemfs_drop_xattr_page(c, ki, le64_to_cpu(record->xattr_page));
		if (r)
			return r;
		r = kmemfs_drop_tree(c, record);
		if (r)
			return r;
	}
	return kmemfs_pages_add(&c->old, page);
}

static int kmemfs_write_inode(struct kmemfs_commit *c, struct kmemfs_inode *ki,
			      struct kmemfs_inode_record *record)
{
	int r = 0;

	if (!kmemfs_tree_dirty(c, ki))
		ki->new_tree = ki->tree;
	else if (c->root.version == 1)
		r = kmemfs_write_extents(c, ki);
	else
		r = kmemfs_write_rope(c, ki);
	if (!r)
		r = kmemfs_commit_xattrs(ki, &c->sink);
	if (r)
		return r;
	kmemfs_write_record(record, ki);
	c->root.nr_inodes++;
	c->root.nr_file_pages += ki->nr_pages;
	return 0;
}

/* Write leaf @nr of the inode table, @old its page in the last commit or 0 */
static int kmemfs_write_leaf(struct kmemfs_commit *c, unsigned long nr, u32 old)
{
	unsigned long first = nr * KMEMFS_INODES_PER_PAGE, ino;
	struct kmemfs_inodes *leaf = NULL;
	struct kmemfs_inode *ki;
	struct kmemfs_name *n;
	u64 page = 0;
	int r;

	/* first, so that a change that is not held up (atime) marks it again */
	xa_clear_mark(&c->k->itable.leaves, nr, KMEMFS_LEAF_DIRTY);
	r = xa_err(xa_store(&c->itable.leaves, nr, xa_mk_value(0), GFP_NOFS));
	if (r) {
		xa_set_mark(&c->k->itable.leaves, nr, KMEMFS_LEAF_DIRTY);
		return r;
	}
	if (old) {
		r = kmemfs_drop_records(c, old);
		if (r)
			return r;
	}
	for (ino = first; ino < first + KMEMFS_INODES_PER_PAGE; ino++) {
		ki = xa_load(&c->k->inodes, ino);
		n = ki ? NULL : xa_load(&c->k->links, ino);
		if (!ki && !n)
			continue;
		if (!leaf) {
			leaf = kmemfs_sink_alloc(&c->sink, &page);
			if (!leaf)
				return -ENOSPC;
			c->sink.nr_meta_pages++;
			kmemfs_inodes_init(leaf, &c->sink, nr);
		}
		if (n) {
			kmemfs_write_link(&leaf->record[ino - first], n);
			c->root.nr_links++;
			continue;
		}
		r = kmemfs_write_inode(c, ki, &leaf->record[ino - first]);
		if (r)
			return r;
	}
	if (leaf)
		kmemfs_inodes_finish(leaf, &c->sink);
	return xa_err(xa_store(&c->itable.leaves, nr, xa_mk_value(page), GFP_NOFS));
}

/* Write all metadata. Nothing in memory says yet that it is committed. */
static int kmemfs_collect(struct kmemfs_commit *c)
{
	struct kmemfs *k = c->k;
	unsigned long n;
	void *v;
	int r;

	xa_for_each_marked(&k->itable.leaves, n, v, KMEMFS_LEAF_DIRTY) {
		r = kmemfs_write_leaf(c, n, xa_to_value(v));
		if (r)
			return r;
		cond_resched();
	}
	if (c->root.nr_file_pages > KMEMFS_MAX_OWNED)
		return -ENOSPC;		/* no attach would take it */
	r = kmemfs_write_table(c, &c->itable);
	if (r)
		return r;
	c->root.itable = c->itable.top;
	c->root.itable_height = c->itable.height;
	c->root.nr_inode_pages = c->itable.span;
	kmemfs_commit_sums(c);
	c->root.generation = c->sink.generation;
	c->root.nr_meta_pages += c->sink.nr_meta_pages - c->old.nr;
	c->root.commit_time = ktime_get_real_ns();
	return 0;
}

static void kmemfs_mark_committed(const struct kmemfs_commit *c, struct kmemfs_inode *ki)
{
	struct kmemfs_chunk *chunk;
	unsigned long ci;
	int i;

	if (ki->xattrs_dirty)
		kmemfs_xattrs_done(ki, ki->new_xattr_page);
	if (!kmemfs_tree_dirty(c, ki))
		return;
	kmemfs_trees_done(ki, &ki->new_tree);
	xa_for_each_marked(&ki->chunks, ci, chunk, KMEMFS_CHUNK_DIRTY) {
		cond_resched();
		/* or there is one meanwhile, which is empty */
		if (xa_is_value(chunk) &&
		    xa_cmpxchg(&ki->chunks, ci, chunk, NULL, GFP_NOFS) == chunk)
			continue;
		if (!xa_is_value(chunk)) {
			spin_lock(&ki->lock);
			for (i = 0; i < KMEMFS_CHUNK_SIZE; i++)
				chunk->entry[i] &= ~KMEMFS_NEW;
			chunk->committed = true;
			spin_unlock(&ki->lock);
		}
		xa_clear_mark(&ki->chunks, ci, KMEMFS_CHUNK_DIRTY);
	}
}

static void kmemfs_leaf_committed(const struct kmemfs_commit *c, unsigned long leaf)
{
	unsigned long ino = leaf * KMEMFS_INODES_PER_PAGE;
	struct kmemfs_inode *ki;
	int i;

	for (i = 0; i < KMEMFS_INODES_PER_PAGE; i++) {
		ki = xa_load(&c->k->inodes, ino + i);
		if (ki)
			kmemfs_mark_committed(c, ki);
	}
}

/* Leaf @n is at @page now; 0: it has no inodes, and is forgotten */
static void kmemfs_set_leaf(struct kmemfs *k, unsigned long n, unsigned long page)
{
	bool was_new = !xa_to_value(xa_load(&k->itable.leaves, n));

	if (page)	/* overwrites an entry: does not allocate, and leaves the mark as it is */
		xa_store(&k->itable.leaves, n, xa_mk_value(page), GFP_NOFS);
	else
		xa_erase(&k->itable.leaves, n);
	kmemfs_reserve_count(k, page ? 0 : -1, was_new ? -1 : 0);
}

/* All is written: from here on memory is what the commit says */
static void kmemfs_collected(struct kmemfs_commit *c)
{
	struct kmemfs *k = c->k;
	unsigned long n;
	void *v;

	/* first, as what the reserve needs for a file depends on it */
	WRITE_ONCE(k->version, c->root.version);
	xa_for_each(&c->itable.leaves, n, v) {
		kmemfs_set_leaf(k, n, xa_to_value(v));
		kmemfs_leaf_committed(c, n);
	}
	kmemfs_table_committed(&c->itable);
	kmemfs_sums_committed(c);
	kmemfs_ropes_committed(c);
	kmemfs_reserve_committed(k, k->itable.nr_index, c->root.nr_inode_pages, c->old.nr);
	kmemfs_take_pending(k, &c->pending);
}

static void kmemfs_undo(struct kmemfs_commit *c)
{
	struct kmemfs *k = c->k;
	unsigned long n;
	void *v;

	xa_for_each(&c->itable.leaves, n, v)
		xa_set_mark(&k->itable.leaves, n, KMEMFS_LEAF_DIRTY);
	bitmap_zero(k->flushing, k->region.end);
	kmemfs_ropes_undo(c);
	kmemfs_release(k, &c->fresh, kmemfs_reserve_give);
	kvfree(c->old.page);
}

/* ---- making it durable --------------------------------------------------- */

/* Pages that are written back before whoever waits for commit_sem gets it */
#define KMEMFS_FLUSH_RUN	256UL

/*
 * Memory that fails may go from the kernel's page tables, but not before kmemfs was told
 * (poison.c), which waits for commit_sem.
 */
static void kmemfs_flush_run(struct kmemfs *k, unsigned long start, unsigned long end)
{
	unsigned long i, flushed = 0;

	down_read(&k->commit_sem);
	for (i = start; i < end; i++) {
		if (kmemfs_damaged(k, i))
			continue;
		kmem_persist_write_back(k->kp, KMEM_STEP_FS_DATA, kmemfs_addr(k, i), PAGE_SIZE);
		set_bit(i, k->durable);
		kmemfs_sums_wanted(k, i);
		flushed++;
	}
	up_read(&k->commit_sem);
	kmemfs_count(k, KMEMFS_FLUSHED, flushed);
	cond_resched();
}

static void kmemfs_flush_data(struct kmemfs *k)
{
	unsigned long start, end, i;

	for_each_set_bitrange(start, end, k->flushing, k->region.end) {
		for (i = start; i < end; i += KMEMFS_FLUSH_RUN)
			kmemfs_flush_run(k, i, min(i + KMEMFS_FLUSH_RUN, end));
		bitmap_clear(k->flushing, start, end - start);
	}
}

/* For tests: what kmemfs_finish() does after the root, too early */
static void kmemfs_too_early(struct kmemfs_commit *c, struct kmemfs_root *old_slot)
{
	if (kmem_persist_without(KMEM_ORDER_FS_KEEP_META))
		kmemfs_release(c->k, &c->old, kmemfs_reserve_return);
	if (kmem_persist_without(KMEM_ORDER_FS_KEEP_DATA))
		kmemfs_put_pending(c->k, &c->pending, true);
	if (kmem_persist_without(KMEM_ORDER_FS_ROOT_FIRST))
		kmemfs_retire(&c->sink, old_slot);
}

/* Each step only when the device says that the one before is durable */
static int kmemfs_write_roots(struct kmemfs_commit *c, unsigned int slot)
{
	struct kmemfs *k = c->k;
	struct kmemfs_root *slots = k->kp->head + KMEMFS_PAGE_SIZE;
	int r;

	if (!kmem_persist_without(KMEM_ORDER_FS_DATA_FIRST))
		kmemfs_flush_data(k);
	kmemfs_too_early(c, &slots[!slot]);
	r = kmem_persist_make_durable(k->kp, KMEM_STEP_SYNC_FS_TREE);
	if (r)
		return r;
	kmemfs_publish(&c->sink, &slots[slot], &c->root);
	if (kmem_persist_without(KMEM_ORDER_FS_DATA_FIRST))
		kmemfs_flush_data(k);
	r = kmem_persist_make_durable(k->kp, KMEM_STEP_SYNC_FS_ROOT);
	if (r)
		return r;
	kmemfs_retire(&c->sink, &slots[!slot]);
	return kmem_persist_make_durable(k->kp, KMEM_STEP_SYNC_FS_RETIRE);
}

static int kmemfs_finish(struct kmemfs_commit *c)
{
	struct kmemfs *k = c->k;
	const unsigned int slot = !k->slot;
	int r = kmemfs_write_roots(c, slot);

	if (r) {
		/* Either root may rule after a crash: what both lead to stays as it is. */
		kmemfs_stop(k, "commit failed", "the device cannot make data durable");
		kvfree(c->old.page);
		kmemfs_put_pending(k, &c->pending, false);
	} else {
		k->slot = slot;
		k->root = c->root;
		kmemfs_count(k, KMEMFS_META_WRITTEN, c->sink.nr_meta_pages);
		kmemfs_release(k, &c->old, kmemfs_reserve_return);
		kmemfs_reserve_trim(k);
		kmemfs_put_pending(k, &c->pending, true);
		kmemfs_limit_committed(k);
		kmemfs_sums_kick(k);
	}
	kvfree(c->fresh.page);
	return r;
}

/*
 * As kmemfs_commit(), whether there are changes or not. @version: of the tree that is
 * written; if the last one's is another, all leaves are dirty, and file trees are written
 * anew. Caller holds commit_lock and keeps reclaim from filesystems.
 */
int kmemfs_commit_locked(struct kmemfs *k, unsigned int version)
{
	struct kmemfs_commit c = {
		.k = k,
		.sink = {
			.alloc = kmemfs_sink_alloc,
			.flush = kmemfs_flush,
			.fence = kmemfs_fence,
			.ctx = k,
			.generation = k->root.generation + 1,
		},
		.root = k->root,
		.pending = LIST_HEAD_INIT(c.pending),
	};
	int r;

	c.root.version = version;
	memcpy(c.sink.uuid, k->kp->header.uuid, sizeof(c.sink.uuid));
	kmemfs_new_table_init(&c.itable, &k->itable);
	kmemfs_new_table_init(&c.sums, &k->sums.table);
	xa_init(&c.ropes);
	c.page = (void *)__get_free_page(GFP_KERNEL);
	if (!c.page)
		return -ENOMEM;
	kmemfs_reserve_fill(k);

	down_write(&k->commit_sem);
	WRITE_ONCE(k->dirty, false);
	r = kmemfs_collect(&c);
	if (r)
		kmemfs_undo(&c);
	else
		kmemfs_collected(&c);
	up_write(&k->commit_sem);

	if (r)
		kmemfs_changed(k);
	else
		r = kmemfs_finish(&c);
	kmemfs_pages_free(&c.shared);
	kmemfs_new_table_destroy(&c.itable);
	kmemfs_new_table_destroy(&c.sums);
	xa_destroy(&c.ropes);
	free_page((unsigned long)c.page);
	return r;
}

static int kmemfs_commit_changes(struct kmemfs *k, bool sums)
{
	unsigned int flags;
	int r = 0;

	mutex_lock(&k->commit_lock);
	/* Reclaim may wait for a filesystem whose loop device waits for this commit. */
	flags = memalloc_nofs_save();
	/* What a commit that failed had taken is not done for who asks next. */
	if (k->failed)
		r = -EROFS;
	else if (READ_ONCE(k->dirty) || (sums && READ_ONCE(k->sums.dirty)))
		r = kmemfs_commit_locked(k, k->root.version);
	memalloc_nofs_restore(flags);
	mutex_unlock(&k->commit_lock);
	return r;
}

/*
 * Make everything durable that has been done so far. Return 0, or -ENOSPC,
 * -ENOMEM, -EUCLEAN or, later, -EROFS: then the last commit still holds, and so
 * do the changes in memory. Or -EIO: then this one holds, or the last.
 */
int kmemfs_commit(struct kmemfs *k)
{
	return kmemfs_commit_changes(k, false);
}

/*
 * The same, but checksums alone are worth a commit, too, unless the mount is read-only, or
 * some, as each writes a part of the table
 */
int kmemfs_commit_all(struct kmemfs *k)
{
	bool sums = !sb_rdonly(k->sb);
	int r = kmemfs_commit(k);
	unsigned long more;

	if (r || !sums)
		return r;
	/* all else is durable, and stays so whatever becomes of these */
	for (more = kmemfs_sums_commits(k); more; more--) {
		if (!READ_ONCE(k->sums.dirty) || fatal_signal_pending(current))
			break;
		r = kmemfs_commit_changes(k, true);
		if (r || READ_ONCE(k->sums.lacking))
			break;
	}
	return READ_ONCE(k->failed) ? r : 0;
}

int kmemfs_fsync(struct file *file, loff_t start, loff_t end, int datasync)
{
	/* fails once for each open file of which a memory failure took a page, too */
	int error = file_write_and_wait_range(file, start, end);
	int r = kmemfs_commit(kmemfs_of(file_inode(file)));

	return r ?: error;
}
