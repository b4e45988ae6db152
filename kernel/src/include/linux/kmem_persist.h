/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Persistence on top of DAX KMEM: memory of a device comes online allocated, a
 * type looks at what is stored there, keeps it, and the rest is freed.
 */
#ifndef _LINUX_KMEM_PERSIST_H
#define _LINUX_KMEM_PERSIST_H

#include <linux/bitops.h>
#include <linux/kmem_persist_header.h>
#include <linux/kmem_persist_step.h>
#include <linux/list.h>
#include <linux/mm.h>
#include <linux/refcount.h>

struct dax_region;
struct device;
struct kmem_persist;

/**
 * struct kmem_persist_type - one way of storing things in KMEM memory
 * @id: enum kmem_persist_type_id, as in the device's header
 * @name: for people
 * @check: decide, before any memory is added, whether what is stored can be
 *	taken. The whole device is mapped at kp->image meanwhile. Must not write
 *	to the device. May raise kp->nr_head, and set kp->rescue. On failure fill
 *	@why. Optional.
 * @attach: all memory is online and allocated, reference count 1 a page. Set
 *	in kp->keep the pages that are to stay so: those are the type's now, and
 *	PageHWPoison if media cannot give them back. Must
 *	not free pages, and leaves managed counts to the caller. On failure no
 *	reference may be left to any page: the memory is then taken out again,
 *	or, if that fails, stays allocated and unused until the next boot.
 *	Optional.
 * @attached: the pages that were not kept are free memory now; next, the device
 *	can be had from kmem_persist_get(). Optional.
 * @detach: the driver is being unbound, and nobody holds @kp. Return 0 if
 *	nothing is stored, with all pages that were kept freed (but for the
 *	head, which is the framework's), else -EBUSY:
 *	everything stays as it is. NULL for a type that never stores anything;
 *	its memory can be offlined and onlined as any other.
 *
 * All are called with the device locked, one at a time for a device.
 */
struct kmem_persist_type {
	u32 id;
	const char *name;
	int (*check)(struct kmem_persist *kp, struct kmem_persist_why *why);
	int (*attach)(struct kmem_persist *kp);
	void (*attached)(struct kmem_persist *kp);
	int (*detach)(struct kmem_persist *kp);
	/* private: of the registry */
	struct list_head list;
};

/**
 * struct kmem_persist - one device with a header
 * @name: of the DAX device, "dax0.0"
 * @dev: the DAX device; for messages
 * @nid: the device's NUMA node; all memory of this node is the device's
 * @own_nid: the node that it is on by its place; @nid, or @nid is a spare node
 * @header: copy of the device's header, verified
 * @start_pfn: page frame of device page 0
 * @nr_pages: of the device
 * @first: first device page that is online memory
 * @end: one past the last
 * @nr_head: how many pages at the start of the device are no memory for others:
 *	KMEM_PERSIST_HEAD_PAGES, unless the type has more there
 * @head: device pages 0 to @nr_head - 1, mapped while the device is attached,
 *	whether they are online memory or not; never freed, never part of @keep
 * @image: the whole device, during check only: kmem_persist_readable() comes
 *	before the first load from any page of it
 * @bad: bit per device page: media is known not to give it back; NULL: no page
 * @unreadable: kmem_persist_readable() said no
 * @rescue: set by the type in check: what is stored does not hold as a whole, so from
 *	now on it keeps all pages, and writes to none
 * @keep: bit per device page, during attach only
 * @private: the type's
 * @refs: users; see kmem_persist_get()
 */
struct kmem_persist {
	const char *name;
	struct device *dev;
	int nid;
	int own_nid;
	struct kmem_persist_header header;
	unsigned long start_pfn;
	unsigned long nr_pages;
	unsigned long first;
	unsigned long end;
	unsigned long nr_head;
	void *head;
	const void *image;
	unsigned long *bad;
	bool unreadable;
	bool rescue;
	unsigned long *keep;
	void *private;
	refcount_t refs;
	/* private: of the registry */
	const struct kmem_persist_type *type;
	struct list_head list;
	int state;
	bool managed;
	void *drvdata;
	struct dax_region *region;
	bool not_durable;
};

/* Device pages outside [first, end) have no struct page. */
static inline struct page *kmem_persist_page(const struct kmem_persist *kp, unsigned long nr)
{
	return pfn_to_page(kp->start_pfn + nr);
}

/* Whether media cannot give the page back, by what was known when the device was attached */
static inline bool kmem_persist_is_bad(const struct kmem_persist *kp, unsigned long nr)
{
	return kp->bad && test_bit(nr, kp->bad);
}

bool kmem_persist_readable(struct kmem_persist *kp, unsigned long nr, const void *page);

int kmem_persist_register_type(struct kmem_persist_type *type);

struct kmem_persist *kmem_persist_get(const char *name, u32 type_id);
void kmem_persist_put(struct kmem_persist *kp);

unsigned long kmem_persist_free_pages(const struct kmem_persist *kp);
int kmem_persist_make_durable(struct kmem_persist *kp, enum kmem_persist_step step);
bool kmem_persist_is_async(const struct kmem_persist *kp);

void kmem_persist_write_back(const struct kmem_persist *kp, enum kmem_persist_step step,
			     const void *addr, size_t len);
void kmem_persist_fence(const struct kmem_persist *kp, enum kmem_persist_step step);

#ifdef CONFIG_KMEM_PERSIST
bool kmem_persist_active(void);
#else
static inline bool kmem_persist_active(void)
{
	return false;
}
#endif

/* For tests: drivers/dax/kmem_persist_record.c */
#ifdef CONFIG_KMEM_PERSIST_RECORD
bool kmem_persist_without(enum kmem_persist_step step);
void kmem_persist_record_attach(const struct kmem_persist *kp);
void kmem_persist_record_free_rest(const struct kmem_persist *kp);
void kmem_persist_record_write_back(const struct kmem_persist *kp, enum kmem_persist_step step,
				    const void *addr, size_t len);
void kmem_persist_record_fence(const struct kmem_persist *kp, enum kmem_persist_step step);
void kmem_persist_record_sync(const struct kmem_persist *kp, enum kmem_persist_step step);
int kmem_persist_record_error(void);
void kmem_persist_record_free(const struct kmem_persist *kp, const u32 *pages, unsigned long nr);
#else
/* Is this step, or this order, to be left out? */
static inline bool kmem_persist_without(enum kmem_persist_step step)
{
	return false;
}

static inline void kmem_persist_record_attach(const struct kmem_persist *kp)
{
}

static inline void kmem_persist_record_free_rest(const struct kmem_persist *kp)
{
}

static inline void kmem_persist_record_write_back(const struct kmem_persist *kp,
						  enum kmem_persist_step step,
						  const void *addr, size_t len)
{
}

static inline void kmem_persist_record_fence(const struct kmem_persist *kp,
					     enum kmem_persist_step step)
{
}

static inline void kmem_persist_record_sync(const struct kmem_persist *kp,
					    enum kmem_persist_step step)
{
}

static inline int kmem_persist_record_error(void)
{
	return 0;
}

static inline void kmem_persist_record_free(const struct kmem_persist *kp, const u32 *pages,
					    unsigned long nr)
{
}
#endif

#endif /* _LINUX_KMEM_PERSIST_H */
