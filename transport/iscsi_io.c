// SPDX-License-Identifier: Apache-2.0
/*
 * Requests, what becomes of their commands, and which session gets them.
 *
 * Lanes: a flush goes out as soon as any session has a command slot, a demand read too unless some
 * seconds of the path are in flight already. Write-back and readahead are held to the session's
 * window (policy/window.h), warming to half of it. Each leaves some command slots to the others, so
 * that what is urgent never finds the path or the target's command window full, and readers without
 * pause do not stop write-back. libiscsi sends in queue order: bytes not given to it cannot be in
 * the way.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/cleanup.h"
#include "core/clock.h"
#include "core/range.h"
#include "transport/iscsi_impl.h"

#define KIB 1024ull
#define MIB (1024 * KIB)

/*
 * Demand reads have no window, but more than this would only wait in libiscsi and on the line, in
 * the way of what comes later, and on a slow line so long that the session were taken for dead.
 */
#define DEMAND_S 4
#define DEMAND_MIN_BYTES (2 * MIB)
#define DEMAND_MAX_BYTES (32 * MIB)

void iscsi_ended_init(struct iscsi_ended *ended)
{
	list_init(&ended->list);
}

void iscsi_ended_complete(struct iscsi_ended *ended)
{
	struct list_node *n;

	while ((n = list_pop(&ended->list))) {
		struct iscsi_io *io = list_entry(n, struct iscsi_io, link);
		struct blk_req *req = io->req;
		int result = io->result;

		free(io);
		blk_complete(req, result);
	}
}

bool iscsi_any_up(const struct iscsi_pool *pool)
{
	for (unsigned i = 0; i < pool->count; i++)
		if (pool->sessions[i].state == ISCSI_UP)
			return true;
	return false;
}

static bool is_write(enum iscsi_kind kind)
{
	return kind == ISCSI_WRITE || kind == ISCSI_ZEROES || kind == ISCSI_SAME;
}

static bool needs_sync(const struct iscsi_io *io)
{
	return !io->synced && (io->req->op == BLK_FLUSH || (io->sync_after && io->result == 0));
}

/* Something can be cut now. */
static bool has_work(const struct iscsi_io *io)
{
	return iscsi_io_uncut(io) || (needs_sync(io) && !io->commands);
}

/* Such a request may only end when no write of a lost session can land any more. */
static bool wants_fence(const struct iscsi_io *io)
{
	return io->req->op == BLK_FLUSH || (io->req->flags & BLK_FUA);
}

static void drop_redo(struct iscsi_io *io)
{
	struct list_node *n;

	while ((n = list_pop(&io->redo)))
		free(list_entry(n, struct iscsi_cmd, link));
}

/* End @io if nothing is left of it; back into its lane if something is to be cut. */
static void settle(struct iscsi_pool *pool, struct iscsi_io *io, struct iscsi_ended *ended)
{
	if (io->result != 0 || io->cancelled) {
		io->cut_bytes = io->req->length;
		io->synced = true;
		drop_redo(io);
	}
	if (has_work(io)) {
		if (list_empty(&io->link))
			list_add(&pool->ios[io->lane], &io->link);
		return;
	}
	if (io->commands)
		return;
	list_del(&io->link);
	if (io->cancelled && io->result == 0)
		io->result = -EINTR;
	/* Under the lock: a cancellation from now on finds nothing. */
	io->req->dev_data = NULL;
	list_add_tail(&ended->list, &io->link);
}

static bool is_waiting_read(const struct blk_req *req)
{
	return req->op == BLK_READ && req->lane != BLK_LANE_WRITEBACK;
}

