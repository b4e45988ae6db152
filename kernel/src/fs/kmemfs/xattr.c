// SPDX-License-Identifier: GPL-2.0
/*
 * kmemfs: extended attributes and access control lists
 */

/**
 * DOC: extended attributes
 *
 * All attributes of an inode are one array of bytes, in memory as on media: packed,
 * in order (struct kmemfs_xattr), KMEMFS_XATTR_MAX at most. A change makes a new array
 * under i_rwsem; readers use the old one under RCU. Access control lists are in it, too,
 * as getxattr(2) gives them. The next commit writes the array into the inode's record if
 * it fits, or into a page of its own, which is in the reserve from the change on.
 */

#include <linux/fs.h>
#include <linux/posix_acl_xattr.h>
#include <linux/security.h>
#include <linux/slab.h>
#include <linux/xattr.h>
#include "kmemfs.h"

/**
 * struct kmemfs_xattr_key - which attribute
 * @prefix: enum kmemfs_xattr_prefix
 * @name: what follows it
 * @len: bytes of @name
 */
struct kmemfs_xattr_key {
	u8 prefix;
	const char *name;
	size_t len;
};

static const char *const kmemfs_xattr_prefix_name[] = {
	[KMEMFS_XATTR_USER] = XATTR_USER_PREFIX,
	[KMEMFS_XATTR_TRUSTED] = XATTR_TRUSTED_PREFIX,
	[KMEMFS_XATTR_SECURITY] = XATTR_SECURITY_PREFIX,
	[KMEMFS_XATTR_ACL_ACCESS] = XATTR_NAME_POSIX_ACL_ACCESS,
	[KMEMFS_XATTR_ACL_DEFAULT] = XATTR_NAME_POSIX_ACL_DEFAULT,
};

static size_t kmemfs_xattr_bytes(const struct kmemfs_xattr *x)
{
	return sizeof(*x) + x->name_len + le16_to_cpu(x->value_len);
}

static int kmemfs_xattr_compare(const struct kmemfs_xattr *x, const struct kmemfs_xattr_key *key)
{
	if (x->prefix != key->prefix)
		return x->prefix < key->prefix ? -1 : 1;
	if (x->name_len != key->len)
		return x->name_len < key->len ? -1 : 1;
	return memcmp(x->bytes, key->name, key->len);
}

/* Where the attribute is in @set, or would be; @x: it itself, or NULL */
static u32 kmemfs_find_xattr(const struct kmemfs_xattrs_held *set,
			     const struct kmemfs_xattr_key *key, const struct kmemfs_xattr **x)
{
	u32 at = 0, behind = 0;
	int c = -1;

	*x = NULL;
	while (set && (*x = kmemfs_xattr_next(set->bytes, set->len, &behind))) {
		c = kmemfs_xattr_compare(*x, key);
		if (c >= 0)
			break;
		at = behind;
	}
	if (c)
		*x = NULL;
	return at;
}

static int kmemfs_read_xattr(struct inode *inode, const struct kmemfs_xattr_key *key,
			     void *buffer, size_t size)
{
	struct kmemfs_inode *ki = KMEMFS_I(inode);
	const struct kmemfs_xattr *x;
	int r = -ENODATA;

	if (READ_ONCE(ki->xattrs_lost))
		return -EIO;
	rcu_read_lock();
	kmemfs_find_xattr(rcu_dereference(ki->xattrs), key, &x);
	if (x) {
		r = le16_to_cpu(x->value_len);
		if (buffer && size < r)
			r = -ERANGE;
		else if (buffer)
			memcpy(buffer, x->bytes + x->name_len, r);
	}
	rcu_read_unlock();
	return r;
}

/* ---- changing ------------------------------------------------------------- */

/* What an array takes in memory, for the accounts */
size_t kmemfs_xattrs_memory(u32 len)
{
	return len ? struct_size_t(struct kmemfs_xattrs_held, bytes, len) : 0;
}

