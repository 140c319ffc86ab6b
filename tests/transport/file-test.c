// SPDX-License-Identifier: Apache-2.0
#include "transport/file.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "tests/lib/run.h"
#include "tests/lib/scratch.h"

#define SIZE (8u << 20)

static const char *dir;
static char path[PATH_MAX];
static struct leaf_config conf;

/* Stands in for libc's: a disk that fails, and one that takes its time. */
static atomic_int sync_error;
static atomic_uint syncs;
static pthread_mutex_t sync_gate = PTHREAD_MUTEX_INITIALIZER;

int fdatasync(int fd)
{
	atomic_fetch_add(&syncs, 1);
	pthread_mutex_lock(&sync_gate);
	pthread_mutex_unlock(&sync_gate);
	if (atomic_load(&sync_error)) {
		errno = atomic_exchange(&sync_error, 0);
		return -1;
	}
	return (int)syscall(SYS_fdatasync, fd);
}

static void make(uint64_t size)
{
	cleanup_close int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(ftruncate(fd, (off_t)size), 0);
}

static void setup(void)
{
	snprintf(path, sizeof(path), "%s/disk.img", dir);
	memset(&conf, 0, sizeof(conf));
	conf.url.scheme = URL_FILE;
	strcpy(conf.url.path, path);
}

static void teardown(void)
{
	unlink(path);
}

static struct blk_dev *create(void)
{
	struct blk_dev *dev = NULL;

	ck_assert_int_eq(file_create(&conf, &dev, NULL), 0);
	return dev;
}

static struct blk_dev *start(void)
{
	struct blk_dev *dev = create();
	struct err err = { "" };
	int r = blk_start(dev, &err);

	ck_assert_msg(r == 0, "%d: %s", r, err.text);
	return dev;
}

static void refused(int code, const char *says)
{
	struct blk_dev *dev = create();
	struct err err = { "" };

	ck_assert_int_eq(blk_start(dev, &err), code);
	ck_assert_msg(strstr(err.text, says) != NULL, "%s", err.text);
	ck_assert_msg(strstr(err.text, conf.url.path) != NULL, "%s", err.text);
	blk_destroy(dev);
}

static void pattern(uint8_t *buf, uint64_t offset, size_t length, unsigned generation)
{
	for (size_t i = 0; i < length; i++)
		buf[i] = (uint8_t)(((offset + i) * 31 + generation * 7 + (offset + i) / 251) % 255 +
				   1);
}

static void check_disk(uint64_t offset, const uint8_t *want, size_t length)
{
	cleanup_close int fd = open(path, O_RDONLY);
	cleanup_free uint8_t *got = malloc(length);

	ck_assert_int_eq(pread(fd, got, length, (off_t)offset), (ssize_t)length);
	ck_assert_mem_eq(got, want, length);
}

START_TEST(test_round_trip)
{
	static uint8_t out[1u << 20], in[1u << 20];
	struct blk_dev *dev;
	struct blk_info info;
	struct blk_stats stats;

	make(SIZE);
	dev = start();
	blk_info(dev, &info);
	ck_assert_uint_eq(info.size_bytes, SIZE);
	ck_assert_uint_eq(info.sector_bytes, 512);
	ck_assert(info.flags & BLK_INFO_VOLATILE);
	ck_assert(!(info.flags & BLK_INFO_READ_ONLY));
	pattern(out, 512, sizeof(out), 1);
	ck_assert_int_eq(blk_write_sync(dev, out, 512, sizeof(out), 0), 0);
	ck_assert_int_eq(blk_read_sync(dev, in, 512, sizeof(in)), 0);
	ck_assert_mem_eq(in, out, sizeof(in));
	ck_assert_int_eq(blk_flush_sync(dev), 0);
	check_disk(512, out, sizeof(out));
	pattern(out, SIZE - 4096, 4096, 2);
	ck_assert_int_eq(blk_write_sync(dev, out, SIZE - 4096, 4096, BLK_FUA), 0);
	check_disk(SIZE - 4096, out, 4096);
	ck_assert_int_eq(blk_write_sync(dev, out, SIZE - 512, 1024, 0), -ENOSPC);
	ck_assert_int_eq(blk_read_sync(dev, in, SIZE, 512), -EINVAL);
	ck_assert_int_eq(blk_read_sync(dev, in, 100, 512), -EINVAL);
	blk_stats(dev, &stats);
	ck_assert_uint_eq(stats.read_bytes, sizeof(in));
	ck_assert_uint_eq(stats.write_bytes, sizeof(out) + 4096);
	ck_assert_uint_eq(blk_generation(dev), 1);
	blk_stop(dev);
	ck_assert_int_eq(blk_flush_sync(dev), -ESHUTDOWN);
	ck_assert_int_eq(blk_read_sync(dev, in, 0, 512), -ESHUTDOWN);
	blk_stop(dev);
	blk_destroy(dev);
}
END_TEST

