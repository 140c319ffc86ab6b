// SPDX-License-Identifier: Apache-2.0
/* The emulated line under a clock of our own: when each packet comes out, and which do not. */
#include "bench/wan_link.h"
#include "tests/lib/run.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MS UINT64_C(1000000)
#define US UINT64_C(1000)
#define MTU 1500

/* 8 Mbit/s: one byte takes one microsecond. */
static const struct wan_link_conf plain = {
	.rate_bps = 8000000,
	.delay_ns = 10 * MS,
	.queue_bytes = 3000,
};

static struct wan_link line;

static void start(const struct wan_link_conf *conf, uint64_t seed)
{
	ck_assert_int_eq(wan_link_init(&line, conf, MTU, seed), 0);
}

static void stop(void)
{
	wan_link_fini(&line);
}

/* Sends one packet whose every byte is mark. */
static void send_at(uint64_t now_ns, size_t len, unsigned char mark)
{
	void *slot = wan_link_slot(&line);

	ck_assert_ptr_nonnull(slot);
	memset(slot, mark, len);
	wan_link_push(&line, now_ns, len);
}

/* Exactly at at_ns, and not a nanosecond before, the packet with this mark comes out. */
static void expect_at(uint64_t at_ns, size_t len, unsigned char mark)
{
	const unsigned char *data;
	size_t got = 0;

	ck_assert_ptr_null(wan_link_peek(&line, at_ns - 1, &got));
	ck_assert_uint_le(wan_link_next_ns(&line), at_ns);
	data = wan_link_peek(&line, at_ns, &got);
	ck_assert_ptr_nonnull(data);
	ck_assert_uint_eq(got, len);
	ck_assert_uint_eq(data[0], mark);
	ck_assert_uint_eq(data[len - 1], mark);
	wan_link_pop(&line);
}

START_TEST(test_time_is_serialisation_plus_delay)
{
	start(&plain, 1);
	ck_assert_uint_eq(wan_link_next_ns(&line), WAN_NEVER);
	send_at(1 * MS, 1000, 'a');
	send_at(1 * MS, 500, 'b');
	ck_assert_uint_eq(wan_link_next_ns(&line), 12 * MS);
	expect_at(12 * MS, 1000, 'a');
	expect_at(12 * MS + 500 * US, 500, 'b');
	send_at(50 * MS, 100, 'c');
	expect_at(60 * MS + 100 * US, 100, 'c');
	ck_assert_uint_eq(wan_link_next_ns(&line), WAN_NEVER);
	ck_assert_uint_eq(line.stats.delivered, 3);
	ck_assert_uint_eq(line.stats.delivered_bytes, 1600);
	stop();
}
END_TEST

/* Nobody looks for a long time: what waited still leaves at its own time, without a hole. */
START_TEST(test_late_look_keeps_the_rate)
{
	size_t len;

	start(&plain, 1);
	for (int i = 0; i < 3; i++)
		send_at(0, 1000, (unsigned char)('a' + i));
	send_at(2500 * US, 1000, 'd');
	expect_at(11 * MS, 1000, 'a');
	for (int i = 0; i < 3; i++) {
		const unsigned char *data = wan_link_peek(&line, 14 * MS, &len);

		ck_assert_ptr_nonnull(data);
		ck_assert_uint_eq(data[0], 'b' + i);
		wan_link_pop(&line);
	}
	stop();
}
END_TEST

START_TEST(test_queue_drops_its_tail)
{
	start(&plain, 1);
	/* One on the serialiser, 3000 bytes behind it, no more. */
	for (int i = 0; i < 5; i++)
		send_at(1, 1000, (unsigned char)('a' + i));
	ck_assert_uint_eq(line.stats.tail_drops, 1);
	ck_assert_uint_eq(wan_link_backlog(&line, 1), 3000);
	/* The next has started: there is room for one again. */
	send_at(1 * MS + 1, 1000, 'x');
	ck_assert_uint_eq(line.stats.tail_drops, 1);
	expect_at(11 * MS + 1, 1000, 'a');
	expect_at(12 * MS + 1, 1000, 'b');
	expect_at(13 * MS + 1, 1000, 'c');
	expect_at(14 * MS + 1, 1000, 'd');
	expect_at(15 * MS + 1, 1000, 'x');
	stop();
}
END_TEST

START_TEST(test_small_queue_passes_single_packets)
{
	struct wan_link_conf conf = plain;

	conf.queue_bytes = 1;
	start(&conf, 1);
	send_at(0, 1000, 'a');
	send_at(0, 1000, 'b');
	send_at(0, 1000, 'c');
	ck_assert_uint_eq(line.stats.tail_drops, 1);
	stop();
}
END_TEST

START_TEST(test_new_rate_applies_to_what_waits)
{
	struct wan_link_conf conf = plain;

	start(&plain, 1);
	send_at(0, 1000, 'a');
	send_at(0, 1000, 'b');
	conf.rate_bps = 80000000;
	wan_link_set(&line, 100 * US, &conf);
	expect_at(11 * MS, 1000, 'a');
	expect_at(11 * MS + 100 * US, 1000, 'b');
	stop();
}
END_TEST

