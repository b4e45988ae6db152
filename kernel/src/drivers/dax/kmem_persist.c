// SPDX-License-Identifier: GPL-2.0
/**
 * DOC: persistent data in memory of the kmem driver
 *
 * A DAX device whose page 0 holds a header (struct kmem_persist_header) is RAM
 * of a NUMA node of its own, some pages of which hold data. The header names
 * the type that knows which. Probe goes through
 *
 *   open:   read the header; refuse the device unless everything about it is
 *           understood, there is a node for it alone, and the type, looking at
 *           a mapping of the device, accepts what is stored. Nothing was added.
 *   add:    the kmem driver adds the memory with MHP_ALLOCATE, so no page of it
 *           can be allocated, and all of it is online.
 *   attach: the type says which pages to keep; the others are freed.
 *
 * The device is not written to before the type has accepted what is stored, and
 * by nobody but the type then. Whatever can fail comes before the memory is
 * added; if something fails later nevertheless, the memory is taken out again,
 * and if that fails too, it stays allocated, unused, and unharmed.
 *
 * A type allocates by node, so the device has to be alone on one. If the node
 * that it is on by its place has other memory, it gets a spare one (see
 * mm/numa_spare.c), until it is unbound or the machine is booted anew.
 *
 * A memory notifier holds off what would break this: offlining memory that
 * holds data, and other memory coming online on the node, which is the pool
 * that the type allocates from. Unbinding the driver from a device that holds
 * data changes nothing; binding it again finds everything as it was.
 *
 * A device whose page 0 is no header is plain memory, unless page 1 or 2 is the
 * root of a type: then it had a header that was damaged beyond recognition, and
 * what is stored would be overwritten. Of plain memory nobody gets these three
 * pages: a process could leave a header there for the next boot to believe, or a
 * root for it to refuse the device.
 */
#include <linux/cc_platform.h>
#include <linux/crash_dump.h>
#include <linux/device.h>
#include <linux/init.h>
#include <linux/io.h>
#include <linux/kmem_persist.h>
#include <linux/memory.h>
#include <linux/memory_hotplug.h>
#include <linux/mmzone.h>
#include <linux/mutex.h>
#include <linux/notifier.h>
#include <linux/numa_spare.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/vmstat.h>
#include "dax-private.h"
#include "kmem_persist_driver.h"

/* Before the default, so that a veto comes before others have allocated */
#define KMEM_PERSIST_CALLBACK_PRI	200

static_assert(sizeof(struct kmem_persist_header) == PAGE_SIZE);

enum kmem_persist_state {
	KP_OPEN,	/* being probed; its memory may come online */
	KP_ATTACHED,	/* in use */
	KP_DETACHING,	/* being unbound; no new users */
	KP_LEAVING,	/* nothing stored; its memory may go, and may not come back */
	KP_STUCK,	/* not attached, and the memory could not be removed */
};

/* Guards both lists, and state and drvdata of the devices. Innermost lock. */
static DEFINE_MUTEX(kmem_persist_lock);
static LIST_HEAD(kmem_persist_types);
static LIST_HEAD(kmem_persist_devices);

static const struct kmem_persist_type *find_type(u32 id)
{
	const struct kmem_persist_type *type;

	lockdep_assert_held(&kmem_persist_lock);
	list_for_each_entry(type, &kmem_persist_types, list)
		if (type->id == id)
			return type;
	return NULL;
}

/**
 * kmem_persist_register_type - make a type known
 * @type: the type; stays in use for good
 *
 * There is no way back, so a type has to be built in. A device of the type that
 * was probed before is refused and has to be bound again: register at
 * fs_initcall or earlier, before drivers.
 *
 * Context: process.
 * Return: 0; -EEXIST if the id is taken.
 */
int kmem_persist_register_type(struct kmem_persist_type *type)
{
	guard(mutex)(&kmem_persist_lock);
	if (find_type(type->id))
		return -EEXIST;
	list_add_tail(&type->list, &kmem_persist_types);
	return 0;
}

