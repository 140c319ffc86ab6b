# Tests of the whole on real parts: a private tgtd, namespaces with an emulated line, FUSE, loop, fio.
INTEGRATION_TESTS = \
	tests/integration/cold-read.sh \
	tests/integration/consumers.sh \
	tests/integration/discover.sh \
	tests/integration/ext4-loop.sh \
	tests/integration/failpoints.sh \
	tests/integration/far-copies.sh \
	tests/integration/hostile.sh \
	tests/integration/http-origin.sh \
	tests/integration/iscsi-auth.sh \
	tests/integration/iscsi-basic.sh \
	tests/integration/iscsi-outage.sh \
	tests/integration/kill9.sh \
	tests/integration/life.sh \
	tests/integration/places.sh \
	tests/integration/refusals.sh \
	tests/integration/small-cache.sh \
	tests/integration/status.sh \
	tests/integration/user.sh \
	tests/integration/warm-drop.sh
dist_check_SCRIPTS += $(INTEGRATION_TESTS)
EXTRA_DIST += tests/integration/copies.py
TESTS += $(INTEGRATION_TESTS)

# All faults at random, for as long as one likes; soak.sh is a short one, not run by check yet.
dist_check_SCRIPTS += tests/soak tests/integration/soak.sh
# Writes, and says whether what was acknowledged is there.
check_PROGRAMS += tests/integration/acked
tests_integration_acked_SOURCES = tests/integration/acked.c
