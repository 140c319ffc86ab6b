// SPDX-License-Identifier: Apache-2.0
/*
 * Somebody else writes to the volume, nobody answers when it is mounted, it grows: what is
 * believed, what is sent, what is served.
 */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cache/identity.h"
#include "core/clock.h"
#include "core/log.h"
#include "tests/cache/rig.h"
#include "tests/lib/run.h"

#define SIZE (4u << 20)
#define SEEDS 8
#define CHANGES (1u << BLK_WRITE | 1u << BLK_ZERO | 1u << BLK_DISCARD)
#define LONG_NS (60 * NSEC_PER_SEC)
/* Where a file system writes at each mount: a sample, once it is cached. */
#define SUPER 0
#define ELSEWHERE (40 * RIG_BLK)
#define ABSENT (900 * RIG_BLK)

static void reopen(struct rig *rig)
{
	if (rig_open(rig) < 0)
		sim_die(rig->sim, "%s", rig->err.text);
}

static void drain(struct rig *rig)
{
	ck_assert_int_eq(rig_drain(rig, LONG_NS), 0);
}

/* A rig with some of the volume cached, written and sent. */
static struct rig *make(int i)
{
	struct rig *rig = rig_create((uint64_t)i + 1, SIZE);

	rig_will_be_killed(rig);
	reopen(rig);
	for (uint64_t at = 0; at < 8 * RIG_MAX_BYTES; at += RIG_MAX_BYTES)
		rig_do(rig, BLK_READ, at, RIG_MAX_BYTES, 0);
	rig_do(rig, BLK_WRITE, ELSEWHERE, 4 * RIG_BLK, 0);
	rig_do(rig, BLK_ZERO, ELSEWHERE + 8 * RIG_BLK, 2 * RIG_BLK, 0);
	drain(rig);
	return rig;
}

static void fill(uint8_t *buf, size_t n, uint8_t value)
{
	memset(buf, value, n);
}

/* Another host changes the first block. Returns what stands there now. */
static const uint8_t *meddle(struct rig *rig)
{
	static uint8_t other[RIG_BLK];

	fill(other, sizeof(other), 0xe5);
	simfar_meddle(rig->far, SUPER, other, sizeof(other));
	return other;
}

/* From now on that is what must be read. */
static void take_over(struct rig *rig, const uint8_t *other)
{
	memcpy(rig->now + SUPER, other, RIG_BLK);
	memcpy(rig->safe + SUPER, other, RIG_BLK);
}

static void expect(struct rig *rig, uint64_t offset, const uint8_t *bytes)
{
	uint8_t buf[RIG_BLK];

	ck_assert_int_eq(rig_read(rig, offset, RIG_BLK, buf), 0);
	ck_assert_mem_eq(buf, bytes, RIG_BLK);
}

static uint8_t *far_now(struct rig *rig)
{
	uint8_t *copy = malloc(SIZE);

	memcpy(copy, simfar_image(rig->far)->now, SIZE);
	return copy;
}

static void finish(struct rig *rig)
{
	cache_check(rig->cache);
	rig_stop(rig);
	rig_destroy(rig);
}

/* Nothing has changed: the cache stays, after a stop and after a kill with half an epoch sent. */
START_TEST(test_unchanged)
{
	struct rig *rig = make(_i);
	uint64_t reads;

	if (_i % 2) {
		rig_stop(rig);
	} else {
		simfar_hold(rig->far, 1u << BLK_FLUSH);
		for (unsigned k = 0; k < 8; k++)
			rig_do(rig, BLK_WRITE, k * 3 * RIG_BLK, RIG_BLK * (1 + k % 3), 0);
		rig_do(rig, BLK_FLUSH, 0, 0, 0);
		rig_pass(rig, (uint64_t)_i * 10 * NSEC_PER_MSEC);
		rig_kill(rig);
		simfar_hold(rig->far, 0);
	}
	reads = simfar_count(rig->far, BLK_READ);
	reopen(rig);
	ck_assert_uint_gt(simfar_count(rig->far, BLK_READ), reads);
	ck_assert_uint_le(simfar_count(rig->far, BLK_READ), reads + 2 * IDENTITY_SAMPLES);
	reads = simfar_count(rig->far, BLK_READ);
	rig_do(rig, BLK_READ, 0, RIG_MAX_BYTES, 0);
	rig_do(rig, BLK_READ, ELSEWHERE, RIG_MAX_BYTES, 0);
	ck_assert_uint_eq(simfar_count(rig->far, BLK_READ), reads);
	drain(rig);
	rig_check_far(rig);
	finish(rig);
}
END_TEST

