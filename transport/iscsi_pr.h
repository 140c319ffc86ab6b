// SPDX-License-Identifier: Apache-2.0
/*
 * Persistent reservations (SPC-4 5.13, 6.15, 6.16): the bytes of PERSISTENT RESERVE IN and OUT. All
 * of it works on what a target sent, so no length is trusted: data that is too short is refused
 * (-EBADMSG), never read past. Pure; any thread.
 */
#ifndef TRANSPORT_ISCSI_PR_H
#define TRANSPORT_ISCSI_PR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Write Exclusive - Registrants Only: every session of the owner may write, nobody else. */
#define ISCSI_PR_TYPE 5
#define ISCSI_PR_CDB_BYTES 10
#define ISCSI_PR_OUT_BYTES 24
#define ISCSI_PR_RESERVATION_BYTES 24
/* What is asked for of a list: an allocation length is 16 bits. */
#define ISCSI_PR_IN_BYTES 65528

enum iscsi_pr_in {
	ISCSI_PR_READ_KEYS = 0,
	ISCSI_PR_READ_RESERVATION = 1,
	ISCSI_PR_REPORT_CAPABILITIES = 2,
	ISCSI_PR_READ_FULL_STATUS = 3,
};

enum iscsi_pr_out {
	ISCSI_PR_RESERVE = 1,
	ISCSI_PR_RELEASE = 2,
	ISCSI_PR_PREEMPT = 4,
	ISCSI_PR_PREEMPT_AND_ABORT = 5,
	ISCSI_PR_REGISTER_AND_IGNORE = 6,
};

/* The CDB that asks for up to @length bytes. */
void iscsi_pr_in_cdb(enum iscsi_pr_in action, uint16_t length, uint8_t cdb[ISCSI_PR_CDB_BYTES]);

/*
 * The CDB and its parameter list: @key is ours as registered before, @action_key the one to
 * register (0: unregister) or to preempt. @persist: APTPL, survive a power loss of the target;
 * REGISTER only.
 */
void iscsi_pr_out_cdb(enum iscsi_pr_out action, uint8_t cdb[ISCSI_PR_CDB_BYTES]);
void iscsi_pr_out_data(uint64_t key, uint64_t action_key, bool persist,
		       uint8_t data[ISCSI_PR_OUT_BYTES]);

struct iscsi_pr_reservation {
	uint32_t generation; /* PRGENERATION: moves with every REGISTER, PREEMPT and CLEAR of
				anybody */
	bool held;
	uint64_t key; /* of the holder; 0 where all registrants are (types 7 and 8) */
	uint8_t type; /* 0 unless held */
};

/* READ RESERVATION data. 0 or -EBADMSG. */
int iscsi_pr_reservation(const uint8_t *data, size_t length, struct iscsi_pr_reservation *ret);

/*
 * READ KEYS data: up to @max keys that are there, one per registration, so one key may come often.
 * Returns how many were stored, or -EBADMSG.
 */
int iscsi_pr_keys(const uint8_t *data, size_t length, uint64_t *ret, unsigned max);

struct iscsi_pr_abilities {
	bool persists; /* PTPL_C: reservations can survive a power loss of the target */
	bool has_type; /* ISCSI_PR_TYPE, as far as it is said */
};

/* REPORT CAPABILITIES data. 0 or -EBADMSG. */
int iscsi_pr_abilities(const uint8_t *data, size_t length, struct iscsi_pr_abilities *ret);

/*
 * READ FULL STATUS data: the iSCSI name of the initiator that registered @key, printable, without
 * its ISID; of several the holder's. 0; -ENOENT if there is none with a name; -EBADMSG.
 */
int iscsi_pr_name(const uint8_t *data, size_t length, uint64_t key, char *ret, size_t size);

#endif
