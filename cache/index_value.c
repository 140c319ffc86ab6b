// SPDX-License-Identifier: Apache-2.0
#include "cache/index_value.h"

#include <errno.h>
#include <string.h>

#include "cache/extent_map.h"
#include "core/crc32c.h"
#include "core/le.h"

uint32_t index_value_crc(const void *key, size_t key_length, const void *value, size_t length)
{
	return crc32c(crc32c(0, key, key_length), (const char *)value + INDEX_CRC_BYTES,
		      length - INDEX_CRC_BYTES);
}

bool index_value_whole(const void *key, size_t key_length, const void *value, size_t length)
{
	return length >= INDEX_CRC_BYTES &&
	       le_get(value, INDEX_CRC_BYTES) == index_value_crc(key, key_length, value, length);
}

void index_extent_key(uint8_t key[INDEX_EXTENT_KEY_BYTES], uint64_t blk)
{
	key[0] = INDEX_KEY_EXTENT;
	for (unsigned i = 0; i < 8; i++)
		key[1 + i] = (uint8_t)(blk >> 8 * (7 - i));
}

bool index_extent_key_is(const void *key, size_t length)
{
	return length == INDEX_EXTENT_KEY_BYTES && *(const char *)key == INDEX_KEY_EXTENT;
}

static uint64_t key_blk(const uint8_t *key)
{
	uint64_t blk = 0;

	for (unsigned i = 1; i <= 8; i++)
		blk = blk << 8 | key[i];
	return blk;
}

size_t index_extent_encode(const uint8_t key[INDEX_EXTENT_KEY_BYTES], const struct index_extent *e,
			   uint8_t *value)
{
	size_t length = INDEX_EXTENT_HEAD_BYTES;

	memset(value, 0, INDEX_EXTENT_HEAD_BYTES);
	value[4] = (uint8_t)e->kind;
	le_put(value + 8, e->nblocks, 8);
	if (e->kind == INDEX_DATA) {
		le_put(value + 16, e->segment, 4);
		le_put(value + 20, e->slot, 4);
		le_put(value + 24, e->incarnation, 8);
		for (uint64_t i = 0; i < e->nblocks; i++, length += 4)
			le_put(value + length, e->crc[i], 4);
	}
	le_put(value, index_value_crc(key, INDEX_EXTENT_KEY_BYTES, value, length), INDEX_CRC_BYTES);
	return length;
}

int index_extent_decode(const void *key, size_t key_length, const void *value, size_t length,
			struct index_extent *ret, uint32_t *crc)
{
	const uint8_t *v = value;
	struct index_extent e;

	if (!index_extent_key_is(key, key_length) || length < INDEX_EXTENT_HEAD_BYTES ||
	    !index_value_whole(key, key_length, value, length))
		return -EBADMSG;
	e = (struct index_extent){
		.blk = key_blk(key),
		.nblocks = le_get(v + 8, 8),
		.kind = (enum index_kind)v[4],
		.segment = (uint32_t)le_get(v + 16, 4),
		.slot = (uint32_t)le_get(v + 20, 4),
		.incarnation = le_get(v + 24, 8),
		.crc = v[4] == INDEX_DATA ? crc : NULL,
	};
	if (extent_check(&e) < 0)
		return -EBADMSG;
	if (length != INDEX_EXTENT_HEAD_BYTES + (e.kind == INDEX_DATA ? 4 * e.nblocks : 0))
		return -EBADMSG;
	for (uint64_t i = 0; e.crc && i < e.nblocks; i++)
		crc[i] = (uint32_t)le_get(v + INDEX_EXTENT_HEAD_BYTES + 4 * i, 4);
	*ret = e;
	return 0;
}
