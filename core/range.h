// SPDX-License-Identifier: Apache-2.0
/* Overflow-checked helpers for byte and block ranges [start, start + length). Pure; any thread. */
#ifndef CORE_RANGE_H
#define CORE_RANGE_H

#include <stdbool.h>
#include <stdint.h>

/* [offset, offset + length) lies within [0, size), without wrapping. Empty ranges inside count. */
static inline bool range_inside(uint64_t offset, uint64_t length, uint64_t size)
{
	return offset <= size && length <= size - offset;
}

/* The two half-open ranges share at least one element. Neither may wrap. */
static inline bool range_overlap(uint64_t a, uint64_t a_len, uint64_t b, uint64_t b_len)
{
	return a_len && b_len && a < b + b_len && b < a + a_len;
}

static inline bool is_pow2(uint64_t v)
{
	return v && !(v & (v - 1));
}

/* @align is a power of two. */
static inline uint64_t round_down(uint64_t v, uint64_t align)
{
	return v & ~(align - 1);
}

/* @align is a power of two; v + align must not wrap. */
static inline uint64_t round_up(uint64_t v, uint64_t align)
{
	return (v + align - 1) & ~(align - 1);
}

static inline uint64_t div_round_up(uint64_t v, uint64_t d)
{
	return v / d + (v % d != 0);
}

#endif
