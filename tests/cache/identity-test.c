// SPDX-License-Identifier: Apache-2.0
#include "cache/identity.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/crc32c.h"
#include "tests/lib/simdisk.h"
#include "tests/lib/run.h"

static const char *const name[] = { "identity.a", "identity.b" };

struct fixture {
	struct sim *sim;
	struct simdisk *disk;
	struct lio *lio;
	struct cache_identity id;
};

static struct fixture fx;

static void setup(uint64_t seed)
{
	fx.sim = sim_create(seed);
	fx.disk = simdisk_create(fx.sim);
	fx.lio = simdisk_open(fx.disk, fx.sim);
	ck_assert_int_eq(identity_init(&fx.id, 1ull << 30), 0);
	strcpy(fx.id.url, "iscsi://host.example/iqn.2001-04.com.example:disk/1");
	strcpy(fx.id.volume, "iqn.2001-04.com.example:disk lun 1 serial 77");
	strcpy(fx.id.owner_host, "workstation");
	fx.id.size_bytes = 123456512;
	fx.id.sector_bytes = 512;
	fx.id.session_high_water = 4;
	fx.id.reservation_key_before = 0x1122334455667788;
	fx.id.reservation_mark = 0x99aabbcc;
	fx.id.home = 0xfedcba9876543210;
	fx.id.reserved = true;
	fx.id.overtaken = true;
	strcpy(fx.id.home_dir, "/var/lib/nearblk/volume");
	fx.id.clean = true;
	fx.id.sample[0].offset = 8192;
	fx.id.sample[0].crc = 0x12345678;
	fx.id.sample[15].offset = 1ull << 40;
	fx.id.sample[15].crc = 7;
}

static void teardown(void)
{
	simdisk_destroy(fx.disk);
	sim_destroy(fx.sim);
}

static void reopen(void)
{
	simdisk_kill(fx.disk);
	fx.lio = simdisk_open(fx.disk, fx.sim);
}

static int load(struct cache_identity *ret)
{
	struct err err = { .text = "" };
	int r = identity_load(fx.lio, ret, &err);

	ck_assert_int_eq(r < 0, err.text[0] != '\0');
	return r;
}

static void assert_same(const struct cache_identity *a, const struct cache_identity *b)
{
	ck_assert_uint_eq(a->generation, b->generation);
	ck_assert_uint_eq(a->format_version, b->format_version);
	ck_assert_mem_eq(a->cache_uuid, b->cache_uuid, 16);
	ck_assert_uint_eq(a->segment_bytes, b->segment_bytes);
	ck_assert_uint_eq(a->created_ns, b->created_ns);
	ck_assert_str_eq(a->url, b->url);
	ck_assert_str_eq(a->volume, b->volume);
	ck_assert_uint_eq(a->size_bytes, b->size_bytes);
	ck_assert_uint_eq(a->sector_bytes, b->sector_bytes);
	ck_assert_mem_eq(a->isid_random, b->isid_random, 4);
	ck_assert_uint_eq(a->session_high_water, b->session_high_water);
	ck_assert_uint_eq(a->reservation_key_before, b->reservation_key_before);
	ck_assert_uint_eq(a->reservation_mark, b->reservation_mark);
	ck_assert_uint_eq(a->home, b->home);
	ck_assert_int_eq(a->reserved, b->reserved);
	ck_assert_int_eq(a->overtaken, b->overtaken);
	ck_assert_str_eq(a->home_dir, b->home_dir);
	ck_assert_uint_eq(a->reservation_key, b->reservation_key);
	ck_assert_str_eq(a->owner_host, b->owner_host);
	ck_assert_uint_eq(a->limit_bytes, b->limit_bytes);
	ck_assert_int_eq(a->clean, b->clean);
	for (int i = 0; i < IDENTITY_SAMPLES; i++) {
		ck_assert_uint_eq(a->sample[i].offset, b->sample[i].offset);
		ck_assert_uint_eq(a->sample[i].crc, b->sample[i].crc);
	}
}

/* Write the bytes of copy @i anew, with a right checksum. */
static void patch(int i, unsigned at, uint8_t value)
{
	uint8_t block[4096];
	const uint8_t *now;
	uint64_t bytes;
	uint32_t crc;
	struct lio_file *f;

	ck_assert_int_eq(simdisk_peek(fx.disk, name[i], &now, &bytes), 0);
	ck_assert_uint_eq(bytes, sizeof(block));
	memcpy(block, now, sizeof(block));
	block[at] = value;
	memset(block + 12, 0, 4);
	crc = crc32c(0, block, sizeof(block));
	for (int b = 0; b < 4; b++)
		block[12 + b] = (uint8_t)(crc >> 8 * b);
	ck_assert_int_eq(lio_open(fx.lio, name[i], 0, &f), 0);
	ck_assert_int_eq(lio_write_sync(fx.lio, f, block, sizeof(block), 0), 0);
	lio_close(fx.lio, f);
}

