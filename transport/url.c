// SPDX-License-Identifier: Apache-2.0
/*
 * One pass from left to right. Messages quote the part that is wrong, never what stands before an
 * '@' or behind a '?': people put secrets there.
 */
#include "transport/url.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "core/cleanup.h"
#include "core/hash.h"
#include "core/parse.h"
#include "transport/url_part.h"

#define ISCSI_PORT 3260
#define LUN_MAX 16383
#define NAME_MAX_BYTES 200

static const struct {
	const char *name;
	enum url_scheme scheme;
} schemes[] = {
	{ "iscsi", URL_ISCSI }, { "iser", URL_ISER },   { "file", URL_FILE },
	{ "http", URL_HTTP },   { "https", URL_HTTPS }, { "mem", URL_MEM },
};

/* Text under construction; once it is cut it stays cut. */
struct out {
	char *at;
	size_t length;
	size_t max;
	bool cut;
};

__attribute__((format(printf, 2, 3))) static void put(struct out *o, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(o->at + o->length, o->max - o->length, fmt, ap);
	va_end(ap);
	if (n < 0 || (size_t)n >= o->max - o->length)
		o->cut = true;
	else
		o->length += (size_t)n;
}

/* Characters up to the first of @stops or the end. */
static struct part until(const char *text, const char *stops)
{
	return (struct part){ text, strcspn(text, stops) };
}

static void put_host(struct out *o, const char *host)
{
	put(o, strchr(host, ':') ? "[%s]" : "%s", host);
}

/*
 * As it may stand in a URL: the '%' before a zone is read as "%25", too, so before a zone that
 * begins with 25 it is written so.
 */
static void put_url_host(struct out *o, const char *host)
{
	const char *zone = strchr(host, '%');

	if (zone && strncmp(zone + 1, "25", 2) == 0)
		put(o, "[%.*s%%25%s]", (int)(zone - host), host, zone + 1);
	else
		put_host(o, host);
}

static int refuse_password(struct err *err)
{
	return err_set(err, -EINVAL,
		       "a password in the URL would be seen by every user of this machine: put it "
		       "into a file and use --credentials FILE (username=, password=)");
}

/* What stands before the '@'. Nothing of it may show in a message: it may be a password. */
static int parse_user(struct part part, char *ret, size_t max, struct err *err)
{
	if (memchr(part.at, ':', part.length) || memchr(part.at, '%', part.length))
		return refuse_password(err);
	if (!part.length)
		return err_set(err, -EINVAL, "the user before the '@' is empty: leave out the '@'");
	if (part.length >= max)
		return err_set(err, -EINVAL,
			       "the user before the '@' is longer than %zu characters", max - 1);
	for (size_t i = 0; i < part.length; i++)
		if (part.at[i] <= 0x20 || part.at[i] >= 0x7f)
			return err_set(
				err, -EINVAL,
				"the user before the '@' holds a character that is not "
				"printable ASCII: give it in --credentials FILE (username=)");
	memcpy(ret, part.at, part.length);
	ret[part.length] = '\0';
	return 0;
}

static int parse_portals(struct part authority, struct url *u, struct err *err)
{
	const char *p = authority.at, *end = authority.at + authority.length;

	for (;;) {
		const char *comma = memchr(p, ',', (size_t)(end - p));
		struct part one = { p, (size_t)((comma ? comma : end) - p) };
		struct url_portal *portal = &u->portal[u->portals];
		int r;

		if (u->portals == URL_PORTALS)
			return err_set(err, -EINVAL,
				       "portal \"%s\": at most %d portals may be given",
				       url_quote(one).text, URL_PORTALS);
		portal->port = ISCSI_PORT;
		r = url_parse_host_port(one, portal->host, sizeof(portal->host), &portal->port,
					err);
		if (r < 0)
			return r;
		for (unsigned i = 0; i < u->portals; i++)
			if (u->portal[i].port == portal->port &&
			    strcmp(u->portal[i].host, portal->host) == 0)
				return err_set(err, -EINVAL, "portal \"%s\" is given twice",
					       url_quote(one).text);
		u->portals++;
		if (!comma)
			return 0;
		p = comma + 1;
	}
}

