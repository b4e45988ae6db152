#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Includes go down only: which room of user space may name which."""
import pathlib
import re
import subprocess
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]

# What a room may include besides itself. What is generated from protos, and the
# kernel's uapi, are words that all share: they are below every room.
BELOW = {
    "base": set(),
    "host/launch": {"base"},
    "host/pool": {"base"},
    "host/task": {"base"},
    "snapd/store": {"base", "host/pool", "host/task"},
    "snapd/engine": {"base", "host/launch", "host/task"},
    "snapd/ops": {"base", "host/launch", "host/pool", "host/task", "snapd/engine", "snapd/store"},
    "snapd/service": {"base", "host/task", "snapd/engine", "snapd/ops"},
    # main
    "snapd": {"base", "host/launch", "host/pool", "host/task", "snapd/engine", "snapd/ops", "snapd/service"},
    "client/include/daxsnap": set(),
    "client/lib": {"base", "client/include/daxsnap"},
    "client/snapctl": {"base", "host/launch", "host/pool", "client/include/daxsnap"},
}
# Includes of "daxsnap/..." that are no generated code.
PUBLIC_HEADERS = {path.name for path in (ROOT / "client/include/daxsnap").iterdir()}
INCLUDE = re.compile(r'^\s*#\s*include\s+["<]([^">]+)[">]', re.MULTILINE)


def room_of(path):
    """The room of a file, as it is included; None if it is of none."""
    parent, name = str(pathlib.PurePath(path).parent), pathlib.PurePath(path).name
    if parent == "daxsnap" and name in PUBLIC_HEADERS:
        return "client/include/daxsnap"
    if parent in BELOW:
        return parent
    if path.split("/")[0] in ("base", "host", "snapd", "client"):
        raise AssertionError(f"{path} is in no room")
    return None


def wrong(files):
    """'FILE includes HEADER' for each arrow that is not in the table."""
    found = []
    for path, text in files:
        room = room_of(path)
        for header in INCLUDE.findall(text):
            other = room_of(header)
            if other not in (None, room) and other not in BELOW[room]:
                found.append(f"{path} includes {header}")
            # Of the kernel's headers only those for users are ours to name.
            if header.startswith(("kernel/", "tests/", "criu-plugin/")):
                found.append(f"{path} includes {header}")
    return found


class RoomsTest(unittest.TestCase):
    def test_includes_go_down_only(self):
        names = subprocess.run(
            ["git", "ls-files", "base", "host", "snapd", "client"], cwd=ROOT, check=True, capture_output=True, text=True
        ).stdout.split()
        sources = [name for name in names if name.endswith((".cc", ".h"))]
        self.assertGreater(len(sources), 100)
        self.assertEqual({room_of(name) for name in sources}, set(BELOW))
        self.assertEqual(wrong((name, (ROOT / name).read_text()) for name in sources), [])

    def test_the_table_has_no_way_up(self):
        done = set()
        while len(done) < len(BELOW):
            ready = {room for room, below in BELOW.items() if room not in done and below <= done}
            self.assertTrue(ready, f"in a circle: {set(BELOW) - done}")
            done |= ready

    def test_an_arrow_that_goes_up_is_seen(self):
        up = [
            ("base/files.cc", '#include "host/task/proc.h"\n'),
            ("host/pool/attach.cc", "#  include <snapd/store/pool.h>\n"),
            ("snapd/ops/verify.cc", '#include "client/snapctl/output.h"\n'),
            ("client/snapctl/ls.cc", '#include "snapd/store/names.h"\n'),
            ("host/task/proc.cc", '#include "daxsnap/client.h"\n'),
        ]
        self.assertEqual(len(wrong(up)), len(up))
        down = [("snapd/ops/verify.cc", '#include "base/files.h"\n#include "daxsnap/v1/pool.pb.h"\n#include <vector>\n')]
        self.assertEqual(wrong(down), [])

    def test_a_file_in_no_room_is_seen(self):
        with self.assertRaises(AssertionError):
            wrong([("snapd/sub/room/x.cc", "")])


if __name__ == "__main__":
    unittest.main()
