// SPDX-License-Identifier: Apache-2.0
/*
 * A simulated cache directory: a struct lio over files in memory that outlive
 * the process under test, and that lose what was not synced when power goes.
 *
 * What it may do, all by the dice of the sim: complete operations in any order;
 * refuse try_read; keep or lose, per sector, any version of the bytes since the last sync that
 * covers them; keep or undo names made, removed or renamed since the last sync_dir (the names of
 * one rename together); fail a sync and then never make durable what it covered.
 * A file's size is durable with its bytes. sync_io, open, truncate and the like act at once.
 */
#ifndef TESTS_LIB_SIMDISK_H
#define TESTS_LIB_SIMDISK_H

#include <stddef.h>

#include "cache/lio.h"
#include "tests/lib/sim.h"

enum simdisk_kind {
	SIMDISK_READ = 1 << LIO_READ,
	SIMDISK_WRITE = 1 << LIO_WRITE,
	SIMDISK_SYNC = 1 << LIO_SYNC,
	SIMDISK_OPEN = 1 << 3,
	SIMDISK_TRUNCATE = 1 << 4,
	SIMDISK_UNLINK = 1 << 5,
	SIMDISK_RENAME = 1 << 6,
	SIMDISK_LIST = 1 << 7,
	SIMDISK_SYNC_DIR = 1 << 8,
	SIMDISK_FREE = 1 << 9,
	SIMDISK_ALL = (1 << 10) - 1,
};

struct simdisk;

/* An empty directory. It outlives opens; simdisk_destroy() before sim_destroy(). */
struct simdisk *simdisk_create(struct sim *sim);
void simdisk_destroy(struct simdisk *disk);

/* As lio_posix_open() would; one at a time (asserted). Give it back with lio_destroy(). */
struct lio *simdisk_open(struct simdisk *disk, struct sim *sim);

/* What one power cut keeps or loses whole: 512 (at first) or 4096 bytes. */
void simdisk_set_sector(struct simdisk *disk, uint32_t bytes);

/*
 * kill -9 of the process: writes in flight are done whole, in part (whole 4 KiB pages from the
 * front) or not at all; done() is not called for any; the lio is gone. Words and page cache stay:
 * the next open has same_boot true. Nothing happens where no lio is open.
 */
void simdisk_kill(struct simdisk *disk);

/* The same, and then power goes: see the top; the next open has same_boot false and words of 0. */
void simdisk_power_cut(struct simdisk *disk);

/*
 * Let the @nth operation (from 1) of the kinds in @mask fail with @error (negative errno), with
 * @always all later ones too. nth 0: no more faults. A failed WRITE may have written any part.
 */
void simdisk_fail(struct simdisk *disk, unsigned mask, uint64_t nth, int error, bool always);
/* How many operations failed so since simdisk_fail(): 0 ends a "fail the n-th" loop. */
uint64_t simdisk_fault_hits(const struct simdisk *disk);

/* Operations submitted of these kinds wait; 0 lets all go on. For scripted tests. */
void simdisk_hold(struct simdisk *disk, unsigned mask);

/*
 * What an onlooker is told: each call before it does anything, and its end. Of READ and the
 * scripted changes below nothing is told.
 */
struct simdisk_event {
	enum simdisk_kind kind;
	bool ended;
	int result;       /* where ended */
	const void *op;   /* the same for both of one WRITE or SYNC */
	const char *name; /* of the file; NULL: it has none any more, or SYNC_DIR */
	const struct iovec *iov;
	int iovcnt;
	uint64_t offset;
};

/*
 * Call @seen for WRITE, SYNC, TRUNCATE, UNLINK, RENAME (its new name) and SYNC_DIR; NULL: for none.
 * Where a call has not ended yet, @seen may kill the process and leave by longjmp().
 */
void simdisk_watch(struct simdisk *disk, void (*seen)(void *ctx, const struct simdisk_event *event),
		   void *ctx);

/* Bytes all files together may take; UINT64_MAX at first. Whole pages count; holes do not. */
void simdisk_set_limit(struct simdisk *disk, uint64_t bytes);
uint64_t simdisk_used(const struct simdisk *disk);

/* Asynchronous operations not done yet. */
uint64_t simdisk_in_flight(const struct simdisk *disk);

/* Rot, and a meddling user; durable at once. 0, or -ENOENT, or -EINVAL beyond the end. */
int simdisk_corrupt(struct simdisk *disk, const char *name, uint64_t offset, uint64_t length);
int simdisk_remove(struct simdisk *disk, const char *name);
int simdisk_cut_file(struct simdisk *disk, const char *name, uint64_t bytes);
/* What the file holds now; lent until the next change. 0 or -ENOENT. */
int simdisk_peek(struct simdisk *disk, const char *name, const uint8_t **ret_data,
		 uint64_t *ret_bytes);
/* The name of the @n-th file, or NULL past the last. */
const char *simdisk_name(struct simdisk *disk, size_t n);

#endif
