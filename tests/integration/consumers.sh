#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Those who work with files and disks take disk.img for one: mmap, dd, cp, native AIO, io_uring,
# O_DSYNC, loop, QEMU's tools. Afterwards the target has what they wrote.

# shellcheck source=tests/lib/functions.sh
. "$(dirname "$0")/../lib/functions.sh"
require_root
require tgtd fio python3 losetup qemu-img qemu-io /dev/fuse

IQN=iqn.2024-01.test:$NB_ID
MNT=$T/mnt
IMG=$MNT/disk.img
SIZE=64

at_the_target() {
	nb flush "$MNT"
	cmp "$IMG" "$T/disk" || fail "$1: the target has other bytes"
}

test_mmap() {
	python3 - "$IMG" "$T/random" <<-'END'
		import mmap, os, sys
		data = open(sys.argv[2], "rb").read(3 << 20)
		fd = os.open(sys.argv[1], os.O_RDWR)
		memory = mmap.mmap(fd, 64 << 20, mmap.MAP_SHARED)
		memory[4097:4097 + len(data)] = data
		memory[-1000:] = data[:1000]
		# What is written through the file shows in the memory, and the other way round.
		os.pwrite(fd, data[:8192], 20 << 20)
		assert memory[20 << 20:(20 << 20) + 8192] == data[:8192]
		assert os.pread(fd, len(data), 4097) == data
		memory.flush()
	END
	cmp -n 3M -i 4097:0 "$IMG" "$T/random"
	at_the_target mmap
}

# Written through memory and never synchronised: flush takes care of it.
test_mmap_without_msync() {
	python3 - "$IMG" <<-'END'
		import mmap, os, sys
		memory = mmap.mmap(os.open(sys.argv[1], os.O_RDWR), 64 << 20)
		memory[5000000:5000012] = b"only-mapped!"
		os._exit(0)
	END
	nb flush "$MNT"
	assert_eq "$(dd if="$T/disk" bs=1 skip=5000000 count=12 status=none)" 'only-mapped!' \
		"written through memory"
}

# Neither may shorten the file, though one opens it with O_TRUNC.
test_dd_and_cp() {
	dd if="$T/random" of="$IMG" bs=64k count=160 status=none
	assert_eq "$(stat -c %s "$IMG")" $((SIZE << 20)) "size after dd"
	cmp -n 10M "$IMG" "$T/random"
	random_file "$T/whole" ${SIZE}M 3
	cp "$T/whole" "$IMG"
	assert_eq "$(stat -c %s "$IMG")" $((SIZE << 20)) "size after cp"
	cmp "$IMG" "$T/whole"
	at_the_target "cp"
	truncate -s $(((SIZE << 20) + 1)) "$T/whole"
	assert_fails any 'No space left' cp "$T/whole" "$IMG"
	assert_fails any 'No space left' dd if="$T/random" of="$IMG" bs=1M seek=$SIZE conv=notrunc
	cp --sparse=never "$IMG" "$T/copy"
	cmp "$T/copy" "$T/disk"
}

# fio_with ENGINE OPTION...
fio_with() {
	local engine=$1

	shift
	fio --name="$engine" --filename="$IMG" --ioengine="$engine" --rw=randrw --bsrange=512-128k --bs_unaligned \
		--size=16m --thread --verify=crc32c --verify_fatal=1 --verify_state_save=0 --fsync=50 \
		--output="$T/fio.log" "$@"
	at_the_target "$engine $*"
}

test_engines() {
	fio_with libaio --direct=1 --blockalign=512 --bs_unaligned=0 --iodepth=32
	fio_with io_uring --direct=1 --blockalign=512 --bs_unaligned=0 --iodepth=32 --offset=16m
	fio_with io_uring --iodepth=8 --offset=32m
	fio_with psync --offset=48m --sync=dsync
	fio_with mmap --offset=8m --bsrange=4k-64k --bs_unaligned=0
}

test_loop() {
	loop_over "$IMG" --direct-io=on
	fio --name=loop --filename="$LOOP" --ioengine=libaio --direct=1 --iodepth=8 --rw=randrw --bs=4k \
		--size=4m --offset=24m --thread --verify=crc32c --verify_fatal=1 --verify_state_save=0 \
		--output="$T/fio.log"
	loop_detach "$LOOP" "$IMG"
	at_the_target loop
}

test_qemu() {
	local cache

	qemu-img info -f raw "$IMG" | grep -q "virtual size: $SIZE MiB" || fail "qemu-img info"
	qemu-img create -q -f qcow2 "$T/small.qcow2" ${SIZE}M
	qemu-io -c 'write -P 0xa5 1M 3M' -c 'write -P 0x5a 63M 1M' "$T/small.qcow2" >"$T/qemu.log"
	qemu-img convert -n -f qcow2 -O raw "$T/small.qcow2" "$IMG"
	qemu-img compare -f raw -F qcow2 "$IMG" "$T/small.qcow2" >"$T/qemu.log" || fail "$(cat "$T/qemu.log")"
	at_the_target "qemu-img convert"
	for cache in none writeback directsync; do
		qemu-io -f raw -t $cache -d unmap -c 'write -P 0xc3 2M 1M' -c 'aio_write -P 0x3c 4M 2M' -c aio_flush \
			-c 'discard 1M 512k' -c 'write -z 3M 64k' -c flush -c 'read -P 0xc3 2M 1M' -c 'read -P 0x3c 4M 2M' \
			-c 'read -P 0 3M 64k' "$IMG" >"$T/qemu.log" 2>&1 || fail "qemu-io, $cache: $(cat "$T/qemu.log")"
		! grep -qE 'failed|differ|error' "$T/qemu.log" || fail "qemu-io, $cache: $(cat "$T/qemu.log")"
		at_the_target "qemu-io, $cache"
	done
}

# A disk that cannot be turned into something else.
test_no_other_names() {
	assert_fails any 'not permitted|denied|Read-only|not supported' touch "$MNT/other"
	assert_fails any . rm "$IMG"
	assert_fails any . mv "$IMG" "$MNT/other"
	assert_fails any . mkdir "$MNT/dir"
	assert_eq "$(ls -A "$MNT")" disk.img "names in the mount"
}

random_file "$T/random" 16M 1
truncate -s ${SIZE}M "$T/disk"
tgtd_start
tgtd_lun one "$IQN" 1 "$T/disk" 512 thin
mount_nb --log "$T/nearblk.log" --cache-size 96M "iscsi://$TGTD_PORTAL/$IQN/1" "$MNT"
test_mmap
test_mmap_without_msync
test_dd_and_cp
test_engines
test_loop
test_qemu
test_no_other_names
umount_nb "$MNT"
