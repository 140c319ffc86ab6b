// SPDX-License-Identifier: Apache-2.0
/*
 * The rate: deliveries come in lumps (an epoch's writes, then a SYNCHRONIZE
 * CACHE), so bytes and busy time are gathered until a sample is SAMPLE_NS long
 * and only then folded in, weighted by its length against SMOOTH_NS. Time in
 * which nothing could be delivered is not busy time: see writeback_begin().
 *
 * How long a backlog takes is another question, for one epoch at a time takes a round trip or two
 * even if it holds one block: runs × turn_ns + bytes / wire_rate, learned from runs too short for
 * their bytes to matter and from runs long enough for the turn not to.
 *
 * Invariants: busy_ns < SAMPLE_NS between calls; weight_ns <= SMOOTH_NS;
 * weight_ns == 0 exactly while no sample was folded in.
 */
#include "policy/writeback.h"

#include <string.h>

#include "core/cleanup.h"
#include "core/clock.h"
#include "core/range.h"
#include "policy/ratio.h"

#define SAMPLE_NS (250 * NSEC_PER_MSEC)
#define SMOOTH_NS (3 * NSEC_PER_SEC)
#define IDLE_NS (5 * NSEC_PER_SEC)
/* After this long without a delivery the rate begins to fade, and then it counts as stopped. */
#define FRESH_NS (2 * NSEC_PER_SEC)
#define STOPPED_NS (30 * NSEC_PER_SEC)

#define KNEE_PERCENT 70
#define DELAY_MAX_NS NSEC_PER_SEC
/* What a drain nobody has measured yet is taken for: 100 Mbit/s. */
#define RATE_GUESS 12500000u

/* Runs up to this cost their turn, from that on their bytes. */
#define SHORT_BYTES (128u << 10)
#define LONG_BYTES (1u << 20)
/* A new sample of either counts a quarter. */
#define SAMPLE_SHARE 4

#define FUA_COMMANDS 4
#define FUA_BYTES (64u << 10)

/* A session that is lost costs about a second of sending, or this where that is less. */
#define CHECKPOINT_NS NSEC_PER_SEC
#define CHECKPOINT_MIN_BYTES (4u << 20)

void writeback_init(struct writeback *wb)
{
	memset(wb, 0, sizeof(*wb));
}

bool writeback_should_cut(const struct writeback_conf *conf, uint64_t open_bytes,
			  uint64_t open_since_ns, uint64_t now_ns, bool flush_waiting)
{
	if (!open_bytes)
		return false;
	return flush_waiting || open_bytes >= conf->max_epoch_bytes ||
	       now_ns >= writeback_cut_deadline_ns(conf, open_bytes, open_since_ns);
}

uint64_t writeback_cut_deadline_ns(const struct writeback_conf *conf, uint64_t open_bytes,
				   uint64_t open_since_ns)
{
	if (!open_bytes || conf->max_dirty_age_ns > UINT64_MAX - open_since_ns)
		return UINT64_MAX;
	return open_since_ns + conf->max_dirty_age_ns;
}

uint64_t writeback_delay_ns(const struct writeback *wb, const struct writeback_conf *conf,
			    uint64_t dirty_bytes, uint64_t sent_bytes, uint64_t request_bytes,
			    bool online)
{
	uint64_t max_bytes = conf->max_dirty_bytes;
	uint64_t limit_bytes = max_bytes - MIN(conf->max_epoch_bytes, max_bytes / 2);
	uint64_t knee_bytes = ratio_mul_div(limit_bytes, KNEE_PERCENT, 100);
	uint64_t load_bytes = dirty_bytes - MIN(sent_bytes, dirty_bytes);
	uint64_t drain_ns;
	double x, delay_ns;

	if (dirty_bytes && (dirty_bytes >= max_bytes || request_bytes > max_bytes - dirty_bytes))
		return UINT64_MAX;
	if (!online || load_bytes <= knee_bytes)
		return 0;
	if (load_bytes >= limit_bytes)
		return DELAY_MAX_NS;
	/*
	 * x³ / (1 - x) of the time the drain needs for this request: writers are as slow as the
	 * drain at x = 0.68 (90 % of the limit), slower beyond.
	 */
	x = (double)(load_bytes - knee_bytes) / (double)(limit_bytes - knee_bytes);
	drain_ns = ratio_mul_div(request_bytes, NSEC_PER_SEC, wb->rate ? wb->rate : RATE_GUESS);
	delay_ns = (double)drain_ns * x * x * x / (1 - x);
	return delay_ns < (double)DELAY_MAX_NS ? (uint64_t)delay_ns : DELAY_MAX_NS;
}

void writeback_begin(struct writeback *wb, uint64_t now_ns)
{
	if (now_ns > wb->last_ns)
		wb->last_ns = now_ns;
}

