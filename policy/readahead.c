// SPDX-License-Identifier: Apache-2.0
/*
 * A stream is one reader, recognised by nearness. Its life:
 *
 *   UNSURE      [low, high) is all it has read. It becomes SEQUENTIAL when it has grown
 *               at one end often enough and was read densely, STRIDE when the same
 *               distance repeats. Nothing has been asked for.
 *   SEQUENTIAL  high is the reader's furthest end, [low, front) is what was asked for
 *               (low: where asking began), gaps apart. It asks while it is confirmed: a
 *               jump that leaves holes takes that away (`ups` = 0) until it is dense again.
 *   STRIDE      elements of last_length every `stride` bytes; front is the next
 *               element to ask for, low the end of the last one asked for.
 *
 * A stream that moves down is `mirrored`: it counts offsets from the volume's end, so
 * code that has a stream's own offsets knows only readers that move up.
 *
 * "Dense" is covered * 2 >= span: of the bytes the stream moved over lately at least
 * half were read. It is what forgives kernels and queues that deliver a sequential
 * reader's requests in disorder, and what random reads close together fail.
 *
 * Invariants (readahead_check()): low <= front if asked_any; covered <= span; gaps
 * lie within [low, front), are aligned, and do not overlap; an UNSURE stream has
 * asked for nothing.
 */
#include "policy/readahead_stream.h"

#include <assert.h>
#include <string.h>

#define CAUTION_MAX 3u
/* How far from its edges a stream still claims an access, and in lengths of the access: the
 * second covers queue depth. Young streams claim less, lest they swallow their neighbours. */
#define NEAR_BYTES (2u << 20)
#define NEAR_LENGTHS 8
#define NEAR_UNSURE_BYTES (256u << 10)
#define NEAR_UNSURE_LENGTHS 16
/* "Lately" in terms of dense(); a jump over a full queue must not weigh more than half. */
#define SPAN_BYTES (8u << 20)
#define SPAN_LENGTHS 32

#define UNSURE_SLOTS 8
/* Read so much without waste, then half of it again and again: each is one step less caution. */
#define TRUST_BYTES (16u << 20)
/* So much waste of streams that are gone by now is one step of caution. */
#define STRAY_BYTES (1u << 20)

static bool dense(const struct readahead_stream *s)
{
	return s->covered * 2 >= s->span;
}

#ifdef ENABLE_INVARIANTS
static void readahead_check(const struct readahead *ra)
{
	for (unsigned i = 0; i < READAHEAD_STREAMS; i++) {
		const struct readahead_stream *s = &ra->stream[i];

		assert(s->covered <= s->span);
		assert(s->kind != READAHEAD_UNSURE || (!s->asked_any && !s->gaps && !s->mirrored));
		assert(!s->asked_any || s->low <= s->front || s->kind == READAHEAD_STRIDE);
		for (unsigned g = 0; g < s->gaps; g++) {
			const struct readahead_range *a = &s->gap[g];

			assert(a->length && a->offset >= s->low);
			assert(a->offset + a->length <= s->front);
			assert((a->offset | a->length) % READAHEAD_ALIGN_BYTES == 0);
			for (unsigned h = 0; h < g; h++)
				assert(!range_overlap(a->offset, a->length, s->gap[h].offset,
						      s->gap[h].length));
		}
	}
}
#else
static void readahead_check(const struct readahead *ra)
{
}
#endif

void readahead_init(struct readahead *ra, uint64_t size_bytes)
{
	memset(ra, 0, sizeof(*ra));
	ra->size_bytes = size_bytes;
}

/* ---- Whose access is it? ---- */

/* How far the access is from where @s expects the next one; UINT64_MAX: not its access. */
static uint64_t distance(const struct readahead *ra, const struct readahead_stream *s,
			 uint64_t offset, uint64_t length)
{
	bool unsure = s->kind == READAHEAD_UNSURE;
	uint64_t near = unsure ? MAX((uint64_t)NEAR_UNSURE_BYTES, length * NEAR_UNSURE_LENGTHS)
			       : MAX((uint64_t)NEAR_BYTES, length * NEAR_LENGTHS);
	uint64_t bottom, top;

	readahead_to_own(ra, s, &offset, &length);
	if (s->kind == READAHEAD_STRIDE) {
		uint64_t step = (uint64_t)s->stride;
		uint64_t d =
			offset > s->last_offset ? offset - s->last_offset : s->last_offset - offset;

		if (length != s->last_length || d % step || d / step > READAHEAD_STRIDE_AHEAD)
			return UINT64_MAX;
		return d == step ? 0 : d;
	}
	bottom = unsure ? s->low : s->high;
	top = s->asked_any ? MAX(s->high, s->front) : s->high;
	if (offset + length + near < bottom || offset > top + near)
		return UINT64_MAX;
	if (offset >= s->high)
		return offset - s->high;
	if (unsure)
		return offset + length <= s->low ? s->low - offset - length : 0;
	return s->high - offset;
}

