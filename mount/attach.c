// SPDX-License-Identifier: Apache-2.0
#include "mount/attach.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "mount/fusermount.h"

#define FUSE_DEVICE "/dev/fuse"
#define FS_SUBTYPE "nearblk"
/* Dead mounts may be stacked: a daemon that was killed, mounted over and killed again. */
#define MAX_DEAD_MOUNTS 16

int attach_resolve(const char *mountpoint, char **ret, struct err *err)
{
	cleanup_free char *copy = NULL;
	cleanup_free char *parent = NULL;
	char *slash;
	const char *dir = ".";
	const char *base;
	char *path = realpath(mountpoint, NULL);
	size_t length;
	int r;

	if (path) {
		*ret = path;
		return 0;
	}
	if (errno == ENOENT)
		return err_set(err, -ENOENT,
			       "mountpoint %s does not exist: create it first (mkdir -p %s)",
			       mountpoint, mountpoint);

	/* The last component may be a dead mount, which cannot be looked into: resolve around it.
	 */
	r = -errno;
	copy = strdup(mountpoint);
	if (!copy)
		return err_set(err, -ENOMEM, "out of memory");
	length = strlen(copy);
	while (length > 1 && copy[length - 1] == '/')
		copy[--length] = '\0';
	slash = strrchr(copy, '/');
	base = slash ? slash + 1 : copy;
	if (slash) {
		*slash = '\0';
		dir = slash == copy ? "/" : copy;
	}
	parent = realpath(dir, NULL);
	if (!parent || !*base || !strcmp(base, ".") || !strcmp(base, ".."))
		return err_set(err, r, "mountpoint %s: %s", mountpoint, strerror(-r));
	if (asprintf(&path, "%s/%s", strcmp(parent, "/") ? parent : "", base) < 0)
		return err_set(err, -ENOMEM, "out of memory");
	*ret = path;
	return 0;
}

/* mountinfo writes space, tab, newline and backslash as three octal digits (proc(5)). */
static void unescape(char *s)
{
	char *d = s;

	for (; *s; s++) {
		if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] >= '0' && s[2] <= '7' &&
		    s[3] >= '0' && s[3] <= '7') {
			*d++ = (char)((s[1] - '0') * 64 + (s[2] - '0') * 8 + (s[3] - '0'));
			s += 3;
		} else {
			*d++ = *s;
		}
	}
	*d = '\0';
}

/* Cut the next word off @line, spaces between. */
static char *word(char **line)
{
	char *w;

	do
		w = strsep(line, " \n");
	while (w && !*w);
	return w;
}

/* "36 35 98:0 /root /mnt opts shared:1 - type source super" → true if it is at @path. */
static bool parse_entry(char *line, const char *path, struct attach_entry *e)
{
	char *at;
	char *w;
	char *device;

	(void)word(&line);
	(void)word(&line);
	device = word(&line);
	(void)word(&line);
	at = word(&line);
	if (!at)
		return false;
	unescape(at);
	if (strcmp(at, path) != 0)
		return false;
	do
		w = word(&line);
	while (w && strcmp(w, "-") != 0);
	snprintf(e->device, sizeof(e->device), "%s", device);
	w = word(&line);
	snprintf(e->type, sizeof(e->type), "%s", w ? w : "");
	w = word(&line);
	if (w)
		unescape(w);
	snprintf(e->source, sizeof(e->source), "%s", w ? w : "");
	return true;
}

int attach_find(const char *path, struct attach_entry *ret)
{
	cleanup_fclose FILE *f = fopen("/proc/self/mountinfo", "re");
	cleanup_free char *line = NULL;
	size_t capacity = 0;
	int r = -ENOENT;

	if (!f)
		return -errno;
	/* Mounts on one path are listed bottom to top: the last one counts. */
	while (getline(&line, &capacity, f) > 0) {
		if (parse_entry(line, path, ret))
			r = 0;
	}
	return r;
}

int attach_prepare(const char *path, const char *type, struct err *err)
{
	struct attach_entry e = { 0 };
	struct stat st;
	int r;

	for (int i = 0; attach_find(path, &e) == 0 && !strcmp(e.type, type); i++) {
		struct statfs fs;

		/* Not stat(2): the kernel may answer that from attributes it still has cached. */
		if (statfs(path, &fs) == 0 || errno != ENOTCONN)
			return err_set(err, -EBUSY,
				       "a nearblk volume (%s) is already mounted on %s: unmount it "
				       "first, or choose another mountpoint",
				       e.source, path);
		if (i == MAX_DEAD_MOUNTS)
			return err_set(err, -EBUSY, "too many dead mounts on %s: umount -l %s",
				       path, path);
		r = attach_unmount(path, &e, true, err);
		if (r < 0)
			return err_prefix(err, r, "a dead nearblk mount is in the way");
	}
	if (stat(path, &st) < 0) {
		r = -errno;
		if (r == -ENOTCONN)
			return err_set(
				err, r,
				"a dead mount (type %s) is in the way on %s: unmount it first "
				"(umount -l %s)",
				e.type, path, path);
		return err_set(err, r, "mountpoint %s: %s", path, strerror(-r));
	}
	if (!S_ISDIR(st.st_mode))
		return err_set(err, -ENOTDIR, "mountpoint %s is not a directory", path);
	return 0;
}

