// SPDX-License-Identifier: Apache-2.0
/*
 * State: one sink, chosen while the process has one thread and read by all
 * later. A line is formatted on the caller's stack and handed over in one call.
 */
#include "core/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
/* <syslog.h> owns the LOG_ names it uses; ours are LOG_LEVEL_. */
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#ifdef HAVE_LIBSYSTEMD
#define SD_JOURNAL_SUPPRESS_LOCATION
#include <systemd/sd-journal.h>
#endif

#include "core/cleanup.h"
#include "core/clock.h"

#define RATE_WINDOW_NS (5 * NSEC_PER_SEC)
#define RATE_LINES 10

enum sink { SINK_STDERR, SINK_SYSLOG, SINK_JOURNAL, SINK_FILE };

static struct {
	enum sink sink;
	enum log_level level;
	int fd;     /* SINK_FILE */
	char *name; /* likewise; owned */
} state = { .sink = SINK_STDERR, .level = LOG_LEVEL_INFO, .fd = -1 };

static const char *const level_name[] = { "error", "warning", "info", "debug" };
static const int level_priority[] = { LOG_ERR, LOG_WARNING, LOG_INFO, LOG_DEBUG };

int log_level_parse(const char *text, enum log_level *ret_level)
{
	for (size_t i = 0; i < ARRAY_SIZE(level_name); i++) {
		if (strcmp(text, level_name[i]) == 0) {
			*ret_level = (enum log_level)i;
			return 0;
		}
	}
	return -EINVAL;
}

int log_open(const char *sink, enum log_level level, struct err *err)
{
	log_close();
	state.level = level;
	if (strcmp(sink, "stderr") == 0) {
		state.sink = SINK_STDERR;
	} else if (strcmp(sink, "syslog") == 0) {
		openlog("nearblk", LOG_PID | LOG_NDELAY, LOG_DAEMON);
		state.sink = SINK_SYSLOG;
	} else if (strcmp(sink, "journal") == 0) {
#ifdef HAVE_LIBSYSTEMD
		if (access("/run/systemd/journal/socket", F_OK) < 0)
			return err_set(err, -ENOTSUP,
				       "--log journal: no journal runs here; use stderr, syslog or "
				       "a file");
		state.sink = SINK_JOURNAL;
#else
		return err_set(
			err, -ENOTSUP,
			"--log journal: built without libsystemd; use stderr, syslog or a file");
#endif
	} else if (sink[0] == '/') {
		int fd = open(sink, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);

		if (fd < 0)
			return err_set(err, -errno, "--log %s: %s", sink, strerror(errno));
		state.name = strdup(sink);
		if (!state.name) {
			close(fd);
			return err_set(err, -ENOMEM, "out of memory");
		}
		state.fd = fd;
		state.sink = SINK_FILE;
	} else {
		return err_set(err, -EINVAL,
			       "--log %s: not stderr, syslog, journal or an absolute file name",
			       sink);
	}
	return 0;
}

int log_reopen(struct err *err)
{
	cleanup_close int fd = -1;

	if (state.sink != SINK_FILE)
		return 0;
	fd = open(state.name, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	/* The number stays: a thread that writes right now finds one file or the other behind it.
	 */
	if (fd < 0 || dup3(fd, state.fd, O_CLOEXEC) < 0)
		return err_set(err, -errno, "--log %s: %s", state.name, strerror(errno));
	return 0;
}

int log_stream(void)
{
	if (state.sink == SINK_FILE)
		return fcntl(state.fd, F_DUPFD_CLOEXEC, 3);
#ifdef HAVE_LIBSYSTEMD
	if (state.sink == SINK_JOURNAL) {
		int fd = sd_journal_stream_fd("nearblk", LOG_ERR, 0);

		return fd < 0 ? -1 : fd;
	}
#endif
	return -1;
}

void log_close(void)
{
	if (state.sink == SINK_SYSLOG)
		closelog();
	if (state.fd >= 0)
		close(steal_fd(state.fd));
	free(steal_ptr(state.name));
	state.sink = SINK_STDERR;
}

/* False: this call site has used up its window. *@ret_suppressed: lines to own up to now. */
static bool rate_pass(struct log_site *site, uint32_t *ret_suppressed)
{
	uint64_t now = clock_monotonic_ns();
	uint64_t start = atomic_load(&site->window_start_ns);

	*ret_suppressed = 0;
	if (now - start > RATE_WINDOW_NS &&
	    atomic_compare_exchange_strong(&site->window_start_ns, &start, now)) {
		atomic_store(&site->in_window, 0);
		*ret_suppressed = atomic_exchange(&site->suppressed, 0);
	}
	if (atomic_fetch_add(&site->in_window, 1) < RATE_LINES)
		return true;
	atomic_fetch_add(&site->suppressed, 1);
	return false;
}

static void write_fd(int fd, bool stamp, enum log_level level, const char *text)
{
	char line[1200], when[32] = "";
	int n;

	if (stamp) {
		time_t t = time(NULL);
		struct tm tm;

		gmtime_r(&t, &tm);
		strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%SZ ", &tm);
	}
	n = snprintf(line, sizeof(line), "%snearblk: %s%s%s\n", when,
		     level <= LOG_LEVEL_WARNING ? level_name[level] : "",
		     level <= LOG_LEVEL_WARNING ? ": " : "", text);
	if (n >= (int)sizeof(line)) {
		n = sizeof(line) - 1;
		line[n - 1] = '\n';
	}
	/* Nobody can be told that a log line was not written. */
	if (write(fd, line, (size_t)n) < 0)
		return;
}

void log_write(struct log_site *site, enum log_level level, const char *fmt, ...)
{
	char text[1024];
	uint32_t suppressed;
	va_list ap;
	int n;

	if (level > state.level || !rate_pass(site, &suppressed))
		return;
	va_start(ap, fmt);
	n = vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (suppressed && n >= 0 && (size_t)n < sizeof(text))
		snprintf(text + n, sizeof(text) - (size_t)n, " (%u more like this before)",
			 suppressed);
	switch (state.sink) {
	case SINK_STDERR:
		write_fd(STDERR_FILENO, false, level, text);
		break;
	case SINK_FILE:
		write_fd(state.fd, true, level, text);
		break;
	case SINK_SYSLOG:
		syslog(level_priority[level], "%s", text);
		break;
	case SINK_JOURNAL:
#ifdef HAVE_LIBSYSTEMD
		sd_journal_print(level_priority[level], "%s", text);
#endif
		break;
	}
}
