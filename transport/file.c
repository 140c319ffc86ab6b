// SPDX-License-Identifier: Apache-2.0
/*
 * A request is queued (in `lanes`, or in `flushes`), or in the hands of one worker, or done.
 *
 *   created --start--> running --stop--> stopping --workers joined--> stopped
 *
 * One fdatasync() runs at a time and answers every FLUSH that was waiting when it began. That saves
 * device flushes, and it is what makes a failure heard: the kernel reports a failed write-out to
 * one caller per open file, and of two calls side by side the other could see success.
 *
 * Invariants (file_check()): background requests in hand keep their bound; with stopping all queues
 * are empty and stay so.
 */
#include "transport/file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/uio.h>

#include "core/log.h"
#include "transport/file_open.h"
#include "transport/lanes.h"

#define THREADS 8
#define BACKGROUND_THREADS (THREADS - 2)
#define IOV_BATCH 64
#define ZERO_CHUNK (64ull << 20) /* of a fallocate(): how often a stop is noticed */
#define ZERO_BUFFER (1u << 20)

struct file {
	struct blk_dev dev;
	char path[URL_MAX];
	bool read_only;
	struct file_fds fds;  /* constant while workers run */
	struct blk_info info; /* likewise */
	_Atomic uint64_t generation;
	_Atomic uint64_t read_bytes;
	_Atomic uint64_t write_bytes;
	atomic_bool stopping; /* written under lock */

	pthread_mutex_t lock;
	pthread_cond_t work;      /* something to take, or stopping */
	struct lanes lanes;       /* guarded by lock */
	struct list_node flushes; /* struct blk_req.link; guarded by lock */
	bool flushing;            /* guarded by lock */
	unsigned threads;
	pthread_t thread[THREADS];
};

/* The far side's trouble in one line for the log; to the caller it is an I/O error. */
static int io_failed(struct file *f, const char *what, const struct blk_req *req, int e)
{
	log_error("%s: %s at %" PRIu64 ", %" PRIu64 " bytes: %s", f->path, what, req->offset,
		  req->length, e ? strerror(e) : "unexpected end of file");
	return -EIO;
}

/* The lock is held. */
static void file_check(const struct file *f)
{
	lanes_check(&f->lanes);
#ifdef ENABLE_INVARIANTS
	if (atomic_load(&f->stopping)) {
		for (unsigned i = 0; i < BLK_LANE_COUNT; i++)
			assert(list_empty(&f->lanes.queue[i]));
		assert(list_empty(&f->flushes));
	}
#endif
}

static int transfer(struct file *f, struct blk_req *req)
{
	bool fua = req->op == BLK_WRITE && (req->flags & BLK_FUA);
	const char *what = req->op == BLK_READ ? "read" : "write";
	size_t skip = 0;

	while (skip < req->length) {
		struct iovec window[IOV_BATCH];
		off_t at = (off_t)(req->offset + skip);
		int first = 0, n = 0;
		size_t into = skip;
		ssize_t r;

		while (into >= req->iov[first].iov_len)
			into -= req->iov[first++].iov_len;
		for (; first + n < req->iovcnt && n < IOV_BATCH; n++)
			window[n] = req->iov[first + n];
		window[0].iov_base = (char *)window[0].iov_base + into;
		window[0].iov_len -= into;
		if (req->op == BLK_READ)
			r = preadv(f->fds.fd, window, n, at);
		else
			r = pwritev2(fua ? f->fds.fua_fd : f->fds.fd, window, n, at,
				     fua ? RWF_DSYNC : 0);
		if (r < 0 && errno == EINTR)
			continue;
		if (r <= 0) {
			/* A FUA write that failed may have met what earlier writes left behind. */
			if (fua)
				atomic_fetch_add(&f->generation, 1);
			return io_failed(f, what, req, r < 0 ? errno : 0);
		}
		skip += (size_t)r;
	}
	atomic_fetch_add(req->op == BLK_READ ? &f->read_bytes : &f->write_bytes, req->length);
	return 0;
}

