// SPDX-License-Identifier: Apache-2.0
/*
 * A leaf device in memory, for tests and for measuring what lies above it. Sparse: memory is used
 * for what was written only. Every request completes inside blk_submit(), on the caller's thread.
 */
#ifndef TRANSPORT_MEM_H
#define TRANSPORT_MEM_H

#include <stdint.h>

#include "core/block.h"

/*
 * A device of @size_bytes zeroes (a multiple of @sector_bytes, > 0) with @sector_bytes (a power of
 * two, 1..4096) and @info_flags (enum blk_info_flags), which it honours: READ_ONLY refuses changes,
 * without CAN_DISCARD a DISCARD is refused. What was written is never lost, VOLATILE or not. NULL
 * and errno ENOMEM when the address space is short. Any thread.
 */
struct blk_dev *mem_create(uint64_t size_bytes, uint32_t sector_bytes, unsigned info_flags);

/*
 * The device's bytes, size_bytes long, valid until it is destroyed. @dev was made by mem_create().
 * The caller sees to it that no request in flight touches what it reads or changes here.
 */
uint8_t *mem_data(struct blk_dev *dev);

#endif
