// SPDX-License-Identifier: Apache-2.0
/*
 * The product's scheduler: a FIFO of tasks served by worker threads, and a list
 * of timers sorted by due time that idle workers watch.
 *
 * A task is in `ready` or nowhere; a timer is in `timers` while armed, and its
 * task moves to `ready` when due. All lists are guarded by `lock`; tasks run
 * without it.
 */
#include <assert.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/clock.h"
#include "core/sched.h"

struct threads {
	struct sched sched;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	struct list_node ready;  /* struct task.link; guarded by lock */
	struct list_node timers; /* struct sched_timer.task.link, by when_ns; guarded by lock */
	bool stopping;           /* guarded by lock */
	unsigned count;
	char name[16];
	pthread_cond_t ended;     /* a task ended while somebody quiesces */
	unsigned quiescing;       /* guarded by lock */
	struct task *running[64]; /* per worker; guarded by lock */
	unsigned workers;         /* started so far; guarded by lock */
	pthread_t thread[];
};

static void threads_post(struct sched *s, struct task *task)
{
	struct threads *t = container_of(s, struct threads, sched);

	guard(&t->lock);
	assert(list_empty(&task->link));
	list_add_tail(&t->ready, &task->link);
	pthread_cond_signal(&t->wake);
}

static void threads_arm(struct sched *s, struct sched_timer *timer, uint64_t when_ns)
{
	struct threads *t = container_of(s, struct threads, sched);
	struct list_node *pos;

	guard(&t->lock);
	if (timer->armed)
		list_del(&timer->task.link);
	else if (!list_empty(&timer->task.link))
		return; /* due already and about to run: the owner arms again from there */
	timer->when_ns = when_ns;
	timer->armed = true;
	for (pos = t->timers.prev; pos != &t->timers; pos = pos->prev)
		if (list_entry(pos, struct sched_timer, task.link)->when_ns <= when_ns)
			break;
	list_add(pos, &timer->task.link);
	pthread_cond_signal(&t->wake);
}

static bool threads_disarm(struct sched *s, struct sched_timer *timer)
{
	struct threads *t = container_of(s, struct threads, sched);

	guard(&t->lock);
	if (!timer->armed)
		return false;
	timer->armed = false;
	list_del(&timer->task.link);
	return true;
}

static bool busy(const struct threads *t, const struct task *task)
{
	for (unsigned i = 0; i < ARRAY_SIZE(t->running); i++)
		if (t->running[i] == task)
			return true;
	return !list_empty(&task->link);
}

static void threads_quiesce(struct sched *s, struct task *task)
{
	struct threads *t = container_of(s, struct threads, sched);

	guard(&t->lock);
	t->quiescing++;
	while (busy(t, task))
		pthread_cond_wait(&t->ended, &t->lock);
	t->quiescing--;
}

static uint64_t threads_now(struct sched *s)
{
	(void)s;
	return clock_monotonic_ns();
}

static uint64_t threads_realtime(struct sched *s)
{
	(void)s;
	return clock_realtime_ns();
}

/* Move due timers to ready. The lock is held. */
static void collect_due(struct threads *t)
{
	uint64_t now = clock_monotonic_ns();
	struct sched_timer *timer;

	while ((timer = list_first(&t->timers, struct sched_timer, task.link)) &&
	       timer->when_ns <= now) {
		timer->armed = false;
		list_del(&timer->task.link);
		list_add_tail(&t->ready, &timer->task.link);
	}
}

/* Wait for a post, a stop or the next timer. The lock is held. */
static void wait_for_work(struct threads *t)
{
	struct sched_timer *next = list_first(&t->timers, struct sched_timer, task.link);
	struct timespec ts;

	if (!next) {
		pthread_cond_wait(&t->wake, &t->lock);
		return;
	}
	ts.tv_sec = (time_t)(next->when_ns / NSEC_PER_SEC);
	ts.tv_nsec = (long)(next->when_ns % NSEC_PER_SEC);
	pthread_cond_timedwait(&t->wake, &t->lock, &ts);
}

static void *worker(void *arg)
{
	struct threads *t = arg;
	unsigned me;

	pthread_setname_np(pthread_self(), t->name);
	pthread_mutex_lock(&t->lock);
	me = t->workers++;
	for (;;) {
		struct task *task;

		collect_due(t);
		task = list_first(&t->ready, struct task, link);
		if (task) {
			list_del(&task->link);
			/* Another worker may be idle while more is ready (timers came due). */
			if (!list_empty(&t->ready))
				pthread_cond_signal(&t->wake);
			t->running[me] = task;
			pthread_mutex_unlock(&t->lock);
			task->run(task);
			pthread_mutex_lock(&t->lock);
			t->running[me] = NULL;
			if (t->quiescing)
				pthread_cond_broadcast(&t->ended);
		} else if (t->stopping) {
			break;
		} else {
			wait_for_work(t);
		}
	}
	pthread_cond_broadcast(&t->wake);
	pthread_mutex_unlock(&t->lock);
	return NULL;
}

static void threads_destroy(struct sched *s)
{
	struct threads *t = container_of(s, struct threads, sched);
	struct list_node *n;

	pthread_mutex_lock(&t->lock);
	t->stopping = true;
	while ((n = list_pop(&t->timers)))
		list_entry(n, struct sched_timer, task.link)->armed = false;
	pthread_cond_broadcast(&t->wake);
	pthread_mutex_unlock(&t->lock);
	for (unsigned i = 0; i < t->count; i++)
		pthread_join(t->thread[i], NULL);
	pthread_cond_destroy(&t->wake);
	pthread_cond_destroy(&t->ended);
	pthread_mutex_destroy(&t->lock);
	free(t);
}

static const struct sched_ops threads_ops = {
	.post = threads_post,
	.arm = threads_arm,
	.disarm = threads_disarm,
	.quiesce = threads_quiesce,
	.now = threads_now,
	.realtime = threads_realtime,
	.destroy = threads_destroy,
};

struct sched *sched_threads_create(unsigned threads, const char *name)
{
	struct threads *t;
	pthread_condattr_t attr;

	assert(threads >= 1 && threads <= 64);
	t = calloc(1, sizeof(*t) + threads * sizeof(t->thread[0]));
	if (!t)
		return NULL;
	t->sched.ops = &threads_ops;
	snprintf(t->name, sizeof(t->name), "nb-%.12s", name);
	list_init(&t->ready);
	list_init(&t->timers);
	pthread_mutex_init(&t->lock, NULL);
	pthread_cond_init(&t->ended, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&t->wake, &attr);
	pthread_condattr_destroy(&attr);
	for (; t->count < threads; t->count++)
		if (pthread_create(&t->thread[t->count], NULL, worker, t))
			break;
	if (t->count == 0) {
		threads_destroy(&t->sched);
		return NULL;
	}
	return &t->sched;
}
