// SPDX-License-Identifier: Apache-2.0
#include "core/option.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "core/cleanup.h"
#include "core/parse.h"

#define HELP_COLUMN 30
#define HELP_WIDTH 80

static const struct option_def *def_at(const struct option_set *set, size_t i)
{
	return &set->table->def[i];
}

static bool takes_value(const struct option_def *def)
{
	return def->type != OPTION_FLAG && def->type != OPTION_ACTION;
}

unsigned option_distance(const char *a, const char *b)
{
	size_t la = strlen(a), lb = strlen(b);
	unsigned char d[64][64];

	if (la > 63 || lb > 63)
		return UINT_MAX;
	for (size_t i = 0; i <= la; i++)
		d[i][0] = (unsigned char)i;
	for (size_t j = 0; j <= lb; j++)
		d[0][j] = (unsigned char)j;
	for (size_t i = 1; i <= la; i++) {
		for (size_t j = 1; j <= lb; j++) {
			unsigned best = d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);

			best = MIN(best, d[i - 1][j] + 1u);
			best = MIN(best, d[i][j - 1] + 1u);
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
				best = MIN(best, d[i - 2][j - 2] + 1u);
			d[i][j] = (unsigned char)best;
		}
	}
	return d[la][lb];
}

/* The bounds in words, for people: " (1 to 64)". */
static const char *bounds_text(const struct option_def *def, char *buf, size_t size)
{
	char low[24], high[24];

	switch (def->type) {
	case OPTION_SIZE:
	case OPTION_RATE:
		format_size(def->min, low);
		format_size(def->max, high);
		break;
	case OPTION_DURATION:
		format_duration(def->min, low);
		format_duration(def->max, high);
		break;
	case OPTION_MODE:
		snprintf(low, sizeof(low), "%04" PRIo64, def->min);
		snprintf(high, sizeof(high), "%04" PRIo64, def->max);
		break;
	default:
		snprintf(low, sizeof(low), "%" PRIu64, def->min);
		snprintf(high, sizeof(high), "%" PRIu64, def->max);
	}
	if (def->max)
		snprintf(buf, size, "from %s to %s", low, high);
	else
		snprintf(buf, size, "at least %s", low);
	return buf;
}

static int parse_choice(const char *choices, const char *text, uint64_t *ret)
{
	size_t n = strlen(text);
	uint64_t index = 0;

	for (const char *p = choices;; index++) {
		size_t len = strcspn(p, "|");

		if (len == n && memcmp(p, text, n) == 0) {
			*ret = index;
			return 0;
		}
		if (!p[len])
			return -EINVAL;
		p += len + 1;
	}
}

/* @shown: the option as the user wrote it, for messages. */
static int parse_value(const struct option_def *def, const char *shown, const char *text,
		       uint64_t *ret, struct err *err)
{
	static const char *const wanted[] = {
		[OPTION_NUMBER] = "a number",
		[OPTION_SIZE] = "a size: bytes, or with a unit as in 64K, 8M, 2G, 1T",
		[OPTION_RATE] = "a rate: bytes per second, or with a unit as in 500K, 12M",
		[OPTION_DURATION] = "a duration: seconds, or with a unit as in 500ms, 10s, 5min, "
				    "2h",
		[OPTION_MODE] = "a file mode: octal, as in 0600",
	};
	uint64_t v = 0;
	uint32_t mode;
	char bounds[64];
	int r;

	switch (def->type) {
	case OPTION_NUMBER:
		r = parse_u64(text, &v);
		break;
	case OPTION_SIZE:
		r = parse_size(text, &v);
		break;
	case OPTION_RATE:
		r = parse_rate(text, &v);
		break;
	case OPTION_DURATION:
		r = parse_duration(text, &v);
		break;
	case OPTION_MODE:
		r = parse_mode(text, &mode);
		if (r == 0)
			v = mode;
		break;
	case OPTION_CHOICE:
		if (parse_choice(def->choices, text, &v) < 0)
			return err_set(err, -EINVAL, "%s %s: not one of %s", shown, text,
				       def->choices);
		*ret = v;
		return 0;
	default:
		if (!*text)
			return err_set(err, -EINVAL, "%s: the value is empty; give %s", shown,
				       def->arg);
		return 0;
	}
	if (r == -EINVAL)
		return err_set(err, -EINVAL, "%s %s: not %s", shown, *text ? text : "''",
			       wanted[def->type]);
	if (r < 0 || v < def->min || (def->max && v > def->max))
		return err_set(err, -EINVAL, "%s %s: out of bounds; it must be %s", shown, text,
			       bounds_text(def, bounds, sizeof(bounds)));
	*ret = v;
	return 0;
}

static int append(char ***list, size_t *count, const char *text)
{
	char **grown = realloc(*list, (*count + 1) * sizeof(**list));

	if (!grown)
		return -ENOMEM;
	*list = grown;
	grown[*count] = strdup(text);
	if (!grown[*count])
		return -ENOMEM;
	(*count)++;
	return 0;
}

