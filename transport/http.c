// SPDX-License-Identifier: Apache-2.0
/*
 * One worker thread per connection; a request is queued in `lanes`, or is some worker's `req`, or
 * is done. What the workers share about the far side:
 *
 *	online ──a try fails──→ offline: readers wait, advisory requests are let go
 *	offline ──a try succeeds──→ online: every pause ends
 *	any ──a version other than the pinned one──→ changed, for good
 *
 * Invariants (http_check()): a request in a worker's hands is in no list and in no other's; with
 * stopping the queue is empty and stays so. A request cancelled in a worker's hands is ended by it.
 */
#include "transport/http.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "core/clock.h"
#include "core/crc32c.h"
#include "core/log.h"
#include "core/parse.h"
#include "policy/backoff.h"
#include "transport/http_conn.h"
#include "transport/lanes.h"

#define READ_BYTES (1u << 20)
#define PAUSE_MIN_NS (100 * NSEC_PER_MSEC)
#define PAUSE_MAX_NS (10 * NSEC_PER_SEC)
#define RETRY_AFTER_MAX_NS (60 * NSEC_PER_SEC)
#define SHORT_ANSWERS_MAX 8 /* in a row, without one more byte */

struct worker {
	struct http *http;
	struct http_conn *conn;
	pthread_t thread;
	struct blk_req *req; /* guarded by http->lock */
	atomic_bool cancel;  /* set under http->lock while req is there */
	atomic_bool pausing;
	_Atomic uint64_t rtt_ns;
	_Atomic uint64_t connects;
};

struct http {
	struct blk_dev dev;
	struct url url;
	struct leaf_credentials credentials;
	uint64_t connect_timeout_ns;
	unsigned sessions;
	struct blk_info info; /* constant once started */
	atomic_bool stopping; /* written under lock */
	atomic_bool changed;
	atomic_bool online;
	atomic_uint kicks; /* moves when pauses shall end */
	_Atomic uint64_t read_bytes;

	pthread_mutex_t lock;
	pthread_cond_t work;   /* something to take, or stopping */
	struct lanes lanes;    /* guarded by lock */
	unsigned threads;      /* running; changed by start and stop only */
	struct worker *worker; /* sessions of them */
};

/* The lock is held. */
static void http_check(const struct http *h)
{
	lanes_check(&h->lanes);
#ifdef ENABLE_INVARIANTS
	for (unsigned i = 0; i < h->sessions; i++) {
		const struct blk_req *req = h->worker[i].req;

		assert(!req || list_empty(&req->link));
		for (unsigned j = 0; j < i; j++)
			assert(!req || req != h->worker[j].req);
	}
	for (unsigned i = 0; i < BLK_LANE_COUNT; i++)
		assert(!atomic_load(&h->stopping) || list_empty(&h->lanes.queue[i]));
#endif
}

static bool worker_aborted(void *ctx)
{
	struct worker *w = ctx;

	return atomic_load(&w->http->stopping) || atomic_load(&w->cancel);
}

static void end_pauses(struct http *h)
{
	atomic_fetch_add(&h->kicks, 1);
	for (unsigned i = 0; i < h->sessions; i++)
		http_conn_wake(h->worker[i].conn);
}

/* Say it once per change, however many readers see it. */
static void set_online(struct http *h, bool online, const char *why)
{
	if (atomic_exchange(&h->online, online) == online)
		return;
	if (online) {
		log_info("%s: the server answers again", h->url.text);
		end_pauses(h);
	} else {
		log_warning("%s: %s; reads wait until the server answers", h->url.text, why);
	}
}

static void set_changed(struct http *h, const char *why)
{
	if (!atomic_exchange(&h->changed, true))
		log_error("%s: the origin changed: %s. Nothing more is read from it; unmount, and "
			  "mount it anew",
			  h->url.text, why);
}

/* Wait for @ns, a kick, or the end of the request. */
static void take_a_pause(struct worker *w, uint64_t ns)
{
	unsigned kicks = atomic_load(&w->http->kicks);
	uint64_t until = clock_monotonic_ns() + ns, now;

	atomic_store(&w->pausing, true);
	while (!worker_aborted(w) && atomic_load(&w->http->kicks) == kicks &&
	       (now = clock_monotonic_ns()) < until)
		http_conn_sleep(w->conn, until - now);
	atomic_store(&w->pausing, false);
}

