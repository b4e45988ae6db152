/* SPDX-License-Identifier: (GPL-2.0 WITH Linux-syscall-note) OR Apache-2.0 */
/*
 * kmemfs: a filesystem whose files own pages of a DAX KMEM node by reference.
 */
#ifndef _UAPI_LINUX_KMEMFS_H
#define _UAPI_LINUX_KMEMFS_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define KMEMFS_SUPER_MAGIC	0x4b4d4653	/* "KMFS": statfs(2) f_type */

/**
 * struct kmemfs_capture - argument of KMEMFS_IOC_CAPTURE
 * @pidfd: in: the target task (pidfd_open(2)); the caller needs ptrace attach
 *	access to it and CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN
 * @flags: in: must be zero
 * @addr: in: first byte of the target's memory; page aligned
 * @len: in: bytes; page aligned, not zero
 * @offset: in: where in the file the content goes; page aligned, may lie
 *	beyond the end of the file, which grows to cover the range
 * @pages_by_reference: out: pages newly taken by reference
 * @pages_shared: out: pages that were pool pages already: one more reference
 * @pages_copied: out: pages that could not be taken and were copied
 * @pages_hole: out: pages without content, holes in the file
 *
 * The file range becomes the content of the target's range. On error the
 * file range is unchanged or a prefix of it is captured, the counts say how
 * much, and the target is unharmed.
 */
struct kmemfs_capture {
	__s32 pidfd;
	__u32 flags;
	__u64 addr;
	__u64 len;
	__u64 offset;
	__u64 pages_by_reference;
	__u64 pages_shared;
	__u64 pages_copied;
	__u64 pages_hole;
};

/**
 * struct kmemfs_info - result of KMEMFS_IOC_INFO, on any file or directory
 * @uuid: of the pool, from the device header
 * @label: of the pool, zero terminated
 * @generation: of the last durable commit
 * @node: NUMA node of the device
 * @page_size: bytes of a page, the unit of all counts below
 * @total_pages: pages of the device that are memory
 * @free_pages: free pages of the node (free memory and free space are one)
 * @file_pages: pages owned by files, a page counted once for each owner
 * @meta_pages: pages that hold metadata
 * @captured_by_reference: since mount: sum of pages_by_reference
 * @captured_shared: since mount: sum of pages_shared
 * @captured_copied: since mount: sum of pages_copied
 * @read_installed: since mount: pages mapped by read(2) instead of copied
 * @read_copied: since mount: whole, aligned pages that read(2) copied
 * @flushed_pages: since mount: pages written back to the persistence domain
 * @dirty: not zero if there are changes that are not durable yet
 * @damaged_pages: since mount: pages of files that memory failures took
 * @spliced_by_reference: since mount: pages that splice(2) newly took by reference
 * @spliced_shared: since mount: pages from a pipe that were pool pages already
 * @spliced_copied: since mount: pages, or parts of pages, that splice(2) copied
 * @meta_written: since mount: pages of metadata that commits wrote, but for the root
 * @version: of the format that the pool's tree has: 1 or 2; 0: a kernel that knew no
 *	more than version 1
 * @flags: KMEMFS_INFO_*
 * @sums_pages: those of @meta_pages that hold checksums
 * @reserved: zero
 */
struct kmemfs_info {
	__u8  uuid[16];
	__u8  label[64];
	__u64 generation;
	__s32 node;
	__u32 page_size;
	__u64 total_pages;
	__u64 free_pages;
	__u64 file_pages;
	__u64 meta_pages;
	__u64 captured_by_reference;
	__u64 captured_shared;
	__u64 captured_copied;
	__u64 read_installed;
	__u64 read_copied;
	__u64 flushed_pages;
	__u32 dirty;
	__u32 damaged_pages;
	__u64 spliced_by_reference;
	__u64 spliced_shared;
	__u64 spliced_copied;
	__u64 meta_written;
	__u32 version;
	__u32 flags;
	__u32 sums_pages;
	__u32 reserved[3];
};

/*
 * The last commit does not hold: the device was attached to save what can be read. The
 * mount is read-only, part of files or names may be missing, and no page is free.
 */
#define KMEMFS_INFO_RESCUE	0x1

#define KMEMFS_IOC_CAPTURE	_IOWR(0xdb, 0x40, struct kmemfs_capture)
#define KMEMFS_IOC_INFO		_IOR(0xdb, 0x41, struct kmemfs_info)

/*
 * Make the pool one of version 2, on any file or directory of it: all metadata is
 * written anew in one commit, so a crash leaves it either way, whole. A kernel that
 * does not know version 2 refuses the pool from then on; there is no way back.
 * 0: it is of version 2 now, or was before. EPERM: the caller has no CAP_SYS_ADMIN.
 * EINVAL: the argument is not 0. EROFS: read-only. ENOSPC: no room for a second set of
 * metadata; then, and with ENOMEM, nothing has changed. EIO: as from fsync(2).
 */
#define KMEMFS_IOC_UPGRADE	_IO(0xdb, 0x42)

/**
 * struct kmemfs_verify_range - argument of KMEMFS_IOC_VERIFY
 * @offset: in: where in the file to begin; a multiple of the page size
 * @len: in: bytes, not zero; what is behind the end of the file holds. Out, with
 *	KMEMFS_VERIFY_BAD_LEN: bytes from @first_bad on that do not hold, all for one reason,
 *	in whole pages; they may reach beyond what was asked for
 * @flags: in: must be zero; out: KMEMFS_VERIFY_*, zero unless it fails with EIO. So who
 *	calls again after that sets it, and @len, anew
 * @done: out: bytes from @offset on that hold, or of which nobody knows
 * @pages_checked: out: pages among them that are what their checksums say
 * @pages_without_sum: out: pages that can be read and have no checksum (yet)
 * @first_bad: out: offset of the first page that does not hold; ~0: none was found
 */
struct kmemfs_verify_range {
	__u64 offset;
	__u64 len;
	__u64 flags;
	__u64 done;
	__u64 pages_checked;
	__u64 pages_without_sum;
	__u64 first_bad;
};

#define KMEMFS_VERIFY_BAD_LEN	1	/* set with EIO by kernels that tell how much is bad */

/*
 * Compare stored pages of a file with their checksums; what was stored through a mapping
 * and not been written back yet is not looked at. Holes hold. Any pool: one of version 1
 * has no checksums. Changes nothing, so it can be repeated.
 * 0: nothing is wrong. EIO: the page at @first_bad cannot be read, or is not what was
 * stored; nothing behind it was looked at. EINTR: a signal came; all up to @done holds.
 * EBADF: not open for reading. EINVAL: no regular file, or a bad argument.
 */
#define KMEMFS_IOC_VERIFY	_IOWR(0xdb, 0x43, struct kmemfs_verify_range)

/*
 * Make all checksums that are missing, of what was stored before, and have them on media,
 * on any file or directory of the pool; else both come in time by themselves.
 * EPERM: the caller has no CAP_SYS_ADMIN. EINVAL: the argument is not 0. EROFS: read-only.
 * EOPNOTSUPP: a pool of version 1. ENOSPC: no room for them on media. EINTR: a signal came;
 * what was made stays, and the rest can be made by another call. ENOMEM, EIO: as from
 * fsync(2).
 */
#define KMEMFS_IOC_SUM		_IO(0xdb, 0x44)

#endif /* _UAPI_LINUX_KMEMFS_H */
