// SPDX-License-Identifier: Apache-2.0
/*
 * Strict parsing of what a person types: the whole text must be the value;
 * nothing is guessed, rounded or cut. Outputs are untouched on failure. Pure; any thread.
 */
#ifndef CORE_PARSE_H
#define CORE_PARSE_H

#include <stdint.h>

/* Decimal digits only. 0, -EINVAL (not a number), -ERANGE (over 2^64 - 1). */
int parse_u64(const char *text, uint64_t *ret);

/* "4096", "64K", "8M", "2G", "1T" in powers of 1024; also KiB… and lower case. 0, -EINVAL, -ERANGE.
 */
int parse_size(const char *text, uint64_t *ret_bytes);

/* "500ms", "10s", "5min", "2h", "20us"; bare = seconds; a fraction ("1.5s") is fine. 0, -EINVAL,
 * -ERANGE. */
int parse_duration(const char *text, uint64_t *ret_ns);

/* Bytes per second: as parse_size(), an optional "/s" behind. 0, -EINVAL, -ERANGE. */
int parse_rate(const char *text, uint64_t *ret_bytes_per_s);

/* Octal file mode, 1 to 4 digits ("600", "0644"). 0, -EINVAL. */
int parse_mode(const char *text, uint32_t *ret_mode);

/* Write a size for people: "1.5 GiB", "12 MiB", "512 B". Always fits 16 bytes. Returns @buf. */
const char *format_size(uint64_t bytes, char buf[16]);

/* Write a duration for people: "350 ms", "12.3 s", "4 min 10 s", "3 h 2 min". Always fits 24 bytes.
 * Returns @buf. */
const char *format_duration(uint64_t ns, char buf[24]);

#endif
