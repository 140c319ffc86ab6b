// SPDX-License-Identifier: Apache-2.0
/*
 * What SCSI answers mean: sense data and status → what to do, and the parameter data of the few
 * commands that are asked at login. All of it works on bytes a target sent, so nothing here
 * trusts a length: data that is too short is refused (-EBADMSG), never read past. Pure; any thread.
 */
#ifndef TRANSPORT_ISCSI_SCSI_H
#define TRANSPORT_ISCSI_SCSI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct iscsi_sense {
	uint8_t key;   /* SPC-4 table 55; 0 = no sense */
	uint16_t code; /* ASC << 8 | ASCQ */
	bool deferred; /* of an earlier command; the one that got it was not performed (SPC-4 4.5.6)
			*/
};

enum iscsi_action {
	ISCSI_DONE,
	ISCSI_RETRY,         /* send again at once */
	ISCSI_RETRY_LATER,   /* send again after a growing pause, without end */
	ISCSI_RETRY_LIMITED, /* the same, but after some tries fail with the verdict's error */
	ISCSI_POWER_ON,      /* volatile data may be gone (29h, deferred error); then as RETRY */
	ISCSI_READ_CAPACITY, /* 2Ah/09h: read the capacity again; then as RETRY */
	ISCSI_IDENTIFY,      /* 3Fh/0Eh and like: find out who this is; then as RETRY */
	ISCSI_RESERVATION,   /* 2Ah/03h to 05h: see who holds the reservation; then as RETRY */
	ISCSI_CONFLICT,    /* refused for a reservation; the verdict's error where there is none */
	ISCSI_RECONNECT,   /* the LUN is not there (any more): log in again */
	ISCSI_UNSUPPORTED, /* ILLEGAL REQUEST: this command will never work here */
	ISCSI_FAIL,        /* with the verdict's error */
};

struct iscsi_verdict {
	enum iscsi_action action;
	int error;        /* -errno for FAIL, CONFLICT, RETRY_LIMITED and UNSUPPORTED; else 0 */
	bool begun;       /* it may have been tried, and failed; false: not even looked at */
	const char *what; /* for the log; static */
};

/*
 * Sense data in fixed or descriptor format (SPC-4 4.5), without the two length bytes of the iSCSI
 * response. False when there is none or it is too short; *ret is then all zero.
 */
bool iscsi_scsi_sense(const uint8_t *data, size_t length, struct iscsi_sense *ret);

/*
 * What to do with a command that ended with SAM-5 @status (5.3.1). @sense counts only for CHECK
 * CONDITION. Unknown status bytes and sense keys fail with -EIO.
 */
struct iscsi_verdict iscsi_scsi_judge(unsigned status, const struct iscsi_sense *sense);

struct iscsi_capacity {
	uint64_t blocks; /* > 0 */
	uint32_t block_bytes;
	bool thin;       /* LBPME */
	bool reads_zero; /* LBPRZ of READ CAPACITY (16) */
};

/*
 * READ CAPACITY (16) (SBC-3 5.16) and (10) (5.15) data. 0; -EBADMSG when short; -ENOTSUP for a
 * block size other than 512, 1024, 2048 or 4096 or with protection information; -EOVERFLOW when
 * the size in bytes exceeds 2^63 - 1 and, for (10), when the LUN is too large for that command.
 */
int iscsi_scsi_capacity16(const uint8_t *data, size_t length, struct iscsi_capacity *ret);
int iscsi_scsi_capacity10(const uint8_t *data, size_t length, struct iscsi_capacity *ret);

struct iscsi_limits {
	uint64_t write_same_blocks; /* longest WRITE SAME; 0 = not said */
	uint32_t unmap_granularity; /* blocks; 0 = not said */
	bool unmap_aligned_at_zero; /* granules start at LBA 0 */
};

/* VPD page B0h (SBC-3 6.5.3). 0 or -EBADMSG; fields that a short old page lacks are 0. */
int iscsi_scsi_limits(const uint8_t *data, size_t length, struct iscsi_limits *ret);

struct iscsi_provisioning {
	bool unmap;      /* LBPU */
	bool write_same; /* LBPWS: WRITE SAME (16) with UNMAP */
	bool reads_zero; /* LBPRZ */
};

/* VPD page B2h (SBC-3 6.5.4). 0 or -EBADMSG. */
int iscsi_scsi_provisioning(const uint8_t *data, size_t length, struct iscsi_provisioning *ret);

struct iscsi_mode {
	bool write_protected; /* WP */
	bool fua;             /* DPOFUA */
	bool caching_page;    /* page 08h was there */
	bool write_cache;     /* its WCE; true without the page */
};

/* MODE SENSE (6) data with page 08h or 3Fh (SPC-4 7.5, SBC-3 6.4.5). 0 or -EBADMSG. */
int iscsi_scsi_mode(const uint8_t *data, size_t length, struct iscsi_mode *ret);

struct iscsi_inquiry {
	uint8_t qualifier; /* 0 = a LUN is there */
	uint8_t type;      /* 0 = direct access block device */
	char vendor[9];    /* trimmed, printable */
	char product[17];
};

/* Standard INQUIRY data (SPC-4 6.6.2). 0 or -EBADMSG. */
int iscsi_scsi_inquiry(const uint8_t *data, size_t length, struct iscsi_inquiry *ret);

/*
 * VPD page 80h (SPC-4 7.8.15): the serial number, trimmed, unprintable bytes as '.', cut to fit.
 * 0 or -EBADMSG.
 */
int iscsi_scsi_serial(const uint8_t *data, size_t length, char *ret, size_t size);

/*
 * VPD page 83h (SPC-4 7.8.6): the designators of the logical unit, comma separated, as
 * "t10.TEXT", "eui.HEX", "naa.HEX", "name.TEXT". Those of ports and devices are left out: they
 * depend on the path. Designators that do not fit are left out whole. 0 or -EBADMSG.
 */
int iscsi_scsi_designators(const uint8_t *data, size_t length, char *ret, size_t size);

/*
 * REPORT LUNS data (SPC-4 6.33): up to @max numbers of single-level LUNs below 16384. Returns how
 * many were stored, or -EBADMSG.
 */
int iscsi_scsi_luns(const uint8_t *data, size_t length, uint16_t *ret, unsigned max);

/* The 16-bit LUN field (SAM-5 4.7): peripheral addressing below 256, flat from there on. */
int iscsi_scsi_lun_field(uint16_t lun);

/* What a login settled; start with iscsi_negotiated_init(). Lengths in bytes. */
struct iscsi_negotiated {
	uint32_t first_burst;
	uint32_t max_burst;
	uint32_t target_segment; /* the target's MaxRecvDataSegmentLength */
	uint32_t portal_group;   /* TargetPortalGroupTag; ISCSI_GROUP_UNKNOWN if it was not said */
	bool initial_r2t;
	bool immediate_data;
};
#define ISCSI_GROUP_UNKNOWN UINT32_MAX

/* What libiscsi 1.19 assumes for keys the target does not answer. */
void iscsi_negotiated_init(struct iscsi_negotiated *ret);

/* One log line of libiscsi ("TargetLoginReply: Key=Value …", RFC 7143 13). Other lines do nothing.
 */
void iscsi_negotiated_line(struct iscsi_negotiated *neg, const char *line);

/*
 * The most that one WRITE carries without waiting for an R2T, in bytes: at least @sector_bytes, a
 * multiple of it, at most 1 MiB.
 */
uint32_t iscsi_negotiated_one_trip(const struct iscsi_negotiated *neg, uint32_t sector_bytes);

#endif