/* "/target/lun" up to the end of the text. */
static int parse_target_lun(const char *p, struct url *u, struct err *err)
{
	struct part target, lun;
	char digits[8];
	uint64_t v;
	int r;

	target = until(p + (*p == '/'), "/");
	if (*p != '/' || !target.length)
		return err_set(err, -EINVAL,
			       "the target is missing: write %s://host/target-name/lun (nearblk "
			       "discover lists them)",
			       u->scheme == URL_ISER ? "iser" : "iscsi");
	if (target.length >= sizeof(u->target))
		return err_set(err, -EINVAL, "target \"%s\": longer than %d characters",
			       url_quote(target).text, ISCSI_NAME_MAX);
	memcpy(u->target, target.at, target.length);
	u->target[target.length] = '\0';
	r = url_check_iscsi_name(u->target, "target", err);
	if (r < 0)
		return r;
	p = target.at + target.length;
	lun = (struct part){ p + (*p == '/'), strlen(p + (*p == '/')) };
	if (!lun.length)
		return err_set(err, -EINVAL,
			       "the LUN is missing: add its number behind the target, such as "
			       "/%s/1",
			       url_quote(target).text);
	if (lun.length < sizeof(digits)) {
		memcpy(digits, lun.at, lun.length + 1);
		if (parse_u64(digits, &v) == 0 && v <= LUN_MAX) {
			u->lun = (uint16_t)v;
			return 0;
		}
	}
	return err_set(err, -EINVAL,
		       "LUN \"%s\": must be a number from 0 to %d, and the URL ends there",
		       url_quote(lun).text, LUN_MAX);
}

static int parse_iscsi(const char *p, bool discovery, struct url *u, struct out *o, struct err *err)
{
	struct part authority = until(p, "/?#");
	const char *at = memrchr(authority.at, '@', authority.length);
	int r;

	p += authority.length;
	/* No part behind the portals has an '@': this one ends a password with a '/' in it. */
	if (strchr(p, '@'))
		return refuse_password(err);
	if (p[strcspn(p, "?#")])
		return err_set(err, -EINVAL,
			       "the URL ends with the LUN: nothing may follow behind '?' or '#' "
			       "(secrets go into --credentials FILE, the rest are options)");
	if (at) {
		struct part user = { authority.at, (size_t)(at - authority.at) };

		r = parse_user(user, u->user, sizeof(u->user), err);
		if (r < 0)
			return r;
		authority = (struct part){ at + 1, authority.length - user.length - 1 };
	}
	r = parse_portals(authority, u, err);
	if (r < 0)
		return r;
	if (!discovery)
		r = parse_target_lun(p, u, err);
	else if (*p && strcmp(p, "/") != 0)
		r = err_set(err, -EINVAL, "\"%s\": a discovery URL ends with the portal",
			    url_quote((struct part){ p, strlen(p) }).text);
	if (r < 0)
		return r;

	put(o, "%s%s", u->user, at ? "@" : "");
	for (unsigned i = 0; i < u->portals; i++) {
		if (i)
			put(o, ",");
		put_url_host(o, u->portal[i].host);
		if (u->portal[i].port != ISCSI_PORT)
			put(o, ":%u", u->portal[i].port);
	}
	if (!discovery)
		put(o, "/%s/%u", u->target, u->lun);
	return 0;
}

