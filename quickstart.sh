#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Shows nearblk at work on this machine alone: a private iSCSI target with a sample volume stands at
# the far end of an emulated long line; nearblk mounts it, reads, writes, flushes; the far side is
# then looked at without nearblk. Leaves nothing running; see --help.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=scripts/common.sh
. scripts/common.sh

RTT=50ms RATE=100M COMPARE=yes
readonly TOP=$PWD/build-quickstart
readonly READ_MIB=40 FILES=400

usage() {
	cat <<'USAGE'
Usage: ./quickstart.sh [--rtt TIME] [--rate BITS] [--no-compare]

Installs what is missing, builds nearblk, and shows it with a target of its own behind an emulated
line, as root or through sudo. Some five minutes at most, once the packages are there.

  --rtt TIME     round trip of the line (50ms)
  --rate BITS    its rate in bit/s (100M)
  --no-compare   leave out the same work through qemu-storage-daemon
USAGE
}

parse() {
	while [ $# != 0 ]; do
		case $1 in
		--rtt | --rate)
			[ $# -ge 2 ] || die "$1 wants a value"
			if [ "$1" = --rtt ]; then RTT=$2; else RATE=$2; fi
			shift
			;;
		--rtt=*) RTT=${1#*=} ;;
		--rate=*) RATE=${1#*=} ;;
		--no-compare) COMPARE=no ;;
		--help | -h)
			usage
			exit
			;;
		*)
			usage >&2
			exit 2
			;;
		esac
		shift
	done
}

step() {
	printf '\n== %s\n' "$*"
}

# show ARGUMENT...: says the command line of nearblk, then runs it at the near end of the line.
show() {
	printf '$ nearblk %s\n' "$*"
	nb "$@"
}

# timed COMMAND...: sets TOOK to the seconds it took.
timed() {
	local from=${EPOCHREALTIME/./} to

	"$@"
	to=${EPOCHREALTIME/./}
	TOOK=$(awk -v us=$((to - from)) 'BEGIN { printf "%.2f", us / 1e6 }')
}

# mb_per_s MIB SECONDS
mb_per_s() {
	awk -v mib="$1" -v s="$2" 'BEGIN { printf "%.1f", mib * 1.048576 / (s > 0 ? s : 0.001) }'
}

build() {
	step "building in ${TOP#"$PWD/"}"
	{
		copy_source "$TOP/src" && mkdir -p "$TOP/build" && cd "$TOP/build" &&
			../src/configure --quiet && make -j "$(nproc)" && cd - >/dev/null
	} >"$TOP.log" 2>&1 </dev/null || {
		tail -n 30 "$TOP.log" >&2
		die "the build failed"
	}
	mv "$TOP.log" "$TOP/build.log"
	give_back "$TOP"
}

# The target's side: a volume of 1 GiB with an ext4 that holds a large and some small files, twice,
# so that either candidate finds it untouched.
make_far_side() {
	local i

	mkdir -p "$T/sample/letters" "$T/new" "$T/fs"
	random_file "$T/sample/film" "${READ_MIB}M" 1
	for ((i = 0; i < 20; i++)); do random_file "$T/sample/letters/$i" 20K $((i + 2)); done
	for ((i = 0; i < FILES; i++)); do
		mkdir -p "$T/new/$((i % 20))"
		random_file "$T/new/$((i % 20))/$i" $(((i % 13 + 1) * 8))K $((i + 100))
	done
	truncate -s 1G "$T/volume1"
	mkfs.ext4 -q -b 4096 -d "$T/sample" "$T/volume1"
	cp --sparse=always "$T/volume1" "$T/volume2"
	# Where the film lies; all of it is read from disk.img itself, without the file system.
	FILM=$(debugfs -R 'bmap film 0' "$T/volume1" 2>/dev/null)
	FILM=$((FILM * 4096))

	tgtd_start "$NS_B"
	IQN=iqn.2026-01.org.example:quickstart
	tgtd_lun "first-$NB_ID" "$IQN" 1 "$T/volume1"
	tgtd_lun "second-$NB_ID" "$IQN" 2 "$T/volume2"
	tgtd_param "$IQN"
}

read_film() {
	dd if="$1" of="$T/film" bs=1M iflag=skip_bytes,fullblock skip="$FILM" count="$READ_MIB" status=none
}

# same_as_far FILE: what read_film got from it is what lies on the far side.
same_as_far() {
	cmp -n $((READ_MIB << 20)) -i "0:$FILM" "$T/film" "$1" ||
		fail "what was read is not what is there"
}

# Forgets the kernel's copy of the file, and only that: what is read next comes from below.
forget_pages() {
	dd if="$1" iflag=nocache count=0 status=none
}

# write_tree IMAGE: copies the new files into its file system.
write_tree() {
	mount -o loop "$1" "$T/fs"
	cp -r "$T/new" "$T/fs/"
	sync -f "$T/fs"
	umount "$T/fs"
}

# arrived VOLUME: the far side by itself: its file system is whole and holds the files.
arrived() {
	e2fsck -fn "$1" >"$T/e2fsck.log" 2>&1 || fail "the far file system is damaged"
	mount -o loop,ro,noload "$1" "$T/fs"
	diff -r "$T/new" "$T/fs/new" || fail "the far files differ"
	diff -r "$T/sample" "$T/fs" | grep -v '^Only in' && fail "the far files of before differ"
	umount "$T/fs"
}

