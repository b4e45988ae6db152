// SPDX-License-Identifier: GPL-2.0
/*
 * Pool pages: copies of memory that cannot be taken by reference.
 */
#include <linux/highmem.h>
#include <linux/hugetlb.h>
#include <linux/mm.h>
#include <linux/mmu_notifier.h>
#include <linux/sched/signal.h>
#include <asm/tlbflush.h>

#include "internal.h"
#include "pool_copy.h"

/*
 * Copies an anonymous page that is mapped, write-protected meanwhile so that the
 * copy is of one instant. Returns 1 if there is no such page.
 */
static int copy_mapped(struct vm_area_struct *vma, unsigned long addr, struct page *to)
{
	struct mm_struct *mm = vma->vm_mm;
	struct mmu_notifier_range range;
	pmd_t *pmd = mm_find_pmd(mm, addr);
	struct page *from;
	spinlock_t *ptl;	/* of @pte */
	pte_t *pte, ptent;
	int ret = 1;

	if (!pmd || pmd_none(pmdp_get_lockless(pmd)))
		return 1;
	if (vma_is_anonymous(vma))
		split_huge_pmd(vma, pmd, addr);
	mmu_notifier_range_init(&range, MMU_NOTIFY_CLEAR, 0, mm, addr, addr + PAGE_SIZE);
	mmu_notifier_invalidate_range_start(&range);
	pte = pte_offset_map_lock(mm, pmd, addr, &ptl);
	if (!pte)
		goto out;
	ptent = ptep_get(pte);
	from = pte_present(ptent) ? vm_normal_page(vma, addr, ptent) : NULL;
	if (from && PageAnon(from)) {
		if (pte_write(ptent)) {
			ptep_set_wrprotect(mm, addr, pte);
			flush_tlb_page(vma, addr);
		} else if (mm_tlb_flush_pending(mm)) {
			flush_tlb_page(vma, addr);
		}
		ret = PageHWPoison(from) || copy_mc_highpage(to, from) ? -EHWPOISON : 0;
		/* The entry as it is now: a write may have made it dirty since @ptent. */
		if (pte_write(ptent))
			set_pte_at(mm, addr, pte, pte_mkwrite(ptep_get(pte), vma));
	}
	pte_unmap_unlock(pte, ptl);
out:
	mmu_notifier_invalidate_range_end(&range);
	return ret;
}

/* Copies whatever a debugger would read there. */
static int copy_any(struct mm_struct *mm, unsigned long addr, struct page *to, int *locked)
{
	struct page *from;
	long got = get_user_pages_remote(mm, addr, 1, FOLL_FORCE | FOLL_HWPOISON, &from,
					 locked);
	int err;

	if (got != 1)
		return fatal_signal_pending(current) ? -EINTR : got < 0 ? got : -EFAULT;
	err = copy_mc_highpage(to, from) ? -EHWPOISON : 0;
	put_page(from);
	return err;
}

/**
 * pool_copy_page - copy one page of a process into a new pool page
 * @pool: the region
 * @mm: of the target; its mmap_lock is held for reading
 * @addr: page aligned
 * @locked: becomes 0 if mmap_lock was dropped
 * @copy: page number of the copy, marked POOL_PAGE_NEW
 *
 * Return: 0, or the errors of pool_capture().
 */
int pool_copy_page(const struct pool_region *pool, struct mm_struct *mm, unsigned long addr,
		   int *locked, u32 *copy)
{
	struct vm_area_struct *vma = vma_lookup(mm, addr);
	struct page *to;
	int err = 1;
	u32 nr;

	if (!vma || (vma->vm_flags & (VM_IO | VM_PFNMAP)))
		return -EFAULT;
	nr = pool_page_alloc(pool, GFP_KERNEL);
	if (!nr)
		return -ENOSPC;
	to = pool_page(pool, nr);
	if (!(vma->vm_flags & POOL_VMA_HANDS_OFF))
		err = copy_mapped(vma, addr, to);
	if (err == 1)
		err = copy_any(mm, addr, to, locked);
	if (err) {
		put_page(to);
		return err;
	}
	*copy = nr | POOL_PAGE_NEW;
	return 0;
}
