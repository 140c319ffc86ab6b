// SPDX-License-Identifier: Apache-2.0
/*
 * The sending half of write-back: a plan goes to the target until all of it is durable there.
 *
 * States of a command:
 *
 *	TODO → SENT → DONE ─(a SYNC begins)→ COVERED ─(it ended, generation unmoved)→ SAFE
 *	  ↑      │       └──────────────────────┴── generation moved, or the SYNC failed ──┐
 *	  └──────┴─ failed ←───────────────────────────────────────────────────────────────┘
 *
 * The rule: what was answered counts as durable only after a SYNC that was submitted after the
 * answer and ended with 0, the generation being what it was before the command was sent
 * (core/block.h). Else it is sent again: the same bytes to the same place, so nobody minds.
 *
 *  - The last SYNC of a run begins when nothing is in flight. In a long run there are checkpoints
 *    before, while more is being sent: a lost session costs what was sent since the last one.
 *  - When the generation has moved, commands in flight stay so: their answers come after it was
 *    read anew. What was answered before that is sent again; never two commands overlap.
 *  - A run of a few small writes goes as FUA writes: durable with their answer, by the same rule.
 *  - A target without a volatile cache needs no SYNC: an answer is durable if the generation stands
 *    still. But it is the FLUSH that waits until no write of a lost session can land any more
 *    (ghosts). So one is sent all the same unless one has ended, or FUA writes have, at this very
 *    generation: `calm`.
 *
 * No command goes out on a range that a fetch is under way on. One cannot begin there meanwhile:
 * the map has these blocks, from this run or from later.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cache/destage.h"
#include "core/crc32c.h"
#include "core/log.h"

/* Bounds of what is under way to the target. */
#define WINDOW_BYTES (16u << 20)
#define WINDOW_COMMANDS 128u

struct sent {
	struct inner_io io;
	struct cache *cache;
	struct plan_command *command;
	struct iovec iov;
	uint8_t *buf;
};

/* What a command counts for in how far the run is: its blocks; zeroes cost no more than one. */
static uint64_t effort(const struct plan_command *cmd)
{
	return cmd->kind == FORMAT_WRITE ? cmd->n : 1;
}

/* The share of the run's log bytes that @part of the whole effort stands for. */
static uint64_t log_share(const struct destage *d, uint64_t part)
{
	return d->total ? (uint64_t)((unsigned __int128)d->log_bytes * part / d->total) : 0;
}

uint64_t destage_sent_bytes(const struct cache *c)
{
	const struct destage *d = c->destage;

	if (!d || (d->state != SENDING && d->state != FLUSHING && d->state != MARKING))
		return 0;
	return d->state == MARKING ? d->log_bytes : log_share(d, d->answered);
}

bool destage_syncing(const struct cache *c)
{
	return c->destage && c->destage->state == FLUSHING;
}

/* ---- commands ---- */

static void answered(struct cache *c, const struct plan_command *cmd)
{
	struct destage *d = c->destage;
	uint64_t share;

	d->answered += effort(cmd);
	share = log_share(d, d->answered);
	/* What is sent once more has been counted. */
	if (share > d->credited) {
		writeback_delivered(&c->wb, share - d->credited, sched_now(c->sched));
		d->credited = share;
	}
	/* Who waits for that is let in by a thread of the cache's, not by the leaf's. */
	if (c->nthrottled && !c->stopping)
		sched_arm(c->sched, &c->throttle_timer, sched_now(c->sched));
}

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
		answered(c, sent->command);
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

/* The block is not what was written. Its run cannot be sent as it was. */
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
	if (d->in_flight)
		return false;
	for (size_t i = d->from; i < d->plan.ncommands; i++)
		if (d->plan.command[i].state == COMMAND_TODO)
			return false;
	return true;
}

/* One command out, if there is one. False: nothing to send now. */
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
	s->io.req.lane = list_empty(&c->drains) ? BLK_LANE_WRITEBACK : BLK_LANE_FLUSH;
	s->io.req.flags = d->fua ? BLK_FUA : 0;
	d->in_flight++;
	d->in_flight_bytes += s->iov.iov_len;
	cache_get(c);
	list_init(&s->io.link);
	list_add_tail(&todo->inner, &s->io.link);
	return true;
}

/* ---- SYNC ---- */

static void flush_done(struct blk_req *req, void *ctx, int result)
{
	struct cache *c = ctx;
	struct destage *d = c->destage;
	struct todo todo;

	cache_lock(c, &todo);
	d->sync_ended = true;
	d->sync_result = result;
	destage_kick(c);
	cache_put(c);
	cache_unlock(c, &todo);
}

/* Change the state of all commands that are in one of two. */
static void restate(struct destage *d, enum command_state a, enum command_state b,
		    enum command_state to)
{
	for (size_t i = 0; i < d->plan.ncommands; i++) {
		struct plan_command *cmd = &d->plan.command[i];

		if (cmd->state != a && cmd->state != b)
			continue;
		cmd->state = to;
		if (to == COMMAND_SAFE)
			d->durable += effort(cmd);
		else if (to == COMMAND_TODO)
			d->answered -= effort(cmd);
	}
}

