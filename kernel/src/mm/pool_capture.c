// SPDX-License-Identifier: GPL-2.0
/*
 * Pool pages: taking the memory of a process by reference.
 */
#include <linux/hugetlb.h>
#include <linux/mm.h>
#include <linux/mmu_notifier.h>
#include <linux/oom.h>
#include <linux/pool_pages.h>
#include <linux/rmap.h>
#include <linux/sched/signal.h>
#include <linux/swap.h>
#include <linux/swapops.h>
#include <asm/tlbflush.h>

#include "internal.h"
#include "pool_copy.h"
#include "pool_take.h"

/**
 * DOC: Capturing memory
 *
 * Takes the small anonymous pages of a region (see "Taking pages" in pool_take.c)
 * under the page-table lock, and flushes the TLB for a whole page table before
 * the lock is dropped. The target may run meanwhile.
 *
 * What is busy is looked at once more, after lru_add_drain_all() if this was not
 * done yet for the same capture, then copied.
 */

/* Entries of pages[] that are not decided yet. There are no pool pages 0 and 1. */
#define MUST_COPY	(POOL_PAGE_NEW | 0)
#define LOOK_AGAIN	(POOL_PAGE_NEW | 1)	/* not seen yet, or has other users */

struct capture {
	const struct pool_region *pool;
	struct mm_struct *mm;
	unsigned long start;
	u32 *pages;			/* pages[0] is for @start */
	struct pool_capture_stats stats;
	bool again;			/* what is busy now is copied */
	unsigned long nr_busy;
	unsigned long nr_copy;
	struct folio *large;		/* to be split; has a reference */
	struct folio *whole;		/* could not be split; only to compare */
	struct pool_lru lru;
};

static bool decided(u32 what)
{
	return what != MUST_COPY && what != LOOK_AGAIN;
}

static u32 *slot_of(struct capture *c, unsigned long addr)
{
	return &c->pages[(addr - c->start) >> PAGE_SHIFT];
}

static void decide(struct capture *c, u32 *slot, u32 what)
{
	*slot = what;
	if (what == LOOK_AGAIN)
		c->nr_busy++;
	else if (what == MUST_COPY)
		c->nr_copy++;
	else if (!what)
		c->stats.hole++;
}

/* The same decision for all pages of [addr, end) that are to be looked at. */
static void decide_range(struct capture *c, unsigned long addr, unsigned long end, u32 what)
{
	u32 *slot = slot_of(c, addr), *stop = slot_of(c, end);

	for (; slot < stop; slot++)
		if (*slot == LOOK_AGAIN)
			decide(c, slot, what);
}

static bool in_region(struct capture *c, unsigned long pfn)
{
	unsigned long nr = pfn - c->pool->start_pfn;

	return nr >= c->pool->first && nr < c->pool->end;
}

/* A page of the region that pool_take_plain() did not take. */
static noinline u32 take_page(struct capture *c, struct vm_area_struct *vma, unsigned long addr,
			      pte_t *pte, pte_t ptent)
{
	struct page *page = pte_page(ptent);
	struct folio *folio = page_folio(page);

	if (!folio_test_anon(folio) || folio_test_ksm(folio) || (vma->vm_flags & VM_DROPPABLE))
		return MUST_COPY;
	if (folio_test_large(folio)) {
		if (folio != c->whole) {
			folio_get(folio);
			c->large = folio;
		}
		return LOOK_AGAIN;
	}
	if (!pool_take_locked(&c->lru, folio, 0, c->mm, addr, pte, ptent))
		return folio_maybe_dma_pinned(folio) ? MUST_COPY : LOOK_AGAIN;
	c->stats.new++;
	return (page_to_pfn(page) - c->pool->start_pfn) | POOL_PAGE_NEW;
}

/* An entry that maps no page of the region. */
static u32 look_elsewhere(struct vm_area_struct *vma, pte_t ptent)
{
	if (pte_none(ptent))
		return vma_is_anonymous(vma) ? 0 : MUST_COPY;
	if (pte_present(ptent))
		return is_zero_pfn(pte_pfn(ptent)) ? 0 : MUST_COPY;
	/* Untouched memory that userfaultfd protects. */
	if (pte_marker_uffd_wp(ptent) && vma_is_anonymous(vma))
		return 0;
	return MUST_COPY;
}

/*
 * Not 0 if this is no pool page, or one that has as many references as it may have. Of
 * the flags that a pool page has one is never set in a tail page.
 */
