// SPDX-License-Identifier: Apache-2.0
/*
 * The look-up runs on a thread that shares a reference-counted record with the caller; whoever
 * leaves last frees it. The thread is detached: the one exception to "threads are joined", because
 * getaddrinfo() may sit on a dead name server for longer than a stop may take.
 */
#include "transport/iscsi_resolve.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "core/cleanup.h"
#include "core/clock.h"

#define LOOK_NS (50 * NSEC_PER_MSEC)

struct lookup {
	pthread_mutex_t lock;
	pthread_cond_t ended;
	unsigned references; /* guarded by lock */
	bool done;           /* guarded by lock */
	int gai;
	struct iscsi_addresses found;
	uint16_t port;
	char host[256];
};

static void drop(struct lookup *l)
{
	bool last;

	pthread_mutex_lock(&l->lock);
	last = --l->references == 0;
	pthread_mutex_unlock(&l->lock);
	if (!last)
		return;
	pthread_cond_destroy(&l->ended);
	pthread_mutex_destroy(&l->lock);
	free(l);
}

static int ask(const char *host, uint16_t port, int flags, struct iscsi_addresses *ret)
{
	struct addrinfo hints = { .ai_family = AF_UNSPEC,
				  .ai_socktype = SOCK_STREAM,
				  .ai_flags = flags };
	struct addrinfo *list = NULL;
	int gai = getaddrinfo(host, NULL, &hints, &list);

	ret->count = 0;
	if (gai != 0)
		return gai;
	for (struct addrinfo *ai = list; ai && ret->count < ISCSI_ADDRESSES; ai = ai->ai_next) {
		char number[64];
		bool v6 = ai->ai_family == AF_INET6;

		if (!v6 && ai->ai_family != AF_INET)
			continue;
		if (getnameinfo(ai->ai_addr, ai->ai_addrlen, number, sizeof(number), NULL, 0,
				NI_NUMERICHOST) != 0)
			continue;
		snprintf(ret->text[ret->count++], ISCSI_ADDRESS_MAX, v6 ? "[%s]:%u" : "%s:%u",
			 number, port);
	}
	freeaddrinfo(list);
	return ret->count ? 0 : EAI_NONAME;
}

static void *lookup_main(void *arg)
{
	struct lookup *l = arg;
	struct iscsi_addresses found;
	int gai = ask(l->host, l->port, AI_ADDRCONFIG, &found);

	pthread_mutex_lock(&l->lock);
	l->gai = gai;
	l->found = found;
	l->done = true;
	pthread_cond_signal(&l->ended);
	pthread_mutex_unlock(&l->lock);
	drop(l);
	return NULL;
}

static int wait_done(struct lookup *l, uint64_t deadline_ns, const atomic_bool *abort)
{
	guard(&l->lock);
	while (!l->done) {
		uint64_t now = clock_monotonic_ns(), until;
		struct timespec ts;

		if (abort && atomic_load(abort))
			return -ECANCELED;
		if (now >= deadline_ns)
			return -ETIMEDOUT;
		until = MIN(deadline_ns, now + LOOK_NS);
		ts.tv_sec = (time_t)(until / NSEC_PER_SEC);
		ts.tv_nsec = (long)(until % NSEC_PER_SEC);
		pthread_cond_clockwait(&l->ended, &l->lock, CLOCK_MONOTONIC, &ts);
	}
	return 0;
}

int iscsi_resolve(const char *host, uint16_t port, uint64_t deadline_ns, const atomic_bool *abort,
		  struct iscsi_addresses *ret, const char **ret_why)
{
	struct lookup *l;
	pthread_t thread;
	int r;

	if (ask(host, port, AI_NUMERICHOST, ret) == 0)
		return 0;
	l = calloc(1, sizeof(*l));
	if (!l)
		return -ENOMEM;
	pthread_mutex_init(&l->lock, NULL);
	pthread_cond_init(&l->ended, NULL);
	l->references = 2;
	l->port = port;
	snprintf(l->host, sizeof(l->host), "%s", host);
	if (pthread_create(&thread, NULL, lookup_main, l) != 0) {
		drop(l);
		drop(l);
		return -ENOMEM;
	}
	pthread_setname_np(thread, "nb-resolve");
	pthread_detach(thread);
	r = wait_done(l, deadline_ns, abort);
	if (r == 0 && l->gai != 0) {
		*ret_why = gai_strerror(l->gai);
		r = -EADDRNOTAVAIL;
	}
	if (r == 0)
		*ret = l->found;
	drop(l);
	return r;
}
