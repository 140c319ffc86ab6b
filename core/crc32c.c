// SPDX-License-Identifier: Apache-2.0
#include "core/crc32c.h"

#include <limits.h>

/* Prototype of ISA-L's crc.h, which takes the raw register: no inversion, and a non-const pointer.
 */
#include <isa-l/crc.h>

uint32_t crc32c(uint32_t crc, const void *data, size_t len)
{
	unsigned char *p = (unsigned char *)(uintptr_t)data;
	uint32_t reg = ~crc;

	while (len) {
		int n = len > (1u << 30) ? 1 << 30 : (int)len;

		reg = crc32_iscsi(p, n, reg);
		p += n;
		len -= (size_t)n;
	}
	return ~reg;
}
