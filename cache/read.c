// SPDX-License-Identifier: Apache-2.0
/*
 * Reads. A request (at most PIECE_BYTES long here) falls into runs: slots of a segment, known
 * zeroes, blocks in the buffer of a fetch, blocks that a fetch still has to bring.
 * Runs are found under the lock, which pins their segments; all copying and
 * checking is done without it. Every block that comes from the disk is compared with the checksum
 * in the map; one that differs is dropped where the target has the same version, and the request is
 * looked at again; where it was never sent it turns BAD and reads as -EIO.
 *
 * Invariants of a read_op: `pending` counts the parts not yet done and one for
 * the thread that set it up; whoever brings it to 0 ends the request or starts it over.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cache/internal.h"
#include "core/crc32c.h"
#include "core/log.h"

#define RUNS_MAX (PIECE_BLOCKS + 1)
/* A request whose blocks keep turning out damaged is looked at this often. */
#define READ_TRIES 16

enum run_kind { RUN_SLOTS, RUN_ZERO, RUN_FETCH };

struct read_run {
	enum run_kind kind;
	uint64_t blk;
	uint32_t n;
	uint32_t slot; /* RUN_SLOTS: over all segments */
	uint32_t crc;  /* RUN_SLOTS: index of the first into op->crc */
	struct fetch *fetch;
};

struct run_io {
	struct lio_op lop;
	struct read_op *op;
	const struct read_run *run;
	int iovcnt;
	struct iovec iov[];
};

struct read_op {
	struct held held;
	struct list_node link; /* among the free ones */
	struct cache *cache;
	struct blk_req *req;
	_Atomic int pending;
	_Atomic int result;
	_Atomic bool again;
	unsigned tries;
	struct list_node waits; /* fetch_wait.op_link; guarded by the cache's lock */
	uint8_t *bounce;        /* first and last block, where the request covers them in part */
	unsigned nruns;
	struct read_run run[RUNS_MAX];
	uint32_t crc[RUNS_MAX];
};

static void read_start(struct read_op *op);

static struct read_op *op_new(struct cache *c)
{
	struct read_op *op = list_first(&c->read_ops, struct read_op, link);

	if (op) {
		list_del(&op->link);
		return op;
	}
	op = malloc(sizeof(*op));
	if (!op)
		return NULL;
	op->bounce = NULL;
	list_init(&op->link);
	return op;
}

void read_fini(struct cache *c)
{
	struct list_node *n;

	while ((n = list_pop(&c->read_ops))) {
		struct read_op *op = list_entry(n, struct read_op, link);

		free(op->bounce);
		free(op);
	}
}

static uint64_t first_blk(const struct blk_req *req)
{
	return req->offset / BLK;
}

static uint64_t end_blk(const struct blk_req *req)
{
	return div_round_up(req->offset + req->length, BLK);
}

/* The bytes of [blk, blk + n) that the request wants: where in the volume and in the request. */
static void clip(const struct blk_req *req, uint64_t blk, uint64_t n, uint64_t *ret_from,
		 size_t *ret_length)
{
	uint64_t from = MAX(blk * BLK, req->offset);
	uint64_t to = MIN((blk + n) * BLK, req->offset + req->length);

	*ret_from = from;
	*ret_length = (size_t)(to - from);
}

/* A block that the request covers in part is read into the bounce buffer. */
static uint8_t *bounce_of(const struct read_op *op, uint64_t blk)
{
	const struct blk_req *req = op->req;

	if (blk == first_blk(req) && (req->offset % BLK || req->length < BLK))
		return op->bounce;
	if (blk == end_blk(req) - 1 && (req->offset + req->length) % BLK)
		return op->bounce + BLK;
	return NULL;
}

/* ---- under the lock: find the runs ---- */

