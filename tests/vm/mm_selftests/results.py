# SPDX-License-Identifier: Apache-2.0
"""What mm's own selftests say: [(name, verdict, reason)] in their order."""

import re
from collections import Counter
from dataclasses import dataclass

OK, FAIL, SKIP, XFAIL = "ok", "not ok", "skip", "xfail"

RUN = re.compile(r"^# \[RUN\] (.*)$")
TAP = re.compile(r"^(ok|not ok) (\d+) ?(.*?)(?:# ?(SKIP|XFAIL) ?(.*))?$")
UFFD = re.compile(r"^Testing (.*)\.\.\. (done|skipped|failed)(?: \[reason: (.*)\])?$")
KHUGEPAGED = re.compile(r"^Run test: (.*)$")
COLOURS = {"\x1b[32m": OK, "\x1b[33m": SKIP, "\x1b[31m": FAIL}

# A page that others share is not collapsed, and one that is stored is shared.
COLLAPSE = "MADV_COLLAPSE failed"
# Somebody had a reference at that moment: so on any kernel, now and then.
TRANSIENT = "MADV_PAGEOUT did not work"


@dataclass(frozen=True)
class Result:
    name: str
    verdict: str
    reason: str = ""


def parse(text):
    """All results in a program's output. Fails if it was not completed."""
    found, run, steps = [], "", None
    for line in text.splitlines():
        if match := RUN.match(line):
            run = match[1]
        elif match := TAP.match(line):
            verdict = {"SKIP": SKIP, "XFAIL": XFAIL}.get(match[4], match[1])
            said = match[3].strip() or match[5] or ""
            found.append(Result(f"{match[2]} {run or said}", FAIL if match[1] == FAIL else verdict, match[5] or said))
        elif match := UFFD.match(line):
            found.append(Result(match[1], {"done": OK, "skipped": SKIP, "failed": FAIL}[match[2]], match[3] or ""))
        elif match := KHUGEPAGED.match(line):
            steps = match[1]
            found.append(Result(steps, OK))
        elif steps:
            for colour, verdict in COLOURS.items():
                if colour in line and verdict != OK and found[-1].verdict != FAIL:
                    found[-1] = Result(steps, verdict, line.split("...")[0].strip())
    return found


def tally(results):
    """ "12 ok, 3 skip" """
    counts = Counter(r.verdict for r in results)
    return ", ".join(f"{counts[v]} {v}" for v in (OK, XFAIL, SKIP, FAIL) if counts[v]) or "nothing"


def skipped_for(result, reason):
    return result.verdict == SKIP and result.reason.startswith(reason)


def differences(expected, got, stored=False):
    """Lines, one for each test whose verdicts differ. stored: the tests' memory was captured first."""
    lines = []
    if [r.name for r in expected] != [r.name for r in got]:
        lines.append(f"not the same tests: {len(expected)} and {len(got)}")
    for a, b in zip(expected, got):
        allowed = skipped_for(a, TRANSIENT) or skipped_for(b, TRANSIENT) or (stored and skipped_for(b, COLLAPSE))
        if a.verdict != b.verdict and not (allowed and FAIL not in (a.verdict, b.verdict)):
            lines.append(f"{a.name}: {a.verdict} {a.reason} → {b.verdict} {b.reason}")
    return lines


# In the guest, before the programs run: what they ask for, and a place for their files.
SETUP = """
nodes=/sys/devices/system/node
echo 64 >$nodes/node0/hugepages/hugepages-2048kB/nr_hugepages
mkdir -p /var/tmp/mm-work
if ! grep -q mm-work /proc/swaps; then
  fallocate -l 256M /var/tmp/mm-work/swap
  chmod 600 /var/tmp/mm-work/swap
  mkswap -q /var/tmp/mm-work/swap
  swapon /var/tmp/mm-work/swap
fi
"""

TEARDOWN = """
swapoff /var/tmp/mm-work/swap
rm -rf /var/tmp/mm-work
echo 0 >/sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages
"""


def command(directory, program, arguments=(), memory=None, pool=None):
    """The shell command that runs a program of that directory in the guest; memory: captured or
    installed, on that pool."""
    setting = f"KMEMFS_DIR={pool} POOL_MEMORY={memory} " if memory else ""
    return f"cd /var/tmp/mm-work && {setting}{directory}/{program} {' '.join(arguments)} 2>&1"
