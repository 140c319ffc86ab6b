// SPDX-License-Identifier: Apache-2.0
#include "tests/cache/model.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cache/cache.h"
#include "cache/identity.h"
#include "cache/index.h"
#include "core/cleanup.h"
#include "core/clock.h"
#include "core/range.h"
#include "tests/lib/sim.h"
#include "tests/lib/simdisk.h"
#include "tests/lib/simfar.h"
#include "tests/lib/simindex.h"

#define MODEL_OPS 16
#define OP_MAX_BYTES (192u << 10)

struct op {
	struct model *m;
	bool busy;
	enum blk_op kind;
	uint64_t offset, length;
	uint8_t pattern;
	uint8_t *buf;
	struct iovec iov[3];
	struct blk_req req;
	uint64_t covers; /* FLUSH: changes acknowledged when it was submitted */
};

/* A change acknowledged since the last completed flush. */
struct change {
	uint64_t offset, length;
	uint8_t *bytes;
};

struct model {
	const struct model_config *conf;
	struct sim *sim;
	struct simdisk *disk;
	struct simfar_store *far;
	struct simindex *index;
	struct index_store *store;
	struct lio *lio;
	struct cache_identity identity;
	struct blk_dev *cache;
	uint8_t *now;  /* what the volume must read as */
	uint8_t *base; /* the same at the last completed flush */
	struct change *change;
	uint64_t nchanges, change_cap,
		flushed;       /* changes counted from the start; flushed of them in base */
	uint64_t first_change; /* number of change[0] */
	struct op *op[MODEL_OPS];
	unsigned generation;
	struct model_result result;
	struct cache_drain drain;
	bool drain_done;
	unsigned lives; /* crashes so far */
};

static void crash(struct model *m, bool power);

static void pattern_fill(uint8_t *buf, uint64_t offset, uint64_t length, unsigned generation)
{
	for (uint64_t i = 0; i < length; i++) {
		uint64_t x =
			(offset + i) * 0x9e3779b97f4a7c15ull + generation * 0xc2b2ae3d27d4eb4full;

		buf[i] = (uint8_t)((x >> 56) | 1);
	}
}

static void progress(void *ctx)
{
	struct model *m = ctx;

	if (!sim_step(m->sim) && !sim_advance(m->sim))
		sim_die(m->sim, "the cache waits and nothing is left to run");
}

static void open_cache(struct model *m)
{
	struct cache_config conf = { 0 };
	struct err err;
	int r;

	m->lio = simdisk_open(m->disk, m->sim);
	r = identity_load(m->lio, &m->identity, &err);
	if (r == -ENOENT) {
		if (identity_init(&m->identity, m->conf->limit_bytes) < 0 ||
		    identity_store(m->lio, &m->identity) < 0)
			sim_die(m->sim, "identity");
	} else if (r < 0) {
		sim_die(m->sim, "identity: %s", err.text);
	}
	conf.inner = simfar_create(m->sim, m->far);
	conf.sched = sim_sched(m->sim);
	conf.lio = m->lio;
	m->store = simindex_open(m->index);
	conf.index = m->store;
	conf.identity = &m->identity;
	conf.limit_bytes = m->conf->limit_bytes;
	conf.max_dirty_age_ns = 5 * NSEC_PER_SEC;
	conf.adaptive = m->conf->adaptive;
	conf.durability_target = m->conf->target;
	conf.no_readahead = m->conf->no_readahead;
	conf.progress = progress;
	conf.progress_ctx = m;
	m->cache = cache_create(&conf);
	r = blk_start(m->cache, &err);
	if (r < 0)
		sim_die(m->sim, "start: %s: %s", strerror(-r), err.text);
}

/* ---- requests ---- */

static void remember(struct model *m, const struct op *op)
{
	struct change *c;

	if (m->nchanges - m->first_change == m->change_cap) {
		m->change_cap = MAX(m->change_cap * 2, (uint64_t)64);
		m->change = realloc(m->change, m->change_cap * sizeof(*m->change));
	}
	c = &m->change[m->nchanges++ - m->first_change];
	c->offset = op->offset;
	c->length = op->length;
	c->bytes = calloc(1, op->length);
	if (op->kind == BLK_WRITE)
		memcpy(c->bytes, op->buf, op->length);
	memcpy(m->now + op->offset, c->bytes, op->length);
}

