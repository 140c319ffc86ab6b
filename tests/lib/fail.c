// SPDX-License-Identifier: Apache-2.0
/* What is not armed costs a load; what is goes on to the next one of that name. */
#include "tests/lib/fail.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "tests/lib/sim.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define HAS_MEMORY 0
#else
#define HAS_MEMORY 1
#endif
#define FDS 4096

static atomic_uint armed; /* enum fail_kind */
static atomic_ullong seen, hits, wanted;
static atomic_int error_now;
static atomic_bool always_now;
static atomic_bool accepted[FDS];
static _Thread_local bool spared;

void fail_nth(unsigned kinds, uint64_t nth, int error, bool always)
{
	atomic_store(&armed, 0);
	atomic_store(&seen, 0);
	atomic_store(&hits, 0);
	atomic_store(&wanted, nth);
	atomic_store(&error_now, error);
	atomic_store(&always_now, always);
	atomic_store(&armed, kinds);
}

uint64_t fail_hits(void)
{
	return atomic_load(&hits);
}

void fail_spare(bool on)
{
	spared = on;
}

bool fail_has_memory(void)
{
	return HAS_MEMORY;
}

/* Count one call; true: it fails, and errno says how. */
static bool fails(unsigned kind)
{
	unsigned long long n, nth;

	if (!(atomic_load(&armed) & kind) || spared || sim_own)
		return false;
	n = atomic_fetch_add(&seen, 1) + 1;
	nth = atomic_load(&wanted);
	if (n != nth && !(n > nth && atomic_load(&always_now)))
		return false;
	atomic_fetch_add(&hits, 1);
	errno = atomic_load(&error_now);
	return true;
}

