// SPDX-License-Identifier: Apache-2.0
/*
 * Appending batches of records to segments, for the guest log and the clean
 * store alike. Making the log durable is in sync.c.
 *
 * One batch of an appender is in flight at a time; what arrives meanwhile waits in `pending` and
 * becomes the next batch together (group commit). So batch k + 1 on disk says that
 * batch k was whole, records are applied and acknowledged in sequence order by
 * construction, and a process killed in the middle leaves one torn batch, the last.
 *
 * An append that fails goes to the next segment again with the same sequence
 * numbers and the same bytes, before anything later is acknowledged: so there is never a
 * hole to be explained by a void record. After APPEND_TRIES the log has failed: everything waiting
 * and everything later ends with -EIO. But one that finds the disk full (a file system that writes
 * elsewhere than where the segment's blocks were filled) waits for room and is sent to the same
 * place again: what stands there then was never acknowledged.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cache/internal.h"
#include "core/log.h"

#define APPEND_TRIES 4

static void batch_done(struct lio_op *lop, int result);

int appender_init(struct appender *a, struct cache *c, enum format_class class, bool probation)
{
	*a = (struct appender){ .cache = c, .class = class, .probation = probation, .head = -1 };
	list_init(&a->pending);
	list_init(&a->flight);
	a->slots = aligned_alloc(FORMAT_SLOT_BYTES, 2 * FORMAT_SLOT_BYTES);
	return a->slots ? 0 : -ENOMEM;
}

void appender_fini(struct appender *a)
{
	free(a->slots);
	a->slots = NULL;
}

/* Footer slots the head needs if @records with @blocks payload blocks are added to it. */
static uint32_t footer_after(const struct segment *s, uint32_t records, uint32_t blocks)
{
	return format_footer_slots(s->table.nrecords + records, s->table.ncrcs + blocks);
}

/* Slots that may still hold batches if one with these counts is added. */
static bool fits(const struct cache *c, const struct appender *a, uint32_t records, uint32_t blocks)
{
	const struct segment *s = &c->seg[a->head];

	return a->next_slot + 1 + blocks + footer_after(s, records, blocks) <= c->seg_slots;
}

/*
 * The reserve: guest data is appended only while one prepared segment is left
 * behind the head, so that barriers and watermarks always find room; without
 * them nothing drains and no room would ever come.
 */
static bool reserve_left(const struct appender *a, unsigned behind)
{
	return a->class == FORMAT_CLEAN || a->cache->prepared_log >= behind;
}

/* Make a READY segment the head. False: there is none for us now. */
static bool open_head(struct appender *a, bool control)
{
	struct cache *c = a->cache;
	unsigned *ready = a->class == FORMAT_LOG ? &c->prepared_log : &c->prepared_clean;
	struct segment *s = NULL;

	if (*ready == 0 || (!control && !reserve_left(a, 2))) {
		janitor_kick(c);
		return false;
	}
	for (uint32_t i = 0; i < c->nsegs; i++) {
		if (c->seg[i].state == SEG_READY && c->seg[i].class == a->class) {
			s = &c->seg[i];
			a->head = (int)i;
			break;
		}
	}
	assert(s);
	(*ready)--;
	s->state = SEG_HEAD;
	s->probation = a->probation;
	s->requeued = false;
	s->footer = false;
	s->poisoned = false;
	s->incarnation = c->next_incarnation++;
	s->order = c->next_order++;
	s->first_seq = c->next_seq;
	s->last_seq = 0;
	s->last_data_seq = 0;
	s->end_slot = 1;
	a->next_slot = 1;
	janitor_kick(c);
	return true;
}

/* ---- sealing ---- */

struct seal {
	struct lio_op lop;
	struct iovec iov;
	struct cache *cache;
	uint32_t segment;
};

static void sealed(struct lio_op *lop, int result)
{
	struct seal *seal = container_of(lop, struct seal, lop);
	struct cache *c = seal->cache;
	struct segment *s = &c->seg[seal->segment];
	struct todo todo;

	cache_lock(c, &todo);
	assert(s->state == SEG_SEALING);
	s->footer = result == 0;
	s->state = SEG_SEALED;
	seg_table_fini(&s->table);
	free(seal->iov.iov_base);
	free(seal);
	janitor_kick(c);
	destage_kick(c);
	cache_put(c);
	cache_unlock(c, &todo);
}

