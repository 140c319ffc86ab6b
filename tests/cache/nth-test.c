// SPDX-License-Identifier: Apache-2.0
/*
 * One scripted life of a cache in which the n-th lower call fails, for n = 1, 2, 3… until none
 * does; once, or from then on always. Whatever fails: each request ends once, what it says is true
 * after a kill, a power cut or a stop, no wrong byte is read, and once the fault is gone the far
 * side gets all of it.
 *
 * NTH=N runs one n of each loop only.
 */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "core/log.h"
#include "core/parse.h"
#include "tests/cache/rig.h"
#include "tests/lib/fail.h"
#include "tests/lib/run.h"

#define SIZE ((2u << 20) + 5 * RIG_BLK + 1536)
#define PATIENCE_NS (3 * NSEC_PER_SEC)

enum ending { STOP, KILL, POWER_CUT, ENDINGS };

struct fault {
	const char *name;
	enum { ON_DISK, ON_FAR, ON_INDEX, ON_MEMORY } where;
	unsigned mask;
	int error;
	bool always;
	bool late; /* not in the first life, but when what it left is opened, and after */
};

static void set_fault(struct rig *rig, const struct fault *f, uint64_t nth)
{
	if (f->where == ON_DISK)
		simdisk_fail(rig->disk, f->mask, nth, f->error, f->always);
	else if (f->where == ON_FAR)
		simfar_fail(rig->far, f->mask, nth, f->error, f->always);
	else if (f->where == ON_MEMORY)
		fail_nth(nth ? FAIL_MEMORY : 0, nth, ENOMEM, f->always);
	else
		simindex_fail(rig->index, nth);
}

static uint64_t hits(struct rig *rig, const struct fault *f)
{
	return f->where == ON_DISK     ? simdisk_fault_hits(rig->disk)
	       : f->where == ON_FAR    ? simfar_fault_hits(rig->far)
	       : f->where == ON_MEMORY ? fail_hits()
				       : simindex_fault_hits(rig->index);
}

/* Submit and give it some time; what waits longer goes on beside the rest. */
static void try(struct rig *rig, enum blk_op kind, uint64_t offset, uint64_t length, unsigned flags)
{
	struct rig_op *op = rig_submit(rig, kind, offset, length, flags);

	if (op)
		rig_wait(rig, op, PATIENCE_NS);
}

static void life(struct rig *rig)
{
	const uint64_t last = SIZE - 1536; /* a block that is not whole */

	for (uint64_t i = 0; i < 6; i++)
		rig_submit(rig, BLK_WRITE, i * RIG_MAX_BYTES, RIG_MAX_BYTES - i * RIG_BLK, 0);
	try(rig, BLK_FLUSH, 0, 0, 0);
	/* Parts of blocks: over the log, over what was never read, over the end. */
	try(rig, BLK_WRITE, 5 * RIG_BLK + 100, 700, 0);
	try(rig, BLK_WRITE, 1500 * 1024 + 512, 9000, 0);
	try(rig, BLK_WRITE, last + 512, 1024, 0);
	try(rig, BLK_READ, 1400 * 1024, RIG_MAX_BYTES, 0);
	try(rig, BLK_READ, 4 * RIG_BLK, RIG_MAX_BYTES, 0);
	try(rig, BLK_WRITE, 40 * RIG_BLK, RIG_BLK, BLK_FUA);
	/* Versions of one block over epochs. */
	for (unsigned i = 0; i < 3; i++) {
		try(rig, BLK_WRITE, 7 * RIG_BLK, 2 * RIG_BLK, 0);
		rig_submit(rig, BLK_FLUSH, 0, 0, 0);
	}
	try(rig, BLK_ZERO, 20 * RIG_BLK, 30 * RIG_BLK, 0);
	try(rig, BLK_DISCARD, 22 * RIG_BLK + 5, SIZE / 2, 0);
	try(rig, BLK_WRITE, 30 * RIG_BLK, 3 * RIG_BLK, 0);
	try(rig, BLK_FLUSH, 0, 0, 0);
	/* More clean data than there is room for, some of it twice. */
	for (uint64_t at = SIZE / 2; at + RIG_MAX_BYTES < SIZE; at += RIG_MAX_BYTES)
		try(rig, BLK_READ, at, RIG_MAX_BYTES, 0);
	for (uint64_t at = SIZE / 2; at + RIG_MAX_BYTES < SIZE; at += 3 * RIG_MAX_BYTES)
		try(rig, BLK_READ, at, RIG_MAX_BYTES, 0);
	/* More changes than the log may hold. */
	for (uint64_t i = 0; i < 24; i++)
		rig_submit(rig, BLK_WRITE, i * RIG_MAX_BYTES, RIG_MAX_BYTES, 0);
	try(rig, BLK_FLUSH, 0, 0, 0);
	rig_drain(rig, PATIENCE_NS);
	try(rig, BLK_WRITE, 3 * RIG_BLK, RIG_BLK, 0);
	try(rig, BLK_READ, SIZE - RIG_MAX_BYTES, RIG_MAX_BYTES, 0);
}

