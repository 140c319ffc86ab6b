// SPDX-License-Identifier: Apache-2.0
#include "cmd/notify.h"

#include <stdio.h>
#include <string.h>
#ifdef HAVE_LIBSYSTEMD
#include <systemd/sd-daemon.h>
#endif

#include "cache/cache.h"
#include "core/parse.h"

void notify_systemd(const char *state)
{
#ifdef HAVE_LIBSYSTEMD
	sd_notify(0, state);
#else
	(void)state;
#endif
}

void notify_status(struct blk_dev *cache, char last[NOTIFY_STATUS_MAX])
{
	char text[NOTIFY_STATUS_MAX], dirty[16], cached[16];
	struct cache_status st;

	cache_status(cache, &st);
	format_size(st.dirty_bytes, dirty);
	format_size(st.cached_bytes, cached);
	if (st.dirty_bytes)
		snprintf(text, sizeof(text), "STATUS=%s: %s not yet at the target, %s cached",
			 cache_state_name(st.state), dirty, cached);
	else
		snprintf(text, sizeof(text), "STATUS=%s: %s cached", cache_state_name(st.state),
			 cached);
	if (strcmp(text, last) == 0)
		return;
	memcpy(last, text, sizeof(text));
	notify_systemd(text);
}
