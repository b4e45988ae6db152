// SPDX-License-Identifier: GPL-2.0
/*
 * Pool pages: memory failures.
 */
#include <linux/memcontrol.h>
#include <linux/mm.h>
#include <linux/mm_inline.h>
#include <linux/mmu_notifier.h>
#include <linux/notifier.h>
#include <linux/oom.h>
#include <linux/pagewalk.h>
#include <linux/pid.h>
#include <linux/pool_pages.h>
#include <linux/rmap.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/sched/task.h>
#include <linux/slab.h>
#include <linux/swapops.h>
#include <linux/workqueue.h>
#include <asm/tlbflush.h>

#include "internal.h"

/**
 * DOC: Memory failures
 *
 * Reverse maps do not lead from a pool page to those who map it. When its memory
 * fails, all processes are searched instead: it happens seldom, and need not be
 * fast. Each entry that maps the page becomes a hwpoison entry, so that an access
 * means SIGBUS. Then the stores hear of it, which must not touch the content any
 * more, and tell whoever asks for it (EIO).
 *
 * PageHWPoison is set before the search, and nobody maps such a page anew.
 * Processes that fork() or end meanwhile may be missed; so the search is repeated
 * while the page is mapped.
 *
 * Any process can hold its mmap_lock for long, and must not keep others from learning
 * of their memory failures. So the search waits for nobody's lock but that of the
 * process that has met the failure; whose lock is taken is left to work that waits.
 * memory_failure() then says -EHWPOISON: on success the page may go from the kernel's
 * page tables, while that process can still have the kernel access it.
 *
 * memory_failure() keeps its reference, and the allocator takes no page with
 * PageHWPoison back: the page is out of use until the next boot, and what then
 * becomes of it is for the hardware to say.
 */

#define SEARCHES	3

static BLOCKING_NOTIFIER_HEAD(pool_poison_chain);

/**
 * pool_poison_register - be told of memory failures in pool pages
 * @nb: called with the struct page as data, in process context; no process maps
 *	the page any more, unless its mmap_lock is taken or it could not be helped
 *
 * Return: 0, or -EEXIST if it is registered already.
 */
int pool_poison_register(struct notifier_block *nb)
{
	return blocking_notifier_chain_register(&pool_poison_chain, nb);
}
EXPORT_SYMBOL_GPL(pool_poison_register);

/**
 * pool_poison_unregister - undo pool_poison_register()
 * @nb: as registered; not called any more on return
 */
void pool_poison_unregister(struct notifier_block *nb)
{
	blocking_notifier_chain_unregister(&pool_poison_chain, nb);
}
EXPORT_SYMBOL_GPL(pool_poison_unregister);

struct search {
	unsigned long pfn;
	struct vm_area_struct *vma;	/* where it is mapped */
	unsigned long addr;
};

static int search_table(pmd_t *pmd, unsigned long addr, unsigned long end, struct mm_walk *walk)
{
	struct search *search = walk->private;
	pte_t *pte, *start_pte;
	spinlock_t *ptl;	/* of @pte */
	int found = 0;

	start_pte = pte_offset_map_lock(walk->mm, pmd, addr, &ptl);
	if (!start_pte)
		return 0;
	for (pte = start_pte; addr < end && !found; addr += PAGE_SIZE, pte++) {
		pte_t ptent = ptep_get(pte);

		if (pte_present(ptent) && pte_pfn(ptent) == search->pfn) {
			search->vma = walk->vma;
			search->addr = addr;
			found = 1;
		}
	}
	pte_unmap_unlock(start_pte, ptl);
	cond_resched();
	return found;
}

/* Only anonymous pages of private mappings are pool pages. */
static int search_vma(unsigned long start, unsigned long end, struct mm_walk *walk)
{
	const vm_flags_t never = VM_SHARED | VM_MAYSHARE | VM_HUGETLB | VM_PFNMAP;

	return !walk->vma->anon_vma || (walk->vma->vm_flags & never);
}

static const struct mm_walk_ops search_ops = {
	.pmd_entry = search_table,
	.test_walk = search_vma,
	.walk_lock = PGWALK_RDLOCK,
};

/* Whoever accesses @addr from now on gets a SIGBUS. Returns whether it was still mapped. */
static bool poison_entry(struct folio *folio, struct vm_area_struct *vma, unsigned long addr)
{
	DEFINE_FOLIO_VMA_WALK(pvmw, folio, vma, addr, 0);
	struct mm_struct *mm = vma->vm_mm;
	struct mmu_notifier_range range;
	bool found;

	folio_lock(folio);	/* as every hwpoison entry wants it */
	mmu_notifier_range_init(&range, MMU_NOTIFY_CLEAR, 0, mm, addr, addr + PAGE_SIZE);
	mmu_notifier_invalidate_range_start(&range);
	found = page_vma_mapped_walk(&pvmw);
	if (found) {
		flush_cache_page(vma, addr, folio_pfn(folio));
		ptep_clear_flush(vma, addr, pvmw.pte);
		update_hiwater_rss(mm);
		dec_mm_counter(mm, MM_ANONPAGES);
		set_pte_at(mm, addr, pvmw.pte,
			   swp_entry_to_pte(make_hwpoison_entry(&folio->page)));
		folio_remove_rmap_pte(folio, &folio->page, vma);
		if (vma->vm_flags & VM_LOCKED)
			mlock_drain_local();
		folio_put(folio);
		page_vma_mapped_walk_done(&pvmw);
	}
	mmu_notifier_invalidate_range_end(&range);
	folio_unlock(folio);
	return found;
}

