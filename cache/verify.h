// SPDX-License-Identifier: Apache-2.0
/* Reading a cache directory that nobody uses, from end to end, and changing nothing in it. */
#ifndef CACHE_VERIFY_H
#define CACHE_VERIFY_H

#include <stdbool.h>
#include <stdint.h>

#include "cache/cache.h"
#include "cache/identity.h"
#include "cache/lio.h"
#include "core/err.h"

struct cache_verify_result {
	uint64_t segments;      /* read */
	uint64_t records;       /* whole ones, of all kinds */
	uint64_t clean_bytes;   /* payload that is good and has a copy at the target */
	uint64_t dirty_bytes;   /* payload that is good and has not */
	uint64_t damaged_bytes; /* payload that is not what was written, or is gone */
	uint64_t lost_bytes;    /* of those, never sent: they read as EIO */
};

/*
 * Verify every record and every checksum of the directory behind @lio, whose record is @id. Each
 * damaged range is told to @damaged (may be NULL) in volume order. 0, also with damage, with @ret
 * filled; -errno with @err if the directory could not be read to its end. Blocks; one thread.
 */
int cache_verify(struct lio *lio, const struct cache_identity *id,
		 void (*damaged)(void *ctx, const struct cache_damage *damage), void *ctx,
		 struct cache_verify_result *ret, struct err *err);

/*
 * What the directory behind @lio, whose record is @id, holds that is not at the target: the log
 * bytes of the records to be sent, one slot of header for each, whether some of them are only
 * named any more, and whether epochs that were merged are partly at the target. Reads the tables,
 * not the data. 0 with all three, or -errno with @err (-EUCLEAN: records are missing and nothing
 * names them). Blocks; one thread.
 */
int cache_verify_dirty(struct lio *lio, const struct cache_identity *id, uint64_t *ret_bytes,
		       bool *ret_damaged, bool *ret_merging, struct err *err);

#endif
