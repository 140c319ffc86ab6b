// SPDX-License-Identifier: Apache-2.0
#include "tests/mount/fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "mount/attach.h"

int fixture_enter(void)
{
	if (access("/dev/fuse", R_OK | W_OK) < 0) {
		fprintf(stderr, "skipped: /dev/fuse cannot be used: %s\n", strerror(errno));
		return 77;
	}
	if (geteuid() != 0) {
		fprintf(stderr, "skipped: needs root, for a mount namespace of its own\n");
		return 77;
	}
	if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) {
		fprintf(stderr, "skipped: no mount namespace: %s\n", strerror(errno));
		return 77;
	}
	return 0;
}

static void on_unmounted(void *ctx, int reason)
{
	struct fixture *f = ctx;

	guard(&f->lock);
	f->unmounted++;
	f->reason = reason;
	pthread_cond_broadcast(&f->changed);
}

struct mount_config fixture_prepare(struct fixture *f, uint64_t size_bytes, unsigned flags)
{
	struct err err;

	/* Should the runner be killed, the mount goes, too. */
	ck_ok(prctl(PR_SET_PDEATHSIG, SIGKILL));
	memset(f, 0, sizeof(*f));
	pthread_mutex_init(&f->lock, NULL);
	pthread_cond_init(&f->changed, NULL);
	strcpy(f->dir, "/tmp/nearblk-mount-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(f->dir));
	ck_ok(chmod(f->dir, 0755));
	snprintf(f->file, sizeof(f->file), "%s/" MOUNT_FILE_NAME, f->dir);
	f->dev = testdev_create(size_bytes, flags);
	ck_assert_int_eq(blk_start(f->dev, &err), 0);
	return (struct mount_config){
		.dev = f->dev,
		.mountpoint = f->dir,
		.fsname = "mem://test,with a comma",
		.uid = getuid(),
		.gid = getgid(),
		.mode = 0600,
		.on_unmounted = on_unmounted,
		.ctx = f,
	};
}

void fixture_mount(struct fixture *f, const struct mount_config *conf)
{
	struct err err = { "" };
	int fd;

	ck_assert_msg(mount_create(conf, &f->mount, &err) == 0, "%s", err.text);
	ck_assert_msg(mount_start(f->mount, &err) == 0, "%s", err.text);
	/*
	 * The kernel learns from the first close that FLUSH is not wanted. Without that, a test
	 * that fails with the file open would hang in exit(): its close() asks the threads just
	 * killed.
	 */
	fd = open(f->file, O_RDONLY | O_CLOEXEC);
	ck_ok(fd);
	close(fd);
	/* RELEASE comes some time after close(). */
	while (mount_open_handles(f->mount))
		sched_yield();
}

void fixture_up(struct fixture *f, uint64_t size_bytes, unsigned flags)
{
	struct mount_config conf = fixture_prepare(f, size_bytes, flags);

	fixture_mount(f, &conf);
}

void fixture_drop(struct fixture *f)
{
	mount_stop(f->mount);
	blk_stop(f->dev);
	mount_destroy(f->mount);
	blk_destroy(f->dev);
	ck_ok(rmdir(f->dir));
	pthread_cond_destroy(&f->changed);
	pthread_mutex_destroy(&f->lock);
}

void fixture_down(struct fixture *f)
{
	struct err err = { "" };

	ck_assert_msg(mount_unmount(f->mount, &err) == 0, "%s", err.text);
	fixture_drop(f);
}

int fixture_wait_unmounted(struct fixture *f)
{
	guard(&f->lock);
	while (!f->unmounted)
		pthread_cond_wait(&f->changed, &f->lock);
	return f->reason;
}

int fixture_unmounted(struct fixture *f)
{
	guard(&f->lock);
	return f->unmounted;
}

void fill(void *buf, size_t length, uint64_t seed)
{
	uint8_t *b = buf;

	for (size_t i = 0; i < length; i++)
		b[i] = (uint8_t)(1 + ((i + seed) * 2654435761u + seed * 40503u) % 253);
}

int sh(const char *fmt, ...)
{
	char command[2048];
	int status;
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(command, sizeof(command), fmt, ap);
	va_end(ap);
	status = system(command);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

bool have(const char *program)
{
	if (sh("command -v %s >/dev/null", program) == 0)
		return true;
	fprintf(stderr, "%s is not installed: that test is left out\n", program);
	return false;
}

bool path_is_mounted(const char *path)
{
	struct attach_entry e;

	return attach_find(path, &e) == 0;
}