/* What a second process does with what a killed one left. */
static void short_life(struct rig *rig)
{
	try(rig, BLK_WRITE, 7 * RIG_BLK, 2 * RIG_BLK, 0);
	try(rig, BLK_WRITE, 33 * RIG_BLK + 1000, 5000, 0);
	try(rig, BLK_READ, 2 * RIG_BLK + 5, RIG_MAX_BYTES, 0);
	try(rig, BLK_FLUSH, 0, 0, 0);
	rig_drain(rig, PATIENCE_NS);
	try(rig, BLK_READ, 0, RIG_MAX_BYTES, 0);
}

/* Leaves dirty data of several epochs, some of it superseded, and clean data. */
static void leave_some(struct rig *rig, enum ending ending)
{
	if (rig_open(rig) < 0)
		sim_die(rig->sim, "%s", rig->err.text);
	simfar_hold(rig->far, 1u << BLK_WRITE | 1u << BLK_ZERO | 1u << BLK_DISCARD);
	rig_do(rig, BLK_READ, SIZE / 2, RIG_MAX_BYTES, 0);
	for (uint64_t i = 0; i < 6; i++) {
		rig_do(rig, BLK_WRITE, i * RIG_MAX_BYTES, RIG_MAX_BYTES, i == 4 ? BLK_FUA : 0);
		rig_do(rig, BLK_WRITE, 7 * RIG_BLK + 9 * i, 900, 0);
		if (i % 2)
			rig_do(rig, BLK_FLUSH, 0, 0, 0);
	}
	rig_do(rig, BLK_ZERO, 60 * RIG_BLK, 20 * RIG_BLK, 0);
	if (ending == KILL)
		rig_kill(rig);
	else if (ending == POWER_CUT)
		rig_power_cut(rig);
	else
		rig_stop(rig);
}

static void end_life(struct rig *rig, const struct fault *f, enum ending ending)
{
	if (ending == KILL) {
		rig_kill(rig);
	} else if (ending == POWER_CUT) {
		rig_power_cut(rig);
	} else {
		struct cache_status st;

		/* Without the fault nothing waits for ever, unless what could not be read stops
		 * write-back: then writers wait for a person. */
		set_fault(rig, f, 0);
		cache_status(rig->cache, &st);
		if (st.state != CACHE_DAMAGED)
			rig_wait_all(rig);
		rig_stop(rig);
	}
	set_fault(rig, f, 0);
}

