// SPDX-License-Identifier: Apache-2.0
/*
 * Shared by readahead.c (who reads?) and readahead_fill.c (how far ahead to ask?). Not for
 * others: what streams are and which invariants hold is said in readahead.c.
 */
#ifndef POLICY_READAHEAD_STREAM_H
#define POLICY_READAHEAD_STREAM_H

#include "core/cleanup.h"
#include "core/clock.h"
#include "core/range.h"
#include "policy/readahead.h"

/* So many accesses in one direction make a reader. */
#define READAHEAD_CONFIRM 2
#define READAHEAD_START_BYTES (128u << 10)
/* How many elements a strided reader may skip, and how many are asked for ahead of it. */
#define READAHEAD_STRIDE_AHEAD 64

/* What one call asks for. */
struct readahead_emit {
	struct readahead_range *out;
	unsigned n, max;
	uint64_t budget; /* bytes left to ask for */
	uint64_t piece;  /* the least worth asking for when the budget is short */
};

/* Where ranges end; what is behind is less than a block and left to demand reads. */
static inline uint64_t readahead_end(const struct readahead *ra)
{
	return round_down(ra->size_bytes, READAHEAD_ALIGN_BYTES);
}

/* An offset in the volume → in the stream's own direction, and back. Parts behind readahead_end()
 * go. */
static inline void readahead_mirror(const struct readahead *ra, uint64_t *offset, uint64_t *length)
{
	uint64_t end = MIN(*offset + *length, readahead_end(ra));
	uint64_t begin = MIN(*offset, end);

	*length = end - begin;
	*offset = readahead_end(ra) - end;
}

static inline void readahead_to_own(const struct readahead *ra, const struct readahead_stream *s,
				    uint64_t *offset, uint64_t *length)
{
	if (s->mirrored)
		readahead_mirror(ra, offset, length);
}

/* The slot holds a stream. */
static inline bool readahead_in_use(const struct readahead_stream *s)
{
	return s->used_seq;
}

/* The reader is known well enough to run ahead of it. */
static inline bool readahead_asking(const struct readahead_stream *s)
{
	return s->kind != READAHEAD_UNSURE && s->ups >= READAHEAD_CONFIRM;
}

/* Begin to gather up to @max ranges in @out, within what @env's budget has left. */
struct readahead_emit readahead_emit_begin(const struct readahead_env *env,
					   struct readahead_range *out, unsigned max);

/*
 * The reader of @s, which is asking, has moved on by an access of @length bytes: widen the window
 * where that is due, and ask for what @s lacks.
 */
void readahead_advance(const struct readahead *ra, const struct readahead_env *env,
		       struct readahead_stream *s, uint64_t length, bool hit,
		       struct readahead_emit *e);

/* Ask for what @s lacks of the window it has. */
void readahead_fill(const struct readahead *ra, struct readahead_stream *s,
		    struct readahead_emit *e);

/*
 * How many bytes of the range (inside the volume) @s had asked for. What of it is whole and still
 * ahead of the reader may be asked for again.
 */
uint64_t readahead_take_back(const struct readahead *ra, struct readahead_stream *s,
			     uint64_t offset, uint64_t length);

#endif