/* All was sent; then somebody wrote: what was cached is not shown any more, not after a kill
 * either.
 */
START_TEST(test_changed_clean)
{
	struct rig *rig = make(_i);
	const uint8_t *other;

	if (_i % 2)
		rig_stop(rig);
	else
		rig_kill(rig);
	other = meddle(rig);
	take_over(rig, other);
	reopen(rig);
	if (_i % 3 == 0) {
		rig_kill(rig);
		reopen(rig);
	}
	expect(rig, SUPER, other);
	finish(rig);
}
END_TEST

/* What was sampled at a clean stop has left the cache (its segments are gone): the record
 * remembers. */
START_TEST(test_changed_forgotten)
{
	struct rig *rig = make(_i);
	uint64_t reads;

	rig_stop(rig);
	ck_assert_uint_ne(rig->identity.sample[0].offset, UINT64_MAX);
	simdisk_destroy(rig->disk);
	simindex_destroy(rig->index);
	rig->disk = simdisk_create(rig->sim);
	rig->index = simindex_create(rig->sim);
	reads = simfar_count(rig->far, BLK_READ);
	reopen(rig);
	ck_assert_uint_gt(simfar_count(rig->far, BLK_READ), reads);
	finish(rig);
}
END_TEST

/* There is unsent data: nothing of it goes over what somebody wrote, but by order. */
START_TEST(test_changed_dirty)
{
	struct rig *rig = make(_i);
	uint8_t *before, mine[RIG_BLK];
	const uint8_t *other;

	simfar_hold(rig->far, CHANGES);
	rig_do(rig, BLK_WRITE, ELSEWHERE + RIG_BLK, RIG_BLK, 0);
	rig_do(rig, BLK_FLUSH, 0, 0, 0);
	ck_assert_int_eq(rig_read(rig, ELSEWHERE + RIG_BLK, RIG_BLK, mine), 0);
	if (_i % 2)
		rig_stop(rig);
	else
		rig_kill(rig);
	simfar_hold(rig->far, 0);
	other = meddle(rig);
	before = far_now(rig);
	ck_assert_int_eq(rig_open(rig), -EMEDIUMTYPE);
	ck_assert(strstr(rig->err.text, "--force-push"));
	ck_assert_int_eq(rig_open(rig), -EMEDIUMTYPE);
	ck_assert_mem_eq(before, simfar_image(rig->far)->now, SIZE);
	rig->force_push = true;
	take_over(rig, other);
	reopen(rig);
	drain(rig);
	expect(rig, SUPER, other);
	expect(rig, ELSEWHERE + RIG_BLK, mine);
	memcpy(before + ELSEWHERE + RIG_BLK, mine, RIG_BLK);
	ck_assert_mem_eq(before, simfar_image(rig->far)->now, SIZE);
	free(before);
	finish(rig);
}
END_TEST

START_TEST(test_always_and_never)
{
	struct rig *rig = make(_i);
	uint8_t old[RIG_BLK];
	const uint8_t *other;

	ck_assert_int_eq(rig_read(rig, SUPER, RIG_BLK, old), 0);
	simfar_hold(rig->far, CHANGES);
	rig_do(rig, BLK_WRITE, ELSEWHERE, RIG_BLK, 0);
	rig_kill(rig);
	other = meddle(rig);
	rig->trust = CACHE_TRUST_ALWAYS;
	reopen(rig);
	expect(rig, SUPER, old);
	rig_kill(rig);
	rig->trust = CACHE_TRUST_NEVER;
	take_over(rig, other);
	reopen(rig);
	expect(rig, SUPER, other);
	simfar_hold(rig->far, 0);
	drain(rig);
	finish(rig);
}
END_TEST

