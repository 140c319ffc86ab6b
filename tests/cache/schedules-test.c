// SPDX-License-Identifier: Apache-2.0
/*
 * Deterministic simulation, many times: see schedule.h. It says at the end how often each kind of
 * cut was made, and fails where one never was.
 *
 *	schedules-test [--runs N] [--first SEED]   that many schedules
 *	schedules-test --seed SEED                 one of them, and all that happens in it
 *
 * SCHEDULES=N in the environment is --runs N: where a sanitizer is slow.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/log.h"
#include "core/parse.h"
#include "core/list.h"
#include "tests/cache/schedule.h"

#define RUNS 100000u
/* A killed cache leaves memory behind: a process runs so many and ends. */
#define PER_PROCESS 1000u

struct shared {
	uint64_t seed; /* of the schedule under way */
	struct schedule_result sum;
};

static const char *const cut_name[SCHEDULE_CUTS] = {
	[SCHEDULE_KILL] = "kill -9",
	[SCHEDULE_POWER] = "power cut here",
	[SCHEDULE_LINK] = "link cut",
	[SCHEDULE_TARGET] = "power cut of the target",
	[SCHEDULE_KILL_TARGET] = "kill -9 and power cut of the target",
	[SCHEDULE_POWER_TARGET] = "power cut of both",
};

/* True: all ended well. */
static bool run_some(struct shared *sh, uint64_t first, uint64_t n)
{
	int status = 0;
	pid_t pid;

	fflush(NULL);
	pid = fork();
	if (pid < 0) {
		perror("fork");
		return false;
	}
	if (pid == 0) {
		for (sh->seed = first; sh->seed < first + n; sh->seed++)
			schedule_run(sh->seed, false, &sh->sum);
		_exit(0);
	}
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return true;
	printf("failed: --seed %" PRIu64 " shows it\n", sh->seed);
	return false;
}

static bool happened(const char *what, uint64_t n)
{
	printf("  %9" PRIu64 " %s\n", n, what);
	if (!n)
		printf("failed: that never happened\n");
	return n > 0;
}

/* Up to which step each kind of cut was made behind each. */
static uint64_t every_step(const struct schedule_result *r)
{
	for (uint64_t i = 1; i < SCHEDULE_STEPS; i++)
		for (unsigned k = 0; k < SCHEDULE_CUTS; k++)
			if (!r->at[k][i])
				return i - 1;
	return SCHEDULE_STEPS - 1;
}

static bool report(const struct schedule_result *r, uint64_t runs, uint64_t ns)
{
	bool all = true;

	printf("%" PRIu64 " schedules, %" PRIu64 " steps, %" PRIu64 " reads, %" PRIu64
	       " changes, %" PRIu64 " flushes in %.1f s (%.0f a second)\n",
	       runs, r->steps, r->reads, r->writes, r->flushes, (double)ns / NSEC_PER_SEC,
	       (double)runs * NSEC_PER_SEC / (double)MAX(ns, (uint64_t)1));
	for (unsigned k = 0; k < SCHEDULE_CUTS; k++)
		all &= happened(cut_name[k], r->cut[k]);
	all &= happened("of the cuts here while starting", r->starting);
	all &= happened("while stopping", r->stopping);
	all &= happened("before the start after another was through", r->again);
	all &= happened("records of the log that a power cut took", r->voided);
	all &= happened("volatile changes at hand when a target lost power", r->unsynced_lost);
	all &= happened("ghosts", r->ghosts);
	all &= happened("log segments taken again", r->reuses);
	all &= happened("reads that met a change under way", r->raced);
	all &= happened("epochs", r->epochs);
	all &= happened("restarts in good order", r->restarts);
	all &= happened("schedules that ended before their cut", r->none);
	printf("each kind of cut behind each of the first %" PRIu64 " steps\n", every_step(r));
	return all;
}

static uint64_t number(const char *text)
{
	uint64_t n;

	if (parse_u64(text, &n) == 0)
		return n;
	fprintf(stderr, "not a number: %s\n", text);
	exit(2);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "runs", required_argument, NULL, 'r' },
		{ "first", required_argument, NULL, 'f' },
		{ "seed", required_argument, NULL, 's' },
		{ 0 },
	};
	uint64_t runs = RUNS, first = 1, began = clock_monotonic_ns();
	struct shared *sh;
	int option;

	if (getenv("SCHEDULES"))
		runs = number(getenv("SCHEDULES"));
	log_open("stderr", LOG_LEVEL_ERROR, NULL);
	/* Freed memory stays with the process: each schedule takes the same again. */
	mallopt(M_MMAP_THRESHOLD, 256 << 20);
	mallopt(M_TRIM_THRESHOLD, 1 << 30);
	sh = mmap(NULL, sizeof(*sh), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (sh == MAP_FAILED) {
		perror("mmap");
		return 1;
	}
	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (option == 'r') {
			runs = number(optarg);
		} else if (option == 'f') {
			first = number(optarg);
		} else if (option == 's') {
			setvbuf(stdout, NULL, _IOLBF, 0);
			schedule_run(number(optarg), true, &sh->sum);
			return 0;
		} else {
			return 2;
		}
	}
	for (uint64_t i = 0; i < runs; i += PER_PROCESS)
		if (!run_some(sh, first + i, MIN((uint64_t)PER_PROCESS, runs - i)))
			return 1;
	return report(&sh->sum, runs, clock_monotonic_ns() - began) ? 0 : 1;
}
