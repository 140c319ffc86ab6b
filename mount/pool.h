// SPDX-License-Identifier: Apache-2.0
/*
 * Page-aligned buffers in a few sizes, kept for reuse up to a bound: what is handed out is bounded
 * by the requests that the kernel allows in flight, what is kept free by POOL_KEPT_BYTES. Any
 * thread.
 */
#ifndef MOUNT_POOL_H
#define MOUNT_POOL_H

#include <pthread.h>
#include <stddef.h>

#define POOL_CLASSES 5
#define POOL_PAGE_BYTES 4096u
/* The largest: a whole request of the kernel, 1 MiB of payload behind one page for its header. */
#define POOL_MAX_BYTES (POOL_PAGE_BYTES + (1u << 20))
#define POOL_KEPT_BYTES (32u << 20)

struct pool {
	pthread_mutex_t lock;
	void *free[POOL_CLASSES]; /* guarded by lock; linked through their first word */
	size_t kept_bytes;        /* guarded by lock */
};

struct pool_buf {
	void *mem; /* NULL: none */
	unsigned size_class;
};

/* Make an empty pool in the caller's memory. */
void pool_init(struct pool *pool);

/* Free what is kept. Every buffer has been given back. */
void pool_destroy(struct pool *pool);

/* A buffer of at least @bytes (1..POOL_MAX_BYTES), contents undefined; .mem is NULL out of memory.
 */
struct pool_buf pool_get(struct pool *pool, size_t bytes);

/* Give back; @buf is empty after. An empty one is fine. */
void pool_put(struct pool *pool, struct pool_buf *buf);

#endif
