# SPDX-License-Identifier: Apache-2.0
"""The build cache: an entry is complete or it is not there."""

import os
import subprocess
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


class Cache(unittest.TestCase):
    def setUp(self):
        self.directory = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self.addCleanup(self.directory.cleanup)
        self.path = Path(self.directory.name)

    def bash(self, script):
        environment = dict(os.environ, DAXSNAP_CACHE=str(self.path / "cache"))
        return subprocess.run(
            ["bash", "-c", f"set -euo pipefail; source {ROOT}/scripts/lib/common.sh; "
                           f"source {ROOT}/scripts/lib/cache.sh; cd {self.path}; {script}"],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def entries(self):
        return sorted(p.name for p in (self.path / "cache").iterdir() if not p.name.startswith("."))

    def test_builder_that_dies_leaves_no_entry(self):
        done = self.bash('new=$(cache_begin "$DAXSNAP_CACHE/thing-1"); echo half >"$new/file"; kill -9 $$')
        self.assertNotEqual(done.returncode, 0)
        self.assertEqual([n for n in self.entries() if ".tmp." not in n], [])

    def test_left_over_of_a_dead_builder_is_removed_by_the_next(self):
        self.bash('new=$(cache_begin "$DAXSNAP_CACHE/thing-1"); kill -9 $$')
        done = self.bash('e=$DAXSNAP_CACHE/thing-1; new=$(cache_begin "$e"); echo all >"$new/file"; cache_finish "$e"')
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.entries(), ["thing-1"])

    def test_left_over_of_another_entry_is_removed_and_a_living_builders_is_not(self):
        self.bash('new=$(cache_begin "$DAXSNAP_CACHE/thing-1"); kill -9 $$')
        (self.path / "cache" / f"thing-3.tmp.{os.getpid()}").mkdir()
        done = self.bash('new=$(cache_begin "$DAXSNAP_CACHE/other-2"); cache_finish "$DAXSNAP_CACHE/other-2"')
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.entries(), ["other-2", f"thing-3.tmp.{os.getpid()}"])

    def test_discarding_waits_for_nothing_and_holds_no_lock(self):
        done = self.bash('mkdir big; touch big/file; mkfifo gate; rm() { read -r <gate; command rm "$@"; }; '
                         'cache_lock kind; cache_discard big; [[ ! -e big ]]; '
                         'exec {CACHE_LOCK_FD}>&-; flock -w 10 "$DAXSNAP_CACHE/.lock-kind" true; echo free; '
                         'echo go >gate')
        self.assertEqual((done.returncode, done.stdout), (0, "free\n"), done.stderr)

    def test_hash_depends_on_names_and_contents(self):
        (self.path / "d").mkdir()
        seen = set()
        for name, content in (("a", "1"), ("a", "2"), ("b", "2")):
            for old in (self.path / "d").iterdir():
                old.unlink()
            (self.path / "d" / name).write_text(content)
            seen.add(self.bash("cache_hash d").stdout)
        seen.add(self.bash("cache_hash d =more").stdout)
        self.assertEqual(len(seen), 4)
        self.assertTrue(all(len(h.strip()) == 16 for h in seen), seen)

    def test_hash_fails_on_a_missing_input(self):
        self.assertNotEqual(self.bash("cache_hash nowhere").returncode, 0)

    def test_trim_keeps_those_used_last(self):
        script = "; ".join(f'mkdir "$DAXSNAP_CACHE/thing-{i:016x}"; touch -d @{i} "$DAXSNAP_CACHE/thing-{i:016x}"'
                           for i in range(1, 5))
        done = self.bash(f'{script}; cache_use "$DAXSNAP_CACHE/thing-{1:016x}"; cache_trim thing 2')
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.entries(), [f"thing-{1:016x}", f"thing-{4:016x}"])

    def test_failing_step_ends_the_script(self):
        done = self.bash("step() { false; echo went-on; }; timed step step; echo after")
        self.assertNotEqual(done.returncode, 0)
        self.assertNotIn("went-on", done.stdout + done.stderr.replace("echo went-on", ""))
        self.assertNotIn("after", done.stdout)


if __name__ == "__main__":
    unittest.main()
