// SPDX-License-Identifier: Apache-2.0
/* The iscsi device against a real target, all going well, and what it says when it cannot start. */
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
#include "transport/iscsi_discover.h"

static void round_trip(void)
{
	struct blk_dev *dev = start();
	struct blk_info info;
	struct blk_stats stats;
	uint64_t generation;

	blk_info(dev, &info);
	ck_assert_uint_eq(info.size_bytes, SIZE);
	ck_assert_uint_eq(info.sector_bytes, 512);
	ck_assert_uint_ne(info.flags & BLK_INFO_VOLATILE, 0);
	ck_assert_uint_eq(info.flags & BLK_INFO_READ_ONLY, 0);
	ck_assert_ptr_nonnull(strstr(info.identity, TGT_NAME));
	ck_assert_ptr_nonnull(strstr(info.identity, "serial=SN1vol"));
	await_up(dev, 4);
	generation = blk_generation(dev);
	/* Lengths that are cut, that are not, and one that is no multiple of any command. */
	write_all(dev, 0, 4096, 100, 1);
	write_all(dev, MIB, MIB, 8, 1);
	write_all(dev, 20 * MIB + 512, 3 * MIB - 1536, 3, 1);
	ck_assert_int_eq(blk_flush_sync(dev), 0);
	ck_assert_uint_eq(blk_generation(dev), generation);
	expect_file("vol", 0, 409600, 1);
	expect_file("vol", MIB, 8 * MIB, 1);
	read_all(dev, 0, 4096, 100, 1);
	read_all(dev, MIB, MIB, 8, 1);
	read_all(dev, 20 * MIB + 512, 3 * MIB - 1536, 3, 1);
	read_all(dev, 3 * MIB, 3 * MIB, 2, 1);
	blk_stats(dev, &stats);
	ck_assert(stats.online);
	ck_assert_uint_eq(stats.write_bytes, 409600 + 8 * MIB + 9 * MIB - 3 * 1536);
	blk_destroy(dev);
}

START_TEST(test_round_trip_default)
{
	tgt_lun(&tgt, 1, "vol", SIZE, 0, NULL);
	round_trip();
}
END_TEST

START_TEST(test_round_trip_tuned)
{
	tune_target();
	tgt_lun(&tgt, 1, "vol", SIZE, 0, NULL);
	round_trip();
}
END_TEST

START_TEST(test_header_digest)
{
	tgt_adm(&tgt, "--mode target --op update --tid 1 --name HeaderDigest --value CRC32C");
	tgt_lun(&tgt, 1, "vol", SIZE, 0, NULL);
	conf.header_digest = true;
	round_trip();
}
END_TEST

START_TEST(test_sector_4096)
{
	struct blk_dev *dev;
	struct blk_info info;
	uint8_t buf[4096];

	tgt_lun(&tgt, 1, "vol", SIZE, 4096, NULL);
	dev = start();
	blk_info(dev, &info);
	ck_assert_uint_eq(info.sector_bytes, 4096);
	write_all(dev, 4096, MIB, 4, 3);
	ck_assert_int_eq(blk_flush_sync(dev), 0);
	read_all(dev, 4096, MIB, 4, 3);
	expect_file("vol", 4096, 4 * MIB, 3);
	ck_assert_int_eq(blk_read_sync(dev, buf, 512, 512), -EINVAL);
	blk_destroy(dev);
}
END_TEST

START_TEST(test_large_and_odd)
{
	/* 3 TiB and 3 sectors: beyond 32-bit block addresses and no multiple of 4 KiB. */
	uint64_t size = (3ull << 40) + 3 * 512;
	uint8_t buf[1536];
	struct blk_dev *dev;
	struct blk_info info;

	tgt_lun(&tgt, 1, "vol", size, 0, NULL);
	dev = start();
	blk_info(dev, &info);
	ck_assert_uint_eq(info.size_bytes, size);
	fill(buf, size - 1536, 1536, 9);
	ck_assert_int_eq(blk_write_sync(dev, buf, size - 1536, 1536, BLK_FUA), 0);
	memset(buf, 0, sizeof(buf));
	ck_assert_int_eq(blk_read_sync(dev, buf, size - 1536, 1536), 0);
	expect(buf, size - 1536, 1536, 9);
	ck_assert_int_eq(blk_read_sync(dev, buf, size - 1024, 1536), -EINVAL);
	ck_assert_int_eq(blk_write_sync(dev, buf, size - 1024, 1536, 0), -ENOSPC);
	expect_file("vol", size - 1536, 1536, 9);
	blk_destroy(dev);
}
END_TEST

