# SPDX-License-Identifier: Apache-2.0
"""What the kernel makes of a device with a pool, whole or damaged."""

import os
import subprocess
import sys

import header
import mutation
from device_test import PAGE, WRITE_HEAD, DeviceTest


class Stored(DeviceTest):
    """Memory of a device that stores something cannot be taken away, by no way of asking. The
    checkers of the debug kernel look on."""

    flavour = "debug"

    def setUp(self):
        """Attached and mounted; stays so until the end of the class."""
        if self.vm.guest("state")["driver"] == "kmem":
            return
        if not header.present(self.vm.read(0)):
            subprocess.run([WRITE_HEAD, self.vm.image, str(self.vm.data), str(self.size)], check=True)
        self.bind()
        self.vm.shell("mkdir -p /mnt/pool && mount -t kmemfs dax0.0 /mnt/pool")

    def tearDown(self):
        pass

    def assert_works(self):
        """What was stored is there, and more can be."""
        self.vm.shell("cd /mnt/pool && head -c 8M /dev/urandom >/root/file && cp /root/file new"
                      " && cmp new /root/file && mv new stored && sync -f stored && cmp stored /root/file")

    def test_every_page_is_counted(self):
        state = self.vm.guest("state")
        self.assert_all_online(state)
        self.assert_all_counted(state)
        self.assert_works()

    def test_blocks_cannot_be_offlined(self):
        self.assertEqual(set(self.vm.guest("blocks", "offline").values()), {"EBUSY"})
        self.assert_all_online(self.vm.guest("state"))
        self.assertIn("memory not offlined: the device holds data", self.vm.kernel_log())
        self.assert_works()

    def test_there_is_no_hibernation(self):
        """A resume would bring back what is stored now, over what is committed later."""
        self.assertEqual(self.vm.shell("cat /sys/power/disk"), "[disabled]\n")
        # If it were not refused it would fail later: there is no swap.
        self.assertIn("Operation not permitted", self.vm.shell("echo disk | tee /sys/power/state 2>&1 || true"))
        self.assert_works()

    def test_unbinding_leaves_all_as_it_is(self):
        self.assert_works()
        self.vm.guest("unbind")
        state = self.vm.guest("state")
        self.assertIsNone(state["driver"])
        self.assert_all_online(state)
        self.assert_all_counted(state)
        self.assertIn("unbound while in use", self.vm.kernel_log())
        self.vm.shell("cmp /mnt/pool/stored /root/file")
        self.assert_works()
        self.assertEqual(self.vm.guest("bind")["bind"], 0)
        self.assert_works()

    def test_unbinding_while_not_mounted_keeps_what_is_stored(self):
        self.assert_works()
        self.vm.shell("umount /mnt/pool")
        self.vm.guest("unbind")
        self.assert_all_online(self.vm.guest("state"))
        self.assertEqual(self.vm.guest("bind")["bind"], 0)
        self.vm.shell("mount -t kmemfs dax0.0 /mnt/pool && cmp /mnt/pool/stored /root/file")

    def test_other_memory_of_its_node_stays_offline(self):
        name = self.vm.plug_nvdimm(512)
        own = {block["name"] for block in self.vm.guest("state")["blocks"]}
        self.assertEqual(self.vm.guest("bind_plain", name)["driver"], "kmem")
        others = [b for b in self.vm.guest("state")["blocks"] if b["name"] not in own]
        self.assertTrue(others)
        self.assertEqual({b["state"] for b in others}, {"offline"})
        asked = self.vm.guest("blocks", "online_movable")
        self.assertEqual({asked[b["name"]] for b in others}, {"EBUSY"})
        self.assertIn("node 1 is this device's alone", self.vm.kernel_log())
        self.assert_works()

    def test_stored_after_a_power_cut(self):
        self.assert_works()
        before = self.vm.shell("sha256sum </mnt/pool/stored")
        self.vm.cut()
        self.vm.up()
        self.setUp()
        self.assertEqual(self.vm.shell("sha256sum </mnt/pool/stored"), before)
        self.assert_all_counted(self.vm.guest("state"))


