// SPDX-License-Identifier: Apache-2.0
/*
 * The plan of an epoch against the plain way: play its records in order into an array. Small
 * volumes, many overlaps, records spread over segments that are added in any order, epochs before
 * and behind, and recoveries that cut the log inside the epoch.
 */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cache/plan.h"
#include "core/range.h"
#include "tests/lib/sim.h"
#include "tests/lib/run.h"

#define RUNS 3000
#define NBLOCKS 96u
#define SEGMENT_SLOTS 512u
#define MAX_SEGMENTS 8
#define MAX_RECORDS 64
#define MAX_CRCS 1024

struct part {
	struct format_record record[MAX_RECORDS];
	uint32_t n;
	uint32_t crc[MAX_CRCS];
	uint32_t ncrcs;
	uint32_t base;
	uint64_t keep;
};

/* What the epoch leaves in a block. */
struct want {
	uint8_t kind; /* 0: not touched */
	uint32_t slot, crc;
};

struct run {
	struct sim *sim;
	struct part part[MAX_SEGMENTS];
	unsigned nparts;
	uint64_t first, last; /* of the epoch */
	struct want want[NBLOCKS];
	struct plan_limits limits;
};

static struct part *next_part(struct run *run)
{
	struct part *p = &run->part[run->nparts];

	*p = (struct part){ .base = run->nparts * SEGMENT_SLOTS };
	run->nparts++;
	return p;
}

static void random_record(struct sim *sim, struct format_record *r)
{
	static const uint8_t kinds[] = { FORMAT_WRITE,   FORMAT_WRITE,    FORMAT_WRITE,
					 FORMAT_WRITE,   FORMAT_ZERO,     FORMAT_DISCARD,
					 FORMAT_BARRIER, FORMAT_WATERMARK };

	r->kind = kinds[sim_below(sim, ARRAY_SIZE(kinds))];
	r->blk = sim_below(sim, NBLOCKS);
	r->nblocks = 1 + (uint32_t)sim_below(sim, r->kind == FORMAT_WRITE ? 8 : 40);
	r->nblocks = MIN(r->nblocks, (uint32_t)(NBLOCKS - r->blk));
}

/* One record with number @seq into @p; void ones leave no trace in what is wanted. */
static void add_record(struct run *run, struct part *p, uint64_t seq, bool is_void)
{
	struct format_record *r = &p->record[p->n++];

	*r = (struct format_record){ .seq = seq };
	random_record(run->sim, r);
	if (format_payload(r))
		r->slot = 2 + p->ncrcs + p->n;
	for (uint32_t i = 0; i < r->nblocks; i++) {
		bool counts =
			format_is_data(r) && !is_void && seq >= run->first && seq <= run->last;
		struct want *w = &run->want[r->blk + i];

		if (counts)
			*w = (struct want){ .kind = r->kind };
		if (!format_payload(r))
			continue;
		p->crc[p->ncrcs] = (uint32_t)sim_random(run->sim);
		if (counts) {
			w->slot = p->base + r->slot + i;
			w->crc = p->crc[p->ncrcs];
		}
		p->ncrcs++;
	}
	if (!is_void)
		p->keep = seq;
}

/* A recovery: @lost numbers were cut off, some of them still on disk; the log goes on elsewhere. */
static struct part *add_cut(struct run *run, struct part *p, uint64_t *seq)
{
	uint64_t last = *seq - 1, lost = sim_below(run->sim, 5);

	for (uint64_t i = 0; i < lost; i++)
		if (sim_once_in(run->sim, 2))
			add_record(run, p, *seq + i, true);
	*seq += lost;
	p = next_part(run);
	p->record[p->n++] = (struct format_record){ .seq = *seq, .blk = last, .kind = FORMAT_CUT };
	p->keep = *seq;
	(*seq)++;
	return p;
}

static void make_epoch(struct run *run)
{
	struct sim *sim = run->sim;
	uint64_t before = sim_below(sim, 6), inside = 1 + sim_below(sim, 30),
		 behind = sim_below(sim, 6), seq = 1 + sim_below(sim, 100);
	uint64_t first_seq = seq;
	struct part *p;
	unsigned cuts = 0;

	memset(run->want, 0, sizeof(run->want));
	run->nparts = 0;
	p = next_part(run);
	run->first = seq + before;
	run->last = UINT64_MAX; /* until it is known: all behind first counts */
	while (seq < run->first + inside) {
		if (seq > first_seq && cuts < 2 && sim_once_in(sim, 12)) {
			uint64_t at = seq;

			p = add_cut(run, p, &seq);
			/* What is void does not make the epoch shorter. */
			if (at < run->first && seq > run->first)
				run->first = seq;
			cuts++;
			continue;
		}
		if (run->nparts < MAX_SEGMENTS - 2 && p->n && sim_once_in(sim, 10))
			p = next_part(run);
		add_record(run, p, seq++, false);
	}
	run->last = seq - 1;
	for (uint64_t i = 0; i < behind; i++)
		add_record(run, p, seq++, false);
	run->limits = (struct plan_limits){
		.write_blocks = 1 + sim_below(sim, 16),
		.zero_blocks = 1 + sim_below(sim, 40),
		.discard_align = sim_once_in(sim, 3) ? 0 : 1ull << sim_below(sim, 5),
		.whole_blocks = NBLOCKS - sim_below(sim, 2),
	};
}

