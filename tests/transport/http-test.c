// SPDX-License-Identifier: Apache-2.0
#include "transport/http.h"

#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/cleanup.h"
#include "core/clock.h"
#include "tests/transport/http-server.h"
#include "transport/http_answer.h"
#include "tests/lib/run.h"

#define SIZE (1u << 20)
#define AT (128u << 10)
#define LENGTH (64u << 10)

static struct server server;
static struct leaf_config conf;
static struct blk_dev *dev;

static void setup(void)
{
	memset(&server, 0, sizeof(server));
	server.size = SIZE;
	server.etag = "\"v1\"";
	memset(&conf, 0, sizeof(conf));
	conf.sessions = 2;
	conf.connect_timeout_ns = 10 * NSEC_PER_SEC;
	dev = NULL;
}

static void teardown(void)
{
	blk_destroy(dev);
	if (server.state)
		server_stop(&server);
}

static int try_start(struct err *err)
{
	char text[64];

	snprintf(text, sizeof(text), "http://127.0.0.1:%u/disk.img", server_start(&server));
	ck_assert_int_eq(url_parse(text, false, &conf.url, NULL), 0);
	ck_assert_int_eq(http_create(&conf, &dev, NULL), 0);
	return blk_start(dev, err);
}

static void start(void)
{
	struct err err = { "" };
	int r = try_start(&err);

	ck_assert_msg(r == 0, "%d: %s", r, err.text);
}

static void check_bytes(const uint8_t *buf, uint64_t offset, size_t length)
{
	for (size_t i = 0; i < length; i++)
		if (buf[i] != server_byte(offset + i, 1))
			ck_abort_msg("wrong byte at %zu", i);
}

/* A READ that runs while the test goes on. */
struct reader {
	struct blk_req req;
	struct iovec iov;
	uint8_t buf[LENGTH];
	pthread_mutex_t lock;
	pthread_cond_t ended;
	unsigned done;
	int result;
};

static void reader_done(struct blk_req *req, void *ctx, int result)
{
	struct reader *r = ctx;

	ck_assert_ptr_eq(req, &r->req);
	guard(&r->lock);
	r->done++;
	r->result = result;
	pthread_cond_signal(&r->ended);
}

static void reader_start(struct reader *r, uint64_t offset, unsigned flags)
{
	memset(r, 0, sizeof(*r));
	pthread_mutex_init(&r->lock, NULL);
	pthread_cond_init(&r->ended, NULL);
	r->iov = (struct iovec){ r->buf, sizeof(r->buf) };
	blk_req_init(&r->req, BLK_READ, offset, sizeof(r->buf), &r->iov, 1);
	r->req.flags = flags;
	blk_submit(dev, &r->req, reader_done, r);
}

static int reader_wait(struct reader *r)
{
	guard(&r->lock);
	while (!r->done)
		pthread_cond_wait(&r->ended, &r->lock);
	ck_assert_uint_eq(r->done, 1);
	return r->result;
}

/* Until a worker sleeps between two tries. */
static void await_pause(void)
{
	struct blk_session session[8];
	bool waiting = false;

	while (!waiting) {
		unsigned n = blk_sessions(dev, session, 8);

		for (unsigned i = 0; i < n; i++)
			waiting |= strcmp(session[i].state, "waiting") == 0;
		sched_yield();
	}
}

