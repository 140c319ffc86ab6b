// SPDX-License-Identifier: Apache-2.0
/*
 * Refused at once where somebody uses it. Then three steps, each of which leaves a sound state if
 * it is the last: send what is dirty while still mounted (so that a timeout or Ctrl-C changes
 * nothing), unmount, and have the daemon send what was written between the two.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cmd/cmd.h"
#include "cmd/offline.h"
#include "cmd/progress.h"
#include "cmd/volume.h"
#include "core/cleanup.h"
#include "core/clock.h"
#include "core/parse.h"
#include "mount/attach.h"
#include "mount/mount.h"

/* How long the daemon may take to close its files after its last answer. */
#define EXIT_NS (15 * NSEC_PER_SEC)

/* A mount whose daemon was killed: take it out of the tree. */
static int clean_up_dead(const char *mountpoint, struct err *err)
{
	cleanup_free char *path = NULL;
	struct attach_entry entry;
	struct err why;

	if (attach_resolve(mountpoint, &path, &why) < 0 || attach_find(path, &entry) < 0 ||
	    strcmp(entry.type, MOUNT_FS_TYPE) != 0)
		return cmd_fail("%s", err->text);
	if (attach_prepare(path, MOUNT_FS_TYPE, &why) < 0)
		return cmd_fail("%s: a volume is mounted there, but its daemon does not answer: %s",
				path, err->text);
	printf("%s: the daemon of %s had died; the dead mount is removed. What was dirty is kept "
	       "in "
	       "the cache: mount it again to send it.\n",
	       path, entry.source);
	return EXIT_LEFT;
}

static int still_mounted(struct volume *v, enum job_end end, const json_t *last,
			 const struct err *err, const char *hint)
{
	char left[48], suffix[160];

	snprintf(suffix, sizeof(suffix), "; still mounted, %s not yet at the target%s",
		 volume_left(last, left), hint);
	return volume_not_done(v, end, last, err, true, suffix);
}

static int busy(struct volume *v, const char *who)
{
	if (*who)
		return cmd_fail("%s is busy: used by %s; end that use first, then try again",
				v->mountpoint, who);
	return cmd_fail("%s is busy: used by something this user may not see; still mounted",
			v->mountpoint);
}

/* The daemon took the volume out of the tree; say how it ended. */
static int unmounted(struct volume *v, enum job_end end, const json_t *last, bool no_flush)
{
	const char *why = json_string_value(json_object_get(last, "error"));
	uint64_t left = volume_bytes(last, "bytes_left");
	char text[48];

	if (end == JOB_INTERRUPTED) {
		cmd_fail("%s: unmounted; the daemon (pid %d) still sends %s", v->mountpoint,
			 (int)v->pid, volume_left(last, text));
		return EXIT_LEFT;
	}
	if (!volume_wait_exit(v, EXIT_NS) && v->pidfd >= 0)
		cmd_fail("%s: unmounted, but the daemon (pid %d) has not ended yet", v->mountpoint,
			 (int)v->pid);
	if (left == 0) {
		printf("%s: unmounted; everything is at the target\n", v->mountpoint);
		return EXIT_DONE;
	}
	if (why) {
		cmd_fail("%s: unmounted; %s not yet at the target, kept in %s, but %s",
			 v->mountpoint, volume_left(last, text), v->cache_dir, why);
		return json_is_true(json_object_get(last, "unsafe")) ? EXIT_FAILED : EXIT_LEFT;
	}
	printf("%s: unmounted; %s not yet at the target, kept in %s; mount it again to send it\n",
	       v->mountpoint, volume_left(last, text), v->cache_dir);
	return no_flush ? EXIT_DONE : EXIT_LEFT;
}

static json_t *flush_request(bool merge)
{
	return json_pack("{s:s, s:b}", "kind", "flush", "merge", merge);
}

