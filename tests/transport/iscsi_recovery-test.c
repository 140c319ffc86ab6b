// SPDX-License-Identifier: Apache-2.0
/* The iscsi device when connections, targets and volumes come and go. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/block.h"
#include "core/clock.h"
#include "tests/transport/iscsi_rig.h"

static void cut_in_writes(void)
{
	struct blk_dev *dev;
	uint64_t generation;
	struct proxy *p;
	struct many m;
	unsigned port;

	tgt_lun(&tgt, 1, "vol", SIZE, 0, NULL);
	p = proxy_start(tgt.port, &port);
	use_portal(0, "127.0.0.1", port);
	dev = start();
	await_up(dev, 4);
	write_all(dev, 0, MIB, 16, 1);
	ck_assert_int_eq(blk_flush_sync(dev), 0);
	generation = blk_generation(dev);

	many_init(&m, BLK_WRITE, BLK_LANE_WRITEBACK, 0, MIB, 32, 2);
	proxy_cut_after(p, 3 * MIB + 12345);
	many_submit(&m, dev);
	ck_assert_int_eq(many_wait(&m), 0);
	many_free(&m);
	ck_assert_uint_ge(reconnects(dev), 4);
	ck_assert_uint_gt(blk_generation(dev), generation);
	generation = blk_generation(dev);
	proxy_cut_after(p, 0);

	/* Writes of lost sessions may be about: the flush resets the LUN and says so. */
	ck_assert_int_eq(blk_flush_sync(dev), 0);
	ck_assert_uint_gt(blk_generation(dev), generation);
	read_all(dev, 0, MIB, 32, 2);
	await_up(dev, 4);
	generation = blk_generation(dev);
	write_all(dev, 0, MIB, 32, 2);
	ck_assert_int_eq(blk_flush_sync(dev), 0);
	ck_assert_uint_eq(blk_generation(dev), generation);
	read_all(dev, 0, MIB, 32, 2);
	expect_file("vol", 0, 32 * MIB, 2);
	blk_destroy(dev);
	proxy_stop(p);
}

START_TEST(test_cut_in_writes_default)
{
	cut_in_writes();
}
END_TEST

START_TEST(test_cut_in_writes_tuned)
{
	tune_target();
	cut_in_writes();
}
END_TEST

START_TEST(test_cut_in_reads)
{
	struct blk_dev *dev;
	struct proxy *p;
	unsigned port;
	struct many m;

	tgt_lun(&tgt, 1, "vol", SIZE, 0, NULL);
	p = proxy_start(tgt.port, &port);
	use_portal(0, "127.0.0.1", port);
	dev = start();
	await_up(dev, 4);
	write_all(dev, 0, MIB, 48, 4);
	many_init(&m, BLK_READ, BLK_LANE_DEMAND, 0, MIB, 48, 0);
	many_submit(&m, dev);
	proxy_cut(p);
	ck_assert_int_eq(many_wait(&m), 0);
	expect(m.buf, 0, 48 * MIB, 4);
	many_free(&m);
	blk_destroy(dev);
	proxy_stop(p);
}
END_TEST

START_TEST(test_target_restarted)
{
	struct blk_dev *dev;
	uint64_t generation;
	struct many m;

	tgt_lun(&tgt, 1, "vol", SIZE, 0, NULL);
	dev = start();
	await_up(dev, 4);
	write_all(dev, 0, MIB, 8, 1);
	generation = blk_generation(dev);
	many_init(&m, BLK_WRITE, BLK_LANE_WRITEBACK, 0, MIB, 32, 7);
	many_submit(&m, dev);
	tgt_kill(&tgt);
	tgt_restart(&tgt);
	blk_kick(dev);
	ck_assert_int_eq(many_wait(&m), 0);
	many_free(&m);
	ck_assert_int_eq(blk_flush_sync(dev), 0);
	ck_assert_uint_gt(blk_generation(dev), generation);
	await_up(dev, 4);
	ck_assert_uint_ge(reconnects(dev), 4);
	read_all(dev, 0, MIB, 32, 7);
	expect_file("vol", 0, 32 * MIB, 7);
	blk_destroy(dev);
}
END_TEST

START_TEST(test_idle_sessions_notice_restart)
{
	struct blk_dev *dev;
	uint64_t generation;

	tgt_lun(&tgt, 1, "vol", SIZE, 0, NULL);
	dev = start();
	await_up(dev, 4);
	write_all(dev, 0, 4096, 1, 1);
	generation = blk_generation(dev);
	tgt_kill(&tgt);
	tgt_restart(&tgt);
	/* A flush after the restart cannot vouch for the write before it. */
	ck_assert_int_eq(blk_flush_sync(dev), 0);
	ck_assert_uint_gt(blk_generation(dev), generation);
	blk_destroy(dev);
}
END_TEST

