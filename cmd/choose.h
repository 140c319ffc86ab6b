// SPDX-License-Identifier: Apache-2.0
/* Options that more than one command makes the same of. One thread, before others start. */
#ifndef CMD_CHOOSE_H
#define CMD_CHOOSE_H

#include "core/err.h"
#include "core/option.h"
#include "transport/leaf.h"

/*
 * Fill in @leaf for @url from the options' values @v: credentials, sessions, initiator name and so
 * on. 0; -EINVAL, the command line is wrong; another -errno, what it names is; with @err.
 */
int choose_leaf(const struct option_value *v, const char *url, struct leaf_config *leaf,
		struct err *err);

/* Parse --on-outage into @leaf. 0 or -EINVAL with @err. */
int choose_outage(const char *text, struct leaf_config *leaf, struct err *err);

#endif
