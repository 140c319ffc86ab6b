// SPDX-License-Identifier: Apache-2.0
/*
 * One session: its thread, its recovery, its commands on the wire.
 *
 *   WAITING ──(pause over, kicked)── CONNECTING ──(login, LUN checked)── UP ──(lost)── WAITING
 *
 * A lost session never comes back: its connection is reset, its context destroyed, and only then
 * go its unanswered commands back to the pool and its buffers to their owners. The next login uses
 * the same ISID, so the target drops what is left of the old session there (RFC 7143 6.3.5).
 */
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/socket.h>

#include "core/cleanup.h"
#include "core/clock.h"
#include "core/hash.h"
#include "core/log.h"
#include "core/range.h"
#include "transport/iscsi_impl.h"

/* One attempt to log in and learn the LUN. */
#define ATTEMPT_NS (15 * NSEC_PER_SEC)
#define BACKOFF_MIN_NS (100 * NSEC_PER_MSEC)
#define BACKOFF_MAX_NS (4 * NSEC_PER_SEC)
/* A path that lets logins through and no data (an MTU that does not fit) would take its share of
 * each epoch, and each time with it the epoch, if it came back as quickly. */
#define BARREN_MAX_NS (120 * NSEC_PER_SEC)
#define LOGOUT_NS (300 * NSEC_PER_MSEC)
#define CHORE_NS (60 * NSEC_PER_SEC)
/* A session that fell sooner says nothing for the next one. */
#define LIVED_NS (5 * NSEC_PER_SEC)
/* Another volume under this name is believed after this long: targets start in steps. */
#define WRONG_NS (5 * NSEC_PER_SEC)
/* An outage may last for days: the log repeats its reason this rarely. */
#define SAY_AGAIN_NS (600 * NSEC_PER_SEC)

uint64_t iscsi_session_random(struct iscsi_session *s)
{
	/* xorshift64* */
	s->random ^= s->random >> 12;
	s->random ^= s->random << 25;
	s->random ^= s->random >> 27;
	return s->random * 2685821657736338717ull;
}

void iscsi_session_wake(struct iscsi_session *s)
{
	uint64_t one = 1;

	/* Fails only when the counter is full, and then it is readable anyway. */
	if (write(s->wake_fd, &one, sizeof(one)) < 0)
		return;
}

void iscsi_login_fill(const struct iscsi_pool *pool, unsigned portal, unsigned slot,
		      uint64_t deadline_ns, struct iscsi_login *ret)
{
	*ret = (struct iscsi_login){
		.conf = &pool->conf,
		.portal = &pool->conf.url.portal[portal],
		.target = pool->conf.url.target,
		.lun = pool->conf.url.lun,
		.slot = slot,
		.deadline_ns = deadline_ns,
	};
}

/* With the lock: is it still the volume we know? Adopts growth. 0, or -ESTALE with @err. */
static int adopt(struct iscsi_pool *pool, const struct iscsi_lun *lun, struct err *err)
{
	const struct iscsi_lun *known = &pool->lun;
	struct iscsi_lun next = *lun;

	if (pool->lun_known) {
		if (strcmp(lun->identity, known->identity) != 0)
			return err_set(err, -ESTALE,
				       "another volume answers: expected '%s', found '%s'",
				       known->identity, lun->identity);
		if (lun->sector_bytes != known->sector_bytes)
			return err_set(err, -ESTALE, "sectors changed from %u to %u bytes",
				       known->sector_bytes, lun->sector_bytes);
		if (lun->size_bytes < known->size_bytes)
			return err_set(err, -ESTALE, "the volume shrank from %llu to %llu bytes",
				       (unsigned long long)known->size_bytes,
				       (unsigned long long)lun->size_bytes);
		/* What was refused once stays off. */
		next.discard = lun->discard && known->discard;
	}
	pool->lun = next;
	pool->lun_known = true;
	pool->wrong_since_ns = 0;
	return 0;
}

/*
 * With the lock: adopt() has refused what answered. A target that is being set up anew may show
 * another volume for a moment, so only one that stays fences us; and that for good, for what is
 * dirty here belongs to the volume that is gone.
 */
static void note_wrong(struct iscsi_pool *pool, const struct err *err, struct iscsi_ended *ended)
{
	uint64_t now = clock_monotonic_ns();

	if (iscsi_any_up(pool)) {
		pool->wrong_since_ns = 0; /* one portal that leads astray says nothing */
		return;
	}
	if (!pool->wrong_since_ns)
		pool->wrong_since_ns = now;
	if (atomic_load(&pool->fenced) || now - pool->wrong_since_ns < WRONG_NS)
		return;
	snprintf(
		pool->fenced_text, sizeof(pool->fenced_text),
		"%s: nothing is read from it or sent to it any more; what is not yet at the target "
		"is kept; unmount, restore the volume, and mount again",
		err->text);
	atomic_store(&pool->fenced, pool->fenced_text);
	iscsi_fail_queued(pool, -ESTALE, false, ended);
}