void append_seal(struct appender *a, struct todo *todo)
{
	struct cache *c = a->cache;
	struct segment *s;
	struct format_trailer t = { .class = a->class };
	struct seal *seal;
	uint32_t slots;

	if (a->head < 0)
		return;
	assert(!a->busy);
	s = &c->seg[a->head];
	s->end_slot = a->next_slot;
	s->state = SEG_SEALING;
	t.segment = (uint32_t)a->head;
	a->head = -1;
	memcpy(t.uuid, c->conf.identity->cache_uuid, sizeof(t.uuid));
	t.incarnation = s->incarnation;
	t.nrecords = s->table.nrecords;
	t.ncrcs = s->table.ncrcs;
	t.end_slot = s->end_slot;
	t.destaged_seq = c->destaged_seq;
	t.durable_seq = c->durable_seq;
	t.far_as_of_ns = c->far_as_of_ns;
	slots = format_footer_slots(t.nrecords, t.ncrcs);
	seal = calloc(1, sizeof(*seal));
	if (seal)
		seal->iov.iov_base = aligned_alloc(FORMAT_SLOT_BYTES, slots * FORMAT_SLOT_BYTES);
	if (!seal || !seal->iov.iov_base || s->poisoned) {
		/* Without a footer the table is found by scanning. */
		if (seal)
			free(seal->iov.iov_base);
		free(seal);
		s->state = SEG_SEALED;
		seg_table_fini(&s->table);
		return;
	}
	format_footer_encode(&t, s->table.record, s->table.crc, seal->iov.iov_base);
	seal->iov.iov_len = slots * FORMAT_SLOT_BYTES;
	seal->cache = c;
	seal->segment = t.segment;
	seal->lop.kind = LIO_WRITE;
	seal->lop.file = s->file;
	seal->lop.offset = (uint64_t)(c->seg_slots - slots) * FORMAT_SLOT_BYTES;
	seal->lop.iov = &seal->iov;
	seal->lop.iovcnt = 1;
	seal->lop.done = sealed;
	/* A footer that is lost is made good by walking the segment: it needs no sync of its own.
	 */
	cache_get(c);
	list_init(&seal->lop.link);
	list_add_tail(&todo->local, &seal->lop.link);
}

/* ---- batches ---- */

/* Take from pending what one batch may hold and the head has room for. */
static void gather(struct appender *a)
{
	struct cache *c = a->cache;
	struct format_batch *b = &a->batch;
	uint32_t blocks = 0;
	int iovs = 2;

	b->nrecords = 0;
	while (!list_empty(&a->pending) && b->nrecords < FORMAT_BATCH_RECORDS) {
		struct append_op *op = list_first(&a->pending, struct append_op, link);
		uint32_t n = format_payload(&op->record);

		if (!op->control && !reserve_left(a, 1))
			break;
		if (blocks + n > FORMAT_BATCH_CRCS(b->nrecords + 1, a->nprev) ||
		    iovs + op->iovcnt > LIO_MAX_IOV || !fits(c, a, b->nrecords + 1, blocks + n))
			break;
		list_del(&op->link);
		list_add_tail(&a->flight, &op->link);
		if (n) {
			op->record.slot = a->next_slot + 1 + blocks;
			memcpy(a->crc + blocks, op->crc, n * sizeof(*a->crc));
			iovs += iov_slice(op->iov, op->iovcnt, op->skip, (size_t)n * BLK,
					  a->iov + iovs, LIO_MAX_IOV - iovs);
			blocks += n;
		} else {
			op->record.slot = 0;
		}
		op->segment = (uint32_t)a->head;
		if (a->class == FORMAT_LOG && !op->numbered) {
			op->record.seq = c->next_seq++;
			op->numbered = true;
		}
		b->record[b->nrecords++] = op->record;
	}
	b->payload_slots = blocks;
	a->flight_slots = 1 + blocks;
	a->lop.iovcnt = iovs;
	a->pending_blocks -= MIN(a->pending_blocks, (uint64_t)blocks);
}

