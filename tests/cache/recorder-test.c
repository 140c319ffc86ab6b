// SPDX-License-Identifier: Apache-2.0
/*
 * A real directory after a power cut: local I/O and the RocksDB index run on the
 * recording file system, and what replay leaves of them is looked at. Exit 77 where there is
 * no /dev/fuse or it may not be mounted.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "cache/index.h"
#include "cache/lio.h"
#include "core/cleanup.h"
#include "tests/lib/scratch.h"
#include "tests/lib/run.h"

#define PAGE 4096u
#define PAGES 16u
#define APPLIES 60u

static char source[256];
static char mnt[256];
static char log_path[256];
static char out[256];
static pid_t recorder;

static void command(const char *text)
{
	ck_assert_msg(system(text) == 0, "%s", text);
}

/* False: it could not mount. */
static bool start_recorder(void)
{
	char line[16] = "";
	int fd[2];
	bool ready;

	if (pipe(fd) < 0)
		return false;
	recorder = fork();
	if (recorder == 0) {
		prctl(PR_SET_PDEATHSIG, SIGTERM); /* not to outlive a test that fails */
		dup2(fd[1], STDOUT_FILENO);
		close(fd[0]);
		close(fd[1]);
		execl("tests/lib/recorder", "recorder", source, mnt, log_path, NULL);
		_exit(127);
	}
	close(fd[1]);
	ready = read(fd[0], line, sizeof(line)) > 0 && !strcmp(line, "ready\n");
	close(fd[0]);
	return ready;
}

static void stop_recorder(void)
{
	int status;

	if (!recorder)
		return;
	kill(recorder, SIGTERM);
	ck_assert_int_eq(waitpid(recorder, &status, 0), recorder);
	recorder = 0;
	ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void stop_hard(void)
{
	if (recorder > 0) {
		kill(recorder, SIGTERM);
		waitpid(recorder, NULL, 0);
		recorder = 0;
	}
	umount2(mnt, MNT_DETACH); /* there still if the recorder or a test died */
}

static bool begin(void)
{
	stop_hard();
	scratch_clear();
	return mkdir(source, 0700) == 0 && mkdir(mnt, 0700) == 0 && start_recorder();
}

static void setup(void)
{
	ck_assert_msg(begin(), "the recorder did not mount");
}

static void mark(const char *text)
{
	ck_assert_int_eq(setxattr(mnt, "user.mark", text, strlen(text), 0), 0);
}

/* The number of the record that marks @text; "" gives that of the last record. */
static uint64_t find_mark(const char *text)
{
	char line[4200];
	char want[64];
	char c[600];
	unsigned long long n = 0;
	FILE *f;

	snprintf(c, sizeof(c), "tests/lib/replay '%s' --list", log_path);
	snprintf(want, sizeof(want), " mark 0 0+%zu %s\n", strlen(text), text);
	f = popen(c, "r");
	ck_assert_ptr_nonnull(f);
	while (fgets(line, sizeof(line), f)) {
		char *rest;

		n = strtoull(line, &rest, 10);
		if (*text && !strcmp(rest, want))
			break;
	}
	while (fgets(line, sizeof(line), f))
		;
	ck_assert_int_eq(pclose(f), 0);
	return n;
}

static void replay(uint64_t cut, uint64_t seed, const char *mode)
{
	char c[1000];

	snprintf(c, sizeof(c),
		 "rm -rf '%s' && tests/lib/replay '%s' '%s' --cut %llu --seed %llu %s", out,
		 log_path, out, (unsigned long long)cut, (unsigned long long)seed, mode);
	command(c);
}

static struct lio *open_lio(const char *where)
{
	struct err err = { .text = "" };
	struct lio *lio;

	ck_assert_msg(lio_posix_open(where, 2, &lio, &err) == 0, "%s", err.text);
	return lio;
}

/* Which generations are in file @name of the replayed directory, as bits; 0: no such file. */
static unsigned generations(const char *name, uint64_t *ret_bytes)
{
	char path[300];
	uint8_t buf[PAGE];
	unsigned seen = 0;
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "%s/%s", out, name);
	fd = open(path, O_RDONLY);
	*ret_bytes = 0;
	if (fd < 0)
		return 0;
	while ((n = read(fd, buf, sizeof(buf))) > 0) {
		bool whole = buf[0] < 8;

		for (ssize_t i = 0; i < n; i++)
			whole = whole && buf[i] == buf[0];
		ck_assert_msg(whole, "%s: a page of several versions", name);
		seen |= 1u << buf[0];
		*ret_bytes += (uint64_t)n;
	}
	close(fd);
	return seen;
}

