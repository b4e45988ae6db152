// SPDX-License-Identifier: GPL-2.0
/*
 * Pool pages: taking the memory of a process by reference.
 */
#include <linux/highmem.h>
#include <linux/huge_mm.h>
#include <linux/hugetlb.h>
#include <linux/memcontrol.h>
#include <linux/mm.h>
#include <linux/mm_inline.h>
#include <linux/mmu_notifier.h>
#include <linux/pool_pages.h>
#include <linux/rmap.h>
#include <linux/sched/signal.h>
#include <linux/swap.h>
#include <linux/swapops.h>
#include <asm/tlbflush.h>

#include "internal.h"

/**
 * DOC: Capturing memory
 *
 * A small anonymous page of the region becomes a pool page where it is, under
 * the page-table lock: its entry is write-protected, the page leaves the LRU, its
 * mapping becomes PAGE_MAPPING_POOL, and the store gets a reference. The TLB is
 * flushed for the whole page table before its lock is dropped, so no write
 * reaches the page later. The target may run meanwhile.
 *
 * A page with other users (GUP, per-CPU LRU batches, reclaim) must not be taken.
 * A page with one mapping has one reference, its page-table entry's, which this
 * freezes at 0 while it changes state: GUP-fast either took its reference before
 * and fails the freeze, or comes after and sees a changed entry or
 * PageAnonExclusive cleared. A page that fork() shares can not be frozen, as the
 * others may unmap it: it is locked, taken off the LRU, then counted; it has no
 * writable mapping and cannot be pinned.
 *
 * What is busy is looked at once more after lru_add_drain_all(), then copied.
 */

/* Entries of pages[] that are not decided yet. */
#define LOOK_AGAIN	U32_MAX		/* has other users, perhaps not for long */
#define MUST_COPY	(U32_MAX - 1)

/* Pages taken off the LRU with interrupts disabled. */
#define LRU_BATCH	64

struct capture {
	const struct pool_region *pool;
	struct mm_struct *mm;
	unsigned long start;
	u32 *pages;			/* pages[0] is for @start */
	struct pool_capture_stats stats;
	bool again;			/* only look at what is LOOK_AGAIN */
	unsigned long nr_busy;
	unsigned long nr_copy;
	struct folio *large;		/* to be split; has a reference */
	struct folio *whole;		/* could not be split; only to compare */
	struct lruvec *lruvec;		/* locked, or NULL */
	unsigned int nr_locked;		/* pages handled under its lock */
};

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
		if (!c->again || *slot == LOOK_AGAIN)
			decide(c, slot, what);
}

static bool in_region(struct capture *c, unsigned long pfn)
{
	unsigned long nr = pfn - c->pool->start_pfn;

	return nr >= c->pool->first && nr < c->pool->end;
}

static void lru_unlock(struct capture *c)
{
	if (c->lruvec)
		unlock_page_lruvec_irq(c->lruvec);
	c->lruvec = NULL;
	c->nr_locked = 0;
}

static void lru_lock(struct capture *c, struct folio *folio)
{
	if (c->nr_locked++ == LRU_BATCH)
		lru_unlock(c);
	c->lruvec = folio_lruvec_relock_irq(folio, c->lruvec);
}

/* The folio is off its LRU list; nobody else changes its state now. */
static void make_pool_folio(struct folio *folio)
{
	/* The LRU flags are checked when the page is freed and nobody else clears them. */
	const unsigned long clear = BIT(PG_lru) | BIT(PG_active) | BIT(PG_unevictable) |
				    BIT(PG_referenced) | BIT(PG_anon_exclusive);
	/* It may have been MADV_FREEd. */
	const unsigned long set = BIT(PG_dirty) | BIT(PG_swapbacked);

	set_mask_bits(&folio->flags, clear, set);
	WRITE_ONCE(folio->mapping, PAGE_MAPPING_POOL);
}

/* The only mapping of the page is ours. */
static bool take_sole(struct capture *c, struct folio *folio, unsigned long addr, pte_t *pte,
		      pte_t ptent)
{
	if (!folio_ref_freeze(folio, 1))
		return false;
	if (!folio_test_lru(folio)) {
		folio_ref_unfreeze(folio, 1);
		return false;
	}
	if (pte_write(ptent))
		ptep_set_wrprotect(c->mm, addr, pte);
	lru_lock(c, folio);
	lruvec_del_folio(c->lruvec, folio);
	make_pool_folio(folio);
	folio_ref_unfreeze(folio, 2);
	return true;
}