/* Differs between workers and between pauses; that is all that is asked of it. */
static uint64_t some_bits(const struct worker *w)
{
	uint64_t x = clock_monotonic_ns() ^ (uint64_t)(uintptr_t)w;

	return ((x ^ (x >> 31)) * 0x9e3779b97f4a7c15u) >> 16;
}

static int read_failed(struct worker *w, const struct blk_req *req)
{
	log_error("%s: read at %" PRIu64 ", %" PRIu64 " bytes: %s", w->http->url.text, req->offset,
		  req->length, http_conn_why(w->conn));
	return -EIO;
}

static void note_answer(struct worker *w)
{
	if (http_conn_rtt_ns(w->conn))
		atomic_store(&w->rtt_ns, http_conn_rtt_ns(w->conn));
	if (http_conn_was_new(w->conn))
		atomic_fetch_add(&w->connects, 1);
}

static int fetch(struct worker *w, struct blk_req *req)
{
	struct http *h = w->http;
	struct http_get get = {
		.offset = req->offset,
		.length = req->length,
		.iov = req->iov,
		.iovcnt = req->iovcnt,
		.aborted = worker_aborted,
		.ctx = w,
	};
	struct backoff backoff = { .min_ns = PAUSE_MIN_NS, .max_ns = PAUSE_MAX_NS };
	unsigned fruitless = 0;

	for (;;) {
		uint64_t before = get.got;
		enum http_outcome o;

		if (atomic_load(&h->stopping))
			return -ESHUTDOWN;
		if (atomic_load(&w->cancel))
			return -EINTR;
		if (atomic_load(&h->changed))
			return -EIO;
		o = http_conn_get(w->conn, &get);
		note_answer(w);
		atomic_fetch_add(&h->read_bytes, get.got - before);
		switch (o) {
		case HTTP_GET_DONE:
			set_online(h, true, NULL);
			return 0;
		case HTTP_GET_CHANGED:
			set_changed(h, http_conn_why(w->conn));
			return -EIO;
		case HTTP_GET_BROKEN:
			return read_failed(w, req);
		case HTTP_GET_ABORTED:
			continue;
		case HTTP_GET_SHORT:
			if (get.got == before && ++fruitless == SHORT_ANSWERS_MAX)
				return read_failed(w, req);
			break;
		case HTTP_GET_RETRY:
			break;
		}
		/* Bytes came: go on from there at once, as after a keep-alive that timed out. */
		if (get.got > before) {
			backoff_reset(&backoff);
			fruitless = 0;
			continue;
		}
		set_online(h, false, http_conn_why(w->conn));
		if (req->flags & BLK_ADVISORY)
			return -ECANCELED;
		take_a_pause(w, MAX(backoff_next_ns(&backoff, some_bits(w)),
				    MIN(http_conn_retry_after_ns(w->conn), RETRY_AFTER_MAX_NS)));
	}
}

static void *worker_run(void *arg)
{
	struct worker *w = arg;
	struct http *h = w->http;

	pthread_setname_np(pthread_self(), "nb-http");
	pthread_mutex_lock(&h->lock);
	while (!atomic_load(&h->stopping)) {
		struct blk_req *req = lanes_take(&h->lanes);
		enum blk_lane lane;
		int r;

		if (!req) {
			pthread_cond_wait(&h->work, &h->lock);
			continue;
		}
		lane = req->lane;
		w->req = req;
		atomic_store(&w->cancel, false);
		http_check(h);
		pthread_mutex_unlock(&h->lock);
		r = fetch(w, req);
		pthread_mutex_lock(&h->lock);
		w->req = NULL;
		lanes_ended(&h->lanes, lane);
		pthread_cond_signal(&h->work);
		pthread_mutex_unlock(&h->lock);
		blk_complete(req, r);
		pthread_mutex_lock(&h->lock);
	}
	pthread_mutex_unlock(&h->lock);
	return NULL;
}

struct probe {
	uint64_t deadline_ns;
};

static bool probe_aborted(void *ctx)
{
	return clock_monotonic_ns() >= ((struct probe *)ctx)->deadline_ns;
}

static int probe_failed(struct http *h, struct http_conn *conn, enum http_outcome o,
			struct err *err)
{
	unsigned status = http_conn_answer(conn)->status;
	char span[24];

