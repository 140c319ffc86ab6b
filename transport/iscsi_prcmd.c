// SPDX-License-Identifier: Apache-2.0
#include "transport/iscsi_prcmd.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/cleanup.h"

/* A refusal means "no such command" only with ILLEGAL REQUEST. */
static int refusal(int r, const struct iscsi_sense *sense)
{
	if (r == -EREMOTEIO)
		return sense->key == 5 ? -EOPNOTSUPP : -EIO;
	return r;
}

static int ask(struct iscsi_session *s, enum iscsi_pr_in action, uint16_t length,
	       uint64_t deadline_ns, struct scsi_task **ret)
{
	unsigned char cdb[ISCSI_PR_CDB_BYTES];
	struct iscsi_sense sense;
	int r;

	iscsi_pr_in_cdb(action, length, cdb);
	r = iscsi_conn_run(&s->conn, scsi_create_task(sizeof(cdb), cdb, SCSI_XFER_READ, length),
			   deadline_ns, ret, &sense);
	return refusal(r, &sense);
}

static size_t answer_bytes(const struct scsi_task *task)
{
	return task->datain.data ? (size_t)task->datain.size : 0;
}

int iscsi_prcmd_reservation(struct iscsi_session *s, uint64_t deadline_ns,
			    struct iscsi_pr_reservation *ret)
{
	struct scsi_task *answer;
	int r = ask(s, ISCSI_PR_READ_RESERVATION, ISCSI_PR_RESERVATION_BYTES, deadline_ns, &answer);

	return r < 0 ? r : iscsi_pr_reservation(answer->datain.data, answer_bytes(answer), ret);
}

static void add_key(struct iscsi_prcmd_survey *v, uint64_t key)
{
	for (unsigned i = 0; i < v->keys; i++)
		if (v->key[i] == key)
			return;
	if (v->keys < ISCSI_PRCMD_KEYS)
		v->key[v->keys++] = key;
}

int iscsi_prcmd_survey(struct iscsi_session *s, uint64_t deadline_ns,
		       struct iscsi_prcmd_survey *ret)
{
	cleanup_free uint64_t *key = calloc(ISCSI_PR_IN_BYTES / 8, sizeof(*key));
	struct scsi_task *answer;
	int r, n;

	*ret = (struct iscsi_prcmd_survey){ .keys = 0 };
	if (!key)
		return -ENOMEM;
	r = iscsi_prcmd_reservation(s, deadline_ns, &ret->now);
	if (r == 0)
		r = ask(s, ISCSI_PR_READ_KEYS, ISCSI_PR_IN_BYTES, deadline_ns, &answer);
	if (r < 0)
		return r;
	/* Who holds it is preempted first: so it is never free in between. */
	if (ret->now.held)
		add_key(ret, ret->now.key);
	n = iscsi_pr_keys(answer->datain.data, answer_bytes(answer), key, ISCSI_PR_IN_BYTES / 8);
	for (int i = 0; i < n; i++)
		add_key(ret, key[i]);
	return n < 0 ? n : 0;
}

int iscsi_prcmd_tell(struct iscsi_session *s, enum iscsi_pr_out action, uint64_t action_key,
		     uint64_t deadline_ns)
{
	struct iscsi_pool *pool = s->pool;
	unsigned char cdb[ISCSI_PR_CDB_BYTES];
	struct scsi_task *task, *answer;
	struct iscsi_sense sense;
	bool persist;
	int r;

	pthread_mutex_lock(&pool->lock);
	if (action != ISCSI_PR_RESERVE && action != ISCSI_PR_RELEASE)
		pool->owner.attempts++;
	persist = pool->owner.persists && action == ISCSI_PR_REGISTER_AND_IGNORE;
	pthread_mutex_unlock(&pool->lock);
	iscsi_pr_out_cdb(action, cdb);
	iscsi_pr_out_data(action == ISCSI_PR_REGISTER_AND_IGNORE ? 0 : pool->conf.owner.key,
			  action_key, persist, s->conn.out);
	s->conn.out_iov = (struct scsi_iovec){ s->conn.out, sizeof(s->conn.out) };
	task = scsi_create_task(sizeof(cdb), cdb, SCSI_XFER_WRITE, sizeof(s->conn.out));
	if (task)
		scsi_task_set_iov_out(task, &s->conn.out_iov, 1);
	r = iscsi_conn_run(&s->conn, task, deadline_ns, &answer, &sense);
	return refusal(r, &sense);
}

/* A target that cannot store it may still take it. */
int iscsi_prcmd_enroll(struct iscsi_session *s, uint64_t deadline_ns)
{
	struct iscsi_pool *pool = s->pool;
	int r = iscsi_prcmd_tell(s, ISCSI_PR_REGISTER_AND_IGNORE, pool->conf.owner.key,
				 deadline_ns);
	bool persists;

	if (r != -EOPNOTSUPP && r != -EIO)
		return r;
	pthread_mutex_lock(&pool->lock);
	persists = pool->owner.persists;
	pool->owner.persists = false;
	pthread_mutex_unlock(&pool->lock);
	if (!persists)
		return r;
	return iscsi_prcmd_tell(s, ISCSI_PR_REGISTER_AND_IGNORE, pool->conf.owner.key, deadline_ns);
}

int iscsi_prcmd_leave(struct iscsi_session *s, uint64_t deadline_ns)
{
	return iscsi_prcmd_tell(s, ISCSI_PR_REGISTER_AND_IGNORE, 0, deadline_ns);
}

void iscsi_prcmd_who(struct iscsi_session *s, uint64_t key, uint64_t deadline_ns,
		     char ret[ISCSI_PRCMD_WHO_BYTES])
{
	const struct leaf_owner *conf = &s->pool->conf.owner;
	char name[224] = ""; /* RFC 7143 4.2.7 */
	struct scsi_task *answer;
	int r = ask(s, ISCSI_PR_READ_FULL_STATUS, ISCSI_PR_IN_BYTES, deadline_ns, &answer);

	if (r == 0)
		r = iscsi_pr_name(answer->datain.data, answer_bytes(answer), key, name,
				  sizeof(name));
	snprintf(ret, ISCSI_PRCMD_WHO_BYTES, "key 0x%016" PRIx64 "%s%s%s", key,
		 r == 0 ? ", registered by " : "; this target does not tell whose it is", name,
		 key >> 32 == conf->key >> 32 ? "; of a copy of this cache directory" : "");
}

int iscsi_prcmd_abilities(struct iscsi_session *s, uint64_t deadline_ns)
{
	struct iscsi_pr_abilities can = { .has_type = true };
	struct scsi_task *answer;
	int r = ask(s, ISCSI_PR_REPORT_CAPABILITIES, 8, deadline_ns, &answer);

	if (r == 0)
		(void)iscsi_pr_abilities(answer->datain.data, answer_bytes(answer), &can);
	else if (r != -EOPNOTSUPP && r != -EIO)
		return r;
	guard(&s->pool->lock);
	s->pool->owner.persists = can.persists;
	return can.has_type ? 0 : -EOPNOTSUPP;
}
