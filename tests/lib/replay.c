// SPDX-License-Identifier: Apache-2.0
/*
 * replay LOGFILE OUTDIR --cut N --seed S [--subset | --all]: make the new directory OUTDIR as it
 * is after a crash behind the first N records of what recorder wrote.
 *   (neither)  power cut: only what was synced
 *   --subset   power cut: also, by the dice of S, any of what was not: per 4 KiB page a version
 *              since the last sync; names kept or undone, those of one rename together
 *   --all      kill -9: everything
 * replay LOGFILE --list: print number and kind of each record, and the text of marks.
 *
 * A name is durable after a sync of its directory, a file's bytes and size after
 * one of the file; nothing else makes anything durable.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "tests/lib/record.h"
#include "tests/lib/simimage.h"

#define PAGE 4096u
#define IS_DIR UINT64_MAX

enum mode { ONLY_SYNCED, SUBSET, ALL };

struct name {
	char *path;
	uint64_t now; /* file, IS_DIR or 0 */
	uint64_t durable;
	unsigned group; /* tied by a rename; 0: none */
};

static struct {
	struct name *name;
	size_t names;
	struct simimage *image; /* by file number */
	size_t images;
	unsigned groups;
} st;

static void die(const char *what)
{
	fprintf(stderr, "replay: %s: %s\n", what, strerror(errno));
	exit(1);
}

static struct name *get_name(const char *path)
{
	struct name *n;

	for (size_t i = 0; i < st.names; i++)
		if (!strcmp(st.name[i].path, path))
			return &st.name[i];
	st.name = realloc(st.name, (st.names + 1) * sizeof(*st.name));
	n = st.name ? &st.name[st.names++] : NULL;
	if (!n)
		die("memory");
	*n = (struct name){ .path = strdup(path) };
	if (!n->path)
		die("memory");
	return n;
}

static struct simimage *image_of(uint64_t file)
{
	if (file >= st.images) {
		st.image = realloc(st.image, (file + 1) * sizeof(*st.image));
		if (!st.image)
			die("memory");
		for (; st.images <= file; st.images++)
			simimage_init(&st.image[st.images], 0);
	}
	return &st.image[file];
}

static bool is_in(const char *path, const char *dir)
{
	size_t length = strlen(dir);
	const char *rest = path;

	if (length) {
		if (strncmp(path, dir, length) || path[length] != '/')
			return false;
		rest = path + length + 1;
	}
	return !strchr(rest, '/');
}

static void sync_dir(const char *dir)
{
	for (size_t i = 0; i < st.names; i++) {
		struct name *n = &st.name[i];

		if (!is_in(n->path, dir))
			continue;
		n->durable = n->now;
		n->group = 0;
	}
}

static void move(const char *from, const char *to)
{
	unsigned old_f;
	unsigned old_t;
	struct name *f;
	struct name *t;

	get_name(from);
	t = get_name(to); /* may move the array */
	f = get_name(from);
	old_f = f->group;
	old_t = t->group;
	t->now = f->now;
	f->now = 0;
	f->group = t->group = ++st.groups;
	for (size_t i = 0; i < st.names; i++) {
		unsigned *g = &st.name[i].group;

		if (*g && (*g == old_f || *g == old_t))
			*g = st.groups;
	}
}

static void apply(const struct record *r, const char *name, const char *data)
{
	switch (r->kind) {
	case RECORD_CREATE:
		get_name(name)->now = r->file;
		break;
	case RECORD_WRITE:
		if (r->data_bytes)
			simimage_complete(image_of(r->file),
					  simimage_change(image_of(r->file), r->offset,
							  r->data_bytes, data));
		break;
	case RECORD_RESIZE:
		simimage_complete(image_of(r->file), simimage_resize(image_of(r->file), r->offset));
		break;
	case RECORD_SYNC:
		simimage_commit(image_of(r->file), simimage_mark(image_of(r->file)));
		break;
	case RECORD_UNLINK:
		get_name(name)->now = 0;
		break;
	case RECORD_RENAME:
		move(name, data);
		break;
	case RECORD_MKDIR:
		get_name(name)->now = IS_DIR;
		break;
	case RECORD_SYNC_DIR:
		sync_dir(name);
		break;
	default:
		break; /* a mark */
	}
}

/* The next record, its name and data with a NUL behind each; false: the log ends. */
static bool read_record(FILE *f, struct record *r, char **name, char **data)
{
	if (fread(r, sizeof(*r), 1, f) != 1)
		return false;
	if (r->magic != RECORD_MAGIC)
		die("this is no log");
	free(*name);
	free(*data);
	*name = calloc(1, r->name_bytes + 1u);
	*data = calloc(1, r->data_bytes + 1ul);
	if (!*name || !*data)
		die("memory");
	return fread(*name, 1, r->name_bytes, f) == r->name_bytes &&
	       fread(*data, 1, r->data_bytes, f) == r->data_bytes;
}

