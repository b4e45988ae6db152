# SPDX-License-Identifier: Apache-2.0
"""What snapctl run gives a task, so that it can be snapshotted and outlives all of us."""

from error_tests import NOT_FOUND, REFUSED, USAGE, refused
from machine import expect, wait_until
from registry import test

SCOPES = "systemctl list-units --no-legend --plain 'daxsnap-run-*.scope'"


@test("Run.TasksGetScopeLogNodeAndPidsThatABootDoesNotReach", timeout=300)
def run_gives(machine):
    machine.ensure_snapd()
    node = machine.snapctl_json("pool", "show")["node"]
    answer = machine.snapctl_json("run", "--name", "run-all", "--", "sh", "-c",
                                  "echo said; echo complained >&2; sleep 300 & echo $! >&2; wait")
    pid = answer["pid"]
    try:
        wait_until(lambda: len(machine.sh(f"cat {answer['log']}").split()) == 3, "the output in the log")
        said, complained, child = machine.sh(f"cat {answer['log']}").split()
        expect((said, complained) == ("said", "complained"), "the log has something else")
        expect(machine.sh(f"stat -c %a {answer['log']}") == "600", "others may read the log")
        for number in (pid, int(child)):
            expect(1_000_000 <= number <= 4_000_000, f"pid {number}")
        where = machine.sh(f"cat /proc/{pid}/cgroup")
        expect(where == f"0::{answer['cgroup']}", f"in {where}, not in {answer['cgroup']}")
        expect(answer["cgroup"] == f"/daxsnap.slice/{answer['scope']}", f"{answer}")
        machine.sh(f"systemctl is-active -q {answer['scope']}")
        expect(machine.sh(f"readlink /proc/{pid}/fd/0") == "/dev/null", "another standard input")
        expect(machine.sh(f"ps -o sid= -p {pid}").strip() == str(pid), "in another session")
        policy = machine.sh(f"head -n 1 /proc/{pid}/numa_maps")
        expect(answer["node"] == node and f"prefer (many):{node} " in policy, f"memory policy: {policy}")
    finally:
        machine.sh(f"systemctl kill -s KILL {answer['scope']}")
    wait_until(lambda: machine.sh(SCOPES) == "", "systemd forgetting the scope")


@test("Run.WhatCannotBeStartedIsSaidAndLeavesNothing", timeout=300)
def run_fails(machine):
    machine.ensure_pool()
    name = ("run", "--name", "run-not")
    refused(machine, NOT_FOUND, "", *name, "--", "no-such-command", text="no-such-command")
    refused(machine, NOT_FOUND, "", *name, "--", "/no/such/command", text="/no/such/command")
    refused(machine, REFUSED, "", *name, "--node", "9", "--", "sleep", "300", text="node 9")
    refused(machine, USAGE, "", *name, "--node", "all", "--", "sleep", "300", text="--node=all")
    refused(machine, USAGE, "", *name, text="COMMAND")
    wait_until(lambda: machine.sh(SCOPES) == "", "no scope of what was not started")
