// SPDX-License-Identifier: Apache-2.0
/* The program's own table: sound by itself, and each option is in the manual. */
#include "cmd/options.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/cleanup.h"
#include "tests/lib/run.h"

static char *manual;

static void read_manual(void)
{
	const char *srcdir = getenv("srcdir");
	char path[4096];
	FILE *f;
	size_t n;

	snprintf(path, sizeof(path), "%s/man/nearblk.1", srcdir ? srcdir : ".");
	f = fopen(path, "r");
	ck_assert_msg(f, "%s", path);
	manual = calloc(1, 1 << 20);
	n = fread(manual, 1, (1 << 20) - 1, f);
	ck_assert_uint_gt(n, 1000);
	fclose(f);
}

/* mdoc: "Fl -name" as a whole word. */
static bool in_manual(const char *macro)
{
	for (const char *p = manual; (p = strstr(p, macro)); p++) {
		char next = p[strlen(macro)];

		if (strchr(" \n", next))
			return true;
	}
	return false;
}

START_TEST(test_manual)
{
	read_manual();
	for (size_t i = 0; i < options_table.count; i++) {
		const struct option_def *def = &options_table.def[i];
		char item[128];

		ck_assert_msg(def->name, "position %zu of the table is empty", i);
		snprintf(item, sizeof(item), "Fl -%s", def->name);
		ck_assert_msg(in_manual(item), "--%s is not in the manual", def->name);
		if (def->short_name) {
			snprintf(item, sizeof(item), "Fl %c", def->short_name);
			ck_assert_msg(in_manual(item), "-%c is not in the manual", def->short_name);
		}
		/* A default that is a plain value is told, not only in --help. */
		if (def->initial) {
			snprintf(item, sizeof(item), "Default: %s.", def->initial);
			ck_assert_msg(strstr(manual, item), "\"%s\" of --%s is not in the manual",
				      item, def->name);
		}
	}
	ck_assert(!in_manual("Fl -no-such-option"));
	free(manual);
}
END_TEST

START_TEST(test_table)
{
	for (size_t i = 0; i < options_table.count; i++) {
		const struct option_def *a = &options_table.def[i];
		bool takes_value = a->type != OPTION_FLAG && a->type != OPTION_ACTION;

		ck_assert(a->help && a->commands);
		ck_assert_msg(takes_value == !!a->arg, "--%s", a->name);
		ck_assert_msg(a->help[strlen(a->help) - 1] != '.', "--%s", a->name);
		for (size_t j = i + 1; j < options_table.count; j++) {
			const struct option_def *b = &options_table.def[j];

			if (!(a->commands & b->commands))
				continue;
			ck_assert_str_ne(a->name, b->name);
			ck_assert_msg(!a->short_name || a->short_name != b->short_name, "-%c",
				      a->short_name);
		}
	}
	for (unsigned bit = 1; bit <= CMD_CHECK; bit <<= 1) {
		struct option_set set;

		/* Asserts that each default passes its own bounds. */
		ck_assert_int_eq(option_set_init(&set, &options_table, bit), 0);
		option_set_clear(&set);
	}
}
END_TEST

START_TEST(test_mount_words)
{
	static char *argv[] = { "-o", "defaults,_netdev,nofail,noauto,user,users,rw,nosuid,nodev,"
				      "noexec,noatime,relatime,x-systemd.automount,allow_other,ro,"
				      "cache_size=64M" };
	struct option_set set;
	struct err err;

	ck_assert_int_eq(option_set_init(&set, &options_table, CMD_MOUNT), 0);
	ck_assert_int_eq(option_parse(&set, 2, argv, &err), 0);
	ck_assert(set.value[OPT_ALLOW_OTHER].number);
	ck_assert(set.value[OPT_READ_ONLY].number);
	ck_assert_uint_eq(set.value[OPT_CACHE_SIZE].number, 64 << 20);
	option_set_clear(&set);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("options");
	TCase *tc = tcase_create("options");

	tcase_add_test(tc, test_manual);
	tcase_add_test(tc, test_table);
	tcase_add_test(tc, test_mount_words);
	suite_add_tcase(s, tc);
	return run_suite(s);
}
