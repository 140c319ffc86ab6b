# Tests of core/
UNIT_TESTS = \
	tests/core/block-test \
	tests/core/crc32c-test \
	tests/core/log-test \
	tests/core/option-test \
	tests/core/parse-test \
	tests/core/sched-test

dist_check_SCRIPTS += tests/core/contract-test.sh tests/core/layering-test.sh
TESTS += tests/core/contract-test.sh tests/core/layering-test.sh
