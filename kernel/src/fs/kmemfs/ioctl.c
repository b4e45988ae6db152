// SPDX-License-Identifier: GPL-2.0
/*
 * kmemfs: what a pool says of itself, and its upgrade
 */

#include <linux/capability.h>
#include <linux/mount.h>
#include <linux/uaccess.h>
#include "kmemfs.h"

static int kmemfs_ioc_info(struct kmemfs *k, struct kmemfs_info __user *arg)
{
	struct kmemfs_info info = {
		.node = k->region.nid,
		.page_size = PAGE_SIZE,
		.total_pages = k->region.end - k->region.first,
		.free_pages = kmemfs_free_pages(k),
		.file_pages = atomic64_read(&k->file_pages),
		.captured_by_reference = atomic64_read(&k->counter[KMEMFS_CAPTURED_BY_REFERENCE]),
		.captured_shared = atomic64_read(&k->counter[KMEMFS_CAPTURED_SHARED]),
		.captured_copied = atomic64_read(&k->counter[KMEMFS_CAPTURED_COPIED]),
		.spliced_by_reference = atomic64_read(&k->counter[KMEMFS_SPLICED_BY_REFERENCE]),
		.spliced_shared = atomic64_read(&k->counter[KMEMFS_SPLICED_SHARED]),
		.spliced_copied = atomic64_read(&k->counter[KMEMFS_SPLICED_COPIED]),
		.read_installed = atomic64_read(&k->counter[KMEMFS_READ_INSTALLED]),
		.read_copied = atomic64_read(&k->counter[KMEMFS_READ_COPIED]),
		.meta_written = atomic64_read(&k->counter[KMEMFS_META_WRITTEN]),
		.flushed_pages = atomic64_read(&k->counter[KMEMFS_FLUSHED]),
		.dirty = READ_ONCE(k->dirty),
		.version = READ_ONCE(k->version),
		.flags = k->rescue ? KMEMFS_INFO_RESCUE : 0,
		.damaged_pages = min_t(u64, U32_MAX, atomic64_read(&k->counter[KMEMFS_DAMAGED])),
	};

	memcpy(info.uuid, k->kp->header.uuid, sizeof(info.uuid));
	memcpy(info.label, k->kp->header.label, sizeof(info.label));
	mutex_lock(&k->commit_lock);
	info.generation = k->root.generation;
	info.meta_pages = k->root.nr_meta_pages;
	info.sums_pages = k->sums.nr_pages;
	mutex_unlock(&k->commit_lock);
	return copy_to_user(arg, &info, sizeof(info)) ? -EFAULT : 0;
}

static int kmemfs_ioc_upgrade(struct file *file, unsigned long flags)
{
	struct super_block *sb = file_inode(file)->i_sb;
	struct kmemfs *k = KMEMFS_SB(sb);
	int r;

	if (!capable(CAP_SYS_ADMIN))
		return -EPERM;
	if (flags)
		return -EINVAL;
	if (kmemfs_is_v2(k))
		return 0;
	r = mnt_want_write_file(file);
	if (r)
		return r;
	r = kmemfs_upgrade(k);
	if (kmemfs_is_v2(k)) {
		down_write(&sb->s_umount);	/* for s_flags */
		sb->s_flags |= SB_POSIXACL;
		up_write(&sb->s_umount);
	}
	mnt_drop_write_file(file);
	return r;
}

long kmemfs_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	switch (cmd) {
	case KMEMFS_IOC_CAPTURE:
		return kmemfs_ioc_capture(file, (void __user *)arg);
	case KMEMFS_IOC_INFO:
		return kmemfs_ioc_info(kmemfs_of(file_inode(file)), (void __user *)arg);
	case KMEMFS_IOC_UPGRADE:
		return kmemfs_ioc_upgrade(file, arg);
	case KMEMFS_IOC_VERIFY:
		return kmemfs_ioc_verify(file, (void __user *)arg);
	case KMEMFS_IOC_SUM:
		return kmemfs_ioc_sum(file, arg);
	default:
		return -ENOTTY;
	}
}
