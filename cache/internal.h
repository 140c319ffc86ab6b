// SPDX-License-Identifier: Apache-2.0
/*
 * What the files of cache/ share: the one struct, the one lock, and how work
 * leaves it. Not for other folders.
 *
 * Rooms: cache.c (device, life), read.c (requests to pieces), fetch.c (misses), write.c (requests
 * to records, throttle, flush), append.c + sync.c (batches into segments, and durable), segment.c
 *(the pool of segment files), destage.c + epoch.c + plan.c (write-back), janitor.c + prepare.c +
 *empty.c (segments made ready, and taken back), indexq.c (ordered index updates), recover.c +
 *scan.c + table.c (opening).
 *
 * Locking. One mutex, cache->lock, guards everything here unless a field says
 * otherwise. No I/O, no index call, no done() and no log line happens under it: what must happen
 * is put on a struct todo and done by cache_unlock(). Entry points are
 *
 *	struct todo todo;
 *	cache_lock(c, &todo);
 *	…change state, add to todo…
 *	cache_unlock(c, &todo);
 *
 * Lock order: cache->lock is a leaf towards other modules; none of them is called under it but
 * the scheduler (sched_post, sched_arm, sched_now), which takes its own lock inside.
 */
#ifndef CACHE_INTERNAL_H
#define CACHE_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "cache/cache.h"
#include "cache/format.h"
#include "cache/identity.h"
#include "cache/index.h"
#include "cache/lio.h"
#include "cache/map.h"
#include "core/block.h"
#include "core/clock.h"
#include "core/range.h"
#include "core/sched.h"
#include "policy/readahead.h"
#include "policy/writeback.h"

#define BLK CACHE_BLOCK_BYTES
/* Requests are cut into pieces of at most this before anything else sees them. */
#define PIECE_BYTES (1u << 20)
#define PIECE_BLOCKS (PIECE_BYTES / BLK)
/* Segments beyond the limit, for a cache that is all unsent data (see the janitor). */
#define SPARE_SEGMENTS 4u
/* An incarnation: the identity's generation at the start (one life), and a counter below. */
#define INCARNATION_LIFE_SHIFT 24

struct cache;
struct todo;

/* ---- work that leaves the lock ---- */

/* A request to the inner device, owned by one of ours. */
struct inner_io {
	struct list_node link;
	struct blk_req req;
	blk_done_fn *done;
	void *ctx;
};

struct todo {
	struct list_node done;   /* blk_req.link: to be completed with what todo_done() put in */
	struct list_node inner;  /* inner_io.link: to be submitted */
	struct list_node local;  /* lio_op.link: to be submitted */
	struct list_node drains; /* cache_drain.link: to be called back */
	struct list_node writes; /* write_op.link: to be begun (again) */
};

/* Take the lock and begin an empty @todo. Any thread that does not hold it. */
void cache_lock(struct cache *c, struct todo *todo);
/* Drops the lock, then does what @todo holds. */
void cache_unlock(struct cache *c, struct todo *todo);
/* Complete @req after the lock is dropped. */
void todo_done(struct todo *todo, struct blk_req *req, int result);

/* What lio_word() keeps beyond the process, but not beyond the boot. */
enum cache_word {
	WORD_APPENDED, /* appended_seq, as cache_word_of() has it */
	WORD_UNSAFE,   /* a sync of the log failed: the page cache has what the medium may not */
};

/* A number with a check in its upper 16 bits: a rotten one must not ask for records that never
 * were.
 */
static inline uint64_t cache_word_of(uint64_t seq)
{
	return (seq & ((1ull << 48) - 1)) | (uint64_t)(uint16_t) ~(seq ^ seq >> 16 ^ seq >> 32)
						    << 48;
}

/* The number; 0 where it is not one. */
static inline uint64_t cache_word_seq(uint64_t word)
{
	uint64_t seq = word & ((1ull << 48) - 1);

	return cache_word_of(seq) == word ? seq : 0;
}

/* ---- segments ---- */

enum seg_state {
	SEG_ABSENT,    /* no file */
	SEG_FREE,      /* a file whose contents nobody needs */
	SEG_PREPARING, /* the janitor works on it */
	SEG_READY,     /* open and waiting to become a head */
	SEG_HEAD,      /* appends go here */
	SEG_SEALING,   /* full; its footer is being written */
	SEG_SEALED,
	SEG_EVICTING, /* the janitor empties it */
};

