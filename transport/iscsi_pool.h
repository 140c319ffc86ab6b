// SPDX-License-Identifier: Apache-2.0
/* The leaf device for iscsi:// and iser:// volumes: a pool of sessions to one LUN. */
#ifndef TRANSPORT_ISCSI_POOL_H
#define TRANSPORT_ISCSI_POOL_H

#include "core/block.h"
#include "core/err.h"
#include "transport/leaf.h"

/*
 * Make the device; connects only in blk_start(). 0 with *ret owned by the caller, -EINVAL or
 * -ENOMEM with @err. The credentials are joined with the URL (credentials_join()). The process must
 * ignore SIGPIPE: libiscsi writes without MSG_NOSIGNAL.
 *
 * What it adds to core/block.h:
 * - No request fails because a connection dropped: it is sent again on any session, or waits until
 *   there is one. -EIO comes only from the target's word about the medium, or for READs with
 *   conf->reads_fail.
 * - blk_fenced() once another volume, or a smaller one, has answered under this name for a while;
 *   then READs end with -ESTALE, too.
 * - blk_start() fails at once for what waiting does not cure (no such host, target or LUN, refused
 *   connection or login, write protection without read_only), else -ETIMEDOUT after
 *   conf->connect_timeout_ns. One session is enough; the others follow by themselves. With
 *   conf->known it ends with 0, offline, where nobody answers (or is found) for 5 s or that time.
 * - blk_kick() also gives up connections that do not come about, and has the capacity read again.
 * - blk_generation() moves with every session lost, reset and power-on UNIT ATTENTION.
 * - FLUSH and FUA requests first make sure that no WRITE of a lost session can still land (see
 *   iscsi_fence.c); if that was needed the generation moves before they end.
 * - blk_cancel() ends what was not sent yet, at once. What was sent ends when its answer comes or
 *   its session is lost: until then libiscsi uses the buffers.
 * - ADVISORY requests are dropped while no session is up and when their session is lost.
 * - -EACCES: another initiator holds a reservation.
 */
int iscsi_pool_create(const struct leaf_config *conf, struct blk_dev **ret, struct err *err);

#endif
