# Unit tests mirror the tree: tests/FOLDER/MODULE-test.c, one Check program per module. A program of
# one source needs no line but its name.
if HAVE_CHECK
LDADD = $(SIM_LIBS) $(NB_LIBS) $(CHECK_LIBS)
include tests/lib/local.mk
include tests/core/local.mk
include tests/policy/local.mk
include tests/transport/local.mk
include tests/cache/local.mk
include tests/mount/local.mk
include tests/control/local.mk
include tests/cmd/local.mk
check_PROGRAMS += $(UNIT_TESTS)
TESTS += $(UNIT_TESTS)
endif
include tests/lib/shell.mk
include tests/bench/local.mk
include tests/integration/local.mk
