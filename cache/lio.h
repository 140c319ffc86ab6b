// SPDX-License-Identifier: Apache-2.0
/*
 * Local I/O: all that the cache does to its directory, behind one table, so
 * that tests can bring a disk that reorders, fails, forgets and is cut. The
 * product's is lio_posix_open(); the index (RocksDB) is beside it, not behind it.
 *
 * File names are plain (no '/'), relative to the cache directory.
 */
#ifndef CACHE_LIO_H
#define CACHE_LIO_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "core/err.h"
#include "core/list.h"

struct lio_file; /* an open file; opaque */

enum lio_kind { LIO_READ, LIO_WRITE, LIO_SYNC };

struct lio_op {
	struct list_node link; /* the implementation's while in flight */
	enum lio_kind kind;
	struct lio_file *file;
	uint64_t offset;         /* bytes */
	const struct iovec *iov; /* lent until done */
	int iovcnt;              /* 1..LIO_MAX_IOV; 0 for LIO_SYNC */
	void (*done)(struct lio_op *op, int result);
};
#define LIO_MAX_IOV 512

enum lio_open_flags {
	LIO_CREATE = 1 << 0, /* make it if it is not there (mode 0600) */
	LIO_EXCL = 1 << 1,   /* with LIO_CREATE: -EEXIST if it is there */
};

/* Words that outlive the process but not the boot: see lio_word(). */
#define LIO_WORDS 8

struct lio;

struct lio_ops {
	void (*submit)(struct lio *lio, struct lio_op *op);
	int (*try_read)(struct lio *lio, struct lio_file *file, const struct iovec *iov, int iovcnt,
			uint64_t offset);
	int (*sync_io)(struct lio *lio, enum lio_kind kind, struct lio_file *file,
		       const struct iovec *iov, int iovcnt, uint64_t offset);
	int (*open)(struct lio *lio, const char *name, unsigned flags, struct lio_file **ret);
	void (*close)(struct lio *lio, struct lio_file *file);
	int (*size)(struct lio *lio, struct lio_file *file, uint64_t *ret_bytes);
	int (*truncate)(struct lio *lio, struct lio_file *file, uint64_t bytes);
	int (*unlink)(struct lio *lio, const char *name);
	int (*rename)(struct lio *lio, const char *from, const char *to);
	int (*list)(struct lio *lio, int (*each)(void *ctx, const char *name), void *ctx);
	int (*sync_dir)(struct lio *lio);
	int (*free_bytes)(struct lio *lio, uint64_t *ret_bytes);
	void (*put_word)(struct lio *lio, unsigned index); /* NULL: they are in memory that stays */
	void (*destroy)(struct lio *lio);
};

struct lio {
	const struct lio_ops *ops;
	_Atomic uint64_t *words; /* LIO_WORDS of them */
	bool same_boot;
	/* A file that was synced has lost its name: somebody removed it, with the directory
	 * perhaps. What it holds can be read for as long as it is open. */
	_Atomic bool gone;
};

/*
 * Do @op; its done(op, result) runs exactly once, on another thread or later on
 * this one, never inside this call. result: 0, all bytes were moved; -ENODATA, the
 * file ended before the READ did; else -errno of the system call. A WRITE that fails may
 * have written any part. LIO_SYNC is fdatasync: it covers the writes that were done when it was
 * submitted. Operations in flight are not ordered among each other. Any thread.
 */
static inline void lio_submit(struct lio *lio, struct lio_op *op)
{
	lio->ops->submit(lio, op);
}

/*
 * Read now if that needs no disk: 0, all bytes read; -EAGAIN, would wait (some of the buffers may
 * have been written); -ENODATA or another -errno as above. Never blocks. Any thread.
 */
static inline int lio_try_read(struct lio *lio, struct lio_file *file, const struct iovec *iov,
			       int iovcnt, uint64_t offset)
{
	return lio->ops->try_read(lio, file, iov, iovcnt, offset);
}

/*
 * Words that survive kill -9 of the process (in the page cache) but mean nothing after
 * another boot: lio->same_boot is true where the words, as found at open, were
 * stored during this boot of this host. Where it is false (a first open too) they are 0.
 * A word that was set is there after a kill once lio_set_word() has returned, unless the disk
 * refused it: that nobody is told. Any thread; each word has one writer at a time.
 */
static inline uint64_t lio_word(struct lio *lio, unsigned index)
{
	return atomic_load(&lio->words[index]);
}

