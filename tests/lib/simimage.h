// SPDX-License-Identifier: Apache-2.0
/*
 * Bytes behind a volatile cache: what is seen now, what is durable, and the
 * changes in between, each kept with its bytes so that a power cut can pick any
 * legal mixture. Shared by the simulated disk's files and the far device.
 *
 * A change is made (seen at once), completed (its owner was told), and committed
 * by a sync whose mark was taken after that.
 */
#ifndef TESTS_LIB_SIMIMAGE_H
#define TESTS_LIB_SIMIMAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "core/list.h"
#include "tests/lib/sim.h"

struct simimage {
	uint8_t *now;
	uint64_t now_bytes;
	uint8_t *durable;
	uint64_t durable_bytes;
	uint64_t room_bytes;      /* of both buffers; beyond the sizes they are zero */
	struct list_node pending; /* struct simchange.link, oldest first */
	uint64_t npending;
	uint64_t clock; /* gives ids and marks */
};

struct simchange {
	struct list_node link;
	uint64_t id;
	uint64_t offset;
	uint64_t length;    /* resize: unused */
	uint8_t *data;      /* NULL: zeroes */
	bool resize;        /* the size became @offset */
	uint64_t completed; /* mark when its owner was told; 0: not yet */
	bool poisoned;      /* a sync of it failed: later ones skip it */
	bool take;
};

void simimage_init(struct simimage *img, uint64_t bytes);
void simimage_free(struct simimage *img);

/* Change bytes (NULL: to zero), growing where needed; returns the id for complete and commit_one.
 */
uint64_t simimage_change(struct simimage *img, uint64_t offset, uint64_t length, const void *data);
uint64_t simimage_resize(struct simimage *img, uint64_t bytes);
void simimage_complete(struct simimage *img, uint64_t id);

/* A point in time: a sync submitted now covers what was completed by now. */
uint64_t simimage_mark(struct simimage *img);
void simimage_commit(struct simimage *img, uint64_t mark);
void simimage_commit_one(struct simimage *img, uint64_t id);
/* The sync with this mark failed: what it covered may stay volatile for ever. */
void simimage_poison(struct simimage *img, uint64_t mark);
/* Commit the oldest changes while more than @max are pending: writeback on the kernel's own. */
void simimage_bound(struct simimage *img, uint64_t max);

/*
 * What a power cut now could leave: per @unit_bytes the durable content or any version since.
 * The buffer is the caller's to free.
 */
uint8_t *simimage_cut_copy(const struct simimage *img, struct sim *sim, uint64_t unit_bytes,
			   uint64_t *ret_bytes);
/* The power cut: such a mixture becomes all there is. */
void simimage_cut(struct simimage *img, struct sim *sim, uint64_t unit_bytes);

#endif
