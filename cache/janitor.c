// SPDX-License-Identifier: Apache-2.0
/*
 * The janitor: one task that keeps prepared segments in stock (prepare.c) and empties old ones for
 * that (empty.c). It may wait for the disk; nobody waits for it but writers at a full cache.
 *
 * Only clean segments are emptied: of the clean store, or the tail of the guest log once its last
 * record is durable at the target.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cache/janitor.h"
#include "core/cleanup.h"
#include "policy/evict.h"

#define PROBATION_PERCENT 10
#define DISK_FULL_RETRY_NS NSEC_PER_SEC

void janitor_kick(struct cache *c)
{
	struct janitor *j = c->janitor;

	j->kicked = true;
	if (j->posted || c->stopping || c->abandoned || !c->started)
		return;
	j->posted = true;
	cache_get(c);
	sched_post(c->sched, &j->task);
}

bool janitor_copying(const struct cache *c)
{
	return c->janitor->phase == COPYING;
}

void janitor_drop(struct cache *c)
{
	c->janitor->drops_wanted++;
	janitor_kick(c);
}

bool janitor_dropped(const struct cache *c)
{
	return c->janitor->drops_done == c->janitor->drops_wanted;
}

void janitor_come_again(struct cache *c)
{
	sched_arm(c->sched, &c->janitor->retry, sched_now(c->sched) + DISK_FULL_RETRY_NS);
}

void janitor_room(struct cache *c, struct todo *todo)
{
	c->disk_full = false;
	append_kick(&c->log, todo);
}

void janitor_disk_full(struct cache *c)
{
	c->disk_full = true;
	janitor_come_again(c);
	janitor_kick(c);
}

/* ---- choosing ---- */

static uint32_t hot_blocks(const struct cache *c, const struct segment *s)
{
	uint32_t n = 0;

	for (uint32_t w = 0; w < div_round_up(c->seg_slots, 64); w++)
		n += (uint32_t)__builtin_popcountll(s->hot[w]);
	return MIN(n, s->live);
}

/* The oldest log segment, if all of it is at the target. */
static int log_tail(const struct cache *c)
{
	int tail = -1;

	for (uint32_t i = 0; i < c->nsegs; i++) {
		const struct segment *s = &c->seg[i];

		if (s->class == FORMAT_LOG && segment_in_use(s) &&
		    (tail < 0 || s->order < c->seg[tail].order))
			tail = (int)i;
	}
	if (tail < 0 || c->seg[tail].state != SEG_SEALED || c->seg[tail].unsynced ||
	    !segment_is_clean(c, &c->seg[tail]))
		return -1;
	return tail;
}

/* On a full disk the log's own segments are no help but to the log. */
static bool log_tail_wanted(const struct cache *c)
{
	return !c->disk_full || c->prepared_log < 2 || c->log.no_room || c->janitor->dropping;
}

/* Pick a victim and begin with it. False: there is none. The lock is held. */
static bool choose_victim(struct cache *c)
{
	struct janitor *j = c->janitor;
	cleanup_free struct evict_candidate *cand = malloc(c->nsegs * sizeof(*cand));
	int tail = log_tail_wanted(c) ? log_tail(c) : -1, pick;
	unsigned n = 0;

	if (!cand) {
		janitor_come_again(c);
		return false;
	}
	for (uint32_t i = 0; i < c->nsegs; i++) {
		const struct segment *s = &c->seg[i];

		if (s->state != SEG_SEALED || (s->class == FORMAT_LOG && (int)i != tail))
			continue;
		cand[n++] = (struct evict_candidate){
			.segment = i,
			.sealed_seq = s->order,
			.live_blocks = s->live,
			.hot_blocks = hot_blocks(c, s),
			.total_blocks = c->seg_slots,
			.probation = s->probation && s->class == FORMAT_CLEAN,
			.log_tail = s->class == FORMAT_LOG,
			.requeued = s->requeued,
		};
	}
	pick = evict_choose(cand, n, PROBATION_PERCENT);
	if (pick < 0)
		return false;
	for (unsigned i = 0; i < n; i++) {
		struct segment *s = &c->seg[cand[i].segment];

		if (!evict_requeued(&cand[i], &cand[pick]))
			continue;
		s->requeued = true;
		memset(s->hot, 0, div_round_up(c->seg_slots, 64) * sizeof(*s->hot));
	}
	j->victim = cand[pick].segment;
	j->phase = COPYING;
	/*
	 * On a full disk room is given back, to whoever needs it. Not what the log has: that takes
	 * no room to use again, and others may be faster to take what is free.
	 */
	j->unlink = c->files > c->limit_segs || j->dropping ||
		    (c->disk_full && (!cand[pick].log_tail || c->log.no_room));
	j->record = j->crc_at = 0;
	j->barrier_out = j->barrier_done = false;
	/* Copies must find room, or the janitor would wait for itself. */
	j->keep_left = 0;
	if (!j->unlink && !j->dropping) {
		if (c->store[0].head >= 0)
			j->keep_left += (c->seg_slots - c->store[0].next_slot) / 2;
		if (c->prepared_clean)
			j->keep_left += c->seg_slots / 2;
	}
	c->seg[j->victim].state = SEG_EVICTING;
	return true;
}

/* ---- the task ---- */

