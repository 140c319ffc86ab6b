// SPDX-License-Identifier: Apache-2.0
#include "cmd/volume.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cmd/cmd.h"
#include "cmd/place.h"
#include "cmd/progress.h"
#include "control/socket.h"
#include "core/cleanup.h"
#include "core/clock.h"
#include "core/parse.h"
#include "mount/attach.h"
#include "mount/mount.h"

/* A daemon answers from memory; one that takes longer than this is stuck. */
#define ANSWER_NS (10 * NSEC_PER_SEC)
#define POLL_MIN_NS (2 * NSEC_PER_MSEC)
#define POLL_MAX_NS (100 * NSEC_PER_MSEC)

void volume_close(struct volume *v)
{
	control_client_destroy(steal_ptr(v->client));
	if (v->pidfd >= 0)
		close(steal_fd(v->pidfd));
}

/* Ask who is behind the socket. 0, or -errno with @err. */
static int volume_open(const char *path, struct volume *ret, struct err *err)
{
	struct volume v = { .pidfd = -1 };
	const char *phase;
	json_t *reply;
	int r;

	v.client = control_client_create(path, ANSWER_NS);
	if (!v.client)
		return err_set(err, -ENOMEM, "out of memory");
	r = control_call(v.client, "GET", "/v1/volume", NULL, &reply, err);
	if (r < 0) {
		volume_close(&v);
		return r;
	}
	v.pid = (pid_t)json_integer_value(json_object_get(reply, "pid"));
	v.uid = (uid_t)json_integer_value(json_object_get(reply, "uid"));
	v.gid = (gid_t)json_integer_value(json_object_get(reply, "gid"));
	phase = json_string_value(json_object_get(reply, "phase"));
	v.mounted = phase && strcmp(phase, "mounted") == 0;
	snprintf(v.mountpoint, sizeof(v.mountpoint), "%s",
		 json_string_value(json_object_get(reply, "mountpoint")) ?: "");
	snprintf(v.cache_dir, sizeof(v.cache_dir), "%s",
		 json_string_value(json_object_get(reply, "cache_dir")) ?: "");
	json_decref(reply);
	v.pidfd = (int)syscall(SYS_pidfd_open, v.pid, 0);
	*ret = v;
	return 0;
}

struct walk {
	int (*each)(void *ctx, struct volume *v);
	void *ctx;
	bool silent; /* one did not answer */
};

static int walk_one(void *ctx, const char *path)
{
	struct walk *w = ctx;
	struct err err = { .text = "" };
	struct volume v;
	int r = volume_open(path, &v, &err);

	if (r == -ECONNREFUSED || r == -ECONNRESET)
		return 0; /* left by a daemon that is gone */
	if (r < 0) {
		cmd_fail("%s", err.text);
		w->silent = true;
		return 0;
	}
	r = w->each(w->ctx, &v);
	volume_close(&v);
	return r;
}

int volume_each(int (*each)(void *ctx, struct volume *v), void *ctx)
{
	struct walk w = { each, ctx, false };
	char run[PATH_MAX];
	int r = control_socket_each(place_run_dir(run), walk_one, &w);

	return r == 0 && w.silent ? -EIO : r;
}

struct search {
	const char *mountpoint;
	struct volume *found;
	bool any;
};

/* Keep what fits; one that is mounted there beats one that was and still sends. */
static int match(void *ctx, struct volume *v)
{
	struct search *s = ctx;

	if (strcmp(v->mountpoint, s->mountpoint) != 0 || (s->any && !v->mounted))
		return 0;
	if (s->any)
		volume_close(s->found);
	*s->found = *v;
	s->any = true;
	v->client = NULL;
	v->pidfd = -1;
	return 0;
}

/* MOUNTPOINT/disk.img stands for MOUNTPOINT. */
static char *without_file(const char *path)
{
	size_t n = strlen(path), tail = strlen("/" MOUNT_FILE_NAME);

	if (n <= tail || strcmp(path + n - tail, "/" MOUNT_FILE_NAME) != 0)
		return NULL;
	return strndup(path, n - tail);
}

int volume_find(const char *mountpoint, struct volume *ret, struct err *err)
{
	cleanup_free char *directory = without_file(mountpoint), *path = NULL;
	struct search s = { .found = ret };
	struct attach_entry entry;
	int r = attach_resolve(directory ? directory : mountpoint, &path, err);

	if (r < 0)
		return r;
	s.mountpoint = path;
	volume_each(match, &s);
	if (!s.any && attach_find(path, &entry) == 0 && strcmp(entry.type, MOUNT_FS_TYPE) == 0)
		return err_set(err, -ENOENT,
			       "%s: %s is mounted there, but its daemon has died or belongs to "
			       "another user; what was dirty is kept in its cache: mount it again, "
			       "or remove the dead mount with nearblk umount",
			       path, entry.source);
	if (!s.any)
		return err_set(err, -ENOENT, "%s: no nearblk volume of this user is mounted there",
			       path);
	return 0;
}

bool volume_wait_exit(struct volume *v, uint64_t timeout_ns)
{
	uint64_t end = clock_monotonic_ns() + timeout_ns;

	while (v->pidfd >= 0) {
		struct pollfd p = { .fd = v->pidfd, .events = POLLIN };
		uint64_t now = clock_monotonic_ns();
		int r;

		if (now >= end || interrupted())
			return false;
		r = poll(&p, 1, (int)MIN((end - now) / NSEC_PER_MSEC + 1, 1000u));
		if (r > 0)
			return true;
	}
	return false;
}

