// SPDX-License-Identifier: Apache-2.0
/*
 * Emptying a segment, phase by phase:
 *
 *	COPYING   its table is read; live blocks that were hot are appended to the main store, the
 *	          others leave the map
 *	SETTLING  the index forgets what the records covered, but for what clean data replaced
 *	WAITING   all of that is durable in the index, and no reader is left
 *	→ FREE
 *
 * Asserted at the end: no map entry points to it.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cache/janitor.h"
#include "core/crc32c.h"
#include "core/log.h"
#include "policy/evict.h"

#define COPY_WINDOW_BLOCKS 1024u
/* Zeroes are remembered across restarts in runs up to this many blocks. */
#define ZERO_INDEX_BLOCKS (4ull << 20)

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

/* The table is not whole: find the blocks the slow way. The lock is held. */
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

/*
 * Every record of the segment is in the table: one that is not, a range of zeroes perhaps, may be
 * all that keeps an older version in the index from being believed.
 */
static bool table_whole(const struct segment *s, const struct seg_table *t)
{
	uint64_t want = s->first_seq;

	if (s->class == FORMAT_CLEAN)
		return true;
	for (uint32_t i = 0; i < t->nrecords; i++)
		want += t->record[i].seq == want;
	return want > s->last_seq;
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
			janitor_come_again(c);
			return false;
		}
		if (r < 0 || !table_whole(s, &j->table))
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
	/*
	 * An index that cannot be written, on a full disk perhaps, holds up the log alone: extents
	 * in a segment of the clean store name its life, and are not believed after it.
	 */
	j->barrier_done = result == 0 || c->seg[j->victim].class == FORMAT_CLEAN;
	j->barrier_out = false;
	if (j->barrier_done)
		janitor_kick(c);
	else
		janitor_come_again(c);
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
				janitor_come_again(c);
		}
		return false;
	}
	if (s->pins)
		return false;
	assert(s->live == 0 && segment_is_clean(c, s));
	if (j->unlink) {
		janitor_give_back(c, j->victim, todo);
	} else {
		segment_disarm(s);
		s->state = SEG_FREE;
	}
	j->phase = NOTHING;
	return true;
}

bool janitor_empty_step(struct cache *c, struct todo *todo)
{
	switch (c->janitor->phase) {
	case COPYING:
		return step_copying(c, todo);
	case SETTLING:
		return step_settling(c, todo);
	case WAITING:
		return step_waiting(c, todo);
	default:
		return false;
	}
}
