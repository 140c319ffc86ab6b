// SPDX-License-Identifier: Apache-2.0
/*
 * The cache as a device: its life, the way in for requests, and what it tells
 * about itself. Entry points are cut into pieces here and handed to read.c and
 * write.c; everything that leaves the lock leaves through cache_unlock().
 *
 * Life: created → started → stopping → stopped. Stopping refuses new requests, stops the
 * inner device (which gives every request of ours back), waits until nothing is under way,
 * then makes what was acknowledged durable and writes the footers.
 */
#include "cache/cache.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cache/internal.h"
#include "core/log.h"

#define IOV_MAX_PIECE 64
/* A DISCARD or ZERO longer than this is refused: its length must fit a record. */
#define MAX_RANGE_BYTES (1ull << 40)
#define MAX_EPOCH_BYTES (64ull << 20)
/* Segments that the log cannot use for guest data: head and stock of both classes, the reserve. */
#define RESERVED_SEGMENTS 6u

static struct cache *cache_of(struct blk_dev *dev)
{
	return container_of(dev, struct cache, dev);
}

/* ---- the lock and what leaves it ---- */

void cache_lock(struct cache *c, struct todo *todo)
{
	list_init(&todo->done);
	list_init(&todo->inner);
	list_init(&todo->local);
	list_init(&todo->drains);
	list_init(&todo->writes);
	pthread_mutex_lock(&c->lock);
}

void todo_done(struct todo *todo, struct blk_req *req, int result)
{
	/* Odd, so that cache_cancel() can tell it from a struct held; the last change of it. */
	req->dev_data = (void *)((uintptr_t)(unsigned)-result << 1 | 1);
	list_add_tail(&todo->done, &req->link);
}

void cache_unlock(struct cache *c, struct todo *todo)
{
	struct list_node *n;

#ifdef ENABLE_INVARIANTS
	static _Atomic unsigned calls;

	if (c->started && atomic_fetch_add(&calls, 1) % 64 == 0)
		cache_check_invariants(c);
#endif
	if (c->waiters)
		pthread_cond_broadcast(&c->changed);
	pthread_mutex_unlock(&c->lock);
	while ((n = list_pop(&todo->local)))
		lio_submit(c->lio, list_entry(n, struct lio_op, link));
	while ((n = list_pop(&todo->inner))) {
		struct inner_io *io = list_entry(n, struct inner_io, link);

		blk_submit(c->dev.inner, &io->req, io->done, io->ctx);
	}
	while ((n = list_pop(&todo->done))) {
		struct blk_req *req = list_entry(n, struct blk_req, link);
		int result = -(int)((uintptr_t)req->dev_data >> 1);

		blk_complete(req, result);
	}
	while ((n = list_pop(&todo->drains))) {
		struct cache_drain *d = list_entry(n, struct cache_drain, link);

		d->done(d, d->result);
	}
	write_begin_list(&todo->writes);
}

void cache_get(struct cache *c)
{
	c->in_flight++;
}

void cache_put(struct cache *c)
{
	assert(c->in_flight > 0);
	c->in_flight--;
}

void cache_wait(struct cache *c, bool (*cond)(struct cache *c))
{
	pthread_mutex_lock(&c->lock);
	while (!cond(c)) {
		if (c->conf.progress) {
			pthread_mutex_unlock(&c->lock);
			c->conf.progress(c->conf.progress_ctx);
			pthread_mutex_lock(&c->lock);
		} else {
			c->waiters++;
			pthread_cond_wait(&c->changed, &c->lock);
			c->waiters--;
		}
	}
	pthread_mutex_unlock(&c->lock);
}

/* ---- requests ---- */

/* A request cut into pieces. */
struct split {
	struct held held;
	struct cache *cache;
	struct blk_req *parent;
	_Atomic unsigned pending;
	_Atomic int result;
	unsigned n;
	struct blk_req *piece;
	struct iovec *iov;
};

static uint8_t zero_block[BLK];

static void dispatch(struct cache *c, struct blk_req *req)
{
	if (req->op == BLK_READ)
		read_submit(c, req);
	else
		write_submit(c, req);
}

