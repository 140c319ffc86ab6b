// SPDX-License-Identifier: Apache-2.0
/*
 * Opening a cache directory.
 *
 *  1. Read the header of every segment file; a file that is not ours, or of another life, is free.
 *  2. Read the records of every log segment (footers; unsealed ones are walked) and sort them by
 * sequence number.
 *  3. Decide how far the log is good. `limit` is the newest record that was certainly complete: the
 *     acknowledged one where this boot wrote it (kill -9), else the newest durable mark found
 *     (power cut). What is missing or does not match its checksum up to there is damage and is
 *     named; the first such record beyond it is the torn tail: it and everything later is cut off.
 *  4. Fill the map: the index first, then the log in order, which wins.
 *  5. Append "cut here" and a barrier to a fresh segment and make all that was kept durable; only
 * then is the cache open.
 *
 * Gaps below the watermark: segments are reclaimed from the tail, so records before a gap are
 * leftovers of an earlier life; only the unbroken run up to the watermark counts.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cache/internal.h"
#include "core/crc32c.h"
#include "core/log.h"

#define SPARE_SEGMENTS 4u

struct found {
	struct format_record record;
	uint32_t segment;
	const uint32_t *crc; /* into the segment's table; NULL for a record that is only named */
	bool lost;           /* named but not there, or its payload is damaged */
	bool void_;          /* cut off by an earlier recovery, or by this one */
};

struct recovery {
	struct cache *c;
	struct seg_table *table; /* per segment */
	struct table_info *info;
	struct found *found;
	size_t nfound;
	uint64_t destaged, durable, far_as_of;
	uint64_t limit;    /* up to here a missing record is damage */
	uint64_t last;     /* newest record kept */
	uint64_t max_seen; /* newest number found anywhere */
	uint64_t tail;     /* oldest record kept */
	uint64_t incarnation;
	uint32_t highest; /* segment number */
};

/* ---- 1. files ---- */

static int each_name(void *ctx, const char *name)
{
	struct recovery *rec = ctx;
	uint32_t n;
	char check[32];

	if (sscanf(name, "%8" SCNx32 ".seg", &n) != 1)
		return 0;
	segment_name(n, check);
	if (strcmp(name, check) == 0 && n < (1u << MAP_SLOT_BITS) / rec->c->seg_slots)
		rec->highest = MAX(rec->highest, n + 1);
	return 0;
}

static int open_segment(struct recovery *rec, uint32_t i)
{
	struct cache *c = rec->c;
	struct segment *s = &c->seg[i];
	cleanup_free uint8_t *slot = aligned_alloc(FORMAT_SLOT_BYTES, FORMAT_SLOT_BYTES);
	struct format_segment head;
	char name[32];
	int r;

	if (!slot)
		return -ENOMEM;
	segment_name(i, name);
	r = lio_open(c->lio, name, 0, &s->file);
	if (r == -ENOENT)
		return 0;
	if (r < 0)
		return r;
	c->files++;
	s->state = SEG_FREE;
	r = lio_read_sync(c->lio, s->file, slot, FORMAT_SLOT_BYTES, 0);
	if (r == -ENODATA || r == -EIO)
		return 0;
	if (r < 0)
		return r;
	r = format_segment_decode(slot, &head);
	if (r == -EPROTONOSUPPORT)
		return r;
	if (r < 0 || head.segment != i || head.segment_bytes != c->seg_slots * FORMAT_SLOT_BYTES ||
	    memcmp(head.uuid, c->conf.identity->cache_uuid, sizeof(head.uuid)) != 0)
		return 0;
	s->state = SEG_SEALED;
	s->class = head.class;
	s->incarnation = head.incarnation;
	s->first_seq = head.first_seq;
	s->filled = head.class == FORMAT_LOG;
	rec->incarnation = MAX(rec->incarnation, head.incarnation);
	if (head.class == FORMAT_LOG) {
		rec->destaged = MAX(rec->destaged, head.destaged_seq);
		rec->far_as_of = MAX(rec->far_as_of, head.far_as_of_ns);
	}
	return 0;
}

