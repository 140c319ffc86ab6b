// SPDX-License-Identifier: Apache-2.0
/*
 * One schedule of the deterministic simulation: the short life of a cache over a simulated disk,
 * index and far device, in which one seed chooses the volume, what the guest does, in which order
 * everything ends, and where which side is cut. After each change of the far side it must be one of
 * the states that strict order allows, and with it what must be durable here by then; each answer
 * must be true; each start must find a prefix of the order of writes with all that was promised.
 * At the end both sides hold all of it.
 */
#ifndef TESTS_CACHE_SCHEDULE_H
#define TESTS_CACHE_SCHEDULE_H

#include <stdbool.h>
#include <stdint.h>

enum schedule_cut {
	SCHEDULE_KILL,         /* kill -9 of the process */
	SCHEDULE_POWER,        /* power cut of its machine */
	SCHEDULE_LINK,         /* the session is lost, and back a little later */
	SCHEDULE_TARGET,       /* likewise, and the target forgot what was volatile */
	SCHEDULE_KILL_TARGET,  /* both at once */
	SCHEDULE_POWER_TARGET, /* everything goes dark */
	SCHEDULE_CUTS
};

/* Steps of a life up to which cuts are counted one by one. */
#define SCHEDULE_STEPS 1024u

struct schedule_result {
	uint64_t cut[SCHEDULE_CUTS];
	uint64_t at[SCHEDULE_CUTS][SCHEDULE_STEPS]; /* the first one of a schedule: behind which
						       step */
	uint64_t none;                              /* schedules that ended before their cut came */
	uint64_t starting;                          /* near cuts while the cache was starting */
	uint64_t stopping;                          /* likewise, stopping */
	uint64_t again;                             /* behind one that no start had got over */
	uint64_t restarts;                          /* stopped and started in good order */
	uint64_t voided;                            /* records that a power cut took from the log */
	uint64_t unsynced_lost;                     /* changes that a target forgot */
	uint64_t ghosts;                            /* changes that came late */
	uint64_t reuses;                            /* log segments emptied and taken again */
	uint64_t raced;                             /* reads that a write overtook */
	uint64_t epochs;                            /* that reached the far side */
	uint64_t writes, reads, flushes;
	uint64_t steps;
};

/* Run the schedule of @seed and add to @sum. What is wrong aborts, naming the seed; with @trace all
 * that happens is told on stdout. */
void schedule_run(uint64_t seed, bool trace, struct schedule_result *sum);

#endif
