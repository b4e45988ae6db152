# SPDX-License-Identifier: Apache-2.0
"""A pool of which something does not hold gives back what is whole, by the commands that people have."""

import contextlib
import json
import mmap

from machine import POOL, expect, wait_until
from registry import test
from workload_tests import Workload

REFUSED, DAMAGED, TAKEN = 8, 9, 4
PAGE = 4096
# docs/on-media-format.md: leaves of the inode table
LEAF, RECORDS, HEAD, RECORD, NAME = b"INOD", 7, 64, 576, 320
DECOY, DECOYS = "daxsnap-decoy-", 40
MAGIC, LABEL, LINE = b"DAXSNAP\x1a", "daxsnap-test", 64
OTHER = "/var/lib/daxsnap-other"


def leaves_of_decoys(memory):
    """Where leaves are that have nothing but decoys, of this commit or of older ones."""
    at = memory.find(DECOY.encode())
    while at >= 0:
        leaf = at - at % PAGE
        names = [memory[leaf + HEAD + RECORD * i + NAME:][:len(DECOY)] for i in range(RECORDS)] \
            if memory[leaf:leaf + 4] == LEAF else []
        if names and all(name == DECOY.encode() for name in names):
            yield leaf
        at = memory.find(DECOY.encode(), leaf + PAGE)


def header_of(memory):
    at = memory.find(MAGIC)
    while at % PAGE or memory[at + 56:at + 56 + len(LABEL)] != LABEL.encode():
        at = memory.find(MAGIC, at + 1)
        expect(at >= 0, "no header is found in the NVDIMM")
    return at


@contextlib.contextmanager
def damaged(machine):
    """The machine is off, and on again with one bit wrong in each of these leaves, and without the first line
    of the header, which is made anew meanwhile."""
    machine.cut()
    with open(machine.nvdimm(), "r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        leaves = list(leaves_of_decoys(memory))
        expect(leaves, "no leaf of the inode table has decoys only")
        header = header_of(memory)
        good = memory[header:header + PAGE]

        def flip():
            for leaf in leaves:
                memory[leaf + 1000] ^= 4
        flip()
        memory[header:header + LINE] = bytes(LINE)
        machine.up()
        try:
            yield
            expect(memory[header:header + PAGE] == good, "the header is another one now")
        finally:
            machine.cut()
            memory[header:header + PAGE] = good
            flip()
            machine.up()


def header_is_made_anew(machine):
    said = machine.snapctl("pool", "attach", "dax0.0", check=False)
    expect(said.returncode == DAMAGED and "pool repair" in said.stderr and "create" not in said.stderr,
           f"attach: exit {said.returncode}: {said.stderr}")
    said = machine.snapctl("pool", "create", "dax0.0", check=False)
    expect(said.returncode == TAKEN and "--force" in said.stderr, f"create: exit {said.returncode}: {said.stderr}")
    told = machine.snapctl_json("pool", "repair", "dax0.0", "--label", LABEL)
    expect((told["type"], told["label"]) == ("fs", LABEL), f"repaired: {told}")
    said = machine.snapctl("pool", "repair", "dax0.0", check=False)
    expect(said.returncode == REFUSED, f"again: exit {said.returncode}: {said.stderr}")


def refused(machine, *command):
    done = machine.snapctl("-o", "json", *command, check=False)
    error = json.loads(done.stderr.splitlines()[-1])["error"]
    expect((done.returncode, error["reason"]) == (REFUSED, "POOL_READ_ONLY"), f"{command}: {error}")
    expect("damaged" in error["message"] and "create --force" in error["hint"], f"{command}: {error}")


@test("Damaged.PoolGivesBackWhatIsWhole", timeout=1200)
def gives_back(machine):
    workload = Workload(machine, "pages", "--mib", "8", tag="-damaged").start()
    workload.check()
    machine.sh(f"cd {POOL}; touch $(seq -f {DECOY}%g {DECOYS})")
    workload.checkpoint()
    # Each restore goes back to here.
    progress = workload.progress
    machine.sh(f"sync -f {POOL}")
    with damaged(machine):
        machine.stop_snapd()
        header_is_made_anew(machine)
        # By hand, before snapd runs; then it finds the pool as it is.
        done = machine.snapctl("-o", "json", "pool", "attach", "dax0.0")
        expect(json.loads(done.stdout)["read_only"], f"attached: {done.stdout}")
        expect("WARNING: dax0.0 is damaged, and can only be read" in done.stderr, f"said: {done.stderr}")
        again = machine.snapctl("pool", "attach", "dax0.0")
        expect("read-only (already)" in again.stdout and "WARNING" in again.stderr, f"{again.stdout}{again.stderr}")
        machine.sh(f"umount {POOL}")

        # As in each boot: snapd attaches it by itself.
        machine.restart_snapd()
        names = [one["name"] for one in machine.snapctl_json("ls")["snapshots"]]
        expect(workload.snapshot in names, f"there is {names}")
        machine.snapctl("inspect", workload.snapshot)
        workload.restore()
        workload.check()

        refused(machine, "checkpoint", str(workload.pid), "--name", "more")
        workload.check()
        refused(machine, "rm", workload.snapshot)
        refused(machine, "verify", "--sum", workload.snapshot)
        workload.kill()

        # As docs/operations.md has it: elsewhere it can be restored, too.
        machine.sh(f"rm -rf {OTHER}; mkdir -p -m 700 {OTHER}/snapshots;"
                   f" cp -a --sparse=always {POOL}/snapshots/{workload.snapshot} {OTHER}/snapshots/")
        snapd = machine.start("sh", "-c", f"""
            exec snapd --pool={OTHER} --socket=/run/daxsnap/other.sock \
              --criu=/opt/daxsnap/sbin/criu --criu-libdir=/opt/daxsnap/lib/criu""")
        other = ("--socket", "/run/daxsnap/other.sock")
        try:
            wait_until(lambda: machine.snapctl(*other, "ls", check=False).returncode == 0, "the second snapd")
            machine.snapctl(*other, "restore", workload.snapshot)
            workload.progress = progress
            workload.check()
            workload.kill()
        finally:
            machine.run("sh", "-c", f"kill $(pgrep -f '^snapd --pool={OTHER}')", check=False)
            snapd.communicate(timeout=60)
            machine.sh(f"rm -rf {OTHER}")
    machine.ensure_snapd()
    machine.sh(f"rm -f {POOL}/{DECOY}*")
    workload.restore()
    workload.progress = progress
    workload.check()
    workload.discard()
