# Tests of cmd/
UNIT_TESTS += tests/cmd/options-test
tests_cmd_options_test_SOURCES = tests/cmd/options-test.c cmd/options.c cmd/options.h

# Scripts find the program in the build tree, where make runs them.
CMD_TESTS = \
	tests/cmd/mount.sh \
	tests/cmd/offline.sh \
	tests/cmd/output.sh \
	tests/cmd/trouble.sh \
	tests/cmd/usage.sh
dist_check_SCRIPTS += $(CMD_TESTS)
TESTS += $(CMD_TESTS)
