// SPDX-License-Identifier: Apache-2.0
/*
 * Changes: WRITE, ZERO, DISCARD, and FLUSH. A request (at most PIECE_BYTES of payload here; ZERO
 *and DISCARD in whole blocks) becomes one record of the guest log; it is done when the record is in
 *the file and the map says so.
 *
 * States of a write_op:
 *
 *	throttled ─room→ begun ─(another write holds its block: waits, begun again)→
 *	[edges: locked → drained → base read → merged] → appending → applied → [FUA: barrier →
 *synced] → done
 *
 * Sub-block writes. A block that a write covers in part is locked, for the time from reading its
 * base to being applied, against every other change: those that were in the log already are waited
 *for (drained), later ones wait on the lock. A write takes all its locks at once or none, so there
 *is no hold-and-wait.
 *
 * Invariants: no two rmw_locks are on one block; a write that overlaps a lock of another is
 * either counted in its `drain` or waits on it.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cache/internal.h"
#include "core/crc32c.h"

struct rmw_lock {
	struct list_node link;
	struct write_op *owner;
	uint64_t blk;
	unsigned drain;           /* writes in the log before us that touch the block */
	struct list_node waiters; /* write_op.link */
};

struct edge {
	struct rmw_lock lock;
	bool held; /* lock is in the cache's list */
	bool used; /* the write covers this block in part */
	struct blk_req base;
	struct iovec iov;
	uint8_t *buf;
};

struct write_op {
	struct held held;
	struct list_node link;     /* throttled, waiting on a lock, or about to be begun */
	struct list_node log_link; /* in cache->writes from begun to applied */
	struct cache *cache;
	struct blk_req *req;
	uint64_t blk;
	uint64_t n;
	bool waiting; /* for room: may be cancelled */
	bool fua;
	_Atomic int bases; /* base reads not yet done */
	_Atomic int base_result;
	struct edge edge[2];
	struct append_op op;
	struct append_op barrier;
	struct sync_wait sync;
	uint32_t *crc;
	int iovcnt;
	struct iovec *iov;
};

/* Why nothing more is taken; 0: it is. Under the lock. */
static int refusal(const struct cache *c)
{
	return c->stopping ? -ESHUTDOWN : c->log_failed ? -EIO : 0;
}

static void op_free(struct write_op *op)
{
	free(op->edge[0].buf);
	free(op->crc);
	free(op->iov);
	free(op);
}

static bool covers_all_of(const struct cache *c, const struct blk_req *req, uint64_t blk)
{
	return req->offset <= blk * BLK &&
	       req->offset + req->length >= blk * BLK + cache_valid_bytes(c, blk, 1);
}

/* Room for what the op needs before it is begun; everything but the request is owned. */
static struct write_op *op_new(struct cache *c, struct blk_req *req)
{
	struct write_op *op = calloc(1, sizeof(*op));
	bool head, tail;

	if (!op)
		return NULL;
	op->held.kind = HELD_WRITE;
	op->cache = c;
	op->req = req;
	list_init(&op->link);
	list_init(&op->log_link);
	op->blk = req->offset / BLK;
	op->n = div_round_up(req->offset + req->length, BLK) - op->blk;
	op->fua = req->flags & BLK_FUA;
	if (req->op != BLK_WRITE)
		return op;
	op->crc = malloc((size_t)op->n * sizeof(*op->crc));
	op->iov = malloc(((size_t)req->iovcnt + 2) * sizeof(*op->iov));
	if (!op->crc || !op->iov)
		goto fail;
	/* A block needs a buffer of its own where the request is not 4 KiB of it. */
	head = req->offset % BLK || req->length < BLK;
	tail = (req->offset + req->length) % BLK && (op->n > 1 || !head);
	if (head || tail) {
		op->edge[0].buf = aligned_alloc(BLK, 2 * BLK);
		if (!op->edge[0].buf)
			goto fail;
		memset(op->edge[0].buf, 0, 2 * BLK);
		op->edge[1].buf = op->edge[0].buf + BLK;
	}
	op->edge[0].used = head;
	op->edge[0].lock.blk = op->blk;
	op->edge[1].used = tail;
	op->edge[1].lock.blk = op->blk + op->n - 1;
	return op;
fail:
	op_free(op);
	return NULL;
}

