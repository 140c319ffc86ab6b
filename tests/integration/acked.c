// SPDX-License-Identifier: Apache-2.0
/*
 * Was every acknowledged write kept? Random writes in one process, noted before and after; and the
 * comparison of a file with the notes, near and far.
 *
 * acked make FILE NOTES SECTORS
 *	fill FILE with generation 0, begin NOTES
 * acked write FILE NOTES SEED LANES [zeroes]
 *	random writes through O_DIRECT and native AIO, LANES in flight at all times, sometimes a
 *	flush, a read, or ("zeroes") a zeroed or punched range, until SIGTERM or until one fails
 * acked check near FILE NOTES
 *	every sector has what was acknowledged last, or what was begun after that and never
 *	acknowledged; what is seen counts as acknowledged from then on. Nobody may be writing
 * acked check far FILE NOTES [FLOOR]
 *	the same, and nothing is changed; with FLOOR, an older copy of NOTES, anything from what was
 *	acknowledged then to what is begun now. Somebody may be writing
 * acked show NOTES WORD
 *	begun, acked (writes), flying (in flight), bytes (acknowledged), near, far (bytes compared)
 *
 * Exit status: 0; 1 a sector is wrong; 2 it cannot be tried; 3 a write, flush or read failed.
 *
 * Each sector of 512 bytes holds its number and the generation of the write that put it there, 32
 * times, or zeroes. A lane has one write in flight, in a range of sectors that is its own, so that
 * the writes of one sector have an order and at most one of them is undecided. The ranges meet in
 * the middle of 4 KiB blocks. Native AIO, because synchronous writes to one file of FUSE come one
 * after the other. NOTES is a mapped file: what is in it has happened, whoever is killed.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/aio_abi.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#define SECTOR 512u
#define LONGEST 300u /* sectors of one write */
#define LANES_MAX 64u
#define CHUNK (1u << 20)
#define NOTES_MAGIC 0x3164656b63610001ull
#define FUSE_MAGIC 0x65735546

enum status { GOOD, WRONG, TROUBLE, FAILED };

/* A version: the generation times two, and one if it is zeroes. Later ones are larger. */
struct sector {
	uint64_t acked;  /* the newest that was acknowledged */
	uint64_t begun;  /* the newest that was begun, >= acked */
	uint64_t zeroed; /* the newest of zeroes that was begun */
};

struct notes {
	uint64_t magic, sectors;
	uint64_t generation; /* the last one given */
	uint64_t begun, acked, flying, bytes, near, far;
	struct sector sector[];
};

struct lane {
	struct iocb cb;
	uint64_t low, share; /* its range, sectors */
	uint64_t version, first, count;
	unsigned char *data;
};

static int file;
static aio_context_t aio;
static uint64_t random_state;
static bool zeroes;
static struct notes *notes;
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
	exit(TROUBLE);
}

static void fill(unsigned char *data, uint64_t first, uint64_t count, uint64_t generation)
{
	for (uint64_t i = 0; i < count * SECTOR / 16; i++) {
		uint64_t pair[2] = { first + i * 16 / SECTOR, generation };

		memcpy(data + i * 16, pair, 16);
	}
}

/* The version of a sector; UINT64_MAX where it is none of ours. All zeroes: @zero_version. */
static uint64_t version_of(const unsigned char *data, uint64_t sector, uint64_t zero_version)
{
	unsigned char want[SECTOR] = { 0 };
	uint64_t pair[2];

	memcpy(pair, data, sizeof(pair));
	if (memcmp(data, want, SECTOR) == 0 && (sector || zero_version & 1))
		return zero_version & 1 ? zero_version : UINT64_MAX;
	fill(want, sector, 1, pair[1]);
	return memcmp(data, want, SECTOR) == 0 ? pair[1] << 1 : UINT64_MAX;
}

