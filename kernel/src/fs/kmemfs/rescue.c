// SPDX-License-Identifier: GPL-2.0
/*
 * kmemfs: a tree that does not hold, read-only
 */

/**
 * DOC: trees that do not hold
 *
 * If verifying the committed tree fails below a root that holds, the device is attached all
 * the same, with all its pages kept and none written (persist.c), and can be mounted
 * read-only. Mounting passes what does not hold, and tells of it in the log:
 *
 * - A file whose tree has lost a part has all pages that are still led to. What looks like
 *   a hole of it may have been none, and reading it is EIO.
 * - An inode whose record is lost is gone, and so are its names.
 * - What was in a directory that is lost, or that leads to no root, is in ``lost#NUMBER`` in
 *   the root directory, by the number of the directory's inode. If the root
 *   directory itself is lost, there is another one.
 * - Of names used twice in a directory the later one gets ``#NUMBER`` behind it, by the
 *   number of its record: that of the inode, if it is its first name.
 * - A file for whose page table there is no memory has the pages before. So has one whose
 *   tree is reached too often, and others that share pages with it; no others.
 *
 * What only the tree as a whole tells, such as a page that two files of version 1 own, or
 * counts that are wrong, takes nothing away. Nothing is read of trees but what a mount
 * needs, as there will be no commit.
 */

#define pr_fmt(fmt) "kmemfs: " fmt

#include <linux/dcache.h>
#include <linux/slab.h>
#include "load.h"

/* Lines about damage, a mount */
#define KMEMFS_RESCUE_LINES	20

static __printf(2, 3) void kmemfs_tell(struct kmemfs_loading *l, const char *fmt, ...)
{
	struct va_format text = { .fmt = fmt };
	va_list args;

	if (l->told++ >= KMEMFS_RESCUE_LINES)
		return;
	va_start(args, fmt);
	text.va = &args;
	pr_err("%s: %pV\n", l->k->kp->name, &text);
	va_end(args);
}

/* Of the inode that was visited last */
static void kmemfs_file_damage(struct kmemfs_loading *l, u64 page, u64 file_page, u64 count,
			       const char *why)
{
	struct kmemfs_inode *ki = l->ki;
	unsigned long ino = ki->vfs.i_ino;
	const char *name = kmemfs_name_of(ki);

	if (!count && page == ki->xattr_page) {
		kmemfs_tell(l, "inode %lu (%s): its attributes are lost: %s", ino, name, why);
		return;
	}
	ki->damaged = true;
	if (count)
		kmemfs_tell(l, "inode %lu (%s): pages %llu to %llu are lost: %s", ino, name,
			    file_page, file_page + count - 1, why);
	else
		kmemfs_tell(l, "inode %lu (%s): %s", ino, name, why);
}

/* A visitor's @damage: go on */
int kmemfs_rescue_damage(void *ctx, __u64 page, __u64 ino, __u64 file_page, __u64 count,
			 const char *why)
{
	struct kmemfs_loading *l = ctx;

	if (!ino)
		kmemfs_tell(l, "inodes %llu to %llu are lost: %s",
			    file_page * KMEMFS_INODES_PER_PAGE,
			    (file_page + count) * KMEMFS_INODES_PER_PAGE - 1, why);
	else if (ino == KMEMFS_INO_SUMS)
		kmemfs_tell(l, "checksums of device pages %llu to %llu are lost: %s",
			    file_page * KMEMFS_SUMS_PER_PAGE,
			    (file_page + count) * KMEMFS_SUMS_PER_PAGE - 1, why);
	else if (!page || !l->ki || l->ki->vfs.i_ino != ino)
		kmemfs_tell(l, "inode %llu is lost: %s", ino, why);
	else
		kmemfs_file_damage(l, page, file_page, count, why);
	return 0;
}

/* Pages of the inode that was visited last which are left out. Returns 0: go on. */
int kmemfs_rescue_no_memory(struct kmemfs_loading *l, u64 file_page)
{
	struct kmemfs_inode *ki = l->ki;

	if (!ki->damaged)
		kmemfs_tell(l, "inode %lu (%s): pages from %llu on are left out: no memory",
			    ki->vfs.i_ino, kmemfs_name_of(ki), file_page);
	ki->damaged = true;
	return 0;
}

