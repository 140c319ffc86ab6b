// SPDX-License-Identifier: Apache-2.0
#include "tests/cache/order.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cache/format.h"
#include "core/block.h"
#include "core/range.h"

#define BLK FORMAT_SLOT_BYTES
#define PER_BLK (BLK / ORDER_SECTOR)
#define WORDS (ORDER_SECTOR / 8)
#define STEP 0xc2b2ae3d27d4eb4full

static const char *const kind_name[] = { "?",       "WRITE",     "ZERO", "DISCARD",
					 "BARRIER", "WATERMARK", "CUT",  "FILL" };

/* ---- sectors ---- */

static uint64_t first_word(uint64_t sector, uint32_t stamp)
{
	return (uint64_t)stamp << 32 | (sector + 1);
}

void order_fill(uint8_t *buf, uint64_t sector, uint32_t stamp)
{
	uint64_t word[WORDS] = { 0 };
	uint64_t first = first_word(sector, stamp), x = first * 0x9e3779b97f4a7c15ull;

	for (unsigned i = 1; stamp && i < WORDS; i++)
		word[i] = x + i * STEP;
	word[0] = stamp ? first : 0;
	memcpy(buf, word, sizeof(word));
}

uint32_t order_peek(struct sim *sim, const uint8_t *buf, uint64_t sector)
{
	uint64_t word;

	memcpy(&word, buf, sizeof(word));
	if (word && (uint32_t)word != sector + 1)
		sim_die(sim, "sector %" PRIu64 " begins with %016" PRIx64 ", which is not its own",
			sector, word);
	return (uint32_t)(word >> 32);
}

uint32_t order_stamp(struct sim *sim, const uint8_t *buf, uint64_t sector)
{
	uint8_t right[ORDER_SECTOR];
	uint32_t stamp = order_peek(sim, buf, sector);

	order_fill(right, sector, stamp);
	if (memcmp(buf, right, ORDER_SECTOR) != 0)
		sim_die(sim, "sector %" PRIu64 " is a mixture, beginning with stamp %u", sector,
			stamp);
	return stamp;
}

/* ---- life ---- */

struct order *order_create(struct sim *sim, uint64_t nsectors, uint32_t seg_slots)
{
	struct order *o = sim_alloc(sizeof(*o));

	o->sim = sim;
	o->nsectors = nsectors;
	o->seg_slots = seg_slots;
	o->sector = sim_alloc(nsectors * sizeof(*o->sector));
	return o;
}

void order_destroy(struct order *o)
{
	if (!o)
		return;
	free(o->sector);
	free(o);
}

uint64_t order_last(const struct order *o)
{
	return o->n ? o->record[o->n - 1].seq : 0;
}

uint64_t order_in_file(const struct order *o)
{
	uint64_t seq = 0;

	for (unsigned i = 0; i < o->n && o->record[i].in_file; i++)
		seq = o->record[i].seq;
	return seq;
}

uint64_t order_durable(const struct order *o)
{
	uint64_t seq = 0;

	for (unsigned i = 0; i < o->n && o->record[i].durable; i++)
		seq = o->record[i].seq;
	return seq;
}

static bool is_data(const struct order_record *r)
{
	return format_is_data(&(struct format_record){ .kind = r->kind });
}

/* ---- versions ---- */

static const struct order_record *record_of(const struct order *o, const struct order_version *v)
{
	return &o->record[v->record];
}

static void add_version(struct order *o, uint64_t sector, uint32_t stamp)
{
	struct order_sector *s = &o->sector[sector];
	uint32_t before = s->n ? s->version[s->n - 1].stamp : ORDER_FIRST;

	if (stamp && stamp == before)
		return; /* the rest of a block of which a part was written */
	if (stamp != before && !o->wanted(o->ctx, sector, stamp))
		sim_die(o->sim, "sector %" PRIu64 " is logged as %u, was %u, and nobody wrote that",
			sector, stamp, before);
	if (s->n == ORDER_VERSIONS)
		sim_die(o->sim, "more than %u versions of a sector", ORDER_VERSIONS);
	s->version[s->n++] = (struct order_version){ stamp, (uint16_t)(o->n - 1) };
}

uint32_t order_value(const struct order *o, uint64_t sector, uint64_t seq)
{
	const struct order_sector *s = &o->sector[sector];

	for (unsigned i = s->n; i-- > 0;)
		if (record_of(o, &s->version[i])->seq <= seq)
			return s->version[i].stamp;
	return ORDER_FIRST;
}

bool order_may_be(const struct order *o, uint64_t sector, uint32_t stamp, uint64_t seq)
{
	return order_value(o, sector, seq) == stamp || order_find(o, sector, stamp, seq);
}

uint64_t order_find(const struct order *o, uint64_t sector, uint32_t stamp, uint64_t after)
{
	const struct order_sector *s = &o->sector[sector];

	for (unsigned i = s->n; i-- > 0;) {
		uint64_t seq = record_of(o, &s->version[i])->seq;

		if (seq <= after)
			break;
		if (s->version[i].stamp == stamp)
			return seq;
	}
	return 0;
}

