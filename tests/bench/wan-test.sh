#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The emulated line against real TCP stacks: round trip, rate both ways, loss, cut and restore, new
# settings on the fly, and that it goes away without a trace.

# shellcheck source=tests/lib/functions.sh
. "$(dirname "$0")/../lib/functions.sh"

require_root
require python3 /dev/net/tun

# Round trip in ms: LEAST of a few echoes, which all have to come back.
test_rtt() {
	local want=$1 address=$2 got least

	read -r got least _ < <(net_probe rtt "$NS_A" "$NS_B" "$address" 5)
	assert_eq "$got" 5 "echoes over $address"
	assert_between "$want" "$least" "$((want + 5))" "round trip over $address"
	say "rtt over $address: $least ms, wanted $want"
}

# 1448 of the 1500 bytes of a packet are payload.
test_goodput() {
	local from=$1 to=$2 address=$3 rate=$4 got control

	read -r got control < <(net_probe goodput "$from" "$to" "$address" 1.5 0.8)
	say "goodput to $address: $((got * 8 / 1000)) kbit/s of $((rate / 1000)), $control"
	assert_between "$((rate * 1448 * 90 / (8 * 1500 * 100)))" "$got" "$((rate / 8))" "goodput"
}

test_loss() {
	local got before

	wan_ctl loss 100 >/dev/null
	read -r got _ < <(net_probe rtt "$NS_A" "$NS_B" "$ADDR_B" 1)
	assert_eq "$got" 0 "echoes at 100 % loss"
	before=$(wan_stat ab_losses)
	wan_ctl loss 2 >/dev/null
	net_probe copy "$NS_A" "$NS_B" "$ADDR_B" 2000000 >/dev/null
	wan_ctl loss 0 >/dev/null
	# About 1380 packets of data at 2 %.
	assert_between 10 "$(($(wan_stat ab_losses) - before))" 70 "losses"
}

sent_more_than() {
	[ "$(wan_stat ab_packets)" -gt "$1" ]
}

# A copy in flight stops at the cut and comes through whole after it.
test_cut() {
	local before copy delivered got

	before=$(wan_stat ab_packets)
	net_probe copy "$NS_A" "$NS_B" "$ADDR_B" 6000000 >"$T/copy" 2>&1 &
	copy=$!
	wait_for 10 sent_more_than $((before + 500))
	assert_eq "$(wan_ctl cut)" "ok cut"
	delivered=$(wan_stat ab_packets)
	read -r got _ < <(net_probe rtt "$NS_A" "$NS_B" "$ADDR_B" 1)
	assert_eq "$got" 0 "echoes over a cut line"
	assert_eq "$(wan_stat ab_packets)" "$delivered" "packets that came through a cut line"
	[ "$(wan_stat ab_cut_drops)" -gt 0 ] || fail "no packet was dropped by the cut"
	assert_eq "$(wan_stat state)" cut "state"
	kill -0 "$copy" || fail "the copy ended over a cut line: $(cat "$T/copy")"
	assert_eq "$(wan_ctl restore)" "ok restore"
	wait "$copy" || fail "the copy did not survive: $(cat "$T/copy")"
	say "a copy of 6 MB with a cut in it took $(cat "$T/copy") s"
}

test_commands() {
	local before

	before=$(wan_ctl stats | cut -d' ' -f1-4)
	for bad in 'rtt' 'rtt 5' 'rtt -5ms' 'rtt 5ms 6ms' 'rate 0' 'rate 1M 2X' 'rate 1T' 'loss 101' \
		'loss x' 'cut now' 'nonsense' ''; do
		# shellcheck disable=SC2086 # the words of one command
		assert_fails 1 '^error ' wan_ctl $bad ''
	done
	assert_eq "$(wan_ctl stats | cut -d' ' -f1-4)" "$before" "settings after bad commands"
	assert_fails 1 'no-such' "$WAN" --ctl "$T/no-such" stats
	assert_eq "$(wan_ctl rate 10M 2M)" "ok rate"
	assert_eq "$(wan_stat ab_rate) $(wan_stat ba_rate)" "10000000 2000000" rates
	assert_eq "$(wan_stat ab_queue)" 100000 "auto queue at 10M x 80ms"
}

test_usage() {
	local bad

	"$WAN" --help | grep -q -- --rate-back
	for bad in --nonsense --rate '--rate=1Q' '--rtt=1' '--loss=1e1' '--loss=nan' '--mtu=100' \
		'--addr-a=10.0.0.1' '--addr-b=10.0.0.1/33' '--addr6-a=1.2.3.4/8' '--queue=-1' \
		'--dev=a-name-that-is-too-long' '--seed=1x' '--pidfile=' extra; do
		assert_fails 2 "${bad%%=*}" "$WAN" --ns-a "$NS_A" --ns-b "$NS_B" "$bad"
	done
	assert_fails 2 'ns-a' "$WAN" --ns-a "$NS_A"
	assert_fails 1 'namespace' "$WAN" --ns-a "$NS_A" --ns-b "nb-$NB_ID-none" --dev nbother
	assert_fails 1 'control' "$WAN" --ns-a "$NS_A" --ns-b "$NS_B" --dev nbother \
		--control "$T/wan.sock"
	[ -S "$T/wan.sock" ] || fail "a second one took the socket of the first away"
}

has_device() {
	ip -n "$1" link show nbwan0 >/dev/null 2>&1
}

# end_with COMMAND...: the line goes and takes all with it.
end_with() {
	local pid

	pid=$(cat "$T/wan.pid")
	has_device "$NS_A" && has_device "$NS_B"
	"$@" >/dev/null
	wait_gone 5 "$pid" || fail "still there after $*"
	if [ -e "$T/wan.sock" ] || [ -e "$T/wan.pid" ]; then
		fail "files stay behind after $*"
	fi
	if has_device "$NS_A" || has_device "$NS_B"; then
		fail "devices stay behind after $*"
	fi
}

ns_pair
wan_start 20ms 100M --loss 0 --seed 5
test_rtt 20 "$ADDR_B"
test_rtt 20 "$ADDR6_B"
test_goodput "$NS_A" "$NS_B" "$ADDR_B" 100000000
test_goodput "$NS_B" "$NS_A" "$ADDR6_A" 100000000
wan_ctl rate 20M >/dev/null
test_loss
test_cut
wan_ctl rtt 80ms >/dev/null
test_rtt 80 "$ADDR_B"
test_commands
test_goodput "$NS_B" "$NS_A" "$ADDR_A" 2000000
test_usage
end_with wan_ctl quit
wan_start 1ms 1G
end_with kill -TERM "$(cat "$T/wan.pid")"
wan_start 1ms 1G
end_with kill -INT "$(cat "$T/wan.pid")"