/* Each head once: what arrives later is not what was to be dropped. */
static void seal_heads_for_drop(struct cache *c, struct todo *todo)
{
	struct appender *a[] = { &c->store[0], &c->store[1], &c->log };
	struct janitor *j = c->janitor;

	for (unsigned i = 0; i < ARRAY_SIZE(a); i++) {
		bool log = a[i] == &c->log;

		if (!(j->drop_heads & 1u << i) || a[i]->busy)
			continue;
		j->drop_heads &= ~(1u << i);
		if (a[i]->head >= 0 && c->seg[a[i]->head].end_slot > 1 &&
		    (!log ||
		     (c->prepared_log >= 2 && c->seg[a[i]->head].last_data_seq <= c->destaged_seq)))
			append_seal(a[i], todo);
	}
}

static bool any_sealing(const struct cache *c)
{
	for (uint32_t i = 0; i < c->nsegs; i++)
		if (c->seg[i].state == SEG_SEALING)
			return true;
	return false;
}

/*
 * The disk is full and the log short of segments: what the clean store holds beyond its sealed
 * segments goes, too. False: there is nothing more of it. The lock is held, and dropped meanwhile.
 */
static bool give_up_store(struct cache *c, struct todo *todo)
{
	for (unsigned i = 0; i < ARRAY_SIZE(c->store); i++) {
		if (c->store[i].head < 0 || c->store[i].busy)
			continue;
		append_seal(&c->store[i], todo);
		return true;
	}
	for (uint32_t i = 0; i < c->nsegs; i++) {
		struct segment *s = &c->seg[i];

		if (s->state != SEG_FREE && (s->state != SEG_READY || s->class != FORMAT_CLEAN))
			continue;
		c->prepared_clean -= s->state == SEG_READY;
		janitor_give_back(c, i, todo);
		return true;
	}
	return false;
}

/* One step. False: nothing more to do now. The lock is held. */
static bool step(struct cache *c, struct todo *todo)
{
	struct janitor *j = c->janitor;
	enum format_class want;
	int i;

	if (j->phase != NOTHING)
		return janitor_empty_step(c, todo);
	if (c->prepared_log < 2)
		want = FORMAT_LOG;
	else if (c->prepared_clean < 2)
		want = FORMAT_CLEAN;
	else
		want = 0;
	if (want) {
		i = janitor_pick_empty(c, want, false);
		if (i >= 0) {
			janitor_prepare(c, (uint32_t)i, want, todo);
			return !j->stuck;
		}
	}
	if (j->drops_done != j->drops_wanted) {
		if (!j->dropping) {
			j->dropping = true;
			j->drop_heads = 7;
		}
		seal_heads_for_drop(c, todo);
		if (choose_victim(c))
			return true;
		/* What is being sealed comes next; its end wakes us. */
		if (j->drop_heads || any_sealing(c))
			return false;
		j->dropping = false;
		j->drops_done = j->drops_wanted;
		pthread_cond_broadcast(&c->changed);
		return true;
	}
	if ((want || c->disk_full || c->files > c->limit_segs) && choose_victim(c))
		return true;
	if (want == FORMAT_LOG && c->disk_full && !any_sealing(c) && give_up_store(c, todo))
		return true;
	/*
	 * All of the cache is unsent data (each start takes a segment): barriers and watermarks
	 * must find room all the same, or it could never be sent.
	 */
	if (want == FORMAT_LOG && c->prepared_log == 0 && !c->disk_full) {
		i = janitor_pick_empty(c, want, true);
		if (i >= 0) {
			janitor_prepare(c, (uint32_t)i, want, todo);
			return !j->stuck;
		}
	}
	return false;
}

static void janitor_run(struct task *t)
{
	struct janitor *j = container_of(t, struct janitor, task);
	struct cache *c = j->cache;
	struct todo todo;

	cache_lock(c, &todo);
	do {
		j->kicked = false;
		j->stuck = false;
		while (!c->stopping && step(c, &todo)) {
			cache_unlock(c, &todo);
			cache_lock(c, &todo);
		}
	} while (j->kicked && !c->stopping);
	/* A start must not wait for the disk to get well: it fails and says why. */
	if (c->opening && j->phase == NOTHING && c->log.no_room)
		append_fail(&c->log, -ENOSPC, &todo);
	else if (c->opening && j->error < 0 && j->phase == NOTHING && c->prepared_log == 0 &&
		 c->log.head < 0)
		append_fail(&c->log, j->error, &todo);
	j->posted = false;
	cache_put(c);
	cache_unlock(c, &todo);
}

static void retry_fired(struct task *t)
{
	struct janitor *j = container_of(t, struct janitor, retry.task);
	struct todo todo;

	cache_lock(j->cache, &todo);
	janitor_room(j->cache, &todo);
	janitor_kick(j->cache);
	cache_unlock(j->cache, &todo);
}

int janitor_init(struct cache *c)
{
	struct janitor *j = calloc(1, sizeof(*j));

	if (!j)
		return -ENOMEM;
	j->cache = c;
	task_init(&j->task, janitor_run);
	sched_timer_init(&j->retry, retry_fired);
	c->janitor = j;
	return 0;
}

void janitor_halt(struct cache *c)
{
	sched_disarm(c->sched, &c->janitor->retry);
	sched_quiesce(c->sched, &c->janitor->retry.task);
}

void janitor_fini(struct cache *c)
{
	if (!c->janitor)
		return;
	seg_table_fini(&c->janitor->table);
	free(steal_ptr(c->janitor));
}
