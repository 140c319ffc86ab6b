// SPDX-License-Identifier: Apache-2.0
#include "transport/credentials.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "core/cleanup.h"
#include "core/log.h"

#define FILE_MAX_BYTES 8192
#define CHAP_SECRET_MIN_BYTES 12

/* Who may read the file beside its owner. */
enum guarded {
	GUARDED_BY_MODE,
	/* systemd gives a service's user its credentials with an ACL, whose mask shows as the
	 * group's permission; the directory around them lets nobody else in. */
	GUARDED_BY_SYSTEMD,
};

static int check_file(int fd, const char *path, enum guarded guarded, struct err *err)
{
	unsigned excess = guarded == GUARDED_BY_SYSTEMD ? 0137 : 0177;
	struct stat st;

	if (fstat(fd, &st) < 0)
		return err_set(err, -errno, "credentials %s: %s", path, strerror(errno));
	if (!S_ISREG(st.st_mode))
		return err_set(err, -EINVAL, "credentials %s: not a regular file", path);
	if (st.st_uid != geteuid() && st.st_uid != 0)
		return err_set(
			err, -EPERM,
			"credentials %s: belongs to user %u; it must belong to you or to root",
			path, (unsigned)st.st_uid);
	if (st.st_mode & excess)
		return err_set(err, -EPERM,
			       "credentials %s: mode %04o lets others use it; run: chmod 600 %s",
			       path, (unsigned)st.st_mode & 07777, path);
	return 0;
}

static ssize_t read_all(int fd, char *buf, size_t max)
{
	size_t n = 0;

	while (n < max) {
		ssize_t r = read(fd, buf + n, max - n);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return -errno;
		if (r == 0)
			break;
		n += (size_t)r;
	}
	return (ssize_t)n;
}

static char *slot(struct leaf_credentials *c, const char *key, size_t length)
{
	static const char *const name[] = { "username", "password", "username_in", "password_in" };
	char *const value[] = { c->username, c->password, c->username_in, c->password_in };

	for (size_t i = 0; i < ARRAY_SIZE(name); i++)
		if (strlen(name[i]) == length && memcmp(name[i], key, length) == 0)
			return value[i];
	return NULL;
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r';
}

/*
 * A secret alone on its line may have a '=' in it, as base64 has: only what could be a key is
 * quoted as one.
 */
static int unknown_key(const char *line, size_t key, struct err *err)
{
	bool plain = key <= 40;

	for (size_t i = 0; i < key; i++)
		plain &= (line[i] >= 'a' && line[i] <= 'z') || line[i] == '_' || line[i] == ' ';
	return err_set(err, -EINVAL,
		       "unknown key%s%.*s%s: use username, password, username_in or password_in, "
		       "with no blanks around",
		       plain ? " \"" : "", plain ? (int)key : 0, line, plain ? "\"" : "");
}

/* One line without its end. Messages quote keys, never values, and nothing without a '='. */
static int parse_line(struct leaf_credentials *c, const char *line, size_t length, struct err *err)
{
	const char *equals = memchr(line, '=', length), *text;
	size_t key, n;
	char *to;

	if (!length || line[0] == '#' || strspn(line, " \t\r") >= length)
		return 0;
	if (!equals)
		return err_set(err, -EINVAL, "no '=': write KEY=VALUE, or '#' before a comment");
	key = (size_t)(equals - line);
	to = slot(c, line, key);
	if (!to)
		return unknown_key(line, key, err);
	text = equals + 1;
	n = length - key - 1;
	if (to[0])
		return err_set(err, -EINVAL, "%.*s is given twice", (int)key, line);
	if (!n)
		return err_set(err, -EINVAL, "%.*s is empty: leave the line out", (int)key, line);
	if (n >= LEAF_CREDENTIAL_MAX)
		return err_set(err, -EINVAL, "%.*s is longer than %d bytes", (int)key, line,
			       LEAF_CREDENTIAL_MAX - 1);
	if (is_blank(text[0]) || is_blank(text[n - 1]))
		return err_set(err, -EINVAL,
			       "%.*s begins or ends with a blank (or the file has DOS line ends)",
			       (int)key, line);
	for (size_t i = 0; i < n; i++)
		if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f)
			return err_set(err, -EINVAL, "%.*s holds a control character", (int)key,
				       line);
	memcpy(to, text, n);
	to[n] = '\0';
	return 0;
}

static int parse_text(struct leaf_credentials *c, const char *path, const char *text, size_t length,
		      struct err *err)
{
	const char *end = text + length;
	unsigned line = 1;
	int r;