START_TEST(test_all_sessions_used)
{
	unsigned port;
	struct proxy *p;
	struct blk_dev *dev;

	tgt_lun(&tgt, 1, "vol", SIZE, 0, NULL);
	p = proxy_start(tgt.port, &port);
	use_portal(0, "127.0.0.1", port);
	conf.sessions = 6;
	dev = start();
	await_up(dev, 6);
	write_all(dev, 0, 256 << 10, 64, 5);
	ck_assert_uint_eq(proxy_used(p, MIB / 2), 6);
	ck_assert_uint_ge(slots_noted, 6);
	blk_destroy(dev);
	proxy_stop(p);
}
END_TEST

/* A backlog of reads that does not end does not keep write-back from its turn. */
START_TEST(test_reads_leave_room)
{
	struct blk_dev *dev;
	struct many reads, flush;
	unsigned left;

	tgt_lun(&tgt, 1, "vol", SIZE, 0, NULL);
	dev = start();
	await_up(dev, 4);
	many_init(&reads, BLK_READ, BLK_LANE_DEMAND, 0, 8192, 8000, 0);
	many_submit(&reads, dev);
	write_all(dev, SIZE - MIB, 65536, 8, 1);
	many_init(&flush, BLK_FLUSH, BLK_LANE_WRITEBACK, 0, 0, 1, 0);
	many_submit(&flush, dev);
	ck_assert_int_eq(many_wait(&flush), 0);
	many_free(&flush);
	pthread_mutex_lock(&reads.lock);
	left = reads.left;
	pthread_mutex_unlock(&reads.lock);
	/* More than can be in flight: some had not even been sent. */
	ck_assert_uint_gt(left, 4 * 64);
	ck_assert_int_eq(many_wait(&reads), 0);
	many_free(&reads);
	blk_destroy(dev);
}
END_TEST

START_TEST(test_discard)
{
	struct blk_dev *dev;
	struct blk_info info;
	struct stat before, after;
	char path[200];
	uint8_t *buf = malloc(8 * MIB);

	tgt_lun(&tgt, 1, "vol", SIZE, 0, "thin_provisioning=1");
	dev = start();
	blk_info(dev, &info);
	ck_assert_uint_ne(info.flags & BLK_INFO_CAN_DISCARD, 0);
	ck_assert_uint_ne(info.discard_align_bytes, 0);
	write_all(dev, 0, MIB, 8, 1);
	snprintf(path, sizeof(path), "%s/vol", tgt.dir);
	ck_assert_int_eq(stat(path, &before), 0);
	ck_assert_int_eq(blk_discard_sync(dev, MIB, 4 * MIB), 0);
	ck_assert_int_eq(blk_zero_sync(dev, 6 * MIB + 512, 1024), 0);
	ck_assert_int_eq(blk_flush_sync(dev), 0);
	ck_assert_int_eq(stat(path, &after), 0);
	ck_assert_int_lt(after.st_blocks, before.st_blocks);
	ck_assert_int_eq(blk_read_sync(dev, buf, 0, 8 * MIB), 0);
	expect(buf, 0, MIB, 1);
	expect_zero(buf + MIB, 4 * MIB);
	expect_zero(buf + 6 * MIB + 512, 1024);
	expect(buf + 6 * MIB, 6 * MIB, 512, 1);
	expect(buf + 6 * MIB + 1536, 6 * MIB + 1536, MIB, 1);
	blk_destroy(dev);
	free(buf);
}
END_TEST

