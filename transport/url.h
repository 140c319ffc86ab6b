// SPDX-License-Identifier: Apache-2.0
/*
 * Volume URLs: iscsi://[user@]host[:port][,host[:port]…]/target-iqn/lun, the same with iser://,
 * file:///absolute/path, http://… and https://…, and mem:SIZE (tests). Pure; any thread.
 */
#ifndef TRANSPORT_URL_H
#define TRANSPORT_URL_H

#include <stdbool.h>
#include <stdint.h>

#include "core/err.h"

enum url_scheme { URL_ISCSI, URL_ISER, URL_FILE, URL_HTTP, URL_HTTPS, URL_MEM };

#define URL_MAX 2048
#define URL_PORTALS 8

struct url_portal {
	char host[256]; /* name, IPv4, or IPv6 without brackets */
	uint16_t port;  /* 3260 where the URL has none */
};

struct url {
	enum url_scheme scheme;
	char text[URL_MAX]; /* canonical, fit to be shown: never holds a secret (an http query
			       shows as "?...") */
	struct url_portal portal[URL_PORTALS]; /* iscsi, iser */
	unsigned portals;
	char user[256];      /* iscsi: CHAP name from the URL, or empty */
	char target[224];    /* iscsi: target name; empty in a discovery URL */
	uint16_t lun;        /* iscsi; 0..16383 (SAM-5 4.7) */
	char path[URL_MAX];  /* file: the absolute path; http: the whole URL, query included */
	uint64_t size_bytes; /* mem */
};

/*
 * Parse @text. With @discovery an iscsi URL ends after the portals. 0, or -EINVAL with @err naming
 * the part that is wrong and what would be right; a password in the URL is refused with a pointer
 * to --credentials.
 */
int url_parse(const char *text, bool discovery, struct url *ret, struct err *err);

/*
 * The name of an iSCSI node: "iqn.YYYY-MM.reversed.domain[:anything]", "eui." and 16 hexadecimal
 * digits, "naa." and 16 or 32 of them; at most 223 bytes (RFC 7143 4.2.7; letters of both cases and
 * '_' pass because targets in the field have them). @what names the value in the message. 0, or
 * -EINVAL with @err.
 */
int url_check_iscsi_name(const char *name, const char *what, struct err *err);

/*
 * A readable directory name made from the URL, unique per volume: letters, digits, '.', '-', '_'
 * and ':' only, at most 200 bytes. A hash of the whole is added where something had to be replaced
 * or cut, so that different volumes never share a name. How an iSCSI volume is reached beyond its
 * first portal (more portals, user, iscsi or iser) is no part of it.
 */
void url_cache_name(const struct url *url, char ret[256]);

#endif