void writeback_delivered(struct writeback *wb, uint64_t bytes, uint64_t now_ns)
{
	uint64_t elapsed_ns = now_ns > wb->last_ns ? now_ns - wb->last_ns : 0;
	uint64_t sample;

	/*
	 * The first delivery ever, or after a pause, has no known beginning: it only starts the
	 * clock. Its bytes belong to time that was not seen.
	 */
	if (!wb->last_ns || elapsed_ns > IDLE_NS) {
		wb->last_ns = now_ns;
		return;
	}
	wb->last_ns += elapsed_ns;
	wb->bytes += bytes;
	wb->busy_ns += elapsed_ns;
	if (wb->busy_ns < SAMPLE_NS)
		return;
	sample = ratio_mul_div(wb->bytes, NSEC_PER_SEC, wb->busy_ns);
	/* The weights: what is known grows to SMOOTH_NS, so the first samples make an average. */
	wb->rate = (uint64_t)(((unsigned __int128)wb->rate * wb->weight_ns +
			       (unsigned __int128)sample * wb->busy_ns) /
			      (wb->weight_ns + wb->busy_ns));
	wb->weight_ns = MIN(wb->weight_ns + wb->busy_ns, SMOOTH_NS);
	wb->bytes = 0;
	wb->busy_ns = 0;
}

uint64_t writeback_rate(const struct writeback *wb, uint64_t now_ns)
{
	uint64_t silent_ns = now_ns > wb->last_ns ? now_ns - wb->last_ns : 0;

	if (silent_ns >= STOPPED_NS)
		return 0;
	if (silent_ns <= FRESH_NS)
		return wb->rate;
	return ratio_mul_div(wb->rate, FRESH_NS, silent_ns);
}

/* The first sample counts whole, later ones in part. */
static uint64_t smooth(uint64_t old, uint64_t sample)
{
	sample = MAX(sample, (uint64_t)1);
	if (!old)
		return sample;
	return old - old / SAMPLE_SHARE + sample / SAMPLE_SHARE;
}

void writeback_ran(struct writeback *wb, uint64_t bytes, uint64_t send_ns, uint64_t total_ns)
{
	if (bytes <= SHORT_BYTES) {
		wb->turn_ns = smooth(wb->turn_ns, total_ns);
		return;
	}
	/* One round trip for the last answer, one for the SYNC. */
	if (!wb->turn_ns)
		wb->turn_ns = MAX(2 * (total_ns - MIN(send_ns, total_ns)), (uint64_t)1);
	if (bytes >= LONG_BYTES)
		wb->wire_rate = smooth(wb->wire_rate, ratio_mul_div(bytes, NSEC_PER_SEC,
								    MAX(send_ns, (uint64_t)1)));
}

uint64_t writeback_runs_ns(const struct writeback *wb, uint64_t runs, uint64_t bytes)
{
	uint64_t turns, wire;

	if (!runs)
		return 0;
	if (!wb->turn_ns)
		return UINT64_MAX;
	turns = ratio_mul_div(runs, wb->turn_ns, 1);
	wire = ratio_mul_div(bytes, NSEC_PER_SEC, wb->wire_rate ? wb->wire_rate : RATE_GUESS);
	return turns > UINT64_MAX - wire ? UINT64_MAX : turns + wire;
}

uint64_t writeback_eta_ns(const struct writeback *wb, const struct writeback_conf *conf,
			  uint64_t epochs, uint64_t bytes, uint64_t now_ns)
{
	if (!epochs)
		return 0;
	if (!wb->rate || writeback_rate(wb, now_ns) == 0)
		return UINT64_MAX;
	if (writeback_should_merge(wb, conf, epochs, bytes))
		epochs = MIN(epochs, div_round_up(bytes, conf->max_epoch_bytes) + 1);
	return writeback_runs_ns(wb, epochs, bytes);
}

bool writeback_should_merge(const struct writeback *wb, const struct writeback_conf *conf,
			    uint64_t epochs, uint64_t bytes)
{
	uint64_t strict_ns = writeback_runs_ns(wb, epochs, bytes);

	return conf->adaptive && epochs > 1 && wb->turn_ns && strict_ns > conf->max_lag_ns;
}

bool writeback_by_fua(uint64_t commands, uint64_t payload_bytes)
{
	return commands > 0 && commands <= FUA_COMMANDS && payload_bytes <= FUA_BYTES;
}

bool writeback_checkpoint_due(const struct writeback *wb, uint64_t answered_bytes,
			      uint64_t left_bytes)
{
	uint64_t step = ratio_mul_div(wb->wire_rate ? wb->wire_rate : RATE_GUESS, CHECKPOINT_NS,
				      NSEC_PER_SEC);

	step = MAX(step, (uint64_t)CHECKPOINT_MIN_BYTES);
	return answered_bytes >= step && left_bytes >= step;
}
