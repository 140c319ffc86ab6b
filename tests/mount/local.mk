MOUNT_TEST_COMMON = tests/mount/fixture.c tests/mount/fixture.h tests/mount/testdev.c tests/mount/testdev.h

check_PROGRAMS += tests/mount/io-test
TESTS += tests/mount/io-test
tests_mount_io_test_SOURCES = tests/mount/io-test.c $(MOUNT_TEST_COMMON)
tests_mount_io_test_CFLAGS = $(AM_CFLAGS) $(CHECK_CFLAGS)
tests_mount_io_test_LDADD = $(TEST_LIBS)
