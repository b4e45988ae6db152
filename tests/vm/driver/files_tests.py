# SPDX-License-Identifier: Apache-2.0
"""What tasks wrote to files is durable with their memory, or there is no snapshot."""

import contextlib

from error_tests import refused
from machine import POOL, WORK, expect, wait_until
from registry import test
from snapd_tests import STATES, clean_pool, names

FAILED = 1
DIR = f"{WORK}/files"
MIB = 1 << 20

# Writes to a file again and again, never syncs it, and looks whether the file has what it wrote last: a
# restored one does so first of all. "once": it writes once.
WRITER = """
import mmap, os, sys, time
kind, path = sys.argv[1:]
SIZE = 1 << 20
file = open(path, "r+b" if os.path.exists(path) else "w+b", buffering=0)
if kind == "shared":
    memory = mmap.mmap(file.fileno(), SIZE)
    os.closerange(3, 64)
    def write(data): memory[:] = data
    def read(): return memory[:]
else:
    def write(data): file.seek(0); file.write(data)
    def read(): file.seek(0); return file.read(SIZE)
turn = 0
while True:
    if turn == 0 or kind != "once":
        turn += 1
        wrote = b"%08d" % turn * (SIZE // 8)
        write(wrote)
    time.sleep(0.1)
    print("right" if read() == wrote else "WRONG", flush=True)
"""


class Writer:
    """One WRITER under snapctl. Files of some kinds are there before."""

    def __init__(self, machine, kind, directory, tag):
        self.machine, self.kind = machine, kind
        self.name = f"files-{kind}-{tag}"
        self.path = f"{directory}/{kind}"
        if kind in ("inplace", "shared"):
            machine.sh(f"head -c {MIB} /dev/zero | tr '\\0' A >{self.path}")

    def start(self):
        self.machine.run("snapctl", "rm", self.name, check=False)
        answer = self.machine.snapctl_json("run", "--name", self.name, "--", "python3", "-c", WRITER, self.kind,
                                           self.path)
        self.pid, self.log = answer["pid"], answer["log"]
        self.says_right()
        return self

    def says_right(self):
        """Once more than up to now."""
        lines = int(self.machine.sh(f"wc -l <{self.log}"))
        wait_until(lambda: int(self.machine.sh(f"wc -l <{self.log}")) > lines, f"{self.name} going on")
        # Of what it said after its snapshot a power cut may leave zeroes.
        wrong = self.machine.sh(f"grep -ac WRONG {self.log} || true")
        expect(wrong == "0", f"{self.name}: the file is not what it wrote")

    def checkpoint(self, *options):
        return self.machine.snapctl_json("checkpoint", str(self.pid), "--name", self.name, *options)["snapshot"]

    def kill(self):
        self.machine.kill_session(self.pid)


def mount_image(machine, image, where, mib=0):
    """An ext4 in a file, made if `mib` says how large."""
    if mib:
        machine.sh(f"rm -f {image}; truncate -s {mib}M {image}; mkfs.ext4 -q {image}; sync -f {image}")
    machine.sh(f"mkdir -p {where}; mount $(losetup -f --show {image}) {where}")


def unmount_images(machine, *places):
    for where in places:
        machine.run("sh", "-c", f"mountpoint -q {where} || exit 0; device=$(findmnt -no SOURCE {where}); "
                    f"umount {where} && losetup -d $device", check=False)


@test("Files.WrittenBeforeACheckpointAreThereAfterAPowerCut", timeout=900)
def written_files(machine):
    """Overwritten in place, stored to through a shared mapping alone, and new ones; on the root's file system
    and on another; and of a task that was left running, on a third."""
    machine.ensure_snapd()
    places = {"other": "/mnt/files", "left": "/mnt/left"}
    unmount_images(machine, *places.values())
    machine.sh(f"rm -rf {DIR}; mkdir -p {DIR}")
    for tag, where in places.items():
        mount_image(machine, f"{DIR}/{tag}.img", where, mib=64)
    places["root"] = DIR
    writers = [Writer(machine, kind, places[tag], tag)
               for kind, tag in (("inplace", "root"), ("shared", "root"), ("new", "root"), ("shared", "other"),
                                 ("new", "other"), ("once", "left"))]
    # From here on the kernel writes nothing back by itself.
    machine.sh("sync; sysctl -q vm.dirty_writeback_centisecs=0 vm.dirty_expire_centisecs=360000")
    for writer in writers:
        writer.start()
    for writer in writers:
        times = writer.checkpoint(*(["--leave-running"] if writer.kind == "once" else []))["times"]
        print(f"{writer.name}: sync {times['sync_us']} us, {times['sync_frozen_us']} us more while stopped")
        expect((int(times["sync_frozen_us"]) > 0) == (writer.kind != "once"), f"times of the syncs: {times}")
    machine.power_cycle()
    for tag in ("other", "left"):
        mount_image(machine, f"{DIR}/{tag}.img", places[tag])
    machine.ensure_snapd()
    for writer in writers:
        machine.snapctl("restore", writer.name)
        writer.says_right()
        writer.kill()
        machine.snapctl("rm", writer.name)
    unmount_images(machine, "/mnt/files", "/mnt/left")


