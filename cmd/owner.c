// SPDX-License-Identifier: Apache-2.0
#include "cmd/owner.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "cache/cache.h"
#include "cache/verify.h"
#include "core/cleanup.h"
#include "core/hash.h"
#include "core/log.h"
#include "core/parse.h"

#define MACHINE_ID "/etc/machine-id"

/*
 * What a copy has not got: the host, and the directory's inode with its time of birth, for numbers
 * of inodes are given again. 0 where that is not known.
 */
static uint64_t home_of(const char *dir)
{
	char machine[64] = "", text[160];
	cleanup_close int fd = open(MACHINE_ID, O_RDONLY | O_CLOEXEC);
	struct statx st;
	ssize_t n = fd < 0 ? 0 : read(fd, machine, sizeof(machine) - 1);

	if (n < 0 || statx(AT_FDCWD, dir, 0, STATX_INO | STATX_BTIME, &st) < 0)
		return 0;
	snprintf(text, sizeof(text), "%.32s:%llu:%lld.%u", machine, (unsigned long long)st.stx_ino,
		 st.stx_mask & STATX_BTIME ? (long long)st.stx_btime.tv_sec : 0,
		 st.stx_mask & STATX_BTIME ? st.stx_btime.tv_nsec : 0);
	return hash_text(text);
}

/* Nobody can tell what is damaged: it counts. */
static bool holds_unsent(struct stack *s)
{
	bool damaged = false;
	uint64_t bytes = 0;

	if (s->fresh || s->identity.clean)
		return false;
	return cache_verify_dirty(s->lio, &s->identity, &bytes, &damaged, NULL) < 0 || bytes ||
	       damaged;
}

/* The leaf knows by now whether we may have the volume, and has not touched it. */
static int on_found(void *ctx, const struct leaf_found *found)
{
	struct stack *s = ctx;
	struct cache_identity *id = &s->identity;
	bool others = found->absence == LEAF_ABSENCE_OTHERS && !s->fresh;

	if (others && !s->conf->force_push && holds_unsent(s))
		return -ESTALE;
	id->overtaken |= others;
	if (!s->reader) {
		id->reservation_key_before = found->key;
		id->reservation_key = s->key;
		id->reserved = true;
	}
	return identity_store(s->lio, id);
}

/* The directory is a copy, or has moved. @ret: its former place where that matters. */
static int adopt_copy(struct stack *s, uint64_t home, char *ret, size_t size, struct err *err)
{
	struct cache_identity *id = &s->identity;
	bool copied = !s->fresh && id->home && home && id->home != home;
	int r;

	ret[0] = '\0';
	if (!copied || (s->conf->force_push && holds_unsent(s)))
		return 0;
	if (holds_unsent(s)) {
		snprintf(ret, size, "%.160s on %.80s", id->home_dir, id->owner_host);
		return 0;
	}
	r = identity_renew(id, true);
	if (r < 0)
		return err_set(err, r, "no randomness: %s", strerror(-r));
	log_info("this cache directory is a copy of %s on %s: it goes on as one of its own",
		 id->home_dir, id->owner_host);
	return 0;
}

