// SPDX-License-Identifier: Apache-2.0
/*
 * Host names → addresses, with a bound: getaddrinfo() cannot be interrupted, and a caller that must
 * stop within two seconds cannot sit in it.
 */
#ifndef TRANSPORT_ISCSI_RESOLVE_H
#define TRANSPORT_ISCSI_RESOLVE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define ISCSI_ADDRESSES 8
#define ISCSI_ADDRESS_MAX 80

/* Numeric, with port, as libiscsi wants it: "192.0.2.1:3260", "[2001:db8::1]:3260". */
struct iscsi_addresses {
	char text[ISCSI_ADDRESSES][ISCSI_ADDRESS_MAX];
	unsigned count;
};

/*
 * Resolve @host (a name or a numeric address without brackets) for TCP @port. Waits until
 * @deadline_ns (CLOCK_MONOTONIC) at most, looking at @abort every 50 ms. 0 with at least one
 * address; -EADDRNOTAVAIL (no such name, or no address of it; *ret_why is the resolver's static
 * text), -ETIMEDOUT, -ECANCELED, -ENOMEM. Any thread. A look-up that was given up ends on a thread
 * of its own and touches nothing of the caller's.
 */
int iscsi_resolve(const char *host, uint16_t port, uint64_t deadline_ns, const atomic_bool *abort,
		  struct iscsi_addresses *ret, const char **ret_why);

#endif
