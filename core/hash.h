// SPDX-License-Identifier: Apache-2.0
/* FNV-1a, 64 bits: gives names to things; protects nothing. Pure; any thread. */
#ifndef CORE_HASH_H
#define CORE_HASH_H

#include <stdint.h>

static inline uint64_t hash_text(const char *text)
{
	uint64_t h = 0xcbf29ce484222325ull;

	for (; *text; text++)
		h = (h ^ (unsigned char)*text) * 0x100000001b3ull;
	return h;
}

#endif
