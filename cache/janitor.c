// SPDX-License-Identifier: Apache-2.0
/*
 * The janitor: one task that keeps prepared segments in stock and empties old
 * ones for that. It may wait for the disk; nobody waits for it but writers at a full cache.
 *
 * Emptying a segment, phase by phase:
 *
 *	COPYING   its table is read; live blocks that were hot are appended to the main store, the
 *	          others leave the map
 *	SETTLING  the index forgets what the records covered, but for what clean data replaced
 *	WAITING   all of that is durable in the index, and no reader is left
 *	→ FREE
 *
 * Only clean segments are emptied: of the clean store, or the tail of the guest log once its last
 *record is durable at the target. Asserted at the end: no map entry points to it.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cache/internal.h"
#include "core/crc32c.h"
#include "core/log.h"
#include "policy/evict.h"

#define PROBATION_PERCENT 10
#define COPY_WINDOW_BLOCKS 1024u
#define FILL_BYTES (1u << 20)
#define DISK_FULL_RETRY_NS NSEC_PER_SEC
/* Zeroes are remembered across restarts in runs up to this many blocks. */
#define ZERO_INDEX_BLOCKS (4ull << 20)

enum phase { NOTHING, COPYING, SETTLING, WAITING };

struct janitor {
	struct cache *cache;
	struct task task;
	struct sched_timer retry;
	bool posted, kicked; /* guarded by the cache's lock, like all below */
	bool stuck;          /* nothing could be emptied; until the next kick from outside */
	int error;           /* of the last try to prepare a segment */

	enum phase phase;
	uint32_t victim;
	bool unlink; /* give the space back to the file system */
	struct seg_table table;
	uint32_t record, crc_at; /* cursor into the table */
	unsigned copies;         /* blocks being appended */
	uint32_t keep_left;
	bool barrier_out, barrier_done;

	unsigned drops_wanted, drops_done;
	bool dropping;
	unsigned drop_heads; /* a bit per head still to be sealed for the drop */
};

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

static void come_again(struct cache *c)
{
	sched_arm(c->sched, &c->janitor->retry, sched_now(c->sched) + DISK_FULL_RETRY_NS);
}

/* ---- preparing ---- */

/* Write every block of the file once. 0 or -errno. */
static int fill(struct cache *c, struct lio_file *file)
{
	uint64_t bytes = (uint64_t)c->seg_slots * FORMAT_SLOT_BYTES;
	cleanup_free uint8_t *zero = aligned_alloc(FORMAT_SLOT_BYTES, FILL_BYTES);
	int r = 0;

	if (!zero)
		return -ENOMEM;
	memset(zero, 0, FILL_BYTES);
	for (uint64_t at = 0; at < bytes && r == 0; at += FILL_BYTES)
		r = lio_write_sync(c->lio, file, zero, MIN(FILL_BYTES, bytes - at), at);
	if (r == 0)
		r = lio_fdatasync(c->lio, file);
	return r == 0 ? lio_sync_dir(c->lio) : r;
}

/* No lock held; the segment is PREPARING, so it is ours. */
static int prepare_file(struct cache *c, uint32_t i, enum format_class class, bool *ret_filled)
{
	struct segment *s = &c->seg[i];
	uint64_t bytes = (uint64_t)c->seg_slots * FORMAT_SLOT_BYTES, now;
	char name[32];
	int r;

	segment_name(i, name);
	if (!s->file) {
		r = lio_open(c->lio, name, LIO_CREATE, &s->file);
		if (r < 0)
			return r;
	}
	*ret_filled = s->filled;
	r = lio_size(c->lio, s->file, &now);
	if (r < 0)
		return r;
	if (now != bytes) {
		*ret_filled = false;
		r = lio_truncate(c->lio, s->file, bytes);
		if (r < 0)
			return r;
	}
	if (class == FORMAT_LOG && !*ret_filled) {
		r = fill(c, s->file);
		*ret_filled = r == 0;
	}
	return r;
}

static void give_back(struct cache *c, uint32_t i)
{
	struct segment *s = &c->seg[i];
	char name[32];

	segment_name(i, name);
	lio_close(c->lio, s->file);
	s->file = NULL;
	s->filled = false;
	lio_unlink(c->lio, name);
}

