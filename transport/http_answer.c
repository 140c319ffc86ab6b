// SPDX-License-Identifier: Apache-2.0
/*
 * Everything here takes the side of doubt: a header that comes twice with different values, cannot
 * be parsed or contradicts another makes the answer unusable. An image with some wrong bytes is
 * worse than none.
 */
#include "transport/http_answer.h"

#include <string.h>
#include <strings.h>

#include "core/cleanup.h"

#define HEADER_MAX_BYTES (256u << 10)

void http_answer_begin(struct http_answer *a)
{
	*a = (struct http_answer){ .status = 0 };
}

/* Decimal digits at *@text, moved behind them. False: none, or too many for 64 bits. */
static bool number(const char **text, const char *end, uint64_t *ret)
{
	const char *p = *text;
	uint64_t v = 0;

	for (; p < end && *p >= '0' && *p <= '9'; p++)
		if (__builtin_mul_overflow(v, 10u, &v) ||
		    __builtin_add_overflow(v, (uint64_t)(*p - '0'), &v))
			return false;
	if (p == *text)
		return false;
	*text = p;
	*ret = v;
	return true;
}

/* "bytes FIRST-LAST/TOTAL", with '*' for the total or, in a 416, for the range (RFC 9110 14.4). */
static bool parse_range(struct http_answer *a, const char *p, const char *end)
{
	if (end - p < 6 || strncasecmp(p, "bytes ", 6) != 0)
		return false;
	p += 6;
	if (p < end && *p == '*') {
		p++;
	} else {
		if (!number(&p, end, &a->first) || p == end || *p++ != '-' ||
		    !number(&p, end, &a->last) || a->last < a->first)
			return false;
		a->has_range = true;
	}
	if (p == end || *p++ != '/')
		return false;
	if (end - p == 1 && *p == '*')
		return a->has_range;
	if (!number(&p, end, &a->total) || p != end || (a->has_range && a->last >= a->total))
		return false;
	a->has_total = true;
	return true;
}

/* Keep a validator; one that is odd or too long is as good as none. False: a second, other one. */
static bool keep(char to[HTTP_VALIDATOR_MAX], const char *value, size_t length)
{
	if (!length || length >= HTTP_VALIDATOR_MAX)
		return true;
	for (size_t i = 0; i < length; i++)
		if (value[i] < 0x20 || value[i] > 0x7e)
			return true;
	if (to[0])
		return strlen(to) == length && memcmp(to, value, length) == 0;
	memcpy(to, value, length);
	to[length] = '\0';
	return true;
}

static void fault(struct http_answer *a, const char *why)
{
	if (!a->fault)
		a->fault = why;
}

static void take(struct http_answer *a, const char *name, size_t name_length, const char *value,
		 size_t length)
{
	const char *end = value + length;

#define NAMED(text) (name_length == sizeof(text) - 1 && strncasecmp(name, text, name_length) == 0)
	if (NAMED("Content-Range")) {
		if (a->has_range || a->has_total)
			fault(a, "sent two Content-Range headers");
		else if (!parse_range(a, value, end))
			fault(a, "sent a Content-Range that makes no sense");
	} else if (NAMED("Content-Length")) {
		uint64_t n = 0;

		if (!number(&value, end, &n) || value != end || (a->has_length && n != a->length))
			fault(a, "sent a Content-Length that makes no sense");
		a->has_length = true;
		a->length = n;
	} else if (NAMED("Content-Encoding")) {
		if (length && !(length == 8 && strncasecmp(value, "identity", 8) == 0))
			fault(a, "sent the file in an encoding that was not asked for");
	} else if (NAMED("ETag")) {
		if (!keep(a->etag, value, length))
			fault(a, "sent two different ETags");
	} else if (NAMED("Last-Modified")) {
		if (!keep(a->modified, value, length))
			fault(a, "sent two different Last-Modified headers");
	}
#undef NAMED
}

