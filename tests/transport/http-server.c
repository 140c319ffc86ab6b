// SPDX-License-Identifier: Apache-2.0
/*
 * One thread accepts, one per connection answers; all are joined at the end. Waiting is done on one
 * condition under one lock.
 */
#include "tests/transport/http-server.h"

#include <arpa/inet.h>
#include <assert.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/cleanup.h"

#define HEADER_MAX 8192

struct connection {
	struct server *server;
	pthread_t thread;
	int fd;
};

struct server_state {
	pthread_t acceptor;
	int fd;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	enum manner script[SERVER_SCRIPT]; /* guarded by lock, as is all below */
	size_t script_length;
	size_t script_next;
	unsigned waiting; /* in MEETING */
	bool released;
	bool stopping;
	char last_header[HEADER_MAX];
	struct connection connection[SERVER_CONNECTIONS];
	unsigned connections;
};

struct request {
	char header[HEADER_MAX];
	char path[256];
	bool ranged;
	uint64_t first, last;
};

uint8_t server_byte(uint64_t offset, unsigned generation)
{
	return (uint8_t)((offset * 31 + offset / 251 + generation * 101) % 255 + 1);
}

static bool send_all(int fd, const void *data, size_t length)
{
	const char *p = data;

	while (length) {
		ssize_t n = send(fd, p, length, MSG_NOSIGNAL);

		if (n <= 0)
			return false;
		p += n;
		length -= (size_t)n;
	}
	return true;
}

__attribute__((format(printf, 2, 3))) static bool say(int fd, const char *fmt, ...)
{
	char text[2048];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	return send_all(fd, text, (size_t)n);
}

static bool send_bytes(int fd, uint64_t first, uint64_t length, unsigned generation)
{
	cleanup_free uint8_t *buf = malloc(length ? length : 1);

	for (uint64_t i = 0; i < length; i++)
		buf[i] = server_byte(first + i, generation);
	return send_all(fd, buf, length);
}

/* The usual head of a 206; the caller adds what is left and the empty line. */
static void head(struct server *s, int fd, const char *status, const char *etag)
{
	say(fd, "HTTP/1.1 %s\r\nAccept-Ranges: bytes\r\n", status);
	if (etag)
		say(fd, "ETag: %s\r\n", etag);
	if (s->modified)
		say(fd, "last-modified:%s\r\n", s->modified);
}

static void part(struct server *s, int fd, const char *etag, uint64_t first, uint64_t last,
		 uint64_t total, uint64_t length)
{
	head(s, fd, "206 Partial Content", etag);
	say(fd,
	    "Content-Range: bytes %" PRIu64 "-%" PRIu64 "/%" PRIu64 "\r\nContent-Length: %" PRIu64
	    "\r\n\r\n",
	    first, last, total, length);
}

static bool good(struct server *s, int fd, const struct request *q)
{
	uint64_t n = q->last - q->first + 1;

	if (!q->ranged) {
		head(s, fd, "200 OK", s->etag);
		say(fd, "Content-Length: %" PRIu64 "\r\n\r\n", s->size);
		return send_bytes(fd, 0, s->size, 1);
	}
	if (q->first >= s->size)
		return say(fd,
			   "HTTP/1.1 416 No\r\nContent-Range: bytes */%" PRIu64
			   "\r\nContent-Length: 0\r\n\r\n",
			   s->size);
	part(s, fd, s->etag, q->first, q->last, s->size, n);
	return send_bytes(fd, q->first, n, 1);
}

static bool refuse(int fd, const char *status)
{
	return say(fd, "HTTP/1.1 %s\r\nContent-Length: 5\r\n\r\nsorry", status);
}

static void wait_released(struct server *s)
{
	struct server_state *t = s->state;

	guard(&t->lock);
	while (!t->released && !t->stopping)
		pthread_cond_wait(&t->changed, &t->lock);
}

static void meet(struct server *s)
{
	struct server_state *t = s->state;

	guard(&t->lock);
	t->waiting++;
	pthread_cond_broadcast(&t->changed);
	while (t->waiting < s->meeting && !t->stopping)
		pthread_cond_wait(&t->changed, &t->lock);
}

