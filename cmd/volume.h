// SPDX-License-Identifier: Apache-2.0
/*
 * A running daemon as the command line sees it: found by its mountpoint, spoken to over its socket.
 * Main thread.
 */
#ifndef CMD_VOLUME_H
#define CMD_VOLUME_H

#include <jansson.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "control/client.h"
#include "core/err.h"

struct volume {
	struct control_client *client;
	int pidfd; /* the daemon; -1 where the kernel has none */
	pid_t pid;
	uid_t uid; /* of the daemon and of the FUSE mount */
	gid_t gid;
	bool mounted; /* false: unmounted, the daemon still sends what is dirty */
	char mountpoint[PATH_MAX];
	char cache_dir[PATH_MAX];
};

/*
 * Find the daemon that serves @mountpoint (also MOUNTPOINT/disk.img). 0 with *@ret, to be closed;
 * -ENOENT: none does; another -errno; with @err.
 */
int volume_find(const char *mountpoint, struct volume *ret, struct err *err);

/*
 * Call @each with every daemon that answers; the volume is closed behind it. Non-zero from @each
 * ends the walk and is returned. -EIO: one that has a socket did not answer, which is said on
 * standard error; else 0.
 */
int volume_each(int (*each)(void *ctx, struct volume *v), void *ctx);

/* Free what it owns. A zeroed one must have pidfd -1. */
void volume_close(struct volume *v);

/* Wait up to @timeout_ns for the daemon's process to end; true if it did. Ends when interrupted. */
bool volume_wait_exit(struct volume *v, uint64_t timeout_ns);

enum job_end {
	JOB_DONE,
	JOB_FAILED,      /* the reply's "error" says why */
	JOB_TIMEOUT,     /* ended by us */
	JOB_INTERRUPTED, /* likewise */
	JOB_LOST,        /* the daemon went away or does not answer: @err */
	JOB_REFUSED,     /* it was not begun: @err */
};

/*
 * Begin the job @request (its reference is taken) and follow it to its end, at most until
 * @deadline_ns (CLOCK_MONOTONIC; UINT64_MAX: no limit). @show words the progress into one line.
 * *@ret_last (may be NULL) becomes a new reference to the last progress seen, or NULL.
 */
enum job_end volume_job(struct volume *v, json_t *request, uint64_t deadline_ns,
			void (*show)(const json_t *progress, char *text, size_t size),
			json_t **ret_last, struct err *err);

/*
 * Say on standard error that a job did not come to its end (@end is not JOB_DONE) and why, @suffix
 * behind it where the daemon is still there. @sends: the job was about dirty data, which stays.
 * Returns the exit status. @last may be NULL.
 */
int volume_not_done(struct volume *v, enum job_end end, const json_t *last, const struct err *err,
		    bool sends, const char *suffix);

/* "12 MiB (12582912 bytes)": what is left to send; @buf or a constant. */
const char *volume_left(const json_t *progress, char buf[48]);

/* Words for flush-like jobs: "12 MiB left, 3.4 MiB/s, 4 s to go". */
void volume_show_drain(const json_t *progress, char *text, size_t size);

/* A member as a number of bytes; UINT64_MAX when it is missing or null. */
uint64_t volume_bytes(const json_t *object, const char *key);

/* @timeout_ns from now as a deadline for volume_job(), UINT64_MAX when not @given. */
uint64_t volume_deadline(bool given, uint64_t timeout_ns);

#endif
