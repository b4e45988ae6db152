// SPDX-License-Identifier: GPL-2.0
/*
 * kmemfs: stored pages whose memory fails
 */

/**
 * DOC: memory failures
 *
 * A page with PageHWPoison is not touched any more. Reading it fails with EIO, as
 * does writing a part of it; a write of all of it, or a hole in its place, mends
 * the file. What else the file has can be read. Clones and later snapshots of it
 * share the damage.
 *
 * Each file that has the page is named in the kernel log, and the next fsync() of
 * it fails once. Nothing is said about it on media: after a reboot it is for the
 * hardware to say whether the page is good again. If the hardware says no, the page
 * is marked before the device is attached, and mounting names the files that have it.
 *
 * If it is metadata, a commit that has to read it fails with EUCLEAN, and kmemfs is
 * read-only from then on: the commit before holds.
 */

#define pr_fmt(fmt) "kmemfs: " fmt

#include <linux/highmem.h>
#include <linux/notifier.h>
#include <linux/pagemap.h>
#include "kmemfs.h"

/* The content of a stored page, or -EIO. The caller has a reference. */
int kmemfs_copy_content(const struct kmemfs *k, struct page *to, u32 page)
{
	if (kmemfs_damaged(k, page) || copy_mc_highpage(to, kmemfs_page(k, page)))
		return -EIO;
	return 0;
}

static void kmemfs_say_lost(struct kmemfs *k, struct kmemfs_inode *ki, unsigned long file_page)
{
	pr_err_ratelimited("%s: inode %lu (%s) is damaged: page %lu of it is lost\n",
			   k->kp->name, ki->vfs.i_ino, kmemfs_name_of(ki), file_page);
}

/* While mounting: what of these pages was bad when the device was attached? */
void kmemfs_name_damage(struct kmemfs_inode *ki, u64 file_page, u64 count, u64 page)
{
	struct kmemfs *k = kmemfs_of(&ki->vfs);
	unsigned long bad = page, found = 0;

	if (!k->kp->bad)
		return;
	for_each_set_bit_from(bad, k->kp->bad, page + count) {
		kmemfs_say_lost(k, ki, file_page + bad - page);
		found++;
	}
	kmemfs_count(k, KMEMFS_DAMAGED, found);
}

/* How many pages of the file are device page @page? Caller keeps chunks from going. */
static unsigned long kmemfs_mark_inode(struct kmemfs *k, struct kmemfs_inode *ki, u32 page)
{
	struct kmemfs_chunk *chunk;
	unsigned long ci, found = 0;
	unsigned int i;

	xa_for_each(&ki->chunks, ci, chunk) {
		if (xa_is_value(chunk))
			continue;
		spin_lock(&ki->lock);
		for (i = 0; i < KMEMFS_CHUNK_SIZE; i++) {
			if (KMEMFS_PAGE(chunk->entry[i]) != page)
				continue;
			found++;
			kmemfs_say_lost(k, ki, (ci << KMEMFS_CHUNK_SHIFT) + i);
		}
		spin_unlock(&ki->lock);
		cond_resched();
	}
	if (found)
		filemap_set_wb_err(ki->vfs.i_mapping, -EIO);
	return found;
}

static void kmemfs_mark_damage(struct super_block *sb, void *arg)
{
	struct kmemfs *k = KMEMFS_SB(sb);
	struct page *memory = arg;
	struct kmemfs_inode *ki;
	unsigned long ino, found = 0;
	u32 page;

	if (!k || k->sb != sb || !pool_page_test(&k->region, memory))
		return;
	page = page_to_pfn(memory) - k->region.start_pfn;
	/* Keeps page tables and names as they are; s_umount keeps the inodes. */
	down_write(&k->commit_sem);
	xa_for_each(&k->inodes, ino, ki)
		found += kmemfs_mark_inode(k, ki, page);
	up_write(&k->commit_sem);
	kmemfs_count(k, KMEMFS_DAMAGED, found);
	if (!found)
		pr_err("%s: device page %u is damaged, which no file has: metadata, or deleted\n",
		       k->kp->name, page);
}

static int kmemfs_poisoned(struct notifier_block *nb, unsigned long action, void *page)
{
	kmemfs_iterate_supers(kmemfs_mark_damage, page);
	return NOTIFY_OK;
}

static struct notifier_block kmemfs_poison_nb = { .notifier_call = kmemfs_poisoned };

int __init kmemfs_register_poison(void)
{
	return pool_poison_register(&kmemfs_poison_nb);
}
