// SPDX-License-Identifier: GPL-2.0
/*
 * kmemfs: mounting
 */

/**
 * DOC: kmemfs
 *
 * A filesystem in the memory of one DAX KMEM device, which is ordinary memory
 * of its NUMA node at the same time. A stored page is an allocated page on
 * which the files that have it hold references; free space is free memory.
 *
 * A file can take the private pages of a task by reference (ioctl.c), and
 * reading a file into untouched memory gives the page to the reader (file.c),
 * both copy-on-write. Nothing is durable until a commit (commit.c); attaching
 * (persist.c) brings back the last one, mounting (load.c) shows it.
 *
 * A struct kmemfs belongs to the attached device and outlives its mounts.
 */

#define pr_fmt(fmt) "kmemfs: " fmt

#include <linux/backing-dev.h>
#include <linux/fs_context.h>
#include <linux/fs_parser.h>
#include <linux/module.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/statfs.h>
#include "kmemfs.h"

#define KMEMFS_COMMIT_INTERVAL	30	/* seconds */

static struct kmem_cache *kmemfs_inode_cache;
struct kmem_cache *kmemfs_chunk_cache;

/* There is something to commit */
void kmemfs_changed(struct kmemfs *k)
{
	unsigned int interval;

	if (READ_ONCE(k->dirty))
		return;
	WRITE_ONCE(k->dirty, true);
	interval = READ_ONCE(k->commit_interval);
	if (interval)
		queue_delayed_work(system_unbound_wq, &k->commit_work, interval * HZ);
}

/* What is stored cannot be trusted any more: what the last commit has shall stay as it is */
void kmemfs_stop(struct kmemfs *k, const char *what, const char *why)
{
	if (k->failed)
		return;
	WRITE_ONCE(k->failed, true);
	k->sb->s_flags |= SB_RDONLY;
	pr_crit("%s: %s: %s; read-only from now on, generation %llu stays the last\n",
		k->kp->name, what, why, k->root.generation);
}

void kmemfs_fail(struct kmemfs *k, const char *why)
{
	kmemfs_stop(k, "committed metadata is damaged", why);
}

/* For those who have a file open since before it failed */
int kmemfs_writable(const struct inode *inode)
{
	return READ_ONCE(kmemfs_of(inode)->failed) ? -EROFS : 0;
}

static void kmemfs_commit_work(struct work_struct *work)
{
	struct kmemfs *k = container_of(to_delayed_work(work), struct kmemfs, commit_work);
	int r = kmemfs_commit_all(k);

	if (r && r != -EROFS)
		pr_err_ratelimited("%s: commit failed (%d), the last one still holds\n",
				   k->kp->name, r);
}

/* ---- super block operations ---------------------------------------------- */

static struct inode *kmemfs_alloc_inode(struct super_block *sb)
{
	struct kmemfs_inode *ki = alloc_inode_sb(sb, kmemfs_inode_cache, GFP_KERNEL);

	if (!ki)
		return NULL;
	xa_init(&ki->chunks);
	ki->nr_pages = 0;
	ki->max_runs = 0;
	ki->new_runs = 0;
	ki->planned_runs = 0;
	ki->reserved = 0;
	ki->data_dirty = false;
	ki->changes = 0;
	ki->tree = (struct kmemfs_tree_ref){};
	ki->new_tree = (struct kmemfs_tree_ref){};
	INIT_LIST_HEAD(&ki->names);
	RCU_INIT_POINTER(ki->xattrs, NULL);
	ki->xattrs_dirty = false;
	ki->xattrs_lost = false;
	ki->damaged = false;
	ki->passed = false;
	ki->xattr_pages = 0;
	ki->xattr_page = 0;
	ki->new_xattr_page = 0;
	ki->btime = (struct timespec64){};
	ki->below = NULL;
	return &ki->vfs;
}

static void kmemfs_free_inode(struct inode *inode)
{
	kmem_cache_free(kmemfs_inode_cache, KMEMFS_I(inode));
}

