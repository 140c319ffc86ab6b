// SPDX-License-Identifier: Apache-2.0
/* The map against an array with one entry per block, and what it costs. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cache/map.h"
#include "core/clock.h"
#include "core/range.h"
#include "tests/lib/sim.h"
#include "tests/lib/run.h"

#define SEEDS 12
#define STEPS 4000
#define NBLOCKS (7u * MAP_LEAF_BLOCKS + 91) /* the last group is not whole */

static uint64_t count_state(const uint64_t *model, enum map_state state)
{
	uint64_t n = 0;

	for (uint64_t i = 0; i < NBLOCKS; i++)
		n += map_entry_state(model[i]) == state;
	return n;
}

/* The length of the run from @blk, by looking at each block. */
static uint64_t model_run(const uint64_t *model, uint64_t blk, uint64_t max)
{
	uint64_t n = 1;

	while (n < max && blk + n < NBLOCKS &&
	       map_entry_state(model[blk + n]) == map_entry_state(model[blk]))
		n++;
	return n;
}

static void compare(const struct map *m, const uint64_t *model)
{
	map_check(m);
	ck_assert_uint_eq(m->data_blocks, count_state(model, MAP_DATA));
	ck_assert_uint_eq(m->bad_blocks, count_state(model, MAP_BAD));
	for (uint64_t i = 0; i < NBLOCKS; i++)
		ck_assert_uint_eq(map_get(m, i), model[i]);
}

/* Often whole leaves, or one block more or less. */
static void pick_range(struct sim *sim, uint64_t *ret_blk, uint64_t *ret_n)
{
	uint64_t blk = sim_below(sim, NBLOCKS), n = 1 + sim_below(sim, NBLOCKS - blk);

	if (sim_once_in(sim, 2))
		n = 1 + sim_below(sim, MIN(n, (uint64_t)40));
	if (sim_once_in(sim, 3)) {
		blk = round_down(blk, MAP_LEAF_BLOCKS);
		n = MIN((1 + sim_below(sim, 3)) * MAP_LEAF_BLOCKS, NBLOCKS - blk);
		if (sim_once_in(sim, 3) && n > 1)
			n--;
	}
	*ret_blk = blk;
	*ret_n = n;
}

static uint64_t pick_entry(struct sim *sim)
{
	switch (sim_below(sim, 6)) {
	case 0:
		return MAP_ENTRY_NONE;
	case 1:
		return MAP_ENTRY_ZERO;
	case 2:
		return MAP_ENTRY_BAD;
	default:
		return map_entry((uint32_t)sim_below(sim, 1u << MAP_SLOT_BITS),
				 (uint32_t)sim_random(sim));
	}
}

static void step(struct sim *sim, struct map *m, uint64_t *model)
{
	static const uint64_t fills[] = { MAP_ENTRY_NONE, MAP_ENTRY_ZERO, MAP_ENTRY_BAD };
	uint64_t blk, n, entry;
	enum map_state state;

	pick_range(sim, &blk, &n);
	switch (sim_below(sim, 4)) {
	case 0:
		entry = pick_entry(sim);
		ck_assert_int_eq(map_reserve(m, blk, 1), 0);
		map_set(m, blk, entry);
		model[blk] = entry;
		break;
	case 1:
		n = MIN(n, (uint64_t)80);
		ck_assert_int_eq(map_reserve(m, blk, n), 0);
		for (uint64_t i = 0; i < n; i++)
			map_set(m, blk + i, model[blk + i] = pick_entry(sim));
		break;
	case 2:
		entry = fills[sim_below(sim, ARRAY_SIZE(fills))];
		map_fill(m, blk, n, entry);
		for (uint64_t i = 0; i < n; i++)
			model[blk + i] = entry;
		break;
	default:
		ck_assert_uint_eq(map_run(m, blk, n, &state), model_run(model, blk, n));
		ck_assert_int_eq(state, map_entry_state(model[blk]));
		break;
	}
}

START_TEST(test_random)
{
	uint64_t *model = sim_alloc(NBLOCKS * sizeof(*model));
	struct sim *sim = sim_create((uint64_t)_i + 1);
	struct map m;

	ck_assert_int_eq(map_init(&m, NBLOCKS), 0);
	for (unsigned i = 0; i < STEPS; i++) {
		step(sim, &m, model);
		if (i % 50 == 0)
			compare(&m, model);
	}
	compare(&m, model);
	map_fill(&m, 0, NBLOCKS, MAP_ENTRY_NONE);
	ck_assert_uint_eq(m.leaves, 0);
	ck_assert_uint_eq(m.data_blocks + m.bad_blocks, 0);
	map_fini(&m);
	sim_destroy(sim);
	free(model);
}
END_TEST

