// SPDX-License-Identifier: Apache-2.0
/* Data through disk.img: what the device below gets, and what comes back. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "tests/mount/fixture.h"
#include "tests/lib/run.h"

#define MIB (1u << 20)

static struct fixture f;

static int open_file(int flags)
{
	int fd = open(f.file, flags | O_CLOEXEC);

	ck_assert_msg(fd >= 0, "open %s: %s", f.file, strerror(errno));
	return fd;
}

static unsigned count(enum blk_op op)
{
	return atomic_load(&testdev_counts(f.dev)->op[op]);
}

/* Every device flavour completes differently: in submit, or on another thread. */
static const unsigned flavour[] = { TESTDEV_DISCARD, TESTDEV_DISCARD | TESTDEV_THREAD };

START_TEST(buffered_and_direct)
{
	cleanup_free uint8_t *out = aligned_alloc(4096, 4 * MIB);
	cleanup_free uint8_t *in = aligned_alloc(4096, 4 * MIB);
	int modes[] = { O_RDWR, O_RDWR | O_DIRECT };

	fixture_up(&f, SIZE_BYTES, flavour[_i]);
	for (unsigned w = 0; w < 2; w++) {
		for (unsigned r = 0; r < 2; r++) {
			static const size_t lengths[] = { 4096, 32768, 65536, MIB, 4 * MIB };

			for (unsigned l = 0; l < ARRAY_SIZE(lengths); l++) {
				size_t length = lengths[l];
				off_t at = (off_t)(4096 * (1 + l + 7 * w + 3 * r));
				int fd = open_file(modes[w]);

				fill(out, length, length + w * 2 + r);
				ck_assert_int_eq(pwrite(fd, out, length, at), length);
				ck_assert_mem_eq(testdev_bytes(f.dev) + at, out, length);
				close(fd);
				fd = open_file(modes[r]);
				memset(in, 0, length);
				ck_assert_int_eq(pread(fd, in, length, at), length);
				ck_assert_mem_eq(in, out, length);
				close(fd);
			}
		}
	}
	/* A payload that is page aligned can go on with O_DIRECT, uncopied. */
	ck_assert_uint_eq(atomic_load(&testdev_counts(f.dev)->unaligned_payload), 0);
	fixture_down(&f);
}
END_TEST

START_TEST(unaligned_writes)
{
	cleanup_free uint8_t *model = malloc(SIZE_BYTES);
	cleanup_free uint8_t *buf = malloc(MIB);
	unsigned seed = 20240607 + (unsigned)_i;
	int fd;

	fixture_up(&f, SIZE_BYTES, flavour[_i]);
	memcpy(model, testdev_bytes(f.dev), SIZE_BYTES);
	fd = open_file(O_RDWR);
	for (unsigned i = 0; i < 200; i++) {
		size_t length = 1 + (size_t)rand_r(&seed) % (i % 8 ? 5000 : 300000);
		size_t at = (size_t)rand_r(&seed) % (SIZE_BYTES - length);

		fill(buf, length, i);
		ck_assert_int_eq(pwrite(fd, buf, length, (off_t)at), length);
		memcpy(model + at, buf, length);
		length = 1 + (size_t)rand_r(&seed) % 100000;
		at = (size_t)rand_r(&seed) % (SIZE_BYTES - length);
		ck_assert_int_eq(pread(fd, buf, length, (off_t)at), length);
		ck_assert_mem_eq(buf, model + at, length);
	}
	ck_assert_mem_eq(testdev_bytes(f.dev), model, SIZE_BYTES);
	close(fd);
	fixture_down(&f);
}
END_TEST

