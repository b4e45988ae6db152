# SPDX-License-Identifier: Apache-2.0
"""What the kernel keeps of tasks besides their memory, one kind at a time (tests/states)."""

import os

from error_tests import REFUSED, refused
from machine import POOL, PREFIX, WORK, expect
from registry import test

STATES = f"{PREFIX}/tests/states"
# Kind of state: reason and text of the refusal.
NEVER_TAKEN = {"mqueue": ("TASK_UNSUPPORTED", "message queue"),
               "mqueue-path": ("TASK_UNSUPPORTED", "message queue"),
               "deadline": ("TASK_UNSUPPORTED", "SCHED_DEADLINE")}
# Those that get a state from where they are begun.
ALONE = {"cgroup-affinity"}
# What inspect says that stock CRIU loses of it, in this order; of all the policy that snapctl run gives.
LOSSES = {
    "eventfd": {"eventfd-semaphore", "eventfd-large"},
    "timerfd": {"timerfd-absolute", "timerfd-gone-off", "timerfd-realtime"},
    "epoll": {"epoll-of-parent", "epoll-of-both", "epoll-of-other-number"},
    "cpu affinity": {"affinity", "affinity-of-thread"},
    "io priority": {"ioprio"},
    "personality": {"personality"},
    "timer slack": {"timer-slack"},
    "memory policy": None,
    "locked memory": {"lock-on-fault", "mlock-future", "mlock-future-on-fault"},
    "write or execute": {"write-or-execute"},
    "memory merge": {"memory-merge"},
    "core dump filter": {"core-dump-filter"}}
# Programs in the guest, as ssh costs more than all they do.
FUNCTIONS = f"""
begin() {{  # NAME ARGUMENT...: sets name, dir and pid
  name=state-$1 dir={WORK}/state-$1 pid=0
  shift
  snapctl rm $name >/dev/null 2>&1 || true
  rm -rf $dir && mkdir -p $dir &&
    pid=$(snapctl run -q --name $name -- {STATES} "$@") && await ready
}}
await() {{  # FILE: until it is there, or the program is gone
  for _ in $(seq 1200); do
    [ -e $dir/$1 ] && return
    [ -d /proc/$pid ] || break
    sleep 0.1
  done
  echo "no $1 from $name"
  return 1
}}
verdict() {{ touch $dir/go && await verdict && cat $dir/verdict; }}
# Of each state of a tree.
verdicts() {{
  touch $dir/go && await verdict &&
    for file in $dir/*/verdict; do echo "$(basename $(dirname $file)): $(cat $file)"; done
}}
stop() {{
  [ $pid = 0 ] || pkill -9 -s $pid || true
  while [ $pid != 0 ] && pgrep -s $pid >/dev/null; do sleep 0.1; done
}}
end() {{
  stop
  snapctl rm $name >/dev/null 2>&1 || true
  rm -rf $dir
}}
"""


def kinds_of(machine):
    """All that come back, or those of $DAXSNAP_STATES."""
    chosen = os.environ.get("DAXSNAP_STATES", "").replace(",", " ").split()
    return chosen or [kind for kind in machine.sh(STATES).split() if kind not in {*NEVER_TAKEN, *ALONE}]


def in_a_tree(machine, name, kinds, *commands, also=()):
    """What each state of one tree, a child for each kind, says after the commands: {kind: verdict}, and so
    what else the commands tell."""
    said = machine.sh(FUNCTIONS + f"""
        set +e
        exec 2>&1
        begin {name} tree {WORK}/state-{name} {" ".join(kinds)} && {" && ".join(commands)}
        end""")
    print(said)
    verdicts = dict(line.split(": ", 1) for line in said.splitlines() if ": " in line)
    expect({*kinds, *also} <= set(verdicts), said)
    return {kind: verdicts[kind] for kind in [*kinds, *also]}


def expect_all_ok(verdicts):
    wrong = {kind: verdict for kind, verdict in verdicts.items() if verdict != "ok"}
    expect(not wrong, wrong)


def run(machine, kind, *commands):
    """The verdict, or the output of what failed, after commands between the state's beginning and its verdict."""
    said = machine.sh(FUNCTIONS + f"""
        set +e
        exec 2>&1
        begin {kind} {kind} {WORK}/state-{kind} && {" && ".join(commands)} && verdict
        end""")
    print(said)
    return said


TAKE = "snapctl checkpoint $pid --name $name >/dev/null"
LEAVE_RUNNING = "snapctl checkpoint $pid --name $name --leave-running >/dev/null"
BRING_BACK = "snapctl restore $name >/dev/null"
OPTIONS = "-o log -v2 --manage-cgroups=ignore --file-locks --link-remap"


