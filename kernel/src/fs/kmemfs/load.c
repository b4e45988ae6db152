// SPDX-License-Identifier: GPL-2.0
/*
 * kmemfs: from the committed tree to inodes and names, and their end
 */

#define pr_fmt(fmt) "kmemfs: " fmt

#include <linux/dcache.h>
#include <linux/mm.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>
#include "load.h"

static bool kmemfs_load_fits(struct kmemfs_loading *l, u64 bytes, u64 most)
{
	if (atomic64_add_return(bytes, &l->k->table_bytes) <= most)
		return true;
	kmemfs_uncharge_table(l->k, bytes);
	return false;
}

/*
 * Account for memory that is about to be taken. What a device leads to may be more than
 * there is: then rather no mount than the out-of-memory killer.
 */
int kmemfs_load_charge(struct kmemfs_loading *l, u64 bytes)
{
	if (kmemfs_load_fits(l, bytes, l->most))
		return 0;
	pr_err("%s: not mounted: inodes and page tables of its files need more than %llu MiB of memory\n",
	       l->k->kp->name, l->most >> 20);
	return -ENOMEM;
}

/* The attributes of the inode that was visited last */
static int kmemfs_load_xattr_page(struct kmemfs_loading *l, const struct kmemfs_xattrs *page)
{
	u32 len = le32_to_cpu(page->head.nr);
	int r = kmemfs_load_charge(l, kmemfs_xattrs_memory(len));

	if (r)
		return r;
	l->ki->xattrs_lost = false;
	return kmemfs_load_xattrs(l->ki, page->bytes, len);
}

/* Remember where the inode table is, to free its pages when they are replaced */
static int kmemfs_load_meta(void *ctx, __u64 page, enum kmemfs_page_kind kind, __u32 level)
{
	struct kmemfs_loading *l = ctx;
	const struct kmemfs_page_head *head = l->media.page(&l->media, page);
	struct kmemfs *k = l->k;
	bool sums;

	if (!head)
		return -EUCLEAN;
	if (kind == KMEMFS_KIND_INODES) {
		kmemfs_reserve_count(k, 1, 0);
		return xa_err(xa_store(&k->itable.leaves,
				       KMEMFS_LEAF(le64_to_cpu(head->first)),
				       xa_mk_value(page), GFP_KERNEL));
	}
	if (kind == KMEMFS_KIND_XATTRS)
		return kmemfs_load_xattr_page(l, (const void *)head);
	sums = kmemfs_is_sums_page(k, page, kind);
	k->sums.nr_pages += sums;
	if (kind != KMEMFS_KIND_INDEX)
		return 0;
	if (sums)
		return kmemfs_load_index(&k->sums.table, level, le64_to_cpu(head->first), page);
	if (le64_to_cpu(head->owner) != KMEMFS_OWNER_INODES)
		return 0;
	return kmemfs_load_index(&k->itable, level, le64_to_cpu(head->first), page);
}

/* Those for which there is no memory stay on media, so that files can be changed all the same */
static int kmemfs_load_sums_page(void *ctx, __u64 leaf, __u64 page, const struct kmemfs_sums *sums)
{
	struct kmemfs_loading *l = ctx;

	const bool charged = !kmemfs_charge_table(l->k, kmemfs_sums_memory());
	bool held = charged;
	int r = kmemfs_load_sums(l->k, leaf, page, sums, &held);

	if (charged && (r || !held))
		kmemfs_uncharge_table(l->k, kmemfs_sums_memory());
	l->sums_left_out += !held;
	return r;
}

/* A page of the tree of l->ki, of which the runs come if @level is 0 */
static int kmemfs_load_segment(void *ctx, __u64 ino, __u64 page, __u32 level, __u64 file_page,
			       __u64 count, __u32 nr)
{
	struct kmemfs_loading *l = ctx;
	const struct kmemfs_page_head *head = l->media.page(&l->media, page);

	l->summed = head && le64_to_cpu(head->generation) <= kmemfs_sums_hold_to(&l->k->root);
	return 0;
}

