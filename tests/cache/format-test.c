// SPDX-License-Identifier: Apache-2.0
/* The bytes of a segment: what is written is read back, and nothing else is believed. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cache/format.h"
#include "core/cleanup.h"
#include "core/crc32c.h"
#include "tests/lib/sim.h"
#include "tests/lib/run.h"

#define SLOT FORMAT_SLOT_BYTES
#define SEGMENT_SLOTS 512u

/* Where the encoder puts what the hostile tests change: see format.c, docs/FORMAT.md. */
#define AT_CRC 8
#define AT_BODY 16
#define AT_FEATURES 16
#define AT_CLASS 48
#define AT_BATCH_SLOT 36
#define AT_BATCH_NRECORDS 72
#define AT_BATCH_NPREV 76
#define AT_BATCH_PAYLOAD 80
#define AT_RECORDS FORMAT_BATCH_FIXED
#define IN_RECORD_NBLOCKS 16
#define IN_RECORD_SLOT 20
#define IN_RECORD_KIND 24

static void put32(uint8_t *p, uint32_t v)
{
	for (unsigned i = 0; i < 4; i++)
		p[i] = (uint8_t)(v >> (8 * i));
}

static void put64(uint8_t *p, uint64_t v)
{
	put32(p, (uint32_t)v);
	put32(p + 4, (uint32_t)(v >> 32));
}

/* What somebody who knows the format would do: make the checksum right again. */
static void reseal(uint8_t *slot)
{
	put32(slot + AT_CRC, crc32c(0, slot + AT_BODY, SLOT - AT_BODY));
}

static void random_uuid(struct sim *sim, uint8_t *uuid)
{
	for (unsigned i = 0; i < FORMAT_UUID_BYTES; i++)
		uuid[i] = (uint8_t)(1 + sim_below(sim, 255));
}

static struct format_segment random_segment(struct sim *sim)
{
	struct format_segment s = {
		.segment = (uint32_t)sim_random(sim),
		.segment_bytes = (uint32_t)sim_random(sim),
		.class = sim_once_in(sim, 2) ? FORMAT_LOG : FORMAT_CLEAN,
		.incarnation = sim_random(sim),
		.first_seq = sim_random(sim),
		.destaged_seq = sim_random(sim),
		.far_as_of_ns = sim_random(sim),
		.merged_seq = sim_random(sim),
	};

	random_uuid(sim, s.uuid);
	return s;
}

static struct format_record random_record(struct sim *sim, uint32_t slot, uint32_t most)
{
	struct format_record r = {
		.blk = sim_below(sim, 1ull << 40),
		.seq = sim_random(sim),
		.nblocks = 1 + (uint32_t)sim_below(sim, 20),
		.kind = (uint8_t)(FORMAT_WRITE + sim_below(sim, FORMAT_FILL)),
	};

	if (format_payload(&r) > most)
		r.kind = FORMAT_ZERO;
	if (format_payload(&r))
		r.slot = slot;
	return r;
}

/* A legal batch that fills @crc. */
static void random_batch(struct sim *sim, struct format_batch *b, uint32_t *crc)
{
	uint32_t most;

	*b = (struct format_batch){
		.segment = (uint32_t)sim_random(sim),
		.incarnation = sim_random(sim),
		.slot = 1 + (uint32_t)sim_below(sim, 30),
		.destaged_seq = sim_random(sim),
		.durable_seq = sim_random(sim),
		.far_as_of_ns = sim_random(sim),
		.merged_seq = sim_random(sim),
		.nrecords = 1 + (uint32_t)sim_below(sim, FORMAT_BATCH_RECORDS),
		.nprev = (uint32_t)sim_below(sim, FORMAT_BATCH_RECORDS + 1),
		.crc = crc,
	};
	random_uuid(sim, b->uuid);
	most = FORMAT_BATCH_CRCS(b->nrecords, b->nprev);
	for (uint32_t i = 0; i < b->nrecords; i++) {
		b->record[i] =
			random_record(sim, b->slot + 1 + b->payload_slots, most - b->payload_slots);
		b->payload_slots += format_payload(&b->record[i]);
	}
	for (uint32_t i = 0; i < b->nprev; i++)
		b->prev[i] = random_record(sim, 2, 20);
	for (uint32_t i = 0; i < b->payload_slots; i++)
		crc[i] = (uint32_t)sim_random(sim);
}

static void same_record(const struct format_record *a, const struct format_record *b)
{
	ck_assert_uint_eq(a->blk, b->blk);
	ck_assert_uint_eq(a->seq, b->seq);
	ck_assert_uint_eq(a->nblocks, b->nblocks);
	ck_assert_uint_eq(a->slot, b->slot);
	ck_assert_uint_eq(a->kind, b->kind);
}