START_TEST(test_advisory_and_cancel_offline)
{
	struct many advisory, demand;
	struct blk_dev *dev;

	tgt_lun(&tgt, 1, "vol", SIZE, 0, NULL);
	conf.sessions = 1;
	dev = start();
	write_all(dev, 0, MIB, 4, 1);
	tgt_kill(&tgt);
	many_init(&demand, BLK_READ, BLK_LANE_DEMAND, 0, 4096, 2, 0);
	many_submit(&demand, dev);
	many_init(&advisory, BLK_READ, BLK_LANE_READAHEAD, 0, MIB, 4, 0);
	for (unsigned i = 0; i < 4; i++)
		advisory.reqs[i].flags = BLK_ADVISORY;
	many_submit(&advisory, dev);
	ck_assert_int_eq(many_wait(&advisory), -ECANCELED);
	/* The demand reads wait; one is called back, the other gets its answer. */
	blk_cancel(dev, &demand.reqs[0]);
	pthread_mutex_lock(&demand.lock);
	while (demand.left > 1)
		pthread_cond_wait(&demand.cond, &demand.lock);
	ck_assert_int_eq(demand.worst, -EINTR);
	demand.worst = 0;
	pthread_mutex_unlock(&demand.lock);
	tgt_restart(&tgt);
	blk_kick(dev);
	ck_assert_int_eq(many_wait(&demand), 0);
	expect(demand.buf + 4096, 4096, 4096, 1);
	many_free(&demand);
	many_free(&advisory);
	blk_destroy(dev);
}
END_TEST

START_TEST(test_stop_offline_is_bounded)
{
	struct blk_dev *dev;
	struct many m;
	uint64_t begin;

	tgt_lun(&tgt, 1, "vol", SIZE, 0, NULL);
	dev = start();
	await_up(dev, 4);
	/* A target that is there but does not answer. */
	kill(tgt.pid, SIGSTOP);
	many_init(&m, BLK_WRITE, BLK_LANE_WRITEBACK, 0, MIB, 8, 1);
	many_submit(&m, dev);
	begin = clock_monotonic_ns();
	blk_stop(dev);
	ck_assert_int_eq(many_wait(&m), -ESHUTDOWN);
	ck_assert_uint_lt(clock_monotonic_ns() - begin, 3 * NSEC_PER_SEC);
	many_free(&m);
	kill(tgt.pid, SIGCONT);
	blk_destroy(dev);
}
END_TEST

START_TEST(test_portal_lost)
{
	struct blk_dev *dev;
	struct proxy *p;
	struct many m;
	unsigned port;

	tgt_lun(&tgt, 1, "vol", SIZE, 0, NULL);
	p = proxy_start(tgt.port, &port);
	use_portal(0, "127.0.0.1", port);
	use_portal(1, "127.0.0.1", tgt.port);
	dev = start();
	await_up(dev, 4);
	many_init(&m, BLK_WRITE, BLK_LANE_WRITEBACK, 0, MIB, 32, 3);
	proxy_refuse(p, true);
	proxy_cut_after(p, MIB);
	many_submit(&m, dev);
	ck_assert_int_eq(many_wait(&m), 0);
	ck_assert_int_eq(blk_flush_sync(dev), 0);
	many_free(&m);
	read_all(dev, 0, MIB, 32, 3);
	blk_destroy(dev);
	proxy_stop(p);
}
END_TEST

START_TEST(test_fence_at_start)
{
	struct blk_dev *dev;
	uint64_t generation;

	tgt_lun(&tgt, 1, "vol", SIZE, 0, NULL);
	conf.fence_at_start = true;
	conf.isid_high_water = 7;
	dev = start();
	ck_assert_uint_eq(slots_noted, 0);
	await_up(dev, 4);
	/* The fence was done before the start returned: a flush needs no other. */
	generation = blk_generation(dev);
	ck_assert_uint_gt(generation, 1);
	write_all(dev, 0, MIB, 4, 1);
	ck_assert_int_eq(blk_flush_sync(dev), 0);
	ck_assert_uint_eq(blk_generation(dev), generation);
	blk_destroy(dev);
}
END_TEST

