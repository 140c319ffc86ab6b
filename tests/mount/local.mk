# Tests of mount/
UNIT_TESTS += tests/mount/consumers-test tests/mount/io-test tests/mount/mount-test
mount_rig = tests/mount/fixture.c tests/mount/fixture.h tests/mount/testdev.c tests/mount/testdev.h
tests_mount_consumers_test_SOURCES = tests/mount/consumers-test.c $(mount_rig)
tests_mount_io_test_SOURCES = tests/mount/io-test.c $(mount_rig)
tests_mount_mount_test_SOURCES = tests/mount/mount-test.c $(mount_rig)
