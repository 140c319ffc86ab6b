// SPDX-License-Identifier: Apache-2.0
#include "transport/iscsi_discover.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/cleanup.h"
#include "core/clock.h"
#include "transport/iscsi_conn.h"
#include "transport/iscsi_probe.h"

#define LUNS 256
#define PORTALS 16

struct target {
	char name[256];
	char portal[PORTALS][128];
	const char *portal_list[PORTALS];
	unsigned portals;
};

struct targets {
	struct target *list;
	unsigned count;
	bool done;
	int status;
};

/* The list is libiscsi's and lives during this call only. */
static void on_targets(struct iscsi_context *ctx, int status, void *data, void *ctx_data)
{
	struct targets *t = ctx_data;
	const struct iscsi_discovery_address *first = status == SCSI_STATUS_GOOD ? data : NULL, *a;
	unsigned n = 0;

	(void)ctx;
	t->status = status;
	t->done = true;
	for (a = first; a; a = a->next)
		n++;
	t->list = n ? calloc(n, sizeof(*t->list)) : NULL;
	for (a = first; a && t->list; a = a->next) {
		struct target *target = &t->list[t->count++];
		const struct iscsi_target_portal *p = a->portals;

		snprintf(target->name, sizeof(target->name), "%s", a->target_name);
		for (; p && target->portals < PORTALS; p = p->next) {
			char *text = target->portal[target->portals];

			/* Without the portal group tag that follows a comma. */
			snprintf(text, sizeof(target->portal[0]), "%.*s",
				 (int)strcspn(p->portal, ","), p->portal);
			target->portal_list[target->portals++] = text;
		}
	}
}

static void login_fill(const struct leaf_config *conf, const struct url_portal *portal,
		       const char *target, struct iscsi_login *ret)
{
	*ret = (struct iscsi_login){
		.conf = conf,
		.portal = portal,
		.target = target,
		.deadline_ns = clock_monotonic_ns() + conf->connect_timeout_ns,
	};
}

static int send_targets(const struct leaf_config *conf, const struct url_portal *portal,
			struct targets *ret, struct err *err)
{
	struct iscsi_login login;
	struct iscsi_conn conn;
	int r;

	login_fill(conf, portal, NULL, &login);
	iscsi_conn_init(&conn, -1, NULL);
	r = iscsi_conn_open(&conn, &login, err);
	if (r < 0)
		return r;
	if (iscsi_discovery_async(conn.ctx, on_targets, ret) != 0)
		r = -EPROTO;
	if (r == 0)
		r = iscsi_conn_wait(&conn, login.deadline_ns, &ret->done);
	if (r == 0 && ret->status != SCSI_STATUS_GOOD)
		r = -EPROTO;
	if (r < 0)
		err_set(err, r, "%s does not list its targets: %s", portal->host,
			r == -ETIMEDOUT ? "no answer" : iscsi_get_error(conn.ctx));
	if (r < 0)
		iscsi_conn_drop(&conn);
	else
		iscsi_conn_logout(&conn, clock_monotonic_ns() + NSEC_PER_SEC);
	return r;
}

/* One login per LUN: a probe that fails leaves its connection unusable. */
static void look_at_lun(const struct leaf_config *conf, const struct url_portal *portal,
			struct iscsi_found *found, void (*tell)(void *, const struct iscsi_found *),
			void *ctx)
{
	struct err err = { .text = "" };
	struct iscsi_login login;
	struct iscsi_conn conn;
	struct iscsi_lun lun;
	int r;

	login_fill(conf, portal, found->target, &login);
	login.lun = (uint16_t)found->lun;
	iscsi_conn_init(&conn, -1, NULL);
	r = iscsi_conn_open(&conn, &login, &err);
	if (r == 0) {
		r = iscsi_probe(&conn, found->target, login.lun, login.deadline_ns, &lun, &err);
		if (r == 0) {
			found->size_bytes = lun.size_bytes;
			found->sector_bytes = lun.sector_bytes;
		}
		found->vendor = lun.vendor;
		found->product = lun.product;
		iscsi_conn_logout(&conn, clock_monotonic_ns() + NSEC_PER_SEC);
	}
	found->error = r < 0 ? err.text : NULL;
	tell(ctx, found);
}

static int list_luns(const struct leaf_config *conf, const struct url_portal *portal,
		     const char *target, uint16_t *luns, struct err *err)
{
	struct iscsi_login login;
	struct iscsi_conn conn;
	int r;

	login_fill(conf, portal, target, &login);
	iscsi_conn_init(&conn, -1, NULL);
	r = iscsi_conn_open(&conn, &login, err);
	if (r < 0)
		return r;
	r = iscsi_probe_luns(&conn, login.deadline_ns, luns, LUNS);
	if (r < 0)
		err_set(err, r, "does not list its LUNs: %s", strerror(-r));
	iscsi_conn_logout(&conn, clock_monotonic_ns() + NSEC_PER_SEC);
	return r;
}

static void look_at_target(const struct leaf_config *conf, const struct url_portal *portal,
			   const struct target *target,
			   void (*tell)(void *, const struct iscsi_found *), void *ctx)
{
	struct iscsi_found found = {
		.target = target->name,
		.portals = target->portal_list,
		.portal_count = target->portals,
		.lun = -1,
		.vendor = "",
		.product = "",
	};
	struct err err = { .text = "" };
	uint16_t luns[LUNS];
	int count = list_luns(conf, portal, target->name, luns, &err);

	if (count <= 0) {
		found.error = count < 0 ? err.text : "no LUN";
		tell(ctx, &found);
		return;
	}
	for (int i = 0; i < count; i++) {
		struct iscsi_found one = found;

		one.lun = luns[i];
		look_at_lun(conf, portal, &one, tell, ctx);
	}
}

int iscsi_discover(const struct leaf_config *conf,
		   void (*found)(void *ctx, const struct iscsi_found *found), void *ctx,
		   struct err *err)
{
	int r = -EINVAL;

	for (unsigned p = 0; p < conf->url.portals; p++) {
		const struct url_portal *portal = &conf->url.portal[p];
		struct targets targets = { .count = 0 };

		r = send_targets(conf, portal, &targets, err);
		for (unsigned i = 0; i < targets.count; i++)
			look_at_target(conf, portal, &targets.list[i], found, ctx);
		free(targets.list);
		if (r == 0)
			return 0;
	}
	return r;
}
