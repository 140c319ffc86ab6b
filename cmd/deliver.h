// SPDX-License-Identifier: Apache-2.0
/* `nearblk flush --cache-dir`: send what a stopped or killed daemon has left. Main thread. */
#ifndef CMD_DELIVER_H
#define CMD_DELIVER_H

#include "core/option.h"

/* @set: of the command flush, with --cache-dir. Starts threads. Returns an exit status. */
int deliver(struct option_set *set);

#endif
