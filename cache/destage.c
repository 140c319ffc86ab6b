// SPDX-License-Identifier: Apache-2.0
/*
 * Write-back: the oldest closed epoch goes to the target, whole, before anything of the next one;
 *or, where epochs may be merged, several at once. What goes together is a run.
 *
 * States:
 *
 *	IDLE ─a run is durable locally→ BUILDING ─plan→ SENDING ↔ FLUSHING     (both: send.c)
 *	  ↑ └─ it crosses a flush → ANNOUNCING ─synced─↗           │
 *	  └──── watermark durable ─────────── MARKING ←── all of it is durable at the target
 *
 * BLOCKED: a record of the run cannot be read or is not what was written. Strict order stands
 * here until the user decides; reads and writes go on. Or the far side is fenced: nothing may be
 * sent any more, by this process; writes are refused.
 *
 * The plan (plan.c) names each block of the run once: the last version written inside it, read
 * from the log and never through the map, which may be ahead. No two commands overlap, so inside
 * the run any order is right, and sending all of it again is harmless. The watermark
 * is durable in the log before the next run's first WRITE.
 *
 * A run that contains a flush of the guest before its end makes the far side something that no disk
 * could hold, until it is through. So before its first command the log says, durably, how far it
 * goes (merged_seq, in every header from then on): the far side is consistent while that is not
 *above destaged_seq. After a restart in the middle the run is at least as long again.
 *
 * One task runs all of it, never twice at once; completions only count and kick. It reads payload
 * without the lock: segments with records above destaged_seq are never evicted.
 */
#include "cache/destage.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/log.h"

void destage_kick(struct cache *c)
{
	struct destage *d = c->destage;

	d->kicked = true;
	if (d->posted || c->abandoned)
		return;
	d->posted = true;
	cache_get(c);
	sched_post(c->sched, &d->task);
}

bool destage_active(const struct cache *c)
{
	enum destage_state s = c->destage->state;

	return s != IDLE && s != BLOCKED;
}

void destage_fence(struct cache *c, struct todo *todo)
{
	c->fenced = true;
	c->destage->state = BLOCKED;
	write_fail_waiting(c, -EROFS, todo);
}

static void retry_fired(struct task *t)
{
	struct destage *d = container_of(t, struct destage, retry.task);
	struct todo todo;

	cache_lock(d->cache, &todo);
	d->waiting = false;
	destage_kick(d->cache);
	cache_unlock(d->cache, &todo);
}

void destage_pause(struct cache *c)
{
	struct destage *d = c->destage;
	uint64_t delay = backoff_next_ns(&d->backoff, sched_now(c->sched) * 0x9e3779b97f4a7c15ull);

	d->waiting = true;
	sched_arm(c->sched, &d->retry, sched_now(c->sched) + delay);
}

/* ---- what goes together ---- */

/* Somebody waits for @e who does not mind the order. */
static bool merge_wished(const struct cache *c, const struct epoch *e)
{
	struct list_node *n;

	list_for_each(n, &c->drains) {
		const struct cache_drain *drain = list_entry(n, struct cache_drain, link);

		if (drain->merge && drain->seq >= e->first_seq)
			return true;
	}
	return false;
}

/*
 * The next run: the oldest epoch, and those that go with it. *@ret_crosses: a flush of the guest
 * lies inside. False: there is none yet, or it is not durable here.
 */
static bool choose_run(struct cache *c, bool *ret_crosses)
{
	struct destage *d = c->destage;
	bool merge =
		writeback_should_merge(&c->wb, &c->wb_conf, epoch_count(c), c->dirty_slots * BLK);
	const struct epoch *last = NULL;
	struct list_node *n;

	d->log_bytes = 0;
	*ret_crosses = false;
	list_for_each(n, &c->epochs) {
		const struct epoch *e = list_entry(n, struct epoch, link);
		uint64_t bytes = e->log_slots * BLK;

		if (e->last_seq > c->durable_seq)
			break;
		/* What was begun merged is finished merged. */
		if (last && e->last_seq > c->merged_seq &&
		    (d->log_bytes + bytes > c->wb_conf.max_epoch_bytes ||
		     (!merge && !merge_wished(c, e))))
			break;
		if (last)
			*ret_crosses |= last->flushed;
		else
			d->first_seq = e->first_seq;
		d->log_bytes += bytes;
		d->last_seq = e->last_seq;
		last = e;
	}
	return last;
}

/* ---- records of our own ---- */

static void mark_ended(struct cache *c, int result)
{
	c->destage->mark_ended = true;
	c->destage->mark_result = result;
	destage_kick(c);
	cache_put(c);
}

static void mark_synced(struct cache *c, struct sync_wait *w, int result, struct todo *todo)
{
	mark_ended(c, result);
}

static void mark_appended(struct cache *c, struct append_op *op, int result, struct todo *todo)
{
	struct destage *d = c->destage;

	if (result < 0) {
		mark_ended(c, result);
		return;
	}
	d->mark_sync.seq = op->record.seq;
	d->mark_sync.synced = mark_synced;
	sync_submit(c, &d->mark_sync, todo);
}

