// SPDX-License-Identifier: Apache-2.0
/*
 * Leaf devices: the far side, picked by URL scheme. What lives in this folder:
 * iscsi (a pool of sessions), http (read-only origin), file (a raw file or block
 * device), mem (tests). What may not: caching, order between epochs, anything
 * about FUSE. Each leaf is a block device as core/block.h has it.
 */
#ifndef TRANSPORT_LEAF_H
#define TRANSPORT_LEAF_H

#include <stdbool.h>
#include <stdint.h>

#include "core/block.h"
#include "transport/url.h"

#define LEAF_CREDENTIAL_MAX 256

struct leaf_credentials {
	char username[LEAF_CREDENTIAL_MAX]; /* empty: none */
	char password[LEAF_CREDENTIAL_MAX];
	char username_in[LEAF_CREDENTIAL_MAX]; /* what the target must prove (mutual CHAP); empty:
						  nothing */
	char password_in[LEAF_CREDENTIAL_MAX];
};

/* Shall the volume be reserved at the target? --reserve */
enum leaf_reserve { LEAF_RESERVE_OFF, LEAF_RESERVE_AUTO, LEAF_RESERVE_REQUIRE };

/* What the target tells of the time since this cache directory last used the volume. */
enum leaf_absence {
	LEAF_ABSENCE_UNKNOWN, /* nothing: it has no reservations, or forgot them, or saw nobody */
	LEAF_ABSENCE_ALONE,   /* it was ours all the time */
	LEAF_ABSENCE_OTHERS,  /* others registered there, so they may have written */
};

struct leaf_found {
	enum leaf_absence absence;
	uint64_t key; /* of an earlier run of ours, still at the target; 0: none */
};

/* Whose the volume is; iscsi only (transport/iscsi_reserve.h), zero for the others. */
struct leaf_owner {
	enum leaf_reserve reserve;
	bool takeover;       /* from whoever has it */
	bool force;          /* read only, and that beside a writer */
	uint64_t key;        /* of this run: never used before; its upper half is the directory's */
	uint64_t old_key[2]; /* of earlier runs, that may be at the target still; 0: none */
	bool left;           /* an earlier run left its reservation there */
	uint64_t mark;       /* what blk_release() told then; 0: unknown */
	char volume[BLK_IDENTITY_MAX]; /* nothing is done to another one; empty: to any */
	char copy_of[256]; /* the directory is a copy of that one, with unsent data; empty: it is
			      not */
	/*
	 * Told once it is known whether the volume can be had and before anything is done to it;
	 * makes durable what the next run must know and returns 0, else the start fails with what
	 * it returned; -ESTALE: there is unsent data that others' writes conflict with. May be
	 * NULL. Called during blk_start(), again after an attempt that failed, on a thread of the
	 * device's.
	 */
	int (*found)(void *ctx, const struct leaf_found *found);
	void *ctx;
};

struct leaf_config {
	struct url url;
	bool read_only;
	unsigned sessions;           /* iscsi, http: parallel connections, 1..64 */
	uint64_t connect_timeout_ns; /* blk_start() gives up after this */
	char initiator_name[224];    /* iscsi (RFC 7143 4.2.7) */
	bool header_digest;          /* iscsi: offer CRC32C for headers */
	struct leaf_credentials credentials;
	uint8_t isid_random[4];   /* iscsi: fixed per cache directory; slot number is added */
	unsigned isid_high_water; /* iscsi: slots that earlier runs may have used */
	bool fence_at_start;      /* iscsi: an earlier run may have left WRITEs unanswered */
	struct leaf_owner owner;
	/*
	 * iscsi: told before a slot beyond isid_high_water is first used; must make it durable and
	 * return 0, else the session is not opened. May be NULL. Called during blk_start(), one at
	 * a time.
	 */
	int (*high_water)(void *ctx, unsigned slots);
	void *high_water_ctx;
};

/*
 * Make the leaf for conf->url (copied; nothing of @conf is kept but the callback). 0 with *@ret
 * owned by the caller; -EINVAL or -ENOMEM with @err. Does not connect: blk_start() does.
 */
int leaf_create(const struct leaf_config *conf, struct blk_dev **ret, struct err *err);

#endif
