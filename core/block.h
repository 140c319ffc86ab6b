// SPDX-License-Identifier: Apache-2.0
/*
 * The block-device interface: the one seam between mount, cache and transport.
 *
 * A device takes requests and gives each back exactly once. Devices stack: a
 * filter passes the same request on to its inner device after pushing a frame
 * (who to tell) onto it, so a layer costs no allocation.
 *
 * Life of a device: X_create() → blk_start() → blk_submit()… → blk_stop() →
 * blk_destroy(). A device owns its inner device: start, stop and destroy travel
 * down. Each step is safe on half-built objects: stop without start, destroy
 * without stop.
 *
 * Life of a request: the caller fills it with blk_req_init() and lends it with
 * blk_submit(); memory of the request, of the iovec array and of the buffers
 * stays valid and untouched until done() ran. done() runs exactly once, on any
 * thread, with no lock of the device held; it may submit again, but must not
 * block. Two rules make stacks simple:
 *  - submit cannot fail and never waits for a network or a disk. All failure
 *    comes through done().
 *  - done() may run before blk_submit() returns. A caller therefore holds no
 *    lock over blk_submit() and touches nothing the request's end may free.
 *
 * Ordering: none between requests in flight. What a WRITE, DISCARD or ZERO did
 * is durable only after a FLUSH that was submitted after its done() and that
 * ended with 0 *while the generation stood still* (see blk_generation()).
 */
#ifndef CORE_BLOCK_H
#define CORE_BLOCK_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "core/err.h"
#include "core/list.h"

enum blk_op { BLK_READ, BLK_WRITE, BLK_FLUSH, BLK_DISCARD, BLK_ZERO };
#define BLK_OP_COUNT 5

enum blk_flags {
	BLK_FUA = 1 << 0, /* WRITE, ZERO: durable when done, like a FLUSH of just this */
	BLK_ADVISORY =
		1
		<< 1, /* may be dropped with -ECANCELED at any time; no demand work waits for it */
};

/* Who waits for it. Lower is more urgent; leaf devices keep a separate budget for each. */
enum blk_lane {
	BLK_LANE_DEMAND,
	BLK_LANE_FLUSH,
	BLK_LANE_WRITEBACK,
	BLK_LANE_READAHEAD,
	BLK_LANE_WARM,
};
#define BLK_LANE_COUNT 5

struct blk_req;
typedef void blk_done_fn(struct blk_req *req, void *ctx, int result);

struct blk_frame {
	blk_done_fn *done;
	void *ctx;
};

/* Caller + filters + leaf; a stack deeper than this is a bug (asserted). */
#define BLK_MAX_DEPTH 6

struct blk_req {
	enum blk_op op;
	unsigned flags;
	enum blk_lane lane;
	uint64_t offset; /* bytes; a multiple of the device's sector_bytes */
	uint64_t length; /* bytes; likewise; 0 only for FLUSH */
	const struct iovec *iov;
	int iovcnt;

	struct list_node link; /* for the device that holds the request now */
	void *dev_data;        /* likewise */

	unsigned depth;
	struct blk_frame frame[BLK_MAX_DEPTH];
};

enum blk_info_flags {
	BLK_INFO_READ_ONLY = 1 << 0,
	BLK_INFO_CAN_DISCARD = 1 << 1, /* DISCARD is taken, and what it covers reads as zeroes */
	BLK_INFO_FAST_ZERO =
		1 << 2, /* ZERO costs less than writing zeroes (ZERO itself is always taken) */
	BLK_INFO_VOLATILE = 1 << 3, /* writes need a FLUSH to be durable */
};

#define BLK_IDENTITY_MAX 512

struct blk_info {
	uint64_t size_bytes;      /* multiple of sector_bytes, > 0 */
	uint32_t sector_bytes;    /* power of two, 1..4096: alignment of offset and length */
	uint32_t max_read_bytes;  /* longest READ worth sending; a longer one is taken and split */
	uint32_t max_write_bytes; /* the same for WRITE */
	uint32_t discard_align_bytes; /* DISCARD offset and length; power of two; 0 without
					 CAN_DISCARD */
	uint64_t max_discard_bytes;   /* longest DISCARD or ZERO taken in one request */
	unsigned flags;
	/* What tells this volume from another: target name, LUN, designators, serial; printable
	 * ASCII. */
	char identity[BLK_IDENTITY_MAX];
};

