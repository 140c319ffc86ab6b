#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Strict order, seen from the target: its file is recorded while write-back runs, and cut at random records
# with random loss of what was not synced, as by a disk with a volatile cache. Every time it must be the
# state at some flush of the writer with any part of what was written up to the next one, and after
# `nearblk flush' all of it.
# CUTS=100 SEED=5 far-order.sh: so many, these random numbers.

# shellcheck source=tests/lib/functions.sh
. "$(dirname "$0")/../lib/functions.sh"
require_root
require python3 /dev/fuse

CUTS=${CUTS:-24}
WRITES=${WRITES:-400}
SEED=${SEED:-$(od -An -N3 -tu4 /dev/urandom | tr -d ' ')}
say "SEED=$SEED CUTS=$CUTS"
RANDOM=$((SEED % 32768))
RECORDER=$(find_program tests/lib/recorder)
REPLAY=$(find_program tests/lib/replay)
CUT=(python3 -IS "$(cd "$(dirname "$0")" && pwd)/cut.py")
MNT=$T/mnt
ROOT=$T/root

mkdir -m 700 "$ROOT" "$T/source"
exec {READY}< <(exec "$RECORDER" "$T/source" "$ROOT" "$T/log")
read -rt 10 -u "$READY" || fail "the recorder does not start"
truncate -s 6M "$ROOT/far"
sync "$ROOT/far" "$ROOT"
# Epochs close by flush only, but for what the cache does by itself at a size.
mount_nb --cache-size 64M --max-dirty-age 1h --log "$T/nearblk.log" "file://$ROOT/far" "$MNT"
"${CUT[@]}" write "$MNT/disk.img" "$ROOT" "$SEED" "$WRITES"
nb flush "$MNT"
"${CUT[@]}" mark "$ROOT" "flush returned"
umount_nb "$MNT"
wait_for 10 umount "$ROOT"
"$REPLAY" "$T/log" --list >"$T/list"

# far_at RECORD: the far side after a cut there; sets EPOCHS.
far_at() {
	rm -rf "$T/cut"
	"$REPLAY" "$T/log" "$T/cut" --cut "$1" --seed $((RANDOM * 32768 + RANDOM)) --subset
	EPOCHS=$("${CUT[@]}" far "$T/cut/far" "$SEED" "$WRITES") ||
		fail "SEED=$SEED: out of order after a cut at $1"
}

first=$(awk '$2 == "write" { print $1; exit }' "$T/list")
end=$(awk '$2 == "mark" && /flush returned/ { print $1 }' "$T/list")
seen=
for ((n = 0; n < CUTS; n++)); do
	far_at $((first + RANDOM % (end - first)))
	seen="$seen $EPOCHS"
done
say "$((end - first)) records; flushes that were there:$seen"
[ "$(printf '%s\n' $seen | sort -u | wc -l)" -gt 3 ] || fail "all cuts alike: this test sees nothing"
far_at "$end"
"${CUT[@]}" check "$T/cut/far" "$SEED" "$WRITES" "$WRITES" >/dev/null ||
	fail "SEED=$SEED: nearblk flush returned before all was durable at the target"
