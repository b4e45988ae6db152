/* SPDX-License-Identifier: GPL-2.0 */
/*
 * kmemfs: what its files share. See super.c for the idea, format.h for what is
 * on media.
 */
#ifndef KMEMFS_H
#define KMEMFS_H

#include <linux/fs.h>
#include <linux/idr.h>
#include <linux/kmem_persist.h>
#include <linux/kmemfs.h>
#include <linux/pool_pages.h>
#include <linux/rwsem.h>
#include <linux/workqueue.h>
#include <linux/xarray.h>
#include "format.h"

/* Entries of a chunk of a file's page table */
#define KMEMFS_CHUNK_SHIFT	10
#define KMEMFS_CHUNK_SIZE	BIT(KMEMFS_CHUNK_SHIFT)

/*
 * An entry of a file's page table: a device page, 0 for a hole. The flag says
 * that the last commit does not have this entry.
 */
#define KMEMFS_NEW		POOL_PAGE_NEW
#define KMEMFS_PAGE(entry)	((entry) & ~KMEMFS_NEW)

/**
 * struct kmemfs_chunk - part of a file's page table
 * @list: in kmemfs.pending once the file is gone
 * @nr: entries that are not holes
 * @committed: the last commit may have some in its place. kmemfs_inode.lock.
 * @entry: device pages, each with the reference that the file holds
 */
struct kmemfs_chunk {
	struct list_head list;
	unsigned int nr;
	bool committed;
	u32 entry[KMEMFS_CHUNK_SIZE];
};

/* On @chunks of a file: the last commit does not have all of the chunk's entries */
#define KMEMFS_CHUNK_DIRTY	XA_MARK_0

/* In the place of a chunk, and dirty: there is none, but the last commit may have one */
#define KMEMFS_CHUNK_GONE	xa_mk_value(0)

/**
 * struct kmemfs_tree_ref - a file's tree on media
 * @top: page, 0 if there is none
 * @nr_runs: runs in it
 * @own: pages of it that nobody else has, at least
 * @height: levels above the leaves
 */
struct kmemfs_tree_ref {
	u64 top;
	u64 nr_runs;
	unsigned long own;
	u32 height;
};

/**
 * struct kmemfs_piece - a page of a version 2 file tree
 * @start: first file page that it covers
 * @end: one past the last one
 * @page: where it is on the device; 0: to be written
 * @nr: entries in it
 * @runs: those that are no holes, of a segment
 * @kept: while a commit is written, as all below: it stays
 * @dirty: it cannot
 * @fate: what becomes of it, enum kmemfs_fate
 */
struct kmemfs_piece {
	u64 start;
	u64 end;
	u32 page;
	u32 nr : 10;
	u32 runs : 10;
	u32 kept : 1;
	u32 dirty : 1;
	u32 fate : 2;
};

/**
 * struct kmemfs_rope - a version 2 file tree in memory
 * @level: its segments, the nodes above them, ..., in the order of the file
 * @height: level of the top
 */
struct kmemfs_rope {
	struct kmemfs_level {
		struct kmemfs_piece *piece;
		size_t nr;
		size_t room;
	} level[KMEMFS_MAX_HEIGHT + 1];
	u32 height;
};

/**
 * struct kmemfs_name - a name of an inode
 * @list: in kmemfs_inode.names
 * @ki: the inode
 * @target: its number; while mounting, before @ki is known
 * @parent: inode number of the directory. As the next two, kmemfs.commit_sem.
 * @name: there, KMEMFS_NAME_MAX at most
 * @slot: the record's number: that of the inode for its first name
 */
struct kmemfs_name {
	struct list_head list;
	union {
		struct kmemfs_inode *ki;
		u64 target;
	};
	u64 parent;
	char *name;
	unsigned long slot;
};

/**
 * struct kmemfs_xattrs_held - all extended attributes of an inode; does not change
 * @rcu: for its end
 * @len: bytes
 * @bytes: as they are on media, see struct kmemfs_xattr
 */
struct kmemfs_xattrs_held {
	struct rcu_head rcu;
	u32 len;
	u8 bytes[];
};

