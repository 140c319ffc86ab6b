// SPDX-License-Identifier: Apache-2.0
#include "transport/iscsi_conn.h"

#include <ctype.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "core/cleanup.h"
#include "core/clock.h"
#include "policy/backoff.h"

/*
 * One address gets this long to accept a connection: the SYN goes out after 0, 1 and 3 s, and a new
 * attempt finds a link that came back sooner than the next repetition would.
 */
#define CONNECT_NS (4 * NSEC_PER_SEC)
/* Data the kernel may hold unsent: less of it in the way of what is more urgent. */
#define NOTSENT_LOWAT (128 << 10)
/* The kernel gives up on a peer that acknowledges nothing. */
#define USER_TIMEOUT_MS 20000

/*
 * libiscsi formats its log messages into one static buffer. Only contexts that are logging in
 * write messages (that is how the negotiated values are learned), and they are served under this
 * lock; never held while waiting.
 */
static pthread_mutex_t log_buffer_lock = PTHREAD_MUTEX_INITIALIZER;
static _Thread_local struct iscsi_conn *logging; /* the one that is served now */

static void on_log(int level, const char *message)
{
	(void)level;
	if (logging)
		iscsi_negotiated_line(&logging->negotiated, message);
}

void iscsi_conn_init(struct iscsi_conn *conn, int wake_fd, const atomic_bool *abort)
{
	*conn = (struct iscsi_conn){ .wake_fd = wake_fd, .abort = abort };
}

bool iscsi_conn_lost(int status)
{
	return status == SCSI_STATUS_CANCELLED || status == SCSI_STATUS_ERROR ||
	       status == SCSI_STATUS_TIMEOUT;
}

struct iscsi_sense iscsi_conn_sense(const struct scsi_task *task)
{
	struct iscsi_sense sense = { 0 };

	/* libiscsi leaves the response's data segment here: two bytes of length, then sense data */
	if (task && task->datain.data && task->datain.size > 2)
		iscsi_scsi_sense(task->datain.data + 2, (size_t)task->datain.size - 2, &sense);
	return sense;
}

static void break_conn(struct iscsi_conn *conn, const char *reason)
{
	if (conn->broken)
		return;
	conn->broken = true;
	snprintf(conn->reason, sizeof(conn->reason), "%s", reason);
}

int iscsi_conn_events(struct iscsi_conn *conn)
{
	return iscsi_which_events(conn->ctx) | POLLRDHUP;
}

/* The connection is over although libiscsi has not seen it. */
static bool hung_up(struct iscsi_conn *conn, int revents)
{
	int fd = iscsi_get_fd(conn->ctx), error = 0;
	socklen_t size = sizeof(error);
	char byte;

	if (revents & (POLLERR | POLLHUP | POLLNVAL)) {
		if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 && error) {
			errno = error;
			break_conn(conn, strerror(error));
			return true;
		}
		errno = ECONNRESET;
		break_conn(conn, "connection closed");
		return true;
	}
	if (!(revents & POLLRDHUP))
		return false;
	/* What arrived before the end is still worth reading. */
	if (recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0)
		return false;
	errno = ECONNRESET;
	break_conn(conn, "closed by the target");
	return true;
}

void iscsi_conn_service(struct iscsi_conn *conn, int revents)
{
	int r;

	if (conn->broken || hung_up(conn, revents))
		return;
	revents &= POLLIN | POLLOUT;
	if (conn->logging_in) {
		guard(&log_buffer_lock);
		logging = conn;
		r = iscsi_service(conn->ctx, revents);
		logging = NULL;
	} else {
		r = iscsi_service(conn->ctx, revents);
	}
	/*
	 * An error of a logged-in context shows in the callbacks of its commands, and only the call
	 * after the first one fails; but that one must not be made.
	 */
	if (r < 0 || (!conn->logging_in && !iscsi_is_logged_in(conn->ctx))) {
		const char *why = iscsi_get_error(conn->ctx);

		break_conn(conn, *why ? why : "connection lost");
	}
}

