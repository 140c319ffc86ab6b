// SPDX-License-Identifier: Apache-2.0
#include "cache/plan.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cache/internal.h"

/* Room for one more; NULL when out of memory. */
static void *more(void **array, size_t n, size_t *cap, size_t size)
{
	if (n == *cap) {
		size_t to = *cap ? *cap * 2 : 256;
		void *p = realloc(*array, to * size);

		if (!p)
			return NULL;
		*array = p;
		*cap = to;
	}
	return (char *)*array + n * size;
}

#define MORE(array, n, cap) more((void **)&(array), n, &(cap), sizeof(*(array)))

void plan_reset(struct plan *p)
{
	p->nblocks = p->nranges = p->nseqs = p->ncommands = 0;
}

void plan_fini(struct plan *p)
{
	free(p->block);
	free(p->range);
	free(p->seq);
	free(p->command);
	*p = (struct plan){ 0 };
}

static int add_seq(struct plan *p, uint64_t seq)
{
	uint64_t *at = MORE(p->seq, p->nseqs, p->seq_cap);

	if (!at)
		return -ENOMEM;
	*at = seq;
	p->nseqs++;
	return 0;
}

static int add_range(struct plan *p, uint64_t blk, uint64_t n, uint64_t seq, uint8_t kind)
{
	struct plan_range *at = MORE(p->range, p->nranges, p->range_cap);

	if (!at)
		return -ENOMEM;
	*at = (struct plan_range){ .blk = blk, .n = n, .seq = seq, .kind = kind };
	p->nranges++;
	return 0;
}

int plan_add(struct plan *p, const struct format_record *record, uint32_t n, const uint32_t *crc,
	     uint32_t base, uint64_t keep, uint64_t first_seq, uint64_t last_seq)
{
	uint32_t at = 0;

	for (uint32_t i = 0; i < n; at += format_payload(&record[i++])) {
		const struct format_record *r = &record[i];

		if (r->seq > keep)
			continue;
		if (r->kind == FORMAT_CUT) {
			/* What lies between is void: as good as present. */
			for (uint64_t s = MAX(r->blk + 1, first_seq); s < MIN(r->seq, last_seq + 1);
			     s++)
				if (add_seq(p, s) < 0)
					return -ENOMEM;
		}
		if (r->seq < first_seq || r->seq > last_seq)
			continue;
		if (add_seq(p, r->seq) < 0)
			return -ENOMEM;
		if (r->kind == FORMAT_ZERO || r->kind == FORMAT_DISCARD) {
			if (add_range(p, r->blk, r->nblocks, r->seq, r->kind) < 0)
				return -ENOMEM;
		}
		for (uint32_t k = 0; k < format_payload(r); k++) {
			struct plan_block *b = MORE(p->block, p->nblocks, p->block_cap);

			if (!b)
				return -ENOMEM;
			*b = (struct plan_block){
				.blk = r->blk + k,
				.seq = r->seq,
				.slot = base + r->slot + k,
				.crc = crc[at + k],
			};
			p->nblocks++;
		}
	}
	return 0;
}

