// SPDX-License-Identifier: Apache-2.0
/*
 * One ring, one thread that reaps it. A read is in `waiting`, or in the kernel
 * and counted by in_flight; in_flight never passes DEPTH, so neither queue of the
 * ring can overflow. The submission side is used under `lock` only, the completion
 * side by the reaper only.
 *
 * Submitting is not I/O: the kernel starts the read and returns, so the lock over it is short.
 * Taking the lock after each completion also orders the reaper behind the submitter, whose
 * hand-over through the kernel no C memory model (nor TSan) can see.
 */
#include "cache/lio_uring.h"

#include <errno.h>
#include <liburing.h>
#include <pthread.h>
#include <stdlib.h>

#include "core/block.h"
#include "core/cleanup.h"

#define DEPTH 128u
#define SUBMIT_TRIES 64

struct lio_ring {
	struct io_uring uring;
	pthread_t reaper;
	void (*give_back)(void *ctx, struct lio_op *op);
	void *ctx;
	pthread_mutex_t lock;
	struct list_node waiting; /* struct lio_op.link; guarded by lock */
	unsigned in_flight;       /* guarded by lock */
	bool stopping;            /* guarded by lock */
};

/* Hand one entry to the kernel. False: it did not take it, the entry is a NOP now. Lock held. */
static bool submit_entry(struct lio_ring *ring, struct io_uring_sqe *sqe)
{
	for (int i = 0; i < SUBMIT_TRIES; i++)
		if (io_uring_submit(&ring->uring) >= 1)
			return true;
	/* The entry stays queued and goes with the next one: nobody may wait for it. */
	io_uring_prep_nop(sqe);
	io_uring_sqe_set_data(sqe, NULL);
	return false;
}

/* Start what fits; what the kernel refuses is moved to @refused. Lock held. */
static void start_waiting(struct lio_ring *ring, struct list_node *refused)
{
	while (ring->in_flight < DEPTH && !list_empty(&ring->waiting)) {
		struct list_node *n = list_pop(&ring->waiting);
		struct lio_op *op = list_entry(n, struct lio_op, link);
		struct io_uring_sqe *sqe = io_uring_get_sqe(&ring->uring);

		if (sqe) {
			io_uring_prep_readv(sqe, op->file->fd, op->iov, (unsigned)op->iovcnt,
					    op->offset);
			io_uring_sqe_set_data(sqe, op);
			if (submit_entry(ring, sqe)) {
				ring->in_flight++;
				continue;
			}
		}
		list_add_tail(refused, n);
	}
}

static void give_back_all(struct lio_ring *ring, struct list_node *refused)
{
	struct list_node *n;

	while ((n = list_pop(refused)))
		ring->give_back(ring->ctx, list_entry(n, struct lio_op, link));
}

void lio_ring_read(struct lio_ring *ring, struct lio_op *op)
{
	struct list_node refused;

	list_init(&refused);
	pthread_mutex_lock(&ring->lock);
	list_add_tail(&ring->waiting, &op->link);
	start_waiting(ring, &refused);
	pthread_mutex_unlock(&ring->lock);
	give_back_all(ring, &refused);
}

/* True: the ring is empty and is to stop. */
static bool account(struct lio_ring *ring, bool was_read)
{
	struct list_node refused;
	bool last;

	list_init(&refused);
	pthread_mutex_lock(&ring->lock);
	ring->in_flight -= was_read;
	start_waiting(ring, &refused);
	last = ring->stopping && ring->in_flight == 0 && list_empty(&ring->waiting);
	pthread_mutex_unlock(&ring->lock);
	give_back_all(ring, &refused);
	return last;
}

static void *reap(void *arg)
{
	struct lio_ring *ring = arg;
	bool last = false;

	pthread_setname_np(pthread_self(), "nb-lio-ring");
	while (!last) {
		struct io_uring_cqe *cqe;
		struct lio_op *op;
		int result;

		if (io_uring_wait_cqe(&ring->uring, &cqe) < 0)
			continue; /* EINTR */
		op = io_uring_cqe_get_data(cqe);
		result = cqe->res;
		io_uring_cqe_seen(&ring->uring, cqe);
		last = account(ring, op != NULL);
		if (!op)
			continue;
		if (result >= 0 && (size_t)result == iov_length(op->iov, op->iovcnt))
			op->done(op, 0);
		else
			ring->give_back(ring->ctx, op); /* the pool reads it again and knows why */
	}
	return NULL;
}

struct lio_ring *lio_ring_create(void (*give_back)(void *ctx, struct lio_op *op), void *ctx)
{
	struct lio_ring *ring = calloc(1, sizeof(*ring));

	if (!ring)
		return NULL;
	if (io_uring_queue_init(DEPTH + 1, &ring->uring, 0) < 0) {
		free(ring);
		return NULL;
	}
	ring->give_back = give_back;
	ring->ctx = ctx;
	list_init(&ring->waiting);
	pthread_mutex_init(&ring->lock, NULL);
	if (pthread_create(&ring->reaper, NULL, reap, ring)) {
		io_uring_queue_exit(&ring->uring);
		pthread_mutex_destroy(&ring->lock);
		free(ring);
		return NULL;
	}
	return ring;
}

/* A NOP wakes the reaper; it must get through, however busy the kernel is. */
static void wake(struct lio_ring *ring)
{
	struct io_uring_sqe *sqe;

	while (!(sqe = io_uring_get_sqe(&ring->uring)))
		io_uring_submit(&ring->uring);
	io_uring_prep_nop(sqe);
	io_uring_sqe_set_data(sqe, NULL);
	while (io_uring_sq_ready(&ring->uring))
		io_uring_submit(&ring->uring);
}

void lio_ring_destroy(struct lio_ring *ring)
{
	if (!ring)
		return;
	pthread_mutex_lock(&ring->lock);
	ring->stopping = true;
	wake(ring);
	pthread_mutex_unlock(&ring->lock);
	pthread_join(ring->reaper, NULL);
	io_uring_queue_exit(&ring->uring);
	pthread_mutex_destroy(&ring->lock);
	free(ring);
}
