#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The target cannot be reached: mounting all the same, reading what is there, waiting or not for what
# is not, getting out with Ctrl-C, sending later; what systemd is told; and sending without a mount.

# shellcheck source=tests/lib/functions.sh
. "$(dirname "$0")/../lib/functions.sh"
require_root
require tgtd python3 /dev/fuse

IQN=iqn.2024-01.test:$NB_ID
MNT=$T/mnt
MIB=1048576

mount_again() {
	mount_nb --log "$T/nearblk.log" --cache-size 64M "$@" "$URL" "$MNT" 2>"$T/said"
}

# at FILE MIB: its checksum there.
at() {
	dd if="$1" bs=1M skip="$2" count=1 status=none | cksum
}

# put MIB SEED: one MiB into the volume and into what it must become.
put() {
	random_file "$T/piece" 1M "$2"
	dd if="$T/piece" of="$MNT/disk.img" bs=1M seek="$1" conv=notrunc,fsync status=none
	dd if="$T/piece" of="$T/want" bs=1M seek="$1" conv=notrunc status=none
}

# A new directory knows nothing: as ever.
test_new_directory() {
	assert_fails 1 'refused the connection' nb mount --log "$T/nearblk.log" --cache-size 32M \
		--connect-timeout 2 --cache-dir "$T/new" "$URL" "$MNT"
}

# Without the target, from mounting to the first bytes that go out.
test_offline() {
	local begin=$SECONDS reader

	mount_again
	assert_between 0 $((SECONDS - begin)) 8 "seconds until it was mounted offline"
	grep -q 'mounted offline: .*refused the connection' "$T/said" || fail "said: $(cat "$T/said")"
	status_is "$MNT" state offline || fail "state $(status_key "$MNT" state)"
	assert_eq "$(stat -c %s "$MNT/disk.img")" $((32 * MIB)) "size"
	assert_eq "$(at "$MNT/disk.img" 3)" "$(at "$T/want" 3)" "what is cached"
	put 5 55
	put 20 56

	# A reader of what is not cached waits, and Ctrl-C takes it out.
	python3 -c 'import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
fd = os.open(sys.argv[1], os.O_RDONLY)
print(len(os.read(fd, 1)), flush=True)
os.pread(fd, 4096, 28 << 20)
print("read", flush=True)' "$MNT/disk.img" >"$T/reader" &
	reader=$!
	wait_for 10 test -s "$T/reader"
	sleep 0.3
	! pid_gone $reader || fail "the reader did not wait"
	kill -INT $reader
	wait_for 5 pid_gone $reader
	assert_eq "$(cat "$T/reader")" 1 "what the reader said"

	# A write that needs the rest of its block: the system call ends with EINTR.
	timeout 20 python3 -c 'import errno, os, signal, sys
fd = os.open(sys.argv[1], os.O_RDWR)
def interrupted(*_):
    raise InterruptedError
signal.signal(signal.SIGALRM, interrupted)
signal.setitimer(signal.ITIMER_REAL, 0.5)
try:
    os.pwrite(fd, b"x" * 100, (29 << 20) + 10)
except InterruptedError:
    sys.exit(0)
sys.exit("the write ended")' "$MNT/disk.img" || fail "a waiting write is not interrupted"

	tgtd_restart
	nb flush --timeout 30 "$MNT"
	wait_for 10 status_is "$MNT" state clean
	cmp "$T/want" "$T/disk" || fail "the target has other bytes"
	assert_eq "$(at "$MNT/disk.img" 28)" "$(at "$T/want" 28)" "what waited before"
	umount_nb "$MNT"
	tgtd_kill
}

# Reads that are not to wait.
test_on_outage() {
	local begin

	mount_again --on-outage eio
	assert_fails 1 'Input/output error' dd if="$MNT/disk.img" of=/dev/null bs=4k skip=7000 count=1
	assert_eq "$(at "$MNT/disk.img" 5)" "$(at "$T/want" 5)" "what is cached"
	put 6 66
	umount_nb --no-flush "$MNT"
	assert_fails 2 'on-outage.*timeout:30s' nb mount --on-outage timeout:soon "$URL" "$MNT"
	mount_again --on-outage timeout:3s
	begin=$SECONDS
	assert_fails 1 'Input/output error' dd if="$MNT/disk.img" of=/dev/null bs=4k skip=7000 count=1
	assert_between 0 $((SECONDS - begin)) 6 "seconds until a read failed"
	put 7 77
	umount_nb --no-flush "$MNT"
}

# What is left in the directory goes out without a mount.
test_deliver() {
	local pid

	assert_fails 2 'MOUNTPOINT' nb flush
	assert_fails 1 'no cache directory' nb flush --cache-dir "$T"
	assert_fails 1 'refused the connection' nb flush --cache-dir "$T/cache" --connect-timeout 1
	tgtd_restart
	nb flush --cache-dir "$T/cache" --timeout 30
	cmp "$T/want" "$T/disk" || fail "the target has other bytes after flush --cache-dir"
	nb flush --cache-dir "$T/cache" | grep -q 'everything is at the target' || fail "not clean"

	mount_again
	pid=$(status_key "$MNT" pid)
	assert_fails 1 "pid $pid.*nearblk flush $MNT" nb flush --cache-dir "$T/cache"
	put 8 88
	# The daemon dies before it has sent it.
	kill -STOP "$(tgtd_pid)"
	put 9 99
	kill -9 "$pid"
	wait_for 10 pid_gone "$pid"
	umount -l "$MNT"
	kill -CONT "$(tgtd_pid)"
	nb flush --cache-dir "$T/cache" --url "$URL"
	cmp "$T/want" "$T/disk" || fail "the target has other bytes after a kill"
}

# systemd hears when it is ready and, now and then, what it is doing.
test_systemd() {
	python3 -c 'import os, socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(sys.argv[1])
while True:
    print(s.recv(4096).decode(), flush=True)' "$T/notify" >"$T/notified" &
	disown $!
	on_exit stop_pid $!
	wait_for 10 test -S "$T/notify"
	NOTIFY_SOCKET=$T/notify "$NEARBLK" mount --foreground --log "$T/nearblk.log" --cache-dir "$T/cache" \
		"$URL" "$MNT" &
	wait_for 10 grep -q READY=1 "$T/notified"
	wait_for 10 grep -q '^STATUS=clean: ' "$T/notified"
	kill -STOP "$(tgtd_pid)"
	put 10 10
	wait_for 10 grep -Eq '^STATUS=(dirty|writing-back|offline): .* not yet at the target' "$T/notified"
	kill -CONT "$(tgtd_pid)"
	umount_nb "$MNT"
	assert_between 3 "$(wc -l <"$T/notified")" 12 "messages to systemd"
}

random_file "$T/disk" 32M 1
cp "$T/disk" "$T/want"
tgtd_start
tgtd_lun one "$IQN" 1 "$T/disk"
URL=iscsi://$TGTD_PORTAL/$IQN/1
mkdir "$MNT"
mount_again
dd if="$MNT/disk.img" of=/dev/null bs=1M count=8 status=none
put 2 22
umount_nb "$MNT"
tgtd_kill
test_new_directory
test_offline
test_on_outage
test_deliver
! ldd "$NEARBLK" | grep -q libsystemd || test_systemd
