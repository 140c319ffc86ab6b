#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs what is missing, builds nearblk in every way it must build, runs every test: see --help.
#
# What there is to run comes from automake's TESTS (make list-tests), so a new test needs no line
# here; which stage it belongs to follows from its place. Everything built stays in build-check/,
# with all logs; everything the tests make is in one temporary directory and goes with it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=scripts/common.sh
. scripts/common.sh

usage() {
	cat <<'USAGE'
Usage: ./check.sh [--deps | --only NAME | --list | --help]

Installs what is missing, builds nearblk and runs every test, as root or through sudo. The last line
says how many passed and failed; the exit status is 0 if none failed. A test that must be skipped
counts as failed where CI=true is in the environment.

  --deps       only install the packages
  --only NAME  only one stage, or one test by its path or the end of it, such as cmd/mount.sh
  --list       print the names of stages and tests (of the last build)
USAGE
}

readonly TOP=$PWD/build-check
readonly SRC=$TOP/src LOGS=$TOP/logs
readonly STAGES=(lint build clang unit sanitize-address sanitize-thread integration distcheck install)
readonly TEST_SECONDS=1200 # a test that takes longer hangs
JOBS=$(nproc)
passed=0 failed=0 skipped=0
only=

# ---- counting ----

# result pass|fail|skip NAME
result() {
	case $1 in
	pass) passed=$((passed + 1)) ;;
	skip)
		if [ "${CI:-}" = true ]; then
			failed=$((failed + 1))
			say "FAIL: $2 was skipped, and nothing is to be skipped here"
		else
			skipped=$((skipped + 1))
		fi
		;;
	*) failed=$((failed + 1)) ;;
	esac
}

show_tail() {
	[ ! -s "$1" ] || sed -e "1i ---- the end of $1" -e '$a ----' <(tail -n 40 "$1")
}

