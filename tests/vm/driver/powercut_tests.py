# SPDX-License-Identifier: Apache-2.0
"""Power cuts: a commit is all or nothing, and what it holds is durable."""

import os
import random
import re
import time

from machine import POOL, PREFIX, WORK, expect, wait_until
from registry import test
from workload_tests import Workload

GENERATIONS = f"{PREFIX}/tests/vm/fs_generations"
CUTS = int(os.environ.get("DAXSNAP_CUTS", "4"))
# Of each other way to go down
OTHERS = int(os.environ.get("DAXSNAP_PANICS", "1"))


def clean(machine):
    machine.remount("commit=0")
    machine.sh(f"find {POOL} -mindepth 1 -delete; sync -f {POOL}")


@test("PowerCut.BeforeCommitLeavesNoTrace", timeout=300)
def before_commit_leaves_no_trace(machine):
    clean(machine)
    free = int(machine.sh(f"stat -f -c %f {POOL}"))
    machine.sh(f"""
        echo kept >{POOL}/kept; head -c 1M /dev/zero >{POOL}/rewritten; sync -f {POOL}
        head -c 8M /dev/urandom >{POOL}/lost; mkdir {POOL}/lostdir; echo x >{POOL}/lostdir/file
        echo changed >{POOL}/kept; mv {POOL}/rewritten {POOL}/renamed
        head -c 2M /dev/urandom >{POOL}/renamed""")
    machine.power_cycle()
    machine.ensure_pool()
    names = machine.sh(f"ls -A {POOL}").split()
    expect(names == ["kept", "rewritten"], f"after the cut there is {names}")
    expect(machine.sh(f"cat {POOL}/kept") == "kept", "an uncommitted write is there")
    machine.sh(f"cmp -n 1048576 {POOL}/rewritten /dev/zero; test $(stat -c %s {POOL}/rewritten) = 1048576")
    now = int(machine.sh(f"rm {POOL}/*; sync -f {POOL}; stat -f -c %f {POOL}"))
    expect(now > free - 2048, f"{free - now} pages did not come back")


@test("PowerCut.AfterCommitKeepsAll", timeout=300)
def after_commit_keeps_all(machine):
    clean(machine)
    describe = (f"cd {POOL} && find . -printf '%P %y %m %U %G %s %T@ %l\\n' | sort && "
                "find . -type f -print0 | sort -z | xargs -0 sha256sum")
    machine.sh(f"""
        mkdir -p {POOL}/a/b/c; head -c 5000001 /dev/urandom >{POOL}/a/b/big
        cp --reflink=always {POOL}/a/b/big {POOL}/clone
        ln -s a/b/big {POOL}/link; truncate -s 96M {POOL}/sparse
        printf end | dd of={POOL}/sparse bs=1 seek=90000000 conv=notrunc status=none
        chown 12:34 {POOL}/clone; chmod 0604 {POOL}/clone
        for i in $(seq 300); do echo $i >{POOL}/a/f$i; done""")
    before = machine.sh(f"sync -f {POOL}; {describe}")
    machine.power_cycle()
    machine.ensure_pool()
    after = machine.sh(describe)
    expect(before == after, f"before the cut:\n{before}\nafter:\n{after}")
    # Attaching again, after nothing was changed, gives the same.
    machine.power_cycle()
    machine.ensure_pool()
    expect(machine.sh(describe) == before, "a second recovery differs from the first")


@test("PowerCut.DeletesSurvive", timeout=300)
def deletes_survive(machine):
    clean(machine)
    free = int(machine.sh(f"stat -f -c %f {POOL}"))
    machine.sh(f"""
        mkdir {POOL}/d; for i in 1 2 3 4; do head -c 4M /dev/urandom >{POOL}/d/$i; done
        cp --reflink=always {POOL}/d/1 {POOL}/clone; echo kept >{POOL}/kept; sync -f {POOL}
        rm -r {POOL}/d; rm {POOL}/clone; sync -f {POOL}""")
    machine.power_cycle()
    machine.ensure_pool()
    names = machine.sh(f"ls -A {POOL}").split()
    expect(names == ["kept"], f"after the cut there is {names}")
    now = int(machine.sh(f"stat -f -c %f {POOL}"))
    expect(now > free - 2048, f"{free - now} pages of deleted files did not come back")


@test("PowerCut.FsyncOfOneFileCommitsAll", timeout=300)
def fsync_commits_all(machine):
    clean(machine)
    machine.sh(f"""
        head -c 3M /dev/urandom >{POOL}/other; echo one >{POOL}/one; sync {POOL}/one
        sha256sum {POOL}/other >{WORK}/sum; sync -f {WORK}""")
    machine.power_cycle()
    machine.ensure_pool()
    machine.sh(f"sha256sum --quiet -c {WORK}/sum; grep -qx one {POOL}/one")


STORE = """
import mmap, sys
with open(sys.argv[1], "r+b") as file:
    with mmap.mmap(file.fileno(), 0) as memory:
        memory[0:8] = memory[12288:12296] = b"MSYNCED!"
        memory.flush()
        memory[4096:4100] = b"LOST"
        sys.stdout.write("synced")
"""


