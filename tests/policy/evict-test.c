// SPDX-License-Identifier: Apache-2.0
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/cleanup.h"
#include "policy/evict.h"
#include "tests/policy/random.h"
#include "tests/lib/run.h"

#define LIVE(seq, hot) .sealed_seq = seq, .live_blocks = 100, .hot_blocks = hot, .total_blocks = 128
#define PROBATION .probation = true

static const struct {
	const char *name;
	struct evict_candidate cand[4];
	unsigned n;
	int chosen;
	unsigned requeued; /* bits */
} rows[] = {
	{ "none", { { 0 } }, 0, -ENOENT, 0 },
	{ "all pinned", { { LIVE(1, 0), .pinned = true } }, 1, -ENOENT, 0 },
	{ "emptied first",
	  { { LIVE(1, 0) }, { .sealed_seq = 9 }, { LIVE(2, 0), PROBATION } },
	  3,
	  1,
	  0 },
	{ "emptied but pinned", { { LIVE(5, 0) }, { .sealed_seq = 1, .pinned = true } }, 2, 0, 0 },
	{ "probation over its share",
	  { { LIVE(1, 0) }, { LIVE(8, 99), PROBATION }, { LIVE(7, 0), PROBATION } },
	  3,
	  2,
	  0 },
	{ "main by age", { { LIVE(3, 0) }, { LIVE(2, 0) }, { LIVE(4, 0) } }, 3, 1, 0 },
	{ "second chance",
	  { { LIVE(1, 90) }, { LIVE(2, 90) }, { LIVE(3, 10) }, { LIVE(4, 90) } },
	  4,
	  2,
	  3 },
	{ "only one", { { LIVE(1, 90), .requeued = true }, { LIVE(2, 10) } }, 2, 0, 0 },
	{ "all hot", { { LIVE(2, 90) }, { LIVE(1, 90) } }, 2, 1, 0 },
	{ "log tail by age", { { LIVE(3, 0) }, { LIVE(2, 99), .log_tail = true } }, 2, 1, 0 },
	{ "log tail younger", { { LIVE(2, 0) }, { LIVE(3, 0), .log_tail = true } }, 2, 0, 0 },
	{ "log tail behind a hot one",
	  { { LIVE(2, 90) }, { LIVE(3, 0), .log_tail = true } },
	  2,
	  1,
	  1 },
	{ "probation is all there is",
	  { { LIVE(2, 0), PROBATION }, { LIVE(1, 0), .pinned = true } },
	  2,
	  0,
	  0 },
};

START_TEST(test_choose)
{
	int chosen = evict_choose(rows[_i].cand, rows[_i].n, 10);

	ck_assert_msg(chosen == rows[_i].chosen, "%s: %d", rows[_i].name, chosen);
	for (unsigned i = 0; chosen >= 0 && i < rows[_i].n; i++)
		ck_assert_msg(evict_requeued(&rows[_i].cand[i], &rows[_i].cand[chosen]) ==
				      (rows[_i].requeued >> i & 1),
			      "%s: requeued %u", rows[_i].name, i);
}
END_TEST

/* Below its share, probation waits for main. */
START_TEST(test_share)
{
	struct evict_candidate cand[20];

	for (unsigned i = 0; i < 20; i++)
		cand[i] = (struct evict_candidate){ LIVE(20 - i, 0) };
	cand[0].probation = true;
	cand[1].probation = true;
	ck_assert_int_eq(evict_choose(cand, 20, 10), 19);
	cand[2].probation = true;
	ck_assert_int_eq(evict_choose(cand, 20, 10), 2);
	ck_assert_int_eq(evict_choose(cand, 20, 100), 19);
}
END_TEST

START_TEST(test_never_pinned)
{
	struct random rnd = random_begin("never pinned");

	for (unsigned round = 0; round < 5000; round++) {
		struct evict_candidate cand[12];
		unsigned n = (unsigned)random_below(&rnd, 13), free_ones = 0, live = 0;
		int chosen;

		for (unsigned i = 0; i < n; i++) {
			uint32_t blocks = (uint32_t)random_below(&rnd, 5);

			cand[i] = (struct evict_candidate){
				.sealed_seq = random_below(&rnd, 100),
				.live_blocks = blocks,
				.hot_blocks = (uint32_t)random_below(&rnd, blocks + 1),
				.total_blocks = 4,
				.pinned = random_below(&rnd, 3) == 0,
				.probation = random_below(&rnd, 3) == 0,
				.requeued = random_below(&rnd, 2),
			};
			free_ones += !cand[i].pinned;
			live += !cand[i].pinned && blocks;
		}
		chosen = evict_choose(cand, n, (uint32_t)random_below(&rnd, 101));
		ck_assert_int_eq(chosen >= 0, free_ones > 0);
		if (chosen < 0)
			continue;
		ck_assert(!cand[chosen].pinned);
		ck_assert(live == free_ones || cand[chosen].live_blocks == 0);
	}
}
END_TEST

