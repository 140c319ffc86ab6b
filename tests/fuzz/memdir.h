// SPDX-License-Identifier: Apache-2.0
/*
 * A cache directory in memory with nothing to it: files of bytes, no faults, no dice, and so fast
 * that a harness can have a new one for each input. Only what reading and the identity record take:
 * anything asynchronous aborts. One at a time, one thread.
 */
#ifndef TESTS_FUZZ_MEMDIR_H
#define TESTS_FUZZ_MEMDIR_H

#include <stddef.h>

#include "cache/lio.h"

/* An empty directory; lio_destroy() ends it. */
struct lio *memdir_open(void);

/* Make the file @name of @length bytes, or replace it. */
void memdir_put(struct lio *lio, const char *name, const void *data, size_t length);

/* What @name holds, *@ret_length bytes, valid until it changes; NULL: no such file. */
const uint8_t *memdir_get(struct lio *lio, const char *name, size_t *ret_length);

#endif