START_TEST(test_reads)
{
	static uint8_t buf[SIZE];
	struct blk_info info;
	struct blk_stats stats;
	struct iovec iov[3] = { { buf, 100 }, { buf + 100, 0 }, { buf + 100, 924 } };
	char header[2048];

	start();
	blk_info(dev, &info);
	ck_assert_uint_eq(info.size_bytes, SIZE);
	ck_assert_uint_eq(info.sector_bytes, 512);
	ck_assert_uint_eq(info.flags, BLK_INFO_READ_ONLY);
	ck_assert_ptr_nonnull(strstr(info.identity, ":size=1048576:etag=\"v1\":http://127.0.0.1:"));
	ck_assert_int_eq(blk_read_sync(dev, buf, 0, SIZE), 0);
	check_bytes(buf, 0, SIZE);
	memset(buf, 0, SIZE);
	ck_assert_int_eq(blk_read_sync(dev, buf, SIZE - 512, 512), 0);
	check_bytes(buf, SIZE - 512, 512);
	server_last_header(&server, header, sizeof(header));
	ck_assert_ptr_nonnull(strstr(header, "\r\nRange: bytes=1048064-1048575\r\n"));
	ck_assert_ptr_nonnull(strstr(header, "\r\nIf-Range: \"v1\"\r\n"));
	ck_assert_ptr_null(strstr(header, "Accept-Encoding"));
	ck_assert_ptr_null(strstr(header, "Authorization"));

	/* Pieces. */
	{
		struct reader r;

		memset(&r, 0, sizeof(r));
		pthread_mutex_init(&r.lock, NULL);
		pthread_cond_init(&r.ended, NULL);
		memset(buf, 0, 1024);
		blk_req_init(&r.req, BLK_READ, 512, 1024, iov, 3);
		blk_submit(dev, &r.req, reader_done, &r);
		ck_assert_int_eq(reader_wait(&r), 0);
		check_bytes(buf, 512, 1024);
	}
	ck_assert_int_eq(blk_read_sync(dev, buf, SIZE, 512), -EINVAL);
	ck_assert_int_eq(blk_read_sync(dev, buf, 1, 512), -EINVAL);
	ck_assert_int_eq(blk_write_sync(dev, buf, 0, 512, 0), -EROFS);
	ck_assert_int_eq(blk_flush_sync(dev), 0);
	blk_stats(dev, &stats);
	ck_assert_uint_eq(stats.read_bytes, SIZE + 512 + 1024);
	ck_assert(stats.online);
	blk_stop(dev);
	ck_assert_int_eq(blk_read_sync(dev, buf, 0, 512), -ESHUTDOWN);
}
END_TEST

START_TEST(test_odd_size)
{
	uint8_t buf[100];
	struct blk_info info;

	server.size = 1001;
	start();
	blk_info(dev, &info);
	ck_assert_uint_eq(info.size_bytes, 1001);
	ck_assert_uint_eq(info.sector_bytes, 1);
	ck_assert_int_eq(blk_read_sync(dev, buf, 901, 100), 0);
	check_bytes(buf, 901, 100);
}
END_TEST

START_TEST(test_connections_stay_open)
{
	struct blk_session session[2];
	uint8_t buf[512];

	conf.sessions = 1;
	start();
	for (unsigned i = 0; i < 10; i++)
		ck_assert_int_eq(blk_read_sync(dev, buf, i * 512, 512), 0);
	ck_assert_uint_eq(atomic_load(&server.requests), 11);
	ck_assert_uint_eq(atomic_load(&server.connections), 1);
	ck_assert_uint_eq(blk_sessions(dev, session, 2), 1);
	ck_assert_str_eq(session[0].state, "up");
	ck_assert_uint_eq(session[0].reconnects, 0);
	ck_assert_uint_gt(session[0].rtt_ns, 0);
	ck_assert(strncmp(session[0].portal, "127.0.0.1:", 10) == 0);
}
END_TEST

/* The server answers none before all are there. */
START_TEST(test_all_connections_are_used)
{
	static const enum manner script[] = { MEETING, MEETING, MEETING, MEETING };
	static struct reader reader[4];

	conf.sessions = 4;
	server.meeting = 4;
	start();
	server_script(&server, script, 4);
	for (unsigned i = 0; i < 4; i++)
		reader_start(&reader[i], i * LENGTH, 0);
	for (unsigned i = 0; i < 4; i++) {
		ck_assert_int_eq(reader_wait(&reader[i]), 0);
		check_bytes(reader[i].buf, i * LENGTH, LENGTH);
	}
	ck_assert_uint_eq(atomic_load(&server.connections), 4);
}
END_TEST

