// SPDX-License-Identifier: Apache-2.0
#include "core/log.h"

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

static void setup(void)
{
	snprintf(path, sizeof(path), "%s/log", dir);
}

static void teardown(void)
{
	log_close();
	unlink(path);
}

static char *content(void)
{
	cleanup_close int fd = open(path, O_RDONLY);
	char *text = calloc(1, 65536);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_ge(read(fd, text, 65535), 0);
	return text;
}

static unsigned lines(const char *text)
{
	unsigned n = 0;

	for (; *text; text++)
		n += *text == '\n';
	return n;
}

START_TEST(test_levels)
{
	enum log_level level = LOG_LEVEL_DEBUG;

	ck_assert_int_eq(log_level_parse("error", &level), 0);
	ck_assert_int_eq(level, LOG_LEVEL_ERROR);
	ck_assert_int_eq(log_level_parse("warning", &level), 0);
	ck_assert_int_eq(level, LOG_LEVEL_WARNING);
	ck_assert_int_eq(log_level_parse("info", &level), 0);
	ck_assert_int_eq(level, LOG_LEVEL_INFO);
	ck_assert_int_eq(log_level_parse("debug", &level), 0);
	ck_assert_int_eq(level, LOG_LEVEL_DEBUG);
	ck_assert_int_eq(log_level_parse("Error", &level), -EINVAL);
	ck_assert_int_eq(log_level_parse("", &level), -EINVAL);
	ck_assert_int_eq(log_level_parse("debug2", &level), -EINVAL);
	ck_assert_int_eq(level, LOG_LEVEL_DEBUG);
}
END_TEST

START_TEST(test_file)
{
	cleanup_free char *text = NULL;
	char *p;
	struct stat st;
	struct err err;

	ck_assert_int_eq(log_open(path, LOG_LEVEL_INFO, &err), 0);
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_uint_eq(st.st_mode & 07777, 0600);
	log_error("no %s", "luck");
	log_warning("%d per cent", 3);
	log_info("well");
	log_debug("unseen");
	text = content();
	ck_assert_uint_eq(lines(text), 3);
	ck_assert_ptr_nonnull(strstr(text, "Z nearblk: error: no luck\n"));
	ck_assert_ptr_nonnull(strstr(text, "Z nearblk: warning: 3 per cent\n"));
	ck_assert_ptr_nonnull(strstr(text, "Z nearblk: well\n"));
	p = strchr(text, 'T');
	ck_assert(p == text + 10); /* 2026-01-02T */

	/* Appends to what is there. */
	log_close();
	ck_assert_int_eq(log_open(path, LOG_LEVEL_DEBUG, &err), 0);
	log_debug("seen");
	free(text);
	text = content();
	ck_assert_uint_eq(lines(text), 4);
}
END_TEST

START_TEST(test_long_line_is_cut_whole)
{
	cleanup_free char *text = NULL;
	char big[5000];

	memset(big, 'x', sizeof(big) - 1);
	big[sizeof(big) - 1] = '\0';
	ck_assert_int_eq(log_open(path, LOG_LEVEL_INFO, NULL), 0);
	log_info("%s", big);
	log_info("after");
	text = content();
	ck_assert_uint_eq(lines(text), 2);
	ck_assert_ptr_nonnull(strstr(text, "nearblk: after\n"));
}
END_TEST

START_TEST(test_rate_limit)
{
	static struct log_site site;
	cleanup_free char *text = NULL;

	ck_assert_int_eq(log_open(path, LOG_LEVEL_INFO, NULL), 0);
	for (unsigned i = 0; i < 100; i++)
		log_write(&site, LOG_LEVEL_INFO, "line %u", i);
	log_info("another place"); /* has a count of its own */
	text = content();
	ck_assert_uint_eq(lines(text), 11);
	ck_assert_ptr_nonnull(strstr(text, "line 9\n"));
	ck_assert_ptr_null(strstr(text, "line 10\n"));
	ck_assert_ptr_nonnull(strstr(text, "another place\n"));
	ck_assert_uint_eq(site.suppressed, 90);

	/* As if the window had begun long ago: the next line passes and owns up. */
	site.window_start_ns -= 6000000000u;
	log_write(&site, LOG_LEVEL_INFO, "line 100");
	free(text);
	text = content();
	ck_assert_ptr_nonnull(strstr(text, "line 100 (90 more like this before)\n"));
	ck_assert_uint_eq(site.suppressed, 0);
}
END_TEST

