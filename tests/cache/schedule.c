// SPDX-License-Identifier: Apache-2.0
/*
 * Near cuts leave by longjmp(): they come between two steps of the scheduler and before each call
 * to the local disk, also while the cache starts or stops, and what was under way is never looked
 * at again. What it had allocated stays: see schedules-test.c, which lives in short processes.
 */
#include "tests/cache/schedule.h"

#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cache/cache.h"
#include "cache/identity.h"
#include "cache/index.h"
#include "core/cleanup.h"
#include "core/clock.h"
#include "core/range.h"
#include "tests/cache/order.h"
#include "tests/lib/sim.h"
#include "tests/lib/simdisk.h"
#include "tests/lib/simfar.h"
#include "tests/lib/simindex.h"

#define SEGMENT_BYTES (64u << 10)
#define LIMIT_BYTES (10 * SEGMENT_BYTES)
#define OPS 8
#define OP_BLOCKS 8u /* so that what is fetched at once fits a segment */
#define STEPS_MAX 100000u
#define CUTS_MAX 3

static const char *const cut_name[SCHEDULE_CUTS] = {
	"kill",
	"power cut",
	"link cut",
	"target's power cut",
	"kill, and target's power cut",
	"power cut here and there",
};

struct guest_op {
	struct schedule *s;
	enum blk_op kind;
	bool busy, fua, raced;
	uint32_t stamp;
	uint64_t sector, n;
	uint64_t last;  /* newest record when it was submitted */
	uint64_t acked; /* newest one that was acknowledged by then */
	int result;
	struct blk_req req;
	struct iovec iov[2];
	uint8_t *buf;
};

struct schedule {
	struct sim *sim;
	struct simdisk *disk;
	struct simfar_store *far;
	struct simindex *index;
	struct order *order;
	struct schedule_result *sum;
	jmp_buf top;

	struct lio *lio;
	struct index_store *store;
	struct blk_dev *cache;
	struct cache_identity identity;      /* what the process knows */
	struct cache_identity file, durable; /* what the files have, what a power cut leaves */
	bool starting, stopping, recovered;

	uint64_t nsectors;
	uint64_t max_age_ns;
	unsigned ops_left, in_flight_max;
	struct guest_op op[OPS];
	uint32_t stamp;
	uint64_t acked, flushed; /* the newest record acknowledged; promised to be durable */

	uint64_t steps;
	uint64_t cut_at[CUTS_MAX];
	enum schedule_cut cut[CUTS_MAX];
	unsigned ncuts, cuts_done;
	uint64_t restore_at;
	struct cache_drain drain;
	bool drained;
};

/* ---- what may be where ---- */

static bool wanted(void *ctx, uint64_t sector, uint32_t stamp)
{
	struct schedule *s = ctx;

	for (unsigned i = 0; i < OPS; i++) {
		const struct guest_op *op = &s->op[i];
		uint32_t value = op->kind == BLK_WRITE ? op->stamp : 0;

		if (op->busy && op->kind != BLK_READ && op->kind != BLK_FLUSH && value == stamp &&
		    range_overlap(op->sector, op->n, sector, 1))
			return true;
	}
	return false;
}

/* The deletions that make it safe are durable in the index. */
static void reused(void *ctx, uint64_t seq)
{
	struct schedule *s = ctx;
	uint8_t tail[16];
	uint64_t known = 0;
	size_t length;

	if (simindex_durable_state(s->index, "log-tail", tail, sizeof(tail), &length) == 0)
		for (unsigned i = 8; i-- > 0;)
			known = known << 8 | tail[i];
	if (known < seq)
		sim_die(s->sim,
			"a segment with record %" PRIu64
			" is reused, and the index durably knows of %" PRIu64,
			seq, known);
}

struct far_state {
	uint64_t states;
	unsigned newest; /* epoch */
};

static void far_holds(struct schedule *s, struct far_state *f, uint64_t sector, uint32_t stamp)
{
	unsigned epoch;

	f->states &= order_states(s->order, sector, stamp, &epoch);
	f->newest = MAX(f->newest, epoch);
	if (!f->states)
		sim_die(s->sim,
			"the far side is in no legal state: sector %" PRIu64
			" may be %u there (of epoch %u)",
			sector, stamp, epoch);
}

