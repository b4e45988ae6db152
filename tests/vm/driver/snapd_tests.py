# SPDX-License-Identifier: Apache-2.0
"""snapd killed, refused and failing: a task is never harmed and the pool is clean."""

import json

from machine import POOL, PREFIX, WORK, expect, wait_until
from registry import test
from workload_tests import Workload

SNAPD_PID = "systemctl show -P MainPID snapd"
BROKEN = "/run/daxsnap-broken"


def clean_pool(machine, but=""):
    """Nothing in staging but such files."""
    left = machine.sh(f"ls -A --ignore='{but}' {POOL}/staging 2>/dev/null || true")
    expect(left == "", f"left in staging: {left}")


def names(machine):
    return [s["name"] for s in machine.snapctl_json("ls")["snapshots"]]


# When snapd is killed: as soon as such a file is there.
STATES = {
    "Staging": f"{POOL}/staging/*",
    "Dumping": f"{POOL}/staging/*/images/*.img",
    "Pages": f"{POOL}/staging/*/images/pages-1.img",
    "Written": f"{POOL}/staging/*/images/inventory.img",
    "Published": f"{POOL}/snapshots/wl-forktree-published-*",
}


def kill_in_state(machine, state, *options):
    """SIGKILL to snapd when the guest sees the state. The task must run on as it was, or
    be whole in a snapshot, and the next snapd must find, or make, a clean pool. A
    checkpoint that was faster than the watcher is tried again: the state must be met."""
    workload = Workload(machine, "forktree", "--mib", "16", tag=f"-{state.lower()}").start()
    workload.check()
    for attempt in range(8):  # an earlier run may have left some
        machine.run("snapctl", "rm", f"{workload.snapshot}-{attempt}", check=False)
    for attempt in range(8):
        snapshot = f"{workload.snapshot}-{attempt}"
        # Shell builtins alone: a state may last but a few milliseconds.
        watcher = machine.start("sh", "-c", f"""
            pid=$({SNAPD_PID})
            echo watching
            while [ ! -e {WORK}/stop ]; do
              for found in {STATES[state]}; do
                if [ -e "$found" ]; then kill -9 "$pid"; echo killed; exit; fi
              done
            done""")
        try:
            expect(watcher.stdout.readline() == "watching\n", "the watcher did not start")
            done = machine.snapctl("checkpoint", *options, "--name", snapshot, str(workload.pid), check=False)
        finally:
            machine.sh(f"touch {WORK}/stop")
            said, _ = watcher.communicate(timeout=60)
            machine.sh(f"rm -f {WORK}/stop")
        machine.run("systemctl", "reset-failed", "snapd", check=False)
        machine.sh("systemctl start snapd; systemctl is-active -q snapd")
        wait_until(lambda: machine.run("pgrep", "-x", "criu", check=False).returncode, "the end of CRIU")
        met = "killed" in said and done.returncode != 0
        if met:
            print(f"met in attempt {attempt + 1}")
            break
        if not workload.alive():
            workload.restore(snapshot)
        machine.run("snapctl", "rm", snapshot, check=False)
    expect(met, f"snapd could not be killed in state {state}")
    if workload.alive():
        status = machine.sh(f"awk '/^State|^TracerPid/ {{ print $2 }}' /proc/{workload.pid}/status").split()
        expect(status[0] in "RS" and status[1] == "0", f"the task is {status}")
    else:
        expect("--leave-running" not in options, "the task is gone although it was to run on")
        expect(snapshot in names(machine), "the task was killed and there is no snapshot of it")
        workload.restore(snapshot)
    workload.check()
    clean_pool(machine)
    if snapshot in names(machine):  # published before the kill: whole, then
        machine.snapctl("inspect", snapshot)
        machine.snapctl("rm", snapshot)
    # And a checkpoint works again.
    workload.checkpoint()
    workload.restore()
    workload.check()
    workload.discard()


@test("SnapdKilled.WhileStagingLeavesTaskAndPool", timeout=400)
def killed_staging(machine):
    kill_in_state(machine, "Staging")


@test("SnapdKilled.WhileDumpingLeavesTaskAndPool", timeout=400)
def killed_dumping(machine):
    kill_in_state(machine, "Dumping", "--leave-running")


@test("SnapdKilled.WhilePagesAreTakenLeavesTaskAndPool", timeout=400)
def killed_pages(machine):
    kill_in_state(machine, "Pages", "--leave-running")


@test("SnapdKilled.WhenImagesAreWrittenLeavesTaskOrSnapshot", timeout=400)
def killed_written(machine):
    kill_in_state(machine, "Written")


@test("SnapdKilled.WhilePublishingLeavesTaskOrSnapshot", timeout=400)
def killed_publishing(machine):
    kill_in_state(machine, "Published")


