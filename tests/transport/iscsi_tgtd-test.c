// SPDX-License-Identifier: Apache-2.0
/* The iscsi device against a real target: a private tgtd on the loopback interface. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/block.h"
#include "core/cleanup.h"
#include "core/clock.h"
#include "core/log.h"
#include "tests/transport/tgt.h"
#include "transport/iscsi_discover.h"
#include "transport/iscsi_pool.h"

#define MIB (1u << 20)
#define SIZE (64ull * MIB)

static struct tgt tgt;
static struct leaf_config conf;
static unsigned slots_noted;

static int note_slots(void *ctx, unsigned slots)
{
	(void)ctx;
	slots_noted = slots;
	return 0;
}

static void use_portal(unsigned n, const char *host, unsigned port)
{
	snprintf(conf.url.portal[n].host, sizeof(conf.url.portal[n].host), "%s", host);
	conf.url.portal[n].port = (uint16_t)port;
	if (conf.url.portals <= n)
		conf.url.portals = n + 1;
}

static void setup(void)
{
	signal(SIGPIPE, SIG_IGN);
	tgt_start(&tgt);
	slots_noted = 0;
	memset(&conf, 0, sizeof(conf));
	conf.url.scheme = URL_ISCSI;
	use_portal(0, "127.0.0.1", tgt.port);
	strcpy(conf.url.target, TGT_NAME);
	conf.url.lun = 1;
	conf.sessions = 4;
	conf.connect_timeout_ns = 10 * NSEC_PER_SEC;
	strcpy(conf.initiator_name, "iqn.2026-01.io.example:me");
	memcpy(conf.isid_random, (uint8_t[]){ 1, 2, 3, 4 }, 4);
	conf.high_water = note_slots;
}

static void teardown(void)
{
	tgt_stop(&tgt);
}

/* Bytes that tell place and generation; never zero. */
static void fill(uint8_t *buf, uint64_t offset, size_t length, unsigned generation)
{
	for (size_t i = 0; i < length; i++) {
		uint64_t at = offset + i;

		buf[i] = (uint8_t)(1 +
				   (at * 7 + (at >> 9) * 31 + (at >> 20) * 57 + generation) % 255);
	}
}

static void expect(const uint8_t *buf, uint64_t offset, size_t length, unsigned generation)
{
	uint8_t *want = malloc(length);

	fill(want, offset, length, generation);
	for (size_t i = 0; i < length; i++)
		if (buf[i] != want[i])
			ck_abort_msg("byte %llu is %02x, not %02x",
				     (unsigned long long)(offset + i), buf[i], want[i]);
	free(want);
}

static void expect_zero(const uint8_t *buf, size_t length)
{
	for (size_t i = 0; i < length; i++)
		if (buf[i])
			ck_abort_msg("byte %zu is %02x, not zero", i, buf[i]);
}

static struct blk_dev *start(void)
{
	struct blk_dev *dev = NULL;
	struct err err = { .text = "" };
	int r = iscsi_pool_create(&conf, &dev, &err);

	ck_assert_msg(r == 0, "%s", err.text);
	r = blk_start(dev, &err);
	ck_assert_msg(r == 0, "start: %s (%s)", err.text, strerror(-r));
	return dev;
}

static void expect_start_fails(int error, const char *word)
{
	struct blk_dev *dev = NULL;
	struct err err = { .text = "" };
	int r = iscsi_pool_create(&conf, &dev, &err);

	ck_assert_msg(r == 0, "%s", err.text);
	r = blk_start(dev, &err);
	ck_assert_msg(r == error, "start: %d (%s) %s", r, strerror(-r), err.text);
	ck_assert_msg(strstr(err.text, word) != NULL, "no '%s' in: %s", word, err.text);
	blk_destroy(dev);
}

static void await_up(struct blk_dev *dev, unsigned count)
{
	struct timespec pause = { .tv_nsec = 2000000 };

	for (int tries = 0; tries < 10000; tries++) {
		struct blk_session s[64];
		unsigned n = blk_sessions(dev, s, 64), up = 0;

		for (unsigned i = 0; i < n; i++)
			up += !strcmp(s[i].state, "up");
		if (up >= count)
			return;
		nanosleep(&pause, NULL);
	}
	ck_abort_msg("the sessions do not come up");
}

static uint64_t reconnects(struct blk_dev *dev)
{
	struct blk_session s[64];
	unsigned n = blk_sessions(dev, s, 64);
	uint64_t sum = 0;

	for (unsigned i = 0; i < n; i++)
		sum += s[i].reconnects;
	return sum;
}

/* Many requests at once, and a way to wait for them. */
struct many {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	unsigned left;
	int worst;
	struct blk_req *reqs;
	struct iovec *iovs;
	uint8_t *buf;
	unsigned count;
	size_t length;
};

static void one_done(struct blk_req *req, void *ctx, int result)
{
	struct many *m = ctx;

	(void)req;
	pthread_mutex_lock(&m->lock);
	if (result < 0)
		m->worst = result;
	m->left--;
	pthread_cond_signal(&m->cond);
	pthread_mutex_unlock(&m->lock);
}