	if (o == HTTP_GET_ABORTED)
		return err_set(err, -ETIMEDOUT, "%s: no answer within %s (--connect-timeout)",
			       h->url.text, format_duration(h->connect_timeout_ns, span));
	return err_set(err,
		       status == 401 || status == 403 || status == 407 ? -EACCES
		       : status == 404 || status == 410                ? -ENOENT
		       : status == 200 || status == 416                ? -ENOTSUP
								       : -EIO,
		       "%s: %s", h->url.text, http_conn_why(conn));
}

/* What the first answer tells of the file. */
static int learn(struct http *h, const struct http_answer *a, struct http_pin *pin, struct err *err)
{
	if (a->total > INT64_MAX)
		return err_set(err, -EFBIG, "%s: the server tells an impossible size", h->url.text);
	pin->size_bytes = a->total;
	strcpy(pin->etag, a->etag);
	strcpy(pin->modified, a->modified);
	if (!pin->etag[0] && !pin->modified[0])
		log_warning("%s: the server gives neither ETag nor Last-Modified: only a change of "
			    "the file's size will be noticed",
			    h->url.text);
	h->info = (struct blk_info){
		.size_bytes = a->total,
		.sector_bytes = a->total % 512 ? 1 : 512,
		.max_read_bytes = READ_BYTES,
		.max_write_bytes = READ_BYTES,
		.flags = BLK_INFO_READ_ONLY,
	};
	/* The checksum tells apart what is cut, and what the URL's text does not show. */
	snprintf(h->info.identity, sizeof(h->info.identity),
		 "http:%08x:size=%" PRIu64 ":%s=%s:%.200s",
		 crc32c(0, h->url.path, strlen(h->url.path)), a->total,
		 pin->etag[0] ? "etag" : "modified", pin->etag[0] ? pin->etag : pin->modified,
		 h->url.text);
	return 0;
}

static int probe(struct http *h, struct http_pin *pin, struct err *err)
{
	struct probe p = { .deadline_ns = clock_monotonic_ns() + h->connect_timeout_ns };
	struct http_conn *conn = h->worker[0].conn;
	uint8_t byte;
	struct iovec iov = { .iov_base = &byte, .iov_len = 1 };
	struct http_get get = {
		.length = 1, .iov = &iov, .iovcnt = 1, .aborted = probe_aborted, .ctx = &p
	};
	enum http_outcome o = http_conn_get(conn, &get);

	note_answer(&h->worker[0]);
	if (o != HTTP_GET_DONE)
		return probe_failed(h, conn, o, err);
	return learn(h, http_conn_answer(conn), pin, err);
}

static int http_start(struct blk_dev *dev, struct err *err)
{
	struct http *h = container_of(dev, struct http, dev);
	struct http_pin pin = { .size_bytes = 0 };
	int r;

	if (h->url.scheme == URL_HTTP && h->credentials.username[0])
		log_warning("%s: user and password cross the network in clear: use https",
			    h->url.text);
	r = probe(h, &pin, err);
	for (unsigned i = 0; i < h->sessions && r == 0; i++)
		r = http_conn_pin(h->worker[i].conn, &pin);
	if (r == -ENOMEM)
		return err_set(err, r, "%s: out of memory", h->url.text);
	if (r < 0)
		return r;
	for (; h->threads < h->sessions; h->threads++) {
		struct worker *w = &h->worker[h->threads];

		r = pthread_create(&w->thread, NULL, worker_run, w);
		if (r)
			return err_set(err, -r, "%s: no thread to read it: %s", h->url.text,
				       strerror(r));
	}
	return 0;
}

static void http_submit(struct blk_dev *dev, struct blk_req *req)
{
	struct http *h = container_of(dev, struct http, dev);
	int r = blk_check(&h->info, req);
	bool queued;

	pthread_mutex_lock(&h->lock);
	if (atomic_load(&h->stopping))
		r = -ESHUTDOWN;
	queued = r == 0 && req->op == BLK_READ;
	if (queued) {
		lanes_push(&h->lanes, req);
		pthread_cond_signal(&h->work);
	}
	http_check(h);
	pthread_mutex_unlock(&h->lock);
	if (!queued)
		blk_complete(req, r); /* a FLUSH has nothing to do here */
}

static void http_cancel(struct blk_dev *dev, struct blk_req *req)
{
	struct http *h = container_of(dev, struct http, dev);
	bool queued;

	pthread_mutex_lock(&h->lock);
	queued = lanes_remove(&h->lanes, req);
	for (unsigned i = 0; i < h->threads && !queued; i++) {
		if (h->worker[i].req == req) {
			atomic_store(&h->worker[i].cancel, true);
			http_conn_wake(h->worker[i].conn);
		}
	}
	pthread_mutex_unlock(&h->lock);
	if (queued)
		blk_complete(req, -EINTR);
}