# Writes new data to a file for ever, and says so elsewhere; with memory that takes a dump some time.
BUSY = """
import sys, time
memory = bytearray(b"x") * (int(sys.argv[2]) << 20)
with open(sys.argv[1], "wb", buffering=0) as file:
    while True:
        file.seek(0)
        file.write(str(time.time()).encode() * 4096)
        print("alive", flush=True)
        time.sleep(0.02)
"""
# Writes 24 MiB once.
FILL = """
import sys, time
file = open(sys.argv[1], "wb", buffering=0)
file.write(b"x" * (24 << 20))
while True:
    print("alive", flush=True)
    time.sleep(0.1)
"""
OUTER, INNER = "/mnt/outer", "/mnt/inner"


@contextlib.contextmanager
def hanging_disk(machine):
    """INNER: a file system whose disk stands still while OUTER, which has it as a file, is frozen."""
    machine.ensure_snapd()
    unmount_images(machine, INNER, OUTER)
    mount_image(machine, f"{WORK}/outer", OUTER, mib=128)
    mount_image(machine, f"{OUTER}/inner", INNER, mib=64)
    try:
        yield
    finally:
        machine.run("fsfreeze", "-u", OUTER, check=False)
        wait_until(lambda: snapd_alone(machine), "the end of the process that syncs")
        unmount_images(machine, INNER, OUTER)


def snapd_alone(machine):
    """Whether nothing but snapd itself is in its unit: no process that syncs."""
    return len(machine.sh("cat /sys/fs/cgroup/system.slice/snapd.service/cgroup.procs").split()) == 1


def goes_on(machine, log):
    lines = int(machine.sh(f"wc -l <{log}"))
    wait_until(lambda: int(machine.sh(f"wc -l <{log}")) > lines, "the task going on")


def timed_out(machine, pid):
    error = refused(machine, FAILED, "SYNC_TIMEOUT", "checkpoint", str(pid), "--name", "hangs", "--sync-timeout=4")
    expect(error["metadata"]["path"] == INNER, f"another file system is named: {error}")


@test("Files.SyncThatHangsFailsInTimeAndTheTaskRunsOn", timeout=400)
def hanging_sync(machine):
    """Before the freeze: nothing is stopped for it. snapd can be started anew meanwhile."""
    with hanging_disk(machine):
        task = machine.snapctl_json("run", "--name", "hangs", "--", "python3", "-c", BUSY, f"{INNER}/file", "1")
        try:
            goes_on(machine, task["log"])
            machine.sh(f"fsfreeze -f {OUTER}")
            # It would stand still itself once it has too many dirty pages.
            timed_out(machine, task["pid"])
            clean_pool(machine)
            expect(not snapd_alone(machine), "the sync does not hang: nothing was tested")
            machine.restart_snapd()
            machine.snapctl("ls")
            machine.sh(f"fsfreeze -u {OUTER}")
            goes_on(machine, task["log"])
            wait_until(lambda: snapd_alone(machine), "the end of the process that syncs")
            machine.snapctl("checkpoint", str(task["pid"]), "--name", "hangs")
            machine.snapctl("rm", "hangs")
        finally:
            machine.kill_session(task["pid"])


@test("Files.SyncThatHangsWhileTheTaskIsStoppedLetsItGoOn", timeout=600)
def hanging_while_frozen(machine):
    """The disk stops to answer while CRIU works: the task has written since the first sync."""
    with hanging_disk(machine):
        task = machine.snapctl_json("run", "--name", "hangs", "--node", "0", "--", "python3", "-c", BUSY,
                                    f"{INNER}/file", "192")
        try:
            for attempt in range(8):
                goes_on(machine, task["log"])
                watcher = machine.start("sh", "-c", f"""
                    echo watching
                    while [ ! -e {WORK}/stop ]; do
                      for found in {STATES['Dumping']}; do
                        if [ -e "$found" ]; then fsfreeze -f {OUTER}; echo frozen; exit; fi
                      done
                    done""")
                try:
                    expect(watcher.stdout.readline() == "watching\n", "the watcher did not start")
                    done = machine.snapctl("-o", "json", "checkpoint", str(task["pid"]), "--name", "hangs",
                                           "--sync-timeout=4", check=False)
                finally:
                    machine.sh(f"touch {WORK}/stop")
                    watcher.communicate(timeout=60)
                    machine.sh(f"rm -f {WORK}/stop; fsfreeze -u {OUTER} 2>/dev/null || true")
                met = done.returncode == FAILED and "SYNC_TIMEOUT" in done.stderr and INNER in done.stderr
                if met:
                    print(f"met in attempt {attempt + 1}")
                    break
                # The watcher was too slow: the snapshot is whole.
                expect(done.returncode == 0, f"exit {done.returncode}: {done.stderr}")
                machine.snapctl("restore", "hangs")
                machine.snapctl("rm", "hangs")
            expect(met, "the disk never stopped in time")
            status = machine.sh(f"awk '/^State|^TracerPid/ {{ print $2 }}' /proc/{task['pid']}/status").split()
            expect(status[0] in "RSD" and status[1] == "0", f"the task is {status}")
            goes_on(machine, task["log"])
            clean_pool(machine)
            expect("hangs" not in names(machine), "the failed snapshot is listed")
        finally:
            machine.kill_session(task["pid"])


