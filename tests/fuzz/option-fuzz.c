// SPDX-License-Identifier: Apache-2.0
/*
 * Command lines and lists of -o against the program's own table:
 *
 *	u8 subcommand, u8 (1: a list of -o; else arguments, one a line), the text
 *
 * What is taken is within the bounds of its option and can be said again; what is refused says why.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "cmd/options.h"
#include "core/cleanup.h"
#include "core/parse.h"
#include "tests/fuzz/fuzz.h"

#define ARGUMENTS_MAX 64

const unsigned fuzz_runs = 40000;

static bool is_number(enum option_type type)
{
	return type == OPTION_NUMBER || type == OPTION_SIZE || type == OPTION_RATE ||
	       type == OPTION_DURATION || type == OPTION_MODE;
}

static void check_value(const struct option_set *set, size_t i)
{
	const struct option_def *def = &options_table.def[i];
	const struct option_value *v = &set->value[i];

	if (!v->given) {
		fuzz_check(!v->list && (!v->text || def->initial));
		return;
	}
	fuzz_check(def->commands & set->command);
	if (is_number(def->type))
		fuzz_check(v->number >= def->min && (!def->max || v->number <= def->max));
	if (def->type == OPTION_CHOICE) {
		const char *p = def->choices;

		for (uint64_t k = 0; k < v->number; k++)
			p = strchr(p, '|') + 1;
		fuzz_check(strcspn(p, "|") == strlen(v->text) &&
			   strncmp(p, v->text, strlen(v->text)) == 0);
	}
	if (def->type == OPTION_FLAG || def->type == OPTION_ACTION)
		fuzz_check(v->number <= 1 && !v->text);
	if (def->type == OPTION_TEXT)
		fuzz_check(v->text[0]);
	fuzz_check((def->type == OPTION_LIST) == (v->count > 0));
}

static void put_item(struct fuzz_output *list, const char *key, const char *value)
{
	if (list->length)
		fuzz_put_bytes(list, ",", 1);
	fuzz_put_bytes(list, key, strlen(key));
	if (!value)
		return;
	fuzz_put_bytes(list, "=", 1);
	for (; *value; value++) {
		if (*value == ',' || *value == '\\')
			fuzz_put_bytes(list, "\\", 1);
		fuzz_put_bytes(list, value, 1);
	}
}

/* What was taken, said as one list of -o, gives the same set. */
static void check_again(const struct option_set *set)
{
	struct fuzz_output list = { 0 };
	struct option_set again;
	struct err err = { .text = "" };

	for (size_t i = 0; i < options_table.count; i++) {
		const struct option_def *def = &options_table.def[i];
		const struct option_value *v = &set->value[i];

		if (!v->given || def->type == OPTION_ACTION)
			continue;
		if (def->type == OPTION_LIST)
			for (size_t k = 0; k < v->count; k++)
				put_item(&list, def->name, v->list[k]);
		else if (def->type == OPTION_FLAG)
			put_item(&list, v->number ? def->name : "rw", NULL);
		else
			put_item(&list, def->name, v->text);
	}
	fuzz_put(&list, 0, 1);
	fuzz_check(option_set_init(&again, &options_table, set->command) == 0);
	fuzz_check(option_parse_mount(&again, (char *)list.data, &err) == 0);
	for (size_t i = 0; i < options_table.count; i++) {
		const struct option_value *a = &set->value[i], *b = &again.value[i];

		if (options_table.def[i].type == OPTION_ACTION)
			continue;
		fuzz_check(a->given == b->given && a->number == b->number && a->count == b->count);
		fuzz_check(!a->text == !b->text && (!a->text || !strcmp(a->text, b->text)));
		for (size_t k = 0; k < a->count; k++)
			fuzz_check(strcmp(a->list[k], b->list[k]) == 0);
	}
	option_set_clear(&again);
	free(list.data);
}