static bool socket_fails(unsigned kind, int fd)
{
	unsigned kinds = atomic_load(&armed);
	struct stat st;

	if (!(kinds & kind) || fd < 0 || fd >= FDS ||
	    atomic_load(&accepted[fd]) != !!(kinds & FAIL_ACCEPTED))
		return false;
	return fstat(fd, &st) == 0 && S_ISSOCK(st.st_mode) && fails(kind);
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

/* ---- sockets ---- */

static int new_fd(int fd, bool from_accept)
{
	if (fd >= 0 && fd < FDS)
		atomic_store(&accepted[fd], from_accept);
	return fd;
}

int socket(int domain, int type, int protocol)
{
	return fails(FAIL_SOCKET) ? -1 : new_fd(NEXT(socket)(domain, type, protocol), false);
}

int eventfd(unsigned count, int flags)
{
	return fails(FAIL_SOCKET) ? -1 : NEXT(eventfd)(count, flags);
}

int epoll_create1(int flags)
{
	return fails(FAIL_SOCKET) ? -1 : NEXT(epoll_create1)(flags);
}

int accept(int fd, struct sockaddr *addr, socklen_t *length)
{
	return new_fd(NEXT(accept)(fd, addr, length), true);
}

int accept4(int fd, struct sockaddr *addr, socklen_t *length, int flags)
{
	if ((atomic_load(&armed) & FAIL_ACCEPTED) && fails(FAIL_SOCKET))
		return -1;
	return new_fd(NEXT(accept4)(fd, addr, length, flags), true);
}

int connect(int fd, const struct sockaddr *addr, socklen_t length)
{
	return fails(FAIL_CONNECT) ? -1 : NEXT(connect)(fd, addr, length);
}

int bind(int fd, const struct sockaddr *addr, socklen_t length)
{
	return fails(FAIL_CONNECT) ? -1 : NEXT(bind)(fd, addr, length);
}

int listen(int fd, int backlog)
{
	return fails(FAIL_CONNECT) ? -1 : NEXT(listen)(fd, backlog);
}

ssize_t send(int fd, const void *buf, size_t n, int flags)
{
	return socket_fails(FAIL_SEND, fd) ? -1 : NEXT(send)(fd, buf, n, flags);
}

ssize_t sendto(int fd, const void *buf, size_t n, int flags, const struct sockaddr *addr,
	       socklen_t length)
{
	return socket_fails(FAIL_SEND, fd) ? -1 : NEXT(sendto)(fd, buf, n, flags, addr, length);
}

ssize_t sendmsg(int fd, const struct msghdr *msg, int flags)
{
	return socket_fails(FAIL_SEND, fd) ? -1 : NEXT(sendmsg)(fd, msg, flags);
}

ssize_t write(int fd, const void *buf, size_t n)
{
	return socket_fails(FAIL_SEND, fd) ? -1 : NEXT(write)(fd, buf, n);
}

ssize_t writev(int fd, const struct iovec *iov, int iovcnt)
{
	return socket_fails(FAIL_SEND, fd) ? -1 : NEXT(writev)(fd, iov, iovcnt);
}

ssize_t recv(int fd, void *buf, size_t n, int flags)
{
	return socket_fails(FAIL_RECV, fd) ? -1 : NEXT(recv)(fd, buf, n, flags);
}

ssize_t recvfrom(int fd, void *buf, size_t n, int flags, struct sockaddr *addr, socklen_t *length)
{
	return socket_fails(FAIL_RECV, fd) ? -1 : NEXT(recvfrom)(fd, buf, n, flags, addr, length);
}

ssize_t recvmsg(int fd, struct msghdr *msg, int flags)
{
	return socket_fails(FAIL_RECV, fd) ? -1 : NEXT(recvmsg)(fd, msg, flags);
}

ssize_t read(int fd, void *buf, size_t n)
{
	return socket_fails(FAIL_RECV, fd) ? -1 : NEXT(read)(fd, buf, n);
}

ssize_t readv(int fd, const struct iovec *iov, int iovcnt)
{
	return socket_fails(FAIL_RECV, fd) ? -1 : NEXT(readv)(fd, iov, iovcnt);
}

/* What _FORTIFY_SOURCE makes of some of them in the libraries. */
ssize_t __recv_chk(int fd, void *buf, size_t n, size_t room, int flags);
ssize_t __recv_chk(int fd, void *buf, size_t n, size_t room, int flags)
{
	return n > room ? (abort(), -1) : recv(fd, buf, n, flags);
}

ssize_t __read_chk(int fd, void *buf, size_t n, size_t room);
ssize_t __read_chk(int fd, void *buf, size_t n, size_t room)
{
	return n > room ? (abort(), -1) : read(fd, buf, n);
}

/* ---- files ---- */

int open(const char *path, int flags, ...)
{
	va_list ap;
	mode_t mode;

	va_start(ap, flags);
	mode = va_arg(ap, mode_t);
	va_end(ap);
	return fails(FAIL_OPEN) ? -1 : NEXT(open)(path, flags, mode);
}

ssize_t pread(int fd, void *buf, size_t n, off_t offset)
{
	return fails(FAIL_READ) ? -1 : NEXT(pread)(fd, buf, n, offset);
}

ssize_t preadv(int fd, const struct iovec *iov, int iovcnt, off_t offset)
{
	return fails(FAIL_READ) ? -1 : NEXT(preadv)(fd, iov, iovcnt, offset);
}

ssize_t pwrite(int fd, const void *buf, size_t n, off_t offset)
{
	return fails(FAIL_WRITE) ? -1 : NEXT(pwrite)(fd, buf, n, offset);
}

ssize_t pwritev(int fd, const struct iovec *iov, int iovcnt, off_t offset)
{
	return fails(FAIL_WRITE) ? -1 : NEXT(pwritev)(fd, iov, iovcnt, offset);
}

int fallocate(int fd, int mode, off_t offset, off_t length)
{
	return fails(FAIL_WRITE) ? -1 : NEXT(fallocate)(fd, mode, offset, length);
}

int fdatasync(int fd)
{
	return fails(FAIL_SYNC) ? -1 : NEXT(fdatasync)(fd);
}

int fsync(int fd)
{
	return fails(FAIL_SYNC) ? -1 : NEXT(fsync)(fd);
}

int pthread_create(pthread_t *ret, const pthread_attr_t *attr, void *(*run)(void *), void *arg)
{
	return fails(FAIL_THREAD) ? atomic_load(&error_now)
				  : NEXT(pthread_create)(ret, attr, run, arg);
}

/* ---- memory ---- */

#if HAS_MEMORY
extern char __executable_start, etext;
/* dlsym() would ask for memory itself. */
void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t n, size_t bytes);
void *__libc_realloc(void *old, size_t bytes);
void *__libc_memalign(size_t align, size_t bytes);

static bool memory_fails(const void *caller)
{
	return (const char *)caller >= &__executable_start && (const char *)caller < &etext &&
	       fails(FAIL_MEMORY);
}

void *malloc(size_t bytes)
{
	return memory_fails(__builtin_return_address(0)) ? NULL : __libc_malloc(bytes);
}

void *calloc(size_t n, size_t bytes)
{
	return memory_fails(__builtin_return_address(0)) ? NULL : __libc_calloc(n, bytes);
}

void *realloc(void *old, size_t bytes)
{
	return memory_fails(__builtin_return_address(0)) ? NULL : __libc_realloc(old, bytes);
}

void *aligned_alloc(size_t align, size_t bytes)
{
	return memory_fails(__builtin_return_address(0)) ? NULL : __libc_memalign(align, bytes);
}
#endif
