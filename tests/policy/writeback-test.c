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

/* Of 100 MiB 16 are left for the run under way: the delay begins at 70 % of 84. */
static const struct {
	uint64_t dirty, sent, request;
	bool online;
	uint64_t least_ns, most_ns;
} delays[] = {
	{ 0, 0, MIB, true, 0, 0 },
	{ 58 * MIB, 0, MIB, true, 0, 0 },
	{ 70 * MIB, 0, MIB, true, NSEC_PER_MSEC, 50 * NSEC_PER_MSEC },
	{ 83 * MIB, 0, 64 << 10, true, 20 * NSEC_PER_MSEC, SEC },
	{ 84 * MIB, 0, 4096, true, SEC, SEC },
	{ 95 * MIB, 0, 4096, true, SEC, SEC },
	/* What the run under way has brought there counts as gone, but for the limit. */
	{ 74 * MIB, 16 * MIB, MIB, true, 0, 0 },
	{ 86 * MIB, 16 * MIB, MIB, true, NSEC_PER_MSEC, 50 * NSEC_PER_MSEC },
	{ 99 * MIB, 16 * MIB, MIB, true, 20 * NSEC_PER_MSEC, SEC },
	{ 99 * MIB, 16 * MIB, MIB + 1, true, UINT64_MAX, UINT64_MAX },
	{ 1 * MIB, 16 * MIB, MIB, true, 0, 0 },
	{ 100 * MIB, 0, 4096, true, UINT64_MAX, UINT64_MAX },
	{ 101 * MIB, 0, 4096, true, UINT64_MAX, UINT64_MAX },
	{ 0, 0, 200 * MIB, true, 0, 0 }, /* larger than the limit, but nothing is before it */
	{ 99 * MIB, 0, 4096, false, 0, 0 },
	{ 100 * MIB, 0, 4096, false, UINT64_MAX, UINT64_MAX },
};

START_TEST(test_delay)
{
	struct writeback wb;
	uint64_t delay_ns;

	writeback_init(&wb);
	wb.rate = 10 * MIB;
	delay_ns = writeback_delay_ns(&wb, &conf, delays[_i].dirty, delays[_i].sent,
				      delays[_i].request, delays[_i].online);
	ck_assert_uint_ge(delay_ns, delays[_i].least_ns);
	ck_assert_uint_le(delay_ns, delays[_i].most_ns);
}
END_TEST

/* More that is dirty never means a shorter delay, more of it sent never a longer one. */
START_TEST(test_delay_grows)
{
	struct random rnd = random_begin("delay grows");

	for (unsigned i = 0; i < 200; i++) {
		struct writeback wb;
		struct writeback_conf c = conf;
		uint64_t request = 4096 + random_below(&rnd, MIB), before_ns = 0, sent;

		writeback_init(&wb);
		wb.rate = random_below(&rnd, 1 << 30);
		c.max_dirty_bytes = 2 + random_below(&rnd, 1ull << (10 + random_below(&rnd, 40)));
		c.max_epoch_bytes = 1 + random_below(&rnd, c.max_dirty_bytes / 2);
		sent = random_below(&rnd, c.max_epoch_bytes + 1);
		for (unsigned k = 0; k <= 100; k++) {
			uint64_t dirty = c.max_dirty_bytes / 100 * k;
			uint64_t delay_ns = writeback_delay_ns(&wb, &c, dirty, sent, request, true);

			ck_assert_uint_ge(delay_ns, before_ns);
			ck_assert(delay_ns <= SEC || delay_ns == UINT64_MAX);
			ck_assert_uint_ge(writeback_delay_ns(&wb, &c, dirty, 0, request, true),
					  delay_ns);
			before_ns = delay_ns;
		}
	}
}
END_TEST

/*
 * 2^_i writers against a drain that frees nothing before a whole epoch is through, as the real one:
 * they fill the buffer fast, then settle at the drain's rate below the limit; nobody meets the
 * limit, nobody waits for the end of an epoch.
 */
