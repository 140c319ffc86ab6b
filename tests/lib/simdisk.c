// SPDX-License-Identifier: Apache-2.0
/*
 * A directory is two maps from name to inode: `now` and `durable`. A name with
 * equal inodes in both is durable; sync_dir makes all equal; a power cut decides each
 * name that differs, those that one rename tied together as one.
 *
 * An operation goes through two random steps: QUEUED → (acts) → ACTED → (done).
 * Only one that is QUEUED when the process dies may act in part. A sync covers
 * what was done, not just acted, when it was submitted.
 */
#include "tests/lib/simdisk_impl.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/block.h"
#include "core/range.h"

#define PAGE 4096ull
#define MAX_PENDING 1024 /* changes of a file kept apart; older ones are written back */

static struct simdisk *disk_of(struct lio *lio)
{
	return container_of(lio, struct simlio, lio)->disk;
}

void simdisk_inode_put(struct simdisk *d, struct inode *i)
{
	if (!i || --i->names)
		return;
	for (uint64_t p = 0; p < i->pages; p++)
		d->used_bytes -= i->allocated[p] ? PAGE : 0;
	simimage_free(&i->image);
	free(i->allocated);
	free(i);
}

static struct inode *inode_get(struct inode *i)
{
	if (i)
		i->names++;
	return i;
}

void simdisk_set_name(struct simdisk *d, struct inode **slot, struct inode *to)
{
	struct inode *old = *slot;

	*slot = inode_get(to);
	simdisk_inode_put(d, old);
}

struct name *simdisk_find_name(struct simdisk *d, const char *text)
{
	for (size_t i = 0; i < d->names; i++)
		if (!strcmp(d->name[i].text, text))
			return &d->name[i];
	return NULL;
}

static struct name *make_name(struct simdisk *d, const char *text)
{
	struct name *n = simdisk_find_name(d, text);

	if (n)
		return n;
	/* Names that mean nothing any more make room. */
	for (n = d->name; n < d->name + d->names; n++)
		if (!n->now && !n->durable)
			break;
	if (n == d->name + MAX_NAMES)
		sim_die(d->sim, "more than %u names in a directory", MAX_NAMES);
	if (n == d->name + d->names)
		d->names++;
	free(n->text);
	n->text = strdup(text);
	if (!n->text)
		sim_die(d->sim, "out of memory");
	n->group = 0;
	return n;
}

/* Pages of [0, bytes) that are not allocated yet get so; false: no room. */
bool simdisk_allocate(struct simdisk *d, struct inode *i, uint64_t offset, uint64_t length)
{
	uint64_t end = div_round_up(offset + length, PAGE);

	if (end > i->pages) {
		i->allocated = sim_realloc(i->allocated, end);
		memset(i->allocated + i->pages, 0, end - i->pages);
		i->pages = end;
	}
	for (uint64_t p = offset / PAGE; p < end; p++) {
		if (i->allocated[p])
			continue;
		if (d->used_bytes + PAGE > d->limit_bytes)
			return false;
		i->allocated[p] = 1;
		d->used_bytes += PAGE;
	}
	return true;
}

void simdisk_release_tail(struct simdisk *d, struct inode *i, uint64_t bytes)
{
	for (uint64_t p = div_round_up(bytes, PAGE); p < i->pages; p++) {
		d->used_bytes -= i->allocated[p] ? PAGE : 0;
		i->allocated[p] = 0;
	}
}

/* What a write that was cut or failed has done: whole pages from the front, perhaps none. */
uint64_t simdisk_part_of(struct simdisk *d, uint64_t offset, uint64_t length)
{
	uint64_t pages = div_round_up(offset + length, PAGE) - offset / PAGE;
	uint64_t end = (offset / PAGE + sim_below(d->sim, pages + 1)) * PAGE;

	return end <= offset ? 0 : MIN(end - offset, length);
}

uint64_t simdisk_write(struct simdisk *d, struct inode *i, const struct iovec *iov, int iovcnt,
		       uint64_t offset, uint64_t length)
{
	cleanup_free uint8_t *flat = NULL;
	uint64_t id;

	if (!length)
		return 0;
	flat = sim_alloc(length);
	iov_copy_from(iov, iovcnt, 0, flat, length);
	id = simimage_change(&i->image, offset, length, flat);
	simimage_bound(&i->image, MAX_PENDING);
	return id;
}