START_TEST(test_zero_thick)
{
	struct blk_dev *dev;
	uint8_t *buf = malloc(4 * MIB);

	tgt_lun(&tgt, 1, "vol", SIZE, 0, NULL);
	dev = start();
	write_all(dev, 0, MIB, 4, 1);
	ck_assert_int_eq(blk_discard_sync(dev, 0, MIB), -EOPNOTSUPP);
	ck_assert_int_eq(blk_zero_sync(dev, 512, 3 * MIB), 0);
	ck_assert_int_eq(blk_read_sync(dev, buf, 0, 4 * MIB), 0);
	expect(buf, 0, 512, 1);
	expect_zero(buf + 512, 3 * MIB);
	expect(buf + 3 * MIB + 512, 3 * MIB + 512, MIB - 512, 1);
	blk_destroy(dev);
	free(buf);
}
END_TEST

static void add_chap(void)
{
	tgt_adm(&tgt, "--mode account --op new --user alice --password wonderland123");
	tgt_adm(&tgt, "--mode account --op bind --tid 1 --user alice");
}

START_TEST(test_chap)
{
	tgt_lun(&tgt, 1, "vol", SIZE, 0, NULL);
	add_chap();
	expect_start_fails(-EACCES, "wants CHAP");
	strcpy(conf.credentials.username, "alice");
	strcpy(conf.credentials.password, "wrong-password");
	expect_start_fails(-EACCES, "password");
	strcpy(conf.credentials.password, "wonderland123");
	blk_destroy(start());
	/* The name may come with the URL. */
	conf.credentials.username[0] = '\0';
	strcpy(conf.url.user, "alice");
	blk_destroy(start());
}
END_TEST

START_TEST(test_mutual_chap)
{
	tgt_lun(&tgt, 1, "vol", SIZE, 0, NULL);
	add_chap();
	tgt_adm(&tgt, "--mode account --op new --user hatter --password teatime456789");
	tgt_adm(&tgt, "--mode account --op bind --tid 1 --user hatter --outgoing");
	strcpy(conf.credentials.username, "alice");
	strcpy(conf.credentials.password, "wonderland123");
	strcpy(conf.credentials.username_in, "hatter");
	strcpy(conf.credentials.password_in, "wrong-password");
	expect_start_fails(-EACCES, "authenticate itself");
	strcpy(conf.credentials.password_in, "teatime456789");
	blk_destroy(start());
}
END_TEST

START_TEST(test_wrong_things)
{
	unsigned closed;

	tgt_lun(&tgt, 1, "vol", SIZE, 0, NULL);
	tgt_lun(&tgt, 7, "ro", SIZE, 0, "readonly=1");
	conf.url.lun = 5;
	expect_start_fails(-ENODEV, "it has: 0, 1, 7");
	conf.url.lun = 0; /* tgt's controller */
	expect_start_fails(-ENOTSUP, "no disk");
	conf.url.lun = 7;
	expect_start_fails(-EROFS, "--read-only");
	conf.read_only = true;
	blk_destroy(start());
	conf.read_only = false;
	conf.url.lun = 1;
	strcpy(conf.url.target, "iqn.2026-01.io.example:nothing");
	expect_start_fails(-ENOENT, "iqn.2026-01.io.example:nothing does not exist");
	strcpy(conf.url.target, TGT_NAME);
	use_portal(0, "no-such-host.invalid", 3260);
	expect_start_fails(-EADDRNOTAVAIL, "cannot resolve host name 'no-such-host.invalid'");
	closed = tgt.port;
	tgt_kill(&tgt);
	use_portal(0, "127.0.0.1", closed);
	expect_start_fails(-ECONNREFUSED, "refused the connection");
}
END_TEST

START_TEST(test_start_times_out)
{
	uint64_t begin = clock_monotonic_ns();

	tgt_lun(&tgt, 1, "vol", SIZE, 0, NULL);
	kill(tgt.pid, SIGSTOP);
	conf.connect_timeout_ns = NSEC_PER_SEC;
	expect_start_fails(-ETIMEDOUT, "--connect-timeout");
	ck_assert_uint_lt(clock_monotonic_ns() - begin, 4 * NSEC_PER_SEC);
	kill(tgt.pid, SIGCONT);
}
END_TEST

