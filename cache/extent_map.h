// SPDX-License-Identifier: Apache-2.0
/*
 * Disjoint index extents in block order, with the splitting that index_apply() promises. The
 * index in memory is one; the one in RocksDB works out each apply in a small one.
 * Not synchronised.
 */
#ifndef CACHE_EXTENT_MAP_H
#define CACHE_EXTENT_MAP_H

#include "cache/index.h"

#define EXTENT_MAP_HEIGHT 20

struct extent_node {
	struct index_extent extent; /* crc points behind the links */
	unsigned height;
	struct extent_node *next[];
};

struct extent_map {
	struct extent_node *head[EXTENT_MAP_HEIGHT];
	uint64_t dice; /* of the skip list; any value will do */
};

/* An empty map; no memory yet. */
void extent_map_init(struct extent_map *map);

/* Forget everything; usable again as after init. */
void extent_map_clear(struct extent_map *map);

/*
 * Put @extent (copied) where it says; what it overlaps is cut back to what sticks out. 0; -EINVAL:
 * it breaks the limits of struct index_extent; -ENOMEM: the map may have lost what @extent covers.
 */
int extent_map_put(struct extent_map *map, const struct index_extent *extent);

/* Forget a range; what sticks out stays. 0 or -ENOMEM, then some of it may be there still. */
int extent_map_delete(struct extent_map *map, uint64_t blk, uint64_t nblocks);

/* 0 or -EINVAL: whether @extent keeps to what struct index_extent says. */
int extent_check(const struct index_extent *extent);

/* The first extent that ends behind @blk, or NULL; the others follow by next[0]. */
struct extent_node *extent_map_find(const struct extent_map *map, uint64_t blk);

#endif
