// SPDX-License-Identifier: Apache-2.0
/*
 * Life cycle, the threads that read requests, and the connection.
 *
 * Threads: each reads from a clone of the connection (FUSE_DEV_IOC_CLONE), so that the kernel keeps
 * a list of requests per thread. A reply must go out where its request came in, from whatever
 * thread it comes: libfuse's own loop would arrange that, but it owns its receive buffers, and a
 * WRITE would have to be copied out of them. So we read ourselves and choose the descriptor in
 * write_reply().
 *
 * A receive buffer puts the kernel's header right below a page boundary: the payload of a WRITE is
 * then page aligned.
 *
 * Ending: a thread that waits in read() is woken by a signal whose handler does nothing, sent again
 * until the thread has said that it saw the flag. Descriptors are not closed while replies may
 * still come from the device: /dev/null is put over them, which closes the connection and swallows
 * those.
 *
 * State: created (attached, nobody reads) → serving → gone (the kernel ended it; threads end by
 * themselves) or stopping (mount_stop()) → stopped (connection closed) → destroyed.
 */
#include "mount/mount.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>

#include "core/cleanup.h"
#include "core/clock.h"
#include "core/log.h"
#include "mount/session.h"

#define HEADER_BYTES (sizeof(struct fuse_in_header) + sizeof(struct fuse_write_in))
#define WAKE_SIGNAL (SIGRTMIN + 3)
#define WAKE_AGAIN_NS (20 * NSEC_PER_MSEC)
#define STRING_(x) #x
#define STRING(x) STRING_(x)
/* The number for the option must be the plain one. */
#define MAX_READ_OPTION 1048576
_Static_assert(MAX_READ_OPTION == MAX_IO_BYTES, "max_read in the option and in INIT agree");
_Static_assert(POOL_MAX_BYTES >= POOL_PAGE_BYTES + MAX_IO_BYTES, "a request fits");

static _Thread_local struct mount_thread *self;
static _Thread_local int reply_fd = -1;

struct mount_thread *mount_thread_self(void)
{
	return self;
}

int mount_reply_through(int fd)
{
	int before = reply_fd;

	reply_fd = fd;
	return before;
}

/* libfuse's way out. Notifications come from threads without a reply_fd: any descriptor will do. */
static ssize_t write_reply(int fd, struct iovec *iov, int count, void *userdata)
{
	ssize_t n = writev(reply_fd >= 0 ? reply_fd : fd, iov, count);

	/* ENOENT is what libfuse expects for a request that nobody waits for any more. */
	if (n < 0 && (errno == ENODEV || errno == ECONNABORTED))
		errno = ENOENT;
	return n;
}

/* libfuse insists on one; it is never called, the threads read themselves. */
static ssize_t read_nothing(int fd, void *buf, size_t length, void *userdata)
{
	errno = EBADF;
	return -1;
}

static void libfuse_says(enum fuse_log_level level, const char *fmt, va_list ap)
{
	char text[256];
	size_t n;

	vsnprintf(text, sizeof(text), fmt, ap);
	n = strlen(text);
	if (n && text[n - 1] == '\n')
		text[n - 1] = '\0';
	if (level <= FUSE_LOG_ERR)
		log_error("%s", text);
	else
		log_debug("%s", text);
}

static int read_geometry(struct mount *m, const struct mount_config *conf, bool *ret_read_only,
			 struct err *err)
{
	struct blk_info info;

	blk_info(conf->dev, &info);
	if (info.sector_bytes != 1)
		return err_set(err, -EINVAL,
			       "the device below the mount has sectors of %u bytes, not 1",
			       info.sector_bytes);
	if (!info.size_bytes || info.size_bytes > INT64_MAX)
		return err_set(err, -EINVAL, "a volume of %llu bytes cannot be a file",
			       (unsigned long long)info.size_bytes);
	if (info.flags & BLK_INFO_CAN_DISCARD)
		m->discard_align_bytes = MAX(info.discard_align_bytes, 1u);
	m->max_range_bytes = info.max_discard_bytes ? info.max_discard_bytes : UINT64_MAX;
	if (m->discard_align_bytes) {
		m->max_range_bytes -= m->max_range_bytes % m->discard_align_bytes;
		m->max_range_bytes = MAX(m->max_range_bytes, (uint64_t)m->discard_align_bytes);
	}
	atomic_store(&m->size_bytes, info.size_bytes);
	*ret_read_only = conf->read_only || (info.flags & BLK_INFO_READ_ONLY);
	return 0;
}

static struct mount *alloc_mount(const struct mount_config *conf)
{
	struct mount *m = calloc(1, sizeof(*m));
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);

	if (!m)
		return NULL;
	m->dev = conf->dev;
	m->fd = -1;
	m->on_unmounted = conf->on_unmounted;
	m->ctx = conf->ctx;
	m->uid = conf->uid;
	m->gid = conf->gid;
	m->mode = conf->mode & 0777;
	/* Handlers never wait, so a few threads keep every CPU busy. */
	m->threads = conf->threads ? conf->threads : (unsigned)(cpus < 2 ? 2 : MIN(cpus, 8));
	m->threads = MIN(m->threads, (unsigned)MOUNT_MAX_THREADS);
	clock_gettime(CLOCK_REALTIME, &m->ctime);
	m->atime = m->mtime = m->ctime;
	pthread_mutex_init(&m->lock, NULL);
	pthread_cond_init(&m->changed, NULL);
	pool_init(&m->pool);
	return m;
}

