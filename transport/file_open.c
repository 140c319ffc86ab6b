// SPDX-License-Identifier: Apache-2.0
#include "transport/file_open.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "core/clock.h"
#include "core/crc32c.h"
#include "core/range.h"

#define FILE_SECTOR 512
#define IO_BYTES (1u << 20)
#define LOCK_TRIES 20
#define LOCK_PAUSE_NS (50 * NSEC_PER_MSEC)

/* Write @text to @ret as printable ASCII without blanks ("%XX"); a long one is cut and marked. */
static void put_identity(char *ret, size_t max, const char *prefix, const char *text)
{
	size_t n = (size_t)snprintf(ret, max, "%s", prefix);

	for (const char *p = text; *p; p++) {
		if (n + 16 > max) {
			snprintf(ret + n, max - n, "~%08x", crc32c(0, text, strlen(text)));
			return;
		}
		if (*p > 0x20 && *p < 0x7f && *p != '%')
			n += (size_t)snprintf(ret + n, max - n, "%c", *p);
		else
			n += (size_t)snprintf(ret + n, max - n, "%%%02X", (unsigned char)*p);
	}
}

/* First line of a sysfs attribute of block device @dev, without its end. False: not there. */
static bool sysfs_read(dev_t dev, const char *attribute, char *ret, size_t max)
{
	char path[128];
	cleanup_fclose FILE *f = NULL;

	snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/%s", major(dev), minor(dev), attribute);
	f = fopen(path, "re");
	if (!f || !fgets(ret, (int)max, f))
		return false;
	ret[strcspn(ret, "\n")] = '\0';
	return ret[0] != '\0';
}

/*
 * Names like /dev/sdb pass from disk to disk between boots, and so do inodes in /dev: ask the disk
 * who it is. Where it does not say, the name as the user gave it (such as /dev/disk/by-id/…) is all
 * there is.
 */
static void block_identity(dev_t dev, const char *path, char ret[BLK_IDENTITY_MAX])
{
	static const char *const attribute[] = { "dm/uuid", "wwid",          "device/wwid",
						 "serial",  "device/serial", "loop/backing_file" };
	char value[PATH_MAX], part[32] = "", name[64], prefix[160];
	const char *up = "";

	if (sysfs_read(dev, "partition", part, sizeof(part)))
		up = "../"; /* the attributes are the whole disk's */
	for (size_t i = 0; i < ARRAY_SIZE(attribute); i++) {
		snprintf(name, sizeof(name), "%s%s", up, attribute[i]);
		if (!sysfs_read(dev, name, value, sizeof(value)))
			continue;
		snprintf(prefix, sizeof(prefix), "block:%s%s:%s=", part[0] ? "part" : "whole", part,
			 attribute[i]);
		put_identity(ret, BLK_IDENTITY_MAX, prefix, value);
		return;
	}
	put_identity(ret, BLK_IDENTITY_MAX, "block:path=", path);
}

static void file_identity(const struct stat *st, const char *path, char ret[BLK_IDENTITY_MAX])
{
	cleanup_free char *real = realpath(path, NULL);
	char prefix[64];

	snprintf(prefix, sizeof(prefix), "file:inode=%" PRIu64 ":path=", (uint64_t)st->st_ino);
	put_identity(ret, BLK_IDENTITY_MAX, prefix, real ? real : path);
}

static int open_failed(const char *path, bool read_only, struct err *err)
{
	int e = errno;

	switch (e) {
	case EISDIR:
		return err_set(err, -e, "%s is a directory: name a file or block device", path);
	case ENOENT:
		return err_set(err, -e,
			       "%s does not exist: make it first (truncate -s SIZE FILE makes a "
			       "sparse one)",
			       path);
	case EROFS:
		return err_set(err, -e, "%s is on a read-only file system: add --read-only", path);
	case EBUSY:
		return err_set(err, -e, "%s is in use (mounted, or part of another device)", path);
	case EACCES:
	case EPERM:
		return err_set(err, -e, "%s may not be opened for %s by this user", path,
			       read_only ? "reading" : "reading and writing (or add --read-only)");
	default:
		return err_set(err, -e, "%s: %s", path, strerror(e));
	}
}

/* udev locks block devices while it looks at them: a moment's patience there. */
static int lock(int fd, const char *path, bool block_device, bool read_only, struct err *err)
{
	const struct timespec pause = { .tv_nsec = LOCK_PAUSE_NS };
	int r = -1;

	for (unsigned i = 0; i < (block_device ? LOCK_TRIES : 1); i++) {
		if (i)
			nanosleep(&pause, NULL);
		r = flock(fd, (read_only ? LOCK_SH : LOCK_EX) | LOCK_NB);
		if (r == 0 || errno != EWOULDBLOCK)
			break;
	}
	if (r == 0)
		return 0;
	if (errno == EWOULDBLOCK)
		return err_set(err, -EBUSY,
			       "%s is locked by another program (flock); is it mounted by nearblk "
			       "already?",
			       path);
	return err_set(err, -errno, "%s cannot be locked: %s", path, strerror(errno));
}

