// SPDX-License-Identifier: Apache-2.0
/*
 * One copy is a block of 4096 bytes, little-endian; what is not named is zero:
 *
 *      0  magic "NBIDENT1"         80  size_bytes u64       136  url char[512]
 *      8  format_version u32       88  limit_bytes u64      648  volume char[512]
 *     12  crc32c u32               96  reservation_key u64 1160  owner_host char[256]
 *     16  features u64            104  segment_bytes u32   1416  samples, 16 of
 *     24  writer char[24]         108  sector_bytes u32           offset u64, crc u32, 0 u32
 *     48  generation u64          112  session_high_water u32
 *     56  cache_uuid u8[16]       116  isid_random u8[4]
 *     72  created_ns u64          120  clean u8, then 7 zero, 128 last_seq u64
 *   1672  log_incarnation u64
 *
 * The checksum is over all 4096 bytes with its own field zero. Bytes 0..47 keep
 * their place and meaning in every later format, so that any nearblk can say what it cannot read.
 *
 * A copy that is there is overwritten in place: that works on a full disk. Never the
 * better one first: at each moment one good copy is untouched. A copy that is not
 * there is made under another name and renamed, so that no power cut leaves a
 * directory whose only copy is half written.
 */
#include "cache/identity.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include "core/clock.h"
#include "core/crc32c.h"
#include "core/le.h"
#include "core/range.h"

#define COPY_BYTES 4096u
#define COPIES 2
#define MIB (1ull << 20)

static const char magic[8] = { 'N', 'B', 'I', 'D', 'E', 'N', 'T', '1' };
static const char *const copy_name[COPIES] = { "identity.a", "identity.b" };
static const char new_name[] = "identity.new";

enum {
	AT_MAGIC = 0,
	AT_VERSION = 8,
	AT_CRC = 12,
	AT_FEATURES = 16,
	AT_WRITER = 24,
	AT_GENERATION = 48,
	AT_UUID = 56,
	AT_CREATED = 72,
	AT_SIZE = 80,
	AT_LIMIT = 88,
	AT_KEY = 96,
	AT_SEGMENT = 104,
	AT_SECTOR = 108,
	AT_SESSIONS = 112,
	AT_ISID = 116,
	AT_CLEAN = 120,
	AT_LAST_SEQ = 128,
	AT_URL = 136,
	AT_VOLUME = 648,
	AT_HOST = 1160,
	AT_SAMPLES = 1416,
	AT_LOG = 1672,
	SAMPLE_BYTES = 16,
	WRITER_BYTES = 24,
};

enum copy_state { COPY_GOOD, COPY_MISSING, COPY_DAMAGED, COPY_NEWER };

struct copy {
	enum copy_state state;
	uint64_t generation;       /* GOOD, NEWER */
	uint32_t version;          /* GOOD, NEWER */
	uint64_t features;         /* GOOD, NEWER */
	char writer[WRITER_BYTES]; /* GOOD, NEWER; the nearblk that wrote it */
	struct cache_identity id;  /* GOOD */
};

/* Only up to the NUL: what lies behind it in memory is nobody's business. */
static void put_text(uint8_t *p, const char *text, size_t max)
{
	memcpy(p, text, strnlen(text, max - 1));
}

static bool get_text(char *text, const uint8_t *p, size_t max)
{
	memcpy(text, p, max);
	return memchr(text, '\0', max) != NULL;
}

static uint32_t checksum(const uint8_t *block)
{
	static const uint8_t zero[4];
	uint32_t crc = crc32c(0, block, AT_CRC);

	crc = crc32c(crc, zero, sizeof(zero));
	return crc32c(crc, block + AT_FEATURES, COPY_BYTES - AT_FEATURES);
}

static void encode(const struct cache_identity *id, uint8_t *block)
{
	memset(block, 0, COPY_BYTES);
	memcpy(block + AT_MAGIC, magic, sizeof(magic));
	le_put(block + AT_VERSION, id->format_version, 4);
	le_put(block + AT_FEATURES, id->features, 8);
	put_text(block + AT_WRITER, PACKAGE_VERSION, WRITER_BYTES);
	le_put(block + AT_GENERATION, id->generation, 8);
	memcpy(block + AT_UUID, id->cache_uuid, sizeof(id->cache_uuid));
	le_put(block + AT_CREATED, id->created_ns, 8);
	le_put(block + AT_SIZE, id->size_bytes, 8);
	le_put(block + AT_LIMIT, id->limit_bytes, 8);
	le_put(block + AT_KEY, id->reservation_key, 8);
	le_put(block + AT_SEGMENT, id->segment_bytes, 4);
	le_put(block + AT_SECTOR, id->sector_bytes, 4);
	le_put(block + AT_SESSIONS, id->session_high_water, 4);
	memcpy(block + AT_ISID, id->isid_random, sizeof(id->isid_random));
	block[AT_CLEAN] = id->clean;
	le_put(block + AT_LAST_SEQ, id->last_seq, 8);
	le_put(block + AT_LOG, id->log_incarnation, 8);
	put_text(block + AT_URL, id->url, sizeof(id->url));
	put_text(block + AT_VOLUME, id->volume, sizeof(id->volume));
	put_text(block + AT_HOST, id->owner_host, sizeof(id->owner_host));
	for (unsigned i = 0; i < IDENTITY_SAMPLES; i++) {
		uint8_t *p = block + AT_SAMPLES + i * SAMPLE_BYTES;

		le_put(p, id->sample[i].offset, 8);
		le_put(p + 8, id->sample[i].crc, 4);
	}
	le_put(block + AT_CRC, checksum(block), 4);
}

