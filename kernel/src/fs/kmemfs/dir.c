// SPDX-License-Identifier: GPL-2.0
/*
 * kmemfs: names
 */

/**
 * DOC: directories
 *
 * The dentry cache is the directory, as in tmpfs: each name holds a reference
 * on its dentry from creation to unlink. What a commit writes is not taken from
 * dentries, though: the VFS moves them after ->rename has returned. Each inode
 * has its own record of its parent and name, changed under commit_sem.
 */

#include <linux/slab.h>
#include "kmemfs.h"

/* Leaves with commit_sem held for reading, and with room for an inode, or with neither. */
static int kmemfs_begin_link(struct kmemfs *k, unsigned long ino)
{
	bool again = true;

	for (;;) {
		int r;

		down_read(&k->commit_sem);
		r = kmemfs_reserve_leaf(k, KMEMFS_LEAF(ino));
		if (!r)
			return 0;
		up_read(&k->commit_sem);
		if (r != -ENOSPC || !again || !kmemfs_make_space(k))
			return r;
		again = false;
	}
}

/* A finished inode gets its name: from here on commits have it. Or there is no space for it. */
static int kmemfs_link_new(struct inode *dir, struct dentry *dentry, struct inode *inode)
{
	struct kmemfs *k = kmemfs_of(dir);
	int r = kmemfs_begin_link(k, inode->i_ino);

	if (r) {
		kmemfs_abort_inode(inode);
		return r;
	}
	xa_store(&k->inodes, inode->i_ino, KMEMFS_I(inode), GFP_KERNEL);
	if (S_ISDIR(inode->i_mode))
		inc_nlink(dir);
	kmemfs_dirty_inode(inode, 0);
	kmemfs_touch(dir);
	up_read(&k->commit_sem);
	d_instantiate(dentry, inode);
	dget(dentry);
	return 0;
}

static int kmemfs_create(struct mnt_idmap *idmap, struct inode *dir, struct dentry *dentry,
			 umode_t mode, bool excl)
{
	struct inode *inode = kmemfs_create_inode(idmap, dir, &dentry->d_name, mode | S_IFREG);

	return IS_ERR(inode) ? PTR_ERR(inode) : kmemfs_link_new(dir, dentry, inode);
}

static int kmemfs_mkdir(struct mnt_idmap *idmap, struct inode *dir, struct dentry *dentry,
			umode_t mode)
{
	struct inode *inode = kmemfs_create_inode(idmap, dir, &dentry->d_name, mode | S_IFDIR);

	return IS_ERR(inode) ? PTR_ERR(inode) : kmemfs_link_new(dir, dentry, inode);
}

/* The name goes; the inode stays for those who have it open */
static void kmemfs_forget_name(struct inode *inode)
{
	struct kmemfs *k = kmemfs_of(inode);
	struct kmemfs_inode *ki = KMEMFS_I(inode);

	kmemfs_dirty_inode(inode, 0);	/* before nlink is 0 */
	xa_erase(&k->inodes, inode->i_ino);
	kfree(ki->name);
	ki->name = NULL;
	clear_nlink(inode);
	kmemfs_trees_forget(ki);
	inode_set_ctime_current(inode);
}

static int kmemfs_symlink(struct mnt_idmap *idmap, struct inode *dir, struct dentry *dentry,
			  const char *target)
{
	size_t len = strlen(target);
	struct inode *inode;
	int r;

	if (!len || len >= KMEMFS_PAGE_SIZE)
		return len ? -ENAMETOOLONG : -ENOENT;
	inode = kmemfs_create_inode(idmap, dir, &dentry->d_name, 0777 | S_IFLNK);
	if (IS_ERR(inode))
		return PTR_ERR(inode);
	r = kmemfs_store(inode, target, len);
	if (r) {
		kmemfs_abort_inode(inode);
		return r;
	}
	return kmemfs_link_new(dir, dentry, inode);
}

static int kmemfs_unlink(struct inode *dir, struct dentry *dentry)
{
	struct inode *inode = d_inode(dentry);
	struct kmemfs *k = kmemfs_of(dir);

	down_read(&k->commit_sem);
	kmemfs_forget_name(inode);
	if (S_ISDIR(inode->i_mode))
		drop_nlink(dir);
	kmemfs_touch(dir);
	up_read(&k->commit_sem);
	dput(dentry);
	return 0;
}

