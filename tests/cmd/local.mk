# Tests of cmd/
UNIT_TESTS += tests/cmd/options-test
tests_cmd_options_test_SOURCES = tests/cmd/options-test.c cmd/options.c cmd/options.h

# Scripts find the program in the build tree, where make runs them.
dist_check_SCRIPTS += tests/cmd/usage.sh tests/cmd/mount.sh tests/cmd/offline.sh tests/cmd/trouble.sh
TESTS += tests/cmd/usage.sh tests/cmd/mount.sh tests/cmd/offline.sh tests/cmd/trouble.sh
