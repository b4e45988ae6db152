# SPDX-License-Identifier: Apache-2.0
"""Mount options that share the node out, and a pool that is damaged while it is mounted."""

import contextlib
import os
import struct

from machine import POOL, expect, wait_until
from registry import test

PAGE = 4096
MIB = 1 << 20

# Takes memory of node 1 as long as there is some, then of others; holds it until its input ends.
HOG = """
import ctypes, mmap, sys
mask = ctypes.c_ulong(2)
assert not ctypes.CDLL(None).syscall(238, 1, ctypes.byref(mask), 64)  # MPOL_PREFERRED
memory = mmap.mmap(-1, int(sys.argv[1]) << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for at in range(0, len(memory), 4096):
    memory[at] = 1
print("full", flush=True)
sys.stdin.read()
"""


def node_free(machine):
    """KiB of the node that nobody has, lists of CPUs included, as MemFree does not."""
    return int(machine.sh(f"stat -f -c %f {POOL}")) * PAGE // 1024


def fresh(machine, options):
    machine.remount("commit=0")
    machine.sh(f"find {POOL} -mindepth 1 -delete; sync -f {POOL}")
    machine.remount(options)


def write(machine, name, mib):
    """True, or False if there was no space."""
    done = machine.run("dd", "if=/dev/zero", f"of={POOL}/{name}", "bs=1M", f"count={mib}", "status=none", check=False)
    expect(done.returncode == 0 or "No space left" in done.stderr, done.stderr)
    return done.returncode == 0