static int act_write(struct simdisk *d, struct inode *i, const struct iovec *iov, int iovcnt,
		     uint64_t offset, int fault, uint64_t *ret_change)
{
	uint64_t length = iov_length(iov, iovcnt);

	*ret_change = 0;
	if (!fault && !simdisk_allocate(d, i, offset, length))
		fault = -ENOSPC;
	if (fault)
		length = simdisk_part_of(d, offset, length);
	if (fault == -ENOSPC)
		length = 0; /* what was there stays; the pages taken stay taken */
	*ret_change = simdisk_write(d, i, iov, iovcnt, offset, length);
	return fault;
}

static int act_read(struct inode *i, const struct iovec *iov, int iovcnt, uint64_t offset)
{
	uint64_t length = iov_length(iov, iovcnt);
	uint64_t there = offset < i->image.now_bytes ? i->image.now_bytes - offset : 0;

	iov_copy_to(iov, iovcnt, 0, i->image.now + offset, MIN(length, there));
	return there < length ? -ENODATA : 0;
}

static int act_sync(struct inode *i, uint64_t mark, int fault)
{
	if (fault)
		simimage_poison(&i->image, mark);
	else
		simimage_commit(&i->image, mark);
	return fault;
}

static int check_fault(struct simdisk *d, unsigned kind)
{
	return sim_fault_check(&d->fault, kind);
}

static void act(struct op *o)
{
	struct lio_op *op = o->op;
	struct inode *i = op->file->inode;
	int fault = check_fault(o->disk, 1u << op->kind);

	o->stage = ACTED;
	if (op->kind == LIO_WRITE)
		o->result =
			act_write(o->disk, i, op->iov, op->iovcnt, op->offset, fault, &o->change);
	else if (op->kind == LIO_SYNC)
		o->result = act_sync(i, o->mark, fault);
	else
		o->result = fault ? fault : act_read(i, op->iov, op->iovcnt, op->offset);
}

static const char *name_of(const struct simdisk *d, const struct inode *i)
{
	for (size_t k = 0; k < d->names; k++)
		if (d->name[k].now == i)
			return d->name[k].text;
	return NULL;
}

/* Something is about to happen, or did: @op is what names it. */
static void tell(struct simdisk *d, unsigned kind, const void *op, const char *name)
{
	if (d->seen)
		d->seen(d->seen_ctx, &(struct simdisk_event){ .kind = (enum simdisk_kind)kind,
							      .op = op,
							      .name = name });
}

static void tell_end(struct simdisk *d, unsigned kind, const void *op, const char *name, int result)
{
	if (d->seen)
		d->seen(d->seen_ctx, &(struct simdisk_event){ .kind = (enum simdisk_kind)kind,
							      .ended = true,
							      .result = result,
							      .op = op,
							      .name = name });
}

static void tell_io(struct simdisk *d, enum lio_kind kind, const void *op, const struct inode *i,
		    const struct iovec *iov, int iovcnt, uint64_t offset)
{
	if (d->seen && kind != LIO_READ)
		d->seen(d->seen_ctx,
			&(struct simdisk_event){ .kind = (enum simdisk_kind)(1u << kind),
						 .op = op,
						 .name = name_of(d, i),
						 .iov = iov,
						 .iovcnt = iovcnt,
						 .offset = offset });
}

static void tell_io_end(struct simdisk *d, enum lio_kind kind, const void *op,
			const struct inode *i, int result)
{
	if (d->seen && kind != LIO_READ)
		tell_end(d, 1u << kind, op, name_of(d, i), result);
}

static void finish(struct op *o)
{
	struct lio_op *op = o->op;
	int result = o->result;

	if (o->change)
		simimage_complete(&op->file->inode->image, o->change);
	tell_io_end(o->disk, op->kind, op, op->file->inode, result);
	op->file->in_flight--;
	o->disk->in_flight--;
	list_del(&o->link);
	free(o);
	op->done(op, result);
}

