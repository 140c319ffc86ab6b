// SPDX-License-Identifier: Apache-2.0
/*
 * The index in RocksDB: the only file that knows of it.
 *
 * Keys, one column family, big-endian so that they sort by block:
 *   'm'            format and cache uuid, written when the store is made
 *   'e' blk u64    an extent
 *   's' text       a state
 * Values are little-endian and begin with the CRC32C of the key and of what follows.
 *   extent: crc u32, kind u8, 0 u8[3], nblocks u64, segment u32, slot u32, incarnation u64,
 *           then a crc u32 for each block of DATA
 *
 * Invariant: extents in the store are disjoint. An apply works it out in memory:
 * what sticks out of the ranges it touches is loaded into a small extent map, the
 * operations are played there, and one batch deletes what was touched and puts what the
 * map holds.
 *
 * Without sync a write survives kill -9 (the log is in the page cache), with sync a
 * power cut, together with all before it. A log that ends in half a record after a
 * power cut is a prefix and is taken; any other damage in it makes the open fail and the store
 * be made anew: a prefix by bit rot could bring back what a durable delete removed.
 *
 * Memory: two memtables of 2 MiB, 8 MiB of blocks (indexes and filters included).
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <rocksdb/c.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cache/extent_map.h"
#include "cache/index.h"
#include "core/cleanup.h"
#include "core/crc32c.h"
#include "core/le.h"

#define MIB (1u << 20)
#define KEY_EXTENT 'e'
#define KEY_STATE 's'
#define KEY_META 'm'
#define EXTENT_KEY_BYTES 9
#define EXTENT_HEAD_BYTES 32
#define EXTENT_VALUE_MAX (EXTENT_HEAD_BYTES + 4 * INDEX_EXTENT_BLOCKS)
#define STATE_KEY_MAX 64
#define CRC_BYTES 4
#define META_BYTES (CRC_BYTES + 8 + 16)

/* The last digit is the format: another one is not read but made anew. */
static const char meta_magic[8] = { 'N', 'B', 'I', 'N', 'D', 'E', 'X', '1' };

struct index_rocksdb {
	struct index_store store;
	char *path;
	uint8_t cache_uuid[16];
	rocksdb_t *db; /* NULL: broken, only wipe and destroy help */
	rocksdb_cache_t *cache;
	rocksdb_options_t *options;
	rocksdb_readoptions_t *read;
	rocksdb_readoptions_t *scan; /* the same, without filling the block cache */
	rocksdb_writeoptions_t *write;
	rocksdb_writeoptions_t *write_sync;
};

static struct index_rocksdb *from_store(struct index_store *s)
{
	return container_of(s, struct index_rocksdb, store);
}

static void extent_key(uint8_t *key, uint64_t blk)
{
	key[0] = KEY_EXTENT;
	for (unsigned i = 0; i < 8; i++)
		key[1 + i] = (uint8_t)(blk >> 8 * (7 - i));
}

static uint64_t extent_key_blk(const char *key)
{
	uint64_t blk = 0;

	for (unsigned i = 1; i <= 8; i++)
		blk = blk << 8 | (uint8_t)key[i];
	return blk;
}

static uint32_t value_crc(const void *key, size_t key_length, const void *value, size_t length)
{
	return crc32c(crc32c(0, key, key_length), (const char *)value + CRC_BYTES,
		      length - CRC_BYTES);
}

static bool value_whole(const void *key, size_t key_length, const void *value, size_t length)
{
	return length >= CRC_BYTES &&
	       le_get(value, CRC_BYTES) == value_crc(key, key_length, value, length);
}

/* The value of @e, at most EXTENT_VALUE_MAX bytes; returns its length. */
static size_t encode_extent(const uint8_t *key, const struct index_extent *e, uint8_t *value)
{
	size_t length = EXTENT_HEAD_BYTES;

	memset(value, 0, EXTENT_HEAD_BYTES);
	value[4] = (uint8_t)e->kind;
	le_put(value + 8, e->nblocks, 8);
	if (e->kind == INDEX_DATA) {
		le_put(value + 16, e->segment, 4);
		le_put(value + 20, e->slot, 4);
		le_put(value + 24, e->incarnation, 8);
		for (uint64_t i = 0; i < e->nblocks; i++, length += 4)
			le_put(value + length, e->crc[i], 4);
	}
	le_put(value, value_crc(key, EXTENT_KEY_BYTES, value, length), CRC_BYTES);
	return length;
}