/* Under the lock. */
static void op_finish(struct write_op *op, int result, struct todo *todo)
{
	struct cache *c = op->cache;

	op->req->dev_data = NULL;
	todo_done(todo, op->req, result);
	op_free(op);
	cache_put(c);
}

/* ---- locks on partly written blocks ---- */

static struct rmw_lock *conflict(struct cache *c, const struct write_op *op)
{
	struct list_node *n;

	list_for_each(n, &c->rmw_locks) {
		struct rmw_lock *l = list_entry(n, struct rmw_lock, link);

		if (l->owner != op && range_overlap(l->blk, 1, op->blk, op->n))
			return l;
	}
	return NULL;
}

static void lock_edges(struct cache *c, struct write_op *op)
{
	struct list_node *n;

	for (unsigned i = 0; i < 2; i++) {
		struct edge *e = &op->edge[i];

		if (!e->used || covers_all_of(c, op->req, e->lock.blk))
			continue;
		e->held = true;
		e->lock.owner = op;
		e->lock.drain = 0;
		list_init(&e->lock.waiters);
		list_init(&e->lock.link);
		list_add_tail(&c->rmw_locks, &e->lock.link);
		list_for_each(n, &c->writes) {
			struct write_op *w = list_entry(n, struct write_op, log_link);

			e->lock.drain += range_overlap(e->lock.blk, 1, w->blk, w->n);
		}
	}
}

static void unlock_edges(struct write_op *op, struct todo *todo)
{
	for (unsigned i = 0; i < 2; i++) {
		struct edge *e = &op->edge[i];

		if (!e->held)
			continue;
		e->held = false;
		list_del(&e->lock.link);
		list_splice_tail(&todo->writes, &e->lock.waiters);
	}
}

static bool drained(const struct write_op *op)
{
	return !(op->edge[0].held && op->edge[0].lock.drain) &&
	       !(op->edge[1].held && op->edge[1].lock.drain);
}

/* @w was applied or has failed: who waited for it may go on. */
static void release(struct write_op *w, struct todo *todo)
{
	struct cache *c = w->cache;
	struct list_node *n;

	unlock_edges(w, todo);
	if (list_empty(&w->log_link))
		return;
	list_del(&w->log_link);
	list_for_each(n, &c->rmw_locks) {
		struct rmw_lock *l = list_entry(n, struct rmw_lock, link);

		if (l->owner == w || !range_overlap(l->blk, 1, w->blk, w->n))
			continue;
		assert(l->drain > 0);
		if (--l->drain == 0 && drained(l->owner))
			list_add_tail(&todo->writes, &l->owner->link);
	}
}

/* ---- into the log ---- */

static void fua_synced(struct cache *c, struct sync_wait *w, int result, struct todo *todo)
{
	struct write_op *op = container_of(w, struct write_op, sync);

	if (result == 0)
		destage_kick(c);
	op_finish(op, result, todo);
}

static void fua_barrier(struct cache *c, struct append_op *barrier, int result, struct todo *todo)
{
	struct write_op *op = container_of(barrier, struct write_op, barrier);

	if (result < 0) {
		op_finish(op, result, todo);
		return;
	}
	failpoint(FAILPOINT_BARRIER);
	epoch_close(c, barrier->record.seq, barrier->record.blk, true, todo);
	op->sync.seq = barrier->record.seq;
	op->sync.synced = fua_synced;
	sync_submit(c, &op->sync, todo);
}

static void barrier_init(struct cache *c, struct append_op *op)
{
	op->record.kind = FORMAT_BARRIER;
	op->record.blk = sched_realtime(c->sched);
	op->record.nblocks = FORMAT_CUT_FLUSH;
	op->control = true;
}

