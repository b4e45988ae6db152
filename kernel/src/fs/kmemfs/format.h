/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * On-media format of kmemfs: structures, and pure functions over them.
 *
 * Compiles in the kernel and in user space, where mkfs, the unit tests, the
 * fuzzer and the crash model use the very code that the kernel runs. See
 * docs/on-media-format.md for the picture.
 *
 * Everything is little-endian, packed, in 4 KiB pages. A page number counts
 * from the start of the DAX device; 0 is the device header and so never a
 * valid reference. Each metadata page ends its head with a crc32c (initial
 * value ~0, final inversion) of the whole page, the crc field taken as zero.
 */
#ifndef KMEMFS_FORMAT_H
#define KMEMFS_FORMAT_H

#ifdef __KERNEL__
#include <linux/types.h>
#else
#include <stdbool.h>
#include <stddef.h>
#include <linux/types.h>
#endif
#include <linux/kmem_persist_header.h>
#include <linux/kmem_persist_step.h>

#ifdef __cplusplus
extern "C" {
#endif

#define KMEMFS_PAGE_SIZE	KMEM_PERSIST_PAGE_SIZE
#define KMEMFS_ROOT_SLOTS	2	/* device pages 1 and 2 */
#define KMEMFS_NAME_MAX		255	/* bytes */
#define KMEMFS_ROOT_INO		1	/* the root directory */
#define KMEMFS_MAX_PAGES	0x80000000ULL	/* of a device: 8 TiB */
#define KMEMFS_MAX_FILE_PAGES	0x100000000ULL	/* of a file: 16 TiB */
#define KMEMFS_MAX_HEIGHT	4	/* levels of index pages above the leaves */
#define KMEMFS_MAX_OWNED	0x1000000000ULL	/* pages, each counted once for each owner */

enum kmemfs_page_kind {
	KMEMFS_KIND_ROOT	= KMEM_PERSIST_ROOT_FS,
	KMEMFS_KIND_RETIRED	= 0x44544552,	/* "RETD": a root that rules no more */
	KMEMFS_KIND_INDEX	= 0x58444e49,	/* "INDX" */
	KMEMFS_KIND_INODES	= 0x444f4e49,	/* "INOD" */
	KMEMFS_KIND_EXTENTS	= 0x53545845,	/* "EXTS": version 1 */
	KMEMFS_KIND_SEGMENT	= 0x4d474553,	/* "SEGM": version 2, as all below */
	KMEMFS_KIND_NODE	= 0x45444f4e,	/* "NODE" */
	KMEMFS_KIND_XATTRS	= 0x54544158,	/* "XATT" */
	KMEMFS_KIND_SUMS	= 0x534d5553,	/* "SUMS" */
};

/*
 * The version of a tree is told by its root's incompat features: a reader that
 * knows only version 1 refuses the bit by name, and an upgrade is one commit.
 */
#define KMEMFS_INCOMPAT_V2	0x1ULL
#define KMEMFS_KNOWN_INCOMPAT	KMEMFS_INCOMPAT_V2

#define KMEMFS_LINK_MAX		65000	/* names of an inode */
/*
 * Pages of file trees, each time one is reached, besides those of the device: a
 * writer need not count while it makes no page shared.
 */
#define KMEMFS_MAX_VISITS	0x4000000ULL
#define KMEMFS_MAX_AGAIN	0x4000000ULL	/* entries of shared pages, but the first time */

/* @owner in the head of an index page: whose table it is part of */
#define KMEMFS_OWNER_INODES	0	/* both versions */
#define KMEMFS_OWNER_SUMS	2

/**
 * struct kmemfs_page_head - first 64 bytes of every metadata page
 * @kind: enum kmemfs_page_kind
 * @crc: of the page
 * @uuid: of the pool: a page of an earlier life of the device is not ours
 * @generation: of the commit that wrote the page; never above the root's
 * @owner: whose page: the inode number for EXTENTS and XATTRS, and for INDEX in
 *	an extent tree; KMEMFS_OWNER_SUMS for INDEX in the table of checksums; else 0.
 *	SEGMENT and NODE, which files may share, are of none: their own page number,
 *	so that one is not taken for another
 * @nr: entries in use; the bytes of the others are zero. XATTRS: bytes in use
 * @level: 0 for leaves, else the height above them
 * @first: what the page's first entry stands for: first inode number (INODES),
 *	first file page (EXTENTS), ordinal of the first leaf below (INDEX), first
 *	device page (SUMS). SEGMENT, NODE: how many file pages it covers
 * @reserved: zero
 */
struct kmemfs_page_head {
	__le32	kind;
	__le32	crc;
	__u8	uuid[16];
	__le64	generation;
	__le64	owner;
	__le32	nr;
	__le32	level;
	__le64	first;
	__u8	reserved[8];
} __packed __aligned(8);

/**
 * struct kmemfs_root - a root slot; the valid one of highest generation rules
 * @head: kind ROOT; generation is that of the commit, from 1. Kind RETIRED: all
 *	else is what is left of an older root, and means nothing
 * @itable: page of the top of the inode table; 0: no inode but an empty root
 *	directory with mode 0700, owned by root, and all counts are zero
 * @itable_height: index levels above the INODES pages: as few as hold them
 * @reserved0: zero
 * @nr_inode_pages: leaves of the inode table, absent ones included
 * @nr_inodes: inodes in use, the root directory included (if itable is 0: 0)
 * @nr_meta_pages: metadata pages below this root
 * @nr_file_pages: pages owned by inodes; a page counts once for each time a run
 *	has it, at most KMEMFS_MAX_OWNED
 * @incompat: features without which this tree must not be read: KMEMFS_INCOMPAT_V2
 * @compat: features that a reader may ignore: none yet
 * @commit_time: CLOCK_REALTIME, ns
 * @sums: version 2: page of the top of the table of checksums; 0: there are none.
 *	As all below, zero in version 1
 * @sums_height: index levels above the SUMS pages: as few as hold them
 * @reserved1: zero
 * @nr_sums_pages: leaves of that table, absent ones included
 * @nr_links: names of inodes beyond the first one of each
 * @sums_generation: 0: the table says nothing wrong of this tree. Else it is that of an
 *	earlier commit, of this generation: what it says is right of pages that a SEGMENT
 *	of that generation or of an earlier one leads to, and of others it says nothing
 * @reserved: zero
 */
struct kmemfs_root {
	struct kmemfs_page_head head;
	__le64	itable;
	__le32	itable_height;
	__le32	reserved0;
	__le64	nr_inode_pages;
	__le64	nr_inodes;
	__le64	nr_meta_pages;
	__le64	nr_file_pages;
	__le64	incompat;
	__le64	compat;
	__le64	commit_time;
	__le64	sums;
	__le32	sums_height;
	__le32	reserved1;
	__le64	nr_sums_pages;
	__le64	nr_links;
	__le64	sums_generation;
	__u8	reserved[KMEMFS_PAGE_SIZE - 64 - 112];
} __packed __aligned(8);

#define KMEMFS_INDEX_ENTRIES	((KMEMFS_PAGE_SIZE - 64) / 8)	/* 504 */

/**
 * struct kmemfs_index - inner page of the inode table or of an extent tree
 * @head: kind INDEX; @nr entries from the start are in use; in the inode table
 *	all entries of all pages but the last of a level
 * @page: the pages one level below; 0, in the inode table only: absent, all
 *	inodes there are free
 */
struct kmemfs_index {
	struct kmemfs_page_head head;
	__le64	page[KMEMFS_INDEX_ENTRIES];
} __packed __aligned(8);

/**
 * struct kmemfs_run - consecutive file pages in consecutive device pages
 * @file_page: first page in the file
 * @count: pages, at least 1
 * @page: first device page
 */
struct kmemfs_run {
	__le32	file_page;
	__le32	count;
	__le64	page;
} __packed __aligned(8);

#define KMEMFS_RUNS_PER_PAGE	((KMEMFS_PAGE_SIZE - 64) / 16)	/* 252 */

/**
 * struct kmemfs_extents - leaf of an extent tree
 * @head: kind EXTENTS
 * @run: ascending, not overlapping, also from leaf to leaf; what no run
 *	covers is a hole
 */
struct kmemfs_extents {
	struct kmemfs_page_head head;
	struct kmemfs_run run[KMEMFS_RUNS_PER_PAGE];
} __packed __aligned(8);

/**
 * struct kmemfs_inode_record - an inode with its one name
 * @ino: its number; 0: this record is free and all its bytes are zero
 * @parent: inode number of the directory it is in; the root's is itself
 * @size: bytes (regular file, symlink); 0 for a directory
 * @atime: ns since the epoch, signed
 * @mtime: ns since the epoch, signed
 * @ctime: ns since the epoch, signed
 * @btime: ns since the epoch, signed
 * @extents: top page of the extent tree; 0: no pages
 * @nr_runs: runs in the extent tree
 * @nr_pages: pages owned
 * @mode: type and permissions: S_IFREG, S_IFDIR or S_IFLNK
 * @uid: owner
 * @gid: group
 * @extents_height: index levels above the EXTENTS pages
 * @generation: of the inode number, for file handles
 * @flags: version 1: zero; version 2: KMEMFS_RECORD_*
 * @rdev: as all below up to @xattr, version 2, and zero in version 1. Device number
 *	of S_IFCHR and S_IFBLK, as new_encode_dev() has it; 0 with S_IFCHR is a whiteout
 * @xattr_len: bytes in use of @xattr; 0 if @xattr_page is there
 * @reserved0: zero
 * @xattr_page: XATTRS page with all extended attributes; 0: they are in @xattr
 * @target: of a further name (KMEMFS_RECORD_LINK): the inode's number
 * @xattr: extended attributes, see struct kmemfs_xattr; the rest zero
 * @reserved: zero
 * @name_len: bytes of name; 0 for the root only
 * @name: no terminator, zero padded; no '/' and no NUL; not "." or ".."
 */
struct kmemfs_inode_record {
	__le64	ino;
	__le64	parent;
	__le64	size;
	__le64	atime;
	__le64	mtime;
	__le64	ctime;
	__le64	btime;
	__le64	extents;
	__le64	nr_runs;
	__le64	nr_pages;
	__le32	mode;
	__le32	uid;
	__le32	gid;
	__le32	extents_height;
	__le32	generation;
	__le32	flags;
	__le32	rdev;
	__le16	xattr_len;
	__le16	reserved0;
	__le64	xattr_page;
	__le64	target;
	__u8	xattr[184];
	__u8	reserved[7];
	__u8	name_len;
	__u8	name[256];
} __packed __aligned(8);

/*
 * The record is a further name (hard link) of inode @target, which is no directory
 * and no further name itself. Its number is taken from those of inodes, and nobody
 * sees it. Besides @ino, @parent, @flags, @target and the name all is zero.
 */
#define KMEMFS_RECORD_LINK	0x1

#define KMEMFS_INODES_PER_PAGE	7

/**
 * struct kmemfs_inodes - leaf of the inode table
 * @head: kind INODES; nr is always KMEMFS_INODES_PER_PAGE; inode number n is
 *	record n % 7 of leaf n / 7 (inode number 0 is never used)
 * @record: the inodes
 */
struct kmemfs_inodes {
	struct kmemfs_page_head head;
	struct kmemfs_inode_record record[KMEMFS_INODES_PER_PAGE];
} __packed __aligned(8);

/* ---- version 2: files as sequences of segments -------------------------- */

/**
 * struct kmemfs_srun - consecutive pages of a segment in consecutive device pages
 * @page: first device page; 0: a hole
 * @count: pages, at least 1
 *
 * Where in the file they are follows from what is before them.
 */
struct kmemfs_srun {
	__le32	page;
	__le32	count;
} __packed __aligned(4);

#define KMEMFS_SRUNS_PER_PAGE	((KMEMFS_PAGE_SIZE - 64) / 8)	/* 504 */

/**
 * struct kmemfs_segment - leaf of a version 2 file tree
 * @head: kind SEGMENT, level 0, owner is this page; first is the sum of all counts
 * @run: in the order of the file. At least one is not a hole.
 *
 * A segment does not say where in which file it is: several files may have it, or
 * one file at several places. It is never changed, only replaced.
 */
struct kmemfs_segment {
	struct kmemfs_page_head head;
	struct kmemfs_srun run[KMEMFS_SRUNS_PER_PAGE];
} __packed __aligned(8);

/**
 * struct kmemfs_child - an entry of a node
 * @page: a page one level below; 0: a hole
 * @reserved: zero
 * @length: file pages that it covers, at least 1; what the page's head says
 */
struct kmemfs_child {
	__le32	page;
	__le32	reserved;
	__le64	length;
} __packed __aligned(8);

#define KMEMFS_CHILDREN_PER_PAGE	((KMEMFS_PAGE_SIZE - 64) / 16)	/* 252 */

/**
 * struct kmemfs_node - inner page of a version 2 file tree
 * @head: kind NODE, level 1 to KMEMFS_MAX_HEIGHT, owner is this page; first is the
 *	sum of all lengths
 * @child: in the order of the file. At least one is not a hole.
 *
 * Shared and never changed, as a segment. Pages may have fewer entries than they
 * have room for, down to one.
 */
struct kmemfs_node {
	struct kmemfs_page_head head;
	struct kmemfs_child child[KMEMFS_CHILDREN_PER_PAGE];
} __packed __aligned(8);

/* ---- version 2: extended attributes ------------------------------------- */

enum kmemfs_xattr_prefix {
	KMEMFS_XATTR_USER	= 1,	/* "user." */
	KMEMFS_XATTR_TRUSTED	= 2,	/* "trusted." */
	KMEMFS_XATTR_SECURITY	= 3,	/* "security." */
	KMEMFS_XATTR_ACL_ACCESS	= 4,	/* "system.posix_acl_access", no further name */
	KMEMFS_XATTR_ACL_DEFAULT = 5,	/* "system.posix_acl_default", no further name */
};

/**
 * struct kmemfs_xattr - an extended attribute, in a record or in an XATTRS page
 * @prefix: enum kmemfs_xattr_prefix
 * @name_len: bytes of the name behind the prefix; 0 for ACLs, else at least 1
 * @value_len: bytes of the value
 * @bytes: name, without a NUL, then value; the next one follows without a gap
 *
 * Ascending by prefix, then name (shorter first, then by bytes); so none is there
 * twice. ACLs are in the form that getxattr(2) gives (version 2 of posix_acl_xattr.h).
 */
struct kmemfs_xattr {
	__u8	prefix;
	__u8	name_len;
	__le16	value_len;
	__u8	bytes[];
} __packed;

#define KMEMFS_XATTR_IN_RECORD	184	/* bytes of all of an inode, heads included */
#define KMEMFS_XATTR_MAX	(KMEMFS_PAGE_SIZE - 64)	/* the same in a page of their own */

/**
 * struct kmemfs_xattrs - page of the extended attributes of one inode
 * @head: kind XATTRS, level 0, owner is the inode; nr is the number of bytes in use;
 *	first is 0
 * @bytes: struct kmemfs_xattr, packed; the rest zero
 */
struct kmemfs_xattrs {
	struct kmemfs_page_head head;
	__u8	bytes[KMEMFS_XATTR_MAX];
} __packed __aligned(8);

/* ---- version 2: checksums of data ---------------------------------------- */

#define KMEMFS_SUMS_PER_PAGE	((KMEMFS_PAGE_SIZE - 64) / 4)	/* 1008 */

/**
 * struct kmemfs_sums - leaf of the table of checksums
 * @head: kind SUMS, level 0, owner 0; nr is always KMEMFS_SUMS_PER_PAGE; first is
 *	the first device page
 * @sum: of device page first + i: crc32c of its bytes, but 1 if that is 0; or 0:
 *	not known. Of pages that are not data of this tree it says nothing: it may be what
 *	is left from when they were. 0 behind the end of the device
 *
 * A data page does not change once a commit has it, so a sum holds as long as the
 * page is in the tree. Sums are made after the commit that brings a page, and are
 * there from a later one on. A commit that cannot write the table leaves the one before
 * (@sums_generation of struct kmemfs_root).
 */
struct kmemfs_sums {
	struct kmemfs_page_head head;
	__le32	sum[KMEMFS_SUMS_PER_PAGE];
} __packed __aligned(8);

/* ---- reading ------------------------------------------------------------ */

/**
 * struct kmemfs_media - a device's bytes
 * @page: address of a device page, or NULL when the number is not valid here;
 *	valid until the media goes away
 * @ctx: for @page
 * @nr_pages: of the device
 * @first: first page that data and metadata may use
 * @end: one past the last such page; at most @nr_pages
 * @uuid: of the pool
 */
struct kmemfs_media {
	const void *(*page)(const struct kmemfs_media *m, __u64 page);
	void *ctx;
	__u64 nr_pages;
	__u64 first;
	__u64 end;
	__u8 uuid[16];
};

/* struct kmemfs_root in host order; version is 1 or 2, the last four are 0 in version 1 */
struct kmemfs_root_info {
	__u32 version;
	__u64 generation;
	__u64 itable;
	__u32 itable_height;
	__u64 nr_inode_pages;
	__u64 nr_inodes;
	__u64 nr_meta_pages;
	__u64 nr_file_pages;
	__s64 commit_time;
	__u64 sums;
	__u32 sums_height;
	__u64 nr_sums_pages;
	__u64 nr_links;
	__u64 sums_generation;
};

/**
 * kmemfs_root_pick() - find the root that rules
 * @m: the device
 * @slot: out: which of the two slots (0 or 1)
 * @info: out: what it says
 * @why: out: reason of a failure
 *
 * A slot counts if its crc, kind and uuid are right; one that was torn by a
 * power cut, never written, or retired, does not. The counting slot with the
 * highest generation rules, and then all of it must hold: an older root is never
 * taken in place of a newer one that somebody wrote.
 *
 * Return: 0; -EUCLEAN if no slot counts, if the ruling one does not hold, if
 * both have the same generation, or if one of them cannot be read, which may be
 * the newer one; -EOPNOTSUPP if the ruling one has unknown incompat features.
 */
int kmemfs_root_pick(const struct kmemfs_media *m, unsigned int *slot,
		     struct kmemfs_root_info *info, struct kmem_persist_why *why);

/* What @meta of a visitor returns for a page that it has been told of before */
#define KMEMFS_SEEN	1

/* @ino of damage in the table of checksums */
#define KMEMFS_INO_SUMS	(~0ULL)

/**
 * struct kmemfs_visitor - what a walk reports; any may be NULL
 * @meta: a metadata page, before what is below it. A SEGMENT or NODE is reported
 *	once for each entry or record that leads to it, but for those in pages for
 *	which @meta returned KMEMFS_SEEN: what a shared page leads to is its own, once.
 *	Of other kinds KMEMFS_SEEN is none. An XATTRS page comes right after its @inode
 * @inode: an inode in use, before its runs; @record is on media. Not a further name
 * @link: version 2: a further name of an inode; in the order of record numbers
 * @run: a run of file @ino; file trees are passed as often as files have them
 * @segment: version 2: before the runs of a SEGMENT of file @ino, at @file_page,
 *	@count file pages long. And after all of its children: of a NODE, @level > 0
 * @sums: a leaf of the table of checksums, after all inodes
 * @damage: what would end the walk with -EUCLEAN: a page that does not hold, that
 *	cannot be read, or for which @meta returned -EUCLEAN (@page; 0: the record of
 *	@ino itself does not hold, and all of the inode or name is lost), below file
 *	@ino (0: below the inode table; KMEMFS_INO_SUMS: below that of checksums).
 *	@count file pages of it from @file_page on are not reported then; in tables:
 *	@count leaves from leaf @file_page on. @count is 0 for attributes (@page is the
 *	record's @xattr_page), for counts of a record that are wrong though all has been
 *	reported (@page is the top), and for a page of an extent tree whose range
 *	another report has. Return 0 to go on behind it. NULL: the walk ends with
 *	-EUCLEAN
 *
 * Each returns 0 to go on; anything else ends the walk with that value.
 */
struct kmemfs_visitor {
	int (*meta)(void *ctx, __u64 page, enum kmemfs_page_kind kind, __u32 level);
	int (*inode)(void *ctx, const struct kmemfs_inode_record *record);
	int (*link)(void *ctx, const struct kmemfs_inode_record *record);
	int (*run)(void *ctx, __u64 ino, __u64 file_page, __u64 count, __u64 page);
	int (*segment)(void *ctx, __u64 ino, __u64 page, __u32 level, __u64 file_page,
		       __u64 count, __u32 nr);
	int (*sums)(void *ctx, __u64 leaf, __u64 page, const struct kmemfs_sums *sums);
	int (*damage)(void *ctx, __u64 page, __u64 ino, __u64 file_page, __u64 count,
		      const char *why);
};

/**
 * kmemfs_walk() - visit everything below a root
 * @m: the device
 * @root: from kmemfs_root_pick()
 * @v: callbacks
 * @ctx: for the callbacks
 * @why: out: reason of a failure
 *
 * Checks each page it follows (bounds, kind, crc, uuid, generation, owner,
 * level, first, order, zero padding, the fields of each record) before it
 * reports it, and that each file tree has the runs and pages that its inode
 * says. Stack is bounded and time linear in pages and runs whatever the media
 * says: no page of a table or an extent tree can stand at two places, because each
 * says which place is its own; pages of version 2 file trees can, and those count as damaged
 * that come when the walk has been at KMEMFS_MAX_VISITS more than the device has, and, if
 * @v->meta says KMEMFS_SEEN of those it knows, those of them that come when it has been at
 * KMEMFS_MAX_AGAIN entries again.
 *
 * Return: 0, -EUCLEAN, or what a callback returned.
 */
int kmemfs_walk(const struct kmemfs_media *m, const struct kmemfs_root_info *root,
		const struct kmemfs_visitor *v, void *ctx, struct kmem_persist_why *why);

/*
 * The same. @checked: bit per device page: those of version 2 file trees with it have been
 * found to hold, and are not checked again; @v->meta may set bits. Or NULL.
 */
int kmemfs_walk_checked(const struct kmemfs_media *m, const struct kmemfs_root_info *root,
			const struct kmemfs_visitor *v, void *ctx, struct kmem_persist_why *why,
			const unsigned long *checked);

/**
 * kmemfs_walk_runs() - visit the runs of one inode
 * @m: the device
 * @root: from kmemfs_root_pick()
 * @record: the inode
 * @v: callbacks; @v->inode is unused
 * @ctx: for the callbacks
 * @why: out: reason of a failure
 *
 * As kmemfs_walk(), for @record, which is no further name, and its file tree only.
 *
 * Return: 0, -EUCLEAN, or what a callback returned.
 */
int kmemfs_walk_runs(const struct kmemfs_media *m, const struct kmemfs_root_info *root,
		     const struct kmemfs_inode_record *record,
		     const struct kmemfs_visitor *v, void *ctx, struct kmem_persist_why *why);

/**
 * struct kmemfs_check - memory that a verification needs, given by the caller
 * @meta: bit per device page, zeroed by the caller; out: metadata pages
 * @data: bit per device page, zeroed by the caller; out: pages owned by files
 * @owners: count per device page, zeroed by the caller; NULL: not counted
 * @max_owners: how many runs may have one page, if @owners is there
 * @alloc: memory for nr * size bytes, zeroed, or NULL; for per-inode state
 * @free: of such memory
 * @lose_sums: a table of checksums that does not hold is no reason to refuse the rest
 * @sums_lost: out: it does not, and all else does; the reason is in the why. Which
 *	metadata pages there are is not known then, and how many of them is not checked
 */
struct kmemfs_check {
	unsigned long *meta;
	unsigned long *data;
	__u32 *owners;
	__u32 max_owners;
	void *(*alloc)(size_t nr, size_t size);
	void (*free)(void *p);
	bool lose_sums;
	bool sums_lost;
};

/**
 * kmemfs_verify() - decide whether a tree holds
 * @m: the device
 * @root: from kmemfs_root_pick()
 * @check: memory, and what is found out
 * @why: out: reason of a failure
 *
 * Everything kmemfs_walk() checks, and across pages: no metadata page used
 * twice or owned by a file; counts of the root and of the inodes are right;
 * parents exist, are directories, and lead to the root without a cycle; no
 * two names of a directory are the same; a symlink has one page and a size of 1
 * to 4095; what is no file has no pages; pages beyond a file's size are not
 * there. In version 2: SEGMENT and NODE pages, and only those, may be used more than
 * once, and count once; further names are of inodes that are no directories, none
 * of which has more than KMEMFS_LINK_MAX; only pages of the device have checksums,
 * whose table may be lost if @check->lose_sums says so.
 *
 * Return: 0, -EUCLEAN, -ENOMEM, or -EOVERFLOW if all that is wrong is that a page
 * has more than @check->max_owners. Time is linear in runs, in owned pages / 64
 * (in owned pages if owners are counted), and n log n in inodes and names.
 *
 * Not decided here: what the data pages hold.
 */
int kmemfs_verify(const struct kmemfs_media *m, const struct kmemfs_root_info *root,
		  struct kmemfs_check *check, struct kmem_persist_why *why);

/* ---- writing ------------------------------------------------------------ */

/**
 * struct kmemfs_sink - where a commit's pages go
 * @alloc: a fresh device page for metadata: its address, and its number in
 *	@page; NULL when there is none. Its bytes may be anything.
 * @flush: write back [@addr, @addr + @len) towards the persistence domain
 * @fence: what was flushed before is durable before anything flushed after
 * @ctx: for the above
 * @uuid: of the pool
 * @generation: of the commit being written
 * @nr_meta_pages: out: pages that the tree writers took from @alloc so far; the
 *	writers count, @alloc does not
 *
 * Not thread safe. Pages allocated by a writer that failed are the caller's
 * to give back.
 */
struct kmemfs_sink {
	void *(*alloc)(struct kmemfs_sink *s, __u64 *page);
	void (*flush)(struct kmemfs_sink *s, enum kmem_persist_step step, const void *addr,
		      size_t len);
	void (*fence)(struct kmemfs_sink *s, enum kmem_persist_step step);
	void *ctx;
	__u8 uuid[16];
	__u64 generation;
	__u64 nr_meta_pages;
};

/**
 * struct kmemfs_tree - an inode table or extent tree being written, bottom up
 * @sink: where
 * @owner: for the pages' heads
 * @index: index page being filled, a level; NULL: none yet, all its entries are absent
 * @index_page: its number
 * @index_first: its first leaf
 * @nr: its entries; 0: the level has not been started
 * @leaves: leaves added so far
 * @leaf: extents page being filled
 * @leaf_page: its number
 * @leaf_nr: its runs
 * @nr_runs: runs added (adjacent ones merged)
 * @nr_pages: pages in these runs
 * @first_leaf: number of the only leaf, while there is just one
 *
 * The fields are the writer's own.
 */
struct kmemfs_tree {
	struct kmemfs_sink *sink;
	__u64 owner;
	struct kmemfs_index *index[KMEMFS_MAX_HEIGHT];
	__u64 index_page[KMEMFS_MAX_HEIGHT];
	__u64 index_first[KMEMFS_MAX_HEIGHT];
	__u32 nr[KMEMFS_MAX_HEIGHT];
	__u64 leaves;
	struct kmemfs_extents *leaf;
	__u64 leaf_page;
	__u32 leaf_nr;
	__u64 nr_runs;
	__u64 nr_pages;
	__u64 first_leaf;
};

void kmemfs_tree_init(struct kmemfs_tree *t, struct kmemfs_sink *sink, __u64 owner);
/*
 * Add a run to an extent tree, in file order, merged with the one before it if
 * it continues it in the file and on the device. 0, -ENOSPC, -EFBIG (beyond
 * KMEMFS_MAX_FILE_PAGES), or -EINVAL (empty, or not after the one before).
 */
int kmemfs_tree_add_run(struct kmemfs_tree *t, __u64 file_page, __u64 count, __u64 page);
/* Add a leaf (INODES page; 0: absent) to an inode table, in order; 0, -ENOSPC or -EFBIG */
int kmemfs_tree_add_leaf(struct kmemfs_tree *t, __u64 page);
/*
 * Add @nr absent leaves to an inode table; 0, -ENOSPC or -EFBIG. Index pages that
 * would lead to nothing else are not written but absent, too.
 */
int kmemfs_tree_skip_leaves(struct kmemfs_tree *t, __u64 nr);
/*
 * Seal and flush what is left. *top is 0, and *height too, for a tree without
 * leaves. 0, -ENOSPC or -EFBIG. The tree is done then, whatever is returned.
 */
int kmemfs_tree_finish(struct kmemfs_tree *t, __u64 *top, __u32 *height);

/* ---- version 2: writing, a page at a time --------------------------------- */

/*
 * Each fills a page from @s->alloc, seals and flushes it, and gives its number in
 * *@page. What they are given is in host order, has been checked, and fits. 0 or
 * -ENOSPC.
 */
struct kmemfs_run_info {
	__u32 page;	/* 0: a hole */
	__u32 count;
};

struct kmemfs_child_info {
	__u32 page;	/* 0: a hole */
	__u64 length;
};

int kmemfs_write_segment(struct kmemfs_sink *s, const struct kmemfs_run_info *run, __u32 nr,
			 __u64 *page);
int kmemfs_write_node(struct kmemfs_sink *s, __u32 level, const struct kmemfs_child_info *child,
		      __u32 nr, __u64 *page);
int kmemfs_write_xattrs(struct kmemfs_sink *s, __u64 ino, const void *bytes, __u32 len,
			__u64 *page);
/* @sum: KMEMFS_SUMS_PER_PAGE values, as struct kmemfs_sums has them */
int kmemfs_write_sums(struct kmemfs_sink *s, __u64 leaf, const __u32 *sum, __u64 *page);
/*
 * An index page of the inode table (both versions) or of that of checksums: @level
 * at least 1, @first the ordinal of its first leaf, @nr entries (0: absent)
 */
int kmemfs_write_index(struct kmemfs_sink *s, __u64 owner, __u32 level, __u64 first,
		       const __u64 *entry, __u32 nr, __u64 *page);

/* The fewest index levels over @leaves leaves; above KMEMFS_MAX_HEIGHT: too many */
__u32 kmemfs_table_height(__u64 leaves);

/* The newest SEGMENT of whose pages the table of checksums says what is right */
static inline __u64 kmemfs_sums_hold_to(const struct kmemfs_root_info *root)
{
	return root->sums_generation ? root->sums_generation : root->generation;
}

/* Of a page of data, as the table of checksums has it: never 0 */
__u32 kmemfs_page_sum(const void *page);

/**
 * kmemfs_xattr_next() - read extended attributes one after the other
 * @bytes: of all of them: from a record or an XATTRS page
 * @len: in use
 * @at: in: where to go on, 0 at first; out: behind what is returned
 *
 * Return: the next one, whose lengths fit; NULL at the end (*@at is @len then) or if
 * it does not hold (*@at is less).
 */
const struct kmemfs_xattr *kmemfs_xattr_next(const void *bytes, __u32 len, __u32 *at);

/* Whether all of them hold: lengths, prefixes, order */
bool kmemfs_xattrs_valid(const void *bytes, __u32 len);

/* Pages of an extent tree of @nr_runs runs */
__u64 kmemfs_extents_pages(__u64 nr_runs);
/* Index pages that an inode table of @leaves leaves has at most, if @present are not absent */
__u64 kmemfs_table_index_pages(__u64 present, __u64 leaves);

/*
 * Start an INODES leaf of the numbers [7 * leaf, 7 * leaf + 7) in @page, which
 * the caller allocated and counts: all records free.
 */
void kmemfs_inodes_init(struct kmemfs_inodes *page, const struct kmemfs_sink *s, __u64 leaf);
/* Seal and flush it */
void kmemfs_inodes_finish(struct kmemfs_inodes *page, struct kmemfs_sink *s);

/**
 * kmemfs_publish() - make a commit durable
 * @s: sink of the commit; all its pages and all data pages have been flushed
 * @slot: address of the slot to overwrite: the one that does not rule
 * @info: the new root; its generation must be @s->generation
 *
 * Fence; write the slot; flush; fence. After it returns the commit is durable.
 * The other slot must be retired next.
 */
void kmemfs_publish(struct kmemfs_sink *s, struct kmemfs_root *slot,
		    const struct kmemfs_root_info *info);

/**
 * kmemfs_retire() - make sure that a root never rules again
 * @s: for its flush and fence
 * @slot: address of the slot that does not rule
 *
 * Comes before any page that only this root leads to is used again: if media
 * then damages the root that rules, there is none, instead of one that leads to
 * what others have written since. Does nothing if there is no root in the slot.
 */
void kmemfs_retire(struct kmemfs_sink *s, struct kmemfs_root *slot);

/*
 * Fill the two root slots of a new pool of @version 1 or 2: slot 0 generation 1, empty
 * tree; slot 1 zero
 */
void kmemfs_mkfs(struct kmemfs_root slots[KMEMFS_ROOT_SLOTS], const __u8 uuid[16],
		 __u32 version, __s64 now_ns);

#ifdef __cplusplus
}
#endif
#endif /* KMEMFS_FORMAT_H */
