// SPDX-License-Identifier: GPL-2.0
/*
 * kmemfs: from version 1 of the format to version 2
 */

/**
 * DOC: upgrades
 *
 * A tree's version is told by its root, so an upgrade is one commit, which writes all
 * leaves of the inode table and all file trees anew; a crash leaves the one or the
 * other. Its pages are in the reserve before it begins. If it fails, nothing has
 * changed, and nothing that version 1 cannot hold has been accepted: that is from
 * the moment on when the commit cannot fail for want of anything any more.
 */

#include <linux/sched/mm.h>
#include "kmemfs.h"

static int kmemfs_upgrade_locked(struct kmemfs *k)
{
	struct kmemfs_inode *ki;
	unsigned long n, pages = 0;
	void *v;
	int r;

	down_write(&k->commit_sem);	/* keeps the inodes that are found */
	xa_for_each(&k->inodes, n, ki) {
		spin_lock(&ki->lock);
		pages += kmemfs_upgrade_need(ki);
		spin_unlock(&ki->lock);
		cond_resched();
	}
	up_write(&k->commit_sem);
	r = kmemfs_reserve_trees(k, pages);
	if (r)
		return r;
	xa_for_each(&k->itable.leaves, n, v)
		xa_set_mark(&k->itable.leaves, n, KMEMFS_LEAF_DIRTY);
	r = kmemfs_commit_locked(k, 2);
	kmemfs_unreserve_trees(k, pages);
	return r;
}

/*
 * Write the whole tree anew as one of version 2: one commit, as atomic as any. Return 0,
 * also if it is one already, or an error as kmemfs_commit() does: -ENOSPC if there is
 * no room for a second set of trees.
 */
int kmemfs_upgrade(struct kmemfs *k)
{
	unsigned int flags;
	int r = 0;

	mutex_lock(&k->commit_lock);
	flags = memalloc_nofs_save();
	if (k->root.version < 2)
		r = k->failed ? -EROFS : kmemfs_upgrade_locked(k);
	memalloc_nofs_restore(flags);
	mutex_unlock(&k->commit_lock);
	return r;
}
