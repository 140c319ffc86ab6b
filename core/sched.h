// SPDX-License-Identifier: Apache-2.0
/*
 * The executor interface: where deferred work and timers run, and what time it
 * is. The product uses worker threads (sched_threads_create()); tests bring a
 * seeded single-threaded scheduler that picks the order and owns a fake clock.
 * Modules that must be simulated take a `struct sched *` and neither start
 * threads nor read clocks themselves.
 */
#ifndef CORE_SCHED_H
#define CORE_SCHED_H

#include <stdbool.h>
#include <stdint.h>

#include "core/list.h"

struct task {
	struct list_node link;
	void (*run)(struct task *task);
};

struct sched_timer {
	struct task task;
	uint64_t when_ns; /* the scheduler's; sched_now() time */
	bool armed;       /* the scheduler's, under its lock */
};

struct sched;

struct sched_ops {
	void (*post)(struct sched *s, struct task *task);
	void (*arm)(struct sched *s, struct sched_timer *timer, uint64_t when_ns);
	bool (*disarm)(struct sched *s, struct sched_timer *timer);
	void (*quiesce)(struct sched *s, struct task *task);
	uint64_t (*now)(struct sched *s);
	uint64_t (*realtime)(struct sched *s);
	void (*destroy)(struct sched *s);
};

struct sched {
	const struct sched_ops *ops;
};

static inline void task_init(struct task *t, void (*run)(struct task *))
{
	list_init(&t->link);
	t->run = run;
}

static inline void sched_timer_init(struct sched_timer *t, void (*run)(struct task *))
{
	task_init(&t->task, run);
	t->when_ns = 0;
	t->armed = false;
}

/*
 * Run @task once, soon, on a thread of the scheduler; never inside this call.
 * The task must not be pending already; run() may post it again or free it.
 * Tasks that must not overlap serialise themselves. Any thread, locks may be held.
 */
static inline void sched_post(struct sched *s, struct task *task)
{
	s->ops->post(s, task);
}

/* Run the timer's task at @when_ns (sched_now() time) or soon after; re-arming moves it. Any
 * thread. */
static inline void sched_arm(struct sched *s, struct sched_timer *timer, uint64_t when_ns)
{
	s->ops->arm(s, timer, when_ns);
}

/*
 * True: it was armed and will not run. False: it was not armed, or its task is
 * running or about to: the owner finds out with its own state. Any thread.
 */
static inline bool sched_disarm(struct sched *s, struct sched_timer *timer)
{
	return s->ops->disarm(s, timer);
}

/*
 * Wait until @task neither waits to run nor runs; the caller makes sure that nobody posts
 * or arms it again. Then its memory may go. Not from a task of the scheduler, no lock held.
 */
static inline void sched_quiesce(struct sched *s, struct task *task)
{
	if (s->ops->quiesce)
		s->ops->quiesce(s, task);
}

/* Monotonic nanoseconds. Any thread. */
static inline uint64_t sched_now(struct sched *s)
{
	return s->ops->now(s);
}

/* Wall clock, nanoseconds since 1970. Any thread. */
static inline uint64_t sched_realtime(struct sched *s)
{
	return s->ops->realtime(s);
}

/* Run what is pending, join the threads, free. Timers still armed are dropped. NULL is fine. */
static inline void sched_destroy(struct sched *s)
{
	if (s)
		s->ops->destroy(s);
}

/*
 * The product's scheduler: @threads workers (1..64), named @name (at most 12
 * characters are used). NULL when out of memory or threads.
 */
struct sched *sched_threads_create(unsigned threads, const char *name);

#endif
