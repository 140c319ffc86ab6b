// SPDX-License-Identifier: Apache-2.0
#include "core/parse.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "core/cleanup.h"
#include "core/clock.h"

/* Digits at *@text into *@ret; moves *@text behind them. */
static int digits(const char **text, uint64_t *ret)
{
	const char *p = *text;
	uint64_t v = 0;

	if (*p < '0' || *p > '9')
		return -EINVAL;
	for (; *p >= '0' && *p <= '9'; p++)
		if (__builtin_mul_overflow(v, 10u, &v) ||
		    __builtin_add_overflow(v, (uint64_t)(*p - '0'), &v))
			return -ERANGE;
	*text = p;
	*ret = v;
	return 0;
}

int parse_u64(const char *text, uint64_t *ret)
{
	uint64_t v;
	int r = digits(&text, &v);

	if (r < 0)
		return r;
	if (*text)
		return -EINVAL;
	*ret = v;
	return 0;
}

struct suffix {
	const char *text;
	uint64_t factor;
};

static const struct suffix *find_suffix(const struct suffix *table, size_t n, const char *text)
{
	for (size_t i = 0; i < n; i++)
		if (strcasecmp(table[i].text, text) == 0)
			return &table[i];
	return NULL;
}

static int size_with(const char *text, const char *tail, uint64_t *ret)
{
	static const struct suffix table[] = {
		{ "", 1 },
		{ "K", 1ull << 10 },
		{ "M", 1ull << 20 },
		{ "G", 1ull << 30 },
		{ "T", 1ull << 40 },
		{ "P", 1ull << 50 },
		{ "KiB", 1ull << 10 },
		{ "MiB", 1ull << 20 },
		{ "GiB", 1ull << 30 },
		{ "TiB", 1ull << 40 },
		{ "PiB", 1ull << 50 },
	};
	const struct suffix *s;
	char unit[8];
	uint64_t v;
	size_t n;
	int r = digits(&text, &v);

	if (r < 0)
		return r;
	n = strlen(text);
	if (n >= strlen(tail) && strcmp(text + n - strlen(tail), tail) == 0)
		n -= strlen(tail);
	if (n >= sizeof(unit))
		return -EINVAL;
	memcpy(unit, text, n);
	unit[n] = '\0';
	s = find_suffix(table, ARRAY_SIZE(table), unit);
	if (!s)
		return -EINVAL;
	if (__builtin_mul_overflow(v, s->factor, &v))
		return -ERANGE;
	*ret = v;
	return 0;
}

int parse_size(const char *text, uint64_t *ret_bytes)
{
	return size_with(text, "", ret_bytes);
}

int parse_rate(const char *text, uint64_t *ret_bytes_per_s)
{
	return size_with(text, "/s", ret_bytes_per_s);
}

int parse_duration(const char *text, uint64_t *ret_ns)
{
	static const struct suffix table[] = {
		{ "", NSEC_PER_SEC },    { "s", NSEC_PER_SEC },        { "ms", NSEC_PER_MSEC },
		{ "us", NSEC_PER_USEC }, { "min", 60 * NSEC_PER_SEC }, { "h", 3600 * NSEC_PER_SEC },
	};
	uint64_t whole, part = 0, scale = 1, ns;
	const struct suffix *s;
	int r = digits(&text, &whole);

	if (r < 0)
		return r;
	if (*text == '.') {
		const char *from = ++text;

		r = digits(&text, &part);
		if (r < 0 || text - from > 9)
			return -EINVAL;
		for (; from < text; from++)
			scale *= 10;
	}
	s = find_suffix(table, ARRAY_SIZE(table), text);
	if (!s)
		return -EINVAL;
	if (__builtin_mul_overflow(whole, s->factor, &ns) ||
	    __builtin_add_overflow(ns, (uint64_t)((unsigned __int128)part * s->factor / scale),
				   &ns))
		return -ERANGE;
	*ret_ns = ns;
	return 0;
}

int parse_mode(const char *text, uint32_t *ret_mode)
{
	size_t n = strlen(text);
	uint32_t v = 0;

	if (n < 1 || n > 4)
		return -EINVAL;
	for (; *text; text++) {
		if (*text < '0' || *text > '7')
			return -EINVAL;
		v = v * 8 + (uint32_t)(*text - '0');
	}
	if (v > 0777)
		return -EINVAL;
	*ret_mode = v;
	return 0;
}

const char *format_size(uint64_t bytes, char buf[16])
{
	static const char *const unit[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
	uint64_t scale = 1;
	size_t u = 0;

	while (u + 1 < ARRAY_SIZE(unit) && bytes / scale >= 1024) {
		scale *= 1024;
		u++;
	}
	if (u == 0 || bytes / scale >= 100 || bytes % scale == 0)
		snprintf(buf, 16, "%" PRIu64 " %s", bytes / scale, unit[u]);
	else
		snprintf(buf, 16, "%.1f %s", (double)bytes / (double)scale, unit[u]);
	return buf;
}

const char *format_duration(uint64_t ns, char buf[24])
{
	uint64_t s = ns / NSEC_PER_SEC;

	if (ns < NSEC_PER_SEC)
		snprintf(buf, 24, "%u ms", (unsigned)(ns / NSEC_PER_MSEC));
	else if (s < 60)
		snprintf(buf, 24, "%.1f s", (double)ns / 1e9);
	else if (s < 3600)
		snprintf(buf, 24, "%u min %u s", (unsigned)(s / 60), (unsigned)(s % 60));
	else
		snprintf(buf, 24, "%" PRIu64 " h %u min", s / 3600, (unsigned)(s / 60 % 60));
	return buf;
}