/* Bits from @from up to and without @to. */
static uint64_t bits(unsigned from, unsigned to)
{
	uint64_t below_to = to >= 64 ? UINT64_MAX : (1ull << to) - 1;

	return from >= 64 ? 0 : below_to & ~((1ull << from) - 1);
}

uint64_t order_states(const struct order *o, uint64_t sector, uint32_t stamp, unsigned *ret_epoch)
{
	const struct order_sector *s = &o->sector[sector];
	uint64_t states = 0;
	unsigned first = UINT32_MAX;

	/* i - 1 is the version; before the first there is what was at first, of epoch 0. */
	for (unsigned i = 0; i <= s->n; i++) {
		uint32_t value = i ? s->version[i - 1].stamp : ORDER_FIRST;
		unsigned epoch = i ? record_of(o, &s->version[i - 1])->epoch : 0;
		unsigned next = i < s->n ? record_of(o, &s->version[i])->epoch : ORDER_EPOCHS;

		if (value != stamp)
			continue;
		if (epoch)
			states |= 1ull << (epoch - 1);
		states |= bits(epoch, next);
		first = MIN(first, epoch);
	}
	*ret_epoch = states ? first : 0;
	return states;
}

unsigned order_epoch(const struct order *o, uint64_t seq)
{
	unsigned e = o->closed;

	while (e && o->epoch_end[e] > seq)
		e--;
	return e;
}

/* ---- the log ---- */

/* Take back all behind @seq. */
static void cut_off(struct order *o, uint64_t seq)
{
	unsigned n = o->n;

	while (n && o->record[n - 1].seq > seq)
		n--;
	o->voided += o->n - n;
	o->n = n;
	for (uint64_t i = 0; i < o->nsectors; i++) {
		struct order_sector *s = &o->sector[i];

		while (s->n && s->version[s->n - 1].record >= n)
			s->n--;
	}
	o->closed = 0;
	o->open = false;
	o->mark = o->durable_mark;
	for (unsigned i = 0; i < n; i++) {
		struct order_record *r = &o->record[i];

		if (r->doubtful && r->gone && is_data(r) && r->seq > o->durable_mark)
			sim_die(o->sim, "record %" PRIu64 " is kept, and its segment was reused",
				r->seq);
		r->doubtful = false;
		if (is_data(r))
			o->open = true;
		if (r->kind == FORMAT_WATERMARK)
			o->mark = MAX(o->mark, r->blk);
		if (r->kind == FORMAT_BARRIER && r->epoch) {
			o->closed = r->epoch;
			o->open = false;
		}
	}
	o->cut = seq;
}

static void add_data(struct order *o, struct order_record *r, const struct simdisk_event *e,
		     uint64_t at)
{
	uint8_t block[BLK];

	if (o->closed + 1 == ORDER_EPOCHS)
		sim_die(o->sim, "more than %u epochs", ORDER_EPOCHS);
	r->epoch = (uint8_t)(o->closed + 1);
	o->open = true;
	memset(block, 0, sizeof(block));
	for (uint32_t b = 0; b < r->nblocks; b++) {
		if (r->kind == FORMAT_WRITE)
			iov_copy_from(e->iov, e->iovcnt, at + (uint64_t)b * BLK, block, BLK);
		for (uint64_t i = 0; i < PER_BLK; i++) {
			uint64_t sector = (r->blk + b) * PER_BLK + i;

			if (sector < o->nsectors)
				add_version(o, sector,
					    order_stamp(o->sim, block + i * ORDER_SECTOR, sector));
		}
	}
}

static struct order_record *known(struct order *o, uint64_t seq)
{
	for (unsigned i = o->n; i-- > 0;)
		if (o->record[i].seq == seq)
			return &o->record[i];
	return NULL;
}

/* @at: where its payload is in what is written. */
static void add_record(struct order *o, const struct format_batch *b, const struct format_record *f,
		       const struct simdisk_event *e, uint64_t at)
{
	struct order_record *r = known(o, f->seq);

	sim_trace(o->sim, "log: %" PRIu64 " %s %" PRIu64 "+%u", f->seq, kind_name[f->kind], f->blk,
		  f->nblocks);
	if (r && !r->doubtful) { /* an append that failed is repeated */
		r->op = e->op;
		r->segment = b->segment;
		r->incarnation = b->incarnation;
		r->in_file = r->durable = false;
		return;
	}
	/* Numbers that never reached the disk are given again behind a crash. */
	if (f->kind == FORMAT_CUT)
		cut_off(o, f->blk);
	if (f->seq <= order_last(o))
		sim_die(o->sim, "record %" PRIu64 " is logged behind %" PRIu64, f->seq,
			order_last(o));
	if (o->n == ORDER_RECORDS)
		sim_die(o->sim, "more than %u records", ORDER_RECORDS);
	r = &o->record[o->n++];
	*r = (struct order_record){
		.seq = f->seq,
		.blk = f->blk,
		.nblocks = f->nblocks,
		.kind = f->kind,
		.op = e->op,
		.segment = b->segment,
		.incarnation = b->incarnation,
	};
	if (format_is_data(f))
		add_data(o, r, e, at);
	if (f->kind == FORMAT_WATERMARK)
		o->mark = MAX(o->mark, f->blk);
	if (f->kind == FORMAT_BARRIER && o->open) {
		r->epoch = (uint8_t)++o->closed;
		o->epoch_end[o->closed] = f->seq;
		o->open = false;
	}
}

