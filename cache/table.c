// SPDX-License-Identifier: Apache-2.0
/*
 * The records of one segment: from the footer, or where there is none, by
 * walking from batch header to batch header. Pure reading; payload is not looked at.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cache/internal.h"

static int load_footer(struct cache *c, uint32_t segment, struct lio_file *file,
		       uint64_t incarnation, struct seg_table *ret, struct table_info *info)
{
	cleanup_free uint8_t *buf = aligned_alloc(FORMAT_SLOT_BYTES, FORMAT_SLOT_BYTES);
	cleanup_free uint8_t *table = NULL;
	struct format_trailer t;
	uint32_t slots;
	int r;

	if (!buf)
		return -ENOMEM;
	r = lio_read_sync(c->lio, file, buf, FORMAT_SLOT_BYTES,
			  (uint64_t)(c->seg_slots - 1) * FORMAT_SLOT_BYTES);
	if (r < 0)
		return r;
	r = format_trailer_decode(buf, &t);
	if (r < 0)
		return r;
	if (t.segment != segment || t.incarnation != incarnation ||
	    memcmp(t.uuid, c->conf.identity->cache_uuid, sizeof(t.uuid)) != 0)
		return -EBADMSG; /* of an earlier life of the file */
	if (t.nrecords > c->seg_slots * FORMAT_BATCH_RECORDS || t.ncrcs > c->seg_slots ||
	    format_footer_slots(t.nrecords, t.ncrcs) >= c->seg_slots || t.end_slot > c->seg_slots)
		return -EBADMSG;
	slots = format_footer_slots(t.nrecords, t.ncrcs) - 1;
	ret->record = malloc(MAX(t.nrecords, 1u) * sizeof(*ret->record));
	ret->crc = malloc(MAX(t.ncrcs, 1u) * sizeof(*ret->crc));
	table = aligned_alloc(FORMAT_SLOT_BYTES, MAX(slots, 1u) * FORMAT_SLOT_BYTES);
	if (!ret->record || !ret->crc || !table)
		return -ENOMEM;
	if (slots) {
		r = lio_read_sync(c->lio, file, table, (size_t)slots * FORMAT_SLOT_BYTES,
				  (uint64_t)(c->seg_slots - 1 - slots) * FORMAT_SLOT_BYTES);
		if (r < 0)
			return r;
	}
	r = format_table_decode(&t, table, c->seg_slots, ret->record, ret->crc);
	if (r < 0)
		return r;
	ret->nrecords = ret->record_cap = t.nrecords;
	ret->ncrcs = ret->crc_cap = t.ncrcs;
	*info = (struct table_info){
		.destaged_seq = t.destaged_seq,
		.durable_seq = t.durable_seq,
		.far_as_of_ns = t.far_as_of_ns,
		.end_slot = t.end_slot,
		.from_footer = true,
	};
	return 0;
}

/*
 * What a header repeats of the batch before it and that batch did not tell. Without payload a
 * record is all there in the repetition; of one with payload it is known what it held, not where.
 */
static int add_repeated(const struct format_batch *b, struct seg_table *ret,
			struct table_info *info)
{
	for (uint32_t i = 0; i < b->nprev; i++) {
		struct format_record r = b->prev[i];
		bool payload = format_payload(&r) > 0;

		if (ret->nrecords && r.seq <= ret->record[ret->nrecords - 1].seq)
			continue;
		r.slot = payload ? 0 : TABLE_REPEATED;
		if (seg_table_add(payload ? &info->named : ret, &r, NULL) < 0)
			return -ENOMEM;
	}
	return 0;
}

/*
 * Walk the whole segment. Behind a header that is not one, every slot is tried: what a damaged
 * header hides is found again, and the batch behind it names what it held.
 */
static int scan(struct cache *c, uint32_t segment, struct lio_file *file, uint64_t incarnation,
		struct seg_table *ret, struct table_info *info)
{
	cleanup_free uint8_t *buf = aligned_alloc(FORMAT_SLOT_BYTES, FORMAT_SLOT_BYTES);
	cleanup_free struct format_batch *b = malloc(sizeof(*b));
	cleanup_free uint32_t *crc = malloc(FORMAT_SLOT_BYTES);
	uint32_t slot = 1;
	int r;

	*info = (struct table_info){ .end_slot = 1 };
	if (!buf || !b || !crc)
		return -ENOMEM;
	while (slot < c->seg_slots) {
		uint32_t at = 0;

		r = lio_read_sync(c->lio, file, buf, FORMAT_SLOT_BYTES,
				  (uint64_t)slot * FORMAT_SLOT_BYTES);
		if (r == -ENODATA)
			break;
		if (r < 0 && r != -EIO)
			return r;
		if (r < 0)
			info->unread = info->unread_tail = true;
		if (r < 0 || format_batch_decode(buf, c->seg_slots, b, crc) < 0 ||
		    b->slot != slot || b->segment != segment || b->incarnation != incarnation ||
		    memcmp(b->uuid, c->conf.identity->cache_uuid, sizeof(b->uuid)) != 0) {
			slot++;
			continue;
		}
		if (add_repeated(b, ret, info) < 0)
			return -ENOMEM;
		for (uint32_t i = 0; i < b->nrecords; i++) {
			r = seg_table_add(ret, &b->record[i], crc + at);
			if (r < 0)
				return r;
			at += format_payload(&b->record[i]);
		}
		info->destaged_seq = MAX(info->destaged_seq, b->destaged_seq);
		info->durable_seq = MAX(info->durable_seq, b->durable_seq);
		info->far_as_of_ns = MAX(info->far_as_of_ns, b->far_as_of_ns);
		slot += 1 + b->payload_slots;
		info->end_slot = slot;
		info->unread_tail = false;
	}
	return 0;
}

int table_load(struct cache *c, uint32_t segment, struct lio_file *file, uint64_t incarnation,
	       struct seg_table *ret, struct table_info *ret_info)
{
	struct seg_table t = { 0 };
	struct table_info info;
	int r;

	r = load_footer(c, segment, file, incarnation, &t, &info);
	if (r < 0) {
		seg_table_fini(&t);
		if (r == -ENOMEM)
			return r;
		r = scan(c, segment, file, incarnation, &t, &info);
	}
	if (r < 0 || !ret_info)
		seg_table_fini(&info.named);
	if (r < 0) {
		seg_table_fini(&t);
		return r;
	}
	*ret = t;
	if (ret_info)
		*ret_info = info;
	return 0;
}
