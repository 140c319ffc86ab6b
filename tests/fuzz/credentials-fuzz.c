// SPDX-License-Identifier: Apache-2.0
/*
 * Credentials files, and the user of a URL joined to them: u8 length of the user, the user, the
 * file.
 *
 * What is taken is within bounds and can be written again; and nothing that comes out of a refusal
 * depends on a letter of a value.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "core/cleanup.h"
#include "tests/fuzz/fuzz.h"
#include "transport/credentials.h"
#include "transport/url_part.h"

const unsigned fuzz_runs = 20000;

static char path[64];
static int file = -1;

/* A file that is nobody else's, in memory. */
static int load(const void *data, size_t size, struct leaf_credentials *ret, struct err *err)
{
	if (file < 0) {
		file = memfd_create("credentials", MFD_CLOEXEC);
		fuzz_check(file >= 0 && fchmod(file, 0600) == 0);
		snprintf(path, sizeof(path), "/proc/self/fd/%d", file);
	}
	fuzz_check(ftruncate(file, 0) == 0);
	fuzz_check(pwrite(file, data, size, 0) == (ssize_t)size);
	return credentials_load(path, ret, err);
}

static void check_value(const char *value)
{
	size_t n = strnlen(value, LEAF_CREDENTIAL_MAX);

	fuzz_check(n < LEAF_CREDENTIAL_MAX);
	for (size_t i = 0; i < n; i++)
		fuzz_check((unsigned char)value[i] >= 0x20 && value[i] != 0x7f);
	if (n)
		fuzz_check(value[0] != ' ' && value[n - 1] != ' ');
}

static void put_line(struct fuzz_output *out, const char *key, const char *value)
{
	if (!value[0])
		return;
	fuzz_put_bytes(out, key, strlen(key));
	fuzz_put_bytes(out, value, strlen(value));
	fuzz_put_bytes(out, "\n", 1);
}

static void check_taken(const struct leaf_credentials *c)
{
	struct leaf_credentials again = { .username = "" };
	struct fuzz_output out = { 0 };
	struct err err = { .text = "" };

	check_value(c->username);
	check_value(c->password);
	check_value(c->username_in);
	check_value(c->password_in);
	put_line(&out, "username=", c->username);
	put_line(&out, "password=", c->password);
	put_line(&out, "username_in=", c->username_in);
	put_line(&out, "password_in=", c->password_in);
	fuzz_check(load(out.data, out.length, &again, &err) == 0);
	fuzz_check(!strcmp(c->username, again.username) && !strcmp(c->password, again.password));
	fuzz_check(!strcmp(c->username_in, again.username_in) &&
		   !strcmp(c->password_in, again.password_in));
	free(out.data);
}

/* With other letters in each value the answer is the same, word for word. */
static void check_secret(const uint8_t *data, size_t size, int result, const struct err *err)
{
	cleanup_free uint8_t *other = fuzz_alloc(size);
	struct leaf_credentials c = { .username = "" };
	struct err err2 = { .text = "" };
	bool value = false;

	for (size_t i = 0; i < size; i++) {
		other[i] = value && is_alnum((char)data[i]) ? 'Q' : data[i];
		value = data[i] != '\n' && (value || data[i] == '=');
	}
	fuzz_check(load(other, size, &c, &err2) == result);
	fuzz_check(strcmp(err->text, err2.text) == 0);
}

static void check_join(const struct leaf_credentials *loaded, const char *user)
{
	struct leaf_credentials c = *loaded;
	struct err err = { .text = "" };
	int r = credentials_join(&c, user, &err);

	if (r < 0) {
		fuzz_check(r == -EINVAL && err.text[0]);
		fuzz_check(memcmp(&c, loaded, sizeof(c)) == 0);
		return;
	}
	fuzz_check(!c.password[0] == !c.username[0]);
	fuzz_check(!c.password_in[0] == !c.username_in[0]);
	fuzz_check(!c.username_in[0] || c.username[0]);
	fuzz_check(!c.password[0] || strcmp(c.password, c.password_in) != 0);
	fuzz_check(!user[0] || strcmp(c.username, user) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = { data, size };
	size_t length, want = fuzz_take(&in, 1);
	const uint8_t *at = fuzz_take_bytes(&in, want, &length);
	cleanup_free char *user = fuzz_text(at, length);
	struct leaf_credentials c = { .username = "untouched" };
	struct err err = { .text = "" };
	int r = load(in.at, in.left, &c, &err);

	if (r == 0) {
		check_taken(&c);
		check_join(&c, user);
	} else {
		fuzz_check(r == -EINVAL && err.text[0] && !strcmp(c.username, "untouched"));
		for (const char *p = err.text; *p; p++)
			fuzz_check(*p >= 0x20 && *p < 0x7f);
		check_secret(in.at, in.left, r, &err);
	}
	return 0;
}

void fuzz_seeds(void)
{
	static const struct {
		const char *user, *text;
	} seed[] = {
		{ "", "# mine\n\nusername=alice\npassword=a secret of mine\n" },
		{ "alice", "password=twelve-bytes\nusername_in=target\npassword_in=another one\n" },
		{ "bob", "username=alice\npassword=x=y" },
		{ "", "password=only\n" },
		{ "", "username=a\nusername=b\n" },
		{ "", "user name=a\n" },
		{ "", "username=dos\r\n" },
		{ "", "password\n" },
		{ "", "c2VjcmV0IG9mIG1pbmU=\n" },
	};
	struct fuzz_output out = { 0 };

	for (size_t i = 0; i < ARRAY_SIZE(seed); i++) {
		fuzz_put(&out, strlen(seed[i].user), 1);
		fuzz_put_bytes(&out, seed[i].user, strlen(seed[i].user));
		fuzz_put_bytes(&out, seed[i].text, strlen(seed[i].text));
		fuzz_put_seed(&out);
	}
}
