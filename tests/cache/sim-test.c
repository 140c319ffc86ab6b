// SPDX-License-Identifier: Apache-2.0
/* The simulation kit itself: what it keeps, what it may lose, and that it finds broken rules. */
#include <check.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "tests/lib/sim.h"
#include "tests/lib/simdisk.h"
#include "tests/lib/simfar.h"
#include "tests/lib/simindex.h"
#include "tests/lib/run.h"

#define SEEDS 60
#define PAGE 4096u

struct count_task {
	struct task task;
	int *trace;
	int *at;
	int id;
};

static void count_run(struct task *task)
{
	struct count_task *c = container_of(task, struct count_task, task);

	c->trace[(*c->at)++] = c->id;
}

static void trace_of(uint64_t seed, int *trace)
{
	struct sim *sim = sim_create(seed);
	struct count_task task[16];
	int at = 0;

	for (int i = 0; i < 16; i++) {
		task[i] = (struct count_task){ .trace = trace, .at = &at, .id = i };
		task_init(&task[i].task, count_run);
		sched_post(sim_sched(sim), &task[i].task);
	}
	ck_assert(sim_run_idle(sim));
	ck_assert_int_eq(at, 16);
	sim_destroy(sim);
}

START_TEST(test_order_is_of_the_seed)
{
	int a[16];
	int b[16];
	int orders = 0;

	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		trace_of(seed, a);
		trace_of(seed, b);
		ck_assert_mem_eq(a, b, sizeof(a));
		trace_of(seed + 1, b);
		orders += memcmp(a, b, sizeof(a)) != 0;
	}
	ck_assert_int_ge(orders, SEEDS - 1);
}
END_TEST

struct fired {
	struct sched_timer timer;
	bool fired;
};

static void fire(struct task *task)
{
	container_of(task, struct fired, timer.task)->fired = true;
}

static bool has_fired(void *ctx)
{
	return ((struct fired *)ctx)->fired;
}

START_TEST(test_timers)
{
	struct sim *sim = sim_create(7);
	struct sched *s = sim_sched(sim);
	struct fired a = { .fired = false };
	struct fired b = { .fired = false };
	uint64_t start = sched_now(s);

	sched_timer_init(&a.timer, fire);
	sched_timer_init(&b.timer, fire);
	sched_arm(s, &a.timer, start + 5000000000ull);
	sched_arm(s, &b.timer, start + 9000000000ull);
	ck_assert(!sim_step(sim));
	ck_assert(sim_run_until(sim, has_fired, &a));
	ck_assert_uint_ge(sched_now(s), start + 5000000000ull);
	ck_assert(!b.fired);
	ck_assert(sched_disarm(s, &b.timer));
	ck_assert(!sched_disarm(s, &b.timer));
	ck_assert(!sim_run_until(sim, has_fired, &b)); /* nothing is left to run */
	sched_arm(s, &b.timer, start);
	sim_reset(sim);
	ck_assert(!sim_step(sim) && !b.fired && !b.timer.armed);
	sim_destroy(sim);
}
END_TEST

struct io {
	struct lio_op op;
	struct iovec iov;
	int result;
	bool done;
	uint8_t buf[4 * PAGE];
};

static void io_done(struct lio_op *op, int result)
{
	struct io *io = container_of(op, struct io, op);

	io->result = result;
	io->done = true;
}

static bool io_is_done(void *ctx)
{
	return ((struct io *)ctx)->done;
}

static void io_start(struct lio *lio, struct io *io, enum lio_kind kind, struct lio_file *f,
		     uint64_t offset, int byte)
{
	if (kind == LIO_WRITE)
		memset(io->buf, byte, sizeof(io->buf));
	io->iov = (struct iovec){ .iov_base = io->buf, .iov_len = sizeof(io->buf) };
	io->op = (struct lio_op){
		.kind = kind,
		.file = f,
		.offset = offset,
		.iov = &io->iov,
		.iovcnt = kind == LIO_SYNC ? 0 : 1,
		.done = io_done,
	};
	list_init(&io->op.link);
	io->done = false;
	lio_submit(lio, &io->op);
	ck_assert(!io->done);
}

