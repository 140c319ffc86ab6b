#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Targets that fail, lie and forget. Whatever they do: what was written arrives, what is read was written
# or is an error, and the daemon lives.

# shellcheck source=tests/lib/functions.sh
. "$(dirname "$0")/../lib/functions.sh"
require_root
require python3 /dev/fuse

MNT=$T/mnt
IMG=$MNT/disk.img
SIZE=16M

# begin: a target with random data behind it, mounted with an empty cache.
begin() {
	random_file "$T/far" $SIZE 1
	cp "$T/far" "$T/want"
	rm -rf "$T/cache"
	fake_start "$T/far"
	mount_nb --log "$T/nearblk.log" --cache-size 128M --max-dirty-age 100ms "$@" "$FAKE_URL" "$MNT"
}

# end: what was written is there, durable, and the daemon still at work.
end() {
	timeout 120 "$NEARBLK" flush "$MNT" >/dev/null || fail "flush ended with $?"
	cmp "$T/far" "$T/want" || fail "the target has other bytes than were flushed"
	timeout 60 "$NEARBLK" umount "$MNT" >/dev/null
	fake_kill
}

# put FILE OFFSET-IN-MIB: writes it here, and notes it.
put() {
	dd if="$1" of="$IMG" bs=1M seek="$2" conv=notrunc status=none
	dd if="$1" of="$T/want" bs=1M seek="$2" conv=notrunc status=none
}

forget_pages() {
	dd if="$IMG" iflag=nocache count=0 status=none
}

held() {
	[ "$(fake held)" -ge "$1" ]
}

counted() {
	[ "$(fake count "$1")" -ge "$2" ]
}

logins() {
	fake stats | python3 "$NB_LIB/json_key.py" logins
}

logged_in() {
	[ "$(logins)" -ge "$1" ]
}

# A SYNCHRONIZE CACHE fails once because the backing store would not take the data, which is gone then;
# the next one has nothing left to fail with.
test_failed_sync() {
	local sense

	for sense in "2 0800" "b 4700" "5 8000" "0 0" "3 0c00" "4 4400"; do
		begin
		# shellcheck disable=SC2086 # two words
		fake rule sync 1 1 tried $sense
		put "$T/data" 3
		end
	done
}

# The news that a write failed after its answer comes with a command that has nothing to do with it.
test_deferred_errors() {
	begin
	fake rule sync 1 1 hold
	put "$T/data" 3
	wait_for 20 held 1
	# What was written is volatile at the target now, and then no more.
	fake rule read 1 1 late 3 0c00
	dd if="$IMG" bs=1M skip=12 count=1 status=none | cmp -n 1048576 - "$T/want" 0 $((12 << 20)) ||
		fail "the read that brought the news is wrong"
	fake release
	end
	begin
	fake rule write 2 1 late 1 0c01
	put "$T/data" 5
	end
}

# Power cuts of the target at any time, before and after its answers.
test_forgets() {
	local i syncs

	begin
	for ((i = 0; i < 6; i++)); do
		syncs=$(fake count sync)
		put "$T/data" $((i * 2))
		[ $((i % 2)) = 0 ] || wait_for 20 counted sync $((syncs + 1))
		fake forget
		put "$T/more" $((i * 2 + 1))
	done
	end
}

# Writes that the target has received and not carried out when the session goes. They must not land once
# newer data was written, however late the target gets to them.
test_ghosts() {
	local n

	begin
	fake rule write 1 1000 hold
	put "$T/data" 3
	wait_for 20 held 1
	n=$(logins)
	put "$T/more" 3
	fake rules
	fake lost
	wait_for 30 logged_in $((n + 4))
	nb flush "$MNT" >/dev/null
	fake release
	fake settle
	end
}

# The same of a daemon that was killed, for the one that comes after it: with fewer sessions, at
# another portal that does not end the old sessions; with a reservation and without.
test_ghosts_of_the_dead() {
	local how options url sessions

	for options in --reserve=require --reserve=off; do
		for how in fewer portal; do
			random_file "$T/far" $SIZE 1
			cp "$T/far" "$T/want"
			rm -rf "$T/cache"
			fake_start "$T/far" --portals 2
			url=$FAKE_URL
			mount_nb --log "$T/nearblk.log" --cache-size 128M --max-dirty-age 100ms $options "$url" "$MNT"
			wait_for 20 logged_in 4
			fake rule write 1 1000 hold
			put "$T/data" 3
			wait_for 20 held 4
			kill_daemon
			fake rules
			[ $how != portal ] || url=${url/127.0.0.1/127.0.0.2}
			[ $how = fewer ] && sessions=1 || sessions=4
			mount_nb --log "$T/nearblk.log" $options --sessions $sessions "$url" "$MNT"
			put "$T/more" 3
			put "$T/more" 4
			nb flush "$MNT" >/dev/null
			fake release
			fake settle
			end
		done
	done
}

kill_daemon() {
	local pid

	pid=$(status_key "$MNT" pid)
	kill -9 "$pid"
	wait_for 5 pid_gone "$pid"
}