def criu(program, action, images, *options):
    """A command that uses these images as snapd does, with its log in $dir; says its first error."""
    return (f"( {PREFIX}/sbin/{program} {action} -D {images} -W $dir {OPTIONS} {' '.join(options)} >/dev/null 2>&1 || "
            "{ grep -m1 Error $dir/log; false; } )")


@test("States.OfEveryKindComeBack", timeout=900)
def come_back(machine):
    machine.ensure_snapd()
    kinds = kinds_of(machine)
    inspect = "snapctl inspect $name | sed -n 's/^stock CRIU loses */losses: /p'"
    verdicts = in_a_tree(machine, "all", kinds, TAKE, inspect, BRING_BACK, "verdicts", also=["losses"])
    said = verdicts.pop("losses")
    expect_all_ok(verdicts)
    losses = [loss for loss, of in LOSSES.items() if of is None or of & set(kinds)]
    expect(said == ", ".join(losses), f"inspect says that stock CRIU loses {said}")


@test("States.OfTasksThatLiveOnStay", timeout=900)
def live_on(machine):
    """After a dump that failed when all had been done, and one that leaves the tasks running."""
    machine.ensure_snapd()
    script = f"{WORK}/fail-post-dump"
    machine.sh(f"printf '#!/bin/sh\\n[ $CRTOOLS_SCRIPT_ACTION != post-dump ]\\n' >{script}; chmod +x {script}")
    fail = f"mkdir $dir/images && ! {criu('criu', 'dump -t $pid', '$dir/images', '--action-script', script)} >/dev/null"
    expect_all_ok(in_a_tree(machine, "living", kinds_of(machine), fail, "grep -q 'post-dump' $dir/log",
                            LEAVE_RUNNING, "verdicts"))


# What stock CRIU brings back as well: by itself; as it is lost in dumps, and this one is ours; as CRIU has the
# usual one here. Its absolute timers are off by a part of a second, of any size.
NOT_LOST = {"madvise-flags", "policy-of-thread", "wipe-on-fork", "robust-mutex", "timerfd-periodic", "oom-score",
            "timerfd-absolute"}
# Of several tasks, each of which has a file of the set that the others have not: it cannot.
NOT_RESTORED = {"epoll-of-both", "epoll-of-other-number"}


@test("States.StockCriuRestoresTheImages", timeout=900)
def stock_restores(machine):
    """It does not know of what we add, and restores the rest: each state but these is lost, or its test is none."""
    machine.ensure_snapd()
    verdicts = in_a_tree(
        machine, "stock", [kind for kind in kinds_of(machine) if kind not in NOT_RESTORED], TAKE,
        criu("criu-stock", "restore", f"{POOL}/snapshots/$name/images", "--restore-detached"), "verdicts")
    right = {kind for kind, verdict in verdicts.items() if verdict == "ok"}
    expect(right <= NOT_LOST, f"stock CRIU brings back {right - NOT_LOST}")


@test("States.TimersOfImagesFromStockCriuGoOn", timeout=300)
def old_timers(machine):
    """A periodic timer that had expired has no time left in these images."""
    machine.ensure_snapd()
    said = run(machine, "timerfd-periodic", "mkdir $dir/images",
               criu("criu-stock", "dump -t $pid", "$dir/images"),
               criu("criu", "restore", "$dir/images", "--restore-detached"))
    expect("expires no more" not in said and ("are left" in said or said == "ok"), said)


@test("States.MutexesAreHeldAfterARestoreThatFailed", timeout=300)
def failed_restore(machine):
    """The kernel must not tell of the end of owners that a failed restore has killed: another restore follows."""
    machine.ensure_snapd()
    script = f"{WORK}/fail-post-restore"
    machine.sh(f"printf '#!/bin/sh\\n[ $CRTOOLS_SCRIPT_ACTION != post-restore ]\\n' >{script}; chmod +x {script}")
    restore = criu("criu", "restore", f"{POOL}/snapshots/$name/images", "--restore-detached", "--action-script", script)
    fail = f"! {restore} >/dev/null"
    said = run(machine, "robust-mutex", TAKE, fail, "grep -q 'post-restore' $dir/log", BRING_BACK)
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
        pid = machine.sh(FUNCTIONS + f"begin {kind} {kind} {WORK}/state-{kind} && echo $pid")
        try:
            error = refused(machine, REFUSED, reason, "checkpoint", pid, "--name", f"state-{kind}")
            expect(text in error["message"], f"{kind}: {text} is not in the message: {error}")
            said = machine.sh(FUNCTIONS + f"pid={pid} name=state-{kind} dir={WORK}/state-{kind}; verdict")
            expect(said == "ok", f"after the refusal: {kind}: {said}")
        finally:
            machine.sh(FUNCTIONS + f"pid={pid} name=state-{kind} dir={WORK}/state-{kind}; end")
