// SPDX-License-Identifier: Apache-2.0
/*
 * A filter device that makes chosen requests fail: for tests, and for trying a
 * whole stack against a sick far side. Everything else passes through untouched.
 */
#ifndef CORE_FILTER_FAULT_H
#define CORE_FILTER_FAULT_H

#include <stdbool.h>
#include <stdint.h>

#include "core/block.h"

#define FILTER_FAULT_ANY_OP ((1u << BLK_OP_COUNT) - 1)
#define FILTER_FAULT_RULES 16

struct filter_fault_rule {
	unsigned ops;    /* 1 << enum blk_op, or-ed */
	uint64_t offset; /* a request matches when it shares a byte with this range; FLUSH, */
	uint64_t length; /* which has none, always does; length 0: the whole device */
	uint64_t nth;    /* from 1: which matching request fails */
	bool always;     /* every later one fails too */
	bool after;      /* the inner device does the work first, then the failure is reported */
	int result;      /* what the request ends with; -errno */
};

/*
 * A filter over @inner with @count rules (0..FILTER_FAULT_RULES, copied). It owns @inner, unless
 * NULL is returned (out of memory). Any thread.
 */
struct blk_dev *filter_fault_create(struct blk_dev *inner, const struct filter_fault_rule *rules,
				    unsigned count);

/*
 * Replace all rules and start counting again. Where several rules match a
 * request all of them count it, and the first that fires decides. Any thread,
 * also while requests are in flight; those are not judged again.
 */
void filter_fault_set(struct blk_dev *dev, const struct filter_fault_rule *rules, unsigned count);

/* How many requests matched rule @index since it was set, those it failed included. Any thread. */
uint64_t filter_fault_matched(struct blk_dev *dev, unsigned index);

/* How many requests were made to fail since the device was created. Any thread. */
uint64_t filter_fault_fired(struct blk_dev *dev);

#endif
