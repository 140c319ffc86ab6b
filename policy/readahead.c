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
#include "policy/readahead.h"

#include <assert.h>
#include <string.h>

#include "core/cleanup.h"
#include "core/clock.h"
#include "core/range.h"

#define CONFIRM 2
#define CAUTION_MAX 3u
/* How far from its edges a stream still claims an access, and in lengths of the access: the
 * second covers queue depth. Young streams claim less, lest they swallow their neighbours. */
#define NEAR_BYTES (2u << 20)
#define NEAR_LENGTHS 8
#define NEAR_UNSURE_BYTES (256u << 10)
#define NEAR_UNSURE_LENGTHS 16
#define SPAN_BYTES (8u << 20)

#define START_MIN_BYTES (128u << 10)
#define START_MAX_BYTES (2u << 20)
#define WINDOW_LEAST_BYTES (1ull << 20)
#define WINDOW_MOST_BYTES (256ull << 20)
#define WINDOW_BLIND_BYTES (8ull << 20)
#define BOOST_MAX 2 /* WINDOW_BLIND_BYTES << BOOST_MAX = 32 MiB */
#define UNIT_BYTES (256u << 10)
#define STRIDE_AHEAD 64

#define ACTIVE_NS (2 * NSEC_PER_SEC)
#define UNSURE_SLOTS 8
/* So much read without waste makes up for one step of caution. */
#define TRUST_BYTES (16u << 20)
/* So much waste of streams that are gone by now is one step of caution. */
#define STRAY_BYTES (1u << 20)

struct emit {
	struct readahead_range *out;
	unsigned n, max;
	uint64_t budget; /* bytes left to ask for */
	uint64_t piece;  /* the least worth asking for when the budget is short */
};

/* Where ranges end; what is behind is less than a block and left to demand reads. */
static uint64_t end_of(const struct readahead *ra)
{
	return round_down(ra->size_bytes, READAHEAD_ALIGN_BYTES);
}

/* An offset in the volume → in the stream's own direction, and back. Parts behind end_of() go. */
static void mirror(const struct readahead *ra, uint64_t *offset, uint64_t *length)
{
	uint64_t end = MIN(*offset + *length, end_of(ra));
	uint64_t begin = MIN(*offset, end);

	*length = end - begin;
	*offset = end_of(ra) - end;
}

static void to_own(const struct readahead *ra, const struct readahead_stream *s, uint64_t *offset,
		   uint64_t *length)
{
	if (s->mirrored)
		mirror(ra, offset, length);
}

static bool in_use(const struct readahead_stream *s)
{
	return s->used_seq;
}

static bool dense(const struct readahead_stream *s)
{
	return s->covered * 2 >= s->span;
}

