// SPDX-License-Identifier: Apache-2.0
/* How large the commands of a request are, by what the session negotiated and what its path holds.
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

int main(void)
{
	TCase *c = tcase_create("cut");
	Suite *suite = suite_create("iscsi_cut");

	tcase_add_test(c, test_one_trip);
	tcase_add_test(c, test_tiny_one_trip);
	suite_add_tcase(suite, c);
	return run_suite(suite);
}
