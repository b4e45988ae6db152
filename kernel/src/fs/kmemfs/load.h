/* SPDX-License-Identifier: GPL-2.0 */
/*
 * kmemfs: what load.c and rescue.c share
 */
#ifndef KMEMFS_LOAD_H
#define KMEMFS_LOAD_H

#include "kmemfs.h"

/**
 * struct kmemfs_loading - a tree being loaded
 * @k: the pool
 * @sb: the mount
 * @media: the device
 * @ki: the inode whose runs come
 * @next_chunk: of its page table: the chunks before are there, or will not be
 * @rope: version 2: its tree
 * @shared: others have a page of it, too
 * @summed: checksums count for the pages of its segment that comes
 * @most: memory that all may take
 * @lost: kmemfs.rescue: number of a directory that cannot be reached ->
 *	struct kmemfs_inode of what is there in its place
 * @reached: kmemfs.rescue: bit per device page: of a file's tree, and visited; or NULL
 * @told: lines in the log about damage, and those that were too many
 * @sums_left_out: pages of checksums for which there was no memory, so that they are not held
 */
struct kmemfs_loading {
	struct kmemfs *k;
	struct super_block *sb;
	struct kmemfs_media media;
	struct kmemfs_inode *ki;
	u64 next_chunk;
	struct kmemfs_rope *rope;
	bool shared;
	bool summed;
	u64 most;
	struct xarray lost;
	unsigned long *reached;
	unsigned long told;
	unsigned long sums_left_out;
};

/* load.c */
int kmemfs_load_charge(struct kmemfs_loading *l, u64 bytes);
struct kmemfs_inode *kmemfs_load_directory(struct kmemfs_loading *l, u64 ino, const char *name);
int kmemfs_load_name(struct kmemfs_loading *l, struct kmemfs_name *n);

static inline bool kmemfs_has_name(const struct kmemfs_inode *ki)
{
	return !hlist_empty(&ki->vfs.i_dentry);
}

/* rescue.c */
int kmemfs_rescue_damage(void *ctx, __u64 page, __u64 ino, __u64 file_page, __u64 count,
			 const char *why);
struct kmemfs_inode *kmemfs_rescue_parent(struct kmemfs_loading *l, struct kmemfs_name *n);
int kmemfs_rescue_no_memory(struct kmemfs_loading *l, u64 file_page);
int kmemfs_rescue_name(struct kmemfs_loading *l, struct dentry *parent, struct kmemfs_name *n);
void kmemfs_rescue_no_target(struct kmemfs_loading *l, const struct kmemfs_name *n);
void kmemfs_rescue_done(struct kmemfs_loading *l);

#endif /* KMEMFS_LOAD_H */
