// SPDX-License-Identifier: GPL-2.0
/*
 * kmemfs: which device page is which page of a file
 */

/**
 * DOC: page tables of files
 *
 * Stored pages are not page cache: one page may be in several files, at
 * several offsets, and in processes besides. So each file has a table of its
 * own, chunks of 1024 entries in an xarray. An entry is a device page on which
 * the file holds one reference.
 *
 * An entry that the last commit does not have carries KMEMFS_NEW. When such an
 * entry goes, its reference is dropped at once. One that the last commit does
 * have must outlive it (a power cut would bring it back): it becomes pending,
 * and is dropped when a commit without it is durable. Chunks of deleted files
 * become pending as they are, so deleting needs no memory.
 *
 * A chunk that the last commit does not have as it is carries KMEMFS_CHUNK_DIRTY.
 */

#include <linux/slab.h>
#include "kmemfs.h"

/* Entries that leave a table under one hold of its lock; on the stack */
#define KMEMFS_DROP_BATCH	64UL

static struct kmemfs_chunk *kmemfs_chunk_of(struct kmemfs_inode *ki, unsigned long index)
{
	void *chunk = xa_load(&ki->chunks, index >> KMEMFS_CHUNK_SHIFT);

	return xa_is_value(chunk) ? NULL : chunk;
}

/* The entry of a file page, or NULL in a hole. Caller holds ki->lock. */
u32 *kmemfs_entry_locked(struct kmemfs_inode *ki, unsigned long index)
{
	struct kmemfs_chunk *chunk = kmemfs_chunk_of(ki, index);

	lockdep_assert_held(&ki->lock);
	if (!chunk || !chunk->entry[kmemfs_slot(index)])
		return NULL;
	return &chunk->entry[kmemfs_slot(index)];
}

/* The first chunk of [*@ci, @last] that is there, and where */
static struct kmemfs_chunk *kmemfs_find_chunk(struct kmemfs_inode *ki, unsigned long *ci,
					      unsigned long last)
{
	void *chunk = xa_find(&ki->chunks, ci, last, XA_PRESENT);

	while (xa_is_value(chunk))
		chunk = xa_find_after(&ki->chunks, ci, last, XA_PRESENT);
	return chunk;
}

/* The first page of the next chunk that is there, of @index or behind it; ULONG_MAX: none is */
unsigned long kmemfs_next_chunk(struct kmemfs_inode *ki, unsigned long index)
{
	unsigned long ci = index >> KMEMFS_CHUNK_SHIFT;

	return kmemfs_find_chunk(ki, &ci, ULONG_MAX) ? ci << KMEMFS_CHUNK_SHIFT : ULONG_MAX;
}

/* Is anything but a hole in [index, index + nr), which are of one chunk? Caller holds i_rwsem. */
bool kmemfs_any_entry(struct kmemfs_inode *ki, unsigned long index, unsigned long nr)
{
	const struct kmemfs_chunk *chunk = kmemfs_chunk_of(ki, index);

	return chunk && chunk->nr &&
	       memchr_inv(&chunk->entry[kmemfs_slot(index)], 0, nr * sizeof(u32));
}

/* The same for [index, end), however long. Caller holds i_rwsem and invalidate_lock. */
bool kmemfs_any_in_range(struct kmemfs_inode *ki, unsigned long index, unsigned long end)
{
	while (index < end) {
		unsigned long nr = kmemfs_chunk_span(index, end - index);

		if (kmemfs_any_entry(ki, index, nr))
			return true;
		index += nr;
		if (index < end)
			index = kmemfs_next_chunk(ki, index);
		cond_resched();
	}
	return false;
}

/*
 * Take references on the pages of [index, index + nr), at most up to the end of
 * a chunk. Return how many entries of @pages were filled (0 in holes).
 */
unsigned long kmemfs_get_pages(struct kmemfs_inode *ki, unsigned long index, unsigned long nr,
			       u32 *pages)
{
	struct kmemfs *k = kmemfs_of(&ki->vfs);
	struct kmemfs_chunk *chunk;
	unsigned long i;

	nr = kmemfs_chunk_span(index, nr);
	spin_lock(&ki->lock);
	chunk = kmemfs_chunk_of(ki, index);
	if (!chunk)
		memset(pages, 0, nr * sizeof(*pages));
	for (i = 0; chunk && i < nr; i++) {
		u32 page = KMEMFS_PAGE(chunk->entry[kmemfs_slot(index) + i]);

		if (page)
			pool_page_get(&k->region, page);
		pages[i] = page;
	}
	spin_unlock(&ki->lock);
	return nr;
}