static void split_done(struct split *s)
{
	struct cache *c = s->cache;
	struct todo todo;

	cache_lock(c, &todo);
	todo_done(&todo, s->parent, atomic_load(&s->result));
	cache_put(c);
	cache_unlock(c, &todo);
	free(s->piece);
	free(s->iov);
	free(s);
}

static void piece_done(struct blk_req *req, void *ctx, int result)
{
	struct split *s = ctx;
	int none = 0;

	if (result < 0)
		atomic_compare_exchange_strong(&s->result, &none, result);
	if (atomic_fetch_sub(&s->pending, 1) == 1)
		split_done(s);
}

static struct split *split_new(struct cache *c, struct blk_req *req, size_t pieces, size_t iovs)
{
	struct split *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->held.kind = HELD_SPLIT;
	s->cache = c;
	s->parent = req;
	s->piece = calloc(pieces, sizeof(*s->piece));
	s->iov = calloc(MAX(iovs, (size_t)1), sizeof(*s->iov));
	if (s->piece && s->iov)
		return s;
	free(s->piece);
	free(s->iov);
	free(s);
	return NULL;
}

static void add_piece(struct split *s, enum blk_op op, uint64_t offset, uint64_t length,
		      const struct iovec *iov, int iovcnt)
{
	struct blk_req *piece = &s->piece[s->n++];

	blk_req_init(piece, op, offset, length, iov, iovcnt);
	piece->flags = s->parent->flags;
	piece->lane = s->parent->lane;
	piece->frame[piece->depth++] = (struct blk_frame){ piece_done, s };
}

static void split_submit(struct split *s)
{
	struct cache *c = s->cache;
	unsigned n = s->n;
	struct todo todo;

	cache_lock(c, &todo);
	cache_get(c);
	s->parent->dev_data = &s->held;
	cache_unlock(c, &todo);
	/* One more than there are: the split lives until this loop is through. */
	atomic_store(&s->pending, n + 1);
	for (unsigned i = 0; i < n; i++)
		dispatch(c, &s->piece[i]);
	if (atomic_fetch_sub(&s->pending, 1) == 1)
		split_done(s);
}

/* A WRITE becomes one record a piece, and several must fit a segment or half of it stays empty. */
static uint32_t piece_bytes(const struct cache *c, const struct blk_req *req)
{
	return req->op == BLK_WRITE ? MIN(PIECE_BYTES, c->seg_slots * FORMAT_SLOT_BYTES / 8)
				    : PIECE_BYTES;
}

/* READ and WRITE: pieces of at most piece_bytes() and IOV_MAX_PIECE entries. */
static void split_data(struct cache *c, struct blk_req *req)
{
	uint32_t piece = piece_bytes(c, req);
	size_t iovs = (size_t)req->iovcnt + 2 * (size_t)(req->length / piece + 2);
	size_t pieces = (size_t)(req->length / piece) + 2 + (size_t)req->iovcnt / IOV_MAX_PIECE + 1;
	struct split *s = split_new(c, req, pieces, iovs + (size_t)req->iovcnt);
	size_t done = 0, used = 0, at_iov = 0, in_iov = 0;

	if (!s) {
		blk_complete(req, -ENOMEM);
		return;
	}
	while (done < req->length) {
		/* Pieces end on multiples of their size, so that no block is cut twice. */
		uint64_t from = req->offset + done;
		size_t want = (size_t)MIN((uint64_t)(piece - from % piece), req->length - done);
		size_t got = 0, first = used;

		while (got < want && used - first < IOV_MAX_PIECE) {
			const struct iovec *v = &req->iov[at_iov];
			size_t take = MIN(v->iov_len - in_iov, want - got);

			if (take)
				s->iov[used++] =
					(struct iovec){ (char *)v->iov_base + in_iov, take };
			got += take;
			in_iov += take;
			if (in_iov == v->iov_len) {
				at_iov++;
				in_iov = 0;
			}
		}
		add_piece(s, req->op, from, got, s->iov + first, (int)(used - first));
		done += got;
	}
	split_submit(s);
}

