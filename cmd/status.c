// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/cmd.h"
#include "cmd/offline.h"
#include "cmd/volume.h"
#include "core/cleanup.h"
#include "core/clock.h"
#include "core/parse.h"

#define CELL 64

/* ---- values as people read them; "-" is unknown ---- */

static const char *text_of(const json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));

	return s ? s : "-";
}

static const char *size_of(const json_t *o, const char *key, char buf[CELL])
{
	char size[16];
	uint64_t v = volume_bytes(o, key);

	snprintf(buf, CELL, "%s", v == UINT64_MAX ? "-" : format_size(v, size));
	return buf;
}

static const char *span_of(const json_t *o, const char *key, char buf[CELL])
{
	json_t *v = json_object_get(o, key);
	char span[24];

	if (!json_is_number(v))
		snprintf(buf, CELL, "-");
	else
		snprintf(buf, CELL, "%s",
			 format_duration((uint64_t)(json_number_value(v) * (double)NSEC_PER_SEC),
					 span));
	return buf;
}

/* ---- one volume ---- */

static void line(const char *label, const char *value)
{
	printf("%-14s %s\n", label, value);
}

static void print_dirty(const json_t *o)
{
	char a[CELL], b[CELL], text[4 * CELL];
	json_t *epochs = json_object_get(o, "epochs_pending");
	int n = snprintf(text, sizeof(text), "%s", size_of(o, "dirty_bytes", a));

	if (json_integer_value(epochs) > 0)
		n += snprintf(text + n, sizeof(text) - (size_t)n, " in %lld epoch%s",
			      (long long)json_integer_value(epochs),
			      json_integer_value(epochs) == 1 ? "" : "s");
	if (json_is_number(json_object_get(o, "oldest_dirty_seconds")))
		n += snprintf(text + n, sizeof(text) - (size_t)n, ", the oldest from %s ago",
			      span_of(o, "oldest_dirty_seconds", b));
	if (json_is_number(json_object_get(o, "drain_eta_seconds")))
		snprintf(text + n, sizeof(text) - (size_t)n, ", %s to go",
			 span_of(o, "drain_eta_seconds", b));
	line("dirty", text);
}

static void print_sessions(const json_t *o)
{
	json_t *list = json_object_get(o, "sessions"), *s;
	size_t i;

	json_array_foreach(list, i, s)
	{
		char rtt[CELL], flight[CELL], text[6 * CELL];

		snprintf(text, sizeof(text), "%s %s, RTT %s, %s in flight, %lld reconnects",
			 text_of(s, "portal"), text_of(s, "state"), span_of(s, "rtt_seconds", rtt),
			 size_of(s, "in_flight_bytes", flight),
			 (long long)json_integer_value(json_object_get(s, "reconnects")));
		line(i ? "" : "sessions", text);
	}
}

static void print_damage(const json_t *o)
{
	json_t *list = json_object_get(o, "damaged_ranges"), *d;
	size_t i;

	json_array_foreach(list, i, d)
	{
		char size[CELL], text[3 * CELL];

		snprintf(text, sizeof(text), "%s at %" PRIu64 "+%" PRIu64,
			 size_of(d, "length", size), volume_bytes(d, "offset"),
			 volume_bytes(d, "length"));
		line(i ? "" : "damaged", text);
	}
}

static void print_one(const json_t *o)
{
	char a[CELL], b[CELL], c[CELL], text[4 * CELL];
	bool read_only = json_is_true(json_object_get(o, "read_only"));

	line("mountpoint", text_of(o, "mountpoint"));
	line("url", text_of(o, "url"));
	snprintf(text, sizeof(text), "%s%s", text_of(o, "state"), read_only ? ", read-only" : "");
	line("state", text);
	if (json_is_string(json_object_get(o, "fenced")))
		line("", text_of(o, "fenced"));
	line("size", size_of(o, "size_bytes", a));
	print_dirty(o);
	print_damage(o);
	if (json_is_string(json_object_get(o, "throttled_by")))
		line("writers wait", text_of(o, "throttled_by"));
	snprintf(text, sizeof(text), "%s%s", text_of(o, "far_as_of"),
		 json_is_false(json_object_get(o, "far_consistent"))
			 ? "; not consistent now: merged epochs are being sent"
			 : "");
	line("far as of", text);
	snprintf(text, sizeof(text), "%s of the volume; %s used of at most %s",
		 size_of(o, "cached_bytes", a), size_of(o, "cache_used_bytes", b),
		 size_of(o, "cache_limit_bytes", c));
	line("cached", text);
	snprintf(text, sizeof(text), "%s from the cache, %s from the target",
		 size_of(o, "hit_bytes", a), size_of(o, "miss_bytes", b));
	line("reads", text);
	snprintf(text, sizeof(text), "%s, of which %s were of no use",
		 size_of(o, "readahead_bytes", a), size_of(o, "readahead_wasted_bytes", b));
	line("read ahead", text);
	snprintf(text, sizeof(text), "%s read, %s written", size_of(o, "target_read_bytes", a),
		 size_of(o, "target_write_bytes", b));
	line("target", text);
	print_sessions(o);
	line("cache dir", text_of(o, "cache_dir"));
	if (json_is_integer(json_object_get(o, "pid"))) {
		snprintf(text, sizeof(text), "pid %lld, up %s",
			 (long long)json_integer_value(json_object_get(o, "pid")),
			 span_of(o, "uptime_seconds", a));
		line("daemon", text);
	}
}

