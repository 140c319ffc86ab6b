/* SPDX-License-Identifier: Apache-2.0 */
/* Options of the emulator, and the words of its command line and of its control socket. */
#ifndef BENCH_WAN_OPT_H
#define BENCH_WAN_OPT_H

#include <stdint.h>

struct wan_opt {
	uint64_t rtt_ns;
	uint64_t rate_bps;      /* a to b */
	uint64_t rate_back_bps; /* b to a; 0: as rate_bps */
	uint64_t queue_bytes;   /* per direction; 0: auto */
	uint64_t loss_ppb;
	uint64_t seed;
	const char *ns_a;
	const char *ns_b;
	const char *addr_a;
	const char *addr_b;
	const char *addr6_a;
	const char *addr6_b;
	const char *dev;
	uint64_t mtu;
	const char *control; /* NULL: none */
	const char *pidfile; /* NULL: none */
};

/*
 * Parsers of one word. All are strict (the whole word, no sign, no blank, no overflow), return 0 or
 * -EINVAL / -ERANGE and leave the result alone on failure.
 *
 * duration: NUMBER ns|us|ms|s, or 0; at most 100 s. rate: bits per second, K M G are powers of
 * 1000, 1K..1000G. size: bytes, K M G are powers of 1024, or "auto" (0). loss: percent with
 * decimals, 0..100.
 */
int wan_parse_duration(const char *word, uint64_t *ret_ns);
int wan_parse_rate(const char *word, uint64_t *ret_bps);
int wan_parse_size(const char *word, uint64_t *ret_bytes);
int wan_parse_loss(const char *word, uint64_t *ret_ppb);

/*
 * Fills opt from the defaults and the command line (the strings in argv are borrowed). --help
 * prints and exits 0; anything wrong is said on stderr and exits 2.
 */
void wan_opt_parse(struct wan_opt *opt, int argc, char **argv);

#endif