struct many {
	struct blk_req req;
	struct iovec iov[200];
	atomic_int *left;
	pthread_mutex_t *lock;
	pthread_cond_t *all;
	int result;
};

static void one_done(struct blk_req *req, void *ctx, int result)
{
	struct many *m = ctx;

	ck_assert_ptr_eq(req, &m->req);
	guard(m->lock);
	m->result = result;
	if (atomic_fetch_sub(m->left, 1) == 1)
		pthread_cond_signal(m->all);
}

/* Many at once, in pieces that need more than one system call, empty pieces among them. */
START_TEST(test_many_iovecs)
{
	enum { N = 64, LENGTH = 32768 };
	static struct many many[N];
	static uint8_t out[N * LENGTH], in[N * LENGTH];
	pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	pthread_cond_t all = PTHREAD_COND_INITIALIZER;
	struct blk_dev *dev;
	atomic_int left;

	make(SIZE);
	dev = start();
	pattern(out, 0, sizeof(out), 3);
	for (int op = BLK_WRITE; op >= BLK_READ; op--) {
		atomic_store(&left, N);
		for (unsigned i = 0; i < N; i++) {
			uint8_t *at = (op == BLK_WRITE ? out : in) + i * LENGTH;
			unsigned k = 0, used = 0;

			for (; k < 199; k++) {
				many[i].iov[k] = (struct iovec){ at + used, k % 3 * 77 };
				used += k % 3 * 77;
			}
			many[i].iov[k] = (struct iovec){ at + used, LENGTH - used };
			many[i].left = &left;
			many[i].lock = &lock;
			many[i].all = &all;
			blk_req_init(&many[i].req, (enum blk_op)op, i * LENGTH, LENGTH, many[i].iov,
				     200);
			many[i].req.lane = (enum blk_lane)(i % BLK_LANE_COUNT);
			blk_submit(dev, &many[i].req, one_done, &many[i]);
		}
		pthread_mutex_lock(&lock);
		while (atomic_load(&left))
			pthread_cond_wait(&all, &lock);
		pthread_mutex_unlock(&lock);
		for (unsigned i = 0; i < N; i++)
			ck_assert_int_eq(many[i].result, 0);
	}
	ck_assert_mem_eq(in, out, sizeof(in));
	check_disk(0, out, sizeof(out));
	blk_destroy(dev);
}
END_TEST

