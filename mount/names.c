// SPDX-License-Identifier: Apache-2.0
/*
 * The directory with one name, its attributes, and what is negotiated with the kernel.
 *
 * No handler waits. The kernel checks permissions (default_permissions), so access() needs no
 * handler; nor do locks, which stay local. Handlers left NULL on purpose: getxattr (else each write
 * asks for security.capability), flush (close writes nothing; ENOSYS once, then never asked again),
 * opendir, forget.
 */
#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "core/cleanup.h"
#include "core/log.h"
#include "mount/session.h"

/* Nothing changes behind the kernel's back but the size, and then it is told. */
#define FILE_TIMEOUT_S 86400.0
/* Short, so that looking at a dead mount says so instead of showing remembered attributes. */
#define ROOT_TIMEOUT_S 1.0

#define BLOCK_BYTES 4096

/*
 * SEEK_DATA and SEEK_HOLE look at so many extents in one request, then settle for an answer that is
 * true but shorter: "data here", or "no hole before the end".
 */
#define SEEK_EXTENTS 65536

/*
 * The open is a cached one for everybody: FOPEN_PARALLEL_DIRECT_WRITES works only together with
 * FOPEN_DIRECT_IO, which breaks shared memory maps and makes large direct reads go one after the
 * other. Direct asynchronous I/O runs in parallel in the cached mode, too.
 */
static void names_init(void *userdata, struct fuse_conn_info *conn)
{
	/*
	 * Not wanted: AUTO_INVAL_DATA (one GETATTR per read), WRITEBACK_CACHE (sub-page writes
	 * would read first, and dirty data hides in RAM), ATOMIC_O_TRUNC (the kernel would take the
	 * size for 0), splice (no gain, and the payload must be in memory).
	 */
	conn->want = conn->capable & (FUSE_CAP_ASYNC_READ | FUSE_CAP_ASYNC_DIO |
				      FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_EXPLICIT_INVAL_DATA);
	conn->max_read = MAX_IO_BYTES;
	conn->max_write = MAX_IO_BYTES;
	conn->max_readahead = UINT_MAX;
	conn->max_background = MAX_BACKGROUND;
	conn->congestion_threshold = MAX_BACKGROUND;
}

static void root_attr(struct mount *m, struct stat *st)
{
	*st = (struct stat){ .st_ino = INO_ROOT, .st_mode = S_IFDIR | 0555, .st_nlink = 2 };
	st->st_blksize = BLOCK_BYTES;
	guard(&m->lock);
	st->st_uid = m->uid;
	st->st_gid = m->gid;
	st->st_atim = st->st_mtim = st->st_ctim = m->ctime;
}

static void file_attr(struct mount *m, struct stat *st)
{
	uint64_t size = atomic_load(&m->size_bytes);

	*st = (struct stat){ .st_ino = INO_FILE, .st_nlink = 1 };
	st->st_size = (off_t)size;
	st->st_blocks = (blkcnt_t)(size / 512);
	st->st_blksize = BLOCK_BYTES;
	guard(&m->lock);
	st->st_mode = S_IFREG | m->mode;
	st->st_uid = m->uid;
	st->st_gid = m->gid;
	st->st_atim = m->atime;
	st->st_mtim = m->mtime;
	st->st_ctim = m->ctime;
}

static void reply_attr(fuse_req_t req, fuse_ino_t ino)
{
	struct mount *m = fuse_req_userdata(req);
	struct stat st;

	if (ino == INO_ROOT)
		root_attr(m, &st);
	else
		file_attr(m, &st);
	fuse_reply_attr(req, &st, ino == INO_ROOT ? ROOT_TIMEOUT_S : FILE_TIMEOUT_S);
}

static void names_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	/* An entry with ino 0 lets the kernel remember that there is no such name. */
	struct fuse_entry_param e = { .attr_timeout = FILE_TIMEOUT_S,
				      .entry_timeout = FILE_TIMEOUT_S };

	if (parent != INO_ROOT) {
		fuse_reply_err(req, ENOTDIR);
		return;
	}
	if (!strcmp(name, MOUNT_FILE_NAME)) {
		e.ino = INO_FILE;
		file_attr(fuse_req_userdata(req), &e.attr);
	}
	fuse_reply_entry(req, &e);
}

static void names_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	reply_attr(req, ino);
}

static void set_time(struct timespec *to, int to_set, int set, int now, const struct timespec *from)
{
	if (to_set & now)
		clock_gettime(CLOCK_REALTIME, to);
	else if (to_set & set)
		*to = *from;
}

static void names_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set,
			  struct fuse_file_info *fi)
{
	struct mount *m = fuse_req_userdata(req);

	if (ino != INO_FILE) {
		fuse_reply_err(req, EPERM);
		return;
	}
	/* With a size it is a truncate, which changes nothing, times included. */
	if (!(to_set & FUSE_SET_ATTR_SIZE)) {
		guard(&m->lock);
		if (to_set & FUSE_SET_ATTR_MODE)
			m->mode = attr->st_mode & 0777;
		if (to_set & FUSE_SET_ATTR_UID)
			m->uid = attr->st_uid;
		if (to_set & FUSE_SET_ATTR_GID)
			m->gid = attr->st_gid;
		set_time(&m->atime, to_set, FUSE_SET_ATTR_ATIME, FUSE_SET_ATTR_ATIME_NOW,
			 &attr->st_atim);
		set_time(&m->mtime, to_set, FUSE_SET_ATTR_MTIME, FUSE_SET_ATTR_MTIME_NOW,
			 &attr->st_mtim);
	}
	reply_attr(req, ino);
}