/* Records and checksums of one segment, in the order they were appended. */
struct seg_table {
	struct format_record *record;
	uint32_t nrecords, record_cap;
	uint32_t *crc;
	uint32_t ncrcs, crc_cap;
};

struct segment {
	enum seg_state state;
	enum format_class class;
	struct lio_file *file;
	bool filled; /* every block of the file was written once: fdatasync costs no journal commit
		      */
	bool probation; /* clean store: the small queue for new and prefetched data */
	bool requeued;  /* its second chance is spent */
	bool unsynced;  /* log: bytes appended since the last fdatasync began */
	bool footer;    /* the footer is on disk (else the table is found by scanning) */
	bool poisoned;  /* a write or fdatasync failed: nothing more is appended */
	uint64_t incarnation;
	uint64_t first_seq, last_seq; /* log: of its records; last_seq < first_seq: none */
	uint64_t last_data_seq;       /* log: of its newest record that changes blocks; 0: none */
	uint64_t order;               /* of becoming a head: age */
	uint32_t end_slot;            /* first slot behind the last batch */
	uint32_t live;                /* map entries that point here */
	uint32_t pins;                /* readers at work on it */
	uint64_t *hot; /* a bit per slot: read since it was inserted; NULL while not in use */
	uint64_t *prefetched;   /* a bit per slot: came by readahead, not read yet */
	struct seg_table table; /* while HEAD or SEALING */
};

/* ---- appending ---- */

/*
 * One record on its way into a segment. appended() runs under the lock, in the order of the
 * log, once the record is in the file (or with an error if it never will be).
 */
struct append_op {
	struct list_node link;
	struct format_record record; /* seq and slot are filled in by the appender */
	const struct iovec *iov;     /* payload; NULL without */
	int iovcnt;
	size_t skip;         /* bytes of iov before the payload */
	const uint32_t *crc; /* per payload block */
	bool control;        /* may use the reserve */
	bool numbered;       /* seq was given by an attempt that failed */
	bool prefetched;
	uint32_t segment; /* where it went */
	void (*appended)(struct cache *c, struct append_op *op, int result, struct todo *todo);
};

struct appender {
	struct cache *cache;
	enum format_class class;
	bool probation;
	bool busy;         /* one batch is in flight */
	int head;          /* segment number or -1 */
	unsigned failures; /* in a row */
	bool no_room;      /* the last append found the disk full; again when it is not */
	uint32_t next_slot;
	struct list_node pending; /* append_op.link */
	uint64_t pending_blocks;
	/* The batch in flight. */
	struct list_node flight; /* append_op.link */
	uint32_t flight_slots;
	struct format_batch batch;
	struct format_record prev[FORMAT_BATCH_RECORDS];
	uint32_t nprev;
	uint32_t crc[FORMAT_SLOT_BYTES / 4];
	uint8_t *slots; /* two aligned slots: segment header, batch header */
	struct iovec iov[LIO_MAX_IOV];
	struct lio_op lop;
};

/* ---- sync ---- */

struct sync_wait {
	struct list_node link;
	uint64_t seq; /* wants all up to here durable */
	bool promise; /* to the guest: not in files that nobody can find again */
	void (*synced)(struct cache *c, struct sync_wait *w, int result, struct todo *todo);
};

/* ---- epochs ---- */

struct epoch {
	struct list_node link;
	uint64_t first_seq; /* of its first data record */
	uint64_t last_seq;  /* of its barrier; 0 while open */
	uint64_t log_slots; /* taken in the log, headers included */
	uint64_t records;   /* data records */
	uint64_t since_ns;  /* sched_now() of the first record */
	uint64_t closed_wall_ns;
	bool by_flush;
};

struct destage;

/* ---- the cache ---- */

struct index_task;
struct janitor;
struct opening;

struct cache {
	struct blk_dev dev;
	struct cache_config conf;
	struct sched *sched;
	struct lio *lio;
	struct blk_info inner_info;
	struct writeback_conf wb_conf;

	pthread_mutex_t lock;   /* the lock; leaf */
	pthread_cond_t changed; /* broadcast when `in_flight` or `stopped` things end */