/* Take @text (NULL for flags) as the value of option @i. */
static int assign(struct option_set *set, size_t i, const char *shown, const char *text,
		  struct err *err)
{
	const struct option_def *def = def_at(set, i);
	struct option_value *v = &set->value[i];
	int r;

	if (def->type == OPTION_MOUNT)
		return option_parse_mount(set, text, err);
	if (!takes_value(def)) {
		v->number = 1;
		v->given = true;
		return 0;
	}
	r = parse_value(def, shown, text, &v->number, err);
	if (r < 0)
		return r;
	v->given = true;
	if (def->type == OPTION_LIST)
		return append(&v->list, &v->count, text);
	free(v->text);
	v->text = strdup(text);
	return v->text ? 0 : -ENOMEM;
}

int option_set_init(struct option_set *set, const struct option_table *table, unsigned command)
{
	*set = (struct option_set){ .table = table, .command = command };
	set->value = calloc(table->count, sizeof(*set->value));
	if (!set->value)
		return -ENOMEM;
	for (size_t i = 0; i < table->count; i++) {
		const struct option_def *def = &table->def[i];
		struct err err = { .text = "" };
		int r;

		if (!def->initial)
			continue;
		r = assign(set, i, def->name, def->initial, &err);
		if (r == -ENOMEM)
			return r;
		assert(r == 0);
		set->value[i].given = false;
	}
	return 0;
}

void option_set_clear(struct option_set *set)
{
	for (size_t i = 0; set->value && i < set->table->count; i++) {
		struct option_value *v = &set->value[i];

		free(v->text);
		for (size_t j = 0; j < v->count; j++)
			free(v->list[j]);
		free(v->list);
	}
	free(set->value);
	for (size_t i = 0; i < set->operands; i++)
		free(set->operand[i]);
	free(set->operand);
	*set = (struct option_set){ .table = NULL };
}

/* The long option that is nearest to @name among those of the command; NULL: none is near. */
static const char *nearest(const struct option_set *set, const char *name)
{
	const char *found = NULL;
	unsigned best = strlen(name) <= 4 ? 2 : 4; /* nearer than this */

	for (size_t i = 0; i < set->table->count; i++) {
		const struct option_def *def = def_at(set, i);
		unsigned d;

		if (!(def->commands & set->command) || def->hidden)
			continue;
		d = option_distance(name, def->name);
		/* What was typed may be the beginning of the right name. */
		if (strlen(name) >= 3 && strncmp(name, def->name, strlen(name)) == 0)
			d = MIN(d, 1u);
		if (d < best) {
			best = d;
			found = def->name;
		}
	}
	return found;
}

/* Position of a long option of this command, or -1. */
static ssize_t find_long(const struct option_set *set, const char *name)
{
	for (size_t i = 0; i < set->table->count; i++)
		if ((def_at(set, i)->commands & set->command) &&
		    strcmp(def_at(set, i)->name, name) == 0)
			return (ssize_t)i;
	return -1;
}

static int unknown(const struct option_set *set, const char *dashes, const char *name,
		   const char *hint, struct err *err)
{
	const char *near = nearest(set, name);

	if (near)
		return err_set(err, -EINVAL, "unknown option %s%s; did you mean %s%s?", dashes,
			       name, dashes, near);
	return err_set(err, -EINVAL, "unknown option %s%s%s", dashes, name, hint);
}

/* "--name", "--name=value"; *@i moves over a value in the next argument. */
static int parse_long(struct option_set *set, int argc, char *const *argv, int *i, struct err *err)
{
	const char *arg = argv[*i] + 2, *eq = strchr(arg, '=');
	cleanup_free char *name = eq ? strndup(arg, (size_t)(eq - arg)) : strdup(arg);
	const struct option_def *def;
	char shown[80];
	ssize_t at;

	if (!name)
		return -ENOMEM;
	at = find_long(set, name);
	if (at < 0)
		return unknown(set, "--", name, "", err);
	def = def_at(set, (size_t)at);
	snprintf(shown, sizeof(shown), "--%s", def->name);
	if (!takes_value(def)) {
		if (eq)
			return err_set(err, -EINVAL, "%s takes no value", shown);
		return assign(set, (size_t)at, shown, NULL, err);
	}
	if (eq)
		return assign(set, (size_t)at, shown, eq + 1, err);
	if (*i + 1 >= argc)
		return err_set(err, -EINVAL, "%s needs a value: %s %s", shown, shown, def->arg);
	return assign(set, (size_t)at, shown, argv[++*i], err);
}

/* "-x", "-xvalue", "-x value", "-xyz". */
static int parse_short(struct option_set *set, int argc, char *const *argv, int *i, struct err *err)
{
	for (const char *p = argv[*i] + 1; *p; p++) {
		const struct option_def *def = NULL;
		char shown[3] = { '-', *p, '\0' };
		size_t at;
		int r;

		for (at = 0; at < set->table->count; at++) {
			def = def_at(set, at);
			if (def->short_name == *p && (def->commands & set->command))
				break;
		}
		if (at == set->table->count)
			return err_set(err, -EINVAL, "unknown option %s", shown);
		if (takes_value(def)) {
			if (p[1])
				return assign(set, at, shown, p + 1, err);
			if (*i + 1 >= argc)
				return err_set(err, -EINVAL, "%s needs a value: %s %s", shown,
					       shown, def->arg);
			return assign(set, at, shown, argv[++*i], err);
		}
		r = assign(set, at, shown, NULL, err);
		if (r < 0)
			return r;
	}
	return 0;
}

