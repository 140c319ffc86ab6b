// SPDX-License-Identifier: Apache-2.0
/* Both index stores against an array of what each block is, through random operations. */
#include "cache/index.h"

#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "tests/lib/scratch.h"
#include "tests/lib/sim.h"
#include "tests/lib/run.h"

#define BLOCKS 2048u
#define MAX_OPS 8

/* What an index should say of one block. */
struct block {
	enum index_kind kind; /* 0: unknown */
	uint32_t segment;
	uint32_t slot;
	uint64_t incarnation;
	uint32_t crc;
};

struct model {
	struct sim *sim; /* for its dice */
	struct index_store *store;
	struct block block[BLOCKS];
	uint64_t generation; /* gives each put values of its own */
};

struct walk {
	struct model *m;
	uint64_t next; /* first block not seen yet */
	unsigned extents;
};

static int check_extent(void *ctx, const struct index_extent *e)
{
	struct walk *w = ctx;

	/* One assertion for many comparisons: each is a system call in Check. */
	bool same = true;

	ck_assert_uint_ge(e->nblocks, 1);
	ck_assert_uint_ge(e->blk, w->next);
	ck_assert_uint_le(e->blk + e->nblocks, BLOCKS);
	for (; w->next < e->blk; w->next++)
		same = same && w->m->block[w->next].kind == 0;
	for (uint64_t i = 0; i < e->nblocks; i++) {
		const struct block *b = &w->m->block[e->blk + i];

		same = same && b->kind == e->kind;
		if (e->kind == INDEX_DATA)
			same = same && b->segment == e->segment && b->slot == e->slot + i &&
			       b->incarnation == e->incarnation && b->crc == e->crc[i];
	}
	ck_assert_msg(same, "seed %llu: blocks before or in %llu+%llu differ",
		      (unsigned long long)sim_seed(w->m->sim), (unsigned long long)e->blk,
		      (unsigned long long)e->nblocks);
	if (e->kind == INDEX_DATA)
		ck_assert_uint_eq(e->blk / INDEX_EXTENT_BLOCKS,
				  (e->blk + e->nblocks - 1) / INDEX_EXTENT_BLOCKS);
	w->next = e->blk + e->nblocks;
	w->extents++;
	return 0;
}

static void check_all(struct model *m)
{
	struct walk w = { .m = m };

	ck_assert_int_eq(index_load(m->store, check_extent, &w), 0);
	for (; w.next < BLOCKS && m->block[w.next].kind == 0; w.next++)
		;
	ck_assert_uint_eq(w.next, BLOCKS);
}

static void random_op(struct model *m, struct index_op *op, uint32_t *crc)
{
	uint64_t max = sim_once_in(m->sim, 4) ? 1024 : 40;
	uint64_t blk = sim_below(m->sim, BLOCKS);
	uint64_t n = MIN(1 + sim_below(m->sim, max), BLOCKS - blk);
	uint64_t dice = sim_below(m->sim, 8);
	struct index_extent *e = &op->extent;

	m->generation++;
	*op = (struct index_op){ .kind = dice < 3 ? INDEX_DELETE : INDEX_PUT };
	e->blk = blk;
	e->nblocks = n;
	if (op->kind == INDEX_PUT && dice == 3) {
		e->kind = INDEX_ZERO;
	} else if (op->kind == INDEX_PUT) {
		e->kind = INDEX_DATA;
		e->nblocks = MIN(n, INDEX_EXTENT_BLOCKS - blk % INDEX_EXTENT_BLOCKS);
		e->segment = (uint32_t)m->generation;
		e->slot = (uint32_t)m->generation * 1000;
		e->incarnation = m->generation << 33;
		e->crc = crc;
		for (uint64_t i = 0; i < e->nblocks; i++)
			crc[i] = (uint32_t)(m->generation * 0x10001 + i);
	}
	for (uint64_t i = 0; i < e->nblocks; i++) {
		struct block *b = &m->block[blk + i];

		*b = (struct block){ .kind = e->kind };
		if (e->kind != INDEX_DATA)
			continue;
		b->segment = e->segment;
		b->slot = e->slot + (uint32_t)i;
		b->incarnation = e->incarnation;
		b->crc = crc[i];
	}
}

