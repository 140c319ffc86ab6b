// SPDX-License-Identifier: Apache-2.0
/* PERSISTENT RESERVE IN and OUT as bytes: what is said is understood, what is cut is refused. */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/lib/run.h"
#include "transport/iscsi_pr.h"

#define KEY 0x1122334455667788ull

/* From hexadecimal digits, blanks between them; the memory is exactly as long, for ASan. */
static uint8_t *bytes(const char *hex, size_t *ret_length)
{
	uint8_t *data = malloc(strlen(hex) / 2 + 1), *end = data, *copy;
	unsigned v;

	for (; *hex; hex += 2) {
		while (*hex == ' ')
			hex++;
		ck_assert_int_eq(sscanf(hex, "%2x", &v), 1);
		*end++ = (uint8_t)v;
	}
	*ret_length = (size_t)(end - data);
	copy = malloc(*ret_length ? *ret_length : 1);
	memcpy(copy, data, *ret_length);
	free(data);
	return copy;
}

START_TEST(test_cdbs)
{
	static const uint8_t in[] = { 0x5e, 2, 0, 0, 0, 0, 0, 0x01, 0x08, 0 };
	static const uint8_t out[] = { 0x5f, 6, 5, 0, 0, 0, 0, 0, 24, 0 };
	static const uint8_t data[] = {
		0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0, 0, 0, 0,
		0,    0,    0xab, 0xcd, 0,    0,    0,    0,    1, 0, 0, 0
	};
	uint8_t cdb[ISCSI_PR_CDB_BYTES], list[ISCSI_PR_OUT_BYTES];

	iscsi_pr_in_cdb(ISCSI_PR_REPORT_CAPABILITIES, 0x108, cdb);
	ck_assert_mem_eq(cdb, in, sizeof(in));
	iscsi_pr_out_cdb(ISCSI_PR_REGISTER_AND_IGNORE, cdb);
	ck_assert_mem_eq(cdb, out, sizeof(out));
	iscsi_pr_out_data(KEY, 0xabcd, true, list);
	ck_assert_mem_eq(list, data, sizeof(data));
	iscsi_pr_out_data(KEY, 0xabcd, false, list);
	ck_assert_int_eq(list[20], 0);
}
END_TEST

static const struct {
	const char *data;
	int result;
	struct iscsi_pr_reservation want;
} reservations[] = {
	{ "00000007 00000000", 0, { .generation = 7 } },
	{ "00000007 00000010 1122334455667788 00000000 00 05 0000",
	  0,
	  { .generation = 7, .held = true, .key = KEY, .type = 5 } },
	/* Scope in the upper half; what follows is of no interest. */
	{ "ffffffff 00000018 0000000000000000 00000000 00 18 0000 0102030405060708",
	  0,
	  { .generation = UINT32_MAX, .held = true, .type = 8 } },
	{ "", -EBADMSG, { .generation = 0 } },
	{ "00000007 000000", -EBADMSG, { .generation = 0 } },
	/* A holder that is said to be there and is not must not read as nobody. */
	{ "00000007 00000010", -EBADMSG, { .generation = 0 } },
	{ "00000007 00000010 1122334455667788 00000000 00 05 00", -EBADMSG, { .generation = 0 } },
	{ "00000007 00000008 1122334455667788 00000000 00 05 0000", -EBADMSG, { .generation = 0 } },
	{ "00000007 ffffffff 1122334455667788", -EBADMSG, { .generation = 0 } },
};

START_TEST(test_reservation)
{
	struct iscsi_pr_reservation r = { .generation = 99 };
	size_t length;
	uint8_t *data = bytes(reservations[_i].data, &length);

	ck_assert_int_eq(iscsi_pr_reservation(data, length, &r), reservations[_i].result);
	free(data);
	if (reservations[_i].result < 0)
		return;
	ck_assert_uint_eq(r.generation, reservations[_i].want.generation);
	ck_assert_int_eq(r.held, reservations[_i].want.held);
	ck_assert_uint_eq(r.key, reservations[_i].want.key);
	ck_assert_uint_eq(r.type, reservations[_i].want.type);
}
END_TEST

static const struct {
	const char *data;
	int result;
} key_lists[] = {
	{ "00000003 00000000", 0 },
	{ "00000003 00000010 1122334455667788 0000000000000002", 2 },
	/* Cut by the allocation length, in the middle of a key. */
	{ "00000003 00000018 1122334455667788 0000000000000002 00000000", 2 },
	{ "00000003 0000000c 1122334455667788 0000000000000002", 1 },
	{ "00000003 ffffffff 1122334455667788", 1 },
	/* More than there is room for. */
	{ "00000003 00000020 1122334455667788 0000000000000002 0000000000000003 0000000000000004",
	  3 },
	{ "00000003 0000", -EBADMSG },
	{ "", -EBADMSG },
};

