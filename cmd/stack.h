// SPDX-License-Identifier: Apache-2.0
/*
 * The stack of a volume: what is built from the command line's choices, and in which order. Main
 * thread.
 */
#ifndef CMD_STACK_H
#define CMD_STACK_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "cache/cache.h"
#include "cache/identity.h"
#include "cache/index.h"
#include "cache/lio.h"
#include "core/block.h"
#include "core/err.h"
#include "core/filter_fault.h"
#include "core/sched.h"
#include "transport/leaf.h"

struct stack_config {
	struct leaf_config leaf;   /* isid_*, fence_at_start and high_water are filled in here */
	char cache_dir[PATH_MAX];  /* absolute */
	uint64_t cache_size_bytes; /* 0: as remembered, else the default */
	uint64_t max_dirty_bytes;  /* 0: half the cache */
	uint64_t max_dirty_age_ns;
	bool read_only;
	bool no_readahead;
	enum cache_trust trust;
	bool force_push;
	bool may_be_offline; /* a volume that is known need not answer */
	/* Debugging: filters between cache and leaf. */
	uint64_t delay_ns; /* every answer of the far side comes this much later */
	struct filter_fault_rule fault[FILTER_FAULT_RULES];
	unsigned faults;
	bool count; /* log how many requests went to the far side, when stopped */
};

struct stack {
	struct sched *sched;
	struct lio *lio; /* holds the lock on the directory */
	struct index_store *index;
	struct cache_identity identity;
	struct err offline;    /* why nobody answered at the start; empty: somebody did */
	struct blk_dev *leaf;  /* owned until the cache has it */
	struct blk_dev *count; /* the counting filter, inside of the above; NULL: none */
	struct blk_dev *cache; /* the top; NULL until it is created */
};

/*
 * Parse "OP[:NTH][:always][:after]" (OP: read, write, flush, discard, zero, any; NTH from 1) into a
 * rule that ends with -EIO. 0 or -EINVAL with @err. Pure.
 */
int stack_parse_fault(const char *text, struct filter_fault_rule *ret, struct err *err);

/*
 * Make the cache directory @dir, private to this user; no other file in it is touched. 0;
 * -ENOTEMPTY: it holds somebody's other files: a typing error must not turn a home directory into a
 * cache; or another -errno, with @err.
 */
int stack_prepare_dir(const char *dir, struct err *err);

/*
 * Build and start all of it: lock of the prepared directory, identity, leaf, cache. 0 with the
 * volume ready in s->cache; or -errno with @err, then stack_close() is still due. The directory is
 * bound to the volume at the first start; another volume, or one that shrank, is refused with
 * -EMEDIUMTYPE, as is one changed elsewhere while there is dirty data (without force_push), a
 * directory in use by another daemon with -EBUSY. With may_be_offline s->offline may say that
 * nobody answers yet.
 */
int stack_open(const struct stack_config *conf, struct stack *s, struct err *err);

/*
 * Stop the cache: what was acknowledged is durable locally from then on. Idempotent; safe on a half
 * built stack.
 */
void stack_stop(struct stack *s);

/* Stop, free, and give the directory's lock back. Safe on a zeroed or half built stack. */
void stack_close(struct stack *s);

#endif