/* The extent under the iterator; its crcs go to @crc[INDEX_EXTENT_BLOCKS]. 0 or -EBADMSG. */
static int decode_extent(const rocksdb_iterator_t *it, struct index_extent *e, uint32_t *crc)
{
	size_t key_length;
	size_t length;
	const char *key = rocksdb_iter_key(it, &key_length);
	const uint8_t *value = (const uint8_t *)rocksdb_iter_value(it, &length);

	if (!value_whole(key, key_length, value, length) || length < EXTENT_HEAD_BYTES)
		return -EBADMSG;
	*e = (struct index_extent){
		.blk = extent_key_blk(key),
		.nblocks = le_get(value + 8, 8),
		.kind = (enum index_kind)value[4],
		.segment = (uint32_t)le_get(value + 16, 4),
		.slot = (uint32_t)le_get(value + 20, 4),
		.incarnation = le_get(value + 24, 8),
		.crc = value[4] == INDEX_DATA ? crc : NULL,
	};
	if (extent_check(e) < 0)
		return -EBADMSG;
	if (e->kind != INDEX_DATA)
		return length == EXTENT_HEAD_BYTES ? 0 : -EBADMSG;
	if (length != EXTENT_HEAD_BYTES + 4 * e->nblocks)
		return -EBADMSG;
	for (uint64_t i = 0; i < e->nblocks; i++)
		crc[i] = (uint32_t)le_get(value + EXTENT_HEAD_BYTES + 4 * i, 4);
	return 0;
}

/* The iterator stands on an extent. */
static bool on_extent(const rocksdb_iterator_t *it)
{
	size_t length;
	const char *key;

	if (!rocksdb_iter_valid(it))
		return false;
	key = rocksdb_iter_key(it, &length);
	return length == EXTENT_KEY_BYTES && key[0] == KEY_EXTENT;
}

/* What RocksDB calls an error ends here: its text tells nothing a caller could act upon. */
static int failed(char *text)
{
	if (!text)
		return 0;
	rocksdb_free(text);
	return -EIO;
}

static int iter_error(const rocksdb_iterator_t *it)
{
	char *text = NULL;

	rocksdb_iter_get_error(it, &text);
	return failed(text);
}

static int rdb_load(struct index_store *s,
		    int (*each)(void *ctx, const struct index_extent *extent), void *ctx)
{
	struct index_rocksdb *d = from_store(s);
	uint32_t crc[INDEX_EXTENT_BLOCKS];
	struct index_extent e;
	uint8_t key[EXTENT_KEY_BYTES];
	rocksdb_iterator_t *it;
	uint64_t next = 0;
	int r = 0;

	if (!d->db)
		return -EIO;
	it = rocksdb_create_iterator(d->db, d->scan);
	extent_key(key, 0);
	for (rocksdb_iter_seek(it, (char *)key, sizeof(key)); r >= 0 && on_extent(it);
	     rocksdb_iter_next(it)) {
		r = decode_extent(it, &e, crc);
		if (r == 0 && e.blk < next)
			r = -EBADMSG;
		next = e.blk + e.nblocks;
		if (r == 0)
			r = each(ctx, &e);
	}
	if (r >= 0)
		r = iter_error(it);
	rocksdb_iter_destroy(it);
	return r;
}

/*
 * Delete in @batch every extent that shares a block with [blk, end), and keep in @map those
 * that stick out: what is inside is replaced or forgotten by the operation itself.
 */
static int collect(rocksdb_iterator_t *it, rocksdb_writebatch_t *batch, struct extent_map *map,
		   uint64_t blk, uint64_t end)
{
	uint32_t crc[INDEX_EXTENT_BLOCKS];
	struct index_extent e;
	uint8_t key[EXTENT_KEY_BYTES];

	/* The last extent that begins at or before blk may reach into the range. */
	extent_key(key, blk);
	rocksdb_iter_seek_for_prev(it, (char *)key, sizeof(key));
	if (!on_extent(it)) {
		int r = iter_error(it);

		if (r < 0)
			return r;
		rocksdb_iter_seek(it, (char *)key, sizeof(key));
	}
	for (; on_extent(it); rocksdb_iter_next(it)) {
		int r = decode_extent(it, &e, crc);

		if (r < 0)
			return r;
		if (e.blk >= end)
			return 0;
		if (e.blk + e.nblocks <= blk)
			continue;
		extent_key(key, e.blk);
		rocksdb_writebatch_delete(batch, (char *)key, sizeof(key));
		if (e.blk < blk || e.blk + e.nblocks > end)
			r = extent_map_put(map, &e);
		if (r < 0)
			return r;
	}
	return iter_error(it);
}

