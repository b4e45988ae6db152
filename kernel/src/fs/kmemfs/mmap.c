// SPDX-License-Identifier: GPL-2.0
/*
 * kmemfs: mapping files
 */

/**
 * DOC: mmap
 *
 * A folio has one mapping and one index, and a stored page may be in several
 * files. So a mapping shows page-cache copies of stored pages, filled on fault.
 * The table (table.c) has a file's content, but for dirty folios, which have what
 * was stored through a shared mapping since they were last written back to it.
 *
 * Before a folio becomes writable its page in the table is made one that no
 * commit and nobody else has. When it is written back later that may have changed;
 * so a dirty folio has a spare page (its private data), with what the commit needs
 * planned. So writing it back cannot lack space. A store that has none waits until all
 * dirty folios are written back, which gives their spares back, and then gets SIGBUS.
 *
 * Who changes the table holds invalidate_lock, so that no folio comes into being
 * meanwhile, and either removes the folios of what is replaced first, or, where
 * only a part of a page changes, holds the folio locked and clean, and fills it
 * anew (kmemfs_lock_cached()). Readers look for folios first.
 *
 * Lock order: i_rwsem, mmap_lock, invalidate_lock, folio, commit_sem, spinlock.
 */

#include <linux/backing-dev.h>
#include <linux/highmem.h>
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <linux/rmap.h>
#include <linux/uio.h>
#include <linux/writeback.h>
#include "kmemfs.h"

/* The table's content, or -EIO if that is damaged or lost. Caller holds the folio's lock. */
static int kmemfs_fill_folio(struct inode *inode, struct folio *folio)
{
	struct kmemfs *k = kmemfs_of(inode);
	u32 page;
	int r = 0;

	kmemfs_get_pages(KMEMFS_I(inode), folio->index, 1, &page);
	if (page) {
		r = kmemfs_copy_content(k, folio_page(folio, 0), page);
		pool_page_put(&k->region, page);
	} else if (KMEMFS_I(inode)->damaged) {
		r = -EIO;
	} else {
		clear_highpage(folio_page(folio, 0));
	}
	return r;
}

static int kmemfs_read_folio(struct file *file, struct folio *folio)
{
	int r = kmemfs_fill_folio(folio->mapping->host, folio);

	if (!r)
		folio_mark_uptodate(folio);
	folio_unlock(folio);
	return r;
}

/* A page that writing this folio back can use; the caller has locked it. 0 or -ENOSPC */
static int kmemfs_add_spare(struct inode *inode, struct folio *folio)
{
	struct kmemfs *k = kmemfs_of(inode);
	u32 page;
	int r;

	if (folio_test_private(folio))
		return 0;
	page = kmemfs_alloc_page(k, KMEMFS_GFP);
	if (!page)
		return -ENOSPC;
	r = kmemfs_plan(inode, 1, KMEMFS_ADDS);
	if (r) {
		pool_page_put(&k->region, page);
		return r;
	}
	folio_attach_private(folio, (void *)(unsigned long)page);
	atomic64_inc(&k->spares);
	return 0;
}

/* The folio has none any more */
static u32 kmemfs_detach_spare(struct inode *inode, struct folio *folio)
{
	atomic64_dec(&kmemfs_of(inode)->spares);
	return (unsigned long)folio_detach_private(folio);
}

static void kmemfs_drop_spare(struct inode *inode, struct folio *folio)
{
	if (!folio_test_private(folio))
		return;
	pool_page_put(&kmemfs_of(inode)->region, kmemfs_detach_spare(inode, folio));
	kmemfs_unplan(inode, 1);
}

static void kmemfs_invalidate_folio(struct folio *folio, size_t offset, size_t len)
{
	if (len == folio_size(folio))
		kmemfs_drop_spare(folio->mapping->host, folio);
}

static bool kmemfs_release_folio(struct folio *folio, gfp_t gfp)
{
	if (folio_test_dirty(folio) || folio_test_writeback(folio))
		return false;
	kmemfs_drop_spare(folio->mapping->host, folio);
	return true;
}

