// SPDX-License-Identifier: Apache-2.0
/*
 * Rot and a meddling user, in a directory that nobody has open: flipped bits everywhere, segments
 * deleted and cut short, the index gone. A clean directory starts and serves what the far side
 * has. With unsent writes each byte reads as what was written or as EIO, or the start is refused
 * and says why; what reads as EIO is named; and the far side never sees a byte that was not
 * written, nor a later epoch without an earlier one.
 */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cache/format.h"
#include "cache/index.h"
#include "cache/verify.h"
#include "core/cleanup.h"
#include "core/clock.h"
#include "core/le.h"
#include "core/log.h"
#include "core/range.h"
#include "tests/cache/rig.h"
#include "tests/lib/run.h"

#define SIZE ((1u << 20) + 3 * RIG_BLK + 512)
#define CHANGES (1u << BLK_WRITE | 1u << BLK_ZERO | 1u << BLK_DISCARD)
#define DRAIN_NS (60 * NSEC_PER_SEC)

enum ending { STOP, KILL, POWER_CUT, ENDINGS };

/* How often damage of a kind was refused, named, harmless. */
static unsigned refused, named, harmless;

static void end(struct rig *rig, enum ending ending)
{
	if (ending == KILL)
		rig_kill(rig);
	else if (ending == POWER_CUT)
		rig_power_cut(rig);
	else
		rig_stop(rig);
}

static void open_rig(struct rig *rig)
{
	if (rig_open(rig) < 0)
		sim_die(rig->sim, "%s", rig->err.text);
}

/*
 * A directory with clean data that was fetched and, unless @clean, three epochs that were not sent,
 * versions of the same blocks in each, over two lives. All of it is durable.
 */
static struct rig *make(uint64_t seed, bool clean, enum ending ending)
{
	struct rig *rig = rig_create(seed, SIZE);

	if (!clean)
		rig_will_be_killed(rig);
	open_rig(rig);
	rig_do(rig, BLK_READ, SIZE / 2, RIG_MAX_BYTES, 0);
	rig_do(rig, BLK_WRITE, 4 * RIG_BLK, RIG_MAX_BYTES, 0);
	rig_do(rig, BLK_ZERO, 100 * RIG_BLK, 9 * RIG_BLK, 0);
	if (rig_drain(rig, DRAIN_NS) < 0)
		sim_die(rig->sim, "drain");
	if (!clean)
		simfar_hold(rig->far, CHANGES);
	for (uint64_t i = 0; i < 3; i++) {
		if (i == 2 && !clean) {
			end(rig, ending == POWER_CUT ? POWER_CUT : KILL);
			open_rig(rig);
			rig->unsettled = false; /* nothing was in doubt */
			simfar_hold(rig->far, CHANGES);
		}
		rig_do(rig, BLK_WRITE, 0, (5 + i) * RIG_BLK, 0);
		rig_do(rig, BLK_WRITE, (40 + 20 * i) * RIG_BLK, 11 * RIG_BLK, 0);
		rig_do(rig, BLK_ZERO, (60 + 20 * i) * RIG_BLK, 3 * RIG_BLK, 0);
		rig_do(rig, BLK_WRITE, 41 * RIG_BLK + 77, 900, 0);
		rig_do(rig, BLK_FLUSH, 0, 0, 0);
	}
	if (clean && rig_drain(rig, DRAIN_NS) < 0)
		sim_die(rig->sim, "drain");
	end(rig, clean ? STOP : ending);
	rig->unsettled = false;
	return rig;
}

/* ---- what the damage led to ---- */

struct names {
	struct rig *rig;
	bool *bad; /* per block: named as lost */
};

static void note(void *ctx, const struct cache_damage *d)
{
	struct names *n = ctx;

	if (d->dirty)
		for (uint64_t at = d->offset; at < MIN(d->offset + d->length, n->rig->size);
		     at += RIG_BLK)
			n->bad[at / RIG_BLK] = true;
}

