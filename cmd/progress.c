// SPDX-License-Identifier: Apache-2.0
#include "cmd/progress.h"

#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/clock.h"

#define TERMINAL_NS (100 * NSEC_PER_MSEC)
#define PIPE_NS NSEC_PER_SEC

static atomic_int signalled;

void progress_init(struct progress *p)
{
	*p = (struct progress){ .terminal = isatty(STDERR_FILENO) };
}

void progress_show(struct progress *p, const char *text)
{
	uint64_t now = clock_monotonic_ns();

	if (p->last[0] && now - p->last_ns < (p->terminal ? TERMINAL_NS : PIPE_NS))
		return;
	if (strncmp(p->last, text, sizeof(p->last) - 1) == 0)
		return;
	p->last_ns = now;
	snprintf(p->last, sizeof(p->last), "%s", text);
	if (p->terminal) {
		fprintf(stderr, "\r%s\033[K", p->last);
		p->shown = true;
	} else {
		fprintf(stderr, "%s\n", p->last);
	}
	fflush(stderr);
}

void progress_end(struct progress *p)
{
	if (p->shown) {
		fputs("\r\033[K", stderr);
		fflush(stderr);
	}
	p->shown = false;
	p->last[0] = '\0';
}

static void on_signal(int sig)
{
	signalled = sig;
}

void interrupt_catch(void)
{
	struct sigaction sa = { .sa_handler = on_signal };

	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
}

bool interrupted(void)
{
	return signalled != 0;
}

void interruptible_sleep(uint64_t ns)
{
	struct timespec ts = { .tv_sec = (time_t)(ns / NSEC_PER_SEC),
			       .tv_nsec = (long)(ns % NSEC_PER_SEC) };
	sigset_t mask, before;

	/* Blocked from the test to the wait: a signal in between is not slept through. */
	sigemptyset(&mask);
	sigaddset(&mask, SIGINT);
	sigaddset(&mask, SIGTERM);
	sigprocmask(SIG_BLOCK, &mask, &before);
	if (!signalled)
		ppoll(NULL, 0, &ts, &before);
	sigprocmask(SIG_SETMASK, &before, NULL);
}
