// SPDX-License-Identifier: Apache-2.0
/*
 * Nobody answers, or the wrong one does.
 *
 *   A start at which nobody answers ends well where the volume is known from before: the device is
 *   what it was then until a session learns better (iscsi_session.c compares).
 *
 *   Reads may be told not to wait for ever (conf.reads_fail): a thread of its own ends those that
 *   are queued once no session was up for so long. Write-back always waits, and so does what asks
 *   in its lane.
 *
 *   Fenced off: for good. Of a foreign volume nothing is read either, and no session stays.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "core/clock.h"
#include "core/log.h"
#include "transport/iscsi_impl.h"

bool iscsi_is_outage(int error)
{
	switch (error) {
	case -ETIMEDOUT:
	case -EHOSTUNREACH:
	case -ECONNRESET:
	case -EAGAIN:
	case -ECONNREFUSED:
	case -EADDRNOTAVAIL:
		return true;
	default:
		return false;
	}
}

bool iscsi_start_offline(struct iscsi_pool *pool, const struct err *why)
{
	const struct leaf_known *known = &pool->conf.known;
	bool offline;

	pthread_mutex_lock(&pool->lock);
	/* Perhaps somebody has answered in the last moment. */
	offline = !pool->lun_known;
	if (offline) {
		/* Unknown are its flags: nothing is promised that it may not have. */
		pool->lun = (struct iscsi_lun){
			.size_bytes = known->size_bytes,
			.sector_bytes = known->sector_bytes,
			.write_cache = true,
		};
		memcpy(pool->lun.identity, known->identity, sizeof(pool->lun.identity));
		pool->lun_known = true;
		pool->from_memory = true;
		if (pool->conf.isid_high_water > pool->count)
			pool->old_slots_ns = clock_monotonic_ns();
	}
	pool->start_result = 0;
	pthread_mutex_unlock(&pool->lock);
	if (!offline)
		return false;
	if (pool->conf.offline_why)
		*pool->conf.offline_why = *why;
	log_warning("offline: %s", why->text);
	return true;
}

/* ---- reads that do not wait ---- */

bool iscsi_reads_expired(const struct iscsi_pool *pool)
{
	return pool->conf.reads_fail && pool->down_since_ns &&
	       clock_monotonic_ns() - pool->down_since_ns >= pool->conf.reads_fail_ns;
}

static void wait_change(struct iscsi_pool *pool, uint64_t until_ns)
{
	struct timespec ts = { .tv_sec = (time_t)(until_ns / NSEC_PER_SEC),
			       .tv_nsec = (long)(until_ns % NSEC_PER_SEC) };

	if (until_ns == UINT64_MAX)
		pthread_cond_wait(&pool->changed, &pool->lock);
	else
		pthread_cond_clockwait(&pool->changed, &pool->lock, CLOCK_MONOTONIC, &ts);
}

static void *outage_main(void *arg)
{
	struct iscsi_pool *pool = arg;

	pthread_setname_np(pthread_self(), "nb-outage");
	pthread_mutex_lock(&pool->lock);
	while (!atomic_load(&pool->stop)) {
		struct iscsi_ended ended;

		if (!iscsi_reads_expired(pool)) {
			wait_change(pool, pool->down_since_ns
						  ? pool->down_since_ns + pool->conf.reads_fail_ns
						  : UINT64_MAX);
			continue;
		}
		iscsi_ended_init(&ended);
		iscsi_fail_queued(pool, -EIO, ISCSI_WAITING_READS, &ended);
		pthread_mutex_unlock(&pool->lock);
		iscsi_ended_complete(&ended);
		pthread_mutex_lock(&pool->lock);
		/* New ones are refused on their way in (iscsi_io_begin()). */
		if (iscsi_reads_expired(pool) && !atomic_load(&pool->stop))
			wait_change(pool, UINT64_MAX);
	}
	pthread_mutex_unlock(&pool->lock);
	return NULL;
}

int iscsi_outage_start(struct iscsi_pool *pool)
{
	int r;

	if (!pool->conf.reads_fail)
		return 0;
	r = pthread_create(&pool->outage_thread, NULL, outage_main, pool);
	pool->outage_thread_running = r == 0;
	return -r;
}

void iscsi_outage_join(struct iscsi_pool *pool)
{
	if (!pool->outage_thread_running)
		return;
	pthread_join(pool->outage_thread, NULL);
	pool->outage_thread_running = false;
}

/* ---- fenced ---- */

void iscsi_fence_off(struct iscsi_pool *pool, bool foreign, struct iscsi_ended *ended,
		     const char *fmt, ...)
{
	va_list ap;

	if (atomic_load(&pool->fenced))
		return;
	va_start(ap, fmt);
	vsnprintf(pool->fenced_text, sizeof(pool->fenced_text), fmt, ap);
	va_end(ap);
	pool->foreign = foreign;
	atomic_store(&pool->fenced, pool->fenced_text);
	/* Writes that were answered and not flushed are nobody's any more. */
	atomic_fetch_add(&pool->generation, 1);
	iscsi_fail_queued(pool, -ESTALE, foreign ? ISCSI_ALL : ISCSI_CHANGES, ended);
	for (unsigned i = 0; i < pool->count; i++)
		iscsi_session_wake(&pool->sessions[i]);
	pthread_cond_broadcast(&pool->changed);
}

bool iscsi_is_foreign(const struct iscsi_pool *pool)
{
	return atomic_load(&pool->fenced) && pool->foreign;
}

bool iscsi_fenced_for(const struct iscsi_pool *pool, const struct blk_req *req)
{
	return atomic_load(&pool->fenced) && (pool->foreign || req->op != BLK_READ);
}
