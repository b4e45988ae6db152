// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
/**
 * DOC: which root of a kmemfs device rules
 *
 * There are two slots. The one with the higher generation rules if it counts at
 * all, and then all of it must hold: an older root is never taken in place of a
 * newer one that somebody wrote, as what it leads to may have been used again.
 */
#include "format_internal.h"

/* What to say of a slot that does not count */
static const char *slot_state(const struct kmemfs_media *m, unsigned int slot)
{
	const struct kmemfs_root *root = m->page(m, 1 + slot);

	if (le32_to_cpu(root->head.kind) == KMEMFS_KIND_RETIRED)
		return "is retired";
	return kmemfs_all_zero(root, root + 1) ? "is empty" : "is damaged";
}

static const struct kmemfs_root *slot_read(const struct kmemfs_media *m, unsigned int slot)
{
	const struct kmemfs_root *root = m->page(m, 1 + slot);

	if (le32_to_cpu(root->head.kind) != KMEMFS_KIND_ROOT ||
	    memcmp(root->head.uuid, m->uuid, sizeof(m->uuid)) ||
	    le32_to_cpu(root->head.crc) != kmemfs_page_crc(root))
		return NULL;
	return root;
}

int kmemfs_media_check(const struct kmemfs_media *m, struct kmem_persist_why *why)
{
	if (m->nr_pages > KMEMFS_MAX_PAGES || m->end > m->nr_pages || m->first > m->end ||
	    m->first < KMEM_PERSIST_HEAD_PAGES)
		return kmemfs_refuse(why, "pages %llu to %llu of a device of %llu are no pool",
				     m->first, m->end, m->nr_pages);
	return 0;
}

static int check_sums(const struct kmemfs_media *m, const struct kmemfs_root_info *info,
		      struct kmem_persist_why *why)
{
	const u64 most = (m->nr_pages + KMEMFS_SUMS_PER_PAGE - 1) / KMEMFS_SUMS_PER_PAGE;

	if (!info->sums) {
		if (info->sums_height || info->nr_sums_pages || info->sums_generation)
			return kmemfs_refuse(why, "root: counts without a table of checksums");
		return 0;
	}
	if (!info->nr_sums_pages || info->nr_sums_pages > most ||
	    info->sums_height != kmemfs_table_height(info->nr_sums_pages))
		return kmemfs_refuse(why, "root: checksums of height %u for %llu pages",
				     info->sums_height, info->nr_sums_pages);
	if (info->sums_generation >= info->generation)
		return kmemfs_refuse(why, "root: checksums of generation %llu, its own is %llu",
				     info->sums_generation, info->generation);
	return 0;
}

int kmemfs_root_check_counts(const struct kmemfs_media *m, const struct kmemfs_root_info *info,
			     struct kmem_persist_why *why)
{
	int err = kmemfs_media_check(m, why);

	if (err)
		return err;
	if (!info->itable) {
		if (info->itable_height || info->nr_inode_pages || info->nr_inodes ||
		    info->nr_meta_pages || info->nr_file_pages || info->nr_links ||
		    info->sums || info->sums_generation)
			return kmemfs_refuse(why, "root: counts without an inode table");
		return 0;
	}
	if (!info->nr_inode_pages || info->itable_height > KMEMFS_MAX_HEIGHT ||
	    info->itable_height != kmemfs_table_height(info->nr_inode_pages))
		return kmemfs_refuse(why, "root: inode table of height %u for %llu pages",
				     info->itable_height, info->nr_inode_pages);
	if (info->nr_meta_pages > m->nr_pages)
		return kmemfs_refuse(why, "root: %llu metadata pages on a device of %llu",
				     info->nr_meta_pages, m->nr_pages);
	if (info->nr_file_pages > KMEMFS_MAX_OWNED)
		return kmemfs_refuse(why, "root: %llu file pages are too many",
				     info->nr_file_pages);
	return check_sums(m, info, why);
}

/* What version 2 has added is zero in version 1 */
static bool root_padding_zero(const struct kmemfs_root *root, u32 version)
{
	const void *unused = version == 1 ? (const void *)&root->sums : root->reserved;

	return !root->reserved0 && !root->reserved1 &&
	       kmemfs_all_zero(root->head.reserved, &root->head + 1) &&
	       kmemfs_all_zero(unused, root + 1);
}

static int root_check(const struct kmemfs_media *m, const struct kmemfs_root *root,
		      struct kmemfs_root_info *info, struct kmem_persist_why *why)
{
	const u64 unknown = le64_to_cpu(root->incompat) & ~KMEMFS_KNOWN_INCOMPAT;
	const struct kmemfs_page_head *head = &root->head;

	if (unknown) {
		kmem_persist_why_set(why, "root: unknown incompatible features %#llx", unknown);
		return -EOPNOTSUPP;
	}
	info->version = root->incompat ? 2 : 1;
	if (!head->generation || head->owner || head->nr || head->level || head->first)
		return kmemfs_refuse(why, "root: bad head");
	if (!root_padding_zero(root, info->version))
		return kmemfs_refuse(why, "root: reserved bytes not zero");

	info->generation = le64_to_cpu(head->generation);
	info->itable = le64_to_cpu(root->itable);
	info->itable_height = le32_to_cpu(root->itable_height);
	info->nr_inode_pages = le64_to_cpu(root->nr_inode_pages);
	info->nr_inodes = le64_to_cpu(root->nr_inodes);
	info->nr_meta_pages = le64_to_cpu(root->nr_meta_pages);
	info->nr_file_pages = le64_to_cpu(root->nr_file_pages);
	info->commit_time = (s64)le64_to_cpu(root->commit_time);
	info->sums = le64_to_cpu(root->sums);
	info->sums_height = le32_to_cpu(root->sums_height);
	info->nr_sums_pages = le64_to_cpu(root->nr_sums_pages);
	info->nr_links = le64_to_cpu(root->nr_links);
	info->sums_generation = le64_to_cpu(root->sums_generation);
	return kmemfs_root_check_counts(m, info, why);
}

int kmemfs_root_pick(const struct kmemfs_media *m, unsigned int *slot,
		     struct kmemfs_root_info *info, struct kmem_persist_why *why)
{
	const struct kmemfs_root *root[KMEMFS_ROOT_SLOTS];
	u64 generation[KMEMFS_ROOT_SLOTS];
	unsigned int i;

	for (i = 0; i < KMEMFS_ROOT_SLOTS; i++) {
		/* The newest root may be the one that cannot be read. */
		if (!m->page(m, 1 + i))
			return kmemfs_refuse(why, "page %u: root slot %u cannot be read",
					     1 + i, i);
		root[i] = slot_read(m, i);
		generation[i] = root[i] ? le64_to_cpu(root[i]->head.generation) : 0;
	}
	if (!root[0] && !root[1])
		return kmemfs_refuse(why, "no valid root slot: slot 0 %s, slot 1 %s",
				     slot_state(m, 0), slot_state(m, 1));
	if (root[0] && root[1] && generation[0] == generation[1])
		return kmemfs_refuse(why, "both root slots have generation %llu", generation[0]);
	*slot = !root[0] || (root[1] && generation[1] > generation[0]);
	return root_check(m, root[*slot], info, why);
}