/**
 * kmem_persist_get - find an attached device
 * @name: name of the DAX device, such as "dax0.0"
 * @type_id: enum kmem_persist_type_id
 *
 * The device stays attached until kmem_persist_put(), even if the driver is
 * unbound or the DAX device removed meanwhile.
 *
 * Context: process.
 * Return: the device, or NULL if none of this name is attached with this type.
 */
struct kmem_persist *kmem_persist_get(const char *name, u32 type_id)
{
	struct kmem_persist *kp;

	guard(mutex)(&kmem_persist_lock);
	list_for_each_entry(kp, &kmem_persist_devices, list) {
		if (kp->state != KP_ATTACHED || kp->type->id != type_id || strcmp(kp->name, name))
			continue;
		refcount_inc(&kp->refs);
		return kp;
	}
	return NULL;
}

/**
 * kmem_persist_put - let go of a device
 * @kp: from kmem_persist_get()
 *
 * Context: process.
 */
void kmem_persist_put(struct kmem_persist *kp)
{
	if (!refcount_dec_and_test(&kp->refs))
		return;
	kvfree(kp->keep);
	kvfree(kp->bad);
	if (kp->head)
		memunmap(kp->head);
	dax_region_put(kp->region);
	put_device(kp->dev);
	kfree(kp->name);
	kfree(kp);
}

/**
 * kmem_persist_active - whether any device is attached that may store something
 *
 * Then an image of this system must not be written to be resumed later: it
 * would bring back what is stored in memory, over newer commits on the device.
 *
 * Context: process.
 */
bool kmem_persist_active(void)
{
	struct kmem_persist *kp;

	guard(mutex)(&kmem_persist_lock);
	list_for_each_entry(kp, &kmem_persist_devices, list)
		if (kp->type->detach)
			return true;
	return false;
}

/* Pages of the zone on the free lists of its CPUs; racy, as all such counts are */
static unsigned long percpu_free_pages(const struct zone *zone)
{
	unsigned long nr = 0;
	int cpu;

	for_each_online_cpu(cpu)
		nr += READ_ONCE(per_cpu_ptr(zone->per_cpu_pageset, cpu)->count);
	return nr;
}

/**
 * kmem_persist_free_pages - how many pages can be allocated from the device
 * @kp: the device, attached
 *
 * Return: the free memory of its node, with what CPUs have on their lists.
 */
unsigned long kmem_persist_free_pages(const struct kmem_persist *kp)
{
	struct zone *zones = NODE_DATA(kp->nid)->node_zones;
	unsigned long nr = 0;
	int i;

	for (i = 0; i < MAX_NR_ZONES; i++)
		if (populated_zone(&zones[i]))
			nr += zone_page_state_snapshot(&zones[i], NR_FREE_PAGES) +
			      percpu_free_pages(&zones[i]);
	return nr;
}

static void set_state(struct kmem_persist *kp, enum kmem_persist_state state)
{
	guard(mutex)(&kmem_persist_lock);
	kp->state = state;
}

static phys_addr_t online_start(const struct kmem_persist *kp)
{
	return PFN_PHYS(kp->start_pfn + kp->first);
}

static u64 online_size(const struct kmem_persist *kp)
{
	return PFN_PHYS(kp->end - kp->first);
}

static int refuse(struct kmem_persist *kp, int err, const char *why)
{
	dev_err(kp->dev, "refused: %s; the device was not written to, its memory is not in use\n",
		why);
	return err;
}

static int match_node(struct memory_block *mem, void *nid)
{
	return mem->nid == *(int *)nid ? -EEXIST : 0;
}

static int check_node_empty(int nid)
{
	int rc = 0;

	lock_device_hotplug();
	if (nid < 0 || !node_possible(nid))
		rc = -EINVAL;
	else if (node_state(nid, N_MEMORY) || node_present_pages(nid))
		rc = -EEXIST;
	else
		rc = for_each_memory_block(&nid, match_node);
	unlock_device_hotplug();
	return rc;
}

