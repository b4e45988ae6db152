# SPDX-License-Identifier: Apache-2.0
"""What the kernel keeps of tasks besides their memory, one kind at a time (tests/states)."""

from error_tests import REFUSED, refused
from machine import POOL, PREFIX, WORK, expect
from registry import test

STATES = f"{PREFIX}/tests/states"
# Kind of state: reason and text of the refusal.
NEVER_TAKEN = {"mqueue": ("TASK_UNSUPPORTED", "message queue"),
               "mqueue-path": ("TASK_UNSUPPORTED", "message queue"),
               "deadline": ("TASK_UNSUPPORTED", "SCHED_DEADLINE")}
# A program of each kind in the guest, as ssh costs more than all it does.
FUNCTIONS = f"""
begin() {{  # KIND: sets name, dir and pid
  name=state-$1 dir={WORK}/state-$1 pid=0
  snapctl rm $name >/dev/null 2>&1 || true
  rm -rf $dir && mkdir -p $dir &&
    pid=$(snapctl run -q --name $name -- {STATES} $1 $dir) && await ready
}}
await() {{  # FILE: until it is there, or the program is gone
  for _ in $(seq 600); do
    [ -e $dir/$1 ] && return
    [ -d /proc/$pid ] || break
    sleep 0.1
  done
  echo "no $1 from $name"
  return 1
}}
verdict() {{ touch $dir/go && await verdict && cat $dir/verdict; }}
end() {{
  [ $pid = 0 ] || pkill -9 -s $pid || true
  while [ $pid != 0 ] && pgrep -s $pid >/dev/null; do sleep 0.1; done
  snapctl rm $name >/dev/null 2>&1 || true
  rm -rf $dir
}}
"""


@test("States.OfEveryKindComeBack", timeout=1200)
def come_back(machine):
    """All kinds; the failure says of each that is not as it was what is wrong."""
    machine.ensure_snapd()
    kinds = [kind for kind in machine.sh(STATES).split() if kind not in NEVER_TAKEN]
    said = machine.sh(FUNCTIONS + f"""
        set +e
        exec 2>&1
        for kind in {" ".join(kinds)}; do
          echo -n "$kind: "
          begin $kind && snapctl checkpoint $pid --name $name >/dev/null &&
            snapctl restore $name >/dev/null && verdict
          echo
          end
        done""")
    print(said)
    expect(said.splitlines() == [f"{kind}: ok" for kind in kinds], said)


def run(machine, kind, *commands):
    """The verdict, or the output of what failed, after commands between the state's beginning and its verdict."""
    said = machine.sh(FUNCTIONS + f"""
        set +e
        exec 2>&1
        begin {kind} && {" && ".join(commands)} && verdict
        end""")
    print(said)
    return said


TAKE = "snapctl checkpoint $pid --name $name >/dev/null"
BRING_BACK = "snapctl restore $name >/dev/null"


@test("States.MutexesAreHeldAfterARestoreThatFailed", timeout=300)
def failed_restore(machine):
    """The kernel must not tell of the end of owners that a failed restore has killed: another restore follows."""
    machine.ensure_snapd()
    machine.sh(f"mkdir -p {WORK}/failed; printf '#!/bin/sh\\n[ $CRTOOLS_SCRIPT_ACTION != post-restore ]\\n' "
               f">{WORK}/failed/script; chmod +x {WORK}/failed/script")
    fail = (f"! {PREFIX}/sbin/criu restore -D {POOL}/snapshots/$name/images -W {WORK}/failed -o log -v2 "
            f"--manage-cgroups=ignore --file-locks --link-remap --restore-detached "
            f"--action-script {WORK}/failed/script >/dev/null 2>&1")
    said = run(machine, "robust-mutex", TAKE, fail, f"grep -q 'post-restore' {WORK}/failed/log", BRING_BACK)
    expect(said == "ok", said)


@test("States.AffinityThatIsTheCgroupsIsNotTheTasks", timeout=300)
def affinity_of_cgroup(machine):
    """Of a unit with AllowedCPUs= nothing is left where the tasks are restored."""
    machine.ensure_snapd()
    said = machine.sh(FUNCTIONS + f"""
        set +e
        exec 2>&1
        name=state-cgroup-affinity dir={WORK}/state-cgroup-affinity
        snapctl rm $name >/dev/null 2>&1
        rm -rf $dir; mkdir -p $dir
        setsid systemd-run --quiet --scope -p AllowedCPUs=0 {STATES} cgroup-affinity $dir \
          </dev/null >>$dir/log 2>&1 &
        pid=$!
        await ready && grep -x 'Cpus_allowed_list:.0' /proc/$pid/status && {TAKE} && {BRING_BACK} && verdict
        end""")
    expect(said.splitlines()[-1:] == ["ok"], said)


@test("States.AffinityWithoutItsProcessorsIsWide", timeout=300)
def affinity_offline(machine):
    """As the kernel does when the last processor of a thread goes offline."""
    machine.ensure_snapd()
    online = "/sys/devices/system/cpu/cpu1/online"
    machine.sh(f"[ $(nproc) = 2 ] && [ -w {online} ]")
    try:
        said = run(machine, "affinity", TAKE, f"echo 0 >{online}", BRING_BACK, f"echo 1 >{online}")
    finally:
        machine.sh(f"echo 1 >{online}")
    expect("may use" in said and "the first is one of them" in said and "no verdict" not in said, said)


@test("States.ThatCannotComeBackAreRefused", timeout=300)
def refused_by_name(machine):
    machine.ensure_snapd()
    machine.sh("mkdir -p /dev/mqueue; mountpoint -q /dev/mqueue || mount -t mqueue mqueue /dev/mqueue")
    for kind, (reason, text) in NEVER_TAKEN.items():
        pid = machine.sh(FUNCTIONS + f"begin {kind} && echo $pid")
        try:
            error = refused(machine, REFUSED, reason, "checkpoint", pid, "--name", f"state-{kind}")
            expect(text in error["message"], f"{kind}: {text} is not in the message: {error}")
            said = machine.sh(FUNCTIONS + f"pid={pid} name=state-{kind} dir={WORK}/state-{kind}; verdict")
            expect(said == "ok", f"after the refusal: {kind}: {said}")
        finally:
            machine.sh(FUNCTIONS + f"pid={pid} name=state-{kind} dir={WORK}/state-{kind}; end")