/* Bring the table up to date with a locked folio that is not mapped writable any more */
static int kmemfs_write_folio(struct inode *inode, struct folio *folio)
{
	loff_t pos = folio_pos(folio), size = i_size_read(inode);
	u32 spare = (unsigned long)folio_get_private(folio);
	int r;

	/* what was stored beyond the end must read as zero if the file grows */
	if (size < pos + PAGE_SIZE)
		folio_zero_segment(folio, size > pos ? size - pos : 0, PAGE_SIZE);
	r = kmemfs_store_page(inode, folio->index, folio_address(folio), spare);
	if (r > 0)
		kmemfs_detach_spare(inode, folio);
	else if (!r)
		kmemfs_drop_spare(inode, folio);
	return min(r, 0);
}

static int kmemfs_writepages(struct address_space *mapping, struct writeback_control *wbc)
{
	struct folio *folio = NULL;
	int error = 0;

	while ((folio = writeback_iter(mapping, wbc, folio, &error))) {
		error = kmemfs_write_folio(mapping->host, folio);
		if (error) {
			/* there may be space later */
			mapping_set_error(mapping, error);
			folio_redirty_for_writepage(wbc, folio);
			folio_unlock(folio);
			continue;
		}
		folio_start_writeback(folio);
		folio_unlock(folio);
		folio_end_writeback(folio);
	}
	return error;
}

/* Most files have none. Who wants to know it of the next moment holds invalidate_lock. */
static bool kmemfs_has_folios(const struct inode *inode)
{
	return READ_ONCE(inode->i_mapping->nrpages);
}

/*
 * The folio of a file page if there is one, locked, and clean: the table has its
 * content, which stays so until kmemfs_unlock_cached(). NULL if there is none, and
 * none comes into being; or an error. Caller holds i_rwsem and invalidate_lock.
 */
struct folio *kmemfs_lock_cached(struct inode *inode, unsigned long index)
{
	struct folio *folio;
	int r;

	if (!kmemfs_has_folios(inode))
		return NULL;
	folio = filemap_lock_folio(inode->i_mapping, index);
	if (IS_ERR(folio))
		return NULL;
	folio_wait_writeback(folio);
	if (!folio_clear_dirty_for_io(folio))
		return folio;
	r = kmemfs_write_folio(inode, folio);
	if (r) {
		folio_mark_dirty(folio);
		folio_unlock(folio);
		folio_put(folio);
		return ERR_PTR(r);
	}
	folio_start_writeback(folio);	/* for the dirty tag */
	folio_end_writeback(folio);
	return folio;
}

/* The table has changed: show it. What is damaged there has not changed. */
void kmemfs_unlock_cached(struct inode *inode, struct folio *folio)
{
	if (!folio)
		return;
	kmemfs_fill_folio(inode, folio);
	flush_dcache_folio(folio);
	folio_unlock(folio);
	folio_put(folio);
}

/*
 * The file is about to grow: what is in its last page beyond the end, by stores
 * through mappings, must not appear. Caller holds i_rwsem and invalidate_lock.
 */
int kmemfs_clean_end(struct inode *inode)
{
	loff_t size = i_size_read(inode);
	struct folio *folio;

	if (PAGE_ALIGNED(size))
		return 0;
	folio = kmemfs_lock_cached(inode, size >> PAGE_SHIFT);
	if (IS_ERR(folio))
		return PTR_ERR(folio);
	kmemfs_unlock_cached(inode, folio);
	return 0;
}

/* Content comes to start at @pos. Caller holds i_rwsem. */
int kmemfs_write_begin(struct inode *inode, loff_t pos)
{
	int r;

	if (pos <= i_size_read(inode))
		return 0;
	filemap_invalidate_lock(inode->i_mapping);
	r = kmemfs_clean_end(inode);
	filemap_invalidate_unlock(inode->i_mapping);
	return r;
}

/*
 * [index, index + nr) gets other content as a whole, in @runs runs, until
 * kmemfs_replace_end(). Return 0, or an error if there is no space for it; nothing that
 * was stored through a mapping is lost then.
 */
int kmemfs_replace_begin(struct inode *inode, unsigned long index, unsigned long nr,
			 unsigned long runs)
{
	loff_t pos = (loff_t)index << PAGE_SHIFT, len = (loff_t)nr << PAGE_SHIFT;
	int r = 0;

	filemap_invalidate_lock(inode->i_mapping);
	if (kmemfs_any_cached(inode, pos, len))
		r = filemap_write_and_wait_range(inode->i_mapping, pos, pos + len - 1);
	if (!r) {
		kmemfs_drop_cached(inode, index, nr);
		r = kmemfs_begin(inode, runs, KMEMFS_ADDS);
	}
	if (r)
		filemap_invalidate_unlock(inode->i_mapping);
	return r;
}

