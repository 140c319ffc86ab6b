// SPDX-License-Identifier: Apache-2.0
/*
 * The identity record: what a cache directory is and which volume it belongs
 * to. Two checksummed copies ("identity.a", "identity.b") beside the segments,
 * written in turn, the one with the higher generation wins. It is written before
 * the directory is used for anything else; docs/FORMAT.md gives the bytes.
 */
#ifndef CACHE_IDENTITY_H
#define CACHE_IDENTITY_H

#include <stdbool.h>
#include <stdint.h>

#include "cache/lio.h"
#include "core/block.h"
#include "core/err.h"

#define IDENTITY_FORMAT_VERSION 1u
#define IDENTITY_SAMPLES 16

struct cache_identity {
	uint64_t generation;     /* of the record; grows with each store */
	uint32_t format_version; /* IDENTITY_FORMAT_VERSION */
	uint64_t features;       /* bits a reader must know; 0 so far */
	uint8_t cache_uuid[16];  /* random; in every segment header */
	uint32_t segment_bytes;  /* power of two, 2..64 MiB */
	uint64_t created_ns;     /* wall clock */

	/* The volume. Empty identity: not bound yet (first start). */
	char url[512];                 /* as mounted, no secrets */
	char volume[BLK_IDENTITY_MAX]; /* blk_info.identity */
	uint64_t size_bytes;
	uint32_t sector_bytes;

	/* The initiator (RFC 7143 10.12.5): qualifier bits random per directory, fixed per slot. */
	uint8_t isid_random[4];      /* used for the EN/OUI/random format of the ISID */
	uint32_t session_high_water; /* slots ever used with this directory */
	uint64_t reservation_key;    /* random, non-zero */
	char owner_host[256];        /* host that mounted it last */

	uint64_t limit_bytes; /* --cache-size as first decided */
	bool clean;           /* stopped with nothing dirty; cleared before the first write */
	/* Newest record of the guest log at the last stop; 0: not stopped since it was made. */
	uint64_t last_seq;
	/* Of the segment with which the newest start that succeeded began to write the log; 0:
	 * none. */
	uint64_t log_incarnation;
	/* Fingerprint of sampled blocks when last clean: offset (bytes) and CRC32C of 4 KiB; offset
	 * UINT64_MAX = unused. */
	struct {
		uint64_t offset;
		uint32_t crc;
	} sample[IDENTITY_SAMPLES];
};

/*
 * Read the record. 0; -ENOENT: there is none; -EBADMSG: both copies are damaged; -EPROTONOSUPPORT:
 * made by a newer format (the message names both versions and says which nearblk can read it). @err
 * says what to do.
 */
int identity_load(struct lio *lio, struct cache_identity *ret, struct err *err);

/* Fill @id for a new directory: random uuid, ISID and key; segment size for @limit_bytes. 0 or
 * -errno (no randomness). */
int identity_init(struct cache_identity *id, uint64_t limit_bytes);

/* Write both copies, one after the other, durable when it returns 0. Raises id->generation. May
 * block. */
int identity_store(struct lio *lio, struct cache_identity *id);

#endif