static int kmemfs_rmdir(struct inode *dir, struct dentry *dentry)
{
	return simple_empty(dentry) ? kmemfs_unlink(dir, dentry) : -ENOTEMPTY;
}

/* Move the record of @inode; @name becomes the inode's */
static void kmemfs_set_name(struct inode *inode, struct inode *dir, char *name)
{
	struct kmemfs_inode *ki = KMEMFS_I(inode);

	swap(ki->name, name);
	kfree(name);
	ki->parent = dir->i_ino;
	inode_set_ctime_current(inode);
	kmemfs_dirty_inode(inode, 0);
}

static void kmemfs_exchange(struct inode *old_dir, struct dentry *old_dentry,
			    struct inode *new_dir, struct dentry *new_dentry)
{
	struct kmemfs_inode *a = KMEMFS_I(d_inode(old_dentry));
	struct kmemfs_inode *b = KMEMFS_I(d_inode(new_dentry));

	swap(a->name, b->name);
	swap(a->parent, b->parent);
	inode_set_ctime_current(&a->vfs);
	inode_set_ctime_current(&b->vfs);
	kmemfs_dirty_inode(&a->vfs, 0);
	kmemfs_dirty_inode(&b->vfs, 0);
	if (d_is_dir(old_dentry) != d_is_dir(new_dentry)) {
		struct inode *from = d_is_dir(old_dentry) ? old_dir : new_dir;
		struct inode *to = d_is_dir(old_dentry) ? new_dir : old_dir;

		drop_nlink(from);
		inc_nlink(to);
	}
}

static int kmemfs_rename(struct mnt_idmap *idmap, struct inode *old_dir,
			 struct dentry *old_dentry, struct inode *new_dir,
			 struct dentry *new_dentry, unsigned int flags)
{
	struct inode *inode = d_inode(old_dentry), *victim = d_inode(new_dentry);
	struct kmemfs *k = kmemfs_of(old_dir);
	bool is_dir = d_is_dir(old_dentry);
	char *name;

	if (flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE))
		return -EINVAL;
	if (flags & RENAME_EXCHANGE) {
		down_read(&k->commit_sem);
		kmemfs_exchange(old_dir, old_dentry, new_dir, new_dentry);
		goto out;
	}
	if (new_dentry->d_name.len > KMEMFS_NAME_MAX)
		return -ENAMETOOLONG;
	if (!simple_empty(new_dentry))
		return -ENOTEMPTY;
	name = kmemdup_nul(new_dentry->d_name.name, new_dentry->d_name.len, GFP_KERNEL_ACCOUNT);
	if (!name)
		return -ENOMEM;

	down_read(&k->commit_sem);
	if (victim) {
		kmemfs_forget_name(victim);
		if (is_dir)
			drop_nlink(new_dir);
		dput(new_dentry);
	}
	kmemfs_set_name(inode, new_dir, name);
	if (is_dir && old_dir != new_dir) {
		drop_nlink(old_dir);
		inc_nlink(new_dir);
	}
out:
	kmemfs_touch(old_dir);
	if (new_dir != old_dir)
		kmemfs_touch(new_dir);
	up_read(&k->commit_sem);
	return 0;
}

const struct inode_operations kmemfs_dir_iops = {
	.create = kmemfs_create,
	.lookup = simple_lookup,
	.unlink = kmemfs_unlink,
	.symlink = kmemfs_symlink,
	.mkdir = kmemfs_mkdir,
	.rmdir = kmemfs_rmdir,
	.rename = kmemfs_rename,
	.setattr = kmemfs_setattr,
	.getattr = kmemfs_getattr,
};

const struct file_operations kmemfs_dir_fops = {
	.open = dcache_dir_open,
	.release = dcache_dir_close,
	.llseek = dcache_dir_lseek,
	.read = generic_read_dir,
	.iterate_shared = dcache_readdir,
	.fsync = kmemfs_fsync,
	.unlocked_ioctl = kmemfs_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
};
