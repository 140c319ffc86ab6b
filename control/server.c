// SPDX-License-Identifier: Apache-2.0
/*
 * One thread (libmicrohttpd's) does all: it accepts, reads, calls the operations and answers. So
 * the table of jobs needs no lock: it is touched by that thread only, and by control_server_stop()
 * once the thread has ended.
 *
 * A request lives in struct request from its first callback to request_ended(). Jobs outlive
 * requests; when the table is full the oldest finished job makes room.
 */
#include "control/server.h"

#include <errno.h>
#include <microhttpd.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/parse.h"

#define IDLE_SECONDS 30u
#define CONNECTIONS_MAX 64u

struct job {
	uint64_t id; /* 0: the place is free */
	void *job;
};

struct control_server {
	const struct control_ops *ops;
	void *ctx;
	struct MHD_Daemon *http;
	uid_t owner;
	struct job job[CONTROL_JOBS_MAX]; /* of the server's thread */
	uint64_t next_id;                 /* likewise */
	char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
};

struct request {
	bool too_big;
	size_t length;
	char body[CONTROL_BODY_MAX];
};

/* Answer with @body, whose reference is taken; NULL stands for out of memory. */
static enum MHD_Result answer(struct MHD_Connection *c, unsigned status, json_t *body)
{
	cleanup_free char *text =
		body ? json_dumps(body, JSON_COMPACT | JSON_REAL_PRECISION(12)) : NULL;
	static char no_memory[] = "{\"error\": \"out of memory\"}";
	struct MHD_Response *response;
	enum MHD_Result r;

	json_decref(body);
	if (text)
		response =
			MHD_create_response_from_buffer(strlen(text), text, MHD_RESPMEM_MUST_COPY);
	else
		response = MHD_create_response_from_buffer(strlen(no_memory), no_memory,
							   MHD_RESPMEM_PERSISTENT);
	if (!response)
		return MHD_NO;
	MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, "application/json");
	r = MHD_queue_response(c, text ? status : MHD_HTTP_INTERNAL_SERVER_ERROR, response);
	MHD_destroy_response(response);
	return r;
}

static enum MHD_Result refuse(struct MHD_Connection *c, unsigned status, const char *why)
{
	return answer(c, status, json_pack("{s:s}", "error", why));
}

static bool peer_allowed(struct control_server *s, struct MHD_Connection *c)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(c, MHD_CONNECTION_INFO_CONNECTION_FD);
	struct ucred peer;
	socklen_t size = sizeof(peer);

	if (!info || getsockopt(info->connect_fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0)
		return false;
	return peer.uid == 0 || peer.uid == s->owner;
}

static bool job_finished(struct control_server *s, struct job *j)
{
	json_t *p = s->ops->job_progress(s->ctx, j->job);
	const char *state = json_string_value(json_object_get(p, "state"));
	bool finished = state && strcmp(state, "running") != 0;

	json_decref(p);
	return finished;
}

static void job_drop(struct control_server *s, struct job *j)
{
	s->ops->job_free(s->ctx, steal_ptr(j->job));
	j->id = 0;
}

/* A place in the table, or NULL: every job in it still runs. */
static struct job *job_place(struct control_server *s)
{
	struct job *oldest = NULL;

	for (size_t i = 0; i < CONTROL_JOBS_MAX; i++)
		if (!s->job[i].id)
			return &s->job[i];
	for (size_t i = 0; i < CONTROL_JOBS_MAX; i++)
		if ((!oldest || s->job[i].id < oldest->id) && job_finished(s, &s->job[i]))
			oldest = &s->job[i];
	if (oldest)
		job_drop(s, oldest);
	return oldest;
}

static struct job *job_find(struct control_server *s, const char *text)
{
	uint64_t id;

	if (parse_u64(text, &id) < 0 || !id)
		return NULL;
	for (size_t i = 0; i < CONTROL_JOBS_MAX; i++)
		if (s->job[i].id == id)
			return &s->job[i];
	return NULL;
}

static enum MHD_Result start_job(struct control_server *s, struct MHD_Connection *c,
				 struct request *rq)
{
	struct err err = { .text = "" };
	json_error_t where;
	json_t *args = json_loadb(rq->body, rq->length, JSON_REJECT_DUPLICATES, &where);
	const char *kind = json_string_value(json_object_get(args, "kind"));
	struct job *place;
	int r;

	if (!kind) {
		json_decref(args);
		return refuse(c, MHD_HTTP_BAD_REQUEST,
			      args ? "the body must be an object with a \"kind\""
				   : "the body is not JSON");
	}
	place = job_place(s);
	if (!place) {
		json_decref(args);
		return refuse(c, MHD_HTTP_SERVICE_UNAVAILABLE, "too many jobs are running");
	}
	r = s->ops->job_start(s->ctx, kind, args, &place->job, &err);
	json_decref(args);
	if (r < 0)
		return refuse(c,
			      r == -EINVAL  ? MHD_HTTP_BAD_REQUEST
			      : r == -EBUSY ? MHD_HTTP_CONFLICT
					    : MHD_HTTP_INTERNAL_SERVER_ERROR,
			      err.text[0] ? err.text : strerror(-r));
	place->id = s->next_id++;
	return answer(c, MHD_HTTP_CREATED, json_pack("{s:I}", "id", (json_int_t)place->id));
}

static enum MHD_Result one_job(struct control_server *s, struct MHD_Connection *c,
			       const char *method, const char *id)
{
	struct job *j = job_find(s, id);
	bool get = strcmp(method, MHD_HTTP_METHOD_GET) == 0;
	json_t *progress;

	if (!get && strcmp(method, MHD_HTTP_METHOD_DELETE) != 0)
		return refuse(c, MHD_HTTP_METHOD_NOT_ALLOWED, "a job takes GET and DELETE");
	if (!j)
		return refuse(c, MHD_HTTP_NOT_FOUND, "no such job");
	progress = s->ops->job_progress(s->ctx, j->job);
	if (!get)
		job_drop(s, j);
	return answer(c, MHD_HTTP_OK, progress);
}

