# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# An iSCSI target that does as it is told, also what no honest one does. Part of functions.sh.

# fake_start FILE [ARGUMENT...]: on the loopback, over FILE; fake_target.py tells of ARGUMENT. Sets
# FAKE_PID and FAKE_URL. Its messages go to $T/fake.log.
fake_start() {
	local file=$1

	require python3
	shift
	rm -f "$T/fake.control" "$T/fake.port"
	python3 "$NB_LIB/fake_target.py" "$file" "$T/fake.control" "$@" >"$T/fake.port" 2>>"$T/fake.log" </dev/null &
	FAKE_PID=$!
	disown "$FAKE_PID"
	wait_for 10 test -s "$T/fake.port"
	# shellcheck disable=SC2034
	FAKE_URL=iscsi://127.0.0.1:$(<"$T/fake.port")/iqn.2026-01.test:fake/1
}

# fake WORD...: tells it; prints its answer unless that is "ok".
fake() {
	local answer

	answer=$(python3 "$NB_LIB/fake_target.py" "$T/fake.control" tell "$@") || fail "fake $*: $answer"
	[ "$answer" = ok ] || say "$answer"
}

# fake_kill: as a power cut of the target; fake_start with --port makes it come back.
fake_kill() {
	kill -9 "$FAKE_PID"
	wait_gone 10 "$FAKE_PID"
}
