// SPDX-License-Identifier: Apache-2.0
/* Local I/O on a real directory, each test with the ring and with the pool alone. */
#include "cache/lio.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "tests/lib/scratch.h"
#include "tests/lib/run.h"

#define PAGE 4096u
#define DEEP 700 /* more than the ring takes at once */

static const char *base;
static char dir[300];
static struct lio *lio;

static void open_lio(int no_ring)
{
	struct err err = { .text = "" };

	setenv("NEARBLK_NO_URING", no_ring ? "1" : "0", 1);
	ck_assert_int_eq(lio_posix_mkdir(dir, &err), 0);
	ck_assert_msg(lio_posix_open(dir, 3, &lio, &err) == 0, "%s", err.text);
}

static struct lio_file *open_file(const char *name)
{
	struct lio_file *f;

	ck_assert_int_eq(lio_open(lio, name, LIO_CREATE, &f), 0);
	return f;
}

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t ended = PTHREAD_COND_INITIALIZER;
static unsigned running; /* guarded by lock */

struct io {
	struct lio_op op;
	struct iovec iov[2];
	int result;
	uint8_t buf[PAGE];
};

static void io_done(struct lio_op *op, int result)
{
	guard(&lock); /* never inside submit: the caller holds it there, and this would deadlock */
	container_of(op, struct io, op)->result = result;
	running--;
	pthread_cond_signal(&ended);
}

static void io_start(struct io *io, enum lio_kind kind, struct lio_file *f, uint64_t offset)
{
	io->iov[0] = (struct iovec){ .iov_base = io->buf, .iov_len = 100 };
	io->iov[1] = (struct iovec){ .iov_base = io->buf + 100, .iov_len = PAGE - 100 };
	io->op = (struct lio_op){
		.kind = kind,
		.file = f,
		.offset = offset,
		.iov = io->iov,
		.iovcnt = kind == LIO_SYNC ? 0 : 2,
		.done = io_done,
	};
	guard(&lock);
	running++;
	lio_submit(lio, &io->op);
}

static void io_wait(void)
{
	guard(&lock);
	while (running)
		pthread_cond_wait(&ended, &lock);
}

static uint8_t value_of(uint64_t i, uint64_t at)
{
	return (uint8_t)(1 + (i * 7 + at) % 251);
}

/* Drop what is clean from the page cache, so that reads go to the disk where there is one. */
static void drop_cache(const char *name)
{
	char path[400];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = open(path, O_RDONLY);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
	close(fd);
}

START_TEST(test_deep)
{
	struct io *io = calloc(DEEP, sizeof(*io));
	uint8_t want[PAGE];
	struct lio_file *f;
	int r;

	open_lio(_i);
	f = open_file("seg");
	for (uint64_t i = 0; i < DEEP; i++) {
		for (uint64_t at = 0; at < PAGE; at++)
			io[i].buf[at] = value_of(i, at);
		io_start(&io[i], LIO_WRITE, f, i * PAGE);
	}
	io_wait();
	for (uint64_t i = 0; i < DEEP; i++)
		ck_assert_int_eq(io[i].result, 0);
	ck_assert_int_eq(lio_try_read(lio, f, io[3].iov, 2, 0), 0);
	ck_assert_uint_eq(io[3].buf[9], value_of(0, 9));
	io_start(&io[0], LIO_SYNC, f, 0);
	io_wait();
	ck_assert_int_eq(io[0].result, 0);
	drop_cache("seg");
	for (uint64_t i = 0; i < DEEP; i++) {
		memset(io[i].buf, 0, PAGE);
		io_start(&io[i], LIO_READ, f, (DEEP - 1 - i) * PAGE);
	}
	io_wait();
	for (uint64_t i = 0; i < DEEP; i++) {
		ck_assert_int_eq(io[i].result, 0);
		for (uint64_t at = 0; at < PAGE; at++)
			want[at] = value_of(DEEP - 1 - i, at);
		ck_assert_mem_eq(io[i].buf, want, PAGE);
	}
	drop_cache("seg");
	r = lio_try_read(lio, f, io[3].iov, 2, 99 * PAGE);
	ck_assert(r == -EAGAIN || r == 0);
	lio_close(lio, f);
	lio_destroy(lio);
	free(io);
}
END_TEST

