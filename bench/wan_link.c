// SPDX-License-Identifier: Apache-2.0
/*
 * Life of a packet: arrived -> waiting -> on the wire -> out, or dropped on the way.
 *
 * Serialisation is computed, not waited for: a packet starts at max(its arrival, the end of the one
 * before) even if we look only later. So a late wake-up of the process makes a few packets late but
 * never leaves a hole in the rate.
 *
 * Invariants
 *	head <= ser <= tail <= head + slots
 *	at_ns is the arrival in ser..tail, and never decreases; the time of coming out in head..ser,
 *	and never decreases
 *	waiting_bytes is the sum of len over ser..tail; len is 0 only for a packet lost on the wire
 *	a cut line is empty
 */
#include "bench/wan_link.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define NS_PER_S UINT64_C(1000000000)
#define FIRST_SLOTS UINT64_C(1024)
#define MOST_SLOTS (UINT64_C(1) << 18)

struct wan_pkt {
	uint64_t at_ns;
	uint32_t len;
	unsigned char data[];
};

static struct wan_pkt *slot_at(const struct wan_link *link, uint64_t index)
{
	return (struct wan_pkt *)(link->ring + (index & (link->slots - 1)) * link->slot_size);
}

static uint64_t max_u64(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

/* splitmix64: one addition and a mix per number, and any seed will do, 0 included. */
static uint64_t next_random(uint64_t *state)
{
	uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

/* Moves every packet whose turn came by now_ns from the queue to the wire. */
static void serialise(struct wan_link *link, uint64_t now_ns)
{
	while (link->ser != link->tail) {
		struct wan_pkt *pkt = slot_at(link, link->ser);
		uint64_t start_ns = max_u64(link->free_ns, pkt->at_ns);

		if (start_ns > now_ns)
			return;
		link->free_ns = start_ns + pkt->len * 8 * NS_PER_S / link->conf.rate_bps;
		link->last_ns = max_u64(link->last_ns, link->free_ns + link->conf.delay_ns);
		link->waiting_bytes -= pkt->len;
		link->ser++;
		pkt->at_ns = link->last_ns;
		/* Lost packets have used their share of the rate, as on a real line. */
		if (link->conf.loss_ppb &&
		    next_random(&link->random) % WAN_LOSS_ALL < link->conf.loss_ppb) {
			pkt->len = 0;
			link->stats.losses++;
		}
	}
}

static int grow(struct wan_link *link)
{
	uint64_t slots = link->slots * 2;
	unsigned char *ring;

	if (slots > MOST_SLOTS)
		return -ENOMEM;
	ring = malloc(slots * link->slot_size);
	if (!ring)
		return -ENOMEM;
	for (uint64_t i = link->head; i != link->tail; i++) {
		const struct wan_pkt *pkt = slot_at(link, i);

		memcpy(ring + (i & (slots - 1)) * link->slot_size, pkt, sizeof(*pkt) + pkt->len);
	}
	free(link->ring);
	link->ring = ring;
	link->slots = slots;
	return 0;
}

int wan_link_init(struct wan_link *link, const struct wan_link_conf *conf, size_t mtu,
		  uint64_t seed)
{
	const size_t align = _Alignof(struct wan_pkt);

	if (!mtu || mtu > UINT16_MAX || !conf->rate_bps)
		return -EINVAL;
	*link = (struct wan_link){
		.conf = *conf,
		.mtu = mtu,
		.slot_size = (sizeof(struct wan_pkt) + mtu + align - 1) / align * align,
		.slots = FIRST_SLOTS,
		.random = seed,
	};
	link->ring = malloc(link->slots * link->slot_size);
	return link->ring ? 0 : -ENOMEM;
}

void wan_link_fini(struct wan_link *link)
{
	free(link->ring);
	*link = (struct wan_link){ 0 };
}

void wan_link_set(struct wan_link *link, uint64_t now_ns, const struct wan_link_conf *conf)
{
	assert(conf->rate_bps);
	serialise(link, now_ns);
	link->conf = *conf;
}

void wan_link_cut(struct wan_link *link, bool cut)
{
	link->cut = cut;
	if (!cut)
		return;
	for (; link->head != link->tail; link->head++)
		link->stats.cut_drops += slot_at(link, link->head)->len != 0;
	link->ser = link->tail;
	link->waiting_bytes = 0;
	link->free_ns = 0;
	link->last_ns = 0;
}

void *wan_link_slot(struct wan_link *link)
{
	if (link->tail - link->head == link->slots && grow(link) < 0)
		return NULL;
	return slot_at(link, link->tail)->data;
}

void wan_link_push(struct wan_link *link, uint64_t now_ns, size_t len)
{
	struct wan_pkt *pkt = slot_at(link, link->tail);

	assert(len && len <= link->mtu && link->tail - link->head < link->slots);
	if (link->cut) {
		link->stats.cut_drops++;
		return;
	}
	serialise(link, now_ns);
	if (link->waiting_bytes && link->waiting_bytes + len > link->conf.queue_bytes) {
		link->stats.tail_drops++;
		return;
	}
	pkt->at_ns = now_ns;
	pkt->len = (uint32_t)len;
	link->waiting_bytes += len;
	link->tail++;
}

void wan_link_refuse(struct wan_link *link)
{
	if (link->cut)
		link->stats.cut_drops++;
	else
		link->stats.tail_drops++;
}

const void *wan_link_peek(struct wan_link *link, uint64_t now_ns, size_t *ret_len)
{
	serialise(link, now_ns);
	for (; link->head != link->ser; link->head++) {
		const struct wan_pkt *pkt = slot_at(link, link->head);

		if (pkt->at_ns > now_ns)
			return NULL;
		if (pkt->len) {
			*ret_len = pkt->len;
			return pkt->data;
		}
	}
	return NULL;
}

void wan_link_pop(struct wan_link *link)
{
	assert(link->head != link->ser);
	link->stats.delivered++;
	link->stats.delivered_bytes += slot_at(link, link->head)->len;
	link->head++;
}

uint64_t wan_link_next_ns(const struct wan_link *link)
{
	const struct wan_pkt *pkt = slot_at(link, link->head);

	if (link->head == link->tail)
		return WAN_NEVER;
	if (link->head != link->ser)
		return pkt->at_ns;
	return max_u64(link->free_ns, pkt->at_ns) + link->conf.delay_ns;
}

uint64_t wan_link_backlog(struct wan_link *link, uint64_t now_ns)
{
	serialise(link, now_ns);
	return link->waiting_bytes;
}