START_TEST(test_keep_block)
{
	ck_assert(evict_keep_block(true, true, false));
	ck_assert(evict_keep_block(true, false, false));
	ck_assert(evict_keep_block(true, false, true));
	ck_assert(!evict_keep_block(true, true, true));
	ck_assert(!evict_keep_block(false, true, false));
	ck_assert(!evict_keep_block(false, false, false));
	ck_assert(!evict_keep_block(false, true, true));
}
END_TEST

START_TEST(test_ghost)
{
	struct random rnd = random_begin("ghost");
	static uint32_t memory[4096];
	struct evict_ghost ghost;
	unsigned known = 0, wrong = 0;

	evict_ghost_init(&ghost, memory, sizeof(memory));
	ck_assert(!evict_ghost_hit(&ghost, 0));
	evict_ghost_add(&ghost, 0);
	evict_ghost_add(&ghost, 0);
	ck_assert(evict_ghost_hit(&ghost, 0));
	ck_assert_msg(!evict_ghost_hit(&ghost, 0), "a ghost appears twice");
	/* Neighbours, as groups are; then ones nobody added. */
	for (uint64_t g = 0; g < 20000; g++)
		evict_ghost_add(&ghost, g);
	for (unsigned i = 0; i < 20000; i++)
		wrong += evict_ghost_hit(&ghost, 1000000 + random_below(&rnd, 1ull << 40));
	for (uint64_t g = 0; g < 18000; g++)
		wrong += g < 10000 && evict_ghost_hit(&ghost, g);
	for (uint64_t g = 18000; g < 20000; g++)
		known += evict_ghost_hit(&ghost, g);
	ck_assert_uint_le(wrong, 40);
	/* Half of its size ago nearly all are remembered. */
	ck_assert_uint_ge(known, 1800);
	evict_ghost_init(&ghost, memory, EVICT_GHOST_MIN_BYTES);
	for (uint64_t g = 0; g < 5; g++)
		evict_ghost_add(&ghost, g);
	ck_assert(!evict_ghost_hit(&ghost, 0));
	ck_assert(evict_ghost_hit(&ghost, 4));
	for (uint64_t g = 1; g < 4; g++)
		ck_assert(evict_ghost_hit(&ghost, g));
	for (uint64_t g = 0; g < 5; g++)
		ck_assert_msg(!evict_ghost_hit(&ghost, g), "a ghost appears twice");
}
END_TEST

/* ---- A small cache run by these decisions ---- */

#define SEGMENTS 64
#define SEGMENT_BLOCKS 32
#define VOLUME_BLOCKS 65536

struct block {
	int segment; /* -1: not cached */
	bool hot;
};

struct cache {
	struct block block[VOLUME_BLOCKS];
	struct evict_candidate seg[SEGMENTS];
	uint32_t slot[SEGMENTS][SEGMENT_BLOCKS];
	bool used[SEGMENTS];
	int open[2]; /* being filled: main, probation */
	uint64_t seq;
	struct evict_ghost ghost;
	uint32_t ghost_memory[8192];
};

static void cache_evict(struct cache *c);

static void cache_insert(struct cache *c, uint32_t blk, bool probation)
{
	int s = c->open[probation];

	if (s < 0 || c->seg[s].total_blocks == SEGMENT_BLOCKS) {
		for (s = 0; s < SEGMENTS && c->used[s]; s++)
			;
		ck_assert_int_lt(s, SEGMENTS);
		c->used[s] = true;
		c->seg[s] =
			(struct evict_candidate){ .sealed_seq = ++c->seq, .probation = probation };
		c->open[probation] = s;
	}
	c->slot[s][c->seg[s].total_blocks++] = blk;
	c->seg[s].live_blocks++;
	c->block[blk] = (struct block){ .segment = s };
}

static unsigned cache_free(const struct cache *c)
{
	unsigned n = 0;

	for (unsigned s = 0; s < SEGMENTS; s++)
		n += !c->used[s];
	return n;
}

