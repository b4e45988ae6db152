// SPDX-License-Identifier: GPL-2.0
/*
 * kmemfs: splice(2) from a pipe takes pages by reference
 */

/**
 * DOC: taking pages out of a pipe
 *
 * Who vmsplices memory into a pipe and splices that into a file wants it stored
 * without a copy. So whole pages of anonymous memory become pool pages where
 * they are (pool_take_pages()), and the file gets a reference, if they come to lie
 * on a page boundary of the file. The rest is written as write(2) would: parts of
 * pages, what files and sockets put into the pipe, and with byref=off everything.
 * A page that lies right but cannot be taken is copied into a fresh one.
 *
 * The pipe is worked off in batches: when the VFS hands over the first buffer of
 * a batch, all its pages are stored under one hold of i_rwsem, and the later
 * buffers of the batch are only ticked off. The pipe stays locked meanwhile: it is
 * unlocked, to wait for more, only when it is empty. SPLICE_F_GIFT and
 * SPLICE_F_MOVE make no difference.
 *
 * Locks: pipe, then i_rwsem, then those of pool_take_pages(), which never takes an
 * mmap_lock.
 */

#include <linux/bvec.h>
#include <linux/highmem.h>
#include <linux/pipe_fs_i.h>
#include <linux/slab.h>
#include <linux/splice.h>
#include <linux/uio.h>
#include "kmemfs.h"

/* Pages stored under one hold of i_rwsem */
#define KMEMFS_SPLICE_BATCH	256UL

/**
 * struct kmemfs_splice - a splice(2) into a file
 * @iocb: for the checks that each write needs
 * @stored: leading pages of the pipe that the file has already
 * @from: pages of a batch
 * @pages: what the file gets for them
 */
struct kmemfs_splice {
	struct kiocb iocb;
	unsigned long stored;
	struct page *from[KMEMFS_SPLICE_BATCH];
	u32 pages[KMEMFS_SPLICE_BATCH];
};

/*
 * Buffers at the head of the pipe that are whole pages: fill @s->from, return how
 * many. What must be confirmed first belongs to a file and is nothing to take.
 */
static unsigned long kmemfs_splice_look(struct kmemfs_splice *s,
					const struct pipe_inode_info *pipe,
					const struct splice_desc *sd)
{
	unsigned long nr = 0, most = min(sd->total_len >> PAGE_SHIFT, KMEMFS_SPLICE_BATCH);
	unsigned int tail;

	if (!PAGE_ALIGNED(sd->pos))
		return 0;
	for (tail = pipe->tail; nr < most && !pipe_empty(pipe->head, tail); tail++) {
		const struct pipe_buffer *buf = &pipe->bufs[tail & (pipe->ring_size - 1)];

		if (buf->offset || buf->len != PAGE_SIZE || buf->ops->confirm)
			break;
		s->from[nr++] = buf->page;
	}
	return nr;
}

static int kmemfs_splice_copy(struct kmemfs *k, struct page *from, u32 *page)
{
	u32 to = kmemfs_alloc_page(k, KMEMFS_GFP);

	if (!to)
		return -ENOSPC;
	if (copy_mc_highpage(kmemfs_page(k, to), from)) {
		pool_page_put(&k->region, to);
		return -EIO;
	}
	*page = to | POOL_PAGE_NEW;
	return 0;
}

/* Fill @s->pages for @nr pages of @s->from. Return how many it was possible for, or an error. */
static long kmemfs_splice_take(struct kmemfs *k, struct kmemfs_splice *s, unsigned long nr)
{
	unsigned long i, copied = 0, fresh = 0;
	int r = 0;

	if (READ_ONCE(k->byref))
		pool_take_pages(&k->region, s->from, nr, s->pages);
	else
		memset(s->pages, 0, nr * sizeof(*s->pages));
	for (i = 0; i < nr; i++) {
		if (!s->pages[i]) {
			r = kmemfs_splice_copy(k, s->from[i], &s->pages[i]);
			if (r)
				break;
			copied++;
		} else if (s->pages[i] & POOL_PAGE_NEW) {
			fresh++;
		}
	}
	pool_pages_put(&k->region, s->pages + i, nr - i);
	kmemfs_count(k, KMEMFS_SPLICED_BY_REFERENCE, fresh);
	kmemfs_count(k, KMEMFS_SPLICED_SHARED, i - fresh - copied);
	kmemfs_count(k, KMEMFS_SPLICED_COPIED, copied);
	return i ?: r;
}

