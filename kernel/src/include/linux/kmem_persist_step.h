/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * What makes bytes of a device durable, each place by a name, so that it can be
 * told which one did not. Compiles in the kernel and in user space.
 */
#ifndef _LINUX_KMEM_PERSIST_STEP_H
#define _LINUX_KMEM_PERSIST_STEP_H

/**
 * enum kmem_persist_step - write-backs, fences, requests to the device, and orders
 * @KMEM_STEP_FS_DATA: write back pages of files
 * @KMEM_STEP_FS_EXTENTS: write back a leaf of an extent tree
 * @KMEM_STEP_FS_SEGMENT: write back a leaf of a file's tree of version 2
 * @KMEM_STEP_FS_NODE: write back an inner page of one
 * @KMEM_STEP_FS_XATTRS: write back the extended attributes of an inode
 * @KMEM_STEP_FS_INODES: write back a leaf of the inode table
 * @KMEM_STEP_FS_SUMS: write back a leaf of the table of checksums
 * @KMEM_STEP_FS_INDEX: write back an inner page of a table or an extent tree
 * @KMEM_STEP_FS_BEFORE_ROOT: fence: all that the root leads to comes before it
 * @KMEM_STEP_FS_ROOT: write back the root slot
 * @KMEM_STEP_FS_AFTER_ROOT: fence: the commit is durable
 * @KMEM_STEP_FS_RETIRE: write back the end of the root before
 * @KMEM_STEP_FS_AFTER_RETIRE: fence: what only that root led to may be used again
 * @KMEM_STEP_FS_ATTACH_ROOT: write back the root that rules, when a device is attached
 * @KMEM_STEP_FS_AFTER_ATTACH_ROOT: fence: it is durable before an older one ends
 * @KMEM_STEP_BLK_DATA: write back the page that gets a block
 * @KMEM_STEP_BLK_BEFORE_ENTRY: fence: the block comes before the entry
 * @KMEM_STEP_BLK_ENTRY: write back the entry of the map
 * @KMEM_STEP_BLK_AFTER_ENTRY: fence: the write is durable
 * @KMEM_STEP_BLK_CLEAR: write back entries of blocks that are discarded
 * @KMEM_STEP_BLK_AFTER_CLEAR: fence: their pages may be used again
 * @KMEM_STEP_SYNC_FS_TREE: ask the device, before the root is written
 * @KMEM_STEP_SYNC_FS_ROOT: after KMEM_STEP_FS_AFTER_ROOT
 * @KMEM_STEP_SYNC_FS_RETIRE: after KMEM_STEP_FS_AFTER_RETIRE
 * @KMEM_STEP_SYNC_FS_ATTACH_ROOT: after KMEM_STEP_FS_AFTER_ATTACH_ROOT
 * @KMEM_STEP_SYNC_FS_ATTACH_RETIRE: after the end of an older root that was there at attach
 * @KMEM_NR_STEPS: one more than the last of them
 * @KMEM_ORDER_FS_DATA_FIRST: data is written back before the root
 * @KMEM_ORDER_FS_ROOT_FIRST: the root is durable before the one before ends
 * @KMEM_ORDER_FS_KEEP_META: metadata of the commit before stays until then
 * @KMEM_ORDER_FS_KEEP_DATA: so does data that only that one has
 * @KMEM_ORDER_FS_ATTACH_RETIRE: an older root ends before others get its pages
 * @KMEM_ORDER_BLK_KEEP_OLD: the old page of a block stays until the write is durable
 * @KMEM_ORDER_BLK_KEEP_CLEARED: so do those of discarded blocks
 * @KMEM_NR_ORDERS: one more than the last order
 *
 * Orders are rules about when something else is done. Like steps, they are named
 * so that tests can break them, see kmem_persist_without().
 */
enum kmem_persist_step {
	KMEM_STEP_FS_DATA = 1,
	KMEM_STEP_FS_EXTENTS,
	KMEM_STEP_FS_SEGMENT,
	KMEM_STEP_FS_NODE,
	KMEM_STEP_FS_XATTRS,
	KMEM_STEP_FS_INODES,
	KMEM_STEP_FS_SUMS,
	KMEM_STEP_FS_INDEX,
	KMEM_STEP_FS_BEFORE_ROOT,
	KMEM_STEP_FS_ROOT,
	KMEM_STEP_FS_AFTER_ROOT,
	KMEM_STEP_FS_RETIRE,
	KMEM_STEP_FS_AFTER_RETIRE,
	KMEM_STEP_FS_ATTACH_ROOT,
	KMEM_STEP_FS_AFTER_ATTACH_ROOT,
	KMEM_STEP_BLK_DATA,
	KMEM_STEP_BLK_BEFORE_ENTRY,
	KMEM_STEP_BLK_ENTRY,
	KMEM_STEP_BLK_AFTER_ENTRY,
	KMEM_STEP_BLK_CLEAR,
	KMEM_STEP_BLK_AFTER_CLEAR,
	KMEM_STEP_SYNC_FS_TREE,
	KMEM_STEP_SYNC_FS_ROOT,
	KMEM_STEP_SYNC_FS_RETIRE,
	KMEM_STEP_SYNC_FS_ATTACH_ROOT,
	KMEM_STEP_SYNC_FS_ATTACH_RETIRE,
	KMEM_NR_STEPS,
	KMEM_ORDER_FS_DATA_FIRST = KMEM_NR_STEPS,
	KMEM_ORDER_FS_ROOT_FIRST,
	KMEM_ORDER_FS_KEEP_META,
	KMEM_ORDER_FS_KEEP_DATA,
	KMEM_ORDER_FS_ATTACH_RETIRE,
	KMEM_ORDER_BLK_KEEP_OLD,
	KMEM_ORDER_BLK_KEEP_CLEARED,
	KMEM_NR_ORDERS,
};

#endif /* _LINUX_KMEM_PERSIST_STEP_H */
