// SPDX-License-Identifier: GPL-2.0
/*
 * kmemfs: names
 */

/**
 * DOC: directories
 *
 * The dentry cache is the directory, as in tmpfs: each name holds a reference
 * on its dentry from creation to unlink. What a commit writes is not taken from
 * dentries, though: the VFS moves them after ->rename has returned. Each dentry
 * points to the name that it stands for (name.c), which is changed under commit_sem.
 */

#include <linux/namei.h>
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

/* Commits have the inode from here on. Room for it has been made. */
static void kmemfs_publish_inode(struct kmemfs *k, struct inode *inode)
{
	xa_store(&k->inodes, inode->i_ino, KMEMFS_I(inode), GFP_KERNEL);
	kmemfs_dirty_inode(inode, 0);
}

static void kmemfs_instantiate(struct dentry *dentry, struct kmemfs_name *n)
{
	dentry->d_fsdata = n;
	d_instantiate(dentry, &n->ki->vfs);
	dget(dentry);
}

static struct kmemfs_name *kmemfs_only_name(const struct inode *inode)
{
	return list_first_entry(&KMEMFS_I(inode)->names, struct kmemfs_name, list);
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
	kmemfs_publish_inode(k, inode);
	if (S_ISDIR(inode->i_mode))
		inc_nlink(dir);
	kmemfs_touch(dir);
	up_read(&k->commit_sem);
	kmemfs_instantiate(dentry, kmemfs_only_name(inode));
	return 0;
}

static int kmemfs_make(struct mnt_idmap *idmap, struct inode *dir, struct dentry *dentry,
		       umode_t mode, dev_t rdev)
{
	struct inode *inode = kmemfs_create_inode(idmap, dir, &dentry->d_name, mode, rdev);

	return IS_ERR(inode) ? PTR_ERR(inode) : kmemfs_link_new(dir, dentry, inode);
}

static int kmemfs_create(struct mnt_idmap *idmap, struct inode *dir, struct dentry *dentry,
			 umode_t mode, bool excl)
{
	return kmemfs_make(idmap, dir, dentry, mode | S_IFREG, 0);
}

static int kmemfs_mkdir(struct mnt_idmap *idmap, struct inode *dir, struct dentry *dentry,
			umode_t mode)
{
	return kmemfs_make(idmap, dir, dentry, mode | S_IFDIR, 0);
}

static int kmemfs_mknod(struct mnt_idmap *idmap, struct inode *dir, struct dentry *dentry,
			umode_t mode, dev_t rdev)
{
	if (!kmemfs_is_v2(kmemfs_of(dir)))
		return -EPERM;
	return kmemfs_make(idmap, dir, dentry, mode, rdev);
}

/* A file without a name, which link(2) may give it. Commits do not have it until then. */
static int kmemfs_tmpfile(struct mnt_idmap *idmap, struct inode *dir, struct file *file,
			  umode_t mode)
{
	struct inode *inode;

	if (!kmemfs_is_v2(kmemfs_of(dir)))
		return finish_open_simple(file, -EOPNOTSUPP);
	inode = kmemfs_create_inode(idmap, dir, NULL, mode, 0);
	if (IS_ERR(inode))
		return finish_open_simple(file, PTR_ERR(inode));
	d_tmpfile(file, inode);
	kmemfs_trees_forget(KMEMFS_I(inode));
	return finish_open_simple(file, 0);
}

static int kmemfs_symlink(struct mnt_idmap *idmap, struct inode *dir, struct dentry *dentry,
			  const char *target)
{
	size_t len = strlen(target);
	struct inode *inode;
	int r;

	if (!len || len >= KMEMFS_PAGE_SIZE)
		return len ? -ENAMETOOLONG : -ENOENT;
	inode = kmemfs_create_inode(idmap, dir, &dentry->d_name, 0777 | S_IFLNK, 0);
	if (IS_ERR(inode))
		return PTR_ERR(inode);
	r = kmemfs_store(inode, target, len);
	if (r) {
		kmemfs_abort_inode(inode);
		return r;
	}
	return kmemfs_link_new(dir, dentry, inode);
}

/* Give @inode, which has one, a further name with a number of its own */
static int kmemfs_link_further(struct inode *inode, struct kmemfs_name *n)
{
	struct kmemfs *k = kmemfs_of(inode);
	int slot, r = kmemfs_charge_table(k, KMEMFS_NAME_BYTES);

	if (r)
		return r;
	slot = ida_alloc_min(&k->inos, KMEMFS_ROOT_INO + 1, GFP_KERNEL);
	if (slot < 0) {
		kmemfs_uncharge_table(k, KMEMFS_NAME_BYTES);
		return slot;
	}
	r = xa_reserve(&k->links, slot, GFP_KERNEL);
	if (!r)
		r = kmemfs_begin_link(k, slot);
	if (r) {
		xa_release(&k->links, slot);
		kmemfs_free_slot(k, slot);
		return r;
	}
	n->slot = slot;
	xa_store(&k->links, slot, n, GFP_KERNEL);
	kmemfs_add_name(KMEMFS_I(inode), n);
	inc_nlink(inode);
	kmemfs_dirty_leaf(k, slot);
	return 0;
}

