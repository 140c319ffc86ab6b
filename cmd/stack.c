// SPDX-License-Identifier: Apache-2.0
#include "cmd/stack.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cache/lio.h"
#include "cmd/place.h"
#include "control/socket.h"
#include "core/cleanup.h"
#include "core/clock.h"
#include "core/filter_count.h"
#include "core/filter_delay.h"
#include "core/log.h"
#include "core/parse.h"
#include "core/range.h"

/* Threads that run the cache's tasks, and those that do what io_uring cannot. */
#define SCHED_THREADS 4
#define LIO_THREADS 4

/* How long a mount waits for the lock while nobody serves the directory. */
#define LOCK_WAIT_NS (5 * NSEC_PER_SEC)

/* A first mount with less free space than this has no cache worth the name. */
#define FREE_MIN (64ull << 20)

/*
 * Space beside the volume's own bytes for record headers, footers, barriers and the segments being
 * written: what a cache of the whole volume needs on top.
 */
static uint64_t with_overhead(uint64_t volume_bytes)
{
	return round_up(volume_bytes + volume_bytes / 32 + (64ull << 20), 1ull << 20);
}

/* What a first mount that was cut short may have left: it proves nothing, and is in nobody's way.
 */
static bool may_precede(const char *name)
{
	return strcmp(name, "lock") == 0 || strcmp(name, "run") == 0 || strcmp(name, "log") == 0;
}

int stack_prepare_dir(const char *dir, struct err *err)
{
	bool known = false, foreign = false;
	struct dirent *e;
	struct stat st;
	char name[256] = "";
	DIR *d;
	/* Each name is made durable: after a power cut a new tree is there with all its parents. */
	int r = lio_posix_mkdir(dir, err);

	if (r < 0)
		return r;
	d = opendir(dir);
	if (!d || fstat(dirfd(d), &st) < 0) {
		r = err_set(err, -errno, "cache directory %s: %s", dir, strerror(errno));
		if (d)
			closedir(d);
		return r;
	}
	while ((e = readdir(d))) {
		if (strncmp(e->d_name, "identity.", 9) == 0) {
			known = true;
		} else if (e->d_name[0] != '.' && !may_precede(e->d_name) && !foreign) {
			foreign = true;
			snprintf(name, sizeof(name), "%s", e->d_name);
		}
	}
	if (st.st_uid != geteuid())
		r = err_set(err, -EPERM, "cache directory %s belongs to another user", dir);
	else if (foreign && !known)
		r = err_set(err, -ENOTEMPTY,
			    "%s holds other files (%s) and is no cache directory; choose an empty "
			    "or a new one with --cache-dir",
			    dir, name);
	else if ((st.st_mode & 077) && fchmod(dirfd(d), 0700) < 0)
		r = err_set(err, -errno, "cache directory %s: cannot set mode 0700: %s", dir,
			    strerror(errno));
	closedir(d);
	return r;
}

/*
 * Take the directory's lock. `nearblk status` holds it while it looks, and a daemon on its way out
 * to the end: not a reason to fail. One that serves is.
 */
static int open_dir(const char *dir, struct lio **ret, struct err *err)
{
	uint64_t end = clock_monotonic_ns() + LOCK_WAIT_NS;
	char run[PATH_MAX];
	int r;

	for (;;) {
		r = lio_posix_open(dir, LIO_THREADS, ret, err);
		if (r != -EBUSY || clock_monotonic_ns() >= end ||
		    control_socket_answers(dir, place_run_dir(run)))
			return r;
		usleep(30000);
	}
}

/* For people who look at the directory later; a very long URL is cut. */
static void note_url(struct cache_identity *id, const struct url *url)
{
	memset(id->url, 0, sizeof(id->url));
	memcpy(id->url, url->text, MIN(strlen(url->text), sizeof(id->url) - 1));
}

/* The record of the directory, made where there is none yet: before anything else uses it. */
static int load_identity(const struct stack_config *conf, struct stack *s, bool *ret_new,
			 struct err *err)
{
	uint64_t free_bytes, limit = conf->cache_size_bytes;
	int r = identity_load(s->lio, &s->identity, err);
	char size[16];