static void add_slot(struct read_op *op, uint64_t blk, uint64_t entry)
{
	struct cache *c = op->cache;
	uint32_t slot = map_entry_slot(entry);
	struct read_run *r = op->nruns ? &op->run[op->nruns - 1] : NULL;
	uint32_t at = r && r->kind == RUN_SLOTS ? r->crc + r->n : 0;

	segment_touch(c, slot);
	if (!r || r->kind != RUN_SLOTS || r->blk + r->n != blk || r->slot + r->n != slot ||
	    slot_segment(c, slot) != slot_segment(c, r->slot)) {
		/* Checksums lie in block order, whatever lies between the runs. */
		at = (uint32_t)(blk - first_blk(op->req));
		r = &op->run[op->nruns++];
		*r = (struct read_run){ .kind = RUN_SLOTS, .blk = blk, .slot = slot, .crc = at };
		segment_pin(c, slot_segment(c, slot));
		atomic_fetch_add(&op->pending, 1);
	}
	op->crc[at] = map_entry_crc(entry);
	r->n++;
}

static void add_zero(struct read_op *op, uint64_t blk, uint32_t n)
{
	op->run[op->nruns++] = (struct read_run){ .kind = RUN_ZERO, .blk = blk, .n = n };
	atomic_fetch_add(&op->pending, 1);
}

static int add_wait(struct read_op *op, struct fetch *f, uint64_t blk, uint32_t n)
{
	struct fetch_wait *w = malloc(sizeof(*w));

	if (!w)
		return -ENOMEM;
	*w = (struct fetch_wait){ .op = op, .blk = blk, .n = n };
	list_add_tail(&f->waits, &w->link);
	list_add_tail(&op->waits, &w->op_link);
	atomic_fetch_add(&op->pending, 1);
	return 0;
}

/* Absent blocks from @blk: join a fetch or begin one. Returns how many were dealt with, or -errno.
 */
static int add_absent(struct read_op *op, uint64_t blk, uint64_t max, struct todo *todo)
{
	struct cache *c = op->cache;
	struct fetch *f = fetch_find(c, blk);
	uint32_t n = 0;
	int r;

	if (f) {
		while (n < max && blk + n < f->blk + f->nblocks && !fetch_stale(f, blk + n))
			n++;
		if (!(op->req->flags & BLK_ADVISORY))
			f->readahead = false;
		if (f->state == FETCH_ANSWERED) {
			f->refs++;
			op->run[op->nruns++] = (struct read_run){
				.kind = RUN_FETCH, .blk = blk, .n = n, .fetch = f
			};
			atomic_fetch_add(&op->pending, 1);
			return (int)n;
		}
	} else {
		uint64_t group_end = (blk / MAP_LEAF_BLOCKS + 1) * MAP_LEAF_BLOCKS;

		max = MIN(max, group_end - blk);
		while (n < max && !fetch_find(c, blk + n))
			n++;
		f = fetch_begin(c, blk, n, op->req, todo);
		if (!f)
			return -ENOMEM;
	}
	r = add_wait(op, f, blk, n);
	return r < 0 ? r : (int)n;
}

static int find_runs(struct read_op *op, bool *ret_hit, struct todo *todo)
{
	struct cache *c = op->cache;
	uint64_t blk = first_blk(op->req), end = end_blk(op->req);
	/* Whoever warms the cache does not say how well it serves. */
	uint64_t counted = op->req->flags & BLK_ADVISORY ? 0 : BLK;

	op->nruns = 0;
	*ret_hit = true;
	while (blk < end) {
		enum map_state state;
		uint64_t n = map_run(&c->map, blk, end - blk, &state);
		int r;

		switch (state) {
		case MAP_DATA:
			for (uint64_t i = 0; i < n; i++)
				add_slot(op, blk + i, map_get(&c->map, blk + i));
			c->hit_bytes += n * counted;
			break;
		case MAP_ZERO:
			add_zero(op, blk, (uint32_t)n);
			c->hit_bytes += n * counted;
			break;
		case MAP_BAD:
			return -EIO;
		case MAP_NONE:
			r = add_absent(op, blk, n, todo);
			if (r < 0)
				return r;
			n = (uint64_t)r;
			*ret_hit = false;
			c->miss_bytes += n * counted;
			break;
		}
		blk += n;
	}
	return 0;
}

/* ---- without the lock: local runs ---- */

static bool record_at_target(const struct cache *c, const struct seg_table *t, uint32_t slot)
{
	for (uint32_t i = 0; i < t->nrecords; i++) {
		const struct format_record *r = &t->record[i];

		if (slot >= r->slot && slot - r->slot < format_payload(r))
			return r->seq <= c->destaged_seq;
	}
	return false;
}

