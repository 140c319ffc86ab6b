// SPDX-License-Identifier: Apache-2.0
/* The window over a simulated path: one queue with a rate, and a delay both ways. */
#include <check.h>
#include <stdlib.h>

#include "core/cleanup.h"
#include "core/clock.h"
#include "policy/window.h"
#include "tests/lib/run.h"

#define COMMAND (64ull << 10)
#define MAX_COMMANDS 4096

struct path {
	uint64_t rate; /* bytes/s */
	uint64_t rtt_ns;
	uint64_t free_ns; /* when the queue is empty */
};

struct flight {
	uint64_t end_ns;
	struct window_stamp stamp;
};

/* Keep the window full for @ns; returns bytes answered. */
static uint64_t run(struct window *w, struct path *p, uint64_t *now, uint64_t ns)
{
	static struct flight queue[MAX_COMMANDS];
	unsigned head = 0, count = 0;
	uint64_t end = *now + ns, bytes = 0;

	while (*now < end) {
		struct flight *f;

		while (count < MAX_COMMANDS && w->in_flight_bytes < window_limit(w)) {
			f = &queue[(head + count++) % MAX_COMMANDS];
			p->free_ns = MAX(p->free_ns, *now + p->rtt_ns / 2) +
				     COMMAND * NSEC_PER_SEC / p->rate;
			f->end_ns = p->free_ns + p->rtt_ns / 2;
			window_sent(w, COMMAND, *now, &f->stamp);
		}
		f = &queue[head];
		head = (head + 1) % MAX_COMMANDS;
		count--;
		*now = f->end_ns;
		window_answered(w, &f->stamp, COMMAND, *now);
		bytes += COMMAND;
	}
	while (count--) {
		*now = queue[head].end_ns;
		window_answered(w, &queue[head].stamp, COMMAND, *now);
		head = (head + 1) % MAX_COMMANDS;
	}
	return bytes;
}

static const struct {
	uint64_t rate, rtt_ms;
} paths[] = {
	{ 3125000, 100 }, /* 100 Mbit/s shared by four sessions */
	{ 12500000, 100 }, { 12500000, 10 },  { 31250000, 100 }, /* 1 Gbit/s shared by four */
	{ 31250000, 250 }, { 125000000, 50 },
};

START_TEST(test_fills_without_flooding)
{
	struct path p = { .rate = paths[_i].rate, .rtt_ns = paths[_i].rtt_ms * NSEC_PER_MSEC };
	uint64_t bdp = p.rate * paths[_i].rtt_ms / 1000, now = NSEC_PER_SEC, got;
	struct window w;

	window_init(&w);
	run(&w, &p, &now, 3 * NSEC_PER_SEC);
	got = run(&w, &p, &now, 5 * NSEC_PER_SEC);
	/* 5 s at the rate, less one window that is still under way at the begin */
	ck_assert_uint_ge(got, p.rate * 5 * 95 / 100 - bdp);
	ck_assert_uint_ge(window_limit(&w), MIN(bdp, WINDOW_MAX));
	ck_assert_uint_le(window_limit(&w), bdp * 2 + 2 * WINDOW_MIN);
	/* Over minutes it does not creep up on its own queue. */
	for (int i = 0; i < 10; i++)
		run(&w, &p, &now, 20 * NSEC_PER_SEC);
	ck_assert_uint_le(window_limit(&w), bdp * 2 + 2 * WINDOW_MIN);
}
END_TEST

START_TEST(test_follows_the_path)
{
	struct path p = { .rate = 12500000, .rtt_ns = 50 * NSEC_PER_MSEC };
	uint64_t now = NSEC_PER_SEC, before;
	struct window w;

	window_init(&w);
	run(&w, &p, &now, 5 * NSEC_PER_SEC);
	before = window_limit(&w);
	p.rate *= 4;
	run(&w, &p, &now, 20 * NSEC_PER_SEC);
	ck_assert_uint_gt(window_limit(&w), before * 2);
	p.rate /= 8;
	run(&w, &p, &now, 20 * NSEC_PER_SEC);
	ck_assert_uint_lt(window_limit(&w), before);
}
END_TEST

