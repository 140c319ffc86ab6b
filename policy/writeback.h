// SPDX-License-Identifier: Apache-2.0
/*
 * Write-back: when to close an epoch, how fast the far side drains, and how much
 * to slow a writer down. Pure decisions (see policy/readahead.h for what lives in
 * this folder): no function here fails, blocks or reads a clock; the caller
 * serialises calls on one struct writeback.
 */
#ifndef POLICY_WRITEBACK_H
#define POLICY_WRITEBACK_H

#include <stdbool.h>
#include <stdint.h>

struct writeback_conf {
	uint64_t max_dirty_bytes;  /* > 0 */
	uint64_t max_dirty_age_ns; /* 0 = close an epoch as soon as it holds anything */
	uint64_t max_epoch_bytes;  /* > 0 */
};

/* The drain rate; zero-initialised or by writeback_init(). Private to writeback.c. */
struct writeback {
	uint64_t rate;      /* bytes/s, smoothed; 0 = unknown */
	uint64_t last_ns;   /* up to here time is accounted for; 0 = nothing yet */
	uint64_t bytes;     /* of the sample being gathered */
	uint64_t busy_ns;   /* its length */
	uint64_t weight_ns; /* busy time that the rate rests on, up to the smoothing time */
};

/* Forget the rate. */
void writeback_init(struct writeback *wb);

/*
 * Whether the open epoch, with @open_bytes in it since @open_since_ns, is to be closed now:
 * by size, by age, or because a flush or a drain waits for it. Never an empty epoch.
 */
bool writeback_should_cut(const struct writeback_conf *conf, uint64_t open_bytes,
			  uint64_t open_since_ns, uint64_t now_ns, bool flush_waiting);

/*
 * When writeback_should_cut() turns true by age if nothing else happens: absolute, perhaps in
 * the past; UINT64_MAX for an empty epoch.
 */
uint64_t writeback_cut_deadline_ns(const struct writeback_conf *conf, uint64_t open_bytes,
				   uint64_t open_since_ns);

/*
 * How long to hold back the answer to a write of @request_bytes while @dirty_bytes (without it)
 * are not yet at the target. 0 below 70 % of max_dirty_bytes; above, it rises until writers
 * together are as slow as the drain shortly before the limit; at most 1 s. UINT64_MAX: wait for
 * space, the request would pass the limit (a request with nothing dirty before it always goes).
 * Offline there is no drain to adapt to: 0 up to the limit.
 */
uint64_t writeback_delay_ns(const struct writeback *wb, const struct writeback_conf *conf,
			    uint64_t dirty_bytes, uint64_t request_bytes, bool online);

/*
 * Draining begins at @now_ns after there was nothing to send or nobody to send it to. Optional:
 * keeps the pause out of the rate; a pause of more than 5 s is left out in any case.
 */
void writeback_begin(struct writeback *wb, uint64_t now_ns);

/* The target took @bytes since the last call (log bytes, or whatever dirty_bytes counts). */
void writeback_delivered(struct writeback *wb, uint64_t bytes, uint64_t now_ns);

/* Recent drain rate in bytes/s, fading when nothing is delivered; 0 = unknown or stopped. */
uint64_t writeback_rate(const struct writeback *wb, uint64_t now_ns);

/* How long @dirty_bytes will take; 0 for none; UINT64_MAX when the rate is 0 or the answer is
 * beyond the clock. */
uint64_t writeback_eta_ns(const struct writeback *wb, uint64_t dirty_bytes, uint64_t now_ns);

#endif
