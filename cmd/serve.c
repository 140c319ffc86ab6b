// SPDX-License-Identifier: Apache-2.0
/*
 * What the control server can ask of a daemon. All of it runs in the server's thread and answers
 * from memory; what takes time is a job that goes on elsewhere:
 *
 *	flush    a drain of the cache
 *	drop     a task on the thread for commands
 *	warm     cmd/warm_job.c
 *	umount   a wish noted for the main thread
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cmd/daemon.h"
#include "cmd/damage.h"
#include "cmd/report.h"
#include "cmd/warm_job.h"
#include "core/cleanup.h"
#include "core/clock.h"

enum job_kind { JOB_FLUSH, JOB_UMOUNT, JOB_WARM, JOB_DROP };

struct job {
	enum job_kind kind;
	struct daemon *daemon;
	struct warm_job *warm;    /* WARM */
	struct cache_drain drain; /* FLUSH */
	struct task task;         /* DROP */
	/* One for the control server, one while a callback or a task may still come. */
	atomic_int refs;
	atomic_bool ended; /* result is there */
	int result;
};

static void job_unref(struct job *j)
{
	if (atomic_fetch_sub(&j->refs, 1) == 1)
		free(j);
}

static void job_end(struct job *j, int result)
{
	j->result = result;
	atomic_store(&j->ended, true);
	job_unref(j);
}

/* ---- status ---- */

static const char *phase_name(enum phase phase)
{
	switch (phase) {
	case PHASE_STARTING:
		return "starting";
	case PHASE_MOUNTED:
		return "mounted";
	case PHASE_DETACHED:
		return "detached";
	case PHASE_DRAINING:
		return "draining";
	case PHASE_STOPPING:
		return "stopping";
	}
	return "";
}

static enum phase phase_now(struct daemon *d)
{
	guard(&d->lock);
	return d->phase;
}

static json_t *status(void *ctx)
{
	struct blk_session session[REPORT_SESSIONS];
	struct cache_damage damage[REPORT_DAMAGES];
	struct daemon *d = ctx;
	struct cache_status st;
	struct blk_stats far;
	struct report r;
	unsigned n;

	cache_status(d->stack.cache, &st);
	blk_stats(d->stack.cache, &far);
	n = blk_sessions(d->stack.cache, session, REPORT_SESSIONS);
	report_init(&r);
	r.url = d->conf->stack.leaf.url.text;
	r.mountpoint = phase_now(d) == PHASE_MOUNTED ? d->conf->mountpoint : NULL;
	r.cache_dir = d->conf->stack.cache_dir;
	r.pid = (uint64_t)getpid();
	r.uptime_ns = clock_monotonic_ns() - d->started_ns;
	r.read_only = d->read_only || blk_fenced(d->stack.cache);
	r.state = cache_state_name(st.state);
	r.fenced = blk_fenced(d->stack.cache);
	r.reserved = blk_reserved(d->stack.cache);
	r.size_bytes = st.size_bytes;
	r.cache_limit_bytes = st.limit_bytes;
	r.cache_used_bytes = st.used_bytes;
	r.cached_bytes = st.cached_bytes;
	r.max_dirty_bytes = st.max_dirty_bytes;
	r.dirty_bytes = st.dirty_bytes;
	r.epochs_pending = st.epochs_pending;
	r.oldest_dirty_ns = st.oldest_dirty_ns;
	r.drain_eta_ns = st.drain_eta_ns;
	r.far_as_of_ns = st.far_as_of_ns;
	r.hit_bytes = st.hit_bytes;
	r.miss_bytes = st.miss_bytes;
	r.target_read_bytes = far.read_bytes;
	r.target_write_bytes = far.write_bytes;
	r.readahead_bytes = st.readahead_bytes;
	r.readahead_wasted_bytes = st.readahead_wasted_bytes;
	r.damage = damage;
	r.damages = MIN(cache_damages(d->stack.cache, damage, REPORT_DAMAGES),
			(unsigned)REPORT_DAMAGES);
	r.session = session;
	r.sessions = MIN(n, (unsigned)REPORT_SESSIONS);
	return report_json(&r);
}

