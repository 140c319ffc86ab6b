// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cache/verify.h"
#include "cache/identity.h"
#include "cache/index.h"
#include "cache/lio.h"
#include "cmd/cmd.h"
#include "cmd/offline.h"
#include "cmd/place.h"
#include "core/parse.h"

#define LIO_THREADS 2

static void print_damage(void *ctx, const struct cache_damage *d)
{
	char size[16];

	(void)ctx;
	printf("damaged        %s at %" PRIu64 "+%" PRIu64 "%s\n", format_size(d->length, size),
	       d->offset, d->length,
	       d->dirty ? ": written here and never sent, lost" : ": the target has it");
}

static void print_size(const char *label, uint64_t bytes)
{
	char size[16];

	printf("%-14s %s (%" PRIu64 " bytes)\n", label, format_size(bytes, size), bytes);
}

/* The index holds nothing that is not in the segments: an empty one is filled at the next mount. */
static int throw_index_away(const char *dir, const struct cache_identity *id, struct err *err)
{
	struct index_store *index;
	char path[PATH_MAX + 8];
	int r;

	snprintf(path, sizeof(path), "%s/index", dir);
	r = index_rocksdb_open(path, id->cache_uuid, &index, err);
	if (r < 0)
		return r;
	r = index_wipe(index);
	index_destroy(index);
	if (r < 0)
		return err_set(err, r, "%s: cannot be emptied: %s", path, strerror(-r));
	puts("index          thrown away; the next mount makes it anew");
	return 0;
}

/* An exit status; or -errno with @err if the directory could not be read to its end. */
static int check(const char *dir, struct lio *lio, bool rebuild, struct err *err)
{
	struct cache_verify_result found;
	struct cache_identity id;
	int r = identity_load(lio, &id, err);

	if (r < 0)
		return r;
	printf("%-14s %s\n%-14s %s\n%-14s %s\n", "cache dir", dir, "url", id.url, "volume",
	       id.volume);
	print_size("size", id.size_bytes);
	r = cache_verify(lio, &id, print_damage, NULL, &found, err);
	if (r < 0)
		return r;
	if (rebuild && throw_index_away(dir, &id, err) < 0)
		return cmd_fail("%s", err->text);
	printf("%-14s %" PRIu64 " with %" PRIu64 " records\n", "segments", found.segments,
	       found.records);
	print_size("clean", found.clean_bytes);
	print_size("dirty", found.dirty_bytes);
	print_size("damaged", found.damaged_bytes);
	if (!found.damaged_bytes)
		return EXIT_DONE;
	print_size("lost", found.lost_bytes);
	return EXIT_LEFT;
}

int cmd_check(struct option_set *set)
{
	struct err err = { .text = "" };
	char dir[PATH_MAX];
	struct lio *lio;
	int r;

	if (!set->value[OPT_CACHE_DIR].given)
		return cmd_usage(set, "which directory? Say --cache-dir DIR");
	r = place_absolute(set->value[OPT_CACHE_DIR].text, dir, &err);
	/* Nothing is made in a directory that is somebody else's. */
	if (r == 0)
		r = offline_identify(dir, &err);
	if (r == 0)
		r = lio_posix_open(dir, LIO_THREADS, &lio, &err);
	if (r < 0)
		return cmd_fail("%s", err.text);
	r = check(dir, lio, set->value[OPT_REBUILD_INDEX].number, &err);
	lio_destroy(lio);
	if (r >= 0)
		return r;
	cmd_fail("%s", err.text);
	return offline_is_damage(r) ? EXIT_LEFT : EXIT_FAILED;
}
