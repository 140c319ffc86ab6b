#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What the command line refuses by itself: messages and exit statuses; nothing is mounted.
set -u
nearblk=${NEARBLK:-$PWD/nearblk}
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
mkdir -m 700 "$dir/run" "$dir/state" "$dir/mnt"
export NEARBLK_RUNTIME_DIR=$dir/run NEARBLK_STATE_DIR=$dir/state
unset NEARBLK_CREDENTIALS CREDENTIALS_DIRECTORY
failed=0

# expect STATUS TEXT ARGUMENT...: both outputs together hold TEXT.
expect() {
	local want=$1 text=$2 out got
	shift 2
	out=$("$nearblk" "$@" 2>&1 </dev/null)
	got=$?
	if [ $got -ne "$want" ] || [[ $out != *"$text"* ]]; then
		echo "FAIL: nearblk $*: status $got, not $want, or no \"$text\" in: $out"
		failed=1
	fi
}

url=file://$dir/volume

expect 2 "Usage: nearblk COMMAND"
expect 0 "Commands:" --help
expect 0 "nearblk 0." --version
expect 2 "did you mean mount?" muont
expect 2 "unknown command xyzzy" xyzzy
expect 2 "unknown option --frob" --frob
for command in mount umount flush warm drop status discover check; do
	expect 0 "Usage: nearblk $command" "$command" --help
	expect 0 "nearblk 0." "$command" --version
	expect 2 "Try 'nearblk $command --help'" "$command" --nonsense
done

expect 2 "missing operand: nearblk mount URL MOUNTPOINT" mount
expect 2 "missing operand" mount "$url"
expect 2 "one operand too many: three" mount "$url" "$dir/mnt" three
expect 2 "did you mean --cache-size?" mount --cachesize 1G "$url" "$dir/mnt"
expect 2 "--cache-size 1X: not a size" mount --cache-size 1X "$url" "$dir/mnt"
expect 2 "at least 32 MiB" mount --cache-size 1M "$url" "$dir/mnt"
expect 2 "from 1 to 64" mount --sessions 65 "$url" "$dir/mnt"
expect 2 "not a duration" mount -o max_dirty_age=5x "$url" "$dir/mnt"
expect 2 "is more than --cache-size" mount --cache-size 64M --max-dirty 65M "$url" "$dir/mnt"
expect 2 "--log stderr needs --foreground" mount --log stderr "$url" "$dir/mnt"
expect 2 "not an iSCSI name" mount --initiator-name Nonsense iscsi://h/iqn.2026-01.x:y/1 "$dir/mnt"
expect 2 "--debug-fault" mount --debug-fault wrote "$url" "$dir/mnt"
expect 2 "append acknowledge" mount --debug-kill appendix "$url" "$dir/mnt"
expect 2 "--debug-kill append:0" mount --debug-kill append:0 "$url" "$dir/mnt"
expect 2 "" mount ftp://host/x "$dir/mnt"
expect 2 "--credentials" mount iscsi://user:secret@host/iqn.2026-01.x:y/1 "$dir/mnt"
expect 1 "" mount "$url" "$dir/mnt"
expect 1 "absent" mount "$url" "$dir/absent"
expect 1 "absent" mount --credentials "$dir/absent" iscsi://host/iqn.2026-01.x:y/1 "$dir/mnt"
echo "password=x" >"$dir/wide"
chmod 644 "$dir/wide"
expect 1 "$dir/wide" mount --credentials "$dir/wide" iscsi://host/iqn.2026-01.x:y/1 "$dir/mnt"
chmod 600 "$dir/wide"
expect 1 "username" discover --credentials "$dir/wide" iscsi://127.0.0.1:1
printf 'username=ann\npassword=x\n' >"$dir/wide"
expect 1 "names the user bob" discover --credentials "$dir/wide" iscsi://bob@127.0.0.1:1

# No message and no process list may show a secret.
out=$("$nearblk" mount iscsi://user:sesame@host/iqn.2026-01.x:y/1 "$dir/mnt" 2>&1)
[[ $out != *sesame* ]] || { echo "FAIL: the password is shown: $out"; failed=1; }

# A directory with somebody's files is no cache.
mkdir "$dir/home"
touch "$dir/home/letter"
truncate -s 1M "$dir/volume"
expect 1 "holds other files (letter)" mount --cache-dir "$dir/home" "$url" "$dir/mnt"
rm "$dir/volume"

expect 1 "no nearblk volume" umount "$dir/mnt"
expect 1 "no nearblk volume" flush "$dir/mnt"
expect 1 "no nearblk volume" drop "$dir/mnt"
expect 1 "no nearblk volume" status "$dir/mnt"
expect 1 "no nearblk volume" warm "$dir/mnt"
expect 2 "not OFFSET+LENGTH" warm --range 5 "$dir/mnt"
expect 2 "not OFFSET+LENGTH" warm --range 1M+0 "$dir/mnt"
expect 2 "exclude each other" warm --all --range 0+1M "$dir/mnt"
expect 0 "no volumes" status
expect 0 "[]" status --json
expect 2 "only iscsi targets" discover "file:///x"
expect 2 "--cache-dir" check

# A full disk under standard output is a failure.
if [ -w /dev/full ]; then
	"$nearblk" --help >/dev/full 2>/dev/null && { echo "FAIL: /dev/full went well"; failed=1; }
fi
exit $failed
