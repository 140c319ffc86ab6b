// SPDX-License-Identifier: Apache-2.0
/*
 * The order in which the far side gets what was written, in each way of sending: strict and
 * adaptive, with SYNCs, with FUA writes, without a volatile cache, with checkpoints, with fsync
 * that waits for the target; while links are cut, targets forget, and processes are killed.
 *
 * One change at a time, so the history is exact: change k, and between which of them the flushes
 * were. A copy of the far volume is explained by flush i if each sector is what it was at flush i,
 * or what some change between flush i and the next one made of it.
 */
#include <check.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "core/cleanup.h"
#include "core/log.h"
#include "core/range.h"
#include "tests/cache/rig.h"
#include "tests/lib/run.h"

#define BLOCKS 48u
#define SECTOR 512u
#define SECTORS (BLOCKS * RIG_BLK / SECTOR)
#define FLUSHES 256
#define LONG_NS (60 * NSEC_PER_SEC)
#define NONE UINT32_MAX

struct past {
	struct rig *rig;
	uint32_t flush[FLUSHES + 1]; /* changes before flush i; flush 0 is the beginning */
	uint64_t from_ns[FLUSHES + 1], to_ns[FLUSHES + 1]; /* wall clock around it */
	unsigned flushes;
	unsigned copies, apart, merged; /* copies looked at; not explained; far_consistent false */
};

static void flush(struct past *p)
{
	struct sched *sched = sim_sched(p->rig->sim);

	ck_assert_uint_lt(p->flushes, FLUSHES);
	p->flushes++;
	p->flush[p->flushes] = p->rig->changes;
	p->from_ns[p->flushes] = sched_realtime(sched);
	rig_do(p->rig, BLK_FLUSH, 0, 0, 0);
	p->to_ns[p->flushes] = sched_realtime(sched);
}

/* Which change made sector @s what it is in @far; 0: none. */
static uint32_t version(const struct rig *rig, const uint8_t *far, uint64_t s)
{
	const uint8_t *bytes = far + s * SECTOR;

	for (size_t i = rig->nops; i-- > 0;) {
		const struct rig_op *op = rig->op[i];

		if (op->req.op != BLK_WRITE || s * SECTOR < op->req.offset ||
		    s * SECTOR >= op->req.offset + op->req.length)
			continue;
		if (memcmp(bytes, op->buf + (s * SECTOR - op->req.offset), SECTOR) == 0)
			return op->number;
	}
	if (memcmp(bytes, rig->first + s * SECTOR, SECTOR) != 0)
		sim_die(rig->sim, "sector %" PRIu64 " holds what nobody wrote", s);
	return 0;
}

/* The last change up to @upto that touches sector @s. */
static uint32_t last_before(const struct rig *rig, uint64_t s, uint32_t upto)
{
	for (size_t i = rig->nops; i-- > 0;) {
		const struct rig_op *op = rig->op[i];

		if (op->req.op == BLK_WRITE && op->number <= upto && s * SECTOR >= op->req.offset &&
		    s * SECTOR < op->req.offset + op->req.length)
			return op->number;
	}
	return 0;
}

/* The first flush that explains @far, NONE if none does. */
static uint32_t explain(const struct past *p, const uint8_t *far)
{
	uint32_t seen[SECTORS];

	for (uint64_t s = 0; s < SECTORS; s++)
		seen[s] = version(p->rig, far, s);
	for (uint32_t i = 0; i <= p->flushes; i++) {
		uint32_t from = p->flush[i], to = i < p->flushes ? p->flush[i + 1] : NONE;
		bool fits = true;

		for (uint64_t s = 0; s < SECTORS && fits; s++)
			fits = (seen[s] > from && seen[s] <= to) ||
			       seen[s] == last_before(p->rig, s, from);
		if (fits)
			return i;
	}
	return NONE;
}

/* All changes up to flush @i are there: each sector is at least that new. */
static bool has_flush(const struct past *p, const uint8_t *far, unsigned i)
{
	for (uint64_t s = 0; s < SECTORS; s++)
		if (version(p->rig, far, s) < last_before(p->rig, s, p->flush[i]))
			return false;
	return true;
}