static struct kmemfs_xattrs_held *kmemfs_held_by(const struct kmemfs_inode *ki)
{
	/* i_rwsem is held, or nobody else knows the inode, or changes are held up */
	return rcu_dereference_protected(ki->xattrs, true);
}

static u32 kmemfs_held_len(const struct kmemfs_xattrs_held *set)
{
	return set ? set->len : 0;
}

/* @old_len: of the array that it will replace: one that is no larger always may */
static struct kmemfs_xattrs_held *kmemfs_alloc_xattrs(struct kmemfs *k, u32 len, u32 old_len)
{
	struct kmemfs_xattrs_held *set;
	int r = 0;

	if (len <= old_len)
		atomic64_add(kmemfs_xattrs_memory(len), &k->table_bytes);
	else
		r = kmemfs_charge_table(k, kmemfs_xattrs_memory(len));
	if (r)
		return ERR_PTR(r);
	set = kmalloc(kmemfs_xattrs_memory(len), GFP_KERNEL_ACCOUNT);
	if (!set) {
		kmemfs_uncharge_table(k, kmemfs_xattrs_memory(len));
		return ERR_PTR(-ENOMEM);
	}
	set->len = len;
	return set;
}

static void kmemfs_release_xattrs(struct kmemfs *k, struct kmemfs_xattrs_held *set)
{
	if (!set)
		return;
	kmemfs_uncharge_table(k, kmemfs_xattrs_memory(set->len));
	kfree_rcu(set, rcu);
}

/*
 * The array that is left when [@at, @at + @cut) of @old gives way to the attribute, which
 * has no @value if it goes. NULL if nothing is left.
 */
static struct kmemfs_xattrs_held *
kmemfs_splice_xattrs(struct kmemfs *k, const struct kmemfs_xattrs_held *old, u32 at, u32 cut,
		     const struct kmemfs_xattr_key *key, const void *value, size_t size)
{
	size_t add = value ? sizeof(struct kmemfs_xattr) + key->len + size : 0;
	u32 old_len = kmemfs_held_len(old);
	struct kmemfs_xattrs_held *set;
	struct kmemfs_xattr *x;

	if (key->len > U8_MAX || add > KMEMFS_XATTR_MAX ||
	    old_len - cut + add > KMEMFS_XATTR_MAX)
		return ERR_PTR(-ENOSPC);
	if (!(old_len - cut + add))
		return NULL;
	set = kmemfs_alloc_xattrs(k, old_len - cut + add, old_len);
	if (IS_ERR(set))
		return set;
	if (old)
		memcpy(set->bytes, old->bytes, at);
	if (value) {
		x = (struct kmemfs_xattr *)(set->bytes + at);
		x->prefix = key->prefix;
		x->name_len = key->len;
		x->value_len = cpu_to_le16(size);
		memcpy(x->bytes, key->name, key->len);
		memcpy(x->bytes + key->len, value, size);
	}
	if (old)
		memcpy(set->bytes + at + add, old->bytes + at + cut, old_len - at - cut);
	return set;
}

/**
 * struct kmemfs_with - what changes in the same commit as an attribute
 * @mode: the inode's mode from then on, if there is no @attr
 * @attr: all that setattr is to change
 * @idmap: for @attr
 */
struct kmemfs_with {
	umode_t mode;
	const struct iattr *attr;
	struct mnt_idmap *idmap;
};

/*
 * Set an attribute, or remove it if @value is NULL. Caller holds i_rwsem, or the inode
 * is new.
 */
