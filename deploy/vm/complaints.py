# SPDX-License-Identifier: Apache-2.0
"""What a kernel says on its console when something is wrong with it."""

import re

COMPLAINT = re.compile("|".join((
    r"WARNING:", r"\bBUG:", r"\bBUG at ", r"kernel BUG", r"\bOops\b", r"Kernel panic", r"general protection fault",
    r"KASAN:", r"UBSAN:", r"KCSAN:", r"KFENCE:", r"bad page", r"Bad page", r"Bad rss-counter", r"corrupted",
    r"possible circular locking", r"possible recursive locking", r"suspicious RCU usage", r"inconsistent lock state",
    r"INFO: task .* blocked for more than", r"soft lockup", r"hard LOCKUP", r"detected stall", r"self-detected stall",
    r"kmemleak: \d+ new suspected", r"unreferenced object", r"refcount_t:", r"list_(?:add|del) corruption",
    r"sleeping function called from invalid context", r"scheduling while atomic",
    r"double fault", r"page table check", r"EXT4-fs error")))
# Not complaints: kernel parameters echoed, and an option's announcement. A call trace alone is
# none either: out of memory, which tests provoke, prints one. A full disk below a loop device, too,
# and the panic that tests ask for.
HARMLESS = re.compile(r"Command line:|Kernel command line|\*\*\* .*will be|kmemleak: Kernel memory leak detector|"
                      r"EXT4-fs error \(device loop|Kernel panic - not syncing: sysrq triggered crash")


def complaints(state, *, only_new):
    """The lines, with some around them, of the machine in this directory: of all boots on the present
    disks, or only what was said since the last call with only_new. OSError if there is no console."""
    log = (state / "console.log").read_bytes()
    start = 0
    if only_new:
        mark = state / "checked"
        start = int(mark.read_text()) if mark.exists() else 0
        mark.write_text(str(len(log)))
    lines = log[start:].decode(errors="replace").replace("\r", "").splitlines()
    bad = [i for i, line in enumerate(lines) if COMPLAINT.search(line) and not HARMLESS.search(line)]
    shown = sorted({j for i in bad for j in range(max(0, i - 1), min(len(lines), i + 12))})
    return [lines[index] for index in shown]
