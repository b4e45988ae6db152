// SPDX-License-Identifier: GPL-2.0
/*
 * kmemfs: inodes in memory, their attributes, their end
 */

#define pr_fmt(fmt) "kmemfs: " fmt

#include <linux/pagemap.h>
#include <linux/posix_acl.h>
#include <linux/slab.h>
#include "kmemfs.h"

/* The inode's or name's record of that number differs from the last commit's */
void kmemfs_dirty_leaf(struct kmemfs *k, unsigned long number)
{
	xa_set_mark(&k->itable.leaves, KMEMFS_LEAF(number), KMEMFS_LEAF_DIRTY);
	kmemfs_changed(k);
}

/* The inode differs from the last commit's. May be called under mmap_lock. */
void kmemfs_dirty_inode(struct inode *inode, int flags)
{
	if (inode->i_nlink)
		kmemfs_dirty_leaf(kmemfs_of(inode), inode->i_ino);
}

/* An inode of a given number that nobody can find yet */
struct inode *kmemfs_new_inode(struct super_block *sb, struct mnt_idmap *idmap,
			       const struct inode *dir, umode_t mode, u64 ino)
{
	struct inode *inode = new_inode(sb);

	if (!inode)
		return NULL;
	inode->i_ino = ino;
	insert_inode_hash(inode);	/* else nobody would write back its folios */
	inode->i_mapping->a_ops = &kmemfs_aops;
	mapping_set_gfp_mask(inode->i_mapping, GFP_HIGHUSER);
	inode_init_owner(idmap, inode, dir, mode);
	switch (mode & S_IFMT) {
	case S_IFREG:
		inode->i_op = &kmemfs_file_iops;
		inode->i_fop = &kmemfs_file_fops;
		break;
	case S_IFDIR:
		inode->i_op = &kmemfs_dir_iops;
		inode->i_fop = &kmemfs_dir_fops;
		inc_nlink(inode);
		break;
	case S_IFLNK:
		inode->i_op = &kmemfs_symlink_iops;
		break;
	default:
		inode->i_op = &kmemfs_file_iops;
		init_special_inode(inode, mode, 0);
		break;
	}
	return inode;
}

/* Give up an inode that no name leads to yet */
void kmemfs_abort_inode(struct inode *inode)
{
	xa_release(&kmemfs_of(inode)->inodes, inode->i_ino);
	clear_nlink(inode);
	iput(inode);
}

/*
 * A new inode called @name in @dir, or with no name yet (NULL); unknown to commits
 * until its number is stored in k->inodes, which cannot fail. Caller holds @dir's
 * i_rwsem, or, without a name, nothing.
 */
struct inode *kmemfs_create_inode(struct mnt_idmap *idmap, struct inode *dir,
				  const struct qstr *name, umode_t mode, dev_t rdev)
{
	struct kmemfs *k = kmemfs_of(dir);
	struct kmemfs_name *n;
	struct kmemfs_inode *ki;
	struct inode *inode;
	int ino, r;

	if (name && name->len > KMEMFS_NAME_MAX)
		return ERR_PTR(-ENAMETOOLONG);
	r = kmemfs_charge_table(k, KMEMFS_INODE_BYTES);
	if (r)
		return ERR_PTR(r);
	ino = ida_alloc_min(&k->inos, KMEMFS_ROOT_INO + 1, GFP_KERNEL);
	if (ino < 0) {
		kmemfs_uncharge_table(k, KMEMFS_INODE_BYTES);
		return ERR_PTR(ino);
	}
	inode = kmemfs_new_inode(dir->i_sb, idmap, dir, mode, ino);
	if (!inode) {
		ida_free(&k->inos, ino);
		kmemfs_uncharge_table(k, KMEMFS_INODE_BYTES);
		return ERR_PTR(-ENOMEM);
	}
	inode->i_generation = get_random_u32();
	ki = KMEMFS_I(inode);
	ki->btime = simple_inode_init_ts(inode);
	inode->i_rdev = rdev;
	if (name) {
		r = -ENOMEM;
		n = kmemfs_new_name(name->name, name->len, dir->i_ino);
		if (!n)
			goto err;
		kmemfs_add_name(ki, n);
	}
	r = xa_reserve(&k->inodes, ino, GFP_KERNEL);
	if (!r)
		r = kmemfs_init_xattrs(inode, dir, name);
	if (r)
		goto err;
	return inode;
err:
	kmemfs_abort_inode(inode);
	return ERR_PTR(r);
}

