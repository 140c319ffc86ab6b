// SPDX-License-Identifier: Apache-2.0
/*
 * Meetings that matter, brought about on purpose: what waits is held at the far side or the local
 * disk until the other party has gone by. Each with several seeds, which order the rest.
 */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "core/log.h"
#include "tests/cache/rig.h"
#include "tests/lib/run.h"

#define SIZE ((2u << 20) + 3 * RIG_BLK + 512)
#define SEEDS ((int)MAX(25 / run_share(), 3u))
#define CHANGES (1u << BLK_WRITE | 1u << BLK_ZERO | 1u << BLK_DISCARD)
#define LONG_NS (60 * NSEC_PER_SEC)

static struct rig *make(int i)
{
	struct rig *rig = rig_create((uint64_t)i + 1, SIZE);

	if (rig_open(rig) < 0)
		sim_die(rig->sim, "%s", rig->err.text);
	return rig;
}

/* One that will be killed. */
static struct rig *make_doomed(int i)
{
	struct rig *rig = rig_create((uint64_t)i + 1, SIZE);

	rig_will_be_killed(rig);
	if (rig_open(rig) < 0)
		sim_die(rig->sim, "%s", rig->err.text);
	return rig;
}

static void reopen(struct rig *rig)
{
	if (rig_open(rig) < 0)
		sim_die(rig->sim, "%s", rig->err.text);
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

static bool far_busy(struct rig *rig)
{
	return simfar_in_flight(rig->far) > 0;
}

/* ---- write-back ---- */

struct watch {
	struct rig *rig;
	uint64_t at;
	uint8_t seen[8];
	uint64_t flushes[8];
	unsigned n;
};

static void changed(void *ctx, uint64_t offset, uint64_t length)
{
	struct watch *w = ctx;

	if (w->at < offset || w->at >= offset + length || w->n == 8)
		return;
	w->seen[w->n] = simfar_image(w->rig->far)->now[w->at];
	w->flushes[w->n++] = simfar_count(w->rig->far, BLK_FLUSH);
}

/* A block is written again while its first version is on the way. */
START_TEST(test_write_during_destage)
{
	struct rig *rig = make(_i);
	struct watch w = { .rig = rig, .at = 7 * RIG_BLK + 9 };
	struct rig_op *first, *second;

	simfar_on_change(rig->far, changed, &w);
	simfar_hold(rig->far, CHANGES);
	first = rig_submit(rig, BLK_WRITE, 6 * RIG_BLK, 4 * RIG_BLK, 0);
	rig_wait(rig, first, LONG_NS);
	rig_do(rig, BLK_FLUSH, 0, 0, 0);
	ck_assert(rig_run(rig, far_busy, LONG_NS));
	second = rig_submit(rig, BLK_WRITE, 7 * RIG_BLK, RIG_BLK, 0);
	rig_wait(rig, second, LONG_NS);
	rig_do(rig, BLK_FLUSH, 0, 0, 0);
	rig_pass(rig, NSEC_PER_SEC);
	ck_assert_uint_eq(simfar_count(rig->far, BLK_WRITE), 1);
	simfar_hold(rig->far, 0);
	drain(rig);
	ck_assert_uint_eq(w.n, 2);
	ck_assert_uint_eq(w.seen[0], first->buf[RIG_BLK + 9]);
	ck_assert_uint_eq(w.seen[1], second->buf[9]);
	/* The older epoch was flushed before anything of the newer one was sent. */
	ck_assert_uint_gt(w.flushes[1], w.flushes[0]);
	simfar_on_change(rig->far, NULL, NULL);
	end(rig);
}
END_TEST

/* The session goes while the FLUSH is under way, and the target forgets what it had not written. */
START_TEST(test_cut_during_flush)
{
	struct rig *rig = make(_i);
	uint64_t sent;

	simfar_hold(rig->far, 1u << BLK_FLUSH);
	rig_do(rig, BLK_WRITE, 3 * RIG_BLK, 9 * RIG_BLK, 0);
	rig_do(rig, BLK_FLUSH, 0, 0, 0);
	while (!simfar_count(rig->far, BLK_FLUSH))
		ck_assert(sim_step(rig->sim) || sim_advance(rig->sim));
	sent = simfar_count(rig->far, BLK_WRITE);
	simfar_cut(rig->far, true);
	rig_do(rig, BLK_WRITE, 20 * RIG_BLK, RIG_BLK, BLK_FUA);
	rig_pass(rig, NSEC_PER_SEC);
	simfar_hold(rig->far, 0);
	simfar_restore(rig->far);
	drain(rig);
	/* The epoch again, and the later one. */
	ck_assert_uint_ge(simfar_count(rig->far, BLK_WRITE), 2 * sent + 1);
	end(rig);
}
END_TEST

/* All of a volume whose last block is not whole: no command that the far side refuses. */
START_TEST(test_discard_all)
{
	struct rig *rig = make(_i);

	rig_do(rig, BLK_DISCARD, 0, SIZE, 0);
	end(rig);
}
END_TEST

/* ---- fetches ---- */

/*
 * A write goes by while the old bytes are on their way: these must not come back, from memory,
 * after a kill, or after the block was dropped.
 */
START_TEST(test_fetch_against_write)
{
	static const struct {
		enum blk_op op;
		uint64_t offset, length;
	} change[] = {
		{ BLK_WRITE, 4 * RIG_BLK, 2 * RIG_BLK },
		{ BLK_ZERO, 5 * RIG_BLK, 3 * RIG_BLK },
		{ BLK_WRITE, 0, RIG_MAX_BYTES },
		{ BLK_DISCARD, 2 * RIG_BLK, 9 * RIG_BLK },
	};
	struct rig *rig = make_doomed(_i);
	struct rig_op *op;

	rig->races = true;
	simfar_hold(rig->far, 1u << BLK_READ);
	rig_submit(rig, BLK_READ, 0, RIG_MAX_BYTES, 0);
	rig_run(rig, far_busy, LONG_NS);
	op = rig_submit(rig, change[_i % 4].op, change[_i % 4].offset, change[_i % 4].length, 0);
	ck_assert(rig_wait(rig, op, LONG_NS));
	ck_assert_int_eq(op->result, 0);
	/* Who comes now does not get the old ones, although the rest has to be waited for. */
	rig_submit(rig, BLK_READ, 0, RIG_MAX_BYTES, 0);
	simfar_hold(rig->far, 0);
	rig_wait_all(rig);
	rig_read_all(rig, false);
	if (_i % 2) {
		rig_kill(rig);
		reopen(rig);
		rig_read_all(rig, false);
	}
	drain(rig);
	ck_assert_int_eq(cache_drop(rig->cache), 0);
	rig_read_all(rig, false);
	rig_stop(rig);
	reopen(rig);
	rig_read_all(rig, false);
	end(rig);
}
END_TEST

/* Two writes into parts of one block that is being fetched, and one that covers it. */
START_TEST(test_parts_of_a_block)
{
	struct rig *rig = make_doomed(_i);

	simfar_hold(rig->far, 1u << BLK_READ);
	rig_submit(rig, BLK_WRITE, 9 * RIG_BLK + 10, 100, 0);
	rig_submit(rig, BLK_WRITE, 9 * RIG_BLK + 3000, 6000, 0);
	rig_run(rig, far_busy, LONG_NS);
	rig_submit(rig, BLK_WRITE, 9 * RIG_BLK + 200, 50, 0);
	rig_submit(rig, BLK_WRITE, 11 * RIG_BLK, RIG_BLK, 0);
	rig_pass(rig, NSEC_PER_MSEC);
	simfar_hold(rig->far, 0);
	rig_wait_all(rig);
	rig_read_all(rig, false);
	rig_kill(rig);
	reopen(rig);
	rig_read_all(rig, false);
	end(rig);
}
END_TEST

/* ---- the log ---- */

/* Flushes among writes, all at once; power goes somewhere in between. */
START_TEST(test_flush_among_writes)
{
	struct rig *rig = make_doomed(_i);

	for (unsigned i = 0; i < 24; i++) {
		rig_submit(rig, BLK_WRITE, (i * 7 % 60) * RIG_BLK + i * 100, 5000 + i * 300, 0);
		if (i % 3 == 0)
			rig_submit(rig, BLK_FLUSH, 0, 0, 0);
		if (i % 8 == 5)
			rig_submit(rig, BLK_WRITE, (100 + i) * RIG_BLK, RIG_BLK, BLK_FUA);
		for (uint64_t k = sim_below(rig->sim, 12); k > 0; k--)
			sim_step(rig->sim);
	}
	for (uint64_t k = sim_below(rig->sim, 40); k > 0; k--)
		sim_step(rig->sim);
	rig_power_cut(rig);
	reopen(rig);
	rig_settle(rig);
	end(rig);
}
END_TEST

/* The answer of an fdatasync is held: nobody is told before. */
START_TEST(test_flush_waits)
{
	struct rig *rig = make(_i);
	struct rig_op *flush, *fua;

	rig_do(rig, BLK_WRITE, 0, 3 * RIG_BLK, 0);
	simdisk_hold(rig->disk, SIMDISK_SYNC);
	flush = rig_submit(rig, BLK_FLUSH, 0, 0, 0);
	fua = rig_submit(rig, BLK_WRITE, 9 * RIG_BLK, RIG_BLK, BLK_FUA);
	rig_pass(rig, NSEC_PER_SEC);
	ck_assert_uint_eq(flush->dones + fua->dones, 0);
	/* What is not durable here is not sent either. */
	ck_assert_uint_eq(simfar_count(rig->far, BLK_WRITE), 0);
	simdisk_hold(rig->disk, 0);
	rig_wait_all(rig);
	end(rig);
}
END_TEST

/* ---- space ---- */

/* Readers are at the disk while what they read becomes a victim. */
START_TEST(test_evict_under_readers)
{
	struct rig *rig = make(_i);

	for (unsigned i = 0; i < 4; i++)
		rig_do(rig, BLK_READ, i * RIG_MAX_BYTES, RIG_MAX_BYTES, 0);
	rig_pass(rig, NSEC_PER_SEC); /* it is in the clean store by now */
	simdisk_hold(rig->disk, SIMDISK_READ);
	for (unsigned i = 0; simdisk_in_flight(rig->disk) < 3; i++) {
		ck_assert_uint_lt(i, 100);
		rig_submit(rig, BLK_READ, i % 4 * RIG_MAX_BYTES, RIG_MAX_BYTES, 0);
	}
	for (uint64_t at = 4 * RIG_MAX_BYTES; at + RIG_MAX_BYTES <= SIZE; at += RIG_MAX_BYTES)
		rig_submit(rig, BLK_READ, at, RIG_MAX_BYTES, 0);
	for (unsigned i = 0; i < 40; i++) {
		rig_submit(rig, BLK_WRITE, SIZE / 2 + i % 9 * RIG_MAX_BYTES, RIG_MAX_BYTES, 0);
		rig_submit(rig, BLK_FLUSH, 0, 0, 0);
		rig_pass(rig, 100 * NSEC_PER_MSEC);
	}
	cache_check(rig->cache);
	simdisk_hold(rig->disk, 0);
	rig_wait_all(rig);
	rig_read_all(rig, false);
	end(rig);
}
END_TEST

/* ---- life ---- */

START_TEST(test_stop_in_the_middle)
{
	struct rig *rig = make(_i);

	rig_do(rig, BLK_READ, 0, RIG_MAX_BYTES, 0);
	switch (_i % 5) {
	case 0:
		simfar_hold(rig->far, 1u << BLK_READ | CHANGES);
		break;
	case 1:
		simfar_cut(rig->far, false);
		break;
	case 2:
		simfar_hold(rig->far, 1u << BLK_FLUSH);
		break;
	}
	for (unsigned i = 0; i < 30; i++) {
		rig_submit(rig, BLK_READ, i * 11 * RIG_BLK, RIG_MAX_BYTES, 0);
		rig_submit(rig, BLK_WRITE, i * 17 * RIG_BLK + 77, RIG_MAX_BYTES - RIG_BLK, 0);
		if (i % 4 == 0)
			rig_submit(rig, BLK_FLUSH, 0, 0, 0);
		for (uint64_t k = sim_below(rig->sim, 30); k > 0; k--)
			sim_step(rig->sim);
	}
	rig_stop(rig);
	reopen(rig);
	rig_read_all(rig, false);
	end(rig);
}
END_TEST

START_TEST(test_cancel_read)
{
	struct rig *rig = make(_i);
	struct rig_op *op, *other;

	simfar_hold(rig->far, 1u << BLK_READ);
	op = rig_submit(rig, BLK_READ, 5 * RIG_BLK + 3, 3 * RIG_BLK, 0);
	other = rig_submit(rig, BLK_READ, 6 * RIG_BLK, RIG_BLK, 0);
	rig_run(rig, far_busy, LONG_NS);
	blk_cancel(rig->cache, &op->req);
	ck_assert(rig_wait(rig, op, NSEC_PER_SEC));
	ck_assert_int_eq(op->result, -EINTR);
	ck_assert_uint_eq(other->dones, 0);
	simfar_hold(rig->far, 0);
	rig_wait_all(rig);
	ck_assert_int_eq(other->result, 0);
	rig_do(rig, BLK_READ, 5 * RIG_BLK, 3 * RIG_BLK, 0);
	end(rig);
}
END_TEST

static bool someone_waits(struct rig *rig)
{
	struct cache_status st;

	cache_status(rig->cache, &st);
	return st.waiting_writes > 0;
}

/* Fill the log up to --max-dirty; the write that waits there. */
static struct rig_op *write_until_one_waits(struct rig *rig)
{
	struct rig_op *last = NULL;

	for (uint64_t i = 0; !someone_waits(rig); i++) {
		ck_assert_uint_lt(i, 200);
		last = rig_submit(rig, BLK_WRITE, i % 20 * RIG_MAX_BYTES, RIG_MAX_BYTES, 0);
		if (last)
			rig_wait(rig, last, 10 * NSEC_PER_MSEC);
	}
	return last;
}

START_TEST(test_cancel_throttled)
{
	struct rig *rig = make(_i);
	struct rig_op *last, *behind;

	simfar_cut(rig->far, false);
	last = write_until_one_waits(rig);
	rig_pass(rig, LONG_NS);
	ck_assert(last && !last->dones);
	behind = rig_submit(rig, BLK_WRITE, 30 * RIG_MAX_BYTES, RIG_BLK, 0);
	blk_cancel(rig->cache, &last->req);
	ck_assert(rig_wait(rig, last, NSEC_PER_SEC));
	ck_assert_int_eq(last->result, -EINTR);
	simfar_restore(rig->far);
	rig_wait_all(rig);
	ck_assert_int_eq(behind->result, 0);
	rig_read_all(rig, false);
	end(rig);
}
END_TEST

/*
 * Another owner takes the far side while an epoch is on its way: nothing more arrives there,
 * writers are refused, those that wait too; what was acknowledged stays, and goes out once we are
 * the owner again.
 */
START_TEST(test_fenced)
{
	struct rig *rig = make(_i);
	struct rig_op *last, *late;
	struct cache_status st;
	uint8_t *before;

	rig_do(rig, BLK_WRITE, 0, RIG_MAX_BYTES, 0);
	drain(rig);
	simfar_hold(rig->far, CHANGES | 1u << BLK_FLUSH);
	rig->lenient = true;
	last = write_until_one_waits(rig);
	rig_pass(rig, LONG_NS);
	ck_assert(last && !last->dones && far_busy(rig));
	before = malloc(SIZE);
	memcpy(before, simfar_image(rig->far)->now, SIZE);
	simfar_fence(rig->far, "taken");
	ck_assert(rig_wait(rig, last, LONG_NS));
	ck_assert_int_eq(last->result, -EROFS);
	late = rig_submit(rig, BLK_WRITE, 30 * RIG_MAX_BYTES, RIG_BLK, 0);
	ck_assert(rig_wait(rig, late, LONG_NS));
	ck_assert_int_eq(late->result, -EROFS);
	rig_do(rig, BLK_FLUSH, 0, 0, 0);
	ck_assert_int_eq(rig_drain(rig, LONG_NS), -ESTALE);
	cache_status(rig->cache, &st);
	ck_assert_int_eq(st.state, CACHE_FENCED);
	ck_assert_uint_gt(st.dirty_bytes, 0);
	rig_read_all(rig, false);
	ck_assert_mem_eq(before, simfar_image(rig->far)->now, SIZE);
	free(before);
	rig_stop(rig);
	simfar_fence(rig->far, NULL);
	simfar_hold(rig->far, 0);
	reopen(rig);
	rig_settle(rig);
	end(rig);
}
END_TEST

/* ---- starts that fail ---- */

/*
 * After a power cut a start fails at its n-th write, and the next one must judge the torn tail no
 * differently: what it keeps reaches the target.
 */
START_TEST(test_failed_start)
{
	for (uint64_t n = 1; n <= 5; n++) {
		struct rig *rig = make_doomed(_i);
		bool failed;

		for (uint64_t k = 0; k < 4; k++)
			rig_do(rig, BLK_WRITE, k * RIG_MAX_BYTES, RIG_MAX_BYTES, 0);
		rig_do(rig, BLK_FLUSH, 0, 0, 0);
		drain(rig);
		for (uint64_t k = 0; k < 3; k++)
			rig_do(rig, BLK_WRITE, k * RIG_MAX_BYTES, 4 * RIG_BLK, 0);
		rig_power_cut(rig);
		simdisk_fail(rig->disk, SIMDISK_WRITE, n, -EIO, true);
		failed = rig_open(rig) < 0;
		simdisk_fail(rig->disk, 0, 0, 0, false);
		if (failed)
			reopen(rig);
		rig_settle(rig);
		end(rig);
	}
}
END_TEST

/* ---- growth ---- */

#define OLD_SIZE (OLD_TAIL + 512)
#define OLD_TAIL (1u << 20)

static void resize(struct rig *rig, uint64_t size)
{
	rig->size = size;
	simfar_show_size(rig->far, size);
}

static uint64_t shown_size(struct rig *rig)
{
	struct blk_info info;

	blk_info(rig->cache, &info);
	return info.size_bytes;
}

/* The block in which the volume ended shows what the far side has behind the old end. */
START_TEST(test_growth)
{
	struct rig *rig = rig_create((uint64_t)_i + 1, SIZE);

	rig_will_be_killed(rig);
	resize(rig, OLD_SIZE);
	reopen(rig);
	rig_do(rig, BLK_READ, 0, RIG_MAX_BYTES, 0);
	rig_do(rig, _i % 2 ? BLK_ZERO : BLK_WRITE, OLD_TAIL - RIG_BLK, RIG_BLK + 512, 0);
	drain(rig);
	rig_do(rig, BLK_READ, OLD_TAIL, 512, 0);
	rig_stop(rig);
	resize(rig, SIZE);
	reopen(rig);
	ck_assert_uint_eq(shown_size(rig), SIZE);
	rig_read_all(rig, false);
	/* What was forgotten does not come back, with the index or without. */
	rig_do(rig, BLK_WRITE, 5 * RIG_BLK, RIG_BLK, 0);
	rig_kill(rig);
	if (_i % 3 == 0)
		simindex_lose(rig->index);
	reopen(rig);
	ck_assert_uint_eq(shown_size(rig), SIZE);
	rig_read_all(rig, false);
	end(rig);
}
END_TEST

/* With the block unsent, the old size stands until it is sent. */
START_TEST(test_growth_waits)
{
	struct rig *rig = rig_create((uint64_t)_i + 1, SIZE);

	rig_will_be_killed(rig);
	resize(rig, OLD_SIZE);
	reopen(rig);
	rig_do(rig, BLK_WRITE, OLD_TAIL, 512, 0);
	if (_i % 2)
		rig_do(rig, BLK_FLUSH, 0, 0, 0);
	rig_kill(rig);
	simfar_show_size(rig->far, SIZE);
	reopen(rig);
	ck_assert_uint_eq(shown_size(rig), OLD_SIZE);
	rig_read_all(rig, false);
	drain(rig);
	rig_stop(rig);
	rig->size = SIZE;
	reopen(rig);
	ck_assert_uint_eq(shown_size(rig), SIZE);
	rig_read_all(rig, false);
	end(rig);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("interleave");
	TCase *tc = tcase_create("interleave");

	log_open("stderr", LOG_LEVEL_ERROR, NULL);
	tcase_set_timeout(tc, 60);
	tcase_add_loop_test(tc, test_write_during_destage, 0, SEEDS);
	tcase_add_loop_test(tc, test_cut_during_flush, 0, SEEDS);
	tcase_add_loop_test(tc, test_discard_all, 0, 3);
	tcase_add_loop_test(tc, test_fetch_against_write, 0, SEEDS);
	tcase_add_loop_test(tc, test_parts_of_a_block, 0, SEEDS);
	tcase_add_loop_test(tc, test_flush_among_writes, 0, 4 * SEEDS);
	tcase_add_loop_test(tc, test_flush_waits, 0, 5);
	tcase_add_loop_test(tc, test_evict_under_readers, 0, 10);
	tcase_add_loop_test(tc, test_stop_in_the_middle, 0, 2 * SEEDS);
	tcase_add_loop_test(tc, test_cancel_read, 0, 5);
	tcase_add_loop_test(tc, test_cancel_throttled, 0, 5);
	tcase_add_loop_test(tc, test_fenced, 0, SEEDS);
	tcase_add_loop_test(tc, test_failed_start, 0, 4 * SEEDS);
	tcase_add_loop_test(tc, test_growth, 0, SEEDS);
	tcase_add_loop_test(tc, test_growth_waits, 0, SEEDS);
	suite_add_tcase(s, tc);
	return run_suite_here(s);
}
