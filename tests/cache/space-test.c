// SPDX-License-Identifier: Apache-2.0
/*
 * The local disk is full: from the beginning, by others, for a time; on file systems that keep what
 * was allocated and on those that write elsewhere each time. Nobody gets an error for it: clean
 * data is given back, then writers wait, and go on by themselves once there is room. And what is
 * no data takes no room without end.
 */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cache/format.h"
#include "core/clock.h"
#include "core/log.h"
#include "core/range.h"
#include "tests/cache/rig.h"
#include "tests/lib/run.h"

#define SIZE ((2u << 20) + 3 * RIG_BLK + 512)
#define SEEDS 12
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

static struct cache_status status(struct rig *rig)
{
	struct cache_status st;

	cache_status(rig->cache, &st);
	return st;
}

/* The class of a segment file that may hold something; 0: none. */
static int class_of(struct rig *rig, const char *name)
{
	struct format_segment head;
	const uint8_t *data;
	uint64_t bytes;

	if (!strstr(name, ".seg"))
		return 0;
	simdisk_peek(rig->disk, name, &data, &bytes);
	return bytes >= FORMAT_SLOT_BYTES && format_segment_decode(data, &head) == 0 ? head.class
										     : 0;
}

static unsigned files_of(struct rig *rig, int class)
{
	const char *name;
	unsigned n = 0;

	for (size_t i = 0; (name = simdisk_name(rig->disk, i)); i++)
		n += class_of(rig, name) == class;
	return n;
}

/* Nobody has it open: every segment but those of the log goes, and there is no room for another. */
static void leave_log_only(struct rig *rig)
{
	const char *name;

	for (size_t i = 0; (name = simdisk_name(rig->disk, i));) {
		if (class_of(rig, name) == FORMAT_LOG || !strstr(name, ".seg"))
			i++;
		else
			simdisk_remove(rig->disk, name);
	}
	simdisk_set_limit(rig->disk, simdisk_used(rig->disk));
}

/* ---- at the start ---- */

/* Nothing but the log, and the older part of it is at the target: that part makes room. */
START_TEST(test_start_full)
{
	struct rig *rig = make(_i);

	for (uint64_t i = 0; i < 12; i++)
		rig_do(rig, BLK_WRITE, i * RIG_MAX_BYTES, RIG_MAX_BYTES, 0);
	drain(rig);
	simfar_hold(rig->far, CHANGES);
	for (uint64_t i = 0; i < 3; i++)
		rig_do(rig, BLK_WRITE, i * 3 * RIG_MAX_BYTES, RIG_MAX_BYTES, i == 2 ? BLK_FUA : 0);
	if (_i % 3 == 0)
		rig_kill(rig);
	else if (_i % 3 == 1)
		rig_power_cut(rig);
	else
		rig_stop(rig);
	leave_log_only(rig);
	open_rig(rig);
	rig_settle(rig);
	drain(rig);
	/* It goes on in the room there is. */
	for (uint64_t i = 0; i < 30; i++)
		rig_do(rig, BLK_WRITE, i * RIG_MAX_BYTES, RIG_MAX_BYTES, i % 4 ? 0 : BLK_FUA);
	rig_power_cut(rig);
	open_rig(rig);
	rig_settle(rig);
	end(rig);
}
END_TEST

/* All of it is unsent: the start says what is missing, and with room all is there. */
START_TEST(test_start_full_of_dirty)
{
	struct rig *rig = make(_i);

	simfar_hold(rig->far, CHANGES);
	for (uint64_t i = 0; i < 12; i++)
		rig_do(rig, BLK_WRITE, i * RIG_MAX_BYTES, RIG_MAX_BYTES, 0);
	rig_do(rig, BLK_FLUSH, 0, 0, 0);
	rig_kill(rig);
	leave_log_only(rig);
	for (unsigned i = 0; i < 3; i++) {
		ck_assert_int_eq(rig_open(rig), -ENOSPC);
		ck_assert_ptr_nonnull(strstr(rig->err.text, "full"));
	}
	simdisk_set_limit(rig->disk, UINT64_MAX);
	open_rig(rig);
	rig_read_all(rig, false);
	end(rig);
}
END_TEST

