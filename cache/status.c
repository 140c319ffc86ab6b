// SPDX-License-Identifier: Apache-2.0
/* What the cache tells about itself, and the commands that are not requests. */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "cache/internal.h"

static struct cache *cache_of(struct blk_dev *dev)
{
	return container_of(dev, struct cache, dev);
}

const char *cache_state_name(enum cache_state state)
{
	static const char *const name[] = {
		[CACHE_CLEAN] = "clean",
		[CACHE_DIRTY] = "dirty",
		[CACHE_WRITING_BACK] = "writing-back",
		[CACHE_THROTTLED] = "throttled",
		[CACHE_OFFLINE] = "offline",
		[CACHE_FENCED] = "fenced",
		[CACHE_DAMAGED] = "damaged",
	};

	return name[state];
}

static enum cache_state state_of(const struct cache *c, bool online, bool fenced)
{
	if (c->damaged || c->log_failed || c->map.bad_blocks)
		return CACHE_DAMAGED;
	if (fenced)
		return CACHE_FENCED;
	if (!online)
		return CACHE_OFFLINE;
	if (c->nthrottled || c->disk_full)
		return CACHE_THROTTLED;
	if (c->destage && destage_active(c))
		return CACHE_WRITING_BACK;
	return c->dirty_slots ? CACHE_DIRTY : CACHE_CLEAN;
}

/* What writers wait for. */
static const char *throttle_of(const struct cache *c, bool online)
{
	if (c->disk_full && !list_empty(&c->log.pending))
		return "disk-full";
	if (!c->nthrottled)
		return NULL;
	return online ? "max-dirty" : "offline";
}

/* What write-back waits for. */
static const char *wait_of(const struct cache *c, bool online)
{
	if (!c->destage || !destage_active(c))
		return NULL;
	if (!online)
		return "the target, which cannot be reached";
	return destage_syncing(c) ? "the target's SYNCHRONIZE CACHE" : NULL;
}

void cache_status(struct blk_dev *dev, struct cache_status *ret)
{
	struct cache *c = cache_of(dev);
	uint64_t now = sched_now(c->sched), wall = sched_realtime(c->sched), eta;
	struct blk_stats stats;
	const struct epoch *oldest;
	bool fenced;

	blk_stats(dev, &stats);
	fenced = blk_fenced(dev);
	guard(&c->lock);
	*ret = (struct cache_status){
		.state = state_of(c, stats.online, fenced),
		.size_bytes = c->inner_info.size_bytes,
		.limit_bytes = (uint64_t)c->limit_segs * c->seg_slots * FORMAT_SLOT_BYTES,
		.used_bytes = (uint64_t)c->files * c->seg_slots * FORMAT_SLOT_BYTES,
		.cached_bytes = MIN(c->map.data_blocks * BLK, c->inner_info.size_bytes),
		.dirty_bytes = c->dirty_slots * BLK,
		.max_dirty_bytes = c->wb_conf.max_dirty_bytes,
		.sent_bytes = MIN(destage_sent_bytes(c), c->dirty_slots * BLK),
		.epochs_pending = epoch_count(c),
		.oldest_dirty_ns = CACHE_UNKNOWN,
		.drain_eta_ns = CACHE_UNKNOWN,
		.drain_bytes_per_s = writeback_rate(&c->wb, now),
		.far_consistent = c->merged_seq <= c->destaged_seq,
		.far_as_of_ns = c->far_as_of_ns ? c->far_as_of_ns : CACHE_UNKNOWN,
		.hit_bytes = c->hit_bytes,
		.miss_bytes = c->miss_bytes,
		.readahead_bytes = c->readahead_bytes,
		.readahead_wasted_bytes = c->readahead_wasted_bytes,
		.written_bytes = c->written_bytes,
		.damaged_bytes = c->map.bad_blocks * BLK,
		.waiting_writes = c->nthrottled,
		.throttled_by = throttle_of(c, stats.online),
		.waiting_for = wait_of(c, stats.online),
		.log_unsafe = c->log_unsafe,
	};
	oldest = list_first(&c->epochs, struct epoch, link);
	if (!oldest && c->open.records)
		oldest = &c->open;
	if (oldest) {
		ret->oldest_dirty_ns = now - oldest->since_ns;
		/* Of an earlier process the log knows when the epoch was closed. */
		if (oldest->recovered && oldest->closed_wall_ns && wall > oldest->closed_wall_ns)
			ret->oldest_dirty_ns =
				MAX(ret->oldest_dirty_ns, wall - oldest->closed_wall_ns);
		eta = stats.online ? writeback_eta_ns(&c->wb, &c->wb_conf, epoch_count(c),
						      ret->dirty_bytes - ret->sent_bytes, now)
				   : UINT64_MAX;
		if (eta != UINT64_MAX)
			ret->drain_eta_ns = eta;
	}
}

void cache_drain(struct blk_dev *dev, struct cache_drain *drain)
{
	struct cache *c = cache_of(dev);
	struct todo todo;

	cache_lock(c, &todo);
	drain_begin(c, drain, c->appended_seq, &todo);
	cache_unlock(c, &todo);
}