/* The first error of its parts is the read's. */
static void note_error(struct read_op *op, int error)
{
	int none = 0;

	atomic_compare_exchange_strong(&op->result, &none, error);
}

/*
 * Has the target what stands in @slot? Behind a segment's newest record the older ones may be
 * there already; its table tells, which may cost a disk read. The segment is pinned; no lock.
 * 1, 0, or -ENOMEM.
 */
static int slot_at_target(struct cache *c, uint32_t slot)
{
	uint32_t segment = slot_segment(c, slot), i = slot % c->seg_slots;
	struct segment *s = &c->seg[segment];
	struct seg_table t = { 0 };
	bool there, sealed;
	struct todo todo;
	int r;

	cache_lock(c, &todo);
	there = s->class != FORMAT_LOG || s->last_data_seq <= c->destaged_seq;
	sealed = s->state != SEG_HEAD && s->state != SEG_SEALING;
	if (!there && !sealed)
		there = record_at_target(c, &s->table, i);
	cache_unlock(c, &todo);
	if (there || !sealed)
		return there;
	r = table_load(c, segment, s->file, s->incarnation, &t, NULL);
	if (r < 0)
		return r == -ENOMEM ? r : 0;
	cache_lock(c, &todo);
	there = record_at_target(c, &t, i);
	cache_unlock(c, &todo);
	seg_table_fini(&t);
	return there;
}

/*
 * A block is not what the map said. Drop it where the far side has the same version; else it is
 * lost: BAD. Nothing happens if the map has moved on meanwhile.
 */
static void bad_block(struct read_op *op, uint64_t blk, uint32_t slot)
{
	struct cache *c = op->cache;
	int there = slot_at_target(c, slot);
	bool dirty = !there, mine = false;
	struct todo todo;
	uint64_t entry;

	if (there < 0) {
		note_error(op, there);
		return;
	}
	cache_lock(c, &todo);
	entry = map_get(&c->map, blk);
	if (map_entry_state(entry) == MAP_DATA && map_entry_slot(entry) == slot) {
		mine = true;
		cache_map_set(c, blk, dirty ? MAP_ENTRY_BAD : MAP_ENTRY_NONE);
		if (dirty)
			cache_note_damage(c, blk, 1, true);
		else
			indexq_delete(c, blk, 1);
	}
	cache_unlock(c, &todo);
	atomic_store(&op->again, true);
	if (mine && dirty)
		log_error("cache: the 4 KiB at offset %llu are damaged on the local disk and were "
			  "not "
			  "yet at the target: reads of them fail",
			  (unsigned long long)(blk * BLK));
	else if (mine)
		log_info(
			"cache: the 4 KiB at offset %llu are not intact on the local disk: fetched "
			"again",
			(unsigned long long)(blk * BLK));
}

static uint32_t block_crc(const struct read_op *op, uint64_t blk)
{
	const struct blk_req *req = op->req;
	const uint8_t *bounce = bounce_of(op, blk);
	struct iovec part[RUNS_MAX];
	uint32_t crc = 0;
	int n;

	if (bounce)
		return crc32c(0, bounce, BLK);
	n = iov_slice(req->iov, req->iovcnt, (size_t)(blk * BLK - req->offset), BLK, part,
		      ARRAY_SIZE(part));
	for (int i = 0; i < n; i++)
		crc = crc32c(crc, part[i].iov_base, part[i].iov_len);
	return crc;
}

/* The bytes of a run are in place: check them, move what went through the bounce buffer. */
static void check_run(struct read_op *op, const struct read_run *run)
{
	for (uint32_t i = 0; i < run->n; i++) {
		uint64_t blk = run->blk + i, from;
		uint8_t *bounce = bounce_of(op, blk);
		size_t length;

		if (block_crc(op, blk) != op->crc[run->crc + i]) {
			bad_block(op, blk, run->slot + i);
			continue;
		}
		if (!bounce)
			continue;
		clip(op->req, blk, 1, &from, &length);
		iov_copy_to(op->req->iov, op->req->iovcnt, (size_t)(from - op->req->offset),
			    bounce + (from - blk * BLK), length);
	}
}

