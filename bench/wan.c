// SPDX-License-Identifier: Apache-2.0
/*
 * wan: joins two network namespaces by an emulated long line.
 *
 * One thread, one loop over two TUN devices, the control socket, its clients and the signals. Each
 * turn: take what the devices have, hand out what is due, wait for the first of a packet, the next
 * due time, a command. The line itself is wan_link.c, the devices are wan_tun.c.
 *
 * `cut' loses packets, nothing else: the devices keep their carrier and nobody gets a reset or an
 * ICMP message, as when a router far away dies.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "bench/wan_link.h"
#include "bench/wan_opt.h"
#include "bench/wan_tun.h"

#define NS_PER_S UINT64_C(1000000000)
#define LEAST_AUTO_QUEUE (UINT64_C(64) << 10)
#define CLIENTS 8

#define MOST_GRAIN_NS UINT64_C(200000)

/* Packets taken from one device before the other one and the due ones get their turn. */
#define BATCH 128

enum { A, B, ENDS };

/* The places in the poll set. */
enum {
	POLL_TUN,
	POLL_SIGNAL = POLL_TUN + ENDS,
	POLL_LISTEN,
	POLL_CLIENT,
	POLL_ALL = POLL_CLIENT + CLIENTS
};

struct client {
	int fd;
	size_t used;
	char line[256];
};

/*
 * link[A] carries what a sends: it is filled from tun[A] and drained into tun[B]; link[B] the other
 * way round.
 */
struct wan {
	struct wan_opt opt;
	int tun[ENDS];
	struct wan_link link[ENDS];
	int signal_fd;
	int listen_fd;
	struct client client[CLIENTS];
	uint64_t refused; /* packets that a device would not have */
	uint64_t turn_ns; /* when the loop last woke up */
	bool quit;
};

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

static struct wan_link_conf link_conf(const struct wan_opt *opt, int end)
{
	struct wan_link_conf conf = {
		.rate_bps = end == B && opt->rate_back_bps ? opt->rate_back_bps : opt->rate_bps,
		.delay_ns = opt->rtt_ns / 2,
		.queue_bytes = opt->queue_bytes,
		.loss_ppb = opt->loss_ppb,
	};

	if (!conf.queue_bytes) {
		/* By microseconds: 1000G x 100 s fits. */
		conf.queue_bytes = conf.rate_bps / 8 * (opt->rtt_ns / 1000) / 1000000;
		if (conf.queue_bytes < LEAST_AUTO_QUEUE)
			conf.queue_bytes = LEAST_AUTO_QUEUE;
	}
	return conf;
}

static void apply(struct wan *w)
{
	for (int end = A; end < ENDS; end++) {
		struct wan_link_conf conf = link_conf(&w->opt, end);

		wan_link_set(&w->link[end], now_ns(), &conf);
	}
}

/* ---- packets ---- */

/* Takes up to BATCH packets from a device. 0, or -errno when the device has gone. */
static int take(struct wan *w, int end)
{
	struct wan_link *link = &w->link[end];
	unsigned char refused[UINT16_MAX];

	for (int i = 0; i < BATCH; i++) {
		void *slot = wan_link_slot(link);
		ssize_t n = read(w->tun[end], slot ? slot : refused, w->opt.mtu);

		if (n < 0)
			return errno == EAGAIN || errno == EINTR ? 0 : -errno;
		if (slot && n)
			wan_link_push(link, now_ns(), (size_t)n);
		else
			wan_link_refuse(link);
	}
	return 0;
}

/*
 * Hands out what is due. A packet that the device will not have (it was set down by hand, the
 * kernel is out of memory) is lost, as it would be on any line.
 */
static void give(struct wan *w, int end)
{
	struct wan_link *link = &w->link[end];
	const void *pkt;
	size_t len;

	while ((pkt = wan_link_peek(link, now_ns(), &len)) != NULL) {
		if (write(w->tun[!end], pkt, len) < 0)
			w->refused++;
		wan_link_pop(link);
	}
}

/* ---- control ---- */