/* Whatever of its volatile cache is lost: see order.h. */
static void check_far(struct schedule *s)
{
	const struct simimage *img = simfar_image(s->far);
	const struct order *o = s->order;
	struct far_state f = { .states = UINT64_MAX };
	struct list_node *n;

	for (uint64_t i = 0; i < s->nsectors; i++)
		far_holds(s, &f, i, order_peek(s->sim, img->durable + i * ORDER_SECTOR, i));
	list_for_each(n, &img->pending) {
		const struct simchange *c = list_entry(n, struct simchange, link);

		for (uint64_t at = 0; at < c->length; at += ORDER_SECTOR) {
			uint64_t sector = (c->offset + at) / ORDER_SECTOR;

			far_holds(s, &f, sector,
				  c->data ? order_peek(s->sim, c->data + at, sector) : 0);
		}
	}
	if (f.newest && order_durable(o) < o->epoch_end[f.newest])
		sim_die(s->sim, "epoch %u is at the far side and not durable here", f.newest);
	if (f.newest && (f.newest > o->closed || o->epoch_end[f.newest] == 0))
		sim_die(s->sim, "epoch %u is at the far side and not closed", f.newest);
	if (f.newest > 1 && o->durable_mark < o->epoch_end[f.newest - 1])
		sim_die(s->sim,
			"epoch %u is at the far side, and the watermark of the one before it is "
			"not durable",
			f.newest);
	if (o->mark && !(f.states >> order_epoch(o, o->mark)))
		sim_die(s->sim, "the watermark is %" PRIu64 ", and the far side lacks some of it",
			o->mark);
}

static void far_changed(void *ctx, uint64_t offset, uint64_t length)
{
	struct schedule *s = ctx;
	const uint8_t *now = simfar_image(s->far)->now;

	for (uint64_t at = offset; at < offset + length; at += ORDER_SECTOR)
		order_stamp(s->sim, now + at, at / ORDER_SECTOR);
	check_far(s);
}

/* ---- cuts ---- */

static bool is_near(enum schedule_cut cut)
{
	return cut != SCHEDULE_LINK && cut != SCHEDULE_TARGET;
}

static bool has_power_cut(enum schedule_cut cut)
{
	return cut == SCHEDULE_POWER || cut == SCHEDULE_POWER_TARGET;
}

static void kill_near(struct schedule *s, bool power)
{
	struct sim *sim = s->sim;

	s->sum->starting += s->starting;
	s->sum->stopping += s->stopping;
	s->sum->again += !s->recovered;
	if (power) {
		simdisk_power_cut(s->disk);
		simindex_power_cut(s->index);
		if (sim_once_in(sim, 2))
			s->file = s->durable;
		s->durable = s->file;
		s->acked = s->flushed;
	} else {
		simdisk_kill(s->disk);
		simindex_kill(s->index);
	}
	s->identity = s->file;
	simfar_kill(s->far);
	sim_reset(sim);
	if (s->cache) {
		s->cache->inner = NULL;
		cache_abandon(s->cache);
	}
	s->cache = NULL;
	order_crash(s->order);
	for (unsigned i = 0; i < OPS; i++) {
		/* Its memory may still be pointed to. */
		if (s->op[i].busy)
			s->op[i].buf = NULL;
		s->op[i].busy = false;
	}
	s->starting = s->stopping = s->recovered = false;
	s->restore_at = 0;
}

/* Does not come back from a near cut. */
static void make_cut(struct schedule *s, enum schedule_cut cut)
{
	struct schedule_result *sum = s->sum;
	uint64_t volatile_changes = simfar_image(s->far)->npending;

	sim_trace(s->sim, "CUT behind step %" PRIu64 ": %s%s", s->steps, cut_name[cut],
		  s->starting   ? ", while starting"
		  : s->stopping ? ", while stopping"
				: "");
	sum->cut[cut]++;
	if (s->cuts_done++ == 0 && s->steps < SCHEDULE_STEPS)
		sum->at[cut][s->steps]++;
	if (cut == SCHEDULE_KILL || cut == SCHEDULE_POWER) {
		kill_near(s, has_power_cut(cut));
		longjmp(s->top, 1);
	}
	simfar_cut(s->far, cut != SCHEDULE_LINK);
	sum->unsynced_lost += cut != SCHEDULE_LINK ? volatile_changes : 0;
	s->restore_at = s->steps + 1 + sim_below(s->sim, 100);
	if (!is_near(cut))
		return;
	kill_near(s, has_power_cut(cut));
	longjmp(s->top, 1);
}

