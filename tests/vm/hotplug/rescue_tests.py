# SPDX-License-Identifier: Apache-2.0
"""What of a damaged pool can be read, and what damage is named."""

import hashlib
import re
import struct
import subprocess

import mutation
from device_test import PAGE, WRITE_HEAD, DeviceTest


class Rescue(DeviceTest):
    """A tree that does not hold below a root that does: what can be read is there, read-only."""

    # 13 inodes a directory, and 7 a leaf: leaf 2 has d0/f11, d1 (15) and d1/f0 to f4.
    FILL = """import os
os.chdir("/mnt/pool")
for d in range(8):
    os.mkdir(f"d{d}")
    for f in range(12):
        with open(f"d{d}/f{f}", "w") as file: file.write(f"{d}.{f}" * 1000)
os.symlink("d1/f1", "link")
def large(name, count, step):
    f = os.open(name, os.O_RDWR | os.O_CREAT)
    for i in range(count): os.pwrite(f, f"{name} {i}".encode(), i * step * 4096)
    os.ftruncate(f, count * step * 4096)
large("large", 100, 1)
large("sparse", 1200, 2)
if VERSION == 2:
    os.link("d2/f3", "d3/further")
    os.setxattr("large", "user.large", b"x" * 1000)
"""

    def attach(self):
        self.assertEqual(self.vm.guest("bind")["bind"], 0, self.vm.kernel_log()[-2000:])

    def reboot(self):
        self.vm.shell("sync -f /root")
        self.vm.cut()
        self.vm.up()

    def fill(self, version, script=FILL):
        """A pool with something of each kind, in one commit, and what is in it."""
        subprocess.run([WRITE_HEAD, self.vm.image, str(self.vm.data), str(self.size), str(version)], check=True)
        self.attach()
        self.vm.shell(f"mkdir -p /mnt/pool && mount -t kmemfs -o commit=0 dax0.0 /mnt/pool &&"
                      f" python3 -c 'VERSION = {version}\n{script}' && umount /mnt/pool &&"
                      f" mount -r -t kmemfs dax0.0 /mnt/pool")
        self.whole = self.vm.guest("content")
        self.assertEqual(self.vm.guest("info_flags"), 0)
        self.reboot()
        self.tree = {}
        for number in mutation.metadata_pages(self.vm, mutation.ruling_slot(self.vm)[1]):
            page = self.vm.read(number)
            kind, (owner,) = page[:4], struct.unpack_from("<Q", page, 32)
            self.tree.setdefault(b"INDX of a file" if kind == b"INDX" and owner else kind, []).append(number)

    def leaf(self, ino):
        """Where the inode's record is: (device page, offset)"""
        for page in self.tree[b"INOD"]:
            first, = struct.unpack_from("<Q", self.vm.read(page), 48)
            if first <= ino < first + 7:
                return page, 64 + (ino - first) * 576
        self.fail(f"no inode {ino}")

    def fullest(self, kind):
        """Of the file with holes, which has the most runs, if it is no top"""
        return max(self.tree[kind], key=lambda page: struct.unpack_from("<I", self.vm.read(page), 40))

    def rescue(self, changed, reason):
        """What is there if these pages are like that. Nothing is written meanwhile."""
        good = {page: self.vm.read(page) for page in changed}
        for page, data in changed.items():
            self.vm.write(page, data)
        digest = self.vm.digest()
        self.attach()
        self.assertEqual(self.vm.guest("state")["node_kib"]["MemFree"], 0)
        self.vm.shell("""set -e
            if mount -w -t kmemfs dax0.0 /mnt/pool; then exit 1; fi
            mount -r -t kmemfs dax0.0 /mnt/pool
            if mount -o remount,rw /mnt/pool; then exit 1; fi""")
        self.assertEqual(self.vm.guest("info_flags"), 1)
        refused = self.vm.guest("writes")
        self.assertIn(refused.pop("upgrade"), (0, "EROFS"))  # 0: it is of version 2 already
        self.assertEqual(set(refused.values()), {"EROFS"})
        found = self.vm.guest("content")
        found["verify"] = self.vm.guest("verify")
        self.vm.shell("umount /mnt/pool")
        self.assertEqual(self.vm.digest(), digest, "written to")
        self.log = self.vm.kernel_log()
        self.assertRegex(self.log, rf"dax0\.0: kmemfs: generation \d+ does not hold: {reason}.*; attached read-only")
        self.assertIn("what dax0.0 stores is damaged, see the kernel's log: mount it read-only", self.log)
        self.reboot()
        for page, data in good.items():
            self.vm.write(page, data)
        self.assertEqual([f["other"] for f in found["files"].values() if f["other"]], [], "neither there nor EIO")
        return found

    def spoil(self, page):
        """A bit of it is wrong"""
        good = self.vm.read(page)
        return self.rescue({page: good[:200] + bytes([good[200] ^ 1]) + good[201:]}, f"page {page}: wrong crc")

    def assert_whole(self, found, names):
        self.assertEqual({n: found["files"].get(n) for n in names}, {n: self.whole["files"][n] for n in names})

    def assert_damaged_alone(self, found, nothing_left=False):
        """The file with holes has lost some of its pages; there is no hole of which that would not be said."""
        was, there = self.whole["files"]["sparse"], found["files"]["sparse"]
        self.assertEqual(set(found["files"]), set(self.whole["files"]))
        self.assert_whole(found, set(self.whole["files"]) - {"sparse"})
        self.assertEqual((found["links"], found["directories"]), (self.whole["links"], self.whole["directories"]))
        self.assertLess(there["pages"].items(), was["pages"].items())
        self.assertTrue(all(int(page) % 2 == 0 for page in there["pages"]), "a hole that may be none was read")
        self.assertEqual(not there["pages"], nothing_left)
        self.assertEqual((there["size"], there["hole"]), (was["size"], was["size"]))
        bad = {name: (there[0], there[3]) for name, there in found["verify"].items() if there[0]}
        first = min(set(range(there["size"] // PAGE)) - set(map(int, there["pages"])))
        self.assertEqual(bad, {"sparse": ("EIO", first)})
        if nothing_left:
            self.assertEqual(found["verify"]["sparse"][4], there["size"] // PAGE, "more than one damage")
        self.assertIn("(sparse): pages ", self.log)

    def check_table(self):
        found = self.spoil(*self.tree[b"INDX"])
        self.assertEqual((found["files"], found["directories"], found["links"]), ({}, [], {}))
        found = self.spoil(self.leaf(15)[0])
        gone = {"d0/f11", *(f"d1/f{f}" for f in range(12))}
        self.assert_whole(found, set(self.whole["files"]) - gone)
        self.assertEqual({name: there for name, there in found["files"].items() if name not in self.whole["files"]},
                         {f"lost#15/f{f}": self.whole["files"][f"d1/f{f}"] for f in range(5, 12)})
        self.assertIn("inodes 14 to 20 are lost: ", self.log)

    def test_version_1(self):
        self.fill(1)
        self.check_table()
        self.assert_damaged_alone(self.spoil(self.fullest(b"EXTS")))
        self.assert_damaged_alone(self.spoil(*self.tree[b"INDX of a file"]), nothing_left=True)
        page = self.fullest(b"EXTS")
        self.vm.guest("bad", str(page))
        self.assert_damaged_alone(self.rescue({}, f"page {page}: cannot be read"))

    def test_version_2(self):
        self.fill(2)
        self.check_table()
        self.assert_damaged_alone(self.spoil(self.fullest(b"SEGM")))
        self.assert_damaged_alone(self.spoil(*self.tree[b"NODE"]), nothing_left=True)
        found = self.spoil(*self.tree[b"XATT"])
        self.assertEqual(found["files"], self.whole["files"])
        self.assertEqual((self.whole["attributes"]["large"], found["attributes"]["large"]), (0, "EIO"))

    def test_directories_that_lead_nowhere_and_names_used_twice(self):
        """Lies with a right crc: d1 and d2 are in each other, and d3 has the name of d4."""
        self.fill(2)
        changed = {}
        for ino, at, data in ((15, 8, struct.pack("<Q", 28)), (28, 8, struct.pack("<Q", 15)), (41, 320, b"d4")):
            page, offset = self.leaf(ino)
            old = changed.get(page, self.vm.read(page))
            new = old[:offset + at] + data + old[offset + at + len(data):]
            changed[page] = new[:4] + mutation.crc_of(new).to_bytes(4, "little") + new[8:]
        found = self.rescue(changed, "inode ")
        self.assertEqual(found["directories"], ["d0", "d4", "d4#54", "d5", "d6", "d7", "lost#15", "lost#15/d2",
                                                "lost#15/d2/d1"])
        moved = {"d1": "lost#15/d2/d1", "d2": "lost#15/d2", "d3": "d4", "d4": "d4#54"}
        for directory, now in moved.items():
            for f in range(12):
                self.assertEqual(found["files"][f"{now}/f{f}"], self.whole["files"][f"{directory}/f{f}"])

    def number_of(self, name):
        """Of the inode"""
        for page in map(self.vm.read, self.tree[b"INOD"]):
            for at in range(64, PAGE - 575, 576):
                if page[at + 320:at + 320 + page[at + 319]] == name:
                    return struct.unpack_from("<Q", page, at)[0]
        self.fail(f"no {name}")

    def tree_without_end(self, ino):
        """317,520 ways to one page of data and 503 holes, in four pages of a tree: all that an inode needs for that."""
        data = next(run[0] for segment in map(self.vm.read, self.tree[b"SEGM"])
                    for run in struct.iter_unpack("<II", segment[64:]) if run[0])
        uuid, generation = mutation.head_of(self.vm.read(self.leaf(ino)[0]))[2:]
        # Before all that the pool has: it begins at the end of the device.
        free = min([data] + sum(self.tree.values(), [])) - 2048
        changed, length, ways, top = {}, 504, 1, 0
        for level, entries in enumerate((504, 252, 252, 5)):
            if level:
                content, length, ways = struct.pack("<IIQ", top, 0, length) * entries, length * entries, ways * entries
            else:
                content = struct.pack("<II", data, 1) + struct.pack("<II", 0, 1) * (entries - 1)
            top = free + level
            changed[top] = (struct.pack("<4sI16sQQIIQ8x", b"NODE" if level else b"SEGM", 0, uuid, generation, top,
                                        entries, level, length) + content).ljust(PAGE, b"\0")
        number, at = self.leaf(ino)
        page = bytearray(self.vm.read(number))
        struct.pack_into("<Q", page, at + 16, length * PAGE)
        struct.pack_into("<QQQ", page, at + 56, top, ways, ways)
        struct.pack_into("<I", page, at + 92, level)
        changed[number] = bytes(page)
        slot, _ = mutation.ruling_slot(self.vm)
        page = bytearray(self.vm.read(slot))
        meta, pages = struct.unpack_from("<QQ", page, 96)
        struct.pack_into("<QQ", page, 96, meta + 4, pages + ways)
        changed[slot] = bytes(page)
        return {n: page[:4] + mutation.crc_of(page).to_bytes(4, "little") + page[8:] for n, page in changed.items()}

    def test_a_tree_that_is_reached_without_end(self):
        """It ends, with an error, for those of its pages that have not been reached; other files are whole."""
        self.fill(2)
        ino = self.number_of(b"sparse")
        for page, data in self.tree_without_end(ino).items():
            self.vm.write(page, data)
        self.attach()
        self.assertRegex(self.vm.kernel_log(), r"dax0\.0: kmemfs: generation \d+ does not hold: "
                         rf"inode {ino}: too many pages of shared trees.*; attached read-only")
        said = self.vm.shell("""set -e
            mount -r -t kmemfs dax0.0 /mnt/pool; cd /mnt/pool
            for page in 0 70000000 160030079; do
              dd if=sparse of=/root/page bs=4096 skip=$page count=1 2>/dev/null && echo read || echo refused
            done
            cat d0/f1 | md5sum; cat d7/f11 | md5sum""").splitlines()
        whole = [hashlib.md5(name * 1000).hexdigest() + "  -" for name in (b"0.1", b"7.11")]
        self.assertEqual(said, ["read", "refused", "refused"] + whole)
        self.vm.shell("umount /mnt/pool")
        self.reboot()

    def test_many_names_that_are_the_same(self):
        """Each gets a number of its own at once: a mount does not try all those before."""
        self.fill(2, """import os
os.chdir("/mnt/pool")
with open("file", "w") as file: file.write("content")
for i in range(3000): os.link("file", f"l{i:04}")
""")
        changed = {}
        for page in self.tree[b"INOD"]:
            new = bytearray(self.vm.read(page))
            for name in range(64 + 320, PAGE, 576):
                if new[name:name + 1] == b"l":
                    new[name:name + 5] = b"l0000"
            new[4:8] = mutation.crc_of(bytes(new)).to_bytes(4, "little")
            if new != self.vm.read(page):
                changed[page] = bytes(new)
        found = self.rescue(changed, r"inodes \d+ and \d+ have the same name")
        names = set(found["files"])
        self.assertEqual(len(names), 3001)
        self.assertEqual({name for name in names if not re.fullmatch(r"file|l0000(#\d+)?", name)}, set())
        self.assertEqual(set(map(str, found["files"].values())), {str(found["files"]["file"])})


class Checksums(DeviceTest):
    """What media changes of data behind the kernel's back is found, in the file that has it; and damage to
    the checksums themselves costs no more than those."""

    PAGES = 1500  # of a file: more than a leaf of checksums is for
    FILL = """import os
os.chdir("/mnt/pool")
def fill(name):
    with open(name, "wb") as file:
        for i in range(PAGES): file.write(f"{name} {i} ".encode().ljust(4096, b"."))
        os.fsync(file.fileno())
fill("first")
fill("second")
"""

    def tearDown(self):
        """A pool that stores something stays attached: each test ends with a power cut."""

    def reboot(self):
        self.vm.shell("sync -f /root")
        self.vm.cut()
        self.vm.up()

    def mount(self, options="-r"):
        self.assertEqual(self.vm.guest("bind")["bind"], 0, self.vm.kernel_log()[-2000:])
        self.vm.shell(f"mkdir -p /mnt/pool && mount {options} -t kmemfs -o commit=0 dax0.0 /mnt/pool")
        self.assertEqual(self.vm.guest("info_flags"), 0, "attached read-only")

    def fill(self, more="sums"):
        """Two files with all checksums on media"""
        subprocess.run([WRITE_HEAD, self.vm.image, str(self.vm.data), str(self.size), "2"], check=True)
        self.mount("")
        self.vm.shell(f"python3 -c 'PAGES = {self.PAGES}\n{self.FILL}'")
        self.assertEqual(self.vm.guest("sums"), {"sums": 0})
        self.assertEqual(self.vm.guest("verify"), self.good)

    good = {"first": [0, PAGES, 0, None, None], "second": [0, PAGES, 0, None, None]}

    def pages_of(self, name, number):
        """Where media has a page of a file, and what is left of it in memory that a process had"""
        wanted, found = f"{name} {number} ".encode().ljust(PAGE, b"."), []
        for start, chunk in self.vm.chunks():
            at = chunk.find(wanted)
            while at >= 0:
                found.append((start + at - self.vm.data) // PAGE)
                at = chunk.find(wanted, at + PAGE)
        self.assertTrue(found, f"page {number} of {name} is nowhere")
        return found

    def flip(self, page, at=1000):
        old = self.vm.read(page)
        self.vm.write(page, old[:at] + bytes([old[at] ^ 1]) + old[at + 1:])

    def test_flipped_bytes_are_named_by_file_and_offset(self):
        self.fill()
        # Committed, but its checksums are not: no later commit comes.
        self.vm.shell("cd /mnt/pool && python3 -c 'for i in range(100): print(end=f\"late {i} \".ljust(4096, \".\"))'"
                      " >late && sync -f . && cp --reflink=always second clone")
        self.reboot()
        for name in ("second", 7), ("second", 1400), ("late", 3):
            for page in self.pages_of(*name):
                self.flip(page)
        self.mount()
        found = self.vm.guest("verify")
        self.assertEqual(found, {"first": self.good["first"], "second": ["EIO", 7, 0, 7, 1],
                                 "late": [0, 0, 100, None, None]})
        # Only what it says is bad: with that page anew the other one shows, and the damage is not covered up by
        # checksums that are made afterwards.
        self.vm.shell("mount -o remount,rw /mnt/pool && cd /mnt/pool && cp --reflink=always second clone &&"
                      " printf 'second 7 %4087s' '' | tr ' ' . | dd of=second bs=4096 seek=7 conv=notrunc status=none")
        self.assertEqual(self.vm.guest("sums"), {"sums": 0})
        found = self.vm.guest("verify")
        self.assertEqual((found["second"], found["clone"]), (["EIO", 1400, 0, 1400, 1], ["EIO", 7, 0, 7, 1]))
        # Of what was damaged before it had a checksum nobody can know.
        self.assertEqual((found["first"], found["late"]), (self.good["first"], [0, 100, 0, None, None]))
        self.reboot()

    def sums_pages(self):
        """(top, leaves) of the table of checksums that the ruling root leads to"""
        slot, _ = mutation.ruling_slot(self.vm)
        top, height = struct.unpack_from("<QI", self.vm.read(slot), 136)
        self.assertEqual(height, 1)
        number, = struct.unpack_from("<I", self.vm.read(top), 40)
        return top, [leaf for leaf in struct.unpack_from(f"<{number}Q", self.vm.read(top), 64) if leaf]

    def check_lost(self, reason, change=lambda: None):
        """How many checksums are lost, of a pool that is otherwise as good as ever"""
        self.mount("")
        log = self.vm.kernel_log()
        self.assertRegex(log, rf"dax0\.0: kmemfs: generation \d+: checksums of data are lost: {reason}")
        self.assertRegex(log, rf"dax0\.0: checksums of device pages \d+ to \d+ are lost: {reason}")
        found = self.vm.guest("verify")
        self.assertEqual({name: [there[0], there[1] + there[2], there[3]] for name, there in found.items()},
                         {name: [0, self.PAGES, None] for name in self.good})
        self.assertEqual(self.vm.guest("sums"), {"sums": 0})
        self.assertEqual(self.vm.guest("verify"), self.good)
        self.reboot()
        self.mount()
        self.assertNotIn("checksums of", self.vm.kernel_log())
        self.assertEqual(self.vm.guest("verify"), self.good)
        self.reboot()
        return sum(there[2] for there in found.values())

    def test_damage_to_the_table_costs_checksums_alone(self):
        self.fill()
        self.reboot()
        top, leaves = self.sums_pages()
        self.assertGreaterEqual(len(leaves), 3)
        self.flip(leaves[1])
        lost = self.check_lost(f"page {leaves[1]}: wrong crc")
        self.assertGreater(lost, 0)
        self.assertLess(lost, 2 * self.PAGES)
        top, leaves = self.sums_pages()
        self.flip(top)
        self.assertEqual(self.check_lost(f"page {top}: wrong crc"), 2 * self.PAGES)
        top, leaves = self.sums_pages()
        self.vm.guest("bad", str(leaves[0]))
        self.assertGreater(self.check_lost(f"page {leaves[0]}: cannot be read"), 0)

    def inode_leaf(self):
        """The newest page of the inode table"""
        for generation in range(mutation.ruling_slot(self.vm)[1], 0, -1):
            for page in mutation.metadata_pages(self.vm, generation):
                if self.vm.read(page)[:4] == b"INOD":
                    return page
        self.fail("no inode table")

    def test_a_pool_that_is_only_read_is_compared_as_well(self):
        """As the record of another file does not hold"""
        self.fill()
        self.vm.shell("cd /mnt/pool && echo x >lost && stat -c %i lost >/root/ino && sync -f .")
        self.assertEqual(self.vm.guest("sums"), {"sums": 0})
        ino = int(self.vm.shell("cat /root/ino"))
        self.reboot()
        for page in self.pages_of("first", 2):
            self.flip(page)
        leaf = self.inode_leaf()
        page = bytearray(self.vm.read(leaf))
        page[64 + ino % 7 * 576 + 312] = 1  # reserved
        page[4:8] = mutation.crc_of(bytes(page)).to_bytes(4, "little")
        self.vm.write(leaf, page)
        digest = self.vm.digest()
        self.assertEqual(self.vm.guest("bind")["bind"], 0)
        self.vm.shell("mkdir -p /mnt/pool && mount -r -t kmemfs dax0.0 /mnt/pool")
        self.assertEqual(self.vm.guest("info_flags"), 1)
        self.assertEqual(self.vm.guest("verify"), {"first": ["EIO", 2, 0, 2, 1], "second": self.good["second"]})
        self.assertEqual(self.vm.guest("sums"), {"sums": "EROFS"})
        self.assertEqual(self.vm.digest(), digest, "written to")
        self.reboot()
