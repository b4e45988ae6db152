#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A KMEM device of type NONE: all of its memory is online in ZONE_MOVABLE, counted
# and free. $KMEM_NONE names a DAX device of this type that is bound to kmem, such
# as dax0.0; without it there is nothing to test.
ksft_skip=4

device=/sys/bus/dax/devices/$KMEM_NONE
if [ -z "$KMEM_NONE" ] || [ ! -e "$device/target_node" ]; then
	echo "KMEM_NONE names no DAX device"
	exit $ksft_skip
fi
node=/sys/devices/system/node/node$(cat "$device/target_node")
failed=0

# check WHAT COMMAND...: it holds if the command succeeds
check() {
	what=$1
	shift
	if "$@"; then
		echo "ok: $what"
	else
		echo "FAIL: $what"
		failed=1
	fi
}

# meminfo FIELD: of the node, in KiB
meminfo() {
	sed -n "s/.* $1: *\([0-9]*\) kB/\1/p" "$node/meminfo"
}

check "the device is bound to kmem" \
	[ "$(basename "$(readlink "$device/driver")")" = kmem ]

blocks=0
others=0
for block in "$node"/memory[0-9]*; do
	blocks=$((blocks + 1))
	[ "$(cat "$block/state") $(cat "$block/valid_zones")" = "online Movable" ] ||
		others=$((others + 1))
done
check "it has memory blocks ($blocks)" [ "$blocks" -gt 0 ]
check "all are online and movable ($others are not)" [ "$others" = 0 ]

block_kib=$((0x$(cat /sys/devices/system/memory/block_size_bytes) / 1024))
check "all of it is counted ($(meminfo MemTotal) KiB)" \
	[ "$(meminfo MemTotal)" = $((blocks * block_kib)) ]

# The rest may be on lists of CPUs, or in use already.
check "and free ($(meminfo MemFree) KiB)" \
	[ "$(meminfo MemFree)" -gt $((blocks * block_kib * 9 / 10)) ]
exit $failed
