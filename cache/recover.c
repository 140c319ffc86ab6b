// SPDX-License-Identifier: Apache-2.0
/*
 * Opening a cache directory: scan.c reads it (steps 1 to 3), then
 *
 *  4. fill the map: the index first, then the log in order, which wins;
 *  5. write what was kept once more if a sync of it failed during this boot; append "cut here" and
 * a barrier to a fresh segment and make all that was kept durable; only then is the cache open.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cache/scan.h"
#include "core/log.h"

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
	struct todo todo;

	for (uint32_t i = 0; i < c->nsegs; i++) {
		struct segment *s = &c->seg[i];
		struct seg_table t = { 0 };
		uint32_t at = 0;
		int r;

		/* Numbers that a power cut took may have been given again: another life's fills
		 * lie. */
		if (s->state != SEG_SEALED || s->class != FORMAT_CLEAN ||
		    s->incarnation >> INCARNATION_LIFE_SHIFT < rec->tail_life)
			continue;
		r = table_load(c, i, s->file, s->incarnation, &t, NULL);
		if (r == -ENOMEM)
			return r;
		/* From the first put on the index task is at work. */
		cache_lock(c, &todo);
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
		cache_unlock(c, &todo);
		seg_table_fini(&t);
	}
	return 0;
}

/* The index is whole if it knows of every reclaimed segment: else it may have lost deletions. */
static bool index_trusted(struct recovery *rec)
{
	struct cache *c = rec->c;
	uint64_t tail, destaged;
	int r;

	if (c->conf.index->fresh || rec->forget)
		return false;
	r = index_get_tail(c->conf.index, &tail, &destaged);
	if (r == 0 && rec->tail <= tail + 1)
		return true;
	if (r != -ENOENT)
		log_warning("cache: the index is older than the log: made anew");
	return false;
}

static int load_index(struct recovery *rec)
{
	struct cache *c = rec->c;
	int r;

	if (index_trusted(rec)) {
		r = index_load(c->conf.index, each_extent, rec);
		if (r == 0 || r == -ENOMEM)
			return r;
		log_warning("cache: the index cannot be read (%s): made anew", strerror(-r));
		cache_map_fill(c, 0, c->nblocks, MAP_ENTRY_NONE);
	}
	r = c->conf.index->fresh ? 0 : index_wipe(c->conf.index);
	if (r == 0)
		r = index_put_tail(c->conf.index, rec->tail - 1, rec->destaged);
	return r < 0 || rec->forget ? r : rebuild(rec);
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
}

/*
 * What the record takes in the log. Which records share a header is not written down: payload that
 * follows other payload does, ranges in a row are taken to, and a control record has its own.
 */
static uint64_t slots_of(struct recovery *rec, const struct found *f)
{
	const struct format_record *r = &f->record;
	uint32_t n = format_payload(r);
	bool joins;

	if (!format_is_data(r)) {
		rec->ranges = 0;
		return 1;
	}
	if (n) {
		joins = f->segment == rec->payload_segment && r->slot == rec->payload_end;
		rec->ranges = 0;
		rec->payload_segment = f->segment;
		rec->payload_end = r->slot + n;
	} else {
		joins = rec->ranges > 0;
		rec->ranges = (rec->ranges + 1) % FORMAT_BATCH_RECORDS;
	}
	return n + !joins;
}

/* Unsent records make up the epochs, as they did. 0 or -ENOMEM. */
static int count_record(struct recovery *rec, const struct found *f)
{
	struct cache *c = rec->c;
	const struct format_record *r = &f->record;
	uint64_t slots = slots_of(rec, f);

	if (r->seq <= rec->destaged)
		return 0;
	if (format_is_data(r)) {
		epoch_add(c, r, slots);
		return 0;
	}
	epoch_add_control(c, slots);
	if (r->kind != FORMAT_BARRIER)
		return 0;
	if (epoch_reserve(c) < 0)
		return -ENOMEM;
	epoch_close(c, r->seq, r->blk, r->nblocks == FORMAT_CUT_FLUSH);
	return 0;
}

static int apply_record(struct recovery *rec, struct found *f)
{
	struct cache *c = rec->c;
	const struct format_record *r = &f->record;
	uint32_t base = f->segment * c->seg_slots + r->slot;

	if (!format_is_data(r))
		return count_record(rec, f);
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
	return count_record(rec, f);
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
			r = apply_record(rec, &rec->found[i]);
	cache_unlock(c, &todo);
	for (unsigned i = 0; i < MIN(c->ndamage, (unsigned)ARRAY_SIZE(c->damage)); i++)
		log_error("cache: %" PRIu64 " bytes at offset %" PRIu64
			  ", not yet at the target, are damaged on the local disk: reads of them "
			  "fail, and nothing written after them is sent",
			  c->damage[i].length, c->damage[i].offset);
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
		if (format_is_data(&f->record))
			s->last_data_seq = f->record.seq;
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
	/*
	 * Never a number that was used before, also not by a segment whose header a power cut took
	 * but not its footer: the identity's generation grew, durably, with this start.
	 */
	c->next_incarnation =
		MAX(rec->incarnation + 1, c->conf.identity->generation << INCARNATION_LIFE_SHIFT);
	c->next_order = c->next_incarnation;
}

/* ---- 5. open for writes ---- */

struct opening {
	struct append_op cut, barrier; /* an epoch is reserved for the barrier */
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
		epoch_unreserve(c);
		opening_end(c, result);
		return;
	}
	epoch_close(c, op->record.seq, op->record.blk, false);
	o->sync.seq = op->record.seq;
	o->sync.synced = opening_synced;
	sync_submit(c, &o->sync, todo);
}

