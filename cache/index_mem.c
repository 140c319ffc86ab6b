// SPDX-License-Identifier: Apache-2.0
/* The index in memory: an extent map and a list of states. It is fresh each time. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cache/extent_map.h"
#include "cache/index.h"
#include "core/list.h"

struct state {
	struct list_node link;
	char key[65];
	size_t length;
	unsigned char value[];
};

struct index_mem {
	struct index_store store;
	struct extent_map map;
	struct list_node states; /* struct state.link */
};

static struct index_mem *from_store(struct index_store *s)
{
	return container_of(s, struct index_mem, store);
}

static int mem_load(struct index_store *s,
		    int (*each)(void *ctx, const struct index_extent *extent), void *ctx)
{
	for (struct extent_node *n = from_store(s)->map.head[0]; n; n = n->next[0]) {
		int r = each(ctx, &n->extent);

		if (r < 0)
			return r;
	}
	return 0;
}

static int mem_apply(struct index_store *s, const struct index_op *op, size_t n, bool durable)
{
	struct extent_map *map = &from_store(s)->map;

	(void)durable; /* nothing here outlives the process */
	for (size_t i = 0; i < n; i++)
		if (op[i].kind == INDEX_PUT && extent_check(&op[i].extent) < 0)
			return -EINVAL;
	for (size_t i = 0; i < n; i++) {
		const struct index_extent *e = &op[i].extent;
		int r = op[i].kind == INDEX_PUT ? extent_map_put(map, e)
						: extent_map_delete(map, e->blk, e->nblocks);

		if (r < 0)
			return r;
	}
	return 0;
}

static struct state *find_state(struct index_mem *m, const char *key)
{
	struct list_node *n;

	list_for_each(n, &m->states)
		if (!strcmp(list_entry(n, struct state, link)->key, key))
			return list_entry(n, struct state, link);
	return NULL;
}

static void drop_state(struct state *st)
{
	if (!st)
		return;
	list_del(&st->link);
	free(st);
}

static int mem_put_state(struct index_store *s, const char *key, const void *value, size_t length)
{
	struct index_mem *m = from_store(s);
	struct state *st;

	if (strlen(key) >= sizeof(st->key))
		return -EINVAL;
	st = malloc(sizeof(*st) + length);
	if (!st)
		return -ENOMEM;
	strcpy(st->key, key);
	st->length = length;
	if (length)
		memcpy(st->value, value, length);
	drop_state(find_state(m, key));
	list_add_tail(&m->states, &st->link);
	return 0;
}

static int mem_get_state(struct index_store *s, const char *key, void *value, size_t max,
			 size_t *ret_length)
{
	struct state *st = find_state(from_store(s), key);

	if (!st)
		return -ENOENT;
	if (st->length > max)
		return -EMSGSIZE;
	if (st->length)
		memcpy(value, st->value, st->length);
	*ret_length = st->length;
	return 0;
}

static int mem_wipe(struct index_store *s)
{
	struct index_mem *m = from_store(s);

	extent_map_clear(&m->map);
	while (!list_empty(&m->states))
		drop_state(list_first(&m->states, struct state, link));
	return 0;
}

static void mem_destroy(struct index_store *s)
{
	mem_wipe(s);
	free(from_store(s));
}

static const struct index_store_ops mem_ops = {
	.load = mem_load,
	.apply = mem_apply,
	.put_state = mem_put_state,
	.get_state = mem_get_state,
	.wipe = mem_wipe,
	.destroy = mem_destroy,
};

struct index_store *index_mem_create(void)
{
	struct index_mem *m = calloc(1, sizeof(*m));

	if (!m)
		return NULL;
	m->store.ops = &mem_ops;
	m->store.fresh = true;
	extent_map_init(&m->map);
	list_init(&m->states);
	return &m->store;
}
