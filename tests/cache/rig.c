// SPDX-License-Identifier: Apache-2.0
#include "tests/cache/rig.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cache/index.h"
#include "cache/lio.h"
#include "core/cleanup.h"
#include "core/clock.h"
#include "core/range.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/lsan_interface.h>
#else
static void __lsan_disable(void)
{
}

static void __lsan_enable(void)
{
}
#endif

#define LIMIT_BYTES (12 * RIG_SEGMENT_BYTES)
#define END_NS (600 * NSEC_PER_SEC)

static void fill(uint8_t *buf, uint64_t offset, uint64_t length, uint64_t number)
{
	for (uint64_t i = 0; i < length; i++) {
		uint64_t x = (offset + i) * 0x9e3779b97f4a7c15ull + number * 0xc2b2ae3d27d4eb4full;

		buf[i] = (uint8_t)((x >> 56) | 1);
	}
}

static void advance(struct rig *rig)
{
	if (!sim_step(rig->sim) && !sim_advance(rig->sim))
		sim_die(rig->sim, "the cache waits and nothing is left to run");
}

static void progress(void *ctx)
{
	advance(ctx);
}

struct rig *rig_create(uint64_t seed, uint64_t size_bytes)
{
	struct simfar_config far = {
		.info = { .size_bytes = size_bytes,
			  .flags = BLK_INFO_VOLATILE | BLK_INFO_CAN_DISCARD,
			  .discard_align_bytes = RIG_ALIGN },
	};
	struct rig *rig = sim_alloc(sizeof(*rig));

	rig->sim = sim_create(seed);
	rig->disk = simdisk_create(rig->sim);
	rig->far = simfar_store_create(rig->sim, &far);
	rig->index = simindex_create(rig->sim);
	rig->size = size_bytes;
	rig->limit_bytes = LIMIT_BYTES;
	rig->max_dirty_age_ns = 5 * NSEC_PER_SEC;
	rig->now = sim_alloc(size_bytes);
	rig->safe = sim_alloc(size_bytes);
	rig->now_stamp = sim_alloc(size_bytes * sizeof(uint32_t));
	rig->safe_stamp = sim_alloc(size_bytes * sizeof(uint32_t));
	rig->first = sim_alloc(size_bytes);
	fill(rig->first, 0, size_bytes, 0);
	memcpy(rig->now, rig->first, size_bytes);
	memcpy(rig->safe, rig->now, size_bytes);
	simfar_meddle(rig->far, 0, rig->now, size_bytes);
	if (identity_init(&rig->identity, 1) < 0)
		sim_die(rig->sim, "identity");
	/* Kept in memory: the record on disk would refuse segments this small. */
	rig->identity.segment_bytes = RIG_SEGMENT_BYTES;
	return rig;
}

void rig_will_be_killed(struct rig *rig)
{
	if (!rig->doomed)
		__lsan_disable();
	rig->doomed = true;
}

void rig_destroy(struct rig *rig)
{
	if (rig->doomed)
		__lsan_enable();
	simindex_destroy(rig->index);
	simfar_store_destroy(rig->far);
	simdisk_destroy(rig->disk);
	for (size_t i = 0; i < rig->nops; i++) {
		free(rig->op[i]->buf);
		free(rig->op[i]);
	}
	free(rig->op);
	free(rig->first);
	free(rig->now);
	free(rig->safe);
	free(rig->now_stamp);
	free(rig->safe_stamp);
	sim_destroy(rig->sim);
	free(rig);
}

static void close_all(struct rig *rig)
{
	blk_destroy(rig->cache);
	rig->cache = NULL;
	index_destroy(rig->store);
	lio_destroy(rig->lio);
}

