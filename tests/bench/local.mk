# Tests of bench/
if HAVE_CHECK
check_PROGRAMS += tests/bench/wan_link-test
TESTS += tests/bench/wan_link-test
tests_bench_wan_link_test_SOURCES = tests/bench/wan_link-test.c bench/wan_link.c
tests_bench_wan_link_test_CFLAGS = $(AM_CFLAGS) $(CHECK_CFLAGS)
tests_bench_wan_link_test_LDADD = $(CHECK_LIBS)
endif
dist_check_SCRIPTS += tests/bench/wan-test.sh
TESTS += tests/bench/wan-test.sh
