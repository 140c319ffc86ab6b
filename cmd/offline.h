// SPDX-License-Identifier: Apache-2.0
/* Cache directories that no daemon serves. Main thread. */
#ifndef CMD_OFFLINE_H
#define CMD_OFFLINE_H

#include <jansson.h>

#include "cache/identity.h"

/*
 * Append to @list a status object (cmd/report.h) for each known cache directory that holds dirty
 * data and that no daemon has locked. What only a daemon knows is null.
 */
void offline_scan(json_t *list);

/*
 * Look into one directory: 1, it holds dirty data (or did not say that it holds none), and *@ret is
 * its record and *@ret_dirty the bytes to be sent (REPORT_UNKNOWN if they cannot be counted); 0, it
 * holds none; -EBUSY, a daemon has it; another -errno.
 */
int offline_look(const char *dir, struct cache_identity *ret, uint64_t *ret_dirty);

#endif
