// SPDX-License-Identifier: Apache-2.0
/* What SCSI answers mean, as tables; and that no length a target sends is believed. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/cleanup.h"
#include "transport/iscsi_scsi.h"
#include "tests/lib/run.h"

static const struct {
	unsigned status;
	struct iscsi_sense sense;
	enum iscsi_action action;
	int error;
} judgements[] = {
	{ 0x00, { .key = 0 }, ISCSI_DONE, 0 },
	{ 0x04, { .key = 0 }, ISCSI_DONE, 0 },
	{ 0x08, { .key = 0 }, ISCSI_RETRY_LATER, 0 },
	{ 0x28, { .key = 0 }, ISCSI_RETRY_LATER, 0 },
	{ 0x18, { .key = 0 }, ISCSI_CONFLICT, -EACCES },
	{ 0x30, { .key = 0 }, ISCSI_RETRY_LIMITED, -EIO },
	{ 0x40, { .key = 0 }, ISCSI_RETRY, 0 },
	{ 0x77, { .key = 0 }, ISCSI_FAIL, -EIO },
	{ 0x0f000001, { .key = 0 }, ISCSI_FAIL, -EIO },
	{ 0x02, { .key = 0 }, ISCSI_RETRY_LIMITED, -EIO },
	{ 0x02, { .key = 1, .code = 0x1700 }, ISCSI_DONE, 0 },
	{ 0x02, { .key = 2, .code = 0x0401 }, ISCSI_RETRY_LATER, 0 },
	{ 0x02, { .key = 2, .code = 0x3a00 }, ISCSI_FAIL, -EIO },
	{ 0x02, { .key = 3, .code = 0x1100 }, ISCSI_FAIL, -EIO },
	{ 0x02, { .key = 4, .code = 0x4400 }, ISCSI_FAIL, -EIO },
	{ 0x02, { .key = 5, .code = 0x2000 }, ISCSI_UNSUPPORTED, -EIO },
	{ 0x02, { .key = 5, .code = 0x2100 }, ISCSI_FAIL, -EIO },
	{ 0x02, { .key = 5, .code = 0x2500 }, ISCSI_RECONNECT, 0 },
	{ 0x02, { .key = 6, .code = 0x2900 }, ISCSI_POWER_ON, 0 },
	{ 0x02, { .key = 6, .code = 0x2907 }, ISCSI_POWER_ON, 0 },
	{ 0x02, { .key = 6, .code = 0x2a01 }, ISCSI_IDENTIFY, 0 },
	{ 0x02, { .key = 6, .code = 0x2a03 }, ISCSI_RESERVATION, 0 },
	{ 0x02, { .key = 6, .code = 0x2a05 }, ISCSI_RESERVATION, 0 },
	{ 0x02, { .key = 6, .code = 0x2a09 }, ISCSI_READ_CAPACITY, 0 },
	{ 0x02, { .key = 6, .code = 0x3f0e }, ISCSI_IDENTIFY, 0 },
	{ 0x02, { .key = 6, .code = 0x2800 }, ISCSI_RETRY, 0 },
	{ 0x02, { .key = 7, .code = 0x2700 }, ISCSI_FAIL, -EROFS },
	{ 0x02, { .key = 7, .code = 0x2707 }, ISCSI_RETRY_LATER, 0 },
	{ 0x02, { .key = 0xb, .code = 0x4700 }, ISCSI_RETRY_LIMITED, -EIO },
	{ 0x02, { .key = 0xe, .code = 0x1d00 }, ISCSI_FAIL, -EIO },
	{ 0x02, { .key = 3, .code = 0x0c00, .deferred = true }, ISCSI_POWER_ON, 0 },
	{ 0x02, { .key = 1, .code = 0x0c01, .deferred = true }, ISCSI_POWER_ON, 0 },
};

START_TEST(test_judge)
{
	struct iscsi_verdict v = iscsi_scsi_judge(judgements[_i].status, &judgements[_i].sense);

	ck_assert_int_eq(v.action, judgements[_i].action);
	ck_assert_int_eq(v.error, judgements[_i].error);
	ck_assert_ptr_nonnull(v.what);
	/* Turned away at the door, or perhaps tried. */
	if (v.action != ISCSI_DONE && v.action != ISCSI_POWER_ON && v.action != ISCSI_FAIL)
		ck_assert_int_eq(v.begun,
				 judgements[_i].status == 0x40 || (judgements[_i].status == 0x02 &&
								   judgements[_i].sense.key != 6));
}
END_TEST

/* A copy that ends exactly where the data ends, so that a sanitizer sees one byte too many. */
static uint8_t *exact(const uint8_t *data, size_t length)
{
	uint8_t *copy = malloc(length ? length : 1);

	memcpy(copy, data, length);
	return copy;
}

