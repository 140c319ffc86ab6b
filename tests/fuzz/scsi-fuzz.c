// SPDX-License-Identifier: Apache-2.0
/*
 * What a target answers. An input is a list of
 *
 *	u8 how the command ends, u16 length, that much data
 *
 * Each data alone goes to every parser there is; then all of them, in turn, are the answers to
 * whatever iscsi_probe() asks. iscsi_conn_run() is ours here (the linker's --wrap), the rest is
 * the product's. No length is believed, and what is learned is within what the stack above takes.
 */
#include <errno.h>
#include <stdlib.h>

#include "core/cleanup.h"
#include "core/range.h"
#include "tests/fuzz/fuzz.h"
#include "transport/iscsi_probe.h"

#define MIB (1u << 20)
#define LUNS 16

const unsigned fuzz_runs = 60000;

static void check_words(const char *text, size_t size)
{
	size_t n = strnlen(text, size);

	fuzz_check(n < size);
	for (size_t i = 0; i < n; i++)
		fuzz_check(text[i] > 0x20 && text[i] < 0x7f);
}

/* ---- each parser ---- */

static void check_sense(const uint8_t *data, size_t length)
{
	struct iscsi_sense s;
	struct iscsi_verdict v;

	if (iscsi_scsi_sense(data, length, &s))
		fuzz_check(length >= 3 && s.key <= 0xf);
	else
		fuzz_check(!s.key && !s.code && !s.deferred);
	for (unsigned status = 0; status < 0x100; status++) {
		v = iscsi_scsi_judge(status, &s);
		fuzz_check(v.what && v.what[0]);
		fuzz_check((v.error < 0) ==
			   (v.action == ISCSI_FAIL || v.action == ISCSI_RETRY_LIMITED ||
			    v.action == ISCSI_UNSUPPORTED));
		/* Good is what says so, or a recovered error. */
		if (v.action == ISCSI_DONE)
			fuzz_check(status == 0 || status == 4 ||
				   (status == 2 && s.key <= 1 && !s.deferred && (s.key || s.code)));
	}
}

static void check_capacity(int r, const struct iscsi_capacity *c)
{
	if (r < 0) {
		fuzz_check(r == -EBADMSG || r == -ENOTSUP || r == -EOVERFLOW);
		fuzz_check(c->blocks == 77);
		return;
	}
	fuzz_check(is_pow2(c->block_bytes) && c->block_bytes >= 512 && c->block_bytes <= 4096);
	fuzz_check(c->blocks && c->blocks <= INT64_MAX / c->block_bytes);
}

static void check_pages(const uint8_t *data, size_t length)
{
	struct iscsi_provisioning p;
	struct iscsi_limits limits;
	struct iscsi_inquiry inquiry;
	struct iscsi_mode mode;
	int r = iscsi_scsi_mode(data, length, &mode);

	fuzz_check(r == 0 || r == -EBADMSG);
	if (r == 0 && !mode.caching_page)
		fuzz_check(mode.write_cache);
	r = iscsi_scsi_limits(data, length, &limits);
	fuzz_check(r == 0 ? length >= 4 && data[1] == 0xb0 : r == -EBADMSG);
	r = iscsi_scsi_provisioning(data, length, &p);
	fuzz_check(r == 0 ? length >= 6 && data[1] == 0xb2 : r == -EBADMSG);
	if (iscsi_scsi_inquiry(data, length, &inquiry) == 0) {
		check_words(inquiry.vendor, sizeof(inquiry.vendor));
		check_words(inquiry.product, sizeof(inquiry.product));
	}
}

/* Into rooms of several sizes, each of which ends where its memory ends. */
static void check_texts(const uint8_t *data, size_t length)
{
	static const size_t sizes[] = { 1, 2, 5, 8, 20, 131, 600 };

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		cleanup_free char *text = fuzz_alloc(sizes[i]);

		if (iscsi_scsi_serial(data, length, text, sizes[i]) == 0)
			check_words(text, sizes[i]);
		if (iscsi_scsi_designators(data, length, text, sizes[i]) == 0)
			check_words(text, sizes[i]);
	}
}

static void check_luns(const uint8_t *data, size_t length)
{
	for (unsigned max = 0; max <= LUNS; max += LUNS / 2) {
		cleanup_free uint16_t *lun = fuzz_alloc(max * sizeof(*lun));
		int n = iscsi_scsi_luns(data, length, lun, max);

		fuzz_check(n == -EBADMSG || (n >= 0 && n <= (int)max));
		for (int i = 0; i < n; i++)
			fuzz_check(lun[i] < 16384 && iscsi_scsi_lun_field(lun[i]) <= 0x7fff);
	}
}

