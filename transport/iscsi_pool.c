// SPDX-License-Identifier: Apache-2.0
/* The device: life cycle, what callers ask, and how the parts are put together. */
#include "transport/iscsi_pool.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/cleanup.h"
#include "core/clock.h"
#include "core/log.h"
#include "core/parse.h"
#include "transport/iscsi_impl.h"

/* Of the 2 s a stop may take: for answers under way; the rest is for logging out. */
#define STOP_NS (1500 * NSEC_PER_MSEC)
/* The longest READ worth sending in one request; it is cut by rate. */
#define MAX_READ_BYTES (1u << 20)
#define MIN_MAX_WRITE_BYTES (256u << 10)
#define MAX_WRITE_BYTES (1u << 20)
/* One request of this size is still answered while a person waits, zeroed the slow way too. */
#define MAX_DISCARD_BYTES (1ull << 30)
/* An attempt to connect this old is given up for a new one when somebody kicks. */
#define KICK_NS (500 * NSEC_PER_MSEC)
/* How long the start of a volume that is known waits for somebody to answer. */
#define OFFLINE_NS (5 * NSEC_PER_SEC)

static struct iscsi_pool *pool_of(struct blk_dev *dev)
{
	return container_of(dev, struct iscsi_pool, dev);
}

/* Wait for a change until @deadline_ns; false when that is over. With the lock. */
static bool wait_until(struct iscsi_pool *pool, uint64_t deadline_ns)
{
	struct timespec ts = { .tv_sec = (time_t)(deadline_ns / NSEC_PER_SEC),
			       .tv_nsec = (long)(deadline_ns % NSEC_PER_SEC) };

	pthread_cond_clockwait(&pool->changed, &pool->lock, CLOCK_MONOTONIC, &ts);
	return clock_monotonic_ns() < deadline_ns;
}

/* Slots we may log in with: the sessions, and one to ask unknown portals for their group. */
static unsigned slots_used(const struct iscsi_pool *pool)
{
	return pool->count + (pool->conf.url.portals > 1);
}

static int note_slots(struct iscsi_pool *pool, struct err *err)
{
	unsigned slots = slots_used(pool);
	int r;

	if (slots <= pool->conf.isid_high_water || !pool->conf.high_water)
		return 0;
	r = pool->conf.high_water(pool->conf.high_water_ctx, slots);
	if (r < 0)
		return err_set(err, r, "cannot record that %u iSCSI session slots are in use: %s",
			       slots, strerror(-r));
	return 0;
}

/* The first session tells whether there is anything to connect to. */
static int await_first(struct iscsi_pool *pool, uint64_t deadline_ns, struct err *err)
{
	bool known = pool->conf.known.size_bytes;
	char text[24];
	int r;

	if (known)
		deadline_ns = MIN(deadline_ns, clock_monotonic_ns() + OFFLINE_NS);
	pthread_mutex_lock(&pool->lock);
	while (pool->start_result == 1 && wait_until(pool, deadline_ns))
		;
	r = pool->start_result;
	if (err)
		*err = pool->start_error;
	pthread_mutex_unlock(&pool->lock);
	if (r != 1)
		return r;
	if (known)
		return err && *err->text ? -ETIMEDOUT
					 : err_set(err, -ETIMEDOUT, "%s does not answer",
						   pool->conf.url.portal[0].host);
	if (err && *err->text)
		return err_prefix(err, -ETIMEDOUT, "gave up after %s (--connect-timeout)",
				  format_duration(pool->conf.connect_timeout_ns, text));
	return err_set(err, -ETIMEDOUT, "%s did not answer within %s (--connect-timeout)",
		       pool->conf.url.portal[0].host,
		       format_duration(pool->conf.connect_timeout_ns, text));
}

