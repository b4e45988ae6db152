// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
/**
 * DOC: what a KMEM device of type BLK has on media
 *
 * Behind the header: a superblock, written once, and a map with one entry for
 * each logical block, which says in which device page it is, if it is stored.
 * Nothing else: pages in no entry are free memory, so nothing can leak.
 *
 * An entry has eight bytes, and one aligned store changes it. Its upper half are
 * check bits over the device's uuid, the block and the page, so that an entry
 * that is damaged, that belongs to another block or to an earlier life of the
 * device is told from a good one. Entries of blocks that are not stored have
 * check bits too: zeroes in the map are damage, and not an empty block.
 *
 * kmem_blk_store() and kmem_blk_clear() are the only functions that write to the
 * media of a device in use. User space runs the same ones to see what any crash
 * leaves behind.
 */
#ifdef __KERNEL__
#include <linux/bits.h>
#include <linux/build_bug.h>
#include <linux/compiler.h>
#include <linux/crc32.h>
#include <linux/errno.h>
#include <linux/sched.h>
#include <linux/string.h>
#else
#include "format_compat.h"
#endif
#include <linux/kmem_blk_format.h>

#define SUPER_AT(field, offset) \
	static_assert(offsetof(struct kmem_blk_super, field) == (offset), #field)

static_assert(sizeof(struct kmem_blk_super) == KMEM_PERSIST_PAGE_SIZE, "one page");
SUPER_AT(magic, 0);
SUPER_AT(crc, 4);
SUPER_AT(uuid, 8);
SUPER_AT(nr_blocks, 24);
SUPER_AT(incompat, 32);
SUPER_AT(compat, 40);
SUPER_AT(reserved, 48);

__u64 kmem_blk_max_blocks(__u64 nr_pages)
{
	const u64 pages = nr_pages > KMEM_BLK_MAP_PAGE ? nr_pages - KMEM_BLK_MAP_PAGE : 0;

	/* Each page of the map serves as many blocks as it has entries. */
	return pages - (pages + KMEM_BLK_MAP_ENTRIES) / (KMEM_BLK_MAP_ENTRIES + 1);
}

static u32 super_crc(const struct kmem_blk_super *sb)
{
	return kmem_persist_page_crc(sb, offsetof(struct kmem_blk_super, crc));
}

static u64 map_room(const struct kmem_blk_layout *layout)
{
	return layout->map_pages * KMEM_BLK_MAP_ENTRIES;
}

static void layout_fill(struct kmem_blk_layout *layout, const struct kmem_blk_super *sb,
			u64 nr_pages)
{
	layout->nr_blocks = le64_to_cpu(sb->nr_blocks);
	layout->map_pages = kmem_blk_map_pages(layout->nr_blocks);
	layout->first = KMEM_BLK_MAP_PAGE + layout->map_pages;
	layout->end = nr_pages;
	layout->seed = __crc32c_le(~0U, sb->uuid, sizeof(sb->uuid));
}

static int super_verify(const struct kmem_blk_super *sb, const struct kmem_persist_header *h,
			struct kmem_persist_why *why)
{
	if (le32_to_cpu(sb->magic) != KMEM_BLK_MAGIC) {
		kmem_persist_why_set(why, "superblock: wrong magic");
		return -EUCLEAN;
	}
	if (le32_to_cpu(sb->crc) != super_crc(sb)) {
		kmem_persist_why_set(why, "superblock: wrong crc");
		return -EUCLEAN;
	}
	if (memcmp(sb->uuid, h->uuid, sizeof(sb->uuid))) {
		kmem_persist_why_set(why, "superblock: uuid is not that of the header");
		return -EUCLEAN;
	}
	if (sb->incompat) {
		kmem_persist_why_set(why, "superblock: unknown incompatible features %#llx",
				     (unsigned long long)le64_to_cpu(sb->incompat));
		return -EOPNOTSUPP;
	}
	if (!kmem_persist_all_zero(sb->reserved, sizeof(sb->reserved))) {
		kmem_persist_why_set(why, "superblock: reserved bytes not zero");
		return -EUCLEAN;
	}
	return 0;
}

int kmem_blk_layout_read(const void *head, __u64 nr_pages, struct kmem_blk_layout *layout,
			 struct kmem_persist_why *why)
{
	const u8 *bytes = head;
	const struct kmem_persist_header *h = head;
	const struct kmem_blk_super *sb;
	u64 nr_blocks;
	int r;

	sb = (const void *)(bytes + KMEM_BLK_SUPER_PAGE * KMEM_PERSIST_PAGE_SIZE);
	r = super_verify(sb, h, why);
	if (r)
		return r;
	if (!kmem_persist_all_zero(sb + 1, KMEM_PERSIST_PAGE_SIZE)) {
		kmem_persist_why_set(why, "page 2 is not zero");
		return -EUCLEAN;
	}
	if (nr_pages > KMEM_BLK_MAX_PAGES) {
		kmem_persist_why_set(why, "device has %llu pages, type blk knows %llu at most",
				     (unsigned long long)nr_pages, KMEM_BLK_MAX_PAGES);
		return -EOPNOTSUPP;
	}
	nr_blocks = le64_to_cpu(sb->nr_blocks);
	if (!nr_blocks || nr_blocks > kmem_blk_max_blocks(nr_pages)) {
		kmem_persist_why_set(why, "superblock: %llu blocks on a device of %llu pages",
				     (unsigned long long)nr_blocks, (unsigned long long)nr_pages);
		return -EUCLEAN;
	}
	layout_fill(layout, sb, nr_pages);
	return 0;
}

/* ---- the map -------------------------------------------------------------- */

__le64 kmem_blk_entry(const struct kmem_blk_layout *layout, __u64 block, __u32 page)
{
	const __le64 what[2] = { cpu_to_le64(block), cpu_to_le64(page) };
	const u32 check = ~__crc32c_le(layout->seed, (const u8 *)what, sizeof(what));

	return cpu_to_le64((u64)check << 32 | page);
}

__s64 kmem_blk_entry_page(const struct kmem_blk_layout *layout, __u64 block, __le64 entry)
{
	const u32 page = (u32)le64_to_cpu(entry);

	if (entry != kmem_blk_entry(layout, block, page))
		return -EUCLEAN;
	if (page && (page < layout->first || page >= layout->end))
		return -EUCLEAN;
	return page;
}

static int refuse_entry(const struct kmem_blk_layout *layout, u64 block, u32 page, bool whole,
			struct kmem_persist_why *why)
{
	if (whole)
		kmem_persist_why_set(why, "map: block %llu is in page %u, not one of %llu to %llu",
				     (unsigned long long)block, page,
				     (unsigned long long)layout->first,
				     (unsigned long long)layout->end - 1);
	else
		kmem_persist_why_set(why, "map: the entry of block %llu is damaged",
				     (unsigned long long)block);
	return -EUCLEAN;
}

void kmem_blk_mkfs(void *pages, const __u8 uuid[16], __u64 nr_blocks)
{
	struct kmem_blk_super *sb = pages;
	struct kmem_blk_layout layout;
	__le64 *map = pages;
	u64 block;

	memset(pages, 0, (KMEM_BLK_MAP_PAGE - KMEM_BLK_SUPER_PAGE) * KMEM_PERSIST_PAGE_SIZE);
	sb->magic = cpu_to_le32(KMEM_BLK_MAGIC);
	memcpy(sb->uuid, uuid, sizeof(sb->uuid));
	sb->nr_blocks = cpu_to_le64(nr_blocks);
	sb->crc = cpu_to_le32(super_crc(sb));

	layout_fill(&layout, sb, 0);
	map += (KMEM_BLK_MAP_PAGE - KMEM_BLK_SUPER_PAGE) * KMEM_BLK_MAP_ENTRIES;
	for (block = 0; block < map_room(&layout); block++)
		map[block] = block < nr_blocks ? kmem_blk_entry(&layout, block, 0) : 0;
}

int kmem_blk_map_verify(const struct kmem_blk_layout *layout, const __le64 *map,
			unsigned long *used, __u64 *nr_used, struct kmem_persist_why *why)
{
	u64 block, nr = 0;

	for (block = 0; block < layout->nr_blocks; block++) {
		const __le64 entry = map[block];
		const u32 page = (u32)le64_to_cpu(entry);
		unsigned long *word, bit;

		if (block % KMEM_BLK_MAP_ENTRIES == 0)
			cond_resched();
		if (kmem_blk_entry_page(layout, block, entry) < 0)
			return refuse_entry(layout, block, page,
					    entry == kmem_blk_entry(layout, block, page), why);
		if (!page)
			continue;
		word = &used[page / BITS_PER_LONG];
		bit = 1UL << (page % BITS_PER_LONG);
		if (*word & bit) {
			kmem_persist_why_set(why, "map: page %u is of block %llu and of another",
					     page, (unsigned long long)block);
			return -EUCLEAN;
		}
		*word |= bit;
		nr++;
	}
	for (; block < map_room(layout); block++) {
		if (map[block]) {
			kmem_persist_why_set(why, "map: not zero behind the last entry");
			return -EUCLEAN;
		}
	}
	*nr_used = nr;
	return 0;
}

/* ---- changing it ---------------------------------------------------------- */

static void entry_set(const struct kmem_blk_media *m, u64 block, u32 page)
{
	WRITE_ONCE(m->map[block], kmem_blk_entry(&m->layout, block, page));
}

__s64 kmem_blk_lookup(const struct kmem_blk_media *m, __u64 block)
{
	return kmem_blk_entry_page(&m->layout, block, READ_ONCE(m->map[block]));
}

void kmem_blk_store(const struct kmem_blk_media *m, __u64 block, __u32 page, const void *data)
{
	m->flush(m, KMEM_STEP_BLK_DATA, data, KMEM_BLK_BLOCK_SIZE);
	m->fence(m, KMEM_STEP_BLK_BEFORE_ENTRY);
	entry_set(m, block, page);
	m->flush(m, KMEM_STEP_BLK_ENTRY, &m->map[block], sizeof(m->map[block]));
	m->fence(m, KMEM_STEP_BLK_AFTER_ENTRY);
}

void kmem_blk_clear(const struct kmem_blk_media *m, __u64 block, __u64 count)
{
	u64 i;

	for (i = 0; i < count; i++)
		entry_set(m, block + i, 0);
	m->flush(m, KMEM_STEP_BLK_CLEAR, &m->map[block], count * sizeof(m->map[block]));
	m->fence(m, KMEM_STEP_BLK_AFTER_CLEAR);
}
