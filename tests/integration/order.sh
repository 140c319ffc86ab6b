#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# How many round trips the order of epochs costs on a line of 50 ms, and what status says meanwhile: small
# epochs one by one, the same merged because they would lag or because it is asked for, and fsync that waits
# for the target. Figures are printed.

# shellcheck source=tests/lib/functions.sh
. "$(dirname "$0")/../lib/functions.sh"
require_root
require tgtd python3 /dev/fuse

IQN=iqn.2024-01.test:$NB_ID
MNT=$T/mnt
IMG=$MNT/disk.img

# calc EXPRESSION: of seconds.
calc() {
	awk "BEGIN { printf \"%.3f\\n\", $1 }"
}

begin() {
	mount_nb --log "$T/nearblk.log" --cache-size 64M --sessions 2 "$@" "iscsi://$TGTD_PORTAL/$IQN/1" "$MNT"
}

# epochs COUNT GENERATION: so many blocks, an fsync behind each; prints the seconds that it took.
epochs() {
	python3 -c 'import os, sys, time
path, count, generation = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
fd, begin = os.open(path, os.O_RDWR), time.time()
for i in range(count):
    os.pwrite(fd, bytes([generation, i % 255 + 1]) * 2048, i % 64 * 16384)
    os.fsync(fd)
print("%.3f" % (time.time() - begin))' "$IMG" "$1" "$2"
}

# flushed [OPTION]: prints the seconds that nearblk flush took.
flushed() {
	local begin=$EPOCHREALTIME

	nb flush "$@" "$MNT" 2>/dev/null
	calc "$EPOCHREALTIME - $begin"
}

same_at_the_target() {
	nb drop "$MNT"
	cmp -n 2M "$IMG" "$T/disk" || fail "$1: the target has other bytes"
}

# One round trip an epoch, not two: 2 s and not 4.
test_small_epochs() {
	local near far

	begin
	epochs 1 1 >/dev/null # the first has to learn
	nb flush "$MNT"
	near=$(epochs 40 2)
	far=$(flushed)
	say "40 epochs of one block: fsynced in $near s, at the target after another $far s"
	assert_between 1.5 "$(calc "$near + $far")" 3.4 "seconds for 40 epochs at 50 ms"
	same_at_the_target "small epochs"
	umount_nb "$MNT" >/dev/null
}

# consistency FILE: far_consistent as it is polled, until the file is there.
consistency() {
	until [ -e "$1" ]; do
		status_key "$MNT" far_consistent
		sleep 0.1
	done
}

# What they would take one by one is known from the first ones; then they are merged.
test_adaptive() {
	local far seen

	begin --order adaptive --max-lag 1s
	epochs 5 3 >/dev/null
	nb flush "$MNT"
	consistency "$T/over" >"$T/seen" &
	seen=$!
	epochs 200 4 >/dev/null
	far=$(flushed)
	touch "$T/over"
	wait $seen
	say "200 epochs in adaptive order, 1 s of lag: at the target after $far s"
	assert_between 0 "$far" 6 "seconds for 200 epochs that may be merged"
	grep -q false "$T/seen" || fail "far_consistent was never false: nothing was merged"
	status_is "$MNT" far_consistent true || fail "far_consistent is not true at the end"
	same_at_the_target "adaptive order"
	umount_nb "$MNT" >/dev/null
}

# In strict order they take their time, of which status says how long; --merge takes a fraction.
test_merge() {
	local eta far

	begin
	epochs 120 5 >/dev/null
	status_is "$MNT" far_consistent true || fail "far_consistent is false in strict order"
	[ "$(status_key "$MNT" epochs_pending)" -gt 40 ] || fail "no backlog: this test sees nothing"
	sleep 1 # a second of epochs, to learn from
	eta=$(status_key "$MNT" drain_eta_seconds)
	far=$(flushed)
	say "a backlog of small epochs: said to take $eta s, took $far s"
	assert_between "$(calc "$far * 0.5")" "$eta" "$(calc "$far * 2 + 0.5")" "drain_eta_seconds"
	epochs 120 6 >/dev/null
	far=$(flushed --merge)
	say "120 epochs with --merge: $far s"
	assert_between 0 "$far" 2.5 "seconds for nearblk flush --merge"
	same_at_the_target "flush --merge"
	epochs 120 7 >/dev/null
	umount_nb --merge "$MNT" >/dev/null
	cmp -n 4096 "$T/disk" <(python3 -c 'import sys; sys.stdout.buffer.write(bytes([7, 65]) * 2048)') ||
		fail "umount --merge did not send all"
}

test_target() {
	local far status=0

	begin --durability target
	far=$(epochs 10 8)
	say "10 fsyncs that wait for the target: $far s"
	assert_between 0.45 "$far" 5 "seconds for 10 fsyncs at the target"
	cmp -n 4096 "$T/disk" <(python3 -c 'import sys; sys.stdout.buffer.write(bytes([8, 1]) * 2048)') ||
		fail "fsync returned before the target had it"
	# With the link down they wait, and a signal ends that.
	wan_ctl cut >/dev/null
	timeout -s INT 2 python3 -c 'import os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
os.pwrite(fd, b"x" * 4096, 0)
os.fsync(fd)' "$IMG" 2>/dev/null || status=$?
	assert_eq "$status" 124 "exit status of an fsync without a target"
	wan_ctl restore >/dev/null
	epochs 1 9 >/dev/null
	status_is "$MNT" state clean || fail "fsync returned and data is dirty"
	umount_nb "$MNT" >/dev/null
}

truncate -s 64M "$T/disk"
ns_pair
wan_start 50ms 100M
tgtd_start "$NS_B"
tgtd_lun one "$IQN" 1 "$T/disk"
tgtd_param "$IQN"
test_small_epochs
test_adaptive
test_merge
test_target
