// SPDX-License-Identifier: GPL-2.0
/*
 * kmemfs: is what a file has what was stored?
 */

#include <linux/capability.h>
#include <linux/fs.h>
#include <linux/mm.h>
#include <linux/mount.h>
#include <linux/sched/signal.h>
#include <linux/uaccess.h>
#include "kmemfs.h"

/* Pages that are looked at under one hold of the inode's lock */
#define KMEMFS_VERIFY_BATCH	64UL

/* A page of a file, with a reference. 1: it holds; 0: nobody knows; -EIO */
static int kmemfs_verify_page(struct kmemfs *k, u32 page, void *buffer)
{
	u32 sum = kmemfs_get_sum(k, page);

	/* The page is not written in place, as others than the file have a reference. */
	if (kmemfs_damaged(k, page) ||
	    copy_mc_to_kernel(buffer, kmemfs_addr(k, page), PAGE_SIZE))
		return -EIO;
	if (!sum)
		return 0;
	return kmemfs_page_sum(buffer) == sum ? 1 : -EIO;
}

/*
 * What is lost looks like a hole: where does it end? Where something is lost the mount is
 * read-only, so nothing of it changes.
 */
static unsigned long kmemfs_lost_pages(struct kmemfs_inode *ki, unsigned long first)
{
	unsigned long end = DIV_ROUND_UP_ULL(i_size_read(&ki->vfs), PAGE_SIZE), index = first;

	spin_lock(&ki->lock);
	while (index < end && !kmemfs_entry_locked(ki, index)) {
		index++;
		if (kmemfs_slot(index))
			continue;
		spin_unlock(&ki->lock);
		index = min(end, kmemfs_next_chunk(ki, index));
		cond_resched();
		spin_lock(&ki->lock);
	}
	spin_unlock(&ki->lock);
	return index - first;
}

/* As many of [*index, end) as there are in a batch. 0 or -EIO; *index is where to go on. */
static int kmemfs_verify_batch(struct inode *inode, unsigned long *index, unsigned long end,
			       struct kmemfs_verify_range *v, void *buffer)
{
	struct kmemfs *k = kmemfs_of(inode);
	u32 pages[KMEMFS_VERIFY_BATCH];
	unsigned long i, nr, bad = 1;
	int r = 0;

	inode_lock_shared(inode);
	nr = kmemfs_get_pages(KMEMFS_I(inode), *index, min(end - *index, KMEMFS_VERIFY_BATCH),
			      pages);
	inode_unlock_shared(inode);
	for (i = 0; i < nr && r >= 0; i++) {
		if (pages[i])
			r = kmemfs_verify_page(k, pages[i], buffer);
		else if (KMEMFS_I(inode)->damaged)
			r = -EIO;
		else
			continue;
		if (r < 0) {
			v->first_bad = (u64)(*index + i) << PAGE_SHIFT;
			if (!pages[i])
				bad = kmemfs_lost_pages(KMEMFS_I(inode), *index + i);
			v->len = (u64)bad << PAGE_SHIFT;
			v->flags = KMEMFS_VERIFY_BAD_LEN;
			break;
		}
		v->pages_checked += r;
		v->pages_without_sum += !r;
	}
	pool_pages_put(&k->region, pages, nr);
	*index += i;
	return min(r, 0);
}

static int kmemfs_verify_pages(struct inode *inode, struct kmemfs_verify_range *v)
{
	const u64 size = i_size_read(inode), len = v->len;
	unsigned long index = v->offset >> PAGE_SHIFT;
	unsigned long end = DIV_ROUND_UP_ULL(min(v->offset + v->len, size), PAGE_SIZE);
	void *buffer = (void *)__get_free_page(GFP_KERNEL);
	int r = 0;

	if (!buffer)
		return -ENOMEM;
	while (index < end && !r) {
		r = signal_pending(current) ? -EINTR :
		    kmemfs_verify_batch(inode, &index, end, v, buffer);
		cond_resched();
	}
	free_page((unsigned long)buffer);
	v->done = min((u64)index << PAGE_SHIFT, v->offset + len) - v->offset;
	if (!r)
		v->done = len;
	return r;
}

int kmemfs_ioc_verify(struct file *file, struct kmemfs_verify_range __user *arg)
{
	struct inode *inode = file_inode(file);
	struct kmemfs_verify_range v;
	int r;

	if (!S_ISREG(inode->i_mode))
		return -EINVAL;
	if (!(file->f_mode & FMODE_READ))
		return -EBADF;
	if (copy_from_user(&v, arg, sizeof(v)))
		return -EFAULT;
	if (!PAGE_ALIGNED(v.offset) || !v.len || v.offset + v.len < v.offset || v.flags)
		return -EINVAL;
	v.done = 0;
	v.pages_checked = 0;
	v.pages_without_sum = 0;
	v.first_bad = ~0ULL;
	r = kmemfs_verify_pages(inode, &v);
	return copy_to_user(arg, &v, sizeof(v)) ? -EFAULT : r;
}

int kmemfs_ioc_sum(struct file *file, unsigned long flags)
{
	int r;

	if (!capable(CAP_SYS_ADMIN))
		return -EPERM;
	if (flags)
		return -EINVAL;
	r = mnt_want_write_file(file);
	if (r)
		return r;
	r = kmemfs_sum_all(kmemfs_of(file_inode(file)));
	mnt_drop_write_file(file);
	return r;
}