int iscsi_conn_wait(struct iscsi_conn *conn, uint64_t deadline_ns, const bool *done)
{
	while (!*done) {
		uint64_t now = clock_monotonic_ns();
		struct pollfd p[2] = { { .fd = iscsi_get_fd(conn->ctx) },
				       { .fd = conn->wake_fd, .events = POLLIN } };
		int timeout_ms;

		if (conn->abort && atomic_load(conn->abort))
			return -ECANCELED;
		if (conn->broken)
			return -ECONNRESET;
		if (now >= deadline_ns)
			return -ETIMEDOUT;
		p[0].events = (short)iscsi_conn_events(conn);
		timeout_ms = (int)MIN((deadline_ns - now) / NSEC_PER_MSEC + 1, (uint64_t)1000);
		if (poll(p, 2, timeout_ms) < 0 && errno != EINTR)
			return -errno;
		if (p[1].revents & POLLIN) {
			uint64_t count;

			if (read(conn->wake_fd, &count, sizeof(count)) < 0 && errno != EAGAIN)
				return -errno;
		}
		iscsi_conn_service(conn, p[0].revents);
	}
	return 0;
}

static void on_event(struct iscsi_context *ctx, int status, void *data, void *ctx_data)
{
	struct iscsi_conn *conn = ctx_data;

	(void)ctx;
	(void)data;
	conn->wait.status = status;
	conn->wait.done = true;
}

static uint32_t isid_random(const struct leaf_config *conf)
{
	/* RFC 7143 11.12.5: type 10b, 24 random bits, 16 bits of qualifier: isid_random[0] and
	 * slot. */
	return (uint32_t)conf->isid_random[1] << 16 | (uint32_t)conf->isid_random[2] << 8 |
	       conf->isid_random[3];
}

static int make_context(struct iscsi_conn *conn, const struct iscsi_login *login, struct err *err)
{
	const struct leaf_config *conf = login->conf;
	const struct leaf_credentials *c = &conf->credentials;
	struct iscsi_context *ctx;

	guard(&log_buffer_lock);
	ctx = iscsi_create_context(conf->initiator_name);
	if (!ctx)
		return err_set(err, -ENOMEM, "out of memory for an iSCSI connection");
	conn->ctx = ctx;
	if (conf->url.scheme == URL_ISER && iscsi_init_transport(ctx, ISER_TRANSPORT) != 0)
		return err_set(err, -EPROTO, "libiscsi was built without iSER; use iscsi://");
	iscsi_set_noautoreconnect(ctx, 1);
	iscsi_set_tcp_user_timeout(ctx, USER_TIMEOUT_MS);
	iscsi_set_isid_random(ctx, isid_random(conf),
			      (uint32_t)conf->isid_random[0] << 8 | (login->slot & 0xff));
	iscsi_set_header_digest(ctx, conf->header_digest ? ISCSI_HEADER_DIGEST_CRC32C_NONE
							 : ISCSI_HEADER_DIGEST_NONE);
	if (login->target)
		iscsi_set_targetname(ctx, login->target);
	iscsi_set_session_type(ctx, login->target ? ISCSI_SESSION_NORMAL : ISCSI_SESSION_DISCOVERY);
	if (c->username[0])
		iscsi_set_initiator_username_pwd(ctx, c->username, c->password);
	if (c->username_in[0])
		iscsi_set_target_username_pwd(ctx, c->username_in, c->password_in);
	iscsi_set_log_fn(ctx, on_log);
	iscsi_set_log_level(ctx, 6);
	return 0;
}

static int connect_error(const struct iscsi_login *login, const char *address, int error,
			 struct err *err)
{
	if (error == ECONNREFUSED)
		return err_set(err, -ECONNREFUSED,
			       "%s (%s) refused the connection: is the target running, and is this "
			       "its port?",
			       login->portal->host, address);
	return err_set(err, -EHOSTUNREACH, "cannot connect to %s (%s): %s", login->portal->host,
		       address, strerror(error));
}

