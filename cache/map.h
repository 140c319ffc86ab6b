// SPDX-License-Identifier: Apache-2.0
/*
 * The map: for each 4 KiB block of the volume, where its newest bytes are. Two
 * levels: a directory with one word per 256 blocks (1 MiB), which is a leaf of
 * 256 entries or says "all absent" or "all zero" by itself; so a discard of 1 TiB
 * touches 8 MiB. 2 KiB of memory per cached MiB: 0.2 %.
 *
 * Not synchronised: the cache's lock guards it.
 */
#ifndef CACHE_MAP_H
#define CACHE_MAP_H

#include <stdbool.h>
#include <stdint.h>

/*
 * An entry: bits 63..62 state, 61..32 slot number over all segments, 31..0 CRC32C of the block.
 */
enum map_state { MAP_NONE = 0, MAP_DATA = 1, MAP_ZERO = 2, MAP_BAD = 3 };

#define MAP_LEAF_BLOCKS 256u
#define MAP_SLOT_BITS 30

static inline uint64_t map_entry(uint32_t slot, uint32_t crc)
{
	return (uint64_t)MAP_DATA << 62 | (uint64_t)slot << 32 | crc;
}

#define MAP_ENTRY_NONE 0ull
#define MAP_ENTRY_ZERO ((uint64_t)MAP_ZERO << 62)
#define MAP_ENTRY_BAD ((uint64_t)MAP_BAD << 62)

static inline enum map_state map_entry_state(uint64_t entry)
{
	return (enum map_state)(entry >> 62);
}

static inline uint32_t map_entry_slot(uint64_t entry)
{
	return (uint32_t)(entry >> 32) & ((1u << MAP_SLOT_BITS) - 1);
}

static inline uint32_t map_entry_crc(uint64_t entry)
{
	return (uint32_t)entry;
}

struct map {
	uint64_t nblocks;
	uint64_t ngroups;
	uintptr_t *dir;       /* a leaf's address, or DIR_NONE, DIR_ZERO */
	uint64_t data_blocks; /* entries in state DATA */
	uint64_t bad_blocks;  /* entries in state BAD */
	uint64_t leaves;      /* allocated */
};

/* A map of @nblocks blocks, all absent. 0 or -ENOMEM. */
int map_init(struct map *m, uint64_t nblocks);
/* Make it @nblocks long, not less than it is; what is new is absent. 0, or -ENOMEM with nothing
 * changed. */
int map_grow(struct map *m, uint64_t nblocks);
/* Safe on a zeroed map. */
void map_fini(struct map *m);

/* @blk < nblocks. */
uint64_t map_get(const struct map *m, uint64_t blk);

/*
 * Make sure that map_set() and map_fill() on [blk, blk + n) cannot fail: allocates leaves. 0 or
 * -ENOMEM. A reservation lasts until the leaf is dropped by a map_fill() over all of it.
 */
int map_reserve(struct map *m, uint64_t blk, uint64_t n);

/* Replace one entry; asserts that there is memory (map_reserve()). */
void map_set(struct map *m, uint64_t blk, uint64_t entry);

/* Set [blk, blk + n) to NONE, ZERO or BAD; whole leaves are freed where NONE or ZERO covers them.
 */
void map_fill(struct map *m, uint64_t blk, uint64_t n, uint64_t entry);

/*
 * The length (1..max) of the run from @blk whose entries have the same state as @blk's, which is
 * put into
 * *@ret_state; DATA runs are not checked for slots in sequence. Fast over absent and zero groups.
 */
uint64_t map_run(const struct map *m, uint64_t blk, uint64_t max, enum map_state *ret_state);

/* Walk all leaves and check the counters (asserts). Slow. */
void map_check(const struct map *m);

#endif
