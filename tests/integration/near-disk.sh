#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The near disk is full, on a file system of its own: by others and free again, with and without the target,
# and at a start. No write fails, none that was acknowledged is lost, and all of it arrives.

# shellcheck source=tests/lib/functions.sh
. "$(dirname "$0")/../lib/functions.sh"
require_root
require tgtd mkfs.ext4 losetup /dev/fuse

IQN=iqn.2024-01.test:$NB_ID
MNT=$T/mnt
IMG=$MNT/disk.img
NEAR=$T/near
REF=$T/ref
NB_CACHE=$NEAR/cache

begin() {
	mount_nb --log "$T/nearblk.log" --cache-size 40M --max-dirty 16M "iscsi://$TGTD_PORTAL/$IQN/1" "$MNT"
	PID=$(status_key "$MNT" pid)
}

# put AT COUNT SEED: COUNT MiB of it at AT MiB, here and in the reference.
put() {
	random_file "$T/new" "$2M" "$3"
	dd if="$T/new" of="$REF" bs=1M seek="$1" conv=notrunc status=none
	dd if="$T/new" of="$IMG" bs=64k seek=$(($1 * 16)) conv=notrunc status=none
}

same_here() {
	drop_page_cache
	cmp "$IMG" "$REF" || fail "$1: wrong bytes"
}

arrived() {
	nb flush "$MNT"
	cmp "$T/disk" "$REF" || fail "$1: something has not arrived"
}

fill_up() {
	dd if=/dev/zero of="$NEAR/filler" bs=64k status=none 2>/dev/null || :
	dd if=/dev/zero of="$NEAR/filler2" bs=4k status=none 2>/dev/null || :
	assert_between 0 "$(stat -fc %a "$NEAR")" 16 "free blocks"
}

make_room() {
	rm -f "$NEAR/filler" "$NEAR/filler2"
}

all_lost() {
	! nb status --json "$MNT" | grep -q '"state": "up"'
}

target_gone() {
	tgtd_kill
	wait_for 5 all_lost
}

# killed: kill -9 of the daemon.
killed() {
	kill -9 "$PID"
	wait_gone 10 "$PID" || fail "kill -9 did not end the daemon"
	umount -l "$MNT"
}

random_file "$T/disk" 48M 7
cp "$T/disk" "$REF"
tgtd_start
tgtd_lun disk "$IQN" 1 "$T/disk"
truncate -s 72M "$T/near.img"
mkfs.ext4 -q -m 0 "$T/near.img"
mkdir "$NEAR"
mount -o loop,errors=remount-ro "$T/near.img" "$NEAR"

test_full_by_others() {
	begin
	cat "$IMG" >/dev/null # the clean store has all the room
	fill_up
	# More than there is room for: it goes round in what there is.
	put 0 40 11
	same_here "full"
	arrived "full"
	# The target away, too: it waits, nobody gets an error, and with room it goes on.
	target_gone
	random_file "$T/late" 14M 12
	dd if="$T/late" of="$REF" bs=1M seek=10 conv=notrunc status=none
	dd if="$T/late" of="$IMG" bs=64k seek=160 conv=notrunc,fsync status=none &
	writer=$!
	make_room
	wait "$writer" || fail "a write failed on a disk that was full"
	tgtd_restart # what was given back comes from there
	same_here "free again"
	arrived "free again"
}

test_full_at_start() {
	target_gone
	put 3 9 13
	fill_up
	killed
	tgtd_restart
	begin
	same_here "full at a start"
	put 20 12 14
	arrived "full at a start"
	umount_nb "$MNT"
	begin
	put 1 5 15
	umount_nb "$MNT"
	make_room
	cmp "$T/disk" "$REF" || fail "umount on a full disk left something behind"
}

for t in full_by_others full_at_start; do
	begun=$EPOCHREALTIME
	"test_$t"
	say "$t: $(((${EPOCHREALTIME/./} - ${begun/./}) / 1000)) ms"
done
umount "$NEAR"
