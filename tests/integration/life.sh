#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Each way in which a mount may end, with a target that answers and with one that is gone: what is
# said, with which exit status, and that nothing that was written is lost.

# shellcheck source=tests/lib/functions.sh
. "$(dirname "$0")/../lib/functions.sh"
require_root
require tgtd losetup fusermount3 /dev/fuse

IQN=iqn.2024-01.test:$NB_ID
MNT=$T/mnt
IMG=$MNT/disk.img
LEFT='[0-9.]+ [KM]iB \([0-9]+ bytes\) not yet at the target'

begin() {
	mount_nb --log "$T/nearblk.log" --cache-size 64M "$@" "iscsi://$TGTD_PORTAL/$IQN/1" "$MNT"
	DAEMON=$(status_key "$MNT" pid)
}

# put SEED: 3 MiB of it, not flushed.
put() {
	random_file "$T/new" 3M "$1"
	dd if="$T/new" of="$IMG" bs=64k conv=notrunc status=none
}

arrived() {
	cmp -n 3M "$T/disk" "$T/new"
}

# For wait_for.
is_detached() {
	! mountpoint -q "$MNT"
}

# The volume goes away under us, and comes back.
target_gone() {
	tgtd_kill
	wait_for 5 all_lost
}

all_lost() {
	! nb status --json "$MNT" | grep -q '"state": "up"'
}

# What was left is there at the next mount, and arrives.
nothing_lost() {
	tgtd_restart
	begin
	cmp -n 3M "$IMG" "$T/new" || fail "what was written is not there after the next mount"
	umount_nb "$MNT" >"$T/out"
	arrived || fail "what was left has not arrived"
}

last_word() {
	wait_for 20 pid_gone "$DAEMON"
	tail -n 1 "$T/nearblk.log" | grep -Eq "$1" ||
		fail "the last line of the log does not say /$1/: $(tail -n 1 "$T/nearblk.log")"
}

test_plain_umount() {
	begin
	put 1
	umount "$MNT"
	last_word 'stopped: everything is at the target'
	arrived || fail "umount(8) lost data"
	begin
	put 2
	fusermount3 -u "$MNT"
	last_word 'stopped: everything is at the target'
	arrived || fail "fusermount3 -u lost data"
	begin --stop-timeout 1
	target_gone
	put 3
	umount "$MNT"
	last_word "stopped: $LEFT, kept in $T/cache"
	nothing_lost
}

# For wait_for: the process PID works in DIR.
is_in() {
	[ "$(readlink "/proc/$1/cwd")" = "$2" ]
}

test_busy() {
	begin
	put 4
	exec 5<"$IMG"
	assert_fails 1 "$MNT is busy: used by .*$$" nb umount "$MNT"
	exec 5<&-
	(cd "$MNT" && exec sleep 1000) &
	local holder=$!
	wait_for 5 is_in "$holder" "$MNT"
	assert_fails 1 "$MNT is busy: used by .*$holder" nb umount "$MNT"
	kill "$holder"
	wait "$holder" 2>/dev/null || :
	loop_over "$IMG"
	assert_fails 1 "$MNT is busy: used by .*$LOOP" nb umount "$MNT"
	assert_fails 1 "$MNT is busy: used by .*$LOOP" nb umount --no-flush "$MNT"
	loop_detach "$LOOP" "$IMG"
	nb flush "$MNT"
	arrived || fail "flush after refused umounts lost data"
	assert_eq "$(status_key "$MNT" state)" clean "state after refused umounts"
	cmp -n 3M "$IMG" "$T/new"
	umount_nb "$MNT"
}

test_no_flush() {
	begin
	target_gone
	put 5
	nb umount --no-flush "$MNT" >"$T/out"
	grep -Eq "unmounted; $LEFT, kept in $T/cache; mount it again" "$T/out" || fail "said: $(cat "$T/out")"
	wait_for 2 pid_gone "$DAEMON"
	nb status >"$T/out"
	grep -Eq "dirty.*[0-9] [KM]iB.*$T/cache" "$T/out" || fail "not listed as dirty: $(cat "$T/out")"
	nb status --json | python3 -c 'import json, sys
[v] = json.load(sys.stdin)
assert v["dirty_bytes"] >= 3 << 20, v
assert v["state"] == "dirty" and v["mountpoint"] is None and v["pid"] is None, v
assert v["cache_dir"] == sys.argv[1] and v["url"].startswith("iscsi://"), v' "$T/cache"
	nothing_lost
	assert_eq "$(nb status)" "no volumes" "status when nothing is dirty"
}

