# The shell library of the integration tests, and its own test.
EXTRA_DIST += tests/lib/functions.sh tests/lib/net.sh tests/lib/tgtd.sh tests/lib/fake.sh \
	tests/lib/fake_target.py tests/lib/json_key.py \
	tests/lib/net_probe.py tests/lib/lsan.supp tests/lib/tsan.supp
dist_check_SCRIPTS += tests/lib/functions-test.sh
TESTS += tests/lib/functions-test.sh
