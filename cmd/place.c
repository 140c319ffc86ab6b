// SPDX-License-Identifier: Apache-2.0
/*
 * STATE_DIR/NAME/           default cache directory of a volume
 * STATE_DIR/.elsewhere/HASH symbolic link to a cache directory that was chosen with --cache-dir
 * STATE_DIR/.run/           control sockets, where there is no runtime directory (control/socket.h)
 */
#include "cmd/place.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <pwd.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/hash.h"

#define ELSEWHERE ".elsewhere"

static int too_long(struct err *err)
{
	return err_set(err, -ENAMETOOLONG, "the path of the state directory is too long");
}

int place_state_dir(char ret[PATH_MAX], struct err *err)
{
	const char *dir = getenv("NEARBLK_STATE_DIR"), *tail = "";
	struct passwd *pw;
	int n;

	if (dir && dir[0] == '/') {
		n = snprintf(ret, PATH_MAX, "%s", dir);
		return n < PATH_MAX ? 0 : too_long(err);
	}
	if (geteuid() == 0) {
		strcpy(ret, "/var/lib/nearblk");
		return 0;
	}
	dir = getenv("XDG_STATE_HOME");
	if (!dir || dir[0] != '/') {
		tail = "/.local/state";
		dir = getenv("HOME");
		if (!dir || dir[0] != '/') {
			pw = getpwuid(geteuid());
			dir = pw ? pw->pw_dir : NULL;
		}
	}
	if (!dir)
		return err_set(err, -ENOENT,
			       "neither XDG_STATE_HOME nor HOME is set: say --cache-dir DIR");
	n = snprintf(ret, PATH_MAX, "%s%s/nearblk", dir, tail);
	return n < PATH_MAX ? 0 : too_long(err);
}

const char *place_run_dir(char buf[PATH_MAX])
{
	size_t n;

	if (place_state_dir(buf, NULL) < 0)
		return NULL;
	n = strlen(buf);
	return snprintf(buf + n, PATH_MAX - n, "/.run") < (int)(PATH_MAX - n) ? buf : NULL;
}

int place_make_dirs(const char *path, struct err *err)
{
	char part[PATH_MAX];
	size_t n = strlen(path);

	if (n >= sizeof(part))
		return too_long(err);
	for (size_t i = 1; i <= n; i++) {
		if (path[i] != '/' && path[i] != '\0')
			continue;
		memcpy(part, path, i);
		part[i] = '\0';
		if (mkdir(part, 0700) < 0 && errno != EEXIST)
			return err_set(err, -errno, "cannot make the directory %s: %s", part,
				       strerror(errno));
	}
	return 0;
}

int place_absolute(const char *path, char ret[PATH_MAX], struct err *err)
{
	char cwd[PATH_MAX];
	int n;

	if (path[0] == '/') {
		n = snprintf(ret, PATH_MAX, "%s", path);
	} else {
		if (!getcwd(cwd, sizeof(cwd)))
			return err_set(err, -errno, "%s: the working directory is gone", path);
		n = snprintf(ret, PATH_MAX, "%s/%s", cwd, path);
	}
	if (n >= PATH_MAX)
		return err_set(err, -ENAMETOOLONG, "%s: the path is too long", path);
	return 0;
}

/* The link for @cache_dir; false where it needs none. */
static bool link_path(const char *cache_dir, char ret[PATH_MAX])
{
	char state[PATH_MAX];
	size_t n;

	if (place_state_dir(state, NULL) < 0)
		return false;
	n = strlen(state);
	if (strncmp(cache_dir, state, n) == 0 && cache_dir[n] == '/' &&
	    !strchr(cache_dir + n + 1, '/'))
		return false;
	return snprintf(ret, PATH_MAX, "%s/" ELSEWHERE "/%016" PRIx64, state,
			hash_text(cache_dir)) < PATH_MAX;
}

void place_remember(const char *cache_dir)
{
	char at[PATH_MAX], *slash;

	if (!link_path(cache_dir, at))
		return;
	slash = strrchr(at, '/');
	*slash = '\0';
	if (place_make_dirs(at, NULL) < 0)
		return;
	*slash = '/';
	unlink(at);
	/* Whoever cannot have this only misses a line in `nearblk status`. */
	if (symlink(cache_dir, at) < 0)
		return;
}

void place_forget(const char *cache_dir)
{
	char at[PATH_MAX];

	if (link_path(cache_dir, at))
		unlink(at);
}

static int each_in(const char *dir, bool links, int (*each)(void *ctx, const char *cache_dir),
		   void *ctx)
{
	DIR *d = opendir(dir);
	struct dirent *e;
	int r = 0;

	if (!d)
		return 0;
	while (r == 0 && (e = readdir(d))) {
		char path[PATH_MAX], target[PATH_MAX];
		struct stat st;

		if (e->d_name[0] == '.' ||
		    snprintf(path, sizeof(path), "%s/%s", dir, e->d_name) >= (int)sizeof(path))
			continue;
		if (links) {
			ssize_t n = readlink(path, target, sizeof(target) - 1);

			if (n <= 0)
				continue;
			target[n] = '\0';
		}
		if (stat(links ? target : path, &st) == 0 && S_ISDIR(st.st_mode))
			r = each(ctx, links ? target : path);
	}
	closedir(d);
	return r;
}

int place_each(int (*each)(void *ctx, const char *cache_dir), void *ctx)
{
	char state[PATH_MAX], elsewhere[PATH_MAX];
	int r;

	if (place_state_dir(state, NULL) < 0)
		return 0;
	r = each_in(state, false, each, ctx);
	if (r || snprintf(elsewhere, sizeof(elsewhere), "%s/" ELSEWHERE, state) >=
			 (int)sizeof(elsewhere))
		return r;
	return each_in(elsewhere, true, each, ctx);
}
