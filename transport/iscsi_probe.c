// SPDX-License-Identifier: Apache-2.0
#include "transport/iscsi_probe.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/cleanup.h"
#include "core/clock.h"
#include "core/range.h"

#define LUNS_SHOWN 16

struct probe {
	struct iscsi_conn *conn;
	uint64_t deadline_ns;
	struct iscsi_sense sense;
	const uint8_t *data;
	size_t length;
	uint64_t rtt_ns;
};

static int ask(struct probe *p, struct scsi_task *task)
{
	uint64_t begin = clock_monotonic_ns(), took;
	struct scsi_task *answer;
	int r = iscsi_conn_run(p->conn, task, p->deadline_ns, &answer, &p->sense);

	if (r < 0)
		return r;
	took = clock_monotonic_ns() - begin;
	if (!p->rtt_ns || took < p->rtt_ns)
		p->rtt_ns = took;
	p->data = answer->datain.data;
	p->length = answer->datain.data ? (size_t)answer->datain.size : 0;
	return 0;
}

/* What only some targets have: a refusal is an answer, a lost connection is not. */
static int ask_optional(struct probe *p, struct scsi_task *task)
{
	int r = ask(p, task);

	if (r == -EREMOTEIO || r == -EBUSY) {
		p->length = 0;
		r = 0;
	}
	return r;
}

int iscsi_probe_attention(struct iscsi_conn *conn, uint64_t deadline_ns)
{
	struct probe p = { .conn = conn, .deadline_ns = deadline_ns };

	return ask_optional(&p, scsi_cdb_testunitready());
}

int iscsi_probe_luns(struct iscsi_conn *conn, uint64_t deadline_ns, uint16_t *ret, unsigned max)
{
	struct probe p = { .conn = conn, .deadline_ns = deadline_ns };
	int field = conn->lun_field, r;

	/* Addressed to LUN 0, which answers it even where there is no such unit (SPC-4 6.33). */
	conn->lun_field = 0;
	r = ask(&p, scsi_reportluns_cdb(0, 4096));
	conn->lun_field = field;
	return r < 0 ? r : iscsi_scsi_luns(p.data, p.length, ret, max);
}

static int no_such_lun(struct probe *p, uint16_t lun, struct err *err)
{
	uint16_t found[LUNS_SHOWN];
	char list[LUNS_SHOWN * 7 + 1] = "";
	int count = iscsi_probe_luns(p->conn, p->deadline_ns, found, LUNS_SHOWN), n = 0;

	for (int i = 0; i < count; i++)
		n += snprintf(list + n, sizeof(list) - (size_t)n, "%s%u", i ? ", " : "", found[i]);
	if (count > 0)
		return err_set(err, -ENODEV, "the target has no LUN %u; it has: %s", lun, list);
	return err_set(err, -ENODEV, "the target has no LUN %u%s", lun,
		       count == 0 ? ", and no other one either" : "");
}

static int probe_unit(struct probe *p, uint16_t lun, struct iscsi_lun *ret, struct err *err)
{
	struct iscsi_inquiry inquiry;
	int r = ask(p, scsi_cdb_inquiry(0, 0, 96));

	if (r == -EREMOTEIO)
		return no_such_lun(p, lun, err);
	if (r == 0)
		r = iscsi_scsi_inquiry(p->data, p->length, &inquiry);
	if (r < 0)
		return err_set(err, r, "LUN %u does not identify itself: %s", lun, strerror(-r));
	if (inquiry.qualifier != 0)
		return no_such_lun(p, lun, err);
	if (inquiry.type != 0)
		return err_set(err, -ENOTSUP,
			       "LUN %u is no disk (%s %s, SCSI device type %u); choose another LUN",
			       lun, inquiry.vendor, inquiry.product, inquiry.type);
	memcpy(ret->vendor, inquiry.vendor, sizeof(ret->vendor));
	memcpy(ret->product, inquiry.product, sizeof(ret->product));
	/* Takes the UNIT ATTENTION of a new session; a unit that is not ready yet gets its time. */
	r = ask(p, scsi_cdb_testunitready());
	if (r == -EREMOTEIO && p->sense.key == 5)
		return no_such_lun(p, lun, err);
	return r == -EREMOTEIO || r == -EBUSY ? 0 : r;
}

static int probe_capacity(struct probe *p, struct iscsi_lun *ret, bool *ret_thin)
{
	struct iscsi_capacity c;
	int r = ask(p, scsi_cdb_readcapacity16());

	if (r == 0) {
		r = iscsi_scsi_capacity16(p->data, p->length, &c);
	} else if (r == -EREMOTEIO) {
		r = ask(p, scsi_cdb_readcapacity10(0, 0));
		if (r == 0)
			r = iscsi_scsi_capacity10(p->data, p->length, &c);
	}
	if (r < 0)
		return r;
	ret->sector_bytes = c.block_bytes;
	ret->size_bytes = c.blocks * c.block_bytes;
	*ret_thin = c.thin;
	return 0;
}

