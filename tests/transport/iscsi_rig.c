// SPDX-License-Identifier: Apache-2.0
#include "tests/transport/iscsi_rig.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/log.h"
#include "tests/lib/run.h"

struct tgt tgt;
struct leaf_config conf;
unsigned slots_noted;

static int note_slots(void *ctx, unsigned slots)
{
	(void)ctx;
	slots_noted = slots;
	return 0;
}

void use_portal(unsigned n, const char *host, unsigned port)
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
void fill(uint8_t *buf, uint64_t offset, size_t length, unsigned generation)
{
	for (size_t i = 0; i < length; i++) {
		uint64_t at = offset + i;

		buf[i] = (uint8_t)(1 +
				   (at * 7 + (at >> 9) * 31 + (at >> 20) * 57 + generation) % 255);
	}
}

void expect(const uint8_t *buf, uint64_t offset, size_t length, unsigned generation)
{
	uint8_t *want = malloc(length);

	fill(want, offset, length, generation);
	for (size_t i = 0; i < length; i++)
		if (buf[i] != want[i])
			ck_abort_msg("byte %llu is %02x, not %02x",
				     (unsigned long long)(offset + i), buf[i], want[i]);
	free(want);
}

void expect_zero(const uint8_t *buf, size_t length)
{
	for (size_t i = 0; i < length; i++)
		if (buf[i])
			ck_abort_msg("byte %zu is %02x, not zero", i, buf[i]);
}

struct blk_dev *start(void)
{
	struct blk_dev *dev = NULL;
	struct err err = { .text = "" };
	int r = leaf_create(&conf, &dev, &err);

	ck_assert_msg(r == 0, "%s", err.text);
	r = blk_start(dev, &err);
	ck_assert_msg(r == 0, "start: %s (%s)", err.text, strerror(-r));
	return dev;
}

void expect_start_fails(int error, const char *word)
{
	struct blk_dev *dev = NULL;
	struct err err = { .text = "" };
	int r = leaf_create(&conf, &dev, &err);

	ck_assert_msg(r == 0, "%s", err.text);
	r = blk_start(dev, &err);
	ck_assert_msg(r == error, "start: %d (%s) %s", r, strerror(-r), err.text);
	ck_assert_msg(strstr(err.text, word) != NULL, "no '%s' in: %s", word, err.text);
	blk_destroy(dev);
}

void await_up(struct blk_dev *dev, unsigned count)
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

uint64_t reconnects(struct blk_dev *dev)
{
	struct blk_session s[64];
	unsigned n = blk_sessions(dev, s, 64);
	uint64_t sum = 0;

	for (unsigned i = 0; i < n; i++)
		sum += s[i].reconnects;
	return sum;
}

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

void many_init(struct many *m, enum blk_op op, enum blk_lane lane, uint64_t offset, size_t length,
	       unsigned count, unsigned generation)
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

void many_submit(struct many *m, struct blk_dev *dev)
{
	for (unsigned i = 0; i < m->count; i++)
		blk_submit(dev, &m->reqs[i], one_done, m);
}

int many_wait(struct many *m)
{
	pthread_mutex_lock(&m->lock);
	while (m->left)
		pthread_cond_wait(&m->cond, &m->lock);
	pthread_mutex_unlock(&m->lock);
	return m->worst;
}

void many_free(struct many *m)
{
	free(m->reqs);
	free(m->iovs);
	free(m->buf);
}

void write_all(struct blk_dev *dev, uint64_t offset, size_t length, unsigned count,
	       unsigned generation)
{
	struct many m;

	many_init(&m, BLK_WRITE, BLK_LANE_WRITEBACK, offset, length, count, generation);
	many_submit(&m, dev);
	ck_assert_int_eq(many_wait(&m), 0);
	many_free(&m);
}

void read_all(struct blk_dev *dev, uint64_t offset, size_t length, unsigned count,
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
void expect_file(const char *name, uint64_t offset, size_t length, unsigned generation)
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

void tune_target(void)
{
	tgt_adm(&tgt, "--mode target --op update --tid 1 --name InitialR2T --value No");
	tgt_adm(&tgt, "--mode target --op update --tid 1 --name FirstBurstLength --value 262144");
	tgt_adm(&tgt,
		"--mode target --op update --tid 1 --name MaxRecvDataSegmentLength --value 262144");
}

int rig_main(const char *name, const struct rig_test *tests, size_t count)
{
	Suite *suite = suite_create(name);
	int status;

	tgt_root_create();
	log_open("stderr", getenv("NB_TEST_VERBOSE") ? LOG_LEVEL_DEBUG : LOG_LEVEL_ERROR, NULL);
	for (size_t i = 0; i < count; i++) {
		TCase *c = tcase_create(tests[i].name);

		tcase_set_timeout(c, 60);
		tcase_add_checked_fixture(c, setup, teardown);
		tcase_add_test(c, *tests[i].test);
		suite_add_tcase(suite, c);
	}
	status = run_suite(suite);
	tgt_root_remove();
	return status;
}