test_timeout_and_ctrl_c() {
	begin
	target_gone
	put 6
	assert_fails 3 "$MNT: the time is over; $LEFT" nb flush --timeout 500ms "$MNT"
	assert_fails 3 "$MNT: the time is over; still mounted, $LEFT" nb umount --timeout 500ms "$MNT"
	assert_fails 3 "$MNT: interrupted; still mounted, $LEFT" \
		timeout --preserve-status -s INT 1 "$NEARBLK" umount "$MNT"
	assert_fails 3 "$MNT: interrupted; $LEFT" timeout --preserve-status -s INT 1 "$NEARBLK" flush "$MNT"
	mountpoint -q "$MNT" || fail "not mounted any more"
	cmp -n 3M "$IMG" "$T/new" || fail "not served any more"
	tgtd_restart
	nb flush "$MNT"
	arrived || fail "flush lost data"
	umount_nb "$MNT"
}

test_signals() {
	begin
	put 7
	kill -TERM "$DAEMON"
	last_word 'stopped: everything is at the target'
	! mountpoint -q "$MNT" || fail "mounted after SIGTERM"
	arrived || fail "SIGTERM lost data"

	begin --stop-timeout 1
	target_gone
	put 8
	kill -TERM "$DAEMON"
	last_word "stopped: $LEFT, kept in $T/cache"
	nothing_lost

	begin --stop-timeout 100
	target_gone
	put 9
	kill -TERM "$DAEMON"
	wait_for 10 is_detached
	! pid_gone "$DAEMON" || fail "one SIGTERM ends it at once"
	kill -TERM "$DAEMON"
	last_word "stopped: $LEFT, kept in $T/cache"
	nothing_lost
}

test_dead_mount() {
	begin
	put 10
	kill -9 "$DAEMON"
	wait_for 5 pid_gone "$DAEMON"
	assert_fails any 'not connected' ls "$MNT"
	begin
	cmp -n 3M "$IMG" "$T/new" || fail "kill -9 lost data"
	kill -9 "$DAEMON"
	wait_for 5 pid_gone "$DAEMON"
	assert_fails 3 "$MNT: the daemon of .* had died; the dead mount is removed" nb umount "$MNT"
	nothing_lost
}

test_read_only() {
	begin -r
	assert_eq "$(status_key "$MNT" read_only)" true read_only
	assert_fails any 'Read-only|denied' dd if="$T/new" of="$IMG" bs=4k count=1 conv=notrunc
	cmp -n 3M "$IMG" "$T/new"
	assert_eq "$(blockdev_ro)" 1 "read-only of a loop device over it"
	umount_nb "$MNT"
	# What an earlier mount left is sent all the same.
	begin
	target_gone
	put 11
	nb umount --no-flush "$MNT" >/dev/null
	tgtd_restart
	begin --read-only
	nb flush "$MNT"
	arrived || fail "a read-only mount keeps what was dirty"
	umount_nb "$MNT"
}

blockdev_ro() {
	local loop

	loop=$(losetup --find --show "$IMG" 2>/dev/null)
	blockdev --getro "$loop"
	losetup -d "$loop"
}

# mount(8) calls helpers with -o and much that is not for them.
test_mount_options() {
	begin -o 'rw,nosuid,nodev,noatime,_netdev,nofail,noauto,user,x-systemd.automount,max-dirty=16M,mode=0640'
	assert_eq "$(stat -c %a "$IMG")" 640 "mode of disk.img"
	umount_nb "$MNT"
	begin -o ro,defaults,sessions=2 -o uid=12,gid=34
	assert_eq "$(stat -c %u:%g "$IMG")" 12:34 "owner of disk.img"
	assert_eq "$(status_key "$MNT" 'sessions.#')" 2 sessions
	assert_eq "$(status_key "$MNT" read_only)" true read_only
	umount_nb "$MNT"
}

truncate -s 24M "$T/disk"
tgtd_start
tgtd_lun one "$IQN" 1 "$T/disk"
test_plain_umount
test_busy
test_no_flush
test_timeout_and_ctrl_c
test_signals
test_dead_mount
test_read_only
test_mount_options