/* Nobody answers: what is cached is served, what is written is kept, the rest waits. */
START_TEST(test_offline)
{
	struct rig *rig = make(_i);
	struct rig_op *miss;
	struct cache_status st;
	uint8_t *before;

	rig_do(rig, BLK_WRITE, ELSEWHERE, RIG_BLK, 0);
	rig_kill(rig);
	rig->offline = true;
	before = far_now(rig);
	reopen(rig);
	rig_do(rig, BLK_READ, 0, RIG_MAX_BYTES, 0);
	rig_do(rig, BLK_WRITE, 5 * RIG_BLK, RIG_BLK, 0);
	rig_do(rig, BLK_FLUSH, 0, 0, 0);
	miss = rig_submit(rig, BLK_READ, ABSENT, RIG_BLK, 0);
	ck_assert(!rig_wait(rig, miss, LONG_NS));
	cache_status(rig->cache, &st);
	ck_assert_int_eq(st.state, CACHE_OFFLINE);
	ck_assert_mem_eq(before, simfar_image(rig->far)->now, SIZE);
	free(before);
	simfar_restore(rig->far);
	ck_assert(rig_wait(rig, miss, LONG_NS));
	ck_assert_int_eq(miss->result, 0);
	drain(rig);
	rig_check_far(rig);
	finish(rig);
}
END_TEST

/* The same, but it comes back changed: nothing is sent, and nothing of it is shown. */
START_TEST(test_offline_changed)
{
	struct rig *rig = make(_i);
	struct rig_op *miss, *late;
	struct cache_status st;
	uint8_t *before;

	rig_do(rig, BLK_WRITE, ELSEWHERE, RIG_BLK, 0);
	rig_kill(rig);
	rig->offline = true;
	meddle(rig);
	before = far_now(rig);
	rig->lenient = true;
	reopen(rig);
	rig_do(rig, BLK_WRITE, 5 * RIG_BLK, RIG_BLK, 0);
	rig_do(rig, BLK_FLUSH, 0, 0, 0);
	miss = rig_submit(rig, BLK_READ, ABSENT, RIG_BLK, 0);
	rig_pass(rig, LONG_NS);
	simfar_restore(rig->far);
	ck_assert(rig_wait(rig, miss, LONG_NS));
	ck_assert_int_eq(miss->result, -ESTALE);
	ck_assert_int_eq(rig_read(rig, ABSENT, RIG_BLK, NULL), -ESTALE);
	late = rig_submit(rig, BLK_WRITE, 6 * RIG_BLK, RIG_BLK, 0);
	ck_assert(rig_wait(rig, late, LONG_NS));
	ck_assert_int_eq(late->result, -EROFS);
	ck_assert_int_eq(rig_drain(rig, LONG_NS), -ESTALE);
	cache_status(rig->cache, &st);
	ck_assert_int_eq(st.state, CACHE_FENCED);
	ck_assert(strstr(blk_fenced(rig->cache), "changed elsewhere"));
	ck_assert_uint_gt(st.dirty_bytes, 0);
	ck_assert_mem_eq(before, simfar_image(rig->far)->now, SIZE);
	rig_stop(rig);
	ck_assert_mem_eq(before, simfar_image(rig->far)->now, SIZE);
	/* Nothing acknowledged is lost by all that. */
	rig->offline = false;
	rig->force_push = true;
	reopen(rig);
	drain(rig);
	ck_assert_mem_eq(simfar_image(rig->far)->now + 5 * RIG_BLK, rig->now + 5 * RIG_BLK,
			 RIG_BLK);
	free(before);
	finish(rig);
}
END_TEST

/* Stopped before anybody has answered. */
START_TEST(test_offline_stop)
{
	struct rig *rig = make(_i);
	struct rig_op *miss;

	rig_stop(rig);
	rig->offline = true;
	reopen(rig);
	rig->lenient = true;
	if (_i % 2)
		rig_do(rig, BLK_WRITE, 5 * RIG_BLK, RIG_BLK, 0);
	miss = rig_submit(rig, BLK_READ, ABSENT, RIG_BLK, 0);
	rig_pass(rig, LONG_NS);
	rig_stop(rig);
	ck_assert_int_eq(miss->result, -ESHUTDOWN);
	rig->offline = false;
	reopen(rig);
	drain(rig);
	rig_check_far(rig);
	finish(rig);
}
END_TEST

/* A write to a part of a block that is not cached waits for the rest of it: until it is
 * interrupted.
 */