# A volume that another host has: its name is told where the target tells it.
test_owner_is_named() {
	mkdir -p "$T/mnt2"
	begin --initiator-name iqn.2026-01.test:one
	rm -rf "$T/cache2"
	assert_fails 1 'key 0x[0-9a-f]{16}, registered by iqn.2026-01.test:one\)' \
		nb mount --cache-dir "$T/cache2" --cache-size 32M --initiator-name iqn.2026-01.test:two "$FAKE_URL" "$T/mnt2"
	put "$T/data" 3
	nb umount "$MNT" >/dev/null
	cmp "$T/far" "$T/want" || fail "the target has other bytes than were written"
	fake stats | grep -q '"keys": {}, "holder": null' || fail "registrations are left: $(fake stats)"
	fake_kill
}

fake_port() {
	local at=${FAKE_URL#iscsi://*:}

	printf '%s\n' "${at%%/*}"
}

# The reservation goes, with a power cut of a target that keeps none, or stays, where it keeps them.
test_reservation_over_power_cut() {
	local keep

	for keep in "" "--keep $T/kept"; do
		random_file "$T/far" $SIZE 1
		cp "$T/far" "$T/want"
		rm -rf "$T/cache"
		# shellcheck disable=SC2086
		fake_start "$T/far" $keep
		mount_nb --log "$T/nearblk.log" --cache-size 128M --max-dirty-age 100ms "$FAKE_URL" "$MNT"
		put "$T/data" 3
		fake_kill
		# shellcheck disable=SC2086
		fake_start "$T/far" --port "$(fake_port)" $keep
		put "$T/more" 4
		nb flush "$MNT" >/dev/null
		assert_eq "$(status_key "$MNT" reserved)" true "reserved after a power cut of the target"
		end
	done
}

# Reads that are answered short, with another residual than data, with noise: right or an error.
test_lying_reads() {
	local how status

	begin
	for how in short residual nodata "sense 3 1100" "sense b 4700" "status 08" garbage drop "sense 2 0401" "sense 6 2800"; do
		nb drop "$MNT"
		# shellcheck disable=SC2086
		fake rule read 1 1 $how
		forget_pages
		status=0
		dd if="$IMG" of="$T/got" bs=64K iflag=direct,fullblock status=none 2>/dev/null || status=$?
		cmp -n "$(stat -c %s "$T/got")" "$T/got" "$T/want" || fail "wrong bytes behind a read answered with $how"
		case $how in
		short | residual | nodata | "sense 3 1100")
			[ $status != 0 ] || fail "no error although a read was answered with $how"
			;;
		*)
			[ $status = 0 ] || fail "an error although a read answered with $how can be sent again"
			;;
		esac
	done
	end
}

# The same for writes: sent again until they are whole, or the epoch stays here.
test_lying_writes() {
	local how

	begin
	for how in residual "sense b 4700" "status 28" garbage drop "sense 3 0c00" "sense 2 0401"; do
		# shellcheck disable=SC2086
		fake rule write 1 1 $how
		put "$T/data" 1
		put "$T/more" 1
		nb flush "$MNT" >/dev/null || fail "flush ended with $? behind a write answered with $how"
		cmp "$T/far" "$T/want" || fail "the target has other bytes, behind a write answered with $how"
	done
	end
}

# Sessions that come and go in the middle of PDUs, a storm of attentions, fewer sessions than asked for.
test_rough_sessions() {
	local i

	begin
	fake attention 2900 50
	fake attention 3f0e 20
	put "$T/data" 2
	for ((i = 0; i < 8; i++)); do
		fake cut $((i * 37 + 20))
		put "$T/more" $((i + 3))
		forget_pages
		cmp -n $((4 << 20)) "$IMG" "$T/want" || fail "wrong bytes after a connection was cut in a PDU"
	done
	fake sessions 2
	fake lost
	put "$T/data" 13
	nb flush "$MNT" >/dev/null
	[ "$(status_key "$MNT" sessions | grep -o '"state": *"up"' | wc -l)" -le 2 ] || fail "more sessions than the target grants"
	fake sessions 100
	end
}

# Logins that hang or are refused do not keep what is here from being used, nor the stop from ending.
test_no_logins() {
	local how

	for how in hang refuse; do
		begin --stop-timeout 2
		cmp -n $((4 << 20)) "$IMG" "$T/want"
		fake login $how
		fake lost
		wait_for 30 status_is "$MNT" state offline
		put "$T/data" 1
		forget_pages
		cmp -n $((3 << 20)) "$IMG" "$T/want" || fail "what is here cannot be read offline"
		assert_fails 3 'not yet at the target' nb umount --timeout 2 "$MNT"
		fake login take
		end
	done
}

# A target that never asks for the data it has been promised gets it unasked, or the write waits.
test_no_r2t() {
	begin
	fake r2t never
	put "$T/data" 1
	put "$T/more" 9
	if ! timeout 20 "$NEARBLK" flush "$MNT" >/dev/null; then
		fake r2t normal
		fake lost
	fi
	end
}

random_file "$T/data" 2M 2
random_file "$T/more" 1M 3
[ $# != 0 ] || set -- failed_sync deferred_errors forgets ghosts ghosts_of_the_dead owner_is_named \
	reservation_over_power_cut lying_reads lying_writes rough_sessions no_logins no_r2t
for name; do
	say "$name"
	"test_$name"
done
