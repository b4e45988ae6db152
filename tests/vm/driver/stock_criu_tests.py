# SPDX-License-Identifier: Apache-2.0
"""CRIU as upstream made it, without plugin, dumps to and restores from kmemfs by reference."""

import json

from machine import POOL, PREFIX, WORK, expect, wait_until
from registry import test

CRIU = f"{PREFIX}/sbin/criu-stock"
TOOL = f"{PREFIX}/tests/vm/pool_tool"
CTL = f"{PREFIX}/tests/workloads/workloadctl"
IMAGES = f"{POOL}/stock"
# What is copied whatever the size of the task: pages of files, the vDSO, what the
# loader wrote before there was a policy.
FEW = 48
# Where PIDs begin that no boot reaches.
PIDS = 20000


def counts(machine):
    return json.loads(machine.sh(f"{TOOL} counts {POOL}"))


class Counted:
    """What kmemfs counted in a with block."""

    def __init__(self, machine):
        self.machine = machine

    def __enter__(self):
        self.before = counts(self.machine)
        return self

    def __exit__(self, *error):
        after = counts(self.machine)
        self.__dict__.update({name: after[name] - self.before[name] for name in after})

    def __str__(self):
        return (f"{self.by_reference} by reference, {self.shared} shared, {self.copied} copied; "
                f"read: {self.installed} by reference, {self.read_copied} copied")


class Task:
    """A workload that knows nothing of daxsnap, and its images on the pool."""

    number = 0

    def __init__(self, machine, kind, *arguments, tag=""):
        self.machine = machine
        self.name = f"{kind}{tag}"
        self.dir = f"{WORK}/stock-{self.name}"
        self.command = [f"{PREFIX}/tests/workloads/wl_{kind}", "--dir", self.dir, *arguments]
        self.pid = 0
        self.progress, self.cookie = 0, ""

    def start(self):
        machine = self.machine
        Task.number += 1
        machine.sh(f"rm -rf {self.dir} {IMAGES}/{self.name}*; mkdir -p {self.dir} {IMAGES}")
        self.pid = int(machine.run(TOOL, "start", POOL, str(PIDS + 100 * Task.number),
                                   *self.command).stdout)
        expect(self.pid >= PIDS, f"pid {self.pid} will not be free after a boot")
        wait_until(lambda: machine.run("test", "-e", f"{self.dir}/ready", check=False).returncode == 0,
                   f"{self.name} is ready")
        return self

    def check(self):
        arguments = ["--since", str(self.progress)]
        if self.cookie:
            arguments += ["--cookie", self.cookie]
        said = json.loads(self.machine.run(CTL, "check", self.dir, *arguments).stdout)
        expect(said["pid"] == self.pid, f"pid {said['pid']} answers instead of {self.pid}")
        self.progress, self.cookie = said["progress"], said["cookie"]

    def criu(self, what, images, *options):
        """Runs CRIU with its images in this directory of the pool."""
        directory = f"{IMAGES}/{self.name}-{images}"
        machine = self.machine
        machine.sh(f"mkdir -p {directory}")
        with Counted(machine) as counted:
            done = machine.run(TOOL, "run", POOL, CRIU, what, "-D", directory, "-v4", "-o", f"{what}.log",
                               *options, check=False)
        if done.returncode:
            log = machine.run("grep", "-E", "Error|Warn", f"{directory}/{what}.log", check=False).stdout
            expect(False, f"criu {what} of {self.name}: exit {done.returncode}\n{done.stderr}\n{log}")
        print(f"{self.name}: {what} {images}: {counted}")
        return counted

    def dump(self, images, *options):
        counted = self.criu("dump", images, "-t", str(self.pid), *options)
        expect(counted.copied <= FEW, f"{counted.copied} pages were copied by the dump")
        return counted

    def restore(self, images, *options):
        counted = self.criu("restore", images, "-d", *options)
        # What another check said, about a time after the dump, holds no more.
        self.progress = 0
        return counted

    def kill(self):
        self.machine.kill_session(self.pid)

    def remove(self):
        self.kill()
        self.machine.sh(f"rm -rf {IMAGES}/{self.name}* {self.dir}; sync -f {POOL}")


def prepare(machine):
    machine.ensure_pool()
    Task.number = 0