int rig_open(struct rig *rig)
{
	struct cache_config conf = { 0 };
	int r;

	rig->lio = simdisk_open(rig->disk, rig->sim);
	rig->store = simindex_open(rig->index);
	conf.inner = simfar_create(rig->sim, rig->far);
	conf.sched = sim_sched(rig->sim);
	conf.lio = rig->lio;
	conf.index = rig->store;
	conf.identity = &rig->identity;
	conf.limit_bytes = rig->limit_bytes;
	conf.max_dirty_bytes = rig->max_dirty_bytes;
	conf.max_dirty_age_ns = rig->max_dirty_age_ns;
	conf.no_readahead = true;
	conf.progress = progress;
	conf.progress_ctx = rig;
	rig->cache = cache_create(&conf);
	r = blk_start(rig->cache, &rig->err);
	if (r < 0)
		close_all(rig);
	return r;
}

static void check_all_ended(struct rig *rig)
{
	for (size_t i = rig->first_op; i < rig->nops; i++)
		if (rig->op[i]->dones != 1)
			sim_die(rig->sim, "request %zu has no done() after the stop", i);
}

void rig_stop(struct rig *rig)
{
	blk_stop(rig->cache);
	check_all_ended(rig);
	close_all(rig);
}

static void dead(struct rig *rig)
{
	simfar_kill(rig->far);
	sim_reset(rig->sim);
	rig->cache->inner = NULL;
	cache_abandon(rig->cache);
	rig->cache = NULL;
	rig->first_op = rig->nops;
}

void rig_kill(struct rig *rig)
{
	simdisk_kill(rig->disk);
	simindex_kill(rig->index);
	dead(rig);
}

void rig_power_cut(struct rig *rig)
{
	simdisk_power_cut(rig->disk);
	simindex_power_cut(rig->index);
	rig->unsettled = true;
	rig->power_op = rig->nops;
	dead(rig);
}

/* ---- requests ---- */

static bool is_change(const struct rig_op *op)
{
	return op->req.op != BLK_READ && op->req.op != BLK_FLUSH;
}

/* What the change makes of byte @at of the volume. */
static uint8_t byte_of(const struct rig_op *op, uint64_t at)
{
	return op->req.op == BLK_WRITE ? op->buf[at - op->req.offset] : 0;
}

static bool covers(const struct rig_op *op, uint64_t at)
{
	return is_change(op) && at >= op->req.offset && at < op->req.offset + op->req.length;
}

/* A change later than @stamp that would make byte @at be @value. */
static bool may_be(const struct rig *rig, uint64_t at, uint8_t value, uint32_t stamp, bool failed)
{
	for (size_t i = rig->nops; i-- > 0;) {
		const struct rig_op *op = rig->op[i];

		if (is_change(op) && op->number <= stamp)
			return false;
		if (failed && op->dones && op->result == 0)
			continue;
		if (covers(op, at) && byte_of(op, at) == value)
			return true;
	}
	return false;
}

static bool byte_fine(const struct rig *rig, uint64_t at, uint8_t value)
{
	if (rig->unsettled)
		return value == rig->safe[at] || may_be(rig, at, value, rig->safe_stamp[at], false);
	return value == rig->now[at] || may_be(rig, at, value, rig->now_stamp[at], true);
}

static void check_bytes(const struct rig *rig, uint64_t offset, uint64_t length,
			const uint8_t *bytes)
{
	for (uint64_t i = 0; i < length; i++)
		if (!byte_fine(rig, offset + i, bytes[i]))
			sim_die(rig->sim,
				"byte %" PRIu64 " (block %" PRIu64 ") reads %02x, not %02x",
				offset + i, (offset + i) / RIG_BLK, bytes[i],
				rig->unsettled ? rig->safe[offset + i] : rig->now[offset + i]);
}

static void make_safe(struct rig *rig, struct rig_op *op)
{
	op->safe = true;
	for (uint64_t at = op->req.offset; at < op->req.offset + op->req.length; at++) {
		if (rig->safe_stamp[at] >= op->number)
			continue;
		rig->safe[at] = byte_of(op, at);
		rig->safe_stamp[at] = op->number;
	}
}

