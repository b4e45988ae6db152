/* SPDX-License-Identifier: GPL-2.0 */
/* What the files about checksums share */
#ifndef KMEMFS_SUMS_H
#define KMEMFS_SUMS_H

#include "commit.h"

/* On leaves of the table: media has sums of it that are here no more. As KMEMFS_LEAF_DIRTY. */
#define KMEMFS_LEAF_CLEARED	XA_MARK_2

/**
 * struct kmemfs_sums_leaf - a leaf of the table of checksums in memory
 * @sum: as in struct kmemfs_sums, in host order
 */
struct kmemfs_sums_leaf {
	u32 sum[KMEMFS_SUMS_PER_PAGE];
};

/* sums.c */
void kmemfs_sums_dirty(struct kmemfs *k, unsigned long leaf);
void kmemfs_sums_cleared(struct kmemfs *k, unsigned long leaf);
void kmemfs_sums_copy(struct kmemfs *k, unsigned long n, u32 *sum);

#endif /* KMEMFS_SUMS_H */