static int check_writable(const struct iscsi_pool *pool, const struct iscsi_lun *lun,
			  struct err *err)
{
	if (!lun->write_protected || pool->conf.read_only)
		return 0;
	return err_set(err, -EROFS,
		       "LUN %u is write-protected by the target; mount it with --read-only",
		       pool->conf.url.lun);
}

static int learn(struct iscsi_session *s, uint64_t deadline_ns, struct iscsi_lun *ret,
		 struct err *err)
{
	struct iscsi_pool *pool = s->pool;
	int r = iscsi_probe(&s->conn, pool->conf.url.target, pool->conf.url.lun, deadline_ns, ret,
			    err);

	return r < 0 ? r : check_writable(pool, ret, err);
}

/* Log in at the present portal and become UP. */
static int establish(struct iscsi_session *s, struct err *err)
{
	struct iscsi_pool *pool = s->pool;
	struct iscsi_ended ended;
	struct iscsi_login login;
	struct iscsi_lun lun;
	int r;

	pthread_mutex_lock(&pool->lock);
	s->state = ISCSI_CONNECTING;
	iscsi_login_fill(pool, s->portal, s->slot, clock_monotonic_ns() + ATTEMPT_NS, &login);
	pthread_mutex_unlock(&pool->lock);

	iscsi_conn_init(&s->conn, s->wake_fd, &pool->stop);
	r = iscsi_conn_open(&s->conn, &login, err);
	if (r == 0)
		r = learn(s, login.deadline_ns, &lun, err);
	iscsi_ended_init(&ended);
	pthread_mutex_lock(&pool->lock);
	if (r == 0)
		r = adopt(pool, &lun, err);
	if (r == 0) {
		/*
		 * The login's own commands have taken the UNIT ATTENTION that would have told of a
		 * restart of the target, while another session may not have noticed its loss yet.
		 */
		atomic_fetch_add(&pool->generation, 1);
		s->state = ISCSI_UP;
		s->ups++;
		s->chores = 0;
		s->rtt_ns = lun.rtt_ns;
		s->one_trip_bytes =
			iscsi_negotiated_one_trip(&s->conn.negotiated, lun.sector_bytes);
		/* Whatever the target answered: a command is whole sectors. */
		s->max_burst_bytes = MAX(round_down(s->conn.negotiated.max_burst, lun.sector_bytes),
					 lun.sector_bytes);
		window_init(&s->reads);
		window_init(&s->writes);
		iscsi_fence_login(pool, s, s->conn.negotiated.portal_group);
		pthread_cond_broadcast(&pool->changed);
	} else {
		s->state = ISCSI_WAITING;
		if (r == -ESTALE)
			note_wrong(pool, err, &ended);
	}
	pthread_mutex_unlock(&pool->lock);
	iscsi_ended_complete(&ended);
	if (r < 0)
		iscsi_conn_drop(&s->conn);
	return r;
}

/* How much an error tells a person who waits for the start; 0: waiting may cure it. */
static int weight(int error)
{
	switch (error) {
	case -ETIMEDOUT:
	case -EHOSTUNREACH:
	case -ECONNRESET:
	case -EAGAIN:
		return 0;
	case -ECONNREFUSED:
		return 1;
	case -EADDRNOTAVAIL:
		return 2;
	default:
		return 3;
	}
}

/* Try each portal once, from the present one on. 0 or the most telling error. */
static int establish_anywhere(struct iscsi_session *s, struct err *err)
{
	struct iscsi_pool *pool = s->pool;
	unsigned portals = pool->conf.url.portals;
	bool curable = false;
	int worst = 0;

	for (unsigned i = 0; i < portals; i++) {
		struct err this_error = { .text = "" };
		int r = establish(s, &this_error);

		if (r == 0 || r == -ECANCELED)
			return r;
		if (!worst || weight(r) > weight(worst)) {
			worst = r;
			*err = this_error;
		}
		curable |= weight(r) == 0;
		pthread_mutex_lock(&pool->lock);
		s->portal = (s->portal + 1) % portals;
		pthread_mutex_unlock(&pool->lock);
	}
	/* One portal refused, another one was silent: it may still answer. */
	return curable && weight(worst) < 3 ? -ETIMEDOUT : worst;
}

