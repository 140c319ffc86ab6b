// SPDX-License-Identifier: Apache-2.0
/* Memory is kept from one directory to the next: large blocks are dear to get under a sanitizer. */
#include "tests/fuzz/memdir.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "core/block.h"
#include "core/cleanup.h"
#include "tests/fuzz/fuzz.h"

#define FILES 8

struct lio_file {
	char name[32]; /* empty: the place is free */
	uint8_t *data;
	size_t length, room;
};

static struct lio_file file[FILES];
static struct lio_file *open_file[FILES * 4]; /* what lio_open() gave out; NULL: free */
static _Atomic uint64_t words[LIO_WORDS];

static struct lio_file *find(const char *name)
{
	for (size_t i = 0; i < FILES; i++)
		if (name[0] && strcmp(file[i].name, name) == 0)
			return &file[i];
	return NULL;
}

static struct lio_file *make(const char *name)
{
	for (size_t i = 0; i < FILES; i++)
		if (!file[i].name[0]) {
			strcpy(file[i].name, name);
			file[i].length = 0;
			return &file[i];
		}
	fuzz_check(!"more files than there is room for");
}

static void resize(struct lio_file *f, size_t length)
{
	if (length > f->room) {
		f->data = realloc(f->data, length);
		fuzz_check(f->data);
		f->room = length;
	}
	if (length > f->length)
		memset(f->data + f->length, 0, length - f->length);
	f->length = length;
}

static int sync_io(struct lio *lio, enum lio_kind kind, struct lio_file *f, const struct iovec *iov,
		   int iovcnt, uint64_t offset)
{
	size_t length = iov_length(iov, iovcnt);

	(void)lio;
	if (kind == LIO_SYNC)
		return 0;
	if (kind == LIO_WRITE) {
		resize(f, MAX(f->length, (size_t)offset + length));
		iov_copy_from(iov, iovcnt, 0, f->data + offset, length);
		return 0;
	}
	if (offset >= f->length)
		return -ENODATA;
	iov_copy_to(iov, iovcnt, 0, f->data + offset, MIN(length, f->length - (size_t)offset));
	return length > f->length - offset ? -ENODATA : 0;
}

static int open_one(struct lio *lio, const char *name, unsigned flags, struct lio_file **ret)
{
	struct lio_file *f = find(name);

	(void)lio;
	if (!f && !(flags & LIO_CREATE))
		return -ENOENT;
	*ret = f ? f : make(name);
	for (size_t i = 0; i < ARRAY_SIZE(open_file); i++)
		if (!open_file[i]) {
			open_file[i] = *ret;
			return 0;
		}
	return -EMFILE;
}

static void close_one(struct lio *lio, struct lio_file *f)
{
	(void)lio;
	for (size_t i = 0; i < ARRAY_SIZE(open_file); i++)
		if (open_file[i] == f) {
			open_file[i] = NULL;
			return;
		}
	fuzz_check(!"a file was closed twice");
}

static int size_of(struct lio *lio, struct lio_file *f, uint64_t *ret_bytes)
{
	(void)lio;
	*ret_bytes = f->length;
	return 0;
}

static int rename_one(struct lio *lio, const char *from, const char *to)
{
	struct lio_file *f = find(from), *old = find(to);

	(void)lio;
	if (!f)
		return -ENOENT;
	if (old && old != f)
		old->name[0] = '\0';
	strcpy(f->name, to);
	return 0;
}

static int list(struct lio *lio, int (*each)(void *ctx, const char *name), void *ctx)
{
	int r = 0;

	(void)lio;
	for (size_t i = 0; !r && i < FILES; i++)
		if (file[i].name[0])
			r = each(ctx, file[i].name);
	return r;
}

static int sync_dir(struct lio *lio)
{
	(void)lio;
	return 0;
}

static void destroy(struct lio *lio)
{
	for (size_t i = 0; i < ARRAY_SIZE(open_file); i++)
		fuzz_check(!open_file[i]);
	free(lio);
}

static const struct lio_ops ops = {
	.sync_io = sync_io,
	.open = open_one,
	.close = close_one,
	.size = size_of,
	.rename = rename_one,
	.list = list,
	.sync_dir = sync_dir,
	.destroy = destroy,
};

struct lio *memdir_open(void)
{
	struct lio *lio = fuzz_alloc(sizeof(*lio));

	for (size_t i = 0; i < FILES; i++)
		file[i].name[0] = '\0';
	lio->ops = &ops;
	lio->words = words;
	return lio;
}

void memdir_put(struct lio *lio, const char *name, const void *data, size_t length)
{
	struct lio_file *f = find(name);

	(void)lio;
	if (!f)
		f = make(name);
	resize(f, length);
	if (length)
		memcpy(f->data, data, length);
}

const uint8_t *memdir_get(struct lio *lio, const char *name, size_t *ret_length)
{
	const struct lio_file *f = find(name);

	(void)lio;
	if (!f)
		return NULL;
	*ret_length = f->length;
	return f->data;
}
