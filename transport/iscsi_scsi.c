// SPDX-License-Identifier: Apache-2.0
#include "transport/iscsi_scsi.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/cleanup.h"
#include "core/range.h"

#define MIB (1u << 20)

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

bool iscsi_scsi_sense(const uint8_t *data, size_t length, struct iscsi_sense *ret)
{
	*ret = (struct iscsi_sense){ 0 };
	if (length < 1)
		return false;
	switch (data[0] & 0x7f) {
	case 0x70:
	case 0x71:
		if (length < 3)
			return false;
		ret->deferred = (data[0] & 0x7f) == 0x71;
		ret->key = data[2] & 0x0f;
		/* Old devices stop before the additional sense code. */
		ret->code = length >= 14 ? be16(data + 12) : 0;
		return true;
	case 0x72:
	case 0x73:
		if (length < 4)
			return false;
		ret->deferred = (data[0] & 0x7f) == 0x73;
		ret->key = data[1] & 0x0f;
		ret->code = be16(data + 2);
		return true;
	default:
		return false;
	}
}

static struct iscsi_verdict verdict(enum iscsi_action action, int error, const char *what)
{
	return (struct iscsi_verdict){ .action = action, .error = error, .what = what };
}

static struct iscsi_verdict judge_attention(uint16_t code)
{
	switch (code >> 8) {
	case 0x29:
		return verdict(ISCSI_POWER_ON, 0, "power on, reset or nexus loss");
	case 0x2a:
		if (code == 0x2a09)
			return verdict(ISCSI_READ_CAPACITY, 0, "capacity changed");
		if (code >= 0x2a03 && code <= 0x2a05)
			return verdict(ISCSI_RESERVATION, 0,
				       "reservations or registrations changed");
		/* Mode parameters: the write cache may have been switched. */
		return verdict(ISCSI_IDENTIFY, 0, "parameters changed");
	case 0x3f:
		/* 0Eh LUNs changed, 03h inquiry data, 05h device identifier */
		return verdict(ISCSI_IDENTIFY, 0, "the target's LUNs or identity changed");
	default:
		return verdict(ISCSI_RETRY, 0, "unit attention");
	}
}

static struct iscsi_verdict judge_not_ready(uint16_t code)
{
	if (code >> 8 == 0x3a)
		return verdict(ISCSI_FAIL, -EIO, "medium not present");
	/* Becoming ready, standby, path transition, formatting: all of it passes. */
	return verdict(ISCSI_RETRY_LATER, 0, "logical unit not ready");
}

static struct iscsi_verdict judge_illegal(uint16_t code)
{
	if (code >> 8 == 0x25)
		return verdict(ISCSI_RECONNECT, 0, "logical unit not supported");
	if (code >> 8 == 0x21)
		return verdict(ISCSI_FAIL, -EIO, "block address out of range");
	return verdict(ISCSI_UNSUPPORTED, -EIO, "illegal request");
}

static struct iscsi_verdict judge_sense(const struct iscsi_sense *sense)
{
	switch (sense->key) {
	case 0x0: /* NO SENSE */
	case 0x1: /* RECOVERED ERROR: the data is right */
		return verdict(ISCSI_DONE, 0, "recovered error");
	case 0x2:
		return judge_not_ready(sense->code);
	case 0x3:
		return verdict(ISCSI_FAIL, -EIO, "medium error");
	case 0x4:
		return verdict(ISCSI_FAIL, -EIO, "hardware error");
	case 0x5:
		return judge_illegal(sense->code);
	case 0x6:
		return judge_attention(sense->code);
	case 0x7:
		/* 27h/07h: the thin pool is full. Space comes back when someone makes room. */
		if (sense->code == 0x2707)
			return verdict(ISCSI_RETRY_LATER, 0, "no space left in the target's pool");
		if (sense->code >> 8 == 0x27)
			return verdict(ISCSI_FAIL, -EROFS, "write protected");
		return verdict(ISCSI_FAIL, -EACCES, "access denied");
	case 0xb:
		return verdict(ISCSI_RETRY_LIMITED, -EIO, "command aborted");
	default:
		return verdict(ISCSI_FAIL, -EIO, "unexpected sense key");
	}
}

