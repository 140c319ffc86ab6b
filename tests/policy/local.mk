# Tests of policy/
check_PROGRAMS += tests/policy/backoff-test \
	tests/policy/evict-test \
	tests/policy/readahead-test \
	tests/policy/readahead_link-test \
	tests/policy/window-test \
	tests/policy/writeback-test
TESTS += tests/policy/backoff-test \
	tests/policy/evict-test \
	tests/policy/readahead-test \
	tests/policy/readahead_link-test \
	tests/policy/window-test \
	tests/policy/writeback-test
tests_policy_backoff_test_SOURCES = tests/policy/backoff-test.c tests/policy/random.h
tests_policy_backoff_test_CFLAGS = $(AM_CFLAGS) $(CHECK_CFLAGS)
tests_policy_backoff_test_LDADD = $(TEST_LIBS)
tests_policy_evict_test_SOURCES = tests/policy/evict-test.c tests/policy/random.h
tests_policy_evict_test_CFLAGS = $(AM_CFLAGS) $(CHECK_CFLAGS)
tests_policy_evict_test_LDADD = $(TEST_LIBS)
tests_policy_readahead_test_SOURCES = tests/policy/readahead-test.c tests/policy/random.h
tests_policy_readahead_test_CFLAGS = $(AM_CFLAGS) $(CHECK_CFLAGS)
tests_policy_readahead_test_LDADD = $(TEST_LIBS)
tests_policy_readahead_link_test_SOURCES = tests/policy/readahead_link-test.c tests/policy/random.h
tests_policy_readahead_link_test_CFLAGS = $(AM_CFLAGS) $(CHECK_CFLAGS)
tests_policy_readahead_link_test_LDADD = $(TEST_LIBS)
tests_policy_window_test_SOURCES = tests/policy/window-test.c
tests_policy_window_test_CFLAGS = $(AM_CFLAGS) $(CHECK_CFLAGS)
tests_policy_window_test_LDADD = $(TEST_LIBS)
tests_policy_writeback_test_SOURCES = tests/policy/writeback-test.c tests/policy/random.h
tests_policy_writeback_test_CFLAGS = $(AM_CFLAGS) $(CHECK_CFLAGS)
tests_policy_writeback_test_LDADD = $(TEST_LIBS)
