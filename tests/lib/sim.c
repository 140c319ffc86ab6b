// SPDX-License-Identifier: Apache-2.0
/*
 * The simulated scheduler: `ready` holds all that could run now, and each step
 * takes one out of it by the dice. A task is in `ready` or nowhere; a timer is in
 * `timers` while armed and its task moves to `ready` when due: from then on
 * disarm is too late, as with real threads.
 */
#include "tests/lib/sim.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/clock.h"

#define STEP_LIMIT 2000000u
#define STEP_NS_MAX 20000u /* a step takes up to this */
#define START_NS 1000000000ull
#define REALTIME_START_NS 1700000000000000000ull

enum preference { ANY, NEWEST, OLDEST, PREFERENCES };

struct sim {
	struct sched sched;
	uint64_t seed;
	uint64_t state; /* of the generator */
	uint64_t now_ns;
	uint64_t steps;
	uint64_t limit;
	enum preference preference;
	struct task **ready;
	size_t nready;
	size_t max_ready;
	struct list_node pending; /* struct task.link of all in ready: marks them as taken */
	struct list_node timers;  /* struct sched_timer.task.link, by when_ns */
	struct list_node parts;
	FILE *trace; /* NULL: nobody listens */
};

/* splitmix64: small, fast, and every seed gives a full period. */
uint64_t sim_random(struct sim *sim)
{
	uint64_t z = (sim->state += 0x9e3779b97f4a7c15ull);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

uint64_t sim_below(struct sim *sim, uint64_t n)
{
	assert(n >= 1);
	return sim_random(sim) % n;
}

bool sim_once_in(struct sim *sim, uint64_t n)
{
	return sim_below(sim, n) == 0;
}

_Thread_local unsigned sim_own;

__attribute__((noreturn)) static void no_memory(void)
{
	fputs("sim: out of memory\n", stderr);
	abort();
}

void *sim_alloc(size_t bytes)
{
	void *p;

	sim_own++;
	p = calloc(1, bytes ? bytes : 1);
	sim_own--;
	if (!p)
		no_memory();
	return p;
}

void *sim_realloc(void *old, size_t bytes)
{
	sim_own++;
	old = realloc(old, bytes);
	sim_own--;
	if (!old)
		no_memory();
	return old;
}

void sim_die(struct sim *sim, const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "sim: seed %llu, step %llu: ", (unsigned long long)sim->seed,
		(unsigned long long)sim->steps);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	abort();
}

void sim_set_trace(struct sim *sim, FILE *out)
{
	sim->trace = out;
}

void sim_trace(struct sim *sim, const char *fmt, ...)
{
	va_list ap;

	if (!sim->trace)
		return;
	fprintf(sim->trace, "%6llu %10.3f ms  ", (unsigned long long)sim->steps,
		(double)(sim->now_ns - START_NS) / NSEC_PER_MSEC);
	va_start(ap, fmt);
	vfprintf(sim->trace, fmt, ap);
	va_end(ap);
	fputc('\n', sim->trace);
}

int sim_fault_check(struct sim_fault *f, unsigned bit)
{
	if (!f->nth || !(f->mask & bit))
		return 0;
	f->seen++;
	if (f->seen != f->nth && !(f->always && f->seen > f->nth))
		return 0;
	f->hits++;
	return f->error;
}

static struct sim *from_sched(struct sched *s)
{
	return container_of(s, struct sim, sched);
}

static void make_ready(struct sim *sim, struct task *task)
{
	if (sim->nready == sim->max_ready) {
		sim->max_ready = sim->max_ready ? 2 * sim->max_ready : 64;
		sim->ready = sim_realloc(sim->ready, sim->max_ready * sizeof(sim->ready[0]));
	}
	list_add_tail(&sim->pending, &task->link);
	sim->ready[sim->nready++] = task;
}

static void take_ready(struct sim *sim, size_t i)
{
	list_del(&sim->ready[i]->link);
	sim->ready[i] = sim->ready[--sim->nready];
}

static void sim_post(struct sched *s, struct task *task)
{
	if (!list_empty(&task->link))
		sim_die(from_sched(s), "a task was posted that is pending already");
	make_ready(from_sched(s), task);
}

static void sim_arm(struct sched *s, struct sched_timer *timer, uint64_t when_ns)
{
	struct sim *sim = from_sched(s);
	struct list_node *pos;

	if (timer->armed)
		list_del(&timer->task.link);
	else if (!list_empty(&timer->task.link))
		return; /* due already and about to run, as in core/sched_threads.c */
	timer->when_ns = when_ns;
	timer->armed = true;
	for (pos = sim->timers.prev; pos != &sim->timers; pos = pos->prev)
		if (list_entry(pos, struct sched_timer, task.link)->when_ns <= when_ns)
			break;
	list_add(pos, &timer->task.link);
}

static bool sim_disarm(struct sched *s, struct sched_timer *timer)
{
	(void)s;
	if (!timer->armed)
		return false;
	timer->armed = false;
	list_del(&timer->task.link);
	return true;
}

static uint64_t sim_now(struct sched *s)
{
	return from_sched(s)->now_ns;
}

