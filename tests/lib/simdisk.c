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
#include "tests/lib/simdisk.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/block.h"
#include "core/range.h"
#include "tests/lib/simimage.h"

#define PAGE 4096ull
#define MAX_NAMES 4096
#define MAX_PENDING 1024 /* changes of a file kept apart; older ones are written back */

struct inode {
	struct simimage image;
	uint8_t *allocated; /* a byte per page */
	uint64_t pages;     /* of `allocated` */
	unsigned names;     /* now + durable + open files */
};

struct name {
	char *text;
	struct inode *now;
	struct inode *durable;
	unsigned group; /* names tied by renames since the last sync_dir share it */
};

struct lio_file {
	struct list_node link;
	struct inode *inode;
	unsigned in_flight;
};

struct simdisk {
	struct sim_part part;
	struct sim *sim;
	uint32_t sector_bytes;
	struct name name[MAX_NAMES];
	size_t names;
	unsigned last_group;
	uint64_t limit_bytes;
	uint64_t used_bytes;
	bool same_boot;
	_Atomic uint64_t words[LIO_WORDS];
	struct sim_fault fault;
	unsigned hold;
	struct list_node files; /* struct lio_file.link of the open lio */
	struct list_node ops;   /* struct op.link */
	uint64_t in_flight;
	struct simlio *lio; /* NULL: not open */
};

struct simlio {
	struct lio lio;
	struct simdisk *disk;
};

enum stage { QUEUED, ACTED };

struct op {
	struct list_node link;
	struct task task;
	struct simdisk *disk;
	struct lio_op *op;
	enum stage stage;
	bool held;
	int result;
	uint64_t mark;   /* SYNC: what it covers */
	uint64_t change; /* WRITE: of the image; 0: none */
};

static struct simdisk *disk_of(struct lio *lio)
{
	return container_of(lio, struct simlio, lio)->disk;
}

static void inode_put(struct simdisk *d, struct inode *i)
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

static void set_name(struct simdisk *d, struct inode **slot, struct inode *to)
{
	struct inode *old = *slot;

	*slot = inode_get(to);
	inode_put(d, old);
}

static struct name *find_name(struct simdisk *d, const char *text)
{
	for (size_t i = 0; i < d->names; i++)
		if (!strcmp(d->name[i].text, text))
			return &d->name[i];
	return NULL;
}

