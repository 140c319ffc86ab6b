// SPDX-License-Identifier: Apache-2.0
/*
 * What the janitor's rooms share: janitor.c decides and runs, prepare.c makes segments ready for
 * use, empty.c takes one back. All of it runs in the janitor's one task, with the cache's lock
 * unless it says otherwise.
 */
#ifndef CACHE_JANITOR_H
#define CACHE_JANITOR_H

#include "cache/internal.h"

enum janitor_phase { NOTHING, COPYING, SETTLING, WAITING };

struct janitor {
	struct cache *cache;
	struct task task;
	struct sched_timer retry;
	bool posted, kicked; /* guarded by the cache's lock, like all below */
	bool stuck;          /* nothing could be emptied; until the next kick from outside */
	int error;           /* of the last try to prepare a segment */

	enum janitor_phase phase;
	uint32_t victim;
	bool unlink; /* give the space back to the file system */
	struct seg_table table;
	uint32_t record, crc_at; /* cursor into the table */
	unsigned copies;         /* blocks being appended */
	uint32_t keep_left;
	bool barrier_out, barrier_done;

	unsigned drops_wanted, drops_done;
	bool dropping;
	unsigned drop_heads; /* a bit per head still to be sealed for the drop */
};

/* Look again in a while: memory or disk space may have come. */
void janitor_come_again(struct cache *c);
/* There may be room on the disk again: what waits for it goes on. */
void janitor_room(struct cache *c, struct todo *todo);

/* ---- prepare.c ---- */

/*
 * A segment that could be prepared for @class, or -1; on a full disk one that takes no room. With
 * @beyond it may lie beyond the limit of the cache, in the room kept for control records.
 */
int janitor_pick_empty(const struct cache *c, enum format_class class, bool beyond);
/* Prepare segment @i; the lock is let go meanwhile. A failure is noted in the janitor. */
void janitor_prepare(struct cache *c, uint32_t i, enum format_class class, struct todo *todo);
/* Give the file of segment @i, which nobody needs, back to the file system; the lock is let go
 * meanwhile. */
void janitor_give_back(struct cache *c, uint32_t i, struct todo *todo);

/* ---- empty.c ---- */

/* One step of emptying the victim. False: it waits for something, whose end kicks the janitor. */
bool janitor_empty_step(struct cache *c, struct todo *todo);

#endif
