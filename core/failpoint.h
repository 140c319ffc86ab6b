// SPDX-License-Identifier: Apache-2.0
/*
 * Named places where a process can be made to end as if by kill -9, for tests of what it leaves
 * behind. One at most is armed, by --debug-kill, before any thread runs; otherwise passing one
 * costs a look at a pointer.
 */
#ifndef CORE_FAILPOINT_H
#define CORE_FAILPOINT_H

#include <stddef.h>

#include "core/err.h"

/*
 * prepare      a log segment is filled, and not synced yet
 * append       a batch is in the file, and nobody knows it
 * acknowledge  it counts as acknowledged, and nobody was told
 * barrier      the barrier of a flush is in the file, and not synced
 * synced       it is durable, and the flush is not answered
 * epoch        a closed epoch is about to be sent
 * sent         one of its commands was answered
 * before-sync  all were, and SYNCHRONIZE CACHE is about to be sent
 * after-sync   that was answered, and the watermark is not written
 * watermark    the watermark is in the file, and not synced
 * evict        the index has forgotten a segment, and it is not free yet
 * identity     one copy of the identity record is written
 * before-cut   a start has read the log and changed nothing
 * after-cut    its "cut here" is in the file, and not synced
 */
#define FAILPOINTS(X)                                                                              \
	X(PREPARE, "prepare")                                                                      \
	X(APPEND, "append")                                                                        \
	X(ACKNOWLEDGE, "acknowledge")                                                              \
	X(BARRIER, "barrier")                                                                      \
	X(SYNCED, "synced")                                                                        \
	X(EPOCH, "epoch")                                                                          \
	X(SENT, "sent")                                                                            \
	X(BEFORE_SYNC, "before-sync")                                                              \
	X(AFTER_SYNC, "after-sync")                                                                \
	X(WATERMARK, "watermark")                                                                  \
	X(EVICT, "evict")                                                                          \
	X(IDENTITY, "identity")                                                                    \
	X(BEFORE_CUT, "before-cut")                                                                \
	X(AFTER_CUT, "after-cut")

enum failpoint {
#define FAILPOINT_NUMBER(id, name) FAILPOINT_##id,
	FAILPOINTS(FAILPOINT_NUMBER)
#undef FAILPOINT_NUMBER
		FAILPOINT_COUNT
};

struct failpoint_trap;

/* What is armed; NULL: nothing. */
extern struct failpoint_trap *failpoint_armed;

/*
 * Arm what @text says, "POINT[:NTH]": the process gets SIGKILL when it passes that point for the
 * NTH time (1). Replaces what was armed. 0, or -EINVAL with @err, which lists the points. Before
 * there are other threads.
 */
int failpoint_arm(const char *text, struct err *err);

/* For failpoint(): the trap is armed; does not return if this was it. Any thread. */
void failpoint_count(enum failpoint point);

/* This is @point. Any thread, any lock held. */
static inline void failpoint(enum failpoint point)
{
	if (__builtin_expect(failpoint_armed != NULL, 0))
		failpoint_count(point);
}

#endif
