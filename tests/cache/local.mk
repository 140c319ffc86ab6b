# Tests of cache/
check_PROGRAMS += tests/cache/sim-test
TESTS += tests/cache/sim-test
tests_cache_sim_test_SOURCES = tests/cache/sim-test.c
tests_cache_sim_test_CFLAGS = $(AM_CFLAGS) $(CHECK_CFLAGS)
tests_cache_sim_test_LDADD = $(SIM_LIBS) $(TEST_LIBS)
