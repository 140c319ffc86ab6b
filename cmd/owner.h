// SPDX-License-Identifier: Apache-2.0
/*
 * Whose a volume is, as far as its cache directory remembers: what stands in the identity record
 * about reservations, other owners and copies of the directory. Main thread, but for what the leaf
 * calls back while it starts.
 */
#ifndef CMD_OWNER_H
#define CMD_OWNER_H

#include "cmd/stack.h"

/* What is said of a directory with unsent data whose volume another host has owned. */
#define OWNER_OVERTAKEN                                                                            \
	"another host has taken the volume over; what is unsent here is sent only with "           \
	"mount --force-push"

/*
 * Complete @leaf by what the record of the directory knows, before the leaf is made. A copy of
 * another directory becomes one of its own if it holds nothing unsent. 0; -ESTALE: there is unsent
 * data and another host has owned the volume; another -errno; with @err.
 */
int owner_prepare(struct stack *s, struct leaf_config *leaf, struct err *err);

/*
 * The cache is open: forget what is clean if another host has owned the volume. 0 or -errno with
 * @err.
 */
int owner_settle(struct stack *s, struct err *err);

/* The volume is fenced off: write down that another host has it. */
void owner_overtaken(struct stack *s);

/*
 * Before the cache stops and after the last write: give the volume up if nothing is unsent. Once;
 * safe on a half built stack, whose reservation goes too unless it is older.
 */
void owner_release(struct stack *s);

#endif
