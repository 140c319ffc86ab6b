// SPDX-License-Identifier: Apache-2.0
/*
 * Ownership: a persistent reservation of type Write Exclusive - Registrants Only (SPC-4 5.13). Each
 * run of the daemon has a key of its own, each of its sessions registers it, one of them reserves;
 * whoever is not registered can read, and is refused to write.
 *
 *   WANTED ──(free, or of an earlier run, or --takeover)── HELD ──(nothing unsent, stop)── RELEASED
 *      │ read only                                           │
 *      READER                                                └──(another one has it)── LOST
 *
 *   NONE: --reserve=off, or the target has no such thing.
 *
 * The one rule: any registered session may write, whoever holds the reservation; so a session that
 * registers asks afterwards who the holder is, and carries nothing until that turned out to be us.
 * If it is, whoever takes the volume later preempts our key, and with it this registration.
 *
 * An earlier run's key is preempted: so its sessions, of whatever slot or portal, cannot write any
 * more, and with the LUN RESET of the fence behind it (iscsi_fence.c) none of its WRITEs can still
 * land. The same is done to everybody else in a takeover, before anything is read or written.
 *
 * A reservation that has gone while we believed to hold it was forgotten by the target (a restart
 * sets PRGENERATION to zero, SPC-4 6.15.2), and is taken again; if PRGENERATION has gone on, or
 * moved without us since, somebody took it and left: that is a loss all the same.
 *
 * Invariants: doubt only while HELD; LOST exactly when pool->fenced is set; while doubt is set
 * nothing is given to sessions.
 */
#include "transport/iscsi_reserve.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/cleanup.h"
#include "core/clock.h"
#include "core/log.h"
#include "transport/iscsi_prcmd.h"

#define WATCH_NS (3 * NSEC_PER_SEC)
#define GIVE_UP_NS (2 * NSEC_PER_SEC)

void iscsi_reserve_init(struct iscsi_pool *pool)
{
	pool->owner.state = pool->conf.owner.reserve == LEAF_RESERVE_OFF ? ISCSI_OWNER_NONE
									 : ISCSI_OWNER_WANTED;
}

/* ---- losing ---- */

void iscsi_reserve_lose(struct iscsi_pool *pool, const char *why, struct iscsi_ended *ended)
{
	if (pool->owner.state == ISCSI_OWNER_LOST)
		return;
	snprintf(pool->owner.text, sizeof(pool->owner.text), "%s", why);
	pool->owner.state = ISCSI_OWNER_LOST;
	pool->owner.doubt = false;
	atomic_store(&pool->fenced, pool->owner.text);
	iscsi_fail_queued(pool, -ESTALE, false, ended);
	for (unsigned i = 0; i < pool->count; i++)
		iscsi_session_wake(&pool->sessions[i]);
	pthread_cond_broadcast(&pool->changed);
}

/* Another one has it, or had it while we were not looking (@key 0). Always -ESTALE. */
static int lost(struct iscsi_session *s, uint64_t key, uint64_t deadline_ns, struct err *err)
{
	struct iscsi_pool *pool = s->pool;
	char who[ISCSI_PRCMD_WHO_BYTES] = "", why[sizeof(pool->owner.text)];
	struct iscsi_ended ended;

	/* At once: whoever has it may not wait for us to know his name. */
	pthread_mutex_lock(&pool->lock);
	pool->owner.doubt = pool->owner.state == ISCSI_OWNER_HELD;
	pthread_mutex_unlock(&pool->lock);
	if (key)
		iscsi_prcmd_who(s, key, deadline_ns, who);
	if (key)
		snprintf(why, sizeof(why),
			 "another host has taken the volume over (%s): nothing more is sent from "
			 "here, and what is unsent stays in the cache directory; unmount it with "
			 "umount --no-flush",
			 who);
	else
		snprintf(why, sizeof(why),
			 "another host has taken the volume over and has given it up since: "
			 "nothing more is sent from here, and what is unsent stays in the cache "
			 "directory; unmount it with umount --no-flush");
	iscsi_ended_init(&ended);
	pthread_mutex_lock(&pool->lock);
	iscsi_reserve_lose(pool, why, &ended);
	pthread_mutex_unlock(&pool->lock);
	iscsi_ended_complete(&ended);
	log_error("%s", why);
	return err_set(err, -ESTALE, "%s", why);
}

/* ---- becoming the owner ---- */

