// SPDX-License-Identifier: GPL-2.0
/*
 * kmemfs: reading and writing files
 */

/**
 * DOC: file I/O
 *
 * read(2) maps: where the destination is untouched, page-aligned, anonymous
 * memory it installs the stored page copy-on-write, and copies elsewhere.
 *
 * A page that is shared (with another file, a process, a reader) or that the
 * last commit has is never written: a write goes to a fresh page. A page that
 * only this file has, and no commit, is written in place under the inode's
 * spinlock, under which readers take their references.
 *
 * User memory is only touched with page faults disabled once a lock is held
 * (commit_sem, the spinlock), so no fault handler can hold up a commit.
 */

#include <linux/fs.h>
#include <linux/falloc.h>
#include <linux/pagemap.h>
#include <linux/slab.h>
#include <linux/splice.h>
#include <linux/uio.h>
#include "kmemfs.h"

/* Page numbers that a read looks up at once; the small number is on the stack */
#define KMEMFS_READ_SMALL	16
#define KMEMFS_READ_BATCH	1024

/* For fresh pages */
#define KMEMFS_GFP		(GFP_HIGHUSER_MOVABLE | __GFP_NOWARN)

/* The user address at which @to continues, if it is user memory; bytes there in *@len */
static unsigned long kmemfs_iter_addr(const struct iov_iter *to, size_t *len)
{
	if (iter_is_ubuf(to)) {
		*len = iov_iter_count(to);
		return (unsigned long)to->ubuf + to->iov_offset;
	}
	*len = iter_iov_len(to);
	return (unsigned long)iter_iov_addr(to);
}

/* Map leading pages into the reader; *@copy: how many to copy after them */
static unsigned long kmemfs_read_install(struct kmemfs *k, struct iov_iter *to, u32 *pages,
					 unsigned long nr, unsigned long *copy)
{
	unsigned long addr, done;
	size_t len;

	addr = kmemfs_iter_addr(to, &len);
	*copy = max(1UL, min(nr, len >> PAGE_SHIFT));
	nr = min(nr, len >> PAGE_SHIFT);
	if (!nr || !PAGE_ALIGNED(addr))
		return 0;
	done = pool_install(&k->region, addr, nr, pages, copy);
	if (done == nr)
		*copy = 0;	/* the next segment may take pages as well */
	iov_iter_advance(to, done << PAGE_SHIFT);
	return done;
}

static size_t kmemfs_copy_out(struct kmemfs *k, u32 page, size_t offset, size_t bytes,
			      struct iov_iter *to)
{
	if (!page)
		return iov_iter_zero(bytes, to);
	return copy_page_to_iter(kmemfs_page(k, page), offset, bytes, to);
}

/*
 * Read up to @nr pages from *@pos, whose numbers are in @pages with a reference
 * each. @end: of the file. Return bytes read; a short count ends the read.
 */
static size_t kmemfs_read_pages(struct kmemfs *k, u32 *pages, unsigned long nr, loff_t pos,
				loff_t end, struct iov_iter *to, bool *fault)
{
	unsigned long i = 0, copy = nr;
	size_t done = 0;

	while (i < nr) {
		bool whole = PAGE_ALIGNED(pos) && end - pos >= PAGE_SIZE &&
			     iov_iter_count(to) >= PAGE_SIZE;

		copy = nr - i;
		if (whole && k->byref && user_backed_iter(to)) {
			unsigned long full = min3((unsigned long)((end - pos) >> PAGE_SHIFT),
						  iov_iter_count(to) >> PAGE_SHIFT, nr - i);
			unsigned long got = kmemfs_read_install(k, to, pages + i, full, &copy);

			kmemfs_count(k, KMEMFS_READ_INSTALLED, got);
			i += got;
			pos += got << PAGE_SHIFT;
			done += got << PAGE_SHIFT;
			if (i == nr)
				break;
		}
		for (; copy && i < nr; copy--, i++) {
			size_t offset = offset_in_page(pos), want, n;

			want = min3((loff_t)iov_iter_count(to), end - pos,
				    (loff_t)(PAGE_SIZE - offset));
			if (!want)
				return done;
			n = kmemfs_copy_out(k, pages[i], offset, want, to);
			pos += n;
			done += n;
			if (n < want) {
				*fault = true;
				return done;
			}
			if (n == PAGE_SIZE)
				kmemfs_count(k, KMEMFS_READ_COPIED, 1);
			cond_resched();
		}
	}
	return done;
}