/* ---- while running ---- */

static bool waits(struct rig *rig)
{
	return status(rig).state == CACHE_THROTTLED;
}

/* Others take all that is free and all that becomes free; the log goes round in what it has. */
START_TEST(test_others_take_all)
{
	struct rig *rig = make(_i);

	for (uint64_t i = 0; i < 10; i++)
		rig_do(rig, BLK_WRITE, i * RIG_MAX_BYTES, RIG_MAX_BYTES, 0);
	drain(rig);
	for (uint64_t i = 0; i < 120; i++) {
		struct rig_op *op;

		op = rig_submit(rig, BLK_WRITE, i * 3 % 30 * RIG_MAX_BYTES, RIG_MAX_BYTES,
				i % 4 ? 0 : BLK_FUA);
		ck_assert_ptr_nonnull(op);
		for (unsigned k = 0; !op->dones; k++) {
			simdisk_set_limit(rig->disk, simdisk_used(rig->disk));
			if (k > 100000 || (!sim_step(rig->sim) && !sim_advance(rig->sim)))
				sim_die(rig->sim, "write %u waits for ever", (unsigned)i);
		}
		ck_assert_int_eq(op->result, 0);
	}
	rig_read_all(rig, false);
	end(rig);
}
END_TEST

/* The clean store gives its room to the log; what more is written waits, until there is room. */
START_TEST(test_clean_goes_first)
{
	struct rig *rig = make(_i);
	struct rig_op *last = NULL;
	unsigned before;

	for (uint64_t at = 0; at + RIG_MAX_BYTES <= SIZE; at += RIG_MAX_BYTES)
		rig_do(rig, BLK_READ, at, RIG_MAX_BYTES, 0);
	rig_pass(rig, NSEC_PER_SEC);
	before = files_of(rig, FORMAT_CLEAN);
	ck_assert_uint_gt(before, 3);
	simdisk_set_limit(rig->disk, simdisk_used(rig->disk));
	simfar_hold(rig->far, CHANGES);
	do
		last = rig_submit(rig, BLK_WRITE, rig->changes % 30 * RIG_MAX_BYTES, RIG_MAX_BYTES,
				  0);
	while (last && rig_wait(rig, last, LONG_NS));
	ck_assert(waits(rig));
	ck_assert_uint_lt(files_of(rig, FORMAT_CLEAN), before);
	ck_assert_uint_ge(status(rig).dirty_bytes, 3 * RIG_SEGMENT_BYTES);
	rig_pass(rig, LONG_NS);
	rig_do(rig, BLK_FLUSH, 0, 0, 0);
	if (_i % 3 == 1) {
		rig_kill(rig);
		simdisk_set_limit(rig->disk, UINT64_MAX);
		open_rig(rig);
		rig_read_all(rig, false);
	}
	simfar_hold(rig->far, 0);
	if (_i % 3 != 1)
		rig_wait_all(rig);
	rig_read_all(rig, false);
	end(rig);
}
END_TEST

/*
 * An append finds no room where its segment was filled, as on a file system that never writes in
 * place: nobody is told an error, and all goes on within a moment of room.
 */