static int collect_all(struct index_rocksdb *d, const struct index_op *op, size_t n,
		       rocksdb_writebatch_t *batch, struct extent_map *map)
{
	rocksdb_iterator_t *it = rocksdb_create_iterator(d->db, d->read);
	int r = 0;

	for (size_t i = 0; r == 0 && i < n; i++) {
		uint64_t blk = op[i].extent.blk;
		uint64_t nblocks = op[i].extent.nblocks;

		r = collect(it, batch, map, blk,
			    nblocks > UINT64_MAX - blk ? UINT64_MAX : blk + nblocks);
	}
	rocksdb_iter_destroy(it);
	return r;
}

static int play(const struct index_op *op, size_t n, struct extent_map *map)
{
	for (size_t i = 0; i < n; i++) {
		const struct index_extent *e = &op[i].extent;
		int r = op[i].kind == INDEX_PUT ? extent_map_put(map, e)
						: extent_map_delete(map, e->blk, e->nblocks);

		if (r < 0)
			return r;
	}
	return 0;
}

static void put_all(const struct extent_map *map, rocksdb_writebatch_t *batch)
{
	uint8_t key[EXTENT_KEY_BYTES];
	uint8_t value[EXTENT_VALUE_MAX];

	for (const struct extent_node *n = map->head[0]; n; n = n->next[0]) {
		extent_key(key, n->extent.blk);
		rocksdb_writebatch_put(batch, (char *)key, sizeof(key), (char *)value,
				       encode_extent(key, &n->extent, value));
	}
}

static int rdb_apply(struct index_store *s, const struct index_op *op, size_t n, bool durable)
{
	struct index_rocksdb *d = from_store(s);
	rocksdb_writebatch_t *batch;
	struct extent_map map;
	char *text = NULL;
	int r;

	for (size_t i = 0; i < n; i++)
		if (op[i].kind == INDEX_PUT && extent_check(&op[i].extent) < 0)
			return -EINVAL;
	if (!d->db)
		return -EIO;
	if (n == 0) { /* an empty batch would not reach the log: sync what is there */
		if (durable)
			rocksdb_flush_wal(d->db, 1, &text);
		return failed(text);
	}
	batch = rocksdb_writebatch_create();
	extent_map_init(&map);
	r = collect_all(d, op, n, batch, &map);
	if (r == 0)
		r = play(op, n, &map);
	if (r == 0) {
		put_all(&map, batch);
		if (rocksdb_writebatch_count(batch) > 0)
			rocksdb_write(d->db, durable ? d->write_sync : d->write, batch, &text);
		else if (durable)
			rocksdb_flush_wal(d->db, 1, &text);
		r = failed(text);
	}
	extent_map_clear(&map);
	rocksdb_writebatch_destroy(batch);
	return r;
}

static size_t state_key(char *out, const char *key)
{
	size_t length = strlen(key);

	out[0] = KEY_STATE;
	memcpy(out + 1, key, length);
	return length + 1;
}

static int put_value(struct index_rocksdb *d, const char *key, size_t key_length, const void *value,
		     size_t length, bool durable)
{
	cleanup_free uint8_t *buf = malloc(CRC_BYTES + length);
	char *text = NULL;

	if (!buf)
		return -ENOMEM;
	if (length)
		memcpy(buf + CRC_BYTES, value, length);
	le_put(buf, value_crc(key, key_length, buf, CRC_BYTES + length), CRC_BYTES);
	rocksdb_put(d->db, durable ? d->write_sync : d->write, key, key_length, (char *)buf,
		    CRC_BYTES + length, &text);
	return failed(text);
}

static int get_value(struct index_rocksdb *d, const char *key, size_t key_length, void *value,
		     size_t max, size_t *ret_length)
{
	char *text = NULL;
	size_t length;
	char *buf = rocksdb_get(d->db, d->read, key, key_length, &length, &text);
	int r = failed(text);

	if (r < 0 || !buf)
		return r < 0 ? r : -ENOENT;
	if (!value_whole(key, key_length, buf, length)) {
		r = -EBADMSG;
	} else if (length - CRC_BYTES > max) {
		r = -EMSGSIZE;
	} else {
		if (length > CRC_BYTES)
			memcpy(value, buf + CRC_BYTES, length - CRC_BYTES);
		*ret_length = length - CRC_BYTES;
	}
	rocksdb_free(buf);
	return r;
}

