#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# One bit of a cache directory is wrong: in payload, headers, barriers, footers, the identity record, the index,
# the run file. A clean directory mounts all the same and serves no wrong byte. One with unsent data mounts
# or is refused with a reason; what can be read is right, and the far side gets nothing but what belongs there,
# in order.
# FLIPS=2000 SEED=5 flips.sh: so many, these random numbers.

# shellcheck source=tests/lib/functions.sh
. "$(dirname "$0")/../lib/functions.sh"
require_root
require python3 /dev/fuse

FLIPS=${FLIPS:-60}
WRITES=300
SEED=${SEED:-$(od -An -N3 -tu4 /dev/urandom | tr -d ' ')}
say "SEED=$SEED FLIPS=$FLIPS"
HERE=$(cd "$(dirname "$0")" && pwd)
export PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=$HERE
CUT=(python3 -S "$HERE/cut.py")
FLIP=(python3 -S "$HERE/flip.py")
MNT=$T/mnt
declare -A count=()

# start DIR OPTION...
start() {
	local dir=$1

	shift
	"$NEARBLK" mount -f --cache-dir "$dir" --cache-size 32M --no-readahead "$@" "file://$T/far" "$MNT" \
		>"$T/nearblk.log" 2>&1 &
	PID=$!
	wait_for 20 open_or_dead
}

open_or_dead() {
	pid_gone "$PID" || [ "$(stat -fc %t "$MNT" 2>/dev/null)" = 65735546 ] && [ -s "$MNT/disk.img" ]
}

crash() {
	kill -9 "$PID"
	wait "$PID" 2>/dev/null || :
	umount -l "$MNT"
}

# template NAME: makes the directory $T/NAME and its far side $T/NAME.far with all writes of cut.py in it.
template() {
	local dir=$T/$1 options=()

	: >"$T/far"
	truncate -s 6M "$T/far"
	# Part of it arrives, and nothing more.
	[ "$1" = clean ] || options=(--debug-fault write:40:always)
	start "$dir" ${options[@]+"${options[@]}"}
	"${CUT[@]}" write "$MNT/disk.img" "$dir" "$SEED" $WRITES
	# Some of the clean store is in use, too.
	case $1 in
	clean)
		nb flush "$MNT"
		nb drop "$MNT"
		head -c 3M "$MNT/disk.img" >"$T/part"
		umount_nb "$MNT"
		wait "$PID"
		;;
	stopped)
		umount_nb --no-flush "$MNT" || [ $? = 3 ]
		wait "$PID" || [ $? = 3 ]
		;;
	killed) crash ;;
	esac
	cp "$T/far" "$dir.far"
	"${CUT[@]}" far "$T/far" "$SEED" $WRITES >/dev/null || fail "SEED=$SEED: $1: the far side is wrong as it is"
	[ "$1" = clean ] || ! "${CUT[@]}" check "$T/far" "$SEED" $WRITES $WRITES >/dev/null 2>&1 ||
		fail "nothing is unsent: this test sees nothing"
	"${FLIP[@]}" places "$dir" "$dir.places"
}

bump() {
	count[$1]=$((${count[$1]:-0} + 1))
}

# far_legal: what is at the target belongs there.
far_legal() {
	"${CUT[@]}" far "$T/far" "$SEED" $WRITES >/dev/null || fail "$WHAT: something wrong was sent"
}

# A refusal has a reason, and nothing was sent.
refused() {
	wait "$PID" && fail "$WHAT: the daemon ended without a word"
	grep -q "nearblk: " "$T/nearblk.log" || fail "$WHAT: refused without a reason"
	cmp "$T/far" "$T/$1.far" || fail "$WHAT: refused, but something was sent"
	bump refused
}

# flip NAME NUMBER
flip() {
	local lost

	rm -rf "$T/cache"
	cp -r --reflink=auto --sparse=always "$T/$1" "$T/cache"
	cp "$T/$1.far" "$T/far" # into the same file: it is the same volume
	WHAT="SEED=$SEED, flip $2, $1, $("${FLIP[@]}" flip "$T/cache" "$T/$1.places" "$SEED" "$2")"
	start "$T/cache"
	if pid_gone "$PID"; then
		[ "$1" != clean ] || fail "$WHAT: a clean directory does not mount: $(cat "$T/nearblk.log")"
		refused "$1"
		return
	fi
	lost=$("${FLIP[@]}" near "$MNT/disk.img" "$SEED" $WRITES) || fail "$WHAT: wrong near"
	if timeout 10 "$NEARBLK" flush "$MNT" >/dev/null 2>&1; then
		bump flushed
	else
		bump "not flushed"
		[ "$1" != clean ] || fail "$WHAT: a clean directory cannot be flushed"
	fi
	crash
	[ "$lost" = 0 ] || bump "with blocks lost"
	[ "$lost" = 0 ] || [ "$1" != clean ] || fail "$WHAT: $lost blocks of a clean directory cannot be read"
	far_legal
}

mkdir "$MNT"
for name in clean stopped killed; do template $name; done
for ((n = 0; n < FLIPS; n++)); do
	case $((n / 15 % 3)) in
	0) flip clean "$n" ;;
	1) flip stopped "$n" ;;
	2) flip killed "$n" ;;
	esac
done
for what in "${!count[@]}"; do say "$what: ${count[$what]}"; done
