// SPDX-License-Identifier: Apache-2.0
/* Why dirty data cannot be sent, and what may be done: words for terminals and logs. */
#ifndef CMD_DAMAGE_H
#define CMD_DAMAGE_H

#include <stddef.h>

#include "core/block.h"

/* Fits any text of damage_text(). */
#define DAMAGE_TEXT_MAX 640

/*
 * Word the trouble of @cache (a cache device, of the directory @cache_dir) into @text: the first
 * damaged range and the choices there are, or, where no range is known, that the local disk failed.
 * For a cache in the state CACHE_DAMAGED. Returns how many ranges are damaged. Any thread; never
 * blocks on I/O.
 */
unsigned damage_text(struct blk_dev *cache, const char *cache_dir, char text[DAMAGE_TEXT_MAX]);

#endif
