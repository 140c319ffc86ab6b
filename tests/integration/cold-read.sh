#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What runs ahead of a reader over a long line brings the right bytes, whatever way the reader goes;
# and what was read once is not asked for again, not even by the next mount. Nothing here measures speed.

# shellcheck source=tests/lib/functions.sh
. "$(dirname "$0")/../lib/functions.sh"
require_root
require tgtd python3 /dev/fuse

IQN=iqn.2024-01.test:$NB_ID
MNT=$T/mnt
IMG=$MNT/disk.img

# read_like PATTERN SEED: compares disk.img with the reference on the way, O_DIRECT or not.
read_like() {
	python3 - "$IMG" "$T/disk" "$@" <<-'END'
		import mmap, os, random, sys
		image, reference, pattern, seed = sys.argv[1:]
		rng = random.Random(int(seed))
		fd = os.open(image, os.O_RDONLY | (os.O_DIRECT if pattern != "streams" else 0))
		want = open(reference, "rb").read()
		size = len(want)
		def check(offset, length):
		    memory = mmap.mmap(-1, length)
		    got = os.preadv(fd, [memory], offset)
		    if memory[:got] != want[offset:offset + length] or got != min(length, size - offset):
		        sys.exit("%s: wrong bytes at %d+%d" % (pattern, offset, length))
		if pattern == "streams":
		    at = [rng.randrange(0, size // 4096) * 4096 for _ in range(5)]
		    for _ in range(600):
		        n = rng.randrange(5)
		        length = rng.choice((4096, 65536, 100000))
		        check(at[n], min(length, size - at[n]))
		        at[n] = (at[n] + length) % (size - 1)
		elif pattern == "backwards":
		    for offset in range(size - (256 << 10), size - (12 << 20), -(256 << 10)):
		        check(offset, 256 << 10)
		elif pattern == "jumps":
		    for _ in range(60):
		        check(rng.randrange(0, size // 4096) * 4096, 4096 * rng.randint(1, 40))
	END
}

target_read() {
	status_key "$MNT" target_read_bytes
}

# Once all of it is in the cache nothing can be under way.
again() {
	local before

	wait_for 20 status_is "$MNT" cached_bytes "$(stat -c %s "$T/disk")"
	before=$(target_read)
	cmp "$IMG" "$T/disk"
	drop_page_cache
	cmp "$IMG" "$T/disk"
	dd if="$IMG" of=/dev/null bs=1M iflag=direct status=none
	assert_eq "$(target_read)" "$before" "read from the target after what was cached already"
}

nothing_under_way() {
	[ "$(nb status --json "$MNT" | python3 -c 'import json, sys
print(sum(s["in_flight_bytes"] or 0 for s in json.load(sys.stdin)["sessions"]))')" = 0 ]
}

# A part of the volume, once more and faster: nothing is fetched, also not from behind its end.
a_part_again() {
	local before

	rm -rf "$T/cache"
	mount_nb --log "$T/nearblk.log" --cache-size 160M "iscsi://$TGTD_PORTAL/$IQN/1" "$MNT"
	head -c 20M "$IMG" | cmp -n $((20 << 20)) - "$T/disk"
	wait_for 20 nothing_under_way
	before=$(target_read)
	drop_page_cache "$IMG"
	dd if="$IMG" of=/dev/null bs=1M count=20 iflag=direct status=none
	dd if="$IMG" of=/dev/null bs=128K count=160 iflag=direct status=none
	wait_for 20 nothing_under_way
	assert_eq "$(target_read)" "$before" "read from the target after what was cached already"
	umount_nb "$MNT"
}

random_file "$T/disk" 48M 5
truncate -s $((48 * 1024 * 1024 - 1536)) "$T/disk"
ns_pair
wan_start 40ms 200M
tgtd_start "$NS_B"
tgtd_lun one "$IQN" 1 "$T/disk"
mount_nb --log "$T/nearblk.log" --cache-size 160M "iscsi://$TGTD_PORTAL/$IQN/1" "$MNT"
read_like jumps 1
read_like streams 2
read_like backwards 3
nb drop "$MNT"
drop_page_cache "$IMG"
cmp "$IMG" "$T/disk" || fail "reads wrong from one end to the other"
again
umount_nb "$MNT"
mount_nb --log "$T/nearblk.log" "iscsi://$TGTD_PORTAL/$IQN/1" "$MNT"
again
umount_nb "$MNT"
a_part_again
