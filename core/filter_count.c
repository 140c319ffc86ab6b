// SPDX-License-Identifier: Apache-2.0
/*
 * State: the counts, guarded by `lock`. Invariant: in_flight is the number of our frames that are
 * on some request's stack.
 */
#include "core/filter_count.h"

#include <pthread.h>
#include <stdlib.h>

struct count {
	struct blk_dev dev;
	pthread_mutex_t lock;
	struct filter_count now; /* guarded by lock */
};

static void count_done(struct blk_req *req, void *ctx, int result)
{
	struct count *c = ctx;

	pthread_mutex_lock(&c->lock);
	assert(c->now.in_flight > 0);
	c->now.in_flight--;
	if (result < 0)
		c->now.op[req->op].failed++;
	pthread_mutex_unlock(&c->lock);
	blk_complete(req, result);
}

static void count_submit(struct blk_dev *dev, struct blk_req *req)
{
	struct count *c = container_of(dev, struct count, dev);

	pthread_mutex_lock(&c->lock);
	c->now.op[req->op].requests++;
	c->now.op[req->op].bytes += req->length;
	c->now.lane[req->lane]++;
	if (req->flags & BLK_FUA)
		c->now.fua++;
	c->now.in_flight++;
	c->now.max_in_flight = MAX(c->now.max_in_flight, c->now.in_flight);
	pthread_mutex_unlock(&c->lock);
	blk_submit(dev->inner, req, count_done, c);
}

static void count_destroy(struct blk_dev *dev)
{
	struct count *c = container_of(dev, struct count, dev);

	pthread_mutex_destroy(&c->lock);
	free(c);
}

static const struct blk_ops count_ops = {
	.name = "count",
	.submit = count_submit,
	.destroy = count_destroy,
};

struct blk_dev *filter_count_create(struct blk_dev *inner)
{
	struct count *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->dev.ops = &count_ops;
	c->dev.inner = inner;
	pthread_mutex_init(&c->lock, NULL);
	return &c->dev;
}

void filter_count_get(struct blk_dev *dev, struct filter_count *ret_count)
{
	struct count *c = container_of(dev, struct count, dev);

	assert(dev->ops == &count_ops);
	guard(&c->lock);
	*ret_count = c->now;
}

void filter_count_reset(struct blk_dev *dev)
{
	struct count *c = container_of(dev, struct count, dev);
	uint64_t in_flight;

	assert(dev->ops == &count_ops);
	guard(&c->lock);
	in_flight = c->now.in_flight;
	c->now = (struct filter_count){ .in_flight = in_flight, .max_in_flight = in_flight };
}
