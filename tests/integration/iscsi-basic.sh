#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A LUN as a file: the same bytes on both sides, whatever the target negotiates, however large its
# sectors, whatever its size, over every portal; and over all sessions at once.

# shellcheck source=tests/lib/functions.sh
. "$(dirname "$0")/../lib/functions.sh"
require_root
require tgtd fio ss blkdiscard losetup /dev/fuse

IQN=iqn.2024-01.test:$NB_ID
MNT=$T/mnt
IMG=$MNT/disk.img

# begin LUN [OPTION...]: mounts it with an empty cache.
begin() {
	local lun=$1

	shift
	rm -rf "$T/cache"
	mount_nb --log "$T/nearblk.log" --cache-size 128M "$@" "iscsi://$PORTALS/$IQN/$lun" "$MNT"
}

end() {
	umount_nb "$MNT" >"$T/out"
	grep -q 'everything is at the target' "$T/out" || fail "umount said: $(cat "$T/out")"
}

# both_ways LUN FILE: what is there arrives here, what is written here arrives there; also where the
# two halves of a block, or of a sector, meet.
both_ways() {
	local lun=$1 file=$2 size

	shift 2
	size=$(stat -c %s "$file")
	random_file "$file" "$size" "$lun"
	cp "$file" "$T/want"
	begin "$lun" "$@"
	assert_eq "$(stat -c %s "$IMG")" "$size" "size of disk.img"
	cmp "$IMG" "$file" || fail "LUN $lun reads wrong"
	random_file "$T/new" 3M $((lun + 100))
	dd if="$T/new" of="$IMG" bs=1000003 seek=1 conv=notrunc status=none
	dd if="$T/new" of="$T/want" bs=1000003 seek=1 conv=notrunc status=none
	tail -c 700 "$T/new" | dd of="$IMG" bs=1 seek=$((size - 700)) conv=notrunc status=none
	tail -c 700 "$T/new" | dd of="$T/want" bs=1 seek=$((size - 700)) conv=notrunc status=none
	cmp "$IMG" "$T/want" || fail "LUN $lun does not read what was written"
	nb flush "$MNT"
	cmp "$file" "$T/want" || fail "LUN $lun: the target has other bytes than were flushed"
	end
}

test_negotiations_and_sizes() {
	truncate -s 24M "$T/plain"
	truncate -s 24M "$T/sectors"
	truncate -s $((20 * 1024 * 1024 + 3 * 512)) "$T/odd"
	tgtd_lun plain "$IQN" 1 "$T/plain"
	tgtd_lun sectors "$IQN" 2 "$T/sectors" 4096
	tgtd_lun odd "$IQN" 3 "$T/odd"
	both_ways 1 "$T/plain"
	both_ways 2 "$T/sectors"
	both_ways 3 "$T/odd"
	tgtd_param "$IQN"
	both_ways 1 "$T/plain"
	both_ways 3 "$T/odd" --sessions 1
}

# For wait_for: the target counts so many.
sessions_are() {
	[ "$(tgtd_sessions "$IQN")" = "$1" ]
}

# True when that many sessions have each brought a tenth of the LUN.
all_had_work() {
	local bytes

	bytes=$(ss -tniH dport = ":$TGTD_PORT" | grep -o 'bytes_received:[0-9]*' | cut -d: -f2)
	[ "$(awk '$1 > 2400000' <<<"$bytes" | wc -l)" = "$1" ]
}

test_all_sessions() {
	begin 1 --sessions 3 --no-readahead
	assert_eq "$(status_key "$MNT" 'sessions.#')" 3 "sessions in the status"
	for i in 0 1 2; do
		wait_for 10 status_is "$MNT" "sessions.$i.state" up
		assert_eq "$(status_key "$MNT" "sessions.$i.portal")" "$PORTALS" "portal of session $i"
		assert_eq "$(status_key "$MNT" "sessions.$i.reconnects")" 0 "reconnects of session $i"
	done
	assert_eq "$(tgtd_sessions "$IQN")" 3 "sessions that the target counts"
	fio --name=r --filename="$IMG" --rw=randread --bs=64k --direct=1 --ioengine=libaio --iodepth=32 \
		--size=24m --output="$T/fio.log" --thread
	all_had_work 3 || fail "not all sessions were used: $(ss -tni dport = ":$TGTD_PORT")"
	end
	wait_for 5 sessions_are 0
}

# For wait_for: each session is up, the even ones at the first portal, the odd ones at the second.
sessions_at() {
	local i portals=("$@")

	for i in 0 1 2 3; do
		status_is "$MNT" "sessions.$i.state" up || return 1
		status_is "$MNT" "sessions.$i.portal" "${portals[i % 2]}" || return 1
	done
}

# For wait_for.
sent_more_than() {
	[ "$(status_key "$MNT" target_write_bytes)" -gt "$1" ]
}

# portal_goes ADDRESS PORTAL: no more logins there, and what is connected is closed.
portal_goes() {
	local sid tid

	tid=$(tgtd_tid "$IQN")
	tgt_adm --lld iscsi --op delete --mode portal --param "portal=$2"
	for sid in $(tgt_adm --lld iscsi --op show --mode conn --tid "$tid" |
		awk -v address="$1" '/^Session:/ { sid = $2 } $1 == "IP" && $3 == address { print sid }'); do
		tgt_adm --lld iscsi --op delete --mode conn --tid "$tid" --sid "$sid" --cid 0
	done
}

