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

/* A volume as it was when it was last seen. */
struct leaf_known {
	uint64_t size_bytes; /* 0: nothing is known */
	uint32_t sector_bytes;
	char identity[BLK_IDENTITY_MAX];
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
	/*
	 * iscsi: told before a slot beyond isid_high_water is first used; must make it durable and
	 * return 0, else the session is not opened. May be NULL. Called during blk_start(), one at
	 * a time.
	 */
	int (*high_water)(void *ctx, unsigned slots);
	void *high_water_ctx;
	/*
	 * iscsi: with it blk_start() also ends with 0 while nobody answers, says why in
	 * *offline_why (may be NULL; lent until then), and the device is offline until somebody
	 * does.
	 */
	struct leaf_known known;
	struct err *offline_why;
	/*
	 * iscsi: a READ that somebody waits for (not in lane WRITEBACK, not ADVISORY) ends with
	 * -EIO once no session was up for reads_fail_ns. False: it waits.
	 */
	bool reads_fail;
	uint64_t reads_fail_ns;
};

/*
 * Make the leaf for conf->url (copied; nothing of @conf is kept but the callback). 0 with *@ret
 * owned by the caller; -EINVAL or -ENOMEM with @err. Does not connect: blk_start() does.
 */
int leaf_create(const struct leaf_config *conf, struct blk_dev **ret, struct err *err);

#endif
