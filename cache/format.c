// SPDX-License-Identifier: Apache-2.0
#include "cache/format.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "core/crc32c.h"
#include "core/le.h"

static const char segment_magic[8] = "NBSEGM01";
static const char batch_magic[8] = "NBBATCH1";
static const char trailer_magic[8] = "NBTRAIL1";

/* A cursor over a slot; the field order in the functions below is the layout on disk. */
struct cursor {
	uint8_t *p;
};

static void put(struct cursor *c, uint64_t v, unsigned bytes)
{
	le_put(c->p, v, bytes);
	c->p += bytes;
}

static uint64_t get(struct cursor *c, unsigned bytes)
{
	uint64_t v = le_get(c->p, bytes);

	c->p += bytes;
	return v;
}

static void put_bytes(struct cursor *c, const void *from, size_t n)
{
	memcpy(c->p, from, n);
	c->p += n;
}

static void get_bytes(struct cursor *c, void *to, size_t n)
{
	memcpy(to, c->p, n);
	c->p += n;
}

/* Every slot of ours: 8 bytes magic, 4 bytes CRC32C over the rest of the slot, 4 zero. */
#define SLOT_HEAD 16

static void seal_slot(uint8_t *slot, const char magic[8])
{
	struct cursor c = { slot };

	put_bytes(&c, magic, 8);
	put(&c, crc32c(0, slot + SLOT_HEAD, FORMAT_SLOT_BYTES - SLOT_HEAD), 4);
	put(&c, 0, 4);
}

static bool slot_good(const uint8_t *slot, const char magic[8])
{
	struct cursor c = { (uint8_t *)(uintptr_t)slot + 8 };

	return memcmp(slot, magic, 8) == 0 &&
	       get(&c, 4) == crc32c(0, slot + SLOT_HEAD, FORMAT_SLOT_BYTES - SLOT_HEAD);
}

static void put_record(struct cursor *c, const struct format_record *r)
{
	put(c, r->blk, 8);
	put(c, r->seq, 8);
	put(c, r->nblocks, 4);
	put(c, r->slot, 4);
	put(c, r->kind, 1);
	put(c, 0, 7);
}

static void get_record(struct cursor *c, struct format_record *r)
{
	r->blk = get(c, 8);
	r->seq = get(c, 8);
	r->nblocks = (uint32_t)get(c, 4);
	r->slot = (uint32_t)get(c, 4);
	r->kind = (uint8_t)get(c, 1);
	get(c, 7);
}

/* The payload lies within the segment, the blocks do not wrap. */
static bool record_sane(const struct format_record *r, uint32_t segment_slots)
{
	uint32_t payload = format_payload(r);

	if (r->kind < FORMAT_WRITE || r->kind > FORMAT_FILL)
		return false;
	if (format_is_data(r) || r->kind == FORMAT_FILL)
		if (!r->nblocks || r->blk > UINT64_MAX / FORMAT_SLOT_BYTES - r->nblocks)
			return false;
	return !payload ||
	       (r->slot >= 2 && r->slot < segment_slots && payload <= segment_slots - r->slot);
}

void format_segment_encode(const struct format_segment *s, uint8_t slot[FORMAT_SLOT_BYTES])
{
	struct cursor c = { slot + SLOT_HEAD };

	memset(slot, 0, FORMAT_SLOT_BYTES);
	put(&c, FORMAT_FEATURES, 8);
	put_bytes(&c, s->uuid, FORMAT_UUID_BYTES);
	put(&c, s->segment, 4);
	put(&c, s->segment_bytes, 4);
	put(&c, s->class, 4);
	put(&c, 0, 4);
	put(&c, s->incarnation, 8);
	put(&c, s->first_seq, 8);
	put(&c, s->destaged_seq, 8);
	put(&c, s->far_as_of_ns, 8);
	put(&c, s->merged_seq, 8);
	seal_slot(slot, segment_magic);
}

