// SPDX-License-Identifier: Apache-2.0
#include "core/sched.h"

#include <check.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "tests/lib/run.h"

#define MS NSEC_PER_MSEC
#define FAR (3600 * NSEC_PER_SEC)

struct job {
	struct task task;
	struct sched_timer timer;
	struct sched *sched;
	sem_t *done;
	atomic_uint runs;
	unsigned again;
	unsigned order; /* written before done is posted */
	uint64_t ran_ns;
};

static atomic_uint order;

static void job_note(struct job *j)
{
	j->order = atomic_fetch_add(&order, 1);
	j->ran_ns = clock_monotonic_ns();
	atomic_fetch_add(&j->runs, 1);
	sem_post(j->done);
}

static void task_run(struct task *task)
{
	struct job *j = container_of(task, struct job, task);

	if (j->again) {
		j->again--;
		atomic_fetch_add(&j->runs, 1);
		sched_post(j->sched, task);
		return;
	}
	job_note(j);
}

static void timer_run(struct task *task)
{
	job_note(container_of(task, struct job, timer.task));
}

static void job_init(struct job *j, struct sched *s, sem_t *done)
{
	memset(j, 0, sizeof(*j));
	task_init(&j->task, task_run);
	sched_timer_init(&j->timer, timer_run);
	j->sched = s;
	j->done = done;
}

START_TEST(test_post_in_order)
{
	struct sched *s = sched_threads_create(1, "order");
	struct job job[100];
	sem_t done;

	sem_init(&done, 0, 0);
	atomic_store(&order, 0);
	for (unsigned i = 0; i < 100; i++)
		job_init(&job[i], s, &done);
	for (unsigned i = 0; i < 100; i++)
		sched_post(s, &job[i].task);
	for (unsigned i = 0; i < 100; i++)
		sem_wait(&done);
	for (unsigned i = 0; i < 100; i++)
		ck_assert_uint_eq(job[i].order, i);
	sched_destroy(s);
	sem_destroy(&done);
}
END_TEST

START_TEST(test_post_again_from_run)
{
	struct sched *s = sched_threads_create(4, "a name longer than a thread's");
	struct job j;
	sem_t done;

	sem_init(&done, 0, 0);
	job_init(&j, s, &done);
	j.again = 1000;
	sched_post(s, &j.task);
	sem_wait(&done);
	ck_assert_uint_eq(j.runs, 1001);
	sched_destroy(s);
	sem_destroy(&done);
}
END_TEST

static void name_run(struct task *task)
{
	struct job *j = container_of(task, struct job, task);
	char name[16];

	ck_assert_int_eq(pthread_getname_np(pthread_self(), name, sizeof(name)), 0);
	ck_assert_str_eq(name, "nb-worker");
	sem_post(j->done);
}

START_TEST(test_threads_have_names)
{
	struct sched *s = sched_threads_create(1, "worker");
	struct job j;
	sem_t done;

	sem_init(&done, 0, 0);
	job_init(&j, s, &done);
	j.task.run = name_run;
	sched_post(s, &j.task);
	sem_wait(&done);
	sched_destroy(s);
	sem_destroy(&done);
}
END_TEST

START_TEST(test_timers_run_by_due_time)
{
	struct sched *s = sched_threads_create(1, "timers");
	static const unsigned due_ms[] = { 30, 10, 20, 0, 10 };
	static const unsigned want[] = { 4, 1, 3, 0, 2 };
	struct job job[5];
	uint64_t now;
	sem_t done;

	sem_init(&done, 0, 0);
	atomic_store(&order, 0);
	now = sched_now(s);
	for (unsigned i = 0; i < 5; i++) {
		job_init(&job[i], s, &done);
		sched_arm(s, &job[i].timer, now + FAR);
	}
	/* Armed again: the earlier time counts, and each runs once. */
	for (unsigned i = 0; i < 5; i++)
		sched_arm(s, &job[i].timer, now + due_ms[i] * MS);
	for (unsigned i = 0; i < 5; i++)
		sem_wait(&done);
	for (unsigned i = 0; i < 5; i++) {
		ck_assert_msg(job[i].ran_ns >= now + due_ms[i] * MS, "timer %u early", i);
		ck_assert_uint_eq(job[i].runs, 1);
	}
	/* The scheduler may wake late and find several due; their order stays that of the times. */
	for (unsigned i = 1; i < 5; i++)
		ck_assert_uint_eq(job[i].order, want[i]);
	sched_destroy(s);
	sem_destroy(&done);
}
END_TEST

