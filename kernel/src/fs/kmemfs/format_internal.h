/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* What the files format*.c share */
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

/**
 * struct kmemfs_walk - a walk that is under way
 * @m: the device
 * @root: where it started
 * @v: callbacks
 * @ctx: for the callbacks
 * @why: out: reason of a failure
 * @checked: bit per device page: SEGMENT and NODE pages with it have been found to
 *	hold, and bytes do not change; NULL: not known of any
 * @records_only: leave out all but the inode table
 * @without_sums: leave out the table of checksums
 * @visits: pages of version 2 file trees reached
 * @again: entries of those that the caller had been told of before
 */
struct kmemfs_walk {
	const struct kmemfs_media *m;
	const struct kmemfs_root_info *root;
	const struct kmemfs_visitor *v;
	void *ctx;
	struct kmem_persist_why *why;
	const unsigned long *checked;
	bool records_only;
	bool without_sums;
	u64 visits;
	u64 again;
};

/* kmemfs_walk(), as @w says */
int kmemfs_walk_with(struct kmemfs_walk *w);

/* The table of checksums, of which there is one, alone */
int kmemfs_walk_sums(const struct kmemfs_walk *w);

/* What the head of a page must say */
struct kmemfs_expect {
	enum kmemfs_page_kind kind;
	u32 level;
	u64 owner;
	u32 max_nr;
};

/* The page's bytes, head checked but for @first; NULL with the reason in w->why */
const void *kmemfs_page_read(const struct kmemfs_walk *w, u64 page,
			     const struct kmemfs_expect *e);
/* Whether a page that can be read in any case is one of w->checked */
bool kmemfs_page_checked(const struct kmemfs_walk *w, u64 page);
int kmemfs_first_check(const struct kmemfs_walk *w, u64 page,
		       const struct kmemfs_page_head *head, u64 first);
int kmemfs_report_meta(const struct kmemfs_walk *w, u64 page, enum kmemfs_page_kind kind,
		       u32 level);
/* w->why has the reason. -EUCLEAN if the walk is to end, else what the callback says */
int kmemfs_report_damage(const struct kmemfs_walk *w, u64 page, u64 ino, u64 at, u64 count);

/**
 * struct kmemfs_walk_tree - a walk over the leaves of a table or an extent tree
 * @w: the walk it is part of
 * @owner: for the pages' heads
 * @nr_leaves: of a table, absent ones included; KMEMFS_ANY_LEAVES: an extent tree,
 *	where the leaves are as many as there are and none is absent
 * @height: index levels above the leaves
 * @level: of the pages in the list to go on with
 * @passed: leaves passed so far, absent ones included
 * @lost: after -EUCLEAN: leaves below the page that does not hold; in an extent
 *	tree 0, as nobody knows
 * @unsure: leaves of an extent tree were lost: @passed is what has passed at least
 * @top: list of one page
 * @list: lists being passed; those at index l are pages of level l
 */
struct kmemfs_walk_tree {
	const struct kmemfs_walk *w;
	u64 owner;
	u64 nr_leaves;
	u32 height;
	u32 level;
	u64 passed;
	u64 lost;
	bool unsure;
	__le64 top;
	struct {
		const __le64 *page;
		u32 nr;
		u32 next;
	} list[KMEMFS_MAX_HEIGHT + 1];
};

#define KMEMFS_ANY_LEAVES	(~0ULL)

/* The caller has checked that @height is at most KMEMFS_MAX_HEIGHT */
void kmemfs_walk_tree_init(struct kmemfs_walk_tree *t, const struct kmemfs_walk *w, u64 owner,
			   u64 top, u32 height, u64 nr_leaves);
/*
 * Find the next leaf: *@page, and *@nr in the order of leaves. 1; 0: no more;
 * -EUCLEAN: index page *@page does not hold, behind which the next call goes on, and
 * *@nr is the first of t->lost leaves; or what a callback returned
 */
int kmemfs_walk_tree_next(struct kmemfs_walk_tree *t, u64 *page, u64 *nr);

/* Whether the record of number @ino holds, by itself: 0 or -EUCLEAN */
int kmemfs_check_record(const struct kmemfs_walk *w, u64 ino,
			const struct kmemfs_inode_record *r);
/* Visit the XATTRS page of an inode whose record holds, if there is one */
int kmemfs_walk_xattrs(const struct kmemfs_walk *w, const struct kmemfs_inode_record *r);
/* Visit the file tree of an inode whose record holds */
int kmemfs_walk_file(struct kmemfs_walk *w, const struct kmemfs_inode_record *r);

static inline bool kmemfs_is_link(const struct kmemfs_inode_record *r)
{
	return le32_to_cpu(r->flags) & KMEMFS_RECORD_LINK;
}

#endif /* KMEMFS_FORMAT_INTERNAL_H */
