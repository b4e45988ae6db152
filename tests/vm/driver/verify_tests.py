# SPDX-License-Identifier: Apache-2.0
"""What is stored is compared with its checksums: damage is named, and asked for before a restore."""

import base64
import contextlib
import json
import mmap

from machine import POOL, expect
from registry import test
from workload_tests import Workload

DAMAGED = 9
PAGE = 4096


def verify(machine, *what):
    """(exit status, what it tells of the one that is verified)."""
    done = machine.snapctl("-o", "json", "verify", *what, check=False)
    expect(done.stdout, f"verify says nothing: {done.stderr}")
    verified, = json.loads(done.stdout)["verified"]
    return done.returncode, verified


def place_of(machine, path, candidates):
    """(offset in the file, offset in the NVDIMM's file) of a page that is there once."""
    with open(machine.nvdimm(), "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as memory:
        for page in candidates:
            content = base64.b64decode(machine.sh(
                f"dd if={path} bs={PAGE} skip={page} count=1 status=none | base64 -w0"))
            at = memory.find(content)
            if at >= 0 and at % PAGE == 0 and memory.find(content, at + 1) < 0:
                return page * PAGE, at
    expect(False, f"no page of {path} is found in the NVDIMM")


@contextlib.contextmanager
def damage(machine, path, candidates):
    """One bit of a page of the file is wrong meanwhile; the offset of the page."""
    offset, at = place_of(machine, path, candidates)
    with open(machine.nvdimm(), "r+b", buffering=0) as file:
        file.seek(at + 1000)
        byte = file.read(1)[0]
        file.seek(at + 1000)
        file.write(bytes([byte ^ 4]))
        try:
            yield offset
        finally:
            file.seek(at + 1000)
            file.write(bytes([byte]))


@test("Verify.NamesDamageAndRestoresAreAskedOnPersistentMemory", timeout=600)
def names_damage(machine):
    workload = Workload(machine, "pages", "--mib", "8", tag="-verify").start()
    workload.check()
    workload.checkpoint()
    expect(machine.snapctl_json("pool", "show")["persistence"] == "PROMISED", "who promises an NVDIMM's memory?")
    status, told = verify(machine, workload.snapshot, "--sum")
    total = told["verification"]
    expect(status == 0 and told["verdict"] == "whole", f"exit {status}: {told}")
    expect(total["bytes_verified"] >= 8 << 20 and total["bytes_without_checksum"] == 0, f"compared: {total}")
    pages = "images/pages-1.img"
    # The first are of the program; behind them is the memory that it filled.
    with damage(machine, f"{POOL}/snapshots/{workload.snapshot}/{pages}", range(400, 1600, 100)) as offset:
        status, told = verify(machine, workload.snapshot)
        expect(status == DAMAGED and told["verdict"] == "DAMAGED", f"exit {status}: {told}")
        found = {file["path"]: file["damaged"] for file in told["files"] if file["damaged"]}
        expect(found == {pages: [{"offset": offset, "length": PAGE}]}, f"damaged is {offset} of {pages}: {found}")
        expect(told["verification"]["bytes_damaged"] == PAGE, f"found: {told['verification']}")

        done = machine.snapctl("-o", "json", "restore", "--verify=always", workload.snapshot, check=False)
        error = json.loads(done.stderr.splitlines()[-1])["error"]
        expect((done.returncode, error["reason"]) == (DAMAGED, "SNAPSHOT_DAMAGED"), f"exit {done.returncode}: {error}")
        expect(error["metadata"]["path"] == pages and error["metadata"]["offset"] == str(offset), f"says {error}")
        expect(not workload.alive(), "a damaged task runs")

        answer = machine.snapctl_json("restore", workload.snapshot)
        expect("verification" not in answer, "persistent memory was verified though nobody asked")
        workload.kill()
    status, told = verify(machine, workload.snapshot)
    expect(status == 0, f"whole again, and exit {status}: {told}")
    answer = machine.snapctl_json("restore", "--verify=always", workload.snapshot)
    total = answer["verification"]
    expect(total["bytes_verified"] >= 8 << 20 and total["bytes_without_checksum"] == 0, f"compared: {total}")
    workload.check()
    workload.discard()


@test("Verify.LooksAtAllOfAPool", timeout=300)
def whole_pool(machine):
    machine.remount("commit=0")
    path = f"{POOL}/file that no snapshot has"
    machine.sh(f"head -c 1M /dev/urandom >'{path}'; mkdir -p {POOL}/elsewhere; echo x >{POOL}/elsewhere/hidden;"
               f" mount -t tmpfs none {POOL}/elsewhere; echo x >{POOL}/elsewhere/file")
    try:
        status, told = verify(machine, "--pool=daxsnap-test", "--sum")
        expect(status == 0 and told["name"] == "dax0.0", f"exit {status}: {told['error']} {told['verification']}")
        names = [file["path"] for file in told["files"]]
        expect("file that no snapshot has" in names and "elsewhere/file" not in names, f"looked at {names}")
        expect("elsewhere/hidden" in names, f"what another mount hides is not looked at: {names}")
        with damage(machine, f"'{path}'", range(10, 250, 50)) as offset:
            status, told = verify(machine, "--pool=dax0.0")
            found = {file["path"]: file["damaged"] for file in told["files"] if file["damaged"]}
            expect(status == DAMAGED, f"exit {status}: {told['error']}")
            expect(found == {"file that no snapshot has": [{"offset": offset, "length": PAGE}]}, f"found {found}")
        # What is not durable yet is not called whole.
        machine.sh(f"head -c 64K /dev/urandom >'{path}'")
        status, told = verify(machine, "--pool=dax0.0")
        expect(status == 8 and told["error"]["reason"] == "CHECKSUMS_MISSING", f"exit {status}: {told['error']}")
        expect(told["verification"]["bytes_without_checksum"] >= 64 << 10, f"told: {told['verification']}")
    finally:
        machine.sh(f"umount {POOL}/elsewhere; rm -r {POOL}/elsewhere; rm '{path}'; sync -f {POOL}")
    # A place that shows a part of the pool, or something else, is none to look at all of it.
    machine.sh(f"mkdir -p {POOL}/part /run/part; echo x >{POOL}/part/file; mount --bind {POOL}/part /run/part")
    for hide in ("true", f"mount -t tmpfs none {POOL}"):
        machine.sh(hide)
        done = machine.snapctl("-o", "json", "verify", "--pool=dax0.0", check=False)
        if hide == "true":
            names = [file["path"] for file in json.loads(done.stdout)["verified"][0]["files"]]
            expect("part/file" in names, f"looked at {names}")
        else:
            expect(done.returncode == 8 and "shows all of it" in done.stderr, f"exit {done.returncode}: {done.stderr}")
    machine.sh(f"umount {POOL}; umount /run/part; rm -r {POOL}/part; umount {POOL}")
    done = machine.snapctl("verify", "--pool=dax0.0", check=False)
    expect(done.returncode == 8 and "attach" in done.stderr, f"exit {done.returncode}: {done.stderr}")
    machine.ensure_snapd()
    for argument, status in (("--pool=nothing", 3), ("none", 3), ("../snapshots", 2)):
        done = machine.snapctl("verify", argument, check=False)
        expect(done.returncode == status, f"{argument}: exit {done.returncode}: {done.stderr}")
