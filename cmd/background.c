// SPDX-License-Identifier: Apache-2.0
#include "cmd/background.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cmd/cmd.h"
#include "core/cleanup.h"
#include "core/log.h"

bool background_tell(int *fd, char kind, const char *text)
{
	char message[sizeof(struct err) + 2];
	int n;

	if (*fd < 0) {
		if (*text)
			cmd_fail("%s", text);
		return true;
	}
	n = snprintf(message, sizeof(message), "%c%s", kind, text);
	n = write(*fd, message, (size_t)n) == n;
	close(steal_fd(*fd));
	return n;
}

void background_leave_caller(int *ready_fd)
{
	setsid();
	/* The pipe becomes 3; everything above it goes. */
	if (*ready_fd != 3) {
		dup2(*ready_fd, 3);
		*ready_fd = 3;
	}
	close_range(4, ~0u, 0);
	fcntl(*ready_fd, F_SETFD, FD_CLOEXEC);
	if (chdir("/") < 0)
		log_warning("cannot leave the working directory: %s", strerror(errno));
}

void background_leave_terminal(void)
{
	cleanup_close int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	cleanup_close int log = log_stream();

	if (null < 0)
		return;
	for (int fd = 0; fd <= 2; fd++)
		dup2(fd == 2 && log >= 0 ? log : null, fd);
}