static void cache_evict(struct cache *c)
{
	struct evict_candidate cand[SEGMENTS];
	uint32_t kept[SEGMENT_BLOCKS];
	unsigned n = 0, keep = 0;
	int victim;

	for (unsigned s = 0; s < SEGMENTS; s++) {
		if (!c->used[s])
			continue;
		c->seg[s].segment = s;
		c->seg[s].pinned = (int)s == c->open[0] || (int)s == c->open[1];
		c->seg[s].hot_blocks = 0;
		for (unsigned i = 0; i < c->seg[s].total_blocks; i++)
			c->seg[s].hot_blocks += c->block[c->slot[s][i]].segment == (int)s &&
						c->block[c->slot[s][i]].hot;
		cand[n++] = c->seg[s];
	}
	victim = evict_choose(cand, n, 10);
	ck_assert_int_ge(victim, 0);
	for (unsigned i = 0; i < n; i++) {
		uint32_t s = cand[i].segment;

		if (!evict_requeued(&cand[i], &cand[victim]))
			continue;
		c->seg[s].requeued = true;
		for (unsigned k = 0; k < c->seg[s].total_blocks; k++)
			c->block[c->slot[s][k]].hot = false;
	}
	victim = (int)cand[victim].segment;
	for (unsigned i = 0; i < c->seg[victim].total_blocks; i++) {
		struct block *b = &c->block[c->slot[victim][i]];

		if (b->segment != victim)
			continue;
		b->segment = -1;
		if (evict_keep_block(b->hot, c->seg[victim].probation, false))
			kept[keep++] = c->slot[victim][i];
		else
			evict_ghost_add(&c->ghost, c->slot[victim][i]);
	}
	c->used[victim] = false;
	for (unsigned i = 0; i < keep; i++)
		cache_insert(c, kept[i], false);
}

/* Returns whether it was a hit. */
static bool cache_read(struct cache *c, uint32_t blk)
{
	if (c->block[blk].segment >= 0) {
		c->block[blk].hot = true;
		return true;
	}
	while (cache_free(c) < 3)
		cache_evict(c);
	cache_insert(c, blk, !evict_ghost_hit(&c->ghost, blk));
	return false;
}

/*
 * A working set of half the cache, read again and again at random, and one pass over ten
 * times the cache beside it: the working set stays.
 */
START_TEST(test_scan_resistance)
{
	struct random rnd = random_begin("scan resistance");
	const uint32_t working = SEGMENTS * SEGMENT_BLOCKS / 2;
	const uint32_t scan = SEGMENTS * SEGMENT_BLOCKS * 10;
	cleanup_free struct cache *c = calloc(1, sizeof(*c));
	unsigned hits = 0, reads = 0, left = 0;

	ck_assert_ptr_nonnull(c);
	for (unsigned i = 0; i < VOLUME_BLOCKS; i++)
		c->block[i].segment = -1;
	c->open[0] = c->open[1] = -1;
	evict_ghost_init(&c->ghost, c->ghost_memory, sizeof(c->ghost_memory));
	for (unsigned i = 0; i < working * 20; i++)
		cache_read(c, (uint32_t)random_below(&rnd, working));
	for (uint32_t b = 0; b < scan; b++) {
		cache_read(c, working + b);
		/* _i reads of the working set for each block scanned, or none for long. */
		for (int k = 0; k < _i; k++, reads++)
			hits += cache_read(c, (uint32_t)random_below(&rnd, working));
	}
	for (uint32_t b = 0; b < working; b++)
		left += c->block[b].segment >= 0;
	printf("scan resistance: %u of %u left, %u of %u hit\n", left, working, hits, reads);
	ck_assert_uint_ge(left, working * 95 / 100);
	ck_assert_uint_ge(hits, reads * 98ull / 100);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("evict");
	TCase *tc = tcase_create("evict");

	tcase_add_loop_test(tc, test_choose, 0, (int)ARRAY_SIZE(rows));
	tcase_add_test(tc, test_share);
	tcase_add_test(tc, test_never_pinned);
	tcase_add_test(tc, test_keep_block);
	tcase_add_test(tc, test_ghost);
	tcase_add_loop_test(tc, test_scan_resistance, 0, 3);
	tcase_set_timeout(tc, 60);
	suite_add_tcase(suite, tc);
	return run_suite(suite);
}
