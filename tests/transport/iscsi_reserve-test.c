// SPDX-License-Identifier: Apache-2.0
/* Two owners and one volume on tgtd, which ties a registration to its session and forgets all of it
 * when it is restarted. */
#include <check.h>
#include <errno.h>
#include <string.h>
#include <time.h>

#include "core/block.h"
#include "core/clock.h"
#include "tests/transport/iscsi_rig.h"

#define KEY_A 0xaaaaaaaa00000001ull
#define KEY_A2 0xaaaaaaaa00000002ull
#define KEY_B 0xbbbbbbbb00000001ull
#define KEY_C 0xcccccccc00000001ull

static struct leaf_found found;
static int found_times, found_answer;

static int on_found(void *ctx, const struct leaf_found *f)
{
	(void)ctx;
	found = *f;
	found_times++;
	return found_answer;
}

/* The next start() is one of the owner @key, with ISIDs of its own. */
static void be(uint64_t key)
{
	memset(&conf.owner, 0, sizeof(conf.owner));
	memset(&found, 0, sizeof(found));
	found_times = found_answer = 0;
	conf.owner.reserve = LEAF_RESERVE_AUTO;
	conf.owner.key = key;
	conf.owner.found = on_found;
	conf.isid_random[1] = (uint8_t)(key >> 56);
	conf.read_only = false;
}

static void begin(void)
{
	tgt_lun(&tgt, 1, "vol", SIZE, 0, NULL);
	be(KEY_A);
}

static void await_fenced(struct blk_dev *dev)
{
	struct timespec pause = { .tv_nsec = 2000000 };

	for (int tries = 0; tries < 10000 && !blk_fenced(dev); tries++)
		nanosleep(&pause, NULL);
	ck_assert_msg(blk_fenced(dev) != NULL, "it is not noticed that another one has it");
}

static int write_one(struct blk_dev *dev, unsigned generation)
{
	struct many m;
	int r;

	many_init(&m, BLK_WRITE, BLK_LANE_WRITEBACK, 0, MIB, 4, generation);
	many_submit(&m, dev);
	r = many_wait(&m);
	many_free(&m);
	return r;
}

static uint64_t release(struct blk_dev *dev)
{
	uint64_t mark;

	ck_assert_int_eq(blk_release(dev, &mark), 0);
	ck_assert_uint_ne(mark, 0);
	return mark;
}

START_TEST(test_one_owner)
{
	struct blk_dev *a, *b;

	begin();
	a = start();
	ck_assert_int_eq(blk_reserved(a), BLK_RESERVED_YES);
	ck_assert_int_eq(found_times, 1);
	await_up(a, 4);
	write_all(a, 0, MIB, 16, 1);
	ck_assert_int_eq(blk_flush_sync(a), 0);
	be(KEY_B);
	expect_start_fails(-EBUSY, "0xaaaaaaaa00000001");
	ck_assert_int_eq(found_times, 0);
	/* Nothing of the other one's was touched. */
	write_all(a, 0, MIB, 16, 2);
	ck_assert_int_eq(blk_flush_sync(a), 0);
	ck_assert_ptr_null(blk_fenced(a));
	release(a);
	ck_assert_int_eq(blk_reserved(a), BLK_RESERVED_NO);
	blk_destroy(a);
	b = start();
	await_up(b, 4);
	write_all(b, 0, MIB, 16, 3);
	blk_destroy(b);
}
END_TEST

/* A copy of the directory has the upper half of the key in common. */
START_TEST(test_copy_is_named)
{
	struct blk_dev *a;

	begin();
	a = start();
	be(KEY_A2);
	expect_start_fails(-EBUSY, "copy of this cache directory");
	blk_destroy(a);
}
END_TEST

