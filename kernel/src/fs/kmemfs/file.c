// SPDX-License-Identifier: GPL-2.0
/*
 * kmemfs: reading and writing files
 */

/**
 * DOC: file I/O
 *
 * read(2) copies, unless it can give the reader the stored page itself
 * (read_install.c).
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
#include <linux/pagemap.h>
#include <linux/slab.h>
#include <linux/splice.h>
#include <linux/uio.h>
#include "kmemfs.h"

/* Page numbers that a read looks up at once; the small number is on the stack */
#define KMEMFS_READ_SMALL	16
#define KMEMFS_READ_BATCH	1024

/* Fewer than @bytes: the destination faulted, or the page is damaged (-EIO in *error) */
static size_t kmemfs_copy_out(const struct kmemfs_inode *ki, u32 page, size_t offset,
			      size_t bytes, struct iov_iter *to, int *error)
{
	struct kmemfs *k = kmemfs_of(&ki->vfs);
	size_t n = 0;

	if (!page && !ki->damaged)
		n = iov_iter_zero(bytes, to);
	else if (page && !kmemfs_damaged(k, page))
		n = _copy_mc_to_iter(kmemfs_addr(k, page) + offset, bytes, to);
	if (n < bytes)
		*error = (page ? kmemfs_damaged(k, page) : ki->damaged) ? -EIO : -EFAULT;
	return n;
}

/*
 * Read up to @nr pages from *@pos, whose numbers are in @pages with a reference
 * each. @end: of the file. Return bytes read; *@error ends the read.
 */
