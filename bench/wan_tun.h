/* SPDX-License-Identifier: Apache-2.0 */
/* One TUN device in a given network namespace: made, addressed and up; gone when its fd is closed.
 */
#ifndef BENCH_WAN_TUN_H
#define BENCH_WAN_TUN_H

struct wan_tun_conf {
	const char *ns;    /* a name in /run/netns, or a path such as /proc/PID/ns/net */
	const char *dev;   /* name of the device, 1..15 characters */
	const char *addr4; /* ADDRESS/PREFIX */
	const char *addr6; /* ADDRESS/PREFIX; skipped with a word where IPv6 is switched off */
	int mtu;           /* bytes */
};

/*
 * Whether text is ADDRESS/PREFIX of family AF_INET or AF_INET6. Returns 0, or -EINVAL; fills
 * ret_addr (struct in_addr or in6_addr) and ret_prefix on success when they are not NULL.
 */
int wan_tun_parse_addr(int family, const char *text, void *ret_addr, int *ret_prefix);

/*
 * Opens the device. The calling thread visits the namespace and is back in its own on return
 * (it aborts if it cannot come back). Returns a non-blocking, close-on-exec fd that gives and takes
 * one bare IP packet per read() and write(), or -errno with *ret_what naming the step that failed.
 * Needs CAP_SYS_ADMIN and CAP_NET_ADMIN. Only for single threaded programs.
 */
int wan_tun_open(const struct wan_tun_conf *conf, const char **ret_what);

#endif