/* From here on, no other memory comes online on the node. False: it is another device's. */
static bool enlist(struct kmem_persist *kp)
{
	const struct kmem_persist *other;

	guard(mutex)(&kmem_persist_lock);
	list_for_each_entry(other, &kmem_persist_devices, list)
		if (other->nid == kp->nid)
			return false;
	list_add_tail(&kp->list, &kmem_persist_devices);
	return true;
}

/* The type allocates by node, so all memory of the node has to be the device's. */
static int take_node(struct kmem_persist *kp, struct dev_dax *dev_dax,
		     struct kmem_persist_why *why)
{
	int rc = check_node_empty(kp->nid);
	int nid;

	if (rc || !enlist(kp)) {
		nid = numa_claim_spare_node(kp->nid);
		if (nid == NUMA_NO_NODE) {
			kmem_persist_why_set(why, rc == -EINVAL ?
					     "there is no node %d, and no spare one" :
					     "node %d has other memory, and there is no spare one",
					     kp->nid);
			return rc ?: -EEXIST;
		}
		kp->nid = nid;
		rc = dev_dax_set_target_node(dev_dax, nid);
		if (rc || !enlist(kp)) {
			kmem_persist_why_set(why, "spare node %d cannot be used", nid);
			return rc ?: -EEXIST;
		}
	}
	/* Some may have come before it was on the list. */
	rc = check_node_empty(kp->nid);
	if (rc)
		kmem_persist_why_set(why, "node %d has other memory, and must have none",
				     kp->nid);
	return rc;
}

static int check_stored(struct kmem_persist *kp, struct kmem_persist_why *why)
{
	int rc;

	if (!kp->type->check)
		return 0;

	kp->image = memremap(PFN_PHYS(kp->start_pfn), PFN_PHYS(kp->nr_pages), MEMREMAP_WB);
	if (!kp->image) {
		kmem_persist_why_set(why, "cannot map the device");
		return -ENOMEM;
	}
	rc = kp->type->check(kp, why);
	memunmap((void *)kp->image);
	kp->image = NULL;
	return rc && kp->unreadable ? -EIO : rc;
}

/* While none of it is online: no mapping can have both online memory and other. */
static int map_head(struct kmem_persist *kp)
{
	if (kp->head)
		memunmap(kp->head);
	kp->head = memremap(PFN_PHYS(kp->start_pfn), PFN_PHYS(kp->nr_head), MEMREMAP_WB);
	return kp->head ? 0 : -ENOMEM;
}

/* Why this kernel must leave all pools alone, or NULL */
static const char *unfit_kernel(void)
{
	if (is_kdump_kernel())
		return "this kernel was started by a crash, to save what it left and nothing else";
	if (cc_platform_has(CC_ATTR_MEM_ENCRYPT))
		return "memory is encrypted, with a key that the next boot will not have";
	return NULL;
}

