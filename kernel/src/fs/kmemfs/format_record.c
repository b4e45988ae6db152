// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
/**
 * DOC: what an inode's record may say
 *
 * Checked here is what can be seen on the record alone, and its extended
 * attributes, which are in it or in a page of their own. What version 2 has added
 * to the record is zero in version 1.
 */
#include "format_internal.h"

/* ---- extended attributes ------------------------------------------------- */

const struct kmemfs_xattr *kmemfs_xattr_next(const void *bytes, __u32 len, __u32 *at)
{
	const struct kmemfs_xattr *x = (const void *)((const u8 *)bytes + *at);
	const u32 left = len - *at;
	u32 size;

	if (left < sizeof(*x))
		return NULL;
	size = (u32)sizeof(*x) + x->name_len + le16_to_cpu(x->value_len);
	if (left < size)
		return NULL;
	*at += size;
	return x;
}

static bool xattr_valid(const struct kmemfs_xattr *x)
{
	switch (x->prefix) {
	case KMEMFS_XATTR_USER:
	case KMEMFS_XATTR_TRUSTED:
	case KMEMFS_XATTR_SECURITY:
		return x->name_len && !memchr(x->bytes, 0, x->name_len);
	case KMEMFS_XATTR_ACL_ACCESS:
	case KMEMFS_XATTR_ACL_DEFAULT:
		return !x->name_len;
	default:
		return false;
	}
}

static bool xattr_before(const struct kmemfs_xattr *a, const struct kmemfs_xattr *b)
{
	if (a->prefix != b->prefix)
		return a->prefix < b->prefix;
	if (a->name_len != b->name_len)
		return a->name_len < b->name_len;
	return memcmp(a->bytes, b->bytes, a->name_len) < 0;
}

bool kmemfs_xattrs_valid(const void *bytes, __u32 len)
{
	const struct kmemfs_xattr *last = NULL, *x;
	u32 at = 0;

	while ((x = kmemfs_xattr_next(bytes, len, &at))) {
		if (!xattr_valid(x) || (last && !xattr_before(last, x)))
			return false;
		last = x;
	}
	return at == len;
}

static int xattrs_page_check(const struct kmemfs_walk *w, u64 page, u64 ino)
{
	const struct kmemfs_expect e = {
		.kind = KMEMFS_KIND_XATTRS,
		.owner = ino,
		.max_nr = KMEMFS_XATTR_MAX,
	};
	const struct kmemfs_xattrs *xattrs = kmemfs_page_read(w, page, &e);
	u32 len;
	int err;

	if (!xattrs)
		return -EUCLEAN;
	err = kmemfs_first_check(w, page, &xattrs->head, 0);
	if (err)
		return err;
	len = le32_to_cpu(xattrs->head.nr);
	if (!kmemfs_xattrs_valid(xattrs->bytes, len))
		return kmemfs_refuse(w->why, "page %llu: bad extended attributes", page);
	if (!kmemfs_all_zero(&xattrs->bytes[len], xattrs + 1))
		return kmemfs_refuse(w->why, "page %llu: unused bytes not zero", page);
	return kmemfs_report_meta(w, page, KMEMFS_KIND_XATTRS, 0);
}

int kmemfs_walk_xattrs(const struct kmemfs_walk *w, const struct kmemfs_inode_record *r)
{
	const u64 page = le64_to_cpu(r->xattr_page);
	const u64 ino = le64_to_cpu(r->ino);
	int err;

	if (!page)
		return 0;
	err = xattrs_page_check(w, page, ino);
	return err == -EUCLEAN ? kmemfs_report_damage(w, page, ino, 0, 0) : err;
}

/* ---- records --------------------------------------------------------------- */

static bool name_valid(const struct kmemfs_inode_record *r)
{
	const u8 *name = r->name;
	const size_t len = r->name_len;

	if (!len || memchr(name, '/', len) || memchr(name, 0, len))
		return false;
	if (name[0] == '.' && (len == 1 || (len == 2 && name[1] == '.')))
		return false;
	return kmemfs_all_zero(name + len, r + 1);
}

static int check_name(const struct kmemfs_walk *w, u64 ino, const struct kmemfs_inode_record *r)
{
	const u64 parent = le64_to_cpu(r->parent);

	if (ino != KMEMFS_ROOT_INO) {
		if (!name_valid(r))
			return kmemfs_refuse(w->why, "inode %llu: bad name", ino);
		if (!parent || parent == ino)
			return kmemfs_refuse(w->why, "inode %llu: parent %llu", ino, parent);
		return 0;
	}
	if (parent != KMEMFS_ROOT_INO)
		return kmemfs_refuse(w->why, "root directory: parent %llu", parent);
	if (r->name_len || !kmemfs_all_zero(r->name, r + 1))
		return kmemfs_refuse(w->why, "root directory: has a name");
	return 0;
}

static bool special(u32 mode)
{
	return S_ISCHR(mode) || S_ISBLK(mode) || S_ISFIFO(mode) || S_ISSOCK(mode);
}

