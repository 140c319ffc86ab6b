// SPDX-License-Identifier: Apache-2.0
/* The end of a test program's main(). */
#ifndef TESTS_LIB_RUN_H
#define TESTS_LIB_RUN_H

#include <check.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>

/*
 * TEST_SHARE=N in the environment: where a sanitizer is slow, a test that tries many seeds or
 * places tries every N-th. At least 1.
 */
static inline unsigned run_share(void)
{
	const char *text = getenv("TEST_SHARE");
	int n = text ? atoi(text) : 1;

	return n > 1 ? (unsigned)n : 1;
}

/*
 * Run @suite, which is taken, print what came out (CK_VERBOSITY says how much) and return the exit
 * status for main().
 */
static inline int run_suite_as(Suite *suite, enum fork_status fork_status)
{
	SRunner *runner = srunner_create(suite);
	int failed;

	srunner_set_fork_status(runner, fork_status);

	/*
	 * Images of whole disks are copied and dropped all the time: kept in the heap they cost no
	 * page faults, which are dear in a virtual machine (the model took four times as long).
	 */
	mallopt(M_MMAP_THRESHOLD, 1 << 30);
	mallopt(M_TRIM_THRESHOLD, 1 << 30);
	/* What tests print keeps its place among what Check prints. */
	setvbuf(stdout, NULL, _IOLBF, 0);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

static inline int run_suite(Suite *suite)
{
	return run_suite_as(suite, CK_FORK_GETENV);
}

/*
 * The same in this one process, unless CK_FORK says otherwise: for hundreds of simulated lives,
 * which cost less than a fork, cannot hang unnoticed (the simulator counts steps) and name their
 * seed when they die.
 */
static inline int run_suite_here(Suite *suite)
{
	return run_suite_as(suite, getenv("CK_FORK") ? CK_FORK_GETENV : CK_NOFORK);
}

#endif
