// SPDX-License-Identifier: Apache-2.0
/*
 * A cache under the simulator for scripted tests: a small volume, segments of 256 KiB (requests
 * are at most RIG_MAX_BYTES, so that a record fits), and a note of what each byte may be.
 *
 * Each byte has the value of the last change that was acknowledged, or of one that failed
 * later: those may have happened or not. A change still in flight counts as failed. After a power
 * cut it may also have any value since the last one that a FLUSH or FUA made durable. Each READ
 * that ends well is checked for that; rig_settle() ends the doubt.
 */
#ifndef TESTS_CACHE_RIG_H
#define TESTS_CACHE_RIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cache/cache.h"
#include "cache/identity.h"
#include "core/err.h"
#include "tests/lib/sim.h"
#include "tests/lib/simdisk.h"
#include "tests/lib/simfar.h"
#include "tests/lib/simindex.h"

#define RIG_BLK 4096u
#define RIG_MAX_BYTES (64u << 10)
#define RIG_SEGMENT_BYTES (256u << 10)
#define RIG_ALIGN 16384u /* of a DISCARD at the far side */

struct rig;

struct rig_op {
	struct rig *rig;
	struct blk_req req;
	struct iovec iov;
	uint8_t *buf;
	uint32_t number; /* of a change, from 1 */
	uint64_t moment; /* of a change: acknowledged; of a FLUSH: submitted */
	bool raced;      /* a READ that a change overlapped */
	bool safe;       /* make_safe() has seen it */
	unsigned dones;
	int result;
};

struct rig {
	struct sim *sim;
	struct simdisk *disk;
	struct simfar_store *far;
	struct simindex *index;
	struct index_store *store;
	struct lio *lio;
	struct cache_identity identity;
	struct blk_dev *cache; /* NULL: not open */
	struct err err;        /* of the last rig_open() */
	uint64_t size;
	uint64_t limit_bytes, max_dirty_bytes, max_dirty_age_ns;
	enum cache_trust trust;
	bool force_push;
	bool offline;   /* nobody answers when it is opened */
	bool doomed;    /* rig_will_be_killed() */
	bool lenient;   /* requests may fail */
	bool races;     /* changes may overlap reads in flight; those are not checked then */
	bool unsettled; /* power was cut: what was not durable may be gone */

	struct rig_op **op;
	size_t nops, cap;
	size_t first_op; /* ops before it are of processes that were killed */
	size_t power_op; /* and those before this one may be gone */
	uint32_t changes;
	uint64_t moment;
	uint8_t *first;      /* what the volume held at the beginning */
	uint8_t *now;        /* last acknowledged */
	uint32_t *now_stamp; /* number of that change */
	uint8_t *safe;       /* last one that a FLUSH or FUA made durable */
	uint32_t *safe_stamp;
	struct cache_drain drain;
	bool drained;
	int drain_result;
};

/* A rig whose far volume of @size_bytes holds a pattern; the cache is not open yet. */
struct rig *rig_create(uint64_t seed, uint64_t size_bytes);
/*
 * From here on a leak checker looks away, until rig_destroy(): who is killed frees nothing of what
 * was under way. To be called before rig_open().
 */
void rig_will_be_killed(struct rig *rig);
/* The cache was stopped or killed. */
void rig_destroy(struct rig *rig);

/* Open and start: 0, or -errno with rig->err; then nothing is open. */
int rig_open(struct rig *rig);
/* Stop in good order; what was in flight has its done() afterwards (asserted). */
void rig_stop(struct rig *rig);
/* kill -9, or a power cut; what was in flight never ends. */
void rig_kill(struct rig *rig);
void rig_power_cut(struct rig *rig);

/*
 * Send one request; WRITEs get bytes of their own. NULL where it would overlap one that has
 * not ended and one of the two is a change, so that their order would be open. The rig owns it.
 */
struct rig_op *rig_submit(struct rig *rig, enum blk_op op, uint64_t offset, uint64_t length,
			  unsigned flags);
/* Run until @op ended: true, or until @ns of the fake clock passed or nothing is left to run. */
bool rig_wait(struct rig *rig, struct rig_op *op, uint64_t ns);
/* Submit and wait, asserting that it ends with 0. */
void rig_do(struct rig *rig, enum blk_op op, uint64_t offset, uint64_t length, unsigned flags);
/* Run until all ended; asserts that they do. */
void rig_wait_all(struct rig *rig);
/* Run until @cond(rig) or until @ns passed; says whether it came true. */
bool rig_run(struct rig *rig, bool (*cond)(struct rig *rig), uint64_t ns);
/* Run for @ns of the fake clock. */
void rig_pass(struct rig *rig, uint64_t ns);

/* Drain, within @ns: the result, or -ETIMEDOUT (taken back then). */
int rig_drain(struct rig *rig, uint64_t ns);
/* The far side holds, durably, what the volume must read as. */
void rig_check_far(struct rig *rig);

/*
 * Read all in pieces and check each byte against what it may be; pieces that fail count as
 * unknown and are allowed with @errors_fine. Returns how many bytes failed.
 */
uint64_t rig_read_all(struct rig *rig, bool errors_fine);
/* Read all and take what was read for what it is from now on. */
void rig_settle(struct rig *rig);
/* Byte @at of the volume was @value at some time, at the beginning or by a change. */
bool rig_was(const struct rig *rig, uint64_t at, uint8_t value);
/* One byte range: 0 or the error of the read; what was read is in @buf, which may be NULL. */
int rig_read(struct rig *rig, uint64_t offset, uint64_t length, uint8_t *buf);

#endif