void kmemfs_evict_inode(struct inode *inode)
{
	struct kmemfs *k = kmemfs_of(inode);
	struct kmemfs_inode *ki = KMEMFS_I(inode);
	struct kmemfs_name *n, *next;

	/* at umount; who has pinned pages of a mapping may make them dirty when he likes */
	if (inode->i_nlink && mapping_tagged(&inode->i_data, PAGECACHE_TAG_DIRTY))
		pr_err("%s: inode %lu (%s): what was stored through a mapping is lost: no space\n",
		       k->kp->name, inode->i_ino, kmemfs_name_of(ki));
	truncate_inode_pages_final(&inode->i_data);
	clear_inode(inode);
	kmemfs_drop_xattrs(ki);
	kmemfs_drop_all(ki);
	list_for_each_entry_safe(n, next, &ki->names, list)
		kmemfs_free_name(n);
	kmemfs_uncharge_table(k, KMEMFS_INODE_BYTES);
	if (!inode->i_nlink) {
		xa_release(&k->inodes, inode->i_ino);	/* one that never had a name */
		ida_free(&k->inos, inode->i_ino);
	}
}

/* A change of the content, for mtime and ctime */
void kmemfs_touch(struct inode *inode)
{
	inode_set_mtime_to_ts(inode, inode_set_ctime_current(inode));
	kmemfs_dirty_inode(inode, 0);
}

/*
 * What read(2) installed in private mappings of the file while it was still longer
 * goes; it looks at the size under the lock of each page table.
 */
void kmemfs_unmap_beyond(struct inode *inode, loff_t size)
{
	unmap_mapping_range(inode->i_mapping, round_up(size, PAGE_SIZE), 0, 1);
}

/*
 * Make the file shorter, which is planned with no runs. The caller has removed the
 * folios of what is cut off, and zeroed the rest of the last page.
 */
void kmemfs_cut(struct inode *inode, loff_t size)
{
	/* no page beyond the end, in no commit */
	kmemfs_begin_planned(inode, 0);
	kmemfs_drop_range(KMEMFS_I(inode), DIV_ROUND_UP_ULL(size, PAGE_SIZE),
			  KMEMFS_MAX_FILE_PAGES);
	i_size_write(inode, size);
	kmemfs_touch(inode);
	kmemfs_end(inode, 0);
	kmemfs_unmap_beyond(inode, size);
}

static void kmemfs_grow(struct inode *inode, loff_t size)
{
	struct kmemfs *k = kmemfs_of(inode);

	down_read(&k->commit_sem);
	i_size_write(inode, size);
	kmemfs_touch(inode);
	up_read(&k->commit_sem);
}

/*
 * Change the size; what is cut off is gone, what is added is a hole. Caller holds
 * i_rwsem and invalidate_lock.
 */
int kmemfs_truncate_locked(struct inode *inode, loff_t size)
{
	loff_t old = i_size_read(inode), end = min(size, old);
	enum kmemfs_change what = KMEMFS_ADDS;
	struct folio *folio = NULL;
	int r;

	r = inode_newsize_ok(inode, size);
	if (r || size == old)
		return r;
	if (size < old)
		r = kmemfs_plan(inode, 0, size ? KMEMFS_FREES : KMEMFS_FREES_ALL);
	if (r)
		return r;
	if (kmemfs_any_in_range(KMEMFS_I(inode), DIV_ROUND_UP_ULL(end, PAGE_SIZE),
				DIV_ROUND_UP_ULL(old, PAGE_SIZE)))
		what = KMEMFS_FREES;
	/* what lies beyond the end must read as zero if the file grows, now or later */
	if (!PAGE_ALIGNED(end)) {
		folio = kmemfs_lock_cached(inode, end >> PAGE_SHIFT);
		r = PTR_ERR_OR_ZERO(folio);
	}
	if (!r && size < old)
		r = kmemfs_zero_tail(inode, size, what);
	if (r) {
		if (size < old)
			kmemfs_unplan(inode, 0);
	} else {
		truncate_pagecache(inode, round_up(end, PAGE_SIZE));
		if (size < old)
			kmemfs_cut(inode, size);
		else
			kmemfs_grow(inode, size);
	}
	if (!IS_ERR(folio))
		kmemfs_unlock_cached(inode, folio);
	return r;
}