/* ZERO and DISCARD with edges inside a block: those are written as zeroes. */
static void split_range(struct cache *c, struct blk_req *req)
{
	struct split *s = split_new(c, req, 3, 2);
	uint64_t end = req->offset + req->length;
	uint64_t from = round_up(req->offset, BLK);
	uint64_t to = end == c->inner_info.size_bytes ? end : round_down(end, BLK);

	if (!s) {
		blk_complete(req, -ENOMEM);
		return;
	}
	if (from > to)
		from = to = end; /* inside one block */
	if (req->offset < from) {
		s->iov[0] = (struct iovec){ zero_block, (size_t)(from - req->offset) };
		add_piece(s, BLK_WRITE, req->offset, from - req->offset, &s->iov[0], 1);
	}
	if (from < to)
		add_piece(s, req->op, from, to - from, NULL, 0);
	if (to < end && from <= to && from != end) {
		s->iov[1] = (struct iovec){ zero_block, (size_t)(end - to) };
		add_piece(s, BLK_WRITE, to, end - to, &s->iov[1], 1);
	}
	split_submit(s);
}

static void cache_info(struct blk_dev *dev, struct blk_info *ret)
{
	struct cache *c = cache_of(dev);

	*ret = c->inner_info;
	ret->sector_bytes = 1;
	ret->max_read_bytes = PIECE_BYTES;
	ret->max_write_bytes = PIECE_BYTES;
	ret->flags |= BLK_INFO_VOLATILE | BLK_INFO_FAST_ZERO;
	if (ret->flags & BLK_INFO_CAN_DISCARD)
		ret->discard_align_bytes = 1;
	ret->max_discard_bytes = MAX_RANGE_BYTES;
	if (c->conf.read_only || blk_fenced(dev))
		ret->flags |= BLK_INFO_READ_ONLY;
}

static void cache_submit(struct blk_dev *dev, struct blk_req *req)
{
	struct cache *c = cache_of(dev);
	struct blk_info info;
	int r;

	cache_info(dev, &info);
	r = blk_check(&info, req);
	if (r == 0 && (req->op == BLK_ZERO || req->op == BLK_DISCARD) &&
	    req->length > MAX_RANGE_BYTES)
		r = -EINVAL;
	if (r < 0) {
		blk_complete(req, r);
		return;
	}
	switch (req->op) {
	case BLK_FLUSH:
		flush_submit(c, req);
		break;
	case BLK_READ:
	case BLK_WRITE:
		/* Counted in blocks: one that begins inside a block touches one more. */
		if (req->offset % BLK + req->length > piece_bytes(c, req) ||
		    req->iovcnt > IOV_MAX_PIECE)
			split_data(c, req);
		else
			dispatch(c, req);
		break;
	case BLK_ZERO:
	case BLK_DISCARD:
		if (req->offset % BLK || ((req->offset + req->length) % BLK &&
					  req->offset + req->length != info.size_bytes))
			split_range(c, req);
		else
			dispatch(c, req);
		break;
	}
}

static void cancel_held(struct cache *c, struct blk_req *req, struct list_node *cancelled,
			struct todo *todo)
{
	struct held *held = req->dev_data;

	/* Not ours yet, or on its way out already. */
	if (!held || (uintptr_t)held & 1)
		return;
	switch (held->kind) {
	case HELD_READ:
		read_cancel(c, held, cancelled);
		break;
	case HELD_WRITE:
		write_cancel(c, held, todo);
		break;
	case HELD_SPLIT: {
		struct split *s = container_of(held, struct split, held);

		for (unsigned i = 0; i < s->n; i++)
			cancel_held(c, &s->piece[i], cancelled, todo);
		break;
	}
	}
}

static void cache_cancel(struct blk_dev *dev, struct blk_req *req)
{
	struct cache *c = cache_of(dev);
	struct list_node cancelled;
	struct todo todo;

	list_init(&cancelled);
	cache_lock(c, &todo);
	cancel_held(c, req, &cancelled, &todo);
	cache_unlock(c, &todo);
	read_cancelled(&cancelled);
}