/* Describe the memory that a run is read into. Returns the number of entries. */
static int run_iov(const struct read_op *op, const struct read_run *run, struct iovec *iov, int max)
{
	const struct blk_req *req = op->req;
	int n = 0;

	for (uint32_t i = 0; i < run->n;) {
		uint64_t blk = run->blk + i;
		uint8_t *bounce = bounce_of(op, blk);
		uint32_t full = 0;

		if (bounce) {
			assert(n < max);
			iov[n++] = (struct iovec){ bounce, BLK };
			i++;
			continue;
		}
		while (i + full < run->n && !bounce_of(op, blk + full))
			full++;
		n += iov_slice(req->iov, req->iovcnt, (size_t)(blk * BLK - req->offset),
			       (size_t)full * BLK, iov + n, max - n);
		i += full;
	}
	return n;
}

/* The disk did not give the run: none of its blocks can be had from there. */
static void run_failed(struct read_op *op, const struct read_run *run)
{
	for (uint32_t i = 0; i < run->n; i++)
		bad_block(op, run->blk + i, run->slot + i);
}

static void run_read(struct lio_op *lop, int result)
{
	struct run_io *io = container_of(lop, struct run_io, lop);
	struct read_op *op = io->op;
	struct cache *c = op->cache;
	const struct read_run *run = io->run;
	struct todo todo;

	/* No memory for the read says nothing of the data. */
	if (result < 0 && result != -ENOMEM)
		run_failed(op, run);
	else if (result == 0)
		check_run(op, run);
	free(io);
	cache_lock(c, &todo);
	segment_unpin(c, slot_segment(c, run->slot));
	cache_unlock(c, &todo);
	read_part_done(op, result == -ENOMEM ? -ENOMEM : 0);
}

/* From memory at once if the page cache has it, else by a disk read. True: done already. */
static bool read_slots(struct read_op *op, const struct read_run *run)
{
	struct cache *c = op->cache;
	struct lio_file *file = c->seg[slot_segment(c, run->slot)].file;
	uint64_t offset = (uint64_t)(run->slot % c->seg_slots) * FORMAT_SLOT_BYTES;
	int max = MIN(op->req->iovcnt + 2, (int)LIO_MAX_IOV);
	struct iovec iov[max];
	int n = run_iov(op, run, iov, max);
	struct run_io *io;
	int r;

	r = lio_try_read(c->lio, file, iov, n, offset);
	if (r == 0) {
		check_run(op, run);
		return true;
	}
	if (r != -EAGAIN && r != -ENOMEM) {
		run_failed(op, run);
		return true;
	}
	io = r == -EAGAIN ? malloc(sizeof(*io) + (size_t)n * sizeof(*io->iov)) : NULL;
	if (!io) {
		read_part_done(op, -ENOMEM);
		/* The part is accounted for; the caller only unpins. */
		atomic_fetch_add(&op->pending, 1);
		return true;
	}
	*io = (struct run_io){ .op = op, .run = run, .iovcnt = n };
	memcpy(io->iov, iov, (size_t)n * sizeof(*iov));
	io->lop.kind = LIO_READ;
	io->lop.file = file;
	io->lop.offset = offset;
	io->lop.iov = io->iov;
	io->lop.iovcnt = n;
	io->lop.done = run_read;
	list_init(&io->lop.link);
	lio_submit(c->lio, &io->lop);
	return false;
}

void read_copy(struct read_op *op, const struct fetch *f, uint64_t blk, uint32_t n)
{
	uint64_t from;
	size_t length;

	clip(op->req, blk, n, &from, &length);
	iov_copy_to(op->req->iov, op->req->iovcnt, (size_t)(from - op->req->offset),
		    f->buf + (from - f->blk * BLK), length);
}

