// SPDX-License-Identifier: Apache-2.0
#include "core/parse.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>

#include "core/cleanup.h"
#include "core/clock.h"
#include "tests/lib/run.h"

struct row {
	const char *text;
	int result;
	uint64_t value;
};

static const struct row sizes[] = {
	{ "0", 0, 0 },
	{ "4096", 0, 4096 },
	{ "64K", 0, 65536 },
	{ "8M", 0, 8ull << 20 },
	{ "2g", 0, 2ull << 30 },
	{ "1T", 0, 1ull << 40 },
	{ "1TiB", 0, 1ull << 40 },
	{ "18446744073709551615", 0, UINT64_MAX },
	{ "18446744073709551616", -ERANGE, 0 },
	{ "16777216T", -ERANGE, 0 },
	{ "", -EINVAL, 0 },
	{ "-1", -EINVAL, 0 },
	{ "+1", -EINVAL, 0 },
	{ " 1", -EINVAL, 0 },
	{ "12abc", -EINVAL, 0 },
	{ "1.5G", -EINVAL, 0 },
	{ "0x10", -EINVAL, 0 },
	{ "1K ", -EINVAL, 0 },
	{ "1K/s", -EINVAL, 0 },
};

static const struct row durations[] = {
	{ "10", 0, 10 * NSEC_PER_SEC },
	{ "10s", 0, 10 * NSEC_PER_SEC },
	{ "500ms", 0, 500 * NSEC_PER_MSEC },
	{ "5min", 0, 300 * NSEC_PER_SEC },
	{ "2h", 0, 7200 * NSEC_PER_SEC },
	{ "1.5s", 0, 1500 * NSEC_PER_MSEC },
	{ "0.25", 0, 250 * NSEC_PER_MSEC },
	{ "1.", -EINVAL, 0 },
	{ ".5", -EINVAL, 0 },
	{ "5m", -EINVAL, 0 },
	{ "10x", -EINVAL, 0 },
	{ "99999999999999999999", -ERANGE, 0 },
	{ "18446744074", -ERANGE, 0 },
};

static const struct row rates[] = {
	{ "12M", 0, 12ull << 20 }, { "12M/s", 0, 12ull << 20 }, { "100", 0, 100 },
	{ "1/s", 0, 1 },           { "/s", -EINVAL, 0 },        { "1Mbit", -EINVAL, 0 },
};

static void check_rows(const struct row *row, size_t n, int (*parse)(const char *, uint64_t *))
{
	for (size_t i = 0; i < n; i++) {
		uint64_t v = 0xdeadbeef;
		int r = parse(row[i].text, &v);

		ck_assert_msg(r == row[i].result, "\"%s\": %d, not %d", row[i].text, r,
			      row[i].result);
		ck_assert_msg(v == (r < 0 ? 0xdeadbeef : row[i].value), "\"%s\"", row[i].text);
	}
}

START_TEST(test_sizes)
{
	check_rows(sizes, ARRAY_SIZE(sizes), parse_size);
}
END_TEST

START_TEST(test_durations)
{
	check_rows(durations, ARRAY_SIZE(durations), parse_duration);
}
END_TEST

START_TEST(test_rates)
{
	check_rows(rates, ARRAY_SIZE(rates), parse_rate);
}
END_TEST

START_TEST(test_modes)
{
	uint32_t mode = 7;

	ck_assert_int_eq(parse_mode("0640", &mode), 0);
	ck_assert_uint_eq(mode, 0640);
	ck_assert_int_eq(parse_mode("648", &mode), -EINVAL);
	ck_assert_int_eq(parse_mode("", &mode), -EINVAL);
	ck_assert_int_eq(parse_mode("1777", &mode), -EINVAL);
	ck_assert_uint_eq(mode, 0640);
}
END_TEST

START_TEST(test_format)
{
	char size[16], span[24];

	ck_assert_str_eq(format_size(512, size), "512 B");
	ck_assert_str_eq(format_size(1536, size), "1.5 KiB");
	ck_assert_str_eq(format_size(UINT64_MAX, size), "16.0 EiB");
	ck_assert_str_eq(format_duration(350 * NSEC_PER_MSEC, span), "350 ms");
	ck_assert_str_eq(format_duration(250 * NSEC_PER_SEC, span), "4 min 10 s");
}
END_TEST

int main(void)
{
	Suite *s = suite_create("parse");
	TCase *tc = tcase_create("parse");

	tcase_add_test(tc, test_sizes);
	tcase_add_test(tc, test_durations);
	tcase_add_test(tc, test_rates);
	tcase_add_test(tc, test_modes);
	tcase_add_test(tc, test_format);
	suite_add_tcase(s, tc);
	return run_suite(s);
}