/* One try at [offset, offset + length) without writing zeroes ourselves. 0 or -errno. */
static int zero_by_kernel(struct file *f, enum blk_op op, uint64_t offset, uint64_t length)
{
	const int punch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
	const int zero = FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE;
	uint64_t range[2] = { offset, length };

	if (op == BLK_ZERO && f->fds.block_device)
		return ioctl(f->fds.fd, BLKZEROOUT, range) < 0 ? -errno : 0;
	if (op == BLK_ZERO && fallocate(f->fds.fd, zero, (off_t)offset, (off_t)length) == 0)
		return 0;
	if (op == BLK_ZERO && errno != EOPNOTSUPP)
		return -errno;
	return fallocate(f->fds.fd, punch, (off_t)offset, (off_t)length) < 0 ? -errno : 0;
}

static int zero_by_writing(struct file *f, uint64_t offset, uint64_t length)
{
	static const uint8_t zeroes[ZERO_BUFFER];

	while (length) {
		ssize_t r = pwrite(f->fds.fd, zeroes, MIN(length, (uint64_t)ZERO_BUFFER),
				   (off_t)offset);

		if (r < 0 && errno != EINTR)
			return -errno;
		if (r > 0) {
			offset += (uint64_t)r;
			length -= (uint64_t)r;
		}
	}
	return 0;
}

static int zero(struct file *f, struct blk_req *req)
{
	uint64_t offset = req->offset, length = req->length;
	bool writing = false;
	int r = 0;

	while (length) {
		uint64_t n = MIN(length, ZERO_CHUNK);

		if (atomic_load(&f->stopping))
			return -ESHUTDOWN;
		r = writing ? zero_by_writing(f, offset, n) : zero_by_kernel(f, req->op, offset, n);
		if (r == -EINTR)
			continue;
		if (r == -EOPNOTSUPP && req->op == BLK_ZERO && !writing) {
			writing = true;
			continue;
		}
		if (r == -EOPNOTSUPP)
			return r;
		if (r < 0)
			return io_failed(f, req->op == BLK_ZERO ? "zero" : "discard", req, -r);
		offset += n;
		length -= n;
	}
	if ((req->flags & BLK_FUA) && fdatasync(f->fds.fua_fd) < 0) {
		r = io_failed(f, "zero", req, errno);
		atomic_fetch_add(&f->generation, 1);
	}
	return r;
}

static void complete_all(struct list_node *list, int result)
{
	struct list_node *n;

	while ((n = list_pop(list)))
		blk_complete(list_entry(n, struct blk_req, link), result);
}

/* Answer every FLUSH that waits. The lock is held, and given up meanwhile. */
static void flush_all(struct file *f)
{
	struct list_node batch;
	int r = 0;

	list_init(&batch);
	list_splice_tail(&batch, &f->flushes);
	f->flushing = true;
	pthread_mutex_unlock(&f->lock);
	if (!f->read_only && fdatasync(f->fds.fd) < 0) {
		/* The kernel has dropped what it could not write: all since the last good flush
		 * must be sent again. Moved before anyone is answered. */
		log_error("%s: flush: %s", f->path, strerror(errno));
		atomic_fetch_add(&f->generation, 1);
		r = -EIO;
	}
	pthread_mutex_lock(&f->lock);
	f->flushing = false;
	if (!list_empty(&f->flushes))
		pthread_cond_signal(&f->work);
	pthread_mutex_unlock(&f->lock);
	complete_all(&batch, r);
	pthread_mutex_lock(&f->lock);
}

static void serve(struct file *f, struct blk_req *req)
{
	enum blk_lane lane = req->lane;
	int r;

	pthread_mutex_unlock(&f->lock);
	r = req->op == BLK_READ || req->op == BLK_WRITE ? transfer(f, req) : zero(f, req);
	pthread_mutex_lock(&f->lock);
	lanes_ended(&f->lanes, lane);
	if (lanes_is_background(lane))
		pthread_cond_signal(&f->work);
	pthread_mutex_unlock(&f->lock);
	blk_complete(req, r);
	pthread_mutex_lock(&f->lock);
}

static void *worker(void *arg)
{
	struct file *f = arg;

	pthread_setname_np(pthread_self(), "nb-file");
	pthread_mutex_lock(&f->lock);
	while (!atomic_load(&f->stopping)) {
		struct blk_req *req;

		file_check(f);
		/* First: one worker at most is at it, and a backlog of reads may never end. */
		if (!f->flushing && !list_empty(&f->flushes)) {
			flush_all(f);
			continue;
		}
		req = lanes_take(&f->lanes);
		if (req)
			serve(f, req);
		else
			pthread_cond_wait(&f->work, &f->lock);
	}
	pthread_mutex_unlock(&f->lock);
	return NULL;
}

