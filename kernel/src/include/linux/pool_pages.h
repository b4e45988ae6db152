/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Pool pages: pages of one NUMA node that a store owns by reference while
 * processes map them as private anonymous memory, read-only, copied on write.
 */
#ifndef _LINUX_POOL_PAGES_H
#define _LINUX_POOL_PAGES_H

#include <linux/bits.h>
#include <linux/mm.h>
#include <linux/page-flags.h>

/**
 * struct pool_region - where pool pages come from
 * @nid: NUMA node
 * @start_pfn: page frame that is page number 0
 * @first: first page number that may be a pool page; at least 2
 * @end: one past the last; at most 1 << 31
 * @written: bit per page number, for the store: it sets the bit of a page whose content
 *	it has written back. Cleared before a process's page becomes a pool page, so it
 *	says of no page what was true of another content, whoever finds the page first.
 *
 * Constant while in use, but for the bits. Below, a page number is that of a page of the pool;
 * 0 stands for "no page". All functions may be called concurrently.
 */
struct pool_region {
	int nid;
	unsigned long start_pfn;
	unsigned long first;
	unsigned long end;
	unsigned long *written;
};

/*
 * Set by pool_capture() in pages[i] when the page's content is new to the pool
 * (taken by reference for the first time, or copied), as opposed to shared:
 * the store must write it back before it may rely on it after a power cut.
 * Functions that take page numbers ignore it.
 */
#define POOL_PAGE_NEW	((u32)BIT(31))

/**
 * struct pool_capture_stats - what became of the pages of a range
 * @new: taken by reference
 * @shared: were pool pages already: one more reference
 * @copied: could not be taken; copied into new pool pages
 * @hole: without content
 * @drained: the per-CPU LRU lists were emptied, which is done once; carry it over the
 *	calls that make one capture
 */
struct pool_capture_stats {
	unsigned long new;
	unsigned long shared;
	unsigned long copied;
	unsigned long hole;
	bool drained;
};

/* References that one page may have for long, from stores and page tables */
unsigned int pool_max_refs(void);

/**
 * pool_page - the page of a page number
 * @pool: the region
 * @nr: page number, not 0
 *
 * Return: its struct page, whatever its state.
 */
static inline struct page *pool_page(const struct pool_region *pool, u32 nr)
{
	return pfn_to_page(pool->start_pfn + (nr & ~POOL_PAGE_NEW));
}

/*
 * A pool page is what ksmd's pages are to the rest of mm, but its mark stands where
 * those have their stable node, or nothing yet. No such pointer has this bit.
 */
#define PAGE_MAPPING_POOL	((struct address_space *)(PAGE_MAPPING_KSM | BIT(2)))

static inline bool folio_test_pool(const struct folio *folio)
{
	if (!IS_ENABLED(CONFIG_POOL_PAGES))
		return false;
	/* pairs with make_pool_folio(): what a pool page has besides is there */
	return smp_load_acquire(&folio->mapping) == PAGE_MAPPING_POOL;
}

/**
 * pool_page_crowded - does a page have as many references as it may have?
 * @pool: the region
 * @nr: page number of a pool page on which the caller has a reference
 *
 * Whoever would keep one more reference for long (a store, a page table) asks
 * this first, and copies or fails: a reference count that overflows would free
 * the page under the others. The limit is far enough below that for all who hold
 * references for a moment.
 *
 * Return: true if nobody should keep one more.
 */
static inline bool pool_page_crowded(const struct pool_region *pool, u32 nr)
{
	return page_ref_count(pool_page(pool, nr)) > pool_max_refs();
}

/**
 * pool_page_get - take one more reference
 * @pool: the region
 * @nr: page number of a pool page on which the caller has a reference
 */
static inline void pool_page_get(const struct pool_region *pool, u32 nr)
{
	page_ref_inc(pool_page(pool, nr));	/* never the tail of a large folio */
}

/**
 * pool_page_put - give a reference back
 * @pool: the region
 * @nr: page number of a pool page
 *
 * The page goes back to the allocator with the last reference; page tables
 * that map it have references of their own.
 */
static inline void pool_page_put(const struct pool_region *pool, u32 nr)
{
	put_page(pool_page(pool, nr));
}

/* Without CONFIG_POOL_PAGES there is no folio to call these for. */
void folio_leave_pool(struct folio *folio, struct vm_area_struct *vma, unsigned long addr);
void folio_remove_pool_rmap(struct folio *folio, struct vm_area_struct *vma);
void folio_pool_rmap_removed(struct folio *folio);
bool folio_try_dup_pool_rmap(struct folio *folio, struct vm_area_struct *dst_vma,
			     struct vm_area_struct *src_vma);

#if defined(CONFIG_POOL_PAGES) && defined(CONFIG_MEMCG)
extern atomic_t nr_pool_payers;

void __mm_exit_pool(struct mm_struct *mm);

/* Nothing is mapped any more. */
static inline void mm_exit_pool(struct mm_struct *mm)
{
	if (unlikely(atomic_read(&nr_pool_payers)))
		__mm_exit_pool(mm);
}
#else
static inline void mm_exit_pool(struct mm_struct *mm)
{
}
#endif

struct notifier_block;

#if defined(CONFIG_POOL_PAGES) && defined(CONFIG_MEMORY_FAILURE)
int pool_memory_failure(struct folio *folio, int flags);
int pool_poison_register(struct notifier_block *nb);
void pool_poison_unregister(struct notifier_block *nb);
#else
static inline int pool_memory_failure(struct folio *folio, int flags)
{
	return -EBUSY;
}

static inline int pool_poison_register(struct notifier_block *nb)
{
	return 0;
}

static inline void pool_poison_unregister(struct notifier_block *nb)
{
}
#endif

u32 pool_page_alloc(const struct pool_region *pool, gfp_t gfp);
void pool_page_adopt(struct page *page);
bool pool_page_test(const struct pool_region *pool, struct page *page);
void pool_pages_put(const struct pool_region *pool, const u32 *pages, unsigned long nr);

int pool_capture(const struct pool_region *pool, struct mm_struct *mm, unsigned long addr,
		 unsigned long nr, u32 *pages, struct pool_capture_stats *stats);

void pool_take_pages(const struct pool_region *pool, struct page **from, unsigned long nr,
		     u32 *pages);

unsigned long pool_install(const struct pool_region *pool, unsigned long addr,
			   unsigned long nr, u32 *pages, unsigned long *skip);

#endif /* _LINUX_POOL_PAGES_H */
