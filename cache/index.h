// SPDX-License-Identifier: Apache-2.0
/*
 * The index: which volume blocks the clean store holds and where, kept across
 * restarts. Losing it costs time, never data: what is dirty is found in the
 * guest log. One table of functions, so that tests bring one in memory; the product's
 * is index_rocksdb_open().
 *
 * The index must never hand out an extent that a deletion marked durable removed:
 * that would be stale data. Puts may be lost.
 */
#ifndef CACHE_INDEX_H
#define CACHE_INDEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/err.h"

/* Stored extents never cross a multiple of this many blocks; longer ones are split by the store. */
#define INDEX_EXTENT_BLOCKS 256u

enum index_kind { INDEX_DATA = 1, INDEX_ZERO = 2 };

struct index_extent {
	uint64_t blk;     /* first volume block (4 KiB) */
	uint64_t nblocks; /* >= 1; DATA: at most INDEX_EXTENT_BLOCKS and not crossing a multiple of
			     it */
	enum index_kind kind;
	uint32_t segment;     /* DATA: segment number */
	uint32_t slot;        /* DATA: slot of the first block in the segment; the others follow */
	uint64_t incarnation; /* DATA: of the segment when this was written */
	const uint32_t *crc;  /* DATA: CRC32C per block; lent for the call */
};

enum index_op_kind { INDEX_PUT, INDEX_DELETE };

struct index_op {
	enum index_op_kind kind;
	struct index_extent extent; /* DELETE: only blk and nblocks count */
};

struct index_store;

struct index_store_ops {
	int (*load)(struct index_store *s,
		    int (*each)(void *ctx, const struct index_extent *extent), void *ctx);
	int (*apply)(struct index_store *s, const struct index_op *op, size_t n, bool durable);
	int (*put_state)(struct index_store *s, const char *key, const void *value, size_t length);
	int (*get_state)(struct index_store *s, const char *key, void *value, size_t max,
			 size_t *ret_length);
	int (*wipe)(struct index_store *s);
	void (*destroy)(struct index_store *s);
};

struct index_store {
	const struct index_store_ops *ops;
	bool fresh; /* made or wiped at open: it knows nothing, the clean store may know more */
};

/*
 * Calls are serial: the owner makes one at a time, each may wait for the disk. After any error but
 * -ENOENT of get_state the store must be wiped or reopened before it is trusted again.
 */

/* Call @each for every extent in block order; a negative return ends the walk and is returned. 0,
 * or -EBADMSG: it is damaged (wipe it), or -EIO. */
static inline int index_load(struct index_store *s,
			     int (*each)(void *ctx, const struct index_extent *extent), void *ctx)
{
	return s->ops->load(s, each, ctx);
}

/*
 * Apply the operations in order, atomically. PUT replaces what overlaps it; DELETE forgets its
 * range; what sticks out on either side stays, in both cases. With @durable they survive a power
 * cut when it returns 0 (all earlier ones too). 0 or -errno: then none counts as applied.
 */
static inline int index_apply(struct index_store *s, const struct index_op *op, size_t n,
			      bool durable)
{
	return s->ops->apply(s, op, n, durable);
}

/* Small state beside the extents (statistics, pins, profiles); key up to 64 characters. 0 or
 * -errno. */
static inline int index_put_state(struct index_store *s, const char *key, const void *value,
				  size_t length)
{
	return s->ops->put_state(s, key, value, length);
}

/* -ENOENT: no such key; -EMSGSIZE: longer than @max. */
static inline int index_get_state(struct index_store *s, const char *key, void *value, size_t max,
				  size_t *ret_length)
{
	return s->ops->get_state(s, key, value, max, ret_length);
}

/* Forget everything, durably; also helps after an error, then @s->fresh is true. 0 or -errno. */
static inline int index_wipe(struct index_store *s)
{
	return s->ops->wipe(s);
}

/* NULL is fine. */
static inline void index_destroy(struct index_store *s)
{
	if (s)
		s->ops->destroy(s);
}

/*
 * Open or make the RocksDB at @path (a directory). One that cannot be opened or whose format or
 * @cache_uuid differs is removed and made anew (ret->fresh is true then). -errno with @err when
 * even that fails.
 */
int index_rocksdb_open(const char *path, const uint8_t cache_uuid[16], struct index_store **ret,
		       struct err *err);

/* An index in memory: for tests and as a last resort when the disk refuses RocksDB. NULL: no
 * memory. */
struct index_store *index_mem_create(void);

#endif
