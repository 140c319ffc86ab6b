// SPDX-License-Identifier: Apache-2.0
#include <check.h>
#include <string.h>

#include "core/cleanup.h"
#include "core/clock.h"
#include "core/range.h"
#include "policy/readahead.h"
#include "tests/policy/random.h"
#include "tests/lib/run.h"

#define KIB 1024ull
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)
#define MAX_RANGES 64

static struct readahead ra;
static struct readahead_range out[MAX_RANGES];
static struct readahead_env env;

static void setup(void)
{
	readahead_init(&ra, 64 * GIB + 512);
	env = (struct readahead_env){
		.now_ns = NSEC_PER_SEC,
		.rate_bytes_per_s = 12500000,
		.rtt_ns = 100 * NSEC_PER_MSEC,
		.budget_bytes = 64 * MIB,
	};
}

static uint64_t sum(unsigned n)
{
	uint64_t bytes = 0;

	for (unsigned i = 0; i < n; i++)
		bytes += out[i].length;
	return bytes;
}

/* What every answer promises. */
static void check_ranges(unsigned n, unsigned max)
{
	ck_assert_uint_le(n, max);
	for (unsigned i = 0; i < n; i++) {
		ck_assert_uint_gt(out[i].length, 0);
		ck_assert_uint_le(out[i].length, READAHEAD_RANGE_MAX_BYTES);
		ck_assert_uint_eq((out[i].offset | out[i].length) % READAHEAD_ALIGN_BYTES, 0);
		ck_assert(range_inside(out[i].offset, out[i].length, ra.size_bytes));
	}
	ck_assert(env.in_flight_bytes >= env.budget_bytes ||
		  sum(n) <= env.budget_bytes - env.in_flight_bytes || !n);
}

static unsigned access_as(uint64_t offset, uint64_t length, bool hit)
{
	unsigned n = readahead_access(&ra, &env, offset, length, hit, out, MAX_RANGES);

	check_ranges(n, MAX_RANGES);
	env.now_ns += NSEC_PER_MSEC;
	return n;
}

static unsigned access_at(uint64_t offset, uint64_t length)
{
	return access_as(offset, length, false);
}

/* Each row: accesses in units of @unit from 1 GiB on, and the first one that starts readahead. */
static const struct {
	const char *name;
	uint64_t unit;
	int at[12];
	unsigned n, starts; /* 0 = never */
} patterns[] = {
	{ "sequential", 128 * KIB, { 0, 1, 2 }, 3, 3 },
	{ "sequential, 4K", 4 * KIB, { 0, 1, 2 }, 3, 3 },
	{ "pairs swapped", 128 * KIB, { 1, 0, 3, 2, 5 }, 5, 5 },
	{ "backward", 128 * KIB, { 0, -1, -2, -3 }, 4, 4 },
	{ "backward pairs", 128 * KIB, { -2, -1, -4, -3, -6, -5, -8 }, 7, 7 },
	{ "queue of 8, disorder", MIB, { 1, 0, 2, 4, 3, 6, 5, 7 }, 8, 4 },
	{ "queue of 8, shuffled", MIB, { 3, 1, 0, 2, 6, 4, 5, 7, 9, 8, 11, 10 }, 12, 11 },
	{ "same again", 128 * KIB, { 0, 0, 0, 0, 0, 0, 0, 0 }, 8, 0 },
	{ "two and away", 128 * KIB, { 0, 1, 9000, 9001, 500, 501, -900, -901 }, 8, 0 },
	{ "stride of 8", 64 * KIB, { 0, 8, 16, 24 }, 4, 4 },
	{ "stride back", 64 * KIB, { 0, -8, -16, -24 }, 4, 4 },
	{ "uneven steps", 4 * KIB, { 0, 8, 13, 24, 28, 40, 43, 57 }, 8, 0 },
	{ "up and down", 64 * KIB, { 0, -1, 1, -2, 2, -3, 3, -4 }, 8, 0 },
};

START_TEST(test_start)
{
	setup();
	for (unsigned i = 0; i < patterns[_i].n; i++) {
		uint64_t offset =
			GIB + (uint64_t)((int64_t)patterns[_i].at[i] * (int64_t)patterns[_i].unit);
		unsigned n = access_at(offset, patterns[_i].unit);

		ck_assert_msg(!n == (!patterns[_i].starts || i + 1 < patterns[_i].starts),
			      "%s: access %u asks for %u ranges", patterns[_i].name, i + 1, n);
		if (n && i + 1 == patterns[_i].starts)
			return;
	}
	ck_assert_msg(!patterns[_i].starts, "%s: never starts", patterns[_i].name);
}
END_TEST