/* The lock is held and dropped meanwhile. */
static void prepare(struct cache *c, uint32_t i, enum format_class class, struct todo *todo)
{
	struct segment *s = &c->seg[i];
	bool was_absent = s->state == SEG_ABSENT, filled = false, full;
	int r;

	s->state = SEG_PREPARING;
	cache_unlock(c, todo);
	r = prepare_file(c, i, class, &filled);
	if (r < 0 && was_absent)
		give_back(c, i);
	cache_lock(c, todo);
	s->filled = filled;
	if (r == 0) {
		c->files += was_absent;
		r = segment_arm(c, s);
	}
	full = r < 0 && !c->disk_full;
	c->janitor->error = r;
	if (r < 0) {
		s->state = s->file ? SEG_FREE : SEG_ABSENT;
		c->disk_full = r == -ENOSPC || r == -EDQUOT;
		c->janitor->stuck = !c->disk_full;
		come_again(c);
	} else {
		c->disk_full = false;
		s->class = class;
		s->state = SEG_READY;
		if (class == FORMAT_LOG) {
			c->prepared_log++;
			append_kick(&c->log, todo);
		} else {
			c->prepared_clean++;
			append_kick(&c->store[0], todo);
			append_kick(&c->store[1], todo);
		}
	}
	cache_unlock(c, todo);
	if (full)
		log_warning(
			"cache: no new segment: %s; clean data is given back, then writers wait",
			strerror(-r));
	cache_lock(c, todo);
}

