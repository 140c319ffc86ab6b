check_PROGRAMS += tests/transport/iscsi_tgtd-test
TESTS += tests/transport/iscsi_tgtd-test
tests_transport_iscsi_tgtd_test_SOURCES = tests/transport/iscsi_tgtd-test.c \
	tests/transport/tgt.c tests/transport/tgt.h
tests_transport_iscsi_tgtd_test_CFLAGS = $(AM_CFLAGS) $(CHECK_CFLAGS)
tests_transport_iscsi_tgtd_test_LDADD = $(TEST_LIBS)

check_PROGRAMS += tests/transport/iscsi_scsi-test
TESTS += tests/transport/iscsi_scsi-test
tests_transport_iscsi_scsi_test_SOURCES = tests/transport/iscsi_scsi-test.c
tests_transport_iscsi_scsi_test_CFLAGS = $(AM_CFLAGS) $(CHECK_CFLAGS)
tests_transport_iscsi_scsi_test_LDADD = $(TEST_LIBS)

check_PROGRAMS += tests/transport/iscsi_window-test
TESTS += tests/transport/iscsi_window-test
tests_transport_iscsi_window_test_SOURCES = tests/transport/iscsi_window-test.c
tests_transport_iscsi_window_test_CFLAGS = $(AM_CFLAGS) $(CHECK_CFLAGS)
tests_transport_iscsi_window_test_LDADD = $(TEST_LIBS)
