// SPDX-License-Identifier: GPL-2.0
/*
 * kmemfs: a persistence type of DAX KMEM
 */

/**
 * DOC: attaching
 *
 * Before any memory of the device comes online the committed tree is verified
 * as a whole. Then it is walked once more: the reference that a page has from
 * coming online becomes that of its first owner, and each further owner of a page of
 * data takes one. Those of a page of metadata are counted besides (kmemfs.shared).
 * There is no free map and there are no counts on media, so nothing can leak across
 * a crash. The references stay as long as the device is attached, mounted or not.
 *
 * If the tree does not hold though its root does, what damage hides may be anywhere. Then
 * all pages are kept, with one reference each, and none is written: there is no
 * free memory, and what can still be read can be mounted read-only (rescue.c). Whoever
 * reads takes references besides, so no page is ever let go of.
 *
 * If only the table of checksums does not hold, that costs no more than those checksums:
 * their pages are free memory, and the next commit writes what is there of the table.
 */

#define pr_fmt(fmt) "kmemfs: " fmt

#include <linux/device.h>
#include <linux/mm.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>
#include "kmemfs.h"

static_assert(PAGE_SIZE == KMEMFS_PAGE_SIZE);

/* Free memory of the node, which is the pool's free space */
unsigned long kmemfs_free_pages(const struct kmemfs *k)
{
	return kmem_persist_free_pages(k->kp);
}

static void kmemfs_media_common(const struct kmem_persist *kp, struct kmemfs_media *m)
{
	m->ctx = (void *)kp;
	m->nr_pages = kp->nr_pages;
	m->first = max_t(u64, kp->first, KMEM_PERSIST_HEAD_PAGES);
	m->end = kp->end;
	memcpy(m->uuid, kp->header.uuid, sizeof(m->uuid));
}

static const void *kmemfs_image_page(const struct kmemfs_media *m, __u64 page)
{
	struct kmem_persist *kp = m->ctx;
	const void *bytes = kp->image + page * KMEMFS_PAGE_SIZE;

	return page < kp->nr_pages && kmem_persist_readable(kp, page, bytes) ? bytes : NULL;
}

/* Of all that could not be read it is known, so that nobody will load from it */
static bool kmemfs_may_rescue(struct kmem_persist *kp, int r)
{
	return r == -EUCLEAN && (!kp->unreadable || kp->bad);
}

static const void *kmemfs_online_page(const struct kmemfs_media *m, __u64 page)
{
	const struct kmem_persist *kp = m->ctx;

	if (page < KMEM_PERSIST_HEAD_PAGES)
		return kp->head + page * KMEMFS_PAGE_SIZE;
	if (page < m->first || page >= m->end)
		return NULL;
	if (PageHWPoison(kmem_persist_page(kp, page)))
		return NULL;
	return page_address(kmem_persist_page(kp, page));
}

static void kmemfs_online_media(const struct kmem_persist *kp, struct kmemfs_media *m)
{
	kmemfs_media_common(kp, m);
	m->page = kmemfs_online_page;
}

/* The device's bytes, once it is attached */
void kmemfs_media_init(struct kmemfs *k, struct kmemfs_media *m)
{
	kmemfs_online_media(k->kp, m);
}

static void *kmemfs_check_alloc(size_t nr, size_t size)
{
	return vcalloc(nr, size);
}

static void kmemfs_check_free(void *p)
{
	vfree(p);
}

/* The committed tree has been verified. 0, if need be without what does not hold; or an error */
static int kmemfs_decide(struct kmem_persist *kp, const struct kmemfs_root_info *root, int r,
			 bool sums_lost, struct kmem_persist_why *why)
{
	if (!r && sums_lost)
		r = -EUCLEAN;
	else
		sums_lost = false;
	if (!kmemfs_may_rescue(kp, r))
		return r;
	kp->rescue = !sums_lost;
	if (sums_lost)
		dev_warn(kp->dev, "kmemfs: generation %llu: checksums of data are lost: %s\n",
			 root->generation, why->text);
	else
		dev_err(kp->dev, "kmemfs: generation %llu does not hold: %s; attached read-only, to save what can be read, with all pages kept\n",
			root->generation, why->text);
	return 0;
}

