# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# Messages with times, for every script. Source it; needs `set -euo pipefail`.

DAXSNAP_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
export DAXSNAP_ROOT

# say TEXT...: progress on stderr, with the seconds since the script began.
say() { printf '[%4ds] %s: %s\n' "$SECONDS" "${0##*/}" "$*" >&2; }

# die TEXT...: says why and ends the script with status 1.
die() {
  say "error: $*"
  exit 1
}

# timed NAME CMD...: runs CMD with its output on stderr, and says how long it took.
# Never call it in a condition: bash then ignores `set -e` inside CMD.
timed() {
  local name=$1 begin=$SECONDS
  shift
  DAXSNAP_STEP=$name
  say "$name ..."
  "$@" >&2
  say "$name: $((SECONDS - begin)) s"
  DAXSNAP_STEP=
}
DAXSNAP_STEP=
set -E
trap 'say "error: ${DAXSNAP_STEP:+$DAXSNAP_STEP: }line $LINENO: $BASH_COMMAND"' ERR

# need PROGRAM...: the missing programs, if any, end the script.
need() {
  local program missing=()
  for program in "$@"; do
    command -v "$program" >/dev/null || missing+=("$program")
  done
  ((${#missing[@]} == 0)) || die "missing: ${missing[*]}; run scripts/setup first"
}
