// SPDX-License-Identifier: Apache-2.0
/*
 * The bytes that an origin sends, over a real connection through libcurl to the code that asks:
 *
 *	u8 flags (1: a version is pinned, 2: by ETag), then all the server says before it closes
 *
 * The server is here, too, and is the proxy for whatever host a redirection names: nothing leaves
 * this machine. What is counted as got stands in the answer in one piece (unless it came
 * in chunks), and no byte behind it is touched.
 */
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/socket.h>

#include "core/cleanup.h"
#include "core/clock.h"
#include "tests/fuzz/fuzz.h"
#include "transport/http_conn.h"

#define OFFSET 4096u
#define LENGTH 64u
#define SIZE 65536u
#define ETAG "\"v1\""
/* More than twice as many connections as redirections are followed. */
#define PEERS 32u
/* Each get is one exchange with a server that answers at once and closes. */
#define HANG_NS (60 * NSEC_PER_SEC)

const unsigned fuzz_runs = 1500;

/*
 * The server has no thread: it is given a turn whenever the code under test asks whether to go on.
 * It answers a request that has come whole, and says no more.
 */
static struct {
	int fd;
	size_t seen; /* of the end of the request */
	bool answered;
} peer[PEERS];
static unsigned peers;
static int listener = -1;
static const uint8_t *answer;
static size_t answer_length;

static void serve_peer(unsigned i)
{
	static const char end[] = "\r\n\r\n";
	char text[1024];
	ssize_t n = recv(peer[i].fd, text, sizeof(text), MSG_DONTWAIT);

	for (ssize_t k = 0; k < n && peer[i].seen < 4; k++)
		peer[i].seen = text[k] == end[peer[i].seen] ? peer[i].seen + 1 : text[k] == '\r';
	if (peer[i].seen < 4 || peer[i].answered)
		return;
	peer[i].answered = true;
	(void)!send(peer[i].fd, answer, answer_length, MSG_DONTWAIT | MSG_NOSIGNAL);
	shutdown(peer[i].fd, SHUT_WR);
}

static void serve(void)
{
	int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

	if (fd >= 0) {
		fuzz_check(peers < PEERS);
		peer[peers].seen = 0;
		peer[peers].answered = false;
		peer[peers++].fd = fd;
	}
	for (unsigned i = 0; i < peers; i++)
		serve_peer(i);
}

static void hang_up(void)
{
	while (peers)
		close(peer[--peers].fd);
}

static void start_server(void)
{
	struct sockaddr_in addr = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
	socklen_t size = sizeof(addr);
	char proxy[64];

	if (listener >= 0)
		return;
	listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	fuzz_check(listener >= 0 && bind(listener, (struct sockaddr *)&addr, size) == 0);
	fuzz_check(listen(listener, PEERS) == 0);
	fuzz_check(getsockname(listener, (struct sockaddr *)&addr, &size) == 0);
	snprintf(proxy, sizeof(proxy), "http://127.0.0.1:%u", ntohs(addr.sin_port));
	setenv("http_proxy", proxy, 1);
	setenv("https_proxy", proxy, 1);
	unsetenv("no_proxy");
	unsetenv("NO_PROXY");
}

struct turn {
	struct http_conn *conn;
	uint64_t deadline_ns;
};

static bool aborted(void *ctx)
{
	const struct turn *t = ctx;

	fuzz_check(clock_monotonic_ns() < t->deadline_ns);
	serve();
	http_conn_wake(t->conn); /* do not wait: ask again */
	return false;
}

