// SPDX-License-Identifier: Apache-2.0
/*
 * `now` is the store; `done` is every change since it was empty, in order, of which
 * the first `durable` survive a power cut. A cut shortens `done` and plays it again.
 */
#include "tests/lib/simindex.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct change {
	struct list_node link;
	struct index_op *op; /* an apply; NULL: a state */
	size_t n;
	char *key;
	void *value;
	size_t length;
};

struct simindex {
	struct sim_part part;
	struct index_store store;
	struct sim *sim;
	struct index_store *now;
	struct list_node done; /* struct change.link */
	uint64_t count;        /* of done */
	uint64_t durable;
	bool made; /* else the next open finds nothing */
	bool open;
	bool broken;
	struct sim_fault fault;
};

static struct simindex *from_store(struct index_store *s)
{
	return container_of(s, struct simindex, store);
}

static void free_change(struct change *c)
{
	for (size_t i = 0; i < c->n; i++)
		free((void *)(uintptr_t)c->op[i].extent.crc);
	free(c->op);
	free(c->key);
	free(c->value);
	free(c);
}

static void *copy_of(const void *p, size_t bytes)
{
	void *copy = sim_alloc(bytes);

	if (bytes)
		memcpy(copy, p, bytes);
	return copy;
}

static struct index_store *empty_store(struct simindex *x)
{
	struct index_store *s;

	sim_own++;
	s = index_mem_create();
	sim_own--;
	if (!s)
		sim_die(x->sim, "out of memory");
	return s;
}

static void note(struct simindex *x, struct change *c)
{
	list_add_tail(&x->done, &c->link);
	x->count++;
}

static void play(struct simindex *x, const struct change *c)
{
	int r;

	sim_own++;
	r = c->op ? index_apply(x->now, c->op, c->n, true)
		  : index_put_state(x->now, c->key, c->value, c->length);
	sim_own--;
	if (r < 0)
		sim_die(x->sim, "the simulated index cannot be played again: %d", r);
}

/* Keep the first @keep changes. */
static void cut(struct simindex *x, uint64_t keep)
{
	struct list_node *n;

	for (; x->count > keep; x->count--) {
		n = x->done.prev;
		list_del(n);
		free_change(list_entry(n, struct change, link));
	}
	x->durable = x->count;
	index_destroy(x->now);
	x->now = empty_store(x);
	list_for_each(n, &x->done)
		play(x, list_entry(n, struct change, link));
}

static int check(struct simindex *x)
{
	if (!x->broken && sim_fault_check(&x->fault, 1) < 0)
		x->broken = true;
	return x->broken ? -EIO : 0;
}

static int six_load(struct index_store *s,
		    int (*each)(void *ctx, const struct index_extent *extent), void *ctx)
{
	int r = check(from_store(s));

	return r < 0 ? r : index_load(from_store(s)->now, each, ctx);
}

static int six_apply(struct index_store *s, const struct index_op *op, size_t n, bool durable)
{
	struct simindex *x = from_store(s);
	struct change *c;
	int r = check(x);

	sim_own++;
	if (r == 0)
		r = index_apply(x->now, op, n, durable);
	sim_own--;
	if (r < 0)
		return r;
	c = sim_alloc(sizeof(*c));
	c->op = copy_of(op, n * sizeof(*op));
	c->n = n;
	for (size_t i = 0; i < n; i++) {
		struct index_extent *e = &c->op[i].extent;
		bool has_crc = op[i].kind == INDEX_PUT && e->kind == INDEX_DATA;

		e->crc = has_crc ? copy_of(e->crc, e->nblocks * sizeof(*e->crc)) : NULL;
	}
	note(x, c);
	if (durable)
		x->durable = x->count;
	return 0;
}

static int six_put_state(struct index_store *s, const char *key, const void *value, size_t length)
{
	struct simindex *x = from_store(s);
	struct change *c;
	int r = check(x);

	sim_own++;
	if (r == 0)
		r = index_put_state(x->now, key, value, length);
	sim_own--;
	if (r < 0)
		return r;
	c = sim_alloc(sizeof(*c));
	c->key = copy_of(key, strlen(key) + 1);
	c->value = copy_of(value, length);
	c->length = length;
	note(x, c);
	return 0;
}

static int six_get_state(struct index_store *s, const char *key, void *value, size_t max,
			 size_t *ret_length)
{
	int r = check(from_store(s));

	return r < 0 ? r : index_get_state(from_store(s)->now, key, value, max, ret_length);
}

static int six_wipe(struct index_store *s)
{
	struct simindex *x = from_store(s);

	cut(x, 0);
	x->broken = false;
	s->fresh = true;
	return 0;
}

static void six_destroy(struct index_store *s)
{
	from_store(s)->open = false;
}

static const struct index_store_ops six_ops = {
	.load = six_load,
	.apply = six_apply,
	.put_state = six_put_state,
	.get_state = six_get_state,
	.wipe = six_wipe,
	.destroy = six_destroy,
};

static void six_reset(struct sim_part *part)
{
	simindex_kill(container_of(part, struct simindex, part));
}

struct simindex *simindex_create(struct sim *sim)
{
	struct simindex *x = sim_alloc(sizeof(*x));

	x->sim = sim;
	x->store.ops = &six_ops;
	x->now = empty_store(x);
	x->part.reset = six_reset;
	list_init(&x->done);
	sim_join(sim, &x->part);
	return x;
}

void simindex_destroy(struct simindex *x)
{
	if (!x)
		return;
	cut(x, 0);
	index_destroy(x->now);
	sim_leave(&x->part);
	free(x);
}

struct index_store *simindex_open(struct simindex *x)
{
	if (x->open)
		sim_die(x->sim, "a simulated index was opened twice");
	x->store.fresh = !x->made;
	x->made = true;
	x->open = true;
	x->broken = false;
	return &x->store;
}

void simindex_kill(struct simindex *x)
{
	x->open = false;
}

void simindex_power_cut(struct simindex *x)
{
	simindex_kill(x);
	if (sim_once_in(x->sim, 8))
		simindex_lose(x);
	else
		cut(x, x->durable + sim_below(x->sim, x->count - x->durable + 1));
}

void simindex_lose(struct simindex *x)
{
	if (x->open)
		sim_die(x->sim, "an open index cannot be lost");
	cut(x, 0);
	x->made = false;
}

void simindex_fail(struct simindex *x, uint64_t nth)
{
	x->fault = (struct sim_fault){ .mask = 1, .nth = nth, .error = -EIO };
}

uint64_t simindex_fault_hits(const struct simindex *x)
{
	return x->fault.hits;
}

int simindex_durable_state(const struct simindex *x, const char *key, void *value, size_t max,
			   size_t *ret_length)
{
	const struct change *newest = NULL;
	struct list_node *n;
	uint64_t i = 0;

	list_for_each(n, &x->done) {
		const struct change *c = list_entry(n, struct change, link);

		if (i++ == x->durable)
			break;
		if (c->key && strcmp(c->key, key) == 0)
			newest = c;
	}
	if (!newest)
		return -ENOENT;
	*ret_length = newest->length;
	memcpy(value, newest->value, MIN(max, newest->length));
	return 0;
}
