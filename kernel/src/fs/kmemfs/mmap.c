// SPDX-License-Identifier: GPL-2.0
/*
 * kmemfs: mapping files
 */

/**
 * DOC: mmap
 *
 * A folio has one mapping and one index, and a stored page may be in several
 * files. So a mapping shows page-cache copies of stored pages, filled on fault
 * and thrown away when the file changes there (kmemfs_invalidate()). A filler
 * adds its folio to the cache before it reads the table; a writer changes the
 * table before it looks into the cache; both under the inode's spinlock. So one
 * of them sees the other.
 *
 * Maps are private, or shared and read-only.
 */

#include <linux/highmem.h>
#include <linux/mm.h>
#include <linux/pagemap.h>
#include "kmemfs.h"

static int kmemfs_read_folio(struct file *file, struct folio *folio)
{
	struct inode *inode = folio->mapping->host;
	struct kmemfs *k = kmemfs_of(inode);
	unsigned long i, nr = folio_nr_pages(folio);
	u32 page;

	for (i = 0; i < nr; i++) {
		kmemfs_get_pages(KMEMFS_I(inode), folio->index + i, 1, &page);
		if (page) {
			copy_highpage(folio_page(folio, i), kmemfs_page(k, page));
			pool_page_put(&k->region, page);
		} else {
			clear_highpage(folio_page(folio, i));
		}
	}
	folio_mark_uptodate(folio);
	folio_unlock(folio);
	return 0;
}

int kmemfs_mmap(struct file *file, struct vm_area_struct *vma)
{
	if ((vma->vm_flags & VM_SHARED) && (vma->vm_flags & VM_WRITE))
		return -ENODEV;
	if (vma->vm_flags & VM_SHARED)
		vm_flags_clear(vma, VM_MAYWRITE);	/* nor by mprotect(2) later */
	return generic_file_mmap(file, vma);
}

const struct address_space_operations kmemfs_aops = {
	.read_folio = kmemfs_read_folio,
	.dirty_folio = noop_dirty_folio,
};
