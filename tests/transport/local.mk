# Tests of transport/
UNIT_TESTS += \
	tests/transport/credentials-test \
	tests/transport/file-test \
	tests/transport/http-test \
	tests/transport/iscsi_io-test \
	tests/transport/iscsi_pr-test \
	tests/transport/iscsi_recovery-test \
	tests/transport/iscsi_reserve-test \
	tests/transport/iscsi_scsi-test \
	tests/transport/iscsi_tgtd-test \
	tests/transport/leaf-test \
	tests/transport/url-test
tests_transport_http_test_SOURCES = tests/transport/http-test.c \
	tests/transport/http-server.c tests/transport/http-server.h

# What runs on a private tgtd shares a rig.
iscsi_rig = tests/transport/iscsi_rig.c tests/transport/iscsi_rig.h \
	tests/transport/tgt.c tests/transport/tgt.h
tests_transport_iscsi_tgtd_test_SOURCES = tests/transport/iscsi_tgtd-test.c $(iscsi_rig)
tests_transport_iscsi_recovery_test_SOURCES = tests/transport/iscsi_recovery-test.c $(iscsi_rig)
tests_transport_iscsi_reserve_test_SOURCES = tests/transport/iscsi_reserve-test.c $(iscsi_rig)
