// SPDX-License-Identifier: Apache-2.0
/*
 * The stack of a mount without the mount, in this process: what it has sent and marked counts, so
 * it may be interrupted or killed at any time and tried again.
 */
#include "cmd/deliver.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/choose.h"
#include "cmd/cmd.h"
#include "cmd/damage.h"
#include "cmd/offline.h"
#include "cmd/place.h"
#include "cmd/progress.h"
#include "cmd/stack.h"
#include "cmd/volume.h"
#include "control/socket.h"
#include "core/cleanup.h"
#include "core/clock.h"
#include "core/log.h"
#include "core/parse.h"

#define LOOK_NS (50 * NSEC_PER_MSEC)

struct delivery {
	struct cache_drain drain;
	int result; /* valid once ended */
	atomic_bool ended;
};

static void drained(struct cache_drain *drain, int result)
{
	struct delivery *d = container_of(drain, struct delivery, drain);

	d->result = result;
	atomic_store(&d->ended, true);
}

static int find_daemon(void *ctx, struct volume *v)
{
	const char *dir = ctx;

	if (strcmp(v->cache_dir, dir) != 0)
		return 0;
	cmd_fail("%s is in use by a daemon (pid %d) that serves %s; nearblk flush %s sends what is "
		 "dirty",
		 dir, (int)v->pid, v->mountpoint, v->mountpoint);
	return 1;
}

/* The directory, and what is in it. 0 or -errno, said already; 1: nothing to do. */
static int look(const char *text, char dir[PATH_MAX], struct offline *found)
{
	cleanup_free char *real = NULL;
	struct err err = { .text = "" };
	char run[PATH_MAX];
	int r = place_absolute(text, dir, &err);

	if (r == 0) {
		real = realpath(dir, NULL);
		if (real)
			snprintf(dir, PATH_MAX, "%s", real);
		r = offline_identify(dir, &err);
	}
	if (r < 0) {
		cmd_fail("%s", err.text);
		return r;
	}
	if (control_socket_answers(dir, place_run_dir(run))) {
		if (volume_each(find_daemon, dir) != 1)
			cmd_fail("%s is in use by a daemon", dir);
		return -EBUSY;
	}
	r = offline_look(dir, found);
	if (r == -EBUSY)
		cmd_fail("%s is in use by another process", dir);
	else if (r < 0)
		cmd_fail("%s: %s", dir, strerror(-r));
	if (r == 0) {
		printf("%s: everything is at the target\n", dir);
		return 1;
	}
	return r < 0 ? r : 0;
}

static int configure(const struct option_value *v, const struct offline *found, const char *dir,
		     uint64_t deadline_ns, struct stack_config *conf, struct err *err)
{
	const char *url = v[OPT_URL].given ? v[OPT_URL].text : found->id.url;
	uint64_t now = clock_monotonic_ns();
	int r;

	if (!*url || (!v[OPT_URL].given && strlen(url) == sizeof(found->id.url) - 1))
		return err_set(err, -ENOENT, "%s does not tell where its volume is; say --url",
			       dir);
	r = choose_leaf(v, url, &conf->leaf, err);
	if (r < 0)
		return r;
	conf->leaf.connect_timeout_ns = MIN(conf->leaf.connect_timeout_ns,
					    deadline_ns > now ? deadline_ns - now : NSEC_PER_MSEC);
	snprintf(conf->cache_dir, sizeof(conf->cache_dir), "%s", dir);
	conf->max_dirty_age_ns = NSEC_PER_SEC;
	conf->no_readahead = true;
	conf->force_push = v[OPT_FORCE_PUSH].number;
	return 0;
}

static void show(struct blk_dev *cache, struct progress *line)
{
	struct cache_status st;
	char text[160];
	json_t *o;

	cache_status(cache, &st);
	o = json_pack("{s:I, s:I, s:I}", "bytes_left", (json_int_t)st.dirty_bytes, "bytes_to_send",
		      (json_int_t)(st.dirty_bytes - st.sent_bytes), "bytes_per_second",
		      (json_int_t)st.drain_bytes_per_s);
	if (st.drain_eta_ns != CACHE_UNKNOWN)
		json_object_set_new(o, "eta_seconds", json_real((double)st.drain_eta_ns / 1e9));
	volume_show_drain(o, text, sizeof(text));
	json_decref(o);
	progress_show(line, text);
}