static bool decode_body(struct cache_identity *id, const uint8_t *block)
{
	bool whole = true;

	memcpy(id->cache_uuid, block + AT_UUID, sizeof(id->cache_uuid));
	id->created_ns = le_get(block + AT_CREATED, 8);
	id->size_bytes = le_get(block + AT_SIZE, 8);
	id->limit_bytes = le_get(block + AT_LIMIT, 8);
	id->reservation_key = le_get(block + AT_KEY, 8);
	id->segment_bytes = (uint32_t)le_get(block + AT_SEGMENT, 4);
	id->sector_bytes = (uint32_t)le_get(block + AT_SECTOR, 4);
	id->session_high_water = (uint32_t)le_get(block + AT_SESSIONS, 4);
	memcpy(id->isid_random, block + AT_ISID, sizeof(id->isid_random));
	id->clean = block[AT_CLEAN];
	id->last_seq = le_get(block + AT_LAST_SEQ, 8);
	id->log_incarnation = le_get(block + AT_LOG, 8);
	whole &= get_text(id->url, block + AT_URL, sizeof(id->url));
	whole &= get_text(id->volume, block + AT_VOLUME, sizeof(id->volume));
	whole &= get_text(id->owner_host, block + AT_HOST, sizeof(id->owner_host));
	for (unsigned i = 0; i < IDENTITY_SAMPLES; i++) {
		const uint8_t *p = block + AT_SAMPLES + i * SAMPLE_BYTES;

		id->sample[i].offset = le_get(p, 8);
		id->sample[i].crc = (uint32_t)le_get(p + 8, 4);
	}
	return whole && is_pow2(id->segment_bytes) && id->segment_bytes >= 2 * MIB &&
	       id->segment_bytes <= 64 * MIB;
}

static void decode(struct copy *c, const uint8_t *block)
{
	c->state = COPY_DAMAGED;
	if (memcmp(block + AT_MAGIC, magic, sizeof(magic)) ||
	    le_get(block + AT_CRC, 4) != checksum(block))
		return;
	c->version = (uint32_t)le_get(block + AT_VERSION, 4);
	c->features = le_get(block + AT_FEATURES, 8);
	c->generation = le_get(block + AT_GENERATION, 8);
	if (!get_text(c->writer, block + AT_WRITER, WRITER_BYTES))
		return;
	if (c->version > IDENTITY_FORMAT_VERSION || c->features) {
		c->state = COPY_NEWER;
		return;
	}
	c->id.format_version = c->version;
	c->id.features = c->features;
	c->id.generation = c->generation;
	if (c->version && c->generation && decode_body(&c->id, block))
		c->state = COPY_GOOD;
}

static void read_copy(struct lio *lio, const char *name, struct copy *c)
{
	uint8_t block[COPY_BYTES];
	struct lio_file *f;
	int r = lio_open(lio, name, 0, &f);

	*c = (struct copy){ .state = r == -ENOENT ? COPY_MISSING : COPY_DAMAGED };
	if (r < 0)
		return;
	r = lio_read_sync(lio, f, block, sizeof(block), 0);
	lio_close(lio, f);
	if (r == 0)
		decode(c, block);
}

static int say_newer(const struct copy *c, struct err *err)
{
	if (c->version > IDENTITY_FORMAT_VERSION)
		return err_set(
			err, -EPROTONOSUPPORT,
			"the cache directory has format %u and was written by nearblk %s; this "
			"nearblk %s reads formats up to %u: use nearblk %s or later",
			c->version, c->writer, PACKAGE_VERSION, IDENTITY_FORMAT_VERSION, c->writer);
	return err_set(
		err, -EPROTONOSUPPORT,
		"the cache directory (format %u, written by nearblk %s) uses features %#llx "
		"that this nearblk %s (formats up to %u) does not know: use nearblk %s or later",
		c->version, c->writer, (unsigned long long)c->features, PACKAGE_VERSION,
		IDENTITY_FORMAT_VERSION, c->writer);
}

