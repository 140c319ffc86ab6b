// SPDX-License-Identifier: Apache-2.0
/*
 * Calls into libc that fail at the n-th time, for programs with real sockets, files and threads:
 * linked in, these stand before libc's, also for the libraries that the program uses. (What is
 * simulated fails by simdisk_fail() and the like.)
 */
#ifndef TESTS_LIB_FAIL_H
#define TESTS_LIB_FAIL_H

#include <stdbool.h>
#include <stdint.h>

enum fail_kind {
	FAIL_SOCKET = 1 << 0,  /* socket(), eventfd(), epoll_create1(), accept4() */
	FAIL_CONNECT = 1 << 1, /* also bind() and listen() */
	FAIL_SEND = 1 << 2,    /* on sockets, by any of its names */
	FAIL_RECV = 1 << 3,
	FAIL_OPEN = 1 << 4,
	FAIL_READ = 1 << 5, /* pread() and its kin */
	FAIL_WRITE = 1 << 6,
	FAIL_SYNC = 1 << 7,
	FAIL_THREAD = 1 << 8, /* pthread_create() */
	FAIL_MEMORY = 1 << 9, /* what the program's own code asks for, not a library */
	FAIL_ACCEPTED =
		1 << 10, /* SEND and RECV mean sockets that came from accept(), else others */
};

/*
 * Count calls of @kinds, by any thread; the @nth from now (from 1) fails with @error (positive, as
 * errno), with @always all after it too. 0 kinds: none.
 */
void fail_nth(unsigned kinds, uint64_t nth, int error, bool always);
/* How many failed since then: 0 ends a loop. */
uint64_t fail_hits(void);
/* This thread's calls are the test's own: not counted while @on. */
void fail_spare(bool on);
/* FAIL_MEMORY works in this build: a sanitizer brings its own malloc(). */
bool fail_has_memory(void);

#endif