START_TEST(test_rearm_later)
{
	struct sched *s = sched_threads_create(2, "rearm");
	struct job a, b;
	uint64_t now;
	sem_t done;

	sem_init(&done, 0, 0);
	job_init(&a, s, &done);
	job_init(&b, s, &done);
	now = sched_now(s);
	sched_arm(s, &a.timer, now + 50 * MS);
	sched_arm(s, &a.timer, now + FAR);
	sched_arm(s, &b.timer, now + 60 * MS);
	sem_wait(&done);
	ck_assert_uint_eq(b.runs, 1);
	ck_assert_uint_eq(a.runs, 0);
	ck_assert(sched_disarm(s, &a.timer));
	sched_destroy(s);
	sem_destroy(&done);
}
END_TEST

START_TEST(test_disarm)
{
	struct sched *s = sched_threads_create(2, "disarm");
	struct job j;
	sem_t done;

	sem_init(&done, 0, 0);
	job_init(&j, s, &done);
	ck_assert(!sched_disarm(s, &j.timer));
	sched_arm(s, &j.timer, sched_now(s) + FAR);
	ck_assert(sched_disarm(s, &j.timer));
	ck_assert(!sched_disarm(s, &j.timer));
	sched_arm(s, &j.timer, sched_now(s));
	sem_wait(&done);
	ck_assert(!sched_disarm(s, &j.timer));
	ck_assert_uint_eq(j.runs, 1);
	sched_destroy(s);
	sem_destroy(&done);
}
END_TEST

START_TEST(test_destroy)
{
	struct sched *s = sched_threads_create(3, "destroy");
	struct job posted[50], armed;
	sem_t done;

	sem_init(&done, 0, 0);
	job_init(&armed, s, &done);
	sched_arm(s, &armed.timer, sched_now(s) + FAR);
	for (unsigned i = 0; i < 50; i++) {
		job_init(&posted[i], s, &done);
		sched_post(s, &posted[i].task);
	}
	sched_destroy(s);
	for (unsigned i = 0; i < 50; i++)
		ck_assert_uint_eq(posted[i].runs, 1);
	ck_assert_uint_eq(armed.runs, 0);
	ck_assert(!armed.timer.armed);
	sched_destroy(NULL);
	sem_destroy(&done);
}
END_TEST

START_TEST(test_clocks)
{
	struct sched *s = sched_threads_create(1, "clock");
	uint64_t a = sched_now(s), b = sched_now(s);

	ck_assert(a <= b);
	/* After 2020, so it is the wall clock and in nanoseconds. */
	ck_assert(sched_realtime(s) > 1577836800 * NSEC_PER_SEC);
	sched_destroy(s);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("sched");
	TCase *tc = tcase_create("sched");

	tcase_add_test(tc, test_post_in_order);
	tcase_add_test(tc, test_post_again_from_run);
	tcase_add_test(tc, test_threads_have_names);
	tcase_add_test(tc, test_timers_run_by_due_time);
	tcase_add_test(tc, test_rearm_later);
	tcase_add_test(tc, test_disarm);
	tcase_add_test(tc, test_destroy);
	tcase_add_test(tc, test_clocks);
	suite_add_tcase(s, tc);
	return run_suite(s);
}
