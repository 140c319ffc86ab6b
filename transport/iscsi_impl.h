// SPDX-License-Identifier: Apache-2.0
/*
 * What the files of the iscsi device share. Not for others.
 *
 *   blk_req ── io ──┬── cmd ── queue of the pool (waiting to be sent again)
 *                   ├── cmd ── inbox of a session ── sent list of that session
 *                   └── not cut yet: the io is in its lane's list
 *
 * An io (iscsi_io.c) is a request; it is cut into commands when a session has room, so that size
 * and session suit the moment. iscsi_dispatch() is the one place that gives commands to sessions.
 *
 * Threads: one per session ("nb-iscsi-N"), which alone touches its connection and its sent list;
 * one for the fence ("nb-fence"). Everything else is guarded by pool->lock, which is never held
 * over a call into libiscsi or a done().
 *
 * Invariants (iscsi_check()):
 *  - a session has commands only while it is UP;
 *  - its counts of cmds and in-flight bytes are those of its inbox and sent list together;
 *  - while fencing no command is given out; ghosts is cleared only by the fence;
 *  - an io lives while it has uncut bytes, ranges to do again, commands, or its final SYNC to go.
 */
#ifndef TRANSPORT_ISCSI_IMPL_H
#define TRANSPORT_ISCSI_IMPL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/block.h"
#include "core/list.h"
#include "policy/backoff.h"
#include "policy/window.h"
#include "transport/iscsi_conn.h"
#include "transport/iscsi_probe.h"
#include "transport/leaf.h"

#define ISCSI_MAX_SESSIONS 64
/*
 * Commands of one session at a time: LIO grants 64, more would wait in libiscsi, out of reach. The
 * last ones are for flushes; neither demand nor what is not urgent may have all others, so that
 * none of the three starves.
 */
#define ISCSI_SLOTS 64
#define ISCSI_SLOTS_DATA 62
#define ISCSI_SLOTS_DEMAND 58
#define ISCSI_SLOTS_LOWER 52

enum iscsi_kind { ISCSI_READ, ISCSI_WRITE, ISCSI_ZEROES, ISCSI_SAME, ISCSI_SYNC };

struct iscsi_pool;
struct iscsi_session;

struct iscsi_io {
	struct list_node link; /* pool->ios[lane] while something is to be cut */
	struct blk_req *req;
	enum blk_lane lane;    /* the request's; what may wait for the fence is never in DEMAND */
	uint64_t cut_bytes;    /* from the start of the request: already commands */
	struct list_node redo; /* cmds whose range is to be cut again in another way */
	unsigned commands;     /* out: queued, in an inbox, sent */
	int result;
	bool cancelled;
	bool sync_after; /* a SYNC must follow the rest: FUA where the command has none */
	bool synced;     /* that SYNC was made */
	bool same;       /* WRITE SAME instead of zero payload */
};

struct iscsi_cmd {
	struct list_node link;
	struct iscsi_io *io;
	enum iscsi_kind kind;
	uint64_t offset;
	uint64_t length; /* bytes on the medium; 0 for SYNC */
	uint64_t cost;   /* bytes charged to the window */
	unsigned tries;
	uint64_t not_before_ns;
	/* the session thread's: */
	struct iscsi_session *session;
	struct scsi_task *task;
	bool sync16;                  /* SYNC: which of the two was sent */
	struct iscsi_verdict refused; /* while lingering */
	struct window_stamp stamp;    /* guarded by pool->lock */
	uint64_t sent_ns;
	int iovcnt;
	struct iovec iov[];
};

/* What came to its end under the lock, to be completed after it. */
struct iscsi_ended {
	struct list_node list; /* ios */
};

enum iscsi_state { ISCSI_WAITING, ISCSI_CONNECTING, ISCSI_UP };

/* What a session is asked to do once nothing of its is in flight. */
enum iscsi_chore {
	ISCSI_CHORE_PROBE = 1 << 0,     /* learn the LUN again */
	ISCSI_CHORE_ATTENTION = 1 << 1, /* take pending UNIT ATTENTIONs */
	ISCSI_CHORE_RESET = 1 << 2,     /* LUN RESET, for the fence */
};

struct iscsi_session {
	struct iscsi_pool *pool;
	unsigned slot;
	pthread_t thread;
	bool thread_running; /* the starter's */
	int wake_fd;

	/* guarded by pool->lock */
	enum iscsi_state state;
	unsigned portal;        /* index of the one in use or tried next */
	struct list_node inbox; /* cmds to send */
	unsigned cmds;
	unsigned demand_cmds; /* of them those in lane DEMAND */
	uint64_t read_bytes;  /* in flight, inbox included */
	uint64_t write_bytes;
	struct window reads, writes;
	uint32_t one_trip_bytes;
	uint32_t max_burst_bytes;
	uint64_t rtt_ns;
	uint64_t ups;        /* times it was established */
	uint64_t attempt_ns; /* CONNECTING: since when */
	unsigned chores;
	int reset_result;      /* of CHORE_RESET: 1 = none yet */
	bool kicked;           /* skip the pause */
	uint32_t lost_portals; /* bit: this slot lost unanswered writes there, not reinstated yet */
	uint64_t lost_ns;      /* the last time */
	uint32_t portal_group; /* of the login in use */