static __always_inline unsigned long not_shareable(const struct page *page, unsigned int max_refs)
{
	const unsigned long mask = BIT(PG_swapbacked) | BIT(PG_lru) | BIT(PG_head);
	unsigned long wrong;

	wrong = (unsigned long)READ_ONCE(page->mapping) ^ (unsigned long)PAGE_MAPPING_POOL;
	wrong |= (READ_ONCE(page->flags) & mask) ^ BIT(PG_swapbacked);
	return wrong | ((unsigned int)page_ref_count(page) >= max_refs);
}

/*
 * Takes one more reference on each of the pool pages that @nr entries from @pte on map,
 * up to the first entry that maps something else. The first maps page @page_nr. Returns
 * how many. All of a repeated capture is done here. Entries that follow often map the
 * pages that follow: then no more of the entry has to be looked at.
 */
static unsigned long share_run(const struct capture *c, pte_t *pte, u32 *slot, unsigned long nr,
			       unsigned long page_nr)
{
	const unsigned long start_pfn = c->pool->start_pfn;
	const unsigned long first = c->pool->first, end = c->pool->end;
	const unsigned int max_refs = pool_max_refs();
	pte_t expected = ptep_get(pte);
	unsigned long i;

	for (i = 0; i < nr; i++, page_nr++, expected = pte_next_pfn(expected)) {
		pte_t ptent = ptep_get(pte + i);
		struct page *page;

		if (pte_val(ptent) != pte_val(expected)) {
			page_nr = pte_pfn(ptent) - start_pfn;
			if (!pte_present(ptent) || pte_special(ptent) || page_nr < first)
				break;
			expected = ptent;
		}
		if (page_nr >= end)
			break;
		page = pfn_to_page(start_pfn + page_nr);
		if (not_shareable(page, max_refs))
			break;
		page_ref_inc(page);
		slot[i] = page_nr;
	}
	return i;
}

/* Up to the end of a page table. Returns where it stopped: at a large folio, or at the end. */
static unsigned long capture_table(struct capture *c, struct vm_area_struct *vma, pmd_t *pmd,
				   unsigned long addr, unsigned long end)
{
	const unsigned long start = addr;
	u32 *slot = slot_of(c, addr);
	unsigned long shared = 0, taken = 0, run;
	pte_t *pte, *start_pte;
	spinlock_t *ptl;	/* of @pte */
	bool flush;

	start_pte = pte_offset_map_lock(c->mm, pmd, addr, &ptl);
	if (!start_pte)
		return addr;
	/* Who changed an entry before us may not have flushed it yet. */
	flush_tlb_batched_pending(c->mm);
	flush = mm_tlb_flush_pending(c->mm);
	arch_enter_lazy_mmu_mode();
	for (pte = start_pte; addr < end; addr += PAGE_SIZE, pte++, slot++) {
		pte_t ptent = ptep_get(pte);
		unsigned long nr = pte_pfn(ptent) - c->pool->start_pfn;
		struct folio *folio;
		u32 what;

		if (*slot != LOOK_AGAIN)
			continue;
		if (unlikely(!pte_present(ptent) || pte_special(ptent) || nr < c->pool->first ||
			     nr >= c->pool->end)) {
			decide(c, slot, look_elsewhere(vma, ptent));
			continue;
		}
		folio = page_folio(pte_page(ptent));
		if (folio_test_pool(folio)) {
			/* The first time round, nothing from here on is decided. */
			run = share_run(c, pte, slot, c->again ? 1 : (end - addr) >> PAGE_SHIFT,
					nr);
			if (!run) {	/* too many references */
				decide(c, slot, MUST_COPY);
				continue;
			}
			shared += run;
			run--;		/* the loop steps over one */
			addr += run << PAGE_SHIFT;
			pte += run;
			slot += run;
			continue;
		}
		flush |= pte_write(ptent);
		if (likely(folio_test_anon(folio) &&
			   pool_take_plain(&c->lru, folio, 0, c->mm, addr, pte, ptent))) {
			*slot = nr | POOL_PAGE_NEW;
			taken++;
			continue;
		}
		what = take_page(c, vma, addr, pte, ptent);
		if (unlikely(c->large))
			break;
		if (unlikely(c->again && what == LOOK_AGAIN))
			what = MUST_COPY;
		decide(c, slot, what);
	}
	arch_leave_lazy_mmu_mode();
	pool_lru_unlock(&c->lru);
	if (flush)
		flush_tlb_range(vma, start, addr);
	pte_unmap_unlock(start_pte, ptl);
	c->stats.shared += shared;
	c->stats.new += taken;
	return addr;
}

