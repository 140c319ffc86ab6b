#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A file system on a far disk, 100 ms and 100 Mbit/s away: made, filled with a tree of thousands of
# files, flushed, unmounted; and on the far side it is sound and has the same tree.

# shellcheck source=tests/lib/functions.sh
. "$(dirname "$0")/../lib/functions.sh"
require_root
require tgtd mkfs.ext4 e2fsck losetup diff python3 /dev/fuse

IQN=iqn.2024-01.test:$NB_ID
MNT=$T/mnt

# make_tree DIR: 3000 files in 60 directories, 160 MiB, with links and holes and odd names.
make_tree() {
	random_file "$T/random" 160M 1
	python3 - "$T/random" "$1" <<-'END'
		import os, random, sys
		rng = random.Random(2)
		source = open(sys.argv[1], "rb")
		left = os.path.getsize(sys.argv[1])
		for number in range(3000):
		    folder = os.path.join(sys.argv[2], "d%d" % (number % 12), "e %d" % (number % 5))
		    os.makedirs(folder, exist_ok=True)
		    path = os.path.join(folder, "f%d\u00e4" % number)
		    size = 12 << 20 if number % 500 == 0 else rng.choice((0, 17, 4096, 5000, 30000, 100001))
		    if number == 2999:
		        size = left
		    size = min(size, left)
		    left -= size
		    with open(path, "wb") as file:
		        if number % 50 == 0:
		            file.seek(1 << 20)
		        file.write(source.read(size))
		    if number % 40 == 0:
		        os.symlink(os.path.basename(path), path + ".link")
		        os.link(path, path + ".hard")
	END
	rm "$T/random"
}

# For wait_for: umount has let go of the loop device, which it does a moment later.
not_attached() {
	[ -z "$(losetup -j "$MNT/disk.img")" ]
}

truncate -s 512M "$T/disk"
ns_pair
wan_start 100ms 100M
tgtd_start "$NS_B"
tgtd_lun one "$IQN" 1 "$T/disk"
tgtd_param "$IQN"
mkdir "$T/tree" "$T/fs"
make_tree "$T/tree"
mount_nb --log "$T/nearblk.log" --cache-size 640M "iscsi://$TGTD_PORTAL/$IQN/1" "$MNT"
mkfs.ext4 -q "$MNT/disk.img"
mount -o loop "$MNT/disk.img" "$T/fs"
cp -a "$T/tree/." "$T/fs/tree"
sync -f "$T/fs"
diff -r --no-dereference "$T/tree" "$T/fs/tree" || fail "the tree differs on the mounted volume"
umount "$T/fs"
wait_for 10 not_attached
nb flush "$MNT"
assert_eq "$(status_key "$MNT" dirty_bytes)" 0 "dirty bytes after flush"
umount_nb "$MNT"

e2fsck -fn "$T/disk" >"$T/e2fsck.log" 2>&1 || fail "the file system is not sound on the far side"
mount -o loop,ro "$T/disk" "$T/fs"
diff -r --no-dereference "$T/tree" "$T/fs/tree" || fail "the tree differs on the far side"
assert_eq "$(find "$T/fs/tree" -type f | wc -l)" 3075 "files on the far side"
umount "$T/fs"
