// SPDX-License-Identifier: Apache-2.0
#include "transport/url_part.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "core/cleanup.h"
#include "core/parse.h"
#include "transport/url.h"

struct quoted url_quote(struct part part)
{
	struct quoted q;
	size_t n = MIN(part.length, (size_t)URL_QUOTE_MAX);

	for (size_t i = 0; i < n; i++)
		q.text[i] = part.at[i] >= 0x20 && part.at[i] < 0x7f ? part.at[i] : '?';
	strcpy(q.text + n, part.length > n ? "..." : "");
	return q;
}

static int parse_port(struct part part, uint16_t *ret, struct err *err)
{
	char digits[8];
	uint64_t v;

	if (part.length < sizeof(digits)) {
		memcpy(digits, part.at, part.length);
		digits[part.length] = '\0';
		if (parse_u64(digits, &v) == 0 && v >= 1 && v <= 65535) {
			*ret = (uint16_t)v;
			return 0;
		}
	}
	return err_set(err, -EINVAL, "port \"%s\": must be a number from 1 to 65535",
		       url_quote(part).text);
}

/* An IPv6 address, perhaps with "%zone" behind (RFC 6874 writes the '%' as "%25"). */
static int parse_ipv6(struct part part, char *ret, size_t max, struct err *err)
{
	struct part address = { part.at, part.length }, zone = { "", 0 };
	const char *percent = memchr(part.at, '%', part.length);
	struct in6_addr binary;
	char text[INET6_ADDRSTRLEN];

	if (percent) {
		address.length = (size_t)(percent - part.at);
		zone = (struct part){ percent + 1, part.length - address.length - 1 };
		if (zone.length > 2 && strncmp(zone.at, "25", 2) == 0)
			zone = (struct part){ zone.at + 2, zone.length - 2 };
		if (!zone.length || zone.length > 32)
			goto bad;
		for (size_t i = 0; i < zone.length; i++)
			if (!is_alnum(zone.at[i]) && !strchr("-._", zone.at[i]))
				goto bad;
	}
	if (address.length >= sizeof(text))
		goto bad;
	memcpy(text, address.at, address.length);
	text[address.length] = '\0';
	if (inet_pton(AF_INET6, text, &binary) != 1)
		goto bad;
	inet_ntop(AF_INET6, &binary, text, sizeof(text));
	snprintf(ret, max, "%s%s%.*s", text, zone.length ? "%" : "", (int)zone.length, zone.at);
	return 0;
bad:
	return err_set(err, -EINVAL, "host \"[%s]\": not an IPv6 address", url_quote(part).text);
}

/* A name (RFC 1123 2.1; '_' passes) or an IPv4 address. */
static int parse_name(struct part part, char *ret, size_t max, struct err *err)
{
	size_t label = 0, letters = 0;
	struct in_addr binary;

	if (!part.length)
		return err_set(err, -EINVAL, "the host is missing: write scheme://host/...");
	if (part.length > 253 || part.length >= max)
		return err_set(err, -EINVAL, "host \"%s\": longer than 253 characters",
			       url_quote(part).text);
	for (size_t i = 0; i < part.length; i++) {
		char c = part.at[i];

		if (c == '.' ? label == 0 : (!is_alnum(c) && c != '_' && (c != '-' || !label)))
			return err_set(err, -EINVAL,
				       "host \"%s\": not a host name or address (letters, digits, "
				       "'-' and '.')",
				       url_quote(part).text);
		label = c == '.' ? 0 : label + 1;
		if (label > 63)
			return err_set(err, -EINVAL,
				       "host \"%s\": a label is longer than 63 characters",
				       url_quote(part).text);
		letters += !is_digit(c) && c != '.';
		ret[i] = (char)tolower((unsigned char)c);
	}
	ret[part.length] = '\0';
	if (!letters && inet_pton(AF_INET, ret, &binary) != 1)
		return err_set(err, -EINVAL, "host \"%s\": not an IPv4 address (four numbers)",
			       url_quote(part).text);
	return 0;
}

