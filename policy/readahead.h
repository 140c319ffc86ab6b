// SPDX-License-Identifier: Apache-2.0
/*
 * Adaptive readahead: which bytes will be read next, and how far ahead of the
 * reader they should be asked for. Follows many readers at once, each forward,
 * backward or with a constant stride.
 *
 * policy/ holds decisions only: pure functions over plain state. No I/O, no
 * locks, no threads, no clock; time comes in as now_ns. All functions of this
 * header: never fail, never block, allocate nothing; the caller serialises
 * calls on one struct readahead.
 */
#ifndef POLICY_READAHEAD_H
#define POLICY_READAHEAD_H

#include <stdbool.h>
#include <stdint.h>

#define READAHEAD_STREAMS 32
#define READAHEAD_GAPS 4
#define READAHEAD_ALIGN_BYTES 4096u
#define READAHEAD_RANGE_MAX_BYTES (1u << 20)

struct readahead_range {
	uint64_t offset; /* bytes, multiple of READAHEAD_ALIGN_BYTES */
	uint64_t length; /* likewise, 1..READAHEAD_RANGE_MAX_BYTES; ends before the volume's
			    last partial block */
};

/* What the caller knows at the moment of a call. */
struct readahead_env {
	uint64_t now_ns;           /* monotonic */
	uint64_t rate_bytes_per_s; /* what the path delivers; 0 = unknown */
	uint64_t rtt_ns;           /* base round trip of the path; 0 = unknown */
	uint64_t budget_bytes; /* how much readahead may be in flight over all streams; 0 = none */
	uint64_t in_flight_bytes; /* asked ranges not yet done, before this call */
};

enum readahead_kind {
	READAHEAD_UNSURE, /* too few accesses to tell */
	READAHEAD_SEQUENTIAL,
	READAHEAD_STRIDE, /* same length, same distance (up to 16 lengths) */
};

/* One reader. Private to readahead.c, where the states are described. */
struct readahead_stream {
	enum readahead_kind kind;
	bool mirrored;
	bool limited;
	bool asked_any;
	bool missed; /* something it read was not here */
	uint64_t used_ns;
	uint64_t used_seq;
	uint64_t low, high;
	uint64_t span, covered;
	unsigned ups, downs;
	uint64_t last_offset, last_length;
	int64_t stride;
	unsigned repeats;
	uint64_t front;
	uint64_t window;
	unsigned steps;
	unsigned boost;
	uint64_t boost_high;
	uint64_t consumed, wasted;
	struct readahead_range gap[READAHEAD_GAPS];
	unsigned gaps;
};

struct readahead {
	uint64_t size_bytes;
	uint64_t seq;
	uint64_t stray;
	unsigned caution;
	unsigned next_resume;
	struct readahead_stream stream[READAHEAD_STREAMS];
};

/* Forget everything; the volume is @size_bytes long. Also for a volume that has grown. */
void readahead_init(struct readahead *ra, uint64_t size_bytes);

/*
 * Tell of a demand read of [offset, offset + length) (bytes, any alignment, inside the volume),
 * whose data was all here already (@hit) or not, and fill up to @max ranges of @out with what to
 * fetch now, most urgent first. Returns how many; 0 when @max is 0.
 *
 * Ranges lie ahead of the reader, inside the volume, and no stream asks for bytes twice unless
 * readahead_dropped() or readahead_wasted() gave them back. The caller skips what is present or in
 * flight already. The sum is at most budget_bytes - in_flight_bytes; a stream that wanted more
 * goes on in readahead_resume(). Call for every demand read, hits included: hits are what moves
 * the window on.
 */
unsigned readahead_access(struct readahead *ra, const struct readahead_env *env, uint64_t offset,
			  uint64_t length, bool hit, struct readahead_range *out, unsigned max);

/*
 * Readahead I/O has ended, so budget is free: go on with streams that it held back, in turns.
 * Same promises as readahead_access(). Returns 0 when no stream waits.
 */
unsigned readahead_resume(struct readahead *ra, const struct readahead_env *env,
			  struct readahead_range *out, unsigned max);

/*
 * Prefetched bytes were evicted and nobody had read them. The stream that asked for them
 * shrinks or stops, and new streams must show more before they start. Any range is accepted.
 */
void readahead_wasted(struct readahead *ra, uint64_t offset, uint64_t length);

/*
 * An asked range was not fetched (dropped, cancelled or failed): it may be asked again by a later
 * readahead_access(), as long as the reader has not passed it. Any range is accepted.
 */
void readahead_dropped(struct readahead *ra, uint64_t offset, uint64_t length);

#endif