START_TEST(test_writers_meet_drain)
{
	const uint64_t rate = 12500000, request = 16 << 10, step_ns = NSEC_PER_MSEC;
	unsigned writers = 1u << _i;
	uint64_t since_ns[32] = { 0 }, dirty = 0, sent = 0, written = 0, at_half = 0;
	uint64_t now_ns = SEC, walls = 0, last_ns = 0, longest_ns = 0, busy_until = 0;
	struct writeback wb;
	unsigned next = 0;

	writeback_init(&wb);
	writeback_begin(&wb, now_ns);
	for (unsigned i = 0; i < 120000; i++, now_ns += step_ns) {
		/* The run under way holds max_epoch_bytes; then two round trips of 100 ms. */
		if (now_ns >= busy_until && dirty) {
			uint64_t room = MIN(dirty, conf.max_epoch_bytes) - sent;
			uint64_t gone = MIN(rate / 1000, room);

			sent += gone;
			writeback_delivered(&wb, gone, now_ns);
			if (sent == conf.max_epoch_bytes || sent == dirty) {
				busy_until = now_ns + 200 * NSEC_PER_MSEC;
				dirty -= sent;
				sent = 0;
			}
		}
		/* In turn, as they came. */
		for (unsigned w = 0; w < 4 * writers; w++) {
			uint64_t delay_ns =
				writeback_delay_ns(&wb, &conf, dirty, sent, request, true);

			if (delay_ns == UINT64_MAX) {
				walls++;
				break;
			}
			if (delay_ns && now_ns < last_ns + delay_ns)
				break;
			last_ns = now_ns;
			dirty += request;
			written += request;
			if (since_ns[next])
				longest_ns = MAX(longest_ns, now_ns - since_ns[next]);
			since_ns[next] = now_ns;
			next = (next + 1) % writers;
		}
		ck_assert_uint_le(dirty, conf.max_dirty_bytes);
		if (i == 60000) {
			at_half = written;
			walls = longest_ns = 0;
		}
	}
	ck_assert_uint_eq(walls, 0);
	ck_assert_uint_le(longest_ns, 500 * NSEC_PER_MSEC);
	/* The second minute: as fast as the drain, and the buffer is used. */
	ck_assert_uint_ge(written - at_half, rate * 60 * 80 / 100);
	ck_assert_uint_le(written - at_half, rate * 60 * 103 / 100);
	ck_assert_uint_ge(dirty - sent, conf.max_dirty_bytes * 55 / 100);
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
	ck_assert_uint_eq(writeback_eta_ns(&wb, &conf, 1, 4096, now_ns), UINT64_MAX);
	ck_assert_uint_eq(writeback_eta_ns(&wb, &conf, 0, 0, now_ns), 0);
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
	writeback_ran(&wb, 10000000, SEC, SEC + 50 * NSEC_PER_MSEC);
	ck_assert_uint_ge(writeback_eta_ns(&wb, &conf, 1, 100000000, now_ns), 9 * SEC);
	ck_assert_uint_le(writeback_eta_ns(&wb, &conf, 1, 100000000, now_ns), 11 * SEC);
	ck_assert_uint_lt(writeback_rate(&wb, now_ns + 10 * SEC), 2500000);
	ck_assert_uint_eq(writeback_rate(&wb, now_ns + 60 * SEC), 0);
	ck_assert_uint_eq(writeback_eta_ns(&wb, &conf, 1, 1, now_ns + 60 * SEC), UINT64_MAX);
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

/* ---- what a backlog takes, and whether it is merged ---- */

#define MS NSEC_PER_MSEC

static const struct {
	uint64_t bytes, send_ns, total_ns; /* the one run that was seen; 0: none */
	uint64_t epochs, backlog;          /* what waits */
	uint64_t least_ns, most_ns;        /* of strict order */
	bool adaptive;
	uint64_t max_lag_ns;
	bool merge;
} lags[] = {
	{ 0, 0, 0, 1000, MIB, UINT64_MAX, UINT64_MAX, true, 0, false },
	{ 8192, 50 * MS, 100 * MS, 0, 0, 0, 0, true, 0, false },
	{ 8192, 50 * MS, 100 * MS, 1, 8192, 100 * MS, 101 * MS, true, 0, false },
	{ 8192, 50 * MS, 100 * MS, 100, 800 << 10, 10 * SEC, 11 * SEC, true, 30 * SEC, false },
	{ 8192, 50 * MS, 100 * MS, 1000, 8 * MIB, 100 * SEC, 101 * SEC, true, 30 * SEC, true },
	{ 8192, 50 * MS, 100 * MS, 1000, 8 * MIB, 100 * SEC, 101 * SEC, false, 30 * SEC, false },
	/* Nothing but a long run is known: its SYNC tells what a turn costs. */
	{ 10 * MIB, SEC, SEC + 50 * MS, 2, 100 * MIB, 10 * SEC, 11 * SEC, true, 10 * SEC, true },
	{ 10 * MIB, SEC, SEC + 50 * MS, 100, 0, 10 * SEC, 10 * SEC, true, 9 * SEC, true },
	/* One epoch cannot be merged with anything. */
	{ 10 * MIB, SEC, SEC + 50 * MS, 1, 1000 * MIB, 100 * SEC, 101 * SEC, true, 10 * SEC,
	  false },
};

START_TEST(test_lag)
{
	struct writeback_conf c = conf;
	struct writeback wb;
	uint64_t ns;

	writeback_init(&wb);
	c.adaptive = lags[_i].adaptive;
	c.max_lag_ns = lags[_i].max_lag_ns;
	if (lags[_i].total_ns)
		writeback_ran(&wb, lags[_i].bytes, lags[_i].send_ns, lags[_i].total_ns);
	ns = writeback_runs_ns(&wb, lags[_i].epochs, lags[_i].backlog);
	ck_assert_uint_ge(ns, lags[_i].least_ns);
	ck_assert_uint_le(ns, lags[_i].most_ns);
	ck_assert_int_eq(writeback_should_merge(&wb, &c, lags[_i].epochs, lags[_i].backlog),
			 lags[_i].merge);
}
END_TEST

/*
 * Whatever runs were seen: more epochs or more bytes never take less time, merging is begun at one
 * size of the backlog and not given up beyond, and it never makes the estimate longer.
 */
START_TEST(test_lag_grows)
{
	struct random rnd = random_begin("lag grows");

	for (unsigned i = 0; i < 300; i++) {
		struct writeback_conf strict = conf, adaptive = conf;
		uint64_t now_ns = SEC, before_ns = 0;
		struct writeback wb;
		bool merged = false;

		writeback_init(&wb);
		adaptive.adaptive = true;
		adaptive.max_lag_ns = random_below(&rnd, 60 * SEC);
		for (uint64_t n = 1 + random_below(&rnd, 8); n; n--) {
			uint64_t bytes = 1 + random_below(&rnd, 1ull << random_below(&rnd, 28));
			uint64_t send_ns = random_below(&rnd, 5 * SEC);

			writeback_ran(&wb, bytes, send_ns, send_ns + random_below(&rnd, SEC));
			writeback_delivered(&wb, bytes, now_ns += SEC);
		}
		for (uint64_t epochs = 1; epochs < 200; epochs += 7) {
			uint64_t bytes = epochs << 14;
			uint64_t ns = writeback_runs_ns(&wb, epochs, bytes);
			bool merge = writeback_should_merge(&wb, &adaptive, epochs, bytes);

			ck_assert_uint_ge(ns, before_ns);
			ck_assert_uint_ge(writeback_runs_ns(&wb, epochs, bytes + MIB), ns);
			ck_assert(merge || !merged);
			ck_assert(!writeback_should_merge(&wb, &strict, epochs, bytes));
			ck_assert(merge == (epochs > 1 && ns > adaptive.max_lag_ns));
			ck_assert_uint_le(writeback_eta_ns(&wb, &adaptive, epochs, bytes, now_ns),
					  writeback_eta_ns(&wb, &strict, epochs, bytes, now_ns));
			merged = merge;
			before_ns = ns;
		}
	}
}
END_TEST

static const struct {
	uint64_t commands, bytes;
	bool fua;
} fuas[] = {
	{ 0, 0, false },       { 1, 4096, true },     { 4, 16384, true },
	{ 5, 20480, false },   { 1, 64 << 10, true }, { 1, (64 << 10) + 4096, false },
	{ 4, 64 << 10, true },
};

START_TEST(test_fua)
{
	ck_assert_int_eq(writeback_by_fua(fuas[_i].commands, fuas[_i].bytes), fuas[_i].fua);
}
END_TEST

static const struct {
	uint64_t rate, answered, left; /* MiB (a second) */
	bool due;
} checkpoints[] = {
	{ 0, 11, 100, false },   { 0, 12, 100, true },    { 0, 12, 11, false },
	{ 1, 3, 100, false },    { 1, 4, 100, true },     { 1, 4, 3, false },
	{ 100, 99, 200, false }, { 100, 100, 100, true }, { 100, 200, 99, false },
};

START_TEST(test_checkpoint)
{
	struct writeback wb;

	writeback_init(&wb);
	if (checkpoints[_i].rate)
		writeback_ran(&wb, checkpoints[_i].rate * MIB, SEC, SEC);
	ck_assert_int_eq(writeback_checkpoint_due(&wb, checkpoints[_i].answered * MIB,
						  checkpoints[_i].left * MIB),
			 checkpoints[_i].due);
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
	tcase_add_loop_test(tc, test_lag, 0, (int)ARRAY_SIZE(lags));
	tcase_add_test(tc, test_lag_grows);
	tcase_add_loop_test(tc, test_fua, 0, (int)ARRAY_SIZE(fuas));
	tcase_add_loop_test(tc, test_checkpoint, 0, (int)ARRAY_SIZE(checkpoints));
	tcase_add_test(tc, test_rate);
	tcase_add_test(tc, test_rate_follows);
	suite_add_tcase(suite, tc);
	return run_suite(suite);
}
