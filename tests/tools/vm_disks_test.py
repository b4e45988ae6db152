# SPDX-License-Identifier: Apache-2.0
"""deploy/vm/up: a machine keeps its disks, whatever becomes of the image they were made from."""

import importlib.machinery
import importlib.util
import shutil
import sys
import tempfile
import types
import unittest
from pathlib import Path

VM = Path(__file__).resolve().parent.parent.parent / "deploy" / "vm"
sys.path.insert(0, str(VM))
sys.dont_write_bytecode = True


def load_up():
    loader = importlib.machinery.SourceFileLoader("up", str(VM / "up"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("up", loader))
    loader.exec_module(module)
    return module


class Disks(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.top = Path(directory.name)
        self.state = self.top / "vm"
        self.state.mkdir()
        self.up = load_up()
        self.built = 0
        self.up.build = lambda *command: self.build()
        self.cached = None

    def build(self):
        """What deploy/vm/rootfs does when the cache has no image."""
        self.built += 1
        self.cached = self.top / f"rootfs-{self.built}"
        self.cached.mkdir()
        for name in ("id_ed25519", "known_hosts", "root.img"):
            (self.cached / name).write_text(f"{name} {self.built}")
        (self.cached / "id_ed25519").chmod(0o600)
        return self.cached / "root.img"

    def make(self, fresh=False):
        self.up.make_disks(self.state, types.SimpleNamespace(fresh=fresh, memory="nvdimm", nvdimm=1 << 20))

    def text(self, name):
        return (self.state / name).read_text()

    def test_machine_outlives_the_image_it_was_made_from(self):
        self.make()
        (self.state / "root.img").write_text("written by the guest")
        shutil.rmtree(self.cached)
        self.make()
        self.assertEqual(self.text("root.img"), "written by the guest")
        self.assertEqual(self.text("id_ed25519"), "id_ed25519 1")
        self.assertEqual((self.state / "id_ed25519").stat().st_mode & 0o777, 0o600)
        self.assertEqual(self.built, 1)

    def test_machine_without_keys_of_its_own_gets_them(self):
        (self.state / "root.img").write_text("written by the guest")
        (self.state / "rootfs").write_text(str(self.build()))
        self.make()
        self.assertEqual(self.text("root.img"), "written by the guest")
        shutil.rmtree(self.cached)
        self.make()
        self.assertEqual(self.text("root.img"), "written by the guest")
        self.assertEqual(self.text("known_hosts"), "known_hosts 1")

    def test_machine_whose_keys_are_gone_is_refused_and_kept(self):
        (self.state / "root.img").write_text("written by the guest")
        (self.state / "rootfs").write_text(str(self.build()))
        shutil.rmtree(self.cached)
        with self.assertRaisesRegex(self.up.VmError, "is gone.*--fresh"):
            self.make()
        self.assertEqual(self.text("root.img"), "written by the guest")
        self.make(fresh=True)
        self.assertEqual(self.text("root.img"), "root.img 2")
        self.assertEqual(self.text("id_ed25519"), "id_ed25519 2")

    def test_disk_that_has_lost_a_key_is_refused_and_kept(self):
        self.make()
        (self.state / "root.img").write_text("written by the guest")
        (self.state / "id_ed25519").unlink()
        with self.assertRaisesRegex(self.up.VmError, "--fresh"):
            self.make()
        self.assertEqual(self.text("root.img"), "written by the guest")

    def test_disk_that_was_removed_is_made_anew(self):
        """With or without what an older `up` noted"""
        for note in (None, "note"):
            self.make(fresh=True)
            (self.state / "root.img").unlink()
            if note:
                (self.state / "rootfs").write_text(str(self.cached / "root.img"))
            self.make()
            self.assertEqual(self.text("root.img"), f"root.img {self.built}")
            self.assertEqual(self.text("id_ed25519"), f"id_ed25519 {self.built}")

    def test_half_a_disk_is_none(self):
        """The copying was interrupted."""
        (self.state / "root.img.new").write_text("half")
        self.make()
        self.assertEqual(self.text("root.img"), "root.img 1")

    def test_fresh_makes_all_anew(self):
        self.make()
        (self.state / "nv.img").write_text("stored")
        self.make(fresh=True)
        self.assertEqual(self.text("root.img"), "root.img 2")
        self.assertEqual(self.text("id_ed25519"), "id_ed25519 2")
        self.assertNotIn("stored", self.text("nv.img")[:6])


if __name__ == "__main__":
    unittest.main()