static int start_connect(struct iscsi_conn *conn, const struct iscsi_login *login,
			 const char *address, uint64_t deadline_ns, struct err *err)
{
	int r, lowat = NOTSENT_LOWAT, fd;

	conn->wait = (struct iscsi_wait){ .done = false };
	snprintf(conn->address, sizeof(conn->address), "%s", address);
	errno = 0;
	pthread_mutex_lock(&log_buffer_lock);
	r = iscsi_connect_async(conn->ctx, address, on_event, conn);
	pthread_mutex_unlock(&log_buffer_lock);
	if (r != 0)
		return connect_error(login, address, errno ? errno : EHOSTUNREACH, err);
	fd = iscsi_get_fd(conn->ctx);
	/* Fails on an iSER event channel, which needs none of it. */
	setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &lowat, sizeof(lowat));
	errno = 0;
	r = iscsi_conn_wait(conn, deadline_ns, &conn->wait.done);
	if (r == -ETIMEDOUT)
		return err_set(err, r, "%s (%s) does not answer", login->portal->host, address);
	if (r == -ECANCELED)
		return r;
	if (r < 0 || conn->wait.status != SCSI_STATUS_GOOD)
		return connect_error(login, address, errno ? errno : EHOSTUNREACH, err);
	return 0;
}

/* "…. Status: Target not found(515)" → 0x0203; 0 where there is none. */
static unsigned login_status(const char *text)
{
	const char *at = strstr(text, "Status: ");
	unsigned status = 0;

	at = at ? strrchr(at, '(') : NULL;
	if (at)
		sscanf(at, "(%u)", &status);
	return status;
}

static int login_error(struct iscsi_conn *conn, const struct iscsi_login *login, int r,
		       struct err *err)
{
	const char *said = iscsi_get_error(conn->ctx);
	const char *where = login->portal->host;
	bool chap = login->conf->credentials.username[0];

	if (r == -ECANCELED)
		return r;
	if (r == -ETIMEDOUT)
		return err_set(err, r, "%s accepted the connection but did not finish the login",
			       where);
	if (strstr(said, "CHAP_R") || strstr(said, "CHAP_N") || strstr(said, "CHAP targetname"))
		return err_set(err, -EACCES,
			       "%s failed to authenticate itself: username_in or password_in do "
			       "not match the target's own CHAP name and secret",
			       where);
	switch (login_status(said)) {
	case 0x0201:
	case 0x0202:
		if (chap)
			return err_set(err, -EACCES,
				       "%s refused the CHAP user name or password for user '%s'",
				       where, login->conf->credentials.username);
		return err_set(err, -EACCES,
			       "%s wants CHAP authentication or does not admit the initiator "
			       "name %s; give the user name and password with --credentials",
			       where, login->conf->initiator_name);
	case 0x0203:
	case 0x0204:
		return err_set(err, -ENOENT,
			       "target %s does not exist at %s; 'nearblk discover' lists those "
			       "that do",
			       login->target ? login->target : "", where);
	case 0x0206:
	case 0x0300 ... 0x03ff:
		return err_set(err, -EAGAIN, "%s cannot take the session now: %s", where, said);
	default:
		if (r == -ECONNRESET && !*said)
			said = conn->reason;
		return err_set(err, -EPROTO, "login at %s failed: %s%s", where, said,
			       chap ? " (wrong CHAP user name or password?)" : "");
	}
}

static int do_login(struct iscsi_conn *conn, const struct iscsi_login *login, struct err *err)
{
	int r;

	conn->wait = (struct iscsi_wait){ .done = false };
	iscsi_negotiated_init(&conn->negotiated);
	pthread_mutex_lock(&log_buffer_lock);
	r = iscsi_login_async(conn->ctx, on_event, conn);
	pthread_mutex_unlock(&log_buffer_lock);
	if (r != 0)
		return err_set(err, -EPROTO, "cannot log in: %s", iscsi_get_error(conn->ctx));
	r = iscsi_conn_wait(conn, login->deadline_ns, &conn->wait.done);
	if (r == 0 && conn->wait.status == SCSI_STATUS_REDIRECT)
		return 1;
	if (r < 0 || conn->wait.status != SCSI_STATUS_GOOD)
		return login_error(conn, login, r, err);
	pthread_mutex_lock(&log_buffer_lock);
	iscsi_set_log_level(conn->ctx, 0);
	pthread_mutex_unlock(&log_buffer_lock);
	conn->logging_in = false;
	return 0;
}