static ssize_t kmemfs_read_iter(struct kiocb *iocb, struct iov_iter *to)
{
	struct inode *inode = file_inode(iocb->ki_filp);
	struct kmemfs_inode *ki = KMEMFS_I(inode);
	struct kmemfs *k = kmemfs_of(inode);
	unsigned long batch = KMEMFS_READ_SMALL;
	u32 small[KMEMFS_READ_SMALL], *pages = NULL;
	bool fault = false;
	ssize_t done = 0;

	if (iov_iter_count(to) > KMEMFS_READ_SMALL * PAGE_SIZE) {
		pages = kmalloc_array(KMEMFS_READ_BATCH, sizeof(u32), GFP_KERNEL | __GFP_NOWARN);
		if (pages)
			batch = KMEMFS_READ_BATCH;
	}
	while (iov_iter_count(to) && !fault) {
		u32 *p = pages ?: small;
		loff_t pos = iocb->ki_pos, end = i_size_read(inode);
		unsigned long nr;
		size_t n;

		if (pos >= end)
			break;
		if (fatal_signal_pending(current)) {
			done = done ?: -EINTR;
			break;
		}
		nr = (min_t(loff_t, iov_iter_count(to), end - pos) + offset_in_page(pos) +
		      PAGE_SIZE - 1) >> PAGE_SHIFT;
		nr = kmemfs_get_pages(ki, pos >> PAGE_SHIFT, min(nr, batch), p);
		n = kmemfs_read_pages(k, p, nr, pos, end, to, &fault);
		pool_pages_put(&k->region, p, nr);
		iocb->ki_pos += n;
		done += n;
		cond_resched();
	}
	kfree(pages);
	file_accessed(iocb->ki_filp);
	return done ?: fault ? -EFAULT : 0;
}

/* What is cached of these file pages for mmap is old now; their new content is in the table */
void kmemfs_invalidate(struct inode *inode, unsigned long index, unsigned long nr)
{
	if (inode->i_mapping->nrpages)
		invalidate_inode_pages2_range(inode->i_mapping, index, index + nr - 1);
}

/* Write in place if only this file has the page. Return bytes; 0: not possible. */
static size_t kmemfs_write_in_place(struct inode *inode, unsigned long index, size_t offset,
				    size_t bytes, struct iov_iter *from)
{
	struct kmemfs_inode *ki = KMEMFS_I(inode);
	struct kmemfs *k = kmemfs_of(inode);
	size_t done = 0;
	u32 *entry;

	spin_lock(&ki->lock);
	entry = kmemfs_entry_locked(ki, index);
	if (entry && (*entry & KMEMFS_NEW)) {
		struct page *page = kmemfs_page(k, KMEMFS_PAGE(*entry));

		if (page_ref_count(page) == 1) {
			clear_bit(KMEMFS_PAGE(*entry), k->durable);
			done = copy_page_from_iter_atomic(page, offset, bytes, from);
		}
	}
	spin_unlock(&ki->lock);
	return done;
}

/* A fresh page with the content of the file's page @index, for a change of part of it */
static u32 kmemfs_copy_page(struct inode *inode, unsigned long index)
{
	struct kmemfs *k = kmemfs_of(inode);
	u32 page = pool_page_alloc(&k->region, KMEMFS_GFP), old;

	if (!page)
		return 0;
	kmemfs_get_pages(KMEMFS_I(inode), index, 1, &old);
	if (old) {
		copy_highpage(kmemfs_page(k, page), kmemfs_page(k, old));
		pool_page_put(&k->region, old);
	} else {
		clear_highpage(kmemfs_page(k, page));
	}
	return page;
}

/* The file's page @index is @page now, and the file ends at @end or later */
static void kmemfs_set_page(struct inode *inode, unsigned long index, u32 page, loff_t end)
{
	u32 entry = page | POOL_PAGE_NEW;

	kmemfs_set_entries(KMEMFS_I(inode), index, 1, &entry);
	if (end > i_size_read(inode))
		i_size_write(inode, end);
}

/* Write within one page. Return bytes written, 0 if the source faulted, or an error. */
static ssize_t kmemfs_write_page(struct inode *inode, loff_t pos, size_t bytes,
				 struct iov_iter *from)
{
	struct kmemfs *k = kmemfs_of(inode);
	unsigned long index = pos >> PAGE_SHIFT;
	size_t done;
	u32 page;

	down_read(&k->commit_sem);
	done = kmemfs_write_in_place(inode, index, offset_in_page(pos), bytes, from);
	if (done) {
		if (pos + done > i_size_read(inode))
			i_size_write(inode, pos + done);
		up_read(&k->commit_sem);
		return done;
	}
	up_read(&k->commit_sem);

	page = kmemfs_copy_page(inode, index);
	if (!page)
		return -ENOSPC;
	done = copy_page_from_iter_atomic(kmemfs_page(k, page), offset_in_page(pos), bytes, from);
	if (!done || kmemfs_prepare(KMEMFS_I(inode), index, 1)) {
		pool_page_put(&k->region, page);
		iov_iter_revert(from, done);
		return done ? -ENOMEM : 0;
	}
	down_read(&k->commit_sem);
	kmemfs_set_page(inode, index, page, pos + done);
	up_read(&k->commit_sem);
	return done;
}