static void kmemfs_put_super(struct super_block *sb)
{
	struct kmemfs *k = KMEMFS_SB(sb);

	kmemfs_unload(k);
	k->sb = NULL;
	kmem_persist_put(k->kp);
}

static int kmemfs_sync_fs(struct super_block *sb, int wait)
{
	/* Without a root the names are gone, and so is what k->inodes leads to. */
	return wait && sb->s_root ? kmemfs_commit_all(KMEMFS_SB(sb)) : 0;
}

static int kmemfs_statfs(struct dentry *dentry, struct kstatfs *buf)
{
	struct kmemfs *k = KMEMFS_SB(dentry->d_sb);
	u64 limit = READ_ONCE(k->max_pages);

	buf->f_type = KMEMFS_SUPER_MAGIC;
	buf->f_bsize = PAGE_SIZE;
	buf->f_blocks = k->region.end - k->region.first;
	buf->f_bfree = kmemfs_free_pages(k);
	if (limit) {
		u64 held = kmemfs_held(k);

		buf->f_blocks = min(buf->f_blocks, limit);
		buf->f_bfree = min(buf->f_bfree, limit - min(held, limit));
	}
	buf->f_bavail = buf->f_bfree;
	buf->f_namelen = KMEMFS_NAME_MAX;
	buf->f_fsid = uuid_to_fsid(k->kp->header.uuid);
	return 0;
}

static int kmemfs_show_options(struct seq_file *m, struct dentry *root)
{
	struct kmemfs *k = KMEMFS_SB(root->d_sb);
	unsigned int interval = READ_ONCE(k->commit_interval);
	unsigned long reserve = READ_ONCE(k->reserve.data);
	u64 limit = READ_ONCE(k->max_pages);

	if (!READ_ONCE(k->byref))
		seq_puts(m, ",byref=off");
	if (interval != KMEMFS_COMMIT_INTERVAL)
		seq_printf(m, ",commit=%u", interval);
	if (limit)
		seq_printf(m, ",size=%lluk", limit << (PAGE_SHIFT - 10));
	if (reserve)
		seq_printf(m, ",reserve=%luk", reserve << (PAGE_SHIFT - 10));
	return 0;
}

static const struct super_operations kmemfs_sops = {
	.alloc_inode = kmemfs_alloc_inode,
	.free_inode = kmemfs_free_inode,
	.dirty_inode = kmemfs_dirty_inode,
	.drop_inode = generic_delete_inode,
	.evict_inode = kmemfs_evict_inode,
	.put_super = kmemfs_put_super,
	.sync_fs = kmemfs_sync_fs,
	.statfs = kmemfs_statfs,
	.show_options = kmemfs_show_options,
};

/* ---- mounting ------------------------------------------------------------- */

enum kmemfs_param { OPT_BYREF, OPT_COMMIT, OPT_SIZE, OPT_RESERVE };

static const struct constant_table kmemfs_param_byref[] = {
	{ "off", 0 },
	{ "on", 1 },
	{}
};

static const struct fs_parameter_spec kmemfs_param_spec[] = {
	fsparam_enum("byref", OPT_BYREF, kmemfs_param_byref),
	fsparam_u32("commit", OPT_COMMIT),
	fsparam_string("size", OPT_SIZE),
	fsparam_string("reserve", OPT_RESERVE),
	{}
};

/**
 * struct kmemfs_context - a mount being made
 * @kp: the device, until the super block has it
 * @given: bit per enum kmemfs_param: the option was given
 * @byref: option
 * @commit: option, seconds
 * @size: option, pages; or percent of the device
 * @reserve: option, the same
 */
struct kmemfs_context {
	struct kmem_persist *kp;
	unsigned long given;
	bool byref;
	unsigned int commit;
	struct kmemfs_amount {
		u64 pages;
		unsigned int percent;
	} size, reserve;
};

/* "512M" or "75%"; 0 is none */
static int kmemfs_parse_amount(struct fs_context *fc, struct fs_parameter *param,
			       struct kmemfs_amount *amount)
{
	char *rest;
	u64 value = memparse(param->string, &rest);

