// SPDX-License-Identifier: Apache-2.0
#include "core/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int err_set(struct err *err, int code, const char *fmt, ...)
{
	char text[sizeof(err->text)];
	va_list ap;

	if (!err)
		return code;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	memcpy(err->text, text, sizeof(text));
	return code;
}

int err_prefix(struct err *err, int code, const char *fmt, ...)
{
	char text[sizeof(err->text)];
	va_list ap;
	int n;

	if (!err)
		return code;
	va_start(ap, fmt);
	n = vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (n >= 0 && (size_t)n + 3 < sizeof(text)) {
		memcpy(text + n, ": ", 2);
		n += 2;
		memcpy(text + n, err->text, sizeof(text) - (size_t)n);
		text[sizeof(text) - 1] = '\0';
	}
	memcpy(err->text, text, sizeof(text));
	return code;
}