static int mount_directly(const struct attach_options *opt, int *ret_fd)
{
	cleanup_close int fd = open(FUSE_DEVICE, O_RDWR | O_CLOEXEC);
	unsigned long flags = MS_NOSUID | MS_NODEV | (opt->read_only ? MS_RDONLY : 0);
	char data[256];

	if (fd < 0)
		return -errno;
	snprintf(data, sizeof(data),
		 "fd=%d,rootmode=40000,user_id=%u,group_id=%u,max_read=%u,default_permissions%s",
		 fd, getuid(), getgid(), opt->max_read_bytes,
		 opt->allow_other ? ",allow_other" : "");
	if (mount(opt->fsname, opt->path, "fuse." FS_SUBTYPE, flags, data) < 0)
		return -errno;
	*ret_fd = steal_fd(fd);
	return 0;
}

/* fusermount3 splits at commas; a backslash protects one (util/fusermount.c, do_mount()). */
static void escape_option(const char *from, char *to, size_t max)
{
	size_t n = 0;

	for (; *from && n + 3 < max; from++) {
		if (*from == ',' || *from == '\\')
			to[n++] = '\\';
		to[n++] = *from;
	}
	to[n] = '\0';
}

static int mount_by_helper(const struct attach_options *opt, int *ret_fd, struct err *err)
{
	char source[ATTACH_SOURCE_MAX * 2];
	char options[sizeof(source) + 128];

	escape_option(opt->fsname, source, sizeof(source));
	snprintf(options, sizeof(options),
		 "fsname=%s,subtype=" FS_SUBTYPE ",max_read=%u,default_permissions%s%s", source,
		 opt->max_read_bytes, opt->allow_other ? ",allow_other" : "",
		 opt->read_only ? ",ro" : "");
	return fusermount_mount(opt->path, options, ret_fd, err);
}

int attach_mount(const struct attach_options *opt, int *ret_fd, struct err *err)
{
	int r = mount_directly(opt, ret_fd);

	switch (r) {
	case 0:
		return 0;
	case -ENOENT:
	case -ENODEV:
	case -ENXIO:
		return err_set(
			err, -ENODEV,
			"%s is missing: the kernel has no FUSE, or this container may not use it "
			"(modprobe fuse; docker run --device /dev/fuse)",
			FUSE_DEVICE);
	case -EPERM:
	case -EACCES:
		if (geteuid() == 0)
			return err_set(
				err, r,
				"mounting on %s: %s: root here may not mount (a container needs "
				"CAP_SYS_ADMIN)",
				opt->path, strerror(-r));
		return mount_by_helper(opt, ret_fd, err);
	default:
		return err_set(err, r, "mounting on %s: %s", opt->path, strerror(-r));
	}
}

bool attach_same(const struct attach_entry *a, const struct attach_entry *b)
{
	return !strcmp(a->device, b->device) && !strcmp(a->type, b->type) &&
	       !strcmp(a->source, b->source);
}

void attach_abandon(const char *path)
{
	struct err err;

	if (umount2(path, UMOUNT_NOFOLLOW | MNT_DETACH) < 0 && errno == EPERM)
		fusermount_unmount(path, true, &err);
}

int attach_unmount(const char *path, const struct attach_entry *ours, bool lazy, struct err *err)
{
	struct attach_entry now;
	int r = attach_find(path, &now);

	if (r == -ENOENT || (r == 0 && !attach_same(&now, ours)))
		return err_set(err, -ENOENT, "%s is not mounted any more", path);
	if (r < 0)
		return err_set(err, r, "/proc/self/mountinfo: %s", strerror(-r));

	if (umount2(path, UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0)) == 0)
		return 0;
	r = -errno;
	if (r == -EPERM && geteuid() != 0)
		return fusermount_unmount(path, lazy, err);
	if (r == -EBUSY)
		return err_set(err, r, "%s is in use", path);
	return err_set(err, r, "unmounting %s: %s", path, strerror(-r));
}
