// SPDX-License-Identifier: Apache-2.0
/*
 * How requests are cut into commands.
 *
 * A command takes about 10 ms of the measured rate, 64 KiB to 1 MiB, a write no more than goes out
 * without waiting for an R2T. Where that is so little (tgt and LIO as shipped: 8 KiB) that a
 * session's command slots full of it do not fill the path, a write may need one R2T: it costs a
 * second round trip, but more bytes are under way.
 */
#include <stdlib.h>

#include "core/cleanup.h"
#include "core/range.h"
#include "transport/iscsi_impl.h"

#define KIB 1024ull
#define MIB (1024 * KIB)

/* WRITE SAME blocks one thread of some targets for as long as writing it all takes. */
#define SAME_BYTES (32 * MIB)
#define SAME_UNMAP_BYTES (1024 * MIB)
/* What a command without data is charged: it costs the target something. */
#define SAME_COST (64 * KIB)
/* readv() and writev() take this many; libiscsi does not look. */
#define IOV_ENTRIES 512

static char zeroes[64 * KIB]; /* never written */

bool iscsi_io_uncut(const struct iscsi_io *io)
{
	return io->cut_bytes < io->req->length || !list_empty(&io->redo);
}

static uint64_t pool_rate(const struct iscsi_pool *pool, bool write)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < pool->count; i++) {
		const struct iscsi_session *s = &pool->sessions[i];

		if (s->state == ISCSI_UP)
			sum += window_rate(write ? &s->writes : &s->reads);
	}
	return sum;
}

/* What takes 10 ms of the link: who is urgent waits for half of that on average. */
static uint64_t paced_size(const struct iscsi_pool *pool, bool write)
{
	uint64_t rate = pool_rate(pool, write), size = 64 * KIB;

	if (!rate)
		return 256 * KIB;
	while (size < MIB && size * 100 < rate)
		size *= 2;
	return size;
}

static uint64_t write_size(const struct iscsi_pool *pool, const struct iscsi_session *s,
			   uint64_t left)
{
	uint64_t one = s->one_trip_bytes, paced = paced_size(pool, true);
	uint64_t wanted = MIN(s->write_bytes + left, window_limit(&s->writes));

	if (one >= 64 * KIB || wanted <= ISCSI_SLOTS_LOWER * one)
		return MIN(one, paced);
	paced = MIN(paced, 256 * KIB);
	return MIN(MAX(s->max_burst_bytes, one), paced);
}

static uint64_t same_size(const struct iscsi_pool *pool)
{
	uint64_t max = pool->lun.discard ? SAME_UNMAP_BYTES : SAME_BYTES;

	if (pool->lun.write_same_blocks &&
	    pool->lun.write_same_blocks < max / pool->lun.sector_bytes)
		max = pool->lun.write_same_blocks * pool->lun.sector_bytes;
	return max;
}

enum iscsi_kind iscsi_io_kind(const struct iscsi_io *io)
{
	switch (io->req->op) {
	case BLK_READ:
		return ISCSI_READ;
	case BLK_WRITE:
		return ISCSI_WRITE;
	case BLK_FLUSH:
		return ISCSI_SYNC;
	default:
		return io->same ? ISCSI_SAME : ISCSI_ZEROES;
	}
}

static uint64_t piece_size(const struct iscsi_pool *pool, const struct iscsi_session *s,
			   enum iscsi_kind kind, uint64_t left)
{
	uint64_t size = left;

	if (kind == ISCSI_READ)
		size = paced_size(pool, false);
	else if (kind == ISCSI_WRITE || kind == ISCSI_ZEROES)
		size = write_size(pool, s, left);
	else if (kind == ISCSI_SAME)
		size = same_size(pool);
	return MIN(size, left);
}

uint64_t iscsi_io_next_bytes(const struct iscsi_pool *pool, const struct iscsi_io *io)
{
	uint64_t left = io->req->length - io->cut_bytes;

	if (io->req->op == BLK_READ)
		return MIN(paced_size(pool, false), left);
	return io->req->op == BLK_WRITE ? MIN(paced_size(pool, true), left) : SAME_COST;
}

