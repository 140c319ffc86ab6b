#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The volume is not what it was: grown in use and between two mounts, shrunk, another one behind the
# name, written by somebody else. What is adopted, what is refused, and nothing is sent over it.

# shellcheck source=tests/lib/functions.sh
. "$(dirname "$0")/../lib/functions.sh"
require_root
require tgtd python3 losetup /dev/fuse /dev/loop-control

IQN=iqn.2024-01.test:$NB_ID
MNT=$T/mnt
MIB=1048576

mount_again() {
	mount_nb --log "$T/nearblk.log" --cache-size 256M "$@" "$URL" "$MNT"
}

# refused PATTERN: the mount.
refused() {
	assert_fails 1 "$1" nb mount --log "$T/nearblk.log" --cache-dir "$T/cache" "$URL" "$MNT"
}

# put MIB SEED: into the volume, made durable there.
put() {
	random_file "$T/piece" 1M "$2"
	dd if="$T/piece" of="$MNT/disk.img" bs=1M seek="$1" conv=notrunc,fsync status=none
}

# scribble MIB SEED: somebody else writes to the volume.
scribble() {
	random_file "$T/piece" 1M "$2"
	dd if="$T/piece" of="$T/disk" bs=1M seek="$1" conv=notrunc,fsync status=none
}

size_is() {
	[ "$(stat -c %s "$MNT/disk.img")" = "$1" ]
}

# crash: the daemon dies with what was put but cannot be sent.
crash() {
	local pid

	pid=$(status_key "$MNT" pid)
	kill -STOP "$(tgtd_pid)"
	put "$@"
	kill -9 "$pid"
	wait_for 10 pid_gone "$pid"
	umount -l "$MNT"
	kill -CONT "$(tgtd_pid)"
}

# Grown while it is in use: found at the next login, by the file, its loop device, and the next mount.
test_grown() {
	mount_again
	put 1 11
	loop_over "$MNT/disk.img"
	truncate -s 48M "$T/disk"
	tgtd_restart
	nb_kick
	wait_for 20 size_is $((48 * MIB))
	assert_eq "$(status_key "$MNT" size_bytes)" $((48 * MIB)) "size in status"
	losetup -c "$LOOP"
	assert_eq "$(blockdev --getsize64 "$LOOP")" $((48 * MIB)) "size of the loop device"
	put 47 47
	nb flush "$MNT"
	cmp "$MNT/disk.img" "$T/disk" || fail "grown: the target has other bytes"
	losetup -d "$LOOP"
	umount_nb "$MNT"
	truncate -s 56M "$T/disk"
	tgtd_restart
	mount_again
	size_is $((56 * MIB)) || fail "growth between two mounts is not adopted"
	cmp "$MNT/disk.img" "$T/disk" || fail "grown between two mounts: other bytes"
}

nb_kick() {
	kill -USR1 "$(status_key "$MNT" pid)"
}

# Shrunk in use: nothing is sent any more, what is dirty is kept, and the next mount is refused.
test_shrunk() {
	put 2 22
	nb flush "$MNT"
	cp "$T/disk" "$T/whole"
	truncate -s 32M "$T/disk"
	cp "$T/disk" "$T/before"
	tgtd_restart
	put 3 33
	wait_for 30 status_is "$MNT" state fenced
	status_key "$MNT" fenced | grep -q 'shrank from 58720256 to 33554432' || fail "$(status_key "$MNT" fenced)"
	assert_fails 1 'Read-only file system' dd if=/dev/zero of="$MNT/disk.img" bs=4k count=1 conv=notrunc
	assert_fails 3 'shrank' nb flush "$MNT"
	assert_fails 3 "kept in" umount_nb --no-flush "$MNT"
	refused 'shrunk from 58720256 to 33554432'
	cmp "$T/disk" "$T/before" || fail "something was sent to a volume that shrank"
	tgtd_kill
	cp "$T/whole" "$T/disk"
	tgtd_restart
	mount_again
	nb flush "$MNT"
	random_file "$T/piece" 1M 33
	cmp -n $MIB "$T/piece" "$T/disk" 0 $((3 * MIB)) || fail "what was kept did not arrive"
	umount_nb "$MNT"
}

# Somebody else wrote: with nothing unsent the cache is forgotten.
test_changed_clean() {
	mount_again
	cmp "$MNT/disk.img" "$T/disk"
	umount_nb "$MNT"
	scribble 0 100
	mount_again
	cmp "$MNT/disk.img" "$T/disk" || fail "old bytes are shown"
	grep -q 'changed elsewhere.*forgotten' "$T/nearblk.log" || fail "nothing was said"
	umount_nb "$MNT"
	scribble 0 101
	mount_again --trust-cache always
	! cmp -s "$MNT/disk.img" "$T/disk" || fail "not trusted in spite of always"
	umount_nb "$MNT"
	mount_again --trust-cache never
	cmp "$MNT/disk.img" "$T/disk" || fail "trusted in spite of never"
}

# With unsent data nothing is sent, unless by order.
test_changed_dirty() {
	crash 7 77
	scribble 0 102
	cp "$T/disk" "$T/before"
	refused 'changed elsewhere.*--force-push'
	assert_fails 1 'changed elsewhere.*--force-push' nb flush --cache-dir "$T/cache"

	# It shows only once it answers again: the mount is there by then.
	kill -STOP "$(tgtd_pid)"
	mount_again --connect-timeout 1 2>"$T/said"
	grep -q 'mounted offline' "$T/said" || fail "said: $(cat "$T/said")"
	put 8 88
	kill -CONT "$(tgtd_pid)"
	nb_kick
	wait_for 30 status_is "$MNT" state fenced
	assert_fails 3 "kept in" umount_nb --no-flush "$MNT"
	cmp "$T/disk" "$T/before" || fail "something was sent over what was changed"

	nb flush --force-push --cache-dir "$T/cache"
	random_file "$T/piece" 1M 77
	dd if="$T/piece" of="$T/before" bs=1M seek=7 conv=notrunc status=none
	random_file "$T/piece" 1M 88
	dd if="$T/piece" of="$T/before" bs=1M seek=8 conv=notrunc status=none
	cmp "$T/disk" "$T/before" || fail "--force-push: the target has other bytes"
}

# A target that says its new size with a unit attention.
test_attention() {
	truncate -s 24M "$T/fake"
	fake_start "$T/fake"
	URL=$FAKE_URL NB_CACHE=$T/cache-fake mount_again
	truncate -s 40M "$T/fake"
	fake size $((40 * MIB))
	put 2 22
	wait_for 20 size_is $((40 * MIB))
	put 39 39
	nb flush "$MNT"
	cmp "$MNT/disk.img" "$T/fake" || fail "fake: the target has other bytes"
	umount_nb "$MNT"
}

random_file "$T/disk" 32M 1
tgtd_start
tgtd_lun one "$IQN" 1 "$T/disk"
URL=iscsi://$TGTD_PORTAL/$IQN/1
mkdir "$MNT"
test_grown
test_shrunk
test_changed_clean
test_changed_dirty
test_attention
