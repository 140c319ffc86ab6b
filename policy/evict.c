// SPDX-License-Identifier: Apache-2.0
/*
 * A segment is in one of these queues, each ordered by sealed_seq:
 *
 *   probation  filled by fetches, demand and readahead alike. Its blocks that
 *              were read again move to main when it is reclaimed, the others go.
 *   main       survivors of probation and ghosts that came back. Mostly hot
 *              segments are passed over once: copying nearly all of a segment to
 *              free it would only be work.
 *   log tail   at most one segment. It has no second chance, as nothing but
 *              reclaiming it lets the log move on; its hot blocks are copied.
 *
 * The log's tail does not compete while probation is over its share: a scan pays
 * for itself and neither main nor what the guest wrote does.
 */
#include "policy/evict.h"

#include <errno.h>
#include <string.h>

/* Both tests in 64 bits: counts of blocks and segments times 100 may pass 32. */
static bool mostly_hot(const struct evict_candidate *c)
{
	return c->live_blocks && (uint64_t)c->hot_blocks * 2 > c->live_blocks;
}

static bool in_main(const struct evict_candidate *c)
{
	return !c->probation && !c->log_tail;
}

bool evict_requeued(const struct evict_candidate *cand, const struct evict_candidate *chosen)
{
	return in_main(cand) && !cand->pinned && !cand->requeued && mostly_hot(cand) &&
	       chosen->live_blocks && !chosen->probation && cand->sealed_seq < chosen->sealed_seq;
}

/* Keep the older of the best so far and candidate @i. */
static void older(const struct evict_candidate *cand, int *best, unsigned i)
{
	if (*best < 0 || cand[i].sealed_seq < cand[*best].sealed_seq)
		*best = (int)i;
}

int evict_choose(const struct evict_candidate *cand, unsigned n, uint32_t probation_share_percent)
{
	int empty = -ENOENT, probation = -ENOENT, ready = -ENOENT, main_any = -ENOENT;
	uint64_t on_probation = 0;

	for (unsigned i = 0; i < n; i++) {
		const struct evict_candidate *c = &cand[i];

		on_probation += c->probation;
		if (c->pinned)
			continue;
		if (!c->live_blocks)
			older(cand, &empty, i);
		if (c->probation) {
			older(cand, &probation, i);
			continue;
		}
		older(cand, &main_any, i);
		if (c->log_tail || c->requeued || !mostly_hot(c))
			older(cand, &ready, i);
	}
	if (empty >= 0)
		return empty;
	if (probation >= 0 && on_probation * 100 > (uint64_t)n * probation_share_percent)
		return probation;
	if (ready >= 0)
		return ready;
	/* All of main is hot and none had its second chance: age decides. */
	return main_any >= 0 ? main_any : probation;
}

bool evict_keep_block(bool hot, bool probation, bool prefetched_unused)
{
	/* In main a prefetched block may be old enough to have been hot and fetched anew. */
	return hot && !(probation && prefetched_unused);
}

/* A 64-bit finaliser (SplitMix64): every bit of @v reaches bucket and fingerprint. */
static uint64_t mix(uint64_t v)
{
	v += 0x9e3779b97f4a7c15ull;
	v = (v ^ (v >> 30)) * 0xbf58476d1ce4e5b9ull;
	v = (v ^ (v >> 27)) * 0x94d049bb133111ebull;
	return v ^ (v >> 31);
}

static uint32_t *bucket_of(const struct evict_ghost *ghost, uint64_t hash)
{
	return &ghost->slots[(size_t)((uint32_t)hash & ghost->bucket_mask) * EVICT_GHOST_WAYS];
}

/* 0 marks a free slot. */
static uint32_t fingerprint(uint64_t hash)
{
	uint32_t print = (uint32_t)(hash >> 32);

	return print ? print : 1;
}

/* Take slot @way out; what is newer moves up, so that way 0 is free. */
static void make_room(uint32_t *bucket, unsigned way)
{
	memmove(bucket + 1, bucket, way * sizeof(*bucket));
	bucket[0] = 0;
}

/* The slot that holds @print, or the one to forget for it. */
static unsigned find_way(const uint32_t *bucket, uint32_t print)
{
	unsigned way = 0;

	while (way < EVICT_GHOST_WAYS - 1 && bucket[way] != print)
		way++;
	return way;
}

void evict_ghost_init(struct evict_ghost *ghost, void *memory, size_t bytes)
{
	uint64_t buckets = 1;

	while (buckets < 1ull << 31 && buckets * 2 * EVICT_GHOST_MIN_BYTES <= bytes)
		buckets *= 2;
	ghost->slots = memory;
	ghost->bucket_mask = (uint32_t)(buckets - 1);
	memset(memory, 0, (size_t)buckets * EVICT_GHOST_MIN_BYTES);
}

void evict_ghost_add(struct evict_ghost *ghost, uint64_t group)
{
	uint64_t hash = mix(group);
	uint32_t *bucket = bucket_of(ghost, hash);

	make_room(bucket, find_way(bucket, fingerprint(hash)));
	bucket[0] = fingerprint(hash);
}

bool evict_ghost_hit(struct evict_ghost *ghost, uint64_t group)
{
	uint64_t hash = mix(group);
	uint32_t *bucket = bucket_of(ghost, hash);
	unsigned way = find_way(bucket, fingerprint(hash));

	if (bucket[way] != fingerprint(hash))
		return false;
	/* Leave the free slot at the end: it is the next to be used up. */
	memmove(bucket + way, bucket + way + 1, (EVICT_GHOST_WAYS - 1 - way) * sizeof(*bucket));
	bucket[EVICT_GHOST_WAYS - 1] = 0;
	return true;
}
