// SPDX-License-Identifier: Apache-2.0
/*
 * A simulated far device: a leaf whose requests end in random order, over a store
 * that outlives the process under test and has a volatile write cache.
 *
 * WRITE, ZERO and DISCARD change the volatile state at some step between submit and done. FLUSH
 * makes durable what was done before it was submitted; FUA what it wrote. The kit aborts,
 * naming the seed, when two requests of which one changes overlap in flight.
 *
 * Ghosts: a change in flight when the link or the process is lost may reach the store at once,
 * later, or never. Later ends (core/block.h, blk_generation()): with the first FLUSH
 * submitted after the link came back, or with a new process's first change.
 */
#ifndef TESTS_LIB_SIMFAR_H
#define TESTS_LIB_SIMFAR_H

#include "core/block.h"
#include "tests/lib/sim.h"
#include "tests/lib/simimage.h"

struct simfar_store;

/* What the device says of itself. Zero fields get defaults: size 1 MiB, sectors of 512, 1 MiB
 * per command, no flags beyond VOLATILE, identity "sim". */
struct simfar_config {
	struct blk_info info;
	uint64_t latency_ns;   /* up to this on the fake clock, each request; 0: order only */
	unsigned drop_once_in; /* an ADVISORY request is dropped so often; 0: never */
};

/* A store of zeroes. simfar_store_destroy() before sim_destroy(), after the device went. */
struct simfar_store *simfar_store_create(struct sim *sim, const struct simfar_config *config);
void simfar_store_destroy(struct simfar_store *store);

/* The device; one at a time over a store (asserted). Its owner ends it with blk_destroy(). */
struct blk_dev *simfar_create(struct sim *sim, struct simfar_store *store);

/*
 * kill -9 of the process that holds the device: nothing gets its done(), changes in flight become
 * ghosts, the device is gone. sim_reset() does it too. Nothing happens without a device.
 */
void simfar_kill(struct simfar_store *store);

/* The session is lost: the generation moves, requests wait for simfar_restore(), those that were
 * in flight are sent again then. @forgets: the target lost power, volatile data may be gone. */
void simfar_cut(struct simfar_store *store, bool forgets);
void simfar_restore(struct simfar_store *store);
bool simfar_is_down(const struct simfar_store *store);

/* Requests of these ops (1 << enum blk_op) wait at the device; 0 lets all go on. */
void simfar_hold(struct simfar_store *store, unsigned ops);

/* End every request inside its submit while on: for code that waits with blk_*_sync(). */
void simfar_set_inline(struct simfar_store *store, bool on);

/* The @nth request of the ops in @mask (1 << enum blk_op) ends with @error, with @always all later
 * ones too; nth 0: none. A failed change may have been done, in part or whole. */
void simfar_fail(struct simfar_store *store, unsigned mask, uint64_t nth, int error, bool always);
uint64_t simfar_fault_hits(const struct simfar_store *store);

/* Requests taken and not done yet; of one op so far, done or not. */
uint64_t simfar_in_flight(const struct simfar_store *store);
uint64_t simfar_count(const struct simfar_store *store, enum blk_op op);
/* Ghosts that reached the store after their sender was gone. */
uint64_t simfar_ghosts(const struct simfar_store *store);

/*
 * Called after every change of what the store shows, also of one that comes from the kit
 * (ghosts, a target that forgets: then offset 0, whole length).
 */
void simfar_on_change(struct simfar_store *store,
		      void (*changed)(void *ctx, uint64_t offset, uint64_t length), void *ctx);

/* Now (volatile included), durable, and the changes between: lent until the sim moves on. */
const struct simimage *simfar_image(const struct simfar_store *store);

/* What the far volume could hold after a power cut of the target now: durable and any of what is
 * volatile, per sector. info.size_bytes of it, the caller's to free. */
uint8_t *simfar_cut_copy(struct simfar_store *store);

/* The device says it is of @size_bytes only, as before the volume was grown: for one created later.
 */
void simfar_show_size(struct simfar_store *store, uint64_t size_bytes);

/* Somebody else writes: seen and durable at once. */
void simfar_meddle(struct simfar_store *store, uint64_t offset, const void *data, uint64_t length);

#endif