/* All changes up to number @upto are in the base now. */
static void advance_base(struct model *m, uint64_t upto)
{
	uint64_t n;

	if (upto <= m->first_change)
		return;
	n = upto - m->first_change;
	for (uint64_t i = 0; i < n; i++) {
		memcpy(m->base + m->change[i].offset, m->change[i].bytes, m->change[i].length);
		free(m->change[i].bytes);
	}
	memmove(m->change, m->change + n, (m->nchanges - upto) * sizeof(*m->change));
	m->first_change = upto;
}

static void check_read(struct model *m, const struct op *op)
{
	for (uint64_t i = 0; i < op->length; i++)
		if (op->buf[i] != m->now[op->offset + i])
			sim_die(m->sim,
				"read at %" PRIu64 "+%" PRIu64 ": byte %" PRIu64
				" is %02x, not %02x",
				op->offset, op->length, op->offset + i, op->buf[i],
				m->now[op->offset + i]);
}

static void op_done(struct blk_req *req, void *ctx, int result)
{
	struct op *op = ctx;
	struct model *m = op->m;

	(void)req;
	if (!op->busy)
		sim_die(m->sim, "done twice");
	op->busy = false;
	if (result < 0)
		sim_die(m->sim, "op %d at %" PRIu64 ": %s", op->kind, op->offset,
			strerror(-result));
	switch (op->kind) {
	case BLK_READ:
		check_read(m, op);
		break;
	case BLK_WRITE:
	case BLK_ZERO:
	case BLK_DISCARD:
		remember(m, op);
		if (op->req.flags & BLK_FUA)
			advance_base(m, m->nchanges);
		break;
	case BLK_FLUSH:
		advance_base(m, op->covers);
		break;
	}
}

/* One step of the schedule, and the cut if its time has come. False: nothing can run now. */
static bool step(struct model *m)
{
	if (!sim_step(m->sim))
		return false;
	if (++m->result.steps != m->conf->cut_at)
		return true;
	if (m->conf->cut == MODEL_KILL || m->conf->cut == MODEL_POWER) {
		crash(m, m->conf->cut == MODEL_POWER);
	} else if (!simfar_is_down(m->far)) {
		simfar_cut(m->far, m->conf->cut == MODEL_TARGET);
		simfar_restore(m->far);
	}
	return true;
}

static void run_on(struct model *m, const char *what)
{
	if (!step(m) && !sim_advance(m->sim))
		sim_die(m->sim, "%s, and nothing is left to run", what);
}

static bool all_done(const struct model *m)
{
	for (unsigned i = 0; i < MODEL_OPS; i++)
		if (m->op[i] && m->op[i]->busy)
			return false;
	return true;
}

static void settle(struct model *m)
{
	if (simfar_is_down(m->far))
		simfar_restore(m->far);
	while (!all_done(m))
		run_on(m, "requests do not end");
}

static bool overlaps_busy(const struct model *m, uint64_t offset, uint64_t length, bool change)
{
	for (unsigned i = 0; i < MODEL_OPS; i++) {
		const struct op *op = m->op[i];

		if (op && op->busy && op->kind != BLK_FLUSH && (change || op->kind != BLK_READ) &&
		    range_overlap(op->offset, op->length, offset, length))
			return true;
	}
	return false;
}

static struct op *free_op(struct model *m)
{
	for (unsigned i = 0; i < MODEL_OPS; i++) {
		if (m->op[i] && m->op[i]->busy)
			continue;
		if (!m->op[i]) {
			m->op[i] = sim_alloc(sizeof(struct op));
			m->op[i]->buf = sim_alloc(OP_MAX_BYTES);
			m->op[i]->m = m;
		}
		return m->op[i];
	}
	return NULL;
}

