# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# A private iSCSI target. Part of functions.sh.
#
# $TGTD (default: tgtd) names the instance; a second one beside it: TGTD=other tgtd_start ... Its state
# is in $T/$TGTD: pid, the arguments it was started with, and the configuration as the lines that
# made it, so that a restarted one gets the same again.

# tgt_adm ARGUMENT...: tgtadm on this instance.
tgt_adm() {
	TGT_IPC_SOCKET=$T/${TGTD:-tgtd}/ipc tgtadm -C 1 "$@"
}

# Runs a configuring tgtadm and remembers it.
tgt_conf() {
	tgt_adm --lld iscsi "$@"
	printf '%q ' "$@" >>"$T/${TGTD:-tgtd}/config"
	echo >>"$T/${TGTD:-tgtd}/config"
}

# A TCP port of the loopback that nobody has right now; tgtd cannot choose one by itself.
free_port() {
	python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# tgtd_start [NAMESPACE [PORT [ADDRESS...]]]: starts it and waits until it answers on every portal.
# NAMESPACE `-', the default, is the test's own, with a free port of 127.0.0.1; elsewhere the default
# is port 3260 of $ADDR_B. IPv6 addresses come bare. Sets TGTD_PORT, and TGTD_PORTAL to the first
# ADDRESS:PORT as it stands in a URL.
tgtd_start() {
	local ns=${1:--} port=${2:-} dir=$T/${TGTD:-tgtd} addr list=''

	require tgtd tgtadm nsenter
	shift $(($# < 2 ? $# : 2))
	if [ $# = 0 ]; then
		if [ "$ns" = - ]; then set -- 127.0.0.1; else set -- "$ADDR_B"; fi
	fi
	if [ -z "$port" ]; then
		if [ "$ns" = - ]; then port=$(free_port); else port=3260; fi
	fi
	mkdir "$dir"
	for addr; do
		case $addr in *:*) addr="[$addr]" ;; esac
		list+=${list:+,}portal=$addr:$port
	done
	printf '%s\n' "$ns" "$list" >"$dir/start"
	: >"$dir/config"
	on_exit eval "TGTD=${TGTD:-tgtd} tgtd_kill"
	# shellcheck disable=SC2034
	TGTD_PORT=$port
	TGTD_PORTAL=${list%%,*}
	TGTD_PORTAL=${TGTD_PORTAL#portal=}
	tgtd_launch
}

# Starts it as $T/$TGTD/start says. A tgtd that cannot have its portal stays up without it.
tgtd_launch() {
	local dir=$T/${TGTD:-tgtd} log=$T/${TGTD:-tgtd}.log pid ns list enter=() portal

	{ read -r ns && read -r list; } <"$dir/start"
	[ "$ns" = - ] || enter=(nsenter --net="/run/netns/$ns" --)
	TGT_IPC_SOCKET=$dir/ipc ${enter[@]+"${enter[@]}"} \
		tgtd -f -C 1 --iscsi "$list" >>"$log" 2>&1 </dev/null &
	pid=$!
	disown "$pid"
	echo "$pid" >"$dir/pid"
	wait_for 10 tgtd_answers
	for portal in ${list//,/ }; do
		portal=${portal#portal=}
		tgt_adm --lld iscsi --op show --mode portal | grep -Fq "$portal," ||
			fail "tgtd has no portal $portal: $(cat "$log")"
	done
}

# For wait_for: true when it answers; one that has died will not.
tgtd_answers() {
	pid_gone "$(tgtd_pid)" && fail "tgtd died: $(cat "$T/${TGTD:-tgtd}.log")"
	tgt_adm --lld iscsi --op show --mode sys
}

tgtd_pid() {
	cat "$T/${TGTD:-tgtd}/pid"
}

# tgtd_kill: with -9; it has no time to say good-bye to anybody. Waits until it is gone.
tgtd_kill() {
	local pid

	pid=$(tgtd_pid 2>/dev/null) || return 0
	rm -f "$T/${TGTD:-tgtd}/pid"
	kill -9 "$pid" 2>/dev/null || return 0
	wait_gone 10 "$pid"
}

# tgtd_restart: kills it if it is up, starts it again with the same portals, targets and LUNs.
# Reservations, sessions and registrations are lost, as they are with the real one.
tgtd_restart() {
	local line

	tgtd_kill
	tgtd_launch
	while read -r line; do
		eval "tgt_adm --lld iscsi $line" || fail "tgtd does not take again: $line"
	done <"$T/${TGTD:-tgtd}/config"
}

# Prints the number of the target called IQN; fails if there is none.
tgtd_tid() {
	local tid

	tid=$(tgt_adm --lld iscsi --op show --mode target | sed -n "s/^Target \([0-9]*\): $1\$/\1/p")
	[ -n "$tid" ] && echo "$tid"
}

# tgtd_target IQN: makes the target, open to every initiator, if it is not there.
tgtd_target() {
	local last

	tgtd_tid "$1" >/dev/null && return
	last=$(tgt_adm --lld iscsi --op show --mode target |
		sed -n 's/^Target \([0-9]*\): .*/\1/p' | sort -n | tail -1)
	tgt_conf --op new --mode target --tid $((${last:-0} + 1)) -T "$1"
	tgt_conf --op bind --mode target --tid $((${last:-0} + 1)) -I ALL
}

# tgtd_lun NAME IQN LUN FILE [BLOCKSIZE [thin]]: FILE as that LUN. NAME becomes serial number and
# identifier, so that two volumes are told apart. LUN >= 1: 0 is tgt's controller.
tgtd_lun() {
	local name=$1 iqn=$2 lun=$3 file=$4 block=${5:-512} thin=0 tid

	case ${6:-} in
	thin) thin=1 ;;
	'') ;;
	*) fail "tgtd_lun: $6: thin or nothing" ;;
	esac
	tgtd_target "$iqn"
	tid=$(tgtd_tid "$iqn")
	tgt_conf --op new --mode logicalunit --tid "$tid" --lun "$lun" -b "$(realpath "$file")" \
		--blocksize "$block"
	tgt_conf --op update --mode logicalunit --tid "$tid" --lun "$lun" \
		--params "scsi_sn=$name,scsi_id=NB-$name,thin_provisioning=$thin"
}

# tgtd_drop_lun IQN LUN: takes it away, from a restarted one too.
tgtd_drop_lun() {
	tgt_conf --op delete --mode logicalunit --tid "$(tgtd_tid "$1")" --lun "$2"
}

# tgtd_chap IQN USER PASSWORD [MUTUAL_USER MUTUAL_PASSWORD]: on an existing target. Passwords of
# 12..16 characters are what every initiator takes.
tgtd_chap() {
	local tid

	tid=$(tgtd_tid "$1")
	tgt_conf --op new --mode account --user "$2" --password "$3"
	tgt_conf --op bind --mode account --tid "$tid" --user "$2"
	[ $# -gt 3 ] || return 0
	tgt_conf --op new --mode account --user "$4" --password "$5"
	tgt_conf --op bind --mode account --tid "$tid" --user "$4" --outgoing
}

# tgtd_param IQN [KEY VALUE]: one parameter of negotiation, for sessions to come; without KEY those
# of a well tuned target, which takes 256 KiB of WRITE in one round trip.
tgtd_param() {
	local tid

	tid=$(tgtd_tid "$1")
	if [ $# = 3 ]; then
		tgt_conf --op update --mode target --tid "$tid" --name "$2" --value "$3"
		return
	fi
	tgtd_param "$1" InitialR2T No
	tgtd_param "$1" ImmediateData Yes
	tgtd_param "$1" MaxBurstLength 262144
	tgtd_param "$1" FirstBurstLength 262144
	tgtd_param "$1" MaxRecvDataSegmentLength 262144
	tgtd_param "$1" MaxXmitDataSegmentLength 262144
}

# tgtd_sessions IQN: the number of sessions that are logged in.
tgtd_sessions() {
	tgt_adm --lld iscsi --op show --mode conn --tid "$(tgtd_tid "$1")" | grep -c '^Session:' || :
}
