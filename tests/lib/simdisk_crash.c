// SPDX-License-Identifier: Apache-2.0
/* What a test does to the simulated disk: open it, kill its process, cut its power, meddle. */
#include "tests/lib/simdisk_impl.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/block.h"
#include "core/range.h"

/*
 * A simulated kill leaves behind what the killed process had allocated: that is no leak of ours.
 * This file is in every program that can kill, and in no other; those look for leaks.
 */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
	return "detect_leaks=0";
}

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
		simdisk_set_name(d, &d->name[i].now, NULL);
		simdisk_set_name(d, &d->name[i].durable, NULL);
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
	d->lio->lio.ops = &simdisk_ops;
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
		    simdisk_allocate(d, op->file->inode, op->offset, length)) {
			length = sim_once_in(d->sim, 3) ? length
							: simdisk_part_of(d, op->offset, length);
			o->change = simdisk_write(d, op->file->inode, op->iov, op->iovcnt,
						  op->offset, length);
		}
		/* In the page cache now, whoever put it there: a later sync covers it. */
		if (o->change)
			simimage_complete(&op->file->inode->image, o->change);
		free(o);
	}
	d->in_flight = 0;
	d->hold = 0;
	while ((n = list_pop(&d->files))) {
		struct lio_file *f = list_entry(n, struct lio_file, link);

		simdisk_inode_put(d, f->inode);
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
			simdisk_set_name(d, &n->durable, n->now);
		else
			simdisk_set_name(d, &n->now, n->durable);
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
		simdisk_release_tail(d, ino, ino->image.now_bytes);
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

void simdisk_watch(struct simdisk *d, void (*seen)(void *ctx, const struct simdisk_event *event),
		   void *ctx)
{
	d->seen = seen;
	d->seen_ctx = ctx;
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
	struct name *n = simdisk_find_name(d, name);

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
	simdisk_set_name(d, &n->now, NULL);
	simdisk_set_name(d, &n->durable, NULL);
	return 0;
}

int simdisk_cut_file(struct simdisk *d, const char *name, uint64_t bytes)
{
	struct name *n = there(d, name);

	if (!n)
		return -ENOENT;
	simimage_resize(&n->now->image, bytes);
	simimage_bound(&n->now->image, 0);
	simdisk_release_tail(d, n->now, bytes);
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