static int open_segments(struct recovery *rec, struct err *err)
{
	struct cache *c = rec->c;
	int r;

	r = lio_list(c->lio, each_name, rec);
	if (r < 0)
		return err_set(err, r, "cache directory: cannot be listed: %s", strerror(-r));
	/* A few more than may be used: see the janitor on a cache that is all unsent data. */
	c->nsegs = MAX(c->limit_segs, rec->highest) + SPARE_SEGMENTS;
	c->seg = calloc(c->nsegs, sizeof(*c->seg));
	rec->table = calloc(c->nsegs, sizeof(*rec->table));
	rec->info = calloc(c->nsegs, sizeof(*rec->info));
	if (!c->seg || !rec->table || !rec->info)
		return err_set(err, -ENOMEM, "out of memory");
	for (uint32_t i = 0; i < c->nsegs; i++) {
		r = open_segment(rec, i);
		if (r == -EPROTONOSUPPORT)
			return err_set(err, r,
				       "cache directory: segment %08" PRIx32
				       " was written by a newer nearblk: use that version",
				       i);
		if (r < 0)
			return err_set(err, r, "cache directory: segment %08" PRIx32 ": %s", i,
				       strerror(-r));
	}
	return 0;
}

/* ---- 2. records ---- */

static int by_seq(const void *a, const void *b)
{
	const struct found *x = a, *y = b;

	if (x->record.seq != y->record.seq)
		return x->record.seq < y->record.seq ? -1 : 1;
	/* The same number twice: an append that failed and was repeated elsewhere. What is there
	 * wins. */
	return (x->crc == NULL) - (y->crc == NULL);
}

static void add_found(struct recovery *rec, uint32_t i, const struct seg_table *t, bool named)
{
	struct cache *c = rec->c;
	static const uint32_t none;
	uint32_t at = 0;

	for (uint32_t k = 0; k < t->nrecords; k++) {
		const struct format_record *r = &t->record[k];
		struct found *f = &rec->found[rec->nfound];

		*f = (struct found){ .record = *r, .segment = i };
		rec->max_seen = MAX(rec->max_seen, r->seq);
		if (!named) {
			f->crc = t->crc ? t->crc + at : &none;
			at += format_payload(r);
		}
		if (format_is_data(r) && !range_inside(r->blk, r->nblocks, c->nblocks))
			continue; /* of a larger volume: the identity check has refused that */
		if (!named && r->kind == FORMAT_WATERMARK)
			rec->destaged = MAX(rec->destaged, r->blk);
		rec->nfound++;
	}
}

static int load_log(struct recovery *rec, struct err *err)
{
	struct cache *c = rec->c;
	size_t total = 0;

	for (uint32_t i = 0; i < c->nsegs; i++) {
		struct segment *s = &c->seg[i];
		struct table_info *info = &rec->info[i];
		int r;

		if (s->state != SEG_SEALED || s->class != FORMAT_LOG)
			continue;
		r = table_load(c, i, s->file, s->incarnation, &rec->table[i], info);
		if (r < 0)
			return err_set(err, r, "cache directory: segment %08" PRIx32 ": %s", i,
				       strerror(-r));
		s->footer = info->from_footer;
		s->end_slot = info->end_slot;
		rec->destaged = MAX(rec->destaged, info->destaged_seq);
		rec->durable = MAX(rec->durable, info->durable_seq);
		rec->far_as_of = MAX(rec->far_as_of, info->far_as_of_ns);
		total += rec->table[i].nrecords + info->named.nrecords;
	}
	rec->found = malloc(MAX(total, (size_t)1) * sizeof(*rec->found));
	if (!rec->found)
		return err_set(err, -ENOMEM, "out of memory");
	for (uint32_t i = 0; i < c->nsegs; i++) {
		add_found(rec, i, &rec->table[i], false);
		add_found(rec, i, &rec->info[i].named, true);
	}
	qsort(rec->found, rec->nfound, sizeof(*rec->found), by_seq);
	/* One of each number; earlier recoveries' cuts. */
	for (size_t i = 0, kept = 0; i <= rec->nfound; i++) {
		if (i == rec->nfound) {
			rec->nfound = kept;
			break;
		}
		if (kept && rec->found[kept - 1].record.seq == rec->found[i].record.seq)
			continue;
		rec->found[kept++] = rec->found[i];
	}
	for (size_t i = 0; i < rec->nfound; i++) {
		const struct format_record *cut = &rec->found[i].record;

		if (cut->kind != FORMAT_CUT || !rec->found[i].crc)
			continue;
		for (size_t k = i; k-- > 0 && rec->found[k].record.seq > cut->blk;)
			rec->found[k].void_ = true;
	}
	for (size_t i = 0; i < rec->nfound; i++)
		if (!rec->found[i].crc)
			rec->found[i].lost = true;
	return 0;
}

/* ---- 3. how far ---- */

/* Does the payload on disk match? */
static bool payload_good(struct recovery *rec, const struct found *f, uint8_t *buf)
{
	struct cache *c = rec->c;
	uint32_t n = format_payload(&f->record);

	for (uint32_t k = 0; k < n; k++) {
		int r = lio_read_sync(c->lio, c->seg[f->segment].file, buf, BLK,
				      (uint64_t)(f->record.slot + k) * FORMAT_SLOT_BYTES);

		if (r < 0 || crc32c(0, buf, BLK) != f->crc[k])
			return false;
	}
	return true;
}