/* Caller holds i_rwsem */
int kmemfs_truncate(struct inode *inode, loff_t size)
{
	int r;

	filemap_invalidate_lock(inode->i_mapping);
	r = kmemfs_truncate_locked(inode, size);
	filemap_invalidate_unlock(inode->i_mapping);
	return r;
}

int kmemfs_setattr(struct mnt_idmap *idmap, struct dentry *dentry, struct iattr *attr)
{
	struct inode *inode = d_inode(dentry);
	struct kmemfs *k = kmemfs_of(inode);
	int r;

	r = setattr_prepare(idmap, dentry, attr);
	if (r)
		return r;
	if (attr->ia_valid & ATTR_SIZE) {
		r = kmemfs_writable(inode);
		if (!r)
			r = kmemfs_truncate(inode, attr->ia_size);
		if (r)
			return r;
	}
	if (attr->ia_valid & ATTR_MODE) {
		r = kmemfs_chmod_acl(idmap, inode, attr);
		if (r)
			return min(r, 0);
	}
	down_read(&k->commit_sem);
	setattr_copy(idmap, inode, attr);
	kmemfs_dirty_inode(inode, 0);
	up_read(&k->commit_sem);
	return 0;
}

int kmemfs_getattr(struct mnt_idmap *idmap, const struct path *path, struct kstat *stat,
		   u32 request_mask, unsigned int query_flags)
{
	struct inode *inode = d_inode(path->dentry);

	generic_fillattr(idmap, request_mask, inode, stat);
	if (request_mask & STATX_BTIME) {
		stat->btime = KMEMFS_I(inode)->btime;
		stat->result_mask |= STATX_BTIME;
	}
	return 0;
}

static void kmemfs_free_link(void *link)
{
	kfree(link);
}

/* The target is the file's one page; it is short and seldom read: make a copy each time */
static const char *kmemfs_get_link(struct dentry *dentry, struct inode *inode,
				   struct delayed_call *done)
{
	struct kmemfs *k = kmemfs_of(inode);
	bool damaged = KMEMFS_I(inode)->damaged;
	char *link;
	u32 page;

	if (!dentry)
		return ERR_PTR(-ECHILD);
	link = kzalloc(inode->i_size + 1, GFP_KERNEL);
	if (!link)
		return ERR_PTR(-ENOMEM);
	kmemfs_get_pages(KMEMFS_I(inode), 0, 1, &page);
	if (page) {
		damaged = kmemfs_damaged(k, page) ||
			  copy_mc_to_kernel(link, kmemfs_addr(k, page), inode->i_size);
		pool_page_put(&k->region, page);
	}
	if (damaged) {
		kfree(link);
		return ERR_PTR(-EIO);
	}
	set_delayed_call(done, kmemfs_free_link, link);
	return link;
}

/* Special inodes have the same */
const struct inode_operations kmemfs_file_iops = {
	.setattr = kmemfs_setattr,
	.getattr = kmemfs_getattr,
	.listxattr = kmemfs_listxattr,
	.get_inode_acl = kmemfs_get_inode_acl,
	.set_acl = kmemfs_set_acl,
};

const struct inode_operations kmemfs_symlink_iops = {
	.get_link = kmemfs_get_link,
	.setattr = kmemfs_setattr,
	.getattr = kmemfs_getattr,
	.listxattr = kmemfs_listxattr,
};
