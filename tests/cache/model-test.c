// SPDX-License-Identifier: Apache-2.0
/*
 * The model test: MODEL_SEED=N repeats one seed, MODEL_RUNS=N sets how many seeds a scenario tries;
 * MODEL_STRIDE=N ends a short life behind each N-th of its steps only, where a sanitizer is slow.
 */
#include <check.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/cleanup.h"
#include "core/log.h"
#include "core/parse.h"
#include "tests/cache/model.h"
#include "tests/lib/run.h"

static const char *const cut_names[MODEL_CUTS] = { "kill", "power cut", "link cut",
						   "target's power cut" };

static uint64_t env_u64(const char *name, uint64_t fallback)
{
	const char *text = getenv(name);
	uint64_t v;

	return text && parse_u64(text, &v) == 0 ? v : fallback;
}

static void scenario(const char *name, const struct model_config *base, unsigned runs)
{
	struct model_result sum = { 0 };
	uint64_t seed = env_u64("MODEL_SEED", 0);

	runs = (unsigned)env_u64("MODEL_RUNS", runs);
	for (unsigned i = 0; i < (seed ? 1 : runs); i++) {
		struct model_config conf = *base;
		struct model_result r;

		conf.seed = seed ? seed : i + 1;
		/* Each seed in one order. */
		conf.adaptive = conf.seed % 3 == 1;
		conf.target = conf.seed % 3 == 2;
		r = model_run(&conf);
		sum.reads += r.reads;
		sum.writes += r.writes;
		sum.flushes += r.flushes;
		sum.kills += r.kills;
		sum.power_cuts += r.power_cuts;
		sum.restarts += r.restarts;
		sum.link_cuts += r.link_cuts;
		sum.zeroes += r.zeroes;
	}
	ck_assert(base->cut_once_in || sum.zeroes);
	printf("%s: seeds 1..%u: %u reads, %u changes, %u flushes, %u kills, %u power cuts, %u "
	       "restarts, "
	       "%u link cuts\n",
	       name, runs, sum.reads, sum.writes, sum.flushes, sum.kills, sum.power_cuts,
	       sum.restarts, sum.link_cuts);
}

START_TEST(test_plain)
{
	scenario("plain",
		 &(struct model_config){ .size_bytes = (3u << 20) + 1536,
					 .limit_bytes = 40u << 20,
					 .steps = 1500,
					 .discard = true },
		 16);
}
END_TEST

START_TEST(test_crashes)
{
	scenario("crashes",
		 &(struct model_config){ .size_bytes = (2u << 20) + 512,
					 .limit_bytes = 40u << 20,
					 .steps = 1500,
					 .crash_once_in = 60,
					 .discard = true },
		 24);
}
END_TEST

START_TEST(test_faults)
{
	scenario("faults",
		 &(struct model_config){ .size_bytes = (2u << 20) + 3584,
					 .limit_bytes = 40u << 20,
					 .steps = 1500,
					 .crash_once_in = 200,
					 .fault_once_in = 40,
					 .cut_once_in = 50 },
		 24);
}
END_TEST

START_TEST(test_small_cache)
{
	scenario("small cache",
		 &(struct model_config){ .size_bytes = (72u << 20) + 512,
					 .limit_bytes = 32u << 20,
					 .steps = 2500,
					 .crash_once_in = 400,
					 .cut_once_in = 200,
					 .discard = true },
		 6);
}
END_TEST

/* A short life, ended once behind each of its steps, in each way there is. */
START_TEST(test_each_step)
{
	struct model_config conf = { .size_bytes = (256u << 10) + 512,
				     .limit_bytes = 32u << 20,
				     .steps = 24,
				     .no_readahead = true,
				     .discard = true };
	uint64_t seed = env_u64("MODEL_SEED", 0), runs = 0;
	uint64_t stride = MAX(env_u64("MODEL_STRIDE", 1), (uint64_t)1);
	uint64_t last = seed ? seed : MIN(env_u64("MODEL_RUNS", 2), (uint64_t)2);

	for (conf.seed = seed ? seed : 1; conf.seed <= last; conf.seed++) {
		uint64_t steps;

		conf.cut_at = 0;
		conf.adaptive = conf.seed % 2 == 0;
		steps = model_run(&conf).steps;
		for (conf.cut = _i, conf.cut_at = 1; conf.cut_at <= steps;
		     conf.cut_at += stride, runs++)
			model_run(&conf);
	}
	printf("%s behind each step: %" PRIu64 " runs\n", cut_names[_i], runs);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("model");
	TCase *tc = tcase_create("model");
	struct err err;

	log_open("stderr", LOG_LEVEL_ERROR, &err);
	tcase_set_timeout(tc, 600);
	tcase_add_test(tc, test_plain);
	tcase_add_test(tc, test_crashes);
	tcase_add_test(tc, test_faults);
	tcase_add_test(tc, test_small_cache);
	tcase_add_loop_test(tc, test_each_step, 0, MODEL_CUTS);
	suite_add_tcase(s, tc);
	return run_suite(s);
}
