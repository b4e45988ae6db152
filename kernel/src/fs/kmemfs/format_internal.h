/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* What format.c, format_verify.c and format_write.c share */
#ifndef KMEMFS_FORMAT_INTERNAL_H
#define KMEMFS_FORMAT_INTERNAL_H

#ifdef __KERNEL__
#include <linux/bits.h>
#include <linux/build_bug.h>
#include <linux/crc32.h>
#include <linux/errno.h>
#include <linux/kernel.h>
#include <linux/sched.h>
#include <linux/sort.h>
#include <linux/stat.h>
#include <linux/string.h>
#else
#include "format_compat.h"
#endif

#include "format.h"

/* Fill @why and give -EUCLEAN; __VA_ARGS__ starts with the format */
#define kmemfs_refuse(why, ...) \
	(kmem_persist_why_set(why, __VA_ARGS__), -EUCLEAN)

static inline u32 kmemfs_page_crc(const void *page)
{
	return kmem_persist_page_crc(page, offsetof(struct kmemfs_page_head, crc));
}

static inline bool kmemfs_all_zero(const void *from, const void *to)
{
	const u8 *p = from;
	const u8 *end = to;

	while (p < end)
		if (*p++)
			return false;
	return true;
}

static inline bool kmemfs_is_v2(const struct kmemfs_root_info *info)
{
	return info->version == 2;
}

/* The device is one that the format can describe: 0 or -EUCLEAN */
int kmemfs_media_check(const struct kmemfs_media *m, struct kmem_persist_why *why);

/* The device is, and the root's fields suit it and each other: 0 or -EUCLEAN */
int kmemfs_root_check_counts(const struct kmemfs_media *m, const struct kmemfs_root_info *info,
			     struct kmem_persist_why *why);

/*
 * As kmemfs_walk(), but with the extent trees left out if @runs is false.
 */
int kmemfs_walk_table(const struct kmemfs_media *m, const struct kmemfs_root_info *root,
		      const struct kmemfs_visitor *v, void *ctx, bool runs,
		      struct kmem_persist_why *why);

#endif /* KMEMFS_FORMAT_INTERNAL_H */
