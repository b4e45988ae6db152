// SPDX-License-Identifier: GPL-2.0
/**
 * DOC: KMEM persistence, type BLK
 *
 * A block device, /dev/kmem<node>, whose blocks of 4 KiB are pages of the
 * device's node. A page that holds a block is allocated; all others are memory
 * like any other. A block that was never written, or that was discarded, takes
 * no page and reads as zeroes. So the capacity says how many blocks have a
 * number, not how many fit in: the node's free memory decides that.
 *
 * A write never changes a page that holds a block. It fills a new one, flushes
 * it, and then switches the block's entry in the map (kmem_blk_format.c) over to
 * it; so a block is all old or all new after a power cut. The old page, and that
 * of a discarded block, is freed when the switch is durable. Every write is
 * durable when it completes: there is no volatile cache to flush.
 *
 * Without a free page, writes to blocks that are not stored fail with ENOSPC.
 * Blocks that are stored can be written nevertheless: a few pages are kept back,
 * and each such write gives one in return. Discarding takes no memory.
 *
 * A lock guards the entries of one cache line of the map, and the pages that
 * they lead to. It is held while data is copied, and no other is taken below.
 */
#include <linux/atomic.h>
#include <linux/blkdev.h>
#include <linux/device.h>
#include <linux/init.h>
#include <linux/kmem_blk_format.h>
#include <linux/kmem_persist.h>
#include <linux/mm.h>
#include <linux/rwsem.h>
#include <linux/spinlock.h>
#include <linux/sysfs.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>
#include <linux/wait.h>

static_assert(PAGE_SIZE == KMEM_BLK_BLOCK_SIZE);

#define BLOCK_SECTORS	(KMEM_BLK_BLOCK_SIZE >> SECTOR_SHIFT)

/* Map entries in a cache line */
#define GROUP_BLOCKS	8
#define NR_LOCKS	256

#define RESERVE_PAGES	16

/*
 * No page of another node, and no OOM kill for a full device. No I/O, as this is
 * the bottom of it, and no emergency reserves of the node: pages that hold
 * blocks would never come back to them.
 */
#define KMEM_BLK_GFP	(GFP_NOIO | __GFP_THISNODE | __GFP_RETRY_MAYFAIL | __GFP_NOWARN | \
			 __GFP_NOMEMALLOC | __GFP_HIGHMEM | __GFP_MOVABLE)

/**
 * struct kmem_blk - a device of type BLK that is attached
 * @kp: the device
 * @disk: what users see of it
 * @media: the map
 * @nr_mapped: blocks that are stored
 * @nr_discarded: blocks given back by discard or write-zeroes since attach
 * @gone: being detached; guarded by the disk's open_mutex
 * @reserve: pages for writes to blocks that are stored
 * @nr_reserve: how many are in it
 * @reserve_size: how many there should be
 * @reserve_lock: guards these three
 * @reserve_wait: for a page to come back
 * @locks: see above; lock number block / GROUP_BLOCKS % NR_LOCKS
 */
struct kmem_blk {
	struct kmem_persist *kp;
	struct gendisk *disk;
	struct kmem_blk_media media;
	atomic64_t nr_mapped;
	atomic64_t nr_discarded;
	bool gone;
	struct list_head reserve;
	unsigned int nr_reserve;
	unsigned int reserve_size;
	spinlock_t reserve_lock;	/* innermost; guards the three above */
	wait_queue_head_t reserve_wait;
	struct rw_semaphore locks[NR_LOCKS];
};

/* Part of a block that a request is about */
struct span {
	u64 block;
	unsigned int offset;
	unsigned int len;
};

static struct rw_semaphore *block_lock(struct kmem_blk *b, u64 block)
{
	return &b->locks[block / GROUP_BLOCKS % NR_LOCKS];
}

static void media_flush(const struct kmem_blk_media *m, enum kmem_persist_step step,
			const void *addr, size_t len)
{
	kmem_persist_write_back(m->ctx, step, addr, len);
}

static void media_fence(const struct kmem_blk_media *m, enum kmem_persist_step step)
{
	kmem_persist_fence(m->ctx, step);
}

/* ---- pages ---------------------------------------------------------------- */

static u32 page_number(const struct kmem_blk *b, struct page *page)
{
	return page_to_pfn(page) - b->kp->start_pfn;
}