static bool asking(const struct readahead_stream *s)
{
	return s->kind != READAHEAD_UNSURE && s->ups >= CONFIRM;
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
	uint64_t near = unsure ? MAX((uint64_t)NEAR_UNSURE_BYTES, length * NEAR_UNSURE_LENGTHS) :
				 MAX((uint64_t)NEAR_BYTES, length * NEAR_LENGTHS);
	uint64_t bottom, top;

	to_own(ra, s, &offset, &length);
	if (s->kind == READAHEAD_STRIDE) {
		uint64_t step = (uint64_t)s->stride;
		uint64_t d = offset > s->last_offset ? offset - s->last_offset :
						       s->last_offset - offset;

		if (length != s->last_length || d % step || d / step > STRIDE_AHEAD)
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
		uint64_t d = in_use(s) ? distance(ra, s, offset, length) : UINT64_MAX;

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
	s->ups = CONFIRM;
	if (mirrored) {
		mirror(ra, &s->low, &all);
		s->high = s->low + all;
		mirror(ra, &s->last_offset, &s->last_length);
		s->stride = -s->stride;
	}
	s->low = s->high;
}

static void learn_unsure(struct readahead *ra, struct readahead_stream *s, uint64_t offset,
			 uint64_t length)
{
	unsigned need = CONFIRM + 2 * ra->caution;
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
	s->covered = MIN(s->covered + length, s->span);
	if (dense(s) && s->ups >= s->downs + need)
		decide(ra, s, READAHEAD_SEQUENTIAL, false);
	else if (dense(s) && s->downs >= s->ups + need)
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
	s->covered = MIN(s->covered + length, s->span);
	s->consumed += grown;
	if (s->span > SPAN_BYTES) {
		s->span /= 2;
		s->covered = MIN(s->covered / 2, s->span);
	}
	if (!dense(s)) {
		/* Not the reader we took it for, or somewhere else now: begin again here. */
		s->ups = 0;
		s->window = 0;
		s->span = length;
		s->covered = length;
	} else if (grown && s->ups < CONFIRM) {
		s->ups++;
	}
	if (s->consumed >= TRUST_BYTES && s->ups >= CONFIRM) {
		s->consumed = 0;
		s->wasted = 0;
		ra->caution -= ra->caution > 0;
	}
}

static void learn_stride(struct readahead_stream *s, uint64_t offset)
{
	if (offset > s->last_offset)
		s->last_offset = offset;
	s->high = s->last_offset + s->last_length;
	if (s->ups < CONFIRM)
		s->ups++;
}

/* ---- How far ahead, and what to ask for? ---- */

/* Streams that share the budget now, @self among them. */
static unsigned active_streams(const struct readahead *ra, const struct readahead_env *env,
			       const struct readahead_stream *self)
{
	unsigned n = 0;

	for (unsigned i = 0; i < READAHEAD_STREAMS; i++) {
		const struct readahead_stream *s = &ra->stream[i];

		n += s == self ||
		     (in_use(s) && asking(s) && env->now_ns - s->used_ns < ACTIVE_NS);
	}
	return n;
}

/* The window that keeps the path full, as far as the budget allows. */
static uint64_t target_of(const struct readahead *ra, const struct readahead_env *env,
			  const struct readahead_stream *s)
{
	uint64_t target = WINDOW_BLIND_BYTES << s->boost;
	uint64_t share = env->budget_bytes / active_streams(ra, env, s);

	if (env->rate_bytes_per_s && env->rtt_ns) {
		/* Twice what the path holds: half of it may be used up before more is asked for. */
		unsigned __int128 path = (unsigned __int128)env->rate_bytes_per_s * env->rtt_ns;

		path = path * 2 / NSEC_PER_SEC;
		target = path > WINDOW_MOST_BYTES ? WINDOW_MOST_BYTES : (uint64_t)path;
		target = MAX(target, WINDOW_LEAST_BYTES);
	}
	share = MAX(share, MIN((uint64_t)UNIT_BYTES, env->budget_bytes));
	return round_down(MIN(target, share), READAHEAD_ALIGN_BYTES);
}

/* The reader takes what is there: look further ahead. The first step is the largest. */
static void grow(struct readahead_stream *s, uint64_t target, uint64_t length)
{
	if (!s->window) {
		s->window = MIN(MAX(length * 4, (uint64_t)START_MIN_BYTES),
				(uint64_t)START_MAX_BYTES);
		s->window = round_up(s->window, READAHEAD_ALIGN_BYTES);
		s->steps = 0;
	} else {
		s->window *= s->steps++ ? 2 : 4;
	}
	s->window = MIN(s->window, target);
}

/* So little is left ahead of the reader that it is time for more. */
static bool lacks(const struct readahead_stream *s)
{
	uint64_t ahead = s->asked_any && s->front > s->high ? s->front - s->high : 0;

	return ahead < s->window - s->window / 4;
}

/*
 * Ask for [offset, offset + length) or, when the budget is short, for a part from its beginning.
 * Returns how much; 0: nothing more can be asked for in this call.
 */
static uint64_t ask(const struct readahead *ra, struct readahead_stream *s, struct emit *e,
		    uint64_t offset, uint64_t length)
{
	if (e->n == e->max || e->budget < MIN(length, e->piece)) {
		s->limited = true;
		return 0;
	}
	if (length > e->budget)
		length = round_down(e->budget, READAHEAD_ALIGN_BYTES);
	e->budget -= length;
	e->out[e->n].offset = s->mirrored ? end_of(ra) - offset - length : offset;
	e->out[e->n].length = length;
	e->n++;
	return length;
}

/* Ask again for what was given back and is still ahead. Returns false when the call is used up. */
static bool fill_gaps(const struct readahead *ra, struct readahead_stream *s, struct emit *e)
{
	for (unsigned i = 0; i < s->gaps;) {
		struct readahead_range *g = &s->gap[i];
		uint64_t end = g->offset + g->length;
		uint64_t from = MAX(g->offset, round_up(s->high, READAHEAD_ALIGN_BYTES));
		uint64_t got = 0;

		if (from < end && from < s->high + s->window) {
			got = ask(ra, s, e, from,
				  MIN(end - from, (uint64_t)READAHEAD_RANGE_MAX_BYTES));
			if (!got)
				return false;
		} else if (from < end) {
			i++;
			continue;
		}
		from += got;
		g->offset = from;
		g->length = from < end ? end - from : 0;
		if (!g->length)
			*g = s->gap[--s->gaps];
	}
	return true;
}

/*
 * Extend [low, front) up to the window, in large pieces that end on multiples of their size. A
 * piece that would pass the window waits, unless the rest is much of the window.
 */
static void fill_sequential(const struct readahead *ra, struct readahead_stream *s, struct emit *e)
{
	uint64_t limit = MIN(s->high + s->window, end_of(ra));
	uint64_t unit = UNIT_BYTES;

	while (unit < READAHEAD_RANGE_MAX_BYTES && unit * 8 <= s->window)
		unit *= 2;
	while (s->front < limit) {
		uint64_t to = round_up(s->front + 1, unit);
		uint64_t got;

		if (to > limit) {
			if (limit < end_of(ra) && !lacks(s))
				return;
			to = round_down(limit, READAHEAD_ALIGN_BYTES);
			if (to <= s->front)
				return;
		}
		got = ask(ra, s, e, s->front, to - s->front);
		if (!got)
			return;
		s->front += got;
	}
}

static void fill_stride(const struct readahead *ra, struct readahead_stream *s, struct emit *e)
{
	uint64_t step = (uint64_t)s->stride, length = s->last_length;
	uint64_t ahead = MIN(MAX(s->window / length, (uint64_t)1), (uint64_t)STRIDE_AHEAD);

	if (!s->asked_any || s->front <= s->last_offset)
		s->front = s->last_offset + step;
	s->asked_any = true;
	for (; s->front <= s->last_offset + ahead * step; s->front += step) {
		uint64_t from = MAX(round_down(s->front, READAHEAD_ALIGN_BYTES), s->low);
		uint64_t to = round_up(s->front + length, READAHEAD_ALIGN_BYTES);

		if (to > end_of(ra))
			return;
		from = MAX(from, round_up(s->high, READAHEAD_ALIGN_BYTES));
		to = MIN(to, from + READAHEAD_RANGE_MAX_BYTES);
		if (from >= to)
			continue;
		/* Elements are short: a part of one helps nobody, so the piece is all of it. */
		if (e->budget < to - from || !ask(ra, s, e, from, to - from)) {
			s->limited = true;
			return;
		}
		s->low = to;
	}
}

/* Ask for what @s lacks. */
static void fill(const struct readahead *ra, struct readahead_stream *s, struct emit *e)
{
	s->limited = false;
	if (s->kind == READAHEAD_STRIDE) {
		fill_stride(ra, s, e);
		return;
	}
	if (!s->asked_any || s->front < s->high) {
		/* What the reader overtook is its own now. */
		s->front = round_up(s->high, READAHEAD_ALIGN_BYTES);
		s->gaps = 0;
		if (!s->asked_any)
			s->low = s->front;
		s->asked_any = true;
	}
	if (fill_gaps(ra, s, e))
		fill_sequential(ra, s, e);
}

static struct emit emit_begin(const struct readahead_env *env, struct readahead_range *out,
			      unsigned max)
{
	return (struct emit){
		.out = out,
		.max = max,
		.budget = env->budget_bytes > env->in_flight_bytes ?
				  env->budget_bytes - env->in_flight_bytes :
				  0,
		.piece = MAX(MIN((uint64_t)UNIT_BYTES, env->budget_bytes),
			     (uint64_t)READAHEAD_ALIGN_BYTES),
	};
}

unsigned readahead_access(struct readahead *ra, const struct readahead_env *env, uint64_t offset,
			  uint64_t length, bool hit, struct readahead_range *out, unsigned max)
{
	struct emit e = emit_begin(env, out, max);
	struct readahead_stream *s = find(ra, offset, length);
	uint64_t target;

	if (!s) {
		s = replace(ra);
		begin(s, offset, length);
	} else if (s->kind == READAHEAD_UNSURE) {
		learn_unsure(ra, s, offset, length);
	} else {
		uint64_t own = offset, own_length = length;

		to_own(ra, s, &own, &own_length);
		if (s->kind == READAHEAD_STRIDE)
			learn_stride(s, own);
		else
			learn_sequential(ra, s, own, own_length);
	}
	s->used_seq = ++ra->seq;
	s->used_ns = env->now_ns;
	readahead_check(ra);
	if (!asking(s))
		return 0;
	target = target_of(ra, env, s);
	/*
	 * It was asked for, in time as we thought, and is not here: with no figures to go by,
	 * look further, but see a whole window read before the next such step.
	 */
	if (!hit && s->boost < BOOST_MAX && s->window >= target && s->high >= s->boost_high) {
		s->boost++;
		target = target_of(ra, env, s);
		s->boost_high = s->high + target;
	}
	s->window = MIN(s->window, target);
	if (!s->window || lacks(s))
		grow(s, target, length);
	else if (!s->limited && !s->gaps)
		return 0;
	fill(ra, s, &e);
	readahead_check(ra);
	return e.n;
}

unsigned readahead_resume(struct readahead *ra, const struct readahead_env *env,
			  struct readahead_range *out, unsigned max)
{
	struct emit e = emit_begin(env, out, max);
	unsigned first = ra->next_resume;

	for (unsigned i = 0; i < READAHEAD_STREAMS && e.n < max; i++) {
		struct readahead_stream *s = &ra->stream[(first + i) % READAHEAD_STREAMS];
		unsigned before = e.n;

		if (!s->limited || !asking(s))
			continue;
		fill(ra, s, &e);
		if (e.n > before)
			ra->next_resume = (first + i + 1) % READAHEAD_STREAMS;
	}
	readahead_check(ra);
	return e.n;
}

/* ---- What became of it ---- */

/* [from, to) within [low, front) and ahead of the reader: may be asked for again. */
static void give_back(struct readahead_stream *s, uint64_t from, uint64_t to)
{
	for (unsigned i = 0; i < s->gaps;) {
		uint64_t g_from = s->gap[i].offset, g_to = g_from + s->gap[i].length;

		if (g_from > to || from > g_to) {
			i++;
			continue;
		}
		from = MIN(from, g_from);
		to = MAX(to, g_to);
		s->gap[i] = s->gap[--s->gaps];
		i = 0;
	}
	if (to == s->front)
		s->front = from;
	else if (s->gaps < READAHEAD_GAPS)
		s->gap[s->gaps++] = (struct readahead_range){ from, to - from };
	/* With no slot left it is forgotten, and the reader's own read will fetch it. */
}

/* How much of the range @s had asked for; what of it is whole and still ahead goes back. */
static uint64_t take_back(const struct readahead *ra, struct readahead_stream *s, uint64_t offset,
			  uint64_t length)
{
	uint64_t from, to;

	if (!s->asked_any || s->kind == READAHEAD_STRIDE)
		return 0;
	to_own(ra, s, &offset, &length);
	if (!range_overlap(offset, length, s->low, s->front - s->low))
		return 0;
	length = MIN(offset + length, s->front) - MAX(offset, s->low);
	offset = MAX(offset, s->low);
	from = round_up(MAX(offset, s->high), READAHEAD_ALIGN_BYTES);
	to = round_down(offset + length, READAHEAD_ALIGN_BYTES);
	if (from < to)
		give_back(s, from, to);
	return length;
}

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
		uint64_t bytes = take_back(ra, s, offset, length);

		found += bytes;
		s->wasted += bytes;
		/* Evictions come block by block; a quarter of the window is one piece of news. */
		if (!bytes || s->wasted < MAX(s->window / 4, (uint64_t)START_MIN_BYTES))
			continue;
		s->window = MAX(s->window / 2, (uint64_t)START_MIN_BYTES);
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
		take_back(ra, &ra->stream[i], offset, length);
	readahead_check(ra);
}
