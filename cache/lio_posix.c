// SPDX-License-Identifier: Apache-2.0
/*
 * Local I/O of the product. Writes and fdatasync go to a small pool of threads,
 * reads to the ring of lio_uring.c where there is one, else to the pool too: on
 * ext4 a buffered 8 KiB append took 32 us through the pool and 73 us through
 * io_uring (the kernel punts it to a worker of its own), fdatasync the same either
 * way; reads are what a ring does without a thread for each.
 *
 * An operation is in `queue`, or in the ring, or with one thread; done() runs
 * with no lock held. All names are relative to dir_fd, so that the directory may be
 * renamed while in use.
 *
 * "run": magic, boot id, words. A page of the page cache outlives kill -9, and the boot id says
 * whether it is still the one that was written. It is written and not mapped: a store to a page
 * whose file system has become full or read-only, or whose file somebody cut short, is a SIGBUS.
 */
#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "cache/lio.h"
#include "cache/lio_uring.h"
#include "core/block.h"
#include "core/cleanup.h"

#define MAX_THREADS 16
#define RUN_BYTES 4096
#define BOOT_ID_BYTES 40

static const char lock_name[] = "lock";
static const char run_name[] = "run";
static const char run_magic[8] = { 'N', 'B', 'R', 'U', 'N', '0', '0', '2' };

struct run_page {
	char magic[8];
	char boot_id[BOOT_ID_BYTES];
	_Atomic uint64_t words[LIO_WORDS];
};

struct posix {
	struct lio lio;
	int dir_fd;
	int lock_fd; /* its flock is the claim on the directory */
	int run_fd;
	struct run_page run;
	struct lio_ring *ring; /* NULL: reads go to the pool */
	pthread_mutex_t lock;
	pthread_cond_t wake;
	struct list_node queue; /* struct lio_op.link; guarded by lock */
	bool stopping;          /* guarded by lock */
	unsigned threads;
	pthread_t thread[MAX_THREADS];
};

static struct posix *from_lio(struct lio *lio)
{
	return container_of(lio, struct posix, lio);
}

