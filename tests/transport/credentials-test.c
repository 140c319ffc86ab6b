// SPDX-License-Identifier: Apache-2.0
#include "transport/credentials.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "tests/lib/run.h"
#include "tests/lib/scratch.h"

static const char *dir;
static char path[PATH_MAX];
static char other[PATH_MAX];

static void setup(void)
{
	snprintf(path, sizeof(path), "%s/nearblk", dir);
	snprintf(other, sizeof(other), "%s/other", dir);
	unsetenv("NEARBLK_CREDENTIALS");
	unsetenv("CREDENTIALS_DIRECTORY");
}

static void teardown(void)
{
	unlink(path);
	unlink(other);
}

static void put(const char *text, size_t length, mode_t mode)
{
	cleanup_close int fd = -1;

	unlink(path);
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, text, length), (ssize_t)length);
	ck_assert_int_eq(fchmod(fd, mode), 0);
}

static int load(const char *text, struct leaf_credentials *ret, struct err *err)
{
	put(text, strlen(text), 0600);
	return credentials_load(path, ret, err);
}

START_TEST(test_good)
{
	struct leaf_credentials c;
	struct err err = { "" };

	ck_assert_int_eq(load("# who\n\nusername=joe\npassword=a secret=with # signs\n"
			      "  \nusername_in=target\npassword_in=another secret",
			      &c, &err),
			 0);
	ck_assert_str_eq(c.username, "joe");
	ck_assert_str_eq(c.password, "a secret=with # signs");
	ck_assert_str_eq(c.username_in, "target");
	ck_assert_str_eq(c.password_in, "another secret");
	ck_assert_int_eq(load("", &c, &err), 0);
	ck_assert_str_eq(c.username, "");
	ck_assert_str_eq(c.password_in, "");
	put("", 0, 0400);
	ck_assert_int_eq(credentials_load(path, &c, &err), 0);
}
END_TEST

static const struct bad {
	const char *text;
	const char *says;
} bad[] = {
	{ "username=joe\npasword=hush\n", "line 2: unknown key \"pasword\"" },
	{ "username = joe\n", "line 1: unknown key \"username \"" },
	{ " username=joe\n", "line 1: unknown key \" username\"" },
	{ "\n\nhush\n", "line 3: no '='" },
	{ "=hush\n", "line 1: unknown key \"\"" },
	/* Secrets with a '=' of their own, and what a terminal would act on. */
	{ "hush1=\n", "line 1: unknown key: use" },
	{ "\033[2J=x\n", "line 1: unknown key: use" },
	{ "username=joe\npassword=\n", "line 2: password is empty" },
	{ "username=joe\nusername=jim\n", "line 2: username is given twice" },
	{ "username=joe\npassword= hush\n", "line 2: password begins or ends with a blank" },
	{ "username=joe\r\npassword=hush\r\n", "line 1: username begins or ends with a blank" },
	{ "username=joe\npassword=hu\x01sh\n", "line 2: password holds a control character" },
};

START_TEST(test_bad)
{
	struct leaf_credentials c, before;
	struct err err = { "" };

	memset(&c, 0x5a, sizeof(c));
	before = c;
	ck_assert_int_eq(load(bad[_i].text, &c, &err), -EINVAL);
	ck_assert_msg(strstr(err.text, bad[_i].says) != NULL, "%s", err.text);
	ck_assert_msg(strstr(err.text, path) != NULL, "%s", err.text);
	ck_assert_msg(strstr(err.text, "hush") == NULL, "%s", err.text);
	ck_assert_mem_eq(&c, &before, sizeof(c));
}
END_TEST

