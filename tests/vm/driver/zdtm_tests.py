# SPDX-License-Identifier: Apache-2.0
"""A choice of CRIU's own tests with our CRIU, the plugin and memory on the pool. All of them, and
what stock CRIU makes of them: tests/vm/zdtm/compare, by hand."""

import json
import sys

from machine import POOL, PREFIX, REPOSITORY, expect
from registry import test

HERE = REPOSITORY / "tests/vm/zdtm"
sys.path.insert(0, str(HERE))
import ways  # noqa: E402


def counts(machine):
    return json.loads(machine.sh(f"{PREFIX}/tests/vm/pool_tool counts {POOL}"))


@test("Zdtm.ChosenPassOnThePool", timeout=900)
def chosen(machine):
    """Each in the flavours that chosen.txt has for it; nothing may be skipped."""
    ways.prepare(machine)
    lines = (HERE / "chosen.txt").read_text().splitlines()
    wanted = {(name, flavour) for name, *flavours in map(str.split, lines) if name != "#" for flavour in flavours}
    before = counts(machine)
    found = {}
    for flavour in sorted({flavour for _, flavour in wanted}):
        names = sorted(name for name, of in wanted if of == flavour)
        found |= ways.run(machine, "plugin", flavour, names, tell=print)
    after = counts(machine)
    passed = {key for key, result in found.items() if result.result == "pass"}
    expect(passed == wanted, "\n".join(f"not passed: {found.get(key, key)}" for key in sorted(wanted - passed)))
    expect(after["by_reference"] + after["captured"] > before["by_reference"] + before["captured"],
           "no page was taken by reference")
    expect(after["installed"] > before["installed"], "no page was restored by reference")