int format_segment_decode(const uint8_t slot[FORMAT_SLOT_BYTES], struct format_segment *ret)
{
	struct cursor c = { (uint8_t *)(uintptr_t)slot + SLOT_HEAD };

	if (!slot_good(slot, segment_magic))
		return -EBADMSG;
	if (get(&c, 8) & ~FORMAT_FEATURES)
		return -EPROTONOSUPPORT;
	get_bytes(&c, ret->uuid, FORMAT_UUID_BYTES);
	ret->segment = (uint32_t)get(&c, 4);
	ret->segment_bytes = (uint32_t)get(&c, 4);
	ret->class = (enum format_class)get(&c, 4);
	get(&c, 4);
	ret->incarnation = get(&c, 8);
	ret->first_seq = get(&c, 8);
	ret->destaged_seq = get(&c, 8);
	ret->far_as_of_ns = get(&c, 8);
	ret->merged_seq = get(&c, 8);
	return ret->class == FORMAT_LOG || ret->class == FORMAT_CLEAN ? 0 : -EBADMSG;
}

void format_batch_encode(const struct format_batch *b, uint8_t slot[FORMAT_SLOT_BYTES])
{
	struct cursor c = { slot + SLOT_HEAD };

	assert(b->nrecords <= FORMAT_BATCH_RECORDS && b->nprev <= FORMAT_BATCH_RECORDS);
	assert(b->payload_slots <= FORMAT_BATCH_CRCS(b->nrecords, b->nprev));
	memset(slot, 0, FORMAT_SLOT_BYTES);
	put_bytes(&c, b->uuid, FORMAT_UUID_BYTES);
	put(&c, b->segment, 4);
	put(&c, b->slot, 4);
	put(&c, b->incarnation, 8);
	put(&c, b->destaged_seq, 8);
	put(&c, b->durable_seq, 8);
	put(&c, b->far_as_of_ns, 8);
	put(&c, b->nrecords, 4);
	put(&c, b->nprev, 4);
	put(&c, b->payload_slots, 4);
	put(&c, 0, 4);
	put(&c, b->merged_seq, 8);
	c.p = slot + FORMAT_BATCH_FIXED;
	for (uint32_t i = 0; i < b->nrecords; i++)
		put_record(&c, &b->record[i]);
	for (uint32_t i = 0; i < b->nprev; i++)
		put_record(&c, &b->prev[i]);
	for (uint32_t i = 0; i < b->payload_slots; i++)
		put(&c, b->crc[i], 4);
	seal_slot(slot, batch_magic);
}

int format_batch_decode(const uint8_t slot[FORMAT_SLOT_BYTES], uint32_t segment_slots,
			struct format_batch *ret, uint32_t *crc_buf)
{
	struct cursor c = { (uint8_t *)(uintptr_t)slot + SLOT_HEAD };
	uint32_t next;

	if (!slot_good(slot, batch_magic))
		return -EBADMSG;
	get_bytes(&c, ret->uuid, FORMAT_UUID_BYTES);
	ret->segment = (uint32_t)get(&c, 4);
	ret->slot = (uint32_t)get(&c, 4);
	ret->incarnation = get(&c, 8);
	ret->destaged_seq = get(&c, 8);
	ret->durable_seq = get(&c, 8);
	ret->far_as_of_ns = get(&c, 8);
	ret->nrecords = (uint32_t)get(&c, 4);
	ret->nprev = (uint32_t)get(&c, 4);
	ret->payload_slots = (uint32_t)get(&c, 4);
	get(&c, 4);
	ret->merged_seq = get(&c, 8);
	if (!ret->nrecords || ret->nrecords > FORMAT_BATCH_RECORDS ||
	    ret->nprev > FORMAT_BATCH_RECORDS ||
	    ret->payload_slots > FORMAT_BATCH_CRCS(ret->nrecords, ret->nprev) || !ret->slot ||
	    ret->slot >= segment_slots || ret->payload_slots > segment_slots - ret->slot - 1)
		return -EBADMSG;
	c.p = (uint8_t *)(uintptr_t)slot + FORMAT_BATCH_FIXED;
	next = ret->slot + 1;
	for (uint32_t i = 0; i < ret->nrecords; i++) {
		get_record(&c, &ret->record[i]);
		if (!record_sane(&ret->record[i], segment_slots))
			return -EBADMSG;
		if (format_payload(&ret->record[i]) && ret->record[i].slot != next)
			return -EBADMSG;
		next += format_payload(&ret->record[i]);
	}
	if (next != ret->slot + 1 + ret->payload_slots)
		return -EBADMSG;
	for (uint32_t i = 0; i < ret->nprev; i++) {
		get_record(&c, &ret->prev[i]);
		if (!record_sane(&ret->prev[i], segment_slots))
			return -EBADMSG;
	}
	for (uint32_t i = 0; i < ret->payload_slots; i++)
		crc_buf[i] = (uint32_t)get(&c, 4);
	ret->crc = crc_buf;
	return 0;
}

