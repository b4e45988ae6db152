// SPDX-License-Identifier: GPL-2.0
/**
 * DOC: spare NUMA nodes
 *
 * Memory that is to be told from other memory has to be on a node of its own, as
 * policies, zone lists and the page allocator know nothing finer. Firmware gives
 * memory the node of the socket that it is at, and nodes that were not possible
 * at boot never are: arrays everywhere are as long as there are possible nodes.
 *
 * So numa_spare_nodes=N sets nodes aside, as ACPI code does for CXL windows that
 * the SRAT does not know: possible ones behind those of the firmware, without
 * CPUs, and without memory until a driver claims one and adds its own.
 *
 * A spare node is a hop behind the node that its memory is near: node_distance()
 * to any node is 10 more than from there. So what does not fit on it goes to the
 * near node first, and it is after all nodes that are as near in the zone lists
 * of others.
 */
#define pr_fmt(fmt) "NUMA: " fmt

#include <linux/cleanup.h>
#include <linux/kernel.h>
#include <linux/minmax.h>
#include <linux/numa_spare.h>
#include <linux/printk.h>
#include <linux/spinlock.h>
#include <linux/topology.h>

#define NUMA_MAX_SPARE_NODES	16

static unsigned int numa_spare_wanted __initdata;
static int numa_first_spare __ro_after_init = MAX_NUMNODES;
static int numa_nr_spare __ro_after_init;

static DEFINE_SPINLOCK(numa_spare_lock);
/* The node near each; NUMA_NO_NODE: nobody has claimed it. Guarded by numa_spare_lock. */
static int numa_spare_near[NUMA_MAX_SPARE_NODES] = {
	[0 ... NUMA_MAX_SPARE_NODES - 1] = NUMA_NO_NODE
};

static int __init numa_spare_setup(char *arg)
{
	return arg ? kstrtouint(arg, 0, &numa_spare_wanted) : -EINVAL;
}
early_param("numa_spare_nodes", numa_spare_setup);

/**
 * numa_add_spare_nodes - make nodes possible that nothing is on
 * @possible: all nodes that are possible so far
 * @parsed: those that the firmware told of
 *
 * Adds as many as numa_spare_nodes= asks for to both masks: architectures take
 * what is possible from one or the other.
 *
 * Context: boot, while it is found out which nodes there are. Each attempt to
 * do so starts anew.
 */
void __init numa_add_spare_nodes(nodemask_t *possible, nodemask_t *parsed)
{
	int i, room;

	numa_first_spare = find_last_bit(possible->bits, MAX_NUMNODES) + 1;
	room = min(NUMA_MAX_SPARE_NODES, MAX_NUMNODES - numa_first_spare);
	numa_nr_spare = min_t(unsigned int, numa_spare_wanted, room);
	for (i = 0; i < numa_nr_spare; i++) {
		node_set(numa_first_spare + i, *possible);
		node_set(numa_first_spare + i, *parsed);
	}
	if (numa_nr_spare < numa_spare_wanted)
		pr_warn("%u spare nodes asked for, %d possible\n", numa_spare_wanted,
			numa_nr_spare);
	if (numa_nr_spare)
		pr_info("%d spare nodes, from node %d on\n", numa_nr_spare, numa_first_spare);
}

/**
 * numa_behind_spare - what node_distance() has to know of spare nodes
 * @nid: a node; replaced by the one near it, if it is spare and claimed
 *
 * Context: any.
 * Return: by how much the first is farther away from all others.
 */
int numa_behind_spare(int *nid)
{
	const int i = *nid - numa_first_spare;
	int near;

	if (i < 0 || i >= numa_nr_spare)
		return 0;
	near = READ_ONCE(numa_spare_near[i]);
	if (near == NUMA_NO_NODE)
		return 0;
	*nid = near;
	return REMOTE_DISTANCE - LOCAL_DISTANCE;
}

/**
 * numa_claim_spare_node - a node for memory that must be alone
 * @near: the node that the memory is on by its place; NUMA_NO_NODE: not known
 *
 * Nobody else gets it until numa_release_spare_node(). Claim it before adding
 * memory: zone lists are built by distance then.
 *
 * Context: process.
 * Return: a possible node without memory, or NUMA_NO_NODE if none is left.
 */
int numa_claim_spare_node(int near)
{
	int i;

	if (!numa_valid_node(near))
		near = first_memory_node;
	guard(spinlock)(&numa_spare_lock);
	for (i = 0; i < numa_nr_spare; i++) {
		/*
		 * Firmware that plugs memory of a new node in may have got here first, or
		 * a device have left blocks behind. Offline ones keep a node online, too.
		 */
		if (numa_spare_near[i] != NUMA_NO_NODE || node_online(numa_first_spare + i))
			continue;
		WRITE_ONCE(numa_spare_near[i], near);
		return numa_first_spare + i;
	}
	return NUMA_NO_NODE;
}

/**
 * numa_release_spare_node - the memory is gone from a spare node
 * @nid: from numa_claim_spare_node()
 *
 * Context: process.
 */
void numa_release_spare_node(int nid)
{
	guard(spinlock)(&numa_spare_lock);
	WRITE_ONCE(numa_spare_near[nid - numa_first_spare], NUMA_NO_NODE);
}