static int by_seq(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static int by_block(const void *a, const void *b)
{
	const struct plan_block *x = a, *y = b;

	if (x->blk != y->blk)
		return x->blk < y->blk ? -1 : 1;
	return x->seq > y->seq ? -1 : x->seq < y->seq; /* newest first */
}

static int range_by_block(const void *a, const void *b)
{
	const struct plan_range *x = a, *y = b;

	return x->blk < y->blk ? -1 : x->blk > y->blk;
}

/* Is every number from first to last there? */
static bool complete(struct plan *p, uint64_t first, uint64_t last)
{
	uint64_t want = first;

	qsort(p->seq, p->nseqs, sizeof(*p->seq), by_seq);
	for (size_t i = 0; i < p->nseqs; i++) {
		if (p->seq[i] > want)
			return false;
		if (p->seq[i] == want)
			want++;
	}
	return want == last + 1;
}

/* Keep the newest version of each block. */
static void newest_blocks(struct plan *p)
{
	size_t kept = 0;

	qsort(p->block, p->nblocks, sizeof(*p->block), by_block);
	for (size_t i = 0; i < p->nblocks; i++)
		if (kept == 0 || p->block[kept - 1].blk != p->block[i].blk)
			p->block[kept++] = p->block[i];
	p->nblocks = kept;
}

/* ---- ranges ---- */

/* The ranges that cover the block at hand and some that end before it, the newest first. */
struct heap {
	const struct plan_range **at;
	size_t n;
};

static void heap_push(struct heap *h, const struct plan_range *z)
{
	size_t i = h->n++;

	for (; i && h->at[(i - 1) / 2]->seq < z->seq; i = (i - 1) / 2)
		h->at[i] = h->at[(i - 1) / 2];
	h->at[i] = z;
}

static void heap_pop(struct heap *h)
{
	const struct plan_range *z = h->at[--h->n];
	size_t i = 0, child;

	while ((child = 2 * i + 1) < h->n) {
		if (child + 1 < h->n && h->at[child + 1]->seq > h->at[child]->seq)
			child++;
		if (h->at[child]->seq < z->seq)
			break;
		h->at[i] = h->at[child];
		i = child;
	}
	h->at[i] = z;
}

/* One more piece of the flat ranges, behind all others. */
static int add_piece(struct plan *flat, const struct plan_range *z, uint64_t blk, uint64_t end)
{
	struct plan_range *last = flat->nranges ? &flat->range[flat->nranges - 1] : NULL;

	if (!last || last->seq != z->seq || last->blk + last->n != blk)
		return add_range(flat, blk, end - blk, z->seq, z->kind);
	last->n += end - blk;
	return 0;
}

/*
 * Make the ranges disjoint, the newest on top: from the lowest block up, each piece ends where the
 * newest of those that cover it ends or the next one begins. A guest that trims a file system
 * writes many thousands into one epoch.
 */
static int flatten_ranges(struct plan *p)
{
	struct heap h = { malloc(p->nranges * sizeof(*h.at)), 0 };
	struct plan flat = { 0 };
	uint64_t at = 0;
	size_t next = 0;
	int r = h.at ? 0 : -ENOMEM;

	qsort(p->range, p->nranges, sizeof(*p->range), range_by_block);
	while (r == 0 && (next < p->nranges || h.n)) {
		uint64_t end;

		if (!h.n)
			at = p->range[next].blk;
		while (next < p->nranges && p->range[next].blk <= at)
			heap_push(&h, &p->range[next++]);
		if (h.at[0]->blk + h.at[0]->n <= at) {
			heap_pop(&h);
			continue;
		}
		end = h.at[0]->blk + h.at[0]->n;
		if (next < p->nranges)
			end = MIN(end, p->range[next].blk);
		r = add_piece(&flat, h.at[0], at, end);
		at = end;
	}
	free(h.at);
	free(p->range);
	p->range = flat.range;
	p->nranges = flat.nranges;
	p->range_cap = flat.range_cap;
	return r;
}

/* The flat range that covers @blk, or NULL. */
static const struct plan_range *range_at(const struct plan *p, uint64_t blk)
{
	size_t low = 0, high = p->nranges;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (p->range[mid].blk + p->range[mid].n <= blk)
			low = mid + 1;
		else
			high = mid;
	}
	return low < p->nranges && p->range[low].blk <= blk ? &p->range[low] : NULL;
}

/* Drop blocks that a later range zeroes. */
static void drop_zeroed(struct plan *p)
{
	size_t kept = 0;

	for (size_t i = 0; i < p->nblocks; i++) {
		const struct plan_range *z = range_at(p, p->block[i].blk);

		if (!z || z->seq < p->block[i].seq)
			p->block[kept++] = p->block[i];
	}
	p->nblocks = kept;
}

static int add_command(struct plan *p, uint8_t kind, uint64_t blk, uint64_t n, size_t first)
{
	struct plan_command *at = MORE(p->command, p->ncommands, p->command_cap);

	if (!at)
		return -ENOMEM;
	*at = (struct plan_command){ .kind = kind, .blk = blk, .n = n, .first = first };
	p->ncommands++;
	return 0;
}

static int zero_commands(struct plan *p, uint64_t most, uint8_t kind, uint64_t blk, uint64_t end)
{
	while (blk < end) {
		uint64_t n = MIN(end - blk, most);

		if (add_command(p, kind, blk, n, 0) < 0)
			return -ENOMEM;
		blk += n;
	}
	return 0;
}

/* One piece of a range that nothing overlaps: edges that cannot be discarded are zeroed. */
static int range_commands(struct plan *p, const struct plan_limits *l, uint8_t kind, uint64_t blk,
			  uint64_t end)
{
	uint64_t from = end, to = end, most = 0;

	/* Each piece of a discard has to be aligned, not only the whole. */
	if (kind == FORMAT_DISCARD && l->discard_align)
		most = round_down(l->zero_blocks, l->discard_align);
	if (most) {
		from = round_up(blk, l->discard_align);
		to = round_down(MIN(end, l->whole_blocks), l->discard_align);
		if (from >= to)
			from = to = end;
	}
	if (zero_commands(p, l->zero_blocks, FORMAT_ZERO, blk, from) < 0 ||
	    zero_commands(p, most, FORMAT_DISCARD, from, to) < 0)
		return -ENOMEM;
	return zero_commands(p, l->zero_blocks, FORMAT_ZERO, to, end);
}

static int write_commands(struct plan *p, const struct plan_limits *l)
{
	size_t i = 0;

	while (i < p->nblocks) {
		size_t n = 1;

		while (i + n < p->nblocks && n < l->write_blocks &&
		       p->block[i + n].blk == p->block[i].blk + n)
			n++;
		if (add_command(p, FORMAT_WRITE, p->block[i].blk, n, i) < 0)
			return -ENOMEM;
		i += n;
	}
	return 0;
}

