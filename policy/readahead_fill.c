// SPDX-License-Identifier: Apache-2.0
/*
 * How far ahead of a reader to ask, and for what. Offsets here are the stream's
 * own; ask() is where they become the volume's.
 *
 * The window is how much should lie between the reader and the end of what was
 * asked for. It is refilled when a quarter of it is used up, in pieces of up to an
 * eighth of it, so that what the far side sees are few and long requests.
 */
#include "policy/ratio.h"
#include "policy/readahead_stream.h"

#define START_MAX_BYTES (2u << 20)
#define WINDOW_LEAST_BYTES (1ull << 20)
#define WINDOW_MOST_BYTES (256ull << 20)
/* Without figures of the path. */
#define WINDOW_BLIND_BYTES (8ull << 20)
#define BOOST_MAX 2 /* WINDOW_BLIND_BYTES << BOOST_MAX = 32 MiB */
#define UNIT_BYTES (256u << 10)
/* A stream not used for so long needs no share of the budget. */
#define ACTIVE_NS (2 * NSEC_PER_SEC)

struct readahead_emit readahead_emit_begin(const struct readahead_env *env,
					   struct readahead_range *out, unsigned max)
{
	return (struct readahead_emit){
		.out = out,
		.max = max,
		.budget = env->budget_bytes > env->in_flight_bytes
				  ? env->budget_bytes - env->in_flight_bytes
				  : 0,
		.piece = MAX(MIN((uint64_t)UNIT_BYTES, env->budget_bytes),
			     (uint64_t)READAHEAD_ALIGN_BYTES),
	};
}

/* Streams that share the budget now, @self among them. */
static unsigned active_streams(const struct readahead *ra, const struct readahead_env *env,
			       const struct readahead_stream *self)
{
	unsigned n = 0;

	for (unsigned i = 0; i < READAHEAD_STREAMS; i++) {
		const struct readahead_stream *s = &ra->stream[i];

		n += s == self || (readahead_in_use(s) && readahead_asking(s) &&
				   env->now_ns - s->used_ns < ACTIVE_NS);
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
		target = ratio_mul_div(env->rate_bytes_per_s, env->rtt_ns, NSEC_PER_SEC / 2);
		target = MIN(target, WINDOW_MOST_BYTES);
		target = MAX(target, WINDOW_LEAST_BYTES);
	}
	/* Over what is here already the reader runs fast and may stop anywhere. */
	if (!s->missed)
		target = MIN(target, (uint64_t)START_MAX_BYTES);
	share = MAX(share, MIN((uint64_t)UNIT_BYTES, env->budget_bytes));
	return round_down(MIN(target, share), READAHEAD_ALIGN_BYTES);
}

/* The reader takes what is there: look further ahead. The first step is the largest, and so are
 * later ones while the path is far from full. */
static void grow(struct readahead_stream *s, uint64_t target, uint64_t length)
{
	if (!s->window) {
		s->window = MIN(MAX(length * 4, (uint64_t)READAHEAD_START_BYTES),
				(uint64_t)START_MAX_BYTES);
		s->window = round_up(s->window, READAHEAD_ALIGN_BYTES);
		s->steps = 0;
	} else {
		s->window *= !s->steps++ || s->window <= target / 8 ? 4 : 2;
	}
	s->window = MIN(s->window, target);
}

/* So little is left ahead of the reader that it is time for more. */
static bool lacks(const struct readahead_stream *s)
{
	uint64_t ahead = s->asked_any && s->front > s->high ? s->front - s->high : 0;

	/* What lies between elements was not asked for and does not count. */
	if (s->kind == READAHEAD_STRIDE && ahead)
		ahead = ahead / (uint64_t)s->stride * s->last_length;
	return ahead < s->window - s->window / 4;
}

/*
 * Ask for [offset, offset + length) or, when the budget is short, for a part from its beginning.
 * Returns how much; 0: nothing more can be asked for in this call.
 */
static uint64_t ask(const struct readahead *ra, struct readahead_stream *s,
		    struct readahead_emit *e, uint64_t offset, uint64_t length)
{
	if (e->n == e->max || e->budget < MIN(length, e->piece)) {
		s->limited = true;
		return 0;
	}
	if (length > e->budget)
		length = round_down(e->budget, READAHEAD_ALIGN_BYTES);
	e->budget -= length;
	e->out[e->n].offset = s->mirrored ? readahead_end(ra) - offset - length : offset;
	e->out[e->n].length = length;
	e->n++;
	return length;
}

/* Ask again for what was given back and is still ahead. Returns false when the call is used up. */
static bool fill_gaps(const struct readahead *ra, struct readahead_stream *s,
		      struct readahead_emit *e)
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
static void fill_sequential(const struct readahead *ra, struct readahead_stream *s,
			    struct readahead_emit *e)
{
	uint64_t limit = MIN(s->high + s->window, readahead_end(ra));
	uint64_t unit = UNIT_BYTES;

	while (unit < READAHEAD_RANGE_MAX_BYTES && unit * 8 <= s->window)
		unit *= 2;
	while (s->front < limit) {
		uint64_t to = round_up(s->front + 1, unit);
		uint64_t got;

		if (to > limit) {
			if (limit < readahead_end(ra) && !lacks(s))
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

static void fill_stride(const struct readahead *ra, struct readahead_stream *s,
			struct readahead_emit *e)
{
	uint64_t step = (uint64_t)s->stride, length = s->last_length;
	uint64_t ahead =
		MIN(MAX(s->window / length, (uint64_t)1), (uint64_t)READAHEAD_STRIDE_AHEAD);

	if (!s->asked_any || s->front <= s->last_offset)
		s->front = s->last_offset + step;
	s->asked_any = true;
	for (; s->front <= s->last_offset + ahead * step; s->front += step) {
		uint64_t from = MAX(round_down(s->front, READAHEAD_ALIGN_BYTES), s->low);
		uint64_t to = round_up(s->front + length, READAHEAD_ALIGN_BYTES);

		if (to > readahead_end(ra))
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

void readahead_fill(const struct readahead *ra, struct readahead_stream *s,
		    struct readahead_emit *e)
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

void readahead_advance(const struct readahead *ra, const struct readahead_env *env,
		       struct readahead_stream *s, uint64_t length, bool hit,
		       struct readahead_emit *e)
{
	uint64_t target = target_of(ra, env, s);

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
		return;
	readahead_fill(ra, s, e);
}

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

uint64_t readahead_take_back(const struct readahead *ra, struct readahead_stream *s,
			     uint64_t offset, uint64_t length)
{
	uint64_t from, to;

	if (!s->asked_any || s->kind == READAHEAD_STRIDE)
		return 0;
	readahead_to_own(ra, s, &offset, &length);
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
