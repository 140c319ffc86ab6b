// SPDX-License-Identifier: Apache-2.0
#include "policy/window.h"

#include <string.h>

#include "core/cleanup.h"
#include "core/clock.h"

/* 4 sessions put 2 MiB on the way before anything is known: 170 ms of a 100 Mbit/s link. */
#define INITIAL_BYTES (512u << 10)
/* How long a shortest time is believed. */
#define MIN_AGE_NS (30 * NSEC_PER_SEC)
/*
 * Added to the shortest time: the work of the target itself varies, and a window of exactly
 * rate × time could never find out that more goes through.
 */
#define SLACK_NS (5 * NSEC_PER_MSEC)
#define FLAT_ROUNDS 3

void window_init(struct window *w)
{
	memset(w, 0, sizeof(*w));
}

uint64_t window_rate(const struct window *w)
{
	uint64_t best = 0;

	for (unsigned i = 0; i < WINDOW_ROUNDS; i++)
		best = MAX(best, w->rate[i]);
	return best;
}

uint64_t window_limit(const struct window *w)
{
	uint64_t rate = window_rate(w);
	double bytes;

	if (w->probe != WINDOW_OPEN)
		return WINDOW_MIN;
	if (!rate)
		return INITIAL_BYTES;
	bytes = (double)rate * (double)(w->min_ns + SLACK_NS) / (double)NSEC_PER_SEC;
	bytes *= w->full ? 1.25 : 2.0;
	if (bytes > WINDOW_MAX)
		return WINDOW_MAX;
	return MAX((uint64_t)bytes, (uint64_t)WINDOW_MIN);
}

void window_sent(struct window *w, uint64_t bytes, uint64_t now_ns, struct window_stamp *ret_stamp)
{
	if (!w->in_flight_bytes)
		w->delivered_ns = now_ns;
	w->in_flight_bytes += bytes;
	*ret_stamp = (struct window_stamp){
		.sent_ns = now_ns,
		.delivered_bytes = w->delivered_bytes,
		.delivered_ns = w->delivered_ns,
		.limited = w->in_flight_bytes < window_limit(w) / 2,
	};
	if (w->probe == WINDOW_OPEN && w->min_ns && now_ns - w->min_at_ns > MIN_AGE_NS) {
		w->probe = WINDOW_EMPTYING;
		w->probe_ns = now_ns;
	}
}

/*
 * A probe takes two commands, whatever else is in flight: what is urgent does not ask for room, and
 * waiting until it pauses would keep the window closed for all others. The time measured then has
 * its queue in it, but none of ours.
 */
static void measure_time(struct window *w, const struct window_stamp *stamp, uint64_t now_ns)
{
	uint64_t took = now_ns - stamp->sent_ns;
	bool since = stamp->sent_ns >= w->probe_ns;

	if (!w->min_ns || took < w->min_ns || (w->probe == WINDOW_MEASURING && since)) {
		w->min_ns = MAX(took, (uint64_t)1);
		w->min_at_ns = now_ns;
		w->probe = WINDOW_OPEN;
	} else if (w->probe == WINDOW_EMPTYING && since) {
		w->probe = WINDOW_MEASURING;
		w->probe_ns = now_ns;
	}
}

static void next_round(struct window *w)
{
	uint64_t rate = window_rate(w);

	w->round_end_bytes = w->delivered_bytes + w->in_flight_bytes;
	w->round = (w->round + 1) % WINDOW_ROUNDS;
	w->rate[w->round] = 0;
	if (rate > w->flat_rate + w->flat_rate / 4) {
		w->flat_rate = rate;
		w->flat_rounds = 0;
		w->full = false;
	} else if (++w->flat_rounds >= FLAT_ROUNDS) {
		w->full = true;
		w->flat_rate = rate;
	}
}

void window_answered(struct window *w, const struct window_stamp *stamp, uint64_t bytes,
		     uint64_t now_ns)
{
	uint64_t span, rate;

	w->in_flight_bytes -= MIN(bytes, w->in_flight_bytes);
	w->delivered_bytes += bytes;
	w->delivered_ns = now_ns;
	measure_time(w, stamp, now_ns);

	/* Acknowledgements come in bunches: the time between sends bounds the rate too. */
	span = MAX(now_ns - stamp->delivered_ns, (uint64_t)1000);
	rate = (uint64_t)((double)(w->delivered_bytes - stamp->delivered_bytes) *
			  (double)NSEC_PER_SEC / (double)span);
	if (stamp->limited && rate <= window_rate(w))
		return;
	w->rate[w->round] = MAX(w->rate[w->round], rate);
	if (w->delivered_bytes >= w->round_end_bytes)
		next_round(w);
}

void window_dropped(struct window *w, uint64_t bytes)
{
	w->in_flight_bytes -= MIN(bytes, w->in_flight_bytes);
}
