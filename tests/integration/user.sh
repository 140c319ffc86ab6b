#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# An ordinary user mounts, writes, flushes and unmounts without any privilege but fusermount3's; nobody
# else, root neither, looks into the mount.

# In a mount namespace of its own /dev/fuse is open to everybody, as udev makes it.
if [ "${1:-}" != inside ] && [ "$(id -u)" = 0 ] && command -v unshare >/dev/null; then
	exec unshare --mount --propagation private bash "$0" inside
fi

# shellcheck source=tests/lib/functions.sh
. "$(dirname "$0")/../lib/functions.sh"
require_root
require tgtd setpriv unshare fusermount3 losetup /dev/fuse
[ -u "$(command -v fusermount3)" ] || skip "needs a fusermount3 that is set-user-ID root"

IQN=iqn.2024-01.test:$NB_ID
MNT=$T/home/mnt
IMG=$MNT/disk.img
USER_ID=65534

as_user() {
	setpriv --reuid=$USER_ID --regid=$USER_ID --clear-groups env -u XDG_STATE_HOME \
		-u NEARBLK_RUNTIME_DIR -u NEARBLK_STATE_DIR HOME="$T/home" XDG_RUNTIME_DIR="$T/home/run" "$@"
}

nb_user() {
	as_user "$T/nearblk" "$@"
}

# mount_user DIR [OPTION...]
mount_user() {
	nb_user mount --log "$T/home/log" --cache-size 64M "${@:2}" "iscsi://$TGTD_PORTAL/$IQN/1" "$1"
}

put() {
	random_file "$T/new" 2M "$1"
	chmod 644 "$T/new"
	as_user dd if="$T/new" of="$IMG" bs=64k conv=notrunc status=none
}

test_whole_life() {
	mount_user "$MNT"
	assert_eq "$(as_user stat -c '%u:%g %a' "$IMG")" "$USER_ID:$USER_ID 600" "owner and mode of disk.img"
	as_user cmp "$IMG" "$T/disk"
	put 2
	nb_user flush "$MNT"
	cmp -n 2M "$T/disk" "$T/new" || fail "flush lost data"
	assert_fails any 'Permission denied' cat "$IMG"
	nb_user status | grep -qF "$MNT" || fail "the volume is not listed"
	put 3
	nb_user umount "$MNT" | grep -q 'everything is at the target' || fail "umount"
	cmp -n 2M "$T/disk" "$T/new" || fail "umount lost data"
	assert_eq "$(find "$T/home" ! -user $USER_ID | wc -l)" 0 "files of somebody else in the home"
}

# The default place, private.
test_places() {
	local dir

	dir=$(echo "$T"/home/.local/state/nearblk/*"$NB_ID"*)
	assert_eq "$(stat -c %a "$dir")" 700 "mode of the cache directory $dir"
	assert_eq "$(stat -c %a "$T/home/run/nearblk")" 700 "mode of the directory of sockets"
}

test_busy_and_dead() {
	local pid holder job

	mount_user "$MNT"
	pid=$(nb_user status --json "$MNT" | python3 "$NB_LIB/json_key.py" pid)
	# shellcheck disable=SC2016 # the inner shell expands it
	{ as_user sh -c 'echo $$ >"$1"; exec sleep 1000 <"$0"' "$IMG" "$T/home/holder" || :; } 2>/dev/null &
	job=$!
	wait_for 5 holder_is_in
	holder=$(cat "$T/home/holder")
	assert_fails 1 "is busy: used by .*$holder" nb_user umount "$MNT"
	kill "$holder"
	wait "$job" 2>/dev/null || :
	put 4
	kill -9 "$pid"
	wait_for 5 pid_gone "$pid"
	assert_fails any 'not connected' as_user ls "$MNT"
	mount_user "$MNT"
	as_user cmp -n 2M "$IMG" "$T/new" || fail "kill -9 lost data"
	as_user fusermount3 -u "$MNT"
	pid=$(nb_user status --json | python3 "$NB_LIB/json_key.py" 0.pid 2>/dev/null || echo null)
	[ "$pid" = null ] || wait_for 20 pid_gone "$pid"
	wait_for 20 arrived
}

# For wait_for: the holder has disk.img open.
holder_is_in() {
	[ "$(readlink "/proc/$(cat "$T/home/holder")/fd/0")" = "$IMG" ]
}

# For wait_for.
arrived() {
	cmp -n 2M "$T/disk" "$T/new"
}

test_refusals() {
	mkdir -m 755 "$T/roots"
	assert_fails 1 '(not owned|no write access|Permission denied|directory of your own)' \
		mount_user "$T/roots" --cache-dir "$T/home/other"
	assert_fails 1 'user_allow_other.*/etc/fuse.conf' mount_user "$MNT" --allow-other
	assert_fails 1 'no nearblk volume' nb_user umount "$MNT"
	chmod 600 /dev/fuse
	assert_fails 1 '/dev/fuse|cannot use FUSE|[Pp]ermission' mount_user "$MNT"
	chmod 666 /dev/fuse
}

grep -qx user_allow_other /etc/fuse.conf 2>/dev/null && skip "needs an /etc/fuse.conf as it is delivered"
# Of a file system of its own: where /tmp is mounted nodev the node would not work.
mkdir "$T/dev"
mount -t tmpfs none "$T/dev"
on_exit "umount '$T/dev'"
mknod -m 666 "$T/dev/fuse" c 10 229
mount --bind "$T/dev/fuse" /dev/fuse
chmod 711 "$T"
mkdir -m 700 "$T/home"
mkdir -m 700 "$T/home/run" "$T/home/mnt"
chown -R $USER_ID:$USER_ID "$T/home"
install -m 755 "$NEARBLK" "$T/nearblk"
random_file "$T/disk" 8M 1
chmod 644 "$T/disk"
tgtd_start
tgtd_lun one "$IQN" 1 "$T/disk"
test_whole_life
test_places
test_busy_and_dead
test_refusals
