// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cmd/cmd.h"
#include "cmd/deliver.h"
#include "cmd/progress.h"
#include "cmd/volume.h"
#include "core/cleanup.h"
#include "core/clock.h"
#include "mount/mount.h"

/* For fsync any way to open will do: the mode may permit the one and not the other. */
static int open_any(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	return fd < 0 && errno == EACCES ? open(path, O_WRONLY | O_CLOEXEC) : fd;
}

/* Runs in the child: 0 or a positive errno; EACCES: neither we nor the daemon's user may open it.
 */
static int fsync_as_owner(const struct volume *v)
{
	char path[PATH_MAX + 16];
	cleanup_close int fd = -1;

	snprintf(path, sizeof(path), "%s/" MOUNT_FILE_NAME, v->mountpoint);
	fd = open_any(path);
	/* Without allow_other not even root may look into another user's FUSE mount. */
	if (fd < 0 && errno == EACCES && geteuid() == 0 && v->uid != 0) {
		if (setgroups(0, NULL) < 0 || setresgid(v->gid, v->gid, v->gid) < 0 ||
		    setresuid(v->uid, v->uid, v->uid) < 0)
			return errno;
		fd = open_any(path);
	}
	if (fd < 0 || fsync(fd) < 0)
		return errno;
	return 0;
}

/*
 * fsync disk.img, so that dirty pages of memory maps are in the cache before it drains. In a child
 * process: one that hangs can be left behind, and it may change its user. 0, -ETIMEDOUT, -EINTR, or
 * the -errno of the fsync.
 */
static int fsync_file(const struct volume *v, uint64_t deadline_ns)
{
	uint64_t pause = NSEC_PER_MSEC;
	pid_t pid = fork();
	int status;

	if (pid < 0)
		return -errno;
	if (pid == 0)
		_exit(fsync_as_owner(v));
	while (waitpid(pid, &status, WNOHANG) == 0) {
		bool late = clock_monotonic_ns() >= deadline_ns;

		if (late || interrupted()) {
			kill(pid, SIGKILL);
			return late ? -ETIMEDOUT : -EINTR;
		}
		interruptible_sleep(pause);
		pause = MIN(pause * 2, 50 * NSEC_PER_MSEC);
	}
	return WIFEXITED(status) ? -WEXITSTATUS(status) : -EIO;
}

static int report(struct volume *v, enum job_end end, const json_t *last, const struct err *err)
{
	char left[48], suffix[96];

	if (end == JOB_DONE)
		return EXIT_DONE;
	snprintf(suffix, sizeof(suffix), "; %s not yet at the target", volume_left(last, left));
	return volume_not_done(v, end, last, err, true, suffix);
}

/* Options that say how to reach a volume, which a daemon knows already. */
static bool needs_cache_dir(const struct option_set *set)
{
	static const enum option_id id[] = { OPT_URL,       OPT_CREDENTIALS,     OPT_INITIATOR_NAME,
					     OPT_SESSIONS,  OPT_CONNECT_TIMEOUT, OPT_HEADER_DIGEST,
					     OPT_FORCE_PUSH };

	for (size_t i = 0; i < ARRAY_SIZE(id); i++)
		if (set->value[id[i]].given)
			return true;
	return false;
}

int cmd_flush(struct option_set *set)
{
	uint64_t deadline_ns =
		volume_deadline(set->value[OPT_TIMEOUT].given, set->value[OPT_TIMEOUT].number);
	struct err err = { .text = "" };
	json_t *last = NULL;
	struct volume v;
	enum job_end end;
	int r;

	if (set->operands && set->value[OPT_CACHE_DIR].given)
		return cmd_usage(set, "MOUNTPOINT or --cache-dir, not both");
	if (set->value[OPT_CACHE_DIR].given)
		return deliver(set);
	if (!set->operands)
		return cmd_usage(set,
				 "which volume? Say MOUNTPOINT, or --cache-dir DIR for one that "
				 "is not mounted");
	if (needs_cache_dir(set))
		return cmd_usage(set, "options of how to reach a volume go with --cache-dir");
	r = volume_find(set->operand[0], &v, &err);
	if (r < 0)
		return cmd_fail("%s", err.text);
	interrupt_catch();
	r = v.mounted ? fsync_file(&v, deadline_ns) : 0;
	if (r == -EACCES) {
		cmd_fail("%s/" MOUNT_FILE_NAME " may not be opened by this user (--uid, --mode): "
			 "pages of memory maps that are not synced yet are left out",
			 v.mountpoint);
		r = 0;
	}
	if (r == 0 || r == -ETIMEDOUT || r == -EINTR) {
		/* Late or interrupted: the job is asked once, for the bytes that are left. */
		end = volume_job(&v, json_pack("{s:s}", "kind", "flush"), r == 0 ? deadline_ns : 0,
				 volume_show_drain, &last, &err);
		if (r < 0 && end == JOB_DONE)
			end = r == -EINTR ? JOB_INTERRUPTED : JOB_TIMEOUT;
		r = report(&v, end, last, &err);
		json_decref(last);
	} else {
		r = cmd_fail("%s/" MOUNT_FILE_NAME ": fsync failed: %s", v.mountpoint,
			     strerror(-r));
	}
	volume_close(&v);
	return r;
}