static struct iscsi_verdict judge_check_condition(const struct iscsi_sense *sense)
{
	struct iscsi_verdict v;

	if (sense->deferred)
		return verdict(ISCSI_POWER_ON, 0, "an earlier command failed after its answer");
	/* Without readable sense data it tells nothing: not a success. */
	v = sense->key || sense->code ? judge_sense(sense)
				      : verdict(ISCSI_RETRY_LIMITED, -EIO, "no sense data");
	v.begun = sense->key != 0x6;
	return v;
}

struct iscsi_verdict iscsi_scsi_judge(unsigned status, const struct iscsi_sense *sense)
{
	switch (status) {
	case 0x00:
	case 0x04: /* CONDITION MET */
		return verdict(ISCSI_DONE, 0, "good");
	case 0x02:
		return judge_check_condition(sense);
	case 0x08:
		return verdict(ISCSI_RETRY_LATER, 0, "busy");
	case 0x18:
		return verdict(ISCSI_CONFLICT, -EACCES, "reserved by another initiator");
	case 0x28:
		return verdict(ISCSI_RETRY_LATER, 0, "task set full");
	case 0x30:
		return verdict(ISCSI_RETRY_LIMITED, -EIO, "ACA active");
	case 0x40:
		return (struct iscsi_verdict){ ISCSI_RETRY, 0, true,
					       "task aborted by another initiator" };
	default:
		return verdict(ISCSI_FAIL, -EIO, "unknown status");
	}
}

static int check_capacity(struct iscsi_capacity *c)
{
	if (!is_pow2(c->block_bytes) || c->block_bytes < 512 || c->block_bytes > 4096)
		return -ENOTSUP;
	if (!c->blocks || c->blocks > INT64_MAX / c->block_bytes)
		return -EOVERFLOW;
	return 0;
}

int iscsi_scsi_capacity16(const uint8_t *data, size_t length, struct iscsi_capacity *ret)
{
	struct iscsi_capacity c;
	int r;

	if (length < 12)
		return -EBADMSG;
	/* The last LBA; all ones + 1 wraps to 0 blocks, which is refused. */
	c.blocks = be64(data) + 1;
	c.block_bytes = be32(data + 8);
	c.thin = length >= 15 && (data[14] & 0x80);
	c.reads_zero = length >= 15 && (data[14] & 0x40);
	if (length >= 13 && (data[12] & 0x01))
		return -ENOTSUP;
	r = check_capacity(&c);
	if (r == 0)
		*ret = c;
	return r;
}

int iscsi_scsi_capacity10(const uint8_t *data, size_t length, struct iscsi_capacity *ret)
{
	struct iscsi_capacity c = { 0 };
	int r;

	if (length < 8)
		return -EBADMSG;
	if (be32(data) == UINT32_MAX)
		return -EOVERFLOW;
	c.blocks = (uint64_t)be32(data) + 1;
	c.block_bytes = be32(data + 4);
	r = check_capacity(&c);
	if (r == 0)
		*ret = c;
	return r;
}

/* The payload of VPD page @page: its length, or -EBADMSG. */
static int vpd_payload(const uint8_t *data, size_t length, uint8_t page)
{
	size_t said;

	if (length < 4 || data[1] != page)
		return -EBADMSG;
	said = be16(data + 2);
	return (int)MIN(said, length - 4);
}

