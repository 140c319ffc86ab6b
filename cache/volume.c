// SPDX-License-Identifier: Apache-2.0
/*
 * Which volume the directory belongs to, and its size, which may grow: at open and while it is in
 * use. The new size is in the identity record before a byte behind the old end is taken, so that
 * the next start finds room for it also where nobody answers.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "cache/internal.h"
#include "core/log.h"

int volume_store(struct cache *c, struct err *err)
{
	if (identity_store(c->lio, c->conf.identity) == 0)
		return 0;
	return err_set(err, -EIO, "cache directory: the identity record cannot be written");
}

/*
 * Where the old end lay within a block, the cache has that block with zeroes behind the end, and
 * the far side has data there now. With nothing unsent the cache forgets all it holds, and the new
 * size is written down once it has (cache_start()); else the old size stands until it was stopped
 * clean.
 */
static void adopt_size(struct cache *c, struct cache_identity *id)
{
	struct blk_info *info = &c->inner_info;
	uint64_t old = id->size_bytes;

	if (info->size_bytes == old || old % BLK == 0) {
		id->size_bytes = info->size_bytes;
	} else if (c->was_clean) {
		c->forget = true;
	} else {
		log_warning("the volume has grown from %" PRIu64 " to %" PRIu64
			    " bytes: it keeps the old size until the next mount after everything "
			    "was sent",
			    old, info->size_bytes);
		info->size_bytes = old;
	}
}

int volume_check(struct cache *c, struct err *err)
{
	struct cache_identity *id = c->conf.identity;
	const struct blk_info *info = &c->inner_info;

	if (id->volume[0] == '\0') {
		memcpy(id->volume, info->identity, sizeof(id->volume));
		id->size_bytes = info->size_bytes;
		id->sector_bytes = info->sector_bytes;
	} else if (strcmp(id->volume, info->identity) != 0) {
		return err_set(err, -EMEDIUMTYPE,
			       "the cache directory belongs to another volume: it holds \"%s\", "
			       "the far side is \"%s\"; use another --cache-dir for it",
			       id->volume, info->identity);
	} else if (info->size_bytes < id->size_bytes) {
		return err_set(err, -EMEDIUMTYPE,
			       "the volume has shrunk from %llu to %llu bytes since this cache "
			       "directory was used: restore its size, or use another --cache-dir",
			       (unsigned long long)id->size_bytes,
			       (unsigned long long)info->size_bytes);
	} else if (info->sector_bytes != id->sector_bytes) {
		return err_set(
			err, -EMEDIUMTYPE,
			"the volume's sectors are %u bytes now, %u when this cache directory "
			"was made: use another --cache-dir",
			info->sector_bytes, id->sector_bytes);
	}
	c->was_clean = id->clean;
	adopt_size(c, id);
	return volume_store(c, err);
}

int cache_grow(struct blk_dev *dev)
{
	struct cache *c = container_of(dev, struct cache, dev);
	struct cache_identity *id = c->conf.identity;
	uint64_t old = atomic_load(&c->size_bytes), size, nblocks;
	struct blk_info info;
	struct todo todo;
	int r;

	blk_info(c->conf.inner, &info);
	size = info.size_bytes;
	/* What behind the end of a partial block is, the cache does not know: adopt_size(). */
	if (size <= old || old % BLK || blk_fenced(dev))
		return 0;
	nblocks = div_round_up(size, BLK);
	id->size_bytes = size;
	r = identity_store(c->lio, id);
	if (r < 0) {
		id->size_bytes = old;
		return r;
	}
	cache_lock(c, &todo);
	r = map_grow(&c->map, nblocks);
	if (r == 0) {
		c->nblocks = nblocks;
		readahead_init(&c->ra, size);
		atomic_store(&c->size_bytes, size);
	}
	cache_unlock(c, &todo);
	return r < 0 ? r : 1;
}
