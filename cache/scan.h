// SPDX-License-Identifier: Apache-2.0
/*
 * Reading a cache directory as it stands: which segments hold what, which records of the guest log
 * count, what is missing. Writes nothing. Shared by opening (recover.c) and by checking offline
 * (verify.c).
 */
#ifndef CACHE_SCAN_H
#define CACHE_SCAN_H

#include "cache/internal.h"

struct found {
	struct format_record record;
	uint32_t segment;
	uint64_t incarnation; /* of the segment */
	const uint32_t *crc;  /* into the segment's table; NULL for a record that is only named */
	bool lost;            /* named but not there, or its payload is damaged */
	bool void_;           /* cut off by an earlier recovery, or by this one */
};

struct recovery {
	struct cache *c;
	bool was_clean;          /* the identity record said so when the directory was opened */
	bool forget;             /* was_clean, and what it holds is not the volume's any more */
	struct seg_table *table; /* per segment */
	struct table_info *info;
	struct found *found;
	size_t nfound;
	uint64_t destaged, durable, far_as_of;
	uint64_t limit;     /* up to here a missing record is damage */
	uint64_t last;      /* newest record kept */
	uint64_t max_seen;  /* newest number found anywhere */
	uint64_t tail;      /* oldest record kept */
	uint64_t tail_life; /* in which life of the directory the oldest kept record was written */
	uint64_t incarnation;
	uint32_t highest;                              /* segment number */
	uint32_t payload_segment, payload_end, ranges; /* recover.c: the record before */
	bool unread; /* the disk refused to give a part of the log */
};

/*
 * Steps 1 to 3 as described in scan.c, into @rec, whose c is set and has its limits. 0 or -errno
 * with @err. scan_fini() afterwards in any case.
 */
int scan_directory(struct recovery *rec, struct err *err);
void scan_fini(struct recovery *rec);

#endif
