// SPDX-License-Identifier: GPL-2.0
/*
 * kmemfs: how much of the node the store may take
 */

/**
 * DOC: limits
 *
 * Store and processes take pages of the same node. With size= the store holds so
 * many data pages at most, so processes keep the rest. With reserve= it sets
 * pages aside (reserve.c), so that it has them when processes have taken the rest.
 * Without size= the whole node is the limit.
 *
 * A page is held as long as a file has it or the last commit does, and counts once
 * however many files have it; so its owners have to be counted, which is done
 * only if there is a limit. A write that exceeds the limit fails; writes at the
 * same time may exceed it by what each of them is about to add. What is put aside for
 * stores through mappings (mmap.c) counts as well.
 *
 * A cut within a page needs another one for what is left of it, and may exceed the limit by
 * KMEMFS_RESERVE_MIN / 2 for that. If a remount has lowered the limit below what is held,
 * or a mount has found more than it allows, cuts are allowed for as much as is held.
 *
 * Inodes and page tables of files are kernel memory of another kind, and all of them
 * are there while the device is mounted. Who needs more than half of what there is gets
 * no space; a mount may take two thirds. So what can be made can be mounted again.
 * Checksums never get more than what is left of the half, so no mount fails for them.
 *
 * What was deleted is space again after a commit, and so is what the reserve keeps for
 * the commit of changed files; who lacks space makes one.
 */

#include <linux/highmem.h>
#include <linux/mm.h>
#include <linux/moduleparam.h>
#include <linux/swap.h>
#include <linux/vmalloc.h>
#include "kmemfs.h"

static unsigned int max_tables;
module_param(max_tables, uint, 0600);
MODULE_PARM_DESC(max_tables, "Kernel memory to count on for inodes and page tables, MiB; 0: what there is");

/* Count owners from now on; no page has any */
int kmemfs_limit_init(struct kmemfs *k)
{
	atomic64_set(&k->held, 0);
	if (!k->max_pages)
		return 0;
	k->owners = vzalloc(array_size(k->region.end, sizeof(*k->owners)));
	return k->owners ? 0 : -ENOMEM;
}

/* The store may hold @pages, and has some already. Caller holds s_umount. */
void kmemfs_limit_set(struct kmemfs *k, u64 pages)
{
	WRITE_ONCE(k->had_pages, kmemfs_held(k));
	WRITE_ONCE(k->max_pages, pages);
}

/* A commit has given back what it does not have any more. Caller holds commit_lock. */
void kmemfs_limit_committed(struct kmemfs *k)
{
	u64 held = kmemfs_held(k);

	if (held < READ_ONCE(k->had_pages))
		WRITE_ONCE(k->had_pages, held);
}

/*
 * May a change that makes space take some pages beyond the limit? If more is held than that,
 * as it was lowered or a mount has found as much, beyond what is left of that.
 */
bool kmemfs_may_exceed(struct kmemfs *k)
{
	u64 limit = max(READ_ONCE(k->max_pages), READ_ONCE(k->had_pages));

	return !k->owners || kmemfs_held(k) < limit + KMEMFS_RESERVE_MIN / 2;
}

void kmemfs_limit_exit(struct kmemfs *k)
{
	vfree(k->owners);
	k->owners = NULL;
}

void __kmemfs_hold(struct kmemfs *k, const u32 *pages, unsigned long nr)
{
	unsigned long i;

	for (i = 0; i < nr; i++)
		if (pages[i] && atomic_inc_return(&k->owners[KMEMFS_PAGE(pages[i])]) == 1)
			atomic64_inc(&k->held);
}

void __kmemfs_unhold(struct kmemfs *k, const u32 *pages, unsigned long nr)
{
	unsigned long i;

	for (i = 0; i < nr; i++)
		if (pages[i] && atomic_dec_and_test(&k->owners[KMEMFS_PAGE(pages[i])]))
			atomic64_dec(&k->held);
}

/*
 * Space is short: make free what a commit frees. False if there was none to be had.
 * Caller does not hold commit_sem.
 */
bool kmemfs_make_space(struct kmemfs *k)
{
	/* a commit that runs is about to free some */
	if (list_empty_careful(&k->pending) && !READ_ONCE(k->dirty) &&
	    !mutex_is_locked(&k->commit_lock))
		return false;
	return !kmemfs_commit(k);
}

static bool kmemfs_within_limit(struct kmemfs *k, const u32 *pages, unsigned long nr)
{
	unsigned long i;
	u64 more = 0;

	for (i = 0; i < nr; i++)
		if (pages[i] && !atomic_read(&k->owners[KMEMFS_PAGE(pages[i])]))
			more++;
	return kmemfs_held(k) + more <= READ_ONCE(k->max_pages);
}

/* May the store hold these pages too? Caller does not hold commit_sem. */
bool kmemfs_may_hold(struct kmemfs *k, const u32 *pages, unsigned long nr)
{
	if (!k->owners || kmemfs_within_limit(k, pages, nr))
		return true;
	return kmemfs_make_space(k) && kmemfs_within_limit(k, pages, nr);
}

/* Kernel memory that does not come from the pool's own node, which may be full */
static u64 kmemfs_other_memory(const struct kmemfs *k)
{
	struct zone *zone;
	u64 pages = 0;

	for_each_populated_zone(zone)
		if (zone_to_nid(zone) != k->region.nid && zone_idx(zone) <= ZONE_NORMAL)
			pages += zone_managed_pages(zone);
	return pages << PAGE_SHIFT;
}

/* What inodes and page tables may take. The second is never less on the same machine. */
u64 kmemfs_max_table_bytes(const struct kmemfs *k, bool mounting)
{
	u64 bytes = (u64)READ_ONCE(max_tables) << 20;

	if (mounting)
		return (bytes ?: (u64)nr_free_buffer_pages() << PAGE_SHIFT) / 3 * 2;
	return (bytes ?: kmemfs_other_memory(k)) / 2;
}

/* An inode or a part of a page table comes into being, when it has not been mounted */
int kmemfs_charge_table(struct kmemfs *k, size_t bytes)
{
	if (atomic64_add_return(bytes, &k->table_bytes) <= kmemfs_max_table_bytes(k, false))
		return 0;
	kmemfs_uncharge_table(k, bytes);
	return -ENOSPC;
}

static u32 kmemfs_try_alloc(struct kmemfs *k, gfp_t gfp)
{
	u32 page;

	if (k->owners && kmemfs_held(k) >= READ_ONCE(k->max_pages))
		return 0;
	page = pool_page_alloc(&k->region, gfp);
	if (page)
		return page;
	page = kmemfs_reserve_take_data(k);
	if (page && (gfp & __GFP_ZERO))
		clear_highpage(kmemfs_page(k, page));
	return page;
}

/*
 * A fresh page for data; 0 if there is none, or no more are allowed. Caller does not
 * hold commit_sem.
 */
u32 kmemfs_alloc_page(struct kmemfs *k, gfp_t gfp)
{
	u32 page = kmemfs_try_alloc(k, gfp);

	if (!page && kmemfs_make_space(k))
		page = kmemfs_try_alloc(k, gfp);
	return page;
}