static uint64_t sim_realtime(struct sched *s)
{
	return REALTIME_START_NS + from_sched(s)->now_ns;
}

static void sim_sched_destroy(struct sched *s)
{
	(void)s;
}

static const struct sched_ops sim_sched_ops = {
	.post = sim_post,
	.arm = sim_arm,
	.disarm = sim_disarm,
	.now = sim_now,
	.realtime = sim_realtime,
	.destroy = sim_sched_destroy,
};

struct sim *sim_create(uint64_t seed)
{
	struct sim *sim = sim_alloc(sizeof(*sim));

	sim->sched.ops = &sim_sched_ops;
	sim->seed = seed;
	sim->state = seed;
	sim->now_ns = START_NS;
	sim->limit = STEP_LIMIT;
	sim->preference = (enum preference)sim_below(sim, PREFERENCES);
	list_init(&sim->pending);
	list_init(&sim->timers);
	list_init(&sim->parts);
	return sim;
}

void sim_destroy(struct sim *sim)
{
	if (!sim)
		return;
	if (!list_empty(&sim->parts))
		sim_die(sim, "destroyed while a disk or a far device still uses it");
	free(sim->ready);
	free(sim);
}

struct sched *sim_sched(struct sim *sim)
{
	return &sim->sched;
}

uint64_t sim_seed(const struct sim *sim)
{
	return sim->seed;
}

uint64_t sim_steps(const struct sim *sim)
{
	return sim->steps;
}

void sim_set_limit(struct sim *sim, uint64_t steps)
{
	sim->limit = steps;
}

static void collect_due(struct sim *sim)
{
	struct sched_timer *timer;

	while ((timer = list_first(&sim->timers, struct sched_timer, task.link)) &&
	       timer->when_ns <= sim->now_ns) {
		timer->armed = false;
		list_del(&timer->task.link);
		make_ready(sim, &timer->task);
	}
}

/* Three of four picks follow the preference, so that nothing starves. */
static size_t pick(struct sim *sim)
{
	enum preference p = sim_once_in(sim, 4) ? ANY : sim->preference;

	if (p == NEWEST)
		return sim->nready - 1;
	if (p == OLDEST)
		return 0;
	return (size_t)sim_below(sim, sim->nready);
}

bool sim_step(struct sim *sim)
{
	struct task *task;
	size_t i;

	collect_due(sim);
	if (!sim->nready)
		return false;
	sim->steps++;
	sim->now_ns += sim_below(sim, STEP_NS_MAX);
	i = pick(sim);
	task = sim->ready[i];
	take_ready(sim, i);
	task->run(task);
	return true;
}

bool sim_advance(struct sim *sim)
{
	struct sched_timer *timer = list_first(&sim->timers, struct sched_timer, task.link);

	if (!timer)
		return false;
	sim->now_ns = MAX(sim->now_ns, timer->when_ns);
	return true;
}

bool sim_run_until(struct sim *sim, bool (*cond)(void *ctx), void *ctx)
{
	for (uint64_t i = 0; i < sim->limit; i++) {
		if (cond(ctx))
			return true;
		if (!sim_step(sim) && !sim_advance(sim)) {
			fprintf(stderr, "sim: seed %llu, step %llu: nothing is left to run\n",
				(unsigned long long)sim->seed, (unsigned long long)sim->steps);
			return false;
		}
	}
	fprintf(stderr, "sim: seed %llu: not there after %llu steps\n",
		(unsigned long long)sim->seed, (unsigned long long)sim->limit);
	return false;
}

bool sim_run_idle(struct sim *sim)
{
	for (uint64_t i = 0; i < sim->limit; i++)
		if (!sim_step(sim))
			return true;
	fprintf(stderr, "sim: seed %llu: still busy after %llu steps\n",
		(unsigned long long)sim->seed, (unsigned long long)sim->limit);
	return false;
}

bool sim_cancel(struct sim *sim, struct task *task)
{
	for (size_t i = 0; i < sim->nready; i++)
		if (sim->ready[i] == task) {
			take_ready(sim, i);
			return true;
		}
	return false;
}

void sim_join(struct sim *sim, struct sim_part *part)
{
	list_add_tail(&sim->parts, &part->link);
}

void sim_leave(struct sim_part *part)
{
	list_del(&part->link);
}

void sim_reset(struct sim *sim)
{
	struct list_node parts;
	struct list_node *n;

	/* A part may leave while it is reset; the others come back into the list. */
	list_init(&parts);
	list_splice_tail(&parts, &sim->parts);
	while ((n = list_pop(&parts))) {
		list_add_tail(&sim->parts, n);
		list_entry(n, struct sim_part, link)->reset(list_entry(n, struct sim_part, link));
	}
	while (sim->nready)
		take_ready(sim, sim->nready - 1);
	while ((n = list_pop(&sim->timers)))
		list_entry(n, struct sched_timer, task.link)->armed = false;
}

void sim_bury(void *root)
{
	static void **grave; /* reachable for ever: that is the point */
	static size_t dead;

	grave = sim_realloc(grave, (dead + 1) * sizeof(*grave));
	grave[dead++] = root;
}
