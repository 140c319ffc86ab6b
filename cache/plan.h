// SPDX-License-Identifier: Apache-2.0
/*
 * The plan of one epoch: what has to be sent so that the far side holds what the
 * epoch wrote. Each block once, the last version inside the epoch; ranges of zeroes with later
 * writes cut out; so commands never overlap. Plain data, one owner, no locks; building it takes the
 * cache's lock for moments and reads tables from disk.
 */
#ifndef CACHE_PLAN_H
#define CACHE_PLAN_H

#include <stddef.h>
#include <stdint.h>

#include "cache/format.h"

struct cache;

struct plan_block {
	uint64_t blk;
	uint64_t seq;
	uint32_t slot; /* over all segments */
	uint32_t crc;
};

struct plan_range {
	uint64_t blk, n;
	uint64_t seq;
	uint8_t kind; /* FORMAT_ZERO or FORMAT_DISCARD */
};

/* What each means is said in send.c. */
enum command_state { COMMAND_TODO, COMMAND_SENT, COMMAND_DONE, COMMAND_COVERED, COMMAND_SAFE };

struct plan_command {
	enum command_state state;
	uint8_t kind; /* FORMAT_WRITE, FORMAT_ZERO or FORMAT_DISCARD */
	uint64_t blk;
	uint64_t n;
	size_t first; /* FORMAT_WRITE: index of the first of n plan_blocks */
};

struct plan {
	struct plan_block *block;
	size_t nblocks, block_cap;
	struct plan_range *range;
	size_t nranges, range_cap;
	uint64_t *seq; /* every sequence number seen */
	size_t nseqs, seq_cap;
	struct plan_command *command;
	size_t ncommands, command_cap;
};

struct plan_limits {
	uint64_t write_blocks;  /* longest WRITE, in blocks, >= 1 */
	uint64_t zero_blocks;   /* longest ZERO or DISCARD */
	uint64_t discard_align; /* in blocks, power of two; 0: discards become zeroes */
	uint64_t whole_blocks;  /* of the volume: a last block that is not whole is not discarded */
};

/*
 * Take the records with first_seq <= seq <= last_seq out of @n records whose payload checksums are
 * @crc, of a segment whose first slot is @base over all segments; those behind @keep were cut off
 * by a recovery and do not count. 0 or -ENOMEM.
 */
int plan_add(struct plan *p, const struct format_record *record, uint32_t n, const uint32_t *crc,
	     uint32_t base, uint64_t keep, uint64_t first_seq, uint64_t last_seq);

/*
 * All records were added: make the commands. 0; -ENOMEM; -ENODATA: a sequence number between
 * @first_seq and
 * @last_seq is missing.
 */
int plan_finish(struct plan *p, const struct plan_limits *limits, uint64_t first_seq,
		uint64_t last_seq);

/* Collect from the cache's segments and finish. 0 or -errno as above, or of reading a table. */
int plan_build(struct plan *p, struct cache *c, uint64_t first_seq, uint64_t last_seq);

/* Empty it; memory is kept for the next epoch. */
void plan_reset(struct plan *p);
void plan_fini(struct plan *p);

#endif
