#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# warm brings a volume, or parts of it, and says what does not fit; drop forgets what is clean, and
# only that; status counts all of it.

# shellcheck source=tests/lib/functions.sh
. "$(dirname "$0")/../lib/functions.sh"
require_root
require tgtd python3 /dev/fuse

IQN=iqn.2024-01.test:$NB_ID
MNT=$T/mnt
IMG=$MNT/disk.img
MIB=$((1 << 20))

key() {
	status_key "$MNT" "$1"
}

# asks_nothing COMMAND...: without a byte from the target.
asks_nothing() {
	local before

	before=$(key target_read_bytes)
	"$@"
	assert_eq "$(key target_read_bytes)" "$before" "read from the target by: $*"
}

random_file "$T/disk" 40M 1
tgtd_start
tgtd_lun one "$IQN" 1 "$T/disk"
mount_nb --log "$T/nearblk.log" --cache-size 128M --no-readahead "iscsi://$TGTD_PORTAL/$IQN/1" "$MNT"

assert_eq "$(key cached_bytes)" 0 "cached at first"
nb warm --range 8M+4M --range 30M+1M "$MNT" >"$T/out"
grep -q ' 5 MiB are in the cache' "$T/out" || fail "warm said: $(cat "$T/out")"
assert_between $((5 * MIB)) "$(key cached_bytes)" $((6 * MIB)) "cached after two ranges"
# Directly, for the kernel would read ahead of the range.
asks_nothing dd if="$IMG" of="$T/part" bs=1M skip=8 count=4 iflag=direct status=none
cmp -n 4M -i 0:8M "$T/part" "$T/disk"
asks_nothing nb warm --range 9M+1M "$MNT"

nb warm "$MNT" >"$T/out"
grep -q ' 40 MiB are in the cache' "$T/out" || fail "warm said: $(cat "$T/out")"
assert_eq "$(key cached_bytes)" $((40 * MIB)) "cached after all"
drop_page_cache "$IMG"
asks_nothing cmp "$IMG" "$T/disk"
assert_eq "$(key miss_bytes)" 0 "missed"
assert_between $((44 * MIB)) "$(key hit_bytes)" $((64 * MIB)) "hit"

nb drop "$MNT"
assert_eq "$(key cached_bytes)" 0 "cached after drop"
# The space is given back to the file system, but for what is held ready.
[ "$(key cache_used_bytes)" -le "$(key cache_limit_bytes)" ] || fail "the cache is larger than its limit"
drop_page_cache "$IMG"
cmp "$IMG" "$T/disk"
assert_between $((40 * MIB)) "$(key miss_bytes)" $((41 * MIB)) "missed after drop"

# What is dirty survives drop; the target is away, so it cannot become clean meanwhile.
tgtd_kill
random_file "$T/new" 2M 9
dd if="$T/new" of="$IMG" bs=1M seek=3 conv=notrunc status=none
nb drop "$MNT"
assert_between $((2 * MIB)) "$(key dirty_bytes)" $((3 * MIB)) "dirty after drop"
timeout 20 dd if="$IMG" of="$T/part" bs=1M skip=3 count=2 iflag=direct status=none
cmp "$T/part" "$T/new" || fail "drop lost what was dirty"
tgtd_restart
nb flush "$MNT"
cmp "$IMG" "$T/disk"
umount_nb "$MNT"

# A cache that is smaller than the volume.
random_file "$T/large" 96M 2
tgtd_lun two "$IQN" 2 "$T/large"
NB_CACHE=$T/small mount_nb --log "$T/nearblk.log" --cache-size 32M "iscsi://$TGTD_PORTAL/$IQN/2" "$MNT"
nb warm --all "$MNT" >"$T/out"
grep -Eq '[0-9.]+ MiB of 96 MiB are in the cache; [0-9.]+ MiB do not fit \(see --cache-size\)' "$T/out" ||
	fail "warm said: $(cat "$T/out")"
assert_between $((16 * MIB)) "$(key cached_bytes)" $((32 * MIB)) "cached in a small cache"
[ "$(key cache_used_bytes)" -le "$(key cache_limit_bytes)" ] || fail "the cache is larger than its limit"
assert_fails 1 'behind the end' nb warm --range 96M+1 "$MNT"
cmp "$IMG" "$T/large"
umount_nb "$MNT"
