// SPDX-License-Identifier: GPL-2.0
/*
 * kmemfs: an inode in memory, and its record on media
 */

#include <linux/slab.h>
#include "kmemfs.h"

static __le64 kmemfs_to_ns(struct timespec64 ts)
{
	return cpu_to_le64(timespec64_to_ns(&ts));
}

static struct timespec64 kmemfs_from_ns(__le64 ns)
{
	return ns_to_timespec64((s64)le64_to_cpu(ns));
}

static void kmemfs_record_name(struct kmemfs_inode_record *record, const struct kmemfs_name *n)
{
	record->name_len = strlen(n->name);
	memcpy(record->name, n->name, record->name_len);
}

/* Fill a free record with what the commit being written says of an inode */
void kmemfs_write_record(struct kmemfs_inode_record *record, const struct kmemfs_inode *ki)
{
	const struct kmemfs_name *n;
	const struct inode *inode = &ki->vfs;

	n = list_first_entry(&ki->names, struct kmemfs_name, list);
	record->ino = cpu_to_le64(inode->i_ino);
	record->parent = cpu_to_le64(n->parent);
	record->size = cpu_to_le64(S_ISDIR(inode->i_mode) ? 0 : i_size_read(inode));
	record->atime = kmemfs_to_ns(inode_get_atime(inode));
	record->mtime = kmemfs_to_ns(inode_get_mtime(inode));
	record->ctime = kmemfs_to_ns(inode_get_ctime(inode));
	record->btime = kmemfs_to_ns(ki->btime);
	record->extents = cpu_to_le64(ki->new_tree.top);
	record->nr_runs = cpu_to_le64(ki->new_tree.nr_runs);
	record->nr_pages = cpu_to_le64(ki->nr_pages);
	record->mode = cpu_to_le32(inode->i_mode);
	record->uid = cpu_to_le32(from_kuid(&init_user_ns, inode->i_uid));
	record->gid = cpu_to_le32(from_kgid(&init_user_ns, inode->i_gid));
	record->extents_height = cpu_to_le32(ki->new_tree.height);
	record->generation = cpu_to_le32(inode->i_generation);
	if (S_ISCHR(inode->i_mode) || S_ISBLK(inode->i_mode))
		record->rdev = cpu_to_le32(new_encode_dev(inode->i_rdev));
	kmemfs_record_xattrs(ki, record);
	kmemfs_record_name(record, n);
}

/* The same with a further name */
void kmemfs_write_link(struct kmemfs_inode_record *record, const struct kmemfs_name *n)
{
	record->ino = cpu_to_le64(n->slot);
	record->parent = cpu_to_le64(n->parent);
	record->flags = cpu_to_le32(KMEMFS_RECORD_LINK);
	record->target = cpu_to_le64(n->ki->vfs.i_ino);
	kmemfs_record_name(record, n);
}

/* Give a new inode what its record says, which has been verified. 0 or -ENOMEM. */
int kmemfs_read_record(struct kmemfs_inode *ki, const struct kmemfs_inode_record *record)
{
	struct inode *inode = &ki->vfs;
	struct kmemfs_name *n;
	u32 len = le16_to_cpu(record->xattr_len);

	inode->i_uid = make_kuid(&init_user_ns, le32_to_cpu(record->uid));
	inode->i_gid = make_kgid(&init_user_ns, le32_to_cpu(record->gid));
	inode->i_generation = le32_to_cpu(record->generation);
	i_size_write(inode, le64_to_cpu(record->size));
	inode_set_atime_to_ts(inode, kmemfs_from_ns(record->atime));
	inode_set_mtime_to_ts(inode, kmemfs_from_ns(record->mtime));
	inode_set_ctime_to_ts(inode, kmemfs_from_ns(record->ctime));
	ki->btime = kmemfs_from_ns(record->btime);
	ki->tree.top = le64_to_cpu(record->extents);
	ki->tree.height = le32_to_cpu(record->extents_height);
	ki->tree.nr_runs = le64_to_cpu(record->nr_runs);
	ki->max_runs = ki->tree.nr_runs;
	if (S_ISCHR(inode->i_mode) || S_ISBLK(inode->i_mode))
		inode->i_rdev = new_decode_dev(le32_to_cpu(record->rdev));
	ki->xattr_page = le64_to_cpu(record->xattr_page);
	ki->xattrs_lost = ki->xattr_page;	/* until the walk comes to it */
	n = kmemfs_new_name(record->name, record->name_len, le64_to_cpu(record->parent));
	if (!n)
		return -ENOMEM;
	kmemfs_add_name(ki, n);
	return len ? kmemfs_load_xattrs(ki, record->xattr, len) : 0;
}
