// SPDX-License-Identifier: Apache-2.0
/* The status object: the one place that knows its keys. Pure but for memory. */
#ifndef CMD_REPORT_H
#define CMD_REPORT_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "cache/cache.h"
#include "core/block.h"

#define REPORT_UNKNOWN UINT64_MAX
#define REPORT_SESSIONS 64
#define REPORT_DAMAGES 32

/* What may be unknown is REPORT_UNKNOWN or NULL there, and null in the object. */
struct report {
	const char *url;
	const char *mountpoint;
	const char *cache_dir;
	uint64_t pid;
	uint64_t uptime_ns;
	int read_only; /* -1: unknown */
	const char *state;
	const char *fenced; /* blk_fenced() */
	enum blk_reserved reserved;
	uint64_t size_bytes;
	uint64_t cache_limit_bytes;
	uint64_t cache_used_bytes;
	uint64_t cached_bytes;
	uint64_t max_dirty_bytes;
	uint64_t dirty_bytes;
	uint64_t epochs_pending;
	uint64_t oldest_dirty_ns;
	uint64_t drain_eta_ns;
	uint64_t far_as_of_ns; /* wall clock */
	uint64_t hit_bytes;
	uint64_t miss_bytes;
	uint64_t target_read_bytes;
	uint64_t target_write_bytes;
	uint64_t readahead_bytes;
	uint64_t readahead_wasted_bytes;
	const struct cache_damage *damage; /* NULL: unknown */
	unsigned damages;                  /* members of it */
	const struct blk_session *session;
	unsigned sessions;
};

/* A report in which everything is unknown. */
void report_init(struct report *r);

/* The object, keys in the order of nearblk(1). NULL: out of memory. */
json_t *report_json(const struct report *r);

#endif
