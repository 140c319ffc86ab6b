#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The figures and states of `nearblk status': each is brought about, and must say so. `damaged' is
# brought about in tests/cmd/trouble.sh.

# shellcheck source=tests/lib/functions.sh
. "$(dirname "$0")/../lib/functions.sh"
require_root
require tgtd python3 /dev/fuse

IQN=iqn.2024-01.test:$NB_ID
MNT=$T/mnt
IMG=$MNT/disk.img

begin() {
	mount_nb --log "$T/nearblk.log" --cache-size 64M "$@" "iscsi://$TGTD_PORTAL/$IQN/1" "$MNT"
}

# put SEED SIZE [FLAG]
put() {
	random_file "$T/new" "$2" "$1"
	dd if="$T/new" of="$IMG" bs=64k conv="notrunc${3:+,$3}" status=none
}

# holds EXPRESSION: in Python, on the keys of the status object; `now' is the time. For wait_for too.
holds() {
	nb status --json "$MNT" | python3 -c 'import datetime, json, sys, time
keys = json.load(sys.stdin)
keys["now"] = time.time()
keys["stamp"] = lambda text: datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
if not eval(sys.argv[1], {}, keys):
    sys.exit("%s: %s" % (sys.argv[1], keys))' "$1"
}

test_dirty_and_clean() {
	local before after

	begin --max-dirty-age 1h
	holds 'state == "clean" and dirty_bytes == 0 and epochs_pending == 0'
	holds 'oldest_dirty_seconds is None and drain_eta_seconds is None and far_as_of is None'
	put 1 3M
	holds 'state == "dirty" and epochs_pending == 1 and dirty_bytes >= 3 << 20'
	holds 'dirty_bytes < 4 << 20 and 0 <= oldest_dirty_seconds < 30 and target_write_bytes == 0'
	wait_for 5 holds 'oldest_dirty_seconds > 0.2'
	before=$(date +%s)
	nb flush "$MNT"
	after=$(date +%s)
	holds 'state == "clean" and dirty_bytes == 0 and epochs_pending == 0 and target_write_bytes >= 3 << 20'
	holds "$before - 1 <= stamp(far_as_of) <= $after + 1 and oldest_dirty_seconds is None"
	holds 'far_as_of.endswith("Z") and damaged_ranges == []'
	umount_nb "$MNT" >/dev/null
}

# What is on its way takes long, so it is seen there.
test_writing_back() {
	begin --max-dirty-age 10ms --debug-delay 400ms
	put 2 4M
	wait_for 5 holds 'state == "writing-back" and dirty_bytes > 0 and epochs_pending >= 1'
	# Once something has arrived there is a rate, and with it an end.
	put 3 8M
	wait_for 10 holds 'drain_eta_seconds is not None and 0 < drain_eta_seconds < 600 and dirty_bytes > 0'
	nb flush "$MNT"
	holds 'state == "clean"'
	umount_nb "$MNT" >/dev/null
}

test_throttled() {
	local writer

	begin --max-dirty 2M --debug-delay 100ms
	holds 'max_dirty_bytes == 2 << 20'
	random_file "$T/new" 8M 4
	dd if="$T/new" of="$IMG" bs=1M conv=notrunc,fsync status=none &
	writer=$!
	wait_for 10 holds 'state == "throttled" and dirty_bytes <= max_dirty_bytes'
	wait "$writer"
	nb flush "$MNT"
	cmp -n 8M "$T/disk" "$T/new"
	umount_nb "$MNT" >/dev/null
}

test_reading() {
	begin --debug-delay 50ms
	holds 'hit_bytes == 0 and readahead_bytes == 0 and readahead_wasted_bytes == 0'
	dd if="$IMG" of=/dev/null bs=128k skip=256 count=32 status=none # not here yet
	holds 'readahead_bytes > 0 and target_read_bytes >= 4 << 20 and readahead_wasted_bytes == 0'
	holds 'hit_bytes + miss_bytes >= 4 << 20 and cached_bytes >= 4 << 20'
	# All that was fetched and not read is waste once it is forgotten.
	wait_for 10 holds 'cached_bytes > 6 << 20'
	nb drop "$MNT"
	holds '0 < readahead_wasted_bytes <= readahead_bytes'
	umount_nb "$MNT" >/dev/null
}

test_sessions() {
	local tgtd

	begin --sessions 3 --max-dirty-age 10ms
	wait_for 10 holds 'len(sessions) == 3 and all(s["state"] == "up" for s in sessions)'
	holds 'all(s["portal"] == "'"$TGTD_PORTAL"'" and s["reconnects"] == 0 for s in sessions)'
	dd if="$IMG" of=/dev/null bs=1M count=8 iflag=direct status=none
	holds 'any(s["rtt_seconds"] is not None and 0 < s["rtt_seconds"] < 5 for s in sessions)'
	wait_for 10 holds 'all(s["in_flight_bytes"] == 0 for s in sessions)'
	# A target that takes its time has what was sent in flight.
	tgtd=$(tgtd_pid)
	on_exit eval "kill -CONT $tgtd 2>/dev/null"
	kill -STOP "$tgtd"
	put 5 1M
	wait_for 10 holds '64 << 10 <= sum(s["in_flight_bytes"] for s in sessions) <= 2 << 20'
	kill -CONT "$tgtd"
	nb flush "$MNT"
	holds 'all(s["in_flight_bytes"] == 0 for s in sessions)'
	tgtd_kill
	wait_for 10 holds 'state == "offline" and all(s["state"] in ("waiting", "connecting") for s in sessions)'
	tgtd_restart
	wait_for 20 holds 'state == "clean" and any(s["reconnects"] > 0 for s in sessions)'
	umount_nb "$MNT" >/dev/null
}

# More than the cache can hold unsent is cut, which the log says.
test_max_dirty_is_cut() {
	begin --max-dirty 64M
	holds '16 << 20 <= max_dirty_bytes < 64 << 20'
	grep -q 'warning: cache: .* not the 67108864 asked for' "$T/nearblk.log" || fail "cut in silence"
	umount_nb "$MNT" >/dev/null
}

random_file "$T/disk" 64M 9
tgtd_start
tgtd_lun one "$IQN" 1 "$T/disk"
test_dirty_and_clean
test_writing_back
test_throttled
test_reading
test_sessions
test_max_dirty_is_cut
