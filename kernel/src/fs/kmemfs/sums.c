// SPDX-License-Identifier: GPL-2.0
/*
 * kmemfs: checksums of data pages
 */

/**
 * DOC: checksums
 *
 * In version 2 each device page with data has a checksum, in a table by page number. The
 * sums are in memory as long as the pool is mounted, if there is enough. They are made after
 * the commit that wrote the pages back, by a worker of low priority, and go to media with a
 * later commit: the next one, or one of their own when the worker is done (not with commit=0).
 *
 * A stored page does not change as long as a commit has it, and kmemfs.durable says so:
 * whoever gives a page new content clears its bit there, be it a file or a process. So a sum
 * counts while the bit is set. What is left of what the page held before counts for nobody:
 * a commit that writes the page back clears its sum as it is collected, before it sets the
 * bit again. Nothing else looks for such sums.
 *
 * The worker computes without locks. kmemfs.sums.unsummed tells whether what it saw is
 * still there: it clears the bit first, and a commit that writes the page back sets it
 * again. It stores sums with commit_lock held, when no commit is written.
 *
 * What a commit must not fail for is not allowed to take pages of the reserve, nor the
 * last ones of the node. If there are no others, the commit has the table of the one
 * before. Nor may it hold up changes for long: it writes as many leaves as it has cleared
 * sums in, which is not more than the pages that it writes back, and some more; those first
 * that say what does not hold any more. So each commit leaves less to those that follow. If
 * the table has sums then that have been cleared, the root says of which generation it is
 * (@sums_generation): after a crash its sums count for what older segments lead to, and
 * others are made anew. So damage of what did not change is seen however full a pool is.
 *
 * Nor does a mount fail for them: leaves for which there is no memory are not held, but read
 * where they are on media. As these do not change until a commit writes others, a sum of
 * theirs counts only while kmemfs.sums.unsummed does not say that the page has got another
 * content, and none are made anew until there is memory.
 */

#define pr_fmt(fmt) "kmemfs: " fmt

#include <linux/mm.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include "sums.h"

/* Pages of which sums are made at once */
#define KMEMFS_SUMS_BATCH	64

/* From a commit to the making of sums, so that many commits are worth one start */
#define KMEMFS_SUMS_DELAY	(HZ / 10)

static struct workqueue_struct *kmemfs_sums_wq;

void kmemfs_sums_dirty(struct kmemfs *k, unsigned long leaf)
{
	xa_set_mark(&k->sums.table.leaves, leaf, KMEMFS_LEAF_DIRTY);
	WRITE_ONCE(k->sums.dirty, true);
}

/* A sum is here no more. Caller collects a commit, or mounts. */
void kmemfs_sums_cleared(struct kmemfs *k, unsigned long leaf)
{
	struct xarray *leaves = &k->sums.table.leaves;

	kmemfs_sums_dirty(k, leaf);
	if (!xa_to_value(xa_load(leaves, leaf)) || xa_get_mark(leaves, leaf, KMEMFS_LEAF_CLEARED))
		return;
	xa_set_mark(leaves, leaf, KMEMFS_LEAF_CLEARED);
	k->sums.cleared++;
}

/* A leaf that is not held, on media; NULL: it is not there, or its memory has failed */
static const struct kmemfs_sums *kmemfs_media_sums(struct kmemfs *k, const void *entry)
{
	unsigned long page = xa_to_value(entry);

	return page && !kmemfs_damaged(k, page) ? kmemfs_addr(k, page) : NULL;
}

/*
 * What a leaf that is not held would have: of a page that is not durable, too, as it is on
 * media until it is cleared. Caller holds commit_lock and commit_sem.
 */
void kmemfs_sums_copy(struct kmemfs *k, unsigned long n, u32 *sum)
{
	const struct kmemfs_sums *media = kmemfs_media_sums(k, xa_load(&k->sums.table.leaves, n));
	const unsigned long first = n * KMEMFS_SUMS_PER_PAGE;
	const size_t size = KMEMFS_SUMS_PER_PAGE * sizeof(*sum);
	unsigned int i;

	if (!media || copy_mc_to_kernel(sum, media->sum, size)) {
		memset(sum, 0, size);
		return;
	}
	for (i = 0; i < KMEMFS_SUMS_PER_PAGE; i++) {
		if (first + i >= k->region.end || test_bit(first + i, k->sums.unsummed))
			sum[i] = 0;
		else
			le32_to_cpus(&sum[i]);
	}
}