/* Have made durable what is answered. @last: all of the run is. */
static void sync_begin(struct cache *c, bool last, struct todo *todo)
{
	struct destage *d = c->destage;
	bool needed = !d->fua && (!d->write_through || (last && d->calm != d->generation));

	restate(d, COMMAND_DONE, COMMAND_DONE, COMMAND_COVERED);
	d->syncing = true;
	d->sync_ended = !needed;
	d->sync_result = 0;
	if (!needed)
		return;
	blk_req_init(&d->flush.req, BLK_FLUSH, 0, 0, NULL, 0);
	d->flush.req.lane = BLK_LANE_FLUSH;
	d->flush.done = flush_done;
	d->flush.ctx = c;
	cache_get(c);
	list_init(&d->flush.link);
	list_add_tail(&todo->inner, &d->flush.link);
}

/* What is answered but not safe has to be sent again. */
static void send_again(struct destage *d)
{
	restate(d, COMMAND_DONE, COMMAND_COVERED, COMMAND_TODO);
	d->from = 0;
	d->smooth = false;
}

/* The SYNC ended: what does it say? True: what it covered is durable. */
static bool sync_end(struct cache *c, struct todo *todo)
{
	struct destage *d = c->destage;
	int result = d->sync_result;
	uint64_t now;

	d->syncing = d->sync_ended = false;
	if (result == -ESTALE) {
		destage_fence(c, todo);
		return false;
	}
	if (result < 0) {
		send_again(d);
		destage_pause(c);
		return false;
	}
	cache_unlock(c, todo);
	now = blk_generation(c->conf.inner);
	cache_lock(c, todo);
	if (now != d->generation) {
		d->generation = now;
		send_again(d);
		return false;
	}
	restate(d, COMMAND_COVERED, COMMAND_COVERED, COMMAND_SAFE);
	return true;
}

static bool checkpoint_due(const struct cache *c)
{
	const struct destage *d = c->destage;

	return !d->syncing && !d->fua &&
	       writeback_checkpoint_due(&c->wb, log_share(d, d->answered - d->durable),
					log_share(d, d->total - d->answered));
}

/* ---- the run ---- */

static bool fua_fits(const struct destage *d, const struct blk_info *info)
{
	if ((info->flags & (BLK_INFO_FUA | BLK_INFO_VOLATILE)) !=
	    (BLK_INFO_FUA | BLK_INFO_VOLATILE))
		return false;
	/* Zeroes may be more than they look. */
	for (size_t i = 0; i < d->plan.ncommands; i++)
		if (d->plan.command[i].kind != FORMAT_WRITE)
			return false;
	return writeback_by_fua(d->plan.ncommands, d->total * BLK);
}

void send_begin(struct cache *c, const struct blk_info *info, uint64_t generation)
{
	struct destage *d = c->destage;

	d->total = d->answered = d->durable = d->credited = 0;
	for (size_t i = 0; i < d->plan.ncommands; i++) {
		d->plan.command[i].state = COMMAND_TODO;
		d->total += effort(&d->plan.command[i]);
	}
	d->from = 0;
	d->error = 0;
	d->generation = generation;
	d->write_through = !(info->flags & BLK_INFO_VOLATILE);
	d->fua = fua_fits(d, info);
	d->smooth = true;
	d->begin_ns = sched_now(c->sched);
	d->state = SENDING;
}

static bool sending(struct cache *c, struct todo *todo)
{
	struct destage *d = c->destage;

	if (d->sync_ended) {
		sync_end(c, todo);
		return true;
	}
	if (d->error == -ESTALE) {
		destage_fence(c, todo);
		return true;
	}
	if (d->error) {
		/* What is under way ends first, so that the pause is one. */
		if (d->in_flight || d->syncing)
			return false;
		d->error = 0;
		d->smooth = false;
		destage_pause(c);
		return false;
	}
	if (all_done(d)) {
		if (d->syncing)
			return false;
		d->answered_ns = sched_now(c->sched);
		d->state = FLUSHING;
		sync_begin(c, true, todo);
		return true;
	}
	if (checkpoint_due(c)) {
		sync_begin(c, false, todo);
		return true;
	}
	return send_one(c, todo) || d->state == BLOCKED || (d->error && !d->in_flight);
}

bool send_step(struct cache *c, struct todo *todo)
{
	struct destage *d = c->destage;

	if (c->stopping || d->waiting)
		return false;
	if (d->state == SENDING)
		return sending(c, todo);
	if (!d->sync_ended)
		return false;
	d->state = SENDING;
	if (sync_end(c, todo)) {
		d->calm = d->generation;
		destage_mark(c, todo);
	}
	return true;
}
