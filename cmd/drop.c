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
	if (end == JOB_DONE) {
		r = EXIT_DONE;
	} else if (end == JOB_INTERRUPTED) {
		cmd_fail("%s: interrupted; the daemon goes on", v.mountpoint);
		r = EXIT_LEFT;
	} else {
		const char *why = json_string_value(json_object_get(last, "error"));

		r = cmd_fail("%s: %s", v.mountpoint, why ? why : err.text);
	}
	json_decref(last);
	volume_close(&v);
	return r;
}