bool http_answer_line(struct http_answer *a, const char *line, size_t length)
{
	size_t seen = a->header_bytes + length;
	const char *colon, *end = line + length, *value;

	if (seen > HEADER_MAX_BYTES)
		return false;
	while (end > line &&
	       (end[-1] == '\r' || end[-1] == '\n' || end[-1] == ' ' || end[-1] == '\t'))
		end--;
	if (end - line >= 5 && strncasecmp(line, "HTTP/", 5) == 0) {
		const char *p = memchr(line, ' ', (size_t)(end - line));
		uint64_t status = 0;

		http_answer_begin(a);
		if (p && ++p && number(&p, end, &status) && status <= 999)
			a->status = (unsigned)status;
	} else if (end == line) {
		a->complete = true;
	} else if ((colon = memchr(line, ':', (size_t)(end - line)))) {
		for (value = colon + 1; value < end && (*value == ' ' || *value == '\t');)
			value++;
		take(a, line, (size_t)(colon - line), value, (size_t)(end - value));
	}
	a->header_bytes = seen;
	return true;
}

bool http_etag_is_strong(const char *etag)
{
	return etag[0] == '"';
}

/* What the server holds is another version than @pin, as far as the answer's headers tell. */
static bool is_other_version(const struct http_answer *a, const struct http_pin *pin)
{
	if (a->has_total && a->total != pin->size_bytes)
		return true;
	if (pin->etag[0])
		return a->etag[0] && strcmp(a->etag, pin->etag) != 0;
	return pin->modified[0] && a->modified[0] && strcmp(a->modified, pin->modified) != 0;
}

static enum http_verdict judge_partial(const struct http_answer *a, const struct http_pin *pin,
				       uint64_t first, uint64_t last, const char **ret_why)
{
	enum http_verdict v = HTTP_BROKEN;

	if (a->fault)
		*ret_why = a->fault;
	else if (!a->has_range)
		*ret_why = "sent a part without saying which (no Content-Range)";
	else if (!a->has_total)
		*ret_why = "does not tell the file's size";
	else if (a->first != first || a->last != last)
		*ret_why = "sent another range than was asked for";
	else if (a->has_length && a->length != last - first + 1)
		*ret_why = "sent a Content-Length that contradicts its Content-Range";
	else if (pin && pin->etag[0] && !a->etag[0])
		*ret_why = "sent a part without the ETag that says of which version";
	else
		v = HTTP_GOOD;
	return v;
}

enum http_verdict http_answer_judge(const struct http_answer *a, const struct http_pin *pin,
				    uint64_t first, uint64_t last, const char **ret_why)
{
	*ret_why = "answered";
	switch (a->status) {
	case 206:
		if (pin && is_other_version(a, pin))
			break;
		return judge_partial(a, pin, first, last, ret_why);
	case 200:
		/* If-Range did not match, or ranges are not served (any more). */
		if (pin &&
		    (is_other_version(a, pin) || (a->has_length && a->length != pin->size_bytes)))
			break;
		*ret_why = "sent the whole file instead of the range that was asked for; it must "
			   "support byte ranges";
		return HTTP_BROKEN;
	case 416:
		if (pin && !(a->has_total && a->total == pin->size_bytes))
			break;
		*ret_why = "says that the file has no such range (416); is it empty?";
		return HTTP_BROKEN;
	case 401:
	case 407:
		*ret_why =
			"wants a user and password: use --credentials FILE (username=, password=)";
		return HTTP_BROKEN;
	case 403:
		*ret_why = "refuses access to this file (403)";
		return HTTP_BROKEN;
	case 404:
	case 410:
		*ret_why = "has no such file (404)";
		return HTTP_BROKEN;
	case 408:
	case 425:
	case 429:
		*ret_why = "asks to come back later";
		return HTTP_RETRY;
	default:
		if (a->status >= 500 && a->status <= 599) {
			*ret_why = "has trouble of its own (5xx)";
			return HTTP_RETRY;
		}
		*ret_why = "sent an answer that is none to a range request";
		return HTTP_BROKEN;
	}
	*ret_why = "has another version of the file now";
	return HTTP_CHANGED;
}
