// SPDX-License-Identifier: Apache-2.0
#include <check.h>
#include <stdio.h>

#include "core/cleanup.h"
#include "core/clock.h"
#include "policy/writeback.h"
#include "tests/policy/random.h"
#include "tests/lib/run.h"

#define MIB (1ull << 20)
#define SEC NSEC_PER_SEC

static const struct writeback_conf conf = {
	.max_dirty_bytes = 100 * MIB,
	.max_dirty_age_ns = 5 * SEC,
	.max_epoch_bytes = 16 * MIB,
};

static const struct {
	uint64_t open_bytes, open_since_ns, now_ns;
	bool waiting, cut;
} cuts[] = {
	{ 0, 0, 100 * SEC, true, false }, /* never an empty one */
	{ 4096, 10 * SEC, 10 * SEC, false, false },
	{ 4096, 10 * SEC, 15 * SEC - 1, false, false },
	{ 4096, 10 * SEC, 15 * SEC, false, true },
	{ 4096, 10 * SEC, 9 * SEC, false, false },
	{ 4096, 10 * SEC, 10 * SEC, true, true },
	{ 16 * MIB - 1, 10 * SEC, 10 * SEC, false, false },
	{ 16 * MIB, 10 * SEC, 10 * SEC, false, true },
};

START_TEST(test_cut)
{
	uint64_t deadline_ns =
		writeback_cut_deadline_ns(&conf, cuts[_i].open_bytes, cuts[_i].open_since_ns);

	ck_assert_int_eq(writeback_should_cut(&conf, cuts[_i].open_bytes, cuts[_i].open_since_ns,
					      cuts[_i].now_ns, cuts[_i].waiting),
			 cuts[_i].cut);
	if (!cuts[_i].open_bytes) {
		ck_assert_uint_eq(deadline_ns, UINT64_MAX);
		return;
	}
	ck_assert(writeback_should_cut(&conf, cuts[_i].open_bytes, cuts[_i].open_since_ns,
				       deadline_ns, false));
}
END_TEST

START_TEST(test_cut_never)
{
	struct writeback_conf forever = conf;

	forever.max_dirty_age_ns = UINT64_MAX;
	ck_assert_uint_eq(writeback_cut_deadline_ns(&forever, 1, 5), UINT64_MAX);
}
END_TEST

static const struct {
	uint64_t dirty, request;
	bool online;
	uint64_t least_ns, most_ns;
} delays[] = {
	{ 0, MIB, true, 0, 0 },
	{ 70 * MIB, MIB, true, 0, 0 },
	{ 80 * MIB, MIB, true, NSEC_PER_MSEC, 20 * NSEC_PER_MSEC },
	{ 98 * MIB, 64 << 10, true, 20 * NSEC_PER_MSEC, SEC },
	{ 99 * MIB, MIB, true, SEC, SEC },
	{ 99 * MIB, MIB + 1, true, UINT64_MAX, UINT64_MAX },
	{ 100 * MIB, 4096, true, UINT64_MAX, UINT64_MAX },
	{ 101 * MIB, 4096, true, UINT64_MAX, UINT64_MAX },
	{ 0, 200 * MIB, true, 0, 0 }, /* larger than the limit, but nothing is before it */
	{ 99 * MIB, 4096, false, 0, 0 },
	{ 100 * MIB, 4096, false, UINT64_MAX, UINT64_MAX },
};

START_TEST(test_delay)
{
	struct writeback wb;
	uint64_t delay_ns;

	writeback_init(&wb);
	wb.rate = 10 * MIB;
	delay_ns = writeback_delay_ns(&wb, &conf, delays[_i].dirty, delays[_i].request,
				      delays[_i].online);
	ck_assert_uint_ge(delay_ns, delays[_i].least_ns);
	ck_assert_uint_le(delay_ns, delays[_i].most_ns);
}
END_TEST

START_TEST(test_delay_grows)
{
	struct random rnd = random_begin("delay grows");

	for (unsigned i = 0; i < 200; i++) {
		struct writeback wb;
		struct writeback_conf c = conf;
		uint64_t request = 4096 + random_below(&rnd, MIB), before_ns = 0;

		writeback_init(&wb);
		wb.rate = random_below(&rnd, 1 << 30);
		c.max_dirty_bytes = 1 + random_below(&rnd, 1ull << (10 + random_below(&rnd, 40)));
		for (unsigned k = 0; k <= 100; k++) {
			uint64_t dirty = c.max_dirty_bytes / 100 * k;
			uint64_t delay_ns = writeback_delay_ns(&wb, &c, dirty, request, true);

			ck_assert_uint_ge(delay_ns, before_ns);
			ck_assert(delay_ns <= SEC || delay_ns == UINT64_MAX);
			before_ns = delay_ns;
		}
	}
}
END_TEST

/*
 * 2^_i writers against a drain: they fill the buffer fast, then settle at the drain's rate below
 * the limit, without having to wait for it.
 */