/* One answer that is not as it should be: right bytes come of it, or an error. */
static const struct row {
	const char *name;
	enum manner manner;
	int result;
	bool for_good; /* all later reads fail too */
} rows[] = {
	{ "new part", NEW_PART, -EIO, true },
	{ "new whole", NEW_WHOLE, -EIO, true },
	{ "new size", NEW_SIZE, -EIO, true },
	{ "new unmarked", NEW_UNMARKED, -EIO, false },
	{ "gone range", GONE_RANGE, -EIO, true },
	{ "same whole", SAME_WHOLE, -EIO, false },
	{ "odd 416", ODD_416, -EIO, false },
	{ "range later", RANGE_LATER, -EIO, false },
	{ "range shorter", RANGE_SHORTER, -EIO, false },
	{ "range longer", RANGE_LONGER, -EIO, false },
	{ "range missing", RANGE_MISSING, -EIO, false },
	{ "range twice", RANGE_TWICE, -EIO, false },
	{ "range junk", RANGE_JUNK, -EIO, false },
	{ "range overflow", RANGE_OVERFLOW, -EIO, false },
	{ "range no total", RANGE_NO_TOTAL, -EIO, false },
	{ "range other unit", RANGE_OTHER_UNIT, -EIO, false },
	{ "length wrong", LENGTH_WRONG, -EIO, false },
	{ "multipart", MULTIPART, -EIO, false },
	{ "encoded", ENCODED, -EIO, false },
	{ "two etags", TWO_ETAGS, -EIO, false },
	{ "body longer", BODY_LONGER, -EIO, false },
	{ "cut body", CUT_BODY, 0, false },
	{ "cut quiet", CUT_QUIET, 0, false },
	{ "cut empty", CUT_EMPTY, 0, false },
	{ "cut before header", CUT_BEFORE_HEADER, 0, false },
	{ "cut in header", CUT_IN_HEADER, 0, false },
	{ "401", S401, -EIO, false },
	{ "403", S403, -EIO, false },
	{ "404", S404, -EIO, false },
	{ "418", S418, -EIO, false },
	{ "204", S204, -EIO, false },
	{ "429", S429, 0, false },
	{ "500", S500, 0, false },
	{ "503", S503, 0, false },
	{ "garbage", GARBAGE, -EIO, false },
	{ "http 0.9", HTTP09, -EIO, false },
	{ "endless header", ENDLESS_HEADER, -EIO, false },
	{ "redirect", REDIRECT, 0, false },
	{ "redirect loop", REDIRECT_LOOP, -EIO, false },
	{ "redirect ftp", REDIRECT_FTP, -EIO, false },
	{ "redirect file", REDIRECT_FILE, -EIO, false },
};

START_TEST(test_manners)
{
	const struct row *row = &rows[_i];
	static uint8_t buf[LENGTH];
	int r;

	conf.sessions = 1;
	start();
	server_script(&server, &row->manner, 1);
	r = blk_read_sync(dev, buf, AT, LENGTH);
	ck_assert_msg(r == row->result, "%s: %d", row->name, r);
	if (r == 0)
		check_bytes(buf, AT, LENGTH);
	memset(buf, 0, sizeof(buf));
	r = blk_read_sync(dev, buf, AT, LENGTH);
	ck_assert_msg(r == (row->for_good ? -EIO : 0), "%s, then good: %d", row->name, r);
	if (r == 0)
		check_bytes(buf, AT, LENGTH);
}
END_TEST