static void same_segment(const struct format_segment *a, const struct format_segment *b)
{
	ck_assert_mem_eq(a->uuid, b->uuid, FORMAT_UUID_BYTES);
	ck_assert_uint_eq(a->segment, b->segment);
	ck_assert_uint_eq(a->segment_bytes, b->segment_bytes);
	ck_assert_int_eq(a->class, b->class);
	ck_assert_uint_eq(a->incarnation, b->incarnation);
	ck_assert_uint_eq(a->first_seq, b->first_seq);
	ck_assert_uint_eq(a->destaged_seq, b->destaged_seq);
	ck_assert_uint_eq(a->far_as_of_ns, b->far_as_of_ns);
	ck_assert_uint_eq(a->merged_seq, b->merged_seq);
}

static void same_batch(const struct format_batch *a, const struct format_batch *b)
{
	ck_assert_mem_eq(a->uuid, b->uuid, FORMAT_UUID_BYTES);
	ck_assert_uint_eq(a->segment, b->segment);
	ck_assert_uint_eq(a->incarnation, b->incarnation);
	ck_assert_uint_eq(a->slot, b->slot);
	ck_assert_uint_eq(a->payload_slots, b->payload_slots);
	ck_assert_uint_eq(a->destaged_seq, b->destaged_seq);
	ck_assert_uint_eq(a->durable_seq, b->durable_seq);
	ck_assert_uint_eq(a->far_as_of_ns, b->far_as_of_ns);
	ck_assert_uint_eq(a->merged_seq, b->merged_seq);
	ck_assert_uint_eq(a->nrecords, b->nrecords);
	ck_assert_uint_eq(a->nprev, b->nprev);
	for (uint32_t i = 0; i < a->nrecords; i++)
		same_record(&a->record[i], &b->record[i]);
	for (uint32_t i = 0; i < a->nprev; i++)
		same_record(&a->prev[i], &b->prev[i]);
	ck_assert_mem_eq(a->crc, b->crc, a->payload_slots * sizeof(*a->crc));
}

static void same_trailer(const struct format_trailer *a, const struct format_trailer *b)
{
	ck_assert_mem_eq(a->uuid, b->uuid, FORMAT_UUID_BYTES);
	ck_assert_uint_eq(a->segment, b->segment);
	ck_assert_uint_eq(a->incarnation, b->incarnation);
	ck_assert_int_eq(a->class, b->class);
	ck_assert_uint_eq(a->nrecords, b->nrecords);
	ck_assert_uint_eq(a->ncrcs, b->ncrcs);
	ck_assert_uint_eq(a->end_slot, b->end_slot);
	ck_assert_uint_eq(a->destaged_seq, b->destaged_seq);
	ck_assert_uint_eq(a->durable_seq, b->durable_seq);
	ck_assert_uint_eq(a->far_as_of_ns, b->far_as_of_ns);
	ck_assert_uint_eq(a->merged_seq, b->merged_seq);
	ck_assert_uint_eq(a->table_crc, b->table_crc);
}

START_TEST(test_segment)
{
	struct sim *sim = sim_create(1);
	uint8_t slot[SLOT];

	for (unsigned i = 0; i < 50; i++) {
		struct format_segment s = random_segment(sim), back;

		format_segment_encode(&s, slot);
		ck_assert_int_eq(format_segment_decode(slot, &back), 0);
		same_segment(&s, &back);
	}
	sim_destroy(sim);
}
END_TEST

START_TEST(test_batch)
{
	struct sim *sim = sim_create(2);
	uint32_t crc[SLOT / 4], back_crc[SLOT / 4];
	struct format_batch b, back;
	uint8_t slot[SLOT];

	for (unsigned i = 0; i < 200; i++) {
		random_batch(sim, &b, crc);
		format_batch_encode(&b, slot);
		ck_assert_int_eq(format_batch_decode(slot, SEGMENT_SLOTS, &back, back_crc), 0);
		same_batch(&b, &back);
	}
	sim_destroy(sim);
}
END_TEST