/* The words that numbers are written in. */
static void check_numbers(const char *text)
{
	char size[16], duration[24], digits[24];
	uint64_t v, back;
	uint32_t mode;

	memset(size, 'x', sizeof(size));
	memset(duration, 'x', sizeof(duration));
	if (parse_u64(text, &v) == 0) {
		snprintf(digits, sizeof(digits), "%" PRIu64, v);
		fuzz_check(parse_size(digits, &back) == 0 && back == v);
		format_size(v, size);
		fuzz_check(strnlen(size, sizeof(size)) < sizeof(size));
		fuzz_check(size[strlen(size) - 1] == 'B');
		format_duration(v, duration);
		fuzz_check(strnlen(duration, sizeof(duration)) < sizeof(duration));
		fuzz_check(strchr("sn", duration[strlen(duration) - 1]));
	}
	if (parse_size(text, &v) == 0)
		fuzz_check(parse_rate(text, &back) == 0 && back == v);
	if (parse_mode(text, &mode) == 0)
		fuzz_check(mode <= 0777);
	(void)parse_duration(text, &v);
}

static int parse_arguments(struct option_set *set, char *text, struct err *err)
{
	char *argv[ARGUMENTS_MAX], *rest = text, *word;
	int argc = 0;

	while (argc < ARGUMENTS_MAX && (word = strsep(&rest, "\n"))) {
		check_numbers(word);
		argv[argc++] = word;
	}
	return option_parse(set, argc, argv, err);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = { data, size };
	unsigned command = 1u << fuzz_take(&in, 1) % 8;
	/* -o is for mounting alone. */
	bool list = (fuzz_take(&in, 1) & 1) && command == CMD_MOUNT;
	cleanup_free char *text = fuzz_text(in.at, in.left);
	struct err err = { .text = "" };
	struct option_set set;
	int r;

	fuzz_check(option_set_init(&set, &options_table, command) == 0);
	r = list ? option_parse_mount(&set, text, &err) : parse_arguments(&set, text, &err);
	fuzz_check(r == 0 || (r == -EINVAL && err.text[0]));
	for (size_t i = 0; i < options_table.count; i++)
		check_value(&set, i);
	if (r == 0)
		check_again(&set);
	option_set_clear(&set);
	return 0;
}

void fuzz_seeds(void)
{
	static const struct {
		unsigned command;
		const char *text;
	} seed[] = {
		{ 0x100,
		  "ro,_netdev,x-systemd.automount,cache_size=8G,max-dirty-age=1.5s,sessions=8" },
		{ 0x100, "rw,log=/a\\,b,mode=0644,uid=1000,log-level=debug,debug-fault=read:3" },
		{ 0x100, "sesions=4" },
		/* At their bounds. */
		{ 0x100, "sessions=64" },
		{ 0x100, "mode=777,uid=4294967294" },
		{ 0x100, "connect-timeout=100ms,stop-timeout=24h" },
		{ 0x100, "cache-size=32M,max-dirty=1M,max-dirty-age=10ms" },
		{ 0, "--cache-dir\n/var/x\n--cache-size=64M\n-rf\n-oro,max-dirty=1G\niscsi://h/t/"
		     "1\n/mnt" },
		{ 0, "--debug-fault=read:1:always\n--debug-fault\nwrite\n--\n-x" },
		{ 1, "--no-flush\n--timeout=500ms\n/mnt" },
		{ 3, "--range\n8M+64M\n--range=0+4096\n/mnt" },
		{ 5, "--json\n-h" },
		{ 0, "18446744073709551615\n16T\n12M/s\n0777\n99999999999h" },
	};
	struct fuzz_output out = { 0 };

	for (size_t i = 0; i < ARRAY_SIZE(seed); i++) {
		fuzz_put(&out, seed[i].command, 2);
		fuzz_put_bytes(&out, seed[i].text, strlen(seed[i].text));
		fuzz_put_seed(&out);
	}
}
