// SPDX-License-Identifier: Apache-2.0
#include "control/socket.h"

#include <dirent.h>
#include <errno.h>
#include <glob.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/hash.h"

/* A runtime directory as session managers make them. su may leave that of somebody else behind. */
static bool is_own(const char *dir)
{
	struct stat st;

	return dir && dir[0] == '/' && stat(dir, &st) == 0 && S_ISDIR(st.st_mode) &&
	       st.st_uid == geteuid() && access(dir, W_OK | X_OK) == 0;
}

/* The directory this process would use; false: none is known. */
static bool runtime_dir(const char *fallback, char ret[PATH_MAX])
{
	const char *dir = getenv("NEARBLK_RUNTIME_DIR");
	char user[64];
	int n = 0;

	snprintf(user, sizeof(user), "/run/user/%u", (unsigned)geteuid());
	if (dir && dir[0] == '/')
		n = snprintf(ret, PATH_MAX, "%s", dir);
	else if (geteuid() == 0)
		n = snprintf(ret, PATH_MAX, "/run/nearblk");
	else if (is_own(dir = getenv("XDG_RUNTIME_DIR")) || is_own(dir = user))
		n = snprintf(ret, PATH_MAX, "%s/nearblk", dir);
	else if (fallback)
		n = snprintf(ret, PATH_MAX, "%s", fallback);
	return n > 0 && n < PATH_MAX;
}

static int make_private(const char *dir, struct err *err)
{
	struct stat st;

	if (mkdir(dir, 0700) < 0 && errno != EEXIST)
		return err_set(err, -errno, "cannot make %s for the control socket: %s", dir,
			       strerror(errno));
	if (lstat(dir, &st) < 0)
		return err_set(err, -errno, "%s: %s", dir, strerror(errno));
	if (!S_ISDIR(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & 077))
		return err_set(err, -EPERM,
			       "%s is not a directory of this user with mode 0700; remove it or "
			       "correct it, then try again",
			       dir);
	return 0;
}

static int path_in(const char *dir, const char *cache_dir, char ret[CONTROL_PATH_MAX])
{
	int n = snprintf(ret, CONTROL_PATH_MAX, "%s/%016" PRIx64 ".sock", dir,
			 hash_text(cache_dir));

	return n < 0 || (size_t)n >= CONTROL_PATH_MAX ? -ENAMETOOLONG : 0;
}

int control_socket_path(const char *cache_dir, const char *fallback, char ret[CONTROL_PATH_MAX],
			struct err *err)
{
	char dir[PATH_MAX];
	int r;

	if (!runtime_dir(fallback, dir))
		return err_set(err, -ENOENT,
			       "no place for the control socket: set NEARBLK_RUNTIME_DIR to a "
			       "private directory");
	r = make_private(dir, err);
	if (r < 0)
		return r;
	r = path_in(dir, cache_dir, ret);
	return r < 0 ? err_set(err, r,
			       "%s is too long to hold a socket; set NEARBLK_RUNTIME_DIR to a "
			       "shorter path",
			       dir)
		     : 0;
}

bool control_socket_answers(const char *cache_dir, const char *fallback)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	cleanup_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	char dir[PATH_MAX];

	return fd >= 0 && runtime_dir(fallback, dir) &&
	       path_in(dir, cache_dir, addr.sun_path) == 0 &&
	       connect(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0;
}

static int each_in(const char *dir, int (*each)(void *ctx, const char *path), void *ctx)
{
	DIR *d = opendir(dir);
	struct dirent *e;
	int r = 0;

	if (!d)
		return 0;
	while (r == 0 && (e = readdir(d))) {
		char path[PATH_MAX];
		size_t n = strlen(e->d_name);
		int len;

		if (n < 6 || strcmp(e->d_name + n - 5, ".sock") != 0)
			continue;
		len = snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
		if (len > 0 && (size_t)len < CONTROL_PATH_MAX)
			r = each(ctx, path);
	}
	closedir(d);
	return r;
}

int control_socket_each(const char *fallback, int (*each)(void *ctx, const char *path), void *ctx)
{
	char dir[PATH_MAX];
	bool known = runtime_dir(fallback, dir);
	glob_t users;
	int r = 0;

	if (known)
		r = each_in(dir, each, ctx);
	/* A daemon may have been started where there was no session. */
	if (r == 0 && fallback && !(known && strcmp(dir, fallback) == 0))
		r = each_in(fallback, each, ctx);
	if (r || geteuid() != 0 || getenv("NEARBLK_RUNTIME_DIR"))
		return r;
	if (glob("/run/user/*/nearblk", GLOB_NOSORT, NULL, &users) != 0)
		return 0;
	for (size_t i = 0; r == 0 && i < users.gl_pathc; i++)
		r = each_in(users.gl_pathv[i], each, ctx);
	globfree(&users);
	return r;
}