static struct page *numbered_page(const struct kmem_blk *b, u32 number)
{
	return kmem_persist_page(b->kp, number);
}

static struct page *take_reserve(struct kmem_blk *b)
{
	struct page *page;

	guard(spinlock)(&b->reserve_lock);
	while ((page = list_first_entry_or_null(&b->reserve, struct page, lru))) {
		list_del(&page->lru);
		b->nr_reserve--;
		if (!PageHWPoison(page))
			break;
		/* Its memory failed meanwhile; nobody gets it any more. */
		b->reserve_size--;
		__free_page(page);
	}
	return page;
}

static void give_page(struct kmem_blk *b, struct page *page)
{
	const u32 number = page_number(b, page);

	kmem_persist_record_free(b->kp, &number, 1);
	scoped_guard(spinlock, &b->reserve_lock) {
		if (b->nr_reserve >= b->reserve_size)
			break;
		if (PageHWPoison(page)) {
			b->reserve_size--;
			break;
		}
		list_add(&page->lru, &b->reserve);
		b->nr_reserve++;
		page = NULL;
	}
	if (page)
		__free_page(page);
	wake_up(&b->reserve_wait);
}

/*
 * @overwrite: the caller gives a page back soon, whatever happens, so that there
 * is always one to wait for
 */
static struct page *take_page(struct kmem_blk *b, bool overwrite)
{
	const struct kmem_blk_layout *layout = &b->media.layout;
	struct page *page = alloc_pages_node(b->kp->nid, KMEM_BLK_GFP, 0);

	if (!page && !overwrite) {
		/* What other CPUs have in their lists reclaim finds only if it finds more. */
		drain_all_pages(page_zone(numbered_page(b, layout->first)));
		page = alloc_pages_node(b->kp->nid, KMEM_BLK_GFP & ~__GFP_DIRECT_RECLAIM, 0);
	}
	if (page) {
		if (page_number(b, page) >= layout->first && page_number(b, page) < layout->end)
			return page;
		__free_page(page);
		page = NULL;
	}
	if (overwrite)
		wait_event(b->reserve_wait,
			   (page = take_reserve(b)) || !READ_ONCE(b->reserve_size));
	return page;
}

/* ---- blocks --------------------------------------------------------------- */

static blk_status_t damaged(struct kmem_blk *b, u64 block, const char *what)
{
	dev_err_ratelimited(b->kp->dev, "%s: block %llu: %s\n", b->disk->disk_name, block, what);
	return BLK_STS_IOERR;
}

static bool copy_from_block(void *to, struct page *page, unsigned int offset, unsigned int len)
{
	/* what is not needed may be lost */
	return !len ||
	       (!PageHWPoison(page) && !copy_mc_to_kernel(to, page_address(page) + offset, len));
}

/* The next @len bytes of the bio get those of @page, or zeroes without one. */
static bool fill_bio(struct bio *bio, struct bvec_iter *iter, struct page *page,
		     const struct span *span)
{
	unsigned int done = 0;

	while (done < span->len) {
		struct bio_vec bv = bio_iter_iovec(bio, *iter);
		bool ok = true;
		void *to;

		bv.bv_len = min(bv.bv_len, span->len - done);
		to = bvec_kmap_local(&bv);
		if (page)
			ok = copy_from_block(to, page, span->offset + done, bv.bv_len);
		else
			memset(to, 0, bv.bv_len);
		kunmap_local(to);
		flush_dcache_page(bv.bv_page);
		if (!ok)
			return false;
		bio_advance_iter_single(bio, iter, bv.bv_len);
		done += bv.bv_len;
	}
	return true;
}

/* The other way round; zeroes without a bio */
static void fill_page(struct page *page, struct bio *bio, struct bvec_iter *iter,
		      const struct span *span)
{
	char *to = page_address(page) + span->offset;
	unsigned int done = 0;

	if (!bio) {
		memset(to, 0, span->len);
		return;
	}
	while (done < span->len) {
		struct bio_vec bv = bio_iter_iovec(bio, *iter);

		bv.bv_len = min(bv.bv_len, span->len - done);
		memcpy_from_bvec(to + done, &bv);
		bio_advance_iter_single(bio, iter, bv.bv_len);
		done += bv.bv_len;
	}
}

