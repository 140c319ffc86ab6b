// SPDX-License-Identifier: Apache-2.0
/*
 * Eviction: which segment to give back, which of its blocks to keep, and what
 * was evicted too early. S3-FIFO (Yang et al., SOSP 2023) in spirit, with
 * segments for objects: new data enters a small probation queue, data read again
 * enters the main queue, groups evicted recently are remembered as ghosts, and a
 * ghost that is fetched again enters main at once. One scan therefore passes
 * through probation and leaves main alone.
 *
 * Pure decisions (see policy/readahead.h for what lives in this folder): nothing
 * here blocks or allocates; the caller serialises calls on one struct evict_ghost.
 */
#ifndef POLICY_EVICT_H
#define POLICY_EVICT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * A sealed segment. Pinned ones cannot be chosen but count towards probation's share; a log
 * segment is a candidate only as the log's tail, and only once all of it is at the target.
 */
struct evict_candidate {
	uint32_t segment;     /* the caller's name for it */
	uint64_t sealed_seq;  /* age order: smaller is older */
	uint32_t live_blocks; /* still mapped */
	uint32_t hot_blocks;  /* of the live ones, those that evict_keep_block() would keep */
	uint32_t total_blocks;
	bool probation;
	bool pinned;   /* readers or pins hold it */
	bool log_tail; /* the guest log's tail segment */
	bool requeued; /* its second chance is spent (evict_requeued()) */
};

/*
 * The index of the candidate to reclaim next, or -ENOENT if all @n are pinned. In this order: one
 * without live blocks (the oldest); the oldest on probation while probation holds more than
 * @probation_share_percent (0..100; 10 is usual) of the segments; the oldest of main and the log's
 * tail, where a segment of main that is mostly hot is passed over once; the oldest of probation.
 */
int evict_choose(const struct evict_candidate *cand, unsigned n, uint32_t probation_share_percent);

/*
 * Whether choosing @chosen spent the second chance of @cand: the caller then remembers it as
 * `requeued` and clears the access bits of its blocks, so that heat has to be earned again.
 */
bool evict_requeued(const struct evict_candidate *cand, const struct evict_candidate *chosen);

/*
 * Whether a live block of a victim is copied on, into main, rather than dropped. @hot: read again
 * after the read it was fetched for (for a prefetched block: after its first demand read).
 * @probation: the victim was on probation. @prefetched_unused: no demand read yet.
 */
bool evict_keep_block(bool hot, bool probation, bool prefetched_unused);

/* Fingerprints of evicted groups of blocks; the size of a group is the caller's choice. */
struct evict_ghost {
	uint32_t *slots; /* lent */
	uint32_t bucket_mask;
};

#define EVICT_GHOST_WAYS 4
#define EVICT_GHOST_MIN_BYTES (EVICT_GHOST_WAYS * sizeof(uint32_t))

/*
 * Begin an empty list in @memory (lent until the list is no longer used; aligned for uint32_t;
 * @bytes >= EVICT_GHOST_MIN_BYTES, the largest power of two in it is used). Four bytes remember
 * one group; as many groups as main holds are enough.
 */
void evict_ghost_init(struct evict_ghost *ghost, void *memory, size_t bytes);

/* Remember @group as evicted just now; the oldest of its bucket is forgotten. */
void evict_ghost_add(struct evict_ghost *ghost, uint64_t group);

/*
 * Whether @group was evicted recently; if so it is forgotten here: the caller puts it into
 * main. Wrong with a chance of 1 in 2^30.
 */
bool evict_ghost_hit(struct evict_ghost *ghost, uint64_t group);

#endif
