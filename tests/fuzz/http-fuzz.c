// SPDX-License-Identifier: Apache-2.0
/*
 * The header of an origin's answer, line by line, and what is made of it:
 *
 *	u8 flags (1: a version is pinned, 2: by ETag), u64 first byte asked for, u16 their number
 *	less one, u64 size pinned, then the lines
 *
 * What is believed (HTTP_GOOD) is looked for in the lines by a second, simpler reader.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#include "core/cleanup.h"
#include "tests/fuzz/fuzz.h"
#include "transport/http_answer.h"

#define ETAG "\"v1\""

const unsigned fuzz_runs = 100000;

/* What counts of the header: the lines behind the last status line. */
struct header {
	unsigned status;
	unsigned ranges;
	char range[128]; /* the value of the last Content-Range */
};

/* @line is without blanks at its end. */
static void read_line(struct header *h, const char *line)
{
	const char *value;

	if (strncasecmp(line, "HTTP/", 5) == 0) {
		*h = (struct header){ .status = 0 };
		value = strchr(line, ' ');
		if (value)
			h->status = (unsigned)strtoul(value + 1, NULL, 10);
	} else if (strncasecmp(line, "Content-Range:", 14) == 0) {
		value = line + 14 + strspn(line + 14, " \t");
		h->ranges++;
		snprintf(h->range, sizeof(h->range), "%s", value);
	}
}

static void check_text(const char text[HTTP_VALIDATOR_MAX])
{
	size_t n = strnlen(text, HTTP_VALIDATOR_MAX);

	fuzz_check(n < HTTP_VALIDATOR_MAX);
	for (size_t i = 0; i < n; i++)
		fuzz_check(text[i] >= 0x20 && text[i] <= 0x7e);
}

static void check_answer(const struct http_answer *a)
{
	check_text(a->etag);
	check_text(a->modified);
	fuzz_check(a->status <= 999);
	if (a->fault)
		return;
	fuzz_check(!a->has_range || a->first <= a->last);
	fuzz_check(!a->has_range || !a->has_total || a->last < a->total);
}

static void check_good(const struct http_answer *a, const struct http_pin *pin, uint64_t first,
		       uint64_t last, const struct header *h)
{
	char want[128];

	fuzz_check(a->status == 206 && !a->fault && a->complete);
	fuzz_check(a->has_range && a->first == first && a->last == last);
	fuzz_check(a->has_total && last < a->total);
	fuzz_check(!a->has_length || a->length == last - first + 1);
	if (pin) {
		fuzz_check(a->total == pin->size_bytes);
		fuzz_check(!pin->etag[0] || !strcmp(a->etag, pin->etag));
	}
	fuzz_check(h->status == 206 && h->ranges == 1);
	/* Leading zeroes are digits too. */
	snprintf(want, sizeof(want), "bytes %llu-%llu/%llu", (unsigned long long)first,
		 (unsigned long long)last, (unsigned long long)a->total);
	fuzz_check(strlen(h->range) >= strlen(want));
	if (strlen(h->range) == strlen(want))
		fuzz_check(strcasecmp(h->range, want) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = { data, size };
	unsigned flags = (unsigned)fuzz_take(&in, 1);
	uint64_t first = fuzz_take(&in, 8) >> 1, last = first + fuzz_take(&in, 2);
	struct http_pin pin = { .size_bytes = fuzz_take(&in, 8), .modified = "yesterday" };
	const struct http_pin *pinned = flags & 1 ? &pin : NULL;
	struct header h = { .status = 0 };
	struct http_answer a;
	const char *why = NULL;
	bool strange = false; /* a line with a NUL in it is for the first reader alone */
	enum http_verdict v;

	if (flags & 2)
		strcpy(pin.etag, ETAG);
	http_answer_begin(&a);
	while (in.left) {
		const uint8_t *eol = memchr(in.at, '\n', in.left);
		size_t length, n;
		const uint8_t *at =
			fuzz_take_bytes(&in, eol ? (size_t)(eol - in.at) + 1 : in.left, &length);
		cleanup_free char *copy = fuzz_alloc(length), *line = fuzz_text(at, length);

		memcpy(copy, at, length);
		if (!http_answer_line(&a, copy, length))
			return 0;
		n = length;
		while (n && line[n - 1] && strchr("\r\n \t", line[n - 1]))
			line[--n] = '\0';
		strange |= strlen(line) != n;
		read_line(&h, line);
	}
	check_answer(&a);
	v = http_answer_judge(&a, pinned, first, last, &why);
	fuzz_check(why && *why);
	if (v == HTTP_GOOD && !strange && a.complete)
		check_good(&a, pinned, first, last, &h);
	fuzz_check(v != HTTP_CHANGED || pinned);
	return 0;
}

static void put(unsigned flags, uint64_t first, uint64_t length, uint64_t size, const char *lines)
{
	struct fuzz_output out = { 0 };

	fuzz_put(&out, flags, 1);
	fuzz_put(&out, first << 1, 8);
	fuzz_put(&out, length - 1, 2);
	fuzz_put(&out, size, 8);
	fuzz_put_bytes(&out, lines, strlen(lines));
	fuzz_put_seed(&out);
}

void fuzz_seeds(void)
{
	static const char whole[] =
		"HTTP/1.1 206 Partial Content\r\n"
		"Content-Range: bytes 4096-8191/65536\r\n"
		"Content-Length: 4096\r\nETag: " ETAG "\r\n"
		"Last-Modified: yesterday\r\nContent-Encoding: identity\r\n\r\n";

	put(0, 4096, 4096, 0, whole);
	put(1, 4096, 4096, 65536, whole);
	put(3, 4096, 4096, 65536, whole);
	put(3, 4096, 4096, 65536,
	    "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 206 \r\n"
	    "content-range:bytes 4096-8191/65536\r\netag: W/" ETAG "\r\n\r\n");
	put(3, 4096, 4096, 65536,
	    "HTTP/1.1 206 x\r\nContent-Range: bytes 4096-8191/65536\r\n"
	    "Content-Range: bytes 4096-8191/65536\r\nETag: " ETAG "\r\nETag: \"v2\"\r\n\r\n");
	put(1, 4096, 4096, 65536, "HTTP/1.1 416 x\r\nContent-Range: bytes */4096\r\n\r\n");
	put(0, 0, 1, 0, "HTTP/1.1 206 x\r\nContent-Range: bytes 0-0/*\r\n\r\n");
	put(1, 0, 1, 9, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n");
	put(0, 0, 1, 0, "HTTP/1.1 503 x\r\nRetry-After: 7\r\n\r\n");
}
