// SPDX-License-Identifier: GPL-2.0
/*
 * kmemfs: where a file has pages: fallocate, reflinks, holes
 */

#include <linux/fs.h>
#include <linux/falloc.h>
#include <linux/pagemap.h>
#include <linux/slab.h>
#include "kmemfs.h"

/* Zero [from, to) of one page of the table, in a fresh page if it has any content */
static int kmemfs_zero_stored(struct inode *inode, loff_t from, loff_t to,
			      enum kmemfs_change what)
{
	struct kmemfs *k = kmemfs_of(inode);
	unsigned long index = from >> PAGE_SHIFT;
	bool hole;
	u32 page;
	int r;

	spin_lock(&KMEMFS_I(inode)->lock);
	hole = !kmemfs_entry_locked(KMEMFS_I(inode), index);
	spin_unlock(&KMEMFS_I(inode)->lock);
	if (hole || from == to)
		return 0;
	r = kmemfs_copy_page(inode, index, what, &page);
	if (r)
		return r;
	memset(kmemfs_addr(k, page) + offset_in_page(from), 0, to - from);
	return kmemfs_set_fresh(inode, index, page, 0, what);
}

/* Zero what follows @size in its page, whose folio the caller has locked */
int kmemfs_zero_tail(struct inode *inode, loff_t size, enum kmemfs_change what)
{
	return kmemfs_zero_stored(inode, size, round_up(size, PAGE_SIZE), what);
}

static int kmemfs_zero_part(struct inode *inode, loff_t from, loff_t to,
			    enum kmemfs_change what)
{
	struct folio *folio;
	int r;

	if (from == to)
		return 0;
	folio = kmemfs_lock_cached(inode, from >> PAGE_SHIFT);
	if (IS_ERR(folio))
		return PTR_ERR(folio);
	r = kmemfs_zero_stored(inode, from, to, what);
	kmemfs_unlock_cached(inode, folio);
	return r;
}

static int kmemfs_zero_range(struct inode *inode, loff_t from, loff_t to)
{
	loff_t first = round_up(from, PAGE_SIZE), last = round_down(to, PAGE_SIZE);
	enum kmemfs_change what = KMEMFS_ADDS;
	int r = 0;

	if (first > last)
		return kmemfs_zero_part(inode, from, to, KMEMFS_ADDS);
	if (kmemfs_any_in_range(KMEMFS_I(inode), first >> PAGE_SHIFT, last >> PAGE_SHIFT))
		what = KMEMFS_FREES;
	r = kmemfs_zero_part(inode, from, first, what);
	if (!r && last < to)
		r = kmemfs_zero_part(inode, last, to, what);
	if (r || first == last)
		return r;
	r = kmemfs_plan(inode, 0, KMEMFS_FREES);
	if (r)
		return r;
	kmemfs_drop_cached(inode, first >> PAGE_SHIFT, (last - first) >> PAGE_SHIFT);
	kmemfs_begin_planned(inode, 0);
	kmemfs_drop_range(KMEMFS_I(inode), first >> PAGE_SHIFT, last >> PAGE_SHIFT);
	kmemfs_end(inode, 0);
	return 0;
}

/*
 * Give the holes in [from, to) pages of zeroes, so that writing there cannot
 * lack space. The file grows along, as pages beyond its end have no place in
 * the format.
 */
static int kmemfs_fill_holes(struct inode *inode, loff_t from, loff_t to)
{
	unsigned long index = from >> PAGE_SHIFT, end = DIV_ROUND_UP_ULL(to, PAGE_SIZE);
	struct kmemfs_inode *ki = KMEMFS_I(inode);
	struct kmemfs *k = kmemfs_of(inode);

	for (; index < end; index++) {
		bool hole;
		u32 page;
		int r;

		if (fatal_signal_pending(current))
			return -EINTR;
		spin_lock(&ki->lock);
		hole = !kmemfs_entry_locked(ki, index);
		spin_unlock(&ki->lock);
		if (!hole)
			continue;
		page = kmemfs_alloc_page(k, KMEMFS_GFP | __GFP_ZERO);
		r = kmemfs_set_fresh(inode, index, page,
				     min(to, (loff_t)(index + 1) << PAGE_SHIFT), KMEMFS_ADDS);
		if (r)
			return r;
		cond_resched();
	}
	return 0;
}

/* Make room at @to for the entries of [from, from + nr), but not for long holes */
static int kmemfs_prepare_shift(struct kmemfs_inode *ki, unsigned long from, unsigned long to,
				unsigned long nr)
{
	while (nr) {
		unsigned long n = kmemfs_chunk_span(from, nr);
		int r = 0;

		if (fatal_signal_pending(current))
			r = -EINTR;
		else if (kmemfs_any_entry(ki, from, n))
			r = kmemfs_prepare(ki, to, n);
		if (r)
			return r;
		from += n;
		to += n;
		nr -= n;
		cond_resched();
	}
	return 0;
}