START_TEST(test_sense)
{
	static const uint8_t fixed[18] = { 0x70, 0, 6, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x29, 0x01 };
	static const uint8_t descriptor[8] = { 0x72, 0x05, 0x24, 0x00 };
	static const uint8_t late_fixed[18] = {
		0x71, 0, 3, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x0c, 0x00
	};
	static const uint8_t late_descriptor[8] = { 0x73, 0x03, 0x0c, 0x00 };
	struct iscsi_sense s;

	ck_assert(iscsi_scsi_sense(fixed, 18, &s));
	ck_assert_uint_eq(s.key, 6);
	ck_assert_uint_eq(s.code, 0x2901);
	ck_assert(!s.deferred);
	ck_assert(iscsi_scsi_sense(late_fixed, 18, &s) && s.deferred);
	ck_assert(iscsi_scsi_sense(late_descriptor, 8, &s) && s.deferred);
	ck_assert(iscsi_scsi_sense(descriptor, 8, &s));
	ck_assert_uint_eq(s.key, 5);
	ck_assert_uint_eq(s.code, 0x2400);
	ck_assert(!s.deferred);
	for (size_t n = 0; n <= 18; n++) {
		uint8_t *d = exact(fixed, n);

		ck_assert_int_eq(iscsi_scsi_sense(d, n, &s), n >= 3);
		ck_assert_uint_eq(s.code, n >= 14 ? 0x2901 : 0);
		free(d);
	}
	for (size_t n = 0; n <= 8; n++) {
		uint8_t *d = exact(descriptor, n);

		ck_assert_int_eq(iscsi_scsi_sense(d, n, &s), n >= 4);
		free(d);
	}
}
END_TEST

START_TEST(test_capacity)
{
	/* 3 TiB and 3 sectors, thin, unmapped blocks read as zeroes */
	uint8_t d[32] = { 0, 0, 0, 1, 0x80, 0, 0, 2, 0, 0, 2, 0, 0, 0, 0xc0, 0 };
	uint8_t ten[8] = { 0, 0, 0xff, 0xff, 0, 0, 0x10, 0 };
	struct iscsi_capacity c;

	ck_assert_int_eq(iscsi_scsi_capacity16(d, 32, &c), 0);
	ck_assert_uint_eq(c.blocks, (3ull << 31) + 3);
	ck_assert_uint_eq(c.block_bytes, 512);
	ck_assert(c.thin && c.reads_zero);
	for (size_t n = 0; n < 12; n++) {
		uint8_t *copy = exact(d, n);

		ck_assert_int_eq(iscsi_scsi_capacity16(copy, n, &c), -EBADMSG);
		free(copy);
	}
	d[12] = 1; /* protection information */
	ck_assert_int_eq(iscsi_scsi_capacity16(d, 32, &c), -ENOTSUP);
	d[12] = 0;
	d[11] = 8; /* 520-byte sectors */
	ck_assert_int_eq(iscsi_scsi_capacity16(d, 32, &c), -ENOTSUP);
	d[11] = 0;
	memset(d, 0xff, 8);
	ck_assert_int_eq(iscsi_scsi_capacity16(d, 32, &c), -EOVERFLOW);
	d[0] = 0x7f;
	ck_assert_int_eq(iscsi_scsi_capacity16(d, 32, &c), -EOVERFLOW);

	ck_assert_int_eq(iscsi_scsi_capacity10(ten, 8, &c), 0);
	ck_assert_uint_eq(c.blocks, 65536);
	ck_assert_uint_eq(c.block_bytes, 4096);
	ck_assert_int_eq(iscsi_scsi_capacity10(ten, 7, &c), -EBADMSG);
	memset(ten, 0xff, 4);
	ck_assert_int_eq(iscsi_scsi_capacity10(ten, 8, &c), -EOVERFLOW);
}
END_TEST

START_TEST(test_limits)
{
	uint8_t d[64] = { 0, 0xb0, 0, 60 };
	struct iscsi_limits l;

	d[31] = 8;
	d[32] = 0x80;
	d[35] = 4;
	d[42] = 0x10;
	ck_assert_int_eq(iscsi_scsi_limits(d, 64, &l), 0);
	ck_assert_uint_eq(l.unmap_granularity, 8);
	ck_assert(!l.unmap_aligned_at_zero);
	ck_assert_uint_eq(l.write_same_blocks, 0x1000);
	d[35] = 0;
	ck_assert_int_eq(iscsi_scsi_limits(d, 64, &l), 0);
	ck_assert(l.unmap_aligned_at_zero);
	/* Cut anywhere: fewer fields, or none, but never more than was sent. */
	for (size_t n = 0; n <= 64; n++) {
		uint8_t *copy = exact(d, n);
		int r = iscsi_scsi_limits(copy, n, &l);

		ck_assert_int_eq(r, n < 4 ? -EBADMSG : 0);
		if (r == 0 && n < 44)
			ck_assert_uint_eq(l.write_same_blocks, 0);
		free(copy);
	}
	d[1] = 0xb1;
	ck_assert_int_eq(iscsi_scsi_limits(d, 64, &l), -EBADMSG);
}
END_TEST

