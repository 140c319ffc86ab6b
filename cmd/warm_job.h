// SPDX-License-Identifier: Apache-2.0
/* Filling the cache ahead of use: reads nobody waits for, a bounded number of them at a time. */
#ifndef CMD_WARM_JOB_H
#define CMD_WARM_JOB_H

#include <jansson.h>

#include "core/block.h"
#include "core/err.h"
#include "core/sched.h"

struct warm_job;

/*
 * Begin to read @args' "ranges" ([[offset, length], …] in bytes; without them everything) through
 * @cache, a cache device, which is lent until warm_job_free(), like @sched: its tasks and timers
 * run the job. Ranges are widened to whole blocks and cut at the end of the volume. 0; -EINVAL with
 * @err; -ENOMEM. Any thread.
 */
int warm_job_start(struct blk_dev *cache, struct sched *sched, const json_t *args,
		   struct warm_job **ret, struct err *err);

/*
 * Add to @o: state ("running", "done", "failed"), done_bytes, total_bytes, bytes_per_second; when
 * done also present_bytes, which is less than total_bytes where the cache is too small; when
 * failed "error". Any thread.
 */
void warm_job_progress(struct warm_job *w, json_t *o);

/* Read no more; the memory goes when the last read is back, before its device is stopped. */
void warm_job_free(struct warm_job *w);

#endif