int iscsi_scsi_limits(const uint8_t *data, size_t length, struct iscsi_limits *ret)
{
	struct iscsi_limits l = { .unmap_aligned_at_zero = true };
	int n = vpd_payload(data, length, 0xb0);

	if (n < 0)
		return n;
	length = (size_t)n + 4;
	if (length >= 32)
		l.unmap_granularity = be32(data + 28);
	if (length >= 36 && (data[32] & 0x80))
		l.unmap_aligned_at_zero = (be32(data + 32) & 0x7fffffff) == 0;
	if (length >= 44)
		l.write_same_blocks = be64(data + 36);
	*ret = l;
	return 0;
}

int iscsi_scsi_provisioning(const uint8_t *data, size_t length, struct iscsi_provisioning *ret)
{
	int n = vpd_payload(data, length, 0xb2);

	if (n < 2)
		return -EBADMSG;
	ret->unmap = data[5] & 0x80;
	ret->write_same = data[5] & 0x40;
	/* SBC-3 has one bit of LBPRZ (04h); SBC-4 made it three, of which xx1b still means zeroes.
	 */
	ret->reads_zero = data[5] & 0x04;
	return 0;
}

int iscsi_scsi_mode(const uint8_t *data, size_t length, struct iscsi_mode *ret)
{
	struct iscsi_mode m = { .write_cache = true };
	size_t at, end;

	if (length < 4)
		return -EBADMSG;
	m.write_protected = data[2] & 0x80;
	m.fua = data[2] & 0x10;
	end = MIN((size_t)data[0] + 1, length);
	for (at = 4 + (size_t)data[3]; at + 2 < end; at += 2 + (size_t)data[at + 1]) {
		if (data[at] & 0x40)
			break; /* a subpage has another header; page 08h comes before those asked */
		if ((data[at] & 0x3f) == 0x08) {
			m.caching_page = true;
			m.write_cache = data[at + 2] & 0x04;
		}
	}
	*ret = m;
	return 0;
}

/* Copy @length bytes as printable text without outer blanks; always terminated. */
static void copy_text(const uint8_t *data, size_t length, char *ret, size_t size)
{
	size_t n = 0;

	while (length && (data[length - 1] == ' ' || data[length - 1] == '\0'))
		length--;
	while (length && (*data == ' ' || *data == '\0')) {
		data++;
		length--;
	}
	for (; n < length && n + 1 < size; n++)
		ret[n] = data[n] >= 0x21 && data[n] <= 0x7e ? (char)data[n]
							    : (data[n] == ' ' ? '_' : '.');
	ret[n] = '\0';
}

int iscsi_scsi_inquiry(const uint8_t *data, size_t length, struct iscsi_inquiry *ret)
{
	if (length < 36)
		return -EBADMSG;
	ret->qualifier = data[0] >> 5;
	ret->type = data[0] & 0x1f;
	copy_text(data + 8, 8, ret->vendor, sizeof(ret->vendor));
	copy_text(data + 16, 16, ret->product, sizeof(ret->product));
	return 0;
}

int iscsi_scsi_serial(const uint8_t *data, size_t length, char *ret, size_t size)
{
	int n = vpd_payload(data, length, 0x80);

	if (n < 0)
		return n;
	copy_text(data + 4, (size_t)n, ret, size);
	return 0;
}

static void format_designator(const uint8_t *d, char *ret, size_t size)
{
	static const char *const prefix[16] = {
		[1] = "t10.", [2] = "eui.", [3] = "naa.", [8] = "name."
	};
	unsigned type = d[1] & 0x0f;
	size_t length = d[3];
	int n;

	*ret = '\0';
	if (!prefix[type])
		return;
	n = snprintf(ret, size, "%s", prefix[type]);
	if (type == 1 || type == 8) {
		copy_text(d + 4, length, ret + n, size - (size_t)n);
		return;
	}
	for (size_t i = 0; i < length && (size_t)n + 3 <= size; i++)
		n += snprintf(ret + n, size - (size_t)n, "%02x", d[4 + i]);
}

