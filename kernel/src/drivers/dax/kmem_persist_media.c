// SPDX-License-Identifier: GPL-2.0
/**
 * DOC: making bytes durable
 *
 * Types write to a device by storing to its memory. What they store is durable
 * after a write-back and then a fence, and may become so at any moment before:
 * the two functions here are their only way to either. What a fence waits for
 * is what the same task has written back before.
 *
 * On some devices that is not all: kmem_persist_make_durable() asks them to, and
 * tells if they cannot. What was written back before it is asked for, with a fence
 * or without.
 */
#include <linux/device.h>
#include <linux/kmem_persist.h>
#include <linux/libnvdimm.h>
#include <linux/sched/mm.h>
#include <asm/barrier.h>
#include "dax-private.h"

/**
 * kmem_persist_write_back - start to write bytes back from the CPU caches
 * @kp: the device
 * @step: which write-back this is
 * @addr: in the kernel's mapping of the device
 * @len: in bytes; whole cache lines are written back
 *
 * Context: any.
 */
void kmem_persist_write_back(const struct kmem_persist *kp, enum kmem_persist_step step,
			     const void *addr, size_t len)
{
	kmem_persist_record_write_back(kp, step, addr, len);
	if (!kmem_persist_without(step))
		arch_wb_cache_pmem((void *)addr, len);
}

/**
 * kmem_persist_fence - wait until what this task has written back is durable
 * @kp: the device
 * @step: which fence this is
 *
 * Context: process.
 */
void kmem_persist_fence(const struct kmem_persist *kp, enum kmem_persist_step step)
{
	kmem_persist_record_fence(kp, step);
	if (!kmem_persist_without(step))
		pmem_wmb();
}

static int ask_device(struct kmem_persist *kp)
{
	return kmem_persist_record_error() ?: dax_region_make_durable(kp->region);
}

/**
 * kmem_persist_make_durable - wait until what was written back is durable
 * @kp: the device, attached or being attached
 * @step: which request this is
 *
 * For most devices a fence is all that it takes; others have write queues, or a
 * host to ask, which may be slow. Whoever fails to write may forget what it was,
 * so once this has failed it always does. Lack of memory to ask with is no such
 * failure, as nobody was asked: it is waited for.
 *
 * Context: process; takes no lock that is held while memory is reclaimed.
 * Return: 0, or -EIO: then nothing is known of what was written since the last
 * success.
 */
int kmem_persist_make_durable(struct kmem_persist *kp, enum kmem_persist_step step)
{
	int rc;

	if (READ_ONCE(kp->not_durable))
		return -EIO;
	kmem_persist_record_sync(kp, step);
	if (kmem_persist_without(step))
		return 0;
	rc = ask_device(kp);
	while (rc == -ENOMEM) {
		unsigned int flags = memalloc_noreclaim_save();

		rc = ask_device(kp);
		memalloc_noreclaim_restore(flags);
		if (rc == -ENOMEM)
			memalloc_retry_wait(GFP_NOFS);
	}
	if (!rc)
		return 0;
	WRITE_ONCE(kp->not_durable, true);
	dev_err(kp->dev, "the device cannot make data durable: error %d; nothing more is stored until the next boot\n",
		rc);
	return -EIO;
}

/**
 * kmem_persist_is_async - whether writing back makes nothing durable
 * @kp: the device
 *
 * Return: true if only kmem_persist_make_durable() does.
 */
bool kmem_persist_is_async(const struct kmem_persist *kp)
{
	return kp->region->async;
}
