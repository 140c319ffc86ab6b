// SPDX-License-Identifier: Apache-2.0
/*
 * The two copies of the identity record, as found in a directory:
 *
 *	u8 flags: 1, 2 make the checksum of this copy right; 4, 8 it is there; 16 it may be short
 *	for each copy: u16 length, and its bytes up to the last that is not zero
 *
 * What is loaded is within its bounds, the better copy wins, and what is stored comes back the
 * same.
 */
#include <errno.h>
#include <stdlib.h>

#include "cache/identity.h"
#include "core/cleanup.h"
#include "core/crc32c.h"
#include "core/le.h"
#include "core/range.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/memdir.h"

#define COPY_BYTES 4096u
#define AT_CRC 12 /* docs/FORMAT.md, section 2 */
#define MIB (1ull << 20)

const unsigned fuzz_runs = 60000;

static const char *const name[] = { "identity.a", "identity.b" };

static void reseal(uint8_t *block)
{
	le_put(block + AT_CRC, 0, 4);
	le_put(block + AT_CRC, crc32c(0, block, COPY_BYTES), 4);
}

/* Put the copies of @in into the directory. */
static void make_copies(struct lio *lio, struct fuzz_input *in)
{
	unsigned flags = (unsigned)fuzz_take(in, 1);

	for (unsigned i = 0; i < 2; i++) {
		size_t want = fuzz_take(in, 2) % (COPY_BYTES + 1), length;
		const uint8_t *at = fuzz_take_bytes(in, want, &length);
		uint8_t block[COPY_BYTES] = { 0 };

		if (!(flags & 4u << i))
			continue;
		if (length)
			memcpy(block, at, length);
		if (flags & 1u << i)
			reseal(block);
		/* One that is short is damaged. */
		memdir_put(lio, name[i], block, flags & 0x10 ? length : COPY_BYTES);
	}
}

static void check_bounds(const struct cache_identity *id)
{
	fuzz_check(id->format_version >= 1 && id->format_version <= IDENTITY_FORMAT_VERSION);
	fuzz_check(id->features == 0);
	fuzz_check(id->generation > 0);
	fuzz_check(is_pow2(id->segment_bytes) && id->segment_bytes >= 2 * MIB &&
		   id->segment_bytes <= 64 * MIB);
	fuzz_check(memchr(id->url, '\0', sizeof(id->url)));
	fuzz_check(memchr(id->volume, '\0', sizeof(id->volume)));
	fuzz_check(memchr(id->owner_host, '\0', sizeof(id->owner_host)));
}

static void check_same(const struct cache_identity *a, const struct cache_identity *b)
{
	fuzz_check(a->format_version == b->format_version && a->features == b->features);
	fuzz_check(!memcmp(a->cache_uuid, b->cache_uuid, sizeof(a->cache_uuid)));
	fuzz_check(a->segment_bytes == b->segment_bytes && a->created_ns == b->created_ns);
	fuzz_check(!strcmp(a->url, b->url) && !strcmp(a->volume, b->volume));
	fuzz_check(a->size_bytes == b->size_bytes && a->sector_bytes == b->sector_bytes);
	fuzz_check(!memcmp(a->isid_random, b->isid_random, sizeof(a->isid_random)));
	fuzz_check(a->session_high_water == b->session_high_water);
	fuzz_check(a->reservation_key == b->reservation_key);
	fuzz_check(!strcmp(a->owner_host, b->owner_host));
	fuzz_check(a->limit_bytes == b->limit_bytes && a->clean == b->clean);
	fuzz_check(a->last_seq == b->last_seq);
	for (unsigned i = 0; i < IDENTITY_SAMPLES; i++)
		fuzz_check(a->sample[i].offset == b->sample[i].offset &&
			   a->sample[i].crc == b->sample[i].crc);
}

static void check_store(struct lio *lio, const struct cache_identity *id)
{
	struct cache_identity stored = *id, back;
	struct err err = { .text = "" };

	if (id->generation == UINT64_MAX) {
		fuzz_check(identity_store(lio, &stored) == -EOVERFLOW);
	} else {
		fuzz_check(identity_store(lio, &stored) == 0);
		fuzz_check(stored.generation == id->generation + 1);
	}
	fuzz_check(identity_load(lio, &back, &err) == 0);
	fuzz_check(back.generation == stored.generation);
	check_same(id, &back);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = { data, size };
	struct lio *lio = memdir_open();
	cleanup_free struct cache_identity *id = fuzz_alloc(sizeof(*id));
	struct err err = { .text = "" };
	int r;

	make_copies(lio, &in);
	id->generation = 77;
	r = identity_load(lio, id, &err);
	if (r == 0) {
		check_bounds(id);
		check_store(lio, id);
	} else {
		fuzz_check(r == -ENOENT || r == -EBADMSG || r == -EPROTONOSUPPORT);
		fuzz_check(err.text[0]);
		fuzz_check(id->generation == 77);
		/* What a newer nearblk wrote is not touched. */
		fuzz_check(r != -EPROTONOSUPPORT || identity_store(lio, id) == -EPROTONOSUPPORT);
	}
	lio_destroy(lio);
	return 0;
}

static void put_copy(struct fuzz_output *out, const uint8_t *block, size_t length)
{
	while (length && !block[length - 1])
		length--;
	fuzz_put(out, length, 2);
	fuzz_put_bytes(out, block, length);
}

void fuzz_seeds(void)
{
	struct lio *lio = memdir_open();
	struct cache_identity id = {
		.format_version = IDENTITY_FORMAT_VERSION,
		.cache_uuid = { 1, 2, 3, 4 },
		.segment_bytes = 2 * MIB,
		.created_ns = 1790000000ull * 1000000000,
		.url = "iscsi://host.example/iqn.2026-01.org.example:disk/1",
		.volume = "target=iqn.2026-01.org.example:disk lun=1 serial=4711 id=naa.5000",
		.size_bytes = 1ull << 40,
		.sector_bytes = 512,
		.isid_random = { 5, 6, 7, 8 },
		.session_high_water = 4,
		.reservation_key = 0x1122334455667788,
		.owner_host = "laptop",
		.limit_bytes = 1ull << 33,
		.last_seq = 99,
		.sample = { { .offset = 4096, .crc = 0xdeadbeef } },
	};
	struct fuzz_output out = { 0 };
	const uint8_t *block;
	size_t bytes;

	fuzz_check(identity_store(lio, &id) == 0);
	block = memdir_get(lio, name[0], &bytes);
	fuzz_check(block && bytes == COPY_BYTES);
	fuzz_put(&out, 0xf, 1);
	put_copy(&out, block, bytes);
	put_copy(&out, block, bytes);
	fuzz_put_seed(&out);
	fuzz_put(&out, 5, 1); /* one copy */
	put_copy(&out, block, bytes);
	fuzz_put_seed(&out);
	fuzz_put(&out, 0, 1); /* none */
	fuzz_put_seed(&out);
	lio_destroy(lio);
}