/* What the target could hold after losing power now, against what status says. */
static void look(struct past *p)
{
	cleanup_free uint8_t *far = simfar_cut_copy(p->rig->far);
	struct cache_status st;
	uint32_t by;

	cache_status(p->rig->cache, &st);
	by = explain(p, far);
	p->copies++;
	p->apart += by == NONE;
	p->merged += !st.far_consistent;
	if (st.far_consistent && by == NONE)
		sim_die(p->rig->sim,
			"no flush explains the far side, which is said to be consistent");
	ck_assert(!st.far_consistent || st.dirty_bytes == 0 || by <= p->flushes);
	for (unsigned i = 1; i <= p->flushes && st.far_as_of_ns != CACHE_UNKNOWN; i++)
		if (p->from_ns[i] <= st.far_as_of_ns && st.far_as_of_ns <= p->to_ns[i] &&
		    !has_flush(p, far, i))
			sim_die(p->rig->sim, "far_as_of says flush %u, which is not there", i);
	ck_assert_int_eq(st.epochs_pending == 0, st.dirty_bytes == 0);
	ck_assert_int_eq(st.oldest_dirty_ns == CACHE_UNKNOWN, st.dirty_bytes == 0);
}

static void change(struct past *p)
{
	struct sim *sim = p->rig->sim;
	uint64_t n = 1 + sim_below(sim, sim_once_in(sim, 4) ? 12 : 2);
	uint64_t blk = sim_below(sim, BLOCKS - n + 1);

	rig_do(p->rig, BLK_WRITE, blk * RIG_BLK, n * RIG_BLK, 0);
}

static void run_a_little(struct past *p)
{
	for (uint64_t n = sim_below(p->rig->sim, 30); n; n--) {
		if (!sim_step(p->rig->sim) && !sim_advance(p->rig->sim))
			break;
		if (sim_once_in(p->rig->sim, 8))
			look(p);
	}
	look(p);
}

struct way {
	const char *name;
	bool write_through, fua, adaptive, target, merge;
	unsigned flush_once_in; /* changes */
};

static const struct way ways[] = {
	{ "strict", .flush_once_in = 4 },
	{ "strict, FUA", .fua = true, .flush_once_in = 2 },
	{ "strict, no volatile cache", .write_through = true, .flush_once_in = 3 },
	{ "adaptive", .adaptive = true, .flush_once_in = 2 },
	{ "adaptive, FUA", .adaptive = true, .fua = true, .flush_once_in = 2 },
	{ "adaptive, no volatile cache", .adaptive = true, .write_through = true,
	  .flush_once_in = 2 },
	{ "strict, drains that merge", .merge = true, .flush_once_in = 2 },
	{ "fsync waits for the target", .target = true, .flush_once_in = 4 },
	{ "the same with FUA, adaptive", .target = true, .fua = true, .adaptive = true,
	  .flush_once_in = 4 },
};

static struct rig *make(const struct way *way, uint64_t seed)
{
	struct simfar_config far = {
		.info = { .size_bytes = BLOCKS * RIG_BLK,
			  .flags = way->fua ? BLK_INFO_FUA : 0,
			  .max_write_bytes = 8 * RIG_BLK },
		.latency_ns = 100 * NSEC_PER_MSEC,
		.write_through = way->write_through,
	};
	struct rig *rig = rig_create_over(seed, &far);

	rig_will_be_killed(rig);
	rig->adaptive = way->adaptive;
	rig->max_lag_ns = NSEC_PER_MSEC;
	rig->durability_target = way->target;
	rig->max_dirty_age_ns = 500 * NSEC_PER_MSEC;
	if (rig_open(rig) < 0)
		sim_die(rig->sim, "%s", rig->err.text);
	return rig;
}

static void reopen(struct past *p, bool power)
{
	struct cache_status st;
	bool before;

	cache_status(p->rig->cache, &st);
	before = st.far_consistent;
	if (power) {
		/* Nothing is lost that way, and the history stays what it is. */
		flush(p);
		cache_status(p->rig->cache, &st);
		before = st.far_consistent;
		rig_power_cut(p->rig);
		p->rig->unsettled = false;
	} else {
		rig_kill(p->rig);
	}
	if (rig_open(p->rig) < 0)
		sim_die(p->rig->sim, "%s", p->rig->err.text);
	cache_status(p->rig->cache, &st);
	/* A watermark may have been in the file before anybody was told. */
	if (!before && st.far_consistent && st.dirty_bytes) {
		cleanup_free uint8_t *far = simfar_cut_copy(p->rig->far);

		if (explain(p, far) == NONE)
			sim_die(p->rig->sim, "a restart has forgotten what was merged");
	}
	look(p);
}

static void drained(struct cache_drain *drain, int result)
{
	(void)result;
	drain->result = 1;
}

