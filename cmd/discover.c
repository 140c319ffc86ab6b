// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "cmd/cmd.h"
#include "cmd/initiator.h"
#include "core/cleanup.h"
#include "core/parse.h"
#include "transport/credentials.h"
#include "transport/iscsi_discover.h"

struct listing {
	const struct leaf_config *conf;
	char target[256]; /* the one printed last */
};

/* One target per paragraph, one LUN per line, each with the URL that mounts it. */
static void print_found(void *ctx, const struct iscsi_found *f)
{
	struct listing *l = ctx;
	char size[16];

	if (strcmp(l->target, f->target) != 0) {
		printf("%s%s\n", l->target[0] ? "\n" : "", f->target);
		snprintf(l->target, sizeof(l->target), "%s", f->target);
		for (unsigned i = 0; i < f->portal_count; i++)
			printf("  portal %s\n", f->portals[i]);
	}
	if (f->lun < 0) {
		printf("  no LUN: %s\n", f->error ? f->error : "the target shows none");
		return;
	}
	if (!f->size_bytes) {
		printf("  %s\n", f->error ? f->error : "a LUN of unknown size");
		return;
	}
	printf("  LUN %-5d %9s  %u-byte sectors  %s %s  %s/%s/%d\n", f->lun,
	       format_size(f->size_bytes, size), f->sector_bytes, f->vendor ? f->vendor : "",
	       f->product ? f->product : "", l->conf->url.text, f->target, f->lun);
}

static int configure(struct option_set *set, struct leaf_config *conf, struct err *err)
{
	const struct option_value *v = set->value;
	int r = url_parse(set->operand[0], true, &conf->url, err);

	if (r < 0)
		return r;
	if (conf->url.scheme != URL_ISCSI && conf->url.scheme != URL_ISER)
		return err_set(err, -EINVAL,
			       "%s: only iscsi:// and iser:// portals can be asked for volumes",
			       set->operand[0]);
	if (v[OPT_CREDENTIALS].given)
		r = credentials_load(v[OPT_CREDENTIALS].text, &conf->credentials, err);
	else
		r = credentials_default(&conf->credentials, err);
	/* The user may stand in the URL and the password in a file. */
	if (r == 0)
		r = credentials_join(&conf->credentials, conf->url.user, err);
	if (r < 0)
		return r == -EINVAL ? -EBADMSG : r; /* a wrong file is not a wrong command line */
	/* With the ISID of another discovery of this host it would end that one's sessions. */
	if (getrandom(conf->isid_random, sizeof(conf->isid_random), 0) !=
	    (ssize_t)sizeof(conf->isid_random))
		return err_set(err, -EIO, "no random numbers: %s", strerror(errno));
	conf->sessions = 1;
	conf->connect_timeout_ns = v[OPT_CONNECT_TIMEOUT].number;
	return initiator_name(v[OPT_INITIATOR_NAME].text, conf->initiator_name, err);
}

int cmd_discover(struct option_set *set)
{
	cleanup_free struct leaf_config *conf = calloc(1, sizeof(*conf));
	struct listing listing = { .conf = conf };
	struct err err = { .text = "" };
	int r;

	if (!conf)
		return cmd_fail("out of memory");
	r = configure(set, conf, &err);
	if (r == -EINVAL) {
		r = cmd_usage(set, "%s", err.text);
	} else {
		if (r == 0)
			r = iscsi_discover(conf, print_found, &listing, &err);
		if (r < 0)
			r = cmd_fail("%s", err.text);
		else if (!listing.target[0])
			puts("no targets");
	}
	explicit_bzero(&conf->credentials, sizeof(conf->credentials));
	return r;
}