/* A footer of some records; *@ret_slots long. The caller frees it. */
static uint8_t *make_footer(struct sim *sim, struct format_trailer *t, struct format_record *record,
			    uint32_t *crc, uint32_t nrecords, uint32_t *ret_slots)
{
	uint8_t *buf;

	*t = (struct format_trailer){
		.segment = (uint32_t)sim_random(sim),
		.incarnation = sim_random(sim),
		.class = FORMAT_LOG,
		.nrecords = nrecords,
		.end_slot = (uint32_t)sim_below(sim, SEGMENT_SLOTS),
		.destaged_seq = sim_random(sim),
		.durable_seq = sim_random(sim),
		.far_as_of_ns = sim_random(sim),
		.merged_seq = sim_random(sim),
	};
	random_uuid(sim, t->uuid);
	for (uint32_t i = 0; i < nrecords; i++) {
		record[i] = random_record(sim, 2 + (uint32_t)sim_below(sim, 400), 20);
		t->ncrcs += format_payload(&record[i]);
	}
	for (uint32_t i = 0; i < t->ncrcs; i++)
		crc[i] = (uint32_t)sim_random(sim);
	*ret_slots = format_footer_slots(nrecords, t->ncrcs);
	buf = sim_alloc((size_t)*ret_slots * SLOT);
	format_footer_encode(t, record, crc, buf);
	return buf;
}

START_TEST(test_footer)
{
	struct sim *sim = sim_create(3);
	struct format_record record[300], back_record[300];
	uint32_t crc[6000], back_crc[6000], slots;
	struct format_trailer t, back;

	for (unsigned i = 0; i < 60; i++) {
		cleanup_free uint8_t *buf =
			make_footer(sim, &t, record, crc, (uint32_t)sim_below(sim, 300), &slots);

		ck_assert_int_eq(format_trailer_decode(buf + (slots - 1) * SLOT, &back), 0);
		same_trailer(&t, &back);
		ck_assert_int_eq(
			format_table_decode(&back, buf, SEGMENT_SLOTS, back_record, back_crc), 0);
		for (uint32_t k = 0; k < t.nrecords; k++)
			same_record(&record[k], &back_record[k]);
		ck_assert_mem_eq(crc, back_crc, t.ncrcs * sizeof(*crc));
	}
	sim_destroy(sim);
}
END_TEST

/* Each byte in turn, by one bit and by all: refused, or it says the same. */
START_TEST(test_every_byte)
{
	static const uint8_t flips[] = { 0x01, 0x80, 0xff };
	struct sim *sim = sim_create(4);
	struct format_record record[40], back_record[40];
	uint32_t crc[SLOT / 4], back_crc[SLOT / 4], slots;
	uint8_t segment_slot[SLOT], batch_slot[SLOT];
	struct format_segment s = random_segment(sim), s2;
	struct format_trailer t, t2;
	struct format_batch b, b2;
	uint8_t *footer, *trailer;

	format_segment_encode(&s, segment_slot);
	random_batch(sim, &b, crc);
	format_batch_encode(&b, batch_slot);
	for (unsigned f = 0; f < ARRAY_SIZE(flips); f++)
		for (unsigned i = 0; i < SLOT; i++) {
			segment_slot[i] ^= flips[f];
			if (format_segment_decode(segment_slot, &s2) == 0)
				same_segment(&s, &s2);
			segment_slot[i] ^= flips[f];
			batch_slot[i] ^= flips[f];
			if (format_batch_decode(batch_slot, SEGMENT_SLOTS, &b2, back_crc) == 0)
				same_batch(&b, &b2);
			batch_slot[i] ^= flips[f];
		}
	footer = make_footer(sim, &t, record, crc, 40, &slots);
	trailer = footer + (slots - 1) * SLOT;
	for (unsigned f = 0; f < ARRAY_SIZE(flips); f++)
		for (unsigned i = 0; i < slots * SLOT; i++) {
			footer[i] ^= flips[f];
			if (format_trailer_decode(trailer, &t2) == 0) {
				same_trailer(&t, &t2);
				if (i < (slots - 1) * SLOT)
					ck_assert_int_eq(format_table_decode(&t2, footer,
									     SEGMENT_SLOTS,
									     back_record, back_crc),
							 -EBADMSG);
			}
			footer[i] ^= flips[f];
		}
	free(footer);
	sim_destroy(sim);
}
END_TEST

