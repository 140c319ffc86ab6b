// SPDX-License-Identifier: Apache-2.0
#include "core/block.h"

#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "core/filter_count.h"
#include "core/filter_delay.h"
#include "core/filter_fault.h"
#include "core/sched.h"
#include "transport/mem.h"
#include "tests/lib/run.h"

#define SIZE (1u << 20)
#define SECTOR 512u

/* A leaf of the test's own: keeps what it gets until it is told to answer, on a thread of its own
 * where asked to, and remembers what of its life it saw. */
struct held {
	struct blk_dev dev;
	pthread_mutex_t lock;
	pthread_cond_t more;
	struct list_node reqs; /* guarded by lock */
	unsigned count;        /* guarded by lock */
	bool ending;           /* guarded by lock */
	int start_result;
	bool on_thread;
	pthread_t thread;
	unsigned stops;
	unsigned *destroyed;
	struct blk_req *cancelled;
};

static void *held_answer(void *arg)
{
	struct held *h = arg;

	pthread_mutex_lock(&h->lock);
	for (;;) {
		struct list_node *n = list_pop(&h->reqs);

		if (n) {
			pthread_mutex_unlock(&h->lock);
			blk_complete(list_entry(n, struct blk_req, link), 0);
			pthread_mutex_lock(&h->lock);
		} else if (h->ending) {
			break;
		} else {
			pthread_cond_wait(&h->more, &h->lock);
		}
	}
	pthread_mutex_unlock(&h->lock);
	return NULL;
}

static int held_start(struct blk_dev *dev, struct err *err)
{
	struct held *h = container_of(dev, struct held, dev);

	if (h->start_result < 0)
		return err_set(err, h->start_result, "no such far side");
	if (h->on_thread)
		ck_assert_int_eq(pthread_create(&h->thread, NULL, held_answer, h), 0);
	return 0;
}

static void held_submit(struct blk_dev *dev, struct blk_req *req)
{
	struct held *h = container_of(dev, struct held, dev);

	guard(&h->lock);
	list_add_tail(&h->reqs, &req->link);
	h->count++;
	pthread_cond_signal(&h->more);
}

static void held_stop(struct blk_dev *dev)
{
	struct held *h = container_of(dev, struct held, dev);
	struct list_node *n;

	h->stops++;
	pthread_mutex_lock(&h->lock);
	h->ending = true;
	pthread_cond_signal(&h->more);
	pthread_mutex_unlock(&h->lock);
	if (h->on_thread && h->thread)
		pthread_join(h->thread, NULL);
	h->thread = 0;
	while ((n = list_pop(&h->reqs)))
		blk_complete(list_entry(n, struct blk_req, link), -ESHUTDOWN);
}

static void held_destroy(struct blk_dev *dev)
{
	struct held *h = container_of(dev, struct held, dev);

	++*h->destroyed;
	pthread_mutex_destroy(&h->lock);
	pthread_cond_destroy(&h->more);
	free(h);
}

static void held_info(struct blk_dev *dev, struct blk_info *ret_info)
{
	*ret_info = (struct blk_info){ .size_bytes = SIZE, .sector_bytes = SECTOR };
}

static void held_cancel(struct blk_dev *dev, struct blk_req *req)
{
	container_of(dev, struct held, dev)->cancelled = req;
}

static const struct blk_ops held_ops = {
	.name = "held",
	.start = held_start,
	.submit = held_submit,
	.stop = held_stop,
	.destroy = held_destroy,
	.info = held_info,
	.cancel = held_cancel,
};

static struct held *held_create(bool on_thread, unsigned *destroyed)
{
	struct held *h = calloc(1, sizeof(*h));

	h->dev.ops = &held_ops;
	h->on_thread = on_thread;
	h->destroyed = destroyed;
	list_init(&h->reqs);
	pthread_mutex_init(&h->lock, NULL);
	pthread_cond_init(&h->more, NULL);
	return h;
}

static void held_release(struct held *h, int result)
{
	struct list_node *n = list_pop(&h->reqs);

	ck_assert_ptr_nonnull(n);
	blk_complete(list_entry(n, struct blk_req, link), result);
}

