// SPDX-License-Identifier: Apache-2.0
/*
 * Data requests: from the kernel's READ, WRITE, FSYNC and FALLOCATE to one block request after the
 * other (an FALLOCATE may need several), and back.
 *
 * States of an io_req:
 *   free      in mount->free_req, req is NULL.
 *   driven    one thread works on it: the handler that made it, the done() that took it over, or an
 *             interrupt that cancels. Only that thread touches more than the flags.
 *   in flight lent to the device, nobody works on it. done() or an interrupt makes it driven.
 *
 * Invariants, under io_req.lock:
 *   - At most one thread drives. A done() that finds the request driven leaves its result for that
 *     thread (ended) and goes. So the thread inside blk_submit() or blk_cancel() owns the memory
 *     until it is out again, and a request is never cancelled before it is submitted, nor replied
 * to while it is being cancelled.
 *   - Objects are not freed before the mount is, and an interrupt recognises its request by
 *     comparing req: libfuse keeps that address taken while it calls on_interrupt(), so a reused
 *     io_req has another one.
 *
 * A RANGE that fails halfway leaves the kernel's page cache as it was, also where the device is
 * zero already: as after any failed write, the range is undefined until it is written again.
 *
 * Who can be interrupted is the kernel's choice: it tells us for buffered writes, fsync and
 * fallocate. A buffered reader that is killed just goes, its readahead stays outstanding. Direct
 * I/O that was made asynchronous (FUSE_CAP_ASYNC_DIO, which all its parallelism needs) waits
 * without being interruptible, as on a disk.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <string.h>

#include "core/cleanup.h"
#include "mount/session.h"

/*
 * A WRITE up to this size is copied out of the thread's receive buffer, which stays hot in the CPU
 * cache; a longer one takes the buffer away and is never copied.
 */
#define COPY_MAX_BYTES (32u << 10)

enum io_kind { IO_READ, IO_WRITE, IO_FLUSH, IO_RANGE };

struct io_req {
	struct blk_req blk;
	struct iovec iov;
	struct mount *mount;
	struct io_req *next_free; /* guarded by mount->lock */

	pthread_mutex_t lock; /* a leaf; taken under libfuse's lock of the fuse_req */
	fuse_req_t req;       /* guarded by lock */
	bool driven;          /* guarded by lock */
	bool ended;           /* guarded by lock: the device gave it back with result */
	bool interrupted;     /* guarded by lock */
	bool cancelled;       /* guarded by lock */
	int result;           /* guarded by lock */

	enum io_kind kind;
	unsigned flags; /* enum blk_flags */
	int fd;
	struct pool_buf buf;
	uint64_t offset;
	uint64_t end;
	uint64_t next; /* where the next block request starts; RANGE goes in steps */
	bool discard;  /* RANGE: DISCARD what is aligned */
};

static struct io_req *io_get(struct mount *m, fuse_req_t req, enum io_kind kind)
{
	struct io_req *r;

	pthread_mutex_lock(&m->lock);
	r = m->free_req;
	if (r)
		m->free_req = r->next_free;
	m->outstanding++;
	pthread_mutex_unlock(&m->lock);
	if (!r) {
		r = calloc(1, sizeof(*r));
		if (!r) {
			pthread_mutex_lock(&m->lock);
			m->outstanding--;
			pthread_mutex_unlock(&m->lock);
			fuse_reply_err(req, ENOMEM);
			return NULL;
		}
		r->mount = m;
		pthread_mutex_init(&r->lock, NULL);
	}
	r->kind = kind;
	r->flags = 0;
	r->discard = false;
	r->fd = mount_thread_self()->fd;
	r->offset = r->end = r->next = 0;
	guard(&r->lock);
	r->req = req;
	r->driven = true;
	r->ended = false;
	r->interrupted = false;
	r->cancelled = false;
	return r;
}

static void io_put(struct io_req *r)
{
	struct mount *m = r->mount;

	pool_put(&m->pool, &r->buf);
	guard(&m->lock);
	r->next_free = m->free_req;
	m->free_req = r;
	if (--m->outstanding == 0)
		pthread_cond_broadcast(&m->changed);
}

void io_drain(struct mount *m)
{
	struct io_req *r;

	pthread_mutex_lock(&m->lock);
	while (m->outstanding)
		pthread_cond_wait(&m->changed, &m->lock);
	r = m->free_req;
	m->free_req = NULL;
	pthread_mutex_unlock(&m->lock);
	while (r) {
		struct io_req *next = r->next_free;

		pthread_mutex_destroy(&r->lock);
		free(r);
		r = next;
	}
}

/* What the caller of read(2) and friends sees. Codes that only make sense between devices are EIO.
 */
static int to_errno(int result)
{
	return result == -ESHUTDOWN || result == -ECANCELED || result == -ESTALE || result < -511
		       ? EIO
		       : -result;
}