int option_parse(struct option_set *set, int argc, char *const *argv, struct err *err)
{
	bool ended = false;
	int r;

	for (int i = 0; i < argc; i++) {
		if (ended || argv[i][0] != '-' || !argv[i][1]) {
			r = append(&set->operand, &set->operands, argv[i]);
		} else if (strcmp(argv[i], "--") == 0) {
			ended = true;
			r = 0;
		} else if (argv[i][1] == '-') {
			r = parse_long(set, argc, argv, &i, err);
		} else {
			r = parse_short(set, argc, argv, &i, err);
		}
		if (r == -ENOMEM)
			return err_set(err, r, "out of memory");
		if (r < 0)
			return r;
	}
	return 0;
}

/* True: @word is one of the table's words for -o and is dealt with. */
static bool take_word(struct option_set *set, const char *word)
{
	for (size_t i = 0; i < set->table->words; i++) {
		const struct option_word *w = &set->table->word[i];
		size_t n = strlen(w->word);
		bool fits = n && w->word[n - 1] == '*' ? strncmp(word, w->word, n - 1) == 0
						       : strcmp(word, w->word) == 0;
		ssize_t at;

		if (!fits)
			continue;
		if (w->option) {
			at = find_long(set, w->option);
			assert(at >= 0);
			set->value[at].number = !w->clear;
			set->value[at].given = true;
		}
		return true;
	}
	return false;
}

/* One "key" or "key=value" of -o, unescaped. Cuts @item at the '='. */
static int take_item(struct option_set *set, char *item, struct err *err)
{
	const struct option_def *def;
	char shown[80], *value;
	ssize_t at;

	if (!*item || take_word(set, item))
		return 0;
	value = strchr(item, '=');
	if (value)
		*value++ = '\0';
	for (char *p = item; *p; p++)
		if (*p == '_')
			*p = '-';
	at = find_long(set, item);
	def = at < 0 ? NULL : def_at(set, (size_t)at);
	if (!def || def->type == OPTION_ACTION || def->type == OPTION_MOUNT)
		return unknown(set, "-o ", item, "", err);
	snprintf(shown, sizeof(shown), "-o %s", def->name);
	if (!takes_value(def) && value)
		return err_set(err, -EINVAL, "%s takes no value", shown);
	if (takes_value(def) && !value)
		return err_set(err, -EINVAL, "%s needs a value: %s=%s", shown, shown, def->arg);
	return assign(set, (size_t)at, shown, value, err);
}

int option_parse_mount(struct option_set *set, const char *text, struct err *err)
{
	cleanup_free char *item = malloc(strlen(text) + 1);
	size_t n = 0;

	if (!item)
		return err_set(err, -ENOMEM, "out of memory");
	for (const char *p = text;; p++) {
		int r;

		if (p[0] == '\\' && (p[1] == ',' || p[1] == '\\')) {
			item[n++] = *++p;
			continue;
		}
		if (*p && *p != ',') {
			item[n++] = *p;
			continue;
		}
		item[n] = '\0';
		n = 0;
		r = take_item(set, item, err);
		if (r < 0)
			return r;
		if (!*p)
			return 0;
	}
}

/* Write @text from column @at on, wrapped behind HELP_COLUMN. */
static void wrap(FILE *to, int at, const char *text)
{
	while (*text) {
		int n = (int)strcspn(text, " ");

		if (at > HELP_COLUMN && at + 1 + n > HELP_WIDTH) {
			fprintf(to, "\n%*s", HELP_COLUMN, "");
			at = HELP_COLUMN;
		} else if (at > HELP_COLUMN) {
			fputc(' ', to);
			at++;
		}
		at += fprintf(to, "%.*s", n, text);
		text += n;
		text += strspn(text, " ");
	}
	fputc('\n', to);
}

void option_help(const struct option_table *table, unsigned command, FILE *to)
{
	for (size_t i = 0; i < table->count; i++) {
		const struct option_def *def = &table->def[i];
		const char *initial = def->initial_help ? def->initial_help : def->initial;
		char text[512], sh[5] = "    ";
		int at;

		if (!(def->commands & command) || def->hidden)
			continue;
		if (def->short_name)
			snprintf(sh, sizeof(sh), "-%c, ", def->short_name);
		at = fprintf(to, "  %s--%s%s%s", sh, def->name, def->arg ? " " : "",
			     def->arg ? def->arg : "");
		snprintf(text, sizeof(text), "%s%s%s%s", def->help, initial ? " (default " : "",
			 initial ? initial : "", initial ? ")" : "");
		if (at > HELP_COLUMN - 2) {
			fputc('\n', to);
			at = 0;
		}
		fprintf(to, "%*s", HELP_COLUMN - at, "");
		wrap(to, HELP_COLUMN, text);
	}
}
