// SPDX-License-Identifier: Apache-2.0
/*
 * A session at work: commands go out, answers come in, timers watch both. Runs on the session's
 * thread until the connection must go.
 *
 * Life signs: a NOP-Out every 5 s. On a slow link an answer may be long under way behind data, so
 * the session is dead when a NOP is unanswered and nothing at all came from the target for the time
 * of three. A command that stays unanswered while the rest lives is given up with its connection:
 * cancelling it inside libiscsi 1.19 would leave a hole in the sequence numbers.
 */
#include <assert.h>
#include <errno.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "core/cleanup.h"
#include "core/clock.h"
#include "core/log.h"
#include "transport/iscsi_impl.h"

#define NOP_NS (5 * NSEC_PER_SEC)
#define NOPS_DEAD 3
#define LOOK_NS NSEC_PER_SEC
/* Reads and writes, while nothing is answered; what may have to empty or clear a large cache, or
 * waits behind much data on a thin line, gets longer. */
#define COMMAND_NS (60 * NSEC_PER_SEC)
#define LONG_COMMAND_NS (300 * NSEC_PER_SEC)
#define RETRY_MIN_NS (8 * NSEC_PER_MSEC)
#define RETRY_MAX_NS (32 * NSEC_PER_SEC)
#define RETRY_TRIES 7

static_assert(sizeof(struct iovec) == sizeof(struct scsi_iovec) &&
		      offsetof(struct iovec, iov_len) == offsetof(struct scsi_iovec, iov_len),
	      "libiscsi's vectors are those of POSIX");

/* Before a command that failed @tries times goes out again. */
static uint64_t retry_pause(struct iscsi_session *s, unsigned tries)
{
	struct backoff b = { .min_ns = RETRY_MIN_NS, .max_ns = RETRY_MAX_NS, .tries = tries };

	return backoff_next_ns(&b, iscsi_session_random(s));
}

static const char *kind_name(enum iscsi_kind kind)
{
	static const char *const names[] = { "READ", "WRITE", "WRITE of zeroes", "WRITE SAME",
					     "SYNCHRONIZE CACHE" };

	return names[kind];
}

/*
 * With the lock. A target whose backing store cannot take what was written says so once: it has
 * dropped those pages, and the next SYNCHRONIZE CACHE finds nothing left to fail with. So what was
 * answered before one that may have been tried counts as lost.
 */
static void sync_failed(struct iscsi_pool *pool)
{
	atomic_fetch_add(&pool->generation, 1);
}

/* With the lock. The command will never work here; what does its work instead? */
static void without_it(struct iscsi_session *s, struct iscsi_cmd *cmd)
{
	struct iscsi_pool *pool = s->pool;

	if (cmd->kind == ISCSI_SAME) {
		pool->same_works = false;
		pool->lun.discard = false;
		if (cmd->io->req->op == BLK_DISCARD)
			iscsi_cmd_end(pool, cmd, -EOPNOTSUPP, &s->ended);
		else
			iscsi_cmd_recut(pool, cmd);
		return;
	}
	if (cmd->kind != ISCSI_SYNC) {
		iscsi_cmd_end(pool, cmd, -EIO, &s->ended);
		return;
	}
	/* Perhaps another one was refused before, while this one was under way. */
	if (cmd->sync16) {
		pool->sync16_works = false;
		sync_failed(pool);
		iscsi_cmd_again(pool, cmd, 0);
		return;
	}
	/* Without the command there is no cache, unless the target said that there is one. */
	iscsi_cmd_end(pool, cmd, pool->lun.cache_said && pool->lun.write_cache ? -EIO : 0,
		      &s->ended);
}

static void answered_well(struct iscsi_session *s, struct iscsi_cmd *cmd, uint64_t now)
{
	struct iscsi_pool *pool = s->pool;
	bool read = cmd->kind == ISCSI_READ;

	if (read || cmd->kind == ISCSI_WRITE || cmd->kind == ISCSI_ZEROES) {
		s->answered_ns = now;
		window_answered(read ? &s->reads : &s->writes, &cmd->stamp, cmd->cost, now);
		atomic_fetch_add(read ? &pool->read_bytes : &pool->write_bytes, cmd->length);
	}
	iscsi_uncharge(cmd);
	iscsi_cmd_end(pool, cmd, iscsi_fenced_for(pool, cmd->io->req) ? -ESTALE : 0, &s->ended);
}

