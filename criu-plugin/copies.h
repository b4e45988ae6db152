/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * DOC: copies - what tasks have in common, and had to be copied into an image
 *
 * A page on another node than the pool's is copied into the image of each task that
 * has it. To have it there once, the first copy is remembered by the place where the
 * page is, and the image of another task that has a page at this place gets the part
 * of the first one's image cloned. A place is a hint: the kernel may have moved the
 * page meanwhile, so what is there is compared before.
 */
#ifndef COPIES_H
#define COPIES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Pages that CRIU offers at once at most: what a pipe holds. */
#define COPIES_MAX_RANGE 1024

/* What is remembered by now is of other tasks than the one that follows. */
void copies_begin_task(void);

/* Whether there is any of those. */
bool copies_of_others(void);

/*
 * The calls below are about this range of a task, and where it goes in its image; fds
 * and range are looked at until the next call. 0, or -1 with errno, and then they must
 * not be made. Needs CAP_SYS_ADMIN.
 */
int copies_look_at(int pid, int img_fd, uint64_t vaddr, size_t nr_pages, uint64_t img_off);

/* These pages of it have been copied, or some of them. -1: one was not remembered. */
int copies_remember(size_t first, size_t nr_pages);

/* Clones pages from the first on that are there already; how many that were. */
size_t copies_clone(size_t first);

/* How many pages from the first on, which is not cloned, have no copy; at least one. */
size_t copies_none(size_t first);

/* Forgets all. */
void copies_end(void);

#endif /* COPIES_H */