START_TEST(test_provisioning)
{
	static const uint8_t d[8] = { 0, 0xb2, 0, 4, 0, 0xe4, 0, 0 };
	struct iscsi_provisioning p;

	ck_assert_int_eq(iscsi_scsi_provisioning(d, 8, &p), 0);
	ck_assert(p.unmap && p.write_same && p.reads_zero);
	for (size_t n = 0; n < 6; n++) {
		uint8_t *copy = exact(d, n);

		ck_assert_int_eq(iscsi_scsi_provisioning(copy, n, &p), -EBADMSG);
		free(copy);
	}
}
END_TEST

START_TEST(test_mode)
{
	/* header: WP and DPOFUA; one block descriptor of 8; page 1; page 8 with WCE */
	static const uint8_t d[] = { 31,   0,    0x90, 8, 0, 0, 0, 0, 0, 0, 2, 0, 0x01, 2, 0xff,
				     0xff, 0x08, 12,   4, 0, 0, 0, 0, 0, 0, 0, 0, 0,    0, 0 };
	uint8_t *copy;
	struct iscsi_mode m;

	ck_assert_int_eq(iscsi_scsi_mode(d, sizeof(d), &m), 0);
	ck_assert(m.write_protected && m.fua && m.caching_page && m.write_cache);
	copy = exact(d, sizeof(d));
	copy[18] = 0;
	ck_assert_int_eq(iscsi_scsi_mode(copy, sizeof(d), &m), 0);
	ck_assert(m.caching_page && !m.write_cache);
	free(copy);
	for (size_t n = 0; n < sizeof(d); n++) {
		copy = exact(d, n);
		ck_assert_int_eq(iscsi_scsi_mode(copy, n, &m), n < 4 ? -EBADMSG : 0);
		if (n >= 4 && n < 19)
			ck_assert(!m.caching_page && m.write_cache);
		free(copy);
	}
}
END_TEST

START_TEST(test_inquiry_and_serial)
{
	uint8_t d[36] = "\x00\x00\x05\x02\x1f\x00\x00\x00IET     VIRTUAL\x01"
			"DISK    0001";
	static const uint8_t serial[] = { 0, 0x80, 0, 6, ' ', 'A', ' ', '1', 0x07, ' ' };
	struct iscsi_inquiry q;
	char text[16];

	ck_assert_int_eq(iscsi_scsi_inquiry(d, 36, &q), 0);
	ck_assert_str_eq(q.vendor, "IET");
	ck_assert_str_eq(q.product, "VIRTUAL.DISK");
	ck_assert_int_eq(iscsi_scsi_inquiry(d, 35, &q), -EBADMSG);
	d[0] = 0x7f;
	ck_assert_int_eq(iscsi_scsi_inquiry(d, 36, &q), 0);
	ck_assert_uint_eq(q.qualifier, 3);

	ck_assert_int_eq(iscsi_scsi_serial(serial, sizeof(serial), text, sizeof(text)), 0);
	ck_assert_str_eq(text, "A_1.");
	ck_assert_int_eq(iscsi_scsi_serial(serial, sizeof(serial), text, 3), 0);
	ck_assert_str_eq(text, "A_");
	/* It says 6 bytes and brings 2. */
	ck_assert_int_eq(iscsi_scsi_serial(serial, 6, text, sizeof(text)), 0);
	ck_assert_str_eq(text, "A");
	ck_assert_int_eq(iscsi_scsi_serial(serial, 3, text, sizeof(text)), -EBADMSG);
}
END_TEST

START_TEST(test_designators)
{
	static const uint8_t d[] = {
		0,    0x83, 0,    41,   0x02, 0x01, 0, 4, 'I', 'E',  'T',  '1', 0x01, 0x03,
		0,    8,    0x60, 0x01, 0x40, 0x5a, 1, 2, 3,   4, /* NAA */
		0x01, 0x14, 0,    4,    0,    0,    0, 1,         /* a port's: left out */
		0x01, 0x02, 0,    5,    1,    2,    3, 4, 5,   0x01, 0x03, 0,   200, /* longer than
											the page */
	};
	char text[64];

	ck_assert_int_eq(iscsi_scsi_designators(d, sizeof(d), text, sizeof(text)), 0);
	ck_assert_str_eq(text, "t10.IET1,naa.6001405a01020304,eui.0102030405");
	/* What does not fit is left out whole. */
	ck_assert_int_eq(iscsi_scsi_designators(d, sizeof(d), text, 24), 0);
	ck_assert_str_eq(text, "t10.IET1,eui.0102030405");
	for (size_t n = 0; n < sizeof(d); n++) {
		uint8_t *copy = exact(d, n);

		ck_assert_int_eq(iscsi_scsi_designators(copy, n, text, sizeof(text)),
				 n < 4 ? -EBADMSG : 0);
		free(copy);
	}
}
END_TEST