/* ---- all volumes ---- */

#define COLUMNS 7

struct row {
	char cell[COLUMNS][PATH_MAX];
};

static void fill_row(struct row *row, const json_t *o)
{
	char text[CELL];

	snprintf(row->cell[0], PATH_MAX, "%s", text_of(o, "mountpoint"));
	snprintf(row->cell[1], PATH_MAX, "%s", text_of(o, "state"));
	snprintf(row->cell[2], PATH_MAX, "%s", size_of(o, "size_bytes", text));
	snprintf(row->cell[3], PATH_MAX, "%s", size_of(o, "cached_bytes", text));
	snprintf(row->cell[4], PATH_MAX, "%s", size_of(o, "dirty_bytes", text));
	snprintf(row->cell[5], PATH_MAX, "%s", span_of(o, "drain_eta_seconds", text));
	/* An unmounted volume is found by its directory. */
	snprintf(row->cell[6], PATH_MAX, "%s",
		 json_is_string(json_object_get(o, "mountpoint")) ? text_of(o, "url")
								  : text_of(o, "cache_dir"));
}

static int print_table(const json_t *list)
{
	static const char *const head[COLUMNS] = { "MOUNTPOINT", "STATE", "SIZE",  "CACHED",
						   "DIRTY",      "TO GO", "VOLUME" };
	static const bool right[COLUMNS] = { false, false, true, true, true, true, false };
	size_t rows = json_array_size(list) + 1;
	cleanup_free struct row *row = calloc(rows, sizeof(*row));
	int width[COLUMNS] = { 0 };

	if (!row)
		return cmd_fail("out of memory");
	for (int c = 0; c < COLUMNS; c++)
		strcpy(row[0].cell[c], head[c]);
	for (size_t i = 1; i < rows; i++)
		fill_row(&row[i], json_array_get(list, i - 1));
	for (size_t i = 0; i < rows; i++)
		for (int c = 0; c < COLUMNS; c++)
			width[c] = MAX(width[c], (int)strlen(row[i].cell[c]));
	for (size_t i = 0; i < rows; i++)
		for (int c = 0; c < COLUMNS; c++)
			printf("%*s%s",
			       c == COLUMNS - 1 ? 0
			       : right[c]       ? width[c]
						: -width[c],
			       row[i].cell[c], c == COLUMNS - 1 ? "\n" : "  ");
	return EXIT_DONE;
}

static int print_json(const json_t *value)
{
	cleanup_free char *text = json_dumps(value, JSON_INDENT(2) | JSON_REAL_PRECISION(12));

	if (!text)
		return cmd_fail("out of memory");
	puts(text);
	return EXIT_DONE;
}

struct found {
	json_t *list;
	bool silent; /* one did not answer */
};

static int ask(void *ctx, struct volume *v)
{
	struct found *found = ctx;
	struct err err = { .text = "" };
	json_t *status;
	int r = control_call(v->client, "GET", "/v1/status", NULL, &status, &err);

	if (r == 0) {
		json_array_append_new(found->list, status);
	} else if (r != -ECONNREFUSED && r != -ECONNRESET) { /* else it has just ended */
		cmd_fail("%s: %s", v->mountpoint, err.text);
		found->silent = true;
	}
	return 0;
}

static int status_all(bool json)
{
	struct found found = { .list = json_array() };
	int r;

	if (volume_each(ask, &found) < 0)
		found.silent = true;
	offline_scan(found.list);
	if (json)
		r = print_json(found.list);
	else if (json_array_size(found.list) == 0)
		r = puts("no volumes") < 0 ? EXIT_FAILED : EXIT_DONE;
	else
		r = print_table(found.list);
	json_decref(found.list);
	return found.silent ? EXIT_FAILED : r;
}

static int status_one(const char *mountpoint, bool json)
{
	struct err err = { .text = "" };
	json_t *status;
	struct volume v;
	int r = volume_find(mountpoint, &v, &err);

	if (r < 0)
		return cmd_fail("%s", err.text);
	r = control_call(v.client, "GET", "/v1/status", NULL, &status, &err);
	volume_close(&v);
	if (r < 0)
		return cmd_fail("%s: %s", mountpoint, err.text);
	r = EXIT_DONE;
	if (json)
		r = print_json(status);
	else
		print_one(status);
	json_decref(status);
	return r;
}

int cmd_status(struct option_set *set)
{
	bool json = set->value[OPT_JSON].number;

	return set->operands ? status_one(set->operand[0], json) : status_all(json);
}
