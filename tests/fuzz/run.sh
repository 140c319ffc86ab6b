#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs the fuzz harnesses of a build that was configured with --enable-fuzzers: see --help.
set -euo pipefail

usage() {
	cat <<'USAGE'
Usage: tests/fuzz/run.sh [OPTION]... BUILD-DIR [NAME]...

Fuzzes with every harness in BUILD-DIR (or those named, such as url), so many at a time as there are
CPUs, each for a while and for a number of runs, whichever comes last. BUILD-DIR is one of

    mkdir build-fuzz && cd build-fuzz
    ../configure CC=clang --enable-invariants --enable-fuzzers && make fuzzers

One line tells the verdict on each harness. The exit status is 1 if one failed; what made it fail is
shown and kept, and BUILD-DIR/tests/fuzz/NAME-fuzz FILE runs it again.

  --seconds N    fuzz with each for at least N seconds (30)
  --runs N       and at least N runs (10000)
  --long HOURS   for so long with all of them in turn, from the corpus of the last time, on over
                 crashes
  --keep DIR     where corpus/, crashes/ and logs/ go (BUILD-DIR/fuzz); a corpus is begun anew from
                 the seeds unless with --long
  --jobs N       so many at a time
USAGE
}

die() {
	printf '%s: %s\n' "${0##*/}" "$*" >&2
	exit 2
}

# number VARIABLE OPTION VALUE: takes a positive whole number.
number() {
	[[ $3 =~ ^[1-9][0-9]{0,8}$ ]] || die "$2 wants a number"
	printf -v "$1" '%s' "$3"
}

seconds=30 runs=10000 hours='' keep='' jobs=$(nproc)
while [ $# -gt 0 ]; do
	case $1 in
	--seconds | --runs | --jobs | --long)
		option=${1#--}
		number "${option/long/hours}" "$1" "${2:-}"
		shift
		;;
	--keep)
		[ -n "${2:-}" ] || die "--keep wants a directory"
		keep=$2
		shift
		;;
	--help | -h)
		usage
		exit 0
		;;
	-*) die "unknown option $1: see --help" ;;
	*) break ;;
	esac
	shift