/* The start waits for the first session's word: true if that was it, so nobody else need hear. */
static bool report_start(struct iscsi_session *s, int result, const struct err *err)
{
	struct iscsi_pool *pool = s->pool;

	guard(&pool->lock);
	if (pool->start_result == 0)
		return false;
	if (pool->start_result == 1 && result < 0)
		pool->start_error = *err;
	if (pool->start_result == 1 && (result == 0 || weight(result) > 0))
		pool->start_result = result;
	pthread_cond_broadcast(&pool->changed);
	return true;
}

/* Pause as @b says, until somebody kicks, or the pool stops. */
static void pause_session(struct iscsi_session *s, struct backoff *b)
{
	struct iscsi_pool *pool = s->pool;
	uint64_t until = clock_monotonic_ns() + backoff_next_ns(b, iscsi_session_random(s));

	while (!atomic_load(&pool->stop)) {
		struct pollfd p = { .fd = s->wake_fd, .events = POLLIN };
		uint64_t now = clock_monotonic_ns(), count;
		bool kicked;

		pthread_mutex_lock(&pool->lock);
		kicked = s->kicked;
		s->kicked = false;
		pthread_mutex_unlock(&pool->lock);
		if (kicked || now >= until)
			return;
		if (poll(&p, 1, (int)((until - now) / NSEC_PER_MSEC + 1)) > 0 &&
		    read(s->wake_fd, &count, sizeof(count)) < 0)
			return;
	}
}

/*
 * The connection is gone: everything of it goes back. True if it was given work and did none, while
 * others are there to do it.
 */
static bool give_back(struct iscsi_session *s)
{
	struct iscsi_pool *pool = s->pool;
	struct iscsi_ended ended;
	struct list_node *n, all;
	bool writes = false, barren = false;

	/* From here on nobody but us has the tasks, and nobody looks at the buffers. */
	iscsi_conn_drop(&s->conn);
	list_init(&all);
	list_splice_tail(&all, &s->lingering);
	list_splice_tail(&all, &s->sent);
	list_for_each(n, &all) {
		struct iscsi_cmd *cmd = list_entry(n, struct iscsi_cmd, link);

		if (!cmd->task)
			continue;
		writes |= cmd->kind != ISCSI_READ && cmd->kind != ISCSI_SYNC;
		barren |= cmd->kind <= ISCSI_ZEROES && !s->answered_ns;
		scsi_free_scsi_task(cmd->task);
		cmd->task = NULL;
	}
	iscsi_ended_init(&ended);
	pthread_mutex_lock(&pool->lock);
	list_splice_tail(&all, &s->inbox);
	s->state = ISCSI_WAITING;
	atomic_fetch_add(&pool->generation, 1);
	iscsi_fence_lost(pool, s, writes);
	/* From the last to the first, each to the head: the order stays. */
	while (!list_empty(&all)) {
		struct iscsi_cmd *cmd = list_entry(all.prev, struct iscsi_cmd, link);

		list_del(&cmd->link);
		iscsi_uncharge(cmd);
		iscsi_cmd_lost(pool, cmd, &ended);
	}
	s->reset_result = s->chores & ISCSI_CHORE_RESET ? -ECONNRESET : s->reset_result;
	s->chores = 0;
	barren &= iscsi_any_up(pool);
	if (!iscsi_any_up(pool))
		iscsi_fail_queued(pool, -ECANCELED, true, &ended);
	iscsi_dispatch(pool, NULL, &ended);
	pthread_cond_broadcast(&pool->changed);
	pthread_mutex_unlock(&pool->lock);
	iscsi_ended_complete(&ended);
	iscsi_ended_complete(&s->ended);
	return barren;
}

