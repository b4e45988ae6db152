# SPDX-License-Identifier: Apache-2.0
"""A pool as the storage of containers: further names, special inodes, attributes, overlays;
and the upgrade that gives them to an older pool. What was synced is there after a power cut."""

import random
import time

from machine import POOL, WORK, expect
from registry import test

TREE = f"{POOL}/storage"

# Name, kind, mode, owners, device, size, time, target, attributes of all below argv[1];
# files by content; inodes by the names that share them, unless argv[2] is there.
DESCRIBE = """
import hashlib, os, stat, sys
top, seen = sys.argv[1], {}
for where, dirs, files in os.walk(top):
    dirs.sort()
    for name in sorted(dirs + files):
        path = os.path.join(where, name)
        s = os.lstat(path)
        say = [os.path.relpath(path, top), oct(s.st_mode), s.st_uid, s.st_gid, s.st_mtime_ns]
        if len(sys.argv) < 3:
            say += [seen.setdefault(s.st_ino, os.path.relpath(path, top)), s.st_nlink]
        if stat.S_ISREG(s.st_mode):
            say += [s.st_size, hashlib.sha256(open(path, "rb").read()).hexdigest()]
        if stat.S_ISLNK(s.st_mode):
            say.append(os.readlink(path))
        if s.st_rdev:
            say.append(s.st_rdev)
        for key in sorted(os.listxattr(path, follow_symlinks=False)):
            say += [key, os.getxattr(path, key, follow_symlinks=False).hex()]
        print(*say)
"""

# Everything that format version 2 knows, below argv[1].
MAKE = """
import os, socket, stat, struct, sys
os.makedirs(sys.argv[1])
os.chdir(sys.argv[1])
def acl(*entries):
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", tag, perm, who) for tag, perm, who in entries)
NONE = 0xffffffff
LIST = acl((1, 6, NONE), (2, 6, 4242), (4, 4, NONE), (0x10, 6, NONE), (0x20, 0, NONE))
os.mkdir("d")
for i in range(30):
    with open(f"f{i}", "wb") as file:
        file.write(os.urandom(i * 1000))
    for j in range(i % 4):
        os.link(f"f{i}", f"d/link{i}.{j}")
for i in range(0, 30, 5):
    os.unlink(f"f{i}")
os.mknod("null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
os.mknod("block", stat.S_IFBLK | 0o600, os.makedev(259, 70000))
os.mknod("whiteout", stat.S_IFCHR)
os.mkfifo("fifo")
os.link("fifo", "d/fifo")
socket.socket(socket.AF_UNIX).bind("socket")
os.symlink("f1", "symlink")
os.setxattr("f1", "user.small", b"1")
os.setxattr("f1", "trusted.overlay.opaque", b"y")
os.setxattr("f2", "user.large", os.urandom(3000))
os.setxattr("f2", "security.capability", bytes.fromhex("0100000200200000000000000000000000000000"))
os.setxattr("symlink", "trusted.x", b"link", follow_symlinks=False)
os.setxattr("whiteout", "trusted.x", b"w")
os.setxattr("f3", "system.posix_acl_access", LIST)
os.setxattr("d", "system.posix_acl_default", LIST)
open("d/inherits", "w").close()
os.mkdir("d/sub")
for i in range(100):
    os.setxattr("f4", f"user.{i}", bytes(i % 20))
"""


def python(machine, program, *argv, **kwargs):
    return machine.run("python3", "-c", program, *argv, **kwargs).stdout


def clean(machine):
    machine.remount("commit=0")
    machine.sh(f"find {POOL} -mindepth 1 -delete; sync -f {POOL}")


def expect_same(before, after, what):
    differs = set(before.splitlines()) ^ set(after.splitlines())
    expect(not differs, f"{what}:\n" + "\n".join(sorted(differs)[:20]))