/* The entries of [from, from + nr), of one chunk, come to be at @to as well */
static void kmemfs_shift_some(struct kmemfs_inode *ki, unsigned long from, unsigned long to,
			      unsigned long nr, u32 *pages)
{
	if (kmemfs_any_entry(ki, from, nr)) {
		kmemfs_get_pages(ki, from, nr, pages);
		kmemfs_set_entries(ki, to, nr, pages);
	} else {
		kmemfs_drop_range(ki, to, to + nr);
	}
	cond_resched();
}

/*
 * Move the entries of [from, from + nr) to @to, the last ones first if that is
 * behind: each gets another owner before the old one goes. Nothing can fail, and
 * commits are held up, so that none sees half of it. @pages: a chunk's worth.
 */
static void kmemfs_shift(struct inode *inode, unsigned long from, unsigned long to,
			 unsigned long nr, u32 *pages)
{
	struct kmemfs_inode *ki = KMEMFS_I(inode);
	unsigned long n;

	while (nr && to < from) {
		n = kmemfs_chunk_span(from, nr);
		kmemfs_shift_some(ki, from, to, n, pages);
		from += n;
		to += n;
		nr -= n;
	}
	while (nr) {
		n = min(nr, ((from + nr - 1) & (KMEMFS_CHUNK_SIZE - 1)) + 1);
		nr -= n;
		kmemfs_shift_some(ki, from + nr, to + nr, n, pages);
	}
}

/* Take [offset, offset + len) out of the file, or put a hole of @len there */
static int kmemfs_move_tail(struct inode *inode, bool insert, loff_t offset, loff_t len)
{
	unsigned long from = offset >> PAGE_SHIFT, nr = len >> PAGE_SHIFT, end;
	loff_t size = i_size_read(inode), new_size = insert ? size + len : size - len;
	const unsigned long runs = 1 + KMEMFS_MOVES;
	u32 *pages;
	int r;

	if (!PAGE_ALIGNED(offset | len) || offset + (insert ? 0 : len) >= size)
		return -EINVAL;
	r = inode_newsize_ok(inode, new_size);
	if (!r)
		r = filemap_write_and_wait_range(inode->i_mapping, offset, LLONG_MAX);
	if (r)
		return r;
	truncate_pagecache(inode, offset);
	end = DIV_ROUND_UP_ULL(size, PAGE_SIZE);
	r = insert ? kmemfs_prepare_shift(KMEMFS_I(inode), from, from + nr, end - from) :
		     kmemfs_prepare_shift(KMEMFS_I(inode), from + nr, from, end - from - nr);
	if (r)
		return r;
	pages = kmalloc_array(KMEMFS_CHUNK_SIZE, sizeof(u32), GFP_KERNEL);
	if (!pages)
		return -ENOMEM;
	r = kmemfs_plan(inode, runs, insert ? KMEMFS_ADDS : KMEMFS_FREES);
	if (r)
		goto out;
	kmemfs_begin_planned(inode, runs);
	if (insert) {
		kmemfs_shift(inode, from, from + nr, end - from, pages);
		kmemfs_drop_range(KMEMFS_I(inode), from, from + nr);
	} else {
		kmemfs_shift(inode, from + nr, from, end - from - nr, pages);
		kmemfs_drop_range(KMEMFS_I(inode), end - nr, end);
	}
	i_size_write(inode, new_size);
	kmemfs_touch(inode);
	kmemfs_end(inode, runs);
	kmemfs_unmap_beyond(inode, new_size);
out:
	kfree(pages);
	return r;
}

static long kmemfs_fallocate_locked(struct inode *inode, int mode, loff_t offset, loff_t len)
{
	loff_t end = offset + len, size = i_size_read(inode);
	int r = 0;

	if (mode & (FALLOC_FL_COLLAPSE_RANGE | FALLOC_FL_INSERT_RANGE))
		return kmemfs_move_tail(inode, mode & FALLOC_FL_INSERT_RANGE, offset, len);
	if (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE))
		r = kmemfs_zero_range(inode, offset,
				      min_t(loff_t, end, round_up(size, PAGE_SIZE)));
	if (r || (mode & FALLOC_FL_PUNCH_HOLE))
		return r;
	r = inode_newsize_ok(inode, max(end, size));
	if (r)
		return r;
	if (end > size)
		r = kmemfs_clean_end(inode);
	if (r)
		return r;
	/* for the way back */
	r = kmemfs_plan(inode, 0, KMEMFS_ADDS);
	if (r)
		return r;
	r = kmemfs_fill_holes(inode, offset, end);
	if (!r && end > size)
		r = kmemfs_truncate_locked(inode, end);
	/* Needs no page: nothing has been stored in the last one since its end was cleaned. */
	if (r && i_size_read(inode) > size)
		kmemfs_cut(inode, size);
	else
		kmemfs_unplan(inode, 0);
	return r;
}

