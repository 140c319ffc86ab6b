// SPDX-License-Identifier: Apache-2.0
/*
 * A multi handle with one easy handle: that way another thread can interrupt a transfer or a sleep
 * at once (curl_multi_wakeup() is the one call that is safe from elsewhere). The multi handle owns
 * the connection and keeps it open between requests.
 *
 * The body goes straight into the reader's buffers. Its first byte waits for the verdict on the
 * header; a body that is not good is thrown away.
 */
#include "transport/http_conn.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include <curl/curl.h>

#include "core/block.h"
#include "core/cleanup.h"
#include "core/clock.h"

#define REDIRECTS_MAX 5L
#define CONNECT_TIMEOUT_S 10L
#define SILENCE_TIMEOUT_S 20L
#define BUFFER_BYTES (512L << 10)
#define DRAIN_MAX_BYTES (64u << 10) /* of an error page, to keep the connection */

struct http_conn {
	CURLM *multi;
	CURL *easy;
	struct curl_slist *headers;
	bool pinned;
	struct http_pin pin;

	/* The request under way or the last one. */
	struct http_get *get;
	struct http_answer answer;
	bool judged;
	enum http_verdict verdict;
	const char *verdict_why;
	uint64_t want; /* bytes asked for by this request */
	uint64_t body; /* bytes of body seen */
	bool surplus;  /* more body than asked for */
	bool endless;  /* more header than anyone needs */
	char curl_error[CURL_ERROR_SIZE];
	char why[CURL_ERROR_SIZE + 160];
	uint64_t retry_after_ns;
	uint64_t rtt_ns;
	bool was_new;
};

static pthread_once_t global_once = PTHREAD_ONCE_INIT;

static void global_init(void)
{
	curl_global_init(CURL_GLOBAL_DEFAULT);
}

static size_t on_header(char *line, size_t size, size_t count, void *ctx)
{
	struct http_conn *c = ctx;

	c->endless = !http_answer_line(&c->answer, line, size * count);
	return c->endless ? 0 : size * count;
}

static void judge(struct http_conn *c)
{
	uint64_t first = c->get->offset + c->get->got;

	if (c->judged)
		return;
	c->verdict = http_answer_judge(&c->answer, c->pinned ? &c->pin : NULL, first,
				       first + c->want - 1, &c->verdict_why);
	c->judged = true;
}

/* Returning less than came ends the transfer. */
static size_t on_body(char *data, size_t size, size_t count, void *ctx)
{
	struct http_conn *c = ctx;
	size_t n = size * count;

	judge(c);
	c->body += n;
	if (c->verdict != HTTP_GOOD)
		return c->answer.status != 200 && c->body <= DRAIN_MAX_BYTES ? n : 0;
	if (c->body > c->want) {
		c->surplus = true;
		return 0;
	}
	iov_copy_to(c->get->iov, c->get->iovcnt, c->get->got, data, n);
	c->get->got += n;
	return n;
}

static bool set_options(struct http_conn *c, const char *url,
			const struct leaf_credentials *credentials)
{
	/* From https there is no way back to plain http. */
	const char *redirects = strncmp(url, "https:", 6) == 0 ? "https" : "http,https";
	bool bad = false;

#define SET(option, value) (bad |= curl_easy_setopt(c->easy, option, value) != CURLE_OK)
	SET(CURLOPT_URL, url);
	SET(CURLOPT_PROTOCOLS_STR, "http,https");
	SET(CURLOPT_REDIR_PROTOCOLS_STR, redirects);
	SET(CURLOPT_FOLLOWLOCATION, 1L);
	SET(CURLOPT_MAXREDIRS, REDIRECTS_MAX);
	SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	SET(CURLOPT_USERAGENT, "nearblk/" PACKAGE_VERSION);
	SET(CURLOPT_NOSIGNAL, 1L);
	SET(CURLOPT_NOPROGRESS, 1L);
	SET(CURLOPT_BUFFERSIZE, BUFFER_BYTES);
	SET(CURLOPT_CONNECTTIMEOUT, CONNECT_TIMEOUT_S);
	SET(CURLOPT_LOW_SPEED_LIMIT, 1L);
	SET(CURLOPT_LOW_SPEED_TIME, SILENCE_TIMEOUT_S);
	SET(CURLOPT_TCP_KEEPALIVE, 1L);
	/* An abort must not wait for a name server. */
	SET(CURLOPT_QUICK_EXIT, 1L);
	SET(CURLOPT_ERRORBUFFER, c->curl_error);
	SET(CURLOPT_HEADERFUNCTION, on_header);
	SET(CURLOPT_HEADERDATA, c);
	SET(CURLOPT_WRITEFUNCTION, on_body);
	SET(CURLOPT_WRITEDATA, c);
	if (credentials->username[0]) {
		SET(CURLOPT_HTTPAUTH, (long)CURLAUTH_BASIC);
		SET(CURLOPT_USERNAME, credentials->username);
		SET(CURLOPT_PASSWORD, credentials->password);
	}
#undef SET
	return !bad;
}

