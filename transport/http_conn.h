// SPDX-License-Identifier: Apache-2.0
/* One HTTP/1.1 connection that fetches byte ranges of one URL. All of libcurl that a leaf uses. */
#ifndef TRANSPORT_HTTP_CONN_H
#define TRANSPORT_HTTP_CONN_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "transport/http_answer.h"
#include "transport/leaf.h"

struct http_conn;

struct http_get {
	uint64_t offset; /* bytes */
	uint64_t length; /* >= 1 */
	const struct iovec *iov;
	int iovcnt;
	uint64_t got; /* so many bytes are in @iov already; moved on by each call */
	/* Asked after each wake-up and at least once a second: true ends the call. */
	bool (*aborted)(void *ctx);
	void *ctx;
};

enum http_outcome {
	HTTP_GET_DONE,    /* got == length */
	HTTP_GET_RETRY,   /* not reached, cut off, or asked to wait */
	HTTP_GET_SHORT,   /* a proper answer whose body ended early */
	HTTP_GET_CHANGED, /* another version than pinned */
	HTTP_GET_BROKEN,  /* asking again would not help */
	HTTP_GET_ABORTED,
};

/*
 * @url is the whole URL; @credentials are kept for Basic authentication (RFC 7617) if they name a
 * user. Does not connect. NULL when out of memory. Any thread.
 */
struct http_conn *http_conn_create(const char *url, const struct leaf_credentials *credentials);

/* NULL is fine. Nobody else uses it any more. */
void http_conn_destroy(struct http_conn *conn);

/* From now on ask for this version only (If-Range) and check it. One thread, before its use. */
int http_conn_pin(struct http_conn *conn, const struct http_pin *pin);

/*
 * Fetch what @get still lacks, in one request. Nothing is ever counted as got that was not proven
 * to be the asked-for bytes of the pinned version. One thread at a time.
 */
enum http_outcome http_conn_get(struct http_conn *conn, struct http_get *get);

/* About the last http_conn_get(), valid until the next; the same thread. */
const struct http_answer *http_conn_answer(const struct http_conn *conn);
const char *http_conn_why(const struct http_conn *conn);         /* it failed because "…" */
uint64_t http_conn_retry_after_ns(const struct http_conn *conn); /* 0: nothing was said */
uint64_t http_conn_rtt_ns(const struct http_conn *conn); /* request to first byte; 0: unknown */
bool http_conn_was_new(const struct http_conn *conn);    /* it had to connect first */

/* Sleep for @ns or until http_conn_wake(). The thread that calls http_conn_get(). */
void http_conn_sleep(struct http_conn *conn, uint64_t ns);

/* Make the thread inside http_conn_get() or http_conn_sleep() look up, now or at its next call. Any
 * thread, while the connection exists. */
void http_conn_wake(struct http_conn *conn);

#endif