@test("Files.SyncThatFailsNamesTheFileSystem", timeout=300)
def failing_sync(machine):
    """A disk that cannot take what is written: the task goes on and nothing is left."""
    machine.ensure_snapd()
    where = "/mnt/small"
    # The file system believes in 128 MiB; the one below it has 16.
    machine.sh(f"mkdir -p {DIR}")
    mount_image(machine, f"{DIR}/small.img", where, mib=16)
    machine.sh(f"truncate -s 128M {where}/img; mkfs.ext4 -q -O ^has_journal {where}/img")
    mount_image(machine, f"{where}/img", "/mnt/broken")
    task = machine.snapctl_json("run", "--name", "broken", "--", "python3", "-c", FILL, "/mnt/broken/file")
    try:
        goes_on(machine, task["log"])
        error = refused(machine, FAILED, "SYNC_FAILED", "checkpoint", str(task["pid"]), "--name", "broken")
        expect(error["metadata"]["path"] == "/mnt/broken", f"another file system is named: {error}")
        goes_on(machine, task["log"])
        # The pages that could not be written are clean now, so the kernel has nothing more to say.
        machine.sh("sync -f /mnt/broken || true")
        error = refused(machine, FAILED, "SYNC_FAILED", "checkpoint", str(task["pid"]), "--name", "broken")
        expect(error["metadata"]["path"] == "/mnt/broken", f"another file system is named: {error}")
        clean_pool(machine)
        expect(machine.sh(f"ls -A {POOL}/snapshots | grep -x broken || true") == "", "it is published")
    finally:
        machine.kill_session(task["pid"])
        unmount_images(machine, "/mnt/broken", where)


@test("Files.WhatALateSyncHasLostIsNotForgotten", timeout=400)
def late_failing_sync(machine):
    """The disk fails when nobody waits for the sync any more, nor is that snapd there."""
    with hanging_disk(machine):
        # The inner file system believes in 64 MiB; the one below it has 8.
        unmount_images(machine, INNER)
        machine.sh(f"""
            rm {OUTER}/inner; truncate -s 64M {OUTER}/inner; mkfs.ext4 -q -O ^has_journal {OUTER}/inner
            free=$(stat -f -c '%a*%S' {OUTER}); fallocate -l $(($free - (8 << 20))) {OUTER}/ballast; sync -f {OUTER}""")
        mount_image(machine, f"{OUTER}/inner", INNER)
        machine.sh(f"sync -f {INNER}; fsfreeze -f {OUTER}")
        task = machine.snapctl_json("run", "--name", "hangs", "--", "python3", "-c", FILL, f"{INNER}/file")
        try:
            goes_on(machine, task["log"])
            timed_out(machine, task["pid"])
            # Nor does it help that nothing is left to sync.
            timed_out(machine, task["pid"])
            machine.restart_snapd()
            timed_out(machine, task["pid"])
            expect(not snapd_alone(machine), "the sync does not hang: nothing was tested")
            machine.sh(f"fsfreeze -u {OUTER}")
            wait_until(lambda: snapd_alone(machine), "the end of the process that syncs")
            machine.sh(f"sync -f {INNER} || true")
            for again in range(2):
                error = refused(machine, FAILED, "SYNC_FAILED", "checkpoint", str(task["pid"]), "--name", "hangs")
                expect(error["metadata"]["path"] == INNER, f"another file system is named: {error}")
                machine.restart_snapd()
            goes_on(machine, task["log"])
            clean_pool(machine)
            machine.snapctl("checkpoint", "--force", str(task["pid"]), "--name", "hangs")
            snapshot = machine.snapctl_json("inspect", "hangs")
            found = [(finding["reason"], finding["path"]) for finding in snapshot["findings"]]
            expect(snapshot["forced"] and ("SYNC_FAILED", INNER) in found, f"it says {snapshot}")
            machine.snapctl("rm", "hangs")
        finally:
            machine.kill_session(task["pid"])


@test("Files.SyncTimeoutsThatMakeNoSenseAreRefused", timeout=300)
def bad_timeouts(machine):
    machine.ensure_snapd()
    for value in ("0", "-1", "86401", "soon", ""):
        refused(machine, 2, "", "checkpoint", "1", f"--sync-timeout={value}")