	*ret_new = r == -ENOENT;
	if (r != -ENOENT)
		return r < 0 ? err_prefix(err, r, "%s", conf->cache_dir) : 0;
	if (!limit) {
		r = lio_free_bytes(s->lio, &free_bytes);
		if (r < 0)
			return err_set(err, r, "%s: free space: %s", conf->cache_dir, strerror(-r));
		if (free_bytes < FREE_MIN)
			return err_set(err, -ENOSPC,
				       "%s: only %s are free there; make room, or choose a place "
				       "with --cache-dir or a size with --cache-size",
				       conf->cache_dir, format_size(free_bytes, size));
		limit = round_down(free_bytes / 2, 1ull << 20);
	}
	r = identity_init(&s->identity, limit);
	if (r < 0)
		return err_set(err, r, "cannot make an identity for the cache: %s", strerror(-r));
	note_url(&s->identity, &conf->leaf.url);
	s->identity.limit_bytes = limit;
	s->identity.clean = true;
	gethostname(s->identity.owner_host, sizeof(s->identity.owner_host) - 1);
	r = identity_store(s->lio, &s->identity);
	return r < 0 ? err_set(err, r, "%s: cannot write the identity record: %s", conf->cache_dir,
			       strerror(-r))
		     : 0;
}

/* A session slot is about to be used for the first time: it must be known after a crash. */
static int note_high_water(void *ctx, unsigned slots)
{
	struct stack *s = ctx;

	if (slots <= s->identity.session_high_water)
		return 0;
	s->identity.session_high_water = slots;
	return identity_store(s->lio, &s->identity);
}

int stack_parse_fault(const char *text, struct filter_fault_rule *ret, struct err *err)
{
	static const char *const ops[] = { "read", "write", "flush", "discard", "zero", "any" };
	struct filter_fault_rule rule = { .nth = 1, .result = -EIO };
	cleanup_free char *copy = strdup(text);
	char *rest = copy;

	if (!copy)
		return err_set(err, -ENOMEM, "out of memory");
	for (char *word; (word = strsep(&rest, ":"));) {
		bool known = false;

		for (unsigned i = 0; !rule.ops && i < ARRAY_SIZE(ops); i++) {
			if (strcmp(word, ops[i]) != 0)
				continue;
			rule.ops = i == BLK_OP_COUNT ? FILTER_FAULT_ANY_OP : 1u << i;
			known = true;
		}
		if (known)
			continue;
		if (strcmp(word, "always") == 0)
			rule.always = true;
		else if (strcmp(word, "after") == 0)
			rule.after = true;
		else if (parse_u64(word, &rule.nth) < 0 || !rule.nth)
			rule.ops = 0;
		if (!rule.ops)
			return err_set(
				err, -EINVAL,
				"--debug-fault %s: not OP[:NTH][:always][:after] with OP one "
				"of read, write, flush, discard, zero, any",
				text);
	}
	*ret = rule;
	return 0;
}

/* Put the debugging filters that are asked for over the leaf. */
static int cover_leaf(const struct stack_config *conf, struct stack *s, struct err *err)
{
	struct blk_dev *dev = s->leaf;

	if (conf->count) {
		dev = filter_count_create(dev);
		s->count = dev;
	}
	if (dev && conf->delay_ns)
		dev = filter_delay_create(s->leaf = dev, s->sched, conf->delay_ns, 0);
	if (dev && conf->faults)
		dev = filter_fault_create(s->leaf = dev, conf->fault, conf->faults);
	if (!dev)
		return err_set(err, -ENOMEM, "out of memory");
	s->leaf = dev;
	return 0;
}

/* Connect to the far side, as the owner that this directory is. */
static int open_leaf(const struct stack_config *conf, struct stack *s, bool fresh, struct err *err)
{
	struct leaf_config leaf = conf->leaf;
	int r;

	/* What is dirty from before is sent also when this mount takes no writes. */
	leaf.read_only = conf->read_only && s->identity.clean;
	memcpy(leaf.isid_random, s->identity.isid_random, sizeof(leaf.isid_random));
	leaf.isid_high_water = s->identity.session_high_water;
	leaf.fence_at_start = !fresh && !s->identity.clean;
	leaf.high_water = note_high_water;
	leaf.high_water_ctx = s;
	if (conf->may_be_offline && s->identity.volume[0]) {
		leaf.known.size_bytes = s->identity.size_bytes;
		leaf.known.sector_bytes = s->identity.sector_bytes;
		memcpy(leaf.known.identity, s->identity.volume, sizeof(leaf.known.identity));
		leaf.offline_why = &s->offline;
	}
	r = leaf_create(&leaf, &s->leaf, err);
	if (r == 0)
		r = cover_leaf(conf, s, err);
	return r < 0 ? r : blk_start(s->leaf, err);
}