/* True: the fault was met. */
static bool one(const struct fault *f, uint64_t nth, enum ending ending)
{
	struct rig *rig = rig_create(nth, SIZE);
	bool met;
	int r;

	if (f->late || ending != STOP)
		rig_will_be_killed(rig);
	if (f->late)
		leave_some(rig, (enum ending)(nth / ENDINGS % ENDINGS));
	rig->lenient = true;
	set_fault(rig, f, nth);
	r = rig_open(rig);
	if (r == 0) {
		cache_check(rig->cache);
		if (f->late)
			short_life(rig);
		else
			life(rig);
		cache_check(rig->cache);
		met = hits(rig, f);
		end_life(rig, f, ending);
	} else {
		met = hits(rig, f);
		ck_assert(met);
		ck_assert(rig->err.text[0]);
		set_fault(rig, f, 0);
	}
	rig->lenient = false;
	r = rig_open(rig);
	if (r < 0)
		sim_die(rig->sim, "%s %llu: reopen: %s", f->name, (unsigned long long)nth,
			rig->err.text);
	ck_assert_uint_eq(cache_damages(rig->cache, NULL, 0), 0);
	rig_settle(rig);
	if (ending == KILL) {
		/* What the start and a FUA called durable is so, whatever failed before. */
		rig_do(rig, BLK_WRITE, 3 * RIG_BLK, RIG_BLK, BLK_FUA);
		rig_power_cut(rig);
		if (rig_open(rig) < 0)
			sim_die(rig->sim, "after the power cut: %s", rig->err.text);
		rig_settle(rig);
	}
	r = rig_drain(rig, 100 * NSEC_PER_SEC);
	if (r < 0)
		sim_die(rig->sim, "%s %llu: drain: %s", f->name, (unsigned long long)nth,
			strerror(-r));
	rig_check_far(rig);
	rig_do(rig, BLK_WRITE, 9 * RIG_BLK, RIG_BLK, BLK_FUA);
	rig_stop(rig);
	rig_destroy(rig);
	return met;
}

static void loop(const char *name, int where, unsigned mask, int error)
{
	const char *only = getenv("NTH");
	uint64_t nth = 0, n, runs = 0;

	if (only && parse_u64(only, &nth) < 0)
		return;
	for (unsigned k = 0; k < 4; k++) {
		struct fault f = { name, where, mask, error, k & 1, k & 2 };

		if (f.always && where == ON_INDEX)
			continue;
		for (n = nth ? nth : 1; one(&f, n, (enum ending)((n + k) % ENDINGS)) && !nth; n++)
			runs++;
	}
	printf("%s: %llu runs\n", name, (unsigned long long)runs);
}

START_TEST(test_disk_write)
{
	loop("disk write", ON_DISK, SIMDISK_WRITE, -EIO);
}
END_TEST

START_TEST(test_disk_full)
{
	loop("disk full", ON_DISK, SIMDISK_WRITE, -ENOSPC);
}
END_TEST

START_TEST(test_disk_sync)
{
	loop("disk sync", ON_DISK, SIMDISK_SYNC, -EIO);
}
END_TEST

START_TEST(test_disk_read)
{
	loop("disk read", ON_DISK, SIMDISK_READ, -EIO);
}
END_TEST

START_TEST(test_disk_names)
{
	loop("disk open", ON_DISK, SIMDISK_OPEN, -EMFILE);
	loop("disk truncate", ON_DISK, SIMDISK_TRUNCATE, -EIO);
	loop("disk unlink, rename, list, sync of names", ON_DISK,
	     SIMDISK_UNLINK | SIMDISK_RENAME | SIMDISK_LIST | SIMDISK_SYNC_DIR | SIMDISK_FREE,
	     -EIO);
}
END_TEST

START_TEST(test_far)
{
	loop("far read", ON_FAR, 1u << BLK_READ, -EIO);
	loop("far write", ON_FAR, 1u << BLK_WRITE, -EIO);
	loop("far flush, zero, discard", ON_FAR,
	     1u << BLK_FLUSH | 1u << BLK_ZERO | 1u << BLK_DISCARD, -EIO);
}
END_TEST

START_TEST(test_index)
{
	loop("index", ON_INDEX, 0, -EIO);
}
END_TEST

/* What the cache asks for itself: its requests, buffers, tables, map. */
START_TEST(test_memory)
{
	if (fail_has_memory())
		loop("memory", ON_MEMORY, FAIL_MEMORY, -ENOMEM);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("nth");
	TCase *tc = tcase_create("nth");

	/* Each fault is told many times over. */
	log_open(getenv("NTH") ? "stderr" : "/dev/null", LOG_LEVEL_INFO, NULL);
	tcase_set_timeout(tc, 300);
	tcase_add_test(tc, test_disk_write);
	tcase_add_test(tc, test_disk_full);
	tcase_add_test(tc, test_disk_sync);
	tcase_add_test(tc, test_disk_read);
	tcase_add_test(tc, test_disk_names);
	tcase_add_test(tc, test_far);
	tcase_add_test(tc, test_index);
	tcase_add_test(tc, test_memory);
	suite_add_tcase(s, tc);
	return run_suite(s);
}