/**
 * struct kmemfs_inode - an inode in memory
 * @vfs: the VFS's part
 * @lock: guards @chunks' entries and @nr_pages. A reader takes page references
 *	under it; a page with the file's reference only is written under it.
 * @chunks: page table, by page number >> KMEMFS_CHUNK_SHIFT. Chunks go under
 *	i_rwsem and invalidate_lock, when no folio of theirs is left.
 * @nr_pages: entries that are not holes
 * @max_runs: that the page table has at most, or @nr_pages if that is less. @lock.
 * @new_runs: that changes being made may add besides (plan.c). @lock.
 * @planned_runs: that planned ones may. @lock.
 * @changes: made since the last commit, each counted once, and once more for each run
 *	that it may have added. @lock.
 * @reserved: pages in the reserve for trees and attributes of this file. @lock.
 * @data_dirty: the page table differs from @tree's. kmemfs.commit_sem.
 * @tree: the tree of the last commit. kmemfs.commit_lock, and @lock to change it.
 * @new_tree: that of the commit being written
 * @names: struct kmemfs_name; the first one is in the inode's record. Empty once
 *	unlinked. kmemfs.commit_sem.
 * @xattrs: NULL if there are none. Changed under i_rwsem, read under RCU.
 * @xattrs_dirty: @xattrs differs from the last commit's. kmemfs.commit_sem.
 * @xattrs_lost: they are in a page that is damaged
 * @damaged: part of its tree is lost (rescue.c): what looks like a hole may be none
 * @passed: while mounting: it is on the way to the root of one that got its name
 * @xattr_pages: pages of their own that the next commit writes: 0 or 1. @lock.
 * @xattr_page: that of the last commit, or 0. kmemfs.commit_lock.
 * @new_xattr_page: that of the commit being written
 * @btime: time of birth
 * @below: while mounting: next inode on the way down to one that gets its name
 */
struct kmemfs_inode {
	struct inode vfs;
	spinlock_t lock;	/* page table, and what its commit needs */
	struct xarray chunks;
	unsigned long nr_pages;
	unsigned long max_runs;
	unsigned long new_runs;
	unsigned long planned_runs;
	unsigned long changes;
	unsigned long reserved;
	bool data_dirty;
	struct kmemfs_tree_ref tree;
	struct kmemfs_tree_ref new_tree;
	struct list_head names;
	struct kmemfs_xattrs_held __rcu *xattrs;
	bool xattrs_dirty;
	bool xattrs_lost;
	bool damaged;
	bool passed;
	unsigned int xattr_pages;
	u64 xattr_page;
	u64 new_xattr_page;
	struct timespec64 btime;
	struct kmemfs_inode *below;
};

/**
 * struct kmemfs_table - where the pages of a table of the last commit are
 * @leaves: leaf number -> its device page (0: none yet), as value entries;
 *	KMEMFS_LEAF_DIRTY marks those to be written
 * @index: inner pages, a level: place -> device page, as value entries
 * @nr_index: how many they are
 * @span: leaves on media, absent ones included
 * @owner: KMEMFS_OWNER_INODES or KMEMFS_OWNER_SUMS
 */
struct kmemfs_table {
	struct xarray leaves;
	struct xarray index[KMEMFS_MAX_HEIGHT];
	unsigned long nr_index;
	unsigned long span;
	u64 owner;
};

/**
 * struct kmemfs_held_sums - checksums of a mounted pool (sums.c)
 * @table: where they are on media. Leaves are marked with kmemfs.commit_sem held for
 *	reading, or kmemfs.commit_lock.
 * @nr_pages: of the table on media, whether mounted or not. kmemfs.commit_lock.
 * @kept: while mounting: @nr_pages as it was before
 * @lost: while mounting: some do not hold
 * @held: leaf number -> struct kmemfs_sums_leaf, which stay; of those of @table for which
 *	there was memory, and which media has not lost, unless they have sums again
 * @unsummed: bit per device page: written back, and no checksum has been made since
 * @lock: one makes them at a time
 * @work: makes them
 * @cleared: leaves of which media says since the last commit what does not hold any more.
 *	kmemfs.commit_lock.
 * @todo: there is something in @unsummed
 * @dirty: a leaf of @table is marked
 * @lacking: the last commit had no pages for them
 * @stop: make no more
 */
