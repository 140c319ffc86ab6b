// SPDX-License-Identifier: Apache-2.0
/*
 * Rot in one place that matters: the header of the one batch that holds a certain record. What the
 * batch behind it repeats is enough for records without payload, be they found at a start or when
 * their segment is taken back.
 */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cache/format.h"
#include "cache/internal.h"
#include "core/clock.h"
#include "core/log.h"
#include "tests/cache/rig.h"
#include "tests/lib/run.h"

#define SIZE ((2u << 20) + 3 * RIG_BLK + 512)
#define SLOTS (RIG_SEGMENT_BYTES / FORMAT_SLOT_BYTES)
#define SEEDS 10
#define CHANGES (1u << BLK_WRITE | 1u << BLK_ZERO | 1u << BLK_DISCARD)
#define LONG_NS (60 * NSEC_PER_SEC)

static void open_rig(struct rig *rig)
{
	if (rig_open(rig) < 0)
		sim_die(rig->sim, "%s", rig->err.text);
}

static struct rig *make(int i)
{
	struct rig *rig = rig_create((uint64_t)i + 1, SIZE);

	rig_will_be_killed(rig);
	open_rig(rig);
	return rig;
}

static void drain(struct rig *rig)
{
	int r = rig_drain(rig, LONG_NS);

	if (r < 0)
		sim_die(rig->sim, "drain: %s", strerror(-r));
	rig_check_far(rig);
}

static void end(struct rig *rig)
{
	drain(rig);
	cache_check(rig->cache);
	rig_stop(rig);
	rig_destroy(rig);
}

static const uint8_t *slot_of(const uint8_t *data, uint32_t slot)
{
	return data + (uint64_t)slot * FORMAT_SLOT_BYTES;
}

struct place {
	const char *name;
	uint32_t slot;
	uint32_t slots; /* of the batch */
	uint64_t incarnation;
};

/* The newest batch that holds a record of @kind. */
static struct place newest_of(struct rig *rig, uint8_t kind)
{
	static struct format_batch b;
	static uint32_t crc[FORMAT_SLOT_BYTES / 4];
	struct place found = { NULL, 0, 0, 0 };
	uint64_t most = 0;
	const char *name;

	for (size_t i = 0; (name = simdisk_name(rig->disk, i)); i++) {
		struct format_segment head;
		const uint8_t *data;
		uint64_t bytes;

		if (!strstr(name, ".seg"))
			continue;
		simdisk_peek(rig->disk, name, &data, &bytes);
		if (bytes < RIG_SEGMENT_BYTES || format_segment_decode(data, &head) < 0)
			continue;
		for (uint32_t slot = 1; slot < SLOTS; slot++) {
			if (format_batch_decode(slot_of(data, slot), SLOTS, &b, crc) < 0 ||
			    b.incarnation != head.incarnation)
				continue;
			for (uint32_t k = 0; k < b.nrecords; k++) {
				if (b.record[k].kind != kind || b.record[k].seq < most)
					continue;
				most = b.record[k].seq;
				found = (struct place){ name, slot, 1 + b.payload_slots,
							b.incarnation };
			}
		}
	}
	ck_assert_ptr_nonnull(found.name);
	return found;
}

static void spoil(struct rig *rig, const struct place *at, uint32_t slot)
{
	ck_assert_int_eq(simdisk_corrupt(rig->disk, at->name, slot * FORMAT_SLOT_BYTES + 100, 1),
			 0);
}

/* ---- at a start ---- */

