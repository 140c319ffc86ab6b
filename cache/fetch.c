// SPDX-License-Identifier: Apache-2.0
/*
 * Fetches: ranges under way from the target, at most one per block, each within one group of 256
 * blocks. Readers that come later join.
 *
 * States: SENT ─answer→ ANSWERED (readers are served from the buffer while its
 * blocks are appended to the clean store) ─last reference→ freed.
 *
 * A guest record on a block marks it stale in every fetch that covers it, at the moment
 * the map changes: a stale block is neither joined nor inserted, whatever the map says by then.
 * Those who had joined before the guest's write was acknowledged may still get the old bytes.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cache/internal.h"
#include "cache/trust.h"
#include "core/crc32c.h"

/* Readahead under way at most, over all streams. */
#define READAHEAD_BUDGET_BYTES (32ull << 20)
/* A record of the clean store is this long at most, so that small segments fill up well. */
#define STORE_BLOCKS 64u

static void fetched(struct blk_req *req, void *ctx, int result);

static struct list_node *group_list(struct cache *c, uint64_t blk)
{
	return &c->fetches[(blk / MAP_LEAF_BLOCKS) % ARRAY_SIZE(c->fetches)];
}

struct fetch *fetch_find(struct cache *c, uint64_t blk)
{
	struct list_node *n;

	if (c->nfetches == 0)
		return NULL;
	list_for_each(n, group_list(c, blk)) {
		struct fetch *f = list_entry(n, struct fetch, link);

		if (blk >= f->blk && blk < f->blk + f->nblocks && !fetch_stale(f, blk))
			return f;
	}
	return NULL;
}

bool fetch_in_flight(struct cache *c, uint64_t blk, uint64_t n)
{
	struct list_node *at;

	if (c->nfetches == 0)
		return false;
	if (n > MAP_LEAF_BLOCKS * ARRAY_SIZE(c->fetches)) {
		for (size_t i = 0; i < ARRAY_SIZE(c->fetches); i++)
			list_for_each(at, &c->fetches[i]) {
				struct fetch *f = list_entry(at, struct fetch, link);

				if (f->state == FETCH_SENT &&
				    range_overlap(f->blk, f->nblocks, blk, n))
					return true;
			}
		return false;
	}
	for (uint64_t g = round_down(blk, MAP_LEAF_BLOCKS); g < blk + n; g += MAP_LEAF_BLOCKS)
		list_for_each(at, group_list(c, g)) {
			struct fetch *f = list_entry(at, struct fetch, link);

			if (f->state == FETCH_SENT && range_overlap(f->blk, f->nblocks, blk, n))
				return true;
		}
	return false;
}

static void mark(struct fetch *f, uint64_t blk, uint64_t n)
{
	uint64_t from = MAX(f->blk, blk), to = MIN(f->blk + f->nblocks, blk + n);

	for (uint64_t b = from; b < to; b++) {
		uint32_t i = (uint32_t)(b - f->blk);

		f->stale[i / 64] |= 1ull << (i % 64);
	}
}

void fetch_mark_stale(struct cache *c, uint64_t blk, uint64_t n)
{
	struct list_node *at;

	if (c->nfetches == 0)
		return;
	for (size_t i = 0; i < ARRAY_SIZE(c->fetches); i++) {
		/* A short range concerns two lists at most. */
		if (n <= MAP_LEAF_BLOCKS && &c->fetches[i] != group_list(c, blk) &&
		    &c->fetches[i] != group_list(c, blk + n - 1))
			continue;
		list_for_each(at, &c->fetches[i])
			mark(list_entry(at, struct fetch, link), blk, n);
	}
}

struct fetch *fetch_begin(struct cache *c, uint64_t blk, uint32_t n, const struct blk_req *why,
			  struct todo *todo)
{
	struct fetch *f = malloc(sizeof(*f));
	size_t bytes = (size_t)n * BLK, valid = (size_t)cache_valid_bytes(c, blk, n);

	assert(n > 0 && n <= MAP_LEAF_BLOCKS &&
	       blk / MAP_LEAF_BLOCKS == (blk + n - 1) / MAP_LEAF_BLOCKS);
	if (!f)
		return NULL;
	*f = (struct fetch){ .cache = c, .blk = blk, .nblocks = n, .refs = 1 };
	f->buf = aligned_alloc(BLK, bytes);
	if (!f->buf) {
		free(f);
		return NULL;
	}
	memset(f->buf + valid, 0, bytes - valid);
	f->base_seq = c->appended_seq;
	f->iov = (struct iovec){ f->buf, valid };
	list_init(&f->waits);
	blk_req_init(&f->io.req, BLK_READ, blk * BLK, valid, &f->iov, 1);
	f->io.req.lane = why ? why->lane : BLK_LANE_READAHEAD;
	f->io.req.flags = why ? why->flags & BLK_ADVISORY : BLK_ADVISORY;
	f->io.done = fetched;
	f->io.ctx = f;
	f->readahead = !why;
	list_init(&f->io.link);
	list_add_tail(group_list(c, blk), &f->link);
	c->nfetches++;
	cache_get(c);
	list_add_tail(&todo->inner, &f->io.link);
	return f;
}