/* A place where a cut may come. */
static void tick(struct schedule *s)
{
	s->steps++;
	if (s->steps > STEPS_MAX)
		sim_die(s->sim, "not at the end after %u steps", STEPS_MAX);
	if (s->restore_at && s->steps >= s->restore_at) {
		s->restore_at = 0;
		if (simfar_is_down(s->far))
			simfar_restore(s->far);
	}
	if (s->cuts_done < s->ncuts && s->steps >= s->cut_at[s->cuts_done])
		make_cut(s, s->cut[s->cuts_done]);
}

/* One step. False: nothing can run now. */
static bool step(struct schedule *s)
{
	if (!sim_step(s->sim))
		return false;
	tick(s);
	return true;
}

static void run_on(struct schedule *s)
{
	if (step(s))
		return;
	/* Nothing more may come of an outage than waiting. */
	if (s->restore_at && sim_once_in(s->sim, 2))
		s->restore_at = s->steps;
	tick(s);
	if (!sim_step(s->sim) && !sim_advance(s->sim))
		sim_die(s->sim, "somebody waits, and nothing is left to run");
}

static void progress(void *ctx)
{
	run_on(ctx);
}

static void note_identity(struct schedule *s, const struct simdisk_event *e)
{
	if (e->kind == SIMDISK_WRITE && e->name && strncmp(e->name, "identity", 8) == 0)
		s->file = s->identity;
	if (e->kind == SIMDISK_SYNC_DIR ||
	    (e->kind == SIMDISK_SYNC && e->name && strncmp(e->name, "identity", 8) == 0 &&
	     strcmp(e->name, "identity.new") != 0))
		s->durable = s->file;
}

static void disk_seen(void *ctx, const struct simdisk_event *e)
{
	static const char *const what[] = { [1] = "write",  [2] = "sync",      [4] = "truncate",
					    [5] = "unlink", [6] = "rename to", [8] = "sync names" };
	struct schedule *s = ctx;
	uint64_t mark = s->order->mark;

	/* Here and not in order_see(): before it counts as begun. */
	if (!e->ended)
		tick(s);
	sim_trace(s->sim, "disk: %s %s%s", what[__builtin_ctz(e->kind)], e->name ? e->name : "",
		  e->ended ? ": ends" : "");
	order_see(s->order, e);
	if (e->ended)
		note_identity(s, e);
	if (s->order->mark != mark)
		check_far(s);
}

/* ---- what the guest is told ---- */

static void check_read(struct schedule *s, const struct guest_op *op)
{
	for (uint64_t i = 0; i < op->n; i++) {
		uint64_t sector = op->sector + i;
		uint32_t stamp = order_stamp(s->sim, op->buf + i * ORDER_SECTOR, sector);

		if (!order_may_be(s->order, sector, stamp, op->acked))
			sim_die(s->sim, "sector %" PRIu64 " reads as %u, not %u", sector, stamp,
				order_value(s->order, sector, op->acked));
	}
}

static void check_change(struct schedule *s, const struct guest_op *op)
{
	uint32_t value = op->kind == BLK_WRITE ? op->stamp : 0;
	uint64_t last = 0;

	for (uint64_t i = 0; i < op->n; i++) {
		uint64_t seq = order_find(s->order, op->sector + i, value, op->last);

		if (!seq)
			sim_die(s->sim, "acknowledged, and sector %" PRIu64 " is not in the log",
				op->sector + i);
		last = MAX(last, seq);
	}
	if (order_in_file(s->order) < last)
		sim_die(s->sim,
			"record %" PRIu64 " is acknowledged, and %" PRIu64
			" is the last one that is in the log without a gap",
			last, order_in_file(s->order));
	s->acked = MAX(s->acked, last);
	if (op->fua) {
		s->flushed = MAX(s->flushed, last);
		if (order_durable(s->order) < last)
			sim_die(s->sim, "FUA is answered, and record %" PRIu64 " is not durable",
				last);
	}
}

static void op_done(struct blk_req *req, void *ctx, int result)
{
	static const char *const names[] = { "READ", "WRITE", "FLUSH", "DISCARD", "ZERO" };
	struct guest_op *op = ctx;
	struct schedule *s = op->s;

	if (!op->busy)
		sim_die(s->sim, "done() came twice");
	op->busy = false;
	op->result = result;
	sim_trace(s->sim, "guest: %s %" PRIu64 "+%" PRIu64 " ends: %d", names[op->kind], op->sector,
		  op->n, result);
	if (result == -ESHUTDOWN && s->stopping)
		return;
	if (result < 0)
		sim_die(s->sim, "%s: %s", names[op->kind], strerror(-result));
	if (op->kind == BLK_READ) {
		check_read(s, op);
		s->sum->raced += op->raced;
	} else if (op->kind == BLK_FLUSH) {
		if (order_durable(s->order) < op->acked)
			sim_die(s->sim, "FLUSH is answered, and record %" PRIu64 " is not durable",
				op->acked);
		s->flushed = MAX(s->flushed, op->acked);
	} else {
		check_change(s, op);
	}
}

