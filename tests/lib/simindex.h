// SPDX-License-Identifier: Apache-2.0
/*
 * A simulated index that outlives the process under test: what was applied durably stays,
 * of what was applied after that a power cut keeps a random prefix, as a write-ahead log does.
 */
#ifndef TESTS_LIB_SIMINDEX_H
#define TESTS_LIB_SIMINDEX_H

#include <stdbool.h>

#include "cache/index.h"
#include "tests/lib/sim.h"

struct simindex;

/* An empty one. Aborts when out of memory. */
struct simindex *simindex_create(void);
void simindex_destroy(struct simindex *ix);

/* The store to hand to a cache; lent until close or crash. fresh the first time and after a loss.
 */
struct index_store *simindex_open(struct simindex *ix);
void simindex_close(struct simindex *ix);

/* The process died; with @power what was not durable may be lost. */
void simindex_crash(struct simindex *ix, struct sim *sim, bool power);

/* Somebody removed it: the next open is fresh. */
void simindex_lose(struct simindex *ix);

#endif
