# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Two network namespaces and the emulated line between them. Part of functions.sh.

# in_ns NAME COMMAND...: only the network is another one. (`ip netns exec' would also make a private
# mount namespace, in which mounts are invisible to everybody else.)
in_ns() {
	local ns=$1

	shift
	nsenter --net="/run/netns/$ns" -- "$@"
}

# make_ns NAME: loopback up, TCP buffers that fill a long fat line.
make_ns() {
	ip netns add "$1"
	on_exit ip netns del "$1"
	ip -n "$1" link set lo up
	in_ns "$1" sysctl -qw net.ipv4.tcp_rmem='4096 131072 67108864'
	in_ns "$1" sysctl -qw net.ipv4.tcp_wmem='4096 16384 67108864'
}

# allow_congestion CONTROL: in a namespace only what the host allows for everybody may be set; so, if
# it does not yet, let it do so until this test ends.
allow_congestion() {
	local key=net.ipv4.tcp_allowed_congestion_control allowed

	allowed=$(sysctl -n "$key")
	case " $allowed " in
	*" $1 "*) return ;;
	esac
	on_exit sysctl -qw "$key=$allowed"
	sysctl -qw "$key=$allowed $1" || :
}

# use_congestion NAME CONTROL: prints what the namespace uses in the end.
use_congestion() {
	in_ns "$1" sysctl -qw net.ipv4.tcp_congestion_control="$2" || :
	in_ns "$1" sysctl -n net.ipv4.tcp_congestion_control
}

# ns_pair: the namespaces $NS_A (initiator: nearblk runs there from now on) and $NS_B (target), with
# congestion control $NB_CC (cubic, as on most hosts); says which one it got.
ns_pair() {
	local control=${NB_CC:-cubic} used

	require ip nsenter sysctl
	NS_A=nb-$NB_ID-a
	NS_B=nb-$NB_ID-b
	make_ns "$NS_A"
	make_ns "$NS_B"
	# A tgtd of 1.0.85 spins while a send buffer is full: let it never be.
	in_ns "$NS_B" sysctl -qw net.ipv4.tcp_wmem='4096 67108864 67108864'
	allow_congestion "$control"
	use_congestion "$NS_A" "$control" >/dev/null
	used=$(use_congestion "$NS_B" "$control")
	say "congestion control: $used"
	# shellcheck disable=SC2034 # read by nb()
	NB_NS=$NS_A
}

# The ends of the line, as wan gives them by default.
# shellcheck disable=SC2034
ADDR_A=10.77.0.1 ADDR_B=10.77.0.2 ADDR6_A=fd77::1 ADDR6_B=fd77::2

# wan_start RTT RATE [OPTION...]: joins the two namespaces of ns_pair. A second line beside the first
# one: WAN_NAME=other wan_start ... --dev nbwan1 --addr-a ... (all four addresses).
wan_start() {
	local rtt=$1 rate=$2 name=${WAN_NAME:-wan} ready='' pid

	shift 2
	require /dev/net/tun "$WAN"
	mkfifo "$T/$name.fifo"
	"$WAN" --ns-a "$NS_A" --ns-b "$NS_B" --rtt "$rtt" --rate "$rate" \
		--control "$T/$name.sock" --pidfile "$T/$name.pid" "$@" \
		>"$T/$name.fifo" 2>"$T/$name.log" &
	pid=$!
	disown "$pid"
	on_exit stop_pid "$pid"
	read -r -t 10 ready <"$T/$name.fifo" || :
	rm "$T/$name.fifo"
	[ "$ready" = ready ] || fail "the emulated line does not come up: $(cat "$T/$name.log")"
}

# wan_ctl COMMAND...: cut, restore, rtt, rate, loss, stats (see bench/wan --help); prints the answer.
wan_ctl() {
	"$WAN" --ctl "$T/${WAN_NAME:-wan}.sock" "$@"
}

# wan_stat KEY: one value of wan_ctl stats.
wan_stat() {
	wan_ctl stats | tr ' ' '\n' | sed -n "s/^$1=//p"
}

# net_probe ...: round trips, goodput and checked copies over plain sockets; see net_probe.py.
net_probe() {
	python3 "$NB_LIB/net_probe.py" "$@"
}
