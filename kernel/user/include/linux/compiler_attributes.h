/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* For user space: the names of the kernel's header that ours use */
#ifndef DAXSNAP_COMPILER_ATTRIBUTES_H
#define DAXSNAP_COMPILER_ATTRIBUTES_H

#ifndef __packed
#define __packed		__attribute__((packed))
#endif
#ifndef __aligned
#define __aligned(x)		__attribute__((aligned(x)))
#endif
#ifndef __printf
#define __printf(fmt, args)	__attribute__((format(printf, fmt, args)))
#endif

#endif /* DAXSNAP_COMPILER_ATTRIBUTES_H */
