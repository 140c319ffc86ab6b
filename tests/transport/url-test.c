// SPDX-License-Identifier: Apache-2.0
#include "transport/url.h"

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/cleanup.h"
#include "tests/lib/run.h"

#define IQN "iqn.2001-04.com.example:vol"

struct good {
	const char *url;
	const char *text; /* NULL: as given */
	const char *name; /* of the cache directory; a '*' at the end stands for a hash */
};

static const struct good good[] = {
	{ "iscsi://h/" IQN "/0", NULL, "iscsi_h_" IQN "_0" },
	{ "iscsi://H.Example/" IQN "/16383", "iscsi://h.example/" IQN "/16383",
	  "iscsi_h.example_" IQN "_16383" },
	{ "ISCSI://10.0.0.1:3260/" IQN "/007", "iscsi://10.0.0.1/" IQN "/7",
	  "iscsi_10.0.0.1_" IQN "_7" },
	{ "iscsi://10.0.0.1:860/" IQN "/1", NULL, "iscsi_10.0.0.1:860_" IQN "_1" },
	{ "iser://h/" IQN "/0", NULL, "iscsi_h_" IQN "_0" },
	{ "iscsi://[::1]:3261/eui.02004567A425678D/1", NULL,
	  "iscsi_-::1-:3261_eui.02004567A425678D_1-*" },
	{ "iscsi://[2001:DB8:0:0::7]/naa.52004567BA64678D/1",
	  "iscsi://[2001:db8::7]/naa.52004567BA64678D/1",
	  "iscsi_-2001:db8::7-_naa.52004567BA64678D_1-*" },
	{ "iscsi://[fe80::1%25eth0]/naa.62004567BA64678D0123456789ABCDEF/1",
	  "iscsi://[fe80::1%eth0]/naa.62004567BA64678D0123456789ABCDEF/1",
	  "iscsi_-fe80::1-eth0-_naa.62004567BA64678D0123456789ABCDEF_1-*" },
	/* A zone that begins with 25: no other is made of it. */
	{ "iscsi://[fe80::1%2525x]/" IQN "/1", NULL, "iscsi_-fe80::1-25x-_" IQN "_1-*" },
	{ "iscsi://joe@a,b:99,[::2],[::3]:5/" IQN "/2", NULL, "iscsi_a_" IQN "_2" },
	{ "iscsi://j@corp.example@a/" IQN "/2", NULL, "iscsi_a_" IQN "_2" },
	{ "iscsi://a_b/iqn.2001-04.com.example:x_Y/2", NULL,
	  "iscsi_a-b_iqn.2001-04.com.example:x-Y_2-*" },
	{ "file:///srv/a.img", NULL, "file_srv_a.img" },
	{ "file:////srv//./a.img", "file:///srv/a.img", "file_srv_a.img" },
	{ "file:///srv/./././a..b/.c", "file:///srv/a..b/.c", "file_srv_a..b_.c" },
	{ "file:///a%20b%3f%25", "file:///a%20b%3F%25", "file_a-b---*" },
	{ "file:///a b", "file:///a%20b", "file_a-b-*" },
	{ "file:///a_b", NULL, "file_a-b-*" },
	{ "http://h/x", NULL, "http_h_x" },
	{ "http://H:80/x", "http://h/x", "http_h_x" },
	{ "https://h:443/x/y.img", "https://h/x/y.img", "https_h_x_y.img" },
	{ "https://h:80/", NULL, "https_h:80_" },
	{ "http://[::1]:8080/v@1,2%20", NULL, "http_-::1-:8080_v-1-2-20-*" },
	{ "https://h/x?sig=SECRET%zz", "https://h/x?...", "https_h_x-sig-SECRET-zz-*" },
	{ "mem:64M", "mem:67108864", "mem_67108864" },
};

struct bad {
	const char *url;
	const char *says; /* names the bad part */
	const char *hint; /* and what is right */
};

