// SPDX-License-Identifier: Apache-2.0
/* Who keeps a mount busy. All by name, from /proc and /sys: the mount itself is not asked. */
#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "mount/attach.h"
#include "mount/mount.h"

struct list {
	char *buf;
	size_t max;
	size_t used;
	int count;
};

static void cleanup_closedirp(DIR **d)
{
	if (*d)
		closedir(*d);
}
#define cleanup_closedir __attribute__((cleanup(cleanup_closedirp)))

__attribute__((format(printf, 2, 3))) static void add(struct list *l, const char *fmt, ...)
{
	va_list ap;
	int n;

	if (l->count++ && l->used + 2 < l->max) {
		memcpy(l->buf + l->used, ", ", 3);
		l->used += 2;
	}
	if (l->used >= l->max)
		return;
	va_start(ap, fmt);
	n = vsnprintf(l->buf + l->used, l->max - l->used, fmt, ap);
	va_end(ap);
	if (n > 0)
		l->used = MIN(l->used + (size_t)n, l->max - 1);
}

static bool under(const char *path, const char *root)
{
	size_t n = strlen(root);

	return !strncmp(path, root, n) && (path[n] == '\0' || path[n] == '/' || path[n] == '\n');
}

static bool link_under(int dir, const char *name, const char *root)
{
	char target[PATH_MAX];
	ssize_t n = readlinkat(dir, name, target, sizeof(target) - 1);

	if (n < 0)
		return false;
	target[n] = '\0';
	return under(target, root);
}

static bool descriptor_under(int proc, const char *root)
{
	cleanup_closedir DIR *d = NULL;
	struct dirent *e;
	int fd = openat(proc, "fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return false;
	d = fdopendir(fd);
	if (!d) {
		close(fd);
		return false;
	}
	while ((e = readdir(d))) {
		if (link_under(dirfd(d), e->d_name, root))
			return true;
	}
	return false;
}

/* A map outlives the descriptor it was made from. */
static bool map_under(int proc, const char *root)
{
	cleanup_fclose FILE *f = NULL;
	cleanup_free char *line = NULL;
	size_t capacity = 0;
	int fd = openat(proc, "maps", O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return false;
	f = fdopen(fd, "r");
	if (!f) {
		close(fd);
		return false;
	}
	while (getline(&line, &capacity, f) > 0) {
		const char *path = strchr(line, '/');

		if (path && under(path, root))
			return true;
	}
	return false;
}

static void read_word(int dir, const char *name, char *ret, size_t max)
{
	cleanup_close int fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, ret, max - 1);

	if (n < 0)
		n = 0;
	while (n && ret[n - 1] == '\n')
		n--;
	ret[n] = '\0';
}

static void add_processes(struct list *l, const char *root)
{
	cleanup_closedir DIR *d = opendir("/proc");
	struct dirent *e;

	while (d && (e = readdir(d))) {
		cleanup_close int proc = -1;
		char comm[32];

		if (!isdigit((unsigned char)e->d_name[0]) || atoi(e->d_name) == getpid())
			continue;
		proc = openat(dirfd(d), e->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (proc < 0)
			continue;
		if (!link_under(proc, "cwd", root) && !link_under(proc, "root", root) &&
		    !descriptor_under(proc, root) && !map_under(proc, root))
			continue;
		read_word(proc, "comm", comm, sizeof(comm));
		add(l, "%s (pid %s)", comm, e->d_name);
	}
}

static void add_loops(struct list *l, const char *root)
{
	cleanup_closedir DIR *d = opendir("/sys/block");
	struct dirent *e;

	while (d && (e = readdir(d))) {
		char name[NAME_MAX + 32];
		char file[PATH_MAX];

		if (strncmp(e->d_name, "loop", 4) != 0)
			continue;
		snprintf(name, sizeof(name), "%s/loop/backing_file", e->d_name);
		read_word(dirfd(d), name, file, sizeof(file));
		if (under(file, root))
			add(l, "/dev/%s", e->d_name);
	}
}

int mount_holders(const char *mountpoint, char *buf, size_t max)
{
	cleanup_free char *root = NULL;
	struct list l = { .buf = buf, .max = max };

	if (max)
		buf[0] = '\0';
	if (attach_resolve(mountpoint, &root, NULL) < 0)
		return 0;
	add_processes(&l, root);
	add_loops(&l, root);
	return l.count;
}