/* Splits the large folio at which the walk stopped, or remembers that it cannot be. */
static void split_large(struct capture *c)
{
	struct folio *folio = c->large;

	c->large = NULL;
	c->whole = folio;
	if (folio_trylock(folio)) {
		if (!split_folio(folio))
			c->whole = NULL;
		folio_unlock(folio);
	}
	folio_put(folio);
}

/* A leaf entry of a page middle directory. Returns how far it is decided. */
static unsigned long capture_huge(struct capture *c, struct vm_area_struct *vma, pmd_t *pmd,
				  unsigned long addr, unsigned long end)
{
	spinlock_t *ptl = pmd_trans_huge_lock(pmd, vma);
	u32 what = MUST_COPY;

	if (!ptl)
		return addr;
	if (pmd_present(*pmd) && is_huge_zero_pmd(*pmd)) {
		what = 0;
	} else if (pmd_present(*pmd) && pmd_trans_huge(*pmd) && in_region(c, pmd_pfn(*pmd))) {
		struct folio *folio = pmd_folio(*pmd);

		if (folio_test_anon(folio) && folio != c->whole) {
			folio_get(folio);
			c->large = folio;
		} else if (folio_test_anon(folio) && !c->again) {
			what = LOOK_AGAIN;
		}
	}
	spin_unlock(ptl);
	if (c->large)
		return addr;
	decide_range(c, addr, end, what);
	return end;
}

static bool pmd_is_leaf(pmd_t pmd)
{
	return is_swap_pmd(pmd) || pmd_trans_huge(pmd) || pmd_devmap(pmd);
}

static int capture_vma(struct capture *c, struct vm_area_struct *vma, unsigned long addr,
		       unsigned long end)
{
	const u32 absent = vma_is_anonymous(vma) ? 0 : MUST_COPY;

	if (vma->vm_flags & (VM_IO | VM_PFNMAP))
		return -EFAULT;
	if (vma->vm_flags & POOL_VMA_HANDS_OFF) {
		decide_range(c, addr, end, MUST_COPY);
		return 0;
	}
	if (!vma->anon_vma) {
		decide_range(c, addr, end, absent);
		return 0;
	}
	c->lru.family = vma->anon_vma->root;
	flush_cache_range(vma, addr, end);
	while (addr < end) {
		unsigned long next = pmd_addr_end(addr, end);
		pmd_t *pmd = mm_find_pmd(c->mm, addr);
		pmd_t pmdval = pmd ? pmdp_get_lockless(pmd) : __pmd(0);

		if (fatal_signal_pending(current))
			return -EINTR;
		if (pmd_none(pmdval)) {
			decide_range(c, addr, next, absent);
			addr = next;
		} else if (pmd_is_leaf(pmdval)) {
			addr = capture_huge(c, vma, pmd, addr, next);
		} else {
			addr = capture_table(c, vma, pmd, addr, next);
		}
		if (c->large)
			split_large(c);
		cond_resched();
	}
	return 0;
}

/* By reference what can be had so; the rest is left LOOK_AGAIN or MUST_COPY. */
static int capture_range(struct capture *c, unsigned long end)
{
	unsigned long addr = c->start;
	struct mmu_notifier_range range;
	struct vm_area_struct *vma;
	int err = 0;

	VMA_ITERATOR(vmi, c->mm, addr);

	c->nr_busy = 0;
	c->whole = NULL;
	if (mmap_read_lock_killable(c->mm))
		return -EINTR;
	mmu_notifier_range_init(&range, MMU_NOTIFY_CLEAR, 0, c->mm, addr, end);
	mmu_notifier_invalidate_range_start(&range);
	for_each_vma_range(vmi, vma, end) {
		unsigned long stop = min(end, vma->vm_end);

		if (vma->vm_start > addr)
			break;
		err = capture_vma(c, vma, addr, stop);
		if (err)
			break;
		addr = stop;
	}
	mmu_notifier_invalidate_range_end(&range);
	/* What the OOM killer has reaped looks like memory that was never touched. */
	if (!err && (addr < end || check_stable_address_space(c->mm)))
		err = -EFAULT;
	mmap_read_unlock(c->mm);
	return err;
}

