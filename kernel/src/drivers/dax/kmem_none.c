// SPDX-License-Identifier: GPL-2.0
/**
 * DOC: KMEM persistence, type NONE
 *
 * Stores nothing: all memory of the device is freed, as if it had no header.
 * The header alone stays, so the device keeps its identity and its label, and
 * can be told from one that nobody has claimed.
 */
#include <linux/init.h>
#include <linux/kmem_persist.h>

static struct kmem_persist_type kmem_none_type = {
	.id	= KMEM_PERSIST_NONE,
	.name	= "none",
};

static int __init kmem_none_init(void)
{
	return kmem_persist_register_type(&kmem_none_type);
}
subsys_initcall(kmem_none_init);
