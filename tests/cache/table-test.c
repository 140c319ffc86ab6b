// SPDX-License-Identifier: Apache-2.0
/* Footers whose checksums are right and whose contents are not: the segment is walked instead. */
#include <check.h>
#include <string.h>

#include "cache/internal.h"
#include "core/cleanup.h"
#include "tests/lib/run.h"
#include "tests/lib/simdisk.h"

#define SLOT FORMAT_SLOT_BYTES
#define SLOTS 16u

static struct cache_identity id = { .cache_uuid = { 0xc0, 0xff, 0xee } };

/* A log of one WRITE of @nblocks at slot 2, its footer as the caller made it. */
static void put_segment(struct lio_file *file, struct lio *lio, struct format_trailer *t,
			const struct format_record *footer)
{
	static uint8_t slot[SLOTS][SLOT];
	const uint32_t crc[4] = { 1, 2, 3, 4 };
	struct format_segment s = { .segment_bytes = sizeof(slot),
				    .class = FORMAT_LOG,
				    .incarnation = 5 };
	struct format_batch b = {
		.incarnation = 5, .slot = 1, .payload_slots = 4, .nrecords = 1, .crc = crc
	};

	b.record[0] = (struct format_record){
		.blk = 7, .seq = 1, .nblocks = 4, .slot = 2, .kind = FORMAT_WRITE
	};
	memcpy(s.uuid, id.cache_uuid, sizeof(s.uuid));
	memcpy(b.uuid, id.cache_uuid, sizeof(b.uuid));
	memcpy(t->uuid, id.cache_uuid, sizeof(t->uuid));
	t->incarnation = 5;
	t->class = FORMAT_LOG;
	t->nrecords = 1;
	t->ncrcs = 4;
	memset(slot, 0, sizeof(slot));
	format_segment_encode(&s, slot[0]);
	format_batch_encode(&b, slot[1]);
	format_footer_encode(t, footer, crc, slot[SLOTS - 2]);
	ck_assert_int_eq(lio_write_sync(lio, file, slot, sizeof(slot), 0), 0);
}

static const struct {
	uint32_t slot;     /* of the footer's record, of 4 blocks */
	uint32_t end_slot; /* as the trailer says */
	bool good;
} rows[] = {
	{ 2, 6, true },    { 10, 14, true }, { 3, 6, false }, /* reaches behind the last batch */
	{ 11, 15, false },                                    /* into the footer */
	{ 2, 15, false },                                     /* the last batch does */
	{ 2, 16, false },  { 2, 17, false }, { 2, 0, false },
};

START_TEST(test_footer)
{
	struct sim *sim = sim_create(1);
	struct simdisk *disk = simdisk_create(sim);
	struct cache *c = sim_alloc(sizeof(*c));
	struct format_record r = {
		.blk = 7, .seq = 1, .nblocks = 4, .slot = rows[_i].slot, .kind = FORMAT_WRITE
	};
	struct format_trailer t = { .end_slot = rows[_i].end_slot };
	struct table_info info;
	struct lio_file *file;
	struct seg_table table;

	c->lio = simdisk_open(disk, sim);
	c->conf.identity = &id;
	c->seg_slots = SLOTS;
	ck_assert_int_eq(lio_open(c->lio, "00000000.seg", LIO_CREATE, &file), 0);
	put_segment(file, c->lio, &t, &r);
	ck_assert_int_eq(table_load(c, 0, file, 5, &table, &info), 0);
	ck_assert_int_eq(info.from_footer, rows[_i].good);
	ck_assert_uint_eq(table.nrecords, 1);
	ck_assert_uint_eq(table.ncrcs, 4);
	ck_assert_uint_eq(table.record[0].slot, rows[_i].good ? rows[_i].slot : 2);
	ck_assert_uint_eq(info.end_slot, rows[_i].good ? rows[_i].end_slot : 6);
	seg_table_fini(&table);
	seg_table_fini(&info.named);
	lio_close(c->lio, file);
	lio_destroy(c->lio);
	free(c);
	simdisk_destroy(disk);
	sim_destroy(sim);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("table");
	TCase *tc = tcase_create("table");

	tcase_add_loop_test(tc, test_footer, 0, ARRAY_SIZE(rows));
	suite_add_tcase(s, tc);
	return run_suite(s);
}
