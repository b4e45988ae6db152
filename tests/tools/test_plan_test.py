# SPDX-License-Identifier: Apache-2.0
"""scripts/lib/testplan.py: every test runs where its labels say, and no lane idles."""

import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "scripts" / "lib"))
from testplan import Job, Test, choose, group, places  # noqa: E402


class Places(unittest.TestCase):
    def test_follow_the_labels(self):
        for labels, expected in (((), (None,)), (("unit",), (None,)), (("vm",), ("base",)), (("mm",), ("debug",)),
                                 (("debug",), ("debug",)), (("vm", "mm"), ("base", "debug")),
                                 (("vm", "own-machine"), ("own",))):
            self.assertEqual(places(set(labels)), expected, labels)


class Groups(unittest.TestCase):
    def test_hold_every_test_of_the_place_once(self):
        tests = [Test(f"Suite{i % 3}.t{i}", i, ("base", "debug") if i % 2 else ("base",)) for i in range(100)]
        for place in ("base", "debug"):
            grouped = [t for _, members, _ in group(tests, place, {}) for t in members]
            self.assertEqual(sorted(t.number for t in grouped), [t.number for t in tests if place in t.places])

    def test_long_tests_stand_alone(self):
        tests = [Test(f"S.t{i}", i, ("base",)) for i in range(3)]
        groups = group(tests, "base", {("base", "S.t1"): 130})
        self.assertEqual([[t.number for t in members] for _, members, _ in groups], [[0], [1], [2]])


class Choice(unittest.TestCase):
    def job(self, name, machine=None, seconds=1, **kwargs):
        return Job(name, None, machine=machine, seconds=seconds, **kwargs)

    def choose(self, jobs, machine=None, busy=(), done=()):
        chosen = choose(jobs, set(done), machine, set(busy))
        return chosen and chosen.name

    def test_waits_for_what_is_needed(self):
        jobs = [self.job("test", needs=frozenset(["build"]))]
        self.assertIsNone(self.choose(jobs))
        self.assertEqual(self.choose(jobs, done=["build"]), "test")

    def test_order(self):
        jobs = [self.job("host", seconds=99), self.job("base", "base"), self.job("debug", "debug"),
                self.job("build", builds=True)]
        order, machine = [], "debug"
        while jobs:
            order.append(self.choose(jobs, machine, busy=["base"]))
            jobs = [job for job in jobs if job.name != order[-1]]
        self.assertEqual(order, ["build", "debug", "host", "base"])

    def test_long_ones_first(self):
        self.assertEqual(self.choose([self.job("a"), self.job("b", seconds=5)]), "b")


if __name__ == "__main__":
    unittest.main()