/* Driven by us: answer the kernel, the request is free after. */
static void finish(struct io_req *r, int result)
{
	fuse_req_t req;
	int before;

	pthread_mutex_lock(&r->lock);
	req = r->req;
	r->req = NULL;
	pthread_mutex_unlock(&r->lock);

	/* Replies that fail mean that the kernel has given up on the request: nothing is owed. */
	before = mount_reply_through(r->fd);
	if (result < 0)
		fuse_reply_err(req, to_errno(result));
	else if (r->kind == IO_READ)
		fuse_reply_buf(req, r->buf.mem, r->end - r->offset);
	else if (r->kind == IO_WRITE)
		fuse_reply_write(req, r->end - r->offset);
	else
		fuse_reply_err(req, 0);
	mount_reply_through(before);
	io_put(r);
}

/* Describe the next block request of a RANGE: DISCARD what is aligned, ZERO the rest. */
static void range_step(struct io_req *r)
{
	struct mount *m = r->mount;
	uint64_t align = m->discard_align_bytes;
	uint64_t rest = r->end - r->next;
	uint64_t length = MIN(rest, m->max_range_bytes);
	enum blk_op op = BLK_ZERO;

	if (r->discard && r->next % align) {
		length = MIN(rest, align - r->next % align);
	} else if (r->discard && rest >= align) {
		op = BLK_DISCARD;
		length -= length % align;
	}
	blk_req_init(&r->blk, op, r->next, length, NULL, 0);
	r->next += length;
}

static void describe_step(struct io_req *r)
{
	switch (r->kind) {
	case IO_READ:
	case IO_WRITE:
		blk_req_init(&r->blk, r->kind == IO_READ ? BLK_READ : BLK_WRITE, r->offset,
			     r->end - r->offset, &r->iov, 1);
		r->next = r->end;
		break;
	case IO_FLUSH:
		blk_req_init(&r->blk, BLK_FLUSH, 0, 0, NULL, 0);
		r->blk.lane = BLK_LANE_FLUSH;
		break;
	case IO_RANGE:
		range_step(r);
		break;
	}
	r->blk.flags = r->flags;
}

/*
 * We drive and the request is, or was, at the device. Cancel it if an interrupt came meanwhile,
 * then let go. True: it ended with *@ret_result and is still ours; false: somebody else's from now
 * on.
 */
static bool let_go(struct io_req *r, int *ret_result)
{
	for (;;) {
		{
			guard(&r->lock);
			if (r->ended) {
				*ret_result = r->result;
				return true;
			}
			if (!r->interrupted || r->cancelled) {
				r->driven = false;
				return false;
			}
			r->cancelled = true;
		}
		blk_cancel(r->mount->dev, &r->blk);
	}
}

/* False if the request was interrupted: no further step is taken. */
static bool may_submit(struct io_req *r)
{
	guard(&r->lock);
	r->ended = false;
	return !r->interrupted;
}

static void after_step(struct io_req *r, int result);

static void on_done(struct blk_req *blk, void *ctx, int result)
{
	struct io_req *r = ctx;
	bool driven;

	assert(blk == &r->blk);
	{
		guard(&r->lock);
		r->result = result;
		r->ended = true;
		driven = r->driven;
		r->driven = true;
	}
	if (!driven)
		after_step(r, result);
}

/* We drive and nothing is at the device: go on until the request is in flight or finished. */
static void drive(struct io_req *r)
{
	int result;

	do {
		if (!may_submit(r)) {
			finish(r, -EINTR);
			return;
		}
		describe_step(r);
		blk_submit(r->mount->dev, &r->blk, on_done, r);
		if (!let_go(r, &result))
			return;
	} while (result == 0 && r->next < r->end);
	finish(r, result);
}

static void after_step(struct io_req *r, int result)
{
	if (result == 0 && r->next < r->end)
		drive(r);
	else
		finish(r, result);
}

/*
 * A signal came for the caller. For SIGKILL this is the only way out: the kernel waits for our
 * answer without being interruptible a second time. Runs under libfuse's lock of @req, once.
 */
static void on_interrupt(fuse_req_t req, void *data)
{
	struct io_req *r = data;
	int result;

	{
		guard(&r->lock);
		if (r->req != req)
			return;
		r->interrupted = true;
		if (r->driven)
			return;
		r->driven = true;
	}
	if (let_go(r, &result))
		after_step(r, result);
}

/* The first step. Everything that drive() needs is in @r. */
static void begin(struct io_req *r)
{
	fuse_req_interrupt_func(r->req, on_interrupt, r);
	drive(r);
}

static void io_read(fuse_req_t req, fuse_ino_t ino, size_t length, off_t offset,
		    struct fuse_file_info *fi)
{
	struct mount *m = fuse_req_userdata(req);
	uint64_t size = atomic_load(&m->size_bytes);
	struct io_req *r;

