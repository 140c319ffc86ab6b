// SPDX-License-Identifier: Apache-2.0
#include "mount/pool.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/cleanup.h"

static const size_t class_bytes[POOL_CLASSES] = {
	POOL_PAGE_BYTES, 16u << 10, 64u << 10, 256u << 10, POOL_MAX_BYTES,
};

void pool_init(struct pool *pool)
{
	*pool = (struct pool){ .kept_bytes = 0 };
	pthread_mutex_init(&pool->lock, NULL);
}

void pool_destroy(struct pool *pool)
{
	for (unsigned c = 0; c < POOL_CLASSES; c++) {
		while (pool->free[c]) {
			void *mem = pool->free[c];

			memcpy(&pool->free[c], mem, sizeof(void *));
			free(mem);
		}
	}
	pthread_mutex_destroy(&pool->lock);
}

struct pool_buf pool_get(struct pool *pool, size_t bytes)
{
	struct pool_buf buf = { .mem = NULL };

	assert(bytes <= POOL_MAX_BYTES);
	while (class_bytes[buf.size_class] < bytes)
		buf.size_class++;
	{
		guard(&pool->lock);
		buf.mem = pool->free[buf.size_class];
		if (buf.mem) {
			memcpy(&pool->free[buf.size_class], buf.mem, sizeof(void *));
			pool->kept_bytes -= class_bytes[buf.size_class];
		}
	}
	if (!buf.mem)
		buf.mem = aligned_alloc(POOL_PAGE_BYTES, class_bytes[buf.size_class]);
	return buf;
}

void pool_put(struct pool *pool, struct pool_buf *buf)
{
	void *mem = steal_ptr(buf->mem);
	size_t bytes = class_bytes[buf->size_class];

	if (!mem)
		return;
	{
		guard(&pool->lock);
		if (pool->kept_bytes + bytes <= POOL_KEPT_BYTES) {
			memcpy(mem, &pool->free[buf->size_class], sizeof(void *));
			pool->free[buf->size_class] = mem;
			pool->kept_bytes += bytes;
			mem = NULL;
		}
	}
	free(mem);
}