static json_t *volume(void *ctx)
{
	struct daemon *d = ctx;

	return json_pack("{s:s, s:s, s:i, s:I, s:I, s:s}", "mountpoint", d->conf->mountpoint,
			 "cache_dir", d->conf->stack.cache_dir, "pid", (int)getpid(), "uid",
			 (json_int_t)geteuid(), "gid", (json_int_t)getegid(), "phase",
			 phase_name(phase_now(d)));
}

/* ---- jobs ---- */

static void flush_done(struct cache_drain *drain, int result)
{
	job_end(container_of(drain, struct job, drain), result);
}

static void run_drop(struct task *task)
{
	struct job *j = container_of(task, struct job, task);

	job_end(j, cache_drop(j->daemon->stack.cache));
}

static int start_umount(struct job *j, const json_t *args, struct err *err)
{
	struct daemon *d = j->daemon;
	json_t *timeout = json_object_get(args, "timeout_seconds");
	double seconds = json_number_value(timeout);

	if (timeout && (!json_is_number(timeout) || seconds < 0))
		return err_set(err, -EINVAL, "timeout_seconds is not a number of seconds");
	guard(&d->lock);
	/* One that failed is over when its client has fetched the answer, or was killed. */
	if (d->umount == UMOUNT_WANTED || d->umount == UMOUNT_DRAINING || daemon_umount_attended(d))
		return err_set(err, -EBUSY, "another umount of this volume is under way");
	if (d->phase != PHASE_MOUNTED)
		return err_set(err, -EBUSY,
			       "the volume is unmounted already; its daemon still "
			       "sends what is dirty");
	d->umount = UMOUNT_WANTED;
	d->umount_busy = false;
	d->umount_job = j;
	d->umount_flush = !json_is_false(json_object_get(args, "flush"));
	d->umount_polled_ns = clock_monotonic_ns();
	d->umount_deadline_ns = timeout && seconds < 1e9
					? d->umount_polled_ns + (uint64_t)(seconds * 1e9)
					: UINT64_MAX;
	d->umount_error[0] = '\0';
	pthread_cond_signal(&d->changed);
	return 0;
}

static int start_kind(struct job *j, const char *kind, const json_t *args, struct err *err)
{
	struct daemon *d = j->daemon;

	if (strcmp(kind, "flush") == 0) {
		j->kind = JOB_FLUSH;
		j->drain.done = flush_done;
		list_init(&j->drain.link);
		atomic_store(&j->refs, 2);
		cache_drain(d->stack.cache, &j->drain);
		return 0;
	}
	if (strcmp(kind, "drop") == 0) {
		j->kind = JOB_DROP;
		task_init(&j->task, run_drop);
		atomic_store(&j->refs, 2);
		sched_post(d->aux, &j->task);
		return 0;
	}
	if (strcmp(kind, "warm") == 0) {
		j->kind = JOB_WARM;
		return warm_job_start(d->stack.cache, d->aux, args, &j->warm, err);
	}
	if (strcmp(kind, "umount") == 0) {
		j->kind = JOB_UMOUNT;
		return start_umount(j, args, err);
	}
	return err_set(err, -EINVAL, "unknown kind of job: %.64s", kind);
}

static int job_start(void *ctx, const char *kind, const json_t *args, void **ret_job,
		     struct err *err)
{
	cleanup_free struct job *j = calloc(1, sizeof(*j));
	int r;

	if (!j)
		return err_set(err, -ENOMEM, "out of memory");
	j->daemon = ctx;
	atomic_init(&j->refs, 1);
	r = start_kind(j, kind, args, err);
	if (r < 0)
		return r;
	*ret_job = steal_ptr(j);
	return 0;
}

static void set_state(json_t *o, const char *state)
{
	json_object_set_new(o, "state", json_string(state));
}

static void set_result(json_t *o, struct daemon *d, int result)
{
	char text[DAMAGE_TEXT_MAX];

	if (result == 0) {
		set_state(o, "done");
		return;
	}
	set_state(o, "failed");
	if (result == -EIO)
		damage_text(d->stack.cache, d->conf->stack.cache_dir, text);
	else
		snprintf(text, sizeof(text), "%s",
			 result == -ESTALE      ? blk_fenced(d->stack.cache)
			 : result == -ESHUTDOWN ? "the volume was stopped"
						: strerror(-result));
	json_object_set_new(o, "error", json_string(text));
}

