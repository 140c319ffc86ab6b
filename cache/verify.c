// SPDX-License-Identifier: Apache-2.0
#include "cache/verify.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cache/scan.h"
#include "core/crc32c.h"

struct verify {
	struct cache *c;
	struct recovery rec;
	struct cache_verify_result *ret;
	struct cache_damage *damage;
	size_t ndamage, cap;
	uint8_t *buf;
};

static int by_offset(const void *a, const void *b)
{
	const struct cache_damage *x = a, *y = b;

	return x->offset < y->offset ? -1 : x->offset > y->offset;
}

static int add_damage(struct verify *v, uint64_t blk, uint64_t n, bool dirty)
{
	struct cache_damage *last = v->ndamage ? &v->damage[v->ndamage - 1] : NULL;

	v->ret->damaged_bytes += n * BLK;
	if (dirty)
		v->ret->lost_bytes += n * BLK;
	if (last && last->dirty == dirty && last->offset + last->length == blk * BLK) {
		last->length += n * BLK;
		return 0;
	}
	if (v->ndamage == v->cap) {
		size_t cap = v->cap ? v->cap * 2 : 64;
		struct cache_damage *p = realloc(v->damage, cap * sizeof(*p));

		if (!p)
			return -ENOMEM;
		v->damage = p;
		v->cap = cap;
	}
	v->damage[v->ndamage++] =
		(struct cache_damage){ .offset = blk * BLK, .length = n * BLK, .dirty = dirty };
	return 0;
}

/* Read every payload block of a record and compare. */
static int verify_payload(struct verify *v, uint32_t segment, const struct format_record *r,
			  const uint32_t *crc, bool dirty)
{
	struct cache *c = v->c;
	uint32_t n = format_payload(r);

	v->ret->records++;
	for (uint32_t k = 0; k < n; k++) {
		int e = lio_read_sync(c->lio, c->seg[segment].file, v->buf, BLK,
				      (uint64_t)(r->slot + k) * FORMAT_SLOT_BYTES);

		if (e == 0 && crc32c(0, v->buf, BLK) == crc[k]) {
			if (dirty)
				v->ret->dirty_bytes += BLK;
			else
				v->ret->clean_bytes += BLK;
		} else if (add_damage(v, r->blk + k, 1, dirty) < 0) {
			return -ENOMEM;
		}
	}
	return 0;
}

static int verify_log(struct verify *v)
{
	for (size_t i = 0; i < v->rec.nfound; i++) {
		const struct found *f = &v->rec.found[i];
		bool dirty = f->record.seq > v->rec.destaged;
		int r = 0;

		if (f->void_)
			continue;
		if (!f->lost)
			r = verify_payload(v, f->segment, &f->record, f->crc, dirty);
		else if (format_is_data(&f->record))
			r = add_damage(v, f->record.blk, f->record.nblocks, dirty);
		if (r < 0)
			return r;
	}
	return 0;
}

static int verify_store(struct verify *v)
{
	struct cache *c = v->c;

	for (uint32_t i = 0; i < c->nsegs; i++) {
		const struct segment *s = &c->seg[i];
		struct seg_table t = { 0 };
		uint32_t at = 0;
		int r;

		if (s->state != SEG_SEALED)
			continue;
		v->ret->segments++;
		if (s->class != FORMAT_CLEAN)
			continue;
		r = table_load(c, i, s->file, s->incarnation, &t, NULL);
		for (uint32_t k = 0; r == 0 && k < t.nrecords; at += format_payload(&t.record[k++]))
			if (range_inside(t.record[k].blk, t.record[k].nblocks, c->nblocks))
				r = verify_payload(v, i, &t.record[k], t.crc + at, false);
		seg_table_fini(&t);
		if (r < 0)
			return r;
	}
	return 0;
}

/* As much of a cache as reading its directory takes. */
static struct cache *reader(struct lio *lio, const struct cache_identity *id)
{
	struct cache *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->lio = lio;
	c->conf.identity = (struct cache_identity *)(uintptr_t)id; /* only read */
	c->seg_slots = id->segment_bytes / FORMAT_SLOT_BYTES;
	c->limit_segs = 1;
	c->nblocks = div_round_up(id->size_bytes, BLK);
	return c;
}

static void reader_free(struct cache *c)
{
	for (uint32_t i = 0; c->seg && i < c->nsegs; i++)
		lio_close(c->lio, c->seg[i].file);
	free(c->seg);
	free(c);
}

int cache_verify(struct lio *lio, const struct cache_identity *id,
		 void (*damaged)(void *ctx, const struct cache_damage *damage), void *ctx,
		 struct cache_verify_result *ret, struct err *err)
{
	struct verify v = { .ret = ret };
	int r;

	*ret = (struct cache_verify_result){ 0 };
	v.c = reader(lio, id);
	v.buf = aligned_alloc(BLK, BLK);
	if (!v.c || !v.buf) {
		free(v.c);
		free(v.buf);
		return err_set(err, -ENOMEM, "out of memory");
	}
	v.rec.c = v.c;
	v.rec.was_clean = id->clean;
	r = scan_directory(&v.rec, err);
	if (r == 0) {
		r = verify_log(&v);
		if (r == 0)
			r = verify_store(&v);
		if (r < 0)
			err_set(err, r, "cache directory: %s", strerror(-r));
	}
	if (r == 0 && v.ndamage)
		qsort(v.damage, v.ndamage, sizeof(*v.damage), by_offset);
	for (size_t i = 0; r == 0 && damaged && i < v.ndamage; i++)
		damaged(ctx, &v.damage[i]);
	scan_fini(&v.rec);
	reader_free(v.c);
	free(v.damage);
	free(v.buf);
	return r;
}

int cache_verify_dirty(struct lio *lio, const struct cache_identity *id, uint64_t *ret_bytes,
		       bool *ret_damaged, bool *ret_merging, struct err *err)
{
	struct recovery rec = { .c = reader(lio, id), .was_clean = id->clean };
	bool damaged = false;
	uint64_t slots = 0;
	int r;

	if (!rec.c)
		return err_set(err, -ENOMEM, "out of memory");
	r = scan_directory(&rec, err);
	for (size_t i = 0; r == 0 && i < rec.nfound; i++) {
		const struct found *f = &rec.found[i];

		if (f->void_ || f->record.seq <= rec.destaged || !format_is_data(&f->record))
			continue;
		slots += 1 + format_payload(&f->record);
		damaged |= f->lost;
	}
	scan_fini(&rec);
	reader_free(rec.c);
	if (r < 0)
		return r;
	*ret_bytes = slots * FORMAT_SLOT_BYTES;
	*ret_damaged = damaged;
	*ret_merging = rec.merged > rec.destaged;
	return 0;
}