/* As kill_procs() does for other pages: early, for those who asked for it. */
static void tell(struct task_struct *task, unsigned long addr, int flags)
{
	struct task_struct *t;

	rcu_read_lock();
	t = task_early_kill(task, flags & MF_ACTION_REQUIRED);
	if (t)
		get_task_struct(t);
	rcu_read_unlock();
	if (!t)
		return;
	pr_err("Memory failure: %#lx in %s:%d is lost\n", addr, t->comm, task_pid_nr(t));
	if ((flags & MF_ACTION_REQUIRED) && t == current)
		force_sig_mceerr(BUS_MCEERR_AR, (void __user *)addr, PAGE_SHIFT);
	else
		send_sig_mceerr(BUS_MCEERR_AO, (void __user *)addr, PAGE_SHIFT, t);
	put_task_struct(t);
}

/* The mmap_lock is held for reading. */
static void poison_mm(struct folio *folio, struct mm_struct *mm, struct task_struct *task,
		      int flags)
{
	struct search search = { .pfn = folio_pfn(folio) };
	unsigned long addr = 0;

	while (folio_mapped(folio) &&
	       walk_page_range(mm, addr, TASK_SIZE_MAX, &search_ops, &search) > 0) {
		if (poison_entry(folio, search.vma, search.addr))
			tell(task, search.addr, flags);
		addr = search.addr + PAGE_SIZE;
	}
}

/* The first process from number *@nr on, with a reference; *@nr moves on. */
static struct task_struct *next_process(int *nr)
{
	struct task_struct *task = NULL;
	struct pid *pid;

	rcu_read_lock();
	while (!task) {
		pid = find_ge_pid(*nr, &init_pid_ns);
		if (!pid)
			break;
		*nr = pid_nr(pid) + 1;
		task = pid_task(pid, PIDTYPE_TGID);
		if (task && (task->flags & PF_KTHREAD))
			task = NULL;
	}
	if (task)
		get_task_struct(task);
	rcu_read_unlock();
	return task;
}

static struct mm_struct *mm_of(struct task_struct *process)
{
	struct mm_struct *mm = NULL;
	struct task_struct *t;

	rcu_read_lock();
	t = find_lock_task_mm(process);
	if (t) {
		mm = t->mm;
		mmget(mm);
		task_unlock(t);
	}
	rcu_read_unlock();
	return mm;
}

/* Returns false if a process was left out, as its lock is taken and we may not @wait. */
static bool poison_all(struct folio *folio, int flags, bool wait)
{
	struct task_struct *process;
	bool all = true;
	int nr = 1;

	while (folio_mapped(folio)) {
		struct mm_struct *mm;

		process = next_process(&nr);
		if (!process)
			break;
		mm = mm_of(process);
		if (mm) {
			if (wait)
				mmap_read_lock(mm);
			if (wait || mmap_read_trylock(mm)) {
				poison_mm(folio, mm, process, flags);
				mmap_read_unlock(mm);
			} else {
				all = false;
			}
			/* Not here: it may take long. */
			mmput_async(mm);
		}
		put_task_struct(process);
		cond_resched();
	}
	return all;
}

struct late_search {
	struct work_struct work;
	struct folio *folio;
	int flags;
};

static void search_late(struct work_struct *work)
{
	struct late_search *late = container_of(work, struct late_search, work);
	int i;

	for (i = 0; i < SEARCHES && folio_mapped(late->folio); i++) {
		/* Nobody is left to wait for those who keep their lock, but they themselves. */
		poison_all(late->folio, late->flags, false);
		poison_all(late->folio, late->flags, true);
	}
	if (folio_mapped(late->folio))
		pr_err("Memory failure: %#lx: a process still maps it\n", folio_pfn(late->folio));
	folio_put(late->folio);
	kfree(late);
}

static bool queue_search(struct folio *folio, int flags)
{
	struct late_search *late = kmalloc(sizeof(*late), GFP_KERNEL);

	if (!late)
		return false;
	INIT_WORK(&late->work, search_late);
	folio_get(folio);
	late->folio = folio;
	late->flags = flags;
	return queue_work(system_unbound_wq, &late->work);
}

/**
 * pool_memory_failure - take a pool page with damaged memory out of use
 * @folio: PageHWPoison is set; the caller has a reference, which it keeps
 * @flags: of memory_failure()
 *
 * Context: may sleep; the caller holds no lock that a page fault may take.
 *
 * Return: 0 if no process maps it any more, -EINPROGRESS if those whose lock is taken are
 * searched later, -EBUSY if a process still maps it.
 */
int pool_memory_failure(struct folio *folio, int flags)
{
	struct mm_struct *mm = current->mm;
	bool all = true;
	int i, rc = 0;

	/* Returning to user mode it would meet the failure again. */
	if ((flags & MF_ACTION_REQUIRED) && mm) {
		mmap_read_lock(mm);
		poison_mm(folio, mm, current, flags);
		mmap_read_unlock(mm);
	}
	for (i = 0; i < SEARCHES && folio_mapped(folio); i++)
		all = poison_all(folio, flags, false);
	if (folio_mapped(folio))
		rc = !all && queue_search(folio, flags) ? -EINPROGRESS : -EBUSY;
	blocking_notifier_call_chain(&pool_poison_chain, 0, &folio->page);
	return rc;
}
