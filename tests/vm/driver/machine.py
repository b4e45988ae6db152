# SPDX-License-Identifier: Apache-2.0
"""The machine as tests see it: commands in the guest, power cuts, the pool."""

import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]
VM = REPOSITORY / "deploy/vm"

sys.path.insert(0, str(VM))
import vmlib  # noqa: E402
from complaints import complaints  # noqa: E402

PREFIX = "/opt/daxsnap"
POOL = "/run/daxsnap/pool"
# On the root disk, so that it is there after a power cut.
WORK = "/var/lib/daxsnap-test"
SYSTEM_RUN_SECONDS = 600

# Idempotent; the marker keeps a pool that does not attach from being made anew.
ENSURE_POOL = f"""
set -eu
mkdir -p {WORK} /run/daxsnap
mountpoint -q {POOL} && exit 0
if [ ! -e {WORK}/pool-created ]; then
  snapctl pool create dax0.0 --label daxsnap-test
  touch {WORK}/pool-created
  sync -f {WORK}
fi
snapctl pool attach dax0.0
mountpoint -q {POOL}
"""


class TestFailure(Exception):
    """Says what was expected and what came."""


class Machine:
    """One machine (state directory $DAXSNAP_VM) that is up, or is brought up."""

    def ensure_up(self):
        if not vmlib.connected(vmlib.state_dir()):
            # Down, or half up after a test that was killed.
            subprocess.run([VM / "cut"], stderr=subprocess.DEVNULL)
            self.up()

    def up(self):
        flavour = os.environ.get("DAXSNAP_VM_FLAVOUR", "base")
        if subprocess.run([VM / "up", "--flavour", flavour]).returncode:
            raise TestFailure("the machine does not boot")

    def cut(self):
        """A power cut: QEMU is killed."""
        if subprocess.run([VM / "cut"]).returncode:
            raise TestFailure("the power cannot be cut")

    def panic(self):
        """The guest's kernel panics, and QEMU ends with it."""
        self._end("echo c >/proc/sysrq-trigger")

    def reboot(self):
        """An orderly reboot, up to where the firmware would begin: QEMU ends there."""
        self._end("systemctl reboot")

    def _end(self, command):
        running = vmlib.qemu_pidfd(vmlib.state_dir())
        if not running:
            raise TestFailure("the machine is not up")
        self.run("sh", "-c", command, check=False)
        if not vmlib.wait_exit(running[1], SYSTEM_RUN_SECONDS):
            raise TestFailure(f"the machine is still there: {command}")
        os.close(running[1])
        vmlib.close_ssh(vmlib.state_dir())

    def power_cycle(self):
        self.cut()
        self.up()

    def run(self, *argv, check=True, timeout=SYSTEM_RUN_SECONDS, **kwargs):
        """A command in the guest: subprocess.CompletedProcess with text output."""
        done = subprocess.run([VM / "run", *argv], stdin=subprocess.DEVNULL, capture_output=True,
                              text=True, timeout=timeout, **kwargs)
        if check and done.returncode:
            raise TestFailure(f"{shlex.join(argv)} in the machine: exit {done.returncode}\n"
                              f"{done.stdout}{done.stderr}")
        return done

    def sh(self, script, **kwargs):
        """A shell script in the guest: its standard output, stripped."""
        return self.run("sh", "-euc", script, **kwargs).stdout.strip()

    def kill_session(self, leader):
        """Kills all tasks of a session. Then their PIDs are free: a child outlives its parent for a
        moment, and a restore would find its PID in use."""
        self.sh(f"""
            for pid in {leader} $(pgrep -s {leader}); do kill -9 $pid 2>/dev/null || true; done
            while pgrep -s {leader} >/dev/null; do sleep 0.05; done""")

    def nvdimm(self):
        """The file that is the NVDIMM. The guest's memory is this file: both see a change at once."""
        return Path(os.environ.get("DAXSNAP_VM", "/var/tmp/daxsnap-vm")) / "nv.img"

    def start(self, *argv, with_stdin=False, **kwargs):
        """A command in the guest that runs on meanwhile: Popen with text output."""
        return subprocess.Popen([VM / "run", *argv], stdin=subprocess.PIPE if with_stdin else subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **kwargs)

    def check_dmesg(self):
        """Fails if the kernel complained since the last call."""
        found = complaints(vmlib.state_dir(), only_new=True)
        if found:
            raise TestFailure("the guest's kernel complained:\n" + "\n".join(found))

    def ensure_pool(self):
        """The pool mounted at POOL, without snapd's help."""
        self.sh(ENSURE_POOL)

    def run_on_pool(self, *argv):
        """A command in the guest, the pool being mounted, in one go; it may fail."""
        return self.run("sh", "-euc", f"({ENSURE_POOL})\nexec \"$@\"", "sh", *argv, check=False)

    def remount(self, options="commit=0"):
        """The pool mounted with these options, and nobody else using it."""
        self.stop_snapd()
        self.sh(ENSURE_POOL)
        self.sh(f"umount {POOL}; mount -t kmemfs -o {options} dax0.0 {POOL}")

    def ensure_snapd(self):
        self.sh(f"mkdir -p {WORK}")
        if self.run("systemctl", "is-active", "--quiet", "snapd", check=False).returncode:
            self.ensure_pool()
            self.restart_snapd()

    def restart_snapd(self):
        """However often that was done just before: systemd counts starts."""
        self.sh("systemctl reset-failed snapd 2>/dev/null || true; systemctl restart snapd")

    def reserve_pids(self):
        """From here on all new tasks get PIDs that a boot does not reach, as after any `snapctl run`."""
        self.snapctl("run", "--quiet", "--name", "pids", "--node", "none", "--", "true")

    def stop_snapd(self):
        self.run("systemctl", "stop", "snapd", check=False)

    def snapctl(self, *argv, check=True, **kwargs):
        return self.run("snapctl", *argv, check=check, **kwargs)

    def snapctl_json(self, *argv, **kwargs):
        return json.loads(self.snapctl("-o", "json", *argv, **kwargs).stdout)


def wait_until(condition, what, seconds=180, interval=0.2):
    """Polls; fails with `what` when the time is over. Returns the truthy result."""
    deadline = time.monotonic() + seconds
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > deadline:
            raise TestFailure(f"not within {seconds} s: {what}")
        time.sleep(interval)


def expect(condition, message):
    if not condition:
        raise TestFailure(message)