static void retry(struct iscsi_session *s, struct iscsi_cmd *cmd, const struct iscsi_verdict *v,
		  uint64_t now)
{
	struct iscsi_pool *pool = s->pool;

	cmd->tries++;
	if (cmd->kind == ISCSI_SYNC && v->begun)
		sync_failed(pool);
	switch (v->action) {
	case ISCSI_POWER_ON:
		/* Before anyone can see this command's success. */
		atomic_fetch_add(&pool->generation, 1);
		break;
	case ISCSI_READ_CAPACITY:
	case ISCSI_IDENTIFY:
		s->chores |= ISCSI_CHORE_PROBE;
		break;
	case ISCSI_RETRY_LATER:
	case ISCSI_RETRY_LIMITED:
		iscsi_cmd_again(pool, cmd, now + retry_pause(s, cmd->tries));
		return;
	default:
		break;
	}
	/* A target that always finds a reason is not asked in a tight loop. */
	iscsi_cmd_again(pool, cmd, cmd->tries > RETRY_TRIES ? now + retry_pause(s, cmd->tries) : 0);
}

/* @cmd, out of the sent list, its task freed: what its answer means. */
static void conclude(struct iscsi_session *s, struct iscsi_cmd *cmd, struct iscsi_verdict v)
{
	struct iscsi_pool *pool = s->pool;
	uint64_t now = clock_monotonic_ns();
	enum iscsi_kind kind = cmd->kind;
	unsigned tries = cmd->tries;

	if (v.action == ISCSI_RETRY_LIMITED && tries >= RETRY_TRIES)
		v.action = ISCSI_FAIL;
	if (v.action == ISCSI_FAIL || (v.action == ISCSI_UNSUPPORTED && kind <= ISCSI_ZEROES))
		log_error("%s at byte %llu failed on the target: %s", kind_name(kind),
			  (unsigned long long)cmd->offset, v.what);
	else if (v.action == ISCSI_UNSUPPORTED)
		log_info("the target does not know %s", kind_name(kind));
	else if (v.action != ISCSI_DONE && (tries == RETRY_TRIES || v.action == ISCSI_POWER_ON))
		log_warning("%s is sent again: %s", kind_name(kind), v.what);

	pthread_mutex_lock(&pool->lock);
	if (v.action == ISCSI_DONE) {
		answered_well(s, cmd, now);
	} else {
		if (kind <= ISCSI_ZEROES)
			window_dropped(kind == ISCSI_READ ? &s->reads : &s->writes, cmd->cost);
		iscsi_uncharge(cmd);
		if (cmd->io->cancelled)
			iscsi_cmd_end(pool, cmd, -EINTR, &s->ended);
		else if (v.action == ISCSI_FAIL)
			iscsi_cmd_end(pool, cmd, v.error, &s->ended);
		else if (v.action == ISCSI_UNSUPPORTED)
			without_it(s, cmd);
		else
			retry(s, cmd, &v, now);
	}
	if (s->cmds == 0)
		pthread_cond_broadcast(&pool->changed);
	pthread_mutex_unlock(&pool->lock);
	if (v.action == ISCSI_RECONNECT) {
		s->conn.broken = true;
		snprintf(s->conn.reason, sizeof(s->conn.reason), "%s", v.what);
	}
}

static void on_command(struct iscsi_context *ctx, int status, void *data, void *ctx_data)
{
	struct iscsi_cmd *cmd = ctx_data;
	struct iscsi_session *s = cmd->session;
	struct iscsi_sense sense = { 0 };
	struct iscsi_verdict v;

	(void)data;
	if (iscsi_conn_lost(status)) {
		/* It stays in the sent list, with its task, until the context is gone. */
		if (!s->conn.broken)
			snprintf(s->conn.reason, sizeof(s->conn.reason), "%s",
				 *iscsi_get_error(ctx) ? iscsi_get_error(ctx) : "connection lost");
		s->conn.broken = true;
		return;
	}
	if (status == SCSI_STATUS_CHECK_CONDITION)
		sense = iscsi_conn_sense(cmd->task);
	v = iscsi_scsi_judge((unsigned)status, &sense);
	if (v.action == ISCSI_DONE && cmd->kind <= ISCSI_ZEROES &&
	    cmd->task->residual_status != SCSI_RESIDUAL_NO_RESIDUAL)
		v = (struct iscsi_verdict){ ISCSI_FAIL, -EIO, true,
					    "the target moved another number of bytes" };
	if (v.action != ISCSI_DONE && cmd->kind != ISCSI_READ &&
	    (iscsi_which_events(ctx) & POLLOUT)) {
		/*
		 * Refused before all its data went out: libiscsi still has DATA-OUT queued that
		 * points to the task and to the caller's memory. Once it has nothing to send, none
		 * of that is left (a command held back by the window carries a later CmdSN).
		 */
		list_del(&cmd->link);
		cmd->refused = v;
		list_add_tail(&s->lingering, &cmd->link);
		return;
	}
	list_del(&cmd->link);
	scsi_free_scsi_task(cmd->task);
	cmd->task = NULL;
	conclude(s, cmd, v);
}