static void print_stats(struct wan *w, char *reply, size_t size)
{
	size_t used;

	used = (size_t)snprintf(
		reply, size, "ok state=%s rtt_ns=%" PRIu64 " loss_ppb=%" PRIu64 " refused=%" PRIu64,
		w->link[A].cut ? "cut" : "up", w->opt.rtt_ns, w->opt.loss_ppb, w->refused);
	for (int end = A; end < ENDS; end++) {
		uint64_t waiting = wan_link_backlog(&w->link[end], now_ns());
		const struct wan_link *link = &w->link[end];
		const struct wan_link_stats *st = &link->stats;
		const char *dir = end == A ? "ab" : "ba";

		used += (size_t)snprintf(reply + used, size - used,
					 " %s_rate=%" PRIu64 " %s_queue=%" PRIu64
					 " %s_waiting=%" PRIu64 " %s_packets=%" PRIu64
					 " %s_bytes=%" PRIu64 " %s_tail_drops=%" PRIu64
					 " %s_losses=%" PRIu64 " %s_cut_drops=%" PRIu64,
					 dir, link->conf.rate_bps, dir, link->conf.queue_bytes, dir,
					 waiting, dir, st->delivered, dir, st->delivered_bytes, dir,
					 st->tail_drops, dir, st->losses, dir, st->cut_drops);
	}
}

/* Parsed aside first, so that `rate 1M nonsense' changes nothing. */
static int set_rate(struct wan *w, const char *there, const char *back)
{
	uint64_t there_bps, back_bps = 0;
	int r = wan_parse_rate(there, &there_bps);

	if (r == 0 && back)
		r = wan_parse_rate(back, &back_bps);
	if (r < 0)
		return r;
	w->opt.rate_bps = there_bps;
	w->opt.rate_back_bps = back_bps;
	return 0;
}

/* One command; false if it is none of ours or its words are wrong. */
static bool run_command(struct wan *w, int argc, char **argv, char *reply, size_t size)
{
	const char *verb = argc ? argv[0] : "";

	snprintf(reply, size, "ok %s", verb);
	if (argc == 1 && (!strcmp(verb, "cut") || !strcmp(verb, "restore"))) {
		for (int end = A; end < ENDS; end++)
			wan_link_cut(&w->link[end], verb[0] == 'c');
		return true;
	}
	if (argc == 1 && !strcmp(verb, "stats")) {
		print_stats(w, reply, size);
		return true;
	}
	if (argc == 1 && !strcmp(verb, "quit")) {
		w->quit = true;
		return true;
	}
	if ((argc == 2 && !strcmp(verb, "rtt") && !wan_parse_duration(argv[1], &w->opt.rtt_ns)) ||
	    (argc == 2 && !strcmp(verb, "loss") && !wan_parse_loss(argv[1], &w->opt.loss_ppb)) ||
	    ((argc == 2 || argc == 3) && !strcmp(verb, "rate") &&
	     !set_rate(w, argv[1], argc == 3 ? argv[2] : NULL))) {
		apply(w);
		return true;
	}
	return false;
}

/* Runs one line and answers it. 0, or -errno when the client has gone. */
static int answer(struct wan *w, int fd, char *line)
{
	char reply[1024], *argv[4], *save = NULL;
	size_t len;
	int argc = 0;

	for (char *word = strtok_r(line, " \t\r", &save); word && argc < 4;
	     word = strtok_r(NULL, " \t\r", &save))
		argv[argc++] = word;
	if (!run_command(w, argc, argv, reply, sizeof(reply) - 1))
		snprintf(reply, sizeof(reply) - 1, "error bad command: see wan --help");
	len = strlen(reply);
	reply[len++] = '\n';
	/* A reply is far smaller than any socket buffer: a client that lets it fill is broken. */
	return send(fd, reply, len, MSG_NOSIGNAL) == (ssize_t)len ? 0 : -EPIPE;
}

static void drop_client(struct client *c)
{
	close(c->fd);
	*c = (struct client){ .fd = -1 };
}

static void serve_client(struct wan *w, struct client *c)
{
	ssize_t n = read(c->fd, c->line + c->used, sizeof(c->line) - c->used);
	char *end;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		drop_client(c);
		return;
	}
	c->used += (size_t)n;
	while ((end = memchr(c->line, '\n', c->used)) != NULL) {
		size_t len = (size_t)(end - c->line) + 1;

		*end = '\0';
		if (answer(w, c->fd, c->line) < 0) {
			drop_client(c);
			return;
		}
		c->used -= len;
		memmove(c->line, c->line + len, c->used);
	}
	if (c->used == sizeof(c->line))
		drop_client(c);
}

