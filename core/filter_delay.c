// SPDX-License-Identifier: Apache-2.0
/*
 * A request belongs to the inner device, then waits in `held` with its due time and result, then is
 * completed. One timer serves all; `armed` says that exactly one run of its task is still to come:
 *
 *   idle   --hold-->            armed (for the earliest due time)
 *   armed  --earlier due-->     armed, moved; where disarm comes too late the run does the moving
 *   armed  --run-->             idle or armed again; what is due is completed
 *   any    --stop-->            stopped: answers pass straight through
 *
 * A run that can no longer be called off holds a reference, so destroy never waits for the
 * scheduler (which may be the calling thread itself).
 *
 * Invariants (delay_check()): `held` is sorted; what is held will be found by a run of the
 * timer.
 *
 * Lock order: lock → the scheduler's own.
 */
#include "core/filter_delay.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

struct delay {
	struct blk_dev dev;
	struct sched *sched;
	uint64_t fixed_ns;
	uint64_t per_byte_ns;
	pthread_mutex_t lock;
	pthread_cond_t calm;      /* completing == 0 */
	struct sched_timer timer; /* armed and moved under lock */
	struct list_node held;    /* struct hold.link, by due_ns; guarded by lock */
	bool armed;               /* guarded by lock */
	uint64_t armed_ns;        /* guarded by lock */
	bool stopped;             /* guarded by lock */
	unsigned completing;      /* timer runs that have requests in hand; guarded by lock */
	unsigned refs;            /* device + armed timer + timer runs; guarded by lock */
};

struct hold {
	struct list_node link;
	struct delay *delay;
	struct blk_req *req;
	uint64_t due_ns;
	int result;
};

/* Give up a reference; the lock is held and is gone after. */
static void unref_unlock(struct delay *d)
{
	bool last = --d->refs == 0;

	pthread_mutex_unlock(&d->lock);
	if (!last)
		return;
	pthread_cond_destroy(&d->calm);
	pthread_mutex_destroy(&d->lock);
	free(d);
}

/* See to it that the timer runs when the first request is due. The lock is held. */
static void arm(struct delay *d)
{
	struct hold *first = list_first(&d->held, struct hold, link);

	if (!first)
		return;
	if (d->armed) {
		if (first->due_ns >= d->armed_ns || !sched_disarm(d->sched, &d->timer))
			return;
	} else {
		d->armed = true;
		d->refs++;
	}
	d->armed_ns = first->due_ns;
	sched_arm(d->sched, &d->timer, first->due_ns);
}

/* The lock is held. */
static void delay_check(const struct delay *d)
{
#ifdef ENABLE_INVARIANTS
	const struct list_node *n;
	uint64_t last_ns = 0;

	list_for_each(n, &d->held) {
		const struct hold *h = list_entry(n, struct hold, link);

		assert(h->due_ns >= last_ns);
		last_ns = h->due_ns;
	}
	assert(d->refs >= 1);
	assert(d->stopped || list_empty(&d->held) || d->armed);
#else
	(void)d;
#endif
}

static void complete_all(struct list_node *list)
{
	struct list_node *n;

	while ((n = list_pop(list))) {
		struct hold *h = list_entry(n, struct hold, link);
		struct blk_req *req = h->req;
		int result = h->result;

		free(h);
		blk_complete(req, result);
	}
}

static void timer_run(struct task *task)
{
	struct delay *d = container_of(task, struct delay, timer.task);
	uint64_t now = sched_now(d->sched);
	struct list_node due;
	struct hold *h;

	list_init(&due);
	pthread_mutex_lock(&d->lock);
	d->armed = false;
	while ((h = list_first(&d->held, struct hold, link)) && h->due_ns <= now) {
		list_del(&h->link);
		list_add_tail(&due, &h->link);
	}
	arm(d);
	delay_check(d);
	d->completing++;
	pthread_mutex_unlock(&d->lock);

	complete_all(&due);

	pthread_mutex_lock(&d->lock);
	if (--d->completing == 0)
		pthread_cond_broadcast(&d->calm);
	unref_unlock(d);
}