START_TEST(test_zero_and_discard)
{
	static uint8_t out[1u << 20], in[1u << 20];
	struct blk_dev *dev;
	struct blk_info info;
	struct stat before, after;

	make(SIZE);
	dev = start();
	blk_info(dev, &info);
	pattern(out, 0, sizeof(out), 4);
	ck_assert_int_eq(blk_write_sync(dev, out, 0, sizeof(out), 0), 0);
	ck_assert_int_eq(blk_zero_sync(dev, 512, 70000 / 512 * 512), 0);
	memset(out + 512, 0, 70000 / 512 * 512);
	ck_assert_int_eq(blk_read_sync(dev, in, 0, sizeof(in)), 0);
	ck_assert_mem_eq(in, out, sizeof(in));
	if (info.flags & BLK_INFO_CAN_DISCARD) {
		stat(path, &before);
		ck_assert_int_eq(blk_discard_sync(dev, 131072 + 512, 524288), 0);
		memset(out + 131072 + 512, 0, 524288);
		ck_assert_int_eq(blk_read_sync(dev, in, 0, sizeof(in)), 0);
		ck_assert_mem_eq(in, out, sizeof(in));
		stat(path, &after);
		ck_assert_int_lt(after.st_blocks, before.st_blocks);
		ck_assert_int_eq(blk_discard_sync(dev, 0, 512 * 3), 0);
	} else {
		ck_assert_int_eq(blk_discard_sync(dev, 0, 4096), -EOPNOTSUPP);
	}
	ck_assert_int_eq(blk_zero_sync(dev, SIZE - 512, 1024), -ENOSPC);
	ck_assert_int_eq(blk_zero_sync(dev, 0, SIZE), 0);
	stat(path, &after);
	ck_assert_int_eq(after.st_size, SIZE);
	blk_destroy(dev);
}
END_TEST

START_TEST(test_failed_flush_moves_the_generation)
{
	uint8_t buf[512] = { 1 };
	struct blk_dev *dev;

	make(SIZE);
	dev = start();
	ck_assert_int_eq(blk_write_sync(dev, buf, 0, 512, 0), 0);
	ck_assert_uint_eq(blk_generation(dev), 1);
	atomic_store(&sync_error, EIO);
	ck_assert_int_eq(blk_flush_sync(dev), -EIO);
	ck_assert_uint_eq(blk_generation(dev), 2);
	/* The kernel says it once; a caller that only looked at this result would lose data. */
	ck_assert_int_eq(blk_flush_sync(dev), 0);
	ck_assert_uint_eq(blk_generation(dev), 2);
	atomic_store(&sync_error, ENOSPC);
	ck_assert_int_eq(blk_flush_sync(dev), -EIO);
	ck_assert_uint_eq(blk_generation(dev), 3);
	blk_destroy(dev);
}
END_TEST

/* While one flush is under way others gather; one more system call answers them all, and a failure
 * reaches each of them. */
START_TEST(test_flushes_gather)
{
	enum { N = 20 };
	static struct many many[N];
	pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	pthread_cond_t all = PTHREAD_COND_INITIALIZER;
	struct blk_dev *dev;
	atomic_int left = N;

	make(SIZE);
	dev = start();
	atomic_store(&syncs, 0);
	pthread_mutex_lock(&sync_gate);
	for (unsigned i = 0; i < N; i++) {
		many[i].left = &left;
		many[i].lock = &lock;
		many[i].all = &all;
		blk_req_init(&many[i].req, BLK_FLUSH, 0, 0, NULL, 0);
		blk_submit(dev, &many[i].req, one_done, &many[i]);
		while (i == 0 && atomic_load(&syncs) == 0)
			sched_yield();
	}
	/* One of those that wait is called off. */
	blk_cancel(dev, &many[7].req);
	ck_assert_int_eq(many[7].result, -EINTR);
	ck_assert_uint_eq(atomic_load(&syncs), 1);
	pthread_mutex_unlock(&sync_gate);
	pthread_mutex_lock(&lock);
	while (atomic_load(&left))
		pthread_cond_wait(&all, &lock);
	pthread_mutex_unlock(&lock);
	ck_assert_uint_eq(atomic_load(&syncs), 2);
	for (unsigned i = 0; i < N; i++)
		ck_assert_int_eq(many[i].result, i == 7 ? -EINTR : 0);
	blk_destroy(dev);
}
END_TEST

