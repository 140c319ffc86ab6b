// SPDX-License-Identifier: Apache-2.0
#include "tests/transport/tgt.h"

#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char root[64];

void tgt_root_create(void)
{
	snprintf(root, sizeof(root), "/tmp/nearblk-tgt.XXXXXX");
	if (!mkdtemp(root))
		abort();
}

void tgt_root_remove(void)
{
	char command[128];

	snprintf(command, sizeof(command), "rm -rf '%s'", root);
	if (system(command) != 0)
		fprintf(stderr, "cannot remove %s\n", root);
}

static int listen_any(unsigned *ret_port)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t size = sizeof(a);
	int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	ck_assert_int_ge(fd, 0);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	ck_assert_int_eq(listen(fd, 64), 0);
	ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&a, &size), 0);
	*ret_port = ntohs(a.sin_port);
	return fd;
}

/* Run tgtadm; its exit code. */
static int adm(const struct tgt *t, const char *args)
{
	char line[1024], control[16], *argv[64], *save = NULL;
	int n = 0, status;
	pid_t pid;

	snprintf(line, sizeof(line), "%s", args);
	snprintf(control, sizeof(control), "%d", t->control);
	argv[n++] = (char[]){ "tgtadm" };
	argv[n++] = (char[]){ "-C" };
	argv[n++] = control;
	argv[n++] = (char[]){ "--lld" };
	argv[n++] = (char[]){ "iscsi" };
	for (char *a = strtok_r(line, " ", &save); a; a = strtok_r(NULL, " ", &save))
		argv[n++] = a;
	argv[n] = NULL;
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (pid == 0) {
		int null = open("/dev/null", O_RDWR);

		dup2(null, 1);
		dup2(null, 2);
		execvp("tgtadm", argv);
		_exit(127);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

void tgt_adm(struct tgt *t, const char *fmt, ...)
{
	char line[1024];
	va_list ap;
	int r;

	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	r = adm(t, line);
	ck_assert_msg(r == 0, "tgtadm %s: exit %d", line, r);
	ck_assert_uint_lt(t->setups, 64);
	t->setup[t->setups++] = strdup(line);
}

static void launch(struct tgt *t)
{
	struct timespec pause = { .tv_nsec = 10000000 };
	char portal[128], control[16], log[160];
	int tries = 0;

	snprintf(portal, sizeof(portal), "portal=127.0.0.1:%u,portal=[::1]:%u", t->port, t->port);
	snprintf(control, sizeof(control), "%d", t->control);
	snprintf(log, sizeof(log), "%s/tgtd.log", t->dir);
	t->pid = fork();
	ck_assert_int_ge(t->pid, 0);
	if (t->pid == 0) {
		int out = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		dup2(out, 1);
		dup2(out, 2);
		execlp("tgtd", "tgtd", "-f", "-C", control, "--iscsi", portal, NULL);
		_exit(127);
	}
	while (adm(t, "--mode system --op show") != 0) {
		ck_assert_msg(++tries < 500, "tgtd does not start: see %s", log);
		ck_assert_int_eq(waitpid(t->pid, NULL, WNOHANG), 0);
		nanosleep(&pause, NULL);
	}
}

void tgt_start(struct tgt *t)
{
	char path[160];

	memset(t, 0, sizeof(*t));
	snprintf(t->dir, sizeof(t->dir), "%s/XXXXXX", root);
	ck_assert_ptr_nonnull(mkdtemp(t->dir));
	snprintf(path, sizeof(path), "%s/ipc", t->dir);
	setenv("TGT_IPC_SOCKET", path, 1);
	t->control = getpid() % 30000 + 1;
	close(listen_any(&t->port));
	launch(t);
	tgt_adm(t, "--mode target --op new --tid 1 --targetname %s", TGT_NAME);
	tgt_adm(t, "--mode target --op bind --tid 1 -I ALL");
}

void tgt_lun(struct tgt *t, unsigned lun, const char *name, uint64_t bytes, unsigned block_bytes,
	     const char *params)
{
	char path[200], size[32] = "";
	int fd;

	snprintf(path, sizeof(path), "%s/%s", t->dir, name);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(ftruncate(fd, (off_t)bytes), 0);
	close(fd);
	if (block_bytes)
		snprintf(size, sizeof(size), "--blocksize %u", block_bytes);
	tgt_adm(t, "--mode logicalunit --op new --tid 1 --lun %u -b %s %s", lun, path, size);
	tgt_adm(t, "--mode logicalunit --op update --tid 1 --lun %u --params scsi_sn=SN%u%s%s%s",
		lun, lun, name, params ? "," : "", params ? params : "");
}

void tgt_kill(struct tgt *t)
{
	kill(t->pid, SIGKILL);
	waitpid(t->pid, NULL, 0);
	t->pid = 0;
}

void tgt_restart(struct tgt *t)
{
	launch(t);
	for (unsigned i = 0; i < t->setups; i++)
		ck_assert_int_eq(adm(t, t->setup[i]), 0);
}

void tgt_stop(struct tgt *t)
{
	if (t->pid)
		tgt_kill(t);
	for (unsigned i = 0; i < t->setups; i++)
		free(t->setup[i]);
	t->setups = 0;
}

/* --- the proxy --- */

#define PAIRS 256
#define CHUNK 65536

struct pair {
	int fd[2]; /* 0: the initiator, 1: the target */
	bool open;
	uint64_t carried; /* towards the target */
	uint64_t since;   /* carried when the limit was set */
	char *buf[2];     /* what came from fd[i] */
	size_t have[2], sent[2];
};

struct proxy {
	pthread_t thread;
	int listener, wake[2];
	unsigned port;
	pthread_mutex_t lock;
	/* guarded by lock */
	bool stop, cut, refuse;
	uint64_t limit;
	struct pair pairs[PAIRS];
	unsigned count;
};

static void close_pair(struct pair *c)
{
	struct linger reset = { .l_onoff = 1 };

	for (int i = 0; i < 2; i++) {
		setsockopt(c->fd[i], SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
		close(c->fd[i]);
		free(c->buf[i]);
	}
	c->open = false;
}

static void accept_pair(struct proxy *p)
{
	struct sockaddr_in a = { .sin_family = AF_INET,
				 .sin_port = htons((uint16_t)p->port),
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct pair *c = &p->pairs[p->count];
	int in = accept4(p->listener, NULL, NULL, SOCK_CLOEXEC);
	int out = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	*c = (struct pair){ .fd = { in, out }, .open = true };
	c->buf[0] = malloc(CHUNK);
	c->buf[1] = malloc(CHUNK);
	if (p->refuse || p->count + 1 == PAIRS ||
	    connect(out, (struct sockaddr *)&a, sizeof(a)) != 0) {
		close_pair(c);
		return;
	}
	fcntl(in, F_SETFL, O_NONBLOCK);
	fcntl(out, F_SETFL, O_NONBLOCK);
	p->count++;
}

/* Move what can be moved from side @from; false when the connection is over. */
static bool pump(struct proxy *p, struct pair *c, int from)
{
	ssize_t n;

	if (c->sent[from] == c->have[from]) {
		n = recv(c->fd[from], c->buf[from], CHUNK, 0);
		if (n == 0 || (n < 0 && errno != EAGAIN))
			return false;
		if (n < 0)
			return true;
		c->have[from] = (size_t)n;
		c->sent[from] = 0;
	}
	n = send(c->fd[!from], c->buf[from] + c->sent[from], c->have[from] - c->sent[from],
		 MSG_NOSIGNAL);
	if (n < 0)
		return errno == EAGAIN;
	c->sent[from] += (size_t)n;
	if (from == 0)
		c->carried += (uint64_t)n;
	return !(p->limit && c->carried - c->since >= p->limit);
}

static void *proxy_main(void *arg)
{
	static const short in = POLLIN, out = POLLOUT;
	struct proxy *p = arg;

	for (;;) {
		struct pollfd fds[2 + 2 * PAIRS];
		unsigned n = 2;
		char byte;

		fds[0] = (struct pollfd){ .fd = p->listener, .events = POLLIN };
		fds[1] = (struct pollfd){ .fd = p->wake[0], .events = POLLIN };
		pthread_mutex_lock(&p->lock);
		for (unsigned i = 0; i < p->count; i++) {
			struct pair *c = &p->pairs[i];
			bool full[2] = { c->sent[0] < c->have[0], c->sent[1] < c->have[1] };

			for (int side = 0; side < 2; side++)
				fds[n++] = (struct pollfd){
					.fd = c->open ? c->fd[side] : -1,
					.events = (short)((full[side] ? 0 : in) |
							  (full[!side] ? out : 0)),
				};
		}
		pthread_mutex_unlock(&p->lock);
		poll(fds, n, -1);
		pthread_mutex_lock(&p->lock);
		if (fds[1].revents)
			(void)!read(p->wake[0], &byte, 1);
		for (unsigned i = 0; i < p->count; i++) {
			struct pair *c = &p->pairs[i];

			if (c->open && (p->cut || p->stop || !pump(p, c, 0) || !pump(p, c, 1)))
				close_pair(c);
		}
		p->cut = false;
		if (p->stop)
			break;
		if (fds[0].revents & POLLIN)
			accept_pair(p);
		pthread_mutex_unlock(&p->lock);
	}
	pthread_mutex_unlock(&p->lock);
	return NULL;
}

struct proxy *proxy_start(unsigned port, unsigned *ret_port)
{
	struct proxy *p = calloc(1, sizeof(*p));

	p->listener = listen_any(ret_port);
	p->port = port;
	ck_assert_int_eq(pipe2(p->wake, O_CLOEXEC), 0);
	pthread_mutex_init(&p->lock, NULL);
	ck_assert_int_eq(pthread_create(&p->thread, NULL, proxy_main, p), 0);
	return p;
}

static void poke(struct proxy *p)
{
	(void)!write(p->wake[1], "x", 1);
}

void proxy_cut(struct proxy *p)
{
	pthread_mutex_lock(&p->lock);
	p->cut = true;
	pthread_mutex_unlock(&p->lock);
	poke(p);
}

void proxy_cut_after(struct proxy *p, uint64_t bytes)
{
	pthread_mutex_lock(&p->lock);
	p->limit = bytes;
	for (unsigned i = 0; i < p->count; i++)
		p->pairs[i].since = p->pairs[i].carried;
	pthread_mutex_unlock(&p->lock);
}

void proxy_refuse(struct proxy *p, bool refuse)
{
	pthread_mutex_lock(&p->lock);
	p->refuse = refuse;
	pthread_mutex_unlock(&p->lock);
}

unsigned proxy_used(struct proxy *p, uint64_t bytes)
{
	unsigned n = 0;

	pthread_mutex_lock(&p->lock);
	for (unsigned i = 0; i < p->count; i++)
		n += p->pairs[i].carried > bytes;
	pthread_mutex_unlock(&p->lock);
	return n;
}

void proxy_stop(struct proxy *p)
{
	pthread_mutex_lock(&p->lock);
	p->stop = true;
	pthread_mutex_unlock(&p->lock);
	poke(p);
	pthread_join(p->thread, NULL);
	close(p->listener);
	close(p->wake[0]);
	close(p->wake[1]);
	pthread_mutex_destroy(&p->lock);
	free(p);
}
