# SPDX-License-Identifier: Apache-2.0
"""What does not come back is said before anything is killed."""

import contextlib

from error_tests import REFUSED, refused
from machine import POOL, WORK, expect, wait_until
from registry import test

# A process with something that does not come back, or does not come back after a reboot. It says so on its
# standard output again and again.
KINDS = """
import ctypes, mmap, os, socket, sys, time
kind, place = sys.argv[1:]
libc = ctypes.CDLL(None, use_errno=True)
libc.shmat.restype = ctypes.c_void_p
def ok(result):
    assert result != -1, os.strerror(ctypes.get_errno())
    return result
if kind in ("shm", "tmp"):
    held = open(place, "w")
elif kind == "mapped":
    with open(place, "w+b") as file:
        file.truncate(4096)
        held = mmap.mmap(file.fileno(), 4096)
    os.closerange(3, 64)
elif kind == "directory":
    os.makedirs(place, exist_ok=True)
    os.chdir(place)
elif kind == "sysv-shm":
    held = ok(libc.shmat(ok(libc.shmget(0, 4096, 0o600)), None, 0))
elif kind == "sysv-sem":
    held = ok(libc.semget(0, 1, 0o600))
    ok(libc.semop(held, b"\\0\\0\\1\\0\\0\\0", 1))
elif kind == "sysv-msg":
    held = ok(libc.msgget(0, 0o600))
    ok(libc.msgsnd(held, b"\\1" + b"\\0" * 15, 8, 0))
elif kind == "linked":
    held = open(place, "w+")
    held.write("hello")
    held.flush()
    os.link(place, place + ".other")
    os.unlink(place)
elif kind == "deleted":
    held = open(place, "w+")
    held.write("hello")
    held.flush()
    os.unlink(place)
elif kind == "socket":
    held = socket.socket(socket.AF_UNIX)
    held.bind(place)
    held.listen()
elif kind == "watch":
    held = ok(libc.inotify_init())
    ok(libc.inotify_add_watch(held, place.encode(), 0x100))
elif kind == "net-of-a-thread":
    import threading
    inside = threading.Event()
    def inside_of_another():
        ok(libc.unshare(0x40000000))
        inside.set()
        threading.Event().wait()
    threading.Thread(target=inside_of_another, daemon=True).start()
    inside.wait()
while True:
    if kind in ("linked", "deleted"):
        assert os.pread(held.fileno(), 9, 0) == b"hello"
    if kind == "socket":
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(place)
            held.accept()[0].close()
    print("alive", flush=True)
    time.sleep(0.1)
"""


class Task:
    """One of KINDS, started by snapctl run, with `wrapper` between the two."""

    def __init__(self, machine, kind, place="", wrapper=(), name=""):
        self.machine, self.name = machine, name or f"loss-{kind}"
        self.wrapper = wrapper
        machine.run("snapctl", "rm", self.name, check=False)
        answer = machine.snapctl_json("run", "--name", self.name, "--", *wrapper, "python3", "-c", KINDS, kind, place)
        self.pid, self.log = answer["pid"], answer["log"]
        self.goes_on()

    def goes_on(self):
        lines = int(self.machine.sh(f"wc -l <{self.log}"))
        wait_until(lambda: int(self.machine.sh(f"wc -l <{self.log}")) > lines, f"{self.name} going on")

    def refused(self, reason, text):
        error = refused(self.machine, REFUSED, reason, "checkpoint", str(self.pid), "--name", self.name)
        expect(text in error["message"], f"{self.name}: {text} is not in the message: {error}")
        self.goes_on()
        expect(self.machine.sh(f"ls -A {POOL}/staging") == "", "something is left in staging")

    def checkpoint(self, *options):
        return self.machine.snapctl_json("checkpoint", str(self.pid), "--name", self.name, *options)["snapshot"]

    def restore(self):
        self.machine.snapctl("restore", self.name)
        self.goes_on()

    def kill(self):
        self.machine.kill_session(self.pid)


@contextlib.contextmanager
def task(machine, *arguments, **kwargs):
    started = Task(machine, *arguments, **kwargs)
    try:
        yield started
    finally:
        started.kill()
        machine.run("snapctl", "rm", started.name, check=False)