/* What this record, or a cut of the past, lets follow. */
static uint64_t covers_from(const struct found *f)
{
	return f->record.kind == FORMAT_CUT && f->crc ? f->record.blk + 1 : f->record.seq;
}

static void cut_at(struct recovery *rec, size_t from)
{
	for (size_t i = from; i < rec->nfound; i++)
		rec->found[i].void_ = true;
}

static int missing(struct err *err, uint64_t from, uint64_t to)
{
	return err_set(err, -EUCLEAN,
		       "cache directory: %" PRIu64
		       " records of the guest log that are not yet at the "
		       "target are missing (sequence %" PRIu64 " to %" PRIu64
		       ") and nothing names what they held; restore the missing segment files, or "
		       "look at it with nearblk check --cache-dir",
		       to - from + 1, from, to);
}

/*
 * Walk the numbers upwards: drop leftovers below gaps at or under the watermark,
 * stop at the first gap or torn record beyond the limit.
 */
static int find_end(struct recovery *rec, struct err *err)
{
	cleanup_free uint8_t *buf = aligned_alloc(BLK, BLK);
	uint64_t want = 0; /* the next number; 0: any */

	if (!buf)
		return err_set(err, -ENOMEM, "out of memory");
	rec->last = rec->destaged;
	for (size_t i = 0; i < rec->nfound; i++) {
		struct found *f = &rec->found[i];
		uint64_t from = covers_from(f);

		if (f->void_)
			continue;
		if (want && from > want) {
			if (from - 1 <= rec->destaged) {
				for (size_t k = 0; k < i; k++)
					rec->found[k].void_ = true;
			} else if (from - 1 <= rec->limit || want <= rec->limit) {
				return missing(err, want, from - 1);
			} else {
				cut_at(rec, i);
				break;
			}
		} else if (!want && from > rec->destaged + 1) {
			return missing(err, rec->destaged + 1, from - 1);
		}
		if (f->record.seq > rec->limit && (f->lost || !payload_good(rec, f, buf))) {
			cut_at(rec, i);
			break;
		}
		want = f->record.seq + 1;
		rec->last = MAX(rec->last, f->record.seq);
	}
	if (rec->last < rec->limit)
		return missing(err, rec->last + 1, rec->limit);
	rec->tail = rec->last + 1;
	for (size_t i = 0; i < rec->nfound; i++) {
		if (!rec->found[i].void_) {
			rec->tail = covers_from(&rec->found[i]);
			break;
		}
	}
	return 0;
}

/* ---- 4. the map ---- */

static bool extent_sane(const struct cache *c, const struct index_extent *e)
{
	const struct segment *s;

	if (!range_inside(e->blk, e->nblocks, c->nblocks))
		return false;
	if (e->kind == INDEX_ZERO)
		return true;
	if (e->segment >= c->nsegs || e->slot < 2 ||
	    !range_inside(e->slot, e->nblocks, c->seg_slots))
		return false;
	s = &c->seg[e->segment];
	return s->state == SEG_SEALED && s->class == FORMAT_CLEAN &&
	       s->incarnation == e->incarnation;
}

static int each_extent(void *ctx, const struct index_extent *e)
{
	struct recovery *rec = ctx;
	struct cache *c = rec->c;

	if (!extent_sane(c, e))
		return 0;
	if (map_reserve(&c->map, e->blk, e->kind == INDEX_ZERO ? 1 : e->nblocks) < 0 ||
	    map_reserve(&c->map, e->blk + e->nblocks - 1, 1) < 0)
		return -ENOMEM;
	if (e->kind == INDEX_ZERO) {
		cache_map_fill(c, e->blk, e->nblocks, MAP_ENTRY_ZERO);
		return 0;
	}
	for (uint64_t i = 0; i < e->nblocks; i++)
		cache_map_set(c, e->blk + i,
			      map_entry(e->segment * c->seg_slots + e->slot + (uint32_t)i,
					e->crc[i]));
	return 0;
}

/* The index knows nothing: believe those records of the clean store that no reclaimed guest record
 * can have made old. */
