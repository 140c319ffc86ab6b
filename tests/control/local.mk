# Tests of control/
UNIT_TESTS += tests/control/server-test