START_TEST(test_another_volume)
{
	char before[200], after[200];
	struct blk_dev *dev;
	struct many m;

	tgt_lun(&tgt, 1, "vol", SIZE, 0, NULL);
	conf.sessions = 1;
	dev = start();
	write_all(dev, 0, MIB, 1, 1);
	tgt_kill(&tgt);
	/* The same name and size, another serial. */
	snprintf(before, sizeof(before),
		 "--mode logicalunit --op update --tid 1 --lun 1 --params scsi_sn=OTHER");
	for (unsigned i = 0; i < tgt.setups; i++) {
		if (!strstr(tgt.setup[i], "scsi_sn"))
			continue;
		snprintf(after, sizeof(after), "%s", tgt.setup[i]);
		free(tgt.setup[i]);
		tgt.setup[i] = strdup(before);
	}
	tgt_restart(&tgt);
	many_init(&m, BLK_READ, BLK_LANE_DEMAND, 0, MIB, 1, 0);
	many_submit(&m, dev);
	ck_assert_int_eq(many_wait(&m), -ESTALE);
	many_free(&m);
	ck_assert(strstr(blk_fenced(dev), "another volume answers"));
	ck_assert_int_eq(blk_flush_sync(dev), -ESTALE);
	/* The right one comes back: that is for the next start. */
	tgt_adm(&tgt, "%s", after);
	blk_kick(dev);
	many_init(&m, BLK_WRITE, BLK_LANE_WRITEBACK, 0, MIB, 1, 2);
	many_submit(&m, dev);
	ck_assert_int_eq(many_wait(&m), -ESTALE);
	many_free(&m);
	expect_file("vol", 0, MIB, 1);
	blk_destroy(dev);
	dev = start();
	read_all(dev, 0, MIB, 1, 1);
	blk_destroy(dev);
}
END_TEST

/* The file behind the volume gets another size while the target is away. */
static void resize_away(uint64_t bytes)
{
	char path[200];

	snprintf(path, sizeof(path), "%s/vol", tgt.dir);
	tgt_kill(&tgt);
	ck_assert_int_eq(truncate(path, (off_t)bytes), 0);
	tgt_restart(&tgt);
}

START_TEST(test_growth_and_shrinking)
{
	struct blk_dev *dev;
	struct blk_info info;
	struct many m;

	tgt_lun(&tgt, 1, "vol", SIZE, 0, NULL);
	conf.sessions = 1;
	dev = start();
	write_all(dev, 0, MIB, 2, 1);
	resize_away(2 * SIZE);
	read_all(dev, 0, MIB, 2, 1);
	blk_info(dev, &info);
	ck_assert_uint_eq(info.size_bytes, 2 * SIZE);
	write_all(dev, SIZE, MIB, 2, 1);
	resize_away(SIZE);
	many_init(&m, BLK_READ, BLK_LANE_DEMAND, 0, MIB, 1, 0);
	many_submit(&m, dev);
	ck_assert_int_eq(many_wait(&m), -ESTALE);
	many_free(&m);
	ck_assert(strstr(blk_fenced(dev), "shrank"));
	blk_destroy(dev);
}
END_TEST

/* What a cache directory would know of the volume. */
static void remember(struct blk_dev *dev)
{
	struct blk_info info;

	blk_info(dev, &info);
	conf.known.size_bytes = info.size_bytes;
	conf.known.sector_bytes = info.sector_bytes;
	memcpy(conf.known.identity, info.identity, sizeof(conf.known.identity));
}

START_TEST(test_offline_start)
{
	struct err why = { .text = "" };
	struct blk_stats stats;
	struct blk_info info;
	struct blk_dev *dev;
	struct many m;

	tgt_lun(&tgt, 1, "vol", SIZE, 0, NULL);
	dev = start();
	write_all(dev, 0, MIB, 4, 1);
	remember(dev);
	blk_destroy(dev);
	tgt_kill(&tgt);
	conf.offline_why = &why;
	dev = start();
	ck_assert(strstr(why.text, "refused"));
	blk_stats(dev, &stats);
	ck_assert(!stats.online);
	blk_info(dev, &info);
	ck_assert_uint_eq(info.size_bytes, SIZE);
	ck_assert(!(info.flags & BLK_INFO_CAN_DISCARD) && (info.flags & BLK_INFO_VOLATILE));
	many_init(&m, BLK_READ, BLK_LANE_DEMAND, 0, MIB, 4, 0);
	many_submit(&m, dev);
	tgt_restart(&tgt);
	blk_kick(dev);
	ck_assert_int_eq(many_wait(&m), 0);
	expect(m.buf, 0, 4 * MIB, 1);
	many_free(&m);
	await_up(dev, 4);
	write_all(dev, 0, MIB, 4, 2);
	ck_assert_int_eq(blk_flush_sync(dev), 0);
	blk_destroy(dev);
	/* Another one than was known: nothing of it is read, nothing is sent. */
	tgt_kill(&tgt);
	conf.known.identity[0]++;
	dev = start();
	tgt_restart(&tgt);
	many_init(&m, BLK_WRITE, BLK_LANE_WRITEBACK, 0, MIB, 4, 3);
	many_submit(&m, dev);
	ck_assert_int_eq(many_wait(&m), -ESTALE);
	many_free(&m);
	ck_assert(blk_fenced(dev));
	expect_file("vol", 0, 4 * MIB, 2);
	blk_destroy(dev);
	/* Who answers and says no is not away. */
	conf.known.identity[0]--;
	conf.url.lun = 9;
	expect_start_fails(-ENODEV, "no LUN 9");
}
END_TEST