struct kmemfs_held_sums {
	struct kmemfs_table table;
	unsigned long nr_pages;
	unsigned long kept;
	bool lost;
	struct xarray held;
	unsigned long *unsummed;
	struct mutex lock;	/* makers */
	struct delayed_work work;
	unsigned long cleared;
	bool todo;
	bool dirty;
	bool lacking;
	bool stop;
};

/* A list of device pages */
struct kmemfs_pages {
	u32 *page;
	size_t nr;
	size_t room;
};

/**
 * struct kmemfs_reserve - pages that are held for commits
 * @lock: guards all; inside of kmemfs_inode.lock
 * @pages: by page.lru
 * @nr: how many
 * @coming: pages that the commit being written gives back
 * @leaves: of the inode table, in memory
 * @new_leaves: of them, not on media yet
 * @span: leaves of the inode table, absent ones included, at most
 * @index: its index pages on media
 * @trees: pages for file trees: kmemfs_inode.reserved of all
 * @data: pages to hold for data besides
 */
struct kmemfs_reserve {
	spinlock_t lock;	/* all */
	struct list_head pages;
	unsigned long nr;
	unsigned long coming;
	unsigned long leaves;
	unsigned long new_leaves;
	unsigned long span;
	unsigned long index;
	unsigned long trees;
	unsigned long data;
};

/* What a change of a file does to its size: it adds pages, may free some, leaves none */
enum kmemfs_change { KMEMFS_ADDS, KMEMFS_FREES, KMEMFS_FREES_ALL };

/* Added to the runs of a change that moves what is behind: all of a tree may be written */
#define KMEMFS_MOVES		BIT(40)

enum kmemfs_counter {
	KMEMFS_CAPTURED_BY_REFERENCE,
	KMEMFS_CAPTURED_SHARED,
	KMEMFS_CAPTURED_COPIED,
	KMEMFS_SPLICED_BY_REFERENCE,
	KMEMFS_SPLICED_SHARED,
	KMEMFS_SPLICED_COPIED,
	KMEMFS_READ_INSTALLED,
	KMEMFS_READ_COPIED,
	KMEMFS_FLUSHED,
	KMEMFS_DAMAGED,
	KMEMFS_META_WRITTEN,
	KMEMFS_NR_COUNTERS,
};

/**
 * struct kmemfs - a pool: lives as long as its device is attached
 * @kp: the device
 * @region: its pages
 * @sb: the mount, NULL while not mounted
 * @byref: read(2) maps pages instead of copying them
 * @failed: read-only for good, after an error that cannot be repaired
 * @rescue: the committed tree does not hold: nothing on the device is written, and all
 *	pages are kept (rescue.c). Does not change.
 * @max_pages: of data that the store may hold; 0: no limit
 * @had_pages: least that it held since @max_pages was set, as of each commit
 * @owners: of each device page, if there is a limit
 * @held: pages that have any
 * @spares: pages that dirty folios of mapped files have put aside
 * @commit_interval: seconds from a change to its commit, 0: on demand only
 * @commit_sem: read: to change anything that a commit writes; write: to
 *	collect what a commit writes. Never held across a user space fault.
 * @commit_lock: one commit at a time; guards @slot, @root, @itable, @ropes and @shared
 * @commit_work: the interval's
 * @dirty: there is something to commit
 * @slot: root slot that rules
 * @root: what it says
 * @itable: the inode table
 * @ropes: version 2: inode number -> struct kmemfs_rope, of the last commit. @commit_lock
 * @shared: metadata page -> entries and records that lead to it besides the first one, as
 *	value entries; as long as the device is attached. @commit_lock
 * @sums: version 2: checksums of data
 * @inodes: inode number -> struct kmemfs_inode, linked ones
 * @links: slot -> struct kmemfs_name, further names of inodes
 * @inos: numbers in use, by either
 * @version: of the tree in memory: 1 holds no more than version 1 on media.
 *	kmemfs.commit_sem.
 * @pending_lock: guards @pending and @pending_tail
 * @pending: chunks of pages that the last commit has and memory has no more
 * @pending_tail: chunk of the list's single pages; NULL: none
 * @durable: bit per device page: written back since it got its content
 * @flushing: bit per device page: the commit being written must write it back
 * @reserve: pages for a commit when there is no other
 * @file_pages: entries of all page tables
 * @table_bytes: memory of inodes and page tables
 * @counter: for KMEMFS_IOC_INFO
 */