/* The same, of a tree that will be changed */
static int kmemfs_load_piece(void *ctx, __u64 ino, __u64 page, __u32 level, __u64 file_page,
			     __u64 count, __u32 nr)
{
	const struct kmemfs_piece piece = {
		.start = file_page,
		.end = file_page + count,
		.page = page,
		.nr = nr,
	};
	struct kmemfs_loading *l = ctx;
	int r;

	if (!l->rope) {
		r = kmemfs_load_charge(l, sizeof(*l->rope));
		if (r)
			return r;
		l->rope = kzalloc(sizeof(*l->rope), GFP_KERNEL);
		if (!l->rope)
			return -ENOMEM;
		r = xa_err(xa_store(&l->k->ropes, ino, l->rope, GFP_KERNEL));
		if (r) {
			kfree(l->rope);
			return r;
		}
		l->rope->height = l->ki->tree.height;
	}
	r = kmemfs_load_charge(l, kmemfs_rope_growth(l->rope, level));
	if (!r)
		r = kmemfs_rope_add(l->rope, level, &piece);
	if (r)
		return r;
	l->ki->tree.own++;
	if (xa_load(&l->k->shared, page))
		l->shared = true;
	if (level == l->rope->height && l->shared)
		l->ki->tree.own = 0;
	return r ?: kmemfs_load_segment(ctx, ino, page, level, file_page, count, nr);
}

/* The same, of a tree that need not hold, whose pages may be reached for minutes */
static int kmemfs_load_segment_rescue(void *ctx, __u64 ino, __u64 page, __u32 level,
				      __u64 file_page, __u64 count, __u32 nr)
{
	if (fatal_signal_pending(current))
		return -EINTR;
	cond_resched();
	return kmemfs_load_segment(ctx, ino, page, level, file_page, count, nr);
}

/* All that a tree which will not be committed must give */
static int kmemfs_load_meta_rescue(void *ctx, __u64 page, enum kmemfs_page_kind kind, __u32 level)
{
	struct kmemfs_loading *l = ctx;

	/* so that the walk knows when it has come the same ways too often */
	if (kind == KMEMFS_KIND_SEGMENT || kind == KMEMFS_KIND_NODE)
		return l->reached && __test_and_set_bit(page, l->reached) ? KMEMFS_SEEN : 0;
	if (kind != KMEMFS_KIND_XATTRS)
		return 0;
	return kmemfs_load_xattr_page(l, l->media.page(&l->media, page));
}

static int kmemfs_load_inode(void *ctx, const struct kmemfs_inode_record *record)
{
	struct kmemfs_loading *l = ctx;
	u64 ino = le64_to_cpu(record->ino);
	struct kmemfs_inode *ki;
	struct inode *inode;
	int r;

	if (ino > INT_MAX)
		return -EOVERFLOW;	/* no such number was given out here */
	r = kmemfs_load_charge(l, KMEMFS_INODE_BYTES +
				  kmemfs_xattrs_memory(le16_to_cpu(record->xattr_len)));
	if (r)
		return r;
	inode = kmemfs_new_inode(l->sb, &nop_mnt_idmap, NULL, le32_to_cpu(record->mode), ino);
	if (!inode)
		return -ENOMEM;
	ki = KMEMFS_I(inode);
	r = kmemfs_read_record(ki, record);
	if (!r)
		r = xa_err(xa_store(&l->k->inodes, ino, ki, GFP_KERNEL));
	if (r) {
		iput(inode);
		return r;
	}
	l->ki = ki;
	l->next_chunk = 0;
	l->rope = NULL;
	l->shared = false;
	l->summed = false;
	if (l->k->root.version == 1)
		ki->tree.own = kmemfs_extents_pages(ki->tree.nr_runs);
	r = ida_alloc_range(&l->k->inos, ino, ino, GFP_KERNEL);
	return r < 0 ? r : 0;
}

static int kmemfs_load_link(void *ctx, const struct kmemfs_inode_record *record)
{
	struct kmemfs_loading *l = ctx;
	u64 slot = le64_to_cpu(record->ino);
	struct kmemfs_name *n;
	int r;

	if (slot > INT_MAX)
		return -EOVERFLOW;
	r = kmemfs_load_charge(l, KMEMFS_NAME_BYTES);
	if (r)
		return r;
	n = kmemfs_new_name(record->name, record->name_len, le64_to_cpu(record->parent));
	if (!n)
		return -ENOMEM;
	n->target = le64_to_cpu(record->target);
	n->slot = slot;
	r = xa_err(xa_store(&l->k->links, slot, n, GFP_KERNEL));
	if (r) {
		kmemfs_free_name(n);
		return r;
	}
	r = ida_alloc_range(&l->k->inos, slot, slot, GFP_KERNEL);
	return r < 0 ? r : 0;
}