int iscsi_session_chores(struct iscsi_session *s)
{
	struct iscsi_pool *pool = s->pool;
	uint64_t deadline = clock_monotonic_ns() + CHORE_NS;
	struct err err = { .text = "" };
	struct iscsi_ended ended;
	struct iscsi_lun lun;
	unsigned chores;
	int reset = 1, r = 0;

	pthread_mutex_lock(&pool->lock);
	chores = s->chores;
	pthread_mutex_unlock(&pool->lock);
	/*
	 * Attentions queue up: the commands below may swallow a power on or reset (29h) that stands
	 * behind the one that brought us here.
	 */
	atomic_fetch_add(&pool->generation, 1);
	if (chores & ISCSI_CHORE_RESET) {
		reset = iscsi_conn_lun_reset(&s->conn, deadline);
		r = reset == -EOPNOTSUPP ? 0 : reset;
	}
	if (r == 0 && (chores & ISCSI_CHORE_ATTENTION))
		r = iscsi_probe_attention(&s->conn, deadline);
	iscsi_ended_init(&ended);
	if (r == 0 && (chores & ISCSI_CHORE_PROBE))
		r = learn(s, deadline, &lun, &err);
	/* Before anybody sees that the chores are done: the fence, or a start, may wait for that.
	 */
	atomic_fetch_add(&pool->generation, 1);
	pthread_mutex_lock(&pool->lock);
	if (chores & ISCSI_CHORE_RESET)
		pool->resets_unanswered = reset == -ETIMEDOUT ? pool->resets_unanswered + 1 : 0;
	if (r == 0 && (chores & ISCSI_CHORE_PROBE)) {
		r = adopt(pool, &lun, &err);
		if (r < 0)
			note_wrong(pool, &err, &ended);
	}
	if (r == 0) {
		if (chores & ISCSI_CHORE_RESET)
			s->reset_result = reset;
		s->chores &= ~chores;
		pthread_cond_broadcast(&pool->changed);
	}
	pthread_mutex_unlock(&pool->lock);
	iscsi_ended_complete(&ended);
	if (r < 0 && *err.text)
		snprintf(s->conn.reason, sizeof(s->conn.reason), "%.300s", err.text);
	else if (r < 0 && !*s->conn.reason)
		snprintf(s->conn.reason, sizeof(s->conn.reason), "%s", strerror(-r));
	return r;
}

static void say_failure(struct iscsi_session *s, const char *why)
{
	uint64_t now = clock_monotonic_ns(), hash = hash_text(why);

	if (s->said_hash == hash && now - s->said_ns < SAY_AGAIN_NS)
		return;
	s->said_hash = hash;
	s->said_ns = now;
	log_warning("session %u cannot be opened: %s", s->slot, why);
}

static void *session_main(void *arg)
{
	struct iscsi_session *s = arg;
	struct iscsi_pool *pool = s->pool;
	char name[16];

	snprintf(name, sizeof(name), "nb-iscsi-%u", s->slot);
	pthread_setname_np(pthread_self(), name);
	while (!atomic_load(&pool->stop)) {
		struct backoff *pause = &s->backoff;
		struct err err = { .text = "" };
		int r = establish_anywhere(s, &err);
		uint64_t up_ns;
		bool heard = r != -ECANCELED && report_start(s, r, &err);

		if (r == 0) {
			log_info("session %u is up at %s", s->slot, s->conn.address);
			s->said_hash = 0;
			up_ns = clock_monotonic_ns();
			iscsi_session_serve(s);
			if (atomic_load(&pool->stop) && list_empty(&s->sent) &&
			    list_empty(&s->lingering))
				iscsi_conn_logout(&s->conn, clock_monotonic_ns() + LOGOUT_NS);
			else if (s->conn.broken)
				log_warning("session %u at %s was lost: %s", s->slot,
					    s->conn.address, s->conn.reason);
			if (give_back(s))
				pause = &s->barren;
			else if (s->answered_ns)
				backoff_reset(&s->barren);
			/* The first new attempt comes soon, but not from all at one instant. */
			if (clock_monotonic_ns() - up_ns >= LIVED_NS)
				backoff_reset(&s->backoff);
		} else if (r != -ECANCELED && !heard) {
			say_failure(s, err.text);
		}
		pause_session(s, pause);
	}
	return NULL;
}

int iscsi_session_init(struct iscsi_session *s, struct iscsi_pool *pool, unsigned slot)
{
	s->pool = pool;
	s->slot = slot;
	s->portal = slot % pool->conf.url.portals;
	s->portal_group = ISCSI_GROUP_UNKNOWN;
	s->backoff = (struct backoff){ .min_ns = BACKOFF_MIN_NS, .max_ns = BACKOFF_MAX_NS };
	s->barren = (struct backoff){ .min_ns = BACKOFF_MAX_NS, .max_ns = BARREN_MAX_NS };
	list_init(&s->inbox);
	list_init(&s->sent);
	list_init(&s->lingering);
	iscsi_ended_init(&s->ended);
	iscsi_conn_init(&s->conn, -1, NULL);
	if (getrandom(&s->random, sizeof(s->random), GRND_NONBLOCK) < 0)
		s->random = clock_realtime_ns();
	s->random |= 1;
	s->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return s->wake_fd < 0 ? -errno : 0;
}

void iscsi_session_destroy(struct iscsi_session *s)
{
	if (s->wake_fd >= 0)
		close(s->wake_fd);
	s->wake_fd = -1;
}

int iscsi_session_start(struct iscsi_session *s)
{
	int r = pthread_create(&s->thread, NULL, session_main, s);

	s->thread_running = r == 0;
	return -r;
}

void iscsi_session_join(struct iscsi_session *s)
{
	if (!s->thread_running)
		return;
	pthread_join(s->thread, NULL);
	s->thread_running = false;
}
