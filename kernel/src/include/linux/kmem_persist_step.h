/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * What makes bytes of a device durable, each place by a name, so that it can be
 * told which one did not. Compiles in the kernel and in user space.
 */
#ifndef _LINUX_KMEM_PERSIST_STEP_H
#define _LINUX_KMEM_PERSIST_STEP_H

/**
 * enum kmem_persist_step - write-backs and fences
 * @KMEM_STEP_FS_DATA: write back pages of files
 * @KMEM_STEP_FS_EXTENTS: write back a leaf of an extent tree
 * @KMEM_STEP_FS_INODES: write back a leaf of the inode table
 * @KMEM_STEP_FS_INDEX: write back an inner page of either
 * @KMEM_STEP_FS_BEFORE_ROOT: fence: all that the root leads to comes before it
 * @KMEM_STEP_FS_ROOT: write back the root slot
 * @KMEM_STEP_FS_AFTER_ROOT: fence: the commit is durable
 * @KMEM_STEP_FS_RETIRE: write back the end of the root before
 * @KMEM_STEP_FS_AFTER_RETIRE: fence: what only that root led to may be used again
 * @KMEM_STEP_BLK_DATA: write back the page that gets a block
 * @KMEM_STEP_BLK_BEFORE_ENTRY: fence: the block comes before the entry
 * @KMEM_STEP_BLK_ENTRY: write back the entry of the map
 * @KMEM_STEP_BLK_AFTER_ENTRY: fence: the write is durable
 * @KMEM_STEP_BLK_CLEAR: write back entries of blocks that are discarded
 * @KMEM_STEP_BLK_AFTER_CLEAR: fence: their pages may be used again
 * @KMEM_NR_STEPS: how many these are
 */
enum kmem_persist_step {
	KMEM_STEP_FS_DATA,
	KMEM_STEP_FS_EXTENTS,
	KMEM_STEP_FS_INODES,
	KMEM_STEP_FS_INDEX,
	KMEM_STEP_FS_BEFORE_ROOT,
	KMEM_STEP_FS_ROOT,
	KMEM_STEP_FS_AFTER_ROOT,
	KMEM_STEP_FS_RETIRE,
	KMEM_STEP_FS_AFTER_RETIRE,
	KMEM_STEP_BLK_DATA,
	KMEM_STEP_BLK_BEFORE_ENTRY,
	KMEM_STEP_BLK_ENTRY,
	KMEM_STEP_BLK_AFTER_ENTRY,
	KMEM_STEP_BLK_CLEAR,
	KMEM_STEP_BLK_AFTER_CLEAR,
	KMEM_NR_STEPS,
};

#endif /* _LINUX_KMEM_PERSIST_STEP_H */