static int kmemfs_load_visit_run(void *ctx, __u64 ino, __u64 file_page, __u64 count, __u64 page)
{
	u64 end_chunk = ((file_page + count - 1) >> KMEMFS_CHUNK_SHIFT) + 1;
	u64 first_chunk = file_page >> KMEMFS_CHUNK_SHIFT;
	struct kmemfs_loading *l = ctx;
	u64 bytes;
	int r;

	if (l->rope)
		l->rope->level[0].piece[l->rope->level[0].nr - 1].runs++;
	first_chunk = max(first_chunk, l->next_chunk);
	bytes = (end_chunk - first_chunk) * sizeof(struct kmemfs_chunk);
	/* a quarter is for inodes */
	if (l->k->rescue && !kmemfs_load_fits(l, bytes, l->most / 4 * 3))
		return kmemfs_rescue_no_memory(l, file_page);
	l->next_chunk = end_chunk;
	r = l->k->rescue ? 0 : kmemfs_load_charge(l, bytes);
	if (!r)
		r = kmemfs_load_run(l->ki, file_page, count, page);
	if (!r)
		kmemfs_name_damage(l->ki, file_page, count, page);
	if (!r && l->summed)
		kmemfs_sums_count_for(l->k, page, count);
	return r;
}

/* A tree that has been verified has lost no more than checksums */
static int kmemfs_load_damage(void *ctx, __u64 page, __u64 ino, __u64 file_page, __u64 count,
			      const char *why)
{
	struct kmemfs_loading *l = ctx;

	if (ino != KMEMFS_INO_SUMS)
		return -EUCLEAN;
	return kmemfs_rescue_damage(ctx, page, ino, file_page, count, why) ?:
	       kmemfs_lose_sums(l->k, file_page, count);
}

static const struct kmemfs_visitor kmemfs_load_visitor = {
	.meta = kmemfs_load_meta,
	.inode = kmemfs_load_inode,
	.link = kmemfs_load_link,
	.run = kmemfs_load_visit_run,
	.segment = kmemfs_load_piece,
	.sums = kmemfs_load_sums_page,
	.damage = kmemfs_load_damage,
};

static const struct kmemfs_visitor kmemfs_rescue_visitor = {
	.meta = kmemfs_load_meta_rescue,
	.inode = kmemfs_load_inode,
	.link = kmemfs_load_link,
	.run = kmemfs_load_visit_run,
	.segment = kmemfs_load_segment_rescue,
	.sums = kmemfs_load_sums_page,
	.damage = kmemfs_rescue_damage,
};

/* A directory that media does not have, root's alone; in the root directory, or that itself */
struct kmemfs_inode *kmemfs_load_directory(struct kmemfs_loading *l, u64 ino, const char *name)
{
	struct kmemfs_inode *ki;
	struct kmemfs_name *n;
	struct inode *inode;
	int r;

	r = kmemfs_load_charge(l, KMEMFS_INODE_BYTES);
	if (r)
		return ERR_PTR(r);
	inode = kmemfs_new_inode(l->sb, &nop_mnt_idmap, NULL, S_IFDIR | 0700, ino);
	if (!inode)
		return ERR_PTR(-ENOMEM);
	inode->i_uid = GLOBAL_ROOT_UID;
	inode->i_gid = GLOBAL_ROOT_GID;
	ki = KMEMFS_I(inode);
	ki->btime = simple_inode_init_ts(inode);
	n = kmemfs_new_name(name, strlen(name), KMEMFS_ROOT_INO);
	if (n)
		kmemfs_add_name(ki, n);
	r = n ? xa_err(xa_store(&l->k->inodes, ino, ki, GFP_KERNEL)) : -ENOMEM;
	if (!r)
		return ki;
	iput(inode);
	return ERR_PTR(r);
}