START_TEST(test_stop_with_work)
{
	static struct many many[3];
	pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	pthread_cond_t all = PTHREAD_COND_INITIALIZER;
	struct blk_dev *dev = create();
	atomic_int left = 3;

	/* Never started: nobody takes them, and still each comes back once. */
	for (unsigned i = 0; i < 3; i++) {
		many[i].left = &left;
		many[i].lock = &lock;
		many[i].all = &all;
		blk_req_init(&many[i].req, BLK_FLUSH, 0, 0, NULL, 0);
		blk_submit(dev, &many[i].req, one_done, &many[i]);
	}
	blk_destroy(dev);
	ck_assert_int_eq(atomic_load(&left), 0);
	for (unsigned i = 0; i < 3; i++)
		ck_assert_int_eq(many[i].result, -ESHUTDOWN);
}
END_TEST

START_TEST(test_refusals)
{
	char link[sizeof(path) + 8];

	refused(-ENOENT, "does not exist");
	make(0);
	refused(-EINVAL, "is empty");
	make(1000);
	refused(-EINVAL, "truncate -s 1024");
	strcpy(conf.url.path, dir);
	refused(-EISDIR, "is a directory");
	conf.read_only = true;
	refused(-EISDIR, "is a directory");
	strcpy(conf.url.path, "/dev/null");
	refused(-EINVAL, "neither a file nor a block device");
	snprintf(link, sizeof(link), "%s/fifo", dir);
	ck_assert_int_eq(mkfifo(link, 0600), 0);
	strcpy(conf.url.path, link);
	refused(-EINVAL, "neither a file nor a block device");
	unlink(link);
	conf.read_only = false;
	strcpy(conf.url.path, "/proc/version");
	refused(geteuid() ? -EACCES : -EINVAL, geteuid() ? "may not be opened" : "is empty");
}
END_TEST

START_TEST(test_locks)
{
	struct blk_dev *dev, *other;

	make(SIZE);
	dev = start();
	refused(-EBUSY, "is locked by another program");
	conf.read_only = true;
	refused(-EBUSY, "is locked by another program");
	blk_destroy(dev);
	dev = start();
	other = start(); /* readers share */
	conf.read_only = false;
	refused(-EBUSY, "is locked by another program");
	blk_destroy(dev);
	blk_destroy(other);
	blk_destroy(start());
}
END_TEST

START_TEST(test_read_only)
{
	uint8_t buf[512] = { 7 };
	struct blk_dev *dev;
	struct blk_info info;

	make(SIZE);
	chmod(path, 0400);
	conf.read_only = true;
	dev = start();
	blk_info(dev, &info);
	ck_assert_uint_eq(info.flags, BLK_INFO_READ_ONLY);
	ck_assert_int_eq(blk_write_sync(dev, buf, 0, 512, 0), -EROFS);
	ck_assert_int_eq(blk_zero_sync(dev, 0, 512), -EROFS);
	ck_assert_int_eq(blk_discard_sync(dev, 0, 512), -EROFS);
	ck_assert_int_eq(blk_read_sync(dev, buf, 0, 512), 0);
	ck_assert_uint_eq(buf[0], 0);
	ck_assert_int_eq(blk_flush_sync(dev), 0);
	blk_destroy(dev);
}
END_TEST

/* Bytes that are gone behind our back are an error, never zeroes. */
START_TEST(test_file_shrinks)
{
	uint8_t buf[4096];
	struct blk_dev *dev;

	make(SIZE);
	dev = start();
	ck_assert_int_eq(truncate(path, 4096 + 512), 0);
	ck_assert_int_eq(blk_read_sync(dev, buf, 0, 4096), 0);
	ck_assert_int_eq(blk_read_sync(dev, buf, 4096, 4096), -EIO);
	ck_assert_int_eq(blk_read_sync(dev, buf, 8192, 4096), -EIO);
	blk_destroy(dev);
}
END_TEST

