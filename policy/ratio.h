// SPDX-License-Identifier: Apache-2.0
/* Arithmetic that decisions share. Pure; any thread. */
#ifndef POLICY_RATIO_H
#define POLICY_RATIO_H

#include <stdint.h>

/* a * b / c (c > 0) without overflow in between; UINT64_MAX if the result does not fit. */
static inline uint64_t ratio_mul_div(uint64_t a, uint64_t b, uint64_t c)
{
	unsigned __int128 v = (unsigned __int128)a * b / c;

	return v > UINT64_MAX ? UINT64_MAX : (uint64_t)v;
}

#endif
