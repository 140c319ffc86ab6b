check_PROGRAMS += tests/transport/credentials-test
TESTS += tests/transport/credentials-test
tests_transport_credentials_test_SOURCES = tests/transport/credentials-test.c
tests_transport_credentials_test_CFLAGS = $(AM_CFLAGS) $(CHECK_CFLAGS)
tests_transport_credentials_test_LDADD = $(TEST_LIBS)

check_PROGRAMS += tests/transport/file-test
TESTS += tests/transport/file-test
tests_transport_file_test_SOURCES = tests/transport/file-test.c
tests_transport_file_test_CFLAGS = $(AM_CFLAGS) $(CHECK_CFLAGS)
tests_transport_file_test_LDADD = $(TEST_LIBS)

check_PROGRAMS += tests/transport/http-test
TESTS += tests/transport/http-test
tests_transport_http_test_SOURCES = tests/transport/http-test.c \
	tests/transport/http-server.c tests/transport/http-server.h
tests_transport_http_test_CFLAGS = $(AM_CFLAGS) $(CHECK_CFLAGS)
tests_transport_http_test_LDADD = $(TEST_LIBS)

check_PROGRAMS += tests/transport/leaf-test
TESTS += tests/transport/leaf-test
tests_transport_leaf_test_SOURCES = tests/transport/leaf-test.c
tests_transport_leaf_test_CFLAGS = $(AM_CFLAGS) $(CHECK_CFLAGS)
tests_transport_leaf_test_LDADD = $(TEST_LIBS)

check_PROGRAMS += tests/transport/url-test
TESTS += tests/transport/url-test
tests_transport_url_test_SOURCES = tests/transport/url-test.c
tests_transport_url_test_CFLAGS = $(AM_CFLAGS) $(CHECK_CFLAGS)
tests_transport_url_test_LDADD = $(TEST_LIBS)
# What runs on a private tgtd shares a rig.
iscsi_rig = tests/transport/iscsi_rig.c tests/transport/iscsi_rig.h \
	tests/transport/tgt.c tests/transport/tgt.h

check_PROGRAMS += tests/transport/iscsi_tgtd-test
TESTS += tests/transport/iscsi_tgtd-test
tests_transport_iscsi_tgtd_test_SOURCES = tests/transport/iscsi_tgtd-test.c $(iscsi_rig)
tests_transport_iscsi_tgtd_test_CFLAGS = $(AM_CFLAGS) $(CHECK_CFLAGS)
tests_transport_iscsi_tgtd_test_LDADD = $(TEST_LIBS)

check_PROGRAMS += tests/transport/iscsi_recovery-test
TESTS += tests/transport/iscsi_recovery-test
tests_transport_iscsi_recovery_test_SOURCES = tests/transport/iscsi_recovery-test.c $(iscsi_rig)
tests_transport_iscsi_recovery_test_CFLAGS = $(AM_CFLAGS) $(CHECK_CFLAGS)
tests_transport_iscsi_recovery_test_LDADD = $(TEST_LIBS)

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
