# SPDX-License-Identifier: Apache-2.0
"""What the kernel makes of a device, before anything is stored: as stock without our header, all memory
with type NONE, and hands off when anything about it is not understood."""

import os
import random

import header
import mutation
from device_test import PAGE, DeviceTest
from machine import SELFTESTS

MARKER = random.randbytes(PAGE)


class NoHeader(DeviceTest):
    """A device without a header is plain KMEM."""

    def test_blocks_stay_offline_with_the_default_policy(self):
        self.vm.write(0, bytes(PAGE))
        state = self.bind()
        self.assertEqual([b["state"] for b in state["blocks"]], ["offline"] * self.usable_blocks(state))
        self.assertEqual(state["zones"], {})

    def test_blocks_come_online_free_in_the_zone_asked_for(self):
        self.vm.write(0, os.urandom(PAGE))
        self.bind()
        for zone, wanted in (("Movable", "online_movable"), ("Normal", "online_kernel")):
            with self.subTest(zone=zone):
                self.assertEqual(set(self.vm.guest("blocks", wanted).values()), {0})
                state = self.vm.guest("state")
                self.assert_all_online(state, zone)
                self.assert_all_counted(state, zone)
                self.assertEqual(set(self.vm.guest("blocks", "offline").values()), {0})

    def test_its_first_page_is_memory_like_any_other(self):
        """The magic alone in some other place is not a header."""
        self.vm.write(0, bytes(PAGE))
        self.vm.write(1, header.page(self.size))
        state = self.bind()
        self.assertEqual({b["state"] for b in state["blocks"]}, {"offline"})


class TypeNone(DeviceTest):
    """Type NONE keeps nothing; the header stays."""

    def setUp(self):
        self.header = header.page(self.size, label=b"none")
        self.vm.write(0, self.header)

    def test_all_memory_is_free_and_counted(self):
        before = self.vm.guest("state")["total_kib"]
        state = self.bind()
        self.assert_all_online(state)
        self.assert_all_counted(state)
        self.assert_all_free(state)
        self.assert_huge_pages(state)
        self.assertEqual(state["total_kib"] - before, state["node_kib"]["MemTotal"])

    def test_selftest_of_the_kernel(self):
        self.bind()
        self.vm.put(SELFTESTS / "kmem_none.sh")
        said = self.vm.shell("KMEM_NONE=dax0.0 sh /root/kmem_none.sh")
        self.assertEqual(said.count("ok: "), 5, said)
        self.assertNotIn("FAIL", said)

    def test_memory_can_be_used_and_given_back(self):
        self.bind()
        used = self.vm.guest("use", "256")
        self.assertTrue(used["intact"])
        self.assertGreaterEqual(used["anon_kib"], 256 << 10)
        self.assert_all_free(self.vm.guest("state"))

    def test_what_a_process_had_stays_on_the_medium(self):
        """As docs/operations.md warns; what helps is tried in InitOnFree."""
        self.bind()
        self.assertTrue(self.vm.guest("use", "64", MARKER.hex())["intact"])
        self.assertTrue(self.vm.holds(MARKER))

    def test_blocks_offlined_and_onlined_again_are_ordinary(self):
        self.bind()
        for zone, wanted in (("Normal", "online_kernel"), ("Movable", "online_movable")):
            with self.subTest(zone=zone):
                self.assertEqual(set(self.vm.guest("blocks", "offline").values()), {0})
                self.assertEqual(self.vm.guest("state")["zones"], {})
                self.assertEqual(set(self.vm.guest("blocks", wanted).values()), {0})
                state = self.vm.guest("state")
                self.assert_all_online(state, zone)
                self.assert_all_counted(state, zone)
                self.assert_all_free(state, zone)

    def test_header_survives_use_unbind_and_bind(self):
        for _ in range(3):
            self.bind()
            self.vm.guest("use", "64")
            self.assertEqual(set(self.vm.guest("blocks", "offline").values()), {0})
            self.assertEqual(self.vm.guest("unbind")["unbind"], 0)
            self.assertEqual(self.vm.guest("state")["blocks"], [])
        self.assertEqual(self.vm.read(0), self.header)

    def test_device_unbound_with_memory_online_is_found_again(self):
        self.bind()
        self.vm.guest("unbind")
        state = self.vm.guest("state")
        self.assertIsNone(state["driver"])
        self.assert_all_online(state)
        self.assert_all_online(self.bind())

    def test_header_survives_a_power_cut(self):
        self.bind()
        self.vm.cut()
        self.vm.up(*self.parameters, node=self.node)
        self.assertEqual(self.vm.read(0), self.header)
        self.assert_all_counted(self.bind())


