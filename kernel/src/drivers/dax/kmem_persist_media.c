// SPDX-License-Identifier: GPL-2.0
/**
 * DOC: making bytes durable
 *
 * Types write to a device by storing to its memory. What they store is durable
 * after a write-back and then a fence, and may become so at any moment before:
 * the two functions here are their only way to either. What a fence waits for
 * is what the same task has written back before.
 */
#include <linux/kmem_persist.h>
#include <linux/libnvdimm.h>
#include <asm/barrier.h>

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
