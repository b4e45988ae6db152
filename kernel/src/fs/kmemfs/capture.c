// SPDX-License-Identifier: GPL-2.0
/*
 * kmemfs: capture of a task's memory
 */

#include <linux/capability.h>
#include <linux/fsnotify.h>
#include <linux/mount.h>
#include <linux/pagemap.h>
#include <linux/pid.h>
#include <linux/ptrace.h>
#include <linux/sched/mm.h>
#include <linux/sched/task.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include "kmemfs.h"

/* Pages captured under one hold of the target's mmap lock */
#define KMEMFS_CAPTURE_BATCH	4096UL

/* The memory of the task behind @pidfd, if the caller may take it */
static struct mm_struct *kmemfs_target_mm(int pidfd)
{
	struct task_struct *task;
	struct mm_struct *mm;
	unsigned int flags;

	if (!checkpoint_restore_ns_capable(&init_user_ns))
		return ERR_PTR(-EPERM);
	task = pidfd_get_task(pidfd, &flags);
	if (IS_ERR(task))
		return ERR_CAST(task);
	mm = mm_access(task, PTRACE_MODE_ATTACH_REALCREDS);
	put_task_struct(task);
	return mm ?: ERR_PTR(-ESRCH);	/* a kernel thread, or a zombie */
}

static int kmemfs_capture_check(struct file *file, const struct kmemfs_capture *c)
{
	struct inode *inode = file_inode(file);
	u64 end;

	if (!S_ISREG(inode->i_mode))
		return -EISDIR;
	if (!(file->f_mode & FMODE_WRITE) || (file->f_flags & O_APPEND))
		return -EBADF;
	if (IS_APPEND(inode))
		return -EPERM;
	if (c->flags || !c->len || !PAGE_ALIGNED(c->addr) || !PAGE_ALIGNED(c->len) ||
	    !PAGE_ALIGNED(c->offset))
		return -EINVAL;
	if (check_add_overflow(c->addr, c->len, &end) || end > TASK_SIZE_MAX)
		return -EINVAL;
	if (check_add_overflow(c->offset, c->len, &end) || end > inode->i_sb->s_maxbytes)
		return -EFBIG;
	return inode_newsize_ok(inode, max_t(loff_t, end, i_size_read(inode)));
}

static int kmemfs_capture_pages(struct kmemfs *k, struct mm_struct *mm, unsigned long addr,
				unsigned long nr, u32 *pages, struct pool_capture_stats *stats)
{
	int r = pool_capture(&k->region, mm, addr, nr, pages, stats);

	if (r == -ENOSPC && kmemfs_make_space(k))
		r = pool_capture(&k->region, mm, addr, nr, pages, stats);
	return r;
}

/* Caller holds i_rwsem. Counts what has been captured, also when it fails midway. */
static int kmemfs_capture_range(struct inode *inode, struct mm_struct *mm,
				struct kmemfs_capture *c, u32 *pages)
{
	struct kmemfs_inode *ki = KMEMFS_I(inode);
	struct kmemfs *k = kmemfs_of(inode);
	bool drained = false;
	u64 done = 0;

	while (done < c->len) {
		unsigned long nr = min_t(u64, (c->len - done) >> PAGE_SHIFT, KMEMFS_CAPTURE_BATCH);
		unsigned long index = (c->offset + done) >> PAGE_SHIFT;
		struct pool_capture_stats stats = { .drained = drained };
		unsigned long runs;
		int r;

		r = kmemfs_prepare(ki, index, nr);
		if (!r)
			r = kmemfs_capture_pages(k, mm, c->addr + done, nr, pages, &stats);
		if (r)
			return r;
		drained = stats.drained;
		runs = kmemfs_count_runs(pages, nr);
		r = kmemfs_may_hold(k, pages, nr) ? 0 : -ENOSPC;
		if (!r)
			r = kmemfs_replace_begin(inode, index, nr, runs);
		if (r) {
			pool_pages_put(&k->region, pages, nr);
			return r;
		}
		kmemfs_set_entries(ki, index, nr, pages);
		done += (u64)nr << PAGE_SHIFT;
		if (c->offset + done > i_size_read(inode))
			i_size_write(inode, c->offset + done);
		kmemfs_replace_end(inode, runs);

		c->pages_by_reference += stats.new;
		c->pages_shared += stats.shared;
		c->pages_copied += stats.copied;
		c->pages_hole += stats.hole;
		kmemfs_count(k, KMEMFS_CAPTURED_BY_REFERENCE, stats.new);
		kmemfs_count(k, KMEMFS_CAPTURED_SHARED, stats.shared);
		kmemfs_count(k, KMEMFS_CAPTURED_COPIED, stats.copied);
		if (fatal_signal_pending(current))
			return -EINTR;
		cond_resched();
	}
	return 0;
}

static int kmemfs_do_capture(struct file *file, struct mm_struct *mm, struct kmemfs_capture *c)
{
	struct inode *inode = file_inode(file);
	u32 *pages;
	int r;

	pages = kvmalloc_array(min_t(u64, c->len >> PAGE_SHIFT, KMEMFS_CAPTURE_BATCH),
			       sizeof(*pages), GFP_KERNEL);
	if (!pages)
		return -ENOMEM;
	inode_lock(inode);
	r = kmemfs_writable(inode);
	if (!r)
		r = file_modified(file);
	if (!r)
		r = kmemfs_write_begin(inode, c->offset);
	if (!r)
		r = kmemfs_capture_range(inode, mm, c, pages);
	inode_unlock(inode);
	kvfree(pages);
	return r;
}

/* What write(2) does around the write itself */
static int kmemfs_capture_write(struct file *file, struct mm_struct *mm, struct kmemfs_capture *c)
{
	loff_t pos = c->offset;
	struct kiocb iocb;
	int r;

	r = rw_verify_area(WRITE, file, &pos, c->len);
	if (r)
		return r;
	r = mnt_want_write_file(file);
	if (r)
		return r;
	r = kmemfs_do_capture(file, mm, c);
	mnt_drop_write_file(file);
	/* it may have failed midway */
	if (c->pages_by_reference || c->pages_shared || c->pages_copied || c->pages_hole)
		fsnotify_modify(file);
	if (r)
		return r;
	init_sync_kiocb(&iocb, file);
	iocb.ki_pos = c->offset + c->len;
	return min_t(ssize_t, generic_write_sync(&iocb, c->len), 0);
}

int kmemfs_ioc_capture(struct file *file, struct kmemfs_capture __user *arg)
{
	struct kmemfs_capture c;
	struct mm_struct *mm;
	int r;

	if (copy_from_user(&c, arg, sizeof(c)))
		return -EFAULT;
	c.pages_by_reference = 0;
	c.pages_shared = 0;
	c.pages_copied = 0;
	c.pages_hole = 0;
	r = kmemfs_capture_check(file, &c);
	if (r)
		return r;
	mm = kmemfs_target_mm(c.pidfd);
	if (IS_ERR(mm))
		return PTR_ERR(mm);
	r = kmemfs_capture_write(file, mm, &c);
	mmput(mm);
	if (copy_to_user(arg, &c, sizeof(c)))
		return -EFAULT;
	return r;
}
