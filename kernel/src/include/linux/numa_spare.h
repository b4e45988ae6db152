/* SPDX-License-Identifier: GPL-2.0 */
/* Possible NUMA nodes that nothing was on at boot, for memory that comes later. */
#ifndef _LINUX_NUMA_SPARE_H
#define _LINUX_NUMA_SPARE_H

#include <linux/init.h>
#include <linux/nodemask.h>
#include <linux/numa.h>

#ifdef CONFIG_NUMA_MEMBLKS
void __init numa_add_spare_nodes(nodemask_t *possible, nodemask_t *parsed);
int numa_behind_spare(int *nid);
int numa_claim_spare_node(int near);
void numa_release_spare_node(int nid);
#else
static inline int numa_claim_spare_node(int near)
{
	return NUMA_NO_NODE;
}

static inline void numa_release_spare_node(int nid) {}
#endif /* CONFIG_NUMA_MEMBLKS */

#endif /* _LINUX_NUMA_SPARE_H */