/* -EBUSY: a store through a mapping was faster */
static int kmemfs_new_chunk(struct kmemfs_inode *ki, unsigned long index)
{
	struct kmemfs_chunk *chunk = kmem_cache_zalloc(kmemfs_chunk_cache, GFP_KERNEL_ACCOUNT);
	const unsigned long ci = index >> KMEMFS_CHUNK_SHIFT;
	void *was, *old;

	if (!chunk)
		return -ENOMEM;
	for (;;) {
		was = xa_load(&ki->chunks, ci);
		if (was && !xa_is_value(was))
			break;
		chunk->committed = was;
		old = xa_cmpxchg(&ki->chunks, ci, was, chunk, GFP_KERNEL);
		if (old == was)
			return 0;
		if (xa_is_err(old)) {
			kmem_cache_free(kmemfs_chunk_cache, chunk);
			return xa_err(old);
		}
	}
	kmem_cache_free(kmemfs_chunk_cache, chunk);
	return -EBUSY;
}

static int kmemfs_add_chunk(struct kmemfs_inode *ki, unsigned long index)
{
	struct kmemfs *k = kmemfs_of(&ki->vfs);
	int r = kmemfs_charge_table(k, sizeof(struct kmemfs_chunk));

	if (r)
		return r;
	r = kmemfs_new_chunk(ki, index);
	if (r)
		kmemfs_uncharge_table(k, sizeof(struct kmemfs_chunk));
	return r == -EBUSY ? 0 : r;
}

/*
 * Make room for entries of [index, index + nr). Caller holds i_rwsem, or
 * invalidate_lock, for reading, or a folio of the range: no chunk goes away then.
 */
int kmemfs_prepare(struct kmemfs_inode *ki, unsigned long index, unsigned long nr)
{
	int r = 0;

	/* no attach would take more */
	if (atomic64_read(&kmemfs_of(&ki->vfs)->file_pages) + nr > KMEMFS_MAX_OWNED)
		return -ENOSPC;
	while (nr) {
		unsigned long span = kmemfs_chunk_span(index, nr);

		if (!kmemfs_chunk_of(ki, index))
			r = kmemfs_add_chunk(ki, index);
		if (r)
			return r;
		index += span;
		nr -= span;
	}
	return 0;
}

static void kmemfs_put_entry(struct kmemfs *k, u32 entry)
{
	kmemfs_unhold(k, &entry, 1);
	pool_page_put(&k->region, KMEMFS_PAGE(entry));
}

/* Let go of entries that have left a table */
static void kmemfs_drop_entries(struct kmemfs *k, u32 *entry, unsigned long nr)
{
	unsigned long i, kept = 0;

	for (i = 0; i < nr; i++) {
		if (!entry[i])
			continue;
		if (entry[i] & KMEMFS_NEW)
			kmemfs_put_entry(k, entry[i]);
		else
			entry[kept++] = entry[i];
	}
	if (kept)
		kmemfs_add_pending(k, entry, kept);
}

static void kmemfs_account(struct kmemfs_inode *ki, long delta)
{
	if (!delta)
		return;
	ki->nr_pages += delta;
	ki->vfs.i_blocks += delta * (PAGE_SIZE / 512);
	atomic64_add(delta, &kmemfs_of(&ki->vfs)->file_pages);
}

/* The content of the pages that carry POOL_PAGE_NEW has not been written back yet */
static void kmemfs_not_durable(struct kmemfs *k, const u32 *pages, unsigned long nr)
{
	unsigned long i;

	for (i = 0; i < nr; i++)
		if ((pages[i] & POOL_PAGE_NEW) && test_bit(KMEMFS_PAGE(pages[i]), k->durable))
			clear_bit(KMEMFS_PAGE(pages[i]), k->durable);
}

