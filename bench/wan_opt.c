// SPDX-License-Identifier: Apache-2.0
/* One table holds name, word, default, help and parser: parsing and --help both walk it. */
#include "bench/wan_opt.h"

#include <errno.h>
#include <linux/if.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "bench/wan_link.h"
#include "bench/wan_tun.h"
#include "core/cleanup.h"

struct unit {
	const char *name;
	uint64_t factor;
};

/* A decimal number and one of the units, which end with a NULL name; min..max after scaling. */
static int parse_scaled(const char *word, const struct unit *units, uint64_t min, uint64_t max,
			uint64_t *ret)
{
	uint64_t value;
	char *end;

	if (*word < '0' || *word > '9')
		return -EINVAL;
	errno = 0;
	value = strtoull(word, &end, 10);
	if (errno)
		return -errno;
	for (; units->name; units++) {
		if (strcmp(end, units->name))
			continue;
		if (__builtin_mul_overflow(value, units->factor, &value) || value < min ||
		    value > max)
			return -ERANGE;
		*ret = value;
		return 0;
	}
	return -EINVAL;
}

int wan_parse_duration(const char *word, uint64_t *ret_ns)
{
	static const struct unit units[] = {
		{ "ns", 1 }, { "us", 1000 }, { "ms", 1000000 }, { "s", 1000000000 }, { NULL, 0 },
	};

	if (!strcmp(word, "0")) {
		*ret_ns = 0;
		return 0;
	}
	return parse_scaled(word, units, 0, UINT64_C(100000000000), ret_ns);
}

int wan_parse_rate(const char *word, uint64_t *ret_bps)
{
	static const struct unit units[] = {
		{ "", 1 }, { "K", 1000 }, { "M", 1000000 }, { "G", 1000000000 }, { NULL, 0 },
	};

	return parse_scaled(word, units, 1000, UINT64_C(1000000000000), ret_bps);
}

int wan_parse_size(const char *word, uint64_t *ret_bytes)
{
	static const struct unit units[] = {
		{ "", 1 }, { "K", 1 << 10 }, { "M", 1 << 20 }, { "G", 1 << 30 }, { NULL, 0 },
	};

	if (!strcmp(word, "auto")) {
		*ret_bytes = 0;
		return 0;
	}
	return parse_scaled(word, units, 1, UINT64_C(1) << 40, ret_bytes);
}

int wan_parse_loss(const char *word, uint64_t *ret_ppb)
{
	double percent;
	char *end;

	/* No "nan", "inf" or hexadecimal: digits and at most a point. */
	if (*word < '0' || *word > '9' || word[strspn(word, "0123456789.")])
		return -EINVAL;
	percent = strtod(word, &end);
	if (*end)
		return -EINVAL;
	if (percent > 100)
		return -ERANGE;
	*ret_ppb = (uint64_t)(percent / 100 * (double)WAN_LOSS_ALL + 0.5);
	return 0;
}

static int opt_rtt(const char *word, void *ret)
{
	return wan_parse_duration(word, ret);
}

static int opt_rate(const char *word, void *ret)
{
	return wan_parse_rate(word, ret);
}

static int opt_size(const char *word, void *ret)
{
	return wan_parse_size(word, ret);
}

static int opt_loss(const char *word, void *ret)
{
	return wan_parse_loss(word, ret);
}

static int opt_number(const char *word, void *ret)
{
	static const struct unit units[] = { { "", 1 }, { NULL, 0 } };

	return parse_scaled(word, units, 0, UINT64_MAX, ret);
}

/* 1280 is the least that IPv6 runs over. */
static int opt_mtu(const char *word, void *ret)
{
	static const struct unit units[] = { { "", 1 }, { NULL, 0 } };

	return parse_scaled(word, units, 1280, 65535, ret);
}

static int opt_word(const char *word, void *ret)
{
	if (!*word)
		return -EINVAL;
	*(const char **)ret = word;
	return 0;
}

static int opt_dev(const char *word, void *ret)
{
	if (strlen(word) >= IFNAMSIZ || strchr(word, '/') || strchr(word, '%'))
		return -EINVAL;
	return opt_word(word, ret);
}

static int opt_addr4(const char *word, void *ret)
{
	int r = wan_tun_parse_addr(AF_INET, word, NULL, NULL);

	return r < 0 ? r : opt_word(word, ret);
}

static int opt_addr6(const char *word, void *ret)
{
	int r = wan_tun_parse_addr(AF_INET6, word, NULL, NULL);

	return r < 0 ? r : opt_word(word, ret);
}