static const struct bad bad[] = {
	{ "", "empty", "iscsi://host/target/lun" },
	{ "/dev/sdb", "\"/dev/sdb\" is a path", "file:///dev/sdb" },
	{ "/dev/hush@b", "a path, not a URL", "file:///path" },
	{ "//joe:hush@h/" IQN "/0", "a path, not a URL", "file:///path" },
	{ "hush@h/" IQN "/0", "the scheme is missing", "iscsi://user@host" },
	{ "hush/@h/" IQN "/0", "the scheme is missing", "iscsi://user@host" },
	{ "host/x", "\"host\": the scheme is missing", "iscsi://" },
	{ "host:3260", "\"host\": the scheme is missing", "iscsi://" },
	{ "ftp://h/x", "scheme \"ftp\"", "iscsi, iser, file, http or https" },
	{ "iscsis://h/x", "scheme \"iscsis\"", "iscsi, iser" },
	{ " iscsi://h/" IQN "/0", "scheme \" iscsi\"", "iscsi, iser" },
	{ "\033[2Jx://h", "scheme \"?[2Jx\"", "iscsi, iser" },
	{ "iscsi:h/" IQN "/0", "\"iscsi:\"", "followed by \"//\"" },
	{ "iscsi:/h", "\"iscsi:\"", "followed by \"//\"" },
	{ "iscsi://", "the host is missing", "scheme://host" },
	{ "iscsi:///" IQN "/0", "the host is missing", "scheme://host" },
	{ "iscsi://a,/" IQN "/0", "the host is missing", "scheme://host" },
	{ "iscsi://,a/" IQN "/0", "the host is missing", "scheme://host" },
	{ "iscsi://a b/" IQN "/0", "host \"a b\"", "letters, digits" },
	{ "iscsi://a..b/" IQN "/0", "host \"a..b\"", "letters, digits" },
	{ "iscsi://.a/" IQN "/0", "host \".a\"", "letters, digits" },
	{ "iscsi://-a/" IQN "/0", "host \"-a\"", "letters, digits" },
	{ "iscsi://h\xc3\xa4/" IQN "/0", "host \"h??\"", "letters, digits" },
	{ "iscsi://10.0.0/" IQN "/0", "host \"10.0.0\"", "four numbers" },
	{ "iscsi://10.0.0.256/" IQN "/0", "host \"10.0.0.256\"", "four numbers" },
	{ "iscsi://::1/" IQN "/0", "host \"::1\"", "[::1]" },
	{ "iscsi://[::1/" IQN "/0", "host \"[::1\"", "']'" },
	{ "iscsi://[::g]/" IQN "/0", "host \"[::g]\"", "IPv6" },
	{ "iscsi://[]/" IQN "/0", "host \"[]\"", "IPv6" },
	{ "iscsi://[fe80::1%]/" IQN "/0", "host \"[fe80::1%]\"", "IPv6" },
	{ "iscsi://[fe80::1%a b]/" IQN "/0", "host \"[fe80::1%a b]\"", "IPv6" },
	{ "iscsi://[::1]x/" IQN "/0", "\"[::1]x\"", "\":port\"" },
	{ "iscsi://h:/" IQN "/0", "port \"\"", "1 to 65535" },
	{ "iscsi://h:0/" IQN "/0", "port \"0\"", "1 to 65535" },
	{ "iscsi://h:65536/" IQN "/0", "port \"65536\"", "1 to 65535" },
	{ "iscsi://h:99999999999/" IQN "/0", "port \"99999999999\"", "1 to 65535" },
	{ "iscsi://h:+1/" IQN "/0", "port \"+1\"", "1 to 65535" },
	{ "iscsi://[::1]:x/" IQN "/0", "port \"x\"", "1 to 65535" },
	{ "iscsi://a,b,a:3260/" IQN "/0", "portal \"a:3260\" is given twice", "" },
	{ "iscsi://a,b,c,d,e,f,g,h,i/" IQN "/0", "portal \"i\"", "at most 8" },
	{ "iscsi://h", "the target is missing", "iscsi://host/target-name/lun" },
	{ "iser://h/", "the target is missing", "iser://host/target-name/lun" },
	{ "iscsi://h//0", "the target is missing", "discover" },
	{ "iscsi://h/vol/0", "target \"vol\"", "iqn., eui. or naa." },
	{ "iscsi://h/iqn/0", "target \"iqn\"", "iqn., eui. or naa." },
	{ "iscsi://h/iqn./0", "target \"iqn.\"", "iqn.YYYY-MM.reversed.domain" },
	{ "iscsi://h/iqn.2001-13.com.x/0", "target \"iqn.2001-13.com.x\"", "YYYY-MM" },
	{ "iscsi://h/iqn.2001-04.:x/0", "target \"iqn.2001-04.:x\"", "YYYY-MM" },
	{ "iscsi://h/iqn.20a1-04.com/0", "target \"iqn.20a1-04.com\"", "YYYY-MM" },
	{ "iscsi://h/iqn.2001-04.com:a%20b/0", "target \"iqn.2001-04.com:a%20b\"", "only letters" },
	{ "iscsi://h/eui.123/0", "target \"eui.123\"", "16 hexadecimal" },
	{ "iscsi://h/eui.02004567A425678G/0", "target \"eui.02004567A425678G\"", "16 hexadecimal" },
	{ "iscsi://h/naa.52004567BA64678D0/0", "target \"naa.5", "16 or 32" },
	{ "iscsi://h/" IQN, "the LUN is missing", "/" IQN "/1" },
	{ "iscsi://h/" IQN "/", "the LUN is missing", "/" IQN "/1" },
	{ "iscsi://h/" IQN "/x", "LUN \"x\"", "0 to 16383" },
	{ "iscsi://h/" IQN "/16384", "LUN \"16384\"", "0 to 16383" },
	{ "iscsi://h/" IQN "/-1", "LUN \"-1\"", "0 to 16383" },
	{ "iscsi://h/" IQN "/1 ", "LUN \"1 \"", "0 to 16383" },
	{ "iscsi://h/" IQN "/1/", "LUN \"1/\"", "ends there" },
	{ "iscsi://h/" IQN "/1/2", "LUN \"1/2\"", "ends there" },
	{ "iscsi://h/" IQN "/18446744073709551616", "LUN \"18446744073709551616\"", "16383" },
	{ "iscsi://h/" IQN "/1?header_digest=crc32c", "ends with the LUN", "" },
	{ "iscsi://h/" IQN "/1#x", "ends with the LUN", "" },
	{ "iscsi://@h/" IQN "/1", "user", "leave out the '@'" },
	{ "iscsi://a b@h/" IQN "/1", "user", "--credentials FILE" },
	{ "file:", "\"file:\"", "\"//\"" },
	{ "file:/a", "\"file:\"", "\"//\"" },
	{ "file://", "the path is missing", "file:///absolute/path" },
	{ "file:///", "the path is missing", "file:///absolute/path" },
	{ "file:////.//", "the path is missing", "file:///absolute/path" },
	{ "file://a/b", "\"a\": a file URL has no host", "file:///absolute/path" },
	{ "file:///a%", "\"%\"", "%25" },
	{ "file:///a%4", "\"%4\"", "%25" },
	{ "file:///a%4g", "\"%4g\"", "%25" },
	{ "file:///a%00b", "control character (0x00)", "" },
	{ "file:///a\nb", "control character (0x0a)", "" },
	{ "file:///a?b", "'?'", "%3F" },
	{ "file:///a#b", "'#'", "%23" },
	{ "http://", "the host is missing", "scheme://host" },
	{ "http://h", "the path is missing", "http://host/path" },
	{ "https://h?x", "the path is missing", "https://host/path" },
	{ "http://h:x/y", "port \"x\"", "1 to 65535" },
	{ "http://h/a b", "byte 0x20", "%20" },
	{ "http://h/a\xff", "byte 0xff", "%FF" },
	{ "http://h/a%2", "\"%2\"", "%25" },
	{ "http://h/a#b", "'#'", "leave it" },
	{ "mem:", "\"\"", "mem:64M" },
	{ "mem:0", "\"0\"", "mem:64M" },
	{ "mem:513", "\"513\"", "512" },
	{ "mem:64Mx", "\"64Mx\"", "mem:64M" },
};