/* What an earlier run left must not land later; but what cannot be reached only delays FLUSH. */
static int fence_at_start(struct iscsi_pool *pool, uint64_t deadline_ns, struct err *err)
{
	bool done;
	int r = iscsi_fence_old_slots(pool, deadline_ns, err);

	if (r < 0)
		return r;
	pthread_mutex_lock(&pool->lock);
	pool->fence_wanted = true;
	pthread_cond_broadcast(&pool->changed);
	while (pool->ghosts && wait_until(pool, deadline_ns))
		;
	done = !pool->ghosts;
	pthread_mutex_unlock(&pool->lock);
	if (!done)
		log_warning("writes of an earlier run may still be on their way: write-back waits");
	return 0;
}

static int pool_start(struct blk_dev *dev, struct err *err)
{
	struct iscsi_pool *pool = pool_of(dev);
	uint64_t deadline = clock_monotonic_ns() + pool->conf.connect_timeout_ns;
	struct err local = { .text = "" };
	bool offline = false;
	int r = note_slots(pool, err);

	if (r < 0)
		return r;
	err = err ? err : &local;
	pool->down_since_ns = clock_monotonic_ns();
	if (pool->conf.fence_at_start)
		iscsi_fence_expect(pool);
	r = iscsi_session_start(&pool->sessions[0]);
	if (r < 0)
		return err_set(err, r, "cannot start a thread: %s", strerror(-r));
	r = await_first(pool, deadline, err);
	if (r < 0 && pool->conf.known.size_bytes && iscsi_is_outage(r)) {
		offline = iscsi_start_offline(pool, err);
		r = 0;
	}
	for (unsigned i = 1; r == 0 && i < pool->count; i++)
		r = iscsi_session_start(&pool->sessions[i]);
	if (r == 0)
		r = iscsi_fence_start(pool);
	if (r == 0)
		r = iscsi_outage_start(pool);
	/* Offline, the first FLUSH waits for the fence. */
	if (r == 0 && pool->conf.fence_at_start && !offline)
		r = fence_at_start(pool, deadline, err);
	if (r < 0 && !*err->text)
		return err_set(err, r, "cannot start a thread: %s", strerror(-r));
	return r;
}

static int check(struct iscsi_pool *pool, const struct blk_req *req)
{
	struct blk_info info;

	blk_info(&pool->dev, &info);
	return blk_check(&info, req);
}

static void pool_submit(struct blk_dev *dev, struct blk_req *req)
{
	struct iscsi_pool *pool = pool_of(dev);
	struct iscsi_ended ended;
	int r = check(pool, req);

	if (r < 0) {
		blk_complete(req, r);
		return;
	}
	iscsi_ended_init(&ended);
	pthread_mutex_lock(&pool->lock);
	r = iscsi_io_begin(pool, req);
	if (r == 0)
		iscsi_dispatch(pool, NULL, &ended);
	pthread_mutex_unlock(&pool->lock);
	if (r < 0)
		blk_complete(req, r);
	iscsi_ended_complete(&ended);
}

static void pool_cancel(struct blk_dev *dev, struct blk_req *req)
{
	struct iscsi_pool *pool = pool_of(dev);
	struct iscsi_ended ended;

	iscsi_ended_init(&ended);
	pthread_mutex_lock(&pool->lock);
	if (req->dev_data)
		iscsi_io_cancel(pool, req->dev_data, &ended);
	pthread_mutex_unlock(&pool->lock);
	iscsi_ended_complete(&ended);
}

static bool busy(const struct iscsi_pool *pool)
{
	for (unsigned i = 0; i < pool->count; i++)
		if (pool->sessions[i].cmds)
			return true;
	return false;
}