START_TEST(test_append_without_room)
{
	struct rig *rig = make(_i);
	struct rig_op *op, *flush;
	int error = _i % 2 ? -EDQUOT : -ENOSPC;

	rig_do(rig, BLK_READ, SIZE / 2, RIG_MAX_BYTES, 0);
	rig_do(rig, BLK_WRITE, 0, RIG_MAX_BYTES, BLK_FUA);
	simdisk_fail(rig->disk, SIMDISK_WRITE, 1, error, true);
	op = rig_submit(rig, BLK_WRITE, 3 * RIG_BLK, RIG_MAX_BYTES, _i % 4 ? 0 : BLK_FUA);
	flush = rig_submit(rig, BLK_FLUSH, 0, 0, 0);
	rig_submit(rig, BLK_ZERO, 70 * RIG_BLK, 9 * RIG_BLK, 0);
	rig_pass(rig, LONG_NS);
	ck_assert_uint_eq(op->dones, 0);
	ck_assert(waits(rig));
	ck_assert_uint_gt(simdisk_fault_hits(rig->disk), 10);
	/* What is cached is read all the same, and what is not is fetched. */
	rig_do(rig, BLK_READ, SIZE / 2, RIG_MAX_BYTES, 0);
	rig_do(rig, BLK_READ, SIZE / 4 * 3, RIG_MAX_BYTES, 0);
	switch (_i % 3) {
	case 0:
		simdisk_fail(rig->disk, 0, 0, 0, false);
		ck_assert(rig_wait(rig, op, 5 * NSEC_PER_SEC));
		ck_assert(rig_wait(rig, flush, 5 * NSEC_PER_SEC));
		ck_assert_int_eq(op->result | flush->result, 0);
		rig_wait_all(rig);
		ck_assert(!waits(rig));
		drain(rig);
		rig_kill(rig);
		break;
	case 1:
		rig_kill(rig);
		simdisk_fail(rig->disk, 0, 0, 0, false);
		break;
	case 2:
		rig_stop(rig);
		ck_assert_int_eq(op->result, -ESHUTDOWN);
		simdisk_fail(rig->disk, 0, 0, 0, false);
		break;
	}
	open_rig(rig);
	rig_read_all(rig, false);
	ck_assert_uint_eq(cache_damages(rig->cache, NULL, 0), 0);
	rig_settle(rig);
	end(rig);
}
END_TEST

/*
 * The same, and each time there is room enough to make another segment, but none where that one is
 * then written: no number of tries makes an error of it.
 */
START_TEST(test_append_elsewhere)
{
	struct rig *rig = make(_i);
	struct sched *sched = sim_sched(rig->sim);
	uint64_t end_ns = sched_now(sched) + LONG_NS;
	struct rig_op *op = rig_submit(rig, BLK_WRITE, 3 * RIG_BLK, RIG_MAX_BYTES, BLK_FUA);

	while (sched_now(sched) < end_ns) {
		bool appending = simdisk_in_flight(rig->disk) > 0;

		simdisk_fail(rig->disk, SIMDISK_WRITE, appending, -ENOSPC, true);
		if (!sim_step(rig->sim) && !sim_advance(rig->sim))
			break;
	}
	ck_assert_uint_eq(op->dones, 0);
	simdisk_fail(rig->disk, 0, 0, 0, false);
	ck_assert(rig_wait(rig, op, 5 * NSEC_PER_SEC));
	ck_assert_int_eq(op->result, 0);
	rig_read_all(rig, false);
	end(rig);
}
END_TEST

/* ---- what is no data ---- */

static uint64_t appended(struct rig *rig)
{
	return lio_word(rig->lio, 0) & ((1ull << 48) - 1);
}

/* A guest in an outage that flushes and flushes, and writes nothing. */
START_TEST(test_flushes_alone)
{
	struct rig *rig = make(_i);
	struct cache_status st;
	uint64_t before;

	simfar_hold(rig->far, CHANGES);
	rig_do(rig, BLK_WRITE, 5 * RIG_BLK, RIG_BLK, 0);
	rig_do(rig, BLK_FLUSH, 0, 0, 0);
	rig_pass(rig, NSEC_PER_SEC);
	before = appended(rig);
	st = status(rig);
	for (unsigned i = 0; i < 2000; i++) {
		rig_do(rig, BLK_FLUSH, 0, 0, 0);
		if (i % 4 == 0)
			rig_pass(rig, 200 * NSEC_PER_MSEC);
	}
	ck_assert_uint_eq(appended(rig), before);
	ck_assert_uint_eq(status(rig).dirty_bytes, st.dirty_bytes);
	simfar_hold(rig->far, 0);
	end(rig);
}
END_TEST