@test("Losses.FilesThatARebootRemovesAreRefusedUnlessForced", timeout=600)
def volatile_files(machine):
    """On tmpfs, or where systemd-tmpfiles empties at boot. By force the task comes back on this boot."""
    machine.ensure_snapd()
    machine.sh("rm -rf /dev/shm/loss /run/loss-dir /tmp/loss /srv/loss; mkdir -p /srv/loss")
    machine.sh("echo 'D! /srv/loss 0755 root root -' >/etc/tmpfiles.d/loss.conf")
    try:
        for kind, place, text in (("mapped", "/dev/shm/loss", "it has mapped /dev/shm/loss, which is on tmpfs"),
                                  ("directory", "/run/loss-dir", "working directory is /run/loss-dir"),
                                  ("tmp", "/tmp/loss", "/tmp/loss"),
                                  ("tmp", "/srv/loss/file", "D /srv/loss (/etc/tmpfiles.d/loss.conf)")):
            with task(machine, kind, place) as lost:
                lost.refused("VOLATILE_FILE", text)
        # What goes by a name in such a place: the other name of a file, a socket, a watch.
        machine.sh("mkdir -p /run/loss-dir")
        for kind, place, text in (("linked", "/dev/shm/loss", "/dev/shm/loss, which is on tmpfs"),
                                  ("socket", "/run/loss-dir/s", "the socket /run/loss-dir/s"),
                                  ("watch", "/run/loss-dir", "watches /run/loss-dir")):
            with task(machine, kind, place) as lost:
                lost.refused("VOLATILE_FILE", text)
            machine.sh("rm -f /dev/shm/loss* /run/loss-dir/s")
        with task(machine, "shm", "/dev/shm/loss") as lost:
            lost.refused("VOLATILE_FILE", "/dev/shm/loss, which is on tmpfs")
            left = lost.checkpoint("--leave-running")
            expect([f["reason"] for f in left["findings"]] == ["VOLATILE_FILE"], f"findings: {left['findings']}")
            expect(not left["forced"], "nothing was forced")
            lost.goes_on()
            machine.snapctl("rm", lost.name)
            said = machine.snapctl("checkpoint", str(lost.pid), "--name", lost.name, "--force")
            expect("warning: " in said.stderr and "/dev/shm/loss" in said.stderr, f"no warning: {said.stderr}")
            shown = machine.snapctl("inspect", lost.name).stdout
            expect("forced" in shown and "/dev/shm/loss" in shown, f"inspect does not say it: {shown}")
            lost.restore()
    finally:
        machine.sh("rm -rf /etc/tmpfiles.d/loss.conf /dev/shm/loss /run/loss-dir /tmp/loss /srv/loss")


@test("Losses.SystemVObjectsAndNamespacesAreRefused", timeout=600)
def objects(machine):
    machine.ensure_snapd()
    try:
        for kind, text in (("sysv-shm", "shared memory"), ("sysv-sem", "semaphores"), ("sysv-msg", "message queue")):
            with task(machine, kind) as lost:
                lost.refused("SYSV_IPC", text)
        # Left behind by the dead, and of the same user: they may have been its children.
        with task(machine, "plain") as lost:
            lost.refused("SYSV_IPC", "may use System V shared memory")
            machine.sh("ipcrm --all")
            lost.checkpoint()
            lost.restore()
    finally:
        machine.sh("ipcrm --all")
    for option, text in (("--mount", "mount namespace"), ("--net", "network namespace"), ("--user", "user namespace")):
        with task(machine, "namespace", wrapper=("unshare", option)) as lost:
            lost.refused("NAMESPACE", text)
    with task(machine, "namespace", wrapper=("unshare", "--pid", "--fork")) as lost:
        lost.refused("NAMESPACE", "PID namespace")
    with task(machine, "net-of-a-thread") as lost:
        lost.refused("NAMESPACE", "net namespace of its own")


# A child of a low PID, in a session of its own. Says its PID.
LOW = """
import os, sys, time
for low in range(20000, 30000):
    if os.path.exists("/proc/%d" % low):
        continue
    with open("/proc/sys/kernel/ns_last_pid", "w") as last:
        last.write(str(low - 1))
    pid = os.fork()
    if pid == 0:
        os.setsid()
        null = os.open("/dev/null", os.O_RDWR)
        for fd in range(3):
            os.dup2(null, fd)
        os.closerange(3, 64)
        while True:
            time.sleep(1)
    print(pid)
    break
"""


