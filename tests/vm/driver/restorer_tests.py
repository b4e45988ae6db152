# SPDX-License-Identifier: Apache-2.0
"""The moment at which the tasks of a restore begin to run, with CRIU itself: who is killed or
cancelled there leaves tasks that all run and are known, or none."""

import contextlib
import json

from machine import POOL, PREFIX, WORK, expect, wait_until
from registry import test
from snapd_tests import SNAPD_PID, clean_pool
from workload_tests import Workload

HELD = f"{WORK}/criu-held"
TRACE = f"{WORK}/criu-trace"
REQUEST = "held-restore"


@contextlib.contextmanager
def criu_stops_at(machine, call):
    """CRIU stops by itself behind that ptrace() of a restore. 0: it does not stop, and the calls are
    written down."""
    inject = f"-e inject=ptrace:signal=SIGSTOP:when={call}" if call else ""
    machine.sh(f"""
        echo '#!/bin/sh' >{HELD}; cat >>{HELD} <<'END'
exec /usr/bin/strace -D -q -o {TRACE} -e trace=ptrace {inject} {PREFIX}/sbin/criu "$@"
END
        chmod 755 {HELD}; rm -f {TRACE}
        mkdir -p /etc/daxsnap; echo SNAPD_ARGS=--criu={HELD} >/etc/daxsnap/snapd.env""")
    machine.restart_snapd()
    try:
        yield
    finally:
        machine.sh("rm -f /etc/daxsnap/snapd.env; pkill -9 -x strace || true; pkill -9 -x criu || true")
        machine.restart_snapd()


def await_stop(machine):
    wait_until(lambda: machine.run("grep", "-q", "stopped by SIGSTOP", TRACE, check=False).returncode == 0,
               "CRIU stopping where tasks are about to run")


def in_restorer(machine, pid):
    """It waits on a futex, by code in memory of no file."""
    words = machine.sh(f"cat /proc/{pid}/syscall").split()
    if words[0] != "202":
        return False
    for line in machine.sh(f"cat /proc/{pid}/maps").splitlines():
        fields = line.split()
        start, end = (int(part, 16) for part in fields[0].split("-"))
        if start <= int(words[-1], 16) < end:
            return len(fields) == 5
    return False


def left_of_restores(machine):
    """PIDs in scopes of restores, and the scopes that systemd knows."""
    return machine.sh("""
        for procs in /sys/fs/cgroup/daxsnap.slice/daxsnap-restore-*/cgroup.procs; do
          [ ! -e "$procs" ] || cat "$procs"
        done
        systemctl list-units --all --plain --no-legend 'daxsnap-restore-*' | cut -d' ' -f1""").split()


def ptrace_calls(machine, workload, progress):
    """What CRIU does by ptrace() to restore the tasks, in order."""
    with criu_stops_at(machine, 0):
        workload.restore()
        calls = machine.sh(f"sed -n 's/^ptrace(\\(PTRACE_[A-Z_]*\\).*/\\1/p' {TRACE}").split()
        workload.kill()
    workload.progress = progress
    return calls


def first_seize(calls):
    """Number of the first call that is about the tasks. It comes when snapd has said that they may run,
    and all of them wait in CRIU's restorer."""
    return calls.index("PTRACE_SEIZE") + 1


def taken(machine, tag):
    workload = Workload(machine, "forktree", "--mib", "4", tag=tag).start()
    workload.check()
    progress = workload.progress
    workload.checkpoint()
    return workload, progress


@test("SnapdKilled.WhileTasksWaitInTheRestorerLeavesAllOrNone", timeout=900)
def killed_in_restorer(machine):
    workload, progress = taken(machine, "-restorer")
    calls = ptrace_calls(machine, workload, progress)
    first, let_go = first_seize(calls), calls.index("PTRACE_DETACH") + 1
    print(f"CRIU takes hold of tasks from its ptrace() number {first} of {len(calls)} on, and lets go from {let_go} on")
    for call in (first, first + 1, let_go):
        with criu_stops_at(machine, call):
            restore = machine.start("snapctl", "restore", workload.snapshot)
            await_stop(machine)
            waits = in_restorer(machine, workload.pid)
            if call == first:
                expect(waits, "CRIU does not stop while tasks are in its restorer")
            # The next snapd is there at once, and finds CRIU, which dies then.
            snapd = machine.sh(SNAPD_PID)
            machine.sh(f"kill -9 {snapd}")
            wait_until(lambda: machine.sh(SNAPD_PID) not in ("0", snapd), "systemd starting snapd again")
            machine.sh("pkill -9 -x criu")
            restore.communicate(timeout=300)
            expect(restore.returncode != 0, "the restore has a result though its snapd was killed")
            machine.snapctl("ls")
            wait_until(lambda: machine.run("pgrep", "-x", "strace", check=False).returncode, "the end of strace")
            alive = workload.alive()
            expect(not (waits and alive), f"tasks wait for ever in the restorer of a CRIU that died at call {call}")
            workload.progress = progress
            if alive:
                print(f"call {call}: the tasks run")
                workload.check()
                workload.kill()
                workload.progress = progress
            else:
                print(f"call {call}: no task is left")
            wait_until(lambda: not left_of_restores(machine), "the end of what the restore had")
            # Of tasks that ran a record may say so to who asks again.
            clean_pool(machine, but="*.operation" if alive else "")
    workload.restore()
    clean_pool(machine)
    workload.check()
    workload.discard()


@test("Snapd.CtrlCThatCrossesTheResumingLosesNoTasks", timeout=600)
def ctrl_c_crosses(machine):
    """Once snapd has told CRIU to let the tasks run, they do, whether snapctl has heard of it or has
    called the restore off just then; who asks again is told."""
    workload, progress = taken(machine, "-crossing")
    first = first_seize(ptrace_calls(machine, workload, progress))
    for heard in (True, False):
        with criu_stops_at(machine, first):
            restore = machine.start("sh", "-c", f"""
                echo $$; exec snapctl restore {workload.snapshot} --request-id {REQUEST}-{heard}""")
            pid = restore.stdout.readline().strip()
            if not heard:
                wait_until(lambda: machine.sh(f"ls -A {POOL}/staging"), "the record of the restore", interval=0)
                machine.sh(f"kill -STOP {pid}")
            await_stop(machine)
            machine.sh(f"kill -INT {pid}; kill -CONT {pid}")
            if heard:
                expect(machine.run("sh", "-c", f"kill -0 {pid}", check=False).returncode == 0, "snapctl has given up")
            machine.sh("pkill -CONT -x criu")
            said, complained = restore.communicate(timeout=300)
            print(f"heard {heard}: exit {restore.returncode}: {said}{complained}")
            expect(restore.returncode == 0 or not heard, "Ctrl-C after the tasks may run has an effect")
            if restore.returncode:
                expect("--request-id" in complained, f"it does not say how to find out: {complained}")
            wait_until(lambda: machine.run("pgrep", "-x", "criu", check=False).returncode, "the end of CRIU")
            again = machine.snapctl("-o", "json", "restore", workload.snapshot, "--request-id", f"{REQUEST}-{heard}")
            answer = json.loads(again.stdout)
            expect(answer["pid"] == workload.pid and answer["already_running"], f"asked again: {answer}")
            workload.progress = progress
            workload.check()
            workload.kill()
    workload.discard()
