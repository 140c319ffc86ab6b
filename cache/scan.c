// SPDX-License-Identifier: Apache-2.0
/*
 * Reading a cache directory.
 *
 *  1. Read the header of every segment file; a file that is not ours, or of another life, is free.
 *  2. Read the records of every log segment (footers; unsealed ones are walked) and sort them by
 * sequence number.
 *  3. Decide how far the log is good. `limit` is the newest record that was certainly complete: the
 *     acknowledged one where this boot wrote it (kill -9), else the newest durable mark found
 *     (power cut). What is missing or does not match its checksum up to there is damage and is
 *     named; the first such record beyond it is the torn tail: it and everything later is cut off.
 *
 * Gaps below the watermark: segments are reclaimed from the tail, so records before a gap are
 * leftovers of an earlier life; only the unbroken run up to the watermark counts.
 */
#include "cache/scan.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/crc32c.h"

/* ---- 1. files ---- */

static int each_name(void *ctx, const char *name)
{
	struct recovery *rec = ctx;
	uint32_t n;
	char check[32];

	if (sscanf(name, "%8" SCNx32 ".seg", &n) != 1)
		return 0;
	segment_name(n, check);
	if (strcmp(name, check) == 0 &&
	    n < (1u << MAP_SLOT_BITS) / rec->c->seg_slots - SPARE_SEGMENTS)
		rec->highest = MAX(rec->highest, n + 1);
	return 0;
}

static bool ours(const struct cache *c, const uint8_t uuid[FORMAT_UUID_BYTES])
{
	return memcmp(uuid, c->conf.identity->cache_uuid, FORMAT_UUID_BYTES) == 0;
}

static void adopt(struct recovery *rec, uint32_t i, enum format_class class, uint64_t incarnation)
{
	struct segment *s = &rec->c->seg[i];

	if (s->state == SEG_SEALED && s->incarnation > incarnation)
		return;
	s->state = SEG_SEALED;
	s->class = class;
	s->incarnation = incarnation;
	rec->incarnation = MAX(rec->incarnation, incarnation);
}

/*
 * The header is lost: a whole footer says the same, or the first batch of a segment that has no
 * footer yet. The footer may be of an earlier life of the file. 0, or the error of a read.
 */
