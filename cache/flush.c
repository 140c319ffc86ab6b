// SPDX-License-Identifier: Apache-2.0
/*
 * FLUSH, and who waits for the target.
 *
 * A FLUSH is a barrier of the log that is durable here: it ends an epoch, and that is all that a
 * guest waits for. With --durability=target it goes on to wait until the target has that epoch,
 * like a drain; so does a FUA write. An interrupt ends that waiting, not what is waited for.
 */
#include <errno.h>
#include <stdlib.h>

#include "cache/internal.h"

void flush_barrier_init(struct cache *c, struct append_op *op)
{
	op->record.kind = FORMAT_BARRIER;
	op->record.blk = sched_realtime(c->sched);
	op->record.nblocks = FORMAT_CUT_FLUSH;
	op->control = true;
}

/* ---- waiting for the target ---- */

static void target_end(struct target_wait *w, int result, struct todo *todo)
{
	struct cache *c = w->cache;

	todo_done(todo, w->req, result);
	cache_put(c);
}

/* No lock held: the drain was called back. */
static void target_reached(struct cache_drain *drain, int result)
{
	struct target_wait *w = container_of(drain, struct target_wait, drain);
	struct todo todo;

	cache_lock(w->cache, &todo);
	target_end(w, result, &todo);
	cache_unlock(w->cache, &todo);
	w->freed(w);
}

void target_wait(struct cache *c, struct target_wait *w, uint64_t seq, struct todo *todo)
{
	w->cache = c;
	if (c->conf.durability_target && !w->cancelled) {
		w->drain.done = target_reached;
		drain_begin(c, &w->drain, seq, todo);
		return;
	}
	target_end(w, c->conf.durability_target ? -EINTR : 0, todo);
	w->freed(w);
}

void target_cancel(struct cache *c, struct target_wait *w, struct todo *todo)
{
	w->cancelled = true;
	if (!drain_take_back(c, &w->drain))
		return;
	target_end(w, -EINTR, todo);
	w->freed(w);
}

/* ---- FLUSH ---- */

struct flush_op {
	struct held held;
	struct append_op barrier;
	struct sync_wait sync;
	struct target_wait far;
};

static void flush_freed(struct target_wait *w)
{
	free(container_of(w, struct flush_op, far));
}

static void flush_end(struct cache *c, struct flush_op *op, int result, struct todo *todo)
{
	todo_done(todo, op->far.req, result);
	free(op);
	cache_put(c);
}

static void flush_synced(struct cache *c, struct sync_wait *w, int result, struct todo *todo)
{
	struct flush_op *op = container_of(w, struct flush_op, sync);

	if (result < 0) {
		flush_end(c, op, result, todo);
		return;
	}
	destage_kick(c);
	target_wait(c, &op->far, w->seq, todo);
}

static void flush_barrier(struct cache *c, struct append_op *barrier, int result, struct todo *todo)
{
	struct flush_op *op = container_of(barrier, struct flush_op, barrier);

	if (result < 0) {
		flush_end(c, op, result, todo);
		return;
	}
	epoch_close(c, barrier->record.seq, barrier->record.blk, true, todo);
	op->sync.seq = barrier->record.seq;
	sync_submit(c, &op->sync, todo);
}

/* Nothing was written since the last barrier: the guest's flush stands for that one too. */
static void flush_again(struct cache *c)
{
	uint64_t now = sched_realtime(c->sched);

	if (list_empty(&c->epochs)) {
		c->far_as_of_ns = now;
	} else {
		struct epoch *last = list_entry(c->epochs.prev, struct epoch, link);

		last->by_flush = last->flushed = true;
		last->closed_wall_ns = now;
	}
}

void flush_submit(struct cache *c, struct blk_req *req)
{
	struct flush_op *op = calloc(1, sizeof(*op));
	struct todo todo;
	int r = 0;

	cache_lock(c, &todo);
	if (!op)
		r = -ENOMEM;
	else
		r = cache_refusal(c);
	if (r < 0) {
		free(op);
		todo_done(&todo, req, r);
		cache_unlock(c, &todo);
		return;
	}
	cache_get(c);
	op->held.kind = HELD_FLUSH;
	op->far.req = req;
	op->far.freed = flush_freed;
	list_init(&op->far.drain.link);
	op->sync.synced = flush_synced;
	req->dev_data = &op->held;
	if (c->open.records) {
		flush_barrier_init(c, &op->barrier);
		op->barrier.appended = flush_barrier;
		append_submit(&c->log, &op->barrier, &todo);
	} else {
		flush_again(c);
		op->sync.seq = c->appended_seq;
		sync_submit(c, &op->sync, &todo);
	}
	cache_unlock(c, &todo);
}

void flush_cancel(struct cache *c, struct held *held, struct todo *todo)
{
	target_cancel(c, &container_of(held, struct flush_op, held)->far, todo);
}
