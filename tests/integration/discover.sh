#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What `nearblk discover' lists, and under which name this host introduces itself.

# /etc/iscsi and the state directory of root are the host's: in a mount namespace of its own they are ours.
if [ "${1:-}" != inside ] && [ "$(id -u)" = 0 ] && command -v unshare >/dev/null; then
	exec unshare --mount --propagation private bash "$0" inside
fi

# shellcheck source=tests/lib/functions.sh
. "$(dirname "$0")/../lib/functions.sh"
require_root
require tgtd unshare /dev/fuse

IQN=iqn.2024-01.test:$NB_ID
MNT=$T/mnt
SECRET=sesame-and-oil

discover() {
	nb discover "$@" "iscsi://$TGTD_PORTAL"
}

# listed LINE: an extended regular expression for a whole line of $T/out.
listed() {
	grep -Exq -- "$1" "$T/out" || fail "no line /$1/ in: $(cat "$T/out")"
}

# A target that admits one name only: others see nothing. (tgtd without any target hangs up.)
test_none() {
	tgt_conf --op new --mode target --tid 1 -T "$IQN:named"
	tgt_conf --op bind --mode target --tid 1 -Q iqn.2024-01.test:admitted
	assert_eq "$(discover --initiator-name iqn.2024-01.test:stranger)" "no targets" "discovery of nothing"
	discover --initiator-name iqn.2024-01.test:admitted >"$T/out"
	listed "$IQN:named"
	listed '  LUN 0 is no disk .*'
	assert_fails 1 'refused' nb discover --connect-timeout 2 "iscsi://127.0.0.1:$(free_port)"
}

test_list() {
	local url

	discover >"$T/out"
	listed "$IQN"
	listed "  portal $TGTD_PORTAL(,1)?"
	listed "  LUN 1 +8 MiB  512-byte sectors  .*  iscsi://$TGTD_PORTAL/$IQN/1"
	listed "  LUN 2 +3 TiB  4096-byte sectors  .*  iscsi://$TGTD_PORTAL/$IQN/2"
	! grep -q "$IQN:named" "$T/out" || fail "a target is shown that admits others only"
	# The line can be mounted as it stands.
	url=$(sed -n 's/^  LUN 1 .* \(iscsi:.*\)/\1/p' "$T/out")
	mount_nb --cache-size 32M --log "$T/nearblk.log" "$url" "$MNT"
	cmp "$MNT/disk.img" "$T/disk"
	umount_nb "$MNT" >/dev/null
}

test_chap() {
	tgtd_lun three "$IQN:chap" 1 "$T/disk"
	tgtd_chap "$IQN:chap" someone $SECRET
	printf 'username=someone\npassword=%s\n' $SECRET >"$T/credentials"
	chmod 600 "$T/credentials"
	discover >"$T/out" || :
	listed "$IQN:chap"
	listed '  no LUN: .*CHAP.*'
	! grep -q "$IQN:chap/1" "$T/out" || fail "LUNs are shown without a password"
	discover --credentials "$T/credentials" >"$T/out"
	listed "  LUN 1 .*  iscsi://$TGTD_PORTAL/$IQN:chap/1"
	listed "  LUN 1 .*  iscsi://$TGTD_PORTAL/$IQN/1"
}

# known_as: the names under which the target sees its initiators, while mounted with OPTION...
known_as() {
	mount_nb --cache-size 32M --sessions 2 --log "$T/nearblk.log" "$@" "iscsi://$TGTD_PORTAL/$IQN/1" "$MNT"
	tgt_adm --lld iscsi --op show --mode target |
		sed -n 's/^ *Initiator: \([^ ]*\).*/\1/p' | sort -u >"$T/names"
	umount_nb "$MNT" >/dev/null
	NAME=$(cat "$T/names")
}

test_name() {
	local file=$NEARBLK_STATE_DIR/initiatorname first

	rm -f "$file"
	known_as
	first=$NAME
	[[ $first =~ ^iqn\.2026-01\.io\.nearblk:[a-z0-9-]+-[0-9a-f]{12}$ ]] || fail "made the name $first"
	assert_eq "$(cat "$file")" "InitiatorName=$first" "the name that is kept"
	known_as
	assert_eq "$NAME" "$first" "name at the second mount"

	printf '# made by the distribution\nInitiatorName=iqn.2024-01.test:of-this-host\n' \
		>/etc/iscsi/initiatorname.iscsi
	known_as
	assert_eq "$NAME" iqn.2024-01.test:of-this-host "name from /etc/iscsi"
	known_as --initiator-name iqn.2024-01.test:by-option
	assert_eq "$NAME" iqn.2024-01.test:by-option "name by option"
	rm /etc/iscsi/initiatorname.iscsi
}

mkdir "$T/etc" "$MNT"
cp -a /etc/. "$T/etc"
rm -rf "$T/etc/iscsi"
mkdir "$T/etc/iscsi"
mount --bind "$T/etc" /etc
random_file "$T/disk" 8M 1
truncate -s 3T "$T/large"
tgtd_start
test_none
tgtd_lun one "$IQN" 1 "$T/disk"
tgtd_lun two "$IQN" 2 "$T/large" 4096
test_list
test_chap
test_name