@test("Storage.NamesNodesAndAttributesSurviveAPowerCut", timeout=300)
def survive(machine):
    clean(machine)
    python(machine, MAKE, TREE)
    before = python(machine, DESCRIBE, TREE)
    expect(before.count("user.") > 100 and "socket" in before, f"not made: {before}")
    machine.sh(f"sync -f {POOL}; ln {TREE}/f7 {TREE}/uncommitted; rm {TREE}/f8 {TREE}/d/link9.0")
    machine.power_cycle()
    machine.ensure_pool()
    expect_same(before, python(machine, DESCRIBE, TREE), "after a power cut differs")
    # Each name that goes lets another one be the first; then all of it goes.
    machine.remount("commit=0")
    machine.sh(f"""cd {TREE}; rm f1 f2 f3 f6 f7 d/link5.0 d/link10.* fifo; mv d/link11.0 moved; sync -f .""")
    before = python(machine, DESCRIBE, TREE)
    machine.power_cycle()
    machine.ensure_pool()
    expect_same(before, python(machine, DESCRIBE, TREE), "names that went differ")
    free = int(machine.sh(f"rm -r {TREE}; sync -f {POOL}; stat -f -c %f {POOL}"))
    machine.remount("commit=0")
    again = int(machine.sh(f"stat -f -c %f {POOL}"))
    expect(abs(again - free) < 2048, f"{free - again} pages were lost")


@test("Storage.TarKeepsAttributesAndLists", timeout=300)
def tar(machine):
    clean(machine)
    python(machine, MAKE, TREE)
    keep = "--xattrs --xattrs-include='*' --acls"
    machine.sh(f"""
        rm {TREE}/socket {TREE}/d/fifo  # it stores no sockets, and links of files alone
        tar -C {TREE} {keep} --format=pax -cf {WORK}/tree.tar .
        mkdir {POOL}/copy; tar -C {POOL}/copy {keep} -xpf {WORK}/tree.tar; sync -f {POOL}""")
    before = python(machine, DESCRIBE, TREE)
    expect_same(before, python(machine, DESCRIBE, f"{POOL}/copy"), "the copy differs")
    machine.power_cycle()
    machine.ensure_pool()
    expect_same(before, python(machine, DESCRIBE, f"{POOL}/copy"), "the copy differs after a power cut")


OVERLAY = f"""
    mkdir -p {POOL}/merged; cd {POOL}
    mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work merged
"""


@test("Storage.OverlayHasItsUpperDirectoryOnAPool", timeout=300)
def overlay(machine):
    clean(machine)
    machine.sh(f"""
        cd {POOL}; mkdir lower upper work
        mkdir -p lower/dir/sub lower/gone lower/opaque
        for i in 1 2 3 4 5 6; do echo $i >lower/$i; echo $i >lower/dir/$i; done
        ln lower/1 lower/hard; echo old >lower/opaque/old; dmesg -c >/dev/null
        {OVERLAY}
        cd merged
        rm 2; rm -r gone; mv 3 dir/moved; echo changed >4; chmod 600 5; ln 6 dir/six
        rm -r opaque; mkdir opaque; echo new >opaque/new
        mv dir/1 renamed; mkdir made; python3 -c 'import os; os.rename("made", "dir/made")'
        mkfifo fifo; touch file; python3 -c 'import os; os.setxattr("file", "user.x", b"v")'
        sync -f .""")
    said = machine.sh("dmesg | grep -i overlay || true")
    for missing in ("tmpfile", "WHITEOUT", "d_type", "xattr", "missing required"):
        expect(missing not in said, f"the overlay lacks something: {said}")
    # An overlay forgets which names of it share an inode number, and its whiteouts are links
    # of one that goes when it is unmounted.
    before = python(machine, DESCRIBE, f"{POOL}/merged", "names")
    upper = python(machine, DESCRIBE, f"{POOL}/upper", "names")
    expect(machine.sh(f"stat -c %F,%t,%T {POOL}/upper/2") == "character special file,0,0", "no whiteout of 2")
    expect("trusted.overlay.opaque" in upper, "no opaque directory")
    names = machine.sh(f"cd {POOL}/merged; ls; ls dir opaque; cat 4 dir/moved opaque/new").split()
    expect("2" not in names[:8] and "gone" not in names and "changed" in names and "old" not in names, str(names))
    machine.power_cycle()
    machine.ensure_pool()
    machine.sh(OVERLAY)
    after = python(machine, DESCRIBE, f"{POOL}/merged", "names")
    machine.sh(f"umount {POOL}/merged")
    expect_same(before, after, "the overlay differs after a power cut")
    expect_same(upper, python(machine, DESCRIBE, f"{POOL}/upper", "names"), "the upper directory differs")