static int hex_digit(char c)
{
	if (is_digit(c))
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The byte that "%XX" at @p stands for, or -EINVAL. */
static int percent(const char *p, struct err *err)
{
	int high = hex_digit(p[1]), low = high < 0 ? -1 : hex_digit(p[2]);

	if (low < 0)
		return err_set(
			err, -EINVAL,
			"\"%s\": '%%' is followed by two hexadecimal digits; the sign itself "
			"is written %%25",
			url_quote((struct part){ p, strnlen(p, 3) }).text);
	return high * 16 + low;
}

static int parse_file(const char *p, struct url *u, struct out *o, struct err *err)
{
	struct part host = until(p, "/");
	size_t n = 0;

	if (host.length)
		return err_set(err, -EINVAL,
			       "\"%s\": a file URL has no host; write three slashes: "
			       "file:///absolute/path",
			       url_quote(host).text);
	for (p += host.length; *p; p++) {
		int c = (unsigned char)*p;

		if (c == '?' || c == '#')
			return err_set(err, -EINVAL,
				       "'%c' in a file URL: write %%%02X for a '%c' in the name", c,
				       c, c);
		if (c == '%') {
			c = percent(p, err);
			if (c < 0)
				return c;
			p += 2;
		}
		if (c < 0x20 || c == 0x7f)
			return err_set(
				err, -EINVAL,
				"the path holds a control character (0x%02x): no such file can "
				"be used",
				c);
		/* "//" and "/./" mean "/": one file, one canonical URL. ".." may cross a symbolic
		 * link and stays. */
		if (c == '/' && n && u->path[n - 1] == '/')
			continue;
		if (c == '/' && n >= 2 && u->path[n - 1] == '.' && u->path[n - 2] == '/') {
			n--;
			continue;
		}
		u->path[n++] = (char)c;
	}
	if (n <= 1)
		return err_set(
			err, -EINVAL,
			"the path is missing: write file:///absolute/path of a file or block "
			"device");
	u->path[n] = '\0';
	for (size_t i = 0; i < n; i++) {
		char c = u->path[i];

		put(o, is_alnum(c) || strchr("/-._~+,:=@", c) ? "%c" : "%%%02X", (unsigned char)c);
	}
	return 0;
}

static int parse_http(const char *p, struct url *u, struct out *o, struct err *err)
{
	struct part authority = until(p, "/?#"), path;
	uint16_t usual = u->scheme == URL_HTTPS ? 443 : 80, port = usual;
	struct out full = { u->path, 0, sizeof(u->path), false };
	char host[256];
	int r;

	if (memchr(authority.at, '@', authority.length))
		return refuse_password(err);
	r = url_parse_host_port(authority, host, sizeof(host), &port, err);
	p += authority.length;
	/* Perhaps a password with a '/' in it, which the message at hand would quote. */
	if (r < 0 && strchr(p, '@'))
		return refuse_password(err);
	if (r < 0)
		return r;
	path = until(p, "?#");
	if (!path.length)
		return err_set(err, -EINVAL, "the path is missing: write %s://host/path/of/image",
			       u->scheme == URL_HTTPS ? "https" : "http");
	if (strchr(p, '#'))
		return err_set(err, -EINVAL, "'#' in an http URL: leave it and what follows out");
	for (const char *c = p; *c; c++) {
		if (*c <= 0x20 || *c >= 0x7f)
			return err_set(
				err, -EINVAL,
				"byte 0x%02x in the URL: write %%%02X (only printable ASCII may "
				"stand there)",
				(unsigned char)*c, (unsigned char)*c);
		if (*c == '%' && c < path.at + path.length) {
			r = percent(c, err);
			if (r < 0)
				return r;
		}
	}
	put_url_host(o, host);
	if (port != usual)
		put(o, ":%u", port);
	put(o, "%.*s", (int)path.length, path.at);
	put(&full, "%s%s", u->text, p + path.length);
	/* A query may be a signature that opens the door: it is used, not shown. */
	if (p[path.length])
		put(o, "?...");
	o->cut |= full.cut;
	return 0;
}

static int parse_mem(const char *p, struct url *u, struct out *o, struct err *err)
{
	if (parse_size(p, &u->size_bytes) < 0 || !u->size_bytes || u->size_bytes % 512 ||
	    u->size_bytes > INT64_MAX)
		return err_set(
			err, -EINVAL,
			"\"%s\": mem: is followed by a size that is a multiple of 512, such as "
			"mem:64M",
			url_quote((struct part){ p, strlen(p) }).text);
	put(o, "%" PRIu64, u->size_bytes);
	return 0;
}

/* The scheme of @text; *@ret_rest is what follows the ':'. */
static int parse_scheme(const char *text, enum url_scheme *ret, const char **ret_rest,
			struct err *err)
{
	size_t n = strcspn(text, ":/?#@");
	struct part scheme = { text, n };

	if (!*text)
		return err_set(err, -EINVAL,
			       "the volume URL is empty: write iscsi://host/target/lun, "
			       "file:///path or https://host/path");
	if (text[0] == '/' && strchr(text, '@'))
		return err_set(err, -EINVAL,
			       "what begins with '/' is a path, not a URL: write file:///path");
	if (text[0] == '/')
		return err_set(err, -EINVAL, "\"%s\" is a path, not a URL: write file://%s",
			       url_quote((struct part){ text, strcspn(text, "?#") }).text,
			       url_quote((struct part){ text, strcspn(text, "?#") }).text);
	if (text[n] == ':') {
		for (size_t i = 0; i < ARRAY_SIZE(schemes); i++) {
			if (strlen(schemes[i].name) == n &&
			    strncasecmp(schemes[i].name, text, n) == 0) {
				*ret = schemes[i].scheme;
				*ret_rest = text + n + 1;
				return 0;
			}
		}
	}
	if (strncmp(text + n, "://", 3) == 0)
		return err_set(err, -EINVAL,
			       "scheme \"%s\": not known; use iscsi, iser, file, http or https",
			       url_quote(scheme).text);
	if (strchr(text, '@'))
		return err_set(err, -EINVAL,
			       "the scheme is missing before what ends with the '@'; write "
			       "iscsi://user@host/target/lun");
	return err_set(
		err, -EINVAL,
		"\"%s\": the scheme is missing; write iscsi://host/target/lun, file:///path or "
		"https://host/path",
		url_quote(scheme).text);
}

int url_parse(const char *text, bool discovery, struct url *ret, struct err *err)
{
	struct url u = { .text = "" };
	struct out o = { u.text, 0, sizeof(u.text), false };
	const char *rest = text, *name = NULL;
	int r;

	if (strlen(text) >= URL_MAX)
		return err_set(err, -EINVAL, "the volume URL is longer than %d characters",
			       URL_MAX - 1);
	r = parse_scheme(text, &u.scheme, &rest, err);
	if (r < 0)
		return r;
	for (size_t i = 0; i < ARRAY_SIZE(schemes); i++)
		if (schemes[i].scheme == u.scheme)
			name = schemes[i].name;
	if (discovery && u.scheme != URL_ISCSI && u.scheme != URL_ISER)
		return err_set(err, -EINVAL,
			       "scheme \"%s\": only iscsi targets can be discovered: write "
			       "iscsi://host[:port]",
			       name);
	put(&o, "%s:%s", name, u.scheme == URL_MEM ? "" : "//");
	if (u.scheme != URL_MEM) {
		if (strncmp(rest, "//", 2) != 0)
			return err_set(err, -EINVAL, "\"%s:\" must be followed by \"//\"", name);
		rest += 2;
	}
	switch (u.scheme) {
	case URL_ISCSI:
	case URL_ISER:
		r = parse_iscsi(rest, discovery, &u, &o, err);
		break;
	case URL_FILE:
		r = parse_file(rest, &u, &o, err);
		break;
	case URL_HTTP:
	case URL_HTTPS:
		r = parse_http(rest, &u, &o, err);
		break;
	case URL_MEM:
		r = parse_mem(rest, &u, &o, err);
		break;
	}
	if (r < 0)
		return r;
	if (o.cut)
		return err_set(err, -EINVAL, "the volume URL is too long when written out");
	*ret = u;
	return 0;
}

void url_cache_name(const struct url *url, char ret[256])
{
	char whole[URL_MAX + 16];
	struct out o = { whole, 0, sizeof(whole), false };
	bool exact = true;
	size_t n;

	switch (url->scheme) {
	case URL_ISCSI:
	case URL_ISER:
		put(&o, "iscsi/");
		put_host(&o, url->portal[0].host);
		if (url->portal[0].port != ISCSI_PORT)
			put(&o, ":%u", url->portal[0].port);
		put(&o, "/%s/%u", url->target, url->lun);
		break;
	case URL_FILE:
		put(&o, "file%s", url->path);
		break;
	case URL_HTTP:
	case URL_HTTPS:
		/* The path holds "https://host/…". */
		put(&o, "%s/%s", url->scheme == URL_HTTPS ? "https" : "http",
		    strstr(url->path, "://") + 3);
		break;
	case URL_MEM:
		put(&o, "mem/%" PRIu64, url->size_bytes);
		break;
	}
	/* '/' becomes '_': with no '_' before, still nothing else has the same name. */
	for (n = 0; whole[n] && n < NAME_MAX_BYTES; n++) {
		char c = whole[n];

		if (is_alnum(c) || strchr("-.:", c)) {
			ret[n] = c;
		} else {
			ret[n] = c == '/' ? '_' : '-';
			exact &= c == '/';
		}
	}
	if (exact && !whole[n]) {
		ret[n] = '\0';
		return;
	}
	n = MIN(n, (size_t)NAME_MAX_BYTES - 17);
	snprintf(ret + n, 256 - n, "-%016" PRIx64, hash_text(whole));
}
