// SPDX-License-Identifier: Apache-2.0
/*
 * A device in memory for the tests of mount/: byte granular, counts what reaches it, completes in
 * submit or on a thread of its own, and can hold requests back.
 */
#ifndef TESTS_MOUNT_TESTDEV_H
#define TESTS_MOUNT_TESTDEV_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/block.h"

enum testdev_flags {
	TESTDEV_THREAD = 1 << 0,  /* complete on another thread, else inside submit */
	TESTDEV_DISCARD = 1 << 1, /* CAN_DISCARD, in units of TESTDEV_ALIGN */
	TESTDEV_READ_ONLY = 1 << 2,
	TESTDEV_SECTOR_512 = 1 << 3,
};

#define TESTDEV_ALIGN 8192u
#define TESTDEV_MAX_RANGE (1u << 20)

struct testdev_counts {
	atomic_uint op[BLK_OP_COUNT];
	atomic_uint fua;
	atomic_uint cancel; /* cancels that found their request here */
	atomic_uint unaligned_payload;
};

/* 0xff where never written, so that what nobody wrote is not mistaken for zeroes. */
struct blk_dev *testdev_create(uint64_t size_bytes, unsigned flags);
struct testdev_counts *testdev_counts(struct blk_dev *dev);
/* The memory behind it. */
uint8_t *testdev_bytes(struct blk_dev *dev);
/* Double the size (room is there once). */
void testdev_grow(struct blk_dev *dev);

/* Hold requests of @op until testdev_release() or cancel. */
void testdev_hold(struct blk_dev *dev, enum blk_op op);
/* Wait until @n requests are held. */
void testdev_wait_held(struct blk_dev *dev, unsigned n);
/* Let go of what is held, and hold no more. */
void testdev_release(struct blk_dev *dev);
/* The next request of @op ends with @result. */
void testdev_fail_next(struct blk_dev *dev, enum blk_op op, int result);

#endif
