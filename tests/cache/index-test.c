// SPDX-License-Identifier: Apache-2.0
/* Both index stores against an array of what each block is, through random operations. */
#include "cache/index.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/cleanup.h"
#include "tests/lib/sim.h"

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

	ck_assert_uint_ge(e->nblocks, 1);
	ck_assert_uint_ge(e->blk, w->next);
	ck_assert_uint_le(e->blk + e->nblocks, BLOCKS);
	for (; w->next < e->blk; w->next++)
		ck_assert_int_eq(w->m->block[w->next].kind, 0);
	for (uint64_t i = 0; i < e->nblocks; i++) {
		const struct block *b = &w->m->block[e->blk + i];

		ck_assert_int_eq(b->kind, e->kind);
		if (e->kind != INDEX_DATA)
			continue;
		ck_assert_uint_eq(b->segment, e->segment);
		ck_assert_uint_eq(b->slot, e->slot + i);
		ck_assert_uint_eq(b->incarnation, e->incarnation);
		ck_assert_uint_eq(b->crc, e->crc[i]);
	}
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
	for (; w.next < BLOCKS; w.next++)
		ck_assert_int_eq(m->block[w.next].kind, 0);
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

int main(void)
{
	Suite *s = suite_create("index");
	TCase *tc = tcase_create("index");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_test(tc, test_mem);
	tcase_set_timeout(tc, 120);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