/* Killed without a word: the next run knows the key. */
START_TEST(test_same_owner)
{
	struct blk_dev *dev;

	begin();
	dev = start();
	await_up(dev, 4);
	write_all(dev, 0, MIB, 4, 1);
	blk_destroy(dev);
	be(KEY_B);
	expect_start_fails(-EBUSY, "0xaaaaaaaa00000001");
	be(KEY_A2);
	conf.owner.old_key[0] = KEY_A;
	conf.owner.left = true;
	conf.fence_at_start = true;
	conf.isid_high_water = 8;
	dev = start();
	ck_assert_int_eq(found.absence, LEAF_ABSENCE_ALONE);
	ck_assert_uint_eq(found.key, KEY_A);
	await_up(dev, 4);
	write_all(dev, 0, MIB, 16, 2);
	ck_assert_int_eq(blk_flush_sync(dev), 0);
	release(dev);
	blk_destroy(dev);
	expect_file("vol", 0, 16 * MIB, 2);
}
END_TEST

START_TEST(test_takeover)
{
	struct blk_dev *a, *b;
	struct many m;

	begin();
	a = start();
	await_up(a, 4);
	write_all(a, 0, MIB, 16, 1);
	be(KEY_B);
	conf.owner.takeover = true;
	/* Writes of the loser are under way. */
	many_init(&m, BLK_WRITE, BLK_LANE_WRITEBACK, 16 * MIB, MIB, 32, 9);
	many_submit(&m, a);
	b = start();
	ck_assert_int_eq(found.absence, LEAF_ABSENCE_OTHERS);
	await_up(b, 4);
	write_all(b, 0, MIB, 48, 2);
	ck_assert_int_eq(blk_flush_sync(b), 0);
	many_wait(&m);
	many_free(&m);
	for (int i = 0; i < 20; i++) {
		int r = write_one(a, 9);

		ck_assert_int_eq(r, -ESTALE);
	}
	ck_assert_int_eq(blk_flush_sync(a), -ESTALE);
	ck_assert_ptr_nonnull(strstr(blk_fenced(a), "0xbbbbbbbb00000001"));
	ck_assert_int_eq(blk_reserved(a), BLK_RESERVED_NO);
	expect_file("vol", 0, 48 * MIB, 2);
	/* And back. */
	blk_destroy(a);
	be(KEY_C);
	conf.owner.takeover = true;
	a = start();
	await_fenced(b);
	write_all(a, 0, MIB, 4, 3);
	blk_destroy(b);
	blk_destroy(a);
}
END_TEST

/* Without traffic, too. */
START_TEST(test_idle_loser)
{
	struct blk_dev *a, *b;
	uint64_t begun;

	begin();
	a = start();
	await_up(a, 4);
	be(KEY_B);
	conf.owner.takeover = true;
	b = start();
	begun = clock_monotonic_ns();
	await_fenced(a);
	ck_assert_uint_lt(clock_monotonic_ns() - begun, 8 * NSEC_PER_SEC);
	blk_destroy(a);
	blk_destroy(b);
}
END_TEST

START_TEST(test_sessions_come_back)
{
	struct blk_dev *a;
	struct proxy *p;
	unsigned port;

	begin();
	p = proxy_start(tgt.port, &port);
	use_portal(0, "127.0.0.1", port);
	a = start();
	for (unsigned i = 0; i < 3; i++) {
		await_up(a, 4);
		proxy_cut(p);
		write_all(a, 0, MIB, 16, i + 1);
		ck_assert_int_eq(blk_flush_sync(a), 0);
	}
	ck_assert_uint_ge(reconnects(a), 4);
	ck_assert_ptr_null(blk_fenced(a));
	expect_file("vol", 0, 16 * MIB, 3);
	release(a);
	blk_destroy(a);
	proxy_stop(p);
	/* Nothing is left of all those sessions. */
	use_portal(0, "127.0.0.1", tgt.port);
	be(KEY_B);
	a = start();
	blk_destroy(a);
}
END_TEST

