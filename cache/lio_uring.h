// SPDX-License-Identifier: Apache-2.0
/*
 * The ring under lio_posix: reads that wait for the disk, many at once without a
 * thread each. What does not end as a whole read goes back to the pool.
 */
#ifndef CACHE_LIO_URING_H
#define CACHE_LIO_URING_H

#include "cache/lio.h"

struct lio_file {
	int fd;
};

struct lio_ring;

/*
 * @give_back(@ctx, op) gets each read that the kernel refused, cut short or interrupted; it must
 * neither block nor run done(). NULL: io_uring is not to be had here (old kernel, seccomp, sysctl).
 */
struct lio_ring *lio_ring_create(void (*give_back)(void *ctx, struct lio_op *op), void *ctx);

/* Take a LIO_READ; it ends with op->done() on the ring's thread, or with give_back. Any thread. */
void lio_ring_read(struct lio_ring *ring, struct lio_op *op);

/* Wait for what is in flight, join the thread, free. NULL is fine. */
void lio_ring_destroy(struct lio_ring *ring);

#endif
