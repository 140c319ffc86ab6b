// SPDX-License-Identifier: Apache-2.0
#include "mount/fusermount.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/cleanup.h"

#define HELPER "fusermount3"
/* Where Debian has it, for callers whose PATH is bare. */
#define HELPER_PATH "/usr/bin/fusermount3"
/* The helper sends the connection over the socket this variable names (libfuse lib/mount.c). */
#define COMM_VARIABLE "_FUSE_COMMFD"
#define COMM_CHILD_FD 3

extern char **environ;

/* A copy of the descriptor that the child's low numbers cannot collide with. */
static int lift(int fd)
{
	int high = fcntl(fd, F_DUPFD_CLOEXEC, 10);

	close(fd);
	return high;
}

static int spawn(char *const argv[], int comm_fd, int stderr_fd, pid_t *ret_pid)
{
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attr;
	sigset_t none;
	cleanup_free char **env = NULL;
	size_t n = 0;
	int r;

	while (environ && environ[n])
		n++;
	env = calloc(n + 2, sizeof(*env));
	if (!env)
		return -ENOMEM;
	n = 0;
	for (char **e = environ; e && *e; e++) {
		if (strncmp(*e, COMM_VARIABLE "=", sizeof(COMM_VARIABLE)) != 0)
			env[n++] = *e;
	}
	if (comm_fd >= 0)
		env[n++] = (char *)COMM_VARIABLE "=3";

	/* Our threads block signals; the helper must not inherit that. */
	sigemptyset(&none);
	posix_spawnattr_init(&attr);
	posix_spawnattr_setsigmask(&attr, &none);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK);
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, stderr_fd, STDERR_FILENO);
	if (comm_fd >= 0)
		posix_spawn_file_actions_adddup2(&actions, comm_fd, COMM_CHILD_FD);
	r = posix_spawnp(ret_pid, HELPER, &actions, &attr, argv, env);
	if (r == ENOENT)
		r = posix_spawn(ret_pid, HELPER_PATH, &actions, &attr, argv, env);
	posix_spawn_file_actions_destroy(&actions);
	posix_spawnattr_destroy(&attr);
	return -r;
}

/* Read all of @fd into @text, as one line without the helper's own name in front. */
static void read_message(int fd, char *text, size_t max)
{
	char sink[256];
	size_t n = 0;
	ssize_t got;

	do {
		bool full = n + 1 >= max;

		got = full ? read(fd, sink, sizeof(sink)) : read(fd, text + n, max - 1 - n);
		if (got > 0 && !full)
			n += (size_t)got;
	} while (got > 0 || (got < 0 && errno == EINTR));
	while (n && text[n - 1] == '\n')
		n--;
	text[n] = '\0';
	for (char *c = text; *c; c++) {
		if (*c == '\n')
			*c = ' ';
	}
	if (!strncmp(text, HELPER ": ", strlen(HELPER ": ")))
		memmove(text, text + strlen(HELPER ": "), n + 1 - strlen(HELPER ": "));
}

/* Run the helper to its end: 0 when it succeeded, 1 when it said no, -errno when it did not run. */
static int run(char *const argv[], int comm_fd, char *text, size_t max)
{
	cleanup_close int read_end = -1;
	cleanup_close int write_end = -1;
	int fds[2];
	int status;
	pid_t pid;
	int r;

	if (pipe2(fds, O_CLOEXEC) < 0)
		return -errno;
	read_end = fds[0];
	write_end = lift(fds[1]);
	if (write_end < 0)
		return -errno;
	r = spawn(argv, comm_fd, write_end, &pid);
	if (r < 0)
		return r;
	close(steal_fd(write_end));
	read_message(read_end, text, max);
	while (waitpid(pid, &status, 0) < 0) {
		if (errno != EINTR)
			return -errno;
	}
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : 1;
}

static int not_run(int r, struct err *err)
{
	if (r == -ENOENT)
		return err_set(
			err, r,
			"fusermount3 was not found: install the package fuse3, or run as root");
	return err_set(err, r, "running fusermount3: %s", strerror(-r));
}

static int receive_fd(int sock)
{
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(sizeof(int))];
	} control;
	char byte;
	struct iovec iov = { .iov_base = &byte, .iov_len = 1 };
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control),
	};
	struct cmsghdr *c;
	int fd;

	if (recvmsg(sock, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT) <= 0)
		return -EPROTO;
	c = CMSG_FIRSTHDR(&msg);
	if (!c || c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
		return -EPROTO;
	memcpy(&fd, CMSG_DATA(c), sizeof(fd));
	return fd;
}

static int refused(const char *path, const char *text, struct err *err)
{
	if (strstr(text, "user_allow_other"))
		return err_set(err, -EPERM,
			       "allow_other needs the line \"user_allow_other\" in /etc/fuse.conf: "
			       "ask the "
			       "administrator, or mount without it");
	if (strstr(text, "/dev/fuse") || strstr(text, "fuse device not found"))
		return err_set(err, -EACCES, "this user cannot use FUSE: %s", text);
	if (strstr(text, "not owned by user") || strstr(text, "no write access"))
		return err_set(err, -EACCES,
			       "mounting on %s: %s: use a directory of your own, or run as root",
			       path, text);
	return err_set(err, -EPERM, "mounting on %s: %s", path,
		       *text ? text : "fusermount3 failed");
}

int fusermount_mount(const char *path, const char *options, int *ret_fd, struct err *err)
{
	char *const argv[] = {
		(char *)HELPER,          (char *)"-o", (char *)(uintptr_t)options, (char *)"--",
		(char *)(uintptr_t)path, NULL
	};
	cleanup_close int ours = -1;
	cleanup_close int theirs = -1;
	char text[512];
	int pair[2];
	int r;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return not_run(-errno, err);
	ours = pair[0];
	theirs = lift(pair[1]);
	if (theirs < 0)
		return not_run(-errno, err);
	r = run(argv, theirs, text, sizeof(text));
	if (r < 0)
		return not_run(r, err);
	if (r > 0)
		return refused(path, text, err);
	r = receive_fd(ours);
	if (r < 0)
		return err_set(err, r, "fusermount3 mounted %s but handed over no connection",
			       path);
	*ret_fd = r;
	return 0;
}

int fusermount_unmount(const char *path, bool lazy, struct err *err)
{
	char *const argv[] = { (char *)HELPER, (char *)(lazy ? "-uz" : "-u"), (char *)"--",
			       (char *)(uintptr_t)path, NULL };
	char text[512];
	int r = run(argv, -1, text, sizeof(text));

	if (r < 0)
		return not_run(r, err);
	if (r == 0)
		return 0;
	if (strstr(text, "busy"))
		return err_set(err, -EBUSY, "%s is in use", path);
	return err_set(err, -EPERM, "unmounting %s: %s", path, *text ? text : "fusermount3 failed");
}
