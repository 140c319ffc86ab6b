// SPDX-License-Identifier: Apache-2.0
/*
 * How many bytes to keep in flight on one session, after BBR (Cardwell et al.,
 * ACM Queue 14-5, 2016): the highest rate delivered lately times the lowest round
 * trip seen lately fills the path; more only fills queues, which is latency for
 * everybody. Pure decisions (see policy/readahead.h for what lives in this
 * folder): nothing here fails, blocks or reads a clock; the caller serialises
 * calls on one struct window.
 */
#ifndef POLICY_WINDOW_H
#define POLICY_WINDOW_H

#include <stdbool.h>
#include <stdint.h>

#define WINDOW_MIN_BYTES (256u << 10)
#define WINDOW_MAX_BYTES (256u << 20)
#define WINDOW_ROUNDS 10

enum window_phase {
	WINDOW_STARTUP, /* double per round trip until the rate stops growing */
	WINDOW_STEADY,
	WINDOW_DRAIN, /* a moment below the path's capacity, to see its bare round trip again */
};

/* Private to window.c. */
struct window {
	enum window_phase phase;
	bool app_limited;             /* now */
	bool round_limited;           /* at some time in this round */
	uint64_t round_ns;            /* when this round began; 0 = no sample yet */
	uint64_t round_base;          /* bytes delivered then */
	uint64_t rate[WINDOW_ROUNDS]; /* bytes/s of the last rounds, a ring */
	unsigned rounds;
	uint64_t last_rate; /* of the last round outside DRAIN */
	uint64_t full_rate; /* startup: the rate to beat */
	unsigned full_rounds;
	uint64_t startup_bytes;
	uint64_t min_rtt_ns; /* 0 = unknown */
	uint64_t min_rtt_at_ns;
	unsigned drain_rounds;
	uint64_t drain_rtt_ns;
};

/* A session that has just been opened. */
void window_init(struct window *w);

/*
 * A command ended at @now_ns: the session has answered @bytes_delivered_total bytes of payload in
 * both directions since it began, this command took @rtt_ns from being sent to its end (0 = do not
 * use). Call for each command.
 */
void window_sample(struct window *w, uint64_t now_ns, uint64_t bytes_delivered_total,
		   uint64_t rtt_ns);

/*
 * Whether there is less to send than window_bytes() allows. Rates seen meanwhile say
 * nothing about the path: they only count where they are higher.
 */
void window_app_limited(struct window *w, bool limited);

/* The target for bytes in flight, WINDOW_MIN_BYTES..WINDOW_MAX_BYTES. */
uint64_t window_bytes(const struct window *w);

/* Highest rate delivered over the last rounds, bytes/s; 0 = unknown. */
uint64_t window_rate(const struct window *w);

/* Lowest round trip seen lately, ns; 0 = unknown. */
uint64_t window_rtt(const struct window *w);

#endif
