// SPDX-License-Identifier: GPL-2.0
/*
 * kmemfs: the names of an inode
 */

/**
 * DOC: names
 *
 * Each name of an inode is a struct kmemfs_name, to which its dentry points. The
 * first one is in the inode's record; each further one has a record of its own,
 * whose number (slot) is taken from those of inodes. When the first one goes,
 * another takes its place there, and gives its slot back. The root of version 1
 * knows no further names, and so none is made.
 *
 * The names of an inode that is no directory change under its i_rwsem, those of
 * directories under s_vfs_rename_mutex or their parent's; all of them with commit_sem
 * held for reading.
 */

#include <linux/slab.h>
#include "kmemfs.h"

/* A name of nobody; NULL: no memory. It is not accounted for. */
struct kmemfs_name *kmemfs_new_name(const char *name, size_t len, u64 parent)
{
	struct kmemfs_name *n = kzalloc(sizeof(*n), GFP_KERNEL_ACCOUNT);

	if (!n)
		return NULL;
	n->parent = parent;
	n->name = kmemdup_nul(name, len, GFP_KERNEL_ACCOUNT);
	if (!n->name) {
		kfree(n);
		return NULL;
	}
	INIT_LIST_HEAD(&n->list);
	return n;
}

void kmemfs_free_name(struct kmemfs_name *n)
{
	if (n)
		kfree(n->name);
	kfree(n);
}

/* The first name of an inode has the inode's own number; a further one brings its slot. */
void kmemfs_add_name(struct kmemfs_inode *ki, struct kmemfs_name *n)
{
	n->ki = ki;
	if (list_empty(&ki->names))
		n->slot = ki->vfs.i_ino;
	list_add_tail(&n->list, &ki->names);
}

/* The slot of a further name is free again, and what it took is given back */
void kmemfs_free_slot(struct kmemfs *k, unsigned long slot)
{
	ida_free(&k->inos, slot);
	kmemfs_uncharge_table(k, KMEMFS_NAME_BYTES);
}

/* The name goes; was it the first one, the next one takes its place in the inode's record */
void kmemfs_drop_name(struct kmemfs *k, struct kmemfs_name *n)
{
	struct kmemfs_inode *ki = n->ki;
	unsigned long ino = ki->vfs.i_ino, slot = n->slot;

	list_del(&n->list);
	kmemfs_free_name(n);
	if (slot == ino && !list_empty(&ki->names)) {
		n = list_first_entry(&ki->names, struct kmemfs_name, list);
		swap(slot, n->slot);
	}
	if (slot == ino)
		return;
	xa_erase(&k->links, slot);
	kmemfs_dirty_leaf(k, slot);
	kmemfs_free_slot(k, slot);
}

/* For messages. Caller keeps names from changing. */
const char *kmemfs_name_of(struct kmemfs_inode *ki)
{
	const struct kmemfs_name *n;

	n = list_first_entry_or_null(&ki->names, struct kmemfs_name, list);
	return n ? n->name : "";
}
