/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * The few kernel names that kmem_persist_header.c and format*.c use, for user
 * space. Private to those files.
 */
#ifndef DAXSNAP_FORMAT_COMPAT_H
#define DAXSNAP_FORMAT_COMPAT_H

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <linux/types.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __s64 s64;
typedef __u64 u64;

#define READ_ONCE(x)		__atomic_load_n(&(x), __ATOMIC_RELAXED)
#define WRITE_ONCE(x, v)	__atomic_store_n(&(x), (v), __ATOMIC_RELAXED)
#define sizeof_field(type, f)	sizeof(((type *)0)->f)
#define BITS_PER_LONG		((unsigned int)(8 * sizeof(long)))
#define S_IALLUGO		07777

#define cpu_to_le16(x)		htole16(x)
#define cpu_to_le32(x)		htole32(x)
#define cpu_to_le64(x)		htole64(x)
#define le16_to_cpu(x)		le16toh(x)
#define le32_to_cpu(x)		le32toh(x)
#define le64_to_cpu(x)		le64toh(x)

static inline void cond_resched(void)
{
}

typedef int (*cmp_func_t)(const void *a, const void *b);

static inline void sort(void *base, size_t nr, size_t size, cmp_func_t cmp, void *swap)
{
	(void)swap;
	if (nr > 1)
		qsort(base, nr, size, cmp);
}

/* As <linux/crc32.h>: no inversions. Defined in crc32c.c. */
u32 __crc32c_le(u32 crc, const unsigned char *p, size_t len);

#endif /* DAXSNAP_FORMAT_COMPAT_H */
