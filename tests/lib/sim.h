// SPDX-License-Identifier: Apache-2.0
/*
 * Deterministic simulation: one thread, one seed, and every order of events a
 * choice of that seed. Here: the random numbers and the scheduler with its fake
 * clock. simdisk.h brings a local disk that forgets, simindex.h an index, simfar.h a far device.
 *
 * A failing run is repeated with its seed: sim_run_until() and sim_die() print it.
 * Nothing here may be called from a second thread.
 */
#ifndef TESTS_LIB_SIM_H
#define TESTS_LIB_SIM_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "core/list.h"
#include "core/sched.h"

struct sim;

/* The seed also chooses whether new, old or any work is preferred. Aborts when out of memory. */
struct sim *sim_create(uint64_t seed);

/* Free it; disks and far devices of it go first. NULL is fine. */
void sim_destroy(struct sim *sim);

/* The scheduler to hand to the code under test; sched_destroy() of it does nothing. */
struct sched *sim_sched(struct sim *sim);

uint64_t sim_seed(const struct sim *sim);

/* Uniform 64 bits. */
uint64_t sim_random(struct sim *sim);
/* Uniform in 0..@n - 1; @n >= 1. */
uint64_t sim_below(struct sim *sim, uint64_t n);
/* True once in @n on average; @n >= 1. */
bool sim_once_in(struct sim *sim, uint64_t n);

/* Run one runnable task, timer or event of the kit. False: nothing is runnable now. */
bool sim_step(struct sim *sim);

/* Move the clock to the next timer. False: no timer is armed. */
bool sim_advance(struct sim *sim);

/*
 * Step, and advance where nothing runs, until @cond(@ctx). False, with a line on stderr that
 * tells the seed: nothing is left to run, or the step limit was reached (sim_set_limit()).
 */
bool sim_run_until(struct sim *sim, bool (*cond)(void *ctx), void *ctx);

/* Run what is runnable without moving the clock to timers. False as above. */
bool sim_run_idle(struct sim *sim);

/* Steps that one sim_run_until() may take; 2,000,000 at first. */
void sim_set_limit(struct sim *sim, uint64_t steps);

/* Steps since sim_create(): a place to kill at. */
uint64_t sim_steps(const struct sim *sim);

/*
 * kill -9 of everything above: drop all tasks and timers; open disks, indexes and far devices of
 * this sim are killed as simdisk_kill(), simindex_kill() and simfar_kill() say, unless that was
 * done. The memory of what was dropped must still be there; nothing of it is looked at afterwards.
 */
void sim_reset(struct sim *sim);

/*
 * Keep an abandoned object (and what it points to) reachable to the end of the process, so that a
 * leak checker stays quiet about what the simulated kill left behind.
 */
void sim_bury(void *root);

/* Print the message with the seed and abort: for broken rules that the kit finds. */
__attribute__((noreturn, format(printf, 2, 3))) void sim_die(struct sim *sim, const char *fmt, ...);

/*
 * From here on tell @out (NULL: nobody) what happens: sim_trace() is one line, with step and clock.
 * The far device tells of itself; what more there is to tell is the test's.
 */
void sim_set_trace(struct sim *sim, FILE *out);
__attribute__((format(printf, 2, 3))) void sim_trace(struct sim *sim, const char *fmt, ...);

/* Memory or abort. Zeroed. */
void *sim_alloc(size_t bytes);
/* As realloc(), or abort. */
void *sim_realloc(void *old, size_t bytes);
/* This thread is inside the kit: what it asks for is not the code's under test (fail.h). */
extern _Thread_local unsigned sim_own;

/* For the parts of the kit. */

/* Take back a task that was posted; false: it was not pending. */
bool sim_cancel(struct sim *sim, struct task *task);

struct sim_part {
	struct list_node link;
	void (*reset)(struct sim_part *part); /* the process was killed */
};
void sim_join(struct sim *sim, struct sim_part *part);
void sim_leave(struct sim_part *part);

/*
 * An injected fault: operations that match @mask are counted, the @nth (from 1) fails with @error
 * (negative errno), with @always all after it too. nth 0: off.
 */
struct sim_fault {
	unsigned mask;
	uint64_t nth;
	int error;
	bool always;
	uint64_t seen; /* matching operations since it was set */
	uint64_t hits; /* of these, failed */
};
/* Count an operation of the kind @bit: 0 or the error it is to fail with. */
int sim_fault_check(struct sim_fault *f, unsigned bit);

#endif
