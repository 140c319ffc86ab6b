// SPDX-License-Identifier: Apache-2.0
#include <stdio.h>
#include <string.h>

#include "cmd/cmd.h"
#include "cmd/progress.h"
#include "cmd/volume.h"

static void show(const json_t *progress, char *text, size_t size)
{
	(void)progress;
	snprintf(text, size, "dropping clean data");
}

int cmd_drop(struct option_set *set)
{
	struct err err = { .text = "" };
	json_t *last = NULL;
	struct volume v;
	enum job_end end;
	int r = volume_find(set->operand[0], &v, &err);

	if (r < 0)
		return cmd_fail("%s", err.text);
	interrupt_catch();
	end = volume_job(&v, json_pack("{s:s}", "kind", "drop"), UINT64_MAX, show, &last, &err);
	r = end == JOB_DONE ? EXIT_DONE
			    : volume_not_done(&v, end, last, &err, false,
					      end == JOB_INTERRUPTED ? "; the daemon goes on" : "");
	json_decref(last);
	volume_close(&v);
	return r;
}