	unsigned waiters; /* threads in cache_wait(); guarded by lock */
	bool started;     /* guarded by lock, like all below */
	bool opened;      /* what recovery kept is written down: the directory is what we know */
	bool stopping;
	bool abandoned;
	bool was_clean;  /* the directory had nothing unsent when it was opened */
	bool forget;     /* and nothing it held counts any more */
	bool log_failed; /* nothing can be appended or made durable any more: writes are EIO */
	bool log_unsafe; /* and a sync of it failed: what it holds may not be on the medium */
	bool gone;    /* the log's files were removed: what is unsent is sent, no more is taken */
	bool damaged; /* dirty data was lost: destage stands before its epoch */
	bool fenced;  /* the far side may not be written any more: destage stands */
	unsigned in_flight; /* requests from above not yet completed, and internal work under way */

	struct map map;
	uint64_t nblocks;

	struct segment *seg;
	uint32_t nsegs;      /* entries of seg */
	uint32_t limit_segs; /* files at most; fewer than nsegs after --cache-size was lowered */
	uint32_t seg_slots;
	unsigned prepared_log, prepared_clean; /* segments in READY, by what they were made for */
	uint64_t next_order;
	uint64_t next_incarnation;
	uint32_t files; /* segments with a file */
	bool disk_full;

	struct appender log;
	struct appender store[2]; /* 0 main, 1 probation */

	uint64_t next_seq;     /* of the next record */
	uint64_t appended_seq; /* all up to here are in the file, applied and acknowledged */
	uint64_t durable_seq;  /* all up to here survive a power cut */
	uint64_t
		content_seq; /* newest record in the file but for watermarks: what a flush is for */
	uint64_t marked_seq; /* durable_seq of the newest batch header */
	uint64_t destaged_seq; /* all up to here are durable at the target */
	uint64_t far_as_of_ns; /* 0 unknown */

	struct list_node sync_waits; /* sync_wait.link, by arrival */
	unsigned sync_ops;           /* fdatasync calls in flight */
	int sync_result;
	uint64_t sync_target;

	struct epoch open;             /* records == 0: nothing in it */
	struct list_node epochs;       /* closed, oldest first */
	struct list_node spare_epochs; /* epoch.link: memory for barriers on their way */
	uint64_t nepochs;
	uint64_t dirty_slots; /* log slots of open and closed epochs */
	bool cut_pending;     /* a barrier is on its way */
	struct sched_timer cut_timer;
	struct sched_timer mark_timer;

	struct list_node throttled; /* write_op.link */
	unsigned nthrottled;
	struct sched_timer throttle_timer;
	uint64_t throttle_next_ns;
	struct writeback wb;

	struct list_node writes;    /* write_op.link: handed to the log, not yet applied */
	struct list_node rmw_locks; /* rmw_lock.link */

	struct list_node fetches[256]; /* fetch.link, hashed by group of 256 blocks */
	unsigned nfetches;
	uint64_t ra_in_flight; /* bytes of readahead fetches */
	struct readahead ra;
	struct list_node read_ops; /* read_op.link: free ones */

	struct list_node drains; /* cache_drain.link */
	struct destage *destage;
	struct janitor *janitor;

	struct opening *opening; /* recover.c's, while starting */

	struct list_node index_queue; /* index_item.link */
	struct task index_task;
	bool index_busy;
	bool index_failed;

	struct cache_damage damage[32];
	unsigned ndamage;

	/* Counters for status. */
	uint64_t hit_bytes, miss_bytes, readahead_bytes, readahead_wasted_bytes, written_bytes;
};

/* ---- cache.c ---- */

/* One more, or one less, thing under way that stop has to wait for. */
void cache_get(struct cache *c);
void cache_put(struct cache *c);
/* Block until cond(c) is true; cond runs under the lock. Start and stop only. */
void cache_wait(struct cache *c, bool (*cond)(struct cache *c));
/* Remember a damaged range for messages and status. */
void cache_note_damage(struct cache *c, uint64_t blk, uint64_t n, bool dirty);
/* Bytes of [blk, blk + n) that belong to the volume: the last block may be partial. */
static inline uint64_t cache_valid_bytes(const struct cache *c, uint64_t blk, uint64_t n)
{
	return MIN((blk + n) * BLK, c->inner_info.size_bytes) - blk * BLK;
}
/* Walk all and assert; with --enable-invariants at every unlock of a step that says so. */
void cache_check_invariants(struct cache *c);

