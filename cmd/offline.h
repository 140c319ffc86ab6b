// SPDX-License-Identifier: Apache-2.0
/* Cache directories that no daemon serves. Main thread. */
#ifndef CMD_OFFLINE_H
#define CMD_OFFLINE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "cache/identity.h"
#include "core/err.h"

/*
 * Is @dir a cache directory, by the identity record in it? 0; -ENOENT, it is none or not there;
 * another -errno, it may not be looked into; with @err. Changes nothing in it.
 */
int offline_identify(const char *dir, struct err *err);

/* True if @result, of reading a directory's identity or log, means that what is there is damaged.
 */
bool offline_is_damage(int result);

struct offline {
	struct cache_identity id; /* empty where the record itself is damaged */
	bool merging;             /* merged epochs are partly at the target: it is not consistent */
	bool damaged;             /* part of what is to be sent is not there or cannot be read */
	uint64_t dirty_bytes;     /* to be sent; REPORT_UNKNOWN if they cannot be counted */
};

/*
 * Look into one directory: 1, it holds dirty data or may hold some that is damaged, and *@ret says
 * what; 0, it holds none; -ENOENT, no cache directory; -EBUSY, a daemon has it; another -errno.
 */
int offline_look(const char *dir, struct offline *ret);

/*
 * Append to @list a status object (cmd/report.h) for each known cache directory of which
 * offline_look() says 1. What only a daemon knows is null.
 */
void offline_scan(json_t *list);

#endif
