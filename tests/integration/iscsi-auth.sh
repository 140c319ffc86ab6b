#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Who may log in, and how it is said that one may not. No secret is ever shown.

# shellcheck source=tests/lib/functions.sh
. "$(dirname "$0")/../lib/functions.sh"
require_root
require tgtd python3 /dev/fuse

IQN=iqn.2024-01.test:$NB_ID
MNT=$T/mnt
SECRET=sesame-and-oil
ANSWER=answers-by-itself

# credentials LINE...: makes the file.
credentials() {
	printf '%s\n' "$@" >"$T/credentials"
	chmod 600 "$T/credentials"
}

# attempt IQN [OPTION...]: mounts with the file; for assert_fails too.
attempt() {
	local iqn=$1

	shift
	nb mount --log "$T/nearblk.log" --cache-size 32M --connect-timeout 10 --cache-dir "$T/cache-${iqn##*:}" "$@" \
		"iscsi://$TGTD_PORTAL/$iqn/1" "$MNT"
}

# admitted IQN [OPTION...]: it mounts, the bytes are right, and all sessions are up.
admitted() {
	attempt "$@"
	cmp "$MNT/disk.img" "$T/disk"
	for i in 0 1 2 3; do
		wait_for 10 status_is "$MNT" "sessions.$i.state" up
	done
	nb status --json "$MNT" >>"$T/shown"
	umount_nb "$MNT" >>"$T/shown"
}

# refused PATTERN IQN [OPTION...]: at once, with that message.
refused() {
	local pattern=$1 begin=$SECONDS

	shift
	assert_fails 1 "$pattern" attempt "$@"
	attempt "$@" >>"$T/shown" 2>&1 || :
	! mountpoint -q "$MNT" || fail "mounted all the same"
	assert_between 0 $((SECONDS - begin)) 10 "seconds until it was refused twice"
}

with() {
	printf -- '--credentials\n%s\n' "$T/credentials"
}

test_one_way() {
	mapfile -t file < <(with)
	credentials username=someone password=$SECRET
	admitted "$IQN" "${file[@]}"
	NEARBLK_CREDENTIALS=$T/credentials admitted "$IQN"

	credentials password=$SECRET
	nb mount --log "$T/nearblk.log" "${file[@]}" --cache-dir "$T/cache-$NB_ID" \
		"iscsi://someone@$TGTD_PORTAL/$IQN/1" "$MNT"
	umount_nb "$MNT"

	refused 'wants CHAP authentication.*--credentials' "$IQN"
	credentials username=someone password=wrong-and-wrong
	refused "refused the CHAP user name or password for user 'someone'" "$IQN" "${file[@]}"
	credentials username=nobody-known password=$SECRET
	refused "refused the CHAP user name or password for user 'nobody-known'" "$IQN" "${file[@]}"
}

test_mutual() {
	mapfile -t file < <(with)
	credentials username=another password=$SECRET username_in=target password_in=$ANSWER
	admitted "$IQN:mutual" "${file[@]}"
	# A target that cannot prove itself is not spoken to, whatever it admits.
	credentials username=another password=$SECRET username_in=target password_in=not-its-secret
	refused 'failed to authenticate itself.*(username_in|password_in)' "$IQN:mutual" "${file[@]}"
	credentials username=another password=$SECRET username_in=other password_in=$ANSWER
	refused 'failed to authenticate itself.*(username_in|password_in)' "$IQN:mutual" "${file[@]}"
	credentials username=someone password=$SECRET username_in=target password_in=$ANSWER
	refused '(authenticate|CHAP)' "$IQN" "${file[@]}"
}

test_file() {
	mapfile -t file < <(with)
	credentials username=someone password=$SECRET
	for mode in 640 604 666; do
		chmod $mode "$T/credentials"
		refused "$T/credentials.*chmod" "$IQN" "${file[@]}"
	done
	credentials username=someone passwrd=$SECRET
	refused "$T/credentials, line 2: unknown key" "$IQN" "${file[@]}"
	credentials username=someone
	refused 'user someone has no password' "$IQN" "${file[@]}"
	refused "$T/absent: No such file" "$IQN" --credentials "$T/absent"
	assert_fails 2 '--credentials' nb mount "iscsi://someone:$SECRET@$TGTD_PORTAL/$IQN/1" "$MNT"
	nb mount "iscsi://someone%$SECRET@$TGTD_PORTAL/$IQN/1" "$MNT" >>"$T/shown" 2>&1 &&
		fail "a password in the URL is taken"
	nb mount "iscsi://someone:$SECRET@$TGTD_PORTAL/$IQN/1" "$MNT" >>"$T/shown" 2>&1 || :
}

# Writes to $T/said which digest of headers the target agrees to, for each login.
listen() {
	cat >"$T/listen.py" <<-'END'
		import re, socket, sys
		wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x800))
		wire.bind(("lo", 0))
		wire.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE
		print("ready", flush=True)
		while True:
		    packet = wire.recv(65536)
		    ip = packet[14:]
		    if ip[9] == 6 and int.from_bytes(ip[20:22], "big") == int(sys.argv[1]):
		        for word in re.findall(rb"HeaderDigest=([A-Za-z0-9,]+)", packet):
		            print(word.decode(), flush=True)
	END
	python3 "$T/listen.py" "$TGTD_PORT" >>"$T/said" &
	disown $!
	on_exit stop_pid $!
	wait_for 5 grep -q ready "$T/said"
}

said_only() {
	assert_eq "$(sort -u "$T/said" | grep -v ready)" "$1" "digests that the target agreed to"
}

test_header_digest() {
	listen
	tgtd_param "$IQN:digest" HeaderDigest None,CRC32C
	admitted "$IQN:digest"
	wait_for 5 grep -q None "$T/said"
	said_only None
	echo ready >"$T/said"
	admitted "$IQN:digest" --header-digest
	wait_for 5 grep -q CRC32C "$T/said"
	said_only CRC32C
	admitted "$IQN:digest" -o header_digest
	said_only CRC32C
}

test_no_secret_is_shown() {
	! grep -EH "$SECRET|$ANSWER|wrong-and-wrong|not-its-secret" "$T/shown" "$T/nearblk.log" ||
		fail "a secret is shown"
}

mkdir "$MNT"
on_exit drop_mount "$MNT"
random_file "$T/disk" 4M 1
tgtd_start
tgtd_lun one "$IQN" 1 "$T/disk"
tgtd_chap "$IQN" someone $SECRET
tgtd_lun two "$IQN:mutual" 1 "$T/disk"
tgtd_chap "$IQN:mutual" another $SECRET target $ANSWER
tgtd_lun three "$IQN:digest" 1 "$T/disk"
test_one_way
test_mutual
test_file
test_header_digest
test_no_secret_is_shown