static int kmemfs_change_xattr(struct inode *inode, const struct kmemfs_xattr_key *key,
			       const void *value, size_t size, int flags,
			       const struct kmemfs_with *with)
{
	struct kmemfs_inode *ki = KMEMFS_I(inode);
	struct kmemfs_xattrs_held *old = kmemfs_held_by(ki), *set;
	struct kmemfs *k = kmemfs_of(inode);
	const struct kmemfs_xattr *x;
	u32 at, new_len;
	int r;

	if (ki->xattrs_lost)
		return -EIO;
	at = kmemfs_find_xattr(old, key, &x);
	if (x && (flags & XATTR_CREATE))
		return -EEXIST;
	if (!x && (flags & XATTR_REPLACE))
		return -ENODATA;
	if (!x && !value && !with->attr && with->mode == inode->i_mode)
		return 0;
	set = kmemfs_splice_xattrs(k, old, at, x ? kmemfs_xattr_bytes(x) : 0, key, value, size);
	if (IS_ERR(set))
		return PTR_ERR(set);
	new_len = kmemfs_held_len(set);
	r = kmemfs_begin_xattrs(inode, new_len > KMEMFS_XATTR_IN_RECORD,
				new_len <= kmemfs_held_len(old) ? KMEMFS_FREES : KMEMFS_ADDS);
	if (r) {
		kmemfs_release_xattrs(k, set);
		return r;
	}
	rcu_assign_pointer(ki->xattrs, set);
	ki->xattrs_dirty = true;
	if (with->attr) {
		setattr_copy(with->idmap, inode, with->attr);
	} else {
		inode->i_mode = with->mode;
		inode_set_ctime_current(inode);
	}
	kmemfs_dirty_inode(inode, 0);
	up_read(&k->commit_sem);
	kmemfs_release_xattrs(k, old);
	return 0;
}

/* ---- user., trusted. and security. ------------------------------------------ */

static int kmemfs_xattr_get(const struct xattr_handler *handler, struct dentry *dentry,
			    struct inode *inode, const char *name, void *buffer, size_t size)
{
	struct kmemfs_xattr_key key = { handler->flags, name, strlen(name) };

	if (!kmemfs_is_v2(kmemfs_of(inode)))
		return -EOPNOTSUPP;
	return kmemfs_read_xattr(inode, &key, buffer, size);
}

static int kmemfs_xattr_set(const struct xattr_handler *handler, struct mnt_idmap *idmap,
			    struct dentry *dentry, struct inode *inode, const char *name,
			    const void *value, size_t size, int flags)
{
	struct kmemfs_xattr_key key = { handler->flags, name, strlen(name) };

	if (!kmemfs_is_v2(kmemfs_of(inode)))
		return -EOPNOTSUPP;
	return kmemfs_change_xattr(inode, &key, value, size, flags,
				   &(struct kmemfs_with){ .mode = inode->i_mode });
}

static const struct xattr_handler kmemfs_user_xattr = {
	.prefix = XATTR_USER_PREFIX,
	.flags = KMEMFS_XATTR_USER,
	.get = kmemfs_xattr_get,
	.set = kmemfs_xattr_set,
};

static const struct xattr_handler kmemfs_trusted_xattr = {
	.prefix = XATTR_TRUSTED_PREFIX,
	.flags = KMEMFS_XATTR_TRUSTED,
	.get = kmemfs_xattr_get,
	.set = kmemfs_xattr_set,
};

static const struct xattr_handler kmemfs_security_xattr = {
	.prefix = XATTR_SECURITY_PREFIX,
	.flags = KMEMFS_XATTR_SECURITY,
	.get = kmemfs_xattr_get,
	.set = kmemfs_xattr_set,
};

const struct xattr_handler *const kmemfs_xattr_handlers[] = {
	&kmemfs_user_xattr,
	&kmemfs_trusted_xattr,
	&kmemfs_security_xattr,
	NULL
};

ssize_t kmemfs_listxattr(struct dentry *dentry, char *buffer, size_t size)
{
	bool all = ns_capable_noaudit(&init_user_ns, CAP_SYS_ADMIN);
	struct kmemfs_inode *ki = KMEMFS_I(d_inode(dentry));
	const struct kmemfs_xattrs_held *set;
	const struct kmemfs_xattr *x;
	ssize_t total = 0;
	u32 at = 0;

	if (READ_ONCE(ki->xattrs_lost))
		return -EIO;
	rcu_read_lock();
	set = rcu_dereference(ki->xattrs);
	while (set && (x = kmemfs_xattr_next(set->bytes, set->len, &at))) {
		const char *prefix = kmemfs_xattr_prefix_name[x->prefix];
		size_t len = strlen(prefix) + x->name_len + 1;

		if (x->prefix == KMEMFS_XATTR_TRUSTED && !all)
			continue;
		if (buffer && total + len > size) {
			total = -ERANGE;
			break;
		}
		if (buffer) {
			memcpy(buffer + total, prefix, strlen(prefix));
			memcpy(buffer + total + strlen(prefix), x->bytes, x->name_len);
			buffer[total + len - 1] = 0;
		}
		total += len;
	}
	rcu_read_unlock();
	return total;
}