START_TEST(test_entry)
{
	uint64_t e = map_entry((1u << MAP_SLOT_BITS) - 1, 0xdeadbeef);

	ck_assert_int_eq(map_entry_state(e), MAP_DATA);
	ck_assert_uint_eq(map_entry_slot(e), (1u << MAP_SLOT_BITS) - 1);
	ck_assert_uint_eq(map_entry_crc(e), 0xdeadbeef);
	ck_assert_int_eq(map_entry_state(map_entry(0, 0)), MAP_DATA);
	ck_assert_int_eq(map_entry_state(MAP_ENTRY_NONE), MAP_NONE);
	ck_assert_int_eq(map_entry_state(MAP_ENTRY_ZERO), MAP_ZERO);
	ck_assert_int_eq(map_entry_state(MAP_ENTRY_BAD), MAP_BAD);
}
END_TEST

START_TEST(test_whole_leaves)
{
	uint64_t last = NBLOCKS - NBLOCKS % MAP_LEAF_BLOCKS;
	enum map_state state;
	struct map m;

	ck_assert_int_eq(map_init(&m, NBLOCKS), 0);
	ck_assert_int_eq(map_reserve(&m, 10, 2 * MAP_LEAF_BLOCKS), 0);
	ck_assert_uint_eq(m.leaves, 3);
	map_set(&m, MAP_LEAF_BLOCKS + 3, map_entry(17, 18));
	map_fill(&m, MAP_LEAF_BLOCKS, MAP_LEAF_BLOCKS, MAP_ENTRY_ZERO);
	ck_assert_uint_eq(m.leaves, 2);
	ck_assert_uint_eq(m.data_blocks, 0);
	/* Of a group that is all zero one block goes: the others must stay zero. */
	map_set(&m, MAP_LEAF_BLOCKS + 3, MAP_ENTRY_NONE);
	ck_assert_uint_eq(map_run(&m, MAP_LEAF_BLOCKS, 1000, &state), 3);
	ck_assert_int_eq(state, MAP_ZERO);
	ck_assert_uint_eq(map_run(&m, MAP_LEAF_BLOCKS + 4, 1000, &state), MAP_LEAF_BLOCKS - 4);
	ck_assert_int_eq(state, MAP_ZERO);
	/* The last group is whole with fewer blocks. */
	map_set(&m, last, map_entry(1, 2));
	map_fill(&m, last, NBLOCKS - last, MAP_ENTRY_ZERO);
	ck_assert_uint_eq(map_get(&m, NBLOCKS - 1), MAP_ENTRY_ZERO);
	ck_assert_uint_eq(m.data_blocks, 0);
	/* The last entry of a leaf goes: so does the leaf. */
	map_fill(&m, 0, NBLOCKS, MAP_ENTRY_NONE);
	map_set(&m, 5, map_entry(1, 2));
	map_set(&m, 5, MAP_ENTRY_NONE);
	ck_assert_uint_eq(m.leaves, 0);
	map_check(&m);
	map_fini(&m);
	map_fini(&m);
}
END_TEST

/* One discard of 1 TiB: no leaves, and a walk over it by groups. */
START_TEST(test_tebibyte)
{
	const uint64_t n = 1ull << 28; /* blocks */
	uint64_t begun = clock_monotonic_ns();
	enum map_state state;
	struct map m;

	ck_assert_int_eq(map_init(&m, n + 100), 0);
	map_fill(&m, 50, n, MAP_ENTRY_ZERO);
	ck_assert_uint_le(m.leaves, 2);
	ck_assert_uint_eq(map_run(&m, 50, UINT64_MAX / 2, &state), n);
	ck_assert_int_eq(state, MAP_ZERO);
	ck_assert_uint_eq(map_get(&m, 49), MAP_ENTRY_NONE);
	ck_assert_uint_eq(map_get(&m, n + 50), MAP_ENTRY_NONE);
	map_fill(&m, 0, n + 100, MAP_ENTRY_NONE);
	ck_assert_uint_eq(m.leaves, 0);
	map_fini(&m);
	/* Milliseconds; block by block it would be many seconds. */
	ck_assert_uint_lt(clock_monotonic_ns() - begun, 2 * NSEC_PER_SEC);
}
END_TEST

/* 2 KiB and a little for each cached MiB. */
START_TEST(test_memory)
{
	struct map m;

	ck_assert_int_eq(map_init(&m, 64 * MAP_LEAF_BLOCKS), 0);
	for (uint64_t i = 0; i < 64 * MAP_LEAF_BLOCKS; i++)
		map_set(&m, i, map_entry((uint32_t)i, 1));
	ck_assert_uint_eq(m.leaves, 64);
	ck_assert_uint_eq(m.data_blocks, 64 * MAP_LEAF_BLOCKS);
	map_fini(&m);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("map");
	TCase *tc = tcase_create("map");

	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, test_entry);
	tcase_add_loop_test(tc, test_random, 0, SEEDS);
	tcase_add_test(tc, test_whole_leaves);
	tcase_add_test(tc, test_tebibyte);
	tcase_add_test(tc, test_memory);
	suite_add_tcase(s, tc);
	return run_suite(s);
}