static int io_do(struct sim *sim, struct lio *lio, struct io *io, enum lio_kind kind,
		 struct lio_file *f, uint64_t offset, int byte)
{
	io_start(lio, io, kind, f, offset, byte);
	ck_assert(sim_run_until(sim, io_is_done, io));
	return io->result;
}

/* Generation 1 is synced, 2 is written behind it and 3 is in flight; then kill or power cut. */
static void write_generations(struct sim *sim, struct simdisk *disk, struct io *io)
{
	struct lio *lio = simdisk_open(disk, sim);
	struct lio_file *f;

	ck_assert_int_eq(lio_open(lio, "seg", LIO_CREATE, &f), 0);
	ck_assert_int_eq(io_do(sim, lio, io, LIO_WRITE, f, 0, 1), 0);
	ck_assert_int_eq(io_do(sim, lio, io, LIO_SYNC, f, 0, 0), 0);
	ck_assert_int_eq(lio_sync_dir(lio), 0);
	ck_assert_int_eq(io_do(sim, lio, io, LIO_WRITE, f, 0, 2), 0);
	io_start(lio, io, LIO_WRITE, f, 0, 3);
	for (uint64_t n = sim_below(sim, 2); n; n--)
		sim_step(sim);
}

static unsigned versions_seen(struct simdisk *disk, uint64_t unit)
{
	const uint8_t *data;
	uint64_t bytes;
	bool whole = true;
	unsigned seen = 0;

	ck_assert_int_eq(simdisk_peek(disk, "seg", &data, &bytes), 0);
	ck_assert_uint_eq(bytes, 4 * PAGE);
	for (uint64_t i = 0; i < bytes; i++) {
		whole = whole && data[i] == data[i / unit * unit];
		seen |= 1u << (data[i] & 31);
	}
	ck_assert(whole && !(seen & ~14u));
	return seen;
}

START_TEST(test_kill_keeps_what_was_done)
{
	unsigned outcomes = 0;

	for (uint64_t seed = 0; seed < SEEDS; seed++) {
		struct sim *sim = sim_create(seed);
		struct simdisk *disk = simdisk_create(sim);
		struct io *io = sim_alloc(sizeof(*io));
		struct lio *lio;
		unsigned seen;

		write_generations(sim, disk, io);
		sim_reset(sim);
		ck_assert(!io->done);
		seen = versions_seen(disk, PAGE);
		ck_assert(!(seen & 1u << 1)); /* what was done before a kill is not undone */
		outcomes |= 1u << seen;
		lio = simdisk_open(disk, sim);
		ck_assert(lio->same_boot);
		lio_destroy(lio);
		free(io);
		simdisk_destroy(disk);
		sim_destroy(sim);
	}
	ck_assert_uint_eq(outcomes, 1u << 4 | 1u << 8 | 1u << 12); /* none, whole, part */
}
END_TEST

START_TEST(test_power_cut_loses_what_was_not_synced)
{
	unsigned outcomes = 0;

	for (uint64_t seed = 0; seed < 4 * SEEDS; seed++) {
		struct sim *sim = sim_create(seed);
		struct simdisk *disk = simdisk_create(sim);
		struct io *io = sim_alloc(sizeof(*io));
		struct lio *lio;

		simdisk_set_sector(disk, seed % 2 ? 512 : 4096);
		write_generations(sim, disk, io);
		simdisk_power_cut(disk);
		sim_reset(sim);
		outcomes |= 1u << versions_seen(disk, seed % 2 ? 512 : 4096);
		lio = simdisk_open(disk, sim);
		ck_assert(!lio->same_boot);
		lio_destroy(lio);
		lio = simdisk_open(disk, sim);
		ck_assert(lio->same_boot);
		lio_destroy(lio);
		free(io);
		simdisk_destroy(disk);
		sim_destroy(sim);
	}
	/* Only old, only new, and mixtures of all three. */
	ck_assert(outcomes & 1u << 2 && outcomes & 1u << 4 && outcomes & 1u << 14);
}
END_TEST

