// SPDX-License-Identifier: Apache-2.0
#define _XOPEN_SOURCE 700
#include "tests/lib/scratch.h"

#include <ftw.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char path[200];

const char *scratch_create(void)
{
	const char *tmp = getenv("TMPDIR");

	snprintf(path, sizeof(path), "%.150s/nearblk-test-XXXXXX", tmp ? tmp : "/tmp");
	if (!mkdtemp(path)) {
		perror(path);
		abort();
	}
	return path;
}

static int remove_entry(const char *name, const struct stat *st, int kind, struct FTW *where)
{
	(void)st;
	(void)kind;
	if (where->level > 0 && remove(name) < 0)
		perror(name);
	return 0;
}

void scratch_clear(void)
{
	nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}

void scratch_remove(void)
{
	scratch_clear();
	if (rmdir(path) < 0)
		perror(path);
}
