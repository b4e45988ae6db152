# SPDX-License-Identifier: Apache-2.0
"""The machine of deploy/vm as the hotplug tests use it: the NVDIMM's file is written and
read from the host, so that the kernel under test is not asked what it left alone."""

import hashlib
import json
import os
import random
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
DEPLOY = HERE.parent.parent.parent / "deploy" / "vm"
SELFTESTS = DEPLOY.parent.parent / "kernel/src/tools/testing/selftests/kmemfs"
MIB = 1 << 20

sys.path.insert(0, str(DEPLOY))
import vmlib  # noqa: E402

GUEST_SCRIPT = "/root/guest_device.py"


class Machine:
    """One VM; its disks are new."""

    def __init__(self, state, nvdimm, align="2M", flavour=None):
        """flavour: the kernel that the test needs; otherwise the environment decides."""
        self.state = Path(state)
        self.environment = dict(os.environ, DAXSNAP_VM=str(state))
        if flavour and self.environment.get("DAXSNAP_VM_FLAVOUR") != flavour:
            self.environment["DAXSNAP_VM_FLAVOUR"] = flavour
            self.environment.pop("DAXSNAP_KERNEL", None)
        self.nvdimm = nvdimm
        self.align = align
        self.image = self.state / "nv.img"
        self.fresh = True
        self.data = None  # offset of the device in the file
        self.server = None  # GUEST_SCRIPT, waiting for commands

    def _deploy(self, command, *arguments, check=True, **options):
        return subprocess.run([DEPLOY / command, *arguments], env=self.environment, text=True, check=check, **options)

    def put(self, path, target="/root/"):
        self._deploy("put", path, target)

    def up(self, *append, node=1):
        """Boots, on new disks the first time. Nothing is bound to kmem then."""
        if self.fresh:
            self.cut(check=False)  # whatever an aborted run left
        sizes = ["--nvdimm", self.nvdimm, "--ram", "2G", "--nvdimm-node", str(node)]
        self._deploy("up", *sizes, *(["--fresh"] if self.fresh else []), *(f"--append={a}" for a in append))
        if self.fresh:
            self.fresh = False
            self.put(HERE / "guest_device.py", GUEST_SCRIPT)
            self.shell("sync")  # a power cut may come soon
            self.guest("create", self.align)
            self.data = self.guest("offset")["offset"]

    def cut(self, check=True):
        self._deploy("cut", check=check, stderr=None if check else subprocess.DEVNULL)
        if self.server:
            self.server.communicate()
            self.server = None

    def cpu_seconds(self):
        """What its QEMU has used so far. Unlike the time that passes it does not depend on
        who else uses the processors."""
        pid, pidfd = vmlib.qemu_pidfd(self.state)
        os.close(pidfd)
        utime, stime = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        return (int(utime) + int(stime)) / os.sysconf("SC_CLK_TCK")

    def plug_nvdimm(self, mib):
        """A second device on the pool's node; returns its name on the DAX bus, of no driver."""
        vmlib.qmp(self.state, "object-add", **{"qom-type": "memory-backend-ram", "id": "second", "size": mib * MIB})
        vmlib.qmp(self.state, "device_add", driver="nvdimm", id="nvdimm1", memdev="second", node=1)
        return self.guest("second")["second"]

    def guest(self, *command):
        if not self.server:
            self.server = subprocess.Popen([DEPLOY / "run", "python3", GUEST_SCRIPT, "serve"], env=self.environment,
                                           text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.server.stdin.write(json.dumps(command) + "\n")
        self.server.stdin.flush()
        answer = self.server.stdout.readline()
        if not answer:
            status, self.server = self.server.wait(), None
            raise RuntimeError(f"{command} in the machine: exit {status}, see above")
        return json.loads(answer)

    def shell(self, line):
        return self._deploy("run", "sh", "-c", line, stdout=subprocess.PIPE).stdout

    def kernel_log(self):
        return self.shell("dmesg")

    def complaints(self):
        """What check-dmesg has against the console since the last call."""
        return self._deploy("check-dmesg", "--new", check=False, stdout=subprocess.PIPE).stdout

    def write(self, page, data):
        """Device pages, by the host."""
        with open(self.image, "r+b") as file:
            file.seek(self.data + page * 4096)
            file.write(data)

    def read(self, page, pages=1):
        with open(self.image, "rb") as file:
            file.seek(self.data + page * 4096)
            return file.read(pages * 4096)

    def scatter(self, seed):
        """Something to lose, all over the device but in the head."""
        size = self.image.stat().st_size - self.data
        chance = random.Random(seed)
        for offset in range(16 * 4096, size, 4 * MIB):
            self.write(offset // 4096, chance.randbytes(4096))

    def chunks(self):
        """(offset, bytes) of all of the file that is not a hole, from page to page."""
        with open(self.image, "rb") as file:
            end, at = self.image.stat().st_size, 0
            while at < end:
                try:
                    start = os.lseek(file.fileno(), at, os.SEEK_DATA)
                except OSError:
                    break
                at = os.lseek(file.fileno(), start, os.SEEK_HOLE)
                file.seek(start)
                while start < at:
                    chunk = file.read(min(16 * MIB, at - start))
                    yield start, chunk
                    start += len(chunk)

    def digest(self):
        """Of the whole file. A write of zeroes to a hole counts as a change."""
        total = hashlib.sha256()
        for start, chunk in self.chunks():
            total.update(f"{start}-{start + len(chunk)};".encode())
            total.update(chunk)
        return total.hexdigest()

    def holds(self, marker):
        """Whether the file has these bytes, within a page, somewhere."""
        return any(marker in chunk for _, chunk in self.chunks())