/* Others map the page too. */
static bool take_shared(struct capture *c, struct folio *folio)
{
	int mapcount = folio_mapcount(folio);
	bool taken = false;

	if (!folio_trylock(folio))
		return false;
	if (!folio_test_clear_lru(folio))
		goto out;
	folio_get(folio);
	lru_lock(c, folio);
	/* Whoever finds the folio on the LRU has its reference counted below. */
	smp_mb__after_atomic();
	if (folio_ref_count(folio) == mapcount + 1 && folio_mapcount(folio) == mapcount &&
	    !PageAnonExclusive(&folio->page)) {
		lruvec_del_folio(c->lruvec, folio);
		make_pool_folio(folio);
		taken = true;
	} else {
		folio_set_lru(folio);
		folio_put(folio);
	}
out:
	folio_unlock(folio);
	return taken;
}

/* A page of the region, mapped by @pte. Returns its page number, or what else to do. */
static u32 take_page(struct capture *c, struct vm_area_struct *vma, unsigned long addr, pte_t *pte,
		     pte_t ptent)
{
	struct page *page = pte_page(ptent);
	u32 nr = page_to_pfn(page) - c->pool->start_pfn;
	struct folio *folio = page_folio(page);

	if (folio_test_pool(folio)) {
		folio_get(folio);
		c->stats.shared++;
		return nr;
	}
	if (!folio_test_anon(folio) || folio_test_ksm(folio) || folio_is_zone_device(folio) ||
	    (vma->vm_flags & VM_DROPPABLE))
		return MUST_COPY;
	if (folio_test_large(folio)) {
		if (folio != c->whole) {
			folio_get(folio);
			c->large = folio;
		}
		return LOOK_AGAIN;
	}
	if (folio_maybe_dma_pinned(folio))
		return MUST_COPY;
	if (folio_test_swapcache(folio)) {
		lru_unlock(c);
		if (!folio_trylock(folio))
			return LOOK_AGAIN;
		if (folio_test_swapcache(folio))
			folio_free_swap(folio);
		folio_unlock(folio);
		if (folio_test_swapcache(folio))
			return LOOK_AGAIN;
	}
	if (folio_mapcount(folio) == 1 ? !take_sole(c, folio, addr, pte, ptent) :
					 !take_shared(c, folio))
		return LOOK_AGAIN;
	c->stats.new++;
	return nr | POOL_PAGE_NEW;
}

static u32 look_at_pte(struct capture *c, struct vm_area_struct *vma, unsigned long addr,
		       pte_t *pte)
{
	pte_t ptent = ptep_get(pte);

	if (pte_none(ptent))
		return vma_is_anonymous(vma) ? 0 : MUST_COPY;
	if (pte_present(ptent)) {
		if (!pte_special(ptent) && in_region(c, pte_pfn(ptent)))
			return take_page(c, vma, addr, pte, ptent);
		return is_zero_pfn(pte_pfn(ptent)) ? 0 : MUST_COPY;
	}
	/* Untouched memory that userfaultfd protects. */
	if (pte_marker_uffd_wp(ptent) && vma_is_anonymous(vma))
		return 0;
	return MUST_COPY;
}

/* Up to the end of a page table. Returns where it stopped: at a large folio, or at the end. */
static unsigned long capture_table(struct capture *c, struct vm_area_struct *vma, pmd_t *pmd,
				   unsigned long addr, unsigned long end)
{
	const unsigned long start = addr;
	u32 *slot = slot_of(c, addr);
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
		bool writable;
		u32 what;

		if (c->again && *slot != LOOK_AGAIN)
			continue;
		writable = pte_write(ptep_get(pte));
		what = look_at_pte(c, vma, addr, pte);
		if (c->large)
			break;
		if (c->again && what == LOOK_AGAIN)
			what = MUST_COPY;
		decide(c, slot, what);
		flush |= writable && (what & POOL_PAGE_NEW);
	}
	arch_leave_lazy_mmu_mode();
	lru_unlock(c);
	if (flush)
		flush_tlb_range(vma, start, addr);
	pte_unmap_unlock(start_pte, ptl);
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
	if (vma->vm_flags & (VM_SHARED | VM_MAYSHARE | VM_HUGETLB | VM_SHADOW_STACK)) {
		decide_range(c, addr, end, MUST_COPY);
		return 0;
	}
	if (!vma->anon_vma) {
		decide_range(c, addr, end, absent);
		return 0;
	}
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
	mmap_read_unlock(c->mm);
	if (!err && addr < end)
		err = -EFAULT;
	return err;
}

/*
 * Copies an anonymous page that is mapped, write-protected meanwhile so that the
 * copy is of one instant. Returns 1 if there is no such page.
 */
static int copy_mapped(struct capture *c, struct vm_area_struct *vma, unsigned long addr,
		       struct page *to)
{
	struct mmu_notifier_range range;
	pmd_t *pmd = mm_find_pmd(c->mm, addr);
	struct page *from;
	spinlock_t *ptl;	/* of @pte */
	pte_t *pte, ptent;
	int ret = 1;