static void check_negotiated(const uint8_t *data, size_t length)
{
	cleanup_free char *line = fuzz_text(data, length);
	struct iscsi_negotiated n;

	iscsi_negotiated_init(&n);
	iscsi_negotiated_line(&n, line);
	fuzz_check(n.first_burst >= 512 && n.first_burst < 1u << 24);
	fuzz_check(n.max_burst >= 512 && n.max_burst < 1u << 24);
	fuzz_check(n.target_segment >= 512 && n.target_segment < 1u << 24);
	fuzz_check(n.portal_group <= UINT16_MAX || n.portal_group == ISCSI_GROUP_UNKNOWN);
	for (uint32_t sector = 512; sector <= 4096; sector *= 2) {
		uint32_t one = iscsi_negotiated_one_trip(&n, sector);

		fuzz_check(one >= sector && one <= MIB && one % sector == 0);
	}
}

static void check_parsers(const uint8_t *data, size_t length)
{
	struct iscsi_capacity c = { .blocks = 77 };

	check_sense(data, length);
	check_capacity(iscsi_scsi_capacity16(data, length, &c), &c);
	c.blocks = 77;
	check_capacity(iscsi_scsi_capacity10(data, length, &c), &c);
	check_pages(data, length);
	check_texts(data, length);
	check_luns(data, length);
	check_negotiated(data, length);
}

/* ---- the whole ---- */

static struct fuzz_input answers;
static struct scsi_task *last;

enum ending { GOOD, REFUSED, RESET, SILENT, ENDINGS };

/* As iscsi_conn_run() would: a refusal comes with sense data, which lie behind their length. */
int __wrap_iscsi_conn_run(struct iscsi_conn *conn, struct scsi_task *task, uint64_t deadline_ns,
			  struct scsi_task **ret_task, struct iscsi_sense *ret_sense);

int __wrap_iscsi_conn_run(struct iscsi_conn *conn, struct scsi_task *task, uint64_t deadline_ns,
			  struct scsi_task **ret_task, struct iscsi_sense *ret_sense)
{
	unsigned how = (unsigned)fuzz_take(&answers, 1) % ENDINGS;
	size_t want = fuzz_take(&answers, 2), length;
	const uint8_t *at = fuzz_take_bytes(&answers, want, &length);

	(void)conn;
	(void)deadline_ns;
	fuzz_check(task);
	if (last)
		scsi_free_scsi_task(last);
	last = task;
	/* libiscsi cuts what comes to what was asked for. */
	length = MIN(length, how == GOOD ? (size_t)task->expxferlen : length);
	task->datain.data = length ? malloc(length) : NULL;
	task->datain.size = (int)length;
	if (length)
		memcpy(task->datain.data, at, length);
	*ret_sense = (struct iscsi_sense){ 0 };
	switch (how) {
	case GOOD:
		*ret_task = task;
		return 0;
	case REFUSED:
		*ret_sense = iscsi_conn_sense(task);
		return -EREMOTEIO;
	case RESET:
		return -ECONNRESET;
	default:
		return -ETIMEDOUT;
	}
}

static void check_lun(const struct iscsi_lun *lun)
{
	fuzz_check(is_pow2(lun->sector_bytes) && lun->sector_bytes >= 512 &&
		   lun->sector_bytes <= 4096);
	fuzz_check(lun->size_bytes && lun->size_bytes <= INT64_MAX &&
		   lun->size_bytes % lun->sector_bytes == 0);
	fuzz_check(is_pow2(lun->discard_align_bytes) &&
		   lun->discard_align_bytes >= lun->sector_bytes &&
		   lun->discard_align_bytes <= 1u << 30);
	fuzz_check(lun->write_cache || lun->cache_said);
	check_words(lun->vendor, sizeof(lun->vendor));
	check_words(lun->product, sizeof(lun->product));
	fuzz_check(memchr(lun->identity, '\0', sizeof(lun->identity)));
	fuzz_check(strncmp(lun->identity, "target=iqn.x lun=7 serial=", 26) == 0);
	fuzz_check(strstr(lun->identity, " id="));
}

static void check_probe(const uint8_t *data, size_t size)
{
	struct iscsi_conn conn = { .reason = "reset" };
	struct err err = { .text = "" };
	struct iscsi_lun lun;
	int r;

	answers = (struct fuzz_input){ data, size };
	r = iscsi_probe(&conn, "iqn.x", 7, UINT64_MAX, &lun, &err);
	if (r == 0)
		check_lun(&lun);
	else
		fuzz_check(r < 0 && err.text[0]);
	if (last)
		scsi_free_scsi_task(steal_ptr(last));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = { data, size };

	while (in.left) {
		size_t length, want;
		const uint8_t *at;
		uint8_t *copy;

		(void)fuzz_take(&in, 1);
		want = fuzz_take(&in, 2);
		at = fuzz_take_bytes(&in, want, &length);
		copy = malloc(length ? length : 1);
		fuzz_check(copy);
		if (length)
			memcpy(copy, at, length);
		check_parsers(copy, length);
		free(copy);
	}
	check_probe(data, size);
	return 0;
}

