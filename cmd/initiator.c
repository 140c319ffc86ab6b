// SPDX-License-Identifier: Apache-2.0
#include "cmd/initiator.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "cmd/place.h"
#include "core/cleanup.h"

#define SYSTEM_FILE "/etc/iscsi/initiatorname.iscsi"

/* RFC 7143 4.2.7.1-2: at most 223 bytes; iqn., eui. or naa.; no space, no capitals in ASCII. */
static bool valid(const char *name)
{
	size_t n = strlen(name);

	if (n < 5 || n >= INITIATOR_NAME_MAX)
		return false;
	if (strncmp(name, "eui.", 4) == 0)
		return n == 20 && strspn(name + 4, "0123456789abcdefABCDEF") == 16;
	if (strncmp(name, "naa.", 4) == 0)
		return (n == 20 || n == 36) && strspn(name + 4, "0123456789abcdefABCDEF") == n - 4;
	if (strncmp(name, "iqn.", 4) != 0 || strspn(name + 4, "0123456789") != 4 || name[8] != '-')
		return false;
	return strspn(name + 9, "abcdefghijklmnopqrstuvwxyz0123456789.:-") == n - 9;
}

/* The InitiatorName= of a file; false: there is none that can be used. */
static bool from_file(const char *path, char ret[INITIATOR_NAME_MAX])
{
	cleanup_fclose FILE *f = fopen(path, "re");
	char line[512];

	while (f && fgets(line, sizeof(line), f)) {
		char *name = line + strspn(line, " \t");

		if (strncmp(name, "InitiatorName=", 14) != 0)
			continue;
		name += 14;
		name[strcspn(name, " \t\r\n")] = '\0';
		if (!valid(name))
			continue;
		strcpy(ret, name);
		return true;
	}
	return false;
}

static int invent(char ret[INITIATOR_NAME_MAX], struct err *err)
{
	char host[64] = "", clean[33];
	uint64_t random;
	size_t n = 0;

	if (getrandom(&random, sizeof(random), 0) != sizeof(random))
		return err_set(err, -EIO, "no randomness for an initiator name");
	gethostname(host, sizeof(host) - 1);
	for (const char *p = host; *p && *p != '.' && n < sizeof(clean) - 1; p++) {
		char c = *p >= 'A' && *p <= 'Z' ? (char)(*p - 'A' + 'a') : *p;

		if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-')
			clean[n++] = c;
	}
	clean[n] = '\0';
	snprintf(ret, INITIATOR_NAME_MAX, "iqn.2026-01.io.nearblk:%s-%012" PRIx64,
		 n ? clean : "host", random >> 16);
	return 0;
}

/*
 * Write a new name and link it to @path: the first of several processes wins, and nobody ever reads
 * half a file.
 */
static int make(const char *dir, const char *path, char ret[INITIATOR_NAME_MAX], struct err *err)
{
	cleanup_close int fd = open(dir, O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600);
	char temp[PATH_MAX + 32] = "", text[INITIATOR_NAME_MAX + 32];
	int r = invent(ret, err), n;

	if (r < 0)
		return r;
	if (fd < 0) { /* a file system without O_TMPFILE */
		snprintf(temp, sizeof(temp), "%s.%d", path, (int)getpid());
		fd = open(temp, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
	}
	if (fd < 0)
		return err_set(err, -errno, "cannot make %s: %s", path, strerror(errno));
	n = snprintf(text, sizeof(text), "InitiatorName=%s\n", ret);
	if (write(fd, text, (size_t)n) != n || fsync(fd) < 0)
		r = err_set(err, -errno, "cannot write %s: %s", path, strerror(errno));
	if (r == 0) {
		char self[64];

		snprintf(self, sizeof(self), "/proc/self/fd/%d", fd);
		if (linkat(AT_FDCWD, *temp ? temp : self, AT_FDCWD, path,
			   *temp ? 0 : AT_SYMLINK_FOLLOW) < 0 &&
		    errno != EEXIST)
			r = err_set(err, -errno, "cannot make %s: %s", path, strerror(errno));
	}
	if (*temp)
		unlink(temp);
	return r;
}

int initiator_name(const char *given, char ret[INITIATOR_NAME_MAX], struct err *err)
{
	char dir[PATH_MAX], path[PATH_MAX];
	int r;

	if (given) {
		if (!valid(given))
			return err_set(
				err, -EINVAL,
				"--initiator-name %s: not an iSCSI name; one looks like "
				"iqn.2026-01.org.example:host (lower case, at most 223 bytes)",
				given);
		strcpy(ret, given);
		return 0;
	}
	if (from_file(SYSTEM_FILE, ret))
		return 0;
	r = place_state_dir(dir, err);
	if (r < 0)
		return r;
	if (snprintf(path, sizeof(path), "%s/initiatorname", dir) >= (int)sizeof(path))
		return err_set(err, -ENAMETOOLONG, "%s: the path is too long", dir);
	if (from_file(path, ret))
		return 0;
	r = place_make_dirs(dir, err);
	if (r == 0)
		r = make(dir, path, ret, err);
	if (r < 0)
		return r;
	if (!from_file(path, ret))
		return err_set(err, -EIO,
			       "%s holds no usable InitiatorName= line; correct it or remove it",
			       path);
	return 0;
}