# Both are used; one dies under writes, and its sessions go over to the other one.
test_two_portals() {
	local four=$PORTALS six="[::1]:$TGTD_PORT" fio
	local PORTALS=$four,$six

	begin 1 --no-readahead
	wait_for 10 sessions_at "$four" "$six"
	fio --name=r --filename="$IMG" --rw=randread --bs=64k --direct=1 --ioengine=libaio --iodepth=32 \
		--size=24m --output="$T/fio.log" --thread
	all_had_work 4 || fail "not all sessions were used: $(ss -tni dport = ":$TGTD_PORT")"
	fio --name=w --filename="$IMG" --rw=randwrite --bsrange=4k-256k --direct=1 --ioengine=libaio \
		--iodepth=8 --size=24m --rate=8m --fsync=8 --thread --verify=crc32c --verify_fatal=1 \
		--verify_state_save=0 --output="$T/fio.log" &
	fio=$!
	wait_for 10 sent_more_than 2000000
	portal_goes ::1 "$six"
	wait_for 20 sessions_at "$four" "$four"
	wait "$fio" || fail "fio saw the portal die: $(cat "$T/fio.log")"
	assert_between 1 "$(status_key "$MNT" sessions.1.reconnects)" 9 "reconnects of a session that moved"
	assert_eq "$(status_key "$MNT" sessions.0.reconnects)" 0 "reconnects of one that did not"
	nb flush "$MNT"
	cmp "$IMG" "$T/plain" || fail "the target has other bytes than were flushed"
	end
	tgt_adm --lld iscsi --op new --mode portal --param "portal=$six"
}

test_two_portals_one_dead() {
	local dead PORTALS=$PORTALS

	dead=$(free_port)
	PORTALS=127.0.0.1:$dead,$PORTALS
	both_ways 1 "$T/plain"
}

test_ipv6() {
	local PORTALS="[::1]:$TGTD_PORT"

	both_ways 1 "$T/plain"
}

test_beyond_2_tib() {
	local last=$((3 * 1024 * 1024)) # the size in MiB

	truncate -s 3T "$T/big"
	tgtd_lun big "$IQN" 4 "$T/big"
	random_file "$T/new" 2M 5
	dd if="$T/new" of="$T/big" bs=1M seek=$((last - 8)) conv=notrunc status=none
	begin 4
	assert_eq "$(stat -c %s "$IMG")" $((last << 20)) "size of disk.img"
	cmp -n 2M -i $((last - 8))M:0 "$IMG" "$T/new" || fail "reads wrong behind 2 TiB"
	random_file "$T/new" 4M 6
	dd if="$T/new" of="$IMG" bs=1M seek=$((last - 4)) conv=notrunc status=none
	dd if="$T/new" of="$IMG" bs=1M seek=$((2 * 1024 * 1024 - 2)) conv=notrunc status=none
	assert_fails any 'No space left' dd if="$T/new" of="$IMG" bs=1M count=1 seek="$last" conv=notrunc
	nb flush "$MNT"
	cmp -n 4M -i $((last - 4))M:0 "$T/big" "$T/new" || fail "the end is not at the target"
	cmp -n 4M -i $((2 * 1024 * 1024 - 2))M:0 "$T/big" "$T/new" || fail "2 TiB is not at the target"
	assert_between 1 "$(du -k "$T/big" | cut -f1)" 20480 "space taken of the 3 TiB, KiB"
	end
}

# used FILE: bytes of the disk that it takes.
used() {
	echo $(($(stat -c '%b * %B' "$1")))
}

test_discard() {
	local before

	truncate -s 64M "$T/thin"
	random_file "$T/thin" 64M 7
	cp "$T/thin" "$T/want"
	tgtd_lun thin "$IQN" 5 "$T/thin" 512 thin
	before=$(used "$T/thin")
	begin 5
	fallocate --punch-hole --offset 16M --length 16M "$IMG"
	fallocate --punch-hole --offset 16M --length 16M "$T/want"
	loop_over "$IMG"
	blkdiscard --offset 40M --length 8M "$LOOP"
	fallocate --punch-hole --offset 40M --length 8M "$T/want"
	blkdiscard --zeroout --offset 50M --length 2M "$LOOP"
	fallocate --punch-hole --offset 50M --length 2M "$T/want"
	loop_detach "$LOOP" "$IMG"
	cmp "$IMG" "$T/want" || fail "a discarded range is not zero"
	nb flush "$MNT"
	cmp "$T/thin" "$T/want" || fail "a discarded range is not zero at the target"
	assert_between $((before - (27 << 20))) "$(used "$T/thin")" $((before - (24 << 20))) \
		"space taken after discarding 24 MiB of $before"
	drop_page_cache "$T/thin"
	nb drop "$MNT"
	cmp "$IMG" "$T/want" || fail "a discarded range comes back"
	end
}

tgtd_start - '' 127.0.0.1 ::1
PORTALS=$TGTD_PORTAL
test_negotiations_and_sizes
test_all_sessions
test_two_portals
test_two_portals_one_dead
test_ipv6
test_beyond_2_tib
test_discard
