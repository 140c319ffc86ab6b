// SPDX-License-Identifier: Apache-2.0
/* What targets and LUNs there are behind a portal. */
#ifndef TRANSPORT_ISCSI_DISCOVER_H
#define TRANSPORT_ISCSI_DISCOVER_H

#include <stdint.h>

#include "core/err.h"
#include "transport/leaf.h"

/* One LUN, or a target whose LUNs could not be asked. Texts live during the callback. */
struct iscsi_found {
	const char *target;
	const char *const *portals; /* as the target tells them, "host:port" without group tag */
	unsigned portal_count;
	int lun;             /* -1: none, see error */
	uint64_t size_bytes; /* 0: unknown, see error */
	uint32_t sector_bytes;
	const char *vendor;
	const char *product;
	const char *error; /* NULL, or why there is no more to say */
};

/*
 * Ask the portals of @conf->url (a discovery URL) in turn for their targets (SendTargets), then log
 * in to each at the portal asked and look at its LUNs. @found is called once per LUN, and once for
 * a target without one. Blocks; conf->connect_timeout_ns bounds each login. 0, also with no target
 * at all; the errors of iscsi_conn_open() with @err if no portal answers. Any thread.
 */
int iscsi_discover(const struct leaf_config *conf,
		   void (*found)(void *ctx, const struct iscsi_found *found), void *ctx,
		   struct err *err);

#endif
