// SPDX-License-Identifier: Apache-2.0
/*
 * The memory trap of a file system in user space: guests and loop devices on this host dirty pages,
 * the kernel wants memory and writes those pages back to us, and we need memory to take them. An
 * I/O flusher's own allocations do not wait for such write-back (prctl(2)); and the OOM killer
 * should look elsewhere first, because killing us frees little and takes the guests' disk away.
 */
#include <fcntl.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "mount/mount.h"

#define OOM_SCORE "-800"

bool mount_protect_process(void)
{
	cleanup_close int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
	bool flusher = prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) == 0;

	return fd >= 0 && write(fd, OOM_SCORE, strlen(OOM_SCORE)) > 0 && flusher;
}