@test("Mount.SizeLimitsTheStore", timeout=300)
def size_limits(machine):
    fresh(machine, "commit=0,size=64M")
    try:
        blocks = int(machine.sh(f"stat -f -c %b {POOL}"))
        expect(blocks == 64 * MIB // PAGE, f"statfs says {blocks} pages")
        expect(write(machine, "a", 40), "40 of 64 MiB refused")
        machine.sh(f"for i in 1 2 3; do cp --reflink=always {POOL}/a {POOL}/clone$i; done; sync -f {POOL}")
        free = int(machine.sh(f"stat -f -c %f {POOL}")) * PAGE
        expect(free == 24 * MIB, f"clones count: {free} bytes free")
        expect(not write(machine, "b", 40), "the limit is none")
        machine.sh(f"rm {POOL}/b {POOL}/a; sync -f {POOL}")
        free = int(machine.sh(f"stat -f -c %f {POOL}")) * PAGE
        expect(free == 24 * MIB, f"pages that clones have are counted as free: {free}")
        # The last commit still has them; who lacks their space makes another.
        machine.sh(f"rm {POOL}/clone*")
        expect(write(machine, "c", 40), "the space of deleted files is missing")
        expect(not write(machine, "b", 40), "the limit is none after that")
        machine.sh(f"rm {POOL}/b")
        machine.sh(f"rm {POOL}/c; sync -f {POOL}")
        expect(write(machine, "d", 60), "a commit of deletes gave nothing back")
        # An overwrite of committed pages needs new ones until the commit.
        machine.sh(f"sync -f {POOL}; mount -o remount,size=80M {POOL}; grep -q size=81920k /proc/mounts")
        expect(write(machine, "e", 16), "the new limit is not used")
        done = machine.run("mount", "-o", "remount,size=0", POOL, check=False)
        expect(done.returncode != 0, "a limit was dropped while owners are counted")
        # What is there at the next mount counts as well.
        machine.remount("commit=0,size=80M")
        free = int(machine.sh(f"stat -f -c %f {POOL}")) * PAGE
        expect(free == 4 * MIB, f"after a mount {free} bytes free")
        bad = machine.run("mount", "-o", "remount,size=80Q", POOL, check=False)
        expect(bad.returncode != 0, "size=80Q was taken")
    finally:
        fresh(machine, "commit=0")


# Clones a file of two pages and cuts the clone, many times; says how often the cut was done.
CUTS = """
import errno, fcntl, os, sys
pool, size, done = sys.argv[1], int(sys.argv[2]), 0
source = os.open(f"{pool}/source", os.O_RDWR)
for i in range(400):
    clone = os.open(f"{pool}/clone-{size}-{i}", os.O_CREAT | os.O_RDWR)
    fcntl.ioctl(clone, 0x40049409, source)
    try:
        os.ftruncate(clone, size)
        done += 1
    except OSError as error:
        assert error.errno == errno.ENOSPC, error
    os.fsync(clone)
    os.close(clone)
print(done)
"""


@test("Mount.CutsOfClonesDoNotExceedTheLimit", timeout=300)
def cuts_within_the_limit(machine):
    """A page that is cut within is another one, and what is cut off is the clone's alone."""
    fresh(machine, "commit=0,size=64M")
    try:
        machine.sh(f"head -c 8K /dev/urandom >{POOL}/source; sync -f {POOL}")
        expect(not write(machine, "rest", 80), "the limit is none")
        machine.sh(f"sync -f {POOL}")
        for size, most in ((8191, 0), (4095, 128)):
            done = int(machine.run("python3", "-c", CUTS, POOL, str(size)).stdout)
            expect(done <= most, f"to {size} bytes: {done} cuts")
            expect(most == 0 or done > 0, "what makes space is refused")
    finally:
        fresh(machine, "commit=0")


@test("Mount.CutsArePossibleBelowALimitThatWasLowered", timeout=300)
def cuts_beyond_the_limit(machine):
    """Or that is less than what is there when it is mounted; but they are no way round it."""
    def cut(where):
        machine.sh(f"truncate -s -4097 {POOL}/a-{where}; sync -f {POOL}; rm {POOL}/a-{where}; sync -f {POOL}")

    fresh(machine, "commit=0,size=64M")
    try:
        machine.sh(f"head -c 8K /dev/urandom >{POOL}/source")
        for name in ("a-mount", "a-remount", "b"):
            expect(write(machine, name, 18), "the limit is less")
        machine.sh(f"sync -f {POOL}; mount -o remount,size=16M {POOL}")
        cut("remount")
        machine.remount("commit=0,size=16M")
        cut("mount")
        expect(not write(machine, "c", 1), "the limit is none")
        machine.sh(f"rm {POOL}/c")
        done = int(machine.run("python3", "-c", CUTS, POOL, "4095").stdout)
        expect(0 < done <= 128, f"{done} cuts")
    finally:
        fresh(machine, "commit=0")


# Two remounts at a time: the context of the second is older than what the first does.
REMOUNTS = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *arguments):
    done = libc.syscall(number, *arguments)
    if done < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return done
FSCONFIG, FSPICK, SET_STRING, RECONFIGURE = 431, 433, 1, 7
def remount(context, key, value):
    call(FSCONFIG, context, SET_STRING, key, value, 0)
    call(FSCONFIG, context, RECONFIGURE, None, None, 0)
first, second = (call(FSPICK, -100, sys.argv[1].encode(), 0) for _ in range(2))
remount(first, b"commit", b"77")
remount(second, b"size", b"32M")
"""


@test("Mount.RemountsChangeOnlyWhatTheyName", timeout=300)
def remounts_at_a_time(machine):
    fresh(machine, "commit=0,size=64M,reserve=1M,byref=off")
    try:
        machine.run("python3", "-c", REMOUNTS, POOL)
        options = machine.sh(f"findmnt -no FS-OPTIONS {POOL}").split(",")
        expect({"commit=77", "size=32768k", "reserve=1024k", "byref=off"} <= set(options), f"it has {options}")
    finally:
        fresh(machine, "commit=0")


# Writes a page every 256 MiB of a file that no commit has, and takes each away at once.
HERE_AND_THERE = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
PUNCH, LONG = 3, ctypes.c_long
fd = os.open(sys.argv[1], os.O_CREAT | os.O_RDWR)
os.ftruncate(fd, 1 << 42)
for at in range(0, 1 << 42, 1 << 28):
    assert os.pwrite(fd, b"x", at) == 1
    assert not libc.fallocate(fd, PUNCH, LONG(at), LONG(4 << 20)), os.strerror(ctypes.get_errno())
"""