/* A discard of everything: nothing of it is lost, and nothing older shows. */
START_TEST(test_range)
{
	struct rig *rig = make(_i);
	struct place at;

	rig_do(rig, BLK_READ, 0, RIG_MAX_BYTES, 0);
	rig_do(rig, BLK_WRITE, 5 * RIG_BLK, RIG_MAX_BYTES, BLK_FUA);
	drain(rig);
	simfar_hold(rig->far, CHANGES);
	rig_do(rig, BLK_WRITE, 9 * RIG_BLK, RIG_MAX_BYTES, 0);
	rig_do(rig, _i % 2 ? BLK_DISCARD : BLK_ZERO, 0, SIZE, 0);
	at = newest_of(rig, _i % 2 ? FORMAT_DISCARD : FORMAT_ZERO);
	rig_do(rig, BLK_WRITE, 100 * RIG_BLK, RIG_BLK, _i % 4 < 2 ? BLK_FUA : 0);
	rig_kill(rig);
	spoil(rig, &at, at.slot);
	open_rig(rig);
	ck_assert_uint_eq(cache_damages(rig->cache, NULL, 0), 0);
	rig_read_all(rig, false);
	drain(rig);
	rig_kill(rig);
	open_rig(rig);
	rig_read_all(rig, false);
	end(rig);
}
END_TEST

/* "Cut here" is gone, and the torn tail that it keeps out is still on the disk. */
START_TEST(test_cut)
{
	struct rig *rig = make(_i);
	struct place at;

	simfar_hold(rig->far, CHANGES);
	rig_do(rig, BLK_WRITE, 5 * RIG_BLK, RIG_MAX_BYTES, BLK_FUA);
	for (unsigned i = 0; i < 8; i++)
		rig_submit(rig, BLK_WRITE, i * 5 * RIG_BLK, 5 * RIG_BLK, 0);
	rig_wait_all(rig);
	rig_power_cut(rig);
	open_rig(rig);
	simfar_hold(rig->far, CHANGES);
	rig_settle(rig);
	at = newest_of(rig, FORMAT_CUT);
	rig_do(rig, BLK_WRITE, 100 * RIG_BLK, RIG_BLK, BLK_FUA);
	rig_do(rig, BLK_WRITE, 3 * RIG_BLK, 4 * RIG_BLK, 0);
	if (_i % 2)
		rig_stop(rig);
	else
		rig_kill(rig);
	spoil(rig, &at, at.slot);
	if (_i % 2) /* or the footer tells */
		spoil(rig, &at, SLOTS - 1);
	open_rig(rig);
	ck_assert_uint_eq(cache_damages(rig->cache, NULL, 0), 0);
	rig_read_all(rig, false);
	end(rig);
}
END_TEST

/* ---- when its segment is taken back ---- */

/* Every footer of the log rots as soon as it is there. */
static void spoil_footers(struct rig *rig)
{
	const char *name;

	for (size_t i = 0; (name = simdisk_name(rig->disk, i)); i++) {
		struct format_trailer t;
		const uint8_t *data;
		uint64_t bytes;

		if (!strstr(name, ".seg"))
			continue;
		simdisk_peek(rig->disk, name, &data, &bytes);
		if (bytes == RIG_SEGMENT_BYTES &&
		    format_trailer_decode(slot_of(data, SLOTS - 1), &t) == 0 &&
		    t.class == FORMAT_LOG)
			simdisk_corrupt(rig->disk, name, (SLOTS - 1) * FORMAT_SLOT_BYTES + 100, 1);
	}
}

static bool still_there(struct rig *rig, const struct place *at)
{
	struct format_segment head;
	const uint8_t *data;
	uint64_t bytes;

	return simdisk_peek(rig->disk, at->name, &data, &bytes) == 0 &&
	       bytes >= FORMAT_SLOT_BYTES && format_segment_decode(data, &head) == 0 &&
	       head.incarnation == at->incarnation;
}

/*
 * The index has what the target held before the guest zeroed it; only the record of the zeroes
 * keeps that from being believed. With the record goes the extent, whether a header repeats it or,
 * at every second, that header is rotten, too.
 */
