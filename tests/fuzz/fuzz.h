// SPDX-License-Identifier: Apache-2.0
/*
 * Fuzz harnesses: tests/fuzz/NAME-fuzz.c, each with the three things below, and one line in
 * local.mk. Each feeds bytes that a disk, a target, an origin, a client or a person may hand to us
 * into real code and checks what that code promises of the result, not only that it survives.
 *
 * Built in two ways from the same source: with --enable-fuzzers (clang) around libFuzzer, which
 * learns from coverage; otherwise as an ordinary test program, which runs over the seeds and some
 * thousand mutations of them that follow from a printed number. tests/fuzz/run.sh drives the first.
 */
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* ---- what a harness brings ---- */

/* Run once over @size bytes at @data, which end where their memory ends. Returns 0. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
/* Give each input to begin with to fuzz_seed(): made by the real encoders where there are any. */
void fuzz_seeds(void);
/* How many mutations the test program runs; about a second's worth. */
extern const unsigned fuzz_runs;

/* ---- what it gets ---- */

/* One input to begin with; copied. From fuzz_seeds() only. */
void fuzz_seed(const void *data, size_t length);
/* The same for a text, without its NUL. */
static inline void fuzz_seed_text(const char *text)
{
	fuzz_seed(text, strlen(text));
}

/* A promise of the code under test. */
#define fuzz_check(promise)                                                                        \
	do {                                                                                       \
		if (!(promise))                                                                    \
			fuzz_broken(__FILE__, __LINE__, #promise);                                 \
	} while (0)
/* Say what was broken and abort. */
__attribute__((noreturn)) void fuzz_broken(const char *file, int line, const char *promise);

/* Memory or abort: a harness has no other way out. Zeroed. */
void *fuzz_alloc(size_t bytes);

/* @size bytes at @data as a text for the caller to free; what follows a NUL among them is cut. */
char *fuzz_text(const uint8_t *data, size_t size);

/* An input read piece by piece. */
struct fuzz_input {
	const uint8_t *at;
	size_t left;
};

/* The next little-endian number of @bytes (1..8); missing bytes count as 0. */
uint64_t fuzz_take(struct fuzz_input *in, unsigned bytes);
/* The next @length bytes, or what is left of them: *@ret_length of them. */
const uint8_t *fuzz_take_bytes(struct fuzz_input *in, size_t length, size_t *ret_length);

/* A seed made piece by piece; begin with a zeroed one. */
struct fuzz_output {
	uint8_t *data;
	size_t length;
};

/* Append what fuzz_take() reads back. */
void fuzz_put(struct fuzz_output *out, uint64_t v, unsigned bytes);
void fuzz_put_bytes(struct fuzz_output *out, const void *data, size_t length);
/* Give it to fuzz_seed(), free it, and begin anew. */
void fuzz_put_seed(struct fuzz_output *out);

#endif