START_TEST(the_end)
{
	/* A size that is no multiple of anything. */
	uint64_t size = SIZE_BYTES - 1000;
	cleanup_free uint8_t *buf = malloc(MIB);
	struct stat st;
	int fd;

	fixture_up(&f, size, flavour[_i]);
	fd = open_file(O_RDWR);
	fill(buf, MIB, 5);
	ck_assert_int_eq(pwrite(fd, buf, 4096, (off_t)size - 100), 100);
	ck_assert_mem_eq(testdev_bytes(f.dev) + size - 100, buf, 100);
	ck_assert_int_eq(testdev_bytes(f.dev)[size], 0xff);
	ck_assert_int_eq(pwrite(fd, buf, 1, (off_t)size), -1);
	ck_assert_int_eq(errno, ENOSPC);
	ck_assert_int_eq(pwrite(fd, buf, 10, (off_t)size + 4096), -1);
	ck_assert_int_eq(errno, ENOSPC);
	ck_assert_int_eq(pread(fd, buf, MIB, (off_t)size - 50), 50);
	ck_assert_int_eq(pread(fd, buf, 10, (off_t)size), 0);
	ck_assert_int_eq(pread(fd, buf, 10, (off_t)size + MIB), 0);
	ck_ok(fstat(fd, &st));
	ck_assert_int_eq(st.st_size, size);
	close(fd);
	fd = open_file(O_WRONLY | O_APPEND);
	ck_assert_int_eq(write(fd, buf, 10), -1);
	ck_assert_int_eq(errno, ENOSPC);
	close(fd);
	fixture_down(&f);
}
END_TEST

START_TEST(truncate_changes_nothing)
{
	uint8_t buf[100];
	uint8_t back[100];
	struct stat st;
	int fd;

	fixture_up(&f, SIZE_BYTES, flavour[_i]);
	fill(buf, sizeof(buf), 9);
	fd = open_file(O_RDWR);
	ck_assert_int_eq(pwrite(fd, buf, sizeof(buf), 5000), sizeof(buf));
	ck_ok(ftruncate(fd, 0));
	ck_ok(ftruncate(fd, SIZE_BYTES * 4ll));
	close(fd);
	ck_ok(truncate(f.file, 4096));
	fd = open_file(O_RDWR | O_TRUNC);
	ck_ok(fstat(fd, &st));
	ck_assert_int_eq(st.st_size, SIZE_BYTES);
	ck_assert_int_eq(pread(fd, back, sizeof(back), 5000), sizeof(back));
	ck_assert_mem_eq(back, buf, sizeof(buf));
	close(fd);
	ck_assert_uint_eq(count(BLK_ZERO) + count(BLK_DISCARD), 0);
	fixture_down(&f);
}
END_TEST

START_TEST(flush_and_fua)
{
	struct testdev_counts *c;
	struct iovec iov = { .iov_base = &f, .iov_len = 512 };
	int fd;

	fixture_up(&f, SIZE_BYTES, flavour[_i]);
	c = testdev_counts(f.dev);
	fd = open_file(O_RDWR);
	ck_assert_int_eq(pwrite(fd, "abc", 3, 77), 3);
	ck_assert_uint_eq(count(BLK_FLUSH), 0);
	ck_assert_uint_eq(atomic_load(&c->fua), 0);
	ck_ok(fsync(fd));
	ck_assert_uint_eq(count(BLK_FLUSH), 1);
	ck_ok(fdatasync(fd));
	ck_assert_uint_eq(count(BLK_FLUSH), 2);
	ck_assert_int_eq(pwritev2(fd, &iov, 1, 4096, RWF_DSYNC), 512);
	ck_assert_uint_eq(atomic_load(&c->fua), 1);
	testdev_fail_next(f.dev, BLK_FLUSH, -EIO);
	ck_assert_int_eq(fsync(fd), -1);
	ck_assert_int_eq(errno, EIO);
	close(fd);
	fd = open_file(O_RDWR);
	{
		unsigned flushes = count(BLK_FLUSH);

		ck_assert_int_eq(pwrite(fd, "abc", 3, 77), 3);
		close(fd);
		ck_assert_uint_eq(count(BLK_FLUSH), flushes);
	}
	fd = open_file(O_RDWR | O_DSYNC);
	ck_assert_int_eq(pwrite(fd, "abc", 3, 77), 3);
	ck_assert_uint_eq(atomic_load(&c->fua), 2);
	close(fd);
	fd = open_file(O_RDWR | O_SYNC);
	ck_assert_int_eq(pwrite(fd, "abc", 3, 77), 3);
	ck_assert_uint_eq(atomic_load(&c->fua), 3);
	close(fd);
	testdev_fail_next(f.dev, BLK_WRITE, -ESHUTDOWN);
	fd = open_file(O_RDWR);
	ck_assert_int_eq(pwrite(fd, "abc", 3, 77), -1);
	ck_assert_int_eq(errno, EIO);
	close(fd);
	fixture_down(&f);
}
END_TEST