/* A 206 with @range as its Content-Range header lines and wrong bytes of the right length. */
static bool odd_range(struct server *s, int fd, const struct request *q, const char *lines)
{
	uint64_t n = q->last - q->first + 1;

	head(s, fd, "206 Partial Content", s->etag);
	say(fd, "%sContent-Length: %" PRIu64 "\r\n\r\n", lines, n);
	return send_bytes(fd, q->first, n, 3);
}

/* Answers where the version or the range is not what it should be. */
static bool lie(struct server *s, int fd, const struct request *q, enum manner manner)
{
	uint64_t first = q->first, last = q->last, n = last - first + 1;
	char lines[512];

#define LINES(...) snprintf(lines, sizeof(lines), __VA_ARGS__)
#define RANGE "Content-Range: bytes %" PRIu64 "-%" PRIu64 "/%" PRIu64 "\r\n"
	switch (manner) {
	case NEW_PART:
		part(s, fd, "\"v2\"", first, last, s->size, n);
		return send_bytes(fd, first, n, 2);
	case NEW_WHOLE:
		head(s, fd, "200 OK", "\"v2\"");
		say(fd, "Content-Length: %" PRIu64 "\r\n\r\n", s->size);
		return send_bytes(fd, 0, s->size, 2);
	case NEW_SIZE:
		part(s, fd, s->etag, first, last, s->size + 512, n);
		return send_bytes(fd, first, n, 2);
	case NEW_UNMARKED:
		part(s, fd, NULL, first, last, s->size, n);
		return send_bytes(fd, first, n, 2);
	case GONE_RANGE:
		return say(fd, "HTTP/1.1 416 No\r\nContent-Range: bytes */100\r\n"
			       "Content-Length: 0\r\n\r\n");
	case SAME_WHOLE:
		head(s, fd, "200 OK", s->etag);
		say(fd, "Content-Length: %" PRIu64 "\r\n\r\n", s->size);
		return send_bytes(fd, 0, s->size, 1);
	case ODD_416:
		return say(fd,
			   "HTTP/1.1 416 No\r\nContent-Range: bytes */%" PRIu64
			   "\r\nContent-Length: 0\r\n\r\n",
			   s->size);
	case RANGE_LATER:
		part(s, fd, s->etag, first + 512, last + 512, s->size, n);
		return send_bytes(fd, first + 512, n, 1);
	case RANGE_SHORTER:
		part(s, fd, s->etag, first, last - 512, s->size, n - 512);
		return send_bytes(fd, first, n - 512, 1);
	case RANGE_LONGER:
		part(s, fd, s->etag, first, last + 512, s->size, n + 512);
		return send_bytes(fd, first, n + 512, 1);
	case RANGE_MISSING:
		return odd_range(s, fd, q, "");
	case RANGE_TWICE:
		LINES(RANGE RANGE, first, last, s->size, first + 1, last + 1, s->size);
		return odd_range(s, fd, q, lines);
	case RANGE_JUNK:
		LINES("Content-Range: bytes %" PRIu64 "-%" PRIu64 "x/%" PRIu64 "\r\n", first, last,
		      s->size);
		return odd_range(s, fd, q, lines);
	case RANGE_OVERFLOW: /* 2^64 + first wraps around to the right number */
		LINES("Content-Range: bytes 18446744073709551616-%" PRIu64 "/%" PRIu64 "\r\n", last,
		      s->size);
		return odd_range(s, fd, q, lines);
	case RANGE_NO_TOTAL:
		LINES("Content-Range: bytes %" PRIu64 "-%" PRIu64 "/*\r\n", first, last);
		return odd_range(s, fd, q, lines);
	case RANGE_OTHER_UNIT:
		LINES("Content-Range: lines %" PRIu64 "-%" PRIu64 "/%" PRIu64 "\r\n", first, last,
		      s->size);
		return odd_range(s, fd, q, lines);
	case LENGTH_WRONG:
		part(s, fd, s->etag, first, last, s->size, n + 7);
		return send_bytes(fd, first, n + 7, 3);
	case MULTIPART:
		return odd_range(s, fd, q, "Content-Type: multipart/byteranges; boundary=x\r\n");
	case ENCODED:
		LINES(RANGE "Content-Encoding: gzip\r\n", first, last, s->size);
		return odd_range(s, fd, q, lines);
	case TWO_ETAGS:
		LINES(RANGE "ETag: \"v2\"\r\n", first, last, s->size);
		return odd_range(s, fd, q, lines);
	case BODY_LONGER:
		head(s, fd, "206 Partial Content", s->etag);
		say(fd, RANGE "\r\n", first, last, s->size);
		send_bytes(fd, first, n + 100, 1);
		return false;
	default:
		assert(!"not a lie");
		return false;
	}
#undef RANGE
#undef LINES
}