static int rebuild(struct recovery *rec)
{
	struct cache *c = rec->c;

	for (uint32_t i = 0; i < c->nsegs; i++) {
		struct segment *s = &c->seg[i];
		struct seg_table t = { 0 };
		uint32_t at = 0;
		int r;

		if (s->state != SEG_SEALED || s->class != FORMAT_CLEAN)
			continue;
		r = table_load(c, i, s->file, s->incarnation, &t, NULL);
		if (r == -ENOMEM)
			return r;
		for (uint32_t k = 0; k < t.nrecords; at += format_payload(&t.record[k++])) {
			const struct format_record *f = &t.record[k];

			if (f->kind != FORMAT_FILL || f->seq + 1 < rec->tail ||
			    !range_inside(f->blk, f->nblocks, c->nblocks) ||
			    map_reserve(&c->map, f->blk, f->nblocks) < 0)
				continue;
			for (uint32_t b = 0; b < f->nblocks; b++)
				cache_map_set(c, f->blk + b,
					      map_entry(i * c->seg_slots + f->slot + b,
							t.crc[at + b]));
			indexq_put(c, f->blk, f->nblocks, i * c->seg_slots + f->slot, &t.crc[at]);
		}
		seg_table_fini(&t);
	}
	return 0;
}

static int load_index(struct recovery *rec)
{
	struct cache *c = rec->c;
	int r = 0;

	if (!c->conf.index->fresh) {
		r = index_load(c->conf.index, each_extent, rec);
		if (r == 0 || r == -ENOMEM)
			return r;
		log_warning("cache: the index cannot be read (%s): made anew", strerror(-r));
		cache_map_fill(c, 0, c->nblocks, MAP_ENTRY_NONE);
		r = index_wipe(c->conf.index);
		if (r < 0)
			return r;
	}
	return rebuild(rec);
}

static void lost_record(struct cache *c, const struct format_record *r, uint64_t destaged)
{
	bool dirty = r->seq > destaged;

	if (!format_is_data(r))
		return;
	/* At the target already: fetched again. Else the bytes are gone, and no older version may
	 * show. */
	cache_map_fill(c, r->blk, r->nblocks, dirty ? MAP_ENTRY_BAD : MAP_ENTRY_NONE);
	if (!dirty) {
		indexq_delete(c, r->blk, r->nblocks);
		return;
	}
	cache_note_damage(c, r->blk, r->nblocks, true);
	c->damaged = true;
	log_error("cache: %" PRIu64 " bytes at offset %" PRIu64
		  ", not yet at the target, are damaged on the local disk: reads of them fail, and "
		  "nothing written after them is sent",
		  (uint64_t)r->nblocks * BLK, r->blk * BLK);
}

static int apply_record(struct recovery *rec, struct found *f, struct todo *todo)
{
	struct cache *c = rec->c;
	const struct format_record *r = &f->record;
	uint32_t base = f->segment * c->seg_slots + r->slot;

	if (r->kind == FORMAT_BARRIER) {
		if (r->seq > rec->destaged)
			epoch_close(c, r->seq, r->blk, r->nblocks == FORMAT_CUT_FLUSH, todo);
		return 0;
	}
	if (!format_is_data(r))
		return 0;
	if (map_reserve(&c->map, r->blk, r->kind == FORMAT_WRITE ? r->nblocks : 1) < 0 ||
	    map_reserve(&c->map, r->blk + r->nblocks - 1, 1) < 0)
		return -ENOMEM;
	if (f->lost)
		lost_record(c, r, rec->destaged);
	else if (r->kind == FORMAT_WRITE)
		for (uint32_t i = 0; i < r->nblocks; i++)
			cache_map_set(c, r->blk + i, map_entry(base + i, f->crc[i]));
	else
		cache_map_fill(c, r->blk, r->nblocks, MAP_ENTRY_ZERO);
	if (r->seq > rec->destaged)
		epoch_add(c, r, 1 + format_payload(r));
	return 0;
}

static int fill_map(struct recovery *rec, struct err *err)
{
	struct cache *c = rec->c;
	struct todo todo;
	int r = 0;

	for (uint32_t i = 0; i < c->nsegs; i++)
		if (segment_in_use(&c->seg[i]) && segment_arm(c, &c->seg[i]) < 0)
			return err_set(err, -ENOMEM, "out of memory");
	r = load_index(rec);
	if (r < 0)
		return err_set(err, r, "cache index: %s", strerror(-r));
	cache_lock(c, &todo);
	for (size_t i = 0; i < rec->nfound && r == 0; i++)
		if (!rec->found[i].void_)
			r = apply_record(rec, &rec->found[i], &todo);
	cache_unlock(c, &todo);
	return r < 0 ? err_set(err, r, "out of memory") : 0;
}

