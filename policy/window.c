// SPDX-License-Identifier: Apache-2.0
/*
 * Time is cut into rounds of one round trip. Each gives one rate: bytes delivered
 * over its length. States:
 *
 *   STARTUP  the window doubles each round; ends when three rounds in a row did
 *            not raise the rate by a quarter.
 *   STEADY   window = 5/4 × highest rate × lowest round trip. The quarter on top
 *            finds capacity that has become free; it costs a quarter round trip of
 *            queue.
 *   DRAIN    the lowest round trip was last seen RTT_AGE_NS ago, perhaps because our
 *            own queue hides it. So for two rounds 3/4 of what the path
 *            carried in the last one: the first round ends when all that was sent
 *            before is answered, the second sees a path without queue. The lowest
 *            round trip of both is the new one, be it higher. The highest rate does
 *            not count here: where the path has become slower it is what made the queue,
 *            and a round trip measured in that queue would keep it for ever.
 *
 * Invariants: rounds in rate[] beyond `rounds` are 0; a round in which the sender
 * had too little to send replaces nothing, unless it is the highest.
 */
#include "policy/window.h"

#include <string.h>

#include "core/cleanup.h"
#include "core/clock.h"
#include "policy/ratio.h"

#define RTT_AGE_NS (10 * NSEC_PER_SEC)
#define ROUND_MIN_NS NSEC_PER_MSEC
#define FULL_ROUNDS 3
#define STARTUP_PATHS 2
#define DRAIN_ROUNDS 2

void window_init(struct window *w)
{
	memset(w, 0, sizeof(*w));
	w->startup_bytes = WINDOW_MIN_BYTES;
}

void window_app_limited(struct window *w, bool limited)
{
	w->app_limited = limited;
	if (limited)
		w->round_limited = true;
}

uint64_t window_rate(const struct window *w)
{
	uint64_t best = 0;

	for (unsigned i = 0; i < WINDOW_ROUNDS; i++)
		best = MAX(best, w->rate[i]);
	return best;
}

uint64_t window_rtt(const struct window *w)
{
	return w->min_rtt_ns;
}

/* What the path holds at @rate. */
static uint64_t path_bytes(const struct window *w, uint64_t rate)
{
	return ratio_mul_div(rate, w->min_rtt_ns, NSEC_PER_SEC);
}

static void sample_rtt(struct window *w, uint64_t now_ns, uint64_t rtt_ns)
{
	if (w->phase == WINDOW_DRAIN) {
		if (!w->drain_rtt_ns || rtt_ns < w->drain_rtt_ns)
			w->drain_rtt_ns = rtt_ns;
	}
	if (!w->min_rtt_ns || rtt_ns <= w->min_rtt_ns) {
		w->min_rtt_ns = rtt_ns;
		w->min_rtt_at_ns = now_ns;
	}
}

/* A round has ended with @rate. */
static void end_round(struct window *w, uint64_t rate)
{
	if (w->phase != WINDOW_DRAIN)
		w->last_rate = rate;
	/* DRAIN sends less on purpose, so its rounds say as little as those of a lazy sender. */
	if ((w->round_limited || w->phase == WINDOW_DRAIN) && rate <= window_rate(w))
		return;
	w->rate[w->rounds++ % WINDOW_ROUNDS] = rate;
	if (w->phase != WINDOW_STARTUP)
		return;
	if (rate >= w->full_rate + w->full_rate / 4) {
		w->full_rate = rate;
		w->full_rounds = 0;
	} else if (++w->full_rounds >= FULL_ROUNDS) {
		w->phase = WINDOW_STEADY;
		return;
	}
	/* Enough to double the rate again; more would only be queue at the end of this phase. */
	if (w->startup_bytes <= STARTUP_PATHS * path_bytes(w, window_rate(w)))
		w->startup_bytes = MIN(w->startup_bytes * 2, (uint64_t)WINDOW_MAX_BYTES);
}

static void turn_phase(struct window *w, uint64_t now_ns)
{
	if (w->phase == WINDOW_STEADY && now_ns - w->min_rtt_at_ns > RTT_AGE_NS) {
		w->phase = WINDOW_DRAIN;
		w->drain_rtt_ns = 0;
		w->drain_rounds = 0;
	} else if (w->phase == WINDOW_DRAIN && ++w->drain_rounds >= DRAIN_ROUNDS &&
		   w->drain_rtt_ns) {
		w->phase = WINDOW_STEADY;
		w->min_rtt_ns = w->drain_rtt_ns;
		w->min_rtt_at_ns = now_ns;
	}
}

void window_sample(struct window *w, uint64_t now_ns, uint64_t bytes_delivered_total,
		   uint64_t rtt_ns)
{
	uint64_t length_ns, least_ns;

	if (rtt_ns)
		sample_rtt(w, now_ns, rtt_ns);
	if (!w->round_ns) {
		w->round_ns = now_ns;
		w->round_base = bytes_delivered_total;
		return;
	}
	/* A round ends with the first answer to what was sent in it. */
	least_ns = MAX(w->min_rtt_ns, rtt_ns);
	length_ns = now_ns > w->round_ns ? now_ns - w->round_ns : 0;
	if (length_ns < MAX(least_ns, ROUND_MIN_NS))
		return;
	end_round(w, ratio_mul_div(bytes_delivered_total - w->round_base, NSEC_PER_SEC, length_ns));
	w->round_ns = now_ns;
	w->round_base = bytes_delivered_total;
	w->round_limited = w->app_limited;
	turn_phase(w, now_ns);
}

uint64_t window_bytes(const struct window *w)
{
	uint64_t bytes;

	if (w->phase == WINDOW_STARTUP)
		bytes = w->startup_bytes;
	else if (w->phase == WINDOW_STEADY)
		bytes = path_bytes(w, window_rate(w)) / 4 * 5;
	else
		bytes = path_bytes(w, w->last_rate) / 4 * 3;
	return MIN(MAX(bytes, (uint64_t)WINDOW_MIN_BYTES), (uint64_t)WINDOW_MAX_BYTES);
}