long kmemfs_fallocate(struct file *file, int mode, loff_t offset, loff_t len)
{
	struct inode *inode = file_inode(file);
	long r;

	if (mode & ~(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE |
		     FALLOC_FL_COLLAPSE_RANGE | FALLOC_FL_INSERT_RANGE))
		return -EOPNOTSUPP;
	/* pages beyond the end of a file have no place in the format */
	inode_lock(inode);
	r = kmemfs_writable(inode);
	if (r)
		goto out;
	r = -EOPNOTSUPP;
	if ((mode & FALLOC_FL_KEEP_SIZE) && !(mode & FALLOC_FL_PUNCH_HOLE) &&
	    offset + len > i_size_read(inode))
		goto out;
	r = file_modified(file);
	if (r || ((mode & FALLOC_FL_PUNCH_HOLE) && offset >= i_size_read(inode)))
		goto out;
	filemap_invalidate_lock(inode->i_mapping);
	r = kmemfs_fallocate_locked(inode, mode, offset, len);
	filemap_invalidate_unlock(inode->i_mapping);
out:
	inode_unlock(inode);
	return r;
}

loff_t kmemfs_llseek(struct file *file, loff_t offset, int whence)
{
	struct inode *inode = file_inode(file);
	loff_t r;

	if (whence != SEEK_DATA && whence != SEEK_HOLE)
		return generic_file_llseek(file, offset, whence);
	inode_lock_shared(inode);
	r = kmemfs_seek(KMEMFS_I(inode), offset, whence, i_size_read(inode));
	inode_unlock_shared(inode);
	return r < 0 ? r : vfs_setpos(file, r, inode->i_sb->s_maxbytes);
}

static bool kmemfs_crowded(const struct kmemfs *k, const u32 *pages, unsigned long nr)
{
	unsigned long i;

	for (i = 0; i < nr; i++)
		if (pages[i] && pool_page_crowded(&k->region, pages[i]))
			return true;
	return false;
}

/*
 * As below, for pages of one chunk of the source. Its holes need no room in the
 * destination's table, or a file that is one hole would cost much memory.
 */
static int kmemfs_clone_some(struct inode *src, unsigned long from, struct inode *dst,
			     unsigned long to, unsigned long nr, loff_t end, u32 *pages)
{
	bool any = kmemfs_any_entry(KMEMFS_I(src), from, nr);
	struct kmemfs *k = kmemfs_of(dst);
	unsigned long runs = 0;
	int r = 0;

	if (any) {
		r = kmemfs_prepare(KMEMFS_I(dst), to, nr);
		if (r)
			return r;
		kmemfs_get_pages(KMEMFS_I(src), from, nr, pages);
		if (kmemfs_crowded(k, pages, nr))
			r = -EMLINK;
		runs = kmemfs_count_runs(pages, nr);
	}
	if (!r)
		r = kmemfs_begin(dst, runs, KMEMFS_ADDS);
	if (r) {
		if (any)
			pool_pages_put(&k->region, pages, nr);
		return r;
	}
	if (any)
		kmemfs_set_entries(KMEMFS_I(dst), to, nr, pages);
	else
		kmemfs_drop_range(KMEMFS_I(dst), to, to + nr);
	if (min(end, (loff_t)(to + nr) << PAGE_SHIFT) > i_size_read(dst))
		i_size_write(dst, min(end, (loff_t)(to + nr) << PAGE_SHIFT));
	kmemfs_end(dst, runs);
	return 0;
}

/* The destination gets references on the source's pages, and grows along, up to @end */
static int kmemfs_clone_pages(struct inode *src, unsigned long from, struct inode *dst,
			      unsigned long to, unsigned long nr, loff_t end)
{
	u32 *pages;
	int r = 0;

	pages = kmalloc_array(KMEMFS_CHUNK_SIZE, sizeof(u32), GFP_KERNEL);
	if (!pages)
		return -ENOMEM;
	while (nr && !r) {
		unsigned long n = kmemfs_chunk_span(from, nr);

		r = fatal_signal_pending(current) ? -EINTR :
		    kmemfs_clone_some(src, from, dst, to, n, end, pages);
		from += n;
		to += n;
		nr -= n;
		cond_resched();
	}
	kfree(pages);
	return r;
}

loff_t kmemfs_remap_file_range(struct file *in, loff_t pos_in, struct file *out, loff_t pos_out,
			       loff_t len, unsigned int flags)
{
	struct inode *src = file_inode(in), *dst = file_inode(out);
	unsigned long nr;
	loff_t r;

	if (flags & ~(REMAP_FILE_DEDUP | REMAP_FILE_ADVISORY))
		return -EINVAL;
	lock_two_nondirectories(src, dst);
	filemap_invalidate_lock_two(src->i_mapping, dst->i_mapping);
	r = kmemfs_writable(dst);
	if (!r)
		r = generic_remap_file_range_prep(in, pos_in, out, pos_out, &len, flags);
	if (r < 0 || !len)
		goto out;
	nr = DIV_ROUND_UP_ULL(len, PAGE_SIZE);
	r = kmemfs_clean_end(dst);
	if (r)
		goto out;
	kmemfs_drop_cached(dst, pos_out >> PAGE_SHIFT, nr);
	r = kmemfs_clone_pages(src, pos_in >> PAGE_SHIFT, dst, pos_out >> PAGE_SHIFT, nr,
			       pos_out + len);
	if (!r)
		r = len;
out:
	filemap_invalidate_unlock_two(src->i_mapping, dst->i_mapping);
	unlock_two_nondirectories(src, dst);
	return r;
}
