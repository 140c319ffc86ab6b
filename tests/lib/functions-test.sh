#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The shell library of the tests: it cleans up on every way out, waits, fails where it must, and its
# target is a target.

# shellcheck source=tests/lib/functions.sh
. "$(dirname "$0")/functions.sh"

# run_test SCRIPT: runs it as a test of its own, output to $T/out; sets status.
run_test() {
	status=0
	printf '. "%s/functions.sh"\n%s\n' "$NB_LIB" "$1" >"$T/inner.sh"
	env -u NB_TEST_DIR CI="${inner_ci:-}" bash "$T/inner.sh" >"$T/out" 2>&1 || status=$?
}

said() {
	grep -Eq -- "$1" "$T/out" || fail "should have said /$1/: $(cat "$T/out")"
}

# shellcheck disable=SC2016 # the inner tests expand it
test_ways_out() {
	run_test 'on_exit echo first; on_exit echo second; echo "dir $T"'
	assert_eq "$status" 0 "status of a good test"
	assert_eq "$(tail -n 2 "$T/out" | paste -sd' ')" 'second first' "order of cleanups"
	[ ! -e "$(sed -n 's/^dir //p' "$T/out")" ] || fail "T stays behind"

	run_test 'on_exit echo cleaned; false; echo not reached'
	assert_eq "$status" 1 "status after a failing command"
	said '^cleaned'
	said 'FAIL: inner.sh:2: false'
	! grep -q 'not reached' "$T/out" || fail "went on after a failure"

	run_test 'on_exit echo cleaned; kill -TERM $$; sleep 5'
	assert_eq "$status" 143 "status after TERM"
	said '^cleaned'

	run_test 'on_exit echo cleaned; on_exit fail no; false'
	said '^cleaned'

	run_test 'sleep 1000 & disown; echo "pid $!"; setsid -f sleep 1001'
	assert_eq "$status" 0 "status of a test that leaks"
	wait_for 5 pid_gone "$(sed -n 's/^pid //p' "$T/out")"

	run_test 'mkdir "$T/m t"; mount -t tmpfs none "$T/m t"; echo "dir $T"'
	! grep -qF "$(sed -n 's/^dir //p' "$T/out")" /proc/self/mounts || fail "mount stays behind"

	run_test 'echo text >"$T/some.log"; fail reason'
	assert_eq "$status" 1 "status after fail"
	said '^FAIL: reason \(inner.sh:2\)'
	said '^text'
	run_test '(on_exit true)'
	assert_eq "$status" 1 "on_exit in a subshell"
}

test_require() {
	run_test 'require sh /dev/null; require no-such-program'
	assert_eq "$status" 77 "status when something is missing"
	said 'no-such-program'
	inner_ci=true run_test 'require /no/such/file'
	assert_eq "$status" 1 "status when something is missing in CI"
}

test_waiting_and_asserting() {
	run_test 'true; wait_for 1 false'
	assert_eq "$status" 1 "status of wait_for in vain"
	said 'waited 1s for: false \(inner.sh:2\)'
	run_test 'assert_eq a b "a thing"'
	said "a thing: got .a', wanted .b'"
	run_test 'assert_between 1 2.5 2'
	assert_eq "$status" 1 "assert_between out of range"
	run_test 'assert_fails 1 nonsense false'
	assert_eq "$status" 1 "assert_fails with another message"
	assert_between 0.5 0.75 1
	assert_fails any 'No such file' ls /no/such/file
	assert_fails 2 'No such file' ls /no/such/file
}

test_data() {
	random_file "$T/r1" 3M 7
	random_file "$T/r2" 3M 7
	random_file "$T/r3" 3M 8
	assert_eq "$(stat -c %s "$T/r1")" 3145728 "size of a random file"
	cmp "$T/r1" "$T/r2"
	! cmp -s "$T/r1" "$T/r3" || fail "the seed does nothing"
	[ "$(gzip -c "$T/r1" | wc -c)" -gt 3000000 ] || fail "not random"
	assert_eq "$(echo '{"a":[{"b":"x"},{"b":1}],"n":null}' |
		python3 "$NB_LIB/json_key.py" a.0.b)" x
	assert_eq "$(echo '{"a":[{"b":"x"}]}' | python3 "$NB_LIB/json_key.py" 'a.#')" 1
	assert_eq "$(echo '{"n":null}' | python3 "$NB_LIB/json_key.py" n)" null
}