int iscsi_io_begin(struct iscsi_pool *pool, struct blk_req *req)
{
	bool zero = req->op == BLK_ZERO || req->op == BLK_DISCARD;
	struct iscsi_io *io;

	if (pool->stopping)
		return -ESHUTDOWN;
	if (iscsi_fenced_for(pool, req))
		return -ESTALE;
	if ((req->flags & BLK_ADVISORY) && !iscsi_any_up(pool))
		return -ECANCELED;
	if (is_waiting_read(req) && iscsi_reads_expired(pool))
		return -EIO;
	io = calloc(1, sizeof(*io));
	if (!io)
		return -ENOMEM;
	io->req = req;
	/* Reads must not wait behind a flush that waits for the fence. */
	io->lane = req->lane;
	if (wants_fence(io) && io->lane < BLK_LANE_FLUSH)
		io->lane = BLK_LANE_FLUSH;
	list_init(&io->redo);
	io->same = zero && pool->same_works;
	if ((req->flags & BLK_FUA) && pool->lun.write_cache)
		io->sync_after = zero || !pool->lun.fua;
	req->dev_data = io;
	list_add_tail(&pool->ios[io->lane], &io->link);
	return 0;
}

void iscsi_uncharge(struct iscsi_cmd *cmd)
{
	struct iscsi_session *s = cmd->session;

	if (!s)
		return;
	s->cmds--;
	s->demand_cmds -= cmd->io->lane == BLK_LANE_DEMAND;
	if (cmd->kind == ISCSI_READ)
		s->read_bytes -= cmd->cost;
	else
		s->write_bytes -= cmd->cost;
	cmd->session = NULL;
}

static void charge(struct iscsi_session *s, struct iscsi_cmd *cmd)
{
	cmd->session = s;
	s->cmds++;
	s->demand_cmds += cmd->io->lane == BLK_LANE_DEMAND;
	if (cmd->kind == ISCSI_READ)
		s->read_bytes += cmd->cost;
	else
		s->write_bytes += cmd->cost;
}

void iscsi_cmd_end(struct iscsi_pool *pool, struct iscsi_cmd *cmd, int result,
		   struct iscsi_ended *ended)
{
	struct iscsi_io *io = cmd->io;

	if (result < 0 && io->result == 0)
		io->result = result;
	if (cmd->kind == ISCSI_SYNC)
		io->synced = true;
	free(cmd);
	io->commands--;
	settle(pool, io, ended);
}

void iscsi_cmd_again(struct iscsi_pool *pool, struct iscsi_cmd *cmd, uint64_t not_before_ns)
{
	cmd->not_before_ns = not_before_ns;
	if (not_before_ns)
		list_add_tail(&pool->delayed, &cmd->link);
	else
		list_add_tail(&pool->again[cmd->io->lane], &cmd->link);
}

void iscsi_cmd_recut(struct iscsi_pool *pool, struct iscsi_cmd *cmd)
{
	struct iscsi_io *io = cmd->io;

	io->same = false;
	io->commands--;
	list_add_tail(&io->redo, &cmd->link);
	if (list_empty(&io->link))
		list_add(&pool->ios[io->lane], &io->link);
}

void iscsi_cmd_lost(struct iscsi_pool *pool, struct iscsi_cmd *cmd, struct iscsi_ended *ended)
{
	struct iscsi_io *io = cmd->io;

	if (io->cancelled)
		iscsi_cmd_end(pool, cmd, -EINTR, ended);
	else if (io->req->flags & BLK_ADVISORY)
		iscsi_cmd_end(pool, cmd, -ECANCELED, ended);
	else if (pool->stopping)
		iscsi_cmd_end(pool, cmd, -ESHUTDOWN, ended);
	else if (iscsi_fenced_for(pool, io->req))
		iscsi_cmd_end(pool, cmd, -ESTALE, ended);
	else
		list_add(&pool->again[io->lane], &cmd->link);
}

uint64_t iscsi_delayed_due(struct iscsi_pool *pool, uint64_t now_ns)
{
	struct list_node *n, *tmp;
	uint64_t next = 0;

	list_for_each_safe(n, tmp, &pool->delayed) {
		struct iscsi_cmd *cmd = list_entry(n, struct iscsi_cmd, link);

		if (cmd->not_before_ns > now_ns) {
			next = next ? MIN(next, cmd->not_before_ns) : cmd->not_before_ns;
			continue;
		}
		list_del(&cmd->link);
		iscsi_cmd_again(pool, cmd, 0);
	}
	return next;
}

