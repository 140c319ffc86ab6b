// SPDX-License-Identifier: Apache-2.0
/*
 * recorder SOURCE_DIR MOUNTPOINT LOGFILE: a pass-through file system that writes
 * down, in order, all that changes the directory and every sync, for replay.c to
 * make a power cut of. Prints "ready" when mounted, stays in the foreground, ends with
 * the mount or SIGTERM.
 *
 * SOURCE_DIR must be empty at start, for the log has to tell all. setxattr of "user.mark" on
 * the mountpoint records a mark. One thread: what happened before what is never in doubt. Syncs
 * are recorded, not done: what is durable is what the log says.
 */
#define FUSE_USE_VERSION 31

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "tests/lib/record.h"

struct known {
	ino_t ino;
	uint64_t file;
};

static struct {
	int dir_fd;
	FILE *log;
	struct known *known; /* files that were made; the latest of an inode number counts */
	size_t nknown;
	uint64_t last_file;
} rec;

/* An open file, or an open directory: that is its path, for libfuse gives none with a handle. */
struct handle {
	int fd; /* -1: a directory */
	uint64_t file;
	char *path; /* NULL: a file */
};

/* What the kernel had open at the end it need not give back: libfuse and we keep it then. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
	return "detect_leaks=0";
}

static const char *rel(const char *path)
{
	return path[1] ? path + 1 : ".";
}

static void record(enum record_kind kind, const char *path, uint64_t file, uint64_t offset,
		   const void *data, size_t length)
{
	struct record r = {
		.magic = RECORD_MAGIC,
		.kind = kind,
		.file = file,
		.offset = offset,
		.name_bytes = path ? (uint32_t)strlen(path + 1) : 0,
		.data_bytes = (uint32_t)length,
	};

	fwrite(&r, sizeof(r), 1, rec.log);
	if (path)
		fwrite(path + 1, 1, r.name_bytes, rec.log);
	if (length)
		fwrite(data, 1, length, rec.log);
	/* A log with a hole would make tests lie: better none. */
	if (fflush(rec.log)) {
		perror("recorder: log");
		abort();
	}
}

static uint64_t learn(ino_t ino)
{
	struct known *k = realloc(rec.known, (rec.nknown + 1) * sizeof(*k));

	if (!k)
		abort();
	rec.known = k;
	k[rec.nknown++] = (struct known){ .ino = ino, .file = ++rec.last_file };
	return rec.last_file;
}

static uint64_t file_of(int fd)
{
	struct stat st;

	if (fstat(fd, &st) == 0)
		for (size_t i = rec.nknown; i-- > 0;)
			if (rec.known[i].ino == st.st_ino)
				return rec.known[i].file;
	fputs("recorder: a file that nobody made\n", stderr);
	abort();
}

static struct handle *handle_of(const struct fuse_file_info *fi)
{
	return (struct handle *)(uintptr_t)fi->fh;
}

static int result(int r)
{
	return r < 0 ? -errno : 0;
}

static void *op_init(struct fuse_conn_info *conn, struct fuse_config *config)
{
	(void)conn;
	config->kernel_cache = 1; /* nobody else changes the files: keep mapped pages */
	config->hard_remove = 1;
	config->nullpath_ok = 1;
	puts("ready");
	fflush(stdout);
	return NULL;
}

static int op_getattr(const char *path, struct stat *st, struct fuse_file_info *fi)
{
	if (fi)
		return result(fstat(handle_of(fi)->fd, st));
	return result(fstatat(rec.dir_fd, rel(path), st, AT_SYMLINK_NOFOLLOW));
}

static int give_handle(int fd, uint64_t file, const char *path, struct fuse_file_info *fi)
{
	struct handle *h = calloc(1, sizeof(*h));

	if (!h || (path && !(h->path = strdup(path))))
		abort();
	h->fd = fd;
	h->file = file;
	fi->fh = (uintptr_t)h;
	return 0;
}

static int op_create(const char *path, mode_t mode, struct fuse_file_info *fi)
{
	int fd = openat(rec.dir_fd, rel(path), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, mode);
	struct stat st;

	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) < 0)
		abort();
	record(RECORD_CREATE, path, learn(st.st_ino), 0, NULL, 0);
	return give_handle(fd, rec.last_file, NULL, fi);
}

