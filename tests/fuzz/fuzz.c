// SPDX-License-Identifier: Apache-2.0
/*
 * What harnesses share, and their main() where libFuzzer does not bring one:
 *
 *	NAME-fuzz                the seeds, then fuzz_runs mutations of them
 *	NAME-fuzz FILE…          these inputs, such as the reproducer of a crash
 *	NAME-fuzz --seeds DIR    write the seeds into DIR (under libFuzzer, too)
 *
 * FUZZ_SEED chooses other mutations, FUZZ_RUNS their number, FUZZ_ONLY=N runs the N-th alone. Each
 * mutation follows from the seed and its own number, so that it can be had again by itself.
 */
#include "tests/fuzz/fuzz.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/cleanup.h"
#include "core/le.h"
#include "core/log.h"

struct input {
	uint8_t *data;
	size_t length;
};

static struct input *seed;
static size_t seeds;

void fuzz_broken(const char *file, int line, const char *promise)
{
	fprintf(stderr, "%s:%d: broken promise: %s\n", file, line, promise);
	abort();
}

void *fuzz_alloc(size_t bytes)
{
	void *p = calloc(1, bytes ? bytes : 1);

	assert(p);
	return p;
}

void fuzz_seed(const void *data, size_t length)
{
	seed = realloc(seed, (seeds + 1) * sizeof(*seed));
	assert(seed);
	seed[seeds].data = fuzz_alloc(length);
	memcpy(seed[seeds].data, data, length);
	seed[seeds++].length = length;
}

char *fuzz_text(const uint8_t *data, size_t size)
{
	char *text = fuzz_alloc(size + 1);

	if (size)
		memcpy(text, data, size);
	return text;
}

const uint8_t *fuzz_take_bytes(struct fuzz_input *in, size_t length, size_t *ret_length)
{
	const uint8_t *p = in->at;

	*ret_length = MIN(length, in->left);
	in->left -= *ret_length;
	if (*ret_length)
		in->at += *ret_length;
	return p;
}

uint64_t fuzz_take(struct fuzz_input *in, unsigned bytes)
{
	size_t n;
	const uint8_t *p = fuzz_take_bytes(in, bytes, &n);

	return n ? le_get(p, (unsigned)n) : 0;
}

void fuzz_put_bytes(struct fuzz_output *out, const void *data, size_t length)
{
	if (!length)
		return;
	out->data = realloc(out->data, out->length + length);
	assert(out->data);
	memcpy(out->data + out->length, data, length);
	out->length += length;
}

void fuzz_put(struct fuzz_output *out, uint64_t v, unsigned bytes)
{
	uint8_t le[8];

	le_put(le, v, bytes);
	fuzz_put_bytes(out, le, bytes);
}

void fuzz_put_seed(struct fuzz_output *out)
{
	fuzz_seed(out->data, out->length);
	free(out->data);
	*out = (struct fuzz_output){ 0 };
}

static int write_seeds(const char *dir)
{
	for (size_t i = 0; i < seeds; i++) {
		char path[4096];
		FILE *f;

		snprintf(path, sizeof(path), "%s/seed-%03zu", dir, i);
		f = fopen(path, "we");
		if (!f || fwrite(seed[i].data, 1, seed[i].length, f) != seed[i].length) {
			perror(path);
			return EXIT_FAILURE;
		}
		if (fclose(f) != 0) {
			perror(path);
			return EXIT_FAILURE;
		}
	}
	return EXIT_SUCCESS;
}

static void begin(void)
{
	/* What the code under test has to say about nonsense is of no interest here. */
	(void)log_open("/dev/null", LOG_LEVEL_ERROR, NULL);
	signal(SIGPIPE, SIG_IGN);
}

#ifdef ENABLE_FUZZERS

int LLVMFuzzerInitialize(int *argc, char ***argv);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	begin();
	if (*argc == 3 && strcmp((*argv)[1], "--seeds") == 0) {
		fuzz_seeds();
		exit(write_seeds((*argv)[2]));
	}
	return 0;
}

#else

/* A run that takes this long hangs. */
#define RUN_SECONDS 30
#define MUTATED_MAX 16384u

