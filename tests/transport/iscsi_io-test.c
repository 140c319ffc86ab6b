// SPDX-License-Identifier: Apache-2.0
/*
 * How large the commands of a request are, by what the session negotiated and what its path holds;
 * and how much of what is urgent goes out at once.
 */
#include <check.h>
#include <stdlib.h>

#include "core/clock.h"
#include "tests/lib/run.h"
#include "transport/iscsi_impl.h"

#define KIB 1024ull

static uint8_t payload[1024 * KIB];
static struct iscsi_session session;
static struct iscsi_pool pool;

/* A session that is up, whose writes go at @rate bytes/s with 100 ms for each. */
static void begin(uint32_t one_trip_bytes, uint64_t rate)
{
	session = (struct iscsi_session){
		.state = ISCSI_UP,
		.one_trip_bytes = one_trip_bytes,
		.max_burst_bytes = 256 * KIB,
	};
	window_init(&session.writes);
	session.writes.rate[0] = rate;
	session.writes.min_ns = 100 * NSEC_PER_MSEC;
	session.writes.full = true;
	pool = (struct iscsi_pool){ .count = 1, .sessions = &session };
	pool.lun.sector_bytes = 512;
}

/* Cuts a WRITE of @length bytes as one session would get it; the largest command it became. */
static uint64_t largest(uint64_t length)
{
	struct iovec iov = { .iov_base = payload, .iov_len = length };
	struct blk_req req = {
		.op = BLK_WRITE, .offset = 4096, .length = length, .iov = &iov, .iovcnt = 1
	};
	struct iscsi_io io = { .req = &req };
	uint64_t max = 0, at = req.offset;

	list_init(&io.redo);
	while (iscsi_io_uncut(&io)) {
		struct iscsi_cmd *cmd = iscsi_cut(&pool, &session, &io);

		ck_assert_ptr_nonnull(cmd);
		ck_assert_uint_eq(cmd->offset, at);
		ck_assert(cmd->iov[0].iov_base == payload + (at - req.offset));
		at += cmd->length;
		max = cmd->length > max ? cmd->length : max;
		session.write_bytes += cmd->cost;
		free(cmd);
	}
	ck_assert_uint_eq(at, req.offset + length);
	return max;
}

/* What goes out unasked is all that is ever sent at once, if it is not tiny. */
START_TEST(test_one_trip)
{
	begin(256 * KIB, 125000000);
	ck_assert_uint_eq(largest(1024 * KIB), 256 * KIB);
	begin(64 * KIB, 125000000);
	session.write_bytes = 8192 * KIB;
	ck_assert_uint_eq(largest(1024 * KIB), 64 * KIB);
}
END_TEST

/* 8 KiB is enough while the command slots full of it hold what the path does, or all there is. */
START_TEST(test_tiny_one_trip)
{
	begin(8 * KIB, 3000000);
	session.write_bytes = 4096 * KIB;
	ck_assert_uint_eq(largest(1024 * KIB), 8 * KIB);
	begin(8 * KIB, 31250000);
	ck_assert_uint_eq(largest(256 * KIB), 8 * KIB);
	session.write_bytes = 4096 * KIB;
	ck_assert_uint_eq(largest(1024 * KIB), 256 * KIB);
	session.max_burst_bytes = 128 * KIB;
	ck_assert_uint_eq(largest(1024 * KIB), 128 * KIB);
}
END_TEST

#define READS 64

static struct blk_req reads[READS], writes[READS], flush;
static unsigned done;

static void on_done(struct blk_req *req, void *ctx, int result)
{
	(void)req;
	(void)ctx;
	ck_assert_int_eq(result, 0);
	done++;
}

static void ask(struct blk_req *req, enum blk_op op, enum blk_lane lane, const struct iovec *iov)
{
	blk_req_init(req, op, 0, iov ? iov->iov_len : 0, iov, iov ? 1 : 0);
	req->lane = lane;
	req->frame[req->depth++] = (struct blk_frame){ .done = on_done };
	ck_assert_int_eq(iscsi_io_begin(&pool, req), 0);
}

/*
 * READS urgent ones of 1 MiB each, as many for write-back and a flush behind them, on a session
 * that has seen @rate bytes/s; the most read bytes in flight.
 */
static uint64_t urgent(uint64_t rate)
{
	struct iovec iov = { .iov_base = payload, .iov_len = sizeof(payload) };
	struct iscsi_ended ended;
	struct list_node *n;
	uint64_t most = 0, out = 0;

	begin(256 * KIB, rate);
	window_init(&session.reads);
	session.reads.rate[0] = rate;
	session.reads.min_ns = 100 * NSEC_PER_MSEC;
	list_init(&session.inbox);
	list_init(&pool.delayed);
	for (int lane = 0; lane < BLK_LANE_COUNT; lane++) {
		list_init(&pool.ios[lane]);
		list_init(&pool.again[lane]);
	}
	pool.lun_known = true;
	done = 0;
	for (unsigned i = 0; i < READS; i++)
		ask(&reads[i], BLK_READ, BLK_LANE_DEMAND, &iov);
	for (unsigned i = 0; i < READS; i++)
		ask(&writes[i], BLK_WRITE, BLK_LANE_WRITEBACK, &iov);
	ask(&flush, BLK_FLUSH, BLK_LANE_FLUSH, NULL);
	iscsi_ended_init(&ended);
	iscsi_dispatch(&pool, &session, &ended);
	/* Neither the flush nor write-back waits until there are no reads any more. */
	list_for_each(n, &session.inbox)
		out |= 1u << list_entry(n, struct iscsi_cmd, link)->kind;
	ck_assert_uint_eq(out, 1 << ISCSI_READ | 1 << ISCSI_WRITE | 1 << ISCSI_SYNC);
	while ((n = list_pop(&session.inbox))) {
		struct iscsi_cmd *cmd = list_entry(n, struct iscsi_cmd, link);

		most = session.read_bytes > most ? session.read_bytes : most;
		iscsi_uncharge(cmd);
		iscsi_cmd_end(&pool, cmd, 0, &ended);
		iscsi_dispatch(&pool, &session, &ended);
	}
	iscsi_ended_complete(&ended);
	ck_assert_uint_eq(done, 2 * READS + 1);
	return most;
}

/* What is urgent does not queue for minutes on a slow path, and fills a fast one. */
START_TEST(test_urgent)
{
	ck_assert_uint_le(urgent(0), 3 * 1024 * KIB);
	ck_assert_uint_le(urgent(250000), 3 * 1024 * KIB);
	ck_assert_uint_ge(urgent(3125000), 58 * 64 * KIB);
	ck_assert_uint_ge(urgent(125000000), 32 * 1024 * KIB);
}
END_TEST

int main(void)
{
	TCase *c = tcase_create("io");
	Suite *suite = suite_create("iscsi_io");

	tcase_add_test(c, test_one_trip);
	tcase_add_test(c, test_tiny_one_trip);
	tcase_add_test(c, test_urgent);
	suite_add_tcase(suite, c);
	return run_suite(suite);
}