static void delay_done(struct blk_req *req, void *ctx, int result)
{
	struct hold *h = ctx;
	struct delay *d = h->delay;
	struct list_node *pos;

	h->result = result;
	pthread_mutex_lock(&d->lock);
	if (d->stopped) {
		pthread_mutex_unlock(&d->lock);
		free(h);
		blk_complete(req, result);
		return;
	}
	h->due_ns = sched_now(d->sched) + d->fixed_ns + req->length * d->per_byte_ns;
	for (pos = d->held.prev; pos != &d->held; pos = pos->prev)
		if (list_entry(pos, struct hold, link)->due_ns <= h->due_ns)
			break;
	list_add(pos, &h->link);
	arm(d);
	delay_check(d);
	pthread_mutex_unlock(&d->lock);
}

static void delay_submit(struct blk_dev *dev, struct blk_req *req)
{
	struct delay *d = container_of(dev, struct delay, dev);
	struct hold *h = calloc(1, sizeof(*h));

	if (!h) {
		blk_complete(req, -ENOMEM);
		return;
	}
	h->delay = d;
	h->req = req;
	blk_submit(dev->inner, req, delay_done, h);
}

/* A request that only waits for its time is answered now; else it is the inner device's. */
static void delay_cancel(struct blk_dev *dev, struct blk_req *req)
{
	struct delay *d = container_of(dev, struct delay, dev);
	struct list_node found, *n;

	list_init(&found);
	pthread_mutex_lock(&d->lock);
	list_for_each(n, &d->held) {
		struct hold *h = list_entry(n, struct hold, link);

		if (h->req == req) {
			list_del(&h->link);
			list_add_tail(&found, &h->link);
			break;
		}
	}
	pthread_mutex_unlock(&d->lock);
	if (list_empty(&found))
		blk_cancel(dev->inner, req);
	else
		complete_all(&found);
}

static void delay_stop(struct blk_dev *dev)
{
	struct delay *d = container_of(dev, struct delay, dev);
	struct list_node rest;

	list_init(&rest);
	pthread_mutex_lock(&d->lock);
	d->stopped = true;
	list_splice_tail(&rest, &d->held);
	if (d->armed && sched_disarm(d->sched, &d->timer)) {
		d->armed = false;
		d->refs--; /* the device's own is left */
	}
	pthread_mutex_unlock(&d->lock);
	complete_all(&rest);
	pthread_mutex_lock(&d->lock);
	while (d->completing)
		pthread_cond_wait(&d->calm, &d->lock);
	pthread_mutex_unlock(&d->lock);
}

static void delay_destroy(struct blk_dev *dev)
{
	struct delay *d = container_of(dev, struct delay, dev);

	pthread_mutex_lock(&d->lock);
	assert(list_empty(&d->held));
	unref_unlock(d);
}

static const struct blk_ops delay_ops = {
	.name = "delay",
	.submit = delay_submit,
	.stop = delay_stop,
	.destroy = delay_destroy,
	.cancel = delay_cancel,
};

struct blk_dev *filter_delay_create(struct blk_dev *inner, struct sched *sched, uint64_t fixed_ns,
				    uint64_t per_byte_ns)
{
	struct delay *d = calloc(1, sizeof(*d));

	if (!d)
		return NULL;
	d->dev.ops = &delay_ops;
	d->dev.inner = inner;
	d->sched = sched;
	d->fixed_ns = fixed_ns;
	d->per_byte_ns = per_byte_ns;
	d->refs = 1;
	pthread_mutex_init(&d->lock, NULL);
	pthread_cond_init(&d->calm, NULL);
	list_init(&d->held);
	sched_timer_init(&d->timer, timer_run);
	return &d->dev;
}