static void pool_stop(struct blk_dev *dev)
{
	struct iscsi_pool *pool = pool_of(dev);
	uint64_t deadline = clock_monotonic_ns() + STOP_NS;
	struct iscsi_ended ended;

	iscsi_ended_init(&ended);
	pthread_mutex_lock(&pool->lock);
	pool->stopping = true;
	iscsi_fail_queued(pool, -ESHUTDOWN, ISCSI_ALL, &ended);
	pthread_mutex_unlock(&pool->lock);
	iscsi_ended_complete(&ended);

	pthread_mutex_lock(&pool->lock);
	while (busy(pool) && wait_until(pool, deadline))
		;
	atomic_store(&pool->stop, true);
	for (unsigned i = 0; i < pool->count; i++)
		atomic_store(&pool->sessions[i].give_up, true);
	pthread_cond_broadcast(&pool->changed);
	pthread_mutex_unlock(&pool->lock);
	for (unsigned i = 0; i < pool->count; i++)
		iscsi_session_wake(&pool->sessions[i]);
	for (unsigned i = 0; i < pool->count; i++)
		iscsi_session_join(&pool->sessions[i]);
	iscsi_fence_join(pool);
	iscsi_outage_join(pool);

	/* What was to be sent again when the threads went. */
	iscsi_ended_init(&ended);
	pthread_mutex_lock(&pool->lock);
	iscsi_fail_queued(pool, -ESHUTDOWN, ISCSI_ALL, &ended);
	pthread_mutex_unlock(&pool->lock);
	iscsi_ended_complete(&ended);
}

static void pool_destroy(struct blk_dev *dev)
{
	struct iscsi_pool *pool = pool_of(dev);

	for (unsigned i = 0; i < pool->count; i++)
		iscsi_session_destroy(&pool->sessions[i]);
	free(pool->sessions);
	pthread_cond_destroy(&pool->changed);
	pthread_mutex_destroy(&pool->lock);
	/* Passwords do not stay in freed memory. */
	explicit_bzero(&pool->conf.credentials, sizeof(pool->conf.credentials));
	free(pool);
}

static void pool_info(struct blk_dev *dev, struct blk_info *ret)
{
	struct iscsi_pool *pool = pool_of(dev);
	const struct iscsi_lun *lun = &pool->lun;

	guard(&pool->lock);
	*ret = (struct blk_info){
		.size_bytes = lun->size_bytes,
		.sector_bytes = lun->sector_bytes ? lun->sector_bytes : 512,
		.max_read_bytes = MAX_READ_BYTES,
		.max_write_bytes = MIN_MAX_WRITE_BYTES,
		.max_discard_bytes = MAX_DISCARD_BYTES,
	};
	for (unsigned i = 0; i < pool->count; i++)
		ret->max_write_bytes = MAX(ret->max_write_bytes, pool->sessions[i].one_trip_bytes);
	ret->max_write_bytes = MIN(ret->max_write_bytes, MAX_WRITE_BYTES);
	if (pool->conf.read_only || lun->write_protected)
		ret->flags |= BLK_INFO_READ_ONLY;
	if (lun->write_cache)
		ret->flags |= BLK_INFO_VOLATILE;
	if (pool->same_works)
		ret->flags |= BLK_INFO_FAST_ZERO;
	if (lun->discard) {
		ret->flags |= BLK_INFO_CAN_DISCARD;
		ret->discard_align_bytes = lun->discard_align_bytes;
	}
	memcpy(ret->identity, lun->identity, sizeof(ret->identity));
}

static uint64_t pool_generation(struct blk_dev *dev)
{
	return atomic_load(&pool_of(dev)->generation);
}

static unsigned pool_sessions(struct blk_dev *dev, struct blk_session *out, unsigned max)
{
	static const char *const names[] = { "waiting", "connecting", "up" };
	struct iscsi_pool *pool = pool_of(dev);

	guard(&pool->lock);
	for (unsigned i = 0; i < pool->count && i < max; i++) {
		const struct iscsi_session *s = &pool->sessions[i];
		const struct url_portal *p = &pool->conf.url.portal[s->portal];
		bool v6 = strchr(p->host, ':');

		out[i] = (struct blk_session){
			.rtt_ns = s->state == ISCSI_UP ? s->rtt_ns : 0,
			.in_flight_bytes = s->read_bytes + s->write_bytes,
			.reconnects = s->ups ? s->ups - 1 : 0,
		};
		snprintf(out[i].portal, sizeof(out[i].portal), v6 ? "[%.80s]:%u" : "%.80s:%u",
			 p->host, p->port);
		snprintf(out[i].state, sizeof(out[i].state), "%s", names[s->state]);
	}
	return pool->count;
}

