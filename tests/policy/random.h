// SPDX-License-Identifier: Apache-2.0
/* A seeded generator for property tests (SplitMix64). The seed is printed and can be given. */
#ifndef TESTS_POLICY_RANDOM_H
#define TESTS_POLICY_RANDOM_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

struct random {
	uint64_t state;
};

static inline uint64_t random_next(struct random *r)
{
	uint64_t v = r->state += 0x9e3779b97f4a7c15ull;

	v = (v ^ (v >> 30)) * 0xbf58476d1ce4e5b9ull;
	v = (v ^ (v >> 27)) * 0x94d049bb133111ebull;
	return v ^ (v >> 31);
}

/* 0..@bound - 1 */
static inline uint64_t random_below(struct random *r, uint64_t bound)
{
	return random_next(r) % bound;
}

/* From TEST_SEED in the environment, else a new one each run; says which. */
static inline struct random random_begin(const char *test)
{
	const char *given = getenv("TEST_SEED");
	struct timespec ts;
	struct random r;

	clock_gettime(CLOCK_REALTIME, &ts);
	r.state = given ? strtoull(given, NULL, 0)
			: (uint64_t)ts.tv_sec * 1000000007u ^ (uint64_t)ts.tv_nsec;
	printf("%s: TEST_SEED=%#llx\n", test, (unsigned long long)r.state);
	fflush(stdout);
	return r;
}

#endif
