// SPDX-License-Identifier: Apache-2.0
/*
 * Ghosts: WRITEs of a lost session that the target still has in a socket buffer or in a queue, and
 * may carry out after newer data was written. Sending the same bytes again beside them is harmless;
 * the first WRITE of later data is not. So whatever closes an epoch, a FLUSH or a FUA request,
 * waits while ghosts are possible, until the fence has run:
 *
 *   1. Each slot that lost unanswered writes is logged in again in the portal group where it lost
 *      them: session reinstatement makes the target close the old connection (RFC 7143 6.3.5), so
 *      nothing of it is read from a socket any more.
 *   2. Nothing of ours is in flight (no command is given out while `fencing`).
 *   3. LUN RESET on one session, and its answer: what was queued is aborted or done (SAM-5 7.7).
 *   4. Each session takes the UNIT ATTENTION 29h that this raised, so that a later one is news.
 *   5. The generation moves, the ghosts are gone, commands flow.
 *
 * A portal group that cannot be reached counts as reinstated after two minutes: no TCP segment
 * lives longer in a network (RFC 793's MSL), and what arrived before meets the LUN RESET. Where the
 * target refuses that one, nothing aborts its queue: the ghosts are given the same two minutes.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "core/cleanup.h"
#include "core/clock.h"
#include "core/log.h"
#include "transport/iscsi_impl.h"

#define SEGMENT_LIFE_NS (120 * NSEC_PER_SEC)
#define VISIT_NS (5 * NSEC_PER_SEC)
#define AGAIN_NS NSEC_PER_SEC
/* One that is never answered ends the session; after so many it counts as refused. */
#define RESET_TRIES 2

static bool same_group(const struct iscsi_pool *pool, unsigned a, unsigned b)
{
	return a == b || (pool->portal_group[a] != ISCSI_GROUP_UNKNOWN &&
			  pool->portal_group[a] == pool->portal_group[b]);
}

static void clear_group(struct iscsi_pool *pool, struct iscsi_session *s, unsigned portal)
{
	for (unsigned p = 0; p < pool->conf.url.portals; p++)
		if (same_group(pool, p, portal))
			s->lost_portals &= ~(1u << p);
}

void iscsi_fence_login(struct iscsi_pool *pool, struct iscsi_session *s, uint32_t group)
{
	s->portal_group = group;
	pool->portal_group[s->portal] = group;
	clear_group(pool, s, s->portal);
}

void iscsi_fence_lost(struct iscsi_pool *pool, struct iscsi_session *s, bool writes)
{
	if (!writes)
		return;
	s->lost_portals |= 1u << s->portal;
	s->lost_ns = clock_monotonic_ns();
	pool->ghosts = true;
}

void iscsi_fence_expect(struct iscsi_pool *pool)
{
	guard(&pool->lock);
	pool->ghosts = true;
	for (unsigned i = 0; i < pool->count && i < pool->conf.isid_high_water; i++) {
		pool->sessions[i].lost_portals = (1u << pool->conf.url.portals) - 1;
		pool->sessions[i].lost_ns = clock_monotonic_ns();
	}
}

/*
 * A short login of @slot at @portal: the target drops what that slot had there, and tells the
 * portal group. 0, also where nobody listens (so nobody holds anything); else -errno.
 */
static int visit(struct iscsi_pool *pool, unsigned portal, unsigned slot, uint64_t deadline_ns,
		 struct err *err)
{
	struct iscsi_login login;
	struct iscsi_conn conn;
	int r;

	iscsi_conn_init(&conn, -1, &pool->stop);
	iscsi_login_fill(pool, portal, slot, deadline_ns, &login);
	r = iscsi_conn_open(&conn, &login, err);
	if (r == -ECONNREFUSED)
		return 0;
	if (r < 0)
		return r;
	pthread_mutex_lock(&pool->lock);
	pool->portal_group[portal] = conn.negotiated.portal_group;
	pthread_mutex_unlock(&pool->lock);
	iscsi_conn_logout(&conn, clock_monotonic_ns() + NSEC_PER_SEC);
	return 0;
}

int iscsi_fence_old_slots(struct iscsi_pool *pool, uint64_t deadline_ns, struct err *err)
{
	for (unsigned p = 0; p < pool->conf.url.portals; p++) {
		for (unsigned slot = pool->count; slot < pool->conf.isid_high_water; slot++) {
			int r = visit(pool, p, slot,
				      MIN(deadline_ns, clock_monotonic_ns() + VISIT_NS), err);

			if (r == -ECANCELED)
				return r;
			if (r == 0)
				continue;
			log_warning("cannot close what an earlier run may have left at %s: %s",
				    pool->conf.url.portal[p].host, err->text);
			pthread_mutex_lock(&pool->lock);
			pool->old_slots_ns = clock_monotonic_ns();
			pthread_mutex_unlock(&pool->lock);
			break;
		}
	}
	return 0;
}

