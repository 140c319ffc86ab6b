// SPDX-License-Identifier: Apache-2.0
/*
 * A small web server with bad manners, for tests: one file of pattern bytes on loopback, and a
 * script that says how each request (in the order of arrival) is mistreated.
 */
#ifndef TESTS_TRANSPORT_HTTP_SERVER_H
#define TESTS_TRANSPORT_HTTP_SERVER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum manner {
	GOOD,
	/* A part of another version, or of none that can be told. */
	NEW_PART,  /* new ETag, new bytes */
	NEW_WHOLE, /* 200, new ETag, new bytes: what a good server does after a change */
	NEW_SIZE,
	NEW_UNMARKED, /* new bytes and no ETag at all */
	GONE_RANGE,   /* 416, and the file is smaller now */
	/* The same version, badly told; the bytes sent are wrong ones. */
	SAME_WHOLE,
	ODD_416,
	RANGE_LATER,
	RANGE_SHORTER,
	RANGE_LONGER,
	RANGE_MISSING,
	RANGE_TWICE,
	RANGE_JUNK,
	RANGE_OVERFLOW,
	RANGE_NO_TOTAL,
	RANGE_OTHER_UNIT,
	LENGTH_WRONG,
	MULTIPART,
	ENCODED,
	TWO_ETAGS,
	BODY_LONGER,
	/* Cut short; what comes is right. */
	CUT_BODY,  /* Content-Length promises more than comes */
	CUT_QUIET, /* no Content-Length, half of it, end of connection */
	CUT_EMPTY, /* no Content-Length, nothing */
	CUT_BEFORE_HEADER,
	CUT_IN_HEADER,
	/* Refusals. */
	S401,
	S403,
	S404,
	S418,
	S204,
	S429,
	S500,
	S503,
	S503_LATER, /* Retry-After: 30 */
	/* No HTTP. */
	GARBAGE,
	HTTP09,
	ENDLESS_HEADER,
	/* Elsewhere. */
	REDIRECT, /* to another path of the same server */
	REDIRECT_LOOP,
	REDIRECT_FTP,
	REDIRECT_FILE,
	/* Not now. */
	HANG,    /* no answer until the server ends or is told server_release() */
	MEETING, /* answers when as many requests as `meeting` are waiting here */
};

#define SERVER_SCRIPT 32
#define SERVER_CONNECTIONS 64

struct server {
	/* Set before server_start(). */
	uint64_t size;
	const char *etag;          /* with quotes; NULL: none */
	const char *modified;      /* NULL: none */
	const char *authorization; /* demanded; NULL: none */
	unsigned meeting;

	/* What was seen. Any thread. */
	atomic_uint requests;
	atomic_uint connections;

	struct server_state *state;
};

/* The right byte at @offset; generation 1 is the file, any other its changed self. */
uint8_t server_byte(uint64_t offset, unsigned generation);

/* Listen on an ephemeral port of 127.0.0.1 and return it. Aborts when that fails. */
uint16_t server_start(struct server *s);

/* Mistreat the next requests as @script says, then be good. */
void server_script(struct server *s, const enum manner *script, size_t count);

/* Let all hanging requests be answered well, now and later. */
void server_release(struct server *s);

/* Wait until @count requests have come in, since the start. */
void server_await(struct server *s, unsigned count);

/* The header of the last request. */
void server_last_header(struct server *s, char *ret, size_t max);

/* Close all and join. */
void server_stop(struct server *s);

#endif
