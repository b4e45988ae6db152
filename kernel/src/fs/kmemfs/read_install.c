// SPDX-License-Identifier: GPL-2.0
/*
 * kmemfs: read(2) that gives pages instead of copying them
 */

/**
 * DOC: reading by reference
 *
 * Where the destination of a read is untouched, page-aligned, private memory, the
 * stored page is mapped there copy-on-write. The reader cannot tell: the first
 * write to such a page copies it, as after fork().
 */

#include <linux/uio.h>
#include "kmemfs.h"

/* The user address at which @to continues, if it is user memory; bytes there in *@len */
static unsigned long kmemfs_iter_addr(const struct iov_iter *to, size_t *len)
{
	if (iter_is_ubuf(to)) {
		*len = iov_iter_count(to);
		return (unsigned long)to->ubuf + to->iov_offset;
	}
	*len = iter_iov_len(to);
	return (unsigned long)iter_iov_addr(to);
}

/* Map leading pages into the reader; *@copy: how many to copy after them */
unsigned long kmemfs_read_install(struct kmemfs *k, struct iov_iter *to, u32 *pages,
				  unsigned long nr, unsigned long *copy)
{
	unsigned long addr, done;
	size_t len;

	addr = kmemfs_iter_addr(to, &len);
	*copy = max(1UL, min(nr, len >> PAGE_SHIFT));
	nr = min(nr, len >> PAGE_SHIFT);
	if (!nr || !PAGE_ALIGNED(addr))
		return 0;
	done = pool_install(&k->region, addr, nr, pages, copy);
	if (done == nr)
		*copy = 0;	/* the next segment may take pages as well */
	iov_iter_advance(to, done << PAGE_SHIFT);
	return done;
}