/* With the lock: a slot and a portal where it is not reinstated and no login of its session can. */
static bool find_visit(struct iscsi_pool *pool, unsigned *ret_portal, unsigned *ret_slot,
		       struct iscsi_session **ret_session)
{
	unsigned portals = pool->conf.url.portals, pairs = pool->count * portals;

	/* In turn: a portal that cannot be reached does not keep us from the others. */
	for (unsigned i = 0; i < pairs; i++) {
		unsigned at = (pool->next_visit + i) % pairs, p = at % portals;
		struct iscsi_session *s = &pool->sessions[at / portals];

		if (s->state != ISCSI_UP || !(s->lost_portals & 1u << p))
			continue;
		/* Its login in that group is newer than the loss; the group was not known then. */
		if (same_group(pool, p, s->portal)) {
			s->lost_portals &= ~(1u << p);
			continue;
		}
		pool->next_visit = at + 1;
		*ret_portal = p;
		*ret_session = s;
		/*
		 * Of a portal never seen the group is asked with a slot nobody uses: the session's
		 * own would end the session if it is the same group.
		 */
		*ret_slot = pool->portal_group[p] == ISCSI_GROUP_UNKNOWN ? pool->count : s->slot;
		return true;
	}
	return false;
}

/* Without the lock; true if something was reinstated. */
static bool visit_one(struct iscsi_pool *pool)
{
	uint64_t deadline = clock_monotonic_ns() + VISIT_NS;
	struct err err = { .text = "" };
	struct iscsi_session *s;
	unsigned portal, slot;
	bool found;
	int r;

	pthread_mutex_lock(&pool->lock);
	found = find_visit(pool, &portal, &slot, &s);
	pthread_mutex_unlock(&pool->lock);
	if (!found)
		return false;
	r = visit(pool, portal, slot, deadline, &err);
	if (r < 0) {
		log_warning("writes may be on their way at %s, which cannot be reached: %s",
			    pool->conf.url.portal[portal].host, err.text);
		return false;
	}
	guard(&pool->lock);
	if (slot == s->slot || pool->portal_group[portal] == ISCSI_GROUP_UNKNOWN)
		s->lost_portals &= ~(1u << portal);
	else if (s->state == ISCSI_UP)
		clear_group(pool, s, s->portal);
	return true;
}

/* With the lock: step 1 is done, or time did it. */
static bool reinstated(struct iscsi_pool *pool)
{
	uint64_t now = clock_monotonic_ns();

	if (pool->old_slots_ns && now - pool->old_slots_ns < SEGMENT_LIFE_NS)
		return false;
	for (unsigned i = 0; i < pool->count; i++) {
		const struct iscsi_session *s = &pool->sessions[i];

		if (s->lost_portals && now - s->lost_ns < SEGMENT_LIFE_NS)
			return false;
	}
	return true;
}

/* With the lock: the last ghost is as old as a segment can get. */
static bool faded(const struct iscsi_pool *pool)
{
	uint64_t now = clock_monotonic_ns();

	if (pool->old_slots_ns && now - pool->old_slots_ns < SEGMENT_LIFE_NS)
		return false;
	for (unsigned i = 0; i < pool->count; i++) {
		uint64_t lost_ns = pool->sessions[i].lost_ns;

		if (lost_ns && now - lost_ns < SEGMENT_LIFE_NS)
			return false;
	}
	return true;
}

static bool quiet(const struct iscsi_pool *pool)
{
	for (unsigned i = 0; i < pool->count; i++)
		if (pool->sessions[i].cmds || pool->sessions[i].chores ||
		    pool->sessions[i].watching)
			return false;
	return true;
}

/* Wait for a change, at most @ns. */
static void wait_change(struct iscsi_pool *pool, uint64_t ns)
{
	uint64_t until = clock_monotonic_ns() + ns;
	struct timespec ts = { .tv_sec = (time_t)(until / NSEC_PER_SEC),
			       .tv_nsec = (long)(until % NSEC_PER_SEC) };

	pthread_cond_clockwait(&pool->changed, &pool->lock, CLOCK_MONOTONIC, &ts);
}

static struct iscsi_session *first_up(struct iscsi_pool *pool)
{
	for (unsigned i = 0; i < pool->count; i++)
		if (pool->sessions[i].state == ISCSI_UP)
			return &pool->sessions[i];
	return NULL;
}