static void acknowledged(struct rig *rig, struct rig_op *op)
{
	for (uint64_t at = op->req.offset; at < op->req.offset + op->req.length; at++) {
		rig->now[at] = byte_of(op, at);
		rig->now_stamp[at] = op->number;
	}
	if (op->req.flags & BLK_FUA)
		make_safe(rig, op);
}

static void flushed(struct rig *rig, const struct rig_op *flush)
{
	for (size_t i = rig->power_op; i < rig->nops; i++)
		if (is_change(rig->op[i]) && !rig->op[i]->safe && rig->op[i]->dones &&
		    rig->op[i]->result == 0 && rig->op[i]->moment < flush->moment)
			make_safe(rig, rig->op[i]);
}

static void op_done(struct blk_req *req, void *ctx, int result)
{
	struct rig_op *op = ctx;
	struct rig *rig = op->rig;

	if (op->dones++)
		sim_die(rig->sim, "done() came twice");
	op->result = result;
	if (result < 0 && !rig->lenient && result != -ESHUTDOWN && result != -EINTR)
		sim_die(rig->sim, "op %d of %" PRIu64 "+%" PRIu64 ": %s", req->op, req->offset,
			req->length, strerror(-result));
	if (result < 0)
		return;
	if (is_change(op)) {
		op->moment = ++rig->moment;
		acknowledged(rig, op);
	} else if (req->op == BLK_FLUSH) {
		flushed(rig, op);
	} else if (!op->raced) {
		check_bytes(rig, req->offset, req->length, op->buf);
	}
}

static bool overlaps(struct rig *rig, enum blk_op kind, uint64_t offset, uint64_t length)
{
	for (size_t i = rig->first_op; i < rig->nops; i++) {
		struct rig_op *op = rig->op[i];

		if (op->dones || (!is_change(op) && kind == BLK_READ) ||
		    !range_overlap(op->req.offset, op->req.length, offset, length))
			continue;
		if (is_change(op) || !rig->races)
			return true;
		op->raced = true;
	}
	return false;
}

struct rig_op *rig_submit(struct rig *rig, enum blk_op kind, uint64_t offset, uint64_t length,
			  unsigned flags)
{
	struct rig_op *op;

	if (kind != BLK_FLUSH && overlaps(rig, kind, offset, length))
		return NULL;
	op = sim_alloc(sizeof(*op));
	if (rig->nops == rig->cap) {
		rig->cap = rig->cap ? 2 * rig->cap : 64;
		rig->op = sim_realloc(rig->op, rig->cap * sizeof(struct rig_op *));
	}
	op->rig = rig;
	if (kind == BLK_READ || kind == BLK_WRITE) {
		op->buf = sim_alloc(length);
		memset(op->buf, 0xee, length);
		op->iov = (struct iovec){ op->buf, length };
	}
	blk_req_init(&op->req, kind, offset, length, op->buf ? &op->iov : NULL, op->buf ? 1 : 0);
	op->req.flags = flags;
	if (is_change(op))
		op->number = ++rig->changes;
	if (kind == BLK_WRITE)
		fill(op->buf, offset, length, op->number);
	if (kind == BLK_FLUSH)
		op->moment = ++rig->moment;
	rig->op[rig->nops++] = op;
	blk_submit(rig->cache, &op->req, op_done, op);
	return op;
}

static bool until(struct rig *rig, bool (*cond)(struct rig *rig), const struct rig_op *op,
		  uint64_t ns)
{
	struct sched *sched = sim_sched(rig->sim);
	uint64_t end = sched_now(sched) + ns;

	for (;;) {
		if (cond ? cond(rig) : op && op->dones)
			return true;
		if (sched_now(sched) > end)
			return false;
		if (!sim_step(rig->sim) && !sim_advance(rig->sim))
			return false;
	}
}

bool rig_wait(struct rig *rig, struct rig_op *op, uint64_t ns)
{
	return until(rig, NULL, op, ns);
}

bool rig_run(struct rig *rig, bool (*cond)(struct rig *rig), uint64_t ns)
{
	return until(rig, cond, NULL, ns);
}