/* All that can be found out without touching the device or adding memory. */
static int check_device(struct kmem_persist *kp, struct dev_dax *dev_dax,
			const struct range *usable)
{
	const char *unfit = unfit_kernel();
	struct kmem_persist_why why = {};
	int rc;

	rc = kmem_persist_header_verify(&kp->header, PFN_PHYS(kp->nr_pages), &why);
	if (rc)
		return refuse(kp, rc, why.text);
	if (unfit)
		return refuse(kp, -EPERM, unfit);

	if (dev_dax->nr_range != 1)
		return refuse(kp, -EOPNOTSUPP, "the device is made of several ranges");
	if (!usable)
		return refuse(kp, -ENOSPC, "the device does not contain a whole memory block");
	if (dev_dax->memmap_on_memory)
		return refuse(kp, -EOPNOTSUPP,
			      "memmap_on_memory would overwrite data; write 0 to it");
	kp->first = PHYS_PFN(usable->start) - kp->start_pfn;
	kp->end = PHYS_PFN(usable->end + 1) - kp->start_pfn;

	scoped_guard(mutex, &kmem_persist_lock)
		kp->type = find_type(le32_to_cpu(kp->header.type));
	if (!kp->type) {
		kmem_persist_why_set(&why, "type %u is not built into this kernel",
				     le32_to_cpu(kp->header.type));
		return refuse(kp, -EOPNOTSUPP, why.text);
	}

	rc = take_node(kp, dev_dax, &why);
	if (rc)
		return refuse(kp, rc, why.text);

	rc = check_stored(kp, &why);
	if (rc)
		return refuse(kp, rc, why.text);
	rc = map_head(kp);
	if (rc)
		return refuse(kp, rc, "cannot map what is kept behind the header");

	kp->keep = kvcalloc(BITS_TO_LONGS(kp->nr_pages), sizeof(long), GFP_KERNEL);
	if (!kp->keep)
		return refuse(kp, -ENOMEM, "out of memory");
	return 0;
}

static bool read_head_page(const struct kmem_persist *kp, unsigned long nr, void *to)
{
	return !kmem_persist_is_bad(kp, nr) &&
	       !copy_mc_to_kernel(to, kp->head + nr * PAGE_SIZE, PAGE_SIZE);
}

/* Page 0 is no header. Was it one? 0: nothing says so. A root that cannot be read does not. */
static int look_for_roots(struct kmem_persist *kp)
{
	struct kmem_persist_root *root __free(kfree) = kmalloc(PAGE_SIZE, GFP_KERNEL);
	struct kmem_persist_why why;
	unsigned long nr;

	if (!root)
		return refuse(kp, -ENOMEM, "out of memory");
	for (nr = 1; nr < KMEM_PERSIST_HEAD_PAGES; nr++) {
		if (!read_head_page(kp, nr, root) || !kmem_persist_root_type(root))
			continue;
		kmem_persist_why_set(&why, "header: destroyed; page %lu is a root of pool %pUb",
				     nr, root->uuid);
		return refuse(kp, -EUCLEAN, why.text);
	}
	return 0;
}

/* Returns 1 if the device has a header, 0 if it has not and never had one. */
static int read_header(struct kmem_persist *kp)
{
	if (map_head(kp))
		return refuse(kp, -ENOMEM, "cannot map the header");
	if (!read_head_page(kp, 0, &kp->header))
		return refuse(kp, -EIO, "cannot read page 0, memory error");
	return kmem_persist_header_present(&kp->header) ? 1 : look_for_roots(kp);
}

/*
 * kmem_persist_open - look for a header, and decide whether to take the device
 * @dev_dax: the device
 * @usable: the part of its first range that can be memory, or NULL
 *
 * Returns NULL if the device has no header, an ERR_PTR after saying why if it
 * has one and must not be used, else what kmem_persist_attach() takes.
 */
struct kmem_persist *kmem_persist_open(struct dev_dax *dev_dax, const struct range *usable)
{
	const struct range *range = &dev_dax->ranges[0].range;
	struct kmem_persist *kp;
	bool more_bad;
	int rc;

	if (PHYS_PFN(range_len(range)) < KMEM_PERSIST_HEAD_PAGES)
		return NULL;

	kp = kzalloc(sizeof(*kp), GFP_KERNEL);
	if (!kp)
		return ERR_PTR(-ENOMEM);
	refcount_set(&kp->refs, 1);
	INIT_LIST_HEAD(&kp->list);
	kp->dev = get_device(&dev_dax->dev);
	kp->region = dax_region_get(dev_dax->region);
	kp->own_nid = dev_dax->target_node;
	kp->nid = kp->own_nid;
	kp->start_pfn = PHYS_PFN(range->start);
	kp->nr_pages = PHYS_PFN(range_len(range));
	kp->nr_head = KMEM_PERSIST_HEAD_PAGES;
	kp->state = KP_OPEN;
	kp->name = kstrdup(dev_name(kp->dev), GFP_KERNEL);