START_TEST(test_foreign_slots)
{
	uint32_t crc[SLOT / 4];
	uint8_t slot[SLOT] = { 0 };
	struct format_segment s;
	struct format_trailer t;
	struct format_batch b;

	ck_assert_int_eq(format_segment_decode(slot, &s), -EBADMSG);
	ck_assert_int_eq(format_batch_decode(slot, SEGMENT_SLOTS, &b, crc), -EBADMSG);
	ck_assert_int_eq(format_trailer_decode(slot, &t), -EBADMSG);
	/* One kind of slot is not taken for another. */
	s = (struct format_segment){ .class = FORMAT_LOG };
	format_segment_encode(&s, slot);
	ck_assert_int_eq(format_batch_decode(slot, SEGMENT_SLOTS, &b, crc), -EBADMSG);
	ck_assert_int_eq(format_trailer_decode(slot, &t), -EBADMSG);
	/* Of a later version, and whole: not damage. */
	put64(slot + AT_FEATURES, 1);
	reseal(slot);
	ck_assert_int_eq(format_segment_decode(slot, &s), -EPROTONOSUPPORT);
	put64(slot + AT_FEATURES, 0);
	put32(slot + AT_CLASS, 3);
	reseal(slot);
	ck_assert_int_eq(format_segment_decode(slot, &s), -EBADMSG);
}
END_TEST

/* One WRITE of 3 blocks behind a ZERO, in slot 5. */
static void small_batch(uint8_t *slot)
{
	static const uint32_t crc[] = { 11, 12, 13 };
	struct format_batch b = { .slot = 5, .payload_slots = 3, .nrecords = 2, .crc = crc };

	b.record[0] =
		(struct format_record){ .blk = 9, .seq = 1, .nblocks = 7, .kind = FORMAT_ZERO };
	b.record[1] = (struct format_record){
		.blk = 9, .seq = 2, .nblocks = 3, .slot = 6, .kind = FORMAT_WRITE
	};
	format_batch_encode(&b, slot);
}

static void refused32(unsigned at, uint32_t v)
{
	uint32_t crc[SLOT / 4];
	struct format_batch b;
	uint8_t slot[SLOT];

	small_batch(slot);
	put32(slot + at, v);
	reseal(slot);
	ck_assert_msg(format_batch_decode(slot, SEGMENT_SLOTS, &b, crc) == -EBADMSG,
		      "%u at byte %u was believed", v, at);
}

START_TEST(test_hostile_batch)
{
	const unsigned write = AT_RECORDS + FORMAT_RECORD_BYTES;
	uint32_t crc[SLOT / 4];
	struct format_batch b;
	uint8_t slot[SLOT];

	small_batch(slot);
	reseal(slot);
	ck_assert_int_eq(format_batch_decode(slot, SEGMENT_SLOTS, &b, crc), 0);
	ck_assert_int_eq(format_batch_decode(slot, 9, &b, crc), 0);
	ck_assert_int_eq(format_batch_decode(slot, 8, &b, crc), -EBADMSG);
	refused32(AT_BATCH_NRECORDS, 0);
	refused32(AT_BATCH_NRECORDS, 1);
	refused32(AT_BATCH_NRECORDS, 3);
	refused32(AT_BATCH_NRECORDS, FORMAT_BATCH_RECORDS + 1);
	refused32(AT_BATCH_NRECORDS, UINT32_MAX);
	refused32(AT_BATCH_NPREV, FORMAT_BATCH_RECORDS + 1);
	refused32(AT_BATCH_NPREV, UINT32_MAX);
	refused32(AT_BATCH_PAYLOAD, 2);
	refused32(AT_BATCH_PAYLOAD, 4);
	refused32(AT_BATCH_PAYLOAD, UINT32_MAX);
	refused32(AT_BATCH_SLOT, 0);
	refused32(AT_BATCH_SLOT, 4);
	refused32(AT_BATCH_SLOT, SEGMENT_SLOTS);
	refused32(AT_BATCH_SLOT, SEGMENT_SLOTS - 1);
	refused32(AT_BATCH_SLOT, UINT32_MAX);
	refused32(write + IN_RECORD_NBLOCKS, 0);
	refused32(write + IN_RECORD_NBLOCKS, 4);
	refused32(write + IN_RECORD_NBLOCKS, UINT32_MAX);
	refused32(write + IN_RECORD_SLOT, 0);
	refused32(write + IN_RECORD_SLOT, 5);
	refused32(write + IN_RECORD_SLOT, UINT32_MAX);
	refused32(write + IN_RECORD_KIND, 0);
	refused32(write + IN_RECORD_KIND, FORMAT_FILL + 1);
	refused32(AT_RECORDS + IN_RECORD_NBLOCKS, 0);
}
END_TEST

