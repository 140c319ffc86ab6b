// SPDX-License-Identifier: Apache-2.0
#include "core/block.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "core/range.h"

int blk_start(struct blk_dev *dev, struct err *err)
{
	int r = 0;

	if (dev->started)
		return 0;
	if (dev->inner)
		r = blk_start(dev->inner, err);
	if (r == 0 && dev->ops->start)
		r = dev->ops->start(dev, err);
	dev->started = r == 0;
	return r;
}

void blk_submit(struct blk_dev *dev, struct blk_req *req, blk_done_fn *done, void *ctx)
{
	assert(req->depth < BLK_MAX_DEPTH);
	req->frame[req->depth].done = done;
	req->frame[req->depth].ctx = ctx;
	req->depth++;
	dev->ops->submit(dev, req);
}

void blk_complete(struct blk_req *req, int result)
{
	struct blk_frame *f;

	/* A second completion of the same frame finds the stack empty, or another layer's frame. */
	assert(req->depth > 0);
	assert(result <= 0);
	f = &req->frame[--req->depth];
	f->done(req, f->ctx, result);
}

void blk_stop(struct blk_dev *dev)
{
	if (!dev)
		return;
	if (dev->ops->stop)
		dev->ops->stop(dev);
	blk_stop(dev->inner);
}

void blk_destroy(struct blk_dev *dev)
{
	struct blk_dev *inner;

	if (!dev)
		return;
	blk_stop(dev);
	inner = steal_ptr(dev->inner);
	dev->ops->destroy(dev);
	blk_destroy(inner);
}

void blk_info(struct blk_dev *dev, struct blk_info *ret_info)
{
	while (!dev->ops->info && dev->inner)
		dev = dev->inner;
	dev->ops->info(dev, ret_info);
}

uint64_t blk_generation(struct blk_dev *dev)
{
	while (!dev->ops->generation && dev->inner)
		dev = dev->inner;
	return dev->ops->generation ? dev->ops->generation(dev) : 1;
}

const char *blk_fenced(struct blk_dev *dev)
{
	while (!dev->ops->fenced && dev->inner)
		dev = dev->inner;
	return dev->ops->fenced ? dev->ops->fenced(dev) : NULL;
}

int blk_release(struct blk_dev *dev, uint64_t *ret_mark)
{
	while (!dev->ops->release && dev->inner)
		dev = dev->inner;
	*ret_mark = 0;
	return dev->ops->release ? dev->ops->release(dev, ret_mark) : 0;
}

enum blk_reserved blk_reserved(struct blk_dev *dev)
{
	while (!dev->ops->reserved && dev->inner)
		dev = dev->inner;
	return dev->ops->reserved ? dev->ops->reserved(dev) : BLK_RESERVED_UNKNOWN;
}

void blk_cancel(struct blk_dev *dev, struct blk_req *req)
{
	while (!dev->ops->cancel && dev->inner)
		dev = dev->inner;
	if (dev->ops->cancel)
		dev->ops->cancel(dev, req);
}

bool blk_known_zero(struct blk_dev *dev, uint64_t offset, uint64_t length, uint64_t *ret_length)
{
	while (!dev->ops->known_zero && dev->inner)
		dev = dev->inner;
	if (dev->ops->known_zero)
		return dev->ops->known_zero(dev, offset, length, ret_length);
	*ret_length = length;
	return false;
}

unsigned blk_sessions(struct blk_dev *dev, struct blk_session *out, unsigned max)
{
	while (!dev->ops->sessions && dev->inner)
		dev = dev->inner;
	return dev->ops->sessions ? dev->ops->sessions(dev, out, max) : 0;
}

void blk_stats(struct blk_dev *dev, struct blk_stats *ret_stats)
{
	while (!dev->ops->stats && dev->inner)
		dev = dev->inner;
	*ret_stats = (struct blk_stats){ .online = true };
	if (dev->ops->stats)
		dev->ops->stats(dev, ret_stats);
}

void blk_kick(struct blk_dev *dev)
{
	while (!dev->ops->kick && dev->inner)
		dev = dev->inner;
	if (dev->ops->kick)
		dev->ops->kick(dev);
}

void blk_req_init(struct blk_req *req, enum blk_op op, uint64_t offset, uint64_t length,
		  const struct iovec *iov, int iovcnt)
{
	*req = (struct blk_req){
		.op = op,
		.lane = BLK_LANE_DEMAND,
		.offset = offset,
		.length = length,
		.iov = iov,
		.iovcnt = iovcnt,
	};
	list_init(&req->link);
}

int blk_check(const struct blk_info *info, const struct blk_req *req)
{
	bool changes = req->op == BLK_WRITE || req->op == BLK_ZERO || req->op == BLK_DISCARD;

	if (req->op == BLK_FLUSH)
		return 0;
	if (changes && (info->flags & BLK_INFO_READ_ONLY))
		return -EROFS;
	if (req->op == BLK_DISCARD && !(info->flags & BLK_INFO_CAN_DISCARD))
		return -EOPNOTSUPP;
	if (!req->length || req->offset % info->sector_bytes || req->length % info->sector_bytes)
		return -EINVAL;
	if (!range_inside(req->offset, req->length, info->size_bytes))
		return changes ? -ENOSPC : -EINVAL;
	if ((req->op == BLK_READ || req->op == BLK_WRITE) &&
	    iov_length(req->iov, req->iovcnt) != req->length)
		return -EINVAL;
	return 0;
}