struct kmemfs {
	struct kmem_persist *kp;
	struct pool_region region;
	struct super_block *sb;
	bool byref;
	bool failed;
	bool rescue;
	u64 max_pages;
	u64 had_pages;
	atomic_t *owners;
	atomic64_t held;
	atomic64_t spares;
	unsigned int commit_interval;

	struct rw_semaphore commit_sem;
	struct mutex commit_lock;	/* one commit at a time */
	struct delayed_work commit_work;
	bool dirty;

	unsigned int slot;
	struct kmemfs_root_info root;
	struct kmemfs_table itable;
	struct xarray ropes;
	struct xarray shared;
	struct kmemfs_held_sums sums;
	struct xarray inodes;
	struct xarray links;
	struct ida inos;
	unsigned int version;

	spinlock_t pending_lock;	/* pending, pending_tail */
	struct list_head pending;
	struct kmemfs_chunk *pending_tail;
	unsigned long *durable;
	unsigned long *flushing;
	struct kmemfs_reserve reserve;

	atomic64_t file_pages;
	atomic64_t table_bytes;
	atomic64_t counter[KMEMFS_NR_COUNTERS];
};

#define KMEMFS_LEAF(ino)	((ino) / KMEMFS_INODES_PER_PAGE)
#define KMEMFS_LEAF_DIRTY	XA_MARK_1

static inline unsigned long kmemfs_slot(unsigned long index)
{
	return index & (KMEMFS_CHUNK_SIZE - 1);
}

/* How many of [index, index + nr) are in the first one's chunk? */
static inline unsigned long kmemfs_chunk_span(unsigned long index, unsigned long nr)
{
	return min(nr, KMEMFS_CHUNK_SIZE - kmemfs_slot(index));
}

static inline struct kmemfs_inode *KMEMFS_I(const struct inode *inode)
{
	return container_of(inode, struct kmemfs_inode, vfs);
}

static inline struct kmemfs *KMEMFS_SB(const struct super_block *sb)
{
	return sb->s_fs_info;
}

static inline struct kmemfs *kmemfs_of(const struct inode *inode)
{
	return KMEMFS_SB(inode->i_sb);
}

/* Version 1 knows one name an inode, no special inodes, and no attributes */
static inline bool kmemfs_is_v2(const struct kmemfs *k)
{
	return READ_ONCE(k->version) >= 2;
}

static inline void kmemfs_count(struct kmemfs *k, enum kmemfs_counter c, long n)
{
	if (n)
		atomic64_add(n, &k->counter[c]);
}

static inline struct page *kmemfs_page(const struct kmemfs *k, u32 page)
{
	return pfn_to_page(k->region.start_pfn + page);
}

static inline void *kmemfs_addr(const struct kmemfs *k, u32 page)
{
	return page_address(kmemfs_page(k, page));
}

/* Data pages that count for the limit */
static inline u64 kmemfs_held(const struct kmemfs *k)
{
	return atomic64_read(&k->held) + atomic64_read(&k->spares);
}

/* Has the page's memory failed? Its content must not be touched then. */
static inline bool kmemfs_damaged(const struct kmemfs *k, u32 page)
{
	return PageHWPoison(kmemfs_page(k, page));
}

/* persist.c */
int kmemfs_register_persist(void);
unsigned long kmemfs_free_pages(const struct kmemfs *k);
void kmemfs_media_init(struct kmemfs *k, struct kmemfs_media *m);
void kmemfs_flush(struct kmemfs_sink *s, enum kmem_persist_step step, const void *addr,
		  size_t len);
void kmemfs_fence(struct kmemfs_sink *s, enum kmem_persist_step step);

/* load.c */
int kmemfs_load(struct kmemfs *k, struct super_block *sb);
void kmemfs_unload(struct kmemfs *k);

/* record.c */
void kmemfs_write_record(struct kmemfs_inode_record *record, const struct kmemfs_inode *ki);
void kmemfs_write_link(struct kmemfs_inode_record *record, const struct kmemfs_name *n);
int kmemfs_read_record(struct kmemfs_inode *ki, const struct kmemfs_inode_record *record);

