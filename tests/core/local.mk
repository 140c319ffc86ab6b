check_PROGRAMS += tests/core/parse-test
TESTS += tests/core/parse-test
tests_core_parse_test_SOURCES = tests/core/parse-test.c
tests_core_parse_test_CFLAGS = $(AM_CFLAGS) $(CHECK_CFLAGS)
tests_core_parse_test_LDADD = $(TEST_LIBS)

dist_check_SCRIPTS += tests/core/contract-test.sh tests/core/layering-test.sh
TESTS += tests/core/contract-test.sh tests/core/layering-test.sh
