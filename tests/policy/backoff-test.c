// SPDX-License-Identifier: Apache-2.0
#include <check.h>
#include <limits.h>
#include <stdio.h>

#include "core/cleanup.h"
#include "core/clock.h"
#include "policy/backoff.h"
#include "tests/policy/random.h"
#include "tests/lib/run.h"

/* With all bits of @random set or clear the delay is at an end of [d / 2, d]. */
static const struct {
	uint64_t min_ns, max_ns;
	uint64_t longest_ns[6];
} rows[] = {
	{ 100, 1000, { 100, 200, 400, 800, 1000, 1000 } },
	{ 100, 100, { 100, 100, 100, 100, 100, 100 } },
	{ 1, 7, { 1, 2, 4, 7, 7, 7 } },
	{ 1ull << 62, UINT64_MAX, { 1ull << 62, 1ull << 63, UINT64_MAX, UINT64_MAX } },
};

START_TEST(test_table)
{
	struct random rnd = random_begin("backoff");

	for (unsigned i = 0; i < 4; i++) {
		struct backoff b = { rows[_i].min_ns, rows[_i].max_ns, i };
		uint64_t d = rows[_i].longest_ns[i];
		uint64_t low = UINT64_MAX, high = 0;

		for (unsigned k = 0; k < 2000; k++) {
			uint64_t delay_ns;

			b.tries = i;
			delay_ns = backoff_next_ns(&b, random_next(&rnd));
			ck_assert_uint_eq(b.tries, i + 1);
			low = MIN(low, delay_ns);
			high = MAX(high, delay_ns);
		}
		ck_assert_uint_ge(low, d - d / 2);
		ck_assert_uint_le(high, d);
		/* And it is spread over all of it. */
		ck_assert_uint_le(low, d - d / 2 + d / 50);
		ck_assert_uint_ge(high, d - d / 50);
	}
}
END_TEST

START_TEST(test_reset_and_endless)
{
	struct backoff b = { NSEC_PER_SEC, 30 * NSEC_PER_SEC, 0 };

	for (unsigned i = 0; i < 1000; i++)
		ck_assert_uint_le(backoff_next_ns(&b, i * 0x9e3779b97f4a7c15ull),
				  30 * NSEC_PER_SEC);
	ck_assert_uint_ge(backoff_next_ns(&b, 5), 15 * NSEC_PER_SEC);
	b.tries = UINT_MAX;
	for (unsigned i = 0; i < 2; i++)
		ck_assert_uint_ge(backoff_next_ns(&b, 5), 15 * NSEC_PER_SEC);
	backoff_reset(&b);
	ck_assert_uint_le(backoff_next_ns(&b, 5), NSEC_PER_SEC);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("backoff");
	TCase *tc = tcase_create("backoff");

	tcase_add_loop_test(tc, test_table, 0, (int)ARRAY_SIZE(rows));
	tcase_add_test(tc, test_reset_and_endless);
	suite_add_tcase(suite, tc);
	return run_suite(suite);
}
