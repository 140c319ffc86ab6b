// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "cmd/cmd.h"
#include "core/cleanup.h"

static const struct command commands[] = {
	{ "mount", CMD_MOUNT, "URL MOUNTPOINT", "show a far volume as MOUNTPOINT/disk.img", 2, 2,
	  cmd_mount },
	{ "umount", CMD_UMOUNT, "MOUNTPOINT", "send what is dirty, then unmount", 1, 1,
	  cmd_umount },
	{ "flush", CMD_FLUSH, "[MOUNTPOINT]", "wait until every write is durable far away", 0, 1,
	  cmd_flush },
	{ "warm", CMD_WARM, "MOUNTPOINT", "fetch data into the cache ahead of use", 1, 1,
	  cmd_warm },
	{ "drop", CMD_DROP, "MOUNTPOINT", "forget clean data in the cache", 1, 1, cmd_drop },
	{ "status", CMD_STATUS, "[MOUNTPOINT]", "show volumes and what they are doing", 0, 1,
	  cmd_status },
	{ "discover", CMD_DISCOVER, "URL", "list targets, LUNs and sizes of a portal", 1, 1,
	  cmd_discover },
	{ "check", CMD_CHECK, "", "verify the cache directory of an unmounted volume", 0, 0,
	  cmd_check },
};

int cmd_fail(const char *fmt, ...)
{
	va_list ap;

	fputs("nearblk: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	return EXIT_FAILED;
}

int cmd_usage(const struct option_set *set, const char *fmt, ...)
{
	const char *name = "";
	va_list ap;

	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		if (set && commands[i].bit == set->command)
			name = commands[i].name;
	fprintf(stderr, "nearblk%s%s: ", *name ? " " : "", name);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, "\nTry 'nearblk%s%s --help'.\n", *name ? " " : "", name);
	return EXIT_USAGE;
}

static int version(void)
{
	printf("nearblk %s\n", PACKAGE_VERSION);
	return EXIT_DONE;
}

static int help(FILE *to)
{
	fputs("Usage: nearblk COMMAND [OPTION]... [OPERAND]...\n"
	      "A far iSCSI volume as a local file: MOUNTPOINT/disk.img.\n\n"
	      "Commands:\n",
	      to);
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		fprintf(to, "  %-10s %-16s %s\n", commands[i].name, commands[i].operands,
			commands[i].summary);
	fputs("\nExamples:\n"
	      "  nearblk mount iscsi://storage.example/iqn.2026-01.example:vol/1 /mnt/vol\n"
	      "  nearblk status\n"
	      "  nearblk umount /mnt/vol\n\n"
	      "'nearblk COMMAND --help' shows the options of a command, nearblk(1) everything.\n",
	      to);
	return EXIT_DONE;
}

static int command_help(const struct command *c)
{
	printf("Usage: nearblk %s [OPTION]...%s%s\n%c%s.\n\nOptions:\n", c->name,
	       *c->operands ? " " : "", c->operands, c->summary[0] - 'a' + 'A', c->summary + 1);
	option_help(&options_table, c->bit, stdout);
	if (c->bit == CMD_MOUNT)
		fputs("\nURL is one of\n"
		      "  iscsi://[USER@]HOST[:PORT][,HOST[:PORT]...]/TARGET/LUN\n"
		      "  file:///PATH\n"
		      "  https://HOST/PATH (read-only)\n",
		      stdout);
	return EXIT_DONE;
}

static int unknown_command(const char *name)
{
	const char *near = NULL;
	unsigned best = 3;

	for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
		unsigned d = option_distance(name, commands[i].name);

		if (d < best) {
			best = d;
			near = commands[i].name;
		}
	}
	if (near)
		return cmd_usage(NULL, "unknown command %s; did you mean %s?", name, near);
	return cmd_usage(NULL, "unknown command %s", name);
}

static int run(const struct command *c, int argc, char **argv)
{
	struct option_set set;
	struct err err = { .text = "" };
	int r;

	if (option_set_init(&set, &options_table, c->bit) < 0) {
		option_set_clear(&set);
		return cmd_fail("out of memory");
	}
	r = option_parse(&set, argc, argv, &err);
	if (r < 0)
		r = cmd_usage(&set, "%s", err.text);
	else if (set.value[OPT_HELP].given)
		r = command_help(c);
	else if (set.value[OPT_VERSION].given)
		r = version();
	else if (set.operands < c->min_operands)
		r = cmd_usage(&set, "missing operand: nearblk %s %s", c->name, c->operands);
	else if (set.operands > c->max_operands)
		r = cmd_usage(&set, "one operand too many: %s", set.operand[c->max_operands]);
	else
		r = c->run(&set);
	option_set_clear(&set);
	return r;
}

/* Output that did not arrive (a full disk) is a failure, not a success with less to read. */
static int finish(int status)
{
	if ((fflush(stdout) || ferror(stdout)) && status == EXIT_DONE)
		return cmd_fail("writing to standard output failed");
	return status;
}

/* Whoever closed 0, 1 or 2 must not get messages into a file that happened to take the number. */
static void open_standard_files(void)
{
	int fd;

	do
		fd = open("/dev/null", O_RDWR);
	while (fd >= 0 && fd <= 2);
	if (fd > 2)
		close(fd);
}

/* A large cache has more segment files, each open, than the usual soft limit of 1024 allows. */
static void raise_file_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return;
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
}

int main(int argc, char **argv)
{
	const char *name = argc > 1 ? argv[1] : NULL;

	open_standard_files();
	raise_file_limit();
	/* A reader that went away shows as EPIPE where it is written to. */
	signal(SIGPIPE, SIG_IGN);
	/* Ignored by who started us, it would take the exit status of our helpers from us. */
	signal(SIGCHLD, SIG_DFL);
	if (!name) {
		help(stderr);
		return EXIT_USAGE;
	}
	if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "help") == 0)
		return finish(help(stdout));
	if (strcmp(name, "--version") == 0 || strcmp(name, "-V") == 0)
		return finish(version());
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		if (strcmp(name, commands[i].name) == 0)
			return finish(run(&commands[i], argc - 2, argv + 2));
	return name[0] == '-' ? cmd_usage(NULL, "unknown option %s", name) : unknown_command(name);
}
