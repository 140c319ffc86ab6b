// SPDX-License-Identifier: Apache-2.0
/*
 * DEPTH slots take pieces of up to PIECE_BYTES one after the other. A slot is idle, reading, or
 * waiting: for the cache to have kept what was read (it answers first and stores later, and that
 * sets the pace here), or to read again what the cache dropped because others had work to do. Each
 * slot that is not idle holds a reference; the owner holds one.
 *
 * All slots step forward on the scheduler, never inside a read's callback: so a cache that answers
 * at once does not recurse.
 *
 * The cache is full when pieces warmed a while ago are gone again; reading on would only trade one
 * piece for another.
 */
#include "cmd/warm_job.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "cache/cache.h"
#include "core/cleanup.h"
#include "core/clock.h"
#include "core/range.h"

#define DEPTH 16
#define PIECE_BYTES (1u << 20)
#define RETRY_NS (10 * NSEC_PER_MSEC)
/* So often a slot looks whether its piece was kept, and so often it reads it, before it goes on. */
#define LOOKS_MAX 50
#define READS_MAX 3
/* So many pieces in a row that were not kept: there is no room. */
#define MISSES_MAX DEPTH
/* How often to look whether what was warmed is still there; a walk over the map. */
#define LOOK_BYTES (64ull << 20)
#define RANGES_MAX 1024

struct warm_range {
	uint64_t offset, length;
};

struct slot {
	struct warm_job *job;
	struct blk_req req;
	struct iovec iov;
	struct task step;         /* after a read */
	struct sched_timer retry; /* after a read that was dropped */
	int result;
	unsigned looks; /* for the piece, since it was read */
	unsigned reads; /* of the piece that went well */
	void *buffer;
};

struct warm_job {
	struct blk_dev *cache;
	struct sched *sched;
	uint64_t started_ns;
	uint64_t total_bytes;
	uint64_t slack_bytes; /* so much may be missing of what was warmed before it counts as full
			       */
	struct warm_range *range;
	size_t ranges;

	pthread_mutex_t lock; /* only the scheduler's own is taken under it */
	size_t at;            /* guarded by lock, as is all below: the range being handed out */
	uint64_t at_bytes;    /* of it handed out so far */
	uint64_t handed_bytes;
	uint64_t done_bytes;
	uint64_t looked_bytes; /* done_bytes at the last look */
	unsigned misses;       /* pieces in a row that were not kept */
	bool cancelled, full;
	int error;
	unsigned active; /* slots that are not idle */
	unsigned refs;
	uint64_t ended_ns; /* 0: running */
	uint64_t present_bytes;
	struct slot slot[DEPTH];
};

static void unref(struct warm_job *w)
{
	unsigned left;

	pthread_mutex_lock(&w->lock);
	left = --w->refs;
	pthread_mutex_unlock(&w->lock);
	if (left)
		return;
	for (size_t i = 0; i < DEPTH; i++)
		free(w->slot[i].buffer);
	pthread_mutex_destroy(&w->lock);
	free(w->range);
	free(w);
}

/* How much of the first @bytes of all ranges is in the cache. */
static uint64_t present(struct warm_job *w, uint64_t bytes)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < w->ranges && bytes; i++) {
		uint64_t n = MIN(w->range[i].length, bytes);

		sum += cache_present(w->cache, w->range[i].offset, n);
		bytes -= n;
	}
	return sum;
}

/* Pieces warmed long ago went away: there is no room for more. */
static void look_whether_full(struct warm_job *w)
{
	uint64_t done, in_flight = (uint64_t)DEPTH * PIECE_BYTES;
	bool look;

	pthread_mutex_lock(&w->lock);
	done = w->done_bytes;
	look = !w->full && !w->cancelled && done - w->looked_bytes >= LOOK_BYTES;
	if (look)
		w->looked_bytes = done;
	pthread_mutex_unlock(&w->lock);
	if (!look || done <= in_flight)
		return;
	done -= in_flight;
	if (present(w, done) + w->slack_bytes < done) {
		guard(&w->lock);
		w->full = true;
	}
}

/* The next piece for a slot; false: there is none. */
static bool next_piece(struct warm_job *w, uint64_t *ret_offset, uint64_t *ret_length)
{
	const struct warm_range *r;

	guard(&w->lock);
	while (w->at < w->ranges && w->at_bytes == w->range[w->at].length) {
		w->at++;
		w->at_bytes = 0;
	}
	if (w->cancelled || w->full || w->error || w->at == w->ranges)
		return false;
	r = &w->range[w->at];
	*ret_offset = r->offset + w->at_bytes;
	*ret_length = MIN(r->length - w->at_bytes, (uint64_t)PIECE_BYTES);
	w->at_bytes += *ret_length;
	w->handed_bytes += *ret_length;
	return true;
}

