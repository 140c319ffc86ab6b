// SPDX-License-Identifier: Apache-2.0
#include "transport/iscsi_pr.h"

#include <errno.h>
#include <string.h>

#include "core/cleanup.h"

#define OPCODE_IN 0x5e
#define OPCODE_OUT 0x5f
/* Of every answer but the capabilities: generation and the length of the rest. */
#define HEADER_BYTES 8
/* A full status descriptor up to its TransportID (SPC-4 table 227). */
#define STATUS_BYTES 24
/* A TransportID up to the name (SPC-4 7.6.4.6), and what it says it is. */
#define ID_BYTES 4
#define ID_PROTOCOL 0x0f
#define ID_ISCSI 5

static uint16_t be16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static uint32_t be32(const uint8_t *p)
{
	return (uint32_t)be16(p) << 16 | be16(p + 2);
}

static uint64_t be64(const uint8_t *p)
{
	return (uint64_t)be32(p) << 32 | be32(p + 4);
}

static void put_be64(uint8_t *p, uint64_t v)
{
	for (int i = 7; i >= 0; i--, v >>= 8)
		p[i] = (uint8_t)v;
}

void iscsi_pr_in_cdb(enum iscsi_pr_in action, uint16_t length, uint8_t cdb[ISCSI_PR_CDB_BYTES])
{
	memset(cdb, 0, ISCSI_PR_CDB_BYTES);
	cdb[0] = OPCODE_IN;
	cdb[1] = (uint8_t)action;
	cdb[7] = (uint8_t)(length >> 8);
	cdb[8] = (uint8_t)length;
}

void iscsi_pr_out_cdb(enum iscsi_pr_out action, uint8_t cdb[ISCSI_PR_CDB_BYTES])
{
	memset(cdb, 0, ISCSI_PR_CDB_BYTES);
	cdb[0] = OPCODE_OUT;
	cdb[1] = (uint8_t)action;
	/* Scope 0, the logical unit. Where the action knows no type the field is ignored. */
	cdb[2] = ISCSI_PR_TYPE;
	cdb[8] = ISCSI_PR_OUT_BYTES;
}

void iscsi_pr_out_data(uint64_t key, uint64_t action_key, bool persist,
		       uint8_t data[ISCSI_PR_OUT_BYTES])
{
	memset(data, 0, ISCSI_PR_OUT_BYTES);
	put_be64(data, key);
	put_be64(data + 8, action_key);
	data[20] = persist;
}

/* How many bytes follow the header: as said, but no more than there are. -EBADMSG without one. */
static int rest_of(const uint8_t *data, size_t length)
{
	size_t there;

	if (length < HEADER_BYTES)
		return -EBADMSG;
	there = MIN(length, (size_t)ISCSI_PR_IN_BYTES) - HEADER_BYTES;
	return (int)MIN((size_t)be32(data + 4), there);
}

int iscsi_pr_reservation(const uint8_t *data, size_t length, struct iscsi_pr_reservation *ret)
{
	int rest = rest_of(data, length);

	if (rest < 0)
		return rest;
	*ret = (struct iscsi_pr_reservation){ .generation = be32(data) };
	if (be32(data + 4) == 0)
		return 0;
	/* A holder is announced: less than its descriptor must not read as "nobody". */
	if (rest < 16)
		return -EBADMSG;
	ret->held = true;
	ret->key = be64(data + 8);
	ret->type = data[21] & 0x0f;
	return 0;
}

int iscsi_pr_keys(const uint8_t *data, size_t length, uint64_t *ret, unsigned max)
{
	int rest = rest_of(data, length);
	unsigned n = 0;

	if (rest < 0)
		return rest;
	for (int at = 0; at + 8 <= rest && n < max; at += 8)
		ret[n++] = be64(data + HEADER_BYTES + at);
	return (int)n;
}

int iscsi_pr_abilities(const uint8_t *data, size_t length, struct iscsi_pr_abilities *ret)
{
	if (length < 8 || be16(data) < 8)
		return -EBADMSG;
	ret->persists = data[2] & 0x01;
	/* The mask of types is only valid if TMV says so. */
	ret->has_type = !(data[3] & 0x80) || (data[4] & 0x20);
	return 0;
}

/* The name in a TransportID, up to the ISID that may follow it; 0 if there is none. */
static size_t copy_name(const uint8_t *id, size_t length, char *ret, size_t size)
{
	size_t n = 0;

	if (length < ID_BYTES || (id[0] & ID_PROTOCOL) != ID_ISCSI)
		return 0;
	length = MIN(length, ID_BYTES + (size_t)be16(id + 2));
	if (length == ID_BYTES || id[ID_BYTES] == '\0' || id[ID_BYTES] == ',')
		return 0;
	for (size_t at = ID_BYTES; at < length && n + 1 < size; at++, n++) {
		if (id[at] == '\0' || id[at] == ',')
			break;
		ret[n] = id[at] >= 0x21 && id[at] <= 0x7e ? (char)id[at] : '.';
	}
	if (size)
		ret[n] = '\0';
	return n;
}

int iscsi_pr_name(const uint8_t *data, size_t length, uint64_t key, char *ret, size_t size)
{
	int rest = rest_of(data, length);
	size_t end, at = HEADER_BYTES;
	bool found = false;

	if (rest < 0)
		return rest;
	end = HEADER_BYTES + (size_t)rest;
	while (end - at >= STATUS_BYTES) {
		const uint8_t *d = data + at;
		size_t more = MIN((size_t)be32(d + 20), end - at - STATUS_BYTES);
		bool holder = d[12] & 0x01;

		if (be64(d) == key && (!found || holder) &&
		    copy_name(d + STATUS_BYTES, more, ret, size))
			found = true;
		at += STATUS_BYTES + more;
	}
	return found ? 0 : -ENOENT;
}
