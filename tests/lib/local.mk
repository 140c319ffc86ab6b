# What tests share: the simulation kit, a scratch directory, the end of main().
check_LIBRARIES += tests/lib/libsim.a
tests_lib_libsim_a_SOURCES = \
	tests/lib/run.h \
	tests/lib/scratch.c tests/lib/scratch.h \
	tests/lib/sim.c tests/lib/sim.h \
	tests/lib/simdisk.c tests/lib/simdisk.h \
	tests/lib/simdisk_crash.c tests/lib/simdisk_impl.h \
	tests/lib/simfar.c tests/lib/simfar.h \
	tests/lib/simimage.c tests/lib/simimage.h \
	tests/lib/simindex.c tests/lib/simindex.h
SIM_LIBS = tests/lib/libsim.a
# Not in the library, which a program's every read() and malloc() would find it in.
fail_sources = tests/lib/fail.c tests/lib/fail.h

# A power cut of a real directory: recorder mounts a pass-through file system, replay cuts.
check_PROGRAMS += tests/lib/recorder tests/lib/replay
tests_lib_recorder_SOURCES = tests/lib/recorder.c tests/lib/record.h
tests_lib_recorder_LDADD = $(FUSE_LIBS)
tests_lib_replay_SOURCES = tests/lib/replay.c tests/lib/record.h
tests_lib_replay_LDADD = $(SIM_LIBS) $(NB_LIBS)