/* Copies are taken meanwhile; it may be taken back before it ends. */
static void drain_merged(struct past *p)
{
	struct cache_drain drain = { .done = drained, .merge = true };

	cache_drain(p->rig->cache, &drain);
	while (drain.result != 1 && !sim_once_in(p->rig->sim, 6))
		run_a_little(p);
	/* What was called back is not taken back; it has been, for nothing runs beside us. */
	if (drain.result != 1)
		ck_assert(cache_drain_cancel(p->rig->cache, &drain));
}

static void live(struct past *p, const struct way *way)
{
	struct rig *rig = p->rig;

	for (unsigned i = 0; i < 120; i++) {
		change(p);
		if (sim_once_in(rig->sim, way->flush_once_in)) {
			flush(p);
			if (way->target) {
				cleanup_free uint8_t *far = simfar_cut_copy(rig->far);

				ck_assert(has_flush(p, far, p->flushes));
			}
		}
		if (sim_once_in(rig->sim, 3))
			run_a_little(p);
		if (sim_once_in(rig->sim, 25)) {
			simfar_cut(rig->far, sim_once_in(rig->sim, 2));
			if (!way->target)
				run_a_little(p);
			simfar_restore(rig->far);
		}
		if (sim_once_in(rig->sim, 40))
			simfar_fail(rig->far, 1u << BLK_WRITE | 1u << BLK_FLUSH,
				    1 + sim_below(rig->sim, 4), -EIO, false);
		if (sim_once_in(rig->sim, 30))
			reopen(p, sim_once_in(rig->sim, 2));
		if (way->merge && sim_once_in(rig->sim, 10))
			drain_merged(p);
	}
	simfar_fail(rig->far, 0, 0, 0, false);
	ck_assert_int_eq(rig_drain(rig, LONG_NS), 0);
	rig_check_far(rig);
	look(p);
}

START_TEST(test_ways)
{
	const struct way *way = &ways[_i];
	unsigned copies = 0, apart = 0, merged = 0;

	for (uint64_t seed = 1; seed <= 12; seed++) {
		struct past p = { .rig = make(way, seed) };

		live(&p, way);
		cache_check(p.rig->cache);
		rig_stop(p.rig);
		rig_destroy(p.rig);
		copies += p.copies;
		apart += p.apart;
		merged += p.merged;
	}
	printf("%s: seeds 1..12: %u copies, %u while merged, %u of them no state at a flush\n",
	       way->name, copies, merged, apart);
	if (way->adaptive || way->merge)
		ck_assert(way->target || (merged > 0 && apart > 0));
	else
		ck_assert(merged == 0 && apart == 0);
}
END_TEST

/* ---- how many requests ---- */

static bool clean(struct rig *rig)
{
	struct cache_status st;

	cache_status(rig->cache, &st);
	return st.dirty_bytes == 0;
}

static void small_epochs(struct rig *rig, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		rig_do(rig, BLK_WRITE, i % BLOCKS * RIG_BLK, RIG_BLK, 0);
		rig_do(rig, BLK_FLUSH, 0, 0, 0);
		ck_assert(rig_run(rig, clean, LONG_NS));
	}
}

/* One round trip an epoch where FUA or no cache allows it; the first one after a start is fenced.
 */
START_TEST(test_round_trips)
{
	for (unsigned k = 0; k < 3; k++) {
		struct rig *rig = make(&ways[k], 7);

		small_epochs(rig, 40);
		ck_assert_uint_eq(simfar_count(rig->far, BLK_WRITE), 40);
		ck_assert_uint_eq(simfar_count(rig->far, BLK_FLUSH), k == 0 ? 40 : k == 1 ? 0 : 1);
		/* A lost session calls for a SYNC, once, also where nothing is volatile. */
		simfar_cut(rig->far, false);
		simfar_restore(rig->far);
		small_epochs(rig, 10);
		ck_assert_uint_eq(simfar_count(rig->far, BLK_FLUSH), k == 0 ? 50 : k == 1 ? 0 : 2);
		rig_stop(rig);
		rig_destroy(rig);
	}
}
END_TEST

/* Zeroes are no FUA writes, and neither is an epoch of many blocks. */
START_TEST(test_no_fua)
{
	struct rig *rig = make(&ways[1], 8);

	rig_do(rig, BLK_ZERO, 0, 4 * RIG_BLK, 0);
	rig_do(rig, BLK_WRITE, 8 * RIG_BLK, RIG_BLK, 0);
	rig_do(rig, BLK_FLUSH, 0, 0, 0);
	ck_assert(rig_run(rig, clean, LONG_NS));
	ck_assert_uint_eq(simfar_count(rig->far, BLK_FLUSH), 1);
	for (unsigned i = 0; i < 10; i++)
		rig_do(rig, BLK_WRITE, 2 * i * RIG_BLK, RIG_BLK, 0);
	rig_do(rig, BLK_FLUSH, 0, 0, 0);
	ck_assert(rig_run(rig, clean, LONG_NS));
	ck_assert_uint_eq(simfar_count(rig->far, BLK_FLUSH), 2);
	rig_stop(rig);
	rig_destroy(rig);
}
END_TEST