/*
 * Hold leaf @n, of which media may have sums. It does not go. Caller holds commit_lock and
 * commit_sem, which a memory failure of that page waits for (poison.c).
 */
static int kmemfs_sums_hold(struct kmemfs *k, unsigned long n, struct kmemfs_sums_leaf *leaf)
{
	struct xarray *leaves = &k->sums.table.leaves;
	int r = 0;

	kmemfs_sums_copy(k, n, leaf->sum);
	if (!xa_load(leaves, n))
		r = xa_err(xa_store(leaves, n, xa_mk_value(0), GFP_NOFS));
	return r ?: xa_err(xa_store(&k->sums.held, n, leaf, GFP_NOFS));
}

/* The same for a page whose leaf is not held: it has none until that is, and one is made */
static void kmemfs_clear_media_sum(struct kmemfs *k, u32 page)
{
	const unsigned long n = page / KMEMFS_SUMS_PER_PAGE;
	const void *at = xa_load(&k->sums.table.leaves, n);
	const struct kmemfs_sums *media = kmemfs_media_sums(k, at);

	/* a page whose memory has failed may be read by the next boot: its sums go, too */
	if (!xa_to_value(at) || (media && !media->sum[page % KMEMFS_SUMS_PER_PAGE]))
		return;
	set_bit(page, k->sums.unsummed);
	kmemfs_sums_cleared(k, n);
}

/* A commit that is being collected writes the page back, and then it is durable again */
void kmemfs_clear_sum(struct kmemfs *k, u32 page)
{
	unsigned long n = page / KMEMFS_SUMS_PER_PAGE;
	struct kmemfs_sums_leaf *leaf = xa_load(&k->sums.held, n);
	u32 *sum;

	if (!leaf) {
		kmemfs_clear_media_sum(k, page);
		return;
	}
	sum = &leaf->sum[page % KMEMFS_SUMS_PER_PAGE];
	if (!READ_ONCE(*sum))
		return;
	WRITE_ONCE(*sum, 0);
	kmemfs_sums_cleared(k, n);
}

static u32 kmemfs_get_media_sum(struct kmemfs *k, u32 page)
{
	const unsigned long n = page / KMEMFS_SUMS_PER_PAGE;
	const struct kmemfs_sums *media;
	__le32 sum;

	/* no commit puts the leaf elsewhere meanwhile, nor another content into the page */
	down_read(&k->commit_sem);
	media = kmemfs_media_sums(k, xa_load(&k->sums.table.leaves, n));
	if (!media || xa_load(&k->sums.held, n) || !test_bit_acquire(page, k->durable) ||
	    test_bit(page, k->sums.unsummed) ||
	    copy_mc_to_kernel(&sum, &media->sum[page % KMEMFS_SUMS_PER_PAGE], sizeof(sum)))
		sum = 0;
	up_read(&k->commit_sem);
	return le32_to_cpu(sum);
}

/* The checksum of a page that a file has, on which the caller has a reference; 0: not known */
u32 kmemfs_get_sum(struct kmemfs *k, u32 page)
{
	const struct kmemfs_sums_leaf *leaf = xa_load(&k->sums.held, page / KMEMFS_SUMS_PER_PAGE);

	if (!leaf)
		return kmemfs_get_media_sum(k, page);
	/* a commit clears the sum before it sets the bit */
	if (!test_bit_acquire(page, k->durable))
		return 0;
	return READ_ONCE(leaf->sum[page % KMEMFS_SUMS_PER_PAGE]);
}

/* Memory that a leaf takes */
size_t kmemfs_sums_memory(void)
{
	return sizeof(struct kmemfs_sums_leaf);
}

/* ---- making them ---------------------------------------------------------- */

/* 0: it is not data any more, or its memory has failed */
static u32 kmemfs_make_sum(struct kmemfs *k, u32 nr, void *buffer)
{
	struct page *page = kmemfs_page(k, nr);
	u32 sum = 0;

	if (!test_bit(nr, k->durable) || !pool_page_test(&k->region, page) ||
	    !get_page_unless_zero(page))
		return 0;
	if (pool_page_test(&k->region, page) && !kmemfs_damaged(k, nr) &&
	    !copy_mc_to_kernel(buffer, page_address(page), PAGE_SIZE))
		sum = kmemfs_page_sum(buffer);
	put_page(page);
	return sum;
}

