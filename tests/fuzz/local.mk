# Fuzz harnesses. A new one: its name here, and its file, as fuzz.h says.
FUZZERS = \
	tests/fuzz/control-fuzz \
	tests/fuzz/credentials-fuzz \
	tests/fuzz/http-fuzz \
	tests/fuzz/identity-fuzz \
	tests/fuzz/index-fuzz \
	tests/fuzz/option-fuzz \
	tests/fuzz/origin-fuzz \
	tests/fuzz/scsi-fuzz \
	tests/fuzz/segment-fuzz \
	tests/fuzz/url-fuzz
tests_fuzz_option_fuzz_SOURCES = tests/fuzz/option-fuzz.c cmd/options.c cmd/options.h
tests_fuzz_scsi_fuzz_LDFLAGS = $(AM_LDFLAGS) -Wl,--wrap=iscsi_conn_run
tests_fuzz_control_fuzz_SOURCES = tests/fuzz/control-fuzz.c \
	cmd/damage.c cmd/damage.h cmd/place.c cmd/place.h cmd/report.c cmd/report.h cmd/serve.c \
	cmd/stack.c cmd/stack.h cmd/warm_job.c cmd/warm_job.h

check_LIBRARIES += tests/fuzz/libfuzz.a
tests_fuzz_libfuzz_a_SOURCES = tests/fuzz/fuzz.c tests/fuzz/fuzz.h \
	tests/fuzz/memdir.c tests/fuzz/memdir.h
FUZZ_LIBS = tests/fuzz/libfuzz.a
EXTRA_DIST += tests/fuzz/run.sh

# libFuzzer brings a main() of its own, and runs without end: see tests/fuzz/run.sh.
check_PROGRAMS += $(FUZZERS)
if ENABLE_FUZZERS
$(FUZZERS): AM_LDFLAGS += -fsanitize=fuzzer
else
TESTS += $(FUZZERS)
endif

# For run.sh: only what it takes, and what there is.
fuzzers: $(FUZZERS)
list-fuzzers:
	@printf '%s\n' $(FUZZERS)