try_nearblk() {
	local image=$T/mnt/disk.img

	step "mounting the far volume"
	mkdir "$T/mnt"
	on_exit drop_mount "$T/mnt"
	show mount --cache-dir "$T/cache" --log "$T/nearblk.log" "iscsi://$ADDR_B/$IQN/1" "$T/mnt"
	ls -l "$image"

	step "reading $READ_MIB MiB of random data, then once more"
	timed read_film "$image"
	NB_COLD=$(mb_per_s "$READ_MIB" "$TOOK")
	same_as_far "$T/volume1"
	say "for the first time, over the line:  $NB_COLD MB/s, every byte compared"
	forget_pages "$image"
	timed read_film "$image"
	NB_WARM=$(mb_per_s "$READ_MIB" "$TOOK")
	same_as_far "$T/volume1"
	say "again, from the local cache:        $NB_WARM MB/s"

	step "writing $FILES files through a loop mount of disk.img"
	timed write_tree "$image"
	NB_WRITE=$TOOK
	say "mounted, copied, synced, unmounted: $NB_WRITE s"
	show status "$T/mnt"

	step "sending what is not yet far away"
	timed show flush "$T/mnt"
	NB_FAR=$(awk -v a="$NB_WRITE" -v b="$TOOK" 'BEGIN { printf "%.2f", a + b }')
	show umount "$T/mnt"

	step "looking at the target's own file, without nearblk"
	arrived "$T/volume1"
	say "e2fsck -fn finds nothing; all $FILES files are there, byte for byte"
}

# The same through QEMU's own FUSE export of the same target.
try_peer() {
	local image=$T/peer.img pid

	step "the same work through qemu-storage-daemon"
	: >"$image"
	nsenter --net="/run/netns/$NS_A" -- qemu-storage-daemon --blockdev \
		"driver=iscsi,node-name=far,transport=tcp,portal=$ADDR_B:3260,target=$IQN,lun=2,initiator-name=$IQN-peer" \
		--export "fuse,id=e,node-name=far,mountpoint=$image,writable=on" \
		>"$T/peer.log" 2>&1 </dev/null &
	pid=$!
	disown "$pid"
	on_exit stop_pid "$pid"
	wait_for 20 mountpoint -q "$image"
	timed read_film "$image"
	PEER_COLD=$(mb_per_s "$READ_MIB" "$TOOK")
	same_as_far "$T/volume2"
	forget_pages "$image"
	timed read_film "$image"
	PEER_WARM=$(mb_per_s "$READ_MIB" "$TOOK")
	timed write_tree "$image"
	PEER_WRITE=$TOOK
	stop_pid "$pid" 20
	arrived "$T/volume2"
	say "done, and verified in the same way"
}

# row WHAT NEARBLK PEER UNIT
row() {
	if [ "$COMPARE" = yes ]; then
		printf '  %-46s %10s %10s  %s\n' "$@"
	else
		printf '  %-46s %10s  %s\n' "$1" "$2" "$4"
	fi
}

report() {
	local tree

	tree=$(du -sm --apparent-size "$T/new" | cut -f1)
	step "report"
	say "line: round trip $LEAST_MS ms (--rtt $RTT), $RATE bit/s, congestion control $CONTROL"
	say "a plain TCP copy of $READ_MIB MiB over it: $TCP MB/s"
	say
	row '' nearblk 'qemu-s-d' ''
	row "read $READ_MIB MiB for the first time" "$NB_COLD" "${PEER_COLD:-}" MB/s
	row "read them again" "$NB_WARM" "${PEER_WARM:-}" MB/s
	row "write $FILES files ($tree MiB) until umount is back" "$NB_WRITE" "${PEER_WRITE:-}" s
	row "... until they are safe on the far side" "$NB_FAR" "${PEER_WRITE:-}" s
	say
	say "\"again\" comes from nearblk's cache on this machine, partly out of its memory; the kernel's"
	say "own copy of disk.img was dropped before, as for qemu-storage-daemon, which has no cache."
}

main() {
	local arguments=("$@") seconds

	parse "$@"
	become_root ${arguments[@]+"${arguments[@]}"}
	need_devices
	need_mtab
	install_packages "${BUILD_PACKAGES[@]}" "${DEMO_PACKAGES[@]}"
	[ "$COMPARE" = no ] || install_packages "${PEER_PACKAGES[@]}"
	build

	# Its cleanups take all away that is started from here, on every way out.
	export NB_BUILDDIR=$TOP/build
	# shellcheck source=tests/lib/functions.sh
	. tests/lib/functions.sh

	step "an emulated line of $RTT and $RATE bit/s, and a target at its far end"
	ns_pair
	wan_start "$RTT" "$RATE"
	make_far_side
	read -r _ LEAST_MS _ < <(net_probe rtt "$NS_A" "$NS_B" "$ADDR_B" 5)
	seconds=$(net_probe copy "$NS_B" "$NS_A" "$ADDR_A" $((READ_MIB << 20)))
	TCP=$(mb_per_s "$READ_MIB" "$seconds")
	CONTROL=$(in_ns "$NS_B" sysctl -n net.ipv4.tcp_congestion_control)
	say "round trip $LEAST_MS ms, a plain TCP copy of $READ_MIB MiB: $TCP MB/s"

	try_nearblk
	if [ "$COMPARE" = yes ]; then try_peer; fi
	report
}

main "$@"
