#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Two hosts and one volume: own network namespaces, own runtime and state directories, another portal
# of the same target each. One owns it; the other one is refused, takes it over, and then no write of
# the first one changes a byte.
#
# SECONDS_OF_TRIES=60 for how long the loser tries (5).

# shellcheck source=tests/lib/functions.sh
. "$(dirname "$0")/../lib/functions.sh"
require_root
require tgtd ip python3 /dev/fuse

TRIES=${SECONDS_OF_TRIES:-5}
IQN=iqn.2024-01.test:$NB_ID
SIZE=32M

# link NAME N: a namespace with a wire of its own to the target's.
link() {
	make_ns "nb-$NB_ID-$1"
	ip link add "nb$2$NB_ID" netns "nb-$NB_ID-$1" type veth peer name "nb$2$NB_ID" netns "nb-$NB_ID-t"
	ip -n "nb-$NB_ID-$1" addr add "10.78.$2.1/24" dev "nb$2$NB_ID"
	ip -n "nb-$NB_ID-t" addr add "10.78.$2.2/24" dev "nb$2$NB_ID"
	ip -n "nb-$NB_ID-$1" link set "nb$2$NB_ID" up
	ip -n "nb-$NB_ID-t" link set "nb$2$NB_ID" up
	mkdir -p "$T/$1/run" "$T/$1/state" "$T/$1/mnt"
	chmod 700 "$T/$1/run" "$T/$1/state"
	echo "$2" >"$T/$1/net"
	on_exit drop_mount "$T/$1/mnt"
}

# on HOST COMMAND...: nearblk as that host.
on() {
	local host=$1

	shift
	NEARBLK_RUNTIME_DIR=$T/$host/run NEARBLK_STATE_DIR=$T/$host/state in_ns "nb-$NB_ID-$host" "$NEARBLK" "$@"
}

# mount_on HOST [OPTION...]: with its own directory, on its own portal.
mount_on() {
	local host=$1

	shift
	# In vain over a dead mount.
	mkdir -p "$T/$host/mnt" 2>/dev/null || :
	on "$host" mount --cache-dir "$T/$host/cache" --cache-size 64M --log "$T/$host.log" --max-dirty-age 100ms "$@" \
		"iscsi://10.78.$(cat "$T/$host/net").2/$IQN/1" "$T/$host/mnt"
}

