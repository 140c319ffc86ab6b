# Tests of control/
check_PROGRAMS += tests/control/server-test
TESTS += tests/control/server-test
tests_control_server_test_SOURCES = tests/control/server-test.c
tests_control_server_test_CFLAGS = $(AM_CFLAGS) $(CHECK_CFLAGS)
tests_control_server_test_LDADD = $(TEST_LIBS)