START_TEST(test_bytes_and_names)
{
	struct lio *lio = open_lio(mnt);
	uint8_t *buf = malloc(PAGES * PAGE);
	struct lio_file *f;
	struct lio_file *g;
	unsigned mixtures = 0;
	unsigned names = 0;
	uint64_t bytes;

	memset(buf, 1, PAGES * PAGE);
	ck_assert_int_eq(lio_open(lio, "seg", LIO_CREATE, &f), 0);
	ck_assert_int_eq(lio_write_sync(lio, f, buf, PAGES * PAGE, 0), 0);
	ck_assert_int_eq(lio_fdatasync(lio, f), 0);
	ck_assert_int_eq(lio_sync_dir(lio), 0);
	mark("synced");
	memset(buf, 2, PAGES * PAGE);
	ck_assert_int_eq(lio_write_sync(lio, f, buf, PAGES * PAGE, 0), 0);
	ck_assert_int_eq(lio_rename(lio, "seg", "log"), 0);
	ck_assert_int_eq(lio_open(lio, "new", LIO_CREATE, &g), 0);
	ck_assert_int_eq(lio_write_sync(lio, g, buf, PAGE, 0), 0);
	ck_assert_int_eq(lio_fdatasync(lio, g), 0);
	mark("unsynced");
	ck_assert_int_eq(lio_truncate(lio, f, PAGE), 0);
	ck_assert_int_eq(lio_fdatasync(lio, f), 0);
	ck_assert_int_eq(lio_unlink(lio, "new"), 0);
	ck_assert_int_eq(lio_sync_dir(lio), 0);
	mark("end");
	lio_close(lio, f);
	lio_close(lio, g);
	lio_destroy(lio);
	stop_recorder();

	replay(find_mark("synced"), 1, "");
	ck_assert_uint_eq(generations("seg", &bytes), 1u << 1);
	ck_assert_uint_eq(bytes, PAGES * PAGE);
	replay(find_mark("unsynced"), 1, "");
	ck_assert_uint_eq(generations("seg", &bytes), 1u << 1);
	ck_assert_uint_eq(generations("new", &bytes), 0);
	replay(find_mark("unsynced"), 1, "--all");
	ck_assert_uint_eq(generations("log", &bytes), 1u << 2);
	ck_assert_uint_eq(generations("new", &bytes), 1u << 2);
	for (uint64_t seed = 0; seed < 40; seed++) {
		unsigned seg;
		unsigned log;

		replay(find_mark("unsynced"), seed, "--subset");
		seg = generations("seg", &bytes);
		log = generations("log", &bytes);
		ck_assert(!seg != !log); /* renames are whole */
		mixtures |= 1u << (seg | log);
		names |= 1u << (!!log + 2 * !!generations("new", &bytes));
	}
	ck_assert_uint_eq(mixtures, 1u << 2 | 1u << 4 | 1u << 6); /* old, new, both */
	ck_assert_uint_eq(names, 15);
	for (uint64_t seed = 0; seed < 5; seed++) {
		replay(find_mark("end"), seed, "--subset");
		ck_assert_uint_eq(generations("log", &bytes), 1u << 2);
		ck_assert_uint_eq(bytes, PAGE);
		ck_assert_uint_eq(generations("seg", &bytes) | generations("new", &bytes), 0);
	}
	free(buf);
}
END_TEST

START_TEST(test_words_survive_kill)
{
	struct lio *lio = open_lio(mnt);
	pid_t pid;

	lio_destroy(lio);
	pid = fork();
	if (pid == 0) {
		lio = open_lio(mnt);
		lio_set_word(lio, 5, 0xabcdefull);
		kill(getpid(), SIGKILL);
	}
	ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
	lio = open_lio(mnt);
	ck_assert(lio->same_boot);
	ck_assert_uint_eq(lio_word(lio, 5), 0xabcdefull);
	lio_destroy(lio);
}
END_TEST

/* Apply k puts the extent of block k % 20 anew, with k for its segment; every fifth deletes it. */
static void make_op(uint32_t k, struct index_op *op, uint32_t *crc)
{
	*op = (struct index_op){
		.kind = k % 5 == 4 ? INDEX_DELETE : INDEX_PUT,
		.extent = { .blk = k % 20,
			    .nblocks = 1,
			    .kind = INDEX_DATA,
			    .segment = k,
			    .incarnation = 1,
			    .crc = crc },
	};
	*crc = k * 77;
}

