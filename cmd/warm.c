// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cmd/cmd.h"
#include "cmd/progress.h"
#include "cmd/volume.h"
#include "core/cleanup.h"
#include "core/clock.h"
#include "core/parse.h"

static void show(const json_t *progress, char *text, size_t size)
{
	uint64_t done = volume_bytes(progress, "done_bytes");
	uint64_t total = volume_bytes(progress, "total_bytes");
	uint64_t rate = volume_bytes(progress, "bytes_per_second");
	char a[16], b[16], c[16], d[24] = "";

	if (rate && rate != UINT64_MAX && done <= total)
		format_duration(
			(uint64_t)((double)(total - done) / (double)rate * (double)NSEC_PER_SEC),
			d);
	snprintf(text, size, "%s of %s, %s/s%s%s%s", format_size(done, a), format_size(total, b),
		 format_size(rate == UINT64_MAX ? 0 : rate, c), *d ? ", " : "", d,
		 *d ? " to go" : "");
}

/* "OFFSET+LENGTH" → [offset, length]. NULL with @err. */
static json_t *parse_range(const char *text, struct err *err)
{
	const char *plus = strchr(text, '+');
	cleanup_free char *first = plus ? strndup(text, (size_t)(plus - text)) : NULL;
	uint64_t offset, length;

	if (!first || parse_size(first, &offset) < 0 || parse_size(plus + 1, &length) < 0 ||
	    length == 0 || offset > INT64_MAX || length > INT64_MAX) {
		err_set(err, -EINVAL,
			"--range %s: not OFFSET+LENGTH, two sizes as in 8M+64M, the second not 0",
			text);
		return NULL;
	}
	return json_pack("[I, I]", (json_int_t)offset, (json_int_t)length);
}

static int report(struct volume *v, enum job_end end, const json_t *last, const struct err *err)
{
	uint64_t present = volume_bytes(last, "present_bytes");
	uint64_t total = volume_bytes(last, "total_bytes");
	char a[16], b[16];

	if (end != JOB_DONE)
		return volume_not_done(v, end, last, err, false, "");
	if (present < total)
		printf("%s: %s of %s are in the cache; %s do not fit (see --cache-size)\n",
		       v->mountpoint, format_size(present, a), format_size(total, b),
		       format_size(total - present, (char[16]){ 0 }));
	else
		printf("%s: %s are in the cache\n", v->mountpoint, format_size(total, a));
	return EXIT_DONE;
}

int cmd_warm(struct option_set *set)
{
	const struct option_value *ranges = &set->value[OPT_RANGE];
	struct err err = { .text = "" };
	json_t *list = json_array(), *request, *last = NULL;
	struct volume v;
	enum job_end end;
	int r;

	if (ranges->given && set->value[OPT_ALL].given) {
		json_decref(list);
		return cmd_usage(set, "--all and --range exclude each other");
	}
	for (size_t i = 0; i < ranges->count; i++) {
		json_t *one = parse_range(ranges->list[i], &err);

		if (!one) {
			json_decref(list);
			return cmd_usage(set, "%s", err.text);
		}
		json_array_append_new(list, one);
	}
	r = volume_find(set->operand[0], &v, &err);
	if (r < 0) {
		json_decref(list);
		return cmd_fail("%s", err.text);
	}
	interrupt_catch();
	/* No "ranges" means all of it. */
	request = json_pack("{s:s}", "kind", "warm");
	if (ranges->given)
		json_object_set(request, "ranges", list);
	json_decref(list);
	end = volume_job(&v, request, UINT64_MAX, show, &last, &err);
	r = report(&v, end, last, &err);
	json_decref(last);
	volume_close(&v);
	return r;
}