struct blk_session {
	char portal[96];
	char state[16];  /* "up", "connecting", "waiting" */
	uint64_t rtt_ns; /* 0 = unknown */
	uint64_t in_flight_bytes;
	uint64_t reconnects;
};

struct blk_stats {
	uint64_t read_bytes;  /* answered by the far side since start */
	uint64_t write_bytes; /* taken by the far side since start, repeats included */
	bool online;          /* at least one session is up; true for devices without sessions */
};

/* Is the far side reserved for us, so that nobody else writes to it? */
enum blk_reserved {
	BLK_RESERVED_UNKNOWN, /* no such thing there, or not asked for */
	BLK_RESERVED_NO,      /* likewise where there is */
	BLK_RESERVED_YES,
};

struct blk_dev;

struct blk_ops {
	const char *name;
	int (*start)(struct blk_dev *dev, struct err *err);
	void (*submit)(struct blk_dev *dev, struct blk_req *req);
	void (*stop)(struct blk_dev *dev);
	void (*destroy)(struct blk_dev *dev);
	/* Below: NULL means the default said at the wrapper. */
	void (*info)(struct blk_dev *dev, struct blk_info *ret_info);
	uint64_t (*generation)(struct blk_dev *dev);
	void (*cancel)(struct blk_dev *dev, struct blk_req *req);
	const char *(*fenced)(struct blk_dev *dev);
	int (*release)(struct blk_dev *dev, uint64_t *ret_mark);
	enum blk_reserved (*reserved)(struct blk_dev *dev);
	bool (*known_zero)(struct blk_dev *dev, uint64_t offset, uint64_t length,
			   uint64_t *ret_length);
	unsigned (*sessions)(struct blk_dev *dev, struct blk_session *out, unsigned max);
	void (*stats)(struct blk_dev *dev, struct blk_stats *ret_stats);
	void (*kick)(struct blk_dev *dev);
};

struct blk_dev {
	const struct blk_ops *ops;
	struct blk_dev *inner; /* owned; NULL for a leaf */
	bool started;          /* blk_start()'s own */
};

/*
 * Make the device ready: connect, read its geometry. May block, within the
 * device's own start-up timeout. 0, or -errno with @err filled; then only
 * stop and destroy may follow. Starts @dev->inner first where there is one. A device that was
 * started already is left alone, so that a leaf may be started, asked for its size, and then
 * covered. One thread.
 */
int blk_start(struct blk_dev *dev, struct err *err);

/*
 * Lend @req; @done(req, ctx, result) gives it back with 0 or -errno. Errors of
 * the request itself: -EINVAL (misaligned, empty), -ENOSPC (WRITE, ZERO or DISCARD past
 * the end), -EROFS, -EOPNOTSUPP (DISCARD without CAN_DISCARD), a READ past the end
 * -EINVAL; of the device: -EIO, -ECANCELED (advisory dropped), -EINTR (cancelled), -ESTALE (see
 * blk_fenced()), -ESHUTDOWN (stopped). Any thread; no lock held.
 */
void blk_submit(struct blk_dev *dev, struct blk_req *req, blk_done_fn *done, void *ctx);

/*
 * End the topmost frame of @req: for the device that holds it. @result is 0 or
 * -errno. No lock held. The request may be freed inside.
 */
void blk_complete(struct blk_req *req, int result);

/*
 * Take no more requests (-ESHUTDOWN), give every one in flight its done() within a
 * bound the device names (default: 2 s past what the far side owes), end threads.
 * Also stops the inner device. Idempotent; one thread.
 */
void blk_stop(struct blk_dev *dev);

/* Free the device and its inner ones. Stops first if that was not done. NULL is fine. */
void blk_destroy(struct blk_dev *dev);

/*
 * Geometry and identity; valid once start returned 0. size_bytes may grow later. Any thread.
 * Default: the inner device's.
 */
void blk_info(struct blk_dev *dev, struct blk_info *ret_info);

/*
 * A counter that moves whenever writes that were answered but not yet flushed
 * may have been lost or may land late (a session loss, a reset, power-on UNIT
 * ATTENTION; SAM-5 5.14, SPC-4 5.6). A caller reads it before its first WRITE and
 * after its FLUSH ended with 0; unequal means: send all of it again. Never 0. Any thread.
 * Default: the inner device's; 1 for a leaf.
 */
uint64_t blk_generation(struct blk_dev *dev);