/* What every kind that sends data says about how far it is. */
static void set_drain(json_t *o, struct daemon *d, uint64_t left)
{
	struct cache_status st;

	cache_status(d->stack.cache, &st);
	json_object_set_new(o, "bytes_left",
			    json_integer((json_int_t)(left == UINT64_MAX ? st.dirty_bytes : left)));
	/* What still has to cross the line; the rest of what is left only waits for a SYNC. */
	if (left == UINT64_MAX)
		json_object_set_new(o, "bytes_to_send",
				    json_integer((json_int_t)(st.dirty_bytes - st.sent_bytes)));
	json_object_set_new(o, "bytes_per_second", json_integer((json_int_t)st.drain_bytes_per_s));
	json_object_set_new(o, "eta_seconds",
			    st.drain_eta_ns == CACHE_UNKNOWN
				    ? json_null()
				    : json_real((double)st.drain_eta_ns / 1e9));
}

static void umount_progress(const struct job *j, json_t *o)
{
	struct daemon *d = j->daemon;
	char error[sizeof(d->umount_error)] = "";
	enum umount_step step;
	uint64_t left;
	bool busy, ours, unsafe;

	pthread_mutex_lock(&d->lock);
	ours = d->umount_job == j;
	if (ours)
		d->umount_polled_ns = clock_monotonic_ns();
	step = d->umount;
	busy = d->umount_busy;
	left = d->final_bytes;
	unsafe = d->final_unsafe;
	memcpy(error, d->umount_error, sizeof(error));
	pthread_mutex_unlock(&d->lock);
	if (!ours) {
		set_state(o, "failed");
		json_object_set_new(o, "error",
				    json_string("another umount took the place of this one"));
		return;
	}
	json_object_set_new(o, "unmounted",
			    json_boolean(step != UMOUNT_WANTED && step != UMOUNT_FAILED));
	json_object_set_new(o, "busy", json_boolean(busy));
	json_object_set_new(o, "unsafe", json_boolean(unsafe));
	set_drain(o, d, left);
	set_state(o, step == UMOUNT_DONE ? "done" : step == UMOUNT_FAILED ? "failed" : "running");
	if (error[0])
		json_object_set_new(o, "error", json_string(error));
}

static json_t *job_progress(void *ctx, void *job)
{
	struct job *j = job;
	json_t *o = json_object();

	switch (j->kind) {
	case JOB_UMOUNT:
		umount_progress(j, o);
		break;
	case JOB_WARM:
		warm_job_progress(j->warm, o);
		break;
	case JOB_FLUSH:
		set_drain(o, ctx, UINT64_MAX);
		/* fall through */
	case JOB_DROP:
		if (atomic_load(&j->ended))
			set_result(o, ctx, j->result);
		else
			set_state(o, "running");
		break;
	}
	return o;
}

/* A client that leaves before its umount was tried did not mean it any more. */
static void leave_umount(const struct job *j)
{
	struct daemon *d = j->daemon;

	guard(&d->lock);
	if (d->umount_job != j)
		return;
	d->umount_job = NULL;
	if (d->umount == UMOUNT_WANTED || d->umount == UMOUNT_FAILED)
		d->umount = UMOUNT_NONE;
	pthread_cond_signal(&d->changed);
}

static void job_free(void *ctx, void *job)
{
	struct job *j = job;

	switch (j->kind) {
	case JOB_FLUSH:
		if (cache_drain_cancel(j->daemon->stack.cache, &j->drain))
			job_unref(j);
		break;
	case JOB_WARM:
		warm_job_free(j->warm);
		break;
	case JOB_UMOUNT:
		leave_umount(j);
		break;
	case JOB_DROP:
		break;
	}
	job_unref(j);
}

const struct control_ops daemon_control_ops = {
	.status = status,
	.volume = volume,
	.job_start = job_start,
	.job_progress = job_progress,
	.job_free = job_free,
};
