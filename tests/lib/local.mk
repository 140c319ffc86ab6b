# What tests share: the simulation kit. A test that uses it puts $(SIM_LIBS) before $(TEST_LIBS).
check_LIBRARIES += tests/lib/libsim.a
tests_lib_libsim_a_SOURCES = \
	tests/lib/sim.c tests/lib/sim.h \
	tests/lib/simdisk.c tests/lib/simdisk.h \
	tests/lib/simfar.c tests/lib/simfar.h \
	tests/lib/simimage.c tests/lib/simimage.h \
	tests/lib/simindex.c tests/lib/simindex.h
SIM_LIBS = tests/lib/libsim.a