struct waiter {
	pthread_mutex_t lock;
	pthread_cond_t ended;
	bool done; /* guarded by lock */
	int result;
};

static void wake(struct blk_req *req, void *ctx, int result)
{
	struct waiter *w = ctx;

	(void)req;
	guard(&w->lock);
	w->result = result;
	w->done = true;
	/* Signalled under the lock: the waiter's stack frame goes as soon as it sees done. */
	pthread_cond_signal(&w->ended);
}

static int submit_and_wait(struct blk_dev *dev, struct blk_req *req)
{
	struct waiter w = { .done = false };

	pthread_mutex_init(&w.lock, NULL);
	pthread_cond_init(&w.ended, NULL);
	blk_submit(dev, req, wake, &w);
	pthread_mutex_lock(&w.lock);
	while (!w.done)
		pthread_cond_wait(&w.ended, &w.lock);
	pthread_mutex_unlock(&w.lock);
	pthread_cond_destroy(&w.ended);
	pthread_mutex_destroy(&w.lock);
	return w.result;
}

int blk_read_sync(struct blk_dev *dev, void *buf, uint64_t offset, size_t length)
{
	struct iovec iov = { .iov_base = buf, .iov_len = length };
	struct blk_req req;

	blk_req_init(&req, BLK_READ, offset, length, &iov, 1);
	return submit_and_wait(dev, &req);
}

int blk_write_sync(struct blk_dev *dev, const void *buf, uint64_t offset, size_t length,
		   unsigned flags)
{
	struct iovec iov = { .iov_base = (void *)(uintptr_t)buf, .iov_len = length };
	struct blk_req req;

	blk_req_init(&req, BLK_WRITE, offset, length, &iov, 1);
	req.flags = flags;
	return submit_and_wait(dev, &req);
}

static int plain_sync(struct blk_dev *dev, enum blk_op op, uint64_t offset, uint64_t length)
{
	struct blk_req req;

	blk_req_init(&req, op, offset, length, NULL, 0);
	if (op == BLK_FLUSH)
		req.lane = BLK_LANE_FLUSH;
	return submit_and_wait(dev, &req);
}

int blk_flush_sync(struct blk_dev *dev)
{
	return plain_sync(dev, BLK_FLUSH, 0, 0);
}

int blk_discard_sync(struct blk_dev *dev, uint64_t offset, uint64_t length)
{
	return plain_sync(dev, BLK_DISCARD, offset, length);
}

int blk_zero_sync(struct blk_dev *dev, uint64_t offset, uint64_t length)
{
	return plain_sync(dev, BLK_ZERO, offset, length);
}

size_t iov_length(const struct iovec *iov, int iovcnt)
{
	size_t sum = 0;

	for (int i = 0; i < iovcnt; i++)
		sum += iov[i].iov_len;
	return sum;
}

int iov_slice(const struct iovec *iov, int iovcnt, size_t skip, size_t length, struct iovec *out,
	      int max)
{
	int n = 0;

	for (int i = 0; i < iovcnt && length; i++) {
		size_t take;

		if (skip >= iov[i].iov_len) {
			skip -= iov[i].iov_len;
			continue;
		}
		take = MIN(iov[i].iov_len - skip, length);
		assert(n < max);
		out[n].iov_base = (char *)iov[i].iov_base + skip;
		out[n++].iov_len = take;
		skip = 0;
		length -= take;
	}
	assert(length == 0);
	return n;
}

enum copy { COPY_TO, COPY_FROM, COPY_ZERO };

static void iov_copy(const struct iovec *iov, int iovcnt, size_t skip, char *flat, size_t length,
		     enum copy how)
{
	for (int i = 0; i < iovcnt && length; i++) {
		size_t n;

		if (skip >= iov[i].iov_len) {
			skip -= iov[i].iov_len;
			continue;
		}
		n = MIN(iov[i].iov_len - skip, length);
		if (how == COPY_TO)
			memcpy((char *)iov[i].iov_base + skip, flat, n);
		else if (how == COPY_FROM)
			memcpy(flat, (char *)iov[i].iov_base + skip, n);
		else
			memset((char *)iov[i].iov_base + skip, 0, n);
		if (flat)
			flat += n;
		skip = 0;
		length -= n;
	}
	assert(length == 0);
}

void iov_copy_to(const struct iovec *iov, int iovcnt, size_t skip, const void *from, size_t length)
{
	iov_copy(iov, iovcnt, skip, (char *)(uintptr_t)from, length, COPY_TO);
}

void iov_copy_from(const struct iovec *iov, int iovcnt, size_t skip, void *to, size_t length)
{
	iov_copy(iov, iovcnt, skip, to, length, COPY_FROM);
}

void iov_zero(const struct iovec *iov, int iovcnt, size_t skip, size_t length)
{
	iov_copy(iov, iovcnt, skip, NULL, length, COPY_ZERO);
}
