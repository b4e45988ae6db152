#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# The block device of a KMEM node: what is written is read, what is discarded is
# zero and free memory again. $KMEM_BLK names a device that may be overwritten;
# without it there is nothing to test.
ksft_skip=4

if [ -z "$KMEM_BLK" ] || [ ! -b "$KMEM_BLK" ]; then
	echo "KMEM_BLK names no block device"
	exit $ksft_skip
fi

name=${KMEM_BLK##*/}
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
failed=0

check() {
	if [ "$1" = 0 ]; then
		echo "ok: $2"
	else
		echo "FAIL: $2"
		failed=1
	fi
}

blkdiscard "$KMEM_BLK"
check $? "the whole device can be discarded"

head -c 1M /dev/urandom >"$tmp/data"
dd if="$tmp/data" of="$KMEM_BLK" bs=64k oflag=direct seek=3 status=none conv=fsync
check $? "direct writes are taken"
dd if="$KMEM_BLK" bs=64k iflag=direct skip=3 count=16 status=none | cmp -s - "$tmp/data"
check $? "reads give what was written"
dd if="$KMEM_BLK" bs=64k iflag=direct count=3 status=none | tr -d '\0' | cmp -s - /dev/null
check $? "what was never written is zero"

head -c 512 /dev/urandom >"$tmp/sector"
dd if="$tmp/sector" of="$KMEM_BLK" bs=512 oflag=direct seek=385 status=none
check $? "a single sector can be written"
dd if="$tmp/sector" of="$tmp/data" bs=512 seek=1 conv=notrunc status=none
dd if="$KMEM_BLK" bs=64k iflag=direct skip=3 count=16 status=none | cmp -s - "$tmp/data"
check $? "and the other sectors of its block stay"

blkdiscard -o 196608 -l 1M "$KMEM_BLK"
check $? "a range can be discarded"
dd if="$KMEM_BLK" bs=64k iflag=direct skip=3 count=16 status=none | tr -d '\0' | cmp -s - /dev/null
check $? "and is zero then"

granularity=$(cat "/sys/block/$name/queue/discard_granularity")
[ "$granularity" -gt 0 ]
check $? "discard has a granularity ($granularity)"
exit $failed