START_TEST(test_synced_is_kept)
{
	unsigned lied = 0; /* syncs tried again after one that failed */

	for (uint64_t seed = 0; seed < SEEDS; seed++) {
		struct sim *sim = sim_create(seed);
		struct simdisk *disk = simdisk_create(sim);
		struct io *io = sim_alloc(sizeof(*io));
		struct lio *lio = simdisk_open(disk, sim);
		struct lio_file *f;
		bool poisoned = seed % 2;

		ck_assert_int_eq(lio_open(lio, "seg", LIO_CREATE, &f), 0);
		ck_assert_int_eq(lio_sync_dir(lio), 0);
		ck_assert_int_eq(io_do(sim, lio, io, LIO_WRITE, f, 0, 1), 0);
		ck_assert_int_eq(io_do(sim, lio, io, LIO_SYNC, f, 0, 0), 0);
		ck_assert_int_eq(io_do(sim, lio, io, LIO_WRITE, f, 0, 2), 0);
		if (poisoned) {
			simdisk_fail(disk, SIMDISK_SYNC, 1, -EIO, false);
			ck_assert_int_eq(io_do(sim, lio, io, LIO_SYNC, f, 0, 0), -EIO);
		}
		ck_assert_int_eq(io_do(sim, lio, io, LIO_SYNC, f, 0, 0), 0);
		simdisk_power_cut(disk);
		if (poisoned)
			lied += versions_seen(disk, 512) != 1u << 2;
		else
			ck_assert_uint_eq(versions_seen(disk, PAGE), 1u << 2);
		ck_assert_uint_eq(simdisk_fault_hits(disk), poisoned);
		free(io);
		simdisk_destroy(disk);
		sim_destroy(sim);
	}
	ck_assert_uint_gt(lied, 0);
}
END_TEST

static bool exists(struct simdisk *disk, const char *name)
{
	const uint8_t *data;
	uint64_t bytes;

	return simdisk_peek(disk, name, &data, &bytes) == 0;
}

START_TEST(test_names_after_a_power_cut)
{
	unsigned outcomes = 0;

	for (uint64_t seed = 0; seed < SEEDS; seed++) {
		struct sim *sim = sim_create(seed);
		struct simdisk *disk = simdisk_create(sim);
		struct lio *lio = simdisk_open(disk, sim);
		struct lio_file *f;

		ck_assert_int_eq(lio_open(lio, "old", LIO_CREATE | LIO_EXCL, &f), 0);
		ck_assert_int_eq(lio_open(lio, "old", LIO_CREATE | LIO_EXCL, &f), -EEXIST);
		ck_assert_int_eq(lio_open(lio, "gone", 0, &f), -ENOENT);
		ck_assert_int_eq(lio_open(lio, "kept", LIO_CREATE, &f), 0);
		ck_assert_int_eq(lio_sync_dir(lio), 0);
		ck_assert_int_eq(lio_rename(lio, "old", "new"), 0);
		ck_assert_int_eq(lio_open(lio, "extra", LIO_CREATE, &f), 0);
		simdisk_power_cut(disk);
		ck_assert(exists(disk, "kept"));
		ck_assert_int_ne(exists(disk, "old"), exists(disk, "new")); /* atomic */
		outcomes |= 1u << (exists(disk, "new") + 2 * exists(disk, "extra"));
		simdisk_destroy(disk);
		sim_destroy(sim);
	}
	ck_assert_uint_eq(outcomes, 15);
}
END_TEST

START_TEST(test_disk_limits_and_reads)
{
	struct sim *sim = sim_create(3);
	struct simdisk *disk = simdisk_create(sim);
	struct io *io = sim_alloc(sizeof(*io));
	struct lio *lio = simdisk_open(disk, sim);
	struct lio_file *f;
	uint64_t bytes;
	unsigned again = 0;

	simdisk_set_limit(disk, 6 * PAGE);
	ck_assert_int_eq(lio_open(lio, "f", LIO_CREATE, &f), 0);
	ck_assert_int_eq(lio_truncate(lio, f, 64 * PAGE), 0); /* a hole takes nothing */
	ck_assert_int_eq(io_do(sim, lio, io, LIO_WRITE, f, 0, 9), 0);
	ck_assert_int_eq(lio_free_bytes(lio, &bytes), 0);
	ck_assert_uint_eq(bytes, 2 * PAGE);
	ck_assert_int_eq(io_do(sim, lio, io, LIO_WRITE, f, 16 * PAGE, 9), -ENOSPC);
	ck_assert_int_eq(io_do(sim, lio, io, LIO_READ, f, 62 * PAGE, 0), -ENODATA);
	for (int i = 0; i < 40; i++) {
		int r = lio_try_read(lio, f, &io->iov, 1, 0);

		ck_assert(r == 0 || r == -EAGAIN);
		again += r == -EAGAIN;
		ck_assert(r < 0 || (io->buf[0] == 9 && io->buf[4 * PAGE - 1] == 9));
	}
	ck_assert(again > 0 && again < 40);
	ck_assert_int_eq(simdisk_corrupt(disk, "f", 5, 1), 0);
	ck_assert_int_eq(lio_read_sync(lio, f, io->buf, 16, 0), 0);
	ck_assert(io->buf[4] == 9 && io->buf[5] != 9 && io->buf[6] == 9);
	simdisk_hold(disk, SIMDISK_READ);
	io_start(lio, io, LIO_READ, f, 0, 0);
	ck_assert(sim_run_idle(sim) && !io->done);
	simdisk_hold(disk, 0);
	ck_assert(sim_run_idle(sim) && io->done);
	lio_close(lio, f);
	lio_destroy(lio);
	free(io);
	simdisk_destroy(disk);
	sim_destroy(sim);
}
END_TEST