/* Reads end when nobody was there for so long; what is sent goes on waiting. */
START_TEST(test_reads_fail)
{
	struct many reads, writes, samples;
	struct blk_dev *dev;
	uint64_t begin;

	tgt_lun(&tgt, 1, "vol", SIZE, 0, NULL);
	conf.sessions = 1;
	conf.reads_fail = true;
	conf.reads_fail_ns = NSEC_PER_SEC;
	dev = start();
	write_all(dev, 0, MIB, 4, 1);
	tgt_kill(&tgt);
	begin = clock_monotonic_ns();
	many_init(&reads, BLK_READ, BLK_LANE_DEMAND, 0, MIB, 4, 0);
	many_init(&writes, BLK_WRITE, BLK_LANE_WRITEBACK, 4 * MIB, MIB, 4, 1);
	many_init(&samples, BLK_READ, BLK_LANE_WRITEBACK, 0, 4096, 1, 0);
	many_submit(&reads, dev);
	many_submit(&writes, dev);
	many_submit(&samples, dev);
	ck_assert_int_eq(many_wait(&reads), -EIO);
	ck_assert_uint_ge(clock_monotonic_ns() - begin, NSEC_PER_SEC / 2);
	many_free(&reads);
	/* By now without waiting. */
	begin = clock_monotonic_ns();
	many_init(&reads, BLK_READ, BLK_LANE_DEMAND, 0, MIB, 1, 0);
	many_submit(&reads, dev);
	ck_assert_int_eq(many_wait(&reads), -EIO);
	ck_assert_uint_lt(clock_monotonic_ns() - begin, NSEC_PER_SEC / 2);
	many_free(&reads);
	tgt_restart(&tgt);
	blk_kick(dev);
	ck_assert_int_eq(many_wait(&writes), 0);
	ck_assert_int_eq(many_wait(&samples), 0);
	many_free(&writes);
	many_free(&samples);
	read_all(dev, 0, MIB, 8, 1);
	blk_destroy(dev);
}
END_TEST

/* After some time in vain a session pauses for seconds: a kick ends the pause. */
START_TEST(test_kick)
{
	struct blk_dev *dev;
	struct proxy *p;
	uint64_t begin;
	unsigned port;

	tgt_lun(&tgt, 1, "vol", SIZE, 0, NULL);
	p = proxy_start(tgt.port, &port);
	use_portal(0, "127.0.0.1", port);
	conf.sessions = 1;
	dev = start();
	proxy_refuse(p, true);
	proxy_cut(p);
	/* The pauses are 0.1 s, then twice as long each time, up to 4 s. */
	usleep(7000000);
	proxy_refuse(p, false);
	begin = clock_monotonic_ns();
	blk_kick(dev);
	await_up(dev, 1);
	ck_assert_uint_lt(clock_monotonic_ns() - begin, NSEC_PER_SEC / 2);
	blk_destroy(dev);
	proxy_stop(p);
}
END_TEST

static const struct rig_test tests[] = {
	{ "cut_in_writes_default", &test_cut_in_writes_default },
	{ "cut_in_writes_tuned", &test_cut_in_writes_tuned },
	{ "cut_in_reads", &test_cut_in_reads },
	{ "target_restarted", &test_target_restarted },
	{ "idle_sessions_notice_restart", &test_idle_sessions_notice_restart },
	{ "advisory_and_cancel_offline", &test_advisory_and_cancel_offline },
	{ "stop_offline_is_bounded", &test_stop_offline_is_bounded },
	{ "portal_lost", &test_portal_lost },
	{ "fence_at_start", &test_fence_at_start },
	{ "growth_and_shrinking", &test_growth_and_shrinking },
	{ "another_volume", &test_another_volume },
	{ "offline_start", &test_offline_start },
	{ "reads_fail", &test_reads_fail },
	{ "kick", &test_kick },
};

int main(void)
{
	return rig_main("iscsi_recovery", tests, sizeof(tests) / sizeof(tests[0]));
}