@test("StockCriu.DumpsAndRestoresByReference", timeout=600)
def single(machine):
    prepare(machine)
    pages = 32 * 256
    task = Task(machine, "pages", "--mib", "32", "--step", "0").start()
    task.check()
    first = task.dump("1", "--leave-running")
    expect(first.by_reference >= pages, f"only {first.by_reference} of {pages} pages by reference")
    again = task.dump("2", "--leave-running")
    expect(again.shared >= pages and again.by_reference <= FEW,
           "a dump of unchanged memory does not share its pages")
    dirty = int(machine.sh(f"{TOOL} touch {POOL} {task.pid} 16"))
    expect(dirty >= pages // 16, f"only {dirty} pages were written")
    part = task.dump("3")
    expect(dirty <= part.by_reference <= dirty + FEW, f"{part.by_reference} pages are new, {dirty} were written")
    expect(part.shared >= pages - dirty, f"only {part.shared} pages are shared")
    back = task.restore("3")
    expect(back.installed >= pages, f"only {back.installed} of {pages} pages were given by reference")
    expect(back.read_copied <= FEW, f"{back.read_copied} pages were copied by the restore")
    task.check()
    last = task.dump("4", "--leave-running")
    expect(last.shared >= pages and last.by_reference <= FEW, "the restored task does not share its pages")
    task.kill()
    # The oldest images of a task that went on are as good as the newest.
    task.restore("1")
    task.check()
    task.remove()


@test("StockCriu.DumpsAndRestoresThreadsByReference", timeout=600)
def threads(machine):
    prepare(machine)
    task = Task(machine, "threads", "--mib", "32").start()
    task.check()
    dumped = task.dump("1")
    expect(dumped.by_reference >= 32 * 256, "the threads' memory was not taken by reference")
    back = task.restore("1")
    expect(back.installed >= 32 * 256 and back.read_copied <= FEW, "the restore copied pages")
    task.check()
    task.remove()


@test("StockCriu.DumpsAForkTreeByReference", timeout=600)
def fork_tree(machine):
    prepare(machine)
    task = Task(machine, "forktree", "--mib", "16").start()
    task.check()
    dumped = task.dump("1")
    expect(dumped.by_reference >= 16 * 256, "the tree's memory was not taken by reference")
    expect(dumped.copied <= FEW, "pages of the tree were copied")
    # Children compare what they inherited with the images, and copy what differs: CRIU's way.
    back = task.restore("1")
    expect(back.installed >= 16 * 256, f"only {back.installed} pages were given by reference")
    task.check()
    task.remove()


def incremental(machine, task, dirty_every=16):
    """Three dumps, each with what changed since the one before."""
    task.dump("1", "--leave-running", "--track-mem")
    dirty = 0
    for images, parent in (("2", "1"), ("3", "2")):
        dirty = int(machine.sh(f"{TOOL} touch {POOL} {task.pid} {dirty_every}"))
        last = ["--leave-running"] if images == "2" else []
        part = task.dump(images, "--track-mem", "--prev-images-dir", f"../{task.name}-{parent}", *last)
        taken = part.by_reference + part.shared
        expect(dirty <= taken <= dirty + 4 * FEW, f"{taken} pages were dumped, {dirty} were written")
    return dirty


@test("StockCriu.IncrementalChainByReference", timeout=600)
def chain(machine):
    prepare(machine)
    pages = 32 * 256
    task = Task(machine, "pages", "--mib", "32", "--step", "0", tag="-chain").start()
    task.check()
    incremental(machine, task)
    back = task.restore("3")
    expect(back.installed >= pages and back.read_copied <= FEW, "the restore of the chain copied pages")
    task.check()
    task.kill()
    # Auto-dedup gives each page up as it is restored: afterwards only the task has it.
    files = counts(machine)["file"]
    moved = task.restore("3", "--auto-dedup")
    expect(moved.installed >= pages and moved.read_copied <= FEW, "the deduplicating restore copied pages")
    expect(files - counts(machine)["file"] >= pages, "the images still hold the pages")
    task.check()
    task.remove()


@test("StockCriu.ImagesSurviveAPowerCut", timeout=900)
def power_cut(machine):
    """Every kind of image set over one power cut."""
    prepare(machine)
    kinds = {
        "single": Task(machine, "pages", "--mib", "16", "--step", "0", tag="-cut"),
        "threads": Task(machine, "threads", tag="-cut"),
        "tree": Task(machine, "forktree", tag="-cut"),
        "chain": Task(machine, "pages", "--mib", "16", "--step", "0", tag="-cutchain"),
        "dedup": Task(machine, "pages", "--mib", "16", "--step", "0", tag="-cutdedup"),
    }
    for task in kinds.values():
        task.start().check()
    for kind in ("single", "threads", "tree"):
        kinds[kind].dump("3")
    for kind in ("chain", "dedup"):
        incremental(machine, kinds[kind])
    machine.sh(f"sync -f {POOL}; sync")
    machine.power_cycle()
    machine.ensure_pool()
    for kind, task in kinds.items():
        task.restore("3", *(["--auto-dedup"] if kind == "dedup" else []))
        task.check()
    again = kinds["single"].dump("4")
    expect(again.shared >= 16 * 256, f"after the power cut a dump shares only {again.shared} pages with the last")
    for task in kinds.values():
        task.remove()