static void names_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct mount *m = fuse_req_userdata(req);

	if (ino != INO_FILE) {
		fuse_reply_err(req, EISDIR);
		return;
	}
	fi->keep_cache = 1;
	atomic_fetch_add(&m->handles, 1);
	/* No RELEASE follows an open that the kernel does not hear of. */
	if (fuse_reply_open(req, fi) < 0)
		atomic_fetch_sub(&m->handles, 1);
}

static void names_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct mount *m = fuse_req_userdata(req);

	atomic_fetch_sub(&m->handles, 1);
	fuse_reply_err(req, 0);
}

static void names_readdir(fuse_req_t req, fuse_ino_t ino, size_t max, off_t offset,
			  struct fuse_file_info *fi)
{
	static const struct {
		const char *name;
		struct stat st;
	} entry[] = {
		{ ".", { .st_ino = INO_ROOT, .st_mode = S_IFDIR } },
		{ "..", { .st_ino = INO_ROOT, .st_mode = S_IFDIR } },
		{ MOUNT_FILE_NAME, { .st_ino = INO_FILE, .st_mode = S_IFREG } },
	};
	char buf[256];
	size_t used = 0;

	if (ino != INO_ROOT) {
		fuse_reply_err(req, ENOTDIR);
		return;
	}
	max = MIN(max, sizeof(buf));
	for (size_t i = offset < 0 ? 0 : (size_t)offset; i < ARRAY_SIZE(entry); i++) {
		size_t need = fuse_add_direntry(req, buf + used, max - used, entry[i].name,
						&entry[i].st, (off_t)i + 1);

		if (need > max - used)
			break;
		used += need;
	}
	fuse_reply_buf(req, buf, used);
}

static void names_statfs(fuse_req_t req, fuse_ino_t ino)
{
	struct mount *m = fuse_req_userdata(req);
	struct statvfs st = {
		.f_bsize = BLOCK_BYTES,
		.f_frsize = BLOCK_BYTES,
		.f_blocks = atomic_load(&m->size_bytes) / BLOCK_BYTES,
		.f_files = 1,
		.f_namemax = 255,
	};

	fuse_reply_statfs(req, &st);
}

static void names_lseek(fuse_req_t req, fuse_ino_t ino, off_t offset, int whence,
			struct fuse_file_info *fi)
{
	struct mount *m = fuse_req_userdata(req);
	uint64_t size = atomic_load(&m->size_bytes);
	uint64_t at = (uint64_t)offset;
	bool want_hole = whence == SEEK_HOLE;

	if (whence != SEEK_DATA && whence != SEEK_HOLE) {
		fuse_reply_err(req, EINVAL);
		return;
	}
	if (offset < 0 || at >= size) {
		fuse_reply_err(req, ENXIO);
		return;
	}
	for (unsigned i = 0; at < size; i++) {
		uint64_t length = 0;

		if (i == SEEK_EXTENTS) {
			at = want_hole ? size : at;
			break;
		}
		if (blk_known_zero(m->dev, at, size - at, &length) == want_hole)
			break;
		at += length;
	}
	if (at >= size && !want_hole)
		fuse_reply_err(req, ENXIO);
	else
		fuse_reply_lseek(req, (off_t)MIN(at, size));
}

/* What would make or remove a name. */
static void refuse_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
			 dev_t dev)
{
	fuse_reply_err(req, EPERM);
}

static void refuse_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	fuse_reply_err(req, EPERM);
}

static void refuse_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	fuse_reply_err(req, EPERM);
}

static void refuse_symlink(fuse_req_t req, const char *link, fuse_ino_t parent, const char *name)
{
	fuse_reply_err(req, EPERM);
}

static void refuse_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t newparent,
			  const char *newname, unsigned flags)
{
	fuse_reply_err(req, EPERM);
}

static void refuse_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t newparent, const char *newname)
{
	fuse_reply_err(req, EPERM);
}

static void refuse_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
			  struct fuse_file_info *fi)
{
	fuse_reply_err(req, EPERM);
}

void names_fill(struct fuse_lowlevel_ops *ops)
{
	ops->init = names_init;
	ops->lookup = names_lookup;
	ops->getattr = names_getattr;
	ops->setattr = names_setattr;
	ops->open = names_open;
	ops->release = names_release;
	ops->readdir = names_readdir;
	ops->statfs = names_statfs;
	ops->lseek = names_lseek;
	ops->mknod = refuse_mknod;
	ops->mkdir = refuse_mkdir;
	ops->unlink = refuse_unlink;
	ops->rmdir = refuse_unlink;
	ops->symlink = refuse_symlink;
	ops->rename = refuse_rename;
	ops->link = refuse_link;
	ops->create = refuse_create;
}
