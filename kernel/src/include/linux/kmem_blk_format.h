/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * What a KMEM device of type BLK has on media, as pure functions over bytes;
 * compiles in the kernel and in user space.
 */
#ifndef _LINUX_KMEM_BLK_FORMAT_H
#define _LINUX_KMEM_BLK_FORMAT_H

#include <linux/kmem_persist_header.h>
#include <linux/kmem_persist_step.h>

#ifdef __cplusplus
extern "C" {
#endif

#define KMEM_BLK_MAGIC		KMEM_PERSIST_ROOT_BLK
#define KMEM_BLK_BLOCK_SIZE	KMEM_PERSIST_PAGE_SIZE

/* The superblock is page 1, page 2 is zero, and the map comes next. */
#define KMEM_BLK_SUPER_PAGE	1
#define KMEM_BLK_MAP_PAGE	KMEM_PERSIST_HEAD_PAGES
#define KMEM_BLK_MAP_ENTRIES	512U		/* in a page */

/* Page numbers in the map have 32 bits. */
#define KMEM_BLK_MAX_PAGES	0x100000000ULL

/**
 * struct kmem_blk_super - page 1 of the device, little-endian; written once
 * @magic: KMEM_BLK_MAGIC
 * @crc: crc32c of the page, this field taken as zero
 * @uuid: as in the device's header
 * @nr_blocks: capacity in blocks, which is also the number of map entries
 * @incompat: features without which the device must not be used: none yet
 * @compat: features that a reader may ignore: none yet
 * @reserved: zero
 */
struct kmem_blk_super {
	__le32	magic;
	__le32	crc;
	__u8	uuid[16];
	__le64	nr_blocks;
	__le64	incompat;
	__le64	compat;
	__u8	reserved[KMEM_PERSIST_PAGE_SIZE - 48];
};

/**
 * struct kmem_blk_layout - where things are, from a verified superblock
 * @nr_blocks: capacity
 * @map_pages: pages of the map, from page KMEM_BLK_MAP_PAGE on
 * @first: first device page that may hold a block
 * @end: one past the last
 * @seed: of the check bits in map entries
 */
struct kmem_blk_layout {
	__u64 nr_blocks;
	__u64 map_pages;
	__u64 first;
	__u64 end;
	__u32 seed;
};

/* The largest capacity of a device of @nr_pages pages, in blocks; 0: too small */
__u64 kmem_blk_max_blocks(__u64 nr_pages);

static inline __u64 kmem_blk_map_pages(__u64 nr_blocks)
{
	return (nr_blocks + KMEM_BLK_MAP_ENTRIES - 1) / KMEM_BLK_MAP_ENTRIES;
}

/**
 * kmem_blk_mkfs() - make a device on which no block is stored
 * @pages: out: those from KMEM_BLK_SUPER_PAGE to the end of the map
 * @uuid: as in the device's header, which is up to the caller
 * @nr_blocks: capacity, at least 1 and at most kmem_blk_max_blocks()
 */
void kmem_blk_mkfs(void *pages, const __u8 uuid[16], __u64 nr_blocks);

/**
 * kmem_blk_layout_read() - decide whether a superblock can be trusted
 * @head: pages 0 to KMEM_BLK_MAP_PAGE - 1 of the device
 * @nr_pages: of the device
 * @layout: out; pages from the end of the map to @nr_pages may hold blocks
 * @why: out: reason of a refusal; may be NULL
 *
 * Return: 0; -EUCLEAN if damaged; -EOPNOTSUPP if the device is too large or has
 * unknown incompat features.
 */
int kmem_blk_layout_read(const void *head, __u64 nr_pages, struct kmem_blk_layout *layout,
			 struct kmem_persist_why *why);

/* The entry that says: @block is in @page; @page 0: @block is not stored */
__le64 kmem_blk_entry(const struct kmem_blk_layout *layout, __u64 block, __u32 page);

/* What the entry of @block says; -EUCLEAN if it is not one, or of another block */
__s64 kmem_blk_entry_page(const struct kmem_blk_layout *layout, __u64 block, __le64 entry);

/**
 * kmem_blk_map_verify() - decide whether a map can be trusted
 * @layout: from kmem_blk_layout_read(), with @first and @end narrowed to what
 *	can be memory
 * @map: all of its pages
 * @used: a bit for each device page, zero; out: set for those that hold blocks
 * @nr_used: out: how many these are
 * @why: out: reason of a refusal; may be NULL
 *
 * Return: 0; -EUCLEAN.
 */
int kmem_blk_map_verify(const struct kmem_blk_layout *layout, const __le64 *map,
			unsigned long *used, __u64 *nr_used, struct kmem_persist_why *why);

/**
 * struct kmem_blk_media - a map that is being changed, and how bytes get durable
 * @layout: of the device
 * @map: its entries, on media
 * @flush: start to write the bytes back from the CPU caches
 * @fence: wait for all flushes of this CPU before
 * @ctx: the owner's
 */
struct kmem_blk_media {
	struct kmem_blk_layout layout;
	__le64 *map;
	void (*flush)(const struct kmem_blk_media *m, enum kmem_persist_step step,
		      const void *addr, size_t len);
	void (*fence)(const struct kmem_blk_media *m, enum kmem_persist_step step);
	void *ctx;
};

/* The page of @block, 0 if it is not stored, -EUCLEAN if the map is damaged */
__s64 kmem_blk_lookup(const struct kmem_blk_media *m, __u64 block);

/**
 * kmem_blk_store() - make a page the content of a block, durably
 * @m: the map
 * @block: which block
 * @page: number of a page that nobody else refers to
 * @data: its bytes, all written, none flushed
 *
 * A power cut leaves either what @block was before or all of the new content.
 * When this returns, the page that @block had before may be used for anything,
 * and not earlier.
 */
void kmem_blk_store(const struct kmem_blk_media *m, __u64 block, __u32 page, const void *data);

/**
 * kmem_blk_clear() - forget blocks, durably
 * @m: the map
 * @block: the first block
 * @count: how many
 *
 * A power cut may forget some of them. When this returns, the pages that they
 * had may be used for anything, and not earlier.
 */
void kmem_blk_clear(const struct kmem_blk_media *m, __u64 block, __u64 count);

#ifdef __cplusplus
}
#endif
#endif /* _LINUX_KMEM_BLK_FORMAT_H */
