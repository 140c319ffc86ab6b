// SPDX-License-Identifier: Apache-2.0
#include "tests/mount/testdev.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "core/cleanup.h"

#define ZERO_UNIT 4096u

struct testdev {
	struct blk_dev dev;
	unsigned flags;
	uint8_t *bytes;
	uint8_t *zero; /* per ZERO_UNIT: known to be zero; guarded by lock */
	uint64_t room;
	_Atomic uint64_t size;
	struct testdev_counts counts;

	pthread_t worker;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct list_node queue; /* guarded by lock, as is all below */
	struct list_node held;
	unsigned held_count;
	int hold_op; /* -1: none */
	int fail_op;
	int fail_result;
	bool stopped;
};

static struct testdev *of(struct blk_dev *dev)
{
	return container_of(dev, struct testdev, dev);
}

static void testdev_info(struct blk_dev *dev, struct blk_info *ret)
{
	struct testdev *t = of(dev);

	*ret = (struct blk_info){
		.size_bytes = atomic_load(&t->size),
		.sector_bytes = t->flags & TESTDEV_SECTOR_512 ? 512 : 1,
		.max_read_bytes = 1 << 20,
		.max_write_bytes = 1 << 20,
		.max_discard_bytes = TESTDEV_MAX_RANGE,
		.identity = "testdev",
	};
	if (t->flags & TESTDEV_DISCARD) {
		ret->flags |= BLK_INFO_CAN_DISCARD;
		ret->discard_align_bytes = TESTDEV_ALIGN;
	}
	if (t->flags & TESTDEV_READ_ONLY)
		ret->flags |= BLK_INFO_READ_ONLY;
}

static void mark(struct testdev *t, uint64_t offset, uint64_t length, bool zero)
{
	uint64_t end = offset + length;

	for (uint64_t u = offset / ZERO_UNIT; u * ZERO_UNIT < end; u++) {
		bool whole = u * ZERO_UNIT >= offset && (u + 1) * ZERO_UNIT <= end;

		if (whole || !zero)
			t->zero[u] = zero;
	}
}

static int execute(struct testdev *t, struct blk_req *req)
{
	struct blk_info info;
	int r;

	testdev_info(&t->dev, &info);
	r = blk_check(&info, req);
	if (r < 0)
		return r;
	if ((req->op == BLK_DISCARD || req->op == BLK_ZERO) && req->length > TESTDEV_MAX_RANGE)
		return -EINVAL;
	if (req->op == BLK_DISCARD && (req->offset % TESTDEV_ALIGN || req->length % TESTDEV_ALIGN))
		return -EINVAL;
	/* Under the lock, so that testdev_bytes() shows what was answered before it was called. */
	guard(&t->lock);
	switch (req->op) {
	case BLK_READ:
		iov_copy_to(req->iov, req->iovcnt, 0, t->bytes + req->offset, req->length);
		break;
	case BLK_WRITE:
		iov_copy_from(req->iov, req->iovcnt, 0, t->bytes + req->offset, req->length);
		mark(t, req->offset, req->length, false);
		break;
	case BLK_DISCARD:
	case BLK_ZERO:
		memset(t->bytes + req->offset, 0, req->length);
		mark(t, req->offset, req->length, true);
		break;
	case BLK_FLUSH:
		break;
	}
	return 0;
}

static void *work(void *arg)
{
	struct testdev *t = arg;
	struct list_node *n;

	pthread_mutex_lock(&t->lock);
	for (;;) {
		n = list_pop(&t->queue);
		if (n) {
			struct blk_req *req = list_entry(n, struct blk_req, link);

			pthread_mutex_unlock(&t->lock);
			blk_complete(req, execute(t, req));
			pthread_mutex_lock(&t->lock);
		} else if (t->stopped) {
			break;
		} else {
			pthread_cond_wait(&t->changed, &t->lock);
		}
	}
	pthread_mutex_unlock(&t->lock);
	return NULL;
}

static void testdev_submit(struct blk_dev *dev, struct blk_req *req)
{
	struct testdev *t = of(dev);
	int result = 1;

	atomic_fetch_add(&t->counts.op[req->op], 1);
	if (req->flags & BLK_FUA)
		atomic_fetch_add(&t->counts.fua, 1);
	if (req->op == BLK_WRITE && req->length >= ZERO_UNIT &&
	    (uintptr_t)req->iov[0].iov_base % ZERO_UNIT)
		atomic_fetch_add(&t->counts.unaligned_payload, 1);
	{
		guard(&t->lock);
		if (t->fail_op == (int)req->op) {
			t->fail_op = -1;
			result = t->fail_result;
		} else if (t->stopped) {
			result = -ESHUTDOWN;
		} else if (t->hold_op == (int)req->op) {
			list_add_tail(&t->held, &req->link);
			t->held_count++;
			pthread_cond_broadcast(&t->changed);
			return;
		} else if (t->flags & TESTDEV_THREAD) {
			list_add_tail(&t->queue, &req->link);
			pthread_cond_broadcast(&t->changed);
			return;
		}
	}
	blk_complete(req, result <= 0 ? result : execute(t, req));
}