/* Pages that are kept back for changes that make space */
#define KMEMFS_RESERVE_MIN	256

/* reserve.c */
void kmemfs_reserve_init(struct kmemfs_reserve *r);
void kmemfs_reserve_give(struct kmemfs *k, u32 page);
void kmemfs_reserve_return(struct kmemfs *k, u32 page);
u32 kmemfs_reserve_take(struct kmemfs *k);
u32 kmemfs_reserve_take_data(struct kmemfs *k);
u32 kmemfs_reserve_take_freeing(struct kmemfs *k);
void kmemfs_reserve_set_data(struct kmemfs *k, unsigned long nr);
bool kmemfs_reserve_fill(struct kmemfs *k);
void kmemfs_reserve_drop(struct kmemfs *k);
void kmemfs_reserve_trim(struct kmemfs *k);
void kmemfs_reserve_count(struct kmemfs *k, long leaves, long new_leaves);
void kmemfs_reserve_committed(struct kmemfs *k, unsigned long index, unsigned long span,
			      unsigned long coming);
int kmemfs_reserve_leaf(struct kmemfs *k, unsigned long n);
bool kmemfs_reserve_add(struct kmemfs *k, unsigned long more);
bool kmemfs_reserve_change(struct kmemfs *k, unsigned long old, unsigned long need);
int kmemfs_reserve_trees(struct kmemfs *k, unsigned long nr);
void kmemfs_unreserve_trees(struct kmemfs *k, unsigned long nr);

/* plan.c */
int kmemfs_plan(struct inode *inode, unsigned long runs, enum kmemfs_change what);
void kmemfs_unplan(struct inode *inode, unsigned long runs);
void kmemfs_begin_planned(struct inode *inode, unsigned long runs);
int kmemfs_begin(struct inode *inode, unsigned long runs, enum kmemfs_change what);
void kmemfs_end(struct inode *inode, unsigned long runs);
void kmemfs_trees_done(struct kmemfs_inode *ki, const struct kmemfs_tree_ref *tree);
void kmemfs_trees_forget(struct kmemfs_inode *ki);
unsigned long kmemfs_tree_bound(const struct kmemfs_inode *ki);
unsigned long kmemfs_tree_budget(struct kmemfs_inode *ki);
unsigned long kmemfs_upgrade_need(const struct kmemfs_inode *ki);
unsigned long kmemfs_rope_most(unsigned long entries);
int kmemfs_trees_adopt(struct kmemfs_inode *ki);
int kmemfs_begin_xattrs(struct inode *inode, unsigned int pages, enum kmemfs_change what);
void kmemfs_xattrs_done(struct kmemfs_inode *ki, u64 page);

/* limit.c */
int kmemfs_limit_init(struct kmemfs *k);
void kmemfs_limit_set(struct kmemfs *k, u64 pages);
void kmemfs_limit_committed(struct kmemfs *k);
bool kmemfs_may_exceed(struct kmemfs *k);
void kmemfs_limit_exit(struct kmemfs *k);
void __kmemfs_hold(struct kmemfs *k, const u32 *pages, unsigned long nr);
void __kmemfs_unhold(struct kmemfs *k, const u32 *pages, unsigned long nr);
bool kmemfs_may_hold(struct kmemfs *k, const u32 *pages, unsigned long nr);
u32 kmemfs_alloc_page(struct kmemfs *k, gfp_t gfp);
u64 kmemfs_max_table_bytes(const struct kmemfs *k, bool mounting);
int kmemfs_charge_table(struct kmemfs *k, size_t bytes);
bool kmemfs_make_space(struct kmemfs *k);

static inline void kmemfs_uncharge_table(struct kmemfs *k, size_t bytes)
{
	atomic64_sub(bytes, &k->table_bytes);
}

/* What a further name takes */
#define KMEMFS_NAME_BYTES	(sizeof(struct kmemfs_name) + sizeof(struct dentry))
/* What an inode takes besides its page table and attributes */
#define KMEMFS_INODE_BYTES	(sizeof(struct kmemfs_inode) + KMEMFS_NAME_BYTES)