/* What a request leaves of a block is as it was. */
static bool fill_around(struct page *page, struct page *old, const struct span *span)
{
	const unsigned int end = span->offset + span->len;
	char *to = page_address(page);

	if (!old) {
		memset(to, 0, span->offset);
		memset(to + end, 0, KMEM_BLK_BLOCK_SIZE - end);
		return true;
	}
	return copy_from_block(to, old, 0, span->offset) &&
	       copy_from_block(to + end, old, end, KMEM_BLK_BLOCK_SIZE - end);
}

static blk_status_t read_block(struct kmem_blk *b, struct bio *bio, struct bvec_iter *iter,
			       const struct span *span)
{
	s64 number;

	guard(rwsem_read)(block_lock(b, span->block));
	number = kmem_blk_lookup(&b->media, span->block);
	if (number < 0)
		return damaged(b, span->block, "its map entry is damaged");
	if (!fill_bio(bio, iter, number ? numbered_page(b, number) : NULL, span))
		return damaged(b, span->block, "memory error");
	return BLK_STS_OK;
}

static blk_status_t replace_block(struct kmem_blk *b, struct bio *bio, struct bvec_iter *iter,
				  const struct span *span, struct page *old)
{
	struct page *page = take_page(b, old);
	bool kept = old;

	if (!page)
		return BLK_STS_NOSPC;
	if (!fill_around(page, old, span)) {
		give_page(b, page);
		return damaged(b, span->block, "memory error");
	}
	fill_page(page, bio, iter, span);
	if (kept && kmem_persist_without(KMEM_ORDER_BLK_KEEP_OLD)) {
		give_page(b, old);
		kept = false;
	}
	kmem_blk_store(&b->media, span->block, page_number(b, page), page_address(page));
	if (kept)
		give_page(b, old);
	if (!old)
		atomic64_inc(&b->nr_mapped);
	return BLK_STS_OK;
}

/* Zeroes without a bio */
static blk_status_t write_block(struct kmem_blk *b, struct bio *bio, struct bvec_iter *iter,
				const struct span *span)
{
	s64 number;

	guard(rwsem_write)(block_lock(b, span->block));
	number = kmem_blk_lookup(&b->media, span->block);
	if (number < 0)
		return damaged(b, span->block, "its map entry is damaged");
	if (!bio && !number)
		return BLK_STS_OK;
	return replace_block(b, bio, iter, span, number ? numbered_page(b, number) : NULL);
}

static void give_pages(struct kmem_blk *b, const s64 *number, unsigned int count)
{
	unsigned int i;

	for (i = 0; i < count; i++)
		if (number[i])
			give_page(b, numbered_page(b, number[i]));
}

/* Blocks of one group, and so of one lock */
static blk_status_t clear_group(struct kmem_blk *b, u64 block, unsigned int count)
{
	s64 number[GROUP_BLOCKS];
	const bool early = kmem_persist_without(KMEM_ORDER_BLK_KEEP_CLEARED);
	unsigned int i, mapped = 0;

	guard(rwsem_write)(block_lock(b, block));
	for (i = 0; i < count; i++) {
		number[i] = kmem_blk_lookup(&b->media, block + i);
		if (number[i] < 0)
			return damaged(b, block + i, "its map entry is damaged");
		mapped += number[i] > 0;
	}
	if (!mapped)
		return BLK_STS_OK;
	if (early)
		give_pages(b, number, count);
	kmem_blk_clear(&b->media, block, count);
	if (!early)
		give_pages(b, number, count);
	atomic64_sub(mapped, &b->nr_mapped);
	atomic64_add(mapped, &b->nr_discarded);
	return BLK_STS_OK;
}

static blk_status_t clear_blocks(struct kmem_blk *b, u64 block, u64 end)
{
	blk_status_t status = BLK_STS_OK;
	u64 next;

	for (; block < end && status == BLK_STS_OK; block = next) {
		next = min(end, round_down(block, GROUP_BLOCKS) + GROUP_BLOCKS);
		status = clear_group(b, block, next - block);
		cond_resched();
	}
	return status;
}

/* ---- requests ------------------------------------------------------------- */

static u64 sector_bytes(sector_t sector)
{
	return (u64)sector << SECTOR_SHIFT;
}