static int kmemfs_persist_check(struct kmem_persist *kp, struct kmem_persist_why *why)
{
	struct kmemfs_check check = {
		.alloc = kmemfs_check_alloc,
		.free = kmemfs_check_free,
		.lose_sums = true,
	};
	struct kmemfs_root_info root;
	struct kmemfs_media m = { .page = kmemfs_image_page };
	unsigned int slot;
	int r;

	kmemfs_media_common(kp, &m);
	if (kp->nr_pages > KMEMFS_MAX_PAGES) {
		kmem_persist_why_set(why, "device has %lu pages, kmemfs knows %llu at most",
				     kp->nr_pages, KMEMFS_MAX_PAGES);
		return -EOPNOTSUPP;
	}
	r = kmemfs_root_pick(&m, &slot, &root, why);
	if (r)
		return r;
	check.meta = vzalloc(BITS_TO_LONGS(kp->nr_pages) * sizeof(long));
	check.data = vzalloc(BITS_TO_LONGS(kp->nr_pages) * sizeof(long));
	/* only a pool with very many owned pages can have one with too many owners */
	check.max_owners = pool_max_refs();
	if (root.nr_file_pages > check.max_owners)
		check.owners = vzalloc(array_size(kp->nr_pages, sizeof(*check.owners)));
	r = -ENOMEM;
	if (check.meta && check.data &&
	    (check.owners || root.nr_file_pages <= check.max_owners))
		r = kmemfs_verify(&m, &root, &check, why);
	vfree(check.meta);
	vfree(check.data);
	vfree(check.owners);
	return kmemfs_decide(kp, &root, r, check.sums_lost, why);
}

/* One more owner of a page; the first one makes it ours */
static int kmemfs_keep(struct kmem_persist *kp, u64 page)
{
	if (!__test_and_set_bit(page, kp->keep))
		pool_page_adopt(kmem_persist_page(kp, page));
	else
		get_page(kmem_persist_page(kp, page));
	return 0;
}

static int kmemfs_keep_meta(void *ctx, __u64 page, enum kmemfs_page_kind kind, __u32 level)
{
	struct kmemfs *k = ctx;

	if (!test_bit(page, k->kp->keep)) {
		k->root.nr_meta_pages++;
		k->sums.nr_pages += kmemfs_is_sums_page(k, page, kind);
		return kmemfs_keep(k->kp, page);
	}
	/* all else has one place: the device changes while it is attached */
	if (kind != KMEMFS_KIND_SEGMENT && kind != KMEMFS_KIND_NODE)
		return -EUCLEAN;
	return kmemfs_share(k, page) ?: KMEMFS_SEEN;
}

static int kmemfs_keep_run(void *ctx, __u64 ino, __u64 file_page, __u64 count, __u64 page)
{
	struct kmemfs *k = ctx;
	int r = 0;

	for (; count && !r; count--) {
		r = kmemfs_keep(k->kp, page++);
		if (!(count & 0xffff))
			cond_resched();
	}
	return r;
}

/* What the table of checksums has lost is not kept */
static int kmemfs_keep_damage(void *ctx, __u64 page, __u64 ino, __u64 file_page, __u64 count,
			      const char *why)
{
	return ino == KMEMFS_INO_SUMS ? 0 : -EUCLEAN;
}

static const struct kmemfs_visitor kmemfs_keep_visitor = {
	.meta = kmemfs_keep_meta,
	.run = kmemfs_keep_run,
	.damage = kmemfs_keep_damage,
};

/* The pages that a tree leads to, of which the root's count is wrong if some are lost */
static int kmemfs_keep_tree(struct kmemfs *k, const struct kmemfs_media *m,
			    struct kmem_persist_why *why)
{
	const struct kmemfs_root_info root = k->root;

	k->root.nr_meta_pages = 0;
	return kmemfs_walk(m, &root, &kmemfs_keep_visitor, k, why);
}

/* What no file seems to have may be of one that damage hides */
static int kmemfs_keep_all(struct kmem_persist *kp)
{
	u64 page = max_t(u64, kp->first, kp->nr_head);

	for (; page < kp->end; page++) {
		kmemfs_keep(kp, page);
		if (!(page & 0xffff))
			cond_resched();
	}
	return 0;
}

static void kmemfs_free(struct kmemfs *k)
{
	vfree(k->durable);
	vfree(k->flushing);
	vfree(k->sums.unsummed);
	xa_destroy(&k->shared);
	kvfree(k);
}

static struct kmemfs *kmemfs_alloc(struct kmem_persist *kp)
{
	struct kmemfs *k = kvzalloc(sizeof(*k), GFP_KERNEL);

