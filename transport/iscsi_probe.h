// SPDX-License-Identifier: Apache-2.0
/* What a LUN is and can do, asked over one logged-in connection with nothing else in flight. */
#ifndef TRANSPORT_ISCSI_PROBE_H
#define TRANSPORT_ISCSI_PROBE_H

#include <stdbool.h>
#include <stdint.h>

#include "core/block.h"
#include "core/err.h"
#include "transport/iscsi_conn.h"

struct iscsi_lun {
	uint64_t size_bytes;
	uint32_t sector_bytes;
	bool write_protected;
	bool write_cache; /* writes need SYNCHRONIZE CACHE to be durable */
	bool cache_said;  /* the target said which; else write_cache is an assumption */
	bool fua;
	bool discard;               /* WRITE SAME (16) with UNMAP, and blocks then read as zeroes */
	uint64_t write_same_blocks; /* longest; 0 = not said */
	uint32_t discard_align_bytes;
	uint64_t rtt_ns; /* of the quickest command asked */
	char vendor[9];
	char product[17];
	char identity[BLK_IDENTITY_MAX];
};

/*
 * Ask all of it. 0; -ENODEV (no such LUN; @err lists those there are), -ENOTSUP (not a disk, odd
 * sector size), -EREMOTEIO (the target refuses), -EBADMSG (nonsense), or a connection error as from
 * iscsi_conn_run(), all with @err. Drop the connection after anything but 0.
 */
int iscsi_probe(struct iscsi_conn *conn, const char *target, uint16_t lun, uint64_t deadline_ns,
		struct iscsi_lun *ret, struct err *err);

/*
 * Ask once more for the write cache and write protection in *@lun: some targets tell a registered
 * initiator only. 0 or a connection error.
 */
int iscsi_probe_mode(struct iscsi_conn *conn, uint64_t deadline_ns, struct iscsi_lun *lun);

/* Take the UNIT ATTENTIONs that wait, by TEST UNIT READY. 0 or as iscsi_conn_run(). */
int iscsi_probe_attention(struct iscsi_conn *conn, uint64_t deadline_ns);

/* REPORT LUNS: up to @max numbers. How many, or -errno. */
int iscsi_probe_luns(struct iscsi_conn *conn, uint64_t deadline_ns, uint16_t *ret, unsigned max);

#endif
