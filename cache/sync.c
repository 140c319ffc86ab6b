// SPDX-License-Identifier: Apache-2.0
/*
 * Making the guest log durable: one fdatasync of what was appended serves all who wait, and who
 * comes meanwhile shares the next one.
 *
 * fdatasync that fails poisons the segment: the kernel may have dropped the
 * pages, so it is never tried again. The log has failed then.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cache/internal.h"
#include "core/log.h"

/* How long durable_seq may stay untold on disk while dirty data waits. */
#define MARK_DELAY_NS (50 * NSEC_PER_MSEC)

struct sync_op {
	struct lio_op lop;
	struct cache *cache;
	uint32_t segment;
};

static void sync_start(struct cache *c, struct todo *todo);

/*
 * Recovery tells a torn tail from damage by the durable_seq that batch headers carry. While writes
 * go on, the next header carries it; when they pause, a watermark record is appended to say it.
 * Once: it needs not be told itself, or every flush of a guest that writes nothing would make one.
 */
static bool mark_wanted(const struct cache *c)
{
	return c->dirty_slots && c->marked_seq < MIN(c->durable_seq, c->content_seq) &&
	       !c->stopping && !c->log_failed;
}

/*
 * Somebody removed the files of the log while we have them open. Nothing in them will be found
 * again: nobody is promised anything any more, but what they hold still goes to the target.
 */
static void files_gone(struct cache *c, struct todo *todo)
{
	c->gone = true;
	write_fail_waiting(c, -EIO, todo);
}

static void sync_finish(struct cache *c, struct todo *todo)
{
	struct list_node *n, *tmp;

	if (!c->gone && atomic_load(&c->lio->gone))
		files_gone(c, todo);
	if (c->sync_result < 0)
		log_fail(c, todo);
	else if (c->sync_target > c->durable_seq)
		c->durable_seq = c->sync_target;
	list_for_each_safe(n, tmp, &c->sync_waits) {
		struct sync_wait *w = list_entry(n, struct sync_wait, link);

		if (c->log_failed || w->seq <= c->durable_seq) {
			list_del(&w->link);
			w->synced(c, w,
				  w->seq > c->durable_seq || (w->promise && c->gone) ? -EIO : 0,
				  todo);
		}
	}
	if (mark_wanted(c))
		sched_arm(c->sched, &c->mark_timer, sched_now(c->sched) + MARK_DELAY_NS);
	destage_kick(c);
	if (!list_empty(&c->sync_waits))
		sync_start(c, todo);
}

static void segment_synced(struct lio_op *lop, int result)
{
	struct sync_op *op = container_of(lop, struct sync_op, lop);
	struct cache *c = op->cache;
	uint32_t segment = op->segment;
	struct todo todo;
	bool gone;

	free(op);
	if (result < 0)
		lio_set_word(c->lio, WORD_UNSAFE, 1);
	cache_lock(c, &todo);
	if (result < 0) {
		c->seg[segment].poisoned = true;
		c->sync_result = result;
		c->log_unsafe = true;
	}
	assert(c->sync_ops > 0);
	segment_unpin(c, segment);
	gone = c->gone;
	if (--c->sync_ops == 0)
		sync_finish(c, &todo);
	gone = c->gone && !gone;
	cache_put(c);
	cache_unlock(c, &todo);
	if (gone)
		log_error(
			"the files of the cache were removed while it is in use: no more writes "
			"are taken; what is not yet at the target is still sent, and lost if this "
			"ends before");
	if (result < 0)
		log_error("cannot make the guest log durable: %s; no more writes are taken, "
			  "what was acknowledged stays here",
			  strerror(-result));
}

/* fdatasync every segment that has something to sync. The batch in flight is not waited for. */
static void sync_start(struct cache *c, struct todo *todo)
{
	assert(c->sync_ops == 0);
	c->sync_result = c->log_failed ? -EIO : 0;
	c->sync_target = c->appended_seq;
	for (uint32_t i = 0; i < c->nsegs && !c->sync_result; i++) {
		struct segment *s = &c->seg[i];
		struct sync_op *op;

		if (!segment_in_use(s) || s->class != FORMAT_LOG || !s->unsynced)
			continue;
		op = calloc(1, sizeof(*op));
		if (!op) {
			c->sync_result = -ENOMEM;
			break;
		}
		s->unsynced = false;
		op->cache = c;
		op->segment = i;
		op->lop.kind = LIO_SYNC;
		op->lop.file = s->file;
		op->lop.done = segment_synced;
		c->sync_ops++;
		segment_pin(c, i);
		cache_get(c);
		list_init(&op->lop.link);
		list_add_tail(&todo->local, &op->lop.link);
	}
	if (c->sync_ops == 0)
		sync_finish(c, todo);
}

void sync_submit(struct cache *c, struct sync_wait *w, struct todo *todo)
{
	if (w->seq <= c->durable_seq) {
		w->synced(c, w, 0, todo);
		return;
	}
	assert(w->seq <= c->appended_seq);
	list_init(&w->link);
	list_add_tail(&c->sync_waits, &w->link);
	if (c->sync_ops == 0)
		sync_start(c, todo);
}

struct mark_op {
	struct append_op op;
};

static void mark_appended(struct cache *c, struct append_op *op, int result, struct todo *todo)
{
	free(container_of(op, struct mark_op, op));
	cache_put(c);
}

void mark_timer_fired(struct task *t)
{
	struct cache *c = container_of(t, struct cache, mark_timer.task);
	struct mark_op *mark = NULL;
	struct todo todo;

	cache_lock(c, &todo);
	if (mark_wanted(c)) {
		if (!c->log.busy)
			mark = calloc(1, sizeof(*mark));
		/* A batch under way may have been made before, and be the last for long. */
		if (!mark)
			sched_arm(c->sched, &c->mark_timer, sched_now(c->sched) + MARK_DELAY_NS);
	}
	if (mark) {
		mark->op.record.kind = FORMAT_WATERMARK;
		mark->op.record.blk = c->destaged_seq;
		mark->op.control = true;
		mark->op.appended = mark_appended;
		cache_get(c);
		append_submit(&c->log, &mark->op, &todo);
	}
	cache_unlock(c, &todo);
}