static ssize_t kmemfs_write_locked(struct inode *inode, loff_t *pos, struct iov_iter *from)
{
	ssize_t done = 0, n = 0;

	while (iov_iter_count(from)) {
		size_t bytes = min(iov_iter_count(from), PAGE_SIZE - offset_in_page(*pos));

		if (fatal_signal_pending(current)) {
			n = -EINTR;
			break;
		}
		if (fault_in_iov_iter_readable(from, bytes) == bytes) {
			n = -EFAULT;
			break;
		}
		n = kmemfs_write_page(inode, *pos, bytes, from);
		if (n < 0)
			break;
		if (n)
			kmemfs_invalidate(inode, *pos >> PAGE_SHIFT, 1);
		*pos += n;
		done += n;
		cond_resched();
	}
	return done ?: n;
}

static ssize_t kmemfs_write_iter(struct kiocb *iocb, struct iov_iter *from)
{
	struct file *file = iocb->ki_filp;
	struct inode *inode = file_inode(file);
	ssize_t r;

	inode_lock(inode);
	r = generic_write_checks(iocb, from);
	if (r <= 0)
		goto out;
	r = file_remove_privs(file);
	if (!r)
		r = file_update_time(file);
	if (!r)
		r = kmemfs_write_locked(inode, &iocb->ki_pos, from);
out:
	inode_unlock(inode);
	return r > 0 ? generic_write_sync(iocb, r) : r;
}

/* Content of an inode that nobody can find yet: @len bytes, at most a page */
int kmemfs_store(struct inode *inode, const void *data, size_t len)
{
	struct kmemfs *k = kmemfs_of(inode);
	u32 page;
	int r;

	r = kmemfs_prepare(KMEMFS_I(inode), 0, 1);
	if (r)
		return r;
	page = pool_page_alloc(&k->region, KMEMFS_GFP | __GFP_ZERO);
	if (!page)
		return -ENOSPC;
	memcpy(kmemfs_addr(k, page), data, len);
	down_read(&k->commit_sem);
	kmemfs_set_page(inode, 0, page, len);
	up_read(&k->commit_sem);
	return 0;
}

/* Zero [from, to) of one page, in a fresh page if it has any content */
static int kmemfs_zero_part(struct inode *inode, loff_t from, loff_t to)
{
	struct kmemfs *k = kmemfs_of(inode);
	unsigned long index = from >> PAGE_SHIFT;
	bool hole;
	u32 page;

	spin_lock(&KMEMFS_I(inode)->lock);
	hole = !kmemfs_entry_locked(KMEMFS_I(inode), index);
	spin_unlock(&KMEMFS_I(inode)->lock);
	if (hole || from == to)
		return 0;
	page = kmemfs_copy_page(inode, index);
	if (!page)
		return -ENOSPC;
	memset(kmemfs_addr(k, page) + offset_in_page(from), 0, to - from);
	down_read(&k->commit_sem);
	kmemfs_set_page(inode, index, page, 0);
	up_read(&k->commit_sem);
	return 0;
}

/* Zero what follows @size in its page */
int kmemfs_zero_tail(struct inode *inode, loff_t size)
{
	return kmemfs_zero_part(inode, size, round_up(size, PAGE_SIZE));
}

static int kmemfs_zero_range(struct inode *inode, loff_t from, loff_t to)
{
	struct kmemfs *k = kmemfs_of(inode);
	loff_t first = round_up(from, PAGE_SIZE), last = round_down(to, PAGE_SIZE);
	int r = 0;

	if (first > last)
		return kmemfs_zero_part(inode, from, to);
	r = kmemfs_zero_part(inode, from, first);
	if (!r && last < to)
		r = kmemfs_zero_part(inode, last, to);
	if (r || first == last)
		return r;
	down_read(&k->commit_sem);
	kmemfs_drop_range(KMEMFS_I(inode), first >> PAGE_SHIFT, last >> PAGE_SHIFT);
	up_read(&k->commit_sem);
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
		r = kmemfs_prepare(ki, index, 1);
		if (r)
			return r;
		page = pool_page_alloc(&k->region, KMEMFS_GFP | __GFP_ZERO);
		if (!page)
			return -ENOSPC;
		down_read(&k->commit_sem);
		kmemfs_set_page(inode, index, page,
				min(to, (loff_t)(index + 1) << PAGE_SHIFT));
		up_read(&k->commit_sem);
		cond_resched();
	}
	return 0;
}

