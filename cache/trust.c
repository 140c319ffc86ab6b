// SPDX-License-Identifier: Apache-2.0
/*
 * Somebody else may have changed the volume while it was not mounted here. The far side cannot
 * tell, so a few blocks of it are read and compared with what the cache knows of them: where a file
 * system writes whenever it is mounted (start, first MiB, end), what was sent last, and some from
 * anywhere. A change that touches none of them is not seen.
 *
 * Only blocks whose newest version is durable at the far side count, by the log and the map; so
 * what was half sent when we were killed is never taken for a change of somebody else's. Samples
 * noted in the identity record at the last stop are for what has left the cache since, and count
 * only if that stop was clean.
 *
 * The reads are in the lane of write-back, which waits through every outage.
 */
#include "cache/trust.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/crc32c.h"
#include "core/log.h"

/* An opening waits for the answers this long; then it goes on without them. */
#define WAIT_NS (5 * NSEC_PER_SEC)
#define FIXED 7u
#define RECENT 5u
#define RECENT_TRIES 64u

struct known {
	uint64_t blk;
	uint32_t crc;
};

struct known_list {
	struct known k[2 * IDENTITY_SAMPLES];
	unsigned n, max;
};

struct sample {
	struct inner_io io;
	struct iovec iov;
	struct trust *trust;
	uint64_t blk;
	uint32_t crc;
	uint8_t *buf;
};

struct trust {
	struct cache *cache;
	struct sched_timer timer;
	bool late;               /* guarded by the cache's lock, like all below */
	bool opening;            /* the opening waits for the verdict */
	unsigned n, left;        /* samples; answers missing */
	unsigned compared;       /* answers with data */
	unsigned differ;         /* of them */
	uint64_t differ_at;      /* bytes; the first one */
	struct list_node parked; /* fetch.io.link */
	char why[320];
	uint8_t *buf;
	struct sample sample[2 * IDENTITY_SAMPLES];
};

/* ---- what is known ---- */

static uint32_t zero_crc(void)
{
	static const uint8_t zeroes[BLK];

	return crc32c(0, zeroes, BLK);
}

static void add(struct known_list *l, uint64_t blk, uint32_t crc)
{
	for (unsigned i = 0; i < l->n; i++)
		if (l->k[i].blk == blk)
			return;
	if (l->n < l->max)
		l->k[l->n++] = (struct known){ blk, crc };
}

/* A record that is not at the target touches @blk; @rec NULL: there are none. */
static bool unsent(const struct recovery *rec, uint64_t blk)
{
	for (size_t i = rec ? rec->nfound : 0; i-- > 0;) {
		const struct found *f = &rec->found[i];

		if (f->record.seq <= rec->destaged)
			break;
		if (!f->void_ && format_is_data(&f->record) &&
		    range_overlap(f->record.blk, f->record.nblocks, blk, 1))
			return true;
	}
	return false;
}

/* Add @blk if it is cached as the far side has it. */
static void add_cached(const struct cache *c, const struct recovery *rec, struct known_list *l,
		       uint64_t blk)
{
	uint64_t entry = blk < c->nblocks ? map_get(&c->map, blk) : MAP_ENTRY_NONE;
	enum map_state state = map_entry_state(entry);

	if ((state != MAP_DATA && state != MAP_ZERO) || unsent(rec, blk))
		return;
	add(l, blk, state == MAP_DATA ? map_entry_crc(entry) : zero_crc());
}

/* Partition tables, superblocks of ext4, XFS and btrfs, with and without a first partition. */
static void add_fixed(const struct cache *c, const struct recovery *rec, struct known_list *l)
{
	const uint64_t blk[FIXED] = { 0, 1, 16, 256, 272, 512, c->nblocks - 1 };

	for (unsigned i = 0; i < FIXED; i++)
		add_cached(c, rec, l, blk[i]);
}

static void add_recent(const struct cache *c, const struct recovery *rec, struct known_list *l)
{
	unsigned until = MIN(l->n + RECENT, l->max), tries = 0;

	for (size_t i = rec->nfound; i-- > 0 && l->n < until && tries < RECENT_TRIES;) {
		const struct found *f = &rec->found[i];

		if (f->record.seq > rec->destaged || f->record.kind != FORMAT_WRITE || f->void_)
			continue;
		add_cached(c, rec, l, f->record.blk);
		tries++;
	}
}

