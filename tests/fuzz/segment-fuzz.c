// SPDX-License-Identifier: Apache-2.0
/*
 * Segment files: headers, batches, payload and footers, as a directory may hold them. An input is
 *
 *	u8 flags (1: the record says clean), u8 last_seq of the record
 *	for each slot: u8 segment, u8 slot, u8 flags, u16 length, its bytes up to the last that is
 *	not zero
 *
 * with the flags 1: make the slot's checksum right; 2: it is a trailer, make its table's right too.
 *
 * First every slot alone, then each file's records (table.c), then the directory from end to end
 * (scan.c, verify.c). What is believed lies within segment and volume and is what the encoders
 * write; nothing is counted twice.
 */
#include <errno.h>
#include <stdlib.h>

#include "cache/internal.h"
#include "cache/verify.h"
#include "core/crc32c.h"
#include "core/le.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/memdir.h"

#define SLOT FORMAT_SLOT_BYTES
#define SLOTS 64u /* of a segment */
#define SEGMENTS 3u
#define VOLUME_BYTES (64ull << 20)
#define AT_CRC 8 /* docs/FORMAT.md */
#define AT_BODY 16
#define AT_TRAILER_NRECORDS 48
#define AT_TRAILER_TABLE_CRC 60

enum { RESEAL = 1, RESEAL_TABLE = 2 };

const unsigned fuzz_runs = 15000;

static const uint8_t uuid[FORMAT_UUID_BYTES] = { 0xc0, 0xff, 0xee };

/* What an input makes; the slots of a segment that is not there are of an earlier one. */
static struct image {
	bool there[SEGMENTS];
	uint8_t slot[SEGMENTS][SLOTS][SLOT];
} image;

static void reseal(uint8_t *slot)
{
	le_put(slot + AT_CRC, crc32c(0, slot + AT_BODY, SLOT - AT_BODY), 4);
}

/* The table lies right before the trailer; how long it is the trailer says. */
static void reseal_table(uint8_t (*segment)[SLOT])
{
	uint8_t *trailer = segment[SLOTS - 1];
	uint64_t nrecords = le_get(trailer + AT_TRAILER_NRECORDS, 4);
	uint64_t ncrcs = le_get(trailer + AT_TRAILER_NRECORDS + 4, 4);
	uint64_t slots = div_round_up(nrecords * FORMAT_RECORD_BYTES + ncrcs * 4, SLOT);

	if (slots < SLOTS)
		le_put(trailer + AT_TRAILER_TABLE_CRC,
		       crc32c(0, segment[SLOTS - 1 - slots], slots * SLOT), 4);
	reseal(trailer);
}

static void read_image(struct fuzz_input *in, struct image *im)
{
	bool table[SEGMENTS] = { false };

	memset(im->there, 0, sizeof(im->there));
	while (in->left) {
		unsigned i = (unsigned)fuzz_take(in, 1) % SEGMENTS;
		unsigned s = (unsigned)fuzz_take(in, 1) % SLOTS;
		unsigned flags = (unsigned)fuzz_take(in, 1);
		size_t want = fuzz_take(in, 2) % (SLOT + 1), length;
		const uint8_t *at = fuzz_take_bytes(in, want, &length);

		if (!im->there[i])
			memset(im->slot[i], 0, sizeof(im->slot[i]));
		im->there[i] = true;
		memset(im->slot[i][s], 0, SLOT);
		if (length)
			memcpy(im->slot[i][s], at, length);
		if (flags & RESEAL)
			reseal(im->slot[i][s]);
		table[i] |= s == SLOTS - 1 && (flags & RESEAL_TABLE);
	}
	for (unsigned i = 0; i < SEGMENTS; i++)
		if (table[i])
			reseal_table(im->slot[i]);
}

/* ---- what is promised ---- */

static void check_record(const struct format_record *r, uint32_t end_slot)
{
	uint32_t payload = format_payload(r);

	fuzz_check(r->kind >= FORMAT_WRITE && r->kind <= FORMAT_FILL);
	if (format_is_data(r) || payload)
		fuzz_check(r->nblocks && r->blk <= UINT64_MAX / SLOT - r->nblocks);
	if (payload)
		fuzz_check(r->slot >= 2 && r->slot < end_slot && payload <= end_slot - r->slot);
}