static long kmemfs_fallocate_locked(struct inode *inode, int mode, loff_t offset, loff_t len)
{
	loff_t end = offset + len, size = i_size_read(inode);
	int r = 0;

	if (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE))
		r = kmemfs_zero_range(inode, offset,
				      min_t(loff_t, end, round_up(size, PAGE_SIZE)));
	if (r || (mode & FALLOC_FL_PUNCH_HOLE))
		return r;
	r = inode_newsize_ok(inode, max(end, size));
	if (r)
		return r;
	r = kmemfs_fill_holes(inode, offset, end);
	if (r)
		kmemfs_truncate(inode, size);
	else if (end > size)
		r = kmemfs_truncate(inode, end);
	return r;
}

static long kmemfs_fallocate(struct file *file, int mode, loff_t offset, loff_t len)
{
	struct inode *inode = file_inode(file);
	long r;

	if (mode & ~(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE))
		return -EOPNOTSUPP;
	/* pages beyond the end of a file have no place in the format */
	inode_lock(inode);
	r = -EOPNOTSUPP;
	if ((mode & FALLOC_FL_KEEP_SIZE) && !(mode & FALLOC_FL_PUNCH_HOLE) &&
	    offset + len > i_size_read(inode))
		goto out;
	r = file_modified(file);
	if (r || ((mode & FALLOC_FL_PUNCH_HOLE) && offset >= i_size_read(inode)))
		goto out;
	r = kmemfs_fallocate_locked(inode, mode, offset, len);
	kmemfs_invalidate(inode, offset >> PAGE_SHIFT,
			  DIV_ROUND_UP_ULL(offset + len, PAGE_SIZE) - (offset >> PAGE_SHIFT));
out:
	inode_unlock(inode);
	return r;
}

static loff_t kmemfs_llseek(struct file *file, loff_t offset, int whence)
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

/* The destination gets references on the source's pages, and grows along, up to @end */
static int kmemfs_clone_pages(struct inode *src, unsigned long from, struct inode *dst,
			      unsigned long to, unsigned long nr, loff_t end)
{
	struct kmemfs *k = kmemfs_of(dst);
	u32 *pages;
	int r = 0;

	pages = kmalloc_array(KMEMFS_CHUNK_SIZE, sizeof(u32), GFP_KERNEL);
	if (!pages)
		return -ENOMEM;
	while (nr && !r) {
		unsigned long n;

		r = kmemfs_prepare(KMEMFS_I(dst), to, min(nr, KMEMFS_CHUNK_SIZE));
		if (!r && fatal_signal_pending(current))
			r = -EINTR;
		if (r)
			break;
		n = kmemfs_get_pages(KMEMFS_I(src), from, nr, pages);
		down_read(&k->commit_sem);
		kmemfs_set_entries(KMEMFS_I(dst), to, n, pages);
		if (min(end, (loff_t)(to + n) << PAGE_SHIFT) > i_size_read(dst))
			i_size_write(dst, min(end, (loff_t)(to + n) << PAGE_SHIFT));
		up_read(&k->commit_sem);
		from += n;
		to += n;
		nr -= n;
		cond_resched();
	}
	kfree(pages);
	return r;
}

static loff_t kmemfs_remap_file_range(struct file *in, loff_t pos_in, struct file *out,
				      loff_t pos_out, loff_t len, unsigned int flags)
{
	struct inode *src = file_inode(in), *dst = file_inode(out);
	unsigned long nr;
	loff_t r;

	if (flags & ~(REMAP_FILE_DEDUP | REMAP_FILE_ADVISORY))
		return -EINVAL;
	lock_two_nondirectories(src, dst);
	r = generic_remap_file_range_prep(in, pos_in, out, pos_out, &len, flags);
	if (r < 0 || !len)
		goto out;
	nr = DIV_ROUND_UP_ULL(len, PAGE_SIZE);
	r = kmemfs_clone_pages(src, pos_in >> PAGE_SHIFT, dst, pos_out >> PAGE_SHIFT, nr,
			       pos_out + len);
	kmemfs_invalidate(dst, pos_out >> PAGE_SHIFT, nr);
	if (!r)
		r = len;
out:
	unlock_two_nondirectories(src, dst);
	return r;
}

const struct file_operations kmemfs_file_fops = {
	.open = generic_file_open,
	.llseek = kmemfs_llseek,
	.read_iter = kmemfs_read_iter,
	.write_iter = kmemfs_write_iter,
	.mmap = kmemfs_mmap,
	.splice_read = copy_splice_read,
	.splice_write = iter_file_splice_write,
	.fallocate = kmemfs_fallocate,
	.remap_file_range = kmemfs_remap_file_range,
	.fsync = kmemfs_fsync,
	.unlocked_ioctl = kmemfs_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
};