class Scale(DeviceTest):
    """A large device, full of single pages."""

    nvdimm = "8G"

    def attach(self, runs):
        """A device with a file of so many runs: bound, mounted; the processor's seconds of the binding."""
        self.write_runs(runs)
        before = self.vm.cpu_seconds()
        bound = self.vm.guest("bind")
        used = self.vm.cpu_seconds() - before
        self.assertEqual(bound["bind"], 0, self.vm.kernel_log()[-2000:])
        print(f"attached {runs} runs in {bound['seconds']:.2f} s, {used:.2f} s of the processor")
        state = self.vm.guest("state")
        self.assert_all_online(state)
        self.assert_all_counted(state)
        self.assert_huge_pages(state)
        self.vm.shell(f"mkdir -p /mnt/pool && mount -t kmemfs dax0.0 /mnt/pool && test $(stat -c %b /mnt/pool/runs) = {runs * 8}")
        return used

    def test_attach_is_linear_and_leaves_huge_pages(self):
        runs = 2000000
        quarter = self.attach(runs // 4)
        self.vm.cut()
        self.vm.up()
        full = self.attach(runs)
        # Far from the 16 times of a square, whatever other tests do to the caches meanwhile.
        self.assertLess(full, 7 * quarter)
        # Under 2 s on a machine of its own.
        self.assertLess(full, 6)
        # Given back page by page, in whatever order.
        self.vm.shell("rm /mnt/pool/runs && sync -f /mnt/pool")
        self.assert_huge_pages(self.vm.guest("state"))
        self.vm.cut()
        self.vm.up()

    def test_files_that_need_more_memory_than_there_is_are_not_mounted(self):
        """A page table of 4 KiB for each run: rather no mount than the out-of-memory killer."""
        self.write_runs(1000000, step=1024)
        self.assertEqual(self.vm.guest("bind")["bind"], 0, self.vm.kernel_log()[-2000:])
        for _ in range(2):
            self.vm.shell("mkdir -p /mnt/pool && ! mount -t kmemfs dax0.0 /mnt/pool && ! mountpoint -q /mnt/pool")
        log = self.vm.kernel_log()
        self.assertEqual(log.count("dax0.0: not mounted: inodes and page tables of its files need more"), 2, log[-2000:])
        self.assertNotIn("Out of memory", log)
        self.vm.cut()
        self.vm.up()


class StoredDamaged(DeviceTest):
    """What is stored is verified before any memory is added."""

    def test_device_without_a_valid_root_is_refused(self):
        subprocess.run([WRITE_HEAD, self.vm.image, str(self.vm.data), str(self.size)], check=True)
        self.vm.write(1, os.urandom(2 * PAGE))
        before = self.vm.digest()
        self.assertNotEqual(self.vm.guest("bind")["bind"], 0)
        state = self.vm.guest("state")
        self.assertEqual((state["driver"], state["blocks"], state["zones"]), (None, [], {}))
        self.assertEqual(self.vm.digest(), before)
        self.assertIn("dax0.0: refused:", self.vm.kernel_log())

    def test_older_root_never_replaces_a_damaged_one(self):
        """Its pages may have been used again since."""
        subprocess.run([WRITE_HEAD, self.vm.image, str(self.vm.data), str(self.size)], check=True)
        self.bind()
        self.vm.shell("mkdir -p /mnt/pool && mount -t kmemfs dax0.0 /mnt/pool && cd /mnt/pool &&"
                      " for i in 1 2 3; do echo $i >file; sync -f file; done")
        self.vm.cut()
        ruling = 1 if self.vm.read(1)[:4] == b"ROOT" else 2
        other = 3 - ruling
        self.assertEqual((self.vm.read(ruling)[:4], self.vm.read(other)[:4]), (b"ROOT", b"RETD"))
        root = self.vm.read(ruling)
        self.vm.write(ruling, root[:128] + bytes([root[128] ^ 1]) + root[129:])
        before = self.vm.digest()
        self.vm.up()
        self.assertNotEqual(self.vm.guest("bind")["bind"], 0)
        state = self.vm.guest("state")
        self.assertEqual((state["driver"], state["blocks"], state["zones"]), (None, [], {}))
        self.assertEqual(self.vm.digest(), before)
        self.assertIn("no valid root slot: ", self.vm.kernel_log())
        # Repaired, it is what it was; an older root that came back is retired by the attach.
        self.vm.write(ruling, root)
        self.vm.write(other, b"ROOT" + self.vm.read(other)[4:])
        self.bind()
        self.assertEqual(self.vm.shell("mkdir -p /mnt/pool && mount -t kmemfs dax0.0 /mnt/pool"
                                       " && cat /mnt/pool/file").strip(), "3")
        self.assertEqual(self.vm.read(other)[:4], b"RETD")
        self.vm.cut()
        self.vm.up()


class BadMedia(DeviceTest):
    """What is known to be unreadable is not touched: the roots refuse the device, data is lost alone."""

    RUNS = 600

    def setUp(self):
        """A file of so many pages."""
        self.first = self.write_runs(self.RUNS)

    def tearDown(self):
        """A pool that is attached stays so: after the last test."""
        if self.vm.guest("state")["driver"] != "kmem":
            super().tearDown()

    def bad(self, *pages):
        self.assertEqual(self.vm.guest("bad", *map(str, pages))["bad"], 0)

    def assert_refused(self, page, reason):
        self.bad(page)
        before = self.vm.digest()
        self.assertEqual(self.vm.guest("bind")["bind"], "EIO")
        self.assertEqual(self.vm.guest("state")["blocks"], [])
        self.assertEqual(self.vm.digest(), before)
        said = [line for line in self.vm.kernel_log().splitlines() if "dax0.0: refused:" in line]
        self.assertIn(reason, said[-1] if said else "(nothing said)")

    def test_1_roots_refuse_the_device_and_name_the_page(self):
        self.assert_refused(0, "cannot read page 0")
        self.assert_refused(1, "page 1: root slot 0 cannot be read")
        self.assert_refused(2, "page 2: root slot 1 cannot be read")

    def test_2_device_without_header_may_have_had_one(self):
        self.vm.write(0, bytes(PAGE))
        self.assert_refused(0, "cannot read page 0")

    def test_3_what_nobody_can_read_is_told(self):
        self.vm.shell("echo nonsense >/sys/module/kmem_persist_bad/parameters/ranges")
        self.assertEqual(self.vm.guest("bind")["bind"], "EINVAL")
        self.assertIn("kmem_persist_bad.ranges= is not START-END", self.vm.kernel_log())

    def test_4_data_is_lost_alone_and_free_pages_are_not_used(self):
        """Reading the page is an error, and of that page only; the file says so. This ends the boot."""
        data = (self.first + self.RUNS // 252 + 64) & ~1  # write_runs.c; pages are in pairs, the wrong way round
        number, lost, free = 5, data + 4, data + self.RUNS + 10
        self.bad(lost, free)
        state = self.bind()
        self.assert_all_online(state)
        self.assert_all_counted(state)
        self.assertEqual(self.vm.shell("awk '/^HardwareCorrupted/ {print $2}' /proc/meminfo").strip(), "8")
        self.vm.shell("mkdir -p /mnt/pool && mount -t kmemfs dax0.0 /mnt/pool")
        self.assertRegex(self.vm.kernel_log(), rf"dax0\.0: inode 2 \(runs\) is damaged: page {number} of it is lost")
        self.vm.shell(f"""set -e
            read() {{ dd if=/mnt/pool/runs of=/dev/null bs=4096 status=none "$@"; }}
            read count={number}; read skip={number + 1}
            if read skip={number} count=1 2>/root/said; then exit 1; fi
            grep -q 'Input/output error' /root/said""")
        self.vm.shell("rm /mnt/pool/runs && sync -f /mnt/pool")
        self.assertTrue(self.vm.guest("use", "256")["intact"])


class Mutated(DeviceTest):
    """No damage to committed metadata is taken, and none harms the debug kernel.
    DAXSNAP_MUTATION_SECONDS (default: a fixed number of cases) and DAXSNAP_MUTATION_SEED make
    longer runs by hand."""

    CASES, LIES = 6, 3
    flavour = "debug"
    FILL = """mkdir -p /mnt/pool && mount -t kmemfs -o commit=0 dax0.0 /mnt/pool && cd /mnt/pool
        for d in $(seq 8); do mkdir d$d; for f in $(seq 12); do echo $d.$f >d$d/f$f; done; done
        ln -s d1/f1 link; head -c 3M /dev/urandom >large
        python3 -c 'import os
        f = os.open("sparse", os.O_RDWR | os.O_CREAT)
        for i in range(700): os.pwrite(f, b"x", i * 8192)'
        cd / && sync -f /mnt/pool && umount /mnt/pool""".replace("\n        ", "\n")
    CONTENT = """mount -t kmemfs -o ro dax0.0 /mnt/pool && cd /mnt/pool &&
        find . -type f -print0 | sort -z | xargs -0 sha256sum | sha256sum && cd / && umount /mnt/pool"""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        subprocess.run([WRITE_HEAD, cls.vm.image, str(cls.vm.data), str(cls.size)], check=True)
        assert cls.vm.guest("bind")["bind"] == 0
        cls.vm.shell(cls.FILL)
        cls.content = cls.vm.shell(cls.CONTENT)
        cls.reboot()
        cls.saved = cls.vm.image.with_suffix(".saved")
        subprocess.run(["cp", "--sparse=always", cls.vm.image, cls.saved], check=True)
        cls.slot, generation = mutation.ruling_slot(cls.vm)
        cls.tree = mutation.metadata_pages(cls.vm, generation)
        assert len(cls.tree) > 20, cls.tree

    @classmethod
    def reboot(cls):
        """An attached device that stores something is let go of by a power cut alone."""
        cls.vm.shell("sync -f /root")  # the guest's script
        cls.vm.cut()
        cls.vm.up()

    def tearDown(self):
        pass

    def assert_refused(self, what):
        """Or attached to be read alone"""
        before = self.vm.digest()
        if refused := self.vm.guest("bind")["bind"] != 0:
            self.assertIn("dax0.0: refused:", self.vm.kernel_log())
        else:
            self.assertIn("; attached read-only", self.vm.kernel_log(), f"taken in spite of {what}")
            self.vm.shell("if mount -w -t kmemfs dax0.0 /mnt/pool; then exit 1; fi;"
                          " if mount -r -t kmemfs dax0.0 /mnt/pool; then ls -lR /mnt/pool >/dev/null;"
                          " find /mnt/pool -type f -exec cat {} + >/dev/null; umount /mnt/pool; fi")
        self.assertEqual(self.vm.digest(), before, f"written to in spite of {what}")
        if not refused:
            self.reboot()

    def test_damage_is_never_taken(self):
        pages = [0, self.slot, *self.tree]
        for chance in mutation.cases(self.CASES):
            what, written = mutation.damage(self.vm, chance, pages)
            before = {page: self.vm.read(page) for page in written}
            for page, data in written.items():
                self.vm.write(page, data)
            self.assert_refused(what)
            for page, data in before.items():
                self.vm.write(page, data)
        self.assertEqual(self.vm.guest("state")["blocks"], [])
        # What was there is there still.
        self.assertEqual(self.vm.guest("bind")["bind"], 0)
        self.assertEqual(self.vm.shell(self.CONTENT), self.content)
        self.reboot()

    def test_lies_with_a_right_crc_harm_nobody(self):
        """They may be taken, where they keep the rules: then all can be read, changed and committed; or
        else be read alone."""
        taken = 0
        for chance in mutation.cases(self.LIES):
            page = chance.choice([self.slot, *self.tree])
            before = self.vm.read(page)
            self.vm.write(page, mutation.lie(self.vm, chance, page))
            digest = self.vm.digest()
            if self.vm.guest("bind")["bind"]:
                self.assertEqual(self.vm.digest(), digest, f"written to, though refused: page {page}")
                self.vm.write(page, before)
                continue
            taken += 1
            self.vm.shell("mount -t kmemfs dax0.0 /mnt/pool && cd /mnt/pool && ls -lR >/dev/null;"
                          " find . -type f -exec cat {} + >/dev/null; rm -rf d1; echo new >new;"
                          " cd /; sync -f /mnt/pool; umount /mnt/pool || true")
            self.vm.cut()
            subprocess.run(["cp", "--sparse=always", self.saved, self.vm.image], check=True)
            self.vm.up()
        print(f"{taken} taken", file=sys.stderr)
