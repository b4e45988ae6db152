# SPDX-License-Identifier: Apache-2.0
"""mm's own tests of COW and of pins, on memory that is stored (tests/vm/mm_selftests). What they say
on the unpatched kernel, and the other programs: tests/vm/mm_selftests/compare, by hand."""

import re
import subprocess
import sys

from machine import POOL, REPOSITORY, VM, expect
from registry import test

HERE = REPOSITORY / "tests/vm/mm_selftests"
sys.path.insert(0, str(HERE))
import results  # noqa: E402

# Why a test may be skipped: huge pages of 1 GiB, and what is said there.
REASONS = re.compile(f"need more free huge pages|{results.COLLAPSE}|{results.TRANSIENT}")
USED = re.compile(r"^# pool memory: (\d+) by reference, \d+ copied, (\d+) installed$", re.MULTILINE)


def run_on_pool(machine, memory, least):
    """{program: how many of its results must be ok}: the programs on captured or installed memory."""
    machine.ensure_pool()
    done = subprocess.run([HERE / "build"], stdout=subprocess.PIPE, text=True, check=True)
    subprocess.run([VM / "put", done.stdout.splitlines()[-1], "/var/tmp/"], check=True)
    machine.sh(results.SETUP)
    try:
        for program, count in least.items():
            done = machine.run("sh", "-c", results.command("/var/tmp/mm", program, memory=memory, pool=POOL),
                               check=False)
            found = results.parse(done.stdout)
            bad = [r for r in found if r.verdict == results.FAIL or
                   (r.verdict == results.SKIP and not REASONS.search(r.reason))]
            expect(not bad and done.returncode == 0, f"{program}: {bad}\n{done.stdout[-4000:]}")
            ok = sum(r.verdict == results.OK for r in found)
            expect(ok >= count, f"{program}: {results.tally(found)}; {count} must be ok")
            used = USED.search(done.stdout)
            expect(used and int(used[1]) > 0, f"{program}: nothing was captured by reference")
            expect(memory == "captured" or int(used[2]) > 0, f"{program}: nothing was installed")
    finally:
        machine.sh(results.TEARDOWN)


@test("MmSelftests.CowAndPinsOfCapturedMemory", timeout=600)
def captured(machine):
    run_on_pool(machine, "captured", {"cow": 700, "gup_longterm": 40})


# cow on installed memory takes as long again; compare runs it.
@test("MmSelftests.PinsOfInstalledMemory", timeout=300)
def installed(machine):
    run_on_pool(machine, "installed", {"gup_longterm": 40})
