// SPDX-License-Identifier: Apache-2.0
/*
 * The cache with real threads, a real directory and a slow far side: WRITERS threads change bytes
 * of their own (neighbours share blocks, so parts of a block meet) and read them back, while
 * others ask for status, drain, drop and cancel. Then a stop in the middle of it, a restart over
 * the same directory, and everything is read again; at the end the far side has it all. For the
 * thread and address sanitizers.
 *
 * Threads assert() instead of ck_assert(), which is not theirs to call.
 *
 * THREADS_MS sets how long each of the two parts runs.
 */
#include <assert.h>
#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cache/cache.h"
#include "cache/identity.h"
#include "cache/index.h"
#include "cache/lio.h"
#include "core/cleanup.h"
#include "core/clock.h"
#include "core/filter_delay.h"
#include "core/log.h"
#include "core/parse.h"
#include "tests/lib/scratch.h"
#include "transport/mem.h"
#include "tests/lib/run.h"

#define SIZE ((40u << 20) + 512)
#define LIMIT_BYTES CACHE_LIMIT_MIN
#define WRITERS 6
#define CHUNK (61u * 1000 + 7) /* of one thread; ends inside blocks */
#define OP_MAX 40000u
#define DELAY_NS (300 * NSEC_PER_USEC)
#define DELAY_BYTE_NS 8 /* so that answers come in another order than requests */

struct stack {
	struct sched *sched;
	struct lio *lio;
	struct index_store *index;
	struct cache_identity identity;
	struct blk_dev *mem, *cache;
};

/* A change that failed: it may have happened. */
struct doubt {
	uint64_t offset, length;
	uint8_t *bytes;
};

struct writer {
	pthread_t thread;
	unsigned number;
	uint64_t dice;
	struct doubt doubt;
	unsigned ops, cancelled;
};

static struct stack st;
static uint8_t *want;    /* what the volume must read as; each byte has one owner */
static uint8_t *far_now; /* the far side's bytes between two lives */
static atomic_bool enough;
static struct writer writer[WRITERS];
static bool with_rocksdb;

