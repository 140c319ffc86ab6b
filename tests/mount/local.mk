MOUNT_TESTS = tests/mount/mount-test tests/mount/io-test tests/mount/consumers-test
MOUNT_TEST_COMMON = tests/mount/fixture.c tests/mount/fixture.h tests/mount/testdev.c tests/mount/testdev.h

check_PROGRAMS += $(MOUNT_TESTS)
TESTS += $(MOUNT_TESTS)
tests_mount_mount_test_SOURCES = tests/mount/mount-test.c $(MOUNT_TEST_COMMON)
tests_mount_mount_test_CFLAGS = $(AM_CFLAGS) $(CHECK_CFLAGS)
tests_mount_mount_test_LDADD = $(TEST_LIBS)
tests_mount_io_test_SOURCES = tests/mount/io-test.c $(MOUNT_TEST_COMMON)
tests_mount_io_test_CFLAGS = $(AM_CFLAGS) $(CHECK_CFLAGS)
tests_mount_io_test_LDADD = $(TEST_LIBS)
tests_mount_consumers_test_SOURCES = tests/mount/consumers-test.c $(MOUNT_TEST_COMMON)
tests_mount_consumers_test_CFLAGS = $(AM_CFLAGS) $(CHECK_CFLAGS)
tests_mount_consumers_test_LDADD = $(TEST_LIBS)
