check_PROGRAMS += tests/core/block-test
TESTS += tests/core/block-test
tests_core_block_test_SOURCES = tests/core/block-test.c
tests_core_block_test_CFLAGS = $(AM_CFLAGS) $(CHECK_CFLAGS)
tests_core_block_test_LDADD = $(TEST_LIBS)

check_PROGRAMS += tests/core/crc32c-test
TESTS += tests/core/crc32c-test
tests_core_crc32c_test_SOURCES = tests/core/crc32c-test.c
tests_core_crc32c_test_CFLAGS = $(AM_CFLAGS) $(CHECK_CFLAGS)
tests_core_crc32c_test_LDADD = $(TEST_LIBS)

check_PROGRAMS += tests/core/log-test
TESTS += tests/core/log-test
tests_core_log_test_SOURCES = tests/core/log-test.c
tests_core_log_test_CFLAGS = $(AM_CFLAGS) $(CHECK_CFLAGS)
tests_core_log_test_LDADD = $(TEST_LIBS)

check_PROGRAMS += tests/core/parse-test
TESTS += tests/core/parse-test
tests_core_parse_test_SOURCES = tests/core/parse-test.c
tests_core_parse_test_CFLAGS = $(AM_CFLAGS) $(CHECK_CFLAGS)
tests_core_parse_test_LDADD = $(TEST_LIBS)
check_PROGRAMS += tests/core/option-test
TESTS += tests/core/option-test
tests_core_option_test_SOURCES = tests/core/option-test.c
tests_core_option_test_CFLAGS = $(AM_CFLAGS) $(CHECK_CFLAGS)
tests_core_option_test_LDADD = $(TEST_LIBS)

check_PROGRAMS += tests/core/sched-test
TESTS += tests/core/sched-test
tests_core_sched_test_SOURCES = tests/core/sched-test.c
tests_core_sched_test_CFLAGS = $(AM_CFLAGS) $(CHECK_CFLAGS)
tests_core_sched_test_LDADD = $(TEST_LIBS)

dist_check_SCRIPTS += tests/core/contract-test.sh tests/core/layering-test.sh
TESTS += tests/core/contract-test.sh tests/core/layering-test.sh
