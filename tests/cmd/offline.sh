#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Cache directories that nobody has mounted: what status lists, what check says and with which exit
# status, and that neither leaves a trace where it has no business.

# shellcheck source=tests/lib/functions.sh
. "$(dirname "$0")/../lib/functions.sh"
require python3 flock /dev/fuse
[ -w /dev/fuse ] || skip "/dev/fuse is not ours"

MNT=$T/mnt
IMG=$MNT/disk.img
FAR=$T/far
CACHE=$T/cache
NOTHING_SENT=(--debug-fault write:always --debug-fault zero:always)

begin() {
	mount_nb --cache-size 32M --log "$T/nearblk.log" "$@" "file://$FAR" "$MNT"
	PID=$(status_key "$MNT" pid)
}

killed() {
	kill -9 "$PID"
	wait_for 10 pid_gone "$PID"
	umount -l "$MNT" 2>/dev/null || fusermount3 -u -z "$MNT"
}

# put SEED SIZE
put() {
	random_file "$T/new" "$2" "$1"
	dd if="$T/new" of="$IMG" bs=64k conv=notrunc,fsync status=none
}

# listed KEY: of the one volume that status lists.
listed() {
	nb status --json | python3 "$NB_LIB/json_key.py" "0.$1"
}

# bytes WORD: what check says of it.
bytes() {
	sed -n "s/^$1 .*(\([0-9]*\) bytes)/\1/p" "$T/out"
}

# A killed daemon has not said that it is clean; its log does.
test_killed_clean() {
	begin
	put 1 3M
	nb flush "$MNT"
	killed
	assert_eq "$(nb status)" "no volumes" "status after flush and kill -9"
	assert_eq "$(nb status --json)" "[]" "status --json after flush and kill -9"
	nb check --cache-dir "$CACHE" >"$T/out"
	assert_eq "$(bytes dirty)" 0 "dirty bytes"
	assert_eq "$(bytes clean)" $((3 << 20)) "clean bytes"
	assert_eq "$(bytes damaged)" 0 "damaged bytes"
	begin "${NOTHING_SENT[@]}"
	put 2 1M
	killed
	assert_eq "$(listed state)" dirty "state with unsent data"
	assert_between $((1 << 20)) "$(listed dirty_bytes)" $((2 << 20)) "dirty bytes listed"
	nb check --cache-dir "$CACHE" >"$T/out"
	assert_eq "$(bytes dirty)" $((1 << 20)) "dirty bytes"
	assert_eq "$(bytes clean)" $((3 << 20)) "clean bytes"
	begin
	umount_nb "$MNT"
}

# The index is no part of what counts: thrown away, all is there again.
test_rebuild_index() {
	local NB_CACHE=$T/other

	begin
	cat "$IMG" >"$T/first"
	umount_nb "$MNT"
	: >"$NB_CACHE/index/witness"
	nb check --cache-dir "$NB_CACHE" --rebuild-index >"$T/out"
	grep -q '^index .*thrown away' "$T/out" || fail "check --rebuild-index said: $(cat "$T/out")"
	[ ! -e "$NB_CACHE/index/witness" ] || fail "the index was not thrown away"
	begin
	cmp "$IMG" "$FAR"
	# Nothing but the samples that are compared.
	assert_between 0 "$(status_key "$MNT" target_read_bytes)" $((32 * 4096)) "bytes read from the far side"
	umount_nb "$MNT"
}

# For wait_for.
is_locked() {
	! flock -n "$CACHE/lock" true
}

# Somebody who looks is not in the way of a mount; a daemon is, and at once.
test_lock() {
	local begin

	flock "$CACHE/lock" sleep 1 &
	wait_for 5 is_locked
	begin
	begin=$SECONDS
	mkdir -p "$T/mnt2"
	assert_fails 1 "in use by process $PID" nb mount --cache-dir "$CACHE" "file://$FAR" "$T/mnt2"
	assert_between 0 $((SECONDS - begin)) 2 "seconds until it was refused"
	umount_nb "$MNT"
}

# Neither one's home nor a directory that is not there becomes a cache by being asked about.
test_strangers() {
	mkdir -m 700 "$T/home"
	echo letter >"$T/home/letter"
	assert_fails 1 'is no cache directory' nb check --cache-dir "$T/home"
	assert_eq "$(ls -A "$T/home")" letter "files in a directory that is no cache"
	assert_fails 1 'No such file' nb check --cache-dir "$T/absent"
	[ ! -e "$T/absent" ] || fail "check makes directories"
	# What another program may have there proves nothing.
	: >"$T/home/lock"
	assert_fails 1 'holds other files \(letter\)' nb mount --cache-dir "$T/home" "file://$FAR" "$MNT"
	assert_eq "$(cat "$T/home/letter")" letter "somebody's letter"
	# A first mount that was cut short has left no more than this.
	mkdir -m 700 "$T/early"
	: >"$T/early/lock"
	: >"$T/early/run"
	NB_CACHE=$T/early begin
	NB_CACHE=$T/early umount_nb "$MNT"
}

# One in the middle of those that hold what is not sent.
unsent_segment() {
	PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=$NB_LIB/../cache python3 - "$CACHE" <<-'END'
		import os, sys
		from reader import Cache
		cache = Cache(sys.argv[1])
		first = {}
		for record in cache.dirty.values():
		    name = os.path.basename(record.segment.file.name)
		    first[name] = min(first.get(name, record.seq), record.seq)
		names = sorted(first, key=first.get)
		assert len(names) > 2, names
		print(names[len(names) // 2])
	END
}

# A segment with unsent data is gone: refused, listed, and told in words that fit who asked.
test_incomplete() {
	local missing segment

	begin "${NOTHING_SENT[@]}" --max-dirty 20M
	put 4 12M
	killed
	segment=$(unsent_segment)
	mv "$CACHE/$segment" "$T/$segment"
	assert_eq "$(listed state)" damaged "state with a segment lost"
	assert_eq "$(listed dirty_bytes)" null "dirty bytes that cannot be counted"
	assert_eq "$(listed cache_dir)" "$CACHE" "its directory"
	missing='[0-9]+ records .* are missing \(sequence [0-9]+ to [0-9]+\).*\*\.seg.*--cache-dir'
	assert_fails 3 "$missing" nb check --cache-dir "$CACHE"
	assert_fails 1 "$missing" nb mount --cache-dir "$CACHE" "file://$FAR" "$MNT"
	! nb check --cache-dir "$CACHE" 2>&1 | grep -q 'nearblk check' || fail "check points at check"
	mv "$T/$segment" "$CACHE/$segment"
	begin
	cmp -n 12M "$IMG" "$T/new" || fail "the segment is back, but not its data"
	umount_nb "$MNT"
	cmp -n 12M "$FAR" "$T/new" || fail "unsent data was lost"
}

# Both copies of the record spoilt: nobody knows of which volume, but it is not passed over.
test_no_identity() {
	begin "${NOTHING_SENT[@]}"
	put 5 1M
	killed
	printf 'spoilt' | dd of="$CACHE/identity.a" bs=1 seek=64 conv=notrunc status=none
	printf 'spoilt' | dd of="$CACHE/identity.b" bs=1 seek=64 conv=notrunc status=none
	assert_eq "$(listed state)" damaged "state without an identity"
	assert_eq "$(listed url)" null "url without an identity"
	assert_fails 3 'identity' nb check --cache-dir "$CACHE"
}

random_file "$FAR" 16M 9
# Known to status as soon as it was mounted once.
test_killed_clean
test_rebuild_index
test_lock
test_strangers
test_incomplete
test_no_identity