START_TEST(test_interrupted_base)
{
	struct rig *rig = make(_i);
	struct rig_op *part;

	simfar_cut(rig->far, false);
	rig->lenient = true;
	part = rig_submit(rig, BLK_WRITE, ABSENT + 100, 200, 0);
	ck_assert(!rig_wait(rig, part, LONG_NS));
	blk_cancel(rig->cache, &part->req);
	ck_assert(rig_wait(rig, part, LONG_NS));
	ck_assert_int_eq(part->result, -EINTR);
	simfar_restore(rig->far);
	rig->lenient = false;
	rig_do(rig, BLK_WRITE, ABSENT + 100, 200, 0);
	drain(rig);
	rig_settle(rig);
	finish(rig);
}
END_TEST

static uint64_t shown_size(struct rig *rig)
{
	struct blk_info info;

	blk_info(rig->cache, &info);
	return info.size_bytes;
}

#define GROWN (SIZE / 2 + (uint64_t)(_i % 3) * RIG_BLK)

/* The volume grows in use, and nobody answers at the start after that. */
START_TEST(test_growth_in_use)
{
	struct rig *rig = rig_create((uint64_t)_i + 1, SIZE);
	uint64_t old = GROWN;

	rig_will_be_killed(rig);
	simfar_show_size(rig->far, old);
	rig->size = old;
	reopen(rig);
	ck_assert_int_eq(cache_grow(rig->cache), 0);
	/* A last group of blocks that is not whole, zero all over and in part. */
	rig_do(rig, _i % 2 ? BLK_ZERO : BLK_WRITE, old - RIG_MAX_BYTES, RIG_MAX_BYTES, 0);
	if (_i % 5 == 0)
		rig_do(rig, BLK_ZERO, 0, old, 0);
	simfar_show_size(rig->far, SIZE);
	ck_assert_int_eq(cache_grow(rig->cache), 1);
	ck_assert_uint_eq(shown_size(rig), SIZE);
	rig->size = SIZE;
	rig_read_all(rig, false);
	rig_do(rig, BLK_WRITE, SIZE - RIG_MAX_BYTES, RIG_MAX_BYTES, 0);
	rig_do(rig, BLK_WRITE, old - RIG_BLK, 2 * RIG_BLK, 0);
	cache_check(rig->cache);
	rig_kill(rig);
	rig->offline = true;
	reopen(rig);
	ck_assert_uint_eq(shown_size(rig), SIZE);
	rig_do(rig, BLK_READ, SIZE - RIG_MAX_BYTES, RIG_MAX_BYTES, 0);
	simfar_restore(rig->far);
	rig_read_all(rig, false);
	drain(rig);
	rig_check_far(rig);
	finish(rig);
}
END_TEST

/* An old end inside a block is for the next start (the far side has data there now). */
START_TEST(test_growth_of_a_part)
{
	struct rig *rig = rig_create((uint64_t)_i + 1, SIZE);

	simfar_show_size(rig->far, SIZE / 2 + 512);
	rig->size = SIZE / 2 + 512;
	reopen(rig);
	rig_do(rig, BLK_READ, SIZE / 2, 512, 0);
	simfar_show_size(rig->far, SIZE);
	ck_assert_int_eq(cache_grow(rig->cache), 0);
	rig_stop(rig);
	rig->size = SIZE;
	reopen(rig);
	ck_assert_uint_eq(shown_size(rig), SIZE);
	rig_read_all(rig, false);
	finish(rig);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("trust");
	TCase *tc = tcase_create("trust");

	log_open("stderr", LOG_LEVEL_ERROR, NULL);
	tcase_set_timeout(tc, 60);
	tcase_add_loop_test(tc, test_unchanged, 0, 2 * SEEDS);
	tcase_add_loop_test(tc, test_changed_clean, 0, SEEDS);
	tcase_add_loop_test(tc, test_changed_forgotten, 0, 5);
	tcase_add_loop_test(tc, test_changed_dirty, 0, SEEDS);
	tcase_add_loop_test(tc, test_always_and_never, 0, 5);
	tcase_add_loop_test(tc, test_offline, 0, SEEDS);
	tcase_add_loop_test(tc, test_offline_changed, 0, SEEDS);
	tcase_add_loop_test(tc, test_offline_stop, 0, 10);
	tcase_add_loop_test(tc, test_interrupted_base, 0, 5);
	tcase_add_loop_test(tc, test_growth_in_use, 0, SEEDS);
	tcase_add_loop_test(tc, test_growth_of_a_part, 0, 5);
	suite_add_tcase(s, tc);
	return run_suite(s);
}