/* Slots of the log that batches take, as they stand in the files. */
static uint64_t log_slots(struct rig *rig)
{
	static struct format_batch b;
	static uint32_t crc[FORMAT_SLOT_BYTES / 4];
	uint64_t slots = 0;
	const char *name;

	for (size_t i = 0; (name = simdisk_name(rig->disk, i)); i++) {
		struct format_segment head;
		const uint8_t *data;
		uint64_t bytes;
		uint32_t slot = 1;

		if (class_of(rig, name) != FORMAT_LOG)
			continue;
		simdisk_peek(rig->disk, name, &data, &bytes);
		format_segment_decode(data, &head);
		while (slot < bytes / FORMAT_SLOT_BYTES &&
		       format_batch_decode(data + (uint64_t)slot * FORMAT_SLOT_BYTES,
					   RIG_SEGMENT_BYTES / FORMAT_SLOT_BYTES, &b, crc) == 0 &&
		       b.incarnation == head.incarnation) {
			slots += 1 + b.payload_slots;
			slot += 1 + b.payload_slots;
		}
	}
	return slots;
}

/*
 * A guest in an outage that writes little and flushes each time: what barriers and marks take
 * counts like data, so it waits at --max-dirty, and there is still room for what ends the outage.
 */
START_TEST(test_small_flushed_writes)
{
	struct rig *rig = make(_i);
	uint64_t slots, n = 0;
	struct cache_status st;

	simfar_hold(rig->far, CHANGES);
	for (;; n++) {
		struct rig_op *op =
			rig_submit(rig, n % 3 ? BLK_WRITE : BLK_ZERO, n % 90 * RIG_BLK, RIG_BLK, 0);

		ck_assert_uint_lt(n, 4000);
		if (!op || !rig_wait(rig, op, 3 * NSEC_PER_SEC))
			break;
		rig_do(rig, BLK_FLUSH, 0, 0, 0);
		if (_i % 2)
			rig_pass(rig, 120 * NSEC_PER_MSEC);
		if (_i % 3 == 0 && n % 40 == 20) {
			rig_kill(rig);
			open_rig(rig);
			simfar_hold(rig->far, CHANGES);
		}
	}
	st = status(rig);
	slots = log_slots(rig);
	ck_assert_uint_gt(n, 50);
	/* A barrier and a mark may come behind the last write that fitted. */
	ck_assert_uint_le(st.dirty_bytes, st.max_dirty_bytes + 8 * RIG_BLK);
	/* Counted is what is there; what share a header after a restart is not known to the slot.
	 */
	if (_i % 3)
		ck_assert_uint_ge(st.dirty_bytes / RIG_BLK + 4, slots);
	else
		ck_assert_uint_ge(st.dirty_bytes / RIG_BLK * 5 / 4 + 30, slots);
	for (unsigned i = 0; i < 50; i++) {
		rig_do(rig, BLK_FLUSH, 0, 0, 0);
		rig_pass(rig, 200 * NSEC_PER_MSEC);
	}
	simfar_hold(rig->far, 0);
	rig_wait_all(rig);
	end(rig);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("space");
	TCase *tc = tcase_create("space");

	/* Each full disk is told. */
	log_open(getenv("SHOW") ? "stderr" : "/dev/null", LOG_LEVEL_INFO, NULL);
	tcase_set_timeout(tc, 60);
	tcase_add_loop_test(tc, test_start_full, 0, 2 * SEEDS);
	tcase_add_loop_test(tc, test_start_full_of_dirty, 0, 3);
	tcase_add_loop_test(tc, test_others_take_all, 0, SEEDS);
	tcase_add_loop_test(tc, test_clean_goes_first, 0, SEEDS);
	tcase_add_loop_test(tc, test_append_without_room, 0, 2 * SEEDS);
	tcase_add_loop_test(tc, test_append_elsewhere, 0, SEEDS / 2);
	tcase_add_loop_test(tc, test_flushes_alone, 0, 3);
	tcase_add_loop_test(tc, test_small_flushed_writes, 0, SEEDS);
	suite_add_tcase(s, tc);
	return run_suite(s);
}