	*amount = (struct kmemfs_amount){};
	if (*rest == '%' && value && value <= 100) {
		amount->percent = value;
		rest++;
	} else {
		amount->pages = DIV_ROUND_UP_ULL(value, PAGE_SIZE);
	}
	if (*rest || rest == param->string)
		return invalfc(fc, "%s= takes bytes, with K, M, G or T, or percent of the device",
			       param->key);
	return 0;
}

static u64 kmemfs_amount(const struct kmemfs *k, const struct kmemfs_amount *amount)
{
	u64 total = k->region.end - k->region.first;

	return amount->percent ? max(1, total * amount->percent / 100) : amount->pages;
}

static int kmemfs_parse_param(struct fs_context *fc, struct fs_parameter *param)
{
	struct kmemfs_context *ctx = fc->fs_private;
	struct fs_parse_result result;
	int opt = fs_parse(fc, kmemfs_param_spec, param, &result);

	if (opt >= 0)
		ctx->given |= BIT(opt);
	switch (opt) {
	case OPT_BYREF:
		ctx->byref = result.uint_32;
		return 0;
	case OPT_COMMIT:
		if (result.uint_32 > 3600)
			return invalfc(fc, "commit= is at most 3600 seconds");
		ctx->commit = result.uint_32;
		return 0;
	case OPT_SIZE:
		return kmemfs_parse_amount(fc, param, &ctx->size);
	case OPT_RESERVE:
		return kmemfs_parse_amount(fc, param, &ctx->reserve);
	default:
		return opt;
	}
}

/* What a remount does not name stays: another one may have changed it meanwhile */
static void kmemfs_apply_options(struct kmemfs *k, const struct kmemfs_context *ctx,
				 unsigned long given)
{
	if (given & BIT(OPT_BYREF))
		WRITE_ONCE(k->byref, ctx->byref);
	if (given & BIT(OPT_COMMIT))
		WRITE_ONCE(k->commit_interval, ctx->commit);
	if (given & BIT(OPT_SIZE))
		kmemfs_limit_set(k, kmemfs_amount(k, &ctx->size));
}

static int kmemfs_fill_super(struct super_block *sb, struct fs_context *fc)
{
	struct kmemfs_context *ctx = fc->fs_private;
	struct kmemfs *k = KMEMFS_SB(sb);
	int i, r;

	r = super_setup_bdi(sb);
	if (r)
		return r;
	sb->s_bdi->ra_pages = 0;	/* filling a folio is a copy: nothing to do ahead */
	sb->s_bdi->io_pages = 0;

	sb->s_maxbytes = KMEMFS_MAX_FILE_PAGES << PAGE_SHIFT;
	sb->s_blocksize = PAGE_SIZE;
	sb->s_blocksize_bits = PAGE_SHIFT;
	sb->s_magic = KMEMFS_SUPER_MAGIC;
	sb->s_op = &kmemfs_sops;
	sb->s_xattr = kmemfs_xattr_handlers;
	sb->s_time_gran = 1;
	sb->s_time_min = div_s64(S64_MIN, NSEC_PER_SEC) + 1;
	sb->s_time_max = div_s64(S64_MAX, NSEC_PER_SEC) - 1;
	super_set_uuid(sb, k->kp->header.uuid, sizeof(k->kp->header.uuid));

	kmemfs_table_init(&k->itable, KMEMFS_OWNER_INODES);
	kmemfs_sums_init(k);
	xa_init(&k->ropes);
	xa_init(&k->inodes);
	xa_init(&k->links);
	ida_init(&k->inos);
	INIT_DELAYED_WORK(&k->commit_work, kmemfs_commit_work);
	kmemfs_reserve_init(&k->reserve);
	atomic64_set(&k->file_pages, 0);
	atomic64_set(&k->table_bytes, 0);
	for (i = 0; i < KMEMFS_NR_COUNTERS; i++)
		atomic64_set(&k->counter[i], 0);
	kmemfs_apply_options(k, ctx, ~0UL);
	/* What cannot be made durable is no better after a mount. */
	k->failed = READ_ONCE(k->kp->not_durable);
	if (k->failed) {
		sb->s_flags |= SB_RDONLY;
		warnfc(fc, "%s cannot make data durable: read-only until the next boot",
		       k->kp->name);
	}
	if (k->rescue) {
		k->failed = true;
		warnfc(fc, "what %s stores is damaged: read-only, to save what can be read",
		       k->kp->name);
	}
	k->version = k->root.version;
	if (kmemfs_is_v2(k))
		sb->s_flags |= SB_POSIXACL;
	k->sb = sb;
	ctx->kp = NULL;		/* put_super() has it, or kill_sb() */
	r = kmemfs_limit_init(k);
	if (!r)
		r = kmemfs_load(k, sb);
	/* which may be less than has been found */
	kmemfs_limit_set(k, k->max_pages);
	if (!r && !k->rescue)
		kmemfs_reserve_set_data(k, kmemfs_amount(k, &ctx->reserve));
	return r;
}

