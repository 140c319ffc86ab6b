#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# How the program speaks: a live line on a terminal and plain lines in a pipe, the log in a file with
# its levels, the counts of --debug-count.

# shellcheck source=tests/lib/functions.sh
. "$(dirname "$0")/../lib/functions.sh"
require python3 script /dev/fuse
[ -w /dev/fuse ] || skip "/dev/fuse is not ours"

MNT=$T/mnt
IMG=$MNT/disk.img
LOG=$T/nearblk.log

begin() {
	mount_nb --cache-size 32M --log "$LOG" "$@" "file://$T/far" "$MNT"
}

put() {
	random_file "$T/new" "$2" "$1"
	dd if="$T/new" of="$IMG" bs=64k conv=notrunc status=none
}

# One line that is written over again and again, and gone when all is said.
test_live_line() {
	local cr=$'\r' clear=$'\e[K'

	begin --max-dirty-age 1h --debug-delay 200ms
	put 1 4M
	script -qec "'$NEARBLK' flush '$MNT'" "$T/typescript" >/dev/null
	grep -q "${cr}[0-9.]* [KM]iB left" "$T/typescript" || fail "no live line: $(cat -A "$T/typescript")"
	[ "$(grep -o ' left' "$T/typescript" | wc -l)" -gt 1 ] || fail "the line is not live"
	[[ $(cat "$T/typescript") == *"$cr$clear"* ]] || fail "the live line is left standing"
	! grep -E "left.*[^${cr}]${cr}\$" "$T/typescript" || fail "more than one line: $(cat -A "$T/typescript")"
	put 2 4M
	nb flush "$MNT" >"$T/out" 2>&1
	grep -q ' left' "$T/out" || fail "no progress in a pipe"
	! grep -q "$cr" "$T/out" || fail "a live line in a pipe"
	put 3 64K
	script -qec "'$NEARBLK' umount '$MNT'" "$T/typescript" >/dev/null
	grep -q "$MNT: unmounted; everything is at the target" "$T/typescript" || fail "umount said: $(cat "$T/typescript")"
}

# count OP: the requests that the log names.
count() {
	sed -n "s/.*count: $1: \([0-9]*\) requests, \([0-9]*\) bytes, 0 failed/\1 \2/p" "$LOG"
}

test_counts() {
	rm "$LOG"
	begin --debug-count --no-readahead
	dd if="$IMG" of=/dev/null bs=4k count=1 skip=1500 iflag=direct status=none
	put 4 256K
	nb flush "$MNT"
	umount_nb "$MNT"
	assert_eq "$(count read)" "1 4096" "reads, and bytes read"
	assert_eq "$(count write | cut -d' ' -f2)" 262144 "bytes written"
	[ "$(count flush | cut -d' ' -f1)" -ge 1 ] || fail "no flush was counted"
	rm "$LOG"
	begin
	umount_nb "$MNT"
	! grep -q count: "$LOG" || fail "counted without having been asked to"
}

# Each level has what the one before has, and more.
test_levels() {
	local level

	for level in error warning info debug; do
		rm "$LOG"
		begin --log-level "$level" --debug-fault write:always
		put 5 64K
		nb umount --no-flush "$MNT" >/dev/null
		cp "$LOG" "$T/$level"
		begin --log-level "$level"
		umount_nb "$MNT"
	done
	assert_eq "$(cat "$T/error")" "" "log of errors where there was none"
	! grep -v 'warning: ' "$T/warning" || fail "less than a warning is logged"
	grep -q 'warning: stopped: ' "$T/warning" || fail "no warning"
	grep -q 'is mounted on' "$T/info" || fail "no information"
	grep -q 'is mounted on' "$T/debug" || fail "debug leaves out information"
	[ "$(stat -c %a "$LOG")" = 600 ] || fail "the log is open to others"
	# On the terminal, in the foreground, by default.
	"$NEARBLK" mount -f --cache-dir "$T/cache" "file://$T/far" "$MNT" 2>"$T/said" &
	wait_for 10 status_is "$MNT" pid $!
	kill -TERM $!
	wait $!
	grep -q 'stopped: everything is at the target' "$T/said" || fail "nothing is logged on standard error"
}

random_file "$T/far" 8M 9
test_live_line
test_counts
test_levels
