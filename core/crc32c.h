// SPDX-License-Identifier: Apache-2.0
/* CRC32C (Castagnoli; RFC 3720 appendix B.4) at memory speed. Pure; any thread. */
#ifndef CORE_CRC32C_H
#define CORE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/*
 * CRC32C of @len bytes, standard pre- and post-inversion. Pass 0 as @crc to
 * start and the former result to go on: crc32c(crc32c(0, a), b) = crc32c(0, ab).
 */
uint32_t crc32c(uint32_t crc, const void *data, size_t len);

#endif
