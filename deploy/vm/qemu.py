# SPDX-License-Identifier: Apache-2.0
"""QEMU's command line, and which accelerator to trust."""

import os
import socket
import subprocess
from pathlib import Path

from vmlib import ALIGNMENT_LOSS, MIB, VmError, say

BINARY = "qemu-system-x86_64"
PROBE_SECONDS = 20


def accelerator(kernel):
    """(-accel, -cpu) arguments. DAXSNAP_VM_ACCEL=kvm|tcg decides without a probe;
    DAXSNAP_VM_TCG=single|multi is TCG's threading (single: slower, but old QEMUs
    corrupt code that a guest patches while another CPU runs it). DAXSNAP_VM_CPU is
    QEMU's name of a processor other than the most that there is."""
    choice = os.environ.get("DAXSNAP_VM_ACCEL") or ("kvm" if kvm_works(kernel) else "tcg")
    if choice == "kvm":
        return "kvm", os.environ.get("DAXSNAP_VM_CPU", "host")
    if choice != "tcg":
        raise VmError(f"DAXSNAP_VM_ACCEL={choice}: kvm or tcg")
    thread = os.environ.get("DAXSNAP_VM_TCG", "single")
    if thread not in ("single", "multi"):
        raise VmError(f"DAXSNAP_VM_TCG={thread}: single or multi")
    # With ERMS and FSRM, TCG would copy memory a byte at a time.
    return f"tcg,thread={thread}", os.environ.get("DAXSNAP_VM_CPU", "max") + ",-erms,-fsrm"


def kvm_works(kernel):
    """Whether Linux really boots under KVM here: a /dev/kvm that opens proves nothing.
    The answer holds until the host reboots."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    cache = Path(os.environ.get("DAXSNAP_CACHE", "/var/cache/daxsnap")) / f".kvm-{boot}"
    if cache.exists():
        return cache.read_text().strip() == "works"
    works = os.access("/dev/kvm", os.R_OK | os.W_OK) and boots_under_kvm(kernel)
    cache.parent.mkdir(parents=True, exist_ok=True)
    temporary = cache.with_name(f"{cache.name}.{os.getpid()}")
    temporary.write_text("works\n" if works else "does not work\n")
    temporary.replace(cache)  # whole, for others who look
    return works


def boots_under_kvm(kernel):
    """Boots without a disk; a kernel that gets to complain of that has come all the way."""
    say(f"probing KVM with a real boot (at most {PROBE_SECONDS} s)")
    command = [BINARY, "-machine", "q35", "-accel", "kvm", "-cpu", "host", "-smp", "2", "-m", "512M",
               "-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot",
               "-kernel", f"{kernel}/bzImage", "-append", "console=ttyS0 panic=-1 root=/dev/none"]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=PROBE_SECONDS)
        works = b"VFS: Unable to mount root fs" in done.stdout or b"Cannot open root device" in done.stdout
    except subprocess.TimeoutExpired:
        works = False
    say("KVM works" if works else "KVM does not boot Linux here; using TCG")
    return works


def below_4g(options):
    """How much RAM comes before the hole for devices, where the firmware keeps its tables."""
    return min(options.ram, 2 << 30)


def memory(state, options):
    """(arguments of QEMU, kernel parameters) for RAM and the pool's memory."""
    size = options.nvdimm + ALIGNMENT_LOSS
    if options.memory == "memmap":
        # The end of the RAM; the rest of it comes before and after the hole.
        start = (4 << 30) + options.ram - below_4g(options)
        return (["-machine", f"q35,max-ram-below-4g={below_4g(options)}", "-m", f"{(options.ram + size) // MIB}M"],
                # norandmaps: TCG keeps what it made of the code of each process, by address, and
                # looks through all of it at each store when kexec puts a kernel over it.
                [f"memmap={size // MIB}M!{start // MIB}M", "numa_spare_nodes=1", "norandmaps"])
    file = ["-object", f"memory-backend-file,id=nv0,share=on,mem-path={state}/nv.img,size={size}"]
    room = ["-m", f"{options.ram // MIB}M,slots=4,maxmem={(options.ram + size) // MIB + 1024}M"]
    if options.memory == "virtio-pmem":
        return (["-machine", "q35", *room, *file, "-device", "virtio-pmem-pci,id=nvdimm0,memdev=nv0"],
                ["numa_spare_nodes=1"])
    return (["-machine", "q35,nvdimm=on", *room, "-object", f"memory-backend-ram,id=ram0,size={options.ram}",
             "-numa", f"node,nodeid=0,cpus=0-{options.smp - 1},memdev=ram0", "-numa", "node,nodeid=1",
             *file, "-device", f"nvdimm,id=nvdimm0,memdev=nv0,node={options.nvdimm_node}"], [])


def command_line(state, options, kernel):
    """options: as `up` parses them."""
    accel, cpu = accelerator(kernel)
    memory_arguments, memory_parameters = memory(state, options)
    # tsc=reliable: on a busy host the guest would distrust a clock that QEMU derives
    # from the host's own, and fall back to the HPET, which costs an exit a reading.
    # no_timer_check: nor must it panic when its first timer ticks come late.
    append = ["console=ttyS0", "root=/dev/vda", "rw", "rootfstype=ext4", "net.ifnames=0", "panic=-1",
              "oops=panic", "systemd.show_status=error", "systemd.log_target=journal",
              "rcupdate.rcu_cpu_stall_timeout=120", "tsc=reliable", "no_timer_check", *memory_parameters,
              *options.append]
    return [
        BINARY, "-name", "daxsnap", "-accel", accel, "-cpu", cpu, *memory_arguments,
        "-smp", str(options.smp), "-nodefaults", "-display", "none", "-no-reboot",
        # The file lives on when QEMU is killed, so nothing need wait for the host's disk.
        "-drive", f"file={state}/root.img,format=raw,if=virtio,cache=unsafe,discard=unmap",
        "-netdev", "user,id=net0,hostfwd=tcp:127.0.0.1:0-:22", "-device", "virtio-net-pci,netdev=net0",
        "-device", "virtio-rng-pci", "-device", "virtio-serial-pci",
        "-chardev", f"socket,id=ready,path={state}/ready.sock,reconnect=1",
        "-device", "virtserialport,chardev=ready,name=daxsnap.ready",
        "-chardev", f"file,id=console,path={state}/console.log,append=on", "-serial", "chardev:console",
        "-qmp", f"unix:{state}/qmp.sock,server=on,wait=off",
        "-kernel", f"{kernel}/bzImage", "-append", " ".join(append),
    ]


def listen(state):
    """Where QEMU connects to, within a second or so, with what the guest has to report."""
    (state / "ready.sock").unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(state / "ready.sock"))
    listener.listen(1)
    listener.settimeout(30)
    return listener


def start(state, command):
    """Starts QEMU; returns it and the connection on which the guest reports."""
    with listen(state) as listener, open(state / "qemu.log", "w") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                   start_new_session=True)
        (state / "qemu.pid").write_text(f"{process.pid}\n")
        try:
            guest, _ = listener.accept()
        except TimeoutError:
            process.kill()
            process.wait()
            raise VmError(f"QEMU did not start:\n{(state / 'qemu.log').read_text()}") from None
    return process, guest