/* Entries of a page table or pending ones come into being, or go */
static inline void kmemfs_hold(struct kmemfs *k, const u32 *pages, unsigned long nr)
{
	if (k->owners)
		__kmemfs_hold(k, pages, nr);
}

static inline void kmemfs_unhold(struct kmemfs *k, const u32 *pages, unsigned long nr)
{
	if (k->owners)
		__kmemfs_unhold(k, pages, nr);
}

/* super.c */
void kmemfs_fail(struct kmemfs *k, const char *why);
void kmemfs_stop(struct kmemfs *k, const char *what, const char *why);
int kmemfs_writable(const struct inode *inode);
void kmemfs_changed(struct kmemfs *k);
void kmemfs_iterate_supers(void (*f)(struct super_block *sb, void *arg), void *arg);
extern struct kmem_cache *kmemfs_chunk_cache;

/* name.c */
struct kmemfs_name *kmemfs_new_name(const char *name, size_t len, u64 parent);
void kmemfs_free_name(struct kmemfs_name *n);
void kmemfs_add_name(struct kmemfs_inode *ki, struct kmemfs_name *n);
void kmemfs_drop_name(struct kmemfs *k, struct kmemfs_name *n);
void kmemfs_free_slot(struct kmemfs *k, unsigned long slot);
const char *kmemfs_name_of(struct kmemfs_inode *ki);

/* xattr.c */
int kmemfs_init_xattrs(struct inode *inode, struct inode *dir, const struct qstr *name);
struct posix_acl *kmemfs_get_inode_acl(struct inode *inode, int type, bool rcu);
int kmemfs_chmod_acl(struct mnt_idmap *idmap, struct inode *inode, const struct iattr *attr);
int kmemfs_set_acl(struct mnt_idmap *idmap, struct dentry *dentry, struct posix_acl *acl,
		   int type);
ssize_t kmemfs_listxattr(struct dentry *dentry, char *buffer, size_t size);
size_t kmemfs_xattrs_memory(u32 len);
int kmemfs_commit_xattrs(struct kmemfs_inode *ki, struct kmemfs_sink *s);
void kmemfs_record_xattrs(const struct kmemfs_inode *ki, struct kmemfs_inode_record *record);
int kmemfs_load_xattrs(struct kmemfs_inode *ki, const void *bytes, u32 len);
void kmemfs_drop_xattrs(struct kmemfs_inode *ki);
extern const struct xattr_handler *const kmemfs_xattr_handlers[];

/* inode.c */
struct inode *kmemfs_new_inode(struct super_block *sb, struct mnt_idmap *idmap,
			       const struct inode *dir, umode_t mode, u64 ino);
struct inode *kmemfs_create_inode(struct mnt_idmap *idmap, struct inode *dir,
				  const struct qstr *name, umode_t mode, dev_t rdev);
void kmemfs_abort_inode(struct inode *inode);
void kmemfs_dirty_inode(struct inode *inode, int flags);
void kmemfs_dirty_leaf(struct kmemfs *k, unsigned long number);
void kmemfs_evict_inode(struct inode *inode);
void kmemfs_touch(struct inode *inode);
void kmemfs_unmap_beyond(struct inode *inode, loff_t size);
void kmemfs_cut(struct inode *inode, loff_t size);
int kmemfs_truncate(struct inode *inode, loff_t size);
int kmemfs_truncate_locked(struct inode *inode, loff_t size);
int kmemfs_setattr(struct mnt_idmap *idmap, struct dentry *dentry, struct iattr *attr);
int kmemfs_getattr(struct mnt_idmap *idmap, const struct path *path, struct kstat *stat,
		   u32 request_mask, unsigned int query_flags);
extern const struct inode_operations kmemfs_file_iops;
extern const struct inode_operations kmemfs_symlink_iops;

/* dir.c */
extern const struct inode_operations kmemfs_dir_iops;
extern const struct file_operations kmemfs_dir_fops;

/**
 * struct kmemfs_scan - the runs of a file's page table, one after the other
 * @ki: the file; commits are held up, or this is one
 * @flush: note here which pages must be written back; NULL: do not
 * @at: where to go on
 * @end: where to stop
 * @start: of the run found
 * @nr: its pages
 * @page: its first device page
 * @chunk: that @at is in, or NULL
 * @ci: the chunk's number
 */