/* Volume blocks whose byte offset would wrap. */
START_TEST(test_hostile_blocks)
{
	static const uint64_t bad[] = { UINT64_MAX, UINT64_MAX - 2, UINT64_MAX / SLOT,
					UINT64_MAX / SLOT - 2 };
	uint32_t crc[SLOT / 4];
	struct format_batch b;
	uint8_t slot[SLOT];

	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
		for (unsigned r = 0; r < 2; r++) {
			small_batch(slot);
			put64(slot + AT_RECORDS + r * FORMAT_RECORD_BYTES, bad[i]);
			reseal(slot);
			ck_assert_int_eq(format_batch_decode(slot, SEGMENT_SLOTS, &b, crc),
					 -EBADMSG);
		}
}
END_TEST

/*
 * Repeated records are what names lost ones, and are believed as far as those: a header with a
 * sound checksum and nonsense in them must not get as far as the map.
 */
START_TEST(test_hostile_repeated)
{
	static const uint64_t bad[] = { UINT64_MAX, UINT64_MAX / SLOT };
	uint32_t crc[SLOT / 4];
	struct format_batch b = { .slot = 5, .nrecords = 1, .nprev = 1, .crc = crc }, back;
	uint8_t slot[SLOT];

	b.record[0] =
		(struct format_record){ .blk = 1, .seq = 8, .nblocks = 1, .kind = FORMAT_ZERO };
	b.prev[0] = (struct format_record){ .blk = 1, .seq = 7, .nblocks = 1, .kind = FORMAT_ZERO };
	format_batch_encode(&b, slot);
	ck_assert_int_eq(format_batch_decode(slot, SEGMENT_SLOTS, &back, crc), 0);
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		b.prev[0].blk = bad[i];
		format_batch_encode(&b, slot);
		ck_assert_int_eq(format_batch_decode(slot, SEGMENT_SLOTS, &back, crc), -EBADMSG);
	}
	b.prev[0] = (struct format_record){ .blk = 1, .seq = 7, .nblocks = 0, .kind = FORMAT_ZERO };
	format_batch_encode(&b, slot);
	ck_assert_int_eq(format_batch_decode(slot, SEGMENT_SLOTS, &back, crc), -EBADMSG);
	b.prev[0].kind = 99;
	format_batch_encode(&b, slot);
	ck_assert_int_eq(format_batch_decode(slot, SEGMENT_SLOTS, &back, crc), -EBADMSG);
}
END_TEST

START_TEST(test_hostile_table)
{
	struct format_record record[2] = {
		{ .blk = 4, .seq = 1, .nblocks = 2, .slot = 2, .kind = FORMAT_FILL },
		{ .blk = 8,
		  .seq = 2,
		  .nblocks = 1,
		  .slot = SEGMENT_SLOTS - 1,
		  .kind = FORMAT_FILL },
	};
	struct format_record back[2];
	uint32_t crc[3] = { 21, 22, 23 }, back_crc[3];
	struct format_trailer t = { .class = FORMAT_CLEAN, .nrecords = 2, .ncrcs = 3 };
	uint8_t buf[2 * SLOT];

	ck_assert_uint_eq(format_footer_slots(2, 3), 2);
	format_footer_encode(&t, record, crc, buf);
	ck_assert_int_eq(format_table_decode(&t, buf, SEGMENT_SLOTS, back, back_crc), 0);
	ck_assert_int_eq(format_table_decode(&t, buf, SEGMENT_SLOTS - 1, back, back_crc), -EBADMSG);
	record[1].nblocks = 2;
	format_footer_encode(&t, record, crc, buf);
	ck_assert_int_eq(format_table_decode(&t, buf, SEGMENT_SLOTS, back, back_crc), -EBADMSG);
	record[1].nblocks = 1;
	record[1].slot = 1;
	format_footer_encode(&t, record, crc, buf);
	ck_assert_int_eq(format_table_decode(&t, buf, SEGMENT_SLOTS, back, back_crc), -EBADMSG);
	record[1].slot = 2;
	record[0].nblocks = UINT32_MAX; /* with the other: a sum that is right modulo 2^32 */
	record[1].nblocks = 4;
	format_footer_encode(&t, record, crc, buf);
	ck_assert_int_eq(format_table_decode(&t, buf, SEGMENT_SLOTS, back, back_crc), -EBADMSG);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("format");
	TCase *tc = tcase_create("format");

	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, test_segment);
	tcase_add_test(tc, test_batch);
	tcase_add_test(tc, test_footer);
	tcase_add_test(tc, test_every_byte);
	tcase_add_test(tc, test_foreign_slots);
	tcase_add_test(tc, test_hostile_batch);
	tcase_add_test(tc, test_hostile_blocks);
	tcase_add_test(tc, test_hostile_repeated);
	tcase_add_test(tc, test_hostile_table);
	suite_add_tcase(s, tc);
	return run_suite(s);
}
