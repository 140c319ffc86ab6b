// SPDX-License-Identifier: Apache-2.0
/* Pieces of volume URLs: what url.c is made of. Pure; any thread. */
#ifndef TRANSPORT_URL_PART_H
#define TRANSPORT_URL_PART_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/err.h"

#define ISCSI_NAME_MAX 223 /* bytes (RFC 7143 4.2.7.1) */

/* A piece of the text being parsed. */
struct part {
	const char *at;
	size_t length;
};

#define URL_QUOTE_MAX 80

/* A part as it may stand in a message: cut, and with nothing that a terminal would act on. */
struct quoted {
	char text[URL_QUOTE_MAX + 4];
};

/* By value, so that it can stand in an argument list: url_quote(part).text. */
struct quoted url_quote(struct part part);

/* ASCII, whatever the locale. */
static inline bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static inline bool is_alnum(char c)
{
	return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/*
 * "host", "host:port", "[v6]" or "[v6]:port", whole. *@ret_host gets the lower-case name, the IPv4
 * address, or the IPv6 address without brackets, in canonical form, with "%zone" if there was one;
 * @max is its size. *@ret_port is left alone where there is none. 0, or -EINVAL with @err.
 */
int url_parse_host_port(struct part part, char *ret_host, size_t max, uint16_t *ret_port,
			struct err *err);

#endif