START_TEST(test_target_forgets)
{
	struct blk_dev *a;

	begin();
	a = start();
	for (unsigned i = 0; i < 3; i++) {
		await_up(a, 4);
		tgt_kill(&tgt);
		tgt_restart(&tgt);
		blk_kick(a);
		write_all(a, 0, MIB, 16, i + 1);
		ck_assert_int_eq(blk_flush_sync(a), 0);
	}
	await_up(a, 4);
	ck_assert_ptr_null(blk_fenced(a));
	be(KEY_B);
	expect_start_fails(-EBUSY, "0xaaaaaaaa00000001");
	blk_destroy(a);
}
END_TEST

/* While the owner is cut off and the target restarted somebody else comes first. */
START_TEST(test_target_forgets_and_another_one_has_it)
{
	struct blk_dev *a, *b;
	struct proxy *p;
	unsigned port;
	struct many m;

	begin();
	p = proxy_start(tgt.port, &port);
	use_portal(0, "127.0.0.1", port);
	a = start();
	await_up(a, 4);
	proxy_refuse(p, true);
	proxy_cut(p);
	tgt_kill(&tgt);
	tgt_restart(&tgt);
	be(KEY_B);
	use_portal(0, "127.0.0.1", tgt.port);
	b = start();
	write_all(b, 0, MIB, 4, 2);
	many_init(&m, BLK_WRITE, BLK_LANE_WRITEBACK, 0, MIB, 4, 1);
	many_submit(&m, a);
	proxy_refuse(p, false);
	blk_kick(a);
	ck_assert_int_eq(many_wait(&m), -ESTALE);
	many_free(&m);
	ck_assert_ptr_nonnull(strstr(blk_fenced(a), "0xbbbbbbbb00000001"));
	expect_file("vol", 0, 4 * MIB, 2);
	blk_destroy(a);
	blk_destroy(b);
	proxy_stop(p);
}
END_TEST

/* Somebody took it while we were cut off, wrote, and left in good order: it is not ours any more.
 */
START_TEST(test_taken_and_left)
{
	struct blk_dev *a, *b;
	struct proxy *p;
	unsigned port;
	struct many m;

	begin();
	p = proxy_start(tgt.port, &port);
	use_portal(0, "127.0.0.1", port);
	a = start();
	await_up(a, 4);
	proxy_refuse(p, true);
	proxy_cut(p);
	be(KEY_B);
	conf.owner.takeover = true;
	use_portal(0, "127.0.0.1", tgt.port);
	b = start();
	write_all(b, 0, MIB, 4, 2);
	ck_assert_int_eq(blk_flush_sync(b), 0);
	release(b);
	blk_destroy(b);
	many_init(&m, BLK_WRITE, BLK_LANE_WRITEBACK, 0, MIB, 4, 1);
	many_submit(&m, a);
	proxy_refuse(p, false);
	blk_kick(a);
	ck_assert_int_eq(many_wait(&m), -ESTALE);
	many_free(&m);
	ck_assert_ptr_nonnull(strstr(blk_fenced(a), "given it up since"));
	expect_file("vol", 0, 4 * MIB, 2);
	blk_destroy(a);
	proxy_stop(p);
	/* The same is seen by the next run. */
	be(KEY_A2);
	conf.owner.old_key[0] = KEY_A;
	conf.owner.left = true;
	found_answer = -ESTALE;
	expect_start_fails(-ESTALE, "--force-push");
	ck_assert_int_eq(found.absence, LEAF_ABSENCE_OTHERS);
	found_answer = 0;
	a = start();
	ck_assert_int_eq(blk_reserved(a), BLK_RESERVED_YES);
	blk_destroy(a);
}
END_TEST

