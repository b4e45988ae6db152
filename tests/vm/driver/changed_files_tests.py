# SPDX-License-Identifier: Apache-2.0
"""Tasks do not go on with memory that is older than their files, unless one says so."""

from error_tests import REFUSED, refused
from machine import WORK, expect, wait_until
from registry import test

# A database in small: counts in memory, and writes the number over the one before, by pwrite(2) or through a mapping;
# says how far it is.
COUNTER = """
import mmap, os, sys, time
path, how = sys.argv[1:]
fd = os.open(path, os.O_RDWR)
view = mmap.mmap(fd, 4096) if how == "map" else None
count = 0
while True:
    count += 1
    if how == "map":
        view[:8] = count.to_bytes(8, "little")
    else:
        os.pwrite(fd, count.to_bytes(8, "little"), 0)
    print(count, flush=True)
    time.sleep(0.05)
"""


class Counter:
    def __init__(self, machine, how):
        self.machine, self.path = machine, f"{WORK}/counter-{how}"
        machine.ensure_snapd()
        machine.sh(f"head -c 4096 /dev/zero >{self.path}")
        self.pid = str(machine.snapctl_json("run", "--name", f"counter-{how}", "--", "python3", "-c", COUNTER,
                                            self.path, how)["pid"])
        self.advance()

    def count(self):
        return int(self.machine.sh(f"od -An -tu8 -N8 {self.path}"))

    def advance(self):
        """Waits until it has gone on; from where to where."""
        start = self.count()
        wait_until(lambda: self.count() > start + 2, f"{self.path} going on from {start}")
        return start

    def checkpoint(self, name, *options):
        self.machine.run("snapctl", "rm", name, check=False)
        self.machine.snapctl("checkpoint", self.pid, "--name", name, *options)

    def log(self):
        """What it has said, on and on; each start has a log of its own."""
        return self.machine.sh(f"ls -t /var/log/daxsnap/{self.path.rsplit('/', 1)[1]}-*.log | head -n 1")

    def kill(self):
        self.machine.kill_session(self.pid)

    def refused(self, name):
        error = refused(self.machine, REFUSED, "FILE_CHANGED", "restore", name, text=self.path)
        expect(error["metadata"]["path"] == self.path, f"{error}")
        expect("--files=accept" in error["hint"], f"the hint does not say how to go on: {error}")
        # Refused before CRIU was asked.
        expect("criu_log" not in error["metadata"], f"{error}")
        expect(self.machine.run("test", "-d", f"/proc/{self.pid}", check=False).returncode, "a task was started")


def older_over_newer(machine, how):
    counter = Counter(machine, how)
    old, new = f"counter-{how}-old", f"counter-{how}-new"
    counter.checkpoint(old, "--leave-running")
    counter.advance()
    counter.checkpoint(new)
    stopped = counter.count()
    # What it wrote after the first snapshot is newer than that one's memory.
    counter.refused(old)
    expect(counter.count() == stopped, "the file was written")
    # Nothing was written after the second.
    machine.snapctl("restore", new)
    counter.advance()
    counter.kill()
    counter.refused(new)
    counter.refused(old)
    counted = f"awk '$1 < last {{ found = 1 }} {{ last = $1 }} END {{ print found + 0 }}' {counter.log()}"
    expect(machine.sh(counted) == "0", "it has counted backwards")
    machine.snapctl("restore", "--files=accept", old)
    counter.advance()
    expect(machine.sh(counted) == "1", "it does not go on from the old count")
    counter.kill()
    machine.snapctl("rm", old, new)


@test("ChangedFiles.OlderSnapshotOverNewerDataIsRefusedUnlessAccepted", timeout=400)
def older_over_newer_written(machine):
    older_over_newer(machine, "write")


@test("ChangedFiles.OlderSnapshotOverNewerMappedDataIsRefusedUnlessAccepted", timeout=400)
def older_over_newer_mapped(machine):
    older_over_newer(machine, "map")


@test("ChangedFiles.UnchangedSinceTheSnapshotGoOnAfterAPowerCut", timeout=600)
def unchanged(machine):
    counters = [Counter(machine, how) for how in ("write", "map")]
    counts = []
    for counter in counters:
        counter.checkpoint(f"{counter.path.rsplit('/', 1)[1]}-cut")
        counts.append(counter.count())
    # Nobody syncs but snapd.
    machine.power_cycle()
    machine.ensure_snapd()
    for counter, count in zip(counters, counts):
        expect(counter.count() == count, f"{counter.path} was {count}, is {counter.count()}")
        name = f"{counter.path.rsplit('/', 1)[1]}-cut"
        machine.snapctl("restore", name)
        counter.advance()
        counter.kill()
        machine.snapctl("rm", name)


@test("ChangedFiles.OtherSizesAreRefusedWhateverIsAsked", timeout=300)
def other_size(machine):
    """CRIU does not take them: said before it is asked. A log that has grown is taken."""
    counter = Counter(machine, "write")
    name = "counter-size"
    counter.checkpoint(name)
    machine.sh(f"echo more >>{counter.log()}; cp -p {counter.path} {counter.path}.then; echo more >>{counter.path}")
    for options in ((), ("--files=accept",)):
        error = refused(machine, REFUSED, "FILE_CHANGED", "restore", name, *options, text="has 4101 bytes")
        expect("accept" not in error["hint"], f"the hint offers what does not go: {error}")
    # Put back with its time, as the hint says.
    machine.sh(f"mv {counter.path}.then {counter.path}")
    machine.snapctl("restore", name)
    counter.advance()
    counter.kill()
    machine.snapctl("rm", name)