static void random_apply(struct model *m, bool durable)
{
	uint32_t crc[MAX_OPS][INDEX_EXTENT_BLOCKS];
	struct index_op op[MAX_OPS];
	size_t n = 1 + sim_below(m->sim, MAX_OPS);

	for (size_t i = 0; i < n; i++)
		random_op(m, &op[i], crc[i]);
	ck_assert_int_eq(index_apply(m->store, op, n, durable), 0);
}

static void check_states(struct index_store *s)
{
	char buf[8];
	size_t length = 99;

	ck_assert_int_eq(index_get_state(s, "pin", buf, sizeof(buf), &length), -ENOENT);
	ck_assert_int_eq(index_put_state(s, "pin", "value", 5), 0);
	ck_assert_int_eq(index_put_state(s, "pin2", "", 0), 0);
	ck_assert_int_eq(index_get_state(s, "pin", buf, 4, &length), -EMSGSIZE);
	ck_assert_uint_eq(length, 99);
	ck_assert_int_eq(index_get_state(s, "pin", buf, sizeof(buf), &length), 0);
	ck_assert(length == 5 && !memcmp(buf, "value", 5));
	ck_assert_int_eq(index_put_state(s, "pin", "new", 3), 0);
	ck_assert_int_eq(index_get_state(s, "pin", buf, sizeof(buf), &length), 0);
	ck_assert(length == 3 && !memcmp(buf, "new", 3));
	ck_assert_int_eq(index_get_state(s, "pin2", buf, sizeof(buf), &length), 0);
	ck_assert_uint_eq(length, 0);
}

static int stop_walk(void *ctx, const struct index_extent *e)
{
	(void)e;
	++*(int *)ctx;
	return -EINTR;
}

static void check_edges(struct index_store *s)
{
	uint32_t crc[INDEX_EXTENT_BLOCKS + 1] = { 0 };
	struct index_op op = {
		.kind = INDEX_PUT,
		.extent = { .blk = 255, .nblocks = 2, .kind = INDEX_DATA, .crc = crc },
	};
	int seen = 0;

	ck_assert_int_eq(index_apply(s, &op, 1, false), -EINVAL);
	op.extent.blk = 256;
	op.extent.nblocks = INDEX_EXTENT_BLOCKS + 1;
	ck_assert_int_eq(index_apply(s, &op, 1, false), -EINVAL);
	op.extent.nblocks = 0;
	ck_assert_int_eq(index_apply(s, &op, 1, false), -EINVAL);
	ck_assert_int_eq(index_apply(s, NULL, 0, true), 0);
	/* The largest volume's last block, and one hole over everything. */
	op.extent = (struct index_extent){
		.blk = (1ull << 52) - 1,
		.nblocks = 1,
		.kind = INDEX_DATA,
		.crc = crc,
	};
	ck_assert_int_eq(index_apply(s, &op, 1, false), 0);
	op.extent = (struct index_extent){ .nblocks = 1ull << 52, .kind = INDEX_ZERO };
	ck_assert_int_eq(index_apply(s, &op, 1, false), 0);
	op.kind = INDEX_DELETE;
	op.extent = (struct index_extent){ .blk = 1000, .nblocks = 1 };
	ck_assert_int_eq(index_apply(s, &op, 1, false), 0);
	ck_assert_int_eq(index_load(s, stop_walk, &seen), -EINTR);
	ck_assert_int_eq(seen, 1);
	ck_assert_int_eq(index_wipe(s), 0);
	ck_assert_int_eq(index_load(s, stop_walk, &seen), 0);
	ck_assert_int_eq(seen, 1);
}

START_TEST(test_mem)
{
	for (uint64_t seed = 1; seed <= 10; seed++) {
		struct model *m = sim_alloc(sizeof(*m));

		m->sim = sim_create(seed);
		m->store = index_mem_create();
		ck_assert(m->store->fresh);
		for (int i = 0; i < 400; i++) {
			random_apply(m, i % 3 == 0);
			if (i % 8 == 0)
				check_all(m);
		}
		check_all(m);
		ck_assert_int_eq(index_wipe(m->store), 0);
		check_states(m->store);
		check_edges(m->store);
		index_destroy(m->store);
		sim_destroy(m->sim);
		free(m);
	}
}
END_TEST

static const char *dir;
static char path[300];
static const uint8_t uuid[16] = "cache uuid 12345";

static struct index_store *open_store(bool fresh)
{
	struct err err = { .text = "" };
	struct index_store *s;

