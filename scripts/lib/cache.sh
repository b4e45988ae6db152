# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# The build cache: $DAXSNAP_CACHE/<kind>-<hash of the inputs>, complete or absent.
# Source it after common.sh.
#
# An entry is built in <entry>.tmp.<pid> and renamed when it is complete, so that
# a half-written one is never used. A lock per kind keeps two builders of the
# same thing from doing the work twice.

DAXSNAP_CACHE=${DAXSNAP_CACHE:-/var/cache/daxsnap}
export DAXSNAP_CACHE
mkdir -p "$DAXSNAP_CACHE"

# cache_hash PATH|=TEXT...: 16 hex digits over the names and contents of files,
# of all files below directories, and of literal texts (marked by "=").
# Paths below the repository count by their relative name.
cache_hash() {
  local arg
  for arg in "$@"; do
    case $arg in
      =*) printf 'text %s\n' "${arg#=}" ;;
      *) if [[ -d $arg ]]; then
           (cd "$arg" && echo "dir ${arg#"$DAXSNAP_ROOT"/}" &&
             find . \( -type f -o -type l \) -print0 | LC_ALL=C sort -z |
             xargs -0r sha256sum)
         else
           [[ -f $arg ]] || { say "no $arg to hash"; exit 1; }
           echo "file ${arg#"$DAXSNAP_ROOT"/} $(sha256sum <"$arg")"
         fi ;;
    esac
  done | sha256sum | cut -c1-16
}

# cache_lock KIND: one holder at a time, until the script ends.
cache_lock() {
  exec {CACHE_LOCK_FD}>"$DAXSNAP_CACHE/.lock-$1"
  if ! flock -n "$CACHE_LOCK_FD"; then
    say "waiting for another build of $1"
    flock "$CACHE_LOCK_FD"
  fi
}

# cache_discard PATH...: away at once; the deleting, seconds for a kernel tree, goes on
# behind the caller's back, and holds neither its lock nor its pipes.
cache_discard() {
  local bin
  bin=$(mktemp -d "$DAXSNAP_CACHE/.trash.XXXXXX")
  mv -t "$bin" "$@"
  (
    [[ -z ${CACHE_LOCK_FD-} ]] || exec {CACHE_LOCK_FD}>&-
    # With what a crash of the machine left over.
    find "$DAXSNAP_CACHE" -maxdepth 1 -name '.trash.*' -mmin +60 -exec rm -rf {} +
    rm -rf "$bin"
  ) </dev/null >/dev/null 2>&1 &
  disown
}

# cache_begin ENTRY: prints a fresh directory to build ENTRY in, and removes what
# dead builders of whatever entry left behind.
cache_begin() {
  local old
  for old in "$DAXSNAP_CACHE"/*.tmp.*; do
    [[ -d $old ]] || continue
    [[ -d /proc/${old##*.} && $old != "$1.tmp.$$" ]] || cache_discard "$old"
  done
  mkdir -p "$1.tmp.$$"
  echo "$1.tmp.$$"
}

# cache_finish ENTRY: makes what cache_begin gave the entry itself. File by file: syncing the
# whole disk would write out the tree that was just discarded.
cache_finish() {
  find "$1.tmp.$$" -type f -print0 | xargs -0r sync
  sync "$1.tmp.$$"
  mv -T "$1.tmp.$$" "$1"
}

# cache_trim KIND KEEP: keeps the KEEP entries of KIND that were used last.
# A finished entry is marked as used with cache_use.
cache_trim() {
  local entries entry
  mapfile -t entries < <(find "$DAXSNAP_CACHE" -maxdepth 1 -type d \
    -regextype posix-extended -regex ".*/$1-[0-9a-f]{16}" -printf '%T@ %p\n' |
    sort -rn | tail -n "+$(($2 + 1))" | cut -d' ' -f2-)
  for entry in "${entries[@]}"; do
    say "dropping the old cache entry ${entry##*/}"
    cache_discard "$entry"
  done
}

cache_use() { touch "$1"; }
