// SPDX-License-Identifier: Apache-2.0
/*
 * Write-back: the oldest closed epoch goes to the target, whole, before anything of the next one.
 *
 * States:
 *
 *	IDLE ─an epoch is durable locally→ BUILDING ─plan→ SENDING ─all answered→ FLUSHING
 *	  ↑                                                  ↑  ↑                   │
 *	  │                                  failed: backoff ┘  └ generation moved ─┤
 *	  └── watermark durable ── MARKING ←───────────────── flushed, generation stood still
 *
 * BLOCKED: a record of the epoch cannot be read or is not what was written. Strict order stands
 * here until the user decides; reads and writes go on. Or the far side is fenced: nothing may be
 * sent any more, by this process; writes are refused.
 *
 * The plan (plan.c) names each block of the epoch once: the last version written inside it, read
 * from the log and never through the map, which may be ahead. No two commands overlap, so inside
 * the epoch any order is right, and sending all of it again is harmless.
 *
 * The generation is read before the first WRITE and compared after the FLUSH:
 * only if it stood still is the epoch durable at the target (core/block.h). The watermark
 * is durable in the log before the next epoch's first WRITE.
 *
 * One task runs all of it, never twice at once; completions only count and kick. It reads payload
 * without the lock: segments with records above destaged_seq are never evicted.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cache/internal.h"
#include "cache/plan.h"
#include "cache/trust.h"
#include "core/crc32c.h"
#include "core/log.h"
#include "policy/backoff.h"

/* Bounds of what is under way to the target. */
#define WINDOW_BYTES (16u << 20)
#define WINDOW_COMMANDS 128u

enum destage_state { IDLE, BUILDING, SENDING, FLUSHING, MARKING, BLOCKED };

struct destage {
	struct cache *cache;
	struct task task;
	struct sched_timer retry;
	bool posted; /* the task is pending or running; guarded by the cache's lock, like all but
			the plan */
	bool kicked; /* look again */
	enum destage_state state;
	uint64_t first_seq, last_seq; /* of the epoch at hand */
	uint64_t generation;
	unsigned in_flight;
	uint64_t in_flight_bytes;
	uint64_t sent_blocks; /* of this round, answered */
	bool rested;          /* there was nothing to send: a pause that says nothing of the link */
	int error;            /* a command or the flush failed: send again after a pause */
	bool waiting;         /* for the retry timer */
	bool ended;           /* FLUSHING, MARKING: the answer is here */
	int result;
	struct backoff backoff;

	struct plan plan; /* the task's alone, but for command states */
	size_t from;      /* commands before it are not TODO */

	struct append_op mark;
	struct sync_wait mark_sync;
	struct inner_io flush;
};

struct sent {
	struct inner_io io;
	struct cache *cache;
	struct plan_command *command;
	struct iovec iov;
	uint8_t *buf;
};

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

uint64_t destage_sent_bytes(const struct cache *c)
{
	return c->destage ? c->destage->sent_blocks * BLK : 0;
}

/* ---- sending ---- */

static void command_done(struct blk_req *req, void *ctx, int result)
{
	struct sent *sent = ctx;
	struct cache *c = sent->cache;
	struct destage *d = c->destage;
	struct todo todo;

	cache_lock(c, &todo);
	d->in_flight--;
	d->in_flight_bytes -= sent->iov.iov_len;
	if (result == 0) {
		sent->command->state = COMMAND_DONE;
		if (sent->command->kind == FORMAT_WRITE)
			d->sent_blocks += sent->command->n;
		writeback_delivered(&c->wb, sent->iov.iov_len, sched_now(c->sched));
	} else {
		sent->command->state = COMMAND_TODO;
		d->from = 0;
		/* The target has stopped taking discards: zeroes read the same. */
		if (result == -EOPNOTSUPP && sent->command->kind == FORMAT_DISCARD)
			sent->command->kind = FORMAT_ZERO;
		if (!d->error || result == -ESTALE)
			d->error = result;
	}
	destage_kick(c);
	cache_put(c);
	cache_unlock(c, &todo);
	free(sent->buf);
	free(sent);
}

void destage_fence(struct cache *c, struct todo *todo)
{
	c->fenced = true;
	c->destage->state = BLOCKED;
	write_fail_waiting(c, -EROFS, todo);
}

/* The block is not what was written. Its epoch cannot be sent as it was. */
static void dirty_damage(struct cache *c, const struct plan_block *b)
{
	struct todo todo;
	uint64_t entry;

	cache_lock(c, &todo);
	entry = map_get(&c->map, b->blk);
	if (map_entry_state(entry) == MAP_DATA && map_entry_slot(entry) == b->slot)
		cache_map_set(c, b->blk, MAP_ENTRY_BAD);
	cache_note_damage(c, b->blk, 1, true);
	c->destage->state = BLOCKED;
	c->damaged = true;
	cache_unlock(c, &todo);
	log_error("the 4 KiB at offset %llu, not yet at the target, are damaged on the local disk; "
		  "nothing written after them is sent (nearblk check names all of it)",
		  (unsigned long long)(b->blk * BLK));
}

