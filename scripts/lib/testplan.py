# SPDX-License-Identifier: Apache-2.0
"""Which tests there are, where each runs, and in what order."""

import json
import subprocess
from collections import defaultdict
from dataclasses import dataclass, field

# A test whose duration is not known yet.
GUESS_SECONDS = {None: 0.2, "base": 2, "debug": 4, "own": 60}
# Multi-step tests are jobs of their own; short ones go together up to this.
JOB_SECONDS = 60


@dataclass(frozen=True)
class Test:
    name: str
    number: int  # ctest's
    places: tuple  # of None (the host), "base", "debug" and "own" (boots its machines itself)


@dataclass
class Job:
    """Something that one lane does at a time. `machine` is the kernel of the machine that it needs."""
    name: str
    run: object  # callable(lane)
    needs: frozenset = frozenset()
    machine: str | None = None
    builds: bool = False
    seconds: float = 0
    tests: list = field(default_factory=list)


def places(labels):
    """Labels: vm = in the machine with the base kernel; mm, debug = in the one with the debug kernel;
    both kinds: in both. own-machine = boots machines itself. None of them: on the host."""
    if "own-machine" in labels:
        return ("own",)
    found = ("base",) if "vm" in labels else ()
    if labels & {"mm", "debug"}:
        found += ("debug",)
    return found or (None,)


def discover(build):
    """The tests of a build directory."""
    done = subprocess.run(["ctest", "--test-dir", build, "--show-only=json-v1"],
                          stdout=subprocess.PIPE, text=True, check=True)
    tests = []
    for number, entry in enumerate(json.loads(done.stdout)["tests"], 1):
        properties = {p["name"]: p["value"] for p in entry["properties"]}
        tests.append(Test(entry["name"], number, places(set(properties.get("LABELS", ())))))
    return tests


def group(tests, place, seconds):
    """[(name, tests, expected seconds)]: tests of one suite stay together while they are short.
    seconds: {(place, name): duration} of earlier runs."""
    suites = defaultdict(list)
    for test in tests:
        if place in test.places:
            suites[test.name.rsplit(".", 1)[0]].append(test)
    groups = []
    for suite, members in suites.items():
        batch, total = [], 0
        for test in members:
            expected = seconds.get((place, test.name), GUESS_SECONDS[place])
            if batch and total + expected > JOB_SECONDS:
                groups.append((suite, batch, total))
                batch, total = [], 0
            batch.append(test)
            total += expected
        groups.append((suite, batch, total))
    return groups


def choose(jobs, done, lane_machine, busy_machines):
    """The job that a lane should do next, or None if none can begin now. Builds come first, as others
    wait for them; then what the lane's own machine can do; then what needs a machine that no other
    lane has; then what needs none; at last it helps others by booting a machine like theirs. Long
    jobs go before short ones, so that the lanes end together."""
    def rank(job):
        if job.builds:
            return 0
        if job.machine is None:
            return 3
        if job.machine == lane_machine:
            return 1
        return 4 if job.machine in busy_machines else 2

    ready = [job for job in jobs if job.needs <= done]
    # Builds keep the order in which they were given.
    return min(ready, key=lambda job: (rank(job), 0 if job.builds else -job.seconds), default=None)