START_TEST(test_writers_meet_drain)
{
	const uint64_t rate = 12500000, request = 64 << 10, step_ns = NSEC_PER_MSEC;
	unsigned writers = 1u << _i;
	uint64_t ready_ns[32] = { 0 }, dirty = 0, written = 0, at_half = 0;
	uint64_t now_ns = SEC, walls = 0, carry = 0;
	struct writeback wb;

	writeback_init(&wb);
	writeback_begin(&wb, now_ns);
	for (unsigned i = 0; i < 120000; i++, now_ns += step_ns) {
		/* An epoch's worth at a time, as the target's answers come. */
		carry += rate / 1000;
		if (i % 100 == 0) {
			uint64_t drained = MIN(dirty, carry);

			carry = 0;
			dirty -= drained;
			writeback_delivered(&wb, drained, now_ns);
		}
		for (unsigned w = 0; w < writers; w++) {
			uint64_t delay_ns;

			if (ready_ns[w] > now_ns)
				continue;
			delay_ns = writeback_delay_ns(&wb, &conf, dirty, request, true);
			walls += delay_ns == UINT64_MAX;
			if (delay_ns == UINT64_MAX)
				continue;
			dirty += request;
			written += request;
			ready_ns[w] = now_ns + delay_ns;
		}
		ck_assert_uint_le(dirty, conf.max_dirty_bytes);
		if (i == 60000) {
			at_half = written;
			walls = 0;
		}
	}
	ck_assert_uint_eq(walls, 0);
	/* The second minute: as fast as the drain, and the buffer is used. */
	ck_assert_uint_ge(written - at_half, rate * 60 * 97 / 100);
	ck_assert_uint_le(written - at_half, rate * 60 * 103 / 100);
	ck_assert_uint_ge(dirty, conf.max_dirty_bytes * 85 / 100);
}
END_TEST

/* Lumps, pauses with and without notice: the rate is that of the busy time. */
START_TEST(test_rate)
{
	struct random rnd = random_begin("rate");
	struct writeback wb;
	uint64_t now_ns = SEC;

	writeback_init(&wb);
	ck_assert_uint_eq(writeback_rate(&wb, now_ns), 0);
	ck_assert_uint_eq(writeback_eta_ns(&wb, 4096, now_ns), UINT64_MAX);
	ck_assert_uint_eq(writeback_eta_ns(&wb, 0, now_ns), 0);
	for (unsigned i = 0; i < 50; i++) {
		writeback_begin(&wb, now_ns);
		for (unsigned k = 0; k < 20; k++) {
			uint64_t step_ns = 1 + random_below(&rnd, 200 * NSEC_PER_MSEC);

			now_ns += step_ns;
			writeback_delivered(&wb, step_ns / 100, now_ns); /* 10 MB/s */
		}
		if (i > 2) {
			ck_assert_uint_ge(writeback_rate(&wb, now_ns), 9900000);
			ck_assert_uint_le(writeback_rate(&wb, now_ns), 10100000);
		}
		/* With notice of any length (begin above), without it only long ones. */
		now_ns += random_below(&rnd, 4) ? random_below(&rnd, 5 * SEC) : 100 * SEC;
	}
	writeback_begin(&wb, now_ns);
	writeback_delivered(&wb, 10000000, now_ns += SEC);
	ck_assert_uint_ge(writeback_eta_ns(&wb, 100000000, now_ns), 9 * SEC);
	ck_assert_uint_le(writeback_eta_ns(&wb, 100000000, now_ns), 11 * SEC);
	ck_assert_uint_lt(writeback_rate(&wb, now_ns + 10 * SEC), 2500000);
	ck_assert_uint_eq(writeback_rate(&wb, now_ns + 60 * SEC), 0);
	ck_assert_uint_eq(writeback_eta_ns(&wb, 1, now_ns + 60 * SEC), UINT64_MAX);
}
END_TEST

START_TEST(test_rate_follows)
{
	struct writeback wb;
	uint64_t now_ns = SEC;

	writeback_init(&wb);
	writeback_begin(&wb, now_ns);
	for (unsigned i = 0; i < 200; i++)
		writeback_delivered(&wb, 1000000, now_ns += 100 * NSEC_PER_MSEC);
	for (unsigned i = 0; i < 100; i++)
		writeback_delivered(&wb, 100000, now_ns += 100 * NSEC_PER_MSEC);
	/* Ten seconds at a tenth: most of the way there. */
	ck_assert_uint_le(writeback_rate(&wb, now_ns), 2000000);
	ck_assert_uint_ge(writeback_rate(&wb, now_ns), 1000000);
	/* A pause nobody announced is not taken for a slow drain. */
	writeback_delivered(&wb, 100000, now_ns += 3600 * SEC);
	ck_assert_uint_ge(writeback_rate(&wb, now_ns), 1000000);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("writeback");
	TCase *tc = tcase_create("writeback");

	tcase_add_loop_test(tc, test_cut, 0, (int)ARRAY_SIZE(cuts));
	tcase_add_test(tc, test_cut_never);
	tcase_add_loop_test(tc, test_delay, 0, (int)ARRAY_SIZE(delays));
	tcase_add_test(tc, test_delay_grows);
	tcase_add_loop_test(tc, test_writers_meet_drain, 0, 6);
	tcase_add_test(tc, test_rate);
	tcase_add_test(tc, test_rate_follows);
	suite_add_tcase(suite, tc);
	return run_suite(suite);
}