	if (!pmd || pmd_none(pmdp_get_lockless(pmd)))
		return 1;
	if (pmd_is_leaf(pmdp_get_lockless(pmd))) {
		if (!vma_is_anonymous(vma))
			return 1;
		split_huge_pmd(vma, pmd, addr);
	}
	mmu_notifier_range_init(&range, MMU_NOTIFY_CLEAR, 0, c->mm, addr, addr + PAGE_SIZE);
	mmu_notifier_invalidate_range_start(&range);
	pte = pte_offset_map_lock(c->mm, pmd, addr, &ptl);
	if (!pte)
		goto out;
	ptent = ptep_get(pte);
	from = pte_present(ptent) ? vm_normal_page(vma, addr, ptent) : NULL;
	if (from && PageAnon(from)) {
		if (pte_write(ptent)) {
			ptep_set_wrprotect(c->mm, addr, pte);
			flush_tlb_page(vma, addr);
		} else if (mm_tlb_flush_pending(c->mm)) {
			flush_tlb_page(vma, addr);
		}
		ret = copy_mc_highpage(to, from) ? -EHWPOISON : 0;
		if (pte_write(ptent))
			set_pte_at(c->mm, addr, pte, ptent);
	}
	pte_unmap_unlock(pte, ptl);
out:
	mmu_notifier_invalidate_range_end(&range);
	return ret;
}

/* Copies whatever a debugger would read there. */
static int copy_any(struct capture *c, unsigned long addr, struct page *to, int *locked)
{
	struct page *from;
	long got = get_user_pages_remote(c->mm, addr, 1, FOLL_FORCE, &from, locked);
	int err;

	if (got != 1)
		return fatal_signal_pending(current) ? -EINTR : got < 0 ? got : -EFAULT;
	err = copy_mc_highpage(to, from) ? -EHWPOISON : 0;
	put_page(from);
	return err;
}

static int copy_page_at(struct capture *c, unsigned long addr, u32 *slot, int *locked)
{
	const vm_flags_t never = VM_SHARED | VM_MAYSHARE | VM_HUGETLB | VM_SHADOW_STACK;
	struct vm_area_struct *vma = vma_lookup(c->mm, addr);
	struct page *to;
	int err = 1;
	u32 nr;

	if (!vma || (vma->vm_flags & (VM_IO | VM_PFNMAP)))
		return -EFAULT;
	nr = pool_page_alloc(c->pool, GFP_KERNEL);
	if (!nr)
		return -ENOSPC;
	to = pool_page(c->pool, nr);
	if (!(vma->vm_flags & never))
		err = copy_mapped(c, vma, addr, to);
	if (err == 1)
		err = copy_any(c, addr, to, locked);
	if (err) {
		put_page(to);
		return err;
	}
	*slot = nr | POOL_PAGE_NEW;
	c->stats.copied++;
	return 0;
}

static int copy_rest(struct capture *c, unsigned long nr)
{
	unsigned long i;
	int err = 0, locked = 0;

	for (i = 0; i < nr && !err; i++) {
		if (c->pages[i] < MUST_COPY)
			continue;
		if (!locked) {
			if (mmap_read_lock_killable(c->mm))
				return -EINTR;
			locked = 1;
		}
		err = copy_page_at(c, c->start + i * PAGE_SIZE, &c->pages[i], &locked);
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
		if (c->pages[i] >= MUST_COPY)
			c->pages[i] = 0;
	pool_pages_put(c->pool, c->pages, nr);
	memset(c->pages, 0, nr * sizeof(*c->pages));
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
 * Return: 0; -EFAULT if not all of the range is mapped memory; -ENOSPC if the
 * region has no free page for a copy; -EINTR on a fatal signal; -EHWPOISON or
 * -ENOMEM from reading the target. On error nothing is taken: @pages is all 0,
 * @stats unchanged.
 */
int pool_capture(const struct pool_region *pool, struct mm_struct *mm, unsigned long addr,
		 unsigned long nr, u32 *pages, struct pool_capture_stats *stats)
{
	struct capture c = { .pool = pool, .mm = mm, .start = addr, .pages = pages };
	int err;

	memset(pages, 0, nr * sizeof(*pages));
	if (!PAGE_ALIGNED(addr) || addr >= TASK_SIZE_MAX ||
	    nr > (TASK_SIZE_MAX - addr) >> PAGE_SHIFT)
		return -EFAULT;
	lru_add_drain();
	err = capture_range(&c, addr + nr * PAGE_SIZE);
	if (!err && c.nr_busy) {
		lru_add_drain_all();
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