START_TEST(test_taken_back)
{
	struct rig *rig = make(_i);
	struct place at;
	unsigned n = 0;

	rig_do(rig, BLK_READ, 0, RIG_MAX_BYTES, 0);
	rig_pass(rig, NSEC_PER_SEC);
	rig_do(rig, BLK_ZERO, 3 * RIG_BLK, 4 * RIG_BLK, 0);
	at = newest_of(rig, FORMAT_ZERO);
	rig_do(rig, BLK_FLUSH, 0, 0, 0);
	drain(rig);
	rig_do(rig, BLK_WRITE, 100 * RIG_BLK, RIG_MAX_BYTES, BLK_FUA);
	drain(rig);
	spoil(rig, &at, at.slot);
	if (_i % 2)
		spoil(rig, &at, at.slot + at.slots);
	while (still_there(rig, &at)) {
		ck_assert_uint_lt(n++, 500);
		rig_do(rig, BLK_WRITE, 100 * RIG_BLK, RIG_MAX_BYTES, BLK_FUA);
		spoil_footers(rig);
		drain(rig);
	}
	/* Nothing was read meanwhile that would put the index right. */
	rig_kill(rig);
	open_rig(rig);
	rig_read_all(rig, false);
	end(rig);
}
END_TEST

/* ---- when it is to be sent ---- */

/* Payload of which nothing but the name is left: said by range, and nothing behind it is sent. */
START_TEST(test_to_be_sent)
{
	struct rig *rig = make(_i);
	struct cache_damage damage[4];
	struct place at;
	uint64_t sent;

	simfar_hold(rig->far, CHANGES);
	rig_do(rig, BLK_WRITE, 50 * RIG_BLK, RIG_BLK, BLK_FUA);
	rig_do(rig, BLK_WRITE, 5 * RIG_BLK, 7 * RIG_BLK, 0);
	at = newest_of(rig, FORMAT_WRITE);
	rig_do(rig, BLK_WRITE, 70 * RIG_BLK, RIG_BLK, BLK_FUA);
	rig_kill(rig);
	open_rig(rig);
	spoil(rig, &at, at.slot);
	sent = simfar_count(rig->far, BLK_WRITE);
	ck_assert_int_eq(rig_drain(rig, LONG_NS), -EIO);
	ck_assert_uint_eq(simfar_count(rig->far, BLK_WRITE), sent + 1);
	ck_assert_uint_eq(cache_damages(rig->cache, damage, 4), 1);
	ck_assert_uint_eq(damage[0].offset, 5 * RIG_BLK);
	ck_assert_uint_eq(damage[0].length, 7 * RIG_BLK);
	rig_stop(rig);
	rig_destroy(rig);
}
END_TEST

/* ---- the word that tells what was acknowledged ---- */

START_TEST(test_word)
{
	struct rig *rig = make(_i);
	uint64_t word;

	for (uint64_t seq = 1; seq < 1ull << 47; seq = seq * 5 + 3) {
		ck_assert_uint_eq(cache_word_seq(cache_word_of(seq)), seq);
		for (unsigned bit = 0; bit < 64; bit++)
			ck_assert_uint_eq(cache_word_seq(cache_word_of(seq) ^ 1ull << bit), 0);
	}
	simfar_hold(rig->far, CHANGES);
	rig_do(rig, BLK_WRITE, 5 * RIG_BLK, RIG_MAX_BYTES, BLK_FUA);
	rig_do(rig, BLK_WRITE, 7 * RIG_BLK, RIG_BLK, 0);
	word = lio_word(rig->lio, 0);
	lio_set_word(rig->lio, 0, word ^ 1ull << 6 * _i);
	rig_kill(rig);
	open_rig(rig);
	rig_read_all(rig, false);
	end(rig);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("headers");
	TCase *tc = tcase_create("headers");

	log_open(getenv("SHOW") ? "stderr" : "/dev/null", LOG_LEVEL_INFO, NULL);
	tcase_set_timeout(tc, 60);
	tcase_add_loop_test(tc, test_range, 0, SEEDS);
	tcase_add_loop_test(tc, test_cut, 0, 2 * SEEDS);
	tcase_add_loop_test(tc, test_taken_back, 0, SEEDS);
	tcase_add_loop_test(tc, test_to_be_sent, 0, 3);
	tcase_add_loop_test(tc, test_word, 0, SEEDS);
	suite_add_tcase(s, tc);
	return run_suite(s);
}