void rig_pass(struct rig *rig, uint64_t ns)
{
	until(rig, NULL, NULL, ns);
}

void rig_do(struct rig *rig, enum blk_op kind, uint64_t offset, uint64_t length, unsigned flags)
{
	struct rig_op *op = rig_submit(rig, kind, offset, length, flags);

	if (!op || !rig_wait(rig, op, END_NS))
		sim_die(rig->sim, "op %d of %" PRIu64 "+%" PRIu64 " does not end", kind, offset,
			length);
	if (op->result < 0)
		sim_die(rig->sim, "op %d: %s", kind, strerror(-op->result));
}

static bool all_ended(struct rig *rig)
{
	for (size_t i = rig->first_op; i < rig->nops; i++)
		if (!rig->op[i]->dones)
			return false;
	return true;
}

void rig_wait_all(struct rig *rig)
{
	if (!rig_run(rig, all_ended, END_NS))
		sim_die(rig->sim, "requests do not end");
}

/* ---- drain ---- */

static void drain_done(struct cache_drain *d, int result)
{
	struct rig *rig = container_of(d, struct rig, drain);

	rig->drained = true;
	rig->drain_result = result;
}

static bool drain_ended(struct rig *rig)
{
	return rig->drained;
}

int rig_drain(struct rig *rig, uint64_t ns)
{
	rig->drained = false;
	rig->drain.done = drain_done;
	cache_drain(rig->cache, &rig->drain);
	if (rig_run(rig, drain_ended, ns))
		return rig->drain_result;
	if (!cache_drain_cancel(rig->cache, &rig->drain))
		sim_die(rig->sim, "a drain that waits cannot be taken back");
	return -ETIMEDOUT;
}

void rig_check_far(struct rig *rig)
{
	cleanup_free uint8_t *far = simfar_cut_copy(rig->far);

	check_bytes(rig, 0, rig->size, far);
}

/* ---- reading all ---- */

bool rig_was(const struct rig *rig, uint64_t at, uint8_t value)
{
	return value == rig->first[at] || may_be(rig, at, value, 0, false);
}

int rig_read(struct rig *rig, uint64_t offset, uint64_t length, uint8_t *buf)
{
	struct rig_op *op;
	bool lenient = rig->lenient;
	int r;

	rig->lenient = true;
	op = rig_submit(rig, BLK_READ, offset, length, 0);
	if (!rig_wait(rig, op, END_NS))
		sim_die(rig->sim, "a read does not end");
	rig->lenient = lenient;
	r = op->result;
	if (buf)
		memcpy(buf, op->buf, length);
	/* It is not needed any more. */
	rig->nops--;
	free(op->buf);
	free(op);
	return r;
}

static uint64_t read_all(struct rig *rig, uint8_t *all, bool errors_fine)
{
	uint64_t failed = 0;

	for (uint64_t at = 0; at < rig->size; at += RIG_MAX_BYTES) {
		uint64_t n = MIN((uint64_t)RIG_MAX_BYTES, rig->size - at);
		int r = rig_read(rig, at, n, all + at);

		if (r < 0 && !errors_fine)
			sim_die(rig->sim, "reading %" PRIu64 ": %s", at, strerror(-r));
		if (r < 0)
			failed += n;
	}
	return failed;
}

uint64_t rig_read_all(struct rig *rig, bool errors_fine)
{
	cleanup_free uint8_t *all = sim_alloc(rig->size);

	return read_all(rig, all, errors_fine);
}

void rig_settle(struct rig *rig)
{
	cleanup_free uint8_t *all = sim_alloc(rig->size);

	read_all(rig, all, false);
	memcpy(rig->now, all, rig->size);
	memcpy(rig->safe, all, rig->size);
	for (uint64_t i = 0; i < rig->size; i++)
		rig->now_stamp[i] = rig->safe_stamp[i] = rig->changes;
	rig->unsettled = false;
}