/* Answer one request. False: close the connection. */
static bool answer(struct server *s, int fd, const struct request *q, enum manner manner)
{
	uint64_t n = q->last - q->first + 1;

	if (s->authorization && !strstr(q->header, s->authorization))
		manner = S401;
	if (manner >= NEW_PART && manner <= BODY_LONGER)
		return lie(s, fd, q, manner);
	switch (manner) {
	case CUT_BODY:
		part(s, fd, s->etag, q->first, q->last, s->size, n);
		send_bytes(fd, q->first, n / 3, 1);
		return false;
	case CUT_QUIET:
	case CUT_EMPTY:
		head(s, fd, "206 Partial Content", s->etag);
		say(fd, "Content-Range: bytes %" PRIu64 "-%" PRIu64 "/%" PRIu64 "\r\n\r\n",
		    q->first, q->last, s->size);
		if (manner == CUT_QUIET)
			send_bytes(fd, q->first, n / 2, 1);
		return false;
	case CUT_BEFORE_HEADER:
		return false;
	case CUT_IN_HEADER:
		say(fd, "HTTP/1.1 206 Partial Content\r\nContent-Ra");
		return false;
	case S401:
		return refuse(fd, "401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"x\"");
	case S403:
		return refuse(fd, "403 Forbidden");
	case S404:
		return refuse(fd, "404 Not Found");
	case S418:
		return refuse(fd, "418 I'm a teapot");
	case S204:
		return say(fd, "HTTP/1.1 204 No Content\r\n\r\n");
	case S429:
		return refuse(fd, "429 Too Many Requests");
	case S500:
		return refuse(fd, "500 Internal Server Error");
	case S503:
		return refuse(fd, "503 Service Unavailable");
	case S503_LATER:
		return refuse(fd, "503 Service Unavailable\r\nRetry-After: 30");
	case GARBAGE:
		send_bytes(fd, 0, 4096, 9);
		return false;
	case HTTP09:
		send_bytes(fd, q->first, n, 3);
		return false;
	case ENDLESS_HEADER:
		say(fd, "HTTP/1.1 206 Partial Content\r\n");
		while (say(fd, "X-Filler: %0900d\r\n", 0))
			;
		return false;
	case REDIRECT:
		/* With a body and a range of its own, which are not to be believed. */
		return say(fd, "HTTP/1.1 302 Found\r\nLocation: /moved\r\nETag: \"v9\"\r\n"
			       "Content-Range: bytes 0-4/5\r\nContent-Length: 5\r\n\r\nsorry");
	case REDIRECT_LOOP:
		return say(fd,
			   "HTTP/1.1 302 Found\r\nLocation: /loop\r\nContent-Length: 0\r\n\r\n");
	case REDIRECT_FTP:
		return say(fd, "HTTP/1.1 302 Found\r\nLocation: ftp://127.0.0.1/x\r\n"
			       "Content-Length: 0\r\n\r\n");
	case REDIRECT_FILE:
		return say(fd, "HTTP/1.1 302 Found\r\nLocation: file:///etc/hostname\r\n"
			       "Content-Length: 0\r\n\r\n");
	case HANG:
		wait_released(s);
		break;
	case MEETING:
		meet(s);
		break;
	default:
		break;
	}
	return good(s, fd, q);
}

/* One header up to the empty line. False: the client is gone. */
static bool read_request(int fd, struct request *q)
{
	size_t n = 0;
	char *p;

	memset(q, 0, sizeof(*q));
	while (!strstr(q->header, "\r\n\r\n")) {
		ssize_t r = recv(fd, q->header + n, sizeof(q->header) - 1 - n, 0);

		if (r <= 0 || n + (size_t)r >= sizeof(q->header) - 1)
			return false;
		n += (size_t)r;
	}
	if (sscanf(q->header, "GET %255s HTTP/1.1", q->path) != 1)
		return false;
	p = strstr(q->header, "\r\nRange: bytes=");
	q->ranged =
		p && sscanf(p, "\r\nRange: bytes=%" SCNu64 "-%" SCNu64, &q->first, &q->last) == 2;
	return true;
}

