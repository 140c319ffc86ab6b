// SPDX-License-Identifier: Apache-2.0
/*
 * Putting a FUSE connection into the file system tree and taking it out: mount(2) and umount2(2)
 * where permitted, fusermount3(1) otherwise. Knows nothing of what is served. The tree is read from
 * /proc/self/mountinfo, which never touches a mount that may hang.
 */
#ifndef MOUNT_ATTACH_H
#define MOUNT_ATTACH_H

#include <stdbool.h>

#include "core/err.h"

#define ATTACH_SOURCE_MAX 256

struct attach_entry {
	char device[32]; /* "major:minor", one per connection */
	char type[64];   /* "fuse.nearblk" */
	char source[ATTACH_SOURCE_MAX];
};

struct attach_options {
	const char *path; /* as attach_resolve() gave it */
	const char *fsname;
	unsigned max_read_bytes;
	bool read_only;
	bool allow_other;
};

/*
 * The absolute path of @mountpoint without symbolic links, also when a dead mount is there. 0 with
 * *@ret for free(), or -errno with @err.
 */
int attach_resolve(const char *mountpoint, char **ret, struct err *err);

/* What is mounted on top at @path. 0, -ENOENT when @path is no mount, or -errno. */
int attach_find(const char *path, struct attach_entry *ret);

/*
 * The same mount, as far as can be told: the kernel gives a device number away again after the
 * unmount, perhaps to what is mounted next.
 */
bool attach_same(const struct attach_entry *a, const struct attach_entry *b);

/*
 * Make @path ready: detach dead mounts of type @type there, and check that it is a directory. 0;
 * -EBUSY with @err when a live one is there; another -errno with @err.
 */
int attach_prepare(const char *path, const char *type, struct err *err);

/* Mount. 0 with *@ret_fd the connection, close-on-exec, owned by the caller; or -errno with @err.
 */
int attach_mount(const struct attach_options *opt, int *ret_fd, struct err *err);

/* Take back an attach_mount() whose entry attach_find() does not show: the top mount of @path goes.
 */
void attach_abandon(const char *path);

/*
 * Unmount @path if its top mount is still @ours: -ENOENT otherwise. @lazy: only the name goes. 0,
 * -EBUSY, or another -errno, with @err.
 */
int attach_unmount(const char *path, const struct attach_entry *ours, bool lazy, struct err *err);

#endif