/* What a run that gave the volume up can say about the time since. */
START_TEST(test_absence)
{
	struct blk_dev *dev;
	uint64_t mark;

	begin();
	dev = start();
	ck_assert_int_eq(found.absence, LEAF_ABSENCE_UNKNOWN);
	await_up(dev, 4);
	mark = release(dev);
	blk_destroy(dev);
	be(KEY_A2);
	conf.owner.old_key[0] = KEY_A;
	conf.owner.mark = mark;
	dev = start();
	ck_assert_int_eq(found.absence, LEAF_ABSENCE_UNKNOWN);
	await_up(dev, 4);
	mark = release(dev);
	blk_destroy(dev);
	be(KEY_B);
	dev = start();
	release(dev);
	blk_destroy(dev);
	be(KEY_A);
	conf.owner.old_key[0] = KEY_A2;
	conf.owner.mark = mark;
	dev = start();
	ck_assert_int_eq(found.absence, LEAF_ABSENCE_OTHERS);
	release(dev);
	blk_destroy(dev);
	/* A target that has forgotten everything says nothing. */
	tgt_kill(&tgt);
	tgt_restart(&tgt);
	dev = start();
	ck_assert_int_eq(found.absence, LEAF_ABSENCE_UNKNOWN);
	blk_destroy(dev);
}
END_TEST

START_TEST(test_readers)
{
	struct blk_dev *a, *b, *c;

	begin();
	conf.read_only = true;
	a = start();
	ck_assert_int_eq(blk_reserved(a), BLK_RESERVED_NO);
	be(KEY_B);
	conf.read_only = true;
	b = start();
	be(KEY_C);
	c = start();
	write_all(c, 0, MIB, 4, 1);
	read_all(a, 0, MIB, 4, 1);
	read_all(b, 0, MIB, 4, 1);
	blk_destroy(a);
	be(KEY_A);
	conf.read_only = true;
	expect_start_fails(-EBUSY, "--force");
	conf.owner.force = true;
	a = start();
	read_all(a, 0, MIB, 4, 1);
	blk_destroy(a);
	blk_destroy(b);
	blk_destroy(c);
}
END_TEST

/* Whoever does not ask for a reservation meets one all the same. */
START_TEST(test_off)
{
	struct blk_dev *a, *b;

	begin();
	a = start();
	be(KEY_B);
	conf.owner.reserve = LEAF_RESERVE_OFF;
	b = start();
	ck_assert_int_eq(blk_reserved(b), BLK_RESERVED_UNKNOWN);
	ck_assert_int_eq(write_one(b, 2), -ESTALE);
	ck_assert_ptr_nonnull(strstr(blk_fenced(b), "reserved"));
	write_all(a, 0, MIB, 4, 1);
	expect_file("vol", 0, 4 * MIB, 1);
	blk_destroy(a);
	blk_destroy(b);
}
END_TEST

/* The volume that was expected is not the one that answers: it is left alone. */
START_TEST(test_another_volume)
{
	struct blk_dev *dev;

	begin();
	strcpy(conf.owner.volume, "target=else lun=1 serial=X id=");
	dev = start();
	ck_assert_int_eq(blk_reserved(dev), BLK_RESERVED_NO);
	blk_destroy(dev);
	be(KEY_B);
	dev = start();
	blk_destroy(dev);
}
END_TEST

static const struct rig_test tests[] = {
	{ "one_owner", &test_one_owner },
	{ "copy_is_named", &test_copy_is_named },
	{ "same_owner", &test_same_owner },
	{ "takeover", &test_takeover },
	{ "idle_loser", &test_idle_loser },
	{ "sessions_come_back", &test_sessions_come_back },
	{ "target_forgets", &test_target_forgets },
	{ "target_forgets_and_another_one_has_it", &test_target_forgets_and_another_one_has_it },
	{ "taken_and_left", &test_taken_and_left },
	{ "absence", &test_absence },
	{ "readers", &test_readers },
	{ "off", &test_off },
	{ "another_volume", &test_another_volume },
};

int main(void)
{
	return rig_main("iscsi_reserve", tests, sizeof(tests) / sizeof(tests[0]));
}
