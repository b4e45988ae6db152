#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs in the guest: what the hotplug tests do to dax0.0 and its node.

    guest_device.py create ALIGN | offset | bind | bind_in_race | unbind | state | blocks STATE | use MIB [PAGE] |
                    memmap 0|1 | bad [PAGE...] | distances | tiers |
                    content | info_flags | writes | verify | sums
    guest_device.py serve

Prints one JSON object. `serve` takes commands, each a JSON array in a line, from its standard
input: to start Python takes a second in an emulated machine.
"""

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import json
import mmap
import os
import re
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

DEVICE = "dax0.0"
BUS = Path("/sys/bus/dax")
NODES = Path("/sys/devices/system/node")
MEMORY = Path("/sys/devices/system/memory")
SET_MEMPOLICY, MPOL_BIND = 238, 2
POOL = "/mnt/pool"
KMEMFS_IOC_INFO, INFO_BYTES, INFO_FLAGS = 0x80f0db41, 240, 220
KMEMFS_IOC_UPGRADE, KMEMFS_IOC_SUM = 0xdb42, 0xdb44
KMEMFS_IOC_VERIFY, VERIFY = 0xc038db43, struct.Struct("<7Q")


def store(path, text):
    """0, or the errno with which sysfs refused."""
    try:
        with open(path, "w") as file:
            file.write(text)
    except OSError as error:
        return errno.errorcode.get(error.errno, error.errno)
    return 0


def driver():
    link = BUS / "devices" / DEVICE / "driver"
    return link.resolve().name if link.exists() else None


def target_node():
    """None: the device has none, as its place is of none that the kernel knows."""
    file = BUS / "devices" / DEVICE / "target_node"
    return int(file.read_text()) if file.exists() else None


def race(done):
    """What an eager rule of udev would do: each memory block goes online as soon as it is there."""
    while not done.is_set():
        for block in MEMORY.glob("memory[0-9]*"):
            with contextlib.suppress(OSError):  # a directory comes before what is in it
                if (block / "state").read_text() == "offline\n":
                    store(block / "state", "online_kernel")


def bind_in_race():
    done = threading.Event()
    racer = threading.Thread(target=race, args=(done,))
    racer.start()
    try:
        return bind()
    finally:
        done.set()
        racer.join()


def create(align):
    subprocess.run(["ndctl", "create-namespace", "-f", "-e", "namespace0.0", "-m", "devdax", "--map=mem",
                    "-a", align], check=True, stdout=subprocess.DEVNULL)
    return {}


def offset():
    """Where the device starts in the NVDIMM's file, which is the region, whole."""
    region = Path("/sys/bus/nd/devices/region0/resource").read_text()
    return {"offset": int((BUS / "devices" / DEVICE / "resource").read_text(), 16) - int(region, 16)}


def unbind():
    bound = driver()
    return {"unbind": store(BUS / "drivers" / bound / "unbind", DEVICE) if bound else 0}


def bind():
    """To kmem. The driver core keeps the error of a probe through new_id to itself: the second
    write to bind tells."""
    if driver() == "kmem":
        return {"bind": 0}
    unbind()
    begin = time.monotonic()
    # device_dax matches every device; it must not get it back between the two.
    store(BUS / "drivers" / "kmem" / "new_id", DEVICE)
    result = 0 if driver() == "kmem" else store(BUS / "drivers" / "kmem" / "bind", DEVICE)
    return {"bind": result, "seconds": time.monotonic() - begin}


def blocks_of(node):
    found = []
    for link in sorted(NODES.glob(f"node{node}/memory[0-9]*"), key=lambda p: int(p.name[6:])):
        found.append({"name": link.name, "state": (link / "state").read_text().strip(),
                      "zones": (link / "valid_zones").read_text().strip()})
    return found


def zones_of(node):
    """{zone: {free, min, managed, present, pcp}} of a node, in pages."""
    zones, current = {}, {}
    for line in Path("/proc/zoneinfo").read_text().splitlines():
        if match := re.match(r"Node (\d+), zone +(\w+)", line):
            current = {"pcp": 0}
            if int(match[1]) == node:
                zones[match[2]] = current
        elif match := re.match(r" +pages free +(\d+)", line):
            current["free"] = int(match[1])
        elif match := re.match(r" +(min|low|high|spanned|present|managed) +(\d+)$", line):
            current[match[1]] = int(match[2])
        elif match := re.match(r" +count: +(\d+)", line):
            current["pcp"] += int(match[1])
    return {name: zone for name, zone in zones.items() if zone.get("present")}