static void conclude_lingering(struct iscsi_session *s)
{
	struct list_node *n;

	if (list_empty(&s->lingering) || (iscsi_which_events(s->conn.ctx) & POLLOUT))
		return;
	while ((n = list_pop(&s->lingering))) {
		struct iscsi_cmd *cmd = list_entry(n, struct iscsi_cmd, link);

		scsi_free_scsi_task(cmd->task);
		cmd->task = NULL;
		conclude(s, cmd, cmd->refused);
	}
}

static struct scsi_task *queue_task(struct iscsi_session *s, struct iscsi_cmd *cmd, uint32_t sector,
				    bool sync16, bool unmap, bool fua)
{
	struct iscsi_context *ctx = s->conn.ctx;
	struct scsi_iovec *iov = (struct scsi_iovec *)cmd->iov;
	int lun = s->conn.lun_field;
	uint64_t lba = cmd->offset / sector;

	switch (cmd->kind) {
	case ISCSI_READ:
		return iscsi_read16_iov_task(ctx, lun, lba, (uint32_t)cmd->length, (int)sector, 0,
					     0, 0, 0, 0, on_command, cmd, iov, cmd->iovcnt);
	case ISCSI_WRITE:
	case ISCSI_ZEROES:
		return iscsi_write16_iov_task(ctx, lun, lba, NULL, (uint32_t)cmd->length,
					      (int)sector, 0, 0, fua, 0, 0, on_command, cmd, iov,
					      cmd->iovcnt);
	case ISCSI_SAME:
		return iscsi_writesame16_task(ctx, lun, lba, cmd->iov[0].iov_base, sector,
					      (uint32_t)(cmd->length / sector), 0, unmap, 0, 0,
					      on_command, cmd);
	default:
		break;
	}
	if (sync16)
		return iscsi_synchronizecache16_task(ctx, lun, 0, 0, 0, 0, on_command, cmd);
	return iscsi_synchronizecache10_task(ctx, lun, 0, 0, 0, 0, on_command, cmd);
}

/* Hand over what is in the inbox. */
static void send_all(struct iscsi_session *s, struct list_node *batch, uint32_t sector, bool sync16,
		     bool unmap, bool has_fua)
{
	struct list_node *n;

	while ((n = list_pop(batch))) {
		struct iscsi_cmd *cmd = list_entry(n, struct iscsi_cmd, link);
		bool fua = has_fua && (cmd->io->req->flags & BLK_FUA) && !cmd->io->sync_after;

		list_add_tail(&s->sent, &cmd->link);
		if (s->conn.broken)
			continue;
		cmd->sync16 = sync16;
		cmd->task = queue_task(s, cmd, sector, sync16, unmap, fua);
		if (!cmd->task) {
			s->conn.broken = true;
			snprintf(s->conn.reason, sizeof(s->conn.reason), "%s",
				 iscsi_get_error(s->conn.ctx));
		}
	}
}

/* How many bytes ever came; false where the transport does not tell (iSER). */
static bool received_bytes(const struct iscsi_session *s, uint64_t *ret)
{
	struct tcp_info info;
	socklen_t size = sizeof(info);

	memset(&info, 0, sizeof(info));
	if (getsockopt(iscsi_get_fd(s->conn.ctx), IPPROTO_TCP, TCP_INFO, &info, &size) < 0 ||
	    size < offsetof(struct tcp_info, tcpi_bytes_received) + sizeof(uint64_t))
		return false;
	*ret = info.tcpi_bytes_received;
	return true;
}

/*
 * The base round trip: a sample below counts at once, one above it (it waited behind data, or the
 * path has changed) only slowly.
 */
static void note_rtt(struct iscsi_session *s, uint64_t sample_ns)
{
	if (!s->rtt_ns || sample_ns < s->rtt_ns)
		s->rtt_ns = sample_ns;
	else
		s->rtt_ns += (sample_ns - s->rtt_ns) / 16;
}

static void on_nop(struct iscsi_context *ctx, int status, void *data, void *ctx_data)
{
	struct iscsi_session *s = ctx_data;
	uint64_t now = clock_monotonic_ns();

	(void)ctx;
	(void)data;
	if (iscsi_conn_lost(status)) {
		s->conn.broken = true;
		return;
	}
	s->nops = 0;
	s->heard_ns = now;
	guard(&s->pool->lock);
	note_rtt(s, now - s->nop_sent_ns);
}

