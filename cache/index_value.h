// SPDX-License-Identifier: Apache-2.0
/*
 * The bytes of keys and values in the index store. Pure encoding and decoding; any thread.
 *
 * Keys, big-endian so that they sort by block:
 *   'm'            format and cache uuid, written when the store is made
 *   'e' blk u64    an extent
 *   's' text       a state
 * Values are little-endian and begin with the CRC32C of the key and of what follows.
 *   extent: crc u32, kind u8, 0 u8[3], nblocks u64, segment u32, slot u32, incarnation u64,
 *           then a crc u32 for each block of DATA
 */
#ifndef CACHE_INDEX_VALUE_H
#define CACHE_INDEX_VALUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cache/index.h"

#define INDEX_KEY_META 'm'
#define INDEX_KEY_EXTENT 'e'
#define INDEX_KEY_STATE 's'
#define INDEX_EXTENT_KEY_BYTES 9
#define INDEX_EXTENT_HEAD_BYTES 32
#define INDEX_EXTENT_VALUE_MAX (INDEX_EXTENT_HEAD_BYTES + 4 * INDEX_EXTENT_BLOCKS)
#define INDEX_CRC_BYTES 4

/* What a value of @length bytes (at least INDEX_CRC_BYTES) under @key has to begin with. */
uint32_t index_value_crc(const void *key, size_t key_length, const void *value, size_t length);
/* True if the value is long enough for its checksum, and the checksum is right. */
bool index_value_whole(const void *key, size_t key_length, const void *value, size_t length);

/* The key of the extent at @blk. */
void index_extent_key(uint8_t key[INDEX_EXTENT_KEY_BYTES], uint64_t blk);
/* True if that is the shape of @key. */
bool index_extent_key_is(const void *key, size_t length);

/*
 * The value of @e, which keeps to what struct index_extent says, at most INDEX_EXTENT_VALUE_MAX
 * bytes; returns its length. @key is its key.
 */
size_t index_extent_encode(const uint8_t key[INDEX_EXTENT_KEY_BYTES], const struct index_extent *e,
			   uint8_t *value);
/*
 * What @key and @value say, the checksums of DATA in @crc[INDEX_EXTENT_BLOCKS], to which ret->crc
 * then points. 0; -EBADMSG: damaged, or none that index_extent_encode() could have made.
 */
int index_extent_decode(const void *key, size_t key_length, const void *value, size_t length,
			struct index_extent *ret, uint32_t *crc);

#endif
