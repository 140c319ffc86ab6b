// SPDX-License-Identifier: Apache-2.0
/* The end of a test program's main(). */
#ifndef TESTS_LIB_RUN_H
#define TESTS_LIB_RUN_H

#include <check.h>
#include <stdio.h>
#include <stdlib.h>

/*
 * Run @suite, which is taken, print what came out (CK_VERBOSITY says how much) and return the exit
 * status for main().
 */
static inline int run_suite(Suite *suite)
{
	SRunner *runner = srunner_create(suite);
	int failed;

	/* What tests print keeps its place among what Check prints. */
	setvbuf(stdout, NULL, _IOLBF, 0);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

#endif
