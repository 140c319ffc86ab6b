// SPDX-License-Identifier: Apache-2.0
/* Server and client over a socket in a directory of the test's own, with jobs that only count. */
#include "control/server.h"

#include <check.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "control/client.h"
#include "control/socket.h"
#include "core/cleanup.h"
#include "core/clock.h"
#include "tests/lib/run.h"

#define TIMEOUT_NS (20 * NSEC_PER_SEC)

static char dir[64];
static char path[CONTROL_PATH_MAX];
static struct control_server *server;
static struct control_client *client;
static _Atomic int live_jobs;
static _Atomic bool finish; /* jobs say they are done */

static json_t *fake_status(void *ctx)
{
	return json_pack("{s:s, s:n}", "state", "clean", "rtt");
}

static json_t *fake_volume(void *ctx)
{
	return json_pack("{s:i}", "pid", (int)getpid());
}

static int fake_start(void *ctx, const char *kind, const json_t *args, void **ret_job,
		      struct err *err)
{
	if (strcmp(kind, "busy") == 0)
		return err_set(err, -EBUSY, "held by 17 (bash)");
	if (strcmp(kind, "flush") != 0)
		return err_set(err, -EINVAL, "unknown kind %s", kind);
	*ret_job = malloc(1);
	live_jobs++;
	return 0;
}

static json_t *fake_progress(void *ctx, void *job)
{
	return json_pack("{s:s}", "state", finish ? "done" : "running");
}

static void fake_free(void *ctx, void *job)
{
	live_jobs--;
	free(job);
}

static const struct control_ops ops = { fake_status, fake_volume, fake_start, fake_progress,
					fake_free };