static void pick_range(struct model *m, uint64_t *ret_offset, uint64_t *ret_length)
{
	uint64_t size = m->conf->size_bytes, offset, length;

	/* Half of the time in a small, hot part, so that versions pile up. */
	offset = sim_below(m->sim, sim_once_in(m->sim, 2) ? MIN(size, (uint64_t)256 << 10) : size);
	switch (sim_below(m->sim, 4)) {
	case 0:
		length = 1 + sim_below(m->sim, 8192);
		break;
	case 1:
		offset = round_down(offset, 4096);
		length = 4096 * (1 + sim_below(m->sim, 4));
		break;
	case 2:
		offset = round_down(offset, 512);
		length = 512 * (1 + sim_below(m->sim, 24));
		break;
	default:
		offset = round_down(offset, 4096);
		length = 4096 * (1 + sim_below(m->sim, OP_MAX_BYTES / 4096));
		break;
	}
	*ret_offset = offset;
	*ret_length = MIN(length, size - offset);
}

static void submit_op(struct model *m)
{
	struct op *op = free_op(m);
	unsigned kind = (unsigned)sim_below(m->sim, 20);
	uint64_t cut;
	bool fua;

	if (!op)
		return;
	pick_range(m, &op->offset, &op->length);
	op->kind = kind < 8                        ? BLK_READ
		   : kind < 16                     ? BLK_WRITE
		   : kind < 17                     ? BLK_ZERO
		   : kind < 18 && m->conf->discard ? BLK_DISCARD
						   : BLK_FLUSH;
	if (m->conf->crash_once_in && (op->kind == BLK_ZERO || op->kind == BLK_DISCARD)) {
		/* Edges inside a block are writes of their own: three places in the order, not one.
		 */
		op->length += op->offset % 4096;
		op->offset = round_down(op->offset, 4096);
		op->length = MIN(round_up(op->length, 4096), m->conf->size_bytes - op->offset);
	}
	if (op->kind != BLK_FLUSH && overlaps_busy(m, op->offset, op->length, op->kind != BLK_READ))
		return;
	/* Its done() comes later than its place in the order of writes: alone, the two agree. */
	fua = op->kind == BLK_WRITE && sim_once_in(m->sim, 16);
	if (fua)
		settle(m);
	cut = sim_below(m->sim, op->length + 1);
	op->iov[0] = (struct iovec){ op->buf, cut };
	op->iov[1] = (struct iovec){ op->buf + cut, op->length - cut };
	blk_req_init(&op->req, op->kind, op->offset, op->length, op->iov, 2);
	if (op->kind == BLK_WRITE) {
		pattern_fill(op->buf, op->offset, op->length, ++m->generation);
		op->req.flags = fua ? BLK_FUA : 0;
	} else if (op->kind == BLK_READ) {
		memset(op->buf, 0xee, op->length);
	} else {
		op->req.iov = NULL;
		op->req.iovcnt = 0;
	}
	op->covers = m->nchanges;
	m->result.reads += op->kind == BLK_READ;
	m->result.flushes += op->kind == BLK_FLUSH;
	m->result.writes += op->kind != BLK_READ && op->kind != BLK_FLUSH;
	op->busy = true;
	blk_submit(m->cache, &op->req, op_done, op);
	if (fua)
		settle(m);
}

/* ---- crashes ---- */

static bool in_doubt(const struct model *m, uint64_t byte)
{
	return overlaps_busy(m, byte, 1, false);
}

/* Where the cache says zeroes, zeroes are. */
static void check_known_zero(struct model *m)
{
	uint64_t at, length;

	pick_range(m, &at, &length);
	if (!length || !blk_known_zero(m->cache, at, length, &length))
		return;
	for (uint64_t end = at + length; at < end; at++)
		if (m->now[at] && !in_doubt(m, at))
			sim_die(m->sim, "byte %" PRIu64 " is said to be zero and is %02x", at,
				m->now[at]);
	m->result.zeroes++;
}

struct sync_read {
	struct blk_req req;
	struct iovec iov;
	bool done;
	int result;
};

static void sync_read_done(struct blk_req *req, void *ctx, int result)
{
	struct sync_read *r = ctx;

	(void)req;
	r->result = result;
	r->done = true;
}