@test("Mount.WhatWasTakenAwayBeforeACommitTakesNoMemory", timeout=300)
def marks_without_end(machine):
    """With commit=0 nobody knows when one comes."""
    def slabs():
        return int(machine.sh("awk '/^(SReclaimable|SUnreclaim):/ { n += $2 } END { print n }' /proc/meminfo"))

    fresh(machine, "commit=0")
    try:
        before = slabs()
        machine.run("python3", "-c", HERE_AND_THERE, f"{POOL}/sparse")
        taken = slabs() - before
        print(f"{taken} KiB")
        expect(taken < 4096, f"{taken} KiB of kernel memory for a file that is one hole")
    finally:
        fresh(machine, "commit=0")


# Stores to MiB of a new file through a mapping, says what statfs has, and waits.
STORES = """
import mmap, os, sys
path, mib = sys.argv[1], int(sys.argv[2])
fd = os.open(path, os.O_CREAT | os.O_RDWR)
os.ftruncate(fd, mib << 20)
map = mmap.mmap(fd, mib << 20)
for at in range(0, mib << 20, 4096):
    map[at] = 1
print(os.statvfs(path).f_bavail * 4096 >> 20, flush=True)
sys.stdin.read()
"""


@test("Mount.SizeCountsWhatStoresHavePutAside", timeout=300)
def size_counts_spares(machine):
    fresh(machine, "commit=0,size=64M")
    stores = None
    try:
        machine.sh("sysctl -qw vm.dirty_writeback_centisecs=0")
        stores = machine.start("python3", "-c", STORES, f"{POOL}/map", "20", with_stdin=True)
        said = stores.stdout.readline().strip()
        expect(said in ("23", "24"), f"20 MiB are stored, and as much is put aside: {said} of 64 MiB free")
        expect(not write(machine, "a", 30), "others got what is put aside")
        machine.sh(f"rm {POOL}/a; sync -f {POOL}")
        expect(write(machine, "a", 40), "writing back gave nothing back")
        expect(not write(machine, "b", 10), "the limit is none")
    finally:
        if stores:
            stores.communicate("")
        machine.sh("sysctl -qw vm.dirty_writeback_centisecs=500")
        fresh(machine, "commit=0")