/* The nearest stream that claims the access; of equals the one used last. */
static struct readahead_stream *find(struct readahead *ra, uint64_t offset, uint64_t length)
{
	struct readahead_stream *best = NULL;
	uint64_t best_distance = UINT64_MAX;

	for (unsigned i = 0; i < READAHEAD_STREAMS; i++) {
		struct readahead_stream *s = &ra->stream[i];
		uint64_t d = readahead_in_use(s) ? distance(ra, s, offset, length) : UINT64_MAX;

		if (d == UINT64_MAX)
			continue;
		if (!best || d < best_distance ||
		    (d == best_distance && s->used_seq > best->used_seq)) {
			best = s;
			best_distance = d;
		}
	}
	return best;
}

static void be_careful(struct readahead *ra)
{
	ra->caution = MIN(ra->caution + 1, CAUTION_MAX);
}

/*
 * A slot for a new stream: the one used least recently. A flood of random reads makes streams by
 * the hundred, so while there are enough slots for those, they only replace each other.
 */
static struct readahead_stream *replace(struct readahead *ra)
{
	struct readahead_stream *oldest = NULL, *oldest_unsure = NULL;
	unsigned unsure = 0;

	for (unsigned i = 0; i < READAHEAD_STREAMS; i++) {
		struct readahead_stream *s = &ra->stream[i];

		if (!oldest || s->used_seq < oldest->used_seq)
			oldest = s;
		if (s->kind != READAHEAD_UNSURE)
			continue;
		unsure++;
		if (!oldest_unsure || s->used_seq < oldest_unsure->used_seq)
			oldest_unsure = s;
	}
	if (unsure >= UNSURE_SLOTS)
		oldest = oldest_unsure;
	/* It asked for more than its reader ever took. */
	if (oldest->kind != READAHEAD_STRIDE && oldest->asked_any && oldest->front > oldest->high &&
	    oldest->front - oldest->high > oldest->high - MIN(oldest->high, oldest->low))
		be_careful(ra);
	return oldest;
}

static void begin(struct readahead_stream *s, uint64_t offset, uint64_t length)
{
	memset(s, 0, sizeof(*s));
	s->low = offset;
	s->high = offset + length;
	s->span = length;
	s->covered = length;
	s->last_offset = offset;
	s->last_length = length;
}

/* ---- What does it say about the reader? ---- */

/* The stream's direction is known now: forget what only guessing needed. */
static void decide(struct readahead *ra, struct readahead_stream *s, enum readahead_kind kind,
		   bool mirrored)
{
	uint64_t all = s->high - s->low;

	s->kind = kind;
	s->mirrored = mirrored;
	s->ups = READAHEAD_CONFIRM;
	if (mirrored) {
		readahead_mirror(ra, &s->low, &all);
		s->high = s->low + all;
		readahead_mirror(ra, &s->last_offset, &s->last_length);
		s->stride = -s->stride;
	}
	s->low = s->high;
}

/*
 * Count a read as part of the front that moves, unless it is further behind than disorder explains:
 * reading old parts again must not make up for holes.
 */
static void cover(struct readahead_stream *s, uint64_t behind, uint64_t length)
{
	if (behind <= length * NEAR_UNSURE_LENGTHS)
		s->covered = MIN(s->covered + length, s->span);
}

static void learn_unsure(struct readahead *ra, struct readahead_stream *s, uint64_t offset,
			 uint64_t length)
{
	unsigned need = READAHEAD_CONFIRM + 2 * ra->caution;
	int64_t step = (int64_t)(offset - s->last_offset);

	s->repeats = step && step == s->stride && length == s->last_length ? s->repeats + 1 : 0;
	s->stride = step;
	s->last_offset = offset;
	s->last_length = length;
	if (offset + length > s->high) {
		s->span += offset + length - s->high;
		s->high = offset + length;
		s->ups++;
	}
	if (offset < s->low) {
		s->span += s->low - offset;
		s->low = offset;
		s->downs++;
	}
	cover(s, MIN(s->high - (offset + length), offset - s->low), length);
	/* Disorder at the beginning looks like the other direction: backward must show more. */
	if (dense(s) && s->ups >= need && s->ups >= 2 * s->downs)
		decide(ra, s, READAHEAD_SEQUENTIAL, false);
	else if (dense(s) && s->downs > need && s->downs >= 2 * s->ups)
		decide(ra, s, READAHEAD_SEQUENTIAL, true);
	else if (!dense(s) && s->repeats >= need && length >= READAHEAD_ALIGN_BYTES)
		decide(ra, s, READAHEAD_STRIDE, step < 0);
}