void fetch_put(struct cache *c, struct fetch *f)
{
	assert(f->refs > 0);
	if (--f->refs)
		return;
	assert(list_empty(&f->waits));
	list_del(&f->link);
	c->nfetches--;
	free(f->buf);
	free(f);
	cache_put(c);
}

/* ---- into the clean store ---- */

struct store_op {
	struct append_op op;
	struct fetch *fetch;
	struct iovec iov;
};

/* The record is in the segment: the map may point to it, but for blocks that went stale meanwhile.
 */
static void stored(struct cache *c, struct append_op *op, int result, struct todo *todo)
{
	struct store_op *st = container_of(op, struct store_op, op);
	struct fetch *f = st->fetch;
	uint32_t base = op->segment * c->seg_slots + op->record.slot;

	for (uint32_t i = 0, run = 0; result == 0 && i < op->record.nblocks; i++) {
		uint64_t blk = op->record.blk + i;
		uint32_t slot = base + i;

		if (!fetch_stale(f, blk) && map_get(&c->map, blk) == MAP_ENTRY_NONE &&
		    map_reserve(&c->map, blk, 1) == 0) {
			cache_map_set(c, blk, map_entry(slot, f->crc[blk - f->blk]));
			if (f->readahead && c->seg[op->segment].prefetched)
				c->seg[op->segment].prefetched[(slot % c->seg_slots) / 64] |=
					1ull << (slot % 64);
			run++;
		} else if (run) {
			indexq_put(c, blk - run, run, slot - run, &f->crc[blk - run - f->blk]);
			run = 0;
		}
		if (run && i + 1 == op->record.nblocks)
			indexq_put(c, blk + 1 - run, run, slot + 1 - run,
				   &f->crc[blk + 1 - run - f->blk]);
	}
	free(st);
	fetch_put(c, f);
}

static bool is_zero(const struct fetch *f, uint32_t i)
{
	return f->zero[i / 64] >> (i % 64) & 1;
}

/* Blocks i… of the fetch that can be stored together as one record. */
static uint32_t store_run(const struct cache *c, const struct fetch *f, uint32_t i, bool *ret_zero)
{
	uint32_t n = 0;

	*ret_zero = is_zero(f, i);
	while (i + n < f->nblocks && n < STORE_BLOCKS && !fetch_stale(f, f->blk + i + n) &&
	       map_get(&c->map, f->blk + i + n) == MAP_ENTRY_NONE && is_zero(f, i + n) == *ret_zero)
		n++;
	return n;
}

static void store(struct cache *c, struct fetch *f, struct todo *todo)
{
	uint32_t i = 0;

	while (i < f->nblocks) {
		bool zero;
		uint32_t n = store_run(c, f, i, &zero);
		struct store_op *st;

		if (n == 0) {
			i++;
			continue;
		}
		if (zero) {
			if (map_reserve(&c->map, f->blk + i, n) == 0) {
				cache_map_fill(c, f->blk + i, n, MAP_ENTRY_ZERO);
				indexq_zero(c, f->blk + i, n);
			}
			i += n;
			continue;
		}
		st = calloc(1, sizeof(*st));
		if (!st)
			return;
		st->fetch = f;
		st->iov = (struct iovec){ f->buf + (size_t)i * BLK, (size_t)n * BLK };
		st->op.record.kind = FORMAT_FILL;
		st->op.record.blk = f->blk + i;
		st->op.record.nblocks = n;
		st->op.record.seq = f->base_seq;
		st->op.iov = &st->iov;
		st->op.iovcnt = 1;
		st->op.crc = &f->crc[i];
		st->op.appended = stored;
		f->refs++;
		append_submit(&c->store[1], &st->op, todo);
		i += n;
	}
}

/* ---- the answer ---- */

static void examine(struct fetch *f)
{
	static const uint8_t zeroes[BLK];

	for (uint32_t i = 0; i < f->nblocks; i++) {
		const uint8_t *p = f->buf + (size_t)i * BLK;

		f->crc[i] = crc32c(0, p, BLK);
		if (memcmp(p, zeroes, BLK) == 0)
			f->zero[i / 64] |= 1ull << (i % 64);
	}
}