static int rdb_put_state(struct index_store *s, const char *key, const void *value, size_t length)
{
	struct index_rocksdb *d = from_store(s);
	char name[STATE_KEY_MAX + 1];

	if (strlen(key) > STATE_KEY_MAX)
		return -EINVAL;
	return d->db ? put_value(d, name, state_key(name, key), value, length, false) : -EIO;
}

static int rdb_get_state(struct index_store *s, const char *key, void *value, size_t max,
			 size_t *ret_length)
{
	struct index_rocksdb *d = from_store(s);
	char name[STATE_KEY_MAX + 1];

	if (strlen(key) > STATE_KEY_MAX)
		return -ENOENT;
	return d->db ? get_value(d, name, state_key(name, key), value, max, ret_length) : -EIO;
}

/*
 * Remove what is in the directory, durably. CURRENT goes first: without it nothing of the rest
 * can be taken for a store (open_db() looks).
 */
static int clear_dir(const char *path)
{
	cleanup_close int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	const struct dirent *e;
	DIR *dir;
	int r = 0;

	if (fd < 0)
		return -errno;
	if ((unlinkat(fd, "CURRENT", 0) < 0 && errno != ENOENT) || fsync(fd) < 0)
		return -errno;
	dir = opendir(path);
	if (!dir)
		return -errno;
	while (r == 0 && (e = readdir(dir)) != NULL) {
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		if (unlinkat(fd, e->d_name, 0) < 0 && errno != ENOENT &&
		    unlinkat(fd, e->d_name, AT_REMOVEDIR) < 0)
			r = -errno;
	}
	closedir(dir);
	if (r == 0 && fsync(fd) < 0)
		r = -errno;
	return r;
}

static rocksdb_options_t *make_options(rocksdb_cache_t *cache)
{
	rocksdb_block_based_table_options_t *table = rocksdb_block_based_options_create();
	rocksdb_options_t *base = rocksdb_options_create();
	rocksdb_options_t *o = rocksdb_options_create();
	char *text = NULL;

	/* A log that was synced and is gone or shorter is damage; the C API has no call for it. */
	rocksdb_get_options_from_string(base, "track_and_verify_wals_in_manifest=true", o, &text);
	rocksdb_free(text); /* a RocksDB that does not know it goes without */
	rocksdb_options_destroy(base);
	rocksdb_options_set_create_if_missing(o, 1);
	rocksdb_options_set_paranoid_checks(o, 1);
	rocksdb_options_set_wal_recovery_mode(o, rocksdb_tolerate_corrupted_tail_records_recovery);
	rocksdb_options_set_compression(o, rocksdb_no_compression);
	rocksdb_options_set_write_buffer_size(o, 2 * MIB);
	rocksdb_options_set_max_write_buffer_number(o, 2);
	rocksdb_options_set_max_background_jobs(o, 2);
	rocksdb_options_set_max_open_files(o, 64);
	rocksdb_options_set_max_manifest_file_size(o, MIB);
	rocksdb_options_set_stats_dump_period_sec(o, 0);
	rocksdb_options_set_skip_stats_update_on_db_open(o, 1);
	rocksdb_options_set_info_log_level(o, 3); /* errors */
	rocksdb_options_set_max_log_file_size(o, 256 * 1024);
	rocksdb_options_set_keep_log_file_num(o, 2);
	rocksdb_block_based_options_set_block_cache(table, cache);
	rocksdb_block_based_options_set_cache_index_and_filter_blocks(table, 1);
	rocksdb_options_set_block_based_table_factory(o, table);
	rocksdb_block_based_options_destroy(table);
	return o;
}

static void close_db(struct index_rocksdb *d)
{
	if (d->db)
		rocksdb_close(d->db);
	d->db = NULL;
}

/* Open what is there. -EBADMSG: it is none, or not ours. */
static int open_db(struct index_rocksdb *d)
{
	static const char key[] = { KEY_META };
	uint8_t meta[META_BYTES];
	cleanup_free char *current = NULL;
	char *text = NULL;
	size_t length;
	int r;

	/* Without CURRENT RocksDB would make a store and replay logs that lie around into it. */
	if (asprintf(&current, "%s/CURRENT", d->path) < 0) {
		current = NULL;
		return -ENOMEM;
	}
	if (access(current, F_OK) < 0)
		return -EBADMSG;
	d->db = rocksdb_open(d->options, d->path, &text);
	r = failed(text);
	if (r < 0) {
		d->db = NULL;
		return r;
	}
	r = get_value(d, key, sizeof(key), meta, sizeof(meta), &length);
	if (r == 0 && length == sizeof(meta_magic) + sizeof(d->cache_uuid) &&
	    !memcmp(meta, meta_magic, sizeof(meta_magic)) &&
	    !memcmp(meta + sizeof(meta_magic), d->cache_uuid, sizeof(d->cache_uuid)))
		return 0;
	close_db(d);
	return -EBADMSG;
}

