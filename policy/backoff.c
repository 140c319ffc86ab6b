// SPDX-License-Identifier: Apache-2.0
#include "policy/backoff.h"

uint64_t backoff_next_ns(struct backoff *b, uint64_t random)
{
	uint64_t delay_ns = b->min_ns;
	uint64_t half_ns;

	for (unsigned i = 0; i < b->tries && delay_ns < b->max_ns; i++)
		delay_ns = delay_ns > b->max_ns / 2 ? b->max_ns : delay_ns * 2;
	/* Enough tries to reach any max_ns; counting on would wrap some day. */
	if (b->tries < 64)
		b->tries++;
	half_ns = delay_ns / 2;
	return delay_ns - half_ns + random % (half_ns + 1);
}

void backoff_reset(struct backoff *b)
{
	b->tries = 0;
}