static bool cache_known_zero(struct blk_dev *dev, uint64_t offset, uint64_t length,
			     uint64_t *ret_length)
{
	struct cache *c = cache_of(dev);
	uint64_t blk = offset / BLK, n = div_round_up(offset + length, BLK) - blk, run = 0;
	bool zero = false;

	guard(&c->lock);
	while (run < n) {
		enum map_state state;
		uint64_t k = map_run(&c->map, blk + run, n - run, &state);

		if (run == 0)
			zero = state == MAP_ZERO;
		else if (zero != (state == MAP_ZERO))
			break;
		run += k;
	}
	*ret_length = MIN((blk + run) * BLK - offset, length);
	return zero;
}

/* ---- life ---- */

static int identity_failed(struct err *err)
{
	return err_set(err, -EIO, "cache directory: the identity record cannot be written");
}

/*
 * Where the old end lay within a block, the cache has that block with zeroes behind the end, and
 * the far side has data there now. With nothing unsent the cache forgets all it holds, and the new
 * size is written down once it has (cache_start()); else the old size stands until it was stopped
 * clean.
 */
static void adopt_size(struct cache *c, struct cache_identity *id)
{
	struct blk_info *info = &c->inner_info;
	uint64_t old = id->size_bytes;

	if (info->size_bytes == old || old % BLK == 0) {
		id->size_bytes = info->size_bytes;
	} else if (c->was_clean) {
		c->forget = true;
	} else {
		log_warning("the volume has grown from %" PRIu64 " to %" PRIu64
			    " bytes: it keeps the old size until the next mount after everything "
			    "was sent",
			    old, info->size_bytes);
		info->size_bytes = old;
	}
}

static int check_volume(struct cache *c, struct err *err)
{
	struct cache_identity *id = c->conf.identity;
	const struct blk_info *info = &c->inner_info;

	if (id->volume[0] == '\0') {
		memcpy(id->volume, info->identity, sizeof(id->volume));
		id->size_bytes = info->size_bytes;
		id->sector_bytes = info->sector_bytes;
	} else if (strcmp(id->volume, info->identity) != 0) {
		return err_set(err, -EMEDIUMTYPE,
			       "the cache directory belongs to another volume: it holds \"%s\", "
			       "the far side is \"%s\"; use another --cache-dir for it",
			       id->volume, info->identity);
	} else if (info->size_bytes < id->size_bytes) {
		return err_set(err, -EMEDIUMTYPE,
			       "the volume has shrunk from %llu to %llu bytes since this cache "
			       "directory was used: restore its size, or use another --cache-dir",
			       (unsigned long long)id->size_bytes,
			       (unsigned long long)info->size_bytes);
	} else if (info->sector_bytes != id->sector_bytes) {
		return err_set(
			err, -EMEDIUMTYPE,
			"the volume's sectors are %u bytes now, %u when this cache directory "
			"was made: use another --cache-dir",
			info->sector_bytes, id->sector_bytes);
	}
	c->was_clean = id->clean;
	adopt_size(c, id);
	return identity_store(c->lio, id) < 0 ? identity_failed(err) : 0;
}

static void set_limits(struct cache *c)
{
	uint64_t seg_bytes = c->conf.identity->segment_bytes, most;

	c->seg_slots = (uint32_t)(seg_bytes / FORMAT_SLOT_BYTES);
	c->limit_segs = (uint32_t)MAX(c->conf.limit_bytes / seg_bytes, RESERVED_SEGMENTS + 4ull);
	c->limit_segs = MIN(c->limit_segs, (1u << MAP_SLOT_BITS) / c->seg_slots - SPARE_SEGMENTS);
	/* A segment holds a little less than its size in batches: footer, room too short for the
	 * next one. */
	most = (c->limit_segs - RESERVED_SEGMENTS) * seg_bytes / 8 * 6;
	if (c->conf.max_dirty_bytes > most)
		log_warning("cache: a cache of this size can hold %llu bytes that are not yet at "
			    "the target, not the %llu asked for",
			    (unsigned long long)most, (unsigned long long)c->conf.max_dirty_bytes);
	c->wb_conf.max_dirty_bytes =
		c->conf.max_dirty_bytes ? c->conf.max_dirty_bytes : c->conf.limit_bytes / 2;
	c->wb_conf.max_dirty_bytes =
		MAX(MIN(c->wb_conf.max_dirty_bytes, most), (uint64_t)PIECE_BYTES);
	c->wb_conf.max_dirty_age_ns = c->conf.max_dirty_age_ns;
	c->wb_conf.max_epoch_bytes = MIN(MAX_EPOCH_BYTES, c->wb_conf.max_dirty_bytes / 4);
}

