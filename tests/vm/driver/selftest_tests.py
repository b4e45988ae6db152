# SPDX-License-Identifier: Apache-2.0
"""The series' own kselftests, as a kernel developer runs them."""

import re

from machine import POOL, PREFIX, expect
from registry import test

RESULT = re.compile(r"^(?:# )*(ok|not ok) \d+ (.*)$", re.MULTILINE)


def run_selftest(machine, name, **environment):
    """One program of the kmemfs collection; every result in it must be ok, and none skipped."""
    setting = [f"{key}={value}" for key, value in environment.items()]
    done = machine.run("env", *setting, f"{PREFIX}/selftests/run_kselftest.sh", "-t", f"kmemfs:{name}",
                       check=False)
    results = RESULT.findall(done.stdout)
    expect(results, f"{name} told no result:\n{done.stdout}{done.stderr}")
    bad = [text for verdict, text in results if verdict != "ok" or "SKIP" in text]
    expect(not bad and done.returncode == 0, f"{name}: {bad}\n{done.stdout}{done.stderr}")
    return len(results)


@test("Selftests.KmemfsIoctl", timeout=300)
def kmemfs_ioctl(machine):
    machine.ensure_pool()
    count = run_selftest(machine, "kmemfs_ioctl", KMEMFS_DIR=POOL)
    # 10 tests of captures, 6 of refusals, and the program itself.
    expect(count >= 17, f"only {count} results")


@test("Selftests.KmemfsSums", timeout=300)
def kmemfs_sums(machine):
    machine.ensure_pool()
    count = run_selftest(machine, "kmemfs_sums", KMEMFS_DIR=POOL)
    # 10 tests, and the program itself.
    expect(count >= 11, f"only {count} results")