static void apply(struct cache *c, struct write_op *op)
{
	const struct format_record *r = &op->op.record;
	uint32_t base = op->op.segment * c->seg_slots + r->slot;

	fetch_mark_stale(c, op->blk, op->n);
	if (r->kind != FORMAT_WRITE) {
		cache_map_fill(c, op->blk, op->n, MAP_ENTRY_ZERO);
		return;
	}
	for (uint32_t i = 0; i < op->n; i++)
		cache_map_set(c, op->blk + i, map_entry(base + i, op->crc[i]));
}

static void appended(struct cache *c, struct append_op *append, int result, struct todo *todo)
{
	struct write_op *op = container_of(append, struct write_op, op);

	if (result == 0) {
		apply(c, op);
		c->written_bytes += op->req->length;
	}
	release(op, todo);
	if (result == 0 && op->fua) {
		/* Later writes must not reach the target before this one: FUA ends an epoch. */
		barrier_init(c, &op->barrier);
		op->barrier.appended = fua_barrier;
		append_submit(&c->log, &op->barrier, todo);
		return;
	}
	op_finish(op, result, todo);
}

/* The payload as whole blocks: edges from their buffers, the rest from the request. */
static void describe_payload(struct write_op *op)
{
	const struct blk_req *req = op->req;
	uint64_t from = op->blk * BLK, to = (op->blk + op->n) * BLK;
	int n = 0;

	if (op->edge[0].used) {
		op->iov[n++] = (struct iovec){ op->edge[0].buf, BLK };
		from += BLK;
	}
	if (op->edge[1].used)
		to -= BLK;
	if (from < to)
		n += iov_slice(req->iov, req->iovcnt, (size_t)(from - req->offset),
			       (size_t)(to - from), op->iov + n, req->iovcnt);
	if (op->edge[1].used)
		op->iov[n++] = (struct iovec){ op->edge[1].buf, BLK };
	op->iovcnt = n;
}

static void checksum_payload(struct write_op *op)
{
	size_t in_block = 0;
	uint32_t crc = 0, i = 0;

	for (int v = 0; v < op->iovcnt; v++) {
		const uint8_t *p = op->iov[v].iov_base;
		size_t left = op->iov[v].iov_len;

		while (left) {
			size_t take = MIN(left, BLK - in_block);

			crc = crc32c(crc, p, take);
			p += take;
			left -= take;
			in_block += take;
			if (in_block == BLK) {
				op->crc[i++] = crc;
				crc = 0;
				in_block = 0;
			}
		}
	}
	assert(i == op->n && in_block == 0);
}

/* Put the guest's bytes of a partly covered block over its base. */
static void merge_edge(struct write_op *op, struct edge *e)
{
	const struct blk_req *req = op->req;
	uint64_t from = MAX(req->offset, e->lock.blk * BLK);
	uint64_t to = MIN(req->offset + req->length, (e->lock.blk + 1) * BLK);

	iov_copy_from(req->iov, req->iovcnt, (size_t)(from - req->offset),
		      e->buf + (from - e->lock.blk * BLK), (size_t)(to - from));
}

/* No lock held; the op owns its locks and its bases are there. */
static void prepare_payload(struct write_op *op)
{
	if (op->req->op != BLK_WRITE)
		return;
	for (unsigned i = 0; i < 2; i++)
		if (op->edge[i].used)
			merge_edge(op, &op->edge[i]);
	describe_payload(op);
	checksum_payload(op);
}