/* All of it, however the kernel cuts it. */
static int transfer(int fd, enum lio_kind kind, const struct iovec *iov, int iovcnt,
		    uint64_t offset)
{
	size_t total = iov_length(iov, iovcnt);
	const struct iovec *rest = iov;
	struct iovec cut[LIO_MAX_IOV];
	int count = iovcnt;

	for (size_t at = 0; at < total;) {
		off_t where = (off_t)(offset + at);
		ssize_t n = kind == LIO_READ ? preadv(fd, rest, count, where)
					     : pwritev(fd, rest, count, where);

		if (n < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return kind == LIO_READ ? -ENODATA : -EIO;
		at += (size_t)n;
		if (at < total) {
			count = iov_slice(iov, iovcnt, at, total - at, cut, LIO_MAX_IOV);
			rest = cut;
		}
	}
	return 0;
}

static int do_io(enum lio_kind kind, struct lio_file *file, const struct iovec *iov, int iovcnt,
		 uint64_t offset)
{
	if (kind != LIO_SYNC)
		return transfer(file->fd, kind, iov, iovcnt, offset);
	while (fdatasync(file->fd) < 0)
		if (errno != EINTR) /* nothing else may be tried again: the pages are gone */
			return -errno;
	return 0;
}

/* A sync of a file that nobody can find again is worth nothing. */
static int io(struct posix *p, enum lio_kind kind, struct lio_file *file, const struct iovec *iov,
	      int iovcnt, uint64_t offset)
{
	struct stat st;

	if (kind == LIO_SYNC && fstat(file->fd, &st) == 0 && st.st_nlink == 0)
		atomic_store(&p->lio.gone, true);
	return do_io(kind, file, iov, iovcnt, offset);
}

static void *worker(void *arg)
{
	struct posix *p = arg;

	pthread_setname_np(pthread_self(), "nb-lio");
	pthread_mutex_lock(&p->lock);
	for (;;) {
		struct list_node *n = list_pop(&p->queue);

		if (n) {
			struct lio_op *op = list_entry(n, struct lio_op, link);

			pthread_mutex_unlock(&p->lock);
			op->done(op, io(p, op->kind, op->file, op->iov, op->iovcnt, op->offset));
			pthread_mutex_lock(&p->lock);
		} else if (p->stopping) {
			break;
		} else {
			pthread_cond_wait(&p->wake, &p->lock);
		}
	}
	pthread_mutex_unlock(&p->lock);
	return NULL;
}

static void enqueue(void *ctx, struct lio_op *op)
{
	struct posix *p = ctx;

	guard(&p->lock);
	list_add_tail(&p->queue, &op->link);
	pthread_cond_signal(&p->wake);
}

static void posix_submit(struct lio *lio, struct lio_op *op)
{
	struct posix *p = from_lio(lio);

	assert(op->iovcnt <= LIO_MAX_IOV && (op->iovcnt >= 1 || op->kind == LIO_SYNC));
	list_init(&op->link);
	if (op->kind == LIO_READ && p->ring)
		lio_ring_read(p->ring, op);
	else
		enqueue(p, op);
}

static int posix_try_read(struct lio *lio, struct lio_file *file, const struct iovec *iov,
			  int iovcnt, uint64_t offset)
{
	size_t total = iov_length(iov, iovcnt);
	ssize_t n = preadv2(file->fd, iov, iovcnt, (off_t)offset, RWF_NOWAIT);

	(void)lio;
	if (n < 0)
		return errno == EOPNOTSUPP || errno == EINTR ? -EAGAIN : -errno;
	if ((size_t)n == total)
		return 0;
	return n == 0 ? -ENODATA : -EAGAIN; /* cut short: by what is not cached, or by the end */
}

static int posix_sync_io(struct lio *lio, enum lio_kind kind, struct lio_file *file,
			 const struct iovec *iov, int iovcnt, uint64_t offset)
{
	return io(from_lio(lio), kind, file, iov, iovcnt, offset);
}

static int posix_open(struct lio *lio, const char *name, unsigned flags, struct lio_file **ret)
{
	int how = O_RDWR | O_CLOEXEC | O_NOFOLLOW;
	struct lio_file *f;

	assert(!strchr(name, '/'));
	if (flags & LIO_CREATE)
		how |= O_CREAT;
	if (flags & LIO_EXCL)
		how |= O_EXCL;
	f = malloc(sizeof(*f));
	if (!f)
		return -ENOMEM;
	f->fd = openat(from_lio(lio)->dir_fd, name, how, 0600);
	if (f->fd < 0) {
		int r = -errno;

		free(f);
		return r;
	}
	*ret = f;
	return 0;
}

static void posix_close(struct lio *lio, struct lio_file *file)
{
	(void)lio;
	close(file->fd);
	free(file);
}

static int posix_size(struct lio *lio, struct lio_file *file, uint64_t *ret_bytes)
{
	struct stat st;

	(void)lio;
	if (fstat(file->fd, &st) < 0)
		return -errno;
	*ret_bytes = (uint64_t)st.st_size;
	return 0;
}

static int posix_truncate(struct lio *lio, struct lio_file *file, uint64_t bytes)
{
	(void)lio;
	while (ftruncate(file->fd, (off_t)bytes) < 0)
		if (errno != EINTR)
			return -errno;
	return 0;
}

static int posix_unlink(struct lio *lio, const char *name)
{
	return unlinkat(from_lio(lio)->dir_fd, name, 0) < 0 ? -errno : 0;
}

static int posix_rename(struct lio *lio, const char *from, const char *to)
{
	int fd = from_lio(lio)->dir_fd;

	return renameat(fd, from, fd, to) < 0 ? -errno : 0;
}

static bool is_plain(int dir_fd, const struct dirent *e)
{
	struct stat st;

	if (!strcmp(e->d_name, lock_name) || !strcmp(e->d_name, run_name))
		return false; /* ours */
	if (e->d_type != DT_UNKNOWN)
		return e->d_type == DT_REG;
	return fstatat(dir_fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode);
}

static int posix_list(struct lio *lio, int (*each)(void *ctx, const char *name), void *ctx)
{
	int dir_fd = from_lio(lio)->dir_fd;
	/* Not a dup: that would share the position with other walks. */
	int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir;
	int r = 0;

	if (fd < 0)
		return -errno;
	dir = fdopendir(fd);
	if (!dir) {
		r = -errno;
		close(fd);
		return r;
	}
	while (!r) {
		const struct dirent *e;

		errno = 0;
		e = readdir(dir);
		if (!e) {
			r = -errno;
			break;
		}
		if (is_plain(dir_fd, e))
			r = each(ctx, e->d_name);
	}
	closedir(dir);
	return r;
}

static int posix_sync_dir(struct lio *lio)
{
	return fsync(from_lio(lio)->dir_fd) < 0 ? -errno : 0;
}

static int posix_free_bytes(struct lio *lio, uint64_t *ret_bytes)
{
	struct statvfs st;

	if (fstatvfs(from_lio(lio)->dir_fd, &st) < 0)
		return -errno;
	*ret_bytes = (uint64_t)st.f_bavail * st.f_frsize;
	return 0;
}

/* What cannot be written now cannot be appended either: nothing hangs on it. */
static void posix_put_word(struct lio *lio, unsigned index)
{
	struct posix *p = from_lio(lio);
	uint64_t value = atomic_load(&p->run.words[index]);

	(void)!pwrite(p->run_fd, &value, sizeof(value),
		      (off_t)(offsetof(struct run_page, words) + index * sizeof(value)));
}

/* Also of a half-open one. */
static void posix_destroy(struct lio *lio)
{
	struct posix *p = from_lio(lio);

	lio_ring_destroy(p->ring); /* first: it gives back to the pool */
	pthread_mutex_lock(&p->lock);
	p->stopping = true;
	pthread_cond_broadcast(&p->wake);
	pthread_mutex_unlock(&p->lock);
	for (unsigned i = 0; i < p->threads; i++)
		pthread_join(p->thread[i], NULL);
	cleanup_closep(&p->run_fd);
	cleanup_closep(&p->lock_fd);
	cleanup_closep(&p->dir_fd);
	pthread_cond_destroy(&p->wake);
	pthread_mutex_destroy(&p->lock);
	free(p);
}

static const struct lio_ops posix_ops = {
	.submit = posix_submit,
	.try_read = posix_try_read,
	.sync_io = posix_sync_io,
	.open = posix_open,
	.close = posix_close,
	.size = posix_size,
	.truncate = posix_truncate,
	.unlink = posix_unlink,
	.rename = posix_rename,
	.list = posix_list,
	.sync_dir = posix_sync_dir,
	.free_bytes = posix_free_bytes,
	.put_word = posix_put_word,
	.destroy = posix_destroy,
};

static int open_dir(struct posix *p, const char *dir, struct err *err)
{
	struct stat st;

	p->dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (p->dir_fd < 0 || fstat(p->dir_fd, &st) < 0) {
		int r = -errno;

		return err_set(err, r, "cannot open the cache directory %s: %s", dir, strerror(-r));
	}
	if (geteuid() != 0 && st.st_uid != geteuid())
		return err_set(
			err, -EPERM,
			"the cache directory %s belongs to another user (uid %u): run as that "
			"user, or choose another with --cache-dir",
			dir, (unsigned)st.st_uid);
	if (st.st_mode & 077)
		return err_set(
			err, -EPERM,
			"the cache directory %s is open to other users (mode %04o): it holds the "
			"volume's data; run chmod 700 on it",
			dir, (unsigned)(st.st_mode & 07777));
	return 0;
}

static int say_busy(int fd, const char *dir, struct err *err)
{
	char text[32];
	ssize_t n = pread(fd, text, sizeof(text) - 1, 0);

	text[n > 0 ? n : 0] = '\0';
	text[strcspn(text, "\n")] = '\0';
	return err_set(err, -EBUSY, "the cache directory %s is in use by process %s", dir,
		       text[0] ? text : "(unknown)");
}

/* The claim. A new directory is made durable with it: else a power cut could take it whole. */
static int take_lock(struct posix *p, const char *dir, struct err *err)
{
	bool is_new = faccessat(p->dir_fd, lock_name, F_OK, 0) < 0;
	cleanup_close int parent = -1;
	char text[32];
	int length;

	p->lock_fd = openat(p->dir_fd, lock_name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (p->lock_fd < 0) {
		int r = -errno;

		return err_set(err, r, "cannot make %s/%s: %s", dir, lock_name, strerror(-r));
	}
	if (flock(p->lock_fd, LOCK_EX | LOCK_NB) < 0) {
		int r = -errno;

		if (r == -EWOULDBLOCK)
			return say_busy(p->lock_fd, dir, err);
		return err_set(err, r, "cannot lock %s/%s: %s", dir, lock_name, strerror(-r));
	}
	/* Only for people to read, so nothing fails with it, not even on a full disk. */
	length = snprintf(text, sizeof(text), "%ld\n", (long)getpid());
	if (pwrite(p->lock_fd, text, (size_t)length, 0) == length)
		(void)!ftruncate(p->lock_fd, length);
	if (!is_new)
		return 0;
	parent = openat(p->dir_fd, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (parent >= 0)
		fsync(parent);
	return 0;
}

/* Empty where the system does not tell: then no boot is ever the same. */
static void read_boot_id(char *id)
{
	cleanup_close int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, id, BOOT_ID_BYTES - 1);

	memset(id + (n > 0 ? n : 0), 0, BOOT_ID_BYTES - (size_t)(n > 0 ? n : 0));
}

static int write_run(struct posix *p, const void *bytes, size_t length)
{
	ssize_t n = pwrite(p->run_fd, bytes, length, 0);

	return n < 0 ? -errno : (size_t)n == length ? 0 : -ENOSPC;
}

static int open_run(struct posix *p, const char *dir, struct err *err)
{
	uint8_t page[RUN_BYTES] = { 0 };
	char boot_id[BOOT_ID_BYTES];
	int r;

	p->lio.words = p->run.words;
	p->run_fd = openat(p->dir_fd, run_name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (p->run_fd < 0) {
		r = -errno;
		return err_set(err, r, "cannot make %s/%s: %s", dir, run_name, strerror(-r));
	}
	read_boot_id(boot_id);
	/* One that cannot be read is of another boot. */
	p->lio.same_boot =
		pread(p->run_fd, &p->run, sizeof(p->run), 0) == (ssize_t)sizeof(p->run) &&
		boot_id[0] && !memcmp(p->run.magic, run_magic, sizeof(run_magic)) &&
		!memcmp(p->run.boot_id, boot_id, sizeof(boot_id));
	if (p->lio.same_boot)
		return 0;
	memset(&p->run, 0, sizeof(p->run));
	memcpy(p->run.boot_id, boot_id, sizeof(boot_id));
	memcpy(page, &p->run, sizeof(p->run));
	/* In this order, so that killed in between it is still not the same boot. */
	r = write_run(p, page, sizeof(page));
	if (r == 0)
		r = write_run(p, run_magic, sizeof(run_magic));
	return r < 0 ? err_set(err, r, "cannot write %s/%s: %s", dir, run_name, strerror(-r)) : 0;
}

static int start_threads(struct posix *p, unsigned threads, struct err *err)
{
	const char *no_ring = getenv("NEARBLK_NO_URING");

	for (; p->threads < threads; p->threads++) {
		int r = pthread_create(&p->thread[p->threads], NULL, worker, p);

		if (r && p->threads == 0)
			return err_set(err, -r, "cannot start a thread: %s", strerror(r));
		if (r)
			break; /* fewer are slower, not wrong */
	}
	if (!no_ring || strcmp(no_ring, "1"))
		p->ring = lio_ring_create(enqueue, p);
	return 0;
}

int lio_posix_open(const char *dir, unsigned threads, struct lio **ret, struct err *err)
{
	struct posix *p;
	int r;

	assert(threads >= 1 && threads <= MAX_THREADS);
	p = calloc(1, sizeof(*p));
	if (!p)
		return err_set(err, -ENOMEM, "out of memory");
	p->lio.ops = &posix_ops;
	p->dir_fd = -1;
	p->lock_fd = -1;
	p->run_fd = -1;
	list_init(&p->queue);
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->wake, NULL);
	r = open_dir(p, dir, err);
	if (r == 0)
		r = take_lock(p, dir, err);
	if (r == 0)
		r = open_run(p, dir, err);
	if (r == 0)
		r = start_threads(p, threads, err);
	if (r < 0) {
		posix_destroy(&p->lio);
		return r;
	}
	*ret = &p->lio;
	return 0;
}

static int sync_below(int path_fd)
{
	cleanup_close int fd = openat(path_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return fd < 0 || fsync(fd) < 0 ? -errno : 0;
}

/* Enter @name below *fd, making it if it is not there; its name is durable then. */
static int enter(int *fd, const char *name)
{
	int made = mkdirat(*fd, name, 0700) < 0 ? -errno : 1;
	/* O_PATH: a parent that may be passed but not read is no obstacle. */
	cleanup_close int next = openat(*fd, name, O_PATH | O_DIRECTORY | O_CLOEXEC);
	int r = next < 0 ? -errno : 0;

	if (r == -ENOENT && made < 0)
		return made; /* why it could not be made says more */
	if (r == 0 && made > 0)
		r = sync_below(*fd);
	if (r < 0)
		return r;
	close(*fd);
	*fd = steal_fd(next);
	return 0;
}

int lio_posix_mkdir(const char *dir, struct err *err)
{
	char path[PATH_MAX];
	cleanup_close int fd = -1;
	char *save = NULL;

	if (strlen(dir) >= sizeof(path))
		return err_set(err, -ENAMETOOLONG, "the path of the cache directory is too long");
	strcpy(path, dir);
	fd = open(dir[0] == '/' ? "/" : ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return err_set(err, -errno, "cannot open the current directory: %s",
			       strerror(errno));
	for (char *name = strtok_r(path, "/", &save); name; name = strtok_r(NULL, "/", &save)) {
		int r = enter(&fd, name);

		if (r < 0)
			return err_set(err, r, "cannot make the cache directory %s (at %s): %s",
				       dir, name, strerror(-r));
	}
	return 0;
}