@test("Mount.ReserveIsThereWhenProcessesHaveTheRest", timeout=400)
def reserve(machine):
    fresh(machine, "commit=0")
    before = node_free(machine)
    fresh(machine, "commit=0,reserve=64M")
    hog = None
    try:
        machine.sh("grep -q reserve=65536k /proc/mounts")
        taken = before - node_free(machine)
        expect(60 * 1024 < taken < 80 * 1024, f"{taken} KiB set aside, not 64 MiB")
        hog = machine.start("python3", "-c", HOG, str(node_free(machine) // 1024 + 64), with_stdin=True)
        expect(hog.stdout.readline() == "full\n", "the node could not be filled")
        expect(node_free(machine) < 48 * 1024, "the node is not full")
        expect(write(machine, "kept", 60), "the reserve is not there")
        machine.sh(f"sync -f {POOL}")
    finally:
        if hog:
            hog.communicate("")
        fresh(machine, "commit=0")


@test("Mount.RemountMakesEarlierChangesDue", timeout=300)
def remount_interval(machine):
    fresh(machine, "commit=0")
    try:
        machine.sh(f"echo x >{POOL}/file; mount -o remount,commit=1 {POOL}")
        wait_until(lambda: not machine.snapctl_json("pool", "show")["dirty"], "the new interval's commit", 30)
    finally:
        fresh(machine, "commit=0")


def inode_page(machine, ino):
    """Offset in the NVDIMM's file of the newest page of the inode table with an inode."""
    found = (0, 0)
    with open(machine.nvdimm(), "rb") as file:
        end, at = os.fstat(file.fileno()).st_size, 0
        while at < end:
            try:
                at = os.lseek(file.fileno(), at, os.SEEK_DATA) // PAGE * PAGE
            except OSError:
                break
            file.seek(at)
            for offset in range(0, len(chunk := file.read(16 * MIB)), PAGE):
                if chunk[offset:offset + 4] == b"INOD":
                    generation, = struct.unpack_from("<Q", chunk, offset + 24)
                    first, = struct.unpack_from("<Q", chunk, offset + 48)
                    if first == ino // 7 * 7:
                        found = max(found, (generation, at + offset))
            at += len(chunk)
    return found[1]


@contextlib.contextmanager
def damaged_inode(machine, path):
    """The page of a file's inode has a wrong bit meanwhile."""
    ino = int(machine.sh(f"stat -c %i {path}"))
    page = inode_page(machine, ino)
    expect(page, "the file's inode is not found")
    with open(machine.nvdimm(), "r+b") as file:
        file.seek(page + 100)
        byte = file.read(1)[0]
        file.seek(page + 100)
        file.write(bytes([byte ^ 1]))
        file.flush()
        try:
            yield
        finally:
            file.seek(page + 100)
            file.write(bytes([byte]))


@test("Mount.DamagedMetadataMakesItReadOnly", timeout=300)
def damaged(machine):
    fresh(machine, "commit=0")
    machine.sh(f"head -c 1M /dev/urandom >{POOL}/victim; echo good >{POOL}/other; sync -f {POOL}")
    with damaged_inode(machine, f"{POOL}/victim"):
        # Who had a file open since before can change it no more.
        done = machine.run("sh", "-c", f"exec 3<>{POOL}/other; rm {POOL}/victim && sync -f {POOL};"
                           " python3 -c 'import os; os.ftruncate(3, 0)'", check=False)
        expect("Structure needs cleaning" in done.stderr, f"the damage went unnoticed: {done}")
        expect("Read-only file system" in done.stderr, f"still truncated: {done}")
        done = machine.run("sh", "-c", f"echo x >{POOL}/new", check=False)
        expect("Read-only file system" in done.stderr, f"still writable: {done}")
        expect(machine.sh(f"cat {POOL}/other") == "good", "nothing can be read any more")
        machine.sh("dmesg | grep -q 'committed metadata is damaged: .*wrong crc; read-only from now on'")
        done = machine.run("mount", "-o", "remount,rw", POOL, check=False)
        expect(done.returncode != 0, "writable again though damaged")
        machine.sh(f"umount {POOL}")
    # What the last commit had is still there, once the damage is mended.
    machine.sh(f"mount -t kmemfs -o commit=0 dax0.0 {POOL}; test $(stat -c %s {POOL}/victim) = 1048576")
    machine.sh(f"rm {POOL}/victim; sync -f {POOL}")


@test("Mount.UnmountWhoseCommitFailsKeepsTheLastOne", timeout=300)
def unmount_fails_to_commit(machine):
    fresh(machine, "commit=0")
    machine.sh(f"echo kept >{POOL}/kept; mkdir {POOL}/dir; head -c 1M /dev/urandom >{POOL}/victim; sync -f {POOL}")
    free = node_free(machine)
    with damaged_inode(machine, f"{POOL}/victim"):
        machine.sh(f"rm {POOL}/victim; head -c 64M /dev/zero >{POOL}/new; umount {POOL};"
                   " dmesg | grep -q 'changes since generation .* are lost: commit failed (-117)'")
    machine.sh(f"mount -t kmemfs -o commit=0 dax0.0 {POOL}")
    names = machine.sh(f"ls -A {POOL}").split()
    expect(names == ["dir", "kept", "victim"] and machine.sh(f"cat {POOL}/kept") == "kept",
           f"the last commit had not {names}")
    expect(node_free(machine) > free - 8192, f"{free} KiB were free, {node_free(machine)} are")
    fresh(machine, "commit=0")


# Reads from a file of its own FUSE server to a page of FILE through a mapping. The page is pinned
# when it says so. The answer, which makes the page dirty, comes after a line of input.
PINNED = """
import ctypes, mmap, os, struct, sys, threading
INIT, OPEN, READ, FORGET, GETATTR, RELEASE = 26, 14, 15, 2, 3, 18
ENOSYS, DIRECT_IO = 38, 1
page = os.open(sys.argv[1], os.O_RDWR)
map = mmap.mmap(page, 4096)
device, place = os.open("/dev/fuse", os.O_RDWR), "/run/pinned"
open(place, "w").close()
options = b"fd=%d,rootmode=100000,user_id=0,group_id=0" % device
assert not ctypes.CDLL(None).mount(b"pinned", place.encode(), b"fuse", 0, options)
held = threading.Event()

def answer(unique, data=b"", error=0):
    os.write(device, struct.pack("=IiQ", 16 + len(data), -error, unique) + data)

def serve():
    while True:
        request = os.read(device, 1 << 18)
        length, opcode, unique = struct.unpack_from("=IIQ", request)
        if opcode == INIT:
            answer(unique, struct.pack("=IIIIHHIIHHI", 7, 31, 4096, 0, 0, 0, 4096, 0, 0, 0, 0) + bytes(28))
        elif opcode == GETATTR:
            attr = struct.pack("=QQQQQQIIIIIIIIII", 1, 4096, 8, 0, 0, 0, 0, 0, 0, 0o100644, 1, 0, 0, 0, 4096, 0)
            answer(unique, struct.pack("=QII", 0, 0, 0) + attr)
        elif opcode == OPEN:
            answer(unique, struct.pack("=QII", 0, DIRECT_IO, 0))
        elif opcode == READ:
            held.unique = unique
            held.set()
        elif opcode == RELEASE:
            answer(unique)
        elif opcode != FORGET:
            answer(unique, error=ENOSYS)

threading.Thread(target=serve, daemon=True).start()
os.close(os.open(place, os.O_RDONLY))  # tells the kernel that there is no FLUSH, which would wait at the end
source = os.open(place, os.O_RDONLY)
reader = threading.Thread(target=os.readv, args=(source, [map]))
reader.start()
held.wait()
print("pinned", flush=True)
sys.stdin.readline()
answer(held.unique, b"late" * 1024)
reader.join()
assert map[:4] == b"late"
os._exit(0)
"""


@test("Mount.UnmountSaysWhichFileLosesWhatWasStoredThroughAMapping", timeout=300)
def unmount_loses_a_store(machine):
    """Who has pinned a page makes it dirty when he likes, without any space put aside."""
    fresh(machine, "commit=0,size=8M")
    pinned, name = None, f"lost-{os.getpid()}"
    try:
        machine.sh(f"head -c 4096 /dev/zero | tr '\\0' 'o' >{POOL}/{name}; sync -f {POOL}")
        pinned = machine.start("python3", "-c", PINNED, f"{POOL}/{name}", with_stdin=True)
        expect(pinned.stdout.readline() == "pinned\n", "nothing is pinned")
        # What the fault put aside goes with the commit.
        machine.sh(f"""sync -f {POOL}; cd {POOL}
            dd if=/dev/zero of=ballast bs=4096 status=none 2>/dev/null || true
            sync -f .
            ! dd if=/dev/zero of=ballast bs=4096 count=1 conv=notrunc status=none 2>/dev/null""")
        pinned.stdin.write("go on\n")
        pinned.stdin.flush()
        expect(pinned.wait(timeout=120) == 0, "the page was not stored to")
        pinned = None
        machine.sh(f"umount {POOL}; dmesg | grep 'inode .* ({name}): what was stored through a mapping is lost: no space'")
        machine.sh(f"mount -t kmemfs -o commit=0 dax0.0 {POOL}")
        expect(machine.sh(f"head -c 4 {POOL}/{name}") == "oooo", "the last commit has something else")
    finally:
        if pinned:
            pinned.communicate("")
        machine.sh("umount -l /run/pinned")
        fresh(machine, "commit=0")


# The kernel's recorder can let the device fail (CONFIG_KMEM_PERSIST_RECORD).
ERROR = "/sys/module/kmem_persist_record/parameters/error"
EIO, ENOMEM = 5, 12


@test("Mount.DeviceThatCannotStoreIsReadOnlyUntilTheNextBoot", timeout=600)
def not_durable(machine):
    def refused(command, reason):
        done = machine.run("sh", "-c", command, check=False)
        expect(done.returncode != 0, f"{command}: done")
        said = done.stderr + machine.sh("dmesg | tail -n 5")  # as mount(8) is old or new
        expect(reason in said, f"{command}: {said}")

    fresh(machine, "commit=0")
    for bad in ("5", "-5000", "x"):
        refused(f"echo {bad} >{ERROR}", "")
    machine.sh(f"echo kept >{POOL}/kept; sync -f {POOL}; echo new >{POOL}/new; echo -{EIO} >{ERROR}")
    refused(f"sync -f {POOL}", "Input/output error")
    # All that there was to commit was taken by the commit that failed.
    refused(f"sync {POOL}/new", "Read-only file system")
    refused(f"sync {POOL}", "Read-only file system")
    machine.sh(f"umount {POOL}; mount -t kmemfs -o commit=0 dax0.0 {POOL}")
    refused(f"echo x >{POOL}/x", "Read-only file system")
    refused(f"sync {POOL}/kept", "Read-only file system")
    refused(f"mount -o remount,rw {POOL}", "the device cannot make data durable")
    machine.sh(f"""grep -q ' {POOL} kmemfs ro' /proc/mounts; test $(cat {POOL}/kept) = kept
        dmesg | grep -q 'dax0.0 cannot make data durable: read-only until the next boot'""")
    machine.power_cycle()
    machine.remount("commit=0")
    machine.sh(f"test $(cat {POOL}/kept) = kept; echo x >{POOL}/x; sync {POOL}/x")


@test("Mount.CommitWaitsForMemoryToAskTheDeviceWith", timeout=300)
def no_memory_to_ask_with(machine):
    fresh(machine, "commit=0")
    machine.sh(f"echo x >{POOL}/x; echo -{ENOMEM} >{ERROR}; sync -f {POOL}; test $(cat {ERROR}) = 0")
    machine.sh(f"echo y >{POOL}/y; sync {POOL}/y")
    machine.power_cycle()
    machine.ensure_pool()
    machine.sh(f"test $(cat {POOL}/x) = x; test $(cat {POOL}/y) = y")


# Page tables without content: one stored page, and clones that have it every 4 MiB.
TABLES = """
import errno, fcntl, os, struct, sys
FICLONE, FICLONERANGE, STEP, STEPS = 0x40049409, 0x4020940d, 4 << 20, 256
first = os.open(sys.argv[1] + "/first", os.O_CREAT | os.O_RDWR)
os.write(first, bytes(4096))
try:
    for i in range(1, STEPS):
        fcntl.ioctl(first, FICLONERANGE, struct.pack("=qQQQ", first, 0, 4096, i * STEP))
    for i in range(1000000):
        clone = os.open(sys.argv[1] + "/clone%d" % i, os.O_CREAT | os.O_RDWR)
        fcntl.ioctl(clone, FICLONE, first)
        os.close(clone)
    sys.exit("no limit")
except OSError as e:
    print(i, os.strerror(e.errno))
"""


@test("Mount.WhateverCanBeMadeCanBeMounted", timeout=600)
def tables(machine):
    """Page tables and inodes need kernel memory, all of it at the mount."""
    limit = "/sys/module/kmemfs/parameters/max_tables"
    fresh(machine, "commit=0")
    machine.sh(f"echo 64 >{limit}")
    try:
        made, why = machine.run("python3", "-c", TABLES, POOL).stdout.strip().split(maxsplit=1)
        expect(why == "No space left on device", why)
        expect(25 <= int(made) <= 35, f"{made} clones of 1 MiB of tables in half of 64 MiB")
        machine.remount("commit=0")
        last = int(made) - 1
        machine.sh(f"cmp {POOL}/first {POOL}/clone{last}; rm {POOL}/clone{last}; echo x >{POOL}/again; sync -f {POOL}")
    finally:
        machine.sh(f"echo 0 >{limit}")
        fresh(machine, "commit=0")


SUM_ALL = """
import fcntl, os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
fcntl.ioctl(fd, 0xdb44, 0)
"""


# Verifies a file that holds: says how many pages have been compared, and how many have no checksum.
VERIFY = """
import fcntl, os, struct, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
found = bytearray(struct.pack("=7Q", 0, os.fstat(fd).st_size, 0, 0, 0, 0, 0))
fcntl.ioctl(fd, 0xc038db43, found)
print(*struct.unpack("=7Q", found)[4:6])
"""


@test("Mount.ChecksumsForWhichThereIsNoMemoryAreReadFromTheDevice", timeout=900)
def sums_not_held(machine):
    """They are a page of kernel memory for each 1,008 of data, nearly as much as the page tables."""
    limit, pages = "/sys/module/kmemfs/parameters/max_tables", 560 * MIB // PAGE

    def verify(compared, without):
        found = machine.run("python3", "-c", VERIFY, f"{POOL}/file").stdout
        expect(found.split() == [str(compared), str(without)], f"compared, and without: {found}")

    fresh(machine, "commit=0")
    machine.sh(f"head -c 560M /dev/zero >{POOL}/file")
    machine.run("python3", "-c", SUM_ALL, POOL)
    machine.sh(f"echo 1 >{limit}; dmesg -C")
    try:
        machine.remount("commit=0,ro")
        said = machine.sh("dmesg")
        expect("there is no memory for the checksums of " in said, f"said: {said}")
        verify(pages, 0)
        # A commit lets go of the pages that it replaces, and the next one takes them for others.
        machine.remount("commit=0")
        for at in (0, 50000, 100000):
            machine.sh(f"tr '\\0' x </dev/zero | dd of={POOL}/file bs=4096 seek={at} count=100 "
                       f"iflag=fullblock conv=notrunc status=none && sync -f {POOL}")
            verify(pages - 100 - at // 500, 100 + at // 500)
        machine.sh(f"echo 0 >{limit}")
        machine.remount("commit=0")
        machine.run("python3", "-c", SUM_ALL, POOL)
        verify(pages, 0)
        machine.sh(f"cmp -n 40960000 -i 409600 {POOL}/file /dev/zero && rm {POOL}/file && sync -f {POOL}")
    finally:
        machine.sh(f"echo 0 >{limit}")
        fresh(machine, "commit=0")


@test("Mount.OtherOptionsOfASecondMountAreRefused", timeout=300)
def second_mount(machine):
    fresh(machine, "commit=0,byref=off,size=64M")
    place = f"{POOL}-again"
    machine.sh(f"mkdir -p {place}")

    def again(options):
        done = machine.run("mount", "-t", "kmemfs", "-o", options, "dax0.0", place, check=False)
        if done.returncode == 0:
            machine.sh(f"umount {place}")
        return done

    try:
        for options in ("defaults", "commit=0", "byref=off,size=64M"):
            expect(again(options).returncode == 0, f"{options}: refused")
        for options, other in (("byref=on", "byref="), ("commit=7", "commit="), ("size=32M", "size="),
                               ("reserve=1M", "reserve="), ("ro", "ro")):
            done = again(options)
            expect(done.returncode != 0, f"{options}: another mount's option was taken, and ignored")
            said = done.stderr + machine.sh("dmesg | tail -n 5")  # as mount(8) is old or new
            expect(f"dax0.0 is mounted already, with another {other}" in said, f"{options}: {said}")
        machine.sh(f"grep ' {POOL} ' /proc/mounts | grep -q byref=off; echo x >{POOL}/file; sync -f {POOL}")
    finally:
        machine.sh(f"umount {place} 2>/dev/null || true; rmdir {place}")
        fresh(machine, "commit=0")