static void run_op(struct task *task)
{
	struct op *o = container_of(task, struct op, task);

	if (o->stage == ACTED) {
		finish(o);
		return;
	}
	act(o);
	sched_post(sim_sched(o->disk->sim), &o->task);
}

static void disk_submit(struct lio *lio, struct lio_op *op)
{
	struct simdisk *d = disk_of(lio);
	struct op *o;

	tell_io(d, op->kind, op, op->file->inode, op->iov, op->iovcnt, op->offset);
	o = sim_alloc(sizeof(*o));
	assert(op->iovcnt >= (op->kind == LIO_SYNC ? 0 : 1) && op->iovcnt <= LIO_MAX_IOV);
	task_init(&o->task, run_op);
	o->disk = d;
	o->op = op;
	if (op->kind == LIO_SYNC)
		o->mark = simimage_mark(&op->file->inode->image);
	op->file->in_flight++;
	d->in_flight++;
	list_add_tail(&d->ops, &o->link);
	o->held = d->hold & (1u << op->kind);
	if (!o->held)
		sched_post(sim_sched(d->sim), &o->task);
}

static int disk_try_read(struct lio *lio, struct lio_file *file, const struct iovec *iov,
			 int iovcnt, uint64_t offset)
{
	struct simdisk *d = disk_of(lio);
	uint64_t length = iov_length(iov, iovcnt);
	int r;

	if (sim_once_in(d->sim, 3)) {
		if (sim_once_in(d->sim, 2)) /* part of it was in the page cache */
			iov_zero(iov, iovcnt, 0, length / 2);
		return -EAGAIN;
	}
	r = check_fault(d, SIMDISK_READ);
	return r < 0 ? r : act_read(file->inode, iov, iovcnt, offset);
}

static int disk_sync_io(struct lio *lio, enum lio_kind kind, struct lio_file *file,
			const struct iovec *iov, int iovcnt, uint64_t offset)
{
	struct simdisk *d = disk_of(lio);
	struct simimage *img = &file->inode->image;
	uint64_t id = 0;
	int fault;
	int r;

	tell_io(d, kind, file, file->inode, iov, iovcnt, offset);
	fault = check_fault(d, 1u << kind);
	if (kind == LIO_READ)
		r = fault ? fault : act_read(file->inode, iov, iovcnt, offset);
	else if (kind == LIO_SYNC)
		r = act_sync(file->inode, simimage_mark(img), fault);
	else
		r = act_write(d, file->inode, iov, iovcnt, offset, fault, &id);
	if (id)
		simimage_complete(img, id);
	tell_io_end(d, kind, file, file->inode, r);
	return r;
}

static int disk_open(struct lio *lio, const char *name, unsigned flags, struct lio_file **ret)
{
	struct simdisk *d = disk_of(lio);
	struct name *n = simdisk_find_name(d, name);
	struct lio_file *f;
	int r = check_fault(d, SIMDISK_OPEN);

	assert(!strchr(name, '/'));
	if (r < 0)
		return r;
	if (n && n->now && (flags & LIO_EXCL))
		return -EEXIST;
	if (!n || !n->now) {
		struct inode *i;

		if (!(flags & LIO_CREATE))
			return -ENOENT;
		n = make_name(d, name);
		i = sim_alloc(sizeof(*i));
		simimage_init(&i->image, 0);
		simdisk_set_name(d, &n->now, i);
	}
	f = sim_alloc(sizeof(*f));
	f->inode = inode_get(n->now);
	list_add_tail(&d->files, &f->link);
	*ret = f;
	return 0;
}

static void disk_close(struct lio *lio, struct lio_file *file)
{
	struct simdisk *d = disk_of(lio);

	if (file->in_flight)
		sim_die(d->sim, "a file was closed with operations in flight");
	list_del(&file->link);
	simdisk_inode_put(d, file->inode);
	free(file);
}

static int disk_size(struct lio *lio, struct lio_file *file, uint64_t *ret_bytes)
{
	(void)lio;
	*ret_bytes = file->inode->image.now_bytes;
	return 0;
}