/* The far side may hold any version of a byte that was ever written there; nothing else. */
static void check_far_bytes(struct rig *rig)
{
	const struct simimage *far = simfar_image(rig->far);

	for (uint64_t at = 0; at < rig->size; at++)
		if (!rig_was(rig, at, far->now[at]))
			sim_die(rig->sim, "far byte %llu is %02x, which it never was",
				(unsigned long long)at, far->now[at]);
}

static void check_reads(struct rig *rig)
{
	struct cache_damage damage[32];
	unsigned n, errors = 0;

	for (uint64_t at = 0; at < rig->size; at += RIG_BLK) {
		bool is_named = false;
		int r = rig_read(rig, at, MIN((uint64_t)RIG_BLK, rig->size - at), NULL);

		if (r == 0)
			continue;
		ck_assert_int_eq(r, -EIO);
		errors++;
		n = cache_damages(rig->cache, damage, 32);
		ck_assert_uint_gt(n, 0);
		for (unsigned i = 0; i < MIN(n, 32u); i++)
			is_named |= range_overlap(at, 1, damage[i].offset, damage[i].length) &&
				    damage[i].dirty;
		if (!is_named)
			sim_die(rig->sim, "block %llu reads as EIO and is not named",
				(unsigned long long)(at / RIG_BLK));
	}
	if (errors)
		named++;
	else
		harmless++;
}

/* cache_verify() of the directory as it lies there. */
static int verify(struct rig *rig, struct cache_verify_result *ret, struct names *names)
{
	struct lio *lio = simdisk_open(rig->disk, rig->sim);
	int r = cache_verify(lio, &rig->identity, note, names, ret, &rig->err);

	lio_destroy(lio);
	return r;
}

/* Open what was damaged and look at all of it. */
static void judge(struct rig *rig, bool clean)
{
	struct names names = { rig, sim_alloc(SIZE / RIG_BLK + 1) };
	struct cache_verify_result result;
	int v = verify(rig, &result, &names), r = rig_open(rig);

	if (r < 0) {
		if (clean)
			sim_die(rig->sim, "a clean directory is refused: %s", rig->err.text);
		ck_assert_ptr_nonnull(strstr(rig->err.text, "target"));
		ck_assert_int_lt(v, 0);
		refused++;
		free(names.bad);
		return;
	}
	ck_assert_int_eq(v, 0);
	check_reads(rig);
	r = rig_drain(rig, DRAIN_NS);
	check_far_bytes(rig);
	if (clean || cache_damages(rig->cache, NULL, 0) == 0) {
		if (r < 0)
			sim_die(rig->sim, "nothing is damaged, and the drain says %s",
				strerror(-r));
		rig_check_far(rig);
	} else {
		ck_assert_int_eq(r, -EIO);
		ck_assert_uint_gt(result.lost_bytes, 0);
	}
	cache_check(rig->cache);
	rig_stop(rig);
	free(names.bad);
}

static void finish(const char *what)
{
	printf("%s: refused %u, named %u, harmless %u\n", what, refused, named, harmless);
	refused = named = harmless = 0;
}

/* ---- kinds of damage ---- */

/* The @n-th segment file, or NULL. */
static const char *segment(struct rig *rig, size_t n)
{
	for (size_t i = 0;; i++) {
		const char *name = simdisk_name(rig->disk, i);

		if (!name)
			return NULL;
		if (strstr(name, ".seg") && n-- == 0)
			return name;
	}
}

/* Of the segment that was begun last: after a power cut nothing else tells what it held. */
static bool newest(struct rig *rig, size_t n)
{
	uint64_t most = 0, mine = 0;

	for (size_t i = 0; segment(rig, i); i++) {
		struct format_segment head;
		const uint8_t *data;
		uint64_t bytes;

		simdisk_peek(rig->disk, segment(rig, i), &data, &bytes);
		if (bytes < FORMAT_SLOT_BYTES || format_segment_decode(data, &head) < 0 ||
		    head.class != FORMAT_LOG)
			continue;
		most = MAX(most, head.incarnation);
		if (i == n)
			mine = head.incarnation;
	}
	return mine == most;
}