	if (!k)
		return NULL;
	xa_init(&k->shared);
	k->durable = vzalloc(BITS_TO_LONGS(kp->nr_pages) * sizeof(long));
	k->flushing = vzalloc(BITS_TO_LONGS(kp->nr_pages) * sizeof(long));
	k->sums.unsummed = vzalloc(BITS_TO_LONGS(kp->nr_pages) * sizeof(long));
	if (!k->durable || !k->flushing || !k->sums.unsummed) {
		kmemfs_free(k);
		return NULL;
	}
	k->kp = kp;
	k->region.nid = kp->nid;
	k->region.start_pfn = kp->start_pfn;
	k->region.first = max_t(unsigned long, kp->first, KMEM_PERSIST_HEAD_PAGES);
	k->region.end = kp->end;
	k->region.written = k->durable;
	k->rescue = kp->rescue;
	init_rwsem(&k->commit_sem);
	mutex_init(&k->commit_lock);
	spin_lock_init(&k->pending_lock);
	INIT_LIST_HEAD(&k->pending);
	return k;
}

void kmemfs_flush(struct kmemfs_sink *s, enum kmem_persist_step step, const void *addr,
		  size_t len)
{
	const struct kmemfs *k = s->ctx;

	kmem_persist_write_back(k->kp, step, addr, len);
}

void kmemfs_fence(struct kmemfs_sink *s, enum kmem_persist_step step)
{
	const struct kmemfs *k = s->ctx;

	kmem_persist_fence(k->kp, step);
}

/*
 * A commit may have ended before the root before it did. Then its own one may be in no
 * more than a cache as yet, of the processor or of a host, which outlive kernels.
 */
static int kmemfs_retire_other(struct kmemfs *k)
{
	struct kmemfs_sink sink = { .flush = kmemfs_flush, .fence = kmemfs_fence, .ctx = k };
	struct kmemfs_root *slots = k->kp->head + KMEMFS_PAGE_SIZE;
	int r;

	kmemfs_flush(&sink, KMEM_STEP_FS_ATTACH_ROOT, &slots[k->slot], sizeof(*slots));
	kmemfs_fence(&sink, KMEM_STEP_FS_AFTER_ATTACH_ROOT);
	r = kmem_persist_make_durable(k->kp, KMEM_STEP_SYNC_FS_ATTACH_ROOT);
	if (r)
		return r;
	kmemfs_retire(&sink, &slots[!k->slot]);
	return kmem_persist_make_durable(k->kp, KMEM_STEP_SYNC_FS_ATTACH_RETIRE);
}

static int kmemfs_persist_attach(struct kmem_persist *kp)
{
	struct kmem_persist_why why = {};
	struct kmemfs_media m;
	struct kmemfs *k = kmemfs_alloc(kp);
	int r;

	if (!k)
		return -ENOMEM;
	kmemfs_online_media(kp, &m);
	r = kmemfs_root_pick(&m, &k->slot, &k->root, &why);
	if (!r && k->rescue)
		r = kmemfs_keep_all(kp);
	else if (!r)
		r = kmemfs_keep_tree(k, &m, &why);
	if (!r && !k->rescue && !kmem_persist_without(KMEM_ORDER_FS_ATTACH_RETIRE))
		r = kmemfs_retire_other(k);
	if (r) {
		if (why.text[0])
			dev_err(kp->dev, "the device changed while it was attached: %s\n",
				why.text);
		kmemfs_free(k);
		return r;
	}
	kp->private = k;
	return 0;
}

static void kmemfs_persist_attached(struct kmem_persist *kp)
{
	struct kmemfs *k = kp->private;

	dev_info(kp->dev, "kmemfs: generation %llu: %llu inodes, %llu pages of files, %llu of metadata\n",
		 k->root.generation, k->root.nr_inodes, k->root.nr_file_pages,
		 k->root.nr_meta_pages);
}

/* Stored pages have nowhere to go */
static int kmemfs_persist_detach(struct kmem_persist *kp)
{
	return -EBUSY;
}

static struct kmem_persist_type kmemfs_persist_type = {
	.id = KMEM_PERSIST_FS,
	.name = "fs",
	.check = kmemfs_persist_check,
	.attach = kmemfs_persist_attach,
	.attached = kmemfs_persist_attached,
	.detach = kmemfs_persist_detach,
};

int __init kmemfs_register_persist(void)
{
	return kmem_persist_register_type(&kmemfs_persist_type);
}