	rc = kp->name ? kmem_persist_find_bad(kp, dev_dax) : -ENOMEM;
	more_bad = rc == -EIO;
	if (!rc || more_bad)
		rc = read_header(kp);
	if (rc > 0 && more_bad)
		rc = refuse(kp, -EIO, "the list of its bad blocks is full, there may be more");
	if (rc > 0)
		rc = check_device(kp, dev_dax, usable);
	else if (!rc)
		rc = -ENOENT;
	if (!rc)
		return kp;

	kmem_persist_close(kp);
	return rc == -ENOENT ? NULL : ERR_PTR(rc);
}

static bool all_online(const struct kmem_persist *kp)
{
	unsigned long nr;

	for (nr = kp->first; nr < kp->end; nr += PAGES_PER_SECTION)
		if (!pfn_to_online_page(kp->start_pfn + nr))
			return false;
	return true;
}

/* Returns how many pages were freed. */
static unsigned long free_rest(struct kmem_persist *kp)
{
	unsigned long nr, next, freed = 0;

	for (nr = kp->first; nr < min(kp->end, kp->nr_head); nr++)
		__set_bit(nr, kp->keep);

	for (nr = kp->first; nr < kp->end; nr = next) {
		const unsigned long pfn = kp->start_pfn + nr;

		if (test_bit(nr, kp->keep)) {
			next = find_next_zero_bit(kp->keep, kp->end, nr);
			mhp_keep_allocated(pfn, next - nr);
		} else {
			next = find_next_bit(kp->keep, kp->end, nr);
			mhp_free_allocated(pfn, next - nr);
			freed += next - nr;
		}
	}
	kvfree(kp->keep);
	kp->keep = NULL;
	kp->managed = true;
	return freed;
}

/*
 * kmem_persist_attach - sort out the pages of the device
 * @kp: from kmem_persist_open(); its memory has been added with MHP_ALLOCATE
 * @mgid: its memory group
 * @drvdata: returned by kmem_persist_rebind()
 *
 * On failure, which has been reported, try kmem_persist_remove().
 */
int kmem_persist_attach(struct kmem_persist *kp, int mgid, void *drvdata)
{
	unsigned long freed;
	int rc;

	if (!all_online(kp)) {
		dev_err(kp->dev, "not attached: some of its memory did not come online\n");
		return -ENOMEM;
	}
	kmem_persist_mark_bad(kp);
	kmem_persist_record_attach(kp);
	rc = kp->type->attach ? kp->type->attach(kp) : 0;
	if (rc) {
		dev_err(kp->dev, "not attached: type %s failed: %d\n", kp->type->name, rc);
		return rc;
	}

	kmem_persist_record_free_rest(kp);
	freed = free_rest(kp);
	mhp_finish_allocated(mgid);
	if (kp->type->attached)
		kp->type->attached(kp);

	scoped_guard(mutex, &kmem_persist_lock) {
		kp->drvdata = drvdata;
		kp->state = KP_ATTACHED;
	}
	if (kmem_persist_show(kp))
		dev_warn(kp->dev, "cannot show in sysfs what is stored\n");
	dev_info(kp->dev, "attached as %s, uuid %pUb, node %d: %lu pages free, %lu kept\n",
		 kp->type->name, kp->header.uuid, kp->nid, freed, kp->end - kp->first - freed);
	return 0;
}

static int offline_block(struct memory_block *mem, void *unused)
{
	const int rc = device_offline(&mem->dev);

	return min(rc, 0);
}

static int offline_all(struct kmem_persist *kp)
{
	int rc;

	set_state(kp, KP_LEAVING);
	lock_device_hotplug();
	rc = walk_memory_blocks(online_start(kp), online_size(kp), NULL, offline_block);
	unlock_device_hotplug();
	return rc;
}