/* The same for one page, which is about to be written in place. Caller holds ki->lock. */
void kmemfs_rewrites(struct kmemfs *k, u32 page)
{
	page = KMEMFS_PAGE(page) | POOL_PAGE_NEW;
	kmemfs_not_durable(k, &page, 1);
}

/* A commit writes the page back: a sum that it has is one of other content */
static void kmemfs_will_flush(struct kmemfs *k, u32 page)
{
	__set_bit(page, k->flushing);
	kmemfs_clear_sum(k, page);
}

/* Four pages whose content is not new? Subtracting 1 gives holes the top bit, too. */
static __always_inline bool kmemfs_four_pages(const u32 *pages)
{
	return !(((pages[0] | (pages[0] - 1)) | (pages[1] | (pages[1] - 1)) |
		  (pages[2] | (pages[2] - 1)) | (pages[3] | (pages[3] - 1))) & POOL_PAGE_NEW);
}

/* Where all is hole. Returns how many entries are none now. */
static long kmemfs_fill_entries(struct kmemfs *k, u32 *entry, const u32 *pages, unsigned long nr)
{
	unsigned long i;
	long had = 0;
	u32 any = 0;

	for (i = 0; i < nr; i++) {
		/* the usual case in fours: stored pages, none of them a hole */
		for (; i + 4 <= nr && kmemfs_four_pages(pages + i); i += 4, had += 4) {
			entry[i] = pages[i] | KMEMFS_NEW;
			entry[i + 1] = pages[i + 1] | KMEMFS_NEW;
			entry[i + 2] = pages[i + 2] | KMEMFS_NEW;
			entry[i + 3] = pages[i + 3] | KMEMFS_NEW;
		}
		if (i == nr)
			break;
		any |= pages[i];
		had += !!pages[i];
		entry[i] = pages[i] | (pages[i] ? KMEMFS_NEW : 0);
	}
	if (any & POOL_PAGE_NEW)
		kmemfs_not_durable(k, pages, nr);
	return had;
}

/* @pages gets what was there. Returns by how many there are more now. */
static long kmemfs_swap_entries(struct kmemfs *k, u32 *entry, u32 *pages, unsigned long nr)
{
	unsigned long i;
	long delta = 0;

	kmemfs_not_durable(k, pages, nr);
	for (i = 0; i < nr; i++) {
		if (pages[i])
			pages[i] |= KMEMFS_NEW;
		delta += !!pages[i] - !!entry[i];
		swap(entry[i], pages[i]);
	}
	return delta;
}

/* How many runs are these entries? */
unsigned long kmemfs_count_runs(const u32 *pages, unsigned long nr)
{
	unsigned long i, runs = 0;
	u32 next = 0;

	for (i = 0; i < nr; i++) {
		u32 page = KMEMFS_PAGE(pages[i]);

		runs += page && page != next;
		next = page + 1;
	}
	return runs;
}

/*
 * Replace the entries of [index, index + nr) by @pages, whose references the
 * file takes over. POOL_PAGE_NEW in @pages: the content has not been written
 * back yet. Caller holds i_rwsem, has prepared the range and planned this, and is
 * between kmemfs_begin() and kmemfs_end(). @pages is overwritten.
 */
void kmemfs_set_entries(struct kmemfs_inode *ki, unsigned long index, unsigned long nr,
			u32 *pages)
{
	struct kmemfs *k = kmemfs_of(&ki->vfs);

	while (nr) {
		unsigned long span = kmemfs_chunk_span(index, nr);
		struct kmemfs_chunk *chunk;
		bool empty;
		u32 *entry;
		long delta;

		kmemfs_hold(k, pages, span);
		spin_lock(&ki->lock);
		chunk = kmemfs_chunk_of(ki, index);
		entry = &chunk->entry[kmemfs_slot(index)];
		empty = !chunk->nr;
		if (empty)
			delta = kmemfs_fill_entries(k, entry, pages, span);
		else
			delta = kmemfs_swap_entries(k, entry, pages, span);
		chunk->nr += delta;
		xa_set_mark(&ki->chunks, index >> KMEMFS_CHUNK_SHIFT, KMEMFS_CHUNK_DIRTY);
		kmemfs_account(ki, delta);
		spin_unlock(&ki->lock);
		if (!empty)
			kmemfs_drop_entries(k, pages, span);
		index += span;
		pages += span;
		nr -= span;
	}
	ki->data_dirty = true;
	kmemfs_dirty_inode(&ki->vfs, 0);
}