static void give_up(struct iscsi_session *s, const char *why)
{
	s->conn.broken = true;
	snprintf(s->conn.reason, sizeof(s->conn.reason), "%s", why);
}

static void look_at_commands(struct iscsi_session *s, uint64_t now)
{
	struct list_node *n;

	list_for_each(n, &s->sent) {
		const struct iscsi_cmd *cmd = list_entry(n, struct iscsi_cmd, link);
		bool slow = cmd->kind == ISCSI_SYNC || cmd->kind == ISCSI_SAME ||
			    now - s->answered_ns < COMMAND_NS;

		if (now - cmd->sent_ns > (slow ? LONG_COMMAND_NS : COMMAND_NS)) {
			give_up(s, "a command was not answered in time");
			return;
		}
	}
}

static void look_at_timers(struct iscsi_session *s, uint64_t now)
{
	uint64_t bytes;

	if (now - s->look_ns < LOOK_NS)
		return;
	s->look_ns = now;
	if (received_bytes(s, &bytes) && bytes != s->heard_bytes) {
		s->heard_bytes = bytes;
		s->heard_ns = now;
	}
	if (s->nops && now - s->heard_ns > NOPS_DEAD * NOP_NS) {
		give_up(s, "the target does not answer");
		return;
	}
	look_at_commands(s, now);
	if (now >= s->nop_due_ns && s->nops < NOPS_DEAD) {
		s->nop_due_ns = now + NOP_NS;
		s->nop_sent_ns = now;
		s->nops++;
		if (iscsi_nop_out_async(s->conn.ctx, on_nop, NULL, 0, s) != 0)
			give_up(s, iscsi_get_error(s->conn.ctx));
	}
}

static void poll_once(struct iscsi_session *s, uint64_t until_ns)
{
	uint64_t now = clock_monotonic_ns(), count;
	struct pollfd p[2] = { { .fd = iscsi_get_fd(s->conn.ctx),
				 .events = (short)iscsi_conn_events(&s->conn) },
			       { .fd = s->wake_fd, .events = POLLIN } };
	uint64_t wait_ns = until_ns > now ? until_ns - now : 0;

	if (poll(p, 2, (int)(MIN(wait_ns, LOOK_NS) / NSEC_PER_MSEC + 1)) < 0 && errno != EINTR) {
		give_up(s, strerror(errno));
		return;
	}
	if ((p[1].revents & POLLIN) && read(s->wake_fd, &count, sizeof(count)) < 0 &&
	    errno != EAGAIN)
		give_up(s, strerror(errno));
	iscsi_conn_service(&s->conn, p[0].revents);
}

void iscsi_session_serve(struct iscsi_session *s)
{
	struct iscsi_pool *pool = s->pool;

	s->nops = 0;
	s->heard_ns = s->look_ns = clock_monotonic_ns();
	s->nop_due_ns = s->heard_ns + NOP_NS;
	s->heard_bytes = 0;
	s->answered_ns = 0;
	while (!s->conn.broken && !atomic_load(&pool->stop) && !iscsi_is_foreign(pool)) {
		uint64_t now = clock_monotonic_ns(), next;
		struct list_node batch, *n;
		bool sync16, unmap, fua, chores;
		uint32_t sector;

		list_init(&batch);
		pthread_mutex_lock(&pool->lock);
		next = iscsi_delayed_due(pool, now);
		iscsi_dispatch(pool, s, &s->ended);
		list_splice_tail(&batch, &s->inbox);
		list_for_each(n, &batch) {
			struct iscsi_cmd *cmd = list_entry(n, struct iscsi_cmd, link);

			cmd->sent_ns = now;
			if (cmd->kind <= ISCSI_ZEROES)
				window_sent(cmd->kind == ISCSI_READ ? &s->reads : &s->writes,
					    cmd->cost, now, &cmd->stamp);
		}
		sync16 = pool->sync16_works;
		unmap = pool->lun.discard;
		fua = pool->lun.fua && pool->lun.write_cache;
		sector = pool->lun.sector_bytes;
		chores = s->chores && s->cmds == 0;
		pthread_mutex_unlock(&pool->lock);

		iscsi_ended_complete(&s->ended);
		send_all(s, &batch, sector, sync16, unmap, fua);
		if (chores) {
			if (!s->conn.broken && iscsi_session_chores(s) < 0)
				s->conn.broken = true;
			continue;
		}
		look_at_timers(s, now);
		if (!s->conn.broken)
			poll_once(s, next ? next : UINT64_MAX);
		if (!s->conn.broken)
			conclude_lingering(s);
	}
	iscsi_ended_complete(&s->ended);
}