static int copy_rest(struct capture *c, unsigned long nr)
{
	unsigned long i;
	int err = 0, locked = 0;

	for (i = 0; i < nr && !err; i++) {
		unsigned long addr = c->start + i * PAGE_SIZE;

		if (decided(c->pages[i]))
			continue;
		if (!locked) {
			if (mmap_read_lock_killable(c->mm))
				return -EINTR;
			locked = 1;
		}
		err = pool_copy_page(c->pool, c->mm, addr, &locked, &c->pages[i]);
		if (!err)
			c->stats.copied++;
		if (!err && fatal_signal_pending(current))
			err = -EINTR;
		cond_resched();
	}
	if (locked)
		mmap_read_unlock(c->mm);
	return err;
}

static void give_back(struct capture *c, unsigned long nr)
{
	unsigned long i;

	for (i = 0; i < nr; i++)
		if (!decided(c->pages[i]))
			c->pages[i] = 0;
	pool_pages_put(c->pool, c->pages, nr);
	memset(c->pages, 0, nr * sizeof(*c->pages));
}

/* memset32() in steps that suit emulators too */
static void look_at_all(u32 *slot, unsigned long nr)
{
	for (; nr >= 4; slot += 4, nr -= 4) {
		slot[0] = LOOK_AGAIN;
		slot[1] = LOOK_AGAIN;
		slot[2] = LOOK_AGAIN;
		slot[3] = LOOK_AGAIN;
	}
	while (nr--)
		*slot++ = LOOK_AGAIN;
}

/**
 * pool_capture - make pool pages of the memory of a process, and own them
 * @pool: the region
 * @mm: of the target; the caller has a reference on its users (mmget())
 * @addr: first address; page aligned
 * @nr: number of pages
 * @pages: filled with a page number for each page, on which the caller then owns
 *	one reference, or 0 where the memory has no content (reads as zeroes)
 * @stats: added to
 *
 * Small anonymous pages of private mappings that lie in the region are taken by
 * reference, large folios after splitting them. Everything else is copied into
 * new pages of the pool: pages of other nodes, pinned, swapped out, merged by
 * ksmd, of hugetlb and of shared mappings, and what file mappings have from their
 * file. Access to the target is for the caller to check.
 *
 * The target may run. Each page has the content of some instant during the call
 * if it is private memory; what DMA or other processes write to copied pages
 * meanwhile may be torn.
 *
 * Context: takes the target's mmap_lock for reading and may handle page faults
 * on its behalf; the caller holds no mmap_lock, nor a lock that a page fault may
 * take.
 *
 * Return: 0; -EFAULT if not all of the range is mapped memory, or if the target
 * is killed because memory is short; -ENOSPC if the region has no free page for a
 * copy; -EINTR on a fatal signal; -EHWPOISON or -ENOMEM from reading the target.
 * On error nothing is taken: @pages is all 0, @stats unchanged but for @stats->drained.
 */
int pool_capture(const struct pool_region *pool, struct mm_struct *mm, unsigned long addr,
		 unsigned long nr, u32 *pages, struct pool_capture_stats *stats)
{
	struct capture c = {
		.pool = pool,
		.mm = mm,
		.start = addr,
		.pages = pages,
		.lru.pool = pool,
	};
	int err;

	if (!PAGE_ALIGNED(addr) || addr >= TASK_SIZE_MAX ||
	    nr > (TASK_SIZE_MAX - addr) >> PAGE_SHIFT) {
		memset(pages, 0, nr * sizeof(*pages));
		return -EFAULT;
	}
	look_at_all(pages, nr);
	lru_add_drain();
	err = capture_range(&c, addr + nr * PAGE_SIZE);
	if (!err && c.nr_busy) {
		if (!stats->drained)
			lru_add_drain_all();
		stats->drained = true;
		c.again = true;
		err = capture_range(&c, addr + nr * PAGE_SIZE);
	}
	if (!err && (c.nr_busy || c.nr_copy))
		err = copy_rest(&c, nr);
	if (err) {
		give_back(&c, nr);
		return err;
	}
	stats->new += c.stats.new;
	stats->shared += c.stats.shared;
	stats->copied += c.stats.copied;
	stats->hole += c.stats.hole;
	return 0;
}
EXPORT_SYMBOL_GPL(pool_capture);