static int cache_start(struct blk_dev *dev, struct err *err)
{
	struct cache *c = cache_of(dev);
	struct todo todo;
	int r;

	blk_info(dev->inner, &c->inner_info);
	if (BLK % c->inner_info.sector_bytes)
		return err_set(err, -EINVAL, "the volume's sectors of %u bytes do not divide 4096",
			       c->inner_info.sector_bytes);
	r = check_volume(c, err);
	if (r < 0)
		return r;
	c->nblocks = div_round_up(c->inner_info.size_bytes, BLK);
	set_limits(c);
	if (map_init(&c->map, c->nblocks) < 0 || appender_init(&c->log, c, FORMAT_LOG, false) < 0 ||
	    appender_init(&c->store[0], c, FORMAT_CLEAN, false) < 0 ||
	    appender_init(&c->store[1], c, FORMAT_CLEAN, true) < 0 || destage_init(c) < 0 ||
	    janitor_init(c) < 0)
		return err_set(err, -ENOMEM, "out of memory");
	readahead_init(&c->ra, c->inner_info.size_bytes);
	writeback_init(&c->wb);
	r = cache_recover(c, err);
	if (r < 0)
		return r;
	c->opened = true;
	if (c->forget)
		c->conf.identity->size_bytes = c->inner_info.size_bytes;
	/* And where the log goes on: before the first write, so that losing it shows. */
	r = identity_store(c->lio, c->conf.identity);
	if (r < 0)
		return identity_failed(err);
	cache_lock(c, &todo);
	epoch_arm_timer(c);
	destage_kick(c);
	janitor_kick(c);
	cache_unlock(c, &todo);
	return 0;
}

static bool quiet(struct cache *c)
{
	return c->in_flight == 0;
}

static void timer_stop(struct cache *c, struct sched_timer *t)
{
	sched_disarm(c->sched, t);
	sched_quiesce(c->sched, &t->task);
}

static void seal_heads(struct cache *c)
{
	struct appender *a[] = { &c->log, &c->store[0], &c->store[1] };
	struct todo todo;

	cache_lock(c, &todo);
	for (unsigned i = 0; i < ARRAY_SIZE(a); i++)
		if (a[i]->head >= 0)
			append_seal(a[i], &todo);
	cache_unlock(c, &todo);
	cache_wait(c, quiet);
}

static void sync_log(struct cache *c)
{
	for (uint32_t i = 0; i < c->nsegs; i++) {
		struct segment *s = &c->seg[i];
		int r;

		if (!segment_in_use(s) || s->class != FORMAT_LOG || !s->unsynced)
			continue;
		r = lio_fdatasync(c->lio, s->file);
		if (r < 0) {
			struct todo todo;

			log_error("cannot make the guest log durable: %s", strerror(-r));
			/* A second try would succeed without the pages that the first one lost. */
			lio_set_word(c->lio, WORD_UNSAFE, 1);
			cache_lock(c, &todo);
			c->log_unsafe = true;
			log_fail(c, &todo);
			cache_unlock(c, &todo);
		}
	}
}

