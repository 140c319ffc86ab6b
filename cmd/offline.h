// SPDX-License-Identifier: Apache-2.0
/* Cache directories that no daemon serves. Main thread. */
#ifndef CMD_OFFLINE_H
#define CMD_OFFLINE_H

#include <jansson.h>

/*
 * Append to @list a status object (cmd/report.h) for each known cache directory that holds dirty
 * data and that no daemon has locked. What only a daemon knows is null.
 */
void offline_scan(json_t *list);

#endif