static int new_session(struct mount *m, struct err *err)
{
	static const struct fuse_custom_io io = { .writev = write_reply, .read = read_nothing };
	char *argv[] = { (char *)"nearblk", (char *)"-omax_read=" STRING(MAX_READ_OPTION), NULL };
	struct fuse_args args = FUSE_ARGS_INIT(2, argv);
	struct fuse_lowlevel_ops ops = { .init = NULL };

	names_fill(&ops);
	io_fill(&ops);
	fuse_set_log_func(libfuse_says);
	m->se = fuse_session_new(&args, &ops, sizeof(ops), m);
	fuse_opt_free_args(&args);
	if (!m->se)
		return err_set(err, -ENOMEM, "libfuse made no session");
	if (fuse_session_custom_io(m->se, &io, m->fd) < 0)
		return err_set(err, -ENOMEM, "libfuse took no connection");
	return 0;
}

int mount_create(const struct mount_config *conf, struct mount **ret, struct err *err)
{
	struct attach_options opt = { .fsname = conf->fsname, .max_read_bytes = MAX_IO_BYTES };
	struct mount *m = alloc_mount(conf);
	int r;

	if (!m)
		return err_set(err, -ENOMEM, "out of memory");
	r = read_geometry(m, conf, &opt.read_only, err);
	if (r < 0)
		goto fail;
	r = attach_resolve(conf->mountpoint, &m->path, err);
	if (r < 0)
		goto fail;
	r = attach_prepare(m->path, MOUNT_FS_TYPE, err);
	if (r < 0)
		goto fail;
	opt.path = m->path;
	opt.allow_other = conf->allow_other;
	r = attach_mount(&opt, &m->fd, err);
	if (r < 0)
		goto fail;
	r = attach_find(m->path, &m->entry);
	if (r < 0) {
		attach_abandon(m->path);
		err_set(err, r, "%s does not show in /proc/self/mountinfo", m->path);
		goto fail;
	}
	atomic_store(&m->attached, true);
	r = new_session(m, err);
	if (r < 0)
		goto fail;
	*ret = m;
	return 0;
fail:
	mount_destroy(m);
	return r;
}

/* A descriptor of the thread's own for the same connection, or the shared one where not permitted.
 */
static void choose_fd(struct mount_thread *t, int shared)
{
	uint32_t source = (uint32_t)shared;
	int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);

	t->fd = shared;
	if (fd < 0)
		return;
	if (ioctl(fd, FUSE_DEV_IOC_CLONE, &source) < 0) {
		close(fd);
		return;
	}
	t->fd = fd;
	t->clone = true;
}

static bool in_tree(struct mount *m)
{
	struct attach_entry now;

	return attach_find(m->path, &now) == 0 && attach_same(&now, &m->entry);
}

/* The kernel side ended with @code from reading. Every thread sees it; the first one tells. */
static void went(struct mount *m, int code)
{
	int reason = -code;

	if (atomic_exchange(&m->gone, true) || atomic_load(&m->stopping))
		return;
	/* ECONNABORTED: it ended while this thread was taking a request, a RELEASE for instance. */
	if (code == ENODEV || code == ECONNABORTED)
		reason = in_tree(m) ? -ECONNABORTED : 0;
	/* From here on the same device number may be somebody else's. */
	if (!reason)
		atomic_store(&m->attached, false);
	if (m->on_unmounted)
		m->on_unmounted(m->ctx, reason);
}

/* Read one request and run its handler. False when there will be no more. */
static bool serve_one(struct mount_thread *t)
{
	struct mount *m = t->mount;
	struct fuse_buf request = { .mem = NULL };
	ssize_t n;

	if (!t->buf.mem) {
		t->buf = pool_get(&m->pool, POOL_MAX_BYTES);
		if (!t->buf.mem) {
			/* Nothing is lost: the kernel keeps the requests until there is memory
			 * again. */
			usleep(10000);
			return true;
		}
	}
	request.mem = (char *)t->buf.mem + POOL_PAGE_BYTES - HEADER_BYTES;
	n = read(t->fd, request.mem, HEADER_BYTES + MAX_IO_BYTES);
	if (n < 0) {
		/* ENOENT: the request was taken back while we were about to read it. */
		if (errno == EINTR || errno == ENOENT || errno == EAGAIN)
			return true;
		went(m, errno);
		return false;
	}
	request.size = (size_t)n;
	fuse_session_process_buf(m->se, &request);
	if (fuse_session_exited(m->se)) {
		/* Only INIT does that: libfuse and this kernel did not agree. */
		went(m, EPROTO);
		return false;
	}
	return true;
}

