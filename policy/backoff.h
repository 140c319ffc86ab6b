// SPDX-License-Identifier: Apache-2.0
/* How long to wait before trying again. Pure; the caller serialises calls on one struct backoff. */
#ifndef POLICY_BACKOFF_H
#define POLICY_BACKOFF_H

#include <stdint.h>

struct backoff {
	uint64_t min_ns; /* the first delay, > 0 */
	uint64_t max_ns; /* the longest, >= min_ns */
	unsigned tries;  /* delays given out since the last success */
};

/*
 * The next delay: with d = min_ns, 2 min_ns, 4 min_ns, … up to max_ns, a value in [d / 2, d] picked
 * by @random (any 64 bits; the same ones give the same delay), so that many who lost one server do
 * not come back in step.
 */
uint64_t backoff_next_ns(struct backoff *b, uint64_t random);

/* It worked: begin with min_ns again. */
void backoff_reset(struct backoff *b);

#endif