static uint64_t roll(uint64_t *dice)
{
	uint64_t z = (*dice += 0x9e3779b97f4a7c15ull);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

/* ---- the stack ---- */

static void open_index(const char *dir)
{
	char path[300];
	struct err err;

	if (!with_rocksdb) {
		if (!st.index)
			st.index = index_mem_create();
		else
			st.index->fresh = false;
		ck_assert_ptr_nonnull(st.index);
		return;
	}
	snprintf(path, sizeof(path), "%s/index", dir);
	ck_assert_msg(index_rocksdb_open(path, st.identity.cache_uuid, &st.index, &err) == 0, "%s",
		      err.text);
}

static void start(const char *dir)
{
	struct cache_config conf = { .limit_bytes = LIMIT_BYTES,
				     .max_dirty_bytes = 12u << 20,
				     .max_dirty_age_ns = 100 * NSEC_PER_MSEC };
	struct err err;
	int r;

	st.sched = sched_threads_create(4, "test");
	ck_assert_ptr_nonnull(st.sched);
	ck_assert_msg(lio_posix_open(dir, 4, &st.lio, &err) == 0, "%s", err.text);
	r = identity_load(st.lio, &st.identity, &err);
	if (r == -ENOENT) {
		ck_assert_int_eq(identity_init(&st.identity, LIMIT_BYTES), 0);
		ck_assert_int_eq(identity_store(st.lio, &st.identity), 0);
	} else {
		ck_assert_msg(r == 0, "%s", err.text);
	}
	open_index(dir);
	st.mem = mem_create(SIZE, 512, BLK_INFO_VOLATILE | BLK_INFO_CAN_DISCARD);
	ck_assert_ptr_nonnull(st.mem);
	memcpy(mem_data(st.mem), far_now, SIZE);
	conf.inner = filter_delay_create(st.mem, st.sched, DELAY_NS, DELAY_BYTE_NS);
	conf.sched = st.sched;
	conf.lio = st.lio;
	conf.index = st.index;
	conf.identity = &st.identity;
	st.cache = cache_create(&conf);
	ck_assert_ptr_nonnull(st.cache);
	r = blk_start(st.cache, &err);
	ck_assert_msg(r == 0, "%s", err.text);
}

static void finish(void)
{
	blk_stop(st.cache);
	memcpy(far_now, mem_data(st.mem), SIZE);
	blk_destroy(st.cache);
	if (with_rocksdb) {
		index_destroy(st.index);
		st.index = NULL;
	}
	lio_destroy(st.lio);
	sched_destroy(st.sched);
}

/* ---- one request ---- */

struct wait {
	pthread_mutex_t lock;
	pthread_cond_t ended;
	bool done;
	int result;
};

static void wait_done(struct blk_req *req, void *ctx, int result)
{
	struct wait *w = ctx;

	(void)req;
	guard(&w->lock);
	w->done = true;
	w->result = result;
	pthread_cond_signal(&w->ended);
}

/* @cancel_ns: cancel it so long after it was submitted; 0: do not. */
static int do_op(enum blk_op op, uint64_t offset, uint64_t length, uint8_t *buf, unsigned flags,
		 uint64_t cancel_ns)
{
	struct wait w = { .lock = PTHREAD_MUTEX_INITIALIZER, .ended = PTHREAD_COND_INITIALIZER };
	struct iovec iov = { buf, length };
	struct blk_req req;

	blk_req_init(&req, op, offset, length, buf ? &iov : NULL, buf ? 1 : 0);
	req.flags = flags;
	blk_submit(st.cache, &req, wait_done, &w);
	/* It may be on its way back, but the memory is here until we go. */
	if (cancel_ns) {
		uint64_t until = clock_monotonic_ns() + cancel_ns;

		while (clock_monotonic_ns() < until)
			;
		blk_cancel(st.cache, &req);
	}
	pthread_mutex_lock(&w.lock);
	while (!w.done)
		pthread_cond_wait(&w.ended, &w.lock);
	pthread_mutex_unlock(&w.lock);
	return w.result;
}

/* ---- those who read and write ---- */

static void pick(struct writer *w, uint64_t *ret_offset, uint64_t *ret_length)
{
	uint64_t chunks = SIZE / CHUNK / WRITERS;
	/* Half of it in a few places, so that versions pile up. */
	uint64_t k = roll(&w->dice) % 2 ? roll(&w->dice) % 4 : roll(&w->dice) % chunks;
	uint64_t from = (k * WRITERS + w->number) * CHUNK, at = roll(&w->dice) % CHUNK;
	uint64_t length = 1 + roll(&w->dice) % (roll(&w->dice) % 3 ? 5000 : OP_MAX);

	*ret_offset = from + at;
	*ret_length = MIN(length, CHUNK - at);
}

static bool change(struct writer *w, uint8_t *buf)
{
	unsigned kind = (unsigned)(roll(&w->dice) % 8);
	enum blk_op op = kind == 0 ? BLK_ZERO : kind == 1 ? BLK_DISCARD : BLK_WRITE;
	uint64_t offset, length;
	int r;

	pick(w, &offset, &length);
	for (uint64_t i = 0; i < length; i++)
		buf[i] = op == BLK_WRITE ? (uint8_t)(roll(&w->dice) | 1) : 0;
	r = do_op(op, offset, length, op == BLK_WRITE ? buf : NULL,
		  op == BLK_WRITE && kind == 2 && roll(&w->dice) % 4 == 0 ? BLK_FUA : 0, 0);
	if (r == 0) {
		memcpy(want + offset, buf, length);
		return true;
	}
	assert(r == -ESHUTDOWN);
	w->doubt = (struct doubt){ offset, length, malloc(length) };
	memcpy(w->doubt.bytes, buf, length);
	return false;
}

static bool look(struct writer *w, uint8_t *buf)
{
	/* Near the time at which the far side answers. */
	uint64_t cancel_ns =
		roll(&w->dice) % 4 == 0 ? DELAY_NS / 2 + roll(&w->dice) % (2 * DELAY_NS) : 0;
	uint64_t offset, length;
	int r;

	pick(w, &offset, &length);
	memset(buf, 0xee, length);
	r = do_op(BLK_READ, offset, length, buf, 0, cancel_ns);
	if (cancel_ns && r == -EINTR) {
		w->cancelled++;
		return true;
	}
	if (r == -ESHUTDOWN)
		return false;
	assert(r == 0);
	assert(memcmp(buf, want + offset, length) == 0);
	return true;
}

static void *write_and_read(void *arg)
{
	struct writer *w = arg;
	cleanup_free uint8_t *buf = malloc(OP_MAX);
	bool on = true;

	while (on && !atomic_load(&enough)) {
		unsigned kind = (unsigned)(roll(&w->dice) % 16);

		if (kind == 0)
			on = do_op(BLK_FLUSH, 0, 0, NULL, 0, 0) != -ESHUTDOWN;
		else if (kind < 8)
			on = change(w, buf);
		else
			on = look(w, buf);
		w->ops++;
	}
	return NULL;
}

/* ---- those who ask and command ---- */

struct drain_wait {
	struct cache_drain drain;
	struct wait wait;
};

static void drain_done(struct cache_drain *d, int result)
{
	wait_done(NULL, &container_of(d, struct drain_wait, drain)->wait, result);
}

/* The result; 1 if it was taken back. */
static int drain(bool cancel)
{
	struct drain_wait d = { .drain.done = drain_done,
				.wait = { .lock = PTHREAD_MUTEX_INITIALIZER,
					  .ended = PTHREAD_COND_INITIALIZER } };

	cache_drain(st.cache, &d.drain);
	if (cancel && cache_drain_cancel(st.cache, &d.drain))
		return 1;
	pthread_mutex_lock(&d.wait.lock);
	while (!d.wait.done)
		pthread_cond_wait(&d.wait.ended, &d.wait.lock);
	pthread_mutex_unlock(&d.wait.lock);
	return d.wait.result;
}

static void *command(void *arg)
{
	uint64_t dice = 77;

	(void)arg;
	while (!atomic_load(&enough)) {
		struct cache_damage damage[4];
		struct cache_status status;
		uint64_t run;
		int r = 0;

		cache_status(st.cache, &status);
		assert(status.damaged_bytes == 0);
		assert(cache_damages(st.cache, damage, 4) == 0);
		cache_present(st.cache, roll(&dice) % SIZE, 100000);
		blk_known_zero(st.cache, roll(&dice) % (SIZE / 2), 100000, &run);
		switch (roll(&dice) % 8) {
		case 0:
			r = cache_drop(st.cache);
			break;
		case 1:
			r = drain(false);
			break;
		case 2:
			r = drain(true);
			break;
		}
		assert(r >= 0 || r == -ESHUTDOWN);
		if (r == -ESHUTDOWN)
			break;
	}
	return NULL;
}

/* ---- the test ---- */

static void check_all(void)
{
	cleanup_free uint8_t *all = malloc(SIZE);

	for (uint64_t at = 0; at < SIZE; at += 1 << 20) {
		uint64_t n = MIN((uint64_t)1 << 20, SIZE - at);

		assert(do_op(BLK_READ, at, n, all + at, 0, 0) == 0);
	}
	for (unsigned i = 0; i < WRITERS; i++) {
		struct doubt *d = &writer[i].doubt;

		/* It happened, in part perhaps: then this is what it is from now on. */
		for (uint64_t k = 0; k < d->length; k++)
			if (all[d->offset + k] == d->bytes[k])
				want[d->offset + k] = d->bytes[k];
		free(d->bytes);
		*d = (struct doubt){ 0 };
	}
	for (uint64_t at = 0; at < SIZE; at++)
		if (all[at] != want[at])
			ck_abort_msg("byte %llu is %02x, not %02x", (unsigned long long)at, all[at],
				     want[at]);
}

/* Everybody at once for @ms; @stop: the cache is stopped under their hands. */
static void run(uint64_t ms, bool stop)
{
	struct timespec pause = { .tv_sec = (time_t)(ms / 1000),
				  .tv_nsec = (long)(ms % 1000 * NSEC_PER_MSEC) };
	pthread_t commander;

	atomic_store(&enough, false);
	for (unsigned i = 0; i < WRITERS; i++)
		pthread_create(&writer[i].thread, NULL, write_and_read, &writer[i]);
	pthread_create(&commander, NULL, command, NULL);
	nanosleep(&pause, NULL); /* how long they run, not what they wait for */
	if (stop)
		blk_stop(st.cache);
	atomic_store(&enough, true);
	for (unsigned i = 0; i < WRITERS; i++)
		pthread_join(writer[i].thread, NULL);
	pthread_join(commander, NULL);
}

static void scenario(const char *dir, uint64_t ms)
{
	unsigned ops = 0, cancelled = 0;
	const char *text = getenv("THREADS_MS");

	if (text)
		ck_assert_int_eq(parse_u64(text, &ms), 0);
	for (unsigned i = 0; i < WRITERS; i++)
		writer[i] = (struct writer){ .number = i, .dice = i + 1 };
	want = malloc(SIZE);
	far_now = malloc(SIZE);
	for (uint64_t i = 0; i < SIZE; i++)
		want[i] = far_now[i] = (uint8_t)(i * 31 / 7 | 1);
	start(dir);
	run(ms, true);
	finish();
	start(dir);
	check_all();
	run(ms, false);
	check_all();
	ck_assert_int_eq(drain(false), 0);
	cache_check(st.cache);
	finish();
	ck_assert_mem_eq(far_now, want, SIZE);
	for (unsigned i = 0; i < WRITERS; i++) {
		ops += writer[i].ops;
		cancelled += writer[i].cancelled;
	}
	printf("%u requests, %u cancelled\n", ops, cancelled);
	ck_assert_uint_gt(ops, 100);
	index_destroy(st.index);
	st.index = NULL;
	free(want);
	free(far_now);
}

static const char *dir;

START_TEST(test_memory_index)
{
	scenario(dir, 1200);
}
END_TEST

#ifndef __SANITIZE_THREAD__ /* which sees nothing of what RocksDB does */
START_TEST(test_rocksdb)
{
	with_rocksdb = true;
	scenario(dir, 500);
}
END_TEST
#endif

static void clear(void)
{
	scratch_clear();
}

int main(void)
{
	Suite *s = suite_create("threads");
	TCase *tc = tcase_create("threads");
	int status;

	dir = scratch_create();
	log_open("stderr", LOG_LEVEL_WARNING, NULL);
	tcase_set_timeout(tc, 120);
	tcase_add_checked_fixture(tc, clear, NULL);
	tcase_add_test(tc, test_memory_index);
#ifndef __SANITIZE_THREAD__
	tcase_add_test(tc, test_rocksdb);
#endif
	suite_add_tcase(s, tc);
	status = run_suite(s);
	scratch_remove();
	return status;
}