int iscsi_scsi_designators(const uint8_t *data, size_t length, char *ret, size_t size)
{
	int payload = vpd_payload(data, length, 0x83);
	size_t at = 4, used = 0;

	if (payload < 0)
		return payload;
	length = (size_t)payload + 4;
	ret[0] = '\0';
	while (at + 4 <= length && at + 4 + data[at + 3] <= length) {
		const uint8_t *d = data + at;
		char text[600];

		at += 4 + (size_t)d[3];
		if ((d[1] >> 4 & 3) != 0)
			continue; /* of a port or of the device, not of the LUN */
		format_designator(d, text, sizeof(text));
		if (!*text || used + strlen(text) + 2 > size)
			continue;
		used += (size_t)snprintf(ret + used, size - used, "%s%s", used ? "," : "", text);
	}
	return 0;
}

int iscsi_scsi_luns(const uint8_t *data, size_t length, uint16_t *ret, unsigned max)
{
	unsigned n = 0;
	size_t end;

	if (length < 8)
		return -EBADMSG;
	end = MIN(length, (size_t)8 + be32(data));
	for (size_t at = 8; at + 8 <= end && n < max; at += 8) {
		uint16_t field = be16(data + at);

		if (field >> 14 == 0 && field < 256)
			ret[n++] = field;
		else if (field >> 14 == 1)
			ret[n++] = field & 0x3fff;
	}
	return (int)n;
}

int iscsi_scsi_lun_field(uint16_t lun)
{
	return lun < 256 ? lun : 0x4000 | lun;
}

void iscsi_negotiated_init(struct iscsi_negotiated *ret)
{
	*ret = (struct iscsi_negotiated){
		.first_burst = 262144,
		.max_burst = 262144,
		.target_segment = 8192,
		.portal_group = ISCSI_GROUP_UNKNOWN,
		.initial_r2t = true,
		.immediate_data = true,
	};
}

/* Lengths are 512 to 2^24 - 1 (RFC 7143 13.12 to 13.14); anything else leaves the field as it is.
 */
static void set_length(uint32_t *field, const char *value)
{
	unsigned long v = strtoul(value, NULL, 10);

	if (v >= 512 && v < 1u << 24)
		*field = (uint32_t)v;
}

void iscsi_negotiated_line(struct iscsi_negotiated *neg, const char *line)
{
	static const char mark[] = "TargetLoginReply: ";
	const char *key, *value;

	if (strncmp(line, mark, sizeof(mark) - 1) != 0)
		return;
	key = line + sizeof(mark) - 1;
	value = strchr(key, '=');
	if (!value)
		return;
	value++;
	if (!strncmp(key, "FirstBurstLength=", 17))
		set_length(&neg->first_burst, value);
	else if (!strncmp(key, "MaxBurstLength=", 15))
		set_length(&neg->max_burst, value);
	else if (!strncmp(key, "MaxRecvDataSegmentLength=", 25))
		set_length(&neg->target_segment, value);
	else if (!strncmp(key, "InitialR2T=", 11))
		neg->initial_r2t = strncmp(value, "No", 2) != 0;
	else if (!strncmp(key, "ImmediateData=", 14))
		neg->immediate_data = strncmp(value, "No", 2) != 0;
	else if (!strncmp(key, "TargetPortalGroupTag=", 21))
		neg->portal_group = (uint32_t)strtoul(value, NULL, 10);
}

uint32_t iscsi_negotiated_one_trip(const struct iscsi_negotiated *neg, uint32_t sector_bytes)
{
	uint32_t n;

	if (!neg->initial_r2t)
		n = neg->first_burst;
	else if (neg->immediate_data)
		n = MIN(neg->first_burst, neg->target_segment);
	else
		n = neg->max_burst; /* every WRITE waits for its R2T: the first one grants this */
	n = MIN(n, MIB);
	return MAX((uint32_t)round_down(n, sector_bytes), sector_bytes);
}
