// SPDX-License-Identifier: Apache-2.0
/*
 * The model of the cache for random tests: a cache over a simulated disk and a
 * simulated far device, driven by the dice of one seed and compared with a byte
 * array. Up to MODEL_OPS requests are in flight; no two of them overlap in bytes,
 * but they may meet in one block, so every byte has one right value.
 *
 * After kill -9 every acknowledged change must be there. After a power cut the volume must equal
 * the state at the last completed flush plus a prefix of the changes acknowledged since, in their
 * order.
 */
#ifndef TESTS_CACHE_MODEL_H
#define TESTS_CACHE_MODEL_H

#include <stdbool.h>
#include <stdint.h>

enum model_cut {
	MODEL_KILL,   /* kill -9 of the process */
	MODEL_POWER,  /* power cut of its machine */
	MODEL_LINK,   /* the session is lost, and back at once */
	MODEL_TARGET, /* likewise, and the target forgot what was volatile */
	MODEL_CUTS
};

struct model_config {
	uint64_t seed;
	uint64_t size_bytes;    /* of the volume */
	uint64_t limit_bytes;   /* of the cache */
	unsigned steps;         /* random actions */
	unsigned crash_once_in; /* one action in so many is a kill, a power cut or a restart; 0:
				   none */
	unsigned fault_once_in; /* one action in so many sets a passing fault of the far device; 0:
				   none */
	unsigned cut_once_in;   /* one in so many cuts the link, or restores it; 0: none */
	uint64_t cut_at;        /* behind this step of the schedule, from 1, comes @cut; 0: none */
	enum model_cut cut;
	bool adaptive; /* epochs are merged as soon as more than one waits */
	bool target;   /* FLUSH and FUA wait for the target */
	bool discard;
	bool no_readahead;
};

struct model_result {
	unsigned reads, writes, flushes, kills, power_cuts, restarts, link_cuts;
	uint64_t zeroes;  /* ranges said to be zero, and found so */
	uint64_t steps;   /* of the schedule, those in which the cache was opened not counted */
	uint64_t evicted; /* far reads: how often data came back that had been here */
};

/* Run it; any difference aborts with the seed. */
struct model_result model_run(const struct model_config *config);

#endif