static int file_start(struct blk_dev *dev, struct err *err)
{
	struct file *f = container_of(dev, struct file, dev);
	int r = file_open(f->path, f->read_only, &f->fds, &f->info, err);

	if (r < 0)
		return r;
	for (; f->threads < THREADS; f->threads++) {
		r = pthread_create(&f->thread[f->threads], NULL, worker, f);
		if (r)
			return err_set(err, -r, "%s: no thread to serve it: %s", f->path,
				       strerror(r));
	}
	return 0;
}

static void file_submit(struct blk_dev *dev, struct blk_req *req)
{
	struct file *f = container_of(dev, struct file, dev);
	int r = blk_check(&f->info, req);

	pthread_mutex_lock(&f->lock);
	if (atomic_load(&f->stopping))
		r = -ESHUTDOWN;
	if (r == 0) {
		if (req->op == BLK_FLUSH)
			list_add_tail(&f->flushes, &req->link);
		else
			lanes_push(&f->lanes, req);
		pthread_cond_signal(&f->work);
	}
	file_check(f);
	pthread_mutex_unlock(&f->lock);
	if (r < 0)
		blk_complete(req, r);
}

static void file_cancel(struct blk_dev *dev, struct blk_req *req)
{
	struct file *f = container_of(dev, struct file, dev);
	struct list_node *n;
	bool found;

	pthread_mutex_lock(&f->lock);
	found = lanes_remove(&f->lanes, req);
	if (!found) {
		list_for_each(n, &f->flushes) {
			if (list_entry(n, struct blk_req, link) == req) {
				list_del(n);
				found = true;
				break;
			}
		}
	}
	pthread_mutex_unlock(&f->lock);
	if (found)
		blk_complete(req, -EINTR);
}

static void file_stop(struct blk_dev *dev)
{
	struct file *f = container_of(dev, struct file, dev);
	struct list_node rest;

	list_init(&rest);
	pthread_mutex_lock(&f->lock);
	atomic_store(&f->stopping, true);
	lanes_drain(&f->lanes, &rest);
	list_splice_tail(&rest, &f->flushes);
	file_check(f);
	pthread_cond_broadcast(&f->work);
	pthread_mutex_unlock(&f->lock);
	complete_all(&rest, -ESHUTDOWN);
	while (f->threads)
		pthread_join(f->thread[--f->threads], NULL);
}

static void file_destroy(struct blk_dev *dev)
{
	struct file *f = container_of(dev, struct file, dev);

	cleanup_closep(&f->fds.fua_fd);
	cleanup_closep(&f->fds.fd);
	pthread_cond_destroy(&f->work);
	pthread_mutex_destroy(&f->lock);
	free(f);
}

static void file_info(struct blk_dev *dev, struct blk_info *ret_info)
{
	*ret_info = container_of(dev, struct file, dev)->info;
}

static uint64_t file_generation(struct blk_dev *dev)
{
	return atomic_load(&container_of(dev, struct file, dev)->generation);
}

static void file_stats(struct blk_dev *dev, struct blk_stats *ret_stats)
{
	struct file *f = container_of(dev, struct file, dev);

	ret_stats->read_bytes = atomic_load(&f->read_bytes);
	ret_stats->write_bytes = atomic_load(&f->write_bytes);
	ret_stats->online = true;
}

static const struct blk_ops file_ops = {
	.name = "file",
	.start = file_start,
	.submit = file_submit,
	.stop = file_stop,
	.destroy = file_destroy,
	.info = file_info,
	.generation = file_generation,
	.cancel = file_cancel,
	.stats = file_stats,
};

int file_create(const struct leaf_config *conf, struct blk_dev **ret, struct err *err)
{
	struct file *f = calloc(1, sizeof(*f));

	if (!f)
		return err_set(err, -ENOMEM, "out of memory");
	f->dev.ops = &file_ops;
	strcpy(f->path, conf->url.path);
	f->read_only = conf->read_only;
	f->fds.fd = f->fds.fua_fd = -1;
	atomic_store(&f->generation, 1);
	pthread_mutex_init(&f->lock, NULL);
	pthread_cond_init(&f->work, NULL);
	lanes_init(&f->lanes, BACKGROUND_THREADS);
	list_init(&f->flushes);
	*ret = &f->dev;
	return 0;
}