/* The same at blk_start(): it fails with a message, or knows the right size. */
START_TEST(test_manners_at_start)
{
	const struct row *row = &rows[_i];
	struct err err = { "" };
	struct blk_info info;
	enum manner script[SERVER_SCRIPT];
	char text[64];
	int r;

	if (row->manner == RANGE_SHORTER)
		return; /* than one byte */
	for (unsigned i = 0; i < SERVER_SCRIPT; i++)
		script[i] = row->manner;
	snprintf(text, sizeof(text), "http://127.0.0.1:%u/disk.img", server_start(&server));
	ck_assert_int_eq(url_parse(text, false, &conf.url, NULL), 0);
	ck_assert_int_eq(http_create(&conf, &dev, NULL), 0);
	server_script(&server, script, SERVER_SCRIPT);
	r = blk_start(dev, &err);
	if (r < 0) {
		ck_assert_msg(strncmp(err.text, text, strlen(text)) == 0, "%s: %s", row->name,
			      err.text);
		ck_assert_uint_gt(strlen(err.text), strlen(text) + 8);
	} else {
		/* These look like any other version to one who knows none. */
		ck_assert_msg(row->manner == NEW_PART || row->manner == NEW_SIZE ||
				      row->manner == NEW_UNMARKED || row->manner == REDIRECT,
			      "%s passed", row->name);
		blk_info(dev, &info);
		ck_assert_uint_eq(info.size_bytes, row->manner == NEW_SIZE ? SIZE + 512 : SIZE);
	}
}
END_TEST

START_TEST(test_start_messages)
{
	static const struct {
		enum manner manner;
		int result;
		const char *says;
	} start_rows[] = {
		{ SAME_WHOLE, -ENOTSUP, "must support byte ranges" },
		{ ODD_416, -ENOTSUP, "is it empty?" },
		{ S401, -EACCES, "--credentials FILE" },
		{ S403, -EACCES, "refuses access" },
		{ S404, -ENOENT, "has no such file" },
		{ S503, -EIO, "trouble of its own" },
		{ REDIRECT_LOOP, -EIO, "redirects" },
		{ RANGE_NO_TOTAL, -EIO, "does not tell the file's size" },
	};
	struct err err = { "" };
	char text[64];

	snprintf(text, sizeof(text), "http://127.0.0.1:%u/disk.img", server_start(&server));
	ck_assert_int_eq(url_parse(text, false, &conf.url, NULL), 0);
	for (size_t i = 0; i < ARRAY_SIZE(start_rows); i++) {
		ck_assert_int_eq(http_create(&conf, &dev, NULL), 0);
		server_script(&server, &start_rows[i].manner, 1);
		ck_assert_int_eq(blk_start(dev, &err), start_rows[i].result);
		ck_assert_msg(strstr(err.text, start_rows[i].says) != NULL, "%s", err.text);
		blk_destroy(dev);
		dev = NULL;
	}
	/* Nobody listens. */
	server_stop(&server);
	ck_assert_int_eq(http_create(&conf, &dev, NULL), 0);
	ck_assert_int_eq(blk_start(dev, &err), -EIO);
	ck_assert_msg(strstr(err.text, "connect") != NULL, "%s", err.text);
}
END_TEST

START_TEST(test_start_timeout)
{
	static const enum manner script[] = { HANG };
	struct err err = { "" };
	char text[64];

	conf.connect_timeout_ns = 200 * NSEC_PER_MSEC;
	snprintf(text, sizeof(text), "http://127.0.0.1:%u/disk.img", server_start(&server));
	ck_assert_int_eq(url_parse(text, false, &conf.url, NULL), 0);
	ck_assert_int_eq(http_create(&conf, &dev, NULL), 0);
	server_script(&server, script, 1);
	ck_assert_int_eq(blk_start(dev, &err), -ETIMEDOUT);
	ck_assert_ptr_nonnull(strstr(err.text, "--connect-timeout"));
}
END_TEST

START_TEST(test_outage)
{
	static const enum manner script[] = { CUT_BEFORE_HEADER, S503, CUT_IN_HEADER,
					      CUT_BODY,          S500, CUT_QUIET };
	static struct reader r;
	struct blk_stats stats;

	conf.sessions = 1;
	start();
	server_script(&server, script, ARRAY_SIZE(script));
	reader_start(&r, AT, 0);
	await_pause();
	blk_stats(dev, &stats);
	ck_assert(!stats.online);
	ck_assert_int_eq(reader_wait(&r), 0);
	check_bytes(r.buf, AT, LENGTH);
	blk_stats(dev, &stats);
	ck_assert(stats.online);
}
END_TEST