START_TEST(test_luns)
{
	uint8_t d[8 + 4 * 8] = { 0, 0, 0, 32 };
	uint16_t luns[4];

	d[8 + 1] = 7;
	d[16] = 0x41; /* flat: 0x123 */
	d[17] = 0x23;
	d[24] = 0xc1; /* extended: not ours */
	d[33] = 9;
	ck_assert_int_eq(iscsi_scsi_luns(d, sizeof(d), luns, 4), 3);
	ck_assert_uint_eq(luns[0], 7);
	ck_assert_uint_eq(luns[1], 0x123);
	ck_assert_uint_eq(luns[2], 9);
	ck_assert_int_eq(iscsi_scsi_luns(d, sizeof(d), luns, 1), 1);
	memset(d, 0xff, 4);
	ck_assert_int_eq(iscsi_scsi_luns(d, 16, luns, 4), 1);
	ck_assert_int_eq(iscsi_scsi_luns(d, 7, luns, 4), -EBADMSG);
	ck_assert_int_eq(iscsi_scsi_lun_field(255), 255);
	ck_assert_int_eq(iscsi_scsi_lun_field(256), 0x4100);
}
END_TEST

START_TEST(test_negotiated)
{
	struct iscsi_negotiated n;

	/* tgt and LIO as shipped */
	iscsi_negotiated_init(&n);
	iscsi_negotiated_line(&n, "TargetLoginReply: InitialR2T=Yes [iqn.x:y]");
	iscsi_negotiated_line(&n, "TargetLoginReply: FirstBurstLength=65536 [iqn.x:y]");
	iscsi_negotiated_line(&n, "TargetLoginReply: MaxRecvDataSegmentLength=8192 [iqn.x:y]");
	iscsi_negotiated_line(&n, "TargetLoginReply: TargetPortalGroupTag=3 [iqn.x:y]");
	ck_assert_uint_eq(n.portal_group, 3);
	ck_assert_uint_eq(iscsi_negotiated_one_trip(&n, 512), 8192);
	/* tuned */
	iscsi_negotiated_line(&n, "TargetLoginReply: InitialR2T=No [iqn.x:y]");
	iscsi_negotiated_line(&n, "TargetLoginReply: FirstBurstLength=262144");
	ck_assert_uint_eq(iscsi_negotiated_one_trip(&n, 4096), 262144);
	/* nonsense leaves things as they are */
	iscsi_negotiated_line(&n, "TargetLoginReply: FirstBurstLength=99999999999");
	iscsi_negotiated_line(&n, "TargetLoginReply: FirstBurstLength=-5");
	iscsi_negotiated_line(&n, "TargetLoginReply: FirstBurstLength");
	iscsi_negotiated_line(&n, "InitialR2T=Yes");
	iscsi_negotiated_line(&n, "");
	ck_assert_uint_eq(iscsi_negotiated_one_trip(&n, 4096), 262144);
	/* a burst of no whole sectors, and one below a sector */
	iscsi_negotiated_line(&n, "TargetLoginReply: FirstBurstLength=10000");
	ck_assert_uint_eq(iscsi_negotiated_one_trip(&n, 4096), 8192);
	iscsi_negotiated_line(&n, "TargetLoginReply: FirstBurstLength=512");
	ck_assert_uint_eq(iscsi_negotiated_one_trip(&n, 4096), 4096);
	/* nothing goes without R2T */
	iscsi_negotiated_line(&n, "TargetLoginReply: InitialR2T=Yes");
	iscsi_negotiated_line(&n, "TargetLoginReply: ImmediateData=No");
	iscsi_negotiated_line(&n, "TargetLoginReply: MaxBurstLength=131072");
	ck_assert_uint_eq(iscsi_negotiated_one_trip(&n, 512), 131072);
}
END_TEST

int main(void)
{
	TCase *c = tcase_create("scsi");
	Suite *suite = suite_create("iscsi_scsi");

	tcase_add_loop_test(c, test_judge, 0, (int)ARRAY_SIZE(judgements));
	tcase_add_test(c, test_sense);
	tcase_add_test(c, test_capacity);
	tcase_add_test(c, test_limits);
	tcase_add_test(c, test_provisioning);
	tcase_add_test(c, test_mode);
	tcase_add_test(c, test_inquiry_and_serial);
	tcase_add_test(c, test_designators);
	tcase_add_test(c, test_luns);
	tcase_add_test(c, test_negotiated);
	suite_add_tcase(suite, c);
	return run_suite(suite);
}