START_TEST(test_keys)
{
	uint64_t key[3] = { 0 };
	size_t length;
	uint8_t *data = bytes(key_lists[_i].data, &length);

	ck_assert_int_eq(iscsi_pr_keys(data, length, key, 3), key_lists[_i].result);
	free(data);
	if (key_lists[_i].result > 0)
		ck_assert_uint_eq(key[0], KEY);
	if (key_lists[_i].result > 1)
		ck_assert_uint_eq(key[1], 2);
}
END_TEST

static const struct {
	const char *data;
	int result;
	bool persists, has_type;
} abilities[] = {
	{ "0008 01 80 ea01 0000", 0, true, true },
	{ "0008 00 80 ea01 0000", 0, false, true },
	{ "0008 00 80 0a01 0000", 0, false, false },
	/* The mask does not count without its bit. */
	{ "0008 00 00 0000 0000", 0, false, true },
	{ "0008 01 80 ea01 00", -EBADMSG, false, false },
	{ "0004 01 80 ea01 0000", -EBADMSG, false, false },
	{ "", -EBADMSG, false, false },
};

START_TEST(test_abilities)
{
	struct iscsi_pr_abilities a = { .persists = false };
	size_t length;
	uint8_t *data = bytes(abilities[_i].data, &length);

	ck_assert_int_eq(iscsi_pr_abilities(data, length, &a), abilities[_i].result);
	free(data);
	if (abilities[_i].result < 0)
		return;
	ck_assert_int_eq(a.persists, abilities[_i].persists);
	ck_assert_int_eq(a.has_type, abilities[_i].has_type);
}
END_TEST

/* A full status descriptor: key, flags, and the length of what follows. */
#define STATUS(key, holder) key "00000000" holder "05 00000000 0001"
#define ME STATUS("1122334455667788", "01") "00000014"
#define MINE STATUS("1122334455667788", "00") "00000014"
#define YOU STATUS("0000000000000002", "00") "00000014"
/* iqn.2026-01.a:h1 and :h2, padded */
#define NAME1 "05 00 0010 69716e2e323032362d30312e613a6831"
#define NAME2 "45 00 0010 69716e2e323032362d30312e613a6832"

static const struct {
	const char *data;
	int result;
	const char *name;
} names[] = {
	{ "00000001 0000002c" ME NAME1, 0, "iqn.2026-01.a:h1" },
	{ "00000001 00000058" YOU NAME2 ME NAME1, 0, "iqn.2026-01.a:h1" },
	/* The holder's of several. */
	{ "00000001 00000058" MINE NAME2 ME NAME1, 0, "iqn.2026-01.a:h1" },
	{ "00000001 00000058" ME NAME1 MINE NAME2, 0, "iqn.2026-01.a:h1" },
	/* Up to the ISID, and printable. */
	{ "00000001 0000002c" ME "45 00 0010 69716e2e323032362d301b2c692c3078", 0, "iqn.2026-0." },
	{ "00000001 0000002c" YOU NAME1, -ENOENT, NULL },
	/* Fibre Channel; no name; a length beyond the descriptor; a descriptor beyond the data. */
	{ "00000001 0000002c" ME "00 00 0010 69716e2e323032362d30312e613a6831", -ENOENT, NULL },
	{ "00000001 0000002c" ME "05 00 0010 00000000000000000000000000000000", -ENOENT, NULL },
	{ "00000001 0000002c" ME "05 00 ffff 69716e2e323032362d30312e613a6831", 0,
	  "iqn.2026-01.a:h1" },
	{ "00000001 ffffffff" STATUS("1122334455667788", "01") "ffffffff" NAME1, 0,
	  "iqn.2026-01.a:h1" },
	{ "00000001 0000002c" STATUS("1122334455667788", "01") "00000002"
							       "0500",
	  -ENOENT, NULL },
	{ "00000001 0000002c" STATUS("1122334455667788", "01") "000000", -ENOENT, NULL },
	{ "00000001 00000000" ME NAME1, -ENOENT, NULL },
	{ "00000001 000000", -EBADMSG, NULL },
	{ "", -EBADMSG, NULL },
};

START_TEST(test_name)
{
	char name[224] = "";
	size_t length;
	uint8_t *data = bytes(names[_i].data, &length);

	ck_assert_int_eq(iscsi_pr_name(data, length, KEY, name, sizeof(name)), names[_i].result);
	if (names[_i].name)
		ck_assert_str_eq(name, names[_i].name);
	/* A short buffer gets the beginning. */
	if (names[_i].result == 0) {
		ck_assert_int_eq(iscsi_pr_name(data, length, KEY, name, 5), 0);
		ck_assert_str_eq(name, "iqn.");
	}
	free(data);
}
END_TEST

#define N(a) (int)(sizeof(a) / sizeof((a)[0]))

int main(void)
{
	Suite *suite = suite_create("iscsi_pr");
	TCase *c = tcase_create("bytes");

	tcase_add_test(c, test_cdbs);
	tcase_add_loop_test(c, test_reservation, 0, N(reservations));
	tcase_add_loop_test(c, test_keys, 0, N(key_lists));
	tcase_add_loop_test(c, test_abilities, 0, N(abilities));
	tcase_add_loop_test(c, test_name, 0, N(names));
	suite_add_tcase(suite, c);
	return run_suite(suite);
}