static void many_init(struct many *m, enum blk_op op, enum blk_lane lane, uint64_t offset,
		      size_t length, unsigned count, unsigned generation)
{
	*m = (struct many){ .left = count, .count = count, .length = length };
	pthread_mutex_init(&m->lock, NULL);
	pthread_cond_init(&m->cond, NULL);
	m->reqs = calloc(count, sizeof(*m->reqs));
	m->iovs = calloc(count, sizeof(*m->iovs));
	m->buf = calloc(count, length);
	if (op == BLK_WRITE)
		fill(m->buf, offset, count * length, generation);
	for (unsigned i = 0; i < count; i++) {
		m->iovs[i] = (struct iovec){ m->buf + i * length, length };
		blk_req_init(&m->reqs[i], op, offset + i * length, length, &m->iovs[i], 1);
		m->reqs[i].lane = lane;
	}
}

static void many_submit(struct many *m, struct blk_dev *dev)
{
	for (unsigned i = 0; i < m->count; i++)
		blk_submit(dev, &m->reqs[i], one_done, m);
}

static int many_wait(struct many *m)
{
	pthread_mutex_lock(&m->lock);
	while (m->left)
		pthread_cond_wait(&m->cond, &m->lock);
	pthread_mutex_unlock(&m->lock);
	return m->worst;
}

static void many_free(struct many *m)
{
	free(m->reqs);
	free(m->iovs);
	free(m->buf);
}

static void write_all(struct blk_dev *dev, uint64_t offset, size_t length, unsigned count,
		      unsigned generation)
{
	struct many m;

	many_init(&m, BLK_WRITE, BLK_LANE_WRITEBACK, offset, length, count, generation);
	many_submit(&m, dev);
	ck_assert_int_eq(many_wait(&m), 0);
	many_free(&m);
}

static void read_all(struct blk_dev *dev, uint64_t offset, size_t length, unsigned count,
		     unsigned generation)
{
	struct many m;

	many_init(&m, BLK_READ, BLK_LANE_DEMAND, offset, length, count, 0);
	many_submit(&m, dev);
	ck_assert_int_eq(many_wait(&m), 0);
	expect(m.buf, offset, length * count, generation);
	many_free(&m);
}

/* What the backing file holds. */
static void expect_file(const char *name, uint64_t offset, size_t length, unsigned generation)
{
	char path[200];
	uint8_t *buf = malloc(length);
	int fd;

	snprintf(path, sizeof(path), "%s/%s", tgt.dir, name);
	fd = open(path, O_RDONLY);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(pread(fd, buf, length, (off_t)offset), (ssize_t)length);
	close(fd);
	expect(buf, offset, length, generation);
	free(buf);
}

static void tune_target(void)
{
	tgt_adm(&tgt, "--mode target --op update --tid 1 --name InitialR2T --value No");
	tgt_adm(&tgt, "--mode target --op update --tid 1 --name FirstBurstLength --value 262144");
	tgt_adm(&tgt,
		"--mode target --op update --tid 1 --name MaxRecvDataSegmentLength --value 262144");
}

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
	/* It is done before the start returns: nothing moves any more. */
	generation = blk_generation(dev);
	ck_assert_uint_gt(generation, 1);
	await_up(dev, 4);
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
	ck_assert_int_eq(many_wait(&m), -EIO);
	many_free(&m);
	/* The right one comes back: so do we. */
	tgt_adm(&tgt, "%s", after);
	blk_kick(dev);
	await_up(dev, 1);
	read_all(dev, 0, MIB, 1, 1);
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

/* A case of its own for each: CK_RUN_CASE=cut_in_reads runs just that one. */
static const struct {
	const char *name;
	const TTest *const *test;
} tests[] = {
	{ "round_trip_default", &test_round_trip_default },
	{ "round_trip_tuned", &test_round_trip_tuned },
	{ "header_digest", &test_header_digest },
	{ "sector_4096", &test_sector_4096 },
	{ "large_and_odd", &test_large_and_odd },
	{ "all_sessions_used", &test_all_sessions_used },
	{ "cut_in_writes_default", &test_cut_in_writes_default },
	{ "cut_in_writes_tuned", &test_cut_in_writes_tuned },
	{ "cut_in_reads", &test_cut_in_reads },
	{ "target_restarted", &test_target_restarted },
	{ "idle_sessions_notice_restart", &test_idle_sessions_notice_restart },
	{ "advisory_and_cancel_offline", &test_advisory_and_cancel_offline },
	{ "stop_offline_is_bounded", &test_stop_offline_is_bounded },
	{ "discard", &test_discard },
	{ "zero_thick", &test_zero_thick },
	{ "chap", &test_chap },
	{ "mutual_chap", &test_mutual_chap },
	{ "wrong_things", &test_wrong_things },
	{ "start_times_out", &test_start_times_out },
	{ "ipv6", &test_ipv6 },
	{ "two_portals_one_dead", &test_two_portals_one_dead },
	{ "portal_lost", &test_portal_lost },
	{ "fence_at_start", &test_fence_at_start },
	{ "another_volume", &test_another_volume },
	{ "discover", &test_discover },
};

int main(void)
{
	Suite *suite = suite_create("iscsi_tgtd");
	SRunner *runner;
	int failed;

	tgt_root_create();
	log_open("stderr", getenv("NB_TEST_VERBOSE") ? LOG_LEVEL_DEBUG : LOG_LEVEL_ERROR, NULL);
	for (size_t i = 0; i < ARRAY_SIZE(tests); i++) {
		TCase *c = tcase_create(tests[i].name);

		tcase_set_timeout(c, 60);
		tcase_add_checked_fixture(c, setup, teardown);
		tcase_add_test(c, *tests[i].test);
		suite_add_tcase(suite, c);
	}
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	tgt_root_remove();
	return failed != 0;
}
