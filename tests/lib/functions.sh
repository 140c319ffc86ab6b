# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# What integration tests share. A test is a bash script that begins with
#
#	. "$(dirname "$0")/../lib/functions.sh"
#	require_root
#	require fio /dev/fuse
#
# and from there on fails at the first command that fails. It has a directory of its own in $T, its
# own runtime and state directories below it, and leaves nothing behind on any way out: cleanups run
# in reverse order, then every process that still carries this test's mark is killed, every mount
# below $T detached, $T removed (kept with NB_KEEP=1). Exit status: 0 passed, 77 skipped, else failed.
#
# Here: processes, directories, waiting, asserting, nearblk itself.
# net.sh: namespaces and the emulated line. tgtd.sh: the iSCSI target. fake.sh: a dishonest one.
#
# Functions that start something or call on_exit belong into the test's own shell, never into a
# subshell or $(...): results come back in variables.

set -Eeuo pipefail

NB_LIB=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
PATH=$PATH:/usr/sbin:/sbin
export LC_ALL=C

# The test's own shell; $$ is the same in subshells, and so must not be.
NB_SHELL=$BASHPID
NB_CLEANUPS=()

say() {
	printf '%s\n' "$*"
}

# fail MESSAGE: ends the test as failed, naming the line of the test that led here.
fail() {
	local i=1

	while [ $((i + 1)) -lt ${#BASH_SOURCE[@]} ] && [ "${BASH_SOURCE[i]%/*}" -ef "$NB_LIB" ]; do
		i=$((i + 1))
	done
	printf 'FAIL: %s (%s:%s)\n' "$*" "${BASH_SOURCE[i]##*/}" "${BASH_LINENO[i - 1]}" >&2
	trap - ERR
	exit 1
}

# skip MESSAGE: ends the test as skipped; where CI=true nothing may be skipped.
skip() {
	if [ "${CI:-}" = true ]; then
		printf 'FAIL: nothing is skipped here: %s\n' "$*" >&2
		exit 1
	fi
	printf 'SKIP: %s\n' "$*"
	exit 77
}

# require WHAT...: programs, or absolute paths of files and devices.
require() {
	local what

	for what; do
		case $what in
		/*) [ -e "$what" ] || skip "needs $what" ;;
		*) command -v "$what" >/dev/null || skip "needs the program $what" ;;
		esac
	done
}

require_root() {
	[ "$(id -u)" = 0 ] || skip "needs root"
}

# on_exit COMMAND...: runs it when the test ends, the last one first; its failure changes nothing.
on_exit() {
	[ "$BASHPID" = "$NB_SHELL" ] || fail "on_exit in a subshell would be forgotten: $*"
	NB_CLEANUPS+=("$(printf '%q ' "$@")")
}

# Our own leftovers, by the mark that everything started from here has in its environment.
# grep itself is started without it.
marked_pids() {
	env -u NB_TEST_DIR grep -lazx -- "NB_TEST_DIR=$T" /proc/[0-9]*/environ 2>/dev/null |
		cut -d/ -f3
}

# Detaches every mount below DIR, the youngest first.
detach_mounts() {
	local dir=$1 mnt

	tac /proc/self/mounts | cut -d' ' -f2 | while read -r mnt; do
		mnt=$(printf '%b' "$mnt")
		case $mnt in
		"$dir"/*) umount -l "$mnt" 2>/dev/null || fusermount3 -u -z "$mnt" 2>/dev/null || : ;;
		esac
	done
}

show_logs() {
	local log

	for log in "$T"/*.log; do
		[ -s "$log" ] || continue
		printf -- '---- last lines of %s\n' "${log##*/}" >&2
		tail -n 30 "$log" >&2
	done
}

run_cleanups() {
	local status=$? i pid

	trap - EXIT ERR
	trap '' INT TERM HUP
	set +e
	[ "$status" = 0 ] || [ "$status" = 77 ] || show_logs
	for ((i = ${#NB_CLEANUPS[@]} - 1; i >= 0; i--)); do
		# One that fails the test must not keep the others from running.
		(eval "${NB_CLEANUPS[i]}")
	done
	for pid in $(marked_pids); do
		kill -9 "$pid" 2>/dev/null
	done
	detach_mounts "$T"
	if [ "${NB_KEEP:-}" = 1 ]; then
		say "kept: $T"
	else
		rm -rf --one-file-system -- "$T"
	fi
	exit "$status"
}

T=$(mktemp -d "${TMPDIR:-/tmp}/nb-test.XXXXXX")
trap run_cleanups EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'printf "FAIL: %s:%s: %s\n" "${BASH_SOURCE[0]##*/}" "$LINENO" "$BASH_COMMAND" >&2' ERR

# Part of every name outside of $T: no two tests meet.
# shellcheck disable=SC2034 # for net.sh and the tests
NB_ID=${T##*.}
mkdir "$T/run" "$T/state"
chmod 700 "$T/run" "$T/state"
export NB_TEST_DIR=$T
export XDG_RUNTIME_DIR=$T/run XDG_STATE_HOME=$T/state
export NEARBLK_RUNTIME_DIR=$T/run NEARBLK_STATE_DIR=$T/state

# make check runs us in the top of the build tree; by hand, an in-tree build will do.
find_program() {
	local dir

	for dir in "${NB_BUILDDIR:-$PWD}" "$NB_LIB/../.."; do
		if [ -x "$dir/$1" ]; then
			(cd "$dir" && printf '%s/%s\n' "$PWD" "$1")
			return
		fi
	done
	printf '%s\n' "$1"
}

NEARBLK=${NEARBLK:-$(find_program nearblk)}
WAN=${WAN:-$(find_program bench/wan)}

# ---- waiting ----

# wait_for SECONDS COMMAND...: until it succeeds; fails the test when it does not in time.
wait_for() {
	local limit=$1 end now

	shift
	now=${EPOCHREALTIME/./}
	end=$((now + limit * 1000000))
	until "$@" >/dev/null 2>&1; do
		now=${EPOCHREALTIME/./}
		[ "$now" -lt "$end" ] || fail "waited ${limit}s for: $*"
		sleep 0.02
	done
}

pid_gone() {
	! kill -0 "$1" 2>/dev/null
}

# wait_gone SECONDS PID: true once the process has ended, false after SECONDS; does not fail the test.
wait_gone() {
	local end=$((SECONDS + $1 + 1))

	until pid_gone "$2"; do
		[ "$SECONDS" -lt "$end" ] || return 1
		sleep 0.02
	done
}

# stop_pid PID [SECONDS]: TERM, and KILL if that takes longer than SECONDS (5).
stop_pid() {
	kill "$1" 2>/dev/null || return 0
	wait_gone "${2:-5}" "$1" && return 0
	kill -9 "$1" 2>/dev/null || :
	wait_gone 5 "$1" || say "process $1 does not die"
}

# ---- asserting ----

# assert_eq GOT WANTED [WHAT]
assert_eq() {
	[ "$1" = "$2" ] || fail "${3:-value}: got \`$1', wanted \`$2'"
}

# assert_between LOW VALUE HIGH [WHAT]: numbers, with decimals if need be.
assert_between() {
	awk -v l="$1" -v v="$2" -v h="$3" 'BEGIN { exit !(l <= v && v <= h) }' ||
		fail "${4:-value}: got $2, wanted $1..$3"
}

# assert_fails STATUS PATTERN COMMAND...: the command exits with STATUS (`any': any but 0), and what
# it prints, stderr included, matches the extended regular expression PATTERN.
assert_fails() {
	local want=$1 pattern=$2 status=0 out

	shift 2
	out=$("$@" 2>&1) || status=$?
	if [ "$want" = any ]; then
		[ "$status" != 0 ] || fail "succeeded, and should not: $*"
	else
		assert_eq "$status" "$want" "exit status of $*"
	fi
	grep -Eq -- "$pattern" <<<"$out" || fail "\`$*' should have said /$pattern/, said: $out"
}

# ---- data ----

# random_file PATH SIZE SEED: SIZE bytes (K, M, G: powers of 1024) that depend on SEED and offset
# alone, that nothing can compress, and that no fault leaves behind by chance.
random_file() {
	local size

	size=$(numfmt --from=iec "$2")
	head -c "$size" /dev/zero |
		openssl enc -aes-128-ctr -nosalt -K "$(printf '%032x' "$3")" -iv "$(printf '%032x' 1)" \
			-out "$1"
}

# drop_page_cache [FILE...]: writes the files out, then forgets all clean pages of the machine.
drop_page_cache() {
	[ $# = 0 ] || sync "$@"
	echo 1 >/proc/sys/vm/drop_caches
}

# loop_over FILE [OPTION...]: a loop device over FILE, detached at the end of the test; sets LOOP.
loop_over() {
	local file=$1

	shift
	LOOP=$(losetup --find --show "$@" "$file")
	on_exit loop_detach "$LOOP" "$file"
}

# loop_detach DEVICE FILE: if it still is the one over FILE, for by now it may be somebody else's.
# Returns when FILE is closed.
loop_detach() {
	loop_is_over "$@" || return 0
	losetup -d "$1"
	wait_for 10 loop_is_gone "$@"
}

loop_is_over() {
	losetup -nO NAME -j "$2" 2>/dev/null | grep -qx "$1"
}

loop_is_gone() {
	! loop_is_over "$@"
}

# ---- nearblk ----

# The namespace in which nearblk runs, if any. ns_pair sets it to the initiator's.
NB_NS=

# nb ARGUMENT...: nearblk, in $NB_NS.
nb() {
	if [ -n "$NB_NS" ]; then
		in_ns "$NB_NS" "$NEARBLK" "$@"
	else
		"$NEARBLK" "$@"
	fi
}

# mount_nb [OPTION...] URL MOUNTPOINT: makes MOUNTPOINT and mounts, with $NB_CACHE ($T/cache) as the
# cache directory unless one is given. Unmounted at the end of the test, with or without its help.
mount_nb() {
	local mnt=${*: -1} arg cache=(--cache-dir "${NB_CACHE:-$T/cache}")

	for arg; do
		case $arg in
		--cache-dir | --cache-dir=* | cache-dir=*) cache=() ;;
		esac
	done
	# In vain over a dead mount, which nearblk cleans up.
	mkdir -p "$mnt" 2>/dev/null || :
	on_exit drop_mount "$mnt"
	nb mount ${cache[@]+"${cache[@]}"} "$@"
}

# Asks first; the sweep at the end does the rest.
drop_mount() {
	mountpoint -q "$1" || return 0
	timeout 10 env "$NEARBLK" umount --no-flush --timeout 5 "$1" >/dev/null 2>&1 ||
		umount -l "$1" 2>/dev/null || fusermount3 -u -z "$1" 2>/dev/null
}

# umount_nb [OPTION...] MOUNTPOINT
umount_nb() {
	nb umount "$@"
}

# status_key MOUNTPOINT KEY: prints one value of `nearblk status --json'. KEY may walk: sessions.0.portal;
# sessions.# is the number of sessions. Strings bare, all else as JSON.
status_key() {
	nb status --json "$1" | python3 "$NB_LIB/json_key.py" "$2"
}

# status_is MOUNTPOINT KEY VALUE: for wait_for.
status_is() {
	[ "$(status_key "$1" "$2")" = "$3" ]
}

# shellcheck source=tests/lib/net.sh
. "$NB_LIB/net.sh"
# shellcheck source=tests/lib/tgtd.sh
. "$NB_LIB/tgtd.sh"
# shellcheck source=tests/lib/fake.sh
. "$NB_LIB/fake.sh"
