# SPDX-License-Identifier: Apache-2.0
"""zdtm in the machine: with which CRIU, where its images are, and what came of it."""

import dataclasses
import json
import os
import subprocess
from pathlib import Path

from machine import POOL, PREFIX, REPOSITORY, VM, TestFailure

HERE = Path(__file__).resolve().parent
DIRECTORY = "/var/tmp/zdtm"
RUNNER = "/var/tmp/zdtm_run"
STOCK, OURS = "stock", ("criu", "plugin")
WAYS = (STOCK, *OURS)
# With memory from where, the CRIU, and where its images lie.
ON_NODE = f"{PREFIX}/tests/vm/pool_tool run {POOL}"
# Behind the results of a way, unless tests were named: that they are all. Before them is their subject.
COMPLETE = "complete"
COMMANDS = {
    "stock": f"exec {{}} --criu {PREFIX}/sbin/criu-stock --images /dev/shm/zdtm",
    "criu": f"exec {ON_NODE} {{}} --criu {PREFIX}/sbin/criu --images {POOL}/zdtm",
    "plugin": f"exec {ON_NODE} {{}} --criu {PREFIX}/sbin/criu --images {POOL}/zdtm --plugins {PREFIX}/lib/criu",
}


@dataclasses.dataclass(frozen=True)
class Result:
    test: str
    flavour: str  # or "*" of a test that was skipped as a whole
    result: str   # pass, fail, skip
    reason: str
    seconds: float

    def __str__(self):
        return f"{self.result:4} {self.test} {self.flavour} {self.seconds:.1f} s {self.reason}"


def built_by(program):
    """What it says last: where it is."""
    done = subprocess.run([REPOSITORY / program], stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.splitlines()[-1]


def prepare(machine):
    """zdtm into the machine, and the pool."""
    machine.ensure_pool()
    subprocess.run([VM / "put", built_by("tests/vm/zdtm/build"), HERE / "zdtm_run", "/var/tmp/"], check=True)


def subject(way, flavours):
    """Results are compared only if these are the same."""
    kernel = Path(os.environ.get("DAXSNAP_KERNEL") or built_by("kernel/build"))
    criu = {} if way == STOCK else {"criu": Path(built_by("criu-plugin/build")).name}
    return {"tests": Path(built_by("tests/vm/zdtm/build")).parent.name, "kernel": kernel.name, "flavours": flavours,
            **criu}


def run(machine, way, flavours, tests, tell=lambda result: None):
    """{(test, flavour): Result}, each told as it comes."""
    command = COMMANDS[way].format(f"python3 {RUNNER} --zdtm {DIRECTORY} --flavours {flavours}")
    found = {}
    process = machine.start("sh", "-euc", f"exec 2>&1; rm -rf {DIRECTORY}/logs; {command} {' '.join(tests)}")
    said = []
    for line in process.stdout:
        # What zdtm.py itself prints goes between.
        if not line.startswith("{"):
            said.append(line)
            continue
        result = Result(**json.loads(line))
        found[result.test, result.flavour] = result
        tell(result)
    if process.wait():
        raise TestFailure(f"zdtm_run: exit {process.returncode}\n{''.join(said[-20:])}")
    return found


def to_line(result):
    return json.dumps(dataclasses.asdict(result))


def read(path, subject, flavours, tests):
    """The last result of each test, of these only; without names of all, and then they must be complete.
    ValueError if they are none of the subject: CRIU, tests and kernel."""
    lines = path.read_text().splitlines()
    if not lines or json.loads(lines[0]) != subject:
        raise ValueError(f"{path} is of {lines[0] if lines else 'nothing'}")
    if not tests and json.dumps(COMPLETE) not in lines:
        raise ValueError(f"{path} is of a run that did not come to its end")
    results = [Result(**json.loads(line)) for line in lines[1:] if line != json.dumps(COMPLETE)]
    return {(result.test, result.flavour): result for result in results
            if result.flavour in flavours and (not tests or result.test in tests)}


def is_state(result):
    return result.test.startswith("static/state-")


def differences(stock, ours):
    """(line, whether it is worse) of each test that went otherwise than with stock CRIU, and of each of our
    states that does not pass, whatever stock CRIU makes of it."""
    for key, result in ours.items():
        before = stock.get(key)
        if is_state(result) and result.result != "pass":
            yield str(result), True
            continue
        if before is None or before.result == result.result:
            continue
        yield f"{before.result} with stock CRIU, {result}", before.result == "pass"
    for key, before in stock.items():
        if key not in ours and ours and before.result == "pass":
            yield f"pass with stock CRIU, not run: {before.test} {before.flavour}", True