static struct {
	uint64_t seed, run;
	const uint8_t *data;
	size_t length;
} now;

/* Where libc's functions may not be called any more. */
static void say(const char *text)
{
	if (write(STDERR_FILENO, text, strlen(text)) < 0)
		_exit(EXIT_FAILURE);
}

static void tell_where(void)
{
	static const char hex[] = "0123456789abcdef";
	char line[160];

	if (!now.data)
		return;
	snprintf(line, sizeof(line),
		 "that was %s %" PRIu64 "; again: FUZZ_SEED=%" PRIu64 " FUZZ_ONLY=%" PRIu64
		 "; its %zu bytes:\n",
		 now.run < seeds ? "seed" : "run", now.run, now.seed, now.run, now.length);
	say(line);
	for (size_t i = 0; i < now.length; i++) {
		char byte[4] = { hex[now.data[i] >> 4], hex[now.data[i] & 15],
				 i % 32 == 31 || i + 1 == now.length ? '\n' : '\0' };

		say(byte);
	}
	now.data = NULL;
}

static void on_signal(int sig)
{
	if (sig == SIGALRM)
		say("a run does not end\n");
	tell_where();
	signal(sig == SIGALRM ? SIGABRT : sig, SIG_DFL);
	raise(sig == SIGALRM ? SIGABRT : sig);
}

/* gcc's AddressSanitizer ends the process without a signal. */
void __sanitizer_set_death_callback(void (*callback)(void)) __attribute__((weak));

static uint64_t dice;

static uint64_t throw(uint64_t below)
{
	uint64_t z = dice += 0x9e3779b97f4a7c15u; /* splitmix64 */

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return (z ^ z >> 31) % below;
}

static void replace(struct input *in, size_t at, size_t old, const void *data, size_t length)
{
	struct input out = { .length = in->length - old + length };

	if (out.length > MUTATED_MAX)
		return;
	out.data = fuzz_alloc(out.length);
	memcpy(out.data, in->data, at);
	memcpy(out.data + at, data, length);
	memcpy(out.data + at + length, in->data + at + old, in->length - at - old);
	free(in->data);
	*in = out;
}

/* Numbers at which something usually ends, in any size and either order of bytes. */
static void put_number(struct input *in)
{
	static const uint64_t interesting[] = {
		0,          1,          2,          3,
		4,          7,          8,          47,
		48,         49,         63,         64,
		65,         127,        128,        255,
		256,        511,        512,        1024,
		4095,       4096,       65535,      65536,
		INT32_MAX,  1ull << 31, UINT32_MAX, 1ull << 32,
		1ull << 52, INT64_MAX,  1ull << 63, UINT64_MAX - 1,
		UINT64_MAX,
	};
	unsigned bytes = 1u << throw(4);
	uint64_t v = interesting[throw(ARRAY_SIZE(interesting))];
	uint8_t number[8];

	if (in->length < bytes)
		return;
	le_put(number, v, bytes);
	if (throw(2))
		for (unsigned i = 0; i < bytes / 2; i++) {
			uint8_t t = number[i];

			number[i] = number[bytes - 1 - i];
			number[bytes - 1 - i] = t;
		}
	memcpy(in->data + throw(in->length - bytes + 1), number, bytes);
}

/* The same among digits. */
static void put_digits(struct input *in)
{
	static const char *const interesting[] = { "0",
						   "1",
						   "-1",
						   "255",
						   "256",
						   "4096",
						   "65535",
						   "65536",
						   "4294967296",
						   "9223372036854775807",
						   "9223372036854775808",
						   "18446744073709551615",
						   "18446744073709551616",
						   "99999999999999999999999" };
	const char *text = interesting[throw(ARRAY_SIZE(interesting))];
	size_t from = throw(in->length + 1), to;

	while (from < in->length && (in->data[from] < '0' || in->data[from] > '9'))
		from++;
	for (to = from; to < in->length && in->data[to] >= '0' && in->data[to] <= '9';)
		to++;
	replace(in, from, to - from, text, strlen(text));
}