/* 0, -errno, or 1 with the address the target points to in conn->address. */
static int open_address(struct iscsi_conn *conn, const struct iscsi_login *login,
			const char *address, uint64_t connect_deadline_ns, struct err *err)
{
	char text[ISCSI_ADDRESS_MAX];
	int r;

	snprintf(text, sizeof(text), "%s", address);
	iscsi_conn_drop(conn);
	conn->broken = false;
	conn->logging_in = true;
	conn->lun_field = iscsi_scsi_lun_field(login->lun);
	r = make_context(conn, login, err);
	if (r == 0)
		r = start_connect(conn, login, text, connect_deadline_ns, err);
	if (r == 0)
		r = do_login(conn, login, err);
	if (r == 1)
		snprintf(conn->address, sizeof(conn->address), "%.79s",
			 iscsi_get_target_address(conn->ctx));
	if (r != 0)
		iscsi_conn_drop(conn);
	return r;
}

int iscsi_conn_open(struct iscsi_conn *conn, const struct iscsi_login *login, struct err *err)
{
	struct iscsi_addresses found;
	const char *why = "";
	int r = iscsi_resolve(login->portal->host, login->portal->port, login->deadline_ns,
			      conn->abort, &found, &why);

	if (r == -EADDRNOTAVAIL)
		return err_set(err, r, "cannot resolve host name '%s': %s", login->portal->host,
			       why);
	if (r == -ETIMEDOUT)
		return err_set(err, r, "the name server did not answer for '%s'",
			       login->portal->host);
	if (r < 0)
		return err_set(err, r, "cannot resolve '%s': %s", login->portal->host,
			       strerror(-r));
	for (unsigned i = 0; i < found.count; i++) {
		uint64_t deadline = MIN(login->deadline_ns, clock_monotonic_ns() + CONNECT_NS);
		struct err before = *err;
		int earlier = i ? r : 0;

		r = open_address(conn, login, found.text[i], deadline, err);
		/* A target that moved says so by number or by name; it may do that once. */
		if (r == 1) {
			char moved[ISCSI_ADDRESS_MAX];

			snprintf(moved, sizeof(moved), "%s", conn->address);
			r = open_address(conn, login, moved, login->deadline_ns, err);
		}
		if (r == 1)
			r = err_set(err, -EPROTO, "%s redirects in circles", login->portal->host);
		if (r == 0 || (r != -ECONNREFUSED && r != -EHOSTUNREACH && r != -ETIMEDOUT))
			return r;
		/* "Refused" is said only if each address said it: then nobody is there. */
		if (r == -ECONNREFUSED && earlier && earlier != r) {
			r = earlier;
			*err = before;
		}
	}
	return r;
}

static void on_answer(struct iscsi_context *ctx, int status, void *data, void *ctx_data)
{
	struct iscsi_conn *conn = ctx_data;

	(void)ctx;
	conn->wait.status = status;
	if (iscsi_conn_lost(status)) {
		const char *why = iscsi_get_error(ctx);

		break_conn(conn, *why ? why : "connection lost");
		return;
	}
	if (data && !conn->wait.task)
		conn->wait.response = *(uint32_t *)data;
	conn->wait.done = true;
}

static void free_wait_task(struct iscsi_conn *conn)
{
	if (conn->wait.task)
		scsi_free_scsi_task(conn->wait.task);
	conn->wait.task = NULL;
}

static struct scsi_task *copy_task(const struct scsi_task *task)
{
	unsigned char cdb[SCSI_CDB_MAX_SIZE];

	struct scsi_task *copy;

	memcpy(cdb, task->cdb, sizeof(cdb));
	copy = scsi_create_task(task->cdb_size, cdb, task->xfer_dir, task->expxferlen);
	if (copy && task->xfer_dir == SCSI_XFER_WRITE)
		scsi_task_set_iov_out(copy, task->iovector_out.iov, task->iovector_out.niov);
	return copy;
}

/* A pause in which the connection is served. */
static int pause_for(struct iscsi_conn *conn, uint64_t ns, uint64_t deadline_ns)
{
	const bool never = false;
	uint64_t until = MIN(deadline_ns, clock_monotonic_ns() + ns);
	int r = iscsi_conn_wait(conn, until, &never);

	return r == -ETIMEDOUT && clock_monotonic_ns() < deadline_ns ? 0 : r;
}