/* The payload is ready: into the log. Under the lock. */
static void append(struct write_op *op, struct todo *todo)
{
	struct cache *c = op->cache;
	struct append_op *a = &op->op;
	int r = refusal(c);

	if (r == 0 && op->req->op == BLK_WRITE)
		r = map_reserve(&c->map, op->blk, op->n);
	else if (r == 0 && (map_reserve(&c->map, op->blk, 1) < 0 ||
			    map_reserve(&c->map, op->blk + op->n - 1, 1) < 0))
		r = -ENOMEM;
	if (r < 0) {
		release(op, todo);
		op_finish(op, r, todo);
		return;
	}
	a->record.kind = op->req->op == BLK_WRITE  ? FORMAT_WRITE
			 : op->req->op == BLK_ZERO ? FORMAT_ZERO
						   : FORMAT_DISCARD;
	a->record.blk = op->blk;
	a->record.nblocks = (uint32_t)op->n;
	a->iov = op->iov;
	a->iovcnt = op->iovcnt;
	a->crc = op->crc;
	a->appended = appended;
	append_submit(&c->log, a, todo);
}

/* ---- begun ---- */

static void bases_ready(struct write_op *op)
{
	struct cache *c = op->cache;
	int r = atomic_load(&op->base_result);
	struct todo todo;

	if (r == 0)
		prepare_payload(op);
	cache_lock(c, &todo);
	if (r == 0) {
		append(op, &todo);
	} else {
		release(op, &todo);
		op_finish(op, r, &todo);
	}
	cache_unlock(c, &todo);
}

static void base_read(struct blk_req *req, void *ctx, int result)
{
	struct write_op *op = ctx;
	int none = 0;

	if (result < 0)
		atomic_compare_exchange_strong(&op->base_result, &none, result);
	if (atomic_fetch_sub(&op->bases, 1) == 1)
		bases_ready(op);
}

static void read_bases(struct write_op *op)
{
	struct cache *c = op->cache;

	atomic_store(&op->bases, 1);
	for (unsigned i = 0; i < 2; i++) {
		struct edge *e = &op->edge[i];

		if (!e->held)
			continue;
		e->iov = (struct iovec){ e->buf, (size_t)cache_valid_bytes(c, e->lock.blk, 1) };
		blk_req_init(&e->base, BLK_READ, e->lock.blk * BLK, e->iov.iov_len, &e->iov, 1);
		/* Readahead learns nothing from it. */
		e->base.lane = BLK_LANE_FLUSH;
		e->base.frame[e->base.depth++] = (struct blk_frame){ base_read, op };
		atomic_fetch_add(&op->bases, 1);
		read_submit(c, &e->base);
	}
	if (atomic_fetch_sub(&op->bases, 1) == 1)
		bases_ready(op);
}

static void write_begin(struct write_op *op)
{
	struct cache *c = op->cache;
	struct rmw_lock *other;
	bool wait = false, edges;
	struct todo todo;

	cache_lock(c, &todo);
	op->waiting = false;
	if (list_empty(&op->log_link)) {
		other = conflict(c, op);
		if (other) {
			list_add_tail(&other->waiters, &op->link);
			wait = true;
		} else {
			/* From here on later writes know of us, and those before us are counted. */
			lock_edges(c, op);
			list_add_tail(&c->writes, &op->log_link);
			wait = !drained(op);
		}
	}
	edges = op->edge[0].held || op->edge[1].held;
	cache_unlock(c, &todo);
	if (wait)
		return;
	if (edges) {
		read_bases(op);
		return;
	}
	prepare_payload(op);
	cache_lock(c, &todo);
	append(op, &todo);
	cache_unlock(c, &todo);
}

void write_begin_list(struct list_node *writes)
{
	struct list_node *n;

	while ((n = list_pop(writes)))
		write_begin(list_entry(n, struct write_op, link));
}

/* ---- room ---- */

static uint64_t delay_now(struct cache *c, const struct write_op *op)
{
	return writeback_delay_ns(&c->wb, &c->wb_conf, c->dirty_slots * BLK,
				  op->req->op == BLK_WRITE ? op->n * BLK : BLK, true);
}