static int umount_volume(struct volume *v, bool no_flush, bool merge, uint64_t deadline_ns)
{
	struct err err = { .text = "" };
	json_t *last = NULL, *request;
	char who[512];
	enum job_end end;
	int status;

	/* Told at once: it may take long until all is sent, and then it would be refused. */
	if (mount_holders(v->mountpoint, who, sizeof(who)) > 0)
		return busy(v, who);
	if (!no_flush) {
		end = volume_job(v, flush_request(merge), deadline_ns, volume_show_drain, &last,
				 &err);
		status = end == JOB_DONE
				 ? EXIT_DONE
				 : still_mounted(v, end, last, &err,
						 end == JOB_FAILED ? " (--no-flush unmounts it)"
								   : "");
		json_decref(last);
		if (status != EXIT_DONE)
			return status;
	}
	request =
		json_pack("{s:s, s:b, s:b}", "kind", "umount", "flush", !no_flush, "merge", merge);
	if (deadline_ns != UINT64_MAX) {
		uint64_t now = clock_monotonic_ns();
		double rest = now < deadline_ns ? (double)(deadline_ns - now) : 0;

		json_object_set_new(request, "timeout_seconds",
				    json_real(rest / (double)NSEC_PER_SEC));
	}
	/* The daemon ends the last drain at the deadline itself; a little more is for its answer.
	 */
	end = volume_job(v, request, deadline_ns == UINT64_MAX ? UINT64_MAX : deadline_ns + EXIT_NS,
			 volume_show_drain, &last, &err);
	if (json_is_true(json_object_get(last, "busy"))) {
		mount_holders(v->mountpoint, who, sizeof(who));
		status = busy(v, who);
	} else if (end == JOB_DONE || json_is_true(json_object_get(last, "unmounted"))) {
		status = unmounted(v, end, last, no_flush);
	} else {
		status = still_mounted(v, end, last, &err, "");
	}
	json_decref(last);
	return status;
}

/* Unmounted by other means before, its daemon still at work: wait for it. */
static int await_daemon(struct volume *v, bool no_flush, bool merge, uint64_t deadline_ns)
{
	struct err err = { .text = "" };
	struct offline found;
	json_t *last = NULL;
	enum job_end end = JOB_LOST;
	char left[48], size[16];
	int r;

	if (!no_flush)
		end = volume_job(v, flush_request(merge), deadline_ns, volume_show_drain, &last,
				 &err);
	if (end == JOB_TIMEOUT || end == JOB_INTERRUPTED || no_flush) {
		cmd_fail("%s: unmounted already; the daemon (pid %d) still sends %s", v->mountpoint,
			 (int)v->pid, volume_left(last, left));
		json_decref(last);
		return EXIT_LEFT;
	}
	json_decref(last);
	volume_wait_exit(v, EXIT_NS);
	r = offline_look(v->cache_dir, &found);
	if (r == 0 || (r == -EBUSY && end == JOB_DONE)) {
		printf("%s: unmounted; everything is at the target\n", v->mountpoint);
		return EXIT_DONE;
	}
	cmd_fail("%s: unmounted; %s not yet at the target, kept in %s; mount it again to send it",
		 v->mountpoint,
		 r == 1 && found.dirty_bytes != UINT64_MAX ? format_size(found.dirty_bytes, size)
							   : "an unknown amount",
		 v->cache_dir);
	return EXIT_LEFT;
}

int cmd_umount(struct option_set *set)
{
	uint64_t deadline_ns =
		volume_deadline(set->value[OPT_TIMEOUT].given, set->value[OPT_TIMEOUT].number);
	struct err err = { .text = "" };
	struct volume v;
	int r = volume_find(set->operand[0], &v, &err);

	if (r == -ENOENT)
		return clean_up_dead(set->operand[0], &err);
	if (r < 0)
		return cmd_fail("%s", err.text);
	interrupt_catch();
	r = (v.mounted ? umount_volume : await_daemon)(&v, set->value[OPT_NO_FLUSH].number,
						       set->value[OPT_MERGE].number, deadline_ns);
	volume_close(&v);
	return r;
}