/* A reader that has found all it read looks ahead a little, and far once something is missing. */
START_TEST(test_all_here)
{
	uint64_t at = GIB, end = 0;

	setup();
	env.rate_bytes_per_s *= 10;
	for (; at < GIB + 64 * MIB; at += 128 * KIB) {
		unsigned n = access_as(at, 128 * KIB, true);

		for (unsigned i = 0; i < n; i++)
			end = MAX(end, out[i].offset + out[i].length);
		ck_assert(!end || end <= at + 128 * KIB + 2 * MIB);
	}
	ck_assert_uint_ge(end, at);
	for (unsigned k = 0; k < 16; k++, at += 128 * KIB) {
		unsigned n = access_as(at, 128 * KIB, k > 0);

		for (unsigned i = 0; i < n; i++)
			end = MAX(end, out[i].offset + out[i].length);
	}
	ck_assert_uint_gt(end, at + 2 * MIB);
}
END_TEST

/* Read on without gaps in either direction: all that is ahead is asked for once and in order. */
START_TEST(test_no_overlap)
{
	bool backward = _i;
	uint64_t at = 32 * GIB, front = 0, largest = 0;

	setup();
	for (unsigned i = 0; i < 4000; i++) {
		unsigned n = access_at(at, 128 * KIB);

		for (unsigned k = 0; k < n; k++) {
			uint64_t near = backward ? out[k].offset + out[k].length : out[k].offset;
			uint64_t far = backward ? out[k].offset : out[k].offset + out[k].length;

			if (front)
				ck_assert_uint_eq(near, front);
			front = far;
			largest = MAX(largest, out[k].length);
		}
		at = backward ? at - 128 * KIB : at + 128 * KIB;
		if (i > 100) {
			uint64_t ahead = backward ? at + 128 * KIB - front : front - at;

			/* 2 × 1.25 MB, never less than half full, never more than full. */
			ck_assert_uint_ge(ahead, 1250000);
			ck_assert_uint_le(ahead, 2500000);
		}
	}
	ck_assert_uint_ge(largest, 256 * KIB);
}
END_TEST

START_TEST(test_end_of_volume)
{
	uint64_t asked = 0;

	setup();
	readahead_init(&ra, 4 * MIB + 512);
	for (uint64_t at = 0; at < 4 * MIB; at += 128 * KIB)
		asked += sum(access_at(at, 128 * KIB));
	ck_assert_uint_eq(asked, 4 * MIB - 3 * 128 * KIB);
	ck_assert_uint_eq(access_at(4 * MIB, 512), 0);

	readahead_init(&ra, 4 * MIB + 512);
	asked = 0;
	ck_assert_uint_eq(access_at(4 * MIB - 3584, 4096), 0);
	for (uint64_t at = 4 * MIB - 3584; at > 3584; at -= 4096)
		asked += sum(access_at(at - 4096, 4096));
	ck_assert_uint_ge(asked, 4 * MIB - 5 * 4096);
	ck_assert_uint_le(asked, 4 * MIB);
}
END_TEST

START_TEST(test_budget)
{
	unsigned n;

	setup();
	env.rate_bytes_per_s = 125000000;
	env.budget_bytes = 6 * MIB;
	for (unsigned i = 0; i < 64; i++) {
		n = access_at(GIB + i * MIB, MIB);
		env.in_flight_bytes += sum(n);
		ck_assert_uint_le(env.in_flight_bytes, env.budget_bytes);
	}
	ck_assert_uint_ge(env.in_flight_bytes, 5 * MIB);
	ck_assert_uint_eq(readahead_resume(&ra, &env, out, MAX_RANGES), 0);
	/* All of it came: the stream goes on without waiting for its reader. */
	env.in_flight_bytes = 0;
	n = readahead_resume(&ra, &env, out, MAX_RANGES);
	check_ranges(n, MAX_RANGES);
	ck_assert_uint_ge(sum(n), MIB);
	/* And ends with a full window, be there budget or not. */
	while (n)
		n = readahead_resume(&ra, &env, out, MAX_RANGES);
	ck_assert_uint_eq(readahead_resume(&ra, &env, out, MAX_RANGES), 0);
	env.budget_bytes = 0;
	for (unsigned i = 64; i < 80; i++)
		ck_assert_uint_eq(access_at(GIB + i * MIB, MIB), 0);
}
END_TEST

