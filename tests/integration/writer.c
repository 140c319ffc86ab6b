// SPDX-License-Identifier: Apache-2.0
/*
 * writer FILE LOG SEED LANES: random writes through O_DIRECT and native AIO, LANES in flight at all
 * times, until one fails; noted in LOG before and after, in the form that acked.py reads.
 *
 * A lane has one write in flight, in a range of sectors that is its own, so that the writes of one
 * sector have an order. The ranges meet in the middle of 4 KiB blocks. Native AIO, because
 * synchronous writes to one file of FUSE come one after the other.
 * Exit status: 0 when a write failed, 1 when something that was acknowledged did not read back.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/aio_abi.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SECTOR 512u
#define LONGEST 300u /* sectors of one write */
#define LANES_MAX 64u

struct lane {
	struct iocb cb;
	uint64_t low, share; /* its range, sectors */
	uint64_t generation, first, count;
	unsigned char *data;
};

static int file, notes;
static aio_context_t aio;
static uint64_t generations, random_state;
static struct lane lanes[LANES_MAX];

/* xorshift64* */
static uint64_t dice(uint64_t below)
{
	random_state ^= random_state >> 12;
	random_state ^= random_state << 25;
	random_state ^= random_state >> 27;
	return (random_state * 2685821657736338717ull >> 16) % below;
}

static void die(const char *what)
{
	perror(what);
	exit(2);
}

/* One line, which is in the file when this returns. */
static void note(const char *line, int length)
{
	if (write(notes, line, (size_t)length) != length)
		die("log");
}

static void fill(struct lane *lane)
{
	for (uint64_t i = 0; i < lane->count * SECTOR / 16; i++) {
		uint64_t pair[2] = { lane->first + i * 16 / SECTOR, lane->generation };

		memcpy(lane->data + i * 16, pair, 16);
	}
}

static void choose_range(struct lane *lane)
{
	static const uint64_t usual[] = { 1, 3, 8, 8, 8, 16, 64 };
	uint64_t n = dice(8);

	lane->count = n < 7 ? usual[n] : 1 + dice(LONGEST);
	lane->first = lane->low + dice(lane->share - lane->count + 1);
	if (dice(2)) /* a whole block, where that is in the range */
		lane->first = lane->first & ~7ull;
	if (lane->first < lane->low)
		lane->first = lane->low;
}

/* False: the write was refused at once. */
static bool submit(struct lane *lane)
{
	struct iocb *list = &lane->cb;
	char line[80];

	choose_range(lane);
	lane->generation = ++generations;
	fill(lane);
	note(line, snprintf(line, sizeof(line), "b %" PRIu64 " %" PRIu64 " %" PRIu64 "\n",
			    lane->generation, lane->first, lane->count));
	lane->cb = (struct iocb){
		.aio_data = (uint64_t)(uintptr_t)lane,
		.aio_lio_opcode = IOCB_CMD_PWRITE,
		.aio_fildes = (uint32_t)file,
		.aio_buf = (uint64_t)(uintptr_t)lane->data,
		.aio_nbytes = lane->count * SECTOR,
		.aio_offset = (int64_t)(lane->first * SECTOR),
	};
	return syscall(SYS_io_submit, aio, 1, &list) == 1;
}

/* What was acknowledged can be read at once. False: nothing can be read any more. */
static bool read_back(struct lane *lane)
{
	size_t bytes = lane->count * SECTOR;
	ssize_t got = pread(file, lane->data, bytes, (off_t)(lane->first * SECTOR));

	if (got != (ssize_t)bytes)
		return false;
	for (uint64_t i = 0; i < bytes / 16; i++) {
		uint64_t pair[2] = { lane->first + i * 16 / SECTOR, lane->generation };

		if (memcmp(lane->data + i * 16, pair, 16) == 0)
			continue;
		printf("generation %" PRIu64 " was acknowledged, but sector %" PRIu64
		       " reads otherwise\n",
		       lane->generation, pair[0]);
		exit(1);
	}
	return true;
}

/* False: the file is no more. */
static bool acknowledge(struct lane *lane)
{
	uint64_t n = dice(20);
	char line[40];

	note(line, snprintf(line, sizeof(line), "a %" PRIu64 "\n", lane->generation));
	if (n == 0)
		return fsync(file) == 0;
	if (n < 3)
		return read_back(lane);
	return true;
}

/* The newest generation in the log. */
static uint64_t last_generation(const char *path)
{
	FILE *f = fopen(path, "r");
	uint64_t last = 0, n;
	char line[80];

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "b %" SCNu64, &n) == 1 && n > last)
			last = n;
	if (f)
		fclose(f);
	return last;
}

static void run(unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		if (!submit(&lanes[i]))
			return;
	for (;;) {
		struct io_event event[LANES_MAX];
		long n = syscall(SYS_io_getevents, aio, 1, (long)count, event, NULL);
		bool failed = n <= 0;

		/* All acknowledgements are noted before anything else is tried. */
		for (long i = 0; i < n; i++) {
			struct lane *lane = (struct lane *)(uintptr_t)event[i].data;
			bool good = event[i].res == (int64_t)(lane->count * SECTOR);

			failed = !good || !acknowledge(lane) || failed;
		}
		for (long i = 0; i < n && !failed; i++)
			failed = !submit((struct lane *)(uintptr_t)event[i].data);
		if (failed)
			return;
	}
}

int main(int argc, char **argv)
{
	unsigned count = argc == 5 ? (unsigned)atoi(argv[4]) : 0;
	struct stat st;

	if (count < 1 || count > LANES_MAX) {
		fprintf(stderr, "usage: writer FILE LOG SEED LANES\n");
		return 2;
	}
	generations = last_generation(argv[2]);
	random_state = strtoull(argv[3], NULL, 10) * 2 + 1;
	file = open(argv[1], O_RDWR | O_DIRECT | O_CLOEXEC);
	if (file < 0 || fstat(file, &st) < 0)
		die(argv[1]);
	notes = open(argv[2], O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
	if (notes < 0)
		die(argv[2]);
	if (syscall(SYS_io_setup, LANES_MAX, &aio) < 0)
		die("io_setup");
	for (unsigned i = 0; i < count; i++) {
		lanes[i].share = (uint64_t)st.st_size / SECTOR / count - 3;
		lanes[i].low = i * lanes[i].share + 1;
		lanes[i].data = aligned_alloc(4096, (size_t)(LONGEST + 8) * SECTOR & ~4095ul);
		assert(lanes[i].data && lanes[i].share > LONGEST);
	}
	run(count);
	return 0;
}
