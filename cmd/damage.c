// SPDX-License-Identifier: Apache-2.0
#include "cmd/damage.h"

#include <inttypes.h>
#include <stdio.h>

#include "cache/cache.h"
#include "core/parse.h"

/*
 * To write the range once more is no way out: strict order sends the old version first, and that is
 * the one which is gone.
 */
unsigned damage_text(struct blk_dev *cache, const char *cache_dir, char text[DAMAGE_TEXT_MAX])
{
	struct cache_damage first;
	unsigned n = cache_damages(cache, &first, 1);
	char size[16], more[32] = "";

	if (n == 0) {
		snprintf(text, DAMAGE_TEXT_MAX,
			 "the disk of %.300s failed (the daemon's log says how), so what is dirty "
			 "cannot be sent: put that right, then mount again",
			 cache_dir);
		return 0;
	}
	if (n > 1)
		snprintf(more, sizeof(more), " and %u more ranges", n - 1);
	snprintf(text, DAMAGE_TEXT_MAX,
		 "%s at offset %" PRIu64 "%s, not yet at the target, are damaged in %.300s, and "
		 "nothing written after them is sent: put back a copy of the damaged segment file "
		 "(*.seg) and mount again, or give up what is unsent by using another --cache-dir",
		 format_size(first.length, size), first.offset, more, cache_dir);
	return n;
}