int owner_prepare(struct stack *s, struct leaf_config *leaf, struct err *err)
{
	struct cache_identity *id = &s->identity, renewed;
	struct leaf_owner *owner = &leaf->owner;
	uint64_t home;
	int r;

	if (leaf->url.scheme != URL_ISCSI && leaf->url.scheme != URL_ISER)
		return 0;
	if (id->overtaken && !s->conf->force_push && holds_unsent(s))
		return err_set(err, -ESTALE,
			       "%s: another host has taken the volume over from this cache "
			       "directory, and what is unsent here would overwrite what it wrote: "
			       "--force-push sends it all the same; to start from what the volume "
			       "is now use another --cache-dir",
			       s->conf->cache_dir);
	if (id->reserved && owner->reserve == LEAF_RESERVE_OFF)
		return err_set(err, -EBUSY,
			       "%s: an earlier mount has left its reservation at the target, which "
			       "is needed to write: mount without --reserve=off, and unmount when "
			       "everything is sent",
			       s->conf->cache_dir);
	home = home_of(s->conf->cache_dir);
	r = adopt_copy(s, home, owner->copy_of, sizeof(owner->copy_of), err);
	if (r < 0)
		return r;
	if (!s->fresh) {
		owner->old_key[0] = id->reservation_key;
		owner->old_key[1] = id->reservation_key_before;
	}
	renewed = *id;
	r = identity_renew(&renewed, false);
	if (r < 0)
		return err_set(err, r, "no randomness: %s", strerror(-r));
	owner->key = s->key = renewed.reservation_key;
	owner->left = id->reserved;
	owner->mark = id->reservation_mark;
	memcpy(owner->volume, id->volume, sizeof(owner->volume));
	owner->found = on_found;
	owner->ctx = s;
	memcpy(leaf->isid_random, id->isid_random, sizeof(leaf->isid_random));
	leaf->isid_high_water = id->session_high_water;
	s->was_left = id->reserved;
	s->reader = leaf->read_only;
	/* Stored with what is stored next. */
	id->home = home;
	memset(id->home_dir, 0, sizeof(id->home_dir));
	memcpy(id->home_dir, s->conf->cache_dir,
	       MIN(strlen(s->conf->cache_dir), sizeof(id->home_dir) - 1));
	return 0;
}

int owner_settle(struct stack *s, struct err *err)
{
	struct cache_identity *id = &s->identity;
	struct cache_status st;
	uint64_t mark;
	int r;

	if (id->overtaken) {
		log_warning("another host has owned the volume since this cache directory was used "
			    "last: what is cached is fetched anew");
		r = cache_drop(s->cache);
		id->overtaken = false;
		if (r == 0)
			r = identity_store(s->lio, id);
		if (r < 0)
			return err_set(err, r, "what is cached cannot be forgotten: %s",
				       strerror(-r));
	}
	if (!s->conf->read_only || s->reader)
		return 0;
	/* A reader that might have had something to send, and has not. */
	cache_status(s->cache, &st);
	if (st.dirty_bytes || blk_release(s->cache, &mark) < 0)
		return 0;
	s->settled = true;
	id->reserved = false;
	id->reservation_mark = mark;
	r = identity_store(s->lio, id);
	return r < 0 ? err_set(err, r, "cannot write the identity record: %s", strerror(-r)) : 0;
}

void owner_overtaken(struct stack *s)
{
	s->identity.overtaken = true;
	if (identity_store(s->lio, &s->identity) < 0)
		log_error("cache directory: the identity record cannot be written");
}

static void release(struct stack *s, struct blk_dev *dev)
{
	struct cache_identity *id = &s->identity;
	uint64_t mark;
	int r;

	/*
	 * Written down first: killed in between, the next run finds a reservation that it knows,
	 * not one that is gone and looks as if somebody had taken it.
	 */
	id->reserved = false;
	id->reservation_mark = 0;
	r = identity_store(s->lio, id);
	if (r == 0)
		r = blk_release(dev, &mark);
	if (r == 0) {
		id->reservation_mark = mark;
		return;
	}
	id->reserved = true;
	log_warning(
		"the reservation of the volume stays at the target (%s); the next mount of this "
		"cache directory goes on with it",
		strerror(-r));
}

void owner_release(struct stack *s)
{
	struct blk_dev *dev = s->cache ? s->cache : s->leaf;
	struct cache_status st;

	if (s->settled || !dev)
		return;
	s->settled = true;
	if (blk_fenced(dev)) {
		/* A reader has nothing that could be overtaken but what it has cached. */
		s->identity.overtaken = true;
		return;
	}
	if (blk_reserved(dev) != BLK_RESERVED_YES)
		return;
	if (!s->opened) {
		if (!s->was_left) {
			release(s, dev);
			identity_store(s->lio, &s->identity);
		}
		return;
	}
	cache_status(s->cache, &st);
	if (st.dirty_bytes == 0 && st.state != CACHE_DAMAGED)
		release(s, dev);
}
