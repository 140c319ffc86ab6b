// SPDX-License-Identifier: Apache-2.0
#include "cmd/report.h"

#include <stdio.h>
#include <time.h>

#include "core/clock.h"

void report_init(struct report *r)
{
	*r = (struct report){
		.pid = REPORT_UNKNOWN,
		.uptime_ns = REPORT_UNKNOWN,
		.read_only = -1,
		.size_bytes = REPORT_UNKNOWN,
		.cache_limit_bytes = REPORT_UNKNOWN,
		.cache_used_bytes = REPORT_UNKNOWN,
		.cached_bytes = REPORT_UNKNOWN,
		.max_dirty_bytes = REPORT_UNKNOWN,
		.dirty_bytes = REPORT_UNKNOWN,
		.epochs_pending = REPORT_UNKNOWN,
		.oldest_dirty_ns = REPORT_UNKNOWN,
		.drain_eta_ns = REPORT_UNKNOWN,
		.far_as_of_ns = REPORT_UNKNOWN,
		.hit_bytes = REPORT_UNKNOWN,
		.miss_bytes = REPORT_UNKNOWN,
		.target_read_bytes = REPORT_UNKNOWN,
		.target_write_bytes = REPORT_UNKNOWN,
		.readahead_bytes = REPORT_UNKNOWN,
		.readahead_wasted_bytes = REPORT_UNKNOWN,
	};
}

static json_t *text(const char *s)
{
	return s ? json_string(s) : json_null();
}

static json_t *number(uint64_t v)
{
	return v == REPORT_UNKNOWN ? json_null() : json_integer((json_int_t)v);
}

static json_t *seconds(uint64_t ns)
{
	return ns == REPORT_UNKNOWN ? json_null() : json_real((double)ns / (double)NSEC_PER_SEC);
}

/* RFC 3339 5.6, UTC, milliseconds. */
static json_t *moment(uint64_t ns)
{
	time_t t = (time_t)(ns / NSEC_PER_SEC);
	char date[32], whole[48];
	struct tm tm;

	if (ns == REPORT_UNKNOWN || !gmtime_r(&t, &tm))
		return json_null();
	strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(whole, sizeof(whole), "%s.%03uZ", date,
		 (unsigned)(ns % NSEC_PER_SEC / NSEC_PER_MSEC));
	return json_string(whole);
}

static json_t *sessions(const struct report *r)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < r->sessions; i++) {
		const struct blk_session *s = &r->session[i];

		json_array_append_new(list,
				      json_pack("{s:s, s:s, s:o, s:I, s:I}", "portal", s->portal,
						"state", s->state, "rtt_seconds",
						seconds(s->rtt_ns ? s->rtt_ns : REPORT_UNKNOWN),
						"in_flight_bytes", (json_int_t)s->in_flight_bytes,
						"reconnects", (json_int_t)s->reconnects));
	}
	return list;
}

static json_t *damaged_ranges(const struct report *r)
{
	json_t *list = r->damage ? json_array() : json_null();

	for (unsigned i = 0; i < r->damages; i++)
		json_array_append_new(list, json_pack("{s:I, s:I}", "offset",
						      (json_int_t)r->damage[i].offset, "length",
						      (json_int_t)r->damage[i].length));
	return list;
}

json_t *report_json(const struct report *r)
{
	json_t *o = json_object();

	json_object_set_new(o, "version", json_string(PACKAGE_VERSION));
	json_object_set_new(o, "url", text(r->url));
	json_object_set_new(o, "mountpoint", text(r->mountpoint));
	json_object_set_new(o, "cache_dir", text(r->cache_dir));
	json_object_set_new(o, "pid", number(r->pid));
	json_object_set_new(o, "uptime_seconds", seconds(r->uptime_ns));
	json_object_set_new(o, "read_only",
			    r->read_only < 0 ? json_null() : json_boolean(r->read_only));
	json_object_set_new(o, "state", text(r->state));
	json_object_set_new(o, "fenced", text(r->fenced));
	json_object_set_new(o, "reserved",
			    r->reserved == BLK_RESERVED_UNKNOWN
				    ? json_null()
				    : json_boolean(r->reserved == BLK_RESERVED_YES));
	json_object_set_new(o, "size_bytes", number(r->size_bytes));
	json_object_set_new(o, "cache_limit_bytes", number(r->cache_limit_bytes));
	json_object_set_new(o, "cache_used_bytes", number(r->cache_used_bytes));
	json_object_set_new(o, "cached_bytes", number(r->cached_bytes));
	json_object_set_new(o, "max_dirty_bytes", number(r->max_dirty_bytes));
	json_object_set_new(o, "dirty_bytes", number(r->dirty_bytes));
	json_object_set_new(o, "epochs_pending", number(r->epochs_pending));
	json_object_set_new(o, "oldest_dirty_seconds", seconds(r->oldest_dirty_ns));
	json_object_set_new(o, "drain_eta_seconds", seconds(r->drain_eta_ns));
	json_object_set_new(o, "far_as_of", moment(r->far_as_of_ns));
	json_object_set_new(o, "damaged_ranges", damaged_ranges(r));
	json_object_set_new(o, "hit_bytes", number(r->hit_bytes));
	json_object_set_new(o, "miss_bytes", number(r->miss_bytes));
	json_object_set_new(o, "target_read_bytes", number(r->target_read_bytes));
	json_object_set_new(o, "target_write_bytes", number(r->target_write_bytes));
	json_object_set_new(o, "readahead_bytes", number(r->readahead_bytes));
	json_object_set_new(o, "readahead_wasted_bytes", number(r->readahead_wasted_bytes));
	json_object_set_new(o, "sessions", sessions(r));
	return o;
}