/* None of these may show "hush", or any half of "hu/sh", to anyone. */
static const char *const secret[] = {
	"iscsi://joe:hush@h/" IQN "/1",
	"iscsi://joe%hush@h/" IQN "/1",
	"iscsi://:hush@h/" IQN "/1",
	"iscsi://joe:hu/sh@h/" IQN "/1",
	"iscsi://joe%hu/sh@h/" IQN "/1",
	"iscsi://joe:hu?sh@h/" IQN "/1",
	"iscsi://joe:hush@@h/" IQN "/1",
	"http://joe:hush@h/x",
	"https://hush@h/x",
	"https://joe:hu/sh@h/x",
};

START_TEST(test_good)
{
	const struct good *g = &good[_i];
	struct url url, again;
	struct err err = { "" };
	char name[256];
	size_t n = strlen(g->name);

	ck_assert_msg(url_parse(g->url, false, &url, &err) == 0, "%s: %s", g->url, err.text);
	ck_assert_str_eq(url.text, g->text ? g->text : g->url);
	url_cache_name(&url, name);
	if (g->name[n - 1] == '*') {
		ck_assert_msg(strncmp(name, g->name, n - 1) == 0, "%s", name);
		ck_assert_uint_eq(strlen(name), n - 1 + 16);
	} else {
		ck_assert_str_eq(name, g->name);
	}
	ck_assert_uint_eq(strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				       "0123456789.-_:"),
			  strlen(name));
	/* What is shown means the same when it is typed in again. */
	if (!strstr(url.text, "?...")) {
		ck_assert_int_eq(url_parse(url.text, false, &again, &err), 0);
		ck_assert_mem_eq(&again, &url, sizeof(url));
	}
}
END_TEST