/* ---- segment.c ---- */

/* The file name of @segment: eight hexadecimal digits and ".seg". Pure; any thread. */
void segment_name(uint32_t segment, char name[32]);
static inline uint32_t slot_segment(const struct cache *c, uint32_t slot)
{
	return slot / c->seg_slots;
}
/* Replace a map entry and keep the segments' live counts. */
void cache_map_set(struct cache *c, uint64_t blk, uint64_t entry);
void cache_map_fill(struct cache *c, uint64_t blk, uint64_t n, uint64_t entry);
/* Mark a slot as read; true if it had come by readahead and was not read before. */
bool segment_touch(struct cache *c, uint32_t slot);
void segment_pin(struct cache *c, uint32_t segment);
void segment_unpin(struct cache *c, uint32_t segment);
/* The state of a segment that can hold volume data. */
static inline bool segment_in_use(const struct segment *s)
{
	return s->state == SEG_HEAD || s->state == SEG_SEALING || s->state == SEG_SEALED ||
	       s->state == SEG_EVICTING;
}
/* All its records are durable at the target (trivially for the clean store). */
bool segment_is_clean(const struct cache *c, const struct segment *s);
/* Make bitmaps; 0 or -ENOMEM. */
int segment_arm(struct cache *c, struct segment *s);
void segment_disarm(struct segment *s);
int seg_table_add(struct seg_table *t, const struct format_record *r, const uint32_t *crc);
void seg_table_fini(struct seg_table *t);

/* ---- table.c ---- */

/*
 * Read the records of @segment from its footer, or by scanning where that is missing or damaged.
 * Blocks on I/O; no lock. *@ret, and what @ret_info (if not NULL) names, are the caller's to free.
 * 0 or -errno.
 */
struct table_info {
	uint64_t destaged_seq, durable_seq, far_as_of_ns;
	uint32_t end_slot;
	bool from_footer;
	bool unread;      /* a slot where a header may stand could not be read */
	bool unread_tail; /* and one of them is behind the last batch found */
	/* Records with payload that a later batch repeats but that are not there; no checksums. */
	struct seg_table named;
};
/* The slot of a record that a later batch repeats and that needs no payload: it stands for itself,
 * after the one it repeats. */
#define TABLE_REPEATED 1u
int table_load(struct cache *c, uint32_t segment, struct lio_file *file, uint64_t incarnation,
	       struct seg_table *ret, struct table_info *ret_info);

/* ---- append.c, sync.c ---- */

/* An appender without a head segment. 0 or -ENOMEM; appender_fini() is safe after either. Start
 * only. */
int appender_init(struct appender *a, struct cache *c, enum format_class class, bool probation);
/* Free what init took, also of a zeroed one; nothing may be in flight. */
void appender_fini(struct appender *a);
/* Hand over @op; the appender owns it until appended(). */
void append_submit(struct appender *a, struct append_op *op, struct todo *todo);
/* Go on if possible: called when a segment became ready. */
void append_kick(struct appender *a, struct todo *todo);
/* End all that waits with @result; what is in flight is not touched. */
void append_fail(struct appender *a, int result, struct todo *todo);
/* Nothing can be appended or made durable any more: end all that waits for it. */
void log_fail(struct cache *c, struct todo *todo);
/* Seal the head if there is one: no more appends into it. */
void append_seal(struct appender *a, struct todo *todo);
/* Call w->synced once all up to w->seq is durable; starts an fdatasync if none is under way. */
void sync_submit(struct cache *c, struct sync_wait *w, struct todo *todo);
/* Take dirty data's headers along: see marked_seq. */
void mark_timer_fired(struct task *t);

/* ---- epoch.c ---- */

/* Account for a data record that was appended; @slots of the log. */
void epoch_add(struct cache *c, const struct format_record *r, uint64_t slots);
/* The same for @slots that hold control records only: they go with the newest epoch. */
void epoch_add_control(struct cache *c, uint64_t slots);
/*
 * Take memory for the epoch that a barrier about to be appended closes: 0 or -ENOMEM. Each is used
 * up by one epoch_close(), or given back by epoch_unreserve() where the barrier failed.
 */