/* Encode, decode and encode again: the same bytes. */
static void check_batch(const struct format_batch *b)
{
	uint8_t once[SLOT], twice[SLOT];
	uint32_t crc[SLOT / 4], payload = 0;
	struct format_batch back;

	fuzz_check(b->slot >= 1 && b->slot + 1 + b->payload_slots <= SLOTS);
	for (uint32_t i = 0; i < b->nrecords; i++) {
		check_record(&b->record[i], b->slot + 1 + b->payload_slots);
		if (format_payload(&b->record[i]))
			fuzz_check(b->record[i].slot == b->slot + 1 + payload);
		payload += format_payload(&b->record[i]);
	}
	fuzz_check(payload == b->payload_slots);
	for (uint32_t i = 0; i < b->nprev; i++)
		check_record(&b->prev[i], SLOTS);
	format_batch_encode(b, once);
	fuzz_check(format_batch_decode(once, SLOTS, &back, crc) == 0);
	format_batch_encode(&back, twice);
	fuzz_check(memcmp(once, twice, SLOT) == 0);
}

static void check_slot(const uint8_t *slot)
{
	uint8_t once[SLOT], twice[SLOT];
	uint32_t crc[SLOT / 4];
	struct format_segment s, s2;
	struct format_batch b;
	struct format_trailer t;
	unsigned kinds = 0;

	if (format_segment_decode(slot, &s) == 0) {
		kinds++;
		fuzz_check(s.class == FORMAT_LOG || s.class == FORMAT_CLEAN);
		format_segment_encode(&s, once);
		fuzz_check(format_segment_decode(once, &s2) == 0);
		format_segment_encode(&s2, twice);
		fuzz_check(memcmp(once, twice, SLOT) == 0);
	}
	if (format_batch_decode(slot, SLOTS, &b, crc) == 0) {
		kinds++;
		check_batch(&b);
	}
	if (format_trailer_decode(slot, &t) == 0) {
		kinds++;
		fuzz_check(t.class == FORMAT_LOG || t.class == FORMAT_CLEAN);
	}
	fuzz_check(kinds <= 1);
}

/* A footer of these records says the same again. */
static void check_footer(const struct seg_table *t)
{
	uint32_t slots = format_footer_slots(t->nrecords, t->ncrcs);
	struct format_trailer trailer = { .class = FORMAT_LOG,
					  .nrecords = t->nrecords,
					  .ncrcs = t->ncrcs },
			      back;
	struct format_record *record = fuzz_alloc(t->nrecords * sizeof(*record));
	uint32_t *crc = fuzz_alloc(t->ncrcs * sizeof(*crc));
	uint8_t *buf = fuzz_alloc((size_t)slots * SLOT);

	format_footer_encode(&trailer, t->record, t->crc, buf);
	fuzz_check(format_trailer_decode(buf + (size_t)(slots - 1) * SLOT, &back) == 0);
	fuzz_check(back.nrecords == t->nrecords && back.ncrcs == t->ncrcs);
	fuzz_check(format_table_decode(&back, buf, SLOTS, record, crc) == 0);
	for (uint32_t i = 0; i < t->nrecords; i++)
		fuzz_check(record[i].blk == t->record[i].blk && record[i].seq == t->record[i].seq &&
			   record[i].nblocks == t->record[i].nblocks &&
			   record[i].slot == t->record[i].slot &&
			   record[i].kind == t->record[i].kind);
	if (t->ncrcs)
		fuzz_check(memcmp(crc, t->crc, t->ncrcs * sizeof(*crc)) == 0);
	free(record);
	free(crc);
	free(buf);
}

static void check_table(const struct seg_table *t, const struct table_info *info)
{
	uint64_t payload = 0;
	uint32_t behind = 2;

	fuzz_check(info->end_slot <= SLOTS);
	if (info->from_footer)
		fuzz_check(info->end_slot + format_footer_slots(t->nrecords, t->ncrcs) <= SLOTS);
	for (uint32_t i = 0; i < t->nrecords; i++) {
		const struct format_record *r = &t->record[i];

		check_record(r, info->end_slot);
		payload += format_payload(r);
		if (!format_payload(r) || info->from_footer)
			continue;
		fuzz_check(r->slot >= behind);
		behind = r->slot + format_payload(r);
	}
	fuzz_check(payload == t->ncrcs);
	for (uint32_t i = 0; i < info->named.nrecords; i++)
		check_record(&(struct format_record){ .blk = info->named.record[i].blk,
						      .nblocks = info->named.record[i].nblocks,
						      .slot = 2,
						      .kind = info->named.record[i].kind },
			     UINT32_MAX);
	fuzz_check(info->named.ncrcs == 0);
}