/* The part of [at, end) that is in the block of @at */
static struct span span_at(u64 at, u64 end)
{
	struct span span = {
		.block = at / KMEM_BLK_BLOCK_SIZE,
		.offset = at % KMEM_BLK_BLOCK_SIZE,
	};

	span.len = min(end - at, KMEM_BLK_BLOCK_SIZE - span.offset);
	return span;
}

static blk_status_t read_write(struct kmem_blk *b, struct bio *bio)
{
	struct bvec_iter iter = bio->bi_iter;
	u64 at = sector_bytes(iter.bi_sector);
	const u64 end = at + iter.bi_size;
	blk_status_t status = BLK_STS_OK;

	while (at < end && status == BLK_STS_OK) {
		const struct span span = span_at(at, end);

		status = op_is_write(bio_op(bio)) ? write_block(b, bio, &iter, &span) :
						    read_block(b, bio, &iter, &span);
		at += span.len;
		cond_resched();
	}
	return status;
}

static blk_status_t discard(struct kmem_blk *b, struct bio *bio)
{
	const u64 at = sector_bytes(bio->bi_iter.bi_sector);
	const u64 end = at + bio->bi_iter.bi_size;

	return clear_blocks(b, DIV_ROUND_UP(at, KMEM_BLK_BLOCK_SIZE), end / KMEM_BLK_BLOCK_SIZE);
}

/* Of blocks that are meant as a whole, those before and after them in part */
static blk_status_t write_zeroes(struct kmem_blk *b, struct bio *bio)
{
	u64 at = sector_bytes(bio->bi_iter.bi_sector);
	const u64 end = at + bio->bi_iter.bi_size;
	blk_status_t status = BLK_STS_OK;

	while (at < end && status == BLK_STS_OK) {
		const struct span span = span_at(at, end);

		if (span.len < KMEM_BLK_BLOCK_SIZE) {
			status = write_block(b, NULL, NULL, &span);
			at += span.len;
		} else {
			status = clear_blocks(b, span.block, end / KMEM_BLK_BLOCK_SIZE);
			at = round_down(end, KMEM_BLK_BLOCK_SIZE);
		}
	}
	return status;
}

static blk_status_t do_bio(struct kmem_blk *b, struct bio *bio)
{
	switch (bio_op(bio)) {
	case REQ_OP_READ:
	case REQ_OP_WRITE:
		return read_write(b, bio);
	case REQ_OP_DISCARD:
		return discard(b, bio);
	case REQ_OP_WRITE_ZEROES:
		return write_zeroes(b, bio);
	default:
		return BLK_STS_NOTSUPP;
	}
}

static void kmem_blk_submit_bio(struct bio *bio)
{
	struct kmem_blk *b = bio->bi_bdev->bd_disk->private_data;
	const unsigned long start = bio_start_io_acct(bio);

	bio->bi_status = do_bio(b, bio);
	bio_end_io_acct(bio, start);
	bio_endio(bio);
}

static int kmem_blk_open(struct gendisk *disk, blk_mode_t mode)
{
	const struct kmem_blk *b = disk->private_data;

	return b->gone ? -ENXIO : 0;
}

static const struct block_device_operations kmem_blk_fops = {
	.owner = THIS_MODULE,
	.submit_bio = kmem_blk_submit_bio,
	.open = kmem_blk_open,
};

/* ---- sysfs ---------------------------------------------------------------- */

static struct kmem_blk *dev_to_blk(struct device *dev)
{
	return dev_to_disk(dev)->private_data;
}

static ssize_t device_show(struct device *dev, struct device_attribute *attr, char *buf)
{
	return sysfs_emit(buf, "%s\n", dev_to_blk(dev)->kp->name);
}
static DEVICE_ATTR_RO(device);

static ssize_t mapped_show(struct device *dev, struct device_attribute *attr, char *buf)
{
	return sysfs_emit(buf, "%lld\n", atomic64_read(&dev_to_blk(dev)->nr_mapped));
}
static DEVICE_ATTR_RO(mapped);

static ssize_t free_show(struct device *dev, struct device_attribute *attr, char *buf)
{
	return sysfs_emit(buf, "%lu\n", kmem_persist_free_pages(dev_to_blk(dev)->kp));
}
static DEVICE_ATTR_RO(free);