START_TEST(test_short_answers_end)
{
	enum manner script[SERVER_SCRIPT];
	static struct reader r;

	conf.sessions = 1;
	start();
	for (unsigned i = 0; i < SERVER_SCRIPT; i++)
		script[i] = CUT_EMPTY;
	server_script(&server, script, SERVER_SCRIPT);
	reader_start(&r, AT, 0);
	/* The pauses double; the test need not wait for them. */
	for (unsigned i = 0; i < 7; i++) {
		server_await(&server, 2 + i);
		await_pause();
		blk_kick(dev);
	}
	ck_assert_int_eq(reader_wait(&r), -EIO);
	ck_assert_uint_eq(atomic_load(&server.requests), 9);
}
END_TEST

START_TEST(test_advisory_reads_do_not_wait)
{
	static const enum manner script[] = { S503 };
	static struct reader r;

	conf.sessions = 1;
	start();
	server_script(&server, script, 1);
	reader_start(&r, AT, BLK_ADVISORY);
	ck_assert_int_eq(reader_wait(&r), -ECANCELED);
}
END_TEST

START_TEST(test_retry_after_and_kick)
{
	static const enum manner script[] = { S503_LATER };
	static struct reader r;
	uint64_t begin = clock_monotonic_ns();

	conf.sessions = 1;
	start();
	server_script(&server, script, 1);
	reader_start(&r, AT, 0);
	server_await(&server, 2);
	await_pause();
	blk_kick(dev);
	ck_assert_int_eq(reader_wait(&r), 0);
	check_bytes(r.buf, AT, LENGTH);
	/* It would have been 30 s. */
	ck_assert_uint_lt(clock_monotonic_ns() - begin, 10 * NSEC_PER_SEC);
}
END_TEST

START_TEST(test_cancel)
{
	static const enum manner script[] = { HANG, GOOD, S503_LATER };
	static struct reader running, queued;
	uint64_t begin;

	conf.sessions = 1;
	start();
	server_script(&server, script, 3);
	reader_start(&running, AT, 0);
	server_await(&server, 2);
	reader_start(&queued, AT, 0);
	begin = clock_monotonic_ns();
	blk_cancel(dev, &queued.req);
	ck_assert_int_eq(reader_wait(&queued), -EINTR);
	blk_cancel(dev, &running.req);
	ck_assert_int_eq(reader_wait(&running), -EINTR);
	ck_assert_uint_lt(clock_monotonic_ns() - begin, 3 * NSEC_PER_SEC);

	/* What was cancelled leaves nothing behind for the next, in a pause neither. */
	reader_start(&running, AT, 0);
	ck_assert_int_eq(reader_wait(&running), 0);
	check_bytes(running.buf, AT, LENGTH);
	reader_start(&running, AT, 0);
	await_pause();
	blk_cancel(dev, &running.req);
	ck_assert_int_eq(reader_wait(&running), -EINTR);
}
END_TEST

START_TEST(test_stop_is_bounded)
{
	static const enum manner script[] = { HANG, S503_LATER };
	static struct reader reader[4];
	uint64_t begin;

	start();
	server_script(&server, script, 2);
	for (unsigned i = 0; i < 4; i++)
		reader_start(&reader[i], AT, 0);
	server_await(&server, 3);
	begin = clock_monotonic_ns();
	blk_stop(dev);
	ck_assert_uint_lt(clock_monotonic_ns() - begin, 2 * NSEC_PER_SEC);
	for (unsigned i = 0; i < 4; i++)
		ck_assert_int_eq(reader_wait(&reader[i]), -ESHUTDOWN);
}
END_TEST