static void check_tables(struct lio *lio, struct cache_identity *id, const struct image *im)
{
	struct cache *c = fuzz_alloc(sizeof(*c));

	c->lio = lio;
	c->conf.identity = id;
	c->seg_slots = SLOTS;
	for (unsigned i = 0; i < SEGMENTS; i++) {
		struct format_segment head = { .incarnation = 1 };
		struct table_info info;
		struct seg_table t;
		struct lio_file *file;
		char name[32];

		if (!im->there[i])
			continue;
		segment_name(i, name);
		(void)format_segment_decode(im->slot[i][0], &head);
		fuzz_check(lio_open(lio, name, 0, &file) == 0);
		fuzz_check(table_load(c, i, file, head.incarnation, &t, &info) == 0);
		check_table(&t, &info);
		if (format_footer_slots(t.nrecords, t.ncrcs) < SLOTS)
			check_footer(&t);
		seg_table_fini(&t);
		seg_table_fini(&info.named);
		lio_close(lio, file);
	}
	free(c);
}

struct damage_sum {
	uint64_t bytes, lost, from;
};

static void on_damage(void *ctx, const struct cache_damage *d)
{
	struct damage_sum *sum = ctx;

	fuzz_check(d->length && range_inside(d->offset, d->length, VOLUME_BYTES));
	fuzz_check(d->offset >= sum->from);
	sum->from = d->offset;
	sum->bytes += d->length;
	sum->lost += d->dirty ? d->length : 0;
}

