// SPDX-License-Identifier: Apache-2.0
/* Time in nanoseconds. Code that must be testable asks its scheduler (core/sched.h) instead. */
#ifndef CORE_CLOCK_H
#define CORE_CLOCK_H

#include <stdint.h>
#include <time.h>

#define NSEC_PER_SEC 1000000000ull
#define NSEC_PER_MSEC 1000000ull
#define NSEC_PER_USEC 1000ull

static inline uint64_t clock_ns_(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return (uint64_t)ts.tv_sec * NSEC_PER_SEC + (uint64_t)ts.tv_nsec;
}

/* CLOCK_MONOTONIC. Any thread. */
static inline uint64_t clock_monotonic_ns(void)
{
	return clock_ns_(CLOCK_MONOTONIC);
}

/* CLOCK_REALTIME since the epoch, for what a person reads. Any thread. */
static inline uint64_t clock_realtime_ns(void)
{
	return clock_ns_(CLOCK_REALTIME);
}

#endif