static bool is_old(const struct leaf_owner *conf, uint64_t key)
{
	return key && (key == conf->old_key[0] || key == conf->old_key[1]);
}

static bool is_ours(const struct leaf_owner *conf, uint64_t key)
{
	return key == conf->key || is_old(conf, key);
}

static bool any_ours(const struct leaf_owner *conf, const struct iscsi_prcmd_survey *v)
{
	for (unsigned i = 0; i < v->keys; i++)
		if (is_ours(conf, v->key[i]))
			return true;
	return false;
}

static enum leaf_absence absence(const struct leaf_owner *conf, const struct iscsi_prcmd_survey *v)
{
	uint32_t generation = v->now.generation;

	if (v->now.held && !is_ours(conf, v->now.key))
		return LEAF_ABSENCE_OTHERS;
	if (any_ours(conf, v))
		return LEAF_ABSENCE_ALONE;
	/* Only registrations move it from zero, and after a restart of the target none was ours. */
	if (!generation || (!conf->left && (!conf->mark || generation == conf->mark)))
		return LEAF_ABSENCE_UNKNOWN;
	return LEAF_ABSENCE_OTHERS;
}

static int without(struct iscsi_pool *pool, struct err *err)
{
	if (pool->conf.owner.reserve == LEAF_RESERVE_REQUIRE)
		return err_set(err, -ENOTSUP,
			       "the target has no persistent reservations (type 5), which "
			       "--reserve=require asks for; with --reserve=auto it can be mounted "
			       "without");
	pthread_mutex_lock(&pool->lock);
	pool->owner.state = ISCSI_OWNER_NONE;
	pthread_mutex_unlock(&pool->lock);
	log_info("the target has no persistent reservations: nothing there keeps another host from "
		 "writing");
	return 0;
}

static int refuse(struct iscsi_session *s, uint64_t key, uint64_t deadline_ns, struct err *err)
{
	bool reader = s->pool->conf.read_only;
	char who[ISCSI_PRCMD_WHO_BYTES];

	iscsi_prcmd_who(s, key, deadline_ns, who);
	return err_set(err, -EBUSY, "another host has the volume (%s): unmount it there%s", who,
		       reader ? ", or read beside its writer with --force"
			      : ", or take it away from that host with --takeover");
}

/* May we have it, by what was found? Tells it to whoever must remember. 0 or -errno with @err. */
static int may_have(struct iscsi_session *s, const struct iscsi_prcmd_survey *v,
		    uint64_t deadline_ns, struct err *err)
{
	const struct leaf_owner *conf = &s->pool->conf.owner;
	struct leaf_found found = { .absence = absence(conf, v) };
	bool reader = s->pool->conf.read_only;
	int r;

	if (v->now.held && !is_ours(conf, v->now.key) && !(reader ? conf->force : conf->takeover))
		return refuse(s, v->now.key, deadline_ns, err);
	if (found.absence == LEAF_ABSENCE_ALONE && conf->copy_of[0])
		return err_set(err, -EUCLEAN,
			       "this cache directory is a copy (of %s) with unsent data, and the "
			       "original owns the volume: mount that one; if it is gone for good, "
			       "--force-push sends what is unsent here",
			       conf->copy_of);
	for (unsigned i = 0; i < v->keys; i++)
		if (is_old(conf, v->key[i]) && !found.key)
			found.key = v->key[i];
	r = conf->found ? conf->found(conf->ctx, &found) : 0;
	if (r == -ESTALE)
		return err_set(err, r,
			       "another host has owned the volume since this cache directory was "
			       "used last, and what is unsent here would overwrite what it wrote: "
			       "--force-push sends it all the same; to start from what the volume "
			       "is now use another --cache-dir");
	if (r < 0)
		return err_set(err, r, "cannot record who owns the volume: %s", strerror(-r));
	return 0;
}

/*
 * Take @victim's registrations, and the reservation if it has it. The commands of an earlier run
 * are the fence's; those of somebody else must be aborted with it, or a LUN RESET must be able to
 * do it: else nothing is done, and that is -EOPNOTSUPP.
 */
