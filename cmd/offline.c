// SPDX-License-Identifier: Apache-2.0
#include "cmd/offline.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <unistd.h>

#include "cache/identity.h"
#include "cache/lio.h"
#include "cache/verify.h"
#include "cmd/place.h"
#include "cmd/report.h"

/* Something was mounted from here once; the directory of something else is left alone. */
static bool has_identity(const char *dir)
{
	static const char *const name[] = { "identity.a", "identity.b" };
	char path[PATH_MAX + 16];

	for (unsigned i = 0; i < 2; i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, name[i]);
		if (access(path, R_OK | W_OK) == 0)
			return true;
	}
	return false;
}

int offline_look(const char *dir, struct cache_identity *ret, uint64_t *ret_dirty)
{
	struct lio *lio;
	int r;

	if (!has_identity(dir))
		return -ENOENT;
	r = lio_posix_open(dir, 1, &lio, NULL);
	if (r < 0)
		return r;
	r = identity_load(lio, ret, NULL);
	*ret_dirty = REPORT_UNKNOWN;
	if (r == 0 && !ret->clean && cache_verify_dirty(lio, ret, ret_dirty, NULL) < 0)
		*ret_dirty = REPORT_UNKNOWN;
	lio_destroy(lio);
	return r < 0 ? r : !ret->clean;
}

/* A directory whose lock is taken has a daemon; that one is asked over its socket. */
static int add(void *ctx, const char *dir)
{
	struct cache_identity id;
	struct report report;
	uint64_t dirty;

	if (offline_look(dir, &id, &dirty) != 1)
		return 0;
	report_init(&report);
	report.url = id.url;
	report.cache_dir = dir;
	report.state = "dirty";
	report.size_bytes = id.size_bytes;
	report.cache_limit_bytes = id.limit_bytes;
	report.dirty_bytes = dirty;
	json_array_append_new(ctx, report_json(&report));
	return 0;
}

void offline_scan(json_t *list)
{
	place_each(add, list);
}