/* "Cut here" and a barrier, and all of the log durable. 0 or -errno. */
static int append_opening(struct recovery *rec)
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
	if (epoch_reserve(c) < 0) {
		cache_unlock(c, &todo);
		return -ENOMEM;
	}
	c->opening = &o;
	o.barrier.record.blk = sched_realtime(c->sched);
	append_submit(&c->log, &o.cut, &todo);
	append_submit(&c->log, &o.barrier, &todo);
	janitor_kick(c);
	cache_unlock(c, &todo);
	cache_wait(c, opened);
	c->opening = NULL;
	if (o.result == 0)
		c->conf.identity->log_incarnation = c->seg[o.cut.segment].incarnation;
	return o.result;
}

/* fdatasync of segment @i, if it has something to sync. The janitor looks at what is synced. */
static int sync_segment(struct cache *c, uint32_t i)
{
	struct segment *s = &c->seg[i];
	struct todo todo;
	bool wanted;
	int r;

	cache_lock(c, &todo);
	wanted = s->state == SEG_SEALED && s->class == FORMAT_LOG && s->unsynced;
	cache_unlock(c, &todo);
	if (!wanted)
		return 0;
	r = lio_fdatasync(c->lio, s->file);
	cache_lock(c, &todo);
	s->unsynced = r < 0;
	cache_unlock(c, &todo);
	return r;
}

/* Make durable what was kept, before anything is appended to it. */
static int sync_kept(struct recovery *rec)
{
	struct cache *c = rec->c;
	struct todo todo;
	int r = 0;

	for (uint32_t i = 0; i < c->nsegs && r == 0; i++)
		r = sync_segment(c, i);
	cache_lock(c, &todo);
	if (r == 0)
		c->durable_seq = MAX(c->durable_seq, rec->last);
	else
		c->log_unsafe = true;
	c->log_failed = r < 0; /* numbers given in vain are passed over by the next cut */
	cache_unlock(c, &todo);
	if (r < 0)
		lio_set_word(c->lio, WORD_UNSAFE, 1);
	return r;
}

static int open_log(struct recovery *rec, struct err *err)
{
	struct cache *c = rec->c;
	struct todo todo;
	int r;

	/* Not before: a start that ends here leaves a clean directory clean. */
	c->conf.identity->clean = false;
	if (c->was_clean && identity_store(c->lio, c->conf.identity) < 0)
		return err_set(err, -EIO, "cache directory: the identity record cannot be written");
	cache_lock(c, &todo);
	c->destaged_seq = rec->destaged;
	c->far_as_of_ns = rec->far_as_of;
	c->appended_seq = c->content_seq = rec->last;
	c->durable_seq = MIN(rec->durable, rec->last);
	c->next_seq = MAX(rec->max_seen, rec->limit) + 1;
	c->started = true;
	cache_unlock(c, &todo);
	r = append_opening(rec);
	if (r == -ENOSPC || r == -EDQUOT) {
		/*
		 * Of the log, what is at the target may be used again, but only when the watermark
		 * that says so is durable.
		 */
		r = sync_kept(rec);
		if (r == 0)
			r = append_opening(rec);
	}
	if (r == -ENOSPC || r == -EDQUOT)
		return err_set(err, r,
			       "the disk of the cache directory is full, and all that the cache "
			       "holds is not yet at the target: make room for %" PRIu64
			       " MiB there, then mount again; nothing is lost",
			       (uint64_t)c->seg_slots * FORMAT_SLOT_BYTES >> 20);
	if (r < 0)
		return err_set(err, r, "cache directory: cannot be written: %s", strerror(-r));
	return 0;
}

static int write_again(struct cache *c, struct segment *s, uint8_t *buf)
{
	uint64_t bytes = (uint64_t)c->seg_slots * FORMAT_SLOT_BYTES;
	int r = 0;

	for (uint64_t at = 0; at < bytes && r == 0; at += PIECE_BYTES) {
		size_t n = (size_t)MIN(bytes - at, (uint64_t)PIECE_BYTES);

		r = lio_read_sync(c->lio, s->file, buf, n, at);
		if (r == 0)
			r = lio_write_sync(c->lio, s->file, buf, n, at);
	}
	return r == -ENODATA ? 0 : r; /* cut short: what is there was judged before */
}

/*
 * A sync of the log failed during this boot. What it did not get to the medium is in the page cache
 * as if it had: only when it was written once more does a sync mean anything.
 */
static int mend_unsafe(struct cache *c, struct err *err)
{
	cleanup_free uint8_t *buf = NULL;
	int r = 0;

	if (!c->lio->same_boot || !lio_word(c->lio, WORD_UNSAFE))
		return 0;
	buf = aligned_alloc(BLK, PIECE_BYTES);
	if (!buf)
		return err_set(err, -ENOMEM, "out of memory");
	for (uint32_t i = 0; i < c->nsegs && r == 0; i++)
		if (c->seg[i].state == SEG_SEALED && c->seg[i].class == FORMAT_LOG)
			r = write_again(c, &c->seg[i], buf);
	return r < 0 ? err_set(err, r, "cache directory: cannot be written: %s", strerror(-r)) : 0;
}

int cache_recover(struct cache *c, struct err *err)
{
	struct recovery rec = { .c = c, .was_clean = c->was_clean, .forget = c->forget };
	int r;

	r = scan_directory(&rec, err);
	if (r == 0)
		r = fill_map(&rec, err);
	if (r == 0) {
		sort_segments(&rec);
		r = mend_unsafe(c, err);
	}
	if (r == 0)
		r = open_log(&rec, err);
	if (r == 0)
		lio_set_word(c->lio, WORD_UNSAFE, 0);
	scan_fini(&rec);
	return r;
}