static struct notes *map_notes(const char *path, bool writable)
{
	int fd = open(path, (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC);
	struct notes *n;
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		die(path);
	n = mmap(NULL, (size_t)st.st_size, PROT_READ | (writable ? PROT_WRITE : 0), MAP_SHARED, fd,
		 0);
	if (n == MAP_FAILED)
		die(path);
	close(fd);
	if (n->magic != NOTES_MAGIC ||
	    (uint64_t)st.st_size != sizeof(*n) + n->sectors * sizeof(n->sector[0])) {
		fprintf(stderr, "%s: no notes\n", path);
		exit(TROUBLE);
	}
	return n;
}

/* ---- make ---- */

static int make(const char *path, const char *notes_path, uint64_t sectors)
{
	static unsigned char data[CHUNK];
	struct notes head = { .magic = NOTES_MAGIC, .sectors = sectors };
	FILE *to = fopen(path, "we");
	int fd = open(notes_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	if (!to)
		die(path);
	for (uint64_t at = 0; at < sectors; at += CHUNK / SECTOR) {
		uint64_t n = sectors - at < CHUNK / SECTOR ? sectors - at : CHUNK / SECTOR;

		fill(data, at, n, 0);
		if (fwrite(data, SECTOR, n, to) != n)
			die(path);
	}
	if (fclose(to) || fd < 0 || write(fd, &head, sizeof(head)) != sizeof(head) ||
	    ftruncate(fd, (off_t)(sizeof(head) + sectors * sizeof(struct sector))) < 0)
		die(notes_path);
	close(fd);
	return GOOD;
}

/* ---- write ---- */

static void begin(struct lane *lane, bool zero)
{
	lane->version = ++notes->generation << 1 | zero;
	for (uint64_t s = lane->first; s < lane->first + lane->count; s++) {
		notes->sector[s].begun = lane->version;
		if (zero)
			notes->sector[s].zeroed = lane->version;
	}
	notes->begun++;
	notes->flying++;
}

static void acknowledge(struct lane *lane)
{
	for (uint64_t s = lane->first; s < lane->first + lane->count; s++)
		notes->sector[s].acked = lane->version;
	notes->acked++;
	notes->flying--;
	notes->bytes += lane->count * SECTOR;
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

static bool zero_range(struct lane *lane)
{
	static const int modes[] = { FALLOC_FL_PUNCH_HOLE, FALLOC_FL_ZERO_RANGE };

	begin(lane, true);
	/* Not every target can punch holes; zeroing is for all. */
	for (uint64_t i = dice(2); i < 2; i++) {
		if (fallocate(file, modes[i] | FALLOC_FL_KEEP_SIZE, (off_t)(lane->first * SECTOR),
			      (off_t)(lane->count * SECTOR)) == 0) {
			acknowledge(lane);
			return true;
		}
		if (errno != EOPNOTSUPP)
			break;
	}
	return false;
}

/* False: a write was refused at once. */
static bool submit(struct lane *lane)
{
	struct iocb *list = &lane->cb;

	choose_range(lane);
	if (zeroes && dice(25) == 0) {
		if (!zero_range(lane))
			return false;
		choose_range(lane);
	}
	begin(lane, false);
	fill(lane->data, lane->first, lane->count, lane->version >> 1);
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
	for (uint64_t i = 0; i < lane->count; i++) {
		if (version_of(lane->data + i * SECTOR, lane->first + i, 0) == lane->version)
			continue;
		printf("generation %" PRIu64 " was acknowledged, but sector %" PRIu64
		       " reads otherwise\n",
		       lane->version >> 1, lane->first + i);
		exit(WRONG);
	}
	return true;
}

/* False: the file is no more. */
static bool look_back(struct lane *lane)
{
	uint64_t n = dice(20);

	if (n == 0)
		return fsync(file) == 0;
	if (n < 3)
		return read_back(lane);
	return true;
}

static bool told_to_stop(void)
{
	sigset_t pending;

	return sigpending(&pending) == 0 && sigismember(&pending, SIGTERM) == 1;
}

/* Takes what has ended and begins as many anew. False: something failed. */
static bool turn(unsigned *flying)
{
	struct io_event event[LANES_MAX];
	long n = syscall(SYS_io_getevents, aio, 1, (long)*flying, event, NULL);
	bool good = n > 0;

	/* All acknowledgements are noted before anything else is tried. */
	for (long i = 0; i < n; i++) {
		struct lane *lane = (struct lane *)(uintptr_t)event[i].data;

		if (event[i].res == (int64_t)(lane->count * SECTOR)) {
			acknowledge(lane);
		} else {
			if (good)
				fprintf(stderr, "a write ended with %lld\n",
					(long long)event[i].res);
			good = false;
		}
	}
	*flying -= (unsigned)n;
	for (long i = 0; i < n && good; i++) {
		struct lane *lane = (struct lane *)(uintptr_t)event[i].data;

		good = look_back(lane);
		if (!good || told_to_stop())
			continue;
		good = submit(lane);
		*flying += good;
	}
	return good;
}

static int run(unsigned count)
{
	unsigned flying = 0;
	sigset_t term;

	/* It waits until we look: a signal that arrives would interrupt a flush or a read. */
	sigemptyset(&term);
	sigaddset(&term, SIGTERM);
	sigprocmask(SIG_BLOCK, &term, NULL);
	notes->flying = 0;
	for (; flying < count; flying++)
		if (!submit(&lanes[flying]))
			return FAILED;
	while (flying)
		if (!turn(&flying))
			return FAILED;
	return GOOD;
}

static int write_lanes(const char *path, uint64_t seed, unsigned count)
{
	random_state = seed * 2 + 1;
	file = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
	if (file < 0)
		die(path);
	if (syscall(SYS_io_setup, LANES_MAX, &aio) < 0)
		die("io_setup");
	for (unsigned i = 0; i < count; i++) {
		lanes[i].share = notes->sectors / count - 3;
		lanes[i].low = i * lanes[i].share + 1;
		lanes[i].data = aligned_alloc(4096, (size_t)(LONGEST + 8) * SECTOR & ~4095ul);
		assert(lanes[i].data && lanes[i].share > LONGEST);
	}
	return run(count);
}

/* ---- check ---- */

static void describe(const char *text, uint64_t version, const char *after)
{
	if (version == UINT64_MAX)
		printf("%sis no sector of ours%s", text, after);
	else
		printf("%sis generation %" PRIu64 "%s%s", text, version >> 1,
		       version & 1 ? " (zeroes)" : "", after);
}

/* Compares one; @settle: what is seen is the truth from now on. False: wrong. */
static bool sector_good(const unsigned char *data, uint64_t number, const struct notes *floor,
			bool settle)
{
	struct sector *now = &notes->sector[number];
	uint64_t low = floor->sector[number].acked, begun = now->begun, zero, seen;

	/* Zeroes do not say whose they are. */
	zero = floor != notes && now->zeroed > low ? now->zeroed : low & 1 ? low : begun;
	seen = version_of(data, number, zero);
	if (seen == low || seen == begun ||
	    (floor != notes && seen > low && seen <= begun && seen != UINT64_MAX)) {
		if (settle)
			now->acked = now->begun = seen;
		return true;
	}
	printf("sector %" PRIu64 " ", number);
	describe("", seen, ", ");
	describe("acknowledged ", low, "; ");
	describe("last begun ", begun, "\n");
	return false;
}

static int check(const char *path, const struct notes *floor, bool near)
{
	unsigned char *data = aligned_alloc(4096, CHUNK);
	uint64_t at = 0, bad = 0;
	struct statfs fs;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || !data || fstatfs(fd, &fs) < 0)
		die(path);
	/* What the daemon has, not what the kernel remembers of it. */
	if (fs.f_type == FUSE_MAGIC && fcntl(fd, F_SETFL, O_DIRECT) < 0)
		die(path);
	while (at < notes->sectors && bad < 10) {
		ssize_t n = pread(fd, data, CHUNK, (off_t)(at * SECTOR));

		if (n < (ssize_t)SECTOR)
			die(path);
		for (ssize_t i = 0; i < n / (ssize_t)SECTOR && at < notes->sectors; i++, at++)
			bad += !sector_good(data + i * SECTOR, at, floor, near);
	}
	*(near ? &notes->near : &notes->far) += at * SECTOR;
	close(fd);
	free(data);
	if (bad)
		printf("%s: %s%" PRIu64 " sectors are wrong\n", path, bad < 10 ? "" : "at least ",
		       bad);
	return bad ? WRONG : GOOD;
}

/* ---- show ---- */

static int show(const char *word)
{
	const struct {
		const char *word;
		uint64_t value;
	} words[] = {
		{ "begun", notes->begun }, { "acked", notes->acked }, { "flying", notes->flying },
		{ "bytes", notes->bytes }, { "near", notes->near },   { "far", notes->far },
	};

	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		if (strcmp(words[i].word, word) != 0)
			continue;
		printf("%" PRIu64 "\n", words[i].value);
		return GOOD;
	}
	fprintf(stderr, "acked: no word %s\n", word);
	return TROUBLE;
}

static int usage(void)
{
	fputs("usage: acked make FILE NOTES SECTORS\n"
	      "       acked write FILE NOTES SEED LANES [zeroes]\n"
	      "       acked check near FILE NOTES\n"
	      "       acked check far FILE NOTES [FLOOR]\n"
	      "       acked show NOTES WORD\n",
	      stderr);
	return TROUBLE;
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";

	if (strcmp(what, "make") == 0 && argc == 5)
		return make(argv[2], argv[3], strtoull(argv[4], NULL, 10));
	if (strcmp(what, "show") == 0 && argc == 4) {
		notes = map_notes(argv[2], false);
		return show(argv[3]);
	}
	if (strcmp(what, "check") == 0 && (argc == 5 || argc == 6)) {
		notes = map_notes(argv[4], true);
		return check(argv[3], argc == 6 ? map_notes(argv[5], false) : notes,
			     strcmp(argv[2], "near") == 0);
	}
	if (strcmp(what, "write") == 0 && (argc == 6 || argc == 7)) {
		unsigned count = (unsigned)atoi(argv[5]);

		if (count < 1 || count > LANES_MAX)
			return usage();
		zeroes = argc == 7;
		notes = map_notes(argv[3], true);
		return write_lanes(argv[2], strtoull(argv[4], NULL, 10), count);
	}
	return usage();
}
