// SPDX-License-Identifier: GPL-2.0
/*
 * Pool pages: mapping them into the memory of the calling process.
 */
#include <linux/memcontrol.h>
#include <linux/mm.h>
#include <linux/mm_inline.h>
#include <linux/mmu_context.h>
#include <linux/oom.h>
#include <linux/pkeys.h>
#include <linux/pool_pages.h>
#include <linux/rmap.h>
#include <linux/sched/mm.h>
#include <linux/userfaultfd_k.h>
#include <asm/tlbflush.h>

#include "internal.h"

/**
 * DOC: Installing pool pages
 *
 * pool_install() does what a page fault on untouched anonymous memory does, but
 * for many pages and with pages of the pool, mapped read-only as after fork().
 * A store uses it where read(2) would fill such memory by copying. What read(2)
 * may not do to memory (write what is not writable, skip a userfaultfd handler,
 * change a present page for another) this does not do either.
 *
 * The references of the page table are those the caller had, so no count is
 * touched but the map count. Statistics are added up for a page table.
 */

/* Sums up NR_ANON_MAPPED for pages of one memory cgroup. */
struct mapped_sum {
	struct folio *folio;
	long nr;
};

static void sum_flush(struct mapped_sum *sum)
{
	if (sum->nr)
		__lruvec_stat_mod_folio(sum->folio, NR_ANON_MAPPED, sum->nr);
	sum->nr = 0;
}

static void sum_add(struct mapped_sum *sum, struct folio *folio)
{
	if (sum->nr && folio_memcg(sum->folio) != folio_memcg(folio))
		sum_flush(sum);
	sum->folio = folio;
	sum->nr++;
}

/* In a private file mapping read(2) must fail beyond the end of the file. */
static bool vma_takes_pool_pages(struct vm_area_struct *vma)
{
	const vm_flags_t never = VM_SHARED | VM_MAYSHARE | VM_IO | VM_PFNMAP | VM_MIXEDMAP |
				 VM_HUGETLB | VM_LOCKED | VM_SHADOW_STACK | VM_DROPPABLE;

	return vma_is_anonymous(vma) && (vma->vm_flags & VM_WRITE) && !(vma->vm_flags & never) &&
	       !userfaultfd_armed(vma) && arch_vma_access_permitted(vma, true, false, false);
}

static pmd_t *alloc_pmd(struct mm_struct *mm, unsigned long addr)
{
	p4d_t *p4d = p4d_alloc(mm, pgd_offset(mm, addr), addr);
	pud_t *pud = p4d ? pud_alloc(mm, p4d, addr) : NULL;

	return pud ? pmd_alloc(mm, pud, addr) : NULL;
}

/* How many entries from @pte on, at most @nr, map something? */
static unsigned long count_present(pte_t *pte, unsigned long nr)
{
	unsigned long i = 0;

	while (i < nr && !pte_none(ptep_get(pte + i)))
		i++;
	return i;
}

/* Within one page table. Returns the leading pages handled; *skip counts if they are not all. */
static unsigned long install_table(const struct pool_region *pool, struct vm_area_struct *vma,
				   unsigned long addr, unsigned long nr, u32 *pages,
				   unsigned long *skip)
{
	struct mm_struct *mm = vma->vm_mm;
	struct mapped_sum sum = {};
	unsigned long i, mapped = 0;
	pte_t *pte;
	spinlock_t *ptl;	/* of @pte */
	pmd_t *pmd;

	*skip = nr;
	pmd = alloc_pmd(mm, addr);
	if (!pmd)
		return 0;
	if (pmd_none(pmdp_get_lockless(pmd)) && !memchr_inv(pages, 0, nr * sizeof(*pages)))
		return nr;
	if (pte_alloc(mm, pmd))
		return 0;
	pte = pte_offset_map_lock(mm, pmd, addr, &ptl);
	if (!pte)
		return 0;
	if (check_stable_address_space(mm)) {
		pte_unmap_unlock(pte, ptl);
		return 0;
	}
	arch_enter_lazy_mmu_mode();
	for (i = 0; i < nr; i++) {
		unsigned long pfn = pool->start_pfn + (pages[i] & ~POOL_PAGE_NEW);
		struct page *page;

		if (unlikely(!pte_none(ptep_get(pte + i)))) {
			*skip = count_present(pte + i, nr - i);
			break;
		}
		if (!pages[i])
			continue;
		page = pfn_to_page(pfn);
		VM_WARN_ON_ONCE_PAGE(!pool_page_test(pool, page), page);
		if (atomic_inc_and_test(&page->_mapcount))
			sum_add(&sum, page_folio(page));
		set_pte_at(mm, addr + i * PAGE_SIZE, pte + i,
			   pte_mksoft_dirty(pfn_pte(pfn, vma->vm_page_prot)));
		pages[i] = 0;
		mapped++;
	}
	arch_leave_lazy_mmu_mode();
	sum_flush(&sum);
	add_mm_counter(mm, MM_ANONPAGES, mapped);
	if (i)
		update_mmu_cache_range(NULL, vma, addr, pte, i);
	pte_unmap_unlock(pte, ptl);
	return i;
}

/**
 * pool_install - map pool pages into untouched memory of the calling process
 * @pool: the region
 * @addr: where; page aligned
 * @nr: number of pages
 * @pages: page numbers, 0 for pages without content; the caller has a reference
 *	on each
 * @skip: how many pages after those handled the caller had better copy, 1 or more
 *
 * Only memory that is private, anonymous, writable, neither locked nor watched by
 * userfaultfd takes pages, and only where nothing is mapped yet, so that the
 * result is that of copying. Memory for pages without content is left untouched:
 * it reads as zeroes.
 *
 * The references on pages that are installed pass to the page table, and their
 * entries in @pages become 0; the rest stays the caller's.
 *
 * Context: takes mmap_lock for reading; the caller holds no lock that a page
 * fault may take.
 *
 * Return: the number of leading pages that are handled.
 */
unsigned long pool_install(const struct pool_region *pool, unsigned long addr, unsigned long nr,
			   u32 *pages, unsigned long *skip)
{
	struct mm_struct *mm = current->mm;
	unsigned long done = 0;

	*skip = 1;
	if (!nr || !mm || !PAGE_ALIGNED(addr) || mmap_read_lock_killable(mm))
		return 0;
	while (done < nr && !fatal_signal_pending(current)) {
		struct vm_area_struct *vma = vma_lookup(mm, addr);
		unsigned long want, got;

		if (!vma)
			break;
		want = min(nr - done, (vma->vm_end - addr) >> PAGE_SHIFT);
		if (!vma_takes_pool_pages(vma) || anon_vma_prepare(vma)) {
			*skip = want;
			break;
		}
		want = (pmd_addr_end(addr, addr + (want << PAGE_SHIFT)) - addr) >> PAGE_SHIFT;
		got = install_table(pool, vma, addr, want, pages + done, skip);
		done += got;
		if (got < want)
			break;
		*skip = 1;
		addr += got << PAGE_SHIFT;
		cond_resched();
	}
	mmap_read_unlock(mm);
	return done;
}
EXPORT_SYMBOL_GPL(pool_install);
