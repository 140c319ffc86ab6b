#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Power cuts of the real program: what it does to its cache directory is recorded below it, then replayed up
# to a point with random loss of what was not synced. The next mount must show a state that was, and none
# older than the last fsync. Some are cut again while they recover. The far side takes no writes, so all
# that is seen comes out of the directory.
# CUTS=100 SEED=5 power-cut.sh: so many, these random numbers.

# shellcheck source=tests/lib/functions.sh
. "$(dirname "$0")/../lib/functions.sh"
require_root
require python3 /dev/fuse

CUTS=${CUTS:-32}
AGAIN=${AGAIN:-3}
WRITES=${WRITES:-400}
SEED=${SEED:-$(od -An -N3 -tu4 /dev/urandom | tr -d ' ')}
say "SEED=$SEED CUTS=$CUTS"
RANDOM=$((SEED % 32768))
RECORDER=$(find_program tests/lib/recorder)
REPLAY=$(find_program tests/lib/replay)
# Without site-packages it starts in half the time.
CUT=(python3 -IS "$(cd "$(dirname "$0")" && pwd)/cut.py")
FAR=$T/far
MNT=$T/mnt
ROOT=$T/root # where recorders are mounted
OPTIONS=(--cache-size 32M --debug-fault write:always
	--debug-fault zero:always --debug-fault discard:always)

truncate -s 6M "$FAR"
mkdir "$ROOT" "$MNT"

# record NAME: mounts a recorder on $ROOT over an empty directory; its log is $T/NAME.
record() {
	rm -rf "$T/source"
	mkdir -m 700 "$T/source"
	exec {READY}< <(exec "$RECORDER" "$T/source" "$ROOT" "$T/$1")
	RECORDER_PID=$!
	read -rt 10 -u "$READY" || fail "the recorder does not start"
}

end_record() {
	wait_for 10 umount "$ROOT"
	wait_gone 10 "$RECORDER_PID" || fail "the recorder does not end"
	exec {READY}<&-
}

# start DIR: the daemon, on that cache directory.
start() {
	"$NEARBLK" mount -f --cache-dir "$1" "${OPTIONS[@]}" "file://$FAR" "$MNT" >>"$T/nearblk.log" 2>&1 &
	PID=$!
	wait_for 20 open_or_dead
	pid_gone "$PID" && fail "SEED=$SEED: does not mount after a cut at $at ($mode)"
	:
}

open_or_dead() {
	pid_gone "$PID" || [ "$(stat -fc %t "$MNT" 2>/dev/null)" = 65735546 ] && [ -s "$MNT/disk.img" ]
}

# The daemon is our child: it leaves no name behind once waited for.
crash() {
	kill -9 "$PID"
	wait "$PID" 2>/dev/null || :
	umount -l "$MNT"
}

# state LOW [HIGH]: checks what is mounted; sets STATE.
state() {
	STATE=$("${CUT[@]}" check "$MNT/disk.img" "$SEED" "$WRITES" "$@") ||
		fail "SEED=$SEED: wrong after a cut at $at ($mode)"
}

# cut_dir LOG AT MODE: makes $T/cut as it is after that.
cut_dir() {
	local options=()

	case $3 in
	subset | all) options=("--$3") ;;
	esac
	rm -rf "$T/cut"
	"$REPLAY" "$1" "$T/cut" --cut "$2" --seed $((RANDOM * 32768 + RANDOM)) \
		${options[@]+"${options[@]}"}
	# A power cut is followed by another boot.
	[ "$3" = all ] || [ ! -s "$T/cut/cache/run" ] ||
		printf 00000000-1111-2222-3333-444444444444 |
		dd of="$T/cut/cache/run" bs=1 seek=8 conv=notrunc status=none
}

at=0
mode=recording
record log
start "$ROOT/cache"
"${CUT[@]}" write "$MNT/disk.img" "$ROOT" "$SEED" "$WRITES"
state "$WRITES"
crash
# What a killed daemon left in the page cache is durable once the next one has opened it.
start "$ROOT/cache"
state "$WRITES"
"${CUT[@]}" mark "$ROOT" "flushed $WRITES"
crash
end_record
"$REPLAY" "$T/log" --list >"$T/list"
fsyncs=$(grep -c ' flushed ' "$T/list")
say "$(wc -l <"$T/list") records, $fsyncs fsyncs"
[ $((CUTS * 4 / 5)) -ge "$fsyncs" ] || say "not every fsync is cut behind: CUTS=$((fsyncs * 5 / 4 + 2)) would"

lost=0
points=$("${CUT[@]}" points "$T/list" "$SEED" "$CUTS")
n=0
for at in $points; do
	n=$((n + 1))
	case $((n % 6)) in
	0) mode=synced ;;
	3) mode=all ;;
	*) mode=subset ;;
	esac
	read -r low acked < <("${CUT[@]}" floor "$T/list" "$at")
	# kill -9: nothing acknowledged is lost
	[ $mode != all ] || low=$acked
	cut_dir "$T/log" "$at" $mode
	start "$T/cut/cache"
	state "$low"
	[ "$STATE" -ge "$acked" ] || lost=$((lost + 1))
	crash
done
say "$n cuts; $lost of them lost writes that were acknowledged but not flushed"

# Cut again in the middle of recovery, and after it, when the state must not move any more.
for ((again = 0; again < AGAIN; again++)); do
	at=$(echo "$points" | sed -n "$((RANDOM % n + 1))p")
	mode="subset, and again"
	read -r low acked < <("${CUT[@]}" floor "$T/list" "$at")
	cut_dir "$T/log" "$at" subset
	[ -d "$T/cut/cache" ] || continue
	record log2
	"${CUT[@]}" copy "$T/cut" "$ROOT"
	start "$ROOT/cache"
	open=$("$REPLAY" "$T/log2" --list | tail -n 1 | cut -d' ' -f1)
	state "$low"
	first=$STATE
	crash
	end_record
	"$REPLAY" "$T/log2" --list >"$T/list2"
	from=$(awk '$2 == "mark" && /copied/ { print $1 }' "$T/list2")
	for at in $((from + RANDOM % (open - from))) $((from + RANDOM % (open - from))) "$open"; do
		cut_dir "$T/log2" "$at" subset
		start "$T/cut/cache"
		state "$low"
		[ "$at" != "$open" ] ||
			assert_eq "$STATE" "$first" "SEED=$SEED: state after a second cut"
		crash
	done
	say "cut again: state $first, $((open - from)) records of recovery"
done
cmp -n $((6 << 20)) "$FAR" /dev/zero || fail "the far side took something: this test proves less"