START_TEST(test_identity)
{
	char odd[PATH_MAX], moved[PATH_MAX + 8];
	struct blk_info a, b;
	struct blk_dev *dev;

	make(SIZE);
	dev = start();
	blk_info(dev, &a);
	blk_destroy(dev);
	ck_assert_ptr_nonnull(strstr(a.identity, path));
	ck_assert(strncmp(a.identity, "file:inode=", 11) == 0);
	dev = start();
	blk_info(dev, &b);
	blk_destroy(dev);
	ck_assert_str_eq(a.identity, b.identity);

	/* Another file with the same name is another volume. */
	snprintf(moved, sizeof(moved), "%s.old", path);
	ck_assert_int_eq(rename(path, moved), 0);
	make(SIZE);
	dev = start();
	blk_info(dev, &b);
	blk_destroy(dev);
	ck_assert_str_ne(a.identity, b.identity);
	unlink(moved);

	/* Long, and not ASCII: still bounded, printable and particular. */
	memset(odd, 0, sizeof(odd));
	snprintf(odd, sizeof(odd), "%s/", dir);
	memset(odd + strlen(odd), 0xe4, 240);
	ck_assert_int_eq(rename(path, odd), 0);
	strcpy(conf.url.path, odd);
	dev = start();
	blk_info(dev, &b);
	blk_destroy(dev);
	unlink(odd);
	ck_assert_uint_lt(strlen(b.identity), BLK_IDENTITY_MAX);
	for (const char *p = b.identity; *p; p++)
		ck_assert(*p > 0x20 && *p < 0x7f);
	ck_assert_ptr_nonnull(strchr(b.identity, '~'));
}
END_TEST

/* A loop device, where this machine gives one. */
START_TEST(test_block_device)
{
	char command[PATH_MAX + 64], name[64] = "";
	static uint8_t out[65536], in[65536];
	struct blk_info info;
	struct blk_dev *dev;
	FILE *p;

	make(SIZE);
	snprintf(command, sizeof(command), "losetup --find --show %s 2>/dev/null", path);
	p = popen(command, "r");
	if (!p || !fgets(name, sizeof(name), p))
		name[0] = '\0';
	if (p)
		pclose(p);
	if (!name[0])
		return;
	name[strcspn(name, "\n")] = '\0';
	strcpy(conf.url.path, name);
	dev = start();
	/* In use, it goes with the last who has it open: also when this test fails. */
	snprintf(command, sizeof(command), "losetup --detach %s", name);
	ck_assert_int_eq(system(command), 0);
	blk_info(dev, &info);
	ck_assert_uint_eq(info.size_bytes, SIZE);
	ck_assert(strncmp(info.identity, "block:whole:", 12) == 0);
	refused(-EBUSY, name);
	pattern(out, 4096, sizeof(out), 5);
	ck_assert_int_eq(blk_write_sync(dev, out, 4096, sizeof(out), BLK_FUA), 0);
	ck_assert_int_eq(blk_zero_sync(dev, 8192, 4096), 0);
	memset(out + 4096, 0, 4096);
	if (info.flags & BLK_INFO_CAN_DISCARD) {
		ck_assert_int_eq(blk_discard_sync(dev, 16384, 4096), 0);
		memset(out + 12288, 0, 4096);
	}
	ck_assert_int_eq(blk_flush_sync(dev), 0);
	ck_assert_int_eq(blk_read_sync(dev, in, 4096, sizeof(in)), 0);
	ck_assert_mem_eq(in, out, sizeof(in));
	blk_destroy(dev);
	check_disk(4096, out, sizeof(out));
}
END_TEST

int main(void)
{
	Suite *s = suite_create("file");
	TCase *tc = tcase_create("file");
	int status;

	dir = scratch_create();
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, test_round_trip);
	tcase_add_test(tc, test_many_iovecs);
	tcase_add_test(tc, test_zero_and_discard);
	tcase_add_test(tc, test_failed_flush_moves_the_generation);
	tcase_add_test(tc, test_flushes_gather);
	tcase_add_test(tc, test_stop_with_work);
	tcase_add_test(tc, test_refusals);
	tcase_add_test(tc, test_locks);
	tcase_add_test(tc, test_read_only);
	tcase_add_test(tc, test_file_shrinks);
	tcase_add_test(tc, test_identity);
	tcase_add_test(tc, test_block_device);
	suite_add_tcase(s, tc);
	status = run_suite(s);
	scratch_remove();
	return status;
}