int epoch_reserve(struct cache *c);
void epoch_unreserve(struct cache *c);
/* The barrier with @seq was appended. */
void epoch_close(struct cache *c, uint64_t seq, uint64_t wall_ns, bool by_flush);
/* Append a barrier for the open epoch, unless one is on its way or nothing is open. */
void epoch_cut(struct cache *c, struct todo *todo);
void epoch_arm_timer(struct cache *c);
/* The open epoch is old or large enough, or a drain waits for records of it. */
bool epoch_wants_cut(const struct cache *c);
void cut_timer_fired(struct task *t);
/* The oldest epoch is durable at the target. */
void epoch_retire(struct cache *c, struct todo *todo);

/* ---- read.c, fetch.c ---- */

/* What blk_req.dev_data points to while the cache holds the request: guarded by lock. */
enum held_kind { HELD_READ, HELD_WRITE, HELD_SPLIT };
struct held {
	enum held_kind kind;
};

struct read_op;
/*
 * Serve a READ of at most PIECE_BYTES; its done() comes exactly once, with no lock held, perhaps
 * before this returns. No lock held; any thread.
 */
void read_submit(struct cache *c, struct blk_req *req);
/* End with -EINTR what still waits for the far side. Under the lock; finish with
 * read_cancelled(). */
void read_cancel(struct cache *c, struct held *held, struct list_node *cancelled);
/* No lock held. */
void read_cancelled(struct list_node *cancelled);
void read_fini(struct cache *c);

enum fetch_state {
	FETCH_SENT,     /* asked for */
	FETCH_ANSWERED, /* the bytes are in buf; readers may be served from it */
};

struct fetch {
	struct list_node link; /* in its group's list until freed */
	struct cache *cache;
	enum fetch_state state;
	uint64_t blk;
	uint32_t nblocks;
	bool readahead; /* nobody has asked for it yet */
	bool counted;   /* in ra_in_flight */
	uint64_t base_seq;
	unsigned refs; /* the fetch itself, records being appended, readers copying */
	uint8_t *buf;
	uint64_t stale[MAP_LEAF_BLOCKS / 64]; /* per block: a guest record came by */
	struct list_node waits;               /* fetch_wait.link */
	struct inner_io io;
	struct iovec iov;
	uint32_t crc[MAP_LEAF_BLOCKS];
	uint64_t zero[MAP_LEAF_BLOCKS / 64]; /* per block: all zeroes */
};

struct fetch_wait {
	struct list_node link;    /* in the fetch */
	struct list_node op_link; /* in the read */
	struct read_op *op;
	uint64_t blk; /* first block wanted */
	uint32_t n;
};

static inline bool fetch_stale(const struct fetch *f, uint64_t blk)
{
	uint32_t i = (uint32_t)(blk - f->blk);

	return f->stale[i / 64] >> (i % 64) & 1;
}

/* The fetch that covers @blk and may be joined, or NULL. */
struct fetch *fetch_find(struct cache *c, uint64_t blk);
/* Some fetch in flight at the inner device touches the range, stale or not. */
bool fetch_in_flight(struct cache *c, uint64_t blk, uint64_t n);
/* Begin one; [blk, blk + n) is absent, not covered, and within one group. NULL: no memory. */
struct fetch *fetch_begin(struct cache *c, uint64_t blk, uint32_t n, const struct blk_req *why,
			  struct todo *todo);
void fetch_mark_stale(struct cache *c, uint64_t blk, uint64_t n);
/* Give a reference back; frees the last. Under the lock. */
void fetch_put(struct cache *c, struct fetch *f);
/* Tell readahead of a demand read and begin what it asks for. */
void fetch_readahead(struct cache *c, uint64_t offset, uint64_t length, bool hit,
		     struct todo *todo);
/* One part of @op ended. No lock. */
void read_part_done(struct read_op *op, int result);
/* Copy what @w wants out of the fetch's buffer. No lock; the caller holds a reference. */
void read_copy(struct read_op *op, const struct fetch *f, uint64_t blk, uint32_t n);

/* ---- write.c ---- */

