// SPDX-License-Identifier: Apache-2.0
/*
 * Ownership of the volume by a persistent reservation; for the files of the iscsi device. What is
 * held, and what happens when somebody else takes it, is said in iscsi_reserve.c.
 */
#ifndef TRANSPORT_ISCSI_RESERVE_H
#define TRANSPORT_ISCSI_RESERVE_H

#include "transport/iscsi_impl.h"

/* As pool->conf.owner says; before any session is started. */
void iscsi_reserve_init(struct iscsi_pool *pool);

/*
 * On the thread of @s, which has just logged in to @lun and carries nothing yet: make sure that we
 * are the owner and that this session may write. May correct in *@lun what the target tells only
 * those who may. 0; -ESTALE: somebody else is by now (iscsi_reserve_lose() was called), or was
 * while we were away; -EBUSY: somebody else is, at a start; -ENOTSUP, -EUCLEAN at a start; a
 * connection error; with @err. Then the connection must go.
 */
int iscsi_reserve_login(struct iscsi_session *s, struct iscsi_lun *lun, uint64_t deadline_ns,
			struct err *err);

/*
 * With pool->lock: @s was told that reservations changed, or refused for one (@conflict). True: the
 * command waits until that is cleared up; false: it means nothing to us.
 */
bool iscsi_reserve_doubt(struct iscsi_session *s, bool conflict);

/* The chores OWNER and RELEASE, on the quiet session's thread. 0 or -errno as at login. */
int iscsi_reserve_check(struct iscsi_session *s, uint64_t deadline_ns, struct err *err);
int iscsi_reserve_release(struct iscsi_session *s, uint64_t deadline_ns);

/*
 * On the session's thread, about once a second: an owner without traffic hears by this that it is
 * none any more. After the connection was dropped call iscsi_reserve_forget() in its place.
 */
void iscsi_reserve_watch(struct iscsi_session *s, uint64_t now_ns);
void iscsi_reserve_forget(struct iscsi_session *s);

/* With pool->lock: it is another one's; nothing is sent any more, for good. @why may be cut. */
void iscsi_reserve_lose(struct iscsi_pool *pool, const char *why, struct iscsi_ended *ended);

/* blk_ops.release, and the state for blk_ops.reserved. Any thread, without the lock. */
int iscsi_reserve_give_up(struct iscsi_pool *pool, uint64_t *ret_mark);
enum blk_reserved iscsi_reserve_state(struct iscsi_pool *pool);

#endif