/* A chunk that has left its table; @unlinked: what the last commit has becomes pending */
static void kmemfs_drop_chunk(struct kmemfs *k, struct kmemfs_chunk *chunk, bool unlinked)
{
	unsigned int i, kept = 0;

	kmemfs_uncharge_table(k, sizeof(*chunk));
	for (i = 0; i < KMEMFS_CHUNK_SIZE; i++) {
		u32 entry = chunk->entry[i];

		if (entry & KMEMFS_NEW) {
			kmemfs_put_entry(k, entry);
			chunk->entry[i] = 0;
		} else if (entry) {
			kept++;
		}
	}
	if (!kept || !unlinked) {
		kmem_cache_free(kmemfs_chunk_cache, chunk);
		return;
	}
	kmemfs_add_pending_chunk(k, chunk);
}

/* Make holes of some entries of a chunk that stays */
static void kmemfs_clear_entries(struct kmemfs_inode *ki, struct kmemfs_chunk *chunk,
				 unsigned long from, unsigned long to)
{
	u32 entry[KMEMFS_DROP_BATCH];

	while (from < to) {
		unsigned long i, nr = min(to - from, KMEMFS_DROP_BATCH);
		long had = 0;

		spin_lock(&ki->lock);
		for (i = 0; i < nr; i++) {
			entry[i] = chunk->entry[from + i];
			chunk->entry[from + i] = 0;
			had += !!entry[i];
		}
		chunk->nr -= had;
		kmemfs_account(ki, -had);
		spin_unlock(&ki->lock);
		kmemfs_drop_entries(kmemfs_of(&ki->vfs), entry, nr);
		from += nr;
	}
}

/*
 * A chunk leaves the table; the next commit, if one has the file, must know where it was.
 * If the last one has it: else who writes here and there would leave marks without end.
 */
static void kmemfs_take_chunk(struct kmemfs_inode *ki, const struct kmemfs_chunk *chunk,
			      unsigned long ci)
{
	if (!ki->vfs.i_nlink || !chunk->committed) {
		xa_erase(&ki->chunks, ci);
		return;
	}
	xa_store(&ki->chunks, ci, KMEMFS_CHUNK_GONE, GFP_NOWAIT);	/* does not allocate */
	xa_set_mark(&ki->chunks, ci, KMEMFS_CHUNK_DIRTY);
}

/* Make a hole of [index, end). Caller as above. */
void kmemfs_drop_range(struct kmemfs_inode *ki, unsigned long index, unsigned long end)
{
	struct kmemfs *k = kmemfs_of(&ki->vfs);
	struct kmemfs_chunk *chunk;
	unsigned long ci;

	if (index >= end)
		return;
	xa_for_each_range(&ki->chunks, ci, chunk, index >> KMEMFS_CHUNK_SHIFT,
			  (end - 1) >> KMEMFS_CHUNK_SHIFT) {
		unsigned long first = ci << KMEMFS_CHUNK_SHIFT;
		unsigned long from = max(index, first) - first;
		unsigned long to = min(end - first, KMEMFS_CHUNK_SIZE);

		cond_resched();
		if (xa_is_value(chunk))
			continue;
		if (to - from == KMEMFS_CHUNK_SIZE) {
			spin_lock(&ki->lock);
			kmemfs_take_chunk(ki, chunk, ci);
			kmemfs_account(ki, -(long)chunk->nr);
			spin_unlock(&ki->lock);
			kmemfs_drop_chunk(k, chunk, true);
		} else {
			kmemfs_clear_entries(ki, chunk, from, to);
			xa_set_mark(&ki->chunks, ci, KMEMFS_CHUNK_DIRTY);
		}
	}
	ki->data_dirty = true;
	kmemfs_dirty_inode(&ki->vfs, 0);
}

/*
 * The inode leaves memory. If it was unlinked its pages go, those that the last
 * commit has as pending. Otherwise (umount) the commit keeps its references.
 */
