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
 *            own queue hides it: 1/2 of the path for two round trips, and
 *            the lowest seen then is the new one, be it higher.
 *
 * Invariants: rounds in rate[] beyond `rounds` are 0; a round in which the sender
 * had too little to send replaces nothing, unless it is the highest.
 */
#include "policy/window.h"

#include <string.h>

#include "core/cleanup.h"
#include "core/clock.h"

#define RTT_AGE_NS (10 * NSEC_PER_SEC)
#define ROUND_MIN_NS NSEC_PER_MSEC
#define FULL_ROUNDS 3

static uint64_t mul_div(uint64_t a, uint64_t b, uint64_t c)
{
	unsigned __int128 v = (unsigned __int128)a * b / c;

	return v > UINT64_MAX ? UINT64_MAX : (uint64_t)v;
}

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
	w->startup_bytes = MIN(w->startup_bytes * 2, (uint64_t)WINDOW_MAX_BYTES);
}

static void turn_phase(struct window *w, uint64_t now_ns)
{
	if (w->phase == WINDOW_STEADY && now_ns - w->min_rtt_at_ns > RTT_AGE_NS) {
		w->phase = WINDOW_DRAIN;
		w->drain_rtt_ns = 0;
		/* The queue that is there now must leave before the path shows itself. */
		w->drain_until_ns = now_ns + 3 * w->min_rtt_ns;
	} else if (w->phase == WINDOW_DRAIN && now_ns >= w->drain_until_ns && w->drain_rtt_ns) {
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
	/* rtt_ns too: with a queue the answers to this round's commands take that long. */
	least_ns = MAX(w->min_rtt_ns, rtt_ns);
	length_ns = now_ns > w->round_ns ? now_ns - w->round_ns : 0;
	if (length_ns < MAX(least_ns, ROUND_MIN_NS))
		return;
	end_round(w, mul_div(bytes_delivered_total - w->round_base, NSEC_PER_SEC, length_ns));
	w->round_ns = now_ns;
	w->round_base = bytes_delivered_total;
	w->round_limited = w->app_limited;
	turn_phase(w, now_ns);
}

uint64_t window_bytes(const struct window *w)
{
	uint64_t path_bytes = mul_div(window_rate(w), w->min_rtt_ns, NSEC_PER_SEC);
	uint64_t bytes;

	if (w->phase == WINDOW_STARTUP)
		bytes = w->startup_bytes;
	else if (w->phase == WINDOW_STEADY)
		bytes = path_bytes + path_bytes / 4;
	else
		bytes = path_bytes / 2;
	return MIN(MAX(bytes, (uint64_t)WINDOW_MIN_BYTES), (uint64_t)WINDOW_MAX_BYTES);
}