static bool sync_read_ended(void *ctx)
{
	return ((struct sync_read *)ctx)->done;
}

static uint8_t *read_all(struct model *m)
{
	uint8_t *all = sim_alloc(m->conf->size_bytes);
	struct sync_read r = { .iov = { all, m->conf->size_bytes } };

	blk_req_init(&r.req, BLK_READ, 0, m->conf->size_bytes, &r.iov, 1);
	r.req.lane = BLK_LANE_WARM;
	blk_submit(m->cache, &r.req, sync_read_done, &r);
	if (!sim_run_until(m->sim, sync_read_ended, &r) || r.result < 0)
		sim_die(m->sim, "reading all of it: %d", r.result);
	return all;
}

/* The bytes must be the base plus the first k changes, for some k >= least. */
static void check_prefix(struct model *m, const uint8_t *all, uint64_t least)
{
	uint64_t n = m->nchanges - m->first_change, wrong = 0, size = m->conf->size_bytes;
	cleanup_free uint8_t *state = malloc(size);

	memcpy(state, m->base, size);
	for (uint64_t i = 0; i < size; i++)
		wrong += state[i] != all[i] && !in_doubt(m, i);
	for (uint64_t k = 0;; k++) {
		const struct change *c;

		if (wrong == 0 && k >= least)
			return;
		if (k == n)
			break;
		c = &m->change[k];
		for (uint64_t i = 0; i < c->length; i++) {
			uint64_t at = c->offset + i;

			if (in_doubt(m, at))
				continue;
			wrong -= state[at] != all[at];
			state[at] = c->bytes[i];
			wrong += state[at] != all[at];
		}
	}
	for (uint64_t i = 0; i < size; i++)
		if (state[i] != all[i] && !in_doubt(m, i))
			sim_die(m->sim,
				"after the crash: no prefix of %" PRIu64
				" changes fits (at least %" PRIu64
				"); the last leaves byte %" PRIu64 " at %02x, not %02x",
				n, least, i, all[i], state[i]);
	sim_die(m->sim, "after the crash: acknowledged changes are missing");
}

static void forget_ops(struct model *m)
{
	for (unsigned i = 0; i < MODEL_OPS; i++) {
		if (m->op[i] && m->op[i]->busy) {
			sim_bury(m->op[i]);
			m->op[i] = NULL;
		}
	}
}

static void crash(struct model *m, bool power)
{
	uint8_t *all;

	if (power) {
		simdisk_power_cut(m->disk);
		simindex_power_cut(m->index);
	} else {
		simdisk_kill(m->disk);
		simindex_kill(m->index);
	}
	simfar_kill(m->far);
	sim_reset(m->sim);
	m->cache->inner = NULL;
	cache_abandon(m->cache);
	if (simfar_is_down(m->far))
		simfar_restore(m->far);
	open_cache(m);
	cache_check(m->cache);
	all = read_all(m);
	check_prefix(m, all, power ? 0 : m->nchanges - m->first_change);
	forget_ops(m);
	/* What it is now is what it must stay. */
	memcpy(m->now, all, m->conf->size_bytes);
	memcpy(m->base, all, m->conf->size_bytes);
	for (uint64_t i = 0; i < m->nchanges - m->first_change; i++)
		free(m->change[i].bytes);
	m->first_change = m->nchanges;
	free(all);
	m->lives++;
}

static void stop_cache(struct model *m)
{
	blk_stop(m->cache);
	blk_destroy(m->cache);
	m->cache = NULL;
	index_destroy(m->store);
	lio_destroy(m->lio);
	m->lio = NULL;
}

static void restart(struct model *m)
{
	settle(m);
	stop_cache(m);
	if (sim_once_in(m->sim, 4))
		simindex_lose(m->index);
	open_cache(m);
	advance_base(m, m->nchanges);
	m->result.restarts++;
}

static void drained(struct cache_drain *d, int result)
{
	struct model *m = container_of(d, struct model, drain);

	if (result < 0)
		sim_die(m->sim, "drain: %s", strerror(-result));
	m->drain_done = true;
}