/* Size and pages that suit the type */
static int check_type(const struct kmemfs_walk *w, u64 ino, const struct kmemfs_inode_record *r)
{
	const u32 mode = le32_to_cpu(r->mode);
	const u64 size = le64_to_cpu(r->size);
	const u64 nr_pages = le64_to_cpu(r->nr_pages);

	if (mode & ~(u32)(S_IFMT | S_IALLUGO))
		return kmemfs_refuse(w->why, "inode %llu: bad mode %#o", ino, mode);
	if (ino == KMEMFS_ROOT_INO && !S_ISDIR(mode))
		return kmemfs_refuse(w->why, "root directory: bad mode %#o", mode);
	if (kmemfs_is_v2(w->root) && special(mode)) {
		if (size || r->extents)
			return kmemfs_refuse(w->why, "inode %llu: special file with data", ino);
		return 0;
	}
	switch (mode & S_IFMT) {
	case S_IFREG:
		if (size > KMEMFS_MAX_FILE_PAGES * KMEMFS_PAGE_SIZE)
			return kmemfs_refuse(w->why, "inode %llu: size %llu", ino, size);
		return 0;
	case S_IFDIR:
		if (size || r->extents)
			return kmemfs_refuse(w->why, "inode %llu: directory with data", ino);
		return 0;
	case S_IFLNK:
		if (!size || size >= KMEMFS_PAGE_SIZE || nr_pages != 1)
			return kmemfs_refuse(w->why,
					     "inode %llu: symlink of %llu bytes, %llu pages",
					     ino, size, nr_pages);
		return 0;
	default:
		return kmemfs_refuse(w->why, "inode %llu: bad mode %#o", ino, mode);
	}
}

/* All from @from on, up to the length of the name, is zero */
static bool rest_zero(const struct kmemfs_inode_record *r, const void *from)
{
	return kmemfs_all_zero(from, &r->name_len);
}

static int check_xattrs(const struct kmemfs_walk *w, u64 ino, const struct kmemfs_inode_record *r)
{
	const u32 len = le16_to_cpu(r->xattr_len);

	if (len > sizeof(r->xattr) || (len && r->xattr_page))
		return kmemfs_refuse(w->why, "inode %llu: %u bytes of extended attributes", ino,
				     len);
	if (!kmemfs_xattrs_valid(r->xattr, len))
		return kmemfs_refuse(w->why, "inode %llu: bad extended attributes", ino);
	return 0;
}

/* What only version 2 has */
static int check_v2(const struct kmemfs_walk *w, u64 ino, const struct kmemfs_inode_record *r)
{
	const u32 mode = le32_to_cpu(r->mode);
	int err;

	err = check_xattrs(w, ino, r);
	if (err)
		return err;
	if (r->reserved0 || r->target || !rest_zero(r, r->xattr + le16_to_cpu(r->xattr_len)))
		return kmemfs_refuse(w->why, "inode %llu: reserved bytes not zero", ino);
	if (r->rdev && !S_ISCHR(mode) && !S_ISBLK(mode))
		return kmemfs_refuse(w->why, "inode %llu: device number without a device", ino);
	return 0;
}

static int check_inode(const struct kmemfs_walk *w, u64 ino, const struct kmemfs_inode_record *r)
{
	int err;

	if (r->flags || (!kmemfs_is_v2(w->root) && !rest_zero(r, &r->rdev)))
		return kmemfs_refuse(w->why, "inode %llu: reserved bytes not zero", ino);
	if (le32_to_cpu(r->extents_height) > KMEMFS_MAX_HEIGHT)
		return kmemfs_refuse(w->why, "inode %llu: extents of height %u", ino,
				     le32_to_cpu(r->extents_height));
	if (!r->extents && (r->nr_runs || r->nr_pages || r->extents_height))
		return kmemfs_refuse(w->why, "inode %llu: counts without extents", ino);
	err = check_name(w, ino, r);
	if (!err)
		err = check_type(w, ino, r);
	return err || !kmemfs_is_v2(w->root) ? err : check_v2(w, ino, r);
}

static int check_link(const struct kmemfs_walk *w, u64 ino, const struct kmemfs_inode_record *r)
{
	const u64 target = le64_to_cpu(r->target);

	if (le32_to_cpu(r->flags) != KMEMFS_RECORD_LINK)
		return kmemfs_refuse(w->why, "inode %llu: unknown flags %#x", ino,
				     le32_to_cpu(r->flags));
	if (ino == KMEMFS_ROOT_INO || !target || target == ino)
		return kmemfs_refuse(w->why, "inode %llu: a name of %llu", ino, target);
	if (!kmemfs_all_zero(&r->size, &r->flags) || !kmemfs_all_zero(&r->rdev, &r->target) ||
	    !rest_zero(r, r->xattr))
		return kmemfs_refuse(w->why, "inode %llu: a name with more than that", ino);
	return check_name(w, ino, r);
}

int kmemfs_check_record(const struct kmemfs_walk *w, u64 ino, const struct kmemfs_inode_record *r)
{
	if (!r->ino) {
		if (!kmemfs_all_zero(r, r + 1))
			return kmemfs_refuse(w->why, "inode %llu: free inode not zero", ino);
		return 0;
	}
	if (le64_to_cpu(r->ino) != ino)
		return kmemfs_refuse(w->why, "inode %llu in the place of %llu",
				     (unsigned long long)le64_to_cpu(r->ino), ino);
	if (kmemfs_is_v2(w->root) && r->flags)
		return check_link(w, ino, r);
	return check_inode(w, ino, r);
}
