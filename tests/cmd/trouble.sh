#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What is said, and with which exit status, when things go wrong: a rotten block that was never sent, a
# daemon that does not answer, one that ends with data left, an umount of what is in use, a mount that
# is interrupted when it is done already.

# shellcheck source=tests/lib/functions.sh
. "$(dirname "$0")/../lib/functions.sh"
require python3 flock /dev/fuse
[ -w /dev/fuse ] || skip "/dev/fuse is not ours"

MNT=$T/mnt
IMG=$MNT/disk.img
FAR=$T/far
CACHE=$T/cache
LOG=$T/nearblk.log
NOTHING_SENT=(--debug-fault write:always --debug-fault zero:always)
export PYTHONDONTWRITEBYTECODE=1

begin() {
	mount_nb --cache-size 32M --max-dirty-age 50ms --log "$LOG" "$@" "file://$FAR" "$MNT"
	PID=$(status_key "$MNT" pid)
}

# put SEED SIZE
put() {
	random_file "$T/new" "$2" "$1"
	dd if="$T/new" of="$IMG" bs=4k conv=notrunc,fsync status=none
}

killed() {
	kill -9 "$PID"
	wait_for 10 pid_gone "$PID"
	umount -l "$MNT" 2>/dev/null || fusermount3 -u -z "$MNT"
}

spoil() {
	cp -a "$CACHE" "$T/whole"
	python3 "$NB_LIB/../cache/spoil.py" "$CACHE" "$1" 7
}

restore() {
	rm -rf "$CACHE"
	mv "$T/whole" "$CACHE"
}

RANGE='[0-9.]+ KiB at offset [0-9]+.* damaged in .*\*\.seg.*--cache-dir'

# Found when it is to be sent: the first to wait for it is told which range and what to do.
test_rotten_payload() {
	local offset

	begin "${NOTHING_SENT[@]}"
	put 1 1M
	killed
	spoil payload
	begin
	assert_fails 3 "$MNT: $RANGE.*not yet at the target" nb flush "$MNT"
	assert_eq "$(status_key "$MNT" state)" damaged state
	assert_eq "$(status_key "$MNT" 'damaged_ranges.#')" 1 "damaged ranges"
	assert_eq "$(status_key "$MNT" damaged_ranges.0.length)" 4096 "length of the range"
	offset=$(status_key "$MNT" damaged_ranges.0.offset)
	nb status "$MNT" | grep -q "^damaged  *4 KiB at $offset+4096" || fail "status names no range"
	assert_fails any 'Input/output error' dd if="$IMG" bs=4k skip=$((offset / 4096)) count=1 of=/dev/null
	assert_eq "$(status_key "$MNT" 'damaged_ranges.#')" 1 "damaged ranges once it was read"
	assert_fails 3 "$RANGE.*still mounted.*--no-flush" nb umount "$MNT"
	assert_fails 3 "unmounted; .* kept in $CACHE, but $RANGE" nb umount --no-flush "$MNT"
	tail -n 1 "$LOG" | grep -Eq "error: stopped: .* kept in $CACHE, but $RANGE" || fail "the last line reassures"
	# The choice that loses nothing.
	restore
	begin
	assert_eq "$(status_key "$MNT" 'damaged_ranges.#')" 0 "damaged ranges of a restored copy"
	nb flush "$MNT"
	cmp -n 1M "$FAR" "$T/new" || fail "a restored copy lost data"
	umount_nb "$MNT"
}

# Found by the mount itself, which says so.
test_rotten_header() {
	begin "${NOTHING_SENT[@]}"
	put 2 64K
	put 3 64K
	put 4 64K
	killed
	spoil header
	begin 2>"$T/said"
	grep -Eq "^nearblk: warning: $RANGE" "$T/said" || fail "mount said: $(cat "$T/said")"
	[ "$(status_key "$MNT" 'damaged_ranges.#')" -ge 1 ] || fail "no damaged ranges"
	nb umount --no-flush "$MNT" >/dev/null 2>&1 || :
	assert_eq "$(nb status --json | python3 "$NB_LIB/json_key.py" 0.state)" damaged "state when unmounted"
	restore
	begin
	umount_nb "$MNT"
}

# In the way at once, not after everything was sent, which here is never.
test_busy() {
	begin "${NOTHING_SENT[@]}"
	put 5 64K
	exec 5<"$IMG"
	assert_fails 1 "$MNT is busy: used by .*$$" timeout 10 "$NEARBLK" umount "$MNT"
	exec 5<&-
	nb umount --no-flush "$MNT" >/dev/null
}

# A daemon in the foreground that gives up says by its status that data is left.
test_foreground() {
	local status=0

	"$NEARBLK" mount -f --cache-dir "$CACHE" --log "$LOG" --stop-timeout 100ms "${NOTHING_SENT[@]}" \
		"file://$FAR" "$MNT" &
	PID=$!
	wait_for 10 status_is "$MNT" pid "$PID"
	put 6 64K
	kill -TERM "$PID"
	wait "$PID" || status=$?
	assert_eq "$status" 3 "exit status with data left"
	"$NEARBLK" mount -f --cache-dir "$CACHE" --log "$LOG" "file://$FAR" "$MNT" &
	PID=$!
	wait_for 10 status_is "$MNT" pid "$PID"
	kill -TERM "$PID"
	status=0
	wait "$PID" || status=$?
	assert_eq "$status" 0 "exit status with nothing left"
}

# One is stopped and does not answer; the others are shown all the same.
test_silent_daemon() {
	local other

	begin
	other=$PID
	truncate -s 8M "$T/far2"
	mount_nb --cache-dir "$T/cache2" --cache-size 32M --log "$T/other.log" "file://$T/far2" "$T/mnt2"
	on_exit eval "kill -CONT $other 2>/dev/null" # before anybody waits for its mount
	kill -STOP "$other"
	assert_fails 1 "$T/mnt2" nb status --json
	kill -CONT "$other"
	nb status >/dev/null
	umount_nb "$T/mnt2"
	umount_nb "$MNT"
}

# Ctrl-C when the volume is there already, but mount has not yet heard of it.
test_interrupted_late() {
	local mount status=0

	mkdir -p "$CACHE" && chmod 700 "$CACHE"
	# The lock on the directory keeps the daemon back until mount is stopped, before it can hear.
	exec 6>>"$CACHE/lock"
	flock 6
	"$NEARBLK" mount --cache-dir "$CACHE" --log "$LOG" "file://$FAR" "$MNT" 2>"$T/said" 6>&- &
	mount=$!
	wait_for 5 is_waiting "$mount"
	on_exit eval "kill -CONT $mount 2>/dev/null"
	kill -STOP "$mount"
	exec 6>&-
	wait_for 20 status_is "$MNT" state clean
	PID=$(status_key "$MNT" pid)
	kill -INT "$mount"
	kill -CONT "$mount"
	wait "$mount" || status=$?
	assert_eq "$status" 1 "exit status of an interrupted mount"
	grep -q 'interrupted; unmounted again' "$T/said" || fail "mount said: $(cat "$T/said")"
	! mountpoint -q "$MNT" || fail "mounted all the same"
	pid_gone "$PID" || fail "its daemon is still there"
}

# For wait_for: SIGINT is caught (bit 2), so the daemon has been forked off.
is_waiting() {
	[ $((0x$(sed -n 's/^SigCgt:[[:space:]]*//p' "/proc/$1/status") & 2)) != 0 ]
}

random_file "$FAR" 8M 9
mkdir "$MNT"
test_rotten_payload
test_rotten_header
test_busy
test_foreground
test_silent_daemon
test_interrupted_late
