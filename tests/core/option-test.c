// SPDX-License-Identifier: Apache-2.0
#include "core/option.h"

#include <check.h>
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "core/cleanup.h"
#include "core/clock.h"
#include "tests/lib/run.h"

enum { CMD_A = 1, CMD_B = 2 };
enum { O_HELP, O_DIR, O_SIZE, O_AGE, O_COUNT, O_MODE, O_LEVEL, O_RO, O_FG, O_RANGE, O_OPT, O_B };

static const struct option_def defs[] = {
	[O_HELP] = { .name = "help",
		     .short_name = 'h',
		     .type = OPTION_ACTION,
		     .help = "this text",
		     .commands = CMD_A | CMD_B },
	[O_DIR] = { .name = "cache-dir",
		    .type = OPTION_TEXT,
		    .arg = "DIR",
		    .help = "where",
		    .commands = CMD_A },
	[O_SIZE] = { .name = "cache-size",
		     .type = OPTION_SIZE,
		     .arg = "SIZE",
		     .help = "how much",
		     .min = 1 << 20,
		     .initial_help = "half the free space",
		     .commands = CMD_A },
	[O_AGE] = { .name = "max-age",
		    .type = OPTION_DURATION,
		    .arg = "TIME",
		    .help = "how old",
		    .initial = "5s",
		    .min = NSEC_PER_MSEC,
		    .max = 3600 * NSEC_PER_SEC,
		    .commands = CMD_A },
	[O_COUNT] = { .name = "sessions",
		      .short_name = 'n',
		      .type = OPTION_NUMBER,
		      .arg = "N",
		      .help = "how many",
		      .initial = "4",
		      .min = 1,
		      .max = 64,
		      .commands = CMD_A },
	[O_MODE] = { .name = "mode",
		     .type = OPTION_MODE,
		     .arg = "MODE",
		     .help = "rights",
		     .initial = "0600",
		     .max = 0777,
		     .commands = CMD_A },
	[O_LEVEL] = { .name = "level",
		      .type = OPTION_CHOICE,
		      .choices = "low|mid|high",
		      .arg = "LEVEL",
		      .initial = "mid",
		      .help = "how high",
		      .commands = CMD_A },
	[O_RO] = { .name = "read-only",
		   .short_name = 'r',
		   .type = OPTION_FLAG,
		   .help = "no writes",
		   .commands = CMD_A },
	[O_FG] = { .name = "foreground",
		   .short_name = 'f',
		   .type = OPTION_FLAG,
		   .help = "stay",
		   .commands = CMD_A },
	[O_RANGE] = { .name = "range",
		      .type = OPTION_LIST,
		      .arg = "RANGE",
		      .help = "what",
		      .commands = CMD_A },
	[O_OPT] = { .name = "options",
		    .short_name = 'o',
		    .type = OPTION_MOUNT,
		    .arg = "KEY[=VALUE],...",
		    .help = "the same, for mount(8)",
		    .commands = CMD_A },
	[O_B] = { .name = "only-b",
		  .type = OPTION_FLAG,
		  .help = "b",
		  .commands = CMD_B,
		  .hidden = true },
};

static const struct option_word words[] = {
	{ "ro", "read-only", false },
	{ "rw", "read-only", true },
	{ "_netdev", NULL, false },
	{ "x-*", NULL, false },
};

static const struct option_table table = { defs, ARRAY_SIZE(defs), words, ARRAY_SIZE(words) };

static int run(struct option_set *set, struct err *err, int argc, ...)
{
	char *argv[16];
	va_list ap;

	va_start(ap, argc);
	for (int i = 0; i < argc; i++)
		argv[i] = va_arg(ap, char *);
	va_end(ap);
	ck_assert_int_eq(option_set_init(set, &table, CMD_A), 0);
	err->text[0] = '\0';
	return option_parse(set, argc, argv, err);
}

#define COUNT_(_1, _2, _3, _4, _5, _6, _7, _8, n, ...) n
#define RUN(set, err, ...) run(set, err, COUNT_(__VA_ARGS__, 8, 7, 6, 5, 4, 3, 2, 1), __VA_ARGS__)

START_TEST(test_defaults)
{
	struct option_set set;
	struct err err;

	ck_assert_int_eq(RUN(&set, &err, "x"), 0);
	ck_assert_uint_eq(set.value[O_COUNT].number, 4);
	ck_assert(!set.value[O_COUNT].given);
	ck_assert_uint_eq(set.value[O_AGE].number, 5 * NSEC_PER_SEC);
	ck_assert_uint_eq(set.value[O_MODE].number, 0600);
	ck_assert_uint_eq(set.value[O_LEVEL].number, 1);
	ck_assert_ptr_null(set.value[O_DIR].text);
	ck_assert_uint_eq(set.operands, 1);
	option_set_clear(&set);
	option_set_clear(&set);
}
END_TEST