/* Build and send the next batch; the head has room for at least its first record. */
static void send_batch(struct appender *a, struct todo *todo)
{
	struct cache *c = a->cache;
	struct segment *s = &c->seg[a->head];
	struct format_batch *b = &a->batch;
	bool first = a->next_slot == 1;

	gather(a);
	assert(b->nrecords > 0);
	memcpy(b->uuid, c->conf.identity->cache_uuid, sizeof(b->uuid));
	b->segment = (uint32_t)a->head;
	b->incarnation = s->incarnation;
	b->slot = a->next_slot;
	b->destaged_seq = c->destaged_seq;
	b->durable_seq = c->durable_seq;
	b->far_as_of_ns = c->far_as_of_ns;
	b->nprev = a->nprev;
	memcpy(b->prev, a->prev, a->nprev * sizeof(*a->prev));
	b->crc = a->crc;
	format_batch_encode(b, a->slots + FORMAT_SLOT_BYTES);
	if (first) {
		struct format_segment head = {
			.segment = b->segment,
			.segment_bytes = c->seg_slots * FORMAT_SLOT_BYTES,
			.class = a->class,
			.incarnation = s->incarnation,
			.first_seq = a->class == FORMAT_LOG ? b->record[0].seq : 0,
			.destaged_seq = c->destaged_seq,
			.far_as_of_ns = c->far_as_of_ns,
		};

		memcpy(head.uuid, b->uuid, sizeof(head.uuid));
		s->first_seq = head.first_seq;
		format_segment_encode(&head, a->slots);
	}
	/* iov[0] is the segment header, sent with the first batch; iov[1] the batch header. */
	a->iov[0] = (struct iovec){ a->slots, FORMAT_SLOT_BYTES };
	a->iov[1] = (struct iovec){ a->slots + FORMAT_SLOT_BYTES, FORMAT_SLOT_BYTES };
	a->lop.iov = first ? a->iov : a->iov + 1;
	a->lop.iovcnt -= first ? 0 : 1;
	a->lop.kind = LIO_WRITE;
	a->lop.file = s->file;
	a->lop.offset = (uint64_t)(first ? 0 : a->next_slot) * FORMAT_SLOT_BYTES;
	a->lop.done = batch_done;
	a->busy = true;
	cache_get(c);
	list_init(&a->lop.link);
	list_add_tail(&todo->local, &a->lop.link);
}

void log_fail(struct cache *c, struct todo *todo)
{
	c->log_failed = true;
	write_fail_waiting(c, -EIO, todo);
	drains_end(c, -EIO, todo);
}

void append_fail(struct appender *a, int result, struct todo *todo)
{
	struct list_node *n;

	while ((n = list_pop(&a->pending))) {
		struct append_op *op = list_entry(n, struct append_op, link);

		/* A number that was given and never written: nothing may come behind the gap. */
		if (a->class == FORMAT_LOG && op->numbered)
			log_fail(a->cache, todo);
		op->appended(a->cache, op, result, todo);
	}
	a->pending_blocks = 0;
}

void append_kick(struct appender *a, struct todo *todo)
{
	struct cache *c = a->cache;
	struct append_op *op;

	while (!a->busy && (op = list_first(&a->pending, struct append_op, link))) {
		if (a->class == FORMAT_LOG && c->log_failed) {
			append_fail(a, -EIO, todo);
			return;
		}
		if (a->no_room && c->disk_full && !c->stopping) {
			if (a->class == FORMAT_CLEAN)
				append_fail(a, -ENOSPC, todo);
			return;
		}
		a->no_room = false;
		if (a->head >= 0 && !fits(c, a, 1, format_payload(&op->record)))
			append_seal(a, todo);
		if (a->head < 0 && !open_head(a, op->control)) {
			/*
			 * The clean store never makes anyone wait: what finds no room is not kept;
			 * and the janitor, which makes room, must not wait for itself. While
			 * stopping nobody makes room.
			 */
			if (c->stopping)
				append_fail(a, -ESHUTDOWN, todo);
			else if (a->class == FORMAT_CLEAN &&
				 (a->pending_blocks > PIECE_BLOCKS * 16 || janitor_copying(c)))
				append_fail(a, -ENOSPC, todo);
			return;
		}
		if (!op->control && !reserve_left(a, 1)) {
			if (c->stopping)
				append_fail(a, -ESHUTDOWN, todo);
			janitor_kick(c);
			return;
		}
		send_batch(a, todo);
	}
}

void append_submit(struct appender *a, struct append_op *op, struct todo *todo)
{
	uint32_t n = format_payload(&op->record);

	assert(n <= MAP_LEAF_BLOCKS && op->iovcnt <= LIO_MAX_IOV - 2);
	op->numbered = false;
	list_init(&op->link);
	if (op->control) {
		/*
		 * Control records pass waiting data: a barrier covers what was acknowledged, which
		 * what waits here is not, and data may be waiting for the very room that they make.
		 */
		struct list_node *at = a->pending.next;

		while (at != &a->pending && (list_entry(at, struct append_op, link)->control ||
					     list_entry(at, struct append_op, link)->numbered))
			at = at->next;
		list_add_tail(at, &op->link);
	} else {
		list_add_tail(&a->pending, &op->link);
	}
	a->pending_blocks += n;
	append_kick(a, todo);
}

static bool no_room(int result)
{
	return result == -ENOSPC || result == -EDQUOT;
}

