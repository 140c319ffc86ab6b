// SPDX-License-Identifier: Apache-2.0
/*
 * The program's one option table. Each option is declared here once; parsing, -o, --help and the
 * test of the manual all read this.
 */
#ifndef CMD_OPTIONS_H
#define CMD_OPTIONS_H

#include "core/option.h"

enum command_bit {
	CMD_MOUNT = 1 << 0,
	CMD_UMOUNT = 1 << 1,
	CMD_FLUSH = 1 << 2,
	CMD_WARM = 1 << 3,
	CMD_DROP = 1 << 4,
	CMD_STATUS = 1 << 5,
	CMD_DISCOVER = 1 << 6,
	CMD_CHECK = 1 << 7,
	CMD_ALL = (1 << 8) - 1,
};

/* Positions in options_table.def. */
enum option_id {
	OPT_CACHE_DIR,
	OPT_CACHE_SIZE,
	OPT_MAX_DIRTY,
	OPT_MAX_DIRTY_AGE,
	OPT_SESSIONS,
	OPT_CONNECT_TIMEOUT,
	OPT_STOP_TIMEOUT,
	OPT_READ_ONLY,
	OPT_FOREGROUND,
	OPT_CREDENTIALS,
	OPT_INITIATOR_NAME,
	OPT_HEADER_DIGEST,
	OPT_ALLOW_OTHER,
	OPT_UID,
	OPT_GID,
	OPT_MODE,
	OPT_LOG,
	OPT_LOG_LEVEL,
	OPT_NO_READAHEAD,
	OPT_ON_OUTAGE,
	OPT_TRUST_CACHE,
	OPT_FORCE_PUSH,
	OPT_OPTIONS,
	OPT_DEBUG_DELAY,
	OPT_DEBUG_FAULT,
	OPT_DEBUG_COUNT,
	OPT_NO_FLUSH,
	OPT_TIMEOUT,
	OPT_URL,
	OPT_ALL,
	OPT_RANGE,
	OPT_JSON,
	OPT_REBUILD_INDEX,
	OPT_HELP,
	OPT_VERSION,
	OPT_COUNT,
};

extern const struct option_table options_table;

#endif
