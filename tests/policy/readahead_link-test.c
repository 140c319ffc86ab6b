// SPDX-License-Identifier: Apache-2.0
/*
 * A sequential reader on a simulated link: does readahead keep the link busy?
 *
 * The link is a pipe: a request's answer comes a round trip later, or when the
 * link has carried what was asked before it. The clock is the simulation's.
 */
#include <check.h>
#include <stdio.h>

#include "core/cleanup.h"
#include "core/clock.h"
#include "policy/readahead.h"
#include "tests/policy/random.h"
#include "tests/lib/run.h"

#define BLOCK 4096u
#define MAX_QUEUE 16
#define MAX_FLIGHT 8192
/* What a request costs that finds everything here. */
#define LOCAL_NS (50 * NSEC_PER_USEC)

enum knowledge { BLIND, TOLD };

struct reader {
	const char *name;
	uint64_t request;
	unsigned queue;   /* requests in flight */
	unsigned shuffle; /* arrive in any order within groups of so many */
	bool backward;
};

static const struct reader readers[] = {
	{ "buffered 128K pairs", 128 << 10, 2, 2, false },
	{ "one at a time 128K", 128 << 10, 1, 1, false },
	{ "direct 1M QD8", 1 << 20, 8, 8, false },
	{ "direct 1M QD1", 1 << 20, 1, 1, false },
	{ "backward 128K", 128 << 10, 2, 2, true },
};

struct flight {
	uint64_t done_ns, length;
};

struct sim {
	struct readahead ra;
	enum knowledge knowledge;
	uint64_t rate, rtt_ns, budget;
	uint64_t now_ns, link_free_ns;
	uint64_t size;
	uint64_t *here_ns;                /* per block: when it has arrived; 0 = not asked for */
	struct flight flight[MAX_FLIGHT]; /* readahead, in the order of arrival */
	unsigned flight_head, flight_tail;
	uint64_t in_flight, carried;
};

static uint64_t transfer(struct sim *s, uint64_t offset, uint64_t length)
{
	uint64_t begin = MAX(s->now_ns + s->rtt_ns, s->link_free_ns);
	uint64_t end = begin + length * NSEC_PER_SEC / s->rate;

	s->link_free_ns = end;
	s->carried += length;
	for (uint64_t b = offset / BLOCK; b < (offset + length) / BLOCK; b++)
		s->here_ns[b] = end;
	return end;
}

static struct readahead_env env_of(const struct sim *s)
{
	struct readahead_env env = {
		.now_ns = s->now_ns,
		.budget_bytes = s->budget,
		.in_flight_bytes = s->in_flight,
	};

	if (s->knowledge == TOLD) {
		env.rate_bytes_per_s = s->rate;
		env.rtt_ns = s->rtt_ns;
	}
	return env;
}

static void prefetch(struct sim *s, const struct readahead_range *r, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		struct flight *f = &s->flight[s->flight_tail % MAX_FLIGHT];
		uint64_t done_ns = s->now_ns;

		ck_assert(r[i].length && r[i].length <= READAHEAD_RANGE_MAX_BYTES);
		ck_assert_uint_le(r[i].offset + r[i].length, s->size);
		for (uint64_t o = r[i].offset; o < r[i].offset + r[i].length; o += BLOCK)
			if (!s->here_ns[o / BLOCK])
				done_ns = transfer(s, o, BLOCK);
		if (done_ns == s->now_ns)
			continue;
		*f = (struct flight){ done_ns, r[i].length };
		s->flight_tail++;
		ck_assert_uint_lt(s->flight_tail - s->flight_head, MAX_FLIGHT);
		s->in_flight += r[i].length;
		ck_assert_uint_le(s->in_flight, s->budget);
	}
}

/* A demand read; returns when it can be answered. */
static uint64_t demand(struct sim *s, uint64_t offset, uint64_t length)
{
	struct readahead_range out[32];
	struct readahead_env env = env_of(s);
	uint64_t ready_ns = s->now_ns + LOCAL_NS;
	bool hit = true;
	unsigned n;

	for (uint64_t o = offset; o < offset + length; o += BLOCK) {
		if (!s->here_ns[o / BLOCK])
			transfer(s, o, BLOCK);
		if (s->here_ns[o / BLOCK] > s->now_ns)
			hit = false;
		ready_ns = MAX(ready_ns, s->here_ns[o / BLOCK]);
	}
	n = readahead_access(&s->ra, &env, offset, length, hit, out, 32);
	prefetch(s, out, n);
	return ready_ns;
}

static void land(struct sim *s)
{
	struct flight *f = &s->flight[s->flight_head++ % MAX_FLIGHT];
	struct readahead_range out[8];
	struct readahead_env env;
	unsigned n;

	s->now_ns = MAX(s->now_ns, f->done_ns);
	s->in_flight -= f->length;
	env = env_of(s);
	n = readahead_resume(&s->ra, &env, out, 8);
	prefetch(s, out, n);
}

