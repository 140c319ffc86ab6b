#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A cache much smaller than what is worked on, on two volumes at once: evicted, fetched again, written
# back under way, and nothing mixed up.

# shellcheck source=tests/lib/functions.sh
. "$(dirname "$0")/../lib/functions.sh"
require_root
require tgtd fio python3 /dev/fuse

IQN=iqn.2024-01.test:$NB_ID

# work NAME SEED SIZE: fio in the background that writes all of it at random and verifies it, some of
# it at once and all in the end.
work() {
	fio --name="$1" --filename="$T/$1/disk.img" --output="$T/fio-$1.log" --ioengine=libaio --direct=1 \
		--iodepth=16 --thread --rw=randrw --rwmixwrite=70 --bsrange=4k-256k --size="$3" \
		--verify=crc32c --verify_fatal=1 --verify_backlog=512 --verify_state_save=0 --randseed="$2" \
		--fsync=100 >"$T/$1.log" 2>&1 &
}

within_limit() {
	local used limit

	used=$(status_key "$T/$1" cache_used_bytes)
	limit=$(status_key "$T/$1" cache_limit_bytes)
	[ "$used" -le "$limit" ] || fail "$1: $used bytes of cache used, the limit is $limit"
	used=$(du -sB1 "$T/cache-$1" | cut -f1)
	# The index and the identity are beside the segments.
	[ "$used" -le $((limit + (12 << 20))) ] || fail "$1: the directory takes $used bytes, limit $limit"
}

tgtd_start
for name in one two; do
	truncate -s 224M "$T/disk-$name"
	tgtd_lun $name "$IQN:$name" 1 "$T/disk-$name"
	NB_CACHE=$T/cache-$name mount_nb --log "$T/nearblk-$name.log" --cache-size 32M \
		"iscsi://$TGTD_PORTAL/$IQN:$name/1" "$T/$name"
done
work one 11 200m
first=$!
work two 12 200m
second=$!
until pid_gone $first && pid_gone $second; do
	within_limit one
	within_limit two
	sleep 0.1
done
for pid in $first $second; do
	status=0
	wait "$pid" || status=$?
	assert_eq "$status" 0 "exit status of fio"
done
for name in one two; do
	nb flush "$T/$name"
	cmp "$T/$name/disk.img" "$T/disk-$name" || fail "$name: the target has other bytes"
	within_limit $name
	umount_nb "$T/$name"
done
! cmp -s "$T/disk-one" "$T/disk-two" || fail "both volumes are the same: this test sees nothing"