START_TEST(test_debug_does_not_use_up_the_window)
{
	static struct log_site site;

	ck_assert_int_eq(log_open(path, LOG_LEVEL_INFO, NULL), 0);
	for (unsigned i = 0; i < 100; i++)
		log_write(&site, LOG_LEVEL_DEBUG, "unseen");
	ck_assert_uint_eq(site.in_window, 0);
	ck_assert_uint_eq(site.suppressed, 0);
}
END_TEST

START_TEST(test_stderr)
{
	cleanup_close int saved = dup(STDERR_FILENO);
	cleanup_close int fd = open(path, O_CREAT | O_RDWR, 0600);
	cleanup_free char *text = NULL;

	ck_assert_int_eq(log_open("stderr", LOG_LEVEL_INFO, NULL), 0);
	dup2(fd, STDERR_FILENO);
	log_warning("here");
	log_info("there");
	dup2(saved, STDERR_FILENO);
	text = content();
	ck_assert_str_eq(text, "nearblk: warning: here\nnearblk: there\n");
}
END_TEST

START_TEST(test_bad_sinks)
{
	struct err err;

	ck_assert_int_eq(log_open("stdout", LOG_LEVEL_INFO, &err), -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.text, "--log stdout"));
	ck_assert_ptr_nonnull(strstr(err.text, "syslog"));
	ck_assert_int_eq(log_open("log.txt", LOG_LEVEL_INFO, &err), -EINVAL);
	ck_assert_int_eq(log_open("", LOG_LEVEL_INFO, &err), -EINVAL);
	ck_assert_int_eq(log_open("/nonexistent/dir/log", LOG_LEVEL_INFO, &err), -ENOENT);
	ck_assert_ptr_nonnull(strstr(err.text, "/nonexistent/dir/log"));
	ck_assert_int_eq(log_open(dir, LOG_LEVEL_INFO, &err), -EISDIR);
	ck_assert_int_eq(log_open("syslog", LOG_LEVEL_INFO, &err), 0);
}
END_TEST

START_TEST(test_err)
{
	struct err err = { "before" };
	char big[2000];

	ck_assert_int_eq(err_set(&err, -EIO, "%s %d", "x", 5), -EIO);
	ck_assert_str_eq(err.text, "x 5");
	/* The arguments may be the old text. */
	ck_assert_int_eq(err_set(&err, -EPERM, "(%s)", err.text), -EPERM);
	ck_assert_str_eq(err.text, "(x 5)");
	ck_assert_int_eq(err_prefix(&err, -ENOENT, "file %s", "a"), -ENOENT);
	ck_assert_str_eq(err.text, "file a: (x 5)");
	ck_assert_int_eq(err_set(NULL, -EIO, "nobody"), -EIO);
	ck_assert_int_eq(err_prefix(NULL, -EIO, "nobody"), -EIO);

	memset(big, 'y', sizeof(big) - 1);
	big[sizeof(big) - 1] = '\0';
	err_set(&err, -EIO, "%s", big);
	ck_assert_uint_eq(strlen(err.text), sizeof(err.text) - 1);
	err_prefix(&err, -EIO, "front");
	ck_assert_uint_eq(strlen(err.text), sizeof(err.text) - 1);
	ck_assert(strncmp(err.text, "front: yyy", 10) == 0);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("log");
	TCase *tc = tcase_create("log");
	int status;

	dir = scratch_create();
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, test_levels);
	tcase_add_test(tc, test_file);
	tcase_add_test(tc, test_long_line_is_cut_whole);
	tcase_add_test(tc, test_rate_limit);
	tcase_add_test(tc, test_debug_does_not_use_up_the_window);
	tcase_add_test(tc, test_stderr);
	tcase_add_test(tc, test_bad_sinks);
	tcase_add_test(tc, test_err);
	suite_add_tcase(s, tc);
	status = run_suite(s);
	scratch_remove();
	return status;
}