struct http_conn *http_conn_create(const char *url, const struct leaf_credentials *credentials)
{
	struct http_conn *c = calloc(1, sizeof(*c));

	pthread_once(&global_once, global_init);
	if (!c)
		return NULL;
	c->multi = curl_multi_init();
	c->easy = curl_easy_init();
	if (!c->multi || !c->easy || !set_options(c, url, credentials)) {
		http_conn_destroy(c);
		return NULL;
	}
	return c;
}

void http_conn_destroy(struct http_conn *conn)
{
	if (!conn)
		return;
	curl_easy_cleanup(conn->easy);
	curl_multi_cleanup(conn->multi);
	curl_slist_free_all(conn->headers);
	free(conn);
}

int http_conn_pin(struct http_conn *conn, const struct http_pin *pin)
{
	const char *validator = http_etag_is_strong(pin->etag) ? pin->etag
				: pin->etag[0]                 ? ""
							       : pin->modified;
	char line[HTTP_VALIDATOR_MAX + 16];

	conn->pin = *pin;
	conn->pinned = true;
	if (!validator[0])
		return 0;
	snprintf(line, sizeof(line), "If-Range: %s", validator);
	conn->headers = curl_slist_append(NULL, line);
	if (!conn->headers ||
	    curl_easy_setopt(conn->easy, CURLOPT_HTTPHEADER, conn->headers) != CURLE_OK)
		return -ENOMEM;
	return 0;
}

/* Until the transfer is over or aborted. True: over, with *@ret_code. */
static bool run(struct http_conn *c, CURLcode *ret_code)
{
	for (;;) {
		int running, left;
		CURLMsg *msg;

		if (c->get->aborted(c->get->ctx))
			return false;
		if (curl_multi_perform(c->multi, &running) != CURLM_OK) {
			*ret_code = CURLE_OUT_OF_MEMORY;
			return true;
		}
		while ((msg = curl_multi_info_read(c->multi, &left))) {
			if (msg->msg == CURLMSG_DONE) {
				*ret_code = msg->data.result;
				return true;
			}
		}
		curl_multi_poll(c->multi, NULL, 0, 1000, NULL);
	}
}

/* Failures that say something about the far side and not about the network. */
static bool is_final(CURLcode code)
{
	switch (code) {
	case CURLE_UNSUPPORTED_PROTOCOL:
	case CURLE_URL_MALFORMAT:
	case CURLE_WEIRD_SERVER_REPLY:
	case CURLE_WRITE_ERROR:
	case CURLE_TOO_MANY_REDIRECTS:
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_SSL_CACERT_BADFILE:
	case CURLE_SSL_CERTPROBLEM:
	case CURLE_SSL_CIPHER:
	case CURLE_BAD_CONTENT_ENCODING:
	case CURLE_UNKNOWN_OPTION:
		return true;
	default:
		return false;
	}
}

static enum http_outcome outcome(struct http_conn *c, CURLcode code)
{
	const struct http_get *get = c->get;

