// SPDX-License-Identifier: GPL-2.0
/*
 * Pool pages: taking pages out of a pipe by reference.
 */
#include <linux/hugetlb.h>
#include <linux/mm.h>
#include <linux/mmu_notifier.h>
#include <linux/pool_pages.h>
#include <linux/rmap.h>
#include <linux/swap.h>
#include <asm/tlbflush.h>

#include "internal.h"
#include "pool_copy.h"
#include "pool_take.h"

/**
 * DOC: Taking pages out of a pipe
 *
 * vmsplice(2) puts references on anonymous pages into a pipe. Where such a page
 * is mapped is not known and may change, so its mappings are found by an rmap
 * walk, with the folio locked, and what is found there is taken as pool_take.c
 * says, with the pipe's reference as one more:
 *
 * - mapped once: under that page-table lock, together with the pages that follow
 *   it both in the pipe and in the page table. A page without other users cannot
 *   be made writable behind our back there. (Only a writer that alone has a page
 *   may reuse it after fork(), but it may have found out so before the page went
 *   into the pipe; its page-table lock says when it is done.)
 * - mapped several times: fork() write-protects a page long before it flushes the
 *   parent's TLB, and mmap_lock, which would tell, must not be taken here. So all
 *   mappings are visited and flushed first. None becomes writable again as long
 *   as the page has the pipe's reference.
 * - not mapped any more: with no reference but the pipe's nobody can map it.
 *
 * A page whose state is that of a pool page has it for as long as it has any
 * reference but one of a page table.
 */

/* Entries of pages[] that are not decided yet. There is no pool page 1. */
#define LOOK_AGAIN	(POOL_PAGE_NEW | 1)

/* The reference of the pipe. */
#define PIPE_REFS	1

/* Pages that several processes map, looked at in one walk. */
#define SHARED_BATCH	64

struct take {
	const struct pool_region *pool;
	struct page **from;
	u32 *pages;
	unsigned long nr;
	unsigned long at;		/* the page whose mappings are walked */
	unsigned long next;		/* one past the last that was taken with it */
	unsigned int seen[SHARED_BATCH];	/* mappings visited of from[at...] */
	struct pool_lru lru;
};

/* Is page @i one that can only be copied, or a pool page already? */
static bool decide(struct take *t, unsigned long i)
{
	struct folio *folio = page_folio(t->from[i]);
	unsigned long nr = page_to_pfn(t->from[i]) - t->pool->start_pfn;

	if (t->pages[i] != LOOK_AGAIN)
		return true;
	if (nr < t->pool->first || nr >= t->pool->end) {
		t->pages[i] = 0;
	} else if (folio_test_pool(folio)) {
		if (pool_page_crowded(t->pool, nr)) {
			t->pages[i] = 0;
		} else {
			folio_get(folio);
			t->pages[i] = nr;
		}
	} else if (!folio_test_anon(folio) || folio_test_ksm(folio) || folio_test_large(folio) ||
		   folio_maybe_dma_pinned(folio)) {
		t->pages[i] = 0;
	}
	return t->pages[i] != LOOK_AGAIN;
}

static void taken(struct take *t, unsigned long i)
{
	t->pages[i] = (page_to_pfn(t->from[i]) - t->pool->start_pfn) | POOL_PAGE_NEW;
}

static bool maps(pte_t ptent, struct page *page)
{
	return pte_present(ptent) && !pte_special(ptent) && pte_pfn(ptent) == page_to_pfn(page);
}

/* The folio is locked. Makes sure that it is not in the swap cache. */
static bool out_of_swap(struct folio *folio)
{
	if (folio_test_swapcache(folio))
		folio_free_swap(folio);
	return !folio_test_swapcache(folio) && !folio_test_writeback(folio);
}

/*
 * Takes from[at] and what follows it here; the page-table lock is held. It is
 * what the folio was locked for, and taking locks folios as it needs.
 */
