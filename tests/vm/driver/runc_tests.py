# SPDX-License-Identifier: Apache-2.0
"""Containers by Debian's runc, with the CRIU that upstream made and images on kmemfs."""

import json

from machine import POOL, PREFIX, WORK, expect, wait_until
from registry import test
from stock_criu_tests import CRIU, FEW, TOOL, Counted, prepare

NAME = "daxsnap-test"
HOME = f"{WORK}/runc"
IMAGES = f"{POOL}/runc"
MIB = 16

# Busybox is the container's init and userland; the workload brings the two libraries it
# needs. The rest is what `runc spec` says, but no terminal, the machine's network,
# and that the workload's state directory is the machine's.
BUNDLE = f"""
set -eu
runc delete -f {NAME} 2>/dev/null || true
rm -rf {HOME} {IMAGES}
mkdir -p {HOME}/bin {HOME}/state {IMAGES} {HOME}/rootfs
ln -s {CRIU} {HOME}/bin/criu
cd {HOME}/rootfs
mkdir -p bin dev etc proc sys tmp state lib64
cp /bin/busybox bin/
for applet in sh sleep kill cat; do ln -s busybox bin/$applet; done
cp {PREFIX}/tests/workloads/wl_pages {PREFIX}/tests/workloads/workloadctl bin/
cp -L /lib64/ld-linux-x86-64.so.2 /lib/x86_64-linux-gnu/libc.so.6 lib64/
cd ..
runc spec
"""

INIT = f"/bin/wl_pages --dir /state --mib {MIB} & wait"


def configure(machine):
    """The container's config.json, made from runc's own."""
    machine.sh(BUNDLE)
    config = json.loads(machine.sh(f"cat {HOME}/config.json"))
    config["process"]["terminal"] = False
    config["process"]["args"] = ["/bin/sh", "-c", INIT]
    config["process"]["env"].append("LD_LIBRARY_PATH=/lib64")
    config["root"]["readonly"] = False
    # CRIU dumps no network namespace on a kernel that does not track connections.
    config["linux"]["namespaces"] = [n for n in config["linux"]["namespaces"] if n["type"] != "network"]
    config["mounts"].append({"destination": "/state", "type": "bind", "source": f"{HOME}/state",
                             "options": ["bind", "rw"]})
    machine.sh(f"cat >{HOME}/config.json <<'END'\n{json.dumps(config)}\nEND")


def runc(machine, *argv, **kwargs):
    """runc, with our CRIU as its criu and the pool's node for memory. Its standard files
    become the container's, so they are none that CRIU would not find there."""
    command = " ".join(argv)
    return machine.sh(f"PATH={HOME}/bin:$PATH {TOOL} run {POOL} runc --log {HOME}/runc.log {command} "
                      f"</dev/null >/dev/null 2>&1 || {{ tail -n 20 {HOME}/*.log >&2; exit 1; }}", **kwargs)


class Container:
    def __init__(self, machine):
        self.machine = machine
        self.progress, self.cookie = 0, ""

    def start(self):
        configure(self.machine)
        runc(self.machine, "run", "-d", "--bundle", HOME, NAME)
        wait_until(lambda: self.machine.run("test", "-e", f"{HOME}/state/ready", check=False).returncode == 0,
                   "the container's workload is ready")
        return self

    def check(self):
        """By the asker inside the container: its PIDs are the container's."""
        arguments = ["--since", str(self.progress)]
        if self.cookie:
            arguments += ["--cookie", self.cookie]
        said = json.loads(self.machine.run("runc", "exec", NAME, "/bin/workloadctl", "check", "/state",
                                           *arguments).stdout)
        self.progress, self.cookie = said["progress"], said["cookie"]

    def status(self):
        return json.loads(self.machine.sh(f"runc state {NAME}"))["status"]

    def checkpoint(self):
        with Counted(self.machine) as counted:
            runc(self.machine, "checkpoint", "--image-path", IMAGES, "--work-path", HOME, NAME)
        print(f"runc checkpoint: {counted}")
        expect(counted.by_reference + counted.shared >= MIB * 256,
               f"only {counted.by_reference + counted.shared} pages by reference")
        expect(counted.copied <= 2 * FEW, f"{counted.copied} pages were copied")
        listed = self.machine.run("runc", "state", NAME, check=False)
        expect(listed.returncode != 0 or '"stopped"' in listed.stdout, "the container runs on")

    def restore(self):
        with Counted(self.machine) as counted:
            runc(self.machine, "restore", "-d", "--bundle", HOME, "--image-path", IMAGES, "--work-path", HOME, NAME)
        print(f"runc restore: {counted}")
        self.progress = 0
        expect(self.status() == "running", f"the container is {self.status()}")
        expect(counted.installed >= MIB * 256, f"only {counted.installed} pages were given by reference")

    def remove(self):
        self.machine.sh(f"runc delete -f {NAME}; rm -rf {HOME} {IMAGES}; sync -f {POOL}")


@test("Runc.ContainerSurvivesAPowerCut", timeout=900)
def power_cut(machine):
    """Checkpoint and restore on one boot first, then across a cut."""
    prepare(machine)
    container = Container(machine).start()
    container.check()
    container.checkpoint()
    container.restore()
    container.check()
    machine.sh(f"rm -rf {IMAGES}; mkdir {IMAGES}")
    container.checkpoint()
    machine.sh(f"sync -f {POOL}; sync")
    machine.power_cycle()
    machine.ensure_pool()
    container.restore()
    container.check()
    container.remove()
