# SPDX-License-Identifier: Apache-2.0
"""The errors that users meet first: exit status, reason, and a task unharmed."""

import contextlib
import json

from machine import POOL, WORK, expect, wait_until
from registry import test
from snapd_tests import names
from workload_tests import Workload

USAGE, NOT_FOUND, TAKEN, PERMISSION, NO_DAEMON, REFUSED = 2, 3, 4, 5, 6, 8


def refused(machine, status, reason, *argv, text=""):
    done = machine.snapctl("-o", "json", *argv, check=False)
    where = f"snapctl {' '.join(argv)[:200]}: exit {done.returncode}, {done.stderr}"
    expect(done.returncode == status, where)
    error = json.loads(done.stderr.splitlines()[-1])["error"]
    if reason:
        expect(error["reason"] == reason, where)
        expect(error["hint"], f"no hint: {where}")
    expect(text in error["message"], where)
    return error


@test("Errors.NoSuchPid", timeout=300)
def no_such_pid(machine):
    machine.ensure_snapd()
    refused(machine, NOT_FOUND, "TASK_MISSING", "checkpoint", "4194302")


@test("Errors.KernelThreadZombieInitAndSnapd", timeout=300)
def odd_tasks(machine):
    machine.ensure_snapd()
    refused(machine, REFUSED, "TASK_UNSUPPORTED", "checkpoint", "2", text="kernel")
    refused(machine, REFUSED, "TASK_UNSUPPORTED", "checkpoint", "1")
    snapd = machine.sh("systemctl show -P MainPID snapd")
    refused(machine, REFUSED, "TASK_UNSUPPORTED", "checkpoint", snapd, text="snapd")
    parent = machine.start("python3", "-uc", """
import os, sys, time
pid = os.fork()
if pid == 0: os._exit(0)
os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
print(pid, os.getpid())
time.sleep(300)""")
    zombie, parent_pid = parent.stdout.readline().split()
    try:
        refused(machine, REFUSED, "TASK_UNSUPPORTED", "checkpoint", zombie, text="zombie")
    finally:
        machine.sh(f"kill -9 {parent_pid}")
        parent.communicate(timeout=60)
    expect(machine.sh("systemctl is-active snapd") == "active", "snapd is gone")


@test("Errors.NameTaken", timeout=300)
def name_taken(machine):
    workload = Workload(machine, "pipes", tag="-taken").start()
    workload.checkpoint("--leave-running")
    refused(machine, TAKEN, "NAME_TAKEN", "checkpoint", str(workload.pid), "--name", workload.snapshot)
    workload.check()
    workload.discard()


# Where "..", "../../tmp/x" and the like would have led; /run itself is others' too.
LOOK_OUTSIDE = f"ls -A {POOL}; ls -d /tmp/x /run/x /run/daxsnap/x /x 2>&1 || true"


@test("Errors.InvalidNames", timeout=300)
def invalid_names(machine):
    workload = Workload(machine, "pipes", tag="-names").start()
    outside = machine.sh(LOOK_OUTSIDE)
    for name in ("..", ".", "a/b", "../../tmp/x", "/etc/passwd", "x" * 255, "x" * 300, "new\nline",
                 "-dash", "a b", "\x01"):
        refused(machine, USAGE, "NAME_INVALID", "checkpoint", str(workload.pid), f"--name={name}")
        refused(machine, USAGE, "NAME_INVALID", "rm", "--", name)
    for command in ("restore", "inspect"):
        refused(machine, USAGE, "NAME_INVALID", command, "../../tmp/x")
    workload.check()
    expect(machine.sh(LOOK_OUTSIDE) == outside, "something was made outside of the pool")
    expect(machine.sh(f"ls -A {POOL}/staging") == "", "something is left in staging")
    workload.kill()


@test("Errors.SnapshotMissing", timeout=300)
def snapshot_missing(machine):
    machine.ensure_snapd()
    for command in ("restore", "inspect", "rm"):
        refused(machine, NOT_FOUND, "SNAPSHOT_MISSING", command, "no-such-snapshot")


@test("Errors.PidInUseAtRestore", timeout=300)
def pid_in_use(machine):
    workload = Workload(machine, "pipes", tag="-inuse").start()
    workload.checkpoint("--leave-running")
    # Any task of the tree may be the one that is named.
    refused(machine, TAKEN, "PID_IN_USE", "restore", workload.snapshot, text="is in use by wl_pipes")
    workload.check()
    workload.discard()


SNAPD_GROUP = 65500


@contextlib.contextmanager
def socket_group(machine):
    """A snapd that serves the members of SNAPD_GROUP besides root."""
    machine.ensure_snapd()
    machine.sh(f"mkdir -p /etc/daxsnap; echo SNAPD_ARGS=--socket-group={SNAPD_GROUP} >/etc/daxsnap/snapd.env")
    try:
        machine.restart_snapd()
        yield
    finally:
        machine.sh("rm /etc/daxsnap/snapd.env")
        machine.restart_snapd()


