# SPDX-License-Identifier: Apache-2.0
"""snapctl pool: what is stored is never lost by a command, and a mistake is told."""

import json

from error_tests import NOT_FOUND, REFUSED, refused
from machine import POOL, expect
from registry import test


@test("Pool.DetachAndAttachKeepWhatIsStored", timeout=300)
def detach_attach(machine):
    machine.ensure_pool()
    machine.stop_snapd()
    machine.sh(f"head -c 3M /dev/urandom >{POOL}/stored; sha256sum <{POOL}/stored >/run/stored.sum")
    before = machine.snapctl_json("pool", "show")
    expect(before["label"] == "daxsnap-test", f"pool show: {before}")
    user = machine.start("sh", "-c", f"cd {POOL} && echo in && exec sleep 300")
    try:
        expect(user.stdout.readline() == "in\n", "nobody could enter the pool")
        refused(machine, REFUSED, "", "pool", "detach", text="is in use")
    finally:
        machine.sh(f"kill $(fuser -m {POOL} 2>/dev/null)")
        user.communicate(timeout=60)
    # As a shell completes it.
    machine.snapctl("pool", "detach", f"{POOL}/")
    expect(machine.run("mountpoint", "-q", POOL, check=False).returncode != 0, "it is still mounted")
    refused(machine, REFUSED, "", "pool", "create", "dax0.0")
    refused(machine, NOT_FOUND, "", "pool", "attach", "daxsnap-tes", text="(daxsnap-test, ")
    # By each of its names.
    for name, was_attached in ((before["uuid"].upper(), False), ("daxsnap-test", True), ("dax0.0", True)):
        answer = machine.snapctl_json("pool", "attach", name, "--mount-point", f"{POOL}/")
        expect((answer["device"], answer["was_attached"]) == ("dax0.0", was_attached), f"{answer}")
    shown = machine.snapctl_json("pool", "show", "daxsnap-test")
    expect(shown["header"]["uuid"] == before["uuid"], f"pool show: {shown}")
    machine.sh(f"sha256sum <{POOL}/stored | cmp - /run/stored.sum")
    after = machine.snapctl_json("pool", "show")
    expect(after["uuid"] == before["uuid"], f"another pool: {json.dumps(after)}")
    machine.sh(f"rm {POOL}/stored; sync -f {POOL}")