struct far_io {
	struct blk_req req;
	struct iovec iov;
	int result;
	bool done;
	uint8_t buf[8 * 512];
};

static void far_done(struct blk_req *req, void *ctx, int result)
{
	struct far_io *io = ctx;

	(void)req;
	io->result = result;
	io->done = true;
}

static bool far_is_done(void *ctx)
{
	return ((struct far_io *)ctx)->done;
}

static void far_start(struct blk_dev *dev, struct far_io *io, enum blk_op op, uint64_t offset,
		      int byte, unsigned flags)
{
	uint64_t length = op == BLK_FLUSH ? 0 : sizeof(io->buf);

	if (op == BLK_WRITE)
		memset(io->buf, byte, sizeof(io->buf));
	io->iov = (struct iovec){ .iov_base = io->buf, .iov_len = sizeof(io->buf) };
	blk_req_init(&io->req, op, offset, length, &io->iov, 1);
	io->req.flags = flags;
	io->done = false;
	blk_submit(dev, &io->req, far_done, io);
}

static int far_do(struct sim *sim, struct blk_dev *dev, struct far_io *io, enum blk_op op,
		  uint64_t offset, int byte, unsigned flags)
{
	far_start(dev, io, op, offset, byte, flags);
	ck_assert(sim_run_until(sim, far_is_done, io));
	return io->result;
}

static unsigned bytes_seen(const uint8_t *p, uint64_t length)
{
	unsigned seen = 0;

	for (uint64_t i = 0; i < length; i++)
		seen |= p[i] < 31 ? 1u << p[i] : 1u << 31;
	return seen;
}

START_TEST(test_far_durability)
{
	unsigned outcomes = 0;

	for (uint64_t seed = 0; seed < SEEDS; seed++) {
		struct simfar_config config = { .latency_ns = seed % 2 ? 1000000 : 0 };
		struct sim *sim = sim_create(seed);
		struct simfar_store *store = simfar_store_create(sim, &config);
		struct blk_dev *dev = simfar_create(sim, store);
		struct far_io io;
		uint8_t *cut;

		ck_assert_int_eq(blk_start(dev, NULL), 0);
		ck_assert_int_eq(far_do(sim, dev, &io, BLK_WRITE, 0, 1, 0), 0);
		ck_assert_uint_eq(bytes_seen(simfar_image(store)->durable, 4096), 1);
		ck_assert_int_eq(far_do(sim, dev, &io, BLK_FLUSH, 0, 0, 0), 0);
		ck_assert_uint_eq(bytes_seen(simfar_image(store)->durable, 4096), 2);
		ck_assert_int_eq(far_do(sim, dev, &io, BLK_WRITE, 8192, 7, BLK_FUA), 0);
		ck_assert_int_eq(far_do(sim, dev, &io, BLK_WRITE, 0, 2, 0), 0);
		cut = simfar_cut_copy(store);
		outcomes |= bytes_seen(cut, 4096);
		ck_assert_uint_eq(bytes_seen(cut, 4096) & ~6u, 0);
		ck_assert_uint_eq(bytes_seen(cut + 8192, 4096), 1u << 7);
		free(cut);
		ck_assert_int_eq(far_do(sim, dev, &io, BLK_READ, 0, 0, 0), 0);
		ck_assert_uint_eq(bytes_seen(io.buf, 4096), 1u << 2);
		ck_assert_int_eq(far_do(sim, dev, &io, BLK_ZERO, 0, 0, 0), 0);
		ck_assert_int_eq(far_do(sim, dev, &io, BLK_DISCARD, 0, 0, 0), -EOPNOTSUPP);
		ck_assert_int_eq(far_do(sim, dev, &io, BLK_WRITE, 1 << 20, 1, 0), -ENOSPC);
		blk_destroy(dev);
		simfar_store_destroy(store);
		sim_destroy(sim);
	}
	ck_assert_uint_eq(outcomes, 6);
}
END_TEST

