// SPDX-License-Identifier: Apache-2.0
/* Running fusermount3(1), the set-user-ID helper that mounts FUSE for ordinary users. */
#ifndef MOUNT_FUSERMOUNT_H
#define MOUNT_FUSERMOUNT_H

#include <stdbool.h>

#include "core/err.h"

/*
 * Mount on @path with the comma-separated @options. 0 with *@ret_fd the connection, close-on-exec,
 * owned by the caller; or -errno with @err, which holds what the helper said and what to do.
 */
int fusermount_mount(const char *path, const char *options, int *ret_fd, struct err *err);

/* Unmount @path. 0, -EBUSY, or another -errno with @err. */
int fusermount_unmount(const char *path, bool lazy, struct err *err);

#endif