/* The directory, its name durable: else a power cut could take the whole index with it. */
static int make_dir(const char *path)
{
	cleanup_close int parent_fd = -1;
	cleanup_free char *parent = NULL;
	struct stat st;

	if (lstat(path, &st) == 0 && !S_ISDIR(st.st_mode) && unlink(path) < 0)
		return -errno;
	if (mkdir(path, 0700) < 0)
		return errno == EEXIST ? 0 : -errno;
	if (asprintf(&parent, "%s/..", path) < 0) {
		parent = NULL;
		return -ENOMEM;
	}
	parent_fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return parent_fd < 0 || fsync(parent_fd) < 0 ? -errno : 0;
}

/* Make an empty store in place of whatever is there. @text: NULL, or RocksDB's reason to free. */
static int make_db(struct index_rocksdb *d, char **text)
{
	static const char key[] = { KEY_META };
	uint8_t meta[sizeof(meta_magic) + sizeof(d->cache_uuid)];
	int r = make_dir(d->path); /* somebody may have removed it */

	*text = NULL;
	if (r == 0)
		r = clear_dir(d->path);
	if (r < 0)
		return r;
	d->db = rocksdb_open(d->options, d->path, text);
	if (*text) {
		d->db = NULL;
		return -EIO;
	}
	memcpy(meta, meta_magic, sizeof(meta_magic));
	memcpy(meta + sizeof(meta_magic), d->cache_uuid, sizeof(d->cache_uuid));
	r = put_value(d, key, sizeof(key), meta, sizeof(meta), true);
	if (r < 0)
		close_db(d);
	d->store.fresh = true;
	return r;
}

static int rdb_wipe(struct index_store *s)
{
	struct index_rocksdb *d = from_store(s);
	char *text;
	int r;

	close_db(d);
	r = make_db(d, &text);
	if (text)
		rocksdb_free(text);
	return r;
}

/* Also of a half-made one. */
static void rdb_destroy(struct index_store *s)
{
	struct index_rocksdb *d = from_store(s);

	close_db(d);
	rocksdb_writeoptions_destroy(d->write_sync);
	rocksdb_writeoptions_destroy(d->write);
	rocksdb_readoptions_destroy(d->scan);
	rocksdb_readoptions_destroy(d->read);
	rocksdb_options_destroy(d->options);
	rocksdb_cache_destroy(d->cache);
	free(d->path);
	free(d);
}

static const struct index_store_ops rdb_ops = {
	.load = rdb_load,
	.apply = rdb_apply,
	.put_state = rdb_put_state,
	.get_state = rdb_get_state,
	.wipe = rdb_wipe,
	.destroy = rdb_destroy,
};

int index_rocksdb_open(const char *path, const uint8_t cache_uuid[16], struct index_store **ret,
		       struct err *err)
{
	struct index_rocksdb *d = calloc(1, sizeof(*d));
	char *text = NULL;
	int r;

	if (!d || !(d->path = strdup(path))) {
		free(d);
		return err_set(err, -ENOMEM, "out of memory");
	}
	d->store.ops = &rdb_ops;
	memcpy(d->cache_uuid, cache_uuid, sizeof(d->cache_uuid));
	d->cache = rocksdb_cache_create_lru(8 * (size_t)MIB);
	d->options = make_options(d->cache);
	d->read = rocksdb_readoptions_create();
	d->scan = rocksdb_readoptions_create();
	rocksdb_readoptions_set_fill_cache(d->scan, 0);
	d->write = rocksdb_writeoptions_create();
	d->write_sync = rocksdb_writeoptions_create();
	rocksdb_writeoptions_set_sync(d->write_sync, 1);
	r = make_dir(path);
	if (r == 0)
		r = open_db(d);
	if (r < 0 && r != -ENOMEM)
		r = make_db(d, &text);
	if (r < 0) {
		err_set(err, r, "cannot make the cache index %s: %s", path,
			text ? text : strerror(-r));
		if (text)
			rocksdb_free(text);
		rdb_destroy(&d->store);
		return r;
	}
	*ret = &d->store;
	return 0;
}