static bool is_one(const struct iscsi_io *io, enum iscsi_which which)
{
	switch (which) {
	case ISCSI_ADVISORY:
		return io->req->flags & BLK_ADVISORY;
	case ISCSI_CHANGES:
		return io->req->op != BLK_READ;
	case ISCSI_WAITING_READS:
		return is_waiting_read(io->req);
	case ISCSI_ALL:
		break;
	}
	return true;
}

static void fail_cmds(struct iscsi_pool *pool, struct list_node *list, int result,
		      enum iscsi_which which, struct iscsi_ended *ended)
{
	struct list_node *n, *tmp;

	list_for_each_safe(n, tmp, list) {
		struct iscsi_cmd *cmd = list_entry(n, struct iscsi_cmd, link);

		if (!is_one(cmd->io, which))
			continue;
		list_del(&cmd->link);
		iscsi_cmd_end(pool, cmd, result, ended);
	}
}

void iscsi_fail_queued(struct iscsi_pool *pool, int result, enum iscsi_which which,
		       struct iscsi_ended *ended)
{
	fail_cmds(pool, &pool->delayed, result, which, ended);
	for (int lane = 0; lane < BLK_LANE_COUNT; lane++) {
		struct list_node *n, *tmp;

		fail_cmds(pool, &pool->again[lane], result, which, ended);
		list_for_each_safe(n, tmp, &pool->ios[lane]) {
			struct iscsi_io *io = list_entry(n, struct iscsi_io, link);

			if (!is_one(io, which))
				continue;
			if (io->result == 0)
				io->result = result;
			list_del(&io->link);
			settle(pool, io, ended);
		}
	}
}

static void cancel_cmds(struct list_node *list, struct iscsi_io *io)
{
	struct list_node *n, *tmp;

	list_for_each_safe(n, tmp, list) {
		struct iscsi_cmd *cmd = list_entry(n, struct iscsi_cmd, link);

		if (cmd->io != io)
			continue;
		list_del(&cmd->link);
		/* Keep the io alive until the walk is over. */
		io->commands--;
		free(cmd);
	}
}

void iscsi_io_cancel(struct iscsi_pool *pool, struct iscsi_io *io, struct iscsi_ended *ended)
{
	io->cancelled = true;
	cancel_cmds(&pool->delayed, io);
	cancel_cmds(&pool->again[io->lane], io);
	list_del(&io->link);
	settle(pool, io, ended);
}

static uint64_t demand_limit(const struct window *w)
{
	return MIN(MAX(window_rate(w) * DEMAND_S, DEMAND_MIN_BYTES), DEMAND_MAX_BYTES);
}

static bool has_room(const struct iscsi_session *s, enum blk_lane lane, bool write, uint64_t bytes)
{
	const struct window *w = write ? &s->writes : &s->reads;
	uint64_t used = write ? s->write_bytes : s->read_bytes, limit = window_limit(w);

	if (s->state != ISCSI_UP || s->chores)
		return false;
	if (lane == BLK_LANE_FLUSH)
		return s->cmds < ISCSI_SLOTS;
	if (s->cmds >= ISCSI_SLOTS_DATA)
		return false;
	if (lane == BLK_LANE_DEMAND)
		return s->demand_cmds < ISCSI_SLOTS_DEMAND && used < demand_limit(w);
	if (s->cmds - s->demand_cmds >= ISCSI_SLOTS_LOWER)
		return false;
	if (lane == BLK_LANE_WARM)
		limit /= 2;
	/* To the nearest whole command, but always one: a small window must not stop all. */
	return !used || used + bytes / 2 <= limit;
}

/* The least loaded session with room; equals take turns. */
static struct iscsi_session *choose(struct iscsi_pool *pool, enum blk_lane lane, bool write,
				    uint64_t bytes)
{
	struct iscsi_session *best = NULL;
	uint64_t best_load = 0;

	for (unsigned n = 0; n < pool->count; n++) {
		struct iscsi_session *s = &pool->sessions[(pool->next_session + n) % pool->count];
		uint64_t load = s->read_bytes + s->write_bytes;

		if (!has_room(s, lane, write, bytes) || (best && load >= best_load))
			continue;
		best = s;
		best_load = load;
	}
	if (best)
		pool->next_session = (best->slot + 1) % pool->count;
	return best;
}

