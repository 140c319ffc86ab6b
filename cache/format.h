// SPDX-License-Identifier: Apache-2.0
/*
 * The bytes of a segment file: segment header, batches, footer. Pure encoding
 * and decoding, little-endian, checked by CRC32C; docs/FORMAT.md is the same in
 * prose. No I/O, no state; any thread.
 *
 *   slot 0        segment header
 *   slot 1…       batches: one header slot, then the payload slots it describes
 *   last slots    footer, once sealed: table slots, then the trailer in the very last slot
 *
 * A batch is what one append writes. Its header repeats the records of the batch
 * before it, so that a record whose own header was lost can still be named.
 */
#ifndef CACHE_FORMAT_H
#define CACHE_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FORMAT_SLOT_BYTES 4096u
#define FORMAT_UUID_BYTES 16
/* Features a reader must know to read a segment; none so far. */
#define FORMAT_FEATURES 0ull

enum format_class { FORMAT_LOG = 1, FORMAT_CLEAN = 2 };

enum format_kind {
	FORMAT_WRITE = 1,     /* payload: nblocks slots */
	FORMAT_ZERO = 2,      /* reads as zeroes from here on */
	FORMAT_DISCARD = 3,   /* the same, and the far side may free it */
	FORMAT_BARRIER = 4,   /* end of an epoch; blk = wall clock ns, nblocks = enum format_cut */
	FORMAT_WATERMARK = 5, /* blk = destaged_seq: all up to there is durable at the target */
	FORMAT_CUT = 6,       /* blk = last_seq: records between it and this one are void */
	FORMAT_FILL = 7,      /* clean store: payload as the target had it; seq = base */
};

enum format_cut { FORMAT_CUT_FLUSH = 1, FORMAT_CUT_OTHER = 2 };

struct format_record {
	uint64_t blk; /* first volume block, or as said at the kind */
	uint64_t seq; /* guest log: own sequence number; clean store: newest guest record it is
			 based on */
	uint32_t nblocks;
	uint32_t slot; /* of the first payload block in the segment; 0 without payload */
	uint8_t kind;
};
#define FORMAT_RECORD_BYTES 32u

struct format_segment {
	uint8_t uuid[FORMAT_UUID_BYTES];
	uint32_t segment;
	uint32_t segment_bytes;
	enum format_class class;
	uint64_t incarnation;
	uint64_t first_seq;    /* log: of the first record that may follow */
	uint64_t destaged_seq; /* log: as known when the segment was begun */
	uint64_t far_as_of_ns;
	uint64_t merged_seq; /* as in a batch */
};

/* Most records in one batch header; as many of the batch before it are repeated. */
#define FORMAT_BATCH_RECORDS 48u
#define FORMAT_BATCH_FIXED 128u
/* Payload blocks that fit one header with @n records and @prev repeated ones. */
#define FORMAT_BATCH_CRCS(n, prev)                                                                 \
	((FORMAT_SLOT_BYTES - FORMAT_BATCH_FIXED - ((n) + (prev)) * FORMAT_RECORD_BYTES) / 4u)

struct format_batch {
	uint8_t uuid[FORMAT_UUID_BYTES];
	uint32_t segment;
	uint64_t incarnation;
	uint32_t slot; /* where this header stands */
	uint32_t payload_slots;
	uint64_t destaged_seq; /* log: watermark when written */
	uint64_t durable_seq;  /* log: all up to here was durable locally when written */
	uint64_t far_as_of_ns; /* wall clock of the last barrier that is durable far away; 0 unknown
				*/
	uint64_t merged_seq;   /* log: epochs up to here were, or are being, sent together */
	uint32_t nrecords;
	uint32_t nprev;
	struct format_record record[FORMAT_BATCH_RECORDS];
	struct format_record prev[FORMAT_BATCH_RECORDS];
	const uint32_t *crc; /* payload_slots of them; decode: points to @crc_buf */
};

struct format_trailer {
	uint8_t uuid[FORMAT_UUID_BYTES];
	uint32_t segment;
	uint64_t incarnation;
	enum format_class class;
	uint32_t nrecords;
	uint32_t ncrcs;
	uint32_t end_slot;     /* first slot behind the last batch */
	uint64_t destaged_seq; /* as in a batch */
	uint64_t durable_seq;
	uint64_t far_as_of_ns;
	uint64_t merged_seq;
	uint32_t table_crc;
};

/* Write the whole slot, checksum included; cannot fail. */
void format_segment_encode(const struct format_segment *s, uint8_t slot[FORMAT_SLOT_BYTES]);
/* 0; -EBADMSG: not a segment header of ours or damaged; -EPROTONOSUPPORT: unknown feature bits. */
int format_segment_decode(const uint8_t slot[FORMAT_SLOT_BYTES], struct format_segment *ret);

/*
 * Write the whole slot, checksum included. The counts of @b must fit one slot
 * (FORMAT_BATCH_RECORDS, FORMAT_BATCH_CRCS): asserted.
 */
void format_batch_encode(const struct format_batch *b, uint8_t slot[FORMAT_SLOT_BYTES]);
/*
 * 0, or -EBADMSG. @crc_buf has room for FORMAT_SLOT_BYTES / 4 checksums. What is inside
 * bounds is checked (counts, slots within @segment_slots); whose it is is the caller's to compare.
 */
int format_batch_decode(const uint8_t slot[FORMAT_SLOT_BYTES], uint32_t segment_slots,
			struct format_batch *ret, uint32_t *crc_buf);

/* Slots a footer of that many records and checksums takes, trailer included. */
uint32_t format_footer_slots(uint32_t nrecords, uint32_t ncrcs);
/*
 * Write the footer into @buf, format_footer_slots() slots. @crc are the payload checksums in
 * the order of the records. Sets t->table_crc.
 */
void format_footer_encode(struct format_trailer *t, const struct format_record *record,
			  const uint32_t *crc, uint8_t *buf);
/* The trailer alone, from a segment's last slot. 0 or -EBADMSG. */
int format_trailer_decode(const uint8_t slot[FORMAT_SLOT_BYTES], struct format_trailer *ret);
/*
 * The table slots (everything of the footer but the trailer) into @record and @crc, which have room
 * for what the trailer says. 0; -EBADMSG: damaged, or a record points outside the segment.
 */
int format_table_decode(const struct format_trailer *t, const uint8_t *table,
			uint32_t segment_slots, struct format_record *record, uint32_t *crc);

/* Payload slots of a record. */
static inline uint32_t format_payload(const struct format_record *r)
{
	return r->kind == FORMAT_WRITE || r->kind == FORMAT_FILL ? r->nblocks : 0;
}

/* The record changes volume blocks. */
static inline bool format_is_data(const struct format_record *r)
{
	return r->kind == FORMAT_WRITE || r->kind == FORMAT_ZERO || r->kind == FORMAT_DISCARD;
}

#endif