static void slot_read(struct slot *s);

static void on_read(struct blk_req *req, void *ctx, int result)
{
	struct slot *s = ctx;

	s->result = result;
	sched_post(s->job->sched, &s->step);
}

/* The slot has nothing more to do; the last one notes how it ended. */
static void slot_idle(struct slot *s)
{
	struct warm_job *w = s->job;
	uint64_t there = 0;
	bool last;

	pthread_mutex_lock(&w->lock);
	last = --w->active == 0;
	pthread_mutex_unlock(&w->lock);
	if (last) {
		there = present(w, w->total_bytes);
		pthread_mutex_lock(&w->lock);
		w->present_bytes = there;
		w->ended_ns = clock_monotonic_ns();
		pthread_mutex_unlock(&w->lock);
	}
	unref(w);
}

/* Take pieces until one has to be read, or none is left. */
static void slot_next(struct slot *s)
{
	struct warm_job *w = s->job;
	uint64_t offset, length;

	while (next_piece(w, &offset, &length)) {
		if (cache_present(w->cache, offset, length) < length) {
			s->iov = (struct iovec){ .iov_base = s->buffer, .iov_len = length };
			blk_req_init(&s->req, BLK_READ, offset, length, &s->iov, 1);
			slot_read(s);
			return;
		}
		guard(&w->lock);
		w->done_bytes += length;
	}
	slot_idle(s);
}

static void slot_read(struct slot *s)
{
	s->req.flags = BLK_ADVISORY;
	s->req.lane = BLK_LANE_WARM;
	blk_submit(s->job->cache, &s->req, on_read, s);
}

/* Come back in a moment, unless the job was given up. Armed under the lock: warm_job_free() finds
 * the timer armed or sees that it is not. */
static bool slot_wait(struct slot *s)
{
	struct warm_job *w = s->job;

	guard(&w->lock);
	if (w->cancelled)
		return false;
	sched_arm(w->sched, &s->retry, sched_now(w->sched) + RETRY_NS);
	return true;
}

/* The piece is dealt with, kept or not. */
static void slot_finish(struct slot *s, bool kept, int error)
{
	struct warm_job *w = s->job;

	pthread_mutex_lock(&w->lock);
	w->done_bytes += s->req.length;
	w->misses = kept ? 0 : w->misses + 1;
	if (w->misses > MISSES_MAX)
		w->full = true;
	if (error && !w->error && !w->cancelled)
		w->error = error;
	pthread_mutex_unlock(&w->lock);
	s->reads = 0;
	look_whether_full(w);
	slot_next(s);
}

/* After a read, or a while later: what next with the piece? */
static void slot_judge(struct slot *s)
{
	bool again = s->result == -ECANCELED;

	if (s->result && !again) {
		slot_finish(s, false, s->result);
		return;
	}
	if (!again && cache_present(s->job->cache, s->req.offset, s->req.length) == s->req.length) {
		slot_finish(s, true, 0);
		return;
	}
	if (!again && s->looks >= LOOKS_MAX && s->reads >= READS_MAX) {
		slot_finish(s, false, 0);
		return;
	}
	s->looks++;
	if (!slot_wait(s))
		slot_idle(s);
}

static void on_step(struct task *task)
{
	struct slot *s = container_of(task, struct slot, step);

	s->looks = 0;
	if (s->result == 0)
		s->reads++;
	slot_judge(s);
}

static void on_retry(struct task *task)
{
	struct slot *s = container_of(task, struct slot, retry.task);
	bool cancelled;

	pthread_mutex_lock(&s->job->lock);
	cancelled = s->job->cancelled;
	pthread_mutex_unlock(&s->job->lock);
	if (cancelled)
		slot_idle(s);
	else if (s->result == 0 && (s->looks < LOOKS_MAX || s->reads >= READS_MAX))
		slot_judge(s);
	else
		slot_read(s);
}

