# SPDX-License-Identifier: Apache-2.0
"""Damage to the committed metadata of a device, written from docs/on-media-format.md."""

import os
import random
import struct
import sys
import time

import header

PAGE = header.PAGE
SECONDS = int(os.environ.get("DAXSNAP_MUTATION_SECONDS", "0"))
SEED = int(os.environ.get("DAXSNAP_MUTATION_SEED", "1"))
ROOTS = {header.FS: b"ROOT", header.BLK: b"KBLK"}
KINDS = (b"INDX", b"INOD", b"EXTS", b"SEGM", b"NODE", b"XATT", b"SUMS")
HEAD = struct.Struct("<4sI16sQ")  # kind, crc, uuid, generation


def head_of(page):
    return HEAD.unpack_from(page)


def crc_of(page):
    return header.crc32c(page[:4] + bytes(4) + page[8:])


def root(kind, uuid=bytes(range(16))):
    """A page that is the root of a pool of this type, going by the page alone."""
    page = (ROOTS[kind] + bytes(4) + uuid).ljust(PAGE, b"\0")
    return page[:4] + crc_of(page).to_bytes(4, "little") + page[8:]


def ruling_slot(machine):
    """(device page, generation) of the root slot that counts."""
    valid = []
    for number in (1, 2):
        page = machine.read(number)
        kind, crc, _, generation = head_of(page)
        if kind == b"ROOT" and crc == crc_of(page):
            valid.append((generation, number))
    generation, number = max(valid)
    return number, generation


def metadata_pages(machine, generation):
    """Device pages that the commit of this generation wrote: all of them are in its tree.

    Free memory may have those of an earlier pool still, so the pool's uuid counts as well.
    """
    found = []
    uuid = head_of(machine.read(ruling_slot(machine)[0]))[2]
    with open(machine.image, "rb") as file:
        at, end = machine.data, machine.image.stat().st_size
        while at < end:
            try:
                at = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError:
                break
            stop = os.lseek(file.fileno(), at, os.SEEK_HOLE)
            at -= (at - machine.data) % PAGE
            while at < stop:
                page = os.pread(file.fileno(), PAGE, at)
                if len(page) == PAGE and page[:4] in KINDS and head_of(page)[2:] == (uuid, generation):
                    found.append((at - machine.data) // PAGE)
                at += PAGE
    return found


def cases(number):
    """So many generators of random numbers, one a case, or as many as fit into the time asked for."""
    end = time.monotonic() + SECONDS
    case = 0
    while time.monotonic() < end if SECONDS else case < number:
        yield random.Random(f"{SEED} {case}")
        case += 1
    print(f"{case} cases", file=sys.stderr)


def damage(machine, chance, pages):
    """(what it is, {device page: bytes}) of one random damage; never what is there already."""
    while True:
        number, other = chance.sample(pages, 2)
        old, foreign = machine.read(number), machine.read(other)
        new = bytearray(old)
        # Swapped with the root that tells of it, a header is gone without a trace.
        kind = chance.choice(("flip", "flip", "zero", "cut", "copy", "noise") if 0 in (number, other) else
                             ("flip", "flip", "zero", "cut", "swap", "copy", "noise"))
        written = {}
        if kind == "flip":
            bit = chance.randrange(PAGE * 8)
            new[bit // 8] ^= 1 << bit % 8
            kind = f"flip of bit {bit}"
        elif kind == "zero":
            new = bytearray(PAGE)
        elif kind == "cut":
            start = chance.randrange(PAGE)
            new[start:] = bytes(PAGE - start)
            kind = f"cut at {start}"
        elif kind == "swap":
            new = bytearray(foreign)
            written[other] = old
            kind = f"swap with {other}"
        elif kind == "copy":
            new = bytearray(foreign)
            kind = f"copy of {other}"
        else:
            new = bytearray(chance.randbytes(PAGE))
        if new != old:
            written[number] = bytes(new)
            return f"page {number}: {kind}", written


def lie(machine, chance, number):
    """The page with some numbers changed and a right crc, as only malice makes it."""
    page = bytearray(machine.read(number))
    for _ in range(chance.choice((1, 1, 2, 4))):
        size = chance.choice((1, 2, 4, 8))
        at = chance.randrange(8 // size, PAGE // size) * size
        value = chance.choice((0, 1, 2, 3, 1 << 31, (1 << 32) - 1, 1 << 63, (1 << 64) - 1,
                               int.from_bytes(page[at:at + size], "little") + chance.choice((-1, 1)),
                               chance.randrange(1 << 20)))
        page[at:at + size] = (value % (1 << 8 * size)).to_bytes(size, "little")
    page[4:8] = crc_of(bytes(page)).to_bytes(4, "little")
    return bytes(page)
