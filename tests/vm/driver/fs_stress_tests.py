# SPDX-License-Identifier: Apache-2.0
"""kmemfs under random and concurrent use: our fs_exerciser, which is to be run like
fsx, and stress-ng's filesystem stressors in the place of fsstress. Longer runs by hand:

  deploy/vm/run /opt/daxsnap/tests/vm/fs_exerciser /run/daxsnap/pool 1 5000 3600
  deploy/vm/run stress-ng --temp-path /run/daxsnap/pool --verify --sequential 2 \\
      --class filesystem --timeout 60s
"""

from machine import POOL, PREFIX, expect
from registry import test

# Operations that kmemfs must not refuse.
OPERATIONS = ("allocate append capture clone clone-range copy-file-range fsync map-read map-write "
              "punch-hole read reopen seek truncate write zero-range").split()

# Not here: stressors for what kmemfs refuses on purpose (hard links, xattrs, special files),
# and those that fill the filesystem, which is the guest's memory.
STRESSORS = ("access chdir chmod dentry dir dirdeep fallocate fcntl file-ioctl fpunch fstat "
             "getdent inotify iomix lease locka lockf mmap rename seek symlink sync-file touch "
             "utime").split()


@test("FsStress.RandomOperationsMatchTheModel", timeout=600)
def random_operations(machine):
    machine.ensure_pool()
    for seed in (1, 2, 3, 4):
        line = machine.run(f"{PREFIX}/tests/vm/fs_exerciser", POOL, str(seed), "1500").stdout
        words = line.split()
        missing = [o for o in OPERATIONS if o not in words]
        expect(not missing, f"never done: {missing} in: {line}")


@test("FsStress.StressNgFindsNothing", timeout=900)
def stress_ng(machine):
    machine.ensure_pool()
    before = machine.sh(f"df --output=used {POOL} | tail -n 1")
    counts = [word for name in STRESSORS for word in (f"--{name}", "2")]
    limits = ["--dentries", "512", "--dirdeep-inodes", "256", "--fallocate-bytes", "8m", "--iomix-bytes", "8m",
              "--seek-size", "4m", "--sync-file-bytes", "4m", "--mmap-bytes", "4m",
              "--chdir-dirs", "256", "--dir-dirs", "256"]
    done = machine.run("stress-ng", "--temp-path", POOL, "--verify", "--timeout", "20s", "--metrics-brief",
                       *counts, *limits, check=False)
    text = done.stdout + done.stderr
    expect(done.returncode == 0 and "successful run completed" in text, f"stress-ng: exit {done.returncode}\n{text}")
    expect("skip" not in text.replace("skipped: 0", ""), f"stress-ng left something out:\n{text}")
    machine.sh(f"sync -f {POOL}")
    after = machine.sh(f"df --output=used {POOL} | tail -n 1")
    expect(int(after) - int(before) < 64 << 10, f"used {before} KiB before, {after} KiB after: it leaves things behind")
