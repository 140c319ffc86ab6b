// SPDX-License-Identifier: Apache-2.0
/*
 * One connection to a target: one libiscsi context, from connect to close, used by one thread.
 *
 * What libiscsi 1.19 gets wrong is kept in this file: auto-reconnect is off, a context is never
 * served again after an error, nothing is ever cancelled or timed out inside the library, its
 * shared log buffer is only written under one lock, closing a lost connection resets it so that no
 * buffered WRITE leaves later.
 */
#ifndef TRANSPORT_ISCSI_CONN_H
#define TRANSPORT_ISCSI_CONN_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>

#include "core/err.h"
#include "transport/iscsi_pr.h"
#include "transport/iscsi_resolve.h"
#include "transport/iscsi_scsi.h"
#include "transport/leaf.h"

/* A command somebody waits for. */
struct iscsi_wait {
	bool done;
	int status;
	uint32_t response; /* of a task management function */
	struct scsi_task *task;
};

struct iscsi_conn {
	struct iscsi_context *ctx; /* NULL: closed */
	struct iscsi_negotiated negotiated;
	char address[ISCSI_ADDRESS_MAX]; /* numeric, of the peer */
	char reason[320];                /* why it broke or login failed */
	bool broken;                     /* must be dropped, nothing else */
	bool logging_in;
	int lun_field;
	int wake_fd;              /* readable: look at @abort; drained here; -1: none */
	const atomic_bool *abort; /* true: give up; may be NULL */
	struct iscsi_wait wait;
	uint8_t out[ISCSI_PR_OUT_BYTES]; /* what the command that is waited for sends */
	struct scsi_iovec out_iov;
};

/* What a login needs to know. */
struct iscsi_login {
	const struct leaf_config *conf;
	const struct url_portal *portal;
	const char *target; /* NULL: a discovery session */
	uint16_t lun;
	unsigned slot;        /* ISID = conf->isid_random + this */
	uint64_t deadline_ns; /* CLOCK_MONOTONIC */
};

/* Closed, nothing owned. */
void iscsi_conn_init(struct iscsi_conn *conn, int wake_fd, const atomic_bool *abort);

/*
 * Resolve, connect, log in; follows one redirection. 0, or with @err in words a person
 * understands:
 * -EADDRNOTAVAIL no such host; -ECONNREFUSED; -EHOSTUNREACH (and other network errors);
 * -ETIMEDOUT; -EACCES authentication failed; -ENOENT no such target; -EAGAIN the target cannot
 * now; -EPROTO any other refusal; -ECANCELED; -ENOMEM. The connection is closed after a failure.
 */
int iscsi_conn_open(struct iscsi_conn *conn, const struct iscsi_login *login, struct err *err);

/*
 * Events to poll for on iscsi_get_fd(); serve them. After each call look at conn->broken: once it
 * is true only iscsi_conn_drop() may follow.
 */
int iscsi_conn_events(struct iscsi_conn *conn);
void iscsi_conn_service(struct iscsi_conn *conn, int revents);

/*
 * Send @task (owned by the connection from here on) and wait. UNIT ATTENTION, BUSY and the like
 * are tried again until @deadline_ns. 0 with the answer in *ret_task, valid until the next call;
 * -EREMOTEIO: the target said no (*ret_sense says why); -EBUSY: a RESERVATION CONFLICT; -ETIMEDOUT,
 * -ECONNRESET, -ECANCELED: drop the connection. What @task sends must live as long as @conn.
 */
int iscsi_conn_run(struct iscsi_conn *conn, struct scsi_task *task, uint64_t deadline_ns,
		   struct scsi_task **ret_task, struct iscsi_sense *ret_sense);

/*
 * LUN RESET and its answer. Only with no command in flight. 0, -EOPNOTSUPP (the target does not
 * know it or refuses it: RFC 7143 11.6.1), or as iscsi_conn_run().
 */
int iscsi_conn_lun_reset(struct iscsi_conn *conn, uint64_t deadline_ns);

/* Serve the connection until *done, as iscsi_conn_run() does. For discovery. */
int iscsi_conn_wait(struct iscsi_conn *conn, uint64_t deadline_ns, const bool *done);

/* Log out if that is possible by @deadline_ns and no answer is outstanding, and close. */
void iscsi_conn_logout(struct iscsi_conn *conn, uint64_t deadline_ns);

/*
 * Reset the connection and free it. Commands still in flight get their callbacks with a status
 * that is none of SCSI's, or none at all. Safe on a closed one.
 */
void iscsi_conn_drop(struct iscsi_conn *conn);

/* True for the statuses that mean "the connection is gone", not "the target answered". */
bool iscsi_conn_lost(int status);

/* Read the sense data of @task (may be NULL), which ended with CHECK CONDITION. */
struct iscsi_sense iscsi_conn_sense(const struct scsi_task *task);

#endif
