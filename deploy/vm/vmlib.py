# SPDX-License-Identifier: Apache-2.0
"""The machine: its state directory, its QEMU, and how the host gets into it.

A machine is a directory: root.img and nv.img (its disks), id_ed25519 and known_hosts
(the keys to get in), console.log (every boot since they were made), qemu.pid, qmp.sock,
ssh.conf. Only one QEMU runs on it.
"""

import contextlib
import fcntl
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
MIB = 1 << 20
# KMEM aligns both ends of the device to memory blocks of 128 MiB, and the devdax
# info block takes the first 2 MiB: that much of the file is never usable.
ALIGNMENT_LOSS = 128 * MIB
# Generous: a busy host makes a boot ten times slower, and a dead guest is noticed at once.
BOOT_SECONDS = {"base": 600, "debug": 1800}
SSH_SECONDS = 180
# Beside the root image, and a machine's own copies.
KEYS = ("id_ed25519", "known_hosts")
START = time.monotonic()


class VmError(Exception):
    """Says what went wrong, to what, and what to do."""


def say(text):
    print(f"[{time.monotonic() - START:4.0f}s] vm: {text}", file=sys.stderr, flush=True)


def parse_size(text):
    """Bytes of "4G", "512M" or a plain number of bytes."""
    match = re.fullmatch(r"(\d+)([KMGT]?)", text.upper())
    if not match:
        raise VmError(f"not a size: {text!r}; say for example 4G or 512M")
    return int(match[1]) << {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}[match[2]]


def state_dir():
    return Path(os.environ.get("DAXSNAP_VM", "/var/tmp/daxsnap-vm")).resolve()


@contextlib.contextmanager
def locked(state):
    """One up, down or cut at a time."""
    state.mkdir(parents=True, exist_ok=True)
    with open(state / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def qemu_pidfd(state):
    """(pid, pidfd) of this machine's QEMU, or None. Never another process's."""
    try:
        pid = int((state / "qemu.pid").read_text())
        pidfd = os.pidfd_open(pid)
    except (OSError, ValueError):
        return None
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        arguments = []
    if f"{state}/console.log".encode() in b"\n".join(arguments):
        return pid, pidfd
    os.close(pidfd)
    return None


def wait_exit(pidfd, seconds):
    return bool(select.select([pidfd], [], [], seconds)[0])


def console_tail(state, lines=40):
    try:
        text = (state / "console.log").read_text(errors="replace")
    except OSError:
        return "(no console output)"
    return "\n".join(text.replace("\r", "").splitlines()[-lines:])


def note_boot(state, how):
    """A line on the console between boots."""
    with open(state / "console.log", "a") as console:
        console.write(f"\n=== boot of {datetime.now():%F %T}, {how} ===\n")


def wait_ready(state, guest, flavour):
    """Until the guest says on its connection that it is up, dies, or takes too long."""
    seconds = BOOT_SECONDS[flavour]
    guest.settimeout(seconds)
    try:
        said = guest.recv(64)
    except TimeoutError:
        raise VmError(f"the guest is not up after {seconds} s; its console:\n{console_tail(state)}") from None
    if not said.startswith(b"ready"):
        raise VmError(f"the guest died while booting; {(state / 'qemu.log').read_text()}"
                      f"its console:\n{console_tail(state)}")


def qmp(state, command, **arguments):
    """One command to QEMU's monitor; its answer."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(30)
        connection.connect(str(state / "qmp.sock"))
        stream = connection.makefile("rw")
        stream.readline()
        for request in ({"execute": "qmp_capabilities"}, {"execute": command, "arguments": arguments}):
            stream.write(json.dumps(request) + "\n")
            stream.flush()
            answer = json.loads(stream.readline())
            while "event" in answer:
                answer = json.loads(stream.readline())
            if "error" in answer:
                raise VmError(f"QEMU refused {command}: {answer['error']['desc']}")
        return answer["return"]


def ssh_port(state):
    """The host port that QEMU forwards to the guest's sshd; QEMU chose it itself."""
    table = qmp(state, "human-monitor-command", **{"command-line": "info usernet"})
    for line in table.splitlines():
        fields = line.split()
        if fields and fields[0] == "TCP[HOST_FORWARD]" and fields[5] == "22":
            return int(fields[3])
    raise VmError(f"QEMU forwards no port to the guest:\n{table}")


def open_ssh(state):
    """Writes ssh.conf and opens the connection that every `run` shares."""
    control = state / "ssh.sock"
    if len(str(control)) > 85:
        raise VmError(f"{state}: path too long for a socket; set DAXSNAP_VM to a shorter one")
    control.unlink(missing_ok=True)
    (state / "ssh.conf").write_text(
        "Host guest\n"
        f"  HostName 127.0.0.1\n  Port {ssh_port(state)}\n  User root\n"
        f"  IdentityFile {state}/id_ed25519\n  IdentitiesOnly yes\n"
        f"  UserKnownHostsFile {state}/known_hosts\n  GlobalKnownHostsFile /dev/null\n"
        "  HostKeyAlias daxsnap-guest\n  StrictHostKeyChecking yes\n"
        "  BatchMode yes\n  LogLevel ERROR\n  ConnectTimeout 60\n"
        "  Ciphers aes128-gcm@openssh.com,aes128-ctr\n  Compression no\n"
        f"  ControlPath {control}\n")
    # QEMU's network resets a connection that a busy guest has not answered in time.
    deadline = time.monotonic() + SSH_SECONDS
    while True:
        with open(state / "ssh.log", "w") as log:
            done = subprocess.run(
                ["ssh", "-F", state / "ssh.conf", "-M", "-N", "-f", "-o", "ServerAliveInterval=30",
                 "-o", "ServerAliveCountMax=10", "guest"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        if not done.returncode:
            return
        why = (state / "ssh.log").read_text().strip()
        if "Connection reset" not in why or time.monotonic() > deadline:
            raise VmError(f"ssh into the guest failed: {why}")
        time.sleep(1)


def connected(state):
    """Whether the shared connection stands. It ends with the guest."""
    return (state / "ssh.sock").exists() and not subprocess.run(
        ["ssh", "-F", state / "ssh.conf", "-O", "check", "guest"],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode


def close_ssh(state):
    subprocess.run(["ssh", "-F", state / "ssh.conf", "-O", "exit", "guest"],
                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    (state / "ssh.sock").unlink(missing_ok=True)


def power_off_hard(state, pid, pidfd):
    """What a power cut is: QEMU gone between two instructions."""
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    if not wait_exit(pidfd, 60):
        raise VmError(f"QEMU {pid} does not die")
    (state / "qemu.pid").unlink(missing_ok=True)


def main(run):
    """Runs a command of this directory; a VmError is told without a traceback."""
    try:
        sys.exit(run())
    except VmError as error:
        say(f"error: {error}")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