START_TEST(memory_map)
{
	uint8_t *map;
	uint8_t buf[10000];
	int fd;

	fixture_up(&f, SIZE_BYTES, flavour[_i]);
	fill(buf, sizeof(buf), 3);
	fd = open_file(O_RDWR);
	map = mmap(NULL, SIZE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	ck_assert_ptr_ne(map, MAP_FAILED);
	close(fd);
	memcpy(map + 12345, buf, sizeof(buf));
	ck_ok(msync(map, SIZE_BYTES, MS_SYNC));
	ck_assert_mem_eq(testdev_bytes(f.dev) + 12345, buf, sizeof(buf));
	ck_assert_uint_ge(count(BLK_FLUSH), 1);
	/* Dirty pages reach the device on the way out. */
	memcpy(map + MIB + 1, buf, sizeof(buf));
	ck_ok(munmap(map, SIZE_BYTES));
	{
		struct err err;

		ck_assert_int_eq(mount_unmount(f.mount, &err), 0);
	}
	ck_assert_mem_eq(testdev_bytes(f.dev) + MIB + 1, buf, sizeof(buf));
	fixture_drop(&f);
}
END_TEST

START_TEST(punch_and_zero)
{
	const int punch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
	cleanup_free uint8_t *model = malloc(SIZE_BYTES);
	cleanup_free uint8_t *back = malloc(SIZE_BYTES);
	int fd;

	fixture_up(&f, SIZE_BYTES, flavour[_i]);
	fd = open_file(O_RDWR);
	fill(model, SIZE_BYTES, 11);
	ck_assert_int_eq(pwrite(fd, model, SIZE_BYTES, 0), SIZE_BYTES);

	/* Head to 16384, then the aligned middle in pieces of a MiB at most, then a tail of 5. */
	ck_ok(fallocate(fd, punch, 10000, 6384 + 2 * MIB + 8192 + 5));
	memset(model + 10000, 0, 6384 + 2 * MIB + 8192 + 5);
	ck_assert_uint_eq(count(BLK_ZERO), 2);
	ck_assert_uint_eq(count(BLK_DISCARD), 3);
	/* Nothing aligned inside. */
	ck_ok(fallocate(fd, punch, 4 * MIB + 1, 8192));
	memset(model + 4 * MIB + 1, 0, 8192);
	ck_assert_uint_eq(count(BLK_DISCARD), 3);
	ck_ok(fallocate(fd, FALLOC_FL_ZERO_RANGE, 5 * MIB + 3, MIB + 10));
	memset(model + 5 * MIB + 3, 0, MIB + 10);
	ck_ok(fallocate(fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, SIZE_BYTES - 7, 4096));
	memset(model + SIZE_BYTES - 7, 0, 7);
	ck_assert_uint_eq(count(BLK_DISCARD), 3);
	ck_ok(fallocate(fd, 0, 0, SIZE_BYTES));
	ck_ok(fallocate(fd, FALLOC_FL_KEEP_SIZE, MIB, MIB));
	ck_ok(fallocate(fd, punch, SIZE_BYTES + 5, MIB));
	ck_assert_int_eq(fallocate(fd, 0, 1, SIZE_BYTES), -1);
	ck_assert_int_eq(errno, ENOSPC);
	ck_assert_int_eq(fallocate(fd, FALLOC_FL_ZERO_RANGE, 1, SIZE_BYTES), -1);
	ck_assert_int_eq(errno, ENOSPC);
	ck_assert_int_eq(fallocate(fd, FALLOC_FL_COLLAPSE_RANGE, 0, 4096), -1);
	ck_assert_int_eq(errno, EOPNOTSUPP);
	ck_assert_int_eq(pread(fd, back, SIZE_BYTES, 0), SIZE_BYTES);
	ck_assert_mem_eq(back, model, SIZE_BYTES);
	ck_assert_mem_eq(testdev_bytes(f.dev), model, SIZE_BYTES);

	/* The second of several steps fails. */
	testdev_fail_next(f.dev, BLK_DISCARD, -EIO);
	ck_assert_int_eq(fallocate(fd, punch, 6 * MIB + 4096, MIB), -1);
	ck_assert_int_eq(errno, EIO);
	memset(model + 6 * MIB + 4096, 0, 4096);
	ck_assert_mem_eq(testdev_bytes(f.dev), model, SIZE_BYTES);
	close(fd);
	fixture_down(&f);
}
END_TEST

START_TEST(punch_not_supported)
{
	int fd;

	fixture_up(&f, SIZE_BYTES, 0);
	fd = open_file(O_RDWR);
	ck_assert_int_eq(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 8192), -1);
	ck_assert_int_eq(errno, EOPNOTSUPP);
	ck_ok(fallocate(fd, FALLOC_FL_ZERO_RANGE, 0, 8192));
	ck_assert_uint_eq(count(BLK_ZERO), 1);
	close(fd);
	fixture_down(&f);
}
END_TEST