# key HOST NAME [WANTED]: of its status; with WANTED for wait_for.
key() {
	local got

	got=$(on "$1" status --json "$T/$1/mnt" | python3 "$NB_LIB/json_key.py" "$2")
	if [ $# = 3 ]; then [ "$got" = "$3" ]; else printf '%s\n' "$got"; fi
}

# put HOST SEED MIB: a MiB of it, there.
put() {
	random_file "$T/new" 1M "$2"
	dd if="$T/new" of="$T/$1/mnt/disk.img" bs=64k seek=$(($3 * 16)) conv=notrunc,fsync status=none
}

arrived() {
	cmp -n 1M "$T/new" "$T/disk" 0 $(($1 << 20))
}

killed() {
	local pid

	pid=$(key "$1" pid)
	kill -9 "$pid"
	wait_for 5 pid_gone "$pid"
}

gone() {
	on "$1" umount "$T/$1/mnt" >/dev/null
}

# One writer; the other one is told who it is and what to do, and nothing of it is left behind.
test_refused() {
	mount_on a
	assert_eq "$(key a reserved)" true "reserved"
	put a 1 1
	assert_fails 1 'another host has the volume \(key 0x[0-9a-f]{16}.*--takeover' mount_on b
	assert_fails 1 'another host has the volume.*--force' mount_on b --read-only
	put a 2 2
	on a flush "$T/a/mnt"
	arrived 2 || fail "the owner's write has not arrived after somebody was refused"
	assert_eq "$(key a state)" clean "state of the owner"
	gone a
	mount_on b
	put b 3 3
	gone b
	arrived 3 || fail "the second owner's write has not arrived"
}

# What is cached of the time before is not served, nor is it trusted that it is whole.
test_alternately() {
	mount_on a
	cmp "$T/a/mnt/disk.img" "$T/disk" || fail "old bytes after another host has written"
	gone a
}

# Without a word, too: dirty or killed, it stays the owner's.
test_kept_while_dirty() {
	mount_on a
	tgt_pause STOP
	put a 4 4
	on a umount --no-flush "$T/a/mnt" >/dev/null
	tgt_pause CONT
	assert_fails 1 'another host has the volume' mount_on b
	mount_on a
	on a flush "$T/a/mnt"
	arrived 4 || fail "what was dirty has not arrived"
	put a 5 5
	killed a
	assert_fails 1 'another host has the volume' mount_on b
	mount_on a
	on a flush "$T/a/mnt"
	arrived 5 || fail "what a killed daemon had has not arrived"
	gone a
	mount_on b
	gone b
}

tgt_pause() {
	kill "-$1" "$(tgtd_pid)"
}

# The target dies and comes back without any reservation: the owner takes it again.
test_target_restarted() {
	mount_on a
	put a 6 6
	tgtd_restart
	put a 7 7
	on a flush "$T/a/mnt"
	arrived 7 || fail "a write after the target was restarted has not arrived"
	assert_eq "$(key a reserved)" true "reserved again"
	assert_fails 1 'another host has the volume' mount_on b
}

# The first host writes all the time; from the moment when the other one's mount has returned nothing
# of it changes a byte.
test_takeover() {
	local end n=0

	( # not in the way of `set -e`
		i=0
		while [ ! -e "$T/enough" ]; do
			i=$((i + 1))
			dd if="$T/lost" of="$T/a/mnt/disk.img" bs=4k count=256 seek=$((i % 31 * 256)) conv=notrunc,fsync \
				status=none 2>>"$T/tries.err" || :
			echo >>"$T/tries"
		done
	) &
	disown $!
	wait_for 10 key a state writing-back
	mount_on b --takeover
	cp "$T/disk" "$T/after"
	: >"$T/tries"
	end=$((SECONDS + TRIES))
	while [ $SECONDS -lt $end ]; do
		cmp "$T/disk" "$T/after" || fail "the loser has changed a byte"
		n=$((n + 1))
		sleep 0.1
	done
	touch "$T/enough"
	[ -s "$T/tries" ] || fail "the loser has not tried"
	cmp "$T/disk" "$T/after" || fail "the loser has changed a byte"
	say "$(wc -l <"$T/tries") tries, $n looks"
	wait_for 10 key a state fenced
	assert_eq "$(key a read_only)" true "read-only"
	assert_eq "$(key a reserved)" false "reserved, of the loser"
	key a fenced | grep -q 'another host has taken the volume over (key 0x' || fail "said: $(key a fenced)"
	grep -q 'another host has taken the volume over' "$T/a.log" || fail "not in the log"
	[ "$(key a dirty_bytes)" -gt 0 ] || fail "the loser has not kept what is dirty"
	assert_fails any 'Read-only' dd if="$T/lost" of="$T/a/mnt/disk.img" bs=4k count=1 conv=notrunc
	# The winner works.
	put b 8 8
	on b flush "$T/b/mnt"
	arrived 8 || fail "the winner's write has not arrived"
	assert_fails 3 'another host has taken the volume over.*--no-flush' on a umount "$T/a/mnt"
	assert_fails any 'unmounted; .*not yet at the target, kept in .* another host has' on a umount --no-flush "$T/a/mnt"
}

# The loser's directory: refused while the volume is another one's, and when it has been; what is dirty
# is sent only when the user says so.
test_loser_again() {
	assert_fails 1 'taken the volume over from this cache.*--force-push' mount_on a
	assert_fails 1 'taken the volume over from this cache.*--force-push' mount_on a --takeover
	put b 9 9
	gone b
	arrived 9 || fail "the winner's write has not arrived"
	assert_fails 1 'taken the volume over from this cache.*--force-push' mount_on a
	on a status | grep -q fenced || fail "status does not list it as fenced: $(on a status)"
	arrived 9 || fail "a refused mount has sent something"
	mount_on a --force-push
	on a flush "$T/a/mnt"
	cmp "$T/a/mnt/disk.img" "$T/disk" || fail "not the volume as it is after --force-push"
	gone a
	mount_on a
	cmp "$T/a/mnt/disk.img" "$T/disk"
	gone a
}

# An owner without anything to do hears of it.
test_idle_loser() {
	mount_on a
	mount_on b --takeover
	wait_for 8 key a state fenced
	gone a
	# It had nothing to send: only what it has cached is old.
	put b 10 10
	gone b
	mount_on a
	cmp "$T/a/mnt/disk.img" "$T/disk" || fail "old bytes in the directory of a loser"
	gone a
}

# Readers do not meet; a writer may come beside them, and then no further reader.
test_readers() {
	mount_on a --read-only
	mount_on b --read-only
	cmp "$T/a/mnt/disk.img" "$T/disk"
	cmp "$T/b/mnt/disk.img" "$T/disk"
	gone a
	mount_on a
	wait_for 8 grep -q 'another host has the volume for writing' "$T/b.log"
	gone b
	assert_fails 1 'another host has the volume' mount_on b --read-only
	mount_on b --read-only --force
	gone b
	gone a
}

# One directory on two hosts.
test_copies() {
	rm -rf "$T/b/cache"
	cp -a "$T/a/cache" "$T/b/cache"
	# Clean: each goes on by itself, and one of them writes.
	mount_on b
	cmp "$T/b/mnt/disk.img" "$T/disk"
	assert_fails 1 'another host has the volume' mount_on a
	put b 11 11
	gone b
	mount_on a
	cmp "$T/a/mnt/disk.img" "$T/disk" || fail "old bytes from before the copy was used"
	# Of a directory with unsent data there is one.
	tgt_pause STOP
	put a 12 12
	killed a
	tgt_pause CONT
	rm -rf "$T/b/cache"
	cp -a "$T/a/cache" "$T/b/cache"
	assert_fails 1 "is a copy \(of $T/a/cache .*--force-push" mount_on b
	mount_on a
	on a flush "$T/a/mnt"
	arrived 12 || fail "what was dirty has not arrived"
	assert_fails 1 'of a copy of this cache directory' mount_on b
	gone a
	assert_fails 1 'another host has owned the volume since.*--force-push' mount_on b
	# An old state of the directory itself is noticed, too: what it has cached is fetched anew.
	rm -rf "$T/b/cache"
	cp -a "$T/a/cache" "$T/old"
	mount_on a
	put a 13 13
	gone a
	find "$T/a/cache" -mindepth 1 -delete
	cp -a "$T/old/." "$T/a/cache/"
	mount_on a
	cmp "$T/a/mnt/disk.img" "$T/disk" || fail "old bytes from an old state of the directory"
	gone a
}

test_options() {
	assert_fails 2 'takeover.*read-only' on a mount --takeover --read-only "iscsi://10.78.1.2/$IQN/1" "$T/a/mnt"
	assert_fails 2 'force.*--read-only' on a mount --force "iscsi://10.78.1.2/$IQN/1" "$T/a/mnt"
	assert_fails 2 'reservation' on a mount --takeover --reserve=off "iscsi://10.78.1.2/$IQN/1" "$T/a/mnt"
	mount_on a --reserve=require
	gone a
	mount_on a --reserve=off
	assert_eq "$(key a reserved)" null "reserved"
	gone a
}

random_file "$T/disk" $SIZE 1
random_file "$T/lost" 1M 99
make_ns "nb-$NB_ID-t"
link a 1
link b 2
tgtd_start "nb-$NB_ID-t" 3260 10.78.1.2 10.78.2.2
tgtd_lun one "$IQN" 1 "$T/disk"
[ $# != 0 ] || set -- refused alternately kept_while_dirty target_restarted takeover loser_again idle_loser readers copies options
for name; do
	say "$name"
	"test_$name"
done