static uint32_t table_slots(uint32_t nrecords, uint32_t ncrcs)
{
	uint64_t bytes = (uint64_t)nrecords * FORMAT_RECORD_BYTES + (uint64_t)ncrcs * 4;

	return (uint32_t)((bytes + FORMAT_SLOT_BYTES - 1) / FORMAT_SLOT_BYTES);
}

uint32_t format_footer_slots(uint32_t nrecords, uint32_t ncrcs)
{
	return table_slots(nrecords, ncrcs) + 1;
}

void format_footer_encode(struct format_trailer *t, const struct format_record *record,
			  const uint32_t *crc, uint8_t *buf)
{
	size_t table_bytes = (size_t)table_slots(t->nrecords, t->ncrcs) * FORMAT_SLOT_BYTES;
	struct cursor c = { buf };
	uint8_t *slot = buf + table_bytes;

	memset(buf, 0, table_bytes + FORMAT_SLOT_BYTES);
	for (uint32_t i = 0; i < t->nrecords; i++)
		put_record(&c, &record[i]);
	for (uint32_t i = 0; i < t->ncrcs; i++)
		put(&c, crc[i], 4);
	t->table_crc = crc32c(0, buf, table_bytes);
	c.p = slot + SLOT_HEAD;
	put_bytes(&c, t->uuid, FORMAT_UUID_BYTES);
	put(&c, t->segment, 4);
	put(&c, t->class, 4);
	put(&c, t->incarnation, 8);
	put(&c, t->nrecords, 4);
	put(&c, t->ncrcs, 4);
	put(&c, t->end_slot, 4);
	put(&c, t->table_crc, 4);
	put(&c, t->destaged_seq, 8);
	put(&c, t->durable_seq, 8);
	put(&c, t->far_as_of_ns, 8);
	put(&c, t->merged_seq, 8);
	seal_slot(slot, trailer_magic);
}

int format_trailer_decode(const uint8_t slot[FORMAT_SLOT_BYTES], struct format_trailer *ret)
{
	struct cursor c = { (uint8_t *)(uintptr_t)slot + SLOT_HEAD };

	if (!slot_good(slot, trailer_magic))
		return -EBADMSG;
	get_bytes(&c, ret->uuid, FORMAT_UUID_BYTES);
	ret->segment = (uint32_t)get(&c, 4);
	ret->class = (enum format_class)get(&c, 4);
	ret->incarnation = get(&c, 8);
	ret->nrecords = (uint32_t)get(&c, 4);
	ret->ncrcs = (uint32_t)get(&c, 4);
	ret->end_slot = (uint32_t)get(&c, 4);
	ret->table_crc = (uint32_t)get(&c, 4);
	ret->destaged_seq = get(&c, 8);
	ret->durable_seq = get(&c, 8);
	ret->far_as_of_ns = get(&c, 8);
	ret->merged_seq = get(&c, 8);
	return 0;
}

int format_table_decode(const struct format_trailer *t, const uint8_t *table,
			uint32_t segment_slots, struct format_record *record, uint32_t *crc)
{
	size_t table_bytes = (size_t)table_slots(t->nrecords, t->ncrcs) * FORMAT_SLOT_BYTES;
	struct cursor c = { (uint8_t *)(uintptr_t)table };
	uint64_t payload = 0;

	if (crc32c(0, table, table_bytes) != t->table_crc)
		return -EBADMSG;
	for (uint32_t i = 0; i < t->nrecords; i++) {
		get_record(&c, &record[i]);
		if (!record_sane(&record[i], segment_slots))
			return -EBADMSG;
		payload += format_payload(&record[i]);
	}
	if (payload != t->ncrcs)
		return -EBADMSG;
	for (uint32_t i = 0; i < t->ncrcs; i++)
		crc[i] = (uint32_t)get(&c, 4);
	return 0;
}