START_TEST(test_ends_and_errors)
{
	struct io io;
	struct lio_file *f;
	struct rlimit limit = { .rlim_cur = 3 * PAGE / 2, .rlim_max = RLIM_INFINITY };
	struct rlimit old;
	uint64_t bytes;

	open_lio(_i);
	f = open_file("seg");
	memset(io.buf, 5, PAGE);
	io_start(&io, LIO_WRITE, f, PAGE);
	io_wait();
	io_start(&io, LIO_READ, f, PAGE + 1); /* one byte too far */
	io_wait();
	ck_assert_int_eq(io.result, -ENODATA);
	io_start(&io, LIO_READ, f, 9 * PAGE);
	io_wait();
	ck_assert_int_eq(io.result, -ENODATA);
	ck_assert_int_eq(lio_try_read(lio, f, io.iov, 2, 9 * PAGE), -ENODATA);
	ck_assert_int_eq(lio_read_sync(lio, f, io.buf, 10, 2 * PAGE - 9), -ENODATA);
	ck_assert_int_eq(lio_read_sync(lio, f, io.buf, 10, 2 * PAGE - 10), 0);
	ck_assert_int_eq(lio_fdatasync(lio, f), 0);
	ck_assert_int_eq(lio_size(lio, f, &bytes), 0);
	ck_assert_uint_eq(bytes, 2 * PAGE);
	ck_assert_int_eq(lio_truncate(lio, f, 0), 0);
	/* The kernel takes half of it, then refuses: a short write and an error. */
	signal(SIGXFSZ, SIG_IGN);
	ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &old), 0);
	ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
	io_start(&io, LIO_WRITE, f, PAGE);
	io_wait();
	ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &old), 0);
	ck_assert_int_eq(io.result, -EFBIG);
	ck_assert_int_eq(lio_size(lio, f, &bytes), 0);
	ck_assert_uint_eq(bytes, 3 * PAGE / 2);
	ck_assert_int_eq(lio_free_bytes(lio, &bytes), 0);
	ck_assert_uint_gt(bytes, 0);
	lio_close(lio, f);
	lio_destroy(lio);
}
END_TEST

static int count_name(void *ctx, const char *name)
{
	ck_assert_str_ne(name, "lock");
	ck_assert_str_ne(name, "run");
	ck_assert_str_ne(name, "index");
	++*(int *)ctx;
	return 0;
}

static int stop_at_first(void *ctx, const char *name)
{
	(void)ctx;
	(void)name;
	return -EINTR;
}

START_TEST(test_names)
{
	char path[400];
	struct lio_file *f;
	int seen = 0;

	open_lio(_i);
	ck_assert_int_eq(lio_open(lio, "a", 0, &f), -ENOENT);
	ck_assert_int_eq(lio_open(lio, "a", LIO_CREATE | LIO_EXCL, &f), 0);
	lio_close(lio, f);
	ck_assert_int_eq(lio_open(lio, "a", LIO_CREATE | LIO_EXCL, &f), -EEXIST);
	/* The directory may move: names follow it. */
	snprintf(path, sizeof(path), "%s/moved", base);
	ck_assert_int_eq(rename(dir, path), 0);
	lio_close(lio, open_file("b"));
	ck_assert_int_eq(rename(path, dir), 0);
	snprintf(path, sizeof(path), "%s/index", dir);
	ck_assert_int_eq(mkdir(path, 0700), 0);
	ck_assert_int_eq(lio_list(lio, count_name, &seen), 0);
	ck_assert_int_eq(lio_list(lio, count_name, &seen), 0);
	ck_assert_int_eq(seen, 4);
	ck_assert_int_eq(lio_list(lio, stop_at_first, NULL), -EINTR);
	ck_assert_int_eq(lio_rename(lio, "a", "b"), 0);
	ck_assert_int_eq(lio_rename(lio, "a", "b"), -ENOENT);
	ck_assert_int_eq(lio_unlink(lio, "b"), 0);
	ck_assert_int_eq(lio_unlink(lio, "b"), -ENOENT);
	ck_assert_int_eq(lio_sync_dir(lio), 0);
	lio_destroy(lio);
}
END_TEST

