// SPDX-License-Identifier: Apache-2.0
/*
 * Invariants: replaying `pending` in order over `durable` gives `now`. A commit
 * may take changes out of the middle of the list, but never one without those
 * before it that touch the same page: a kernel writes back whole pages.
 */
#include "tests/lib/simimage.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/range.h"

#define PAGE 4096ull

/*
 * Buffers of whole images, powers of two of at least ROOM_MIN, are kept when they are given back:
 * under AddressSanitizer each new one would be fresh pages, and there are thousands.
 */
#define ROOM_MIN (64ull << 10)
#define ROOM_CLASSES 24
#define ROOM_KEPT 32 /* of a class */

static uint8_t *kept[ROOM_CLASSES][ROOM_KEPT];
static unsigned nkept[ROOM_CLASSES];

static unsigned room_class(uint64_t bytes)
{
	return (unsigned)__builtin_ctzll(bytes / ROOM_MIN);
}

/* Its contents are of no meaning. */
static uint8_t *room_get(uint64_t bytes)
{
	unsigned class = room_class(bytes);

	return nkept[class] ? kept[class][--nkept[class]] : sim_alloc(bytes);
}

static void room_put(uint8_t *room, uint64_t bytes)
{
	unsigned class;

	if (!room)
		return;
	class = room_class(bytes);
	if (nkept[class] < ROOM_KEPT)
		kept[class][nkept[class]++] = room;
	else
		free(room);
}

static uint8_t *room_grown(uint8_t *old, uint64_t old_bytes, uint64_t bytes)
{
	uint8_t *p = room_get(bytes);

	if (old)
		memcpy(p, old, old_bytes);
	memset(p + old_bytes, 0, bytes - old_bytes);
	room_put(old, old_bytes);
	return p;
}

static void grow_room(struct simimage *img, uint64_t bytes)
{
	uint64_t room = img->room_bytes;

	if (bytes <= room)
		return;
	while (room < bytes)
		room = room ? 2 * room : ROOM_MIN;
	assert(room_class(room) < ROOM_CLASSES);
	img->now = room_grown(img->now, img->room_bytes, room);
	img->durable = room_grown(img->durable, img->room_bytes, room);
	img->room_bytes = room;
}

void simimage_init(struct simimage *img, uint64_t bytes)
{
	*img = (struct simimage){ .clock = 1 };
	list_init(&img->pending);
	grow_room(img, bytes);
	img->now_bytes = bytes;
	img->durable_bytes = bytes;
}

static void drop(struct simimage *img, struct simchange *c)
{
	list_del(&c->link);
	img->npending--;
	free(c->data);
	free(c);
}

void simimage_free(struct simimage *img)
{
	while (!list_empty(&img->pending))
		drop(img, list_first(&img->pending, struct simchange, link));
	room_put(img->now, img->room_bytes);
	room_put(img->durable, img->room_bytes);
}

static void apply(const struct simchange *c, uint8_t *bytes, uint64_t *size)
{
	if (c->resize) {
		if (c->offset < *size)
			memset(bytes + c->offset, 0, *size - c->offset);
		*size = c->offset;
		return;
	}
	if (c->data)
		memcpy(bytes + c->offset, c->data, c->length);
	else
		memset(bytes + c->offset, 0, c->length);
	*size = MAX(*size, c->offset + c->length);
}

static struct simchange *add(struct simimage *img)
{
	struct simchange *c = sim_alloc(sizeof(*c));

	c->id = ++img->clock;
	list_add_tail(&img->pending, &c->link);
	img->npending++;
	return c;
}

static bool is_zero(const uint8_t *data, uint64_t length)
{
	return length && data[0] == 0 && memcmp(data, data + 1, length - 1) == 0;
}

uint64_t simimage_change(struct simimage *img, uint64_t offset, uint64_t length, const void *data)
{
	struct simchange *c = add(img);

	grow_room(img, offset + length);
	c->offset = offset;
	c->length = length;
	/* Most bytes ever written are zeroes: segments that are made ready. */
	if (data && !is_zero(data, length)) {
		c->data = sim_alloc(length);
		memcpy(c->data, data, length);
	}
	apply(c, img->now, &img->now_bytes);
	return c->id;
}

uint64_t simimage_resize(struct simimage *img, uint64_t bytes)
{
	struct simchange *c = add(img);

	grow_room(img, bytes);
	c->resize = true;
	c->offset = bytes;
	apply(c, img->now, &img->now_bytes);
	return c->id;
}

static struct simchange *find(struct simimage *img, uint64_t id)
{
	struct list_node *n;

	for (n = img->pending.prev; n != &img->pending; n = n->prev)
		if (list_entry(n, struct simchange, link)->id == id)
			return list_entry(n, struct simchange, link);
	return NULL; /* committed already */
}

void simimage_complete(struct simimage *img, uint64_t id)
{
	struct simchange *c = find(img, id);

	if (c)
		c->completed = ++img->clock;
}

uint64_t simimage_mark(struct simimage *img)
{
	return ++img->clock;
}

static bool same_page(const struct simchange *a, const struct simchange *b)
{
	if (a->resize || b->resize)
		return true; /* keep sizes in order */
	return a->offset / PAGE <= (b->offset + b->length - 1) / PAGE &&
	       b->offset / PAGE <= (a->offset + a->length - 1) / PAGE;
}