void kmemfs_drop_all(struct kmemfs_inode *ki)
{
	struct kmemfs *k = kmemfs_of(&ki->vfs);
	struct kmemfs_chunk *chunk;
	unsigned long ci;

	xa_for_each(&ki->chunks, ci, chunk) {
		if (!xa_is_value(chunk))
			kmemfs_drop_chunk(k, chunk, !ki->vfs.i_nlink);
		cond_resched();
	}
	xa_destroy(&ki->chunks);
	kmemfs_account(ki, -(long)ki->nr_pages);
	kmemfs_trees_done(ki, &(struct kmemfs_tree_ref){});
}

/* A run of the last commit; its references are the commit's. Its memory has been charged. */
int kmemfs_load_run(struct kmemfs_inode *ki, unsigned long index, unsigned long count, u32 page)
{
	struct kmemfs *k = kmemfs_of(&ki->vfs);
	int r;

	bitmap_set(k->durable, page, count);
	bitmap_set(k->sums.unsummed, page, count);
	kmemfs_account(ki, count);
	while (count) {
		unsigned long i, span = kmemfs_chunk_span(index, count);
		struct kmemfs_chunk *chunk = kmemfs_chunk_of(ki, index);

		if (!chunk) {
			r = kmemfs_new_chunk(ki, index);
			if (r)
				return r;
			chunk = kmemfs_chunk_of(ki, index);
			chunk->committed = true;
		}
		for (i = 0; i < span; i++)
			chunk->entry[kmemfs_slot(index) + i] = page++;
		kmemfs_hold(k, &chunk->entry[kmemfs_slot(index)], span);
		chunk->nr += span;
		index += span;
		count -= span;
		cond_resched();
	}
	return 0;
}

/* Go on to the chunk that s->at is in; within a run only if there is one. False: no more. */
static bool kmemfs_scan_chunk(struct kmemfs_scan *s)
{
	unsigned long ci = s->at >> KMEMFS_CHUNK_SHIFT;

	if (s->chunk && s->ci == ci)
		return true;
	cond_resched();
	if (s->nr)
		s->chunk = kmemfs_chunk_of(s->ki, s->at);
	else
		s->chunk = kmemfs_find_chunk(s->ki, &ci, (s->end - 1) >> KMEMFS_CHUNK_SHIFT);
	s->ci = ci;
	if (!s->chunk)
		return false;
	s->at = max(s->at, (u64)ci << KMEMFS_CHUNK_SHIFT);
	return true;
}

/* Find the next pages of a file that are in consecutive device pages; false: no more */
bool kmemfs_next_run(struct kmemfs_scan *s)
{
	s->nr = 0;
	while (s->at < s->end && kmemfs_scan_chunk(s)) {
		u32 entry = s->chunk->entry[kmemfs_slot(s->at)], page = KMEMFS_PAGE(entry);

		if (s->nr && page != s->page + s->nr)
			break;
		if (page && !s->nr) {
			s->start = s->at;
			s->page = page;
		}
		s->nr += !!page;
		if (s->flush && (entry & KMEMFS_NEW) && !test_bit(page, s->flush->durable))
			kmemfs_will_flush(s->flush, page);
		s->at++;
	}
	return s->nr;
}

/* SEEK_DATA and SEEK_HOLE, within a file of @size bytes; caller holds i_rwsem */
loff_t kmemfs_seek(struct kmemfs_inode *ki, loff_t offset, int whence, loff_t size)
{
	unsigned long index = offset >> PAGE_SHIFT, end = DIV_ROUND_UP(size, PAGE_SIZE);
	bool want_data = whence == SEEK_DATA;

	if (offset < 0 || offset >= size)
		return -ENXIO;
	if (ki->damaged)	/* for who leaves out holes: what is lost is none */
		return want_data ? offset : size;
	while (index < end) {
		unsigned long i, span = kmemfs_chunk_span(index, end - index);
		struct kmemfs_chunk *chunk = kmemfs_chunk_of(ki, index);

		for (i = 0; i < span; i++) {
			bool is_data = chunk && chunk->entry[kmemfs_slot(index) + i];

			if (is_data == want_data)
				return max_t(loff_t, offset, (loff_t)(index + i) << PAGE_SHIFT);
			if (!chunk)
				break;
		}
		index += span;
		cond_resched();
	}
	return want_data ? -ENXIO : size;
}
