// SPDX-License-Identifier: Apache-2.0
/* Little-endian integers of @bytes (1 to 8) at any alignment: what is laid out on disk. Pure. */
#ifndef CORE_LE_H
#define CORE_LE_H

#include <stdint.h>

/* Store the low @bytes of @v at @p. Any thread. */
static inline void le_put(uint8_t *p, uint64_t v, unsigned bytes)
{
	for (unsigned i = 0; i < bytes; i++)
		p[i] = (uint8_t)(v >> 8 * i);
}

/* The number of @bytes at @p. Any thread. */
static inline uint64_t le_get(const uint8_t *p, unsigned bytes)
{
	uint64_t v = 0;

	for (unsigned i = 0; i < bytes; i++)
		v |= (uint64_t)p[i] << 8 * i;
	return v;
}

#endif
