// SPDX-License-Identifier: Apache-2.0
/*
 * Segments are prepared ahead of use: file made, every block of a log segment written once, synced
 * with its name, so that an append meets neither allocation nor a journal commit of the file
 * system.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cache/janitor.h"
#include "core/cleanup.h"
#include "core/log.h"

#define FILL_BYTES (1u << 20)

/* Write every block of the file once. 0 or -errno. */
static int fill(struct cache *c, struct lio_file *file)
{
	uint64_t bytes = (uint64_t)c->seg_slots * FORMAT_SLOT_BYTES;
	cleanup_free uint8_t *zero = aligned_alloc(FORMAT_SLOT_BYTES, FILL_BYTES);
	int r = 0;

	if (!zero)
		return -ENOMEM;
	memset(zero, 0, FILL_BYTES);
	for (uint64_t at = 0; at < bytes && r == 0; at += FILL_BYTES)
		r = lio_write_sync(c->lio, file, zero, MIN(FILL_BYTES, bytes - at), at);
	if (r == 0)
		r = lio_fdatasync(c->lio, file);
	return r == 0 ? lio_sync_dir(c->lio) : r;
}

/* No lock held; the segment is PREPARING, so it is ours. */
static int prepare_file(struct cache *c, uint32_t i, enum format_class class, bool *ret_filled)
{
	struct segment *s = &c->seg[i];
	uint64_t bytes = (uint64_t)c->seg_slots * FORMAT_SLOT_BYTES, now;
	char name[32];
	int r;

	segment_name(i, name);
	if (!s->file) {
		r = lio_open(c->lio, name, LIO_CREATE, &s->file);
		if (r < 0)
			return r;
	}
	*ret_filled = s->filled;
	r = lio_size(c->lio, s->file, &now);
	if (r < 0)
		return r;
	if (now != bytes) {
		*ret_filled = false;
		r = lio_truncate(c->lio, s->file, bytes);
		if (r < 0)
			return r;
	}
	if (class == FORMAT_LOG && !*ret_filled) {
		r = fill(c, s->file);
		*ret_filled = r == 0;
	}
	return r;
}

static void remove_file(struct cache *c, uint32_t i)
{
	struct segment *s = &c->seg[i];
	char name[32];

	segment_name(i, name);
	lio_close(c->lio, s->file);
	s->file = NULL;
	s->filled = false;
	lio_unlink(c->lio, name);
}

void janitor_give_back(struct cache *c, uint32_t i, struct todo *todo)
{
	struct segment *s = &c->seg[i];

	segment_disarm(s);
	s->state = SEG_PREPARING; /* ours: nobody looks at its file */
	cache_unlock(c, todo);
	remove_file(c, i);
	lio_sync_dir(c->lio); /* else its blocks may stay taken for a while */
	cache_lock(c, todo);
	c->files--;
	s->state = SEG_ABSENT;
	janitor_room(c, todo);
}

/* The lock is held and dropped meanwhile. */
void janitor_prepare(struct cache *c, uint32_t i, enum format_class class, struct todo *todo)
{
	struct segment *s = &c->seg[i];
	bool was_absent = s->state == SEG_ABSENT, filled = false, full;
	bool made = class == FORMAT_LOG ? !s->filled : was_absent;
	int r;

	s->state = SEG_PREPARING;
	cache_unlock(c, todo);
	r = prepare_file(c, i, class, &filled);
	if (r < 0 && was_absent)
		remove_file(c, i);
	cache_lock(c, todo);
	s->filled = filled;
	if (r == 0) {
		c->files += was_absent;
		r = segment_arm(c, s);
	}
	full = r < 0 && !c->disk_full;
	c->janitor->error = r;
	if (r < 0) {
		s->state = s->file ? SEG_FREE : SEG_ABSENT;
		c->disk_full = r == -ENOSPC || r == -EDQUOT;
		c->janitor->stuck = !c->disk_full;
		janitor_come_again(c);
	} else {
		/* One that was there already says nothing about the disk. */
		if (made)
			janitor_room(c, todo);
		s->class = class;
		s->state = SEG_READY;
		if (class == FORMAT_LOG) {
			c->prepared_log++;
			append_kick(&c->log, todo);
		} else {
			c->prepared_clean++;
			append_kick(&c->store[0], todo);
			append_kick(&c->store[1], todo);
		}
	}
	cache_unlock(c, todo);
	if (full)
		log_warning(
			"cache: no new segment: %s; clean data is given back, then writers wait",
			strerror(-r));
	cache_lock(c, todo);
}

/* For the log one that is filled already, if there is. */
int janitor_pick_empty(const struct cache *c, enum format_class class, bool beyond)
{
	int best = -1;

	for (uint32_t i = 0; i < c->nsegs; i++) {
		const struct segment *s = &c->seg[i];

		if (s->state == SEG_FREE && s->filled == (class == FORMAT_LOG))
			return (int)i;
		if (s->state == SEG_FREE && (class == FORMAT_CLEAN || !c->disk_full))
			best = (int)i;
		else if (s->state == SEG_ABSENT && best < 0 && !c->disk_full &&
			 (beyond || c->files < c->limit_segs))
			best = (int)i;
	}
	return best;
}
