/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * The log of what the types of DAX KMEM make durable, for tests: see
 * drivers/dax/kmem_persist_record.c. Compiles in the kernel and in user space.
 *
 * A head, then records, each followed by @len bytes and padded to eight. All is
 * little-endian.
 */
#ifndef _LINUX_KMEM_PERSIST_RECORD_H
#define _LINUX_KMEM_PERSIST_RECORD_H

#ifndef __KERNEL__
#include <stddef.h>
#endif
#include <linux/kmem_persist_step.h>
#include <linux/types.h>

#define KMEM_RECORD_MAGIC	0x4345524b	/* "KREC" */
#define KMEM_RECORD_VERSION	1

/**
 * struct kmem_record_log - how a log begins
 * @magic: KMEM_RECORD_MAGIC
 * @version: KMEM_RECORD_VERSION
 * @used: bytes of records
 * @lost: records that did not fit; nothing is recorded after the first of them
 * @reserved: zero
 */
struct kmem_record_log {
	__le32	magic;
	__le32	version;
	__le64	used;
	__le64	lost;
	__u8	reserved[40];
};

/**
 * enum kmem_record_kind - what a record tells
 * @KMEM_RECORD_ATTACH: a device is being attached; struct kmem_record_device
 * @KMEM_RECORD_HEAD: what its head holds at that moment
 * @KMEM_RECORD_WRITE_BACK: bytes that were written back, in whole cache lines
 * @KMEM_RECORD_FENCE: what the task has written back before is durable, unless the
 *	device has to be asked
 * @KMEM_RECORD_FREE: the store let go of a page, which may hold anything now
 * @KMEM_RECORD_FREE_REST: so may all pages that nothing durable leads to
 * @KMEM_RECORD_MARK: a word of user space
 * @KMEM_RECORD_SYNC: the device is asked to make durable what was written back
 */
enum kmem_record_kind {
	KMEM_RECORD_ATTACH = 1,
	KMEM_RECORD_HEAD,
	KMEM_RECORD_WRITE_BACK,
	KMEM_RECORD_FENCE,
	KMEM_RECORD_FREE,
	KMEM_RECORD_FREE_REST,
	KMEM_RECORD_MARK,
	KMEM_RECORD_SYNC,
};

/* It was not done, as the parameter "without" had it so. */
#define KMEM_RECORD_WITHOUT	1

/**
 * struct kmem_record - one record
 * @kind: enum kmem_record_kind
 * @step: enum kmem_persist_step, of write-backs, fences and requests
 * @len: bytes that follow
 * @at: where on the device, in bytes
 * @task: who did it
 * @node: of the device
 * @flags: KMEM_RECORD_WITHOUT
 */
struct kmem_record {
	__le16	kind;
	__le16	step;
	__le32	len;
	__le64	at;
	__le32	task;
	__le16	node;
	__le16	flags;
};

/**
 * struct kmem_record_device - the device that is attached
 * @nr_pages: of the device
 * @first: first page that is memory
 * @end: one past the last
 * @type: enum kmem_persist_type_id
 * @async: 1: the device has to be asked, see KMEM_RECORD_SYNC
 */
struct kmem_record_device {
	__le64	nr_pages;
	__le64	first;
	__le64	end;
	__le64	type;
	__le64	async;
};

/* What the parameter "without" calls it; NULL: there is no such step */
static inline const char *kmem_persist_step_name(unsigned int step)
{
	switch (step) {
	case KMEM_STEP_FS_DATA:			return "fs-data";
	case KMEM_STEP_FS_EXTENTS:		return "fs-extents";
	case KMEM_STEP_FS_SEGMENT:		return "fs-segment";
	case KMEM_STEP_FS_NODE:			return "fs-node";
	case KMEM_STEP_FS_XATTRS:		return "fs-xattrs";
	case KMEM_STEP_FS_INODES:		return "fs-inodes";
	case KMEM_STEP_FS_SUMS:			return "fs-sums";
	case KMEM_STEP_FS_INDEX:		return "fs-index";
	case KMEM_STEP_FS_BEFORE_ROOT:		return "fs-before-root";
	case KMEM_STEP_FS_ROOT:			return "fs-root";
	case KMEM_STEP_FS_AFTER_ROOT:		return "fs-after-root";
	case KMEM_STEP_FS_RETIRE:		return "fs-retire";
	case KMEM_STEP_FS_AFTER_RETIRE:		return "fs-after-retire";
	case KMEM_STEP_FS_ATTACH_ROOT:		return "fs-attach-root";
	case KMEM_STEP_FS_AFTER_ATTACH_ROOT:	return "fs-attach-after-root";
	case KMEM_STEP_BLK_DATA:		return "blk-data";
	case KMEM_STEP_BLK_BEFORE_ENTRY:	return "blk-before-entry";
	case KMEM_STEP_BLK_ENTRY:		return "blk-entry";
	case KMEM_STEP_BLK_AFTER_ENTRY:		return "blk-after-entry";
	case KMEM_STEP_BLK_CLEAR:		return "blk-clear";
	case KMEM_STEP_BLK_AFTER_CLEAR:		return "blk-after-clear";
	case KMEM_STEP_SYNC_FS_TREE:		return "sync-fs-tree";
	case KMEM_STEP_SYNC_FS_ROOT:		return "sync-fs-root";
	case KMEM_STEP_SYNC_FS_RETIRE:		return "sync-fs-retire";
	case KMEM_STEP_SYNC_FS_ATTACH_ROOT:	return "sync-fs-attach-root";
	case KMEM_STEP_SYNC_FS_ATTACH_RETIRE:	return "sync-fs-attach-retire";
	case KMEM_ORDER_FS_DATA_FIRST:		return "fs-data-first";
	case KMEM_ORDER_FS_ROOT_FIRST:		return "fs-root-first";
	case KMEM_ORDER_FS_KEEP_META:		return "fs-keep-meta";
	case KMEM_ORDER_FS_KEEP_DATA:		return "fs-keep-data";
	case KMEM_ORDER_FS_ATTACH_RETIRE:	return "fs-attach-retire";
	case KMEM_ORDER_BLK_KEEP_OLD:		return "blk-keep-old";
	case KMEM_ORDER_BLK_KEEP_CLEARED:	return "blk-keep-cleared";
	}
	return NULL;
}

#endif /* _LINUX_KMEM_PERSIST_RECORD_H */