/* ---- what the guest does ---- */

static unsigned in_flight(const struct schedule *s)
{
	unsigned n = 0;

	for (unsigned i = 0; i < OPS; i++)
		n += s->op[i].busy;
	return n;
}

static struct guest_op *submit(struct schedule *s, enum blk_op kind, uint64_t sector, uint64_t n,
			       bool fua)
{
	static const char *const names[] = { "READ", "WRITE", "FLUSH", "DISCARD", "ZERO" };
	struct guest_op *op = s->op;
	uint64_t cut = n ? sim_below(s->sim, n) * ORDER_SECTOR : 0;

	while (op->busy)
		op++;
	if (!op->buf)
		op->buf = sim_alloc((size_t)OP_BLOCKS * CACHE_BLOCK_BYTES);
	op->s = s;
	op->kind = kind;
	op->sector = sector;
	op->n = n;
	op->fua = fua;
	op->raced = false;
	op->last = order_last(s->order);
	op->acked = s->acked;
	op->stamp = kind == BLK_WRITE ? ++s->stamp : 0;
	op->iov[0] = (struct iovec){ op->buf, cut };
	op->iov[1] = (struct iovec){ op->buf + cut, n * ORDER_SECTOR - cut };
	blk_req_init(&op->req, kind, sector * ORDER_SECTOR, n * ORDER_SECTOR, op->iov, 2);
	if (kind == BLK_WRITE)
		for (uint64_t i = 0; i < n; i++)
			order_fill(op->buf + i * ORDER_SECTOR, sector + i, op->stamp);
	else if (kind == BLK_READ)
		memset(op->buf, 0xee, n * ORDER_SECTOR);
	else
		op->req.iov = NULL;
	if (!op->req.iov)
		op->req.iovcnt = 0;
	op->req.flags = fua ? BLK_FUA : 0;
	for (unsigned i = 0; i < OPS; i++) {
		struct guest_op *other = &s->op[i];
		struct guest_op *read = kind == BLK_READ ? op : other;

		if (other->busy && kind != BLK_FLUSH && other->kind != BLK_FLUSH &&
		    (kind == BLK_READ) != (other->kind == BLK_READ))
			read->raced |= range_overlap(sector, n, other->sector, other->n);
	}
	s->sum->reads += kind == BLK_READ;
	s->sum->flushes += kind == BLK_FLUSH;
	s->sum->writes += kind != BLK_READ && kind != BLK_FLUSH;
	sim_trace(s->sim, "guest: %s%s %" PRIu64 "+%" PRIu64 " stamp %u", names[kind],
		  fua ? " FUA" : "", sector, n, op->stamp);
	op->busy = true;
	blk_submit(s->cache, &op->req, op_done, op);
	return op;
}

static void pick_range(struct schedule *s, uint64_t *ret_sector, uint64_t *ret_n)
{
	/* Most of it where versions pile up. */
	uint64_t room = sim_once_in(s->sim, 3) ? s->nsectors : 64;
	uint64_t sector = sim_below(s->sim, room), n;

	if (sim_once_in(s->sim, 3)) {
		n = 1 + sim_below(s->sim, 20);
	} else {
		sector = round_down(sector, (uint64_t)8);
		n = 8 * (1 + sim_below(s->sim, sim_once_in(s->sim, 4) ? 7 : 3));
	}
	*ret_sector = sector;
	*ret_n = MIN(n, s->nsectors - sector);
}

static void guest_acts(struct schedule *s)
{
	uint64_t dice = sim_below(s->sim, 24), sector, n;

	pick_range(s, &sector, &n);
	if (dice < 11)
		submit(s, BLK_WRITE, sector, n, sim_once_in(s->sim, 12));
	else if (dice < 15)
		submit(s, BLK_READ, sector, n, false);
	else if (dice < 22)
		submit(s, BLK_FLUSH, 0, 0, false);
	else
		submit(s, dice == 22 ? BLK_ZERO : BLK_DISCARD, sector, n, false);
}

static void wait_all(struct schedule *s)
{
	while (in_flight(s))
		run_on(s);
}

