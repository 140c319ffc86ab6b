// SPDX-License-Identifier: Apache-2.0
/*
 * Private to mount/: the mount object and what its files share.
 *   mount.c  life cycle, threads, the connection    names.c  directory, attributes, INIT
 *   io.c     READ, WRITE, FSYNC, FALLOCATE          attach.c, fusermount.c  the file system tree
 */
#ifndef MOUNT_SESSION_H
#define MOUNT_SESSION_H

#define FUSE_USE_VERSION 314

#include <fuse_lowlevel.h>
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "mount/attach.h"
#include "mount/mount.h"
#include "mount/pool.h"

#define INO_ROOT FUSE_ROOT_ID
#define INO_FILE 2

/* The most libfuse 3.14 lets a request carry, either way. */
#define MAX_IO_BYTES (1u << 20)
#define MAX_BACKGROUND 512

struct io_req;

struct mount_thread {
	struct mount *mount;
	pthread_t id;
	int fd; /* the connection, or a clone of its own: replies go where the request came from */
	bool clone;
	bool exited;         /* guarded by mount->lock */
	struct pool_buf buf; /* the thread's own; a large WRITE takes it away (io.c) */
};

struct mount {
	struct blk_dev *dev; /* lent */
	char *path;
	struct attach_entry entry;
	void (*on_unmounted)(void *ctx, int reason);
	void *ctx;

	struct fuse_session *se;
	int fd; /* owned by se */
	struct mount_thread thread[MOUNT_MAX_THREADS];
	unsigned threads;      /* wanted */
	unsigned threads_made; /* to be joined */
	atomic_bool stopping;
	atomic_bool gone;     /* the kernel side ended; said once */
	atomic_bool attached; /* entry may still be in the tree: ours to unmount */

	uint32_t discard_align_bytes; /* 0: DISCARD is not taken */
	uint64_t max_range_bytes;     /* longest DISCARD or ZERO, a multiple of the alignment */
	_Atomic uint64_t size_bytes;
	atomic_uint handles;

	struct pool pool;
	/* lock is a leaf: nothing else is taken under it, and it is never held over a call out. */
	pthread_mutex_t lock;
	pthread_cond_t changed;  /* a thread exited, or outstanding became 0 */
	struct io_req *free_req; /* guarded by lock */
	unsigned outstanding;    /* guarded by lock: requests that are not in free_req */
	uid_t uid;               /* guarded by lock, as is all below */
	gid_t gid;
	mode_t mode;
	struct timespec atime, mtime, ctime;
};

/* The thread of mount.c that runs the handler; NULL on other threads. */
struct mount_thread *mount_thread_self(void);

/* From here on, replies of this thread go out through @fd. Returns what it was before. */
int mount_reply_through(int fd);

/* names.c: fill in every handler but those of io.c, and take over what INIT offers. */
void names_fill(struct fuse_lowlevel_ops *ops);

/* io.c: fill in the handlers of data requests. */
void io_fill(struct fuse_lowlevel_ops *ops);
/* Wait until nothing is outstanding at the device, then free the request objects. */
void io_drain(struct mount *m);

#endif