void write_unthrottle(struct cache *c, struct todo *todo)
{
	struct write_op *op;

	while ((op = list_first(&c->throttled, struct write_op, link))) {
		uint64_t now = sched_now(c->sched), delay = delay_now(c, op);

		if (delay == UINT64_MAX) {
			/* An epoch that drains brings us back; where none is closed, close one. */
			if (list_empty(&c->epochs))
				epoch_cut(c, todo);
			return;
		}
		if (now < c->throttle_next_ns && delay) {
			sched_arm(c->sched, &c->throttle_timer, c->throttle_next_ns);
			return;
		}
		c->throttle_next_ns = now + delay;
		list_del(&op->link);
		c->nthrottled--;
		op->waiting = false; /* it is not ours to cancel any more */
		list_add_tail(&todo->writes, &op->link);
	}
}

void throttle_timer_fired(struct task *t)
{
	struct cache *c = container_of(t, struct cache, throttle_timer.task);
	struct todo todo;

	cache_lock(c, &todo);
	write_unthrottle(c, &todo);
	cache_unlock(c, &todo);
}

void write_cancel(struct cache *c, struct held *held, struct todo *todo)
{
	struct write_op *op = container_of(held, struct write_op, held);

	if (!op->waiting || list_empty(&op->link))
		return;
	list_del(&op->link);
	c->nthrottled--;
	op_finish(op, -EINTR, todo);
}

void write_fail_waiting(struct cache *c, int result, struct todo *todo)
{
	struct list_node *n;

	while ((n = list_pop(&c->throttled))) {
		c->nthrottled--;
		op_finish(list_entry(n, struct write_op, link), result, todo);
	}
}

void write_submit(struct cache *c, struct blk_req *req)
{
	struct write_op *op = op_new(c, req);
	bool begin = false;
	struct todo todo;
	int r = 0;

	cache_lock(c, &todo);
	if (!op)
		r = -ENOMEM;
	else
		r = refusal(c);
	/* One that was on its way here when the far side was fenced: nobody would wake it. */
	if (r == 0 && c->fenced)
		r = -EROFS;
	if (r < 0) {
		todo_done(&todo, req, r);
		cache_unlock(c, &todo);
		if (op)
			op_free(op);
		return;
	}
	cache_get(c);
	req->dev_data = &op->held;
	if (list_empty(&c->throttled) && delay_now(c, op) == 0) {
		begin = true;
	} else {
		op->waiting = true;
		list_add_tail(&c->throttled, &op->link);
		c->nthrottled++;
		if (c->nthrottled == 1)
			c->throttle_next_ns = MAX(c->throttle_next_ns, sched_now(c->sched));
		write_unthrottle(c, &todo);
	}
	cache_unlock(c, &todo);
	if (begin)
		write_begin(op);
}

/* ---- FLUSH ---- */

struct flush_op {
	struct append_op barrier;
	struct sync_wait sync;
	struct blk_req *req;
};

static void flush_synced(struct cache *c, struct sync_wait *w, int result, struct todo *todo)
{
	struct flush_op *op = container_of(w, struct flush_op, sync);

	if (result == 0)
		destage_kick(c);
	todo_done(todo, op->req, result);
	free(op);
	cache_put(c);
}

static void flush_barrier(struct cache *c, struct append_op *barrier, int result, struct todo *todo)
{
	struct flush_op *op = container_of(barrier, struct flush_op, barrier);

	if (result < 0) {
		todo_done(todo, op->req, result);
		free(op);
		cache_put(c);
		return;
	}
	failpoint(FAILPOINT_BARRIER);
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

		last->by_flush = true;
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
		r = refusal(c);
	if (r < 0) {
		free(op);
		todo_done(&todo, req, r);
		cache_unlock(c, &todo);
		return;
	}
	cache_get(c);
	op->req = req;
	op->sync.synced = flush_synced;
	if (c->open.records) {
		barrier_init(c, &op->barrier);
		op->barrier.appended = flush_barrier;
		append_submit(&c->log, &op->barrier, &todo);
	} else {
		flush_again(c);
		op->sync.seq = c->appended_seq;
		sync_submit(c, &op->sync, &todo);
	}
	cache_unlock(c, &todo);
}