/* How many entries of @iov cover @length bytes from @skip. */
static int count_iov(const struct iovec *iov, int iovcnt, uint64_t skip, uint64_t length)
{
	int n = 0;

	for (int i = 0; i < iovcnt && length; i++) {
		uint64_t take;

		if (skip >= iov[i].iov_len) {
			skip -= iov[i].iov_len;
			continue;
		}
		take = MIN(iov[i].iov_len - skip, length);
		skip = 0;
		length -= take;
		n++;
	}
	return n;
}

static int zero_iov(uint64_t length, struct iovec *out)
{
	int n = 0;

	while (length) {
		uint64_t take = MIN(length, sizeof(zeroes));

		out[n].iov_base = zeroes;
		out[n++].iov_len = take;
		length -= take;
	}
	return n;
}

static struct iscsi_cmd *make_cmd(const struct iscsi_pool *pool, struct iscsi_io *io,
				  enum iscsi_kind kind, uint64_t offset, uint64_t length)
{
	const struct blk_req *req = io->req;
	uint64_t skip = offset - req->offset;
	struct iscsi_cmd *cmd;
	int entries = 0;

	if (kind == ISCSI_READ || kind == ISCSI_WRITE) {
		while ((entries = count_iov(req->iov, req->iovcnt, skip, length)) > IOV_ENTRIES &&
		       length > pool->lun.sector_bytes)
			length = MAX(round_down(length / 2, pool->lun.sector_bytes),
				     (uint64_t)pool->lun.sector_bytes);
	} else if (kind == ISCSI_ZEROES) {
		entries = (int)div_round_up(length, sizeof(zeroes));
	} else if (kind == ISCSI_SAME) {
		entries = 1;
	}
	cmd = calloc(1, sizeof(*cmd) + (size_t)entries * sizeof(struct iovec));
	if (!cmd)
		return NULL;
	list_init(&cmd->link);
	cmd->io = io;
	cmd->kind = kind;
	cmd->offset = offset;
	cmd->length = length;
	cmd->cost = kind == ISCSI_SAME ? SAME_COST : MAX(length, (uint64_t)512);
	if (kind == ISCSI_READ || kind == ISCSI_WRITE)
		cmd->iovcnt = iov_slice(req->iov, req->iovcnt, skip, length, cmd->iov, entries);
	else if (kind == ISCSI_ZEROES)
		cmd->iovcnt = zero_iov(length, cmd->iov);
	else if (kind == ISCSI_SAME)
		cmd->iovcnt = zero_iov(pool->lun.sector_bytes, cmd->iov);
	return cmd;
}

struct iscsi_cmd *iscsi_cut(const struct iscsi_pool *pool, const struct iscsi_session *s,
			    struct iscsi_io *io)
{
	struct blk_req *req = io->req;
	enum iscsi_kind kind = iscsi_io_kind(io);
	struct iscsi_cmd *redo = NULL, *cmd;
	uint64_t offset, left;

	if (!iscsi_io_uncut(io)) {
		cmd = make_cmd(pool, io, ISCSI_SYNC, 0, 0);
		if (cmd)
			io->commands++;
		return cmd;
	}
	if (!list_empty(&io->redo)) {
		redo = list_entry(io->redo.next, struct iscsi_cmd, link);
		offset = redo->offset;
		left = redo->length;
	} else {
		offset = req->offset + io->cut_bytes;
		left = req->length - io->cut_bytes;
	}
	cmd = make_cmd(pool, io, kind, offset, piece_size(pool, s, kind, left));
	if (!cmd)
		return NULL;
	io->commands++;
	if (!redo) {
		io->cut_bytes += cmd->length;
	} else if (cmd->length == left) {
		list_del(&redo->link);
		free(redo);
	} else {
		redo->offset += cmd->length;
		redo->length -= cmd->length;
	}
	return cmd;
}