/* Caller holds commit_lock, and has made the leaf */
static void kmemfs_store_sum(struct kmemfs *k, u32 page, u32 value)
{
	struct kmemfs_sums_leaf *leaf = xa_load(&k->sums.held, page / KMEMFS_SUMS_PER_PAGE);
	u32 *sum = &leaf->sum[page % KMEMFS_SUMS_PER_PAGE];

	/* written back again meanwhile: then the sum may be that of what was there before */
	if (test_bit(page, k->sums.unsummed) || !test_bit(page, k->durable))
		return;
	WRITE_ONCE(*sum, value);
	kmemfs_sums_dirty(k, page / KMEMFS_SUMS_PER_PAGE);
}

/* Have leaf @n, and account for its memory. 0, -ENOSPC or -ENOMEM. Caller holds sums.lock. */
static int kmemfs_sums_have_leaf(struct kmemfs *k, unsigned long n)
{
	struct kmemfs_sums_leaf *leaf;
	int r;

	if (xa_load(&k->sums.held, n))
		return 0;
	r = kmemfs_charge_table(k, kmemfs_sums_memory());
	if (r)
		return r;
	r = -ENOMEM;
	leaf = kmalloc(sizeof(*leaf), GFP_KERNEL);
	if (leaf) {
		mutex_lock(&k->commit_lock);
		down_read(&k->commit_sem);
		r = kmemfs_sums_hold(k, n, leaf);
		up_read(&k->commit_sem);
		mutex_unlock(&k->commit_lock);
	}
	if (r) {
		kfree(leaf);
		kmemfs_uncharge_table(k, kmemfs_sums_memory());
	}
	return r;
}

/* Pages from *@at on. 1: there are more; 0: no more; or an error. Caller holds sums.lock. */
static int kmemfs_make_batch(struct kmemfs *k, unsigned long *at, void *buffer)
{
	u32 page[KMEMFS_SUMS_BATCH], sum[KMEMFS_SUMS_BATCH];
	const unsigned long end = k->region.end;
	unsigned int i, seen, nr = 0;
	int r = 1;

	for (seen = 0; seen < KMEMFS_SUMS_BATCH; seen++, (*at)++) {
		*at = find_next_bit(k->sums.unsummed, end, *at);
		if (*at >= end) {
			r = 0;
			break;
		}
		r = kmemfs_sums_have_leaf(k, *at / KMEMFS_SUMS_PER_PAGE);
		if (r)
			break;
		r = 1;
		clear_bit(*at, k->sums.unsummed);
		/* before the page is looked at, see kmemfs_sums_wanted() */
		smp_mb__after_atomic();
		page[nr] = *at;
		sum[nr] = kmemfs_make_sum(k, *at, buffer);
		nr += !!sum[nr];
		cond_resched();
	}
	if (!nr)
		return r;
	mutex_lock(&k->commit_lock);
	for (i = 0; i < nr; i++)
		kmemfs_store_sum(k, page[i], sum[i]);
	mutex_unlock(&k->commit_lock);
	return r;
}

/**
 * kmemfs_make_sums() - make those that are missing
 * @k: the pool, of version 2
 *
 * Return: 0: all pages that were durable before have one; -EINTR, also if the pool is
 * about to be unmounted; -ENOSPC, as from kmemfs_charge_table(); -ENOMEM, -EROFS.
 */
int kmemfs_make_sums(struct kmemfs *k)
{
	void *buffer = (void *)__get_free_page(GFP_KERNEL);
	unsigned long at = k->region.first;
	int r = 1;

	if (!buffer)
		return -ENOMEM;
	WRITE_ONCE(k->sums.todo, false);
	while (r > 0) {
		if (READ_ONCE(k->failed))
			r = -EROFS;
		else if (READ_ONCE(k->sums.stop) || mutex_lock_interruptible(&k->sums.lock))
			r = -EINTR;
		if (r < 0)
			break;
		r = kmemfs_make_batch(k, &at, buffer);
		mutex_unlock(&k->sums.lock);
		if (r > 0 && signal_pending(current))
			r = -EINTR;
		cond_resched();
	}
	if (r < 0)
		WRITE_ONCE(k->sums.todo, true);
	free_page((unsigned long)buffer);
	return r;
}