static void check_directory(struct lio *lio, const struct cache_identity *id)
{
	struct damage_sum sum = { 0 };
	struct cache_verify_result v;
	struct err err = { .text = "" };
	uint64_t dirty;
	bool damaged;
	int r = cache_verify(lio, id, on_damage, &sum, &v, &err), r2;

	fuzz_check(r == 0 || err.text[0]);
	r2 = cache_verify_dirty(lio, id, &dirty, &damaged, &err);
	fuzz_check(r == r2);
	if (r < 0)
		return;
	fuzz_check(sum.bytes == v.damaged_bytes && sum.lost == v.lost_bytes);
	/* Each record of payload was sent with a header, and not all of it is good. */
	fuzz_check(v.dirty_bytes <= dirty);
	if (damaged)
		fuzz_check(v.lost_bytes > 0);
	if (id->clean)
		fuzz_check(v.dirty_bytes == 0 && v.lost_bytes == 0 && dirty == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = { data, size };
	struct lio *lio = memdir_open();
	struct cache_identity *id = fuzz_alloc(sizeof(*id));

	id->format_version = IDENTITY_FORMAT_VERSION;
	memcpy(id->cache_uuid, uuid, sizeof(uuid));
	id->segment_bytes = SLOTS * SLOT;
	id->size_bytes = VOLUME_BYTES;
	id->sector_bytes = 512;
	id->clean = fuzz_take(&in, 1) & 1;
	id->last_seq = fuzz_take(&in, 1);
	read_image(&in, &image);
	for (unsigned i = 0; i < SEGMENTS; i++) {
		char name[32];

		if (!image.there[i])
			continue;
		for (unsigned s = 0; s < SLOTS; s++)
			check_slot(image.slot[i][s]);
		segment_name(i, name);
		memdir_put(lio, name, image.slot[i], sizeof(image.slot[i]));
	}
	check_tables(lio, id, &image);
	check_directory(lio, id);
	lio_destroy(lio);
	free(id);
	return 0;
}

/* ---- seeds: a segment as the appender writes it ---- */

struct writer {
	struct fuzz_output out;
	uint32_t segment, slot;
	uint64_t seq, incarnation;
	enum format_class class;
	struct format_batch b; /* the last one */
	struct seg_table table;
	uint32_t crc[SLOTS];
};

static void put_slot(struct writer *w, uint32_t slot, unsigned flags, const uint8_t *bytes)
{
	size_t length = SLOT;

	while (length && !bytes[length - 1])
		length--;
	fuzz_put(&w->out, w->segment, 1);
	fuzz_put(&w->out, slot, 1);
	fuzz_put(&w->out, flags, 1);
	fuzz_put(&w->out, length, 2);
	fuzz_put_bytes(&w->out, bytes, length);
}

static void begin(struct writer *w, uint32_t segment, enum format_class class)
{
	struct format_segment s = {
		.segment = segment,
		.segment_bytes = SLOTS * SLOT,
		.class = class,
		.incarnation = (1ull << INCARNATION_LIFE_SHIFT) + segment,
		.first_seq = w->seq + 1,
	};
	uint8_t bytes[SLOT];

	memcpy(s.uuid, uuid, sizeof(uuid));
	w->segment = segment;
	w->slot = 1;
	w->incarnation = s.incarnation;
	w->class = class;
	w->b = (struct format_batch){ .nrecords = 0 };
	format_segment_encode(&s, bytes);
	put_slot(w, 0, RESEAL, bytes);
}

/* A batch of the @n records in @r, whose numbers, slots and payload follow from where it stands. */
static void put_batch(struct writer *w, const struct format_record *r, uint32_t n)
{
	struct format_batch b = {
		.segment = w->segment,
		.incarnation = w->incarnation,
		.slot = w->slot,
		.durable_seq = w->seq,
		.nrecords = n,
		.nprev = w->b.nrecords,
		.crc = w->crc,
	};
	uint8_t bytes[SLOT];

	memcpy(b.uuid, uuid, sizeof(uuid));
	memcpy(b.prev, w->b.record, sizeof(b.prev));
	for (uint32_t i = 0; i < n; i++) {
		struct format_record *to = &b.record[i];

		*to = r[i];
		to->seq = w->class == FORMAT_LOG ? ++w->seq : w->seq;
		if (format_payload(to))
			to->slot = w->slot + 1 + b.payload_slots;
		for (uint32_t k = 0; k < format_payload(to); k++) {
			memset(bytes, 0, SLOT);
			le_put(bytes, (to->blk + k) * 0x9e3779b97f4a7c15u | 1, 8);
			w->crc[b.payload_slots++] = crc32c(0, bytes, SLOT);
			put_slot(w, w->slot + b.payload_slots, 0, bytes);
		}
		fuzz_check(seg_table_add(&w->table, to,
					 w->crc + b.payload_slots - format_payload(to)) == 0);
	}
	format_batch_encode(&b, bytes);
	put_slot(w, w->slot, RESEAL, bytes);
	w->slot += 1 + b.payload_slots;
	w->b = b;
}

static void seal(struct writer *w)
{
	uint32_t slots = format_footer_slots(w->table.nrecords, w->table.ncrcs);
	struct format_trailer t = {
		.segment = w->segment,
		.incarnation = w->incarnation,
		.class = w->class,
		.nrecords = w->table.nrecords,
		.ncrcs = w->table.ncrcs,
		.end_slot = w->slot,
		.durable_seq = w->seq,
	};
	uint8_t *buf = fuzz_alloc((size_t)slots * SLOT);

	memcpy(t.uuid, uuid, sizeof(uuid));
	format_footer_encode(&t, w->table.record, w->table.crc, buf);
	for (uint32_t i = 0; i < slots; i++)
		put_slot(w, SLOTS - slots + i, i + 1 == slots ? RESEAL | RESEAL_TABLE : 0,
			 buf + (size_t)i * SLOT);
	free(buf);
	seg_table_fini(&w->table);
}

static void finish(struct writer *w)
{
	fuzz_put_seed(&w->out);
	seg_table_fini(&w->table);
	*w = (struct writer){ .seq = 0 };
}

void fuzz_seeds(void)
{
	static const struct format_record writes[] = {
		{ .blk = 10, .nblocks = 3, .kind = FORMAT_WRITE },
		{ .blk = 11, .nblocks = 1, .kind = FORMAT_WRITE },
		{ .blk = 900, .nblocks = 4000, .kind = FORMAT_ZERO },
	};
	static const struct format_record control[] = {
		{ .blk = 1790000000, .nblocks = FORMAT_CUT_FLUSH, .kind = FORMAT_BARRIER },
		{ .blk = 3, .kind = FORMAT_WATERMARK },
		{ .blk = 4000, .nblocks = 96, .kind = FORMAT_DISCARD },
	};
	static const struct format_record cut[] = { { .blk = 9, .kind = FORMAT_CUT } };
	static const struct format_record fills[] = {
		{ .blk = 64, .nblocks = 8, .kind = FORMAT_FILL },
		{ .blk = 200, .nblocks = 2, .kind = FORMAT_FILL },
	};
	struct writer w = { .seq = 0 };

	/* A log that is not sealed. */
	fuzz_put(&w.out, 0, 2);
	begin(&w, 0, FORMAT_LOG);
	put_batch(&w, writes, 3);
	put_batch(&w, control, 3);
	put_batch(&w, writes, 2);
	finish(&w);
	/* One that goes on in a second segment, behind a footer and a cut. */
	fuzz_put(&w.out, 0, 2);
	begin(&w, 0, FORMAT_LOG);
	put_batch(&w, writes, 3);
	put_batch(&w, control, 3);
	put_batch(&w, writes, 3);
	seal(&w);
	w.seq += 2;
	begin(&w, 1, FORMAT_LOG);
	put_batch(&w, cut, 1);
	put_batch(&w, writes, 2);
	finish(&w);
	/* A clean store, and a log beside it; stopped with nothing unsent. */
	fuzz_put(&w.out, 0x0301, 2);
	begin(&w, 2, FORMAT_CLEAN);
	put_batch(&w, fills, 2);
	seal(&w);
	begin(&w, 0, FORMAT_LOG);
	put_batch(&w, writes, 3);
	finish(&w);
}
