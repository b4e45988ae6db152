# SPDX-License-Identifier: Apache-2.0
"""Tasks to dump, CRIU's commands, and the comparison of image directories."""

import contextlib
import ctypes
import errno
import filecmp
import fcntl
import os
import pathlib
import re
import signal
import socket
import struct
import subprocess

KMEMFS_SUPER_MAGIC = 0x4B4D4653
# struct kmemfs_info: uuid, label, generation, node, page_size, then ten u64,
# dirty, reserved (include/uapi/linux/kmemfs.h)
KMEMFS_INFO = struct.Struct("=16s64sQiI10QI15I")
KMEMFS_IOC_INFO = (2 << 30) | (KMEMFS_INFO.size << 16) | (0xDB << 8) | 0x41
PR_SET_CHILD_SUBREAPER = 36
MPOL_PREFERRED = 1
SYS_SET_MEMPOLICY = 238  # x86-64

# Not CRIU's images of the task.
NOT_COMPARED = {"stats-dump", "daxsnap-stats.img"}

# Differ between two dumps by stock CRIU: uptime and a random id; the clocks.
ONLY_PRESENCE = {"inventory.img", "timens-0.img"}
# core_entry.thread_info.fpregs.xsave.pkru
XSAVE_PKRU = (2, 3, 13, 8)
# core_entry.thread_core.cpu_mask
CPU_MASK = (5, 1001)

_libc = ctypes.CDLL(None, use_errno=True)


class Failure(Exception):
    """A promise that does not hold."""


def check(holds, what):
    if not holds:
        raise Failure(what)


def become_subreaper():
    """Restored tasks, whose parent ends, become children of this process."""
    if _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "PR_SET_CHILD_SUBREAPER")


def wait_for_all_children():
    """Until this process, a subreaper, has none left, and their PIDs are free. A task's
    children are ours before it can be waited for itself, so that none is missed."""
    try:
        while True:
            os.waitpid(-1, 0)
    except ChildProcessError:
        pass


def filesystem_type(path):
    buf = ctypes.create_string_buffer(256)
    if _libc.statfs(os.fsencode(path), buf):
        raise OSError(ctypes.get_errno(), "statfs", str(path))
    return struct.unpack_from("=q", buf)[0]


def pool_node(pool):
    fd = os.open(pool, os.O_RDONLY)
    try:
        data = fcntl.ioctl(fd, KMEMFS_IOC_INFO, bytes(KMEMFS_INFO.size))
    finally:
        os.close(fd)
    return KMEMFS_INFO.unpack(data)[3]


