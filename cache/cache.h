// SPDX-License-Identifier: Apache-2.0
/*
 * The write-back cache: a block device over a slow, far block device and a
 * local directory. What lives in this folder: the guest log, the clean store,
 * the map, the index, fills, destage, eviction and recovery. What may not: any
 * knowledge of FUSE, of iSCSI, of the command line, or a decision that belongs
 * to policy/.
 *
 * As a block device it promises more than core/block.h asks: a WRITE, ZERO or
 * DISCARD that is done survives kill -9; a FLUSH that is done survives a power cut
 * with all that was done before it was submitted; both need no network. What the far side sees, and
 * in which order, is said in docs/ARCHITECTURE.md. Once the far side is fenced (blk_fenced())
 * changes end with -EROFS; what was acknowledged before stays in the log, for the next start.
 */
#ifndef CACHE_CACHE_H
#define CACHE_CACHE_H

#include <stdbool.h>
#include <stdint.h>

#include "core/block.h"
#include "core/sched.h"

struct lio;
struct index_store;
struct cache_identity;

#define CACHE_BLOCK_BYTES 4096u

/* What was cached when the volume was last in use: is it still what the far side has? */
enum cache_trust {
	CACHE_TRUST_AUTO,   /* compare samples */
	CACHE_TRUST_ALWAYS, /* take it for granted */
	CACHE_TRUST_NEVER,  /* forget it */
};

struct cache_config {
	struct blk_dev *inner; /* owned by the cache from cache_create() on */
	struct sched *sched;   /* lent; outlives the cache */
	struct lio *lio; /* lent; the open cache directory (cache/lio.h); outlives the cache */
	struct index_store *index;       /* lent; outlives the cache */
	struct cache_identity *identity; /* lent; opened or made by the caller (cache/identity.h) */
	uint64_t limit_bytes;      /* --cache-size: local space used at most; >= CACHE_LIMIT_MIN */
	uint64_t max_dirty_bytes;  /* --max-dirty: log bytes not yet at the target; 0 = half the
				      limit */
	uint64_t max_dirty_age_ns; /* --max-dirty-age */
	bool read_only; /* no writes from above; dirty data from before is still sent unless hold */
	bool no_readahead;
	enum cache_trust trust;
	bool force_push; /* send what is dirty over a change that the samples show */
	/*
	 * For a scheduler that only runs when it is asked to (tests): start, stop and drop call it
	 * while they wait. NULL: the scheduler has threads.
	 */
	void (*progress)(void *ctx);
	void *progress_ctx;
};

#define CACHE_LIMIT_MIN (32ull << 20)

/*
 * A cache device, not started. blk_start() opens the directory, replays the
 * log, checks the identity against the inner device, compares samples of it (-EMEDIUMTYPE: it was
 * changed elsewhere and there is dirty data) and begins to destage. Where the inner device is
 * offline the comparison follows when it answers: until then nothing is sent, and no miss served;
 * a change fences the cache then (blk_fenced()).
 * blk_stop() makes what was acknowledged durable locally and leaves the rest for the
 * next start; it does not wait for the target (cache_drain() does). NULL when out of memory.
 */
struct blk_dev *cache_create(const struct cache_config *conf);

enum cache_state {
	CACHE_CLEAN,
	CACHE_DIRTY,
	CACHE_WRITING_BACK,
	CACHE_THROTTLED,
	CACHE_OFFLINE,
	CACHE_FENCED, /* blk_fenced(): what is dirty is kept and not sent */
	CACHE_DAMAGED,
};

/* "clean", "dirty", "writing-back", "throttled", "offline", "fenced", "damaged". */
const char *cache_state_name(enum cache_state state);

#define CACHE_UNKNOWN UINT64_MAX

struct cache_status {
	enum cache_state state;
	uint64_t size_bytes;
	uint64_t limit_bytes;
	uint64_t used_bytes;   /* local space taken by segments */
	uint64_t cached_bytes; /* volume bytes answered locally, known zeroes not counted */
	uint64_t dirty_bytes;  /* log bytes (headers included) not yet durable at the target; 0 =
				  clean */
	uint64_t max_dirty_bytes;
	uint64_t sent_bytes; /* of dirty_bytes, what the target has answered but not made durable */
	uint64_t epochs_pending; /* closed or open epochs with data not yet durable at the target */
	uint64_t oldest_dirty_ns;   /* age; CACHE_UNKNOWN when clean */
	uint64_t drain_eta_ns;      /* CACHE_UNKNOWN when clean or the rate is not known */
	uint64_t drain_bytes_per_s; /* recent; 0 = not draining */
	uint64_t far_as_of_ns; /* wall clock at which the guest closed the last epoch durable far
				  away; CACHE_UNKNOWN */
	uint64_t hit_bytes;
	uint64_t miss_bytes;
	uint64_t readahead_bytes;
	uint64_t readahead_wasted_bytes;
	uint64_t written_bytes;  /* taken from above since start */
	uint64_t damaged_bytes;  /* volume bytes that read as EIO */
	unsigned waiting_writes; /* held back by --max-dirty or a full disk */
	bool log_unsafe; /* a sync of the log failed: the dirty bytes may not outlive the host */
};

/*
 * Adopt the size of the inner device if that has grown: 1, 0 if it has not (or only at the next
 * start, where the old end lies within a block), or -errno. Blocks on local I/O. One thread, which
 * is also the one that stops.
 */
int cache_grow(struct blk_dev *cache);

/* A snapshot. Any thread; never blocks on I/O. */
void cache_status(struct blk_dev *cache, struct cache_status *ret);

/*
 * Close the open epoch and call done(ctx, 0) once all that was acknowledged before this call is
 * durable at the target (SYNCHRONIZE CACHE acknowledged); -ESHUTDOWN when the cache stops first,
 * -EIO when damage keeps an epoch from being sent, -ESTALE when the far side is fenced. While
 * drains wait, write-back does not pause. The callback comes from any thread, perhaps before this
 * returns. Any thread.
 */
struct cache_drain {
	struct list_node link; /* the cache's */
	uint64_t seq;          /* the cache's */
	int result;            /* the cache's */
	void (*done)(struct cache_drain *drain, int result);
};
void cache_drain(struct blk_dev *cache, struct cache_drain *drain);

/* Take @drain back: true if it will not be called any more; false if its done() ran or is running.
 */
bool cache_drain_cancel(struct blk_dev *cache, struct cache_drain *drain);

/*
 * Forget all clean data: it is fetched again when needed. Dirty data stays. Blocks until the
 * space is free; 0 or -errno. Not from a thread of the scheduler.
 */
int cache_drop(struct blk_dev *cache);

/*
 * How many bytes of [offset, offset + length) are present now (known zeroes count). Any thread.
 */
uint64_t cache_present(struct blk_dev *cache, uint64_t offset, uint64_t length);

/* A damaged range that reads as EIO; for messages. Fills up to @max, returns how many exist. */
struct cache_damage {
	uint64_t offset, length;
	bool dirty; /* the lost bytes were never at the target */
};
unsigned cache_damages(struct blk_dev *cache, struct cache_damage *out, unsigned max);

/*
 * For crash tests: free the device as a killed process would leave it, with no I/O and no
 * completion. Nothing of it may be running.
 */
void cache_abandon(struct blk_dev *cache);

/* For tests: walk all that the cache holds and assert its invariants. Any thread; slow. */
void cache_check(struct blk_dev *cache);

#endif