/* ---- checkpoints ---- */

#define LARGE_BYTES (64ull << 20)

static struct rig *make_large(bool write_through)
{
	struct simfar_config far = {
		.info = { .size_bytes = LARGE_BYTES },
		.write_through = write_through,
	};
	struct rig *rig = rig_create_over(3, &far);

	rig->limit_bytes = 400ull << 20;
	rig->max_dirty_bytes = 300ull << 20;
	rig->max_dirty_age_ns = 600 * NSEC_PER_SEC;
	if (rig_open(rig) < 0)
		sim_die(rig->sim, "%s", rig->err.text);
	return rig;
}

static uint64_t sent_bytes(struct rig *rig)
{
	struct blk_stats st;

	blk_stats(rig->cache, &st);
	return st.write_bytes;
}

static bool nearly_sent(struct rig *rig)
{
	return sent_bytes(rig) >= LARGE_BYTES - (4u << 20);
}

/*
 * A session that is lost, by a target that forgets, late in an epoch of 64 MiB costs what was sent
 * since the last checkpoint: a second's worth, 12 MB as long as nothing else is known, and what was
 * on its way while its SYNC was.
 */
START_TEST(test_checkpoint)
{
	struct rig *rig = make_large(_i);
	uint64_t all;

	for (uint64_t at = 0; at < LARGE_BYTES; at += RIG_MAX_BYTES)
		rig_do(rig, BLK_WRITE, at, RIG_MAX_BYTES, 0);
	rig_do(rig, BLK_FLUSH, 0, 0, 0);
	ck_assert(rig_run(rig, nearly_sent, LONG_NS));
	simfar_cut(rig->far, true);
	simfar_restore(rig->far);
	ck_assert_int_eq(rig_drain(rig, LONG_NS), 0);
	all = sent_bytes(rig);
	printf("%" PRIu64 " MiB sent for %llu MiB\n", all >> 20, LARGE_BYTES >> 20);
	ck_assert_uint_gt(all, LARGE_BYTES);
	ck_assert_uint_le(all, LARGE_BYTES + (34ull << 20));
	ck_assert_uint_ge(simfar_count(rig->far, BLK_FLUSH), _i ? 1 : 3);
	rig_check_far(rig);
	rig_stop(rig);
	rig_destroy(rig);
}
END_TEST

/* ---- waiting for the target ---- */

START_TEST(test_target)
{
	struct rig *rig = make(&ways[7], (uint64_t)_i + 1);
	struct rig_op *op;

	/* The interrupt comes early or late; the write is there all the same. */
	for (unsigned k = 0; k < 2; k++) {
		if (k == 0)
			rig_do(rig, BLK_WRITE, 0, RIG_BLK, 0);
		simfar_hold(rig->far, 1u << BLK_WRITE);
		op = k == 0 ? rig_submit(rig, BLK_FLUSH, 0, 0, 0)
			    : rig_submit(rig, BLK_WRITE, RIG_BLK, RIG_BLK, BLK_FUA);
		if (_i % 2)
			ck_assert(!rig_wait(rig, op, 10 * NSEC_PER_SEC));
		rig->lenient = true;
		blk_cancel(rig->cache, &op->req);
		ck_assert(rig_wait(rig, op, NSEC_PER_SEC));
		ck_assert_int_eq(op->result, -EINTR);
		rig->lenient = false;
		simfar_hold(rig->far, 0);
		ck_assert_int_eq(rig_drain(rig, LONG_NS), 0);
		/* And without: it ends when the target has it. */
		op = k == 0 ? rig_submit(rig, BLK_FLUSH, 0, 0, 0)
			    : rig_submit(rig, BLK_WRITE, 2 * RIG_BLK, RIG_BLK, BLK_FUA);
		ck_assert(rig_wait(rig, op, LONG_NS));
		ck_assert_int_eq(op->result, 0);
		ck_assert(clean(rig));
	}
	/* A stop does not wait for the target either, and does not pretend. */
	rig_do(rig, BLK_WRITE, 0, RIG_BLK, 0);
	simfar_hold(rig->far, 1u << BLK_WRITE);
	op = rig_submit(rig, BLK_FLUSH, 0, 0, 0);
	ck_assert(!rig_wait(rig, op, NSEC_PER_SEC));
	rig_stop(rig);
	ck_assert_int_eq(op->result, -ESHUTDOWN);
	rig_destroy(rig);
}
END_TEST