static int block_geometry(int fd, const char *path, dev_t dev, struct file_fds *h,
			  struct blk_info *info, struct err *err)
{
	char text[32];
	int sector;

	if (ioctl(fd, BLKGETSIZE64, &info->size_bytes) < 0 || ioctl(fd, BLKSSZGET, &sector) < 0)
		return err_set(err, -errno, "%s does not tell its size: %s", path, strerror(errno));
	if (sector < 512 || sector > 4096 || !is_pow2((uint64_t)sector))
		return err_set(err, -EINVAL, "%s has sectors of %d bytes: 512 to 4096 can be used",
			       path, sector);
	info->sector_bytes = (uint32_t)sector;
	if (info->size_bytes % info->sector_bytes)
		return err_set(err, -EINVAL,
			       "%s has %" PRIu64 " bytes, no whole number of its %u-byte sectors",
			       path, info->size_bytes, info->sector_bytes);
	/* fallocate() on a block device zeroes in hardware or fails; this says which. */
	h->can_punch = (sysfs_read(dev, "queue/write_zeroes_max_bytes", text, sizeof(text)) ||
			sysfs_read(dev, "../queue/write_zeroes_max_bytes", text, sizeof(text))) &&
		       strcmp(text, "0") != 0;
	block_identity(dev, path, info->identity);
	return 0;
}

static int file_geometry(int fd, const char *path, const struct stat *st, bool read_only,
			 struct file_fds *h, struct blk_info *info, struct err *err)
{
	info->size_bytes = (uint64_t)st->st_size;
	info->sector_bytes = FILE_SECTOR;
	if (info->size_bytes % FILE_SECTOR)
		return err_set(err, -EINVAL,
			       "%s has %" PRIu64
			       " bytes, no multiple of %u; a disk image has whole "
			       "sectors (truncate -s %" PRIu64 " would fill it up with zeroes)",
			       path, info->size_bytes, FILE_SECTOR,
			       round_up(info->size_bytes, FILE_SECTOR));
	/* Behind the end there is nothing to lose, and the call says whether it is known. */
	h->can_punch = !read_only && fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
					       st->st_size, FILE_SECTOR) == 0;
	file_identity(st, path, info->identity);
	return 0;
}

int file_open(const char *path, bool read_only, struct file_fds *ret, struct blk_info *ret_info,
	      struct err *err)
{
	int flags = (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
	struct file_fds h = { .fd = -1, .fua_fd = -1 };
	struct blk_info info = { .max_read_bytes = IO_BYTES, .max_write_bytes = IO_BYTES };
	cleanup_close int fd = -1, fua_fd = -1;
	struct stat st, again;
	int r;

	/* O_EXCL on a block device: refuse one that is mounted. It means nothing on a file. */
	fd = open(path,
		  flags | (!read_only && stat(path, &st) == 0 && S_ISBLK(st.st_mode) ? O_EXCL : 0));
	if (fd < 0)
		return open_failed(path, read_only, err);
	if (fstat(fd, &st) < 0)
		return err_set(err, -errno, "%s: %s", path, strerror(errno));
	if (S_ISDIR(st.st_mode)) {
		errno = EISDIR;
		return open_failed(path, read_only, err);
	}
	h.block_device = S_ISBLK(st.st_mode);
	if (!h.block_device && !S_ISREG(st.st_mode))
		return err_set(err, -EINVAL, "%s is neither a file nor a block device", path);
	fua_fd = open(path, flags);
	if (fua_fd < 0)
		return open_failed(path, read_only, err);
	if (fstat(fua_fd, &again) < 0 || again.st_dev != st.st_dev || again.st_ino != st.st_ino ||
	    again.st_rdev != st.st_rdev)
		return err_set(err, -EAGAIN, "%s was replaced while it was opened: try again",
			       path);
	r = lock(fd, path, h.block_device, read_only, err);
	if (r < 0)
		return r;
	r = h.block_device ? block_geometry(fd, path, st.st_rdev, &h, &info, err)
			   : file_geometry(fd, path, &st, read_only, &h, &info, err);
	if (r < 0)
		return r;
	if (!info.size_bytes)
		return err_set(err, -EINVAL, "%s is empty: give it a size first (truncate -s SIZE)",
			       path);
	if (read_only)
		info.flags = BLK_INFO_READ_ONLY;
	else
		info.flags = BLK_INFO_VOLATILE |
			     (h.can_punch ? BLK_INFO_CAN_DISCARD | BLK_INFO_FAST_ZERO : 0);
	info.discard_align_bytes = info.flags & BLK_INFO_CAN_DISCARD ? info.sector_bytes : 0;
	info.max_discard_bytes = info.size_bytes;
	h.fd = steal_fd(fd);
	h.fua_fd = steal_fd(fua_fd);
	*ret = h;
	*ret_info = info;
	return 0;
}