static void take_run(struct take *t, struct vm_area_struct *vma, unsigned long addr,
		     unsigned long end, pte_t *pte)
{
	struct mm_struct *mm = vma->vm_mm;
	const unsigned long start = addr;
	unsigned long i;

	folio_unlock(page_folio(t->from[t->at]));
	t->lru.family = vma->anon_vma->root;
	flush_cache_range(vma, addr, end);
	arch_enter_lazy_mmu_mode();
	for (i = t->at; addr < end; i++, addr += PAGE_SIZE, pte++) {
		pte_t ptent = ptep_get(pte);
		struct folio *folio;

		if (!maps(ptent, t->from[i]))
			break;
		if (decide(t, i))
			continue;
		folio = page_folio(t->from[i]);
		/* This mapping keeps it so. */
		if (folio_mapcount(folio) != 1)
			break;
		if (likely(pool_take_plain(&t->lru, folio, PIPE_REFS, mm, addr, pte, ptent)) ||
		    pool_take_locked(&t->lru, folio, PIPE_REFS, mm, addr, pte, ptent))
			taken(t, i);
	}
	arch_leave_lazy_mmu_mode();
	pool_lru_unlock(&t->lru);
	/* Also for what was read-only: who made it so may not have flushed it yet. */
	flush_tlb_range(vma, start, addr);
	t->next = max(i, t->at + 1);
}

/* The part of the mapping from @addr on in which pages of the batch may follow. */
static unsigned long run_end(struct take *t, struct vm_area_struct *vma, unsigned long addr,
			     unsigned long most)
{
	unsigned long nr = min3(t->nr - t->at, most, (vma->vm_end - addr) >> PAGE_SHIFT);

	return pmd_addr_end(addr, addr + (nr << PAGE_SHIFT));
}

/* rmap_one() for a page that is mapped once */
static bool take_mapped(struct folio *folio, struct vm_area_struct *vma, unsigned long addr,
			void *arg)
{
	struct take *t = arg;
	DEFINE_FOLIO_VMA_WALK(pvmw, folio, vma, addr, 0);
	unsigned long end = run_end(t, vma, addr, t->nr);
	struct mmu_notifier_range range;

	mmu_notifier_range_init(&range, MMU_NOTIFY_CLEAR, 0, vma->vm_mm, addr, end);
	mmu_notifier_invalidate_range_start(&range);
	if (page_vma_mapped_walk(&pvmw)) {
		if (vma->vm_flags & (POOL_VMA_HANDS_OFF | VM_DROPPABLE))
			t->pages[t->at] = 0;
		else
			take_run(t, vma, addr, end, pvmw.pte);
		page_vma_mapped_walk_done(&pvmw);
	}
	mmu_notifier_invalidate_range_end(&range);
	return t->pages[t->at] == LOOK_AGAIN && t->next == t->at;
}

/* rmap_one() for pages that are mapped several times: counts and flushes */
static bool visit_shared(struct folio *folio, struct vm_area_struct *vma, unsigned long addr,
			 void *arg)
{
	struct take *t = arg;
	DEFINE_FOLIO_VMA_WALK(pvmw, folio, vma, addr, 0);
	unsigned long start = addr, end = run_end(t, vma, addr, SHARED_BATCH);
	unsigned int i;
	pte_t *pte;

	if ((vma->vm_flags & (POOL_VMA_HANDS_OFF | VM_DROPPABLE)) || !page_vma_mapped_walk(&pvmw))
		return true;
	for (i = 0, pte = pvmw.pte; addr < end; i++, addr += PAGE_SIZE, pte++) {
		pte_t ptent = ptep_get(pte);

		if (!maps(ptent, t->from[t->at + i]) || pte_write(ptent))
			break;
		t->seen[i]++;
	}
	flush_tlb_range(vma, start, addr);
	t->lru.family = vma->anon_vma->root;	/* the same for all of them */
	page_vma_mapped_walk_done(&pvmw);
	return true;
}

/* The folio of from[i] is locked, and @seen mappings of it were flushed. */
static void take_shared(struct take *t, unsigned long i, struct folio *folio, unsigned int seen)
{
	if (seen < 2 || !out_of_swap(folio))
		return;
	if (pool_take_shared(&t->lru, folio, seen, PIPE_REFS))
		taken(t, i);
	pool_lru_unlock(&t->lru);
}