struct kmemfs_scan {
	struct kmemfs_inode *ki;
	struct kmemfs *flush;
	u64 at;
	u64 end;
	u64 start;
	u64 nr;
	u32 page;
	const struct kmemfs_chunk *chunk;
	unsigned long ci;
};

/* table.c */
unsigned long kmemfs_next_chunk(struct kmemfs_inode *ki, unsigned long index);
bool kmemfs_any_in_range(struct kmemfs_inode *ki, unsigned long index, unsigned long end);
bool kmemfs_any_entry(struct kmemfs_inode *ki, unsigned long index, unsigned long nr);
unsigned long kmemfs_get_pages(struct kmemfs_inode *ki, unsigned long index, unsigned long nr,
			       u32 *pages);
int kmemfs_prepare(struct kmemfs_inode *ki, unsigned long index, unsigned long nr);
unsigned long kmemfs_count_runs(const u32 *pages, unsigned long nr);
void kmemfs_set_entries(struct kmemfs_inode *ki, unsigned long index, unsigned long nr,
			u32 *pages);
void kmemfs_drop_range(struct kmemfs_inode *ki, unsigned long index, unsigned long end);
void kmemfs_drop_all(struct kmemfs_inode *ki);
int kmemfs_load_run(struct kmemfs_inode *ki, unsigned long index, unsigned long count, u32 page);
loff_t kmemfs_seek(struct kmemfs_inode *ki, loff_t offset, int whence, loff_t size);
u32 *kmemfs_entry_locked(struct kmemfs_inode *ki, unsigned long index);
void kmemfs_rewrites(struct kmemfs *k, u32 page);
bool kmemfs_next_run(struct kmemfs_scan *s);

/* pending.c */
void kmemfs_add_pending(struct kmemfs *k, const u32 *pages, unsigned long nr);
void kmemfs_add_pending_chunk(struct kmemfs *k, struct kmemfs_chunk *chunk);
void kmemfs_take_pending(struct kmemfs *k, struct list_head *chunks);
void kmemfs_put_pending(struct kmemfs *k, struct list_head *chunks, bool release);

/* For fresh pages */
#define KMEMFS_GFP		(GFP_HIGHUSER_MOVABLE | __GFP_NOWARN)

/* file.c */
int kmemfs_copy_page(struct inode *inode, unsigned long index, enum kmemfs_change what,
		     u32 *page);
int kmemfs_set_fresh(struct inode *inode, unsigned long index, u32 page, loff_t end,
		     enum kmemfs_change what);
int kmemfs_store(struct inode *inode, const void *data, size_t len);
int kmemfs_own_page(struct inode *inode, unsigned long index);
int kmemfs_store_page(struct inode *inode, unsigned long index, const void *data, u32 spare);
extern const struct file_operations kmemfs_file_fops;

/* space.c */
int kmemfs_zero_tail(struct inode *inode, loff_t size, enum kmemfs_change what);
long kmemfs_fallocate(struct file *file, int mode, loff_t offset, loff_t len);
loff_t kmemfs_llseek(struct file *file, loff_t offset, int whence);
loff_t kmemfs_remap_file_range(struct file *in, loff_t pos_in, struct file *out, loff_t pos_out,
			       loff_t len, unsigned int flags);

/* splice.c */
#ifdef CONFIG_KMEMFS_SPLICE
ssize_t kmemfs_splice_write(struct pipe_inode_info *pipe, struct file *out, loff_t *ppos,
			    size_t len, unsigned int flags);
#else
#define kmemfs_splice_write	iter_file_splice_write
#endif

/* poison.c */
int kmemfs_copy_content(const struct kmemfs *k, struct page *to, u32 page);
void kmemfs_name_damage(struct kmemfs_inode *ki, u64 file_page, u64 count, u64 page);
int kmemfs_register_poison(void);

/* mmap.c */
int kmemfs_mmap(struct file *file, struct vm_area_struct *vma);
struct folio *kmemfs_lock_cached(struct inode *inode, unsigned long index);
void kmemfs_unlock_cached(struct inode *inode, struct folio *folio);
int kmemfs_clean_end(struct inode *inode);
int kmemfs_write_begin(struct inode *inode, loff_t pos);
void kmemfs_drop_cached(struct inode *inode, unsigned long index, unsigned long nr);
int kmemfs_replace_begin(struct inode *inode, unsigned long index, unsigned long nr,
			 unsigned long runs);