static int adopt_orphan(struct recovery *rec, uint32_t i, uint8_t *slot)
{
	struct cache *c = rec->c;
	struct lio_file *file = c->seg[i].file;
	struct format_trailer t;
	struct format_batch b;
	uint32_t crc[FORMAT_SLOT_BYTES / 4];
	int r;

	r = lio_read_sync(c->lio, file, slot, FORMAT_SLOT_BYTES,
			  (uint64_t)(c->seg_slots - 1) * FORMAT_SLOT_BYTES);
	if (r == 0 && format_trailer_decode(slot, &t) == 0 && t.segment == i && ours(c, t.uuid))
		adopt(rec, i, t.class, t.incarnation);
	r = lio_read_sync(c->lio, file, slot, FORMAT_SLOT_BYTES, FORMAT_SLOT_BYTES);
	if (r < 0)
		return r == -ENODATA ? 0 : r;
	if (format_batch_decode(slot, c->seg_slots, &b, crc) == 0 && b.segment == i &&
	    ours(c, b.uuid))
		adopt(rec, i, b.record[0].kind == FORMAT_FILL ? FORMAT_CLEAN : FORMAT_LOG,
		      b.incarnation);
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
	if (r < 0 && r != -ENODATA && r != -EIO)
		return r;
	if (r == 0)
		r = format_segment_decode(slot, &head);
	if (r == -EPROTONOSUPPORT)
		return r;
	if (r < 0) {
		r = adopt_orphan(rec, i, slot);
		return r == -EIO && rec->was_clean ? 0 : r;
	}
	if (head.segment != i || head.segment_bytes != c->seg_slots * FORMAT_SLOT_BYTES ||
	    !ours(c, head.uuid))
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

static int worth(const struct found *f)
{
	return !f->crc ? 0 : f->record.slot == TABLE_REPEATED ? 1 : 2;
}

static int by_seq(const void *a, const void *b)
{
	const struct found *x = a, *y = b;

	if (x->record.seq != y->record.seq)
		return x->record.seq < y->record.seq ? -1 : 1;
	/*
	 * The same number twice: an append that failed was repeated in a segment begun later. What
	 * is there wins over what the next header repeats of it, and that over what it only names;
	 * the second append over the first.
	 */
	if (worth(x) != worth(y))
		return worth(x) > worth(y) ? -1 : 1;
	return x->incarnation > y->incarnation ? -1 : x->incarnation < y->incarnation;
}

static void add_found(struct recovery *rec, uint32_t i, const struct seg_table *t, bool named)
{
	struct cache *c = rec->c;
	static const uint32_t none;
	uint32_t at = 0;

	for (uint32_t k = 0; k < t->nrecords; k++) {
		const struct format_record *r = &t->record[k];
		struct found *f = &rec->found[rec->nfound];

		*f = (struct found){ .record = *r,
				     .segment = i,
				     .incarnation = c->seg[i].incarnation };
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

static int unreadable(struct err *err, uint32_t segment, int error)
{
	return err_set(err, error,
		       "cache directory: segment %08" PRIx32
		       " cannot be read (%s), and it may hold writes that are not yet at the "
		       "target: see what is wrong with the disk, then try again",
		       segment, strerror(-error));
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
		rec->unread |= info->unread;
		if (info->unread_tail && !rec->was_clean)
			return unreadable(err, i, -EIO);
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

/* 0: the payload of @f is what its checksums say; -EBADMSG: it is not; -EIO: it cannot be read. */
static int check_payload(struct recovery *rec, const struct found *f, uint8_t *buf)
{
	struct cache *c = rec->c;
	uint32_t n = format_payload(&f->record);

	for (uint32_t k = 0; k < n; k++) {
		int r = lio_read_sync(c->lio, c->seg[f->segment].file, buf, BLK,
				      (uint64_t)(f->record.slot + k) * FORMAT_SLOT_BYTES);

		if (r < 0 && r != -ENODATA)
			return r;
		if (r < 0 || crc32c(0, buf, BLK) != f->crc[k])
			return -EBADMSG;
	}
	return 0;
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
		       " records of the guest log that are not yet at the target are missing "
		       "(sequence %" PRIu64 " to %" PRIu64
		       ") and nothing names what they held: put the missing segment files (*.seg) "
		       "back; or give up what is unsent by using another --cache-dir",
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
	int r;

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
			} else if (rec->unread) {
				return unreadable(err, f->segment, -EIO);
			} else {
				cut_at(rec, i);
				break;
			}
		} else if (!want && from > rec->destaged + 1) {
			return missing(err, rec->destaged + 1, from - 1);
		}
		r = f->record.seq <= rec->limit ? 0
		    : f->lost                   ? -EBADMSG
						: check_payload(rec, f, buf);
		/* A torn tail reads back, as something else; what does not read may be whole. */
		if (r < 0 && (r != -EBADMSG || rec->unread))
			return unreadable(err, f->segment, r == -EBADMSG ? -EIO : r);
		if (r < 0) {
			cut_at(rec, i);
			break;
		}
		want = f->record.seq + 1;
		rec->last = MAX(rec->last, f->record.seq);
	}
	/* The newest records at or under the watermark are missing: the target is newer than the
	 * rest. */
	if (want && want <= rec->destaged)
		cut_at(rec, 0);
	if (rec->last < rec->limit)
		return missing(err, rec->last + 1, rec->limit);
	rec->tail = rec->last + 1;
	rec->tail_life = UINT64_MAX;
	for (size_t i = 0; i < rec->nfound; i++) {
		if (!rec->found[i].void_) {
			rec->tail = covers_from(&rec->found[i]);
			rec->tail_life = rec->found[i].incarnation >> INCARNATION_LIFE_SHIFT;
			break;
		}
	}
	return 0;
}

/*
 * Each start that succeeds begins a segment of the log, durably, and then notes it: one that is not
 * there any more, nor any later one, has taken with it whatever was written since.
 */
static int check_newest(struct recovery *rec, struct err *err)
{
	struct cache *c = rec->c;

	for (uint32_t i = 0; i < c->nsegs; i++)
		if (c->seg[i].state == SEG_SEALED && c->seg[i].class == FORMAT_LOG &&
		    c->seg[i].incarnation >= c->conf.identity->log_incarnation)
			return 0;
	return err_set(err, -EUCLEAN,
		       "cache directory: the newest segment of the guest log is missing, and what "
		       "it held may not be at the target yet: put the missing segment files "
		       "(*.seg) back; or give up what is unsent by using another --cache-dir");
}

int scan_directory(struct recovery *rec, struct err *err)
{
	struct cache *c = rec->c;
	uint64_t last_seq, tail, destaged;
	int r;

	r = open_segments(rec, err);
	if (r == 0 && !rec->was_clean && c->conf.identity->log_incarnation)
		r = check_newest(rec, err);
	if (r == 0)
		r = load_log(rec, err);
	if (r < 0)
		return r;
	/* The index has a copy of the watermark; it is asked by who opens the cache only. */
	if (c->conf.index && index_get_tail(c->conf.index, &tail, &destaged) == 0)
		rec->destaged = MAX(rec->destaged, destaged);
	rec->limit = rec->durable;
	if (c->lio->same_boot)
		rec->limit = MAX(rec->limit, cache_word_seq(lio_word(c->lio, WORD_APPENDED)));
	/* Stopped with nothing unsent: what is missing now is at the target, whatever it was. */
	last_seq = c->conf.identity->last_seq;
	if (rec->was_clean) {
		/* The newest segment itself is gone: what is left of the log is older than the
		 * target. */
		if (rec->max_seen < last_seq || rec->forget)
			cut_at(rec, 0);
		/* Forgotten: a gap below the watermark keeps the old records out for good. */
		rec->max_seen = MAX(rec->max_seen, last_seq) + rec->forget;
		rec->destaged = MAX(rec->destaged, rec->limit);
		rec->destaged = MAX(rec->destaged, rec->max_seen);
	} else {
		/* Written before the last stop, so it was complete. */
		rec->limit = MAX(rec->limit, last_seq);
	}
	rec->limit = MAX(rec->limit, rec->destaged);
	return find_end(rec, err);
}

void scan_fini(struct recovery *rec)
{
	for (uint32_t i = 0; i < rec->c->nsegs; i++) {
		if (rec->table)
			seg_table_fini(&rec->table[i]);
		if (rec->info)
			seg_table_fini(&rec->info[i].named);
	}
	free(rec->table);
	free(rec->info);
	free(rec->found);
}
