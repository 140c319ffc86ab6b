// SPDX-License-Identifier: Apache-2.0
#include "transport/leaf.h"
#include "tests/lib/run.h"

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct leaf_config conf;

static void set_url(const char *text)
{
	struct err err = { "" };

	memset(&conf, 0, sizeof(conf));
	conf.sessions = 2;
	ck_assert_msg(url_parse(text, false, &conf.url, &err) == 0, "%s", err.text);
}

START_TEST(test_mem)
{
	struct blk_dev *dev = NULL;
	struct blk_info info;
	uint8_t buf[512] = { 5 };

	set_url("mem:1M");
	ck_assert_int_eq(leaf_create(&conf, &dev, NULL), 0);
	ck_assert_int_eq(blk_start(dev, NULL), 0);
	blk_info(dev, &info);
	ck_assert_uint_eq(info.size_bytes, 1 << 20);
	ck_assert_int_eq(blk_write_sync(dev, buf, 512, 512, 0), 0);
	ck_assert_int_eq(blk_discard_sync(dev, 512, 512), 0);
	ck_assert_int_eq(blk_read_sync(dev, buf, 512, 512), 0);
	ck_assert_uint_eq(buf[0], 0);
	blk_destroy(dev);
	conf.read_only = true;
	ck_assert_int_eq(leaf_create(&conf, &dev, NULL), 0);
	ck_assert_int_eq(blk_write_sync(dev, buf, 512, 512, 0), -EROFS);
	blk_destroy(dev);
}
END_TEST

START_TEST(test_file)
{
	char path[] = "/tmp/nearblk-leaf-XXXXXX", url[64];
	struct blk_dev *dev = NULL;
	struct blk_info info;
	int fd = mkstemp(path);

	ck_assert_int_eq(ftruncate(fd, 65536), 0);
	close(fd);
	snprintf(url, sizeof(url), "file://%s", path);
	set_url(url);
	ck_assert_int_eq(leaf_create(&conf, &dev, NULL), 0);
	/* The settings may go: what the device needs it has copied. */
	memset(&conf, 0x5a, sizeof(conf));
	ck_assert_int_eq(blk_start(dev, NULL), 0);
	blk_info(dev, &info);
	ck_assert_uint_eq(info.size_bytes, 65536);
	blk_destroy(dev);
	unlink(path);
}
END_TEST

START_TEST(test_http)
{
	struct blk_dev *dev = NULL;
	struct err err = { "" };

	set_url("https://127.0.0.1/x");
	ck_assert_int_eq(leaf_create(&conf, &dev, &err), 0);
	blk_destroy(dev);
	strcpy(conf.credentials.username, "joe");
	ck_assert_int_eq(leaf_create(&conf, &dev, &err), -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.text, "user joe has no password"));
}
END_TEST

int main(void)
{
	Suite *s = suite_create("leaf");
	TCase *tc = tcase_create("leaf");

	tcase_add_test(tc, test_mem);
	tcase_add_test(tc, test_file);
	tcase_add_test(tc, test_http);
	suite_add_tcase(s, tc);
	return run_suite(s);
}