class Refused(DeviceTest):
    """Devices with a header that is not understood are neither used nor written to."""

    parameters = ("memory_hotplug.memmap_on_memory=1",)

    def assert_refused(self, page, reason):
        self.vm.write(0, page)
        before = self.vm.digest()
        self.assertNotEqual(self.vm.guest("bind")["bind"], 0, f"taken, though {reason}")
        state = self.vm.guest("state")
        self.assertEqual((state["driver"], state["blocks"], state["zones"]), (None, [], {}))
        self.assertEqual(self.vm.digest(), before, f"the device was written to, though {reason}")
        said = [line for line in self.vm.kernel_log().splitlines() if "dax0.0: refused:" in line]
        self.assertIn(reason, said[-1] if said else "(nothing said)")

    def test_damaged_header(self):
        good = header.page(self.size)
        flipped = bytearray(good)
        flipped[100] ^= 1
        self.assert_refused(bytes(flipped), "wrong crc")
        self.assert_refused(b"XAXSNAP\x1a" + good[8:], "wrong magic")
        self.assert_refused(good[:2048] + bytes(2048), "wrong crc")

    def test_destroyed_header_of_which_the_roots_tell(self):
        """Nothing in page 0 says that it was a header; what it told of is there, and would be overwritten."""
        for kind in (header.FS, header.BLK):
            for number in (1, 2) if kind == header.FS else (1,):
                good = header.page(self.size, kind=kind)
                pages = [mutation.root(kind) if at == number else bytes(PAGE) for at in (1, 2)]
                for damaged in (bytes(64) + good[64:], bytes(PAGE), random.randbytes(PAGE), b"\xff" * PAGE):
                    self.assert_refused(damaged + b"".join(pages),
                                        f"header: destroyed; page {number} is a root of pool "
                                        "00010203-0405-0607-0809-0a0b0c0d0e0f")
        self.vm.write(1, bytes(2 * PAGE))

    def test_page_that_only_looks_like_a_root_refuses_nothing(self):
        self.vm.write(0, bytes(PAGE) + b"".join(
            root[:2000] + b"x" + root[2001:] for root in (mutation.root(header.FS), mutation.root(header.BLK))))
        self.assertEqual(self.vm.guest("bind")["bind"], 0)
        self.vm.guest("unbind")
        self.vm.write(1, bytes(2 * PAGE))

    def test_any_flipped_bit(self):
        good, chance = header.page(self.size, label=b"fuzz"), random.Random(3)
        for _ in range(8):
            bit = chance.randrange(8 * PAGE)
            flipped = bytearray(good)
            flipped[bit // 8] ^= 1 << bit % 8
            with self.subTest(bit=bit):
                self.assert_refused(bytes(flipped), "header:")

    def test_newer_version(self):
        self.assert_refused(header.page(self.size, version=2), "version 2, at most 1")

    def test_unknown_type(self):
        self.assert_refused(header.page(self.size, kind=99), "unknown type 99")

    def test_block_device_without_superblock(self):
        self.assert_refused(header.page(self.size, kind=header.BLK), "superblock: wrong magic")

    def test_unknown_incompatible_feature(self):
        self.assert_refused(header.page(self.size, incompat=1 << 40), "incompatible features 0x10000000000")

    def test_wrong_uuid_length(self):
        for length in (0, 8, 17, 1 << 31):
            self.assert_refused(header.page(self.size, uuid_len=length), f"uuid length {length}")

    def test_wrong_range_size(self):
        for size in (0, self.size - PAGE, self.size + (2 << 20), (1 << 64) - 1):
            self.assert_refused(header.page(size), f"written for {size} bytes")

    def test_fields_that_must_be_zero(self):
        self.assert_refused(header.page(self.size, reserved0=1), "reserved bytes not zero")
        self.assert_refused(header.page(self.size, reserved=bytes(3000) + b"\1"), "reserved bytes not zero")
        self.assert_refused(header.page(self.size, label=b"a" * 64), "label not zero padded")

    def test_memmap_on_memory(self):
        self.assertEqual(self.vm.guest("memmap", "1")["memmap"], 0)
        try:
            self.assert_refused(header.page(self.size), "memmap_on_memory")
        finally:
            self.vm.guest("memmap", "0")

    def test_device_can_be_repaired_and_used(self):
        """A refusal leaves nothing behind that would be in the way."""
        self.assert_refused(header.page(self.size, version=7), "version 7")
        self.vm.write(0, header.page(self.size))
        self.assert_all_counted(self.bind())


class CrashKernel(DeviceTest):
    """A kernel that was started by a crash, to save what that left, leaves pools alone."""

    parameters, RUNS = ("elfcorehdr=0x2000000",), 600

    def assert_refused(self):
        before = self.vm.digest()
        self.assertEqual(self.vm.guest("bind")["bind"], "EPERM")
        state = self.vm.guest("state")
        self.assertEqual((state["driver"], state["blocks"], state["zones"]), (None, [], {}))
        self.assertEqual(self.vm.digest(), before)
        said = [line for line in self.vm.kernel_log().splitlines() if "dax0.0: refused:" in line]
        self.assertIn("this kernel was started by a crash", said[-1] if said else "(nothing said)")

    def test_pool_is_neither_attached_nor_freed(self):
        for kind in (header.NONE, header.BLK):
            self.vm.write(0, header.page(self.size, kind=kind))
            self.assert_refused()
        self.write_runs(self.RUNS)
        self.assert_refused()
        self.vm.cut()
        self.vm.up()
        self.assert_all_counted(self.bind())
        self.vm.shell("mkdir -p /mnt/pool && mount -t kmemfs dax0.0 /mnt/pool &&"
                      f" test $(stat -c %b /mnt/pool/runs) = {self.RUNS * 8} && cat /mnt/pool/runs >/dev/null")

    def tearDown(self):
        """The pool stays attached."""


class InitOnFree(DeviceTest):
    """What helps against what TypeNone shows of the medium."""

    parameters = ("init_on_free=1",)

    def test_nothing_of_a_process_stays_on_the_medium(self):
        self.vm.write(0, header.page(self.size))
        self.bind()
        self.assertTrue(self.vm.guest("use", "64", MARKER.hex())["intact"])
        self.assertFalse(self.vm.holds(MARKER))


class SharedNode(DeviceTest):
    """The pool allocates by node, so no other memory may be there."""

    node = 0

    def test_device_on_the_node_of_the_ram_is_refused(self):
        ram_blocks = self.vm.guest("state")["blocks"]
        self.vm.write(0, header.page(self.size))
        before = self.vm.digest()
        self.assertNotEqual(self.vm.guest("bind")["bind"], 0)
        self.assertEqual(self.vm.guest("state")["blocks"], ram_blocks)
        self.assertEqual(self.vm.digest(), before)
        self.assertIn("refused: node 0 has other memory, and there is no spare one", self.vm.kernel_log())

    def tearDown(self):
        self.vm.guest("unbind")


class SpareNode(DeviceTest):
    """A device on the node of the RAM gets one of its own, if one was set aside, and gives it back."""

    node, parameters = 0, ("numa_spare_nodes=1",)
    SPARE = 2  # behind node 1, which is possible and empty

    def setUp(self):
        self.vm.write(0, header.page(self.size, label=b"spare"))
        self.ram = self.vm.guest("state")

    def tearDown(self):
        state = self.vm.guest("state")
        if state["driver"] == "kmem" and state["node"] == self.SPARE:
            self.vm.guest("blocks", "offline")
        self.vm.guest("unbind")
        left = self.vm.guest("state")
        self.assertEqual((left["driver"], left["node"], left["blocks"]), (None, 0, self.ram["blocks"]))

    def test_its_memory_is_alone_on_the_spare_node(self):
        for _ in range(2):
            state = self.bind()
            self.assertEqual(state["node"], self.SPARE)
            self.assert_all_online(state)
            self.assert_all_counted(state)
            self.assert_all_free(state)
            self.assertTrue(self.vm.guest("use", "256")["intact"])
            self.tearDown()

    def test_it_is_a_hop_behind_the_node_of_its_place(self):
        self.assertEqual(self.vm.guest("distances"), {"0": [10]})
        self.bind()
        self.assertEqual(self.vm.guest("distances"), {"0": [10, 20], "2": [20, 10]})
        self.assertIn("Fallback order for Node 2: 2 0", self.vm.kernel_log())

    def test_nothing_is_demoted_to_it(self):
        self.assertEqual(self.vm.guest("tiers"), ["0"])
        self.bind()
        self.assertEqual(self.vm.guest("tiers"), ["0,2"])

    def test_blocks_onlined_by_others_at_once_are_as_the_driver_wants_them(self):
        for policy in ("offline", "online_kernel"):
            self.vm.shell(f"echo {policy} >/sys/devices/system/memory/auto_online_blocks")
            self.assertEqual(self.vm.guest("bind_in_race")["bind"], 0)
            state = self.vm.guest("state")
            self.assert_all_online(state)
            self.assert_all_counted(state)
            self.tearDown()
        self.vm.shell("echo offline >/sys/devices/system/memory/auto_online_blocks")

    def test_plain_device_stays_on_its_own_node(self):
        self.vm.write(0, bytes(PAGE))
        state = self.bind()
        self.assertEqual(state["node"], 0)
        new = [b for b in state["blocks"] if b not in self.ram["blocks"]]
        self.assertEqual([b["state"] for b in new], ["offline"] * self.usable_blocks(state))


class HeadIsMemory(DeviceTest):
    """A device aligned to memory blocks: the header's page is online memory, never freed."""

    nvdimm, align = "1920M", "1G"  # a file of 2 GiB, the second of which is the device

    def setUp(self):
        self.assertEqual(self.vm.data % self.vm.guest("state")["block_bytes"], 0, "the device is not aligned")
        self.header = header.page(self.size, label=b"aligned")
        self.vm.write(0, self.header + b"\x55" * (2 * PAGE))

    def test_all_but_the_head_is_free(self):
        state = self.bind()
        self.assert_all_online(state)
        self.assert_all_counted(state)
        self.assertTrue(self.vm.guest("use", "900")["intact"])
        self.assertEqual(self.vm.read(0, 3), self.header + b"\x55" * (2 * PAGE))

    def test_nobody_gets_the_head_of_a_device_without_header(self):
        """Else a process could leave a header there, which the next boot would believe, or a root, for which
        it would refuse the device."""
        self.vm.write(0, bytes(3 * PAGE))
        for zone, wanted, forged in (("Movable", "online_movable", header.page(self.size, label=b"forged")),
                                     ("Normal", "online_kernel", mutation.root(header.FS))):
            with self.subTest(zone=zone):
                self.assertEqual({b["state"] for b in self.bind()["blocks"]}, {"offline"})
                self.assertEqual(set(self.vm.guest("blocks", wanted).values()), {0})
                self.assertTrue(self.vm.guest("use", "900", forged.hex())["intact"])
                counts = self.vm.guest("state")["zones"][zone]
                self.assertEqual(self.vm.read(0, 3), bytes(3 * PAGE), "a process could write a header or a root")
                self.assertEqual(counts["present"] - counts["managed"], 3)
                self.assertEqual(set(self.vm.guest("blocks", "offline").values()), {0})
                self.assertEqual(self.vm.guest("unbind")["unbind"], 0)

    def test_head_survives_offlining_and_removal(self):
        self.bind()
        self.assertEqual(set(self.vm.guest("blocks", "offline").values()), {0})
        onlined = self.vm.guest("blocks", "online_movable")
        first = min(onlined, key=lambda name: int(name[6:]))
        self.assertEqual({name for name, error in onlined.items() if error}, {first},
                         "the block with the header comes back by binding the device again only")
        self.assert_all_counted({**(now := self.vm.guest("state")), "blocks": now["blocks"][1:]})
        self.vm.guest("blocks", "offline")
        self.assertEqual(self.vm.guest("unbind")["unbind"], 0)
        self.assert_all_counted(self.bind())
        self.assertEqual(self.vm.read(0, 3), self.header + b"\x55" * (2 * PAGE))


class LateFailure(DeviceTest):
    """Failures of other parts of the kernel, injected when memory is already added. Needs the
    debug kernel, and is there to have KASAN and lockdep look on, too."""

    nvdimm, align, flavour = HeadIsMemory.nvdimm, HeadIsMemory.align, "debug"

    def setUp(self):
        self.header = header.page(self.size, label=b"late")
        self.vm.write(0, self.header)

    def inject(self, event, error):
        self.vm.shell(f"echo {error} >/sys/kernel/debug/notifier-error-inject/memory/actions/{event}/error")
        if error:
            self.addCleanup(self.inject, event, 0)

    def test_type_none_leaves_hibernation_alone(self):
        self.bind()
        self.assertNotIn("[disabled]", self.vm.shell("cat /sys/power/disk"))

    def test_memory_is_taken_out_again_if_it_does_not_come_online(self):
        before = self.vm.digest()
        self.inject("MEM_GOING_ONLINE", -12)
        self.assertNotEqual(self.vm.guest("bind")["bind"], 0)
        state = self.vm.guest("state")
        self.assertEqual((state["driver"], state["blocks"], state["zones"]), (None, [], {}))
        self.assertIn("not attached: some of its memory did not come online", self.vm.kernel_log())
        self.assertEqual(self.vm.digest(), before)
        self.inject("MEM_GOING_ONLINE", 0)
        state = self.bind()
        self.assert_all_online(state)
        self.assert_all_counted(state)

    def test_offlining_that_fails_leaves_the_head_as_it_was(self):
        self.bind()
        for _ in range(2):
            self.inject("MEM_GOING_OFFLINE", -16)
            self.assertEqual(set(self.vm.guest("blocks", "offline").values()), {"EBUSY"})
            state = self.vm.guest("state")
            self.assert_all_online(state)
            self.assert_all_counted(state)
            self.assert_all_free(state)
        self.inject("MEM_GOING_OFFLINE", 0)
        self.assertEqual(set(self.vm.guest("blocks", "offline").values()), {0})
        self.assertEqual(self.vm.read(0), self.header)


class Policy(DeviceTest):
    """Whatever the default online policy: a device with header is online in ZONE_MOVABLE, one
    without follows the policy."""

    def check(self, policy, zone):
        self.vm.shell(f"echo {policy} >/sys/devices/system/memory/auto_online_blocks")
        self.vm.write(0, header.page(self.size))
        state = self.bind()
        self.assert_all_online(state)
        self.assert_all_counted(state)
        self.tearDown()
        self.vm.write(0, bytes(PAGE))
        state = self.bind()
        if zone is None:
            self.assertEqual({b["state"] for b in state["blocks"]}, {"offline"})
        else:
            self.assert_all_online(state, zone)
            self.assert_all_counted(state, zone)

    def test_online(self):
        self.check("online", "Normal")

    def test_online_kernel(self):
        self.check("online_kernel", "Normal")

    def test_online_movable(self):
        self.check("online_movable", "Movable")

    def test_offline(self):
        self.check("offline", None)
