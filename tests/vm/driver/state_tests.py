# SPDX-License-Identifier: Apache-2.0
"""What the kernel keeps of tasks besides their memory, one kind at a time (tests/states)."""

from error_tests import REFUSED, refused
from machine import PREFIX, WORK, expect
from registry import test

STATES = f"{PREFIX}/tests/states"
# Kind of state: reason and text of the refusal.
NEVER_TAKEN = {"mqueue": ("TASK_UNSUPPORTED", "message queue"),
               "deadline": ("CRIU_FAILED", "policy 6")}
# A program of each kind in the guest, as ssh costs more than all it does.
FUNCTIONS = f"""
begin() {{  # KIND: sets name, dir and pid
  name=state-$1 dir={WORK}/state-$1 pid=0
  snapctl rm $name >/dev/null 2>&1 || true
  rm -rf $dir && mkdir -p $dir &&
    pid=$(snapctl run -q --name $name -- {STATES} $1 $dir) && await ready
}}
await() {{  # FILE: until it is there, or the program is gone
  for _ in $(seq 600); do
    [ -e $dir/$1 ] && return
    [ -d /proc/$pid ] || break
    sleep 0.1
  done
  echo "no $1 from $name"
  return 1
}}
verdict() {{ touch $dir/go && await verdict && cat $dir/verdict; }}
end() {{
  [ $pid = 0 ] || pkill -9 -s $pid || true
  while [ $pid != 0 ] && pgrep -s $pid >/dev/null; do sleep 0.1; done
  snapctl rm $name >/dev/null 2>&1 || true
  rm -rf $dir
}}
"""


@test("States.OfEveryKindComeBack", timeout=1200)
def come_back(machine):
    """All kinds; the failure says of each that is not as it was what is wrong."""
    machine.ensure_snapd()
    kinds = [kind for kind in machine.sh(STATES).split() if kind not in NEVER_TAKEN]
    said = machine.sh(FUNCTIONS + f"""
        set +e
        exec 2>&1
        for kind in {" ".join(kinds)}; do
          echo -n "$kind: "
          begin $kind && snapctl checkpoint $pid --name $name >/dev/null &&
            snapctl restore $name >/dev/null && verdict
          echo
          end
        done""")
    print(said)
    expect(said.splitlines() == [f"{kind}: ok" for kind in kinds], said)


@test("States.ThatCannotComeBackAreRefused", timeout=300)
def refused_by_name(machine):
    machine.ensure_snapd()
    for kind, (reason, text) in NEVER_TAKEN.items():
        pid = machine.sh(FUNCTIONS + f"begin {kind} && echo $pid")
        try:
            error = refused(machine, REFUSED, reason, "checkpoint", pid, "--name", f"state-{kind}")
            expect(text in error["message"], f"{kind}: {text} is not in the message: {error}")
            said = machine.sh(FUNCTIONS + f"pid={pid} name=state-{kind} dir={WORK}/state-{kind}; verdict")
            expect(said == "ok", f"after the refusal: {kind}: {said}")
        finally:
            machine.sh(FUNCTIONS + f"pid={pid} name=state-{kind} dir={WORK}/state-{kind}; end")