static struct name *make_name(struct simdisk *d, const char *text)
{
	struct name *n = find_name(d, text);

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
static bool allocate(struct simdisk *d, struct inode *i, uint64_t offset, uint64_t length)
{
	uint64_t end = div_round_up(offset + length, PAGE);

	if (end > i->pages) {
		i->allocated = realloc(i->allocated, end);
		if (!i->allocated)
			sim_die(d->sim, "out of memory");
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

static void release_tail(struct simdisk *d, struct inode *i, uint64_t bytes)
{
	for (uint64_t p = div_round_up(bytes, PAGE); p < i->pages; p++) {
		d->used_bytes -= i->allocated[p] ? PAGE : 0;
		i->allocated[p] = 0;
	}
}

/* What a write that was cut or failed has done: whole pages from the front, perhaps none. */
static uint64_t part_of(struct simdisk *d, uint64_t offset, uint64_t length)
{
	uint64_t pages = div_round_up(offset + length, PAGE) - offset / PAGE;
	uint64_t end = (offset / PAGE + sim_below(d->sim, pages + 1)) * PAGE;

	return end <= offset ? 0 : MIN(end - offset, length);
}

static uint64_t change(struct simdisk *d, struct inode *i, const struct iovec *iov, int iovcnt,
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
	if (!fault && !allocate(d, i, offset, length))
		fault = -ENOSPC;
	if (fault)
		length = part_of(d, offset, length);
	if (fault == -ENOSPC)
		length = 0; /* what was there stays; the pages taken stay taken */
	*ret_change = change(d, i, iov, iovcnt, offset, length);
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

static void finish(struct op *o)
{
	struct lio_op *op = o->op;
	int result = o->result;

	if (o->change)
		simimage_complete(&op->file->inode->image, o->change);
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
	struct op *o = sim_alloc(sizeof(*o));

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
	int fault = check_fault(d, 1u << kind);
	uint64_t id;
	int r;

	if (kind == LIO_READ)
		return fault ? fault : act_read(file->inode, iov, iovcnt, offset);
	if (kind == LIO_SYNC)
		return act_sync(file->inode, simimage_mark(img), fault);
	r = act_write(d, file->inode, iov, iovcnt, offset, fault, &id);
	if (id)
		simimage_complete(img, id);
	return r;
}

static int disk_open(struct lio *lio, const char *name, unsigned flags, struct lio_file **ret)
{
	struct simdisk *d = disk_of(lio);
	struct name *n = find_name(d, name);
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
		set_name(d, &n->now, i);
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
	inode_put(d, file->inode);
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
	int r = check_fault(d, SIMDISK_TRUNCATE);

	if (r < 0)
		return r;
	simimage_complete(img, simimage_resize(img, bytes));
	simimage_bound(img, MAX_PENDING);
	release_tail(d, file->inode, bytes);
	return 0;
}

static int disk_unlink(struct lio *lio, const char *name)
{
	struct simdisk *d = disk_of(lio);
	struct name *n = find_name(d, name);
	int r = check_fault(d, SIMDISK_UNLINK);

	if (r < 0)
		return r;
	if (!n || !n->now)
		return -ENOENT;
	set_name(d, &n->now, NULL);
	return 0;
}

static int disk_rename(struct lio *lio, const char *from, const char *to)
{
	struct simdisk *d = disk_of(lio);
	struct name *f = find_name(d, from);
	struct name *t;
	unsigned old_f;
	unsigned old_t;
	int r = check_fault(d, SIMDISK_RENAME);

	if (r < 0)
		return r;
	if (!f || !f->now)
		return -ENOENT;
	t = make_name(d, to);
	if (t == f)
		return 0;
	set_name(d, &t->now, f->now);
	set_name(d, &f->now, NULL);
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
	int r = check_fault(d, SIMDISK_SYNC_DIR);

	if (r < 0)
		return r;
	for (size_t i = 0; i < d->names; i++) {
		set_name(d, &d->name[i].durable, d->name[i].now);
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

	/* "Wait for what is in flight", and in any order. */
	simdisk_hold(d, 0);
	while (d->in_flight) {
		struct list_node *n = d->ops.next;
		struct op *o;

		for (uint64_t skip = sim_below(d->sim, d->in_flight); skip; skip--)
			n = n->next;
		o = list_entry(n, struct op, link);
		sim_cancel(d->sim, &o->task);
		if (o->stage == QUEUED)
			act(o);
		finish(o);
	}
	if (!list_empty(&d->files))
		sim_die(d->sim, "the local disk was destroyed with files open");
	free(d->lio);
	d->lio = NULL;
}

static const struct lio_ops disk_ops = {
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

static void disk_reset(struct sim_part *part)
{
	simdisk_kill(container_of(part, struct simdisk, part));
}

struct simdisk *simdisk_create(struct sim *sim)
{
	struct simdisk *d = sim_alloc(sizeof(*d));

	d->sim = sim;
	d->sector_bytes = 512;
	d->limit_bytes = UINT64_MAX;
	d->part.reset = disk_reset;
	list_init(&d->files);
	list_init(&d->ops);
	sim_join(sim, &d->part);
	return d;
}

void simdisk_destroy(struct simdisk *d)
{
	if (!d)
		return;
	simdisk_kill(d);
	for (size_t i = 0; i < d->names; i++) {
		set_name(d, &d->name[i].now, NULL);
		set_name(d, &d->name[i].durable, NULL);
		free(d->name[i].text);
	}
	sim_leave(&d->part);
	free(d);
}

struct lio *simdisk_open(struct simdisk *d, struct sim *sim)
{
	if (d->lio || sim != d->sim)
		sim_die(d->sim, "a simulated disk was opened twice, or from another sim");
	d->lio = sim_alloc(sizeof(*d->lio));
	d->lio->disk = d;
	d->lio->lio.ops = &disk_ops;
	d->lio->lio.words = d->words;
	d->lio->lio.same_boot = d->same_boot;
	for (size_t w = 0; w < LIO_WORDS && !d->same_boot; w++)
		d->words[w] = 0;
	d->same_boot = true;
	return &d->lio->lio;
}

void simdisk_kill(struct simdisk *d)
{
	struct list_node *n;

	if (!d->lio)
		return;
	while ((n = list_pop(&d->ops))) {
		struct op *o = list_entry(n, struct op, link);
		struct lio_op *op = o->op;
		uint64_t length = iov_length(op->iov, op->iovcnt);

		sim_cancel(d->sim, &o->task);
		if (op->kind == LIO_WRITE && o->stage == QUEUED &&
		    allocate(d, op->file->inode, op->offset, length)) {
			length = sim_once_in(d->sim, 3) ? length : part_of(d, op->offset, length);
			change(d, op->file->inode, op->iov, op->iovcnt, op->offset, length);
		}
		free(o);
	}
	d->in_flight = 0;
	d->hold = 0;
	while ((n = list_pop(&d->files))) {
		struct lio_file *f = list_entry(n, struct lio_file, link);

		inode_put(d, f->inode);
		free(f);
	}
	free(d->lio);
	d->lio = NULL;
}

/* Keep or undo what happened to names: one toss per group of tied names. */
static void cut_names(struct simdisk *d)
{
	cleanup_free bool *toss = sim_alloc((d->last_group + 1) * sizeof(*toss));

	for (unsigned g = 0; g <= d->last_group; g++)
		toss[g] = sim_once_in(d->sim, 2);
	for (size_t i = 0; i < d->names; i++) {
		struct name *n = &d->name[i];

		if (n->group ? toss[n->group] : sim_once_in(d->sim, 2))
			set_name(d, &n->durable, n->now);
		else
			set_name(d, &n->now, n->durable);
		n->group = 0;
	}
	d->last_group = 0;
}

void simdisk_power_cut(struct simdisk *d)
{
	simdisk_kill(d);
	cut_names(d);
	for (size_t i = 0; i < d->names; i++) {
		struct inode *ino = d->name[i].now;

		if (!ino)
			continue;
		simimage_cut(&ino->image, d->sim, d->sector_bytes);
		release_tail(d, ino, ino->image.now_bytes);
	}
	d->same_boot = false;
}

void simdisk_set_sector(struct simdisk *d, uint32_t bytes)
{
	assert(bytes == 512 || bytes == 4096);
	d->sector_bytes = bytes;
}

void simdisk_fail(struct simdisk *d, unsigned mask, uint64_t nth, int error, bool always)
{
	assert(!nth || error < 0);
	d->fault = (struct sim_fault){
		.mask = mask,
		.nth = nth,
		.error = error,
		.always = always,
	};
}

uint64_t simdisk_fault_hits(const struct simdisk *d)
{
	return d->fault.hits;
}

void simdisk_hold(struct simdisk *d, unsigned mask)
{
	struct list_node *n;

	d->hold = mask;
	list_for_each(n, &d->ops) {
		struct op *o = list_entry(n, struct op, link);

		if (!o->held || (mask & (1u << o->op->kind)))
			continue;
		o->held = false;
		sched_post(sim_sched(d->sim), &o->task);
	}
}

void simdisk_set_limit(struct simdisk *d, uint64_t bytes)
{
	d->limit_bytes = bytes;
}

uint64_t simdisk_used(const struct simdisk *d)
{
	return d->used_bytes;
}

uint64_t simdisk_in_flight(const struct simdisk *d)
{
	return d->in_flight;
}

static struct name *there(struct simdisk *d, const char *name)
{
	struct name *n = find_name(d, name);

	return n && n->now ? n : NULL;
}

int simdisk_corrupt(struct simdisk *d, const char *name, uint64_t offset, uint64_t length)
{
	struct name *n = there(d, name);
	struct simimage *img;

	if (!n)
		return -ENOENT;
	img = &n->now->image;
	if (!length || !range_inside(offset, length, img->now_bytes))
		return -EINVAL;
	simimage_bound(img, 0);
	for (uint64_t i = offset; i < offset + length; i++)
		img->now[i] = img->durable[i] =
			(uint8_t)(img->now[i] ^ (1 + sim_below(d->sim, 255)));
	return 0;
}

int simdisk_remove(struct simdisk *d, const char *name)
{
	struct name *n = there(d, name);

	if (!n)
		return -ENOENT;
	set_name(d, &n->now, NULL);
	set_name(d, &n->durable, NULL);
	return 0;
}

int simdisk_cut_file(struct simdisk *d, const char *name, uint64_t bytes)
{
	struct name *n = there(d, name);

	if (!n)
		return -ENOENT;
	simimage_resize(&n->now->image, bytes);
	simimage_bound(&n->now->image, 0);
	release_tail(d, n->now, bytes);
	return 0;
}

int simdisk_peek(struct simdisk *d, const char *name, const uint8_t **ret_data, uint64_t *ret_bytes)
{
	struct name *n = there(d, name);

	if (!n)
		return -ENOENT;
	*ret_data = n->now->image.now;
	*ret_bytes = n->now->image.now_bytes;
	return 0;
}

const char *simdisk_name(struct simdisk *d, size_t n)
{
	for (size_t i = 0; i < d->names; i++)
		if (d->name[i].now && n-- == 0)
			return d->name[i].text;
	return NULL;
}
