// SPDX-License-Identifier: Apache-2.0
/*
 * How many bytes a session should keep in flight in one direction: enough to fill the path, no
 * more, since a full queue is everyone's latency. The idea is BBR's (Cardwell et al., ACM Queue
 * 14-5): the delivered rate times the shortest time a command took, and a little more. Rates
 * measured while there was too little work to fill the window only ever raise the estimate. The
 * shortest time is measured again now and then with the window nearly closed.
 *
 * Pure decisions (see policy/readahead.h for what lives in this folder): nothing here fails, blocks
 * or reads a clock; the caller serialises calls on one struct window.
 */
#ifndef POLICY_WINDOW_H
#define POLICY_WINDOW_H

#include <stdbool.h>
#include <stdint.h>

#define WINDOW_MIN (128u << 10)
#define WINDOW_MAX (16u << 20)
#define WINDOW_ROUNDS 10

enum window_probe {
	WINDOW_OPEN,
	WINDOW_EMPTYING,  /* nearly closed, until what was sent before is answered */
	WINDOW_MEASURING, /* until the first command sent since then is */
};

/* Private to window.c. */
struct window {
	uint64_t in_flight_bytes;
	uint64_t delivered_bytes;
	uint64_t delivered_ns; /* when the last of them came */
	uint64_t min_ns;       /* shortest command; 0 = none yet */
	uint64_t min_at_ns;
	enum window_probe probe;
	uint64_t probe_ns;            /* when it began to be that */
	uint64_t rate[WINDOW_ROUNDS]; /* bytes/s, best of each round */
	unsigned round;
	uint64_t round_end_bytes; /* the round is over once what was sent by then is delivered */
	bool full;                /* the rate stopped growing: gain 1.25 instead of 2 */
	unsigned flat_rounds;
	uint64_t flat_rate;
};

/* Kept with each command. */
struct window_stamp {
	uint64_t sent_ns;
	uint64_t delivered_bytes;
	uint64_t delivered_ns;
	bool limited; /* by the work at hand, not by the window */
};

/* A new connection: nothing is known. */
void window_init(struct window *w);

/* @bytes (> 0) go out at @now_ns. */
void window_sent(struct window *w, uint64_t bytes, uint64_t now_ns, struct window_stamp *ret_stamp);

/* What @stamp was made for was answered in full at @now_ns. */
void window_answered(struct window *w, const struct window_stamp *stamp, uint64_t bytes,
		     uint64_t now_ns);

/* It ended without an answer worth measuring (error, retry). */
void window_dropped(struct window *w, uint64_t bytes);

/* The best rate of the last rounds, bytes/s; 0 = unknown. */
uint64_t window_rate(const struct window *w);

/* How much may be in flight: WINDOW_MIN..WINDOW_MAX bytes. */
uint64_t window_limit(const struct window *w);

#endif