/* from[at], which is locked and mapped several times, and those after it that are so too */
static void take_shared_run(struct take *t, struct folio *first)
{
	struct rmap_walk_control rwc = {
		.arg = t,
		.rmap_one = visit_shared,
		.anon_lock = folio_lock_anon_vma_read,
	};
	unsigned long i, nr = min(t->nr - t->at, SHARED_BATCH);

	memset(t->seen, 0, sizeof(t->seen));
	rmap_walk(first, &rwc);
	take_shared(t, t->at, first, t->seen[0]);
	folio_unlock(first);
	for (i = 1; i < nr && t->seen[i]; i++) {
		struct folio *folio = page_folio(t->from[t->at + i]);

		if (decide(t, t->at + i) || !folio_trylock(folio))
			continue;
		/* It may have changed before it was locked. */
		if (!decide(t, t->at + i))
			take_shared(t, t->at + i, folio, t->seen[i]);
		folio_unlock(folio);
	}
}

/* from[at], which is locked and mapped once, and what follows it there */
static void take_mapped_run(struct take *t, struct folio *folio)
{
	struct rmap_walk_control rwc = {
		.arg = t,
		.rmap_one = take_mapped,
		.anon_lock = folio_lock_anon_vma_read,
	};

	t->next = t->at;
	rmap_walk(folio, &rwc);
	if (t->next == t->at)
		folio_unlock(folio);
}

/* With the pipe's reference only there is no mapping, and no way to one. */
static void take_unmapped(struct take *t, struct folio *folio)
{
	bool took;

	t->lru.family = NULL;
	took = out_of_swap(folio) &&
	       pool_take_sole(&t->lru, folio, PIPE_REFS, NULL, 0, NULL, __pte(0), BIT(PG_lru),
			      BIT(PG_lru));
	pool_lru_unlock(&t->lru);
	if (took) {
		taken(t, t->at);
		mem_cgroup_uncharge(folio);	/* nobody maps it */
	}
	folio_unlock(folio);
}

/* Leaves LOOK_AGAIN where a page has other users now. Returns whether there are such. */
static bool take_all(struct take *t)
{
	bool busy = false;

	for (t->at = 0; t->at < t->nr; t->at++) {
		struct folio *folio = page_folio(t->from[t->at]);

		if (decide(t, t->at))
			continue;
		if (folio_trylock(folio)) {
			int mapcount = folio_mapcount(folio);

			t->next = t->at;
			if (decide(t, t->at))
				folio_unlock(folio);
			else if (!mapcount)
				take_unmapped(t, folio);
			else if (mapcount == 1)
				take_mapped_run(t, folio);
			else
				take_shared_run(t, folio);
		}
		busy |= t->pages[t->at] == LOOK_AGAIN;
		for (; t->next > t->at + 1; t->at++)
			busy |= t->pages[t->at + 1] == LOOK_AGAIN;
		cond_resched();
	}
	return busy;
}

/**
 * pool_take_pages - make pool pages of pages that are in a pipe, and own them
 * @pool: the region
 * @from: pages; for each the caller knows of one reference that is not that of a
 *	page table and that stays meanwhile, as those in a pipe whose mutex it holds
 * @nr: number of pages
 * @pages: filled with a page number for each page, on which the caller then owns
 *	one more reference, or 0 if the page has to be copied
 *
 * Takes small pages of private anonymous memory that lie in the region, whether
 * they are mapped or no more, and pages that are pool pages already. It does not
 * take large folios, pages of other nodes, of files and of ksmd, nor pages with
 * users besides page tables and the caller: pinned ones, those in another pipe, or
 * twice in this one.
 *
 * The content is constant from the return on; processes that have the page mapped
 * may run meanwhile, and get a copy when they write later.
 *
 * Context: may sleep. Takes folio locks (without waiting), then anon_vma and
 * page-table locks of processes that map the pages, but never an mmap_lock.
 */
void pool_take_pages(const struct pool_region *pool, struct page **from, unsigned long nr,
		     u32 *pages)
{
	struct take t = {
		.pool = pool,
		.from = from,
		.pages = pages,
		.nr = nr,
		.lru.pool = pool,
	};
	unsigned long i;

	memset32(pages, LOOK_AGAIN, nr);
	lru_add_drain();
	if (!take_all(&t))
		return;
	lru_add_drain_all();
	if (!take_all(&t))
		return;
	for (i = 0; i < nr; i++)
		if (pages[i] == LOOK_AGAIN)
			pages[i] = 0;
}
EXPORT_SYMBOL_GPL(pool_take_pages);