static void read_all(struct schedule *s)
{
	for (uint64_t at = 0; at < s->nsectors; at += 8 * OP_BLOCKS) {
		struct guest_op *op = submit(s, BLK_READ, at,
					     MIN((uint64_t)8 * OP_BLOCKS, s->nsectors - at), false);

		while (op->busy)
			run_on(s);
	}
}

/* ---- lives ---- */

static void start(struct schedule *s)
{
	struct cache_config conf = { 0 };
	struct err err;
	int r;

	sim_trace(s->sim, "start");
	s->starting = true;
	s->lio = simdisk_open(s->disk, s->sim);
	s->store = simindex_open(s->index);
	conf.inner = simfar_create(s->sim, s->far);
	conf.sched = sim_sched(s->sim);
	conf.lio = s->lio;
	conf.index = s->store;
	conf.identity = &s->identity;
	conf.limit_bytes = LIMIT_BYTES;
	conf.max_dirty_age_ns = s->max_age_ns;
	conf.no_readahead = true;
	conf.progress = progress;
	conf.progress_ctx = s;
	s->cache = cache_create(&conf);
	r = blk_start(s->cache, &err);
	if (r < 0)
		sim_die(s->sim, "start: %s", err.text);
	if (s->order->cut < s->acked)
		sim_die(s->sim, "the start has kept %" PRIu64 " records, %" PRIu64 " were promised",
			s->order->cut, s->acked);
	s->starting = false;
	s->recovered = true;
	/* What it is now is what it must stay. */
	s->acked = s->flushed = s->order->cut;
	if (sim_once_in(s->sim, 2))
		read_all(s);
	if (sim_once_in(s->sim, 6) && cache_drop(s->cache) < 0)
		sim_die(s->sim, "drop");
}

static void stop(struct schedule *s)
{
	sim_trace(s->sim, "stop");
	s->stopping = true;
	blk_stop(s->cache);
	if (in_flight(s))
		sim_die(s->sim, "a request has no done() after the stop");
	blk_destroy(s->cache);
	s->cache = NULL;
	index_destroy(s->store);
	lio_destroy(s->lio);
	s->stopping = false;
	s->acked = s->flushed = order_in_file(s->order);
}

static void drained(struct cache_drain *d, int result)
{
	struct schedule *s = container_of(d, struct schedule, drain);

	if (result < 0)
		sim_die(s->sim, "drain: %s", strerror(-result));
	s->drained = true;
}

/* Both sides hold all of it, and the far side whatever it forgets. */
static void check_end(struct schedule *s)
{
	const struct simimage *img = simfar_image(s->far);
	uint64_t last = order_last(s->order);
	struct list_node *n;
	struct cache_status st;

	cache_status(s->cache, &st);
	if (st.dirty_bytes)
		sim_die(s->sim, "drained, and %" PRIu64 " bytes are dirty", st.dirty_bytes);
	for (uint64_t i = 0; i < s->nsectors; i++) {
		uint32_t stamp = order_stamp(s->sim, img->durable + i * ORDER_SECTOR, i);

		if (stamp != order_value(s->order, i, last))
			sim_die(s->sim, "in the end sector %" PRIu64 " is %u at the far side", i,
				stamp);
	}
	list_for_each(n, &img->pending) {
		const struct simchange *c = list_entry(n, struct simchange, link);
		uint64_t i = c->offset / ORDER_SECTOR;

		if ((c->data ? order_peek(s->sim, c->data, i) : 0) !=
		    order_value(s->order, i, last))
			sim_die(s->sim, "in the end the far side may change");
	}
}

/* A life up to its end; another one goes on where a cut ends it. */
static void live(struct schedule *s)
{
	if (!s->cache)
		start(s);
	while (s->ops_left) {
		if (in_flight(s) < s->in_flight_max) {
			s->ops_left--;
			guest_acts(s);
		}
		for (uint64_t k = sim_below(s->sim, 24); k > 0; k--) {
			if (step(s))
				continue;
			if (sim_once_in(s->sim, 8))
				sim_advance(s->sim);
			break;
		}
		if (sim_once_in(s->sim, 40)) {
			stop(s);
			s->sum->restarts++;
			if (sim_once_in(s->sim, 4))
				simindex_lose(s->index);
			start(s);
		}
	}
	wait_all(s);
	s->drained = false;
	s->drain.done = drained;
	cache_drain(s->cache, &s->drain);
	while (!s->drained)
		run_on(s);
	check_end(s);
	read_all(s);
	cache_check(s->cache);
	stop(s);
}