done
[ $# -gt 0 ] || die "where is the build? See --help"
[ -d "$1/tests/fuzz" ] || die "$1 is no build directory: see --help"
build=$(cd "$1" && pwd)
shift
grep -qs '^#define ENABLE_FUZZERS 1' "$build/config.h" ||
	die "$build was configured without --enable-fuzzers: see --help"
src=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
keep=${keep:-$build/fuzz}
if [ $# -gt 0 ]; then
	names=("$@")
else
	mapfile -t names < <(make -s -C "$build" list-fuzzers | sed 's#.*/##; s#-fuzz$##')
fi
for name in "${names[@]}"; do
	[ -x "$build/tests/fuzz/$name-fuzz" ] || die "there is no harness $name in $build: make fuzzers"
done

scratch=$(mktemp -d "${TMPDIR:-/tmp}/nbf.XXXXXX")
# shellcheck disable=SC2317 # called by trap
clean_up() {
	local pids

	trap - EXIT
	pids=$(jobs -p)
	# shellcheck disable=SC2086 # a list
	[ -z "$pids" ] || kill $pids 2>/dev/null || :
	wait
	rm -rf -- "$scratch"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

export TMPDIR=$scratch
export LSAN_OPTIONS=suppressions=$src/tests/lib/lsan.supp:print_suppressions=0
export UBSAN_OPTIONS=print_stacktrace=1

# prepare NAME: its directories, and the seeds as they are today.
prepare() {
	[ -n "$hours" ] || rm -rf -- "$keep/corpus/$1"
	mkdir -p "$keep/corpus/$1" "$keep/crashes/$1" "$keep/logs"
	"$build/tests/fuzz/$1-fuzz" --seeds "$keep/corpus/$1"
}

# fuzz NAME SECONDS: sets `did' to the number of runs; fails as the harness does.
fuzz() {
	local log=$keep/logs/$1.log flags=()

	# Libraries and a cache that stay from run to run keep what looks like leaks, and looking takes
	# longer than a run; at the end, when all is freed, leaks are looked for all the same.
	case $1 in control | origin) flags=(-detect_leaks=0) ;; esac
	did=0
	# One that is in the middle of it ends with us.
	setpriv --pdeathsig TERM "$build/tests/fuzz/$1-fuzz" -max_total_time="$2" -timeout=60 -rss_limit_mb=3072 \
		-artifact_prefix="$keep/crashes/$1/" "${flags[@]}" "$keep/corpus/$1" >"$log" 2>&1 </dev/null || return 1
	did=$(sed -n 's/^Done \([0-9]*\) runs in .*/\1/p' "$log")
	[ -n "$did" ]
}

# Why NAME failed, and how to see it again.
show_failure() {
	local log=$keep/logs/$1.log file

	echo "---- the end of $log"
	grep -v '^#[0-9]' "$log" | tail -n 60
	file=$(sed -n 's/.*Test unit written to \(.*\)/\1/p' "$log" | tail -n 1)
	if [ -f "$file" ]; then
		echo "---- its input, in base64 ($(stat -c %s "$file") bytes)"
		base64 "$file" | head -n 200
		echo "---- again: $build/tests/fuzz/$1-fuzz $file"
	fi
}

# test_one NAME: both bounds, and a verdict. One that is too slow for its runs fails in the end.
test_one() {
	local begin=$SECONDS total=0 ask=$seconds did

	while [ "$total" -lt "$runs" ] || [ $((SECONDS - begin)) -lt "$seconds" ]; do
		if [ $((SECONDS - begin)) -ge $((seconds * 10 + 60)) ]; then
			echo "FAIL: fuzz $1: only $total runs in $((SECONDS - begin)) s"
			return 1
		fi
		if ! fuzz "$1" "$ask"; then
			echo "FAIL: fuzz $1: $(grep -m 1 -E 'broken promise|ERROR: |SUMMARY: |Assertion' \
				"$keep/logs/$1.log" || echo "see below")"
			show_failure "$1"
			return 1
		fi
		total=$((total + did))
		ask=$((seconds / 3 + 1))
	done
	echo "PASS: fuzz $1: $total runs in $((SECONDS - begin)) s," \
		"$(find "$keep/corpus/$1" -type f | wc -l) inputs worth keeping"
}

# long_one NAME SECONDS: one turn; a crash is told and the next turn comes all the same.
long_one() {
	local begin=$SECONDS did

	if fuzz "$1" "$2"; then
		echo "$1: $did runs in $((SECONDS - begin)) s," \
			"$(find "$keep/corpus/$1" -type f | wc -l) inputs"
	else
		echo "FAIL: fuzz $1"
		show_failure "$1"
		return 1
	fi
}

# in_parallel COMMAND [ARGUMENT]...: for each name, `jobs' at a time; what each says comes in one
# piece. Fails if one did.
in_parallel() {
	local name running=0 bad=0

	for name in "${names[@]}"; do
		if [ "$running" -ge "$jobs" ]; then
			wait -n || bad=1
			running=$((running - 1))
		fi
		(
			status=0
			"$1" "$name" "${@:2}" >"$scratch/$name.out" 2>&1 || status=1
			cat "$scratch/$name.out"
			exit "$status"
		) &
		running=$((running + 1))
	done
	while [ "$running" -gt 0 ]; do
		wait -n || bad=1
		running=$((running - 1))
	done
	return "$bad"
}

for name in "${names[@]}"; do prepare "$name"; done
status=0
if [ -z "$hours" ]; then
	in_parallel test_one || status=1
else
	end=$((SECONDS + hours * 3600))
	turn=$((hours * 3600 * jobs / ${#names[@]}))
	if [ "$turn" -gt 600 ]; then turn=600; fi
	while [ "$SECONDS" -lt "$end" ]; do
		in_parallel long_one "$turn" || status=1
	done
	echo "$(find "$keep/crashes" -type f | wc -l) inputs in $keep/crashes"
fi
exit "$status"