/* An option of a further mount that is another one's there; NULL if there is none */
static const char *kmemfs_other_option(const struct fs_context *fc)
{
	const struct kmemfs *k = KMEMFS_SB(fc->root->d_sb);
	const struct kmemfs_context *ctx = fc->fs_private;
	const unsigned long given = ctx->given;

	/* under s_umount, as whoever changes them */
	if ((fc->sb_flags ^ k->sb->s_flags) & SB_RDONLY)
		return sb_rdonly(k->sb) ? "rw" : "ro";
	if ((given & BIT(OPT_BYREF)) && ctx->byref != k->byref)
		return "byref=";
	if ((given & BIT(OPT_COMMIT)) && ctx->commit != k->commit_interval)
		return "commit=";
	if ((given & BIT(OPT_SIZE)) && kmemfs_amount(k, &ctx->size) != k->max_pages)
		return "size=";
	if ((given & BIT(OPT_RESERVE)) && kmemfs_amount(k, &ctx->reserve) != k->reserve.data)
		return "reserve=";
	return NULL;
}

/* The device is mounted already: its options are those of all mounts */
static int kmemfs_mounted_again(struct fs_context *fc)
{
	const char *other = kmemfs_other_option(fc);
	struct super_block *sb = fc->root->d_sb;

	if (!other)
		return 0;
	errorfc(fc, "%s is mounted already, with another %s: remount that to change it",
		KMEMFS_SB(sb)->kp->name, other);
	dput(fc->root);
	fc->root = NULL;
	deactivate_locked_super(sb);
	return -EBUSY;
}

static int kmemfs_get_tree(struct fs_context *fc)
{
	struct kmemfs_context *ctx = fc->fs_private;
	const struct kmemfs *k;
	const char *name;
	int r;

	if (!fc->source)
		return invalfc(fc, "no device given");
	name = kbasename(fc->source);
	ctx->kp = kmem_persist_get(name, KMEM_PERSIST_FS);
	if (!ctx->kp) {
		errorfc(fc, "%s is not an attached device with a kmemfs pool", name);
		return -ENODEV;
	}
	k = ctx->kp->private;
	if (k->rescue && !(fc->sb_flags & SB_RDONLY)) {
		errorfc(fc, "what %s stores is damaged, see the kernel's log: mount it read-only",
			name);
		return -EROFS;
	}
	r = get_tree_keyed(fc, kmemfs_fill_super, ctx->kp->private);
	/* a new mount has taken it over */
	return !r && ctx->kp ? kmemfs_mounted_again(fc) : r;
}

