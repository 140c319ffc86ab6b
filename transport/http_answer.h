// SPDX-License-Identifier: Apache-2.0
/*
 * What a server said in the header of its answer to a range request, and whether its body may be
 * believed. Pure, no libcurl; any thread.
 */
#ifndef TRANSPORT_HTTP_ANSWER_H
#define TRANSPORT_HTTP_ANSWER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HTTP_VALIDATOR_MAX 200

/* The version of the file that is being read, as the first answer told it. */
struct http_pin {
	uint64_t size_bytes;
	char etag[HTTP_VALIDATOR_MAX];     /* quotes and W/ included; empty: none */
	char modified[HTTP_VALIDATOR_MAX]; /* Last-Modified; empty: none */
};

struct http_answer {
	unsigned status;
	bool has_range;       /* Content-Range with first and last */
	uint64_t first, last; /* bytes, both inclusive */
	bool has_total;       /* Content-Range with a total */
	uint64_t total;
	bool has_length; /* Content-Length */
	uint64_t length;
	const char *fault; /* first header that contradicts itself or cannot be used; NULL: none */
	char etag[HTTP_VALIDATOR_MAX];
	char modified[HTTP_VALIDATOR_MAX];
	bool complete;       /* the empty line came */
	size_t header_bytes; /* of all lines since http_answer_begin() */
};

enum http_verdict {
	HTTP_GOOD,    /* the body is exactly the bytes that were asked for */
	HTTP_RETRY,   /* the server cannot answer now (408, 425, 429, 5xx) */
	HTTP_CHANGED, /* it has another version of the file */
	HTTP_BROKEN,  /* refused, gone, or an answer nobody can use */
};

/* Start anew, before a request is sent. */
void http_answer_begin(struct http_answer *a);

/*
 * Take one header line of @length bytes, line end included or not. A status line
 * starts over (an interim answer, a redirect). False: the header is absurdly long.
 */
bool http_answer_line(struct http_answer *a, const char *line, size_t length);

/*
 * Judge the answer to "Range: bytes=@first-@last" sent with If-Range for @pin (RFC 9110 13.1.5,
 * 14.4, 15.3.7). @pin NULL: nothing is known yet, any version with a total size will do. *@ret_why
 * gets a fixed text that completes "the server …".
 */
enum http_verdict http_answer_judge(const struct http_answer *a, const struct http_pin *pin,
				    uint64_t first, uint64_t last, const char **ret_why);

/* True if @etag may stand in If-Range: not empty and strong (RFC 9110 8.8.1, 13.1.5). */
bool http_etag_is_strong(const char *etag);

#endif
