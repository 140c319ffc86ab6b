// SPDX-License-Identifier: Apache-2.0
/*
 * Write-back: when to close an epoch, what to send together and how, how fast the far side
 * drains, and how much to slow a writer down. Pure decisions (see policy/readahead.h for what lives
 * in this folder): no function here fails, blocks or reads a clock; the caller serialises calls on
 * one struct writeback.
 *
 * A run is what is sent between two watermarks: one epoch, or several that were merged. Bytes are
 * bytes of the log, whatever of them has to cross the line.
 */
#ifndef POLICY_WRITEBACK_H
#define POLICY_WRITEBACK_H

#include <stdbool.h>
#include <stdint.h>

struct writeback_conf {
	uint64_t max_dirty_bytes;  /* > 0 */
	uint64_t max_dirty_age_ns; /* 0 = close an epoch as soon as it holds anything */
	uint64_t max_epoch_bytes;  /* > 0, of a merged run too; at most half of max_dirty_bytes */
	bool adaptive;             /* epochs may be merged (--order=adaptive) */
	uint64_t max_lag_ns;       /* when: the backlog would take longer than this (--max-lag) */
};

/* What is known of the drain; zero-initialised or by writeback_init(). Private to writeback.c. */
struct writeback {
	uint64_t rate;      /* bytes/s, smoothed; 0 = unknown */
	uint64_t last_ns;   /* up to here time is accounted for; 0 = nothing yet */
	uint64_t bytes;     /* of the sample being gathered */
	uint64_t busy_ns;   /* its length */
	uint64_t weight_ns; /* busy time that the rate rests on, up to the smoothing time */
	uint64_t turn_ns;   /* what a run costs beside its bytes, smoothed; 0 = unknown */
	uint64_t wire_rate; /* bytes/s while a long run was being sent, smoothed; 0 = unknown */
};

/* Forget all of it. */
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
 * How long after the last one to let a write of @request_bytes in, while @dirty_bytes (without it)
 * are not yet at the target, of which the run under way has brought @sent_bytes there. Those count
 * as gone, so that the delay follows the link and not the end of a run; room for one run is kept
 * free for them. 0 below 70 % of what is left of max_dirty_bytes then; above, it rises until
 * writers together are as slow as the drain; at most 1 s. UINT64_MAX: wait for space, the request
 * would pass the limit (a request with nothing dirty before it always goes). Offline there is no
 * drain to adapt to: 0 up to the limit.
 */
uint64_t writeback_delay_ns(const struct writeback *wb, const struct writeback_conf *conf,
			    uint64_t dirty_bytes, uint64_t sent_bytes, uint64_t request_bytes,
			    bool online);

/*
 * Draining begins at @now_ns after there was nothing to send or nobody to send it to. Optional:
 * keeps the pause out of the rate; a pause of more than 5 s is left out in any case.
 */
void writeback_begin(struct writeback *wb, uint64_t now_ns);

/* The target took @bytes since the last call (log bytes, or whatever dirty_bytes counts). */
void writeback_delivered(struct writeback *wb, uint64_t bytes, uint64_t now_ns);

/* Recent drain rate in bytes/s, fading when nothing is delivered; 0 = unknown or stopped. */
uint64_t writeback_rate(const struct writeback *wb, uint64_t now_ns);

/*
 * A run of @bytes is durable at the target: @send_ns from its first command to its last answer,
 * @total_ns until it was durable and that was written down.
 */
void writeback_ran(struct writeback *wb, uint64_t bytes, uint64_t send_ns, uint64_t total_ns);

/* How long @runs with @bytes together will take; 0 for none; UINT64_MAX: nothing is known yet. */
uint64_t writeback_runs_ns(const struct writeback *wb, uint64_t runs, uint64_t bytes);

/*
 * When a backlog of @epochs with @bytes will be at the target, in the order of @conf; 0 for none;
 * UINT64_MAX when that is not known or nothing has been delivered for half a minute.
 */
uint64_t writeback_eta_ns(const struct writeback *wb, const struct writeback_conf *conf,
			  uint64_t epochs, uint64_t bytes, uint64_t now_ns);

/*
 * Whether to merge, with a backlog of @epochs with @bytes: adaptive order, and one after the other
 * they would take longer than max_lag_ns. Never where nothing is known of the drain, or for one.
 */
bool writeback_should_merge(const struct writeback *wb, const struct writeback_conf *conf,
			    uint64_t epochs, uint64_t bytes);

/*
 * Whether a run of so many commands with so much payload goes as FUA writes: they are durable with
 * their answer, which saves the round trip of the SYNCHRONIZE CACHE; but each makes the target
 * flush, so only a few.
 */
bool writeback_by_fua(uint64_t commands, uint64_t payload_bytes);

/*
 * Whether to have the target make durable what it has of a long run: @answered_bytes of it since
 * the last time, while @left_bytes are not answered yet. What is lost with a session is then sent
 * again from there.
 */
bool writeback_checkpoint_due(const struct writeback *wb, uint64_t answered_bytes,
			      uint64_t left_bytes);

#endif
