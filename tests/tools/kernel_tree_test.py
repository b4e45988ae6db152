# SPDX-License-Identifier: Apache-2.0
"""kernel/config/sync-tree and kernel/config/check."""

import subprocess
import tempfile
import unittest
from pathlib import Path

CONFIG = Path(__file__).resolve().parent.parent.parent / "kernel" / "config"

PATCH = """--- a/mm/one.c
+++ b/mm/one.c
@@ -1,3 +1,3 @@
 first
-second
+{word}
 third
"""


class SyncTree(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        base = Path(directory.name)
        self.tree, self.patches, self.src = base / "tree", base / "patches", base / "src"
        for path in (self.tree / "mm", self.patches, self.src / "mm"):
            path.mkdir(parents=True)
        self.one = self.tree / "mm" / "one.c"
        self.one.write_text("first\nsecond\nthird\n")

    def sync(self):
        return subprocess.run([CONFIG / "sync-tree", self.tree, self.patches, self.src],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def patch(self, word):
        (self.patches / "0001.patch").write_text(PATCH.format(word=word))

    def test_applies_changes_and_takes_them_back(self):
        for word in ("2", "two"):
            self.patch(word)
            self.assertEqual(self.sync().returncode, 0)
            self.assertEqual(self.one.read_text(), f"first\n{word}\nthird\n")
        (self.patches / "0001.patch").unlink()
        self.assertEqual(self.sync().returncode, 0)
        self.assertEqual(self.one.read_text(), "first\nsecond\nthird\n")

    def test_touches_nothing_that_did_not_change(self):
        self.patch("2")
        (self.src / "mm" / "new.c").write_text("new\n")
        self.sync()
        before = [p.stat().st_mtime_ns for p in (self.one, self.tree / "mm" / "new.c")]
        self.assertEqual(self.sync().stdout, "")
        self.assertEqual(before, [p.stat().st_mtime_ns for p in (self.one, self.tree / "mm" / "new.c")])

    def test_patch_that_fails_leaves_the_tree_as_it_was(self):
        self.patch("2")
        self.sync()
        (self.patches / "0002.patch").write_text(PATCH.format(word="3"))
        done = self.sync()
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("0002.patch", done.stdout)
        self.assertEqual(self.one.read_text(), "first\n2\nthird\n")

    def test_removes_our_file_when_it_goes(self):
        new = self.src / "mm" / "new.c"
        new.write_text("new\n")
        self.sync()
        new.unlink()
        self.sync()
        self.assertFalse((self.tree / "mm" / "new.c").exists())

    def test_refuses_to_replace_an_upstream_file(self):
        (self.src / "mm" / "one.c").write_text("ours\n")
        done = self.sync()
        self.assertNotEqual(done.returncode, 0)
        self.assertEqual(self.one.read_text(), "first\nsecond\nthird\n")


class Check(unittest.TestCase):
    def check(self, fragment, config):
        with tempfile.TemporaryDirectory() as directory:
            tree = Path(directory)
            for path in ("mm", "fs", "drivers/dax"):
                (tree / path).mkdir(parents=True)
            (tree / ".config").write_text(config)
            (tree / "fragment").write_text(fragment)
            return subprocess.run([CONFIG / "check", tree, tree / "fragment"], stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, text=True)

    def test_accepts_what_took_effect(self):
        done = self.check('CONFIG_A=y\nCONFIG_S="x"\n# CONFIG_B is not set\n', 'CONFIG_A=y\nCONFIG_S="x"\n')
        self.assertEqual(done.returncode, 0, done.stdout)

    def test_names_what_did_not(self):
        done = self.check("CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_N=4\n", "CONFIG_B=y\nCONFIG_N=8\n")
        self.assertEqual(done.returncode, 1)
        for name in ("A=y", "B=n", "N=4"):
            self.assertIn(name, done.stdout)


if __name__ == "__main__":
    unittest.main()
