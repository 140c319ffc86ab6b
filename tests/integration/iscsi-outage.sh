#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The link and the target go away and come back while fio writes and reads: there is a pause, no
# error, and no wrong byte; what was written below --max-dirty meanwhile did not wait.

# shellcheck source=tests/lib/functions.sh
. "$(dirname "$0")/../lib/functions.sh"
require_root
require tgtd fio python3 /dev/fuse

CUT=${CUT:-30} # seconds of the long cut
IQN=iqn.2024-01.test:$NB_ID
MNT=$T/mnt

# fio_start NAME OPTION...: in the background; fio_wait gives its exit status, $T/NAME.json its report.
fio_start() {
	local name=$1

	shift
	fio --name="$name" --filename="$MNT/disk.img" --output="$T/$name.json" --output-format=json \
		--ioengine=libaio --direct=1 --thread --verify=crc32c --verify_fatal=1 --verify_state_save=0 \
		"$@" >"$T/$name.log" 2>&1 &
	FIO=$!
}

fio_wait() {
	local status=0

	wait "$1" || status=$?
	assert_eq "$status" 0 "exit status of fio $2"
}

# reconnects: of all sessions together.
reconnects() {
	nb status --json "$MNT" |
		python3 -c 'import json, sys; print(sum(s["reconnects"] for s in json.load(sys.stdin)["sessions"]))'
}

all_up() {
	for i in 0 1 2 3; do
		status_is "$MNT" "sessions.$i.state" up || return 1
	done
}

sent_more_than() {
	[ "$(status_key "$MNT" target_write_bytes)" -gt "$1" ]
}

rises() {
	[ "$(reconnects)" -gt "$1" ]
}

same_at_the_target() {
	nb flush "$MNT"
	cmp "$MNT/disk.img" "$T/disk" || fail "$1: the target has other bytes than were flushed"
}

# The target dies in the middle of writes and loses its sessions, three times.
test_target_killed() {
	local before sent i

	before=$(reconnects)
	fio_start killed --rw=randrw --bsrange=4k-256k --iodepth=16 --size=24m \
		--fsync=64 --rate=3m --randseed=3
	for i in 1 2 3; do
		sent=$(status_key "$MNT" target_write_bytes)
		wait_for 20 sent_or_over $((sent + 1000000))
		tgtd_restart
	done
	fio_wait "$FIO" killed
	wait_for 30 rises "$before"
	same_at_the_target "killed"
}

# close_sessions: the target closes all connections, whatever is under way on them.
close_sessions() {
	local tid sid

	tid=$(tgtd_tid "$IQN")
	for sid in $(tgt_adm --lld iscsi --op show --mode conn --tid "$tid" |
		sed -n 's/^Session: //p'); do
		tgt_adm --lld iscsi --op delete --mode conn --tid "$tid" --sid "$sid" --cid 0 || :
	done
}

# For wait_for.
sent_or_over() {
	sent_more_than "$1" || pid_gone "$FIO"
}

# The sessions are cut in the middle of writes, again and again: now the link for a moment, over which
# TCP helps itself, now the connections, now both.
test_many_small_cuts() {
	local before i

	fio_start cuts --rw=randwrite --bsrange=4k-512k --iodepth=16 --size=24m --offset=48m --fsync=16 \
		--rate=2m --randseed=4
	for ((i = 0; i < 9; i++)); do
		wait_for 20 sent_or_over "$(status_key "$MNT" target_write_bytes)"
		! pid_gone "$FIO" || break
		before=$(reconnects)
		[ $((i % 3)) = 0 ] || wan_ctl cut >/dev/null
		[ $((i % 3)) = 1 ] || close_sessions
		[ $((i % 3)) = 0 ] || sleep 0.$((i * 37 % 10))
		wan_ctl restore >/dev/null
		[ $((i % 3)) = 1 ] || wait_for 30 rises "$before"
		wait_for 30 all_up
	done
	fio_wait "$FIO" cuts
	assert_between 4 "$i" 9 "number of cuts while fio wrote"
	same_at_the_target "many small cuts"
}

# The link is down for long. One reads and writes with verify, and waits where it misses; one only
# writes, far below --max-dirty, and does not wait.
test_long_cut() {
	local before verify single begin left

	before=$(reconnects)
	nb drop "$MNT"
	fio_start verify --rw=randrw --rwmixread=20 --bs=16k --iodepth=8 --offset=48m --size=40m --io_size=16m \
		--randseed=5
	verify=$FIO
	fio_start single --rw=randwrite --bs=4k --iodepth=1 --offset=96m --size=16m --rate_iops=50 \
		--fsync=20 --time_based --runtime=$((CUT + 5)) --verify=0 --randseed=6
	single=$FIO
	wait_for 10 sent_more_than "$(status_key "$MNT" target_write_bytes)"
	wan_ctl cut >/dev/null
	begin=$SECONDS
	wait_for $((CUT + 10)) status_is "$MNT" state offline
	left=$((CUT - (SECONDS - begin)))
	[ $left -le 0 ] || sleep $left
	status_is "$MNT" state offline || fail "not offline at the end of the cut"
	wan_ctl restore >/dev/null
	wait_for 30 all_up
	fio_wait "$verify" verify
	fio_wait "$single" single
	wait_for 10 rises "$before"
	assert_between 0 "$(python3 -c 'import json, sys
job = json.load(open(sys.argv[1]))["jobs"][0]
print(max(job["write"]["lat_ns"]["max"], job["sync"]["lat_ns"]["max"]) / 1e9)' "$T/single.json")" 5 \
		"seconds that the longest write or fsync took during the cut"
	same_at_the_target "long cut"
}

truncate -s 128M "$T/disk"
ns_pair
wan_start 20ms 100M
tgtd_start "$NS_B"
tgtd_lun one "$IQN" 1 "$T/disk"
tgtd_param "$IQN"
mount_nb --log "$T/nearblk.log" --cache-size 512M "iscsi://$TGTD_PORTAL/$IQN/1" "$MNT"
wait_for 10 all_up
test_target_killed
test_many_small_cuts
test_long_cut
umount_nb "$MNT"