/* Read and check the payload of a WRITE. 0; -EBADMSG: damaged; other -errno: try again. */
static int load_payload(struct cache *c, const struct plan_command *cmd, uint8_t *buf)
{
	const struct plan_block *b = &c->destage->plan.block[cmd->first];
	uint64_t i = 0;

	while (i < cmd->n) {
		uint64_t run = 1;
		int r;

		while (i + run < cmd->n && b[i + run].slot == b[i].slot + run &&
		       slot_segment(c, b[i + run].slot) == slot_segment(c, b[i].slot))
			run++;
		r = lio_read_sync(c->lio, c->seg[slot_segment(c, b[i].slot)].file, buf + i * BLK,
				  run * BLK,
				  (uint64_t)(b[i].slot % c->seg_slots) * FORMAT_SLOT_BYTES);
		if (r == -ENOMEM || r == -EAGAIN)
			return r;
		for (uint64_t k = 0; k < run; k++) {
			if (r == 0 && crc32c(0, buf + (i + k) * BLK, BLK) == b[i + k].crc)
				continue;
			dirty_damage(c, &b[i + k]);
			return -EBADMSG;
		}
		i += run;
	}
	return 0;
}

static struct sent *prepare(struct cache *c, struct plan_command *cmd, int *ret_error)
{
	struct sent *s = calloc(1, sizeof(*s));
	uint64_t bytes = cache_valid_bytes(c, cmd->blk, cmd->n);
	enum blk_op op = cmd->kind == FORMAT_WRITE  ? BLK_WRITE
			 : cmd->kind == FORMAT_ZERO ? BLK_ZERO
						    : BLK_DISCARD;

	*ret_error = -ENOMEM;
	if (!s)
		return NULL;
	s->cache = c;
	s->command = cmd;
	if (op == BLK_WRITE) {
		s->buf = aligned_alloc(BLK, cmd->n * BLK);
		if (!s->buf) {
			free(s);
			return NULL;
		}
		*ret_error = load_payload(c, cmd, s->buf);
		if (*ret_error < 0) {
			free(s->buf);
			free(s);
			return NULL;
		}
		s->iov = (struct iovec){ s->buf, bytes };
	}
	*ret_error = 0;
	blk_req_init(&s->io.req, op, cmd->blk * BLK, bytes, op == BLK_WRITE ? &s->iov : NULL,
		     op == BLK_WRITE ? 1 : 0);
	s->io.done = command_done;
	s->io.ctx = s;
	return s;
}

/* The next command that may go now, or NULL. The lock is held. */
static struct plan_command *next_command(struct cache *c)
{
	struct destage *d = c->destage;
	bool first = true;

	if (d->in_flight >= WINDOW_COMMANDS || d->in_flight_bytes >= WINDOW_BYTES)
		return NULL;
	for (size_t i = d->from; i < d->plan.ncommands; i++) {
		struct plan_command *cmd = &d->plan.command[i];

		if (cmd->state != COMMAND_TODO) {
			if (first)
				d->from = i + 1;
			continue;
		}
		first = false;
		/* Never two commands on overlapping ranges: a fetch begun before the write goes
		 * first. */
		if (!fetch_in_flight(c, cmd->blk, cmd->n))
			return cmd;
	}
	return NULL;
}

static bool all_done(const struct destage *d)
{
	for (size_t i = d->from; i < d->plan.ncommands; i++)
		if (d->plan.command[i].state != COMMAND_DONE)
			return false;
	return d->in_flight == 0;
}

/* One command out, if there is one. False: nothing to send now. The lock is held, and dropped
 * meanwhile. */
