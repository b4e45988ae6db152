// SPDX-License-Identifier: GPL-2.0
/**
 * DOC: media that cannot give back what was stored
 *
 * A line of memory that has lost its content raises a machine check when it is
 * loaded, which the kernel survives in few places only. So what is known to be
 * bad before a device is attached, from its parent (the badblocks of an NVDIMM's
 * region) or from the administrator (the parameter ranges), is not loaded at
 * all, and metadata that nobody has complained of is read once by
 * copy_mc_to_kernel() before it is looked at.
 *
 * Metadata that cannot be read refuses the device, or the type gives up what it leads
 * to and keeps all else from being written (kmem_persist.rescue). A page of data that
 * is bad is a page whose memory has failed: it is marked as poisoned before anybody can
 * get it, and only who wants to read it sees an error. One that nothing is
 * stored in is not given to the page allocator.
 */
#include <linux/bitmap.h>
#include <linux/device.h>
#include <linux/kmem_persist.h>
#include <linux/mm.h>
#include <linux/moduleparam.h>
#include <linux/pfn.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include "dax-private.h"
#include "kmem_persist_driver.h"

/* Physical addresses, for memory of which nobody else knows: "START-END[,...]", both included */
static char *told;
module_param_named(ranges, told, charp, 0644);

/* A part of the device is bad: all pages that it touches are. */
static int note_bad(const struct range *bad, void *ctx)
{
	struct kmem_persist *kp = ctx;
	const unsigned long first = PHYS_PFN(bad->start) - kp->start_pfn;
	const unsigned long last = min(PHYS_PFN(bad->end) - kp->start_pfn, kp->nr_pages - 1);

	if (!kp->bad)
		kp->bad = kvcalloc(BITS_TO_LONGS(kp->nr_pages), sizeof(long), GFP_KERNEL);
	if (!kp->bad)
		return -ENOMEM;
	bitmap_set(kp->bad, first, last - first + 1);
	return 0;
}

/* What the parameter says of the device; -EINVAL: nobody can tell what it says */
static int parse_bad(const char *text, const struct range *range, struct kmem_persist *kp)
{
	struct range bad;
	int rc = 0, len;

	for (; !rc && *text && *text != '\n'; text += len) {
		len = 0;
		if (sscanf(text, "%llx-%llx%n", &bad.start, &bad.end, &len) < 2 || !len ||
		    bad.start > bad.end)
			return -EINVAL;
		if (text[len] == ',')
			len++;
		if (bad.start > range->end || bad.end < range->start)
			continue;
		bad.start = max(bad.start, range->start);
		rc = note_bad(&bad, kp);
	}
	return rc;
}

static int told_bad(const struct range *range, struct kmem_persist *kp)
{
	int rc;

	kernel_param_lock(THIS_MODULE);
	rc = told ? parse_bad(told, range, kp) : 0;
	kernel_param_unlock(THIS_MODULE);
	if (rc == -EINVAL)
		dev_err(kp->dev, "kmem_persist_bad.ranges= is not START-END[,...]\n");
	return rc;
}

/*
 * kmem_persist_find_bad - what is known of the device's media
 *
 * Returns 0, -ENOMEM, -EINVAL, or -EIO: there may be more.
 */
int kmem_persist_find_bad(struct kmem_persist *kp, struct dev_dax *dev_dax)
{
	const struct range *range = &dev_dax->ranges[0].range;
	struct dax_region *region = dev_dax->region;
	int rc = told_bad(range, kp);

	if (!rc && region->bad_ranges)
		rc = region->bad_ranges(region, range, note_bad, kp);
	return rc;
}

/* It showed only now: remembered, for later than check. */
static void note_unreadable(struct kmem_persist *kp, unsigned long nr)
{
	kp->unreadable = true;
	if (!kp->bad)
		kp->bad = kvcalloc(BITS_TO_LONGS(kp->nr_pages), sizeof(long), GFP_KERNEL);
	if (kp->bad)
		__set_bit(nr, kp->bad);
}

/**
 * kmem_persist_readable - find out whether a page can be read, without dying of it
 * @kp: the device
 * @nr: device page
 * @page: where it is mapped
 *
 * For metadata: plain loads may follow.
 *
 * Return: false if the page is known to be bad, as it is from now on if it shows to be.
 * If there was no memory to remember that, kmem_persist_is_bad() still says no.
 */
bool kmem_persist_readable(struct kmem_persist *kp, unsigned long nr, const void *page)
{
	char piece[SMP_CACHE_BYTES * 4];
	size_t at;

	if (kmem_persist_is_bad(kp, nr))
		goto unreadable;
	for (at = 0; at < PAGE_SIZE; at += sizeof(piece))
		if (copy_mc_to_kernel(piece, page + at, sizeof(piece)))
			goto unreadable;
	return true;

unreadable:
	note_unreadable(kp, nr);
	return false;
}

/*
 * kmem_persist_mark_bad - what is bad counts as memory that has failed
 *
 * All memory is online and allocated. Metadata is not bad, or the type is prepared for it.
 */
void kmem_persist_mark_bad(struct kmem_persist *kp)
{
	unsigned long nr, marked = 0;

	if (!kp->bad)
		return;
	nr = max(kp->first, kp->nr_head);
	for_each_set_bit_from(nr, kp->bad, kp->end) {
		SetPageHWPoison(kmem_persist_page(kp, nr));
		num_poisoned_pages_inc(kp->start_pfn + nr);
		marked++;
	}
	if (marked)
		dev_warn(kp->dev, "%lu pages cannot be read, by what is known of the media: what they held is lost, and they are not used\n",
			 marked);
}