/* ---- seeds: the answers of a thin disk, of an old one, of none ---- */

static void put(struct fuzz_output *out, enum ending how, const void *data, size_t length)
{
	fuzz_put(out, how, 1);
	fuzz_put(out, length, 2);
	fuzz_put_bytes(out, data, length);
}

#define PUT(out, how, ...)                                                                         \
	do {                                                                                       \
		static const uint8_t bytes[] = { __VA_ARGS__ };                                    \
		put(out, how, bytes, sizeof(bytes));                                               \
	} while (0)

static void put_inquiry(struct fuzz_output *out, uint8_t peripheral)
{
	uint8_t inquiry[96] = { peripheral, 0, 5, 2, 91 };

	memcpy(inquiry + 8, "ACME    Disk of bytes   0001", 28);
	put(out, GOOD, inquiry, sizeof(inquiry));
}

static void put_text(struct fuzz_output *out, enum ending how, const char *text)
{
	put(out, how, text, strlen(text));
}

void fuzz_seeds(void)
{
	static const char *const login[] = {
		"FirstBurstLength=65536", "MaxBurstLength=262144", "MaxRecvDataSegmentLength=8192",
		"InitialR2T=No",          "ImmediateData=No",      "TargetPortalGroupTag=1",
	};
	struct fuzz_output out = { 0 };
	uint8_t limits[64] = { 0, 0xb0, 0, 60, [31] = 8, [32] = 0x80, [42] = 1 };

	put_inquiry(&out, 0);
	put(&out, GOOD, NULL, 0); /* TEST UNIT READY */
	PUT(&out, GOOD, 0, 0, 0, 1, 0x80, 0, 0, 2, 0, 0, 2, 0, 0, 0, 0xc0, 0, 0, 0, 0, 0); /* 16 */
	put(&out, GOOD, limits, sizeof(limits));
	PUT(&out, GOOD, 0, 0xb2, 0, 4, 0, 0xe4, 0, 0);
	PUT(&out, GOOD, 23, 0, 0x10, 0, 0x08, 0x12, 0x04, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
	    0, 0, 0);
	PUT(&out, GOOD, 0, 0x80, 0, 8, ' ', 'S', 'N', '4', '7', '1', '1', 0);
	PUT(&out, GOOD, 0, 0x83, 0, 48, /* naa, t10, of the port, name */
	    1, 3, 0, 8, 0x60, 1, 2, 3, 4, 5, 6, 7, 2, 1, 0, 4, 'A', 'C', 'M', 'E', 1, 0x94, 0, 4, 0,
	    0, 0, 1, 3, 8, 0, 8, 'i', 'q', 'n', '.', 'a', ' ', 'b', 0, 1, 2, 0, 0);
	fuzz_put_seed(&out);

	put_inquiry(&out, 0); /* READ CAPACITY (16) refused, (10) answered; nothing else known */
	put(&out, GOOD, NULL, 0);
	PUT(&out, REFUSED, 0, 18, 0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x20, 0, 0, 0, 0, 0);
	PUT(&out, GOOD, 0, 0, 0xff, 0xff, 0, 0, 0x10, 0);
	for (unsigned i = 0; i < 5; i++)
		PUT(&out, REFUSED, 0, 8, 0x72, 5, 0x24, 0, 0, 0, 0, 0);
	fuzz_put_seed(&out);

	put_inquiry(&out, 0x7f); /* no unit here; there are others */
	PUT(&out, GOOD, 0, 0, 0, 24, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0,
	    0x41, 0, 0, 0, 0, 0, 0, 0);
	fuzz_put_seed(&out);

	put_inquiry(&out, 5); /* a DVD drive */
	PUT(&out, REFUSED, 0, 18, 0x71, 0, 3, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x0c, 0, 0, 0, 0, 0);
	put(&out, RESET, NULL, 0);
	put(&out, SILENT, NULL, 0);
	fuzz_put_seed(&out);

	for (size_t i = 0; i < ARRAY_SIZE(login); i++) {
		char line[80];

		snprintf(line, sizeof(line), "TargetLoginReply: %s", login[i]);
		put_text(&out, GOOD, line);
	}
	fuzz_put_seed(&out);
}