static uint64_t nth_offset(const struct reader *r, uint64_t size, const unsigned *order, uint64_t i)
{
	uint64_t at = (i / r->shuffle * r->shuffle + order[i % r->shuffle]) * r->request;

	return r->backward ? size - at - r->request : at;
}

static void shuffle(struct random *rnd, unsigned *order, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		order[i] = i;
	for (unsigned i = n; i > 1; i--) {
		unsigned j = (unsigned)random_below(rnd, i);
		unsigned t = order[i - 1];

		order[i - 1] = order[j];
		order[j] = t;
	}
}

/* Read all of the volume; returns the link's use behind the first quarter, and of the whole. */
static double run(struct sim *s, const struct reader *r, struct random *rnd, double *ret_whole)
{
	uint64_t total = s->size / r->request, issued = 0, ended = 0, ramp_ns = 0, ramp_ended = 0;
	uint64_t ready_ns[MAX_QUEUE];
	unsigned order[MAX_QUEUE], queued = 0;

	while (ended < total) {
		unsigned first = 0;

		while (queued < r->queue && issued < total) {
			if (issued % r->shuffle == 0)
				shuffle(rnd, order, r->shuffle);
			ready_ns[queued++] =
				demand(s, nth_offset(r, s->size, order, issued), r->request);
			issued++;
		}
		for (unsigned i = 1; i < queued; i++)
			if (ready_ns[i] < ready_ns[first])
				first = i;
		while (s->flight_head != s->flight_tail &&
		       s->flight[s->flight_head % MAX_FLIGHT].done_ns <= ready_ns[first])
			land(s);
		s->now_ns = MAX(s->now_ns, ready_ns[first]);
		ready_ns[first] = ready_ns[--queued];
		ended++;
		if (!ramp_ns && ended >= total / 4) {
			ramp_ns = s->now_ns;
			ramp_ended = ended;
		}
	}
	*ret_whole = (double)s->size / (double)s->rate * 1e9 / (double)s->now_ns;
	return (double)((ended - ramp_ended) * r->request) / (double)s->rate * 1e9 /
	       (double)(s->now_ns - ramp_ns);
}

static void check_link(struct random *rnd, uint64_t rate, uint64_t rtt_ms, uint64_t budget)
{
	static const char *const names[] = { "blind", "told" };

	for (unsigned i = 0; i < ARRAY_SIZE(readers); i++) {
		for (enum knowledge k = BLIND; k <= TOLD; k++) {
			cleanup_free struct sim *s = calloc(1, sizeof(*s));
			cleanup_free uint64_t *here_ns = NULL;
			uint64_t path = rate * rtt_ms / 1000;
			double busy, whole;

			ck_assert_ptr_nonnull(s);
			s->knowledge = k;
			s->rate = rate;
			s->rtt_ns = rtt_ms * NSEC_PER_MSEC;
			s->budget = budget;
			s->now_ns = NSEC_PER_SEC;
			s->size = MAX(path * 24, (uint64_t)64 << 20) >> 23 << 23;
			here_ns = calloc(s->size / BLOCK, sizeof(*here_ns));
			ck_assert_ptr_nonnull(here_ns);
			s->here_ns = here_ns;
			readahead_init(&s->ra, s->size);
			s->now_ns = 1;
			busy = run(s, &readers[i], rnd, &whole);
			printf("%4llu Mbit/s %3llu ms %-20s %-8s busy %.3f, from the start %.3f\n",
			       (unsigned long long)(rate * 8 / 1000000), (unsigned long long)rtt_ms,
			       readers[i].name, names[k], busy, whole);
			ck_assert_msg(busy >= 0.95, "the link idles");
			ck_assert_uint_eq(s->carried, s->size);
		}
	}
}

static const uint64_t rtts_ms[] = { 10, 50, 100, 200 };

START_TEST(test_100_mbit)
{
	struct random rnd = random_begin("100 Mbit/s");

	check_link(&rnd, 12500000, rtts_ms[_i], 16 << 20);
}
END_TEST

START_TEST(test_1_gbit)
{
	struct random rnd = random_begin("1 Gbit/s");

	check_link(&rnd, 125000000, rtts_ms[_i], 64 << 20);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("readahead_link");
	TCase *tc = tcase_create("link");

	tcase_add_loop_test(tc, test_100_mbit, 0, (int)ARRAY_SIZE(rtts_ms));
	tcase_add_loop_test(tc, test_1_gbit, 0, (int)ARRAY_SIZE(rtts_ms));
	tcase_set_timeout(tc, 60);
	suite_add_tcase(suite, tc);
	return run_suite(suite);
}
