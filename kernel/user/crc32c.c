// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
/*
 * crc32c (polynomial 0x1edc6f41, reflected) for user space, eight bytes a step
 * with tables made at load time.
 */
#include "format_compat.h"

#define CRC32C_POLY_LE	0x82f63b78u

/* table[k][b]: crc of byte b followed by k zero bytes */
static u32 table[8][256];

__attribute__((constructor)) static void crc32c_make_tables(void)
{
	for (u32 b = 0; b < 256; b++) {
		u32 crc = b;

		for (int bit = 0; bit < 8; bit++)
			crc = (crc >> 1) ^ (crc & 1 ? CRC32C_POLY_LE : 0);
		table[0][b] = crc;
	}
	for (int k = 1; k < 8; k++)
		for (u32 b = 0; b < 256; b++)
			table[k][b] = (table[k - 1][b] >> 8) ^ table[0][table[k - 1][b] & 0xff];
}

u32 __crc32c_le(u32 crc, const unsigned char *p, size_t len)
{
	while (len >= 8) {
		u64 v;

		memcpy(&v, p, sizeof(v));
		v = le64toh(v) ^ crc;
		crc = table[7][v & 0xff] ^ table[6][(v >> 8) & 0xff] ^
		      table[5][(v >> 16) & 0xff] ^ table[4][(v >> 24) & 0xff] ^
		      table[3][(v >> 32) & 0xff] ^ table[2][(v >> 40) & 0xff] ^
		      table[1][(v >> 48) & 0xff] ^ table[0][v >> 56];
		p += 8;
		len -= 8;
	}
	while (len--)
		crc = (crc >> 8) ^ table[0][(crc ^ *p++) & 0xff];
	return crc;
}