/* Commit all with take set, and what must go before them. */
static void commit_taken(struct simimage *img)
{
	struct list_node *n;
	struct list_node *tmp;
	struct list_node *later;

	for (n = img->pending.prev; n != &img->pending; n = n->prev) {
		struct simchange *c = list_entry(n, struct simchange, link);

		for (later = n->next; !c->take && later != &img->pending; later = later->next) {
			struct simchange *l = list_entry(later, struct simchange, link);

			c->take = l->take && same_page(c, l);
		}
	}
	list_for_each_safe(n, tmp, &img->pending) {
		struct simchange *c = list_entry(n, struct simchange, link);

		if (!c->take)
			continue;
		apply(c, img->durable, &img->durable_bytes);
		drop(img, c);
	}
}

static bool covered(const struct simchange *c, uint64_t mark)
{
	return c->completed && c->completed <= mark && !c->poisoned;
}

void simimage_commit(struct simimage *img, uint64_t mark)
{
	struct list_node *n;

	list_for_each(n, &img->pending) {
		struct simchange *c = list_entry(n, struct simchange, link);

		c->take = covered(c, mark);
	}
	commit_taken(img);
}

void simimage_commit_one(struct simimage *img, uint64_t id)
{
	struct simchange *c = find(img, id);

	if (!c)
		return;
	c->take = true;
	commit_taken(img);
}

void simimage_poison(struct simimage *img, uint64_t mark)
{
	struct list_node *n;

	list_for_each(n, &img->pending) {
		struct simchange *c = list_entry(n, struct simchange, link);

		c->poisoned = c->poisoned || covered(c, mark);
	}
}

void simimage_bound(struct simimage *img, uint64_t max)
{
	while (img->npending > max) {
		struct simchange *c = list_first(&img->pending, struct simchange, link);

		apply(c, img->durable, &img->durable_bytes);
		drop(img, c);
	}
}

/* How a cut treats what was volatile; the extremes are worth more than their share. */
enum cut_mood { CUT_LOSE_ALL, CUT_KEEP_ALL, CUT_MIX };

static enum cut_mood mood(struct sim *sim)
{
	uint64_t dice = sim_below(sim, 8);

	return dice == 0 ? CUT_LOSE_ALL : dice == 1 ? CUT_KEEP_ALL : CUT_MIX;
}

/* Into @chosen, of room_bytes, with @replay of the same size to work in. Returns the size chosen.
 */
static uint64_t mix(const struct simimage *img, struct sim *sim, uint64_t unit_bytes,
		    uint8_t *chosen, uint8_t *replay)
{
	uint64_t room = img->room_bytes;
	cleanup_free uint32_t *versions = sim_alloc(div_round_up(room, unit_bytes) * 4);
	uint64_t chosen_bytes = img->durable_bytes, replay_bytes = img->durable_bytes;
	uint64_t sizes = 1;
	struct list_node *n;

	if (room) {
		memcpy(chosen, img->durable, room);
		memcpy(replay, img->durable, room);
	}
	/* Reservoir sampling: of k versions of a unit each is chosen with probability 1/k. */
	list_for_each(n, &img->pending) {
		struct simchange *c = list_entry(n, struct simchange, link);
		uint64_t old_bytes = replay_bytes;
		uint64_t from = c->resize ? MIN(c->offset, old_bytes) : c->offset;
		uint64_t to = c->resize ? old_bytes : c->offset + c->length;

		apply(c, replay, &replay_bytes);
		if (replay_bytes != old_bytes && sim_once_in(sim, ++sizes))
			chosen_bytes = replay_bytes;
		for (uint64_t u = from / unit_bytes; u * unit_bytes < to; u++) {
			uint64_t at = u * unit_bytes;

			if (sim_once_in(sim, ++versions[u] + 1))
				memcpy(chosen + at, replay + at, MIN(unit_bytes, room - at));
		}
	}
	if (chosen_bytes < room)
		memset(chosen + chosen_bytes, 0, room - chosen_bytes);
	return chosen_bytes;
}

/* The same, in any mood. */
static uint64_t choose(const struct simimage *img, struct sim *sim, uint64_t unit_bytes,
		       uint8_t *chosen)
{
	enum cut_mood m = mood(sim);
	uint8_t *replay;
	uint64_t bytes;

	if (m != CUT_MIX) {
		if (img->room_bytes)
			memcpy(chosen, m == CUT_KEEP_ALL ? img->now : img->durable,
			       img->room_bytes);
		return m == CUT_KEEP_ALL ? img->now_bytes : img->durable_bytes;
	}
	replay = img->room_bytes ? room_get(img->room_bytes) : NULL;
	bytes = mix(img, sim, unit_bytes, chosen, replay);
	room_put(replay, img->room_bytes);
	return bytes;
}

uint8_t *simimage_cut_copy(const struct simimage *img, struct sim *sim, uint64_t unit_bytes,
			   uint64_t *ret_bytes)
{
	uint8_t *chosen = sim_alloc(img->room_bytes);

	*ret_bytes = choose(img, sim, unit_bytes, chosen);
	return chosen;
}

void simimage_cut(struct simimage *img, struct sim *sim, uint64_t unit_bytes)
{
	uint8_t *left = img->room_bytes ? room_get(img->room_bytes) : NULL;
	uint64_t bytes = choose(img, sim, unit_bytes, left);

	while (!list_empty(&img->pending))
		drop(img, list_first(&img->pending, struct simchange, link));
	room_put(img->durable, img->room_bytes);
	img->durable = left;
	img->durable_bytes = bytes;
	img->now_bytes = bytes;
	if (img->room_bytes)
		memcpy(img->now, left, img->room_bytes);
}