@test("SnapdKilled.WhileRestoringLeavesAllTasksOrNone", timeout=400)
def killed_restoring(machine):
    """At some moments of a restore. What is left of the tree must be whole and run, or be
    nothing, so that the snapshot can be restored again; the next snapd's staging is clean."""
    workload = Workload(machine, "forktree", "--mib", "16", tag="-restoring").start()
    workload.check()
    taken = workload.progress
    workload.checkpoint()
    killed = 0
    for delay in (0, 0.02, 0.05, 0.1, 0.2, 0.4):
        watcher = machine.start("sh", "-c", f"""
            pid=$({SNAPD_PID})
            echo watching
            while [ ! -e {WORK}/stop ]; do
              for found in {POOL}/staging/*.operation; do
                if [ -e "$found" ]; then sleep {delay}; kill -9 "$pid"; echo killed; exit; fi
              done
            done""")
        try:
            expect(watcher.stdout.readline() == "watching\n", "the watcher did not start")
            done = machine.snapctl("restore", workload.snapshot, check=False)
        finally:
            machine.sh(f"touch {WORK}/stop")
            watcher.communicate(timeout=60)
            machine.sh(f"rm -f {WORK}/stop")
        killed += done.returncode != 0
        machine.run("systemctl", "reset-failed", "snapd", check=False)
        machine.sh("systemctl start snapd; systemctl is-active -q snapd")
        machine.snapctl("ls")  # the next snapd has looked at what was left
        # As long as the tasks run, a record may say so to who asks again.
        clean_pool(machine, but="*.operation" if workload.alive() else "")
        expect(machine.run("pgrep", "-x", "criu", check=False).returncode, "a CRIU is left")
        if workload.alive():
            print(f"after {delay} s: the tasks run")
            workload.check()
            workload.kill()
            workload.progress = taken  # the snapshot's, which comes back next
        else:
            print(f"after {delay} s: no task is left")
        expect(not workload.alive(), "a task is left")
    expect(killed, "no restore was hit")
    workload.restore()
    clean_pool(machine)
    workload.check()
    # Who did what can be asked of the journal.
    said = machine.sh(f"journalctl -o cat DAXSNAP_SNAPSHOT={workload.snapshot} DAXSNAP_OPERATION=restore")
    expect(f"uid 0 restored snapshot {workload.snapshot}" in said, f"the journal has {said!r}")
    workload.discard()


@test("SnapdKilled.RunningAndRestoredTasksLiveOn", timeout=400)
def killed_idle(machine):
    started = Workload(machine, "heap", tag="-started").start()
    restored = Workload(machine, "timers", tag="-restored").start()
    restored.check()
    restored.checkpoint()
    restored.restore()
    machine.sh(f"kill -9 $({SNAPD_PID})")
    wait_until(lambda: machine.run("systemctl", "is-active", "-q", "snapd", check=False).returncode == 0,
               "systemd starting snapd again")
    started.check()
    restored.check()
    machine.sh("systemctl restart snapd")
    started.check()
    restored.check()
    started.kill()
    restored.discard()


