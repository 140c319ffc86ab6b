// SPDX-License-Identifier: Apache-2.0
/*
 * A skip list by first block. Invariants: extents are disjoint and ascending; each
 * node of height h is linked on levels 0..h-1. Extents never join: two that touch
 * stay two, so that what was put is what comes back.
 */
#include "cache/extent_map.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/cleanup.h"

/* Where a search went down, level by level: the links to change. */
typedef struct extent_node **path_links[EXTENT_MAP_HEIGHT];

void extent_map_init(struct extent_map *map)
{
	*map = (struct extent_map){ .dice = 0x9e3779b97f4a7c15ull };
}

void extent_map_clear(struct extent_map *map)
{
	struct extent_node *n = map->head[0];

	while (n) {
		struct extent_node *next = n->next[0];

		free(n);
		n = next;
	}
	extent_map_init(map);
}

static uint64_t end_of(const struct index_extent *e)
{
	return e->blk + e->nblocks;
}

int extent_check(const struct index_extent *e)
{
	if (!e->nblocks || e->blk > UINT64_MAX - e->nblocks)
		return -EINVAL;
	if (e->kind == INDEX_ZERO)
		return 0;
	if (e->kind != INDEX_DATA || !e->crc || e->nblocks > INDEX_EXTENT_BLOCKS)
		return -EINVAL;
	if (e->blk / INDEX_EXTENT_BLOCKS != (end_of(e) - 1) / INDEX_EXTENT_BLOCKS)
		return -EINVAL;
	return 0;
}

/* Heights are geometric, p = 1/4: few links, short searches. */
static unsigned throw_height(struct extent_map *map)
{
	unsigned h = 1;

	map->dice ^= map->dice << 13;
	map->dice ^= map->dice >> 7;
	map->dice ^= map->dice << 17;
	for (uint64_t d = map->dice; h < EXTENT_MAP_HEIGHT && !(d & 3); d >>= 2)
		h++;
	return h;
}

/* The links that lead to the first node with end > @blk. */
static void descend(struct extent_map *map, uint64_t blk, path_links path)
{
	struct extent_node **links = map->head;

	for (int level = EXTENT_MAP_HEIGHT - 1; level >= 0; level--) {
		while (links[level] && end_of(&links[level]->extent) <= blk)
			links = links[level]->next;
		path[level] = &links[level];
	}
}

struct extent_node *extent_map_find(const struct extent_map *map, uint64_t blk)
{
	struct extent_node *const *links = map->head;

	for (int level = EXTENT_MAP_HEIGHT - 1; level >= 0; level--)
		while (links[level] && end_of(&links[level]->extent) <= blk)
			links = links[level]->next;
	return links[0];
}

/* A copy of blocks [from, to) of @e, not linked yet. */
static struct extent_node *make_part(struct extent_map *map, const struct index_extent *e,
				     uint64_t from, uint64_t to)
{
	unsigned height = throw_height(map);
	size_t links = height * sizeof(struct extent_node *);
	size_t crcs = e->kind == INDEX_DATA ? (to - from) * sizeof(uint32_t) : 0;
	struct extent_node *n = malloc(sizeof(*n) + links + crcs);

	if (!n)
		return NULL;
	n->extent = *e;
	n->extent.blk = from;
	n->extent.nblocks = to - from;
	n->extent.crc = NULL;
	n->height = height;
	if (e->kind == INDEX_DATA) {
		n->extent.slot += (uint32_t)(from - e->blk);
		n->extent.crc = memcpy((char *)(n->next + height), e->crc + (from - e->blk), crcs);
	}
	return n;
}

static void link_node(struct extent_map *map, struct extent_node *n)
{
	path_links path;

	descend(map, n->extent.blk, path);
	for (unsigned level = 0; level < n->height; level++) {
		n->next[level] = *path[level];
		*path[level] = n;
	}
}

int extent_map_delete(struct extent_map *map, uint64_t blk, uint64_t nblocks)
{
	uint64_t end = nblocks > UINT64_MAX - blk ? UINT64_MAX : blk + nblocks;
	path_links path;

	for (;;) {
		struct extent_node *left = NULL;
		struct extent_node *right = NULL;
		struct extent_node *n;

		descend(map, blk, path);
		n = *path[0];
		if (!n || n->extent.blk >= end)
			return 0;
		if (n->extent.blk < blk) {
			left = make_part(map, &n->extent, n->extent.blk, blk);
			if (!left)
				return -ENOMEM;
		}
		if (end_of(&n->extent) > end) {
			right = make_part(map, &n->extent, end, end_of(&n->extent));
			if (!right) {
				free(left);
				return -ENOMEM;
			}
		}
		for (unsigned level = 0; level < n->height; level++)
			*path[level] = n->next[level];
		free(n);
		if (left)
			link_node(map, left);
		if (right)
			link_node(map, right);
	}
}

int extent_map_put(struct extent_map *map, const struct index_extent *extent)
{
	struct extent_node *n;
	int r = extent_check(extent);

	if (r < 0)
		return r;
	n = make_part(map, extent, extent->blk, end_of(extent));
	if (!n)
		return -ENOMEM;
	r = extent_map_delete(map, extent->blk, extent->nblocks);
	if (r < 0) {
		free(n);
		return r;
	}
	link_node(map, n);
	return 0;
}