/* ---- access control lists --------------------------------------------------- */

static struct kmemfs_xattr_key kmemfs_acl_key(int type)
{
	u8 prefix = type == ACL_TYPE_ACCESS ? KMEMFS_XATTR_ACL_ACCESS : KMEMFS_XATTR_ACL_DEFAULT;

	return (struct kmemfs_xattr_key){ prefix, "", 0 };
}

struct posix_acl *kmemfs_get_inode_acl(struct inode *inode, int type, bool rcu)
{
	struct kmemfs_xattr_key key = kmemfs_acl_key(type);
	struct posix_acl *acl = NULL;
	void *value;
	int r;

	if (rcu)
		return ERR_PTR(-ECHILD);
	value = kmalloc(KMEMFS_XATTR_MAX, GFP_KERNEL);
	if (!value)
		return ERR_PTR(-ENOMEM);
	r = kmemfs_read_xattr(inode, &key, value, KMEMFS_XATTR_MAX);
	if (r >= 0)
		acl = posix_acl_from_xattr(&init_user_ns, value, r);
	else if (r != -ENODATA)
		acl = ERR_PTR(r);
	kfree(value);
	return acl;
}

static int kmemfs_store_acl(struct inode *inode, struct posix_acl *acl, int type,
			    const struct kmemfs_with *with)
{
	struct kmemfs_xattr_key key = kmemfs_acl_key(type);
	size_t size = acl ? posix_acl_xattr_size(acl->a_count) : 0;
	void *value = NULL;
	int r = 0;

	if (acl) {
		value = kmalloc(size, GFP_KERNEL);
		r = value ? posix_acl_to_xattr(&init_user_ns, acl, value, size) : -ENOMEM;
	}
	if (r >= 0)
		r = kmemfs_change_xattr(inode, &key, value, size, 0, with);
	if (!r)
		set_cached_acl(inode, type, acl);
	kfree(value);
	return r;
}

int kmemfs_set_acl(struct mnt_idmap *idmap, struct dentry *dentry, struct posix_acl *acl, int type)
{
	struct inode *inode = d_inode(dentry);
	struct kmemfs_with with = { .mode = inode->i_mode };
	int r = 0;

	if (!kmemfs_is_v2(kmemfs_of(inode)))
		return -EOPNOTSUPP;
	if (type == ACL_TYPE_ACCESS && acl)
		r = posix_acl_update_mode(idmap, inode, &with.mode, &acl);
	return r ?: kmemfs_store_acl(inode, acl, type, &with);
}

/*
 * Do all of a setattr that changes the mode of an inode with an access list, and the
 * list, at once: no commit is to have a mode that is neither the old nor the new one.
 * 1: done; 0: it has no list, nothing is done.
 */
int kmemfs_chmod_acl(struct mnt_idmap *idmap, struct inode *inode, const struct iattr *attr)
{
	const struct kmemfs_with with = { .attr = attr, .idmap = idmap };
	struct posix_acl *acl;
	int r;

	if (!IS_POSIXACL(inode))
		return 0;
	acl = get_inode_acl(inode, ACL_TYPE_ACCESS);
	if (IS_ERR_OR_NULL(acl))
		return acl == ERR_PTR(-EOPNOTSUPP) ? 0 : PTR_ERR(acl);
	r = __posix_acl_chmod(&acl, GFP_KERNEL, attr->ia_mode);
	if (r)
		return r;
	r = kmemfs_store_acl(inode, acl, ACL_TYPE_ACCESS, &with);
	posix_acl_release(acl);
	return r ?: 1;
}

