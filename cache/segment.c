// SPDX-License-Identifier: Apache-2.0
/*
 * The pool of segment files, and the map as seen with them: every DATA entry
 * counts in the `live` of the segment it points to.
 *
 * States and who moves a segment on:
 *
 *	ABSENT, FREE ─janitor→ PREPARING ─→ READY ─appender→ HEAD ─→ SEALING ─→ SEALED
 *	                          ↑                                                │
 *	                          └──── FREE ←─────── janitor ─────── EVICTING ←───┘
 *
 * Invariants: live > 0, pins > 0 and bitmaps only while in use (HEAD … EVICTING); a table only
 *while HEAD or SEALING; `file` is open from PREPARING on and may stay open while FREE.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cache/internal.h"

void segment_name(uint32_t segment, char name[32])
{
	snprintf(name, 32, "%08" PRIx32 ".seg", segment);
}

void cache_map_set(struct cache *c, uint64_t blk, uint64_t entry)
{
	uint64_t old = map_get(&c->map, blk);

	if (map_entry_state(old) == MAP_DATA) {
		struct segment *s = &c->seg[slot_segment(c, map_entry_slot(old))];

		assert(s->live > 0);
		s->live--;
	}
	if (map_entry_state(entry) == MAP_DATA) {
		struct segment *s = &c->seg[slot_segment(c, map_entry_slot(entry))];

		assert(segment_in_use(s));
		s->live++;
	}
	map_set(&c->map, blk, entry);
}

void cache_map_fill(struct cache *c, uint64_t blk, uint64_t n, uint64_t entry)
{
	uint64_t at = blk, end = blk + n;

	while (at < end) {
		enum map_state state;
		uint64_t run = map_run(&c->map, at, end - at, &state);

		for (uint64_t i = 0; state == MAP_DATA && i < run; i++) {
			uint64_t old = map_get(&c->map, at + i);
			struct segment *s = &c->seg[slot_segment(c, map_entry_slot(old))];

			assert(s->live > 0);
			s->live--;
		}
		at += run;
	}
	map_fill(&c->map, blk, n, entry);
}

bool segment_touch(struct cache *c, uint32_t slot)
{
	struct segment *s = &c->seg[slot_segment(c, slot)];
	uint32_t i = slot % c->seg_slots;
	uint64_t bit = 1ull << (i % 64);

	if (!s->hot)
		return false;
	if (s->prefetched[i / 64] & bit) {
		/* The read it was fetched for: only the next one makes it hot. */
		s->prefetched[i / 64] &= ~bit;
		return true;
	}
	s->hot[i / 64] |= bit;
	return false;
}

void segment_pin(struct cache *c, uint32_t segment)
{
	assert(segment_in_use(&c->seg[segment]));
	c->seg[segment].pins++;
}

void segment_unpin(struct cache *c, uint32_t segment)
{
	struct segment *s = &c->seg[segment];

	assert(s->pins > 0);
	if (--s->pins == 0 && s->state == SEG_EVICTING)
		janitor_kick(c);
}

bool segment_is_clean(const struct cache *c, const struct segment *s)
{
	return s->class == FORMAT_CLEAN || s->last_seq < s->first_seq ||
	       s->last_seq <= c->destaged_seq;
}

int segment_arm(struct cache *c, struct segment *s)
{
	size_t words = div_round_up(c->seg_slots, 64);

	if (s->hot)
		return 0;
	s->hot = calloc(2 * words, sizeof(*s->hot));
	if (!s->hot)
		return -ENOMEM;
	s->prefetched = s->hot + words;
	return 0;
}

void segment_disarm(struct segment *s)
{
	free(steal_ptr(s->hot));
	s->prefetched = NULL;
}

static int grow(void **array, uint32_t *cap, uint32_t want, size_t size)
{
	uint32_t to = MAX(*cap * 2, 64u);
	void *p;

	if (want <= *cap)
		return 0;
	while (to < want)
		to *= 2;
	p = realloc(*array, to * size);
	if (!p)
		return -ENOMEM;
	*array = p;
	*cap = to;
	return 0;
}

int seg_table_add(struct seg_table *t, const struct format_record *r, const uint32_t *crc)
{
	uint32_t n = crc ? format_payload(r) : 0;

	if (grow((void **)&t->record, &t->record_cap, t->nrecords + 1, sizeof(*t->record)) < 0 ||
	    grow((void **)&t->crc, &t->crc_cap, t->ncrcs + n, sizeof(*t->crc)) < 0)
		return -ENOMEM;
	t->record[t->nrecords++] = *r;
	if (n)
		memcpy(t->crc + t->ncrcs, crc, n * sizeof(*crc));
	t->ncrcs += n;
	return 0;
}

void seg_table_fini(struct seg_table *t)
{
	free(t->record);
	free(t->crc);
	*t = (struct seg_table){ 0 };
}
