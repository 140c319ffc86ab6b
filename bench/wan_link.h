/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One direction of an emulated line: a tail-drop queue, a serialiser of fixed rate, a wire of fixed
 * delay with optional random loss. It holds packets and decides when each comes out; it does no I/O
 * and has no clock: every call is told the time (CLOCK_MONOTONIC in ns, never going backwards), so
 * that tests can play any schedule. Not thread safe: one caller at a time.
 *
 *	arrival -> [ queue, queue_bytes ] -> serialiser, rate_bps -> [ wire, delay_ns, loss ] -> out
 */
#ifndef BENCH_WAN_LINK_H
#define BENCH_WAN_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Nothing will ever come out unless something goes in first. */
#define WAN_NEVER UINT64_MAX

/* 100 % in the unit of wan_link_conf.loss_ppb. */
#define WAN_LOSS_ALL UINT64_C(1000000000)

struct wan_link_conf {
	uint64_t rate_bps;    /* bits of IP packets per second, >= 1 */
	uint64_t delay_ns;    /* one way, after the last bit left the serialiser */
	uint64_t queue_bytes; /* what may wait for the serialiser; one packet always may */
	uint64_t loss_ppb;    /* chance of each packet to vanish on the wire, 0..WAN_LOSS_ALL */
};

/* Counters of packets since wan_link_init(); every packet read ends in exactly one of them. */
struct wan_link_stats {
	uint64_t delivered;
	uint64_t delivered_bytes;
	uint64_t tail_drops; /* the queue was full */
	uint64_t losses;     /* random loss */
	uint64_t cut_drops;  /* sent, waiting or on the wire while the line was cut */
};

struct wan_pkt;

struct wan_link {
	struct wan_link_conf conf;
	struct wan_link_stats stats;
	bool cut;

	/*
	 * The ring of packets. Running indices, head <= ser <= tail <= head + slots:
	 * head..ser are on the wire (or lost), ser..tail wait for the serialiser.
	 */
	unsigned char *ring;
	size_t slot_size; /* bytes of one slot: struct wan_pkt and mtu bytes */
	size_t mtu;
	uint64_t slots; /* a power of two */
	uint64_t head;
	uint64_t ser;
	uint64_t tail;
	uint64_t waiting_bytes; /* sum of the lengths in ser..tail */
	uint64_t free_ns;       /* when the serialiser has sent its last bit */
	uint64_t last_ns;       /* when the youngest packet on the wire comes out */
	uint64_t random;        /* state of the loss generator */
};

/*
 * Makes an empty line for packets of 1..mtu bytes. Two lines with the same seed, settings and
 * arrivals lose the same packets. Returns 0, -EINVAL (mtu or rate is 0), -ENOMEM.
 */
int wan_link_init(struct wan_link *link, const struct wan_link_conf *conf, size_t mtu,
		  uint64_t seed);

/* Frees what it holds. Accepts a zeroed link; the link may be initialised again. */
void wan_link_fini(struct wan_link *link);

/*
 * New settings from now on: what waits is sent at the new rate and delay, what is on the wire keeps
 * its time, and order is kept (a shorter delay never lets a packet overtake).
 */
void wan_link_set(struct wan_link *link, uint64_t now_ns, const struct wan_link_conf *conf);

/*
 * Cuts or restores the line. A cut drops what waits, what is on the wire and all that is pushed
 * until it is restored. Idempotent.
 */
void wan_link_cut(struct wan_link *link, bool cut);

/*
 * The place to put the next packet: mtu bytes, valid until the next call on this link. NULL when
 * there is no memory for one more packet; then read it elsewhere and wan_link_refuse() it.
 */
void *wan_link_slot(struct wan_link *link);

/* Takes the packet of len (1..mtu) bytes in wan_link_slot() as arrived now; it may be dropped. */
void wan_link_push(struct wan_link *link, uint64_t now_ns, size_t len);

/* Counts a packet for which there was no slot. */
void wan_link_refuse(struct wan_link *link);

/*
 * The oldest packet whose time has come, or NULL. Stays in the line, and valid, until
 * wan_link_pop(), which counts it as delivered.
 */
const void *wan_link_peek(struct wan_link *link, uint64_t now_ns, size_t *ret_len);
void wan_link_pop(struct wan_link *link);

/*
 * The time before which wan_link_peek() has nothing to give, given no new settings; WAN_NEVER for
 * an empty line. May be early, is never late.
 */
uint64_t wan_link_next_ns(const struct wan_link *link);

/* Bytes that wait for the serialiser (after what became due by now_ns has started). */
uint64_t wan_link_backlog(struct wan_link *link, uint64_t now_ns);

#endif
