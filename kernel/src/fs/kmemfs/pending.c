// SPDX-License-Identifier: GPL-2.0
/*
 * kmemfs: pages that the last commit has and no file has any more, see table.c
 */

#include <linux/slab.h>
#include "kmemfs.h"

/* Pages that the last commit has and a file has no more */
void kmemfs_add_pending(struct kmemfs *k, const u32 *pages, unsigned long nr)
{
	struct kmemfs_chunk *chunk, *fresh = NULL;
	unsigned long i = 0;

	while (i < nr) {
		spin_lock(&k->pending_lock);
		chunk = k->pending_tail;
		if (!chunk && fresh) {
			chunk = fresh;
			fresh = NULL;
			k->pending_tail = chunk;
			list_add_tail(&chunk->list, &k->pending);
		}
		while (chunk && i < nr && chunk->nr < KMEMFS_CHUNK_SIZE)
			chunk->entry[chunk->nr++] = KMEMFS_PAGE(pages[i++]);
		if (chunk && chunk->nr == KMEMFS_CHUNK_SIZE)
			k->pending_tail = NULL;
		spin_unlock(&k->pending_lock);
		if (i < nr && !fresh)
			fresh = kmem_cache_zalloc(kmemfs_chunk_cache, GFP_NOFS | __GFP_NOFAIL);
	}
	if (fresh)
		kmem_cache_free(kmemfs_chunk_cache, fresh);
	kmemfs_changed(k);
}

/* The same for all entries of a chunk, which needs no memory */
void kmemfs_add_pending_chunk(struct kmemfs *k, struct kmemfs_chunk *chunk)
{
	spin_lock(&k->pending_lock);
	list_add(&chunk->list, &k->pending);
	spin_unlock(&k->pending_lock);
	kmemfs_changed(k);
}

void kmemfs_take_pending(struct kmemfs *k, struct list_head *chunks)
{
	spin_lock(&k->pending_lock);
	list_splice_tail_init(&k->pending, chunks);
	k->pending_tail = NULL;
	spin_unlock(&k->pending_lock);
}

/* Free pending chunks; @release: their pages too, as a commit without them is durable */
void kmemfs_put_pending(struct kmemfs *k, struct list_head *chunks, bool release)
{
	struct kmemfs_chunk *chunk, *next;

	list_for_each_entry_safe(chunk, next, chunks, list) {
		list_del(&chunk->list);
		if (release) {
			kmemfs_unhold(k, chunk->entry, KMEMFS_CHUNK_SIZE);
			kmem_persist_record_free(k->kp, chunk->entry, KMEMFS_CHUNK_SIZE);
			pool_pages_put(&k->region, chunk->entry, KMEMFS_CHUNK_SIZE);
		}
		kmem_cache_free(kmemfs_chunk_cache, chunk);
		cond_resched();
	}
}
