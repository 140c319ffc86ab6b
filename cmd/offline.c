// SPDX-License-Identifier: Apache-2.0
#include "cmd/offline.h"

#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <unistd.h>

#include "cache/identity.h"
#include "cache/lio.h"
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

static int look(void *ctx, const char *dir)
{
	struct cache_identity id;
	struct report report;
	struct lio *lio;

	/* A directory whose lock is taken has a daemon; that one is asked over its socket. */
	if (!has_identity(dir) || lio_posix_open(dir, 1, &lio, NULL) < 0)
		return 0;
	if (identity_load(lio, &id, NULL) == 0 && !id.clean) {
		report_init(&report);
		report.url = id.url;
		report.cache_dir = dir;
		report.state = "dirty";
		report.size_bytes = id.size_bytes;
		report.cache_limit_bytes = id.limit_bytes;
		json_array_append_new(ctx, report_json(&report));
	}
	lio_destroy(lio);
	return 0;
}

void offline_scan(json_t *list)
{
	place_each(look, list);
}