static void drain(struct model *m)
{
	cleanup_free uint8_t *far = NULL;
	struct cache_status st;
	unsigned life;

	settle(m);
	simfar_fail(m->far, 0, 0, 0, false);
	if (simfar_is_down(m->far))
		simfar_restore(m->far);
	m->drain_done = false;
	m->drain.done = drained;
	do {
		life = m->lives;
		cache_drain(m->cache, &m->drain);
		while (!m->drain_done && m->lives == life)
			run_on(m, "the drain does not end");
	} while (!m->drain_done);
	cache_status(m->cache, &st);
	if (st.dirty_bytes)
		sim_die(m->sim, "drained and still %" PRIu64 " bytes dirty", st.dirty_bytes);
	/* What the far side holds whatever happens to it now. */
	far = simfar_cut_copy(m->far);
	for (uint64_t i = 0; i < m->conf->size_bytes; i++)
		if (far[i] != m->now[i])
			sim_die(m->sim, "far byte %" PRIu64 " is %02x, not %02x", i, far[i],
				m->now[i]);
}

/* ---- the run ---- */

static void act(struct model *m)
{
	const struct model_config *conf = m->conf;

	if (conf->crash_once_in && sim_once_in(m->sim, conf->crash_once_in)) {
		switch (sim_below(m->sim, 3)) {
		case 0:
			crash(m, false);
			m->result.kills++;
			break;
		case 1:
			crash(m, true);
			m->result.power_cuts++;
			break;
		default:
			if (!simfar_is_down(m->far))
				restart(m);
			break;
		}
		return;
	}
	if (conf->fault_once_in && sim_once_in(m->sim, conf->fault_once_in))
		simfar_fail(m->far, 1u << BLK_WRITE | 1u << BLK_FLUSH | 1u << BLK_ZERO,
			    1 + sim_below(m->sim, 8), -EIO, false);
	if (conf->cut_once_in && sim_once_in(m->sim, conf->cut_once_in)) {
		if (simfar_is_down(m->far)) {
			simfar_restore(m->far);
		} else {
			simfar_cut(m->far, sim_once_in(m->sim, 2));
			m->result.link_cuts++;
		}
	}
	if (sim_once_in(m->sim, 400))
		drain(m);
	if (sim_once_in(m->sim, 300) && cache_drop(m->cache) < 0)
		sim_die(m->sim, "drop");
	check_known_zero(m);
	submit_op(m);
	for (uint64_t k = sim_below(m->sim, 20); k > 0; k--)
		if (!step(m)) {
			if (sim_once_in(m->sim, 8))
				sim_advance(m->sim);
			break;
		}
	if (sim_once_in(m->sim, 50))
		cache_check(m->cache);
}

struct model_result model_run(const struct model_config *config)
{
	struct simfar_config far = { .info = { .size_bytes = config->size_bytes } };
	struct model m = { .conf = config };

	m.sim = sim_create(config->seed);
	m.disk = simdisk_create(m.sim);
	far.info.flags = BLK_INFO_VOLATILE | (config->discard ? BLK_INFO_CAN_DISCARD : 0);
	if (config->discard) {
		far.info.discard_align_bytes = 16384;
		far.info.max_discard_bytes = 1 << 20;
	}
	far.drop_once_in = 5;
	m.far = simfar_store_create(m.sim, &far);
	m.index = simindex_create(m.sim);
	m.now = sim_alloc(config->size_bytes);
	m.base = sim_alloc(config->size_bytes);
	open_cache(&m);
	for (unsigned i = 0; i < config->steps; i++)
		act(&m);
	drain(&m);
	stop_cache(&m);
	simindex_destroy(m.index);
	simfar_store_destroy(m.far);
	simdisk_destroy(m.disk);
	for (unsigned i = 0; i < MODEL_OPS; i++) {
		if (m.op[i])
			free(m.op[i]->buf);
		free(m.op[i]);
	}
	for (uint64_t i = 0; i < m.nchanges - m.first_change; i++)
		free(m.change[i].bytes);
	free(m.change);
	free(m.now);
	free(m.base);
	sim_destroy(m.sim);
	return m.result;
}