/* The batch did not reach the file: all of it goes to the front again, for another segment. */
static void batch_failed(struct appender *a, int result, struct todo *todo)
{
	struct cache *c = a->cache;
	struct list_node retry, *n;

	a->no_room = no_room(result);
	if (a->no_room) {
		janitor_disk_full(c);
	} else {
		a->failures++;
		c->seg[a->head].poisoned = true;
		append_seal(a, todo);
	}
	/* They have their numbers, so they come first, and whatever would make room comes behind
	 * them. */
	list_for_each(n, &a->flight)
		list_entry(n, struct append_op, link)->control = true;
	list_init(&retry);
	list_splice_tail(&retry, &a->flight);
	list_splice_tail(&retry, &a->pending);
	list_splice_tail(&a->pending, &retry);
	if (a->class == FORMAT_CLEAN) {
		append_fail(a, result, todo);
		a->failures = 0;
	} else if (a->no_room && c->stopping) {
		append_fail(a, -ESHUTDOWN, todo);
	} else if (a->failures >= APPEND_TRIES) {
		log_fail(c, todo);
		append_fail(a, -EIO, todo);
	}
}

/* The log grew by the batch in flight. */
static void log_grew(struct appender *a)
{
	struct cache *c = a->cache;
	struct segment *s = &c->seg[a->head];
	bool data = false;

	s->unsynced = true;
	s->last_seq = a->batch.record[a->batch.nrecords - 1].seq;
	for (uint32_t i = 0; i < a->batch.nrecords; i++) {
		const struct format_record *r = &a->batch.record[i];

		data |= format_is_data(r);
		if (r->kind != FORMAT_WATERMARK)
			c->content_seq = r->seq;
	}
	c->appended_seq = s->last_seq;
	c->marked_seq = a->batch.durable_seq;
	/* Before the barrier in it closes the epoch that it goes with. */
	if (!data)
		epoch_add_control(c, 1);
}

static void batch_applied(struct appender *a, struct todo *todo)
{
	struct cache *c = a->cache;
	struct segment *s = &c->seg[a->head];
	struct list_node *n;
	uint32_t crc = 0;
	bool header = true;

	a->failures = 0;
	for (uint32_t i = 0; i < a->batch.nrecords; i++) {
		/* Out of memory: the footer would lie; scanning finds the record. */
		if (seg_table_add(&s->table, &a->batch.record[i], a->crc + crc) < 0)
			s->poisoned = true;
		crc += format_payload(&a->batch.record[i]);
	}
	memcpy(a->prev, a->batch.record, a->batch.nrecords * sizeof(*a->prev));
	a->nprev = a->batch.nrecords;
	a->next_slot += a->flight_slots;
	s->end_slot = a->next_slot;
	if (a->class == FORMAT_LOG)
		log_grew(a);
	while ((n = list_pop(&a->flight))) {
		struct append_op *op = list_entry(n, struct append_op, link);

		if (a->class == FORMAT_LOG && format_is_data(&op->record)) {
			s->last_data_seq = op->record.seq;
			epoch_add(c, &op->record, format_payload(&op->record) + header);
			header = false;
		}
		op->appended(c, op, 0, todo);
	}
}

static void batch_done(struct lio_op *lop, int result)
{
	struct appender *a = container_of(lop, struct appender, lop);
	struct cache *c = a->cache;
	struct todo todo;
	bool fatal, told;

	/* Before anyone is told. */
	if (result == 0 && a->class == FORMAT_LOG)
		lio_set_word(c->lio, WORD_APPENDED,
			     cache_word_of(a->batch.record[a->batch.nrecords - 1].seq));
	cache_lock(c, &todo);
	told = c->disk_full;
	if (result < 0) {
		a->busy = false;
		batch_failed(a, result, &todo);
	} else {
		/* Busy until all is applied: what the callbacks append must not start a batch
		 * inside. */
		batch_applied(a, &todo);
		a->busy = false;
	}
	if (a->class == FORMAT_LOG && epoch_wants_cut(c))
		epoch_cut(c, &todo);
	if (!janitor_dropped(c))
		janitor_kick(c);
	append_kick(a, &todo);
	fatal = a->class == FORMAT_LOG && c->log_failed;
	told &= no_room(result);
	cache_put(c);
	cache_unlock(c, &todo);
	if (no_room(result) && !told)
		log_warning("cache: no room on the disk: %s; clean data is given back, then "
			    "writers wait",
			    strerror(-result));
	else if (result < 0 && !told)
		log_error("cannot append to %s: %s%s",
			  a->class == FORMAT_LOG ? "the guest log" : "the clean store",
			  strerror(-result),
			  fatal ? "; no more writes are taken, what was acknowledged stays here"
				: "");
}