static int preempt(struct iscsi_session *s, uint64_t victim, uint64_t deadline_ns)
{
	struct iscsi_pool *pool = s->pool;
	int r = iscsi_prcmd_tell(s, ISCSI_PR_PREEMPT_AND_ABORT, victim, deadline_ns);

	if (r == -EOPNOTSUPP && !is_old(&pool->conf.owner, victim)) {
		r = iscsi_conn_lun_reset(&s->conn, deadline_ns);
		if (r < 0)
			return r;
		pthread_mutex_lock(&pool->lock);
		pool->owner.reset_due = true;
		pthread_mutex_unlock(&pool->lock);
		r = -EOPNOTSUPP;
	}
	if (r == -EOPNOTSUPP)
		r = iscsi_prcmd_tell(s, ISCSI_PR_PREEMPT, victim, deadline_ns);
	/* A conflict: the victim left by itself, or somebody took us; the holder's key will tell.
	 */
	return r == -EBUSY ? 0 : r;
}

/* Everybody who has to go, and then what they had under way. */
static int clear_out(struct iscsi_session *s, const struct iscsi_prcmd_survey *v,
		     uint64_t deadline_ns)
{
	struct iscsi_pool *pool = s->pool;
	const struct leaf_owner *conf = &pool->conf.owner;
	int r = 0;

	for (unsigned i = 0; r == 0 && i < v->keys; i++)
		if (v->key[i] != conf->key && (conf->takeover || is_old(conf, v->key[i])))
			r = preempt(s, v->key[i], deadline_ns);
	if (r < 0 || !pool->owner.reset_due)
		return r;
	r = iscsi_conn_lun_reset(&s->conn, deadline_ns);
	if (r == 0)
		r = iscsi_probe_attention(&s->conn, deadline_ns);
	if (r < 0)
		return r;
	guard(&pool->lock);
	pool->owner.reset_due = false;
	return 0;
}

/* Registered and cleared out: reserve it, and see whether it is so. */
static int reserve(struct iscsi_session *s, uint64_t deadline_ns, struct iscsi_pr_reservation *ret)
{
	int r = iscsi_prcmd_reservation(s, deadline_ns, ret);

	if (r < 0 || ret->held)
		return r;
	r = iscsi_prcmd_tell(s, ISCSI_PR_RESERVE, 0, deadline_ns);
	return r < 0 && r != -EBUSY ? r : iscsi_prcmd_reservation(s, deadline_ns, ret);
}

static void holds(struct iscsi_pool *pool, const struct iscsi_pr_reservation *now)
{
	guard(&pool->lock);
	pool->owner.generation = now->generation;
	pool->owner.attempts = 0;
	pool->owner.doubt = false;
	if (pool->owner.state == ISCSI_OWNER_WANTED)
		pool->owner.state = ISCSI_OWNER_HELD;
}

/* Whoever is registered beside us may write as we do. */
static void warn_of_others(const struct iscsi_pool *pool, const struct iscsi_prcmd_survey *v)
{
	const struct leaf_owner *conf = &pool->conf.owner;

	for (unsigned i = 0; !conf->takeover && i < v->keys; i++)
		if (!is_ours(conf, v->key[i]))
			log_warning("an initiator is registered at the target with the key "
				    "0x%016" PRIx64 " and may write to the volume, too",
				    v->key[i]);
}

static int take(struct iscsi_session *s, const struct iscsi_prcmd_survey *v, uint64_t deadline_ns,
		struct err *err)
{
	struct iscsi_pool *pool = s->pool;
	struct iscsi_pr_reservation now = { .held = false };
	int r = iscsi_prcmd_enroll(s, deadline_ns);

	if (r == -EOPNOTSUPP)
		return without(pool, err);
	if (r == 0)
		r = clear_out(s, v, deadline_ns);
	if (r == -EOPNOTSUPP) {
		iscsi_prcmd_leave(s, deadline_ns);
		return err_set(
			err, r,
			"the target knows neither PREEMPT AND ABORT nor LUN RESET, so writes "
			"of the former owner could not be stopped: end it where it runs");
	}
	if (r == 0)
		r = reserve(s, deadline_ns, &now);
	if (r == -EOPNOTSUPP) {
		iscsi_prcmd_leave(s, deadline_ns);
		return without(pool, err);
	}
	if (r == 0 && now.held && now.key != pool->conf.owner.key) {
		iscsi_prcmd_leave(s, deadline_ns);
		return refuse(s, now.key, deadline_ns, err);
	}
	if (r == 0 && !now.held)
		r = -EIO;
	if (r < 0)
		return r;
	holds(pool, &now);
	warn_of_others(pool, v);
	return 0;
}