static void check_get(struct http_conn *conn, const uint8_t *data, size_t size, bool chunked)
{
	struct turn turn = { conn, clock_monotonic_ns() + HANG_NS };
	/* Two pieces that end where their memory ends. */
	cleanup_free uint8_t *one = fuzz_alloc(24), *two = fuzz_alloc(LENGTH - 24);
	struct iovec iov[] = { { one, 24 }, { two, LENGTH - 24 } };
	struct http_get get = { .offset = OFFSET,
				.length = LENGTH,
				.iov = iov,
				.iovcnt = 2,
				.aborted = aborted,
				.ctx = &turn };
	uint8_t flat[LENGTH];
	enum http_outcome o;

	memset(one, 0xa5, 24);
	memset(two, 0xa5, LENGTH - 24);
	o = http_conn_get(conn, &get);
	memcpy(flat, one, 24);
	memcpy(flat + 24, two, LENGTH - 24);
	fuzz_check(o <= HTTP_GET_BROKEN);
	fuzz_check(get.got <= LENGTH);
	fuzz_check(o != HTTP_GET_DONE || get.got == LENGTH);
	fuzz_check(o == HTTP_GET_DONE || http_conn_why(conn)[0]);
	fuzz_check(http_conn_retry_after_ns(conn) <= 3600 * NSEC_PER_SEC);
	for (size_t i = get.got; i < LENGTH; i++)
		fuzz_check(flat[i] == 0xa5);
	if (!get.got)
		return;
	/* Behind the last chunk more header may come. */
	if (chunked)
		return;
	fuzz_check(http_conn_answer(conn)->status == 206 && !http_conn_answer(conn)->fault);
	fuzz_check(memmem(data, size, flat, get.got));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = { data, size };
	unsigned flags = (unsigned)fuzz_take(&in, 1);
	struct leaf_credentials credentials = { .username = "" };
	struct http_pin pin = { .size_bytes = SIZE, .modified = "yesterday" };
	cleanup_free char *text = fuzz_text(in.at, in.left);
	bool chunked = false;
	struct http_conn *conn;

	start_server();
	for (size_t i = 0; i + 7 <= in.left; i++)
		chunked |= strncasecmp(text + i, "chunked", 7) == 0;
	answer = in.at;
	answer_length = in.left;
	conn = http_conn_create("http://origin.invalid/image", &credentials);
	fuzz_check(conn);
	if (flags & 2)
		strcpy(pin.etag, ETAG);
	if (flags & 1)
		fuzz_check(http_conn_pin(conn, &pin) == 0);
	/* Twice: what the first answer has too much must not be the second one's. */
	check_get(conn, in.at, in.left, chunked);
	check_get(conn, in.at, in.left, chunked);
	http_conn_destroy(conn);
	hang_up();
	return 0;
}

static void put(unsigned flags, const char *head, const char *body)
{
	struct fuzz_output out = { 0 };

	fuzz_put(&out, flags, 1);
	fuzz_put_bytes(&out, head, strlen(head));
	fuzz_put_bytes(&out, body, strlen(body));
	fuzz_put_seed(&out);
}

void fuzz_seeds(void)
{
	/* LENGTH bytes. */
	static const char body[] =
		"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ+/";
	static const char good[] = "HTTP/1.1 206 Partial Content\r\n"
				   "Content-Range: bytes 4096-4159/65536\r\n"
				   "Content-Length: 64\r\nETag: " ETAG "\r\n\r\n";

	put(0, good, body);
	put(1, good, body);
	put(3, good, body);
	put(3, good, "half of it");
	put(0, "HTTP/1.1 206 x\r\nContent-Range: bytes 4096-4159/65536\r\n\r\n", body);
	put(0,
	    "HTTP/1.1 206 x\r\nContent-Range: bytes 4096-4159/65536\r\n"
	    "Transfer-Encoding: chunked\r\n\r\n40\r\n",
	    "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ+/\r\n0\r\n"
	    "ETag: \"v2\"\r\n\r\n");
	put(3, "HTTP/1.1 200 OK\r\nContent-Length: 65536\r\nETag: \"v2\"\r\n\r\n", body);
	put(0, "HTTP/1.1 302 x\r\nLocation: http://elsewhere.invalid/x\r\n\r\n", "");
	put(0, "HTTP/1.1 302 x\r\nLocation: file:///etc/passwd\r\n\r\n", "");
	put(0, "HTTP/1.1 503 x\r\nRetry-After: 99999999\r\nContent-Length: 4\r\n\r\n", "wait");
	put(0, "HTTP/1.1 416 x\r\nContent-Range: bytes */4096\r\n\r\n", "");
	put(0, "HTTP/1.1 100 Continue\r\n\r\n", good);
}