static void kmemfs_sums_work(struct work_struct *work)
{
	struct kmemfs *k = container_of(to_delayed_work(work), struct kmemfs, sums.work);
	unsigned int interval;

	if (sb_rdonly(k->sb) || kmemfs_make_sums(k))
		return;
	interval = READ_ONCE(k->commit_interval);
	if (interval && READ_ONCE(k->sums.dirty))
		queue_delayed_work(system_unbound_wq, &k->commit_work, interval * HZ);
}

/* A commit has written pages back, and holds commit_lock: their content is another one */
void kmemfs_sums_wanted(struct kmemfs *k, u32 page)
{
	set_bit(page, k->sums.unsummed);
	if (!READ_ONCE(k->sums.todo))
		WRITE_ONCE(k->sums.todo, true);
}

/* A commit is durable */
void kmemfs_sums_kick(struct kmemfs *k)
{
	if (kmemfs_is_v2(k) && READ_ONCE(k->sums.todo) && !READ_ONCE(k->sums.stop))
		queue_delayed_work(kmemfs_sums_wq, &k->sums.work, KMEMFS_SUMS_DELAY);
}

/**
 * kmemfs_sum_all() - make all checksums now, and have them on media
 * @k: the pool
 *
 * Return: 0, -EOPNOTSUPP for one of version 1, -ENOSPC if there was no room for the
 * table, -ENOMEM if it is not on media for another reason, or as kmemfs_commit() and
 * kmemfs_make_sums() do.
 */
int kmemfs_sum_all(struct kmemfs *k)
{
	int r;

	if (!kmemfs_is_v2(k))
		return -EOPNOTSUPP;
	r = kmemfs_commit(k);
	if (!r)
		r = kmemfs_make_sums(k);
	if (!r && mutex_lock_interruptible(&k->sums.lock))
		r = -EINTR;
	if (r)
		return r;
	/* nobody makes more meanwhile, so what is left are those that could not be written */
	r = kmemfs_commit_all(k);
	/* a commit that is under way has cleared sums, and not yet written that */
	mutex_lock(&k->commit_lock);
	if (!r && k->sums.lacking)
		r = -ENOSPC;
	else if (!r && k->sums.dirty)
		r = fatal_signal_pending(current) ? -EINTR : -ENOMEM;
	mutex_unlock(&k->commit_lock);
	mutex_unlock(&k->sums.lock);
	return r;
}

/* ---- the beginning and the end of a mount ----------------------------------- */

/* While mounting, before anything else */
void kmemfs_sums_init(struct kmemfs *k)
{
	kmemfs_table_init(&k->sums.table, KMEMFS_OWNER_SUMS);
	xa_init(&k->sums.held);
	mutex_init(&k->sums.lock);
	INIT_DELAYED_WORK(&k->sums.work, kmemfs_sums_work);
	k->sums.kept = k->sums.nr_pages;
	k->sums.nr_pages = 0;
	k->sums.lost = false;
	k->sums.cleared = 0;
	k->sums.dirty = false;
	k->sums.lacking = false;
	k->sums.stop = false;
	k->sums.todo = true;
	bitmap_zero(k->sums.unsummed, k->region.end);
}

/* Nobody makes any from here on, nor commits any by itself. commit_interval is 0. */
void kmemfs_sums_stop(struct kmemfs *k)
{
	WRITE_ONCE(k->sums.stop, true);
	cancel_delayed_work_sync(&k->sums.work);
	cancel_delayed_work_sync(&k->commit_work);
	/* which may have started it once more; but then it saw that it shall stop */
	cancel_delayed_work_sync(&k->sums.work);
}

void kmemfs_sums_exit(struct kmemfs *k)
{
	struct kmemfs_sums_leaf *leaf;
	unsigned long n;

	xa_for_each(&k->sums.held, n, leaf)
		kfree(leaf);
	xa_destroy(&k->sums.held);
	kmemfs_table_destroy(&k->sums.table);
	k->sums.dirty = false;
}

int __init kmemfs_register_sums(void)
{
	struct workqueue_attrs *attrs = alloc_workqueue_attrs();
	int r = -ENOMEM;

	kmemfs_sums_wq = alloc_workqueue("kmemfs_sums", WQ_UNBOUND, 0);
	if (attrs && kmemfs_sums_wq) {
		attrs->nice = MAX_NICE;
		r = apply_workqueue_attrs(kmemfs_sums_wq, attrs);
	}
	if (attrs)
		free_workqueue_attrs(attrs);
	return r;
}