static int kmemfs_reconfigure(struct fs_context *fc)
{
	struct kmemfs *k = KMEMFS_SB(fc->root->d_sb);
	struct kmemfs_context *ctx = fc->fs_private;
	int r = 0;

	if (READ_ONCE(k->failed) && !(fc->sb_flags & SB_RDONLY)) {
		errorfc(fc, "%s, see the kernel's log", READ_ONCE(k->kp->not_durable) ?
			"the device cannot make data durable" : "what is stored is damaged");
		return -EROFS;
	}
	if ((ctx->given & BIT(OPT_SIZE)) && !k->max_pages != !kmemfs_amount(k, &ctx->size))
		return invalfc(fc, "size= cannot be introduced or dropped by a remount");
	if (fc->sb_flags & SB_RDONLY)
		r = sync_filesystem(fc->root->d_sb);
	if (r)
		return r;
	kmemfs_apply_options(k, ctx, ctx->given);
	if (!k->rescue && (ctx->given & BIT(OPT_RESERVE)))
		kmemfs_reserve_set_data(k, kmemfs_amount(k, &ctx->reserve));
	/* What has changed before is due at the new time. */
	if (k->commit_interval && READ_ONCE(k->dirty))
		mod_delayed_work(system_unbound_wq, &k->commit_work, k->commit_interval * HZ);
	return 0;
}

static void kmemfs_free_fc(struct fs_context *fc)
{
	struct kmemfs_context *ctx = fc->fs_private;

	if (ctx->kp)
		kmem_persist_put(ctx->kp);
	kfree(ctx);
}

static const struct fs_context_operations kmemfs_context_ops = {
	.parse_param = kmemfs_parse_param,
	.get_tree = kmemfs_get_tree,
	.reconfigure = kmemfs_reconfigure,
	.free = kmemfs_free_fc,
};

static int kmemfs_init_fs_context(struct fs_context *fc)
{
	struct kmemfs_context *ctx = kzalloc(sizeof(*ctx), GFP_KERNEL);

	if (!ctx)
		return -ENOMEM;
	ctx->byref = true;
	ctx->commit = KMEMFS_COMMIT_INTERVAL;
	fc->fs_private = ctx;
	fc->ops = &kmemfs_context_ops;
	return 0;
}

/* The last commit comes before the names go: an inode without one would count as deleted */
static void kmemfs_kill_sb(struct super_block *sb)
{
	struct kmemfs *k = KMEMFS_SB(sb);
	bool filled = k && k->sb == sb;

	if (filled) {
		int r = 0;

		/* not of a tree that could not be loaded as a whole */
		if (!sb_rdonly(sb) && (sb->s_flags & SB_ACTIVE))
			r = sync_filesystem(sb);
		if (r)
			pr_err("%s: changes since generation %llu are lost: commit failed (%d)\n",
			       k->kp->name, k->root.generation, r);
		WRITE_ONCE(k->commit_interval, 0);
		kmemfs_sums_stop(k);
	}
	/* Nobody else calls it without a root; and afterwards @k may be the next mount's. */
	if (filled && !sb->s_root)
		kmemfs_put_super(sb);
	kill_litter_super(sb);
}

static struct file_system_type kmemfs_type = {
	.owner = THIS_MODULE,
	.name = "kmemfs",
	.init_fs_context = kmemfs_init_fs_context,
	.parameters = kmemfs_param_spec,
	.kill_sb = kmemfs_kill_sb,
};
MODULE_ALIAS_FS("kmemfs");

static void kmemfs_inode_init_once(void *p)
{
	struct kmemfs_inode *ki = p;

	inode_init_once(&ki->vfs);
	spin_lock_init(&ki->lock);
}

/* Calls @f for each mount, which neither comes nor goes meanwhile */
void kmemfs_iterate_supers(void (*f)(struct super_block *sb, void *arg), void *arg)
{
	iterate_supers_type(&kmemfs_type, f, arg);
}

static int __init kmemfs_init(void)
{
	int r;

	kmemfs_inode_cache = kmem_cache_create("kmemfs_inode", sizeof(struct kmemfs_inode), 0,
					       SLAB_RECLAIM_ACCOUNT | SLAB_ACCOUNT,
					       kmemfs_inode_init_once);
	kmemfs_chunk_cache = KMEM_CACHE(kmemfs_chunk, 0);
	r = kmemfs_inode_cache && kmemfs_chunk_cache ? 0 : -ENOMEM;
	if (!r)
		r = register_filesystem(&kmemfs_type);
	if (!r)
		r = kmemfs_register_poison();
	if (!r)
		r = kmemfs_register_sums();
	if (!r)
		r = kmemfs_register_persist();
	return r;
}
fs_initcall(kmemfs_init);