	ck_assert_msg(index_rocksdb_open(path, uuid, &s, &err) == 0, "%s", err.text);
	ck_assert_int_eq(s->fresh, fresh);
	return s;
}

START_TEST(test_rocksdb)
{
	struct model *m = sim_alloc(sizeof(*m));

	m->sim = sim_create(11);
	m->store = open_store(true);
	for (int i = 0; i < 600; i++) {
		random_apply(m, i % 50 == 0);
		if (i % 40 == 0)
			check_all(m);
		if (i % 100 == 99) {
			index_destroy(m->store);
			m->store = open_store(false);
			check_all(m);
		}
	}
	ck_assert_int_eq(index_wipe(m->store), 0);
	ck_assert(m->store->fresh);
	check_states(m->store);
	index_destroy(m->store);
	m->store = open_store(false);
	check_edges(m->store);
	index_destroy(m->store);
	sim_destroy(m->sim);
	free(m);
}
END_TEST

START_TEST(test_rocksdb_of_another)
{
	static const uint8_t other[16] = "another cache 99";
	struct index_store *s = open_store(true);
	struct index_op op = {
		.kind = INDEX_PUT,
		.extent = { .blk = 5, .nblocks = 9, .kind = INDEX_ZERO },
	};
	struct err err = { .text = "" };
	char missing[400];
	int seen = 0;

	ck_assert_int_eq(index_apply(s, &op, 1, true), 0);
	index_destroy(s);
	ck_assert_int_eq(index_rocksdb_open(path, other, &s, &err), 0);
	ck_assert(s->fresh);
	ck_assert_int_eq(index_load(s, stop_walk, &seen), 0);
	index_destroy(s);
	snprintf(missing, sizeof(missing), "%s/no/index", dir);
	ck_assert_int_eq(index_rocksdb_open(missing, uuid, &s, &err), -ENOENT);
	ck_assert_ptr_nonnull(strstr(err.text, missing));
}
END_TEST

/* The same seed gives the same operations: @n applies of them, to no store but the model. */
static void replay_model(struct model *m, uint64_t seed, uint64_t n)
{
	m->sim = sim_create(seed);
	m->store = index_mem_create();
	for (uint64_t i = 0; i < n; i++)
		random_apply(m, true);
	index_destroy(m->store);
}

static int same_extent(void *ctx, const struct index_extent *e)
{
	struct walk *w = ctx;

	for (; w->next < e->blk; w->next++)
		if (w->m->block[w->next].kind != 0)
			return -EXDEV;
	for (uint64_t i = 0; i < e->nblocks; i++, w->next++) {
		const struct block *b = &w->m->block[w->next];

		if (b->kind != e->kind || (e->kind == INDEX_DATA && b->crc != e->crc[i]))
			return -EXDEV;
	}
	return 0;
}

static int compare(struct model *m, struct index_store *s)
{
	struct walk w = { .m = m };
	int r = index_load(s, same_extent, &w);

	for (; r == 0 && w.next < BLOCKS; w.next++)
		if (m->block[w.next].kind != 0)
			r = -EXDEV;
	return r;
}

static void apply_for_ever(uint64_t seed, int fd)
{
	struct model *m = sim_alloc(sizeof(*m));

	m->sim = sim_create(seed);
	m->store = open_store(true);
	for (;;) {
		random_apply(m, true);
		if (write(fd, "+", 1) != 1)
			_exit(1);
	}
}

START_TEST(test_rocksdb_kill)
{
	uint64_t seed = 100 + (uint64_t)_i;
	struct model *m = sim_alloc(sizeof(*m));
	struct model *next = sim_alloc(sizeof(*next));
	struct index_store *s;
	uint64_t acks = 0;
	int pipe_fd[2];
	pid_t pid;
	char c;

	ck_assert_int_eq(pipe(pipe_fd), 0);
	pid = fork();
	if (pid == 0) {
		close(pipe_fd[0]);
		apply_for_ever(seed, pipe_fd[1]);
	}
	close(pipe_fd[1]);
	/* Each ack is a durable apply; killed after some, it may be in the middle of the next. */
	while (read(pipe_fd[0], &c, 1) == 1)
		if (++acks == 20 + 40 * (uint64_t)_i)
			kill(pid, SIGKILL);
	close(pipe_fd[0]);
	ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
	ck_assert_uint_ge(acks, 20);
	replay_model(m, seed, acks);
	replay_model(next, seed, acks + 1);
	s = open_store(false);
	ck_assert_msg(compare(m, s) == 0 || compare(next, s) == 0,
		      "after %llu acknowledged applies something else is there",
		      (unsigned long long)acks);
	index_destroy(s);
	sim_destroy(m->sim);
	sim_destroy(next->sim);
	free(m);
	free(next);
}
END_TEST