START_TEST(test_far_ghosts)
{
	unsigned late = 0;
	unsigned lost = 0;

	for (uint64_t seed = 0; seed < 4 * SEEDS; seed++) {
		struct simfar_config config = { .latency_ns = 0 };
		struct sim *sim = sim_create(seed);
		struct simfar_store *store = simfar_store_create(sim, &config);
		struct blk_dev *dev = simfar_create(sim, store);
		struct far_io io;
		struct far_io flush;
		uint64_t generation = blk_generation(dev);

		ck_assert_int_eq(far_do(sim, dev, &io, BLK_WRITE, 4096, 3, 0), 0);
		far_start(dev, &io, BLK_WRITE, 0, 1, 0);
		simfar_cut(store, true);
		lost += simfar_image(store)->now[4096] != 3;
		ck_assert_uint_ne(blk_generation(dev), generation);
		ck_assert(sim_run_idle(sim) && !io.done);
		simfar_restore(store);
		ck_assert(sim_run_until(sim, far_is_done, &io));
		ck_assert_int_eq(io.result, 0);
		/* New bytes over the old ones: a ghost may still undo them, until a flush. */
		ck_assert_int_eq(far_do(sim, dev, &io, BLK_WRITE, 0, 2, 0), 0);
		ck_assert_int_eq(far_do(sim, dev, &flush, BLK_FLUSH, 0, 0, 0), 0);
		late += simfar_image(store)->now[0] == 1;
		ck_assert_int_eq(far_do(sim, dev, &io, BLK_WRITE, 0, 4, 0), 0);
		while (sim_advance(sim))
			ck_assert(sim_run_idle(sim));
		ck_assert_uint_eq(bytes_seen(simfar_image(store)->now, 4096), 1u << 4);
		blk_destroy(dev);
		simfar_store_destroy(store);
		sim_destroy(sim);
	}
	ck_assert_uint_gt(late, 0);
	ck_assert_uint_gt(lost, 0);
}
END_TEST

START_TEST(test_far_kill_faults_and_stop)
{
	for (uint64_t seed = 0; seed < SEEDS; seed++) {
		struct simfar_config config = { .drop_once_in = 2 };
		struct sim *sim = sim_create(seed);
		struct simfar_store *store = simfar_store_create(sim, &config);
		struct blk_dev *dev = simfar_create(sim, store);
		struct far_io io;
		int r;

		far_start(dev, &io, BLK_WRITE, 0, 1, 0);
		sim_reset(sim);
		ck_assert(!io.done && !sim_step(sim));
		dev = simfar_create(sim, store);
		ck_assert_int_eq(far_do(sim, dev, &io, BLK_WRITE, 0, 2, 0), 0);
		while (sim_advance(sim))
			ck_assert(sim_run_idle(sim));
		ck_assert_uint_eq(bytes_seen(simfar_image(store)->now, 4096), 1u << 2);
		simfar_fail(store, 1u << BLK_READ, 2, -EIO, false);
		ck_assert_int_eq(far_do(sim, dev, &io, BLK_READ, 0, 0, 0), 0);
		ck_assert_int_eq(far_do(sim, dev, &io, BLK_READ, 0, 0, 0), -EIO);
		r = far_do(sim, dev, &io, BLK_READ, 0, 0, BLK_ADVISORY);
		ck_assert(r == 0 || r == -ECANCELED);
		simfar_hold(store, 1u << BLK_READ);
		far_start(dev, &io, BLK_READ, 0, 0, 0);
		ck_assert(sim_run_idle(sim) && !io.done);
		blk_cancel(dev, &io.req);
		ck_assert(sim_run_until(sim, far_is_done, &io));
		ck_assert_int_eq(io.result, -EINTR);
		far_start(dev, &io, BLK_READ, 0, 0, 0);
		blk_stop(dev);
		ck_assert(io.done && (io.result == 0 || io.result == -ESHUTDOWN));
		far_start(dev, &io, BLK_READ, 0, 0, 0);
		ck_assert(io.done && io.result == -ESHUTDOWN);
		blk_destroy(dev);
		simfar_store_destroy(store);
		sim_destroy(sim);
	}
}
END_TEST