/* Slot @slot of the file holds something. */
static bool slot_used(struct rig *rig, const char *name, uint32_t slot)
{
	const uint8_t *data;
	uint64_t bytes;

	ck_assert_int_eq(simdisk_peek(rig->disk, name, &data, &bytes), 0);
	data += (uint64_t)slot * FORMAT_SLOT_BYTES;
	for (uint32_t i = 0; i < FORMAT_SLOT_BYTES; i++)
		if (data[i])
			return true;
	return false;
}

/* One byte of each slot that is used, each in a directory of its own. */
static void flip_each_slot(bool clean, enum ending ending, const char *what)
{
	for (size_t seg = 0;; seg++) {
		for (uint32_t slot = 0; slot < RIG_SEGMENT_BYTES / FORMAT_SLOT_BYTES; slot++) {
			struct rig *rig = make(seg + 1, clean, ending);
			const char *name = segment(rig, seg);
			uint64_t at = sim_once_in(rig->sim, 2) ? sim_below(rig->sim, 200)
							       : sim_below(rig->sim, 4096);
			bool used = name && slot_used(rig, name, slot) &&
				    (ending != POWER_CUT || !newest(rig, seg));

			if (used) {
				simdisk_corrupt(rig->disk, name, slot * FORMAT_SLOT_BYTES + at, 1);
				judge(rig, clean);
			}
			rig_destroy(rig);
			if (!name) {
				finish(what);
				return;
			}
		}
	}
}

START_TEST(test_flips_clean)
{
	flip_each_slot(true, STOP, "flips, clean");
}
END_TEST

START_TEST(test_flips_stopped)
{
	flip_each_slot(false, STOP, "flips, unsent, stopped");
}
END_TEST

START_TEST(test_flips_killed)
{
	flip_each_slot(false, KILL, "flips, unsent, killed");
}
END_TEST

START_TEST(test_flips_cut)
{
	flip_each_slot(false, POWER_CUT, "flips, unsent, power cut");
}
END_TEST

START_TEST(test_segments)
{
	for (unsigned k = 0; k < 2 * (1 + ENDINGS); k++) {
		bool cut = k % 2, clean = k / 2 == ENDINGS;
		enum ending ending = clean ? STOP : (enum ending)(k / 2);

		for (size_t seg = 0;; seg++) {
			struct rig *rig = make(seg + 1, clean, ending);
			const char *name = segment(rig, seg);

			/* The end of the newest one looks like a torn tail. */
			bool skip = cut && name && ending == POWER_CUT && newest(rig, seg);

			if (name && !skip && cut)
				simdisk_cut_file(rig->disk, name,
						 sim_below(rig->sim, 20) * FORMAT_SLOT_BYTES);
			else if (name && !skip)
				simdisk_remove(rig->disk, name);
			if (name && !skip)
				judge(rig, clean);
			rig_destroy(rig);
			if (!name)
				break;
		}
	}
	finish("segments deleted and cut");
}
END_TEST

/* Returns the first number that it could hold; 0: there is none. */
static uint64_t remove_newest(struct rig *rig)
{
	struct format_segment head = { 0 };
	const uint8_t *data;
	uint64_t bytes;
	size_t i = 0;

	while (!newest(rig, i))
		i++;
	simdisk_peek(rig->disk, segment(rig, i), &data, &bytes);
	if (bytes < FORMAT_SLOT_BYTES || format_segment_decode(data, &head) < 0 ||
	    head.class != FORMAT_LOG)
		return 0;
	simdisk_remove(rig->disk, segment(rig, i));
	return head.first_seq;
}

