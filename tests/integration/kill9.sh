#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# kill -9 of the daemon at random moments, of its start too, under a writer in a process of its own:
# every acknowledged write is there after the next mount, and at the target after flush.
# KILLS=20 SEED=5 kill9.sh: so many times, these random numbers.

# shellcheck source=tests/lib/functions.sh
. "$(dirname "$0")/../lib/functions.sh"
require_root
require tgtd /dev/fuse

KILLS=${KILLS:-8}
SEED=${SEED:-$(od -An -N3 -tu4 /dev/urandom | tr -d ' ')}
RANDOM=$SEED
ACKED=$(find_program tests/integration/acked)
IQN=iqn.2024-01.test:$NB_ID
MNT=$T/mnt

# start: the daemon as a child of ours, so that it can be killed before it is mounted.
start() {
	local slow=()

	# Now at the limit, where writers wait, and now far from it.
	[ $((RANDOM % 2)) = 0 ] || slow=(--max-dirty 12M --debug-delay 15ms)
	"$NEARBLK" mount -f --cache-dir "$T/cache" --cache-size 96M ${slow[@]+"${slow[@]}"} \
		"iscsi://$TGTD_PORTAL/$IQN/1" "$MNT" >>"$T/nearblk.log" 2>&1 &
	DAEMON=$!
}

ready() {
	pid_gone "$DAEMON" && fail "the daemon does not start"
	nb status "$MNT" && [ -e "$MNT/disk.img" ]
}

# kill_daemon: now; and its pid is nobody's afterwards.
kill_daemon() {
	kill -9 "$DAEMON"
	wait "$DAEMON" 2>/dev/null || :
}

# pause MILLISECONDS: up to that long; the random moment.
pause() {
	sleep "$(printf '0.%03d' $((RANDOM % $1)))"
}

acknowledged() {
	[ "$("$ACKED" show "$T/notes" acked)" -gt "$1" ]
}

round() {
	local before writer status=0

	before=$("$ACKED" show "$T/notes" acked)
	if [ $((RANDOM % 3)) = 0 ]; then
		start
		pause 150
		kill_daemon
	fi
	start
	wait_for 30 ready
	"$ACKED" check near "$MNT/disk.img" "$T/notes"
	"$ACKED" write "$MNT/disk.img" "$T/notes" $((RANDOM * 32768 + RANDOM)) 12 &
	writer=$!
	wait_for 10 acknowledged "$before"
	pause 999
	kill_daemon
	wait "$writer" || status=$?
	assert_eq "$status" 3 "exit status of the writer whose daemon was killed"
}

say "SEED=$SEED KILLS=$KILLS"
"$ACKED" make "$T/disk" "$T/notes" 65536
mkdir "$MNT"
on_exit drop_mount "$MNT"
tgtd_start
tgtd_lun one "$IQN" 1 "$T/disk"
for ((i = 0; i < KILLS; i++)); do
	round
done
start
wait_for 30 ready
"$ACKED" check near "$MNT/disk.img" "$T/notes"
nb flush "$MNT"
cmp "$MNT/disk.img" "$T/disk" || fail "flushed, but the target has other bytes"
"$ACKED" check far "$T/disk" "$T/notes"
umount_nb "$MNT"
