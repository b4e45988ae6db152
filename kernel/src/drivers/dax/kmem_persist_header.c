// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
/**
 * DOC: header of a KMEM device with persistent data
 *
 * Page 0 of the DAX device says what the device holds, who wrote it, and how
 * large it was then. It is written once, from user space, and only read by the
 * kernel. The functions here are pure: bytes in, verdict out. They compile in
 * the kernel and in user space, so both sides agree by construction.
 *
 * A device with a header that cannot be trusted is left alone: neither onlined
 * as plain memory, which would overwrite what it holds, nor repaired. So is one
 * that has a root of some type without a header before it: the header was there.
 */
#ifdef __KERNEL__
#include <linux/build_bug.h>
#include <linux/crc32.h>
#include <linux/errno.h>
#include <linux/kernel.h>
#include <linux/stdarg.h>
#include <linux/string.h>
#else
#include "format_compat.h"
#endif
#include <linux/kmem_persist_header.h>

#define HEADER_LABEL_MAX	(sizeof_field(struct kmem_persist_header, label) - 1)

#define HEADER_AT(field, offset) \
	static_assert(offsetof(struct kmem_persist_header, field) == (offset), #field)

static_assert(sizeof(struct kmem_persist_header) == KMEM_PERSIST_PAGE_SIZE, "one page");
HEADER_AT(magic, 0);
HEADER_AT(version, 8);
HEADER_AT(type, 12);
HEADER_AT(incompat, 16);
HEADER_AT(compat, 24);
HEADER_AT(uuid_len, 32);
HEADER_AT(reserved0, 36);
HEADER_AT(uuid, 40);
HEADER_AT(label, 56);
HEADER_AT(range_size, 120);
HEADER_AT(reserved, 128);
HEADER_AT(crc, 4092);

void kmem_persist_why_set(struct kmem_persist_why *why, const char *fmt, ...)
{
	va_list args;

	if (!why)
		return;
	va_start(args, fmt);
	vsnprintf(why->text, sizeof(why->text), fmt, args);
	va_end(args);
}

/* Not inverted at either end, so that pieces can be chained */
static u32 crc_add(u32 crc, const void *bytes, size_t len)
{
	return __crc32c_le(crc, bytes, len);
}

__u32 kmem_persist_page_crc(const void *page, size_t at)
{
	static const __le32 zero;
	const u8 *bytes = page;
	const size_t after = at + sizeof(zero);
	u32 crc = ~0U;

	crc = crc_add(crc, bytes, at);
	crc = crc_add(crc, &zero, sizeof(zero));
	crc = crc_add(crc, bytes + after, KMEM_PERSIST_PAGE_SIZE - after);
	return ~crc;
}

/* crc of the page up to the crc field, with the right magic in place */
static u32 header_crc(const struct kmem_persist_header *h)
{
	const size_t rest = offsetof(struct kmem_persist_header, version);
	u32 crc = ~0U;

	crc = crc_add(crc, KMEM_PERSIST_MAGIC, rest);
	crc = crc_add(crc, (const u8 *)h + rest,
		      offsetof(struct kmem_persist_header, crc) - rest);
	return ~crc;
}

static bool has_magic(const struct kmem_persist_header *h)
{
	return !memcmp(h->magic, KMEM_PERSIST_MAGIC, sizeof(h->magic));
}

bool kmem_persist_header_present(const void *page)
{
	const struct kmem_persist_header *h = page;

	return has_magic(h) || le32_to_cpu(h->crc) == header_crc(h);
}

__u32 kmem_persist_root_type(const void *page)
{
	const struct kmem_persist_root *root = page;

	if (le32_to_cpu(root->crc) !=
	    kmem_persist_page_crc(page, offsetof(struct kmem_persist_root, crc)))
		return 0;
	switch (le32_to_cpu(root->kind)) {
	case KMEM_PERSIST_ROOT_BLK:
		return KMEM_PERSIST_BLK;
	case KMEM_PERSIST_ROOT_FS:
		return KMEM_PERSIST_FS;
	default:
		return 0;
	}
}

bool kmem_persist_all_zero(const void *bytes, size_t len)
{
	const u8 *p = bytes;
	size_t i;

	for (i = 0; i < len; i++)
		if (p[i])
			return false;
	return true;
}

static bool label_valid(const struct kmem_persist_header *h)
{
	const u8 *end = memchr(h->label, 0, sizeof(h->label));

	return end && kmem_persist_all_zero(end, sizeof(h->label) - (end - h->label));
}

/* What only makes sense once the bytes are known to be as written */
static int header_check_fields(const struct kmem_persist_header *h, u64 device_bytes,
			       struct kmem_persist_why *why)
{
	const u64 range_size = le64_to_cpu(h->range_size);

	if (le32_to_cpu(h->uuid_len) != sizeof(h->uuid)) {
		kmem_persist_why_set(why, "header: uuid length %u, expected %zu",
				     le32_to_cpu(h->uuid_len), sizeof(h->uuid));
		return -EUCLEAN;
	}
	if (range_size != device_bytes) {
		kmem_persist_why_set(why,
				     "header: written for %llu bytes, but the device has %llu",
				     (unsigned long long)range_size,
				     (unsigned long long)device_bytes);
		return -EUCLEAN;
	}
	if (!label_valid(h)) {
		kmem_persist_why_set(why, "header: label not zero padded");
		return -EUCLEAN;
	}
	if (h->reserved0 || !kmem_persist_all_zero(h->reserved, sizeof(h->reserved))) {
		kmem_persist_why_set(why, "header: reserved bytes not zero");
		return -EUCLEAN;
	}
	return 0;
}

int kmem_persist_header_verify(const struct kmem_persist_header *h, __u64 device_bytes,
			       struct kmem_persist_why *why)
{
	const u32 version = le32_to_cpu(h->version);
	const u32 type = le32_to_cpu(h->type);

	if (!has_magic(h)) {
		kmem_persist_why_set(why, "header: wrong magic");
		return -EUCLEAN;
	}
	if (le32_to_cpu(h->crc) != header_crc(h)) {
		kmem_persist_why_set(why, "header: wrong crc");
		return -EUCLEAN;
	}
	if (!version) {
		kmem_persist_why_set(why, "header: version 0");
		return -EUCLEAN;
	}
	if (version > KMEM_PERSIST_VERSION) {
		kmem_persist_why_set(why, "header: version %u, at most %u is understood",
				     version, KMEM_PERSIST_VERSION);
		return -EOPNOTSUPP;
	}
	if (h->incompat) {
		kmem_persist_why_set(why, "header: unknown incompatible features %#llx",
				     (unsigned long long)le64_to_cpu(h->incompat));
		return -EOPNOTSUPP;
	}
	if (type < KMEM_PERSIST_NONE || type > KMEM_PERSIST_FS) {
		kmem_persist_why_set(why, "header: unknown type %u", type);
		return -EOPNOTSUPP;
	}
	return header_check_fields(h, device_bytes, why);
}

void kmem_persist_header_init(struct kmem_persist_header *h, __u32 type, const __u8 uuid[16],
			      const char *label, __u64 device_bytes)
{
	memset(h, 0, sizeof(*h));
	memcpy(h->magic, KMEM_PERSIST_MAGIC, sizeof(h->magic));
	h->version = cpu_to_le32(KMEM_PERSIST_VERSION);
	h->type = cpu_to_le32(type);
	h->uuid_len = cpu_to_le32(sizeof(h->uuid));
	memcpy(h->uuid, uuid, sizeof(h->uuid));
	if (label)
		memcpy(h->label, label, strnlen(label, HEADER_LABEL_MAX));
	h->range_size = cpu_to_le64(device_bytes);
	h->crc = cpu_to_le32(header_crc(h));
}
