// SPDX-License-Identifier: Apache-2.0
/*
 * Scope-bound clean-up: attributes that release what a variable owns when it
 * leaves scope, and a lock guard. Pure macros, no state, usable everywhere.
 */
#ifndef CORE_CLEANUP_H
#define CORE_CLEANUP_H

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static inline void cleanup_freep(void *p)
{
	free(*(void **)p);
}

static inline void cleanup_closep(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

static inline void cleanup_fclosep(FILE **f)
{
	if (*f)
		fclose(*f);
}

static inline pthread_mutex_t *guard_lock_(pthread_mutex_t *m)
{
	pthread_mutex_lock(m);
	return m;
}

static inline void guard_unlockp_(pthread_mutex_t **m)
{
	pthread_mutex_unlock(*m);
}

/* free() the pointer at the end of the scope. */
#define cleanup_free __attribute__((cleanup(cleanup_freep)))
/* close() the descriptor, if it is not negative. */
#define cleanup_close __attribute__((cleanup(cleanup_closep)))
/* fclose() the stream, if it is not NULL. */
#define cleanup_fclose __attribute__((cleanup(cleanup_fclosep)))

#define GUARD_CAT_(a, b) a##b
#define GUARD_NAME_(line) GUARD_CAT_(guard_, line)
/* Hold @m from here to the end of the enclosing scope. */
#define guard(m)                                                                                   \
	pthread_mutex_t *GUARD_NAME_(__LINE__) __attribute__((cleanup(guard_unlockp_), unused)) =  \
		guard_lock_(m)

/* Take the value out of an owning pointer: what follows owns it instead. */
#define steal_ptr(p)                                                                               \
	({                                                                                         \
		__typeof__(p) *steal_from_ = &(p);                                                 \
		__typeof__(p) steal_value_ = *steal_from_;                                         \
		*steal_from_ = NULL;                                                               \
		steal_value_;                                                                      \
	})

/* The same for a descriptor: the variable becomes -1. */
#define steal_fd(fd)                                                                               \
	({                                                                                         \
		int *steal_from_ = &(fd);                                                          \
		int steal_value_ = *steal_from_;                                                   \
		*steal_from_ = -1;                                                                 \
		steal_value_;                                                                      \
	})

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

#define MIN(a, b)                                                                                  \
	({                                                                                         \
		__typeof__(a) min_a_ = (a);                                                        \
		__typeof__(b) min_b_ = (b);                                                        \
		min_a_ < min_b_ ? min_a_ : min_b_;                                                 \
	})
#define MAX(a, b)                                                                                  \
	({                                                                                         \
		__typeof__(a) max_a_ = (a);                                                        \
		__typeof__(b) max_b_ = (b);                                                        \
		max_a_ > max_b_ ? max_a_ : max_b_;                                                 \
	})

#endif