/* A segment to prepare, or -1. For the log one that is filled already, if there is. */
static int pick_empty(const struct cache *c, enum format_class class, bool beyond)
{
	int best = -1;

	for (uint32_t i = 0; i < c->nsegs; i++) {
		const struct segment *s = &c->seg[i];

		if (s->state == SEG_FREE && s->filled == (class == FORMAT_LOG))
			return (int)i;
		if (s->state == SEG_FREE ||
		    (s->state == SEG_ABSENT && best < 0 && (beyond || c->files < c->limit_segs)))
			best = (int)i;
	}
	return best;
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

/* Pick a victim and begin with it. False: there is none. The lock is held. */
static bool choose_victim(struct cache *c)
{
	struct janitor *j = c->janitor;
	cleanup_free struct evict_candidate *cand = malloc(c->nsegs * sizeof(*cand));
	int tail = log_tail(c), pick;
	unsigned n = 0;

	if (!cand) {
		come_again(c);
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
	j->unlink = c->disk_full || c->files > c->limit_segs || j->dropping;
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

/* ---- copying ---- */

struct copy {
	struct append_op op;
	struct iovec iov;
	uint32_t from; /* slot over all segments */
	uint8_t *buf;
	uint32_t crc[MAP_LEAF_BLOCKS];
};

static void copied(struct cache *c, struct append_op *op, int result, struct todo *todo)
{
	struct copy *copy = container_of(op, struct copy, op);
	uint32_t to = op->segment * c->seg_slots + op->record.slot;

	for (uint32_t i = 0; i < op->record.nblocks; i++) {
		uint64_t blk = op->record.blk + i;

		/* The old slot is not reused while we are here, so equal means unchanged. */
		if (map_get(&c->map, blk) != map_entry(copy->from + i, copy->crc[i]))
			continue;
		if (result < 0) {
			cache_map_set(c, blk, MAP_ENTRY_NONE);
			continue;
		}
		cache_map_set(c, blk, map_entry(to + i, copy->crc[i]));
		indexq_put(c, blk, 1, to + i, &copy->crc[i]);
	}
	c->janitor->copies -= op->record.nblocks;
	free(copy->buf);
	free(copy);
	janitor_kick(c);
	cache_put(c);
}

static bool bit(const uint64_t *map, uint32_t i)
{
	return map[i / 64] >> (i % 64) & 1;
}

/* Copy [k, k + n) of the record's blocks on. The lock is held and dropped while reading. */
static void copy_run(struct cache *c, const struct format_record *r, uint32_t k, uint32_t n,
		     const uint32_t *crc, struct todo *todo)
{
	struct janitor *j = c->janitor;
	struct segment *s = &c->seg[j->victim];
	struct copy *copy = calloc(1, sizeof(*copy));
	int bad = 0;

	if (copy)
		copy->buf = aligned_alloc(BLK, (size_t)n * BLK);
	if (!copy || !copy->buf) {
		free(copy);
		cache_map_fill(c, r->blk + k, n, MAP_ENTRY_NONE);
		return;
	}
	cache_unlock(c, todo);
	bad = lio_read_sync(c->lio, s->file, copy->buf, (size_t)n * BLK,
			    (uint64_t)(r->slot + k) * FORMAT_SLOT_BYTES);
	for (uint32_t i = 0; i < n && !bad; i++)
		bad = crc32c(0, copy->buf + (size_t)i * BLK, BLK) != crc[k + i];
	cache_lock(c, todo);
	if (bad) {
		/* Not what it should be: the target has it. */
		for (uint32_t i = 0; i < n; i++)
			if (map_get(&c->map, r->blk + k + i) ==
			    map_entry(j->victim * c->seg_slots + r->slot + k + i, crc[k + i]))
				cache_map_set(c, r->blk + k + i, MAP_ENTRY_NONE);
		free(copy->buf);
		free(copy);
		return;
	}
	copy->from = j->victim * c->seg_slots + r->slot + k;
	memcpy(copy->crc, crc + k, n * sizeof(*crc));
	copy->iov = (struct iovec){ copy->buf, (size_t)n * BLK };
	copy->op.record.kind = FORMAT_FILL;
	copy->op.record.blk = r->blk + k;
	copy->op.record.nblocks = n;
	copy->op.record.seq = r->seq;
	copy->op.iov = &copy->iov;
	copy->op.iovcnt = 1;
	copy->op.crc = copy->crc;
	copy->op.appended = copied;
	j->copies += n;
	j->keep_left -= MIN(j->keep_left, n);
	cache_get(c);
	append_submit(&c->store[0], &copy->op, todo);
}

/* Drop or copy the live blocks of one record. The lock is held. */
static void empty_record(struct cache *c, const struct format_record *r, const uint32_t *crc,
			 struct todo *todo)
{
	struct janitor *j = c->janitor;
	struct segment *s = &c->seg[j->victim];
	uint32_t base = j->victim * c->seg_slots + r->slot;
	uint32_t n = format_payload(r), k = 0;

	if (!range_inside(r->blk, n, c->nblocks))
		return;
	while (k < n) {
		uint32_t run = 0;

		/* Live, hot, in a row. */
		while (k + run < n && run < MIN(MAP_LEAF_BLOCKS, j->keep_left) &&
		       map_get(&c->map, r->blk + k + run) ==
			       map_entry(base + k + run, crc[k + run]) &&
		       evict_keep_block(bit(s->hot, r->slot + k + run), s->probation,
					bit(s->prefetched, r->slot + k + run)))
			run++;
		if (run) {
			copy_run(c, r, k, run, crc, todo);
			k += run;
			continue;
		}
		if (map_get(&c->map, r->blk + k) == map_entry(base + k, crc[k])) {
			if (bit(s->prefetched, r->slot + k)) {
				c->readahead_wasted_bytes += BLK;
				readahead_wasted(&c->ra, (r->blk + k) * BLK, BLK);
			}
			cache_map_set(c, r->blk + k, MAP_ENTRY_NONE);
		}
		k++;
	}
}

/* The table cannot be read: find the blocks the slow way. The lock is held. */
static void empty_blindly(struct cache *c)
{
	uint32_t victim = c->janitor->victim;

	for (uint64_t blk = 0; blk < c->nblocks && c->seg[victim].live;) {
		enum map_state state;
		uint64_t n = map_run(&c->map, blk, c->nblocks - blk, &state);

		for (uint64_t i = 0; state == MAP_DATA && i < n; i++)
			if (slot_segment(c, map_entry_slot(map_get(&c->map, blk + i))) == victim)
				cache_map_set(c, blk + i, MAP_ENTRY_NONE);
		blk += n;
	}
	indexq_wipe(c);
}

static bool step_copying(struct cache *c, struct todo *todo)
{
	struct janitor *j = c->janitor;
	struct segment *s = &c->seg[j->victim];

	if (!j->table.record && j->record == 0) {
		int r;

		cache_unlock(c, todo);
		r = table_load(c, j->victim, s->file, s->incarnation, &j->table, NULL);
		cache_lock(c, todo);
		if (r == -ENOMEM) {
			come_again(c);
			return false;
		}
		if (r < 0)
			empty_blindly(c);
	}
	while (j->record < j->table.nrecords) {
		const struct format_record *r = &j->table.record[j->record];

		if (j->copies >= COPY_WINDOW_BLOCKS)
			return false;
		empty_record(c, r, j->table.crc + j->crc_at, todo);
		j->crc_at += format_payload(r);
		j->record++;
		/* Let others in between two records. */
		cache_unlock(c, todo);
		cache_lock(c, todo);
	}
	if (j->copies)
		return false;
	/* A scan may have missed records behind a damaged header. */
	if (s->live)
		empty_blindly(c);
	j->phase = SETTLING;
	j->record = 0;
	return true;
}

/* ---- the index ---- */

static bool in_clean_store(const struct cache *c, uint64_t blk)
{
	uint32_t segment = slot_segment(c, map_entry_slot(map_get(&c->map, blk)));

	return c->seg[segment].class == FORMAT_CLEAN;
}

/*
 * Make the index right for a range whose record goes away: it may hold an older version that only
 * that record kept from being believed.
 */
static void settle(struct cache *c, uint64_t blk, uint64_t n)
{
	uint64_t end = blk + n;

	while (blk < end) {
		enum map_state state;
		uint64_t run = map_run(&c->map, blk, end - blk, &state);

		if (state == MAP_DATA) {
			bool clean = in_clean_store(c, blk);
			uint64_t k = 1;

			while (k < run && in_clean_store(c, blk + k) == clean)
				k++;
			run = k;
			if (!clean)
				indexq_delete(c, blk, run);
		} else if (state == MAP_ZERO && run <= ZERO_INDEX_BLOCKS && c->dirty_slots == 0) {
			/* Not while a power cut could still take back the guest's zeroes. */
			indexq_zero(c, blk, run);
		} else {
			indexq_delete(c, blk, run);
		}
		blk += run;
	}
}

static void barrier_applied(struct cache *c, void *ctx, int result)
{
	struct janitor *j = c->janitor;
	struct todo todo;

	cache_lock(c, &todo);
	j->barrier_done = result == 0;
	j->barrier_out = false;
	if (result == 0)
		janitor_kick(c);
	else
		come_again(c);
	cache_put(c);
	cache_unlock(c, &todo);
}

static bool step_settling(struct cache *c, struct todo *todo)
{
	struct janitor *j = c->janitor;

	for (; j->record < j->table.nrecords; j->record++) {
		const struct format_record *r = &j->table.record[j->record];

		if ((format_is_data(r) || r->kind == FORMAT_FILL) && r->blk < c->nblocks)
			settle(c, r->blk, MIN((uint64_t)r->nblocks, c->nblocks - r->blk));
		cache_unlock(c, todo);
		cache_lock(c, todo);
	}
	seg_table_fini(&j->table);
	j->phase = WAITING;
	return true;
}

static bool step_waiting(struct cache *c, struct todo *todo)
{
	struct janitor *j = c->janitor;
	struct segment *s = &c->seg[j->victim];

	if (!j->barrier_done) {
		if (!j->barrier_out) {
			j->barrier_out = indexq_barrier(c, s->class == FORMAT_LOG ? s->last_seq : 0,
							barrier_applied, NULL);
			if (j->barrier_out)
				cache_get(c);
			else
				come_again(c);
		}
		return false;
	}
	if (s->pins)
		return false;
	assert(s->live == 0 && segment_is_clean(c, s));
	segment_disarm(s);
	if (j->unlink) {
		s->state = SEG_PREPARING; /* ours: nobody looks at its file */
		cache_unlock(c, todo);
		give_back(c, j->victim);
		cache_lock(c, todo);
		c->files--;
		s->state = SEG_ABSENT;
		c->disk_full = false;
	} else {
		s->state = SEG_FREE;
	}
	j->phase = NOTHING;
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

/* One step. False: nothing more to do now. The lock is held. */
static bool step(struct cache *c, struct todo *todo)
{
	struct janitor *j = c->janitor;
	enum format_class want;
	int i;

	switch (j->phase) {
	case COPYING:
		return step_copying(c, todo);
	case SETTLING:
		return step_settling(c, todo);
	case WAITING:
		return step_waiting(c, todo);
	case NOTHING:
		break;
	}
	if (c->prepared_log < 2)
		want = FORMAT_LOG;
	else if (c->prepared_clean < 2)
		want = FORMAT_CLEAN;
	else
		want = 0;
	if (want && !c->disk_full) {
		i = pick_empty(c, want, false);
		if (i >= 0) {
			prepare(c, (uint32_t)i, want, todo);
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
	/*
	 * All of the cache is unsent data (each start takes a segment): barriers and watermarks
	 * must find room all the same, or it could never be sent.
	 */
	if (want == FORMAT_LOG && c->prepared_log == 0 && !c->disk_full) {
		i = pick_empty(c, want, true);
		if (i >= 0) {
			prepare(c, (uint32_t)i, want, todo);
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
	if (c->opening && j->error < 0 && j->phase == NOTHING && c->prepared_log == 0 &&
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
	j->cache->disk_full = false;
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
