// SPDX-License-Identifier: Apache-2.0
/*
 * The option table machinery. A program describes each of its options once, in
 * one table; that table drives strict parsing of command lines and of mount(8)'s
 * "-o key=value,…", the help text, and the tests that compare it with the manual.
 *
 * Nothing is guessed: a value must be whole and within its bounds, an unknown
 * option is an error that names the nearest known one.
 */
#ifndef CORE_OPTION_H
#define CORE_OPTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "core/err.h"

enum option_type {
	OPTION_FLAG,     /* takes no value; number is 1 when given */
	OPTION_ACTION,   /* the same, but not in -o: --help, --version */
	OPTION_TEXT,     /* any text but the empty one */
	OPTION_LIST,     /* the same, may be given several times; all are kept */
	OPTION_NUMBER,   /* parse_u64() */
	OPTION_SIZE,     /* parse_size(): bytes */
	OPTION_RATE,     /* parse_rate(): bytes per second */
	OPTION_DURATION, /* parse_duration(): nanoseconds */
	OPTION_MODE,     /* parse_mode(): octal */
	OPTION_CHOICE,   /* one word of `choices`; number is its index */
	OPTION_MOUNT,    /* "key[=value][,key[=value]]…": any other option of the command */
};

struct option_def {
	const char *name; /* long name without dashes */
	char short_name;  /* 0: none */
	enum option_type type;
	const char *choices;      /* CHOICE: "one|two|three" */
	const char *initial;      /* default, as one would type it; NULL: none */
	const char *initial_help; /* how help words the default; NULL: `initial` itself */
	uint64_t min, max;        /* inclusive, in the type's unit; max 0: no upper bound */
	const char *arg;          /* what help calls the value; NULL for FLAG and ACTION */
	const char *help;         /* one sentence, no full stop */
	unsigned commands;        /* set of bits: the subcommands that take it */
	bool hidden;              /* for tests and measurements: not in help */
};

/* A word that -o takes beside the options themselves, because mount(8) and fstab use it. */
struct option_word {
	const char *word;   /* a '*' at the end stands for anything */
	const char *option; /* the FLAG it sets or clears; NULL: understood and ignored */
	bool clear;
};

struct option_table {
	const struct option_def *def;
	size_t count;
	const struct option_word *word;
	size_t words;
};

struct option_value {
	bool given;      /* by the user, not by default */
	uint64_t number; /* all types but TEXT and LIST; 0 without a default */
	char *text;      /* as typed, or the default, or NULL; owned */
	char **list;     /* LIST: all of them, in order; owned */
	size_t count;    /* LIST */
};

struct option_set {
	const struct option_table *table;
	unsigned command;           /* one bit */
	struct option_value *value; /* by position in the table; owned */
	char **operand;             /* what was not an option, in order; owned */
	size_t operands;
};

/*
 * Begin a set with the defaults of @table for the subcommand @command (one bit). 0 or -ENOMEM. A
 * default that the table's own bounds refuse is a bug (asserted). One thread.
 */
int option_set_init(struct option_set *set, const struct option_table *table, unsigned command);

/* Free what the set owns. A zeroed set is fine, twice is fine. */
void option_set_clear(struct option_set *set);

/*
 * Take the arguments (@argv[0] is the first of them, not a program name): "--name value",
 * "--name=value", "-x value", "-xvalue", flags together ("-rf"), "--" ends the options. Options
 * and operands may be mixed; a later value replaces an earlier one. 0; -EINVAL with @err (names
 * the value and what would be right); -ENOMEM.
 */
int option_parse(struct option_set *set, int argc, char *const *argv, struct err *err);

/*
 * Take one list of -o: comma-separated, "\," is a comma inside a value; '_' in a key is '-'.
 * Results as option_parse().
 */
int option_parse_mount(struct option_set *set, const char *text, struct err *err);

/* Write the options that set->command takes, aligned, with defaults, at most 80 columns wide. */
void option_help(const struct option_table *table, unsigned command, FILE *to);

/*
 * How many single edits (insert, delete, replace, swap neighbours) lead from @a to @b; texts longer
 * than 63 characters count as far apart. Pure.
 */
unsigned option_distance(const char *a, const char *b);

#endif