/*
 * DISCARD promises zeroes. UNMAP alone is a hint that a target may ignore (SBC-3 5.28), so blocks
 * may keep their data; WRITE SAME with UNMAP writes what it does not unmap (5.47), and with LBPRZ
 * what it does unmap reads as zeroes. Only that qualifies, at any alignment.
 */
static int probe_provisioning(struct probe *p, bool thin, struct iscsi_lun *ret)
{
	struct iscsi_provisioning lbp;
	struct iscsi_limits limits;
	uint64_t granule;
	int r = ask_optional(p, scsi_cdb_inquiry(1, 0xb0, 255));

	ret->discard_align_bytes = ret->sector_bytes;
	if (r < 0)
		return r;
	if (iscsi_scsi_limits(p->data, p->length, &limits) == 0) {
		ret->write_same_blocks = limits.write_same_blocks;
		granule = (uint64_t)limits.unmap_granularity * ret->sector_bytes;
		if (limits.unmap_aligned_at_zero && is_pow2(granule) && granule <= 1u << 30)
			ret->discard_align_bytes = (uint32_t)granule;
	}
	if (!thin)
		return 0;
	r = ask_optional(p, scsi_cdb_inquiry(1, 0xb2, 255));
	if (r == 0 && iscsi_scsi_provisioning(p->data, p->length, &lbp) == 0)
		ret->discard = lbp.write_same && lbp.reads_zero;
	return r;
}

static int probe_mode(struct probe *p, struct iscsi_lun *ret)
{
	struct iscsi_mode mode = { .write_cache = true };
	int r = ask_optional(p, scsi_cdb_modesense6(1, SCSI_MODESENSE_PC_CURRENT,
						    SCSI_MODEPAGE_CACHING, 0, 252));

	/* A target without the page still says in the header whether it takes writes. */
	if (r == 0 && !p->length)
		r = ask_optional(p, scsi_cdb_modesense6(1, SCSI_MODESENSE_PC_CURRENT,
							SCSI_MODEPAGE_RETURN_ALL_PAGES, 0, 252));
	if (r < 0)
		return r;
	/* Nothing said: assume a cache that needs flushing, and no FUA. */
	(void)iscsi_scsi_mode(p->data, p->length, &mode);
	ret->write_protected = mode.write_protected;
	ret->write_cache = mode.write_cache;
	ret->cache_said = mode.caching_page;
	ret->fua = mode.fua;
	return 0;
}

int iscsi_probe_mode(struct iscsi_conn *conn, uint64_t deadline_ns, struct iscsi_lun *lun)
{
	struct probe p = { .conn = conn, .deadline_ns = deadline_ns };

	return probe_mode(&p, lun);
}

static int probe_identity(struct probe *p, const char *target, uint16_t lun, struct iscsi_lun *ret)
{
	char serial[128] = "", designators[131] = "";
	int r = ask_optional(p, scsi_cdb_inquiry(1, 0x80, 255));

	if (r < 0)
		return r;
	(void)iscsi_scsi_serial(p->data, p->length, serial, sizeof(serial));
	r = ask_optional(p, scsi_cdb_inquiry(1, 0x83, 1024));
	if (r < 0)
		return r;
	(void)iscsi_scsi_designators(p->data, p->length, designators, sizeof(designators));
	snprintf(ret->identity, sizeof(ret->identity), "target=%.223s lun=%u serial=%.127s id=%s",
		 target, lun, serial, designators);
	return 0;
}

int iscsi_probe(struct iscsi_conn *conn, const char *target, uint16_t lun, uint64_t deadline_ns,
		struct iscsi_lun *ret, struct err *err)
{
	struct probe p = { .conn = conn, .deadline_ns = deadline_ns };
	bool thin = false;
	int r;

	*ret = (struct iscsi_lun){ 0 };
	r = probe_unit(&p, lun, ret, err);
	if (r == -ENODEV || r == -ENOTSUP)
		return r;
	if (r == 0)
		r = probe_capacity(&p, ret, &thin);
	if (r == -ENOTSUP)
		return err_set(err, r,
			       "LUN %u has sectors of an unsupported size or with protection "
			       "information; 512 to 4096 bytes without it are supported",
			       lun);
	if (r == 0)
		r = probe_provisioning(&p, thin, ret);
	if (r == 0)
		r = probe_mode(&p, ret);
	if (r == 0)
		r = probe_identity(&p, target, lun, ret);
	ret->rtt_ns = p.rtt_ns;
	if (r == -ECANCELED)
		return r;
	if (r == -EBUSY)
		return err_set(err, r,
			       "LUN %u is reserved by another initiator, for reading too; end its "
			       "reservation there",
			       lun);
	if (r == -ETIMEDOUT)
		return err_set(err, r, "LUN %u does not answer%s", lun,
			       p.sense.key == 2 ? ": it is not ready" : "");
	if (r < 0)
		return err_set(err, r, "cannot learn about LUN %u: %s", lun,
			       r == -ECONNRESET ? conn->reason : strerror(-r));
	return 0;
}
