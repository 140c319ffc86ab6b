// SPDX-License-Identifier: Apache-2.0
/*
 * Volume URLs, as a person types them: u8 (1: a discovery URL), then the text.
 *
 * What is taken is within bounds and says the same when its canonical text is parsed; what is
 * refused leaves no trace, and no message tells what stands before an '@'.
 */
#include <errno.h>
#include <stdlib.h>
#include <strings.h>

#include "core/cleanup.h"
#include "tests/fuzz/fuzz.h"
#include "transport/url.h"
#include "transport/url_part.h"

const unsigned fuzz_runs = 100000;

static void check_plain(const char *text)
{
	for (; *text; text++)
		fuzz_check(*text >= 0x20 && *text < 0x7f);
}

static void check_iscsi(const struct url *u, bool discovery)
{
	struct err err;

	fuzz_check(u->portals >= 1 && u->portals <= URL_PORTALS);
	for (unsigned i = 0; i < u->portals; i++) {
		fuzz_check(u->portal[i].port && u->portal[i].host[0]);
		fuzz_check(memchr(u->portal[i].host, '\0', sizeof(u->portal[i].host)));
		check_plain(u->portal[i].host);
	}
	fuzz_check(u->lun <= 16383);
	fuzz_check(discovery ? !u->target[0] : !url_check_iscsi_name(u->target, "", &err));
	check_plain(u->user);
}

static void check_name(const struct url *u)
{
	char name[256];
	size_t n;

	memset(name, 'x', sizeof(name));
	url_cache_name(u, name);
	n = strnlen(name, sizeof(name));
	fuzz_check(n > 0 && n <= 200 && name[0] != '.');
	for (size_t i = 0; i < n; i++)
		fuzz_check(is_alnum(name[i]) || strchr(".-_:", name[i]));
}

static void check_again(const struct url *u, bool discovery)
{
	struct url *again = fuzz_alloc(sizeof(*again));
	struct err err = { .text = "" };
	char name[256], name2[256];

	fuzz_check(url_parse(u->text, discovery, again, &err) == 0);
	fuzz_check(strcmp(again->text, u->text) == 0);
	fuzz_check(again->scheme == u->scheme && again->portals == u->portals);
	for (unsigned i = 0; i < u->portals; i++)
		fuzz_check(again->portal[i].port == u->portal[i].port &&
			   !strcmp(again->portal[i].host, u->portal[i].host));
	fuzz_check(!strcmp(again->user, u->user) && !strcmp(again->target, u->target));
	fuzz_check(again->lun == u->lun && again->size_bytes == u->size_bytes);
	/* What a query says is not shown; without one nothing is hidden. */
	if (!strchr(u->text, '?')) {
		fuzz_check(!strcmp(again->path, u->path));
		url_cache_name(u, name);
		url_cache_name(again, name2);
		fuzz_check(strcmp(name, name2) == 0);
	}
	free(again);
}

static void check_taken(const struct url *u, bool discovery)
{
	fuzz_check(memchr(u->text, '\0', sizeof(u->text)));
	fuzz_check(memchr(u->path, '\0', sizeof(u->path)));
	check_plain(u->text);
	switch (u->scheme) {
	case URL_ISCSI:
	case URL_ISER:
		check_iscsi(u, discovery);
		break;
	case URL_FILE:
		fuzz_check(u->path[0] == '/' && u->path[1]);
		break;
	case URL_HTTP:
	case URL_HTTPS:
		check_plain(u->path);
		fuzz_check(strncmp(u->path, "http", 4) == 0);
		break;
	case URL_MEM:
		fuzz_check(u->size_bytes && u->size_bytes % 512 == 0);
		break;
	}
	if (!discovery)
		check_name(u);
	check_again(u, discovery);
}

/* The message may not depend on what stands before an '@' by quoting it. */
static void check_secret(const char *text, bool discovery, const struct err *err)
{
	const char *authority = strstr(text, "//"), *colon = strchr(text, ':');
	const char *from = authority ? authority + 2 : colon ? colon + 1 : text;
	const char *at = strrchr(from, '@');
	cleanup_free char *secret = NULL, *other = NULL;
	struct err err2 = { .text = "" };
	struct url *u;

	/* Names of files may hold an '@'; sizes never do. */
	if (!at || at - from < 4 || !strncasecmp(text, "file:", 5) || !strncasecmp(text, "mem:", 4))
		return;
	secret = strndup(from, (size_t)(at - from));
	other = strdup(text);
	u = fuzz_alloc(sizeof(*u));
	fuzz_check(secret && other);
	for (char *p = other + (from - text); p < other + (at - text); p++)
		*p = is_alnum(*p) ? 'Q' : *p;
	if (strstr(err->text, secret) && url_parse(other, discovery, u, &err2) < 0)
		fuzz_check(strcmp(err->text, err2.text) == 0);
	free(u);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = { data, size };
	bool discovery = fuzz_take(&in, 1) & 1;
	cleanup_free char *text = fuzz_text(in.at, in.left);
	struct url *u = fuzz_alloc(sizeof(*u));
	struct err err = { .text = "" };
	int r;

	u->lun = 77;
	r = url_parse(text, discovery, u, &err);
	if (r == 0) {
		check_taken(u, discovery);
	} else {
		fuzz_check(r == -EINVAL && err.text[0] && u->lun == 77 && !u->text[0]);
		check_plain(err.text);
		check_secret(text, discovery, &err);
	}
	free(u);
	return 0;
}

void fuzz_seeds(void)
{
	static const char *const text[] = {
		"iscsi://host.example/iqn.2026-01.org.example:disk/1",
		"iscsi://user@10.0.0.1:3261,[fe80::1%25eth0]:3260/iqn.2026-01.org.example/255",
		"iser://[2001:DB8::1]/naa.600140512345678912345678abcdef01/16383",
		"iscsi://host/eui.02004567A425678D/0",
		"iscsi://user:a-secret@host/iqn.2026-01.org.example/1",
		"iscsi://user:with/slash@host/iqn.2026-01.org.example/1",
		"iscsi://h/iqn.2026-13.org/1?x#y",
		"iscsi://[fe80::2%2525]/iqn.2026-01.org.example/1",
		"file:///var/lib/images/a%20b%25c.img",
		"file:////double//./slash/../x",
		"https://origin.example:8443/images/disk.raw?signature=abc%2Fdef",
		"http://[::1]/x",
		"http://user:a-secret@host:99999/x",
		"mem:64M",
		"//user:a-secret@host/iqn.2026-01.org.example/1",
		"a-secret@host/x",
		"/dev/sdb",
		"ftp://host/x",
		"",
	};
	struct fuzz_output out = { 0 };

	for (size_t i = 0; i < ARRAY_SIZE(text); i++) {
		fuzz_put(&out, 0, 1);
		fuzz_put_bytes(&out, text[i], strlen(text[i]));
		fuzz_put_seed(&out);
	}
	fuzz_put(&out, 1, 1);
	fuzz_put_bytes(&out, "iscsi://portal.example:3260", 27);
	fuzz_put_seed(&out);
}