/* The first login of a run: state WANTED. */
static int arrive(struct iscsi_session *s, uint64_t deadline_ns, struct err *err)
{
	struct iscsi_pool *pool = s->pool;
	struct iscsi_prcmd_survey v;
	int r = iscsi_prcmd_survey(s, deadline_ns, &v);

	if (r == 0 && !pool->conf.read_only)
		r = iscsi_prcmd_abilities(s, deadline_ns);
	if (r == -EOPNOTSUPP)
		return without(pool, err);
	if (r == 0)
		r = may_have(s, &v, deadline_ns, err);
	if (r < 0 || !pool->conf.read_only)
		return r < 0 ? r : take(s, &v, deadline_ns, err);
	guard(&pool->lock);
	pool->owner.state = ISCSI_OWNER_READER;
	return 0;
}

/* ---- staying the owner ---- */

/* There is no reservation. Did the target forget it (true), or did somebody take it and leave? */
static bool forgotten(struct iscsi_pool *pool, const struct iscsi_pr_reservation *now)
{
	struct iscsi_owner *o = &pool->owner;

	guard(&pool->lock);
	if (o->generation && now->generation < o->generation) {
		/* What we try from now on is counted from zero. */
		if (!now->generation)
			o->attempts = 0;
		o->generation = 0;
	}
	return !o->generation && now->generation <= o->attempts;
}

/* A new session of the owner, or one whose owner is in doubt: state HELD. */
static int return_to(struct iscsi_session *s, uint64_t deadline_ns, struct err *err)
{
	struct iscsi_pool *pool = s->pool;
	uint64_t key = pool->conf.owner.key;
	struct iscsi_pr_reservation now;
	bool again = false;
	int r = iscsi_prcmd_reservation(s, deadline_ns, &now);

	if (r == 0 && now.held && now.key != key)
		return lost(s, now.key, deadline_ns, err);
	if (r == 0 && !now.held) {
		if (!forgotten(pool, &now))
			return lost(s, 0, deadline_ns, err);
		again = true;
	}
	if (r == 0)
		r = iscsi_prcmd_enroll(s, deadline_ns);
	if (r == 0)
		r = reserve(s, deadline_ns, &now);
	if (r < 0)
		return r;
	if (!now.held || now.key != key) {
		iscsi_prcmd_leave(s, deadline_ns);
		return lost(s, now.held ? now.key : 0, deadline_ns, err);
	}
	holds(pool, &now);
	if (again)
		log_warning("the target had forgotten the reservation of the volume: taken again");
	return 0;
}

/* ---- what the sessions call ---- */

static bool begin_taking(struct iscsi_pool *pool)
{
	guard(&pool->lock);
	if (pool->owner.taking || pool->start_result < 0)
		return false;
	pool->owner.taking = true;
	return true;
}

/* One session at a time; refused after the start it is lost. */
static int arrive_alone(struct iscsi_session *s, uint64_t deadline_ns, struct err *err)
{
	struct iscsi_pool *pool = s->pool;
	struct iscsi_ended ended;
	int r;

	if (!begin_taking(pool))
		return err_set(err, -EAGAIN, "another session asks whose the volume is");
	r = arrive(s, deadline_ns, err);
	iscsi_ended_init(&ended);
	pthread_mutex_lock(&pool->lock);
	pool->owner.taking = false;
	if ((r == -EBUSY || r == -ESTALE || r == -EUCLEAN || r == -ENOTSUP) && *err->text &&
	    pool->start_result == 0)
		iscsi_reserve_lose(pool, err->text, &ended);
	pthread_mutex_unlock(&pool->lock);
	iscsi_ended_complete(&ended);
	return r;
}

static enum iscsi_owning state_of(struct iscsi_pool *pool)
{
	guard(&pool->lock);
	return pool->owner.state;
}

int iscsi_reserve_login(struct iscsi_session *s, struct iscsi_lun *lun, uint64_t deadline_ns,
			struct err *err)
{
	struct iscsi_pool *pool = s->pool;
	const char *volume = pool->conf.owner.volume;
	enum iscsi_owning state = state_of(pool);
	int r = 0;