static ssize_t discarded_show(struct device *dev, struct device_attribute *attr, char *buf)
{
	return sysfs_emit(buf, "%lld\n", atomic64_read(&dev_to_blk(dev)->nr_discarded));
}
static DEVICE_ATTR_RO(discarded);

static struct attribute *kmem_blk_attrs[] = {
	&dev_attr_device.attr,
	&dev_attr_mapped.attr,
	&dev_attr_free.attr,
	&dev_attr_discarded.attr,
	NULL
};

static const struct attribute_group kmem_blk_group = {
	.name = "kmem",
	.attrs = kmem_blk_attrs,
};

static const struct attribute_group *kmem_blk_groups[] = { &kmem_blk_group, NULL };

/* ---- coming and going ----------------------------------------------------- */

/* Where blocks can be is decided by the machine, too. */
static int read_layout(const struct kmem_persist *kp, const void *head,
		       struct kmem_blk_layout *layout, struct kmem_persist_why *why)
{
	int r = kmem_blk_layout_read(head, kp->nr_pages, layout, why);

	if (r)
		return r;
	layout->first = max_t(u64, layout->first, kp->first);
	layout->end = kp->end;
	return 0;
}

static int check_readable(struct kmem_persist *kp, unsigned long first, unsigned long end,
			  struct kmem_persist_why *why)
{
	unsigned long nr;

	for (nr = first; nr < end; nr++) {
		if (!kmem_persist_readable(kp, nr, kp->image + nr * PAGE_SIZE)) {
			kmem_persist_why_set(why, "page %lu: cannot be read", nr);
			return -EIO;
		}
		cond_resched();
	}
	return 0;
}

static int kmem_blk_check(struct kmem_persist *kp, struct kmem_persist_why *why)
{
	struct kmem_blk_layout layout;
	unsigned long *used;
	u64 nr_used;
	int r;

	if (kmem_persist_is_async(kp)) {
		kmem_persist_why_set(why, "type blk cannot ask the device to sync");
		return -EOPNOTSUPP;
	}
	r = check_readable(kp, KMEM_BLK_SUPER_PAGE, KMEM_BLK_MAP_PAGE, why);
	if (!r)
		r = read_layout(kp, kp->image, &layout, why);
	if (r)
		return r;
	kp->nr_head = KMEM_BLK_MAP_PAGE + layout.map_pages;
	r = check_readable(kp, KMEM_BLK_MAP_PAGE, kp->nr_head, why);
	if (r)
		return r;
	used = vzalloc(BITS_TO_LONGS(kp->nr_pages) * sizeof(long));
	if (!used) {
		kmem_persist_why_set(why, "out of memory");
		return -ENOMEM;
	}
	r = kmem_blk_map_verify(&layout, kp->image + KMEM_BLK_MAP_PAGE * PAGE_SIZE, used,
				&nr_used, why);
	vfree(used);
	return r;
}

static struct gendisk *make_disk(struct kmem_blk *b)
{
	struct queue_limits lim = {
		.logical_block_size = SECTOR_SIZE,
		.physical_block_size = KMEM_BLK_BLOCK_SIZE,
		.io_min = KMEM_BLK_BLOCK_SIZE,
		.max_hw_sectors = BLK_DEF_MAX_SECTORS_CAP,
		.max_hw_discard_sectors = UINT_MAX,
		.discard_granularity = KMEM_BLK_BLOCK_SIZE,
		.max_write_zeroes_sectors = UINT_MAX,
		.atomic_write_hw_max = KMEM_BLK_BLOCK_SIZE,
		.atomic_write_hw_unit_min = SECTOR_SIZE,
		.atomic_write_hw_unit_max = KMEM_BLK_BLOCK_SIZE,
		.features = BLK_FEAT_SYNCHRONOUS | BLK_FEAT_IO_STAT,
	};
	struct gendisk *disk = blk_alloc_disk(&lim, NUMA_NO_NODE);

	if (IS_ERR(disk))
		return disk;
	snprintf(disk->disk_name, sizeof(disk->disk_name), "kmem%d", b->kp->nid);
	disk->fops = &kmem_blk_fops;
	disk->private_data = b;
	set_capacity(disk, b->media.layout.nr_blocks * BLOCK_SECTORS);
	return disk;
}