# item NAME COMMAND...: counts as one test; its output is shown only if it fails.
# The command may be a function; what fails in its middle must end it by &&, for set -e is off here.
item() {
	local name=$1 log=$LOGS/${1//[ \/]/-}.log

	shift
	if "$@" >"$log" 2>&1 </dev/null; then
		result pass "$name"
		say "PASS: $name"
	else
		result fail "$name"
		say "FAIL: $name"
		show_tail "$log"
		return 1
	fi
}

# run_tests STAGE DIR JOBS TEST...: lets automake run them in DIR and counts its verdicts; a test
# without one has failed. $WRAP goes before each.
run_tests() {
	local stage=$1 dir=$2 jobs=$3 log=$LOGS/$1.log verdict name count=0

	shift 3
	[ $# != 0 ] || return 0
	make -C "$dir" -j "$jobs" check TESTS="$*" \
		LOG_COMPILER="${WRAP:-} timeout -k 30 $TEST_SECONDS" >"$log" 2>&1 </dev/null &
	# Verdicts as they come.
	tail --pid=$! -s 0.2 -n +1 -f "$log" 2>/dev/null |
		grep --line-buffered -E '^(PASS|FAIL|SKIP|ERROR|XPASS|XFAIL): ' || :
	wait $! || :
	while read -r verdict name; do
		count=$((count + 1))
		case $verdict in
		PASS: | XFAIL:) result pass "$name" ;;
		SKIP:)
			tail -n 5 "$dir/$(log_of "$name")"
			result skip "$name"
			;;
		*)
			result fail "$name"
			show_tail "$dir/$(log_of "$name")"
			;;
		esac
	done < <(grep -E '^(PASS|FAIL|SKIP|ERROR|XPASS|XFAIL): ' "$log")
	if [ "$count" != $# ]; then
		say "FAIL: $stage: $count of $# tests came to a verdict"
		failed=$((failed + $# - count))
		show_tail "$log"
	fi
}

log_of() {
	printf '%s.log\n' "$1"
}

# ---- building ----

# build NAME OPTION...: configures and builds in $TOP/NAME, tests and all; counts as one test.
build() {
	item "build $1" build_in "$@"
}

build_in() {
	local dir=$TOP/$1

	shift
	# With no tests to run, make check builds the program and all tests.
	mkdir -p "$dir" && (cd "$dir" && "$SRC/configure" --quiet "$@") &&
		make -C "$dir" -j "$JOBS" check TESTS=
}

# The build that most stages run.
need_build() {
	[ -z "${built:-}" ] || return 0
	built=1
	build gcc CC=gcc --enable-werror --enable-invariants || finish
	mapfile -t TESTS < <(make -s -C "$TOP/gcc" list-tests)
}

# ---- which test belongs where ----

# tests_of KIND: sets `list' to the tests of that kind.
tests_of() {
	local test

	list=()
	for test in "${TESTS[@]}"; do
		if [ "$(kind_of "$test")" = "$1" ]; then list+=("$test"); fi
	done
}

# source: looks at the source alone. integration: mounts, starts daemons, measures time, wants the
# machine for itself. unit: the rest, models included.
kind_of() {
	case $1 in
	tests/core/*.sh) echo source ;;
	*.sh | tests/mount/* | tests/integration/* | *_tgtd-test) echo integration ;;
	*) echo unit ;;
	esac
}

# ---- the stages ----

stage_build() {
	need_build
}

# A second compiler sees other things; compiled only.
stage_clang() {
	build clang CC=clang --enable-werror --enable-invariants || :
}

stage_unit() {
	need_build
	tests_of unit
	run_tests unit "$TOP/gcc" "$JOBS" "${list[@]}"
}

# Unit tests, model tests, and what mounts from within a test program.
stage_sanitize-address() {
	local test more=()

	need_build
	build asan --enable-werror --enable-invariants --enable-sanitizer=address,undefined || return 0
	tests_of integration
	for test in "${list[@]}"; do
		case $test in *-test) more+=("$test") ;; esac
	done
	tests_of unit
	# libfuse keeps a little of what it parses.
	LSAN_OPTIONS="suppressions=$SRC/tests/lib/lsan.supp:print_suppressions=0" MODEL_RUNS=4 MODEL_STRIDE=2 \
		run_tests sanitize-address "$TOP/asan" "$JOBS" "${list[@]}" "${more[@]}"
}

# Policies are left out: they know no threads; and of the simulated tests, which have one thread by
# construction, all but the model. io_uring is left out, for ThreadSanitizer does not see that the
# kernel hands data over.
stage_sanitize-thread() {
	local test threaded=()

	need_build
	build tsan --enable-werror --enable-invariants --enable-sanitizer=thread || return 0
	for test in "${TESTS[@]}"; do
		case $test in
		tests/policy/* | tests/bench/*) ;;
		tests/cache/damage-test | tests/cache/nth-test | tests/cache/interleave-test) ;;
		tests/cache/headers-test | tests/cache/space-test) ;;
		tests/cache/sim-test | tests/cache/map-test | tests/cache/format-test | tests/cache/plan-test) ;;
		*-test) threaded+=("$test") ;;
		esac
	done
	TSAN_OPTIONS="suppressions=$SRC/tests/lib/tsan.supp" MODEL_RUNS=1 MODEL_STRIDE=8 NEARBLK_NO_URING=1 \
		WRAP=$(fixed_addresses) \
		run_tests sanitize-thread "$TOP/tsan" "$JOBS" "${threaded[@]}"
}

# gcc 12's ThreadSanitizer ends with "unexpected memory mapping" where the kernel spreads addresses
# over more than 28 bits. Turning that off for one process is a personality, which a container may
# forbid; then the tests are tried as they are.
fixed_addresses() {
	if [ "$(cat /proc/sys/vm/mmap_rnd_bits 2>/dev/null || echo 28)" -gt 28 ] &&
		setarch -R true 2>/dev/null; then
		echo 'setarch -R'
	fi
}

stage_integration() {
	need_build
	tests_of integration
	run_tests integration "$TOP/gcc" 1 "${list[@]}"
}

# The tarball holds all that building, testing and installing take, and uninstalls without a trace.
# Of the tests a few: they have all run by now.
stage_distcheck() {
	need_build
	item distcheck make -C "$TOP/gcc" -j "$JOBS" distcheck \
		DISTCHECK_CONFIGURE_FLAGS=--enable-werror \
		AM_MAKEFLAGS="TESTS=tests/core/layering-test.sh\ tests/core/contract-test.sh\ tests/core/block-test\ tests/cmd/usage.sh" || :
}

stage_install() {
	need_build
	item install install_and_remove || :
}

install_and_remove() {
	local dest=$tmp/dest

	make -C "$TOP/gcc" install DESTDIR="$dest" prefix=/opt/nb &&
		"$dest/opt/nb/bin/nearblk" --version &&
		[ -s "$dest/opt/nb/share/man/man1/nearblk.1" ] &&
		make -C "$TOP/gcc" uninstall DESTDIR="$dest" prefix=/opt/nb &&
		! find "$dest" ! -type d | grep .
}

stage_lint() {
	local list=()

	need_build
	item shellcheck lint_shell || :
	item clang-format lint_format || :
	item man-page mandoc -T lint -W error man/nearblk.1 || :
	item licences lint_licences || :
	tests_of source
	run_tests source "$TOP/gcc" "$JOBS" "${list[@]}"
}

lint_shell() {
	(cd "$SRC" && grep -rlE '^#!(/bin/|/usr/bin/env )(ba)?sh|^# shellcheck shell=' --include='*.sh' . .ci |
		sort -u | xargs shellcheck -x --severity=warning)
}

lint_format() {
	(cd "$SRC" && find . -name '*.[ch]' -print0 | xargs -0 clang-format --dry-run -Werror)
}

# An SPDX line in the first two lines of each source file.
lint_licences() {
	local file bad=0

	while read -r file; do
		head -n 2 "$file" | grep -q 'SPDX-License-Identifier: Apache-2.0' || {
			say "$file"
			bad=1
		}
	done < <(cd "$SRC" && find "$SRC" \( -name '*.[ch]' -o -name '*.sh' -o -name '*.py' \) \
		! -path '*/build-aux/*' ! -name autogen.sh)
	return "$bad"
}

# ---- begin and end ----

# Processes that still carry our mark in their environment; those that look for it do not.
marked_pids() (
	unset NB_CHECK_DIR
	grep -lazx -- "NB_CHECK_DIR=$tmp" /proc/[0-9]*/environ 2>/dev/null | cut -d/ -f3
)

mounts_below() {
	tac /proc/self/mounts | cut -d' ' -f2 | grep -F -- "$1/"
}

# The tests are to leave nothing running and nothing mounted; a daemon may be about to end.
nothing_left() {
	local end=$((SECONDS + 10)) pid

	until [ -z "$(marked_pids; mounts_below "$tmp")" ]; do
		if [ "$SECONDS" -ge "$end" ]; then
			for pid in $(marked_pids); do tr '\0' ' ' <"/proc/$pid/cmdline"; echo; done
			mounts_below "$tmp"
			return 1
		fi
		sleep 0.2
	done
}

# shellcheck disable=SC2317 # called by trap
clean_up() {
	local status=$? pid dir

	trap - EXIT
	trap '' INT TERM HUP
	set +e
	for pid in $(marked_pids); do kill -9 "$pid" 2>/dev/null; done
	while read -r dir; do umount -l "$dir"; done < <(mounts_below "$tmp")
	rm -rf --one-file-system -- "$tmp"
	give_back "$TOP"
	exit "$status"
}

finish() {
	say "$SECONDS s in all; logs are in ${LOGS#"$PWD/"}"
	if [ "$skipped" -gt 0 ]; then
		say "$passed passed, $failed failed, $skipped skipped"
	else
		say "$passed passed, $failed failed"
	fi
	exit $((failed > 0))
}

run_stage() {
	local began=$SECONDS

	say "== $1"
	"stage_$1"
	say "== $1: $((SECONDS - began)) s"
}

# run_one NAME: the tests whose path ends like that.
run_one() {
	local test list=()

	need_build
	for test in "${TESTS[@]}"; do
		case /$test in */"$1" | */"$1-test" | */"$1.sh") list+=("$test") ;; esac
	done
	[ ${#list[@]} != 0 ] || die "no stage and no test is called $1: see --list"
	run_tests only "$TOP/gcc" 1 "${list[@]}"
}

main() {
	local stage arguments=("$@")

	case ${1:-} in
	'') ;;
	--deps) ;;
	--only)
		[ $# = 2 ] || die "--only wants one name"
		only=$2
		;;
	--list)
		printf '%s\n' "${STAGES[@]}"
		[ ! -e "$TOP/gcc/Makefile" ] || make -s -C "$TOP/gcc" list-tests
		return
		;;
	--help | -h)
		usage
		return
		;;
	*)
		usage >&2
		exit 2
		;;
	esac

	become_root ${arguments[@]+"${arguments[@]}"}
	[ "${1:-}" = --deps ] || need_devices
	need_mtab
	install_packages "${BUILD_PACKAGES[@]}" "${DEMO_PACKAGES[@]}" "${PEER_PACKAGES[@]}" \
		"${TEST_PACKAGES[@]}"
	[ "${1:-}" != --deps ] || return 0

	tmp=$(mktemp -d /tmp/nbc.XXXXXX)
	trap clean_up EXIT
	trap 'exit 129' HUP
	trap 'exit 130' INT
	trap 'exit 143' TERM
	chmod 755 "$tmp"
	export NB_CHECK_DIR=$tmp TMPDIR=$tmp
	mkdir -p "$LOGS"
	item autogen copy_source "$SRC" || finish

	if [ -z "$only" ]; then
		for stage in "${STAGES[@]}"; do run_stage "$stage"; done
		item nothing-left-behind nothing_left || :
	elif [[ " ${STAGES[*]} " == *" $only "* ]]; then
		run_stage "$only"
	else
		run_one "$only"
	fi
	finish
}

main "$@"