def prefer_node(node):
    mask = (ctypes.c_ulong * 16)()
    mask[node // 64] = 1 << (node % 64)
    if _libc.syscall(SYS_SET_MEMPOLICY, MPOL_PREFERRED, mask, 1024):
        raise OSError(ctypes.get_errno(), "set_mempolicy")


def status_field(pid, field):
    text = pathlib.Path(f"/proc/{pid}/status").read_text()
    return re.search(rf"^{field}:\s*(\S+)", text, re.M).group(1)


def wait_until_asleep(pid):
    while status_field(pid, "State") != "S":
        os.sched_yield()


def group_of(leader):
    """The PIDs of a process group."""
    found = []
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(stat.read_text().rpartition(")")[2].split()[2]) == leader:
                found.append(int(stat.parent.name))
        except (FileNotFoundError, ProcessLookupError):
            pass
    return found


def tree_kib(leader):
    """Of a process group: anonymous memory that is mapped, and that it needs for that, in KiB."""
    rollups = "".join(pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in group_of(leader))
    return tuple(sum(map(int, re.findall(rf"^{field}: *(\d+) kB", rollups, re.M)))
                 for field in ("Anonymous", "Pss_Anon"))


@contextlib.contextmanager
def own_cgroup():
    """What is begun here is charged to a cgroup of its own: its directory."""
    top = pathlib.Path("/sys/fs/cgroup")
    before = top / pathlib.Path("/proc/self/cgroup").read_text().strip().removeprefix("0::/") / "cgroup.procs"
    (top / "cgroup.subtree_control").write_text("+memory")
    group = top / "criu-test"
    group.mkdir()
    try:
        (group / "cgroup.procs").write_text("0")
        yield group
    finally:
        for pid in (group / "cgroup.procs").read_text().split():
            before.write_text(pid)
        group.rmdir()


@contextlib.contextmanager
def swapped_out(group, leader):
    """The memory of a process group, which a cgroup was charged with, swapped out to a file."""
    swap = pathlib.Path("/var/tmp/criu-test.swap")
    for command in ("fallocate -l 64M", "chmod 600", "mkswap -q", "swapon"):
        subprocess.run([*command.split(), swap], check=True)
    try:
        try:
            (group / "memory.reclaim").write_text("16M")
        except OSError as error:
            # It is more than there is.
            check(error.errno == errno.EAGAIN, f"memory.reclaim: {error}")
        for pid in group_of(leader):
            swapped = int(status_field(pid, "VmSwap"))
            check(swapped > 1024, f"pid {pid} has {swapped} KiB swapped out")
        yield
    finally:
        subprocess.run(["swapoff", swap], check=True)
        swap.unlink()


class Task:
    """A criu_task that has set its memory up and stopped itself."""

    def __init__(self, program, kind, mib, directory, node=None):
        directory.mkdir(exist_ok=True)
        self.log = directory / "task.log"
        self.node = node
        # As a child of ours that we wait for ourselves: WUNTRACED is needed.
        self.pid = os.fork()
        if self.pid == 0:
            try:
                self._exec(program, kind, mib, directory, node)
            finally:
                os._exit(127)
        self.alive = True
        pid, status = os.waitpid(self.pid, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            self.alive = False
            raise Failure(f"criu_task {kind} did not get ready: {self.log.read_text()}")

    def _exec(self, program, kind, mib, directory, node):
        os.setsid()
        # The kernel keeps the CPU number in each thread's memory (rseq): were it
        # to change between two dumps, so would a page.
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        null = os.open("/dev/null", os.O_RDONLY)
        log = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for fd, source in ((0, null), (1, log), (2, log)):
            os.dup2(source, fd)
        os.closerange(3, 256)
        os.chdir("/")
        if node is not None:
            prefer_node(node)
        os.execve(program, [str(program), kind, str(mib), str(directory)], {"PATH": "/usr/bin:/bin"})

    def cont(self):
        os.kill(self.pid, signal.SIGCONT)

    def signal(self, number):
        os.kill(self.pid, number)

    def wait_until_asleep(self):
        """Until an idle task waits for its signal: where it is a moment before shows in its memory."""
        wait_until_asleep(self.pid)

    def was_killed(self):
        """Reaps a task that CRIU dumped and killed, with its children."""
        _, status = os.waitpid(self.pid, 0)
        self.reap()
        check(os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL,
              f"a dumped task ended with status {status:#x}")

    def reap(self):
        """All of the task's process group, so that CRIU can use the pids again."""
        self.alive = False
        try:
            while True:
                os.waitpid(-self.pid, 0)
        except ChildProcessError:
            pass

    def restored(self):
        """The task is back, as our child."""
        self.alive = True

    def check_untraced(self):
        check(status_field(self.pid, "TracerPid") == "0", f"pid {self.pid} is still traced")

    def finish(self):
        """Lets the task check itself; returns when it found everything right."""
        self.cont()
        _, status = os.waitpid(self.pid, 0)
        self.alive = False
        check(status == 0, f"the task's own check: status {status:#x}: {self.log.read_text()}")

    def kill(self):
        """Of whatever is left of the task and its children, at the end of a test."""
        if not self.alive:
            return
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.reap()


class Criu:
    """One criu binary with what it loads."""

    def __init__(self, binary, scratch, libdir=None, env=None):
        self.binary = binary
        self.scratch = scratch
        self.libdir = libdir
        self.env = {"PATH": os.environ.get("PATH", ""), **(env or {})}
        self.runs = 0

    def command(self, action, images, *args, work=None):
        images.mkdir(exist_ok=True)
        if work is None:
            self.runs += 1
            work = self.scratch / f"work-{self.binary.name}-{action}-{images.name}-{self.runs}"
        work.mkdir(exist_ok=True)
        argv = [self.binary, action, "-D", images, "-W", work, "-o", "log", "-v4", *args]
        argv += ["--libdir", self.libdir or self.empty_libdir()]
        return [str(a) for a in argv], work / "log"

    def empty_libdir(self):
        path = self.scratch / "no-plugins"
        path.mkdir(exist_ok=True)
        return path

    def run(self, action, images, *args, expect_failure=False, node=None):
        argv, log = self.command(action, images, *args)
        # pylint: disable-next=subprocess-popen-preexec-fn
        done = subprocess.run(argv, env=self.env, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              check=False, preexec_fn=None if node is None else lambda: prefer_node(node))
        text = log.read_text(errors="replace") if log.exists() else done.stderr
        if expect_failure:
            check(done.returncode != 0, f"{' '.join(argv)} succeeded")
        else:
            check(done.returncode == 0,
                  f"{' '.join(argv)} failed with {done.returncode}:\n{done.stderr}{error_lines(text)}")
        return text

    def dump(self, task, images, *args, leave_running=True, expect_failure=False):
        args = ("-t", task.pid, *(("--leave-running",) if leave_running else ()), *args)
        # As snapd does: the policy that both have is not in the images.
        return self.run("dump", images, *args, expect_failure=expect_failure, node=task.node)

    def restore(self, task, images, *args, expect_failure=False):
        """Restores a task that was killed, as a child of this process, if it does not fail. The log."""
        log = self.run("restore", images, "--restore-detached", *args, expect_failure=expect_failure)
        if expect_failure:
            # CRIU does not wait for the tasks that it had made: they end on their own.
            wait_for_all_children()
        else:
            task.restored()
        return log

    def start(self, action, images, *args, pass_fds=()):
        argv, log = self.command(action, images, *args)
        # pylint: disable-next=consider-using-with
        process = subprocess.Popen(argv, env=self.env, stdin=subprocess.DEVNULL,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                   pass_fds=pass_fds)
        return process, log

    def start_until_ready(self, action, images, *args):
        """Starts a command that serves others; returns when it does."""
        ready, status_fd = os.pipe()
        process, log = self.start(action, images, "--status-fd", status_fd, *args,
                                  pass_fds=(status_fd,))
        os.close(status_fd)
        with os.fdopen(ready, "rb") as pipe:
            if pipe.read(1) != b"\0":
                process.wait()
                raise Failure(f"criu {action} did not get ready:\n{error_lines(log.read_text())}")
        return process, log


def wait_until_stopped(process, log):
    """Until a plugin has stopped CRIU (SIGSTOP)."""
    event = os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
    check(event.si_code == os.CLD_STOPPED,
          f"CRIU ended before it stopped:\n{error_lines(log.read_text(errors='replace'))}")


def wait_for(process, log, what):
    check(process.wait() == 0, f"{what} failed:\n{error_lines(log.read_text(errors='replace'))}")


def error_lines(text):
    lines = [line for line in text.splitlines() if "Error" in line or "Warn" in line]
    return "\n".join(lines[:20])


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def images_of(directory):
    return {p.name for p in directory.iterdir() if p.is_file()} - NOT_COMPARED


def compare_images(expected, actual, only=None):
    """The same files with the same bytes, but for what two stock dumps differ in."""
    names, others = images_of(expected), images_of(actual)
    if only:
        names = {n for n in names if n.startswith(only)}
        others = {n for n in others if n.startswith(only)}
    check(names == others, f"image files differ: {sorted(names ^ others)}")
    check(any(n.startswith("pagemap-") for n in names), f"no pagemaps in {expected}")
    for name in sorted(names - ONLY_PRESENCE):
        a, b = expected / name, actual / name
        check(same_image(a, b), f"{name} differs: {first_difference(a, b)}")


def same_image(a, b):
    if filecmp.cmp(a, b, shallow=False):
        return True
    if not a.name.startswith("core-"):
        return False
    # CRIU saves what happened to be in its buffer if the task does not use
    # protection keys, and stock CRIU no affinity, which these tasks have. The image
    # begins with 12 bytes of magic and size.
    ours, theirs = (without_fields(p.read_bytes()[12:], XSAVE_PKRU, CPU_MASK) for p in (a, b))
    return ours == theirs


def first_difference(a, b):
    with a.open("rb") as fa, b.open("rb") as fb:
        offset = 0
        while True:
            x, y = fa.read(1 << 20), fb.read(1 << 20)
            if x != y:
                at = next((i for i, (p, q) in enumerate(zip(x, y)) if p != q), min(len(x), len(y)))
                return f"at byte {offset + at} ({a.stat().st_size} and {b.stat().st_size} bytes)"
            if not x:
                return "nowhere"
            offset += len(x)


def pages_in(directory):
    return sum(p.stat().st_size for p in directory.glob("pages-*.img")) // 4096


def varint(data, pos):
    """A protobuf varint: (value, position behind it)."""
    value = shift = 0
    while True:
        byte = data[pos]
        pos += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, pos


def fields_of(data):
    """Of a protobuf message: (number, value or bytes, the field's whole encoding)."""
    pos = 0
    while pos < len(data):
        begin = pos
        key, pos = varint(data, pos)
        kind = key & 7
        if kind == 0:
            value, pos = varint(data, pos)
        else:
            check(kind in (1, 2, 5), f"protobuf wire type {kind}")
            length = {1: 8, 5: 4}.get(kind)
            if length is None:
                length, pos = varint(data, pos)
            value = data[pos:pos + length]
            pos += length
        yield key >> 3, value, data[begin:pos]


def without_fields(data, *paths):
    """The encodings of a message's fields but those at the paths of numbers."""
    kept = []
    for number, value, encoding in fields_of(data):
        below = [path[1:] for path in paths if path[0] == number]
        if () in below:
            continue
        kept.append((number, without_fields(value, *below)) if below else encoding)
    return kept


class PluginStats:
    """daxsnap-stats.img (criu-plugin/daxsnap-stats.proto)."""

    def __init__(self, images):
        f = {n: v for n, v, _ in fields_of((images / "daxsnap-stats.img").read_bytes())}
        self.by_reference, self.shared, self.copied, self.hole = f[1], f[2], f[3], f[4]
        self.declined, self.calls, self.capture_us = f[5], f[6], f[7]

    def __str__(self):
        return " ".join(f"{k}={v}" for k, v in vars(self).items())