START_TEST(test_shorter_delay_keeps_the_order)
{
	struct wan_link_conf conf = plain;

	start(&plain, 1);
	send_at(0, 1000, 'a');
	conf.delay_ns = 1 * MS;
	wan_link_set(&line, 0, &conf);
	send_at(0, 100, 'b');
	expect_at(11 * MS, 1000, 'a');
	expect_at(11 * MS, 100, 'b');
	send_at(20 * MS, 100, 'c');
	expect_at(21 * MS + 100 * US, 100, 'c');
	stop();
}
END_TEST

START_TEST(test_cut_loses_all_and_restore_none)
{
	size_t len;

	start(&plain, 1);
	send_at(0, 1000, 'a');
	send_at(0, 1000, 'b');
	wan_link_cut(&line, true);
	send_at(1, 1000, 'c');
	ck_assert_uint_eq(wan_link_next_ns(&line), WAN_NEVER);
	ck_assert_ptr_null(wan_link_peek(&line, 100 * MS, &len));
	wan_link_cut(&line, false);
	send_at(200 * MS, 1000, 'd');
	expect_at(211 * MS, 1000, 'd');
	ck_assert_uint_eq(line.stats.cut_drops, 3);
	ck_assert_uint_eq(line.stats.delivered, 1);
	stop();
}
END_TEST

/* Loses n packets' worth, and returns which, one bit each, of the first 64. */
static uint64_t lose(uint64_t loss_ppb, uint64_t seed, int packets)
{
	struct wan_link_conf conf = plain;
	uint64_t bits = 0;
	size_t len;

	conf.loss_ppb = loss_ppb;
	start(&conf, seed);
	for (int i = 0; i < packets; i++) {
		uint64_t now = (uint64_t)i * MS;

		send_at(now, 100, 'a');
		if (!wan_link_peek(&line, now + 11 * MS, &len)) {
			bits |= i < 64 ? UINT64_C(1) << i : 0;
			continue;
		}
		wan_link_pop(&line);
	}
	return bits;
}

START_TEST(test_loss_is_random_and_repeatable)
{
	uint64_t first = lose(WAN_LOSS_ALL / 10, 7, 10000);

	ck_assert_uint_gt(line.stats.losses, 800);
	ck_assert_uint_lt(line.stats.losses, 1200);
	ck_assert_uint_eq(line.stats.losses + line.stats.delivered, 10000);
	stop();
	ck_assert_uint_eq(lose(WAN_LOSS_ALL / 10, 7, 64), first);
	stop();
	ck_assert_uint_ne(lose(WAN_LOSS_ALL / 10, 8, 64), first);
	stop();
	lose(WAN_LOSS_ALL, 1, 100);
	ck_assert_uint_eq(line.stats.losses, 100);
	stop();
}
END_TEST

/* More packets in flight than the first ring has slots, from an index that has moved. */
START_TEST(test_ring_grows_around_its_packets)
{
	const struct wan_link_conf conf = {
		.rate_bps = 8000000,
		.delay_ns = 1000 * MS,
		.queue_bytes = 1 << 20,
	};
	const uint64_t later = 3000 * 1000 * MS;
	const int packets = 5000;
	size_t len;

	start(&conf, 1);
	for (uint64_t i = 0; i < 700; i++) {
		send_at(i * 3000 * MS, 10, 'x');
		ck_assert_ptr_nonnull(wan_link_peek(&line, (i * 3000 + 2000) * MS, &len));
		wan_link_pop(&line);
	}
	for (int i = 0; i < packets; i++)
		send_at(later, 100, (unsigned char)(i % 251 + 1));
	for (int i = 0; i < packets; i++)
		expect_at(later + 1000 * MS + (uint64_t)(i + 1) * 100 * US, 100,
			  (unsigned char)(i % 251 + 1));
	ck_assert_uint_eq(line.stats.tail_drops, 0);
	stop();
}
END_TEST

START_TEST(test_bad_settings)
{
	struct wan_link_conf conf = plain;

	ck_assert_int_eq(wan_link_init(&line, &conf, 0, 1), -EINVAL);
	conf.rate_bps = 0;
	ck_assert_int_eq(wan_link_init(&line, &conf, MTU, 1), -EINVAL);
	memset(&line, 0, sizeof(line));
	wan_link_fini(&line);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("wan_link");
	TCase *tc = tcase_create("wan_link");

	tcase_add_test(tc, test_time_is_serialisation_plus_delay);
	tcase_add_test(tc, test_late_look_keeps_the_rate);
	tcase_add_test(tc, test_queue_drops_its_tail);
	tcase_add_test(tc, test_small_queue_passes_single_packets);
	tcase_add_test(tc, test_new_rate_applies_to_what_waits);
	tcase_add_test(tc, test_shorter_delay_keeps_the_order);
	tcase_add_test(tc, test_cut_loses_all_and_restore_none);
	tcase_add_test(tc, test_loss_is_random_and_repeatable);
	tcase_add_test(tc, test_ring_grows_around_its_packets);
	tcase_add_test(tc, test_bad_settings);
	suite_add_tcase(s, tc);
	return run_suite(s);
}