	for (; text < end; line++) {
		const char *eol = memchr(text, '\n', (size_t)(end - text));

		if (!eol)
			eol = end;
		r = parse_line(c, text, (size_t)(eol - text), err);
		if (r < 0)
			return err_prefix(err, r, "credentials %s, line %u", path, line);
		text = eol + 1;
	}
	return 0;
}

static int load(const char *path, enum guarded guarded, struct leaf_credentials *ret,
		struct err *err)
{
	/* Not O_NOFOLLOW: what counts is the file that was opened. Not blocking on a FIFO. */
	cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	struct leaf_credentials c = { .username = "" };
	char text[FILE_MAX_BYTES + 1];
	ssize_t n;
	int r;

	if (fd < 0)
		return err_set(err, -errno, "credentials %s: %s", path, strerror(errno));
	r = check_file(fd, path, guarded, err);
	if (r < 0)
		return r;
	n = read_all(fd, text, FILE_MAX_BYTES);
	if (n < 0)
		return err_set(err, (int)n, "credentials %s: %s", path, strerror((int)-n));
	text[n] = '\0';
	if (n == FILE_MAX_BYTES)
		r = err_set(err, -EINVAL, "credentials %s: larger than %d bytes", path,
			    FILE_MAX_BYTES - 1);
	else
		r = parse_text(&c, path, text, (size_t)n, err);
	if (r == 0)
		*ret = c;
	explicit_bzero(text, sizeof(text));
	explicit_bzero(&c, sizeof(c));
	return r;
}

int credentials_load(const char *path, struct leaf_credentials *ret, struct err *err)
{
	return load(path, GUARDED_BY_MODE, ret, err);
}

int credentials_default(struct leaf_credentials *ret, struct err *err)
{
	const char *file = getenv("NEARBLK_CREDENTIALS");
	const char *dir = getenv("CREDENTIALS_DIRECTORY");
	cleanup_free char *path = NULL;

	if (file && file[0])
		return load(file, GUARDED_BY_MODE, ret, err);
	if (dir && dir[0]) {
		if (asprintf(&path, "%s/nearblk", dir) < 0) {
			path = NULL;
			return err_set(err, -ENOMEM, "out of memory");
		}
		if (access(path, F_OK) == 0 || errno != ENOENT)
			return load(path, GUARDED_BY_SYSTEMD, ret, err);
	}
	*ret = (struct leaf_credentials){ .username = "" };
	return 0;
}

int credentials_join(struct leaf_credentials *credentials, const char *user, struct err *err)
{
	const struct leaf_credentials *c = credentials;
	bool named = c->username[0] || user[0];

	if (user[0] && c->username[0] && strcmp(user, c->username) != 0)
		return err_set(
			err, -EINVAL,
			"the URL names the user %s, the credentials another one: leave one of "
			"them out",
			user);
	if (strlen(user) >= sizeof(c->username))
		return err_set(err, -EINVAL, "the user in the URL is too long");
	if (named && !c->password[0])
		return err_set(err, -EINVAL,
			       "user %s has no password: put password= into --credentials FILE",
			       user[0] ? user : c->username);
	if (!named && c->password[0])
		return err_set(err, -EINVAL, "credentials: password= without username=");
	if (!c->username_in[0] != !c->password_in[0])
		return err_set(err, -EINVAL,
			       "credentials: username_in= and password_in= go together, and %s is "
			       "missing",
			       c->username_in[0] ? "password_in=" : "username_in=");
	if (c->username_in[0] && !named)
		return err_set(
			err, -EINVAL,
			"credentials: username_in= without username=: a target proves itself "
			"only to an initiator that logs in with a name");
	if (c->password[0] && strcmp(c->password, c->password_in) == 0)
		return err_set(err, -EINVAL,
			       "credentials: password= and password_in= are the same: mutual CHAP "
			       "would prove nothing");
	if (user[0])
		strcpy(credentials->username, user);
	return 0;
}

void credentials_warn_chap(const struct leaf_credentials *credentials)
{
	size_t out = strlen(credentials->password), in = strlen(credentials->password_in);

	if (out && out < CHAP_SECRET_MIN_BYTES)
		log_warning("the CHAP password is shorter than %d bytes and may be guessed",
			    CHAP_SECRET_MIN_BYTES);
	if (in && in < CHAP_SECRET_MIN_BYTES)
		log_warning(
			"the CHAP password of the target (password_in=) is shorter than %d bytes "
			"and may be guessed",
			CHAP_SECRET_MIN_BYTES);
}