/* ---- bounds ---- */

/* Nobody flushes: nothing gets older than --max-dirty-age and the time that it takes to send. */
START_TEST(test_age)
{
	struct rig *rig = make(&ways[_i], 5);
	struct sched *sched = sim_sched(rig->sim);
	uint64_t end = sched_now(sched) + 20 * NSEC_PER_SEC, oldest = 0;
	struct cache_status st;

	while (sched_now(sched) < end) {
		rig_do(rig, BLK_WRITE, sim_below(rig->sim, BLOCKS) * RIG_BLK, RIG_BLK, 0);
		rig_pass(rig, sim_below(rig->sim, 100 * NSEC_PER_MSEC));
		cache_status(rig->cache, &st);
		if (st.dirty_bytes)
			oldest = MAX(oldest, st.oldest_dirty_ns);
	}
	ck_assert_uint_ge(oldest, 300 * NSEC_PER_MSEC);
	ck_assert_uint_le(oldest, 800 * NSEC_PER_MSEC);
	rig_stop(rig);
	rig_destroy(rig);
}
END_TEST

/* A record that shares its header with one of the epoch before takes no slot; but it is an epoch.
 */
START_TEST(test_epoch_of_zeroes)
{
	struct rig *rig = make(&ways[0], (uint64_t)_i + 1);

	/* The first holds the log, so that the others become one batch. */
	rig_submit(rig, BLK_WRITE, 0, RIG_BLK, 0);
	rig_submit(rig, BLK_ZERO, 4 * RIG_BLK, RIG_BLK, 0);
	rig_submit(rig, BLK_FLUSH, 0, 0, 0);
	rig_submit(rig, BLK_ZERO, 8 * RIG_BLK, RIG_BLK, 0);
	rig_wait_all(rig);
	ck_assert(rig_run(rig, clean, 10 * NSEC_PER_SEC));
	ck_assert_int_eq(rig_drain(rig, LONG_NS), 0);
	rig_check_far(rig);
	rig_stop(rig);
	rig_destroy(rig);
}
END_TEST

/* Outage at the limit: who writes waits, is told why, and goes on; no error. */
START_TEST(test_limit)
{
	struct rig *rig = make(&ways[0], 9);
	struct rig_op *op = NULL;
	struct cache_status st;
	unsigned n = 0;

	rig_stop(rig);
	rig->max_dirty_bytes = 1 << 20;
	if (rig_open(rig) < 0)
		sim_die(rig->sim, "%s", rig->err.text);
	cache_status(rig->cache, &st);
	ck_assert_ptr_null(st.throttled_by);
	simfar_cut(rig->far, false);
	do {
		op = rig_submit(rig, BLK_WRITE, n % BLOCKS * RIG_BLK, RIG_BLK, 0);
		ck_assert_uint_lt(n++, 1000);
	} while (rig_wait(rig, op, 10 * NSEC_PER_SEC));
	cache_status(rig->cache, &st);
	ck_assert_str_eq(st.throttled_by, "offline");
	ck_assert_ptr_nonnull(st.waiting_for);
	ck_assert(st.dirty_bytes <= 1 << 20 && st.dirty_bytes > 3 << 18);
	ck_assert_uint_eq(st.drain_eta_ns, CACHE_UNKNOWN);
	simfar_restore(rig->far);
	ck_assert(rig_wait(rig, op, LONG_NS));
	ck_assert_int_eq(rig_drain(rig, LONG_NS), 0);
	cache_status(rig->cache, &st);
	ck_assert_ptr_null(st.throttled_by);
	ck_assert_ptr_null(st.waiting_for);
	rig_check_far(rig);
	rig_stop(rig);
	rig_destroy(rig);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("order");
	TCase *tc = tcase_create("order");
	struct err err;

	log_open("stderr", LOG_LEVEL_ERROR, &err);
	tcase_set_timeout(tc, 300);
	tcase_add_loop_test(tc, test_ways, 0, (int)ARRAY_SIZE(ways));
	tcase_add_test(tc, test_round_trips);
	tcase_add_test(tc, test_no_fua);
	tcase_add_loop_test(tc, test_checkpoint, 0, 2);
	tcase_add_loop_test(tc, test_target, 0, 8);
	tcase_add_loop_test(tc, test_age, 0, 3);
	tcase_add_loop_test(tc, test_epoch_of_zeroes, 0, 20);
	tcase_add_test(tc, test_limit);
	suite_add_tcase(s, tc);
	return run_suite(s);
}