void kmemfs_replace_end(struct inode *inode, unsigned long runs);
bool kmemfs_any_cached(struct inode *inode, loff_t pos, size_t len);
ssize_t kmemfs_read_cached(struct inode *inode, loff_t pos, size_t len, struct iov_iter *to);
extern const struct address_space_operations kmemfs_aops;

/* ioctl.c */
long kmemfs_ioctl(struct file *file, unsigned int cmd, unsigned long arg);

/* capture.c, read_install.c */
#ifdef CONFIG_KMEMFS_BYREF
int kmemfs_ioc_capture(struct file *file, struct kmemfs_capture __user *arg);
unsigned long kmemfs_read_install(struct kmemfs *k, struct iov_iter *to, u32 *pages,
				  unsigned long nr, unsigned long *copy);
#else
static inline int kmemfs_ioc_capture(struct file *file, struct kmemfs_capture __user *arg)
{
	return -ENOTTY;
}

static inline unsigned long kmemfs_read_install(struct kmemfs *k, struct iov_iter *to, u32 *pages,
						unsigned long nr, unsigned long *copy)
{
	*copy = nr;
	return 0;
}
#endif

/* index.c */
int kmemfs_load_index(struct kmemfs_table *t, unsigned int level, u64 first, u64 page);
void kmemfs_table_init(struct kmemfs_table *t, u64 owner);
void kmemfs_table_destroy(struct kmemfs_table *t);

/* rope.c */
unsigned long kmemfs_rope_pages(unsigned long entries);
size_t kmemfs_rope_bytes(const struct kmemfs_rope *rope);
size_t kmemfs_rope_growth(const struct kmemfs_rope *rope, unsigned int l);
void kmemfs_free_rope(struct kmemfs_rope *rope);
int kmemfs_rope_add(struct kmemfs_rope *rope, unsigned int l, const struct kmemfs_piece *piece);

/* rope_commit.c */
int kmemfs_share(struct kmemfs *k, u32 page);

/* commit.c */
int kmemfs_commit(struct kmemfs *k);
int kmemfs_commit_all(struct kmemfs *k);
int kmemfs_commit_locked(struct kmemfs *k, unsigned int version);
int kmemfs_fsync(struct file *file, loff_t start, loff_t end, int datasync);
int kmemfs_pages_add(struct kmemfs_pages *list, u32 page);
void kmemfs_pages_free(struct kmemfs_pages *list);

/* sums.c */
void kmemfs_clear_sum(struct kmemfs *k, u32 page);
u32 kmemfs_get_sum(struct kmemfs *k, u32 page);
int kmemfs_make_sums(struct kmemfs *k);
int kmemfs_sum_all(struct kmemfs *k);
void kmemfs_sums_wanted(struct kmemfs *k, u32 page);
void kmemfs_sums_kick(struct kmemfs *k);
size_t kmemfs_sums_memory(void);
void kmemfs_sums_init(struct kmemfs *k);
void kmemfs_sums_stop(struct kmemfs *k);
void kmemfs_sums_exit(struct kmemfs *k);
int kmemfs_register_sums(void);

/* sums_media.c */
unsigned long kmemfs_sums_commits(struct kmemfs *k);
int kmemfs_load_sums(struct kmemfs *k, unsigned long n, u64 page, const struct kmemfs_sums *sums,
		     bool *hold);
void kmemfs_sums_count_for(struct kmemfs *k, u32 page, unsigned long count);
int kmemfs_lose_sums(struct kmemfs *k, unsigned long n, unsigned long count);
bool kmemfs_is_sums_page(struct kmemfs *k, u64 page, enum kmemfs_page_kind kind);
void kmemfs_sums_loaded(struct kmemfs *k, bool failed);

/* verify.c */
int kmemfs_ioc_verify(struct file *file, struct kmemfs_verify_range __user *arg);
int kmemfs_ioc_sum(struct file *file, unsigned long flags);

/* upgrade.c */
int kmemfs_upgrade(struct kmemfs *k);

#endif /* KMEMFS_H */