/* What is there in the place of directory @ino */
static struct kmemfs_inode *kmemfs_lost_directory(struct kmemfs_loading *l, u64 ino)
{
	struct kmemfs_inode *ki = xa_load(&l->lost, ino);
	char name[32];
	int number, r;
	u64 behind;

	if (ki)
		return ki;
	/* behind those that media has or had: a number that was lost is still that of its names */
	behind = max_t(u64, l->k->root.nr_inode_pages, 1) * KMEMFS_INODES_PER_PAGE;
	if (behind > INT_MAX)
		return ERR_PTR(-EOVERFLOW);
	number = ida_alloc_min(&l->k->inos, behind, GFP_KERNEL);
	if (number < 0)
		return ERR_PTR(number);
	snprintf(name, sizeof(name), "lost#%llu", ino);
	ki = kmemfs_load_directory(l, number, name);
	if (IS_ERR(ki))
		return ki;
	r = xa_err(xa_store(&l->lost, ino, ki, GFP_KERNEL));
	if (!r)
		r = kmemfs_load_name(l, list_first_entry(&ki->names, struct kmemfs_name, list));
	if (r)
		return ERR_PTR(r);
	kmemfs_tell(l, "directory %llu is lost, or leads nowhere: what was in it is in %s", ino,
		    kmemfs_name_of(ki));
	return ki;
}

/* The directory that a name is in, or one in its place, if that has no way to the root */
struct kmemfs_inode *kmemfs_rescue_parent(struct kmemfs_loading *l, struct kmemfs_name *n)
{
	struct kmemfs_inode *dir = xa_load(&l->k->inodes, n->parent);

	if (dir && S_ISDIR(dir->vfs.i_mode) && (kmemfs_has_name(dir) || !dir->passed))
		return dir;
	dir = kmemfs_lost_directory(l, n->parent);
	if (!IS_ERR(dir))
		n->parent = dir->vfs.i_ino;
	return dir;
}

static bool kmemfs_name_used(struct dentry *parent, const char *name)
{
	struct qstr qstr = QSTR_INIT(name, strlen(name));
	struct dentry *dentry = d_hash_and_lookup(parent, &qstr);

	if (IS_ERR_OR_NULL(dentry))
		return false;
	dput(dentry);
	return true;
}

/* Change a name so that its directory has none like it. 0 or -ENOMEM. */
int kmemfs_rescue_name(struct kmemfs_loading *l, struct dentry *parent, struct kmemfs_name *n)
{
	const char *name = n->name;
	unsigned int nr = 1;
	char *fresh = NULL;
	char tail[40];

	while (kmemfs_name_used(parent, name)) {
		/* a name of its own, unless another one looks like it on purpose */
		int len = nr == 1 ? scnprintf(tail, sizeof(tail), "#%lu", n->slot) :
				    scnprintf(tail, sizeof(tail), "#%lu#%u", n->slot, nr);

		kfree(fresh);
		fresh = kasprintf(GFP_KERNEL, "%.*s%s", KMEMFS_NAME_MAX - len, n->name, tail);
		if (!fresh)
			return -ENOMEM;
		name = fresh;
		nr++;
		cond_resched();
	}
	if (!fresh)
		return 0;
	kmemfs_tell(l, "inode %lu: %s is there already, it is %s now", n->ki->vfs.i_ino, n->name,
		    fresh);
	kfree(n->name);
	n->name = fresh;
	return 0;
}

/* A further name that is left out */
void kmemfs_rescue_no_target(struct kmemfs_loading *l, const struct kmemfs_name *n)
{
	kmemfs_tell(l, "%s, a name of inode %llu, is left out: that is lost", n->name, n->target);
}

void kmemfs_rescue_done(struct kmemfs_loading *l)
{
	if (l->told > KMEMFS_RESCUE_LINES)
		pr_err("%s: and %lu more\n", l->k->kp->name, l->told - KMEMFS_RESCUE_LINES);
	xa_destroy(&l->lost);
}
