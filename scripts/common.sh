# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# What quickstart.sh and check.sh share: the packages of Debian 12 they need, the devices, root.
# The including script has changed to the top of the source tree.

# shellcheck disable=SC2034 # the lists are for the including scripts

# To build nearblk.
BUILD_PACKAGES=(autoconf automake gcc libc6-dev make pkg-config
	libfuse3-dev libiscsi-dev librocksdb-dev libcurl4-openssl-dev libmicrohttpd-dev libjansson-dev
	liburing-dev libisal-dev libsystemd-dev)

# To run it over an emulated line from a target of our own, and the peer it is compared with:
# qemu-storage-daemon is in qemu-system-common, its iSCSI driver in qemu-block-extra.
DEMO_PACKAGES=(fuse3 tgt iproute2 procps util-linux mount e2fsprogs python3 openssl)
PEER_PACKAGES=(qemu-system-common qemu-block-extra)

# For the tests besides.
TEST_PACKAGES=(check clang clang-format shellcheck mandoc xz-utils fio libiscsi-bin qemu-utils
	xfsprogs psmisc curl strace)

say() {
	printf '%s\n' "$*"
}

die() {
	printf '%s: %s\n' "${0##*/}" "$*" >&2
	exit 1
}

# become_root ARGUMENT...: namespaces, loop devices and packages want root; starts the script again
# through sudo if it is not.
become_root() {
	[ "$(id -u)" != 0 ] || return 0
	command -v sudo >/dev/null || die "run it as root, or install sudo"
	say "${0##*/} needs root for packages, network namespaces and loop devices: asking sudo"
	exec sudo --preserve-env=CI -- bash "$PWD/${0##*/}" "$@"
}

# need_devices: names the devices that are missing, all at once, and ends the script.
need_devices() {
	local pair device missing=()

	for pair in fuse:/dev/fuse tun:/dev/net/tun loop:/dev/loop-control; do
		device=${pair#*:}
		[ -c "$device" ] || modprobe "${pair%%:*}" 2>/dev/null || :
		[ -c "$device" ] || missing+=("$device")
	done
	[ ${#missing[@]} = 0 ] || die "missing: ${missing[*]}
In a container they must be passed in (docker run --privileged); on a host load the modules fuse,
tun and loop."
	# shellcheck disable=SC2016 # for the inner shell
	unshare --net sh -c 'now=$(cat "$0") && echo "$now" >"$0"' /proc/sys/net/ipv4/tcp_rmem 2>/dev/null ||
		die "network namespaces cannot be made and set up here: run it as root of the host, or in a
container with --privileged"
}

# need_mtab: fusermount3 lets a user unmount only what it finds in /etc/mtab. Every installed Debian
# has it; a file system made by debootstrap alone has not.
need_mtab() {
	[ ! -e /etc/mtab ] && [ ! -L /etc/mtab ] || return 0
	say "making the link /etc/mtab, which is missing"
	ln -s ../proc/self/mounts /etc/mtab
}

# install_packages PACKAGE...: those that are not there, after saying which.
install_packages() {
	local package missing=() get=(apt-get -qq -o Dpkg::Use-Pty=0)

	export DEBIAN_FRONTEND=noninteractive
	for package; do
		[ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] ||
			missing+=("$package")
	done
	[ ${#missing[@]} != 0 ] || return 0
	command -v apt-get >/dev/null ||
		die "made for Debian 12; elsewhere install what these packages hold: ${missing[*]}"
	say "installing: ${missing[*]}"
	compgen -G '/var/lib/apt/lists/*_Packages*' >/dev/null || "${get[@]}" update </dev/null
	# Lists that are there may be too old to find the files.
	"${get[@]}" install -y --no-install-recommends "${missing[@]}" </dev/null || {
		"${get[@]}" update </dev/null
		"${get[@]}" install -y --no-install-recommends "${missing[@]}" </dev/null ||
			die "the packages cannot be installed"
	}
	# The package starts a target for everybody on port 3260; ours are private.
	case " ${missing[*]} " in
	*' tgt '*)
		[ ! -d /run/systemd/system ] || {
			say "stopping and disabling the service tgt that the package has started"
			systemctl disable --quiet --now tgt
		}
		;;
	esac
}

# Prints the files of the source tree, each ended by a NUL; nothing that a build in it has left.
source_files() {
	if [ -e .git ] && git -c safe.directory='*' ls-files -z -co --exclude-standard 2>/dev/null; then
		return
	fi
	find . \( -path './build-*' -o -name .git -o -name .deps -o -name autom4te.cache \) -prune -o \
		\( -type f -o -type l \) ! -name '*.[oa]' ! -name '*-test' ! -name '*.log' ! -name '*.trs' \
		! -path './config.*' ! -path ./Makefile ! -path ./nearblk ! -path ./bench/wan \
		! -path ./tests/lib/recorder ! -path ./tests/lib/replay -printf '%P\0' -o \
		-path ./configure.ac -printf '%P\0'
}

# copy_source DIR: a copy of the tree in DIR with its own ./configure. Building from a copy works
# beside a build in the tree, and puts nothing of root's among its owner's files.
copy_source() {
	rm -rf -- "$1" && mkdir -p "$1" &&
		source_files | tar --create --null --ignore-failed-read --files-from=- |
		tar --extract --directory="$1" --no-same-owner &&
		(cd "$1" && ./autogen.sh)
}

# give_back DIR: what sudo made below the tree belongs to the owner of the tree.
give_back() {
	[ ! -e "$1" ] || chown -R --reference=. -- "$1"
}
