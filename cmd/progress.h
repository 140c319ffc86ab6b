// SPDX-License-Identifier: Apache-2.0
/*
 * Progress of something that takes time, on standard error: one live line on a terminal, plain
 * lines elsewhere, at most one per second and only when the text changed. Main thread.
 */
#ifndef CMD_PROGRESS_H
#define CMD_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct progress {
	bool terminal;
	bool shown; /* a live line stands there */
	uint64_t last_ns;
	char last[160];
};

/* Nothing is shown yet; finds out whether standard error is a terminal. */
void progress_init(struct progress *p);

/* Show @text (one line, under 160 bytes). */
void progress_show(struct progress *p, const char *text);

/* Clear the live line, so that what is printed next stands alone. */
void progress_end(struct progress *p);

/*
 * Have SIGINT and SIGTERM end the waiting instead of the process: interrupted() is true from then
 * on, and sleeps are cut short.
 */
void interrupt_catch(void);

/* True once SIGINT or SIGTERM came; it stays so. */
bool interrupted(void);

/* Sleep up to @ns, less when interrupted; not at all if that was before. */
void interruptible_sleep(uint64_t ns);

#endif
