#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The near side is lost at a random moment: the target is stopped under a guest that flushes all the time, and
# its file copied. Each copy must be the state at one flush of the guest with any part of what followed up to
# the next one; its file system mounts, replays its journal, holds what was flushed, and then fsck finds
# nothing. On ext4 and XFS.
# COPIES=200 SEED=5 FILE_SYSTEMS=xfs far-copies.sh: so many of each, these random numbers, only that.

# shellcheck source=tests/lib/functions.sh
. "$(dirname "$0")/../lib/functions.sh"
require_root
require tgtd python3 losetup /dev/fuse

COPIES=${COPIES:-6}
FILE_SYSTEMS=${FILE_SYSTEMS:-ext4 xfs}
SEED=${SEED:-$(od -An -N3 -tu4 /dev/urandom | tr -d ' ')}
RANDOM=$((SEED % 32768))
PY=(python3 -IS "$(cd "$(dirname "$0")" && pwd)/copies.py")
IQN=iqn.2024-01.test:$NB_ID
MNT=$T/mnt
REGION=$((4 << 20))

mkfs_on() {
	case $1 in
	ext4) mkfs.ext4 -q -E nodiscard "$2" ;;
	xfs) mkfs.xfs -q -K "$2" ;;
	esac
}

# The same file system is mounted twice, here and in the guest.
mount_copy() {
	case $1 in
	ext4) mount "$2" "$T/replay" ;;
	xfs) mount -o nouuid "$2" "$T/replay" ;;
	esac
}

fsck_of() {
	case $1 in
	ext4) e2fsck -fn "$2" ;;
	xfs) xfs_repair -n "$2" ;;
	esac
}

# For wait_for: none of its threads runs.
all_stopped() {
	! cut -d' ' -f3 "/proc/$1/task/"*/stat | grep -qv T
}

copy_target() {
	local pid

	pid=$(tgtd_pid)
	kill -STOP "$pid"
	wait_for 10 all_stopped "$pid"
	cp --reflink=auto --sparse=always "$T/disk" "$T/copy"
	kill -CONT "$pid"
}

# examine FS: the copy; sets TURN and DIGEST.
examine() {
	local part

	read -r TURN part DIGEST < <("${PY[@]}" raw "$T/copy" "$SEED" "$T/known" || echo bad)
	[ "$TURN" != bad ] || fail "SEED=$SEED: $1: out of order"
	loop_over "$T/copy" --offset $REGION
	on_exit umount -ql "$T/replay"
	mount_copy "$1" "$LOOP" || fail "SEED=$SEED: $1: the copy does not mount"
	"${PY[@]}" fs "$T/replay" "$SEED" "$TURN" "$part" ||
		fail "SEED=$SEED: $1: not what was flushed at turn $TURN"
	umount "$T/replay"
	fsck_of "$1" "$LOOP" >"$T/fsck.log" 2>&1 || fail "SEED=$SEED: $1: not sound at turn $TURN"
	loop_detach "$LOOP" "$T/copy"
}

# pause MILLISECONDS: up to that long; the random moment.
pause() {
	sleep "$(printf '0.%03d' $((RANDOM % $1)))"
}

try() {
	local fs=$1 n guest began=$SECONDS

	rm -rf "$T/known" "$T/stop" "$T/cache"
	truncate -s 0 "$T/disk"
	truncate -s 324M "$T/disk"
	mount_nb --cache-size 512M --max-dirty 4M --debug-delay 2ms --log "$T/nearblk.log" \
		"iscsi://$TGTD_PORTAL/$IQN/1" "$MNT"
	loop_over "$MNT/disk.img" --offset $REGION
	guest_loop=$LOOP
	mkfs_on "$fs" "$LOOP"
	on_exit umount -ql "$T/guest"
	mount "$LOOP" "$T/guest"
	sync -f "$T/guest"
	nb flush "$MNT"
	"${PY[@]}" guest "$MNT/disk.img" "$T/guest" "$SEED" "$T/stop" >"$T/guest.log" 2>&1 &
	guest=$!
	on_exit stop_pid "$guest"
	: >"$T/seen"
	for ((n = 0; n < COPIES; n++)); do
		pause 150
		pid_gone "$guest" && fail "SEED=$SEED: the guest has ended"
		copy_target
		examine "$fs"
		echo "$TURN $DIGEST" >>"$T/seen"
	done
	touch "$T/stop"
	wait "$guest" || fail "SEED=$SEED: the guest failed"
	umount "$T/guest"
	loop_detach "$guest_loop" "$MNT/disk.img"
	nb flush "$MNT"
	copy_target
	examine "$fs"
	umount_nb "$MNT"
	n=$(cut -d' ' -f2 "$T/seen" | sort -u | wc -l)
	say "$fs: $COPIES copies, $n distinct, turns $(head -n 1 "$T/seen" | cut -d' ' -f1) to" \
		"$(tail -n 1 "$T/seen" | cut -d' ' -f1) of$(tail -n 1 "$T/guest.log" | sed 's/^/ /');" \
		"each explained and clean; $((SECONDS - began)) s"
	[ $((n * 4)) -ge $((COPIES * 3)) ] || fail "SEED=$SEED: only $n of $COPIES copies differ"
}

say "SEED=$SEED"
mkdir "$T/guest" "$T/replay"
: >"$T/disk"
truncate -s 324M "$T/disk"
tgtd_start
tgtd_lun one "$IQN" 1 "$T/disk"
tgtd_param "$IQN"
for fs in $FILE_SYSTEMS; do
	require "mkfs.$fs"
	modprobe -q "$fs" 2>/dev/null || :
	grep -qw "$fs" /proc/filesystems || skip "the kernel has no $fs"
	try "$fs"
done