static void mutate(struct input *in)
{
	size_t at = throw(in->length + 1), left = in->length - at, n;
	const struct input *other = &seed[throw(seeds)];
	uint8_t byte = (uint8_t) throw(256);

	switch (throw(10)) {
	case 0:
		if (left)
			in->data[at] ^= (uint8_t)(1u << throw(8));
		break;
	case 1:
		if (left)
			in->data[at] = byte;
		break;
	case 2:
		replace(in, at, 0, &byte, 1);
		break;
	case 3: /* cut out */
		replace(in, at, MIN(left, (size_t) throw(16)), "", 0);
		break;
	case 4: /* cut off */
		replace(in, at, throw(4) ? 0 : left, "", 0);
		break;
	case 5: /* say again */
		n = MIN(left, (size_t) throw(64));
		replace(in, throw(in->length + 1), 0, in->data + at, n);
		break;
	case 6: /* a piece of another one */
		n = throw(other->length + 1);
		replace(in, at, MIN(left, (size_t) throw(64)), other->data + n,
			MIN(other->length - n, (size_t) throw(256)));
		break;
	case 7: /* its rest */
		n = throw(other->length + 1);
		replace(in, at, left, other->data + n, other->length - n);
		break;
	case 8:
		put_number(in);
		break;
	case 9:
		put_digits(in);
		break;
	}
}

/* Run @number: the seeds as they are come first. */
static void run(uint64_t number)
{
	const struct input *from;
	struct input in;
	unsigned steps = 0;

	dice = now.seed ^ (number + 1) * 0xd1342543de82ef95u;
	if (number >= seeds) {
		number = throw(seeds);
		steps = 1u << throw(5);
	}
	from = &seed[number];
	in.length = from->length;
	in.data = fuzz_alloc(in.length);
	memcpy(in.data, from->data, in.length);
	for (unsigned i = 0; i < steps; i++)
		mutate(&in);
	now.data = in.data;
	now.length = in.length;
	alarm(RUN_SECONDS);
	LLVMFuzzerTestOneInput(in.data, in.length);
	alarm(0);
	now.data = NULL;
	free(in.data);
}

static int run_file(const char *path)
{
	cleanup_fclose FILE *f = fopen(path, "re");
	cleanup_free uint8_t *data = NULL;
	long length;

	if (!f || fseek(f, 0, SEEK_END) != 0 || (length = ftell(f)) < 0) {
		perror(path);
		return EXIT_FAILURE;
	}
	rewind(f);
	data = fuzz_alloc((size_t)length);
	if (fread(data, 1, (size_t)length, f) != (size_t)length) {
		perror(path);
		return EXIT_FAILURE;
	}
	LLVMFuzzerTestOneInput(data, (size_t)length);
	return EXIT_SUCCESS;
}

static uint64_t from_environment(const char *name, uint64_t otherwise)
{
	const char *text = getenv(name);

	return text ? strtoull(text, NULL, 0) : otherwise;
}

int main(int argc, char **argv)
{
	static const int fatal[] = { SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGALRM };
	uint64_t only = from_environment("FUZZ_ONLY", UINT64_MAX), runs;
	int r = EXIT_SUCCESS;

	begin();
	fuzz_seeds();
	if (argc == 3 && strcmp(argv[1], "--seeds") == 0)
		return write_seeds(argv[2]);
	for (int i = 1; i < argc && r == EXIT_SUCCESS; i++)
		r = run_file(argv[i]);
	if (argc > 1)
		return r;
	for (size_t i = 0; i < ARRAY_SIZE(fatal); i++)
		signal(fatal[i], on_signal);
	if (__sanitizer_set_death_callback)
		__sanitizer_set_death_callback(tell_where);
	now.seed = from_environment("FUZZ_SEED", 1);
	runs = seeds + from_environment("FUZZ_RUNS", fuzz_runs);
	printf("%zu seeds and %" PRIu64 " mutations of them (FUZZ_SEED=%" PRIu64 ")\n", seeds,
	       runs - seeds, now.seed);
	fflush(stdout);
	for (now.run = 0; now.run < runs; now.run++)
		if (only == UINT64_MAX || only == now.run)
			run(now.run);
	for (size_t i = 0; i < seeds; i++)
		free(seed[i].data);
	free(seed);
	return EXIT_SUCCESS;
}

#endif
