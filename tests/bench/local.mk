# Tests of bench/
if HAVE_CHECK
check_PROGRAMS += tests/bench/wan_link-test
TESTS += tests/bench/wan_link-test
tests_bench_wan_link_test_SOURCES = tests/bench/wan_link-test.c bench/wan_link.c
endif
dist_check_SCRIPTS += tests/bench/wan-test.sh
TESTS += tests/bench/wan-test.sh