static void pool_stats(struct blk_dev *dev, struct blk_stats *ret)
{
	struct iscsi_pool *pool = pool_of(dev);

	ret->read_bytes = atomic_load(&pool->read_bytes);
	ret->write_bytes = atomic_load(&pool->write_bytes);
	guard(&pool->lock);
	ret->online = iscsi_any_up(pool);
}

static void pool_kick(struct blk_dev *dev)
{
	struct iscsi_pool *pool = pool_of(dev);
	uint64_t now = clock_monotonic_ns();
	bool probed = false;

	guard(&pool->lock);
	for (unsigned i = 0; i < pool->count; i++) {
		struct iscsi_session *s = &pool->sessions[i];

		if (s->state == ISCSI_UP) {
			/* An idle volume hears of a new size only where it asks. */
			if (!probed)
				s->chores |= ISCSI_CHORE_PROBE;
			probed = true;
		} else {
			/* TCP tries a silent host ever more rarely: begin anew. */
			if (s->state == ISCSI_CONNECTING && now - s->attempt_ns > KICK_NS)
				atomic_store(&s->give_up, true);
			s->kicked = true;
		}
		iscsi_session_wake(s);
	}
}

static const char *pool_fenced(struct blk_dev *dev)
{
	return atomic_load(&pool_of(dev)->fenced);
}

static const struct blk_ops pool_ops = {
	.name = "iscsi",
	.start = pool_start,
	.submit = pool_submit,
	.stop = pool_stop,
	.destroy = pool_destroy,
	.info = pool_info,
	.generation = pool_generation,
	.fenced = pool_fenced,
	.cancel = pool_cancel,
	.sessions = pool_sessions,
	.stats = pool_stats,
	.kick = pool_kick,
};

static int check_config(const struct leaf_config *conf, struct err *err)
{
	if (!conf->sessions || conf->sessions > ISCSI_MAX_SESSIONS)
		return err_set(err, -EINVAL, "the number of sessions must be 1 to %d, not %u",
			       ISCSI_MAX_SESSIONS, conf->sessions);
	if (!conf->url.portals || !conf->url.target[0])
		return err_set(err, -EINVAL, "the URL names no portal or no target: %s",
			       conf->url.text);
	if (!conf->initiator_name[0])
		return err_set(err, -EINVAL, "an iSCSI volume needs an initiator name");
	return 0;
}

int iscsi_pool_create(const struct leaf_config *conf, struct blk_dev **ret, struct err *err)
{
	struct iscsi_pool *pool;
	int r = check_config(conf, err);

	if (r < 0)
		return r;
	pool = calloc(1, sizeof(*pool));
	if (!pool)
		return err_set(err, -ENOMEM, "out of memory");
	pool->dev.ops = &pool_ops;
	pool->conf = *conf;
	pthread_mutex_init(&pool->lock, NULL);
	pthread_cond_init(&pool->changed, NULL);
	atomic_store(&pool->generation, 1);
	pool->same_works = true;
	pool->sync16_works = true;
	pool->start_result = 1;
	list_init(&pool->delayed);
	for (int lane = 0; lane < BLK_LANE_COUNT; lane++) {
		list_init(&pool->ios[lane]);
		list_init(&pool->again[lane]);
	}
	for (int p = 0; p < URL_PORTALS; p++)
		pool->portal_group[p] = ISCSI_GROUP_UNKNOWN;
	pool->sessions = calloc(conf->sessions, sizeof(*pool->sessions));
	for (; r == 0 && pool->sessions && pool->count < conf->sessions; pool->count++)
		r = iscsi_session_init(&pool->sessions[pool->count], pool, pool->count);
	if (r < 0 || !pool->sessions) {
		blk_destroy(&pool->dev);
		return err_set(err, -ENOMEM, "out of memory or file descriptors");
	}
	*ret = &pool->dev;
	return 0;
}
