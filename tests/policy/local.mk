# Tests of policy/
UNIT_TESTS += \
	tests/policy/backoff-test \
	tests/policy/evict-test \
	tests/policy/readahead-test \
	tests/policy/readahead_link-test \
	tests/policy/window-test \
	tests/policy/writeback-test
EXTRA_DIST += tests/policy/random.h
