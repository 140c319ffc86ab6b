// SPDX-License-Identifier: Apache-2.0
/*
 * The `nearblk` program. What lives in this folder: one file per subcommand, the option table, the
 * daemon's life, and the one function that builds the stack (cmd/stack.c). All layers below may
 * be used from here; nothing below may use what is here.
 */
#ifndef CMD_CMD_H
#define CMD_CMD_H

#include "cmd/options.h"
#include "core/err.h"

/* Exit statuses, as nearblk(1) promises them. */
enum exit_status {
	EXIT_DONE = 0,
	EXIT_FAILED = 1,
	EXIT_USAGE = 2,
	EXIT_LEFT = 3, /* waiting ended, or damage was found: dirty data is kept */
};

struct command {
	const char *name;
	enum command_bit bit;
	const char *operands; /* as help shows them */
	const char *summary;  /* one line */
	unsigned min_operands, max_operands;
	/* Do it; @set holds parsed options and operands. Returns an exit status. */
	int (*run)(struct option_set *set);
};

/*
 * The commands of nearblk(1), one file each. @set is parsed, with as many operands as its command
 * takes; it is lent. What there is to say goes to standard output, errors and progress to standard
 * error; the result is an enum exit_status. Main thread, before there is another; cmd_mount() in
 * the background forks, and the child does not come back.
 */
int cmd_mount(struct option_set *set);
int cmd_umount(struct option_set *set);
int cmd_flush(struct option_set *set);
int cmd_warm(struct option_set *set);
int cmd_drop(struct option_set *set);
int cmd_status(struct option_set *set);
int cmd_discover(struct option_set *set);
int cmd_check(struct option_set *set);

/* Print "nearblk: TEXT" on stderr; returns EXIT_FAILED. Main thread. */
__attribute__((format(printf, 1, 2))) int cmd_fail(const char *fmt, ...);

/* The same for an error in how the command was called, with a pointer to --help; EXIT_USAGE. */
__attribute__((format(printf, 2, 3))) int cmd_usage(const struct option_set *set, const char *fmt,
						    ...);

#endif