@test("Losses.PidThatABootGivesAwayIsRefused", timeout=300)
def low_pid(machine):
    machine.ensure_snapd()
    pid = machine.run("python3", "-c", LOW).stdout.strip()
    expect(20000 <= int(pid) < 1000000, f"the task has PID {pid}")
    try:
        error = refused(machine, REFUSED, "PID_NOT_RESERVED", "checkpoint", pid, "--name", "loss-pid")
        expect(error["metadata"]["pid"] == pid and "snapctl run" in error["hint"], f"{error}")
        machine.snapctl("checkpoint", pid, "--name", "loss-pid", "--force")
        machine.snapctl("restore", "loss-pid")
    finally:
        machine.kill_session(pid)
        machine.run("snapctl", "rm", "loss-pid", check=False)
        # As it was: tasks to come get PIDs above.
        machine.reserve_pids()


@test("Losses.FileWhoseNameWasRemovedComesBackAsOftenAsIsSaid", timeout=600)
def removed_names(machine):
    """One that has other names: once, and never of a task that was left running. One without: always."""
    machine.ensure_snapd()
    machine.sh(f"rm -f {WORK}/loss*")
    with task(machine, "linked", f"{WORK}/loss") as linked:
        left = linked.checkpoint("--leave-running")
        found = [(f["reason"], f["consequence"]) for f in left["findings"]]
        expect(found == [("LINK_REMAPPED", "LOST")], f"findings: {left['findings']}")
        linked.kill()
        refused(machine, REFUSED, "LINK_REMAPPED", "restore", linked.name, text="left running")
    machine.sh(f"rm -f {WORK}/loss*")
    with task(machine, "linked", f"{WORK}/loss") as linked:
        taken = linked.checkpoint()
        found = [(f["reason"], f["consequence"]) for f in taken["findings"]]
        expect(found == [("LINK_REMAPPED", "LIMITED")], f"findings: {taken['findings']}")
        linked.restore()
        linked.kill()
        refused(machine, REFUSED, "LINK_REMAPPED", "restore", linked.name, text="once")
    with task(machine, "deleted", f"{WORK}/loss-deleted") as deleted:
        taken = deleted.checkpoint("--leave-running")
        expect(taken["findings"] == [], f"findings: {taken['findings']}")
        for _ in range(2):
            deleted.kill()
            deleted.restore()
    machine.sh(f"rm -f {WORK}/loss*")


@test("Losses.APowerCutLosesWhatIsRefusedAndNothingElse", timeout=900)
def after_a_power_cut(machine):
    """By force, what is refused does not come back; what is not refused does, without any help."""
    machine.ensure_snapd()
    machine.sh("rm -rf /run/loss* /dev/shm/loss*; mkdir /run/loss-dir")
    refused_ones = [Task(machine, "socket", "/run/loss-dir/s", name="loss-cut-socket"),
                    Task(machine, "shm", "/dev/shm/loss", name="loss-cut-shm")]
    others = [Task(machine, "socket", "/run/loss-here", name="loss-cut-socket-here"),
              Task(machine, "deleted", "/dev/shm/loss-deleted", name="loss-cut-deleted"),
              Task(machine, "watch", "/dev/shm", name="loss-cut-watch"),
              Task(machine, "directory", "/dev/shm", name="loss-cut-directory")]
    for lost in refused_ones:
        lost.refused("VOLATILE_FILE", "gone after a reboot")
        lost.checkpoint("--force")
    for other in others:
        taken = other.checkpoint()
        expect(taken["findings"] == [], f"{other.name}: {taken['findings']}")
    machine.power_cycle()
    machine.ensure_snapd()
    for lost, reason in zip(refused_ones, ("CRIU_FAILED", "FILE_CHANGED")):
        done = machine.snapctl("-o", "json", "restore", lost.name, check=False)
        expect(done.returncode != 0 and f'"{reason}"' in done.stderr, f"{lost.name}: {done.stderr}")
    for other in others:
        other.restore()
        other.kill()
        machine.snapctl("rm", other.name)
    # Nothing else of it is lost: with its directory it comes back.
    machine.sh("mkdir /run/loss-dir")
    refused_ones[0].restore()
    for lost in refused_ones:
        lost.kill()
        machine.snapctl("rm", lost.name)
    machine.sh("rm -rf /run/loss*")