	/* Whoever expects another one will refuse it; until then it is not touched. */
	if (*volume && strcmp(lun->identity, volume) != 0)
		return 0;
	if (state == ISCSI_OWNER_WANTED)
		r = arrive_alone(s, deadline_ns, err);
	else if (state == ISCSI_OWNER_HELD)
		r = return_to(s, deadline_ns, err);
	else if (state == ISCSI_OWNER_LOST)
		r = err_set(err, -ESTALE, "%s", pool->owner.text);
	/* Given up in the meantime: do not stay behind. */
	if (r == 0 && state == ISCSI_OWNER_HELD && state_of(pool) == ISCSI_OWNER_RELEASED)
		r = iscsi_prcmd_leave(s, deadline_ns);
	if (r == 0 && !lun->cache_said && state_of(pool) == ISCSI_OWNER_HELD)
		r = iscsi_probe_mode(&s->conn, deadline_ns, lun);
	if (r < 0 && !*err->text)
		return err_set(err, r, "cannot ask the target who owns the volume: %s",
			       r == -ECONNRESET ? s->conn.reason : strerror(-r));
	return r;
}

bool iscsi_reserve_doubt(struct iscsi_session *s, bool conflict)
{
	struct iscsi_owner *o = &s->pool->owner;

	if (o->state == ISCSI_OWNER_LOST)
		return conflict;
	if (o->state != ISCSI_OWNER_HELD)
		return false;
	o->doubt = true;
	s->chores |= ISCSI_CHORE_OWNER;
	return true;
}

int iscsi_reserve_check(struct iscsi_session *s, uint64_t deadline_ns, struct err *err)
{
	return state_of(s->pool) == ISCSI_OWNER_HELD ? return_to(s, deadline_ns, err) : 0;
}

static bool is_first_up(const struct iscsi_session *s)
{
	const struct iscsi_pool *pool = s->pool;

	for (unsigned i = 0; i < pool->count; i++)
		if (pool->sessions[i].state == ISCSI_UP)
			return &pool->sessions[i] == s;
	return false;
}

/* With the lock: the answer to the watch's question. True: a reader has a writer beside it, now. */
static bool watched(struct iscsi_session *s, const struct iscsi_pr_reservation *now)
{
	struct iscsi_owner *o = &s->pool->owner;
	bool other = now->held && !is_ours(&s->pool->conf.owner, now->key);

	if (o->state == ISCSI_OWNER_HELD && (!now->held || other))
		iscsi_reserve_doubt(s, false);
	if (o->state != ISCSI_OWNER_READER || other == o->writer_said)
		return false;
	o->writer_said = other;
	return other && !s->pool->conf.owner.force;
}

static void on_watch(struct iscsi_context *ctx, int status, void *data, void *ctx_data)
{
	struct iscsi_session *s = ctx_data;
	struct iscsi_pool *pool = s->pool;
	struct iscsi_sense sense = { 0 };
	struct iscsi_pr_reservation now;
	struct iscsi_verdict v;
	bool say = false;

	(void)data;
	if (iscsi_conn_lost(status)) {
		/* Its task is freed when the context is gone. */
		if (!s->conn.broken)
			snprintf(s->conn.reason, sizeof(s->conn.reason), "%s",
				 *iscsi_get_error(ctx) ? iscsi_get_error(ctx) : "connection lost");
		s->conn.broken = true;
		return;
	}
	if (status == SCSI_STATUS_CHECK_CONDITION)
		sense = iscsi_conn_sense(s->watch);
	v = iscsi_scsi_judge((unsigned)status, &sense);
	pthread_mutex_lock(&pool->lock);
	s->watching = false;
	if (v.action == ISCSI_POWER_ON)
		atomic_fetch_add(&pool->generation, 1);
	else if (v.action == ISCSI_READ_CAPACITY || v.action == ISCSI_IDENTIFY)
		s->chores |= ISCSI_CHORE_PROBE;
	else if (v.action == ISCSI_RESERVATION)
		iscsi_reserve_doubt(s, false);
	else if (v.action == ISCSI_DONE &&
		 iscsi_pr_reservation(s->watch->datain.data,
				      s->watch->datain.data ? (size_t)s->watch->datain.size : 0,
				      &now) == 0)
		say = watched(s, &now);
	pthread_mutex_unlock(&pool->lock);
	if (say)
		log_warning("another host has the volume for writing (key 0x%016" PRIx64
			    "): what is read here may be old, or no consistent state",
			    now.key);
	iscsi_reserve_forget(s);
}

