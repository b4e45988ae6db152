# SPDX-License-Identifier: Apache-2.0
"""Checkpoint, power cut, restore: each kind of state survives and works on."""

import json
import re

from machine import PREFIX, WORK, TestFailure, expect
from registry import test

BY_REFERENCE = 0.999
# Where the PIDs begin that snapctl run gives, and no boot.
PIDS = 1000000
# Whole pages that CRIU reads for itself while it restores: tables of the images, and of its own.
FEW_READ = 16


class Workload:
    """One self-checking program (tests/workloads) under snapctl."""

    def __init__(self, machine, name, *arguments, tag=""):
        self.machine = machine
        self.snapshot = f"wl-{name}{tag}"
        self.dir = f"{WORK}/{self.snapshot}"
        self.command = [f"{PREFIX}/tests/workloads/wl_{name}", "--dir", self.dir, *arguments]
        self.progress = 0
        self.cookie = ""

    def start(self, *options):
        """By snapctl run, with these options of it."""
        self.machine.ensure_snapd()
        self.machine.run("snapctl", "rm", self.snapshot, check=False)
        self.machine.sh(f"rm -rf {self.dir}; mkdir -p {self.dir}")
        self.pid = self.machine.snapctl_json("run", "--name", self.snapshot, *options, "--",
                                             *self.command)["pid"]
        # The kernel tells when the state is set up; a program that died is found too.
        self.machine.sh(f"""
            for _ in $(seq 600); do
              [ -e {self.dir}/ready ] && exit 0
              [ -d /proc/{self.pid} ] || break
              sleep 0.1
            done
            echo "the workload did not get ready: $(cat /var/log/daxsnap/{self.snapshot}* | tail -n 5)" >&2
            exit 1""")
        expect(self.machine.sh(f"cat {self.dir}/ready") == str(self.pid), "another process is ready")
        return self

    def check(self):
        """Its own full check; and that it is the same process, gone on."""
        arguments = ["--since", str(self.progress)]
        if self.cookie:
            arguments += ["--cookie", self.cookie]
        said = json.loads(self.machine.run(f"{PREFIX}/tests/workloads/workloadctl", "check", self.dir,
                                           *arguments).stdout)
        expect(said["pid"] == self.pid, f"pid {said['pid']} answers instead of {self.pid}")
        self.progress, self.cookie = said["progress"], said["cookie"]

    def checkpoint(self, *options, name=None):
        """The snapshot, as snapctl prints it."""
        return self.machine.snapctl_json("checkpoint", str(self.pid), "--name", name or self.snapshot,
                                         *options)["snapshot"]

    def restore(self, name=None):
        answer = self.machine.snapctl_json("restore", name or self.snapshot)
        expect(answer["pid"] == self.pid, f"restored as pid {answer['pid']} instead of {self.pid}")
        pages = answer["pages"]
        print(f"{name or self.snapshot} restored: {pages}")
        expect(int(pages["copied"]) <= FEW_READ, f"the restore copied pages: {pages}")
        return answer

    def alive(self):
        """Of a killed task the end is waited for, and that of all its session: then their PIDs are free."""
        return self.machine.run("sh", "-c", f"""
            cd /proc/{self.pid} 2>/dev/null && ! grep -qE '^S(ig|hd)Pnd:.*[13579bdf]..$' status &&
              awk '{{ exit $3 == "Z" || int($9 / 4) % 2 }}' stat && exit
            while pgrep -s {self.pid} >/dev/null; do sleep 0.05; done
            exit 1""", check=False).returncode == 0

    def kill(self):
        self.machine.kill_session(self.pid)

    def discard(self):
        self.kill()
        self.machine.snapctl("rm", self.snapshot)


def share(pages):
    """Part of the resident pages that was taken without a copy."""
    taken = int(pages["by_reference"]) + int(pages["shared"])
    return taken / max(1, taken + int(pages["copied"]))


KINDS = ("heap", "stack", "tls", "threads", "forktree", "filemap", "pipes", "timers", "signals")


@test("Workloads.SurviveCheckpointPowerCutRestore", timeout=1500)
def survive(machine):
    """All kinds over one power cut: one boot is what costs time here. The report says
    of each kind how it went; any failure fails the test."""
    workloads = {kind: Workload(machine, kind).start() for kind in KINDS}
    failures = []

    def each(what, action):
        for kind, workload in list(workloads.items()):
            try:
                action(workload)
            except TestFailure as failure:
                failures.append(f"{kind}: {what}: {failure}")
                del workloads[kind]

    def take(workload):
        pages = workload.checkpoint()["pages"]
        print(f"{workload.snapshot}: {share(pages):.2%} by reference, {pages['copied']} pages copied")
        expect(not workload.alive(), "the task is still there after its checkpoint")

    each("before the checkpoint", Workload.check)
    each("checkpoint", take)
    machine.power_cycle()
    machine.ensure_snapd()
    each("restore", Workload.restore)
    last = int(machine.sh("cat /proc/sys/kernel/ns_last_pid"))
    expect(last >= PIDS, f"PID {last + 1}, the next child's of a restored task, is one that a boot uses")
    each("after the restore", Workload.check)
    each("removal", Workload.discard)
    expect(not failures, "\n".join(failures))


@test("Workloads.GoOnAfterLeaveRunning", timeout=600)
def leave_running(machine):
    for kind in ("threads", "forktree", "pipes"):
        workload = Workload(machine, kind, tag="-left").start()
        workload.check()
        workload.checkpoint("--leave-running")
        expect(workload.alive(), "the task is gone")
        workload.check()
        workload.kill()
        workload.progress = 0  # back at the snapshot
        workload.restore()
        workload.check()
        workload.discard()


