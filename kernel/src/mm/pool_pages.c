// SPDX-License-Identifier: GPL-2.0
/*
 * Pool pages: allocation, state and release.
 */
#include <linux/gfp.h>
#include <linux/mm.h>
#include <linux/moduleparam.h>
#include <linux/pagemap.h>
#include <linux/pagevec.h>
#include <linux/pool_pages.h>
#include <linux/swap.h>

#include "internal.h"
#include "pool_rmap.h"

/**
 * DOC: Pool pages
 *
 * A pool page is an order-0 page of a region of memory, normally a hotplugged
 * device that is a NUMA node of its own, on which a store (a filesystem, say)
 * holds one reference for each place where it keeps the page. Processes may map
 * it as private anonymous memory at the same time.
 *
 * To the rest of mm it looks like a page that ksmd merged: anonymous,
 * mapped read-only everywhere, copied by the next write, free of the rule that
 * ties a page to one anon_vma, and shown under "KSM:" in smaps. It has a mark in
 * place of a stable node, so rmap walks find no mapping: it is neither migrated nor
 * reclaimed. It is on no LRU list. Its content never changes while more than the
 * caller owns it.
 *
 * pool_capture() makes pool pages of a process's memory in place,
 * pool_install() maps pool pages into a process, pool_page_alloc() makes one
 * from free memory, pool_page_adopt() from a page that kept its content through
 * a reboot.
 *
 * A page that the store lets go of while processes map it keeps this state until
 * the last of them unmaps it, or until a process that alone maps it writes to it:
 * folio_leave_pool() then makes it an ordinary page again, without a copy.
 *
 * Memory cgroups are charged for what their processes map, see "Who is charged" in
 * pool_rmap.c. What is only stored is charged to none.
 */

/* No OOM kill for a pool that is full, no page of another node. */
#define POOL_GFP	(__GFP_THISNODE | __GFP_NORETRY | __GFP_NOWARN | __GFP_HIGHMEM | \
			 __GFP_MOVABLE)

/* Half of what fits: the rest is for references that do not last */
#define POOL_MAX_REFS	(INT_MAX / 2)

static unsigned int max_refs = POOL_MAX_REFS;

static int set_max_refs(const char *val, const struct kernel_param *kp)
{
	return param_set_uint_minmax(val, kp, 2, POOL_MAX_REFS);
}

static const struct kernel_param_ops max_refs_ops = {
	.set = set_max_refs,
	.get = param_get_uint,
};
module_param_cb(max_refs, &max_refs_ops, &max_refs, 0600);
MODULE_PARM_DESC(max_refs, "References that one page may have; lower for tests");

/**
 * pool_max_refs - how many references may a pool page have?
 *
 * Return: the limit, at least 2 and at most INT_MAX / 2.
 */
unsigned int pool_max_refs(void)
{
	return READ_ONCE(max_refs);
}
EXPORT_SYMBOL_GPL(pool_max_refs);

static void make_pool_page(struct page *page)
{
	struct folio *folio = page_folio(page);

	__folio_mark_uptodate(folio);
	__folio_set_swapbacked(folio);
	folio_set_dirty(folio);
	init_pool_rmap(folio, NULL);
	WRITE_ONCE(folio->mapping, PAGE_MAPPING_POOL);
}

/**
 * pool_page_alloc - allocate a pool page
 * @pool: the region
 * @gfp: whether it may sleep and reclaim (GFP_KERNEL, GFP_NOFS, GFP_NOWAIT), and
 *	__GFP_ZERO; without the latter the content is undefined
 *
 * Never calls the OOM killer. What is stored is no memory of the calling task: its
 * memory policy does not apply, and neither does its cpuset, unless that is a
 * hardwall (cgroup v1).
 *
 * Return: the page number; the caller has the only reference. 0 if the region
 * has no free page.
 */
u32 pool_page_alloc(const struct pool_region *pool, gfp_t gfp)
{
	unsigned long nr;
	struct page *page;

	gfp = (gfp | POOL_GFP) & ~__GFP_HARDWALL;
	page = __alloc_pages(gfp, 0, pool->nid, NULL);
	if (unlikely(!page) && gfpflags_allow_blocking(gfp)) {
		/* What other CPUs have in their lists reclaim finds only if it finds more. */
		drain_all_pages(page_zone(pool_page(pool, pool->first)));
		page = __alloc_pages(gfp & ~__GFP_DIRECT_RECLAIM, 0, pool->nid, NULL);
	}
	if (!page)
		return 0;
	nr = page_to_pfn(page) - pool->start_pfn;
	if (unlikely(nr < pool->first || nr >= pool->end)) {
		__free_page(page);
		return 0;
	}
	make_pool_page(page);
	return nr;
}
EXPORT_SYMBOL_GPL(pool_page_alloc);

/**
 * pool_page_adopt - give a page that kept its content the state of a pool page
 * @page: a page with one reference, the caller's, otherwise as onlining left it
 *
 * Managed page counts are the caller's business.
 */
void pool_page_adopt(struct page *page)
{
	VM_WARN_ON_ONCE_PAGE(page_count(page) != 1 || page->mapping, page);
	make_pool_page(page);
}
EXPORT_SYMBOL_GPL(pool_page_adopt);

/**
 * pool_page_test - is this a pool page of this region?
 * @pool: the region
 * @page: any page with a reference, or mapped under a lock that keeps it so
 *
 * Return: whether it lies in the region and has the state of a pool page.
 */
bool pool_page_test(const struct pool_region *pool, struct page *page)
{
	unsigned long nr = page_to_pfn(page) - pool->start_pfn;

	return nr >= pool->first && nr < pool->end && folio_test_pool(page_folio(page));
}
EXPORT_SYMBOL_GPL(pool_page_test);

/**
 * pool_pages_put - give references back, one for each entry
 * @pool: the region
 * @pages: page numbers; zeroes are skipped
 * @nr: number of entries
 *
 * Does not sleep, but takes long for many pages: call cond_resched() between
 * some thousand.
 */
void pool_pages_put(const struct pool_region *pool, const u32 *pages, unsigned long nr)
{
	struct folio_batch batch;
	unsigned long i;

	folio_batch_init(&batch);
	for (i = 0; i < nr; i++) {
		if (pages[i] && !folio_batch_add(&batch, page_folio(pool_page(pool, pages[i]))))
			folios_put(&batch);
	}
	if (folio_batch_count(&batch))
		folios_put(&batch);
}
EXPORT_SYMBOL_GPL(pool_pages_put);
