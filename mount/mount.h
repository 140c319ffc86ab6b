// SPDX-License-Identifier: Apache-2.0
/*
 * The FUSE face of a volume: a directory with one file, disk.img, that behaves like a block device.
 * What lives in this folder: kernel requests → block requests on one `struct blk_dev`, and the
 * mounting itself. What may not: caching, ordering, policy; fuse headers stay inside.
 *
 * disk.img: the size is the device's and does not change (truncate and O_TRUNC are accepted and do
 * nothing; a write is cut at the end, one that starts there is ENOSPC; reads there are empty);
 * fsync is a FLUSH; O_SYNC and O_DSYNC writes carry FUA; close flushes nothing; PUNCH_HOLE is
 * DISCARD with its edges zeroed, ZERO_RANGE is ZERO; SEEK_HOLE finds what is known to be zero;
 * chown, chmod and utimens are remembered until the unmount; no other name can be made, nothing can
 * be removed. Each request stays outstanding at the device without holding a thread.
 *
 * Life: mount_create() → mount_start() → … → mount_unmount() or mount_detach() → mount_stop() →
 * blk_stop() of the device → mount_destroy().
 *
 * Process-wide effects: SIGRTMIN+3 is taken (mount_start() installs a handler that does nothing) to
 * wake the threads of this module; libfuse's messages go to the log.
 */
#ifndef MOUNT_MOUNT_H
#define MOUNT_MOUNT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/block.h"
#include "core/err.h"

#define MOUNT_FILE_NAME "disk.img"
#define MOUNT_FS_TYPE "fuse.nearblk"
#define MOUNT_MAX_THREADS 16

struct mount;

struct mount_config {
	struct blk_dev *dev;    /* lent until mount_destroy(); started; sector_bytes is 1 */
	const char *mountpoint; /* an existing directory; copied */
	const char *fsname;     /* the source in /proc/mounts: the URL, no secrets; copied */
	uid_t uid;              /* owner of disk.img and of the directory */
	gid_t gid;
	mode_t mode;      /* of disk.img, 0..0777 */
	bool read_only;   /* also when the device says so */
	bool allow_other; /* users other than the mounting one may come in (root is another too) */
	unsigned threads; /* 1..MOUNT_MAX_THREADS that read requests; 0: from the number of CPUs */
	/*
	 * The kernel side is gone: @reason 0 after an unmount (umount(8), fusermount3 -u, the last
	 * open handle of a detached mount closed), -ECONNABORTED when the connection was cut but
	 * the dead mount is still in the tree (mount_detach() removes it), else the -errno of
	 * reading from the device. Called once at most, from a thread of this module, not for a
	 * mount_stop(). It must not call mount_stop() or mount_destroy(): wake another thread. May
	 * be NULL.
	 */
	void (*on_unmounted)(void *ctx, int reason);
	void *ctx;
};

/*
 * Attach to the mountpoint: mount(2) where permitted, else through fusermount3. A dead mount of
 * ours (its daemon was killed) found there is detached first; a live one refuses with -EBUSY.
 * Nothing is served before mount_start(). 0 with *@ret owned by the caller, or -errno with @err:
 * -EINVAL (sector size, device size), -ENOENT, -ENOTDIR, -EBUSY, -EPERM, -EACCES, -ENODEV (no
 * FUSE), -ENOMEM. One thread.
 */
int mount_create(const struct mount_config *conf, struct mount **ret, struct err *err);

/*
 * Start the threads that serve; returns at once, the mount can be used from then on. 0 or -errno
 * with @err; then only mount_detach(), mount_stop() and mount_destroy() may follow. Once.
 */
int mount_start(struct mount *m, struct err *err);

/*
 * A true unmount: 0, -EBUSY while anything uses it (open files, loop devices, working directories;
 * see mount_holders()), -ENOENT when it is not mounted any more, or another -errno; @err is filled.
 * Dirty pages of memory maps are written to the device on the way, so the threads must be serving.
 * Not from on_unmounted() nor from a done() of the device.
 */
int mount_unmount(struct mount *m, struct err *err);

/*
 * Lazy unmount: the name goes at once, open handles stay served until closed. Nothing happens when
 * it is not mounted any more. Any thread but those of this module.
 */
void mount_detach(struct mount *m);

/* Handles on disk.img that are open now; a loop device and a memory map hold one each. Any thread.
 */
unsigned mount_open_handles(struct mount *m);

/*
 * End the threads and the connection: whoever still holds a handle gets ENOTCONN. Does not unmount:
 * mount_unmount() or mount_detach() come first. Requests that are outstanding at the device stay
 * there. Idempotent; NULL is fine; not from a thread of this module.
 */
void mount_stop(struct mount *m);

/*
 * Free. Stops first if that was not done, detaches if still mounted, and waits for the requests
 * outstanding at the device: the device was stopped before, or finishes them. NULL is fine.
 */
void mount_destroy(struct mount *m);

/*
 * The device may have grown: read its size again and tell the kernel. Blocks until the kernel has
 * dropped what it cached of the old end, which may take writes of ours: never from a thread of this
 * module nor from a done() of the device.
 */
void mount_size_changed(struct mount *m);

/*
 * Say who uses what is mounted at @mountpoint: "qemu-system-x86 (pid 4711), /dev/loop3", from open
 * files, working directories, memory maps and loop devices that this process may see; itself left
 * out. Returns how many there are; @buf (@max bytes) is always terminated and may be cut. Reads
 * /proc and /sys only, never the mount. Any thread.
 */
int mount_holders(const char *mountpoint, char *buf, size_t max);

/*
 * Guard the process against the memory pressure of its own users: PR_SET_IO_FLUSHER and a lower OOM
 * score, each where permitted. Inherited by threads made later: call it before any. Returns true if
 * both took.
 */
bool mount_protect_process(void);

#endif