START_TEST(test_init)
{
	static const struct {
		uint64_t limit;
		uint32_t segment;
	} rows[] = {
		{ 1ull << 20, 2u << 20 },  { 64ull << 20, 2u << 20 }, { 1ull << 30, 16u << 20 },
		{ 4ull << 30, 64u << 20 }, { 1ull << 40, 64u << 20 },
	};
	struct cache_identity a;
	struct cache_identity b;

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		ck_assert_int_eq(identity_init(&a, rows[i].limit), 0);
		ck_assert_uint_eq(a.segment_bytes, rows[i].segment);
	}
	ck_assert_int_eq(identity_init(&b, 1ull << 40), 0);
	ck_assert_mem_ne(a.cache_uuid, b.cache_uuid, 16);
	ck_assert_uint_ne(a.reservation_key, b.reservation_key);
	ck_assert_uint_eq(a.sample[3].offset, UINT64_MAX);
}
END_TEST

START_TEST(test_round_trip)
{
	struct cache_identity got;

	setup(1);
	ck_assert_int_eq(load(&got), -ENOENT);
	ck_assert_int_eq(identity_store(fx.lio, &fx.id), 0);
	ck_assert_uint_eq(fx.id.generation, 1);
	simdisk_power_cut(fx.disk);
	fx.lio = simdisk_open(fx.disk, fx.sim);
	ck_assert_int_eq(load(&got), 0);
	assert_same(&got, &fx.id);
	fx.id.clean = false;
	ck_assert_int_eq(identity_store(fx.lio, &fx.id), 0);
	ck_assert_int_eq(load(&got), 0);
	ck_assert_uint_eq(got.generation, 2);
	assert_same(&got, &fx.id);
	/* Longest texts come back whole. */
	memset(fx.id.url, 'u', sizeof(fx.id.url) - 1);
	ck_assert_int_eq(identity_store(fx.lio, &fx.id), 0);
	ck_assert_int_eq(load(&got), 0);
	assert_same(&got, &fx.id);
	teardown();
}
END_TEST

START_TEST(test_flips_in_one_copy)
{
	struct cache_identity got;

	for (unsigned at = 0; at < 4096; at += 13) {
		setup(at);
		ck_assert_int_eq(identity_store(fx.lio, &fx.id), 0);
		ck_assert_int_eq(simdisk_corrupt(fx.disk, name[at % 2], at, 1), 0);
		ck_assert_int_eq(load(&got), 0);
		assert_same(&got, &fx.id);
		ck_assert_int_eq(simdisk_corrupt(fx.disk, name[1 - at % 2], 4095 - at, 1), 0);
		ck_assert_int_eq(load(&got), -EBADMSG);
		ck_assert_int_eq(simdisk_remove(fx.disk, name[0]), 0);
		ck_assert_int_eq(load(&got), -EBADMSG);
		teardown();
	}
}
END_TEST

START_TEST(test_truncated_and_missing)
{
	struct cache_identity got;

	for (int i = 0; i < 2; i++) {
		setup((uint64_t)i);
		ck_assert_int_eq(identity_store(fx.lio, &fx.id), 0);
		ck_assert_int_eq(simdisk_cut_file(fx.disk, name[i], 4095), 0);
		ck_assert_int_eq(load(&got), 0);
		ck_assert_int_eq(simdisk_remove(fx.disk, name[i]), 0);
		ck_assert_int_eq(load(&got), 0);
		assert_same(&got, &fx.id);
		/* A store heals what was lost. */
		ck_assert_int_eq(identity_store(fx.lio, &fx.id), 0);
		ck_assert_int_eq(simdisk_remove(fx.disk, name[1 - i]), 0);
		ck_assert_int_eq(load(&got), 0);
		assert_same(&got, &fx.id);
		ck_assert_int_eq(simdisk_cut_file(fx.disk, name[i], 0), 0);
		ck_assert_int_eq(load(&got), -EBADMSG);
		teardown();
	}
}
END_TEST

