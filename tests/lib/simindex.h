// SPDX-License-Identifier: Apache-2.0
/*
 * A simulated index: an index_store in memory that outlives the process under test
 * as RocksDB does. kill -9 loses nothing; a power cut keeps a prefix of what was done that
 * contains all that was durable, or loses the whole store.
 */
#ifndef TESTS_LIB_SIMINDEX_H
#define TESTS_LIB_SIMINDEX_H

#include "cache/index.h"
#include "tests/lib/sim.h"

struct simindex;

/* An empty one; simindex_destroy() before sim_destroy(). */
struct simindex *simindex_create(struct sim *sim);
void simindex_destroy(struct simindex *index);

/*
 * As index_rocksdb_open() would, one at a time (asserted); index_destroy() closes it. fresh at the
 * first open, after a loss, and after simindex_lose().
 */
struct index_store *simindex_open(struct simindex *index);

/* kill -9 of the process: the store is gone, what it did stays. sim_reset() does it too. */
void simindex_kill(struct simindex *index);

/* The same, and power goes. One time in eight everything is lost. */
void simindex_power_cut(struct simindex *index);

/* Everything is lost: at the next open it is fresh. Not while it is open. */
void simindex_lose(struct simindex *index);

/*
 * The @nth call from now (apply, load, put_state, get_state; from 1) fails with -EIO, and so do all
 * after it until the store is wiped or opened again. nth 0: no fault.
 */
void simindex_fail(struct simindex *index, uint64_t nth);
uint64_t simindex_fault_hits(const struct simindex *index);

/* As index_get_state(), of what a power cut leaves for certain; for one that keeps the store. */
int simindex_durable_state(const struct simindex *index, const char *key, void *value, size_t max,
			   size_t *ret_length);

#endif
