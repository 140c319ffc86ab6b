// SPDX-License-Identifier: Apache-2.0
#include "cmd/offline.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cache/lio.h"
#include "cache/verify.h"
#include "cmd/owner.h"
#include "cmd/place.h"
#include "cmd/report.h"

int offline_identify(const char *dir, struct err *err)
{
	static const char *const name[] = { "identity.a", "identity.b" };
	char path[PATH_MAX + 16];
	int r = access(dir, F_OK) < 0 ? -errno : 0;

	if (r < 0)
		return err_set(err, r, "%s: %s", dir, strerror(-r));
	for (unsigned i = 0; i < 2; i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, name[i]);
		if (access(path, R_OK | W_OK) == 0)
			return 0;
		if (errno != ENOENT)
			r = -errno;
	}
	if (r < 0)
		return err_set(err, r, "%s: %s", dir, strerror(-r));
	return err_set(err, -ENOENT, "%s is no cache directory: it has no identity record", dir);
}

bool offline_is_damage(int result)
{
	return result == -EUCLEAN || result == -EBADMSG || result == -EIO;
}

int offline_look(const char *dir, struct offline *ret)
{
	struct lio *lio;
	int r = offline_identify(dir, NULL);

	if (r == 0)
		r = lio_posix_open(dir, 1, &lio, NULL);
	if (r < 0)
		return r;
	*ret = (struct offline){ .dirty_bytes = 0 };
	r = identity_load(lio, &ret->id, NULL);
	if (r == 0 && !ret->id.clean)
		r = cache_verify_dirty(lio, &ret->id, &ret->dirty_bytes, &ret->damaged, NULL);
	lio_destroy(lio);
	if (offline_is_damage(r)) {
		ret->damaged = true;
		ret->dirty_bytes = REPORT_UNKNOWN;
		r = 0;
	}
	return r < 0 ? r : ret->damaged || ret->dirty_bytes;
}

/* A directory whose lock is taken has a daemon; that one is asked over its socket. */
static int add(void *ctx, const char *dir)
{
	struct offline found;
	struct report report;

	if (offline_look(dir, &found) != 1)
		return 0;
	report_init(&report);
	report.cache_dir = dir;
	report.state = found.damaged ? "damaged" : found.id.overtaken ? "fenced" : "dirty";
	report.fenced = found.id.overtaken ? OWNER_OVERTAKEN : NULL;
	report.dirty_bytes = found.dirty_bytes;
	if (found.id.url[0]) {
		report.url = found.id.url;
		report.size_bytes = found.id.size_bytes;
		report.cache_limit_bytes = found.id.limit_bytes;
	}
	json_array_append_new(ctx, report_json(&report));
	return 0;
}

void offline_scan(json_t *list)
{
	place_each(add, list);
}
