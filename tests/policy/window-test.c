// SPDX-License-Identifier: Apache-2.0
/*
 * The window on a simulated link: a pipe of some rate behind a queue without end, so that bytes in
 * flight beyond rate × RTT only wait. Commands of 64 KiB; the clock is the simulation's.
 */
#include <check.h>
#include <stdio.h>

#include "core/cleanup.h"
#include "core/clock.h"
#include "policy/window.h"
#include "tests/lib/run.h"

#define COMMAND (64u << 10)
#define MAX_FLIGHT 8192

struct link {
	uint64_t rate, rtt_ns, now_ns, free_ns;
	uint64_t sent_ns[MAX_FLIGHT], done_ns[MAX_FLIGHT];
	unsigned head, tail;
	uint64_t delivered;
	uint64_t worst_rtt_ns; /* since it was cleared */
	struct window w;
};

static void start(struct link *l, uint64_t rate, uint64_t rtt_ms)
{
	*l = (struct link){ .rate = rate, .rtt_ns = rtt_ms * NSEC_PER_MSEC, .now_ns = 1 };
	window_init(&l->w);
}

/* Run for @ns with at most @limit bytes in flight, whatever the window allows. */
static void run(struct link *l, uint64_t ns, uint64_t limit)
{
	uint64_t end_ns = l->now_ns + ns;

	while (l->now_ns < end_ns) {
		uint64_t bytes = window_bytes(&l->w);
		unsigned i;

		window_app_limited(&l->w, limit < bytes);
		bytes = MIN(bytes, limit);
		while ((uint64_t)(l->tail - l->head + 1) * COMMAND <= bytes) {
			uint64_t begin_ns = MAX(l->now_ns + l->rtt_ns, l->free_ns);

			i = l->tail++ % MAX_FLIGHT;
			l->sent_ns[i] = l->now_ns;
			l->free_ns = begin_ns + COMMAND * NSEC_PER_SEC / l->rate;
			l->done_ns[i] = l->free_ns;
		}
		ck_assert_uint_lt(l->tail - l->head, MAX_FLIGHT);
		if (l->head == l->tail) {
			l->now_ns = end_ns;
			return;
		}
		i = l->head++ % MAX_FLIGHT;
		l->now_ns = l->done_ns[i];
		l->delivered += COMMAND;
		l->worst_rtt_ns = MAX(l->worst_rtt_ns, l->now_ns - l->sent_ns[i]);
		window_sample(&l->w, l->now_ns, l->delivered, l->now_ns - l->sent_ns[i]);
	}
}

static const struct {
	uint64_t rate, rtt_ms;
} links[] = {
	{ 12500000, 10 },  { 12500000, 50 },  { 12500000, 100 },  { 12500000, 250 },
	{ 125000000, 10 }, { 125000000, 50 }, { 125000000, 100 }, { 125000000, 200 },
};

START_TEST(test_fills_path)
{
	static struct link l;
	uint64_t path, before, before_ns;
	double use;

	start(&l, links[_i].rate, links[_i].rtt_ms);
	path = l.rate * links[_i].rtt_ms / 1000;
	/* The beginning may take as long as doubling takes. */
	run(&l, 15 * l.rtt_ns, UINT64_MAX);
	before = l.delivered;
	before_ns = l.now_ns;
	l.worst_rtt_ns = 0;
	run(&l, 60 * NSEC_PER_SEC, UINT64_MAX);
	use = (double)(l.delivered - before) * 1e9 / (double)(l.now_ns - before_ns) /
	      (double)l.rate;
	printf("%llu B/s, %llu ms: %.3f used, window %.2f paths, worst %.2f round trips\n",
	       (unsigned long long)l.rate, (unsigned long long)links[_i].rtt_ms, use,
	       (double)window_bytes(&l.w) / (double)path,
	       (double)l.worst_rtt_ns / (double)l.rtt_ns);
	ck_assert_msg(use >= 0.95, "the link idles");
	ck_assert_uint_ge(window_rate(&l.w), l.rate * 95 / 100);
	ck_assert_uint_le(window_rate(&l.w), l.rate * 105 / 100);
	/* No standing queue: half a path, or what the least window makes. */
	ck_assert_uint_le(window_bytes(&l.w),
			  MAX(path * 3 / 2 + 2 * COMMAND, WINDOW_MIN_BYTES * 3ull / 2));
	ck_assert_uint_le(l.worst_rtt_ns, 4 * l.rtt_ns + 30 * NSEC_PER_MSEC);
}
END_TEST

/* The path becomes ten times as fast, then ten times slower; then longer. */
START_TEST(test_follows)
{
	static struct link l;

	start(&l, 12500000, 50);
	run(&l, 10 * NSEC_PER_SEC, UINT64_MAX);
	l.rate = 125000000;
	run(&l, 20 * NSEC_PER_SEC, UINT64_MAX);
	ck_assert_uint_ge(window_rate(&l.w), 115000000);
	l.rate = 12500000;
	run(&l, 30 * NSEC_PER_SEC, UINT64_MAX);
	ck_assert_uint_le(window_rate(&l.w), 14000000);
	ck_assert_uint_le(window_bytes(&l.w), 12500000 / 20 * 2);
	l.rtt_ns = 150 * NSEC_PER_MSEC;
	run(&l, 40 * NSEC_PER_SEC, UINT64_MAX);
	ck_assert_uint_ge(window_rtt(&l.w), 150 * NSEC_PER_MSEC);
	ck_assert_uint_ge(window_bytes(&l.w), 12500000 / 1000 * 150);
}
END_TEST

/* A sender with little to send learns nothing wrong. */
START_TEST(test_app_limited)
{
	static struct link l;
	uint64_t rate;

	start(&l, 12500000, 100);
	run(&l, 10 * NSEC_PER_SEC, UINT64_MAX);
	rate = window_rate(&l.w);
	ck_assert_uint_ge(rate, 11875000);
	run(&l, 30 * NSEC_PER_SEC, 2 * COMMAND);
	ck_assert_uint_eq(window_rate(&l.w), rate);
}
END_TEST

START_TEST(test_unknown)
{
	struct window w;

	window_init(&w);
	ck_assert_uint_eq(window_bytes(&w), WINDOW_MIN_BYTES);
	ck_assert_uint_eq(window_rate(&w), 0);
	ck_assert_uint_eq(window_rtt(&w), 0);
	/* No round trips known, a clock that stands still or steps back: still a window. */
	window_sample(&w, 1000, 1, 0);
	window_sample(&w, 1000, 1 << 20, 0);
	window_sample(&w, 10, 2 << 20, 0);
	for (uint64_t i = 1; i < 100; i++)
		window_sample(&w, i * NSEC_PER_SEC, i << 40, 0);
	ck_assert_uint_ge(window_bytes(&w), WINDOW_MIN_BYTES);
	ck_assert_uint_le(window_bytes(&w), WINDOW_MAX_BYTES);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("window");
	TCase *tc = tcase_create("window");

	tcase_add_loop_test(tc, test_fills_path, 0, (int)ARRAY_SIZE(links));
	tcase_add_test(tc, test_follows);
	tcase_add_test(tc, test_app_limited);
	tcase_add_test(tc, test_unknown);
	tcase_set_timeout(tc, 60);
	suite_add_tcase(suite, tc);
	return run_suite(suite);
}
