// SPDX-License-Identifier: Apache-2.0
/*
 * The control server of a daemon: HTTP/1.1 with JSON on a Unix socket, in a thread of its own.
 * Who may speak: the user the daemon runs as, and root (SO_PEERCRED); others get 403.
 *
 *   GET    /v1/status     the status object that `nearblk status --json` prints
 *   GET    /v1/volume     what a client needs to find and end a daemon: mountpoint, pid, phase …
 *   POST   /v1/jobs       {"kind": K, …} begins something that takes time → {"id": N}
 *   GET    /v1/jobs/N     its progress: {"state": "running"|"done"|"failed", …}
 *   DELETE /v1/jobs/N     its progress a last time; ends it if it runs, and forgets it
 *
 * Every error is {"error": TEXT} with 400 (not understood), 403, 404, 405, 409 (not now: busy), 413
 * (body over 64 KiB), 500 or 503 (too many jobs). A client that goes away leaves its jobs running:
 * the volume never depends on a client.
 */
#ifndef CONTROL_SERVER_H
#define CONTROL_SERVER_H

#include <jansson.h>

#include "core/err.h"

#define CONTROL_BODY_MAX (64u << 10)
#define CONTROL_JOBS_MAX 64u

/* All calls come from the server's thread, one at a time, and must not wait for disk or network. */
struct control_ops {
	/* New references; NULL: out of memory. */
	json_t *(*status)(void *ctx);
	json_t *(*volume)(void *ctx);
	/*
	 * Begin a job. @args is the request's object, lent for the call. 0 with *@ret_job, to be
	 * given to job_free() once; -EINVAL (unknown kind or bad arguments), -EBUSY, or another
	 * -errno, with @err.
	 */
	int (*job_start)(void *ctx, const char *kind, const json_t *args, void **ret_job,
			 struct err *err);
	/* A new object with at least "state"; NULL: out of memory. */
	json_t *(*job_progress)(void *ctx, void *job);
	/* End the job if it still runs, without waiting for what it waits for; then free it. */
	void (*job_free)(void *ctx, void *job);
};

struct control_server;

/*
 * Listen on @path (mode 0600; what is there already is replaced) and serve from a thread of its
 * own. @ops and @ctx are lent until control_server_stop(). 0, or -errno with @err.
 */
int control_server_start(const char *path, const struct control_ops *ops, void *ctx,
			 struct control_server **ret, struct err *err);

/*
 * Take no more requests, end the thread, give every job to job_free(), remove the socket, free.
 * NULL is fine. Not from the server's thread.
 */
void control_server_stop(struct control_server *server);

#endif