int iscsi_conn_run(struct iscsi_conn *conn, struct scsi_task *task, uint64_t deadline_ns,
		   struct scsi_task **ret_task, struct iscsi_sense *ret_sense)
{
	struct backoff pause = { .min_ns = 8 * NSEC_PER_MSEC, .max_ns = NSEC_PER_SEC };

	free_wait_task(conn);
	if (!task)
		return -ENOMEM;
	for (;;) {
		struct iscsi_verdict v;
		struct scsi_task *again;
		int r;

		conn->wait = (struct iscsi_wait){ .task = task };
		if (conn->broken || iscsi_scsi_command_async(conn->ctx, conn->lun_field, task,
							     on_answer, NULL, conn) != 0)
			return -ECONNRESET;
		r = iscsi_conn_wait(conn, deadline_ns, &conn->wait.done);
		if (r < 0)
			return r;
		*ret_sense = conn->wait.status == SCSI_STATUS_CHECK_CONDITION
				     ? iscsi_conn_sense(task)
				     : (struct iscsi_sense){ 0 };
		v = iscsi_scsi_judge((unsigned)conn->wait.status, ret_sense);
		if (v.action == ISCSI_DONE) {
			*ret_task = task;
			return 0;
		}
		if (v.action == ISCSI_CONFLICT)
			return -EBUSY;
		if (v.action == ISCSI_FAIL || v.action == ISCSI_UNSUPPORTED ||
		    v.action == ISCSI_RECONNECT)
			return -EREMOTEIO;
		if (v.action == ISCSI_RETRY_LATER || v.action == ISCSI_RETRY_LIMITED) {
			r = pause_for(conn, backoff_next_ns(&pause, clock_monotonic_ns()),
				      deadline_ns);
			if (r < 0)
				return r;
		}
		again = copy_task(task);
		free_wait_task(conn);
		task = again;
		if (!task)
			return -ENOMEM;
		if (clock_monotonic_ns() >= deadline_ns) {
			scsi_free_scsi_task(task);
			return -ETIMEDOUT;
		}
	}
}

int iscsi_conn_lun_reset(struct iscsi_conn *conn, uint64_t deadline_ns)
{
	int r;

	free_wait_task(conn);
	conn->wait = (struct iscsi_wait){ .done = false };
	if (conn->broken || iscsi_task_mgmt_lun_reset_async(conn->ctx, (uint32_t)conn->lun_field,
							    on_answer, conn) != 0)
		return -ECONNRESET;
	r = iscsi_conn_wait(conn, deadline_ns, &conn->wait.done);
	if (r < 0)
		return r;
	return conn->wait.response == ISCSI_TMR_FUNC_COMPLETE ? 0 : -EOPNOTSUPP;
}

void iscsi_conn_logout(struct iscsi_conn *conn, uint64_t deadline_ns)
{
	/* A command without its answer is still in the library's hands: no logout beside it. */
	bool waits = conn->wait.task && !conn->wait.done;

	if (conn->ctx && !conn->broken && !conn->logging_in && !waits) {
		free_wait_task(conn);
		conn->wait = (struct iscsi_wait){ .done = false };
		conn->abort = NULL;
		/* From here on "not logged in" is no error. */
		conn->logging_in = true;
		if (iscsi_logout_async(conn->ctx, on_event, conn) == 0)
			iscsi_conn_wait(conn, deadline_ns, &conn->wait.done);
	}
	iscsi_conn_drop(conn);
}

void iscsi_conn_drop(struct iscsi_conn *conn)
{
	struct linger reset = { .l_onoff = 1, .l_linger = 0 };

	if (conn->ctx) {
		int fd = iscsi_get_fd(conn->ctx);

		if (fd >= 0)
			setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
		pthread_mutex_lock(&log_buffer_lock);
		iscsi_destroy_context(conn->ctx);
		pthread_mutex_unlock(&log_buffer_lock);
		conn->ctx = NULL;
	}
	/* Only now: the library may look at a task until its context is gone. */
	free_wait_task(conn);
	conn->broken = true;
}
