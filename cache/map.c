// SPDX-License-Identifier: Apache-2.0
/*
 * States of a directory word: DIR_NONE (0, what fresh memory holds), DIR_ZERO,
 * or the address of a leaf. A leaf is 256 entries and, behind them, the number of entries that are
 * not NONE; it is freed when that falls to 0. Invariants: data_blocks and bad_blocks count the
 * entries of their state over all leaves; leaves counts the addresses.
 *
 * The directory is one anonymous mapping without reservation: only what is
 * touched costs memory, 8 bytes per MiB of volume.
 */
#include "cache/map.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "core/cleanup.h"
#include "core/range.h"

#define DIR_NONE ((uintptr_t)0)
#define DIR_ZERO ((uintptr_t)1)
#define LEAF_USED MAP_LEAF_BLOCKS

int map_init(struct map *m, uint64_t nblocks)
{
	void *p;

	*m = (struct map){ .nblocks = nblocks, .ngroups = div_round_up(nblocks, MAP_LEAF_BLOCKS) };
	p = mmap(NULL, m->ngroups * sizeof(uintptr_t), PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED)
		return -ENOMEM;
	m->dir = p;
	return 0;
}

static uint64_t *leaf_of(uintptr_t word)
{
	return word > DIR_ZERO ? (uint64_t *)word : NULL;
}

void map_fini(struct map *m)
{
	if (!m->dir)
		return;
	for (uint64_t g = 0; m->leaves && g < m->ngroups; g++) {
		uint64_t *leaf = leaf_of(m->dir[g]);

		if (leaf) {
			free(leaf);
			m->leaves--;
		}
	}
	munmap(m->dir, m->ngroups * sizeof(uintptr_t));
	*m = (struct map){ 0 };
}

uint64_t map_get(const struct map *m, uint64_t blk)
{
	uintptr_t word;
	uint64_t *leaf;

	assert(blk < m->nblocks);
	word = m->dir[blk / MAP_LEAF_BLOCKS];
	leaf = leaf_of(word);
	if (leaf)
		return leaf[blk % MAP_LEAF_BLOCKS];
	return word == DIR_ZERO ? MAP_ENTRY_ZERO : MAP_ENTRY_NONE;
}

static uint64_t *leaf_make(struct map *m, uint64_t group)
{
	uint64_t *leaf = leaf_of(m->dir[group]);

	if (leaf)
		return leaf;
	leaf = malloc((MAP_LEAF_BLOCKS + 1) * sizeof(*leaf));
	if (!leaf)
		return NULL;
	for (unsigned i = 0; i < MAP_LEAF_BLOCKS; i++)
		leaf[i] = m->dir[group] == DIR_ZERO ? MAP_ENTRY_ZERO : MAP_ENTRY_NONE;
	leaf[LEAF_USED] = m->dir[group] == DIR_ZERO ? MAP_LEAF_BLOCKS : 0;
	m->dir[group] = (uintptr_t)leaf;
	m->leaves++;
	return leaf;
}

int map_reserve(struct map *m, uint64_t blk, uint64_t n)
{
	assert(n && range_inside(blk, n, m->nblocks));
	for (uint64_t g = blk / MAP_LEAF_BLOCKS; g <= (blk + n - 1) / MAP_LEAF_BLOCKS; g++)
		if (!leaf_make(m, g))
			return -ENOMEM;
	return 0;
}

static void count(struct map *m, uint64_t entry, int64_t by)
{
	if (map_entry_state(entry) == MAP_DATA)
		m->data_blocks += (uint64_t)by;
	else if (map_entry_state(entry) == MAP_BAD)
		m->bad_blocks += (uint64_t)by;
}

/* All of one group: no leaf is needed for NONE and ZERO. */
static void fill_group(struct map *m, uint64_t group, uint64_t entry)
{
	uint64_t *leaf = leaf_of(m->dir[group]);

	if (leaf) {
		for (unsigned i = 0; i < MAP_LEAF_BLOCKS; i++)
			count(m, leaf[i], -1);
		free(leaf);
		m->leaves--;
	}
	m->dir[group] = entry == MAP_ENTRY_ZERO ? DIR_ZERO : DIR_NONE;
}

