// SPDX-License-Identifier: Apache-2.0
/*
 * The bytes that a client sends into the control socket: all of an input is one connection.
 *
 * The server, the jobs behind it, a cache on a directory of our own and a leaf in memory are the
 * daemon's own; each input meets a new server. Whatever comes, others are answered, an answer that
 * was given is one, and what the server began is over when it has stopped. Nobody carries out an
 * umount here: it stays a wish.
 */
#include <jansson.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "cmd/daemon.h"
#include "control/server.h"
#include "control/socket.h"
#include "core/cleanup.h"
#include "tests/fuzz/fuzz.h"
#include "tests/lib/scratch.h"
#include "transport/url.h"

/* A server that is silent for so long hangs. */
#define HANG_MS 15000
#define ANSWER_MAX (1u << 20)

const unsigned fuzz_runs = 1500;

static struct daemon_config conf;
static struct daemon daemon_;
static char path[CONTROL_PATH_MAX];

/* As cmd/daemon.c has it, whose main thread is not here. */
bool daemon_umount_attended(const struct daemon *d)
{
	return d->umount_job && clock_monotonic_ns() - d->umount_polled_ns < CLIENT_GONE_NS;
}

static void stop_daemon(void)
{
	/* In this order, as the daemon: a job that was given up may be in the middle of a step. */
	stack_stop(&daemon_.stack);
	sched_destroy(daemon_.aux);
	stack_close(&daemon_.stack);
	scratch_remove();
}

static void start_daemon(void)
{
	struct stack_config *s = &conf.stack;
	struct err err = { .text = "" };
	const char *dir;

	if (daemon_.conf)
		return;
	dir = scratch_create();
	snprintf(path, sizeof(path), "%s/socket", dir);
	snprintf(s->cache_dir, sizeof(s->cache_dir), "%s/cache", dir);
	fuzz_check(url_parse("mem:4M", false, &s->leaf.url, &err) == 0);
	s->leaf.sessions = 1;
	s->cache_size_bytes = CACHE_LIMIT_MIN;
	s->max_dirty_age_ns = NSEC_PER_SEC;
	strcpy(conf.mountpoint, "/mnt/nowhere");
	daemon_.conf = &conf;
	daemon_.phase = PHASE_MOUNTED;
	daemon_.started_ns = clock_monotonic_ns();
	daemon_.final_bytes = UINT64_MAX;
	pthread_mutex_init(&daemon_.lock, NULL);
	pthread_cond_init(&daemon_.changed, NULL);
	daemon_.aux = sched_threads_create(1, "command");
	fuzz_check(daemon_.aux);
	fuzz_check(stack_prepare_dir(s->cache_dir, &err) == 0);
	fuzz_check(stack_open(s, &daemon_.stack, &err) == 0);
	atexit(stop_daemon);
}

static int dial(void)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	strcpy(addr.sun_path, path);
	fuzz_check(fd >= 0 && connect(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0);
	return fd;
}

static void say(int fd, const void *data, size_t size)
{
	for (size_t sent = 0; sent < size;) {
		ssize_t n = send(fd, (const char *)data + sent, size - sent, MSG_NOSIGNAL);

		if (n <= 0)
			return; /* refused before all was said */
		sent += (size_t)n;
	}
}

/* The server answers somebody else meanwhile, and so has had time for more than one step. */
static void ask_aside(void)
{
	static const char request[] = "GET /v1/volume HTTP/1.1\r\nHost: x\r\n"
				      "Connection: close\r\n\r\n";
	cleanup_close int fd = dial();
	char text[1024];
	size_t n = 0;
	ssize_t r;

	say(fd, request, sizeof(request) - 1);
	do {
		struct pollfd p = { .fd = fd, .events = POLLIN };

		fuzz_check(poll(&p, 1, HANG_MS) == 1);
		r = read(fd, text + n, sizeof(text) - 1 - n);
		n += r > 0 ? (size_t)r : 0;
	} while (r > 0);
	text[n] = '\0';
	fuzz_check(strncmp(text, "HTTP/1.1 200 ", 13) == 0 && strstr(text, "nowhere"));
}

/*
 * What comes until the server closes, or has nothing more to say to a request that lacks its rest:
 * it would wait for that for half a minute, even where the end of the stream came with the last
 * bytes.
 */
static const char *read_answers(int fd)
{
	static char text[ANSWER_MAX + 1];
	size_t n = 0, before;
	ssize_t r;

	do {
		before = n;
		ask_aside();
		while ((r = recv(fd, text + n, ANSWER_MAX - n, MSG_DONTWAIT)) > 0)
			n += (size_t)r;
	} while (r < 0 && n > before);
	text[n] = '\0';
	return text;
}