/* What @segment held so far will not be there any more. */
static void taken(struct order *o, uint32_t segment, uint64_t but_incarnation)
{
	uint64_t newest = 0;

	for (unsigned i = 0; i < o->n; i++) {
		struct order_record *r = &o->record[i];

		if (r->segment != segment || r->gone || r->incarnation == but_incarnation)
			continue;
		r->gone = true;
		if (r->doubtful)
			continue;
		newest = r->seq;
		if (is_data(r) && r->seq > o->durable_mark)
			sim_die(o->sim,
				"segment %u is reused with record %" PRIu64
				", and the durable watermark is %" PRIu64,
				segment, r->seq, o->durable_mark);
	}
	if (!newest)
		return;
	o->reuses++;
	o->reused(o->ctx, newest);
}

static bool segment_number(const char *name, uint32_t *ret)
{
	return name && sscanf(name, "%8" SCNx32 ".seg", ret) == 1;
}

static void see_write(struct order *o, const struct simdisk_event *e, uint32_t segment)
{
	static const uint8_t none[FORMAT_SLOT_BYTES];
	uint8_t slot[FORMAT_SLOT_BYTES];
	uint32_t crc[FORMAT_SLOT_BYTES / 4];
	uint64_t at = e->offset ? 0 : BLK; /* the segment's header goes before its first batch */
	struct format_trailer t;
	struct format_batch b;

	if (iov_length(e->iov, e->iovcnt) >= at + BLK) {
		iov_copy_from(e->iov, e->iovcnt, at, slot, BLK);
		if (memcmp(slot, none, BLK) != 0 &&
		    format_batch_decode(slot, o->seg_slots, &b, crc) == 0) {
			taken(o, segment, b.incarnation);
			for (uint32_t i = 0; i < b.nrecords; i++)
				if (b.record[i].kind != FORMAT_FILL)
					add_record(o, &b, &b.record[i], e,
						   at + (b.record[i].slot - b.slot) *
								   (uint64_t)BLK);
			return;
		}
	}
	/* A footer, or something else. */
	iov_copy_from(e->iov, e->iovcnt, iov_length(e->iov, e->iovcnt) - BLK, slot, BLK);
	if (memcmp(slot, none, BLK) == 0 || format_trailer_decode(slot, &t) < 0)
		taken(o, segment, 0);
}

static void see_written(struct order *o, const struct simdisk_event *e)
{
	for (unsigned i = 0; i < o->n; i++) {
		struct order_record *r = &o->record[i];

		if (r->op != e->op)
			continue;
		r->op = NULL;
		r->in_file = e->result == 0;
	}
}

static void see_sync(struct order *o, const struct simdisk_event *e, uint32_t segment)
{
	for (unsigned i = 0; i < ARRAY_SIZE(o->sync); i++) {
		if (o->sync[i].op)
			continue;
		o->sync[i].op = e->op;
		o->sync[i].segment = segment;
		for (o->sync[i].n = o->n; o->sync[i].n; o->sync[i].n--) {
			const struct order_record *r = &o->record[o->sync[i].n - 1];

			if (r->segment == segment && r->in_file)
				break;
		}
		return;
	}
	sim_die(o->sim, "more syncs at once than there are files");
}

static void see_synced(struct order *o, const struct simdisk_event *e)
{
	for (unsigned i = 0; i < ARRAY_SIZE(o->sync); i++) {
		if (o->sync[i].op != e->op)
			continue;
		o->sync[i].op = NULL;
		for (unsigned k = 0; k < MIN(o->sync[i].n, o->n) && e->result == 0; k++) {
			struct order_record *r = &o->record[k];

			if (r->segment != o->sync[i].segment || !r->in_file)
				continue;
			r->durable = true;
			if (r->kind == FORMAT_WATERMARK)
				o->durable_mark = MAX(o->durable_mark, r->blk);
		}
	}
}

void order_see(struct order *o, const struct simdisk_event *e)
{
	uint32_t segment = 0;
	bool known_name = segment_number(e->name, &segment);

	if (!known_name)
		return;
	if (e->kind == SIMDISK_WRITE && !e->ended)
		see_write(o, e, segment);
	else if (e->kind == SIMDISK_WRITE)
		see_written(o, e);
	else if (e->kind == SIMDISK_SYNC && !e->ended)
		see_sync(o, e, segment);
	else if (e->kind == SIMDISK_SYNC)
		see_synced(o, e);
	else if ((e->kind == SIMDISK_UNLINK || e->kind == SIMDISK_TRUNCATE) && !e->ended)
		taken(o, segment, 0);
}

void order_crash(struct order *o)
{
	memset(o->sync, 0, sizeof(o->sync));
	for (unsigned i = 0; i < o->n; i++) {
		o->record[i].op = NULL;
		o->record[i].in_file = true;
		o->record[i].doubtful = !o->record[i].durable;
	}
}
