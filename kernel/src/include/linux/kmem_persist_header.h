/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * The device header (struct kmem_persist_header) as pure functions over bytes;
 * compiles in the kernel and in user space.
 */
#ifndef _LINUX_KMEM_PERSIST_HEADER_H
#define _LINUX_KMEM_PERSIST_HEADER_H

#ifndef __KERNEL__
#include <stdbool.h>
#include <stddef.h>
#endif
#include <linux/compiler_attributes.h>
#include <linux/types.h>
#include <uapi/linux/kmem_persist.h>

#ifdef __cplusplus
extern "C" {
#endif

#define KMEM_PERSIST_WHY_SIZE	128

/**
 * struct kmem_persist_why - the reason of a refusal, for people
 * @text: one line, zero terminated
 */
struct kmem_persist_why {
	char text[KMEM_PERSIST_WHY_SIZE];
};

/* Fill @why, which may be NULL, as printf() does; what does not fit is cut */
__printf(2, 3)
void kmem_persist_why_set(struct kmem_persist_why *why, const char *fmt, ...);

/* True if all of @bytes are zero */
bool kmem_persist_all_zero(const void *bytes, size_t len);

/* crc32c (initial value ~0, final inversion) of a 4 KiB page, the 4 bytes at @at taken as zero */
__u32 kmem_persist_page_crc(const void *page, size_t at);

/*
 * True if the page is or was a header: it has the magic, whatever the rest, or
 * it is a whole header but for the magic. Nobody else may use the device then.
 */
bool kmem_persist_header_present(const void *page);

/* How a root begins, in page 1 or 2, whatever the type: to be known without a header */
#define KMEM_PERSIST_ROOT_BLK	0x4b4c424b	/* "KBLK" */
#define KMEM_PERSIST_ROOT_FS	0x544f4f52	/* "ROOT" */

struct kmem_persist_root {
	__le32	kind;
	__le32	crc;		/* crc32c of the page, this field taken as zero */
	__u8	uuid[16];	/* of the header */
};

/*
 * The type whose root the page is, going by the page alone; 0: it is none. If page 0
 * of such a device is not a header, it was one.
 */
__u32 kmem_persist_root_type(const void *page);

/**
 * kmem_persist_header_verify() - decide whether a header can be trusted
 * @h: page 0 of the device
 * @device_bytes: size of the device
 * @why: out: reason of a refusal; may be NULL
 *
 * The crc is at the same place in all versions and is checked first, so that
 * "newer" is never a guess about damaged bytes.
 *
 * Return: 0; -EUCLEAN if damaged or of another size than the device;
 * -EOPNOTSUPP if of a newer version, of a type that is not in enum
 * kmem_persist_type_id, or with unknown incompat features.
 */
int kmem_persist_header_verify(const struct kmem_persist_header *h, __u64 device_bytes,
			       struct kmem_persist_why *why);

/* Fill @h, sealed; @label may be NULL and is cut at 63 bytes */
void kmem_persist_header_init(struct kmem_persist_header *h, __u32 type, const __u8 uuid[16],
			      const char *label, __u64 device_bytes);

#ifdef __cplusplus
}
#endif
#endif /* _LINUX_KMEM_PERSIST_HEADER_H */
