// SPDX-License-Identifier: Apache-2.0
/*
 * What the two halves of write-back share: destage.c, which says what is sent and when it counts,
 * and send.c, which sends it. Not for others.
 */
#ifndef CACHE_DESTAGE_H
#define CACHE_DESTAGE_H

#include "cache/internal.h"
#include "cache/plan.h"
#include "policy/backoff.h"

enum destage_state { IDLE, ANNOUNCING, BUILDING, SENDING, FLUSHING, MARKING, BLOCKED };

/* Guarded by the cache's lock, all but the plan. */
struct destage {
	struct cache *cache;
	struct task task;
	struct sched_timer retry;
	bool posted; /* the task is pending or running */
	bool kicked; /* look again */
	enum destage_state state;
	struct backoff backoff;
	bool waiting; /* for the retry timer */
	bool rested;  /* there was nothing to send: a pause that says nothing of the link */

	/* The run at hand. */
	uint64_t first_seq, last_seq;
	uint64_t log_bytes;
	uint64_t begin_ns, answered_ns; /* its first command; its last answer */
	bool smooth;                    /* nothing was sent twice: it tells what the link can do */

	/* send.c's. */
	struct plan plan;    /* the task's alone, but for the states of its commands */
	size_t from;         /* commands before it are not TODO */
	uint64_t generation; /* read before what counts as answered was sent */
	uint64_t calm;       /* the generation at which no write of ours can land late; 0: none */
	bool write_through;  /* the target has no volatile cache */
	bool fua;            /* the run goes as FUA writes */
	unsigned in_flight;  /* commands, without the SYNC */
	uint64_t in_flight_bytes;
	uint64_t total, answered; /* effort of the run, and what of it is answered; see effort() */
	uint64_t durable;         /* of answered, what a checkpoint has made durable */
	uint64_t credited;        /* log bytes of the run told to the policy as delivered */
	int error;                /* a command failed: send it again after a pause */
	bool syncing;             /* a FLUSH is out, or its result not looked at */
	bool sync_ended;
	int sync_result;
	struct inner_io flush;

	struct append_op mark;
	struct sync_wait mark_sync;
	bool mark_ended;
	int mark_result;
};

/* ---- send.c ---- */

/*
 * The plan is there, and the far side's geometry and generation were asked after the former run
 * ended: begin to send. Under the lock.
 */
void send_begin(struct cache *c, const struct blk_info *info, uint64_t generation);

/*
 * One step of SENDING or FLUSHING: a command, a checkpoint, the last SYNC, or a look at what came
 * of it. Goes on to FLUSHING, and to MARKING (with destage_mark()) once all of the run is durable
 * at the target; to BLOCKED by damage or a fence. False: nothing to do until somebody kicks. The
 * lock is held, and may be dropped meanwhile.
 */
bool send_step(struct cache *c, struct todo *todo);

/* ---- destage.c ---- */

/* The run is durable far away: write that down. Under the lock. */
void destage_mark(struct cache *c, struct todo *todo);
/* Go on after a pause that grows. Under the lock. */
void destage_pause(struct cache *c);
/* The far side may not be written any more. Under the lock. */
void destage_fence(struct cache *c, struct todo *todo);

#endif