START_TEST(test_bad)
{
	const struct bad *b = &bad[_i];
	struct url url, before;
	struct err err = { "" };

	memset(&url, 0x5a, sizeof(url));
	before = url;
	ck_assert_msg(url_parse(b->url, false, &url, &err) == -EINVAL, "\"%s\" passed", b->url);
	ck_assert_msg(strstr(err.text, b->says) != NULL, "\"%s\": %s", b->url, err.text);
	ck_assert_msg(strstr(err.text, b->hint) != NULL, "\"%s\": %s", b->url, err.text);
	ck_assert_mem_eq(&url, &before, sizeof(url));
	ck_assert_int_eq(url_parse(b->url, false, &url, NULL), -EINVAL);
}
END_TEST

START_TEST(test_secrets)
{
	struct err err = { "" };
	struct url url;

	ck_assert_int_eq(url_parse(secret[_i], false, &url, &err), -EINVAL);
	ck_assert_msg(strstr(err.text, "--credentials FILE") != NULL, "%s", err.text);
	ck_assert_ptr_null(strstr(err.text, "hush"));
	ck_assert_ptr_null(strstr(err.text, "\"hu\""));
	ck_assert_ptr_null(strstr(err.text, "sh@"));
}
END_TEST

START_TEST(test_fields)
{
	struct url u;

	ck_assert_int_eq(url_parse("iscsi://joe@A:1,[::2]/" IQN "/9", false, &u, NULL), 0);
	ck_assert_int_eq(u.scheme, URL_ISCSI);
	ck_assert_str_eq(u.user, "joe");
	ck_assert_uint_eq(u.portals, 2);
	ck_assert_str_eq(u.portal[0].host, "a");
	ck_assert_uint_eq(u.portal[0].port, 1);
	ck_assert_str_eq(u.portal[1].host, "::2");
	ck_assert_uint_eq(u.portal[1].port, 3260);
	ck_assert_str_eq(u.target, IQN);
	ck_assert_uint_eq(u.lun, 9);

	ck_assert_int_eq(url_parse("file:///a%20%2e%e4/b", false, &u, NULL), 0);
	ck_assert_int_eq(u.scheme, URL_FILE);
	ck_assert_str_eq(u.path, "/a .\xe4/b");

	ck_assert_int_eq(url_parse("HTTPS://H:443/x?sig=1", false, &u, NULL), 0);
	ck_assert_int_eq(u.scheme, URL_HTTPS);
	ck_assert_str_eq(u.path, "https://h/x?sig=1");

	ck_assert_int_eq(url_parse("mem:1M", false, &u, NULL), 0);
	ck_assert_uint_eq(u.size_bytes, 1 << 20);
}
END_TEST