START_TEST(seek)
{
	int fd;

	fixture_up(&f, SIZE_BYTES, TESTDEV_DISCARD);
	fd = open_file(O_RDWR);
	ck_assert_int_eq(lseek(fd, 0, SEEK_DATA), 0);
	ck_assert_int_eq(lseek(fd, 0, SEEK_HOLE), SIZE_BYTES);
	ck_assert_int_eq(lseek(fd, 0, SEEK_END), SIZE_BYTES);
	ck_ok(fallocate(fd, FALLOC_FL_ZERO_RANGE, 8192, MIB));
	ck_assert_int_eq(lseek(fd, 5, SEEK_HOLE), 8192);
	ck_assert_int_eq(lseek(fd, 9000, SEEK_HOLE), 9000);
	ck_assert_int_eq(lseek(fd, 9000, SEEK_DATA), 8192 + MIB);
	ck_assert_int_eq(lseek(fd, 10, SEEK_DATA), 10);
	ck_ok(fallocate(fd, FALLOC_FL_ZERO_RANGE, SIZE_BYTES - MIB, MIB));
	ck_assert_int_eq(lseek(fd, SIZE_BYTES - 4096, SEEK_DATA), -1);
	ck_assert_int_eq(errno, ENXIO);
	ck_assert_int_eq(lseek(fd, SIZE_BYTES, SEEK_HOLE), -1);
	ck_assert_int_eq(errno, ENXIO);
	close(fd);
	fixture_down(&f);
}
END_TEST

struct reader {
	pthread_t id;
	int fd;
	off_t at;
	uint8_t *buf;
	ssize_t got;
};

static void *read_one(void *arg)
{
	struct reader *r = arg;

	r->got = pread(r->fd, r->buf, 65536, r->at);
	return NULL;
}

/* All of them outstanding at once, with two threads to serve them. */
START_TEST(depth_beyond_threads)
{
	struct reader r[64];
	struct mount_config conf = fixture_prepare(&f, SIZE_BYTES, flavour[_i]);
	cleanup_free uint8_t *other = aligned_alloc(4096, 65536);
	int fd;

	conf.threads = 2;
	fill(testdev_bytes(f.dev), SIZE_BYTES, 21);
	fill(other, 65536, 22);
	fixture_mount(&f, &conf);
	fd = open_file(O_RDWR | O_DIRECT);
	testdev_hold(f.dev, BLK_READ);
	for (unsigned i = 0; i < ARRAY_SIZE(r); i++) {
		r[i] = (struct reader){ .fd = fd, .at = (off_t)i * 65536 };
		r[i].buf = aligned_alloc(4096, 65536);
		ck_assert_int_eq(pthread_create(&r[i].id, NULL, read_one, &r[i]), 0);
	}
	testdev_wait_held(f.dev, ARRAY_SIZE(r));
	/* And the rest of the file system is awake. */
	ck_assert_int_eq(pwrite(fd, other, 65536, 8 * MIB), 65536);
	ck_ok(fsync(fd));
	testdev_release(f.dev);
	for (unsigned i = 0; i < ARRAY_SIZE(r); i++) {
		pthread_join(r[i].id, NULL);
		ck_assert_int_eq(r[i].got, 65536);
		ck_assert_mem_eq(r[i].buf, testdev_bytes(f.dev) + r[i].at, 65536);
		free(r[i].buf);
	}
	close(fd);
	fixture_down(&f);
}
END_TEST

