/* SPDX-License-Identifier: (GPL-2.0 WITH Linux-syscall-note) OR Apache-2.0 */
/*
 * On-media header of a DAX device whose memory is used through KMEM while part
 * of it holds persistent data. One page at offset 0 of the device.
 */
#ifndef _UAPI_LINUX_KMEM_PERSIST_H
#define _UAPI_LINUX_KMEM_PERSIST_H

#include <linux/types.h>

#define KMEM_PERSIST_MAGIC	"DAXSNAP\x1a"	/* 8 bytes, no terminator */
#define KMEM_PERSIST_VERSION	1

/* Everything on media is in units of this size, whatever PAGE_SIZE is. */
#define KMEM_PERSIST_PAGE_SIZE	4096

/* Pages 0 to 2 of the device: the header, and two pages for the type's root. */
#define KMEM_PERSIST_HEAD_PAGES	3

enum kmem_persist_type_id {
	KMEM_PERSIST_NONE	= 1,	/* keeps nothing: plain KMEM */
	KMEM_PERSIST_BLK	= 2,	/* block device */
	KMEM_PERSIST_FS		= 3,	/* kmemfs */
};

/**
 * struct kmem_persist_header - page 0 of the device, little-endian
 * @magic: KMEM_PERSIST_MAGIC
 * @version: KMEM_PERSIST_VERSION; a reader refuses a higher one
 * @type: enum kmem_persist_type_id; a reader refuses one it does not know
 * @incompat: features without which the device must not be used: none yet
 * @compat: features that a reader may ignore: none yet
 * @uuid_len: always 16; anything else is refused
 * @reserved0: zero
 * @uuid: identity of the device's contents, made when the header is written
 * @label: name given by the user, UTF-8, zero padded, at most 63 bytes
 * @range_size: size of the DAX device in bytes when the header was written; a
 *	device of another size is refused
 * @reserved: zero
 * @crc: crc32c (initial value ~0, final inversion) of the page before it
 */
struct kmem_persist_header {
	__u8	magic[8];
	__le32	version;
	__le32	type;
	__le64	incompat;
	__le64	compat;
	__le32	uuid_len;
	__le32	reserved0;
	__u8	uuid[16];
	__u8	label[64];
	__le64	range_size;
	__u8	reserved[KMEM_PERSIST_PAGE_SIZE - 132];
	__le32	crc;
} __attribute__((packed));

#endif /* _UAPI_LINUX_KMEM_PERSIST_H */
