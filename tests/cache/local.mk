# Tests of cache/
UNIT_TESTS += \
	tests/cache/damage-test \
	tests/cache/format-test \
	tests/cache/identity-test \
	tests/cache/index-test \
	tests/cache/interleave-test \
	tests/cache/lio-test \
	tests/cache/map-test \
	tests/cache/model-test \
	tests/cache/nth-test \
	tests/cache/plan-test \
	tests/cache/recorder-test \
	tests/cache/schedules-test \
	tests/cache/sim-test \
	tests/cache/threads-test
cache_rig = tests/cache/rig.c tests/cache/rig.h
tests_cache_damage_test_SOURCES = tests/cache/damage-test.c $(cache_rig)
tests_cache_interleave_test_SOURCES = tests/cache/interleave-test.c $(cache_rig)
tests_cache_model_test_SOURCES = tests/cache/model-test.c tests/cache/model.c tests/cache/model.h
tests_cache_nth_test_SOURCES = tests/cache/nth-test.c $(cache_rig) $(fail_sources)
tests_cache_schedules_test_SOURCES = tests/cache/schedules-test.c \
	tests/cache/order.c tests/cache/order.h tests/cache/schedule.c tests/cache/schedule.h

# The real program's directories: read by a second reader, and cut by a power failure.
cache_scripts = tests/cache/format-oracle.sh tests/cache/power-cut.sh tests/cache/far-order.sh
dist_check_SCRIPTS += $(cache_scripts)
TESTS += $(cache_scripts)
EXTRA_DIST += tests/cache/cut.py tests/cache/reader.py tests/cache/scribble.py tests/cache/spoil.py