/* What a child does until somebody ends it; its exit code is the errno, or 0. */
enum wait_in { WAIT_READ, WAIT_WRITE, WAIT_FSYNC, WAIT_PUNCH };

static pid_t blocked_child(enum wait_in what, off_t at)
{
	pid_t pid = fork();
	char buf[4096] = "";
	long r = -1;
	int fd;

	if (pid)
		return pid;
	/* Not the connection, or it would outlive the test. */
	close_range(3, ~0u, 0);
	fd = open(f.file, O_RDWR);
	if (fd < 0)
		_exit(errno);
	switch (what) {
	case WAIT_READ:
		r = pread(fd, buf, sizeof(buf), at);
		break;
	case WAIT_WRITE:
		r = pwrite(fd, buf, sizeof(buf), at);
		break;
	case WAIT_FSYNC:
		r = fsync(fd);
		break;
	case WAIT_PUNCH:
		r = fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, 65536);
		break;
	}
	_exit(r < 0 ? errno : 0);
}

static const struct {
	enum wait_in what;
	enum blk_op op;
} waits[] = {
	{ WAIT_WRITE, BLK_WRITE },
	{ WAIT_FSYNC, BLK_FLUSH },
	{ WAIT_PUNCH, BLK_DISCARD },
	{ WAIT_READ, BLK_READ },
};
/* The kernel does not interrupt readahead, it just lets a killed reader go. */
#define WAITS_INTERRUPTED 3

static void on_signal(int sig)
{
}

START_TEST(killed)
{
	pid_t pid;
	int status;

	fixture_up(&f, SIZE_BYTES, TESTDEV_DISCARD | TESTDEV_THREAD);
	testdev_hold(f.dev, waits[_i].op);
	pid = blocked_child(waits[_i].what, 0);
	testdev_wait_held(f.dev, 1);
	ck_ok(kill(pid, SIGKILL));
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	ck_assert_uint_eq(atomic_load(&testdev_counts(f.dev)->cancel), _i < WAITS_INTERRUPTED);
	testdev_release(f.dev);
	fixture_down(&f);
}
END_TEST

START_TEST(interrupted)
{
	struct sigaction handler = { .sa_handler = on_signal };
	pid_t pid;
	int status;

	fixture_up(&f, SIZE_BYTES, TESTDEV_DISCARD | TESTDEV_THREAD);
	sigaction(SIGUSR1, &handler, NULL);
	testdev_hold(f.dev, waits[_i].op);
	pid = blocked_child(waits[_i].what, 8192);
	testdev_wait_held(f.dev, 1);
	ck_ok(kill(pid, SIGUSR1));
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert(WIFEXITED(status));
	ck_assert_int_eq(WEXITSTATUS(status), EINTR);
	testdev_release(f.dev);
	ck_assert_uint_eq(atomic_load(&testdev_counts(f.dev)->op[waits[_i].op]), 1);
	fixture_down(&f);
}
END_TEST

/*
 * Interrupts and completions that race: nothing is answered twice, nothing is forgotten. One writer
 * at a time gets through the kernel's inode lock, so several volumes.
 */
