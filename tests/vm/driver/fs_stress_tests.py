# SPDX-License-Identifier: Apache-2.0
"""kmemfs under random and concurrent use: our fs_exerciser in the place of fsx, and
stress-ng's filesystem stressors in that of fsstress. tests/README.md says why, what
runs, and what does not apply. DAXSNAP_FS_STRESS_SECONDS makes longer runs by hand.
"""

import os

from machine import POOL, PREFIX, expect
from registry import test

SECONDS = int(os.environ.get("DAXSNAP_FS_STRESS_SECONDS", "0"))

# Operations that kmemfs must not refuse.
OPERATIONS = ("allocate append capture clone clone-range copy-file-range fsync map-read map-write "
              "punch-hole read reopen seek truncate write zero-range").split()

# What is left out, and why, stands in tests/README.md.
STRESSORS = ("access aio chdir chmod chown copy-file dentry dir dirdeep fallocate fcntl file-ioctl "
             "flock fpunch fsize fstat getdent hdd inotify io iomix lease link locka lockf lockofd mmap "
             "msync open readahead rename revio seek sendfile symlink sync-file touch utime xattr").split()


@test("FsStress.RandomOperationsMatchTheModel", timeout=600)
def random_operations(machine):
    machine.ensure_pool()
    runs = [["1", "5000", str(SECONDS)]] if SECONDS else [[str(seed), "1500"] for seed in (1, 2, 3, 4)]
    for arguments in runs:
        line = machine.run(f"{PREFIX}/tests/vm/fs_exerciser", POOL, *arguments, timeout=SECONDS + 600).stdout
        print(line, end="")
        words = line.split()
        missing = [o for o in OPERATIONS if o not in words]
        expect(not missing, f"never done: {missing} in: {line}")


@test("FsStress.StressNgFindsNothing", timeout=900)
def stress_ng(machine):
    machine.ensure_pool()
    before = machine.sh(f"df --output=used {POOL} | tail -n 1")
    counts = [word for name in STRESSORS for word in (f"--{name}", "2")]
    limits = ["--dentries", "512", "--dirdeep-inodes", "256", "--fallocate-bytes", "8m", "--iomix-bytes", "8m",
              "--copy-file-bytes", "128m", "--hdd-bytes", "8m", "--readahead-bytes", "4m", "--revio-bytes", "8m",
              "--msync-bytes", "4m", "--sendfile-size", "4m",
              "--seek-size", "4m", "--sync-file-bytes", "4m", "--mmap-bytes", "4m",
              "--chdir-dirs", "256", "--dir-dirs", "256"]
    done = machine.run("stress-ng", "--temp-path", POOL, "--verify", "--timeout", f"{SECONDS or 20}s", "--metrics-brief",
                       *counts, *limits, check=False, timeout=SECONDS + 600)
    text = done.stdout + done.stderr
    expect(done.returncode == 0 and "successful run completed" in text, f"stress-ng: exit {done.returncode}\n{text}")
    expect("skip" not in text.replace("skipped: 0", ""), f"stress-ng left something out:\n{text}")
    machine.sh(f"sync -f {POOL}")
    after = machine.sh(f"df --output=used {POOL} | tail -n 1")
    expect(int(after) - int(before) < 64 << 10, f"used {before} KiB before, {after} KiB after: it leaves things behind")
