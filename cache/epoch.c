// SPDX-License-Identifier: Apache-2.0
/*
 * Epochs: runs of guest records between two barriers of the log. One is open
 * and grows; closed ones wait in order for write-back. Invariants: the closed ones
 * have records and ascending, disjoint sequence ranges above destaged_seq;
 * dirty_slots is the sum of log_slots over all, the open one included.
 *
 * The memory of an epoch is there before the barrier that closes it is appended: a barrier in the
 * log always ends an epoch here, too, and a restart sends the same ones.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "cache/internal.h"

void epoch_add(struct cache *c, const struct format_record *r, uint64_t slots)
{
	struct epoch *e = &c->open;

	if (e->records == 0) {
		e->first_seq = r->seq;
		e->since_ns = sched_now(c->sched);
	}
	e->records++;
	e->log_slots += slots;
	c->dirty_slots += slots;
	if (e->records == 1)
		epoch_arm_timer(c);
}

void epoch_arm_timer(struct cache *c)
{
	/* A start that fails must leave no timer behind; one that succeeds arms it. */
	if (c->started && c->open.records)
		sched_arm(c->sched, &c->cut_timer,
			  writeback_cut_deadline_ns(&c->wb_conf, c->open.log_slots * BLK,
						    c->open.since_ns));
}

void epoch_add_control(struct cache *c, uint64_t slots)
{
	struct epoch *e = c->open.records          ? &c->open
			  : list_empty(&c->epochs) ? NULL
						   : list_entry(c->epochs.prev, struct epoch, link);

	/* With nothing unsent it stands behind the watermark and goes with its segment. */
	if (!e)
		return;
	e->log_slots += slots;
	c->dirty_slots += slots;
}

int epoch_reserve(struct cache *c)
{
	struct epoch *e = calloc(1, sizeof(*e));

	if (!e)
		return -ENOMEM;
	list_init(&e->link);
	list_add_tail(&c->spare_epochs, &e->link);
	return 0;
}

static struct epoch *take_spare(struct cache *c)
{
	struct list_node *n = list_pop(&c->spare_epochs);

	assert(n);
	return list_entry(n, struct epoch, link);
}

void epoch_unreserve(struct cache *c)
{
	free(take_spare(c));
}

void epoch_close(struct cache *c, uint64_t seq, uint64_t wall_ns, bool by_flush)
{
	struct epoch *e = take_spare(c);

	c->cut_pending = false;
	if (c->open.records == 0) {
		free(e);
		return;
	}
	*e = c->open;
	e->last_seq = seq;
	e->closed_wall_ns = wall_ns;
	e->by_flush = by_flush;
	list_add_tail(&c->epochs, &e->link);
	c->nepochs++;
	c->open = (struct epoch){ 0 };
}

bool epoch_wants_cut(const struct cache *c)
{
	struct list_node *n;
	bool waited = false;

	if (c->open.records == 0 || c->stopping)
		return false;
	list_for_each(n, &c->drains)
		waited |= list_entry(n, struct cache_drain, link)->seq >= c->open.first_seq;
	return writeback_should_cut(&c->wb_conf, c->open.log_slots * BLK, c->open.since_ns,
				    sched_now(c->sched), waited);
}

/* A barrier of ours: nobody waits for it but write-back. */
struct cut_op {
	struct append_op op;
	struct sync_wait sync;
	struct cache *cache;
};

static void cut_synced(struct cache *c, struct sync_wait *w, int result, struct todo *todo)
{
	struct cut_op *cut = container_of(w, struct cut_op, sync);

	if (result == 0)
		destage_kick(c);
	free(cut);
	cache_put(c);
}

static void cut_appended(struct cache *c, struct append_op *op, int result, struct todo *todo)
{
	struct cut_op *cut = container_of(op, struct cut_op, op);

	if (result < 0) {
		c->cut_pending = false;
		epoch_unreserve(c);
		free(cut);
		cache_put(c);
		return;
	}
	epoch_close(c, op->record.seq, op->record.blk, false);
	cut->sync.seq = op->record.seq;
	cut->sync.synced = cut_synced;
	sync_submit(c, &cut->sync, todo);
}

void epoch_cut(struct cache *c, struct todo *todo)
{
	struct cut_op *cut;

	if (c->cut_pending || c->open.records == 0 || c->log_failed || c->stopping)
		return;
	cut = calloc(1, sizeof(*cut));
	if (!cut || epoch_reserve(c) < 0) {
		free(cut);
		return; /* the timer comes again */
	}
	c->cut_pending = true;
	cache_get(c);
	cut->op.record.kind = FORMAT_BARRIER;
	cut->op.record.blk = sched_realtime(c->sched);
	cut->op.record.nblocks = FORMAT_CUT_OTHER;
	cut->op.control = true;
	cut->op.appended = cut_appended;
	append_submit(&c->log, &cut->op, todo);
}

void cut_timer_fired(struct task *t)
{
	struct cache *c = container_of(t, struct cache, cut_timer.task);
	struct todo todo;

	cache_lock(c, &todo);
	if (!c->stopping && c->open.records) {
		if (epoch_wants_cut(c))
			epoch_cut(c, &todo);
		/* Come again: the cut may have failed, or the next epoch opens behind it. */
		sched_arm(c->sched, &c->cut_timer,
			  MAX(writeback_cut_deadline_ns(&c->wb_conf, c->open.log_slots * BLK,
							c->open.since_ns),
			      sched_now(c->sched) + 100 * NSEC_PER_MSEC));
	}
	cache_unlock(c, &todo);
}

void drains_end(struct cache *c, int result, struct todo *todo)
{
	struct list_node *n;

	while ((n = list_pop(&c->drains))) {
		list_entry(n, struct cache_drain, link)->result = result;
		list_add_tail(&todo->drains, n);
	}
}

void epoch_retire(struct cache *c, struct todo *todo)
{
	struct epoch *e = list_first(&c->epochs, struct epoch, link);
	struct list_node *n, *tmp;

	assert(e && e->last_seq <= c->destaged_seq && e->last_seq > 0);
	assert(c->dirty_slots >= e->log_slots);
	list_del(&e->link);
	c->nepochs--;
	c->dirty_slots -= e->log_slots;
	free(e);
	list_for_each_safe(n, tmp, &c->drains) {
		struct cache_drain *d = list_entry(n, struct cache_drain, link);

		if (d->seq <= c->destaged_seq || (list_empty(&c->epochs) && c->open.records == 0)) {
			list_del(&d->link);
			d->result = 0;
			list_add_tail(&todo->drains, &d->link);
		}
	}
	write_unthrottle(c, todo);
	janitor_kick(c);
}
