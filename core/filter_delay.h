// SPDX-License-Identifier: Apache-2.0
/* A filter device that makes its inner device look far away: each answer comes later. */
#ifndef CORE_FILTER_DELAY_H
#define CORE_FILTER_DELAY_H

#include <stdint.h>

#include "core/block.h"
#include "core/sched.h"

/*
 * A filter over @inner, which it owns unless NULL is returned (out of memory). An answer of @inner
 * is passed on @fixed_ns + length × @per_byte_ns after it came, on a thread of @sched; requests do
 * not wait for each other. blk_stop() passes on at once what is held back. @sched is lent and is
 * destroyed after the device. Any thread.
 */
struct blk_dev *filter_delay_create(struct blk_dev *inner, struct sched *sched, uint64_t fixed_ns,
				    uint64_t per_byte_ns);

#endif
