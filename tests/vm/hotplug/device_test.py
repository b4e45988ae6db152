# SPDX-License-Identifier: Apache-2.0
"""What all tests of a device share: a machine, and the device in it."""

import os
import subprocess
import unittest

import header
from machine import Machine

WRITE_HEAD = os.environ.get("DAXSNAP_WRITE_HEAD", "write_head")
WRITE_RUNS = os.environ.get("DAXSNAP_WRITE_RUNS", "write_runs")
STATE = os.environ.get("DAXSNAP_TEST_VM", "/var/tmp/daxsnap-hotplug")
PAGE = header.PAGE


class DeviceTest(unittest.TestCase):
    """Boots once a class; every test starts with the device unbound and without memory online."""

    nvdimm, align, parameters, node, flavour = "512M", "2M", (), 1, None

    @classmethod
    def setUpClass(cls):
        cls.vm = Machine(STATE, cls.nvdimm, cls.align, cls.flavour)
        cls.addClassCleanup(cls.vm.cut, check=False)
        cls.vm.up(*cls.parameters, node=cls.node)
        cls.vm.scatter(7)
        cls.size = cls.vm.guest("state")["size"]

    @classmethod
    def tearDownClass(cls):
        complaints = cls.vm.complaints()
        assert not complaints, f"the kernel complained:\n{complaints}"

    def tearDown(self):
        """Memory goes as an administrator takes it away: offline, unbind."""
        if self.vm.guest("state")["driver"] == "kmem":
            self.vm.guest("blocks", "offline")
        self.vm.guest("unbind")
        left = self.vm.guest("state")
        self.assertEqual((left["driver"], left["blocks"]), (None, []), "left to the next test")

    def bind(self):
        self.assertEqual(self.vm.guest("bind")["bind"], 0, "kmem refused the device; see dmesg")
        return self.vm.guest("state")

    def usable_blocks(self, state):
        """Whole memory blocks in the device, which starts self.vm.data into an aligned file."""
        first = -self.vm.data % state["block_bytes"]
        return (state["size"] - first) // state["block_bytes"]

    def write_runs(self, runs, step=1):
        """A pool with a file of so many runs, of a page each, that begin STEP pages apart. Where they may begin."""
        block = self.vm.guest("state")["block_bytes"]
        first = max(-self.vm.data % block // PAGE, 3)
        end = (self.vm.data + self.size) // block * block // PAGE - self.vm.data // PAGE
        subprocess.run([WRITE_RUNS, self.vm.image, str(self.vm.data), str(self.size), str(first), str(end),
                        str(runs), str(step)], check=True)
        return first

    def assert_all_online(self, state, zone="Movable"):
        self.assertEqual([(b["state"], b["zones"].split()[0]) for b in state["blocks"]],
                         [("online", zone)] * self.usable_blocks(state))

    def assert_all_counted(self, state, zone="Movable"):
        """Every page that is online is managed, in MemTotal, and under watermarks."""
        pages = len(state["blocks"]) * state["block_bytes"] // PAGE
        counts = state["zones"][zone]
        self.assertEqual((counts["present"], counts["managed"]), (pages, pages))
        self.assertEqual(state["node_kib"]["MemTotal"], pages * PAGE // 1024)
        self.assertGreater(counts["high"], counts["min"])
        self.assertGreater(counts["min"], 0)

    def assert_huge_pages(self, state, zone="Movable"):
        """What is free is so in large chunks; a few pages are on lists of CPUs, or near others."""
        free = state["zones"][zone]["free"]
        self.assertGreater(state["huge_free"], free - free // 50 - 4096)

    def assert_all_free(self, state, zone="Movable"):
        """Nothing is in use, but for what readers of /proc may have allocated."""
        counts = state["zones"][zone]
        self.assertLess(counts["managed"] - counts["free"] - counts["pcp"], 512)