static inline void lio_set_word(struct lio *lio, unsigned index, uint64_t value)
{
	atomic_store(&lio->words[index], value);
	if (lio->ops->put_word)
		lio->ops->put_word(lio, index);
}

/*
 * The calls below may wait for the disk: from start-up code and scheduler tasks, no lock held.
 * Each returns 0 or -errno (-ENOENT, -EEXIST, -ENOSPC, -EIO, …).
 */
static inline int lio_open(struct lio *lio, const char *name, unsigned flags, struct lio_file **ret)
{
	return lio->ops->open(lio, name, flags, ret);
}

/* NULL is fine. No operation on the file may be in flight. */
static inline void lio_close(struct lio *lio, struct lio_file *file)
{
	if (file)
		lio->ops->close(lio, file);
}

static inline int lio_size(struct lio *lio, struct lio_file *file, uint64_t *ret_bytes)
{
	return lio->ops->size(lio, file, ret_bytes);
}

/* Cut or grow (sparse). */
static inline int lio_truncate(struct lio *lio, struct lio_file *file, uint64_t bytes)
{
	return lio->ops->truncate(lio, file, bytes);
}

static inline int lio_unlink(struct lio *lio, const char *name)
{
	return lio->ops->unlink(lio, name);
}

/* Atomic; an existing @to is replaced. */
static inline int lio_rename(struct lio *lio, const char *from, const char *to)
{
	return lio->ops->rename(lio, from, to);
}

/* Call @each for every plain file (but "lock" and "run", which are the implementation's), in no
 * order; a non-zero return of it ends the walk and is returned. */
static inline int lio_list(struct lio *lio, int (*each)(void *ctx, const char *name), void *ctx)
{
	return lio->ops->list(lio, each, ctx);
}

/* Names made, removed or renamed before are durable when it returns 0. */
static inline int lio_sync_dir(struct lio *lio)
{
	return lio->ops->sync_dir(lio);
}

/* Bytes that this user may still take on the file system. */
static inline int lio_free_bytes(struct lio *lio, uint64_t *ret_bytes)
{
	return lio->ops->free_bytes(lio, ret_bytes);
}

/* End the threads and free. All files were closed before, so nothing is in flight. The directory's
 * lock goes with it. NULL is fine. */
static inline void lio_destroy(struct lio *lio)
{
	if (lio)
		lio->ops->destroy(lio);
}

/*
 * Blocking reads, writes and fdatasync, for start-up code and scheduler tasks: ops->sync_io.
 * Results as at lio_submit().
 */
static inline int lio_sync_io(struct lio *lio, enum lio_kind kind, struct lio_file *file,
			      const struct iovec *iov, int iovcnt, uint64_t offset)
{
	return lio->ops->sync_io(lio, kind, file, iov, iovcnt, offset);
}

static inline int lio_read_sync(struct lio *lio, struct lio_file *file, void *buf, size_t length,
				uint64_t offset)
{
	struct iovec iov = { .iov_base = buf, .iov_len = length };

	return lio_sync_io(lio, LIO_READ, file, &iov, 1, offset);
}

static inline int lio_write_sync(struct lio *lio, struct lio_file *file, const void *buf,
				 size_t length, uint64_t offset)
{
	struct iovec iov = { .iov_base = (void *)(uintptr_t)buf, .iov_len = length };

	return lio_sync_io(lio, LIO_WRITE, file, &iov, 1, offset);
}

static inline int lio_fdatasync(struct lio *lio, struct lio_file *file)
{
	return lio_sync_io(lio, LIO_SYNC, file, NULL, 0, 0);
}

/*
 * Open @dir, which must exist, as a cache directory and lock it (flock on "lock" in it) for this
 * process, which must not fork afterwards and go on in the child: the pid in "lock" and the
 * threads would stay behind. @threads: size of the pool that serves what io_uring does not (1..16);
 * with NEARBLK_NO_URING=1 in the environment that is everything. Errors: -EBUSY another daemon
 * holds it (the message names its pid), -EPERM it is another user's or open to others (a mode
 * beyond 0700), else the errno of the call with a message.
 */
int lio_posix_open(const char *dir, unsigned threads, struct lio **ret, struct err *err);

/*
 * Make @dir, and the parents it lacks, with mode 0700, names durable. What is there stays as it is.
 * 0 or -errno with @err. For start-up, before lio_posix_open().
 */
int lio_posix_mkdir(const char *dir, struct err *err);

#endif