static int disk_truncate(struct lio *lio, struct lio_file *file, uint64_t bytes)
{
	struct simdisk *d = disk_of(lio);
	struct simimage *img = &file->inode->image;
	int r;

	tell(d, SIMDISK_TRUNCATE, file, name_of(d, file->inode));
	r = check_fault(d, SIMDISK_TRUNCATE);
	if (r < 0)
		return r;
	simimage_complete(img, simimage_resize(img, bytes));
	simimage_bound(img, MAX_PENDING);
	simdisk_release_tail(d, file->inode, bytes);
	return 0;
}

static int disk_unlink(struct lio *lio, const char *name)
{
	struct simdisk *d = disk_of(lio);
	struct name *n = simdisk_find_name(d, name);
	int r;

	tell(d, SIMDISK_UNLINK, n, name);
	r = check_fault(d, SIMDISK_UNLINK);
	if (r < 0)
		return r;
	if (!n || !n->now)
		return -ENOENT;
	simdisk_set_name(d, &n->now, NULL);
	tell_end(d, SIMDISK_UNLINK, n, name, 0);
	return 0;
}

static int disk_rename(struct lio *lio, const char *from, const char *to)
{
	struct simdisk *d = disk_of(lio);
	struct name *f = simdisk_find_name(d, from);
	struct name *t;
	unsigned old_f;
	unsigned old_t;
	int r;

	tell(d, SIMDISK_RENAME, f, to);
	r = check_fault(d, SIMDISK_RENAME);
	if (r < 0)
		return r;
	if (!f || !f->now)
		return -ENOENT;
	t = make_name(d, to);
	if (t == f)
		return 0;
	simdisk_set_name(d, &t->now, f->now);
	simdisk_set_name(d, &f->now, NULL);
	d->last_group++;
	old_f = f->group;
	old_t = t->group;
	f->group = t->group = d->last_group;
	for (size_t i = 0; i < d->names; i++) {
		unsigned *g = &d->name[i].group;

		if (*g && (*g == old_f || *g == old_t))
			*g = d->last_group;
	}
	return 0;
}

static int disk_list(struct lio *lio, int (*each)(void *ctx, const char *name), void *ctx)
{
	struct simdisk *d = disk_of(lio);
	int r = check_fault(d, SIMDISK_LIST);

	/* The callback may open, unlink and rename: slots are looked at one by one. */
	for (size_t i = 0; !r && i < d->names; i++)
		if (d->name[i].now)
			r = each(ctx, d->name[i].text);
	return r;
}

static int disk_sync_dir(struct lio *lio)
{
	struct simdisk *d = disk_of(lio);
	int r;

	tell(d, SIMDISK_SYNC_DIR, d, NULL);
	r = check_fault(d, SIMDISK_SYNC_DIR);
	if (r < 0)
		return r;
	for (size_t i = 0; i < d->names; i++) {
		simdisk_set_name(d, &d->name[i].durable, d->name[i].now);
		d->name[i].group = 0;
	}
	return 0;
}

static int disk_free_bytes(struct lio *lio, uint64_t *ret_bytes)
{
	struct simdisk *d = disk_of(lio);
	int r = check_fault(d, SIMDISK_FREE);

	if (r < 0)
		return r;
	*ret_bytes = d->limit_bytes > d->used_bytes ? d->limit_bytes - d->used_bytes : 0;
	return 0;
}

static void disk_lio_destroy(struct lio *lio)
{
	struct simdisk *d = disk_of(lio);

	if (d->in_flight || !list_empty(&d->files))
		sim_die(d->sim, "the local disk was destroyed with files open or in use");
	free(d->lio);
	d->lio = NULL;
}

const struct lio_ops simdisk_ops = {
	.submit = disk_submit,
	.try_read = disk_try_read,
	.sync_io = disk_sync_io,
	.open = disk_open,
	.close = disk_close,
	.size = disk_size,
	.truncate = disk_truncate,
	.unlink = disk_unlink,
	.rename = disk_rename,
	.list = disk_list,
	.sync_dir = disk_sync_dir,
	.free_bytes = disk_free_bytes,
	.destroy = disk_lio_destroy,
};