def tree_kib(machine, pid, field):
    """A field of smaps_rollup, summed over a task and its descendants."""
    return int(machine.sh(f"""
        tree() {{ echo $1; for child in $(cat /proc/$1/task/*/children); do tree $child; done; }}
        for p in $(tree {pid}); do cat /proc/$p/smaps_rollup; done | awk '/^{field}:/ {{ s += $2 }} END {{ print s }}'"""))


@test("Workloads.TreesShareAfterARestoreWhatTheyShared", timeout=300)
def trees_share(machine):
    """Each task of the tree reads its own pages; those in common are one page again."""
    workload = Workload(machine, "forktree", tag="-shares").start()
    workload.check()
    workload.checkpoint()
    workload.restore()
    mapped = tree_kib(machine, workload.pid, "Anonymous")
    # A page that several map counts once here. The tasks write on, so that they share less and less.
    used = tree_kib(machine, workload.pid, "Pss_Anon")
    print(f"the tree maps {mapped} KiB in {used} KiB")
    expect(mapped > 16384, "a tree too small to tell")
    expect(used < mapped // 2, f"the tree maps {mapped} KiB and needs {used} KiB for that")
    workload.check()
    workload.discard()


@test("Generations.FiveInARowStayByReferenceAndShare", timeout=1500)
def five_generations(machine):
    """Each on a new boot: by reference, and what did not change is shared."""
    mib = 64
    workload = Workload(machine, "pages", "--mib", str(mib), "--step", "2", "--pace-us", "20000",
                        tag="-five").start()
    workload.check()
    names = []
    for generation in range(1, 6):
        name = f"{workload.snapshot}-{generation}"
        names.append(name)
        machine.run("snapctl", "rm", name, check=False)
        pages = workload.checkpoint(name=name)["pages"]
        print(f"generation {generation}: {pages}")
        expect(share(pages) >= BY_REFERENCE,
               f"generation {generation}: only {share(pages):.4%} by reference: {pages}")
        if generation > 1:
            expect(int(pages["shared"]) > mib * 256 // 2,
                   f"generation {generation} shares only {pages['shared']} pages")
        machine.power_cycle()
        machine.ensure_snapd()
        workload.restore(name)
        workload.check()
    workload.kill()
    machine.snapctl("rm", *names)


@test("Memory.CheckpointOfAnIdleProcessNeedsUnderOnePercent", timeout=600)
def little_extra_memory(machine):
    """Free memory of both nodes, sampled in the guest while the checkpoint runs: with what is on the
    lists of the CPUs, which is some MiB more or less each time, and with what is but cached."""
    mib = 640
    workload = Workload(machine, "pages", "--mib", str(mib), "--step", "0", "--pace-us", "200000",
                        tag="-idle").start()
    # Once before: what CRIU and snapd load and cache is not the checkpoint's.
    workload.checkpoint("--leave-running", name=f"{workload.snapshot}-warm")
    machine.snapctl("rm", f"{workload.snapshot}-warm")
    machine.run("sh", "-c", f"rm -f {WORK}/samples {WORK}/stop")
    sampler = machine.start("sh", "-c", f"""
        while [ ! -e {WORK}/stop ]; do
          awk '/pages free/ {{ p += $3 }} /^ +count:|nr_file_pages/ {{ p += $2 }} END {{ print 4 * p }}' \\
            /proc/zoneinfo >>{WORK}/samples
        done""")
    try:
        machine.sh(f"until [ -s {WORK}/samples ]; do sleep 0.05; done")
        workload.checkpoint("--leave-running")
    finally:
        machine.sh(f"touch {WORK}/stop")
        sampler.communicate(timeout=60)
    samples = [int(line) for line in machine.sh(f"cat {WORK}/samples").split()]
    extra = samples[0] - min(samples)
    print(f"{len(samples)} samples, {extra} KiB extra for {mib} MiB")
    workload.discard()
    expect(len(samples) > 10, "too few samples to tell")
    expect(extra < mib * 1024 // 100, f"{extra} KiB more were in use, over 1 % of {mib} MiB")


@test("Redis.ServesTheSameKeysAfterPowerCut", timeout=600)
def redis(machine):
    workload = Workload(machine, "redis")
    machine.ensure_snapd()
    machine.run("snapctl", "rm", "redis", check=False)
    cli = "redis-cli -e -p 7391"
    machine.sh(f"rm -rf {WORK}/redis; mkdir -p {WORK}/redis")
    workload.pid = machine.snapctl_json(
        "run", "--name", "redis", "--", "redis-server", "--port", "7391", "--dir", f"{WORK}/redis",
        "--save", "", "--appendonly", "no", "--bind", "127.0.0.1", "--enable-debug-command", "local")["pid"]
    machine.sh(f"for _ in $(seq 300); do {cli} ping 2>/dev/null | grep -q PONG && exit 0; sleep 0.1; done; exit 1")
    machine.sh(f"{cli} debug populate 100000 key 300")
    machine.sh(f"{cli} set marker before")
    digest = machine.sh(f"{cli} debug digest")
    expect(re.fullmatch("[0-9a-f]{40}", digest), f"no digest: {digest}")
    expect(machine.sh(f"{cli} dbsize") == "100001", "the keys were not made")
    pages = workload.checkpoint(name="redis")["pages"]
    print(f"redis: {pages}")
    expect(share(pages) >= BY_REFERENCE, f"only {share(pages):.4%} by reference")
    machine.power_cycle()
    machine.ensure_snapd()
    workload.restore("redis")
    expect(machine.sh(f"{cli} debug digest") == digest, "the keys differ")
    expect(machine.sh(f"{cli} get marker") == "before", "the marker differs")
    machine.sh(f"{cli} set marker after; {cli} get marker | grep -qx after")
    workload.kill()
    machine.snapctl("rm", "redis")