/* A watermark record, durable; its header says the rest. */
static void send_mark(struct cache *c, uint64_t watermark, struct todo *todo)
{
	struct destage *d = c->destage;

	d->mark_ended = false;
	d->mark = (struct append_op){ .control = true, .appended = mark_appended };
	d->mark.record.kind = FORMAT_WATERMARK;
	d->mark.record.blk = watermark;
	cache_get(c);
	append_submit(&c->log, &d->mark, todo);
}

/* The run is durable far away: say so in the log before anything else is sent. */
void destage_mark(struct cache *c, struct todo *todo)
{
	struct destage *d = c->destage;
	struct list_node *n;

	d->state = MARKING;
	backoff_reset(&d->backoff);
	list_for_each(n, &c->epochs) {
		const struct epoch *e = list_entry(n, struct epoch, link);

		if (e->last_seq > d->last_seq)
			break;
		if (e->by_flush)
			c->far_as_of_ns = e->closed_wall_ns;
	}
	send_mark(c, d->last_seq, todo);
}

/* ---- the state machine ---- */

static void build(struct cache *c, struct todo *todo)
{
	struct destage *d = c->destage;
	uint64_t first = d->first_seq, last = d->last_seq, generation;
	struct blk_info info;
	int r;

	cache_unlock(c, todo);
	r = plan_build(&d->plan, c, first, last);
	/* Before the first WRITE, and outside the lock: they are another module's calls. */
	blk_info(c->conf.inner, &info);
	generation = blk_generation(c->conf.inner);
	if (r < 0 && r != -ENOMEM)
		log_error("cache: writes not yet at the target cannot be read back (%s); they and "
			  "what was written after them are not sent",
			  strerror(-r));
	cache_lock(c, todo);
	if (r == -ENOMEM) {
		destage_pause(c);
	} else if (r < 0) {
		d->state = BLOCKED;
		c->damaged = true;
	} else {
		send_begin(c, &info, generation);
	}
}

static bool begin_run(struct cache *c, struct todo *todo)
{
	struct destage *d = c->destage;
	bool crosses;

	if (c->stopping || !choose_run(c, &crosses))
		return false;
	if (d->rested)
		writeback_begin(&c->wb, sched_now(c->sched));
	d->rested = false;
	d->state = BUILDING;
	if (crosses && d->last_seq > c->merged_seq) {
		c->merged_seq = d->last_seq;
		d->state = ANNOUNCING;
		send_mark(c, c->destaged_seq, todo);
	}
	return true;
}

/* Only a durable watermark counts: segments up to it may now be reused. */
static void end_run(struct cache *c, struct todo *todo)
{
	struct destage *d = c->destage;

	if (d->smooth)
		writeback_ran(&c->wb, d->log_bytes, d->answered_ns - d->begin_ns,
			      sched_now(c->sched) - d->begin_ns);
	d->state = IDLE;
	plan_reset(&d->plan);
	c->destaged_seq = d->last_seq;
	epoch_retire(c, todo);
	d->rested = list_empty(&c->epochs);
}

/* One step. False: nothing to do until somebody kicks. The lock is held. */
static bool step(struct cache *c, struct todo *todo)
{
	struct destage *d = c->destage;

	switch (d->state) {
	case IDLE:
		return begin_run(c, todo);
	case BUILDING:
		if (c->stopping || d->waiting)
			return false;
		build(c, todo);
		return true;
	case SENDING:
	case FLUSHING:
		return send_step(c, todo);
	case ANNOUNCING:
	case MARKING:
		if (!d->mark_ended)
			return false;
		/* A log that failed cannot hold the watermark: nothing more may be sent. */
		if (d->mark_result < 0)
			d->state = BLOCKED;
		else if (d->state == ANNOUNCING)
			d->state = BUILDING;
		else
			end_run(c, todo);
		return true;
	case BLOCKED:
		drains_end(c, c->fenced ? -ESTALE : -EIO, todo);
		return false;
	}
	return false;
}

static void destage_run(struct task *t)
{
	struct destage *d = container_of(t, struct destage, task);
	struct cache *c = d->cache;
	struct todo todo;

	cache_lock(c, &todo);
	do {
		d->kicked = false;
		while (step(c, &todo)) {
			/* Let go what was queued: the window fills while the next payload is read.
			 */
			cache_unlock(c, &todo);
			cache_lock(c, &todo);
		}
	} while (d->kicked);
	d->posted = false;
	cache_put(c);
	cache_unlock(c, &todo);
}

int destage_init(struct cache *c)
{
	struct destage *d = calloc(1, sizeof(*d));

	if (!d)
		return -ENOMEM;
	d->cache = c;
	task_init(&d->task, destage_run);
	sched_timer_init(&d->retry, retry_fired);
	d->backoff = (struct backoff){ .min_ns = 100 * NSEC_PER_MSEC, .max_ns = 10 * NSEC_PER_SEC };
	c->destage = d;
	return 0;
}

void destage_halt(struct cache *c)
{
	sched_disarm(c->sched, &c->destage->retry);
	sched_quiesce(c->sched, &c->destage->retry.task);
}

void destage_fini(struct cache *c)
{
	if (!c->destage)
		return;
	plan_fini(&c->destage->plan);
	free(steal_ptr(c->destage));
}
