/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _MM_POOL_COPY_H
#define _MM_POOL_COPY_H

#include <linux/pool_pages.h>

/* Memory whose page-table entries are not for pool pages to touch. */
#define POOL_VMA_HANDS_OFF	(VM_SHARED | VM_MAYSHARE | VM_HUGETLB | VM_SHADOW_STACK)

int pool_copy_page(const struct pool_region *pool, struct mm_struct *mm, unsigned long addr,
		   int *locked, u32 *copy);

#endif /* _MM_POOL_COPY_H */