START_TEST(test_far_finds_overlap)
{
	struct simfar_config config = { .latency_ns = 0 };
	struct sim *sim = sim_create(5);
	struct blk_dev *dev = simfar_create(sim, simfar_store_create(sim, &config));
	struct far_io a;
	struct far_io b;

	far_start(dev, &a, BLK_READ, 0, 0, 0);
	far_start(dev, &b, BLK_WRITE, 3584, 1, 0);
}
END_TEST

static int count_blocks(void *ctx, const struct index_extent *e)
{
	ck_assert(e->kind == INDEX_ZERO && e->blk == *(uint64_t *)ctx);
	*(uint64_t *)ctx += e->nblocks;
	return 0;
}

static void put_next(struct index_store *s, uint64_t blk, bool durable)
{
	struct index_op op = {
		.kind = INDEX_PUT,
		.extent = { .blk = blk, .nblocks = 1, .kind = INDEX_ZERO },
	};

	ck_assert_int_eq(index_apply(s, &op, 1, durable), 0);
}

START_TEST(test_index_outlives)
{
	unsigned outcomes = 0;

	for (uint64_t seed = 0; seed < SEEDS; seed++) {
		struct sim *sim = sim_create(seed);
		struct simindex *index = simindex_create(sim);
		struct index_store *s = simindex_open(index);
		uint64_t blocks = 0;

		ck_assert(s->fresh);
		put_next(s, 0, false);
		put_next(s, 1, true);
		put_next(s, 2, false);
		put_next(s, 3, false);
		sim_reset(sim);
		s = simindex_open(index);
		ck_assert(!s->fresh);
		ck_assert_int_eq(index_load(s, count_blocks, &blocks), 0);
		ck_assert_uint_eq(blocks, 4);
		simindex_power_cut(index);
		s = simindex_open(index);
		blocks = 0;
		ck_assert_int_eq(index_load(s, count_blocks, &blocks), 0);
		ck_assert_int_eq(s->fresh, blocks == 0);
		outcomes |= 1u << blocks;
		simindex_fail(index, 2);
		blocks = 0;
		ck_assert_int_eq(index_put_state(s, "key", "value", 5), 0);
		ck_assert_int_eq(index_load(s, count_blocks, &blocks), -EIO);
		ck_assert_int_eq(index_put_state(s, "key", "value", 5), -EIO);
		ck_assert_uint_eq(simindex_fault_hits(index), 1);
		ck_assert_int_eq(index_wipe(s), 0);
		put_next(s, 0, true);
		index_destroy(s);
		simindex_destroy(index);
		sim_destroy(sim);
	}
	ck_assert_uint_eq(outcomes, 1u | 1u << 2 | 1u << 3 | 1u << 4);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("sim");
	TCase *tc = tcase_create("sim");

	tcase_add_test(tc, test_order_is_of_the_seed);
	tcase_add_test(tc, test_timers);
	tcase_add_test(tc, test_kill_keeps_what_was_done);
	tcase_add_test(tc, test_power_cut_loses_what_was_not_synced);
	tcase_add_test(tc, test_synced_is_kept);
	tcase_add_test(tc, test_names_after_a_power_cut);
	tcase_add_test(tc, test_disk_limits_and_reads);
	tcase_add_test(tc, test_index_outlives);
	tcase_add_test(tc, test_far_durability);
	tcase_add_test(tc, test_far_ghosts);
	tcase_add_test(tc, test_far_kill_faults_and_stop);
	tcase_add_test_raise_signal(tc, test_far_finds_overlap, SIGABRT);
	tcase_set_timeout(tc, 60);
	suite_add_tcase(s, tc);
	return run_suite(s);
}