/* @offset and @length in the stream's own direction. */
static void learn_sequential(struct readahead *ra, struct readahead_stream *s, uint64_t offset,
			     uint64_t length)
{
	uint64_t grown = offset + length > s->high ? offset + length - s->high : 0;

	s->span += grown;
	s->high += grown;
	cover(s, s->high - (offset + length), length);
	s->consumed += grown;
	if (s->span > MAX((uint64_t)SPAN_BYTES, length * SPAN_LENGTHS)) {
		s->span /= 2;
		s->covered = MIN(s->covered / 2, s->span);
	}
	if (!dense(s)) {
		/* Not the reader we took it for, or somewhere else now: begin again here. */
		s->ups = 0;
		s->window = 0;
		s->span = length;
		s->covered = length;
	} else if (grown && s->ups < READAHEAD_CONFIRM) {
		s->ups++;
	}
	if (s->consumed >= TRUST_BYTES && s->ups >= READAHEAD_CONFIRM) {
		s->consumed = TRUST_BYTES / 2;
		s->wasted = 0;
		ra->caution -= ra->caution > 0;
	}
}

static void learn_stride(struct readahead_stream *s, uint64_t offset)
{
	if (offset > s->last_offset)
		s->last_offset = offset;
	s->high = s->last_offset + s->last_length;
	if (s->ups < READAHEAD_CONFIRM)
		s->ups++;
}

unsigned readahead_access(struct readahead *ra, const struct readahead_env *env, uint64_t offset,
			  uint64_t length, bool hit, struct readahead_range *out, unsigned max)
{
	struct readahead_emit e = readahead_emit_begin(env, out, max);
	struct readahead_stream *s = find(ra, offset, length);

	if (!s) {
		s = replace(ra);
		begin(s, offset, length);
	} else if (s->kind == READAHEAD_UNSURE) {
		learn_unsure(ra, s, offset, length);
	} else {
		uint64_t own = offset, own_length = length;

		readahead_to_own(ra, s, &own, &own_length);
		if (s->kind == READAHEAD_STRIDE)
			learn_stride(s, own);
		else
			learn_sequential(ra, s, own, own_length);
	}
	s->missed |= !hit;
	s->used_seq = ++ra->seq;
	s->used_ns = env->now_ns;
	readahead_check(ra);
	if (!readahead_asking(s))
		return 0;
	readahead_advance(ra, env, s, length, hit, &e);
	readahead_check(ra);
	return e.n;
}

unsigned readahead_resume(struct readahead *ra, const struct readahead_env *env,
			  struct readahead_range *out, unsigned max)
{
	struct readahead_emit e = readahead_emit_begin(env, out, max);
	unsigned first = ra->next_resume;

	for (unsigned i = 0; i < READAHEAD_STREAMS && e.n < max; i++) {
		struct readahead_stream *s = &ra->stream[(first + i) % READAHEAD_STREAMS];
		unsigned before = e.n;

		if (!s->limited || !readahead_asking(s))
			continue;
		readahead_fill(ra, s, &e);
		if (e.n > before)
			ra->next_resume = (first + i + 1) % READAHEAD_STREAMS;
	}
	readahead_check(ra);
	return e.n;
}

/* ---- What became of it ---- */

/* Whether the range can be mirrored and cut without wrapping. */
static bool sane(const struct readahead *ra, uint64_t offset, uint64_t length)
{
	return length && range_inside(offset, length, ra->size_bytes);
}

void readahead_wasted(struct readahead *ra, uint64_t offset, uint64_t length)
{
	uint64_t found = 0;

	if (!sane(ra, offset, length))
		return;
	for (unsigned i = 0; i < READAHEAD_STREAMS; i++) {
		struct readahead_stream *s = &ra->stream[i];
		uint64_t bytes = readahead_take_back(ra, s, offset, length);

		found += bytes;
		s->wasted += bytes;
		/* Evictions come block by block; a quarter of the window is one piece of news. */
		if (!bytes || s->wasted < MAX(s->window / 4, (uint64_t)READAHEAD_START_BYTES))
			continue;
		s->window = MAX(s->window / 2, (uint64_t)READAHEAD_START_BYTES);
		if (s->consumed < s->wasted) {
			s->ups = 0;
			be_careful(ra);
		}
		s->consumed = 0;
		s->wasted = 0;
	}
	if (!found)
		ra->stray += length;
	if (ra->stray >= STRAY_BYTES) {
		ra->stray = 0;
		be_careful(ra);
	}
	readahead_check(ra);
}

void readahead_dropped(struct readahead *ra, uint64_t offset, uint64_t length)
{
	if (!sane(ra, offset, length))
		return;
	for (unsigned i = 0; i < READAHEAD_STREAMS; i++)
		readahead_take_back(ra, &ra->stream[i], offset, length);
	readahead_check(ra);
}