static void testdev_cancel(struct blk_dev *dev, struct blk_req *req)
{
	struct testdev *t = of(dev);
	bool found = false;
	struct list_node *pos;

	{
		guard(&t->lock);
		list_for_each(pos, &t->held) {
			if (pos == &req->link) {
				found = true;
				break;
			}
		}
		if (found) {
			list_del(&req->link);
			t->held_count--;
		}
	}
	if (found) {
		atomic_fetch_add(&t->counts.cancel, 1);
		blk_complete(req, -EINTR);
	}
}

static bool testdev_known_zero(struct blk_dev *dev, uint64_t offset, uint64_t length, uint64_t *ret)
{
	struct testdev *t = of(dev);
	uint64_t u = offset / ZERO_UNIT;
	bool zero;

	guard(&t->lock);
	zero = t->zero[u];
	while (u * ZERO_UNIT < offset + length && t->zero[u] == zero)
		u++;
	*ret = MIN(u * ZERO_UNIT - offset, length);
	return zero;
}

static int testdev_start(struct blk_dev *dev, struct err *err)
{
	struct testdev *t = of(dev);

	return t->flags & TESTDEV_THREAD ? -pthread_create(&t->worker, NULL, work, t) : 0;
}

static void testdev_stop(struct blk_dev *dev)
{
	struct testdev *t = of(dev);
	bool before;

	testdev_release(dev);
	{
		guard(&t->lock);
		before = t->stopped;
		t->stopped = true;
		pthread_cond_broadcast(&t->changed);
	}
	if (!before && (t->flags & TESTDEV_THREAD))
		pthread_join(t->worker, NULL);
}

static void testdev_destroy(struct blk_dev *dev)
{
	struct testdev *t = of(dev);

	munmap(t->bytes, t->room);
	free(t->zero);
	pthread_mutex_destroy(&t->lock);
	pthread_cond_destroy(&t->changed);
	free(t);
}

static const struct blk_ops testdev_ops = {
	.name = "testdev",
	.start = testdev_start,
	.submit = testdev_submit,
	.stop = testdev_stop,
	.destroy = testdev_destroy,
	.info = testdev_info,
	.cancel = testdev_cancel,
	.known_zero = testdev_known_zero,
};

struct blk_dev *testdev_create(uint64_t size_bytes, unsigned flags)
{
	struct testdev *t = calloc(1, sizeof(*t));

	t->dev.ops = &testdev_ops;
	t->flags = flags;
	t->room = size_bytes * 2;
	atomic_store(&t->size, size_bytes);
	t->bytes = mmap(NULL, t->room, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	t->zero = calloc(t->room / ZERO_UNIT + 1, 1);
	if (t->bytes == MAP_FAILED || !t->zero)
		abort();
	memset(t->bytes, 0xff, t->room);
	pthread_mutex_init(&t->lock, NULL);
	pthread_cond_init(&t->changed, NULL);
	list_init(&t->queue);
	list_init(&t->held);
	t->hold_op = -1;
	t->fail_op = -1;
	return &t->dev;
}

struct testdev_counts *testdev_counts(struct blk_dev *dev)
{
	return &of(dev)->counts;
}

uint8_t *testdev_bytes(struct blk_dev *dev)
{
	guard(&of(dev)->lock);
	return of(dev)->bytes;
}

void testdev_grow(struct blk_dev *dev)
{
	atomic_store(&of(dev)->size, of(dev)->room);
}

void testdev_hold(struct blk_dev *dev, enum blk_op op)
{
	guard(&of(dev)->lock);
	of(dev)->hold_op = (int)op;
}

void testdev_wait_held(struct blk_dev *dev, unsigned n)
{
	struct testdev *t = of(dev);

	guard(&t->lock);
	while (t->held_count < n)
		pthread_cond_wait(&t->changed, &t->lock);
}

void testdev_release(struct blk_dev *dev)
{
	struct testdev *t = of(dev);
	struct list_node go;
	struct list_node *n;

	list_init(&go);
	{
		guard(&t->lock);
		t->hold_op = -1;
		t->held_count = 0;
		list_splice_tail(&go, &t->held);
	}
	while ((n = list_pop(&go))) {
		struct blk_req *req = list_entry(n, struct blk_req, link);

		blk_complete(req, execute(t, req));
	}
}

void testdev_fail_next(struct blk_dev *dev, enum blk_op op, int result)
{
	guard(&of(dev)->lock);
	of(dev)->fail_op = (int)op;
	of(dev)->fail_result = result;
}
