#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What cannot be mounted: each with a message that says what is wrong and what to do, its exit status,
# in good time, and with nothing left mounted.

# shellcheck source=tests/lib/functions.sh
. "$(dirname "$0")/../lib/functions.sh"
require_root
require tgtd python3 /dev/fuse

IQN=iqn.2024-01.test:$NB_ID
MNT=$T/mnt

# refused STATUS PATTERN OPTION... URL [MOUNTPOINT]: in less than 10 s.
refused() {
	local status=$1 pattern=$2 begin=$SECONDS

	shift 2
	assert_fails "$status" "$pattern" nb mount --log "$T/nearblk.log" --cache-size 32M "$@"
	assert_between 0 $((SECONDS - begin)) 10 "seconds until it was refused: $*"
	! mountpoint -q "$T/elsewhere" || fail "mounted all the same: $*"
}

fresh() {
	rm -rf "$T/fresh"
	printf '%s' "$T/fresh"
}

test_url() {
	refused 2 'ftp' ftp://host/x "$MNT"
	refused 2 'no URL|not a URL|scheme|://' "$T/disk" "$MNT"
	refused 2 'LUN|lun' "iscsi://$TGTD_PORTAL/$IQN" "$MNT"
	refused 2 'LUN|lun' "iscsi://$TGTD_PORTAL/$IQN/x" "$MNT"
	refused 2 'target|name' "iscsi://$TGTD_PORTAL/notaname/1" "$MNT"
	refused 2 'port' "iscsi://127.0.0.1:99999/$IQN/1" "$MNT"
	refused 2 'missing operand' "$URL"
}

# Names that the commands could not tell the daemon.
test_not_utf8() {
	mkdir "$T/bad"$'\xff'
	refused 1 'UTF-8' --cache-dir "$(fresh)" "$URL" "$T/bad"$'\xff'
	refused 1 'UTF-8' --cache-dir "$T/cache"$'\xff' "$URL" "$MNT"
}

test_far_side() {
	refused 1 'refused the connection.*running' --cache-dir "$(fresh)" --connect-timeout 3 \
		"iscsi://127.0.0.1:$(free_port)/$IQN/1" "$MNT"
	refused 1 "cannot resolve host name 'no-such-host.invalid'|name server did not answer" \
		--cache-dir "$(fresh)" --connect-timeout 3 "iscsi://no-such-host.invalid/$IQN/1" "$MNT"
	refused 1 "target $IQN:absent does not exist.*nearblk discover" --cache-dir "$(fresh)" \
		"iscsi://$TGTD_PORTAL/$IQN:absent/1" "$MNT"
	refused 1 'no LUN 7; it has: (0, )?1, 2' --cache-dir "$(fresh)" "iscsi://$TGTD_PORTAL/$IQN/7" "$MNT"
	refused 1 'LUN 0 is no disk' --cache-dir "$(fresh)" "iscsi://$TGTD_PORTAL/$IQN/0" "$MNT"
	refused 1 "$T/absent" --cache-dir "$(fresh)" "file://$T/absent" "$MNT"
}

# A portal that takes the connection and then is silent.
test_silent_portal() {
	python3 -c 'import socket, sys, time
s = socket.socket()
s.bind(("127.0.0.1", 0))
s.listen(9)
print(s.getsockname()[1], flush=True)
time.sleep(1000)' >"$T/port" &
	disown $!
	on_exit stop_pid $!
	wait_for 10 test -s "$T/port"
	refused 1 '(did not finish the login|did not answer within 2(.0)? s)' --cache-dir "$(fresh)" \
		--connect-timeout 2 "iscsi://127.0.0.1:$(cat "$T/port")/$IQN/1" "$MNT"
}

test_options() {
	refused 2 'cache-size 3X: not a size' --cache-size 3X "$URL" "$MNT"
	refused 2 'at least' --cache-size 1M "$URL" "$MNT"
	refused 2 'more than --cache-size' --cache-size 64M --max-dirty 65M "$URL" "$MNT"
	refused 2 'sessions' --sessions 0 "$URL" "$MNT"
	refused 2 'did you mean --cache-dir' --cachedir "$T/x" "$URL" "$MNT"
	refused 2 'frobnicate' -o frobnicate "$URL" "$MNT"
	refused 2 'duration|time' -o connect_timeout=soon "$URL" "$MNT"
	refused 2 'mode' --mode 999 "$URL" "$MNT"
}

test_places() {
	refused 1 'does not exist.*mkdir' --cache-dir "$(fresh)" "$URL" "$T/absent"
	refused 1 'not a directory' --cache-dir "$(fresh)" "$URL" "$T/disk"
	mkdir "$T/home"
	touch "$T/home/letter"
	refused 1 'holds other files \(letter\)' --cache-dir "$T/home" "$URL" "$MNT"
	refused 1 "$T/disk" --cache-dir "$T/disk/cache" "$URL" "$MNT"
	assert_eq "$(ls -A "$T/home")" letter "files in somebody else's directory"
}

# While one mount is there: its directory and its mountpoint are taken.
test_taken() {
	local pid

	mount_nb --log "$T/nearblk.log" --cache-size 32M "$URL" "$MNT"
	pid=$(status_key "$MNT" pid)
	mkdir "$T/elsewhere"
	refused 1 "(in use|used|locked).*$pid|$pid.*(in use|used|locked)" --cache-dir "$T/cache" "$URL" "$T/elsewhere"
	refused 1 "already mounted on $MNT" --cache-dir "$(fresh)" "iscsi://$TGTD_PORTAL/$IQN/2" "$MNT"
	assert_fails 1 '(in use|used|locked)' nb check --cache-dir "$T/cache"
	cmp "$MNT/disk.img" "$T/disk"
	umount_nb "$MNT"
}

# A directory stays with its volume, however alike another one is called.
test_another_volume() {
	refused 1 'belongs to another volume' --cache-dir "$T/cache" "iscsi://$TGTD_PORTAL/$IQN/2" "$MNT"
	refused 1 'belongs to another volume' --cache-dir "$T/cache" "file://$T/disk" "$MNT"
	tgtd_drop_lun "$IQN" 1
	tgtd_lun other "$IQN" 1 "$T/disk2"
	refused 1 'belongs to another volume' --cache-dir "$T/cache" "$URL" "$MNT"
	tgtd_drop_lun "$IQN" 1
	truncate -s 4M "$T/shrunk"
	tgtd_lun one "$IQN" 1 "$T/shrunk"
	refused 1 '(shrank|smaller|size)' --cache-dir "$T/cache" "$URL" "$MNT"
}

mkdir "$MNT"
random_file "$T/disk" 8M 1
random_file "$T/disk2" 8M 2
tgtd_start
tgtd_lun one "$IQN" 1 "$T/disk"
tgtd_lun two "$IQN" 2 "$T/disk2"
URL=iscsi://$TGTD_PORTAL/$IQN/1
test_url
test_not_utf8
test_far_side
test_silent_portal
test_options
test_places
test_taken
test_another_volume
! mountpoint -q "$MNT" || fail "something is mounted"