	atomic_bool give_up; /* leave the attempt under way, or the pool stops */

	/* the thread's */
	struct iscsi_conn conn;
	struct list_node sent;
	struct list_node lingering; /* refused writes whose data is still in libiscsi's queue */
	struct iscsi_ended ended;
	unsigned nops; /* NOP-Outs without an answer */
	uint64_t nop_sent_ns;
	uint64_t nop_due_ns;
	uint64_t heard_ns; /* when the target last sent anything */
	uint64_t heard_bytes;
	uint64_t answered_ns;   /* when a command that moves data was last answered; 0: none yet */
	uint64_t look_ns;       /* when the timers were looked at */
	struct backoff backoff; /* between attempts to open it */
	struct backoff barren;  /* likewise, while it opens and then carries no data */
	uint64_t said_hash; /* why it could not be opened when the log last said so; 0: it is up */
	uint64_t said_ns;
	uint64_t random;
};

struct iscsi_pool {
	struct blk_dev dev;
	struct leaf_config conf;
	unsigned count;
	struct iscsi_session *sessions;
	atomic_bool stop; /* threads leave what they wait for */
	atomic_uint_fast64_t generation;
	atomic_uint_fast64_t read_bytes, write_bytes;

	pthread_mutex_t lock;
	pthread_cond_t changed; /* a session's state, chores or commands; fencing; stopping */
	/* guarded by lock */
	bool stopping; /* no new requests */
	uint64_t stop_deadline_ns;
	struct list_node ios[BLK_LANE_COUNT];
	struct list_node again[BLK_LANE_COUNT]; /* cmds to send (again), before new ones */
	struct list_node delayed;               /* cmds with not_before_ns */
	unsigned next_session;                  /* round robin among equals */
	bool lun_known;
	struct iscsi_lun lun;
	bool same_works; /* WRITE SAME was not refused yet */
	bool sync16_works;
	bool ghosts;         /* unanswered writes of lost sessions may still land */
	bool fence_wanted;   /* a request waits for the ghosts to go */
	bool fencing;        /* nothing is given out: the fence runs */
	unsigned next_visit; /* the fence's: slot and portal to look at next */
	bool no_reset;       /* the target refused LUN RESET: the fence lets time pass first */
	unsigned resets_unanswered; /* in a row */
	uint64_t
		old_slots_ns; /* when a slot of an earlier run could not be reinstated; 0 = never */
	bool fence_thread_running;
	pthread_t fence_thread;
	uint32_t portal_group[URL_PORTALS]; /* as logins told */
	uint64_t wrong_since_ns;            /* another volume answers; 0 = no */
	_Atomic(const char *) fenced;       /* NULL or fenced_text; set once, lock held */
	char fenced_text[768];
	bool foreign;           /* fenced, and what is there is not ours to read either */
	bool from_memory;       /* lun is what it was at an earlier run: nobody has answered yet */
	uint64_t down_since_ns; /* no session is up since then; 0: one is */
	bool outage_thread_running;
	pthread_t outage_thread;
	int start_result; /* of the first session: 1 = none yet */
	struct err start_error;
};

/* iscsi_io.c: requests and commands. All with pool->lock held unless said otherwise. */

/* An empty list. Any thread. */
void iscsi_ended_init(struct iscsi_ended *ended);
/* Without the lock: complete the requests. */
void iscsi_ended_complete(struct iscsi_ended *ended);

/* Take @req in. 0, or the -errno it must end with. */
int iscsi_io_begin(struct iscsi_pool *pool, struct blk_req *req);
/*
 * Give out what can be given; wakes the sessions that got something, but not @self (may be NULL),
 * which looks at its inbox before it drops the lock.
 */
void iscsi_dispatch(struct iscsi_pool *pool, struct iscsi_session *self, struct iscsi_ended *ended);
/* @cmd, already out of all lists and no longer charged, is over: frees it. */
void iscsi_cmd_end(struct iscsi_pool *pool, struct iscsi_cmd *cmd, int result,
		   struct iscsi_ended *ended);
/* @cmd, likewise, is to be sent again: at once (0) or not before then. */
void iscsi_cmd_again(struct iscsi_pool *pool, struct iscsi_cmd *cmd, uint64_t not_before_ns);
/* @cmd's range must be done without WRITE SAME. */
void iscsi_cmd_recut(struct iscsi_pool *pool, struct iscsi_cmd *cmd);
/* Put @cmd of a lost session back, or end it where it may be dropped. */
void iscsi_cmd_lost(struct iscsi_pool *pool, struct iscsi_cmd *cmd, struct iscsi_ended *ended);
/* Move cmds whose time has come to the queues; returns when the next one's comes, 0 = none. */
uint64_t iscsi_delayed_due(struct iscsi_pool *pool, uint64_t now_ns);
/* Take @cmd's bytes off its session. */
void iscsi_uncharge(struct iscsi_cmd *cmd);
enum iscsi_which {
	ISCSI_ALL,
	ISCSI_ADVISORY,
	ISCSI_CHANGES,       /* all but READs */
	ISCSI_WAITING_READS, /* those that somebody waits for */
};
/* End what is queued and of that kind with @result. */
void iscsi_fail_queued(struct iscsi_pool *pool, int result, enum iscsi_which which,
		       struct iscsi_ended *ended);
