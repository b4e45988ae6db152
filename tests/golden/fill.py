#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""fill.py DIRECTORY: files of every sort that kmemfs can hold, made in several commits. Runs in the
guest. What they hold compresses well, and each page differs from all others.

fill.py --tell DIRECTORY: prints what find(1) does not know of them: names, devices, attributes.
"""

import ctypes
import fcntl
import os
import stat
import struct
import sys

PAGE = 4096
FICLONE = 0x40049409
FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE = 1, 2


def text(name, size):
    """Lines that say where they belong."""
    lines = b"".join(f"{name}: line {n:09}\n".encode() for n in range(size // 16 + 1))
    return lines[:size]


def write(name, data):
    with open(name, "wb") as file:
        file.write(data)


def clone(source, target):
    with open(source, "rb") as a, open(target, "wb") as b:
        fcntl.ioctl(b, FICLONE, a.fileno())


def fallocate(name, mode, offset, length):
    libc = ctypes.CDLL(None, use_errno=True)
    fd = os.open(name, os.O_RDWR | os.O_CREAT, 0o600)
    if libc.fallocate(fd, mode, ctypes.c_long(offset), ctypes.c_long(length)):
        raise OSError(ctypes.get_errno(), name)
    os.close(fd)


def plain():
    write("empty", b"")
    write("short", text("short", 13))
    write("page", text("page", PAGE))
    write("page-and-a-byte", text("page-and-a-byte", PAGE + 1))
    write("odd", text("odd", (256 << 10) + 123))
    write("again", text("the first one", 3 * PAGE))
    write("shrunk", text("shrunk", 9 * PAGE))


def holes():
    fd = os.open("sparse", os.O_RDWR | os.O_CREAT)
    for at in (0, 1 << 20, (3 << 20) + 5):
        os.pwrite(fd, text(f"sparse at {at}", 5000), at)
    os.ftruncate(fd, (4 << 20) + 777)
    os.close(fd)
    # More runs than two pages of the extent tree can have.
    fd = os.open("runs", os.O_RDWR | os.O_CREAT)
    for n in range(600):
        os.pwrite(fd, text(f"run {n}", 64), n * 2 * PAGE)
    os.close(fd)
    write("punched", text("punched", 40 * PAGE))
    fallocate("punched", FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 7 * PAGE + 100, 20 * PAGE)
    fallocate("allocated", 0, 0, 5 * PAGE)
    write("only-a-hole", b"")
    os.truncate("only-a-hole", 1 << 20)


def clones():
    write("original", text("original", 32 * PAGE))
    clone("original", "clone")
    clone("original", "clone-changed")
    with open("clone-changed", "r+b") as file:
        file.seek(3 * PAGE)
        file.write(text("changed", 2 * PAGE))


def names():
    os.makedirs("/".join(f"deep{n}" for n in range(20)))
    write("deep0/deep1/deep2/below", text("below", 100))
    os.mkdir("many")
    for n in range(90):
        write(f"many/file-{n:02}", text(f"file {n}", 20 + n))
    write("n" * 255, text("long name", 300))
    write("Ümläute und 空白", text("utf-8", 300))
    os.symlink("odd", "link")
    os.symlink("deep0/deep1/deep2/below", "link-down")
    os.symlink("/no/such/file", "link-dangling")
    os.symlink("x/" * 2000, "link-long")


def attributes():
    for mode in (0o000, 0o600, 0o644, 0o4755, 0o2755):
        write(f"mode-{mode:04o}", text(f"mode {mode:o}", 50))
        os.chmod(f"mode-{mode:04o}", mode)
    for mode in (0o1777, 0o2775, 0o500):
        os.mkdir(f"dir-{mode:04o}")
        os.chmod(f"dir-{mode:04o}", mode)
    for name, uid, gid in (("user", 1000, 1001), ("nobody", 65534, 65534), ("large-ids", 4294967294, 2147483648)):
        write(f"of-{name}", text(name, 50))
        os.chown(f"of-{name}", uid, gid)
    for name, ns in (("epoch", 0), ("before", -123456789012345678), ("later", 4102444800_987654321)):
        write(f"time-{name}", text(name, 50))
        os.utime(f"time-{name}", ns=(ns, ns))


def links():
    os.mkdir("linked")
    write("linked/first", text("linked", 2 * PAGE))
    for n in range(20):
        os.link("linked/first", f"linked/name-{n:02}")
    os.link("linked/first", "deep0/elsewhere")
    write("linked/single", text("single", 10))
    os.link("linked/single", "linked/other")


def special():
    os.mkdir("special")
    os.mkfifo("special/fifo", 0o640)
    for name, kind, device in (("socket", stat.S_IFSOCK, 0), ("null", stat.S_IFCHR, os.makedev(1, 3)),
                               ("block", stat.S_IFBLK, os.makedev(259, 70000)), ("whiteout", stat.S_IFCHR, 0)):
        os.mknod(f"special/{name}", kind | 0o600, device)
    write("special/renamed", text("renamed", 70))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(-100, b"special/renamed", -100, b"special/now", 4):  # RENAME_WHITEOUT
        raise OSError(ctypes.get_errno(), "renameat2")


def acl(*entries):
    """As the kernel has them: (tag, permissions, id or None) each."""
    none = 0xffffffff
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", tag, perm, none if who is None else who)
                                           for tag, perm, who in entries)


def extended():
    """In the record, and in a page of their own"""
    os.mkdir("extended")
    write("extended/few", text("few", 33))
    for name in ("user.one", "trusted.two", "security.three"):
        os.setxattr("extended/few", name, name.encode())
    os.setxattr("extended/few", "user.empty", b"")
    write("extended/many", text("many", 34))
    for n in range(30):
        os.setxattr("extended/many", f"user.{n:03}", text(f"value {n}", 100))
    write("extended/acl", text("acl", 35))
    os.setxattr("extended/acl", "system.posix_acl_access",
                acl((1, 6, None), (2, 4, 1000), (4, 4, None), (8, 6, 2000), (16, 6, None), (32, 0, None)))
    os.setxattr("extended", "system.posix_acl_default",
                acl((1, 7, None), (2, 5, 1000), (4, 5, None), (16, 5, None), (32, 0, None)))
    write("extended/inherited", text("inherited", 36))
    os.symlink("few", "extended/symlink")
    os.setxattr("extended/symlink", "trusted.of-the-link", b"yes", follow_symlinks=False)


def changes():
    """What has been committed is deleted, made again, moved, cut and written to."""
    os.unlink("again")
    write("again", text("the second one", 2 * PAGE + 17))
    os.truncate("shrunk", 2 * PAGE + 1)
    for n in range(0, 90, 3):
        os.unlink(f"many/file-{n:02}")
    os.rename("many/file-01", "deep0/moved")
    os.rename("many/file-02", "many/file-04")
    with open("odd", "r+b") as file:
        file.seek(100_000)
        file.write(text("written later", 9000))
    with open("short", "ab") as file:
        file.write(b"and appended\n")
    os.unlink("linked/first")
    os.unlink("linked/name-07")
    os.removexattr("extended/many", "user.011")


def tell():
    for directory, names, others in os.walk("."):
        for name in sorted(names + others):
            path = os.path.join(directory, name)
            info = os.lstat(path)
            attributes = {key: os.getxattr(path, key, follow_symlinks=False).hex()
                          for key in sorted(os.listxattr(path, follow_symlinks=False))}
            print(path, info.st_nlink, info.st_rdev, attributes)


def main():
    if sys.argv[1] == "--tell":
        os.chdir(sys.argv[2])
        tell()
        return
    os.makedirs(sys.argv[1])
    os.chdir(sys.argv[1])
    for step in (plain, holes, clones, names, attributes, links, special, extended, changes):
        step()
        fd = os.open(".", os.O_RDONLY)
        os.fsync(fd)  # commits
        os.close(fd)


main()
