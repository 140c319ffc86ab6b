// SPDX-License-Identifier: Apache-2.0
/*
 * Keys and values of the index store, one after the other, and the extents they hold put into one
 * map:
 *
 *	u8 flags (1: make the checksum right), u8 length of the key, u16 length of the value, both
 *
 * What is believed keeps to the limits of an extent and is what the encoder would have written;
 * the map stays in order and disjoint whatever is put into it.
 */
#include <stdlib.h>

#include "cache/extent_map.h"
#include "cache/index_value.h"
#include "core/cleanup.h"
#include "core/le.h"
#include "tests/fuzz/fuzz.h"

#define RESEAL 1

const unsigned fuzz_runs = 100000;

/* Bytes that readers do not look at (docs/FORMAT.md, section 8). */
static void clear_unread(const struct index_extent *e, uint8_t *value)
{
	memset(value, 0, 4); /* the checksum covers them */
	memset(value + 5, 0, 3);
	if (e->kind != INDEX_DATA)
		memset(value + 16, 0, 16);
}

static void check_round_trip(const uint8_t *key, uint8_t *value, size_t length,
			     const struct index_extent *e)
{
	uint8_t key2[INDEX_EXTENT_KEY_BYTES], value2[INDEX_EXTENT_VALUE_MAX];
	uint32_t crc2[INDEX_EXTENT_BLOCKS];
	struct index_extent e2;

	index_extent_key(key2, e->blk);
	fuzz_check(memcmp(key, key2, sizeof(key2)) == 0);
	fuzz_check(index_extent_encode(key2, e, value2) == length);
	fuzz_check(index_extent_decode(key2, sizeof(key2), value2, length, &e2, crc2) == 0);
	fuzz_check(e2.blk == e->blk && e2.nblocks == e->nblocks && e2.kind == e->kind);
	clear_unread(e, value);
	clear_unread(e, value2);
	fuzz_check(memcmp(value, value2, length) == 0);
}

static void check_map(const struct extent_map *map)
{
	uint64_t end = 0;

	for (const struct extent_node *n = map->head[0]; n; n = n->next[0]) {
		fuzz_check(extent_check(&n->extent) == 0);
		fuzz_check(n->extent.blk >= end);
		end = n->extent.blk + n->extent.nblocks;
	}
}

static void one(struct fuzz_input *in, struct extent_map *map)
{
	unsigned flags = (unsigned)fuzz_take(in, 1), key_want = (unsigned)fuzz_take(in, 1);
	size_t want = fuzz_take(in, 2), key_length, length;
	const uint8_t *key_at = fuzz_take_bytes(in, key_want, &key_length);
	const uint8_t *at = fuzz_take_bytes(in, want, &length);
	/* Copies that end where they end. */
	cleanup_free uint8_t *key = fuzz_alloc(key_length), *value = fuzz_alloc(length);
	struct index_extent e = { .blk = 7 };
	uint32_t crc[INDEX_EXTENT_BLOCKS];

	if (key_length)
		memcpy(key, key_at, key_length);
	if (length)
		memcpy(value, at, length);
	if ((flags & RESEAL) && length >= INDEX_CRC_BYTES)
		le_put(value, index_value_crc(key, key_length, value, length), INDEX_CRC_BYTES);
	if (index_extent_decode(key, key_length, value, length, &e, crc) < 0) {
		fuzz_check(e.blk == 7 && e.nblocks == 0);
		return;
	}
	fuzz_check(extent_check(&e) == 0);
	fuzz_check(length <= INDEX_EXTENT_VALUE_MAX);
	check_round_trip(key, value, length, &e);
	fuzz_check(extent_map_put(map, &e) == 0);
	/* The second half of it again, so that there is something to split. */
	if (e.nblocks > 1)
		fuzz_check(extent_map_delete(map, e.blk + e.nblocks / 2, 1) == 0);
	check_map(map);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = { data, size };
	struct extent_map map;

	extent_map_init(&map);
	while (in.left)
		one(&in, &map);
	extent_map_clear(&map);
	return 0;
}

static void put(struct fuzz_output *out, enum index_kind kind, uint64_t blk, uint64_t nblocks)
{
	uint8_t key[INDEX_EXTENT_KEY_BYTES], value[INDEX_EXTENT_VALUE_MAX];
	uint32_t crc[INDEX_EXTENT_BLOCKS];
	struct index_extent e = {
		.blk = blk,
		.nblocks = nblocks,
		.kind = kind,
		.segment = 3,
		.slot = 17,
		.incarnation = 5ull << 24,
		.crc = kind == INDEX_DATA ? crc : NULL,
	};
	size_t length;

	for (unsigned i = 0; i < INDEX_EXTENT_BLOCKS; i++)
		crc[i] = 0x9e3779b9u * (i + 1);
	index_extent_key(key, blk);
	length = index_extent_encode(key, &e, value);
	fuzz_put(out, RESEAL, 1);
	fuzz_put(out, sizeof(key), 1);
	fuzz_put(out, length, 2);
	fuzz_put_bytes(out, key, sizeof(key));
	fuzz_put_bytes(out, value, length);
}

void fuzz_seeds(void)
{
	struct fuzz_output out = { 0 };

	put(&out, INDEX_DATA, 40, 3);
	fuzz_put_seed(&out);
	put(&out, INDEX_DATA, 512, INDEX_EXTENT_BLOCKS);
	fuzz_put_seed(&out);
	put(&out, INDEX_ZERO, 1ull << 40, 1ull << 30);
	fuzz_put_seed(&out);
	/* Overlapping ones, as no store has them. */
	put(&out, INDEX_ZERO, 0, 100);
	put(&out, INDEX_DATA, 10, 20);
	put(&out, INDEX_ZERO, 25, 2);
	put(&out, INDEX_DATA, 8, 4);
	fuzz_put_seed(&out);
}