# With a stand-in for the program: what it is called with, and in which surroundings.
test_nearblk() {
	cat >"$T/stand-in" <<-'END'
		#!/bin/sh
		case $1 in
		status) echo '{"state": "clean", "sessions": [{"portal": "p:1"}], "far_as_of": null}' ;;
		*) echo "$*" ;;
		esac
		[ "$NEARBLK_RUNTIME_DIR" = "$NB_TEST_DIR/run" ] || exit 3
	END
	chmod +x "$T/stand-in"
	NEARBLK=$T/stand-in
	assert_eq "$(nb flush --timeout 3 "a b")" "flush --timeout 3 a b"
	mount_nb -r file:///x "$T/mnt" >"$T/out"
	assert_eq "$(cat "$T/out")" "mount --cache-dir $T/cache -r file:///x $T/mnt"
	mount_nb --cache-dir=/c file:///x "$T/mnt" >"$T/out"
	assert_eq "$(cat "$T/out")" "mount --cache-dir=/c file:///x $T/mnt"
	assert_eq "$(umount_nb --no-flush "$T/mnt")" "umount --no-flush $T/mnt"
	assert_eq "$(status_key "$T/mnt" state)" clean
	assert_eq "$(status_key "$T/mnt" sessions.0.portal)" p:1
	assert_eq "$(status_key "$T/mnt" 'sessions.#')" 1
	assert_eq "$(status_key "$T/mnt" far_as_of)" null
	wait_for 1 status_is "$T/mnt" state clean
}

test_root_tools() {
	random_file "$T/r4" 1M 9
	loop_over "$T/r4" --read-only
	drop_page_cache "$T/r4"
	cmp "$LOOP" "$T/r4"
}

# capacity PORTAL IQN LUN [USER%PASSWORD]: the capacity in blocks and the block size.
capacity() {
	nb_tool iscsi-readcapacity16 "iscsi://${4:+$4@}$1/$2/$3" | paste -sd' '
}

nb_tool() {
	if [ -n "$NB_NS" ]; then in_ns "$NB_NS" "$@"; else "$@"; fi
}

test_target() {
	local iqn=iqn.2024-01.test:$NB_ID pid

	truncate -s 64M "$T/disk1"
	truncate -s 3T "$T/disk2"
	tgtd_start
	tgtd_lun one "$iqn" 1 "$T/disk1"
	tgtd_lun two "$iqn" 2 "$T/disk2" 4096 thin
	tgtd_param "$iqn"
	capacity "$TGTD_PORTAL" "$iqn" 1
	iscsi-inq -e 1 -c 128 "iscsi://$TGTD_PORTAL/$iqn/1" | grep -q one || fail "no serial number"
	capacity "$TGTD_PORTAL" "$iqn" 2 | grep -q 4096 || fail "no 4096-byte blocks"
	iscsi-ls "iscsi://$TGTD_PORTAL" | grep -q "$iqn" || fail "not listed"

	TGTD=other tgtd_start
	iqn+=b
	TGTD=other tgtd_lun three "$iqn" 1 "$T/disk1"
	TGTD=other tgtd_chap "$iqn" someone secretsecret other-one othersecret12
	capacity "$TGTD_PORTAL" "$iqn" 1 someone%secretsecret
	assert_fails any . capacity "$TGTD_PORTAL" "$iqn" 1
	assert_fails any . capacity "$TGTD_PORTAL" "$iqn" 1 someone%wrongwrongwrong
	pid=$(TGTD=other tgtd_pid)
	TGTD=other tgtd_kill
	pid_gone "$pid" || fail "tgtd survives"
	assert_fails any . capacity "$TGTD_PORTAL" "$iqn" 1 someone%secretsecret
	TGTD=other tgtd_restart
	capacity "$TGTD_PORTAL" "$iqn" 1 someone%secretsecret
	assert_eq "$(TGTD=other tgtd_sessions "$iqn")" 0 sessions
}

test_target_across_the_line() {
	local iqn=iqn.2024-01.test:$NB_ID-far

	ns_pair
	wan_start 40ms 50M
	TGTD=far tgtd_start "$NS_B" 3260 "$ADDR_B" "$ADDR6_B"
	TGTD=far tgtd_lun far "$iqn" 1 "$T/disk1"
	capacity "$ADDR_B" "$iqn" 1
	capacity "[$ADDR6_B]" "$iqn" 1
	wan_ctl cut >/dev/null
	assert_fails 124 '' timeout 1 nsenter --net="/run/netns/$NS_A" \
		iscsi-readcapacity16 "iscsi://$ADDR_B/$iqn/1"
	wan_ctl restore >/dev/null
	capacity "$ADDR_B" "$iqn" 1
}

# shellcheck disable=SC2016
test_ways_out_of_root() {
	run_test 'tgtd_start; ns_pair; wan_start 1ms 100M; tgtd_pid | sed "s/^/pid /"; echo "ns $NS_A"; fail'
	assert_eq "$status" 1 "status"
	pid_gone "$(sed -n 's/^pid //p' "$T/out")" || fail "tgtd stays behind"
	[ ! -e "/run/netns/$(sed -n 's/^ns //p' "$T/out")" ] || fail "namespace stays behind"
}

require gzip openssl python3
test_require
test_waiting_and_asserting
test_data
test_nearblk
require_root
test_ways_out
require losetup /dev/loop-control
test_root_tools
require tgtd iscsi-readcapacity16 /dev/net/tun
test_target
test_target_across_the_line
test_ways_out_of_root