static bool send_one(struct cache *c, struct todo *todo)
{
	struct destage *d = c->destage;
	struct plan_command *cmd = next_command(c);
	struct sent *s;
	int r;

	if (!cmd)
		return false;
	cmd->state = COMMAND_SENT;
	cache_unlock(c, todo);
	s = prepare(c, cmd, &r);
	cache_lock(c, todo);
	if (!s) {
		cmd->state = COMMAND_TODO;
		d->from = 0;
		if (r != -EBADMSG)
			d->error = r;
		return false;
	}
	/*
	 * A fetch cannot have begun on the range meanwhile: the map has these blocks, from this
	 * epoch or a later one.
	 */
	s->io.req.lane = list_empty(&c->drains) ? BLK_LANE_WRITEBACK : BLK_LANE_FLUSH;
	d->in_flight++;
	d->in_flight_bytes += s->iov.iov_len;
	cache_get(c);
	list_init(&s->io.link);
	list_add_tail(&todo->inner, &s->io.link);
	return true;
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

/* The lock is held. All of the epoch is sent again after a pause. */
static void pause_sending(struct cache *c)
{
	struct destage *d = c->destage;
	uint64_t delay = backoff_next_ns(&d->backoff, sched_now(c->sched) * 0x9e3779b97f4a7c15ull);

	d->error = 0;
	d->waiting = true;
	sched_arm(c->sched, &d->retry, sched_now(c->sched) + delay);
}

static void begin_round(struct cache *c)
{
	struct destage *d = c->destage;

	for (size_t i = 0; i < d->plan.ncommands; i++)
		d->plan.command[i].state = COMMAND_TODO;
	d->from = 0;
	d->sent_blocks = 0;
	d->error = 0;
	d->state = SENDING;
}

static void flush_done(struct blk_req *req, void *ctx, int result)
{
	struct cache *c = ctx;
	struct destage *d = c->destage;
	struct todo todo;

	cache_lock(c, &todo);
	d->in_flight--;
	d->ended = true;
	d->result = result;
	destage_kick(c);
	cache_put(c);
	cache_unlock(c, &todo);
}

static void send_flush(struct cache *c, struct todo *todo)
{
	struct destage *d = c->destage;

	d->state = FLUSHING;
	d->ended = false;
	blk_req_init(&d->flush.req, BLK_FLUSH, 0, 0, NULL, 0);
	d->flush.req.lane = BLK_LANE_FLUSH;
	d->flush.done = flush_done;
	d->flush.ctx = c;
	d->in_flight++;
	cache_get(c);
	list_init(&d->flush.link);
	list_add_tail(&todo->inner, &d->flush.link);
}

/* ---- the watermark ---- */

static void mark_ended(struct cache *c, int result)
{
	c->destage->ended = true;
	c->destage->result = result;
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

/* The epoch is durable far away: say so in the log before anything else is sent. */
static void send_mark(struct cache *c, struct todo *todo)
{
	struct destage *d = c->destage;
	struct epoch *e = list_first(&c->epochs, struct epoch, link);

	d->state = MARKING;
	d->ended = false;
	backoff_reset(&d->backoff);
	if (e->by_flush)
		c->far_as_of_ns = e->closed_wall_ns;
	d->mark = (struct append_op){ .control = true, .appended = mark_appended };
	d->mark.record.kind = FORMAT_WATERMARK;
	d->mark.record.blk = d->last_seq;
	cache_get(c);
	append_submit(&c->log, &d->mark, todo);
}

/* ---- the state machine ---- */

static void build(struct cache *c, struct todo *todo)
{
	struct destage *d = c->destage;
	uint64_t first = d->first_seq, last = d->last_seq;
	int r;

	cache_unlock(c, todo);
	r = plan_build(&d->plan, c, first, last);
	/* Before the first WRITE, and outside the lock: it is another module's call. */
	d->generation = blk_generation(c->conf.inner);
	if (r < 0 && r != -ENOMEM)
		log_error("cache: writes not yet at the target cannot be read back (%s); they and "
			  "what was written after them are not sent",
			  strerror(-r));
	cache_lock(c, todo);
	if (r == -ENOMEM) {
		pause_sending(c);
	} else if (r < 0) {
		d->state = BLOCKED;
		c->damaged = true;
	} else {
		begin_round(c);
	}
}

/* One step. False: nothing to do until somebody kicks. The lock is held. */
static bool step(struct cache *c, struct todo *todo)
{
	struct destage *d = c->destage;
	struct epoch *e = list_first(&c->epochs, struct epoch, link);
	uint64_t now;

	switch (d->state) {
	case IDLE:
		if (!e || e->last_seq > c->durable_seq || c->stopping)
			return false;
		/* Not before it is known whose volume this is (trust.h). */
		if (atomic_load(&c->trust_state) != TRUST_SETTLED)
			return false;
		d->first_seq = e->first_seq;
		d->last_seq = e->last_seq;
		d->state = BUILDING;
		if (d->rested)
			writeback_begin(&c->wb, sched_now(c->sched));
		d->rested = false;
		return true;
	case BUILDING:
		if (c->stopping || d->waiting)
			return false;
		build(c, todo);
		return true;
	case SENDING:
		if (c->stopping || d->waiting)
			return false;
		if (d->error == -ESTALE) {
			destage_fence(c, todo);
			return true;
		}
		if (d->error && d->in_flight == 0) {
			pause_sending(c);
			return false;
		}
		if (d->error)
			return false;
		if (all_done(d)) {
			send_flush(c, todo);
			return true;
		}
		return send_one(c, todo) || d->state == BLOCKED || (d->error && !d->in_flight);
	case FLUSHING:
		if (!d->ended || c->stopping || d->waiting)
			return false;
		if (d->result == -ESTALE) {
			destage_fence(c, todo);
			return true;
		}
		if (d->result < 0) {
			d->ended = false;
			begin_round(c);
			pause_sending(c);
			return true;
		}
		cache_unlock(c, todo);
		now = blk_generation(c->conf.inner);
		cache_lock(c, todo);
		if (now != d->generation) {
			d->generation = now;
			begin_round(c);
		} else {
			send_mark(c, todo);
		}
		return true;
	case MARKING:
		if (!d->ended)
			return false;
		/* A log that failed cannot hold the watermark: nothing more may be sent. */
		if (d->result < 0) {
			d->state = BLOCKED;
			return true;
		}
		d->state = IDLE;
		plan_reset(&d->plan);
		/* Only a durable watermark counts: segments up to it may now be reused. */
		c->destaged_seq = d->last_seq;
		epoch_retire(c, todo);
		d->sent_blocks = 0;
		d->rested = list_empty(&c->epochs);
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
