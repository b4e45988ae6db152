# SPDX-License-Identifier: Apache-2.0
"""The header of a KMEM device, written from its specification (docs/on-media-format.md)
and not with the code under test, so that both can be wrong only independently."""

import os
import struct

PAGE = 4096
MAGIC = b"DAXSNAP\x1a"
NONE, BLK, FS = 1, 2, 3
LAYOUT = struct.Struct("<8sIIQQII16s64sQ")


def _table():
    entries = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        entries.append(value)
    return entries


CRC32C = _table()


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ CRC32C[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def page(size, *, magic=MAGIC, version=1, kind=NONE, incompat=0, compat=0, uuid_len=16, reserved0=0,
         label=b"", reserved=b"", crc=None):
    """Page 0 of a device of `size` bytes; the crc is right unless given."""
    fields = LAYOUT.pack(magic, version, kind, incompat, compat, uuid_len, reserved0, os.urandom(16), label, size)
    body = (fields + reserved).ljust(PAGE - 4, b"\0")
    # The crc is that of a page with the right magic.
    return body + struct.pack("<I", crc32c(MAGIC + body[8:]) if crc is None else crc)


def present(data):
    return data[:8] == MAGIC