static enum MHD_Result dispatch(struct control_server *s, struct MHD_Connection *c,
				const char *method, const char *url, struct request *rq)
{
	static const char jobs[] = "/v1/jobs";
	bool get = strcmp(method, MHD_HTTP_METHOD_GET) == 0;

	if (strcmp(url, "/v1/status") == 0 || strcmp(url, "/v1/volume") == 0) {
		if (!get)
			return refuse(c, MHD_HTTP_METHOD_NOT_ALLOWED, "only GET works here");
		return answer(c, MHD_HTTP_OK,
			      strcmp(url, "/v1/status") == 0 ? s->ops->status(s->ctx)
							     : s->ops->volume(s->ctx));
	}
	if (strcmp(url, jobs) == 0) {
		if (strcmp(method, MHD_HTTP_METHOD_POST) != 0)
			return refuse(c, MHD_HTTP_METHOD_NOT_ALLOWED, "only POST works here");
		return start_job(s, c, rq);
	}
	if (strncmp(url, jobs, sizeof(jobs) - 1) == 0 && url[sizeof(jobs) - 1] == '/')
		return one_job(s, c, method, url + sizeof(jobs));
	return refuse(c, MHD_HTTP_NOT_FOUND, "no such path");
}

static enum MHD_Result handle(void *ctx, struct MHD_Connection *c, const char *url,
			      const char *method, const char *version, const char *upload,
			      size_t *upload_size, void **state)
{
	struct control_server *s = ctx;
	struct request *rq = *state;

	(void)version;
	if (!rq) {
		const char *length = MHD_lookup_connection_value(c, MHD_HEADER_KIND,
								 MHD_HTTP_HEADER_CONTENT_LENGTH);
		uint64_t n;

		if (!peer_allowed(s, c))
			return refuse(c, MHD_HTTP_FORBIDDEN,
				      "only the volume's user and root may do this");
		if (length && (parse_u64(length, &n) < 0 || n > CONTROL_BODY_MAX))
			return refuse(c, MHD_HTTP_CONTENT_TOO_LARGE, "the body is over 64 KiB");
		rq = malloc(sizeof(*rq));
		if (!rq)
			return MHD_NO;
		rq->too_big = false;
		rq->length = 0;
		*state = rq;
		return MHD_YES;
	}
	if (*upload_size) {
		if (*upload_size > sizeof(rq->body) - rq->length) {
			rq->too_big = true;
		} else {
			memcpy(rq->body + rq->length, upload, *upload_size);
			rq->length += *upload_size;
		}
		*upload_size = 0;
		return MHD_YES;
	}
	if (rq->too_big)
		return refuse(c, MHD_HTTP_CONTENT_TOO_LARGE, "the body is over 64 KiB");
	return dispatch(s, c, method, url, rq);
}

static void request_ended(void *ctx, struct MHD_Connection *c, void **state,
			  enum MHD_RequestTerminationCode code)
{
	(void)ctx;
	(void)c;
	(void)code;
	free(steal_ptr(*state));
}

static int listen_at(const char *path, struct err *err)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	cleanup_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	mode_t before;
	int r;

	if (fd < 0)
		return err_set(err, -errno, "control socket: %s", strerror(errno));
	if (strlen(path) >= sizeof(addr.sun_path))
		return err_set(err, -ENAMETOOLONG, "%s: too long for a socket", path);
	strcpy(addr.sun_path, path);
	unlink(path);
	/* The socket is born with its mode: there is no moment in which others could connect. */
	before = umask(0177);
	r = bind(fd, (struct sockaddr *)&addr, sizeof(addr));
	umask(before);
	if (r < 0 || listen(fd, 32) < 0)
		return err_set(err, -errno, "control socket %s: %s", path, strerror(errno));
	return steal_fd(fd);
}

int control_server_start(const char *path, const struct control_ops *ops, void *ctx,
			 struct control_server **ret, struct err *err)
{
	cleanup_free struct control_server *s = calloc(1, sizeof(*s));
	cleanup_close int fd = -1;

	if (!s)
		return err_set(err, -ENOMEM, "out of memory");
	s->ops = ops;
	s->ctx = ctx;
	s->owner = geteuid();
	s->next_id = 1;
	fd = listen_at(path, err);
	if (fd < 0)
		return fd;
	strcpy(s->path, path);
	s->http =
		MHD_start_daemon(MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_EPOLL | MHD_USE_ITC, 0,
				 NULL, NULL, handle, s, MHD_OPTION_LISTEN_SOCKET, fd,
				 MHD_OPTION_CONNECTION_LIMIT, CONNECTIONS_MAX,
				 MHD_OPTION_CONNECTION_TIMEOUT, IDLE_SECONDS,
				 MHD_OPTION_NOTIFY_COMPLETED, request_ended, NULL, MHD_OPTION_END);
	if (!s->http) {
		unlink(path);
		return err_set(err, -EIO, "the control server did not start on %s", path);
	}
	steal_fd(fd); /* closed by MHD_stop_daemon() */
	*ret = steal_ptr(s);
	return 0;
}

void control_server_stop(struct control_server *s)
{
	if (!s)
		return;
	unlink(s->path);
	MHD_stop_daemon(s->http);
	for (size_t i = 0; i < CONTROL_JOBS_MAX; i++)
		if (s->job[i].id)
			job_drop(s, &s->job[i]);
	free(s);
}