/* Give @inode its first name: it has been without one since it was made */
static int kmemfs_link_first(struct inode *inode, struct kmemfs_name *n)
{
	struct kmemfs_inode *ki = KMEMFS_I(inode);
	struct kmemfs *k = kmemfs_of(inode);
	bool again = true;
	int r;

	for (;;) {
		r = kmemfs_begin_link(k, inode->i_ino);
		if (r)
			return r;
		inc_nlink(inode);
		r = kmemfs_trees_adopt(ki);
		if (!r)
			break;
		drop_nlink(inode);
		kmemfs_trees_forget(ki);
		kmemfs_dirty_leaf(k, inode->i_ino);	/* it may have no inode */
		up_read(&k->commit_sem);
		if (!again || !kmemfs_make_space(k))
			return r;
		again = false;
	}
	kmemfs_add_name(ki, n);
	kmemfs_publish_inode(k, inode);
	return 0;
}

static int kmemfs_link(struct dentry *old_dentry, struct inode *dir, struct dentry *dentry)
{
	struct inode *inode = d_inode(old_dentry);
	struct kmemfs *k = kmemfs_of(dir);
	struct kmemfs_name *n;
	int r;

	if (!kmemfs_is_v2(k))
		return -EPERM;
	if (inode->i_nlink >= KMEMFS_LINK_MAX)
		return -EMLINK;
	if (dentry->d_name.len > KMEMFS_NAME_MAX)
		return -ENAMETOOLONG;
	n = kmemfs_new_name(dentry->d_name.name, dentry->d_name.len, dir->i_ino);
	if (!n)
		return -ENOMEM;
	if (inode->i_nlink)
		r = kmemfs_link_further(inode, n);
	else
		r = kmemfs_link_first(inode, n);
	if (r) {
		kmemfs_free_name(n);
		return r;
	}
	inode_set_ctime_current(inode);
	kmemfs_dirty_inode(inode, 0);
	kmemfs_touch(dir);
	up_read(&k->commit_sem);
	ihold(inode);
	kmemfs_instantiate(dentry, n);
	return 0;
}

/* The name goes; without any the inode stays for those who have it open */
static void kmemfs_forget_name(struct dentry *dentry)
{
	struct inode *inode = d_inode(dentry);
	struct kmemfs_inode *ki = KMEMFS_I(inode);
	struct kmemfs *k = kmemfs_of(inode);

	inode_set_ctime_current(inode);
	kmemfs_dirty_inode(inode, 0);	/* before nlink is 0 */
	kmemfs_drop_name(k, dentry->d_fsdata);
	dentry->d_fsdata = NULL;
	if (!list_empty(&ki->names)) {
		drop_nlink(inode);
		return;
	}
	xa_erase(&k->inodes, inode->i_ino);
	clear_nlink(inode);
	kmemfs_trees_forget(ki);
}