def as_user(machine, uid, *argv, member=True, **kwargs):
    groups = f"--groups={SNAPD_GROUP}" if member else "--clear-groups"
    return machine.run("setpriv", f"--reuid={uid}", f"--regid={uid}", groups, *argv, **kwargs)


@test("Errors.PermissionDenied", timeout=400)
def permission_denied(machine):
    """Others than root and the group cannot connect; members have no right to root's tasks and snapshots."""
    workload = Workload(machine, "pipes", tag="-denied").start()
    workload.checkpoint("--leave-running")

    def denied(text, **kwargs):
        for command in (("checkpoint", str(workload.pid)), ("restore", workload.snapshot),
                        ("inspect", workload.snapshot), ("rm", workload.snapshot)):
            done = as_user(machine, 65534, "snapctl", "-o", "json", *command, check=False, **kwargs)
            expect(done.returncode == PERMISSION, f"{command}: exit {done.returncode}: {done.stderr}")
            expect(text in done.stderr, f"{command}: {done.stderr}")

    denied("no permission to use", member=True)
    with socket_group(machine):
        denied("no permission to use", member=False)
        denied("65534", member=True)
        expect(names(machine).count(workload.snapshot) == 1, "the snapshot is gone")
    done = as_user(machine, 65534, "sh", "-c", f"ls {POOL}/snapshots {POOL}/snapshots/{workload.snapshot}",
                   check=False)
    expect(done.returncode != 0, f"anybody may look into snapshots: {done.stdout}")
    workload.check()
    workload.discard()


@test("Access.UsersHaveTheirOwnTasksAndSnapshots", timeout=400)
def own_tasks(machine):
    """A member of the socket's group takes, sees, restores and removes snapshots of own tasks, of no other's."""
    with socket_group(machine):
        take_own_tasks(machine)


def take_own_tasks(machine):
    user, stranger = 65534, 65533
    workload = Workload(machine, "heap", tag="-user")
    machine.run("snapctl", "rm", workload.snapshot, check=False)
    machine.reserve_pids()
    machine.sh(f"rm -rf {workload.dir}; mkdir -p {workload.dir}; chown {user}:{user} {workload.dir}")
    as_user(machine, user, "sh", "-c", f"setsid {' '.join(workload.command)} </dev/null >{workload.dir}/log 2>&1 &")
    wait_until(lambda: machine.run("test", "-e", f"{workload.dir}/ready", check=False).returncode == 0, "the task")
    workload.pid = int(machine.sh(f"cat {workload.dir}/ready"))
    expect(machine.sh(f"stat -c %u /proc/{workload.pid}") == str(user), "the task is not the user's")
    workload.check()
    checkpoint = ("snapctl", "checkpoint", str(workload.pid), "--name", workload.snapshot)
    done = as_user(machine, stranger, *checkpoint, check=False)
    expect(done.returncode == PERMISSION, f"a stranger: exit {done.returncode}: {done.stderr}")
    workload.check()
    as_user(machine, user, *checkpoint)
    expect(not workload.alive(), "the task is still there after its checkpoint")
    for uid, listed in ((user, True), (stranger, False)):
        answer = json.loads(as_user(machine, uid, "snapctl", "-o", "json", "ls").stdout)
        found = workload.snapshot in [snapshot["name"] for snapshot in answer["snapshots"]]
        expect(found == listed, f"uid {uid} lists it: {found}")
    for command in ("restore", "inspect", "rm"):
        done = as_user(machine, stranger, "snapctl", command, workload.snapshot, check=False)
        expect(done.returncode == PERMISSION, f"a stranger: {command}: exit {done.returncode}: {done.stderr}")
    as_user(machine, user, "snapctl", "restore", workload.snapshot)
    expect(machine.sh(f"stat -c %u /proc/{workload.pid}") == str(user), "the restored task is not the user's")
    workload.check()
    workload.kill()
    as_user(machine, user, "snapctl", "rm", workload.snapshot)


# Says its PID and sleeps; "agent" as ssh-agent does it, "setgid" having given up its group.
MAYBE_TRACEABLE = """
import ctypes, os, sys, time
if sys.argv[1] == "agent":
    assert ctypes.CDLL(None).prctl(4, 0, 0, 0, 0) == 0
if sys.argv[1] == "setgid":
    assert os.getegid() != os.getgid(), "the group is not another"
    os.setresgid(os.getgid(), os.getgid(), os.getgid())
null = os.open("/dev/null", os.O_RDWR)
print(os.getpid(), flush=True)
for fd in range(3):
    os.dup2(null, fd)
time.sleep(1000)
"""


