#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Where things go when nobody says it: cache directory and its size, control sockets (with and without a
# session), and the log.

# All of it in a mount namespace of its own: /var/lib, /run and /dev are the host's.
if [ "${1:-}" != inside ] && [ "$(id -u)" = 0 ] && command -v unshare >/dev/null; then
	exec unshare --mount --propagation private bash "$0" inside
fi

# shellcheck source=tests/lib/functions.sh
. "$(dirname "$0")/../lib/functions.sh"
require_root
require python3 setpriv unshare fusermount3 /dev/fuse
[ -u "$(command -v fusermount3)" ] || skip "needs a fusermount3 that is set-user-ID root"
unset NEARBLK_STATE_DIR NEARBLK_RUNTIME_DIR XDG_STATE_HOME XDG_RUNTIME_DIR

MNT=$T/mnt
USER_ID=65534
HOME_DIR=$T/home

# as_user [VARIABLE=VALUE...] COMMAND...
as_user() {
	setpriv --reuid=$USER_ID --regid=$USER_ID --clear-groups env HOME="$HOME_DIR" "$@"
}

nb_user() {
	as_user "${SESSION[@]}" "$T/nearblk" "$@"
}

key() {
	python3 "$NB_LIB/json_key.py" "$1" <"$T/status"
}

# The volume is larger than half of what is free, so that half is the default.
test_root() {
	local dir free

	free=$(($(stat -f -c '%a * %S' /var/lib)))
	on_exit drop_mount "$MNT"
	nb mount --log "$T/nearblk.log" "file://$T/far" "$MNT"
	nb status --json "$MNT" >"$T/status"
	dir=$(key cache_dir)
	[[ $dir == /var/lib/nearblk/*far* ]] || fail "the default directory is $dir"
	assert_eq "$(stat -c %a "$dir" /run/nearblk)" $'700\n700' "modes of directories"
	assert_eq "$(stat -c %a /run/nearblk/*.sock)" 600 "mode of the socket"
	assert_between $((free / 2 - (4 << 20))) "$(key cache_limit_bytes)" $((free / 2)) "default --cache-size"
	assert_between $((free / 4 - (4 << 20))) "$(key max_dirty_bytes)" $((free / 4)) "default --max-dirty"
	umount_nb "$MNT"
	# As at the last mount; and a small volume gets no more than it needs.
	nb mount --cache-size 48M --log "$T/nearblk.log" "file://$T/far" "$MNT"
	umount_nb "$MNT"
	nb mount --log "$T/nearblk.log" "file://$T/far" "$MNT"
	assert_eq "$(status_key "$MNT" cache_limit_bytes)" $((48 << 20)) "--cache-size of the last mount"
	umount_nb "$MNT"
	nb mount --log "$T/nearblk.log" "file://$T/small" "$MNT"
	assert_between $((8 << 20)) "$(status_key "$MNT" cache_limit_bytes)" $((80 << 20)) "cache of a small volume"
	umount_nb "$MNT"
}

# session [VARIABLE=VALUE...]: what the commands of the user see from now on.
session() {
	SESSION=("$@")
}

test_user() {
	local run=$HOME_DIR/xdg/nearblk/.run

	# su, runuser, cron: no session at all, or somebody else's.
	for other in '' "XDG_RUNTIME_DIR=/run/user/0"; do
		session ${other:+"$other"} XDG_STATE_HOME="$HOME_DIR/xdg"
		nb_user mount --log "$HOME_DIR/log" --cache-size 32M "file://$T/small" "$HOME_DIR/mnt"
		assert_eq "$(stat -c %a:%u "$run")" 700:$USER_ID "directory of sockets without a session"
		assert_eq "$(find "$run" -name '*.sock' | wc -l)" 1 "sockets in it"
		nb_user status --json "$HOME_DIR/mnt" >"$T/status"
		[[ $(key cache_dir) == "$HOME_DIR"/xdg/nearblk/*small* ]] || fail "cache directory: $(key cache_dir)"
		# Found from a session too.
		session XDG_STATE_HOME="$HOME_DIR/xdg" XDG_RUNTIME_DIR=/run/user/$USER_ID
		nb_user status | grep -q "$HOME_DIR/mnt" || fail "not found from a session"
		nb_user umount "$HOME_DIR/mnt"
	done
	# /run/user/UID is known without its variable.
	session
	install -d -m 700 -o $USER_ID /run/user/$USER_ID
	nb_user mount --log "$HOME_DIR/log" --cache-size 32M "file://$T/small" "$HOME_DIR/mnt"
	assert_eq "$(find /run/user/$USER_ID/nearblk -name '*.sock' | wc -l)" 1 "sockets of the session"
	nb_user status --json "$HOME_DIR/mnt" >"$T/status"
	[[ $(key cache_dir) == "$HOME_DIR"/.local/state/nearblk/*small* ]] || fail "cache directory: $(key cache_dir)"
	nb status | grep -q "$HOME_DIR/mnt" || fail "root does not see it"
	nb_user umount "$HOME_DIR/mnt"
}

# listen PATH FILE: a datagram socket as a log has it, what it hears goes to FILE.
listen() {
	mkdir -p "${1%/*}"
	python3 -c 'import os, socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(sys.argv[1])
out = open(sys.argv[2], "wb", buffering=0)
while True:
    out.write(s.recv(65536) + b"\n")' "$1" "$2" &
	disown $!
	on_exit stop_pid $!
	wait_for 5 test -e "$2"
}

# life OPTION...: one mount from its begin to its end.
life() {
	nb mount "$@" "file://$T/small" "$MNT"
	umount_nb "$MNT"
}

test_log() {
	local dir=/var/lib/nearblk

	assert_fails 1 'no journal runs here|without libsystemd' nb mount --log journal "file://$T/small" "$MNT"
	life
	grep -q 'stopped: everything' $dir/*small*/log || fail "no log in the cache directory"
	rm $dir/*small*/log
	listen /dev/log "$T/syslog"
	life
	wait_for 5 grep -aq 'nearblk.*stopped: everything' "$T/syslog"
	assert_eq "$(find $dir -name log)" "" "log files beside syslog"
	: >"$T/syslog"
	life --log syslog --log-level warning
	! grep -aq 'is mounted on' "$T/syslog" || fail "--log-level does not hold for syslog"
	if "$NEARBLK" mount --log journal "file://$T/small" "$MNT" 2>&1 | grep -q 'without libsystemd'; then
		return
	fi
	listen /run/systemd/journal/socket "$T/journal"
	life
	wait_for 5 grep -aq 'MESSAGE=stopped: everything' "$T/journal"
	: >"$T/journal"
	life --log journal
	wait_for 5 grep -aq 'MESSAGE=.*is mounted on' "$T/journal"
}

mkdir "$MNT" "$T/dev"
mount -t tmpfs -o mode=755,dev none "$T/dev"
cp -a /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty /dev/fuse "$T/dev"
ln -s /proc/self/fd "$T/dev/fd"
chmod 666 "$T/dev/fuse"
mount --bind "$T/dev" /dev
mount -t tmpfs -o mode=755,size=256m none /var/lib
mount -t tmpfs -o mode=755 none /run
install -d -m 700 /run/user/0
chmod 711 "$T"
install -d -m 700 -o $USER_ID -g $USER_ID "$HOME_DIR" "$HOME_DIR/mnt"
install -m 755 "$NEARBLK" "$T/nearblk"
truncate -s 1G "$T/far"
random_file "$T/small" 8M 1
chmod 666 "$T/small"
test_root
test_user
test_log