/*
 * What write(2) checks and does before it writes. Makes *@nr smaller if the file may
 * not become so large. Caller holds i_rwsem.
 */
static int kmemfs_splice_begin(struct inode *inode, struct kmemfs_splice *s, loff_t pos,
			       unsigned long *nr)
{
	loff_t bytes = (loff_t)*nr << PAGE_SHIFT;
	int r;

	r = kmemfs_writable(inode);
	if (r)
		return r;
	s->iocb.ki_pos = pos;
	r = generic_write_checks_count(&s->iocb, &bytes);
	*nr = bytes >> PAGE_SHIFT;
	if (r || !*nr)
		return r;
	r = file_modified(s->iocb.ki_filp);
	if (!r)
		r = kmemfs_write_begin(inode, pos);
	return r ?: kmemfs_prepare(KMEMFS_I(inode), pos >> PAGE_SHIFT, *nr);
}

/* Store @nr whole pages at @pos. Return how many were stored, 0 if not even one may be. */
static long kmemfs_splice_batch(struct inode *inode, struct kmemfs_splice *s, loff_t pos,
				unsigned long nr)
{
	struct kmemfs *k = kmemfs_of(inode);
	unsigned long index = pos >> PAGE_SHIFT, runs;
	int error;
	long r;

	inode_lock(inode);
	r = kmemfs_splice_begin(inode, s, pos, &nr);
	if (!r && nr)
		r = kmemfs_splice_take(k, s, nr);
	if (r <= 0)
		goto out;
	runs = kmemfs_count_runs(s->pages, r);
	error = kmemfs_may_hold(k, s->pages, r) ? 0 : -ENOSPC;
	if (!error)
		error = kmemfs_replace_begin(inode, index, r, runs);
	if (error) {
		pool_pages_put(&k->region, s->pages, r);
		r = error;
		goto out;
	}
	kmemfs_set_entries(KMEMFS_I(inode), index, r, s->pages);
	if (pos + ((loff_t)r << PAGE_SHIFT) > i_size_read(inode))
		i_size_write(inode, pos + ((loff_t)r << PAGE_SHIFT));
	kmemfs_replace_end(inode, runs);
out:
	inode_unlock(inode);
	return r;
}

/* Called for one pipe buffer after the other. Return bytes of it that the file has now. */
static int kmemfs_splice_actor(struct pipe_inode_info *pipe, struct pipe_buffer *buf,
			       struct splice_desc *sd)
{
	struct kmemfs_splice *s = sd->u.data;
	struct file *file = s->iocb.ki_filp;
	struct iov_iter from;
	struct bio_vec bv;
	unsigned long nr;
	ssize_t done;

	if (!s->stored) {
		nr = kmemfs_splice_look(s, pipe, sd);
		done = nr ? kmemfs_splice_batch(file_inode(file), s, sd->pos, nr) : 0;
		if (done < 0)
			return done;
		s->stored = done;
	}
	if (s->stored) {
		s->stored--;
		return PAGE_SIZE;
	}
	bvec_set_page(&bv, buf->page, sd->len, buf->offset);
	iov_iter_bvec(&from, ITER_SOURCE, &bv, 1, sd->len);
	s->iocb.ki_pos = sd->pos;
	done = file->f_op->write_iter(&s->iocb, &from);
	if (done > 0)
		kmemfs_count(kmemfs_of(file_inode(file)), KMEMFS_SPLICED_COPIED, 1);
	return done;
}

ssize_t kmemfs_splice_write(struct pipe_inode_info *pipe, struct file *out, loff_t *ppos,
			    size_t len, unsigned int flags)
{
	struct splice_desc sd = { .total_len = len, .flags = flags, .pos = *ppos };
	struct kmemfs_splice *s = kmalloc(sizeof(*s), GFP_KERNEL);
	ssize_t done;

	if (!s)
		return -ENOMEM;
	init_sync_kiocb(&s->iocb, out);
	s->stored = 0;
	sd.u.data = s;
	pipe_lock(pipe);
	done = __splice_from_pipe(pipe, &sd, kmemfs_splice_actor);
	pipe_unlock(pipe);
	if (done > 0) {
		*ppos += done;
		s->iocb.ki_pos = *ppos;
		done = generic_write_sync(&s->iocb, done);
	}
	kfree(s);
	return done;
}
