#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The daemon dies at each of its failpoints in turn, under a writer: every acknowledged write is there after
# the next mount, and at the target after a flush. A point that is never passed fails the test.
# ROUNDS=10 SEED=5 failpoints.sh: so often each, these random numbers.

# shellcheck source=tests/lib/functions.sh
. "$(dirname "$0")/../lib/functions.sh"
require_root
require /dev/fuse

ROUNDS=${ROUNDS:-1}
SEED=${SEED:-$(od -An -N3 -tu4 /dev/urandom | tr -d ' ')}
RANDOM=$((SEED % 32768))
ACKED=$(find_program tests/integration/acked)
MNT=$T/mnt

# start [OPTION...]: the daemon. Small, so that it evicts; in a new directory now and then, for what happens
# in new directories only.
start() {
	"$NEARBLK" mount -f --cache-dir "$T/cache" --cache-size 32M --max-dirty 12M --max-dirty-age 200ms \
		"$@" "file://$T/disk" "$MNT" >>"$T/nearblk.log" 2>&1 &
	DAEMON=$!
}

ready() {
	pid_gone "$DAEMON" || { "$NEARBLK" status "$MNT" && [ -e "$MNT/disk.img" ]; }
}

near_good() {
	"$ACKED" check near "$MNT/disk.img" "$T/notes" || fail "SEED=$SEED: lost or wrong near after $1"
}

# die POINT:NTH: starts the daemon, which dies there under a writer, perhaps before that, or before it is
# mounted.
die() {
	local status=0

	start --debug-kill "$1"
	wait_for 30 ready
	"$ACKED" write "$MNT/disk.img" "$T/notes" $((RANDOM * 32768 + RANDOM)) 16 zeroes >"$T/writer.log" 2>&1 &
	writer=$!
	wait_gone 20 "$DAEMON" || fail "SEED=$SEED: $1 is never passed"
	wait "$writer" || status=$?
	case $status in
	2 | 3) ;; # no file any more; a write that failed
	*) fail "SEED=$SEED: $1: the writer ended with $status: $(cat "$T/writer.log")" ;;
	esac
	status=0
	wait "$DAEMON" 2>/dev/null || status=$?
	assert_eq "$status" 137 "SEED=$SEED: exit status of the daemon that is to die at $1"
}

# recover WHAT
recover() {
	start
	wait_for 30 ready
	pid_gone "$DAEMON" && fail "SEED=$SEED: does not start after $1"
	near_good "$1"
	nb flush "$MNT"
	"$ACKED" check far "$T/disk" "$T/notes" || fail "SEED=$SEED: lost or wrong far after $1"
	cmp "$MNT/disk.img" "$T/disk" || fail "SEED=$SEED: $1: flushed, but the far side has other bytes"
	umount_nb "$MNT" >/dev/null
	wait "$DAEMON"
}

say "SEED=$SEED ROUNDS=$ROUNDS"
# 40 MiB: more than the cache holds.
"$ACKED" make "$T/disk" "$T/notes" 81920
mkdir "$MNT"
on_exit drop_mount "$MNT"
points=$({ "$NEARBLK" mount --debug-kill '?' file:///x "$MNT" 2>&1 || :; } | sed -n 's/.*POINT one of //p')
[ "$(wc -w <<<"$points")" -ge 12 ] || fail "these are no failpoints: $points"
for ((round = 0; round < ROUNDS; round++)); do
	for point in $points; do
		# The first and some later pass; what happens once in a start, or once in a new directory, the
		# first.
		case $point in
		identity | before-cut | after-cut) nth=1 ;;
		prepare)
			nth=$((1 + RANDOM % 3))
			rm -rf "$T/cache"
			;;
		evict) nth=$((1 + RANDOM % 4)) ;;
		*) nth=$((1 + RANDOM % 20)) ;;
		esac
		die "$point:$nth"
		recover "$point:$nth"
	done
done
say "$points: each passed, $("$ACKED" show "$T/notes" acked) writes kept"