def huge_free(node):
    """Free pages of the node that are in chunks of 2 MiB or more."""
    pages = 0
    for line in Path("/proc/buddyinfo").read_text().splitlines():
        if match := re.match(rf"Node {node}, zone +\w+ +(.*)", line):
            pages += sum(int(chunks) << order for order, chunks in enumerate(match[1].split()) if order >= 9)
    return pages


def meminfo(path):
    return {m[1]: int(m[2]) for m in re.finditer(r"(\w+): +(\d+) kB", Path(path).read_text())}


def state():
    node = target_node()
    info = NODES / f"node{node}" / "meminfo"
    return {"driver": driver(), "node": node, "huge_free": huge_free(node), "blocks": blocks_of(node), "zones": zones_of(node),
            "node_kib": meminfo(info) if info.exists() else {}, "total_kib": meminfo("/proc/meminfo")["MemTotal"],
            "size": int((BUS / "devices" / DEVICE / "size").read_text()),
            "block_bytes": int((MEMORY / "block_size_bytes").read_text(), 16)}


def blocks(wanted):
    """Asks every block of the node for a state; {block: 0 or errno}."""
    return {block["name"]: store(MEMORY / block["name"] / "state", wanted) for block in blocks_of(target_node())}


def use(mib, page=bytes(range(256)) * 16):
    """Fills memory of the node alone with a page, reads it back; how much of it the node lost meanwhile."""
    node = target_node()
    mask = ctypes.c_ulong(1 << node)
    if ctypes.CDLL(None, use_errno=True).syscall(SET_MEMPOLICY, MPOL_BIND, ctypes.byref(mask), 64):
        raise OSError(ctypes.get_errno(), "set_mempolicy")
    before = meminfo(NODES / f"node{node}" / "meminfo")["AnonPages"]
    with mmap.mmap(-1, mib << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        chunk = page * 256
        for offset in range(0, mib << 20, len(chunk)):
            memory[offset:offset + len(chunk)] = chunk
        intact = all(memory[o:o + len(chunk)] == chunk for o in range(0, mib << 20, len(chunk)))
        grown = meminfo(NODES / f"node{node}" / "meminfo")["AnonPages"] - before
    return {"intact": intact, "anon_kib": grown}


def memmap(on):
    return {"memmap": store(BUS / "devices" / DEVICE / "memmap_on_memory", on)}


def second():
    """Waits for the kernel to find the NVDIMM that was plugged in, and makes a DAX device of it."""
    subprocess.run(["udevadm", "wait", "--timeout=120", "--initialized=no", "/sys/bus/nd/devices/namespace1.0"], check=True)
    subprocess.run(["ndctl", "create-namespace", "-f", "-e", "namespace1.0", "-m", "devdax", "--map=mem"],
                   check=True, stdout=subprocess.DEVNULL)
    store(BUS / "drivers" / "device_dax" / "unbind", "dax1.0")
    return {"second": "dax1.0"}


def bind_plain(name):
    return {"bind": store(BUS / "drivers" / "kmem" / "new_id", name),
            "driver": (BUS / "devices" / name / "driver").resolve().name}


def bad(*pages):
    """From now on these pages of the device, and no others, count as bad for the next binding."""
    start = int((BUS / "devices" / DEVICE / "resource").read_text(), 16)
    ranges = (f"{start + int(page) * 4096 + 64:x}-{start + int(page) * 4096 + 127:x}" for page in pages)
    return {"bad": store(Path("/sys/module/kmem_persist_bad/parameters/ranges"), ",".join(ranges) + "\n")}


def use_in_child(*arguments):
    """Its memory policy must not become that of the server."""
    done = subprocess.run([sys.executable, __file__, "use", *arguments], stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def distances():
    """{node: its distances to the nodes that are online}"""
    return {int(d.parent.name[4:]): [int(n) for n in d.read_text().split()] for d in NODES.glob("node[0-9]*/distance")}


def tiers():
    """The nodes of each memory tier"""
    return [t.read_text().strip() for t in Path("/sys/devices/virtual/memory_tiering").glob("memory_tier*/nodelist")]


def errno_of(action, *arguments):
    """The errno with which it fails, or 0"""
    try:
        action(*arguments)
    except OSError as error:
        return errno.errorcode.get(error.errno, error.errno)
    return 0


def pages_of(path):
    """{page: digest} of all that can be read, a page at a time; what failed otherwise than by EIO; where
    the first hole is, and whether a file that can be read as a whole is the same when it is mapped"""
    found, other = {}, []
    with open(path, "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        pages = -(-size // 4096)
        for number in range(pages):
            try:
                found[number] = hashlib.sha256(os.pread(file.fileno(), 4096, number * 4096)).hexdigest()[:16]
            except OSError as error:
                if error.errno != errno.EIO:
                    other.append(errno.errorcode.get(error.errno, error.errno))
        if size and len(found) == pages:
            with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as memory:
                if memory[:] != file.read():
                    other.append("mapped")
        return {"pages": found, "other": other, "hole": os.lseek(file.fileno(), 0, os.SEEK_HOLE) if size else 0,
                "size": size}


def content():
    """What is in the pool that is mounted: {name: what can be read of it}, {name: of its attributes}"""
    files, attributes, directories, links = {}, {}, [], {}
    for directory, names, others in os.walk(POOL):
        for name in names + others:
            path = os.path.join(directory, name)
            short = os.path.relpath(path, POOL)
            if os.path.islink(path):
                try:
                    links[short] = os.readlink(path)
                except OSError as error:
                    links[short] = errno.errorcode.get(error.errno, error.errno)
            elif os.path.isdir(path):
                directories.append(short)
            else:
                files[short] = pages_of(path)
                attributes[short] = errno_of(os.getxattr, path, "user.large")
    return {"files": files, "attributes": attributes, "directories": sorted(directories), "links": links}


def verify_file(path):
    """[errno or 0, pages that are what their checksums say, pages without one, first bad page or None, and how
    many from there on are bad alike]"""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        argument = bytearray(VERIFY.pack(0, max(size, 1), 0, 0, 0, 0, 0))
        error = errno_of(fcntl.ioctl, file.fileno(), KMEMFS_IOC_VERIFY, argument)
        _, length, flags, done, checked, without, bad = VERIFY.unpack(argument)
        assert flags == bool(error), (path, argument.hex())
        assert (bad == (1 << 64) - 1) == (not error) and done == (bad if error else length), (path, argument.hex())
        return [error, checked, without, *((bad // 4096, length // 4096) if error else (None, None))]


def verify():
    """{name: verify_file()} of all files in the pool that is mounted"""
    return {os.path.relpath(os.path.join(directory, name), POOL): verify_file(os.path.join(directory, name))
            for directory, _, names in os.walk(POOL) for name in names
            if not os.path.islink(os.path.join(directory, name))}


def sums():
    """Makes all checksums"""
    root = os.open(POOL, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return {"sums": errno_of(fcntl.ioctl, root, KMEMFS_IOC_SUM)}
    finally:
        os.close(root)


def info_flags():
    """What the pool that is mounted says of itself"""
    root = os.open(POOL, os.O_RDONLY | os.O_DIRECTORY)
    try:
        info = bytearray(INFO_BYTES)
        fcntl.ioctl(root, KMEMFS_IOC_INFO, info)
        return struct.unpack_from("<I", info, INFO_FLAGS)[0]
    finally:
        os.close(root)


def writes():
    """How the pool that is mounted refuses to be changed"""
    root = os.open(POOL, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return {"upgrade": errno_of(fcntl.ioctl, root, KMEMFS_IOC_UPGRADE),
                "mkdir": errno_of(os.mkdir, f"{POOL}/new"),
                "create": errno_of(os.open, f"{POOL}/new", os.O_RDWR | os.O_CREAT),
                "chmod": errno_of(os.chmod, POOL, 0o777)}
    finally:
        os.close(root)


COMMANDS = {"verify": verify, "sums": sums, "content": content, "info_flags": info_flags, "writes": writes, "bind_in_race": bind_in_race, "distances": distances, "tiers": tiers, "second": second,
            "bind_plain": bind_plain, "create": create, "offset": offset, "bind": bind,
            "unbind": unbind, "state": state, "blocks": blocks, "use": lambda mib, *page: use(int(mib), *map(bytes.fromhex, page)), "memmap": memmap, "bad": bad}


def serve():
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        command = use_in_child if name == "use" else COMMANDS[name]
        print(json.dumps(command(*arguments)), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve()
    else:
        print(json.dumps(COMMANDS[sys.argv[1]](*sys.argv[2:])))
