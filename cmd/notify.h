// SPDX-License-Identifier: Apache-2.0
/* What systemd is told (sd_notify(3)); nothing without libsystemd or $NOTIFY_SOCKET. */
#ifndef CMD_NOTIFY_H
#define CMD_NOTIFY_H

#include "core/block.h"

#define NOTIFY_STATUS_MAX 160

/* Send @state, as in "READY=1". Any thread. */
void notify_systemd(const char *state);

/*
 * Send what @cache (a cache device) is doing as STATUS=, if that differs from @last, which is kept
 * up to date. Any thread; never blocks on the network.
 */
void notify_status(struct blk_dev *cache, char last[NOTIFY_STATUS_MAX]);

#endif