START_TEST(test_discovery)
{
	struct err err;
	struct url u;

	ck_assert_int_eq(url_parse("iscsi://joe@h:5", true, &u, &err), 0);
	ck_assert_str_eq(u.text, "iscsi://joe@h:5");
	ck_assert_str_eq(u.target, "");
	ck_assert_int_eq(url_parse("iscsi://h/", true, &u, &err), 0);
	ck_assert_str_eq(u.text, "iscsi://h");
	ck_assert_int_eq(url_parse("iscsi://h/" IQN "/0", true, &u, &err), -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.text, "\"/" IQN "/0\""));
	ck_assert_int_eq(url_parse("file:///a", true, &u, &err), -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.text, "\"file\""));
}
END_TEST

START_TEST(test_lengths)
{
	static char text[URL_MAX + 10];
	char name[256], other[256];
	struct url u;

	/* The longest target name, and one more. */
	snprintf(text, sizeof(text), "iscsi://h/iqn.2001-04.com:%0*d/0", 223 - 16, 0);
	ck_assert_int_eq(url_parse(text, false, &u, NULL), 0);
	url_cache_name(&u, name);
	ck_assert_uint_eq(strlen(name), 200);
	text[strlen(text) - 3] = '1';
	ck_assert_int_eq(url_parse(text, false, &u, NULL), 0);
	url_cache_name(&u, other);
	ck_assert_str_ne(name, other);
	snprintf(text, sizeof(text), "iscsi://h/iqn.2001-04.com:%0*d/0", 224 - 16, 0);
	ck_assert_int_eq(url_parse(text, false, &u, NULL), -EINVAL);

	snprintf(text, sizeof(text), "iscsi://%0*d/" IQN "/0", 254, 0);
	ck_assert_int_eq(url_parse(text, false, &u, NULL), -EINVAL);
	snprintf(text, sizeof(text), "iscsi://a%063d/" IQN "/0", 0);
	ck_assert_int_eq(url_parse(text, false, &u, NULL), -EINVAL);
	snprintf(text, sizeof(text), "iscsi://a%062d/" IQN "/0", 0);
	ck_assert_int_eq(url_parse(text, false, &u, NULL), 0);
	snprintf(text, sizeof(text), "iscsi://%0*d@h/" IQN "/0", 256, 0);
	ck_assert_int_eq(url_parse(text, false, &u, NULL), -EINVAL);

	/* At the limit; over it; and one that only its canonical form takes over it. */
	snprintf(text, sizeof(text), "file:///%0*d", URL_MAX - 9, 0);
	ck_assert_uint_eq(strlen(text), URL_MAX - 1);
	ck_assert_int_eq(url_parse(text, false, &u, NULL), 0);
	strcat(text, "0");
	ck_assert_int_eq(url_parse(text, false, &u, NULL), -EINVAL);
	memset(text + 8, ' ', URL_MAX - 9);
	text[URL_MAX - 1] = '\0';
	ck_assert_int_eq(url_parse(text, false, &u, NULL), -EINVAL);
	memset(text + 8, '?', URL_MAX - 9);
	memcpy(text, "http://h/", 9);
	ck_assert_int_eq(url_parse(text, false, &u, NULL), 0);
	url_cache_name(&u, name);
	ck_assert_uint_eq(strlen(name), 200);
}
END_TEST