START_TEST(interrupts_race_completions)
{
	enum { VOLUMES = 4, ROUNDS = 40 };
	struct sigaction handler = { .sa_handler = on_signal };
	struct fixture volume[VOLUMES];
	unsigned seed = 4711;

	sigaction(SIGUSR1, &handler, NULL);
	for (unsigned v = 0; v < VOLUMES; v++)
		fixture_up(&volume[v], SIZE_BYTES, TESTDEV_DISCARD | (v % 2 ? TESTDEV_THREAD : 0));
	for (unsigned round = 0; round < ROUNDS; round++) {
		pid_t pid[VOLUMES];

		for (unsigned v = 0; v < VOLUMES; v++) {
			unsigned w = (unsigned)rand_r(&seed) % WAITS_INTERRUPTED;

			/* The blocked child works on this one; the rest of it is not ours to copy.
			 */
			f.dev = volume[v].dev;
			memcpy(f.dir, volume[v].dir, sizeof(f.dir));
			memcpy(f.file, volume[v].file, sizeof(f.file));
			testdev_hold(f.dev, waits[w].op);
			pid[v] = blocked_child(waits[w].what, (off_t)round * 4096);
			testdev_wait_held(f.dev, 1);
		}
		for (unsigned v = 0; v < VOLUMES; v++) {
			kill(pid[v], rand_r(&seed) % 2 ? SIGUSR1 : SIGKILL);
			testdev_release(volume[v].dev);
		}
		for (unsigned v = 0; v < VOLUMES; v++) {
			int status;

			ck_assert_int_eq(waitpid(pid[v], &status, 0), pid[v]);
			if (WIFEXITED(status))
				ck_assert(WEXITSTATUS(status) == EINTR || !WEXITSTATUS(status));
		}
	}
	for (unsigned v = 0; v < VOLUMES; v++)
		fixture_down(&volume[v]);
}
END_TEST

START_TEST(growth)
{
	uint64_t size = SIZE_BYTES - 1000;
	struct mount_config conf;
	uint8_t buf[4096];
	struct stat st;
	int fd;

	conf = fixture_prepare(&f, size, 0);
	fill(testdev_bytes(f.dev), size * 2, 31);
	fixture_mount(&f, &conf);
	fd = open_file(O_RDWR);
	ck_assert_int_eq(pread(fd, buf, sizeof(buf), (off_t)size - 100), 100);
	testdev_grow(f.dev);
	mount_size_changed(f.mount);
	ck_ok(fstat(fd, &st));
	ck_assert_int_eq(st.st_size, size * 2);
	ck_assert_int_eq(pread(fd, buf, sizeof(buf), (off_t)size - 100), sizeof(buf));
	ck_assert_mem_eq(buf, testdev_bytes(f.dev) + size - 100, sizeof(buf));
	ck_assert_int_eq(pwrite(fd, "grown", 5, (off_t)size * 2 - 5), 5);
	ck_assert_mem_eq(testdev_bytes(f.dev) + size * 2 - 5, "grown", 5);
	close(fd);
	fixture_down(&f);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("mount-io");
	TCase *tc = tcase_create("io");
	int r = fixture_enter();

	if (r)
		return r;
	tcase_set_timeout(tc, 60);
	tcase_add_loop_test(tc, buffered_and_direct, 0, 2);
	tcase_add_loop_test(tc, unaligned_writes, 0, 2);
	tcase_add_loop_test(tc, the_end, 0, 2);
	tcase_add_loop_test(tc, truncate_changes_nothing, 0, 2);
	tcase_add_loop_test(tc, flush_and_fua, 0, 2);
	tcase_add_loop_test(tc, memory_map, 0, 2);
	tcase_add_loop_test(tc, punch_and_zero, 0, 2);
	tcase_add_test(tc, punch_not_supported);
	tcase_add_test(tc, seek);
	tcase_add_loop_test(tc, depth_beyond_threads, 0, 2);
	tcase_add_loop_test(tc, killed, 0, (int)ARRAY_SIZE(waits));
	tcase_add_loop_test(tc, interrupted, 0, WAITS_INTERRUPTED);
	tcase_add_test(tc, interrupts_race_completions);
	tcase_add_test(tc, growth);
	suite_add_tcase(suite, tc);
	return run_suite(suite);
}