static void cache_stop(struct blk_dev *dev)
{
	struct cache *c = cache_of(dev);
	struct appender *a[] = { &c->log, &c->store[0], &c->store[1] };
	struct todo todo;
	bool started;

	cache_lock(c, &todo);
	started = c->started && !c->stopping;
	c->stopping = true;
	if (started) {
		write_fail_waiting(c, -ESHUTDOWN, &todo);
		drains_end(c, -ESHUTDOWN, &todo);
		/* None of it was acknowledged; what is in flight still gets its own end. */
		for (unsigned i = 0; i < ARRAY_SIZE(a); i++)
			if (!a[i]->busy)
				append_fail(a[i], -ESHUTDOWN, &todo);
	}
	cache_unlock(c, &todo);
	if (!started) {
		/* A start that failed may have left the index at work. */
		cache_wait(c, quiet);
		return;
	}
	/* Gives back every fetch and every command of write-back. */
	blk_stop(dev->inner);
	cache_wait(c, quiet);
	timer_stop(c, &c->cut_timer);
	timer_stop(c, &c->mark_timer);
	timer_stop(c, &c->throttle_timer);
	destage_halt(c);
	janitor_halt(c);
	seal_heads(c);
	sync_log(c);
	/* What a start that failed has seen of the log it has not written down. */
	if (!c->opened)
		return;
	c->conf.identity->clean = c->dirty_slots == 0 && !c->log_failed && !c->damaged;
	if (!c->log_failed)
		c->conf.identity->last_seq = c->appended_seq;
	if (identity_store(c->lio, c->conf.identity) < 0)
		log_error("cache directory: the identity record cannot be written");
}

static void cache_free(struct cache *c)
{
	struct list_node *n;

	list_splice_tail(&c->epochs, &c->spare_epochs);
	while ((n = list_pop(&c->epochs)))
		free(list_entry(n, struct epoch, link));
	read_fini(c);
	for (uint32_t i = 0; c->seg && i < c->nsegs; i++) {
		segment_disarm(&c->seg[i]);
		seg_table_fini(&c->seg[i].table);
		if (!c->abandoned)
			lio_close(c->lio, c->seg[i].file);
	}
	free(c->seg);
	appender_fini(&c->log);
	appender_fini(&c->store[0]);
	appender_fini(&c->store[1]);
	map_fini(&c->map);
	destage_fini(c);
	janitor_fini(c);
	pthread_cond_destroy(&c->changed);
	pthread_mutex_destroy(&c->lock);
	free(c);
}

static void cache_destroy(struct blk_dev *dev)
{
	cache_free(cache_of(dev));
}

void cache_abandon(struct blk_dev *dev)
{
	struct cache *c = cache_of(dev);

	c->abandoned = true;
	cache_free(c);
}

static const struct blk_ops cache_ops = {
	.name = "cache",
	.start = cache_start,
	.submit = cache_submit,
	.stop = cache_stop,
	.destroy = cache_destroy,
	.info = cache_info,
	.cancel = cache_cancel,
	.known_zero = cache_known_zero,
};

struct blk_dev *cache_create(const struct cache_config *conf)
{
	struct cache *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->dev.ops = &cache_ops;
	c->dev.inner = conf->inner;
	c->conf = *conf;
	c->sched = conf->sched;
	c->lio = conf->lio;
	pthread_mutex_init(&c->lock, NULL);
	pthread_cond_init(&c->changed, NULL);
	list_init(&c->sync_waits);
	list_init(&c->epochs);
	list_init(&c->spare_epochs);
	list_init(&c->throttled);
	list_init(&c->writes);
	list_init(&c->rmw_locks);
	for (unsigned i = 0; i < ARRAY_SIZE(c->fetches); i++)
		list_init(&c->fetches[i]);
	list_init(&c->read_ops);
	list_init(&c->drains);
	list_init(&c->index_queue);
	list_init(&c->log.pending);
	c->log.head = c->store[0].head = c->store[1].head = -1;
	task_init(&c->index_task, indexq_run);
	sched_timer_init(&c->cut_timer, cut_timer_fired);
	sched_timer_init(&c->mark_timer, mark_timer_fired);
	sched_timer_init(&c->throttle_timer, throttle_timer_fired);
	c->next_seq = 1;
	c->next_incarnation = c->next_order = 1;
	return &c->dev;
}