static void read_local(struct read_op *op)
{
	struct cache *c = op->cache;
	uint32_t unpin[RUNS_MAX];
	unsigned unpins = 0;
	struct fetch *put[RUNS_MAX];
	unsigned puts = 0;
	struct todo todo;
	uint64_t from;
	size_t length;
	unsigned done = 0;

	for (unsigned i = 0; i < op->nruns; i++) {
		const struct read_run *run = &op->run[i];

		switch (run->kind) {
		case RUN_SLOTS:
			if (!read_slots(op, run))
				continue;
			unpin[unpins++] = slot_segment(c, run->slot);
			break;
		case RUN_ZERO:
			clip(op->req, run->blk, run->n, &from, &length);
			iov_zero(op->req->iov, op->req->iovcnt, (size_t)(from - op->req->offset),
				 length);
			break;
		case RUN_FETCH:
			read_copy(op, run->fetch, run->blk, run->n);
			put[puts++] = run->fetch;
			break;
		}
		done++;
	}
	if (unpins || puts) {
		cache_lock(c, &todo);
		for (unsigned i = 0; i < unpins; i++)
			segment_unpin(c, unpin[i]);
		for (unsigned i = 0; i < puts; i++)
			fetch_put(c, put[i]);
		cache_unlock(c, &todo);
	}
	while (done--)
		read_part_done(op, 0);
}

/* ---- ends ---- */

static void read_finish(struct read_op *op, int result)
{
	struct cache *c = op->cache;
	struct todo todo;

	cache_lock(c, &todo);
	assert(list_empty(&op->waits));
	op->req->dev_data = NULL;
	todo_done(&todo, op->req, result);
	list_add(&c->read_ops, &op->link);
	cache_put(c);
	cache_unlock(c, &todo);
}

void read_part_done(struct read_op *op, int result)
{
	if (result < 0)
		note_error(op, result);
	if (atomic_fetch_sub(&op->pending, 1) != 1)
		return;
	result = atomic_load(&op->result);
	if (result == 0 && atomic_load(&op->again)) {
		if (++op->tries < READ_TRIES) {
			read_start(op);
			return;
		}
		result = -EIO;
	}
	read_finish(op, result);
}

/* Find the runs and do what can be done here. */
static void read_start(struct read_op *op)
{
	struct cache *c = op->cache;
	struct blk_req *req = op->req;
	struct todo todo;
	bool hit;
	int r;

	atomic_store(&op->pending, 1);
	atomic_store(&op->again, false);
	cache_lock(c, &todo);
	r = find_runs(op, &hit, &todo);
	if (r == 0 && req->lane == BLK_LANE_DEMAND && op->tries == 0)
		fetch_readahead(c, req->offset, req->length, hit, &todo);
	cache_unlock(c, &todo);
	read_local(op);
	/* What was set up before an error is waited for like the rest. */
	read_part_done(op, r);
}

void read_submit(struct cache *c, struct blk_req *req)
{
	struct read_op *op;
	struct todo todo;
	int r = 0;

	assert(req->length <= PIECE_BYTES);
	cache_lock(c, &todo);
	if (c->stopping)
		r = -ESHUTDOWN;
	op = r == 0 ? op_new(c) : NULL;
	if (op && !op->bounce && (req->offset % BLK || (req->offset + req->length) % BLK)) {
		op->bounce = aligned_alloc(BLK, 2 * BLK);
		if (!op->bounce) {
			free(op);
			op = NULL;
		}
	}
	if (!op) {
		todo_done(&todo, req, r < 0 ? r : -ENOMEM);
		cache_unlock(c, &todo);
		return;
	}
	cache_get(c);
	op->held.kind = HELD_READ;
	op->cache = c;
	op->req = req;
	op->tries = 0;
	atomic_store(&op->result, 0);
	list_init(&op->waits);
	req->dev_data = &op->held;
	cache_unlock(c, &todo);
	read_start(op);
}

void read_cancel(struct cache *c, struct held *held, struct list_node *cancelled)
{
	struct read_op *op = container_of(held, struct read_op, held);
	struct list_node *n;

	while ((n = list_pop(&op->waits))) {
		struct fetch_wait *w = list_entry(n, struct fetch_wait, op_link);

		list_del(&w->link);
		list_add_tail(cancelled, &w->link);
	}
}

void read_cancelled(struct list_node *cancelled)
{
	struct list_node *n;

	while ((n = list_pop(cancelled))) {
		struct fetch_wait *w = list_entry(n, struct fetch_wait, link);
		struct read_op *op = w->op;

		free(w);
		read_part_done(op, -EINTR);
	}
}
