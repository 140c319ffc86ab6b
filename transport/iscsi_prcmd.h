// SPDX-License-Identifier: Apache-2.0
/*
 * PERSISTENT RESERVE IN and OUT on a session that carries nothing else; for iscsi_reserve.c. All of
 * it runs on the session's thread, without pool->lock. Errors: -EBUSY a RESERVATION CONFLICT,
 * -EOPNOTSUPP the target does not know the command, -EIO another refusal, -EBADMSG nonsense,
 * -ENOMEM; after any other one the connection must go.
 */
#ifndef TRANSPORT_ISCSI_PRCMD_H
#define TRANSPORT_ISCSI_PRCMD_H

#include "transport/iscsi_impl.h"

/* Distinct keys that are looked at; a target with more initiators than this is no private disk. */
#define ISCSI_PRCMD_KEYS 64
#define ISCSI_PRCMD_WHO_BYTES 320

/* What the target says of registrations and reservation. */
struct iscsi_prcmd_survey {
	struct iscsi_pr_reservation now;
	uint64_t key[ISCSI_PRCMD_KEYS]; /* distinct, the holder's first */
	unsigned keys;
};

/* Ask who holds the reservation; and that with all keys that are registered. 0 or -errno. */
int iscsi_prcmd_reservation(struct iscsi_session *s, uint64_t deadline_ns,
			    struct iscsi_pr_reservation *ret);
int iscsi_prcmd_survey(struct iscsi_session *s, uint64_t deadline_ns,
		       struct iscsi_prcmd_survey *ret);

/*
 * PERSISTENT RESERVE OUT with our key; @action_key is the one to register or preempt, else 0.
 * Counts in owner.attempts what may move PRGENERATION. 0 or -errno.
 */
int iscsi_prcmd_tell(struct iscsi_session *s, enum iscsi_pr_out action, uint64_t action_key,
		     uint64_t deadline_ns);

/* Register our key for this session, to be kept over a power loss where that works; unregister it.
 */
int iscsi_prcmd_enroll(struct iscsi_session *s, uint64_t deadline_ns);
int iscsi_prcmd_leave(struct iscsi_session *s, uint64_t deadline_ns);

/* "key 0x..., registered by iqn...": as far as the target tells. */
void iscsi_prcmd_who(struct iscsi_session *s, uint64_t key, uint64_t deadline_ns,
		     char ret[ISCSI_PRCMD_WHO_BYTES]);

/* Set owner.persists. 0; -EOPNOTSUPP: it has not the type we use; a connection error. */
int iscsi_prcmd_abilities(struct iscsi_session *s, uint64_t deadline_ns);

#endif