START_TEST(test_forms)
{
	struct option_set set;
	struct err err;

	ck_assert_int_eq(RUN(&set, &err, "url", "--cache-size", "64M", "--max-age=500ms", "-n7",
			     "-rf", "--", "-mnt"),
			 0);
	ck_assert_uint_eq(set.value[O_SIZE].number, 64 << 20);
	ck_assert(set.value[O_SIZE].given);
	ck_assert_uint_eq(set.value[O_AGE].number, 500 * NSEC_PER_MSEC);
	ck_assert_uint_eq(set.value[O_COUNT].number, 7);
	ck_assert(set.value[O_RO].given && set.value[O_FG].given);
	ck_assert_uint_eq(set.operands, 2);
	ck_assert_str_eq(set.operand[0], "url");
	ck_assert_str_eq(set.operand[1], "-mnt");
	option_set_clear(&set);

	ck_assert_int_eq(RUN(&set, &err, "--range", "0+1M", "--range=8M+4K", "--level=high", "-n",
			     "1", "-n", "2"),
			 0);
	ck_assert_uint_eq(set.value[O_RANGE].count, 2);
	ck_assert_str_eq(set.value[O_RANGE].list[1], "8M+4K");
	ck_assert_uint_eq(set.value[O_LEVEL].number, 2);
	ck_assert_uint_eq(set.value[O_COUNT].number, 2);
	option_set_clear(&set);
}
END_TEST

START_TEST(test_mount_list)
{
	struct option_set set;
	struct err err;

	ck_assert_int_eq(RUN(&set, &err, "-o",
			     "ro,_netdev,x-systemd.automount,cache_size=2M,max-age=7,,"
			     "cache_dir=/a\\,b,sessions=9"),
			 0);
	ck_assert_uint_eq(set.value[O_RO].number, 1);
	ck_assert_uint_eq(set.value[O_SIZE].number, 2 << 20);
	ck_assert_uint_eq(set.value[O_AGE].number, 7 * NSEC_PER_SEC);
	ck_assert_str_eq(set.value[O_DIR].text, "/a,b");
	ck_assert_uint_eq(set.value[O_COUNT].number, 9);
	option_set_clear(&set);

	ck_assert_int_eq(RUN(&set, &err, "-r", "-o", "rw"), 0);
	ck_assert_uint_eq(set.value[O_RO].number, 0);
	option_set_clear(&set);
}
END_TEST

/* Each refusal, with what its message must hold. */
static const struct {
	const char *first, *second, *message;
} wrong[] = {
	{ "--cachesize", "1M", "unknown option --cachesize; did you mean --cache-size?" },
	{ "--sesions=4", NULL, "did you mean --sessions?" },
	{ "--zebra", NULL, "unknown option --zebra" },
	{ "--only-b", NULL, "unknown option --only-b" },
	{ "-x", NULL, "unknown option -x" },
	{ "--sessions", NULL, "--sessions needs a value: --sessions N" },
	{ "-n", NULL, "-n needs a value: -n N" },
	{ "--sessions", "0", "--sessions 0: out of bounds; it must be from 1 to 64" },
	{ "--sessions", "65", "from 1 to 64" },
	{ "--sessions", "4x", "--sessions 4x: not a number" },
	{ "--sessions=", NULL, "not a number" },
	{ "--cache-size", "12abc", "--cache-size 12abc: not a size" },
	{ "--cache-size", "4K", "at least 1 MiB" },
	{ "--cache-size", "99999999999999999999", "out of bounds" },
	{ "--max-age", "5m", "--max-age 5m: not a duration" },
	{ "--mode", "0680", "not a file mode" },
	{ "--level", "higher", "--level higher: not one of low|mid|high" },
	{ "--read-only=yes", NULL, "--read-only takes no value" },
	{ "--cache-dir", "", "the value is empty; give DIR" },
	{ "-o", "cachesize=1M", "unknown option -o cachesize; did you mean -o cache-size?" },
	{ "-o", "ro,sessions", "-o sessions needs a value" },
	{ "-o", "read_only=1", "-o read-only takes no value" },
	{ "-o", "help", "unknown option -o help" },
	{ "-o", "options=ro", "unknown option -o options" },
	{ "-o", "max_age=1y", "-o max-age 1y: not a duration" },
};

START_TEST(test_refusals)
{
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		struct option_set set;
		struct err err;
		int r = wrong[i].second ? RUN(&set, &err, wrong[i].first, wrong[i].second)
					: RUN(&set, &err, wrong[i].first);

		ck_assert_msg(r == -EINVAL, "%s: %d", wrong[i].first, r);
		ck_assert_msg(strstr(err.text, wrong[i].message), "\"%s\" has no \"%s\"", err.text,
			      wrong[i].message);
		option_set_clear(&set);
	}
}
END_TEST

START_TEST(test_help)
{
	cleanup_free char *text = NULL;
	size_t size;
	FILE *f = open_memstream(&text, &size);

	option_help(&table, CMD_A, f);
	fclose(f);
	ck_assert_ptr_nonnull(strstr(text, "  -r, --read-only"));
	ck_assert_ptr_nonnull(strstr(text, "      --cache-size SIZE"));
	ck_assert_ptr_nonnull(strstr(text, "how much (default half the free space)\n"));
	ck_assert_ptr_nonnull(strstr(text, "how old (default 5s)\n"));
	ck_assert_ptr_null(strstr(text, "only-b"));
	for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"))
		ck_assert_uint_le(strlen(line), 80);
}
END_TEST

START_TEST(test_distance)
{
	ck_assert_uint_eq(option_distance("mount", "mount"), 0);
	ck_assert_uint_eq(option_distance("muont", "mount"), 1);
	ck_assert_uint_eq(option_distance("", "abc"), 3);
	ck_assert_uint_eq(option_distance("status", "stats"), 1);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("option");
	TCase *tc = tcase_create("option");

	tcase_add_test(tc, test_defaults);
	tcase_add_test(tc, test_forms);
	tcase_add_test(tc, test_mount_list);
	tcase_add_test(tc, test_refusals);
	tcase_add_test(tc, test_help);
	tcase_add_test(tc, test_distance);
	suite_add_tcase(s, tc);
	return run_suite(s);
}
