// SPDX-License-Identifier: Apache-2.0
/*
 * The order of writes, as the guest log on a simulated disk tells it while it is written: an
 * onlooker that reads each batch on its way to the file, and asks nobody else. From it follow what
 * a recovery may leave and what the far side may hold:
 *
 *  - an epoch is what stands between two barriers, numbered from 1; state k is all of the epochs up
 *    to k, so state 0 is the volume as it was at first;
 *  - strict order: at every moment there is one k so that each sector of the far side, whatever of
 *    its volatile cache is lost, is as in state k or has a value that epoch k + 1 wrote there.
 *
 * Contents are told apart by sectors of 512 bytes, each with a stamp: 0 is a sector of zeroes, any
 * other a pattern that no other stamp and no other sector has.
 */
#ifndef TESTS_CACHE_ORDER_H
#define TESTS_CACHE_ORDER_H

#include <stdbool.h>
#include <stdint.h>

#include "tests/lib/sim.h"
#include "tests/lib/simdisk.h"

#define ORDER_SECTOR 512u
#define ORDER_FIRST 1u /* the stamp of what was there at first */
#define ORDER_EPOCHS 64u
#define ORDER_RECORDS 768u
#define ORDER_VERSIONS 128u

/* The bytes of one sector. */
void order_fill(uint8_t *buf, uint64_t sector, uint32_t stamp);
/* The stamp that a sector begins with; dies if it is of another sector. */
uint32_t order_peek(struct sim *sim, const uint8_t *buf, uint64_t sector);
/* The same, and dies unless every byte is as it must be. */
uint32_t order_stamp(struct sim *sim, const uint8_t *buf, uint64_t sector);

struct order_record {
	uint64_t seq, blk;
	uint32_t nblocks;
	uint8_t kind;
	uint8_t epoch; /* of data; of a barrier: which it closes, 0: none */
	bool in_file;  /* the write that brings it has ended */
	bool durable;
	bool doubtful;  /* a crash came before it was durable; the next "cut here" says */
	bool gone;      /* its segment was taken for something else */
	const void *op; /* the write under way; NULL: ended */
	uint32_t segment;
	uint64_t incarnation;
};

struct order_version {
	uint32_t stamp;
	uint16_t record; /* index */
};

struct order_sector {
	struct order_version version[ORDER_VERSIONS];
	unsigned n;
};

struct order {
	struct sim *sim;
	uint64_t nsectors;
	uint32_t seg_slots;
	/* A sector is about to be logged with a new value: did somebody ask for that? */
	bool (*wanted)(void *ctx, uint64_t sector, uint32_t stamp);
	/* A segment whose newest record has @seq is taken for something else. */
	void (*reused)(void *ctx, uint64_t seq);
	void *ctx;

	struct order_record record[ORDER_RECORDS]; /* by seq */
	unsigned n;
	struct order_sector *sector;
	uint64_t epoch_end[ORDER_EPOCHS]; /* seq of its barrier */
	unsigned closed;                  /* epochs closed so far */
	bool open;                        /* the next one has data */
	uint64_t durable_mark;            /* newest watermark that no power cut takes */
	uint64_t mark;                    /* newest one written or being written */
	uint64_t cut;                     /* what the newest "cut here" has kept */
	uint64_t voided;                  /* records that were cut off, in all */
	uint64_t reuses;                  /* log segments taken for something else */
	struct {
		const void *op;
		uint32_t segment;
		unsigned n; /* records there were */
	} sync[32];         /* under way */
};

/* An empty log over a volume of @nsectors. order_destroy() frees it; NULL is fine. */
struct order *order_create(struct sim *sim, uint64_t nsectors, uint32_t seg_slots);
void order_destroy(struct order *o);

/* Look at what happens to the disk (simdisk_watch()). */
void order_see(struct order *o, const struct simdisk_event *e);
/* The process was killed: what it was writing is there or is not; the next "cut here" says. */
void order_crash(struct order *o);

/* The newest record that is known of; 0: none. */
uint64_t order_last(const struct order *o);
/* All up to here are in the file; all up to here no power cut takes. */
uint64_t order_in_file(const struct order *o);
uint64_t order_durable(const struct order *o);

/* What @sector is if the order ends at @seq. */
uint32_t order_value(const struct order *o, uint64_t sector, uint64_t seq);
/* @sector may be @stamp for a reader who knows of @seq, while later ones are on their way. */
bool order_may_be(const struct order *o, uint64_t sector, uint32_t stamp, uint64_t seq);
/* The newest record later than @after that gave @sector this stamp; 0: there is none. */
uint64_t order_find(const struct order *o, uint64_t sector, uint32_t stamp, uint64_t after);

/*
 * A bit for each k of the rule above that lets the far side hold @stamp there; *@ret_epoch is the
 * first epoch that explains it.
 */
uint64_t order_states(const struct order *o, uint64_t sector, uint32_t stamp, unsigned *ret_epoch);
/* The newest epoch whose end is at or before @seq; 0: none. */
unsigned order_epoch(const struct order *o, uint64_t seq);

#endif
