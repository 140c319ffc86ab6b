// SPDX-License-Identifier: Apache-2.0
/*
 * Index updates in the order in which the map changed. They are queued under the lock at the moment
 * of the change and applied by one task, so a put can never overtake the deletion that made it
 * obsolete.
 *
 * An index that fails is wiped: it then knows nothing, which is always true. If
 * even that fails, barriers report the error and no segment is reused any more.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cache/internal.h"
#include "core/le.h"
#include "core/log.h"

#define INDEX_BATCH 256

static void push(struct cache *c, struct index_item *item)
{
	list_init(&item->link);
	list_add_tail(&c->index_queue, &item->link);
	if (!c->index_busy) {
		c->index_busy = true;
		cache_get(c);
		sched_post(c->sched, &c->index_task);
	}
}

static struct index_item *item_new(struct cache *c, enum index_op_kind kind, uint64_t blk,
				   uint64_t n)
{
	struct index_item *item = calloc(1, sizeof(*item));

	if (!item) {
		/*
		 * A change that is lost leaves what it replaced: old bytes. The wipe comes with the
		 * next run of the queue, at the latest before anything is reused.
		 */
		c->index_failed = true;
		return NULL;
	}
	item->op.kind = kind;
	item->op.extent.blk = blk;
	item->op.extent.nblocks = n;
	return item;
}

/* One extent, within a group. */
static void put_extent(struct cache *c, uint64_t blk, uint32_t n, uint32_t slot,
		       const uint32_t *crc)
{
	struct index_item *item = item_new(c, INDEX_PUT, blk, n);

	if (!item)
		return;
	item->crc = malloc(n * sizeof(*crc));
	if (!item->crc) {
		c->index_failed = true;
		free(item);
		return;
	}
	memcpy(item->crc, crc, n * sizeof(*crc));
	item->op.extent.kind = INDEX_DATA;
	item->op.extent.segment = slot_segment(c, slot);
	item->op.extent.slot = slot % c->seg_slots;
	item->op.extent.incarnation = c->seg[slot_segment(c, slot)].incarnation;
	item->op.extent.crc = item->crc;
	push(c, item);
}

void indexq_put(struct cache *c, uint64_t blk, uint32_t n, uint32_t slot, const uint32_t *crc)
{
	while (n) {
		uint32_t room = INDEX_EXTENT_BLOCKS - (uint32_t)(blk % INDEX_EXTENT_BLOCKS);
		uint32_t part = MIN(n, room);

		put_extent(c, blk, part, slot, crc);
		blk += part;
		slot += part;
		crc += part;
		n -= part;
	}
}

void indexq_zero(struct cache *c, uint64_t blk, uint64_t n)
{
	struct index_item *item = item_new(c, INDEX_PUT, blk, n);

	if (!item)
		return;
	item->op.extent.kind = INDEX_ZERO;
	push(c, item);
}

void indexq_delete(struct cache *c, uint64_t blk, uint64_t n)
{
	struct index_item *item = item_new(c, INDEX_DELETE, blk, n);

	if (item)
		push(c, item);
}

void indexq_wipe(struct cache *c)
{
	struct index_item *item = item_new(c, INDEX_DELETE, 0, 0);

	c->index_failed = true;
	if (item)
		push(c, item);
}

bool indexq_barrier(struct cache *c, uint64_t tail_seq,
		    void (*applied)(struct cache *c, void *ctx, int result), void *ctx)
{
	struct index_item *item = item_new(c, INDEX_DELETE, 0, 0);

	if (!item)
		return false;
	item->durable = true;
	item->tail_seq = tail_seq;
	item->destaged_seq = c->destaged_seq;
	item->applied = applied;
	item->ctx = ctx;
	push(c, item);
	return true;
}

/* Take up to INDEX_BATCH items off the queue. The lock is held. */
static size_t take(struct cache *c, struct index_item **item, bool *ret_durable)
{
	size_t n = 0;

	*ret_durable = false;
	while (n < INDEX_BATCH && !list_empty(&c->index_queue)) {
		item[n] = list_entry(list_pop(&c->index_queue), struct index_item, link);
		*ret_durable |= item[n]->durable;
		n++;
	}
	return n;
}

/*
 * The newest reclaimed record of the guest log, stored behind the deletions that made reclaiming it
 * safe: an index that lost them has lost this too, and is found out (recover.c).
 */
int index_put_tail(struct index_store *index, uint64_t tail_seq, uint64_t destaged_seq)
{
	uint8_t bytes[16];

	le_put(bytes, tail_seq, 8);
	le_put(bytes + 8, destaged_seq, 8);
	return index_put_state(index, "log-tail", bytes, sizeof(bytes));
}

int index_get_tail(struct index_store *index, uint64_t *ret_tail_seq, uint64_t *ret_destaged_seq)
{
	uint8_t bytes[16];
	size_t length;
	int r = index_get_state(index, "log-tail", bytes, sizeof(bytes), &length);

	if (r < 0)
		return r;
	if (length != sizeof(bytes))
		return -EBADMSG;
	*ret_tail_seq = le_get(bytes, 8);
	*ret_destaged_seq = le_get(bytes + 8, 8);
	return 0;
}

static int apply(struct cache *c, struct index_item **item, size_t n, bool durable)
{
	struct index_op op[INDEX_BATCH];
	uint64_t tail_seq = 0, destaged_seq = 0;
	size_t ops = 0;
	int r;

	for (size_t i = 0; i < n; i++) {
		if (item[i]->op.extent.nblocks)
			op[ops++] = item[i]->op;
		tail_seq = MAX(tail_seq, item[i]->tail_seq);
		destaged_seq = MAX(destaged_seq, item[i]->destaged_seq);
	}
	if (tail_seq) {
		r = index_apply(c->conf.index, op, ops, false);
		if (r == 0)
			r = index_put_tail(c->conf.index, tail_seq, destaged_seq);
		if (r < 0)
			return r;
		ops = 0;
	}
	if (!ops && !durable)
		return 0;
	return index_apply(c->conf.index, op, ops, durable);
}

void indexq_run(struct task *t)
{
	struct cache *c = container_of(t, struct cache, index_task);
	struct index_item *item[INDEX_BATCH];
	bool durable, failed;
	struct todo todo;
	size_t n;
	int r;

	cache_lock(c, &todo);
	n = take(c, item, &durable);
	failed = c->index_failed;
	c->index_failed = false;
	cache_unlock(c, &todo);
	r = failed ? -EIO : apply(c, item, n, durable);
	if (r < 0) {
		log_warning("index: %s; clean data is forgotten", strerror(-r));
		r = index_wipe(c->conf.index);
		if (r < 0)
			log_error("index: cannot be wiped: %s; no cache space is reused",
				  strerror(-r));
	}
	for (size_t i = 0; i < n; i++) {
		if (item[i]->applied)
			item[i]->applied(c, item[i]->ctx, r);
		free(item[i]->crc);
		free(item[i]);
	}
	cache_lock(c, &todo);
	c->index_failed |= r < 0;
	if (!list_empty(&c->index_queue)) {
		sched_post(c->sched, &c->index_task);
	} else {
		c->index_busy = false;
		cache_put(c);
	}
	cache_unlock(c, &todo);
}