/* Cancel @io if nothing of it was sent; else remember. */
void iscsi_io_cancel(struct iscsi_pool *pool, struct iscsi_io *io, struct iscsi_ended *ended);
bool iscsi_any_up(const struct iscsi_pool *pool);
/* Check the invariants; nothing without --enable-invariants. */
void iscsi_check(const struct iscsi_pool *pool);

/* iscsi_cut.c, with the lock. */
/* Part of @io's range is not in commands yet. */
bool iscsi_io_uncut(const struct iscsi_io *io);
/* What its next command for that part will be. */
enum iscsi_kind iscsi_io_kind(const struct iscsi_io *io);
/* About how many bytes that command will put in flight. */
uint64_t iscsi_io_next_bytes(const struct iscsi_pool *pool, const struct iscsi_io *io);
/*
 * The next command of @io, of a size that suits @s; the final SYNC when nothing is uncut. The
 * caller owns it; it counts in io->commands. NULL: no memory.
 */
struct iscsi_cmd *iscsi_cut(const struct iscsi_pool *pool, const struct iscsi_session *s,
			    struct iscsi_io *io);

/* iscsi_session.c */
int iscsi_session_init(struct iscsi_session *s, struct iscsi_pool *pool, unsigned slot);
void iscsi_session_destroy(struct iscsi_session *s);
/* 0 or -errno. The thread ends once pool->stop is set; join it. */
int iscsi_session_start(struct iscsi_session *s);
void iscsi_session_join(struct iscsi_session *s);
/* Any thread, the lock may be held. */
void iscsi_session_wake(struct iscsi_session *s);

/* 64 random bits, for pauses. On the session's thread. */
uint64_t iscsi_session_random(struct iscsi_session *s);
/* What is asked of a quiet session. 0, or -errno: the connection must go. On its thread. */
int iscsi_session_chores(struct iscsi_session *s);
/* iscsi_serve.c: work until the connection must go or the pool stops. On its thread. */
void iscsi_session_serve(struct iscsi_session *s);

/* iscsi_outage.c */
/* @error of a login may pass by itself; false: only a person can mend it. */
bool iscsi_is_outage(int error);
/*
 * Without the lock, at the start: nobody answers, take the volume for what conf.known says. False:
 * somebody has answered meanwhile.
 */
bool iscsi_start_offline(struct iscsi_pool *pool, const struct err *why);
/* With the lock: no session was up for longer than reads are to wait. */
bool iscsi_reads_expired(const struct iscsi_pool *pool);
int iscsi_outage_start(struct iscsi_pool *pool);
void iscsi_outage_join(struct iscsi_pool *pool);
/*
 * With the lock: nothing may be written any more, for good; @fmt says why and what to do. @foreign:
 * nor be read. What is queued ends with -ESTALE, what is under way when its answer comes. Only the
 * first one counts.
 */
void iscsi_fence_off(struct iscsi_pool *pool, bool foreign, struct iscsi_ended *ended,
		     const char *fmt, ...) __attribute__((format(printf, 4, 5)));
/* Fenced, and what is there is not to be talked to. Any thread. */
bool iscsi_is_foreign(const struct iscsi_pool *pool);
/* Any thread: @req may not be carried out any more. */
bool iscsi_fenced_for(const struct iscsi_pool *pool, const struct blk_req *req);

/* iscsi_fence.c */
/* Everything that earlier runs may have left: mark ghosts for all slots and portals. */
void iscsi_fence_expect(struct iscsi_pool *pool);
/*
 * Without the lock, first session up: reinstate the slots beyond the present sessions. 0 or -errno
 * with @err. Portals that cannot be reached stay marked.
 */
int iscsi_fence_old_slots(struct iscsi_pool *pool, uint64_t deadline_ns, struct err *err);
int iscsi_fence_start(struct iscsi_pool *pool);
void iscsi_fence_join(struct iscsi_pool *pool);
/* With the lock: a login of @s at its portal reinstated the slot there. */
void iscsi_fence_login(struct iscsi_pool *pool, struct iscsi_session *s, uint32_t group);
/* With the lock: the session was lost; @writes: with some unanswered. */
void iscsi_fence_lost(struct iscsi_pool *pool, struct iscsi_session *s, bool writes);

/* iscsi_session.c, for the fence: reserve nothing, just how a slot logs in. */
void iscsi_login_fill(const struct iscsi_pool *pool, unsigned portal, unsigned slot,
		      uint64_t deadline_ns, struct iscsi_login *ret);

#endif