	if (ino != INO_FILE || offset < 0) {
		fuse_reply_err(req, EINVAL);
		return;
	}
	if ((uint64_t)offset >= size || !length) {
		fuse_reply_buf(req, NULL, 0);
		return;
	}
	length = MIN((uint64_t)length, size - (uint64_t)offset);
	length = MIN(length, (size_t)MAX_IO_BYTES);
	r = io_get(m, req, IO_READ);
	if (!r)
		return;
	r->buf = pool_get(&m->pool, length);
	if (!r->buf.mem) {
		finish(r, -ENOMEM);
		return;
	}
	r->offset = (uint64_t)offset;
	r->end = r->offset + length;
	r->iov = (struct iovec){ .iov_base = r->buf.mem, .iov_len = length };
	begin(r);
}

/* Have the payload in memory of @r, which lives on when the handler has returned. */
static bool keep_payload(struct io_req *r, void *payload, size_t length)
{
	struct mount_thread *self = mount_thread_self();

	if (length <= COPY_MAX_BYTES) {
		r->buf = pool_get(&r->mount->pool, length);
		if (!r->buf.mem)
			return false;
		memcpy(r->buf.mem, payload, length);
		payload = r->buf.mem;
	} else {
		assert((char *)payload > (char *)self->buf.mem &&
		       (char *)payload + length <= (char *)self->buf.mem + POOL_MAX_BYTES);
		r->buf = self->buf;
		self->buf.mem = NULL;
	}
	r->iov = (struct iovec){ .iov_base = payload, .iov_len = length };
	return true;
}

static void io_write(fuse_req_t req, fuse_ino_t ino, struct fuse_bufvec *bufv, off_t offset,
		     struct fuse_file_info *fi)
{
	struct mount *m = fuse_req_userdata(req);
	uint64_t size = atomic_load(&m->size_bytes);
	size_t length = bufv->buf[0].size;
	struct io_req *r;

	assert(bufv->count == 1 && !(bufv->buf[0].flags & FUSE_BUF_IS_FD));
	if (ino != INO_FILE || offset < 0) {
		fuse_reply_err(req, EINVAL);
		return;
	}
	if (!length) {
		fuse_reply_write(req, 0);
		return;
	}
	/* As a block device does: write what fits; at the end there is no space left. */
	if ((uint64_t)offset >= size) {
		fuse_reply_err(req, ENOSPC);
		return;
	}
	length = MIN((uint64_t)length, size - (uint64_t)offset);
	r = io_get(m, req, IO_WRITE);
	if (!r)
		return;
	if (!keep_payload(r, bufv->buf[0].mem, length)) {
		finish(r, -ENOMEM);
		return;
	}
	r->offset = (uint64_t)offset;
	r->end = r->offset + length;
	if (fi->flags & (O_SYNC | O_DSYNC))
		r->flags = BLK_FUA;
	begin(r);
}

static void io_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	struct io_req *r = io_get(fuse_req_userdata(req), req, IO_FLUSH);

	if (r)
		begin(r);
}

static void io_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t length,
			 struct fuse_file_info *fi)
{
	struct mount *m = fuse_req_userdata(req);
	uint64_t size = atomic_load(&m->size_bytes);
	bool keep = mode & FALLOC_FL_KEEP_SIZE;
	bool punch = mode & FALLOC_FL_PUNCH_HOLE;
	bool zero = mode & FALLOC_FL_ZERO_RANGE;
	uint64_t end;
	struct io_req *r;

	if (ino != INO_FILE || offset < 0 || length <= 0 ||
	    __builtin_add_overflow((uint64_t)offset, (uint64_t)length, &end)) {
		fuse_reply_err(req, EINVAL);
		return;
	}
	if ((mode & ~(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) ||
	    (punch && (zero || !keep)) || (punch && !m->discard_align_bytes)) {
		fuse_reply_err(req, EOPNOTSUPP);
		return;
	}
	/* What lies past the end is a hole already; but it cannot be made part of the file. */
	if (end > size && (!keep || !(punch || zero))) {
		fuse_reply_err(req, ENOSPC);
		return;
	}
	end = MIN(end, size);
	if (!(punch || zero) || (uint64_t)offset >= end) {
		fuse_reply_err(req, 0);
		return;
	}
	r = io_get(m, req, IO_RANGE);
	if (!r)
		return;
	r->discard = punch;
	r->offset = r->next = (uint64_t)offset;
	r->end = end;
	begin(r);
}

void io_fill(struct fuse_lowlevel_ops *ops)
{
	ops->read = io_read;
	ops->write_buf = io_write;
	ops->fsync = io_fsync;
	ops->fallocate = io_fallocate;
}