static enum manner next_manner(struct server *s, const struct request *q)
{
	struct server_state *t = s->state;
	enum manner m = GOOD;

	guard(&t->lock);
	memcpy(t->last_header, q->header, sizeof(t->last_header));
	if (strcmp(q->path, "/loop") == 0)
		m = REDIRECT_LOOP;
	else if (strcmp(q->path, "/moved") != 0 && t->script_next < t->script_length)
		m = t->script[t->script_next++];
	atomic_fetch_add(&s->requests, 1);
	pthread_cond_broadcast(&t->changed);
	return m;
}

static void *serve(void *arg)
{
	struct connection *c = arg;
	struct request q;

	while (read_request(c->fd, &q) && answer(c->server, c->fd, &q, next_manner(c->server, &q)))
		;
	shutdown(c->fd, SHUT_RDWR); /* closed when joined, so that the number is not reused */
	return NULL;
}

static void *accept_all(void *arg)
{
	struct server *s = arg;
	struct server_state *t = s->state;

	for (;;) {
		int one = 1, fd = accept(t->fd, NULL, NULL);
		struct connection *c;

		if (fd < 0)
			return NULL;
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		guard(&t->lock);
		if (t->stopping || t->connections == SERVER_CONNECTIONS) {
			close(fd);
			continue;
		}
		atomic_fetch_add(&s->connections, 1);
		c = &t->connection[t->connections];
		c->server = s;
		c->fd = fd;
		if (pthread_create(&c->thread, NULL, serve, c) == 0)
			t->connections++;
		else
			close(fd);
	}
}

uint16_t server_start(struct server *s)
{
	struct sockaddr_in address = { .sin_family = AF_INET };
	socklen_t length = sizeof(address);
	struct server_state *t = calloc(1, sizeof(*t));

	s->state = t;
	pthread_mutex_init(&t->lock, NULL);
	pthread_cond_init(&t->changed, NULL);
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	t->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (t->fd < 0 || bind(t->fd, (struct sockaddr *)&address, length) < 0 ||
	    listen(t->fd, 64) < 0 || getsockname(t->fd, (struct sockaddr *)&address, &length) < 0 ||
	    pthread_create(&t->acceptor, NULL, accept_all, s))
		abort();
	return ntohs(address.sin_port);
}

void server_script(struct server *s, const enum manner *script, size_t count)
{
	struct server_state *t = s->state;

	assert(count <= SERVER_SCRIPT);
	guard(&t->lock);
	memcpy(t->script, script, count * sizeof(*script));
	t->script_length = count;
	t->script_next = 0;
}

void server_release(struct server *s)
{
	struct server_state *t = s->state;

	guard(&t->lock);
	t->released = true;
	pthread_cond_broadcast(&t->changed);
}

void server_await(struct server *s, unsigned count)
{
	struct server_state *t = s->state;

	guard(&t->lock);
	while (atomic_load(&s->requests) < count)
		pthread_cond_wait(&t->changed, &t->lock);
}

void server_last_header(struct server *s, char *ret, size_t max)
{
	struct server_state *t = s->state;

	guard(&t->lock);
	snprintf(ret, max, "%s", t->last_header);
}

void server_stop(struct server *s)
{
	struct server_state *t = s->state;

	pthread_mutex_lock(&t->lock);
	t->stopping = true;
	pthread_cond_broadcast(&t->changed);
	for (unsigned i = 0; i < t->connections; i++)
		shutdown(t->connection[i].fd, SHUT_RDWR);
	pthread_mutex_unlock(&t->lock);
	shutdown(t->fd, SHUT_RDWR);
	pthread_join(t->acceptor, NULL);
	for (unsigned i = 0; i < t->connections; i++) {
		pthread_join(t->connection[i].thread, NULL);
		close(t->connection[i].fd);
	}
	close(t->fd);
	pthread_cond_destroy(&t->changed);
	pthread_mutex_destroy(&t->lock);
	free(t);
	s->state = NULL;
}