static void *thread_main(void *arg)
{
	struct mount_thread *t = arg;

	self = t;
	reply_fd = t->fd;
	while (!atomic_load(&t->mount->stopping) && serve_one(t))
		;
	pool_put(&t->mount->pool, &t->buf);
	guard(&t->mount->lock);
	t->exited = true;
	pthread_cond_broadcast(&t->mount->changed);
	return NULL;
}

static void on_wake(int sig)
{
}

int mount_start(struct mount *m, struct err *err)
{
	struct sigaction wake = { .sa_handler = on_wake }; /* no SA_RESTART: read() ends */
	sigset_t blocked;
	sigset_t before;
	int r = 0;

	if (sigaction(WAKE_SIGNAL, &wake, NULL) < 0)
		return err_set(err, -errno, "sigaction: %s", strerror(errno));
	sigfillset(&blocked);
	sigdelset(&blocked, WAKE_SIGNAL);
	pthread_sigmask(SIG_SETMASK, &blocked, &before);
	while (m->threads_made < m->threads && r == 0) {
		struct mount_thread *t = &m->thread[m->threads_made];
		char name[16];

		t->mount = m;
		choose_fd(t, m->fd);
		r = -pthread_create(&t->id, NULL, thread_main, t);
		if (r == 0) {
			snprintf(name, sizeof(name), "nb-fuse-%u", m->threads_made++);
			pthread_setname_np(t->id, name);
		} else if (t->clone) {
			close(t->fd);
		}
	}
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	/* One thread is enough to serve. */
	if (m->threads_made)
		return 0;
	return err_set(err, r, "starting a thread: %s", strerror(-r));
}

int mount_unmount(struct mount *m, struct err *err)
{
	int r;

	assert(!self);
	if (!atomic_load(&m->attached))
		return err_set(err, -ENOENT, "%s is not mounted any more", m->path);
	r = attach_unmount(m->path, &m->entry, false, err);
	if (r == 0)
		atomic_store(&m->attached, false);
	return r;
}

void mount_detach(struct mount *m)
{
	struct err err;
	int r;

	if (!atomic_exchange(&m->attached, false))
		return;
	r = attach_unmount(m->path, &m->entry, true, &err);
	if (r < 0 && r != -ENOENT)
		log_warning("%s", err.text);
}

unsigned mount_open_handles(struct mount *m)
{
	/* The last RELEASE may get lost when the connection ends. */
	return atomic_load(&m->gone) ? 0 : atomic_load(&m->handles);
}

static void wake_until_exited(struct mount *m, struct mount_thread *t)
{
	guard(&m->lock);
	while (!t->exited) {
		struct timespec until;
		uint64_t ns = clock_monotonic_ns() + WAKE_AGAIN_NS;

		pthread_kill(t->id, WAKE_SIGNAL);
		until.tv_sec = (time_t)(ns / NSEC_PER_SEC);
		until.tv_nsec = (long)(ns % NSEC_PER_SEC);
		/* A lost wake-up is repeated whatever happens to the clock on the wall. */
		pthread_cond_clockwait(&m->changed, &m->lock, CLOCK_MONOTONIC, &until);
	}
}

/* Put /dev/null in the place of the connection: late replies go nowhere, in no one's file. */
static void close_connection(struct mount *m)
{
	cleanup_close int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	for (unsigned i = 0; i < m->threads_made; i++) {
		if (m->thread[i].clone && null >= 0)
			dup3(null, m->thread[i].fd, O_CLOEXEC);
	}
	if (m->fd >= 0 && null >= 0)
		dup3(null, m->fd, O_CLOEXEC);
}

void mount_stop(struct mount *m)
{
	if (!m || atomic_exchange(&m->stopping, true))
		return;
	assert(!self);
	for (unsigned i = 0; i < m->threads_made; i++) {
		wake_until_exited(m, &m->thread[i]);
		pthread_join(m->thread[i].id, NULL);
	}
	close_connection(m);
}

void mount_destroy(struct mount *m)
{
	if (!m)
		return;
	mount_detach(m);
	mount_stop(m);
	io_drain(m);
	for (unsigned i = 0; i < m->threads_made; i++) {
		if (m->thread[i].clone)
			close(m->thread[i].fd);
	}
	if (m->se)
		fuse_session_destroy(m->se);
	else if (m->fd >= 0)
		close(m->fd);
	pool_destroy(&m->pool);
	pthread_cond_destroy(&m->changed);
	pthread_mutex_destroy(&m->lock);
	free(m->path);
	free(m);
}

void mount_size_changed(struct mount *m)
{
	uint64_t before = atomic_load(&m->size_bytes);
	struct blk_info info;

	assert(!self);
	blk_info(m->dev, &info);
	if (info.size_bytes <= before)
		return;
	atomic_store(&m->size_bytes, info.size_bytes);
	/* The page with the old end holds zeroes where there is data now. */
	fuse_lowlevel_notify_inval_inode(m->se, INO_FILE,
					 (off_t)(before - before % POOL_PAGE_BYTES), 0);
}