static struct kmem_blk *kmem_blk_alloc(struct kmem_persist *kp)
{
	struct kmem_blk *b = kvzalloc(sizeof(*b), GFP_KERNEL);
	unsigned int i;

	if (!b)
		return NULL;
	b->kp = kp;
	b->media.map = kp->head + KMEM_BLK_MAP_PAGE * PAGE_SIZE;
	b->media.flush = media_flush;
	b->media.fence = media_fence;
	b->media.ctx = kp;
	INIT_LIST_HEAD(&b->reserve);
	spin_lock_init(&b->reserve_lock);
	init_waitqueue_head(&b->reserve_wait);
	for (i = 0; i < NR_LOCKS; i++)
		init_rwsem(&b->locks[i]);
	return b;
}

/* A device that is completely full has none. */
static void keep_reserve(struct kmem_blk *b)
{
	struct kmem_persist *kp = b->kp;
	unsigned long number = b->media.layout.end;

	while (b->nr_reserve < RESERVE_PAGES && number > b->media.layout.first)
		if (!kmem_persist_is_bad(kp, --number) && !__test_and_set_bit(number, kp->keep)) {
			list_add(&numbered_page(b, number)->lru, &b->reserve);
			b->nr_reserve++;
		}
	b->reserve_size = b->nr_reserve;
}

static int kmem_blk_attach(struct kmem_persist *kp)
{
	struct kmem_blk *b = kmem_blk_alloc(kp);
	struct kmem_persist_why why = {};
	u64 nr_mapped;
	int r;

	if (!b)
		return -ENOMEM;
	r = read_layout(kp, kp->head, &b->media.layout, &why);
	if (!r)
		r = kmem_blk_map_verify(&b->media.layout, b->media.map, kp->keep, &nr_mapped,
					&why);
	if (r) {
		dev_err(kp->dev, "the device changed while it was attached: %s\n", why.text);
		goto err_free;
	}
	atomic64_set(&b->nr_mapped, nr_mapped);
	b->disk = make_disk(b);
	if (IS_ERR(b->disk)) {
		r = PTR_ERR(b->disk);
		goto err_free;
	}
	keep_reserve(b);
	kp->private = b;
	return 0;

err_free:
	kvfree(b);
	return r;
}

static void kmem_blk_attached(struct kmem_persist *kp)
{
	struct kmem_blk *b = kp->private;
	int r = device_add_disk(NULL, b->disk, kmem_blk_groups);

	if (r) {
		dev_err(kp->dev, "cannot make /dev/%s: error %d; the data stays as it is, reboot to get at it\n",
			b->disk->disk_name, r);
		put_disk(b->disk);
		b->disk = NULL;
		return;
	}
	dev_info(kp->dev, "/dev/%s: %lld of %llu blocks stored\n", b->disk->disk_name,
		 atomic64_read(&b->nr_mapped), b->media.layout.nr_blocks);
}

/* Why it cannot go, or NULL; then it cannot be opened any more. */
static const char *let_go(struct kmem_blk *b)
{
	guard(mutex)(&b->disk->open_mutex);
	if (disk_openers(b->disk))
		return "it is open";
	if (atomic64_read(&b->nr_mapped))
		return "blocks are stored";
	b->gone = true;
	return NULL;
}

static int kmem_blk_detach(struct kmem_persist *kp)
{
	struct kmem_blk *b = kp->private;
	const char *why = b->disk ? let_go(b) : "its disk could not be made";
	struct page *page;

	if (why) {
		dev_warn(kp->dev, "kmem%d not removed: %s\n", kp->nid, why);
		return -EBUSY;
	}
	del_gendisk(b->disk);
	put_disk(b->disk);
	while ((page = take_reserve(b)))
		__free_page(page);
	kp->private = NULL;
	kvfree(b);
	return 0;
}

static struct kmem_persist_type kmem_blk_type = {
	.id = KMEM_PERSIST_BLK,
	.name = "blk",
	.check = kmem_blk_check,
	.attach = kmem_blk_attach,
	.attached = kmem_blk_attached,
	.detach = kmem_blk_detach,
};

static int __init kmem_blk_init(void)
{
	return kmem_persist_register_type(&kmem_blk_type);
}
subsys_initcall(kmem_blk_init);
