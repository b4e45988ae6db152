# SPDX-License-Identifier: Apache-2.0
"""A machine that does one thing: the kernel, Debian's root image read-only, no systemd. A boot takes
seconds, so that many can be had. The script's output comes by a port that is written through, so
that nothing of it is lost with the machine."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[2]
DEPLOY = REPOSITORY / "deploy/vm"
MIB = 1 << 20

sys.path.insert(0, str(DEPLOY))
import qemu  # noqa: E402
import vmlib  # noqa: E402
from complaints import complaints  # noqa: E402

NVDIMM = 128 * MIB  # usable
RECORD = 512 * MIB
PAYLOAD = 96 * MIB
BOOT_SECONDS = 600  # a busy host makes it that slow; a guest that dies is noticed at once
DONE = "script: exit 0"


def last_line(*command):
    done = subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, check=True)
    return Path(done.stdout.splitlines()[-1])


class Bare:
    """A directory with the machine's files; one boot at a time."""

    def __init__(self, state, programs, asked=False):
        """asked: its NVDIMM is a virtio-pmem device, whose host has to be asked for durability."""
        self.asked = asked
        self.state = Path(state).resolve()
        shutil.rmtree(self.state, ignore_errors=True)
        self.state.mkdir(parents=True)
        self.kernel = os.environ.get("DAXSNAP_KERNEL") or last_line("kernel/build", "base")
        self.root = last_line("deploy/vm/rootfs")
        self.payload = self.state / "payload"
        self.payload.mkdir()
        for program in programs:
            subprocess.run(["strip", "-o", self.payload / Path(program).name, program], check=True)
        for script in ("init", "functions"):
            shutil.copy(HERE / script, self.payload)

    def new_nvdimm(self, name="nv.img"):
        path = self.state / name
        with open(path, "wb") as file:
            file.truncate(NVDIMM + vmlib.ALIGNMENT_LOSS)
        return path

    def new_record(self, name="record.img"):
        path = self.state / name
        with open(path, "wb") as file:
            file.truncate(RECORD)
        return path

    def boot(self, script, *nvdimms, record=None):
        """Runs a shell script (init and functions beside this file) as the only program of a boot. Each
        NVDIMM has a node of its own, at rising addresses. Returns what it printed; fails if it did, or if
        the kernel complained."""
        (self.payload / "script").write_text(script)
        disk, out, console = self.state / "payload.img", self.state / "out", self.state / "console.log"
        for path in (out, console):
            path.unlink(missing_ok=True)
        with open(disk, "wb") as file:
            file.truncate(PAYLOAD)
        subprocess.run(["mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-d", self.payload, disk], check=True)
        with open(self.state / "qemu.log", "w") as log:
            process = subprocess.Popen(self._command(disk, nvdimms, record), stdin=subprocess.DEVNULL, stdout=log,
                                       stderr=log)
        try:
            status = process.wait(timeout=BOOT_SECONDS)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        said = out.read_text(errors="replace") if out.exists() else ""
        complained = complaints(self.state, only_new=False)
        if status or complained or DONE not in said.splitlines():
            raise AssertionError(f"QEMU's status {status}; its log: {(self.state / 'qemu.log').read_text()}\n"
                                 f"kernel: {complained}\nthe script said:\n{said}\n"
                                 f"its console:\n{vmlib.console_tail(self.state)}")
        return said

    def _command(self, disk, nvdimms, record):
        accel, cpu = qemu.accelerator(self.kernel)
        spare = "numa_spare_nodes=1 " if self.asked else ""
        append = ("console=ttyS0 root=/dev/vda ro rootfstype=ext4 panic=-1 oops=panic tsc=reliable no_timer_check "
                  f"{spare}quiet loglevel=5 init=/bin/sh "
                  "-- -c \"mount -t ext4 -o ro /dev/vdb /mnt; exec /bin/sh /mnt/init\"")
        # It ends with the test, however that ends.
        command = [
            "setpriv", "--pdeathsig", "KILL", qemu.BINARY, "-name", "daxsnap-bare", "-machine", "q35,nvdimm=on", "-accel", accel, "-cpu", cpu,
            "-smp", "2", "-nodefaults", "-display", "none", "-no-reboot",
            "-m", f"768M,slots={len(nvdimms) + 1},maxmem={sum(n.stat().st_size for n in nvdimms) // MIB + 2048}M",
            "-object", "memory-backend-ram,id=ram0,size=768M",
            "-numa", "node,nodeid=0,cpus=0-1,memdev=ram0",
            "-drive", f"file={self.root},format=raw,if=virtio,readonly=on",
            "-drive", f"file={disk},format=raw,if=virtio,readonly=on",
            "-device", "virtio-serial-pci", "-chardev", f"file,id=out,path={self.state}/out",
            "-device", "virtserialport,chardev=out,name=daxsnap.out",
            "-chardev", f"file,id=console,path={self.state}/console.log", "-serial", "chardev:console",
            "-kernel", f"{self.kernel}/bzImage", "-append", append]
        for node, nvdimm in enumerate(nvdimms, 1):
            command += ["-object",
                        f"memory-backend-file,id=nv{node},share=on,mem-path={nvdimm},size={nvdimm.stat().st_size}"]
            if self.asked:
                command += ["-device", f"virtio-pmem-pci,id=nvdimm{node},memdev=nv{node}"]
            else:
                command += ["-numa", f"node,nodeid={node}",
                            "-device", f"nvdimm,id=nvdimm{node},memdev=nv{node},node={node}"]
        if record:
            command += ["-object", f"memory-backend-file,id=record,share=on,mem-path={record},size={RECORD}",
                        "-device", "ivshmem-plain,memdev=record"]
        return command