/* Whether nobody but us holds any page */
static bool all_unused(const struct kmem_persist *kp)
{
	unsigned long nr;

	for (nr = kp->first; nr < kp->end; nr++) {
		struct page *page = pfn_to_online_page(kp->start_pfn + nr);

		if (page && page_count(page) != 1)
			return false;
	}
	return true;
}

/*
 * kmem_persist_remove - take the memory of a device out again after
 * kmem_persist_attach() failed, without touching its contents
 *
 * Returns 0 if all of it is gone, else an error: it stays until the next boot.
 */
int kmem_persist_remove(struct kmem_persist *kp)
{
	int rc = all_unused(kp) ? offline_all(kp) : -EBUSY;

	if (!rc)
		rc = remove_memory(online_start(kp), online_size(kp));
	if (!rc)
		return 0;
	set_state(kp, KP_STUCK);
	dev_err(kp->dev, "its memory stays allocated, unused and unchanged until the next boot\n");
	return rc;
}

/*
 * kmem_persist_detach - the driver is being unbound
 *
 * Returns 0 if the memory may be removed, if it is offline then; else
 * everything stays in use, which has been reported.
 */
int kmem_persist_detach(struct kmem_persist *kp)
{
	bool attached, busy = false;

	/* The driver removes what the administrator has offlined before. */
	if (!kp->type->detach)
		return 0;

	scoped_guard(mutex, &kmem_persist_lock) {
		attached = kp->state == KP_ATTACHED;
		if (attached)
			busy = refcount_read(&kp->refs) > 1;
		if (attached && !busy)
			kp->state = KP_DETACHING;
	}
	if (busy || (attached && kp->type->detach(kp))) {
		set_state(kp, KP_ATTACHED);
		dev_warn(kp->dev, "unbound while in use: its memory and its data stay as they are; bind it again to control it\n");
		return -EBUSY;
	}
	if (offline_all(kp))
		dev_warn(kp->dev, "detached, but some of its memory is still in use\n");
	return 0;
}

/* kmem_persist_find - the device, if the driver is bound to it */
struct kmem_persist *kmem_persist_find(struct dev_dax *dev_dax)
{
	struct kmem_persist *kp;

	guard(mutex)(&kmem_persist_lock);
	list_for_each_entry(kp, &kmem_persist_devices, list)
		if (kp->dev == &dev_dax->dev)
			return kp;
	return NULL;
}

/*
 * kmem_persist_rebind - get back a device that was in use when it was unbound
 *
 * Returns NULL if it was not, the driver's data if all is as it was then, or an
 * ERR_PTR, which has been reported, if its memory is in use otherwise.
 */
void *kmem_persist_rebind(struct dev_dax *dev_dax)
{
	const struct range *range = &dev_dax->ranges[0].range;
	struct kmem_persist *kp;

	guard(mutex)(&kmem_persist_lock);
	list_for_each_entry(kp, &kmem_persist_devices, list) {
		if (PHYS_PFN(range->end) < kp->start_pfn ||
		    PHYS_PFN(range->start) >= kp->start_pfn + kp->nr_pages)
			continue;
		if (kp->dev == &dev_dax->dev && kp->state == KP_ATTACHED) {
			dev_info(kp->dev, "bound again, with all as it was\n");
			return kp->drvdata;
		}
		dev_err(&dev_dax->dev, "refused: the memory is still in use from an earlier binding, until the next boot\n");
		return ERR_PTR(-EBUSY);
	}
	return NULL;
}

/* kmem_persist_close - forget a device, unless its memory is stuck */
void kmem_persist_close(struct kmem_persist *kp)
{
	scoped_guard(mutex, &kmem_persist_lock) {
		if (kp->state == KP_STUCK)
			return;
		list_del(&kp->list);
	}
	if (kp->drvdata)
		kmem_persist_hide(kp);
	if (kp->nid != kp->own_nid) {
		dev_dax_set_target_node(to_dev_dax(kp->dev), kp->own_nid);
		numa_release_spare_node(kp->nid);
	}
	kmem_persist_put(kp);
}

