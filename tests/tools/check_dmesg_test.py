# SPDX-License-Identifier: Apache-2.0
"""deploy/vm/check-dmesg finds what a kernel says when something is wrong."""

import os
import subprocess
import tempfile
import unittest
from pathlib import Path

CHECK = Path(__file__).resolve().parent.parent.parent / "deploy" / "vm" / "check-dmesg"

CLEAN = ("[    0.000000] Command line: console=ttyS0 oops=panic kasan.fault=report\r\n"
         "[    1.000000] Freeing unused kernel image (initmem) memory: 1024K\r\n")
COMPLAINTS = (
    "[    2.0] WARNING: CPU: 0 PID: 1 at mm/page_alloc.c:123 f+0x1/0x2",
    "[    2.0] WARNING: possible circular locking dependency detected",
    "[    2.0] BUG: Bad page state in process init  pfn:12345",
    "[    2.0] BUG: KASAN: slab-use-after-free in f+0x1/0x2",
    "[    2.0] kernel BUG at mm/rmap.c:1!",
    "[    2.0] Oops: int3: 0000 [#1] SMP",
    "[    2.0] INFO: task snapd:12 blocked for more than 240 seconds.",
    "[    2.0] kmemleak: 3 new suspected memory leaks (see /sys/kernel/debug/kmemleak)",
    "[    2.0] UBSAN: array-index-out-of-bounds in mm/x.c:1:2",
    "[    2.0] rcu: INFO: rcu_sched self-detected stall on CPU",
    "[    2.0] BUG: sleeping function called from invalid context at mm/x.c:1",
    "[    2.0] Kernel panic - not syncing: Fatal exception",
)


class CheckDmesg(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.state = Path(directory.name)
        self.log = self.state / "console.log"

    def check(self, *arguments):
        return subprocess.run([CHECK, *arguments], env=dict(os.environ, DAXSNAP_VM=str(self.state)),
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def test_clean_console_passes(self):
        self.log.write_text(CLEAN)
        self.assertEqual(self.check().returncode, 0)

    def test_each_complaint_fails_and_is_shown(self):
        for complaint in COMPLAINTS:
            with self.subTest(complaint):
                self.log.write_text(f"{CLEAN}{complaint}\r\n")
                done = self.check()
                self.assertEqual(done.returncode, 1)
                self.assertIn(complaint, done.stdout)

    def test_new_forgets_what_was_shown(self):
        self.log.write_text(f"{CLEAN}{COMPLAINTS[0]}\r\n")
        self.assertEqual(self.check("--new").returncode, 1)
        self.assertEqual(self.check("--new").returncode, 0)
        self.assertEqual(self.check().returncode, 1)

    def test_missing_console_is_a_failure(self):
        self.assertEqual(self.check().returncode, 1)


if __name__ == "__main__":
    unittest.main()