START_TEST(test_join)
{
	static const struct {
		struct leaf_credentials c;
		const char *user;
		const char *says; /* NULL: fine */
	} table[] = {
		{ { "", "", "", "" }, "", NULL },
		{ { "joe", "hush", "", "" }, "", NULL },
		{ { "joe", "hush", "t", "shh" }, "", NULL },
		{ { "", "hush", "", "" }, "joe", NULL },
		{ { "joe", "hush", "", "" }, "joe", NULL },
		{ { "jim", "hush", "", "" }, "joe", "the user joe" },
		{ { "", "", "", "" }, "joe", "user joe has no password" },
		{ { "joe", "", "", "" }, "", "user joe has no password" },
		{ { "", "hush", "", "" }, "", "without username=" },
		{ { "joe", "hush", "t", "" }, "", "password_in= is missing" },
		{ { "joe", "hush", "", "shh" }, "", "username_in= is missing" },
		{ { "", "", "t", "shh" }, "", "without username=" },
		{ { "joe", "hush", "t", "hush" }, "", "are the same" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		struct leaf_credentials c = table[i].c;
		struct err err = { "" };
		int r = credentials_join(&c, table[i].user, &err);

		ck_assert_msg(r == (table[i].says ? -EINVAL : 0), "row %zu: %s", i, err.text);
		if (table[i].says) {
			ck_assert_msg(strstr(err.text, table[i].says) != NULL, "%s", err.text);
			ck_assert_ptr_null(strstr(err.text, "hush"));
			ck_assert_mem_eq(&c, &table[i].c, sizeof(c));
		} else if (table[i].user[0]) {
			ck_assert_str_eq(c.username, table[i].user);
		}
	}
}
END_TEST

START_TEST(test_sizes)
{
	struct leaf_credentials c;
	char text[9000];
	struct err err;

	snprintf(text, sizeof(text), "username=joe\npassword=%0255d\n", 0);
	ck_assert_int_eq(load(text, &c, &err), 0);
	ck_assert_uint_eq(strlen(c.password), 255);
	snprintf(text, sizeof(text), "username=joe\npassword=%0256d\n", 0);
	ck_assert_int_eq(load(text, &c, &err), -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.text, "line 2: password is longer than 255"));
	memset(text, '#', sizeof(text));
	put(text, sizeof(text), 0600);
	ck_assert_int_eq(credentials_load(path, &c, &err), -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.text, "larger than"));
	put("username=joe\0x\n", 15, 0600);
	ck_assert_int_eq(credentials_load(path, &c, &err), -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.text, "line 1: username holds a control character"));
}
END_TEST

START_TEST(test_file)
{
	struct leaf_credentials c;
	struct err err;

	ck_assert_int_eq(credentials_load("/nonexistent/x", &c, &err), -ENOENT);
	ck_assert_ptr_nonnull(strstr(err.text, "/nonexistent/x: No such file"));
	ck_assert_int_eq(credentials_load(dir, &c, &err), -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.text, "not a regular file"));
	for (unsigned bit = 0; bit < 7; bit++) {
		put("", 0, 0600 | 1u << bit);
		ck_assert_int_eq(credentials_load(path, &c, &err), -EPERM);
		ck_assert_ptr_nonnull(strstr(err.text, "chmod 600"));
	}
	/* A link to a good file is good, a FIFO neither passes nor blocks. */
	put("", 0, 0600);
	ck_assert_int_eq(symlink(path, other), 0);
	ck_assert_int_eq(credentials_load(other, &c, &err), 0);
	unlink(other);
	ck_assert_int_eq(mkfifo(other, 0600), 0);
	ck_assert_int_eq(credentials_load(other, &c, &err), -EINVAL);
	if (geteuid() == 0) {
		ck_assert_int_eq(chown(path, 12345, 12345), 0);
		ck_assert_int_eq(credentials_load(path, &c, &err), -EPERM);
		ck_assert_ptr_nonnull(strstr(err.text, "belongs to user 12345"));
	}
}
END_TEST

START_TEST(test_environment)
{
	struct leaf_credentials c;
	struct err err;

	memset(&c, 0x5a, sizeof(c));
	ck_assert_int_eq(credentials_default(&c, &err), 0);
	ck_assert_str_eq(c.username, "");
	setenv("CREDENTIALS_DIRECTORY", dir, 1);
	ck_assert_int_eq(credentials_default(&c, &err), 0);
	ck_assert_str_eq(c.username, "");
	/* systemd's ACL shows as the group's permission. */
	put("username=sys\npassword=temd\n", 27, 0440);
	ck_assert_int_eq(credentials_default(&c, &err), 0);
	ck_assert_str_eq(c.username, "sys");
	put("username=sys\npassword=temd\n", 27, 0444);
	ck_assert_int_eq(credentials_default(&c, &err), -EPERM);
	setenv("NEARBLK_CREDENTIALS", other, 1);
	ck_assert_int_eq(credentials_default(&c, &err), -ENOENT);
	ck_assert_int_eq(rename(path, other), 0);
	ck_assert_int_eq(chmod(other, 0600), 0);
	ck_assert_int_eq(credentials_default(&c, &err), 0);
	ck_assert_str_eq(c.password, "temd");
}
END_TEST

int main(void)
{
	Suite *s = suite_create("credentials");
	TCase *tc = tcase_create("credentials");
	int status;

	dir = scratch_create();
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, test_good);
	tcase_add_loop_test(tc, test_bad, 0, ARRAY_SIZE(bad));
	tcase_add_test(tc, test_join);
	tcase_add_test(tc, test_sizes);
	tcase_add_test(tc, test_file);
	tcase_add_test(tc, test_environment);
	suite_add_tcase(s, tc);
	status = run_suite(s);
	scratch_remove();
	return status;
}