static void http_stop(struct blk_dev *dev)
{
	struct http *h = container_of(dev, struct http, dev);
	struct list_node rest, *n;

	list_init(&rest);
	pthread_mutex_lock(&h->lock);
	atomic_store(&h->stopping, true);
	lanes_drain(&h->lanes, &rest);
	http_check(h);
	pthread_cond_broadcast(&h->work);
	pthread_mutex_unlock(&h->lock);
	end_pauses(h);
	while ((n = list_pop(&rest)))
		blk_complete(list_entry(n, struct blk_req, link), -ESHUTDOWN);
	while (h->threads)
		pthread_join(h->worker[--h->threads].thread, NULL);
}

static void http_destroy(struct blk_dev *dev)
{
	struct http *h = container_of(dev, struct http, dev);

	for (unsigned i = 0; i < h->sessions; i++)
		http_conn_destroy(h->worker[i].conn);
	pthread_cond_destroy(&h->work);
	pthread_mutex_destroy(&h->lock);
	explicit_bzero(&h->credentials, sizeof(h->credentials));
	free(h->worker);
	free(h);
}

static void http_info(struct blk_dev *dev, struct blk_info *ret_info)
{
	*ret_info = container_of(dev, struct http, dev)->info;
}

static unsigned http_sessions(struct blk_dev *dev, struct blk_session *out, unsigned max)
{
	struct http *h = container_of(dev, struct http, dev);
	const char *host = strstr(h->url.text, "://") + 3;

	guard(&h->lock);
	for (unsigned i = 0; i < MIN(h->sessions, max); i++) {
		struct worker *w = &h->worker[i];
		uint64_t connects = atomic_load(&w->connects);

		out[i] = (struct blk_session){
			.rtt_ns = atomic_load(&w->rtt_ns),
			.in_flight_bytes = w->req ? w->req->length : 0,
			.reconnects = connects ? connects - 1 : 0,
		};
		snprintf(out[i].portal, sizeof(out[i].portal), "%.*s", (int)strcspn(host, "/"),
			 host);
		strcpy(out[i].state, atomic_load(&w->pausing)  ? "waiting"
				     : atomic_load(&h->online) ? "up"
							       : "connecting");
	}
	return h->sessions;
}

static void http_stats(struct blk_dev *dev, struct blk_stats *ret_stats)
{
	struct http *h = container_of(dev, struct http, dev);

	ret_stats->read_bytes = atomic_load(&h->read_bytes);
	ret_stats->online = atomic_load(&h->online);
}

static void http_kick(struct blk_dev *dev)
{
	end_pauses(container_of(dev, struct http, dev));
}

static const struct blk_ops http_ops = {
	.name = "http",
	.start = http_start,
	.submit = http_submit,
	.stop = http_stop,
	.destroy = http_destroy,
	.info = http_info,
	.cancel = http_cancel,
	.sessions = http_sessions,
	.stats = http_stats,
	.kick = http_kick,
};

int http_create(const struct leaf_config *conf, struct blk_dev **ret, struct err *err)
{
	struct http *h = calloc(1, sizeof(*h));

	if (!h)
		return err_set(err, -ENOMEM, "out of memory");
	h->dev.ops = &http_ops;
	h->url = conf->url;
	h->credentials = conf->credentials;
	h->connect_timeout_ns = conf->connect_timeout_ns;
	atomic_store(&h->online, true);
	pthread_mutex_init(&h->lock, NULL);
	pthread_cond_init(&h->work, NULL);
	/* One connection stays free for those who wait. */
	lanes_init(&h->lanes, MAX(conf->sessions, 2u) - 1);
	h->worker = calloc(conf->sessions, sizeof(h->worker[0]));
	for (; h->worker && h->sessions < conf->sessions; h->sessions++) {
		struct worker *w = &h->worker[h->sessions];

		w->http = h;
		w->conn = http_conn_create(h->url.path, &h->credentials);
		if (!w->conn)
			break;
	}
	if (!h->worker || h->sessions < conf->sessions) {
		http_destroy(&h->dev);
		return err_set(err, -ENOMEM, "out of memory");
	}
	*ret = &h->dev;
	return 0;
}