static void choose(struct schedule *s)
{
	static const uint64_t latency_ns[] = { 0, 0, NSEC_PER_MSEC, 50 * NSEC_PER_MSEC };
	static const uint64_t age_ns[] = { 0, NSEC_PER_MSEC, 5 * NSEC_PER_SEC };
	struct simfar_config far = { 0 };
	cleanup_free uint8_t *first = NULL;
	uint64_t at;

	s->nsectors = 8 * (16 + sim_below(s->sim, 17)) + sim_below(s->sim, 2) * 3;
	s->max_age_ns = age_ns[sim_below(s->sim, ARRAY_SIZE(age_ns))];
	s->ops_left = 4 + (unsigned)sim_below(s->sim, 21);
	s->in_flight_max = 1 + (unsigned)sim_below(s->sim, OPS - 1);
	s->stamp = ORDER_FIRST;
	simdisk_set_sector(s->disk, sim_once_in(s->sim, 2) ? 512 : 4096);
	far.info.size_bytes = s->nsectors * ORDER_SECTOR;
	far.info.flags = BLK_INFO_VOLATILE | BLK_INFO_CAN_DISCARD;
	far.info.discard_align_bytes = sim_once_in(s->sim, 2) ? 512 : 16384;
	far.latency_ns = latency_ns[sim_below(s->sim, ARRAY_SIZE(latency_ns))];
	s->far = simfar_store_create(s->sim, &far);
	s->order = order_create(s->sim, s->nsectors, SEGMENT_BYTES / CACHE_BLOCK_BYTES);
	s->order->wanted = wanted;
	s->order->reused = reused;
	s->order->ctx = s;
	first = sim_alloc(far.info.size_bytes);
	for (uint64_t i = 0; i < s->nsectors; i++)
		order_fill(first + i * ORDER_SECTOR, i, ORDER_FIRST);
	simfar_meddle(s->far, 0, first, far.info.size_bytes);
	simfar_on_change(s->far, far_changed, s);
	simdisk_watch(s->disk, disk_seen, s);
	/* Kept in memory, for the files would refuse segments this small. */
	if (identity_init(&s->identity, 1) < 0)
		sim_die(s->sim, "identity");
	s->identity.segment_bytes = SEGMENT_BYTES;
	for (unsigned i = 0; i < sizeof(s->identity.cache_uuid); i++)
		s->identity.cache_uuid[i] = (uint8_t)sim_random(s->sim);
	s->file = s->durable = s->identity;
	s->ncuts = sim_once_in(s->sim, 3) ? 1 + (unsigned)sim_below(s->sim, CUTS_MAX) : 1;
	at = 1 + sim_below(s->sim, sim_once_in(s->sim, 8) ? 60 : 100 + 26 * s->ops_left);
	for (unsigned i = 0; i < s->ncuts; i++) {
		s->cut[i] = (enum schedule_cut)sim_below(s->sim, SCHEDULE_CUTS);
		s->cut_at[i] = at;
		at += 1 + sim_below(s->sim, sim_once_in(s->sim, 2) ? 60 : 400);
	}
	sim_trace(s->sim, "seed %" PRIu64 ": %" PRIu64 " sectors, %u requests, %u at once",
		  sim_seed(s->sim), s->nsectors, s->ops_left, s->in_flight_max);
}

static void finish(struct schedule *s)
{
	struct schedule_result *sum = s->sum;

	sum->none += s->cuts_done == 0;
	sum->voided += s->order->voided;
	sum->reuses += s->order->reuses;
	sum->ghosts += simfar_ghosts(s->far);
	sum->epochs += s->order->closed;
	sum->steps += s->steps;
	sim_trace(s->sim, "end behind step %" PRIu64, s->steps);
	simindex_destroy(s->index);
	simfar_store_destroy(s->far);
	simdisk_destroy(s->disk);
	order_destroy(s->order);
	for (unsigned i = 0; i < OPS; i++)
		free(s->op[i].buf);
	sim_destroy(s->sim);
	free(s);
}

void schedule_run(uint64_t seed, bool trace, struct schedule_result *sum)
{
	struct schedule *s = sim_alloc(sizeof(*s));

	s->sim = sim_create(seed);
	if (trace)
		sim_set_trace(s->sim, stdout);
	s->sum = sum;
	s->disk = simdisk_create(s->sim);
	s->index = simindex_create(s->sim);
	choose(s);
	/* Each cut comes back to here. */
	(void)setjmp(s->top);
	live(s);
	finish(s);
}
