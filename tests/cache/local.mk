# Tests of cache/
CACHE_TESTS = tests/cache/damage-test tests/cache/format-test tests/cache/identity-test \
	tests/cache/index-test tests/cache/interleave-test tests/cache/lio-test \
	tests/cache/map-test tests/cache/model-test tests/cache/nth-test \
	tests/cache/plan-test tests/cache/recorder-test tests/cache/sim-test \
	tests/cache/threads-test
check_PROGRAMS += $(CACHE_TESTS)
TESTS += $(CACHE_TESTS)

tests_cache_identity_test_SOURCES = tests/cache/identity-test.c
tests_cache_identity_test_CFLAGS = $(AM_CFLAGS) $(CHECK_CFLAGS)
tests_cache_identity_test_LDADD = $(SIM_LIBS) $(TEST_LIBS)

tests_cache_index_test_SOURCES = tests/cache/index-test.c
tests_cache_index_test_CFLAGS = $(AM_CFLAGS) $(CHECK_CFLAGS)
tests_cache_index_test_LDADD = $(SIM_LIBS) $(TEST_LIBS)

tests_cache_lio_test_SOURCES = tests/cache/lio-test.c
tests_cache_lio_test_CFLAGS = $(AM_CFLAGS) $(CHECK_CFLAGS)
tests_cache_lio_test_LDADD = $(SIM_LIBS) $(TEST_LIBS)

tests_cache_recorder_test_SOURCES = tests/cache/recorder-test.c
tests_cache_recorder_test_CFLAGS = $(AM_CFLAGS) $(CHECK_CFLAGS)
tests_cache_recorder_test_LDADD = $(SIM_LIBS) $(TEST_LIBS)

tests_cache_sim_test_SOURCES = tests/cache/sim-test.c
tests_cache_sim_test_CFLAGS = $(AM_CFLAGS) $(CHECK_CFLAGS)
tests_cache_sim_test_LDADD = $(SIM_LIBS) $(TEST_LIBS)

tests_cache_model_test_SOURCES = tests/cache/model-test.c tests/cache/model.c tests/cache/model.h
tests_cache_model_test_CFLAGS = $(AM_CFLAGS) $(CHECK_CFLAGS)
tests_cache_model_test_LDADD = $(SIM_LIBS) $(TEST_LIBS)

tests_cache_format_test_SOURCES = tests/cache/format-test.c
tests_cache_format_test_CFLAGS = $(AM_CFLAGS) $(CHECK_CFLAGS)
tests_cache_format_test_LDADD = $(SIM_LIBS) $(TEST_LIBS)

tests_cache_map_test_SOURCES = tests/cache/map-test.c
tests_cache_map_test_CFLAGS = $(AM_CFLAGS) $(CHECK_CFLAGS)
tests_cache_map_test_LDADD = $(SIM_LIBS) $(TEST_LIBS)

tests_cache_plan_test_SOURCES = tests/cache/plan-test.c
tests_cache_plan_test_CFLAGS = $(AM_CFLAGS) $(CHECK_CFLAGS)
tests_cache_plan_test_LDADD = $(SIM_LIBS) $(TEST_LIBS)

tests_cache_damage_test_SOURCES = tests/cache/damage-test.c tests/cache/rig.c tests/cache/rig.h
tests_cache_damage_test_CFLAGS = $(AM_CFLAGS) $(CHECK_CFLAGS)
tests_cache_damage_test_LDADD = $(SIM_LIBS) $(TEST_LIBS)

tests_cache_interleave_test_SOURCES = tests/cache/interleave-test.c tests/cache/rig.c tests/cache/rig.h
tests_cache_interleave_test_CFLAGS = $(AM_CFLAGS) $(CHECK_CFLAGS)
tests_cache_interleave_test_LDADD = $(SIM_LIBS) $(TEST_LIBS)

tests_cache_nth_test_SOURCES = tests/cache/nth-test.c tests/cache/rig.c tests/cache/rig.h
tests_cache_nth_test_CFLAGS = $(AM_CFLAGS) $(CHECK_CFLAGS)
tests_cache_nth_test_LDADD = $(SIM_LIBS) $(TEST_LIBS)

tests_cache_threads_test_SOURCES = tests/cache/threads-test.c
tests_cache_threads_test_CFLAGS = $(AM_CFLAGS) $(CHECK_CFLAGS)
tests_cache_threads_test_LDADD = $(SIM_LIBS) $(TEST_LIBS)

# The real program's directories: read by a second reader, and cut by a power failure.
dist_check_SCRIPTS += tests/cache/format-oracle.sh
TESTS += tests/cache/format-oracle.sh
EXTRA_DIST += tests/cache/reader.py tests/cache/scribble.py tests/cache/spoil.py
dist_check_SCRIPTS += tests/cache/power-cut.sh
TESTS += tests/cache/power-cut.sh
EXTRA_DIST += tests/cache/cut.py
dist_check_SCRIPTS += tests/cache/far-order.sh
TESTS += tests/cache/far-order.sh