	if (code == CURLE_OK && c->answer.complete)
		judge(c);
	if (c->surplus) {
		snprintf(c->why, sizeof(c->why), "the server sent more than it was asked for");
		return HTTP_GET_BROKEN;
	}
	if (c->judged && c->verdict != HTTP_GOOD) {
		snprintf(c->why, sizeof(c->why), "the server %s [status %u]", c->verdict_why,
			 c->answer.status);
		return c->verdict == HTTP_RETRY     ? HTTP_GET_RETRY
		       : c->verdict == HTTP_CHANGED ? HTTP_GET_CHANGED
						    : HTTP_GET_BROKEN;
	}
	if (get->got == get->length)
		return HTTP_GET_DONE;
	if (c->endless) {
		snprintf(c->why, sizeof(c->why), "the header of the server's answer does not end");
		return HTTP_GET_BROKEN;
	}
	if (code == CURLE_OK) {
		snprintf(c->why, sizeof(c->why), "the server's answer ended early");
		return c->judged ? HTTP_GET_SHORT : HTTP_GET_RETRY;
	}
	snprintf(c->why, sizeof(c->why), "%s",
		 c->curl_error[0] ? c->curl_error : curl_easy_strerror(code));
	if (is_final(code))
		return HTTP_GET_BROKEN;
	return c->judged ? HTTP_GET_SHORT : HTTP_GET_RETRY;
}

static void note_timing(struct http_conn *c)
{
	curl_off_t sent = 0, first = 0, later = 0;
	long connects = 0;

	curl_easy_getinfo(c->easy, CURLINFO_PRETRANSFER_TIME_T, &sent);
	curl_easy_getinfo(c->easy, CURLINFO_STARTTRANSFER_TIME_T, &first);
	curl_easy_getinfo(c->easy, CURLINFO_RETRY_AFTER, &later);
	curl_easy_getinfo(c->easy, CURLINFO_NUM_CONNECTS, &connects);
	c->rtt_ns = first > sent ? (uint64_t)(first - sent) * NSEC_PER_USEC : 0;
	c->retry_after_ns = later > 0 ? (uint64_t)MIN(later, (curl_off_t)3600) * NSEC_PER_SEC : 0;
	c->was_new = connects > 0;
}

enum http_outcome http_conn_get(struct http_conn *conn, struct http_get *get)
{
	uint64_t first = get->offset + get->got;
	enum http_outcome o = HTTP_GET_ABORTED;
	CURLcode code = CURLE_OK;
	char range[48];

	assert(get->got < get->length);
	conn->get = get;
	conn->judged = false;
	conn->want = get->length - get->got;
	conn->body = 0;
	conn->surplus = false;
	conn->endless = false;
	conn->curl_error[0] = '\0';
	conn->why[0] = '\0';
	http_answer_begin(&conn->answer);
	snprintf(range, sizeof(range), "%" PRIu64 "-%" PRIu64, first, first + conn->want - 1);
	if (curl_easy_setopt(conn->easy, CURLOPT_RANGE, range) != CURLE_OK ||
	    curl_multi_add_handle(conn->multi, conn->easy) != CURLM_OK) {
		snprintf(conn->why, sizeof(conn->why), "out of memory");
		return HTTP_GET_RETRY;
	}
	if (run(conn, &code))
		o = outcome(conn, code);
	note_timing(conn);
	curl_multi_remove_handle(conn->multi, conn->easy);
	conn->get = NULL;
	return o;
}

const struct http_answer *http_conn_answer(const struct http_conn *conn)
{
	return &conn->answer;
}

const char *http_conn_why(const struct http_conn *conn)
{
	return conn->why;
}

uint64_t http_conn_retry_after_ns(const struct http_conn *conn)
{
	return conn->retry_after_ns;
}

uint64_t http_conn_rtt_ns(const struct http_conn *conn)
{
	return conn->rtt_ns;
}

bool http_conn_was_new(const struct http_conn *conn)
{
	return conn->was_new;
}

void http_conn_sleep(struct http_conn *conn, uint64_t ns)
{
	int ms = (int)MIN(ns / NSEC_PER_MSEC + 1, (uint64_t)60000);

	curl_multi_poll(conn->multi, NULL, 0, ms, NULL);
}

void http_conn_wake(struct http_conn *conn)
{
	curl_multi_wakeup(conn->multi);
}