/* The server's answers are objects; an error says why. */
static void check_body(unsigned status, const char *body, size_t length)
{
	json_t *o = json_loadb(body, length, 0, NULL);

	fuzz_check(json_is_object(o));
	if (status >= 400)
		fuzz_check(json_string_value(json_object_get(o, "error")));
	else
		fuzz_check(status == 200 || status == 201);
	if (status == 201)
		fuzz_check(json_integer_value(json_object_get(o, "id")) > 0);
	json_decref(o);
}

/* A promise about the shape of an answer: without the answer its breach tells nothing. */
#define check_shape(promise)                                                                       \
	do {                                                                                       \
		if (!(promise))                                                                    \
			fprintf(stderr, "answered:\n%s\n", all);                                   \
		fuzz_check(promise);                                                               \
	} while (0)

static void check_answers(const char *all)
{
	const char *text = all;

	while (*text) {
		const char *body = strstr(text, "\r\n\r\n"), *field;
		unsigned status;
		size_t length;

		check_shape(sscanf(text, "HTTP/1.%*[01] %3u", &status) == 1);
		check_shape(status >= 100 && status < 600 && body);
		body += 4;
		if (status == 100) {
			text = body;
			continue;
		}
		field = strcasestr(text, "application/json");
		if (!field || field > body) {
			/* The library's own, which is the last, and which it may begin twice. */
			check_shape(status >= 400);
			return;
		}
		field = strcasestr(text, "Content-Length:");
		check_shape(field && field < body);
		length = strtoul(field + 15, NULL, 10);
		check_shape(length <= strlen(body));
		check_body(status, body, length);
		text = body + length;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct control_server *server;
	struct err err = { .text = "" };
	const char *text;
	int fd;

	start_daemon();
	fuzz_check(control_server_start(path, &daemon_control_ops, &daemon_, &server, &err) == 0);
	fd = dial();
	say(fd, data, size);
	shutdown(fd, SHUT_WR);
	text = read_answers(fd);
	close(fd);
	control_server_stop(server);
	/* HEAD has answers without the bodies they announce. */
	if (!memmem(data, size, "HEAD", 4))
		check_answers(text);
	fuzz_check(!daemon_.umount_job && daemon_.umount == UMOUNT_NONE);
	fuzz_check(daemon_.phase == PHASE_MOUNTED);
	return 0;
}

static void put(struct fuzz_output *out, const char *line, const char *body)
{
	char head[256];

	snprintf(head, sizeof(head), "%s HTTP/1.1\r\nHost: nearblk\r\nContent-Length: %zu\r\n\r\n",
		 line, strlen(body));
	fuzz_put_bytes(out, head, strlen(head));
	fuzz_put_bytes(out, body, strlen(body));
}

void fuzz_seeds(void)
{
	static const char *const jobs[] = {
		"{\"kind\": \"flush\"}",
		"{\"kind\": \"drop\"}",
		"{\"kind\": \"warm\"}",
		"{\"kind\": \"warm\", \"ranges\": [[0, 4096], [8192, 9223372036854775807]]}",
		"{\"kind\": \"warm\", \"ranges\": [[-1, 0], [4194304, 1]]}",
		"{\"kind\": \"umount\", \"timeout_seconds\": 1.5, \"flush\": false}",
		"{\"kind\": \"umount\", \"timeout_seconds\": -1e308}",
		"{\"kind\": 4}",
		"[[[[[[]]]]]]",
	};
	struct fuzz_output out = { 0 };

	put(&out, "GET /v1/status", "");
	put(&out, "GET /v1/volume", "");
	fuzz_put_seed(&out);
	for (size_t i = 0; i < ARRAY_SIZE(jobs); i++) {
		put(&out, "POST /v1/jobs", jobs[i]);
		put(&out, "GET /v1/jobs/1", "");
		put(&out, "DELETE /v1/jobs/1", "");
		put(&out, "GET /v1/jobs/1", "");
		fuzz_put_seed(&out);
	}
	put(&out, "PUT /v1/jobs/18446744073709551616", "x");
	put(&out, "GET /v1/nothing?x=%00&y", "");
	fuzz_put_seed(&out);
	fuzz_seed_text("POST /v1/jobs HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
		       "10\r\n{\"kind\":\"flush\"}\r\n0\r\n\r\n");
	fuzz_seed_text("POST /v1/jobs HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
		       "Content-Length: 65537\r\n\r\n{");
	fuzz_seed_text("GET /v1/status HTTP/1.0\r\n\r\n");
	fuzz_seed_text("garbage\r\n\r\n");
}
