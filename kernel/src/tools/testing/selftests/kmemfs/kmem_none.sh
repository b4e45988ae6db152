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

check() {
	if [ "$1" = 0 ]; then
		echo "ok: $2"
	else
		echo "FAIL: $2"
		failed=1
	fi
}

# meminfo FIELD: of the node, in KiB
meminfo() {
	sed -n "s/.* $1: *\([0-9]*\) kB/\1/p" "$node/meminfo"
}

[ "$(basename "$(readlink "$device/driver")")" = kmem ]
check $? "the device is bound to kmem"

blocks=0
others=0
for block in "$node"/memory[0-9]*; do
	blocks=$((blocks + 1))
	[ "$(cat "$block/state") $(cat "$block/valid_zones")" = "online Movable" ] ||
		others=$((others + 1))
done
[ "$blocks" -gt 0 ] && [ "$others" = 0 ]
check $? "its blocks are online and movable ($blocks, $others not)"

block_kib=$((0x$(cat /sys/devices/system/memory/block_size_bytes) / 1024))
[ "$(meminfo MemTotal)" = $((blocks * block_kib)) ]
check $? "all of it is counted ($(meminfo MemTotal) KiB)"

# The rest may be on lists of CPUs, or in use already.
[ "$(meminfo MemFree)" -gt $((blocks * block_kib * 9 / 10)) ]
check $? "and free ($(meminfo MemFree) KiB)"
exit $failed