/* A path that has become longer is found out, though the old shortest time says otherwise. */
START_TEST(test_longer_path)
{
	struct path p = { .rate = 12500000, .rtt_ns = 50 * NSEC_PER_MSEC };
	uint64_t now = NSEC_PER_SEC, got;
	struct window w;

	window_init(&w);
	run(&w, &p, &now, 5 * NSEC_PER_SEC);
	p.rtt_ns *= 4;
	run(&w, &p, &now, 60 * NSEC_PER_SEC);
	got = run(&w, &p, &now, 5 * NSEC_PER_SEC);
	ck_assert_uint_ge(got, p.rate * 5 * 9 / 10 - p.rate / 5);
	ck_assert_uint_ge(window_limit(&w), p.rate / 5);
}
END_TEST

/* Reads that never ask for room leave no quiet moment, and still the window opens again. */
START_TEST(test_probe_ends_under_urgent_load)
{
	struct path p = { .rate = 12500000, .rtt_ns = 100 * NSEC_PER_MSEC };
	const unsigned urgent = 8; /* commands always in flight, 4 windows of the least size */
	uint64_t now = NSEC_PER_SEC, closed_ns = 0;
	struct window_stamp stamp[8];
	uint64_t end_ns[8];
	struct window w;

	window_init(&w);
	run(&w, &p, &now, 5 * NSEC_PER_SEC);
	for (unsigned i = 0; now < 200 * NSEC_PER_SEC; i++) {
		unsigned at = i % urgent;
		uint64_t before = now;

		if (i >= urgent) {
			now = MAX(now, end_ns[at]);
			window_answered(&w, &stamp[at], COMMAND, now);
		}
		if (w.probe != WINDOW_OPEN)
			closed_ns += now - before;
		p.free_ns = MAX(p.free_ns, now + p.rtt_ns / 2) + COMMAND * NSEC_PER_SEC / p.rate;
		end_ns[at] = p.free_ns + p.rtt_ns / 2;
		window_sent(&w, COMMAND, now, &stamp[at]);
	}
	/* Six or seven probes of two round trips, and a little. */
	ck_assert_uint_gt(closed_ns, 0);
	ck_assert_uint_lt(closed_ns, 3 * NSEC_PER_SEC);
}
END_TEST

START_TEST(test_little_work_says_little)
{
	struct path p = { .rate = 12500000, .rtt_ns = 100 * NSEC_PER_MSEC };
	uint64_t now = NSEC_PER_SEC, before;
	struct window_stamp stamp;
	struct window w;

	window_init(&w);
	run(&w, &p, &now, 5 * NSEC_PER_SEC);
	before = window_rate(&w);
	/* One small command at a time is no measure of the path. */
	for (int i = 0; i < 50; i++) {
		window_sent(&w, 4096, now, &stamp);
		now += p.rtt_ns;
		window_answered(&w, &stamp, 4096, now);
	}
	ck_assert_uint_ge(window_rate(&w), before);
	window_sent(&w, 4096, now, &stamp);
	window_dropped(&w, 4096);
	ck_assert_uint_eq(w.in_flight_bytes, 0);
}
END_TEST

int main(void)
{
	TCase *c = tcase_create("window");
	Suite *suite = suite_create("window");

	tcase_add_loop_test(c, test_fills_without_flooding, 0, (int)ARRAY_SIZE(paths));
	tcase_add_test(c, test_follows_the_path);
	tcase_add_test(c, test_longer_path);
	tcase_add_test(c, test_probe_ends_under_urgent_load);
	tcase_add_test(c, test_little_work_says_little);
	suite_add_tcase(suite, c);
	return run_suite(suite);
}