static void give(struct iscsi_session *s, struct iscsi_cmd *cmd, struct iscsi_session *self)
{
	bool was_empty = list_empty(&s->inbox);

	charge(s, cmd);
	list_add_tail(&s->inbox, &cmd->link);
	if (was_empty && s != self)
		iscsi_session_wake(s);
}

static bool blocked(struct iscsi_pool *pool, const struct iscsi_io *io)
{
	if (!pool->ghosts || !wants_fence(io))
		return false;
	if (!pool->fence_wanted) {
		pool->fence_wanted = true;
		pthread_cond_broadcast(&pool->changed);
	}
	return true;
}

static bool give_again(struct iscsi_pool *pool, enum blk_lane lane, struct iscsi_session *self)
{
	struct iscsi_cmd *cmd = list_first(&pool->again[lane], struct iscsi_cmd, link);
	struct iscsi_session *s;

	if (!cmd || blocked(pool, cmd->io))
		return false;
	s = choose(pool, lane, is_write(cmd->kind), cmd->cost);
	if (!s)
		return false;
	list_del(&cmd->link);
	give(s, cmd, self);
	return true;
}

static bool give_new(struct iscsi_pool *pool, enum blk_lane lane, struct iscsi_session *self,
		     struct iscsi_ended *ended)
{
	struct iscsi_io *io = list_first(&pool->ios[lane], struct iscsi_io, link);
	struct iscsi_session *s;
	struct iscsi_cmd *cmd;

	if (!io || blocked(pool, io))
		return false;
	if (!has_work(io)) {
		/* All cut; it comes back for its SYNC when the rest is answered. */
		list_del(&io->link);
		return true;
	}
	s = choose(pool, lane, is_write(iscsi_io_kind(io)), iscsi_io_next_bytes(pool, io));
	if (!s)
		return false;
	cmd = iscsi_cut(pool, s, io);
	if (!cmd) {
		io->result = -ENOMEM;
		list_del(&io->link);
		settle(pool, io, ended);
		return true;
	}
	if (!has_work(io))
		list_del(&io->link);
	give(s, cmd, self);
	return true;
}

void iscsi_dispatch(struct iscsi_pool *pool, struct iscsi_session *self, struct iscsi_ended *ended)
{
	if (pool->fencing || !pool->lun_known)
		return;
	/* What came back to be sent again. */
	if (atomic_load(&pool->fenced))
		iscsi_fail_queued(pool, -ESTALE, pool->foreign ? ISCSI_ALL : ISCSI_CHANGES, ended);
	for (int lane = 0; lane < BLK_LANE_COUNT; lane++) {
		while (give_again(pool, (enum blk_lane)lane, self))
			;
		/* What is to be sent again goes first, or its io would never end. */
		if (list_empty(&pool->again[lane]))
			while (give_new(pool, (enum blk_lane)lane, self, ended))
				;
	}
	iscsi_check(pool);
}

void iscsi_check(const struct iscsi_pool *pool)
{
#ifdef ENABLE_INVARIANTS
	for (unsigned i = 0; i < pool->count; i++) {
		const struct iscsi_session *s = &pool->sessions[i];
		unsigned queued = 0;
		struct list_node *n;

		list_for_each(n, &s->inbox) {
			assert(list_entry(n, struct iscsi_cmd, link)->session == s);
			queued++;
		}
		assert(queued <= s->cmds && s->demand_cmds <= s->cmds);
		assert(s->state == ISCSI_UP || s->cmds == 0);
		assert(s->cmds || (!s->read_bytes && !s->write_bytes));
	}
	for (int lane = 0; lane < BLK_LANE_COUNT; lane++) {
		struct list_node *n;

		list_for_each(n, &pool->again[lane])
			assert(!list_entry(n, struct iscsi_cmd, link)->session);
	}
#else
	(void)pool;
#endif
}