static size_t kmemfs_read_pages(const struct kmemfs_inode *ki, u32 *pages, unsigned long nr,
				loff_t pos, loff_t end, struct iov_iter *to, int *error)
{
	struct kmemfs *k = kmemfs_of(&ki->vfs);
	unsigned long i = 0, copy = nr;
	size_t done = 0;

	while (i < nr) {
		/* fresh memory is taken for a hole, which may be none where something is lost */
		bool whole = PAGE_ALIGNED(pos) && end - pos >= PAGE_SIZE && !ki->damaged &&
			     iov_iter_count(to) >= PAGE_SIZE;

		copy = nr - i;
		if (whole && READ_ONCE(k->byref) && user_backed_iter(to)) {
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
			n = kmemfs_copy_out(ki, pages[i], offset, want, to, error);
			pos += n;
			done += n;
			if (n < want)
				return done;
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
	ssize_t done = 0;
	int error = 0;

	if (iov_iter_count(to) > KMEMFS_READ_SMALL * PAGE_SIZE) {
		pages = kmalloc_array(KMEMFS_READ_BATCH, sizeof(u32), GFP_KERNEL | __GFP_NOWARN);
		if (pages)
			batch = KMEMFS_READ_BATCH;
	}
	while (iov_iter_count(to) && !error) {
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
		nr = min(nr, batch);
		if (unlikely(kmemfs_any_cached(inode, pos, nr << PAGE_SHIFT))) {
			size_t want = min3((loff_t)iov_iter_count(to), end - pos,
					   (loff_t)(PAGE_SIZE - offset_in_page(pos)));
			ssize_t got = kmemfs_read_cached(inode, pos, want, to);

			if (got >= 0) {
				iocb->ki_pos += got;
				done += got;
				if (got < want)
					error = -EFAULT;
				continue;
			}
			nr = 1;
		}
		nr = kmemfs_get_pages(ki, pos >> PAGE_SHIFT, nr, p);
		n = kmemfs_read_pages(ki, p, nr, pos, end, to, &error);
		if (memchr_inv(p, 0, nr * sizeof(*p)))	/* not all were given away */
			pool_pages_put(&k->region, p, nr);
		iocb->ki_pos += n;
		done += n;
		cond_resched();
	}
	kfree(pages);
	file_accessed(iocb->ki_filp);
	return done ?: error;
}

/* The page at an entry that only this file has, and no commit; else NULL. Caller holds ki->lock. */
static struct page *kmemfs_own_locked(struct kmemfs *k, const u32 *entry)
{
	struct page *page;

	if (!entry || !(*entry & KMEMFS_NEW))
		return NULL;
	page = kmemfs_page(k, KMEMFS_PAGE(*entry));
	return page_ref_count(page) == 1 && !PageHWPoison(page) ? page : NULL;
}

/* Write in place if only this file has the page. Return bytes; 0: not possible. */
static size_t kmemfs_write_in_place(struct inode *inode, unsigned long index, size_t offset,
				    size_t bytes, struct iov_iter *from)
{
	struct kmemfs_inode *ki = KMEMFS_I(inode);
	struct kmemfs *k = kmemfs_of(inode);
	struct page *page;
	size_t done = 0;
	u32 *entry;

	spin_lock(&ki->lock);
	entry = kmemfs_entry_locked(ki, index);
	page = kmemfs_own_locked(k, entry);
	if (page) {
		kmemfs_rewrites(k, *entry);
		done = copy_page_from_iter_atomic(page, offset, bytes, from);
	}
	spin_unlock(&ki->lock);
	return done;
}

/*
 * A fresh page with the content of the file's page @index, for a change of part of it.
 * Return 0, -ENOSPC, or -EIO if that is damaged.
 */
int kmemfs_copy_page(struct inode *inode, unsigned long index, enum kmemfs_change what,
		     u32 *page)
{
	struct kmemfs *k = kmemfs_of(inode);
	int r = 0;
	u32 old;

	*page = kmemfs_alloc_page(k, KMEMFS_GFP);
	if (!*page && what != KMEMFS_ADDS)
		*page = kmemfs_reserve_take_freeing(k);
	if (!*page)
		return -ENOSPC;
	kmemfs_get_pages(KMEMFS_I(inode), index, 1, &old);
	if (old) {
		r = kmemfs_copy_content(k, kmemfs_page(k, *page), old);
		pool_page_put(&k->region, old);
	} else {
		clear_highpage(kmemfs_page(k, *page));
	}
	if (r)
		pool_page_put(&k->region, *page);
	return r;
}

/* The file's page @index is @page now, and the file ends at @end or later */
static void kmemfs_set_page(struct inode *inode, unsigned long index, u32 page, loff_t end)
{
	u32 entry = page | POOL_PAGE_NEW;

	kmemfs_set_entries(KMEMFS_I(inode), index, 1, &entry);
	if (end > i_size_read(inode))
		i_size_write(inode, end);
}

/* Take a fresh page with its content, up to @end, into the table, or free it. */
int kmemfs_set_fresh(struct inode *inode, unsigned long index, u32 page, loff_t end,
		     enum kmemfs_change what)
{
	struct kmemfs *k = kmemfs_of(inode);
	int r;

	if (!page)
		return -ENOSPC;
	r = kmemfs_prepare(KMEMFS_I(inode), index, 1);
	if (!r)
		r = kmemfs_begin(inode, 1, what);
	if (r) {
		pool_page_put(&k->region, page);
		return r;
	}
	kmemfs_set_page(inode, index, page, end);
	kmemfs_end(inode, 1);
	return 0;
}

/* Make a page of the table one that only this file has, and no commit: it can be written */
int kmemfs_own_page(struct inode *inode, unsigned long index)
{
	struct kmemfs_inode *ki = KMEMFS_I(inode);
	u32 page;
	bool own;
	int r;

	spin_lock(&ki->lock);
	own = kmemfs_own_locked(kmemfs_of(inode), kmemfs_entry_locked(ki, index));
	spin_unlock(&ki->lock);
	if (own)
		return 0;
	r = kmemfs_copy_page(inode, index, KMEMFS_ADDS, &page);
	return r ?: kmemfs_set_fresh(inode, index, page, 0, KMEMFS_ADDS);
}

/*
 * Give a page of the table other content. Nobody else changes it: its folio is locked.
 * @spare: a page for that, planned, if one is needed; then it is used up. 0: none.
 * Return 1 if it was used, 0 if not, or an error.
 */
int kmemfs_store_page(struct inode *inode, unsigned long index, const void *data, u32 spare)
{
	struct kmemfs_inode *ki = KMEMFS_I(inode);
	struct kmemfs *k = kmemfs_of(inode);
	bool planned = false;
	struct page *page;
	u32 *entry, fresh;

	down_read(&k->commit_sem);
	spin_lock(&ki->lock);
	entry = kmemfs_entry_locked(ki, index);
	page = kmemfs_own_locked(k, entry);
	if (page) {
		kmemfs_rewrites(k, *entry);
		memcpy(page_address(page), data, PAGE_SIZE);
	}
	spin_unlock(&ki->lock);
	if (!page && spare && !kmemfs_damaged(k, spare)) {
		memcpy(kmemfs_addr(k, spare), data, PAGE_SIZE);
		planned = true;
	}
	up_read(&k->commit_sem);
	if (page)
		return 0;
	if (planned) {
		kmemfs_begin_planned(inode, 1);
		kmemfs_set_page(inode, index, spare, 0);
		kmemfs_end(inode, 1);
		return 1;
	}
	fresh = kmemfs_alloc_page(k, GFP_NOFS);
	if (fresh)
		memcpy(kmemfs_addr(k, fresh), data, PAGE_SIZE);
	return kmemfs_set_fresh(inode, index, fresh, 0, KMEMFS_ADDS);
}

/* Write within one page. Return bytes written, 0 if the source faulted, or an error. */
static ssize_t kmemfs_write_page(struct inode *inode, loff_t pos, size_t bytes,
				 struct iov_iter *from)
{
	struct kmemfs *k = kmemfs_of(inode);
	unsigned long index = pos >> PAGE_SHIFT;
	bool mend = false;
	size_t done;
	u32 page;
	int r;

	down_read(&k->commit_sem);
	done = kmemfs_write_in_place(inode, index, offset_in_page(pos), bytes, from);
	if (done) {
		if (pos + done > i_size_read(inode))
			i_size_write(inode, pos + done);
		up_read(&k->commit_sem);
		return done;
	}
	up_read(&k->commit_sem);

	r = kmemfs_copy_page(inode, index, KMEMFS_ADDS, &page);
	if (r == -EIO && bytes == PAGE_SIZE) {
		mend = true;
		page = kmemfs_alloc_page(k, KMEMFS_GFP);
		r = page ? 0 : -ENOSPC;
	}
	if (r)
		return r;
	done = copy_page_from_iter_atomic(kmemfs_page(k, page), offset_in_page(pos), bytes, from);
	if (mend && done < bytes) {
		iov_iter_revert(from, done);
		done = 0;
	}
	if (!done) {
		pool_page_put(&k->region, page);
		return 0;
	}
	r = kmemfs_set_fresh(inode, index, page, pos + done, KMEMFS_ADDS);
	if (r) {
		iov_iter_revert(from, done);
		return r;
	}
	return done;
}

static ssize_t kmemfs_write_cached(struct inode *inode, loff_t pos, size_t bytes,
				   struct iov_iter *from)
{
	struct folio *folio;
	ssize_t n;

	filemap_invalidate_lock(inode->i_mapping);
	folio = kmemfs_lock_cached(inode, pos >> PAGE_SHIFT);
	if (IS_ERR(folio)) {
		n = PTR_ERR(folio);
	} else {
		n = kmemfs_write_page(inode, pos, bytes, from);
		kmemfs_unlock_cached(inode, folio);
	}
	filemap_invalidate_unlock(inode->i_mapping);
	return n;
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
		n = kmemfs_write_cached(inode, *pos, bytes, from);
		if (n < 0)
			break;
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
	r = kmemfs_writable(inode);
	if (!r)
		r = generic_write_checks(iocb, from);
	if (r <= 0)
		goto out;
	r = file_remove_privs(file);
	if (!r)
		r = file_update_time(file);
	if (!r)
		r = kmemfs_write_begin(inode, iocb->ki_pos);
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
	u32 page = kmemfs_alloc_page(k, KMEMFS_GFP | __GFP_ZERO);

	if (page)
		memcpy(kmemfs_addr(k, page), data, len);
	return kmemfs_set_fresh(inode, 0, page, len, KMEMFS_ADDS);
}

const struct file_operations kmemfs_file_fops = {
	.open = generic_file_open,
	.llseek = kmemfs_llseek,
	.read_iter = kmemfs_read_iter,
	.write_iter = kmemfs_write_iter,
	.mmap = kmemfs_mmap,
	.splice_read = copy_splice_read,
	.splice_write = kmemfs_splice_write,
	.fallocate = kmemfs_fallocate,
	.remap_file_range = kmemfs_remap_file_range,
	.fsync = kmemfs_fsync,
	.unlocked_ioctl = kmemfs_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
};