struct content {
	uint32_t segment[20]; /* 0: nothing; apply numbers begin at 1 */
};

static int note(void *ctx, const struct index_extent *e)
{
	ck_assert_uint_lt(e->blk, 20);
	((struct content *)ctx)->segment[e->blk] = e->segment;
	return 0;
}

static void content_after(uint32_t applies, struct content *c)
{
	*c = (struct content){ .segment = { 0 } };
	for (uint32_t k = 1; k <= applies; k++)
		c->segment[k % 20] = k % 5 == 4 ? 0 : k;
}

START_TEST(test_index)
{
	static const uint8_t uuid[16] = "recorded index 1";
	char path[300];
	char text[32];
	struct err err = { .text = "" };
	struct index_store *s;
	uint64_t total;
	uint64_t at[APPLIES + 1];
	unsigned fresh = 0;
	unsigned cuts = 0;

	snprintf(path, sizeof(path), "%s/index", mnt);
	ck_assert_msg(index_rocksdb_open(path, uuid, &s, &err) == 0, "%s", err.text);
	for (uint32_t k = 1; k <= APPLIES; k++) {
		struct index_op op;
		uint32_t crc;

		make_op(k, &op, &crc);
		ck_assert_int_eq(index_apply(s, &op, 1, k % 3 == 0), 0);
		snprintf(text, sizeof(text), "apply %u", k);
		mark(text);
	}
	index_destroy(s);
	stop_recorder();
	total = find_mark("");
	at[0] = 0;
	for (uint32_t k = 1; k <= APPLIES; k++) {
		snprintf(text, sizeof(text), "apply %u", k);
		at[k] = find_mark(text);
	}
	snprintf(path, sizeof(path), "%s/index", out);
	for (uint64_t cut = at[1]; cut <= total; cut++) {
		struct content got = { .segment = { 0 } };
		struct content want;
		uint32_t durable = 0;
		uint32_t made = 0;
		bool all_synced = false;
		bool found = false;

		for (uint32_t k = 1; k <= APPLIES; k++) {
			if (at[k] <= cut && k % 3 == 0)
				durable = k;
			all_synced = all_synced || (at[k] == cut && k % 3 == 0);
			if (at[k - 1] <= cut)
				made = k;
		}
		replay(cut, cut, "--subset");
		mkdir(out, 0700);
		ck_assert_msg(index_rocksdb_open(path, uuid, &s, &err) == 0, "%s", err.text);
		ck_assert_int_eq(index_load(s, note, &got), 0);
		cuts++;
		fresh += s->fresh;
		for (uint32_t k = durable; k <= made && !found; k++) {
			content_after(k, &want);
			found = !memcmp(&got, &want, sizeof(got));
		}
		ck_assert_msg(found || s->fresh, "cut %llu: not what %u..%u applies leave",
			      (unsigned long long)cut, durable, made);
		ck_assert_msg(!s->fresh || !all_synced, "cut %llu: lost for nothing",
			      (unsigned long long)cut);
		index_destroy(s);
	}
	/* Half a record at the end of the log may cost the index, but not always. */
	ck_assert_msg(fresh < cuts * 3 / 4, "%u of %u cuts lost the index", fresh, cuts);
}
END_TEST

static void make_paths(void)
{
	const char *dir = scratch_create();

	snprintf(source, sizeof(source), "%s/source", dir);
	snprintf(mnt, sizeof(mnt), "%s/mnt", dir);
	snprintf(log_path, sizeof(log_path), "%s/log", dir);
	snprintf(out, sizeof(out), "%s/out", dir);
}

/* Mounting is tried, not guessed from uid and groups. */
static bool can_mount(void)
{
	bool ok = access("/dev/fuse", R_OK | W_OK) == 0 && begin();

	stop_hard();
	return ok;
}

int main(void)
{
	Suite *s;
	TCase *tc;
	int status;

	make_paths();
	if (!can_mount()) {
		puts("needs /dev/fuse, and to be allowed to mount");
		scratch_remove();
		return 77;
	}
	s = suite_create("recorder");
	tc = tcase_create("recorder");
	tcase_add_checked_fixture(tc, setup, stop_hard);
	tcase_add_test(tc, test_bytes_and_names);
	tcase_add_test(tc, test_words_survive_kill);
	tcase_add_test(tc, test_index);
	tcase_set_timeout(tc, 120);
	suite_add_tcase(s, tc);
	status = run_suite(s);
	stop_hard();
	scratch_remove();
	return status;
}
