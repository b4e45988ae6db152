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

/* Pages of a commit that must succeed when the pool is full, so that rm works */
#define KMEMFS_RESERVE_PAGES	256

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
 * @entry: device pages, each with the reference that the file holds
 */
struct kmemfs_chunk {
	struct list_head list;
	unsigned int nr;
	u32 entry[KMEMFS_CHUNK_SIZE];
};

/**
 * struct kmemfs_tree_ref - an extent tree on media
 * @top: page, 0 if there is none
 * @height: index levels above the leaves
 * @nr_runs: runs in it
 */
struct kmemfs_tree_ref {
	u64 top;
	u64 nr_runs;
	u32 height;
};

/**
 * struct kmemfs_inode - an inode in memory
 * @vfs: the VFS's part
 * @lock: guards @chunks' entries and @nr_pages. A reader takes page references
 *	under it; a page with the file's reference only is written under it.
 * @chunks: page table, by page number >> KMEMFS_CHUNK_SHIFT. Chunks come and
 *	go under i_rwsem.
 * @nr_pages: entries that are not holes
 * @data_dirty: the page table differs from @tree's. kmemfs.commit_sem.
 * @tree: the extent tree of the last commit. kmemfs.commit_lock.
 * @new_tree: that of the commit being written
 * @parent: inode number of the directory. kmemfs.commit_sem.
 * @name: its name there, KMEMFS_NAME_MAX at most; NULL once unlinked.
 *	kmemfs.commit_sem.
 * @btime: time of birth
 * @below: while mounting: next inode on the way down to one that gets its name
 */
struct kmemfs_inode {
	struct inode vfs;
	spinlock_t lock;	/* page table */
	struct xarray chunks;
	unsigned long nr_pages;
	bool data_dirty;
	struct kmemfs_tree_ref tree;
	struct kmemfs_tree_ref new_tree;
	u64 parent;
	char *name;
	struct timespec64 btime;
	struct kmemfs_inode *below;
};

enum kmemfs_counter {
	KMEMFS_CAPTURED_BY_REFERENCE,
	KMEMFS_CAPTURED_SHARED,
	KMEMFS_CAPTURED_COPIED,
	KMEMFS_READ_INSTALLED,
	KMEMFS_READ_COPIED,
	KMEMFS_FLUSHED,
	KMEMFS_NR_COUNTERS,
};

/**
 * struct kmemfs - a pool: lives as long as its device is attached
 * @kp: the device
 * @region: its pages
 * @sb: the mount, NULL while not mounted
 * @byref: read(2) maps pages instead of copying them
 * @commit_interval: seconds from a change to its commit, 0: on demand only
 * @commit_sem: read: to change anything that a commit writes; write: to
 *	collect what a commit writes. Never held across a user space fault.
 * @commit_lock: one commit at a time; guards @slot, @generation, @index and
 *	@reserve
 * @commit_work: the interval's
 * @dirty: there is something to commit
 * @slot: root slot that rules
 * @root: what it says
 * @leaves: inode table: leaf number -> its device page (0: none yet), as
 *	value entries; KMEMFS_LEAF_DIRTY marks those to be written
 * @index: device pages of the inode table's inner pages
 * @nr_index: how many
 * @inodes: inode number -> struct kmemfs_inode, linked ones
 * @inos: numbers in use
 * @pending_lock: guards @pending and @pending_tail
 * @pending: chunks of pages that the last commit has and memory has no more
 * @pending_tail: chunk of the list's single pages; NULL: none
 * @durable: bit per device page: written back since it got its content
 * @flushing: bit per device page: the commit being written must write it back
 * @reserve: pages for a commit when there is no other
 * @nr_reserve: how many
 * @file_pages: entries of all page tables
 * @counter: for KMEMFS_IOC_INFO
 */
struct kmemfs {
	struct kmem_persist *kp;
	struct pool_region region;
	struct super_block *sb;
	bool byref;
	unsigned int commit_interval;

	struct rw_semaphore commit_sem;
	struct mutex commit_lock;	/* one commit at a time */
	struct delayed_work commit_work;
	bool dirty;