static int op_open(const char *path, struct fuse_file_info *fi)
{
	/* Read and write always: pages of a mapping are read for files open for writing. */
	int fd = openat(rec.dir_fd, rel(path), O_RDWR | O_CLOEXEC);

	return fd < 0 ? -errno : give_handle(fd, file_of(fd), NULL, fi);
}

static int op_release(const char *path, struct fuse_file_info *fi)
{
	struct handle *h = handle_of(fi);

	(void)path;
	cleanup_closep(&h->fd);
	free(h->path);
	free(h);
	return 0;
}

static int op_read(const char *path, char *buf, size_t size, off_t offset,
		   struct fuse_file_info *fi)
{
	ssize_t n = pread(handle_of(fi)->fd, buf, size, offset);

	(void)path;
	return n < 0 ? -errno : (int)n;
}

static int op_write(const char *path, const char *buf, size_t size, off_t offset,
		    struct fuse_file_info *fi)
{
	struct handle *h = handle_of(fi);
	ssize_t n = pwrite(h->fd, buf, size, offset);

	(void)path;
	if (n < 0)
		return -errno;
	record(RECORD_WRITE, NULL, h->file, (uint64_t)offset, buf, (size_t)n);
	return (int)n;
}

static int resize(int fd, uint64_t file, off_t size)
{
	if (ftruncate(fd, size) < 0)
		return -errno;
	record(RECORD_RESIZE, NULL, file, (uint64_t)size, NULL, 0);
	return 0;
}

static int op_truncate(const char *path, off_t size, struct fuse_file_info *fi)
{
	cleanup_close int fd = -1;

	if (fi)
		return resize(handle_of(fi)->fd, handle_of(fi)->file, size);
	fd = openat(rec.dir_fd, rel(path), O_RDWR | O_CLOEXEC);
	return fd < 0 ? -errno : resize(fd, file_of(fd), size);
}

static int op_fallocate(const char *path, int mode, off_t offset, off_t length,
			struct fuse_file_info *fi)
{
	struct handle *h = handle_of(fi);
	struct stat st;

	(void)path;
	if (mode & ~FALLOC_FL_KEEP_SIZE)
		return -EOPNOTSUPP;
	if (fallocate(h->fd, mode, offset, length) < 0 || fstat(h->fd, &st) < 0)
		return -errno;
	if (!(mode & FALLOC_FL_KEEP_SIZE) && st.st_size == offset + length)
		record(RECORD_RESIZE, NULL, h->file, (uint64_t)st.st_size, NULL, 0);
	return 0;
}

static int op_fsync(const char *path, int datasync, struct fuse_file_info *fi)
{
	(void)path;
	(void)datasync;
	record(RECORD_SYNC, NULL, handle_of(fi)->file, 0, NULL, 0);
	return 0;
}

static int op_opendir(const char *path, struct fuse_file_info *fi)
{
	return give_handle(-1, 0, path, fi);
}

static int op_fsyncdir(const char *path, int datasync, struct fuse_file_info *fi)
{
	(void)path;
	(void)datasync;
	record(RECORD_SYNC_DIR, handle_of(fi)->path, 0, 0, NULL, 0);
	return 0;
}

static int op_unlink(const char *path)
{
	if (unlinkat(rec.dir_fd, rel(path), 0) < 0)
		return -errno;
	record(RECORD_UNLINK, path, 0, 0, NULL, 0);
	return 0;
}

static int op_rmdir(const char *path)
{
	if (unlinkat(rec.dir_fd, rel(path), AT_REMOVEDIR) < 0)
		return -errno;
	record(RECORD_UNLINK, path, 0, 0, NULL, 0);
	return 0;
}

static int op_mkdir(const char *path, mode_t mode)
{
	if (mkdirat(rec.dir_fd, rel(path), mode) < 0)
		return -errno;
	record(RECORD_MKDIR, path, 0, 0, NULL, 0);
	return 0;
}

