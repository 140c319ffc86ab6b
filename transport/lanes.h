// SPDX-License-Identifier: Apache-2.0
/*
 * The queue of a leaf whose worker threads take one request each: a list per lane, served by
 * urgency, with some workers kept free of background work, so that a demand read finds one. Not
 * synchronised: the owner brings the lock.
 */
#ifndef TRANSPORT_LANES_H
#define TRANSPORT_LANES_H

#include <stdbool.h>

#include "core/block.h"

struct lanes {
	struct list_node queue[BLK_LANE_COUNT]; /* struct blk_req.link, first in first out */
	unsigned background;                    /* background requests taken and not given back */
	unsigned max_background;
};

/* At most @max_background (>= 1) background requests are out at a time. */
static inline void lanes_init(struct lanes *l, unsigned max_background)
{
	for (unsigned i = 0; i < BLK_LANE_COUNT; i++)
		list_init(&l->queue[i]);
	l->background = 0;
	l->max_background = max_background;
}

/* Work that nobody waits for at the moment. */
static inline bool lanes_is_background(enum blk_lane lane)
{
	return lane >= BLK_LANE_WRITEBACK;
}

static inline void lanes_push(struct lanes *l, struct blk_req *req)
{
	list_add_tail(&l->queue[req->lane], &req->link);
}

/* The most urgent request that may run now, or NULL. Its end is told with lanes_ended(). */
static inline struct blk_req *lanes_take(struct lanes *l)
{
	for (unsigned i = 0; i < BLK_LANE_COUNT; i++) {
		struct list_node *n;

		if (lanes_is_background((enum blk_lane)i) && l->background >= l->max_background)
			return NULL;
		n = list_pop(&l->queue[i]);
		if (!n)
			continue;
		l->background += lanes_is_background((enum blk_lane)i);
		return list_entry(n, struct blk_req, link);
	}
	return NULL;
}

/* A request taken from @lane is done. Call before the request is completed. */
static inline void lanes_ended(struct lanes *l, enum blk_lane lane)
{
	l->background -= lanes_is_background(lane);
}

/* True if @req was queued; it is then in no list and the caller's. */
static inline bool lanes_remove(struct lanes *l, struct blk_req *req)
{
	for (unsigned i = 0; i < BLK_LANE_COUNT; i++) {
		struct list_node *n;

		list_for_each(n, &l->queue[i]) {
			if (list_entry(n, struct blk_req, link) == req) {
				list_del(n);
				return true;
			}
		}
	}
	return false;
}

/* Move all that is queued behind @to. */
static inline void lanes_drain(struct lanes *l, struct list_node *to)
{
	for (unsigned i = 0; i < BLK_LANE_COUNT; i++)
		list_splice_tail(to, &l->queue[i]);
}

/* With --enable-invariants: what is queued lies in its lane, and background work keeps its bound.
 */
static inline void lanes_check(const struct lanes *l)
{
#ifdef ENABLE_INVARIANTS
	const struct list_node *n;

	assert(l->background <= l->max_background);
	for (unsigned i = 0; i < BLK_LANE_COUNT; i++)
		list_for_each(n, &l->queue[i])
			assert(list_entry(n, struct blk_req, link)->lane == (enum blk_lane)i);
#else
	(void)l;
#endif
}

#endif