	unsigned int slot;
	struct kmemfs_root_info root;
	struct xarray leaves;
	u32 *index;
	unsigned int nr_index;
	struct xarray inodes;
	struct ida inos;

	spinlock_t pending_lock;	/* pending, pending_tail */
	struct list_head pending;
	struct kmemfs_chunk *pending_tail;
	unsigned long *durable;
	unsigned long *flushing;
	u32 reserve[KMEMFS_RESERVE_PAGES];
	unsigned int nr_reserve;

	atomic64_t file_pages;
	atomic64_t counter[KMEMFS_NR_COUNTERS];
};

#define KMEMFS_LEAF_DIRTY	XA_MARK_1

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

/* persist.c */
int kmemfs_register_persist(void);
unsigned long kmemfs_free_pages(const struct kmemfs *k);
void kmemfs_media_init(struct kmemfs *k, struct kmemfs_media *m);

/* load.c */
int kmemfs_load(struct kmemfs *k, struct super_block *sb);
void kmemfs_unload(struct kmemfs *k);

/* super.c */
void kmemfs_changed(struct kmemfs *k);
extern struct kmem_cache *kmemfs_chunk_cache;

/* inode.c */
struct inode *kmemfs_new_inode(struct super_block *sb, const struct inode *dir, umode_t mode,
			       u64 ino);
struct inode *kmemfs_create_inode(struct mnt_idmap *idmap, struct inode *dir,
				  const struct qstr *name, umode_t mode);
void kmemfs_abort_inode(struct inode *inode);
void kmemfs_dirty_inode(struct inode *inode, int flags);
void kmemfs_evict_inode(struct inode *inode);
void kmemfs_touch(struct inode *inode);
int kmemfs_truncate(struct inode *inode, loff_t size);
int kmemfs_setattr(struct mnt_idmap *idmap, struct dentry *dentry, struct iattr *attr);
int kmemfs_getattr(struct mnt_idmap *idmap, const struct path *path, struct kstat *stat,
		   u32 request_mask, unsigned int query_flags);
extern const struct inode_operations kmemfs_file_iops;
extern const struct inode_operations kmemfs_symlink_iops;

/* dir.c */
extern const struct inode_operations kmemfs_dir_iops;
extern const struct file_operations kmemfs_dir_fops;

/* table.c */
unsigned long kmemfs_get_pages(struct kmemfs_inode *ki, unsigned long index, unsigned long nr,
			       u32 *pages);
int kmemfs_prepare(struct kmemfs_inode *ki, unsigned long index, unsigned long nr);
void kmemfs_set_entries(struct kmemfs_inode *ki, unsigned long index, unsigned long nr,
			u32 *pages);
void kmemfs_drop_range(struct kmemfs_inode *ki, unsigned long index, unsigned long end);
void kmemfs_drop_all(struct kmemfs_inode *ki);
int kmemfs_load_run(struct kmemfs_inode *ki, unsigned long index, unsigned long count, u32 page);
loff_t kmemfs_seek(struct kmemfs_inode *ki, loff_t offset, int whence, loff_t size);
u32 *kmemfs_entry_locked(struct kmemfs_inode *ki, unsigned long index);
void kmemfs_add_pending(struct kmemfs *k, const u32 *pages, unsigned long nr);
void kmemfs_take_pending(struct kmemfs *k, struct list_head *chunks);
void kmemfs_put_pending(struct kmemfs *k, struct list_head *chunks, bool release);

/* file.c */
int kmemfs_store(struct inode *inode, const void *data, size_t len);
int kmemfs_zero_tail(struct inode *inode, loff_t size);
void kmemfs_invalidate(struct inode *inode, unsigned long index, unsigned long nr);
extern const struct file_operations kmemfs_file_fops;

/* mmap.c */
int kmemfs_mmap(struct file *file, struct vm_area_struct *vma);
extern const struct address_space_operations kmemfs_aops;

/* ioctl.c */
long kmemfs_ioctl(struct file *file, unsigned int cmd, unsigned long arg);

/* commit.c */
int kmemfs_commit(struct kmemfs *k);
int kmemfs_fsync(struct file *file, loff_t start, loff_t end, int datasync);
void kmemfs_refill_reserve(struct kmemfs *k);

#endif /* KMEMFS_H */
