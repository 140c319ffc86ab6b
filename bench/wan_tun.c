// SPDX-License-Identifier: Apache-2.0
/*
 * A tun fd belongs to the namespace in which /dev/net/tun was opened, so it is enough to be there
 * while the device is made and configured; nothing needs a child process.
 */
#include "bench/wan_tun.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <linux/ipv6.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/cleanup.h"

/*
 * Packets the kernel holds for us between two reads. Large, so that the one queue that drops is the
 * emulated one.
 */
#define TX_QUEUE_PACKETS 20000

int wan_tun_parse_addr(int family, const char *text, void *ret_addr, int *ret_prefix)
{
	const char *slash = strchr(text, '/');
	char host[INET6_ADDRSTRLEN];
	unsigned char addr[sizeof(struct in6_addr)];
	char *end;
	long prefix;

	if (!slash || (size_t)(slash - text) >= sizeof(host) || slash[1] < '0' || slash[1] > '9')
		return -EINVAL;
	memcpy(host, text, (size_t)(slash - text));
	host[slash - text] = '\0';
	errno = 0;
	prefix = strtol(slash + 1, &end, 10);
	if (errno || *end || prefix < 1 || prefix > (family == AF_INET ? 32 : 128) ||
	    inet_pton(family, host, addr) != 1)
		return -EINVAL;
	if (ret_addr)
		memcpy(ret_addr, addr, family == AF_INET ? sizeof(struct in_addr) : sizeof(addr));
	if (ret_prefix)
		*ret_prefix = (int)prefix;
	return 0;
}

static int set_addr4(int sock, const struct wan_tun_conf *conf)
{
	struct sockaddr_in sin = { .sin_family = AF_INET };
	struct ifreq ifr = { 0 };
	int prefix, r;

	r = wan_tun_parse_addr(AF_INET, conf->addr4, &sin.sin_addr, &prefix);
	if (r < 0)
		return r;
	strncpy(ifr.ifr_name, conf->dev, IFNAMSIZ - 1);
	memcpy(&ifr.ifr_addr, &sin, sizeof(sin));
	if (ioctl(sock, SIOCSIFADDR, &ifr) < 0)
		return -errno;
	sin.sin_addr.s_addr = htonl(UINT32_MAX << (32 - prefix));
	memcpy(&ifr.ifr_netmask, &sin, sizeof(sin));
	return ioctl(sock, SIOCSIFNETMASK, &ifr) < 0 ? -errno : 0;
}

static int set_addr6(const struct wan_tun_conf *conf, int ifindex)
{
	cleanup_close int sock = -1;
	struct in6_ifreq ifr6 = { .ifr6_ifindex = ifindex };
	int prefix, r;

	r = wan_tun_parse_addr(AF_INET6, conf->addr6, &ifr6.ifr6_addr, &prefix);
	if (r < 0)
		return r;
	ifr6.ifr6_prefixlen = (uint32_t)prefix;
	sock = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (sock >= 0 && ioctl(sock, SIOCSIFADDR, &ifr6) == 0)
		return 0;
	/* The three ways in which a host without IPv6 says so. */
	if (errno != EAFNOSUPPORT && errno != EACCES && errno != EOPNOTSUPP)
		return -errno;
	fprintf(stderr, "wan: %s: IPv6 is off here, going on with IPv4 alone\n", conf->ns);
	return 0;
}

static int set_flags_up(int sock, struct ifreq *ifr)
{
	if (ioctl(sock, SIOCGIFFLAGS, ifr) < 0)
		return -errno;
	ifr->ifr_flags |= IFF_UP;
	return ioctl(sock, SIOCSIFFLAGS, ifr) < 0 ? -errno : 0;
}

/* Mtu, queue, addresses, up; in the namespace of the device. */
static int configure(const struct wan_tun_conf *conf, const char **ret_what)
{
	cleanup_close int sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct ifreq ifr = { 0 };
	int r;

	*ret_what = "cannot configure the device";
	if (sock < 0)
		return -errno;
	strncpy(ifr.ifr_name, conf->dev, IFNAMSIZ - 1);
	ifr.ifr_mtu = conf->mtu;
	if (ioctl(sock, SIOCSIFMTU, &ifr) < 0)
		return -errno;
	ifr.ifr_qlen = TX_QUEUE_PACKETS;
	if (ioctl(sock, SIOCSIFTXQLEN, &ifr) < 0)
		return -errno;
	*ret_what = "cannot set the IPv4 address";
	r = set_addr4(sock, conf);
	if (r < 0)
		return r;
	*ret_what = "cannot bring the device up";
	r = set_flags_up(sock, &ifr);
	if (r < 0)
		return r;
	*ret_what = "cannot set the IPv6 address";
	if (ioctl(sock, SIOCGIFINDEX, &ifr) < 0)
		return -errno;
	return set_addr6(conf, ifr.ifr_ifindex);
}

/* In the namespace: the device itself. */
static int open_here(const struct wan_tun_conf *conf, const char **ret_what)
{
	struct ifreq ifr = { .ifr_flags = IFF_TUN | IFF_NO_PI };
	cleanup_close int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	int r;

	*ret_what = "cannot open /dev/net/tun";
	if (fd < 0)
		return -errno;
	strncpy(ifr.ifr_name, conf->dev, IFNAMSIZ - 1);
	*ret_what = "cannot make the device";
	if (ioctl(fd, TUNSETIFF, &ifr) < 0)
		return -errno;
	r = configure(conf, ret_what);
	if (r < 0)
		return r;
	return steal_fd(fd);
}

int wan_tun_open(const struct wan_tun_conf *conf, const char **ret_what)
{
	cleanup_close int home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	cleanup_close int there = -1;
	char path[4096];
	int fd;

	snprintf(path, sizeof(path), "%s%s", strchr(conf->ns, '/') ? "" : "/run/netns/", conf->ns);
	*ret_what = "cannot open the network namespace";
	if (home < 0)
		return -errno;
	there = open(path, O_RDONLY | O_CLOEXEC);
	if (there < 0)
		return -errno;
	*ret_what = "cannot enter the network namespace";
	if (setns(there, CLONE_NEWNET) < 0)
		return -errno;
	fd = open_here(conf, ret_what);
	if (setns(home, CLONE_NEWNET) < 0)
		abort();
	return fd;
}