static int kmemfs_unlink(struct inode *dir, struct dentry *dentry)
{
	struct kmemfs *k = kmemfs_of(dir);

	down_read(&k->commit_sem);
	kmemfs_forget_name(dentry);
	if (d_is_dir(dentry))
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

/* The name differs from the last commit's, and so does its inode's ctime */
static void kmemfs_name_changed(struct kmemfs *k, struct kmemfs_name *n)
{
	kmemfs_dirty_leaf(k, n->slot);
	inode_set_ctime_current(&n->ki->vfs);
	kmemfs_dirty_inode(&n->ki->vfs, 0);
}

static void kmemfs_exchange(struct inode *old_dir, struct dentry *old_dentry,
			    struct inode *new_dir, struct dentry *new_dentry)
{
	struct kmemfs_name *a = old_dentry->d_fsdata, *b = new_dentry->d_fsdata;
	struct kmemfs *k = kmemfs_of(old_dir);

	down_read(&k->commit_sem);
	swap(a->name, b->name);
	swap(a->parent, b->parent);
	kmemfs_name_changed(k, a);
	kmemfs_name_changed(k, b);
	if (d_is_dir(old_dentry) != d_is_dir(new_dentry)) {
		struct inode *from = d_is_dir(old_dentry) ? old_dir : new_dir;
		struct inode *to = d_is_dir(old_dentry) ? new_dir : old_dir;

		drop_nlink(from);
		inc_nlink(to);
	}
	kmemfs_touch(old_dir);
	kmemfs_touch(new_dir);
	up_read(&k->commit_sem);
}

/* The name moves, to the place of another one if there is. Caller holds commit_sem. */
static void kmemfs_move(struct inode *old_dir, struct dentry *old_dentry,
			struct inode *new_dir, struct dentry *new_dentry, char **name)
{
	struct kmemfs_name *n = old_dentry->d_fsdata;
	bool is_dir = d_is_dir(old_dentry);

	if (d_really_is_positive(new_dentry)) {
		kmemfs_forget_name(new_dentry);
		if (is_dir)
			drop_nlink(new_dir);
		dput(new_dentry);
	}
	swap(n->name, *name);
	n->parent = new_dir->i_ino;
	kmemfs_name_changed(kmemfs_of(old_dir), n);
	if (is_dir && old_dir != new_dir) {
		drop_nlink(old_dir);
		inc_nlink(new_dir);
	}
	kmemfs_touch(old_dir);
	kmemfs_touch(new_dir);
}

/* What an overlay finds where the name was: in the same commit as the move */
static int kmemfs_move_whiteout(struct mnt_idmap *idmap, struct inode *old_dir,
				struct dentry *old_dentry, struct inode *new_dir,
				struct dentry *new_dentry, char **name)
{
	struct kmemfs *k = kmemfs_of(old_dir);
	struct dentry *dentry;
	struct inode *inode;
	int r;

	dentry = d_alloc(old_dentry->d_parent, &old_dentry->d_name);
	if (!dentry)
		return -ENOMEM;
	inode = kmemfs_create_inode(idmap, old_dir, &old_dentry->d_name, S_IFCHR | WHITEOUT_MODE,
				    WHITEOUT_DEV);
	r = PTR_ERR_OR_ZERO(inode);
	if (!r) {
		r = kmemfs_begin_link(k, inode->i_ino);
		if (r)
			kmemfs_abort_inode(inode);
	}
	if (!r) {
		kmemfs_publish_inode(k, inode);
		kmemfs_move(old_dir, old_dentry, new_dir, new_dentry, name);
		up_read(&k->commit_sem);
		kmemfs_instantiate(dentry, kmemfs_only_name(inode));
		/* A lookup finds this one or the old one until that moves; either will do. */
		d_rehash(dentry);
	}
	dput(dentry);
	return r;
}

static int kmemfs_rename(struct mnt_idmap *idmap, struct inode *old_dir,
			 struct dentry *old_dentry, struct inode *new_dir,
			 struct dentry *new_dentry, unsigned int flags)
{
	struct kmemfs *k = kmemfs_of(old_dir);
	char *name;
	int r = 0;

	if (flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT))
		return -EINVAL;
	if ((flags & RENAME_WHITEOUT) && !kmemfs_is_v2(k))
		return -EINVAL;
	if (flags & RENAME_EXCHANGE) {
		kmemfs_exchange(old_dir, old_dentry, new_dir, new_dentry);
		return 0;
	}
	if (new_dentry->d_name.len > KMEMFS_NAME_MAX)
		return -ENAMETOOLONG;
	if (!simple_empty(new_dentry))
		return -ENOTEMPTY;
	name = kmemdup_nul(new_dentry->d_name.name, new_dentry->d_name.len, GFP_KERNEL_ACCOUNT);
	if (!name)
		return -ENOMEM;
	if (flags & RENAME_WHITEOUT) {
		r = kmemfs_move_whiteout(idmap, old_dir, old_dentry, new_dir, new_dentry, &name);
	} else {
		down_read(&k->commit_sem);
		kmemfs_move(old_dir, old_dentry, new_dir, new_dentry, &name);
		up_read(&k->commit_sem);
	}
	kfree(name);
	return r;
}

const struct inode_operations kmemfs_dir_iops = {
	.create = kmemfs_create,
	.lookup = simple_lookup,
	.link = kmemfs_link,
	.unlink = kmemfs_unlink,
	.symlink = kmemfs_symlink,
	.mkdir = kmemfs_mkdir,
	.rmdir = kmemfs_rmdir,
	.mknod = kmemfs_mknod,
	.rename = kmemfs_rename,
	.tmpfile = kmemfs_tmpfile,
	.setattr = kmemfs_setattr,
	.getattr = kmemfs_getattr,
	.listxattr = kmemfs_listxattr,
	.get_inode_acl = kmemfs_get_inode_acl,
	.set_acl = kmemfs_set_acl,
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