@test("Access.TasksThatUsersMayNotPtraceAreRefused", timeout=400)
def not_traceable(machine):
    """Of programs that the kernel protects from their own user no member gets a snapshot; nor is it the user's
    when root takes one."""
    user = 65534
    with socket_group(machine):
        machine.sh(f"""
            install -g tty -m 2755 "$(readlink -f "$(command -v python3)")" {WORK}/python-setgid
            install -m 4755 "$(command -v sleep)" {WORK}/sleep-setuid""")
        python = ("python3", "-c", MAYBE_TRACEABLE)
        setuid = ("sh", "-c", f"echo $$; exec {WORK}/sleep-setuid 1000 </dev/null >/dev/null 2>&1")
        identity = ("setsid", "setpriv", f"--reuid={user}", f"--regid={user}", f"--groups={SNAPD_GROUP}")
        for kind, argv in (("plain", (*identity, *python, "plain")),
                           ("agent", (*identity, *python, "agent")),
                           ("setgid", (*identity, f"{WORK}/python-setgid", "-c", MAYBE_TRACEABLE, "setgid")),
                           ("setuid", (*identity, *setuid)),
                           ("capable", (*identity, "--inh-caps=+chown", "--ambient-caps=+chown", *python, "capable"))):
            task = machine.start(*argv)
            pid = task.stdout.readline().strip()
            expect(pid, f"{kind}: no task")
            if kind == "setuid":
                wait_until(lambda: machine.sh(f"cat /proc/{pid}/comm") == "sleep-setuid", "the set-user-ID program")
            name = f"traceable-{kind}"
            machine.run("snapctl", "rm", name, check=False)
            try:
                done = as_user(machine, user, "snapctl", "-o", "json", "checkpoint", "-r", "-n", name, pid,
                               check=False)
                if kind == "plain":
                    expect(done.returncode == 0, f"{kind}: exit {done.returncode}: {done.stderr}")
                else:
                    expect(done.returncode == PERMISSION, f"{kind}: exit {done.returncode}: {done.stderr}")
                    machine.snapctl("checkpoint", "-r", "-n", name, pid)
                owner = machine.snapctl_json("inspect", name)["owner_uid"]
                expect(int(owner) == (user if kind == "plain" else 0), f"{kind}: the snapshot is of uid {owner}")
                expect(machine.sh(f"ls -A {POOL}/staging") == "", f"{kind}: something is left in staging")
            finally:
                machine.sh(f"kill -9 {pid}")
                task.communicate(timeout=60)
            machine.snapctl("rm", name)


@test("Errors.SnapdNotRunning", timeout=300)
def snapd_not_running(machine):
    machine.ensure_snapd()
    machine.stop_snapd()
    try:
        refused(machine, NO_DAEMON, "", "ls", text="snapd")
    finally:
        machine.ensure_snapd()
    machine.snapctl("ls")


# A task with something that no snapshot of it can hold; says its PID.
LEADS_OUT = """
import ctypes, os, socket, sys, time
kind = sys.argv[1]
outside = inside = -1
if kind == "terminal":
    outside, inside = os.openpty()
elif kind == "pipe":
    outside, inside = os.pipe()
elif kind == "socket":
    ends = socket.socketpair()
    outside, inside = ends[0].fileno(), ends[1].fileno()
ready, told = os.pipe()
pid = os.fork()
if pid == 0:
    if kind != "session":
        os.setsid()
    null = os.open("/dev/null", os.O_RDWR)
    for fd in range(3):
        os.dup2(null, fd)
    for fd in (null, ready, outside):
        if fd >= 0:
            os.close(fd)
    if kind == "io_uring":
        assert ctypes.CDLL(None).syscall(425, 8, ctypes.create_string_buffer(120)) >= 0
    os.write(told, b"x")
    os.close(told)
    while True:
        time.sleep(1)
os.close(told)
assert os.read(ready, 1) == b"x"
print(pid, flush=True)
os.waitpid(pid, 0)
"""


@test("Errors.WhatLeadsOutOfTheTreeIsNamed", timeout=300)
def leads_out(machine):
    """Refused with a reason of its own and a hint, and the task goes on."""
    machine.ensure_snapd()
    machine.reserve_pids()
    for kind, reason in (("terminal", "EXTERNAL_TERMINAL"), ("pipe", "EXTERNAL_TERMINAL"),
                         ("session", "EXTERNAL_SESSION"), ("socket", "EXTERNAL_UNIX_SOCKET"),
                         ("io_uring", "IO_URING")):
        parent = machine.start("python3", "-c", LEADS_OUT, kind)
        pid = parent.stdout.readline().strip()
        expect(pid, f"{kind}: no task")
        try:
            error = refused(machine, REFUSED, reason, "checkpoint", pid)
            expect(pid in error["message"], f"{kind}: the message does not name the task: {error}")
            status = machine.sh(f"awk '/^State|^TracerPid/ {{ print $2 }}' /proc/{pid}/status").split()
            expect(status[0] in "RS" and status[1] == "0", f"{kind}: the task is {status}")
            expect(machine.sh(f"ls -A {POOL}/staging") == "", f"{kind}: something is left in staging")
        finally:
            machine.sh(f"kill -9 {pid}")
            parent.communicate(timeout=60)


