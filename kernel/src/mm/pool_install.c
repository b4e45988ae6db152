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
#include "pool_rmap.h"

/**
 * DOC: Installing pool pages
 *
 * pool_install() does what a page fault on untouched private memory does, but
 * for many pages and with pages of the pool, mapped read-only as after fork().
 * A store uses it where read(2) would fill such memory by copying. What read(2)
 * may not do to memory (write what is not writable, skip a userfaultfd handler,
 * change a present page for another, go beyond the end of a mapped file) this
 * does not do either.
 *
 * The references of the page table are those the caller had, so no count is
 * touched but the map count. Charges and statistics are added up for a page table.
 */

static bool vma_takes_pool_pages(struct vm_area_struct *vma)
{
	const vm_flags_t never = VM_SHARED | VM_MAYSHARE | VM_IO | VM_PFNMAP | VM_MIXEDMAP |
				 VM_HUGETLB | VM_LOCKED | VM_SHADOW_STACK | VM_DROPPABLE;

	/* a device may do in its fault handler what must not be left out */
	if (!vma_is_anonymous(vma) &&
	    (!vma->vm_file || !S_ISREG(file_inode(vma->vm_file)->i_mode)))
		return false;
	return (vma->vm_flags & VM_WRITE) && !(vma->vm_flags & never) &&
	       !userfaultfd_armed(vma) && arch_vma_access_permitted(vma, true, false, false);
}

/*
 * How many of @nr pages may a mapping of a file take, and how many had better be copied
 * after them? Where the store has no content the file's must not show. truncate(2) sets
 * the size before it clears page tables for the last time, so that under a page table's
 * lock either the new size is seen, or what was installed is cleared.
 */
static noinline unsigned long limit_to_file(struct vm_area_struct *vma, unsigned long addr,
					    unsigned long nr, const u32 *pages,
					    unsigned long *skip)
{
	const pgoff_t index = linear_page_index(vma, addr);
	const loff_t size = i_size_read(vma->vm_file->f_mapping->host);
	const pgoff_t end = DIV_ROUND_UP_ULL(size, PAGE_SIZE);
	const unsigned long room = end > index ? min(nr, end - index) : 0;
	unsigned long i;

	for (i = 0; i < room && pages[i]; i++)
		;
	*skip = i < room ? 1 : nr - room;
	return i;
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

/* How many leading pages, of @nr, are there with at most @most that have content? */
static unsigned long count_pages(const u32 *pages, unsigned long nr, unsigned int most)
{
	unsigned long i;

	for (i = 0; i < nr; i++)
		if (pages[i] && !most--)
			break;
	return i;
}

/* Within one page table. Returns the leading pages handled; *skip is 0 if they are all. */
static unsigned long install_table(const struct pool_region *pool, struct vm_area_struct *vma,
				   unsigned long addr, unsigned long nr, u32 *pages,
				   struct pool_charge *charge, unsigned long *skip)
{
	const unsigned int max_refs = pool_max_refs();
	const unsigned long start_pfn = pool->start_pfn;
	const pgprot_t prot = vma->vm_page_prot;
	struct anon_vma *family = vma->anon_vma->root;
	struct mm_struct *mm = vma->vm_mm;
	unsigned long i, mapped = 0;
	pte_t *pte;
	spinlock_t *ptl;	/* of @pte */
	pmd_t *pmd;

	*skip = nr;
	pmd = alloc_pmd(mm, addr);
	if (!pmd)
		return 0;
	if (vma_is_anonymous(vma) && pmd_none(pmdp_get_lockless(pmd)) &&
	    !memchr_inv(pages, 0, nr * sizeof(*pages))) {
		*skip = 0;
		return nr;
	}
	if (pte_alloc(mm, pmd))
		return 0;
	pte = pte_offset_map_lock(mm, pmd, addr, &ptl);
	if (!pte)
		return 0;
	if (check_stable_address_space(mm)) {
		pte_unmap_unlock(pte, ptl);
		return 0;
	}
	*skip = 0;
	if (!vma_is_anonymous(vma))
		nr = limit_to_file(vma, addr, nr, pages, skip);
	arch_enter_lazy_mmu_mode();
	for (i = 0; i < nr; i++) {
		unsigned long pfn = start_pfn + (pages[i] & ~POOL_PAGE_NEW);
		struct page *page;

		if (unlikely(!pte_none(ptep_get(pte + i)))) {
			*skip = count_present(pte + i, nr - i);
			break;
		}
		if (!pages[i])
			continue;
		page = pfn_to_page(pfn);
		if (unlikely(page_ref_count(page) > max_refs || PageHWPoison(page))) {
			*skip = 1;
			break;
		}
		VM_WARN_ON_ONCE_PAGE(!pool_page_test(pool, page), page);
		pool_add_rmap((struct folio *)page, family, charge);	/* never a tail */
		set_pte_at(mm, addr + i * PAGE_SIZE, pte + i,
			   pte_mksoft_dirty(pfn_pte(pfn, prot)));
		pages[i] = 0;
		mapped++;
	}
	arch_leave_lazy_mmu_mode();
	pool_charge_commit(charge, pool->nid);
	add_mm_counter(mm, MM_ANONPAGES, mapped);
	if (i)
		update_mmu_cache_range(NULL, vma, addr, pte, i);
	pte_unmap_unlock(pte, ptl);
	return i;
}

/* Those of the pages for which there is a charge. Returns as install_table(). */
static unsigned long install_charged(const struct pool_region *pool, struct vm_area_struct *vma,
				     unsigned long addr, unsigned long nr, u32 *pages,
				     unsigned long *skip)
{
	struct mm_struct *mm = vma->vm_mm;
	struct pool_charge charge;
	unsigned long got = 0, few = min(nr, SWAP_CLUSTER_MAX);

	*skip = few;
	if (!pool_charge_begin(&charge, mm, nr, GFP_NOWAIT)) {
		if (pool_charge_begin(&charge, mm, few, GFP_KERNEL | __GFP_NORETRY))
			nr = count_pages(pages, nr, few);
		else
			nr = count_pages(pages, nr, 0);
	}
	if (nr)
		got = install_table(pool, vma, addr, nr, pages, &charge, skip);
	pool_charge_end(&charge);
	return got;
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
 * Only memory that is private, writable, neither locked nor watched by userfaultfd
 * takes pages, and only where nothing is mapped yet, so that the result is that of
 * copying: anonymous memory, and mappings of regular files up to the file's end.
 * Anonymous memory for pages without content is left untouched: it reads as zeroes.
 * Where the process's memory cgroup is at its limit nothing is installed: copying
 * meets the limit as any page fault does.
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
		got = install_charged(pool, vma, addr, want, pages + done, skip);
		done += got;
		if (*skip)
			break;
		*skip = 1;
		addr += got << PAGE_SHIFT;
		cond_resched();
	}
	mmap_read_unlock(mm);
	return done;
}
EXPORT_SYMBOL_GPL(pool_install);