/* The first block with data behind a place of its own in each part of the volume. */
static void add_spread(const struct cache *c, const struct recovery *rec, struct known_list *l)
{
	unsigned parts = l->max - l->n;
	uint64_t dice = c->conf.identity->generation * 0x9e3779b97f4a7c15ull;

	for (unsigned i = 0; i < parts; i++) {
		uint64_t from = c->nblocks / parts * i, n = MAX(c->nblocks / parts, 1ull);
		uint64_t blk = from + (dice >> 16) % n, end = MIN(from + n, c->nblocks);

		while (blk < end) {
			enum map_state state;
			uint64_t run = map_run(&c->map, blk, end - blk, &state);

			if (state == MAP_DATA) {
				add_cached(c, rec, l, blk);
				break;
			}
			blk += run;
		}
	}
}

/* The lock is not needed: nobody changes the map while opening or once all is quiet. */
static void pick(const struct cache *c, const struct recovery *rec, struct known_list *l)
{
	const struct cache_identity *id = c->conf.identity;

	l->n = 0;
	l->max = IDENTITY_SAMPLES;
	add_fixed(c, rec, l);
	if (rec)
		add_recent(c, rec, l);
	add_spread(c, rec, l);
	l->max = ARRAY_SIZE(l->k);
	for (unsigned i = 0; rec && rec->was_clean && i < IDENTITY_SAMPLES; i++)
		if (id->sample[i].offset / BLK < c->nblocks)
			add(l, id->sample[i].offset / BLK, id->sample[i].crc);
}

void trust_note(struct cache *c)
{
	struct cache_identity *id = c->conf.identity;
	struct known_list l;

	pick(c, NULL, &l);
	/* What has left the cache and was not written since is as it was, but nobody knows that. */
	for (unsigned i = 0; i < IDENTITY_SAMPLES; i++) {
		id->sample[i].offset = i < l.n ? l.k[i].blk * BLK : UINT64_MAX;
		id->sample[i].crc = i < l.n ? l.k[i].crc : 0;
	}
}

/* ---- the comparison ---- */

static void timer_fired(struct task *task)
{
	struct trust *t = container_of(task, struct trust, timer.task);
	struct todo todo;

	cache_lock(t->cache, &todo);
	t->late = true;
	cache_unlock(t->cache, &todo);
}

/* The verdict on an open cache. The lock is held. */
static void fence(struct cache *c, struct todo *todo)
{
	struct trust *t = c->trust;

	snprintf(t->why, sizeof(t->why),
		 "the volume was changed elsewhere while it was not in use here (%u of %u samples "
		 "differ, the first at offset %" PRIu64 "): nothing is sent to it; unmount, and "
		 "mount again, with --force-push if what is not yet at the target is to be sent "
		 "all the same",
		 t->differ, t->compared, t->differ_at);
	atomic_store(&c->fenced_why, t->why);
	destage_fence(c, todo);
}

static void answered(struct blk_req *req, void *ctx, int result)
{
	struct sample *s = ctx;
	struct trust *t = s->trust;
	struct cache *c = t->cache;
	bool same = result < 0 || crc32c(0, s->buf, BLK) == s->crc;
	struct list_node parked, *n;
	bool late_verdict = false;
	struct todo todo;

	list_init(&parked);
	cache_lock(c, &todo);
	t->compared += result == 0;
	if (!same && t->differ++ == 0)
		t->differ_at = s->blk * BLK;
	if (--t->left == 0) {
		late_verdict = !t->opening;
		atomic_store(&c->trust_state, t->differ ? TRUST_CHANGED : TRUST_SETTLED);
		if (t->differ && late_verdict)
			fence(c, &todo);
		if (late_verdict && c->started)
			destage_kick(c);
		list_splice_tail(&parked, &t->parked);
	}
	cache_unlock(c, &todo);
	if (late_verdict && t->differ)
		log_error("%s", t->why);
	while ((n = list_pop(&parked)))
		fetch_answered(container_of(n, struct fetch, io.link),
			       result == -ESHUTDOWN ? result : 0);
	cache_lock(c, &todo);
	cache_put(c);
	cache_unlock(c, &todo);
}

int trust_admit(struct cache *c, struct fetch *f)
{
	struct todo todo;
	int r = 0;

	if (atomic_load(&c->trust_state) == TRUST_SETTLED)
		return 0;
	cache_lock(c, &todo);
	if (atomic_load(&c->trust_state) == TRUST_CHANGED) {
		r = -ESTALE;
	} else if (atomic_load(&c->trust_state) == TRUST_ASKED) {
		list_add_tail(&c->trust->parked, &f->io.link);
		r = -EINPROGRESS;
	}
	cache_unlock(c, &todo);
	return r;
}