void kmemfs_replace_end(struct inode *inode, unsigned long runs)
{
	kmemfs_end(inode, runs);
	filemap_invalidate_unlock(inode->i_mapping);
}

/* The same for who holds invalidate_lock */
void kmemfs_drop_cached(struct inode *inode, unsigned long index, unsigned long nr)
{
	loff_t from = (loff_t)index << PAGE_SHIFT;

	if (nr && kmemfs_has_folios(inode))
		truncate_pagecache_range(inode, from, from + ((loff_t)nr << PAGE_SHIFT) - 1);
}

/* Is there a folio for any page of the range? */
bool kmemfs_any_cached(struct inode *inode, loff_t pos, size_t len)
{
	return kmemfs_has_folios(inode) &&
	       filemap_range_has_page(inode->i_mapping, pos, pos + len - 1);
}

/* Read @len bytes within one page from its folio; -ENOENT: there is none */
ssize_t kmemfs_read_cached(struct inode *inode, loff_t pos, size_t len, struct iov_iter *to)
{
	struct folio *folio = filemap_get_folio(inode->i_mapping, pos >> PAGE_SHIFT);
	size_t done;

	if (IS_ERR(folio))
		return -ENOENT;
	if (!folio_test_uptodate(folio)) {
		folio_put(folio);
		return -ENOENT;
	}
	done = copy_folio_to_iter(folio, offset_in_folio(folio, pos), len, to);
	folio_put(folio);
	return done;
}

/*
 * A store lacks space: write back what was stored through mappings. Caller holds neither
 * invalidate_lock nor a folio. Not for write(2), which gets an error: those whose folios
 * became clean would have to find space again, or get SIGBUS.
 */
static void kmemfs_free_spares(struct inode *inode)
{
	filemap_flush(inode->i_mapping);
	try_to_writeback_inodes_sb(inode->i_sb, WB_REASON_FS_FREE_SPACE);
}

/* 0: the folio is locked and dirty; -EAGAIN: it is the file's no more; or another error */
static int kmemfs_make_writable(struct inode *inode, struct folio *folio)
{
	int r = 0;

	filemap_invalidate_lock_shared(inode->i_mapping);
	folio_lock(folio);
	if (folio->mapping != inode->i_mapping)
		r = -EAGAIN;
	else if (folio_pos(folio) >= i_size_read(inode))
		r = -ENXIO;
	else if (sb_rdonly(inode->i_sb))
		r = -EROFS;
	if (!r) {
		folio_wait_writeback(folio);
		r = kmemfs_own_page(inode, folio->index);
	}
	if (!r)
		r = kmemfs_add_spare(inode, folio);
	if (r)
		folio_unlock(folio);
	else
		folio_mark_dirty(folio);
	filemap_invalidate_unlock_shared(inode->i_mapping);
	return r;
}

static vm_fault_t kmemfs_page_mkwrite(struct vm_fault *vmf)
{
	struct file *file = vmf->vma->vm_file;
	struct folio *folio = page_folio(vmf->page);
	struct inode *inode = file_inode(file);
	int r;

	sb_start_pagefault(inode->i_sb);
	file_update_time(file);
	r = kmemfs_make_writable(inode, folio);
	if (r == -ENOSPC) {
		kmemfs_free_spares(inode);
		r = kmemfs_make_writable(inode, folio);
	}
	sb_end_pagefault(inode->i_sb);
	return vmf_fs_error(r);
}

static const struct vm_operations_struct kmemfs_vm_ops = {
	.fault = filemap_fault,
	.map_pages = filemap_map_pages,
	.page_mkwrite = kmemfs_page_mkwrite,
};

int kmemfs_mmap(struct file *file, struct vm_area_struct *vma)
{
	file_accessed(file);
	vma->vm_ops = &kmemfs_vm_ops;
	return 0;
}

const struct address_space_operations kmemfs_aops = {
	.read_folio = kmemfs_read_folio,
	.writepages = kmemfs_writepages,
	.dirty_folio = filemap_dirty_folio,
	.invalidate_folio = kmemfs_invalidate_folio,
	.release_folio = kmemfs_release_folio,
	.migrate_folio = filemap_migrate_folio,
	.error_remove_folio = generic_error_remove_folio,
};