static int kmemfs_load_root(struct kmemfs_loading *l)
{
	return PTR_ERR_OR_ZERO(kmemfs_load_directory(l, KMEMFS_ROOT_INO, ""));
}

/* The root directory of a pool that has never had a commit */
static int kmemfs_load_empty(struct kmemfs_loading *l)
{
	int r = kmemfs_load_root(l);

	if (r)
		return r;
	r = xa_err(xa_store(&l->k->itable.leaves, 0, xa_mk_value(0), GFP_KERNEL));
	if (!r)
		kmemfs_reserve_count(l->k, 1, 1);
	l->k->reserve.span = 1;
	xa_set_mark(&l->k->itable.leaves, 0, KMEMFS_LEAF_DIRTY);
	return r;
}

static struct kmemfs_name *kmemfs_first_name(const struct kmemfs_inode *ki)
{
	return list_first_entry(&ki->names, struct kmemfs_name, list);
}

/* Give a name its dentry; its directory has one */
int kmemfs_load_name(struct kmemfs_loading *l, struct kmemfs_name *n)
{
	struct kmemfs_inode *dir = xa_load(&l->k->inodes, n->parent);
	struct dentry *parent = d_find_any_alias(&dir->vfs), *dentry = NULL;
	struct inode *inode = &n->ki->vfs;

	if (!l->k->rescue || !kmemfs_rescue_name(l, parent, n))
		dentry = d_alloc_name(parent, n->name);
	dput(parent);
	if (!dentry)
		return -ENOMEM;
	dentry->d_fsdata = n;
	d_add(dentry, inode);
	if (S_ISDIR(inode->i_mode))
		inc_nlink(&dir->vfs);
	return 0;
}

/* The directory that a name is in; of a tree that has been verified it is there */
static struct kmemfs_inode *kmemfs_load_parent(struct kmemfs_loading *l, struct kmemfs_name *n)
{
	return l->k->rescue ? kmemfs_rescue_parent(l, n) : xa_load(&l->k->inodes, n->parent);
}

/* A further name, of an inode that has its first one */
static int kmemfs_load_further(struct kmemfs_loading *l, struct kmemfs_name *n)
{
	struct kmemfs_inode *ki = xa_load(&l->k->inodes, n->target), *dir;
	int r;

	if (!ki || S_ISDIR(ki->vfs.i_mode)) {	/* only of a tree that does not hold */
		kmemfs_rescue_no_target(l, n);
		xa_erase(&l->k->links, n->slot);
		kmemfs_free_name(n);
		return 0;
	}
	dir = kmemfs_load_parent(l, n);
	if (IS_ERR(dir))
		return PTR_ERR(dir);
	kmemfs_add_name(ki, n);
	inc_nlink(&ki->vfs);
	ihold(&ki->vfs);
	r = kmemfs_load_name(l, n);
	if (r)
		iput(&ki->vfs);
	return r;
}

/* Name an inode and all above it, top down: they lead to the root. */
static int kmemfs_load_path(struct kmemfs_loading *l, struct kmemfs_inode *ki)
{
	struct kmemfs_inode *below = NULL;
	int r;

	while (!kmemfs_has_name(ki)) {
		ki->passed = true;
		ki->below = below;
		below = ki;
		ki = kmemfs_load_parent(l, kmemfs_first_name(ki));
		if (IS_ERR(ki))
			return PTR_ERR(ki);
	}
	for (ki = below; ki; ki = ki->below) {
		r = kmemfs_load_name(l, kmemfs_first_name(ki));
		if (r)
			return r;
	}
	return 0;
}

static int kmemfs_load_names(struct kmemfs_loading *l)
{
	struct kmemfs *k = l->k;
	struct kmemfs_inode *ki = xa_load(&k->inodes, KMEMFS_ROOT_INO);
	struct super_block *sb = l->sb;
	unsigned long ino, slot;
	struct kmemfs_name *n;
	int r;

	ihold(&ki->vfs);	/* d_make_root() drops it when it fails */
	sb->s_root = d_make_root(&ki->vfs);
	if (!sb->s_root)
		return -ENOMEM;
	iput(&ki->vfs);
	xa_for_each(&k->inodes, ino, ki) {
		r = kmemfs_load_path(l, ki);
		if (r)
			return r;
		cond_resched();
	}
	xa_for_each(&k->links, slot, n) {
		r = kmemfs_load_further(l, n);
		if (r)
			return r;
		cond_resched();
	}
	return 0;
}