/* The copy of the watermark in the index that nobody has open. */
static uint64_t watermark_of(struct rig *rig)
{
	struct index_store *store = simindex_open(rig->index);
	uint8_t bytes[16] = { 0 };
	size_t length;

	index_get_state(store, "log-tail", bytes, sizeof(bytes), &length);
	index_destroy(store);
	return le_get(bytes + 8, 8);
}

/*
 * All is at the target, the older part of the log is reclaimed, power fails, and all that is newer
 * than the index's watermark is gone, and some that is older: what the rest says is older than the
 * target.
 */
START_TEST(test_newest_lost)
{
	for (uint64_t seed = 1; seed <= 60; seed++) {
		struct rig *rig = rig_create(seed, SIZE);
		uint64_t watermark;

		rig_will_be_killed(rig);
		open_rig(rig);
		for (unsigned i = 1; i <= 60 + seed; i++) {
			uint64_t at = sim_below(rig->sim, (SIZE - RIG_MAX_BYTES) / RIG_BLK);

			rig_do(rig, BLK_WRITE, at * RIG_BLK, RIG_MAX_BYTES, 0);
			if (i % 5 == 0)
				rig_do(rig, BLK_FLUSH, 0, 0, 0);
			if (i % 20 == 0)
				ck_assert_int_eq(rig_drain(rig, DRAIN_NS), 0);
		}
		rig_do(rig, BLK_FLUSH, 0, 0, 0);
		ck_assert_int_eq(rig_drain(rig, DRAIN_NS), 0);
		rig_power_cut(rig);
		watermark = watermark_of(rig);
		while (remove_newest(rig) > watermark)
			;
		if (rig_open(rig) < 0) {
			refused++;
		} else {
			harmless++;
			rig_read_all(rig, false);
			rig_stop(rig);
		}
		rig_destroy(rig);
	}
	finish("newest segments lost behind the target");
}
END_TEST

START_TEST(test_index)
{
	for (unsigned k = 0; k < 1 + ENDINGS; k++) {
		struct rig *rig = make(k + 1, k == ENDINGS, k == ENDINGS ? STOP : (enum ending)k);

		simindex_lose(rig->index);
		judge(rig, k == ENDINGS);
		rig_destroy(rig);
	}
	ck_assert_uint_eq(refused + named, 0);
	finish("index lost");
}
END_TEST

/* Several places at once, of all kinds. */
START_TEST(test_many)
{
	for (uint64_t seed = 1; seed <= 60; seed++) {
		bool clean = seed % 4 == 0;
		struct rig *rig = make(seed, clean, seed % 2 ? STOP : KILL);
		size_t n = 0;

		while (segment(rig, n))
			n++;
		for (uint64_t i = sim_below(rig->sim, 12); i > 0; i--) {
			const char *name = segment(rig, (size_t)sim_below(rig->sim, n));

			if (name && sim_once_in(rig->sim, 10))
				simdisk_remove(rig->disk, name);
			else if (name)
				simdisk_corrupt(rig->disk, name,
						sim_below(rig->sim, 24 * FORMAT_SLOT_BYTES), 1);
		}
		judge(rig, clean);
		rig_destroy(rig);
	}
	finish("many places");
}
END_TEST

int main(void)
{
	Suite *s = suite_create("damage");
	TCase *tc = tcase_create("damage");

	/* Each damage is told. */
	log_open(getenv("SHOW") ? "stderr" : "/dev/null", LOG_LEVEL_INFO, NULL);
	tcase_set_timeout(tc, 120);
	tcase_add_test(tc, test_flips_clean);
	tcase_add_test(tc, test_flips_stopped);
	tcase_add_test(tc, test_flips_killed);
	tcase_add_test(tc, test_flips_cut);
	tcase_add_test(tc, test_segments);
	tcase_add_test(tc, test_newest_lost);
	tcase_add_test(tc, test_index);
	tcase_add_test(tc, test_many);
	suite_add_tcase(s, tc);
	return run_suite(s);
}