/*
 * kmem_persist_guard - a device without header becomes plain memory
 * @dev_dax: the device
 * @mgid: its memory group; nothing has been added to it
 */
void kmem_persist_guard(struct dev_dax *dev_dax, int mgid)
{
	memory_group_hide_pages(mgid, PHYS_PFN(dev_dax->ranges[0].range.start),
				KMEM_PERSIST_HEAD_PAGES);
}

static bool holds_head(const struct kmem_persist *kp, const struct memory_notify *mn)
{
	return mn->start_pfn < kp->start_pfn + kp->nr_head &&
	       mn->start_pfn + mn->nr_pages > kp->start_pfn;
}

/*
 * Pages that must not be freed, and so could not be offlined, can be if they
 * are PageOffline without a reference. They are not counted as managed then,
 * since offlining does not subtract them.
 */
static void hide_pages(const struct kmem_persist *kp, const struct memory_notify *mn, bool hide)
{
	const unsigned long end = mn->start_pfn + mn->nr_pages;
	unsigned long pfn;

	for (pfn = mn->start_pfn; pfn < end; pfn++) {
		struct page *page = pfn_to_page(pfn);

		if (kp->managed && pfn - kp->start_pfn >= kp->nr_head)
			break;
		if (hide) {
			__SetPageOffline(page);
			page_ref_dec(page);
		} else if (PageOffline(page)) {
			page_ref_inc(page);
			__ClearPageOffline(page);
		} else {
			break;
		}
		if (kp->managed)
			adjust_managed_page_count(page, hide ? -1 : 1);
	}
}

static int own_block_event(struct kmem_persist *kp, unsigned long action,
			   struct memory_notify *mn)
{
	const bool plain = kp->state == KP_ATTACHED && !kp->type->detach;

	switch (action) {
	case MEM_GOING_ONLINE:
		if (kp->state == KP_OPEN || (plain && !holds_head(kp, mn)))
			return NOTIFY_OK;
		dev_warn(kp->dev, "memory not onlined: %s\n",
			 plain ? "the block holds the header; unbind the device and bind it again" :
			 "the device is not attached");
		return notifier_from_errno(-EBUSY);
	case MEM_GOING_OFFLINE:
		if (kp->state != KP_LEAVING && !plain) {
			dev_warn(kp->dev, "memory not offlined: the device holds data\n");
			return notifier_from_errno(-EBUSY);
		}
		hide_pages(kp, mn, true);
		return NOTIFY_OK;
	case MEM_CANCEL_OFFLINE:
		hide_pages(kp, mn, false);
		return NOTIFY_OK;
	default:
		return NOTIFY_DONE;
	}
}

static int kmem_persist_memory_event(struct notifier_block *nb, unsigned long action, void *arg)
{
	struct memory_notify *mn = arg;
	struct kmem_persist *kp;

	guard(mutex)(&kmem_persist_lock);
	list_for_each_entry(kp, &kmem_persist_devices, list) {
		const bool own = mn->start_pfn >= kp->start_pfn &&
				 mn->start_pfn < kp->start_pfn + kp->nr_pages;

		if (own)
			return own_block_event(kp, action, mn);
		if (action != MEM_GOING_ONLINE || !kp->type->detach ||
		    page_to_nid(pfn_to_page(mn->start_pfn)) != kp->nid)
			continue;
		dev_warn(kp->dev, "other memory not onlined: node %d is this device's alone\n",
			 kp->nid);
		return notifier_from_errno(-EBUSY);
	}
	return NOTIFY_DONE;
}

static struct notifier_block kmem_persist_memory_nb = {
	.notifier_call	= kmem_persist_memory_event,
	.priority	= KMEM_PERSIST_CALLBACK_PRI,
};

static int __init kmem_persist_init(void)
{
	return register_memory_notifier(&kmem_persist_memory_nb);
}
subsys_initcall(kmem_persist_init);