static struct trust *make(struct cache *c, const struct known_list *l)
{
	struct trust *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->buf = aligned_alloc(BLK, (size_t)l->n * BLK);
	if (!t->buf) {
		free(t);
		return NULL;
	}
	memset(t->buf, 0, (size_t)l->n * BLK);
	t->cache = c;
	t->n = t->left = l->n;
	list_init(&t->parked);
	sched_timer_init(&t->timer, timer_fired);
	for (unsigned i = 0; i < l->n; i++) {
		struct sample *s = &t->sample[i];

		s->trust = t;
		s->blk = l->k[i].blk;
		s->crc = l->k[i].crc;
		s->buf = t->buf + (size_t)i * BLK;
		s->iov = (struct iovec){ s->buf, (size_t)cache_valid_bytes(c, s->blk, 1) };
		blk_req_init(&s->io.req, BLK_READ, s->blk * BLK, s->iov.iov_len, &s->iov, 1);
		s->io.req.lane = BLK_LANE_WRITEBACK;
		s->io.done = answered;
		s->io.ctx = s;
		list_init(&s->io.link);
	}
	return t;
}

static bool verdict_or_late(struct cache *c)
{
	return c->trust->left == 0 || c->trust->late;
}

/* Ask, and wait for the answers if somebody is there to give them. 0 or -ENOMEM. */
static int compare(struct cache *c, const struct known_list *l)
{
	struct blk_stats stats;
	struct todo todo;

	blk_stats(c->dev.inner, &stats);
	c->trust = make(c, l);
	if (!c->trust)
		return -ENOMEM;
	cache_lock(c, &todo);
	atomic_store(&c->trust_state, TRUST_ASKED);
	c->trust->opening = true;
	for (unsigned i = 0; i < c->trust->n; i++) {
		cache_get(c);
		list_add_tail(&todo.inner, &c->trust->sample[i].io.link);
	}
	sched_arm(c->sched, &c->trust->timer, sched_now(c->sched) + (stats.online ? WAIT_NS : 0));
	cache_unlock(c, &todo);
	cache_wait(c, verdict_or_late);
	cache_lock(c, &todo);
	c->trust->opening = false;
	cache_unlock(c, &todo);
	return 0;
}

static int changed(struct recovery *rec, struct err *err)
{
	struct cache *c = rec->c;
	const struct trust *t = c->trust;

	if (c->dirty_slots && !c->conf.force_push)
		return err_set(err, -EMEDIUMTYPE,
			       "the volume was changed elsewhere since it was used here (%u of %u "
			       "samples differ, the first at offset %" PRIu64
			       "), and this cache holds writes that it has not got: --force-push "
			       "sends them over what was changed; another --cache-dir leaves them "
			       "here",
			       t->differ, t->compared, t->differ_at);
	log_warning("the volume was changed elsewhere since it was used here (%u of %u samples "
		    "differ, the first at offset %" PRIu64 "): %s",
		    t->differ, t->compared, t->differ_at,
		    c->dirty_slots ? "what was cached of it is forgotten, what was not yet sent is "
				     "sent over it (--force-push)"
				   : "what was cached of it is forgotten");
	atomic_store(&c->trust_state, TRUST_SETTLED);
	return recover_drop_clean(rec);
}

int trust_check(struct recovery *rec, struct err *err)
{
	struct cache *c = rec->c;
	struct known_list l;
	int r;

	if (rec->forget || c->conf.trust == CACHE_TRUST_ALWAYS)
		return 0;
	if (c->conf.trust == CACHE_TRUST_NEVER) {
		r = recover_drop_clean(rec);
		return r < 0 ? err_set(err, r, "out of memory") : 0;
	}
	pick(c, rec, &l);
	if (l.n == 0)
		return 0;
	r = compare(c, &l);
	if (r == 0 && atomic_load(&c->trust_state) == TRUST_CHANGED)
		return changed(rec, err);
	return r < 0 ? err_set(err, r, "out of memory") : 0;
}

void trust_halt(struct cache *c)
{
	if (!c->trust)
		return;
	sched_disarm(c->sched, &c->trust->timer);
	sched_quiesce(c->sched, &c->trust->timer.task);
}

void trust_fini(struct cache *c)
{
	if (!c->trust)
		return;
	free(c->trust->buf);
	free(steal_ptr(c->trust));
}
