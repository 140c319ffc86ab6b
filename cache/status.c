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
	if (c->damaged || c->log_failed || c->gone || c->map.bad_blocks)
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

void cache_status(struct blk_dev *dev, struct cache_status *ret)
{
	struct cache *c = cache_of(dev);
	uint64_t now = sched_now(c->sched), eta;
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
		.epochs_pending = c->nepochs + (c->open.records > 0),
		.oldest_dirty_ns = CACHE_UNKNOWN,
		.drain_eta_ns = CACHE_UNKNOWN,
		.drain_bytes_per_s = writeback_rate(&c->wb, now),
		.far_as_of_ns = c->far_as_of_ns ? c->far_as_of_ns : CACHE_UNKNOWN,
		.hit_bytes = c->hit_bytes,
		.miss_bytes = c->miss_bytes,
		.readahead_bytes = c->readahead_bytes,
		.readahead_wasted_bytes = c->readahead_wasted_bytes,
		.written_bytes = c->written_bytes,
		.damaged_bytes = c->map.bad_blocks * BLK,
		.waiting_writes = c->nthrottled,
		.log_unsafe = c->log_unsafe,
	};
	oldest = list_first(&c->epochs, struct epoch, link);
	if (!oldest && c->open.records)
		oldest = &c->open;
	if (oldest) {
		ret->oldest_dirty_ns = now - oldest->since_ns;
		eta = writeback_eta_ns(&c->wb, ret->dirty_bytes - ret->sent_bytes, now);
		if (eta != UINT64_MAX)
			ret->drain_eta_ns = eta;
	}
}

void cache_drain(struct blk_dev *dev, struct cache_drain *drain)
{
	struct cache *c = cache_of(dev);
	struct todo todo;

	cache_lock(c, &todo);
	list_init(&drain->link);
	/* Behind the last closed epoch there may be only watermarks: nobody waits for those. */
	drain->seq = c->appended_seq;
	if (c->open.records == 0 && !list_empty(&c->epochs))
		drain->seq = list_entry(c->epochs.prev, struct epoch, link)->last_seq;
	drain->result = 0;
	if (c->stopping)
		drain->result = -ESHUTDOWN;
	else if (c->damaged || c->log_failed)
		drain->result = -EIO;
	else if (c->fenced && c->dirty_slots)
		drain->result = -ESTALE;
	if (drain->result < 0 || (list_empty(&c->epochs) && c->open.records == 0)) {
		list_add_tail(&todo.drains, &drain->link);
	} else {
		list_add_tail(&c->drains, &drain->link);
		if (epoch_wants_cut(c))
			epoch_cut(c, &todo);
		destage_kick(c);
	}
	cache_unlock(c, &todo);
}

bool cache_drain_cancel(struct blk_dev *dev, struct cache_drain *drain)
{
	struct cache *c = cache_of(dev);
	struct list_node *n;

	guard(&c->lock);
	list_for_each(n, &c->drains) {
		if (n == &drain->link) {
			list_del(n);
			return true;
		}
	}
	return false;
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