/* "host", "host:port", "[v6]", "[v6]:port"; *ret_port is left alone where there is none. */
int url_parse_host_port(struct part part, char *ret_host, size_t max, uint16_t *ret_port,
			struct err *err)
{
	const char *end = part.at + part.length, *rest;
	const char *colon = memchr(part.at, ':', part.length);
	int r;

	if (part.length && part.at[0] == '[') {
		const char *close = memchr(part.at, ']', part.length);

		if (!close)
			return err_set(err, -EINVAL, "host \"%s\": the closing ']' is missing",
				       url_quote(part).text);
		r = parse_ipv6((struct part){ part.at + 1, (size_t)(close - part.at) - 1 },
			       ret_host, max, err);
		rest = close + 1;
		if (r == 0 && rest != end && *rest != ':')
			return err_set(err, -EINVAL, "\"%s\": only \":port\" may follow the ']'",
				       url_quote(part).text);
	} else if (colon && memchr(colon + 1, ':', (size_t)(end - colon) - 1)) {
		return err_set(err, -EINVAL,
			       "host \"%s\": an IPv6 address stands in brackets: [%s]",
			       url_quote(part).text, url_quote(part).text);
	} else {
		rest = colon ? colon : end;
		r = parse_name((struct part){ part.at, (size_t)(rest - part.at) }, ret_host, max,
			       err);
	}
	if (r < 0)
		return r;
	if (rest == end)
		return 0;
	return parse_port((struct part){ rest + 1, (size_t)(end - rest) - 1 }, ret_port, err);
}

static bool all_hex(const char *text)
{
	return text[strspn(text, "0123456789abcdefABCDEF")] == '\0';
}

/* "YYYY-MM." and at least one label; the rest is the name's owner's business. */
static bool iqn_shape(const char *text)
{
	static const char shape[] = "dddd-dd.";
	int month;

	for (size_t i = 0; i < sizeof(shape) - 1; i++)
		if (shape[i] == 'd' ? !is_digit(text[i]) : text[i] != shape[i])
			return false;
	month = (text[5] - '0') * 10 + text[6] - '0';
	return month >= 1 && month <= 12 && is_alnum(text[8]);
}

int url_check_iscsi_name(const char *name, const char *what, struct err *err)
{
	struct part whole = { name, strlen(name) };
	const char *p;

	if (whole.length > ISCSI_NAME_MAX)
		return err_set(err, -EINVAL, "%s \"%s\": longer than %d characters", what,
			       url_quote(whole).text, ISCSI_NAME_MAX);
	for (p = name; *p; p++)
		if (!is_alnum(*p) && !strchr("-.:_", *p))
			return err_set(err, -EINVAL,
				       "%s \"%s\": only letters, digits, '-', '.', '_' and ':' may "
				       "stand in it",
				       what, url_quote(whole).text);
	if (strncasecmp(name, "iqn.", 4) == 0) {
		if (iqn_shape(name + 4))
			return 0;
		return err_set(err, -EINVAL,
			       "%s \"%s\": must look like iqn.YYYY-MM.reversed.domain:name", what,
			       url_quote(whole).text);
	}
	if (strncasecmp(name, "eui.", 4) == 0) {
		if (whole.length == 20 && all_hex(name + 4))
			return 0;
		return err_set(err, -EINVAL,
			       "%s \"%s\": \"eui.\" is followed by 16 hexadecimal digits", what,
			       url_quote(whole).text);
	}
	if (strncasecmp(name, "naa.", 4) == 0) {
		if ((whole.length == 20 || whole.length == 36) && all_hex(name + 4))
			return 0;
		return err_set(err, -EINVAL,
			       "%s \"%s\": \"naa.\" is followed by 16 or 32 hexadecimal digits",
			       what, url_quote(whole).text);
	}
	return err_set(err, -EINVAL, "%s \"%s\": must begin with iqn., eui. or naa.", what,
		       url_quote(whole).text);
}