static const struct option_row {
	const char *name;
	const char *word;
	const char *preset; /* NULL: none */
	int (*parse)(const char *word, void *ret);
	size_t offset;
	const char *help;
} rows[] = {
#define ROW(n, w, p, f, field, h)                                                                  \
	{                                                                                          \
		n, w, p, f, offsetof(struct wan_opt, field), h                                     \
	}
	ROW("--ns-a", "NAME", NULL, opt_word, ns_a,
	    "namespace: name in /run/netns or path (needed)"),
	ROW("--ns-b", "NAME", NULL, opt_word, ns_b, "the other one (needed)"),
	ROW("--rtt", "TIME", "50ms", opt_rtt, rtt_ns, "round trip: ns, us, ms or s"),
	ROW("--rate", "BITS", "100M", opt_rate, rate_bps, "bits/s of IP packets, K M G = 1000^n"),
	ROW("--rate-back", "BITS", NULL, opt_rate, rate_back_bps, "from b to a, if not as --rate"),
	ROW("--queue", "BYTES", "auto", opt_size, queue_bytes,
	    "tail-drop queue of each direction, K M G = 1024^n;\n"
	    "auto: rate x rtt, but at least 64K, and follows both"),
	ROW("--loss", "PERCENT", "0", opt_loss, loss_ppb, "random loss of each direction"),
	ROW("--seed", "N", "1", opt_number, seed, "of the random loss"),
	ROW("--addr-a", "ADDR/N", "10.77.0.1/24", opt_addr4, addr_a, "address in a"),
	ROW("--addr-b", "ADDR/N", "10.77.0.2/24", opt_addr4, addr_b, "address in b"),
	ROW("--addr6-a", "ADDR/N", "fd77::1/64", opt_addr6, addr6_a, "IPv6 address in a"),
	ROW("--addr6-b", "ADDR/N", "fd77::2/64", opt_addr6, addr6_b, "IPv6 address in b"),
	ROW("--dev", "NAME", "nbwan0", opt_dev, dev, "name of the TUN device, in both"),
	ROW("--mtu", "BYTES", "1500", opt_mtu, mtu, "1280..65535"),
	ROW("--control", "SOCKET", NULL, opt_word, control, "take commands on this Unix socket"),
	ROW("--pidfile", "FILE", NULL, opt_word, pidfile, "write the process id once ready"),
#undef ROW
};

static const char usage_head[] =
	"Usage: wan --ns-a NAME --ns-b NAME [options]\n"
	"       wan --ctl SOCKET COMMAND...\n"
	"Joins two network namespaces by a line of given round trip, rate, queue and loss.\n"
	"Prints `ready' when both ends are up; runs until SIGTERM, SIGINT or `quit'.\n\n";

static const char usage_tail[] =
	"  --help               this text\n\n"
	"Commands of --ctl, answered with `ok ...' or `error ...' (exit status 0 or 1):\n"
	"  cut                  drop every packet, both ways; also those on the way\n"
	"  restore              let packets through again\n"
	"  rtt TIME\n"
	"  rate BITS [BACK]     BACK: from b to a; else the same\n"
	"  loss PERCENT\n"
	"  stats                one line of key=value\n"
	"  quit                 end the emulator\n";

static void print_help(void)
{
	fputs(usage_head, stdout);
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		const struct option_row *row = &rows[i];
		const char *line = row->help, *end;
		char left[64];

		snprintf(left, sizeof(left), "%s %s", row->name, row->word);
		printf("  %-20s ", left);
		for (; (end = strchr(line, '\n')) != NULL; line = end + 1)
			printf("%.*s\n%23s", (int)(end - line), line, "");
		printf("%s%s%s%s\n", line, row->preset ? " [" : "", row->preset ? row->preset : "",
		       row->preset ? "]" : "");
	}
	fputs(usage_tail, stdout);
}

__attribute__((noreturn)) static void usage_error(const char *what, const char *word)
{
	fprintf(stderr, "wan: %s: %s (try --help)\n", what, word);
	exit(2);
}

/* Takes --name VALUE and --name=VALUE; returns the number of words of argv that were used. */
static int parse_one(struct wan_opt *opt, int left, char **argv)
{
	size_t name_len = strcspn(argv[0], "=");
	bool joined = argv[0][name_len] == '=';

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		const char *value;

		if (strlen(rows[i].name) != name_len || strncmp(rows[i].name, argv[0], name_len))
			continue;
		if (!joined && left < 2)
			usage_error("value missing", argv[0]);
		value = joined ? argv[0] + name_len + 1 : argv[1];
		if (rows[i].parse(value, (char *)opt + rows[i].offset) < 0) {
			fprintf(stderr, "wan: %s: bad value `%s' (try --help)\n", rows[i].name,
				value);
			exit(2);
		}
		return joined ? 1 : 2;
	}
	usage_error("unknown option", argv[0]);
}

void wan_opt_parse(struct wan_opt *opt, int argc, char **argv)
{
	*opt = (struct wan_opt){ 0 };
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		if (rows[i].preset)
			rows[i].parse(rows[i].preset, (char *)opt + rows[i].offset);
	for (int i = 1; i < argc;) {
		if (!strcmp(argv[i], "--help")) {
			print_help();
			exit(0);
		}
		i += parse_one(opt, argc - i, argv + i);
	}
	if (!opt->ns_a || !opt->ns_b)
		usage_error("needed", "--ns-a and --ns-b");
}
