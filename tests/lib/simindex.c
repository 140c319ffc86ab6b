// SPDX-License-Identifier: Apache-2.0
/*
 * State: `durable` holds what a power cut cannot take; `recent` the applies since. The store in use
 * (`live`) is always durable + recent.
 */
#include "tests/lib/simindex.h"

#include <stdlib.h>
#include <string.h>

#include "core/cleanup.h"

struct apply {
	size_t n;
	struct index_op *op;
};

struct simindex {
	struct index_store store;
	struct index_store *live, *durable;
	struct apply *recent;
	size_t nrecent, cap;
	bool empty; /* nothing is known: open as fresh */
};

static struct simindex *of(struct index_store *s)
{
	return container_of(s, struct simindex, store);
}

static void free_apply(struct apply *a)
{
	for (size_t i = 0; i < a->n; i++)
		free((void *)(uintptr_t)a->op[i].extent.crc);
	free(a->op);
}

/* The first @n recent applies become durable. */
static void absorb(struct simindex *ix, size_t n)
{
	for (size_t i = 0; i < n; i++)
		index_apply(ix->durable, ix->recent[i].op, ix->recent[i].n, true);
	for (size_t i = 0; i < ix->nrecent; i++)
		free_apply(&ix->recent[i]);
	ix->nrecent = 0;
}

static int sim_load(struct index_store *s,
		    int (*each)(void *ctx, const struct index_extent *extent), void *ctx)
{
	return index_load(of(s)->live, each, ctx);
}

static int sim_apply(struct index_store *s, const struct index_op *op, size_t n, bool durable)
{
	struct simindex *ix = of(s);
	struct apply *a;
	int r = index_apply(ix->live, op, n, durable);

	if (r < 0)
		return r;
	if (ix->nrecent == ix->cap) {
		ix->cap = ix->cap ? ix->cap * 2 : 64;
		ix->recent = realloc(ix->recent, ix->cap * sizeof(*ix->recent));
	}
	a = &ix->recent[ix->nrecent++];
	a->n = n;
	a->op = sim_alloc((n + 1) * sizeof(*a->op));
	for (size_t i = 0; i < n; i++) {
		a->op[i] = op[i];
		if (op[i].kind == INDEX_PUT && op[i].extent.kind == INDEX_DATA) {
			size_t bytes = op[i].extent.nblocks * sizeof(uint32_t);
			uint32_t *crc = sim_alloc(bytes);

			memcpy(crc, op[i].extent.crc, bytes);
			a->op[i].extent.crc = crc;
		} else {
			a->op[i].extent.crc = NULL;
		}
	}
	if (durable)
		absorb(ix, ix->nrecent);
	return 0;
}

static int sim_put_state(struct index_store *s, const char *key, const void *value, size_t length)
{
	return index_put_state(of(s)->live, key, value, length);
}

static int sim_get_state(struct index_store *s, const char *key, void *value, size_t max,
			 size_t *ret_length)
{
	return index_get_state(of(s)->live, key, value, max, ret_length);
}

static int sim_wipe(struct index_store *s)
{
	absorb(of(s), 0);
	index_wipe(of(s)->durable);
	return index_wipe(of(s)->live);
}

static void sim_nothing(struct index_store *s)
{
	(void)s;
}

static const struct index_store_ops ops = {
	.load = sim_load,
	.apply = sim_apply,
	.put_state = sim_put_state,
	.get_state = sim_get_state,
	.wipe = sim_wipe,
	.destroy = sim_nothing,
};

struct simindex *simindex_create(void)
{
	struct simindex *ix = sim_alloc(sizeof(*ix));

	ix->store.ops = &ops;
	ix->live = index_mem_create();
	ix->durable = index_mem_create();
	ix->empty = true;
	return ix;
}

void simindex_destroy(struct simindex *ix)
{
	absorb(ix, 0);
	free(ix->recent);
	index_destroy(ix->live);
	index_destroy(ix->durable);
	free(ix);
}

struct index_store *simindex_open(struct simindex *ix)
{
	ix->store.fresh = ix->empty;
	ix->empty = false;
	return &ix->store;
}

void simindex_close(struct simindex *ix)
{
	absorb(ix, ix->nrecent);
}

static int copy_extent(void *ctx, const struct index_extent *e)
{
	struct index_op op = { .kind = INDEX_PUT, .extent = *e };

	return index_apply(ctx, &op, 1, false);
}

void simindex_crash(struct simindex *ix, struct sim *sim, bool power)
{
	absorb(ix, power ? (size_t)sim_below(sim, ix->nrecent + 1) : ix->nrecent);
	index_destroy(ix->live);
	ix->live = index_mem_create();
	index_load(ix->durable, copy_extent, ix->live);
}

void simindex_lose(struct simindex *ix)
{
	absorb(ix, 0);
	index_wipe(ix->durable);
	index_wipe(ix->live);
	ix->empty = true;
}