/* Inodes that never got a name would be left behind, and names without an inode */
static void kmemfs_drop_nameless(struct kmemfs *k)
{
	struct kmemfs_inode *ki;
	struct kmemfs_name *n;
	unsigned long ino;

	xa_for_each(&k->links, ino, n) {
		xa_erase(&k->links, ino);
		if (list_empty(&n->list))
			kmemfs_free_name(n);
	}
	xa_for_each(&k->inodes, ino, ki) {
		if (!kmemfs_has_name(ki)) {
			xa_erase(&k->inodes, ino);
			iput(&ki->vfs);
		}
	}
}

/* What there is of a tree that does not hold */
static int kmemfs_load_rescue(struct kmemfs_loading *l, struct kmem_persist_why *why)
{
	int r;

	l->reached = vzalloc(BITS_TO_LONGS(l->k->region.end) * sizeof(long));
	/* what has been reached has been found to hold */
	r = kmemfs_walk_checked(&l->media, &l->k->root, &kmemfs_rescue_visitor, l, why,
				l->reached);
	vfree(l->reached);
	if (!r && !xa_load(&l->k->inodes, KMEMFS_ROOT_INO))
		r = kmemfs_load_root(l);
	return r ?: kmemfs_load_names(l);
}

static int kmemfs_load_tree(struct kmemfs_loading *l, struct kmem_persist_why *why)
{
	struct kmemfs *k = l->k;
	int r;

	if (k->root.itable)
		r = kmemfs_walk(&l->media, &k->root, &kmemfs_load_visitor, l, why);
	else
		r = kmemfs_load_empty(l);
	k->itable.span = k->root.nr_inode_pages;
	k->sums.table.span = k->root.nr_sums_pages;
	if (k->root.itable)
		kmemfs_reserve_committed(k, k->itable.nr_index, k->root.nr_inode_pages, 0);
	return r ?: kmemfs_load_names(l);
}

/* Make inodes and names of the committed tree. On failure kmemfs_unload() cleans up. */
int kmemfs_load(struct kmemfs *k, struct super_block *sb)
{
	struct kmemfs_loading l = {
		.k = k,
		.sb = sb,
		.most = kmemfs_max_table_bytes(k, true),
	};
	struct kmem_persist_why why = {};
	int r;

	xa_init(&l.lost);
	kmemfs_media_init(k, &l.media);
	r = k->rescue ? kmemfs_load_rescue(&l, &why) : kmemfs_load_tree(&l, &why);
	kmemfs_sums_loaded(k, r);
	kmemfs_rescue_done(&l);
	if (!r && l.sums_left_out)
		pr_warn("%s: there is no memory for the checksums of %lu MiB: read from the device in this mount, and not made anew for what changes\n",
			k->kp->name,
			(l.sums_left_out * KMEMFS_SUMS_PER_PAGE) >> (20 - PAGE_SHIFT));
	if (r == -EUCLEAN)
		pr_err("%s: %s\n", k->kp->name, why.text);
	if (r)
		kmemfs_drop_nameless(k);
	else if (!k->rescue && !kmemfs_reserve_fill(k))
		pr_warn("%s: processes have the node's memory: no pages to put aside for commits, which may lack them until there are some\n",
			k->kp->name);
	return r;
}

/* All inodes are gone; what the last commit refers to stays */
void kmemfs_unload(struct kmemfs *k)
{
	struct kmemfs_rope *rope;
	LIST_HEAD(pending);
	unsigned long ino;

	kmemfs_take_pending(k, &pending);
	kmemfs_put_pending(k, &pending, false);
	kmemfs_reserve_drop(k);
	kmemfs_limit_exit(k);
	kmemfs_table_destroy(&k->itable);
	kmemfs_sums_exit(k);
	xa_destroy(&k->inodes);
	xa_destroy(&k->links);
	ida_destroy(&k->inos);
	xa_for_each(&k->ropes, ino, rope)
		kmemfs_free_rope(rope);
	xa_destroy(&k->ropes);
	k->dirty = false;
}