START_TEST(test_credentials)
{
	struct err err = { "" };
	uint8_t buf[512];

	server.authorization = "\r\nAuthorization: Basic am9lOmh1c2g6IQ==\r\n";
	strcpy(conf.credentials.username, "joe");
	strcpy(conf.credentials.password, "hush:!");
	start();
	ck_assert_int_eq(blk_read_sync(dev, buf, 0, 512), 0);
	blk_destroy(dev);
	dev = NULL;
	strcpy(conf.credentials.password, "hush");
	ck_assert_int_eq(http_create(&conf, &dev, NULL), 0);
	ck_assert_int_eq(blk_start(dev, &err), -EACCES);
	ck_assert_ptr_null(strstr(err.text, "hush"));
}
END_TEST

/* Without a strong ETag: what is sent as If-Range, and what is still noticed. */
START_TEST(test_validators)
{
	static const enum manner script[] = { NEW_PART };
	char header[2048];
	uint8_t buf[512];

	server.etag = "W/\"v1\"";
	server.modified = "Tue, 15 Nov 1994 12:45:26 GMT";
	start();
	ck_assert_int_eq(blk_read_sync(dev, buf, 0, 512), 0);
	server_last_header(&server, header, sizeof(header));
	ck_assert_ptr_null(strstr(header, "If-Range"));
	server_script(&server, script, 1);
	ck_assert_int_eq(blk_read_sync(dev, buf, 0, 512), -EIO);
	ck_assert_int_eq(blk_read_sync(dev, buf, 0, 512), -EIO);
	blk_destroy(dev);
	dev = NULL;
	server_stop(&server);

	server.etag = NULL;
	start();
	ck_assert_int_eq(blk_read_sync(dev, buf, 0, 512), 0);
	server_last_header(&server, header, sizeof(header));
	ck_assert_ptr_nonnull(strstr(header, "\r\nIf-Range: Tue, 15 Nov 1994 12:45:26 GMT\r\n"));
}
END_TEST

static struct http_answer parsed(const char *text)
{
	struct http_answer a;

	http_answer_begin(&a);
	while (*text) {
		size_t n = strcspn(text, "\n");

		n += text[n] == '\n';
		ck_assert(http_answer_line(&a, text, n));
		text += n;
	}
	return a;
}