static void start_ranges(struct cache *c, const struct readahead_range *range, unsigned n,
			 struct todo *todo);

static struct readahead_env ra_env(struct cache *c)
{
	return (struct readahead_env){
		.now_ns = sched_now(c->sched),
		.budget_bytes = READAHEAD_BUDGET_BYTES,
		.in_flight_bytes = c->ra_in_flight,
	};
}

void fetch_answered(struct fetch *f, int result)
{
	struct cache *c = f->cache;
	struct list_node waits, *n;
	struct todo todo;
	bool repeat;

	if (result == 0)
		result = trust_admit(c, f);
	if (result == -EINPROGRESS)
		return;
	if (result == 0)
		examine(f);
	list_init(&waits);
	cache_lock(c, &todo);
	/* Dropped as advisory, but somebody waits for it by now: once more, in earnest. */
	repeat = result == -ECANCELED && !list_empty(&f->waits) && !c->stopping;
	if (f->counted) {
		f->counted = false;
		c->ra_in_flight -= (uint64_t)f->nblocks * BLK;
	}
	if (repeat) {
		f->io.req.flags &= ~(unsigned)BLK_ADVISORY;
		f->io.req.lane = BLK_LANE_DEMAND;
		list_add_tail(&todo.inner, &f->io.link);
		cache_unlock(c, &todo);
		return;
	}
	f->state = FETCH_ANSWERED;
	if (result < 0) {
		/* Nobody may join it any more. */
		fetch_mark_stale(c, f->blk, f->nblocks);
		if (f->readahead)
			readahead_dropped(&c->ra, f->blk * BLK, (uint64_t)f->nblocks * BLK);
	}
	list_splice_tail(&waits, &f->waits);
	list_for_each(n, &waits)
		list_del(&list_entry(n, struct fetch_wait, link)->op_link);
	/* A write to the range may have waited for the answer. */
	if (destage_active(c))
		destage_kick(c);
	cache_unlock(c, &todo);

	/* The guest first, the local disk after. */
	while ((n = list_pop(&waits))) {
		struct fetch_wait *w = list_entry(n, struct fetch_wait, link);
		struct read_op *op = w->op;

		if (result == 0)
			read_copy(op, f, w->blk, w->n);
		free(w);
		read_part_done(op, result);
	}

	cache_lock(c, &todo);
	if (result == 0 && !c->stopping) {
		struct readahead_env env = ra_env(c);
		struct readahead_range range[16];
		unsigned more;

		store(c, f, &todo);
		more = c->conf.no_readahead
			       ? 0
			       : readahead_resume(&c->ra, &env, range, ARRAY_SIZE(range));
		start_ranges(c, range, more, &todo);
	}
	fetch_put(c, f);
	cache_unlock(c, &todo);
}

static void fetched(struct blk_req *req, void *ctx, int result)
{
	fetch_answered(ctx, result);
}

/* ---- readahead ---- */

static void start_range(struct cache *c, uint64_t blk, uint64_t end, struct todo *todo)
{
	while (blk < end) {
		enum map_state state;
		uint64_t group_end = (blk / MAP_LEAF_BLOCKS + 1) * MAP_LEAF_BLOCKS;
		uint64_t n = map_run(&c->map, blk, MIN(end, group_end) - blk, &state);
		struct fetch *f;
		uint64_t k = 0;

		if (state != MAP_NONE) {
			blk += n;
			continue;
		}
		while (k < n && !fetch_find(c, blk + k))
			k++;
		if (k == 0) {
			blk++;
			continue;
		}
		f = fetch_begin(c, blk, (uint32_t)k, NULL, todo);
		if (!f)
			return;
		f->counted = true;
		c->ra_in_flight += k * BLK;
		c->readahead_bytes += k * BLK;
		blk += k;
	}
}

static void start_ranges(struct cache *c, const struct readahead_range *range, unsigned n,
			 struct todo *todo)
{
	for (unsigned i = 0; i < n; i++)
		start_range(c, range[i].offset / BLK,
			    MIN(div_round_up(range[i].offset + range[i].length, BLK), c->nblocks),
			    todo);
}

void fetch_readahead(struct cache *c, uint64_t offset, uint64_t length, bool hit, struct todo *todo)
{
	struct readahead_env env = ra_env(c);
	struct readahead_range range[16];
	unsigned n;

	if (c->conf.no_readahead || c->stopping)
		return;
	n = readahead_access(&c->ra, &env, offset, length, hit, range, ARRAY_SIZE(range));
	start_ranges(c, range, n, todo);
}