int identity_load(struct lio *lio, struct cache_identity *ret, struct err *err)
{
	struct copy copy[COPIES];
	const struct copy *best = NULL;
	unsigned missing = 0;

	for (unsigned i = 0; i < COPIES; i++) {
		read_copy(lio, copy_name[i], &copy[i]);
		missing += copy[i].state == COPY_MISSING;
		/* A newer nearblk was here, whatever the other copy says. */
		if (copy[i].state == COPY_NEWER)
			return say_newer(&copy[i], err);
		if (copy[i].state == COPY_GOOD && (!best || copy[i].generation > best->generation))
			best = &copy[i];
	}
	if (best) {
		*ret = best->id;
		return 0;
	}
	if (missing == COPIES)
		return err_set(err, -ENOENT, "no cache here: neither %s nor %s is there",
			       copy_name[0], copy_name[1]);
	return err_set(
		err, -EBADMSG,
		"neither %s nor %s can be read: the identity of the cache is lost; restore one "
		"of them from a backup, or give another --cache-dir (unsent writes in this "
		"one are then not sent)",
		copy_name[0], copy_name[1]);
}

static int fill_random(void *p, size_t length)
{
	ssize_t n = getrandom(p, length, 0);

	if (n < 0)
		return -errno;
	return (size_t)n == length ? 0 : -EIO;
}

int identity_init(struct cache_identity *id, uint64_t limit_bytes)
{
	struct {
		uint8_t uuid[16];
		uint8_t isid[4];
		uint8_t key[8];
	} dice;
	uint64_t segment = 64 * MIB;
	int r = fill_random(&dice, sizeof(dice));

	if (r < 0)
		return r;
	/* Some 64 segments or more: eviction and reclaim work segment by segment. */
	while (segment > 2 * MIB && segment > limit_bytes / 64)
		segment /= 2;
	*id = (struct cache_identity){
		.format_version = IDENTITY_FORMAT_VERSION,
		.segment_bytes = (uint32_t)segment,
		.created_ns = clock_realtime_ns(),
		.limit_bytes = limit_bytes,
	};
	memcpy(id->cache_uuid, dice.uuid, sizeof(id->cache_uuid));
	id->cache_uuid[6] = (uint8_t)((dice.uuid[6] & 0x0f) | 0x40); /* RFC 4122 4.4: random */
	id->cache_uuid[8] = (uint8_t)((dice.uuid[8] & 0x3f) | 0x80);
	memcpy(id->isid_random, dice.isid, sizeof(id->isid_random));
	id->reservation_key = le_get(dice.key, sizeof(dice.key));
	if (!id->reservation_key)
		id->reservation_key = 1;
	for (unsigned i = 0; i < IDENTITY_SAMPLES; i++)
		id->sample[i].offset = UINT64_MAX;
	return 0;
}

static int write_and_close(struct lio *lio, struct lio_file *f, const uint8_t *block)
{
	int r = lio_write_sync(lio, f, block, COPY_BYTES, 0);

	if (r == 0)
		r = lio_fdatasync(lio, f);
	lio_close(lio, f);
	return r;
}

static int write_copy(struct lio *lio, const char *name, const uint8_t *block)
{
	struct lio_file *f;
	int r = lio_open(lio, name, 0, &f);

	if (r == 0)
		return write_and_close(lio, f, block);
	if (r != -ENOENT)
		return r;
	r = lio_open(lio, new_name, LIO_CREATE, &f);
	if (r < 0)
		return r;
	r = write_and_close(lio, f, block);
	if (r < 0)
		return r;
	r = lio_rename(lio, new_name, name);
	/* Now, not once for both: the other copy may be overwritten next. */
	return r < 0 ? r : lio_sync_dir(lio);
}

/* How much would be lost with it: what is worth least is overwritten first. */
static uint64_t worth(const struct copy *c)
{
	return c->state == COPY_GOOD ? c->generation : 0;
}

int identity_store(struct lio *lio, struct cache_identity *id)
{
	uint8_t block[COPY_BYTES];
	struct copy copy[COPIES];
	unsigned first;

	for (unsigned i = 0; i < COPIES; i++) {
		read_copy(lio, copy_name[i], &copy[i]);
		if (copy[i].state == COPY_NEWER)
			return -EPROTONOSUPPORT;
		id->generation = MAX(id->generation, worth(&copy[i]));
	}
	id->generation++;
	encode(id, block);
	first = worth(&copy[0]) <= worth(&copy[1]) ? 0 : 1;
	for (unsigned i = 0; i < COPIES; i++) {
		int r = write_copy(lio, copy_name[(first + i) % COPIES], block);

		if (r < 0)
			return r;
	}
	/* A copy that was there may have got its name from a process killed before its sync_dir. */
	return lio_sync_dir(lio);
}