static void accept_client(struct wan *w)
{
	int fd = accept4(w->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

	if (fd < 0)
		return;
	for (int i = 0; i < CLIENTS; i++) {
		if (w->client[i].fd < 0) {
			w->client[i].fd = fd;
			return;
		}
	}
	close(fd);
}

/* ---- the loop ---- */

static void fill_poll(const struct wan *w, struct pollfd *set)
{
	for (int i = 0; i < POLL_ALL; i++)
		set[i] = (struct pollfd){ .fd = -1, .events = POLLIN };
	for (int end = A; end < ENDS; end++)
		set[POLL_TUN + end].fd = w->tun[end];
	set[POLL_SIGNAL].fd = w->signal_fd;
	set[POLL_LISTEN].fd = w->listen_fd;
	for (int i = 0; i < CLIENTS; i++)
		set[POLL_CLIENT + i].fd = w->client[i].fd;
}

/*
 * Under load packets come every few microseconds and a wake-up costs more than a packet, so the
 * loop turns at most once in a grain of time, too short to be seen beside the round trip.
 */
static void wait_grain(struct wan *w)
{
	uint64_t grain = w->opt.rtt_ns / 200 < MOST_GRAIN_NS ? w->opt.rtt_ns / 200 : MOST_GRAIN_NS;
	uint64_t now = now_ns(), until = w->turn_ns + grain;
	struct timespec ts = { .tv_nsec = (long)(until - now) };

	if (now < until)
		nanosleep(&ts, NULL);
}

/* Waits for the first of an event and the next due packet. */
static int wait_event(struct wan *w, struct pollfd *set)
{
	uint64_t next, other, now, wait;
	struct timespec ts;

	wait_grain(w);
	next = wan_link_next_ns(&w->link[A]);
	other = wan_link_next_ns(&w->link[B]);
	now = now_ns();
	if (other < next)
		next = other;
	wait = next > now ? next - now : 0;
	ts.tv_sec = (time_t)(wait / NS_PER_S);
	ts.tv_nsec = (long)(wait % NS_PER_S);
	fill_poll(w, set);
	if (ppoll(set, POLL_ALL, next == WAN_NEVER ? NULL : &ts, NULL) < 0 && errno != EINTR)
		return -errno;
	w->turn_ns = now_ns();
	return 0;
}

static int run(struct wan *w)
{
	struct pollfd set[POLL_ALL];

	while (!w->quit) {
		int r = wait_event(w, set);

		for (int end = A; end < ENDS && r == 0; end++)
			if (set[POLL_TUN + end].revents)
				r = take(w, end);
		if (r < 0)
			return r;
		give(w, A);
		give(w, B);
		if (set[POLL_SIGNAL].revents)
			w->quit = true;
		if (set[POLL_LISTEN].revents)
			accept_client(w);
		for (int i = 0; i < CLIENTS; i++)
			if (set[POLL_CLIENT + i].revents)
				serve_client(w, &w->client[i]);
	}
	return 0;
}

/* ---- start and end ---- */

static int unix_address(const char *path, struct sockaddr_un *ret_sun)
{
	*ret_sun = (struct sockaddr_un){ .sun_family = AF_UNIX };
	if (strlen(path) >= sizeof(ret_sun->sun_path))
		return -ENAMETOOLONG;
	strcpy(ret_sun->sun_path, path);
	return 0;
}

static int open_control(struct wan *w)
{
	struct sockaddr_un sun;
	int r = unix_address(w->opt.control, &sun);

	if (r < 0)
		return r;
	w->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (w->listen_fd < 0)
		return -errno;
	if (bind(w->listen_fd, (struct sockaddr *)&sun, sizeof(sun)) < 0) {
		r = -errno;
		close(w->listen_fd);
		w->listen_fd = -1; /* so that wan_close() leaves another one's socket alone */
		return r;
	}
	return listen(w->listen_fd, CLIENTS) < 0 ? -errno : 0;
}

static int open_signals(struct wan *w)
{
	sigset_t mask;

	sigemptyset(&mask);
	sigaddset(&mask, SIGTERM);
	sigaddset(&mask, SIGINT);
	sigprocmask(SIG_BLOCK, &mask, NULL);
	w->signal_fd = signalfd(-1, &mask, SFD_NONBLOCK | SFD_CLOEXEC);
	return w->signal_fd < 0 ? -errno : 0;
}

static int open_ends(struct wan *w, const char **ret_what)
{
	for (int end = A; end < ENDS; end++) {
		const struct wan_opt *opt = &w->opt;
		struct wan_link_conf conf = link_conf(opt, end);
		struct wan_tun_conf tun = {
			.ns = end == A ? opt->ns_a : opt->ns_b,
			.dev = opt->dev,
			.addr4 = end == A ? opt->addr_a : opt->addr_b,
			.addr6 = end == A ? opt->addr6_a : opt->addr6_b,
			.mtu = (int)opt->mtu,
		};
		int r;

		w->tun[end] = wan_tun_open(&tun, ret_what);
		if (w->tun[end] < 0)
			return w->tun[end];
		*ret_what = "cannot make the line";
		/* Two directions must not lose in step. */
		r = wan_link_init(&w->link[end], &conf, opt->mtu, opt->seed * 2 + (uint64_t)end);
		if (r < 0)
			return r;
	}
	return 0;
}

static int write_pidfile(const char *path)
{
	FILE *f = fopen(path, "we");
	int r;

	if (!f)
		return -errno;
	r = fprintf(f, "%d\n", (int)getpid());
	return fclose(f) || r < 0 ? -EIO : 0;
}

static int wan_start(struct wan *w, const char **ret_what)
{
	int r = open_ends(w, ret_what);

	if (r < 0)
		return r;
	*ret_what = "cannot block signals";
	r = open_signals(w);
	if (r == 0 && w->opt.control) {
		*ret_what = "cannot open the control socket";
		r = open_control(w);
	}
	if (r == 0 && w->opt.pidfile) {
		*ret_what = "cannot write the pidfile";
		r = write_pidfile(w->opt.pidfile);
	}
	return r;
}

/* Accepts a half-started one. The devices go with their descriptors. */
static void wan_stop(struct wan *w, bool started)
{
	for (int end = A; end < ENDS; end++) {
		if (w->tun[end] >= 0)
			close(w->tun[end]);
		wan_link_fini(&w->link[end]);
	}
	for (int i = 0; i < CLIENTS; i++)
		if (w->client[i].fd >= 0)
			close(w->client[i].fd);
	if (w->signal_fd >= 0)
		close(w->signal_fd);
	if (w->listen_fd >= 0) {
		unlink(w->opt.control);
		close(w->listen_fd);
	}
	if (started && w->opt.pidfile)
		unlink(w->opt.pidfile);
}

/*
 * The line stands for hardware: it should not wait for the programs it connects. Best effort, both
 * calls only make it more exact.
 */
static void be_prompt(void)
{
	setpriority(PRIO_PROCESS, 0, -15);
	prctl(PR_SET_TIMERSLACK, 20000UL, 0, 0, 0);
}

static int emulate(int argc, char **argv)
{
	struct wan w = { .tun = { -1, -1 }, .signal_fd = -1, .listen_fd = -1 };
	const char *what = "the line broke";
	int r;

	for (int i = 0; i < CLIENTS; i++)
		w.client[i].fd = -1;
	wan_opt_parse(&w.opt, argc, argv);
	be_prompt();
	r = wan_start(&w, &what);
	if (r == 0) {
		what = "a device has gone";
		puts("ready");
		fflush(stdout);
		r = run(&w);
		wan_stop(&w, true);
	} else {
		wan_stop(&w, false);
	}
	if (r < 0)
		fprintf(stderr, "wan: %s: %s\n", what, strerror(-r));
	return r < 0;
}

/* ---- the client ---- */

static int client_failed(const char *path, int err)
{
	fprintf(stderr, "wan: %s: %s\n", path, strerror(err));
	return 1;
}

/* wan --ctl SOCKET WORD...: sends the words as one line, prints the answer. */
static int control(int argc, char **argv)
{
	const struct timeval patience = { .tv_sec = 10 };
	struct sockaddr_un sun;
	char line[256] = "", reply[1024];
	size_t used = 0;
	ssize_t n;
	int fd;

	if (argc < 2) {
		fprintf(stderr, "wan: --ctl needs a socket and a command (try --help)\n");
		return 2;
	}
	for (int i = 1; i < argc; i++) {
		int put = snprintf(line + used, sizeof(line) - used, "%s%c", argv[i],
				   i + 1 < argc ? ' ' : '\n');

		used += (size_t)put;
		if (used >= sizeof(line))
			return client_failed(argv[0], E2BIG);
	}
	if (unix_address(argv[0], &sun) < 0)
		return client_failed(argv[0], ENAMETOOLONG);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) < 0 ||
	    connect(fd, (struct sockaddr *)&sun, sizeof(sun)) < 0 ||
	    send(fd, line, used, MSG_NOSIGNAL) != (ssize_t)used)
		return client_failed(argv[0], errno);
	/* One answer is sent in one piece. */
	n = read(fd, reply, sizeof(reply));
	if (n <= 0)
		return client_failed(argv[0], n < 0 ? errno : EPIPE);
	close(fd);
	fwrite(reply, 1, (size_t)n, stdout);
	return strncmp(reply, "ok", 2) != 0;
}

int main(int argc, char **argv)
{
	if (argc > 1 && !strcmp(argv[1], "--ctl"))
		return control(argc - 2, argv + 2);
	return emulate(argc, argv);
}