struct seen {
	atomic_uint done;
	atomic_int result;
};

static void note(struct blk_req *req, void *ctx, int result)
{
	struct seen *s = ctx;

	ck_assert_uint_eq(req->depth, 0);
	atomic_store(&s->result, result);
	atomic_fetch_add(&s->done, 1);
}

static struct blk_dev *mem(void)
{
	return mem_create(SIZE, SECTOR, BLK_INFO_CAN_DISCARD);
}

/* A byte that depends on where it is and on which write made it, and is never 0. */
static void pattern(uint8_t *buf, uint64_t offset, size_t length, unsigned generation)
{
	for (size_t i = 0; i < length; i++)
		buf[i] = (uint8_t)(((offset + i) * 31 + generation * 7 + (offset + i) / 251) % 255 +
				   1);
}

START_TEST(test_check_table)
{
	static const struct row {
		enum blk_op op;
		uint64_t offset, length;
		unsigned flags;
		int result;
	} rows[] = {
		{ BLK_READ, 0, 512, 0, 0 },
		{ BLK_READ, SIZE - 512, 512, 0, 0 },
		{ BLK_READ, 0, 0, 0, -EINVAL },
		{ BLK_READ, 1, 512, 0, -EINVAL },
		{ BLK_READ, 0, 513, 0, -EINVAL },
		{ BLK_READ, SIZE, 512, 0, -EINVAL },
		{ BLK_READ, SIZE - 512, 1024, 0, -EINVAL },
		{ BLK_READ, UINT64_MAX - 511, 512, 0, -EINVAL },
		{ BLK_READ, 0, 512, BLK_INFO_READ_ONLY, 0 },
		{ BLK_WRITE, 0, 512, 0, 0 },
		{ BLK_WRITE, SIZE, 512, 0, -ENOSPC },
		{ BLK_WRITE, SIZE - 512, 1024, 0, -ENOSPC },
		{ BLK_WRITE, UINT64_MAX - 511, 1024, 0, -ENOSPC },
		{ BLK_WRITE, 7, 512, 0, -EINVAL },
		{ BLK_WRITE, 0, 0, 0, -EINVAL },
		{ BLK_WRITE, 0, 512, BLK_INFO_READ_ONLY, -EROFS },
		{ BLK_ZERO, 0, SIZE, 0, 0 },
		{ BLK_ZERO, 512, SIZE, 0, -ENOSPC },
		{ BLK_ZERO, 0, 512, BLK_INFO_READ_ONLY, -EROFS },
		{ BLK_DISCARD, 0, 512, 0, -EOPNOTSUPP },
		{ BLK_DISCARD, 0, 512, BLK_INFO_CAN_DISCARD, 0 },
		{ BLK_DISCARD, SIZE, 512, BLK_INFO_CAN_DISCARD, -ENOSPC },
		{ BLK_DISCARD, 0, 512, BLK_INFO_CAN_DISCARD | BLK_INFO_READ_ONLY, -EROFS },
		{ BLK_FLUSH, 0, 0, 0, 0 },
		{ BLK_FLUSH, 0, 0, BLK_INFO_READ_ONLY, 0 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct blk_info info = { .size_bytes = SIZE,
					 .sector_bytes = SECTOR,
					 .flags = rows[i].flags };
		struct iovec iov = { .iov_base = NULL, .iov_len = rows[i].length };
		struct blk_req req;

		blk_req_init(&req, rows[i].op, rows[i].offset, rows[i].length, &iov, 1);
		ck_assert_msg(blk_check(&info, &req) == rows[i].result, "row %zu: %d", i,
			      blk_check(&info, &req));
	}
}
END_TEST

START_TEST(test_check_iov_length)
{
	struct blk_info info = { .size_bytes = SIZE, .sector_bytes = SECTOR };
	struct iovec iov[2] = { { NULL, 512 }, { NULL, 256 } };
	struct blk_req req;

	blk_req_init(&req, BLK_WRITE, 0, 1024, iov, 2);
	ck_assert_int_eq(blk_check(&info, &req), -EINVAL);
	iov[1].iov_len = 512;
	ck_assert_int_eq(blk_check(&info, &req), 0);
}
END_TEST

START_TEST(test_sync_helpers)
{
	struct blk_dev *dev = mem();
	uint8_t out[4096], in[4096];

	ck_assert_int_eq(blk_start(dev, NULL), 0);
	pattern(out, 8192, sizeof(out), 1);
	ck_assert_int_eq(blk_write_sync(dev, out, 8192, sizeof(out), BLK_FUA), 0);
	ck_assert_int_eq(blk_read_sync(dev, in, 8192, sizeof(in)), 0);
	ck_assert_mem_eq(in, out, sizeof(in));
	ck_assert_mem_eq(mem_data(dev) + 8192, out, sizeof(out));
	ck_assert_int_eq(blk_flush_sync(dev), 0);
	/* Part of a page, then a range with whole pages in it: nothing beside them changes. */
	ck_assert_int_eq(blk_zero_sync(dev, 8192 + 512, 1024), 0);
	memset(out + 512, 0, 1024);
	ck_assert_mem_eq(mem_data(dev) + 8192, out, sizeof(out));
	memset(mem_data(dev), 0xa5, 65536);
	ck_assert_int_eq(blk_discard_sync(dev, 512, 65536 - 1024), 0);
	for (unsigned i = 0; i < 65536; i++)
		if (mem_data(dev)[i] != (i < 512 || i >= 65536 - 512 ? 0xa5 : 0))
			ck_abort_msg("byte %u is %u", i, mem_data(dev)[i]);
	ck_assert_int_eq(blk_read_sync(dev, in, SIZE, 512), -EINVAL);
	ck_assert_int_eq(blk_write_sync(dev, in, SIZE, 512, 0), -ENOSPC);
	blk_stop(dev);
	ck_assert_int_eq(blk_read_sync(dev, in, 0, 512), -ESHUTDOWN);
	blk_stop(dev);
	blk_destroy(dev);
}
END_TEST

START_TEST(test_mem_flags)
{
	struct blk_dev *dev = mem_create(4096, 1, BLK_INFO_READ_ONLY);
	struct blk_info info;
	uint8_t b[3];

	blk_info(dev, &info);
	ck_assert_uint_eq(info.size_bytes, 4096);
	ck_assert_uint_eq(info.discard_align_bytes, 0);
	mem_data(dev)[7] = 9;
	ck_assert_int_eq(blk_read_sync(dev, b, 7, 3), 0);
	ck_assert_uint_eq(b[0], 9);
	ck_assert_int_eq(blk_write_sync(dev, b, 0, 3, 0), -EROFS);
	blk_destroy(dev);
	dev = mem_create(4096, 512, 0);
	ck_assert_int_eq(blk_discard_sync(dev, 0, 512), -EOPNOTSUPP);
	ck_assert_int_eq(blk_zero_sync(dev, 0, 512), 0);
	blk_destroy(dev);
	/* Sparse: far more than the machine has. */
	dev = mem_create(256ull << 30, 4096, 0);
	ck_assert_ptr_nonnull(dev);
	memset(mem_data(dev) + (255ull << 30), 3, 4096);
	ck_assert_int_eq(blk_read_sync(dev, b, 0, 3), -EINVAL);
	blk_destroy(dev);
}
END_TEST

START_TEST(test_defaults)
{
	struct blk_dev *dev = filter_fault_create(filter_count_create(mem()), NULL, 0);
	struct blk_stats stats;
	uint64_t length = 0;
	uint8_t buf[512];

	ck_assert_uint_eq(blk_generation(dev), 1);
	ck_assert(!blk_known_zero(dev, 0, 4096, &length));
	ck_assert_uint_eq(length, 4096);
	ck_assert_uint_eq(blk_sessions(dev, NULL, 0), 0);
	blk_kick(dev);
	ck_assert_int_eq(blk_read_sync(dev, buf, 0, sizeof(buf)), 0);
	blk_stats(dev, &stats);
	ck_assert(stats.online);
	ck_assert_uint_eq(stats.read_bytes, 512);
	blk_destroy(dev);
	blk_destroy(NULL);
	blk_stop(NULL);
}
END_TEST

static void count_twice(struct blk_req *req, void *ctx, int result)
{
	(void)req;
	++*(unsigned *)ctx;
}

START_TEST(test_second_completion_is_caught)
{
	struct blk_req req;
	unsigned n = 0;
	struct blk_dev *dev = mem();

	blk_req_init(&req, BLK_FLUSH, 0, 0, NULL, 0);
	blk_submit(dev, &req, count_twice, &n);
	ck_assert_uint_eq(n, 1);
	blk_complete(&req, 0); /* aborts */
}
END_TEST

static void resubmit(struct blk_req *req, void *ctx, int result)
{
	struct blk_dev *dev = ctx;

	ck_assert_int_eq(result, 0);
	if (req->offset + 512 < 8 * 512) {
		req->offset += 512;
		blk_submit(dev, req, resubmit, dev);
	}
}

START_TEST(test_submit_from_done)
{
	struct blk_dev *dev = filter_count_create(mem());
	struct filter_count c;
	uint8_t buf[512];
	struct iovec iov = { buf, sizeof(buf) };
	struct blk_req req;

	blk_req_init(&req, BLK_READ, 0, 512, &iov, 1);
	blk_submit(dev, &req, resubmit, dev);
	filter_count_get(dev, &c);
	ck_assert_uint_eq(c.op[BLK_READ].requests, 8);
	ck_assert_uint_eq(c.in_flight, 0);
	ck_assert_uint_eq(c.max_in_flight, 1);
	blk_destroy(dev);
}
END_TEST

START_TEST(test_other_thread)
{
	unsigned destroyed = 0;
	struct held *h = held_create(true, &destroyed);
	struct blk_dev *dev = filter_count_create(filter_fault_create(&h->dev, NULL, 0));
	struct filter_count c;

	ck_assert_int_eq(blk_start(dev, NULL), 0);
	for (unsigned i = 0; i < 1000; i++)
		ck_assert_int_eq(blk_flush_sync(dev), 0);
	filter_count_get(dev, &c);
	ck_assert_uint_eq(c.op[BLK_FLUSH].requests, 1000);
	ck_assert_uint_eq(c.in_flight, 0);
	blk_destroy(dev);
	ck_assert_uint_eq(destroyed, 1);
}
END_TEST

START_TEST(test_life)
{
	unsigned destroyed = 0;
	struct held *h = held_create(false, &destroyed);
	struct blk_dev *dev = filter_count_create(&h->dev);
	struct seen seen = { 0 };
	struct blk_req req;
	struct err err = { "" };

	/* Destroy without start; start that fails; destroy with a request in flight. */
	blk_destroy(dev);
	ck_assert_uint_eq(destroyed, 1);

	h = held_create(false, &destroyed);
	h->start_result = -ENOENT;
	dev = filter_count_create(&h->dev);
	ck_assert_int_eq(blk_start(dev, &err), -ENOENT);
	ck_assert_str_eq(err.text, "no such far side");
	blk_stop(dev);
	blk_stop(dev);
	ck_assert_uint_eq(h->stops, 2);
	blk_destroy(dev);
	ck_assert_uint_eq(destroyed, 2);

	h = held_create(false, &destroyed);
	dev = filter_count_create(&h->dev);
	ck_assert_int_eq(blk_start(dev, &err), 0);
	blk_req_init(&req, BLK_FLUSH, 0, 0, NULL, 0);
	blk_submit(dev, &req, note, &seen);
	ck_assert_uint_eq(seen.done, 0);
	blk_destroy(dev);
	ck_assert_uint_eq(seen.done, 1);
	ck_assert_int_eq(seen.result, -ESHUTDOWN);
	ck_assert_uint_eq(destroyed, 3);
}
END_TEST

START_TEST(test_fault_rules)
{
	const struct filter_fault_rule rules[] = {
		{ .ops = 1 << BLK_READ, .offset = 4096, .length = 4096, .nth = 2, .result = -EIO },
		{ .ops = 1 << BLK_WRITE,
		  .nth = 1,
		  .always = true,
		  .after = true,
		  .result = -ENOSPC },
		{ .ops = 1 << BLK_FLUSH, .offset = 9, .length = 1, .nth = 1, .result = -ENOMEM },
	};
	struct blk_dev *leaf = mem();
	struct blk_dev *dev = filter_fault_create(leaf, rules, ARRAY_SIZE(rules));
	uint8_t buf[512];

	ck_assert_int_eq(blk_read_sync(dev, buf, 4096, 512), 0);
	ck_assert_int_eq(blk_read_sync(dev, buf, 3584, 512), 0); /* ends where the range begins */
	ck_assert_int_eq(blk_read_sync(dev, buf, 7680, 512), -EIO);
	ck_assert_int_eq(blk_read_sync(dev, buf, 7680, 512), 0);
	ck_assert_uint_eq(filter_fault_matched(dev, 0), 3);

	/* The inner device has done the work when a late failure is told. */
	pattern(buf, 1024, sizeof(buf), 3);
	ck_assert_int_eq(blk_write_sync(dev, buf, 1024, 512, 0), -ENOSPC);
	ck_assert_mem_eq(mem_data(leaf) + 1024, buf, 512);
	ck_assert_int_eq(blk_write_sync(dev, buf, 2048, 512, 0), -ENOSPC);
	ck_assert_int_eq(blk_flush_sync(dev), -ENOMEM);
	ck_assert_int_eq(blk_flush_sync(dev), 0);
	ck_assert_uint_eq(filter_fault_fired(dev), 4);

	/* Rules may change at any time and count from then on. */
	filter_fault_set(dev, rules, 1);
	ck_assert_int_eq(blk_write_sync(dev, buf, 1024, 512, 0), 0);
	ck_assert_int_eq(blk_read_sync(dev, buf, 4096, 512), 0);
	ck_assert_int_eq(blk_read_sync(dev, buf, 4096, 512), -EIO);
	blk_destroy(dev);
}
END_TEST

START_TEST(test_count)
{
	unsigned destroyed = 0;
	struct held *h = held_create(false, &destroyed);
	struct blk_dev *dev = filter_count_create(&h->dev);
	struct seen seen[3] = { 0 };
	struct filter_count c;
	struct blk_req req[3];
	uint8_t buf[1024];
	struct iovec iov = { buf, sizeof(buf) };

	for (unsigned i = 0; i < 3; i++) {
		blk_req_init(&req[i], BLK_WRITE, i * 1024, 1024, &iov, 1);
		req[i].flags = i == 1 ? BLK_FUA : 0;
		req[i].lane = i == 2 ? BLK_LANE_WARM : BLK_LANE_DEMAND;
		blk_submit(dev, &req[i], note, &seen[i]);
	}
	held_release(h, 0);
	held_release(h, -EIO);
	filter_count_get(dev, &c);
	ck_assert_uint_eq(c.op[BLK_WRITE].requests, 3);
	ck_assert_uint_eq(c.op[BLK_WRITE].bytes, 3072);
	ck_assert_uint_eq(c.op[BLK_WRITE].failed, 1);
	ck_assert_uint_eq(c.fua, 1);
	ck_assert_uint_eq(c.lane[BLK_LANE_WARM], 1);
	ck_assert_uint_eq(c.in_flight, 1);
	ck_assert_uint_eq(c.max_in_flight, 3);
	filter_count_reset(dev);
	filter_count_get(dev, &c);
	ck_assert_uint_eq(c.op[BLK_WRITE].requests, 0);
	ck_assert_uint_eq(c.in_flight, 1);
	held_release(h, 0);
	filter_count_get(dev, &c);
	ck_assert_uint_eq(c.in_flight, 0);
	blk_destroy(dev);
}
END_TEST

/* A scheduler with one thread (the test's) and a clock that the test turns. */
struct fake {
	struct sched sched;
	struct list_node timers;
	uint64_t now;
};

static void fake_arm(struct sched *s, struct sched_timer *t, uint64_t when_ns)
{
	struct fake *f = container_of(s, struct fake, sched);

	list_del(&t->task.link);
	t->when_ns = when_ns;
	t->armed = true;
	list_add_tail(&f->timers, &t->task.link);
}

static bool fake_disarm(struct sched *s, struct sched_timer *t)
{
	bool was = t->armed;

	t->armed = false;
	list_del(&t->task.link);
	return was;
}

static uint64_t fake_now(struct sched *s)
{
	return container_of(s, struct fake, sched)->now;
}

static const struct sched_ops fake_ops = {
	.arm = fake_arm,
	.disarm = fake_disarm,
	.now = fake_now,
};

/* Turn the clock to @now, running the one timer there is at each time it is due. */
static void fake_turn(struct fake *f, uint64_t now)
{
	struct sched_timer *t;

	while ((t = list_first(&f->timers, struct sched_timer, task.link)) && t->when_ns <= now) {
		f->now = t->when_ns;
		fake_disarm(&f->sched, t);
		t->task.run(&t->task);
	}
	f->now = now;
}

START_TEST(test_delay_times)
{
	struct fake f = { .sched = { &fake_ops }, .now = 1000 };
	struct blk_dev *dev = filter_delay_create(mem(), &f.sched, 500, 2);
	struct seen seen[3] = { 0 };
	struct blk_req req[3];
	uint8_t buf[1024];
	struct iovec iov = { buf, sizeof(buf) };

	list_init(&f.timers);
	blk_req_init(&req[0], BLK_READ, 0, 1024, &iov, 1); /* due at 1000 + 500 + 2048 */
	blk_req_init(&req[1], BLK_FLUSH, 0, 0, NULL, 0);   /* due at 1000 + 500 */
	blk_req_init(&req[2], BLK_FLUSH, 0, 0, NULL, 0);
	blk_submit(dev, &req[0], note, &seen[0]);
	blk_submit(dev, &req[1], note, &seen[1]);
	fake_turn(&f, 1499);
	ck_assert_uint_eq(seen[1].done, 0);
	fake_turn(&f, 1500);
	ck_assert_uint_eq(seen[1].done, 1);
	fake_turn(&f, 3547);
	ck_assert_uint_eq(seen[0].done, 0);
	fake_turn(&f, 3548);
	ck_assert_uint_eq(seen[0].done, 1);
	ck_assert_int_eq(seen[0].result, 0);

	/* Cancel and stop hand out at once what waits. */
	blk_submit(dev, &req[0], note, &seen[0]);
	blk_submit(dev, &req[1], note, &seen[1]);
	blk_submit(dev, &req[2], note, &seen[2]);
	blk_cancel(dev, &req[1]);
	ck_assert_uint_eq(seen[1].done, 2);
	blk_stop(dev);
	ck_assert_uint_eq(seen[0].done, 2);
	ck_assert_uint_eq(seen[2].done, 1);
	ck_assert(list_empty(&f.timers));
	blk_submit(dev, &req[1], note, &seen[1]);
	ck_assert_int_eq(seen[1].result, -ESHUTDOWN);
	blk_destroy(dev);
}
END_TEST

START_TEST(test_delay_passes_cancel_on)
{
	unsigned destroyed = 0;
	struct fake f = { .sched = { &fake_ops } };
	struct held *h = held_create(false, &destroyed);
	struct blk_dev *dev = filter_delay_create(&h->dev, &f.sched, 1, 0);
	struct seen seen = { 0 };
	struct blk_req req;

	list_init(&f.timers);
	blk_req_init(&req, BLK_FLUSH, 0, 0, NULL, 0);
	blk_submit(dev, &req, note, &seen);
	blk_cancel(dev, &req);
	ck_assert_ptr_eq(h->cancelled, &req);
	ck_assert_uint_eq(seen.done, 0);
	blk_destroy(dev);
	ck_assert_uint_eq(seen.done, 1);
}
END_TEST

/* The whole stack with threads: every request ends once, and destroy races with timers. */
START_TEST(test_stack_on_threads)
{
	enum { N = 256 };
	static struct blk_req req[N];
	static struct seen seen[N];
	static uint8_t buf[N][512];
	static struct iovec iov[N];
	const struct filter_fault_rule rule = { .ops = 1 << BLK_WRITE, .nth = 100, .result = -EIO };
	struct sched *s = sched_threads_create(2, "blocktest");
	struct blk_dev *dev;
	unsigned failed = 0;

	memset(seen, 0, sizeof(seen));
	dev = filter_count_create(
		filter_fault_create(filter_delay_create(mem(), s, 20000, 10), &rule, 1));
	ck_assert_int_eq(blk_start(dev, NULL), 0);
	for (unsigned i = 0; i < N; i++) {
		pattern(buf[i], i * 512, 512, 5);
		iov[i] = (struct iovec){ buf[i], 512 };
		blk_req_init(&req[i], BLK_WRITE, i * 512, 512, &iov[i], 1);
		blk_submit(dev, &req[i], note, &seen[i]);
	}
	blk_stop(dev);
	for (unsigned i = 0; i < N; i++) {
		ck_assert_uint_eq(seen[i].done, 1);
		failed += seen[i].result != 0;
	}
	ck_assert_uint_eq(failed, 1);
	ck_assert_int_eq(seen[99].result, -EIO);
	blk_destroy(dev);
	sched_destroy(s);
}
END_TEST

START_TEST(test_iov)
{
	uint8_t a[3] = { 1, 2, 3 }, b[5] = { 4, 5, 6, 7, 8 }, flat[8] = { 0 };
	struct iovec iov[4] = { { a, 3 }, { NULL, 0 }, { b, 5 }, { NULL, 0 } }, out[4];

	ck_assert_uint_eq(iov_length(iov, 4), 8);
	ck_assert_uint_eq(iov_length(NULL, 0), 0);
	for (size_t skip = 0; skip <= 8; skip++) {
		for (size_t length = 0; skip + length <= 8; length++) {
			int n = iov_slice(iov, 4, skip, length, out, 4);
			uint8_t got[8] = { 0 };

			ck_assert_uint_eq(iov_length(out, n), length);
			iov_copy_from(out, n, 0, got, length);
			iov_copy_from(iov, 4, skip, flat, length);
			ck_assert_mem_eq(got, flat, length);
			for (size_t i = 0; i < length; i++)
				ck_assert_uint_eq(got[i], skip + i + 1);
		}
	}
	iov_copy_to(iov, 4, 2, "\x11\x12", 2);
	ck_assert_uint_eq(a[2], 0x11);
	ck_assert_uint_eq(b[0], 0x12);
	iov_zero(iov, 4, 1, 3);
	ck_assert_mem_eq(a, "\x01\0\0", 3);
	ck_assert_mem_eq(b, "\0\x05\x06\x07\x08", 5);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("block");
	TCase *tc = tcase_create("block");

	tcase_add_test(tc, test_check_table);
	tcase_add_test(tc, test_check_iov_length);
	tcase_add_test(tc, test_sync_helpers);
	tcase_add_test(tc, test_mem_flags);
	tcase_add_test(tc, test_defaults);
	tcase_add_test_raise_signal(tc, test_second_completion_is_caught, SIGABRT);
	tcase_add_test(tc, test_submit_from_done);
	tcase_add_test(tc, test_other_thread);
	tcase_add_test(tc, test_life);
	tcase_add_test(tc, test_fault_rules);
	tcase_add_test(tc, test_count);
	tcase_add_test(tc, test_delay_times);
	tcase_add_test(tc, test_delay_passes_cancel_on);
	tcase_add_test(tc, test_stack_on_threads);
	tcase_add_test(tc, test_iov);
	suite_add_tcase(s, tc);
	return run_suite(s);
}