uint64_t volume_bytes(const json_t *object, const char *key)
{
	json_t *v = json_object_get(object, key);

	return json_is_integer(v) ? (uint64_t)json_integer_value(v) : UINT64_MAX;
}

uint64_t volume_deadline(bool given, uint64_t timeout_ns)
{
	return given ? clock_monotonic_ns() + timeout_ns : UINT64_MAX;
}

void volume_show_drain(const json_t *progress, char *text, size_t size)
{
	uint64_t left = volume_bytes(progress, "bytes_left");
	uint64_t to_send = volume_bytes(progress, "bytes_to_send");
	uint64_t rate = volume_bytes(progress, "bytes_per_second");
	const char *waiting = json_string_value(json_object_get(progress, "waiting_for"));
	json_t *eta = json_object_get(progress, "eta_seconds");
	char a[16], b[16], c[24];
	int n;

	if (waiting && left && left != UINT64_MAX) {
		snprintf(text, size, "%s left, waiting for %s", format_size(left, a), waiting);
		return;
	}
	left = MIN(left, to_send);
	n = snprintf(text, size, "%s left", left == UINT64_MAX ? "?" : format_size(left, a));
	if (n > 0 && (size_t)n < size && rate != UINT64_MAX && rate)
		n += snprintf(text + n, size - (size_t)n, ", %s/s", format_size(rate, b));
	if (n > 0 && (size_t)n < size && json_is_number(eta))
		snprintf(text + n, size - (size_t)n, ", %s to go",
			 format_duration((uint64_t)(json_number_value(eta) * (double)NSEC_PER_SEC),
					 c));
}

static enum job_end ended(const json_t *progress, const char **ret_state)
{
	const char *state = json_string_value(json_object_get(progress, "state"));

	*ret_state = state ? state : "";
	return state && strcmp(state, "done") == 0 ? JOB_DONE : JOB_FAILED;
}

/* Ask until it is over. @url names the job. */
static enum job_end follow(struct volume *v, const char *url, uint64_t deadline_ns,
			   void (*show)(const json_t *progress, char *text, size_t size),
			   json_t **last, struct err *err)
{
	uint64_t pause = POLL_MIN_NS;
	struct progress line;
	enum job_end end;

	progress_init(&line);
	for (;;) {
		uint64_t now;
		json_t *reply;
		const char *state;
		char text[160];

		if (control_call(v->client, "GET", url, NULL, &reply, err) < 0) {
			end = JOB_LOST;
			break;
		}
		json_decref(*last);
		*last = reply;
		end = ended(reply, &state);
		if (strcmp(state, "running") != 0)
			break;
		now = clock_monotonic_ns();
		if (interrupted() || now >= deadline_ns) {
			end = interrupted() ? JOB_INTERRUPTED : JOB_TIMEOUT;
			break;
		}
		/* What is over in a moment needs no line. */
		if (pause == POLL_MAX_NS) {
			show(reply, text, sizeof(text));
			progress_show(&line, text);
		}
		interruptible_sleep(MIN(pause, deadline_ns - now));
		pause = MIN(pause * 2, (uint64_t)POLL_MAX_NS);
	}
	progress_end(&line);
	return end;
}

enum job_end volume_job(struct volume *v, json_t *request, uint64_t deadline_ns,
			void (*show)(const json_t *progress, char *text, size_t size),
			json_t **ret_last, struct err *err)
{
	json_t *reply = NULL, *last = NULL;
	enum job_end end;
	char url[64];
	int r = control_call(v->client, "POST", "/v1/jobs", request, &reply, err);

	json_decref(request);
	if (ret_last)
		*ret_last = NULL;
	if (r < 0)
		return r == -EINVAL || r == -EBUSY || r == -EAGAIN || r == -EIO ? JOB_REFUSED
										: JOB_LOST;
	snprintf(url, sizeof(url), "/v1/jobs/%lld",
		 (long long)json_integer_value(json_object_get(reply, "id")));
	json_decref(reply);
	end = follow(v, url, deadline_ns, show, &last, err);
	/* It is told that we know, or that we no longer wait; whether it still hears it does not
	 * matter. */
	control_call(v->client, "DELETE", url, NULL, NULL, NULL);
	if (ret_last)
		*ret_last = last;
	else
		json_decref(last);
	return end;
}

const char *volume_left(const json_t *progress, char buf[48])
{
	uint64_t left = volume_bytes(progress, "bytes_left");
	char size[16];

	if (left == UINT64_MAX)
		return "an unknown amount";
	snprintf(buf, 48, "%s (%" PRIu64 " bytes)", format_size(left, size), left);
	return buf;
}

int volume_not_done(struct volume *v, enum job_end end, const json_t *last, const struct err *err,
		    bool sends, const char *suffix)
{
	const char *why = json_string_value(json_object_get(last, "error"));

	switch (end) {
	case JOB_LOST:
		if (sends)
			return cmd_fail("%s: %s; what was dirty is safe in %s, mount it again to "
					"send it",
					v->mountpoint, err->text, v->cache_dir);
		/* fall through */
	case JOB_REFUSED:
		return cmd_fail("%s: %s", v->mountpoint, err->text);
	case JOB_TIMEOUT:
		why = "the time is over";
		break;
	case JOB_INTERRUPTED:
		why = "interrupted";
		break;
	case JOB_FAILED:
	case JOB_DONE:
		break;
	}
	cmd_fail("%s: %s%s", v->mountpoint, why ? why : "it failed", suffix);
	return end == JOB_FAILED && !sends ? EXIT_FAILED : EXIT_LEFT;
}