/* The judgement alone, for bytes 10-19 of 100, version "a". */
START_TEST(test_judge)
{
#define OK206 "HTTP/1.1 206 x\r\n"
#define OKRANGE "Content-Range: bytes 10-19/100\r\n"
	static const struct {
		const char *header;
		enum http_verdict verdict;
	} table[] = {
		{ OK206 OKRANGE "ETag: \"a\"\r\n", HTTP_GOOD },
		{ OK206 OKRANGE "etag:   \"a\"  \n\r\n", HTTP_GOOD },
		{ "HTTP/2 206\n" OKRANGE "ETag: \"a\"\n", HTTP_GOOD },
		{ OK206 OKRANGE "ETag: \"a\"\r\nETag: \"a\"\r\n", HTTP_GOOD },
		{ OK206 OKRANGE "ETag: \"a\"\r\nContent-Encoding: identity\r\n", HTTP_GOOD },
		{ "HTTP/1.1 302 x\r\nETag: \"b\"\r\nContent-Encoding: br\r\n\r\n" OK206 OKRANGE
		  "ETag: \"a\"\r\n",
		  HTTP_GOOD },
		{ OK206 OKRANGE, HTTP_BROKEN },
		{ OK206 "ETag: \"a\"\r\n", HTTP_BROKEN },
		{ OK206 OKRANGE "ETag: \"b\"\r\n", HTTP_CHANGED },
		{ OK206 OKRANGE "ETag: W/\"a\"\r\n", HTTP_CHANGED },
		{ OK206 "ETag: \"a\"\r\nContent-Range: bytes 10-19/101\r\n", HTTP_CHANGED },
		{ OK206 "ETag: \"a\"\r\nContent-Range: bytes 10-19\r\n", HTTP_BROKEN },
		{ OK206 "ETag: \"a\"\r\nContent-Range: bytes */100\r\n", HTTP_BROKEN },
		{ OK206 "ETag: \"a\"\r\nContent-Range: bytes 19-10/100\r\n", HTTP_BROKEN },
		{ OK206 "ETag: \"a\"\r\nContent-Range: bytes 10-19/100 x\r\n", HTTP_BROKEN },
		{ OK206 "ETag: \"a\"\r\nContent-Range: bytes -10-19/100\r\n", HTTP_BROKEN },
		{ OK206 "ETag: \"a\"\r\nContent-Range: bytes 10-19/\r\n", HTTP_BROKEN },
		{ OK206 "ETag: \"a\"\r\nContent-Range: bytes\r\n", HTTP_BROKEN },
		{ OK206 "ETag: \"a\"\r\nContent-Range:\r\n", HTTP_BROKEN },
		{ OK206 OKRANGE "ETag: \"a\"\r\nContent-Length: 10\r\n", HTTP_GOOD },
		{ OK206 OKRANGE "ETag: \"a\"\r\nContent-Length: 11\r\n", HTTP_BROKEN },
		{ OK206 OKRANGE "ETag: \"a\"\r\nContent-Length: 10x\r\n", HTTP_BROKEN },
		{ "HTTP/1.1 200 x\r\nETag: \"a\"\r\n", HTTP_BROKEN },
		{ "HTTP/1.1 200 x\r\nETag: \"b\"\r\n", HTTP_CHANGED },
		{ "HTTP/1.1 200 x\r\nETag: \"a\"\r\nContent-Length: 99\r\n", HTTP_CHANGED },
		{ "HTTP/1.1 416 x\r\n", HTTP_CHANGED },
		{ "HTTP/1.1 416 x\r\nContent-Range: bytes */100\r\n", HTTP_BROKEN },
		{ "HTTP/1.1 503 x\r\n", HTTP_RETRY },
		{ "HTTP/1.1 599 x\r\n", HTTP_RETRY },
		{ "HTTP/1.1 600 x\r\n", HTTP_BROKEN },
		{ "HTTP/1.1 304 x\r\n", HTTP_BROKEN },
		{ "HTTP/1.1\r\n", HTTP_BROKEN },
		{ "", HTTP_BROKEN },
	};
	const struct http_pin pin = { .size_bytes = 100, .etag = "\"a\"" };
	const char *why;

	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		struct http_answer a = parsed(table[i].header);

		ck_assert_msg(http_answer_judge(&a, &pin, 10, 19, &why) == table[i].verdict,
			      "row %zu: %s", i, why);
	}
}
END_TEST

int main(void)
{
	Suite *s = suite_create("http");
	TCase *tc = tcase_create("http");

	/* A proxy of the machine has no business with loopback. */
	setenv("no_proxy", "*", 1);
	tcase_set_timeout(tc, 30);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, test_reads);
	tcase_add_test(tc, test_odd_size);
	tcase_add_test(tc, test_connections_stay_open);
	tcase_add_test(tc, test_all_connections_are_used);
	tcase_add_loop_test(tc, test_manners, 0, ARRAY_SIZE(rows));
	tcase_add_loop_test(tc, test_manners_at_start, 0, ARRAY_SIZE(rows));
	tcase_add_test(tc, test_start_messages);
	tcase_add_test(tc, test_start_timeout);
	tcase_add_test(tc, test_outage);
	tcase_add_test(tc, test_short_answers_end);
	tcase_add_test(tc, test_advisory_reads_do_not_wait);
	tcase_add_test(tc, test_retry_after_and_kick);
	tcase_add_test(tc, test_cancel);
	tcase_add_test(tc, test_stop_is_bounded);
	tcase_add_test(tc, test_credentials);
	tcase_add_test(tc, test_validators);
	tcase_add_test(tc, test_judge);
	suite_add_tcase(s, tc);
	return run_suite(s);
}
