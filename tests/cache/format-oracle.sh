#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# docs/FORMAT.md says what the program does: directories that the real program made, stopped with unsent
# data or killed, are read by reader.py, which was written from that text. The far file with the dirty blocks
# laid over it must be what was written. Then damage: both must find the same blocks lost.
# SEED=5 format-oracle.sh: these random numbers.

# shellcheck source=tests/lib/functions.sh
. "$(dirname "$0")/../lib/functions.sh"
require python3 /dev/fuse
[ -w /dev/fuse ] || skip "/dev/fuse is not ours"

HERE=$(cd "$(dirname "$0")" && pwd)
SEED=${SEED:-$(od -An -N3 -tu4 /dev/urandom | tr -d ' ')}
say "SEED=$SEED"
MNT=$T/mnt
FAR=$T/far
REF=$T/reference
NOTHING_SENT=(--debug-fault write:always --debug-fault zero:always --debug-fault discard:always)
export PYTHONDONTWRITEBYTECODE=1

begin() {
	mount_nb --cache-size 32M --max-dirty 20M --max-dirty-age 50ms --log "$T/nearblk.log" \
		"$@" "file://$FAR" "$MNT"
	PID=$(status_key "$MNT" pid)
}

# scribble COUNT
scribble() {
	SEED=$((SEED + 1))
	python3 "$HERE/scribble.py" "$MNT/disk.img" "$REF" "$SEED" "$1"
}

killed() {
	kill -9 "$PID"
	wait_gone 10 "$PID" || fail "kill -9 did not end the daemon"
	umount -l "$MNT" 2>/dev/null || fusermount3 -u -z "$MNT"
}

# agree WHAT: and print the figures.
agree() {
	cp --sparse=always "$FAR" "$T/far.before"
	python3 "$HERE/reader.py" "$T/cache" --compare "$FAR" "$REF" >"$T/read.json" ||
		fail "$1: the reader and the program disagree"
	say "$1: $(key records) records, watermark $(key watermark), $(key dirty_blocks) dirty," \
		"$(key clean_blocks)+$(key filled_blocks) clean blocks, cuts $(key cuts)"
}

key() {
	python3 "$NB_LIB/json_key.py" "$1" <"$T/read.json"
}

# No multiple of a block.
head -c $(((28 << 20) + 1536)) /dev/urandom >"$FAR"
cp "$FAR" "$REF"

begin --debug-delay 20ms
cat "$MNT/disk.img" >"$T/first" # fills the clean store
cmp "$T/first" "$REF"
scribble 120
nb flush "$MNT"
scribble 20
killed
agree "killed in the middle of write-back"

begin "${NOTHING_SENT[@]}"
scribble 60
umount_nb --no-flush "$MNT" || [ $? = 3 ]
agree "stopped with unsent data"
[ "$(key dirty_blocks)" -gt 50 ] || fail "no dirty data: this test sees nothing"

begin "${NOTHING_SENT[@]}"
scribble 40
killed
agree "killed with unsent data"

begin
scribble 100
umount_nb "$MNT"
agree "stopped clean"
assert_eq "$(key dirty_blocks)" 0 "dirty blocks after umount"
cmp "$FAR" "$REF" || fail "umount left something behind"
nb check --cache-dir "$T/cache" >/dev/null || fail "check finds damage where there is none"

# What is left of the log then is older than the target.
python3 "$HERE/spoil.py" "$T/cache" newest "$SEED"
agree "stopped clean, and the newest segment of the log lost"
begin
cmp "$MNT/disk.img" "$REF" || fail "an old version shows after the newest segment was lost"
umount_nb "$MNT"

# lost_here: which blocks cannot be read through the mount; all others must be right.
lost_here() {
	python3 - "$MNT/disk.img" "$REF" <<'END'
import os, sys
disk, reference = (os.open(p, os.O_RDONLY) for p in sys.argv[1:])
lost, at, size = [], 0, os.fstat(reference).st_size
os.posix_fadvise(disk, 0, 0, os.POSIX_FADV_RANDOM)
while at < size:
    want = os.pread(reference, 4096, at)
    try:
        got = os.pread(disk, 4096, at)
    except OSError:
        lost.append(at // 4096)
        got = want
    if got != want:
        sys.exit("block %d is wrong" % (at // 4096))
    at += 4096
print(lost)
END
}

# Damage: the daemon names the same blocks and reads all others right.
for what in segment open payload header; do
	begin "${NOTHING_SENT[@]}"
	scribble 30
	if [ $what = segment ]; then
		umount_nb --no-flush "$MNT" || [ $? = 3 ] # writes the footers
	else
		killed
	fi
	python3 "$HERE/spoil.py" "$T/cache" $what "$SEED"
	python3 "$HERE/reader.py" "$T/cache" >"$T/read.json"
	theirs=$(key lost_blocks | tr -d ' \n')
	if [ $what = segment ] || [ $what = open ]; then
		# The footer, or the first batch, says what the header did.
		assert_eq "$theirs" "[]" "blocks lost with a damaged $what"
	else
		[ "$theirs" != "[]" ] || fail "the reader does not see a damaged $what"
		assert_fails 3 "damaged" nb check --cache-dir "$T/cache"
	fi
	begin "${NOTHING_SENT[@]}"
	ours=$(lost_here | tr -d ' \n')
	assert_eq "$ours" "$theirs" "blocks lost with a damaged $what"
	say "damaged $what: lost $theirs"
	# Written again they are whole; what is unsent goes to a new directory's volume.
	umount_nb --no-flush "$MNT" || [ $? = 3 ]
	rm -rf "$T/cache"
	cp "$FAR" "$REF"
done