int map_grow(struct map *m, uint64_t nblocks)
{
	uint64_t groups = div_round_up(nblocks, MAP_LEAF_BLOCKS),
		 last = m->nblocks / MAP_LEAF_BLOCKS;
	unsigned tail = (unsigned)(m->nblocks % MAP_LEAF_BLOCKS);
	uint64_t *leaf = NULL;
	void *p;

	assert(nblocks >= m->nblocks && m->nblocks);
	/* What says ZERO for a last group that was not whole says it of its new blocks too. */
	if (tail && m->dir[last] != DIR_NONE) {
		leaf = leaf_make(m, last);
		if (!leaf)
			return -ENOMEM;
	}
	if (groups != m->ngroups) {
		p = mremap(m->dir, m->ngroups * sizeof(uintptr_t), groups * sizeof(uintptr_t),
			   MREMAP_MAYMOVE);
		if (p == MAP_FAILED)
			return -ENOMEM;
		m->dir = p;
		m->ngroups = groups;
	}
	for (unsigned i = tail; leaf && i < MAP_LEAF_BLOCKS; i++) {
		leaf[LEAF_USED] -= leaf[i] != MAP_ENTRY_NONE;
		leaf[i] = MAP_ENTRY_NONE;
	}
	if (leaf && leaf[LEAF_USED] == 0)
		fill_group(m, last, MAP_ENTRY_NONE);
	m->nblocks = nblocks;
	return 0;
}

void map_set(struct map *m, uint64_t blk, uint64_t entry)
{
	uint64_t group = blk / MAP_LEAF_BLOCKS;
	uint64_t *leaf, *at;

	assert(blk < m->nblocks);
	if (entry == MAP_ENTRY_NONE && m->dir[group] == DIR_NONE)
		return;
	leaf = leaf_make(m, group);
	assert(leaf);
	at = &leaf[blk % MAP_LEAF_BLOCKS];
	count(m, *at, -1);
	leaf[LEAF_USED] += (uint64_t)(entry != MAP_ENTRY_NONE) - (uint64_t)(*at != MAP_ENTRY_NONE);
	*at = entry;
	count(m, entry, 1);
	if (leaf[LEAF_USED] == 0)
		fill_group(m, group, MAP_ENTRY_NONE);
}

void map_fill(struct map *m, uint64_t blk, uint64_t n, uint64_t entry)
{
	uint64_t end = blk + n;

	assert(map_entry_state(entry) != MAP_DATA);
	assert(range_inside(blk, n, m->nblocks));
	while (blk < end) {
		uint64_t group = blk / MAP_LEAF_BLOCKS;
		uint64_t group_end = MIN((group + 1) * MAP_LEAF_BLOCKS, m->nblocks);
		uint64_t to = MIN(group_end, end);
		bool whole = blk % MAP_LEAF_BLOCKS == 0 && to == group_end;
		uintptr_t same = entry == MAP_ENTRY_ZERO ? DIR_ZERO : DIR_NONE;

		if (whole && entry != MAP_ENTRY_BAD)
			fill_group(m, group, entry);
		else if (entry == MAP_ENTRY_BAD || m->dir[group] != same)
			for (; blk < to; blk++)
				map_set(m, blk, entry);
		blk = to;
	}
}

uint64_t map_run(const struct map *m, uint64_t blk, uint64_t max, enum map_state *ret_state)
{
	enum map_state state = map_entry_state(map_get(m, blk));
	uint64_t end = MIN(blk + max, m->nblocks), at = blk;

	*ret_state = state;
	while (at < end) {
		uintptr_t word = m->dir[at / MAP_LEAF_BLOCKS];
		uint64_t *leaf = leaf_of(word);
		uint64_t group_end = MIN((at / MAP_LEAF_BLOCKS + 1) * MAP_LEAF_BLOCKS, end);

		if (!leaf) {
			if ((word == DIR_ZERO ? MAP_ZERO : MAP_NONE) != state)
				break;
			at = group_end;
			continue;
		}
		while (at < group_end && map_entry_state(leaf[at % MAP_LEAF_BLOCKS]) == state)
			at++;
		if (at < group_end)
			break;
	}
	return at - blk;
}

void map_check(const struct map *m)
{
	uint64_t data = 0, bad = 0, leaves = 0, used;

	for (uint64_t g = 0; g < m->ngroups; g++) {
		uint64_t *leaf = leaf_of(m->dir[g]);

		if (!leaf)
			continue;
		leaves++;
		used = 0;
		for (unsigned i = 0; i < MAP_LEAF_BLOCKS; i++) {
			data += map_entry_state(leaf[i]) == MAP_DATA;
			bad += map_entry_state(leaf[i]) == MAP_BAD;
			used += leaf[i] != MAP_ENTRY_NONE;
		}
		assert(used == leaf[LEAF_USED]);
	}
	assert(data == m->data_blocks && bad == m->bad_blocks && leaves == m->leaves);
}
