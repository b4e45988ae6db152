/* SPDX-License-Identifier: GPL-2.0 */
/* What the kmem driver asks of the persistence layer. */
#ifndef _DAX_KMEM_PERSIST_DRIVER_H
#define _DAX_KMEM_PERSIST_DRIVER_H

#include <linux/err.h>
#include <linux/range.h>

struct dev_dax;
struct kmem_persist;

#ifdef CONFIG_KMEM_PERSIST
void *kmem_persist_rebind(struct dev_dax *dev_dax);
struct kmem_persist *kmem_persist_open(struct dev_dax *dev_dax, const struct range *usable);
int kmem_persist_attach(struct kmem_persist *kp, int mgid, void *drvdata);
int kmem_persist_remove(struct kmem_persist *kp);
struct kmem_persist *kmem_persist_find(struct dev_dax *dev_dax);
int kmem_persist_detach(struct kmem_persist *kp);
void kmem_persist_close(struct kmem_persist *kp);
void kmem_persist_guard(struct dev_dax *dev_dax, int mgid);

/* kmem_persist_bad.c */
int kmem_persist_find_bad(struct kmem_persist *kp, struct dev_dax *dev_dax);
void kmem_persist_mark_bad(struct kmem_persist *kp);

/* kmem_persist_sysfs.c */
int kmem_persist_show(struct kmem_persist *kp);
void kmem_persist_hide(struct kmem_persist *kp);
#else
static inline void *kmem_persist_rebind(struct dev_dax *dev_dax)
{
	return NULL;
}

static inline struct kmem_persist *kmem_persist_open(struct dev_dax *dev_dax,
						     const struct range *usable)
{
	return NULL;
}

static inline int kmem_persist_attach(struct kmem_persist *kp, int mgid, void *drvdata)
{
	return 0;
}

static inline int kmem_persist_remove(struct kmem_persist *kp)
{
	return 0;
}

static inline struct kmem_persist *kmem_persist_find(struct dev_dax *dev_dax)
{
	return NULL;
}

static inline int kmem_persist_detach(struct kmem_persist *kp)
{
	return 0;
}

static inline void kmem_persist_close(struct kmem_persist *kp) {}
static inline void kmem_persist_guard(struct dev_dax *dev_dax, int mgid) {}
#endif /* CONFIG_KMEM_PERSIST */

#endif /* _DAX_KMEM_PERSIST_DRIVER_H */