static void add_chore(struct iscsi_session *s, unsigned chore)
{
	s->chores |= chore;
	iscsi_session_wake(s);
}

/* Steps 2 to 4, with the lock. 0 or -errno. */
static int reset_unit(struct iscsi_pool *pool)
{
	struct iscsi_session *s;
	int r;

	while (!quiet(pool) && !atomic_load(&pool->stop))
		wait_change(pool, AGAIN_NS);
	s = first_up(pool);
	if (!s || !reinstated(pool))
		return -EAGAIN;
	if (pool->resets_unanswered >= RESET_TRIES)
		return -EOPNOTSUPP;
	s->reset_result = 1;
	add_chore(s, ISCSI_CHORE_RESET);
	while (s->reset_result == 1 && !atomic_load(&pool->stop))
		wait_change(pool, AGAIN_NS);
	r = s->reset_result;
	if (r == 1)
		return -ECANCELED;
	if (r < 0 && r != -EOPNOTSUPP)
		return r;
	for (unsigned i = 0; i < pool->count; i++)
		if (pool->sessions[i].state == ISCSI_UP)
			add_chore(&pool->sessions[i], ISCSI_CHORE_ATTENTION);
	while (!quiet(pool) && !atomic_load(&pool->stop))
		wait_change(pool, AGAIN_NS);
	return r;
}

/* With the lock. */
static void run(struct iscsi_pool *pool)
{
	struct iscsi_ended ended;
	bool told, over;
	int r;

	pool->fencing = true;
	r = reset_unit(pool);
	pool->fencing = false;
	told = pool->no_reset;
	if (r == 0 || r == -EOPNOTSUPP)
		pool->no_reset = r != 0;
	over = r == 0 || (r == -EOPNOTSUPP && faded(pool));
	if (over) {
		pool->ghosts = false;
		pool->fence_wanted = false;
		pool->old_slots_ns = 0;
		for (unsigned i = 0; i < pool->count; i++) {
			pool->sessions[i].lost_portals = 0;
			pool->sessions[i].lost_ns = 0;
		}
		atomic_fetch_add(&pool->generation, 1);
		pthread_cond_broadcast(&pool->changed);
	}
	iscsi_ended_init(&ended);
	iscsi_dispatch(pool, NULL, &ended);
	pthread_mutex_unlock(&pool->lock);
	iscsi_ended_complete(&ended);
	if (r == 0)
		log_info("the LUN was reset: no write of a lost session can land any more");
	else if (over)
		log_info("two minutes have passed: no write of a lost session can land any more");
	else if (r == -EOPNOTSUPP && !told)
		log_warning("the target refuses LUN RESET: after a session is lost, write-back "
			    "waits two "
			    "minutes so that none of its writes can land late");
	else if (r != -ECANCELED && r != -EOPNOTSUPP)
		log_warning("the fence after a lost session failed (%s) and is tried again",
			    strerror(-r));
	pthread_mutex_lock(&pool->lock);
	if (r < 0 && r != -EOPNOTSUPP && !atomic_load(&pool->stop))
		wait_change(pool, AGAIN_NS);
}

static void *fence_main(void *arg)
{
	struct iscsi_pool *pool = arg;

	pthread_setname_np(pthread_self(), "nb-fence");
	pthread_mutex_lock(&pool->lock);
	while (!atomic_load(&pool->stop)) {
		if (!pool->fence_wanted || !pool->ghosts || !first_up(pool)) {
			wait_change(pool, AGAIN_NS);
			continue;
		}
		if (reinstated(pool) && pool->no_reset && !faded(pool)) {
			wait_change(pool, AGAIN_NS);
			continue;
		}
		if (reinstated(pool)) {
			run(pool);
			continue;
		}
		pthread_mutex_unlock(&pool->lock);
		if (!visit_one(pool)) {
			pthread_mutex_lock(&pool->lock);
			if (!reinstated(pool) && !atomic_load(&pool->stop))
				wait_change(pool, AGAIN_NS);
			continue;
		}
		pthread_mutex_lock(&pool->lock);
	}
	pthread_mutex_unlock(&pool->lock);
	return NULL;
}

int iscsi_fence_start(struct iscsi_pool *pool)
{
	int r = pthread_create(&pool->fence_thread, NULL, fence_main, pool);

	pool->fence_thread_running = r == 0;
	return -r;
}

void iscsi_fence_join(struct iscsi_pool *pool)
{
	if (!pool->fence_thread_running)
		return;
	pthread_join(pool->fence_thread, NULL);
	pool->fence_thread_running = false;
}
