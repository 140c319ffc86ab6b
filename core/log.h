// SPDX-License-Identifier: Apache-2.0
/*
 * The program's log. One sink per process, chosen once at start-up. Lines are
 * whole (written with one call), carry no secrets, and each call site is
 * rate-limited: more than 10 lines in 5 s from one place are counted and the
 * count is said with the next line that passes.
 */
#ifndef CORE_LOG_H
#define CORE_LOG_H

#include <stdint.h>

#include "core/err.h"

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARNING, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/* Per call site; zero-initialised. */
struct log_site {
	_Atomic uint64_t window_start_ns;
	_Atomic uint32_t in_window;
	_Atomic uint32_t suppressed;
};

/*
 * Choose the sink: "stderr", "syslog", "journal", or an absolute path that is
 * opened for appending (mode 0600). "journal" falls back to nothing: it is an
 * error where built without libsystemd or no journal runs. Before the first call the
 * sink is stderr at LOG_LEVEL_INFO. Returns 0, -EINVAL (unknown sink; names the
 * choices), -ENOTSUP, or the errno of opening the file. Main thread, before others start.
 */
int log_open(const char *sink, enum log_level level, struct err *err);

/* "error" | "warning" | "info" | "debug" → level; -EINVAL otherwise. Any thread. */
int log_level_parse(const char *text, enum log_level *ret_level);

/*
 * Open the file of a file sink anew under its name, after somebody moved it away; other sinks:
 * nothing to do. Lines written meanwhile go to the old or the new file, none is lost. 0, or the
 * errno of opening: the old file stays in use. Any thread.
 */
int log_reopen(struct err *err);

/*
 * A descriptor (for the caller to close) into which a daemon may turn its standard error, so that
 * what libraries and assert() print there lands in the log: the file, or a stream of the journal.
 * -1 where the sink has none. Any thread.
 */
int log_stream(void);

/* Close a file sink; back to stderr. Main thread, after others ended. */
void log_close(void);

/* Behind the macros below; any thread, no lock of ours is held by the caller. */
__attribute__((format(printf, 3, 4))) void log_write(struct log_site *site, enum log_level level,
						     const char *fmt, ...);

#define log_at_(level, ...)                                                                        \
	do {                                                                                       \
		static struct log_site log_site_;                                                  \
		log_write(&log_site_, level, __VA_ARGS__);                                         \
	} while (0)
#define log_error(...) log_at_(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) log_at_(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_info(...) log_at_(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_at_(LOG_LEVEL_DEBUG, __VA_ARGS__)

#endif