static int op_rename(const char *from, const char *to, unsigned flags)
{
	struct stat st;

	if (fstatat(rec.dir_fd, rel(from), &st, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	if (flags || S_ISDIR(st.st_mode))
		return -EINVAL; /* replay knows no directories that move */
	if (renameat(rec.dir_fd, rel(from), rec.dir_fd, rel(to)) < 0)
		return -errno;
	record(RECORD_RENAME, from, 0, 0, to + 1, strlen(to + 1));
	return 0;
}

static int op_readdir(const char *path, void *buf, fuse_fill_dir_t fill, off_t offset,
		      struct fuse_file_info *fi, enum fuse_readdir_flags flags)
{
	int fd = openat(rec.dir_fd, rel(handle_of(fi)->path), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	const struct dirent *e;
	DIR *dir;

	(void)path;
	(void)offset;
	(void)flags;
	if (fd < 0)
		return -errno;
	dir = fdopendir(fd);
	if (!dir) {
		close(fd);
		return -ENOMEM;
	}
	while ((e = readdir(dir)) != NULL) {
		struct stat st = { .st_ino = e->d_ino, .st_mode = (mode_t)e->d_type << 12 };

		if (fill(buf, e->d_name, &st, 0, 0))
			break;
	}
	closedir(dir);
	return 0;
}

static int op_chmod(const char *path, mode_t mode, struct fuse_file_info *fi)
{
	if (fi)
		return result(fchmod(handle_of(fi)->fd, mode));
	return result(fchmodat(rec.dir_fd, rel(path), mode, 0));
}

static int op_utimens(const char *path, const struct timespec ts[2], struct fuse_file_info *fi)
{
	if (fi)
		return result(futimens(handle_of(fi)->fd, ts));
	return result(utimensat(rec.dir_fd, rel(path), ts, AT_SYMLINK_NOFOLLOW));
}

static int op_statfs(const char *path, struct statvfs *st)
{
	(void)path;
	return result(fstatvfs(rec.dir_fd, st));
}

static int op_setxattr(const char *path, const char *name, const char *value, size_t size,
		       int flags)
{
	(void)flags;
	if (strcmp(path, "/") || strcmp(name, "user.mark"))
		return -EOPNOTSUPP;
	record(RECORD_MARK, NULL, 0, 0, value, size);
	return 0;
}

static const struct fuse_operations operations = {
	.init = op_init,
	.getattr = op_getattr,
	.create = op_create,
	.open = op_open,
	.release = op_release,
	.read = op_read,
	.write = op_write,
	.truncate = op_truncate,
	.fallocate = op_fallocate,
	.fsync = op_fsync,
	.fsyncdir = op_fsyncdir,
	.unlink = op_unlink,
	.rmdir = op_rmdir,
	.mkdir = op_mkdir,
	.rename = op_rename,
	.opendir = op_opendir,
	.releasedir = op_release,
	.readdir = op_readdir,
	.chmod = op_chmod,
	.utimens = op_utimens,
	.statfs = op_statfs,
	.setxattr = op_setxattr,
};

static bool is_empty(const char *path)
{
	DIR *dir = opendir(path);
	unsigned seen = 0;

	if (!dir)
		return false;
	while (readdir(dir))
		seen++;
	closedir(dir);
	return seen <= 2;
}

static int serve(const char *mountpoint)
{
	char *argv[] = { "recorder", "-ofsname=recorder,default_permissions", NULL };
	struct fuse_args args = FUSE_ARGS_INIT(2, argv);
	struct fuse *fuse = fuse_new(&args, &operations, sizeof(operations), NULL);
	int r = 1;

	if (!fuse)
		return 1;
	if (fuse_mount(fuse, mountpoint) == 0) {
		struct fuse_session *session = fuse_get_session(fuse);

		if (fuse_set_signal_handlers(session) == 0) {
			r = fuse_loop(fuse) < 0;
			fuse_remove_signal_handlers(session);
		}
		fuse_unmount(fuse);
	}
	fuse_destroy(fuse);
	fuse_opt_free_args(&args);
	return r;
}

int main(int argc, char **argv)
{
	int r;

	if (argc != 4) {
		fputs("usage: recorder SOURCE_DIR MOUNTPOINT LOGFILE\n", stderr);
		return 2;
	}
	if (!is_empty(argv[1])) {
		fprintf(stderr, "recorder: %s is not an empty directory\n", argv[1]);
		return 1;
	}
	umask(0);
	rec.dir_fd = open(argv[1], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	rec.log = fopen(argv[3], "we");
	if (rec.dir_fd < 0 || !rec.log) {
		perror("recorder");
		return 1;
	}
	r = serve(argv[2]);
	if (fclose(rec.log))
		r = 1;
	close(rec.dir_fd);
	free(rec.known);
	return r;
}
