# Tests of the whole on real parts: a private tgtd, namespaces with an emulated line, FUSE, loop, fio.
INTEGRATION_TESTS = \
	tests/integration/iscsi-auth.sh \
	tests/integration/iscsi-basic.sh
dist_check_SCRIPTS += $(INTEGRATION_TESTS)
TESTS += $(INTEGRATION_TESTS)