static int add_all(struct run *run, struct plan *plan)
{
	unsigned order[MAX_SEGMENTS];

	for (unsigned i = 0; i < run->nparts; i++) {
		unsigned k = (unsigned)sim_below(run->sim, i + 1);

		order[i] = order[k];
		order[k] = i;
	}
	for (unsigned i = 0; i < run->nparts; i++) {
		const struct part *p = &run->part[order[i]];
		int r = plan_add(plan, p->record, p->n, p->crc, p->base, p->keep, run->first,
				 run->last);

		if (r < 0)
			return r;
	}
	return plan_finish(plan, &run->limits, run->first, run->last);
}

static void check_write(struct run *run, const struct plan *plan, const struct plan_command *cmd)
{
	ck_assert_uint_le(cmd->n, run->limits.write_blocks);
	for (uint64_t i = 0; i < cmd->n; i++) {
		const struct plan_block *b = &plan->block[cmd->first + i];
		const struct want *w = &run->want[cmd->blk + i];

		ck_assert_uint_eq(b->blk, cmd->blk + i);
		ck_assert_int_eq(w->kind, FORMAT_WRITE);
		ck_assert_uint_eq(b->slot, w->slot);
		ck_assert_uint_eq(b->crc, w->crc);
	}
}

static void check_range(struct run *run, const struct plan_command *cmd)
{
	uint64_t align = run->limits.discard_align;

	ck_assert_uint_le(cmd->n, run->limits.zero_blocks);
	for (uint64_t i = 0; i < cmd->n; i++) {
		const struct want *w = &run->want[cmd->blk + i];

		ck_assert(w->kind == FORMAT_ZERO || w->kind == FORMAT_DISCARD);
		/* Only what may be freed is; edges of it may be zeroed. */
		ck_assert(cmd->kind == FORMAT_ZERO || w->kind == FORMAT_DISCARD);
	}
	if (cmd->kind != FORMAT_DISCARD)
		return;
	ck_assert_uint_ne(align, 0);
	ck_assert_uint_eq(cmd->blk % align, 0);
	ck_assert_uint_eq(cmd->n % align, 0);
	ck_assert_uint_le(cmd->blk + cmd->n, run->limits.whole_blocks);
}

static void check_plan(struct run *run, const struct plan *plan)
{
	bool covered[NBLOCKS] = { false };

	for (size_t i = 0; i < plan->ncommands; i++) {
		const struct plan_command *cmd = &plan->command[i];

		ck_assert_int_eq(cmd->state, COMMAND_TODO);
		ck_assert_uint_ge(cmd->n, 1);
		ck_assert(range_inside(cmd->blk, cmd->n, NBLOCKS));
		for (uint64_t k = 0; k < cmd->n; k++) {
			ck_assert_msg(!covered[cmd->blk + k], "block %u in two commands",
				      (unsigned)(cmd->blk + k));
			covered[cmd->blk + k] = true;
		}
		if (cmd->kind == FORMAT_WRITE)
			check_write(run, plan, cmd);
		else
			check_range(run, cmd);
	}
	for (uint64_t i = 0; i < NBLOCKS; i++)
		ck_assert_int_eq(covered[i], run->want[i].kind != 0);
}

/* Take away one record that counts: true if there was one. */
static bool lose_one(struct run *run)
{
	for (unsigned tries = 0; tries < 20; tries++) {
		struct part *p = &run->part[sim_below(run->sim, run->nparts)];
		uint32_t i;

		if (!p->n)
			continue;
		i = (uint32_t)sim_below(run->sim, p->n);
		if (p->record[i].seq < run->first || p->record[i].seq > run->last ||
		    p->record[i].seq > p->keep || format_payload(&p->record[i]))
			continue;
		memmove(&p->record[i], &p->record[i + 1], (--p->n - i) * sizeof(p->record[0]));
		return true;
	}
	return false;
}

START_TEST(test_random)
{
	struct run *run = sim_alloc(sizeof(*run));
	unsigned losses = 0;
	struct plan plan = { 0 };

	for (uint64_t seed = 1; seed <= RUNS; seed++) {
		int r;

		run->sim = sim_create(seed);
		make_epoch(run);
		plan_reset(&plan);
		r = add_all(run, &plan);
		if (r < 0)
			sim_die(run->sim, "%d", r);
		check_plan(run, &plan);
		if (lose_one(run)) {
			plan_reset(&plan);
			ck_assert_int_eq(add_all(run, &plan), -ENODATA);
			losses++;
		}
		sim_destroy(run->sim);
	}
	ck_assert_uint_gt(losses, RUNS / 4);
	plan_fini(&plan);
	free(run);
}
END_TEST