/* ---- new inodes --------------------------------------------------------------- */

static int kmemfs_init_acls(struct inode *inode, struct inode *dir)
{
	struct posix_acl *def, *acl;
	int r = posix_acl_create(dir, &inode->i_mode, &def, &acl);
	const struct kmemfs_with with = { .mode = inode->i_mode };

	if (r)
		return r;
	if (def)
		r = kmemfs_store_acl(inode, def, ACL_TYPE_DEFAULT, &with);
	else
		inode->i_default_acl = NULL;
	if (acl && !r)
		r = kmemfs_store_acl(inode, acl, ACL_TYPE_ACCESS, &with);
	else if (!acl)
		inode->i_acl = NULL;
	posix_acl_release(def);
	posix_acl_release(acl);
	return r;
}

static int kmemfs_init_security(struct inode *inode, const struct xattr *x, void *data)
{
	const struct kmemfs_with with = { .mode = inode->i_mode };
	int r = 0;

	for (; x->name && !r; x++) {
		struct kmemfs_xattr_key key = { KMEMFS_XATTR_SECURITY, x->name, strlen(x->name) };

		r = kmemfs_change_xattr(inode, &key, x->value, x->value_len, 0, &with);
	}
	return r;
}

/* What a new inode in @dir inherits, and what a security module wants it to have */
int kmemfs_init_xattrs(struct inode *inode, struct inode *dir, const struct qstr *name)
{
	int r;

	if (!kmemfs_is_v2(kmemfs_of(dir)))
		return 0;
	r = kmemfs_init_acls(inode, dir);
	if (!r)
		r = security_inode_init_security(inode, dir, name, kmemfs_init_security, NULL);
	return r == -EOPNOTSUPP ? 0 : r;
}

/* ---- on media ------------------------------------------------------------------ */

/* For a commit: those that have a page of their own, if they have changed */
int kmemfs_commit_xattrs(struct kmemfs_inode *ki, struct kmemfs_sink *s)
{
	const struct kmemfs_xattrs_held *set = kmemfs_held_by(ki);

	if (!ki->xattrs_dirty) {
		ki->new_xattr_page = ki->xattr_page;
		return 0;
	}
	ki->new_xattr_page = 0;
	if (kmemfs_held_len(set) <= KMEMFS_XATTR_IN_RECORD)
		return 0;
	return kmemfs_write_xattrs(s, ki->vfs.i_ino, set->bytes, set->len, &ki->new_xattr_page);
}

/* Into the inode's record */
void kmemfs_record_xattrs(const struct kmemfs_inode *ki, struct kmemfs_inode_record *record)
{
	const struct kmemfs_xattrs_held *set = kmemfs_held_by(ki);

	record->xattr_page = cpu_to_le64(ki->new_xattr_page);
	if (ki->new_xattr_page || !set)
		return;
	record->xattr_len = cpu_to_le16(set->len);
	memcpy(record->xattr, set->bytes, set->len);
}

/* While mounting: what has been verified. Its memory has been charged. 0 or -ENOMEM. */
int kmemfs_load_xattrs(struct kmemfs_inode *ki, const void *bytes, u32 len)
{
	struct kmemfs_xattrs_held *set;

	set = kmalloc(kmemfs_xattrs_memory(len), GFP_KERNEL_ACCOUNT);
	if (!set)
		return -ENOMEM;
	set->len = len;
	memcpy(set->bytes, bytes, len);
	RCU_INIT_POINTER(ki->xattrs, set);
	return 0;
}

/* The inode goes */
void kmemfs_drop_xattrs(struct kmemfs_inode *ki)
{
	kmemfs_release_xattrs(kmemfs_of(&ki->vfs), kmemfs_held_by(ki));
	RCU_INIT_POINTER(ki->xattrs, NULL);
	kmemfs_xattrs_done(ki, 0);
}
