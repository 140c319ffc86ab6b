// SPDX-License-Identifier: Apache-2.0
/* Test vectors of RFC 3720 B.4; there the bytes of the CRC are listed in the order they are sent.
 */
#include "core/crc32c.h"
#include "tests/lib/run.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

/* The definition, bit by bit, to compare odd lengths and alignments with. */
static uint32_t slow(uint32_t crc, const uint8_t *p, size_t n)
{
	crc = ~crc;
	while (n--) {
		crc ^= *p++;
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
	}
	return ~crc;
}

START_TEST(test_vectors)
{
	/* An iSCSI SCSI READ (10) command PDU. */
	static const uint8_t pdu[48] = {
		0x01, 0xc0, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
		0x00, 0x00, 0x00, 0x00, 0x14, 0x00, 0x00, 0x00, 0x00, 0x00, 0x04, 0x00,
		0x00, 0x00, 0x00, 0x14, 0x00, 0x00, 0x00, 0x18, 0x28, 0x00, 0x00, 0x00,
		0x00, 0x00, 0x00, 0x00, 0x02, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
	};
	uint8_t buf[32];

	memset(buf, 0, 32);
	ck_assert_uint_eq(crc32c(0, buf, 32), 0x8a9136aa);
	memset(buf, 0xff, 32);
	ck_assert_uint_eq(crc32c(0, buf, 32), 0x62a8ab43);
	for (unsigned i = 0; i < 32; i++)
		buf[i] = (uint8_t)i;
	ck_assert_uint_eq(crc32c(0, buf, 32), 0x46dd794e);
	for (unsigned i = 0; i < 32; i++)
		buf[i] = (uint8_t)(31 - i);
	ck_assert_uint_eq(crc32c(0, buf, 32), 0x113fdb5c);
	ck_assert_uint_eq(crc32c(0, pdu, 48), 0xd9963a56);
	ck_assert_uint_eq(crc32c(0, "123456789", 9), 0xe3069283);
	ck_assert_uint_eq(crc32c(0, "", 0), 0);
}
END_TEST

START_TEST(test_pieces_and_alignments)
{
	uint8_t buf[300];

	for (unsigned i = 0; i < sizeof(buf); i++)
		buf[i] = (uint8_t)(i * 37 + 11);
	for (size_t start = 0; start < 9; start++)
		for (size_t n = 0; start + n <= sizeof(buf); n += 1 + n / 9)
			ck_assert_uint_eq(crc32c(0, buf + start, n), slow(0, buf + start, n));
	for (size_t cut = 0; cut <= sizeof(buf); cut++)
		ck_assert_uint_eq(crc32c(crc32c(0, buf, cut), buf + cut, sizeof(buf) - cut),
				  crc32c(0, buf, sizeof(buf)));
}
END_TEST

int main(void)
{
	Suite *s = suite_create("crc32c");
	TCase *tc = tcase_create("crc32c");

	tcase_add_test(tc, test_vectors);
	tcase_add_test(tc, test_pieces_and_alignments);
	suite_add_tcase(s, tc);
	return run_suite(s);
}