/* '/' and '_' and what is replaced: names that look alike still differ. */
START_TEST(test_names_differ)
{
	static const char *const url[] = {
		"file:///a/b",
		"file:///a_b",
		"file:///a-b",
		"file:///a%20b",
		"file:///a+b",
		"http://h/a/b",
		"https://h/a/b",
		"https://h/a_b",
		"http://h/a?b",
		"http://h/a?c",
		"http://h/a/",
		"http://h:81/a/b",
		"mem:512",
		"file:///mem/512",
		"iscsi://h/" IQN "/0",
		"iscsi://h/" IQN "/1",
		"iscsi://i/" IQN "/0",
		"iscsi://h:3/" IQN "/0",
		"iscsi://[::3]/" IQN "/0",
		"iscsi://[::]:3/" IQN "/0",
	};
	char name[ARRAY_SIZE(url)][256];
	struct url u;

	for (size_t i = 0; i < ARRAY_SIZE(url); i++) {
		ck_assert_int_eq(url_parse(url[i], false, &u, NULL), 0);
		url_cache_name(&u, name[i]);
		for (size_t j = 0; j < i; j++)
			ck_assert_str_ne(name[i], name[j]);
	}
}
END_TEST

/* Every text made by cutting or changing one byte of a good one parses or is refused, and what
 * parses is canonical. Memory errors are the sanitizers' part. */
START_TEST(test_mutations)
{
	static const char bytes[] = "/:@?#%[],.-0\x01\xff ";

	for (size_t g = 0; g < ARRAY_SIZE(good); g++) {
		size_t n = strlen(good[g].url);

		for (size_t i = 0; i < n; i++) {
			for (size_t k = 0; k < sizeof(bytes); k++) {
				char *text = strdup(good[g].url);
				struct url u, again;
				struct err err;
				char name[256];

				text[i] = bytes[k]; /* the last is '\0': cut */
				if (url_parse(text, false, &u, &err) == 0) {
					url_cache_name(&u, name);
					ck_assert_uint_le(strlen(name), 200);
					if (!strstr(u.text, "?..."))
						ck_assert_int_eq(
							url_parse(u.text, false, &again, &err), 0);
				}
				url_parse(text, true, &u, &err);
				free(text);
			}
		}
	}
}
END_TEST

START_TEST(test_initiator_names)
{
	struct err err;

	ck_assert_int_eq(
		url_check_iscsi_name("iqn.1993-08.org.debian:01:abc", "--initiator-name", &err), 0);
	ck_assert_int_eq(url_check_iscsi_name("joe", "--initiator-name", &err), -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.text, "--initiator-name \"joe\""));
}
END_TEST

int main(void)
{
	Suite *s = suite_create("url");
	TCase *tc = tcase_create("url");

	tcase_add_loop_test(tc, test_good, 0, ARRAY_SIZE(good));
	tcase_add_loop_test(tc, test_bad, 0, ARRAY_SIZE(bad));
	tcase_add_loop_test(tc, test_secrets, 0, ARRAY_SIZE(secret));
	tcase_add_test(tc, test_fields);
	tcase_add_test(tc, test_discovery);
	tcase_add_test(tc, test_lengths);
	tcase_add_test(tc, test_names_differ);
	tcase_add_test(tc, test_mutations);
	tcase_add_test(tc, test_initiator_names);
	suite_add_tcase(s, tc);
	return run_suite(s);
}
