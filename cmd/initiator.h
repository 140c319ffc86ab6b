// SPDX-License-Identifier: Apache-2.0
/* This host's iSCSI name (RFC 7143 4.2.7). */
#ifndef CMD_INITIATOR_H
#define CMD_INITIATOR_H

#include "core/err.h"

#define INITIATOR_NAME_MAX 224

/*
 * @given if it is not NULL (checked), else the name in /etc/iscsi/initiatorname.iscsi, else the one
 * in STATE_DIR/initiatorname, which is made at first use: iqn.2026-01.io.nearblk:HOST-RANDOM.
 * 0, -EINVAL (not a name; says what one looks like), or -errno of the file, with @err. One thread;
 * several processes at once end up with the same name.
 */
int initiator_name(const char *given, char ret[INITIATOR_NAME_MAX], struct err *err);

#endif