/*
 * Why the far side may not be written any more: another host took it over (SPC-4 5.13.1, a
 * RESERVATION CONFLICT), or it turned out to be another volume. NULL: it may. For good, until the
 * next start: each WRITE, ZERO, DISCARD and FLUSH ends with -ESTALE then, also those that were not
 * answered yet, and nothing is sent for them any more; a READ does where what it would read is not
 * ours. The text is for people (what happened, what to do) and lives as long as @dev. Any thread;
 * takes no lock. Default: the inner device's; NULL for a leaf.
 */
const char *blk_fenced(struct blk_dev *dev);

/*
 * All that was written is durable: let others have the far side. After it no WRITE, ZERO, DISCARD
 * or FLUSH may be submitted. 0, also where nothing was held; *ret_mark is a number that will be
 * found changed once another owner has come by, 0 where there is none. -ENOTCONN or -ETIMEDOUT: not
 * reached, the reservation stays; another -errno likewise. Within 2 s. One thread, between start
 * and stop. Default: the inner device's; 0 for a leaf.
 */
int blk_release(struct blk_dev *dev, uint64_t *ret_mark);

/* Any thread. Default: the inner device's; UNKNOWN for a leaf. */
enum blk_reserved blk_reserved(struct blk_dev *dev);

/*
 * Ask for @req, still in flight in @dev, to end soon with -EINTR. Best effort; done() comes as
 * always, perhaps with another result, perhaps before this returns. The caller makes sure that
 * done() has not run yet. Default: the inner device's; nothing for a leaf.
 */
void blk_cancel(struct blk_dev *dev, struct blk_req *req);

/*
 * What is known, without asking anyone: true if the @ret_length (>= 1, <= @length) bytes from
 * @offset read as zeroes; false if nothing is known of the first @ret_length bytes. Never
 * blocks. Any thread. Default: the inner device's; false for a leaf.
 */
bool blk_known_zero(struct blk_dev *dev, uint64_t offset, uint64_t length, uint64_t *ret_length);

/* Fill up to @max sessions and return how many exist. Any thread. Default: the inner device's; 0.
 */
unsigned blk_sessions(struct blk_dev *dev, struct blk_session *out, unsigned max);

/* Traffic with the far side. Any thread. Default: the inner device's; zeroes and online. */
void blk_stats(struct blk_dev *dev, struct blk_stats *ret_stats);

/* Try to reconnect now instead of after the backoff. Any thread. Default: the inner device's. */
void blk_kick(struct blk_dev *dev);

/* Fill in a request: no flags, lane DEMAND, no frames. @iov is lent until done. */
void blk_req_init(struct blk_req *req, enum blk_op op, uint64_t offset, uint64_t length,
		  const struct iovec *iov, int iovcnt);

/*
 * For devices: the result that @req earns from @info's limits alone: 0, or one of the errors of the
 * request listed at blk_submit().
 */
int blk_check(const struct blk_info *info, const struct blk_req *req);

/*
 * Submit and wait: for start-up code, tests and tools. 0 or -errno. Never from a thread that
 * completes requests. @buf is lent for the call.
 */
int blk_read_sync(struct blk_dev *dev, void *buf, uint64_t offset, size_t length);
int blk_write_sync(struct blk_dev *dev, const void *buf, uint64_t offset, size_t length,
		   unsigned flags);
int blk_flush_sync(struct blk_dev *dev);
int blk_discard_sync(struct blk_dev *dev, uint64_t offset, uint64_t length);
int blk_zero_sync(struct blk_dev *dev, uint64_t offset, uint64_t length);

/* Total bytes of an iovec array. */
size_t iov_length(const struct iovec *iov, int iovcnt);
/* Copy between flat memory and @iov, from byte @skip of the array on; the array must be long
 * enough. */
void iov_copy_to(const struct iovec *iov, int iovcnt, size_t skip, const void *from, size_t length);
void iov_copy_from(const struct iovec *iov, int iovcnt, size_t skip, void *to, size_t length);
/* Zero @length bytes from byte @skip on. */
void iov_zero(const struct iovec *iov, int iovcnt, size_t skip, size_t length);
/*
 * Describe the @length bytes from byte @skip of @iov with entries of @out (room for @max); returns
 * how many were used. Asserts that they fit.
 */
int iov_slice(const struct iovec *iov, int iovcnt, size_t skip, size_t length, struct iovec *out,
	      int max);

#endif