# snapctl on a terminal, where someone types Ctrl-C as soon as pages are written. Says the exit status.
PRESS_CTRL_C = """
import glob, os, pty, sys, termios
pid, terminal = pty.fork()
if pid == 0:
    os.execvp("snapctl", ["snapctl", *sys.argv[2:]])
while not any(os.path.getsize(f) for f in glob.glob(sys.argv[1])):
    if os.waitpid(pid, os.WNOHANG)[0]:
        sys.exit("it ended by itself")
os.write(terminal, termios.tcgetattr(terminal)[6][termios.VINTR])
try:
    while os.read(terminal, 4096):
        pass
except OSError:
    pass
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


@test("Snapd.CtrlCOnACheckpointLeavesTaskAndPool", timeout=400)
def ctrl_c(machine):
    """Of a task whose memory is on the other node: it is copied, which takes its time."""
    workload = Workload(machine, "pages", "--mib", "256", tag="-ctrlc").start("--node", "0")
    workload.check()
    free = int(machine.snapctl_json("pool", "show")["free_pages"])
    status = machine.run("python3", "-c", PRESS_CTRL_C, f"{POOL}/staging/*/images/pages-1.img", "checkpoint",
                         str(workload.pid), "--name", workload.snapshot).stdout.strip()
    expect(status == "130", f"snapctl: exit {status}")
    expect(workload.alive(), "the task is gone")
    workload.check()
    expect(workload.snapshot not in names(machine), "a cancelled snapshot is listed")
    # snapctl is gone at once; snapd waits for CRIU to let go of the task.
    wait_until(lambda: machine.sh(f"ls -A {POOL}/staging") == "", "an empty staging")
    now = int(machine.snapctl_json("pool", "show")["free_pages"])
    expect(now > free - 4096, f"{free - now} pages did not come back")
    # And a checkpoint works.
    workload.checkpoint()
    workload.restore()
    workload.check()
    workload.discard()


@test("Snapd.FullPoolFailsAndTheTaskRunsOn", timeout=600)
def full_pool(machine):
    """Memory of another node must be copied, for which there is no space."""
    workload = Workload(machine, "pages", "--mib", "64", tag="-full").start("--node", "0")
    workload.check()
    machine.sh(f"head -c 64G /dev/zero >{POOL}/filler 2>/dev/null || true; test -s {POOL}/filler")
    try:
        done = machine.snapctl("-o", "json", "checkpoint", str(workload.pid), "--name", "full", check=False)
        expect(done.returncode == 7, f"exit {done.returncode}: {done.stderr}")
        error = json.loads(done.stderr.splitlines()[-1])["error"]
        expect(error["reason"] == "NO_SPACE", f"reason {error}")
        workload.check()
        clean_pool(machine)
        expect("full" not in names(machine), "the failed snapshot is listed")
    finally:
        machine.sh(f"rm -f {POOL}/filler; sync -f {POOL}")
    workload.kill()
    machine.sh(f"{PREFIX}/tests/vm/fs_tools FsTools.DfCountsWhatIsStored {POOL}")


@test("Snapd.FailedCommitLeavesTheTask", timeout=400)
def failed_commit(machine):
    """A pool whose disk cannot take what is written: a real syncfs() fails. The task,
    stopped by then, must go on, and nothing must be published."""
    machine.ensure_snapd()
    workload = Workload(machine, "pages", "--mib", "24", tag="-commit").start()
    workload.check()
    # The file system believes in 128 MiB; the file below it may have 8.
    machine.sh(f"""
        mkdir -p {BROKEN}/disk {BROKEN}/pool; mount -t tmpfs -o size=8m none {BROKEN}/disk
        truncate -s 128M {BROKEN}/disk/img; mkfs.ext4 -q -O ^has_journal {BROKEN}/disk/img
        mount $(losetup -f --show {BROKEN}/disk/img) {BROKEN}/pool; mkdir -m 700 {BROKEN}/pool/p; sync -f {BROKEN}/pool""")
    socket = f"{BROKEN}/sock"
    snapd = machine.start("snapd", f"--pool={BROKEN}/pool/p", f"--socket={socket}",
                          f"--criu={PREFIX}/sbin/criu", f"--criu-libdir={PREFIX}/lib/criu")
    try:
        wait_until(lambda: machine.snapctl("--socket", socket, "ls", check=False).returncode == 0,
                   "the second snapd")
        done = machine.snapctl("--socket", socket, "-o", "json", "checkpoint", str(workload.pid), "--name",
                               "lost", check=False)
        error = json.loads(done.stderr.splitlines()[-1])["error"]
        # The kernel says EIO if a write to the disk stopped short, and ENOSPC if it could not begin.
        expect((done.returncode, error["reason"]) in ((1, "COMMIT_FAILED"), (7, "NO_SPACE")),
               f"exit {done.returncode}: {done.stdout}{done.stderr}")
        expect(workload.alive(), "the task is gone")
        workload.check()
        left = machine.sh(f"ls -A {BROKEN}/pool/p/snapshots")
        expect(left == "", f"published: {left}")
    finally:
        machine.run("sh", "-c", f"""
            pkill -f '^snapd --pool={BROKEN}'
            while pgrep -f '^snapd --pool={BROKEN}' >/dev/null; do sleep 0.1; done
            umount {BROKEN}/pool; losetup -D; umount {BROKEN}/disk""", check=False)
        snapd.communicate(timeout=60)
    workload.kill()


@test("Snapd.BringsUpThePoolAndRebuildsTheList", timeout=400)
def rebuilt(machine):
    workload = Workload(machine, "pipes", tag="-rebuilt").start()
    workload.checkpoint("--leave-running", name="rebuilt-a")
    workload.checkpoint("--leave-running", name="rebuilt-b")
    workload.kill()
    before = machine.snapctl_json("ls")
    expect({"rebuilt-a", "rebuilt-b"} <= set(names(machine)), f"listed: {names(machine)}")
    machine.sh("systemctl restart snapd")
    expect(machine.snapctl_json("ls") == before, "the list differs after a restart")
    machine.snapctl("rm", "rebuilt-a")
    left = f"{POOL}/staging/01234567-89ab-cdef-0123-456789abcdef"
    machine.sh(f"mkdir {left}; echo x >{left}/file; sync -f {POOL}")
    machine.power_cycle()
    # Nobody has brought the device up: that is snapd's own work.
    expect(machine.run("mountpoint", "-q", POOL, check=False).returncode != 0, "the pool is mounted already")
    machine.sh("systemctl start snapd")
    machine.sh(f"mountpoint -q {POOL}")
    clean_pool(machine)
    expect("rebuilt-a" not in names(machine), "a deleted snapshot is back after a power cut")
    expect("rebuilt-b" in names(machine), "a snapshot is lost")
    machine.snapctl("rm", "rebuilt-b")