/* The ranges, cut where a kept block (newer, or it had been dropped) lies inside. */
static int cut_ranges(struct plan *p, const struct plan_limits *l)
{
	size_t i = 0;

	for (size_t z = 0; z < p->nranges; z++) {
		uint64_t at = p->range[z].blk, end = at + p->range[z].n;

		while (i < p->nblocks && p->block[i].blk < at)
			i++;
		for (; i < p->nblocks && p->block[i].blk < end; i++) {
			if (p->block[i].blk > at &&
			    range_commands(p, l, p->range[z].kind, at, p->block[i].blk) < 0)
				return -ENOMEM;
			at = p->block[i].blk + 1;
		}
		if (at < end && range_commands(p, l, p->range[z].kind, at, end) < 0)
			return -ENOMEM;
	}
	return 0;
}

int plan_finish(struct plan *p, const struct plan_limits *limits, uint64_t first_seq,
		uint64_t last_seq)
{
	if (p->nseqs == 0 || !complete(p, first_seq, last_seq))
		return -ENODATA;
	if (p->nblocks)
		newest_blocks(p);
	if (p->nranges && flatten_ranges(p) < 0)
		return -ENOMEM;
	drop_zeroed(p);
	if (write_commands(p, limits) < 0)
		return -ENOMEM;
	return cut_ranges(p, limits);
}

/* Records that are only named, and that no segment has: what they held cannot be sent. */
static void note_missing(const struct plan *p, struct cache *c, const struct seg_table *named,
			 uint64_t first, uint64_t last)
{
	struct todo todo;

	cache_lock(c, &todo);
	for (uint32_t i = 0; i < named->nrecords; i++) {
		const struct format_record *r = &named->record[i];

		if (r->seq >= first && r->seq <= last &&
		    range_inside(r->blk, r->nblocks, c->nblocks) &&
		    !bsearch(&r->seq, p->seq, p->nseqs, sizeof(*p->seq), by_seq))
			cache_note_damage(c, r->blk, r->nblocks, true);
	}
	cache_unlock(c, &todo);
}

static int add_named(struct seg_table *to, const struct seg_table *from)
{
	for (uint32_t i = 0; i < from->nrecords; i++)
		if (seg_table_add(to, &from->record[i], NULL) < 0)
			return -ENOMEM;
	return 0;
}

/*
 * Records of one segment: from memory while it is being filled, else from disk; what is named there
 * goes to @named.
 */
static int add_segment(struct plan *p, struct cache *c, uint32_t i, uint64_t first, uint64_t last,
		       struct seg_table *named)
{
	struct segment *s = &c->seg[i];
	struct seg_table t = { 0 };
	struct table_info info;
	bool loaded = false;
	uint64_t keep;
	struct todo todo;
	int r = 0;

	cache_lock(c, &todo);
	if (!segment_in_use(s) || s->class != FORMAT_LOG || s->last_seq < s->first_seq ||
	    s->last_seq < first || s->first_seq > last) {
		cache_unlock(c, &todo);
		return 0;
	}
	/* What recovery cut off stands behind last_seq and is still on disk. */
	keep = s->last_seq;
	if (s->state == SEG_HEAD || s->state == SEG_SEALING) {
		r = plan_add(p, s->table.record, s->table.nrecords, s->table.crc, i * c->seg_slots,
			     keep, first, last);
		loaded = true;
	}
	cache_unlock(c, &todo);
	if (loaded)
		return r;
	/* Its records are not at the target yet, so it is neither evicted nor reused. */
	r = table_load(c, i, s->file, s->incarnation, &t, &info);
	if (r < 0)
		return r;
	r = plan_add(p, t.record, t.nrecords, t.crc, i * c->seg_slots, keep, first, last);
	if (r == 0)
		r = add_named(named, &info.named);
	seg_table_fini(&t);
	seg_table_fini(&info.named);
	return r;
}

int plan_build(struct plan *p, struct cache *c, uint64_t first_seq, uint64_t last_seq)
{
	const struct blk_info *info = &c->inner_info;
	struct plan_limits limits = {
		.write_blocks = MAX(MIN(info->max_write_bytes, PIECE_BYTES) / BLK, 1u),
		.zero_blocks = 1ull << 18,
		.whole_blocks = info->size_bytes / BLK,
	};
	struct seg_table named = { 0 };
	int r = 0;

	if (info->max_discard_bytes >= BLK)
		limits.zero_blocks = MIN(limits.zero_blocks, info->max_discard_bytes / BLK);
	if (info->flags & BLK_INFO_CAN_DISCARD)
		limits.discard_align = MAX(info->discard_align_bytes / BLK, 1u);
	plan_reset(p);
	for (uint32_t i = 0; i < c->nsegs && r == 0; i++)
		r = add_segment(p, c, i, first_seq, last_seq, &named);
	if (r == 0)
		r = plan_finish(p, &limits, first_seq, last_seq);
	if (r == -ENODATA)
		note_missing(p, c, &named, first_seq, last_seq);
	seg_table_fini(&named);
	return r;
}