START_TEST(test_newer_formats)
{
	static const struct {
		unsigned at;
		uint8_t value;
		int result;
		const char *says;
	} rows[] = {
		{ 8, 2, -EPROTONOSUPPORT, "format 2" },
		{ 11, 1, -EPROTONOSUPPORT, "format 16777217" },
		{ 16, 1, -EPROTONOSUPPORT, "features 0x1" },
		{ 8, 0, 0, NULL },   /* no such version: the other copy serves */
		{ 106, 0, 0, NULL }, /* segments of 0 bytes: likewise */
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct cache_identity got;
		struct err err = { .text = "" };

		setup(i);
		ck_assert_int_eq(identity_store(fx.lio, &fx.id), 0);
		patch((int)i % 2, rows[i].at, rows[i].value);
		ck_assert_int_eq(identity_load(fx.lio, &got, &err), rows[i].result);
		ck_assert(!rows[i].says || strstr(err.text, rows[i].says));
		ck_assert_int_eq(identity_store(fx.lio, &fx.id), rows[i].result);
		teardown();
	}
}
END_TEST

/* Every operation of a store fails once, then the process dies or power goes: old or new. */
START_TEST(test_fail_each_and_cut)
{
	for (int first = 0; first < 2; first++) {
		bool failed = true;

		for (uint64_t n = 1; failed; n++) {
			for (uint64_t seed = 0; seed < 16; seed++) {
				struct cache_identity got;
				struct cache_identity old;
				int r;

				setup(seed);
				if (!first)
					ck_assert_int_eq(identity_store(fx.lio, &fx.id), 0);
				old = fx.id;
				/* Changes in several sectors: half a block is worth nothing. */
				fx.id.clean = false;
				fx.id.sample[9].offset = 4096;
				strcpy(fx.id.owner_host, "laptop");
				/* Only one copy is good: it must not be the first to go. */
				if (!first && seed % 8 >= 4)
					simdisk_corrupt(fx.disk, name[seed / 8], 100, 1);
				simdisk_fail(fx.disk, SIMDISK_ALL, n, -EIO, seed % 2);
				r = identity_store(fx.lio, &fx.id);
				failed = simdisk_fault_hits(fx.disk) > 0;
				simdisk_fail(fx.disk, 0, 0, 0, false);
				if (seed % 4 < 2)
					reopen();
				else
					simdisk_power_cut(fx.disk);
				if (seed % 4 >= 2)
					fx.lio = simdisk_open(fx.disk, fx.sim);
				if (first && r < 0 && load(&got) == -ENOENT) {
					teardown();
					continue;
				}
				ck_assert_int_eq(load(&got), 0);
				assert_same(&got, r < 0 && got.clean ? &old : &fx.id);
				teardown();
			}
		}
	}
}
END_TEST

/* A key for each run, half of it the directory's; a copy has nothing in common with its original.
 */
START_TEST(test_renew)
{
	struct cache_identity run, copy;

	setup(1);
	run = fx.id;
	ck_assert_int_eq(identity_renew(&run, false), 0);
	ck_assert_uint_ne(run.reservation_key, fx.id.reservation_key);
	ck_assert_uint_eq(run.reservation_key >> 32, fx.id.reservation_key >> 32);
	ck_assert_uint_ne(run.reservation_key & UINT32_MAX, 0);
	ck_assert_mem_eq(run.isid_random, fx.id.isid_random, sizeof(run.isid_random));
	ck_assert(run.reserved);
	copy = fx.id;
	ck_assert_int_eq(identity_renew(&copy, true), 0);
	ck_assert_uint_ne(copy.reservation_key >> 32, fx.id.reservation_key >> 32);
	ck_assert_uint_eq(copy.reservation_key_before, 0);
	ck_assert(memcmp(copy.isid_random, fx.id.isid_random, sizeof(copy.isid_random)) != 0);
	ck_assert_uint_eq(copy.session_high_water, 0);
	ck_assert(!copy.reserved);
	/* What it knows of the volume it has from the original. */
	ck_assert_uint_eq(copy.reservation_mark, fx.id.reservation_mark);
	ck_assert(copy.overtaken);
	teardown();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("identity");
	TCase *tc = tcase_create("identity");

	tcase_add_test(tc, test_init);
	tcase_add_test(tc, test_round_trip);
	tcase_add_test(tc, test_flips_in_one_copy);
	tcase_add_test(tc, test_truncated_and_missing);
	tcase_add_test(tc, test_newer_formats);
	tcase_add_test(tc, test_fail_each_and_cut);
	tcase_add_test(tc, test_renew);
	tcase_set_timeout(tc, 60);
	suite_add_tcase(s, tc);
	return run_suite(s);
}