static const struct plan_limits plain = {
	.write_blocks = 256, .zero_blocks = 1 << 18, .discard_align = 1, .whole_blocks = UINT64_MAX
};

START_TEST(test_nothing_added)
{
	struct plan plan = { 0 };

	ck_assert_int_eq(plan_finish(&plan, &plain, 1, 1), -ENODATA);
	plan_fini(&plan);
}
END_TEST

/* Numbers that a recovery cut off are not missing; without the record that says so they are. */
START_TEST(test_cut)
{
	const struct format_record old[] = {
		{ .seq = 5, .blk = 1, .nblocks = 1, .slot = 2, .kind = FORMAT_WRITE },
		{ .seq = 6, .blk = 1, .nblocks = 1, .slot = 4, .kind = FORMAT_WRITE }, /* cut off */
	};
	const struct format_record fresh[] = {
		{ .seq = 9, .blk = 5, .kind = FORMAT_CUT },
		{ .seq = 10, .kind = FORMAT_BARRIER },
	};
	const uint32_t crc[] = { 71, 72 };
	struct plan plan = { 0 };

	ck_assert_int_eq(plan_add(&plan, old, 2, crc, 0, 5, 5, 10), 0);
	ck_assert_int_eq(plan_add(&plan, fresh, 2, NULL, 512, 10, 5, 10), 0);
	ck_assert_int_eq(plan_finish(&plan, &plain, 5, 10), 0);
	ck_assert_uint_eq(plan.ncommands, 1);
	ck_assert_uint_eq(plan.block[plan.command[0].first].crc, 71);
	plan_reset(&plan);
	ck_assert_int_eq(plan_add(&plan, old, 2, crc, 0, 5, 5, 10), 0);
	ck_assert_int_eq(plan_add(&plan, fresh + 1, 1, NULL, 512, 10, 5, 10), 0);
	ck_assert_int_eq(plan_finish(&plan, &plain, 5, 10), -ENODATA);
	plan_fini(&plan);
}
END_TEST

/* Pieces of a long discard stay aligned, whatever the longest one taken is. */
START_TEST(test_long_discard)
{
	const struct format_record r = {
		.seq = 1, .blk = 3, .nblocks = 100, .kind = FORMAT_DISCARD
	};
	const struct plan_limits limits = {
		.write_blocks = 256, .zero_blocks = 21, .discard_align = 8, .whole_blocks = 1000
	};
	uint64_t discarded = 0;
	struct plan plan = { 0 };

	ck_assert_int_eq(plan_add(&plan, &r, 1, NULL, 0, 1, 1, 1), 0);
	ck_assert_int_eq(plan_finish(&plan, &limits, 1, 1), 0);
	for (size_t i = 0; i < plan.ncommands; i++) {
		const struct plan_command *cmd = &plan.command[i];

		if (cmd->kind != FORMAT_DISCARD)
			continue;
		ck_assert_uint_eq(cmd->blk % 8, 0);
		ck_assert_uint_eq(cmd->n % 8, 0);
		discarded += cmd->n;
	}
	ck_assert_uint_eq(discarded, 88); /* 8..96 */
	plan_fini(&plan);
}
END_TEST

/*
 * A trimmed file system: very many discards in one epoch, over zeroes. The way that looks at each
 * pair takes minutes.
 */
START_TEST(test_many_ranges)
{
	const uint64_t many = 60000;
	struct plan plan = { 0 };
	uint64_t discarded = 0, zeroed = 0;

	for (uint64_t i = 0; i < many; i++) {
		struct format_record r = {
			.seq = 1 + i, .blk = 7 * i, .nblocks = 5, .kind = FORMAT_DISCARD
		};

		if (i == 0)
			r = (struct format_record){ .seq = 1 + i,
						    .blk = 0,
						    .nblocks = (uint32_t)(7 * many),
						    .kind = FORMAT_ZERO };
		ck_assert_int_eq(plan_add(&plan, &r, 1, NULL, 0, many, 1, many), 0);
	}
	ck_assert_int_eq(plan_finish(&plan, &plain, 1, many), 0);
	for (size_t i = 0; i < plan.ncommands; i++) {
		const struct plan_command *cmd = &plan.command[i];

		if (i)
			ck_assert_uint_ge(cmd->blk,
					  plan.command[i - 1].blk + plan.command[i - 1].n);
		if (cmd->kind == FORMAT_DISCARD)
			discarded += cmd->n;
		else
			zeroed += cmd->n;
	}
	ck_assert_uint_eq(discarded, (many - 1) * 5);
	ck_assert_uint_eq(zeroed, 7 * many - (many - 1) * 5);
	plan_fini(&plan);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("plan");
	TCase *tc = tcase_create("plan");

	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, test_nothing_added);
	tcase_add_test(tc, test_cut);
	tcase_add_test(tc, test_long_discard);
	tcase_add_test(tc, test_many_ranges);
	tcase_add_test(tc, test_random);
	suite_add_tcase(s, tc);
	return run_suite(s);
}