/* 0, -ETIMEDOUT, -EINTR, or what ended the drain. */
static int drain(struct blk_dev *cache, uint64_t deadline_ns)
{
	struct delivery d = { .drain = { .done = drained } };
	struct progress line;
	int r = 0;

	list_init(&d.drain.link);
	progress_init(&line);
	cache_drain(cache, &d.drain);
	while (!atomic_load(&d.ended) && r == 0) {
		uint64_t now = clock_monotonic_ns();

		show(cache, &line);
		if (interrupted() || now >= deadline_ns)
			r = interrupted() ? -EINTR : -ETIMEDOUT;
		else
			interruptible_sleep(MIN((uint64_t)LOOK_NS, deadline_ns - now));
	}
	progress_end(&line);
	if (r < 0 && cache_drain_cancel(cache, &d.drain))
		return r;
	while (!atomic_load(&d.ended))
		interruptible_sleep(NSEC_PER_MSEC);
	return d.result;
}

/* Why not all was sent. */
static void word(struct blk_dev *cache, const char *dir, int result, char text[DAMAGE_TEXT_MAX])
{
	if (result == -EIO)
		damage_text(cache, dir, text);
	else
		snprintf(text, DAMAGE_TEXT_MAX, "%s",
			 result == -ETIMEDOUT ? "the time is over"
			 : result == -EINTR   ? "interrupted"
			 : result == -ESTALE  ? blk_fenced(cache)
					      : strerror(-result));
}

static int send_all(struct stack *s, const char *dir, uint64_t deadline_ns)
{
	char why[DAMAGE_TEXT_MAX], size[16];
	struct cache_status st;
	int r;

	interrupt_catch();
	r = drain(s->cache, deadline_ns);
	if (r < 0)
		word(s->cache, dir, r, why);
	stack_stop(s);
	cache_status(s->cache, &st);
	if (r == 0 && st.dirty_bytes == 0) {
		place_forget(dir);
		printf("%s: everything is at the target\n", dir);
		return EXIT_DONE;
	}
	cmd_fail("%s: %s; %s (%" PRIu64 " bytes) not yet at the target", dir,
		 r < 0 ? why : "stopped", format_size(st.dirty_bytes, size), st.dirty_bytes);
	return EXIT_LEFT;
}

int deliver(struct option_set *set)
{
	const struct option_value *v = set->value;
	uint64_t deadline_ns = volume_deadline(v[OPT_TIMEOUT].given, v[OPT_TIMEOUT].number);
	cleanup_free struct stack_config *conf = calloc(1, sizeof(*conf));
	struct err err = { .text = "" };
	struct offline found;
	char dir[PATH_MAX];
	struct stack stack;
	int r;

	if (!conf)
		return cmd_fail("out of memory");
	r = look(v[OPT_CACHE_DIR].text, dir, &found);
	if (r)
		return r < 0 ? EXIT_FAILED : EXIT_DONE;
	r = configure(v, &found, dir, deadline_ns, conf, &err);
	if (r == -EINVAL && v[OPT_URL].given)
		return cmd_usage(set, "%s", err.text);
	if (r == 0)
		r = log_open("stderr", LOG_LEVEL_WARNING, &err);
	if (r < 0)
		return cmd_fail("%s", err.text);
	r = stack_open(conf, &stack, &err);
	if (r == 0) {
		r = send_all(&stack, dir, deadline_ns);
	} else {
		cmd_fail("%s: %s", dir, err.text);
		r = clock_monotonic_ns() >= deadline_ns ? EXIT_LEFT : EXIT_FAILED;
	}
	stack_close(&stack);
	log_close();
	explicit_bzero(&conf->leaf.credentials, sizeof(conf->leaf.credentials));
	return r;
}
