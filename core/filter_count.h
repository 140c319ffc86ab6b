// SPDX-License-Identifier: Apache-2.0
/* A filter device that counts what passes through it and changes nothing. */
#ifndef CORE_FILTER_COUNT_H
#define CORE_FILTER_COUNT_H

#include <stdint.h>

#include "core/block.h"

struct filter_count_op {
	uint64_t requests; /* submitted */
	uint64_t bytes;    /* asked for by those */
	uint64_t failed;   /* ended with an error */
};

struct filter_count {
	struct filter_count_op op[BLK_OP_COUNT];
	uint64_t lane[BLK_LANE_COUNT]; /* requests submitted */
	uint64_t fua;                  /* requests submitted with BLK_FUA */
	uint64_t in_flight;            /* submitted and not yet ended */
	uint64_t max_in_flight;
};

/* A filter over @inner, which it owns unless NULL is returned (out of memory). Any thread. */
struct blk_dev *filter_count_create(struct blk_dev *inner);

/* The counts since creation or the last reset, all of one moment. Any thread. */
void filter_count_get(struct blk_dev *dev, struct filter_count *ret_count);

/* Back to zero; what is in flight stays counted as such. Any thread. */
void filter_count_reset(struct blk_dev *dev);

#endif