/* Which segments hold what was kept; the others are free. */
static void sort_segments(struct recovery *rec)
{
	struct cache *c = rec->c;

	for (uint32_t i = 0; i < c->nsegs; i++) {
		struct segment *s = &c->seg[i];

		if (s->state != SEG_SEALED || s->class != FORMAT_LOG)
			continue;
		s->first_seq = 1;
		s->last_seq = 0;
	}
	for (size_t i = 0; i < rec->nfound; i++) {
		const struct found *f = &rec->found[i];
		struct segment *s = &c->seg[f->segment];

		if (f->void_ || f->lost)
			continue;
		if (s->last_seq == 0)
			s->first_seq = f->record.seq;
		s->last_seq = f->record.seq;
	}
	for (uint32_t i = 0; i < c->nsegs; i++) {
		struct segment *s = &c->seg[i];

		if (s->state != SEG_SEALED)
			continue;
		s->order = s->incarnation;
		if (s->class == FORMAT_LOG) {
			s->unsynced = true;
			if (s->last_seq == 0)
				s->state = SEG_FREE;
		} else if (s->live == 0) {
			s->state = SEG_FREE;
		} else {
			s->end_slot = c->seg_slots;
			s->probation = true;
		}
		if (s->state == SEG_FREE)
			segment_disarm(s);
	}
	c->next_incarnation = rec->incarnation + 1;
	c->next_order = c->next_incarnation;
}

/* ---- 5. open for writes ---- */

struct opening {
	struct append_op cut, barrier;
	struct sync_wait sync;
	bool done;
	int result;
};

static struct opening *opening_of(struct cache *c)
{
	return c->opening;
}

static bool opened(struct cache *c)
{
	return opening_of(c)->done;
}

static void opening_end(struct cache *c, int result)
{
	opening_of(c)->result = result;
	opening_of(c)->done = true;
}

static void opening_synced(struct cache *c, struct sync_wait *w, int result, struct todo *todo)
{
	opening_end(c, result);
}

static void cut_appended(struct cache *c, struct append_op *op, int result, struct todo *todo)
{
	if (result < 0)
		opening_end(c, result);
}

static void barrier_appended(struct cache *c, struct append_op *op, int result, struct todo *todo)
{
	struct opening *o = opening_of(c);

	if (result < 0) {
		opening_end(c, result);
		return;
	}
	epoch_close(c, op->record.seq, op->record.blk, false, todo);
	o->sync.seq = op->record.seq;
	o->sync.synced = opening_synced;
	sync_submit(c, &o->sync, todo);
}

static int open_log(struct recovery *rec, struct err *err)
{
	struct cache *c = rec->c;
	struct opening o = {
		.cut = { .control = true, .appended = cut_appended },
		.barrier = { .control = true, .appended = barrier_appended },
	};
	struct todo todo;

	o.cut.record.kind = FORMAT_CUT;
	o.cut.record.blk = rec->last;
	o.barrier.record.kind = FORMAT_BARRIER;
	o.barrier.record.nblocks = FORMAT_CUT_OTHER;
	cache_lock(c, &todo);
	c->opening = &o;
	o.barrier.record.blk = sched_realtime(c->sched);
	c->destaged_seq = rec->destaged;
	c->far_as_of_ns = rec->far_as_of;
	c->appended_seq = rec->last;
	c->durable_seq = MIN(rec->durable, rec->last);
	c->next_seq = MAX(rec->max_seen, rec->limit) + 1;
	c->started = true;
	append_submit(&c->log, &o.cut, &todo);
	append_submit(&c->log, &o.barrier, &todo);
	janitor_kick(c);
	cache_unlock(c, &todo);
	cache_wait(c, opened);
	c->opening = NULL;
	if (o.result < 0)
		return err_set(err, o.result, "cache directory: cannot be written: %s",
			       strerror(-o.result));
	return 0;
}

int cache_recover(struct cache *c, struct err *err)
{
	struct recovery rec = { .c = c };
	int r;

	r = open_segments(&rec, err);
	if (r == 0)
		r = load_log(&rec, err);
	if (r == 0) {
		rec.limit = rec.durable;
		if (c->lio->same_boot)
			rec.limit = MAX(rec.limit, atomic_load(lio_word(c->lio, 0)));
		rec.limit = MAX(rec.limit, rec.destaged);
		r = find_end(&rec, err);
	}
	if (r == 0)
		r = fill_map(&rec, err);
	if (r == 0) {
		sort_segments(&rec);
		r = open_log(&rec, err);
	}
	for (uint32_t i = 0; i < c->nsegs; i++) {
		if (rec.table)
			seg_table_fini(&rec.table[i]);
		if (rec.info)
			seg_table_fini(&rec.info[i].named);
	}
	free(rec.table);
	free(rec.info);
	free(rec.found);
	return r;
}