void iscsi_reserve_watch(struct iscsi_session *s, uint64_t now_ns)
{
	struct iscsi_pool *pool = s->pool;
	unsigned char cdb[ISCSI_PR_CDB_BYTES];
	bool due;

	pthread_mutex_lock(&pool->lock);
	/* The session that was to clear it up may be lost. */
	if (pool->owner.doubt && is_first_up(s))
		s->chores |= ISCSI_CHORE_OWNER;
	due = (pool->owner.state == ISCSI_OWNER_HELD || pool->owner.state == ISCSI_OWNER_READER) &&
	      !pool->fencing && !s->chores && !s->watch && now_ns - s->watch_ns >= WATCH_NS &&
	      is_first_up(s);
	s->watching |= due;
	pthread_mutex_unlock(&pool->lock);
	if (!due)
		return;
	s->watch_ns = now_ns;
	iscsi_pr_in_cdb(ISCSI_PR_READ_RESERVATION, ISCSI_PR_RESERVATION_BYTES, cdb);
	s->watch = scsi_create_task(sizeof(cdb), cdb, SCSI_XFER_READ, ISCSI_PR_RESERVATION_BYTES);
	if (!s->watch || iscsi_scsi_command_async(s->conn.ctx, s->conn.lun_field, s->watch,
						  on_watch, NULL, s) != 0) {
		s->conn.broken = true;
		snprintf(s->conn.reason, sizeof(s->conn.reason), "out of memory");
	}
}

void iscsi_reserve_forget(struct iscsi_session *s)
{
	if (s->watch)
		scsi_free_scsi_task(s->watch);
	s->watch = NULL;
}

/* ---- giving it up ---- */

int iscsi_reserve_release(struct iscsi_session *s, uint64_t deadline_ns)
{
	struct iscsi_pool *pool = s->pool;
	struct iscsi_pr_reservation now = { .generation = 0 };
	/*
	 * Our own key: the other sessions go, also those long gone that a target keeps for ever,
	 * and the reservation comes to this one, which alone can release it.
	 */
	int r = iscsi_prcmd_tell(s, ISCSI_PR_PREEMPT, pool->conf.owner.key, deadline_ns);

	if (r == 0)
		r = iscsi_prcmd_tell(s, ISCSI_PR_RELEASE, 0, deadline_ns);
	if (r == 0)
		r = iscsi_prcmd_leave(s, deadline_ns);
	if (r == 0)
		r = iscsi_prcmd_reservation(s, deadline_ns, &now);
	guard(&pool->lock);
	pool->owner.release_result = r;
	pool->owner.mark = now.generation;
	pthread_cond_broadcast(&pool->changed);
	return r == -EBUSY || r == -EIO || r == -EOPNOTSUPP || r == -EBADMSG ? 0 : r;
}

int iscsi_reserve_give_up(struct iscsi_pool *pool, uint64_t *ret_mark)
{
	uint64_t until = clock_monotonic_ns() + GIVE_UP_NS;
	struct timespec ts = { .tv_sec = (time_t)(until / NSEC_PER_SEC),
			       .tv_nsec = (long)(until % NSEC_PER_SEC) };
	struct iscsi_owner *o = &pool->owner;
	struct iscsi_session *s = NULL;

	guard(&pool->lock);
	if (o->state != ISCSI_OWNER_HELD)
		return o->state == ISCSI_OWNER_LOST ? -ESTALE : 0;
	for (unsigned i = 0; !s && i < pool->count; i++)
		if (pool->sessions[i].state == ISCSI_UP)
			s = &pool->sessions[i];
	if (!s)
		return -ENOTCONN;
	o->state = ISCSI_OWNER_RELEASED;
	o->doubt = false;
	o->release_result = 1;
	s->chores |= ISCSI_CHORE_RELEASE;
	iscsi_session_wake(s);
	while (o->release_result == 1 && !atomic_load(&pool->stop) && clock_monotonic_ns() < until)
		pthread_cond_clockwait(&pool->changed, &pool->lock, CLOCK_MONOTONIC, &ts);
	*ret_mark = o->mark;
	return o->release_result == 1 ? -ETIMEDOUT : o->release_result;
}

enum blk_reserved iscsi_reserve_state(struct iscsi_pool *pool)
{
	switch (state_of(pool)) {
	case ISCSI_OWNER_HELD:
		return BLK_RESERVED_YES;
	case ISCSI_OWNER_NONE:
		return BLK_RESERVED_UNKNOWN;
	default:
		return BLK_RESERVED_NO;
	}
}