static int list(FILE *log)
{
	static const char *const kind[] = { "?",      "create", "write", "resize",  "sync",
					    "unlink", "rename", "mkdir", "syncdir", "mark" };
	struct record r;
	char *name = NULL;
	char *data = NULL;

	for (uint64_t n = 1; read_record(log, &r, &name, &data); n++)
		printf("%llu %s %llu %llu+%u %s%s%s\n", (unsigned long long)n,
		       kind[r.kind < ARRAY_SIZE(kind) ? r.kind : 0], (unsigned long long)r.file,
		       (unsigned long long)r.offset, r.data_bytes, name, name[0] ? " " : "",
		       r.kind == RECORD_MARK || r.kind == RECORD_RENAME ? data : "");
	free(name);
	free(data);
	return 0;
}

static void choose_names(struct sim *sim, enum mode mode)
{
	bool *toss = sim_alloc((st.groups + 1) * sizeof(*toss));

	for (unsigned g = 0; g <= st.groups; g++)
		toss[g] = sim_once_in(sim, 2);
	for (size_t i = 0; i < st.names; i++) {
		struct name *n = &st.name[i];

		if (mode == SUBSET && (n->group ? toss[n->group] : sim_once_in(sim, 2)))
			n->durable = n->now;
		if (mode == ALL)
			n->durable = n->now;
	}
	free(toss);
}

static void write_file(int out, const char *path, uint64_t file, struct sim *sim, enum mode mode)
{
	struct simimage *img = image_of(file);
	cleanup_free uint8_t *mixed = NULL;
	const uint8_t *bytes = mode == ALL ? img->now : img->durable;
	uint64_t length = mode == ALL ? img->now_bytes : img->durable_bytes;
	int fd = openat(out, path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	/* The directory it was in may not have been kept. */
	if (fd < 0 && (errno == ENOENT || errno == ENOTDIR))
		return;
	if (fd < 0)
		die(path);
	if (mode == SUBSET)
		bytes = mixed = simimage_cut_copy(img, sim, PAGE, &length);
	for (uint64_t at = 0; at < length;) {
		ssize_t n = write(fd, bytes + at, length - at);

		if (n < 0)
			die(path);
		at += (uint64_t)n;
	}
	if (close(fd) < 0)
		die(path);
}

static int by_path(const void *a, const void *b)
{
	return strcmp(((const struct name *)a)->path, ((const struct name *)b)->path);
}

static void write_dir(const char *out_path, struct sim *sim, enum mode mode)
{
	int out;

	if (mkdir(out_path, 0700) < 0)
		die(out_path);
	out = open(out_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (out < 0)
		die(out_path);
	choose_names(sim, mode);
	/* A directory sorts before what is in it. */
	qsort(st.name, st.names, sizeof(*st.name), by_path);
	for (size_t i = 0; i < st.names; i++) {
		const struct name *n = &st.name[i];

		if (n->durable == IS_DIR && mkdirat(out, n->path, 0700) < 0 && errno != ENOENT)
			die(n->path);
		if (n->durable && n->durable != IS_DIR)
			write_file(out, n->path, n->durable, sim, mode);
	}
	close(out);
}

static int usage(void)
{
	fputs("usage: replay LOGFILE OUTDIR --cut N --seed S [--subset | --all]\n"
	      "       replay LOGFILE --list\n",
	      stderr);
	return 2;
}

static bool number(const char *text, uint64_t *ret)
{
	char *end;

	errno = 0;
	*ret = strtoull(text, &end, 10);
	return text[0] >= '0' && text[0] <= '9' && !*end && !errno;
}

/* Files of the whole log first: the array must not move once lists hang from it. */
static void make_images(FILE *log)
{
	struct record r;
	char *name = NULL;
	char *data = NULL;
	uint64_t last = 0;

	while (read_record(log, &r, &name, &data))
		last = MAX(last, r.file);
	free(name);
	free(data);
	rewind(log);
	image_of(last);
	for (size_t i = 0; i < st.images; i++)
		list_init(&st.image[i].pending);
}

int main(int argc, char **argv)
{
	cleanup_fclose FILE *log = argc >= 3 ? fopen(argv[1], "re") : NULL;
	enum mode mode = ONLY_SYNCED;
	uint64_t cut = 0;
	uint64_t seed = 0;
	char *name = NULL;
	char *data = NULL;
	struct record r;
	struct sim *sim;

	if (argc < 3)
		return usage();
	if (!log)
		die(argv[1]);
	if (!strcmp(argv[2], "--list"))
		return list(log);
	for (int i = 3; i < argc; i++) {
		if (!strcmp(argv[i], "--subset"))
			mode = SUBSET;
		else if (!strcmp(argv[i], "--all"))
			mode = ALL;
		else if (!strcmp(argv[i], "--cut") && i + 1 < argc && number(argv[i + 1], &cut))
			i++;
		else if (!strcmp(argv[i], "--seed") && i + 1 < argc && number(argv[i + 1], &seed))
			i++;
		else
			return usage();
	}
	make_images(log);
	for (uint64_t n = 0; n < cut && read_record(log, &r, &name, &data); n++)
		apply(&r, name, data);
	free(name);
	free(data);
	sim = sim_create(seed);
	write_dir(argv[2], sim, mode);
	sim_destroy(sim);
	for (size_t i = 0; i < st.images; i++)
		simimage_free(&st.image[i]);
	for (size_t i = 0; i < st.names; i++)
		free(st.name[i].path);
	free(st.image);
	free(st.name);
	return 0;
}