START_TEST(test_claims)
{
	struct err err = { .text = "" };
	struct lio *other;
	char pid[32];
	char path[400];

	ck_assert_int_eq(lio_posix_open(dir, 1, &other, &err), -ENOENT);
	ck_assert_ptr_nonnull(strstr(err.text, dir));
	open_lio(0);
	ck_assert_int_eq(lio_posix_open(dir, 1, &other, &err), -EBUSY);
	snprintf(pid, sizeof(pid), "process %ld", (long)getpid());
	ck_assert_ptr_nonnull(strstr(err.text, pid));
	lio_destroy(lio);
	ck_assert_int_eq(chmod(dir, 0750), 0);
	ck_assert_int_eq(lio_posix_open(dir, 1, &other, &err), -EPERM);
	ck_assert_ptr_nonnull(strstr(err.text, "chmod 700"));
	ck_assert_int_eq(chmod(dir, 0700), 0);
	snprintf(path, sizeof(path), "%s/lock", dir);
	ck_assert_int_eq(lio_posix_open(path, 1, &other, &err), -ENOTDIR);
	ck_assert_int_eq(lio_posix_mkdir(path, &err), -ENOTDIR);
	snprintf(path, sizeof(path), "%s/x/y/z", base);
	ck_assert_int_eq(lio_posix_mkdir(path, &err), 0);
	ck_assert_int_eq(lio_posix_open(path, 16, &other, &err), 0);
	lio_destroy(other);
}
END_TEST

START_TEST(test_words)
{
	char path[400];
	int status;
	pid_t pid;
	int fd;

	open_lio(0);
	ck_assert(!lio->same_boot);
	ck_assert_uint_eq(lio_word(lio, 3), 0);
	lio_destroy(lio);
	pid = fork();
	if (pid == 0) {
		open_lio(0);
		lio_set_word(lio, 3, 0x1122334455667788ull);
		kill(getpid(), SIGKILL);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	open_lio(0); /* the lock went with the process */
	ck_assert(lio->same_boot);
	ck_assert_uint_eq(lio_word(lio, 3), 0x1122334455667788ull);
	lio_destroy(lio);
	/* Another boot. */
	snprintf(path, sizeof(path), "%s/run", dir);
	fd = open(path, O_RDWR);
	ck_assert_int_eq(pwrite(fd, "x", 1, 10), 1);
	close(fd);
	open_lio(0);
	ck_assert(!lio->same_boot);
	ck_assert_uint_eq(lio_word(lio, 3), 0);
	lio_destroy(lio);
	open_lio(0);
	ck_assert(lio->same_boot);
	lio_destroy(lio);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("lio");
	TCase *tc = tcase_create("lio");
	int status;

	base = scratch_create();
	snprintf(dir, sizeof(dir), "%s/cache", base);
	tcase_add_checked_fixture(tc, scratch_clear, NULL);
	tcase_add_loop_test(tc, test_deep, 0, 2);
	tcase_add_loop_test(tc, test_ends_and_errors, 0, 2);
	tcase_add_loop_test(tc, test_names, 0, 2);
	tcase_add_test(tc, test_claims);
	tcase_add_test(tc, test_words);
	tcase_set_timeout(tc, 60);
	suite_add_tcase(s, tc);
	status = run_suite(s);
	scratch_remove();
	return status;
}