@test("Errors.EstablishedConnectionIsNamed", timeout=300)
def connected(machine):
    machine.ensure_snapd()
    code = ("import socket,os,sys,time\n"
            "s=socket.socket(); s.bind(('127.0.0.1',7399)); s.listen(1)\n"
            "c=socket.create_connection(('127.0.0.1',7399)); a,_=s.accept()\n"
            f"open('{WORK}/tcp-ready','w').write('x')\n"
            f"while True: time.sleep(0.05); c.send(b'x'); a.recv(1); open('{WORK}/tcp-alive','w').write(str(time.time()))\n")
    machine.sh(f"rm -f {WORK}/tcp-ready {WORK}/tcp-alive")
    pid = str(machine.snapctl_json("run", "--", "python3", "-c", code)["pid"])
    machine.sh(f"for _ in $(seq 300); do [ -e {WORK}/tcp-alive ] && exit 0; sleep 0.1; done; exit 1")
    try:
        refused(machine, REFUSED, "TCP_ESTABLISHED", "checkpoint", pid)
        beat = machine.sh(f"cat {WORK}/tcp-alive")
        wait_until(lambda: machine.sh(f"cat {WORK}/tcp-alive") not in ("", beat), "the task going on")
        expect(machine.sh(f"ls -A {POOL}/staging") == "", "something is left in staging")
    finally:
        machine.sh(f"kill -9 {pid}")


@test("Errors.FirstErrorOfCriuAndItsLogAreShown", timeout=300)
def criu_error(machine):
    """What only CRIU itself finds out: a userfaultfd, which it does not know."""
    machine.ensure_snapd()
    code = ("import ctypes,time\n"
            "assert ctypes.CDLL(None).syscall(323, 0) >= 0\n"
            f"while True: open('{WORK}/uffd-alive','w').write(str(time.time())); time.sleep(0.05)\n")
    machine.sh(f"rm -f {WORK}/uffd-alive")
    pid = str(machine.snapctl_json("run", "--", "python3", "-c", code)["pid"])
    try:
        wait_until(lambda: machine.run("test", "-s", f"{WORK}/uffd-alive", check=False).returncode == 0, "the task")
        error = refused(machine, REFUSED, "CRIU_FAILED", "checkpoint", pid, text="userfaultfd")
        first = error["metadata"]["criu_error"]
        expect(first in error["message"], f"the message lacks CRIU's error: {error}")
        machine.run("grep", "-qF", "--", first, error["metadata"]["criu_log"])
        beat = machine.sh(f"cat {WORK}/uffd-alive")
        wait_until(lambda: machine.sh(f"cat {WORK}/uffd-alive") not in ("", beat), "the task going on")
        expect(machine.sh(f"ls -A {POOL}/staging") == "", "something is left in staging")
    finally:
        machine.sh(f"kill -9 {pid}")


@test("Errors.PoolNotKmemfsCopiesAndSaysSo", timeout=400)
def plain_directory(machine):
    """snapd on any directory: everything works, copied, and it is said."""
    machine.ensure_snapd()
    workload = Workload(machine, "heap", tag="-plain").start()
    workload.check()
    machine.sh("rm -rf /var/lib/plain-pool; mkdir -m 700 /var/lib/plain-pool")
    snapd = machine.start("sh", "-c", """
        exec snapd --pool=/var/lib/plain-pool --socket=/run/daxsnap/plain.sock \
          --criu=/opt/daxsnap/sbin/criu --criu-libdir=/opt/daxsnap/lib/criu""")
    plain = ("--socket", "/run/daxsnap/plain.sock")
    try:
        wait_until(lambda: machine.snapctl(*plain, "ls", check=False).returncode == 0, "the second snapd")
        snapshot = machine.snapctl_json(*plain, "checkpoint", str(workload.pid), "--name", "plain")["snapshot"]
        expect("COPIED" in str(snapshot["mode"]).upper(), f"mode {snapshot['mode']}")
        expect(int(snapshot["pages"]["by_reference"]) == 0, f"pages {snapshot['pages']}")
        machine.snapctl(*plain, "restore", "plain")
        workload.check()
        workload.kill()
        machine.snapctl(*plain, "rm", "plain")
    finally:
        machine.run("sh", "-c", "kill $(pgrep -f '^snapd --pool=/var/lib/plain-pool')", check=False)
        snapd.communicate(timeout=60)