/* With room for one range at a time the rest comes through resume. */
START_TEST(test_few_ranges)
{
	unsigned n;

	setup();
	for (unsigned i = 0; i < 32; i++) {
		n = readahead_access(&ra, &env, GIB + i * MIB, MIB, true, out, 1);
		check_ranges(n, 1);
	}
	ck_assert_uint_eq(readahead_access(&ra, &env, GIB + 32 * MIB, MIB, true, out, 0), 0);
	ck_assert_uint_eq(readahead_resume(&ra, &env, out, 0), 0);
	n = readahead_resume(&ra, &env, out, MAX_RANGES);
	check_ranges(n, MAX_RANGES);
	ck_assert_uint_gt(n, 0);
}
END_TEST

START_TEST(test_dropped)
{
	struct readahead_range lost = { 0, 0 };
	uint64_t at = GIB;
	bool again = false;
	unsigned n;

	setup();
	for (unsigned i = 0; i < 20 || lost.length == 0; i++) {
		n = access_at(at, 128 * KIB);
		at += 128 * KIB;
		if (i >= 20 && n)
			lost = out[0];
		if (lost.length)
			/* Something behind it, so that it becomes a gap. */
			while (access_at(at, 128 * KIB) == 0)
				at += 128 * KIB;
	}
	at += 128 * KIB;
	readahead_dropped(&ra, lost.offset, lost.length);
	readahead_dropped(&ra, lost.offset, lost.length);
	n = access_at(at, 128 * KIB);
	for (unsigned i = 0; i < n; i++)
		again |= out[i].offset == lost.offset && out[i].length == lost.length;
	ck_assert_msg(again, "a dropped range is not asked for again");
	n = access_at(at, 128 * KIB);
	for (unsigned i = 0; i < n; i++)
		ck_assert(out[i].offset != lost.offset);
	/* What the reader has passed is its own affair; nonsense is accepted. */
	readahead_dropped(&ra, GIB, MIB);
	readahead_dropped(&ra, UINT64_MAX - 4096, UINT64_MAX);
	readahead_wasted(&ra, UINT64_MAX, 1);
	n = access_at(at + 128 * KIB, 128 * KIB);
	for (unsigned i = 0; i < n; i++)
		ck_assert_uint_gt(out[i].offset, at);
}
END_TEST

START_TEST(test_wasted)
{
	uint64_t at = GIB, before = 0, after = 0;

	setup();
	for (unsigned i = 0; i < 200; i++, at += 128 * KIB)
		before += sum(access_at(at, 128 * KIB));
	/* The reader goes away; block by block all that was ahead is evicted. */
	for (uint64_t b = 0; b < 3 * MIB; b += 4096)
		readahead_wasted(&ra, at + b, 4096);
	ck_assert_uint_gt(ra.caution + (ra.stream[0].window <= 1250000), 0);
	for (unsigned i = 0; i < 2; i++, at += 128 * KIB)
		after += sum(access_at(at, 128 * KIB));
	ck_assert_uint_le(after, 2 * MIB);
	ck_assert_uint_gt(before, 0);
}
END_TEST

/*
 * A reader that begins to jump is no longer run ahead of, however often it reads again what it has
 * read before; once it reads on in order, it is.
 */
START_TEST(test_stops)
{
	uint64_t at = GIB, late = 0;
	unsigned n = 0;

	setup();
	for (unsigned i = 0; i < 512; i++, at += 4096)
		access_at(at, 4096);
	for (unsigned i = 0; i < 64; i++) {
		at += 256 * KIB;
		n = access_at(at, 4096);
		for (unsigned k = 0; k < 64; k++)
			n += access_at(at - MIB, 4096);
		late += i >= 32 ? n : 0;
	}
	ck_assert_uint_eq(late, 0);
	for (unsigned i = 0; i < 4; i++, n = 0) {
		at += 4096;
		n = access_at(at, 4096);
		if (n)
			return;
	}
	ck_abort_msg("reading in order again, and nothing is asked for");
}
END_TEST