START_TEST(test_ipv6)
{
	struct blk_session s;
	struct blk_dev *dev;
	char want[64];

	tgt_lun(&tgt, 1, "vol", SIZE, 0, NULL);
	use_portal(0, "::1", tgt.port);
	conf.sessions = 1;
	dev = start();
	write_all(dev, 0, MIB, 2, 1);
	read_all(dev, 0, MIB, 2, 1);
	ck_assert_uint_eq(blk_sessions(dev, &s, 1), 1);
	snprintf(want, sizeof(want), "[::1]:%u", tgt.port);
	ck_assert_str_eq(s.portal, want);
	ck_assert_str_eq(s.state, "up");
	ck_assert_uint_gt(s.rtt_ns, 0);
	blk_destroy(dev);
}
END_TEST

START_TEST(test_two_portals_one_dead)
{
	struct blk_dev *dev;
	unsigned dead;
	struct proxy *p = proxy_start(1, &dead);

	proxy_stop(p);
	tgt_lun(&tgt, 1, "vol", SIZE, 0, NULL);
	use_portal(0, "127.0.0.1", dead);
	use_portal(1, "127.0.0.1", tgt.port);
	dev = start();
	await_up(dev, 4);
	write_all(dev, 0, MIB, 2, 1);
	read_all(dev, 0, MIB, 2, 1);
	blk_destroy(dev);
}
END_TEST

struct list {
	unsigned count;
	uint64_t bytes;
	char text[512];
};

static void on_found(void *ctx, const struct iscsi_found *f)
{
	struct list *l = ctx;
	size_t used = strlen(l->text);

	l->count++;
	l->bytes += f->size_bytes;
	snprintf(l->text + used, sizeof(l->text) - used, "%s/%d %s %u %s;", f->target, f->lun,
		 f->portal_count ? f->portals[0] : "", f->sector_bytes, f->error ? f->error : "");
}

START_TEST(test_discover)
{
	struct err err = { .text = "" };
	struct list l = { .count = 0 };

	tgt_lun(&tgt, 1, "a", SIZE, 0, NULL);
	tgt_lun(&tgt, 2, "b", 2 * SIZE, 4096, NULL);
	ck_assert_int_eq(iscsi_discover(&conf, on_found, &l, &err), 0);
	ck_assert_msg(l.count == 3, "%s", l.text); /* tgt's controller too */
	ck_assert_uint_eq(l.bytes, 3 * SIZE);
	ck_assert_ptr_nonnull(strstr(l.text, TGT_NAME "/2 127.0.0.1:"));
	ck_assert_ptr_nonnull(strstr(l.text, "no disk"));
	tgt_kill(&tgt);
	ck_assert_int_eq(iscsi_discover(&conf, on_found, &l, &err), -ECONNREFUSED);
}
END_TEST

static const struct rig_test tests[] = {
	{ "round_trip_default", &test_round_trip_default },
	{ "round_trip_tuned", &test_round_trip_tuned },
	{ "header_digest", &test_header_digest },
	{ "sector_4096", &test_sector_4096 },
	{ "large_and_odd", &test_large_and_odd },
	{ "all_sessions_used", &test_all_sessions_used },
	{ "reads_leave_room", &test_reads_leave_room },
	{ "discard", &test_discard },
	{ "zero_thick", &test_zero_thick },
	{ "chap", &test_chap },
	{ "mutual_chap", &test_mutual_chap },
	{ "wrong_things", &test_wrong_things },
	{ "start_times_out", &test_start_times_out },
	{ "ipv6", &test_ipv6 },
	{ "two_portals_one_dead", &test_two_portals_one_dead },
	{ "discover", &test_discover },
};

int main(void)
{
	return rig_main("iscsi_tgtd", tests, sizeof(tests) / sizeof(tests[0]));
}