# Changes of all kinds in one stream; each directory is finished by a rename, then synced.
CHANGES = """
import os, random, sys
top, seed, start = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
fd = os.open(top, os.O_RDONLY)
for n in range(start, 1 << 30):
    dice = random.Random(seed + n)
    os.chdir(top)
    os.mkdir("new")
    os.chdir("new")
    for i in range(5):
        with open(f"f{i}", "w") as file:
            file.write(f"{n} " * dice.randrange(3000))
        for j in range(dice.randrange(4)):
            os.link(f"f{i}", f"l{i}.{j}")
        for j in range(dice.randrange(4)):
            os.setxattr(f"f{i}", f"user.{j}", bytes([n % 256]) * dice.randrange(900))
        os.mknod(f"n{i}", 0o20600, os.makedev(n % 256, i))
        if dice.randrange(2):
            os.unlink(f"f{i}")
    os.chdir(top)
    os.rename("new", f"gen{n}")
    if n >= start + 3:
        os.system(f"rm -r gen{n - 3}")
    os.sync() if n % 5 == 0 else os.fsync(fd)
    print(n, flush=True)
"""

CHECK = """
import os, random, sys
top, seed = sys.argv[1], int(sys.argv[2])
last = max((int(n[3:]) for n in os.listdir(top) if n.startswith("gen")), default=-1)
for name in os.listdir(top):
    if not name.startswith("gen"):
        continue
    n = int(name[3:])
    dice = random.Random(seed + n)
    os.chdir(os.path.join(top, name))
    names = set()
    whole = n > last - 3  # the one before may have been being deleted
    for i in range(5):
        content = f"{n} " * dice.randrange(3000)
        links = [f"l{i}.{j}" for j in range(dice.randrange(4))]
        attributes = {f"user.{j}": bytes([n % 256]) * dice.randrange(900) for j in range(dice.randrange(4))}
        if not dice.randrange(2):
            links.append(f"f{i}")
        names |= set(links) | {f"n{i}"}
        for link in links:
            if not os.path.exists(link) and not whole:
                continue
            assert open(link).read() == content, (name, link)
            assert {k: os.getxattr(link, k) for k in os.listxattr(link)} == attributes, (name, link)
            if whole:
                assert os.stat(link).st_nlink == len(links), (name, link)
        if os.path.lexists(f"n{i}"):
            assert os.lstat(f"n{i}").st_rdev == os.makedev(n % 256, i)
    assert set(os.listdir(".")) <= names, (name, os.listdir("."))
    if whole:
        assert set(os.listdir(".")) == names, (name, os.listdir("."))
print(last)
"""


@test("Storage.PowerCutsAtRandomMomentsLeaveWholeTrees", timeout=500)
def random_cuts(machine):
    seed = int(time.time())
    print(f"seed {seed}")
    dice = random.Random(seed)
    clean(machine)
    last = -1
    for _ in range(2):
        machine.sh(f"rm -rf {POOL}/new")
        writer = machine.start("python3", "-c", CHANGES, POOL, str(seed), str(last + 1))
        # At a random moment, of which there are more the longer it runs.
        for _ in range(dice.randrange(2, 12)):
            line = writer.stdout.readline()
            expect(line, f"the writer ended: {writer.stderr.read() if not line else ''}")
            last = int(line)
        time.sleep(dice.random() / 2)
        machine.power_cycle()
        writer.kill()
        writer.wait()
        machine.ensure_pool()
        found = int(python(machine, CHECK, POOL, str(seed)))
        expect(found >= last, f"generation {last} was synced, {found} is the last one there")
        last = found