/* Each element is asked for once, all of them, and nothing between. */
START_TEST(test_stride)
{
	const uint64_t length = 64 * KIB, step = 512 * KIB;
	bool back = _i;
	uint8_t asked[400] = { 0 };

	setup();
	for (unsigned i = 0; i < 300; i++) {
		unsigned n = access_at(back ? 2 * GIB - i * step : GIB + i * step, length);

		for (unsigned k = 0; k < n; k++) {
			uint64_t far = back ? 2 * GIB - out[k].offset : out[k].offset - GIB;

			ck_assert_uint_eq(far % step, 0);
			ck_assert_uint_eq(out[k].length, length);
			ck_assert_uint_lt(far / step, ARRAY_SIZE(asked));
			ck_assert_uint_gt(far / step, i);
			asked[far / step]++;
		}
	}
	for (unsigned i = 4; i < 300; i++)
		ck_assert_uint_eq(asked[i], 1);
}
END_TEST

/* Two readers share the budget, be one of them first. */
START_TEST(test_fair_share)
{
	uint64_t front[2] = { 0 };

	setup();
	env.rate_bytes_per_s = 1250000000;
	env.budget_bytes = 8 * MIB;
	for (unsigned i = 0; i < 400; i++) {
		for (unsigned k = 0; k < 2; k++) {
			uint64_t at = (1 + k) * GIB + i * 128 * KIB;
			unsigned n = access_at(at, 128 * KIB);

			if (n)
				front[k] = out[n - 1].offset + out[n - 1].length;
			if (i < 200)
				continue;
			ck_assert_uint_le(front[k] - at, 4 * MIB + 128 * KIB);
			ck_assert_uint_ge(front[k] - at, 2 * MIB);
		}
	}
}
END_TEST

/* Waste makes new streams show more before they start; reading on makes up for it. */
START_TEST(test_caution)
{
	unsigned first = 0;

	setup();
	readahead_wasted(&ra, 8 * GIB, 4 * MIB);
	readahead_wasted(&ra, 9 * GIB, 4 * MIB);
	for (unsigned i = 0; i < 16 && !first; i++)
		if (access_at(GIB + i * 128 * KIB, 128 * KIB))
			first = i;
	ck_assert_uint_gt(first, 2);
	for (unsigned i = 16; i < 1000; i++)
		access_at(GIB + i * 128 * KIB, 128 * KIB);
	ck_assert_uint_eq(ra.caution, 0);
}
END_TEST

/* Sixteen readers and a flood of random reads at once: every reader keeps its window. */
START_TEST(test_many_streams)
{
	struct random rnd = random_begin("many streams");
	uint64_t asked[16] = { 0 }, stray = 0;

	setup();
	for (unsigned i = 0; i < 500; i++) {
		/* The flood comes when the readers are known. */
		for (unsigned k = 0; k < 16; k++) {
			asked[k] += sum(access_at(k * 2 * GIB + i * 128 * KIB, 128 * KIB));
			for (unsigned f = 0; f < 4 && i > 2; f++)
				stray += sum(access_at(
					40 * GIB + random_below(&rnd, 20 * GIB / 4096) * 4096,
					4096));
		}
	}
	for (unsigned k = 0; k < 16; k++) {
		ck_assert_uint_ge(asked[k], 490 * 128 * KIB);
		ck_assert_uint_le(asked[k], 500 * 128 * KIB + 32 * MIB);
	}
	ck_assert_uint_le(stray, 32000 * 4096ull * 2 / 100);
}
END_TEST

static const struct {
	uint64_t region, length;
	unsigned pieces; /* one read of the program arrives as so many */
} randoms[] = {
	{ 16 * MIB, 4 * KIB, 1 }, { 64 * MIB, 4 * KIB, 1 },   { GIB, 4 * KIB, 1 },
	{ 60 * GIB, 4 * KIB, 1 }, { 60 * GIB, 64 * KIB, 1 },  { 60 * GIB, 4 * KIB, 2 },
	{ GIB, 64 * KIB, 1 },     { 60 * GIB, 128 * KIB, 2 },
};