bool cache_drain_cancel(struct blk_dev *dev, struct cache_drain *drain)
{
	struct cache *c = cache_of(dev);

	guard(&c->lock);
	return drain_take_back(c, drain);
}

static bool dropped(struct cache *c)
{
	return c->stopping || janitor_dropped(c);
}

int cache_drop(struct blk_dev *dev)
{
	struct cache *c = cache_of(dev);
	struct todo todo;
	bool stopping;

	cache_lock(c, &todo);
	stopping = c->stopping;
	if (!stopping) {
		cache_get(c);
		janitor_drop(c);
	}
	cache_unlock(c, &todo);
	if (stopping)
		return -ESHUTDOWN;
	cache_wait(c, dropped);
	cache_lock(c, &todo);
	stopping = c->stopping;
	cache_put(c);
	cache_unlock(c, &todo);
	return stopping ? -ESHUTDOWN : 0;
}

uint64_t cache_present(struct blk_dev *dev, uint64_t offset, uint64_t length)
{
	struct cache *c = cache_of(dev);
	uint64_t blk = offset / BLK, end, present = 0;

	guard(&c->lock);
	end = MIN(div_round_up(offset + length, BLK), c->nblocks);
	while (blk < end) {
		enum map_state state;
		uint64_t n = map_run(&c->map, blk, end - blk, &state);

		if (state == MAP_DATA || state == MAP_ZERO)
			present += MIN((blk + n) * BLK, offset + length) - MAX(blk * BLK, offset);
		blk += n;
	}
	return present;
}

void cache_note_damage(struct cache *c, uint64_t blk, uint64_t n, bool dirty)
{
	struct cache_damage *last = c->ndamage && c->ndamage <= ARRAY_SIZE(c->damage)
					    ? &c->damage[c->ndamage - 1]
					    : NULL;

	if (dirty)
		c->damaged = true;
	/* A reader and write-back may both come across it. */
	for (unsigned i = 0; i < MIN(c->ndamage, (unsigned)ARRAY_SIZE(c->damage)); i++)
		if (c->damage[i].offset <= blk * BLK && c->damage[i].dirty == dirty &&
		    (blk + n) * BLK <= c->damage[i].offset + c->damage[i].length)
			return;
	if (last && last->dirty == dirty && last->offset + last->length == blk * BLK) {
		last->length += n * BLK;
		return;
	}
	if (c->ndamage < ARRAY_SIZE(c->damage))
		c->damage[c->ndamage] = (struct cache_damage){ .offset = blk * BLK,
							       .length = n * BLK,
							       .dirty = dirty };
	c->ndamage++;
}

unsigned cache_damages(struct blk_dev *dev, struct cache_damage *out, unsigned max)
{
	struct cache *c = cache_of(dev);
	unsigned n;

	guard(&c->lock);
	n = MIN(c->ndamage, (unsigned)ARRAY_SIZE(c->damage));
	for (unsigned i = 0; i < n && i < max; i++)
		out[i] = c->damage[i];
	return c->ndamage;
}

/* ---- invariants ---- */

static void check_segments(const struct cache *c)
{
	unsigned ready_log = 0, ready_clean = 0;

	for (uint32_t i = 0; i < c->nsegs; i++) {
		const struct segment *s = &c->seg[i];

		assert(segment_in_use(s) || (s->live == 0 && s->pins == 0));
		assert(s->state == SEG_ABSENT || s->state == SEG_PREPARING || s->file);
		assert(s->state != SEG_EVICTING || segment_is_clean(c, s));
		if (s->state == SEG_READY && s->class == FORMAT_LOG)
			ready_log++;
		else if (s->state == SEG_READY)
			ready_clean++;
	}
	assert(ready_log == c->prepared_log && ready_clean == c->prepared_clean);
}

static void check_epochs(const struct cache *c)
{
	uint64_t slots = c->open.log_slots, n = 0, last = c->destaged_seq;
	struct list_node *node;

	list_for_each(node, &c->epochs) {
		const struct epoch *e = list_entry(node, struct epoch, link);

		assert(e->records && e->first_seq > last && e->last_seq > e->first_seq);
		last = e->last_seq;
		slots += e->log_slots;
		n++;
	}
	assert(slots == c->dirty_slots && n == c->nepochs);
	assert(!c->open.records || c->open.first_seq > last);
}

static void check_live(const struct cache *c)
{
	uint64_t live = 0;

	for (uint32_t i = 0; i < c->nsegs; i++)
		live += c->seg[i].live;
	assert(live == c->map.data_blocks);
}

void cache_check_invariants(struct cache *c)
{
	assert(c->durable_seq <= c->appended_seq && c->destaged_seq <= c->appended_seq);
	assert(c->next_seq > c->appended_seq);
	check_segments(c);
	check_epochs(c);
	check_live(c);
}

void cache_check(struct blk_dev *dev)
{
	struct cache *c = cache_of(dev);

	guard(&c->lock);
	cache_check_invariants(c);
	map_check(&c->map);
}