static void flip(const char *name, long at)
{
	char file[600];
	FILE *f;
	int c;

	snprintf(file, sizeof(file), "%s/%s", path, name);
	f = fopen(file, "r+");
	ck_assert_ptr_nonnull(f);
	fseek(f, at, SEEK_SET);
	c = fgetc(f);
	fseek(f, at, SEEK_SET);
	fputc(c ^ 0x41, f);
	fclose(f);
}

/* Damage each file in turn: what is opened is fresh, or says it is damaged, or is whole. */
START_TEST(test_rocksdb_damage)
{
	static const int quarters[] = { 1, 2, 3 };
	unsigned fresh = 0;

	for (unsigned n = 0, more = 1; more; n++) {
		struct model *m = sim_alloc(sizeof(*m));
		cleanup_free char *name = NULL;
		struct dirent **list;
		struct stat st;
		char file[600];
		struct err err;
		int files;
		int r;

		m->sim = sim_create(55);
		m->store = open_store(n == 0);
		ck_assert_int_eq(index_wipe(m->store), 0);
		for (int i = 0; i < 60; i++) {
			random_apply(m, true);
			/* A reopen writes a table; what follows is in the log. */
			if (i == 40) {
				index_destroy(m->store);
				m->store = open_store(false);
			}
		}
		index_destroy(m->store);
		files = scandir(path, &list, NULL, alphasort);
		ck_assert_int_gt(files, 4);
		more = n + 1 < (unsigned)files * 3;
		name = strdup(list[n / 3]->d_name);
		for (int i = 0; i < files; i++)
			free(list[i]);
		free(list);
		snprintf(file, sizeof(file), "%s/%s", path, name);
		ck_assert_int_eq(stat(file, &st), 0);
		if (S_ISREG(st.st_mode) && st.st_size > 0) {
			flip(name, (long)st.st_size * quarters[n % 3] / 4);
			ck_assert_int_eq(index_rocksdb_open(path, uuid, &m->store, &err), 0);
			r = m->store->fresh ? 0 : compare(m, m->store);
			ck_assert_msg(r == 0 || r == -EBADMSG || r == -EIO, "%s: %d", name, r);
			fresh += m->store->fresh;
			index_destroy(m->store);
		}
		sim_destroy(m->sim);
		free(m);
	}
	ck_assert_uint_gt(fresh, 3);
}
END_TEST

/* A store half removed must not come back from the logs it left. */
START_TEST(test_rocksdb_without_current)
{
	struct model *m = sim_alloc(sizeof(*m));
	char file[600];
	int seen = 0;

	m->sim = sim_create(56);
	m->store = open_store(true);
	random_apply(m, true);
	index_destroy(m->store);
	snprintf(file, sizeof(file), "%s/CURRENT", path);
	ck_assert_int_eq(unlink(file), 0);
	m->store = open_store(true);
	ck_assert_int_eq(index_load(m->store, stop_walk, &seen), 0);
	index_destroy(m->store);
	sim_destroy(m->sim);
	free(m);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("index");
	TCase *tc = tcase_create("mem");
	TCase *db = tcase_create("rocksdb");
	int status;

	tcase_add_test(tc, test_mem);
	tcase_set_timeout(tc, 120);
	suite_add_tcase(s, tc);
	dir = scratch_create();
	snprintf(path, sizeof(path), "%s/index", dir);
	tcase_add_checked_fixture(db, scratch_clear, NULL);
	tcase_add_test(db, test_rocksdb);
	tcase_add_test(db, test_rocksdb_of_another);
	tcase_add_loop_test(db, test_rocksdb_kill, 0, 4);
	tcase_add_test(db, test_rocksdb_damage);
	tcase_add_test(db, test_rocksdb_without_current);
	tcase_set_timeout(db, 120);
	suite_add_tcase(s, db);
	status = run_suite(s);
	scratch_remove();
	return status;
}