struct write_op;
/*
 * Take a WRITE, ZERO or DISCARD (a WRITE of at most PIECE_BYTES, the others in whole blocks); its
 * done() comes exactly once, with no lock held, perhaps before this returns. No lock held; any
 * thread.
 */
void write_submit(struct cache *c, struct blk_req *req);
/* Begin, or begin again, what waited for room or for another write's block. No lock. */
void write_begin_list(struct list_node *writes);
/* The same for a FLUSH: a barrier, and all before it durable locally. */
void flush_submit(struct cache *c, struct blk_req *req);
/* Let throttled writers go on as far as there is room. */
void write_unthrottle(struct cache *c, struct todo *todo);
void throttle_timer_fired(struct task *t);
/* A write that still waits for room ends with -EINTR. Under the lock. */
void write_cancel(struct cache *c, struct held *held, struct todo *todo);
/* Everything that waits for room ends with @result. */
void write_fail_waiting(struct cache *c, int result, struct todo *todo);

/* ---- destage.c ---- */

/* Make it, idle. 0 or -ENOMEM. Start only. */
int destage_init(struct cache *c);
/* End its timer; nothing may be under way. Stop only. */
void destage_halt(struct cache *c);
/* Free it; safe where init was not called or failed. */
void destage_fini(struct cache *c);
/* Something changed: an epoch became durable, a fetch ended, a drain came. */
void destage_kick(struct cache *c);
/* An epoch is being read, sent or marked. Under the lock. */
bool destage_active(const struct cache *c);
/* Payload of the epoch under way that the target has answered but not made durable yet. */
uint64_t destage_sent_bytes(const struct cache *c);

/* ---- janitor.c ---- */

/* Make it, idle. 0 or -ENOMEM. Start only. */
int janitor_init(struct cache *c);
/* End its timer; nothing may be under way. Stop only. */
void janitor_halt(struct cache *c);
/* Free it; safe where init was not called or failed. */
void janitor_fini(struct cache *c);
void janitor_kick(struct cache *c);
/* The disk, or the share of it that this user may take, is full: give clean data back and try again
 * in a while. */
void janitor_disk_full(struct cache *c);
/* It waits for copies of hot blocks to reach the clean store. */
bool janitor_copying(const struct cache *c);
/* Ask for all clean data to be dropped. */
void janitor_drop(struct cache *c);
/* The last janitor_drop() has been carried out. */
bool janitor_dropped(const struct cache *c);

/* Call back every drain that waits, with @result. */
void drains_end(struct cache *c, int result, struct todo *todo);

/* ---- indexq.c ---- */

struct index_item {
	struct list_node link;
	struct index_op op;
	uint32_t *crc; /* owned; op.extent.crc */
	bool durable;
	uint64_t tail_seq;     /* the log is about to be reclaimed up to here; 0: not */
	uint64_t destaged_seq; /* with it */
	void (*applied)(struct cache *c, void *ctx, int result); /* no lock held */
	void *ctx;
};
/* Queue in order with every other change. Failing to get memory marks the index failed. */
void indexq_put(struct cache *c, uint64_t blk, uint32_t n, uint32_t slot, const uint32_t *crc);
void indexq_zero(struct cache *c, uint64_t blk, uint64_t n);
void indexq_delete(struct cache *c, uint64_t blk, uint64_t n);
/* Forget all of it: for deletions whose extent nobody knows. */
void indexq_wipe(struct cache *c);
/*
 * applied() once everything queued before is durable, and that the log will be reclaimed up to
 * @tail_seq (0: nothing of it). False: no memory, ask again later.
 */
bool indexq_barrier(struct cache *c, uint64_t tail_seq,
		    void (*applied)(struct cache *c, void *ctx, int result), void *ctx);
void indexq_run(struct task *t);
/* How far the log was reclaimed, as the index knows it. 0; -ENOENT: it does not; else -errno.
 * Serial, as all index calls. */
int index_put_tail(struct index_store *index, uint64_t tail_seq, uint64_t destaged_seq);
int index_get_tail(struct index_store *index, uint64_t *ret_tail_seq, uint64_t *ret_destaged_seq);

/* ---- recover.c ---- */

/* Open the directory: index, log, map, heads. No lock needed yet: nobody else is here. */
int cache_recover(struct cache *c, struct err *err);

#endif