@test("PowerCut.MsyncedStoresSurvive", timeout=300)
def msync_commits(machine):
    clean(machine)
    machine.sh(f"head -c 16384 /dev/zero >{POOL}/file; cp --reflink=always {POOL}/file {POOL}/clone; sync -f {POOL}")
    expect(machine.run("python3", "-c", STORE, f"{POOL}/file").stdout == "synced", "the stores failed")
    machine.power_cycle()
    machine.ensure_pool()
    content = machine.sh(f"tr '\\0' . <{POOL}/file")
    expected = ("MSYNCED!" + "." * 4088) + "." * 4096 + "." * 4096 + ("MSYNCED!" + "." * 4088)
    expect(content == expected, f"the file has {content[:16]}, {content[4096:4112]}, {content[12288:12304]}")
    machine.sh(f"cmp -n 16384 {POOL}/clone /dev/zero")


@test("PowerCut.CommitIntervalCommitsByItself", timeout=300)
def interval_commits(machine):
    clean(machine)
    machine.remount("commit=1")
    machine.sh(f"head -c 1M /dev/urandom >{POOL}/file; sha256sum {POOL}/file >{WORK}/sum; sync -f {WORK}")
    # stop_snapd() above: the kernel's own word, and nobody else commits.
    wait_until(lambda: not machine.snapctl_json("pool", "show")["dirty"], "the interval's commit")
    machine.power_cycle()
    machine.ensure_pool()
    machine.sh(f"sha256sum --quiet -c {WORK}/sum")


@test("PowerCut.UnmountCommits", timeout=300)
def unmount_commits(machine):
    clean(machine)
    machine.sh(f"""
        head -c 3M /dev/urandom >{POOL}/file; sha256sum {POOL}/file >{WORK}/sum; sync -f {WORK}
        umount {POOL}; mount -t kmemfs dax0.0 {POOL}; sha256sum --quiet -c {WORK}/sum
        umount {POOL}""")
    machine.power_cycle()
    machine.ensure_pool()
    machine.sh(f"sha256sum --quiet -c {WORK}/sum")


def end_at_random_moments(machine, times, end):
    """The recovered tree is exactly one of the generations that the writer committed,
    and none that it was told to be durable is lost."""
    seed = int(time.time())
    print(f"seed {seed}")
    dice = random.Random(seed)
    clean(machine)
    last = 0
    for cut in range(times):
        acknowledged = last
        writer = machine.start(GENERATIONS, "write", POOL)
        target = last + dice.randint(1, 25)
        pause = dice.uniform(0, 0.3)
        for line in writer.stdout:
            acknowledged = int(re.fullmatch(r"committed (\d+)\n", line)[1])
            if acknowledged >= target:
                break
        # Not to wait for anything: the moment of the end is what is random.
        time.sleep(pause)
        end()
        rest = writer.communicate(timeout=60)[0]
        for line in re.findall(r"committed (\d+)\n", rest):
            acknowledged = max(acknowledged, int(line))
        expect(acknowledged >= target, f"the writer ended by itself: {rest}")
        machine.up()
        machine.remount("commit=0")
        last = int(machine.sh(f"{GENERATIONS} check {POOL}"))
        print(f"cut {cut}: {acknowledged} acknowledged, {last} recovered")
        expect(last >= acknowledged, f"generation {acknowledged} was committed, {last} is there")
        machine.check_dmesg()


@test("PowerCut.AtRandomMomentsLeavesACommittedGeneration", timeout=1200)
def cut_at_random_moments(machine):
    end_at_random_moments(machine, CUTS, machine.cut)


@test("PowerCut.PanicAtRandomMomentsLeavesACommittedGeneration", timeout=1200)
def panic_at_random_moments(machine):
    end_at_random_moments(machine, OTHERS, machine.panic)


@test("PowerCut.RebootAtRandomMomentsLeavesACommittedGeneration", timeout=1200)
def reboot_at_random_moments(machine):
    """The writer is told to end, and ends with a generation that is whole."""
    end_at_random_moments(machine, OTHERS, machine.reboot)


@test("PowerCut.WhileACheckpointRunsLeavesAllOrNothing", timeout=900)
def during_checkpoint(machine):
    """Snapshots that are listed after the cut can be restored, the older one always."""
    dice = random.Random(int(time.time()))
    for cut in range(3):
        workload = Workload(machine, "forktree", "--mib", "16", tag="-cut").start()
        workload.check()
        machine.snapctl("checkpoint", str(workload.pid), "--name", "cut-old", "--leave-running")
        client = machine.start("snapctl", "checkpoint", str(workload.pid), "--name", "cut-new")
        machine.run("sh", "-c", f"for _ in $(seq 200); do ls -A {POOL}/staging | grep -q . && exit; done",
                    check=False)
        # The moment of the cut is what is random.
        time.sleep(dice.uniform(0, 1.5))
        machine.cut()
        client.communicate(timeout=60)
        machine.up()
        machine.ensure_snapd()
        listed = [s["name"] for s in machine.snapctl_json("ls")["snapshots"]]
        print(f"cut {cut}: listed {listed}")
        expect("cut-old" in listed, "the older snapshot is lost")
        expect(machine.sh(f"ls -A {POOL}/staging") == "", "something is left in staging")
        for name in [n for n in listed if n in ("cut-old", "cut-new")]:
            workload.restore(name)
            workload.progress = 0
            workload.check()
            workload.kill()
            machine.snapctl("rm", name)