/* One [offset, length] of the request, in whole blocks within the volume. */
static int take_range(struct warm_job *w, const json_t *pair, uint64_t size_bytes, struct err *err)
{
	json_int_t offset = -1, length = -1;
	uint64_t from, to;

	if (json_unpack((json_t *)(uintptr_t)pair, "[I, I!]", &offset, &length) < 0 || offset < 0 ||
	    length <= 0)
		return err_set(err, -EINVAL, "a range must be [offset, length]");
	if ((uint64_t)offset >= size_bytes)
		return err_set(err, -EINVAL,
			       "the range at %lld begins behind the end of the volume (%llu bytes)",
			       (long long)offset, (unsigned long long)size_bytes);
	from = round_down((uint64_t)offset, CACHE_BLOCK_BYTES);
	to = (uint64_t)offset + MIN((uint64_t)length, size_bytes - (uint64_t)offset);
	to = MIN(round_up(to, CACHE_BLOCK_BYTES), size_bytes);
	w->range[w->ranges++] = (struct warm_range){ from, to - from };
	w->total_bytes += to - from;
	return 0;
}

static int take_ranges(struct warm_job *w, const json_t *list, struct err *err)
{
	size_t n = json_array_size(list);
	struct blk_info info;

	blk_info(w->cache, &info);
	if (!list)
		n = 1;
	else if (!n || n > RANGES_MAX)
		return err_set(err, -EINVAL, "\"ranges\" must be a list of 1 to %d ranges",
			       RANGES_MAX);
	w->range = calloc(n, sizeof(*w->range));
	if (!w->range)
		return err_set(err, -ENOMEM, "out of memory");
	if (!list) {
		w->range[w->ranges++] = (struct warm_range){ 0, info.size_bytes };
		w->total_bytes = info.size_bytes;
		return 0;
	}
	for (size_t i = 0; i < n; i++) {
		int r = take_range(w, json_array_get(list, i), info.size_bytes, err);

		if (r < 0)
			return r;
	}
	return 0;
}

static int make_slots(struct warm_job *w)
{
	for (size_t i = 0; i < DEPTH; i++) {
		struct slot *s = &w->slot[i];

		s->job = w;
		task_init(&s->step, on_step);
		sched_timer_init(&s->retry, on_retry);
		if (posix_memalign(&s->buffer, 4096, PIECE_BYTES)) {
			s->buffer = NULL;
			return -ENOMEM;
		}
	}
	return 0;
}

int warm_job_start(struct blk_dev *cache, struct sched *sched, const json_t *args,
		   struct warm_job **ret, struct err *err)
{
	struct warm_job *w = calloc(1, sizeof(*w));
	struct cache_status st;
	int r;

	if (!w)
		return err_set(err, -ENOMEM, "out of memory");
	w->cache = cache;
	w->sched = sched;
	w->started_ns = clock_monotonic_ns();
	w->refs = 1;
	pthread_mutex_init(&w->lock, NULL);
	r = take_ranges(w, json_object_get(args, "ranges"), err);
	if (r == 0 && make_slots(w) < 0)
		r = err_set(err, -ENOMEM, "out of memory");
	if (r < 0) {
		unref(w);
		return r;
	}
	cache_status(cache, &st);
	w->slack_bytes = MIN(st.limit_bytes / 8, 64ull << 20);
	w->active = DEPTH;
	w->refs += DEPTH;
	/* A result of 0 and a length of 0: the first step counts nothing and takes a piece. */
	for (size_t i = 0; i < DEPTH; i++)
		sched_post(sched, &w->slot[i].step);
	*ret = w;
	return 0;
}

void warm_job_progress(struct warm_job *w, json_t *o)
{
	guard(&w->lock);
	uint64_t ns = (w->ended_ns ? w->ended_ns : clock_monotonic_ns()) - w->started_ns;

	json_object_set_new(o, "state",
			    json_string(!w->ended_ns ? "running"
					: w->error   ? "failed"
						     : "done"));
	json_object_set_new(o, "done_bytes", json_integer((json_int_t)w->done_bytes));
	json_object_set_new(o, "total_bytes", json_integer((json_int_t)w->total_bytes));
	json_object_set_new(
		o, "bytes_per_second",
		json_integer((json_int_t)((double)w->done_bytes * 1e9 / (double)MAX(ns, 1u))));
	if (w->ended_ns)
		json_object_set_new(o, "present_bytes", json_integer((json_int_t)w->present_bytes));
	if (w->ended_ns && w->error)
		json_object_set_new(o, "error", json_string(strerror(-w->error)));
}

void warm_job_free(struct warm_job *w)
{
	pthread_mutex_lock(&w->lock);
	w->cancelled = true;
	pthread_mutex_unlock(&w->lock);
	for (size_t i = 0; i < DEPTH; i++)
		if (sched_disarm(w->sched, &w->slot[i].retry))
			slot_idle(&w->slot[i]);
	unref(w);
}