/* Random reads: what is asked for and never read is less than 2 % of what is read. */
START_TEST(test_random_waste)
{
	struct random rnd = random_begin("random waste");
	uint64_t region = randoms[_i].region, length = randoms[_i].length, read = 0, wasted = 0;
	/* Per block: 1 = asked for before it was read, 2 = read. */
	cleanup_free uint8_t *block = NULL;

	setup();
	block = calloc(ra.size_bytes / 4096 + 1, 1);
	ck_assert_ptr_nonnull(block);
	for (unsigned i = 0; i < 10000; i++) {
		uint64_t at = random_below(&rnd, region / length) * length;

		for (unsigned k = 0; k < randoms[_i].pieces; k++, at += length) {
			unsigned n = access_at(at, length);

			memset(block + at / 4096, 2, length / 4096);
			read += length;
			for (unsigned r = 0; r < n; r++)
				for (uint64_t o = 0; o < out[r].length; o += 4096)
					block[(out[r].offset + o) / 4096] |= 1;
		}
	}
	for (uint64_t b = 0; b < ra.size_bytes / 4096; b++)
		wasted += block[b] == 1 ? 4096 : 0;
	printf("random waste, case %d: %.2f %%\n", _i, 100.0 * (double)wasted / (double)read);
	ck_assert_uint_lt(wasted * 100, read * 2);
}
END_TEST

/* Anything in any order: the promises hold (and the invariants, where compiled in). */
START_TEST(test_anything)
{
	struct random rnd = random_begin("anything");
	uint64_t at = 0, flight = 0;

	for (unsigned round = 0; round < 40; round++) {
		setup();
		readahead_init(&ra, MIB + random_below(&rnd, 1ull << (20 + round)));
		env.rate_bytes_per_s = random_below(&rnd, 2) * random_below(&rnd, 1ull << 34);
		env.rtt_ns = random_below(&rnd, 2) * random_below(&rnd, NSEC_PER_SEC);
		env.budget_bytes = random_below(&rnd, 1ull << (10 + round));
		flight = 0;
		for (unsigned i = 0; i < 2000; i++) {
			uint64_t length = 1 + random_below(&rnd, 1 + random_below(&rnd, MIB));
			uint64_t pick = random_below(&rnd, 16);
			unsigned max = (unsigned)random_below(&rnd, 6), n;

			if (pick < 2)
				at = random_below(&rnd, ra.size_bytes);
			else if (pick < 4)
				at -= MIN(at, random_below(&rnd, 2 * MIB));
			else if (pick < 6)
				at += random_below(&rnd, 2 * MIB);
			at = MIN(at, ra.size_bytes - 1);
			length = MIN(length, ra.size_bytes - at);
			env.in_flight_bytes = flight;
			n = readahead_access(&ra, &env, at, length, pick & 1, out, max);
			check_ranges(n, max);
			flight += sum(n);
			if (n && pick == 6)
				readahead_dropped(&ra, out[0].offset, out[0].length);
			if (pick == 7)
				readahead_wasted(&ra, at + length / 2, length);
			if (pick == 8)
				readahead_dropped(&ra, at, MIB);
			flight -= MIN(flight, random_below(&rnd, 2 * MIB));
			env.in_flight_bytes = flight;
			n = readahead_resume(&ra, &env, out, max);
			check_ranges(n, max);
			flight += sum(n);
			if (pick > 8 && pick < 13)
				at += length;
			else if (pick >= 13)
				at -= MIN(at, length);
			env.now_ns += random_below(&rnd, NSEC_PER_SEC);
		}
	}
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("readahead");
	TCase *tc = tcase_create("readahead");

	tcase_add_loop_test(tc, test_start, 0, (int)ARRAY_SIZE(patterns));
	tcase_add_test(tc, test_all_here);
	tcase_add_loop_test(tc, test_no_overlap, 0, 2);
	tcase_add_test(tc, test_end_of_volume);
	tcase_add_test(tc, test_budget);
	tcase_add_test(tc, test_few_ranges);
	tcase_add_test(tc, test_dropped);
	tcase_add_test(tc, test_wasted);
	tcase_add_test(tc, test_stops);
	tcase_add_loop_test(tc, test_stride, 0, 2);
	tcase_add_test(tc, test_fair_share);
	tcase_add_test(tc, test_caution);
	tcase_add_test(tc, test_many_streams);
	tcase_add_loop_test(tc, test_random_waste, 0, (int)ARRAY_SIZE(randoms));
	tcase_add_test(tc, test_anything);
	tcase_set_timeout(tc, 60);
	suite_add_tcase(suite, tc);
	return run_suite(suite);
}