/*
 * What the record says beside the volume itself, which the cache compares and binds at its start;
 * the cache then stores all of it. At the first mount the limit is cut to what the whole volume
 * needs.
 */
static int fill_identity(const struct stack_config *conf, struct stack *s, struct err *err)
{
	struct cache_identity *id = &s->identity, sized;
	uint64_t limit = conf->cache_size_bytes;
	struct blk_info info;
	int r;

	note_url(id, &conf->leaf.url);
	memset(id->owner_host, 0, sizeof(id->owner_host));
	gethostname(id->owner_host, sizeof(id->owner_host) - 1);
	if (limit)
		id->limit_bytes = limit;
	if (id->volume[0])
		return 0;
	blk_info(s->leaf, &info);
	if (!limit)
		id->limit_bytes = MAX(MIN(id->limit_bytes, with_overhead(info.size_bytes)),
				      (uint64_t)CACHE_LIMIT_MIN);
	/* Segments are sized for the limit; nothing was written with the former size. */
	r = identity_init(&sized, id->limit_bytes);
	if (r < 0)
		return err_set(err, r, "no randomness: %s", strerror(-r));
	id->segment_bytes = sized.segment_bytes;
	return 0;
}

static int open_index(const struct stack_config *conf, struct stack *s, struct err *err)
{
	char path[PATH_MAX + 8];
	int r;

	snprintf(path, sizeof(path), "%s/index", conf->cache_dir);
	/*
	 * No going on without it: an index that misses one deletion would hand out old bytes at the
	 * next start.
	 */
	r = index_rocksdb_open(path, s->identity.cache_uuid, &s->index, err);
	return r < 0 ? err_prefix(err, r, "%s", conf->cache_dir) : 0;
}

int stack_open(const struct stack_config *conf, struct stack *s, struct err *err)
{
	struct cache_config cache;
	bool fresh = false;
	int r;

	*s = (struct stack){ .sched = sched_threads_create(SCHED_THREADS, "cache") };
	if (!s->sched)
		return err_set(err, -ENOMEM, "cannot start threads");
	r = open_dir(conf->cache_dir, &s->lio, err);
	if (r == 0)
		r = load_identity(conf, s, &fresh, err);
	if (r == 0)
		r = open_leaf(conf, s, fresh, err);
	if (r == 0)
		r = fill_identity(conf, s, err);
	if (r == 0)
		r = open_index(conf, s, err);
	if (r < 0)
		return r;
	cache = (struct cache_config){
		.inner = s->leaf,
		.sched = s->sched,
		.lio = s->lio,
		.index = s->index,
		.identity = &s->identity,
		.limit_bytes = s->identity.limit_bytes,
		.max_dirty_bytes = conf->max_dirty_bytes,
		.max_dirty_age_ns = conf->max_dirty_age_ns,
		.read_only = conf->read_only,
		.no_readahead = conf->no_readahead,
		.trust = conf->trust,
		.force_push = conf->force_push,
	};
	s->cache = cache_create(&cache);
	if (!s->cache)
		return err_set(err, -ENOMEM, "out of memory");
	s->leaf = NULL;
	r = blk_start(s->cache, err);
	return r < 0 ? err_prefix(err, r, "%s", conf->cache_dir) : 0;
}

void stack_stop(struct stack *s)
{
	blk_stop(s->cache);
}

/* What a person who asked for --debug-count wants to know. */
static void log_counts(struct blk_dev *dev)
{
	static const char *const ops[] = { "read", "write", "flush", "discard", "zero" };
	struct filter_count c;

	filter_count_get(dev, &c);
	for (unsigned i = 0; i < BLK_OP_COUNT; i++)
		log_info("count: %s: %" PRIu64 " requests, %" PRIu64 " bytes, %" PRIu64 " failed",
			 ops[i], c.op[i].requests, c.op[i].bytes, c.op[i].failed);
}

void stack_close(struct stack *s)
{
	stack_stop(s);
	if (s->count)
		log_counts(steal_ptr(s->count));
	blk_destroy(steal_ptr(s->cache));
	blk_destroy(steal_ptr(s->leaf));
	sched_destroy(steal_ptr(s->sched));
	index_destroy(steal_ptr(s->index));
	lio_destroy(steal_ptr(s->lio));
}