static void setup(void)
{
	struct err err = { .text = "" };

	strcpy(dir, "/tmp/nearblk-ctl-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	setenv("NEARBLK_RUNTIME_DIR", dir, 1);
	ck_assert_int_eq(control_socket_path("/var/lib/nearblk/x", NULL, path, &err), 0);
	finish = false;
	live_jobs = 0;
	ck_assert_msg(control_server_start(path, &ops, NULL, &server, &err) == 0, "%s", err.text);
	client = control_client_create(path, TIMEOUT_NS);
}

static void teardown(void)
{
	control_client_destroy(client);
	control_server_stop(server);
	server = NULL;
	ck_assert_int_eq(live_jobs, 0);
	ck_assert_int_eq(access(path, F_OK), -1);
	rmdir(dir);
}

static int call(const char *method, const char *url, const char *body, json_t **ret,
		struct err *err)
{
	json_t *b = body ? json_loads(body, 0, NULL) : NULL;
	int r = control_call(client, method, url, b, ret, err);

	json_decref(b);
	return r;
}

START_TEST(test_calls)
{
	struct err err;
	json_t *reply = NULL;

	ck_assert_int_eq(call("GET", "/v1/status", NULL, &reply, &err), 0);
	ck_assert_str_eq(json_string_value(json_object_get(reply, "state")), "clean");
	ck_assert(json_is_null(json_object_get(reply, "rtt")));
	json_decref(reply);
	ck_assert_int_eq(call("GET", "/v1/volume", NULL, NULL, &err), 0);

	ck_assert_int_eq(call("GET", "/", NULL, NULL, &err), -ENOENT);
	ck_assert_int_eq(call("GET", "/v1/statu", NULL, NULL, &err), -ENOENT);
	ck_assert_int_eq(call("GET", "/v1/jobs/", NULL, NULL, &err), -ENOENT);
	ck_assert_int_eq(call("GET", "/v1/jobs/99", NULL, NULL, &err), -ENOENT);
	ck_assert_int_eq(call("GET", "/v1/jobs/0", NULL, NULL, &err), -ENOENT);
	ck_assert_int_eq(call("GET", "/v1/jobs/1x", NULL, NULL, &err), -ENOENT);
	ck_assert_int_eq(call("POST", "/v1/status", "{}", NULL, &err), -EINVAL);
	ck_assert_int_eq(call("GET", "/v1/jobs", NULL, NULL, &err), -EINVAL);
	ck_assert_int_eq(call("POST", "/v1/jobs", "{}", NULL, &err), -EINVAL);
	ck_assert_int_eq(call("POST", "/v1/jobs", "[1]", NULL, &err), -EINVAL);
	ck_assert_int_eq(call("POST", "/v1/jobs", "{\"kind\": 4}", NULL, &err), -EINVAL);
	ck_assert_int_eq(call("POST", "/v1/jobs", "{\"kind\": \"what\"}", NULL, &err), -EINVAL);
	ck_assert_str_eq(err.text, "unknown kind what");
	ck_assert_int_eq(call("POST", "/v1/jobs", "{\"kind\": \"busy\"}", NULL, &err), -EBUSY);
	ck_assert_str_eq(err.text, "held by 17 (bash)");
}
END_TEST

static json_int_t begin(void)
{
	struct err err;
	json_t *reply;
	json_int_t id;

	ck_assert_int_eq(call("POST", "/v1/jobs", "{\"kind\": \"flush\"}", &reply, &err), 0);
	id = json_integer_value(json_object_get(reply, "id"));
	json_decref(reply);
	return id;
}

START_TEST(test_jobs)
{
	struct err err;
	char url[64];
	json_t *reply;
	json_int_t first = begin();

	ck_assert_int_eq(live_jobs, 1);
	snprintf(url, sizeof(url), "/v1/jobs/%lld", (long long)first);
	ck_assert_int_eq(call("GET", url, NULL, &reply, &err), 0);
	ck_assert_str_eq(json_string_value(json_object_get(reply, "state")), "running");
	json_decref(reply);
	ck_assert_int_eq(call("POST", url, "{}", NULL, &err), -EINVAL);
	ck_assert_int_eq(call("DELETE", url, NULL, &reply, &err), 0);
	json_decref(reply);
	ck_assert_int_eq(live_jobs, 0);
	ck_assert_int_eq(call("DELETE", url, NULL, NULL, &err), -ENOENT);

	for (unsigned i = 0; i < CONTROL_JOBS_MAX; i++)
		ck_assert_int_gt(begin(), first);
	ck_assert_int_eq(call("POST", "/v1/jobs", "{\"kind\": \"flush\"}", NULL, &err), -EAGAIN);
	/* Finished ones make room, one at a time; none is left to leak (teardown counts). */
	finish = true;
	begin();
	ck_assert_int_eq(live_jobs, CONTROL_JOBS_MAX);
}
END_TEST

/*
 * Send @text as it is; the answer's status, or 0 where the server just closed. With @hang_up nobody
 * waits for an answer.
 */
static int raw(const char *text, size_t length, bool hang_up)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	cleanup_close int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	char answer[4096];
	size_t n = 0;
	ssize_t got;
	int status = 0;

	strcpy(addr.sun_path, path);
	ck_assert_int_eq(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	for (size_t sent = 0; sent < length;) {
		got = send(fd, text + sent, length - sent, MSG_NOSIGNAL);
		if (got <= 0)
			break; /* refused before all was said */
		sent += (size_t)got;
	}
	if (hang_up)
		return 0;
	while (n < sizeof(answer) - 1 && (got = read(fd, answer + n, sizeof(answer) - 1 - n)) > 0)
		n += (size_t)got;
	answer[n] = '\0';
	if (sscanf(answer, "HTTP/1.1 %d", &status) != 1)
		sscanf(answer, "HTTP/1.0 %d", &status);
	return status;
}

static int raw_text(const char *text)
{
	return raw(text, strlen(text), false);
}

START_TEST(test_malformed)
{
	cleanup_free char *big = malloc(300000);
	static const char binary[] = { '\0', 'G', '\xff', '\r', '\n', '\r', '\n' };
	static const char half_line[] = "GET /v1/status";
	static const char half_body[] = "POST /v1/jobs HTTP/1.1\r\nHost: x\r\n"
					"Content-Length: 10\r\n\r\n{";
	struct err err;
	int n, status;

	raw(binary, sizeof(binary), true);
	raw(half_line, sizeof(half_line) - 1, true);
	raw(half_body, sizeof(half_body) - 1, true);
	/* A server that says nothing and closes is as good as a 400. */
	status = raw_text("garbage\r\n\r\n");
	ck_assert(status == 0 || (status >= 400 && status < 500));
	ck_assert_int_eq(raw_text("GET /v1/status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
				  "\r\n"),
			 200);
	ck_assert_int_eq(raw_text("POST /v1/jobs HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
				  "Content-Length: 3\r\n\r\n{a}"),
			 400);
	ck_assert_int_eq(raw_text("POST /v1/jobs HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
				  "Content-Length: 65537\r\n\r\n"),
			 413);
	status = raw_text("POST /v1/jobs HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
			  "Content-Length: -5\r\n\r\n");
	ck_assert(status == 0 || status == 400 || status == 413);

	/* The same body in chunks, whose sum nobody announced. */
	n = sprintf(big, "POST /v1/jobs HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
			 "Transfer-Encoding: chunked\r\n\r\n");
	for (int i = 0; i < 5; i++) {
		n += sprintf(big + n, "4000\r\n");
		memset(big + n, 'x', 0x4000);
		n += 0x4000;
		n += sprintf(big + n, "\r\n");
	}
	n += sprintf(big + n, "0\r\n\r\n");
	ck_assert_int_eq(raw(big, (size_t)n, false), 413);

	/* A deeply nested value must not eat the stack. */
	n = sprintf(big, "POST /v1/jobs HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
			 "Content-Length: 60000\r\n\r\n");
	memset(big + n, '[', 60000);
	ck_assert_int_eq(raw(big, (size_t)n + 60000, false), 400);

	/* A header larger than any we take. */
	n = sprintf(big, "GET /v1/status HTTP/1.1\r\nX: ");
	memset(big + n, 'y', 200000);
	memcpy(big + n + 200000, "\r\n\r\n", 4);
	status = raw(big, (size_t)n + 200004, false);
	ck_assert(status == 0 || (status >= 400 && status < 500));

	ck_assert_int_eq(call("GET", "/v1/status", NULL, NULL, &err), 0);
}
END_TEST

START_TEST(test_peer)
{
	struct stat st;
	pid_t pid;
	int status;

	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_uint_eq(st.st_mode & 07777, 0600);
	if (geteuid() != 0)
		return; /* becoming somebody else takes root */
	/* Open the doors that would keep a stranger away, so that the server itself must. */
	chmod(dir, 0755);
	chmod(path, 0666);
	pid = fork();
	if (pid == 0) {
		struct err err;

		if (setgid(65534) < 0 || setuid(65534) < 0)
			_exit(99);
		control_client_destroy(client);
		client = control_client_create(path, TIMEOUT_NS);
		_exit(call("GET", "/v1/status", NULL, NULL, &err) == -EACCES ? 0 : 1);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
	chmod(dir, 0700);
}
END_TEST

static int count(void *ctx, const char *at)
{
	ck_assert_str_eq(at, path);
	(*(int *)ctx)++;
	return 0;
}

START_TEST(test_sockets)
{
	struct control_client *dead;
	char other[CONTROL_PATH_MAX];
	struct err err;
	int n = 0;

	ck_assert_int_eq(control_socket_each(NULL, count, &n), 0);
	ck_assert_int_eq(n, 1);
	ck_assert_int_eq(control_socket_path("/var/lib/nearblk/y", NULL, other, &err), 0);
	ck_assert_str_ne(other, path);
	dead = control_client_create(other, TIMEOUT_NS);
	ck_assert_int_eq(control_call(dead, "GET", "/v1/status", NULL, NULL, &err), -ECONNREFUSED);
	control_client_destroy(dead);
	ck_assert(control_socket_answers("/var/lib/nearblk/x", NULL));
	ck_assert(!control_socket_answers("/var/lib/nearblk/y", NULL));
	/* A fallback is looked into beside the own directory, and once if it is the same. */
	ck_assert_int_eq(control_socket_each(dir, count, &n), 0);
	ck_assert_int_eq(n, 2);
	setenv("NEARBLK_RUNTIME_DIR", "/nonexistent/nearblk", 1);
	ck_assert(!control_socket_answers("/var/lib/nearblk/x", NULL));
	ck_assert_int_eq(control_socket_each(dir, count, &n), 0);
	ck_assert_int_eq(n, 3);
	setenv("NEARBLK_RUNTIME_DIR", dir, 1);

	/* What a dead daemon left behind does not stop the next one. */
	control_server_stop(server);
	fclose(fopen(path, "w"));
	ck_assert_int_eq(control_server_start(path, &ops, NULL, &server, &err), 0);
	ck_assert_int_eq(call("GET", "/v1/status", NULL, NULL, &err), 0);

	chmod(dir, 0750);
	ck_assert_int_eq(control_socket_path("/var/lib/nearblk/y", NULL, other, &err), -EPERM);
	chmod(dir, 0700);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("control");
	TCase *tc = tcase_create("control");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, test_calls);
	tcase_add_test(tc, test_jobs);
	tcase_add_test(tc, test_malformed);
	tcase_add_test(tc, test_peer);
	tcase_add_test(tc, test_sockets);
	suite_add_tcase(s, tc);
	return run_suite(s);
}
